"""A long answer becomes several messages that WeChat takes: nothing lost, no character cut."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib.schema import Attachment, Kind
from connectors.channels.wechat import WeChat
from connectors.wechat_pieces import MEGABYTE, pieces, split
from connectors.wecom_corporation import TAKES
from tests import nouns

LIMIT = 2048
FAMILY = "👨\u200d👩\u200d👧"
UNITS = ["您好。", "订单", "Hello. ", "a b ", "\n\n", "\n", "！？", "，", FAMILY, "e\u0301", "👍🏽"]
wholes = st.lists(st.sampled_from(UNITS), max_size=60).map("".join)
texts = st.lists(st.sampled_from(UNITS) | st.text(max_size=12), max_size=60).map("".join)


def size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


@settings(max_examples=200, deadline=None)
@example(text="一" * 5000, limit=LIMIT)
@example(text="😀" * 900, limit=LIMIT)
@example(text="\ud800" * 50, limit=20)
@given(text=texts, limit=st.integers(40, 120))
def test_the_parts_are_short_enough_and_together_the_text(text: str, limit: int) -> None:
    parts = split(text, limit)
    assert all(0 < size(part) <= limit for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


@settings(max_examples=200, deadline=None)
@given(text=wholes, limit=st.integers(40, 120))
def test_no_part_begins_or_ends_within_a_character(text: str, limit: int) -> None:
    parts = split(text, limit)
    for before, after in pairwise(parts):
        assert not unicodedata.combining(after[0])
        assert after[0] not in "\u200d\ufe0f🏽"
        assert before[-1] != "\u200d"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("一。二二二二。三三三三三", ["一。二二二二。", "三三三三三"]),
        ("One. Two two two. Three three", ["One. Two two two.", " Three three"]),
        ("1.50 元一共是这么多钱啊啊", ["1.50", "元一共是这么多钱啊", "啊"]),
        ("第一段\n\n第二段第二段。第二", ["第一段\n\n", "第二段第二段。第二"]),
        ("short", ["short"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_a_text_is_cut_where_a_sentence_ends(text: str, parts: list[str]) -> None:
    found = split(text, 27)
    assert [part.strip() for part in found] == [part.strip() for part in parts]


def file(media_type: str, size_bytes: int = 7, name: str = "发票") -> Attachment:
    url = f"https://files.example/{name}"
    return Attachment(name=name, media_type=media_type, size_bytes=size_bytes, url=url)


def test_an_answer_that_fits_goes_as_it_is() -> None:
    message = nouns.message(text="Tomorrow.")
    assert list(pieces(message, WeChat.takes)) == [message]


def test_texts_go_first_then_file_by_file() -> None:
    message = nouns.message(
        text="一" * 1000, attachments=(file("image/png"), file("audio/amr", name="voice"))
    )
    found = pieces(message, WeChat.takes)
    assert [piece.kind for piece in found] == [Kind.TEXT, Kind.TEXT, Kind.IMAGE, Kind.AUDIO]
    assert [len(piece.attachments) for piece in found] == [0, 0, 1, 1]
    assert [piece.text == "" for piece in found] == [False, False, True, True]


@pytest.mark.parametrize(
    "attachment",
    [
        file("image/webp"),
        file("image/png", 10 * MEGABYTE + 1),
        file("audio/ogg"),
        file("image/png", 3),
    ],
)
def test_a_picture_that_wechat_does_not_take_goes_as_a_link(attachment: Attachment) -> None:
    (piece,) = pieces(nouns.message(text="See:", attachments=(attachment,)), WeChat.takes)
    assert piece.text == "See:\n发票: https://files.example/发票"
    assert piece.attachments == ()


def test_what_wecom_does_not_take_as_a_picture_it_takes_as_a_file() -> None:
    found = pieces(nouns.message(text="", attachments=(file("image/webp"),)), TAKES)
    assert [piece.kind for piece in found] == [Kind.FILE]


def test_a_file_too_large_for_all_goes_as_a_link() -> None:
    large = file("application/pdf", 20 * MEGABYTE + 1)
    (piece,) = pieces(nouns.message(text="", attachments=(large,)), TAKES)
    assert piece.text == "发票: https://files.example/发票"
