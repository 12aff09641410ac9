"""What Qiyu pushes: agents' messages, and sessions that begin and end. Pure.

It tells `uid`, which is our ticket, and of messages not which session they belong to. Everything
that agents write reaches the customer through us alone: a line that is a command goes no further.

https://qiyukf.com/newdoc/html/message_interface.html
"""

import json
import mimetypes
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chalicelib.errors import PayloadError
from chalicelib.ports import FromDesk
from chalicelib.schema import Attachment, Correction, Reply, TicketChange
from connectors.note_commands import command_in

#: Closed by the agent, by the customer's silence, or as the agent left; else it goes on elsewhere.
_ENDS = (0, 2, 4)
_Uid = Annotated[str, Field(min_length=1, max_length=512)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)


class _Message(_Shape):
    uid: _Uid
    msgId: str = Field(min_length=1, max_length=512)  # noqa: N815  # theirs
    msgType: str = Field(max_length=64)  # noqa: N815
    #: Text; of anything else an object, or its JSON.
    content: str | dict[str, Any]
    staffName: str | None = None  # noqa: N815
    #: Epoch milliseconds.
    timeStamp: Annotated[int, Field(ge=0, le=253_402_300_799_000)]  # noqa: N815


class _File(_Shape):
    url: str = Field(min_length=1)
    name: str | None = None
    size: int | None = None


class _Session(_Shape):
    uid: _Uid
    sessionId: int  # noqa: N815
    closeReason: int | None = None  # noqa: N815
    transferFrom: int | None = None  # noqa: N815
    transferTo: int | None = None  # noqa: N815


def read(event_type: str, body: bytes, at: datetime) -> list[FromDesk]:
    """What an event says; `at` is when it was sent. PayloadError."""
    told = _TOLD.get(event_type)
    try:
        return list(told(body, at)) if told else []
    except ValidationError as error:
        raise PayloadError(f"the event is malformed: {error.errors()[0]['loc']}") from None


def _said(body: bytes, at: datetime) -> Iterator[FromDesk]:
    message = _Message.model_validate_json(body)
    sent_at = datetime.fromtimestamp(message.timeStamp / 1000, UTC)
    author = message.staffName or ""
    text, files = _content(message)
    if found := command_in(text) if len(text.splitlines()) == 1 else None:
        yield Correction(
            ticket_id=message.uid,
            external_id=message.msgId,
            kind=found[0],
            address=found[1],
            by=author,
            at=sent_at,
        )
    elif text or files:
        yield Reply(
            ticket_id=message.uid,
            external_id=message.msgId,
            text=text,
            author=author,
            attachments=files,
            sent_at=sent_at,
        )


def _content(message: _Message) -> tuple[str, tuple[Attachment, ...]]:
    content = message.content
    if message.msgType == "TEXT":
        if not isinstance(content, str):
            raise PayloadError("a text is none")
        return content.strip(), ()
    file = (
        _File.model_validate_json(content)
        if isinstance(content, str)
        else _File.model_validate_json(json.dumps(content))
    )
    return "", (_attachment(file, message.msgType),)


def _attachment(file: _File, kind: str) -> Attachment:
    try:
        path = unquote(urlsplit(file.url).path)
    except ValueError:
        raise PayloadError("a file's address is malformed") from None
    name = (file.name or path).replace("\\", "/").rpartition("/")[2]
    return Attachment(
        name=name,
        media_type=mimetypes.guess_type(name)[0] or _TYPES.get(kind, "application/octet-stream"),
        size_bytes=file.size,
        source=file.url,
    )


#: Of files whose names do not tell.
_TYPES = {"PICTURE": "image/jpeg", "AUDIO": "audio/amr"}


def _began(body: bytes, at: datetime) -> Iterator[TicketChange]:
    """An agent took it up again, by what was left while nobody was there."""
    session = _Session.model_validate_json(body)
    if session.transferFrom is None:
        mine = f"{session.sessionId}-start"
        yield TicketChange(ticket_id=session.uid, external_id=mine, state="open", at=at)


def _ended(body: bytes, at: datetime) -> Iterator[TicketChange]:
    session = _Session.model_validate_json(body)
    if session.closeReason in _ENDS and session.transferTo is None:
        mine = f"{session.sessionId}-end"
        yield TicketChange(ticket_id=session.uid, external_id=mine, state="closed", at=at)


_TOLD: dict[str, Callable[[bytes, datetime], Iterator[FromDesk]]] = {
    "MSG": _said,
    "SESSION_START": _began,
    "SESSION_END": _ended,
}
