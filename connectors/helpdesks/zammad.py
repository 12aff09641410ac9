"""Zammad: customers are its customers, and what they write stands there as their own articles.

A ticket's preferences and each article's message id hold our key, where a second try looks for it.
Searches name conditions and no words: those are answered by the database, while words are looked
up in an index that learns of a ticket seconds later. A merge is not told, only found: in the state
and the links of the ticket that went. Zammad gives up on a webhook after two minutes, so it is
polled, too.

Tickets:  https://docs.zammad.org/en/latest/api/ticket/index.html
Articles: https://docs.zammad.org/en/latest/api/ticket/articles.html
Links:    https://docs.zammad.org/en/latest/api/ticket/links.html
Webhooks: https://admin-docs.zammad.org/en/latest/manage/webhook/add.html
"""

import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from chalicelib.errors import GoneError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import (
    DeskCapabilities,
    FromDesk,
    PluginSettings,
    Polled,
    PollingHelpdesk,
    WebhookRequest,
)
from chalicelib.schema import Attachment, Conversation, Message, Priority, State, TicketChange
from connectors import http, ticket_text, zammad_articles
from connectors.desk_calls import DeskCalls
from connectors.signing import Secret, Secrets, equals_any, values

_Shape = TypeVar("_Shape", bound=BaseModel)
_NORMAL, _HIGH = 2, 3
_PAGE = 20
#: What Zammad commits late, or its clock and ours make of a moment, is looked at once more.
_OVERLAP = timedelta(seconds=120)
_MOST_MERGES = 5
_FILE = re.compile(r"\d+/\d+/\d+")


class ZammadSettings(PluginSettings):
    """[helpdesks.<name>] connector = "zammad" """

    #: `https://desk.example`
    url: str = Field(pattern=r"^https?://")
    #: Of an agent of its own, with `ticket.agent`.
    token: Secret
    #: That agent's number. What it does is never taken for an agent's reply.
    user_id: int
    #: The webhook's HMAC SHA1 signature token.
    secret: Secrets
    #: Where tickets are opened.
    group: str = Field(min_length=1)
    #: The name of a text attribute of tickets that agents see our conversation's id in.
    conversation_attribute: str = Field(default="", pattern=r"^([a-z][a-z0-9_]*)?$")
    #: Public articles of agents that go to the customer. Zammad sends `email` by itself.
    reply_types: tuple[str, ...] = ("note", "web")
    #: The names of the states that mean closed.
    closed_states: tuple[str, ...] = ("closed",)


class Zammad(PollingHelpdesk):
    """A Zammad, hosted or one's own."""

    name = "zammad"
    settings_model = ZammadSettings
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
    )

    settings: ZammadSettings

    def __init__(self, settings: ZammadSettings, name: str) -> None:
        super().__init__(settings, name)
        self._url = settings.url.rstrip("/")
        self._api = DeskCalls(
            self, f"{self._url}/api/v1", self._credentials, explain=_explained, passing=_passing
        )
        self._reader = zammad_articles.Reader(
            settings.user_id, settings.reply_types, settings.closed_states
        )

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": f"Token token={self.settings.token.get_secret_value()}"}

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
        """The ticket that an earlier try opened: among those with the reference as a tag."""
        tagged = {"ticket.tags": ("contains all", _reference(conversation))}
        for ticket in _list(self._api.get("/tickets/search", expand="true", **_where(tagged))):
            if _key(ticket) == key:
                return str(ticket["id"])
        return None

    def _open(self, message: Message, conversation: Conversation, key: str) -> str:
        customer = ticket_text.customer(message, conversation)
        told = {
            "title": ticket_text.subject(message, conversation),
            "group": self.settings.group,
            "priority_id": _HIGH if conversation.priority is Priority.HIGH else _NORMAL,
            "tags": ",".join([*ticket_text.tags(message, conversation), _reference(conversation)]),
            "preferences": {"askonce": {"key": key, "conversation": conversation.id}},
            "article": zammad_articles.of_customer(message, key),
        }
        if attribute := self.settings.conversation_attribute:
            told[attribute] = conversation.id
        bare = {"login": f"askonce-{customer.external_id}", "firstname": customer.name}
        addresses = {"email": customer.email, "mobile": customer.phone}
        known = bare | {name: address for name, address in addresses.items() if address}
        try:
            opened = self._api.call("POST", "/tickets", json=told | {"customer": known})
        except RejectedError:  # perhaps for an address that Zammad does not like
            if known == bare:
                raise
            opened = self._api.call("POST", "/tickets", json=told | {"customer": bare})
        return str(_of(opened, "id"))

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        customer, ticket = self._living(ticket_id)
        if again and self._has(ticket["id"], idempotency_key):
            return
        told: dict[str, Any] = {
            "article": zammad_articles.of_customer(message, idempotency_key)
            | {"origin_by_id": customer}
        }
        if conversation.state is State.OPEN and ticket.get("state") not in zammad_articles.OPEN:
            told["state"] = "open"
        if conversation.priority is Priority.HIGH and _of(ticket, "priority_id") < _HIGH:
            told["priority_id"] = _HIGH
        try:
            _of(self._api.call("PUT", f"/tickets/{ticket['id']}", json=told), "id")
        except RejectedError as error:
            if "follow-up on a closed ticket" in str(error):
                raise GoneError(str(error)) from None
            raise

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        _, ticket = self._living(ticket_id)
        if again and self._has(ticket["id"], idempotency_key):
            return
        note = zammad_articles.written(text, idempotency_key) | {"type": "note", "internal": True}
        note |= {"ticket_id": ticket["id"], "sender": "Agent"}
        _of(self._api.call("POST", "/ticket_articles", json=note), "id")

    def _living(self, ticket_id: str) -> tuple[int, dict[str, Any]]:
        """(its customer, the ticket), or the one that it went into: a merged one would take words
        and show them to nobody. GoneError."""
        ticket = self._ticket(ticket_id)
        customer = int(_of(ticket, "customer_id"))
        for _ in range(_MOST_MERGES):
            if ticket.get("state") != "merged":
                return customer, ticket
            if not (into := self._went_into(str(ticket["id"]))):
                break
            ticket = self._ticket(into)
        raise GoneError(f"ticket {ticket_id} was merged into one that cannot be seen")

    def _ticket(self, ticket_id: str) -> dict[str, Any]:
        ticket = self._api.get(f"/tickets/{ticket_id}", expand="true")
        _of(ticket, "id")
        return dict(ticket)

    def _went_into(self, ticket_id: str) -> str:
        """A merge takes all other links away, and adds this one; '' where it cannot be seen."""
        found = self._api.get("/links", link_object="Ticket", link_object_value=ticket_id)
        links = [link for link in _of(found, "links") if link.get("link_type") != "normal"]
        return str(links[-1]["link_object_value"]) if links else ""

    def _has(self, ticket_id: int, key: str) -> bool:
        """Whether an article of ours with that key is there."""
        return any(
            a.get("message_id") == zammad_articles.message_id(key)
            for a in self._articles(ticket_id)
        )

    def _articles(self, ticket_id: int) -> list[dict[str, Any]]:
        return _list(self._api.get(f"/ticket_articles/by_ticket/{ticket_id}", expand="true"))

    def url_of(self, ticket_id: str) -> str:
        return f"{self._url}/#ticket/zoom/{ticket_id}"

    # Back

    def verify(self, request: WebhookRequest) -> None:
        given = request.header("x-hub-signature")
        wanted = [f"sha1={_hmac(s, request.body)}" for s in values(self.settings.secret)]
        if not equals_any(given, wanted):
            raise SignatureError("the signature does not match")

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        return self._reader.webhook(request.body)

    def poll(self, cursor: str, now: datetime) -> Polled:
        """One page of our tickets on which something happened, the earliest first.

        A cursor has where the round began, and where its next page does.
        """
        if not cursor:
            return Polled(found=(), cursor=_moment(now), more=False)
        began, _, page = cursor.partition(" ")
        early = datetime.fromisoformat(began) - _OVERLAP
        after = datetime.fromisoformat(page) if page else early
        conditions = {
            "ticket.tags": ("contains all", ticket_text.TAG),
            "ticket.updated_at": ("after (absolute)", _moment(after)),
        }
        order = {"sort_by": "updated_at", "order_by": "asc", "per_page": str(_PAGE), "page": "1"}
        answer = self._api.get("/tickets/search", expand="true", **order, **_where(conditions))
        tickets = [_shaped(zammad_articles.Ticket, ticket) for ticket in _list(answer)]
        found = [item for ticket in tickets for item in self._happened(ticket, early)]
        newest = max([datetime.fromisoformat(began), *(t.updated_at for t in tickets)])
        if len(tickets) < _PAGE:
            return Polled(found=found, cursor=_moment(newest), more=False)
        return Polled(found=found, cursor=f"{began} {_moment(tickets[-1].updated_at)}", more=True)

    def _happened(self, ticket: zammad_articles.Ticket, early: datetime) -> Iterator[FromDesk]:
        """What was said and done from then on; open may also mean that we opened it."""
        if ticket.state == "merged":
            if into := self._went_into(str(ticket.id)):
                yield TicketChange(
                    ticket_id=str(ticket.id),
                    external_id=f"{ticket.id}-merged-{into}",
                    state="merged",
                    merged_into=into,
                    at=ticket.updated_at,
                )
            return
        for told in self._articles(ticket.id):
            article = _shaped(zammad_articles.Article, told)
            if article.created_at > early:
                yield from self._reader.said(ticket.id, article)
        if ticket.last_close_at and ticket.last_close_at > early:
            yield from self._reader.closed(ticket)

    def fetch(self, attachment: Attachment) -> bytes:
        source = attachment.source or ""
        if not _FILE.fullmatch(source):
            raise RejectedError("the file is none of Zammad's")
        url = f"{self._url}/api/v1/ticket_attachment/{source}"
        return http.download(url, hosts={urlsplit(url).netloc}, headers=self._credentials())


# What is sent


def _reference(conversation: Conversation) -> str:
    return conversation.reference.lower()


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _where(conditions: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Conditions as the search's parameters."""
    return {
        f"condition[{name}][{part}]": said
        for name, (operator, value) in conditions.items()
        for part, said in (("operator", operator), ("value", value))
    }


# Answers


def _of(answer: Any, name: str) -> Any:
    """A part of an answer. Without it some proxy spoke, and the call may have taken effect."""
    found = answer.get(name) if isinstance(answer, dict) else None
    if found is None:
        raise RetryableError(f"Zammad's answer has no {name}", uncertain=True)
    return found


def _list(answer: Any) -> list[dict[str, Any]]:
    if not isinstance(answer, list):
        raise RetryableError("Zammad's answer is no list")
    return answer


def _key(ticket: dict[str, Any]) -> str:
    """The key of ours in a ticket's preferences."""
    return str(((ticket.get("preferences") or {}).get("askonce") or {}).get("key", ""))


def _shaped(model: type[_Shape], answer: Any) -> _Shape:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise RetryableError(f"Zammad's answer is malformed: {where}") from None


def _passing(status: int, answer: Any) -> float | None:
    """422 also says that somebody else is making this customer at this moment."""
    return 1.0 if status == 422 and "already" in str(answer) else None


def _explained(answer: Any) -> str:
    """Zammad's words for a refusal: those for people, else the others."""
    if not isinstance(answer, dict):
        return ""
    return str(answer.get("error_human") or answer.get("error") or "")


def _hmac(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha1).hexdigest()
