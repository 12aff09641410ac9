"""Mailgun, SendGrid and Postmark: who is believed, and what mail and events say."""

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.errors import PayloadError
from chalicelib.schema import Attachment, Level
from connectors import forms
from connectors.mail_fields import encoded_word
from infra.local.simulators import File, mail
from tests.mail_inboxes import (
    KEY,
    LISTED,
    OURS,
    PASS,
    SIGNED,
    apart,
    from_mailgun,
    from_postmark,
    headed,
    mailgun,
    message,
    postmark,
    receipts,
    sendgrid,
    told_by_postmark,
)
from tests.make_samples import NOW
from tests.recorded import arrived
from tests.samples_mail import (
    LI,
    OUR_ID,
    PATH,
    SECRET_PATH,
    delivered,
    written,
)

# Who is believed


@pytest.mark.parametrize(
    ("lines", "level"),
    [
        ((PASS, OURS, SIGNED), Level.VERIFIED),
        ((PASS, OURS, SIGNED.replace("d=example.com", "d=Example.COM")), Level.VERIFIED),
        ((PASS, OURS), Level.CLAIMED),
        ((PASS, SIGNED), Level.CLAIMED),
        ((OURS, PASS, SIGNED), Level.CLAIMED),
        ((PASS, OURS, PASS, SIGNED), Level.CLAIMED),
        ((PASS, OURS, SIGNED, SIGNED), Level.CLAIMED),
        ((PASS.replace("Pass", "Fail"), OURS, SIGNED), Level.CLAIMED),
        ((PASS, OURS, SIGNED.replace("example.com", "evil.example")), Level.CLAIMED),
        ((PASS, OURS, SIGNED.replace("example.com", "mail.example.com")), Level.CLAIMED),
        ((PASS, OURS, SIGNED + "; d=evil.example"), Level.CLAIMED),
        ((PASS, OURS, SIGNED, f"From: {LI}"), Level.CLAIMED),
        ((OURS, "Authentication-Results: mxa.mailgun.org; dmarc=pass"), Level.CLAIMED),
    ],
)
def test_mailgun_is_believed_only_above_its_own_line(lines: tuple[str, ...], level: Level) -> None:
    assert message(mailgun(), from_mailgun(headed(*lines))).evidence[0].level is level


def test_the_list_of_headers_is_believed_as_the_mail_would_be() -> None:
    assert message(mailgun(), apart({})).evidence[0].level is Level.VERIFIED
    below = [LISTED[1], LISTED[0], *LISTED[2:]]
    assert message(mailgun(), apart({}, below)).evidence[0].level is Level.CLAIMED


def test_a_header_that_passes_for_a_field_of_mailgun_s_proves_nothing() -> None:
    """Mailgun posts every header as a field: `body-mime: ...` is one that anybody can write."""
    whole = mail.mailgun_verdict(written(), "Pass").decode()
    assert message(mailgun(), apart({"body-mime": whole})).evidence[0].level is Level.CLAIMED
    sent = apart({})
    twice = sent.body + b"&message-headers=" + b"%5B%5D"
    assert message(mailgun(), replace(sent, body=twice)).evidence[0].level is Level.CLAIMED


def test_a_header_called_event_makes_no_event_of_a_mail() -> None:
    forged = {"event": "bounced", "Message-Id": f"<{OUR_ID}@shop.example>"}
    assert message(mailgun(), apart(forged)).text == "Where?"


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ("{@example.com : pass}", Level.VERIFIED),
        ("{@mail.example : fail, @example.com : pass}", Level.VERIFIED),
        ("{@EXAMPLE.com:pass}", Level.VERIFIED),
        ("{@example.com : fail}", Level.CLAIMED),
        ("{@example.com : none}", Level.CLAIMED),
        ("{@mail.example.com : pass}", Level.CLAIMED),
        ("{@evil.example : pass}", Level.CLAIMED),
        ("{@example.com : fail, @example.com : pass}", Level.CLAIMED),
        ("{@evil.example : pass} {@example.com : pass}", Level.CLAIMED),
        ("{@example.com : pass, <b>}", Level.CLAIMED),
        ("pass", Level.CLAIMED),
        ("none", Level.CLAIMED),
        ("{}", Level.CLAIMED),
        ("", Level.CLAIMED),
    ],
)
def test_sendgrid_s_dkim_proves_the_domain_that_it_names(told: str, level: Level) -> None:
    fields: dict[str, str | bytes] = {"email": written().as_bytes(), "dkim": told, "SPF": "pass"}
    sent = mail.sendgrid_mail(fields, path=PATH, at=NOW)
    assert message(sendgrid(), sent).evidence[0].level is level


@pytest.mark.parametrize(
    ("trusting", "headers", "level"),
    [
        (False, (("X-Spam-Tests", "DKIM_VALID_AU"),), Level.CLAIMED),
        (True, (("X-Spam-Tests", "DKIM_SIGNED, DKIM_VALID, DKIM_VALID_AU"),), Level.VERIFIED),
        (True, (("X-Spam-Tests", "DKIM_SIGNED, DKIM_VALID"),), Level.CLAIMED),
        (True, (("X-Spam-Tests", "NOT_DKIM_VALID_AU"),), Level.CLAIMED),
        (True, (("X-Spam-Tests", "DKIM_VALID_AU"), ("X-Spam-Tests", "x")), Level.CLAIMED),
        (True, (("Received-SPF", "Pass"),), Level.CLAIMED),
        (True, (("Authentication-Results", "x; dmarc=pass"),), Level.CLAIMED),
    ],
)
def test_postmark_s_spam_tests_prove_an_author_where_you_say_so(
    trusting: bool, headers: tuple[tuple[str, str], ...], level: Level
) -> None:
    told = told_by_postmark(*headers)
    found = message(postmark(trust_spam_tests=trusting), from_postmark(told))
    assert found.evidence[0].level is level


# What a mail says, in fields or whole


def test_a_header_in_a_list_cannot_add_another() -> None:
    listed = [("From", LI), ("Subject", "x\r\nFrom: eve@evil.example"), ("A b", "c"), ("X", "\0")]
    found = message(mailgun(), apart({}, listed))
    assert (found.address, found.subject) == (f"email:{LI}", "x From: eve@evil.example")


@pytest.mark.parametrize(
    "name", ["Eve\r\nBcc: x@evil.example", '"', "<eve@evil.example>", "李, 雷"]
)
def test_a_name_in_a_field_stays_a_name(name: str) -> None:
    told = told_by_postmark(RawEmail="", FromFull={"Email": LI, "Name": name})
    found = message(postmark(), from_postmark(told))
    assert found.address == f"email:{LI}"
    assert found.sender_name == " ".join(name.split())


def test_the_raw_mail_is_read_unless_postmark_spoilt_it() -> None:
    told = told_by_postmark(TextBody="of the field")
    assert message(postmark(), from_postmark(told)).text == written().get_content().strip()
    told["RawEmail"] = told["RawEmail"].replace("Li Wei", "\ufffd\ufffd")
    found = message(postmark(), from_postmark(told))
    assert (found.text, found.raw and found.raw.media_type) == ("of the field", "application/json")


def test_the_original_is_kept_whole() -> None:
    kept = message(mailgun(), from_mailgun()).raw
    assert kept
    assert (kept.media_type, kept.content) == ("message/rfc822", written().as_bytes())
    sent = apart({}, files=[File("a.txt", "text/plain", b"a")])
    kept = message(mailgun(), sent).raw
    assert kept
    assert kept.content == sent.body
    assert forms.read(kept.media_type, sent.body).text("body-plain") == "Where?"


def test_a_file_that_mailgun_stored_is_fetched_from_mailgun_only() -> None:
    url = "https://storage.mailgun.net/v3/domains/shop.example/messages/K/attachments/0"
    stored = {"url": url, "name": "../a.pdf", "content-type": "application/pdf", "size": 7}
    (file,) = message(mailgun(), apart({"attachments": json.dumps([stored])})).attachments
    assert (file.name, file.media_type, file.source) == ("a.pdf", "application/pdf", url)
    elsewhere = Attachment(source="https://storage.mailgun.net@evil.example/0")
    with pytest.raises(Exception, match="not the provider's"):
        mailgun().fetch(elsewhere)


def test_html_is_kept_beside_the_text() -> None:
    page = '<p onclick="x()">Where <b>is</b> it?</p><script>1</script>'
    found = message(mailgun(), apart({"body-html": page}))
    assert found.html
    assert found.html.content
    assert b"<b>is</b>" in found.html.content
    assert b"script" not in found.html.content
    assert b"onclick" not in found.html.content


@pytest.mark.parametrize(
    "charsets", ["", "{}", "null", "[]", '{"text": 7}', '{"text": "x-nobody-knows"}']
)
def test_text_in_no_known_charset_is_guessed(charsets: str) -> None:
    fields: dict[str, str | bytes] = {"from": LI}
    fields |= {"text": "您好，请问我的包裹在哪里？".encode("gbk"), "charsets": charsets}
    sent = mail.sendgrid_mail(fields, path=PATH, at=NOW)
    assert message(sendgrid(), sent).text == "您好，请问我的包裹在哪里？"


def test_an_envelope_without_a_sender_is_a_machine_s() -> None:
    assert message(mailgun(), from_mailgun(sender="")).automatic
    fields: dict[str, str | bytes] = {"email": written().as_bytes()}
    fields |= {"envelope": json.dumps({"to": [], "from": ""})}
    assert message(sendgrid(), mail.sendgrid_mail(fields, path=PATH, at=NOW)).automatic
    told = told_by_postmark()
    told["Headers"][0]["Value"] = "<>"
    assert message(postmark(), from_postmark(told)).automatic


# Events


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (delivered("delivered"), "delivered"),
        (delivered("failed", severity="permanent"), "failed"),
        (delivered("failed", severity="temporary"), None),
        (delivered("failed"), None),
        (delivered("rejected", reject={"reason": "x"}), "failed"),
        (delivered("complained"), "failed"),
        (delivered("opened"), None),
        (delivered("clicked"), None),
        (delivered("accepted"), None),
        ({"event": "delivered"}, None),
        ({"event": "delivered", "message": []}, None),
        ({"event": "delivered", "message": {"headers": {"message-id": 7}}}, None),
    ],
)
def test_an_event_of_mailgun_is_a_receipt_or_nothing(event: Any, state: str | None) -> None:
    found = receipts(mailgun(), mail.mailgun_event(KEY, event, path=SECRET_PATH, at=NOW))
    assert [(i, s) for i, s, _ in found] == ([(f"<{OUR_ID}@shop.example>", state)] if state else [])


@pytest.mark.parametrize(
    ("event", "state"),
    [
        ("delivered", "delivered"),
        ("bounce", "failed"),
        ("dropped", "failed"),
        ("spamreport", "failed"),
        ("deferred", None),
        ("processed", None),
        ("open", None),
        ("unsubscribe", None),
        (7, None),
    ],
)
def test_an_event_of_sendgrid_is_a_receipt_or_nothing(event: Any, state: str | None) -> None:
    sent = mail.sendgrid_events([{"event": event, "askonce_id": OUR_ID}], path=PATH, at=NOW)
    found = [(i, s) for i, s, _ in receipts(sendgrid(), sent)]
    assert found == ([(f"<{OUR_ID}@shop.example>", state)] if state else [])


def test_one_bad_event_loses_no_other() -> None:
    good = {"event": "delivered", "askonce_id": OUR_ID}
    odd: list[Any] = [None, 7, "x", [], {}, {"event": "bounce"}, {"event": "bounce", "smtp-id": 7}]
    odd += [{"event": "bounce", "askonce_id": "../x"}]
    sent = mail.sendgrid_events([*odd, good, good], path=PATH, at=NOW)
    assert receipts(sendgrid(), sent) == [(f"<{OUR_ID}@shop.example>", "delivered", "")]


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("HardBounce", "failed"),
        ("SoftBounce", "failed"),
        ("Blocked", "failed"),
        ("Transient", None),
        ("AutoResponder", None),
    ],
)
def test_a_bounce_at_postmark_is_a_failure_unless_it_is_none(kind: str, state: str | None) -> None:
    told = {"RecordType": "Bounce", "Type": kind, "MessageID": "5a0b"}
    found = [(i, s) for i, s, _ in receipts(postmark(), from_postmark(told))]
    assert found == ([("5a0b", state)] if state else [])


@pytest.mark.parametrize("told", [{}, {"RecordType": "Delivery"}, {"FromFull": {}}])
def test_what_is_neither_mail_nor_event_is_kept_aside(told: Any) -> None:
    request = arrived(from_postmark(told), NOW)
    postmark().verify(request)
    with pytest.raises(PayloadError):
        postmark().parse(request)


def test_a_reason_is_one_short_line() -> None:
    told = {"severity": "permanent", "delivery-status": {"message": "550\r\nno\x07 " + "x" * 5000}}
    event = delivered("failed", **told)
    ((_, _, reason),) = receipts(
        mailgun(), mail.mailgun_event(KEY, event, path=SECRET_PATH, at=NOW)
    )
    assert reason.startswith("it could not be delivered: 550 no xxx")
    assert len(reason) == 300


def test_a_word_in_a_header_keeps_its_text() -> None:
    assert encoded_word("") == ""
    listed = [("From", LI)]
    found = message(mailgun(), apart({"subject": "=?utf-8?q?=0ABcc:_x?= 订单"}, listed))
    assert found.subject == "=?utf-8?q?=0ABcc:_x?= 订单"
