"""What stands on Freshdesk's tickets: ours as its HTML, and its lists in our nouns. Pure.

https://developers.freshdesk.com/api/#list_all_ticket_notes
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from chalicelib.errors import RetryableError
from chalicelib.ports import FromDesk
from chalicelib.schema import Attachment, Correction, Moment, Reply, TicketChange
from connectors.hypertext import HISTORY, html_text
from connectors.note_commands import command_in

_Shape = TypeVar("_Shape", bound=BaseModel)
_MARK = re.compile(r"\[askonce:[^\]\s]*\]")
#: The class of the history below a reply.
_QUOTE = "freshdesk_quote"
#: Of a conversation's sources: replies and notes. Others are forwards to third parties, surveys ...
_SAID_BY_AGENTS = (0, 2)
_CLOSED = (4, 5)
#: What was said as late as this before a ticket's latest change may not have been listed then.
_OVERLAP = timedelta(seconds=120)

_Id = Annotated[str, BeforeValidator(str)]


class _Listed(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)
    id: _Id


class Ticket(_Listed):
    """A ticket of a list."""

    status: int
    updated_at: Moment
    custom_fields: dict[str, Any] = {}


class _File(_Listed):
    name: str = ""
    content_type: str | None = None
    size: int | None = None
    attachment_url: str


class _Talk(_Listed):
    body: str | None = None
    incoming: bool = False
    #: A note is private unless it says otherwise.
    private: bool = True
    source: int | None = None
    user_id: int | None = None
    created_at: Moment
    attachments: list[_File] = []


def mark(key: str) -> str:
    """Our key as it stands in a note."""
    return escape(f"[askonce:{key}]")


def html(text: str, key: str = "") -> str:
    """A text as HTML; with our key below it, small and white, as text survives all cleaning."""
    lines = escape(text, quote=False).replace("\n", "<br>")
    if not key:
        return f"<div>{lines}</div>"
    return f'<div>{lines}</div><div style="font-size:1px;color:#ffffff">{mark(key)}</div>'


def iso(epoch: int) -> str:
    """An epoch time as `2026-01-01T09:00:00Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shaped(model: type[_Shape], told: dict[str, Any]) -> _Shape:
    """One thing of a list. RetryableError if it is not like that."""
    try:
        return model.model_validate(told)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise RetryableError(f"Freshdesk's answer is malformed: {where}") from None


def happened(ticket: Ticket, said: Iterable[dict[str, Any]], since: int) -> Iterator[FromDesk]:
    """What was said from shortly before `since` on, and that the ticket is closed, if that is news.

    That it is open is none: it may be our own doing.
    """
    from_then = datetime.fromtimestamp(since, UTC)
    for each in said:
        talk = shaped(_Talk, each)
        if talk.created_at >= from_then - _OVERLAP:
            yield from _told(ticket.id, talk)
    if ticket.status in _CLOSED and ticket.updated_at > from_then:
        yield TicketChange(
            ticket_id=ticket.id,
            external_id=f"closed-{int(ticket.updated_at.timestamp())}",
            state="closed",
            at=ticket.updated_at,
        )


def _told(ticket_id: str, talk: _Talk) -> Iterator[FromDesk]:
    """A reply, or a correction; nothing of customers (incoming) and of us (that, or private)."""
    if talk.incoming or talk.source not in _SAID_BY_AGENTS:
        return
    text = _words(talk.body or "")
    files = tuple(_attachment(file) for file in talk.attachments)
    if talk.private:
        yield from _corrections(ticket_id, talk, text)
    elif text or files:
        yield Reply(
            ticket_id=ticket_id,
            external_id=talk.id,
            text=text,
            attachments=files,
            sent_at=talk.created_at,
        )


def _words(body: str) -> str:
    """What is said in a note's HTML: without history, and the mark that a quoted note has."""
    quoted = body.find(_QUOTE)
    own = body if quoted < 0 else body[: max(body.rfind("<", 0, quoted), 0)]
    return _MARK.sub("", html_text(own).partition(HISTORY)[0]).strip()


def _corrections(ticket_id: str, talk: _Talk, text: str) -> Iterator[FromDesk]:
    if found := command_in(text):
        yield Correction(
            ticket_id=ticket_id,
            external_id=talk.id,
            kind=found[0],
            address=found[1],
            by=f"agent {talk.user_id}",
            at=talk.created_at,
        )


def _attachment(file: _File) -> Attachment:
    return Attachment(
        name=file.name,
        media_type=file.content_type or "application/octet-stream",
        size_bytes=file.size,
        source=file.attachment_url,
    )
