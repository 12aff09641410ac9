"""Everything we keep, read and written: the only module that talks to table, queues and bucket.

What lies where is in `items`. A write names the version that it read, so that of two writers one
wins and the other decides again (`ConflictError`). Bytes over a few kilobytes lie in the bucket and
are written before the item that names them.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.errors import ConflictError, NotFoundError, RejectedError
from chalicelib.items import (
    BUCKETS,
    PLACES,
    STUCK_AFTER,
    Collected,
    Cursor,
    Errand,
    Held,
    History,
    Home,
    N,
    Quarantined,
    Reference,
    Sent,
    Stored,
    TicketHome,
    conversation_sk,
    errand_key,
    feed_key,
    held_as,
    is_errand,
    message_key,
    sortable,
)
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
    Direction,
    Message,
    Notice,
    Noun,
    Raw,
    Receipt,
    Ticket,
    digest,
)

#: Longer raw bodies go to the bucket: an item is paid for by the kilobyte, and ends at 400.
INLINE_RAW_BYTES = 16 * 1024
TICKET_LINK_SECONDS = 7 * 24 * 3600
FEED_LINK_SECONDS = 3600
#: How long an agent counts as typing, and how soon the same sign of life counts again.
TYPING_SECONDS = 8.0
SIGNAL_SECONDS = 3.0
_DAY = 24 * 3600
#: Sorts behind every sequence number of a feed.
_AGENT = "agent"
_LATEST = 20


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
            return held_as(Stored, conflict.existing), False
        return replace(held, version=1), True

    def message(self, message_id: str) -> Held[Stored] | None:
        return self._get(Stored, *message_key(message_id))

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
        return [held_as(Stored, item).noun.message for item in found if item]

    def stuck(self, now: datetime) -> list[str]:
        """Ids of messages and errands that should be finished by now."""
        keys = (k for n in range(BUCKETS) for k in self._table.due(f"message#{n}", sortable(now)))
        return [sk for _, sk in keys]

    def overdue(self, now: datetime) -> list[Held[Conversation]]:
        """Conversations whose first reply should have been given by now."""
        keys = [k for n in range(BUCKETS) for k in self._table.due(f"reply#{n}", sortable(now))]
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
        return self._get(Errand, *errand_key(errand_id))

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
        return self._found_or(Cursor(inbox=inbox, source=source))

    def sent_as(self, inbox: str, external_id: str) -> str | None:
        """Our id of what a provider calls so."""
        found = self._get(Sent, f"SENT#{digest(inbox, external_id)}", "MESSAGE")
        return found.noun.message_id if found else None

    def collected(self, inbox: str, address: Address, of: str) -> Held[Collected]:
        """The pieces so far; version 0 if there are none."""
        empty = Collected(inbox=inbox, address=address, of=of, began_at=self._clock())
        return self._found_or(empty)

    def incomplete(self, now: datetime) -> list[Held[Collected]]:
        """Messages whose missing pieces should have come by now."""
        keys = [k for n in range(BUCKETS) for k in self._table.due(f"parts#{n}", sortable(now))]
        found = [self._get(Collected, pk, sk) for pk, sk in keys]
        return [held for held in found if held and not held.noun.done]

    # Ledgers

    def sending(self, inbox: str, address: Address) -> Held[SendLedger]:
        """The windows of an address at an inbox; version 0 if none was ever opened."""
        return self._found_or(SendLedger(inbox=inbox, address=address))

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
        contact = next((held_as(Contact, i) for i in items if i.sk == "PROFILE"), None)
        return History(
            contact=contact or Held(Contact(id=contact_id)),
            conversations=[held_as(Conversation, i) for i in items if i.sk != "PROFILE"],
        )

    def conversation(self, conversation_id: str) -> Held[Conversation] | None:
        """Where its home says that it lies; looked for again if it moved meanwhile."""
        seen = 0
        while (home := self.home(conversation_id)) and home.version != seen:
            pk, seen = f"CONTACT#{home.noun.contact_id}", home.version
            if found := self._get(Conversation, pk, conversation_sk(home.noun)):
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
        pk = feed_key(message.inbox, message.address)
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
        items = self._table.query(feed_key(inbox, address), f"{seq + 1:012d}", "~", limit=100)
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
        pk, now = feed_key(inbox, address), self._clock().timestamp()
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
        return [held_as(Quarantined, item).noun for item in found if item]

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
        return held_as(kind, item) if item else None

    def _found_or(self, empty: N) -> Held[N]:
        """What lies in the place of a noun; the noun itself, with version 0, if nothing does."""
        pk, sk, _ = PLACES[type(empty)](empty)
        return self._get(type(empty), pk, sk) or Held(empty)

    def _item(self, held: Held[Any]) -> Item:
        pk, sk, index = PLACES[type(held.noun)](held.noun)
        return replace(self._new(pk, sk, held.noun, index), version=held.version)

    def _new(self, pk: str, sk: str, noun: Noun, index: dict[str, str] | None = None) -> Item:
        return Item(
            pk=pk,
            sk=sk,
            body=noun.model_dump_json(exclude_defaults=True),
            index=index or {},
            expires_at=int((self._clock() + self._retention).timestamp()),
        )
