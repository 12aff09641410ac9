"""What every SMS provider's webhook becomes: a message, or a word by which its sender opts out."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from chalicelib.errors import PayloadError
from chalicelib.ports import Capabilities, Connector, WebhookRequest
from chalicelib.schema import (
    Attachment,
    Channel,
    Consent,
    Delivery,
    Direction,
    Event,
    Evidence,
    Kind,
    Level,
    Message,
    Raw,
    Receipt,
    digest,
    errand_id,
    message_id,
)
from connectors import sms_text

T = TypeVar("T")
_MOST_ELEMENTS = 1000

#: What a provider of texts can do that tells what became of them.
TEXTS = Capabilities(
    kinds_in=frozenset({Kind.TEXT, Kind.EVENT, Kind.UNSUPPORTED}),
    kinds_out=frozenset({Kind.TEXT}),
    evidence=("sms",),
    receipts=True,
    opt_out=True,
)
#: What an MMS may mainly be, besides.
FILES = frozenset({Kind.IMAGE, Kind.AUDIO, Kind.VIDEO, Kind.FILE})
_FILE_KINDS = {"image": Kind.IMAGE, "audio": Kind.AUDIO, "video": Kind.VIDEO}
#: Sender names have 11 characters, E.164 has 15 digits; short codes and prefixes stay below this.
_LONGEST_PHONE = 64


def inbound(
    connector: Connector,
    request: WebhookRequest,
    *,
    phone: str,
    external_id: str,
    text: str,
    choice: sms_text.Choice | None = None,
    confirmed: bool = False,
    **more: Any,
) -> Message:
    """A customer's SMS. PayloadError.

    `choice` is what the provider took the text for, `confirmed` that it told the customer so. The
    kind is that of the first of the `attachments` where there is no text, unless `more` states it.
    """
    if not external_id or not phone.strip() or len(phone) > _LONGEST_PHONE:
        raise PayloadError("the message has no id or no sender that could be one")
    address = f"phone:{phone}"
    decided = choice or (None if more.get("part") else sms_text.choice(text))
    fields: dict[str, Any] = {
        "id": message_id(connector.context.name, address, external_id),
        "direction": Direction.INBOUND,
        "channel": Channel.SMS,
        "connector": connector.name,
        "inbox": connector.context.name,
        "external_id": external_id,
        "address": address,
        "evidence": (made(partial(Evidence, address=address, level=Level.VERIFIED, source="sms")),),
        "kind": _kind(text, more.get("attachments", ())),
        "text": text,
        "sent_at": request.received_at,
        "received_at": request.received_at,
    } | more
    if decided:
        fields |= {
            "kind": Kind.EVENT,
            "event": Event(name=f"opt_{decided}", key=sms_text.keyword(text)),
            "consent": Consent(choice=decided, confirmed=confirmed),
        }
    return made(lambda: Message(**fields))


def _kind(text: str, files: Sequence[Attachment]) -> Kind:
    if text or not files:
        return Kind.TEXT
    return _FILE_KINDS.get(files[0].media_type.partition("/")[0], Kind.FILE)


def files(told: Any, name: str, *, url: str, media_type: str) -> tuple[Attachment, ...]:
    """The files in an array of objects, each with its address and its type in the fields named.

    None where that is no array; one that names no address is still told of.
    """
    stated = told.get(name) if isinstance(told, dict) else None
    listed = stated if isinstance(stated, list) else []
    return tuple(file(word(one, url), word(one, media_type)) for one in listed)


def file(url: str, media_type: str) -> Attachment:
    """A file at the provider, to be fetched from there."""
    kind = media_type.lower() or "application/octet-stream"
    if url:
        return Attachment(media_type=kind, source=url)
    return Attachment(media_type=kind, unavailable="the provider does not say where it is")


def receipt(
    connector: Connector,
    request: WebhookRequest,
    external_id: str,
    state: Delivery,
    reason: str = "",
) -> Receipt:
    """What became of a message that we sent. PayloadError."""
    if not external_id:
        raise PayloadError("the status names no message")
    inbox = connector.context.name
    return made(
        lambda: Receipt(
            id=errand_id(inbox, external_id, state),
            inbox=inbox,
            external_id=external_id,
            state=state,
            reason=reason if state is Delivery.FAILED else "",
            received_at=request.received_at,
        )
    )


def made(make: Callable[[], T]) -> T:
    """What `make` returns. PayloadError for a field that does not fit, which names the field."""
    try:
        return make()
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise PayloadError(f"a field is malformed: {place}") from None


def own_id(*parts: str) -> str:
    """An id for a message to which its provider gives none: what it says, hashed."""
    return digest(*parts) + digest("more", *parts)


def moment(text: str, zone: tzinfo, otherwise: datetime) -> datetime:
    """`YYYY-MM-DD HH:MM:SS` in a zone, as UTC; `otherwise` for anything else."""
    try:
        found = datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007  # the zone comes next
        return found.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return otherwise


def instant(text: str, otherwise: datetime) -> datetime:
    """An ISO 8601 time with its zone, as UTC; `otherwise` for anything else."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else otherwise
    except (ValueError, OverflowError):
        return otherwise


def epoch(text: str, otherwise: datetime) -> datetime:
    """Epoch seconds as a time; `otherwise` for anything else."""
    if not text.isascii() or not text.isdigit() or len(text) > 11:
        return otherwise
    return datetime.fromtimestamp(int(text), UTC)


def read_json(body: bytes) -> Any:
    """The JSON in a body. PayloadError."""
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise PayloadError("the body is no JSON") from None


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. PayloadError."""
    found = read_json(body)
    if not isinstance(found, dict):
        raise PayloadError("the body is no JSON object")
    return found


def refusal(body: bytes) -> dict[str, Any]:
    """The JSON object in the body of a refusal; nothing where some proxy spoke."""
    try:
        return read_object(body)
    except PayloadError:
        return {}


def word(fields: Any, *names: str) -> str:
    """The first of the named fields that holds text or a whole number, as text; '' if none does.

    Nothing is found in what is no object.
    """
    for name in names:
        value = fields.get(name) if isinstance(fields, dict) else None
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30:
            return str(value)
        if isinstance(value, str) and value:
            return value
    return ""


def each(
    connector: Connector,
    request: WebhookRequest,
    stated: Sequence[Any],
    read: Callable[[Mapping[str, Any], WebhookRequest], Message | Receipt],
) -> list[Message | Receipt]:
    """What the elements of an array say, repeats left out. PayloadError if none can be read.

    One that cannot be read becomes a message of kind `unsupported`: it loses the others nothing,
    and is not lost itself.
    """
    if len(stated) > _MOST_ELEMENTS:
        raise PayloadError(f"the array has over {_MOST_ELEMENTS} elements")
    found: dict[str, Message | Receipt] = {}
    odd: list[Any] = []
    fault: PayloadError | None = None
    for element in stated:
        try:
            if not isinstance(element, dict):
                raise PayloadError("an element is no object")
            item = read(element, request)
        except PayloadError as error:
            fault = error
            odd.append(element)
        else:
            found.setdefault(item.id, item)
    if fault and not found:
        raise fault
    return [*found.values(), *(_unreadable(connector, request, element) for element in odd)]


def _unreadable(connector: Connector, request: WebhookRequest, element: Any) -> Message:
    """From nobody whom we know, without evidence."""
    content = json.dumps(element, sort_keys=True)
    own = own_id(content)
    return inbound(
        connector,
        request,
        phone=f"unreadable-{own}",
        external_id=own,
        text="",
        evidence=(),
        kind=Kind.UNSUPPORTED,
        raw=Raw(media_type="application/json", content=content.encode()),
    )


def pieces(message: Message, most: int, cost: sms_text.Cost = sms_text.units) -> Sequence[Message]:
    """A long text as several messages, each with its number."""
    texts = sms_text.numbered(sms_text.sendable(message.text), most, cost)
    if texts == [message.text]:
        return (message,)
    return [message.model_copy(update={"text": text}) for text in texts]
