"""Any system that takes a signed webhook: your own desk, n8n, a queue, a script.

Each thing that happens is one POST of JSON (schema v1, `askonce schema`), signed as Standard
Webhooks; the `webhook-id` is the idempotency key. docs/helpdesks/webhook.md describes both ways.

Signature:   https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
CloudEvents: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from chalicelib.errors import PayloadError
from chalicelib.ports import (
    DeskCapabilities,
    FromDesk,
    Helpdesk,
    PluginSettings,
    Signal,
    WebhookRequest,
)
from chalicelib.schema import Conversation, Correction, Message, Moment, Reply, TicketChange
from connectors.desk_calls import DeskCalls
from connectors.note_commands import command_in
from connectors.signing import Secrets, StandardWebhook

_MEDIA_TYPES = {"plain": "application/json", "cloudevents": "application/cloudevents+json"}


class WebhookDeskSettings(PluginSettings):
    """[helpdesks.<name>] connector = "webhook" """

    url: str = Field(pattern=r"^https?://")
    #: Signs what we send and verifies what comes back; the receiver has the same.
    secret: Secrets
    envelope: Literal["plain", "cloudevents"] = "plain"


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore")
    ticket_id: str = Field(min_length=1, max_length=512)
    at: Moment | None = None


class _ReplyCreated(_Event):
    type: Literal["reply.created"]
    reply_id: str = Field(min_length=1, max_length=512)
    text: str = Field(min_length=1, max_length=64_000)
    author: str = Field(default="", max_length=200)


class _TicketMoved(_Event):
    type: Literal["ticket.closed", "ticket.reopened"]


class _NoteCreated(_Event):
    type: Literal["note.created"]
    text: str = Field(default="", max_length=64_000)
    author: str = Field(default="", max_length=200)


class _MessageSetApart(_Event):
    type: Literal["message.set_apart"]
    message_id: str | None = Field(default=None, min_length=1, max_length=64)
    author: str = Field(default="", max_length=200)


class _AgentActive(_Event):
    type: Literal["agent.typing", "agent.read"]


_Any = _ReplyCreated | _TicketMoved | _NoteCreated | _MessageSetApart | _AgentActive
_ANY_EVENT: TypeAdapter[_Any] = TypeAdapter(Annotated[_Any, Field(discriminator="type")])


class WebhookDesk(Helpdesk):
    """A helpdesk behind one address."""

    name = "webhook"
    settings_model = WebhookDeskSettings
    capabilities = DeskCapabilities(
        as_customer=True,
        once="key",
        webhooks="signed",
        files_in=True,
        status=True,
        priority=True,
        tags=True,
        corrections=True,
    )

    settings: WebhookDeskSettings

    def __init__(self, settings: WebhookDeskSettings, name: str) -> None:
        super().__init__(settings, name)
        self._signature = StandardWebhook(settings.secret)
        parts = urlsplit(settings.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        self._path = settings.url.removeprefix(origin)
        self._calls = DeskCalls(self, origin, dict)

    def open_ticket(
        self,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> str:
        """Post `ticket.opened`. The ticket's id is the answer's `ticket_id`, else ours."""
        answer = self._post("ticket.opened", idempotency_key, conversation, message=message)
        own = answer.get("ticket_id") if isinstance(answer, dict) else None
        return str(own or conversation.id)

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        """Post `message.added`."""
        self._post("message.added", idempotency_key, conversation, ticket_id, message=message)

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        """Post `note.added`."""
        self._post("note.added", idempotency_key, conversation, ticket_id, text=text)

    def _post(  # the parts of one event
        self,
        kind: str,
        key: str,
        conversation: Conversation,
        ticket_id: str | None = None,
        *,
        message: Message | None = None,
        text: str | None = None,
    ) -> Any:
        now = datetime.now(UTC)
        event: dict[str, Any] = {
            "type": kind,
            "ticket_id": ticket_id,
            "conversation": conversation.model_dump(mode="json"),
        }
        if message:
            event["message"] = message.model_dump(mode="json", exclude={"raw"})
        if text is not None:
            event["text"] = text
        if self.settings.envelope == "cloudevents":
            event = _cloud_event(event, key, now)
        body = json.dumps(event, ensure_ascii=False).encode()
        return self._calls.call(
            "POST",
            self._path,
            headers=self._signature.headers(key, now, body),
            multipart=(body, _MEDIA_TYPES[self.settings.envelope]),
            repeatable=True,
        )

    def verify(self, request: WebhookRequest) -> None:
        self._signature.verify(request)

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        try:
            return _translated(_ANY_EVENT.validate_json(request.body), request)
        except ValidationError as error:
            first = error.errors()[0]
            raise PayloadError(f"the event is malformed: {first['loc']} {first['type']}") from None


def _translated(event: _Event, request: WebhookRequest) -> list[FromDesk]:
    at = event.at or request.received_at
    match event:
        case _ReplyCreated():
            return [
                Reply(
                    ticket_id=event.ticket_id,
                    external_id=event.reply_id,
                    text=event.text,
                    author=event.author,
                    sent_at=at,
                )
            ]
        case _TicketMoved():
            return [
                TicketChange(
                    ticket_id=event.ticket_id,
                    external_id=request.header("webhook-id"),
                    state="closed" if event.type == "ticket.closed" else "open",
                    at=at,
                )
            ]
        case _MessageSetApart():
            return [
                Correction(
                    ticket_id=event.ticket_id,
                    external_id=request.header("webhook-id"),
                    message_id=event.message_id,
                    by=event.author,
                    at=at,
                )
            ]
        case _NoteCreated():
            return _corrections(event, request, at)
        case _AgentActive():
            kind: Literal["typing", "read"] = "typing" if event.type == "agent.typing" else "read"
            return [Signal(ticket_id=event.ticket_id, kind=kind)]
        case _:
            return []


def _corrections(event: _NoteCreated, request: WebhookRequest, at: datetime) -> list[FromDesk]:
    """What a private remark says to us; it goes no further, and most say nothing."""
    command = command_in(event.text)
    if command is None:
        return []
    kind, address = command
    return [
        Correction(
            ticket_id=event.ticket_id,
            external_id=request.header("webhook-id"),
            kind=kind,
            address=address,
            by=event.author,
            at=at,
        )
    ]


def _cloud_event(event: dict[str, Any], key: str, now: datetime) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": key,
        "source": "askonce",
        "type": f"askonce.{event['type']}",
        "subject": event["conversation"]["id"],
        "time": now.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": event,
    }
