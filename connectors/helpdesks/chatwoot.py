"""Chatwoot, by an API channel: customers are its contacts, tickets its conversations.

Contacts and conversations are made by the inbox's public API; messages go through the application
API even for what customers say, as only that one stores our key (`source_id`, which a second try
looks for). Chatwoot calls each webhook once, so it is polled, too.

https://developers.chatwoot.com/api-reference/introduction
https://www.chatwoot.com/hc/user-guide/articles/1677839703-how-to-create-an-api-channel-inbox
https://www.chatwoot.com/hc/user-guide/articles/1677693021-how-to-use-webhooks
"""

import hashlib
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from chalicelib.errors import (
    ConfigurationError,
    GoneError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import (
    DeskCapabilities,
    FromDesk,
    PluginSettings,
    Polled,
    PollingHelpdesk,
    WebhookRequest,
)
from chalicelib.schema import Attachment, Conversation, Message, Priority
from connectors import chatwoot_events, http, ticket_text
from connectors.chatwoot_events import OURS, Chat, Said
from connectors.desk_calls import DeskCalls, multipart
from connectors.signing import Secret, Secrets, demand_fresh, equals_any, values

_Shape = TypeVar("_Shape", bound=BaseModel)
_MOST_FILES = 15
#: A page of messages has 20; whoever looks for one of ours looks back this far.
_MOST_PAGES = 10
#: What Chatwoot commits late, or its clock and ours make of a moment, is looked at once more.
_OVERLAP_SECONDS = 120
_LIMIT_SECONDS = 60.0


class ChatwootSettings(PluginSettings):
    """[helpdesks.<name>] connector = "chatwoot" """

    url: str = Field(default="https://app.chatwoot.com", pattern=r"^https?://")
    account_id: int
    #: The number in the address of the inbox's settings.
    inbox_id: int
    #: Settings > Inboxes > the inbox > Configuration: it lets everybody write as a customer.
    inbox_identifier: Secret
    #: Profile settings > Access token, of a user of its own.
    api_access_token: Secret
    webhook_secret: Secrets
    #: Where the inbox enforces user identity validation.
    hmac_token: Secret | None = None
    #: Where agents' files lie, if Chatwoot keeps them in a bucket: `bucket.s3.amazonaws.com`.
    file_hosts: tuple[str, ...] = ()


class Chatwoot(PollingHelpdesk):
    """An account of Chatwoot, in its cloud or one's own."""

    name = "chatwoot"
    settings_model = ChatwootSettings
    capabilities = DeskCapabilities(
        as_customer=True,
        once="look_up",
        webhooks="signed",
        files_in=True,
        files_out=True,
        status=True,
        priority=True,
        tags=True,
        corrections=True,
    )

    settings: ChatwootSettings

    def __init__(self, settings: ChatwootSettings, name: str) -> None:
        super().__init__(settings, name)
        token = settings.api_access_token
        self._public = DeskCalls(self, settings.url, dict, passing=_passing)
        self._api = DeskCalls(
            self,
            f"{settings.url.rstrip('/')}/api/v1/accounts/{settings.account_id}",
            lambda: {"api_access_token": token.get_secret_value()},
            passing=_passing,
        )

    # Out

    def open_ticket(
        self,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> str:
        contact = self._contact(ticket_text.customer(message, conversation))
        found = self._opened(contact, idempotency_key) if again else None
        ticket_id = found or self._open(contact, conversation, idempotency_key)
        self._say(ticket_id, _opening(message), message.attachments, idempotency_key, again=again)
        self._label(ticket_id, ticket_text.tags(message, conversation), again=again)
        self._raise(ticket_id, conversation, None)
        return ticket_id

    def _contact(self, customer: ticket_text.Customer) -> tuple[int, str]:
        """(id, source_id) of the contact: one for a source_id, however often it is made."""
        told = {
            "source_id": customer.external_id,
            "identifier": customer.external_id,
            "name": customer.name,
            "email": customer.email,
            "phone_number": customer.phone,
            "identifier_hash": self._proof(customer.external_id),
        }
        path = f"{self._inbox}/contacts"
        try:
            made = self._public.call("POST", path, json={k: v for k, v in told.items() if v})
        except GoneError:
            name = self.configured_name
            raise ConfigurationError(
                f'helpdesk "{name}": Chatwoot knows no API inbox of this inbox_identifier'
            ) from None
        return int(_of(made, "id")), str(_of(made, "source_id"))

    @property
    def _inbox(self) -> str:
        return f"/public/api/v1/inboxes/{self.settings.inbox_identifier.get_secret_value()}"

    def _proof(self, identifier: str) -> str:
        token = self.settings.hmac_token
        return _hmac_sha256(token.get_secret_value(), identifier.encode()) if token else ""

    def _opened(self, contact: tuple[int, str], key: str) -> str | None:
        """The conversation that an earlier try opened."""
        for chat in _of(self._api.get(f"/contacts/{contact[0]}/conversations"), "payload"):
            if (chat.get("custom_attributes") or {}).get("askonce_key") == key:
                return str(chat["id"])
        return None

    def _open(self, contact: tuple[int, str], conversation: Conversation, key: str) -> str:
        attributes = {
            "askonce_key": key,
            "askonce_conversation": conversation.id,
            "askonce_reference": conversation.reference,
            "askonce_category": conversation.category,
        }
        path = f"{self._inbox}/contacts/{contact[1]}/conversations"
        opened = self._public.call("POST", path, json={"custom_attributes": attributes})
        return str(_of(opened, "id"))

    def _label(self, ticket_id: str, labels: list[str], *, again: bool) -> None:
        path = f"/conversations/{ticket_id}/labels"
        before = _of(self._api.get(path), "payload") if again else []  # a POST takes others away
        wanted = list(dict.fromkeys([*before, *(label.lower() for label in labels)]))
        self._api.call("POST", path, json={"labels": wanted}, repeatable=True)

    def _raise(self, ticket_id: str, conversation: Conversation, now: str | None) -> None:
        """Make it as urgent as the conversation is, never less than agents made it."""
        if conversation.priority is Priority.HIGH and now not in ("high", "urgent"):
            path = f"/conversations/{ticket_id}/toggle_priority"
            self._api.call("POST", path, json={"priority": "high"}, repeatable=True)

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        text = ticket_text.words(message)
        self._say(ticket_id, text, message.attachments, idempotency_key, again=again)
        chat = _shaped(Chat, self._api.get(f"/conversations/{ticket_id}"))
        if chat.status in ("resolved", "snoozed") and not chat.muted:
            path = f"/conversations/{ticket_id}/toggle_status"
            self._api.call("POST", path, json={"status": "open"}, repeatable=True)
        self._raise(ticket_id, conversation, chat.priority)

    def _say(
        self, ticket_id: str, text: str, files: tuple[Attachment, ...], key: str, *, again: bool
    ) -> None:
        """Post as the customer; what a message cannot hold of the files follows in others."""
        there = self._keys_on(ticket_id) if again else set()
        held = [file for file in files if file.content]
        for n in range(0, max(len(held), 1), _MOST_FILES):
            own = f"{OURS}{key}" + (f"+{n}" if n else "")
            if own not in there:
                self._post(ticket_id, "…" if n else text, held[n : n + _MOST_FILES], own)

    def _post(self, ticket_id: str, text: str, files: list[Attachment], key: str) -> None:
        fields = {"content": text, "message_type": "incoming", "source_id": key}
        path = f"/conversations/{ticket_id}/messages"
        if files:
            form = multipart(fields, [("attachments[]", file) for file in files])
            _of(self._api.call("POST", path, multipart=form), "id")
        else:
            _of(self._api.call("POST", path, json=fields), "id")

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        key = f"{OURS}{idempotency_key}"
        if again and key in self._keys_on(ticket_id):
            return
        note = {"content": text, "message_type": "outgoing", "private": True, "source_id": key}
        _of(self._api.call("POST", f"/conversations/{ticket_id}/messages", json=note), "id")

    def _keys_on(self, ticket_id: str) -> set[str]:
        return {str(said.get("source_id")) for said in self._said_on(ticket_id)}

    def _said_on(self, ticket_id: str) -> Iterator[dict[str, Any]]:
        """The conversation's messages, newest first, page by page."""
        query: dict[str, int] = {}
        for _ in range(_MOST_PAGES):
            page = _of(self._api.get(f"/conversations/{ticket_id}/messages", **query), "payload")
            yield from sorted(page, key=lambda said: -int(said["id"]))
            if not page:
                return
            query = {"before": min(int(said["id"]) for said in page)}

    def url_of(self, ticket_id: str) -> str:
        base, account = self.settings.url.rstrip("/"), self.settings.account_id
        return f"{base}/app/accounts/{account}/conversations/{ticket_id}"

    # Back

    def verify(self, request: WebhookRequest) -> None:
        timestamp = request.header("x-chatwoot-timestamp")
        given = request.header("x-chatwoot-signature")
        demand_fresh(timestamp, request.received_at)
        signed = f"{timestamp}.".encode() + request.body
        secrets = values(self.settings.webhook_secret)
        if not equals_any(given, [f"sha256={_hmac_sha256(s, signed)}" for s in secrets]):
            raise SignatureError("the signature does not match")

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        return list(chatwoot_events.events(request, self.settings.inbox_id))

    def poll(self, cursor: str, now: datetime) -> Polled:
        """One page of the conversations that something happened on, latest first."""
        if not cursor:
            return Polled(found=(), cursor=_cursor(int(now.timestamp())), more=False)
        since, page, newest = (int(part) for part in cursor.split(":"))
        query: dict[str, str | int] = {
            "inbox_id": self.settings.inbox_id,
            "status": "all",
            "page": page,
        }
        chats = [_shaped(Chat, c) for c in _of(self._api.get("/conversations", **query), "data")]
        early = since - _OVERLAP_SECONDS
        active = [chat for chat in chats if chat.last_activity_at >= early]
        found = [item for chat in active for item in self._happened(chat, early)]
        if page == 1:  # what moves to the front while later pages are read is the next round's
            settled = int(now.timestamp()) - _OVERLAP_SECONDS
            newest = max([since, settled, *(int(chat.last_activity_at) for chat in active)])
        more = bool(chats) and len(active) == len(chats)
        after = _cursor(since, page + 1, newest) if more else _cursor(newest)
        return Polled(found=found, cursor=after, more=more)

    def _happened(self, chat: Chat, early: int) -> Iterator[FromDesk]:
        """What was said from then on; that it is closed. Open may also mean that we opened it."""
        said = (_shaped(Said, each) for each in self._said_on(str(chat.id)))
        late = takewhile(lambda each: each.created_at.timestamp() >= early, said)
        for each in reversed(list(late)):
            yield from chatwoot_events.told(each, str(chat.id))
        if chat.status == "resolved":
            at = datetime.fromtimestamp(chat.last_activity_at, UTC)
            yield from chatwoot_events.state(chat, str(int(chat.last_activity_at)), at)

    def fetch(self, attachment: Attachment) -> bytes:
        hosts = {urlsplit(self.settings.url).netloc, *self.settings.file_hosts}
        return http.download(attachment.source or "", hosts=hosts, redirect_hosts=hosts)


def _passing(status: int, answer: Any) -> float | None:
    """422 also says that a conversation had 200 messages in a minute, or of a contact that somebody
    else is making it at this moment."""
    words = str(answer)
    if status == 422 and ("Too many messages" in words or "already been taken" in words):
        return _LIMIT_SECONDS if "Too many" in words else 1.0
    return None


def _of(answer: Any, name: str) -> Any:
    """A part of an answer. Without it some proxy spoke, and the call may have taken effect."""
    found = answer.get(name) if isinstance(answer, dict) else None
    if name == "data":  # of lists of conversations
        found = found.get("payload") if isinstance(found, dict) else None
    if found is None:
        raise RetryableError(f"Chatwoot's answer has no {name}", uncertain=True)
    return found


def _shaped(model: type[_Shape], answer: Any) -> _Shape:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise RetryableError(f"Chatwoot's answer is malformed: {where}") from None


def _hmac_sha256(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _cursor(since: int, page: int = 1, newest: int | None = None) -> str:
    return f"{since}:{page}:{since if newest is None else newest}"


def _opening(message: Message) -> str:
    """The first message; Chatwoot has no subject lines."""
    words = ticket_text.words(message)
    return f"{message.subject}\n\n{words}" if message.subject else words
