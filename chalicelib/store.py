"""Everything we keep: the only module that knows a key, an index or what lies in the bucket.

One table. Each item is a JSON document with a version; a write names the version that it read,
so that of two writers one wins and the other decides again (`ConflictError`).

item          pk                              sk                   found by
message       MSG#<its id's first half>       <its id>             its id; stream; thread, due
address       ADDRESS#<address>               LINK                 the address
contact       CONTACT#<id>                    PROFILE              its id
conversation  CONTACT#<contact>               CONV#<asked>#<id>    the contact: one query; due
home          CONV#<id>                       HOME                 a conversation's id
ticket        TICKET#<helpdesk>#<ticket id>   CONV                 the helpdesk's id
reference     REF#<hash of inbox, external>   CONV                 an email's In-Reply-To
feed          FEED#<hash of inbox, address>   <sequence>           a web chat visitor
presence      FEED#<hash of inbox, address>   agent                the same query
sent          SENT#<hash of inbox, external>  MESSAGE              a receipt
sending       SENDING#<hash of inbox, addr.>  LEDGER               the address, before sending
opt-out       OPTOUT#<address>                CHOICE               the address, before sending
pieces        PARTS#<hash of inbox, addr, of> PARTS                a piece of the same message; due
errand        ERRAND#<its id's first half>    <its id>             its id; stream, due
cursor        CURSOR#<hash of inbox, source>  CURSOR               a notice
token         TOKEN#<name>                    TOKEN                its name
quarantine    QUARANTINE#<id>                 RAW                  its id; thread

Indexes, both sparse and keys only: `due` (due, due_at) holds what must happen by a time, in eight
buckets, since one key takes a thousand writes a second; `thread` (thread, thread_at) holds a
conversation's messages in order. Everything expires by `expires_at`.

Bytes over a few kilobytes lie in the bucket and are written before the item that names them.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

from pydantic import Field

from chalicelib.errors import ConflictError, NotFoundError, RejectedError, RetryableError
from chalicelib.ledgers import OptOut, SendLedger
from chalicelib.ports import (
    Bucket,
    FeedEntry,
    Item,
    Presence,
    Queue,
    Table,
    Upload,
    UploadForm,
    Write,
)
from chalicelib.schema import (
    MESSAGE_ID_HALF,
    Address,
    AddressLink,
    Attachment,
    Contact,
    Conversation,
    Delivery,
    Direction,
    Message,
    Moment,
    Notice,
    Noun,
    Raw,
    Receipt,
    Ticket,
    digest,
)

N = TypeVar("N", bound=Noun)

#: Longer raw bodies go to the bucket: an item is paid for by the kilobyte, and ends at 400.
INLINE_RAW_BYTES = 16 * 1024
STUCK_AFTER = timedelta(minutes=3)
#: How long the pieces of one message may take.
PIECES_WAIT = timedelta(minutes=10)
TICKET_LINK_SECONDS = 7 * 24 * 3600
FEED_LINK_SECONDS = 3600
#: How long an agent counts as typing, and how soon the same sign of life counts again.
TYPING_SECONDS = 8.0
SIGNAL_SECONDS = 3.0
_DAY = 24 * 3600
#: Sorts behind every sequence number of a feed.
_AGENT = "agent"
_BUCKETS = 8
_LATEST = 20


class Step(StrEnum):
    """How far a message has come."""

    ACCEPTED = "accepted"
    RESOLVED = "resolved"
    #: Waits until the customer writes again: the channel's window is closed.
    HELD = "held"
    DONE = "done"
    FAILED = "failed"


class Stored(Noun):
    """A message with how far it has come."""

    message: Message
    step: Step = Step.ACCEPTED
    #: Until when one worker has it to itself.
    claimed_until: Moment | None = None
    #: A worker began to send it, and has not written how that ended.
    sending: bool = False
    #: By when it should be finished; then the schedule drives it again, ever more rarely.
    due_at: Moment | None = None
    drives: int = 0
    #: What the provider calls the pieces of a message that we sent, in order.
    provider_ids: tuple[str, ...] = ()
    #: What the provider says became of it.
    delivery: Delivery | None = None
    #: Why it failed, in words for an agent.
    failure: str | None = None
    #: What the agents must hear about it, and have not heard yet.
    untold: str | None = None

    @property
    def finished(self) -> bool:
        """Nothing is to be done about it now; what is held goes on by the customer's doing."""
        waits = self.step is Step.HELD and not self.sending
        return self.untold is None and (waits or self.step in (Step.DONE, Step.FAILED))


class Home(Noun):
    """Where a conversation lies: it moves with its contact."""

    conversation_id: str
    contact_id: str
    asked_at: Moment

    @classmethod
    def of(cls, conversation: Conversation) -> "Home":
        return cls(
            conversation_id=conversation.id,
            contact_id=conversation.contact_id,
            asked_at=conversation.asked_at,
        )


class TicketHome(Noun):
    """Which conversation a ticket belongs to."""

    ticket: Ticket
    conversation_id: str


class Reference(Noun):
    """Which conversation a provider's message id belongs to."""

    inbox: str
    external_id: str
    conversation_id: str


class Sent(Noun):
    """Which of our messages a provider's id belongs to."""

    inbox: str
    external_id: str
    message_id: str


class Errand(Noun):
    """A receipt or a notice, and whether it is done."""

    item: Receipt | Notice
    done: bool = False
    due_at: Moment | None = None
    drives: int = 0

    @property
    def finished(self) -> bool:
        return self.done


class Cursor(Noun):
    """How far a source has been read."""

    inbox: str
    source: str
    value: str = ""


class Collected(Noun):
    """The pieces of one long message that came so far."""

    inbox: str
    address: Address
    of: str
    began_at: Moment
    #: number -> message id
    pieces: dict[int, str] = Field(default_factory=dict)
    #: The message was made of them.
    done: bool = False


class Quarantined(Noun):
    """An authentic request that could not be read."""

    id: str
    inbox: str
    reason: str
    received_at: Moment
    method: str
    headers: dict[str, list[str]]
    query: list[tuple[str, str]]
    body: bytes | None = None
    key: str | None = None


@dataclass(frozen=True)
class Held(Generic[N]):
    """A noun as it was read: `version` 0 means that it is new."""

    noun: N
    version: int = 0

    def change(self, **changes: Any) -> "Held[N]":
        """The same with other values, to be committed over the version that was read."""
        return replace(self, noun=self.noun.model_copy(update=changes))


@dataclass(frozen=True)
class History:
    """A contact and its latest conversations, latest first."""

    contact: Held[Contact]
    conversations: Sequence[Held[Conversation]]


class Store:
    """Reads and writes nouns; every write is one commit, all or nothing."""

    def __init__(  # five collaborators and a number: a holder for them would say less
        self,
        table: Table,
        bucket: Bucket,
        forward_queue: Queue,
        deliver_queue: Queue,
        clock: Callable[[], datetime],
        retention_days: int = 400,
    ) -> None:
        self._table = table
        self._bucket = bucket
        self._queues = {Direction.INBOUND: forward_queue, Direction.OUTBOUND: deliver_queue}
        self._clock = clock
        self._retention = timedelta(days=retention_days)

    def commit(self, *puts: Held[Any], gone: Iterable[Held[Any]] = ()) -> None:
        """Write all or nothing. ConflictError when one was written since it was read."""
        deletes = [Write(item=self._item(held), delete=True) for held in gone]
        self._table.write(*(Write(item=self._item(held)) for held in puts), *deletes)

    # Messages

    def add(
        self, message: Message, claimed_until: datetime | None = None
    ) -> tuple[Held[Stored], bool]:
        """Record a message once. Returns it as stored, and whether it is new.

        One request to the table; none to the bucket unless the message carries long bytes.
        """
        held = Held(Stored(message=self.offload(message), claimed_until=claimed_until))
        try:
            self.commit(held)
        except ConflictError as conflict:
            return _held(Stored, conflict.existing), False
        return replace(held, version=1), True

    def message(self, message_id: str) -> Held[Stored] | None:
        return self._get(Stored, *_message_key(message_id))

    def claim(
        self, held: Held[Stored], seconds: float, *, sending: bool = False
    ) -> Held[Stored] | None:
        """Have a message to oneself for a while; None if another worker has it, or just took it."""
        now = self._clock()
        if held.noun.claimed_until and held.noun.claimed_until > now:
            return None
        claimed = held.change(claimed_until=now + timedelta(seconds=seconds), sending=sending)
        try:
            self.commit(claimed)
        except ConflictError:
            return None
        return replace(claimed, version=held.version + 1)

    def postpone(self, held: Held[Stored] | Held[Errand]) -> bool:
        """Note that a stuck one is driven again; False if it moved on by itself."""
        wait = STUCK_AFTER * 2 ** min(held.noun.drives, 7)
        later = {"drives": held.noun.drives + 1, "due_at": self._clock() + wait}
        try:
            self.commit(held.change(**later))
        except ConflictError:
            return False
        return True

    def amend(
        self, conversation_id: str, change: Callable[[Conversation], Conversation]
    ) -> Conversation | None:
        """Change a conversation, whoever else changes it meanwhile; None if it is gone."""
        while held := self.conversation(conversation_id):
            changed = change(held.noun)
            try:
                if changed != held.noun:
                    self.commit(Held(changed, held.version))
            except ConflictError:
                continue
            return changed
        return None

    def thread(self, conversation_id: str) -> list[Message]:
        """A conversation's messages in order. The index may lag by a moment."""
        found = (self._table.get(*key) for key in self._table.thread(conversation_id))
        return [_held(Stored, item).noun.message for item in found if item]

    def stuck(self, now: datetime) -> list[str]:
        """Ids of messages and errands that should be finished by now."""
        keys = (k for n in range(_BUCKETS) for k in self._table.due(f"message#{n}", _text(now)))
        return [sk for _, sk in keys]

    def overdue(self, now: datetime) -> list[Held[Conversation]]:
        """Conversations whose first reply should have been given by now."""
        keys = [k for n in range(_BUCKETS) for k in self._table.due(f"reply#{n}", _text(now))]
        found = [self._get(Conversation, pk, sk) for pk, sk in keys]
        return [held for held in found if held]

    def enqueue(self, message: Message, *, attempt: str = "") -> None:
        """Queue a message for its worker, behind the others of its conversation.

        `attempt` tells a later, deliberate try from a repetition, which the queue drops.
        """
        self._queues[message.direction].send(
            json.dumps({"message_id": message.id}),
            group=message.conversation_id or message.id,
            deduplication_id=f"{message.id}{attempt}",
        )

    def enqueue_note(self, stored: Stored, *, attempt: str = "") -> None:
        """Queue an outbound message for the agents to hear what became of it."""
        message = stored.message
        self._queues[Direction.INBOUND].send(
            json.dumps({"message_id": message.id}),
            group=message.conversation_id or message.id,
            deduplication_id=f"{message.id}note{attempt}",
        )

    # Errands

    def add_errand(self, item: Receipt | Notice) -> bool:
        """Record it once, with one request to the table; False if it is there already."""
        try:
            self.commit(Held(Errand(item=item)))
        except ConflictError:
            return False
        return True

    def errand(self, errand_id: str) -> Held[Errand] | None:
        return self._get(Errand, *_errand_key(errand_id))

    def item(self, stored_id: str) -> Held[Stored] | Held[Errand] | None:
        """A message or an errand by its id."""
        return self.errand(stored_id) if is_errand(stored_id) else self.message(stored_id)

    def enqueue_errand(self, errand: Errand, *, attempt: str = "") -> None:
        """Queue it: a notice with what comes in, a receipt with what goes out."""
        errand_id = errand.item.id
        notice = isinstance(errand.item, Notice)
        direction = Direction.INBOUND if notice else Direction.OUTBOUND
        self._queues[direction].send(
            json.dumps({"message_id": errand_id}),
            group=errand_id[:MESSAGE_ID_HALF],
            deduplication_id=f"{errand_id}{attempt}",
        )

    def finish_errand(self, held: Held[Errand]) -> None:
        """It is done; somebody who did it at the same time is welcome."""
        with suppress(ConflictError):
            self.commit(held.change(done=True))

    def cursor(self, inbox: str, source: str) -> Held[Cursor]:
        """How far a source has been read: '' of one that never was."""
        found = self._get(Cursor, f"CURSOR#{digest(inbox, source)}", "CURSOR")
        return found or Held(Cursor(inbox=inbox, source=source))

    def sent_as(self, inbox: str, external_id: str) -> str | None:
        """Our id of what a provider calls so."""
        found = self._get(Sent, f"SENT#{digest(inbox, external_id)}", "MESSAGE")
        return found.noun.message_id if found else None

    def collected(self, inbox: str, address: Address, of: str) -> Held[Collected]:
        """The pieces so far; version 0 if there are none."""
        found = self._get(Collected, f"PARTS#{digest(inbox, address, of)}", "PARTS")
        empty = Collected(inbox=inbox, address=address, of=of, began_at=self._clock())
        return found or Held(empty)

    def incomplete(self, now: datetime) -> list[Held[Collected]]:
        """Messages whose missing pieces should have come by now."""
        keys = [k for n in range(_BUCKETS) for k in self._table.due(f"parts#{n}", _text(now))]
        found = [self._get(Collected, pk, sk) for pk, sk in keys]
        return [held for held in found if held and not held.noun.done]

    # Ledgers

    def sending(self, inbox: str, address: Address) -> Held[SendLedger]:
        """The windows of an address at an inbox; version 0 if none was ever opened."""
        found = self._get(SendLedger, f"SENDING#{digest(inbox, address)}", "LEDGER")
        return found or Held(SendLedger(inbox=inbox, address=address))

    def opt_out(self, address: Address) -> Held[OptOut] | None:
        """What the customer last said about being written to there."""
        return self._get(OptOut, f"OPTOUT#{address}", "CHOICE")

    # Contacts and conversations

    def link(self, address: str) -> Held[AddressLink] | None:
        return self._get(AddressLink, f"ADDRESS#{address}", "LINK")

    def history(self, contact_id: str) -> History:
        """One query, however many questions the contact ever asked."""
        items = self._table.query(
            f"CONTACT#{contact_id}", "CONV#", "PROFILE", newest_first=True, limit=_LATEST + 1
        )
        contact = next((_held(Contact, i) for i in items if i.sk == "PROFILE"), None)
        return History(
            contact=contact or Held(Contact(id=contact_id)),
            conversations=[_held(Conversation, i) for i in items if i.sk != "PROFILE"],
        )

    def conversation(self, conversation_id: str) -> Held[Conversation] | None:
        """Where its home says that it lies; looked for again if it moved meanwhile."""
        seen = 0
        while (home := self.home(conversation_id)) and home.version != seen:
            pk, seen = f"CONTACT#{home.noun.contact_id}", home.version
            if found := self._get(Conversation, pk, _conversation_sk(home.noun)):
                return found
        return None

    def home(self, conversation_id: str) -> Held[Home] | None:
        return self._get(Home, f"CONV#{conversation_id}", "HOME")

    def conversation_of_ticket(self, ticket: Ticket) -> str | None:
        found = self._get(TicketHome, f"TICKET#{ticket.helpdesk}#{ticket.id}", "CONV")
        return found.noun.conversation_id if found else None

    def conversation_of_reference(self, inbox: str, external_ids: Iterable[str]) -> str | None:
        """The conversation of the first id that we know; looks at the nearest five."""
        for external_id in list(external_ids)[:5]:
            if external_id.startswith("conversation:"):  # proven by the connector itself
                return external_id.partition(":")[2]
            pk = f"REF#{digest(inbox, external_id)}"
            if found := self._get(Reference, pk, "CONV"):
                return found.noun.conversation_id
        return None

    def remember(self, *nouns: Noun) -> None:
        """Write each unless it is there already: for pointers, of which the first one holds."""
        for noun in nouns:
            try:
                self.commit(Held(noun))
            except ConflictError:
                continue

    # Feed: what a web chat visitor reads

    def feed_append(self, message: Message) -> int:
        """Append once; return the sequence number. Safe to repeat, and from two places at once."""
        pk = _feed_pk(message)
        while True:
            last = 0
            for item in self._table.query(pk, "0", ":", newest_first=True, limit=50):
                last = last or int(item.sk)
                if Message.model_validate_json(item.body).id == message.id:
                    return int(item.sk)
            try:
                self._table.write(Write(item=self._new(pk, f"{last + 1:012d}", message)))
            except ConflictError:
                continue  # somebody took that number: look again
            return last + 1

    def feed_after(self, inbox: str, address: str, seq: int) -> list[FeedEntry]:
        """What the customer may read after a sequence number."""
        return self.feed(inbox, address, seq)[0]

    def feed(self, inbox: str, address: str, seq: int) -> tuple[list[FeedEntry], Presence]:
        """The same, with what the agents are doing: one query, since the latter sorts behind."""
        items = self._table.query(_feed_key(inbox, address), f"{seq + 1:012d}", "~", limit=100)
        presence = Presence()
        if items and items[-1].sk == _AGENT:
            presence = self._presence(items.pop())
        entries = [
            FeedEntry(seq=int(i.sk), message=Message.model_validate_json(i.body)) for i in items
        ]
        return entries, presence

    def _presence(self, item: Item) -> Presence:
        held = json.loads(item.body)
        left = held.get("typing_until", 0.0) - self._clock().timestamp()
        read_at = held.get("read_at")
        return Presence(
            typing_seconds=max(0.0, left),
            read_at=datetime.fromtimestamp(read_at, UTC) if read_at else None,
            mark=str(item.version),
        )

    def sign(self, inbox: str, address: str, kind: str) -> bool:
        """Note that an agent is typing or has read; False if that was noted a moment ago.

        Kept for a day at most, and never part of the feed.
        """
        pk, now = _feed_key(inbox, address), self._clock().timestamp()
        item = self._table.get(pk, _AGENT)
        held = json.loads(item.body) if item else {}
        field, until = (
            ("typing_until", now + TYPING_SECONDS) if kind == "typing" else ("read_at", now)
        )
        if until - held.get(field, 0.0) < SIGNAL_SECONDS:
            return False
        item = item or Item(pk=pk, sk=_AGENT, body="")
        body = json.dumps(held | {field: until})
        try:
            self._table.write(Write(item=replace(item, body=body, expires_at=int(now) + _DAY)))
        except ConflictError:
            return False  # another agent does the same
        return True

    def linked(self, message: Message) -> Message:
        """The message with signed links to its files, for the customer who may read it."""
        linked = tuple(
            a.model_copy(update={"url": self._bucket.link(key, a.name, FEED_LINK_SECONDS)})
            if (key := a.key or a.source)
            else a
            for a in message.attachments
        )
        return message.model_copy(update={"attachments": linked})

    def upload_form(self, upload: Upload) -> UploadForm:
        """How a browser puts a file into the bucket; makes no call."""
        return self._bucket.form(upload)

    def uploaded(self, key: str) -> bytes:
        """The bytes that a browser put there. RejectedError if it never did."""
        try:
            return self._bucket.get(key)
        except NotFoundError:
            raise RejectedError("the file was never uploaded") from None

    # Quarantine

    def quarantine(self, held: Quarantined) -> bool:
        """Keep a request that could not be read; False if it is there already."""
        body = held.body or b""
        if len(body) > INLINE_RAW_BYTES:
            key = f"quarantine/{held.id}"
            self._bucket.put(key, body, "application/octet-stream")
            held = held.model_copy(update={"body": None, "key": key})
        try:
            self.commit(Held(held))
        except ConflictError:
            return False
        return True

    def quarantined(self, quarantine_id: str) -> Quarantined | None:
        """One, with its body."""
        held = self._get(Quarantined, f"QUARANTINE#{quarantine_id}", "RAW")
        if held and held.noun.key:
            return held.noun.model_copy(update={"body": self._bucket.get(held.noun.key)})
        return held.noun if held else None

    def all_quarantined(self) -> list[Quarantined]:
        """Oldest first, without bodies that lie in the bucket."""
        found = (self._table.get(*key) for key in self._table.thread("QUARANTINE"))
        return [_held(Quarantined, item).noun for item in found if item]

    def release(self, quarantine_id: str) -> None:
        """Forget one that has been read after all."""
        held = self._get(Quarantined, f"QUARANTINE#{quarantine_id}", "RAW")
        if held:
            self.commit(gone=[held])

    # Bytes

    def offload(self, message: Message) -> Message:
        """The message with its bytes in the bucket, by reference. Safe to repeat."""
        attachments = tuple(
            self.keep(message, n, a) if a.content is not None and not a.key else a
            for n, a in enumerate(message.attachments)
        )
        return message.model_copy(
            update={
                "attachments": attachments,
                "raw": self._long("raw", message, message.raw),
                "html": self._long("html", message, message.html),
            }
        )

    def _long(self, folder: str, message: Message, raw: Raw | None) -> Raw | None:
        """Bytes beside a message: inline, or in the bucket where they are long."""
        if raw is None or raw.content is None or len(raw.content) <= INLINE_RAW_BYTES:
            return raw
        key = f"{folder}/{message.id}"
        self._bucket.put(key, raw.content, raw.media_type)
        return raw.model_copy(update={"content": None, "key": key})

    def keep(self, message: Message, number: int, attachment: Attachment) -> Attachment:
        """Put an attachment's bytes in the bucket; return it with its key, size and digest."""
        content = attachment.content or b""
        digest = hashlib.sha256(content).hexdigest()
        key = f"attachments/{message.id}/{number}-{digest[:16]}"
        self._bucket.put(key, content, attachment.media_type)
        return attachment.model_copy(
            update={"key": key, "sha256": digest, "size_bytes": len(content)}
        )

    def load(self, attachment: Attachment) -> Attachment:
        """The attachment with its bytes in memory, and a signed link to them."""
        if not attachment.key:
            return attachment
        return attachment.model_copy(
            update={
                "content": self._bucket.get(attachment.key),
                "url": self._bucket.link(attachment.key, attachment.name, TICKET_LINK_SECONDS),
            }
        )

    # Keys

    def _get(self, kind: type[N], pk: str, sk: str) -> Held[N] | None:
        item = self._table.get(pk, sk)
        return _held(kind, item) if item else None

    def _item(self, held: Held[Any]) -> Item:
        pk, sk, index = _PLACES[type(held.noun)](held.noun)
        return replace(self._new(pk, sk, held.noun, index), version=held.version)

    def _new(self, pk: str, sk: str, noun: Noun, index: dict[str, str] | None = None) -> Item:
        return Item(
            pk=pk,
            sk=sk,
            body=noun.model_dump_json(exclude_defaults=True),
            index=index or {},
            expires_at=int((self._clock() + self._retention).timestamp()),
        )


def _held(kind: type[N], item: Item) -> Held[N]:
    return Held(kind.model_validate_json(item.body), item.version)


def _text(moment: datetime) -> str:
    """Sorts as text in the order of time: always UTC, always microseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _conversation_sk(conversation: Conversation | Home) -> str:
    identity = (
        conversation.id
        if isinstance(conversation, Conversation)
        else (conversation.conversation_id)
    )
    return f"CONV#{_text(conversation.asked_at)}#{identity}"


def _message_key(message_id: str) -> tuple[str, str]:
    """One party's messages share a key: the stream keeps the order of those, and of no others."""
    return f"MSG#{message_id[:MESSAGE_ID_HALF]}", message_id


def _errand_key(errand_id: str) -> tuple[str, str]:
    return f"ERRAND#{errand_id[:MESSAGE_ID_HALF]}", errand_id


def is_errand(stored_id: str) -> bool:
    """Whether an id is that of a receipt or a notice, and not of a message."""
    return stored_id.startswith("e")


def new_item(event: str, image: Mapping[str, Any]) -> str | None:
    """The id of the message or errand that a record of the stream says is new; None for others."""
    if event != "INSERT" or image.get("kind", {}).get("S") not in ("message", "errand"):
        return None
    return str(image["sk"]["S"])


def _message_index(stored: Stored) -> dict[str, str]:
    message = stored.message
    index = {"kind": "message"}
    if message.conversation_id:
        index |= {
            "thread": message.conversation_id,
            "thread_at": f"{_text(message.received_at)}#{message.id}",
        }
    if not stored.finished:
        index |= {
            "due": f"message#{_bucket(message.id)}",
            "due_at": _text(stored.due_at or message.received_at + STUCK_AFTER),
        }
    return index


def _errand_index(errand: Errand) -> dict[str, str]:
    if errand.done:
        return {"kind": "errand"}
    due_at = errand.due_at or errand.item.received_at + STUCK_AFTER
    due = f"message#{_bucket(errand.item.id)}"
    return {"kind": "errand", "due": due, "due_at": _text(due_at)}


def _pieces_index(collected: Collected) -> dict[str, str]:
    if collected.done:
        return {}
    due = f"parts#{_bucket(collected.of)}"
    return {"due": due, "due_at": _text(collected.began_at + PIECES_WAIT)}


def _conversation_index(conversation: Conversation) -> dict[str, str]:
    due_at = conversation.first_reply_due_at
    if not due_at:
        return {}
    return {"due": f"reply#{_bucket(conversation.id)}", "due_at": _text(due_at)}


#: Where a noun lies, and which indexes see it.
_PLACES: dict[type[Noun], Callable[[Any], tuple[str, str, dict[str, str]]]] = {
    Stored: lambda s: (*_message_key(s.message.id), _message_index(s)),
    AddressLink: lambda link: (f"ADDRESS#{link.address}", "LINK", {}),
    Contact: lambda c: (f"CONTACT#{c.id}", "PROFILE", {}),
    Conversation: lambda c: (
        f"CONTACT#{c.contact_id}",
        _conversation_sk(c),
        _conversation_index(c),
    ),
    Home: lambda h: (f"CONV#{h.conversation_id}", "HOME", {}),
    TicketHome: lambda t: (f"TICKET#{t.ticket.helpdesk}#{t.ticket.id}", "CONV", {}),
    Reference: lambda r: (f"REF#{digest(r.inbox, r.external_id)}", "CONV", {}),
    Sent: lambda s: (f"SENT#{digest(s.inbox, s.external_id)}", "MESSAGE", {}),
    Errand: lambda e: (*_errand_key(e.item.id), _errand_index(e)),
    Cursor: lambda c: (f"CURSOR#{digest(c.inbox, c.source)}", "CURSOR", {}),
    Collected: lambda c: (
        f"PARTS#{digest(c.inbox, c.address, c.of)}",
        "PARTS",
        _pieces_index(c),
    ),
    SendLedger: lambda w: (f"SENDING#{digest(w.inbox, w.address)}", "LEDGER", {}),
    OptOut: lambda o: (f"OPTOUT#{o.address}", "CHOICE", {}),
    Quarantined: lambda q: (
        f"QUARANTINE#{q.id}",
        "RAW",
        {"thread": "QUARANTINE", "thread_at": _text(q.received_at)},
    ),
}


def _bucket(identity: str) -> int:
    return sum(identity.encode()) % _BUCKETS


def _feed_pk(message: Message) -> str:
    return _feed_key(message.inbox, message.address)


def _feed_key(inbox: str, address: str) -> str:
    return f"FEED#{digest(inbox, address)}"


class StoredTokens:
    """Access tokens in the table: one worker fetches, under a lease, and all use the result."""

    LEASE_SECONDS = 10.0

    def __init__(self, table: Table, clock: Callable[[], datetime], pause: Callable[[float], None]):
        self._table = table
        self._clock = clock
        self._pause = pause

    def get(self, name: str, fetch: Callable[[], tuple[str, float]], *, stale: str = "") -> str:
        for _ in range(20):
            item = self._table.get(f"TOKEN#{name}", "TOKEN")
            held = json.loads(item.body) if item else {}
            now = self._clock().timestamp()
            if held.get("expires_at", 0) > now and held["token"] != stale:
                return str(held["token"])
            if held.get("lease_until", 0) > now or not self._lease(name, item, held, now):
                self._pause(0.25)
                continue
            return self._refresh(name, fetch)
        raise RetryableError("another worker is fetching a new access token")

    def _lease(self, name: str, item: Item | None, held: dict[str, Any], now: float) -> bool:
        try:
            self._put(name, item, held | {"lease_until": now + self.LEASE_SECONDS})
        except ConflictError:
            return False
        return True

    def _refresh(self, name: str, fetch: Callable[[], tuple[str, float]]) -> str:
        token, seconds = fetch()
        item = self._table.get(f"TOKEN#{name}", "TOKEN")
        # A minute early: a token that ends on its way is worse than one fetched too soon.
        expires_at = self._clock().timestamp() + max(seconds - 60, seconds / 2)
        with suppress(ConflictError):  # our lease ran out, and somebody else's token is as good
            self._put(name, item, {"token": token, "expires_at": expires_at})
        return token

    def _put(self, name: str, item: Item | None, body: dict[str, Any]) -> None:
        expires_at = int(self._clock().timestamp()) + 7 * 24 * 3600
        self._table.write(
            Write(
                item=Item(
                    pk=f"TOKEN#{name}",
                    sk="TOKEN",
                    body=json.dumps(body),
                    version=item.version if item else 0,
                    expires_at=expires_at,
                )
            )
        )
