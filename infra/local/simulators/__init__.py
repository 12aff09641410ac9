"""What providers do: sign, encrypt, encode, post. The inverse of each connector.

Each function returns the request that the provider would make; `post` makes it. The tests use the
same, and check them against the providers' own libraries.
"""

import base64
import hashlib
import hmac
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from connectors import wechat_wire
from connectors.channels.email_mime import ENVELOPE_HEADER
from connectors.channels.sms_twilio import signature as twilio_signature


@dataclass(frozen=True)
class Sent:
    """A request as a provider makes it."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def url(self, base: str) -> str:
        return base + self.path + (f"?{urlencode(self.query)}" if self.query else "")


@dataclass(frozen=True)
class File:
    """What a customer attaches."""

    name: str
    media_type: str
    content: bytes


def post(sent: Sent, base: str) -> Any:
    """Make the request; returns requests' response, whatever its status."""
    import requests

    return requests.request(
        sent.method, sent.url(base), data=sent.body, headers=sent.headers, timeout=30
    )


# WeChat


def wechat(  # noqa: PLR0913  # a push has that many parts
    secrets_: Mapping[str, str],
    openid: str,
    fields: Mapping[str, str | int],
    *,
    inbox: str = "wechat",
    mode: str = "safe",
    at: float | None = None,
    account: str = "gh_5f0e1c2d3b4a",
    chance: bytes | None = None,
) -> Sent:
    """A push of an Official Account: `fields` without the common ones.

    `secrets_`: app_id, token, aes_key; `chance`: sixteen bytes in place of random ones.
    """
    chance = chance or os.urandom(16)
    now = int(time.time() if at is None else at)
    document = wechat_wire.document(
        {"ToUserName": account, "FromUserName": openid, "CreateTime": now, **fields}
    )
    timestamp, nonce, token = str(now), chance.hex()[:10], secrets_["token"]
    query = {
        "signature": wechat_wire.signature(token, timestamp, nonce),
        "timestamp": timestamp,
        "nonce": nonce,
        "openid": openid,
    }
    if mode != "plain":
        key = wechat_wire.aes_key(secrets_["aes_key"])
        envelope = wechat_wire.encrypt(document.encode(), key, secrets_["app_id"], chance)
        query |= {
            "encrypt_type": "aes",
            "msg_signature": wechat_wire.signature(token, timestamp, nonce, envelope),
        }
        document = wechat_wire.document({"ToUserName": account, "Encrypt": envelope})
    return Sent(
        "POST", f"/webhooks/{inbox}", {"Content-Type": "text/xml"}, query, document.encode()
    )


def wechat_text(text: str) -> dict[str, str | int]:
    return {"MsgType": "text", "Content": text, "MsgId": _wechat_id()}


def wechat_image(media_id: str) -> dict[str, str | int]:
    url = "http://mmbiz.qpic.cn/simulated"
    return {"MsgType": "image", "PicUrl": url, "MediaId": media_id, "MsgId": _wechat_id()}


def wechat_voice(media_id: str, recognition: str = "") -> dict[str, str | int]:
    return {
        "MsgType": "voice",
        "MediaId": media_id,
        "Format": "amr",
        "Recognition": recognition,
        "MsgId": _wechat_id(),
    }


def wechat_event(event: str, key: str = "") -> dict[str, str | int]:
    return {"MsgType": "event", "Event": event, "EventKey": key}


def _wechat_id() -> int:
    return int.from_bytes(os.urandom(7), "big") + 2**60


def wechat_passive_text(secrets_: Mapping[str, str], body: str) -> str | None:
    """What the customer sees of the answer to a push: its text, or None for `success`."""
    if body in ("", "success"):
        return None
    fields = wechat_wire.fields(body.encode())
    if "Encrypt" in fields:
        wanted = wechat_wire.signature(
            secrets_["token"], fields["TimeStamp"], fields["Nonce"], fields["Encrypt"]
        )
        if wanted != fields["MsgSignature"]:
            raise ValueError("WeChat would show an error: MsgSignature is wrong")
        key = wechat_wire.aes_key(secrets_["aes_key"])
        opened = wechat_wire.decrypt(fields["Encrypt"], key, secrets_["app_id"])
        fields = wechat_wire.fields(opened)
    return fields["Content"]


# Email


def email(  # noqa: PLR0913  # a mail has that many parts
    secret: str,
    *,
    sender: str,
    name: str,
    to: str,
    text: str,
    subject: str = "",
    dmarc: str = "pass",
    in_reply_to: str = "",
    file: File | None = None,
    inbox: str = "email",
    message_id: str = "",
    at: float | None = None,
) -> Sent:
    """A mail as a receiving server posts it."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f'"{name}" <{sender}>'
    mail["To"] = to
    mail["Subject"] = subject
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = message_id or f"<{uuid.uuid4().hex}@{sender.partition('@')[2]}>"
    if in_reply_to:
        mail["In-Reply-To"] = in_reply_to
        mail["References"] = in_reply_to
    mail.set_content(text)
    if file:
        main, _, sub = file.media_type.partition("/")
        mail.add_attachment(file.content, maintype=main, subtype=sub, filename=file.name)
    envelope = {"mail_from": sender, "rcpt_to": [to], "dmarc": dmarc}
    return signed_mail(secret, mail.as_bytes(), envelope, inbox=inbox, at=at)


def signed_mail(
    secret: str,
    raw: bytes,
    envelope: Mapping[str, Any],
    *,
    inbox: str = "email",
    webhook_id: str = "",
    at: float | None = None,
) -> Sent:
    """Any mail's bytes, with its envelope, signed over both."""
    told = json.dumps(envelope)
    payload = told.encode() + b"." + raw
    headers = standard_webhook(secret, payload, webhook_id=webhook_id, at=at)
    headers |= {"Content-Type": "message/rfc822", ENVELOPE_HEADER: told}
    return Sent("POST", f"/webhooks/{inbox}", headers, {}, raw)


def standard_webhook(
    secret: str, payload: bytes, *, webhook_id: str = "", at: float | None = None
) -> dict[str, str]:
    """Headers of Standard Webhooks."""
    webhook_id = webhook_id or f"msg_{uuid.uuid4().hex}"
    timestamp = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{webhook_id}.{timestamp}.".encode() + payload
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{digest}",
    }


# SMS


def twilio(
    secrets_: Mapping[str, str],
    phone: str,
    text: str,
    *,
    media: tuple[tuple[str, str], ...] = (),
    inbox: str = "sms",
    sid: str = "",
) -> Sent:
    """Twilio's webhook.

    `secrets_`: account_sid, token, number, public_url; `media`: (url, type).
    """
    sid = sid or f"SM{uuid.uuid4().hex}"
    form = {
        "ToCountry": "US",
        "SmsMessageSid": sid,
        "NumMedia": str(len(media)),
        "SmsSid": sid,
        "SmsStatus": "received",
        "Body": text,
        "To": secrets_["number"],
        "NumSegments": "1",
        "MessageSid": sid,
        "AccountSid": secrets_["account_sid"],
        "From": phone,
        "ApiVersion": "2010-04-01",
    }
    for n, (url, media_type) in enumerate(media):
        form |= {f"MediaUrl{n}": url, f"MediaContentType{n}": media_type}
    path = f"/webhooks/{inbox}"
    signed = twilio_signature(secrets_["token"], secrets_["public_url"] + path, list(form.items()))
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "X-Twilio-Signature": signed,
        "User-Agent": "TwilioProxy/1.1",
    }
    return Sent("POST", path, headers, {}, urlencode(form).encode())


# Web chat


def identity(secret: str, customer: str, email_: str, phone: str, name: str) -> str:
    """What the shop's server signs for a customer who is logged in."""
    import jwt

    claims = {
        "sub": customer,
        "email": email_,
        "phone": phone,
        "name": name,
        "exp": int(time.time()) + 3600,
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def webchat_session(
    origin: str, *, identity_: str | None = None, token: str | None = None, inbox: str = "webchat"
) -> Sent:
    """The widget asks for a token."""
    body = {k: v for k, v in (("identity", identity_), ("token", token)) if v}
    headers = {"Content-Type": "application/json", "Origin": origin}
    return Sent("POST", f"/webchat/{inbox}/session", headers, {}, json.dumps(body).encode())


def webchat_upload(token: str, origin: str, file: File, *, inbox: str = "webchat") -> Sent:
    """The widget asks where it may put a file."""
    size = len(file.content)
    body = {"name": file.name, "media_type": file.media_type, "size_bytes": size}
    return _webchat(token, origin, f"/webchat/{inbox}/uploads", body)


def webchat_form(offer: Mapping[str, Any], file: File) -> Any:
    """The browser puts it there; returns the bucket's response."""
    import requests

    form = {"file": (file.name, file.content, file.media_type)}
    return requests.post(offer["url"], data=offer["fields"], files=form, timeout=30)


def webchat_message(  # a line has that many parts
    token: str,
    origin: str,
    text: str,
    *,
    client_id: str = "",
    file: File | None = None,
    upload: str = "",
    inbox: str = "webchat",
) -> Sent:
    """The widget posts a line; `upload` is what the file was put under."""
    body: dict[str, Any] = {"client_id": client_id or uuid.uuid4().hex, "text": text}
    if file:
        body["files"] = [{"upload": upload, "name": file.name, "media_type": file.media_type}]
    return _webchat(token, origin, f"/webchat/{inbox}/messages", body)


def webchat_signal(token: str, origin: str, *, inbox: str = "webchat", **signal: Any) -> Sent:
    """The widget tells that its visitor is typing, or has read."""
    return _webchat(token, origin, f"/webchat/{inbox}/signals", signal)


def _webchat(token: str, origin: str, path: str, body: Mapping[str, Any]) -> Sent:
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {token}",
        "Origin": origin,
    }
    return Sent("POST", path, headers, {}, json.dumps(body).encode())
