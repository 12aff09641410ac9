"""Mail that comes back: what did not arrive, for whom, and what only looks like it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import PayloadError
from connectors import mime
from connectors.mime import Bounce

ORIGINAL = "<m1@shop.example>"


def report(*blocks: str, head: str = "", last: str = "message/rfc822", kind: str = "") -> bytes:
    """A delivery status notification of these blocks."""
    status = "\n".join(f"{block}\n" for block in ("Reporting-MTA: dns; mx.example", *blocks))
    kind = kind or "multipart/report; report-type=delivery-status"
    return (
        f"From: Mail Delivery System <MAILER-DAEMON@mx.example>\n{head}"
        f"To: help@shop.example\nSubject: Undelivered Mail Returned to Sender\n"
        f"Content-Type: {kind}; boundary=b\n\n"
        "--b\nContent-Type: text/plain\n\nIt could not be delivered.\n"
        f"--b\nContent-Type: message/delivery-status\n\n{status}\n"
        f"--b\nContent-Type: {last}\n\nSubject: Tea\nMessage-ID: {ORIGINAL}\n\nhello\n--b--\n"
    ).encode()


FAILED = (
    "Final-Recipient: rfc822; li@example.com\nAction: failed\nStatus: 5.1.1\n"
    "Diagnostic-Code: smtp; 550 5.1.1 <li@example.com>:\n no such user"
)


def bounce(raw: bytes) -> Bounce:
    found = mime.read(raw)
    assert found.automatic
    assert found.bounce
    return found.bounce


@pytest.mark.parametrize("last", ["message/rfc822", "text/rfc822-headers"])
@pytest.mark.parametrize("kind", ["", "multipart/mixed"])
def test_a_report_says_what_failed_for_whom_and_why(last: str, kind: str) -> None:
    assert bounce(report(FAILED, last=last, kind=kind)) == Bounce(
        original_message_id=ORIGINAL,
        recipient="li@example.com",
        status="5.1.1",
        hard=True,
        reason="550 5.1.1 <li@example.com>: no such user",
    )


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("Action: failed\nStatus: 4.4.7", {"status": "4.4.7", "hard": False, "delayed": False}),
        ("Action: delayed\nStatus: 4.4.1", {"status": "4.4.1", "hard": False, "delayed": True}),
        ("Action: delayed\nStatus: 5.4.1", {"status": "4.4.1", "hard": False, "delayed": True}),
        ("Action: FAILED\nStatus: 5.0.0 (nobody)", {"status": "5.0.0", "hard": True}),
        (
            "Action: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 552 5.2.2 mailbox full",
            {"status": "5.2.2", "hard": True},
        ),
        ("Action: failed\nDiagnostic-Code: smtp; 450 try later", {"status": "4.0.0"}),
        ("Status: 5.1.1", {"status": "5.1.1"}),
    ],
)
def test_a_status_is_final_soft_or_only_late(block: str, told: dict[str, Any]) -> None:
    found = bounce(report(f"Final-Recipient: rfc822; li@example.com\n{block}"))
    assert {name: getattr(found, name) for name in told} == told


def test_the_one_that_failed_is_named_before_the_one_that_is_late() -> None:
    late = "Final-Recipient: rfc822; wei@example.com\nAction: delayed\nStatus: 4.0.0"
    assert bounce(report(late, FAILED)).recipient == "li@example.com"


@pytest.mark.parametrize("good", ["Action: delivered\nStatus: 2.0.0", "Status: 2.0.0"])
def test_what_was_delivered_is_no_bounce(good: str) -> None:
    found = mime.read(report(f"Final-Recipient: rfc822; li@example.com\n{good}"))
    assert (found.bounce, found.automatic) == (None, True)


def test_an_address_of_another_kind_is_looked_for_elsewhere() -> None:
    block = (
        "Original-Recipient: rfc822;li@example.com\nFinal-Recipient: x400; /O=x/\n"
        "Action: failed\nStatus: 5.1.1"
    )
    assert bounce(report(block)).recipient == "li@example.com"


def test_a_bounce_from_nobody_is_read_all_the_same() -> None:
    raw = report(FAILED).replace(b"<MAILER-DAEMON@mx.example>", b"<>")
    found = mime.read(raw)
    assert (found.sender, found.one_author) == (mime.NOBODY, False)
    assert found.bounce


# As it is told to people

COPY = f"Received: from x\nMessage-ID: {ORIGINAL}\nFrom: help@shop.example\nTo: li@example.com\n"
TOLD = {
    "QQ": (
        "From: =?utf-8?B?57O757uf6YCA5L+h?= <PostMaster@qq.com>\nSubject: 系统退信/Systems bounce",
        "抱歉，您的邮件被退回来了……\n收件人 li@example.com\n退信原因 收件人邮箱地址不存在。",
        "5.1.1",
    ),
    "QQ, full": (
        "From: PostMaster@qq.com\nSubject: 系统退信",
        "您发往 li@example.com 的邮件被退回。\n原因：对方邮箱已满 552 mailbox full",
        "5.2.2",
    ),
    "QQ, with advice": (
        "From: PostMaster@qq.com\nSubject: 系统退信",
        "您的邮件被退回。\n收件人 li@example.com\n暂时无法接收，建议您稍后再发送一次。",
        "5.0.0",
    ),
    "163": (
        "From: Postmaster@163.com\nSubject: 系统退信",
        "您的邮件无法送达，收件人：li@example.com 不存在。 550 User not found: li@example.com",
        "5.1.1",
    ),
    "Aliyun": (
        "From: postmaster@aliyun.com\nSubject: 退信通知",
        "很遗憾，您的邮件未能发送成功：\n<li@example.com>: 550 5.7.1 spam",
        "5.7.1",
    ),
    "Japan": (
        "From: MAILER-DAEMON@example.co.jp\nSubject: 送信エラー",
        "次の宛先に配信できませんでした。\nli@example.com\n550 5.1.1 User unknown",
        "5.1.1",
    ),
    "qmail": (
        "From: MAILER-DAEMON@mx.example\nSubject: failure notice",
        "Hi. This is the qmail-send program.\nI wasn't able to deliver your message.\n\n"
        "<li@example.com>:\n192.0.2.1 does not like recipient. 550 no such user (#5.1.1)\n\n"
        "--- Below this line is a copy of the message.\n\n" + COPY,
        "5.1.1",
    ),
    "Exim": (
        "From: Mailer-Daemon@mx.example\nX-Failed-Recipients: li@example.com\n"
        "Subject: Mail delivery failed: returning message to sender",
        "A message that you sent could not be delivered.\n\n  li@example.com\n    Unrouteable\n\n"
        "------ This is a copy of the message, including all the headers. ------\n\n" + COPY,
        "5.0.0",
    ),
    "Postfix, without a report": (
        "From: MAILER-DAEMON@mx.example\nSubject: Undelivered Mail Returned to Sender",
        "<li@example.com>: host 192.0.2.1 said: 452 4.2.2 The mailbox is over quota",
        "4.2.2",
    ),
    "Exchange": (
        "From: System Administrator <postmaster@x.example>\nSubject: Undeliverable: Tea",
        "Your message\n\n  To:      wei@example.com\n\ndid not reach the following "
        "recipient(s):\n\nli@example.com on Friday\n    The recipient name is not recognized",
        "5.1.1",
    ),
    "Exchange, in Chinese": (
        "From: postmaster@x.example\nSubject: 未送达: 订单",
        "未能向这些收件人或组传递邮件:\n\nli@example.com\n\n#550 5.1.10 RESOLVER.ADR.NotFound",
        "5.1.10",
    ),
    "late, in Chinese": (
        "From: postmaster@x.example\nSubject: 传递延迟: 订单",
        "向 li@example.com 的传递已延迟。服务器将继续尝试。",
        "4.0.0",
    ),
    "a warning": (
        "From: MAILER-DAEMON@mx.example\nSubject: Warning: could not send message for past 4 hours",
        "The message to <li@example.com> is delayed. It will be retried for 5 days.",
        "4.0.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("head", "text", "status"), TOLD.values(), ids=TOLD)
def test_a_bounce_written_for_people_is_understood(head: str, text: str, status: str) -> None:
    raw = f"{head}\nTo: help@shop.example\nContent-Type: text/plain; charset=utf-8\n\n{text}"
    found = bounce(raw.encode())
    assert (found.recipient, found.status) == ("li@example.com", status)
    assert found.hard == status.startswith("5")
    assert found.original_message_id == (ORIGINAL if COPY in text else "")


FINE = {
    "a customer who complains": (
        "From: li@example.com\nSubject: Delivery failed again",
        "My parcel could not be delivered. Write to me at wei@example.com. 550 Yuan!",
    ),
    "a customer who passes one on": (
        "From: li@example.com\nSubject: Fw: Undeliverable: Tea",
        "<wei@example.com>: user unknown. What does it mean?",
    ),
    "an automatic answer": (
        "From: li@example.com\nAuto-Submitted: auto-replied\nSubject: Automatic reply: Tea",
        "I am away. Write to wei@example.com.",
    ),
    "a shop's own postmaster": (
        "From: postmaster@example.com\nSubject: Tea",
        "Where is my tea? You can reach me at wei@example.com.",
    ),
}


@pytest.mark.parametrize(("head", "text"), FINE.values(), ids=FINE)
def test_what_only_looks_like_a_bounce_is_none(head: str, text: str) -> None:
    assert mime.read(f"{head}\n\n{text}".encode()).bounce is None


@pytest.mark.parametrize("kind", ["message/disposition-notification", "message/feedback-report"])
def test_read_receipts_and_complaints_are_automatic_and_no_bounce(kind: str) -> None:
    raw = report("Final-Recipient: rfc822; li@example.com\nDisposition: x; displayed")
    found = mime.read(raw.replace(b"message/delivery-status", kind.encode()))
    assert (found.bounce, found.automatic) == (None, True)


def test_a_failure_s_reason_is_one_short_line() -> None:
    block = f"{FAILED}\n{' x' * 1000}\n \x07"
    reason = bounce(report(block)).reason
    assert len(reason) <= 300
    assert "\n" not in reason


pieces = st.sampled_from([
    "Final-Recipient: rfc822; a@b.example", "Action: failed", "Status: 5.1.1", "Diagnostic-Code: ;",
    "<a@b.example>: 550 5.1.1", "", "could not be delivered", "Message-ID: <x@y>", "退信", "@" * 30,
    "--- Below this line is a copy", "X-Failed-Recipients: a@b.example", "Status: 9.9.9",
])  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    blocks=st.lists(pieces, max_size=8), texts=st.lists(pieces | st.text(max_size=8), max_size=8)
)
def test_any_report_is_read(blocks: list[str], texts: list[str]) -> None:
    raw = report("\n".join(blocks)).replace(b"It could not", "\n".join(texts).encode())
    try:
        found = mime.read(raw).bounce
    except PayloadError:
        return
    assert found is None or found.hard == found.status.startswith("5")
    assert found is None or found.status[0] in "45"
