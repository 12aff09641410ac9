"""Quoted history: what every mail program puts above it, and what must never be cut."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors import mime
from connectors.quoting import without_history

OWN = "请问订单到哪了？\n已经三天了。"


def layouts(file: str) -> dict[str, str]:
    """What begins the quoted part, program by program."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    return dict(part.rstrip("\n").split("\n", 1) for part in text.split("=== ")[1:])


EVERY = layouts("quoted_history.txt")
HTML = layouts("quoted_history_html.txt")


@pytest.mark.parametrize("history", EVERY.values(), ids=EVERY)
def test_what_a_mail_program_quotes_is_cut_off(history: str) -> None:
    assert without_history(f"{OWN}\n\n\n{history}") == OWN


@pytest.mark.parametrize("history", EVERY.values(), ids=EVERY)
def test_nothing_but_history_is_kept_whole(history: str) -> None:
    assert without_history(history).strip()


@pytest.mark.parametrize("history", EVERY.values(), ids=EVERY)
def test_a_mail_that_is_passed_on_is_kept_whole(history: str) -> None:
    whole = f"{OWN}\n\n{history}"
    assert without_history(whole, "转发: 订单") == whole
    assert without_history(whole, "FW: Tea") == whole


WHOLE = [
    "我想在2024年1月2日到店取货，可以吗？",
    "请把发件人：张三 改成 李四。",
    "On Monday I wrote: please call me.",
    "On 2 Jan 2024 I wrote to you:\nplease answer",
    "你好\n我在2024年1月2日 10:00写道：\n请回复",
    "Hello\nI wrote to <s@e.example> on 2 January 2024 at 10:00:\nplease answer",
    "It says: on 2024-01-02 at 10:00 the agent wrote:\nno refund\nIs that so?",
    "> 您的订单号是多少？\n12345\n> 收货地址？\n北京市",
    "请改地址\n发件人：张三\n收件人：李四\n地址：北京",
    "Please ship it:\nFrom: Beijing\nTo: Shanghai\nDate: Jan 5 2024",
    "My meeting\nDate: 5 May\nTime: 10:00\nSubject: refund",
    "Service | Expire date\n----------------------------------------\nDomain | Jun 27",
    "One of\n-- this\n-- and that",
    "来自北京的张三",
    "发自内心的感谢",
    "Here it is.\n\nSent from my desk, which is much easier than my phone.",
    "2 of the cups were broken\nand the box was wet:\nplease see below",
    "看一下\n\n---------- 转发邮件信息 ----------\n发件人：a@b.example\n日期：2024\n\n正文",
    "See\n\n---------- Forwarded message ---------\nFrom: a@b.example\nDate: x\nSubject: y\n\nHi",
    "See\n\nBegin forwarded message:\n\nFrom: a <a@b.example>\nDate: x\nSubject: y\n\nbody",
]  # fmt: skip


@pytest.mark.parametrize("text", WHOLE)
def test_what_only_looks_like_history_stays(text: str) -> None:
    assert without_history(text) == text


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("On 2 Jan 2024 S <s@e.de> wrote:\n> A?\n\nyes\n> B?\nno", "> A?\n\nyes\n> B?\nno"),
        ("On Jan 2, 2024, S <s@e.example> wrote:\n> A?\n>\n> S\n\nyes", "yes"),
        ("Hi\n> A?\n\nyes\n> B?\nno\n-- \nLi", "Hi\n> A?\n\nyes\n> B?\nno"),
        ("5 came\nsee below\nOn Jan 2, 2024 S <s@e.example> wrote:\n> x", "5 came\nsee below"),
        (f"yes\n\nOn Jan 2, 2024, S <s@e.example> wrote:\n> {'long ' * 20}\nend\n> more", "yes"),
        ("yes\n\nOn Jan 2, 2024, S <s@e.example> wrote:\n> A?\n\n--\nLi\nTea & Co", "yes"),
        ("yes\n\n-- \nLi", "yes"),
        ("yes\n\n获取 Outlook for iOS<https://aka.ms/x>", "yes"),
        ("yes\n发自我的iPhone", "yes"),
        ("yes\n\nGet [Outlook for Android](https://aka.ms/x)", "yes"),
        ("yes\n> old\n> older", "yes"),
    ],
)  # fmt: skip
def test_answers_stay_wherever_they_stand_and_signatures_go(text: str, own: str) -> None:
    assert without_history(text) == own


@pytest.mark.parametrize("html", HTML.values(), ids=HTML)
def test_history_is_found_by_the_html_s_own_marks(html: str) -> None:
    raw = f"From: a@b.example\nContent-Type: text/html; charset=utf-8\n\n{html}"
    found = mime.read(raw.encode())
    assert found.text == "新问题"
    assert "旧" in found.full_text
    assert "\ue000" not in found.full_text


def test_a_forwarded_html_mail_is_kept_whole() -> None:
    html = (
        '<div>看一下</div><div class="gmail_quote"><div class="gmail_attr">---------- '
        "Forwarded message ---------<br>From: S</div>里面</div>"
    )
    raw = f"From: a@b.example\nContent-Type: text/html; charset=utf-8\n\n{html}"
    found = mime.read(raw.encode())
    assert found.text == found.full_text
    assert found.text.endswith("里面")


def test_a_long_text_without_history_keeps_its_end() -> None:
    text = "\n".join(f"line {n}" for n in range(5000))
    assert without_history(text) == text


#: What took other readers minutes: they are read up to their cap, and no test would end otherwise.
FLOODS = [
    "On " * 30_000, "\n" * 60_000, "From:\n" * 8_000, "发件人:\n" * 8_000, "发件人: a@b\n" * 8_000,
    "On 2024-01-02 10:00 a <b@c.example\n" * 4_000, "On 2024 wrote\n" * 8_000, "-" * 60_000,
    "> " * 30_000, "a@" * 30_000, "sent from " * 6_000, "| " * 30_000, "\ue000\n" * 8_000,
]  # fmt: skip


@pytest.mark.parametrize("text", FLOODS, ids=[flood[:12].strip() for flood in FLOODS])
def test_floods_are_read(text: str) -> None:
    own = without_history(f"Tea?\n{text}")
    assert own.startswith("Tea?")


lines = st.sampled_from(
    [line for history in EVERY.values() for line in history.split("\n")]
    + [line for text in WHOLE for line in text.split("\n")]
    + ["", "> ", ">> x", "-- ", "\ue000", "hello"]
)


@settings(max_examples=300, deadline=None)
@given(text=st.lists(lines, max_size=20).map("\n".join))
def test_a_reply_is_made_of_the_mail_s_lines_and_never_empty(text: str) -> None:
    own = without_history(text)
    visible = text.replace("\ue000", "")
    assert bool(own) == bool(visible.strip())
    assert all(line.strip() in visible for line in own.split("\n"))
