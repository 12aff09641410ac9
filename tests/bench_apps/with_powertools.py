"""The same with Powertools' resolver and idempotency, unsigned: three calls a message."""

from typing import Any
from urllib.parse import parse_qsl

import boto3
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

client: Any = boto3.client("dynamodb")
resolver = APIGatewayRestResolver()
layer = DynamoDBPersistenceLayer(table_name="askonce", boto3_client=client)
config = IdempotencyConfig(event_key_jmespath="MessageSid")


@idempotent_function(data_keyword_argument="form", persistence_store=layer, config=config)
def store(form: dict[str, str]) -> dict[str, str]:
    """One put, once for every id."""
    client.put_item(
        TableName="askonce",
        Item={
            "pk": {"S": form["From"]},
            "sk": {"S": form["MessageSid"]},
            "body": {"S": form["Body"]},
        },
    )
    return {}


@resolver.post("/webhooks/<inbox>")
def webhook(inbox: str) -> dict[str, str]:
    """What the resolver finds for it."""
    body = resolver.current_event.body or ""
    return store(form=dict(parse_qsl(body)))  # type: ignore[no-any-return]  # the decorator's


def app(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The handler, under the name that the front calls."""
    config.register_lambda_context(context)
    return resolver.resolve(event, context)
