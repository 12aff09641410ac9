"""Amazon SES: whose request it is, what its topic brings, what became of ours, and the way out."""

import email
import json
from collections.abc import Iterator
from dataclasses import replace
from email import policy
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.ses.models import ses_backends
from pydantic import ValidationError

from chalicelib.errors import (
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import WebhookRequest
from chalicelib.schema import Delivery, Message, Notice, Receipt
from connectors import mail_out, sns
from connectors.channels.email_ses import EmailSes
from infra.local.simulators import File, mail
from tests.mail_inboxes import refused
from tests.make_samples import NOW
from tests.recorded import SHARED, answer_to, arrived, later
from tests.samples_mail import LI, written
from tests.samples_ses import (
    INLINE,
    OURS,
    REGION,
    SES_ID,
    STORED,
    TOPIC,
    VIRUS,
    judged,
    published,
    received,
)
from tests.ses_inboxes import inbox, message, posted
from tests.sns_signing import know_certificate
from tests.test_email_threads import CONVERSATION, TOKEN, bounce
from tests.test_refusals import taking
from tests.test_vectors import absent, records, request_in

# Whose request it is


def test_the_same_mail_is_taken_over_http_and_as_an_event_of_the_topic() -> None:
    over_http = posted(received())
    event = replace(over_http, headers={}, event_source=TOPIC)
    for request in (over_http, event):
        inbox().verify(request)
        assert inbox().handshake(request) is None
    assert inbox().parse(over_http) == inbox().parse(event)


def test_what_sns_did_not_sign_or_a_foreign_topic_sent_is_refused() -> None:
    foreign = "arn:aws:sns:eu-central-1:210987654321:shop-mail"
    request = posted(received())
    assert refused(inbox(), posted(received(), topic_arn=foreign))
    assert refused(inbox(), replace(request, event_source=foreign))
    assert refused(inbox(), later(request, 3601))
    assert refused(inbox(), replace(request, body=request.body.replace(b"Received", b"received")))
    assert refused(inbox(signature_version="2"), arrived(published(received(), "1"), NOW))
    raw = json.dumps(received()).encode()
    assert refused(inbox(), replace(request, body=raw))
    assert refused(inbox(), replace(request, body=raw, event_source=TOPIC))


@absent
@pytest.mark.parametrize("record", records("sns"))
def test_the_verdict_on_every_recorded_request_is_the_known_one(record: Any) -> None:
    ours, request = of_record(record)
    assert refused(ours, request) != record["expected"]["verify"]
    if not record["expected"]["verify"]:
        w = taking(ours)
        with pytest.raises(SignatureError):
            w.pipeline.accept("inbox", request)
        assert (w.table.calls, w.bucket.objects, w.events) == (0, {}, [])


def of_record(record: Any) -> tuple[EmailSes, WebhookRequest]:
    request, secret = request_in(record), record["secret"]
    stated = json.loads(request.body)
    know_certificate(secret["signing_cert_pem"].encode(), stated["SigningCertURL"])
    ours = inbox(topic_arns=secret["allowed_topic_arn"], buckets=("x-other", "inbound-mail"))
    return ours, replace(request, received_at=sns.read(request.body).sent_at)


@absent
@pytest.mark.parametrize("record", records("sns", stating="action"))
def test_words_about_the_topic_are_nothing(record: Any) -> None:
    if record["expected"]["action"] == "ignore":
        ours, request = of_record(record)
        assert ours.parse(request) == []


@absent
@pytest.mark.parametrize("record", records("sns", stating="text"))
def test_a_recorded_mail_is_read(record: Any) -> None:
    ours, request = of_record(record)
    (found,) = ours.parse(request)
    assert isinstance(found, Message)
    expected = record["expected"]
    assert (found.subject, found.text) == (expected["subject"], expected["text"])
    assert [(e.level, e.source) for e in found.evidence] == [("verified", "dmarc")]


@absent
@pytest.mark.parametrize("record", records("sns", stating="spam"))
def test_a_recorded_verdict_goes_with_the_notice(record: Any) -> None:
    ours, request = of_record(record)
    (found,) = ours.parse(request)
    assert isinstance(found, Notice)
    told, failed = json.loads(found.token), record["expected"]["spam"] == "FAIL"
    assert (told["bucket"], told["mail_from"]) == ("inbound-mail", "zhangsan@qq.com")
    assert (told["spam"], told["virus"], told["dmarc"]) == (failed, failed, not failed)


@absent
def test_the_page_of_sns_payloads_says_what_an_inbox_of_ses_does() -> None:
    page = Path(__file__).parents[1] / "docs" / "payloads" / "sms.md"
    for line in page.read_text(encoding="utf-8").splitlines():
        if "sns__ses_" in line:
            assert "an inbox of `email_ses` reads it" in line


# Mail


def test_a_mail_keeps_its_id_however_it_comes_and_another_recipient_has_another() -> None:
    known = message(received()).id
    utf8 = INLINE | {"encoding": "UTF-8"}
    assert message(received(action=utf8, verdicts=judged(spam="FAIL"))).id == known
    assert message(received(recipients=["HELP@shop.example"])).id == known
    assert message(received(recipients=["sales@shop.example"])).id != known


def test_mail_in_other_charsets_arrives_whole_as_base64() -> None:
    head = b"From: li@example.com\r\nContent-Type: text/plain; charset=gb18030\r\n\r\n"
    found = message(received(head + "我的包裹呢？".encode("gb18030")))
    assert found.text == "我的包裹呢？"


def test_only_dmarc_proves_the_author_and_only_pass() -> None:
    for verdict, level in (("PASS", "verified"), ("FAIL", "claimed"), ("pass", "claimed")):
        (evidence,) = message(received(verdicts=judged(dmarc=verdict))).evidence
        assert evidence.level == level
    (evidence,) = message(received(verdicts={"dkim": "PASS", "spf": "PASS"})).evidence
    assert evidence.level == "claimed"
    forged = b"Authentication-Results: amazonses.com; dmarc=pass\r\n" + written().as_bytes()
    (evidence,) = message(received(forged, verdicts=judged(dmarc="FAIL"))).evidence
    assert evidence.level == "claimed"


@pytest.mark.parametrize(
    ("source", "automatic"), [("", True), ("<>", True), (LI, False), (None, False)]
)
def test_a_mail_without_return_path_is_never_answered_by_a_machine(
    source: Any, automatic: bool
) -> None:
    assert message(received(source=source)).automatic is automatic


def test_files_of_a_mail_with_a_virus_are_withheld() -> None:
    raw = written(file=File("offer.exe", "application/x-msdownload", b"MZ")).as_bytes()
    found = message(received(raw, verdicts=judged(virus="FAIL")))
    (file,) = found.attachments
    assert (file.name, file.content, file.unavailable) == ("offer.exe", None, VIRUS)
    assert found.automatic
    for verdict in ("PASS", "GRAY", "PROCESSING_FAILED", "DISABLED"):
        (file,) = message(received(raw, verdicts=judged(virus=verdict))).attachments
        assert (file.content, file.unavailable) == (b"MZ", None)


def test_the_token_in_a_recipient_proves_the_conversation() -> None:
    found = message(received(recipients=[f"help+{TOKEN}@shop.example"]))
    assert found.references == (f"conversation:{CONVERSATION}",)


def test_a_bounce_that_comes_as_mail_is_a_receipt_for_the_id_that_ses_made() -> None:
    (found,) = inbox().parse(posted(received(bounce(OURS), source="")))
    assert isinstance(found, Receipt)
    assert (found.external_id, found.state) == (OURS, Delivery.FAILED)


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "{}",
        "{" * 5000,
        '{"notificationType": 7}',
        '{"notificationType": "Received"}',
        '{"notificationType": "Received", "receipt": [], "mail": "x"}',
        '{"originationNumber": "+1", "messageBody": "x"}',
        received(action={"type": "Lambda"}),
        received() | {"content": None},
        received() | {"content": ""},
        received() | {"content": "é"},
        received(action={"type": "SNS", "encoding": "ROT13"}),
        received(b"Subject: no author\r\n\r\nx"),
        received(action=STORED | {"bucketName": "somebody-else-s"}),
        received(action=STORED | {"bucketName": ""}),
        received(action=STORED | {"objectKey": ""}),
        {"eventType": "Delivery"},
        {"eventType": "Delivery", "mail": {"messageId": "x>\r\nBcc: e"}},
    ],
    ids=lambda told: json.dumps(told)[:40],
)
def test_what_holds_no_mail_of_ours_is_a_payload_error(told: Any) -> None:
    with pytest.raises(PayloadError):
        inbox().parse(posted(told))


@absent
def test_the_event_of_an_action_of_lambda_holds_no_mail() -> None:
    path = SHARED / "payloads" / "aws_lambda_go" / "ses-sns-event.json"
    told = json.loads(path.read_text(encoding="utf-8"))["Records"][0]["ses"]
    with pytest.raises(PayloadError, match="no content"):
        inbox().parse(posted(told | {"notificationType": "Received"}))


# What became of ours


@pytest.mark.parametrize("kind", ["Permanent", "Undetermined", "Transient", ""])
def test_only_a_bounce_that_is_final_is_a_failure(kind: str) -> None:
    told = mail.ses_event("Bounce", SES_ID, bounce={"bounceType": kind})
    states = [r.state for r in inbox().parse(posted(told)) if isinstance(r, Receipt)]
    assert states == ([Delivery.FAILED] if kind in ("Permanent", "Undetermined") else [])


def test_events_are_about_the_id_that_sending_returned(mail_bucket: Any) -> None:
    boto3.client("sesv2", region_name=REGION).create_email_identity(EmailIdentity="shop.example")
    sent = inbox().send(answer_to(message(received())))
    own_id = sent.strip("<>").partition("@")[0]
    told = mail.ses_event("Delivery", own_id, event=False)
    (found,) = inbox().parse(posted(told))
    assert isinstance(found, Receipt)
    assert (found.external_id, found.state) == (sent, Delivery.DELIVERED)


# Out


def test_an_answer_leaves_by_ses_threaded_under_the_question(mail_bucket: Any) -> None:
    boto3.client("sesv2", region_name=REGION).create_email_identity(EmailIdentity="shop.example")
    asked = message(received())
    sent = inbox().send(answer_to(asked, conversation_id=CONVERSATION))
    assert sent.endswith(f"@{REGION}.amazonses.com>")
    (told,) = ses_backends["123456789012"][REGION].sent_messages
    letter = email.message_from_string(told.raw_data, policy=policy.default)
    assert {*told.destinations} == {LI}
    assert letter["In-Reply-To"] == asked.external_id
    assert letter["Reply-To"] == f"help+{TOKEN}@shop.example"


@pytest.fixture(autouse=True)
def fresh_client() -> Iterator[None]:
    mail_out._ses.cache_clear()
    yield
    mail_out._ses.cache_clear()


class Asked:
    """SES that takes whatever it is asked to send."""

    def __init__(self, name: str, **how: Any) -> None:
        self.how = how

    def send_email(self, **asked: Any) -> dict[str, str]:
        taken.append((self.how["region_name"], self.how["endpoint_url"], asked))
        return {"MessageId": SES_ID}


taken: list[tuple[str, str | None, dict[str, Any]]] = []


def test_a_configuration_set_goes_along_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    taken.clear()
    monkeypatch.setattr(boto3, "client", Asked)
    answer = answer_to(message(received()))
    assert inbox(configuration_set="askonce").send(answer) == OURS
    assert inbox(api_url="http://127.0.0.1:9").send(answer) == OURS
    assert [(region, end) for region, end, _ in taken] == [
        (REGION, None),
        (REGION, "http://127.0.0.1:9"),
    ]
    names = [asked.get("ConfigurationSetName") for _, _, asked in taken]
    assert names == ["askonce", None]


def test_a_sender_that_ses_does_not_know_is_a_final_refusal(mail_bucket: Any) -> None:
    with pytest.raises(RejectedError, match="MessageRejected"):
        inbox().send(answer_to(message(received())))


def test_without_a_line_it_is_tried_again(mail_bucket: Any) -> None:
    with pytest.raises(RetryableError, match="SES: ") as caught:
        inbox(api_url="http://127.0.0.1:9").send(answer_to(message(received())))
    assert not caught.value.uncertain


def test_a_mail_is_not_sent_twice_on_a_doubt() -> None:
    assert not inbox().capabilities.resends_safely
    assert mail_out.made_by_ses(OURS)
    assert inbox().sent_by_us(OURS)
    assert not inbox().sent_by_us("<1@example.com>")


@pytest.mark.parametrize(
    "more",
    [
        {"topic_arns": ""},
        {"topic_arns": []},
        {"topic_arns": "*"},
        {"region": ""},
        {"region": "mars"},
        {"buckets": "*"},
        {"buckets": "s3://shop-example-mail"},
        {"buckets": "shop-example-mail/in"},
        {"configuration_set": "a b"},
        {"signature_version": "3"},
    ],
    ids=str,
)
def test_a_setting_that_leads_nowhere_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(more))):
        inbox(**more)
