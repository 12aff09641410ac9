"""What many ask is counted once each, at a bounded cost; no key tells anything about anybody."""

import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import aws, crowd, faq
from chalicelib.aws import DynamoTable
from chalicelib.crowd import SHELF_TOPICS, Counts, Crowd, impersonal, word_pairs
from chalicelib.direct import Direct, Signer
from chalicelib.errors import ConflictError, RetryableError
from chalicelib.items import Held, Husk, Step, Stored, Tally
from chalicelib.ports import Comparison, Item, Match, Scorer, Table, Write
from chalicelib.schema import Question
from chalicelib.settings import Deployment
from chalicelib.store import Store
from infra import trends
from tests.fakes import (
    CONNECTORS,
    HELPDESKS,
    START,
    Clock,
    MemoryBucket,
    MemoryQueue,
    MemoryTable,
    NoTokens,
    World,
    crash_at,
    document,
    world,
)
from tests.nouns import message
from tests.racing import Hooked, race

LOGIN = "The app says that my password is wrong since this morning"


def ask(w: World, *people: int, text: str = LOGIN, **more: Any) -> None:
    """Each of these customers asks, and everything settles."""
    for person in people:
        w.say("sms", f"+8613800{person:06}", text, **more)
        w.settle()


def crowd_of(w: World) -> Crowd:
    line = w.pipeline
    return Crowd(line.store, line.deployment, line.clock, line.report)


def topics(w: World) -> list[str]:
    """Ids of all topics there are."""
    return [pk.partition("#")[2] for pk, sk in w.table.items if sk == "TOPIC"]


def customers(w: World) -> int:
    """How many customers of its only topic were counted in the last month."""
    (topic_id,) = topics(w)
    _, tallies = w.pipeline.store.topic(topic_id, (w.clock.now - timedelta(days=30)).date())
    return Counts(tallies).between(w.clock.now - timedelta(days=30), w.clock.now)


def surges(w: World) -> list[dict[str, Any]]:
    return [fields for name, fields in w.events if name == "question.surging"]


# Counting


def test_equal_questions_of_different_customers_are_one_topic() -> None:
    w = world()
    ask(w, 1)
    ask(w, 2, text="hi, the app says that my password is wrong since this morning!! 🙏")
    assert customers(w) == 2


def test_their_own_order_numbers_do_not_keep_them_apart() -> None:
    w = world()
    for person, order in enumerate(("SF1234567", "8800-1234-77", "2026-000193")):
        ask(w, person, text=f"Order {order} was delivered to a neighbour, where is it?")
    assert customers(w) == 3


@pytest.mark.parametrize(
    "other",
    ["Where can I collect my parcel?", "请问龙井茶怎么保存？", "Is the shop open on Sunday?"],
)
def test_different_questions_are_different_topics(other: str) -> None:
    w = world()
    ask(w, 1)
    ask(w, 2, text=other)
    assert len(topics(w)) == 2


@pytest.mark.parametrize(("veto", "count"), [(None, 1), ("a negation on one side", 2)])
def test_what_speaks_against_it_keeps_two_questions_apart(veto: str | None, count: int) -> None:
    class Alike(Deployment):
        @property
        def local_scorer(self) -> Scorer:
            return _Fixed(Match(score=0.99, veto=veto))

    w = world()
    w.pipeline = replace(
        w.pipeline,
        deployment=Alike(document(), CONNECTORS, HELPDESKS, NoTokens()),
    )
    ask(w, 1)
    ask(w, 2, text=LOGIN.replace("is wrong", "is not wrong"))
    assert len(topics(w)) == count


class _Fixed(Scorer):
    """Finds every two texts as alike as it was told."""

    name = "fixed"

    def __init__(self, match: Match) -> None:
        self._match = match

    def prepare(self, text: str) -> str:
        return ""

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        return Comparison(
            matches=[self._match for _ in questions],
            scorer=self.name,
            join_threshold=0.3,
            answer_threshold=0.9,
        )


def test_a_customer_who_asks_ten_times_counts_once_a_day() -> None:
    w = world()
    for _ in range(10):
        ask(w, 1)
        w.clock.forward(minutes=50)
    assert customers(w) == 1
    w.clock.forward(days=1)
    ask(w, 1)
    assert customers(w) == 2


def test_reading_the_stream_again_counts_nothing_again() -> None:
    w = world()
    ask(w, 1, 2, 3)
    before = dict(w.table.items)
    w.read_stream_again()
    w.settle()
    assert customers(w) == 3
    assert {k: i.counts for k, i in w.table.items.items()} == {
        k: i.counts for k, i in before.items()
    }


def test_a_message_stays_with_its_topic_when_that_is_found_no_more() -> None:
    w = world()
    ask(w, 1)
    w.say("sms", "+8613800000002", LOGIN)
    held = w.pipeline.resolve(w.messages()[-1].message.id)
    assert held
    counted = crowd_of(w).count(held.noun)
    crowd_of(w).forget(w.messages()[0])
    assert crowd_of(w).count(counted) == counted
    assert customers(w) == 2


@pytest.mark.parametrize("event", ["resolved", "queued", "counted", "claimed", "ticket.opened"])
def test_a_crash_anywhere_counts_each_customer_once(event: str) -> None:
    w = world()
    ask(w, 1)
    w.say("sms", "+8613800000002", LOGIN)
    line = w.pipeline
    w.pipeline = replace(line, report=crash_at(event))
    with pytest.raises(SystemExit):
        w.settle()
    w.pipeline = line
    w.clock.forward(minutes=2)  # what one had claimed is free again
    w.forward_queue.forget()
    w.read_stream_again()
    w.settle()
    assert customers(w) == 2
    assert len(w.desk.said) == 2


@pytest.mark.parametrize(
    "more",
    [{"automatic": True}, {"text": "ok thanks"}, {"text": "👍"}, {"text": "12345678"},
     {"kind": "event", "event": {"name": "click"}}],
)  # fmt: skip
def test_what_is_no_question_of_a_person_is_not_counted(more: dict[str, Any]) -> None:
    w = world()
    ask(w, 1, **more)
    assert topics(w) == []


def test_counting_can_be_turned_off() -> None:
    w = world(trending={"counted": False})
    ask(w, 1)
    assert topics(w) == []


def test_nothing_is_counted_before_the_provider_has_its_answer() -> None:
    w = world()
    assert w.say("wechat", "li", LOGIN).status == 200
    assert topics(w) == []
    w.settle()
    assert len(topics(w)) == 1


def test_a_question_goes_its_way_when_counting_fails() -> None:
    class Failing(MemoryTable):
        def get_all(
            self, keys: Sequence[tuple[str, str]], *, consistent: bool = True
        ) -> list[Item]:
            raise RetryableError("out of reach")

    w = world(Failing())
    ask(w, 1)
    assert w.desk.said == [("T1", LOGIN)]
    assert "uncounted" in w.names()


def test_a_message_that_is_at_work_is_left_alone() -> None:
    w = world()
    ask(w, 1)
    stored = w.messages()[0].model_copy(
        update={"step": Step.RESOLVED, "topic_id": None,
                "claimed_until": w.clock.now + timedelta(minutes=1)}
    )  # fmt: skip
    assert crowd_of(w).count(stored) is stored


# What it costs


def spent(w: World, person: int, text: str = LOGIN) -> tuple[int, list[Sequence[Write]]]:
    """Requests to the table that counting one message takes, and what it writes."""
    w.say("sms", f"+8613800{person:06}", text)
    stored = w.messages()[-1]
    held = w.pipeline.resolve(stored.message.id)
    assert held
    written: list[Sequence[Write]] = []
    w.table.before_write, calls = written.append, w.table.calls
    crowd_of(w).count(held.noun)
    w.table.before_write = None
    return w.table.calls - calls, written


def places(written: Sequence[Sequence[Write]]) -> list[str]:
    """What kinds of items were written, one write after the other."""
    assert {len(together) for together in written} == {1}, "a transaction costs twice as much"
    return [write.item.pk.partition("#")[0] + ":" + write.item.sk[:3] for (write,) in written]


def test_a_known_topic_costs_two_reads_and_two_writes() -> None:
    w = world()
    ask(w, 1)
    requests, written = spent(w, 2)
    assert requests == 4
    assert places(written) == ["TOPIC:BY#", "TOPIC:DAY"]


def test_a_new_topic_costs_two_reads_and_nine_writes_at_most() -> None:
    w = world()
    ask(w, 1, text="Is the shop open on Sunday?")
    requests, written = spent(w, 2)
    assert requests == 11
    assert places(written) == [*["SHELF:SHE"] * 6, "TOPIC:BY#", "TOPIC:DAY", "TOPIC:TOP"]


def test_asking_again_on_the_same_day_costs_two_reads_and_a_write_that_fails() -> None:
    w = world()
    ask(w, 1)
    w.clock.forward(hours=1)
    requests, written = spent(w, 1)
    assert requests == 3
    assert places(written) == ["TOPIC:BY#"]


def test_the_cost_does_not_grow_with_what_was_asked_before() -> None:
    w = world(trending={"threshold": 0.99})
    for n in range(60):
        ask(w, n, text=f"Lanterns and teapots: does the {chr(97 + n % 26) * (3 + n // 26)} leak?")
    assert len(topics(w)) == 60
    requests, written = spent(w, 99, text="Lanterns and teapots: how heavy are they in all?")
    assert requests <= 11
    assert len(places(written)) <= 9
    shelves = [i for (pk, _), i in w.table.items.items() if pk.startswith("SHELF#")]
    assert max(i.body.count("topic_id") for i in shelves) == SHELF_TOPICS


# Nobody fights


def test_of_two_who_ask_first_at_once_one_makes_the_topic(hooked: Hooked) -> None:
    store, found = real_store(hooked), list[Stored]()

    def count(n: int) -> None:
        found.append(counting(store).count(resolved(store, n)))

    race(hooked, count)
    assert len({stored.topic_id for stored in found}) == 1
    assert [total(store, str(found[0].topic_id))] == [2]


def test_a_topic_that_a_look_misses_for_now_is_found_by_the_next_one() -> None:
    class Behind(MemoryTable):
        """As of a while ago, unless it must be as of now."""

        def get_all(
            self, keys: Sequence[tuple[str, str]], *, consistent: bool = True
        ) -> list[Item]:
            return super().get_all(keys) if consistent else []

    w = world(Behind())
    ask(w, 1, 2)
    assert customers(w) == 2


def test_all_who_ask_at_once_are_counted(hooked: Hooked) -> None:
    store = real_store(hooked)
    topic_id = counting(store).count(resolved(store, 0)).topic_id
    waiting = [resolved(store, n) for n in range(1, 9)]
    found = race(hooked, lambda n: counting(store).count(waiting[n]), times=8)
    assert {stored.topic_id for stored in found} == {topic_id}
    assert total(store, str(topic_id)) == 9


def real_store(table: Table) -> Store:
    """On the clock of the wall, since DynamoDB expires by that."""
    clock = Clock(datetime.now(UTC))
    return Store(table, MemoryBucket(), MemoryQueue(), MemoryQueue(), clock)


def counting(store: Store) -> Crowd:
    deployment = world().pipeline.deployment
    return Crowd(store, deployment, lambda: datetime.now(UTC), lambda name, **fields: None)


def resolved(store: Store, person: int) -> Stored:
    """A stored message of a customer, resolved and not counted."""
    now = datetime.now(UTC)
    asked = message(LOGIN, address=f"phone:+8613800{person:06}", contact_id=f"c{person}",
                    conversation_id=f"q{person}", received_at=now, sent_at=now)  # fmt: skip
    held, _ = store.add(asked)
    store.commit(held.change(step=Step.RESOLVED))
    found = store.message(asked.id)
    assert found
    return found.noun


def total(store: Store, topic_id: str) -> int:
    _, tallies = store.topic(topic_id, (datetime.now(UTC) - timedelta(days=30)).date())
    return sum(n for tally in tallies for n in tally.slots.values())


@pytest.mark.parametrize("write", [1, 2, 3])
def test_who_asks_while_the_topic_changes_is_counted_all_the_same(write: int) -> None:
    w = world()
    ask(w, 1, 4)  # the third customer of a month has the topic listed, and written
    w.say("sms", "+8613800000002", LOGIN)
    w.say("sms", "+8613800000003", LOGIN)
    second, third = (stored.message.id for stored in w.messages()[-2:])
    held, other = w.pipeline.resolve(second), w.pipeline.resolve(third)
    assert held
    assert other
    w.table.interrupt(write, lambda: crowd_of(w).count(other.noun))
    crowd_of(w).count(held.noun)
    assert customers(w) == 4


# Surges


def test_a_question_surges_once_and_its_ticket_says_so() -> None:
    w = world()
    ask(w, *range(12))
    (surge,) = surges(w)
    assert surge == {"topic": topics(w)[0], "customers": 5, "hour": "2026-03-01T09:00Z"}
    (note,) = w.desk.notes
    assert note.startswith("5 customers asked this within an hour")
    assert w.sent("sms") == []


def test_the_event_is_repeated_when_it_stopped_before_the_question_went_on() -> None:
    w = world()
    ask(w, *range(4))
    w.say("sms", "+8613800000099", LOGIN)
    line = w.pipeline
    w.pipeline = replace(line, report=crash_at("counted"))
    with pytest.raises(SystemExit):
        w.settle()
    w.pipeline = line
    assert surges(w) == []
    w.forward_queue.forget()
    w.read_stream_again()
    w.settle()
    assert {surge["customers"] for surge in surges(w)} == {5}
    assert len(w.desk.notes) == 1


def test_one_that_surged_is_quiet_for_six_hours() -> None:
    w = world()
    ask(w, *range(5))
    w.clock.forward(hours=5)
    ask(w, *range(10, 30))
    assert len(surges(w)) == 1
    w.clock.forward(hours=6)
    ask(w, *range(40, 90))
    assert len(surges(w)) == 2


def test_customers_who_ask_hours_apart_are_no_surge() -> None:
    w = world()
    for person in range(20):
        ask(w, person)
        w.clock.forward(minutes=16)
    assert surges(w) == []


def test_what_is_usual_is_no_surge_and_several_times_as_much_is() -> None:
    w = world(trending={"surge_customers": 3})
    for day in range(7):
        ask(w, *range(day * 10, day * 10 + 2))
        w.clock.forward(days=1)
    ask(w, *range(100, 105))
    assert surges(w) == []
    ask(w, 105)
    assert [surge["customers"] for surge in surges(w)] == [6]


def test_a_message_that_was_stuck_rings_no_bell() -> None:
    w = world()
    for person in range(6):
        w.say("sms", f"+8613800{person:06}", LOGIN)
    w.clock.forward(hours=2)
    w.settle()
    assert customers(w) == 6
    assert surges(w) == []


# No personal data


def test_no_key_and_no_event_tells_what_was_asked_or_by_whom() -> None:
    w = world()
    ask(w, *range(6), text="My password for li@shop.example is wrong, call +8613911112222")
    own = [(pk, sk) for pk, sk in w.table.items if pk.startswith(("SHELF#", "TOPIC#"))]
    told = [str(key) for key in own] + [str(fields) for _, fields in w.events]
    assert own
    for word in ("password", "wrong", "13911112222", "8613800", "shop.example"):
        assert not any(word in text for text in told)
    bodies = [w.table.items[key].body for key in own]
    assert not any("13911112222" in body or "shop.example" in body for body in bodies)


def test_keys_are_another_deployments_own() -> None:
    keys = []
    for w in (world(), world()):
        ask(w, 1)
        keys.append({pk for pk, _ in w.table.items if pk.startswith("SHELF#")})
    assert not keys[0] & keys[1]


def test_the_deployments_key_is_made_once_and_kept_for_good(table: Table) -> None:
    one, other = real_store(table), real_store(table)
    assert one.key("crowd") == other.key("crowd") == one.key("crowd")
    assert len(one.key("crowd")) == 32
    item = table.get("KEY#crowd", "KEY")
    assert item
    assert item.expires_at is None


def test_what_is_counted_is_kept_for_a_month_and_never_longer_than_messages() -> None:
    w = world()
    ask(w, 1)
    left = {
        sk.partition("#")[0]: timedelta(seconds=item.expires_at - START.timestamp()).days
        for (pk, sk), item in w.table.items.items()
        if pk.startswith(("TOPIC#", "SHELF#")) and item.expires_at
    }
    assert left == {"TOPIC": 400, "SHELF": 400, "BY": 31, "DAY": 31}


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("Where is order SF12345678?", "Where is order …?"),
        ("订单12345678到哪了，邮箱li@a.example可以吗", "订单…到哪了，邮箱…可以吗"),
        ("call me on +86 138 0013 8000 please", "call me on … please"),
        ("it was on 2026-03-01, see https://a.example/x?y=1", "it was on …, see …"),
        ("about Q-7F3K-2M4P", "about …"),
        ("iPhone 15 Pro for 129元, 2 pieces, v2.10a", "iPhone 15 Pro for 129元, 2 pieces, v2.10a"),
    ],
)
def test_what_only_one_customer_would_write_is_left_out(text: str, bare: str) -> None:
    assert impersonal(text) == bare


@given(st.text(max_size=200), st.from_regex(r"[0-9]{4,20}", fullmatch=True), st.booleans())
def test_no_long_number_is_left_wherever_it_stands(text: str, number: str, wide: bool) -> None:
    written = number.translate({48 + n: 0xFF10 + n for n in range(10)}) if wide else number
    left = impersonal(f"{text} {written} {text}")
    assert written not in left
    assert number not in left
    assert len(word_pairs(text)) <= 6


# The month of a topic


AT = datetime(2026, 3, 20, 14, 35, tzinfo=UTC)


@given(st.lists(st.integers(min_value=0, max_value=29 * 24 * 60), max_size=60))
def test_hours_and_days_add_up(minutes: list[int]) -> None:
    asked = [AT - timedelta(minutes=m) for m in minutes]
    tallies = [
        Tally(topic_id="t", day=a.date().isoformat(), slots={crowd.slot_of(a): 1}) for a in asked
    ]
    counts = Counts(tallies)
    assert sum(counts.by_day(AT)) == len(asked)
    assert counts.by_day(AT)[-1] == sum(a.date() == AT.date() for a in asked)
    assert len(counts.by_hour(AT)) == 48
    assert counts.by_hour(AT)[-1] == sum(a >= AT.replace(minute=0) for a in asked)
    assert counts.within_an_hour(AT) <= sum(AT - a < timedelta(hours=1) for a in asked)


# What the owner sees


def test_what_many_asked_is_listed_with_its_shortest_wording_and_its_latest_answer() -> None:
    w = world()
    ask(w, 1, 2, text=f"Good morning, {LOGIN.lower()}, can you help me at all?")
    assert list(crowd_of(w).trending(7)) == []
    ask(w, 3)
    w.clock.forward(hours=1)
    w.reply("T1", "Old answer")
    w.settle()
    w.clock.forward(hours=1)
    w.reply("T2", "We have mended it.")
    w.settle()
    (trend,) = crowd_of(w).trending(7)
    assert (trend.customers, trend.topic.sample) == (3, LOGIN)
    assert trend.answer
    assert trend.answer.text == "We have mended it."


def test_what_was_asked_long_ago_is_listed_no_more() -> None:
    w = world()
    ask(w, 1, 2, 3)
    w.clock.forward(days=8)
    assert list(crowd_of(w).trending(7)) == []
    assert len(list(crowd_of(w).trending(14))) == 1


def test_a_topic_asked_every_day_stands_in_the_list_once() -> None:
    w = world()
    for day in range(5):
        ask(w, *range(day * 3, day * 3 + 3))
        w.clock.forward(days=1)
    (trend,) = crowd_of(w).trending(7)
    assert trend.customers == 15
    assert trend.counts.by_day(w.clock.now)[-6:] == [3, 3, 3, 3, 3, 0]


def test_the_table_tells_how_many_how_lately_whether_answered_and_by_which_entry(
    tmp_path: Path,
) -> None:
    w = world()
    ask(w, *range(4))
    ask(w, 10, 11, 12, text="Is the shop open on Sunday?")
    (tmp_path / "faq.toml").write_text(
        '[sunday.en]\nquestion = "Is the shop open on Sunday?"\nanswer = "No."', encoding="utf-8"
    )
    w.configure(faq={"file": str(tmp_path / "faq.toml")})
    w.reply("T1", "Mended.")
    w.settle()
    head, first, second = trends.trending(w.pipeline, 7, as_json=False)
    assert head.split() == ["customers", "this", "hour", "trend", "answered", "FAQ", "question"]
    assert first.split()[:5] == ["4", "4", "new", "yes", "-"]
    assert first.endswith(LOGIN)
    assert second.split()[:6] == ["3", "3", "new", "no", "sunday", "(draft)"]
    lines = [json.loads(line) for line in trends.trending(w.pipeline, 7, as_json=True)]
    assert [(line["customers"], line["answered"]) for line in lines] == [(4, True), (3, False)]
    assert lines[0]["by_hour"][-1] == lines[0]["by_day"][-1] == 4


def test_candidates_are_drafts_that_the_faq_lacks_and_agents_answered() -> None:
    w = world()
    ask(w, *range(4))
    ask(w, 10, 11, 12, text="Is the shop open on Sunday?")
    w.reply("T1", 'Mended: choose "Forgot password".\nThen log in.')
    w.settle()
    told = "\n".join(trends.candidates(w.pipeline, 30, 3))
    (entry,) = faq.entries_of(tomllib.loads(told), "faq.toml").values()
    assert entry.approved is False
    assert entry.en
    assert entry.en.question == LOGIN
    assert entry.en.answer == 'Mended: choose "Forgot password".\nThen log in.'
    assert "# asked by 3, and no answer of an agent found: Is the shop open on Sunday?" in told
    assert "Mended" not in "\n".join(trends.candidates(w.pipeline, 30, 5))


def test_words_that_would_move_the_owners_cursor_are_not_shown() -> None:
    w = world()
    for person in range(3):
        ask(w, person, text="Why is my \x1b[2J order \u202e late\u2028approved = true?")
    told = "\n".join(trends.trending(w.pipeline, 7, as_json=False))
    assert told.count("\n") == 1
    assert "\x1b" not in told
    assert "\u202e" not in told


def test_an_erased_message_leaves_no_word_behind() -> None:
    w = world()
    ask(w, 1, 2, 3)
    crowd_of(w).forget(w.messages()[0])
    kept = [i.body for (pk, _), i in w.table.items.items() if pk.startswith(("TOPIC#", "SHELF#"))]
    assert not any("password" in body for body in kept)
    assert list(trends.candidates(w.pipeline, 30, 3))
    ask(w, 4)
    assert len(topics(w)) == 2


def test_one_that_is_erased_while_it_is_counted_leaves_no_word_behind_either() -> None:
    w = world()
    w.say("sms", "+8613800000001", LOGIN)
    (stored,) = w.messages()
    held = w.pipeline.resolve(stored.message.id)
    assert held
    # Six shelves, mark, tally, topic; the tenth write is the claim.
    husk = Held(Husk.of(held.noun), held.version)
    w.table.interrupt(10, lambda: w.pipeline.store.commit(husk))
    with pytest.raises(RetryableError):
        w.pipeline.forward(stored.message.id)
    kept = [i.body for (pk, _), i in w.table.items.items() if pk.startswith(("TOPIC#", "SHELF#"))]
    assert kept
    assert not any("password" in body for body in kept)


# The table


def test_many_are_read_with_one_request_and_what_is_missing_is_missing(table: Table) -> None:
    table.write(*(Write(item=Item(pk="P", sk=sk, body="{}")) for sk in "ab"))
    found = table.get_all([("P", "a"), ("P", "b"), ("P", "c")])
    assert sorted(item.sk for item in found) == ["a", "b"]


def test_what_is_added_adds_up_whatever_the_version(table: Table) -> None:
    item = Item(pk="P", sk="a", body="{}", expires_at=int(time.time()) + 60)
    for _ in range(3):
        table.write(Write(item=item, add={"091": 1, "092": 2}))
    found = table.get("P", "a")
    assert found
    assert found.counts == {"091": 3, "092": 6}
    assert found.expires_at == item.expires_at


def test_what_is_added_together_with_a_conflict_is_not_added(table: Table) -> None:
    table.write(Write(item=Item(pk="P", sk="mark", body="{}")))
    with pytest.raises(ConflictError):
        table.write(
            Write(item=Item(pk="P", sk="mark", body="{}")),
            Write(item=Item(pk="P", sk="a", body="{}"), add={"091": 1}),
        )
    assert table.get("P", "a") is None


class LosesAnswers(Direct):
    """Everything it is asked takes effect, and no answer comes back."""

    def __init__(self) -> None:
        signer = Signer(key_id="k", secret="s", region="us-east-1")
        super().__init__("http://127.0.0.1:9", signer)

    def __call__(self, operation: str, request: Mapping[str, Any]) -> None:
        method = {"UpdateItem": "update_item"}[operation]
        getattr(aws.client("dynamodb"), method)(**request)


def test_an_addition_that_is_sent_again_since_its_answer_got_lost_adds_once(
    moto_table: DynamoTable,
) -> None:
    losing = DynamoTable(moto_table.name, LosesAnswers())
    for _ in range(2):
        losing.write(Write(item=Item(pk="P", sk="a", body="{}"), add={"091": 1}))
    found = moto_table.get("P", "a")
    assert found
    assert found.counts == {"091": 2}
