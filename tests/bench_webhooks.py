"""One genuine webhook of each channel, for the inboxes of askonce.toml, as the gateway gives it."""

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from connectors.webchat_tokens import Tokens
from infra.local import simulators
from infra.local.simulators import Sent

TEXT = "Where is my order 20260311-7? It should have come on Monday."
_SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
_AES_KEY = base64.b64encode(bytes(range(32))).decode().rstrip("=")
_URL, _ORIGIN = "https://askonce.example", "https://shop.example"
#: What askonce.toml refers to.
SECRETS = {
    "ASKONCE_PUBLIC_URL": _URL,
    "ASKONCE_WECHAT_APP_SECRET": "s",
    "ASKONCE_WECHAT_TOKEN": "a-token-of-wechat",
    "ASKONCE_WECHAT_AES_KEY": _AES_KEY,
    "ASKONCE_EMAIL_SECRET": _SECRET,
    "ASKONCE_SMTP_URL": "smtp://127.0.0.1:2525",
    "ASKONCE_TWILIO_TOKEN": "twilio-token",
    "ASKONCE_WEBCHAT_SECRET": "c" * 40,
    "ASKONCE_IDENTITY_SECRET": "i" * 40,
    "ASKONCE_DESK_SECRET": _SECRET,
}


def wechat() -> Sent:
    keys = {
        "app_id": "wx5f0e1c2d3b4a6978",
        "token": SECRETS["ASKONCE_WECHAT_TOKEN"],
        "aes_key": _AES_KEY,
    }
    return simulators.wechat(keys, "oLi", simulators.wechat_text(TEXT))


def sms() -> Sent:
    keys = {
        "account_sid": "AC5ef8732a3c49700934481addd5ce1659",
        "token": SECRETS["ASKONCE_TWILIO_TOKEN"],
        "number": "+14155550100",
        "public_url": _URL,
    }
    return simulators.twilio(keys, "+8613800138000", TEXT)


def email() -> Sent:
    return simulators.email(
        _SECRET, sender="li@example.com", name="Li", to="help@shop.example", text=TEXT,
        subject="My order",
    )  # fmt: skip


def webchat() -> Sent:
    tokens = Tokens(
        inbox="webchat",
        secret=SecretStr(SECRETS["ASKONCE_WEBCHAT_SECRET"]),
        identity_secret=None,
        minutes=60,
    )
    token, _ = tokens.issue({"sub": f"v{'0' * 32}"}, _ORIGIN, datetime.now(UTC))
    return simulators.webchat_message(token, _ORIGIN, TEXT)


CHANNELS: dict[str, Callable[[], Sent]] = {
    "sms": sms,
    "email": email,
    "wechat": wechat,
    "webchat": webchat,
}
#: Those whose response may carry an answer: older than that, a request is only stored.
ANSWERING, TOO_LATE_SECONDS = ("wechat", "webchat"), 20
_BINARY = ("multipart/form-data", "message/rfc822", "application/octet-stream")


def event(sent: Sent, age_seconds: float = 0) -> dict[str, Any]:
    """API Gateway's event (REST API, version 1) for a request that arrived so long ago."""
    _, area, inbox, *rest = sent.path.split("/")
    resource = "/".join(["", area, "{inbox}", *rest])
    binary = sent.headers.get("Content-Type", "").partition(";")[0] in _BINARY
    return {
        "resource": resource,
        "path": sent.path,
        "httpMethod": sent.method,
        "headers": sent.headers,
        "multiValueHeaders": {name: [value] for name, value in sent.headers.items()},
        "queryStringParameters": sent.query or None,
        "multiValueQueryStringParameters": {n: [v] for n, v in sent.query.items()} or None,
        "pathParameters": {"inbox": inbox},
        "stageVariables": None,
        "body": base64.b64encode(sent.body).decode() if binary else sent.body.decode(),
        "isBase64Encoded": binary,
        "requestContext": {
            "resourcePath": resource,
            "httpMethod": sent.method,
            "identity": {"sourceIp": "192.0.2.1"},
            "requestId": "1",
            "requestTimeEpoch": int((time.time() - age_seconds) * 1000),
        },
    }


def event_json(channel: str, age_seconds: float = 0) -> str:
    return json.dumps(event(CHANNELS[channel](), age_seconds))
