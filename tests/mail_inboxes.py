"""Inboxes at Mailgun, SendGrid and Postmark, and what their providers post, for tests."""

from typing import Any

from chalicelib.errors import SignatureError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message, Receipt
from infra.local.simulators import Sent, mail
from tests.make_samples import NOW
from tests.recorded import arrived, connector
from tests.samples_mail import (
    LI,
    LOGIN,
    MAILGUN,
    POSTMARK,
    SECRET_PATH,
    SENDGRID,
    written,
)

URL = "https://askonce.example/webhooks/inbox"
KEY = str(MAILGUN["signing_key"])


def mailgun(**more: Any) -> Connector:
    return connector("email_mailgun", MAILGUN | more, URL)


def sendgrid(**more: Any) -> Connector:
    return connector("email_sendgrid", SENDGRID | more, URL)


def postmark(**more: Any) -> Connector:
    settings = {k: v for k, v in (POSTMARK | more).items() if v is not None}
    return connector("email_postmark", settings, URL)


def refused(connector_: Connector, request: WebhookRequest) -> bool:
    try:
        connector_.verify(request)
    except SignatureError:
        return True
    return False


def message(connector_: Connector, sent: Sent) -> Message:
    request = arrived(sent, NOW)
    connector_.verify(request)
    (found,) = connector_.parse(request)
    assert isinstance(found, Message)
    return found


def receipts(connector_: Connector, sent: Sent) -> list[tuple[str, str, str]]:
    request = arrived(sent, NOW)
    connector_.verify(request)
    found = connector_.parse(request)
    assert all(isinstance(one, Receipt) for one in found)
    return [(r.external_id, r.state, r.reason) for r in found if isinstance(r, Receipt)]


def from_mailgun(raw: bytes | None = None, **more: Any) -> Sent:
    usual: dict[str, Any] = {"sender": LI, "recipient": "help@shop.example", "at": NOW}
    usual |= {"path": SECRET_PATH, "token": "t" * 50} | more
    return mail.mailgun_mime(KEY, written().as_bytes() if raw is None else raw, **usual)


def headed(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode() + written().as_bytes()


PASS = "X-Mailgun-Dkim-Check-Result: Pass"
OURS = "Received: from mail.example by mxa.mailgun.org"
SIGNED = "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=k; b=x"


APART = {"recipient": "help@shop.example", "sender": LI, "body-plain": "Where?"}
LISTED = [*(tuple(line.split(": ", 1)) for line in (PASS, OURS, SIGNED)), ("From", LI)]


def apart(fields: dict[str, str], listed: Any = LISTED, **more: Any) -> Sent:
    usual: dict[str, Any] = {"path": SECRET_PATH, "at": NOW}
    return mail.mailgun_apart(KEY, APART | fields, listed, **usual | more)


def told_by_postmark(*headers: tuple[str, str], **more: Any) -> dict[str, Any]:
    told = mail.postmark_mail(written(), sender=LI, recipient="help@shop.example")
    told["Headers"] += [{"Name": name, "Value": value} for name, value in headers]
    return told | more


def from_postmark(told: Any) -> Sent:
    return mail.postmark(told, path=SECRET_PATH, login=LOGIN)
