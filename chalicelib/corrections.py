"""It was not the same question after all: a message leaves the conversation that it had joined.

The message, and what its sender wrote right after it, get a conversation and a ticket of their own;
the question that it was taken for remembers its words. One commit decides; what follows is the
forward queue's, as for any other message, and the tickets' notes go with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from chalicelib import conversations, identity
from chalicelib.errors import ConflictError, NotFoundError, RetryableError
from chalicelib.items import STUCK_AFTER, Corrected, Held, History, Step, Stored
from chalicelib.schema import (
    AddressLink,
    Conversation,
    Correction,
    Direction,
    Message,
    Outcome,
    Verdict,
)
from chalicelib.worker import Worker

_TRIES = 8
#: More lines than these stay where they are: one commit takes a hundred writes.
_MOST = 15
_JOINED = (Outcome.REPEAT, Outcome.RELATED)
#: What became of an answer that had not gone out yet.
WITHDRAWN = "it was an answer to another question"


def was_undone(message: Message) -> bool:
    """Whether it had joined another conversation, and somebody took it out again."""
    verdict = message.verdict
    return verdict is not None and (verdict.rule, verdict.outcome) == ("undone", Outcome.NEW)


@dataclass(frozen=True)
class _Case:
    """What an undo looks at, as it was read."""

    message: Held[Stored]
    old: Held[Conversation]
    #: Everything in the old conversation, in order.
    thread: Sequence[Held[Stored]]
    link: AddressLink
    history: History


@dataclass(frozen=True)
class Corrections(Worker):
    """Takes back what was recognised wrongly."""

    def undo(self, message_id: str, by: str) -> Conversation:
        """Give a message that joined a conversation one of its own. Safe to repeat.

        Returns the new one. NotFoundError for a message that joined none; RetryableError.
        """
        return self._undo(message_id, by)

    def correct(self, helpdesk: str, conversation_id: str, correction: Correction) -> Conversation:
        """The same, as an agent said it in a helpdesk: one effect, however often that comes."""
        before = self.store.corrected(helpdesk, correction.external_id)
        message_id = before.message_id if before else correction.message_id
        if message_id is None:
            message_id = self._latest_joined(conversation_id)
        noted = Corrected(
            helpdesk=helpdesk, external_id=correction.external_id, message_id=message_id
        )
        return self._undo(message_id, correction.by, None if before else noted, conversation_id)

    def _latest_joined(self, conversation_id: str) -> str:
        joined = [m for m in self.store.thread(conversation_id) if _has_joined(m)]
        if not joined:
            raise NotFoundError("nothing joined this ticket that could leave it")
        return joined[-1].id

    def _undo(
        self,
        message_id: str,
        by: str,
        noted: Corrected | None = None,
        conversation_id: str | None = None,
    ) -> Conversation:
        for _ in range(_TRIES):
            held = self.store.message(message_id)
            message = held.noun.message if held else None
            if held is None or message is None:
                raise NotFoundError(f"there is no message {message_id}")
            if not was_undone(message):
                self._demand_joined(message, conversation_id)
                try:
                    return self._split(self._case(held), by, noted)
                except ConflictError:
                    continue  # somebody else wrote there meanwhile: look again
            return self._again(message)
        raise RetryableError("the conversation keeps changing")

    def _demand_joined(self, message: Message, conversation_id: str | None) -> None:
        if conversation_id not in (None, message.conversation_id):
            raise NotFoundError(f"message {message.id} is not on this ticket")
        if not _has_joined(message):
            raise NotFoundError(
                f"message {message.id} joined no earlier question: there is nothing to undo"
            )

    def _case(self, held: Held[Stored]) -> _Case:
        message = held.noun.message
        old = self.store.conversation(message.conversation_id or "")
        if old is None:
            raise NotFoundError(f"the conversation of message {message.id} is gone")
        if old.noun.first_message_id == message.id:
            raise NotFoundError(f"message {message.id} opened its ticket, and cannot leave it")
        sender, _ = identity.sender(message)
        link = self.store.link(sender)
        if link is None:
            raise NotFoundError(f"the sender of message {message.id} is gone")
        thread = [
            stored
            for each in self.store.thread(old.noun.id)
            if (stored := self.store.message(each.id))
        ]
        return _Case(held, old, thread, link.noun, self.store.history(link.noun.contact_id))

    def _again(self, message: Message) -> Conversation:
        """It is undone already; whoever did it may have stopped before all was queued."""
        new = self.store.conversation(message.conversation_id or "")
        if new is None:
            raise NotFoundError(f"the conversation of message {message.id} is gone")
        self._queue(m.id for m in self.store.thread(new.noun.id))
        return new.noun

    def _queue(self, message_ids: Iterable[str]) -> None:
        """Bring what moved to the forward queue."""
        for message_id in message_ids:
            held = self.store.message(message_id)
            if held and held.noun.step is Step.RESOLVED:
                self.store.enqueue(held.noun.message, attempt="-undone")

    def _split(self, case: _Case, by: str, noted: Corrected | None) -> Conversation:
        policy, now = self.deployment.document.policy, self.clock()
        moving = _moving(case, timedelta(minutes=policy.repeats.burst_minutes))
        messages = [held.noun.message for held in moving]
        leaving = {m.id for m in messages}
        staying = [
            held.noun.message
            for held in case.thread
            if held.noun.message.direction is Direction.INBOUND
            and held.noun.message.id not in leaving
        ]
        old = case.old.noun
        new = conversations.split_off(
            old, messages, case.link, policy, self._prepared(messages[0]), now
        )
        left = conversations.without(old, messages, staying, policy, by, now)
        puts: list[Held[Any]] = [Held(new), Held(left, case.old.version)]
        puts.append(case.history.contact)  # its version serialises what it asks
        for held in moving:
            first = held is case.message
            verdict = _undone(old, held.noun.message, by) if first else _along(held, new)
            puts.append(self._moved(held, new, verdict))
            puts += self._references(held.noun.message.inbox, held.noun.message.external_id, new)
            puts += self._said(case, held.noun.message, new)
        if noted:
            puts.append(Held(noted))
        self.store.commit(*puts)
        self.report(
            "undone",
            message=messages[0].id,
            conversation=old.id,
            new_conversation=new.id,
            moved=len(messages),
        )
        self._queue(m.id for m in messages)
        return new

    def _moved(self, held: Held[Stored], new: Conversation, verdict: Verdict) -> Held[Stored]:
        """The message in its new conversation, to be forwarded once more: to the new ticket."""
        message = held.noun.message.model_copy(
            update={
                "conversation_id": new.id,
                "contact_id": new.contact_id,
                "verdict": verdict,
            }
        )
        return held.change(
            message=message,
            step=Step.RESOLVED,
            claimed_until=None,
            failure=None,
            due_at=self.clock() + STUCK_AFTER,
        )

    def _said(self, case: _Case, message: Message, new: Conversation) -> list[Held[Any]]:
        """What AskOnce told in answer to a message goes along; what did not go out yet, nowhere."""
        puts: list[Held[Any]] = []
        for held in case.thread:
            said = held.noun.message
            if (said.author, said.external_id) != (conversations.ASKONCE, message.id):
                continue
            moved = held.change(message=said.model_copy(update={"conversation_id": new.id}))
            if held.noun.step is Step.ACCEPTED and not held.noun.sending:
                moved = moved.change(step=Step.FAILED, failure=WITHDRAWN, untold=None)
            puts.append(moved)
            for provider_id in held.noun.provider_ids:
                puts += self._references(said.inbox, provider_id, new)
        return puts

    def _references(self, inbox: str, external_id: str, new: Conversation) -> list[Held[Any]]:
        """Mails that answer it belong to the new conversation, too."""
        found = self.store.reference(inbox, external_id)
        return [found.change(conversation_id=new.id)] if found else []

    def _prepared(self, message: Message) -> dict[str, str]:
        scorer = self.deployment.scorer
        try:
            return {scorer.name: scorer.prepare(message.words)}
        except RetryableError:
            return {}  # it is compared without, a little slower


def _has_joined(message: Message) -> bool:
    verdict = message.verdict
    return verdict is not None and verdict.rule != "undone" and verdict.outcome in _JOINED


def _moving(case: _Case, burst: timedelta) -> list[Held[Stored]]:
    """The message, and what its sender wrote right after it or asked like it."""
    message = case.message.noun.message
    sender, _ = identity.sender(message)
    moving, last_at = [case.message], message.received_at
    for held in case.thread:
        later = held.noun.message
        own = later.direction is Direction.INBOUND and identity.sender(later)[0] == sender
        if not own or later.received_at < message.received_at or later.id == message.id:
            continue
        verdict = later.verdict
        if verdict is None or len(moving) >= _MOST:
            break
        follows = verdict.outcome is Outcome.FOLLOW_UP and later.received_at - last_at <= burst
        repeats = verdict.closest_message_id == message.id
        if follows or repeats:
            moving.append(held)
            last_at = later.received_at
    return moving


def _undone(old: Conversation, message: Message, by: str) -> Verdict:
    """Why it left; what was decided before, and what was told, stays on record."""
    ticket = f"ticket {old.ticket.id}, {old.reference}" if old.ticket else old.reference
    reason = f"{by or 'an agent'} said that it is not the same question as on {ticket}"
    before = message.verdict or Verdict(outcome=Outcome.NEW, rule="", reason="")
    return before.model_copy(update={"outcome": Outcome.NEW, "rule": "undone", "reason": reason})


def _along(held: Held[Stored], new: Conversation) -> Verdict:
    before = held.noun.message.verdict or Verdict(outcome=Outcome.FOLLOW_UP, rule="", reason="")
    reason = "it follows a message that is another question after all"
    moved = {"rule": "undone", "reason": reason, "closest_conversation_id": new.id}
    return before.model_copy(update=moved)
