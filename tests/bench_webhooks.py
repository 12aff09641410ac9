"""Genuine webhooks of each channel, for the inboxes of askonce.toml, as the gateway gives it."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pydantic import SecretStr

from connectors.webchat_tokens import Tokens
from infra.local import simulators
from infra.local.simulators import Sent

TEXT = "Where is my order 20260311-7? It should have come on Monday."
_SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
_AES_KEY = base64.b64encode(bytes(range(32))).decode().rstrip("=")
_URL, ORIGIN = "https://askonce.example", "https://shop.example"
ACCOUNT = "AC5ef8732a3c49700934481addd5ce1659"
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


def _wechat(number: int, text: str, at: float) -> Sent:
    keys = {
        "app_id": "wx5f0e1c2d3b4a6978",
        "token": SECRETS["ASKONCE_WECHAT_TOKEN"],
        "aes_key": SECRETS["ASKONCE_WECHAT_AES_KEY"],
    }
    openid = f"o{number:027}"
    return simulators.wechat(keys, openid, simulators.wechat_text(text), at=at)


def _sms(number: int, text: str, _at: float) -> Sent:
    keys = {
        "account_sid": ACCOUNT,
        "token": SECRETS["ASKONCE_TWILIO_TOKEN"],
        "number": "+14155550100",
        "public_url": _URL,
    }
    return simulators.twilio(keys, f"+86138{number:08}", text)


def _email(number: int, text: str, _at: float) -> Sent:
    return simulators.email(
        SECRETS["ASKONCE_EMAIL_SECRET"], sender=f"customer{number:08}@example.com",
        name="Li Lei", to="help@shop.example", text=text, subject="A question",
    )  # fmt: skip


def _webchat(number: int, text: str, _at: float) -> Sent:
    tokens = Tokens(
        inbox="webchat",
        secret=SecretStr(SECRETS["ASKONCE_WEBCHAT_SECRET"]),
        identity_secret=None,
        minutes=60,
    )
    token, _ = tokens.issue({"sub": f"v{number:032}"}, ORIGIN, datetime.now(UTC))
    return simulators.webchat_message(token, ORIGIN, text)


def _one(channel: str) -> Sent:
    return SAYING[channel](0, TEXT, time.time())


#: Channel -> what a customer of that number writes, at a time that only WeChat tells.
SAYING: Mapping[str, Callable[[int, str, float], Sent]] = {
    "wechat": _wechat,
    "sms": _sms,
    "email": _email,
    "webchat": _webchat,
}
CHANNELS: dict[str, Callable[[], Sent]] = {
    channel: partial(_one, channel) for channel in ("sms", "email", "wechat", "webchat")
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
