"""Which mail belongs to which: tokens in addresses, ids of mails, bounces, our own mail."""

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from chalicelib.schema import Delivery, Message, Receipt
from connectors.mail_channel import MailConnector, ReplyTokens
from infra.local import simulators
from infra.local.simulators import mail
from tests.mail_inboxes import from_postmark, postmark, receipts
from tests.make_samples import EMAIL, NOW, STANDARD_SECRET
from tests.recorded import answer_to, arrived, connector
from tests.samples_mail import LI, OUR_ID, REPLY_SECRET, written

URL = "https://askonce.example/webhooks/inbox"
CONVERSATION = "q" + "k3" * 13
TOKENS = ReplyTokens(SecretStr(REPLY_SECRET))
TOKEN = TOKENS.token(CONVERSATION)


def inbox(**more: Any) -> MailConnector:
    made = connector("email_mime", EMAIL | {"reply_secret": REPLY_SECRET} | more, URL)
    assert isinstance(made, MailConnector)
    return made


def parsed(raw: bytes, *, to: tuple[str, ...] = (), **more: Any) -> Message | Receipt:
    told = {"mail_from": LI, "rcpt_to": list(to), "dmarc": "pass"}
    request = arrived(simulators.signed_mail(STANDARD_SECRET, raw, told, at=NOW), NOW)
    found = inbox(**more).parse(request)
    assert len(found) == 1
    assert isinstance(found[0], Message | Receipt)
    return found[0]


def read(raw: bytes, **more: Any) -> Message:
    found = parsed(raw, **more)
    assert isinstance(found, Message)
    return found


# Tokens


def test_an_answer_comes_back_to_its_conversation() -> None:
    question = read(written().as_bytes())
    letter = inbox().letter(answer_to(question, conversation_id=CONVERSATION))
    assert letter.reply_to == str(letter.mail["Reply-To"]) == f"help+{TOKEN}@shop.example"
    back = read(written(to=letter.reply_to).as_bytes(), to=(letter.reply_to,))
    assert back.references[0] == f"conversation:{CONVERSATION}"


@pytest.mark.parametrize(
    ("envelope", "header", "found"),
    [
        (f"help+{TOKEN}@shop.example", "help@shop.example", True),
        (f"HELP+{TOKEN.upper()}@SHOP.example", "help@shop.example", True),
        ("forwarded@elsewhere.example", f"help+{TOKEN}@shop.example", True),
        (f"a1b2+{TOKEN}@inbound.postmarkapp.com", "help@shop.example", True),
        ("help@shop.example", "help@shop.example", False),
        (f"help+{TOKEN[:-1]}@shop.example", "help@shop.example", False),
        (f"help+{TOKEN}a@shop.example", "help@shop.example", False),
        (f"{TOKEN}@shop.example", "help@shop.example", True),
        (f"help+x{TOKEN[1:]}@shop.example", "help@shop.example", False),
    ],
)
def test_a_token_is_found_in_any_recipient(envelope: str, header: str, found: bool) -> None:
    message = read(written(to=header).as_bytes(), to=(envelope,))
    assert (f"conversation:{CONVERSATION}" in message.references) == found


def test_a_token_goes_before_what_the_mail_answers() -> None:
    raw = written(in_reply_to="<other@shop.example>").as_bytes()
    message = read(raw, to=(f"help+{TOKEN}@shop.example",))
    assert message.references == (f"conversation:{CONVERSATION}", "<other@shop.example>")


def test_a_mail_cannot_name_a_conversation_by_its_headers() -> None:
    raw = (
        b"In-Reply-To: conversation:q1\r\nReferences: <conversation:q1>\r\n" + written().as_bytes()
    )
    assert not [r for r in read(raw).references if r.startswith("conversation:")]


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 38), letter=st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_other_letter_spoils_a_token(at: int, letter: str) -> None:
    changed = TOKEN[:at] + letter + TOKEN[at + 1 :]
    assert TOKENS.conversation(changed) == (CONVERSATION if changed == TOKEN else None)


@given(token=st.text(max_size=60))
def test_no_text_is_a_token_by_chance(token: str) -> None:
    assert TOKENS.conversation(token) is None


def test_a_reply_secret_can_be_replaced() -> None:
    new = SecretStr("a-new-secret")
    assert ReplyTokens((new, SecretStr(REPLY_SECRET))).conversation(TOKEN) == CONVERSATION
    assert ReplyTokens(new).conversation(TOKEN) is None


@pytest.mark.parametrize("conversation", ["", "q1", "q" + "A" * 26, "q" + "a" * 27, "../x"])
def test_an_id_that_is_not_the_core_s_has_no_token(conversation: str) -> None:
    assert TOKENS.token(conversation) == ""


@pytest.mark.parametrize(
    ("more", "reply_to"),
    [
        ({"reply_secret": None}, ""),
        ({"address": "a" * 25 + "@shop.example"}, ""),
        ({"address": "a" * 24 + "@shop.example"}, "a" * 24 + f"+{TOKEN}@shop.example"),
        ({"reply_address": "in@mail.shop.example"}, f"in+{TOKEN}@mail.shop.example"),
        ({"reply_secret": None, "reply_address": "in@x.example"}, "in@x.example"),
    ],
)
def test_an_answer_says_where_to_reply(more: dict[str, Any], reply_to: str) -> None:
    answer = answer_to(read(written().as_bytes()), conversation_id=CONVERSATION)
    letter = inbox(**more).letter(answer)
    assert letter.reply_to == reply_to
    assert len(letter.reply_to.partition("@")[0]) <= 64
    assert ("Reply-To" in letter.mail) == bool(reply_to)


def test_a_mailbox_of_other_letters_is_refused() -> None:
    with pytest.raises(ValidationError, match="reply_address"):
        inbox(reply_address="客服@shop.example")


# Ids


@pytest.mark.parametrize(
    ("other", "to", "same"),
    [
        ({}, "help@shop.example", True),
        ({}, "HELP@shop.example", True),
        ({}, "sales@shop.example", False),
        ({"text": "other words"}, "help@shop.example", False),
        ({"file": simulators.File("a", "image/png", b"a")}, "help@shop.example", False),
    ],
)
def test_no_mail_is_lost_to_a_message_id_used_twice(
    other: dict[str, Any], to: str, same: bool
) -> None:
    first = read(written().as_bytes(), to=("help@shop.example",))
    second = read(written(**other).as_bytes(), to=(to,))
    assert first.external_id == second.external_id
    assert (first.id == second.id) == same


def test_another_file_under_the_same_message_id_is_another_mail() -> None:
    one, two = (
        written(file=simulators.File("a.png", "image/png", content)).as_bytes()
        for content in (b"one", b"two")
    )
    assert read(one).id != read(two).id


# Bounces


def bounce(original: str, *, action: str = "failed", status: str = "5.1.1") -> bytes:
    return f"""From: MAILER-DAEMON@example.com
To: help@shop.example
Subject: Undelivered Mail Returned to Sender
Message-ID: <b1@example.com>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

I'm sorry to have to inform you that your message could not be delivered.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com

Final-Recipient: rfc822; li@example.com
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 5.1.1 no such mailbox

--b
Content-Type: text/rfc822-headers

From: help@shop.example
To: li@example.com
Message-ID: {original}
Subject: Re: My parcel

--b--
""".replace("\n", "\r\n").encode()


@pytest.mark.parametrize("status", ["5.1.1", "4.2.2"])
def test_a_bounce_of_our_mail_is_a_failure(status: str) -> None:
    found = parsed(bounce(f"<{OUR_ID}@shop.example>", status=status))
    assert isinstance(found, Receipt)
    assert (found.external_id, found.state) == (f"<{OUR_ID}@shop.example>", Delivery.FAILED)
    assert "no such mailbox" in found.reason


@pytest.mark.parametrize(
    ("original", "action"),
    [
        (f"<{OUR_ID}@shop.example>", "delayed"),
        (f"<{OUR_ID}@other.example>", "failed"),
        ("<1@shop.example>", "failed"),
    ],
)
def test_a_delay_and_a_bounce_of_other_mail_are_a_machine_s_words(
    original: str, action: str
) -> None:
    found = parsed(bounce(original, action=action, status="4.4.7"))
    assert isinstance(found, Message)
    assert found.automatic


def test_a_bounce_taken_apart_by_a_provider_is_one_too() -> None:
    parts = [
        {"Name": "status", "ContentType": "message/delivery-status", "Content": _encoded(status)}
        for status in ["Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; li@example.com\n"
                       "Action: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 no\n"]
    ]  # fmt: skip
    headers = f"Message-ID: <{OUR_ID}@shop.example>\nFrom: help@shop.example\n\n"
    parts.append({"ContentType": "message/rfc822", "Content": _encoded(headers)})
    told = {
        "FromFull": {"Email": "MAILER-DAEMON@example.com", "Name": ""},
        "Subject": "Undelivered Mail Returned to Sender",
        "TextBody": "It could not be delivered.",
        "Attachments": parts,
    }
    found = receipts(postmark(), from_postmark(told))
    assert [(i, s) for i, s, _ in found] == [(f"<{OUR_ID}@shop.example>", "failed")]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# Our own mail


@pytest.mark.parametrize(
    ("sender", "automatic"),
    [
        ("help@shop.example", True),
        (f"help+{TOKEN}@shop.example", True),
        ("in@mail.shop.example", True),
        ("kim@shop.example", False),
        (LI, False),
    ],
)
def test_our_own_mail_is_never_answered(sender: str, automatic: bool) -> None:
    raw = mail.mail(sender=sender, name="", to="help@shop.example", text="x").as_bytes()
    assert read(raw, reply_address="in@mail.shop.example").automatic == automatic
