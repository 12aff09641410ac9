"""A fake of Freshdesk: it keeps contacts, tickets and notes as the real one does.

Each request is compared with a JSON Schema of the call, written from the vendor's pages; forms
count as the JSON that they stand for.
https://developers.freshdesk.com/api/#create_ticket
https://developers.freshdesk.com/api/#update_ticket
https://developers.freshdesk.com/api/#list_all_tickets
https://developers.freshdesk.com/api/#add_note_to_a_ticket
https://developers.freshdesk.com/api/#list_all_ticket_notes
https://developers.freshdesk.com/api/#create_contact
https://developers.freshdesk.com/api/#list_all_contacts
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from html import unescape
from typing import Any

from jsonschema import Draft202012Validator

from tests.desk_server import Asked, Said

ACCOUNT_URL, API_KEY, PATH_SECRET = (
    "https://example.freshdesk.com",
    "api-key",
    "a-secret-of-16-chars",
)
FIELD, AGENT, OWN_AGENT = "cf_askonce", 7, 9


def _object(required: str, **properties: Any) -> dict[str, Any]:
    """Just these, and the first ones always."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_TEXT, _NUMBER = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
_DIGITS = {"type": "string", "pattern": "^[0-9]+$"}
_PRIORITY, _STATUS = {"enum": [1, 2, 3, 4]}, {"enum": [2, 3, 4, 5]}
_NOTHING: dict[str, Any] = {"not": {}}
_FILES = {"type": "array", "maxItems": 50}
_TICKET = _object(
    "requester_id subject description status priority",
    requester_id=_NUMBER,
    subject=_TEXT | {"maxLength": 255},
    description=_TEXT,
    status=_STATUS,
    priority=_PRIORITY,
    tags={"type": "array", "items": {"type": "string", "maxLength": 32, "pattern": "^[^,]+$"}},
    custom_fields={"type": "object"},
    attachments=_FILES,
)
_NOTE = _object(
    "body",
    body=_TEXT,
    incoming={"type": "boolean"},
    private={"type": "boolean"},
    user_id=_NUMBER,
    attachments=_FILES,
)
_CONTACT = _object(
    "name unique_external_id",
    name=_TEXT,
    unique_external_id=_TEXT,
    email={"type": "string", "pattern": "^[^@ ]+@[^@ ]+$"},
    mobile=_TEXT,
)
_CONTACTS = {
    "type": "object",
    "properties": dict.fromkeys(("unique_external_id", "email", "mobile", "phone"), _TEXT),
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
_PAGES = {"per_page": {"enum": ["20", "100"]}, "page": _DIGITS}
_LIST = _object(
    "per_page page",
    requester_id=_DIGITS,
    updated_since={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
    order_by={"enum": ["created_at", "due_by", "updated_at", "status"]},
    order_type={"enum": ["asc", "desc"]},
    **_PAGES,
)
_CHANGE = _object("", status=_STATUS, priority=_PRIORITY) | {"minProperties": 1}
#: Method, path, and what query and body must be; what is not here is a call that we do not make:
#: `/reply` is not.
_CALLS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("GET", r"/contacts", _CONTACTS, _NOTHING),
    ("POST", r"/contacts", _object(""), _CONTACT),
    ("PUT", r"/contacts/\d+", _object(""), _object("", unique_external_id=_TEXT)),
    ("GET", r"/tickets", _LIST, _NOTHING),
    ("POST", r"/tickets", _object(""), _TICKET),
    ("GET", r"/tickets/\d+", _object(""), _NOTHING),
    ("PUT", r"/tickets/\d+", _object(""), _CHANGE),
    ("GET", r"/tickets/\d+/conversations", _object("per_page page", **_PAGES), _NOTHING),
    ("POST", r"/tickets/\d+/notes", _object(""), _NOTE),
]


def mistake_in(asked: Asked) -> str:
    """What is wrong with a request; '' if nothing."""
    path = asked.path.removeprefix("/api/v2")
    for method, pattern, query, body in _CALLS:
        if asked.method == method and re.fullmatch(pattern, path):
            wrong = list(Draft202012Validator(query).iter_errors(dict(asked.query)))
            if asked.body:
                wrong += Draft202012Validator(body).iter_errors(told_by(asked))
            return "; ".join(f"{e.json_path}: {e.message}" for e in wrong)
    return f"no call of ours: {asked.method} {asked.path}"


def told_by(asked: Asked) -> dict[str, Any]:
    """The JSON of a request, or what a form stands for; its files as (name, type, bytes)."""
    kind = asked.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return dict(asked.json)
    told: dict[str, Any] = {}
    form = BytesParser(policy=HTTP).parsebytes(
        f"Content-Type: {kind}\r\n\r\n".encode() + asked.body
    )
    for part in form.iter_parts():
        found = re.search(r'name="([^"\[]*)(?:\[([^"\]]*)\])?"', part["content-disposition"])
        content = part.get_payload(decode=True)
        assert found
        assert isinstance(content, bytes)
        name, inner = found.groups()
        file = part.get_filename()
        value: Any = (file, part.get_content_type(), content) if file else _typed(content.decode())
        if inner is None:
            told[name] = value
        elif inner == "":
            told.setdefault(name, []).append(value)
        else:
            told.setdefault(name, {})[inner] = value
    return told


def _typed(text: str) -> Any:
    """Everything in a form is text, and is read as what it should be."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdigit() else text


@dataclass
class Ticket:
    """A ticket there."""

    id: int
    told: dict[str, Any]
    updated_at: int
    talks: list[dict[str, Any]] = field(default_factory=list)


class FakeFreshdesk:
    """What the server plays; `now` is its clock, in epoch seconds."""

    def __init__(self, *, now: int = 1767258000) -> None:
        self.now = now
        self.contacts: list[dict[str, Any]] = []
        self.tickets: dict[int, Ticket] = {}
        #: By the note's id.
        self.files: dict[int, list[Any]] = {}
        self.fields = {FIELD}
        self.agents_emails: set[str] = set()
        self.mistakes: list[str] = []
        self._last_talk = 100

    # What agents do

    def say(self, ticket: Ticket, body: str, **more: Any) -> dict[str, Any]:
        """Somebody says something; an agent, as a public reply, unless told otherwise."""
        self._last_talk += 1
        talk = {
            "id": self._last_talk,
            "body": body,
            "body_text": re.sub("<[^>]*>", " ", body),
            "incoming": False,
            "private": False,
            "source": 0,
            "user_id": AGENT,
            "ticket_id": ticket.id,
            "created_at": _iso(self.now),
            "updated_at": _iso(self.now),
            "support_email": None,
            "to_emails": [],
            "attachments": [],
        } | more
        ticket.talks.append(talk)
        ticket.updated_at = self.now
        return talk

    def resolve(self, ticket: Ticket, status: int = 4) -> None:
        """An agent closes it."""
        ticket.told["status"], ticket.updated_at = status, self.now

    def shown(self) -> dict[str, list[str]]:
        """{ticket: what stands on it}, private remarks in brackets; without what is written white.

        A note that is public and not incoming is an agent's answer, which we never give.
        """
        return {
            str(t.id): [_as_read(t.told["description"]), *map(_line, t.talks)]
            for t in self.tickets.values()
        }

    # What is asked

    def answer(self, asked: Asked) -> Said:
        """Act, and say what came of it."""
        if mistake := mistake_in(asked):
            self.mistakes.append(mistake)
            return Said(400, {"description": mistake})
        wanted = "Basic " + base64.b64encode(f"{API_KEY}:X".encode()).decode()
        if asked.headers.get("authorization") != wanted:
            words = "You have to be logged in to perform this action."
            return Said(401, {"code": "invalid_credentials", "message": words})
        ticket = r"/tickets/(\d+)"
        acts: list[tuple[str, str, Callable[..., Said]]] = [
            ("GET", "/contacts", self._contacts),
            ("POST", "/contacts", self._contact),
            ("PUT", r"/contacts/(\d+)", self._mark),
            ("GET", "/tickets", self._list),
            ("POST", "/tickets", self._create),
            ("GET", ticket, self._with(lambda asked, t: Said(200, _shown(t)))),
            ("PUT", ticket, self._with(self._change)),
            ("GET", f"{ticket}/conversations", self._with(self._talks)),
            ("POST", f"{ticket}/notes", self._with(self._note)),
        ]
        path = asked.path.removeprefix("/api/v2")
        for method, pattern, act in acts:
            if asked.method == method and (found := re.fullmatch(pattern, path)):
                return act(asked, *found.groups())
        raise AssertionError(path)

    def _with(self, act: Callable[[Asked, Ticket], Said]) -> Callable[[Asked, str], Said]:
        def found(asked: Asked, number: str) -> Said:
            ticket = self.tickets.get(int(number))
            return act(asked, ticket) if ticket else Said(404)

        return found

    def _contacts(self, asked: Asked) -> Said:
        [(name, value)] = asked.query.items()
        return Said(200, [c for c in self.contacts if c.get(name) == value])

    def _contact(self, asked: Asked) -> Said:
        told = asked.json
        taken = [
            name
            for name in ("email", "unique_external_id")
            if name in told and any(c.get(name) == told[name] for c in self.contacts)
        ]
        if taken or told.get("email") in self.agents_emails:
            words = "It should be a unique value"
            wrong = {"field": (taken or ["email"])[0], "message": words, "code": "duplicate_value"}
            return Said(409, {"description": "Validation failed", "errors": [wrong]})
        contact = {"id": 1001 + len(self.contacts)} | told
        self.contacts.append(contact)
        return Said(201, contact)

    def _mark(self, asked: Asked, number: str) -> Said:
        [contact] = [c for c in self.contacts if c["id"] == int(number)]
        contact |= asked.json
        return Said(200, contact)

    def _list(self, asked: Asked) -> Said:
        wanted, since = asked.query.get("requester_id"), asked.query.get("updated_since", "")
        found = [
            _shown(t)
            for t in sorted(self.tickets.values(), key=lambda t: -t.updated_at)
            if not wanted or str(t.told["requester_id"]) == wanted
        ]
        return _page(asked, [t for t in found if t["updated_at"] >= since])

    def _create(self, asked: Asked) -> Said:
        told = told_by(asked)
        if unknown := set(told.get("custom_fields", {})) - self.fields:
            words = "Unexpected/invalid field in request"
            wrong = {"field": min(unknown), "message": words, "code": "invalid_field"}
            return Said(400, {"description": "Validation failed", "errors": [wrong]})
        ticket = Ticket(21 + len(self.tickets), told, self.now)
        self.tickets[ticket.id] = ticket
        return Said(201, _shown(ticket))

    def _change(self, asked: Asked, ticket: Ticket) -> Said:
        ticket.told |= asked.json
        ticket.updated_at = self.now
        return Said(200, _shown(ticket))

    def _talks(self, asked: Asked, ticket: Ticket) -> Said:
        return _page(asked, ticket.talks)

    def _note(self, asked: Asked, ticket: Ticket) -> Said:
        told = told_by(asked)
        note = {"source": 2, "private": True, "user_id": OWN_AGENT} | told
        files = note.pop("attachments", [])
        talk = self.say(ticket, note.pop("body"), **note)
        self.files[talk["id"]] = files
        return Said(201, talk)


def _line(talk: dict[str, Any]) -> str:
    text = _as_read(talk["body"])
    if talk["private"]:
        return f"[{text}]"
    return text if talk["incoming"] else f"an agent: {text}"


def _as_read(body: str) -> str:
    """HTML as an agent reads it."""
    visible = re.sub(r"<div style=[^>]*color:#ffffff[^>]*>.*?</div>", "", body)
    return unescape(re.sub("<[^>]*>", "", visible.replace("<br>", "\n")))


def _shown(ticket: Ticket) -> dict[str, Any]:
    told = {k: v for k, v in ticket.told.items() if k not in ("description", "attachments")}
    return {"id": ticket.id, "updated_at": _iso(ticket.updated_at), "custom_fields": {}} | told


def _page(asked: Asked, found: list[dict[str, Any]]) -> Said:
    size, page = int(asked.query["per_page"]), int(asked.query["page"])
    shown = found[(page - 1) * size : page * size]
    return Said(200, shown)


def _iso(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


#: For tests/test_desk_contract.py.
FAKES = {"freshdesk": FakeFreshdesk}
SETTINGS = {"api_key": API_KEY, "path_secret": PATH_SECRET}
