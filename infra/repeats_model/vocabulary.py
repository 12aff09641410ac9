"""Which words the table holds, Chinese and English, and how often each is used."""

import re
from dataclasses import dataclass

from chalicelib.text import fold

#: English words, and Chinese words and characters: the most used ones.
ENGLISH, CHINESE = 20_000, 40_000
_ENGLISH_WORD = re.compile(r"[a-z][a-z']*")
_CHINESE_WORD = re.compile(r"[\u3400-\u9fff]{1,5}")
_RAREST = 1e-8


@dataclass(frozen=True)
class Vocabulary:
    """Words, most used first within each language, and the share that each has of all words."""

    words: list[str]
    shares: list[float]


def vocabulary() -> Vocabulary:
    """From wordfreq's lists, Chinese in simplified characters, kept where jieba knows the word."""
    from wordfreq import top_n_list, word_frequency

    known = _known_to_jieba()
    english = [w for w in top_n_list("en", 60_000, wordlist="large") if _ENGLISH_WORD.fullmatch(w)]
    chinese: dict[str, float] = {}
    for word in top_n_list("zh", 120_000, wordlist="large"):
        simplified = fold(word).strip()
        if _CHINESE_WORD.fullmatch(simplified):
            share = word_frequency(word, "zh")
            if len(simplified) == 1 or simplified in known or share > 3e-7:
                chinese.setdefault(simplified, share)
    shares = {w: word_frequency(w, "en") for w in english[:ENGLISH]}
    shares |= dict(list(chinese.items())[:CHINESE])
    return Vocabulary(list(shares), [max(p, _RAREST) for p in shares.values()])


def _known_to_jieba() -> frozenset[str]:
    from pathlib import Path

    import jieba

    lines = (Path(jieba.__file__).parent / "dict.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line.split(" ", 1)[0] for line in lines)
