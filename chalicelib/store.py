"""Everything we keep, read and written: the only module that talks to table, queues and bucket.

What lies where is in `items`. A write names the version that it read, so that of two writers one
wins and the other decides again (`ConflictError`). Bytes over a few kilobytes lie in the bucket and
are written before the item that names them.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from copy import copy
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from chalicelib.errors import ConflictError, NotFoundError, RejectedError
from chalicelib.items import (
    BUCKETS,
    KEPT,
    PLACES,
    STUCK_AFTER,
    Asker,
    Challenge,
    Collected,
    Corrected,
    Cursor,
    DeskState,
    Errand,
    GivenOpinion,
    Held,
    History,
    Home,
    N,
    Quarantined,
    Recognised,
    Reference,
    Sent,
    Shelf,
    Stored,
    Tally,
    TenantKey,
    TicketHome,
    Topic,
    began_at,
    conversation_sk,
    errand_key,
    feed_key,
    first_message_id,
    held_as,
    is_errand,
    listed_under,
    message_key,
    opinion_sk,
    recognised_key,
    shelf_key,
    sortable,
    topic_pk,
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
    Instruction,
    Message,
    Notice,
    Noun,
    Raw,
    Receipt,
    Ticket,
    digest,
    message_id,
)

#: Longer raw bodies go to the bucket: a message is written seven times, and each kilobyte of it is
#: paid for each time (docs/performance.md); an object once.
INLINE_RAW_BYTES = 4 * 1024
TICKET_LINK_SECONDS = 7 * 24 * 3600
FEED_LINK_SECONDS = 3600
#: How long an agent counts as typing, and how soon the same sign of life counts again.
TYPING_SECONDS = 8.0
SIGNAL_SECONDS = 3.0
_DAY = 24 * 3600
#: Where the files of customers of a hosted channel lie.
_UPLOADS = "uploads/"
#: Sorts behind every sequence number of a feed.
_AGENT = "agent"
_LATEST = 20
#: Sorts behind every time.
_EVER = "~"
#: A month of a topic's tallies, and itself.
_TALLIES = 33


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
        self._keys: dict[str, bytes] = {}

    def commit(self, *puts: Held[Any], gone: Iterable[Held[Any]] = ()) -> None:
        """Write all or nothing. ConflictError when one was written since it was read."""
        deletes = [Write(item=self._item(held), delete=True) for held in gone]
        self._table.write(*(Write(item=self._item(held)) for held in puts), *deletes)

    def put_once(self, noun: N) -> N | None:
        """Write it, unless something lies in its place: that is returned."""
        try:
            self.commit(Held(noun))
        except ConflictError as conflict:
            return held_as(type(noun), conflict.existing).noun
        return None

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

    def claim(self, held: Held[Stored], seconds: float, **changes: bool) -> Held[Stored] | None:
        """Have a message to oneself for a while; None if another worker has it, or just took it."""
        now = self._clock()
        if held.noun.claimed_until and held.noun.claimed_until > now:
            return None
        claimed = held.change(claimed_until=now + timedelta(seconds=seconds), **changes)
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

    def unfinished(self) -> dict[str, datetime]:
        """{message or errand on its way: when it is stuck}, of those the oldest hundreds."""
        buckets = (f"message#{n}" for n in range(BUCKETS))
        found = (entry for name in buckets for entry in self._table.due(name, _EVER).items())
        return {sk: datetime.fromisoformat(at) for (_, sk), at in found}

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

    def add_errand(self, item: Receipt | Notice | Instruction) -> bool:
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
        """Queue it: a receipt with what goes out, anything else with what comes in."""
        errand_id = errand.item.id
        receipt = isinstance(errand.item, Receipt)
        direction = Direction.OUTBOUND if receipt else Direction.INBOUND
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

    def challenge(self, hashed: str) -> Held[Challenge] | None:
        """The code that is expected from an address, by the address's digest."""
        return self._get(Challenge, f"CODE#{hashed}", "CODE")

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

    def conversation(
        self, conversation_id: str, first: Message | None = None
    ) -> Held[Conversation] | None:
        """Where its first message was asked; where its home says that it lies, if it has moved.

        It is read less often where that message is at hand.
        """
        if first is None and conversation_id.startswith("q"):
            held = self.message(first_message_id(conversation_id))
            first = held.noun.message if held else None
        began = began_at(first) if first else None
        if began and (found := self._get(Conversation, *began)):
            return found
        seen = 0
        while (home := self.home(conversation_id)) and home.version != seen:
            pk, seen = f"CONTACT#{home.noun.contact_id}", home.version
            if found := self._get(Conversation, pk, conversation_sk(home.noun)):
                return found
        return None

    def home(self, conversation_id: str) -> Held[Home] | None:
        """Where a conversation lies that has moved."""
        return self._get(Home, f"CONV#{conversation_id}", "HOME")

    def ticket_home(self, ticket: Ticket) -> Held[TicketHome] | None:
        """Which conversation a ticket belongs to."""
        return self._get(TicketHome, f"TICKET#{ticket.helpdesk}#{ticket.id}", "CONV")

    def desk_state(self, helpdesk: str) -> Held[DeskState]:
        """How a helpdesk is doing; version 0 of one that was never in trouble."""
        return self._found_or(DeskState(helpdesk=helpdesk))

    def conversation_of_reference(self, inbox: str, external_ids: Iterable[str]) -> str | None:
        """The conversation of the first id that we know; looks at the nearest five."""
        for external_id in list(external_ids)[:5]:
            if external_id.startswith("conversation:"):  # proven by the connector itself
                return external_id.partition(":")[2]
            pk = f"REF#{digest(inbox, external_id)}"
            if found := self._get(Reference, pk, "CONV"):
                return found.noun.conversation_id
        return None

    def reference(self, inbox: str, external_id: str) -> Held[Reference] | None:
        """Which conversation a provider's message id belongs to."""
        return self._get(Reference, f"REF#{digest(inbox, external_id)}", "CONV")

    # Repeats

    def everything_said(self) -> Iterator[list[Message | AddressLink]]:
        """Every message, and every address's link, page by page, in no order; reads the table."""
        for page in self._table.scan("MSG#", "ADDRESS#"):
            links = [held_as(AddressLink, i).noun for i in page if i.pk.startswith("ADDRESS#")]
            stored = [held_as(Stored, i).noun for i in page if i.pk.startswith("MSG#")]
            yield [*links, *(s.message for s in stored if not s.erased)]

    def everything_stored(self) -> Iterator[Held[Stored]]:
        """Every message that was not erased, in no order; reads the table."""
        for page in self._table.scan("MSG#"):
            found = (held_as(Stored, item) for item in page)
            yield from (held for held in found if not held.noun.erased)

    def everything_asked(self) -> Iterator[Conversation]:
        """Every conversation, in no order; reads the table."""
        for page in self._table.scan("CONTACT#"):
            for item in page:
                if item.sk.startswith("CONV#"):
                    yield held_as(Conversation, item).noun

    def recognised(self, day: datetime) -> Iterator[Recognised]:
        """What was found to ask again on a day, newest first; pages through all of it."""
        pk, last = recognised_key(day), "~"
        while items := self._table.query(pk, "0", last, newest_first=True):
            found = [item for item in items if item.sk != last]
            yield from (held_as(Recognised, item).noun for item in found)
            if not found:
                return
            last = found[-1].sk

    def corrected(self, helpdesk: str, external_id: str) -> Corrected | None:
        """What an agent's correction was about, if it came before."""
        found = self._get(Corrected, f"CORRECTED#{digest(helpdesk, external_id)}", "MESSAGE")
        return found.noun if found else None

    def remember(self, *nouns: Noun) -> None:
        """Write each unless it is there already: for pointers, of which the first one holds."""
        for noun in nouns:
            self.put_once(noun)

    def opinion(self, contact_id: str, key: str) -> GivenOpinion | None:
        """What was said about two texts of a contact, by their keyed hash."""
        held = self._get(GivenOpinion, f"CONTACT#{contact_id}", opinion_sk(key))
        return held.noun if held else None

    def forget_opinions(self, contact_id: str) -> None:
        """Remove what was said about a contact's texts."""
        for item in self._pages(f"CONTACT#{contact_id}", opinion_sk(""), opinion_sk("~")):
            self._table.write(Write(item=item, delete=True))

    # What many ask

    def key(self, name: str) -> bytes:
        """A secret of this deployment: made once, then always the same."""
        if name not in self._keys:
            self.remember(TenantKey(name=name, secret=secrets.token_hex(32)))
            held = self._get(TenantKey, f"KEY#{name}", "KEY")
            if held is None:
                raise NotFoundError(f"the key {name} is gone")
            self._keys[name] = bytes.fromhex(held.noun.secret)
        return self._keys[name]

    def shelves(self, keys: Sequence[str], *, consistent: bool = True) -> list[Held[Shelf]]:
        """One of each key, version 0 where nothing was put yet: one request."""
        items = self._table.get_all([shelf_key(k) for k in keys], consistent=consistent)
        found = (held_as(Shelf, item) for item in items)
        held = {shelf.noun.key: shelf for shelf in found}
        return [held.get(key) or Held(Shelf(key=key)) for key in keys]

    def topic(self, topic_id: str, since: date) -> tuple[Held[Topic] | None, list[Tally]]:
        """A topic, and what was counted since a day: one query."""
        low = f"DAY#{since.isoformat()}"
        items = self._table.query(
            topic_pk(topic_id), low, "TOPIC", newest_first=True, limit=_TALLIES
        )
        topic = next((held_as(Topic, i) for i in items if i.sk == "TOPIC"), None)
        tallies = (
            held_as(Tally, i).noun.model_copy(update={"slots": i.counts})
            for i in items
            if i.sk != "TOPIC"
        )
        return topic, list(tallies)

    def tally(self, more: Tally) -> None:
        """Add what it counts to what is there, whoever else does so."""
        self._table.write(Write(item=self._item(Held(more)), add=more.slots))

    def askers(self, topic_id: str, limit: int) -> list[Asker]:
        """Some who asked, those of the latest day first."""
        items = self._table.query(topic_pk(topic_id), "BY#", "BY#~", newest_first=True, limit=limit)
        return [held_as(Asker, item).noun for item in items]

    def topics_listed(self, day: date) -> list[str]:
        """Ids of what many asked on that day, and not since."""
        keys = self._table.thread(listed_under(day.isoformat()))
        return [pk.partition("#")[2] for pk, _ in keys]

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

    def over(self, wrap: Callable[[Table], Table]) -> "Store":
        """The same store over its table as `wrap` makes it."""
        other = copy(self)
        other._table = wrap(self._table)
        return other

    # Erasing

    def suggesting(self, addresses: Set[Address]) -> Iterator[Held[Contact]]:
        """Contacts that claim one of these addresses. Reads all contacts."""
        for page in self._table.scan("CONTACT#"):
            for item in page:
                if item.sk == "PROFILE":
                    held = held_as(Contact, item)
                    if not addresses.isdisjoint(held.noun.suggestions):
                        yield held

    def party(self, place: str, party: str) -> Iterator[Held[Stored]]:
        """Every message of a party at a place: they share the first half of their ids."""
        half = message_id(place, party)[:MESSAGE_ID_HALF]
        return (held_as(Stored, item) for item in self._pages(f"MSG#{half}", half, f"{half}~"))

    def threaded(self, conversation_id: str) -> Iterator[Held[Stored]]:
        """A conversation's messages, as they are stored. The index may lag by a moment."""
        found = (self._table.get(*key) for key in self._table.thread(conversation_id))
        return (held_as(Stored, item) for item in found if item)

    def conversations_of(self, contact_id: str) -> Iterator[Held[Conversation]]:
        """All of a contact, oldest first."""
        found = self._pages(f"CONTACT#{contact_id}", "CONV#", "CONV#~")
        return (held_as(Conversation, item) for item in found)

    def forget_conversation(self, held: Held[Conversation]) -> None:
        """Remove it, and what names it."""
        ticket = held.noun.ticket
        named = ticket and self._get(TicketHome, f"TICKET#{ticket.helpdesk}#{ticket.id}", "CONV")
        self.commit(gone=[found for found in (self.home(held.noun.id), named, held) if found])

    def forget_feed(self, inbox: str, address: Address) -> int:
        """Remove what a web chat visitor could read; returns how many lines that were."""
        items = list(self._pages(feed_key(inbox, address), "0", "~"))
        for item in items:
            self._table.write(Write(item=item, delete=True))
        return sum(item.sk != _AGENT for item in items)

    def forget_sending(self, inbox: str, address: Address) -> None:
        """Remove the windows of an address, and what waits for the next one."""
        held = self.sending(inbox, address)
        if held.version:
            self.commit(gone=[held])

    def forget_files(self, stored: Stored) -> int:
        """Remove a message's bytes, and what its providers' ids lead to; returns how many files."""
        message = stored.message
        uploads = (a.source for a in message.attachments if (a.source or "").startswith(_UPLOADS))
        raws = (raw.key for raw in (message.raw, message.html) if raw)
        keys = {key for key in (*(a.key for a in message.attachments), *uploads, *raws) if key}
        for key in sorted(keys):
            self._bucket.delete(key)
        names = [digest(message.inbox, n) for n in (message.external_id, *stored.provider_ids)]
        found = [self._get(Reference, f"REF#{name}", "CONV") for name in names]
        sent = [self._get(Sent, f"SENT#{name}", "MESSAGE") for name in names]
        part = message.part and self.collected(message.inbox, message.address, message.part.of)
        for held in (*found, *sent, part if part and part.version else None):
            if held:
                self.commit(gone=[held])
        return len(keys)

    # Keys

    def _pages(self, pk: str, low: str, high: str) -> Iterator[Item]:
        """Every item of a key between two others, in order, however many they are."""
        while items := self._table.query(pk, low, high):
            yield from items
            low = items[-1].sk + "\0"

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
            expires_at=self._expires_at(type(noun)),
        )

    def _expires_at(self, kind: type[Noun]) -> int | None:
        kept = KEPT.get(kind, self._retention)
        if kept is None:
            return None
        return int((self._clock() + min(kept, self._retention)).timestamp())
