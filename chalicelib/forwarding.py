"""forward: what customers say reaches the helpdesk, once, in order, at the desk's own pace.

A first try makes no look-up. After one whose end is unknown the desk is told so (`again`): it has
a key for that, or looks for ours. A ticket that takes nothing any more is followed by another one.
Where a desk limits the updates of a ticket, the lines of a busy chat go in one, and keep their ids.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from chalicelib import identity, notes
from chalicelib.corrections import was_undone
from chalicelib.errors import (
    ConfigurationError,
    ConflictError,
    GoneError,
    RejectedError,
    RetryableError,
)
from chalicelib.items import Held, Step, Stored, TicketHome
from chalicelib.ports import HostedConnector
from chalicelib.schema import (
    Attachment,
    Conversation,
    Direction,
    Message,
    Outcome,
    Ticket,
    digest,
)
from chalicelib.worker import Claim, Worker, turn_of

if TYPE_CHECKING:  # loaded on first use, below
    from chalicelib.crowd import Crowd

#: So many lines go in one update at most, and so many updates are kept back for notes.
_MOST_LINES, _RESERVE = 20, 5
_LINE = "\n"


@dataclass(frozen=True)
class Forwarder(Worker):
    """The step `forward`."""

    def forward(self, stored_id: str, lease_seconds: float) -> None:
        """Bring a message to the helpdesk: one effect, however often it runs. RetryableError."""
        held = self.store.message(stored_id)
        if held is None or not _for_helpdesk(held.noun):
            return
        with turn_of(held.noun.message):
            self._work_on(held, lease_seconds)

    def _work_on(self, held: Held[Stored], lease_seconds: float) -> None:
        claim = self._claim_counted(held, lease_seconds)
        try:
            if claim.noun.message.direction is Direction.OUTBOUND:
                self._tell(claim, again=held.noun.tried)
            else:
                self._forward(claim, again=held.noun.tried)
        except RejectedError as error:
            self._give_up(claim, str(error))
        except (RetryableError, ConfigurationError):
            claim.finish(claim.noun.step)
            raise

    def _claim_counted(self, held: Held[Stored], lease_seconds: float) -> Claim:
        """A claim on it, counted under its topic; an erased message's words are taken back."""
        counted = self._counted(held)
        try:
            return self._claim(counted, lease_seconds, tried=True)
        except RetryableError:
            now = self.store.message(held.noun.message.id)
            if now is None or now.noun.erased:
                self._crowd.forget(counted.noun)
            raise

    def _counted(self, held: Held[Stored]) -> Held[Stored]:
        """With the topic that it asks about, which the claim writes along."""
        return replace(held, noun=self._crowd.count(held.noun))

    @property
    def _crowd(self) -> "Crowd":
        from chalicelib.crowd import Crowd

        return self._as(Crowd)

    def _give_up(self, claim: Claim, why: str) -> None:
        """The helpdesk will never take it; a note that it refuses changes nothing else."""
        outbound = claim.noun.message.direction is Direction.OUTBOUND
        step = claim.noun.step if outbound else Step.FAILED
        claim.finish(step, failure=claim.noun.failure if outbound else why, untold=None)
        self.report(
            "forward.rejected",
            message=claim.noun.message.id,
            inbox=claim.noun.message.inbox,
            conversation=claim.noun.message.conversation_id,
            why=without_words(why),
        )

    def _forward(self, claim: Claim, *, again: bool) -> None:
        message = self.with_files(claim.noun.message)
        conversation = self._with_opener(self._conversation(message), message)
        ticket = conversation.ticket or self._open(conversation, message, again=again)
        ticket = self._brought(claim, ticket, message, conversation, again=again)
        self._note(claim.noun, ticket, conversation, again=again)
        if was_undone(message):
            self._note_where_it_left(message, conversation, ticket, again=again)
        self._finish_joined(claim.noun)  # before the message: nobody looks at them after it
        claim.finish(Step.DONE, message=_without_bytes(message))
        self._report_forwarded(claim.noun, ticket=ticket.id)

    def _brought(
        self,
        claim: Claim,
        ticket: Ticket,
        message: Message,
        conversation: Conversation,
        *,
        again: bool,
    ) -> Ticket:
        """The ticket, with the message on it."""
        opened, first = claim.noun.opened, message.id == conversation.first_message_id
        if claim.noun.replayed and (first or opened == ticket):
            return self._found_or_opened(ticket, message, conversation)
        if opened and not claim.noun.replayed:
            return self.settle(opened, message, conversation)
        if first:
            return ticket
        return self._comment(claim, ticket, message, conversation, again=again)

    def _report_forwarded(self, stored: Stored, **more: str) -> None:
        message = stored.message
        self.report(
            "forwarded",
            message=message.id,
            inbox=message.inbox,
            channel=message.channel.value,
            conversation=message.conversation_id,
            latency_ms=None if stored.replayed else self._latency_ms(message),
            **more,
        )

    def _note(
        self, stored: Stored, ticket: Ticket, conversation: Conversation, *, again: bool
    ) -> None:
        message = stored.message
        told = notes.of(message, conversation, self._agents_language)
        if stored.surge:
            told.append(notes.surging(stored.surge, self._agents_language))
        for n, note in enumerate(told):
            self._helpdesk(ticket.helpdesk).add_note(
                ticket.id,
                note,
                conversation,
                idempotency_key=f"{_key(message)}-note{n}",
                again=again,
            )

    def _note_where_it_left(
        self, message: Message, new: Conversation, ticket: Ticket, *, again: bool
    ) -> None:
        """On the ticket that a message had joined by mistake, name the one that it has now."""
        verdict = message.verdict
        old = self.store.conversation((verdict and verdict.closest_conversation_id) or "")
        if old is None or old.noun.ticket is None:
            return  # it left before it was ever seen there
        try:
            self._helpdesk(old.noun.ticket.helpdesk).add_note(
                old.noun.ticket.id,
                notes.set_apart(message, new, ticket.id, self._agents_language),
                old.noun,
                idempotency_key=f"{message.id}-left",
                again=again,
            )
        except RejectedError as error:  # an old ticket that takes no notes holds up no new one
            why = without_words(str(error))
            self.report("unnoted", message=message.id, ticket=old.noun.ticket.id, why=why)

    def _tell(self, claim: Claim, *, again: bool) -> None:
        """Tell the agents what became of what they said."""
        stored = claim.noun
        conversation = self._conversation(stored.message)
        note = stored.untold or ""
        if ticket := conversation.ticket:
            self._helpdesk(ticket.helpdesk).add_note(
                ticket.id,
                note,
                conversation,
                idempotency_key=f"{stored.message.id}-{digest(note)}",
                again=again,
            )
        claim.finish(stored.step, untold=None)
        self.report("noted", message=stored.message.id)

    # Tickets

    def _with_opener(self, conversation: Conversation, message: Message) -> Conversation:
        """The conversation; where the helpdesk refused its first message, this one opens it."""
        if conversation.ticket or message.id == conversation.first_message_id:
            return conversation
        first = self.store.message(conversation.first_message_id)
        if first and first.noun.step is not Step.FAILED:
            return conversation
        opener = {"first_message_id": message.id}
        amended = self.store.amend(conversation.id, lambda c: c.model_copy(update=opener))
        return amended or conversation

    def _open(self, conversation: Conversation, message: Message, *, again: bool) -> Ticket:
        """The conversation's ticket, opened once: keyed by the conversation, and remembered."""
        first, own = message, message.id == conversation.first_message_id
        if not own:
            held = self.store.message(conversation.first_message_id)
            first = self.with_files(held.noun.message) if held else message
        name = self.deployment.helpdesk_of(first.inbox)
        ticket_id = self._helpdesk(name).open_ticket(
            first, conversation, idempotency_key=conversation.id, again=again or not own
        )
        ticket = Ticket(helpdesk=name, id=ticket_id)
        return self.settle(ticket, first, conversation, conversation.id)

    def _found_or_opened(
        self, ticket: Ticket, first: Message, conversation: Conversation
    ) -> Ticket:
        """The ticket, opened anew if the desk lost it: the same key finds what is there."""
        home = self.store.ticket_home(ticket)
        if home is None or not home.noun.key:
            return ticket  # the agents merged it into one of their own
        ticket_id = self._helpdesk(ticket.helpdesk).open_ticket(
            first, conversation, idempotency_key=home.noun.key, again=True
        )
        if ticket_id == ticket.id:
            return ticket
        found = Ticket(helpdesk=ticket.helpdesk, id=ticket_id)
        return self.settle(found, first, conversation, home.noun.key)

    def settle(
        self, ticket: Ticket, first: Message, conversation: Conversation, key: str = ""
    ) -> Ticket:
        """The ticket is the conversation's from now on. Safe to repeat."""
        self.report("ticket.opened", message=first.id, ticket=ticket.id)
        self.store.remember(TicketHome(ticket=ticket, conversation_id=conversation.id, key=key))
        self.store.amend(conversation.id, lambda c: c.model_copy(update={"ticket": ticket}))
        return ticket

    def _comment(
        self,
        claim: Claim,
        ticket: Ticket,
        message: Message,
        conversation: Conversation,
        *,
        again: bool,
    ) -> Ticket:
        """Add what was said to the ticket; to a new one if that takes nothing any more."""
        desk = self._helpdesk(ticket.helpdesk)
        if desk.capabilities.updates:
            message = self._with_lines_that_wait(claim, ticket, message, desk.capabilities.updates)
        try:
            desk.add_comment(
                ticket.id, message, conversation, idempotency_key=_key(message), again=again
            )
        except GoneError:
            self.report("ticket.gone", message=message.id, ticket=ticket.id)
            return self._replace(claim, ticket, message, conversation, again=again)
        self.report("commented", message=message.id, ticket=ticket.id)
        return ticket

    def _replace(
        self,
        claim: Claim,
        old: Ticket,
        message: Message,
        conversation: Conversation,
        *,
        again: bool,
    ) -> Ticket:
        """A ticket opened with the message; recorded before the conversation has it.

        Else, stopped in between, the message would be added once more to what it opened.
        """
        key, desk = f"{conversation.id}-after-{old.id}", self._helpdesk(old.helpdesk)
        ticket_id = desk.open_ticket(message, conversation, idempotency_key=key, again=again)
        note = notes.continues(old.id, self._agents_language)
        desk.add_note(ticket_id, note, conversation, idempotency_key=f"{key}-note", again=again)
        ticket = Ticket(helpdesk=old.helpdesk, id=ticket_id)
        claim.record(opened=ticket)
        return self.settle(ticket, message, conversation, key)

    # Lines of a busy chat

    def _with_lines_that_wait(
        self, claim: Claim, ticket: Ticket, message: Message, updates: tuple[int, int]
    ) -> Message:
        """The message with what its sender wrote after it, if the ticket takes an update now."""
        self._take_update(ticket, *updates)
        if claim.noun.joined is None:
            claim.record(joined=tuple(line.id for line in self._lines_after(message)))
        lines = [message]
        for line_id in claim.noun.joined or ():
            if held := self.store.message(line_id):
                lines.append(self.with_files(held.noun.message))
        return _joined(lines)

    def _take_update(self, ticket: Ticket, most: int, seconds: int) -> None:
        """Count an update of the ticket. RetryableError while it has had all that it takes."""
        home = self.store.ticket_home(ticket)
        if home is None:
            return
        now = self.clock()
        recent = [at for at in home.noun.updates if now - at < timedelta(seconds=seconds)]
        if len(recent) >= max(1, most - _RESERVE):
            wait = timedelta(seconds=seconds) - (now - recent[0])
            raise RetryableError(
                "the ticket takes no more updates for now",
                retry_after_seconds=max(1.0, wait.total_seconds()),
            )
        try:
            self.store.commit(home.change(updates=(*recent, now)))
        except ConflictError:  # another conversation has the same ticket, merged
            raise RetryableError("the ticket is at work", retry_after_seconds=1) from None

    def _lines_after(self, message: Message) -> Sequence[Message]:
        """What the same customer wrote right after it, and waits to be forwarded as it does."""
        found: list[Message] = []
        for each in self.store.thread(message.conversation_id or ""):
            if each.received_at < message.received_at or each.id == message.id:
                continue
            held = self.store.message(each.id)
            if held is None or not _is_a_line(held.noun, message) or len(found) >= _MOST_LINES:
                break
            found.append(held.noun.message)
        return found

    def _finish_joined(self, stored: Stored) -> None:
        """The lines that went along are done, too."""
        for line_id in stored.joined or ():
            while (held := self.store.message(line_id)) and held.noun.step is Step.RESOLVED:
                bare = _without_bytes(self.with_files(held.noun.message))
                ended = {"step": Step.DONE, "message": bare, "claimed_until": None}
                with suppress(ConflictError):  # the schedule looked at it: once more
                    counted = self._counted(held)
                    self.store.commit(counted.change(**ended, along=stored.message.id))
                    self._report_forwarded(held.noun, along=stored.message.id)

    # Files

    def with_files(self, message: Message) -> Message:
        """The message with its files in the bucket and in memory, fetched where need be."""
        attachments = tuple(self._fetched(message, n, a) for n, a in enumerate(message.attachments))
        return message.model_copy(update={"attachments": attachments})

    def _fetched(self, message: Message, number: int, attachment: Attachment) -> Attachment:
        if attachment.key or not attachment.source or attachment.unavailable:
            return self.store.load(attachment)
        try:
            connector = self._connector(message.inbox)
            if isinstance(connector, HostedConnector):
                content = self.store.uploaded(attachment.source)
            else:
                content = connector.fetch(attachment)
        except RejectedError as error:
            return attachment.model_copy(update={"unavailable": str(error)})
        kept = self.store.keep(message, number, attachment.model_copy(update={"content": content}))
        return self.store.load(kept)


def without_words(why: str) -> str:
    """A refusal for the log, without the desk's own words: those may hold the customer's."""
    return why.partition(": ")[0]


def _for_helpdesk(stored: Stored) -> bool:
    """What the customer said, once resolved; what became of a reply, for the agents to know."""
    if stored.message.direction is Direction.INBOUND:
        return stored.step is Step.RESOLVED
    return stored.untold is not None


def _key(message: Message) -> str:
    """Under which the helpdesk takes it once: once more after it left for another ticket."""
    moved = message.verdict is not None and message.verdict.rule == "undone"
    return f"{message.id}-{message.conversation_id}" if moved else message.id


def _is_a_line(stored: Stored, first: Message) -> bool:
    """Whether it only goes on with what the first message says, and no worker has it."""
    message, verdict = stored.message, stored.message.verdict
    return (
        message.direction is Direction.INBOUND
        and stored.step is Step.RESOLVED
        and not stored.tried
        and stored.surge is None
        and verdict is not None
        and verdict.outcome is Outcome.FOLLOW_UP
        and identity.sender(message)[0] == identity.sender(first)[0]
    )


def _joined(lines: Sequence[Message]) -> Message:
    """Several lines as one message: the first one's, with all that was written and sent."""
    first = lines[0]
    return first.model_copy(
        update={
            "text": _LINE.join(line.text for line in lines if line.text),
            "attachments": tuple(a for line in lines for a in line.attachments),
        }
    )


def _without_bytes(message: Message) -> Message:
    bare = tuple(a.model_copy(update={"content": None, "url": None}) for a in message.attachments)
    return message.model_copy(update={"attachments": bare})
