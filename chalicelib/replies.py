"""What helpdesks tell us, by webhook or when asked: replies, changes, corrections, signals.

Both ways are one: a reply has the desk's own id, and is stored once, however often it comes.
"""

from dataclasses import dataclass
from datetime import datetime

from chalicelib import conversations
from chalicelib.errors import NotFoundError
from chalicelib.items import TicketHome
from chalicelib.ports import FromDesk, HostedConnector, Signal
from chalicelib.schema import (
    Conversation,
    Correction,
    Direction,
    Instruction,
    Kind,
    Message,
    Reply,
    Ticket,
    TicketChange,
    errand_id,
    message_id,
)
from chalicelib.worker import REPLIES, Worker


@dataclass(frozen=True)
class Replies(Worker):
    """Takes what a helpdesk tells."""

    def take(
        self, helpdesk: str, item: FromDesk, received_at: datetime
    ) -> Message | Instruction | None:
        """Carry it out, or return what is to be stored. NotFoundError for a ticket not ours."""
        ticket = Ticket(helpdesk=helpdesk, id=item.ticket_id)
        home = self.store.ticket_home(ticket)
        if home is None:
            raise NotFoundError("a ticket that we did not open")
        conversation_id = home.noun.conversation_id
        if isinstance(item, TicketChange):
            self._change(ticket, conversation_id, item)
        elif isinstance(item, Signal):
            self._show_agent(conversation_id, item.kind)
        elif isinstance(item, Correction):
            return _instruction(helpdesk, conversation_id, item, received_at)
        else:
            return self._message(helpdesk, conversation_id, item, received_at)
        return None

    def _change(self, ticket: Ticket, conversation_id: str, change: TicketChange) -> None:
        if change.state == "merged":
            self._follow(ticket, conversation_id, change.merged_into)
        else:
            self.store.amend(
                conversation_id,
                # A ticket that it has left says nothing of it any more.
                lambda c: conversations.change(c, change) if c.ticket in (ticket, None) else c,
            )
        self.report("ticket.changed", conversation=conversation_id, state=change.state)

    def _follow(self, ticket: Ticket, conversation_id: str, into: str) -> None:
        """The ticket went into another one: what is said from now on belongs there.

        Where that one is a conversation's already, it stays that one's: replies go to its customer.
        """
        target = Ticket(helpdesk=ticket.helpdesk, id=into)
        self.store.remember(TicketHome(ticket=target, conversation_id=conversation_id))

        def moved(conversation: Conversation) -> Conversation:
            if conversation.ticket != ticket:
                return conversation
            return conversation.model_copy(update={"ticket": target})

        self.store.amend(conversation_id, moved)

    def _message(
        self, helpdesk: str, conversation_id: str, reply: Reply, received_at: datetime
    ) -> Message:
        held = self.store.conversation(conversation_id)
        target = self._target(held.noun) if held else None
        if held is None or target is None:
            raise NotFoundError("the ticket's conversation has no address to reply to")
        return conversations.addressed(
            Message(
                id=message_id(helpdesk, conversation_id, reply.external_id),
                direction=Direction.OUTBOUND,
                channel=target.channel,
                connector=helpdesk,
                inbox=target.inbox,
                external_id=reply.external_id,
                address=target.address,
                author=reply.author,
                kind=Kind.TEXT,
                text=reply.text,
                attachments=reply.attachments,
                sent_at=reply.sent_at,
                received_at=received_at,
                contact_id=held.noun.contact_id,
                conversation_id=conversation_id,
            ),
            target,
        )

    def _show_agent(self, conversation_id: str, kind: str) -> None:
        """On a channel that we host, let the customer see what an agent is doing."""
        held = self.store.conversation(conversation_id)
        target = self._target(held.noun) if held else None
        kind_of_inbox = self.deployment.kind(target.inbox) if target else None
        if target and kind_of_inbox and issubclass(kind_of_inbox, HostedConnector):
            shown = self.store.sign(target.inbox, target.address, kind)
            self.report(f"agent.{kind}", conversation=conversation_id, shown=shown)


def _instruction(
    helpdesk: str, conversation_id: str, correction: Correction, received_at: datetime
) -> Instruction:
    return Instruction(
        id=errand_id(f"{REPLIES}{helpdesk}", conversation_id, correction.external_id),
        helpdesk=helpdesk,
        conversation_id=conversation_id,
        correction=correction,
        received_at=received_at,
    )
