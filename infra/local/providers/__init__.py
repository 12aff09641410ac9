"""The providers' side on loopback: what we send arrives here, and shows on the customer's phone.

A mail server; each family of providers has a module of its own.
They refuse what the real ones refuse: a wrong token, a wrong password, an unknown file.
"""

import asyncio
import base64
import email
import threading
from collections.abc import Callable, Mapping
from email import policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP
from flask import Blueprint

from infra.local import outside
from infra.local.records import Records

#: (records, how to get the settings of the connector's first inbox) -> the provider's pages.
Fake = Callable[[Records, Callable[[], Any]], Blueprint]


def fakes() -> Mapping[str, Fake]:
    """connector -> its provider's API."""
    return outside.declared("PROVIDERS")


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
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=3)
        if not self._loop.is_running():
            self._loop.close()


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
