"""What Zendesk's events say of tickets, in our nouns. Pure.

A file that an agent sends is an event of its own there, so it is a reply of its own here.

https://developer.zendesk.com/api-reference/webhooks/event-types/ticket-events/
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chalicelib.errors import PayloadError
from chalicelib.ports import FromDesk
from chalicelib.schema import Attachment, Correction, Moment, Reply, TicketChange
from connectors.note_commands import Command, command_in

_CLOSED = ("solved", "closed")
#: What Zendesk tags a ticket with when it closes it because of a merge.
_MERGED_TAG = "closed_by_merge"
#: What it does by itself has this actor.
_NOBODY = ("", "-1")


def read(body: bytes, own: str) -> list[FromDesk]:
    """What an event says; `own` is the number of the account that AskOnce uses. PayloadError."""
    try:
        event = _Event.model_validate_json(body)
        told = _TOLD.get(event.type.removeprefix("zen:event-type:ticket."))
        return list(told(event, own)) if told else []
    except ValidationError as error:
        raise PayloadError(f"the event is malformed: {error.errors()[0]['loc']}") from None
    except OverflowError:
        raise PayloadError("the event's time is out of range") from None


#: A number that Zendesk writes as text or not, and `null` or '' for none.
_Id = Annotated[str, BeforeValidator(lambda v: "" if v is None else str(v)), Field(max_length=64)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)


class _Ticket(_Shape):
    id: Annotated[_Id, Field(min_length=1)]
    #: Who did it.
    actor_id: _Id = ""
    requester_id: _Id = ""
    tags: list[str] | None = None
    updated_at: Moment


class _Event(_Shape):
    id: str = Field(min_length=1, max_length=512)
    type: str
    detail: _Ticket
    event: dict[str, Any]


class _Author(_Shape):
    id: _Id
    name: str | None = None
    is_staff: bool = False


class _File(_Shape):
    id: _Id
    content_url: str
    content_type: str | None = None
    filename: str | None = None
    is_public: bool = False


class _Comment(_Shape):
    id: Annotated[_Id, Field(min_length=1)]


class _Words(_Comment):
    body: str | None = None
    is_public: bool = False
    author: _Author


class _WithFile(_Comment):
    attachment: _File


class _Said(_Shape):
    comment: _Words


class _Linked(_Shape):
    comment: _WithFile


class _Moved(_Shape):
    current: str
    previous: str | None = None


class _Merged(_Shape):
    target_ticket_id: Annotated[_Id, Field(min_length=1)]


class _Tagged(_Shape):
    tags_added: list[str] = []


def _said(event: _Event, own: str) -> Iterator[FromDesk]:
    """An agent's words: public, a reply; private, perhaps a correction."""
    comment, ticket = _Said.model_validate(event.event).comment, event.detail
    ours = {own, ticket.requester_id}
    if not comment.author.is_staff or comment.author.id in ours or ticket.actor_id == own:
        return
    text, author = (comment.body or "").strip(), comment.author.name or ""
    if comment.is_public and text:
        yield Reply(
            ticket_id=ticket.id,
            external_id=comment.id,
            text=text,
            author=author,
            sent_at=ticket.updated_at,
        )
    elif found := None if comment.is_public else command_in(text):
        yield _correction(event, comment.id, found, author)


def _linked(event: _Event, own: str) -> Iterator[FromDesk]:
    """A file of an agent's public comment. Who wrote that is not said; who did it is."""
    comment, ticket = _Linked.model_validate(event.event).comment, event.detail
    file = comment.attachment
    if not file.is_public or ticket.actor_id in (*_NOBODY, own, ticket.requester_id):
        return
    yield Reply(
        ticket_id=ticket.id,
        external_id=f"{comment.id}-{file.id}",
        text="",
        attachments=(
            Attachment(
                name=file.filename or "",
                media_type=file.content_type or "application/octet-stream",
                # the comment goes along for `Zendesk.fetch`
                source=f"{file.content_url}#{ticket.id}/{comment.id}",
            ),
        ),
        # before the words of the same moment, so that those are the answer
        sent_at=ticket.updated_at - timedelta(milliseconds=1),
    )


def _moved(event: _Event, own: str) -> Iterator[FromDesk]:
    """Solved, or opened again; not by us, and not by what `_merged` tells."""
    moved, ticket = _Moved.model_validate(event.event), event.detail
    closed = moved.current.lower() in _CLOSED
    before = (moved.previous or "").lower() in _CLOSED
    if closed == before or ticket.actor_id == own or _MERGED_TAG in (ticket.tags or ()):
        return
    yield TicketChange(
        ticket_id=ticket.id,
        external_id=event.id,
        state="closed" if closed else "open",
        at=ticket.updated_at,
    )


def _merged(event: _Event, own: str) -> Iterator[FromDesk]:
    yield TicketChange(
        ticket_id=event.detail.id,
        external_id=event.id,
        state="merged",
        merged_into=_Merged.model_validate(event.event).target_ticket_id,
        at=event.detail.updated_at,
    )


def _tagged(event: _Event, own: str) -> Iterator[FromDesk]:
    """A correction by tag; a tag holds no address, so it is one that names none."""
    for tag in _Tagged.model_validate(event.event).tags_added:
        found = command_in(tag.replace("_", "-"))
        if found and not found[1] and event.detail.actor_id != own:
            yield _correction(event, f"{event.id}-{found[0]}", found, event.detail.actor_id)


def _correction(
    event: _Event, own_id: str, found: tuple[Command, str | None], by: str
) -> Correction:
    return Correction(
        ticket_id=event.detail.id,
        external_id=own_id,
        kind=found[0],
        address=found[1],
        by=by,
        at=event.detail.updated_at,
    )


_TOLD: dict[str, Callable[[_Event, str], Iterator[FromDesk]]] = {
    "comment_added": _said,
    "attachment_linked_to_comment": _linked,
    "status_changed": _moved,
    "merged": _merged,
    "tags_changed": _tagged,
}
