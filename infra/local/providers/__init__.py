"""The providers' side on loopback: what we send arrives here, and shows on the customer's phone.

WeChat: stable_token, message/custom/send, media/get. Twilio: Messages.json, media. A mail server.
They refuse what the real ones refuse: a wrong token, a wrong password, an unknown file.
"""

import asyncio
import base64
import email
import secrets
import threading
from collections.abc import Callable, Mapping
from email import policy
from email.message import EmailMessage
from importlib import import_module
from typing import Any

from aiosmtpd.smtp import SMTP
from flask import Blueprint, Response, jsonify, request

from connectors.signing import values
from infra.local.records import Records

Credentials = Callable[[], tuple[str, str]]


#: (records, how to get the settings of the connector's first inbox) -> the provider's pages.
Fake = Callable[[Records, Callable[[], Any]], Blueprint]
_MODULES = ("tencent", "mail", "sms")


def fakes() -> Mapping[str, Fake]:
    """connector -> its provider's API."""
    found: dict[str, Fake] = {
        "wechat": lambda records, settings: wechat(
            records, lambda: (settings().app_id, settings().app_secret.get_secret_value())
        ),
        "sms_twilio": lambda records, settings: twilio(
            records, lambda: (settings().account_sid, values(settings().auth_token)[0])
        ),
    }
    for name in _MODULES:
        try:
            module = import_module(f"infra.local.providers.{name}")
        except ModuleNotFoundError:
            continue
        found |= getattr(module, "PROVIDERS", {})
    return found


def wechat(records: Records, credentials: Credentials) -> Blueprint:
    """api.weixin.qq.com; `credentials` are app id and secret."""
    pages = Blueprint("wechat", __name__, url_prefix="/providers/wechat/cgi-bin")
    fake = _FakeWeChat(records, credentials)
    pages.post("/stable_token")(fake.stable_token)
    pages.post("/message/custom/send")(fake.send)
    pages.get("/media/get")(fake.media)
    return pages


class _FakeWeChat:
    """WeChat answers 200 to everything; what went wrong stands in errcode."""

    def __init__(self, records: Records, credentials: Credentials) -> None:
        self._records = records
        self._credentials = credentials
        self._token = ""

    def stable_token(self) -> Response:
        asked = request.get_json(force=True)
        if (asked.get("appid"), asked.get("secret")) != self._credentials():
            return jsonify(errcode=40125, errmsg="invalid appsecret")
        if not self._token or asked.get("force_refresh"):
            self._token = secrets.token_urlsafe(32)
        return jsonify(access_token=self._token, expires_in=7200)

    def _refused(self) -> Response | None:
        if not self._token or request.args.get("access_token") != self._token:
            return jsonify(errcode=40001, errmsg="invalid credential")
        return None

    def send(self) -> Response:
        if no := self._refused():
            return no
        asked = request.get_json(force=True)
        text = asked["text"]["content"]
        if len(text.encode()) > 2048:
            return jsonify(errcode=45002, errmsg="content size out of limit")
        self._records.add_line("wechat", asked["touser"], "in", {"text": text})
        return jsonify(errcode=0, errmsg="ok")

    def media(self) -> Response:
        if no := self._refused():
            return no
        held = self._records.file(request.args.get("media_id", ""))
        if held is None:
            return jsonify(errcode=40007, errmsg="invalid media_id")
        return Response(held[1], content_type=held[0])


def twilio(records: Records, credentials: Credentials) -> Blueprint:
    """api.twilio.com; `credentials` are account SID and token."""
    pages = Blueprint("twilio", __name__, url_prefix="/providers/twilio/2010-04-01")

    @pages.before_request
    def authorise() -> tuple[Response, int] | None:
        given = request.authorization
        if not given or (given.username, given.password) != credentials():
            return jsonify(code=20003, message="Authenticate", status=401), 401
        return None

    @pages.post("/Accounts/<sid>/Messages.json")
    def create(sid: str) -> tuple[Response, int]:
        if not request.form.get("Body"):
            return jsonify(code=21602, message="Message body is required.", status=400), 400
        records.add_line("sms", request.form["To"], "in", {"text": request.form["Body"]})
        return jsonify(sid=f"SM{secrets.token_hex(16)}", status="queued", account_sid=sid), 201

    @pages.get("/Accounts/<sid>/Messages/<message>/Media/<media>")
    def media(sid: str, message: str, media: str) -> Response | tuple[Response, int]:
        held = records.file(media)
        if held is None:
            return jsonify(code=20404, message="not found", status=404), 404
        return Response(held[1], content_type=held[0])

    return pages


class MailServer:
    """Takes any mail, over SMTP. (aiosmtpd's own Controller cannot take a free port.)"""

    def __init__(self, records: Records) -> None:
        self._mailbox = _Mailbox(records)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="smtp", daemon=True)

    def start(self) -> int:
        """Listen on a free port; return it."""
        self._thread.start()
        serving = self._loop.create_server(
            lambda: SMTP(self._mailbox, enable_SMTPUTF8=True, loop=self._loop), "127.0.0.1", 0
        )
        server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        return int(server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=3)


class _Mailbox:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        mail = email.message_from_bytes(envelope.content, policy=policy.default)
        body = mail.get_body(("plain", "html")) if isinstance(mail, EmailMessage) else None
        fields = {
            "subject": str(mail["Subject"] or ""),
            "text": body.get_content().replace("\r\n", "\n").rstrip("\n") if body else "",
            "message_id": str(mail["Message-ID"] or ""),
            "files": [
                {
                    "name": part.get_filename() or "",
                    "media_type": part.get_content_type(),
                    "content": base64.b64encode(part.get_content()).decode(),
                }
                for part in mail.iter_attachments()
                if isinstance(part.get_content(), bytes)
            ],
        }
        for recipient in envelope.rcpt_tos:
            self._records.add_line("email", recipient.lower(), "in", fields)
        return "250 OK"
