"""Texts in the form in which they are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.text import normalise, numbers, tokens

SAME = [
    ("Where is my order?", "where is my order"),
    ("ＷＨＥＲＥ　ｉｓ my order", "where is my order"),
    ("Hi there, where is my order please? Thanks!", "where is my order"),
    ("can u check my acct pls", "can you check my account"),
    ("茶葉怎麼保存？", "茶叶怎么保存"),
    ("您好，请问龙井茶怎么保存呢？谢谢！", "龙井茶怎么保存"),
    ("龙井茶怎么保存[微笑]😀", "龙井茶怎么保存"),
    ("我的iPhone15什么时候到", "我的 iphone 15 什么时候到"),
    ("It doesn’t work", "it doesn't work"),
    ("\u200bwhere\u202e is it", "where is it"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_channel_noise_and_politeness_make_no_difference(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("cancel my order", "confirm my order"), ("退货", "换货"), ("order 12345", "order 12346")],
)
def test_what_makes_another_question_stays(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("order SF-1234 567 and 8", {"sf1234", "567"}),
        ("运单号SF1234567890到哪了", {"sf1234567890"}),
        ("扣了187.5元", {"187.5"}),
        ("on 2026-03-01, 1,000 times", {"20260301", "1000"}),
        ("nothing here, or 7", set()),
    ],
)
def test_numbers_of_two_digits_and_more_are_anchors(text: str, found: set[str]) -> None:
    assert numbers(text) == found


@given(st.text(max_size=300))
def test_whatever_is_written_comes_out_on_one_line_of_known_tokens(text: str) -> None:
    once = normalise(text)
    assert "\n" not in once
    assert "  " not in once
    assert "".join(tokens(once)) == once.replace(" ", "")
