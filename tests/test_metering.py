"""The meter hears of every call, and bills it by what lay in the table before and after."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from chalicelib import aws
from chalicelib.aws import DynamoTable
from chalicelib.errors import ConflictError
from chalicelib.ports import Item, Write
from tests.conftest import TABLE
from tests.metering import Bill, Meter, indexes

DUE = {"kind": "message", "due": "message#0", "due_at": "1"}


@pytest.fixture
def meter(moto_bucket: str) -> Iterator[Meter]:
    meter = Meter().start()
    yield meter
    meter.stop()


@pytest.fixture
def table(meter: Meter) -> DynamoTable:
    return DynamoTable(TABLE)


def item(sk: str = "A", body: str = "{}", **index: str) -> Item:
    return Item(pk="P", sk=sk, body=body, index=index)


def put(table: DynamoTable, *items: Item) -> None:
    with suppress(ConflictError):
        table.write(*(Write(item=one) for one in items))


def units(bill: Bill) -> tuple[dict[str, int], int, float]:
    return dict(bill.calls), bill.write_units, bill.read_units


def test_it_knows_the_indexes_of_the_table() -> None:
    assert [(i.hash_key, i.range_key) for i in indexes()] == [
        ("due", "due_at"),
        ("thread", "thread_at"),
    ]


def test_a_put_is_billed_with_its_entry_in_an_index(table: DynamoTable, meter: Meter) -> None:
    put(table, item(**DUE))
    assert units(meter.bill()) == ({"dynamodb.PutItem": 1}, 2, 0)
    assert meter.bill() == Bill()


def test_a_put_whose_condition_fails_is_billed_and_leaves_nothing(
    table: DynamoTable, meter: Meter
) -> None:
    put(table, item(**DUE))
    first = meter.bill()
    put(table, item(**DUE))
    again = meter.bill()
    assert units(again) == ({"dynamodb.PutItem": 1}, 1, 0)
    assert first.stored_bytes > 200
    assert again.stored_bytes == 0


def test_a_transaction_costs_twice_also_when_it_is_cancelled(
    table: DynamoTable, meter: Meter
) -> None:
    put(table, item("A"), item("B", **DUE))
    assert units(meter.bill()) == ({"dynamodb.TransactWriteItems": 1}, 5, 0)
    put(table, item("A"), item("C", **DUE))
    assert units(meter.bill()) == ({"dynamodb.TransactWriteItems": 1}, 4, 0)


def test_reads_are_billed_by_what_they_read(table: DynamoTable, meter: Meter) -> None:
    numbers = "".join(f"{n * n:x}" for n in range(3000))  # packed, 8 to 10 kB
    put(table, item("A", numbers), item("B", numbers))
    meter.bill()
    table.get("P", "A")
    one = meter.bill().read_units
    table.get("P", "nothing")
    nothing = meter.bill().read_units
    table.query("P", "A", "B")
    both = meter.bill().read_units
    table.get_all([("P", "A"), ("P", "nothing")])
    batch = meter.bill().read_units
    table.due("message#0", "~")
    index = meter.bill().read_units
    assert (one, nothing, both, batch, index) == (3, 1, 5, 4, 0.5)


def test_what_is_new_is_told_once_in_order(table: DynamoTable, meter: Meter) -> None:
    put(table, item("B"), item("A"))
    put(table, replace(item("A"), version=1))
    put(table, item("C"))
    assert [new["sk"]["S"] for new in meter.new_items()] == ["B", "A", "C"]
    assert meter.new_items() == []


def test_calls_of_other_services_count_and_links_do_not(meter: Meter, moto_bucket: str) -> None:
    bucket = aws.S3Bucket(moto_bucket)
    bucket.put("a", b"1", "text/plain")
    bucket.link("a", "a.txt", 60)
    assert dict(meter.bill().calls) == {"s3.PutObject": 1}


def test_nothing_is_heard_after_the_end(moto_bucket: str) -> None:
    meter = Meter().start()
    meter.stop()
    put(DynamoTable(TABLE), item())
    assert meter.bill() == Bill()
    assert aws.watchers == []
