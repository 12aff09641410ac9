"""Intercom: customers are its users, tickets its conversations.

Conversations, and not Intercom's own tickets: they are made of messages, the customer is the author
of the customer's words, and they need no ticket type set up; agents can make a ticket of one.

Intercom takes no idempotency keys. A conversation carries our key (`askonce_id`) and which part we
added last as the customer (`askonce_last`): a second try looks for what came after that.

https://developers.intercom.com/docs/references/rest-api/api.intercom.io/conversations
https://developers.intercom.com/docs/references/rest-api/api.intercom.io/contacts
https://developers.intercom.com/docs/references/rest-api/errors/rate-limiting
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from html import escape
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from chalicelib.errors import (
    ConfigurationError,
    GoneError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import DeskCapabilities, FromDesk, Helpdesk, PluginSettings, WebhookRequest
from chalicelib.schema import Attachment, Conversation, Message
from connectors import http, intercom_events, ticket_text
from connectors.desk_calls import DeskCalls, name_of
from connectors.intercom_events import Thread
from connectors.signing import Secret, Secrets, equals_any, values

_Shape = TypeVar("_Shape", bound=BaseModel)
_VERSION = "2.14"
_HOSTS = {
    "us": ("https://api.intercom.io", "https://app.intercom.com"),
    "eu": ("https://api.eu.intercom.io", "https://app.eu.intercom.com"),
    "au": ("https://api.au.intercom.io", "https://app.au.intercom.com"),
}
_MOST_FILES = 10
#: Where agents' files lie: under a name of the workspace, or the region.
_FILE_HOST = re.compile(
    r"(?:[a-z0-9-]+\.){1,3}(?:intercom-attachments(?:-[1-9])?|intercomcdn)\.(?:com|eu)"
    r"|uploads\.(?:eu\.|au\.)?intercomusercontent\.com"
)
_CONTACT = re.compile(r"id=([0-9a-f]{24})")
#: Intercom's search compares dates by the day.
_A_DAY = timedelta(days=1)


class IntercomSettings(PluginSettings):
    """[helpdesks.<name>] connector = "intercom" """

    region: Literal["us", "eu", "au"] = "us"
    #: Instead of the region's.
    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    access_token: Secret
    client_secret: Secrets
    #: The teammate that writes our notes.
    admin_id: str = Field(pattern=r"^\d+$")
    #: For links to conversations.
    workspace_id: str = ""
    #: Where agents' files lie beside Intercom's own hosts.
    file_hosts: tuple[str, ...] = ()


#: What one thing said consists of: its words, and some files.
_Line = tuple[str, Sequence[Attachment]]


class Intercom(Helpdesk):
    """A workspace of Intercom."""

    name = "intercom"
    settings_model = IntercomSettings
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

    settings: IntercomSettings

    def __init__(self, settings: IntercomSettings, name: str) -> None:
        super().__init__(settings, name)
        self._api = DeskCalls(
            self,
            self.endpoints()[0],
            lambda: {
                "Authorization": f"Bearer {settings.access_token.get_secret_value()}",
                "Intercom-Version": _VERSION,
            },
            explain=_words,
        )

    def endpoints(self) -> Sequence[str]:
        return [self.settings.url or _HOSTS[self.settings.region][0]]

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
        text = ticket_text.words(message)
        found = self._opened(contact, message, idempotency_key) if again else None
        ticket_id = found or self._open(contact, text)
        self._describe(ticket_id, _attributes(message, conversation, idempotency_key), message)
        _, *files = _lines(text, message, first_takes_files=False)
        if files:
            said = self._thread(ticket_id) if again else None
            self._say(ticket_id, contact, files, conversation, idempotency_key, said)
        return ticket_id

    def _contact(self, customer: ticket_text.Customer) -> str:
        """The id of the contact. Made at once: if it is there, the refusal names its id."""
        told = {
            "role": "user",
            "external_id": customer.external_id,
            "name": customer.name,
            "email": customer.email,
            "phone": customer.phone,
        }
        try:
            made = self._api.call("POST", "/contacts", json={k: v for k, v in told.items() if v})
            return str(_of(made, "id"))
        except RejectedError as refusal:
            found = _CONTACT.search(str(refusal))
            if "HTTP 409" not in str(refusal) or not found:
                raise
            if "archived" in str(refusal).lower():
                self._api.call("POST", f"/contacts/{found[1]}/unarchive", repeatable=True)
            return found[1]

    def _open(self, contact: str, text: str) -> str:
        sender = {"type": "user", "id": contact}
        opened = self._api.call("POST", "/conversations", json={"from": sender, "body": text})
        return str(_of(opened, "conversation_id"))

    def _opened(self, contact: str, message: Message, key: str) -> str | None:
        """The conversation that an earlier try opened, whether or not it came to leave our key."""
        since = int((message.received_at - _A_DAY).timestamp())
        query = {
            "operator": "AND",
            "value": [
                {"field": "contact_ids", "operator": "=", "value": contact},
                {"field": "created_at", "operator": ">", "value": since},
            ],
        }
        asked = {"query": query, "pagination": {"per_page": 50}}
        answer = self._api.call("POST", "/conversations/search", json=asked, repeatable=True)
        threads = [_shaped(Thread, each) for each in _of(answer, "conversations")]
        ours = [t.id for t in threads if t.custom_attributes.get("askonce_id") == key]
        unmarked = [t for t in threads if "askonce_id" not in t.custom_attributes]
        bare = [t.id for t in unmarked if t.began(ticket_text.words(message))]
        return next(iter(ours + bare), None)

    def _describe(
        self, ticket_id: str, attributes: dict[str, str], message: Message | None = None
    ) -> None:
        told: dict[str, Any] = {"custom_attributes": attributes}
        if message and message.subject:
            told["title"] = message.subject
        try:
            self._api.call("PUT", f"/conversations/{ticket_id}", json=told, repeatable=True)
        except GoneError:
            raise
        except RejectedError as refusal:
            raise ConfigurationError(
                f'helpdesk "{self.configured_name}": Intercom does not take our conversation '
                f"attributes; create {', '.join(attributes)}, as text: {refusal}"
            ) from None

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        thread = self._thread(ticket_id)
        party = next(iter(thread.contacts.contacts), None)
        if party is None:
            raise GoneError("the conversation has no contact any more")
        lines = _lines(ticket_text.words(message), message)
        self._say(
            ticket_id, party.id, lines, conversation, idempotency_key, thread if again else None
        )

    def _thread(self, ticket_id: str) -> Thread:
        path = f"/conversations/{ticket_id}"
        return _shaped(Thread, self._api.get(path, display_as="plaintext"))

    def _say(
        self,
        ticket_id: str,
        contact: str,
        lines: Sequence[_Line],
        conversation: Conversation,
        key: str,
        thread: Thread | None,
    ) -> None:
        """Say the lines as the contact, but for those that an earlier try said in the thread."""
        before, state, last = [], None, ""
        if thread:
            before, state = thread.said_since(thread.last, contact), thread.state
        if thread is None or thread.last_key != key:
            for line in lines:
                if found := intercom_events.take(before, line[0]):
                    last = found.id
                else:
                    answer = self._reply(ticket_id, _comment(contact, *line))
                    state, last = answer.state, answer.said[-1].id
            urgency = conversation.priority.value
            marks = {"askonce_last": f"{key} {last}", "askonce_priority": urgency}
            self._describe(ticket_id, marks)
        if state in ("closed", "snoozed"):
            opening = {"message_type": "open", "admin_id": self.settings.admin_id}
            path = f"/conversations/{ticket_id}/parts"
            self._api.call("POST", path, json=opening, repeatable=True)

    def _reply(self, ticket_id: str, told: dict[str, Any]) -> Thread:
        answer = self._api.call("POST", f"/conversations/{ticket_id}/reply", json=told)
        thread = _shaped(Thread, answer)
        if not thread.said:
            raise RetryableError("Intercom's answer has no part", uncertain=True)
        return thread

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        admin = self.settings.admin_id
        if again and intercom_events.take(self._thread(ticket_id).said_since("", admin), text):
            return
        body = escape(text, quote=False).replace("\n", "<br>")
        note = {"message_type": "note", "type": "admin", "admin_id": admin, "body": body}
        self._reply(ticket_id, note)

    def url_of(self, ticket_id: str) -> str:
        workspace, app = self.settings.workspace_id, _HOSTS[self.settings.region][1]
        inbox = f"{app}/a/inbox/{workspace}/inbox/conversation/{ticket_id}"
        return inbox if workspace else ""

    # Back

    def verify(self, request: WebhookRequest) -> None:
        """Nothing in it says when it was signed: what comes again has the same ids."""
        given = request.header("x-hub-signature")
        secrets = values(self.settings.client_secret)
        if not equals_any(given, [_signature(secret, request.body) for secret in secrets]):
            raise SignatureError("the signature does not match")

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        return list(intercom_events.events(request.body, self.settings.admin_id))

    def fetch(self, attachment: Attachment) -> bytes:
        host = urlsplit(attachment.source or "").hostname or ""
        own = {host} if _FILE_HOST.fullmatch(host) else set()
        hosts = {*own, *self.settings.file_hosts}
        return http.download(attachment.source or "", hosts=hosts, redirect_hosts=hosts)


def _attributes(message: Message, conversation: Conversation, key: str) -> dict[str, str]:
    return {
        "askonce_id": key,
        "askonce_reference": conversation.reference,
        "askonce_channel": message.channel.value,
        "askonce_category": conversation.category,
        "askonce_priority": conversation.priority.value,
    }


def _lines(text: str, message: Message, *, first_takes_files: bool = True) -> list[_Line]:
    """The words, and the files, as many as one reply takes; further replies only name theirs."""
    files = [file for file in message.attachments if file.content]
    at = _MOST_FILES if first_takes_files else 0
    lines: list[_Line] = [(text, files[:at])]
    for n in range(at, len(files), _MOST_FILES):
        some = files[n : n + _MOST_FILES]
        lines.append((", ".join(name_of(file, n + i) for i, file in enumerate(some, 1)), some))
    return lines


def _comment(contact: str, text: str, files: Sequence[Attachment]) -> dict[str, Any]:
    told = {"message_type": "comment", "type": "user", "intercom_user_id": contact, "body": text}
    sent = [_file(file, n) for n, file in enumerate(files, 1)]
    return {**told, "attachment_files": sent} if sent else {**told}


def _file(file: Attachment, number: int) -> dict[str, str]:
    return {
        "content_type": file.media_type,
        "name": name_of(file, number),
        "data": base64.b64encode(file.content or b"").decode("ascii"),
    }


def _of(answer: Any, name: str) -> Any:
    """A part of an answer. Without it some proxy spoke, and the call may have taken effect."""
    if not isinstance(answer, dict) or answer.get(name) is None:
        raise RetryableError(f"Intercom's answer has no {name}", uncertain=True)
    return answer[name]


def _shaped(model: type[_Shape], answer: Any) -> _Shape:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise RetryableError(f"Intercom's answer is malformed: {where}", uncertain=True) from None


def _words(answer: Any) -> str:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    told: Iterator[Any] = (e.get("message") for e in errors or () if isinstance(e, dict))
    return "; ".join(str(words) for words in told if words)


def _signature(secret: str, body: bytes) -> str:
    return "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
