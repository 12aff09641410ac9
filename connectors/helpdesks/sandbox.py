"""The local world's own helpdesk (infra/local/sandbox.py): a small REST desk with a page.

    POST /api/tickets                      Idempotency-Key   -> {"id": "T1"}
    POST /api/tickets/<id>/comments|notes  Idempotency-Key

It sends replies back signed as Standard Webhooks.
"""

import base64
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chalicelib.errors import PayloadError, RetryableError
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
from connectors.signing import Secrets, StandardWebhook, values


class SandboxSettings(PluginSettings):
    """[helpdesks.<name>] connector = "sandbox" """

    url: str = Field(pattern=r"^(https?://|env:)")
    secret: Secrets


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: Literal["reply", "note", "closed", "reopened", "typing", "read", "set_apart"]
    ticket: str = Field(min_length=1, max_length=512)
    id: str = Field(min_length=1, max_length=512)
    text: str = ""
    agent: str = ""
    #: Of `set_apart`: our id of the message that is another question.
    message: str | None = Field(default=None, max_length=64)
    at: Moment


class Sandbox(Helpdesk):
    """The desk on the local page."""

    name = "sandbox"
    settings_model = SandboxSettings
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

    settings: SandboxSettings

    def __init__(self, settings: SandboxSettings, name: str) -> None:
        super().__init__(settings, name)
        self._signature = StandardWebhook(settings.secret)
        self._calls = DeskCalls(self, settings.url, self._credentials)

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {values(self.settings.secret)[0]}"}

    def open_ticket(
        self,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> str:
        ticket = {
            "reference": conversation.reference,
            "contact": conversation.contact_id,
            "category": conversation.category,
            "priority": conversation.priority.value,
            "message": _message(message),
        }
        answer = self._post("/api/tickets", ticket, idempotency_key)
        if not isinstance(answer, dict) or "id" not in answer:
            raise RetryableError("the desk names no ticket", uncertain=True)
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
        comment = {"message": _message(message), "priority": conversation.priority.value}
        self._post(f"/api/tickets/{ticket_id}/comments", comment, idempotency_key)

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        note = {"text": text, "priority": conversation.priority.value}
        self._post(f"/api/tickets/{ticket_id}/notes", note, idempotency_key)

    def _post(self, path: str, body: dict[str, Any], key: str) -> Any:
        own = {"Idempotency-Key": key}
        return self._calls.call("POST", path, json=body, headers=own, repeatable=True)

    def verify(self, request: WebhookRequest) -> None:
        self._signature.verify(request)

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        try:
            event = _Event.model_validate_json(request.body)
        except ValidationError as error:
            raise PayloadError(f"the event is malformed: {error.errors()[0]['loc']}") from None
        if event.type == "note":
            return _corrections(event)
        if event.type in ("typing", "read"):
            return [Signal(ticket_id=event.ticket, kind=event.type)]
        if event.type == "set_apart":
            return [
                Correction(
                    ticket_id=event.ticket,
                    external_id=event.id,
                    message_id=event.message,
                    by=event.agent,
                    at=event.at,
                )
            ]
        if event.type == "reply":
            if not event.text.strip():
                raise PayloadError("the reply is empty")
            return [
                Reply(
                    ticket_id=event.ticket,
                    external_id=event.id,
                    text=event.text,
                    author=event.agent,
                    sent_at=event.at,
                )
            ]
        state: Literal["open", "closed"] = "closed" if event.type == "closed" else "open"
        return [
            TicketChange(ticket_id=event.ticket, external_id=event.id, state=state, at=event.at)
        ]


def _corrections(event: _Event) -> list[FromDesk]:
    """What a note says to us; it goes no further, and most say nothing."""
    command = command_in(event.text)
    if command is None:
        return []
    kind, address = command
    return [
        Correction(
            ticket_id=event.ticket,
            external_id=event.id,
            kind=kind,
            address=address,
            by=event.agent,
            at=event.at,
        )
    ]


def _message(message: Message) -> dict[str, Any]:
    """The message with its files inline: the desk keeps its own copy."""
    told = message.model_dump(mode="json", exclude={"raw", "attachments"})
    told["files"] = [
        {
            "name": a.name,
            "media_type": a.media_type,
            "transcript": a.transcript,
            "unavailable": a.unavailable,
            "content": base64.b64encode(a.content).decode("ascii") if a.content else None,
        }
        for a in message.attachments
    ]
    return told
