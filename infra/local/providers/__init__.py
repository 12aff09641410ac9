"""The providers' side on loopback: what we send arrives here, and shows on the customer's phone.

Twilio: Messages.json, media. A mail server. Each other family has a module of its own.
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
        said, pictures = request.form.get("Body", ""), request.form.getlist("MediaUrl")
        if not said and not pictures:
            return jsonify(code=21602, message="Message body is required.", status=400), 400
        text = "\n".join([said, *pictures]).strip()  # a phone would show the pictures
        records.add_line("sms", request.form["To"], "in", {"text": text})
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
