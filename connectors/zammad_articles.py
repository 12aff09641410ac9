"""Zammad's articles: as we write them, and as it tells them, by webhook or when asked. Pure.

A ticket and its latest article are told together, whatever happened, so what they say has ids that
stay the same: an article its number, a closing its time.

https://admin-docs.zammad.org/en/latest/manage/webhook/payload.html
https://docs.zammad.org/en/latest/api/ticket/articles.html
"""

import base64
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chalicelib.errors import PayloadError
from chalicelib.ports import FromDesk
from chalicelib.schema import Attachment, Correction, Message, Moment, Reply, TicketChange
from connectors import ticket_text
from connectors.desk_calls import name_of
from connectors.hypertext import HISTORY, html_text
from connectors.note_commands import command_in

OPEN = ("new", "open")
_Number = Annotated[int, Field(ge=0, lt=10**18)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)


class File(_Shape):
    """A file of an article."""

    id: _Number
    filename: str | None = None
    size: int | None = None
    preferences: dict[str, Any] | None = None


class Article(_Shape):
    """What somebody said on a ticket."""

    id: _Number
    sender: str
    type: str = ""
    internal: bool
    body: str | None = None
    content_type: str | None = None
    from_: str | None = Field(default=None, alias="from")
    created_by_id: _Number
    created_at: Moment
    attachments: list[File] | None = None


class Ticket(_Shape):
    """A ticket as it is now; `last_close_at` stays when it is opened again."""

    id: _Number
    state: str
    updated_by_id: _Number | None = None
    updated_at: Moment
    last_close_at: Moment | None = None


class Told(_Shape):
    """A webhook's body; its article is empty where none was written."""

    ticket: Ticket
    article: Annotated[Article | None, BeforeValidator(lambda found: found or None)] = None


@dataclass(frozen=True)
class Reader:
    """How one installation is read."""

    #: The number of the user that AskOnce is there.
    own: int
    #: The types of articles that are meant for the customer and that Zammad does not send itself.
    reply_types: Collection[str]
    closed_states: Collection[str]

    def webhook(self, body: bytes) -> list[FromDesk]:
        """What a webhook says. PayloadError."""
        try:
            told = Told.model_validate_json(body)
        except ValidationError as error:
            raise PayloadError(f"the event is malformed: {error.errors()[0]['loc']}") from None
        if told.article is None:
            return [*self.closed(told.ticket), *self._opened(told.ticket)]
        return [*self.said(told.ticket.id, told.article), *self.closed(told.ticket)]

    def said(self, ticket_id: int, article: Article) -> Iterator[FromDesk]:
        """An agent's words: public, a reply; internal, perhaps a correction. Nothing of ours."""
        if article.sender != "Agent" or article.created_by_id == self.own:
            return
        text = _text(article)
        author = (article.from_ or "").partition(" <")[0].strip()
        if article.internal:
            yield from _corrections(ticket_id, article, text, author)
        elif article.type in self.reply_types and (text or article.attachments):
            yield Reply(
                ticket_id=str(ticket_id),
                external_id=str(article.id),
                text=text,
                author=author,
                attachments=tuple(_file(ticket_id, article.id, f) for f in _files(article)),
                sent_at=article.created_at,
            )

    def closed(self, ticket: Ticket) -> Iterator[TicketChange]:
        """Its latest closing, if it is closed: the same one however often it is told."""
        if ticket.state in self.closed_states:
            at = ticket.last_close_at or ticket.updated_at
            yield TicketChange(
                ticket_id=str(ticket.id),
                external_id=f"{ticket.id}-closed-{at.isoformat()}",
                state="closed",
                at=at,
            )

    def _opened(self, ticket: Ticket) -> Iterator[TicketChange]:
        """It was closed, and is open now: by an agent, once for each closing."""
        if ticket.state in OPEN and ticket.last_close_at and ticket.updated_by_id != self.own:
            yield TicketChange(
                ticket_id=str(ticket.id),
                external_id=f"{ticket.id}-open-{ticket.last_close_at.isoformat()}",
                state="open",
                at=ticket.updated_at,
            )


def _text(article: Article) -> str:
    body = article.body or ""
    rich = article.content_type == "text/html"
    return (html_text(body).partition(HISTORY)[0] if rich else body).strip()


def _corrections(ticket_id: int, note: Article, text: str, by: str) -> Iterator[Correction]:
    if found := command_in(text):
        yield Correction(
            ticket_id=str(ticket_id),
            external_id=str(note.id),
            kind=found[0],
            address=found[1],
            by=by,
            at=note.created_at,
        )


def _files(article: Article) -> list[File]:
    return article.attachments or []


def _file(ticket_id: int, article_id: int, file: File) -> Attachment:
    """Its source is the path's end: the address that a payload states is never asked."""
    named: Mapping[str, Any] = file.preferences or {}
    media_type = str(named.get("Mime-Type") or named.get("Content-Type") or "")
    return Attachment(
        name=(file.filename or "").replace("\\", "/").rpartition("/")[2],
        media_type=media_type.partition(";")[0].strip().lower() or "application/octet-stream",
        size_bytes=file.size,
        source=f"{ticket_id}/{article_id}/{file.id}",
    )


# Written


def message_id(key: str) -> str:
    """Where our key stands in an article."""
    return f"{key}@askonce"


def written(text: str, key: str) -> dict[str, Any]:
    """An article of ours, whoever is to have said it."""
    return {"body": text, "content_type": "text/plain", "message_id": message_id(key)}


def of_customer(message: Message, key: str) -> dict[str, Any]:
    """An article of the customer's."""
    files = [_upload(a, n) for n, a in enumerate(message.attachments, 1) if a.content]
    article = written(ticket_text.words(message), key)
    article |= {"type": "web", "sender": "Customer", "internal": False}
    return article | ({"attachments": files} if files else {})


def _upload(file: Attachment, number: int) -> dict[str, str]:
    encoded = base64.b64encode(file.content or b"").decode("ascii")
    return {"filename": name_of(file, number), "data": encoded, "mime-type": file.media_type}
