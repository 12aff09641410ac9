"""Qiyu (网易七鱼), by its message interface: a ticket is a visitor of its own, with its sessions.

Qiyu tells of an agent's message only whose it is, so each conversation has a `uid` of its own; who
the person is stands in the visitor's profile. There stand notes, too, as the interface has none: as
a message, a note could reach a robot, whose answer would reach the customer.

A message is sent again when its answer got lost, and may then stand there twice: Qiyu knows no key
and lists no messages, and a line that an agent reads twice does less harm than one that is lost.

https://qiyukf.com/newdoc/html/message_interface.html
https://github.com/qiyu-kefu/message_interface
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from chalicelib.errors import (
    AskOnceError,
    ConfigurationError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import (
    DeskCapabilities,
    FromDesk,
    Helpdesk,
    PluginSettings,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import Attachment, Conversation, Message, Priority, digest
from connectors import http, qiyu_events, ticket_text
from connectors.desk_calls import DeskCalls, multipart, name_of
from connectors.signing import Secrets, demand_fresh, equals_any, values

_FILE_HOSTS = ("ysf.nosdn.127.net", "ysf.qiyukf.net", "nos.netease.com")
_MOST_CHARACTERS = 4000
_MOST_BYTES = 5 * 1024 * 1024
_MOST_OF_A_NOTE = 1000
#: How many of the pieces that it sent a process remembers.
_REMEMBERED = 2000

_TAKEN, _NOBODY_THERE, _QUEUE, _NOT_APPLIED = 200, 14005, 14006, 14007
#: What is wrong with the deployment, by their codes.
_FIX = {
    14001: "it knows no such app_key",
    14002: "the app_secret is not this app_key's",
    14003: "our clock is wrong",
    14515: "the message interface is not allowed for this app_key",
}
#: In how many seconds it may be otherwise: their own fault; a queue; nobody to leave a message to.
_LATER = {14500: None, _QUEUE: 60.0, 14010: 300.0}


class QiyuSettings(PluginSettings):
    """[helpdesks.<name>] connector = "qiyu" """

    url: str = Field(default="https://qiyukf.com", pattern=r"^https?://")
    app_key: str = Field(min_length=1)
    app_secret: Secrets
    #: The group of agents who answer; any agent without one.
    group_id: int | None = None
    #: Further hosts of agents' files.
    file_hosts: tuple[str, ...] = ()


class Qiyu(Helpdesk):
    """A company's account of Qiyu."""

    name = "qiyu"
    settings_model = QiyuSettings
    capabilities = DeskCapabilities(
        as_customer=True,
        once="none",
        webhooks="signed",
        files_in=True,
        files_out=True,
        status=True,
        priority=True,
        tags=True,
        corrections=True,
    )

    settings: QiyuSettings

    def __init__(self, settings: QiyuSettings, name: str) -> None:
        super().__init__(settings, name)
        self._api = DeskCalls(self, f"{settings.url.rstrip('/')}/openapi", dict)
        self._sent = _Latest(_REMEMBERED)

    # Out

    def open_ticket(
        self,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> str:
        uid = idempotency_key
        self._describe(uid, [*_person(message, conversation), *_matter(message, conversation)])
        self._apply(uid, ticket_text.subject(message, conversation))
        self._say(uid, message, _opening(message), idempotency_key)
        return uid

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        if conversation.priority is Priority.HIGH:
            self._describe(ticket_id, _matter(message, conversation))
        code, _ = self._call("/event/queryQueueStatus", {"uid": ticket_id}, fine=(_NOT_APPLIED,))
        if code == _NOT_APPLIED:  # its session is over: a robot would take what is only sent
            self._apply(ticket_id, ticket_text.subject(message, conversation))
        self._say(ticket_id, message, ticket_text.words(message), idempotency_key)

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        """A line of the profile: the same one, however often it is written."""
        cut = text if len(text) <= _MOST_OF_A_NOTE else f"{text[: _MOST_OF_A_NOTE - 1]}…"
        line = {"key": f"askonce_note_{digest(idempotency_key)}", "label": "AskOnce", "value": cut}
        self._describe(ticket_id, [line])

    def _describe(self, uid: str, lines: list[dict[str, Any]]) -> None:
        """Add to the visitor's profile, which agents see beside the session."""
        self._call("/event/updateUInfo", {"uid": uid, "userinfo": lines}, repeatable=True)

    def _apply(self, uid: str, title: str) -> None:
        """Ask for an agent. With none there, what follows is kept for when one comes."""
        told: dict[str, Any] = {"uid": uid, "staffType": 1, "fromTitle": title}
        if self.settings.group_id is not None:
            told["groupId"] = self.settings.group_id
        self._call("/event/applyStaff", told, fine=(_NOBODY_THERE, _QUEUE))

    def _say(self, uid: str, message: Message, text: str, key: str) -> None:
        """Send the words, then each file; what this process has sent already is not sent again."""
        for number, piece in enumerate(_pieces(text)):
            self._send(uid, "TEXT", piece, f"{key}.{number}")
        for number, file in enumerate(message.attachments, 1):
            if file.content and f"{key}+{number}" not in self._sent:
                self._send(uid, *self._uploaded(file, number), f"{key}+{number}")

    def _send(self, uid: str, kind: str, content: str | dict[str, Any], key: str) -> None:
        if key in self._sent:
            return
        told = {"uid": uid, "msgType": kind, "content": content}
        code, _ = self._call("/message/send", told, fine=(_NOBODY_THERE, _NOT_APPLIED))
        if code == _NOT_APPLIED:
            self._apply(uid, "")
            self._call("/message/send", told, fine=(_NOBODY_THERE,))
        self._sent.add(key)

    def _uploaded(self, file: Attachment, number: int) -> tuple[str, str | dict[str, Any]]:
        """(type, content) of the message that shows a file: what has no type of its own is a link,
        as is audio of unknown length; one that is too long is told of."""
        content, name = file.content or b"", name_of(file, number)
        if len(content) > _MOST_BYTES:
            return "TEXT", f"[{name}] {file.url or 'is over 5 MB'}"
        form = multipart({}, [("file", file.model_copy(update={"name": name}))])
        answer = self._signed("/message/uploadFile", content, form, repeatable=True)
        _, told = self._judged(answer, ())
        url = told.get("url")
        if not isinstance(url, str) or not url:
            raise RetryableError("Qiyu's answer has no url")
        shape = {"url": url, "size": len(content), "md5": _md5(content)}
        if file.media_type.startswith("image/"):
            return "PICTURE", shape
        if milliseconds := _amr_milliseconds(content):
            return "AUDIO", shape | {"dur": milliseconds}
        return "TEXT", f"[{name}] {url}"

    def _call(
        self,
        path: str,
        told: dict[str, Any],
        *,
        fine: Collection[int] = (),
        repeatable: bool = False,
    ) -> tuple[int, dict[str, Any]]:
        """(code, answer): of success, or one of `fine`. What it raises follows from the code."""
        body = json.dumps(told, ensure_ascii=False).encode("utf-8")
        typed = (body, "application/json;charset=utf-8")
        return self._judged(self._signed(path, body, typed, repeatable=repeatable), fine)

    def _signed(
        self, path: str, content: bytes, body: tuple[bytes, str], *, repeatable: bool
    ) -> Any:
        """Send a body whose checksum is that of its content: of a file, or of itself."""
        now = str(int(time.time()))
        secret = values(self.settings.app_secret)[0]
        query = {"appKey": self.settings.app_key, "time": now}
        query["checksum"] = _checksum(secret, content, now)
        return self._api.call("POST", path, query=query, multipart=body, repeatable=repeatable)

    def _judged(self, answer: Any, fine: Collection[int]) -> tuple[int, dict[str, Any]]:
        code = answer.get("code") if isinstance(answer, dict) else None
        if not isinstance(code, int):
            raise RetryableError("Qiyu's answer has no code", uncertain=True)
        if code == _TAKEN or code in fine:
            return code, answer
        raise self._error(code, answer.get("message"))

    def _error(self, code: int, words: Any) -> AskOnceError:
        said = f"code {code} from Qiyu" + (f": {str(words)[:300]}" if words else "")
        if code in _FIX:
            return ConfigurationError(f'helpdesk "{self.configured_name}": {_FIX[code]} ({said})')
        if code in _LATER:
            wait = _LATER[code]
            return RetryableError(said, retry_after_seconds=wait, of_one=wait is not None)
        return RejectedError(said)

    # Back

    def verify(self, request: WebhookRequest) -> None:
        sent, given = request.param("time"), request.param("checksum")
        request.param("eventType")
        demand_fresh(sent, request.received_at)
        secrets = values(self.settings.app_secret)
        if not equals_any(given, [_checksum(s, request.body, sent) for s in secrets]):
            raise SignatureError("the checksum does not match")

    def parse(self, request: WebhookRequest) -> list[FromDesk]:
        at = datetime.fromtimestamp(int(request.param("time")), UTC)
        return qiyu_events.read(request.param("eventType"), request.body, at)

    def acknowledge(self) -> WebhookResponse:
        """Nothing at all: anything in the body means to Qiyu that it is to be sent again."""
        return WebhookResponse(status=200, body="")

    def fetch(self, attachment: Attachment) -> bytes:
        source = attachment.source or ""
        hosts = {*_FILE_HOSTS, *self.settings.file_hosts}
        if source.startswith(tuple(f"http://{host}/" for host in _FILE_HOSTS)):
            source = f"https{source[4:]}"
        return http.download(source, hosts=hosts, redirect_hosts=hosts)


class _Latest:
    """The latest keys that were added: of this process, and only so many."""

    def __init__(self, limit: int) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._limit = limit

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        self._keys[key] = None
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)


# Proof


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _checksum(secret: str, content: bytes, at: str) -> str:
    signed = f"{secret}{_md5(content)}{at}".encode()
    return hashlib.sha1(signed).hexdigest()  # noqa: S324  # their formula


# What is told


def _person(message: Message, conversation: Conversation) -> list[dict[str, Any]]:
    """The profile's own lines; the others have a place and a label."""
    customer = ticket_text.customer(message, conversation)
    own = {"real_name": customer.name, "mobile_phone": customer.phone, "email": customer.email}
    lines: list[dict[str, Any]] = [{"key": k, "value": v} for k, v in own.items() if v]
    return [*lines, _line(0, "askonce_customer", "客户", customer.external_id)]


def _matter(message: Message, conversation: Conversation) -> list[dict[str, Any]]:
    urgent = conversation.priority is Priority.HIGH
    return [
        _line(1, "askonce_reference", "编号", conversation.reference),
        _line(2, "askonce_channel", "渠道", message.channel.value),
        _line(3, "askonce_category", "类别", conversation.category),
        _line(4, "askonce_priority", "优先级", "高" if urgent else "普通"),
    ]


def _line(index: int, key: str, label: str, value: str) -> dict[str, Any]:
    return {"index": index, "key": key, "label": label, "value": value}


def _opening(message: Message) -> str:
    """The first message; a session has no subject line."""
    words = ticket_text.words(message)
    return f"{message.subject}\n\n{words}" if message.subject else words


def _pieces(text: str) -> Iterator[str]:
    """The text as messages that are short enough, cut at ends of lines where there are any."""
    while len(text) > _MOST_CHARACTERS:
        cut = text.rfind("\n", 1, _MOST_CHARACTERS) + 1 or _MOST_CHARACTERS
        if piece := text[:cut].strip("\n"):
            yield piece
        text = text[cut:]
    if text:
        yield text


#: Bytes of a frame of 20 ms, by its type: AMR narrowband, RFC 4867, 5.3.
_AMR_FRAMES = (13, 14, 16, 18, 20, 21, 27, 32, 6)


def _amr_milliseconds(content: bytes) -> int:
    """How long a voice message is; 0 for what is no AMR."""
    at, frames = 6, 0
    if not content.startswith(b"#!AMR\n"):
        return 0
    while at < len(content):
        kind = content[at] >> 3 & 15
        at += _AMR_FRAMES[kind] if kind < len(_AMR_FRAMES) else 1
        frames += 1
    return frames * 20
