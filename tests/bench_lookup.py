"""`make bench-repeats`, second half: is a question found among 100,000 of other customers?

The background is generated: invented products with everyday troubles, in English and Chinese, so
that nothing needs to be there but this file. Where the hand-written trials are (`TRIALS`), their
questions are hidden among the background, and looked for in other words. Every question counts as
a topic of its own, which is the worst case: shelves are fullest, and the oldest make way.
"""

import json
import random
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from chalicelib.crowd import COMPARED_TOPICS, SHELF_TOPICS, Crowd, impersonal, word_pairs
from chalicelib.ports import Write
from chalicelib.schema import Question
from chalicelib.shipped import SHIPPED
from connectors.quoting import without_history
from tests.fakes import world

QUESTIONS = 100_000
TRIALS = Path(__file__).parents[2] / "shared" / "data" / "repeats" / "trials"
_PROBES_A_KIND = 300
_KINDS = {"verbatim": "noisy verbatim", "light": "light edits", "repeat": "reworded"}

#: The same trouble in several wordings: the first is asked first, the others are rewordings.
_TROUBLES = (
    ("My {} does not switch on any more", "{} stays dead when I press the button"),
    ("The lid of my {} is broken, where do I get a spare one?", "need a new cover for the {}"),
    ("How do I clean the {}?", "what is the best way to wash my {}"),
    ("The {} leaks at the bottom", "water is coming out underneath the {}"),
    ("Is the {} dishwasher safe?", "can I put my {} into the dishwasher"),
    ("When will the {} be in stock again?", "the {} is sold out, do you get more of it?"),
    ("Which guarantee comes with the {}?", "how many years is the {} covered if it breaks"),
    ("The {} arrived in the wrong colour", "I ordered another colour of the {} than I got"),
    ("我的{}打不开机了怎么办", "{}按了开关没有任何反应"),
    ("{}的盖子坏了，哪里可以买到配件？", "想单独买一个{}的盖子"),
    ("{}应该怎么清洗？", "洗{}用什么办法比较好"),
    ("{}底部漏水", "{}下面一直有水渗出来"),
    ("{}什么时候补货？", "{}卖完了，还会再上架吗"),
    ("{}的保修期是多久？", "{}坏了几年之内可以免费修"),
    ("收到的{}颜色发错了", "我买的{}不是这个颜色"),
)
_SYLLABLES = [f"{c}{v}" for c in "bdfgklmnprstvz" for v in "aeiou"]


def product(chance: random.Random) -> str:
    """A name that no dictionary has."""
    return "".join(chance.choices(_SYLLABLES, k=3)).title()


@dataclass(frozen=True)
class Pair:
    """A question, and the same one asked by somebody else."""

    kind: str
    earlier: str
    new: str


def generated(count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Distinct questions of different customers, each with a rewording."""
    seen: set[tuple[str, str]] = set()
    while len(seen) < count:
        name, (first, other) = product(chance), chance.choice(_TROUBLES)
        if (name, first) not in seen:
            seen.add((name, first))
            yield _in_a_voice(first.format(name), chance), other.format(name)


def _in_a_voice(text: str, chance: random.Random) -> str:
    """As people begin and end: their order, their trouble, their day."""
    order = f"{chance.randrange(10**7, 10**8)}"
    english = text.isascii()
    before = ("", f"Order {order}: ", "Hello, ", "Bought it in May. ") if english else (
        "", f"订单{order}，", "你好，", "上个月买的，")  # fmt: skip
    after = ("", " Thank you!", " Please answer soon.", " It was a gift.") if english else (
        "", "谢谢", "请尽快回复", "是送人的")  # fmt: skip
    return chance.choice(before) + text + chance.choice(after)


def noisy(text: str, chance: random.Random) -> str:
    """The same words as they arrive by another channel."""
    words = list(text.lower() if chance.random() < 0.5 else text)
    if chance.random() < 0.4 and len(words) > 8:
        at = chance.randrange(1, len(words) - 2)
        words[at], words[at + 1] = words[at + 1], words[at]
    bare = "".join(words).rstrip("?？。!")
    chinese = not text.isascii()
    before = chance.choice(("", "请问", "在吗，") if chinese else ("", "hi ", "hello, "))
    return before + bare + chance.choice(("", "!!", "🙏", "？" if chinese else "??"))


def pairs(chance: random.Random) -> dict[str, list[Pair]]:
    """What is looked for, by where it comes from: mails as their connectors hand them over."""
    own = list(generated(2 * _PROBES_A_KIND, chance))
    found = {
        "generated": [
            *(Pair("verbatim", q, noisy(q, chance)) for q, _ in own[:_PROBES_A_KIND]),
            *(Pair("repeat", q, other) for q, other in own[_PROBES_A_KIND:]),
        ]
    }
    for path in sorted(TRIALS.glob("handwritten_*.jsonl")):
        lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        asked = {
            Pair(t["kind"], *map(without_history, (t["earlier"][t["gold"]], t["new"])))
            for t in lines
            if t["gold"] >= 0 and t["kind"] in _KINDS
        }
        found[path.stem.removeprefix("handwritten_")] = sorted(asked, key=lambda p: p.new)
    return found


@dataclass
class Shelves:
    """The shelves of the table, in memory."""

    _held: defaultdict[str, deque[tuple[int, str]]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=SHELF_TOPICS))
    )

    def put(self, number: int, text: str) -> None:
        bare = impersonal(text)
        for key in word_pairs(bare):
            self._held[key].append((number, bare))

    def candidates(self, text: str) -> list[tuple[int, str]]:
        """What would be compared, as `Crowd` chooses it."""
        pairs_ = word_pairs(impersonal(text))
        on = Counter(topic for key in pairs_ for topic in self._held.get(key, ()))
        return [topic for topic, _ in on.most_common(COMPARED_TOPICS)]

    @property
    def shape(self) -> str:
        sizes = [len(shelf) for shelf in self._held.values()]
        full = sum(size == SHELF_TOPICS for size in sizes)
        return f"{len(sizes):,} shelves, {sum(sizes) / len(sizes):.1f} topics each, {full} full"


@dataclass
class Tried:
    """How the questions of one kind were found."""

    count: int = 0
    candidates: int = 0
    found: int = 0
    right: int = 0
    wrong: int = 0

    def add(self, gold: int, candidates: Sequence[tuple[int, str]], chosen: int | None) -> None:
        self.count += 1
        self.candidates += len(candidates)
        self.found += gold in {number for number, _ in candidates}
        self.right += chosen == gold
        self.wrong += chosen not in (gold, None)

    def __str__(self) -> str:
        share = (f"{n / self.count:>8.1%}" for n in (self.found, self.right, self.wrong))
        return f"{self.count:>6} {self.candidates / self.count:>11.1f} " + " ".join(share)


def chosen(text: str, candidates: Sequence[tuple[int, str]]) -> int | None:
    """The topic that a question is counted under, as `Crowd` decides it by default."""
    asked = [
        Question.model_construct(text=t, message_id=str(n), prepared={}, doubts=())
        for n, t in candidates
    ]
    if not asked:
        return None
    found = SHIPPED.compare(impersonal(text), asked)
    threshold = (found.join_threshold + found.answer_threshold) / 2
    alike = [
        (match.score, number)
        for match, (number, _) in zip(found.matches, candidates, strict=True)
        if match.score >= threshold and not match.veto
    ]
    return max(alike)[1] if alike else None


def costs(texts: Iterable[str]) -> str:
    """What counting really reads and writes, on the pipeline over a table in memory."""
    w = world()
    worker = Crowd(w.pipeline.store, w.pipeline.deployment, w.clock, w.pipeline.report)
    worker.store.key("crowd")
    requests, writes = [], []
    for number, text in enumerate(texts):
        w.say("sms", f"+86138{number:08}", text)
        held = w.pipeline.resolve(w.messages()[-1].message.id)
        if held is None:
            continue
        written: list[Sequence[Write]] = []
        w.table.before_write, before = written.append, w.table.calls
        worker.count(held.noun)
        w.table.before_write = None
        requests.append(w.table.calls - before - len(written))
        writes.append(len(written))
    return (
        f"requests that read: {sum(requests) / len(requests):.1f} a message, at most "
        f"{max(requests)} (up to 6 shelves in one); items written, one by one: "
        f"{sum(writes) / len(writes):.1f}, at most {max(writes)}"
    )


def lookup_table(questions: int = QUESTIONS) -> None:
    """Print how questions are found among so many of other customers."""
    chance = random.Random(7)
    probes = pairs(chance)
    hidden = sorted({pair.earlier for of_set in probes.values() for pair in of_set})
    background = [text for text, _ in generated(max(0, questions - len(hidden)), chance)]
    texts = [*background, *hidden]
    chance.shuffle(texts)
    shelves, started = Shelves(), time.perf_counter()
    with click.progressbar(enumerate(texts), length=len(texts), file=sys.stderr) as bar:
        for number, text in bar:
            shelves.put(number, text)
    micros = (time.perf_counter() - started) / len(texts) * 1e6
    numbers = {text: number for number, text in enumerate(texts)}
    click.echo(f"Among {len(texts):,} questions of different customers: {shelves.shape};")
    click.echo(f"{micros:.0f} us to find a question's keys")
    click.echo(costs(texts[:200]))
    if len(probes) == 1:
        click.echo(f"(no trials under {TRIALS.name}: generated questions only)")
    click.echo(
        f"{'set':<14} {'asked again':<15} {'trials':>6} {'candidates':>11} "
        f"{'found':>8} {'right':>8} {'wrong':>8}"
    )
    for name, of_set in probes.items():
        tried: defaultdict[str, Tried] = defaultdict(Tried)
        for pair in of_set:
            candidates = shelves.candidates(pair.new)
            tried[pair.kind].add(numbers[pair.earlier], candidates, chosen(pair.new, candidates))
        for kind, label in _KINDS.items():
            if kind in tried:
                click.echo(f"{name:<14} {label:<15} {tried[kind]}")
    click.echo("found: among the candidates; right, wrong: counted under that or another question")


if __name__ == "__main__":
    lookup_table()
