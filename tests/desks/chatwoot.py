"""A fake of Chatwoot: it keeps contacts, conversations and messages as the real one does.

Each request is validated against Chatwoot's own OpenAPI where that is at hand. What the file does
not say, and this plays: contacts are upserted by `source_id`; messages keep it; labels are
replaced as a whole; what a customer writes opens a conversation again; 200 messages a minute.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.desk_server import Asked, Said
from tests.desks.contract import contract, fields, files
from tests.fakes import START

ACCOUNT, INBOX, IDENTIFIER, TOKEN = 3, 12, "inbox-identifier", "the-access-token"
_PAGE, _CHATS = 20, 25


@dataclass
class Contact:
    """A person there."""

    id: int
    source_id: str
    told: dict[str, Any]


@dataclass
class Chat:
    """A conversation there."""

    id: int
    contact: Contact
    custom_attributes: dict[str, Any]
    status: str = "open"
    priority: str | None = None
    muted: bool = False
    inbox_id: int = INBOX
    labels: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    last_activity_at: int = 0


class FakeChatwoot:
    """What the server plays; `now` is its clock, in epoch seconds."""

    def __init__(self, *, hmac_token: str = "", now: int = 1767258000) -> None:
        self.contacts: list[Contact] = []
        self.chats: dict[int, Chat] = {}
        self.mistakes: list[str] = []
        self.hmac_token, self.now = hmac_token, now
        self._last_message = 100

    # What agents do

    def say(self, chat: Chat, content: str | None, **more: Any) -> dict[str, Any]:
        """Somebody says something; an agent, and in public, unless told otherwise."""
        self._last_message += 1
        said = {
            "id": self._last_message,
            "content": content,
            "message_type": 1,
            "private": False,
            "source_id": None,
            "content_type": "text",
            "content_attributes": {},
            "created_at": self.now,
            "conversation_id": chat.id,
            "inbox_id": chat.inbox_id,
            "sender": {"id": 7, "name": "Kim Lee", "available_name": "Kim", "type": "user"},
        } | more
        chat.messages.append(said)
        chat.last_activity_at = max(chat.last_activity_at, int(said["created_at"]))
        return said

    def resolve(self, chat: Chat) -> None:
        """Close it, which leaves a line on it."""
        chat.status = "resolved"
        self.say(chat, "Conversation was marked resolved by Kim", message_type=2, sender=None)

    def shown(self) -> dict[str, list[str]]:
        """{ticket: what stands on it}, private remarks in brackets."""
        return {
            str(chat.id): [
                f"[{m['content']}]" if m["private"] else m["content"] for m in chat.messages
            ]
            for chat in self.chats.values()
        }

    # What is asked

    def answer(self, asked: Asked) -> Said:
        """Act, and say what came of it."""
        known = contract("chatwoot")
        if known and (mistake := known.mistake_in(asked)):
            self.mistakes.append(mistake)
            return Said(400, {"description": mistake})
        public = asked.path.startswith("/public/")
        if not public and asked.headers.get("api_access_token") != TOKEN:
            return Said(401, {"errors": ["You need to sign in or sign up before continuing."]})
        for method, pattern, act in self._routes():
            if asked.method == method and (found := re.fullmatch(pattern, asked.path)):
                return act(asked, *found.groups())
        return Said(404, {"error": "Resource could not be found"})

    def _routes(self) -> list[tuple[str, str, Callable[..., Said]]]:
        inbox = f"/public/api/v1/inboxes/{IDENTIFIER}/contacts"
        api = f"/api/v1/accounts/{ACCOUNT}"
        chat = rf"{api}/conversations/(\d+)"
        return [
            ("POST", inbox, self._contact),
            ("POST", rf"{inbox}/([^/]+)/conversations", self._open),
            ("GET", rf"{api}/contacts/(\d+)/conversations", self._chats_of),
            ("GET", f"{api}/conversations", self._chats),
            ("GET", chat, self._with(lambda asked, chat: Said(200, _shown(chat)))),
            ("GET", rf"{chat}/messages", self._with(self._messages)),
            ("POST", rf"{chat}/messages", self._with(self._message)),
            (
                "GET",
                rf"{chat}/labels",
                self._with(lambda asked, c: Said(200, {"payload": c.labels})),
            ),
            ("POST", rf"{chat}/labels", self._with(self._label)),
            ("POST", rf"{chat}/toggle_priority", self._with(self._priority)),
            ("POST", rf"{chat}/toggle_status", self._with(self._status)),
        ]

    def _with(self, act: Callable[[Asked, Chat], Said]) -> Callable[[Asked, str], Said]:
        def found(asked: Asked, chat_id: str) -> Said:
            chat = self.chats.get(int(chat_id))
            return act(asked, chat) if chat else Said(404, {"error": "Resource could not be found"})

        return found

    def _contact(self, asked: Asked) -> Said:
        told = dict(asked.json)
        if self.hmac_token:
            identifier = str(told.get("identifier", "")).encode()
            proof = hmac.new(self.hmac_token.encode(), identifier, hashlib.sha256).hexdigest()
            if told.get("identifier_hash") != proof:
                return Said(500, {"error": "HMAC failed: Invalid Identifier Hash Provided"})
        source = told["source_id"]
        contact = next((c for c in self.contacts if c.source_id == source), None)
        if contact is None:
            contact = Contact(len(self.contacts) + 501, source, told)
            self.contacts.append(contact)
        return Said(200, {"id": contact.id, "source_id": source, "pubsub_token": "x"})

    def _open(self, asked: Asked, source_id: str) -> Said:
        contact = next((c for c in self.contacts if c.source_id == source_id), None)
        if contact is None:
            return Said(404, {"error": "Resource could not be found"})
        chat = Chat(len(self.chats) + 41, contact, asked.json["custom_attributes"])
        chat.last_activity_at = self.now
        self.chats[chat.id] = chat
        return Said(200, {"id": chat.id, "inbox_id": INBOX, "status": "open", "messages": []})

    def _chats_of(self, asked: Asked, contact_id: str) -> Said:
        theirs = [c for c in self.chats.values() if c.contact.id == int(contact_id)]
        return Said(200, {"payload": [_shown(chat) for chat in theirs]})

    def _chats(self, asked: Asked) -> Said:
        wanted = [c for c in self.chats.values() if str(c.inbox_id) == asked.query["inbox_id"]]
        wanted.sort(key=lambda c: -c.last_activity_at)
        at = (int(asked.query.get("page", 1)) - 1) * _CHATS
        page = [_shown(chat) for chat in wanted[at : at + _CHATS]]
        return Said(200, {"data": {"meta": {"all_count": len(wanted)}, "payload": page}})

    def _messages(self, asked: Asked, chat: Chat) -> Said:
        before = int(asked.query.get("before", 10**9))
        page = [said for said in chat.messages if said["id"] < before][-_PAGE:]
        return Said(200, {"meta": {}, "payload": page})

    def _message(self, asked: Asked, chat: Chat) -> Said:
        lately = [m for m in chat.messages if m["created_at"] > self.now - 60]
        if len(lately) >= 200:
            return Said(422, {"message": "Too many messages", "attributes": ["base"]})
        told, sent = fields(asked), files(asked)
        if len(sent) > 15:
            return Said(422, {"message": "Attachments exceeded maximum allowed"})
        incoming = told.get("message_type") == "incoming"
        sender = (
            {"id": chat.contact.id, "type": "contact"} if incoming else {"id": 9, "type": "user"}
        )
        said = self.say(
            chat,
            told["content"],
            message_type=0 if incoming else 1,
            private=told.get("private", False),
            source_id=told.get("source_id"),
            sender=sender,
        )
        said["attachments"] = [{"data_url": name, "type": kind, "bytes": len(content)}
                               for name, kind, content in sent]  # fmt: skip
        if incoming and chat.status in ("resolved", "snoozed") and not chat.muted:
            chat.status = "open"
        return Said(200, said)

    def _label(self, asked: Asked, chat: Chat) -> Said:
        chat.labels = list(asked.json["labels"])
        return Said(200, {"payload": chat.labels})

    def _priority(self, asked: Asked, chat: Chat) -> Said:
        chat.priority = asked.json["priority"]
        return Said(200)

    def _status(self, asked: Asked, chat: Chat) -> Said:
        chat.status = asked.json["status"]
        return Said(200, {"payload": {"success": True, "current_status": chat.status}})


def _shown(chat: Chat) -> dict[str, Any]:
    return {
        "id": chat.id,
        "inbox_id": chat.inbox_id,
        "status": chat.status,
        "priority": chat.priority,
        "muted": chat.muted,
        "labels": chat.labels,
        "custom_attributes": chat.custom_attributes,
        "messages": chat.messages[-1:],
        "timestamp": chat.last_activity_at,
    }


def webhook(chat: Chat, said: dict[str, Any]) -> dict[str, Any]:
    """What Chatwoot posts of a message: words where its lists have numbers, another time format."""
    kinds = {0: "incoming", 1: "outgoing", 2: "activity", 3: "template"}
    left_out = {"conversation_id", "inbox_id", "created_at"}
    return {
        **{name: value for name, value in said.items() if name not in left_out},
        "event": "message_created",
        "message_type": kinds[said["message_type"]],
        "created_at": "2026-01-01T09:00:00.000Z",
        "account": {"id": ACCOUNT, "name": "Shop"},
        "inbox": {"id": chat.inbox_id, "name": "AskOnce"},
        "conversation": _shown(chat),
    }


def signed(event: dict[str, Any], secret: str, at: int) -> tuple[bytes, dict[str, str]]:
    """(body, headers), by the formula in Chatwoot's documentation."""
    body = json.dumps(event, ensure_ascii=False).encode()
    mac = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256)
    return body, {
        "Content-Type": "application/json",
        "X-Chatwoot-Timestamp": str(at),
        "X-Chatwoot-Signature": f"sha256={mac.hexdigest()}",
        "X-Chatwoot-Delivery": "6f1c1c1e-0000-4000-8000-000000000001",
    }


#: For tests/test_desk_contract.py.
FAKES = {"chatwoot": lambda: FakeChatwoot(now=int(START.timestamp()))}
SETTINGS = {
    "account_id": ACCOUNT,
    "inbox_id": INBOX,
    "inbox_identifier": IDENTIFIER,
    "api_access_token": TOKEN,
    "webhook_secret": "made-up-webhook-secret",
}
