"""Tickets that are in another desk than the page's own, as the page shows them: our side of them.

The desk's side is a link away. What agents remark there privately never leaves it.
"""

from collections.abc import Iterator
from typing import Any

from chalicelib.pipeline import Pipeline
from chalicelib.schema import Conversation, Direction, Message, State

_OWN = "sandbox"


def tickets(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Newest first; none where the page's own desk is the only one."""
    desks = pipeline.deployment.document.helpdesks
    others = {name for name, told in desks.items() if told.get("connector") != _OWN}
    if not others:
        return []
    found = [
        c for c in pipeline.store.everything_asked() if c.ticket and c.ticket.helpdesk in others
    ]
    found.sort(key=lambda c: c.asked_at, reverse=True)
    return [_ticket(pipeline, conversation) for conversation in found]


def _ticket(pipeline: Pipeline, conversation: Conversation) -> dict[str, Any]:
    ticket = conversation.ticket
    assert ticket is not None  # noqa: S101  # those without are left out
    return {
        "id": ticket.id,
        "helpdesk": ticket.helpdesk,
        "url": pipeline.deployment.helpdesk(ticket.helpdesk).url_of(ticket.id),
        "reference": conversation.reference,
        "contact": conversation.contact_id,
        "category": conversation.category,
        "priority": conversation.priority.value,
        "state": "closed" if conversation.state is State.CLOSED else "open",
        "entries": list(_entries(pipeline.store.thread(conversation.id))),
    }


def _entries(said: list[Message]) -> Iterator[dict[str, Any]]:
    for message in said:
        if message.direction is Direction.INBOUND:
            files = [a.model_dump(mode="json") for a in message.attachments]
            yield message.model_dump(mode="json", exclude={"raw"}) | {"files": files}
        else:
            at = message.sent_at.isoformat()
            yield {"kind": "reply", "agent": message.author, "text": message.text, "at": at}
