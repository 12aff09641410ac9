"""What is asked of AWS, counted call by call, and what DynamoDB bills for it.

A meter hears of each call before it is made, by the SDK's hooks and `aws.watchers`; with a client
of its own it looks at what lies in the table before and after, so that it needs no answer, and is
right on any engine. One thread at a time.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from botocore.session import get_session

from chalicelib import aws
from infra import template
from infra.local.resources import RESOURCES
from tests.capacity import (
    Index,
    Item,
    batch_read_units,
    failed_write_units,
    read_units,
    size,
    stored_bytes,
    write_units,
)

Params = Mapping[str, Any]
Key = dict[str, Any]


def own_client(service: str) -> Any:
    """One of which no meter hears."""
    return get_session().create_client(service)


def indexes() -> list[Index]:
    """Those of infra/resources.yaml. ValueError for one of another kind than is known here."""
    table = template.read(RESOURCES)["Resources"]["MessagesTable"]["Properties"]
    made = []
    for told in table["GlobalSecondaryIndexes"]:
        if told["Projection"] != {"ProjectionType": "KEYS_ONLY"}:
            raise ValueError(f"{told['IndexName']} holds more than keys: teach tests/capacity.py")
        made.append(Index(*(key["AttributeName"] for key in told["KeySchema"])))
    return made


@dataclass
class Bill:
    """What was asked, and what it comes to."""

    calls: Counter[str] = field(default_factory=Counter)
    read_units: float = 0
    write_units: int = 0
    #: How much more lies in the table, entries of indexes included.
    stored_bytes: int = 0

    def __add__(self, other: "Bill") -> "Bill":
        return Bill(
            self.calls + other.calls,
            self.read_units + other.read_units,
            self.write_units + other.write_units,
            self.stored_bytes + other.stored_bytes,
        )


@dataclass(frozen=True)
class _Writing:
    """A write that is on its way."""

    table: str
    requests: list[Params]
    before: list[Item | None]
    transactional: bool


class Meter:
    """Counts from `start` to `stop`."""

    def __init__(self) -> None:
        self._look = own_client("dynamodb")
        self._indexes = indexes()
        self._writing: _Writing | None = None
        self._bill = Bill()
        self._new: list[Item] = []
        #: CPU seconds that went into counting, in the thread that was counted.
        self.spent = 0.0

    def start(self) -> Self:
        """Hear of every client's calls that is made from now on, and of direct ones."""
        aws.client.cache_clear()
        aws.sessions.append(self._attend)
        aws.watchers.append(self._hear)
        return self

    def stop(self) -> None:
        """Hear nothing any more."""
        aws.sessions.remove(self._attend)
        aws.watchers.remove(self._hear)
        aws.client.cache_clear()

    def bill(self) -> Bill:
        """What came together since this was last asked."""
        self._settle()
        bill, self._bill = self._bill, Bill()
        return bill

    def new_items(self) -> list[Item]:
        """What was inserted since this was last asked, in order: the stream's INSERTs."""
        self._settle()
        new, self._new = self._new, []
        return new

    # Hearing

    def _attend(self, session: Any) -> None:
        session.register("before-parameter-build", self._before_call)

    def _before_call(self, params: Params, model: Any, context: Any, **_: Any) -> None:
        if not context.get("is_presign_request"):
            self._hear(model.service_model.service_name, model.name, params)

    def _hear(self, service: str, operation: str, params: Params) -> None:
        with self._counting():
            self._settle()
            self._bill.calls[f"{service}.{operation}"] += 1
            if service == "dynamodb":
                _BILLED[operation](self, params)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        started = time.thread_time()
        yield
        self.spent += time.thread_time() - started

    # Reads

    def _get(self, params: Params) -> None:
        found = self._at(params["TableName"], params["Key"])
        consistent = params.get("ConsistentRead", False)
        self._bill.read_units += read_units(size(found or {}), consistent=consistent)

    def _batch_get(self, params: Params) -> None:
        for table, asked in params["RequestItems"].items():
            sizes = [size(self._at(table, key) or {}) for key in asked["Keys"]]
            consistent = asked.get("ConsistentRead", False)
            self._bill.read_units += batch_read_units(sizes, consistent=consistent)

    def _query(self, params: Params) -> None:
        found = self._look.query(**params)["Items"]
        consistent = params.get("ConsistentRead", False)
        self._bill.read_units += read_units(sum(map(size, found)), consistent=consistent)

    # Writes

    def _write_one(self, params: Params) -> None:
        self._begin([params], transactional=False)

    def _transact(self, params: Params) -> None:
        requests = [request for item in params["TransactItems"] for request in item.values()]
        self._begin(requests, transactional=True)

    def _begin(self, requests: list[Params], *, transactional: bool) -> None:
        table = requests[0]["TableName"]
        before = [self._at(table, _key(request)) for request in requests]
        self._writing = _Writing(table, requests, before, transactional)

    def _settle(self) -> None:
        """Find out what became of the last write."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        after = [self._at(writing.table, _key(request)) for request in writing.requests]
        done = after != writing.before
        for request, old, new in zip(writing.requests, writing.before, after, strict=True):
            self._bill_write(writing, request, old, new, done=done)

    def _bill_write(
        self, writing: _Writing, request: Params, old: Item | None, new: Item | None, *, done: bool
    ) -> None:
        double = writing.transactional
        if not done:
            wanted = request.get("Item", old)
            self._bill.write_units += failed_write_units(old, wanted, transactional=double)
            return
        self._bill.write_units += write_units(old, new, self._indexes, transactional=double)
        self._bill.stored_bytes += self._stored(new) - self._stored(old)
        if old is None and new is not None:
            self._new.append(new)

    def _stored(self, item: Item | None) -> int:
        return stored_bytes(item, self._indexes) if item else 0

    def _at(self, table: str, key: Key) -> Item | None:
        found = self._look.get_item(TableName=table, Key=key, ConsistentRead=True).get("Item")
        return found if found is None else dict(found)


def _key(request: Params) -> Key:
    item = request.get("Item") or request["Key"]
    return {name: item[name] for name in ("pk", "sk")}


_BILLED = {
    "GetItem": Meter._get,
    "BatchGetItem": Meter._batch_get,
    "Query": Meter._query,
    "PutItem": Meter._write_one,
    "UpdateItem": Meter._write_one,
    "DeleteItem": Meter._write_one,
    "TransactWriteItems": Meter._transact,
}
