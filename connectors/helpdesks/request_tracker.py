"""Request Tracker 5, through REST2; a Scrip of RT's tells us what agents do.

RT honours no idempotency key: each message of ours carries it in a custom field, and a second try
looks there. REST2 signs whatever we add as our own user, so that the customer's name stands in
front; RT's mail gateway could sign as the customer, but it takes mail from everybody, takes the
same mail twice, and exits 0 for what it refused. RT's own mails to the customer are switched off
on our tickets: we deliver the answers.

REST2:           https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html
Searches:        https://docs.bestpractical.com/rt/5.0.3/query_builder.html
Scrips:          https://docs.bestpractical.com/rt/5.0.3/customizing/scrip_conditions_and_action.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError

from chalicelib.errors import (
    ConfigurationError,
    GoneError,
    PayloadError,
    RejectedError,
    RetryableError,
)
from chalicelib.ports import (
    DeskCapabilities,
    FromDesk,
    PluginSettings,
    Polled,
    PollingHelpdesk,
    WebhookRequest,
)
from chalicelib.schema import (
    Attachment,
    Conversation,
    Message,
    Priority,
)
from connectors import http, ticket_text
from connectors.desk_calls import DeskCalls, multipart
from connectors.request_tracker_events import Event, History, content_of, found_in, quoted
from connectors.signing import Secret, Secrets, StandardWebhook, values

API = "/REST/2.0"
#: What a search may ask for without escaping: RT's names have none of these.
_PLAIN = r"^[^'\"\\]+$"
_Name = Annotated[str, Field(pattern=_PLAIN, max_length=200)]


class RequestTrackerSettings(PluginSettings):
    """[helpdesks.<name>] connector = "request_tracker" """

    url: str = Field(pattern=r"^https?://")
    #: Of the user whom we are in RT.
    token: Secret
    #: Proves what the Scrip sends: AskOnceSecret in RT's configuration.
    secret: Secrets
    queue: _Name = "General"
    #: Other queues to which agents move our tickets.
    moved_to: tuple[_Name, ...] = ()
    #: Our user's name: AskOnceUser in RT's configuration.
    user: _Name = "askonce"
    #: The states in which a ticket counts as closed.
    closed: tuple[str, ...] = ("resolved", "rejected", "deleted")
    high_priority: int = 100


class RequestTracker(PollingHelpdesk):
    """A queue of an RT."""

    name = "request_tracker"
    settings_model = RequestTrackerSettings
    capabilities = DeskCapabilities(
        as_customer=False,
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

    settings: RequestTrackerSettings

    def __init__(self, settings: RequestTrackerSettings, name: str) -> None:
        super().__init__(settings, name)
        self._signature = StandardWebhook(settings.secret)
        self._url = settings.url.rstrip("/")
        self._calls = DeskCalls(self, self._url + API, self._credentials)
        queues = (settings.queue, *settings.moved_to)
        self._history = History(self._calls, settings.user, queues)

    def _credentials(self) -> Mapping[str, str]:
        return {"Authorization": f"token {values(self.settings.token)[0]}"}

    # In

    def open_ticket(
        self,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> str:
        if again and (found := self._marked("tickets", "ExternalId", idempotency_key)):
            return found
        requestor = self._requestor(ticket_text.customer(message, conversation))
        ticket = {
            "Queue": self.settings.queue,
            "Subject": ticket_text.subject(message, conversation),
            "Requestor": requestor.name,
            "CustomFields": {
                "ExternalId": idempotency_key,
                "Reference": conversation.reference,
                "Channel": message.channel.value,
                "Category": conversation.category,
            },
            **_said(ticket_text.with_name(message)),
        }
        if requestor.email:
            ticket["SquelchMailTo"] = requestor.email
        if conversation.priority is Priority.HIGH:
            ticket["Priority"] = self.settings.high_priority
        answer = self._calls.call("POST", "/ticket", **_with_files(ticket, message))
        if not isinstance(answer, dict) or not str(answer.get("id", "")).isdecimal():
            raise RetryableError("RT names no ticket", uncertain=True)
        return str(answer["id"])

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        """RT itself opens a closed ticket for it. What was opened urgent is not made less so."""
        if conversation.priority is Priority.HIGH:
            self._make_urgent(ticket_id)
        if not (again and self._marked("transactions", "MessageId", idempotency_key)):
            words = _marking(_said(ticket_text.with_name(message)), idempotency_key)
            self._add(ticket_id, "correspond", **_with_files(words, message))

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        if not (again and self._marked("transactions", "MessageId", idempotency_key)):
            self._add(ticket_id, "comment", json=_marking(_said(text), idempotency_key))

    def _add(self, ticket_id: str, how: str, **request: Any) -> None:
        """RT says 400 for a ticket that is not there, and for one that we may not write on."""
        try:
            self._calls.call("POST", f"{_path(ticket_id)}/{how}", **request)
        except GoneError:
            raise
        except RejectedError as error:
            if self._calls.find(_path(ticket_id)) is None:
                raise GoneError(str(error)) from None
            if "Permission Denied" in str(error):
                raise self._no_right(how) from None
            raise

    def _make_urgent(self, ticket_id: str) -> None:
        """RT says 200 for a change that it did not make."""
        urgent = {"Priority": self.settings.high_priority}
        told = self._calls.call("PUT", _path(ticket_id), json=urgent, repeatable=True)
        if "Permission Denied" in str(told):
            raise self._no_right("change the priority")

    def _no_right(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f'helpdesk "{self.configured_name}": RT\'s user "{self.settings.user}" has no right to'
            f" {what} on a ticket's queue"
        )

    def _marked(self, what: str, field: str, key: str) -> str:
        """The id of what carries our key, or ''. ConfigurationError where nothing can carry it."""
        if not found_in(self._calls, "customfields", [{"field": "Name", "value": field}]):
            raise ConfigurationError(
                f'helpdesk "{self.configured_name}": RT has no custom field {field} that its user'
                f' "{self.settings.user}" sees: without it nothing can be sent again'
            )
        found = found_in(self._calls, what, f"CF.{{{field}}}={quoted(key)}", orderby="id")
        return str(found[0]["id"]) if found else ""

    # Who wrote

    def _requestor(self, who: ticket_text.Customer) -> "_Requestor":
        """RT's user for the customer: ours, or one who is known there by a proven address.

        Names are unique in RT, and so are email addresses: of two who make it at once one is
        refused, and takes the other's.
        """
        own = f"askonce-{who.external_id}"
        known = [] if who.email or not who.phone else self._users("MobilePhone", who.phone)
        if known:
            return next((user for user in known if user.name == own), known[0])
        user = {"Name": own, "RealName": who.name, "Privileged": 0}
        user |= {"EmailAddress": who.email} if who.email else {}
        user |= {"MobilePhone": who.phone} if who.phone else {}
        try:
            self._calls.call("POST", "/user", json=user)
        except RejectedError as error:
            if not (known := self._taken(str(error), own, who.email)):
                raise
            return known[0]
        return _Requestor(own, who.email)

    def _taken(self, refusal: str, name: str, email: str) -> list["_Requestor"]:
        if "Email address in use" in refusal:
            return self._users("EmailAddress", email)
        return self._users("Name", name) if "Name in use" in refusal else []

    def _users(self, field: str, value: str) -> list["_Requestor"]:
        """Compared once more: a search by a field that RT does not search by finds everybody."""
        wanted = [{"field": field, "value": value}]
        fields = "Name,EmailAddress,MobilePhone"
        found = found_in(self._calls, "users", wanted, fields=fields)
        return [
            _Requestor(str(u.get("Name") or u["id"]), u.get("EmailAddress") or "")
            for u in found
            if str(u.get(field) or "").lower() == value.lower()
        ]

    # Out, as the Scrip tells it

    def verify(self, request: WebhookRequest) -> None:
        self._signature.verify(request)

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        try:
            return self._read(Event.model_validate_json(request.body))
        except ValidationError as error:
            first = error.errors()[0]
            raise PayloadError(f"the event is malformed: {first['loc']} {first['type']}") from None

    def _read(self, event: Event) -> list[FromDesk]:
        return event.read(own=self.settings.user, closed=self.settings.closed)

    def poll(self, cursor: str, now: datetime) -> Polled:
        """The transactions after `cursor`, a transaction's id. A state that is past is no news."""
        if not cursor:
            return Polled(found=(), cursor=self._history.latest(), more=False)
        page = self._history.after(cursor, now)
        found = [noun for event in page.events for noun in self._read(event)]
        return Polled(found=found, cursor=page.cursor, more=page.more)

    def fetch(self, attachment: Attachment) -> bytes:
        """RT gives a file as base64 in JSON: a third longer than it is."""
        self.calls += 1
        answer = http.download(
            f"{self._url}{API}/attachment/{quote(attachment.source or '', safe='')}",
            hosts=[urlsplit(self._url).netloc],
            headers=self._credentials(),
            max_bytes=http.MAX_DOWNLOAD_BYTES * 3 // 2,
        )
        content = content_of(http.Answer(200, {}, answer).json())
        if len(content) > http.MAX_DOWNLOAD_BYTES:
            raise RejectedError(f"the file is over {http.MAX_DOWNLOAD_BYTES} bytes")
        return content

    def url_of(self, ticket_id: str) -> str:
        return f"{self._url}/Ticket/Display.html?id={quote(ticket_id, safe='')}"


@dataclass(frozen=True)
class _Requestor:
    """A user of RT's, and where RT would write to."""

    name: str
    email: str = ""


# What we say


def _path(ticket_id: str) -> str:
    return f"/ticket/{quote(ticket_id, safe='')}"


def _said(text: str) -> dict[str, Any]:
    return {"Content": text, "ContentType": "text/plain"}


def _marking(words: dict[str, Any], key: str) -> dict[str, Any]:
    return {**words, "TxnCustomFields": {"MessageId": key}}


def _with_files(fields: dict[str, Any], message: Message) -> dict[str, Any]:
    """The request that says so, as a form where files go with it."""
    files = [file for file in message.attachments if file.content]
    if not files:
        return {"json": fields}
    told = {"JSON": json.dumps(fields, ensure_ascii=False)}
    return {"multipart": multipart(told, (("Attachments", file) for file in files))}
