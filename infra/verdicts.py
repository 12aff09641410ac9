"""What was decided about messages, in words: `askonce repeats list|show|explain|undo`."""

import json
from collections.abc import Iterator
from datetime import timedelta

from chalicelib.corrections import Corrections
from chalicelib.errors import ConfigurationError, NotFoundError, RetryableError
from chalicelib.pipeline import Pipeline
from chalicelib.ports import Match
from chalicelib.schema import Conversation, Message, Question, Verdict

#: How far back a reference is looked for.
_REFERENCE_DAYS = 400
_NEAREST = 5
_SHORT = 70

#: In the order in which they are asked; the first that applies decides.
_RULES = {
    "unhelpful": "does it say that AskOnce's own answer did not help?",
    "thread": "does it answer a message of a conversation of the same person, by its headers?",
    "nature": "can it not stand alone (thanks, a bare number), while something is going on?",
    "score": "is it alike enough to one of the person's recent questions?",
    "time": "was it written on the same channel, moments after?",
    "none": "else it is a new question",
}
_ELSEWHERE = {
    "event": "an event, not a message: nothing was compared",
    "code": "a one-time code: nothing was compared",
    "undone": "somebody took it out of the conversation that the rules had put it in",
}


# Finding


def find(pipeline: Pipeline, name: str) -> Message:
    """A message by its id, or the latest repeat of a reference. ConfigurationError."""
    if name.upper().startswith("Q-"):
        name = _latest_of(pipeline, name.upper())
    held = pipeline.store.message(name)
    if held is None:
        raise ConfigurationError(
            f"there is no message {name}: `askonce repeats list` names those that asked again"
        )
    return held.noun.message


def _latest_of(pipeline: Pipeline, reference: str) -> str:
    now = pipeline.clock()
    for back in range(_REFERENCE_DAYS):
        for line in pipeline.store.recognised(now - timedelta(days=back)):
            if line.reference == reference:
                return line.message_id
    raise ConfigurationError(f"nothing was recognised as asking {reference} again")


def _verdict(message: Message) -> Verdict:
    if message.verdict is None:
        raise ConfigurationError(f"nothing has been decided about message {message.id} yet")
    return message.verdict


# list


def listed(pipeline: Pipeline, days: int, outcome: str | None, *, as_json: bool) -> Iterator[str]:
    """A line for each message that asked again lately, newest first."""
    count, now = 0, pipeline.clock()
    for back in range(days):
        for line in pipeline.store.recognised(now - timedelta(days=back)):
            held = pipeline.store.message(line.message_id)
            verdict = held.noun.message.verdict if held else None
            if held is None or verdict is None or outcome not in (None, _name(verdict)):
                continue
            count += 1
            message = held.noun.message
            yield (
                _as_json(message, verdict, line.reference)
                if as_json
                else (
                    f"{message.received_at:%Y-%m-%d %H:%M}  {message.id}  {_name(verdict):<8}  "
                    f"{_score(verdict)}  {line.reference:<11}  {message.channel.value:<7}  "
                    f"{_became(verdict)}"
                )
            )
    if not count and not as_json:
        yield f"Nothing was recognised in the last {days} day{'s' if days > 1 else ''}."


def _name(verdict: Verdict) -> str:
    if verdict.rule == "undone":
        return "undone"
    return "would_be" if verdict.would_be else verdict.outcome.value


def _score(verdict: Verdict) -> str:
    return " -  " if verdict.score is None else f"{verdict.score:.2f}"


def _became(verdict: Verdict) -> str:
    if verdict.said:
        return f"told: {(verdict.said_kind or '').replace('_', ' ')}"
    if verdict.kept_silent:
        return f"silent: {verdict.kept_silent}"
    if verdict.veto:
        return f"not answered: {verdict.veto}"
    if verdict.would_be:
        return f"observed only: {verdict.would_be.value}"
    return "proposed to the agent" if verdict.proposed else ""


def _as_json(message: Message, verdict: Verdict, reference: str) -> str:
    return json.dumps(
        {
            "message": message.id,
            "at": message.received_at.isoformat(),
            "channel": message.channel.value,
            "inbox": message.inbox,
            "outcome": _name(verdict),
            "score": verdict.score,
            "veto": verdict.veto,
            "reference": reference,
            "conversation": message.conversation_id,
            "told": verdict.said_kind,
            "kept_silent": verdict.kept_silent,
            "mode": verdict.mode,
        },
        ensure_ascii=False,
    )


# show


def shown(pipeline: Pipeline, name: str) -> Iterator[str]:
    """A message, the earlier question, and what was decided."""
    message = find(pipeline, name)
    verdict = _verdict(message)
    yield f"message {message.id}"
    yield f"  {message.received_at:%Y-%m-%d %H:%M:%S} UTC, by {message.channel.value}"
    yield f"  wrote: {_shortly(message.words)}"
    yield f"  decided: {verdict.outcome.value.replace('_', '-')}, by the rule `{verdict.rule}`"
    yield f"  because: {verdict.reason}"
    if verdict.score is not None:
        yield f"  score: {verdict.score:.3f} ({verdict.scorer or 'scorer unknown'})"
    if verdict.evidence:
        yield f"  both say: {'; '.join(verdict.evidence)}"
    yield from _told(verdict)
    for title, conversation_id in (
        ("on", message.conversation_id),
        ("closest", verdict.closest_conversation_id),
    ):
        held = pipeline.store.conversation(conversation_id) if conversation_id else None
        if held and not (title == "closest" and conversation_id == message.conversation_id):
            yield f"  {title}: {_place(held.noun)}"
    closest = _closest(pipeline, verdict)
    if closest:
        yield f"  the earlier question: {_shortly(closest.text)}"


def _told(verdict: Verdict) -> Iterator[str]:
    if verdict.said:
        way = "in the response" if verdict.said_in_response else "as a message of its own"
        kind = (verdict.said_kind or "").replace("_", " ")
        yield f"  the customer was told ({kind}, {way}):"
        yield from (f"      {line}" for line in verdict.said.splitlines())
    elif verdict.kept_silent:
        yield f"  the customer was told nothing: {verdict.kept_silent}"
    elif verdict.proposed:
        yield f"  proposed to the agent: {_shortly(verdict.proposed)}"
    else:
        yield "  the customer was told nothing: the rule and the mode ask for no words"


def _place(conversation: Conversation) -> str:
    ticket = f"ticket {conversation.ticket.id}" if conversation.ticket else "no ticket yet"
    return (
        f"{conversation.reference}, {ticket}, {conversation.state.value}, "
        f"{conversation.priority.value}, asked {conversation.asked_times}x"
    )


def _closest(pipeline: Pipeline, verdict: Verdict) -> Question | None:
    held = (
        pipeline.store.conversation(verdict.closest_conversation_id)
        if verdict.closest_conversation_id
        else None
    )
    questions = held.noun.questions if held else ()
    return next((q for q in questions if q.message_id == verdict.closest_message_id), None)


def _shortly(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}…"


# explain


def explained(pipeline: Pipeline, name: str) -> Iterator[str]:
    """Everything that went into the decision, and what would be said of it now."""
    message = find(pipeline, name)
    verdict = _verdict(message)
    yield from shown(pipeline, message.id)
    yield ""
    yield from _rules(verdict)
    yield ""
    yield from _thresholds(pipeline, verdict)
    yield ""
    yield from _nearest(pipeline, message)


def _rules(verdict: Verdict) -> Iterator[str]:
    if verdict.rule in _ELSEWHERE:
        yield f"Rules: {_ELSEWHERE[verdict.rule]}."
        return
    yield "Rules, in this order; the first that applies decides:"
    passed = True
    for rule, question in _RULES.items():
        decides = rule == verdict.rule
        mark = "->" if decides else "no" if passed else "  "
        yield f"  {mark} {rule:<9}  {question}"
        passed = passed and not decides
    if verdict.would_be:
        yield f"  observing only: it would have been `{verdict.would_be.value}` by its score"
    yield f"  mode at that time: {verdict.mode}"
    if verdict.veto:
        yield f"  veto: {verdict.veto} (it joins all the same, and is not answered)"
    if verdict.opinion:
        yield f"  second opinion: {verdict.opinion}"


def _thresholds(pipeline: Pipeline, verdict: Verdict) -> Iterator[str]:
    policy = pipeline.deployment.document.policy
    held = (
        pipeline.store.conversation(verdict.closest_conversation_id)
        if verdict.closest_conversation_id
        else None
    )
    category = held.noun.category if held else "question"
    own = policy.repeats_of(category)
    yield f"Policy now, for the category `{category}`:"
    for threshold, what in (
        (own.join_threshold, "join"),
        (own.answer_threshold, "answer"),
    ):
        yield f"  {what} threshold: {'what the scorer ships' if threshold is None else threshold}"
    yield f"  mode: {own.mode.value}"
    yield f"  an open question is the same matter for {own.open_days:g} days"
    yield f"  an answer may be given again for {own.answered_days:g} days"


def _nearest(pipeline: Pipeline, message: Message) -> Iterator[str]:
    """The person's earlier questions, compared as of now."""
    history = pipeline.store.history(message.contact_id or "")
    asked = [
        (held.noun, q)
        for held in history.conversations
        for q in held.noun.questions
        if q.message_id != message.id and q.asked_at <= message.received_at
    ]
    if not asked:
        yield "The person has asked nothing before it."
        return
    try:
        found = pipeline.deployment.scorer.compare(message.words, [q for _, q in asked])
    except RetryableError as error:
        yield f"The scorer cannot compare now: {error}"
        return
    yield (
        f"Compared now by {found.scorer}, which joins from {found.join_threshold:.3f} and answers "
        f"from {found.answer_threshold:.3f}:"
    )
    if found.remark:
        yield f"  {found.remark}"
    pairs = sorted(
        zip(asked, found.matches, strict=True), key=lambda pair: pair[1].score, reverse=True
    )
    for (conversation, question), match in pairs[:_NEAREST]:
        yield f"  {match.score:.3f}  {conversation.reference}  {_shortly(question.text)}"
        yield from (f"         {line}" for line in _details(match, question))
    if len(pairs) > _NEAREST:
        yield f"  and {len(pairs) - _NEAREST} more, less alike"


def _details(match: Match, question: Question) -> Iterator[str]:
    if match.agreed:
        yield f"both say: {'; '.join(match.agreed)}"
    if match.veto:
        yield f"veto: {match.veto}"
    for doubt in question.doubts:
        yield _DOUBTS[doubt.kind].format(by=doubt.by, at=doubt.at)


_DOUBTS = {
    "apart": "{by} said, {at:%Y-%m-%d %H:%M}, that words like those set apart from it are another"
    " question",
    "unhelpful": "{by} said, {at:%Y-%m-%d %H:%M}, that its answer did not help",
}


# undo


def undone(pipeline: Pipeline, message_id: str, by: str) -> str:
    """What the undo did. ConfigurationError for a message that joined nothing."""
    corrections = Corrections(pipeline.store, pipeline.deployment, pipeline.clock, pipeline.report)
    try:
        new = corrections.undo(message_id, by)
    except NotFoundError as error:
        raise ConfigurationError(f"{error}: see `askonce repeats show {message_id}`") from None
    return (
        f"{new.reference} is a conversation of its own now; its ticket is opened in a moment. "
        "What the customer was told before is not taken back."
    )
