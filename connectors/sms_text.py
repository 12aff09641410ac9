"""What SMS does to a text: how long it is, how it is cut, and which words stop and resume it. Pure.

Alphabet: https://www.etsi.org/deliver/etsi_ts/123000_123099/123038/
Parts:    https://www.etsi.org/deliver/etsi_ts/123000_123099/123040/
Words:    https://www.ctia.org/the-wireless-industry/industry-commitments/messaging-interoperability-sms-mms

160 septets go out alone and 153 a part; 70 and 67 units of UTF-16 where one character is not in the
alphabet. A character of the alphabet's extension costs two septets, an emoji two units or more.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from chalicelib.errors import RejectedError

Encoding = Literal["gsm7", "ucs2"]
Cost = Callable[[str], int]

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("\f^{}\\[~]|€")
_ALONE = {"gsm7": 160, "ucs2": 70}
_PART = {"gsm7": 153, "ucs2": 67}


def septets(text: str) -> int:
    """What a text of the alphabet costs in it."""
    return sum(2 if c in _EXTENSION else 1 for c in text)


def units(text: str) -> int:
    """Units of UTF-16: what providers' limits count."""
    return sum(2 if c > "\uffff" else 1 for c in text)


def encoding(text: str) -> Encoding:
    """`gsm7` if every character is in the alphabet, else `ucs2`."""
    return "gsm7" if all(c in _BASIC or c in _EXTENSION for c in text) else "ucs2"


def length(text: str) -> int:
    """Septets or units, whichever the text is sent in."""
    return septets(text) if encoding(text) == "gsm7" else units(text)


def parts(text: str) -> list[str]:
    """The SMS that a network makes of a text: what it is paid as. No character is cut."""
    name = encoding(text)
    cost: Cost = septets if name == "gsm7" else units
    if cost(text) <= _ALONE[name]:
        return [text]
    return list(_packed(text, _PART[name], cost))


def _packed(pieces: Sequence[str], room: int, cost: Cost) -> Iterator[str]:
    """The pieces joined to as few texts as fit."""
    start, used = 0, 0
    for at, piece in enumerate(pieces):
        size = cost(piece)
        if used + size > room:
            yield "".join(pieces[start:at])
            start, used = at, 0
        used += size
    if start < len(pieces):
        yield "".join(pieces[start:])


def within(text: str, most: int, what: str = "SMS") -> str:
    """A sendable text. RejectedError if it is longer than `most` units: nobody cut it in pieces."""
    whole = sendable(text)
    if units(whole) > most:
        raise RejectedError(f"the text is too long for {what}: it takes {most} characters")
    return whole


def sendable(text: str) -> str:
    """The text without halves of characters, which nothing can encode."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole if whole != text else text


# Numbered pieces

_JOINER = "\u200d"


def seen_as_one(text: str) -> Iterator[str]:
    """A flag, or a character with all that changes it or is joined to it."""
    start = 0
    flags = 0
    for at in range(1, len(text) + 1):
        flags = flags + 1 if _is_flag_letter(text[at - 1]) else 0
        if at < len(text) and _goes_on(text[at - 1], text[at], flags):
            continue
        yield text[start:at]
        start, flags = at, 0


def _goes_on(before: str, character: str, flags: int) -> bool:
    if _is_flag_letter(character):
        return flags == 1 or before == _JOINER
    tagged = "\U000e0020" <= character <= "\U000e007f"
    toned = "\U0001f3fb" <= character <= "\U0001f3ff"
    joined = _JOINER in (before, character) or before + character == "\r\n"
    return joined or tagged or toned or unicodedata.category(character).startswith("M")


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


_GOOD_CUTS = ("\n", "。！？.!?", "，；,; \u3000")


def numbered(text: str, most: int, cost: Cost = units) -> list[str]:
    """The text, or where it costs more than `most`, numbered pieces of it: `(1/3) ...`.

    Without their numbers the pieces are the text. They end with a line, a sentence or a word where
    there is such an end in their last third, and never inside an emoji.
    """
    if cost(text) <= most:
        return [text]
    digits = 1
    while True:
        room = most - len(f"({'9' * digits}/{'9' * digits}) ")
        found = list(_cut(list(_fitting(text, room, cost)), room, cost))
        if len(found) < 10**digits:
            return [f"({n}/{len(found)}) {piece}" for n, piece in enumerate(found, 1)]
        digits += 1


def _fitting(text: str, room: int, cost: Cost) -> Iterator[str]:
    """What people see as one; the characters of what would fill a piece by itself."""
    for whole in seen_as_one(text):
        yield from (whole,) if cost(whole) <= room else whole


def _cut(seen: Sequence[str], room: int, cost: Cost) -> Iterator[str]:
    start = 0
    while start < len(seen):
        end, used = start, 0
        while end < len(seen) and used + cost(seen[end]) <= room:
            used += cost(seen[end])
            end += 1
        if end < len(seen):
            end = _good_cut(seen, start + (end - start) * 2 // 3, end) or end
        yield "".join(seen[start:end])
        start = end


def _good_cut(seen: Sequence[str], low: int, high: int) -> int | None:
    """The last end of a line, else of a sentence, else of a word, between the two."""
    for marks in _GOOD_CUTS:
        for at in range(high, low, -1):
            if seen[at - 1][-1] in marks:
                return at
    return None


# Opting out

#: en (CTIA, and what rules of the United States added), fr, zh (a text there offers T, TD or R).
_OUT = frozenset((
    "STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT",
    "OPT-OUT", "OPT OUT", "REMOVE", "STOP SMS",
    "ARRET", "ARRÊT", "ARRETER", "ARRÊTER", "DESABONNER", "DÉSABONNER", "DESABONNEMENT",
    "DÉSABONNEMENT", "DESINSCRIRE", "DÉSINSCRIRE",
    "TD", "T", "R", "退订", "退訂", "拒收", "取消订阅", "取消訂閱", "不再接收", "回T退订", "TD退订",
    "退订TD", "T退订", "回复T", "回复TD", "回复R",
))  # fmt: skip
_IN = frozenset((
    "START", "UNSTOP", "SUBSCRIBE", "RESUBSCRIBE", "OPTIN", "OPT-IN", "OPT IN",
    "REPRENDRE", "ABONNER", "S'ABONNER", "REABONNER", "RÉABONNER",
    "订阅", "訂閱", "恢复订阅", "恢復訂閱", "重新订阅", "重新訂閱", "取消退订", "恢复接收",
))  # fmt: skip
_AROUND = re.compile(r"^[\W_]+|[\W_]+$")

Choice = Literal["out", "in"]


def keyword(text: str) -> str:
    """A short text as a keyword: width and case folded, blanks, quotes, marks around it gone."""
    folded = unicodedata.normalize("NFKC", text[:64]).upper() if len(text) <= 64 else ""
    return re.sub(r"\s+", " ", _AROUND.sub("", folded))


def choice(text: str) -> Choice | None:
    """`out` or `in` for a text that is just such a word, None for any other."""
    word = keyword(text)
    if word in _OUT:
        return "out"
    return "in" if word in _IN else None
