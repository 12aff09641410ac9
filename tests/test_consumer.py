"""Batches of a FIFO queue: what fails goes back, with the rest of its conversation, and later."""

import json
from collections.abc import Callable
from typing import Any

import pytest

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

    def __init__(self, failures: dict[str, Exception] | None = None) -> None:
        self.failures = failures or {}
        self.done: list[str] = []
        self.delays: dict[str, float] = {}

    def run(
        self, *records: dict[str, Any], remaining: Callable[[], float] = lambda: 60.0
    ) -> list[str]:
        """The ids that go back."""

        def work(message: str) -> None:
            if message in self.failures:
                raise self.failures[message]
            self.done.append(message)

        answer = consume(records, work, self.delays.__setitem__, remaining)
        return [f["itemIdentifier"] for f in answer["batchItemFailures"]]


def test_a_batch_without_faults_is_done_in_order() -> None:
    batch = Batch()
    assert batch.run(record("a"), record("b")) == []
    assert batch.done == ["a", "b"]


def test_only_what_failed_goes_back() -> None:
    batch = Batch({"b": RetryableError("busy")})
    assert batch.run(record("a"), record("b"), record("c")) == ["sqs-b"]
    assert batch.done == ["a", "c"]


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

    answer = consume([record("a"), record("b")], busy, no_delay, lambda: 60.0)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "sqs-a"}]}


def test_what_cannot_be_begun_in_time_goes_back_untouched() -> None:
    left = iter([30.0, 1.0, 1.0])
    batch = Batch()
    assert batch.run(record("a"), record("b"), record("c"), remaining=lambda: next(left)) == [
        "sqs-b",
        "sqs-c",
    ]
    assert (batch.done, batch.delays) == (["a"], {})


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
