"""A webhook of Twilio's by hand, with FastAPI: signature, one put, two ways to wait for it."""

import asyncio
import base64
import hashlib
import hmac
from typing import Any

import boto3
from fastapi import FastAPI, Request, Response

TOKEN, URL = b"twilio-token", "https://askonce.example"
app = FastAPI()
client: Any = boto3.client("dynamodb")


def store(path: str, form: dict[str, str], given: str) -> Response:
    """Check and put; the plain way."""
    signed = URL + path + "".join(f"{name}{form[name]}" for name in sorted(form))
    wanted = base64.b64encode(hmac.digest(TOKEN, signed.encode(), hashlib.sha1)).decode()
    if not hmac.compare_digest(wanted.encode(), given.encode()):
        return Response(status_code=401)
    client.put_item(
        TableName="askonce",
        Item={
            "pk": {"S": form["From"]},
            "sk": {"S": form["MessageSid"]},
            "body": {"S": form["Body"]},
        },
        ConditionExpression="attribute_not_exists(pk)",
    )
    return Response("<Response/>", media_type="text/xml")


async def _form(request: Request) -> dict[str, str]:
    return {name: str(value) for name, value in (await request.form()).items()}


@app.post("/webhooks/{inbox}")
async def to_thread(inbox: str, request: Request) -> Response:
    """The put in a thread, the loop free for others."""
    given = request.headers.get("x-twilio-signature", "")
    path = f"/webhooks/{inbox}"
    return await asyncio.to_thread(store, path, await _form(request), given)


@app.post("/plain/{inbox}")
async def inline(inbox: str, request: Request) -> Response:
    """The put where it stands: nobody else is served meanwhile."""
    given = request.headers.get("x-twilio-signature", "")
    return store(f"/webhooks/{inbox}", await _form(request), given)
