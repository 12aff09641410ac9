"""The bilingual word table behind `repeats`: how rare a word is, and which words mean alike. Pure.

Each word, Chinese or English, has a weight and a code of 1,024 bits. Words of like meaning have
codes that differ in few bits, in one language or across the two: the share of equal bits gives the
cosine of the vectors they stand for (random hyperplanes: Charikar, STOC 2002; at right angles to
each other: Ji et al., NIPS 2012). Words that the table lacks get a code by hashing, which is like
that of the same word and of no other.

`make repeats-model` builds lexicon.bin; where it comes from is in NOTICE. It is read on first use.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

BITS = 1024
_BYTES = BITS // 8
#: The cosine that so many differing bits stand for.
COSINES = [math.cos(math.pi * n / BITS) for n in range(BITS + 1)]

_LONGEST = 6
#: Decimal logarithm of how often a character is used that the table lacks.
_UNKNOWN = -7.5
#: A word used once in this many words weighs a half.
_HALF_WEIGHT = 3e-4
#: What a word weighs that the table lacks; a number weighs by its length.
_FOREIGN_NORM, _DIGIT_NORM, _LONGEST_NUMBER = 0.7, 0.04, 8
_PIECES = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]+|[^\s\u3400-\u9fff\uf900-\ufaff]+")


@dataclass(frozen=True)
class Lexicon:
    """The table, read."""

    places: dict[str, int]
    #: Minus ten times the decimal logarithm of how often each is used, a byte each.
    frequencies: bytes
    norms: bytes
    codes: memoryview
    #: The norm that 255 stands for.
    largest: float
    #: Weights and thresholds that were learnt with it.
    model: dict[str, Any]

    def words(self, normalised: str) -> list[str]:
        """A normalised text as words; Chinese along its most frequent words (Viterbi)."""
        return [word for piece in _PIECES.findall(normalised) for word in self._split(piece)]

    def _split(self, piece: str) -> Iterator[str]:
        if piece[0] < "\u3400":
            yield piece
            return
        cut = self._cuts(piece)
        at, found = len(piece), []
        while at:
            found.append(piece[cut[at] : at])
            at = cut[at]
        yield from reversed(found)

    def _cuts(self, run: str) -> list[int]:
        """For every place in the run, where the word begins that ends there."""
        best, cut = [0.0], [0]
        for end in range(1, len(run) + 1):
            options = [
                (best[start] + logarithm, start)
                for start in range(max(0, end - _LONGEST), end)
                if (logarithm := self._logarithm(run[start:end])) is not None
            ]
            score, start = max(options)
            best.append(score)
            cut.append(start)
        return cut

    def _logarithm(self, word: str) -> float | None:
        place = self.places.get(word)
        if place is not None:
            return -self.frequencies[place] / 10
        return _UNKNOWN if len(word) == 1 else None

    def entry(self, word: str) -> "Entry":
        """What the table knows of a word, or what stands in for one that it lacks."""
        place = self.places.get(word)
        if place is None:
            return _foreign(word)
        return Entry(
            norm=self.norms[place] * self.largest / 255,
            code=int.from_bytes(self.codes[place * _BYTES : (place + 1) * _BYTES], "little"),
            rarity=half_weighed(10 ** (-self.frequencies[place] / 10)),
        )


class Entry(NamedTuple):
    """A word of the table."""

    #: How much it counts.
    norm: float
    code: int
    #: From 0 for the commonest word to 1 for what the table lacks.
    rarity: float


def _foreign(word: str) -> Entry:
    digest = hashlib.shake_256(word.encode("utf-8", "surrogatepass")).digest(_BYTES)
    digits = _DIGIT_NORM * min(len(word), _LONGEST_NUMBER)
    return Entry(
        digits if word[0].isdigit() else _FOREIGN_NORM, int.from_bytes(digest, "little"), 1.0
    )


@lru_cache(maxsize=8192)
def entry(word: str) -> Entry:
    """The same of the shipped table, with a memory for what questions are made of."""
    return lexicon().entry(word)


def half_weighed(share: float) -> float:
    """The weight of a word that is so large a share of all words."""
    return float(_HALF_WEIGHT / (_HALF_WEIGHT + share))


@cache
def lexicon() -> Lexicon:
    """The shipped table."""
    return read(Path(__file__).with_name("lexicon.bin"))


def read(path: Path) -> Lexicon:
    """A table from its file: a line of JSON, a line of words, then bytes."""
    content = path.read_bytes()
    head_end = content.index(b"\n")
    words_end = content.index(b"\n", head_end + 1)
    head = json.loads(content[:head_end])
    words = content[head_end + 1 : words_end].decode().split(" ")
    count, at = len(words), words_end + 1
    return Lexicon(
        places=dict(zip(words, range(count), strict=True)),
        frequencies=content[at : at + count],
        norms=content[at + count : at + 2 * count],
        codes=memoryview(content)[at + 2 * count :],
        largest=head["largest"],
        model=head["model"],
    )
