"""Samples of Amazon SES; make_samples writes them with its own."""

import json
from collections.abc import Iterator
from typing import Any

from infra.local.simulators import File, Sent, mail, sms
from tests.samples_mail import CLAIMED, LI, MAILBOX, PICTURE, TEXT, written
from tests.sns_signing import CERTIFICATE_URL, signer

Files = Iterator[tuple[str, dict[str, Any]]]

TOPIC = "arn:aws:sns:eu-central-1:123456789012:shop-mail"
REGION, BUCKET = "eu-central-1", "shop-example-mail"
SES = MAILBOX | {"topic_arns": TOPIC, "region": REGION, "buckets": BUCKET}
INLINE = {"type": "SNS", "topicArn": TOPIC, "encoding": "BASE64"}
STORED = {"type": "S3", "topicArn": TOPIC, "bucketName": BUCKET, "objectKey": "in/k1"}
SES_ID = "010701a2b3c4d5e6-0a1b2c3d-0000-4000-8000-0a1b2c3d4e5f-000000"
OURS = f"<{SES_ID}@{REGION}.amazonses.com>"
VERIFIED = [{"address": f"email:{LI}", "level": "verified", "source": "dmarc"}]
VIRUS = "SES found a virus in this mail"


def published(told: Any, version: str = "2", **more: Any) -> Sent:
    """What SES publishes, as SNS posts it, signed; text goes as it is."""
    from tests.make_samples import NOW

    own: dict[str, Any] = {"message_id": "made-up", "at": NOW, "certificate_url": CERTIFICATE_URL}
    own |= more
    topic = own.pop("topic_arn", TOPIC)
    message = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
    fields = sms.sns_fields(topic, message, version=version, sign=signer(version), **own)
    return sms.sns_post(fields, inbox="inbox")


def received(raw: bytes | None = None, **more: Any) -> dict[str, Any]:
    """A receipt notification of Li's mail."""
    usual: dict[str, Any] = {"source": LI, "recipients": ["help@shop.example"], "action": INLINE}
    return mail.ses_received(written().as_bytes() if raw is None else raw, **usual | more)


def judged(**verdicts: str) -> dict[str, str]:
    """SES's verdicts, some of them others than PASS."""
    return mail.SES_PASS | verdicts


def _sample(about: str, sent: Sent, *expected: Any) -> dict[str, Any]:
    from tests import make_samples

    return make_samples._sample(about, sent, SES, *expected)


def _mails() -> Files:
    verified = TEXT | {"evidence": VERIFIED}
    claimed = TEXT | {"evidence": CLAIMED}
    for verdict in ("FAIL", "GRAY", "PROCESSING_FAILED", "DISABLED"):
        told = received(verdicts=judged(dmarc=verdict))
        sample = _sample("no other verdict is a proof", published(told), claimed)
        yield f"dmarc_{verdict.lower()}", sample
    told = received(source="")
    sample = _sample("no return path", published(told), verified | {"automatic": True})
    yield "null_return_path", sample
    told = received(verdicts=judged(spam="FAIL"))
    sample = _sample("spam is never answered", published(told), verified | {"automatic": True})
    yield "spam", sample
    told = received(verdicts=judged(spam="GRAY", virus="PROCESSING_FAILED"))
    yield "undecided", _sample("neither spam nor a virus", published(told), verified)
    raw = written(file=File("../茶.png", "image/png", b"\x89PNG")).as_bytes()
    told = received(raw, verdicts=judged(virus="FAIL"))
    withheld = PICTURE | {"unavailable": VIRUS}
    sample = _sample(
        "a virus", published(told), verified | {"automatic": True, "attachments": [withheld]}
    )
    yield "virus", sample
    file = verified | {"attachments": [PICTURE | {"unavailable": None}]}
    yield "base64_file", _sample("a mail with a file", published(received(raw)), file)
    utf8 = {"type": "SNS", "topicArn": TOPIC, "encoding": "UTF8"}
    unstated = {"type": "SNS", "topicArn": TOPIC}
    for name, action in (("utf8", utf8), ("no_encoding", unstated)):
        sample = _sample("the mail as text", published(received(action=action)), verified)
        yield name, sample
    for version in ("1", "2"):
        sent = published(received(), version, Subject="Amazon SES Email Receipt Notification")
        yield f"text_v{version}", _sample(f"signature {version}", sent, verified)


def _notices() -> Files:
    handover = {
        "bucket": BUCKET,
        "key": "in/k1",
        "mail_from": LI,
        "recipients": ["help@shop.example"],
        "dmarc": True,
        "spam": False,
        "virus": False,
    }
    token = json.dumps(handover, separators=(",", ":"))
    sample = _sample("a mail in S3", published(received(action=STORED)), {"token": token})
    yield "stored", sample
    setup = STORED | {"objectKey": "in/AMAZON_SES_SETUP_NOTIFICATION"}
    yield "stored_setup", _sample("SES tries the bucket", published(received(action=setup)))
    told = {"notificationType": "AMAZON_SES_SETUP_NOTIFICATION"}
    yield "setup", _sample("SES tries the topic", published(told))
    word = "Successfully validated SNS topic for Amazon SES event publishing."
    yield "word_of_aws", _sample("no JSON: a word about the topic", published(word))


def _events() -> Files:
    why = "smtp; 550 5.1.1 no such mailbox"
    bounced = [{"emailAddress": LI, "status": "5.1.1", "diagnosticCode": why}]
    permanent = {"bounceType": "Permanent", "bounceSubType": "General"}
    said = {"reason": f"it could not be delivered: {why}"}
    spam = {"reason": "the recipient reported it as spam"}
    template = {"errorMessage": "the template lacks a name"}
    for name, kind, more, became in (
        ("bounce", "Bounce", {"bounce": permanent | {"bouncedRecipients": bounced}},
         {"state": "failed"} | said),
        ("bounce_unclear", "Bounce", {"bounce": {"bounceType": "Undetermined"}},
         {"state": "failed", "reason": "it could not be delivered"}),
        ("bounce_transient", "Bounce", {"bounce": {"bounceType": "Transient"}}, None),
        ("complaint", "Complaint", {"complaint": {"complaintFeedbackType": "abuse"}},
         {"state": "failed"} | spam),
        ("complaint_taken_back", "Complaint", {"complaint": {"complaintFeedbackType": "not-spam"}},
         None),
        ("delivery", "Delivery", {"delivery": {"recipients": [LI]}},
         {"state": "delivered", "reason": ""}),
        ("reject", "Reject", {"reject": {"reason": "Bad content"}},
         {"state": "failed", "reason": "SES did not send it: Bad content"}),
        ("rendering_failure", "Rendering Failure", {"failure": template},
         {"state": "failed", "reason": "SES did not send it: the template lacks a name"}),
        ("send", "Send", {"send": {}}, None),
        ("open", "Open", {"open": {}}, None),
        ("delay", "DeliveryDelay", {"deliveryDelay": {}}, None),
    ):  # fmt: skip
        expected = [{"external_id": OURS} | became] if became else []
        for event in (True, False) if kind in ("Bounce", "Complaint", "Delivery") else (True,):
            told = mail.ses_event(kind, SES_ID, event=event, **more)
            way = "event" if event else "notification"
            yield f"{way}_{name}", _sample(f"an {way}", published(told), *expected)


def simulated() -> dict[str, dict[str, Any]]:
    """{file below tests/samples: its content}."""
    return {
        f"email_ses/{name}.json": content
        for made in (_events, _notices, _mails)
        for name, content in made()
    }
