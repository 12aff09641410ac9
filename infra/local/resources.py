"""The resources of infra/resources.yaml, made by the services' own calls.

moto has a CloudFormation, too; it imports every service that moto knows, which takes longer than
all the rest of a start. tests/test_local_resources.py holds the two against each other.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra import template

RESOURCES = Path(__file__).resolve().parent.parent / "resources.yaml"
_ACCOUNT, _REGION = "123456789012", "us-east-1"
Properties = dict[str, Any]


def create_resources(prefix: str) -> str:
    """Make them all. Returns the bucket."""
    whole = template.read(RESOURCES)
    stated, names = whole["Resources"], _names(whole, prefix)
    names["Key.Arn"] = _key(template.rendered(stated.pop("Key")["Properties"], names))
    resources = template.rendered(stated, names)
    for resource in sorted(resources.values(), key=_needs_others):
        _MAKERS[resource["Type"]](resource["Properties"])
    return str(resources["Bytes"]["Properties"]["BucketName"])


def key_arn(prefix: str) -> str:
    """The key that seals them."""
    return str(_client("kms").describe_key(KeyId=f"alias/{prefix}")["KeyMetadata"]["Arn"])


def _needs_others(resource: Mapping[str, Any]) -> bool:
    return "RedrivePolicy" in resource["Properties"]


def _names(whole: Any, prefix: str) -> dict[str, Any]:
    """What each reference of the template stands for; the key's is known once it is made."""
    names: dict[str, Any] = {
        **{name: _default(parameter) for name, parameter in whole["Parameters"].items()},
        "Prefix": prefix,
        "AWS::AccountId": _ACCOUNT,
        "AWS::Partition": "aws",
        "AWS::Region": _REGION,
    }
    for name, resource in whole["Resources"].items():
        if resource["Type"] == "AWS::SQS::Queue":
            queue = template.rendered(resource["Properties"]["QueueName"], names)
            names[f"{name}.Arn"] = f"arn:aws:sqs:{_REGION}:{_ACCOUNT}:{queue}"
    return names


def _default(parameter: Mapping[str, Any]) -> Any:
    value = parameter["Default"]
    return value.split(",") if parameter["Type"] == "CommaDelimitedList" else value


# The calls


def _client(service: str) -> Any:
    import boto3

    make: Any = boto3.client  # its types want the service's name spelt out
    return make(service)


def _key(properties: Properties) -> str:
    client = _client("kms")
    made: str = client.create_key(
        Description=properties["Description"], Policy=json.dumps(properties["KeyPolicy"])
    )["KeyMetadata"]["Arn"]
    if properties["EnableKeyRotation"]:
        client.enable_key_rotation(KeyId=made)
    return made


def _alias(properties: Properties) -> None:
    _client("kms").create_alias(**properties)


def _table(properties: Properties) -> None:
    """CloudFormation takes in one what DynamoDB takes in three."""
    table = dict(properties)
    lifetime = table.pop("TimeToLiveSpecification")
    recovery = table.pop("PointInTimeRecoverySpecification")
    sealed = table["SSESpecification"]
    table["SSESpecification"] = {
        "Enabled": sealed["SSEEnabled"],
        "SSEType": sealed["SSEType"],
        "KMSMasterKeyId": sealed["KMSMasterKeyId"],
    }
    table["StreamSpecification"] = {"StreamEnabled": True, **table["StreamSpecification"]}
    client, name = _client("dynamodb"), table["TableName"]
    client.create_table(**table)
    client.update_time_to_live(TableName=name, TimeToLiveSpecification=lifetime)
    client.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=recovery)


def _queue(properties: Properties) -> None:
    attributes = {
        name: json.dumps(value) if isinstance(value, (dict, bool)) else str(value)
        for name, value in properties.items()
        if name != "QueueName"
    }
    _client("sqs").create_queue(QueueName=properties["QueueName"], Attributes=attributes)


def _topic(properties: Properties) -> None:
    attributes = {"KmsMasterKeyId": properties["KmsMasterKeyId"]}
    _client("sns").create_topic(Name=properties["TopicName"], Attributes=attributes)


def _bucket(properties: Properties) -> None:
    client, name = _client("s3"), properties["BucketName"]
    client.create_bucket(Bucket=name)
    client.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"],
    )
    client.put_bucket_encryption(
        Bucket=name, ServerSideEncryptionConfiguration=_encryption(properties["BucketEncryption"])
    )
    client.put_bucket_lifecycle_configuration(
        Bucket=name,
        LifecycleConfiguration={
            "Rules": [_rule(r) for r in properties["LifecycleConfiguration"]["Rules"]]
        },
    )
    rules = [_cors(r) for r in properties["CorsConfiguration"]["CorsRules"]]
    client.put_bucket_cors(Bucket=name, CORSConfiguration={"CORSRules": rules})


def _encryption(told: Properties) -> Properties:
    return {
        "Rules": [
            {
                "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
                "BucketKeyEnabled": rule["BucketKeyEnabled"],
            }
            for rule in told["ServerSideEncryptionConfiguration"]
        ]
    }


def _rule(told: Properties) -> Properties:
    return {
        "ID": told["Id"],
        "Status": told["Status"],
        "Expiration": {"Days": told["ExpirationInDays"]},
        "Filter": {"Prefix": told.get("Prefix", "")},
    }


def _cors(told: Properties) -> Properties:
    return {("MaxAgeSeconds" if key == "MaxAge" else key): value for key, value in told.items()}


_MAKERS: dict[str, Callable[[Properties], None]] = {
    "AWS::KMS::Alias": _alias,
    "AWS::DynamoDB::Table": _table,
    "AWS::SQS::Queue": _queue,
    "AWS::SNS::Topic": _topic,
    "AWS::S3::Bucket": _bucket,
}
