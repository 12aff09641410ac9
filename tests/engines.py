"""Another engine than moto for the tests that rest on AWS: a server that speaks its protocols.

`make rehearse` starts one and names it in ASKONCE_TESTS_ENGINE; one process at a time may use it.
"""

import os
from functools import cache
from typing import Any

from chalicelib import aws
from infra.local.resources import RESOURCES

#: The engine's address; "" is moto, in process.
URL = os.environ.get("ASKONCE_TESTS_ENGINE", "")
#: What the tests of both engines run on, beside the fake table.
KINDS = ["engine"] if URL else ["memory", "moto"]


def emptied(prefix: str) -> str:
    """The stack of infra/resources.yaml, with nothing in its table. Returns the bucket."""
    aws.client.cache_clear()  # with what an earlier test hung on to it
    _create(prefix)
    dynamodb: Any = aws.client("dynamodb", seconds=30)
    for page in dynamodb.get_paginator("scan").paginate(TableName=prefix):
        for item in page["Items"]:
            dynamodb.delete_item(TableName=prefix, Key={k: item[k] for k in ("pk", "sk")})
    return _create(prefix)


@cache
def _create(prefix: str) -> str:
    """By the engine's own CloudFormation, once; other things than in a deployment beside it."""
    cloudformation: Any = aws.client("cloudformation")
    cloudformation.create_stack(
        StackName=f"{prefix}-data",
        TemplateBody=RESOURCES.read_text(encoding="utf-8"),
        Parameters=[{"ParameterKey": "Prefix", "ParameterValue": prefix}],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=f"{prefix}-data")
    stack = cloudformation.describe_stacks(StackName=f"{prefix}-data")["Stacks"][0]
    return str(next(o["OutputValue"] for o in stack["Outputs"] if o["OutputKey"] == "Bucket"))
