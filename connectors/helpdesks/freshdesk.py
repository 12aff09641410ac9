"""Freshdesk: what customers write are incoming notes in their names; agents are read by polling.

Never a `reply`: that is mail, from an agent. Freshdesk knows no idempotency keys, so ours stands on
each ticket (a field) and at the end of each note (small and white), where a second try looks for
it. Its webhooks cannot name a reply, are not signed, and get lost after a day: they only tell that
a ticket was closed or opened again, and everything else is asked for every minute.

API:      https://developers.freshdesk.com/api/
Notes:    https://developers.freshdesk.com/api/#add_note_to_a_ticket
Contacts: https://developers.freshdesk.com/api/#contacts
Webhooks: https://support.freshdesk.com/support/solutions/articles/132589
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chalicelib.errors import ConfigurationError, PayloadError, RejectedError, RetryableError
from chalicelib.ports import (
    DeskCapabilities,
    FromDesk,
    PluginSettings,
    Polled,
    PollingHelpdesk,
    WebhookRequest,
)
from chalicelib.schema import Attachment, Conversation, Message, Priority, State, TicketChange
from connectors import freshdesk_talk, http, ticket_text
from connectors.desk_calls import DeskCalls, name_of
from connectors.signing import PathSecrets, Secret, basic_auth, demand_path_secret

_OPEN, _MEDIUM, _HIGH = 2, 2, 3
#: How many of what is listed a page has; for polling fewer, as each ticket is a call.
_PAGE, _POLLED = 100, 20
#: What Freshdesk lists late, or its clock and ours make of a moment, is looked at once more.
_OVERLAP_SECONDS, _LAG_SECONDS = 120, 60
_FILE_HOSTS = (
    "s3.amazonaws.com",
    "attachment.freshdesk.com",
    "eucattachment.freshdesk.com",
    "indattachment.freshdesk.com",
    "aucattachment.freshdesk.com",
)


class FreshdeskSettings(PluginSettings):
    """[helpdesks.<name>] connector = "freshdesk" """

    #: `https://<account>.freshdesk.com`
    url: str = Field(pattern=r"^https?://")
    #: Profile settings > View API key, of an agent of its own.
    api_key: Secret
    #: Ends the address of the webhooks.
    path_secret: PathSecrets
    #: The API's name of the ticket field that holds our key.
    key_field: str = Field(default="cf_askonce", pattern=r"^cf_[a-z0-9_]+$")
    #: Where agents' files lie.
    file_hosts: tuple[str, ...] = _FILE_HOSTS


class Freshdesk(PollingHelpdesk):
    """An account of Freshdesk."""

    name = "freshdesk"
    settings_model = FreshdeskSettings
    capabilities = DeskCapabilities(
        as_customer=True,
        once="look_up",
        webhooks="secret_address",
        files_in=True,
        files_out=True,
        status=True,
        priority=True,
        tags=True,
        corrections=True,
        calls_per_minute=100,
    )
    secret_in_path = True
    poll_minutes = 1

    settings: FreshdeskSettings

    def __init__(self, settings: FreshdeskSettings, name: str) -> None:
        super().__init__(settings, name)
        self._url = settings.url.rstrip("/")
        self._api = DeskCalls(
            self,
            f"{self._url}/api/v2",
            lambda: basic_auth(settings.api_key.get_secret_value(), "X"),
            explain=_explained,
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
        requester = self._contact(ticket_text.customer(message, conversation))
        found = self._opened(requester, idempotency_key) if again else None
        return found or self._open(message, conversation, requester, idempotency_key)

    def _opened(self, requester: int, key: str) -> str | None:
        """The ticket that an earlier try opened; the list is up to date, as the search is not."""
        for ticket in self._pages("/tickets", requester_id=requester):
            if (ticket.get("custom_fields") or {}).get(self.settings.key_field) == key:
                return str(_of(ticket, "id"))
        return None

    def _open(self, message: Message, conversation: Conversation, requester: int, key: str) -> str:
        ticket = {
            "requester_id": requester,
            "subject": ticket_text.subject(message, conversation),
            "description": freshdesk_talk.html(ticket_text.words(message)),
            "status": _OPEN,
            "priority": _HIGH if conversation.priority is Priority.HIGH else _MEDIUM,
            "tags": [*ticket_text.tags(message, conversation), conversation.reference],
            "custom_fields": {self.settings.key_field: key},
        }
        try:
            return str(_of(self._post("/tickets", ticket, message.attachments), "id"))
        except RejectedError as error:
            if self.settings.key_field in str(error):
                name, field = self.configured_name, self.settings.key_field
                raise ConfigurationError(
                    f'helpdesk "{name}": Freshdesk has no ticket field {field}: add a single-line '
                    f"text field, or name another one as key_field ({error})"
                ) from None
            raise

    def _contact(self, customer: ticket_text.Customer) -> int:
        """The id of the contact: ours, else one of the address, made ours then; else a new one."""
        if own := self._found("unique_external_id", customer.external_id):
            return int(_of(own, "id"))
        if known := self._known(customer):
            found = int(_of(known, "id"))
            if not known.get("unique_external_id"):
                marked = {"unique_external_id": customer.external_id}
                self._api.call("PUT", f"/contacts/{found}", json=marked, repeatable=True)
            return found
        bare = {"name": customer.name, "unique_external_id": customer.external_id}
        addresses = {"email": customer.email, "mobile": customer.phone}
        try:
            return self._make(bare | {k: v for k, v in addresses.items() if v})
        except RejectedError:  # made meanwhile, or an address that is an agent's
            own = self._found("unique_external_id", customer.external_id)
            return int(_of(own, "id")) if own else self._make(bare)

    def _known(self, customer: ticket_text.Customer) -> dict[str, Any] | None:
        places = [("email", customer.email), ("mobile", customer.phone), ("phone", customer.phone)]
        found = (self._found(name, value) for name, value in places if value)
        return next(filter(None, found), None)

    def _found(self, name: str, value: str) -> dict[str, Any] | None:
        return next(iter(_all(self._api.get("/contacts", **{name: value}))), None)

    def _make(self, contact: dict[str, Any]) -> int:
        return int(_of(self._api.call("POST", "/contacts", json=contact), "id"))

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        """Two calls: the note, and what it makes of the ticket, which is the same each time."""
        if not (again and self._has(ticket_id, idempotency_key)):
            author = self._contact(ticket_text.customer(message, conversation))
            note = {
                "body": freshdesk_talk.html(ticket_text.words(message), idempotency_key),
                "incoming": True,
                "private": False,
                "user_id": author,
            }
            path = f"/tickets/{ticket_id}/notes"
            _of(self._post(path, note, message.attachments), "id")
        self._keep_up(ticket_id, conversation)

    def _keep_up(self, ticket_id: str, conversation: Conversation) -> None:
        """Open it where the conversation is open; as urgent as that, never less than agents say."""
        change = {"status": _OPEN} if conversation.state is State.OPEN else {}
        if conversation.priority is Priority.HIGH:
            now = int(_of(self._api.get(f"/tickets/{ticket_id}"), "priority"))
            change |= {"priority": _HIGH} if now < _HIGH else {}
        if change:
            self._api.call("PUT", f"/tickets/{ticket_id}", json=change, repeatable=True)

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
            note = {"body": freshdesk_talk.html(text, idempotency_key), "private": True}
            _of(self._post(f"/tickets/{ticket_id}/notes", note, ()), "id")

    def _has(self, ticket_id: str, key: str) -> bool:
        """Whether a note of ours with that key is there."""
        mark = freshdesk_talk.mark(key)
        return any(mark in (said.get("body") or "") for said in self._said_on(ticket_id))

    def _said_on(self, ticket_id: str) -> Iterator[dict[str, Any]]:
        return self._pages(f"/tickets/{ticket_id}/conversations")

    def _pages(self, path: str, **query: str | int) -> Iterator[dict[str, Any]]:
        page = 1
        while found := _all(self._api.get(path, per_page=_PAGE, page=page, **query)):
            yield from found
            if len(found) < _PAGE:
                return
            page += 1

    def _post(self, path: str, body: dict[str, Any], files: tuple[Attachment, ...]) -> Any:
        held = [file for file in files if file.content]
        if not held:
            return self._api.call("POST", path, json=body)
        return self._api.call("POST", path, multipart=_form(body, held))

    def url_of(self, ticket_id: str) -> str:
        return f"{self._url}/a/tickets/{ticket_id}"

    # Back

    def verify(self, request: WebhookRequest) -> None:
        demand_path_secret(request, self.settings.path_secret)

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        try:
            event = _Event.model_validate_json(request.body)
        except ValidationError as error:
            raise PayloadError(f"the event is malformed: {error.errors()[0]['loc']}") from None
        if event.event not in _STATES:
            return []
        at = request.received_at
        return [
            TicketChange(
                ticket_id=event.ticket_id,
                external_id=f"{event.event}-{int(at.timestamp())}",
                state=_STATES[event.event],
                at=at,
            )
        ]

    def poll(self, cursor: str, now: datetime) -> Polled:
        """One page of our tickets that something happened on, latest first."""
        if not cursor:
            return Polled(found=(), cursor=_cursor(int(now.timestamp())), more=False)
        since, page, newest = (int(part) for part in cursor.split(":"))
        listed = _all(
            self._api.get(
                "/tickets",
                updated_since=freshdesk_talk.iso(since - _OVERLAP_SECONDS),
                order_by="updated_at",
                order_type="desc",
                per_page=_POLLED,
                page=page,
            )
        )
        tickets = [freshdesk_talk.shaped(freshdesk_talk.Ticket, ticket) for ticket in listed]
        found = [
            item
            for ticket in tickets
            if ticket.custom_fields.get(self.settings.key_field)
            for item in freshdesk_talk.happened(ticket, self._said_on(ticket.id), since)
        ]
        # of the first page: what happens while the others are read goes before it, unseen
        recently = int(now.timestamp()) - _LAG_SECONDS if page == 1 else newest
        newest = max([newest, recently, *(int(t.updated_at.timestamp()) for t in tickets)])
        more = len(tickets) == _POLLED
        after = _cursor(since, page + 1, newest) if more else _cursor(newest)
        return Polled(found=found, cursor=after, more=more)

    def fetch(self, attachment: Attachment) -> bytes:
        hosts = {urlsplit(self.settings.url).netloc, *self.settings.file_hosts}
        return http.download(attachment.source or "", hosts=hosts, redirect_hosts=hosts)


class _Event(BaseModel):
    """What docs/helpdesks/freshdesk.md has the rules send."""

    model_config = ConfigDict(extra="ignore", defer_build=True)
    event: str
    ticket_id: str = Field(min_length=1, max_length=64)


_STATES: dict[str, Literal["open", "closed"]] = {"closed": "closed", "reopened": "open"}


def _of(answer: Any, name: str) -> Any:
    """A part of an answer. Without it some proxy spoke, and the call may have taken effect."""
    found = answer.get(name) if isinstance(answer, dict) else None
    if found is None:
        raise RetryableError(f"Freshdesk's answer has no {name}", uncertain=True)
    return found


def _all(answer: Any) -> list[dict[str, Any]]:
    """The answer, a list of objects."""
    if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
        raise RetryableError("Freshdesk's answer is no list")
    return answer


def _explained(answer: Any) -> str:
    """Freshdesk's words for a refusal: a description, and what is wrong with each field."""
    if not isinstance(answer, dict):
        return ""
    errors = answer.get("errors")
    wrong = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
    fields = [f"{e.get('field')}: {e.get('message')}" for e in wrong]
    return "; ".join(
        str(w) for w in (answer.get("description"), answer.get("message"), *fields) if w
    )


def _form(body: dict[str, Any], files: list[Attachment]) -> tuple[bytes, str]:
    """(body, content type) of a form: lists and objects as Freshdesk spells them in one."""
    from urllib3 import encode_multipart_formdata

    parts: list[Any] = []
    for name, value in body.items():
        if isinstance(value, list):
            parts += [(f"{name}[]", each) for each in value]
        elif isinstance(value, dict):
            parts += [(f"{name}[{own}]", each) for own, each in value.items()]
        else:
            parts.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    for number, file in enumerate(files, 1):
        told = (name_of(file, number), file.content or b"", file.media_type)
        parts.append(("attachments[]", told))
    return encode_multipart_formdata(parts)


def _cursor(since: int, page: int = 1, newest: int | None = None) -> str:
    return f"{since}:{page}:{since if newest is None else newest}"
