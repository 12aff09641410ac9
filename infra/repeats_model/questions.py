"""Questions written for this: each with light and reworded repeats, near misses, follow-ups. CC0.

    # domain / matter
    Q: the question            L: with small edits       R: in other words
    X: in the other language   N [why]: a near miss      F: a follow-up line

They are ours, and none of what the scorer is measured with (../shared/data/repeats) is among them.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).with_name("questions")
_LINE = re.compile(r"([QLRXNF])(?: \[[^\]]+\])?: (\S.*)")
#: Unrelated questions that each group is paired with: a threshold at one in a thousand needs many.
_OTHERS = 96


@dataclass
class Group:
    """One question, by the letter of its lines."""

    source: str
    lines: dict[str, list[str]] = field(default_factory=lambda: {k: [] for k in "QLRXNF"})

    @property
    def repeats(self) -> list[tuple[str, str]]:
        """(letter, text) of all that ask the same, the question itself first."""
        return [(letter, text) for letter in "QLRX" for text in self.lines[letter]]


@dataclass(frozen=True)
class Pair:
    """Two texts, and what the one is to the other: a letter, V for noise, O for unrelated."""

    new: str
    earlier: str
    kind: str


def groups() -> list[Group]:
    """All of them, in a fixed and well mixed order."""
    found = [group for path in sorted(FOLDER.glob("*.txt")) for group in _read(path)]
    random.Random(1).shuffle(found)  # noqa: S311  # no secret
    return found


def _read(path: Path) -> Iterator[Group]:
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        group = Group(path.stem)
        for line in block.splitlines()[1:]:
            if match := _LINE.match(line):
                group.lines[match[1]].append(match[2].replace("\\n", "\n"))
        if group.lines["Q"] and group.lines["R"]:
            yield group


def pairs(found: Sequence[Group], seed: int) -> Iterator[Pair]:
    """What the weights are learnt from."""
    rng = random.Random(seed)  # noqa: S311  # no secret
    for group in found:
        question, reworded = group.lines["Q"][0], group.lines["R"]
        yield from (Pair(text, question, letter) for letter, text in group.repeats[1:])
        yield from (Pair(noisy(question, rng), question, "V") for _ in range(2))
        yield from (
            Pair(one, two, "R") for one, two in zip(reworded[::2], reworded[1:], strict=False)
        )
        yield from (Pair(text, question, "N") for text in group.lines["N"])
        yield from (Pair(text, question, "F") for text in group.lines["F"][:1])
        alike = [g for g in found if g.source == group.source and g is not group]
        for other in rng.choices(alike, k=_OTHERS):
            own = [text for letter, text in group.repeats if letter != "X"]
            yield Pair(rng.choice(own), rng.choice([other.lines["Q"][0], *other.lines["R"]]), "O")


# What channels do to a text

_CONFUSED = {"的": "得", "在": "再", "那": "哪", "订": "定", "账": "帐", "像": "象", "和": "合"}
_CONFUSED |= {"元": "员", "以": "已", "坐": "座"}
_ZH = (
    ("您好，\n\n", "客服您好：\n", "尊敬的客服：\n\n", "请问", "麻烦问一下，", "亲 "),
    (
        *("\n\n谢谢！\n李明", "\n\n祝好\n王芳", "\n发自我的 iPhone", "[微笑]", "🙏"),
        *("\n\n此致\n敬礼\n赵磊", "\n\n在2025年5月1日 09:12，客服 写道：\n> 您好，已收到"),
    ),
)
_EN = (
    ("Hi,\n", "Hello,\n\n", "Dear Sir or Madam,\n\n", "Good morning,\n", "hey ", "please, "),
    (
        *("\n\nThanks\nAnna", "\n\nKind regards\nTom Reed", "\n\nSent from my iPhone", " thanks!"),
        *(" 🙏", "\n\nOn Tue, 3 Jun 2025 at 10:00, Help <help@shop.example> wrote:\n> Got it"),
    ),
)


def noisy(text: str, rng: random.Random) -> str:
    """The same words as another channel brings them: greeting, signature, slips of the hand."""
    chinese = bool(re.search("[\u3400-\u9fff]", text))
    if rng.random() < 0.4:
        text = re.sub(r"[,.!?，。！？、;；]+", " ", text)
    if rng.random() < 0.4:
        text = text.lower()
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        text = _slip(text, rng, chinese=chinese)
    before, after = _ZH if chinese else _EN
    if rng.random() < 0.5:
        text = rng.choice(before) + text
    return text + rng.choice(after) if rng.random() < 0.5 else text


def _slip(text: str, rng: random.Random, *, chinese: bool) -> str:
    confusable = [n for n, c in enumerate(text) if c in _CONFUSED]
    if chinese and confusable:
        at = rng.choice(confusable)
        return text[:at] + _CONFUSED[text[at]] + text[at + 1 :]
    at = rng.randrange(len(text))
    if not text[at].isalpha() or at + 1 >= len(text):
        return text
    return text[:at] + rng.choice(("", text[at + 1] + text[at])) + text[at + 1 :]
