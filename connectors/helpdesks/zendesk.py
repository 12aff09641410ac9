"""Zendesk Support: customers are its end users, and what they write stands there as theirs.

Every update carries our key in its audit (`metadata`), where a second try looks for it; Zendesk's
own idempotency key is for new tickets only, and forgotten after hours.

Tickets:     https://developer.zendesk.com/api-reference/ticketing/tickets/tickets/
Audits:      https://developer.zendesk.com/api-reference/ticketing/tickets/ticket_audits/
Users:       https://developer.zendesk.com/api-reference/ticketing/users/users/
Files:       https://developer.zendesk.com/api-reference/ticketing/tickets/ticket-attachments/
Idempotency: https://developer.zendesk.com/api-reference/ticketing/introduction/#idempotency
Signature:   https://developer.zendesk.com/documentation/webhooks/verifying/
"""

import base64
import hashlib
import hmac
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from chalicelib.errors import (
    ConfigurationError,
    GoneError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import DeskCapabilities, FromDesk, Helpdesk, PluginSettings, WebhookRequest
from chalicelib.schema import Attachment, Conversation, Message, Priority, State
from connectors import http, ticket_text, zendesk_events
from connectors.desk_calls import DeskCalls, name_of
from connectors.signing import Secret, Secrets, basic_auth, demand_fresh, equals_any, values

#: Its name in an audit's metadata.
_KEY = "askonce_key"
#: Where Zendesk sends whoever asks for a file.
_FILE_HOSTS = {f"p{n}.zdusercontent.com" for n in range(1, 100)}


class ZendeskSettings(PluginSettings):
    """[helpdesks.<name>] connector = "zendesk" """

    #: `https://<subdomain>.zendesk.com`
    url: str = Field(pattern=r"^https?://")
    #: The account that `token`, an API token, is used with; without it `token` is an OAuth token.
    email: str = ""
    token: Secret
    #: That account's own number. What it does is never taken for an agent's reply.
    user_id: int
    #: The webhook's signing secret.
    secret: Secrets
    #: Further hosts of files: those of other brands, or of a mapped host name.
    file_hosts: tuple[str, ...] = ()


class Zendesk(Helpdesk):
    """An account of Zendesk."""

    name = "zendesk"
    settings_model = ZendeskSettings
    capabilities = DeskCapabilities(
        as_customer=True,
        once="look_up",
        webhooks="signed",
        files_in=True,
        files_out=True,
        status=True,
        priority=True,
        tags=True,
        merges=True,
        corrections=True,
        updates=(30, 600),
        calls_per_minute=200,
    )

    settings: ZendeskSettings

    def __init__(self, settings: ZendeskSettings, name: str) -> None:
        super().__init__(settings, name)
        self._url = settings.url.rstrip("/")
        self._api = DeskCalls(
            self, f"{self._url}/api/v2", self._credentials, explain=_explained, passing=_passing
        )

    def _credentials(self) -> dict[str, str]:
        token = self.settings.token.get_secret_value()
        if not self.settings.email:
            return {"Authorization": f"Bearer {token}"}
        return dict(basic_auth(f"{self.settings.email}/token", token))

    # Out

    def open_ticket(
        self,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> str:
        found = self._opened(conversation, idempotency_key) if again else None
        return found or self._open(message, conversation, idempotency_key)

    def _opened(self, conversation: Conversation, key: str) -> str | None:
        """The ticket that an earlier try opened: external ids are not unique, our keys are."""
        tickets = _of(self._api.get("/tickets", external_id=conversation.id), "tickets")
        ids = [str(_of(ticket, "id")) for ticket in tickets]
        return next((each for each in ids if self._has(each, key)), None)

    def _open(self, message: Message, conversation: Conversation, key: str) -> str:
        requester = self._user(ticket_text.customer(message, conversation))
        ticket = {
            "subject": ticket_text.subject(message, conversation),
            "requester_id": requester,
            "external_id": conversation.id,
            "priority": conversation.priority.value,
            "tags": [*ticket_text.tags(message, conversation), conversation.reference.lower()],
            "comment": self._comment(message, requester),
            "metadata": {_KEY: key},
        }
        opened = self._api.call(
            "POST",
            "/tickets",
            json={"ticket": ticket},
            headers={"Idempotency-Key": key},
            repeatable=True,
        )
        return str(_of(_of(opened, "ticket"), "id"))

    def _user(self, customer: ticket_text.Customer) -> int:
        """The id of the end user: of ours, else of the address, else a new one."""
        found = self._api.get("/users/search", external_id=customer.external_id)
        if users := _of(found, "users"):
            return int(_of(users[0], "id"))
        bare = {"external_id": customer.external_id, "name": customer.name}
        addresses = {"email": customer.email, "phone": customer.phone}
        try:
            return self._make_user(bare | {k: v for k, v in addresses.items() if v})
        except RejectedError:  # an address of two people there, or one that Zendesk does not like
            return self._make_user(bare)

    def _make_user(self, told: dict[str, Any]) -> int:
        user = told | {"skip_verify_email": True}
        made = self._api.call(
            "POST", "/users/create_or_update", json={"user": user}, repeatable=True
        )
        return int(_of(_of(made, "user"), "id"))

    def _comment(self, message: Message, author: int) -> dict[str, Any]:
        files = [(n, a) for n, a in enumerate(message.attachments, 1) if a.content]
        comment = {"body": ticket_text.words(message), "author_id": author, "public": True}
        return comment | ({"uploads": [self._upload(a, n) for n, a in files]} if files else {})

    def _upload(self, file: Attachment, number: int) -> str:
        """The token by which a comment takes the file. One that none takes is deleted there."""
        kept = self._api.call(
            "POST",
            "/uploads",
            query={"filename": name_of(file, number)},
            multipart=(file.content or b"", file.media_type),
            repeatable=True,
        )
        return str(_of(_of(kept, "upload"), "token"))

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        if again and self._has(ticket_id, idempotency_key):
            return
        author = self._user(ticket_text.customer(message, conversation))
        ticket: dict[str, Any] = {"comment": self._comment(message, author)}
        if conversation.state is State.OPEN:
            ticket["status"] = "open"
        if conversation.priority is Priority.HIGH and not self._is_urgent(ticket_id):
            ticket["priority"] = "high"
        self._update(ticket_id, ticket, idempotency_key)

    def _is_urgent(self, ticket_id: str) -> bool:
        """Whether agents made it more than `high`: a repeat never makes it less."""
        ticket = _of(self._api.get(f"/tickets/{ticket_id}"), "ticket")
        return bool(ticket.get("priority") == "urgent")

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        if not (again and self._has(ticket_id, idempotency_key)):
            note = {"body": text, "public": False}
            self._update(ticket_id, {"comment": note}, idempotency_key)

    def _update(self, ticket_id: str, ticket: dict[str, Any], key: str) -> None:
        """GoneError, too, for a ticket that is closed: Zendesk never opens those again."""
        told = {"ticket": ticket | {"metadata": {_KEY: key}}}
        try:
            _of(self._api.call("PUT", f"/tickets/{ticket_id}", json=told), "ticket")
        except (ConfigurationError, RejectedError) as error:
            if "closed" in str(error).lower():
                raise GoneError(str(error)) from None
            raise

    def _has(self, ticket_id: str, key: str) -> bool:
        """Whether an update of ours with that key is there."""
        audits = self._pages(f"/tickets/{ticket_id}/audits", "audits")
        metadata = (audit.get("metadata") or {} for audit in audits)
        return any((each.get("custom") or {}).get(_KEY) == key for each in metadata)

    def _pages(self, path: str, name: str) -> Iterator[dict[str, Any]]:
        query: dict[str, str | int] = {"page[size]": 100}
        while True:
            page = self._api.get(path, **query)
            yield from _of(page, name)
            meta = page.get("meta") or {}
            if not meta.get("has_more"):
                return
            query["page[after]"] = _of(meta, "after_cursor")

    def url_of(self, ticket_id: str) -> str:
        return f"{self._url}/agent/tickets/{ticket_id}"

    # Back

    def verify(self, request: WebhookRequest) -> None:
        timestamp = request.header("x-zendesk-webhook-signature-timestamp")
        given = request.header("x-zendesk-webhook-signature")
        demand_fresh(_epoch(timestamp), request.received_at)
        signed = timestamp.encode() + request.body
        if not equals_any(given, [_hmac(s, signed) for s in values(self.settings.secret)]):
            raise SignatureError("the signature does not match")

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        return zendesk_events.read(request.body, str(self.settings.user_id))

    def fetch(self, attachment: Attachment) -> bytes:
        source, _, comment = (attachment.source or "").partition("#")
        own = urlsplit(self.settings.url).netloc
        more = self.settings.file_hosts
        http.demand_listed(source, {own, *more})
        self._demand_public(comment)
        return http.download(
            source,
            hosts={own, *more},
            redirect_hosts={own, *more, *_FILE_HOSTS},
            headers=self._credentials() if source.startswith(f"{self._url}/") else {},
        )

    def _demand_public(self, place: str) -> None:
        """RejectedError unless the file's comment (`ticket/comment`) is public.

        The event's own flag is the file's: a file of a public comment may have it `false`.
        """
        ticket_id, _, comment_id = place.partition("/")
        if not (ticket_id.isdecimal() and comment_id.isdecimal()):
            raise RejectedError("the file names no comment")
        comments = self._pages(f"/tickets/{ticket_id}/comments", "comments")
        if not any(str(c.get("id")) == comment_id and c.get("public") is True for c in comments):
            raise RejectedError("the file is not of a public comment")


# Answers


def _of(answer: Any, name: str) -> Any:
    """A part of an answer. Without it some proxy spoke, and the call may have taken effect."""
    found = answer.get(name) if isinstance(answer, dict) else None
    if found is None:
        raise RetryableError(f"Zendesk's answer has no {name}", uncertain=True)
    return found


def _passing(status: int, answer: Any) -> float | None:
    """409: somebody updates it at this moment; our key with other words: so does an earlier try."""
    busy = isinstance(answer, dict) and answer.get("error") == "IdempotentRequestError"
    return 2.0 if status == 409 or (status == 400 and busy) else None


def _explained(answer: Any) -> str:
    """Zendesk's words for a refusal: a description, and more of it for each field."""
    if not isinstance(answer, dict):
        return ""
    error, details = answer.get("error"), answer.get("details")
    title = error.get("message") or error.get("title") if isinstance(error, dict) else error
    fields = details.values() if isinstance(details, dict) else ()
    more = [d.get("description") for f in fields if isinstance(f, list) for d in f if _is_dict(d)]
    return "; ".join(str(words) for words in (answer.get("description") or title, *more) if words)


def _is_dict(found: Any) -> bool:
    return isinstance(found, dict)


# Proof


def _hmac(secret: str, signed: bytes) -> str:
    return base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def _epoch(timestamp: str) -> str:
    """`2026-01-01T09:00:00Z` as an epoch time, or ''."""
    try:
        at = datetime.fromisoformat(timestamp)
    except ValueError:
        return ""
    return str(int(at.timestamp())) if at.tzinfo and timestamp.isascii() else ""
