"""Properties of the parsers and writers, over whatever hypothesis thinks of."""

import base64
import email
import json
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from email import policy
from email.utils import getaddresses
from functools import cache
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from wechatpy.crypto import WeChatCrypto

from chalicelib.errors import PayloadError, SignatureError
from chalicelib.ports import Connector, Helpdesk, WebhookRequest
from chalicelib.schema import Attachment
from connectors import mime, mime_out, wechat_wire
from connectors.signing import StandardWebhook
from tests import nearly_mail
from tests.make_samples import STANDARD_SECRET, WECHAT
from tests.recorded import Sample, desk_samples, enveloped, forged, mode, one_of_each, with_header

bounded = settings(max_examples=100, deadline=None)

# What is parsed: bytes, and what is nearly right


def joined(*pieces: Any) -> Any:
    """Text of pieces that mean something to somebody, and of any other text."""
    return st.lists(st.sampled_from(pieces) | st.text(max_size=8), max_size=8).map("".join)


FIELDS = [
    "FromUserName", "ToUserName", "MsgType", "CreateTime", "MsgId", "Content", "Event", "EventKey",
    "MediaId", "Format", "Recognition", "Location_X", "Location_Y", "Label", "Title", "Url",
    "FileTotalLen", "Encrypt", "xml",
]  # fmt: skip
KINDS = ["text", "image", "voice", "video", "file", "location", "link", "event", "poll", "TEXT", ""]
NUMBERS = ["0", "-1", "nan", "1e999", "٣", "9" * 20, "9" * 5000, "23.1"]

values = st.sampled_from(KINDS + NUMBERS) | joined("<", "&amp;", "]]>", "\0", "\n")
flat_xml = st.dictionaries(st.sampled_from(FIELDS), values).map(
    lambda fields: wechat_wire.document(fields).encode()
)
trees = st.recursive(
    st.text(max_size=5) | st.sampled_from(["<!--", "&lt;", "<![CDATA[x]]>", "<!DOCTYPE x>"]),
    lambda inner: st.tuples(st.sampled_from(FIELDS), st.lists(inner, max_size=4)).map(
        lambda tree: f"<{tree[0]}>{''.join(tree[1])}</{tree[0]}>"
    ),
    max_leaves=12,
).map(lambda text: f"<xml>{text}</xml>".encode())

flat_json = st.dictionaries(
    st.sampled_from(FIELDS) | st.text(max_size=5),
    st.recursive(
        values | st.none() | st.booleans() | st.integers() | st.floats() | st.just("\ud800"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
        max_leaves=8,
    ),
).map(lambda found: json.dumps(found).encode())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = ["MessageSid", "SmsSid", "From", "To", "Body", "NumMedia", "MediaUrl0", "MediaContentType0"]
STATES = ["SmsStatus", "MessageStatus", "ErrorCode", "OptOutType", "status", "err-code", "scts"]
VONAGE = [
    "msisdn", "to", "messageId", "message-timestamp", "text", "type", "concat", "concat-ref",
    "concat-total", "concat-part", "udh", "data", "api-key",
]  # fmt: skip
words = st.sampled_from([*NUMBERS, "delivered", "failed", "STOP", "true", "unicode", "binary"])
forms = st.dictionaries(
    st.sampled_from([*NAMES, *STATES, *VONAGE]) | st.text(max_size=5), words | st.text(max_size=20)
).map(lambda form: urlencode(form).encode())

PUSHED = [
    "phone_number", "content", "send_time", "dest_code", "sequence_id", "mobile", "nationcode",
    "text", "time", "extend", "sign", "report_status", "sid", "user_receive_time", "success",
    "biz_id", "err_code", "report_time", "originationNumber", "destinationNumber", "messageBody",
    "messageKeyword", "inboundMessageId", "eventType", "messageStatus", "messageId", "from", "to",
    "message_type", "message_uuid", "timestamp", "status", "channel", "image", "msisdn",
]  # fmt: skip
pushed = st.dictionaries(
    st.sampled_from(PUSHED) | st.text(max_size=5),
    json_values | words | st.integers() | st.just("2026-01-01 09:00:00"),
)
pushes = (pushed | st.lists(pushed, max_size=3)).map(lambda found: json.dumps(found).encode())
notices = st.fixed_dictionaries(
    {
        "Type": st.sampled_from(["Notification", "SubscriptionConfirmation", "Other"]),
        "MessageId": st.text(max_size=9),
        "TopicArn": st.text(max_size=9),
        "Timestamp": st.sampled_from(["2026-01-01T09:00:00.000Z", "now", ""]),
        "Message": pushes.map(bytes.decode) | st.text(max_size=9),
    }
).map(lambda found: json.dumps(found).encode())

MEMBERS = [
    "client_id", "text", "files", "sent_at", "type", "ticket_id", "reply_id", "author", "at",
    "ticket", "id", "agent",
]  # fmt: skip
TYPES = ["reply.created", "ticket.closed", "note.created", "reply", "note", "closed", "reopened"]
TIMES = ["2026-01-01T09:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "now"]
objects = st.dictionaries(
    st.sampled_from(MEMBERS),
    json_values
    | st.sampled_from([*TYPES, *TIMES, "line-0001", "x" * 2000])
    | st.lists(st.fixed_dictionaries({"content": st.sampled_from(["YQ==", "a", "é"])})),
).map(lambda found: json.dumps(found).encode())

CHARSETS = [
    "utf-8",
    "gb2312",
    "big5",
    "iso-2022-jp",
    "utf-7",
    "x-none",
    "unicode_escape",
    "punycode",
]
header_values = joined(
    "a@b.example", "<1@b.example>", "<", "(", '"', ",", "=?utf-8?b?5Lit?=", "=?gb2312?q?=D6?=",
    "=?x?b?=?=", "\r\n ", "\\", "中", ";", "charset=", "boundary=b", "filename*0*=x''%",
)  # fmt: skip
HEADERS = [
    "From", "To", "Subject", "Date", "Message-ID", "References", "In-Reply-To", "Content-Type",
    "Content-Disposition", "Content-Transfer-Encoding", "Auto-Submitted", "Return-Path",
]  # fmt: skip
header_lines = st.tuples(st.sampled_from(HEADERS), header_values).map(lambda h: f"{h[0]}: {h[1]}")
content_types = st.sampled_from(
    [f"text/{kind}; charset={c}" for c in CHARSETS for kind in ("plain", "html")]
    + ["message/rfc822", "multipart/report", "text/plain; format=flowed; delsp=yes", "image/png"]
)
encodings = st.sampled_from(["base64", "quoted-printable", "8bit", "x-uuencode", "x"])
bodies = st.binary(max_size=60) | joined("> ", "<p>", "<br", "-- \n", "On x wrote:\n").map(
    lambda text: text.encode()
)


def written_part(parts: tuple[list[str], str, str, bytes]) -> bytes:
    headers, kind, encoding, body = parts
    own = [f"Content-Type: {kind}", f"Content-Transfer-Encoding: {encoding}"]
    return "\r\n".join([*headers, *own]).encode() + b"\r\n\r\n" + body


def written_multipart(parts: list[bytes]) -> bytes:
    inner = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + inner + b"--b--\r\n"


mails = st.recursive(
    st.tuples(st.lists(header_lines, max_size=4), content_types, encodings, bodies).map(
        written_part
    ),
    lambda inner: st.lists(inner, max_size=4).map(written_multipart),
    max_leaves=6,
).map(lambda mail: b"From: Li <li@example.com>\r\n" + mail)

#: {connector: what it may be given}
NEARLY_RIGHT: dict[str, Any] = {
    "email_mime": mails,
    "email_mailgun": nearly_mail.forms_with(mails),
    "email_sendgrid": nearly_mail.forms_with(mails),
    "email_postmark": nearly_mail.postmark,
    "email_ses": nearly_mail.ses(mails),
    "sms_twilio": forms,
    "sms_vonage": forms | pushes,
    "sms_aliyun": pushes,
    "sms_tencent": pushes,
    "sms_aws": notices | pushes,
    "webchat": objects,
    "wechat": flat_xml | trees,
    "wechat_miniprogram": flat_xml | trees | flat_json,
    "wecom": flat_xml | trees | flat_json,
    "wecom_kf": flat_xml | trees | flat_json,
}


def sealed(sample: Sample, body: bytes) -> bytes:
    """The body, in an envelope where the sample's mode has one."""
    return body if sample.settings.get("mode") == "plain" else enveloped(sample, body) or body


@cache
def set_up(sample: Sample) -> tuple[Connector, WebhookRequest]:
    return sample.connector(), sample.request


each_mode = pytest.mark.parametrize("sample", one_of_each(), ids=mode)


@each_mode
@bounded
@given(data=st.data())
def test_a_parser_raises_nothing_but_payload_errors(sample: Sample, data: st.DataObject) -> None:
    connector, request = set_up(sample)
    body = data.draw(st.binary(max_size=200) | NEARLY_RIGHT[sample.plugin])
    for one in (body, sealed(sample, body)):
        with suppress(PayloadError):
            connector.parse(replace(request, body=one))


@bounded
@given(told=objects.map(bytes.decode) | st.text(max_size=50))
def test_a_mail_s_envelope_raises_nothing_but_payload_errors(told: str) -> None:
    connector, request = set_up(next(s for s in one_of_each() if s.plugin == "email_mime"))
    with suppress(PayloadError):
        connector.parse(with_header(request, "askonce-envelope", told))


@pytest.mark.parametrize("sample", [s for s in desk_samples() if s.path.stem == "reply"], ids=str)
@bounded
@given(body=st.binary(max_size=200) | objects)
def test_a_helpdesk_s_parser_raises_nothing_but_payload_errors(sample: Sample, body: bytes) -> None:
    desk: Helpdesk = sample.helpdesk()
    with suppress(PayloadError):
        desk.parse(replace(sample.request, body=body))


# WeChat's wire format

KEY = wechat_wire.aes_key(WECHAT["encoding_aes_key"])
APP = WECHAT["app_id"]
CRYPTO = WeChatCrypto(WECHAT["token"], WECHAT["encoding_aes_key"], APP)


@bounded
@given(message=st.binary(max_size=300), receiver=st.text(max_size=20))
def test_an_envelope_opens_to_what_was_put_in(message: bytes, receiver: str) -> None:
    sealed_ = wechat_wire.encrypt(message, KEY, receiver)
    assert wechat_wire.decrypt(sealed_, KEY, receiver) == message


@bounded
@given(text=st.text(min_size=1, max_size=200))
def test_wechatpy_and_we_open_each_other_s_envelopes(text: str) -> None:
    envelope = wechat_wire.encrypt(text.encode(), KEY, APP)
    signature = wechat_wire.signature(WECHAT["token"], "1", "2", envelope)
    assert CRYPTO.decrypt_message({"Encrypt": envelope}, signature, "1", "2") == text
    theirs = wechat_wire.fields(CRYPTO.encrypt_message(text, "2", "1").encode())["Encrypt"]
    assert wechat_wire.decrypt(theirs, KEY, APP) == text.encode()


@bounded
@given(
    junk=st.text(max_size=50) | st.binary(max_size=96).map(lambda b: base64.b64encode(b).decode())
)
def test_an_envelope_that_does_not_open_is_a_payload_error_that_says_no_more(junk: str) -> None:
    with pytest.raises(PayloadError, match=r"^the envelope cannot be opened$"):
        wechat_wire.decrypt(junk, KEY, APP)


def in_xml(text: str) -> str:
    """Text as XML can carry it: no control characters, one kind of line end."""
    legal = (c for c in text if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))
    return "".join(legal).replace("\r\n", "\n").replace("\r", "\n")


@bounded
@given(text=joined("]]>", "]]", ">", "<![CDATA[", "&amp;", "\0", "\x1b", "\r\n", "\ufffe"))
def test_a_document_reads_back_as_it_was_written(text: str) -> None:
    document = wechat_wire.document({"Content": text, "MsgId": 7})
    assert wechat_wire.fields(document.encode()) == {"Content": in_xml(text), "MsgId": "7"}


# Mail: what goes out

SENDER, TO = "help@shop.example", "li@example.com"
attacks = joined(
    "\r\n", "\n", "\rBcc: eve@evil.example", "Bcc: eve@evil.example\r\n\r\n", "<eve@evil.example>",
    "=?utf-8?q?x=0D=0ABcc:_eve=40evil.example?=", "=?", "?=", '"', "\\", ",", ";", ":", "(", ")",
    "灯笼茶" * 9, "\u202e", "\u2028", "\x85", "\0", "very long words " * 6,
)  # fmt: skip
ids = st.from_regex(r"<[!-;=?A-Z^-~]{1,200}@[a-z.]{1,100}>", fullmatch=True)
USUAL = ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version"]
ABOUT_BODY = ["Content-Type", "Content-Transfer-Encoding"]


def mail(**more: Any) -> email.message.EmailMessage:
    fields: dict[str, Any] = {
        "sender": SENDER,
        "sender_name": "Lantern Tea",
        "to": TO,
        "subject": "Your tea",
        "text": "It leaves tomorrow.",
        "message_id": "<m1@shop.example>",
        "references": (),
        "sent_at": datetime(2026, 1, 1, tzinfo=UTC),
        "automatic": False,
    }
    return mime.write(**(fields | more))


def read_again(raw: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(raw, policy=policy.default)


def people(mail_: email.message.EmailMessage, header: str) -> list[str]:
    return [address for _, address in getaddresses([str(mail_[header])])]


@bounded
@given(name=attacks, subject=attacks, text=attacks)
def test_every_header_of_an_outgoing_mail_is_one_that_we_set(
    name: str, subject: str, text: str
) -> None:
    raw = mail(sender_name=name, subject=subject, text=text).as_bytes()
    again, ours = read_again(raw), mime.read(raw)
    assert sorted(again.keys()) == sorted(USUAL + ABOUT_BODY)
    assert (people(again, "From"), people(again, "To")) == ([SENDER], [TO])
    assert (ours.sender, ours.one_author) == (SENDER, True)
    assert (ours.sender_name, ours.subject) == (mime_out.harmless(name), mime_out.harmless(subject))


@bounded
@example(name="=?utf-8?q?x=0D=0ABcc:_eve=40evil.example?=", media_type="image/png")
@given(name=attacks, media_type=attacks | st.sampled_from(["image/png", "multipart/mixed", ""]))
def test_an_attachment_adds_no_header_to_a_mail(name: str, media_type: str) -> None:
    file = Attachment(name=name, media_type=media_type, content=b"\x89PNG")
    again = read_again(mail(attachments=(file,)).as_bytes())
    (part,) = again.iter_attachments()
    assert sorted(again.keys()) == sorted([*USUAL, "Content-Type"])
    assert sorted(part.keys()) == sorted([*ABOUT_BODY, "Content-Disposition", "MIME-Version"])
    assert part.get_content() == b"\x89PNG"


@bounded
@example(references=["<1@b.example>", "<" + "a" * 200 + "@b.example>"])
@given(references=st.lists(ids, min_size=1, max_size=5, unique=True))
def test_references_arrive_whole_however_long_they_are(references: list[str]) -> None:
    again = mime.read(mail(references=references).as_bytes())
    assert list(again.references) == references


def one_end(text: str) -> str:
    """Text with one kind of line end."""
    return re.sub(r"\r\n?", "\n", text)


@bounded
@given(text=st.text(max_size=300))
def test_a_mail_says_what_was_written(text: str) -> None:
    sent = read_again(mail(text=text).as_bytes()).get_content()
    assert one_end(sent).rstrip("\n") == mime_out.plain(text).rstrip("\n")


# Mail: what comes in

words = st.tuples(st.sampled_from(CHARSETS), st.sampled_from("bqBQ"), st.binary(max_size=9)).map(
    lambda w: f"=?{w[0]}?{w[1]}?{encoded_word(w[1], w[2])}?="
)


def encoded_word(encoding: str, content: bytes) -> str:
    if encoding.lower() == "b":
        return base64.b64encode(content).decode()
    return "".join(f"={byte:02X}" for byte in content)


@bounded
@given(
    raw=st.lists(words | st.text(max_size=5), max_size=6).map(" ".join)
    | st.binary(max_size=60).map(lambda b: b.decode("ascii", "surrogateescape"))
)
def test_a_header_becomes_one_line_without_control_characters(raw: str) -> None:
    kinds = {unicodedata.category(c) for c in mime.header_text(raw)}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@bounded
@given(name=attacks | joined("/", "\\", "..", ".", "C:", "~"))
def test_a_file_s_name_names_a_file_and_nothing_else(name: str) -> None:
    safe = mime.safe_name(name)
    assert not {"/", "\\", "\0", "\n"} & set(safe)
    assert not safe.startswith(".")
    assert len(safe) <= 200


@bounded
@given(
    text=joined("> ", "\n", "On Monday Li wrote:", "在 2026-01-01，李 写道：", "-- \n", "From: x\n")
)
def test_a_text_never_loses_everything_with_its_history(text: str) -> None:
    own = mime.without_history(text)
    assert bool(own) == bool(text.strip())
    assert all(line in text for line in own.split("\n"))


# Signatures


def flipped(data: st.DataObject, content: bytes) -> bytes:
    """The bytes with one bit the other way."""
    at = data.draw(st.integers(0, len(content) * 8 - 1))
    changed = bytearray(content)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def flipped_text(data: st.DataObject) -> Callable[[str], tuple[str, ...]]:
    return lambda right: (flipped(data, right.encode()).decode("latin-1"),)


@bounded
@given(body=st.binary(min_size=1, max_size=200), data=st.data())
def test_one_flipped_bit_spoils_a_standard_webhook(body: bytes, data: st.DataObject) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    signer = StandardWebhook(SecretStr(STANDARD_SECRET))
    headers = {k: (v,) for k, v in signer.headers("msg_1", at, body).items()}
    genuine = WebhookRequest(method="POST", headers=headers, body=body, received_at=at)
    signer.verify(genuine)
    (signature,) = headers["webhook-signature"]
    for one in (
        replace(genuine, body=flipped(data, body)),
        with_header(genuine, "webhook-signature", *flipped_text(data)(signature)),
    ):
        with pytest.raises(SignatureError):
            signer.verify(one)


#: A JWT's last character has two bits that mean nothing.
@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.plugin != "webchat"], ids=mode)
@bounded
@given(data=st.data())
def test_one_flipped_bit_spoils_a_proof(sample: Sample, data: st.DataObject) -> None:
    connector, _ = set_up(sample)
    for one in forged(sample, flipped_text(data)):
        with pytest.raises(SignatureError):
            connector.verify(one)


@bounded
@given(data=st.data())
def test_one_flipped_bit_spoils_a_visitor_s_token_or_changes_nothing(data: st.DataObject) -> None:
    sample = next(s for s in one_of_each() if s.plugin == "webchat")
    connector, request = set_up(sample)
    (one,) = forged(sample, flipped_text(data))
    try:
        connector.verify(one)
    except SignatureError:
        return
    assert connector.parse(one) == connector.parse(request)
