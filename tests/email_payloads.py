"""Every mail webhook of the public payload set, and what becomes of it.

`python -m tests.email_payloads` writes docs/payloads/email_webhooks.md, and
tests/test_email_payloads.py holds that to the code.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from chalicelib.errors import PayloadError, SignatureError
from chalicelib.ports import WebhookRequest
from chalicelib.schema import Message, Notice, Receipt
from connectors import sns
from infra.local.simulators import mail
from tests.recorded import SHARED, arrived, connector, request_of, with_header
from tests.samples_mail import LOGIN, MAILGUN, PATH, PATH_SECRET, POSTMARK, SENDGRID
from tests.samples_ses import SES, TOPIC
from tests.sns_signing import know_certificate

PAYLOADS = SHARED / "payloads"
TABLE = Path(__file__).parents[1] / "docs" / "payloads" / "email_webhooks.md"
MAIL_EVENTS = ("email-inbound", "email-tracking")
SETTINGS = {
    "mailgun": ("email_mailgun", MAILGUN | {"signing_key": "TEST_WEBHOOK_SIGNING_KEY"}),
    "postmark": ("email_postmark", POSTMARK),
    "sendgrid": ("email_sendgrid", SENDGRID),
    "amazon_ses": ("email_ses", SES),
    "sns__ses_": ("email_ses", SES | {"buckets": "inbound-mail"}),
}
STATES = dict.fromkeys(("bounced", "rejected", "complained", "failed"), "failed")
STATES |= {"delivered": "delivered"}

_NAMELESS = "the capture names no mail, so that nothing can be said of one"
_MADE_BY_SES = "SES's own id is known as the Message-ID that SES makes of it"
_AUTHORLESS = "the capture has no author at all: set aside, with its bytes"
#: {payload: why it deviates}
REASONS = {
    "anymail/amazon_ses_inbound_inbound_sns_utf8_0004.http.json": "HTML is kept sanitised: its "
    "`dir` goes",
    "anymail/amazon_ses_tracking_bounce_event_0006.http.json": _MADE_BY_SES,
    "anymail/amazon_ses_tracking_rendering_failure_event_0014.http.json": _MADE_BY_SES,
    "anymail/mailgun_inbound_attachments_0097.http.json": _AUTHORLESS,
    "anymail/mailgun_inbound_filtered_attachment_filenames_0098.http.json": _AUTHORLESS,
    "anymail/mailgun_tracking_dropped_spam_0108.http.json": _NAMELESS,
    "anymail/mailgun_tracking_dropped_timed_out_0109.http.json": _NAMELESS,
    "anymail/mailgun_tracking_invalid_mailbox_0110.http.json": _NAMELESS,
    "anymail/mailgun_tracking_supports_credential_rotation_0127.http.json": _NAMELESS,
    "anymail/mailgun_tracking_metadata_key_conflicts_0111.http.json": "token, timestamp and "
    "signature stand twice: which of them was signed cannot be known, so it is refused",
    "anymail/postmark_inbound_attachments_0213.http.json": _AUTHORLESS,
    "anymail/postmark_tracking_supports_credential_rotation_0231.http.json": "an empty object is "
    "neither mail nor event: set aside, with its bytes",
    "anymail/sendgrid_inbound_attachments_0278.http.json": _AUTHORLESS,
    "anymail/sendgrid_inbound_inbound_mime_0282.http.json": "HTML is kept "
    "sanitised: its `dir` goes",
    "anymail/sendgrid_tracking_bounce_event_0284.http.json": "anymail's own id means nothing to "
    "us: the mail's Message-ID does",
    "anymail/sendgrid_tracking_dropped_invalid_event_0290.http.json": "anymail's own id means "
    "nothing to us: the mail's Message-ID does",
}


@dataclass(frozen=True)
class Outcome:
    """What a payload becomes, and where that is not what the set states."""

    payload: str
    connector: str
    becomes: str
    deviates: tuple[str, ...] = ()


def outcomes() -> Iterator[Outcome]:
    """One for each mail webhook of the set, sorted."""
    with (PAYLOADS / "INDEX.tsv").open(encoding="utf-8", newline="") as index:
        rows = list(csv.DictReader(index, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in sorted(rows, key=lambda row: row["file"]):
        if _is_mail(row):
            yield _outcome(row)


def _is_mail(row: dict[str, str]) -> bool:
    folder, _, name = row["file"].partition("/")
    if folder == "generated_signed":
        return name.startswith(("mailgun__", "sendgrid__", "postmark__", "sns__ses_"))
    return folder == "sendgrid_python" or row["kind"] in MAIL_EVENTS


def _outcome(row: dict[str, str]) -> Outcome:
    provider = next((p for p in SETTINGS if row["file"].partition("/")[2].startswith(p)), "")
    if row["file"].startswith("sendgrid_python/"):
        provider = "sendgrid"
    if not provider:
        return Outcome(row["file"], "", "no connector for this provider")
    name, settings = SETTINGS[provider]
    path = PAYLOADS / row["file"]
    stated = json.loads(row["expected"]) if row["expected"] else None
    if row["file"].startswith("sendgrid_python/"):
        request = _signed(path.read_bytes(), "multipart/form-data; boundary=xYzZY")
    else:
        record = json.loads(path.read_text(encoding="utf-8"))
        settings = _with_secret(settings, record.get("secret", {}))
        if name == "email_ses":
            request = _published(record)
        else:
            request = _request(provider, record.get("request", record))
    return _read(Outcome(row["file"], name, ""), name, settings, request, stated)


def _with_secret(settings: dict[str, Any], secret: dict[str, str]) -> dict[str, Any]:
    import base64

    if "allowed_topic_arn" in secret:
        return settings | {"topic_arns": secret["allowed_topic_arn"]}
    if "signing_key" in secret:
        return settings | {"signing_key": secret["signing_key"]}
    if "public_key_der_b64" in secret:
        return settings | {"public_key": secret["public_key_der_b64"]}
    if "basic" in secret:
        return settings | {"basic_auth": base64.b64decode(secret["basic"]).decode()}
    return settings


def _request(provider: str, parts: dict[str, Any]) -> WebhookRequest:
    """At its own time; signed by us where the capture has lost its proof."""
    request = request_of({"body": "", **parts, "query": {}}, 0)
    request = replace(request, path_secret=PATH_SECRET)
    stamp = request.header("x-twilio-email-event-webhook-timestamp")
    if provider == "sendgrid" and not stamp:
        return _signed(request.body, request.header("content-type"))
    if provider == "mailgun":
        found = re.search(rb"timestamp\"?[^0-9a-z]{1,12}(\d{10})", request.body)
        stamp = found[1].decode() if found else ""
    elif "url" not in parts and provider == "postmark":
        name, _, password = LOGIN.partition(":")
        request = with_header(request, "authorization", _login(name, password))
    moment = datetime.fromtimestamp(int(stamp or 0), request.received_at.tzinfo)
    return replace(request, received_at=moment)


def _published(record: dict[str, Any]) -> WebhookRequest:
    """By SNS at its own time; a capture, whose proof is lost, as the event of a topic of ours."""
    request = request_of({"body": "", **record.get("request", record), "query": {}}, 0)
    told = json.loads(request.body)
    if "secret" not in record:
        body = json.dumps(told | {"TopicArn": TOPIC}).encode()
        return replace(request, body=body, event_source=TOPIC)
    know_certificate(record["secret"]["signing_cert_pem"].encode(), told["SigningCertURL"])
    return replace(request, received_at=sns.read(request.body).sent_at)


def _login(name: str, password: str) -> str:
    from connectors.signing import basic_auth

    return basic_auth(name, password)["Authorization"]


def _signed(body: bytes, content_type: str) -> WebhookRequest:
    return arrived(mail.sendgrid_signed(content_type, body, path=PATH, at=1.5e9), 1.5e9)


def _read(
    about: Outcome, name: str, settings: dict[str, Any], request: WebhookRequest, stated: Any
) -> Outcome:
    inbox = connector(name, settings, "https://askonce.example/webhooks/inbox")
    refusal_stated = isinstance(stated, dict) and stated.get("verify") is False
    try:
        inbox.verify(request)
        found = inbox.parse(request)
    except SignatureError as error:
        odd = () if refusal_stated or not stated else ("refused",)
        return replace(about, becomes=f"refused: {error}", deviates=odd)
    except PayloadError as error:
        odd = ("quarantined",) if stated else ()
        return replace(about, becomes=f"quarantined: {error}", deviates=odd)
    becomes = ", ".join(_called(one) for one in found) or "nothing"
    return replace(about, becomes=becomes, deviates=tuple(_deviations(list(found), stated)))


def _called(one: Any) -> str:
    if isinstance(one, Receipt):
        return f"receipt: {one.state}"
    if isinstance(one, Notice):
        return "notice: the mail is fetched from S3"
    files = f", {len(one.attachments)} files" if one.attachments else ""
    return f"message, {one.evidence[0].level} by {one.evidence[0].source}{files}"


def _deviations(found: list[Any], stated: Any) -> Iterator[str]:
    if isinstance(stated, dict):
        own = {key: stated[key] for key in ("subject", "text") if key in stated}
        if isinstance(found[0], Message):
            yield from _fields(found[0], stated.get("parsed", own))
        return
    for event in stated or []:
        if event["event_type"] == "inbound":
            yield from _fields(found[0], _as_ours(event["message"]))
        else:
            yield from _event(found, event)


def _as_ours(told: dict[str, Any]) -> dict[str, Any]:
    """anymail's fields under our names, those that it states."""
    name, address = parseaddr(told["from"] or "")
    files = [list(each[:2]) for each in (*told["attachments"], *told["inlines"])]
    ours = {"from": address, "sender_name": name, "attachments": files, "html": told["html"]}
    ours |= {key: told[key] for key in ("subject", "text", "date")}
    return {key: value for key, value in ours.items() if value is not None}


def _fields(message: Message, wanted: dict[str, Any]) -> Iterator[str]:
    html = message.html.content if message.html else b""
    ours = {
        "from": message.address.removeprefix("email:"),
        "sender_name": message.sender_name,
        "subject": message.subject,
        "text": message.text.strip(),
        "attachments": [[a.name, a.media_type] for a in message.attachments],
        "date": message.sent_at,
        "html": (html or b"").decode().strip(),
    }
    for key, value in wanted.items():
        if key == "date":
            value = datetime.fromisoformat(value)  # noqa: PLW2901  # the same, as we hold it
        if ours[key] != (value.strip() if isinstance(value, str) else value):
            yield key


def _event(found: list[Any], event: dict[str, Any]) -> Iterator[str]:
    state = STATES.get(event["event_type"])
    if state is None:
        if found:
            yield "event"
        return
    if not found or found[0].state != state:
        yield "event"
    elif found[0].external_id.strip("<>") != str(event["message_id"]).strip("<>"):
        yield "message_id"


INTRODUCTION = """\
# Recorded mail webhooks, and what becomes of them

Written by `python -m tests.email_payloads`; `tests/test_email_payloads.py` holds it to the code.
Every webhook of a mail service in `shared/data/payloads` is read by its connector, at its own
time; the captures of SendGrid, Postmark and Amazon SES have no proof in them, so they get one. What
SES puts into S3 is a notice: the mail itself is not in the set. The outcome is compared field by
field with what the set states: author, subject, text, HTML, date and files of a mail; what became
of which mail for an event. "Deviates" says where it differs.

Not counted as deviations: what says nothing of a delivery (opens, clicks, deferrals, subscriptions)
becomes nothing; a rejection or a complaint is a failure, with its reason for the agent; spam scores
are not kept. The captures of other services have no connector at all.

| payload | connector | becomes | deviates |
|---|---|---|---|
"""


def table() -> str:
    """The page."""
    return INTRODUCTION + "".join(
        f"| {each.payload} | {each.connector} | {each.becomes} | {_why(each)} |\n"
        for each in outcomes()
    )


def _why(outcome: Outcome) -> str:
    if not outcome.deviates:
        return ""
    return f"{', '.join(outcome.deviates)}: {REASONS.get(outcome.payload, '')}"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
