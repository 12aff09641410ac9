"""The contract of ports.Table, kept by DynamoDB and the fake; then what only DynamoDB does."""

import time
from dataclasses import replace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ReadTimeoutError
from moto.core.botocore_stubber import MockRawResponse

from chalicelib import aws
from chalicelib.aws import DynamoTable
from chalicelib.errors import ConflictError
from chalicelib.ports import Item, Table, Write


def item(sk: str = "A", **more: Any) -> Item:
    return Item(pk="P", sk=sk, body='{"said": "你好"}', **more)


def put(table: Table, *items: Item) -> None:
    table.write(*(Write(item=i) for i in items))


def stored(table: Table, sk: str = "A") -> Item:
    found = table.get("P", sk)
    assert found is not None
    return found


# Kept by both


def test_an_item_comes_back_as_it_was_put(table: Table) -> None:
    index = {"kind": "message", "due": "d", "due_at": "1", "thread": "t", "thread_at": "2"}
    expires_at = int(time.time()) + 3600
    put(table, item(index=index, expires_at=expires_at))
    assert stored(table) == item(index=index, expires_at=expires_at, version=1)


@pytest.mark.parametrize("size", [1, aws.PACKED_FROM, 350_000])
def test_a_body_of_any_length_comes_back_by_every_way(table: Table, size: int) -> None:
    long = replace(item(), body="茶" * size)
    put(table, long)
    with pytest.raises(ConflictError) as conflict:
        put(table, item())
    with pytest.raises(ConflictError) as cancelled:
        put(table, item("B"), item())
    assert conflict.value.existing == cancelled.value.existing == replace(long, version=1)
    assert stored(table) == table.query("P", "A", "B")[0] == replace(long, version=1)


def test_what_was_never_put_is_not_there(table: Table) -> None:
    assert table.get("P", "A") is None


def test_of_two_first_puts_one_wins_and_the_other_sees_it(table: Table) -> None:
    put(table, item())
    with pytest.raises(ConflictError) as conflict:
        put(table, replace(item(), body='{"said": "too late"}'))
    assert conflict.value.existing == stored(table) == item(version=1)


def test_a_write_over_the_version_that_was_read_counts_it_up(table: Table) -> None:
    put(table, item())
    put(table, replace(stored(table), body="{}"))
    assert (stored(table).body, stored(table).version) == ("{}", 2)


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("delete", [False, True])
def test_a_write_over_another_version_changes_nothing(
    table: Table, version: int, delete: bool
) -> None:
    put(table, item())
    put(table, stored(table))
    with pytest.raises(ConflictError) as conflict:
        table.write(Write(item=replace(item(), body="{}", version=version), delete=delete))
    assert conflict.value.existing == stored(table) == item(version=2)


def test_a_write_over_a_version_of_what_is_not_there_conflicts(table: Table) -> None:
    with pytest.raises(ConflictError) as conflict:
        put(table, item(version=1))
    assert conflict.value.existing is None


def test_a_deleted_item_is_gone_and_may_be_put_anew(table: Table) -> None:
    put(table, item())
    table.write(Write(item=stored(table), delete=True))
    assert table.get("P", "A") is None
    put(table, item())
    assert stored(table).version == 1


def test_a_transaction_writes_everything(table: Table) -> None:
    put(table, item("gone"), item("kept"))
    table.write(
        Write(item=stored(table, "gone"), delete=True),
        Write(item=stored(table, "kept")),
        Write(item=item("new")),
    )
    found = [(i.sk, i.version) for i in table.query("P", "!", "~")]
    assert found == [("kept", 2), ("new", 1)]


def test_a_transaction_of_which_one_part_conflicts_writes_nothing(table: Table) -> None:
    put(table, item("taken"))
    with pytest.raises(ConflictError) as conflict:
        put(table, item("first"), replace(item("taken"), body="{}"), item("last"))
    assert conflict.value.existing == item("taken", version=1)
    assert table.query("P", "!", "~") == [item("taken", version=1)]


@pytest.mark.parametrize(
    ("low", "high", "options", "found"),
    [
        ("!", "~", {}, "ABCD"),
        ("B", "C", {}, "BC"),
        ("!", "~", {"limit": 2}, "AB"),
        ("!", "~", {"limit": 2, "newest_first": True}, "DC"),
        ("E", "~", {}, ""),
    ],
)
def test_a_query_takes_a_range_in_order(
    table: Table, low: str, high: str, options: dict[str, Any], found: str
) -> None:
    put(table, *(item(sk) for sk in "CADB"))
    put(table, Item(pk="another", sk="B", body="{}"))
    assert "".join(i.sk for i in table.query("P", low, high, **options)) == found


def test_the_due_index_holds_what_has_a_time_until_it_has_none(table: Table) -> None:
    put(table, item("late", index={"due": "b", "due_at": "3"}))
    put(table, item("soon", index={"due": "b", "due_at": "1"}))
    put(table, item("other", index={"due": "c", "due_at": "1"}), item("never"))
    assert table.due("b", "2") == {("P", "soon"): "1"}
    assert list(table.due("b", "3")) == [("P", "soon"), ("P", "late")]
    assert list(table.due("b", "3", limit=1)) == [("P", "soon")]
    put(table, replace(stored(table, "soon"), index={}))
    assert list(table.due("b", "3")) == [("P", "late")]


def test_the_thread_index_holds_a_thread_in_order(table: Table) -> None:
    put(table, item("2nd", index={"thread": "t", "thread_at": "2026-03-02"}))
    put(table, item("1st", index={"thread": "t", "thread_at": "2026-03-01"}))
    put(table, item("other", index={"thread": "u", "thread_at": "2026-03-01"}), item("none"))
    assert table.thread("t") == [("P", "1st"), ("P", "2nd")]
    assert table.thread("t", limit=1) == [("P", "1st")]


# Peculiar to DynamoDB

#: Between the first try and the second one, when DynamoDB throttles.
LONGEST_PAUSE_SECONDS = 1.0
OUT_OF_TIME = ReadTimeoutError(endpoint_url="dynamodb")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own pauses between its tries."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)


def lose_answers(operation: str, times: int = 1) -> list[str]:
    """Let requests take effect and lose their answers; returns a list that grows by one a try."""
    tries: list[str] = []

    def lose(**_: Any) -> None:
        tries.append(operation)
        if len(tries) <= times:
            raise OUT_OF_TIME

    aws.client("dynamodb").meta.events.register_last(f"before-send.dynamodb.{operation}", lose)
    return tries


def answer_with(operation: str, status: int, body: bytes) -> None:
    """Requests get this answer, without any header."""

    def answered(request: Any, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, status, HTTPHeaders(), MockRawResponse(body))

    aws.client("dynamodb").meta.events.register_first(f"before-send.dynamodb.{operation}", answered)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("operation", "writes"),
    [
        ("PutItem", [Write(item=item())]),
        ("TransactWriteItems", [Write(item=item()), Write(item=item("B"))]),
    ],
)
def test_our_own_write_whose_answer_got_lost_counts_as_written(
    moto_table: DynamoTable, operation: str, writes: list[Write]
) -> None:
    tries = lose_answers(operation)
    moto_table.write(*writes)
    assert len(tries) == 2
    assert [stored(moto_table, w.item.sk).version for w in writes] == [1] * len(writes)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("others", [[], [item("B")]])
def test_somebody_elses_write_is_never_taken_for_our_own(
    moto_table: DynamoTable, others: list[Item]
) -> None:
    put(moto_table, item())
    lose_answers("PutItem")
    lose_answers("TransactWriteItems")
    with pytest.raises(ConflictError):
        put(moto_table, item(), *others)


def test_deleting_what_an_earlier_try_deleted_is_no_conflict(moto_table: DynamoTable) -> None:
    failed = b'{"__type": "com.amazonaws.dynamodb#ConditionalCheckFailedException"}'
    answer_with("DeleteItem", 400, failed)
    moto_table.write(Write(item=item(version=1), delete=True))


@pytest.mark.usefixtures("no_waiting")
def test_a_call_is_tried_twice_and_no_more(moto_table: DynamoTable) -> None:
    tries = lose_answers("GetItem", times=9)
    with pytest.raises(ReadTimeoutError):
        moto_table.get("P", "A")
    assert len(tries) == 2


def test_an_answer_cut_off_in_its_headers_is_no_absence(moto_table: DynamoTable) -> None:
    put(moto_table, item())
    answer_with("GetItem", 200, b"{}")
    answer_with("Query", 200, b"{}")
    for ask in (
        lambda: moto_table.get("P", "A"),
        lambda: moto_table.query("P", "!", "~"),
        lambda: moto_table.due("b", "~"),
        lambda: moto_table.thread("t"),
    ):
        with pytest.raises(ConnectionError):
            ask()


def test_the_client_gives_up_within_the_time_that_the_pipeline_counts_on(
    moto_table: DynamoTable,
) -> None:
    config = aws.client("dynamodb").meta.config
    tries = config.retries["total_max_attempts"]
    waits = tries * (config.connect_timeout + config.read_timeout)
    assert waits + (tries - 1) * LONGEST_PAUSE_SECONDS <= aws.WORST_CALL_SECONDS


def test_an_expired_item_is_gone_before_dynamodb_sweeps_it(moto_table: DynamoTable) -> None:
    put(moto_table, item(expires_at=1), item("B", expires_at=int(time.time()) + 60), item("C"))
    assert moto_table.get("P", "A") is None
    assert [i.sk for i in moto_table.query("P", "!", "~")] == ["B", "C"]


def test_an_expired_item_may_be_put_anew(moto_table: DynamoTable) -> None:
    put(moto_table, item(expires_at=1))
    put(moto_table, replace(item(), body="{}"))
    assert (stored(moto_table).body, stored(moto_table).version) == ("{}", 1)
