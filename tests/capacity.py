"""What DynamoDB bills for a read or a write, by its published rules: no engine here says it right.

Items are as the API has them: {name: {type: value}}. Rules and examples:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html#GSI.ThroughputConsiderations
"""

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

Item = Mapping[str, Mapping[str, Any]]

_READ_BYTES, _WRITE_BYTES = 4096, 1024
#: What an item, and each of its entries in an index, takes on top where it lies: billed as storage.
STORED_BYTES = 100
_COLLECTION_BYTES, _ELEMENT_BYTES = 3, 1


# Sizes


def size(item: Item) -> int:
    """Bytes of an item: of its names and values."""
    return sum(_text(name) + _value(value) for name, value in item.items())


def _text(text: str) -> int:
    return len(text.encode())


def _number(text: str) -> int:
    """A byte for two significant digits, one more, and one for a minus."""
    mantissa = text.lower().lstrip("+-").partition("e")[0]
    digits = mantissa.replace(".", "").strip("0")
    return ceil(len(digits) / 2) + 1 + text.startswith("-")


def _binary(value: Any) -> int:
    return len(value if isinstance(value, bytes) else base64.b64decode(value))


def _list(values: Iterable[Mapping[str, Any]]) -> int:
    return _COLLECTION_BYTES + sum(_ELEMENT_BYTES + _value(value) for value in values)


def _map(values: Item) -> int:
    return _COLLECTION_BYTES + size(values) + _ELEMENT_BYTES * len(values)


_SIZES: Mapping[str, Callable[[Any], int]] = {
    "S": _text,
    "N": _number,
    "B": _binary,
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
    "SS": lambda values: sum(map(_text, values)),
    "NS": lambda values: sum(map(_number, values)),
    "BS": lambda values: sum(map(_binary, values)),
    "L": _list,
    "M": _map,
}


def _value(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    return _SIZES[kind](content)


# Reads


def read_units(size_bytes: int, *, consistent: bool) -> float:
    """Of one item, or of all that a query reads: rounded up once, and never nothing."""
    units = max(1, ceil(size_bytes / _READ_BYTES))
    return units if consistent else units / 2


def batch_read_units(sizes: Iterable[int], *, consistent: bool) -> float:
    """Of items read in one request: each rounded up by itself."""
    return sum(read_units(size_bytes, consistent=consistent) for size_bytes in sizes)


# Writes


@dataclass(frozen=True)
class Index:
    """A global secondary index that holds keys only."""

    hash_key: str
    range_key: str
    table_keys: tuple[str, ...] = ("pk", "sk")

    def entry(self, item: Item | None) -> dict[str, Mapping[str, Any]] | None:
        """What it holds of an item; None if that lacks one of its keys."""
        if item is None or not {self.hash_key, self.range_key} <= item.keys():
            return None
        return {name: item[name] for name in (self.hash_key, self.range_key, *self.table_keys)}

    def write_units(self, before: Item | None, after: Item | None) -> int:
        """An entry that comes or goes is a write; one whose keys change goes, and comes anew."""
        old, new = self.entry(before), self.entry(after)
        if old == new:
            return 0
        return sum(_write_units(size(entry)) for entry in (old, new) if entry)


def write_units(
    before: Item | None,
    after: Item | None,
    indexes: Iterable[Index] = (),
    *,
    transactional: bool = False,
) -> int:
    """Of one put, update or deletion: by the larger of both items, and for what changes in indexes.

    In a transaction the table's own write costs twice.
    """
    largest = max(size(item) if item else 0 for item in (before, after))
    own = _write_units(largest) * (2 if transactional else 1)
    return own + sum(index.write_units(before, after) for index in indexes)


def failed_write_units(
    before: Item | None, wanted: Item | None, *, transactional: bool = False
) -> int:
    """Of a write whose condition was not met: as if it had been, except in the indexes."""
    return write_units(before, wanted, transactional=transactional)


def _write_units(size_bytes: int) -> int:
    return max(1, ceil(size_bytes / _WRITE_BYTES))


# Storage


def stored_bytes(item: Item, indexes: Iterable[Index] = ()) -> int:
    """What an item takes, with its entries in indexes."""
    entries = [entry for index in indexes if (entry := index.entry(item))]
    return sum(size(one) + STORED_BYTES for one in (item, *entries))
