"""The local world's resources are those that CloudFormation makes of infra/resources.yaml."""

import json
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infra.local.aws import ENVIRONMENT
from infra.local.resources import RESOURCES, create_resources


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def by_cloudformation() -> str:
    client = boto3.client("cloudformation")
    client.create_stack(
        StackName="askonce",
        TemplateBody=RESOURCES.read_text(encoding="utf-8"),
        Parameters=[{"ParameterKey": "Prefix", "ParameterValue": "askonce"}],
    )
    outputs = client.describe_stacks(StackName="askonce")["Stacks"][0]["Outputs"]
    return str(next(o["OutputValue"] for o in outputs if o["OutputKey"] == "Bucket"))


def table() -> dict[str, Any]:
    told: Any = boto3.client("dynamodb").describe_table(TableName="askonce")["Table"]
    names = ("KeySchema", "GlobalSecondaryIndexes", "StreamSpecification", "AttributeDefinitions")
    return {name: told[name] for name in names}


def queues() -> dict[str, Any]:
    client = boto3.client("sqs")
    found = {}
    for url in client.list_queues()["QueueUrls"]:
        told = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        dead = json.loads(told.pop("RedrivePolicy", "{}"))
        attributes = {k: v for k, v in told.items() if not k.endswith("Timestamp")}
        found[url.rpartition("/")[2]] = attributes | {
            "dead": (dead.get("deadLetterTargetArn"), int(dead.get("maxReceiveCount", 0)))
        }
    return found


def bucket(name: str) -> dict[str, Any]:
    return {"name": name, "sealed": sealed(name)["ApplyServerSideEncryptionByDefault"]}


def sealed(name: str) -> dict[str, Any]:
    told: Any = boto3.client("s3").get_bucket_encryption(Bucket=name)
    (rule,) = told["ServerSideEncryptionConfiguration"]["Rules"]
    return dict(rule)


def topics() -> list[Any]:
    client = boto3.client("sns")
    arns = [topic["TopicArn"] for topic in client.list_topics()["Topics"]]
    return [client.get_topic_attributes(TopicArn=arn)["Attributes"] for arn in arns]


def key() -> dict[str, Any]:
    """Not its policy: moto's CloudFormation keeps that in a form that moto's KMS cannot read."""
    client = boto3.client("kms")
    (alias,) = (a for a in client.list_aliases()["Aliases"] if a["AliasName"] == "alias/askonce")
    known = {k["KeyId"]: k["KeyArn"] for k in client.list_keys()["Keys"]}
    arn = next(a for i, a in known.items() if alias["TargetKeyId"] in (i, a))
    rotation = client.get_key_rotation_status(KeyId=arn)
    return {"arn": arn, "rotates": rotation["KeyRotationEnabled"]}


def everything(name: str) -> Any:
    """All of it, with the name that chance gave the key replaced."""
    sealing = key()
    found = {"table": table(), "queues": queues(), "bucket": bucket(name), "topics": topics()}
    told = json.dumps(found | {"key": sealing})
    return json.loads(told.replace(sealing["arn"], "the key's ARN"))


def test_they_are_what_cloudformation_makes() -> None:
    with mock_aws():
        theirs = everything(by_cloudformation())
    with mock_aws():
        assert everything(create_resources("askonce")) == theirs


def test_they_have_what_motos_cloudformation_skips_too() -> None:
    with mock_aws():
        name = create_resources("askonce")
        rules = boto3.client("s3").get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
        cors = boto3.client("s3").get_bucket_cors(Bucket=name)
        told = boto3.client("dynamodb").describe_time_to_live(TableName="askonce")
        blocked = boto3.client("s3").get_public_access_block(Bucket=name)
        one_call_for_many_objects = sealed(name)["BucketKeyEnabled"]
        policy = boto3.client("kms").get_key_policy(KeyId=key()["arn"], PolicyName="default")
        assert "ses.amazonaws.com" in policy["Policy"]
        table_told: Any = boto3.client("dynamodb").describe_table(TableName="askonce")["Table"]
        assert table_told["SSEDescription"]["KMSMasterKeyArn"] == key()["arn"]
    assert one_call_for_many_objects
    assert cors["CORSRules"][0]["AllowedMethods"] == ["POST"]
    assert {rule["ID"]: rule["Expiration"]["Days"] for rule in rules}.keys() == {
        "retention",
        "uploads",
    }
    assert told["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"
    assert all(blocked["PublicAccessBlockConfiguration"].values())
