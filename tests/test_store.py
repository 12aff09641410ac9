"""The store on the fake table and on DynamoDB: once, in order, one winner, nothing lost."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.errors import ConflictError
from chalicelib.items import (
    STUCK_AFTER,
    Held,
    Home,
    Husk,
    Quarantined,
    Reference,
    Step,
    Stored,
    TicketHome,
)
from chalicelib.ports import Item, Table
from chalicelib.schema import Attachment, Conversation, Raw, Ticket
from chalicelib.store import INLINE_RAW_BYTES, Store
from tests.fakes import START, Clock, MemoryBucket, MemoryQueue, MemoryTable
from tests.nouns import conversation, message
from tests.racing import Hooked, race

NOTHING = MemoryQueue()
#: The tests' clock stands still; DynamoDB's does not, and would find everything expired one day.
FOR_EVER_DAYS = 36_500


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def store(table: Table, bucket: MemoryBucket, clock: Clock) -> Store:
    return over(table, clock, bucket)


def over(table: Table, clock: Clock, bucket: MemoryBucket | None = None) -> Store:
    return Store(table, bucket or MemoryBucket(), NOTHING, NOTHING, clock, FOR_EVER_DAYS)


def again(store: Store, held: Held[Any]) -> Held[Stored]:
    found = store.message(held.noun.message.id)
    assert found is not None
    return found


# Messages


def test_a_redelivery_returns_what_is_stored(store: Store) -> None:
    first, new = store.add(message("first"))
    second, new_again = store.add(message("the same id, other words"))
    assert (new, new_again) == (True, False)
    assert first == second == again(store, first)
    assert first.noun.message.text == "first"


def test_a_message_that_was_never_stored_is_not_there(store: Store) -> None:
    assert store.message("m1") is None


def test_of_two_deliveries_at_once_one_is_new(hooked: Hooked, clock: Clock) -> None:
    stores = [over(hooked, clock) for _ in range(3)]
    added = race(hooked, lambda n: stores[n].add(message(f"by {n}")), times=3)
    assert sorted(new for _, new in added) == [False, False, True]
    assert len({held.noun.message.text for held, _ in added}) == 1


def test_of_two_writers_over_one_version_one_conflicts(hooked: Hooked, clock: Clock) -> None:
    store = over(hooked, clock)
    held, _ = store.add(message())

    def write(n: int) -> bool:
        try:
            store.commit(held.change(failure=str(n)))
        except ConflictError:
            return False
        return True

    assert sorted(race(hooked, write)) == [False, True]
    assert again(store, held).version == 2


def test_a_commit_of_which_one_part_conflicts_writes_nothing(store: Store) -> None:
    held, _ = store.add(message())
    store.commit(held.change(step=Step.DONE))
    with pytest.raises(ConflictError):
        store.commit(Held(conversation()), held.change(step=Step.FAILED))
    assert not store.history("c1").conversations
    assert again(store, held).noun.step is Step.DONE


# Claims


def test_a_claimed_message_is_nobody_elses(store: Store, clock: Clock) -> None:
    held, _ = store.add(message())
    claimed = store.claim(held, 60)
    assert claimed is not None
    clock.forward(seconds=59)
    assert store.claim(again(store, held), 60) is None


def test_of_two_claims_at_once_one_wins(hooked: Hooked, clock: Clock) -> None:
    store = over(hooked, clock)
    held, _ = store.add(message())
    claims = race(hooked, lambda _: store.claim(held, 60))
    assert sum(claim is None for claim in claims) == 1


def test_an_expired_claim_can_be_taken_and_its_first_owner_cannot_finish(
    store: Store, clock: Clock
) -> None:
    held, _ = store.add(message())
    lost = store.claim(held, 60)
    clock.forward(seconds=60)
    taken = store.claim(again(store, held), 60)
    assert lost is not None
    assert taken is not None
    with pytest.raises(ConflictError):
        store.commit(lost.change(step=Step.DONE))
    store.commit(taken.change(step=Step.DONE))


# What is due


@pytest.mark.parametrize("step", [Step.DONE, Step.FAILED])
def test_a_message_is_stuck_after_a_while_until_it_is_finished(
    store: Store, clock: Clock, step: Step
) -> None:
    held, _ = store.add(message())
    assert store.unfinished() == {held.noun.message.id: clock.now + STUCK_AFTER}
    store.commit(held.change(step=step))
    assert store.unfinished() == {}


def test_a_stuck_message_comes_back_ever_more_rarely(store: Store, clock: Clock) -> None:
    held, _ = store.add(message())
    waits = []
    for _ in range(10):
        assert store.postpone(again(store, held))
        due_at = again(store, held).noun.due_at
        assert due_at is not None
        waits.append((due_at - clock.now) / STUCK_AFTER)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]
    assert list(store.unfinished().values()) == [clock.now + 128 * STUCK_AFTER]


def test_a_message_that_moved_on_meanwhile_is_not_postponed(store: Store) -> None:
    held, _ = store.add(message())
    store.commit(held.change(step=Step.DONE))
    assert not store.postpone(held)


def test_a_first_reply_is_overdue_from_its_time_on(store: Store, clock: Clock) -> None:
    store.commit(Held(conversation(first_reply_due_at=START + timedelta(minutes=15))))
    clock.forward(minutes=14)
    assert store.overdue(clock.now) == []
    clock.forward(minutes=1)
    [late] = store.overdue(clock.now)
    store.commit(late.change(first_reply_due_at=None))
    assert store.overdue(clock.now) == []


# Conversations


def homed(store: Store, **more: Any) -> str:
    """A conversation in its contact's, and where it lies."""
    noun = conversation(**more)
    home = Home(conversation_id=noun.id, contact_id=noun.contact_id, asked_at=noun.asked_at)
    store.commit(Held(noun), Held(home))
    return noun.id


def test_a_contacts_latest_conversations_come_first(store: Store) -> None:
    for day in range(23):
        homed(store, id=f"q{day}", asked_at=START + timedelta(days=day))
    homed(store, id="another's", contact_id="c2")
    found = [held.noun.id for held in store.history("c1").conversations]
    assert found[0] == "q22"
    assert found == [f"q{day}" for day in range(22, 22 - len(found), -1)]
    assert len(found) in (20, 21)


def test_a_conversations_messages_come_in_the_order_of_their_arrival(store: Store) -> None:
    for n in (2, 0, 1):
        late = START + timedelta(seconds=n)
        store.add(message(str(n), external_id=f"SM{n}", received_at=late, conversation_id="q1"))
    store.add(message("elsewhere", external_id="SM9", conversation_id="q2"))
    assert [m.text for m in store.thread("q1")] == ["0", "1", "2"]


def test_two_changes_of_a_conversation_at_once_both_hold(hooked: Hooked, clock: Clock) -> None:
    store = over(hooked, clock)
    name = homed(store)
    race(
        hooked,
        lambda _: store.amend(
            name, lambda c: c.model_copy(update={"asked_times": c.asked_times + 1})
        ),
    )
    held = store.conversation(name)
    assert held is not None
    assert held.noun.asked_times == 3


def began(store: Store) -> Conversation:
    """A conversation, and the message that began it; it has not moved, and so has no home."""
    first = message("Where is my parcel?", contact_id="c1")
    noun = conversation(id="q" + first.id[1:], asked_at=first.received_at)
    store.commit(Held(noun), Held(Stored(message=first)))
    return noun


def test_a_conversation_is_found_by_the_message_that_began_it(clock: Clock) -> None:
    table = MemoryTable()
    store = over(table, clock)
    noun = began(store)
    found = store.conversation(noun.id)
    assert found is not None
    assert found.noun == noun
    before = table.calls
    assert store.conversation(noun.id, message(contact_id="c1")) == found
    assert table.calls == before + 1


@pytest.mark.parametrize("first", ["is erased", "is gone", "is where it was"])
def test_one_that_moved_is_found_by_its_home(store: Store, first: str) -> None:
    noun = began(store)
    held = store.conversation(noun.id)
    stored = store.message("m" + noun.id[1:])
    assert held is not None
    assert stored is not None
    moved = noun.model_copy(update={"contact_id": "c2"})
    store.commit(Held(moved), Held(Home.of(moved)), gone=[held])
    if first == "is erased":
        store.commit(Held(Husk.of(stored.noun), stored.version))
    if first == "is gone":
        store.commit(gone=[stored])
    found = store.conversation(noun.id)
    assert found is not None
    assert found.noun == moved


def test_a_conversation_is_found_while_it_moves_to_another_contact(clock: Clock) -> None:
    table = MemoryTable()
    store = over(table, clock)
    name = homed(store)
    held, home = store.conversation(name), store.home(name)
    assert held is not None
    assert home is not None

    def move() -> None:
        moved = Held(held.noun.model_copy(update={"contact_id": "c2"}))
        store.commit(moved, home.change(contact_id="c2"), gone=[held])

    reading = over(_MovesBetweenReads(table, move), clock).conversation(name)
    assert reading is not None
    assert reading.noun.contact_id == "c2"


class _MovesBetweenReads(MemoryTable):
    """Runs an act after the first read."""

    def __init__(self, table: MemoryTable, act: Callable[[], None]) -> None:
        super().__init__()
        self.items = table.items
        self._act: Callable[[], None] | None = act

    def get(self, pk: str, sk: str) -> Item | None:
        found = super().get(pk, sk)
        if act := self._act:
            self._act = None
            act()
        return found


def test_changing_a_conversation_that_is_gone_changes_nothing(store: Store) -> None:
    assert store.amend("q1", lambda c: c) is None


def test_of_two_pointers_the_first_one_holds(store: Store) -> None:
    ticket = Ticket(helpdesk="desk", id="T1")
    store.remember(TicketHome(ticket=ticket, conversation_id="q1"))
    store.remember(TicketHome(ticket=ticket, conversation_id="q2"))
    found = store.ticket_home(ticket)
    assert found is not None
    assert found.noun.conversation_id == "q1"
    assert store.ticket_home(Ticket(helpdesk="another", id="T1")) is None


def test_the_nearest_reference_that_is_known_names_the_conversation(store: Store) -> None:
    for name in ("1", "2", "7"):
        store.remember(
            Reference(inbox="email", external_id=f"<{name}>", conversation_id=f"q{name}")
        )
    asked = ["<unknown>", "<2>", "<1>"]
    assert store.conversation_of_reference("email", asked) == "q2"
    assert store.conversation_of_reference("another inbox", asked) is None
    assert store.conversation_of_reference("email", ["<a>", "<b>", "<c>", "<7>"]) == "q7"


# Feed


def test_a_feed_has_no_gaps_and_each_message_once(store: Store) -> None:
    lines = [message(str(n), external_id=str(n)) for n in range(4)]
    assert [store.feed_append(m) for m in (*lines, lines[1], lines[3])] == [1, 2, 3, 4, 2, 4]
    feed = store.feed_after("sms", lines[0].address, 0)
    assert [(e.seq, e.message.text) for e in feed] == [(1, "0"), (2, "1"), (3, "2"), (4, "3")]
    assert [e.seq for e in store.feed_after("sms", lines[0].address, 2)] == [3, 4]
    assert store.feed_after("sms", "phone:+4912345678", 0) == []


@pytest.mark.parametrize("same", [True, False])
def test_a_feed_appended_to_from_places_at_once_stays_whole(
    hooked: Hooked, clock: Clock, same: bool
) -> None:
    store = over(hooked, clock)
    race(hooked, lambda n: store.feed_append(message(external_id="0" if same else str(n))), times=3)
    feed = store.feed_after("sms", message().address, 0)
    assert [e.seq for e in feed] == ([1] if same else [1, 2, 3])
    assert len({e.message.id for e in feed}) == len(feed)


# Quarantine


def unread(body: bytes, **more: Any) -> Quarantined:
    fields: dict[str, Any] = {
        "id": "1",
        "inbox": "sms",
        "reason": "no form",
        "received_at": START,
        "method": "POST",
        "headers": {"x": ["1", "2"]},
        "query": [("a", "1"), ("a", "2")],
        "body": body,
    }
    return Quarantined(**(fields | more))


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"\xfe" * (INLINE_RAW_BYTES + 1)])
def test_an_unreadable_request_is_kept_whole_however_long(
    store: Store, bucket: MemoryBucket, body: bytes
) -> None:
    assert store.quarantine(unread(body))
    assert not store.quarantine(unread(body))
    kept = store.quarantined("1")
    assert kept is not None
    assert (kept.body or b"", kept.headers, kept.query) == (
        body,
        unread(body).headers,
        unread(body).query,
    )
    assert bool(bucket.objects) == (len(body) > INLINE_RAW_BYTES)


def test_what_was_read_after_all_leaves_quarantine(store: Store) -> None:
    store.quarantine(unread(b"b", id="2nd", received_at=START + timedelta(hours=1)))
    store.quarantine(unread(b"a", id="1st"))
    assert [q.id for q in store.all_quarantined()] == ["1st", "2nd"]
    store.release("1st")
    store.release("never there")
    assert [q.id for q in store.all_quarantined()] == ["2nd"]


# Bytes


def test_bytes_lie_in_the_bucket_and_come_back(store: Store, bucket: MemoryBucket) -> None:
    raw = Raw(media_type="message/rfc822", content=b"r" * (INLINE_RAW_BYTES + 1))
    sent = message(
        attachments=(Attachment(name="a.txt", media_type="text/plain", content=b"hello"),), raw=raw
    )
    held, _ = store.add(sent)
    kept = again(store, held).noun.message
    [attachment] = kept.attachments
    assert (attachment.size_bytes, attachment.content, attachment.url) == (5, None, None)
    loaded = store.load(attachment)
    assert loaded.content == b"hello"
    assert loaded.url is not None
    assert kept.raw is not None
    assert kept.raw.content is None
    assert bucket.objects[kept.raw.key or ""] == raw.content


def test_short_raw_bytes_stay_in_the_item(store: Store, bucket: MemoryBucket) -> None:
    held, _ = store.add(message(raw=Raw(media_type="text/xml", content=b"\xff<xml/>")))
    assert again(store, held).noun.message.raw == Raw(media_type="text/xml", content=b"\xff<xml/>")
    assert not bucket.objects


def test_offloading_again_puts_nothing_anew(store: Store, bucket: MemoryBucket) -> None:
    once = store.offload(message(attachments=(Attachment(content=b"x"),)))
    bucket.objects.clear()
    assert store.offload(once) == once
    assert not bucket.objects


# Size


def size_bytes(item: Item) -> int:
    """As DynamoDB counts: attribute names, texts in UTF-8, numbers two digits a byte and one."""
    texts = {"pk": item.pk, "sk": item.sk, "body": item.body, "w": "0" * 32, **item.index}
    numbers = {"v": item.version + 1, "expires_at": item.expires_at}
    size = sum(len(name) + len(text.encode()) for name, text in texts.items())
    return size + sum(len(name) + (len(str(n)) + 1) // 2 + 1 for name, n in numbers.items())


@pytest.mark.parametrize("text", ["x" * 450, "问" * 150])
def test_a_message_of_450_bytes_costs_one_write_unit(clock: Clock, text: str) -> None:
    table = MemoryTable()
    over(table, clock).add(message(text, external_id="SM" + "0" * 32, account="+14155550100"))
    [stored] = table.items.values()
    assert len(json.loads(stored.body)["message"]["text"].encode()) == 450
    assert size_bytes(replace(stored, version=0)) <= 1024
