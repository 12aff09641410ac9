"""What happens to a conversation: begun, joined, answered, closed; what goes out of it. Pure."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from chalicelib.judge import is_question, says_nothing
from chalicelib.policy import Policy, language_of
from chalicelib.schema import (
    Address,
    AddressLink,
    Answer,
    Choice,
    Conversation,
    Direction,
    Doubt,
    Kind,
    Level,
    Message,
    Outcome,
    Participant,
    Priority,
    Question,
    State,
    TicketChange,
    Told,
    Verdict,
    message_id,
)

#: The author of what AskOnce says by itself.
ASKONCE = "askonce"
_QUESTIONS_KEPT = 10
_QUESTION_CHARACTERS = 2000
_DOUBTS_KEPT = 5
_DOUBT_CHARACTERS = 1000
_REFERENCE_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"


def begin(
    message: Message, link: AddressLink, policy: Policy, prepared: Mapping[str, str]
) -> Conversation:
    """A new conversation with its first question, its category and its deadline."""
    category, priority, due_at = policy.categorise(message.words, message.received_at)
    return Conversation(
        # Of the message's id, so that a commit whose answer got lost is found, not repeated.
        id="q" + message.id[1:],
        reference=_reference(),
        contact_id=link.contact_id,
        asked_at=message.received_at,
        asked_by=link.address,
        first_message_id=message.id,
        questions=(_question(message, link, prepared),),
        language=language_of([message.words]),
        category=category,
        priority=priority,
        participants=(_participant(message, link),),
        last_active_at=message.received_at,
        first_reply_due_at=due_at,
    )


def _reference() -> str:
    """What people can read to each other: `Q-7F3K-2M4P`, without letters that look alike."""
    letters = "".join(secrets.choice(_REFERENCE_LETTERS) for _ in range(8))
    return f"Q-{letters[:4]}-{letters[4:]}"


def _question(message: Message, link: AddressLink, prepared: Mapping[str, str]) -> Question:
    return Question(
        text=message.words[:_QUESTION_CHARACTERS],
        message_id=message.id,
        asked_at=message.received_at,
        asked_by=link.address,
        asked_by_level=link.level,
        prepared=dict(prepared),
    )


def _participant(message: Message, link: AddressLink) -> Participant:
    return Participant(
        address=message.address,
        sender=link.address,
        channel=message.channel,
        inbox=message.inbox,
        account=message.account,
        last_at=message.received_at,
        external_id=message.external_id,
        subject=message.subject,
    )


def join(
    conversation: Conversation,
    message: Message,
    link: AddressLink,
    outcome: Outcome,
    prepared: Mapping[str, str],
) -> Conversation:
    """With one more message: another question is remembered, a repeat makes it urgent.

    After an answer that AskOnce gave by itself, whatever is more than thanks opens it again.
    """
    repeated = outcome is Outcome.REPEAT
    asks = not repeated and is_question(message)
    asked = (_question(message, link, prepared),) if asks else ()
    doubts = conversation.told is not None and not repeated and not says_nothing(message)
    reopens = (asks and conversation.state is State.CLOSED) or doubts
    latest = _participant(message, link)
    others = (
        p for p in conversation.participants if (p.sender, p.inbox) != (latest.sender, latest.inbox)
    )
    return conversation.model_copy(
        update={
            "questions": (*conversation.questions, *asked)[-_QUESTIONS_KEPT:],
            "state": State.OPEN if reopens else conversation.state,
            "participants": tuple(sorted((latest, *others), key=lambda p: p.last_at, reverse=True)),
            "last_active_at": max(conversation.last_active_at, message.received_at),
            "asked_times": conversation.asked_times + repeated,
            "priority": Priority.HIGH if repeated else conversation.priority,
        }
    )


def unhelpful(
    conversation: Conversation, message: Message, verdict: Verdict, policy: Policy, now: datetime
) -> Conversation:
    """After the customer said that the answer given again did not help: urgent, and open again.

    That question's answer is not given again until an agent gives it another one.
    """
    doubt = _doubt("unhelpful", message, "customer", now)
    return conversation.model_copy(
        update={
            "questions": tuple(
                _with_doubt(q, doubt) if q.message_id == verdict.closest_message_id else q
                for q in conversation.questions
            ),
            "state": State.OPEN,
            "priority": Priority.HIGH,
            "first_reply_due_at": policy.reply_due(conversation.category, message.received_at),
            "told": None,
        }
    )


def _doubt(kind: Literal["apart", "unhelpful"], message: Message, by: str, at: datetime) -> Doubt:
    words = message.words[:_DOUBT_CHARACTERS]
    return Doubt(kind=kind, text=words, message_id=message.id, by=by, at=at)


def _with_doubt(question: Question, doubt: Doubt) -> Question:
    """The latest doubts count; one message raises one of a kind."""
    same = (doubt.kind, doubt.message_id)
    others = (d for d in question.doubts if (d.kind, d.message_id) != same)
    return question.model_copy(update={"doubts": (*others, doubt)[-_DOUBTS_KEPT:]})


def split_off(
    old: Conversation,
    moving: Sequence[Message],
    link: AddressLink,
    policy: Policy,
    prepared: Mapping[str, str],
    now: datetime,
) -> Conversation:
    """A conversation of their own for messages that had joined another one by mistake.

    What was answered to them stays answered, and what AskOnce told last may still not have helped.
    """
    first, *later = moving
    begun = begin(first, link, policy, prepared)
    for message in later:
        outcome = message.verdict.outcome if message.verdict else Outcome.FOLLOW_UP
        begun = join(begun, message, link, outcome, {})
    was = {q.message_id: q for q in old.questions}
    questions = tuple(was.get(q.message_id, q) for q in begun.questions)
    answered = all(q.answer for q in questions)
    told = old.told if _was_told_to(moving, old.told) else None
    return begun.model_copy(
        update={
            "questions": questions,
            "state": State.ANSWERED if answered else State.OPEN,
            "first_reply_due_at": None if answered else policy.reply_due(begun.category, now),
            "last_said_at": told.at if told else None,
            "told": told.model_copy(update={"message_id": first.id}) if told else None,
        }
    )


def _was_told_to(moving: Sequence[Message], told: Told | None) -> bool:
    """Whether what AskOnce told last answered one of these messages."""
    return told is not None and any(
        m.verdict is not None
        and m.verdict.said_kind in ("answered", "faq")
        and m.verdict.closest_message_id == told.message_id
        and told.at >= m.received_at
        for m in moving
    )


def without(
    conversation: Conversation,
    moving: Sequence[Message],
    staying: Sequence[Message],
    policy: Policy,
    by: str,
    now: datetime,
) -> Conversation:
    """After messages left it that had joined by mistake: as if they had never come.

    The question that the first one was taken for remembers its words: never the same again.
    """
    first, left = moving[0], {m.id for m in moving}
    closest = first.verdict.closest_message_id if first.verdict else None
    apart = _doubt("apart", first, by, now)
    questions = []
    for question in conversation.questions:
        doubts = tuple(d for d in question.doubts if d.message_id not in left)
        cleared = question.model_copy(update={"doubts": doubts})
        if question.message_id not in left:
            questions.append(
                _with_doubt(cleared, apart) if cleared.message_id == closest else cleared
            )
    repeats = sum(bool(m.verdict and m.verdict.outcome is Outcome.REPEAT) for m in moving)
    told = None if _was_told_to(moving, conversation.told) else conversation.told
    changed = conversation.model_copy(
        update={
            "questions": tuple(questions),
            "asked_times": max(1, conversation.asked_times - repeats),
            "participants": _participants_without(conversation, moving, staying),
            "told": told,
        }
    )
    return _calmed(changed, policy)


def _calmed(conversation: Conversation, policy: Policy) -> Conversation:
    """With the priority that its category gives, and answered if all of it is.

    What was asked again by others, or is late, stays urgent.
    """
    waits = any(q.answer is None or q.unhelpful for q in conversation.questions)
    answered = conversation.state is State.OPEN and bool(conversation.questions) and not waits
    late = waits and conversation.first_reply_due_at is None
    urgent = conversation.asked_times > 1 or late
    return conversation.model_copy(
        update={
            "state": State.ANSWERED if answered else conversation.state,
            "first_reply_due_at": None if answered else conversation.first_reply_due_at,
            "priority": conversation.priority
            if urgent
            else policy.priority_of(conversation.category),
        }
    )


def _participants_without(
    conversation: Conversation, moving: Sequence[Message], staying: Sequence[Message]
) -> tuple[Participant, ...]:
    """Who wrote what stays; each with the latest of that, so that replies thread under it."""
    left = {(m.address, m.inbox, m.external_id) for m in moving}
    kept = [
        stays
        for p in conversation.participants
        if (stays := _as_before(p, staying) if (p.address, p.inbox, p.external_id) in left else p)
    ]
    kept.sort(key=lambda p: p.last_at, reverse=True)
    return tuple(kept) or conversation.participants


def _as_before(participant: Participant, staying: Sequence[Message]) -> Participant | None:
    """With the latest that it wrote of what stays; None if that is nothing."""
    place = (participant.address, participant.inbox)
    own = [m for m in staying if (m.address, m.inbox) == place]
    if not own:
        return None
    last = max(own, key=lambda m: m.received_at)
    latest = {"last_at": last.received_at, "external_id": last.external_id, "subject": last.subject}
    return participant.model_copy(update=latest)


def taken_over(
    conversation: Conversation, address: Address, message: Message, link: AddressLink
) -> Conversation:
    """After an anonymous sender said who they are: theirs, and answered where they are now.

    Questions keep who asked them: nothing that was told to the anonymous address is disclosed.
    """
    here = _participant(message, link).model_copy(update={"external_id": "", "subject": ""})
    others = [p for p in conversation.participants if p.sender != address]
    was = [p for p in conversation.participants if p.sender == address]
    now = [here.model_copy(update={"last_at": p.last_at}) for p in was[:1]]
    return conversation.model_copy(
        update={
            "contact_id": link.contact_id,
            "asked_by": link.address if conversation.asked_by == address else conversation.asked_by,
            "participants": (*now, *others),
        }
    )


def disowned(conversation: Conversation, theirs: Callable[[Question], bool]) -> Conversation:
    """After whoever asked some of its questions lost the address: nobody is proven to have."""
    return conversation.model_copy(
        update={
            "questions": tuple(
                q.model_copy(update={"asked_by_level": Level.CLAIMED}) if theirs(q) else q
                for q in conversation.questions
            )
        }
    )


def parted(
    conversation: Conversation, leaves: Callable[[Question], bool], at: datetime
) -> Conversation:
    """After whoever asked some of its questions turned out to be another person.

    Those are asked no more, and stay on the ticket; so does every answer since the first of them,
    which may have been theirs. The same conversation, if there are none.
    """
    left = [q for q in conversation.questions if leaves(q)]
    if not left:
        return conversation
    since = min(q.asked_at for q in left)
    stay = (
        q.model_copy(update={"answer": None}) if q.answer and q.answer.at >= since else q
        for q in conversation.questions
        if q not in left
    )
    return conversation.model_copy(update={"questions": tuple(stay), "parted_at": at})


def is_outdated(conversation: Conversation, reply: Message) -> bool:
    """Whether an agent wrote before somebody who had asked turned out to be another person."""
    parted_at = conversation.parted_at
    return parted_at is not None and min(reply.sent_at, reply.received_at) <= parted_at


def answer(conversation: Conversation, reply: Message) -> Conversation:
    """After an agent's reply: it answers what was asked since the reply before."""
    if is_outdated(conversation, reply):
        return conversation  # it may be meant for who has left, and is not delivered
    if not reply.text.strip():
        return conversation  # a file is no answer to be given again
    given = Answer(text=reply.text, author=reply.author, at=reply.sent_at)
    asked = [q for q in conversation.questions if q.asked_at <= reply.received_at]
    waiting = [q for q in asked if q.answer is None or q.unhelpful] or asked[-1:]
    answered = {q.message_id for q in waiting}
    closed, told = conversation.state is State.CLOSED, conversation.told
    return conversation.model_copy(
        update={
            "questions": tuple(
                _with_answer(q, given) if q.message_id in answered else q
                for q in conversation.questions
            ),
            "state": State.CLOSED if closed else State.ANSWERED,
            "last_active_at": max(conversation.last_active_at, reply.received_at),
            "first_reply_due_at": None,
            "told": told if told and told.at > reply.received_at else None,
        }
    )


def _with_answer(question: Question, given: Answer) -> Question:
    """An older answer never replaces a newer one."""
    if question.answer and question.answer.at >= given.at:
        return question
    return question.model_copy(update={"answer": given})


def change(conversation: Conversation, event: TicketChange) -> Conversation:
    """After its ticket was closed or opened again."""
    if event.at < conversation.last_active_at and event.state == "closed":
        return conversation  # something was said after that: it is open again, or about to be
    if event.state == "closed":
        return conversation.model_copy(update={"state": State.CLOSED, "first_reply_due_at": None})
    replied = any(q.answer for q in conversation.questions)
    return conversation.model_copy(update={"state": State.ANSWERED if replied else State.OPEN})


def overdue(conversation: Conversation) -> Conversation:
    """After the agents were told that its first reply is late."""
    return conversation.model_copy(update={"first_reply_due_at": None, "priority": Priority.HIGH})


# What goes out


def said(message: Message, text: str, choices: tuple[Choice, ...] = ()) -> Message:
    """The outbound message in which AskOnce answers a message; always the same one."""
    return Message(
        id=message_id(ASKONCE, message.conversation_id or message.address, message.id),
        direction=Direction.OUTBOUND,
        channel=message.channel,
        connector=message.connector,
        inbox=message.inbox,
        external_id=message.id,
        address=message.address,
        account=message.account,
        author=ASKONCE,
        kind=Kind.TEXT,
        text=text,
        choices=choices,
        subject=_answer_subject(message.subject),
        references=(message.external_id, *message.references),
        automatic=True,
        sent_at=message.received_at,
        received_at=message.received_at,
        contact_id=message.contact_id,
        conversation_id=message.conversation_id,
    )


def addressed(message: Message, target: Participant) -> Message:
    """An outbound message on its way to where the customer wrote last."""
    return message.model_copy(
        update={
            "channel": target.channel,
            "inbox": target.inbox,
            "address": target.address,
            "account": target.account,
            "subject": _answer_subject(target.subject),
            "references": (target.external_id,) if target.external_id else (),
        }
    )


def _answer_subject(subject: str) -> str:
    if not subject or subject.lower().startswith(("re:", "re：", "回复", "答复")):
        return subject
    return f"Re: {subject}"
