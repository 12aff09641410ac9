"""A fake of Intercom: it keeps contacts, conversations and parts as the real one does.

Each request is validated against Intercom's own OpenAPI where that is at hand. What the file does
not say, and this plays: a contact that exists is 409 with its id in the message; conversation
attributes must have been created; a contact's reply opens a conversation again; bodies are HTML.
"""

import hashlib
import hmac
import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.desk_server import Asked, Said
from tests.desks.contract import contract
from tests.fakes import START

TOKEN, ADMIN, KIM = "the-access-token", "991267700", "991267701"
ATTRIBUTES = {"askonce_id", "askonce_reference", "askonce_channel", "askonce_category"} | {
    "askonce_priority",
    "askonce_last",
}


@dataclass
class Thread:
    """A conversation there."""

    id: str
    contact: str
    body: str
    created_at: int
    state: str = "open"
    title: str | None = None
    custom_attributes: dict[str, Any] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)


class FakeIntercom:
    """What the server plays; `now` is its clock, in epoch seconds."""

    def __init__(self, *, attributes: set[str] = ATTRIBUTES, now: int = 1767258000) -> None:
        self.contacts: dict[str, dict[str, Any]] = {}
        self.archived: set[str] = set()
        self.threads: dict[str, Thread] = {}
        self.mistakes: list[str] = []
        self.attributes, self.now = attributes, now
        #: What a contact writes opens a conversation by itself.
        self.reopens = True
        self._last_part = 130

    # What agents do

    def say(self, thread: Thread, body: str | None, **more: Any) -> dict[str, Any]:
        """Somebody says something, in HTML; an agent, and in public, unless told otherwise."""
        self._last_part += 1
        part = {
            "type": "conversation_part",
            "id": str(self._last_part),
            "part_type": "comment",
            "body": body,
            "created_at": self.now,
            "author": {"type": "admin", "id": KIM, "name": "Kim", "email": "kim@shop.example"},
            "attachments": [],
            "redacted": False,
        } | more
        thread.parts.append(part)
        return part

    def shown(self) -> dict[str, list[str]]:
        """{ticket: what stands on it}, private remarks in brackets."""
        return {t.id: [str(_as_text(t.body)), *map(_line, t.parts)] for t in self.threads.values()}

    # What is asked

    def answer(self, asked: Asked) -> Said:
        """Act, and say what came of it."""
        known = contract("intercom-2.14")
        if known and (mistake := known.mistake_in(asked)):
            self.mistakes.append(mistake)
            return _error(400, "parameter_invalid", mistake)
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return _error(401, "unauthorized", "Access Token Invalid")
        for method, pattern, act in self._routes():
            if asked.method == method and (found := re.fullmatch(pattern, asked.path)):
                return act(asked, *found.groups())
        return _error(404, "not_found", "Resource Not Found")

    def _routes(self) -> list[tuple[str, str, Callable[..., Said]]]:
        thread = r"/conversations/(\d+)"
        return [
            ("POST", "/contacts", self._contact),
            ("POST", r"/contacts/(\w+)/unarchive", self._unarchive),
            ("POST", "/conversations", self._open),
            ("POST", "/conversations/search", self._search),
            ("GET", thread, self._with(lambda asked, t: Said(200, _shown(t, _is_plain(asked))))),
            ("PUT", thread, self._with(self._update)),
            ("POST", rf"{thread}/reply", self._with(self._reply)),
            ("POST", rf"{thread}/parts", self._with(self._part)),
        ]

    def _with(self, act: Callable[[Asked, Thread], Said]) -> Callable[[Asked, str], Said]:
        def found(asked: Asked, thread_id: str) -> Said:
            thread = self.threads.get(thread_id)
            return act(asked, thread) if thread else _error(404, "not_found", "Not Found")

        return found

    def _contact(self, asked: Asked) -> Said:
        told = asked.json
        for own, contact in self.contacts.items():
            if any(told.get(n) and told.get(n) == contact.get(n) for n in ("external_id", "email")):
                archived = "An archived contact" if own in self.archived else "A contact"
                words = f"{archived} matching those details already exists with id={own}"
                return _error(409, "conflict", words)
        own = f"{len(self.contacts) + 1:024x}"
        self.contacts[own] = dict(told)
        return Said(200, {"type": "contact", "id": own, **told})

    def _unarchive(self, asked: Asked, contact: str) -> Said:
        self.archived.discard(contact)
        return Said(200, {"id": contact, "archived": False})

    def _open(self, asked: Asked) -> Said:
        contact = asked.json["from"]["id"]
        if contact not in self.contacts or contact in self.archived:
            return _error(404, "not_found", "User Not Found")
        own = str(len(self.threads) + 499)
        self.threads[own] = Thread(own, contact, _as_html(asked.json["body"]), self.now)
        return Said(200, {"type": "user_message", "id": "403918330", "conversation_id": own})

    def _search(self, asked: Asked) -> Said:
        wanted = {each["field"]: each["value"] for each in asked.json["query"]["value"]}
        found = [
            _shown(thread, plain=False)
            for thread in self.threads.values()
            if thread.contact == wanted["contact_ids"] and thread.created_at > wanted["created_at"]
        ]
        for each in found:
            del each["conversation_parts"]  # a list of conversations has none
        return Said(200, {"type": "conversation.list", "conversations": found})

    def _update(self, asked: Asked, thread: Thread) -> Said:
        told = asked.json.get("custom_attributes", {})
        if unknown := sorted(set(told) - self.attributes):
            words = f"Custom attribute '{unknown[0]}' does not exist"
            return _error(400, "parameter_invalid", words)
        thread.custom_attributes |= told
        thread.title = asked.json.get("title", thread.title)
        return Said(200, _shown(thread, plain=False))

    def _reply(self, asked: Asked, thread: Thread) -> Said:
        told = asked.json
        if told["type"] == "user":
            if told["intercom_user_id"] != thread.contact:
                return _error(404, "not_found", "User Not Found")
            author, body = {"type": "user", "id": thread.contact}, _as_html(told["body"])
        else:
            author, body = {"type": "admin", "id": told["admin_id"]}, f"<p>{told['body']}</p>"
        kind = told["message_type"]
        if told["type"] == "user" and thread.state != "open" and self.reopens:
            thread.state, kind = "open", "open"  # as the examples in the vendor's file have it
        part = self.say(thread, body, part_type=kind, author=author)
        part["attachments"] = [
            {"type": "upload", "name": f["name"], "content_type": f["content_type"],
             "data": f["data"]} for f in told.get("attachment_files", ())
        ]  # fmt: skip
        shown = _shown(thread, plain=False)
        shown["conversation_parts"]["conversation_parts"] = [part]
        return Said(200, shown)

    def _part(self, asked: Asked, thread: Thread) -> Said:
        thread.state = {"open": "open", "close": "closed"}[asked.json["message_type"]]
        return Said(200, _shown(thread, plain=False))


def _line(part: dict[str, Any]) -> str:
    text = str(_as_text(part["body"]))
    return f"[{text}]" if part["part_type"] == "note" else text


def _error(status: int, code: str, words: str) -> Said:
    listed = [{"code": code, "message": words}]
    return Said(status, {"type": "error.list", "request_id": "b68959ea", "errors": listed})


def _is_plain(asked: Asked) -> bool:
    return asked.query.get("display_as") == "plaintext"


def _as_html(text: str) -> str:
    lines = html.escape(text, quote=False).replace("\n", "<br>\n")
    return f"<p>{lines}</p>"


def _as_text(body: str | None) -> str | None:
    if body is None:
        return None
    return html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"<br>\n?", "\n", body)))


def _shown(thread: Thread, plain: bool) -> dict[str, Any]:
    show = _as_text if plain else lambda body: body
    parts = [part | {"body": show(part["body"])} for part in thread.parts]
    return {
        "type": "conversation",
        "id": thread.id,
        "created_at": thread.created_at,
        "title": thread.title,
        "open": thread.state != "closed",
        "state": thread.state,
        "source": {"type": "conversation", "body": show(thread.body)},
        "contacts": {"type": "contact.list", "contacts": [{"id": thread.contact}]},
        "custom_attributes": dict(thread.custom_attributes),
        "conversation_parts": {"conversation_parts": parts, "total_count": len(parts)},
    }


def webhook(topic: str, thread: Thread, *parts: dict[str, Any], now: int = 1767258000) -> Any:
    """What Intercom posts of a conversation: only the parts that it is about."""
    item = _shown(thread, plain=False)
    item["conversation_parts"] = {"conversation_parts": list(parts), "total_count": len(parts)}
    return {
        "type": "notification_event",
        "app_id": "shop1234",
        "data": {"type": "notification_event_data", "item": item},
        "links": {},
        "id": "notif_11f4ed60-0000-4000-8000-000000000001",
        "topic": topic,
        "delivery_status": "pending",
        "delivery_attempts": 1,
        "delivered_at": 0,
        "first_sent_at": now,
        "created_at": now,
        "self": None,
    }


def signed(event: dict[str, Any], secret: str) -> tuple[bytes, dict[str, str]]:
    """(body, headers), by the formula in Intercom's documentation."""
    body = json.dumps(event, ensure_ascii=False).encode()
    mac = hmac.new(secret.encode(), body, hashlib.sha1)
    headers = {"Content-Type": "application/json", "X-Hub-Signature": f"sha1={mac.hexdigest()}"}
    return body, headers


#: For tests/test_desk_contract.py.
FAKES = {"intercom": lambda: FakeIntercom(now=int(START.timestamp()))}
SETTINGS = {"access_token": TOKEN, "client_secret": "made-up-client-secret", "admin_id": ADMIN}
