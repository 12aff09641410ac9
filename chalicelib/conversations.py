"""What happens to a conversation: begun, joined, answered, closed; what goes out of it. Pure."""

import secrets
from collections.abc import Mapping

from chalicelib.judge import is_question
from chalicelib.policy import Policy, language_of
from chalicelib.schema import (
    Address,
    AddressLink,
    Answer,
    Conversation,
    Direction,
    Kind,
    Message,
    Outcome,
    Participant,
    Priority,
    Question,
    State,
    TicketChange,
    message_id,
)

#: The author of what AskOnce says by itself.
ASKONCE = "askonce"
_QUESTIONS_KEPT = 10
_QUESTION_CHARACTERS = 2000
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
    """With one more message: another question is remembered, a repeat makes it urgent."""
    repeated = outcome is Outcome.REPEAT
    asks = not repeated and is_question(message)
    asked = (_question(message, link, prepared),) if asks else ()
    reopens = asks and conversation.state is State.CLOSED
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


def answer(conversation: Conversation, reply: Message) -> Conversation:
    """After an agent's reply: it answers what was asked since the reply before."""
    given = Answer(text=reply.text, author=reply.author, at=reply.sent_at)
    asked = [q for q in conversation.questions if q.asked_at <= reply.received_at]
    waiting = [q for q in asked if q.answer is None] or asked[-1:]
    answered = {q.message_id for q in waiting}
    closed = conversation.state is State.CLOSED
    return conversation.model_copy(
        update={
            "questions": tuple(
                _with_answer(q, given) if q.message_id in answered else q
                for q in conversation.questions
            ),
            "state": State.CLOSED if closed else State.ANSWERED,
            "last_active_at": max(conversation.last_active_at, reply.received_at),
            "first_reply_due_at": None,
        }
    )


def _with_answer(question: Question, given: Answer) -> Question:
    """An older answer never replaces a newer one."""
    if question.answer and question.answer.at >= given.at:
        return question
    return question.model_copy(update={"answer": given})


def change(conversation: Conversation, event: TicketChange) -> Conversation:
    """After its ticket was closed or opened again."""
    if event.state == "closed":
        return conversation.model_copy(update={"state": State.CLOSED, "first_reply_due_at": None})
    replied = any(q.answer for q in conversation.questions)
    return conversation.model_copy(update={"state": State.ANSWERED if replied else State.OPEN})


def overdue(conversation: Conversation) -> Conversation:
    """After the agents were told that its first reply is late."""
    return conversation.model_copy(update={"first_reply_due_at": None, "priority": Priority.HIGH})


# What goes out


def said(message: Message, text: str) -> Message:
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
