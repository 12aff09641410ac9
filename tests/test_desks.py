"""A helpdesk's pace and its troubles, shared by all workers: nobody calls one that is let be."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib import desks
from chalicelib.errors import (
    ConfigurationError,
    GoneError,
    RejectedError,
    RetryableError,
)
from chalicelib.items import DeskState, Step
from chalicelib.ports import DeskCapabilities, Pace
from chalicelib.schema import Attachment, Ticket
from tests.fakes import FakeDesk, FakeSettings, World, crash_at, world
from tests.test_forward import QUESTION, forward_failing, waiting

DOWN = RetryableError("HTTP 503 from the desk")


@pytest.fixture
def w() -> World:
    return world()


def state(w: World) -> Any:
    return w.pipeline.store.desk_state("desk").noun


def can(w: World, **capabilities: Any) -> FakeDesk:
    """The desk, with other capabilities."""
    known: Any = {"as_customer": True, "once": "key", "webhooks": "signed"} | capabilities
    w.desk.capabilities = DeskCapabilities(**known)  # type: ignore[misc]  # one desk of a class
    return w.desk


def chatting(w: World, *texts: str) -> list[str]:
    """The same as `waiting`, some seconds apart."""
    found = []
    for text in texts:
        w.clock.forward(seconds=3)
        found += waiting(w, text)
    return found


def failing(w: World, name: str, times: int) -> None:
    """So many failures in a row."""
    w.desk.failures = [DOWN] * times
    for _ in range(times):
        forward_failing(w, name)


class Together(FakeDesk):
    """Its files are had by so many threads at once, or not at all; each takes two calls."""

    name = "together"
    capabilities = DeskCapabilities(
        as_customer=True, once="key", webhooks="signed", calls_per_minute=100
    )

    def __init__(self, w: World, threads: int, error: Exception | None = None) -> None:
        super().__init__(FakeSettings(), "together")
        self._w, self._threads, self._error = w, threads, error
        self._met = threading.Barrier(threads, timeout=10)

    def fetch(self, attachment: Attachment) -> bytes:
        self.calls += 1
        self._met.wait()
        self.calls += 1
        if self._error:
            raise self._error
        return b""

    def state(self) -> DeskState:
        """How it is doing when all of them are done."""
        line = self._w.pipeline
        watched = desks.Watched(self, line.store, line.clock, line.report)

        def fetch(_: int) -> None:
            with suppress(RetryableError):
                watched.fetch(Attachment(name="a", media_type="text/plain"))

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(fetch, range(self._threads)))
        return line.store.desk_state("together").noun


def test_each_of_several_threads_counts_its_own_calls(w: World) -> None:
    assert Together(w, threads=20).state().left == 100 - 20 * 2


def test_the_threads_of_a_container_write_one_after_the_other(w: World) -> None:
    writing, most = [0], [0]

    def watch(_: object) -> None:
        writing[0] += 1
        most[0] = max(most[0], writing[0])
        time.sleep(0)  # whoever else could write does so now
        writing[0] -= 1

    w.table.before_write = watch
    Together(w, threads=20).state()
    assert most == [1]


def test_calls_that_fail_together_are_one_trouble_and_make_its_rest_no_longer(w: World) -> None:
    found = Together(w, threads=12, error=DOWN).state()
    assert found.failures == desks.PATIENCE
    assert found.rests_until == w.clock.now + timedelta(seconds=30)
    assert w.names().count("helpdesk.resting") == 1


# Its rate limit


def test_a_desk_that_asks_for_time_is_left_alone_by_all_workers(w: World) -> None:
    first, other = waiting(w, QUESTION), waiting(w, "Where is my parcel?", inbox="email")
    w.desk.failures = [RetryableError("HTTP 429", retry_after_seconds=40)]
    forward_failing(w, first[0])
    with pytest.raises(RetryableError) as caught:
        w.pipeline.forward(other[0])
    assert (w.desk.tries, caught.value.retry_after_seconds) == (1, 40.0)
    w.clock.forward(seconds=41)
    w.pipeline.forward(other[0])
    w.pipeline.forward(first[0])
    assert len(w.desk.said) == 2


def test_a_desk_that_says_it_has_had_enough_is_asked_when_it_counts_anew(w: World) -> None:
    first, second = waiting(w, QUESTION, "thanks")
    act = w.desk._once

    def once(call: Any) -> Any:
        w.desk.pace = Pace(remaining=0, resets_in_seconds=25.0)
        return act(call)

    w.desk._once = once  # type: ignore[method-assign]
    w.pipeline.forward(first)
    with pytest.raises(RetryableError) as caught:
        w.pipeline.forward(second)
    assert caught.value.retry_after_seconds == 25.0
    assert w.desk.tries == 1
    w.clock.forward(seconds=26)
    w.pipeline.forward(second)
    assert w.desk.tries == 2


def test_a_minutes_calls_are_counted_where_the_desk_counts_none_aloud(w: World) -> None:
    names = waiting(w, QUESTION, "thanks", "hello?", "are you there?")
    desk, act = can(w, calls_per_minute=2), w.desk._once

    def once(call: Any) -> Any:
        desk.calls += 1
        return act(call)

    desk._once = once  # type: ignore[method-assign]
    w.pipeline.forward(names[0])
    w.pipeline.forward(names[1])
    with pytest.raises(RetryableError, match="this minute") as caught:
        w.pipeline.forward(names[2])
    assert caught.value.retry_after_seconds == 30.0
    w.clock.forward(seconds=30)
    w.pipeline.forward(names[2])
    forward_failing(w, names[3])


def test_a_desk_without_a_limit_and_in_health_costs_no_write(w: World) -> None:
    for name in waiting(w, QUESTION, "thanks"):
        w.pipeline.forward(name)
    assert w.pipeline.store.desk_state("desk").version == 0


def test_one_tickets_limit_holds_up_no_other_ticket(w: World) -> None:
    first, other = waiting(w, QUESTION), waiting(w, "Where is my parcel?", inbox="email")
    w.desk.failures = [RetryableError("HTTP 422", retry_after_seconds=60, of_one=True)]
    forward_failing(w, first[0])
    w.pipeline.forward(other[0])
    assert w.desk.said == [("T1", "Where is my parcel?")]


# Its troubles


def test_after_some_failures_in_a_row_nobody_calls_for_a_while(w: World) -> None:
    [name] = waiting(w, QUESTION)
    failing(w, name, desks.PATIENCE)
    assert "helpdesk.resting" in w.names()
    tries = w.desk.tries
    forward_failing(w, name)
    assert w.desk.tries == tries
    w.clock.forward(seconds=31)
    w.pipeline.forward(name)
    assert w.desk.said == [("T1", QUESTION)]
    assert "helpdesk.back" in w.names()
    assert not state(w).troubled


def test_each_further_failure_lets_it_be_for_twice_as_long_up_to_a_quarter_hour(w: World) -> None:
    [name] = waiting(w, QUESTION)
    failing(w, name, desks.PATIENCE)
    rests = []
    for _ in range(8):
        rests.append((state(w).rests_until - w.clock.now).total_seconds())
        w.clock.now = state(w).rests_until + timedelta(seconds=1)
        failing(w, name, 1)
    assert rests[:4] == [30, 60, 120, 240]
    assert max(rests) == 900
    assert w.names().count("helpdesk.resting") == 1


def test_when_its_rest_is_over_one_worker_tries_and_the_others_wait(w: World) -> None:
    first, other = waiting(w, QUESTION), waiting(w, "Where is my parcel?", inbox="email")
    failing(w, first[0], desks.PATIENCE)
    w.clock.forward(seconds=31)
    waited: list[bool] = []

    def meanwhile(call: Any) -> Any:
        w.desk._once = act  # type: ignore[method-assign]
        tries = w.desk.tries
        forward_failing(w, other[0])
        waited.append(w.desk.tries == tries)
        return act(call)

    act = w.desk._once
    w.desk._once = meanwhile  # type: ignore[method-assign]
    w.pipeline.forward(first[0])
    assert waited == [True]
    w.pipeline.forward(other[0])
    assert len(w.desk.said) == 2


def test_refused_credentials_stop_the_desk_say_so_and_lose_nothing(w: World) -> None:
    [name] = waiting(w, QUESTION)
    w.desk.failures = [ConfigurationError('helpdesk "desk" refuses our credentials: HTTP 401')]
    forward_failing(w, name, ConfigurationError)
    assert state(w).refused
    assert w.names().count("helpdesk.refused") == 1
    forward_failing(w, name)
    assert w.stored(name).step is Step.RESOLVED
    w.clock.now += desks.REFUSED_REST
    w.pipeline.forward(name)
    assert (w.desk.said, state(w).refused) == ([("T1", QUESTION)], False)


def test_what_it_refuses_for_good_says_nothing_of_its_health(w: World) -> None:
    for name in waiting(w, QUESTION, "thanks"):
        w.desk.failures = [RejectedError("HTTP 422")]
        w.pipeline.forward(name)
    assert not state(w).troubled


def test_the_desks_own_words_are_kept_with_the_message_and_out_of_the_log(w: World) -> None:
    [name] = waiting(w, QUESTION)
    w.desk.failures = [RejectedError("HTTP 422 from desk.example: 'Li, 5 Elm Road' is too long")]
    w.pipeline.forward(name)
    assert "Elm Road" in (w.stored(name).failure or "")
    [rejected] = [fields for event, fields in w.events if event == "forward.rejected"]
    assert rejected["why"] == "HTTP 422 from desk.example"


# A second try


def test_only_a_second_try_is_told_to_look_first(w: World) -> None:
    first, second = waiting(w, QUESTION, "thanks")
    w.pipeline.forward(first)
    w.desk.late_failures = [RetryableError("cut", uncertain=True)]
    forward_failing(w, second)
    w.pipeline.forward(second)
    assert w.desk.again == [False, False, True]


# Tickets that take nothing any more


def gone(w: World, ticket: str) -> None:
    """The desk takes nothing more on a ticket."""
    act = w.desk._once

    def once(call: Any) -> Any:
        if call.ticket == ticket and call.what != "open":
            raise GoneError("HTTP 404: ticket is closed")
        return act(call)

    w.desk._once = once  # type: ignore[method-assign]


def test_a_gone_ticket_is_followed_by_one_that_names_it(w: World) -> None:
    first, second, third = waiting(w, QUESTION, "thanks", "hello?")
    w.pipeline.forward(first)
    gone(w, "T1")
    w.pipeline.forward(second)
    w.pipeline.forward(third)
    assert w.desk.said == [("T1", QUESTION), ("T2", "thanks"), ("T2", "hello?")]
    assert ["T1" in note for note in w.desk.notes] == [True]


def test_a_reply_on_the_new_ticket_reaches_the_customer(w: World) -> None:
    first, second = waiting(w, QUESTION, "thanks")
    w.pipeline.forward(first)
    gone(w, "T1")
    w.pipeline.forward(second)
    w.reply("T2", "In a dry place.")
    w.settle()
    assert w.sent("sms") == ["In a dry place."]


def test_a_crash_between_the_new_ticket_and_its_note_opens_no_third_one(w: World) -> None:
    first, second = waiting(w, QUESTION, "thanks")
    w.pipeline.forward(first)
    gone(w, "T1")
    w.desk.late_failures = [RetryableError("cut", uncertain=True)]
    forward_failing(w, second)
    w.pipeline.forward(second)
    assert w.desk.said == [("T1", QUESTION), ("T2", "thanks")]


@pytest.mark.parametrize("event", ["ticket.opened", "forwarded"])
def test_stopped_once_the_new_ticket_is_the_conversations_nothing_is_said_twice(
    w: World, event: str
) -> None:
    first, second = waiting(w, QUESTION, "thanks")
    w.pipeline.forward(first)
    gone(w, "T1")
    running = w.pipeline
    w.pipeline = replace(running, report=crash_at(event))
    with pytest.raises(SystemExit):
        w.pipeline.forward(second)
    w.pipeline = running
    w.clock.forward(minutes=2)
    w.pipeline.forward(second)
    assert w.desk.said == [("T1", QUESTION), ("T2", "thanks")]
    assert len(w.desk.notes) == 1


def test_a_note_that_fails_on_the_new_ticket_says_the_message_there_no_second_time(
    w: World,
) -> None:
    first, again = chatting(w, QUESTION, "How do I keep my green tea fresh?")
    w.pipeline.forward(first)
    gone(w, "T1")
    w.desk.failures = [None, None, DOWN]  # opened, named the old one, and then
    forward_failing(w, again)
    w.clock.forward(minutes=2)
    w.pipeline.forward(again)
    assert w.desk.said == [("T1", QUESTION), ("T2", "How do I keep my green tea fresh?")]


# Busy chats


def test_lines_that_wait_go_in_one_update_where_updates_are_limited(w: World) -> None:
    names = chatting(w, QUESTION, "it is sencha", "bought in May", "hello?")
    can(w, updates=(30, 600))
    for name in names:
        w.pipeline.forward(name)
    assert w.desk.said == [("T1", QUESTION), ("T1", "it is sencha\nbought in May\nhello?")]
    assert {s.step for s in w.messages()} == {Step.DONE}
    assert w.stored(names[1]).joined == tuple(names[2:])


def test_a_crash_after_the_update_says_no_line_twice(w: World) -> None:
    names = chatting(w, QUESTION, "it is sencha", "bought in May")
    can(w, updates=(30, 600))
    w.pipeline.forward(names[0])
    w.desk.late_failures = [RetryableError("cut", uncertain=True)]
    forward_failing(w, names[1])
    chatting(w, "and one more")
    for name in (names[1], names[2], w.messages()[-1].message.id):
        w.pipeline.forward(name)
    texts = [text for _, text in w.desk.said]
    assert texts == [QUESTION, "it is sencha\nbought in May", "and one more"]


def test_stopped_between_the_update_and_its_lines_no_line_is_said_twice(w: World) -> None:
    names = chatting(w, QUESTION, "it is sencha", "bought in May", "hello?")
    can(w, updates=(30, 600))
    w.pipeline.forward(names[0])
    running = w.pipeline
    w.pipeline = replace(running, report=crash_at("forwarded"))
    with pytest.raises(SystemExit):  # the first of the lines is done, and nothing else
        w.pipeline.forward(names[1])
    w.pipeline = running
    w.clock.forward(minutes=2)
    for name in names[1:]:
        w.pipeline.forward(name)
    assert w.desk.said[1:] == [("T1", "it is sencha\nbought in May\nhello?")]
    assert {s.step for s in w.messages()} == {Step.DONE}


def test_a_ticket_that_has_had_its_updates_waits(w: World) -> None:
    can(w, updates=(7, 600))
    [first] = waiting(w, QUESTION)
    w.pipeline.forward(first)
    for text in ("thanks", "hello?"):
        [name] = waiting(w, text)
        w.pipeline.forward(name)
    [third] = waiting(w, "are you there?")
    with pytest.raises(RetryableError, match="no more updates") as caught:
        w.pipeline.forward(third)
    assert caught.value.retry_after_seconds == 600.0
    w.clock.forward(seconds=601)
    w.pipeline.forward(third)
    assert w.desk.said[-1] == ("T1", "are you there?")


# Merges


def test_a_merge_is_followed_and_replies_on_the_other_ticket_arrive(w: World) -> None:
    first, second = waiting(w, QUESTION, "thanks")
    w.pipeline.forward(first)
    event = {"ticket_id": "T1", "external_id": "m1", "state": "merged", "merged_into": "T77"}
    w.pipeline.accept_reply("desk", w.request(event))
    w.pipeline.forward(second)
    assert w.desk.said[-1] == ("T77", "thanks")
    w.reply("T77", "In a dry place.")
    w.settle()
    assert w.sent("sms") == ["In a dry place."]


def test_a_ticket_that_was_merged_away_closes_nothing_any_more(w: World) -> None:
    [first] = waiting(w, QUESTION)
    w.pipeline.forward(first)
    for event in (
        {"external_id": "m1", "state": "merged", "merged_into": "T77"},
        {"external_id": "c1", "state": "closed"},
    ):
        w.pipeline.accept_reply("desk", w.request({"ticket_id": "T1"} | event))
    held = w.pipeline.store.conversation(w.stored(first).message.conversation_id or "")
    assert held is not None
    assert held.noun.state == "open"


def test_a_ticket_merged_into_another_ones_leaves_that_ones_customer_alone(w: World) -> None:
    [first] = waiting(w, QUESTION)
    [other] = waiting(w, "Where is my parcel?", inbox="email")
    w.pipeline.forward(first)
    w.pipeline.forward(other)
    event = {"ticket_id": "T1", "external_id": "m1", "state": "merged", "merged_into": "T2"}
    w.pipeline.accept_reply("desk", w.request(event))
    home = w.pipeline.store.ticket_home(Ticket(helpdesk="desk", id="T2"))
    assert home is not None
    assert home.noun.conversation_id == w.stored(other).message.conversation_id
