"""Is it the same question? How alike two texts are, what they agree in, what speaks against. Pure.

`scores` compares a text with earlier ones: rarity-weighted words, character bigrams and a fuzzy
ratio over normalised text, by fixed weights. `judge` adds what is known besides the text.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from chalicelib.ports import Comparison, Match, Scorer
from chalicelib.schema import Question
from chalicelib.text import fold, normalise, numbers, tokens

#: Above it a message belongs to the earlier question's ticket.
JOIN_THRESHOLD = 0.30
#: Above it, with no veto, it is the same question: nearly the same words.
ANSWER_THRESHOLD = 0.85

#: A word used once in this many words weighs a half.
_HALF_WEIGHT = 3e-4
_PARTS = {"words": 0.5, "bigrams": 0.2, "fuzzy": 0.3}


@cache
def _rarity() -> dict[str, float]:
    """{word or character: weight from 0 to 1}; what is not in it is rare and weighs one."""
    table = json.loads(Path(__file__).with_name("rarity.json").read_text(encoding="utf-8"))
    return {w: _HALF_WEIGHT / (_HALF_WEIGHT + 10 ** (z / 100 - 9)) for w, z in table.items()}


@dataclass(frozen=True)
class Prepared:
    """A text, ready to be compared."""

    normalised: str
    weights: dict[str, float]
    norm: float
    bigrams: Counter[str]


def prepare(text: str) -> Prepared:
    """What comparing needs of a text, computed once."""
    normalised = normalise(text)
    rarity = _rarity()
    counts = Counter(tokens(normalised))
    weights = {t: rarity.get(t, 1.0) * math.sqrt(n) for t, n in counts.items()}
    dense = normalised.replace(" ", "")
    return Prepared(
        normalised=normalised,
        weights=weights,
        norm=math.sqrt(sum(w * w for w in weights.values())),
        bigrams=Counter(dense[i : i + 2] for i in range(len(dense) - 1)),
    )


def scores(new: str, earlier: Sequence[str]) -> list[float]:
    """How alike each earlier text is to the new one, 0 to 1."""
    prepared = prepare(new)
    return [similarity(prepared, prepare(text)) for text in earlier]


def similarity(a: Prepared, b: Prepared) -> float:
    """0 to 1; 1 for texts that are equal once normalised."""
    if not a.weights or not b.weights:
        return 0.0
    if a.normalised == b.normalised:
        return 1.0
    parts = {"words": _cosine(a, b), "bigrams": _dice(a, b), "fuzzy": _fuzzy(a, b)}
    return sum(_PARTS[name] * value for name, value in parts.items())


def _cosine(a: Prepared, b: Prepared) -> float:
    shared = a.weights.keys() & b.weights.keys()
    return sum(a.weights[t] * b.weights[t] for t in shared) / (a.norm * b.norm)


def _dice(a: Prepared, b: Prepared) -> float:
    total = a.bigrams.total() + b.bigrams.total()
    return 2 * (a.bigrams & b.bigrams).total() / total if total else 0.0


def _fuzzy(a: Prepared, b: Prepared) -> float:
    from rapidfuzz.fuzz import ratio, token_set_ratio

    return (ratio(a.normalised, b.normalised) + token_set_ratio(a.normalised, b.normalised)) / 200


# Vetoes: alike enough, and still not the same question. They stop the answer, not the joining.

_NEGATIONS = re.compile(
    r"\b(?:not|no|never|without|can't|don't|doesn't|didn't|isn't|wasn't|won't|haven't|unable)\b"
    r"|不|没|沒|无|未|别"
)
_OPPOSITES = (
    ("cancel", "confirm"), ("open", "close"), ("enable", "disable"), ("increase", "decrease"),
    ("before", "after"), ("add", "remove"), ("upgrade", "downgrade"), ("start", "stop"),
    ("activate", "deactivate"), ("import", "export"), ("buy", "sell"), ("first", "last"),
    ("开通", "取消"), ("打开", "关闭"), ("退货", "换货"), ("买", "卖"), ("增加", "减少"),
    ("升级", "降级"), ("之前", "之后"), ("开启", "关闭"), ("充值", "提现"), ("收到", "发出"),
)  # fmt: skip
_STEPS = {
    "cancel": ("cancel", "取消", "撤销", "不要了"),
    "return": ("return", "refund", "send back", "退货", "退款", "退回"),
    "change": ("change", "modify", "update", "switch", "改", "换", "变更"),
    "status": (
        *("where is", "where's", "status", "when will", "track"),
        *("到哪", "进度", "什么时候", "何时"),
    ),
}  # fmt: skip


def veto(new: str, earlier: str) -> str | None:
    """Why two texts that are alike do not ask the same, in an agent's words; None if nothing."""
    ours, theirs = numbers(new), numbers(earlier)
    if ours != theirs and (ours and theirs):
        return "another number or date"
    a, b = fold(new), fold(earlier)
    if len(_NEGATIONS.findall(a)) % 2 != len(_NEGATIONS.findall(b)) % 2:
        return "a negation on one side"
    for one, other in _OPPOSITES:
        if (_only(a, b, one) and _only(b, a, other)) or (_only(a, b, other) and _only(b, a, one)):
            return f"opposites: {one} / {other}"
    if _steps(a) != _steps(b):
        return "another step of the same matter"
    return None


def _only(a: str, b: str, word: str) -> bool:
    return word in a and word not in b


def _steps(text: str) -> frozenset[str]:
    return frozenset(s for s, words in _STEPS.items() if any(w in text for w in words))


# The shipped scorer


class Shipped(Scorer):
    """Needs no network; its preparation is the normalised text."""

    name = "shipped-1"

    def prepare(self, text: str) -> str:
        return normalise(text)

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        found = scores(text, [q.text for q in questions])
        return Comparison(
            matches=[
                Match(score=score, veto=veto(text, q.text))
                for score, q in zip(found, questions, strict=True)
            ],
            scorer=self.name,
            join_threshold=JOIN_THRESHOLD,
            answer_threshold=ANSWER_THRESHOLD,
        )


SHIPPED = Shipped()
