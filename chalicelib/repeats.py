"""Is it the same question? How alike two texts are, what they agree in, what speaks against. Pure.

Two texts are measured against each other: their meaning as a whole and word by word (`lexicon`),
their rare words, letters, numbers. Two sets of weights, learnt from questions that were written for
it (`make repeats-model`), make of that how likely it is the same matter, and how likely it is the
same question. `judge` adds what is known besides the text.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from operator import add, itemgetter, mul, sub
from pathlib import Path

from chalicelib.chatter import is_chatter, is_number
from chalicelib.lexicon import COSINES, entry, half_weighed, lexicon
from chalicelib.text import joined, normalise, numbers, tokens

#: From here on a message belongs to the earlier question's ticket.
JOIN_THRESHOLD = 0.5
#: From here on, with no veto, it is the same question.
ANSWER_THRESHOLD = 0.85

#: More words than these are not read: a question has said by then what it asks.
_WORDS = 64
#: Compared with each other are the heaviest of them, and none so light: those say little.
_HEAVIEST, _LIGHT = 24, 0.1
#: A number of so many characters is an order, a tracking or a phone number.
_ID_CHARACTERS = 5


@dataclass(eq=False)
class Prepared:
    """A text, ready to be compared. What only texts about the same matter need is made for them."""

    said: tuple[str, ...]
    #: The same in one run.
    run: str
    #: Each word that counts, once, with its norm and its code.
    words: tuple[str, ...]
    norms: tuple[float, ...]
    codes: tuple[int, ...]
    #: Length of the sum of the words' vectors, and of their norms.
    length: float
    total: float
    #: How rare each word is, and the sum of the squares.
    rarities: dict[str, float]
    rarity: float
    numbers: frozenset[str]
    #: The share of its characters that are Chinese.
    chinese: float

    @cached_property
    def normalised(self) -> str:
        return joined(self.said)

    @cached_property
    def bigrams(self) -> frozenset[str]:
        return frozenset(map(add, self.run, self.run[1:]))

    @cached_property
    def negations(self) -> int:
        """How often it says no."""
        return len(_NEGATIONS.findall(self.normalised))

    @cached_property
    def steps(self) -> frozenset[str]:
        """Which steps of a matter it is about."""
        text = self.normalised
        return frozenset(s for s, words in _STEPS.items() if any(w in text for w in words))


@lru_cache(maxsize=1024)
def prepare(text: str) -> Prepared:
    """What comparing needs of a text, computed once; nothing of what asks nothing."""
    if is_chatter(text) or is_number(text):
        return _prepared((), frozenset())
    return _prepared(lexicon().words(normalise(text))[:_WORDS], numbers(text))


def _prepared(
    said: Sequence[str], numbers_: frozenset[str], length: float | None = None
) -> Prepared:
    weighed = _weighed(said)
    norms, codes = tuple(n for _, n, _ in weighed), tuple(c for _, _, c in weighed)
    rarities = {word: entry(word).rarity for word in said}
    run = "".join(said)
    return Prepared(
        said=tuple(said),
        run=run,
        words=tuple(w for w, _, _ in weighed),
        norms=norms,
        codes=codes,
        length=length or _length(norms, codes),
        total=sum(norms) or 1.0,
        rarities=rarities,
        rarity=sum(r * r for r in rarities.values()) or 1.0,
        numbers=numbers_,
        chinese=sum(map("\u3400".__lt__, run)) / max(1, len(run)),
    )


def _weighed(said: Sequence[str]) -> list[tuple[str, float, int]]:
    """The words that count, with norm and code; said n times, one counts as much as √n."""
    found = []
    for word, times in Counter(said).items():
        norm, code, _ = entry(word)
        found.append((word, norm * math.sqrt(times) if times > 1 else norm, code))
    heavy = [one for one in found if one[1] >= _LIGHT] or found
    if len(heavy) > _HEAVIEST:
        heavy = sorted(heavy, key=itemgetter(1), reverse=True)[:_HEAVIEST]
    return heavy


def stored(prepared: Prepared) -> str:
    """A preparation as text, to be kept with its question."""
    numbers_ = " ".join(sorted(prepared.numbers))
    return f"{prepared.length:.4f}\n{numbers_}\n{' '.join(prepared.said)}"


def restored(text: str) -> Prepared:
    """The preparation that `stored` wrote. ValueError."""
    length, numbers_, said = text.split("\n")
    return _prepared(said.split(), frozenset(numbers_.split()), float(length))


def _length(norms: Sequence[float], codes: Sequence[int]) -> float:
    return math.sqrt(max(1e-9, _product(norms, _cosines(codes, codes), norms)))


def rarest(text: str, count: int) -> list[str]:
    """The rarest words and characters of a text, rarest first, each once."""
    rarity = _rarity()
    found = set(tokens(normalise(text)))
    return sorted(found, key=lambda token: (-rarity.get(token, 1.0), token))[:count]


@cache
def _rarity() -> dict[str, float]:
    """{word or character: weight from 0 to 1}; what is not in it is rare and weighs one."""
    table = json.loads(Path(__file__).with_name("rarity.json").read_text(encoding="utf-8"))
    return {w: half_weighed(10 ** (z / 100 - 9)) for w, z in table.items()}


def scores(new: str, earlier: Sequence[str]) -> list[float]:
    """How alike each earlier text is to the new one, 0 to 1, vetoes included."""
    ours = prepare(new)
    return [_capped(ours, theirs) for theirs in map(prepare, earlier)]


def _capped(a: Prepared, b: Prepared) -> float:
    """How alike they are; too little for an answer, where something speaks against it."""
    score, most = similarity(a, b), ANSWER_THRESHOLD - 0.01
    return most if score > most and stops(a, b) else score


def similarity(a: Prepared, b: Prepared) -> float:
    """0 to 1, vetoes left out; 1 for texts that are equal once normalised."""
    if not a.words or not b.words:
        return 0.0
    if a.run == b.run and a.normalised == b.normalised:
        return 1.0
    cosines, model = _cosines(a.codes, b.codes), lexicon().model
    part = _of_matter(a, b, cosines)
    matter = _logit(model["matter"], part)
    if matter < 0:  # as with most candidates
        return JOIN_THRESHOLD * 2 * _logistic(matter)
    same = _logit(model["same"], _completed(a, b, cosines, part))
    if same < 0:
        return JOIN_THRESHOLD + (ANSWER_THRESHOLD - JOIN_THRESHOLD) * (2 * _logistic(matter) - 1)
    return ANSWER_THRESHOLD + (0.999 - ANSWER_THRESHOLD) * (2 * _logistic(same) - 1)


def _logit(weights: list[float], measured: Sequence[float]) -> float:
    """Weights, the last of which stands alone; 0 is the threshold."""
    return sum(map(mul, weights, measured), weights[-1])


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, x))))


# Measures

#: What `measure` returns, in this order.
MEASURES = (
    *("meaning", "words_least", "words_mean", "rare", "rare_within", "letters", "letters_within"),
    *("ids", "numbers", "numbers_differ", "shorter", "longer", "languages", "chinese"),
    *("unmatched_least", "unmatched_most", "negation", "steps"),
)


#: Those that tell whether it is the same matter, and that have a weight in that. Few, since
#: letters and lengths tell how a set was made.
MATTER = (
    *("meaning", "words_least", "words_mean", "rare", "ids", "numbers", "numbers_differ"),
    *("languages", "chinese"),
)


def measure(a: Prepared, b: Prepared) -> list[float]:
    """How two texts compare, in numbers from about 0 to 1."""
    cosines = _cosines(a.codes, b.codes)
    return _completed(a, b, cosines, _of_matter(a, b, cosines))


def _of_matter(a: Prepared, b: Prepared, cosines: Sequence[Sequence[float]]) -> list[float]:
    """The same in part: 0 stands for what costs more, and is not in MATTER."""
    ours, theirs = map(max, cosines), map(max, zip(*cosines, strict=True))
    least, most = sorted(
        (sum(map(mul, ours, a.norms)) / a.total, sum(map(mul, theirs, b.norms)) / b.total)
    )
    shared = a.numbers & b.numbers
    differ = bool(a.numbers and b.numbers) * ((a.numbers != b.numbers) + (not shared))
    return [
        _product(a.norms, cosines, b.norms) / (a.length * b.length),
        least,
        (least + most) / 2,
        *_rare(a, b),
        *(0.0, 0.0),
        float(any(len(n) >= _ID_CHARACTERS for n in shared)),
        float(bool(shared)),
        float(differ),
        *(0.0, 0.0),
        abs(a.chinese - b.chinese),
        (a.chinese + b.chinese) / 2,
        *(0.0, 0.0, 0.0, 0.0),
    ]


def _completed(
    a: Prepared, b: Prepared, cosines: Sequence[Sequence[float]], part: Sequence[float]
) -> list[float]:
    """The measures in whole."""
    ours, theirs = list(map(max, cosines)), list(map(max, zip(*cosines, strict=True)))
    return [
        *part[:5],
        *_letters(a, b),
        *part[7:10],
        *sorted((math.log1p(a.total), math.log1p(b.total))),
        *part[12:14],
        *sorted((_heaviest(ours, a.norms), _heaviest(theirs, b.norms))),
        float(a.negations % 2 != b.negations % 2),
        float(a.steps != b.steps),
    ]


def _cosines(ours: Sequence[int], theirs: Sequence[int]) -> list[list[float]]:
    """Of each of our words with each of theirs."""
    table = COSINES
    return [[table[(one ^ other).bit_count()] for other in theirs] for one in ours]


def _product(
    ours: Sequence[float], cosines: Sequence[Sequence[float]], theirs: Sequence[float]
) -> float:
    """Of the sums of both sides' vectors."""
    return float(sum(map(mul, ours, [sum(map(mul, row, theirs)) for row in cosines])))


def _heaviest(best: Sequence[float], norms: Sequence[float]) -> float:
    """How much the word weighs that has the least like it on the other side."""
    return float(max(map(sub, norms, map(mul, norms, best))))


def _rare(a: Prepared, b: Prepared) -> tuple[float, float]:
    """How much the words both have weigh: of both sides, and of the shorter one."""
    both = sum(a.rarities[w] ** 2 for w in a.rarities.keys() & b.rarities.keys())
    return both / math.sqrt(a.rarity * b.rarity), both / min(a.rarity, b.rarity)


def _letters(a: Prepared, b: Prepared) -> tuple[float, float]:
    """The share of pairs of letters that both have: of both sides, and of the shorter one."""
    both = len(a.bigrams & b.bigrams)
    sizes = sorted((max(1, len(a.bigrams)), max(1, len(b.bigrams))))
    return 2 * both / sum(sizes), both / sizes[0]


# Vetoes: alike enough, and still not the same question. They stop the answer, not the joining.

_NEGATIONS = re.compile(
    r"\b(?:not|no|never|without|can't|don't|doesn't|didn't|isn't|wasn't|won't|haven't|unable)\b"
    r"|不|没|无|未|别"
)
_OPPOSITES = (
    ("cancel", "confirm"), ("open", "close"), ("enable", "disable"), ("increase", "decrease"),
    ("before", "after"), ("add", "remove"), ("upgrade", "downgrade"), ("start", "stop"),
    ("activate", "deactivate"), ("import", "export"), ("buy", "sell"), ("first", "last"),
    ("开通", "取消"), ("打开", "关闭"), ("退货", "换货"), ("买", "卖"), ("增加", "减少"),
    ("升级", "降级"), ("之前", "之后"), ("开启", "关闭"), ("充值", "提现"), ("收到", "发出"),
)  # fmt: skip
#: How rare a word is that makes another question of one.
_OF_WEIGHT = 0.6
_STEPS = {
    "cancel": ("cancel", "取消", "撤销", "不要了"),
    "return": ("return", "refund", "send back", "退货", "退款", "退回"),
    "change": ("change", "modify", "update", "switch", "改", "换", "变更"),
    "status": (  # as `normalise` writes them: 那 for 哪
        *("where is", "where's", "status", "when will", "track"),
        *("到那", "进度", "什么时候", "何时"),
    ),
}  # fmt: skip


def veto(new: str, earlier: str) -> str | None:
    """Why two texts that are alike do not ask the same, in an agent's words; None if nothing."""
    return stops(prepare(new), prepare(earlier))


def stops(a: Prepared, b: Prepared) -> str | None:
    """The same of two that are prepared."""
    if a.numbers and b.numbers and a.numbers != b.numbers:
        return "another number or date"
    if a.negations % 2 != b.negations % 2:
        return "a negation on one side"
    for one, other in _OPPOSITES:
        x, y = a.normalised, b.normalised
        if (_only(x, y, one) and _only(y, x, other)) or (_only(x, y, other) and _only(y, x, one)):
            return f"opposites: {one} / {other}"
    if a.steps != b.steps:
        return "another step of the same matter"
    return _another_order(a, b) or _another_thing(a, b) or _another_kind(a, b)


def _another_order(a: Prepared, b: Prepared) -> str | None:
    """The same words with two of them exchanged, as who pays whom, or from where to where."""
    if len(a.said) != len(b.said):
        return None
    apart = [pair for pair in zip(a.said, b.said, strict=True) if pair[0] != pair[1]]
    if len(apart) == 2 and apart[0] == apart[1][::-1]:
        return f"exchanged: {apart[0][0]} / {apart[0][1]}"
    return None


def _another_thing(a: Prepared, b: Prepared) -> str | None:
    """One word of weight has another in its place, and all the rest is equal.

    Not where it may be the same word, misspelt or cut short: those begin alike, or share a sign.
    """
    ours, theirs = _without_what_both_have(a.said, b.said)
    if len(ours) != 1 or len(theirs) != 1:
        return None
    (one,), (other,) = ours, theirs
    known = min(len(one), len(other)) > 1 and one in lexicon().places and other in lexicon().places
    if not known or min(entry(one).rarity, entry(other).rarity) < _OF_WEIGHT:
        return None
    same = set(one) & set(other) if one[0] > "\u3400" else one[0] == other[0]
    return None if same else f"another thing: {one} / {other}"


def _without_what_both_have(
    ours: Sequence[str], theirs: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Both without the words that they begin and end with in common."""
    start = 0
    while start < min(len(ours), len(theirs)) and ours[start] == theirs[start]:
        start += 1
    end = 0
    most = min(len(ours), len(theirs)) - start
    while end < most and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    return ours[start : len(ours) - end], theirs[start : len(theirs) - end]


def _another_kind(a: Prepared, b: Prepared) -> str | None:
    """Two Chinese words of one kind, as 红茶 and 绿茶: their last character names that."""
    ours, theirs = ([w for w in p.words if len(w) > 1 and w[0] > "\u3400"] for p in (a, b))
    for one in ours:
        for other in theirs:
            alike = one[-1] == other[-1] and one[0] != other[0] and len(one) == len(other)
            if (
                alike
                and _only(a.normalised, b.normalised, one)
                and _only(b.normalised, a.normalised, other)
            ):
                return f"another thing: {one} / {other}"
    return None


def _only(a: str, b: str, word: str) -> bool:
    return word in a and word not in b


# What agrees, for agents

#: Words of like meaning are named from this cosine on; common words and more than so many are not.
_ALIKE, _TELLING, _NAMED = 0.55, 0.4, 5


def agreed(a: Prepared, b: Prepared) -> tuple[str, ...]:
    """What both say, the weightiest first: numbers, words, and words of like meaning."""
    found = [(2.0, f"number {n}") for n in sorted(a.numbers & b.numbers)]
    cosines = _cosines(a.codes, b.codes)
    for word, norm, row in zip(a.words, a.norms, cosines, strict=True):
        cosine, at = max((c, n) for n, c in enumerate(row)) if row else (0.0, 0)
        telling = entry(word).rarity >= _TELLING and not word[0].isdigit()
        if telling and cosine >= _ALIKE:
            theirs = b.words[at]
            found.append((norm * cosine, word if word == theirs else f"{word} / {theirs}"))
    return tuple(what for _, what in sorted(found, reverse=True)[:_NAMED])
