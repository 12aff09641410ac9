"""Is it the same question? Scores, vetoes, and the verdict that both lead to. Pure.

`scores` compares a text with earlier ones: rarity-weighted words, character bigrams and a fuzzy
ratio over normalised text, by fixed weights. `judge` adds what is known besides the text.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from chalicelib.policy import Mode, RepeatPolicy
from chalicelib.schema import Conversation, Kind, Message, Outcome, Participant, Question, Verdict
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


# The verdict

_CHATTER = re.compile(
    r"(?:thanks?(?: you)?(?: (?:so|very) much)?|thx|ty|ok(?:ay)?|k|yes|no|yep|nope|sure|great|good"
    r"|fine|perfect|cool|got it|hello|hi|hey|anyone(?: there)?|are you there|any (?:news|update)s?"
    r"|still waiting|never ?mind|bye|please|asap|hurry(?: up)?"
    r"|谢谢(?:你|您|啦|了)?|多谢|感谢|好的?|好吧|嗯+|哦+|行|可以|是的?|不是|对|没有|有|知道了|明白了?"
    r"|收到|你好|您好|在吗|在不在|有人吗|人呢|喂|亲|快点|急|还在吗|稍等|再见|拜拜|辛苦了?|麻烦了?|没事了?|算了)"
)
_ONLY_CHATTER = re.compile(rf"(?:{_CHATTER.pattern}[\s\W]*)+")
_ONLY_NUMBER = re.compile(
    r"(?:[\w\s]{0,20}?(?:is|no|number|#|是|号|：|:)\s*)?[a-z]{0,4}[-\s]?\d[\d\s-]{3,}\W*"
)


def is_question(message: Message) -> bool:
    """Whether it can stand alone; not thanks, hello?, a bare number, a picture without words."""
    if message.kind in (Kind.UNSUPPORTED, Kind.LOCATION):
        return False
    text = fold(message.words).strip()
    return bool(text) and not _ONLY_CHATTER.fullmatch(text) and not _ONLY_NUMBER.fullmatch(text)


def judge(
    message: Message,
    conversations: Sequence[Conversation],
    *,
    sender: str,
    thread: str | None,
    policy: RepeatPolicy,
    now: datetime,
) -> Verdict:
    """What a message is to the contact's latest conversations. Never raises.

    `sender` is the address under which the sender is known; `thread` is the conversation that the
    message answers by its headers, wherever it belongs.
    """
    if message.kind is Kind.EVENT:
        return Verdict(outcome=Outcome.IGNORED, rule="event", reason="an event opens no ticket")
    verdict = (
        _by_thread(conversations, thread)
        or _by_nature(message, conversations, policy, now)
        or _by_score(message, conversations, policy, now)
    )
    observed = None
    if verdict and policy.mode is Mode.OBSERVE and verdict.rule == "score":
        observed, verdict = verdict, None
    verdict = verdict or _by_time(message, conversations, sender, policy, now)
    verdict = verdict or Verdict(
        outcome=Outcome.NEW, rule="none", reason="no earlier question of this contact is like it"
    )
    if observed:
        verdict = verdict.model_copy(
            update={
                "would_be": observed.outcome,
                "score": observed.score,
                "reason": f"{verdict.reason} (observing only: {observed.reason})",
            }
        )
    return verdict.model_copy(update={"mode": policy.mode.value})


def _by_thread(conversations: Sequence[Conversation], thread: str | None) -> Verdict | None:
    if not thread or all(c.id != thread for c in conversations):
        return None  # a thread that is not the sender's proves nothing
    return Verdict(
        outcome=Outcome.FOLLOW_UP,
        rule="thread",
        reason="it answers a message of this conversation",
        closest_conversation_id=thread,
    )


def _by_nature(
    message: Message, conversations: Sequence[Conversation], policy: RepeatPolicy, now: datetime
) -> Verdict | None:
    active = now - timedelta(hours=policy.active_hours)
    latest = max(conversations, key=lambda c: c.last_active_at, default=None)
    if is_question(message) or not latest or latest.last_active_at < active:
        return None
    return Verdict(
        outcome=Outcome.FOLLOW_UP,
        rule="nature",
        reason="it cannot stand alone, and this conversation is going on",
        closest_conversation_id=latest.id,
    )


def _by_score(
    message: Message, conversations: Sequence[Conversation], policy: RepeatPolicy, now: datetime
) -> Verdict | None:
    candidates = [
        (c, q) for c in conversations for q in c.questions if _within_horizon(c, q, policy, now)
    ]
    if policy.mode is Mode.OFF or not candidates or not message.words.strip():
        return None
    found = scores(message.words, [q.text for _, q in candidates])
    score, (conversation, closest) = max(
        zip(found, candidates, strict=True), key=lambda pair: pair[0]
    )
    if score < _threshold(policy.join_threshold, JOIN_THRESHOLD):
        return None
    stop = veto(message.words, closest.text)
    same = score >= _threshold(policy.answer_threshold, ANSWER_THRESHOLD) and stop is None
    return Verdict(
        outcome=Outcome.REPEAT if same else Outcome.RELATED,
        rule="score",
        reason=_why(score, conversation, closest, same=same, stop=stop),
        score=round(score, 3),
        closest_conversation_id=conversation.id,
        closest_message_id=closest.message_id,
        veto=stop,
    )


def _threshold(own: float | None, shipped: float) -> float:
    return shipped if own is None else own


def _within_horizon(
    conversation: Conversation, question: Question, policy: RepeatPolicy, now: datetime
) -> bool:
    """An answer may be given again for a while; an open question is the same matter for less."""
    if question.answer:
        return now - question.answer.at <= timedelta(days=policy.answered_days)
    return now - conversation.last_active_at <= timedelta(days=policy.open_days)


def _why(
    score: float, conversation: Conversation, closest: Question, *, same: bool, stop: str | None
) -> str:
    asked = next((p for p in conversation.participants if p.sender == closest.asked_by), None)
    when = f"{closest.asked_at:%Y-%m-%d %H:%M} UTC"
    on = asked.channel if asked else "another channel"
    if same:
        return f"asked before, on {on}, {when}, in nearly the same words (score {score:.2f})"
    if stop:
        return f"close to what was asked on {on}, {when} (score {score:.2f}), but {stop}"
    return f"about what was asked on {on}, {when} (score {score:.2f})"


def _same_subject(participant: Participant, message: Message) -> bool:
    """Chats have no subject; two mails with two subjects are two matters."""
    ours, theirs = (
        _RE.sub("", s.casefold()).strip() for s in (message.subject, participant.subject)
    )
    return ours == theirs


_RE = re.compile(r"^(?:\s*(?:re|fwd?|回复|答复|转发)\s*[:：])+")


def _by_time(
    message: Message,
    conversations: Sequence[Conversation],
    sender: str,
    policy: RepeatPolicy,
    now: datetime,
) -> Verdict | None:
    since = now - timedelta(minutes=policy.burst_minutes)
    for conversation in conversations:
        for participant in conversation.participants:
            same = (participant.sender, participant.inbox) == (sender, message.inbox)
            if same and participant.last_at >= since and _same_subject(participant, message):
                return Verdict(
                    outcome=Outcome.FOLLOW_UP,
                    rule="time",
                    reason="written on the same channel, moments after",
                    closest_conversation_id=conversation.id,
                )
    return None
