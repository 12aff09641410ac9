"""Mail as it leaves: nothing that a person wrote becomes a header, on any way out."""

import base64
import email
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from typing import Any

import boto3
import pytest
import responses
from hypothesis import example, given, settings
from hypothesis import strategies as st
from moto import mock_aws
from moto.ses.models import ses_backends
from pydantic import ValidationError

from chalicelib.errors import DeliveryError, RejectedError, RetryableError
from chalicelib.schema import Attachment, Delivery, Message, Receipt
from connectors import forms, mail_out, mime_out
from connectors.mail_channel import MailConnector
from infra.local import simulators
from tests.make_samples import EMAIL, NOW, STANDARD_SECRET
from tests.recorded import answer_to, arrived, connector, messages_in, samples
from tests.samples_mail import MAILGUN, POSTMARK, SENDGRID, written
from tests.test_email_threads import CONVERSATION, TOKEN, bounce

URL = "https://askonce.example/webhooks/inbox"
SETTINGS = {"email_mailgun": MAILGUN, "email_sendgrid": SENDGRID, "email_postmark": POSTMARK}
each_provider = pytest.mark.parametrize("name", sorted(SETTINGS))


def inbox(name: str, **more: Any) -> MailConnector:
    made = connector(name, SETTINGS.get(name, EMAIL) | more, URL)
    assert isinstance(made, MailConnector)
    return made


def reply(**more: Any) -> Message:
    sample = next(s for s in samples(of="email_mime") if s.path.stem == "plain_text")
    (question,) = messages_in(sample.connector(), sample.request)
    return answer_to(question, **{"conversation_id": CONVERSATION} | more)


# The property

#: What has injected headers somewhere, among any text.
_HOSTILE = st.sampled_from(
    [
        "\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\ud800",
        "=?utf-8?q?x=0D=0ABcc:_eve=40evil.example?=", "=?utf-8?b?DQpCY2M6IGU=?=", "Bcc: e@e", ":",
        '"', "\\", "<", ">", ",", ";", "@", "\u202e", "é", "茶", "📦", " ", "a" * 80, "x " * 60,
        "--b", ".", "From ", "\t",
    ]
)  # fmt: skip
words = st.lists(_HOSTILE | st.text(max_size=4), max_size=12).map("".join)
names = words.filter(lambda text: len(text) < 400)
files = st.lists(
    st.tuples(names, names | st.just("text/plain"), st.binary(max_size=40)), max_size=2
)
references = st.lists(
    st.sampled_from(["<1@b.example>", "conversation:q1", "<" + "a" * 480 + "@b.example>"]) | words,
    max_size=30,
)
HEADERS = ["From", "To", "Reply-To", "Subject", "Date", "Message-ID"]
ABOUT_BODY = {"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition"}


def wanted(ids: list[str], *, automatic: bool) -> list[str]:
    threaded = ["In-Reply-To", "References"] if ids else []
    return [*HEADERS, *threaded, *(mime_out.AUTOMATIC if automatic else ())]


@settings(max_examples=400, deadline=None)
@given(
    name=words, subject=words, text=words, refs=references, attached=files, automatic=st.booleans()
)
@example(
    name="=?utf-8?q?a=0ABcc:_e=40e?=",
    subject="=?utf-8?q?x=0ABcc:_e=40e?=",
    text="\n.\nFrom x\r\r\n",
    refs=["<a@b>\r\nBcc: e@e"],
    attached=[('a"\r\nBcc: e', "text/plain\r\nBcc: e", b"\n")],
    automatic=True,
)
def test_a_mail_read_again_has_the_headers_that_we_set_and_no_other(
    name: str,
    subject: str,
    text: str,
    refs: list[str],
    attached: list[tuple[str, str, bytes]],
    automatic: bool,
) -> None:
    mail = mime_out.write(
        sender="help@shop.example",
        sender_name=name,
        to="li@example.com",
        subject=subject,
        text=text,
        message_id="<m1@shop.example>",
        references=refs,
        sent_at=datetime(2026, 1, 1, tzinfo=UTC),
        automatic=automatic,
        attachments=[Attachment(name=n, media_type=k, content=c) for n, k, c in attached],
        reply_to="help+x@shop.example",
    )
    raw = mail.as_bytes()
    lines = raw.split(b"\r\n")
    assert not [line for line in lines if len(line) > 998 or b"\r" in line or b"\n" in line]
    again = email.message_from_bytes(raw, policy=policy.compat32)
    found = list(again.walk())
    own = [key for key in again if key not in ABOUT_BODY]
    assert own == wanted(mime_out.message_ids(refs), automatic=automatic)
    assert len(found) == (1 if not attached else 2 + len(attached))
    assert {key for part in found[1:] for key in part} <= ABOUT_BODY
    assert (again["To"], again["Message-ID"]) == ("li@example.com", "<m1@shop.example>")
    assert (again["Reply-To"], again["Date"]) == (
        "help+x@shop.example",
        "Thu, 01 Jan 2026 00:00:00 GMT",
    )
    modern = email.message_from_bytes(raw, policy=policy.default)
    assert [a.addr_spec for a in modern["From"].addresses] == ["help@shop.example"]
    contents = [part.get_payload(decode=True) for part in found[2:]]
    assert contents == [content for _, _, content in attached]


@settings(max_examples=150, deadline=None)
@given(subject=words, text=words, attached=files)
def test_what_the_providers_apis_get_holds_no_line_end_in_a_header(
    subject: str, text: str, attached: list[tuple[str, str, bytes]]
) -> None:
    kept = tuple(Attachment(name=n, media_type=k, content=c) for n, k, c in attached)
    message = reply(subject=subject.replace("\ud800", "?"), text="x", attachments=kept)
    message = message.model_copy(update={"text": text, "subject": subject})
    for name in ("email_sendgrid", "email_postmark"):
        asked = posted(inbox(name, display_name="Tea\r\nBcc: e@e"), message)
        found = [
            value
            for path, value in leaves(asked)
            if not re.search(r"TextBody|value$|content$|Content$", path)
        ]
        assert not [v for v in found if isinstance(v, str) and re.search(r"[\r\n\0\u2028]|=\?", v)]


def posted(connector_: MailConnector, message: Message) -> dict[str, Any]:
    """What the provider's API gets."""
    with responses.RequestsMock() as wire:
        wire.post(re.compile(".*"), json={"ErrorCode": 0}, status=202)
        connector_.send(message)
        body = wire.calls[0].request.body
    found: dict[str, Any] = json.loads(body or b"")
    return found


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value, path)
    else:
        yield path, tree


@pytest.mark.parametrize(
    "to",
    [
        "a@b.example, eve@evil.example", "a@b.example\r\nBcc: eve@evil.example", "a b@c.example",
        "张三@例子.中国", "a@b@c.example", "<a@b.example>", "a@b.example>", "@b.example", "a@", "",
        '"a"@b.example', "a@b.example;c@d.example", "a@-b.example", "a@b.example.",
        "a\x00@b.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["email_mime", *SETTINGS])
def test_an_address_that_could_be_two_gets_nothing(name: str, to: str) -> None:
    message = reply().model_copy(update={"address": f"email:{to}"})
    with responses.RequestsMock(), pytest.raises(RejectedError):
        inbox(name).send(message)


# What each provider gets

PICTURE = Attachment(name="茶.png", media_type="image/png", content=b"\x89PNG")


def test_sendgrid_gets_the_letter() -> None:
    message = reply(text="明天。", attachments=(PICTURE,), automatic=True)
    asked = posted(inbox("email_sendgrid"), message)
    mail_id = f"<{message.id}@shop.example>"
    assert asked["personalizations"] == [
        {"to": [{"email": "li@example.com"}], "custom_args": {"askonce_id": message.id}}
    ]
    assert asked["from"] == {"email": "help@shop.example", "name": "Lantern Tea"}
    assert asked["reply_to"] == {"email": f"help+{TOKEN}@shop.example"}
    assert asked["content"] == [{"type": "text/plain", "value": "明天。"}]
    assert asked["headers"] == {
        "Message-ID": mail_id,
        "In-Reply-To": "<parcel-1@example.com>",
        "References": "<parcel-1@example.com>",
        "Auto-Submitted": "auto-replied",
        "X-Auto-Response-Suppress": "All",
    }
    (file,) = asked["attachments"]
    assert (file["filename"], file["type"]) == ("茶.png", "image/png")
    assert base64.b64decode(file["content"]) == PICTURE.content


def test_postmark_gets_the_letter() -> None:
    message = reply(attachments=(PICTURE,))
    asked = posted(inbox("email_postmark"), message)
    headers = {h["Name"]: h["Value"] for h in asked["Headers"]}
    assert (asked["From"], asked["To"]) == ('"Lantern Tea" <help@shop.example>', "li@example.com")
    assert asked["ReplyTo"] == f"help+{TOKEN}@shop.example"
    assert asked["Metadata"] == {"askonce_id": message.id}
    assert headers["Message-ID"] == f"<{message.id}@shop.example>"
    assert headers["X-PM-KeepID"] == "true"
    assert headers["In-Reply-To"] == "<parcel-1@example.com>"
    assert asked["Attachments"][0]["Name"] == "茶.png"


def test_mailgun_gets_the_mail_itself() -> None:
    message = reply(attachments=(PICTURE,))
    with responses.RequestsMock() as wire:
        wire.post("https://api.mailgun.net/v3/shop.example/messages.mime", json={"id": "<1@x>"})
        assert inbox("email_mailgun").send(message) == f"<{message.id}@shop.example>"
        request = wire.calls[0].request
    content_type, body = request.headers["Content-Type"], request.body
    assert isinstance(body, bytes)
    form = forms.read(content_type, body)
    assert form.text("to") == "li@example.com"
    mail = email.message_from_bytes(form.content("message"), policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert mail["Message-ID"] == f"<{message.id}@shop.example>"
    assert [part.get_filename() for part in mail.iter_attachments()] == ["茶.png"]
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(
        b"api:made-up-api-key"
    ).decode("ascii")


@each_provider
def test_an_empty_text_goes_out_with_its_files(name: str) -> None:
    message = reply(text="", attachments=(PICTURE,))
    with responses.RequestsMock() as wire:
        wire.post(re.compile(".*"), json={"ErrorCode": 0, "id": "<1@x>"}, status=202)
        assert inbox(name).send(message)


def test_a_file_that_is_not_at_hand_goes_out_as_a_link_or_not_at_all() -> None:
    linked = Attachment(name="茶.pdf", url="https://files.example/1?x=y")
    letter = inbox("email_mime").letter(reply(text="明天。", attachments=(linked, PICTURE)))
    assert letter.text == "明天。\n\n茶.pdf: https://files.example/1?x=y"
    assert letter.files == (PICTURE,)
    with pytest.raises(RejectedError, match="could not be had"):
        inbox("email_mime").letter(reply(attachments=(Attachment(name="a"),)))


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"ErrorCode": 406}, RejectedError),
        ({}, RetryableError),
        ({"ErrorCode": "0"}, RetryableError),
    ],
)
def test_postmark_s_errors_in_an_answer_count(told: Any, error: type[DeliveryError]) -> None:
    with responses.RequestsMock() as wire:
        wire.post(re.compile(".*"), json=told)
        with pytest.raises(error):
            inbox("email_postmark").send(reply())


# SES

REGION = "eu-central-1"


def by_ses(**more: Any) -> MailConnector:
    return inbox("email_mime", **{"out": "ses", "region": REGION, "smtp_url": None} | more)


@pytest.fixture(autouse=True)
def fresh_client() -> Iterator[None]:
    mail_out._ses.cache_clear()
    yield
    mail_out._ses.cache_clear()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    with mock_aws():
        yield


def test_a_letter_leaves_by_ses(aws: None) -> None:
    boto3.client("sesv2", region_name=REGION).create_email_identity(EmailIdentity="shop.example")
    message = reply(attachments=(PICTURE,))
    mail_id = by_ses().send(message)
    assert re.fullmatch(rf"<[^<>@\s]+@{REGION}\.amazonses\.com>", mail_id)
    (sent,) = ses_backends["123456789012"][REGION].sent_messages
    mail = email.message_from_string(sent.raw_data, policy=policy.default)
    assert {*sent.destinations} == {"li@example.com"}
    assert (mail["To"], mail["Subject"]) == ("li@example.com", "Re: My parcel")


def test_an_address_that_ses_does_not_know_is_a_final_refusal(aws: None) -> None:
    with pytest.raises(RejectedError, match="MessageRejected"):
        by_ses().send(reply())


def test_ses_without_a_line_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    with pytest.raises(RetryableError, match="EndpointConnectionError") as caught:
        by_ses().send(reply())
    assert not caught.value.uncertain


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("TooManyRequestsException", 429, RetryableError),
        ("SendingPausedException", 400, RetryableError),
        ("LimitExceededException", 400, RetryableError),
        ("InternalServiceErrorException", 500, RetryableError),
        ("MessageRejected", 400, RejectedError),
        ("MailFromDomainNotVerifiedException", 400, RejectedError),
        ("AccessDeniedException", 403, RejectedError),
    ],
)
def test_what_ses_says_is_final_or_not(code: str, status: int, error: type[DeliveryError]) -> None:
    told = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert isinstance(mail_out._ses_error(told), error)


def test_ses_in_its_first_region_has_another_name() -> None:
    assert mail_out.ses_message_id("0101", "us-east-1") == "<0101@email.amazonses.com>"
    assert mail_out.ses_message_id("0101", REGION) == f"<0101@{REGION}.amazonses.com>"


def test_a_mail_by_ses_is_not_sent_twice_on_a_doubt() -> None:
    assert inbox("email_mime").capabilities.resends_safely
    assert not by_ses().capabilities.resends_safely
    assert inbox("email_mime").capabilities.resends_safely


def test_a_bounce_names_the_id_that_ses_made() -> None:
    original = mail_out.ses_message_id("0107019a", REGION)
    told = {"mail_from": "", "rcpt_to": ["help@shop.example"]}
    sent = simulators.signed_mail(STANDARD_SECRET, bounce(original), told, at=NOW)
    (found,) = by_ses().parse(arrived(sent, NOW))
    assert isinstance(found, Receipt)
    assert (found.external_id, found.state) == (original, Delivery.FAILED)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"region": ""}, "region"),
        ({"region": "mars"}, "region"),
        ({"out": "smtp"}, "smtp_url"),
        ({"out": "pigeon"}, "out"),
    ],
)
def test_a_way_out_that_leads_nowhere_is_refused(more: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        by_ses(**more)


def test_the_letter_is_the_same_whichever_way_it_goes() -> None:
    message, mails = reply(), []
    for name in ("email_mime", *SETTINGS):
        one = inbox(name, reply_secret=MAILGUN["reply_secret"]).letter(message)
        mails.append((one.message_id, one.reply_to, one.headers, one.mail.as_bytes()))
    assert all(one == mails[0] for one in mails)
    assert written()["Message-ID"] == mails[0][2]["In-Reply-To"]
