"""Mailgun, SendGrid, Postmark and SES as they tell of mail: each signs as the real one does.

SES publishes on a topic; infra/local/simulators/sms.py has SNS's envelope.
"""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from connectors import forms, sns
from connectors.channels.email_mailgun import signature as mailgun_signature
from connectors.signing import basic_auth, values
from infra.local.simulators import File, Sent

if TYPE_CHECKING:
    from infra.local.people import Person
    from infra.local.ways import Line, Scene, Way

BOUNDARY = "xYzZY"


def mail(  # noqa: PLR0913  # a mail has that many parts
    *,
    sender: str,
    name: str,
    to: str,
    text: str,
    subject: str = "",
    in_reply_to: str = "",
    file: File | None = None,
    message_id: str = "",
    at: float | None = None,
) -> EmailMessage:
    """A mail as it reaches the provider."""
    made = EmailMessage(policy=policy.SMTP)
    made["From"] = f'"{name}" <{sender}>'
    made["To"] = to
    made["Subject"] = subject
    made["Date"] = format_datetime(datetime.fromtimestamp(time.time() if at is None else at, UTC))
    made["Message-ID"] = message_id or f"<{uuid.uuid4().hex}@{sender.partition('@')[2]}>"
    if in_reply_to:
        made["In-Reply-To"] = in_reply_to
        made["References"] = in_reply_to
    made.set_content(text)
    if file:
        main, _, sub = file.media_type.partition("/")
        made.add_attachment(file.content, maintype=main, subtype=sub, filename=file.name)
        made.set_boundary("=-made-up-boundary")
    return made


def _form(fields: Sequence[forms.Field]) -> tuple[str, bytes]:
    """A form with the boundary of the samples."""
    content_type, body = forms.multipart(fields)
    own = content_type.partition("boundary=")[2]
    return (
        content_type.replace(own, BOUNDARY),
        body.replace(f"--{own}".encode(), f"--{BOUNDARY}".encode()),
    )


# Mailgun


def mailgun_proof(key: str, *, at: float | None = None, token: str = "") -> dict[str, str]:
    """Timestamp, token and signature."""
    timestamp = str(int(time.time() if at is None else at))
    token = token or uuid.uuid4().hex + uuid.uuid4().hex[:18]
    signed = mailgun_signature(key, timestamp, token)
    return {"timestamp": timestamp, "token": token, "signature": signed}


def mailgun_verdict(mail_: EmailMessage, dkim: str) -> bytes:
    """The mail with what Mailgun writes above it, and the signature that it checked."""
    domain = str(mail_["From"]).rpartition("@")[2].strip("> ")
    head = f"X-Mailgun-Incoming: Yes\r\nX-Mailgun-Dkim-Check-Result: {dkim}\r\n"
    head += "Received: from mail.example by mxa.mailgun.org with ESMTP\r\n"
    head += f"DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=made-up; b=made-up\r\n"
    return head.encode() + mail_.as_bytes()


def mailgun_mime(  # an envelope, a mail and a proof
    key: str,
    raw: bytes,
    *,
    sender: str,
    recipient: str,
    path: str,
    at: float | None = None,
    token: str = "",
) -> Sent:
    """A route whose address ends in `mime`."""
    told = {"recipient": recipient, "sender": sender, **mailgun_proof(key, at=at, token=token)}
    fields = [forms.Field(name, value.encode()) for name, value in told.items()]
    content_type, body = _form([*fields, forms.Field("body-mime", raw)])
    return Sent("POST", path, {"Content-Type": content_type}, {}, body)


def mailgun_apart(  # an envelope, a mail and a proof
    key: str,
    fields: Mapping[str, str],
    headers: Sequence[tuple[str, str]],
    *,
    path: str,
    files: Sequence[File] = (),
    at: float | None = None,
    token: str = "",
) -> Sent:
    """Any other route: the mail in fields; a multipart form if it has files."""
    listed = json.dumps(headers, ensure_ascii=False)
    named = {**fields, "message-headers": listed, **mailgun_proof(key, at=at, token=token)}
    if not files:
        kind = "application/x-www-form-urlencoded"
        return Sent("POST", path, {"Content-Type": kind}, {}, urlencode(named).encode())
    parts = [forms.Field(name, value.encode()) for name, value in named.items()]
    parts.append(forms.Field("attachment-count", str(len(files)).encode()))
    for number, file in enumerate(files, 1):
        parts.append(forms.Field(f"attachment-{number}", file.content, file.name, file.media_type))
    content_type, body = _form(parts)
    return Sent("POST", path, {"Content-Type": content_type}, {}, body)


def mailgun_event(
    key: str, event: Mapping[str, Any], *, path: str, at: float | None = None, token: str = ""
) -> Sent:
    """What became of a mail that we sent."""
    told = {"signature": mailgun_proof(key, at=at, token=token), "event-data": event}
    body = json.dumps(told).encode()
    return Sent("POST", path, {"Content-Type": "application/json"}, {}, body)


# SendGrid


def _sendgrid_key() -> Any:
    """Made up, the same each time, and known to anybody who reads this: for the local world."""
    from cryptography.hazmat.primitives.asymmetric import ec

    number = int.from_bytes(hashlib.sha256(b"made up for the local world").digest(), "big")
    return ec.derive_private_key(number, ec.SECP256R1())


def sendgrid_public_key() -> str:
    """The verification key as SendGrid shows it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = _sendgrid_key().public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def sendgrid_signed(content_type: str, body: bytes, *, path: str, at: float | None = None) -> Sent:
    """Any body as SendGrid signs it."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    timestamp = str(int(time.time() if at is None else at))
    how = ec.ECDSA(SHA256(), deterministic_signing=True)
    signature = _sendgrid_key().sign(timestamp.encode() + body, how)
    headers = {
        "Content-Type": content_type,
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
    }
    return Sent("POST", path, headers, {}, body)


def sendgrid_mail(
    fields: Mapping[str, str | bytes],
    *,
    path: str,
    files: Sequence[File] = (),
    at: float | None = None,
) -> Sent:
    """Inbound Parse: `email` among the fields is Send Raw."""
    parts = [forms.Field(n, v.encode() if isinstance(v, str) else v) for n, v in fields.items()]
    for number, file in enumerate(files, 1):
        parts.append(forms.Field(f"attachment{number}", file.content, file.name, file.media_type))
    content_type, body = _form(parts)
    return sendgrid_signed(content_type, body, path=path, at=at)


def sendgrid_events(events: Sequence[Any], *, path: str, at: float | None = None) -> Sent:
    """The event webhook. SendGrid ends each event's line as on Windows, and signs that too."""
    body = json.dumps(events).encode() + b"\r\n"
    return sendgrid_signed("application/json", body, path=path, at=at)


# Postmark


def postmark(told: Mapping[str, Any], *, path: str, login: str = "") -> Sent:
    """Any of its webhooks; `login` is `name:password` of the address."""
    headers = {"Content-Type": "application/json"}
    if login:
        name, _, password = login.partition(":")
        headers |= basic_auth(name, password)
    return Sent("POST", path, headers, {}, json.dumps(told, ensure_ascii=False).encode())


def postmark_mail(mail_: EmailMessage, *, sender: str, recipient: str) -> dict[str, Any]:
    """The inbound webhook's content, with the raw mail in it."""
    hash_ = recipient.partition("@")[0].partition("+")[2]
    author = mail_["From"].addresses[0]
    body = mail_.get_body(("plain",))
    return {
        "FromName": author.display_name,
        "From": author.addr_spec,
        "FromFull": {"Email": author.addr_spec, "Name": author.display_name, "MailboxHash": ""},
        "To": recipient,
        "ToFull": [{"Email": recipient, "Name": "", "MailboxHash": hash_}],
        "OriginalRecipient": recipient,
        "Subject": str(mail_["Subject"]),
        "MessageID": str(uuid.UUID(hashlib.md5(mail_.as_bytes()).hexdigest())),  # noqa: S324
        "MailboxHash": hash_,
        "Date": str(mail_["Date"]),
        "TextBody": str(body.get_content()) if isinstance(body, EmailMessage) else "",
        "HtmlBody": "",
        "Headers": [
            {"Name": "Return-Path", "Value": f"<{sender}>"},
            {"Name": "Message-ID", "Value": str(mail_["Message-ID"])},
        ],
        "Attachments": [],
        "RawEmail": mail_.as_bytes().decode("utf-8"),
    }


# Amazon SES

SES_PASS = {"spam": "PASS", "virus": "PASS", "spf": "PASS", "dkim": "PASS", "dmarc": "PASS"}


def ses_received(
    raw: bytes,
    *,
    source: str,
    recipients: Sequence[str],
    action: Mapping[str, str],
    verdicts: Mapping[str, str] = SES_PASS,
) -> dict[str, Any]:
    """A receipt notification; the mail is in it where the action is SNS's."""
    own_id = hashlib.sha256(raw).hexdigest()[:40]
    receipt: dict[str, Any] = {"action": dict(action), "recipients": list(recipients)}
    receipt |= {f"{name}Verdict": {"status": status} for name, status in verdicts.items()}
    told = {
        "notificationType": "Received",
        "mail": {"messageId": own_id, "source": source, "destination": list(recipients)},
        "receipt": receipt,
    }
    if action["type"] != "SNS":
        return told
    base64_ = action.get("encoding") == "BASE64"
    return told | {"content": base64.b64encode(raw).decode() if base64_ else raw.decode("utf-8")}


def ses_event(kind: str, own_id: str, *, event: bool = True, **more: Any) -> dict[str, Any]:
    """What became of a mail that we sent: as event publishing tells it, or as a notification."""
    return {
        "eventType" if event else "notificationType": kind,
        "mail": {"messageId": own_id},
        **more,
    }


# The local world


def _written(scene: "Scene", person: "Person", line: "Line") -> EmailMessage:
    """What the customer writes, as an answer to the last mail where the subject says so."""
    got = [
        told
        for told in scene.records.lines()
        if (told["channel"], told["address"], told["direction"]) == ("email", person.email, "in")
    ]
    answers = got[-1] if line.subject.lower().startswith("re:") and got else {}
    subject = line.subject or "A question"
    scene.say("email", person.email, line, subject=subject, sender=person.key)
    settings = scene.settings
    return mail(
        sender=person.email,
        name=person.name,
        to=str(answers.get("reply_to") or settings.reply_address or settings.address),
        text=line.text,
        subject=subject,
        in_reply_to=str(answers.get("message_id", "")),
        file=line.file,
    )


def _passes(person: "Person") -> bool:
    return person.dmarc == "pass"


def _by_mailgun(scene: "Scene", person: "Person", line: "Line") -> Any:
    written, settings = _written(scene, person, line), scene.settings
    return scene.post(
        mailgun_mime(
            values(settings.signing_key)[0],
            mailgun_verdict(written, "Pass" if _passes(person) else "Fail"),
            sender=person.email,
            recipient=str(written["To"]),
            path=f"/webhooks/{scene.inbox}/{values(settings.path_secret)[0]}",
        )
    )


def _by_sendgrid(scene: "Scene", person: "Person", line: "Line") -> Any:
    written = _written(scene, person, line)
    domain = person.email.partition("@")[2]
    fields: dict[str, str | bytes] = {
        "email": written.as_bytes(),
        "envelope": json.dumps({"to": [str(written["To"])], "from": person.email}),
        "dkim": f"{{@{domain} : {'pass' if _passes(person) else 'fail'}}}",
        "SPF": "pass",
    }
    return scene.post(sendgrid_mail(fields, path=f"/webhooks/{scene.inbox}"))


def _by_postmark(scene: "Scene", person: "Person", line: "Line") -> Any:
    written, settings = _written(scene, person, line), scene.settings
    told = postmark_mail(written, sender=person.email, recipient=str(written["To"]))
    tests = "DKIM_SIGNED, DKIM_VALID, DKIM_VALID_AU" if _passes(person) else "SPF_FAIL"
    told["Headers"].insert(1, {"Name": "X-Spam-Tests", "Value": tests})
    secret = f"/{values(settings.path_secret)[0]}" if settings.path_secret else ""
    login = values(settings.basic_auth)[0] if settings.basic_auth else ""
    return scene.post(postmark(told, path=f"/webhooks/{scene.inbox}{secret}", login=login))


#: Mail that is longer goes by way of S3.
_SES_INLINE_BYTES = 100 * 1024


def _by_ses(scene: "Scene", person: "Person", line: "Line") -> Any:
    """Published on a topic of its own at the embedded AWS, which calls the function."""
    import boto3
    import requests

    written, settings = _written(scene, person, line), scene.settings
    raw = written.as_bytes()
    topic = sns.topics(settings.topic_arns)[0]
    action = {"type": "SNS", "topicArn": topic, "encoding": "BASE64"}
    if len(raw) > _SES_INLINE_BYTES and settings.buckets:
        bucket = settings.buckets if isinstance(settings.buckets, str) else settings.buckets[0]
        key = f"mail/{uuid.uuid4().hex}"
        storage = boto3.client("s3")
        storage.create_bucket(Bucket=bucket)  # in the embedded region: harmless when it is there
        storage.put_object(Bucket=bucket, Key=key, Body=raw)
        action = {"type": "S3", "topicArn": topic, "bucketName": bucket, "objectKey": key}
    told = ses_received(
        raw,
        source=person.email,
        recipients=[str(written["To"])],
        action=action,
        verdicts=SES_PASS | {"dmarc": "PASS" if _passes(person) else "FAIL"},
    )
    ses_publish(topic, told)
    answer = requests.Response()
    answer.status_code = 200
    return answer


def ses_publish(topic_arn: str, told: Mapping[str, Any]) -> None:
    """On a topic that the function hears as it hears the stack's own."""
    import boto3

    from app import INBOUND_TOPIC

    topics, queues = boto3.client("sns"), boto3.client("sqs")
    topics.create_topic(Name=topic_arn.rpartition(":")[2])
    url = queues.get_queue_url(QueueName=f"{INBOUND_TOPIC}-pump")["QueueUrl"]
    asked = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    topics.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=asked["Attributes"]["QueueArn"])
    topics.publish(TopicArn=topic_arn, Message=json.dumps(told))


WAYS: "Mapping[str, Way]" = {
    "email_ses": _by_ses,
    "email_mailgun": _by_mailgun,
    "email_sendgrid": _by_sendgrid,
    "email_postmark": _by_postmark,
}
