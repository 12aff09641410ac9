"""Requests of mail providers that are nearly right, for hypothesis to try."""

import json
from typing import Any

from hypothesis import strategies as st

from connectors import forms
from infra.local.simulators.mail import BOUNDARY

NAMES = [
    "email", "body-mime", "body-plain", "body-html", "message-headers", "headers", "from", "sender",
    "recipient", "subject", "text", "html", "charsets", "envelope", "dkim", "attachment-info",
    "attachment1", "attachment-1", "content-id-map", "attachments", "event", "Message-Id",
]  # fmt: skip
VALUES = [
    b"", b"[]", b"{}", b"null", b'{"to": ["a@b.example"], "from": ""}', b"{@b.example : pass}",
    b'[["From", "a@b.example"], ["Subject", 7], ["\\ud800", "x\\ny"], "x"]', b"\xd6\xd0",
    b"From: a@b.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", b"[" * 9999,
    b'{"text": "x-none", "subject": 7, "html": "utf-7"}', b'{"attachment1": {"filename": 7}}',
    b"a@b.example", b"delivered", b'[{"url": "https://x.example/", "name": "\\ud800"}]',
    b"7" * 5000,
]  # fmt: skip


def _form(fields: list[tuple[str, bytes, str, str]]) -> bytes:
    written = [forms.Field(name, content, file, kind) for name, content, file, kind in fields]
    content_type, body = forms.multipart(written)
    own = content_type.partition("boundary=")[2]
    return body.replace(own.encode(), BOUNDARY.encode())


def forms_with(mails: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Forms with some of the providers' fields."""
    content = st.sampled_from(VALUES) | mails | st.binary(max_size=20)
    kinds = st.sampled_from(["", "image/png", "message/rfc822", "multipart/mixed; boundary=b", "x"])
    field = st.tuples(st.sampled_from(NAMES), content, st.text(max_size=5), kinds)
    return st.lists(field, max_size=8).map(_form)


_KEYS = ["FromFull", "ToFull", "Headers", "Attachments", "Email", "Name", "Value", "Content"]
_KEYS += ["RawEmail", "Subject", "TextBody", "HtmlBody", "RecordType", "MessageID", "Metadata"]
_KEYS += ["ContentType", "ContentID", "OriginalRecipient", "Date", "Type", "askonce_id"]
_leaves: st.SearchStrategy[Any] = st.sampled_from(
    ["", "a@b.example", "Return-Path", "<>", "From", "Bounce", "Delivery", "é==", "\ud800", "x\ny"]
)
_trees = st.recursive(
    _leaves | st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=6)
    ),
    max_leaves=15,
)
postmark = st.fixed_dictionaries(
    {"FromFull": st.just({"Email": "a@b.example", "Name": "\ud800"}) | _trees},
    optional=dict.fromkeys(_KEYS[1:], _trees),
).map(lambda told: json.dumps(told).encode())

_SES_KEYS = ["notificationType", "eventType", "mail", "receipt", "content", "bounce", "complaint"]
_SES_KEYS += ["action", "type", "encoding", "bucketName", "objectKey", "recipients", "source"]
_SES_KEYS += ["messageId", "bounceType", "bouncedRecipients", "dmarcVerdict", "status", "failure"]
_SES_WORDS = ["Received", "Bounce", "Permanent", "Delivery", "Reject", "SNS", "S3", "Lambda"]
_SES_WORDS += ["BASE64", "UTF8", "shop-example-mail", "PASS", "FAIL", "", "<>", "é==", "\ud800"]
_ses_words = st.sampled_from([*_SES_WORDS, "a@b.example", "From: a@b.example"])
_ses_trees = st.recursive(
    _ses_words | st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_SES_KEYS), inner, max_size=6)
    ),
    max_leaves=15,
)


def ses(mails: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """SNS's envelopes around what SES might tell."""
    content = mails.map(lambda raw: raw.decode("latin-1")) | _ses_words
    action = st.fixed_dictionaries(
        {"type": st.sampled_from(["SNS", "S3", "Lambda"])},
        optional=dict.fromkeys(("encoding", "bucketName", "objectKey"), _ses_words),
    )
    receipt = st.fixed_dictionaries({"action": action}, optional={"recipients": _ses_trees})
    received = st.fixed_dictionaries(
        {"notificationType": st.just("Received"), "receipt": receipt, "content": content},
        optional={"mail": _ses_trees},
    )
    events = st.fixed_dictionaries(
        {"eventType": st.sampled_from(["Bounce", "Complaint", "Delivery", "Reject", "Open"])},
        optional=dict.fromkeys(("mail", "bounce", "complaint", "reject"), _ses_trees),
    )
    return (received | events | _ses_trees).map(_in_an_envelope)


def _in_an_envelope(told: Any) -> bytes:
    envelope = {
        "Type": "Notification",
        "MessageId": "m1",
        "TopicArn": "t",
        "Message": json.dumps(told),
    }
    return json.dumps(envelope | {"Timestamp": "2026-01-01T09:00:00.000Z"}).encode()
