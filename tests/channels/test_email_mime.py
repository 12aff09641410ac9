"""Email's peculiarities: who is believed, what machines say, and the codes of a mail server."""

import base64
import socket
from contextlib import suppress
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from pydantic import ValidationError

from chalicelib.errors import DeliveryError, PayloadError, RejectedError, RetryableError
from chalicelib.ports import Connector
from chalicelib.schema import Attachment, Level, Message
from connectors import mime
from infra.local import simulators
from tests.loopback import Mailbox, mailbox
from tests.make_samples import EMAIL, NOW, STANDARD_SECRET
from tests.recorded import answer_to, arrived, connector, messages_in, with_header

URL = "https://askonce.example/webhooks/inbox"


def mail(text: str = "Where is my parcel?", **headers: str) -> bytes:
    usual = {"From": "Li <li@example.com>", "Message-ID": "<1@example.com>", "Subject": "Parcel"}
    named = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return head.encode() + b"\r\n" + text.encode()


def read(raw: bytes, **envelope: Any) -> Message:
    told = {"mail_from": "li@example.com", "dmarc": "pass"} | envelope
    request = arrived(simulators.signed_mail(STANDARD_SECRET, raw, told, at=NOW), NOW)
    (message,) = messages_in(email_to("smtp://127.0.0.1:1"), request)
    return message


def email_to(smtp_url: str) -> Connector:
    return connector("email_mime", EMAIL | {"smtp_url": smtp_url}, URL)


# Who is believed


@pytest.mark.parametrize(
    ("sender", "envelope", "level"),
    [
        ("li@example.com", {"dmarc": "pass"}, Level.VERIFIED),
        ("li@example.com", {"dmarc": "fail"}, Level.CLAIMED),
        ("li@example.com", {"dmarc": "temperror"}, Level.CLAIMED),
        ("li@example.com", {"dmarc": "none", "dkim": ["EXAMPLE.com"]}, Level.VERIFIED),
        ("li@example.com", {"dmarc": "none", "dkim": ["mail.example.com"]}, Level.CLAIMED),
        ("li@sub.example.com", {"dmarc": "none", "dkim": ["example.com"]}, Level.CLAIMED),
        ("li@example.com, eve@evil.example", {"dmarc": "pass"}, Level.CLAIMED),
        ("li@example.com\r\nFrom: eve@evil.example", {"dmarc": "pass"}, Level.CLAIMED),
        ("li@example.com)eve@evil.example", {"dmarc": "pass"}, Level.CLAIMED),
        ("li@example.com\\,eve@evil.example", {"dmarc": "pass"}, Level.CLAIMED),
        ("<li@example.com> <eve@evil.example>", {"dmarc": "pass"}, Level.CLAIMED),
        ("Wei, Li <li@example.com>", {"dmarc": "pass"}, Level.VERIFIED),
    ],
)
def test_only_the_receiving_server_s_verdict_proves_an_author(
    sender: str, envelope: dict[str, Any], level: Level
) -> None:
    (evidence,) = read(mail(From=sender), **envelope).evidence
    assert evidence.level is level


def test_what_a_mail_says_of_its_own_checks_counts_for_nothing() -> None:
    forged = "mx.shop.example; dmarc=pass header.from=example.com; dkim=pass"
    message = read(mail(Authentication_Results=forged), dmarc="none")
    assert message.evidence[0].level is Level.CLAIMED


@pytest.mark.parametrize(
    ("sender", "address", "name"),
    [
        ('"li@example.com" <eve@evil.example>', "eve@evil.example", "li@example.com"),
        ("LI@Example.COM", "li@example.com", ""),
        ("=?utf-8?b?5p2O?= <li@example.com>", "li@example.com", "李"),
        ("李 <li@example.com>", "li@example.com", "李"),
        ("Li\u202ekcoL <li@example.com>", "li@example.com", "Li kcoL"),
        ("张三@例子.中国", "张三@例子.中国", ""),
    ],
)
def test_an_author_is_the_address_and_never_the_name(sender: str, address: str, name: str) -> None:
    message = read(mail(From=sender))
    assert (message.address, message.sender_name) == (f"email:{address}", name)


@pytest.mark.parametrize(
    "sender", ["", "Li", "alice@a.example[bob@b.example]", "@b.example", "<>", "a\x01b@b.example"]
)
def test_a_mail_without_a_plain_author_is_a_payload_error(sender: str) -> None:
    with pytest.raises(PayloadError):
        read(mail(From=sender))


@pytest.mark.parametrize(
    "told", ["", "null", "[]", '{"dmarc": "maybe"}', '{"rcpt_to": 7}', "\ud800"]
)
def test_an_envelope_that_says_nothing_proves_nothing(told: str) -> None:
    sent = simulators.signed_mail(STANDARD_SECRET, mail(), {}, at=NOW)
    request = with_header(arrived(sent, NOW), "askonce-envelope", told)
    with suppress(PayloadError):
        (message,) = messages_in(email_to("smtp://127.0.0.1:1"), request)
        assert message.evidence[0].level is Level.CLAIMED


# Machines


@pytest.mark.parametrize(
    ("header", "value", "automatic"),
    [
        ("Auto-Submitted", "auto-replied", True),
        ("Auto-Submitted", "auto-generated; type=x", True),
        ("Auto-Submitted", "no", False),
        ("Precedence", "bulk", True),
        ("Precedence", "first-class", False),
        ("X-Auto-Response-Suppress", "All", True),
        ("X-Auto-Response-Suppress", "None", False),
        ("X-Autoreply", "yes", True),
        ("X-Loop", "help@shop.example", True),
        ("List-Id", "<tea.example.com>", True),
        ("Return-Path", "<>", True),
        ("Return-Path", "<li@example.com>", False),
        ("Content-Type", "multipart/report; boundary=b", True),
        ("From", "MAILER-DAEMON@example.com", True),
        ("From", "no-reply@example.com", True),
        ("From", "noreplying@example.com", False),
        ("Subject", "Automatic reply: Parcel", True),
        ("Subject", "=?utf-8?b?6Ieq5Yqo5Zue5aSN77ya5oKo?=", True),
        ("Subject", "Re: Automatic reply: Parcel", False),
        ("Subject", "How do I set up an automatic reply?", False),
    ],
)
def test_a_machine_s_mail_is_known_as_such(header: str, value: str, automatic: bool) -> None:
    message = read(mail(**{header.replace("-", "_"): value}))
    assert message.automatic == automatic


@pytest.mark.parametrize(("mail_from", "automatic"), [("", True), ("li@example.com", False)])
def test_a_mail_without_a_return_path_is_automatic(mail_from: str, automatic: bool) -> None:
    assert read(mail(), mail_from=mail_from).automatic == automatic


# Which mail it is


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (mail(), True),
        (mail(Received="from elsewhere"), True),
        (mail("Other words"), False),
        (mail(Subject="Other subject"), False),
        (mail(Message_ID="<2@example.com>"), False),
        (mail(From="eve@example.com"), False),
    ],
)
def test_a_mail_is_the_same_by_its_id_and_its_words(other: bytes, same: bool) -> None:
    assert (read(mail()).id == read(other).id) == same


@pytest.mark.parametrize("message_id", ["", "no brackets", "<>", "<\udce9@example.com>"])
def test_a_mail_without_a_usable_id_is_known_by_its_bytes(message_id: str) -> None:
    raw = mail(Message_ID="").replace(
        b"Message-ID: ", b"Message-ID: " + message_id.encode("utf-8", "surrogateescape")
    )
    assert read(raw).external_id == read(raw).external_id != ""
    assert read(raw).id != read(raw + b" and more").id


# Charsets


@pytest.mark.parametrize(
    ("content", "charset", "text"),
    [
        ("朱镕基".encode("gbk"), "gb2312", "朱镕基"),
        ("訂單".encode("big5"), "big5", "訂單"),
        ("我哋嘅".encode("big5hkscs"), "big5", "我哋嘅"),
        ("注文".encode("iso-2022-jp"), "iso-2022-jp", "注文"),
        ("订单".encode("gbk"), "utf-8", "订单"),
        ("订单".encode("gbk"), "x-nobody-knows", "订单"),
        ("naïve".encode("latin-1"), "iso-8859-1", "naïve"),
        ("\u2018quoted\u2019".encode("cp1252"), "iso-8859-1", "\u2018quoted\u2019"),
        ("订单".encode("utf-7"), "unicode-1-1-utf-7", "订单"),
        (b"abc-", "punycode", "abc-"),
        (b"xn--a-ecp", "idna", "xn--a-ecp"),
        (b"\\u4e2d", "unicode_escape", "\\u4e2d"),
        (b"\\u4e2d", "Raw\x01Unicode Escape", "\\u4e2d"),
        (b"+2AA-", "utf-7", "+2AA-"),
        (b"abc", "base64", "abc"),
        (b"abc", "a\0b", "abc"),
    ],
)
def test_bytes_become_text_whatever_their_label_says(
    content: bytes, charset: str, text: str
) -> None:
    assert mime.decode(content, charset) == text


# Floods: what is beyond a cap is left out, in time that grows no faster than the mail


def html(body: str) -> bytes:
    return mail(body, Content_Type="text/html; charset=utf-8")


@pytest.mark.parametrize(
    "raw",
    [
        html("<p>Tea?</p>" + "<div>" * 200_000),
        html("<p>Tea?</p>" + "<br " * 200_000),
        html("<p>Tea?</p>" + "<!--" * 200_000),
        mail("Tea? \r\n" + "a \r\n" * 500_000, Content_Type="text/plain; format=flowed"),
        mail("Tea?\r\n" + "> \r\n" * 200_000),
        mail("Tea?" + "a-b9" * 500_000, Content_Type="text/plain; charset=punycode"),
        mail("Tea?" + "xn--a" * 500_000, Content_Type="text/plain; charset=idna"),
    ],
    ids=["div", "br", "comments", "flowed", "quoted", "punycode", "idna"],
)
def test_a_flood_is_read_up_to_its_cap(raw: bytes) -> None:
    text = read(raw).text
    assert text.startswith("Tea?")
    assert len(text) <= mime.MAX_TEXT


def test_what_stands_behind_ten_thousand_tags_is_left_out() -> None:
    text = read(html("<p>Tea?</p>" + "<b></b>" * mime.MAX_TAGS + "end")).text
    assert text == "Tea?"


@pytest.mark.parametrize("kind", ["multipart/mixed", "multipart/digest", "multipart/alternative"])
def test_a_flood_of_parts_is_a_payload_error(kind: str) -> None:
    parts = "--b\n\n" * 300_000
    with pytest.raises(PayloadError, match="too many parts"):
        read(mail(parts, Content_Type=f"{kind}; boundary=b"))


# A mail server's codes


def answer(**more: Any) -> Message:
    return answer_to(read(mail()), **more)


def result(message: Message, **says: str) -> tuple[DeliveryError | None, Mailbox]:
    """What sending raises, and what the server saw."""
    with mailbox(**says) as box:
        try:
            email_to(box.url).send(message)
        except DeliveryError as error:
            return error, box
    return None, box


@pytest.mark.parametrize(
    ("command", "said", "error"),
    [
        ("RCPT", "550 no such mailbox", RejectedError),
        ("RCPT", "553 not allowed", RejectedError),
        ("RCPT", "450 grey-listed", RetryableError),
        ("RCPT", "452 mailbox full", RetryableError),
        ("MAIL", "550 sender refused", RejectedError),
        ("MAIL", "451 try later", RetryableError),
        ("DATA", "554 looks like spam", RejectedError),
        ("DATA", "552 too large", RejectedError),
        ("DATA", "451 try later", RetryableError),
        ("GREETING", "554 go away", RejectedError),
        ("GREETING", "421 too busy", RetryableError),
        ("GREETING", "drop", RetryableError),
        ("EHLO", "drop", RetryableError),
        ("MAIL", "drop", RetryableError),
        ("RCPT", "drop", RetryableError),
        ("DATA", "drop", RetryableError),
        ("MAIL", "what?", RetryableError),
        ("MAIL", "250", None),
        ("QUIT", "500 never heard of it", None),
        ("QUIT", "421 closing", None),
        ("QUIT", "drop", None),
    ],
)
def test_only_a_final_code_is_final(
    command: str, said: str, error: type[DeliveryError] | None
) -> None:
    found, _ = result(answer(), **{command: said})
    assert type(found) is (error or type(None))


def test_a_server_that_is_not_there_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RetryableError, match="ConnectionRefusedError"):
        email_to(f"smtp://127.0.0.1:{port}").send(answer())


def test_a_password_is_decoded_and_sent_once() -> None:
    with mailbox(EHLO="250-loopback\r\n250 AUTH PLAIN", AUTH="235 welcome") as box:
        email_to(box.url.replace("//", "//us%40er:p%2Fw@")).send(answer())
    (login,) = [line for line in box.commands if line.startswith("AUTH")]
    assert base64.b64decode(login.split()[-1]) == b"\0us@er\0p/w"


def test_a_refused_password_says_nothing_of_the_password() -> None:
    says = {"EHLO": "250-loopback\r\n250 AUTH PLAIN", "AUTH": "535 wrong secret-word"}
    with mailbox(**says) as box, pytest.raises(RejectedError) as caught:
        email_to(box.url.replace("//", "//user:secret-word@")).send(answer())
    assert "secret-word" not in str(caught.value)


def test_an_address_in_other_letters_is_refused_before_anything_is_sent() -> None:
    error, box = result(answer(address="email:张三@例子.中国"))
    assert isinstance(error, RejectedError)
    assert box.commands == []


# What goes out


def sent(message: Message) -> tuple[Mailbox, EmailMessage]:
    error, box = result(message)
    assert error is None
    (raw,) = box.mails
    return box, message_from_bytes(raw, policy=policy.default)


def test_an_answer_is_threaded_and_from_the_mailbox() -> None:
    box, mail_ = sent(answer(subject="Re: Parcel"))
    assert box.argument("MAIL") == "help@shop.example"
    assert str(mail_["From"]) == "Lantern Tea <help@shop.example>"
    assert (str(mail_["To"]), str(mail_["Subject"])) == ("li@example.com", "Re: Parcel")
    assert str(mail_["In-Reply-To"]) == str(mail_["References"]) == "<1@example.com>"
    assert mail_["Date"].datetime == datetime.fromtimestamp(NOW, UTC)
    assert "Auto-Submitted" not in mail_


def test_an_automatic_answer_has_no_return_path_and_says_what_it_is() -> None:
    box, mail_ = sent(answer(automatic=True))
    assert box.argument("MAIL") == ""
    assert str(mail_["Auto-Submitted"]) == "auto-replied"
    assert str(mail_["X-Auto-Response-Suppress"]) == "All"


def test_an_answer_sent_twice_has_one_message_id() -> None:
    with mailbox() as box:
        ids = {email_to(box.url).send(answer()) for _ in range(2)}
    assert ids == {f"<{answer().id}@shop.example>"}
    assert {str(message_from_bytes(raw)["Message-ID"]) for raw in box.mails} == ids


def test_an_answer_carries_the_agent_s_files() -> None:
    file = Attachment(name="发票.pdf", media_type="application/pdf", content=b"%PDF")
    _, mail_ = sent(answer(attachments=(file,)))
    (part,) = mail_.iter_attachments()
    assert isinstance(part, EmailMessage)
    assert (part.get_filename(), part.get_content()) == ("发票.pdf", b"%PDF")


INJECTED = "=?utf-8?q?x=0D=0ABcc:_eve=40evil.example?="


@pytest.mark.parametrize(
    "words", [INJECTED, "x\r\nBcc: eve@evil.example", f"{'x ' * 40}{INJECTED}"]
)
def test_no_words_become_a_header_or_a_recipient(words: str) -> None:
    file = Attachment(name=words, media_type=f"image/png\r\n{words}", content=b"png")
    box, mail_ = sent(answer(subject=words, text=words, attachments=(file,)))
    (part,) = mail_.iter_attachments()
    assert box.argument("RCPT") == str(mail_["To"]) == "li@example.com"
    assert "Bcc" not in [*mail_.keys(), *part.keys()]


def test_a_long_id_of_another_mail_is_quoted_whole() -> None:
    long = "<" + "A" * 90 + "@eurprd04.prod.outlook.example>"
    box, _ = sent(answer(references=(long, "<1@example.com>")))
    assert f"In-Reply-To: {long}\r\n".encode() in box.mails[0]
    assert f"References: <1@example.com>\r\n {long}\r\n".encode() in box.mails[0]


def test_a_line_that_is_one_dot_does_not_end_the_mail() -> None:
    _, mail_ = sent(answer(text="first\n.\nlast"))
    assert mail_.get_content().splitlines() == ["first", ".", "last"]


# Settings


@pytest.mark.parametrize("url", ["http://h", "smtp://", "mail.example:25", ""])
def test_a_server_without_an_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="smtp_url"):
        email_to(url)


@pytest.mark.parametrize("address", ["客服@shop.example", "help", "a@b@c", "Help <a@b.example>"])
def test_a_mailbox_that_no_mail_can_come_from_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="address"):
        connector("email_mime", EMAIL | {"address": address}, URL)


def test_an_answer_sent_nowhere_is_tried_again() -> None:
    with pytest.raises(RetryableError):
        email_to("smtp://127.0.0.1:99999").send(answer())
