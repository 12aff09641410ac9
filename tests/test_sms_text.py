"""How long a text is as SMS, how it is cut, and which words stop and resume it."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors import sms_text

bounded = settings(max_examples=300, deadline=None)
GSM = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCXYZÄÖÑÜ§¿abcxyzäöñüà"
EXTENDED = "\f^{}\\[~]|€"
#: What people see as one: none of these may be cut.
FACES = [
    "😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇨🇳", "🇩🇪", "1️⃣", "❤️", "é", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "𠮷", "👩🏿‍🚀",
]  # fmt: skip
gsm_texts = st.text(st.sampled_from(GSM + EXTENDED), max_size=700)
mixed_texts = st.lists(
    st.sampled_from([*FACES, "你", "好", "。", " ", "\n", "a", "€", ". "])
    | st.text(st.characters(categories=["L", "N", "P", "Zs", "Sm"]), max_size=2),
    max_size=400,
).map("".join)


# Length


@pytest.mark.parametrize(
    ("text", "encoding", "length", "parts"),
    [
        ("", "gsm7", 0, 1),
        ("a" * 160, "gsm7", 160, 1),
        ("a" * 161, "gsm7", 161, 2),
        ("a" * 306, "gsm7", 306, 2),
        ("a" * 307, "gsm7", 307, 3),
        ("€" * 80, "gsm7", 160, 1),
        ("€" * 81, "gsm7", 162, 2),
        ("a" * 152 + "€" + "b" * 10, "gsm7", 164, 2),
        ("€" * 153, "gsm7", 306, 3),  # 76 in each: the 77th would be cut in two
        ("你" * 70, "ucs2", 70, 1),
        ("你" * 71, "ucs2", 71, 2),
        ("你" * 134, "ucs2", 134, 2),
        ("你" * 135, "ucs2", 135, 3),
        ("😀" * 35, "ucs2", 70, 1),
        ("😀" * 36, "ucs2", 72, 2),
        ("😀" * 67, "ucs2", 134, 3),  # 33 in each: the 34th would be cut in two
        ("ç", "ucs2", 1, 1),
        ("Ç", "gsm7", 1, 1),
        ("`", "ucs2", 1, 1),
    ],
)
def test_a_text_has_the_length_that_networks_count(
    text: str, encoding: str, length: int, parts: int
) -> None:
    assert sms_text.encoding(text) == encoding
    assert sms_text.length(text) == length
    assert len(sms_text.parts(text)) == parts


@bounded
@given(gsm_texts | mixed_texts)
def test_parts_join_to_the_text_and_fit(text: str) -> None:
    parts = sms_text.parts(text)
    assert "".join(parts) == text
    cost = sms_text.septets if sms_text.encoding(text) == "gsm7" else sms_text.units
    alone, part = (160, 153) if cost is sms_text.septets else (70, 67)
    assert all(cost(p) <= (alone if len(parts) == 1 else part) for p in parts)
    for one in parts:
        one.encode("utf-16", "strict" if text.isprintable() else "surrogatepass")


# Pieces


@bounded
@given(st.text(max_size=300), st.sampled_from([20, 35, 70]))
def test_pieces_of_any_text_are_the_text_and_fit(text: str, most: int) -> None:
    pieces = sms_text.numbered(text, most)
    assert all(sms_text.units(piece) <= most for piece in pieces)
    assert "".join(bare(pieces)) == text


def bare(pieces: list[str]) -> list[str]:
    """The pieces without their numbers, which must be right."""
    if len(pieces) == 1:
        return pieces
    total = len(pieces)
    for number, piece in enumerate(pieces, 1):
        assert piece.startswith(f"({number}/{total}) ")
    return [piece[len(f"({n}/{total}) ") :] for n, piece in enumerate(pieces, 1)]


@bounded
@given(mixed_texts, st.sampled_from([35, 70, 160, 450, 1600]))
def test_pieces_are_the_text_and_fit_and_cut_nothing_that_is_seen_as_one(
    text: str, most: int
) -> None:
    pieces = sms_text.numbered(text, most)
    assert all(sms_text.units(piece) <= most for piece in pieces)
    found = bare(pieces)
    assert "".join(found) == text
    for before, after in pairwise(found):
        assert before
        assert after
        assert not unicodedata.combining(after[0])
        assert after[0] not in "\u200d\ufe0f\u20e3"
        assert not "\U0001f3fb" <= after[0] <= "\U0001f3ff"
        assert before[-1] != "\u200d"


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("before", range(13))
def test_no_emoji_is_cut_wherever_the_cut_falls(face: str, before: int) -> None:
    text = "你" * before + face * 12
    for piece in bare(sms_text.numbered(text, 40)):
        assert (
            piece.removeprefix("你" * min(before, len(piece))).strip("你").replace(face, "") == ""
        )


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("short", ["short"]),
        ("x" * 20, ["x" * 20]),
        ("Dear Li, thank. It leaves.", ["(1/2) Dear Li, thank.", "(2/2)  It leaves."]),
        ("Dear Li thank you It leaves", ["(1/2) Dear Li thank ", "(2/2) you It leaves"]),
        ("Dear Li thank\nyou It leaves", ["(1/2) Dear Li thank\n", "(2/2) you It leaves"]),
        ("DearLithankyouItleavesit", ["(1/2) DearLithankyouIt", "(2/2) leavesit"]),
        ("您的包裹明天发货。请您耐心等待，谢谢您", None),
    ],
)
def test_a_piece_ends_where_a_sentence_or_a_word_ends(text: str, pieces: list[str] | None) -> None:
    found = sms_text.numbered(text, 22)
    assert pieces is None or bare(found) == bare(pieces)
    assert "".join(bare(found)) == text


def test_more_than_nine_pieces_leave_room_for_their_numbers() -> None:
    pieces = sms_text.numbered("你" * 1000, 70)
    assert len(pieces) > 9
    assert all(sms_text.units(piece) <= 70 for piece in pieces)


def test_what_is_absurdly_long_and_seen_as_one_is_cut_all_the_same() -> None:
    pieces = sms_text.numbered("a" + "\u0301" * 500, 70)
    assert all(sms_text.units(piece) <= 70 for piece in pieces)


@bounded
@given(st.text(st.characters(), max_size=50) | st.text(st.characters(categories=["Cs"])))
def test_any_text_can_be_sent(text: str) -> None:
    sms_text.sendable(text).encode("utf-8")


def test_a_text_that_can_be_sent_stays_as_it_is() -> None:
    assert sms_text.sendable("a😀\ud83d") == "a😀\ufffd"
    assert sms_text.sendable("a😀") == "a😀"


# Words


@pytest.mark.parametrize(
    "text",
    ["STOP", "stop", " Stop. ", "STOP!", '"stop"', "“STOP”", "ＳＴＯＰ", "Stop 🛑", "stop all",
     "STOPALL", "unsubscribe", "CANCEL", "end", "Quit", "revoke", "OptOut", "opt-out", "opt  out",
     "REMOVE",
     "ARRET", "arrêt", "arre\u0302t", "Désabonner", "STOP SMS",
     "退订", "退訂", "「退订」", "退订。", "TD", "td", "ＴＤ", "t", "R", "r!", "拒收",
     "取消订阅", "回T退订"],
)  # fmt: skip
def test_a_word_alone_opts_out(text: str) -> None:
    assert sms_text.choice(text) == "out"


@pytest.mark.parametrize(
    "text", ["START", "start", "Unstop", "subscribe", "订阅", "恢复订阅", "ＳＴＡＲＴ", "opt-in"]
)
def test_a_word_alone_opts_in_again(text: str) -> None:
    assert sms_text.choice(text) == "in"


@pytest.mark.parametrize(
    "text",
    ["", " ", "?", "please do not stop my course", "stop texting me", "请不要退订我的课程",
     "退订怎么弄", "STOPPED", "the end", "non-stop", "TDD", "RR", "yes", "YES", "no", "好的",
     "help", "cancel my order", "T-shirt", "STOP\nWhere is my parcel?", "stop" + " " * 200 + "stop",
     "s t o p", "🛑"],
)  # fmt: skip
def test_any_other_text_is_no_choice(text: str) -> None:
    assert sms_text.choice(text) is None


@bounded
@given(st.text(max_size=100))
def test_no_text_breaks_the_look_at_it(text: str) -> None:
    assert sms_text.choice(text) in ("out", "in", None)
    assert sms_text.choice(f"Where is my parcel? {text}") is None
