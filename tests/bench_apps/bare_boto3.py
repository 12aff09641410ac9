"""What one writes first: a Chalice route that puts one item with boto3."""

from typing import Any

import boto3
from chalice.app import Chalice

app = Chalice(app_name="bare")
client = boto3.client("dynamodb")


@app.route(
    "/webhooks/{inbox}", methods=["POST"], content_types=["application/x-www-form-urlencoded"]
)
def webhook(inbox: str) -> dict[str, str]:
    request: Any = app.current_request
    client.put_item(
        TableName="askonce",
        Item={
            "pk": {"S": inbox},
            "sk": {"S": request.headers["x-twilio-signature"]},
            "body": {"S": request.raw_body.decode()},
        },
        ConditionExpression="attribute_not_exists(pk)",
    )
    return {}
