"""WeChat Customer Service (微信客服): customers in WeChat write to a corporation's accounts.

Callback and sync_msg: https://developer.work.weixin.qq.com/document/path/94670
send_msg:              https://developer.work.weixin.qq.com/document/path/94677
Session states:        https://developer.work.weixin.qq.com/document/path/94669

The webhook says that an account has something and carries no word of it; the messages are fetched
from a cursor, page by page. WeCom keeps them for three days.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from chalicelib.errors import PayloadError, RetryableError
from chalicelib.ports import (
    Capabilities,
    Fetched,
    FetchingConnector,
    SendWindow,
    WebhookRequest,
)
from chalicelib.schema import (
    Delivery,
    Event,
    Kind,
    Link,
    Message,
    Notice,
    Raw,
    Receipt,
    digest,
    errand_id,
)
from connectors import wechat_kinds, wechat_wire
from connectors.wecom_corporation import TAKES, Corporation, CorporationSettings

_PAGE = 500
#: A longer text above a menu goes without the menu: it names the words.
_MENU_BYTES = 1024
#: sync_msg's refusal of a notice's token: they are good for ten minutes.
_STALE_NOTICE = 95007
Item = Mapping[str, Any]


class WeComKfSettings(CorporationSettings):
    """[inboxes.<name>] connector = "wecom_kf" """


class WeComKf(Corporation, FetchingConnector):
    """The service accounts of a corporation: one cursor for each."""

    name = "wecom_kf"
    settings_model = WeComKfSettings
    capabilities = Capabilities(
        kinds_in=frozenset(Kind),
        kinds_out=frozenset({Kind.TEXT, *TAKES}),
        resends_safely=True,
        evidence=("wecom_kf",),
        windows={"message": SendWindow(seconds=48 * 3600, count=5)},
        receipts=True,
        choices=True,
    )

    settings: WeComKfSettings

    # In

    def parse(self, request: WebhookRequest) -> list[Message | Notice]:
        """A notice that an account has something; whatever else WeCom tells is an event."""
        document = self._seal.opened(request.body)
        fields = wechat_wire.read(document)
        if fields.get("Event") != "kf_msg_or_event":
            prefix, system = self._prefix, wechat_kinds.SYSTEM
            return [
                wechat_kinds.message(self, prefix, document, request.received_at, system=system)
            ]
        source, token = fields.get("OpenKfId", ""), fields.get("Token", "")
        if not source:
            raise PayloadError("OpenKfId is missing")
        try:
            return [
                Notice(
                    id=errand_id(self.context.name, source, token, fields.get("CreateTime", "")),
                    inbox=self.context.name,
                    source=source,
                    token=token,
                    received_at=request.received_at,
                )
            ]
        except ValueError:
            raise PayloadError("OpenKfId is malformed") from None

    @property
    def _prefix(self) -> str:
        return f"wecom_kf:{self.settings.corp_id}"

    def fetch_messages(self, notice: Notice, cursor: str, received_at: datetime) -> Fetched:
        """One page of `sync_msg`, which may be empty with more behind it."""
        asked = {
            "cursor": cursor,
            "token": notice.token,
            "limit": _PAGE,
            "voice_format": 0,
            "open_kfid": notice.source,
        }
        page = self._api.post("kf/sync_msg", asked, answers=(_STALE_NOTICE,))
        if page.get("errcode") == _STALE_NOTICE:  # without one it works too, but less often
            page = self._api.post("kf/sync_msg", asked | {"token": ""})
        items, further = page.get("msg_list") or [], page.get("next_cursor") or cursor
        if not isinstance(items, list) or not isinstance(further, str):
            raise RetryableError("WeCom's answer cannot be read")
        found = [self._read(item, notice, received_at) for item in items if isinstance(item, dict)]
        return Fetched(
            found=[one for one in found if one],
            cursor=further,
            more=page.get("has_more") == 1 and further != cursor,
        )

    def _read(self, item: Item, notice: Notice, received_at: datetime) -> Message | Receipt | None:
        """What an item says; None for our own words and those of a colleague in WeCom."""
        try:
            if item.get("msgtype") == "event":
                return self._event(item, notice, received_at)
            if item.get("origin") != 3:
                return None
            return self._message(item, notice, received_at, _translated(item))
        except ValueError:  # one odd item must not keep the others from coming in
            return self._unread(item, notice, received_at)

    def _event(self, item: Item, notice: Notice, received_at: datetime) -> Message | Receipt:
        told = _part(item, "event")
        name, failed = _text(told, "event_type"), _text(told, "fail_msgid")
        if name == "msg_send_fail" and failed:
            return Receipt(
                id=errand_id(self.context.name, failed, Delivery.FAILED),
                inbox=self.context.name,
                external_id=failed,
                state=Delivery.FAILED,
                reason=_FAILURES.get(_text(told, "fail_type"), "WeCom does not say why"),
                received_at=received_at,
            )
        keys = ("scene", "recall_msgid", "change_type", "status", "servicer_userid")
        key = next((k for k in (_text(told, name) for name in keys) if k), "")
        event = {"kind": Kind.EVENT, "event": Event(name=name.lower(), key=key), "raw": _raw(item)}
        about = {**item, **told, "msgid": item.get("msgid")}
        return self._message(about, notice, received_at, event)

    def _unread(self, item: Item, notice: Notice, received_at: datetime) -> Message | None:
        told = {"kind": Kind.UNSUPPORTED, "raw": _raw(item)}
        try:
            return self._message(item, notice, received_at, told)
        except ValueError:  # nobody that a message could be from
            return None

    def _message(
        self, item: Item, notice: Notice, received_at: datetime, told: Mapping[str, Any]
    ) -> Message:
        sender = _text(item, "external_userid") or wechat_kinds.SYSTEM
        return wechat_kinds.inbound(
            self,
            f"{self._prefix}:{sender}",
            _text(item, "msgid") or digest(_dumped(item)),
            account=_text(item, "open_kfid") or notice.source,  # some items lack it
            sent_at=wechat_kinds.moment(_text(item, "send_time"), received_at),
            received_at=received_at,
            **told,
        )

    # Out

    def send(self, message: Message) -> str:
        """Under our own id: WeCom sends no id twice."""
        told = {
            "touser": message.address.split(":", 2)[2],
            "open_kfid": message.account,
            "msgid": _own_id(message.id),
            **(_menu(message) or self._api.content(message, TAKES)),
        }
        self._api.post("kf/send_msg", told)
        return _own_id(message.id)


def _menu(message: Message) -> dict[str, Any] | None:
    """A text with choices below it; who taps one has written its words. None if it is too long."""
    whole = len(message.text.encode("utf-8", "replace")) <= _MENU_BYTES
    if not message.choices or not whole or not message.text.strip():
        return None
    items = [
        {"type": "click", "click": {"id": str(number), "content": choice.value}}
        for number, choice in enumerate(message.choices, 1)
    ]
    return {"msgtype": "msgmenu", "msgmenu": {"head_content": message.text, "list": items}}


def _own_id(message_id: str) -> str:
    """At most 32 letters, digits, `_` and `-`."""
    return message_id if re.fullmatch(r"[0-9a-zA-Z_-]{1,32}", message_id) else digest(message_id)


def _text(item: Item, name: str) -> str:
    """A field as text: ids and numbers come as either."""
    found = item.get(name)
    if isinstance(found, str):
        return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return str(found) if isinstance(found, int | float) else ""


def _part(item: Item, name: str) -> Item:
    found = item.get(name)
    return found if isinstance(found, dict) else {}


def _dumped(item: Item) -> str:
    return json.dumps(item, sort_keys=True)


def _raw(item: Item) -> Raw:
    return Raw(media_type="application/json", content=_dumped(item).encode())


def _translated(item: Item) -> dict[str, Any]:
    kind = _text(item, "msgtype")
    if kind in _KINDS:
        return _KINDS[kind](_part(item, kind))
    return {"kind": Kind.UNSUPPORTED, "raw": _raw(item)}


def _file(kind: Kind, media_type: str) -> Callable[[Item], dict[str, Any]]:
    return lambda told: {
        "kind": kind,
        "attachments": (wechat_kinds.file(_text(told, "media_id"), media_type),),
    }


def _location(told: Item) -> dict[str, Any]:
    label = " ".join(filter(None, (_text(told, "name"), _text(told, "address"))))
    where = wechat_kinds.place(_text(told, "latitude"), _text(told, "longitude"), label)
    return {"kind": Kind.LOCATION, "location": where}


def _link(told: Item) -> dict[str, Any]:
    title = _text(told, "title")
    link = Link(url=_text(told, "url"), title=title, description=_text(told, "desc"))
    return {"kind": Kind.LINK, "link": link, "text": title}


def _card(told: Item) -> dict[str, Any]:
    """A page of a Mini Program: its path, which opens in WeChat only."""
    link = Link(url=_text(told, "pagepath"), title=_text(told, "title"))
    return {"kind": Kind.LINK, "link": link, "text": link.title}


#: msgtype -> our kind and its fields; what the customer sent otherwise stays `unsupported`.
_KINDS: Mapping[str, Callable[[Item], dict[str, Any]]] = {
    "text": lambda told: {"kind": Kind.TEXT, "text": _text(told, "content")},
    "image": _file(Kind.IMAGE, "image/jpeg"),
    "voice": _file(Kind.AUDIO, "audio/amr"),
    "video": _file(Kind.VIDEO, "video/mp4"),
    "file": _file(Kind.FILE, "application/octet-stream"),
    "location": _location,
    "link": _link,
    "miniprogram": _card,
}

#: fail_type of msg_send_fail.
_FAILURES = {
    "1": "the customer-service account was deleted",
    "2": "the application is switched off in WeCom",
    "4": "the customer has not written within 48 hours",
    "5": "the session with the customer has ended",
    "6": "five messages after the customer's are all that WeCom sends",
    "8": "the corporation is not verified",
    "10": "the customer refuses messages",
    "11": "nobody of the corporation is logged in to WeCom",
    "12": "WeCom does not send messages of this kind here",
    "13": "WeCom holds the message back for safety",
}
