"""The sending APIs of Mailgun, SendGrid, Postmark and Amazon SES on loopback.

They refuse what the real ones refuse: a wrong key, a mail without a recipient or a text.
"""

import base64
import email
import secrets
import uuid
from collections.abc import Callable, Mapping
from email import policy
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

from flask import Blueprint, Response, jsonify, request

from connectors.mail_out import ses_message_id
from connectors.signing import equal
from connectors.sns import topics
from infra.local.records import Records
from infra.local.simulators.mail import ses_event, ses_publish

Settings = Callable[[], Any]
Answer = Response | tuple[Response, int] | tuple[Response, int, dict[str, str]]


def mailgun(records: Records, settings: Settings) -> Blueprint:
    """api.mailgun.net: a mail as MIME."""
    pages = Blueprint("email_mailgun", __name__, url_prefix="/providers/email_mailgun")

    @pages.post("/v3/<domain>/messages.mime")
    def send(domain: str) -> Answer:
        given = request.authorization
        key = settings().api_key.get_secret_value()
        if not given or given.username != "api" or not equal(given.password or "", key):
            return jsonify(message="Forbidden"), 401
        if domain != settings().domain:
            return jsonify(message=f"Domain not found: {domain}"), 404
        held, to = request.files.get("message"), request.form.get("to", "")
        if held is None or not to:
            return jsonify(message="to or message parameter is missing"), 400
        mail = email.message_from_bytes(held.read(), policy=policy.default)
        for _, recipient in getaddresses([to]):
            records.add_line("email", recipient.lower(), "in", _shown(mail))
        return jsonify(id=str(mail["Message-ID"]), message="Queued. Thank you.")

    return pages


def _shown(mail: Any) -> dict[str, Any]:
    body = mail.get_body(("plain", "html")) if isinstance(mail, EmailMessage) else None
    return {
        "subject": str(mail["Subject"] or ""),
        "text": body.get_content().replace("\r\n", "\n").rstrip("\n") if body else "",
        "message_id": str(mail["Message-ID"] or ""),
        "reply_to": str(mail["Reply-To"] or ""),
        "files": [
            _file(part.get_filename() or "", part.get_content_type(), part.get_content())
            for part in mail.iter_attachments()
            if isinstance(part.get_content(), bytes)
        ],
    }


def _file(name: str, media_type: str, content: bytes) -> dict[str, str]:
    encoded = base64.b64encode(content).decode()
    return {"name": name, "media_type": media_type, "content": encoded}


def sendgrid(records: Records, settings: Settings) -> Blueprint:
    """api.sendgrid.com: mail/send."""
    pages = Blueprint("email_sendgrid", __name__, url_prefix="/providers/email_sendgrid")

    @pages.post("/v3/mail/send")
    def send() -> Answer:
        wanted = f"Bearer {settings().api_key.get_secret_value()}"
        if not equal(request.headers.get("Authorization", ""), wanted):
            return jsonify(errors=[{"message": "The provided authorization grant is invalid"}]), 401
        asked = request.get_json(force=True)
        text = asked["content"][0]["value"]
        if not text:
            return jsonify(errors=[{"message": "The content value must be a string"}]), 400
        fields = {
            "subject": asked["subject"],
            "text": text,
            "message_id": asked["headers"]["Message-ID"],
            "reply_to": asked.get("reply_to", {}).get("email", ""),
            "files": [
                {"name": f["filename"], "media_type": f["type"], "content": f["content"]}
                for f in asked.get("attachments", [])
            ],
        }
        for person in asked["personalizations"][0]["to"]:
            records.add_line("email", person["email"].lower(), "in", fields)
        return Response(status=202), 202, {"X-Message-Id": secrets.token_urlsafe(16)}

    return pages


def postmark(records: Records, settings: Settings) -> Blueprint:
    """api.postmarkapp.com: /email."""
    pages = Blueprint("email_postmark", __name__, url_prefix="/providers/email_postmark")

    @pages.post("/email")
    def send() -> Answer:
        given = request.headers.get("X-Postmark-Server-Token", "")
        if not equal(given, settings().server_token.get_secret_value()):
            return jsonify(ErrorCode=10, Message="Bad or missing server API token."), 401
        asked = request.get_json(force=True)
        if not asked.get("To") or not asked.get("TextBody"):
            return jsonify(ErrorCode=300, Message="Invalid email request"), 422
        headers = {h["Name"]: h["Value"] for h in asked.get("Headers", [])}
        own_id = str(uuid.uuid4())
        kept = headers.get("X-PM-KeepID") == "true"
        fields = {
            "subject": asked["Subject"],
            "text": asked["TextBody"],
            "message_id": headers["Message-ID"] if kept else f"<{own_id}@mtasv.net>",
            "reply_to": asked.get("ReplyTo", ""),
            "files": [
                {"name": f["Name"], "media_type": f["ContentType"], "content": f["Content"]}
                for f in asked.get("Attachments", [])
            ],
        }
        records.add_line("email", asked["To"].lower(), "in", fields)
        return jsonify(ErrorCode=0, Message="OK", MessageID=own_id, To=asked["To"])

    return pages


def ses(records: Records, settings: Settings) -> Blueprint:
    """email.<region>.amazonaws.com: SendEmail of version 2; it tells the topic of its delivery."""
    pages = Blueprint("email_ses", __name__, url_prefix="/providers/email_ses")

    @pages.post("/v2/email/outbound-emails")
    def send() -> Answer:
        asked, wanted = request.get_json(force=True), settings()
        mail = email.message_from_bytes(
            base64.b64decode(asked["Content"]["Raw"]["Data"]), policy=policy.default
        )
        if mail["From"].addresses[0].addr_spec != wanted.address:
            refusal = jsonify(message="Email address is not verified.")
            return refusal, 400, {"x-amzn-ErrorType": "MessageRejected"}
        own_id = f"0100{secrets.token_hex(6)}-{uuid.uuid4()}-000000"
        shown = _shown(mail) | {"message_id": ses_message_id(own_id, wanted.region)}
        for recipient in asked["Destination"]["ToAddresses"]:
            records.add_line("email", recipient.lower(), "in", shown)
        ses_publish(topics(wanted.topic_arns)[0], ses_event("Delivery", own_id))
        return jsonify(MessageId=own_id)

    return pages


PROVIDERS: Mapping[str, Callable[[Records, Settings], Blueprint]] = {
    "email_mailgun": mailgun,
    "email_sendgrid": sendgrid,
    "email_ses": ses,
    "email_postmark": postmark,
}
