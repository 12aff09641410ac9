"""Batches of the table's stream: parties side by side; what is sent goes together."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import aws
from chalicelib.aws import SqsQueue, sending_together
from chalicelib.errors import RetryableError
from chalicelib.stream import consume


def record(number: int, message: str, party: str = "", kind: str = "message") -> dict[str, Any]:
    image = {"pk": {"S": f"MSG#{party or message}"}, "sk": {"S": message}, "kind": {"S": kind}}
    return {
        "eventName": "INSERT",
        "dynamodb": {"SequenceNumber": str(number), "NewImage": image},
    }


class Batch:
    """Runs a batch, and remembers what was relayed."""

    def __init__(self, *failures: str) -> None:
        self.failures = set(failures)
        self.done: list[str] = []
        #: Called with each message before anything becomes of it.
        self.before: Callable[[str], object] = lambda message: None
        self.lost: Exception | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        yield
        if self.lost:
            raise self.lost

    def run(self, *records: dict[str, Any]) -> list[str]:
        """From which record on Lambda reads again."""

        def relay(message: str) -> None:
            self.before(message)
            if message in self.failures:
                raise RetryableError("busy")
            self.done.append(message)

        answer = consume(records, relay, self.together)
        return [f["itemIdentifier"] for f in answer["batchItemFailures"]]


def test_each_new_message_is_relayed_and_nothing_else() -> None:
    batch = Batch()
    removed = record(3, "gone") | {"eventName": "REMOVE"}
    assert batch.run(record(1, "m1"), record(2, "t1", kind=""), removed, record(4, "e1")) == []
    assert sorted(batch.done) == ["e1", "m1"]


def test_lambda_reads_again_from_the_first_record_that_failed() -> None:
    batch = Batch("b", "d")
    found = batch.run(*(record(n, name) for n, name in enumerate("abcd")))
    assert found == ["1"]
    assert sorted(batch.done) == ["a", "c"]


def test_what_a_party_said_after_what_failed_waits_for_it() -> None:
    batch = Batch("li1")
    found = batch.run(record(1, "li1", "li"), record(2, "mei1", "mei"), record(3, "li2", "li"))
    assert found == ["1"]
    assert batch.done == ["mei1"]


def test_two_parties_are_relayed_side_by_side() -> None:
    batch = Batch()
    both = threading.Barrier(2, timeout=30)
    batch.before = lambda message: both.wait()
    assert batch.run(record(1, "li"), record(2, "mei")) == []


def test_all_is_relayed_again_when_what_was_to_be_sent_was_not() -> None:
    batch = Batch()
    batch.lost = RetryableError("SQS is away")
    assert batch.run(record(1, "t", kind=""), record(2, "li"), record(3, "mei")) == ["2"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=10),
)
def test_whatever_fails_nothing_is_passed_over(said: list[tuple[str, bool]]) -> None:
    names = [f"{party}{n}" for n, (party, _) in enumerate(said)]
    bad = [name for name, (_, fails) in zip(names, said, strict=True) if fails]
    batch = Batch(*bad)
    found = batch.run(*(record(n, name, name[0]) for n, name in enumerate(names)))
    first = [str(n) for n, (_, fails) in enumerate(said) if fails][:1]
    assert found == first
    for party in "abc":
        theirs = [name for name in batch.done if name[0] == party]
        wanted = [name for name in names if name[0] == party]
        assert theirs == wanted[: len(theirs)]
        assert len(theirs) == len(wanted) or wanted[len(theirs)] in bad


# What is sent


@pytest.fixture
def queue(moto_bucket: str) -> SqsQueue:
    return SqsQueue("askonce-forward.fifo")


@pytest.fixture
def asked(queue: SqsQueue) -> list[str]:
    """The requests that send, by name and how many messages they hold."""
    found: list[str] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name.startswith("SendMessage"):
            found.append(f"{model.name} {len(params.get('Entries', [params]))}")

    aws.client("sqs").meta.events.register("before-parameter-build.sqs", note)
    return found


def received(queue: SqsQueue) -> list[str]:
    sqs = boto3.client("sqs")
    found: list[str] = []
    while got := sqs.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10).get("Messages"):
        found += [message["Body"] for message in got]
        for message in got:
            sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
    return found


def send(queue: SqsQueue, *numbers: int) -> None:
    for n in numbers:
        queue.send(str(n), group="g", deduplication_id=str(n))


def test_what_is_sent_together_goes_at_the_end_ten_in_a_request_and_in_order(
    queue: SqsQueue, asked: list[str]
) -> None:
    with sending_together():
        send(queue, *range(21))
        assert asked == []
    assert asked == ["SendMessageBatch 10", "SendMessageBatch 10", "SendMessage 1"]
    assert received(queue) == [str(n) for n in range(21)]


def test_nothing_is_sent_where_an_exception_passes(queue: SqsQueue, asked: list[str]) -> None:
    def stop() -> None:
        with sending_together():
            send(queue, 1)
            raise SystemExit

    with pytest.raises(SystemExit):
        stop()
    assert asked == []
    send(queue, 2)
    assert asked == ["SendMessage 1"]


def test_another_thread_sends_what_it_sends_at_once(queue: SqsQueue, asked: list[str]) -> None:
    with sending_together():
        worker = threading.Thread(target=send, args=(queue, 1))
        worker.start()
        worker.join(30)
        assert asked == ["SendMessage 1"]


def test_a_batch_that_sqs_takes_in_part_is_an_error(queue: SqsQueue) -> None:
    def refuse(parsed: dict[str, Any], **_: Any) -> None:
        parsed["Failed"] = [{"Id": "1", "SenderFault": False, "Code": "InternalError"}]

    def both() -> None:
        with sending_together():
            send(queue, 1, 2)

    aws.client("sqs").meta.events.register("after-call.sqs.SendMessageBatch", refuse)
    with pytest.raises(ConnectionError):
        both()
