"""What Chatwoot says of conversations, in its webhooks and its lists, in our nouns. Pure.

https://www.chatwoot.com/hc/user-guide/articles/1677693021-how-to-use-webhooks
"""

import mimetypes
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chalicelib.errors import PayloadError
from chalicelib.ports import FromDesk, Signal, WebhookRequest
from chalicelib.schema import Attachment, Correction, Moment, Reply, TicketChange
from connectors.note_commands import command_in

#: In front of our keys: what has it was written by us.
OURS = "askonce:"


def _moment(value: Any) -> Any:
    """`2020-03-03 13:05:57 UTC`, as older versions say it; ISO 8601 and epochs as they are."""
    return value.replace(" UTC", "Z") if isinstance(value, str) else value


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)


class _Event(_Shape):
    event: str


class Sender(_Shape):
    """Who says something: a `user` is an agent."""

    type: str = ""
    name: str | None = None
    available_name: str | None = None


class File(_Shape):
    """A file of a message."""

    data_url: str | None = None
    file_size: int | None = None


class Said(_Shape):
    """A message, as webhooks and lists have it."""

    id: int
    content: str | None = None
    #: A word in webhooks, a number in lists.
    message_type: str | int
    private: bool = False
    source_id: str | None = None
    created_at: Annotated[Moment, BeforeValidator(_moment)]
    content_attributes: dict[str, Any] | None = None
    sender: Sender | None = None
    attachments: list[File] | None = None


class Place(_Shape):
    """An inbox or a conversation."""

    id: int


class MessageCreated(Said):
    """The webhook of that name."""

    conversation: Place
    inbox: Place | None = None


class Typing(_Shape):
    """Somebody types."""

    conversation: Place
    user: Sender
    is_private: bool = False


class Chat(_Shape):
    """A conversation, as its webhooks and lists have it."""

    id: int
    status: str = ""
    inbox_id: int | None = None
    priority: str | None = None
    muted: bool = False
    #: Epoch seconds.
    last_activity_at: float = Field(
        default=0.0, validation_alias=AliasChoices("last_activity_at", "timestamp")
    )
    updated_at: float | str | None = None
    changed_attributes: list[dict[str, Any]] | None = None


def events(request: WebhookRequest, inbox_id: int) -> Iterator[FromDesk]:
    """What a webhook says of conversations of that inbox. PayloadError."""
    try:
        kind = _Event.model_validate_json(request.body).event
        if kind == "message_created":
            said = MessageCreated.model_validate_json(request.body)
            if said.inbox is None or said.inbox.id == inbox_id:
                yield from told(said, str(said.conversation.id))
        elif kind == "conversation_typing_on":
            yield from _typing(Typing.model_validate_json(request.body))
        elif change := _CHANGES.get(kind):
            chat = Chat.model_validate_json(request.body)
            mark = str(chat.updated_at or request.header("x-chatwoot-timestamp"))
            if chat.inbox_id in (None, inbox_id):
                yield from change(chat, mark, request.received_at)
    except ValidationError as error:
        raise PayloadError(f"the event is malformed: {error.errors()[0]['loc']}") from None


def told(said: Said, ticket_id: str) -> Iterator[FromDesk]:
    """A reply, or a correction; nothing of customers, of automatic texts and of us."""
    attributes = said.content_attributes or {}
    ours = (said.source_id or "").startswith(OURS)
    automatic = "automation_rule_id" in attributes
    if said.message_type not in ("outgoing", 1) or ours or automatic or attributes.get("deleted"):
        return
    if said.private:
        yield from _corrections(said, ticket_id)
        return
    text = (said.content or "").strip()
    files = tuple(_attachment(file) for file in said.attachments or () if file.data_url)
    if text or files:
        yield Reply(
            ticket_id=ticket_id,
            external_id=str(said.id),
            text=text,
            author=_name(said.sender),
            attachments=files,
            sent_at=said.created_at,
        )


def _corrections(note: Said, ticket_id: str) -> Iterator[Correction]:
    if found := command_in(note.content or ""):
        yield Correction(
            ticket_id=ticket_id,
            external_id=str(note.id),
            kind=found[0],
            address=found[1],
            by=_name(note.sender),
            at=note.created_at,
        )


def _name(sender: Sender | None) -> str:
    return (sender.available_name or sender.name or "") if sender else ""


def _attachment(file: File) -> Attachment:
    name = unquote(urlsplit(file.data_url or "").path.rpartition("/")[2])
    return Attachment(
        name=name,
        media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
        size_bytes=file.file_size,
        source=file.data_url,
    )


_STATES: dict[str, Literal["open", "closed"]] = {
    "resolved": "closed",
    "open": "open",
    "pending": "open",
}


def state(chat: Chat, mark: str, at: datetime) -> Iterator[TicketChange]:
    """Whether it is open or closed; `mark` tells this change from others. Snoozed is neither."""
    if found := _STATES.get(chat.status):
        yield TicketChange(
            ticket_id=str(chat.id),
            external_id=f"{chat.id}-{chat.status}-{mark}",
            state=found,
            at=at,
        )


def labelled(chat: Chat, mark: str, at: datetime) -> Iterator[Correction]:
    """The labels that were added and are commands."""
    for change in chat.changed_attributes or ():
        labels = change.get("label_list")
        if not isinstance(labels, dict):
            continue
        before = _labels(labels.get("previous_value"))
        for label in sorted(_labels(labels.get("current_value")) - before):
            if found := command_in(label):
                mine = f"{chat.id}-{label}-{mark}"
                yield Correction(ticket_id=str(chat.id), external_id=mine, kind=found[0], at=at)


def _labels(value: Any) -> set[str]:
    listed = value.split(",") if isinstance(value, str) else value
    return {str(label).strip() for label in listed} if isinstance(listed, list) else set()


def _typing(event: Typing) -> Iterator[Signal]:
    if event.user.type == "user" and not event.is_private:
        yield Signal(ticket_id=str(event.conversation.id), kind="typing")


_CHANGES: dict[str, Callable[[Chat, str, datetime], Iterator[FromDesk]]] = {
    "conversation_status_changed": state,
    "conversation_updated": labelled,
}
