"""What Tencent's pushes say, in our words: message kinds and events, of WeChat and WeCom alike.

Messages: https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Receiving_standard_messages.html
Events:   https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Receiving_event_pushes.html
Menus:    https://developers.weixin.qq.com/doc/offiaccount/Custom_Menus/Custom_Menu_Push_Events.html
Mini Program: https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html
WeCom:    https://developer.work.weixin.qq.com/document/path/90239

An event becomes an event whatever its name, and nothing opens a ticket because of it; a message of
a kind that is in no table stays `unsupported`. Either keeps its document where it says more.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from chalicelib.errors import PayloadError
from chalicelib.ports import Connector
from chalicelib.schema import (
    Attachment,
    Channel,
    Direction,
    Event,
    Evidence,
    Kind,
    Level,
    Link,
    Location,
    Message,
    Raw,
    digest,
    message_id,
)
from connectors import wechat_wire

Fields = Mapping[str, str]

#: Who speaks in WeCom's events that concern no customer; some name nobody at all.
SYSTEM = "sys"
_MAX_EXTERNAL_ID = 1024


def message(
    connector: Connector, prefix: str, document: bytes, received_at: datetime, *, system: str = ""
) -> Message:
    """A push that was opened; `prefix` and who sent it are the address. PayloadError.

    `system` speaks in events that name nobody.
    """
    fields = wechat_wire.read(document)
    kind = fields.get("MsgType", "").lower()
    sender = fields.get("FromUserName") or (system if kind == "event" else "")
    if not sender or not kind:
        raise PayloadError("FromUserName or MsgType is missing")
    try:
        told = _told(kind, fields)
        if _says_more(fields, told["kind"]):
            told["raw"] = _raw(document)
        return inbound(
            connector,
            f"{prefix}:{sender}",
            external_id(fields, told.get("event")),
            account=fields.get("ToUserName", ""),
            sent_at=moment(fields.get("CreateTime", ""), received_at),
            received_at=received_at,
            **told,
        )
    except ValueError as error:
        raise PayloadError("a field of the push is malformed") from error


def _told(kind: str, fields: Fields) -> dict[str, Any]:
    if kind == "event":
        return _event(fields)
    return KINDS[kind](fields) if kind in KINDS else {"kind": Kind.UNSUPPORTED}


def inbound(connector: Connector, address: str, own_id: str, **told: Any) -> Message:
    """A message that the address is proven to have sent. ValueError for what the schema refuses."""
    (source,) = connector.capabilities.evidence
    return Message(
        id=message_id(connector.context.name, address, own_id),
        direction=Direction.INBOUND,
        channel=Channel.WECHAT,
        connector=connector.name,
        inbox=connector.context.name,
        external_id=own_id,
        address=address,
        evidence=(Evidence(address=address, level=Level.VERIFIED, source=source),),
        **told,
    )


def external_id(fields: Fields, event: Event | None = None) -> str:
    """MsgId; events have none, and two of them may happen in one second."""
    if fields.get("MsgId"):
        return fields["MsgId"]
    parts = [fields.get(name, "") for name in ("FromUserName", "CreateTime", "Event")]
    if event:
        parts.append(event.key)
    else:
        parts.append(digest(*(f"{name}={text}" for name, text in sorted(fields.items()))))
    whole = "-".join(parts)
    return whole if len(whole) <= _MAX_EXTERNAL_ID else whole[:900] + digest(whole)


def moment(epoch: str, otherwise: datetime) -> datetime:
    """Epoch seconds as a time."""
    if epoch.isascii() and epoch.isdigit() and len(epoch) <= 11:
        return datetime.fromtimestamp(int(epoch), UTC)
    return otherwise


def file(media_id: str, media_type: str, **more: Any) -> Attachment:
    """A file at the provider; without its id there is nothing to fetch, and the agent hears so."""
    if media_id:
        return Attachment(media_type=media_type, source=media_id, **more)
    return Attachment(media_type=media_type, unavailable="WeChat sent no id for this file", **more)


def place(latitude: str, longitude: str, label: str) -> Location:
    """ValueError where there is no such place."""
    return Location(
        latitude=float(latitude or "nan"), longitude=float(longitude or "nan"), label=label
    )


# Messages


def _image(fields: Fields) -> dict[str, Any]:
    return {"kind": Kind.IMAGE, "attachments": (file(fields.get("MediaId", ""), "image/jpeg"),)}


_AUDIO_TYPES = {"amr": "audio/amr", "speex": "audio/speex"}


def _voice(fields: Fields) -> dict[str, Any]:
    media_type = _AUDIO_TYPES.get(fields.get("Format", "").lower(), "audio/amr")
    transcript = fields.get("Recognition") or None
    spoken = file(fields.get("MediaId", ""), media_type, transcript=transcript)
    return {"kind": Kind.AUDIO, "attachments": (spoken,)}


def _video(fields: Fields) -> dict[str, Any]:
    return {"kind": Kind.VIDEO, "attachments": (file(fields.get("MediaId", ""), "video/mp4"),)}


def _document(fields: Fields) -> dict[str, Any]:
    """Undocumented in older pages: Title, Description, FileKey, FileMd5, FileTotalLen."""
    size = fields.get("FileTotalLen", "")
    attachment = Attachment(
        name=fields.get("Title", ""),
        size_bytes=int(size) if size.isascii() and size.isdigit() else None,
        unavailable="WeChat hands out files of this kind only in its own client",
    )
    return {"kind": Kind.FILE, "attachments": (attachment,)}


def _location(fields: Fields) -> dict[str, Any]:
    latitude, longitude = fields.get("Location_X", ""), fields.get("Location_Y", "")
    where = place(latitude, longitude, fields.get("Label", ""))
    return {"kind": Kind.LOCATION, "location": where}


def _link(fields: Fields) -> dict[str, Any]:
    link = Link(
        url=fields.get("Url", ""),
        title=fields.get("Title", ""),
        description=fields.get("Description", ""),
    )
    return {"kind": Kind.LINK, "link": link, "text": link.title}


def _card(fields: Fields) -> dict[str, Any]:
    """A page of a Mini Program: its path, which opens in WeChat only."""
    link = Link(url=fields.get("PagePath", ""), title=fields.get("Title", ""))
    return {"kind": Kind.LINK, "link": link, "text": link.title}


#: MsgType -> our kind and its fields.
KINDS: Mapping[str, Callable[[Fields], dict[str, Any]]] = {
    "text": lambda fields: {"kind": Kind.TEXT, "text": fields.get("Content", "")},
    "image": _image,
    "voice": _voice,
    "video": _video,
    "shortvideo": _video,
    "file": _document,
    "location": _location,
    "link": _link,
    "miniprogrampage": _card,
}


# Events

#: What tells one event from another of its name: the first of these that it has.
_EVENT_KEYS = (
    "EventKey",
    "SessionFrom",
    "MenuId",
    "ScanCodeInfo.ScanResult",
    "Ticket",
    "MsgID",
    "KfAccount",
    "ToKfAccount",
    "ChangeType",
    "BatchJob.JobId",
    "ScheduleId",
    "TaskId",
    "ApprovalInfo.SpNo",
    "UserCardCode",
    "CardId",
    "KeyStr",
    "OpenKfId",
    "AuthAddOpenKfId",
    "WayBillId",
    "PublishEventInfo.publish_id",
    "SubscribeMsgSentEvent.List.MsgID",
    "List.MsgID",
    "SubscribeMsgPopupEvent.List.TemplateId",
    "SubscribeMsgChangeEvent.List.TemplateId",
    "List.TemplateId",
    "trace_id",
    "FailReason",
    "ExpiredTime",
)
#: event -> where it states a place: latitude, longitude, label.
_EVENT_PLACES = {
    "location": ("Latitude", "Longitude", ""),
    "location_select": (
        "SendLocationInfo.Location_X",
        "SendLocationInfo.Location_Y",
        "SendLocationInfo.Label",
    ),
}


def _event(fields: Fields) -> dict[str, Any]:
    """Scans, clicks, follows, and what became of templates and mass messages: we send none."""
    name = fields.get("Event", "").lower()
    key = next((fields[k] for k in _EVENT_KEYS if fields.get(k)), "")
    told: dict[str, Any] = {"kind": Kind.EVENT, "event": Event(name=name, key=key)}
    if name in _EVENT_PLACES:
        with suppress(ValueError):  # an event is none the less one
            told["location"] = place(*(fields.get(k, "") for k in _EVENT_PLACES[name]))
    return told


_SAID_BY_AN_EVENT = {
    "ToUserName",
    "FromUserName",
    "CreateTime",
    "MsgType",
    "Event",
    "EventKey",
    "AgentID",
    "Latitude",
    "Longitude",
    "Precision",
}


def _says_more(fields: Fields, kind: Kind) -> bool:
    if kind is Kind.EVENT:
        return not fields.keys() <= _SAID_BY_AN_EVENT
    return kind is Kind.UNSUPPORTED or fields.get("MsgType", "").lower() == "miniprogrampage"


def _raw(document: bytes) -> Raw:
    media_type = "application/json" if wechat_wire.is_json(document) else "text/xml"
    return Raw(media_type=media_type, content=document)
