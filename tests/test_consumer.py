"""Batches of a FIFO queue: conversations side by side, each in order; what fails goes back."""

import json
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.consumer import backoff_seconds, consume
from chalicelib.errors import RetryableError


def record(message: str, group: str = "", tries: int = 1) -> dict[str, Any]:
    return {
        "messageId": f"sqs-{message}",
        "receiptHandle": f"receipt-{message}",
        "body": json.dumps({"message_id": message}),
        "attributes": {
            "MessageGroupId": group or message,
            "ApproximateReceiveCount": str(tries),
        },
    }


class Batch:
    """Runs a batch, and remembers what was done and delayed."""

    def __init__(self, failures: dict[str, Exception] | None = None, at_once: int = 10) -> None:
        self.failures = failures or {}
        self.at_once = at_once
        self.done: list[str] = []
        #: Called with each message before anything becomes of it.
        self.before: Callable[[str], object] = lambda message: None
        self.delays: dict[str, float] = {}

    def run(
        self, *records: dict[str, Any], remaining: Callable[[], float] = lambda: 60.0
    ) -> list[str]:
        """The ids that go back."""

        def work(message: str) -> None:
            self.before(message)
            if message in self.failures:
                raise self.failures[message]
            self.done.append(message)

        answer = consume(records, work, self.delays.__setitem__, remaining, at_once=self.at_once)
        return [f["itemIdentifier"] for f in answer["batchItemFailures"]]


def test_a_batch_without_faults_is_done_in_order() -> None:
    batch = Batch(at_once=1)
    assert batch.run(record("a"), record("b")) == []
    assert batch.done == ["a", "b"]


def test_only_what_failed_goes_back() -> None:
    batch = Batch({"b": RetryableError("busy")})
    assert batch.run(record("a"), record("b"), record("c")) == ["sqs-b"]
    assert sorted(batch.done) == ["a", "c"]


def test_the_rest_of_its_conversation_goes_back_with_it_untouched() -> None:
    batch = Batch({"a1": RetryableError("busy")})
    back = batch.run(record("a1", "A"), record("b1", "B"), record("a2", "A"))
    assert back == ["sqs-a1", "sqs-a2"]
    assert batch.done == ["b1"]
    assert list(batch.delays) == ["receipt-a1"]


def test_a_fault_of_ours_is_one_messages_fault() -> None:
    batch = Batch({"a": KeyError("oops")})
    assert batch.run(record("a"), record("b")) == ["sqs-a"]
    assert batch.done == ["b"]


def test_a_body_that_is_no_json_goes_back_and_hurts_nobody() -> None:
    batch = Batch()
    assert batch.run(record("a") | {"body": "{"}, record("b")) == ["sqs-a"]
    assert batch.done == ["b"]


def test_what_the_other_side_asks_for_is_how_long_it_waits() -> None:
    batch = Batch({"a": RetryableError("later", retry_after_seconds=77)})
    batch.run(record("a"))
    assert batch.delays == {"receipt-a": 77}


def test_a_delay_that_fails_costs_no_other_message_its_success() -> None:
    def busy(message: str) -> None:
        if message == "a":
            raise RetryableError("busy")

    def no_delay(receipt: str, seconds: float) -> None:
        raise OSError("the queue is out of reach")

    answer = consume([record("a"), record("b")], busy, no_delay, lambda: 60.0, at_once=2)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "sqs-a"}]}


def test_what_cannot_be_begun_in_time_goes_back_untouched() -> None:
    left = iter([30.0, 1.0, 1.0])
    batch = Batch(at_once=1)
    assert batch.run(record("a"), record("b"), record("c"), remaining=lambda: next(left)) == [
        "sqs-b",
        "sqs-c",
    ]
    assert (batch.done, batch.delays) == (["a"], {})


# Side by side


def meeting(parties: int, action: Callable[[], None] | None = None) -> threading.Barrier:
    """Where so many messages meet: in vain if they are not worked on at once."""
    return threading.Barrier(parties, action, timeout=5)


def test_conversations_are_worked_on_at_once() -> None:
    batch, met = Batch(), meeting(3)
    batch.before = lambda _: met.wait()
    assert batch.run(record("a"), record("b"), record("c")) == []
    assert sorted(batch.done) == ["a", "b", "c"]


def test_a_conversation_is_not_beside_itself() -> None:
    batch, last_of_b, begun = Batch(), threading.Event(), list[str]()

    def before(message: str) -> None:
        begun.append(message)
        if message == "a1":
            assert last_of_b.wait(5)
            assert "a2" not in begun
        if message == "b2":
            last_of_b.set()

    batch.before = before
    rest = [record("b1", "B"), record("a2", "A"), record("b2", "B")]
    assert batch.run(record("a1", "A"), *rest) == []
    assert batch.done == ["b1", "b2", "a1", "a2"]


def test_no_more_are_worked_on_at_once_than_is_allowed() -> None:
    batch, met, lock = Batch(at_once=2), meeting(2), threading.Lock()
    working, most = [0], [0]

    def before(message: str) -> None:
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        met.wait()
        for _ in range(50):  # whoever else may begin does so now
            time.sleep(0)
        with lock:
            working[0] -= 1

    batch.before = before
    assert batch.run(*map(record, "abcdef")) == []
    assert most == [2]


@pytest.mark.parametrize("at_once", [1, 10])
def test_one_conversation_alone_takes_no_thread(at_once: int) -> None:
    batch, threads = Batch(at_once=at_once), set[int]()
    batch.before = lambda _: threads.add(threading.get_ident())
    assert batch.run(record("a1", "A"), record("a2", "A")) == []
    assert threads == {threading.get_ident()}


def test_one_that_fails_beside_others_holds_up_only_its_own() -> None:
    batch, met = Batch({"a1": RetryableError("busy"), "c1": KeyError("oops")}), meeting(3)
    batch.before = lambda message: met.wait() if message.endswith("1") else None
    sent = [record(f"{group.lower()}{n}", group) for n in (1, 2) for group in "ABC"]
    assert batch.run(*sent) == ["sqs-a1", "sqs-c1", "sqs-a2", "sqs-c2"]
    assert batch.done == ["b1", "b2"]
    assert sorted(batch.delays) == ["receipt-a1", "receipt-c1"]


def test_what_is_under_way_when_the_time_is_over_ends_and_nothing_else_begins() -> None:
    left = [30.0]
    batch, met = Batch(at_once=2), meeting(2, lambda: left.__setitem__(0, 1.0))
    batch.before = lambda _: met.wait()
    sent = [record("a1", "A"), record("b1", "B"), record("c"), record("b2", "B"), record("a2", "A")]
    assert batch.run(*sent, remaining=lambda: left[0]) == ["sqs-c", "sqs-b2", "sqs-a2"]
    assert (sorted(batch.done), batch.delays) == (["a1", "b1"], {})


def test_what_ends_the_process_ends_the_batch_when_the_others_are_done() -> None:
    batch, met = Batch(), meeting(2)

    def before(message: str) -> None:
        met.wait()
        if message == "a":
            raise SystemExit

    batch.before = before
    with pytest.raises(SystemExit):
        batch.run(record("a"), record("b"))
    assert batch.done == ["b"]


def test_each_works_in_the_context_of_the_whole() -> None:
    rights, seen = ContextVar("rights", default=""), list[str]()
    batch = Batch()
    batch.before = lambda _: seen.append(rights.get())
    token = rights.set("forward")
    assert batch.run(record("a"), record("b")) == []
    rights.reset(token)
    assert seen == ["forward"] * 2


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.booleans()), max_size=10), st.integers(1, 10))
def test_whatever_fails_what_goes_back_is_that_and_what_is_behind_it(
    sent: list[tuple[str, bool]], at_once: int
) -> None:
    failing = {str(n): RetryableError("busy") for n, (_, fails) in enumerate(sent) if fails}
    batch = Batch(dict(failing), at_once)
    back = batch.run(*(record(str(n), group) for n, (group, _) in enumerate(sent)))
    held_up = [any(fails and g == group for g, fails in sent[: n + 1])
               for n, (group, _) in enumerate(sent)]  # fmt: skip
    assert back == [f"sqs-{n}" for n, held in enumerate(held_up) if held]
    for group in "ABCD":
        done = [n for n in map(int, batch.done) if sent[n][0] == group]
        assert done == [n for n, (g, _) in enumerate(sent) if g == group and not held_up[n]]


# Waits


@pytest.mark.parametrize(
    ("tries", "asked", "waits"),
    [
        (1, None, 5),
        (2, None, 10),
        (5, None, 80),
        (50, None, 900),
        (1, 0.0, 0),
        (1, -5.0, 0),
        (1, 30.0, 30),
        (1, 1e9, 900),
    ],
)
def test_waits_double_and_end_at_a_quarter_of_an_hour(
    tries: int, asked: float | None, waits: float
) -> None:
    assert backoff_seconds(tries, asked) == waits
