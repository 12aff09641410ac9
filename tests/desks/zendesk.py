"""A fake of Zendesk: it keeps users, tickets, audits and uploads as the real one does.

Each request is compared with a JSON Schema of the call, written from the vendor's pages:
https://developer.zendesk.com/api-reference/ticketing/tickets/tickets/#create-ticket
https://developer.zendesk.com/api-reference/ticketing/tickets/tickets/#update-ticket
https://developer.zendesk.com/api-reference/ticketing/users/users/#create-or-update-user
https://developer.zendesk.com/api-reference/ticketing/users/users/#search-users
https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_audits/
https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_comments/#list-comments
https://developer.zendesk.com/api-reference/ticketing/tickets/ticket-attachments/#upload-files
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jsonschema import Draft202012Validator

from tests.desk_server import Asked, Said

SUBDOMAIN_URL = "https://example.zendesk.com"
EMAIL, TOKEN, OWN_ID, SECRET = "askonce@shop.example", "api-token", 900, "signing-secret"
_PAGE = 100


def _object(required: str, **properties: Any) -> dict[str, Any]:
    """Just these, and the first ones always."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_TEXT, _NUMBER = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
_METADATA = {"type": "object", "additionalProperties": {"type": "string"}}
_PRIORITY = {"enum": ["urgent", "high", "normal", "low"]}
_STATUS = {"enum": ["new", "open", "pending", "hold", "solved", "closed"]}
_COMMENT = _object(
    "body public",
    body={"type": "string", "minLength": 1, "maxLength": 65_535},
    author_id=_NUMBER,
    public={"type": "boolean"},
    uploads={"type": "array", "items": _TEXT, "minItems": 1},
)
_TAGS = {"type": "array", "items": {"type": "string", "pattern": r"^[^\s,]+$"}}
_NOTHING: dict[str, Any] = {"not": {}}
_NEW_TICKET = _object(
    "comment requester_id",
    subject=_TEXT | {"maxLength": 150},
    requester_id=_NUMBER,
    external_id=_TEXT | {"maxLength": 255},
    priority=_PRIORITY,
    tags=_TAGS,
    comment=_COMMENT,
    metadata=_METADATA,
)
_UPDATE = _object("", comment=_COMMENT, status=_STATUS, priority=_PRIORITY, metadata=_METADATA)
_USER = _object(
    "name external_id",
    name=_TEXT,
    external_id=_TEXT,
    email={"type": "string", "pattern": "^[^@ ]+@[^@ ]+$"},
    phone={"type": "string", "pattern": r"^\+[0-9]{6,15}$"},
    skip_verify_email={"const": True},
)
_PAGES = _object("", **{"page[size]": {"enum": ["100"]}, "page[after]": _TEXT})
#: Method, path, and what query and body must be; what is not here is a call that we do not make.
_CALLS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("GET", r"/users/search", _object("external_id", external_id=_TEXT), _NOTHING),
    ("POST", r"/users/create_or_update", _object(""), _object("user", user=_USER)),
    ("GET", r"/tickets", _object("external_id", external_id=_TEXT), _NOTHING),
    ("POST", r"/tickets", _object(""), _object("ticket", ticket=_NEW_TICKET)),
    ("GET", r"/tickets/\d+", _object(""), _NOTHING),
    ("PUT", r"/tickets/\d+", _object(""), _object("ticket", ticket=_UPDATE)),
    ("GET", r"/tickets/\d+/audits", _PAGES, _NOTHING),
    ("GET", r"/tickets/\d+/comments", _PAGES, _NOTHING),
    ("POST", r"/uploads", _object("filename", filename=_TEXT), _NOTHING),
]


def mistake_in(asked: Asked) -> str:
    """What is wrong with a request; '' if nothing."""
    path = asked.path.removeprefix("/api/v2")
    for method, pattern, query, body in _CALLS:
        if asked.method == method and re.fullmatch(pattern, path):
            wrong = list(Draft202012Validator(query).iter_errors(dict(asked.query)))
            if asked.body and path != "/uploads":
                wrong += Draft202012Validator(body).iter_errors(asked.json)
            return "; ".join(f"{e.json_path}: {e.message}" for e in wrong)
    return f"no call of ours: {asked.method} {asked.path}"


@dataclass
class Ticket:
    """A ticket there."""

    id: int
    told: dict[str, Any]
    status: str = "new"
    audits: list[dict[str, Any]] = field(default_factory=list)

    @property
    def comments(self) -> list[dict[str, Any]]:
        """What was said, in order."""
        return [audit["comment"] for audit in self.audits if audit["comment"]]


class FakeZendesk:
    """What the server plays."""

    def __init__(self) -> None:
        self.users: list[dict[str, Any]] = []
        self.tickets: dict[int, Ticket] = {}
        self.uploads: dict[str, tuple[str, str, bytes]] = {}
        self.mistakes: list[str] = []
        self.authorization = "Basic " + base64.b64encode(f"{EMAIL}/token:{TOKEN}".encode()).decode()
        self._remembered: dict[str, tuple[Any, Said]] = {}
        self._page = _PAGE

    def with_pages_of(self, size: int) -> "FakeZendesk":
        """The same with shorter lists of audits."""
        self._page = size
        return self

    def forget_keys(self) -> None:
        """Idempotency keys live for some hours."""
        self._remembered.clear()

    def shown(self) -> dict[str, list[str]]:
        """{ticket: what stands on it}, private remarks in brackets."""
        return {
            str(t.id): [c["body"] if c["public"] else f"[{c['body']}]" for c in t.comments]
            for t in self.tickets.values()
        }

    def answer(self, asked: Asked) -> Said:
        """Act, and say what came of it."""
        if mistake := mistake_in(asked):
            self.mistakes.append(mistake)
            return Said(400, {"error": "InvalidRequest", "description": mistake})
        if asked.headers.get("authorization") != self.authorization:
            return Said(401, {"error": "Couldn't authenticate you"})
        path = asked.path.removeprefix("/api/v2")
        acts: list[tuple[str, str, Callable[..., Said]]] = [
            ("GET", "/users/search", self._search),
            ("POST", "/users/create_or_update", self._user),
            ("GET", "/tickets", self._by_external_id),
            ("POST", "/tickets", self._create),
            ("GET", r"/tickets/(\d+)", self._show),
            ("PUT", r"/tickets/(\d+)", self._update),
            ("GET", r"/tickets/(\d+)/audits", self._audits),
            ("POST", "/uploads", self._upload),
        ]
        for method, pattern, act in acts:
            if asked.method == method and (found := re.fullmatch(pattern, path)):
                return act(asked, *found.groups())
        raise AssertionError(path)

    def _search(self, asked: Asked) -> Said:
        wanted = asked.query["external_id"]
        return Said(200, {"users": [u for u in self.users if u.get("external_id") == wanted]})

    def _user(self, asked: Asked) -> Said:
        told = asked.json["user"]
        own = [u for u in self.users if u.get("external_id") == told["external_id"]]
        same = [u for u in self.users if told.get("email") and u.get("email") == told["email"]]
        if own and same and own[0] is not same[0]:
            taken = {"email": [{"description": "Email: is already being used by another user"}]}
            return _invalid(taken)
        user = next(iter(own + same), None)
        if user is None:
            user = {"id": 1000 + len(self.users), "role": "end-user"}
            self.users.append(user)
        user |= {k: v for k, v in told.items() if k != "skip_verify_email"}
        return Said(201 if not own + same else 200, {"user": user})

    def _by_external_id(self, asked: Asked) -> Said:
        wanted = asked.query["external_id"]
        found = [t for t in self.tickets.values() if t.told.get("external_id") == wanted]
        return Said(200, {"tickets": [{"id": t.id} for t in found], "count": len(found)})

    def _create(self, asked: Asked) -> Said:
        key = asked.headers.get("idempotency-key", "")
        if key in self._remembered:
            before, said = self._remembered[key]
            if before != asked.body:
                words = "Request parameters don't match the given idempotency key"
                return Said(400, {"error": "IdempotentRequestError", "description": words})
            return Said(said.status, said.body, {"x-idempotency-lookup": "hit"})
        ticket = Ticket(35 + len(self.tickets), {})
        self.tickets[ticket.id] = ticket
        self._apply(ticket, asked.json["ticket"])
        said = Said(201, {"ticket": {"id": ticket.id}, "audit": {}})
        self._remembered[key] = (asked.body, said)
        return Said(201, said.body, {"x-idempotency-lookup": "miss"})

    def _show(self, asked: Asked, number: str) -> Said:
        ticket = self.tickets.get(int(number))
        if ticket is None:
            return Said(404, {"error": "RecordNotFound", "description": "Not found"})
        return Said(200, {"ticket": {"id": ticket.id, "priority": ticket.told.get("priority")}})

    def _update(self, asked: Asked, number: str) -> Said:
        ticket = self.tickets.get(int(number))
        if ticket is None:
            return Said(404, {"error": "RecordNotFound", "description": "Not found"})
        if ticket.status == "closed":
            return _invalid({"status": [{"description": "Status: closed prevents ticket update"}]})
        self._apply(ticket, asked.json["ticket"])
        return Said(200, {"ticket": {"id": ticket.id}, "audit": {}})

    def _apply(self, ticket: Ticket, told: dict[str, Any]) -> None:
        comment = dict(told.get("comment") or {})
        if comment:
            comment["files"] = [self.uploads.pop(token) for token in comment.pop("uploads", ())]
        custom = told.get("metadata") or {}
        ticket.audits.append(
            {"id": len(ticket.audits) + 1, "metadata": {"custom": custom}, "comment": comment}
        )
        ticket.status = told.get("status", ticket.status)
        ticket.told |= {k: v for k, v in told.items() if k not in ("comment", "metadata")}

    def _audits(self, asked: Asked, number: str) -> Said:
        ticket = self.tickets.get(int(number))
        if ticket is None:
            return Said(404, {"error": "RecordNotFound", "description": "Not found"})
        at = int(asked.query.get("page[after]", "0"))
        page, more = ticket.audits[at : at + self._page], len(ticket.audits) > at + self._page
        meta = {"has_more": more, "after_cursor": str(at + self._page) if more else None}
        return Said(200, {"audits": [_listed(audit) for audit in page], "meta": meta})

    def _upload(self, asked: Asked) -> Said:
        token = f"upload-{len(self.uploads)}-{hashlib.sha256(asked.body).hexdigest()[:6]}"
        kind = asked.headers["content-type"]
        self.uploads[token] = (asked.query["filename"], kind, asked.body)
        return Said(201, {"upload": {"token": token}})


def _listed(audit: dict[str, Any]) -> dict[str, Any]:
    """An audit without the bytes of its files."""
    comment = {k: v for k, v in audit["comment"].items() if k != "files"}
    return audit | {"comment": comment}


def _invalid(details: dict[str, Any]) -> Said:
    words = "Record validation errors"
    return Said(422, {"error": "RecordInvalid", "description": words, "details": details})


# Its events


def event(kind: str, happened: dict[str, Any], **detail: Any) -> dict[str, Any]:
    """An event as Zendesk posts it: numbers are text, null is for none."""
    return {
        "account_id": 12345,
        "detail": {
            "actor_id": "77",
            "assignee_id": "77",
            "brand_id": "1",
            "created_at": "2026-01-01T08:00:00Z",
            "custom_status": "5",
            "description": "Where is my parcel?",
            "external_id": "q1",
            "form_id": "6",
            "group_id": "7",
            "id": "35",
            "is_public": True,
            "organization_id": None,
            "priority": "NORMAL",
            "requester_id": "1000",
            "status": "OPEN",
            "subject": "Where is my parcel?",
            "submitter_id": "900",
            "tags": ["askonce", "sms"],
            "type": None,
            "updated_at": "2026-01-01T08:59:00Z",
            "via": {"channel": "web_service"},
        }
        | detail,
        "event": happened,
        "id": "030a3f7a-9bb9-47a4-9a36-6aa8f1d66783",
        "subject": "zen:ticket:35",
        "time": "2026-01-01T08:59:00.692223355Z",
        "type": f"zen:event-type:ticket.{kind}",
        "zendesk_event_version": "2022-11-06",
    }


def comment(body: str | None = "It left today.", **more: Any) -> dict[str, Any]:
    """A comment of an event: of an agent, and public, unless told otherwise."""
    author = {"id": "77", "is_staff": True, "name": "Kim"}
    return {"comment": {"id": "501", "body": body, "is_public": True, "author": author} | more}


def headers(body: bytes, at: float, secret: str = SECRET) -> dict[str, str]:
    """Signed as https://developer.zendesk.com/documentation/webhooks/verifying/ says."""
    timestamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    mac = hmac.new(secret.encode("utf-8"), digestmod=hashlib.sha256)
    mac.update(timestamp.encode("utf-8"))
    mac.update(body)
    return {
        "Content-Type": "application/json",
        "X-Zendesk-Webhook-Id": "01F1KRFQ6BG29CNWFR60NK5FNY",
        "X-Zendesk-Webhook-Signature": base64.b64encode(mac.digest()).decode("ascii"),
        "X-Zendesk-Webhook-Signature-Timestamp": timestamp,
    }


def body_of(told: dict[str, Any]) -> bytes:
    """The event's bytes."""
    return json.dumps(told, ensure_ascii=False).encode()


#: For tests/test_desk_contract.py.
FAKES = {"zendesk": FakeZendesk}
SETTINGS = {"email": EMAIL, "token": TOKEN, "user_id": OWN_ID, "secret": SECRET}
