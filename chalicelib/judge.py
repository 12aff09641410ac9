"""What a message is to what its sender asked before: the verdict, and its reason. Pure.

The scorer says how alike two texts are; here is added what is known besides: threads, time, nature,
what agents and customers said about earlier verdicts, the owner's policy.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chalicelib.chatter import is_chatter, is_number, is_only_unhelpful, says_unhelpful
from chalicelib.policy import Mode, Policy, RepeatPolicy
from chalicelib.ports import Comparison, Match, Opinion
from chalicelib.schema import (
    Channel,
    Conversation,
    Doubt,
    Kind,
    Message,
    Outcome,
    Participant,
    Question,
    Verdict,
)
from chalicelib.text import fold, numbers

Compare = Callable[[str, Sequence[Question]], Comparison]
#: Whether two texts ask the same; None where nobody can tell now.
SecondOpinion = Callable[[str, Question], Opinion | None]

#: An order or tracking number has at least so many digits and letters.
_ID_CHARACTERS = 6
#: The same order number on both sides, or asked a day ago and still open: so much less of a score
#: is enough to join.
_SHARED_ID, _RECENT = 0.6, 0.9
_RECENT_FOR = timedelta(hours=24)

#: How long after an automatic answer a customer's "that did not help" means that one.
_TOLD_FOR = timedelta(hours=48)


def is_question(message: Message) -> bool:
    """Whether it can stand alone; not thanks, hello?, a bare number, a picture without words.

    Neither that an answer did or did not help: those are words about an earlier question.
    """
    if message.kind in (Kind.UNSUPPORTED, Kind.LOCATION):
        return False
    words = message.words
    bare = is_chatter(words) or is_number(words) or is_only_unhelpful(words)
    return bool(fold(words).strip()) and not bare


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a message besides its words."""

    #: The address under which the sender is known.
    sender: str
    #: The conversation that it answers by its headers, wherever that belongs.
    thread: str | None
    now: datetime


@dataclass(frozen=True)
class _Candidate:
    """An earlier question, how it compares, and what holds for its category."""

    conversation: Conversation
    question: Question
    policy: RepeatPolicy
    match: Match


def judge(
    message: Message,
    conversations: Sequence[Conversation],
    known: Known,
    *,
    policy: Policy,
    compare: Compare,
    second_opinion: SecondOpinion | None = None,
) -> Verdict:
    """What a message is to the contact's latest conversations. Raises what `compare` raises."""
    now = known.now
    if message.kind is Kind.EVENT:
        return Verdict(outcome=Outcome.IGNORED, rule="event", reason="an event opens no ticket")
    verdict = (
        _by_what_helped(message, conversations, known)
        or _by_thread(conversations, known.thread)
        or _by_nature(message, conversations, policy.repeats, now)
        or _by_score(message, conversations, policy, now, compare, second_opinion)
    )
    observed = None
    if verdict and verdict.mode == Mode.OBSERVE:
        observed, verdict = verdict, None
    verdict = verdict or _by_time(message, conversations, known.sender, policy.repeats, now)
    verdict = verdict or Verdict(
        outcome=Outcome.NEW, rule="none", reason="no earlier question of this contact is like it"
    )
    if observed:
        verdict = verdict.model_copy(
            update={
                "would_be": observed.outcome,
                "score": observed.score,
                "scorer": observed.scorer,
                "evidence": observed.evidence,
                "opinion": observed.opinion,
                "closest_conversation_id": verdict.closest_conversation_id
                or observed.closest_conversation_id,
                "closest_message_id": observed.closest_message_id,
                "veto": observed.veto,
                "reason": f"{verdict.reason} (observing only: {observed.reason})",
            }
        )
    mode = observed.mode if observed else verdict.mode
    own = mode if verdict.rule == "score" or observed else policy.repeats.mode.value
    return verdict.model_copy(update={"mode": own})


def _by_what_helped(
    message: Message, conversations: Sequence[Conversation], known: Known
) -> Verdict | None:
    """That the answer which AskOnce gave to this address did not help.

    By mail, whatever answers that mail and is more than thanks says so.
    """
    since = known.now - _TOLD_FOR
    heard = [
        (c.told, c.id)
        for c in conversations
        if c.told and c.told.address == known.sender and c.told.at >= since
    ]
    if not heard or message.automatic:
        return None
    told, conversation_id = max(heard, key=lambda pair: pair[0].at)
    by_mail = message.channel is Channel.EMAIL and known.thread == conversation_id
    says_so = says_unhelpful(message.words, told.word) or (by_mail and not says_nothing(message))
    if not says_so or known.thread not in (None, conversation_id):
        return None
    return Verdict(
        outcome=Outcome.FOLLOW_UP,
        rule="unhelpful",
        reason=f"the answer that AskOnce gave again, {told.at:%Y-%m-%d %H:%M} UTC, did not help",
        closest_conversation_id=conversation_id,
        closest_message_id=told.message_id,
        told_at=told.at,
    )


def says_nothing(message: Message) -> bool:
    """Thanks, ok, "that helped": nobody must do anything about it."""
    bare = message.kind is Kind.TEXT and not message.attachments
    return bare and (not fold(message.words).strip() or is_chatter(message.words))


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


def _by_score(  # everything that is known goes in here
    message: Message,
    conversations: Sequence[Conversation],
    policy: Policy,
    now: datetime,
    compare: Compare,
    second_opinion: SecondOpinion | None,
) -> Verdict | None:
    """The closest earlier question, if it is close enough and nobody said that it is another."""
    if not message.words.strip():
        return None
    asked = [
        (c, q, own)
        for c in conversations
        if (own := policy.repeats_of(c.category)).mode is not Mode.OFF
        for q in c.questions
        if _within_horizon(c, q, own, now)
    ]
    if not asked:
        return None
    found = compare(message.words, [q for _, q, _ in asked])
    candidates = [
        _Candidate(c, q, own, match)
        for (c, q, own), match in zip(asked, found.matches, strict=True)
    ]
    for candidate in sorted(candidates, key=lambda c: c.match.score, reverse=True):
        if candidate.match.score < _join_threshold(candidate, found, message, now):
            continue
        if not _set_apart(candidate, message, compare):
            return _verdict_of(candidate, found, message, second_opinion)
    return None


def _verdict_of(
    candidate: _Candidate,
    found: Comparison,
    message: Message,
    second_opinion: SecondOpinion | None,
) -> Verdict:
    match, question = candidate.match, candidate.question
    stop = match.veto or _unhelpful(question)
    own = candidate.policy.answer_threshold
    same = match.score >= (found.answer_threshold if own is None else own) and stop is None
    opinion = None
    if not same and stop is None and second_opinion:
        opinion = second_opinion(message.words, question)
        same = opinion is not None and opinion.same
    return Verdict(
        outcome=Outcome.REPEAT if same else Outcome.RELATED,
        rule="score",
        reason=_why(candidate, found, same=same, stop=stop, opinion=opinion),
        score=round(match.score, 3),
        closest_conversation_id=candidate.conversation.id,
        closest_message_id=question.message_id,
        veto=stop,
        evidence=match.agreed,
        scorer=found.scorer,
        opinion=opinion.reason if opinion else None,
        mode=candidate.policy.mode.value,
    )


def _join_threshold(
    candidate: _Candidate, found: Comparison, message: Message, now: datetime
) -> float:
    """What it takes to join: less where more than the words speaks for it."""
    own = candidate.policy.join_threshold
    threshold = found.join_threshold if own is None else own
    if _ids(message.words) & _ids(candidate.question.text):
        return threshold * _SHARED_ID
    is_open = candidate.question.answer is None
    if is_open and now - candidate.question.asked_at <= _RECENT_FOR:
        return threshold * _RECENT
    return threshold


def _ids(text: str) -> frozenset[str]:
    return frozenset(n for n in numbers(text) if len(n) >= _ID_CHARACTERS)


def _set_apart(candidate: _Candidate, message: Message, compare: Compare) -> bool:
    """Whether somebody said that nearly these words are another question than that one.

    Words that are closer to the question itself than to what was set apart from it still ask it.
    """
    apart = [d for d in candidate.question.doubts if d.kind == "apart"]
    if not apart:
        return False
    found = compare(message.words, [_as_question(d) for d in apart])
    enough = max(found.answer_threshold, candidate.match.score)
    return any(m.score >= enough and not m.veto for m in found.matches)


def _as_question(doubt: Doubt) -> Question:
    return Question.model_construct(text=doubt.text, message_id=doubt.message_id, prepared={})


def _unhelpful(question: Question) -> str | None:
    """That the answer failed once: until an agent gives another one, it is not given again."""
    failed = question.unhelpful
    return "the earlier answer did not help when it was given again" if failed else None


def _within_horizon(
    conversation: Conversation, question: Question, policy: RepeatPolicy, now: datetime
) -> bool:
    """An answer may be given again for a while; an open question is the same matter for less."""
    if question.answer:
        return now - question.answer.at <= timedelta(days=policy.answered_days)
    return now - conversation.last_active_at <= timedelta(days=policy.open_days)


def _why(
    candidate: _Candidate,
    found: Comparison,
    *,
    same: bool,
    stop: str | None,
    opinion: Opinion | None,
) -> str:
    closest, score = candidate.question, candidate.match.score
    participants = candidate.conversation.participants
    asked = next((p for p in participants if p.sender == closest.asked_by), None)
    on = asked.channel if asked else "another channel"
    where = f"on {on}, {closest.asked_at:%Y-%m-%d %H:%M} UTC"
    if same:
        in_words = "in other words" if opinion else "in nearly the same words"
        why = f"asked before, {where}, {in_words} (score {score:.2f})"
    elif stop:
        why = f"close to what was asked {where} (score {score:.2f}), but {stop}"
    else:
        why = f"about what was asked {where} (score {score:.2f})"
    if opinion:
        why += f"; second opinion: {opinion.reason}"
    return f"{why}; {found.remark}" if found.remark else why


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
