"""A fake of Zammad: it keeps customers, tickets, articles and links as the real one does.

Each request is compared with a JSON Schema of the call, written from the vendor's pages, and where
they are silent from its source (github.com/zammad/zammad, named at the schema):
https://docs.zammad.org/en/latest/api/ticket/index.html
https://docs.zammad.org/en/latest/api/ticket/articles.html
https://docs.zammad.org/en/latest/api/ticket/links.html
https://docs.zammad.org/en/latest/api/intro.html
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from jsonschema import Draft202012Validator

from tests.desk_server import Asked, Said

URL = "https://desk.example"
TOKEN, OWN_ID, SECRET, GROUP = "access-token", 9, "hmac-token", "Users"
AT = datetime(2026, 1, 1, 8, 0, tzinfo=UTC)
STATES = ("new", "open", "pending reminder", "closed", "merged")


def _object(required: str, **properties: Any) -> dict[str, Any]:
    """Just these, and the first ones always."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_TEXT, _NUMBER = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
_NOTHING: dict[str, Any] = {"not": {}}
_FILE = _object(
    "filename data mime-type",
    **{
        "filename": _TEXT,
        "data": {"type": "string", "pattern": r"^[A-Za-z0-9+/]+=*$"},
        "mime-type": {"type": "string", "pattern": r"^[^/]+/[^/]+$"},
    },
)
_ARTICLE = {
    "body": _TEXT | {"maxLength": 1_500_000},
    "content_type": {"enum": ["text/plain", "text/html"]},
    "message_id": _TEXT,
    "type": {"enum": ["web", "note"]},
    "sender": {"enum": ["Customer", "Agent"]},
    "internal": {"type": "boolean"},
}
_WORDS = _object(
    "body type sender internal",
    **_ARTICLE,
    origin_by_id=_NUMBER,
    attachments={"type": "array", "items": _FILE, "minItems": 1},
)
#: `customer` as an object: app/controllers/tickets_controller.rb, "try to create customer".
_CUSTOMER = _object(
    "login firstname",
    login=_TEXT,
    firstname=_TEXT,
    email={"type": "string", "pattern": "^[^@ ]+@[^@ ]+$"},
    mobile={"type": "string", "pattern": r"^\+[0-9]{6,15}$"},
)
_NEW_TICKET = _object(
    "title group customer article",
    title=_TEXT | {"maxLength": 250},
    group=_TEXT,
    customer=_CUSTOMER,
    priority_id={"enum": [1, 2, 3]},
    tags={"type": "string", "pattern": r"^[^\s,]+(,[^\s,]+)*$"},
    preferences=_object("askonce", askonce={"type": "object"}),
    article=_WORDS,
    conversation_id=_TEXT,
)
_UPDATE = _object(
    "article", article=_WORDS, state={"enum": list(STATES)}, priority_id={"enum": [1, 2, 3]}
)
_NOTE = _object("ticket_id body type internal", **_ARTICLE, ticket_id=_NUMBER)
_EXPANDED = _object("expand", expand={"const": "true"})
#: Conditions without a query: app/models/concerns/can_search.rb.
_SEARCH = {
    "type": "object",
    "properties": {
        "expand": {"const": "true"},
        "condition[ticket.tags][operator]": {"const": "contains all"},
        "condition[ticket.tags][value]": _TEXT,
        "condition[ticket.updated_at][operator]": {"const": "after (absolute)"},
        "condition[ticket.updated_at][value]": {
            "type": "string",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
        },
        "sort_by": {"const": "updated_at"},
        "order_by": {"enum": ["asc", "desc"]},
        "per_page": {"type": "string", "pattern": r"^\d+$"},
        "page": {"type": "string", "pattern": r"^\d+$"},
    },
    "required": ["expand", "condition[ticket.tags][operator]", "condition[ticket.tags][value]"],
    "additionalProperties": False,
}
_LINKED = _object("link_object link_object_value", link_object=_TEXT, link_object_value=_TEXT)
#: Method, path, and what query and body must be; what is not here is a call that we do not make.
_CALLS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("POST", r"/tickets", _object(""), _NEW_TICKET),
    ("GET", r"/tickets/search", _SEARCH, _NOTHING),
    ("GET", r"/tickets/\d+", _EXPANDED, _NOTHING),
    ("PUT", r"/tickets/\d+", _object(""), _UPDATE),
    ("POST", r"/ticket_articles", _object(""), _NOTE),
    ("GET", r"/ticket_articles/by_ticket/\d+", _EXPANDED, _NOTHING),
    ("GET", r"/links", _LINKED, _NOTHING),
    ("GET", r"/ticket_attachment/\d+/\d+/\d+", _object(""), _NOTHING),
]


def mistake_in(asked: Asked) -> str:
    """What is wrong with a request; '' if nothing."""
    path = asked.path.removeprefix("/api/v1")
    for method, pattern, query, body in _CALLS:
        if asked.method == method and re.fullmatch(pattern, path):
            wrong = list(Draft202012Validator(query).iter_errors(dict(asked.query)))
            if asked.body:
                wrong += Draft202012Validator(body).iter_errors(asked.json)
            return "; ".join(f"{e.json_path}: {e.message}" for e in wrong)
    return f"no call of ours: {asked.method} {asked.path}"


@dataclass
class Ticket:
    """A ticket there."""

    id: int
    customer_id: int
    told: dict[str, Any]
    state: str = "new"
    priority_id: int = 2
    tags: list[str] = field(default_factory=list)
    updated_at: datetime = AT
    updated_by_id: int = OWN_ID
    last_close_at: datetime | None = None

    @property
    def expanded(self) -> dict[str, Any]:
        """As `expand=true` and webhooks have it: associations by name."""
        return {
            "id": self.id,
            "number": f"1{self.id:04}",
            "title": self.told.get("title", ""),
            "group": GROUP,
            "customer_id": self.customer_id,
            "state": self.state,
            "priority_id": self.priority_id,
            "preferences": self.told.get("preferences", {}),
            "close_at": _moment(self.last_close_at),
            "last_close_at": _moment(self.last_close_at),
            "updated_at": _moment(self.updated_at),
            "updated_by_id": self.updated_by_id,
        }


class FakeZammad:
    """What the server plays."""

    def __init__(self) -> None:
        self.users: list[dict[str, Any]] = [{"id": OWN_ID, "login": "askonce", "firstname": "A"}]
        self.tickets: dict[int, Ticket] = {}
        self.articles: list[dict[str, Any]] = []
        self.links: list[tuple[int, int]] = []
        self.mistakes: list[str] = []
        self.authorization = f"Token token={TOKEN}"
        self.now = AT

    # As agents use it

    def said(self, ticket_id: int, body: str, **more: Any) -> dict[str, Any]:
        """An agent's article: public, unless told otherwise."""
        self.now += timedelta(minutes=5)
        article = {
            "ticket_id": ticket_id,
            "sender": "Agent",
            "type": "note",
            "internal": False,
            "body": body,
            "content_type": "text/html",
            "from": "Kim Lee",
            "created_by_id": 77,
            "created_by": "kim@shop.example",
            "attachments": [],
        }
        self.tickets[ticket_id].updated_by_id = 77
        return self._store(article | more)

    def close(self, ticket_id: int) -> None:
        """An agent closes it."""
        self.now += timedelta(minutes=5)
        ticket = self.tickets[ticket_id]
        ticket.state, ticket.last_close_at, ticket.updated_at = "closed", self.now, self.now

    def merge(self, source: int, target: int) -> None:
        """Articles move, all links of the source go, one between the two is made."""
        self.now += timedelta(minutes=5)
        for article in self.articles:
            if article["ticket_id"] == source:
                article["ticket_id"] = target
        self.links = [(a, b) for a, b in self.links if source not in (a, b)] + [(target, source)]
        self.tickets[source].state = "merged"
        for number in (source, target):
            self.tickets[number].updated_at = self.now

    def on(self, ticket_id: int) -> list[dict[str, Any]]:
        """The articles of a ticket."""
        return [a for a in self.articles if a["ticket_id"] == ticket_id]

    # As its API is used

    def shown(self) -> dict[str, list[str]]:
        """{ticket: what stands on it}, private remarks in brackets."""
        return {
            str(number): [
                f"[{a['body']}]" if a["internal"] else a["body"]
                for a in self.articles
                if a["ticket_id"] == number
            ]
            for number in self.tickets
        }

    def answer(self, asked: Asked) -> Said:
        """Act, and say what came of it."""
        if mistake := mistake_in(asked):
            self.mistakes.append(mistake)
            return Said(422, {"error": mistake})
        if asked.headers.get("authorization") != self.authorization:
            return Said(401, {"error": "Invalid BasicAuth credentials"})
        self.now += timedelta(seconds=1)
        path = asked.path.removeprefix("/api/v1")
        acts: list[tuple[str, str, Callable[..., Said]]] = [
            ("POST", "/tickets", self._create),
            ("GET", "/tickets/search", self._search),
            ("GET", r"/tickets/(\d+)", self._show),
            ("PUT", r"/tickets/(\d+)", self._update),
            ("POST", "/ticket_articles", self._note),
            ("GET", r"/ticket_articles/by_ticket/(\d+)", self._by_ticket),
            ("GET", "/links", self._links),
            ("GET", r"/ticket_attachment/(\d+)/(\d+)/(\d+)", self._file),
        ]
        for method, pattern, act in acts:
            if asked.method == method and (found := re.fullmatch(pattern, path)):
                return act(asked, *found.groups())
        raise AssertionError(path)

    def _create(self, asked: Asked) -> Said:
        told = dict(asked.json)
        if told["group"] != GROUP:
            return Said(422, {"error": "Group can't be blank", "error_human": "Group is missing"})
        customer = self._customer(told.pop("customer"))
        if customer is None:
            return Said(422, {"error": "Invalid email", "error_human": "Invalid email"})
        article, tags = told.pop("article"), told.pop("tags", "").split(",")
        ticket = Ticket(35 + len(self.tickets), customer, told, tags=tags)
        ticket.priority_id = told.get("priority_id", 2)
        self.tickets[ticket.id] = ticket
        self._write(ticket, article)
        return Said(201, {"id": ticket.id, "title": told["title"], "state_id": 1})

    def _customer(self, told: dict[str, Any]) -> int | None:
        """By email, else by login, else a new one; None for an address it does not like."""
        email, login = told.get("email", "").lower(), told["login"].lower()
        if email.endswith(".invalid"):
            return None
        for name, value in (("email", email), ("login", login)):
            for user in self.users:
                if value and user.get(name) == value:
                    return int(user["id"])
        self.users.append(told | {"id": 100 + len(self.users)})
        return int(self.users[-1]["id"])

    def _write(self, ticket: Ticket, told: dict[str, Any]) -> dict[str, Any]:
        """Whose it is follows from the sender: app/models/ticket/article/adds_metadata_*.rb."""
        told = told | {"ticket_id": ticket.id, "created_by_id": OWN_ID}
        if told["sender"] == "Customer":
            told.setdefault("origin_by_id", ticket.customer_id)
        name = next(u["firstname"] for u in self.users if u["id"] == told.get("origin_by_id", 9))
        files = [
            {
                "id": 500 + n,
                "filename": f["filename"],
                "size": str(len(base64.b64decode(f["data"]))),
                "preferences": {"Mime-Type": f["mime-type"]},
                "data": base64.b64decode(f["data"]),
            }
            for n, f in enumerate(told.pop("attachments", ()))
        ]
        ticket.updated_by_id = OWN_ID
        return self._store(told | {"from": name, "attachments": files})

    def _store(self, article: dict[str, Any]) -> dict[str, Any]:
        article |= {"id": 101 + len(self.articles), "created_at": _moment(self.now)}
        self.articles.append(article)
        self.tickets[article["ticket_id"]].updated_at = self.now
        return article

    def _search(self, asked: Asked) -> Said:
        query = asked.query
        tag = query["condition[ticket.tags][value]"]
        found = [t for t in self.tickets.values() if tag in t.tags]
        if after := query.get("condition[ticket.updated_at][value]"):
            found = [t for t in found if t.updated_at > datetime.fromisoformat(after)]
        found.sort(key=lambda t: t.updated_at, reverse=query.get("order_by") != "asc")
        size = int(query.get("per_page", "50"))
        at = (int(query.get("page", "1")) - 1) * size
        return Said(200, [t.expanded for t in found[at : at + size]])

    def _show(self, asked: Asked, number: str) -> Said:
        ticket = self.tickets.get(int(number))
        return Said(200, ticket.expanded) if ticket else _missing(number)

    def _update(self, asked: Asked, number: str) -> Said:
        ticket = self.tickets.get(int(number))
        if ticket is None:
            return _missing(number)
        told = asked.json
        ticket.state = told.get("state", ticket.state)
        ticket.priority_id = told.get("priority_id", ticket.priority_id)
        self._write(ticket, told["article"])
        return Said(200, {"id": ticket.id})

    def _note(self, asked: Asked) -> Said:
        ticket = self.tickets.get(asked.json["ticket_id"])
        if ticket is None:
            return _missing(asked.json["ticket_id"])
        return Said(201, {"id": self._write(ticket, dict(asked.json))["id"]})

    def _by_ticket(self, asked: Asked, number: str) -> Said:
        if int(number) not in self.tickets:
            return _missing(number)
        return Said(200, [shown(article) for article in self.on(int(number))])

    def _links(self, asked: Asked) -> Said:
        number = int(asked.query["link_object_value"])
        found = [
            {"link_type": "parent", "link_object_value": b} for a, b in self.links if a == number
        ]
        found += [
            {"link_type": "child", "link_object_value": a} for a, b in self.links if b == number
        ]
        return Said(200, {"links": [f | {"link_object": "Ticket"} for f in found], "assets": {}})

    def _file(self, asked: Asked, ticket: str, article: str, number: str) -> Said:
        return Said(200, b"%PDF", {"Content-Type": "application/pdf"})


def _missing(number: object) -> Said:
    words = f"Couldn't find Ticket with 'id'={number}"
    return Said(404, {"error": words, "error_human": words})


def _moment(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def shown(article: dict[str, Any]) -> dict[str, Any]:
    """An article without the bytes of its files."""
    files = [{k: v for k, v in f.items() if k != "data"} for f in article["attachments"]]
    return article | {"attachments": files}


# Its webhooks


def event(article: dict[str, Any] | None = None, **ticket: Any) -> dict[str, Any]:
    """What a trigger's webhook posts; an update without an article has an empty one."""
    person = {"id": 77, "login": "kim@shop.example", "firstname": "Kim", "lastname": "Lee"}
    shape = Ticket(35, 101, {"title": "Where is my parcel?"}, state="open", updated_by_id=77)
    shape.updated_at = datetime(2026, 1, 1, 8, 59, tzinfo=UTC)
    return {
        "ticket": shape.expanded | {"updated_by": person, "article_count": 2} | ticket,
        "article": article or {},
    }


def article(body: str = "<div>It left today.</div>", **more: Any) -> dict[str, Any]:
    """An article of an event: of an agent, and public, unless told otherwise."""
    return {
        "id": 104,
        "ticket_id": 35,
        "sender": "Agent",
        "sender_id": 1,
        "type": "note",
        "type_id": 10,
        "internal": False,
        "body": body,
        "content_type": "text/html",
        "from": "Kim Lee",
        "to": "",
        "subject": None,
        "message_id": None,
        "created_by_id": 77,
        "created_by": {"id": 77, "firstname": "Kim", "lastname": "Lee"},
        "origin_by_id": None,
        "created_at": "2026-01-01T08:59:00.000Z",
        "updated_at": "2026-01-01T08:59:00.000Z",
        "attachments": [],
        "accounted_time": 0,
    } | more


def file(**more: Any) -> dict[str, Any]:
    """A file of an article."""
    return {
        "id": 174,
        "filename": "label.pdf",
        "size": "35574",
        "preferences": {"Content-Type": "application/pdf", "Mime-Type": "application/pdf"},
        "url": f"{URL}/api/v1/ticket_attachment/35/104/174",
    } | more


def headers(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """Signed as https://admin-docs.zammad.org/en/latest/manage/webhook/add.html says."""
    mac = hmac.new(secret.encode("utf-8"), digestmod=hashlib.sha1)
    mac.update(body)
    return {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Zammad User Agent",
        "X-Zammad-Trigger": "AskOnce",
        "X-Zammad-Delivery": "2f7bbaf0-0c3d-4b6f-9a55-3d0c4f3a0a5e",
        "X-Hub-Signature": "sha1=" + mac.hexdigest(),
    }


def body_of(told: dict[str, Any]) -> bytes:
    """The event's bytes."""
    return json.dumps(told, ensure_ascii=False).encode()


#: For tests/test_desk_contract.py.
FAKES = {"zammad": FakeZammad}
SETTINGS = {"token": TOKEN, "user_id": OWN_ID, "secret": SECRET, "group": GROUP}
