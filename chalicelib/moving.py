"""From one helpdesk to another: open conversations get a ticket there, and their history as a note.

The old ticket says where it went on. Safe to repeat: what has moved stays moved.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from chalicelib import notes
from chalicelib.errors import RejectedError
from chalicelib.forwarding import Forwarder, without_words
from chalicelib.schema import Conversation, Direction, Message, State, Ticket
from chalicelib.worker import Worker

#: Of one history; what is older is named by its count.
_MOST_LINES = 100


@dataclass(frozen=True)
class Mover(Worker):
    """Moves conversations."""

    def waiting(self, source: str, inbox: str | None = None) -> Iterator[Conversation]:
        """Conversations that are not closed and have a ticket at a helpdesk. Reads the table.

        With an inbox, those only whose first message came by it.
        """
        for conversation in self.store.everything_asked():
            ticket = conversation.ticket
            if ticket is None or ticket.helpdesk != source or conversation.state is State.CLOSED:
                continue
            if inbox is None or inbox in {p.inbox for p in conversation.participants}:
                yield conversation

    def move(self, conversation_id: str, source: str, target: str) -> Ticket | None:
        """Give a conversation a ticket at another helpdesk; None if it has left `source` already.

        RetryableError, RejectedError, ConfigurationError: then it is where it was, or moves when
        this is repeated.
        """
        held = self.store.conversation(conversation_id)
        if held is None or held.noun.ticket is None or held.noun.ticket.helpdesk != source:
            return None
        conversation, old = held.noun, held.noun.ticket
        said = self.store.thread(conversation.id)
        forwarder = self._as(Forwarder)
        first = next((m for m in said if m.id == conversation.first_message_id), said[0])
        key, desk = f"{conversation.id}-to-{target}", self._helpdesk(target)
        ticket_id = desk.open_ticket(
            forwarder.with_files(first), conversation, idempotency_key=key, again=True
        )
        ticket, language = Ticket(helpdesk=target, id=ticket_id), self._agents_language
        history = notes.history(_lines(said), old, language)
        desk.add_note(
            ticket_id, history, conversation, idempotency_key=f"{key}-history", again=True
        )
        self._say_where(old, notes.moved(ticket, language), conversation, f"{key}-left")
        forwarder.settle(ticket, first, conversation, key)  # last: until then, a repeat does it all
        self.report("moved", message=first.id, conversation=conversation.id, ticket=ticket.id)
        return ticket

    def _say_where(self, old: Ticket, note: str, conversation: Conversation, key: str) -> None:
        try:
            self._helpdesk(old.helpdesk).add_note(
                old.id, note, conversation, idempotency_key=key, again=True
            )
        except RejectedError as error:  # the old one is gone: that is why it moves, perhaps
            why = without_words(str(error))
            self.report("unnoted", conversation=conversation.id, ticket=old.id, why=why)


def _lines(said: list[Message]) -> list[str]:
    """The latest of what was said, oldest first, a line each and who said it."""
    left_out = len(said) - _MOST_LINES
    lines = [f"({left_out} earlier ones are left out)"] if left_out > 0 else []
    for message in said[-_MOST_LINES:]:
        inbound = message.direction is Direction.INBOUND
        who = message.sender_name or message.address if inbound else message.author
        lines.append(f"{message.sent_at:%Y-%m-%d %H:%M} {who}: {message.words}")
    return lines
