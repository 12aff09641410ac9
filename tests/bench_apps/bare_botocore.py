"""The same with botocore alone, which is less to import."""

from typing import Any

from botocore.session import get_session
from chalice.app import Chalice

app = Chalice(app_name="bare")
client: Any = get_session().create_client("dynamodb")


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
