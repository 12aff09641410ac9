"""What would have been linked, as a page on which its owner judges, and finds what fits.

The page is one file: it fetches nothing, and computes in the browser. It holds customers' words.
"""

import base64
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from chalicelib.errors import ConfigurationError
from chalicelib.pipeline import Pipeline
from chalicelib.ports import Scorer
from chalicelib.schema import Message, Outcome
from chalicelib.shipped import SHIPPED
from infra.replay import Compared, History, Replay, Strangers, as_if_on

TEMPLATE = Path(__file__).with_name("report.html")
#: Bars of the histogram.
BINS = 50
#: To be judged for each threshold: the closest to it, and some from all over the scale.
_CLOSEST, _SPREAD = 24, 12
#: The page lists so many links, the latest first; JSON has all.
LISTED = 1000
_CHARACTERS = 600


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be reported."""

    days: int
    join_threshold: float | None = None
    answer_threshold: float | None = None
    #: Take the shipped scorer, whatever is configured.
    shipped: bool = False

    def __post_init__(self) -> None:
        low, high = self.join_threshold, self.answer_threshold
        if low is not None and high is not None and low > high:
            raise ConfigurationError(f"--threshold {low:g} is above --answer-threshold {high:g}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A question as it was compared with its contact's, and with strangers'."""

    compared: Compared
    strangers: float | None


def made(
    pipeline: Pipeline,
    asked: Asked,
    history: History,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Everything that the page shows, as JSON; all links in it. `progress` counts contacts."""
    deployment = pipeline.deployment
    scorer = SHIPPED if asked.shipped else deployment.scorer
    policy = as_if_on(deployment.document.policy, asked.join_threshold, asked.answer_threshold)
    strangers, found = Strangers(history, scorer), []
    for contact, lines in history.contacts.items():
        for compared in Replay(policy, scorer, history.questions).play(lines):
            closest = strangers.closest(contact, compared)
            found.append(Found(compared=compared, strangers=closest))
        progress(1)
    found.sort(key=lambda f: (f.compared.message.received_at, f.compared.message.id))
    thresholds = _thresholds(found, asked, pipeline, scorer)
    messages = {m.id: m for lines in history.contacts.values() for _, m in lines}
    return {
        "made_at": pipeline.clock().isoformat(),
        "days": asked.days,
        "mode": deployment.document.policy.repeats.mode.value,
        "scorer": scorer.name,
        "section": "policy.repeats" if scorer is SHIPPED else "scorer",
        **thresholds,
        **_numbers(history, found, scorer),
        "strangers": _of_strangers(found, thresholds),
        "channels": _channels(found, messages),
        "bins": _bins(found),
        "examples": _examples(found, messages, thresholds),
        "linked": [_shown(f, messages) for f in reversed(found) if f.compared.linked],
    }


def _thresholds(
    found: Sequence[Found], asked: Asked, pipeline: Pipeline, scorer: Scorer
) -> dict[str, float]:
    """Those asked for, else the policy's, else the scorer's own."""
    policy = pipeline.deployment.document.policy.repeats
    told = (f.compared.found for f in found if f.compared.found.scorer == scorer.name)
    own = next(told, None) or scorer.compare("?", [])
    join = (asked.join_threshold, policy.join_threshold, own.join_threshold)
    answer = (asked.answer_threshold, policy.answer_threshold, own.answer_threshold)
    return {
        "join_threshold": next(t for t in join if t is not None),
        "answer_threshold": next(t for t in answer if t is not None),
    }


def _numbers(history: History, found: Sequence[Found], scorer: Scorer) -> dict[str, int]:
    outcomes = Counter(f.compared.verdict.outcome for f in found)
    return {
        "contacts": len(history.contacts),
        "questions": len(history.questions),
        "compared": len(found),
        "joined": outcomes[Outcome.REPEAT] + outcomes[Outcome.RELATED],
        "answered": outcomes[Outcome.REPEAT],
        "vetoed": sum(f.compared.linked and f.compared.verdict.veto is not None for f in found),
        "replaced": sum(f.compared.found.scorer != scorer.name for f in found),
    }


def _of_strangers(found: Sequence[Found], thresholds: Mapping[str, float]) -> dict[str, int]:
    scores = [f.strangers for f in found if f.strangers is not None]
    return {
        "compared": len(scores),
        "joined": sum(score >= thresholds["join_threshold"] for score in scores),
    }


def _channels(found: Sequence[Found], messages: Mapping[str, Message]) -> list[dict[str, Any]]:
    """Links by the channel of the earlier question and of the new one; the most first."""
    joined: Counter[tuple[str, str]] = Counter()
    answered: Counter[tuple[str, str]] = Counter()
    for f in found:
        if f.compared.linked:
            earlier, _ = f.compared.closest
            pair = messages[earlier.message_id].channel.value, f.compared.message.channel.value
            joined[pair] += 1
            answered[pair] += f.compared.verdict.outcome is Outcome.REPEAT
    return [
        {"from": pair[0], "to": pair[1], "joined": count, "answered": answered[pair]}
        for pair, count in joined.most_common()
    ]


def _bins(found: Sequence[Found]) -> dict[str, list[int]]:
    """How many of the highest scores fall into each of the equal parts of 0 to 1."""
    bins: defaultdict[str, list[int]] = defaultdict(lambda: [0] * BINS)
    for f in found:
        scores = {"same": _highest(f), "different": f.strangers}
        for name, score in scores.items():
            if score is not None:
                bins[name][min(BINS - 1, int(score * BINS))] += 1
    return {name: bins[name] for name in ("same", "different")}


def _highest(f: Found) -> float:
    return max(match.score for match in f.compared.found.matches)


def _examples(
    found: Sequence[Found], messages: Mapping[str, Message], thresholds: Mapping[str, float]
) -> dict[str, list[dict[str, Any]]]:
    """What is worth judging: about joining all of them, about answering those without a veto."""
    answerable = [f for f in found if f.compared.closest[1].veto is None]
    return {
        "join": [_shown(f, messages) for f in _around(found, thresholds["join_threshold"])],
        "answer": [
            _shown(f, messages) for f in _around(answerable, thresholds["answer_threshold"])
        ],
    }


def _around(found: Sequence[Found], threshold: float) -> list[Found]:
    """The closest to a threshold, on both sides, and some at equal steps from the rest."""

    def distance(f: Found) -> float:
        return abs(f.compared.closest[1].score - threshold)

    alike = [f for f in found if f.compared.closest[1].score > 0]
    ranked = sorted(alike, key=lambda f: (distance(f), f.compared.message.id))
    close, rest = ranked[:_CLOSEST], ranked[_CLOSEST:]
    rest.sort(key=lambda f: f.compared.closest[1].score)
    step = max(1, len(rest) // _SPREAD)
    return [*close, *rest[step // 2 :: step][:_SPREAD]]


def _shown(f: Found, messages: Mapping[str, Message]) -> dict[str, Any]:
    """One pair, as it is read."""
    compared = f.compared
    earlier, match = compared.closest
    verdict = compared.verdict
    return {
        "id": f"{earlier.message_id}~{compared.message.id}",
        "score": round(match.score, 4),
        "outcome": verdict.outcome.value if compared.linked else "apart",
        "reason": verdict.reason,
        "agreed": list(match.agreed),
        "veto": match.veto,
        "earlier": _side(messages[earlier.message_id]),
        "new": _side(compared.message),
        "answered": earlier.answer is not None,
        "then": _then(compared.message),
    }


def _side(message: Message) -> dict[str, str]:
    text = message.words
    return {
        "text": text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} ...",
        "at": message.received_at.isoformat(),
        "channel": message.channel.value,
    }


def _then(message: Message) -> str:
    """What was decided when it came."""
    return message.verdict.outcome.value if message.verdict else ""


def since(pipeline: Pipeline, asked: Asked) -> datetime:
    """From when on messages are looked at."""
    return pipeline.clock() - timedelta(days=asked.days)


# The page


def page(report: Mapping[str, Any]) -> str:
    """The page, with what it shows in it; only its own script and style may run there."""
    shown = {**report, "linked": report["linked"][:LISTED], "links": len(report["linked"])}
    template = TEMPLATE.read_text(encoding="utf-8")
    [style] = re.findall(r"<style>(.*?)</style>", template, re.DOTALL)
    [script] = re.findall(r"<script>(.*?)</script>", template, re.DOTALL)
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    # "<" would let a customer's words end the element that they are in.
    content = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")
    return template.replace("__POLICY__", policy).replace("__REPORT__", content)


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def write(path: Path, content: str) -> None:
    """A file that only its owner may read, whatever was there. ConfigurationError."""
    try:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        file.write(content)
