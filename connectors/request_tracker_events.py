"""What Request Tracker says happened, told by its Scrip or found when asked: both ways are one.

An event is a transaction of RT's; its number is the id of what it becomes.

https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html
"""

import base64
import binascii
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from chalicelib.errors import RejectedError, RetryableError
from chalicelib.ports import FromDesk
from chalicelib.schema import Attachment, Correction, Moment, Reply, TicketChange
from connectors.desk_calls import DeskCalls
from connectors.hypertext import html_text
from connectors.note_commands import command_in

_PAGE = 50
#: Transactions are numbered before they can be seen: for so long an earlier one may still appear.
_SETTLED = timedelta(seconds=20)
_HAPPENED = {
    "Correspond": "ticket.reply",
    "Comment": "ticket.note",
    "Status": "ticket.status",
    "AddLink": "ticket.merged",
}
_TEXTS = ("text/plain", "text/html")
#: RT opens a ticket by itself when somebody writes on it, we too: that is no agent's doing.
_RT_ITSELF = "RT_System"


class File(BaseModel):
    """A file on a transaction."""

    model_config = ConfigDict(extra="ignore")
    id: int
    name: str | None = None
    type: str = "application/octet-stream"
    size: int | None = None


class Event(BaseModel):
    """One transaction, as the Scrip tells it and as we find it when we ask."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["ticket.reply", "ticket.note", "ticket.status", "ticket.merged"]
    ticket: int
    transaction: int
    author: str
    author_name: str = ""
    is_agent: bool = False
    created: Moment
    old: str | None = None
    new: str | None = None
    content_type: str | None = None
    content: str = ""
    files: tuple[File, ...] = ()

    def read(self, *, own: str, closed: Collection[str]) -> list[FromDesk]:
        """What it says to us; nothing of what the user `own` did, as that is ours."""
        if self.author == own:
            return []
        if self.type == "ticket.status":
            return list(_moved(self, closed))
        translate = {"ticket.reply": _reply, "ticket.note": _correction, "ticket.merged": _merge}
        return list(translate[self.type](self))


def _moved(event: Event, closed: Collection[str]) -> Iterator[FromDesk]:
    was, now = event.old in closed, event.new in closed
    if was == now or (was and event.author == _RT_ITSELF):
        return
    yield TicketChange(**_place(event), state="closed" if now else "open", at=event.created)


def _place(event: Event) -> dict[str, str]:
    return {"ticket_id": str(event.ticket), "external_id": str(event.transaction)}


def _text(event: Event) -> str:
    return html_text(event.content) if event.content_type == "text/html" else event.content.strip()


def _reply(event: Event) -> Iterator[FromDesk]:
    """What an agent said: a customer who answers RT's mail writes on the ticket, too."""
    text = _text(event)
    if event.is_agent and (text or event.files):
        yield Reply(
            **_place(event),
            text=text,
            author=event.author_name,
            attachments=tuple(_attachment(file) for file in event.files),
            sent_at=event.created,
        )


def _attachment(file: File) -> Attachment:
    return Attachment(
        name=(file.name or "").replace("\\", "/").rpartition("/")[2],
        media_type=file.type.lower() or "application/octet-stream",
        size_bytes=file.size,
        source=str(file.id),
    )


def _correction(event: Event) -> Iterator[FromDesk]:
    command = command_in(_text(event))
    if event.is_agent and command:
        kind, address = command
        yield Correction(
            **_place(event), kind=kind, address=address, by=event.author_name, at=event.created
        )


def _merge(event: Event) -> Iterator[FromDesk]:
    """Both tickets are told of it; one goes into the other: fsck.com-rt://example.com/ticket/2."""
    into = (event.new or "").rpartition("/ticket/")[2]
    if into.isdecimal() and into != str(event.ticket):
        yield TicketChange(**_place(event), state="merged", merged_into=into, at=event.created)


# When asked


def quoted(text: str) -> str:
    """A text as RT's searches want it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def found_in(calls: DeskCalls, what: str, query: Any, **more: str | int) -> list[dict[str, Any]]:
    """What a search finds; `query` is TicketSQL, or a list of conditions."""
    asked = query if isinstance(query, str) else json.dumps(query)
    answer = calls.get(f"/{what}", query=asked, **more)
    if not isinstance(answer, dict) or not isinstance(answer.get("items"), list):
        raise RetryableError("RT's answer is no list")
    return list(answer["items"])


def content_of(part: Any) -> bytes:
    """The bytes of an attachment, which RT writes as base64."""
    try:
        return base64.b64decode(part["Content"])
    except (binascii.Error, KeyError, TypeError, ValueError):
        raise RetryableError("RT's answer is no attachment") from None


@dataclass(frozen=True)
class Page:
    """What happened, in order, and where to go on."""

    events: Sequence[Event]
    cursor: str
    more: bool


class History:
    """What others than `own` do on the tickets of some queues."""

    def __init__(self, calls: DeskCalls, own: str, queues: Sequence[str]) -> None:
        self._calls, self._own, self._queues = calls, own, queues

    def latest(self) -> str:
        """The number of what happened last."""
        last = self._search("id>0", orderby="id", order="DESC", per_page=1)
        return str(last[0]["id"]) if last else "0"

    def after(self, cursor: str, now: datetime) -> Page:
        """What happened after the transaction of that number. A state that is past is no news."""
        wanted = {"orderby": "id", "fields": "Type,Creator,ObjectId,Created,OldValue,NewValue"}
        page = self._search(f"id>{int(cursor)}", per_page=_PAGE, **wanted)
        try:
            settled = _until_fresh(page, now - _SETTLED)
            return Page(
                events=self._events(settled),
                cursor=str(settled[-1]["id"]) if settled else cursor,
                more=len(settled) == _PAGE,
            )
        except (KeyError, TypeError, ValueError):
            raise RetryableError("RT's answer is no list of transactions") from None

    def _search(self, after: str, **how: str | int) -> list[dict[str, Any]]:
        """RT leaves out what we may not see only after it has cut the page: in these queues we
        see everything, so that a short page is the last one."""
        queues = " OR ".join(f"TicketQueue={quoted(queue)}" for queue in self._queues)
        kinds = "Type='Correspond' OR Type='Comment' OR Type='Status'"
        merges = "(Type='AddLink' AND Field='MergedInto')"
        query = (
            f"ObjectType='RT::Ticket' AND {after} AND Creator!={quoted(self._own)}"
            f" AND ({queues}) AND ({kinds} OR {merges})"
        )
        return found_in(self._calls, "transactions", query, **how)

    def _events(self, page: list[dict[str, Any]]) -> list[Event]:
        states, users = self._states(page), dict[str, Any]()
        events = []
        for told in page:
            event = self._event(told, users)
            past = told["Type"] == "Status" and states.get(told["ObjectId"]) not in (
                None,
                told["NewValue"],
            )
            if event and not past:
                events.append(event)
        return events

    def _states(self, page: list[dict[str, Any]]) -> dict[str, str]:
        """The present states of those tickets whose state changed; not of deleted ones."""
        tickets = sorted({int(told["ObjectId"]) for told in page if told["Type"] == "Status"})
        if not tickets:
            return {}
        query = " OR ".join(f"id={ticket}" for ticket in tickets)
        found = found_in(self._calls, "tickets", query, fields="Status", per_page=_PAGE)
        return {str(each["id"]): str(each["Status"]) for each in found}

    def _event(self, told: Mapping[str, Any], users: dict[str, Any]) -> Event | None:
        """What the Scrip would have said of a transaction; None if it is gone meanwhile."""
        author = str(told["Creator"]["id"])
        event = {
            "type": _HAPPENED[told["Type"]],
            "ticket": told["ObjectId"],
            "transaction": told["id"],
            "author": author,
            "created": told["Created"],
            "old": told.get("OldValue"),
            "new": told.get("NewValue"),
        }
        try:
            if told["Type"] in ("Correspond", "Comment"):
                event |= self._author(author, users) | self._parts(str(told["id"]))
        except RejectedError:
            return None
        return Event.model_validate(event)

    def _author(self, name: str, users: dict[str, Any]) -> dict[str, Any]:
        if name not in users:
            users[name] = self._calls.get(f"/user/{quote(name, safe='')}")
        user = users[name]
        return {"author_name": user.get("RealName") or name, "is_agent": int(user["Privileged"])}

    def _parts(self, transaction: str) -> dict[str, Any]:
        """A transaction's text and files: the same choice as the Scrip's."""
        where = f"transaction/{quote(transaction)}/attachments"
        fields = "ContentType,Filename,ContentLength"
        texts: dict[str, str] = {}
        files = []
        for part in found_in(self._calls, where, [], fields=fields, per_page=100):
            kind, name = part.get("ContentType") or "", part.get("Filename")
            if kind in _TEXTS and not name and kind not in texts:
                texts[kind] = str(part["id"])
            elif not kind.startswith("multipart/"):
                size = part.get("ContentLength")
                files.append({"id": part["id"], "name": name, "type": kind, "size": size})
        kind = next((kind for kind in _TEXTS if kind in texts), "")
        text = content_of(self._calls.get(f"/attachment/{texts[kind]}")) if kind else b""
        return {"content_type": kind, "content": text.decode("utf-8", "replace"), "files": files}


def _until_fresh(page: list[dict[str, Any]], before: datetime) -> list[dict[str, Any]]:
    """The page up to its first transaction that is not older than that."""
    fresh = (n for n, t in enumerate(page) if datetime.fromisoformat(t["Created"]) > before)
    return page[: next(fresh, len(page))]
