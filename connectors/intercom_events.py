"""What Intercom says of conversations, in its webhooks and its API, in our nouns. Pure.

https://developers.intercom.com/docs/references/webhooks/webhook-models
https://developers.intercom.com/docs/webhooks/webhook-notifications
"""

import mimetypes
import re
from collections.abc import Iterator
from html import unescape
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chalicelib.errors import PayloadError
from chalicelib.ports import FromDesk
from chalicelib.schema import Attachment, Correction, Moment, Reply, TicketChange
from connectors.hypertext import html_text
from connectors.note_commands import command_in

#: What kinds of parts a topic may show to customers. A kind that is not here stays there: the body
#: of an assignment, for example, may be a remark.
_PUBLIC = {
    "conversation.admin.replied": {"comment", "open", "close"},
    "conversation.admin.closed": {"comment", "close"},
}
_STATES: dict[str, Literal["open", "closed"]] = {
    "conversation.admin.closed": "closed",
    "conversation.admin.opened": "open",
}
_NOTED = "conversation.admin.noted"
_PICTURE = re.compile(r'<img\b[^<>]*?\bsrc="([^"<>]+)"')


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)


class Author(_Shape):
    """Who says something: an `admin` is a teammate, a `bot` is Fin or a workflow."""

    type: str = ""
    id: str | int | None = None
    name: str | None = None


class File(_Shape):
    """A file of a part."""

    name: str | None = None
    url: str | None = None
    content_type: str | None = None
    filesize: int | None = None


class Part(_Shape):
    """One thing said or done in a conversation."""

    id: str
    part_type: str
    #: HTML, unless it was asked for as plain text.
    body: str | None = None
    created_at: Moment
    author: Author = Author()
    attachments: list[File] | None = None
    redacted: bool | None = None


class Parts(_Shape):
    """The parts, oldest first."""

    conversation_parts: list[Part] = []


class Party(_Shape):
    """A contact that takes part."""

    id: str


class Parties(_Shape):
    """All of them."""

    contacts: list[Party] = []


class Source(_Shape):
    """What a conversation began with."""

    body: str | None = None


class Thread(_Shape):
    """A conversation."""

    id: str
    state: str | None = None
    source: Source | None = None
    contacts: Parties = Parties()
    custom_attributes: dict[str, Any] = Field(default_factory=dict)
    conversation_parts: Parts = Parts()

    @property
    def said(self) -> list[Part]:
        """Its parts, the latest 500 at most."""
        return self.conversation_parts.conversation_parts

    @property
    def last_key(self) -> str:
        """The key of what we added last as the customer."""
        return self._mark[0]

    @property
    def last(self) -> str:
        """The part that it became."""
        return self._mark[2]

    @property
    def _mark(self) -> tuple[str, str, str]:
        return str(self.custom_attributes.get("askonce_last") or "").partition(" ")

    def said_since(self, last: str, author: str) -> list[Part]:
        """What that author said after a part; all that is here if the part is not."""
        after = next((n for n, part in enumerate(self.said, 1) if part.id == last), 0)
        return [part for part in self.said[after:] if str(part.author.id) == author]

    def began(self, text: str) -> bool:
        """It began with just these words."""
        return self.source is not None and _bare(html_text(self.source.body or "")) == _bare(text)


def take(parts: list[Part], text: str) -> Part | None:
    """The first of the parts, of plain text, that says just that; it is taken out."""
    found = next((part for part in parts if _bare(part.body or "") == _bare(text)), None)
    if found:
        parts.remove(found)
    return found


def _bare(text: str) -> str:
    return " ".join(text.split())


class _Carried(_Shape):
    item: Thread


class _Notification(_Shape):
    id: str
    created_at: Moment
    topic: str
    data: _Carried


class _Topic(_Shape):
    topic: str


def events(body: bytes, own_admin: str) -> Iterator[FromDesk]:
    """What a webhook says; `own_admin` is who we write notes as. PayloadError."""
    try:
        topic = _Topic.model_validate_json(body).topic
        if topic in {*_PUBLIC, *_STATES, _NOTED}:
            yield from _events(_Notification.model_validate_json(body), own_admin)
    except ValidationError as error:
        raise PayloadError(f"the event is malformed: {error.errors()[0]['loc']}") from None


def _events(told: _Notification, own_admin: str) -> Iterator[FromDesk]:
    thread = told.data.item
    for part in thread.conversation_parts.conversation_parts:
        if part.author.type != "admin" or part.redacted:
            continue
        if part.part_type in _PUBLIC.get(told.topic, ()):
            yield from _reply(part, thread.id)
        elif told.topic == _NOTED and str(part.author.id) != own_admin:
            yield from _correction(part, thread.id)
    if state := _STATES.get(told.topic):
        yield TicketChange(
            ticket_id=thread.id, external_id=told.id, state=state, at=told.created_at
        )


def _reply(part: Part, ticket_id: str) -> Iterator[Reply]:
    text, files = html_text(part.body or ""), _files(part)
    if text or files:
        yield Reply(
            ticket_id=ticket_id,
            external_id=part.id,
            text=text,
            author=part.author.name or "",
            attachments=files,
            sent_at=part.created_at,
        )


def _correction(part: Part, ticket_id: str) -> Iterator[Correction]:
    if found := command_in(html_text(part.body or "")):
        yield Correction(
            ticket_id=ticket_id,
            external_id=part.id,
            kind=found[0],
            address=found[1],
            by=part.author.name or "",
            at=part.created_at,
        )


def _files(part: Part) -> tuple[Attachment, ...]:
    """The part's files, and the pictures that stand in its text."""
    listed = {file.url: file for file in part.attachments or () if file.url}
    pictures = (unescape(url) for url in _PICTURE.findall(part.body or ""))
    inline = {url: File(url=url) for url in pictures if url not in listed}
    return tuple(_attachment(url, file) for url, file in (listed | inline).items() if url)


def _attachment(url: str, file: File) -> Attachment:
    name = file.name or unquote(urlsplit(url).path.rpartition("/")[2])
    guessed = mimetypes.guess_type(name)[0]
    return Attachment(
        name=name.rpartition("/")[2],
        media_type=file.content_type or guessed or "application/octet-stream",
        size_bytes=file.filesize,
        source=url,
    )
