"""The own count of DynamoDB's units: the examples that AWS gives, and what holds for all items."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capacity import (
    Index,
    batch_read_units,
    failed_write_units,
    read_units,
    size,
    stored_bytes,
    write_units,
)

KB = 1024


def of(size_bytes: int, **more: str) -> dict[str, Any]:
    """An item of that many bytes."""
    item = {name: {"S": value} for name, value in more.items()}
    return item | {"x": {"S": "x" * (size_bytes - size(item) - 1)}}


# Sizes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"S": ""}, 0),
        ({"S": "tea"}, 3),
        ({"S": "茶"}, 3),
        ({"N": "0"}, 1),
        ({"N": "7"}, 2),
        ({"N": "42"}, 2),
        ({"N": "1234567"}, 5),
        ({"N": "1200"}, 2),
        ({"N": "0.0012"}, 2),
        ({"N": "-42"}, 3),
        ({"N": "12E+20"}, 2),
        ({"B": b"1234"}, 4),
        ({"B": base64.b64encode(b"1234").decode()}, 4),
        ({"BOOL": True}, 1),
        ({"NULL": True}, 1),
        ({"SS": ["ab", "c"]}, 3),
        ({"NS": ["12", "3"]}, 4),
        ({"BS": [b"ab", b"c"]}, 3),
        ({"L": []}, 3),
        ({"M": {}}, 3),
        ({"L": [{"S": "ab"}, {"N": "1"}]}, 3 + (1 + 2) + (1 + 2)),
        ({"M": {"k": {"S": "ab"}}}, 3 + 1 + (1 + 2)),
    ],
    ids=str,
)
def test_a_value_has_the_size_that_the_guide_says(value: dict[str, Any], expected: int) -> None:
    assert size({"name": value}) == len("name") + expected


VALUES = st.recursive(
    st.builds(lambda t: {"S": t}, st.text(st.characters(exclude_categories=["Cs"])))
    | st.builds(lambda n: {"N": str(n)}, st.integers(-(10**37), 10**37))
    | st.builds(lambda b: {"B": b}, st.binary()),
    lambda inner: (
        st.builds(lambda v: {"L": v}, st.lists(inner, max_size=4))
        | st.builds(lambda v: {"M": v}, st.dictionaries(st.text("ab"), inner, max_size=4))
    ),
    max_leaves=8,
)
ITEMS = st.dictionaries(st.text("abcdef", min_size=1), VALUES, max_size=6)


@given(ITEMS, ITEMS)
def test_an_item_is_as_large_as_its_parts(one: dict[str, Any], other: dict[str, Any]) -> None:
    other = {name: value for name, value in other.items() if name not in one}
    assert size(one | other) == size(one) + size(other)


@given(st.integers(0, 10**30), st.integers(0, 7))
def test_zeroes_at_the_end_of_a_number_weigh_nothing(number: int, zeroes: int) -> None:
    assert size({"n": {"N": f"{number}{'0' * zeroes}"}}) == size({"n": {"N": str(number)}})


# Reads, with the guide's examples


@pytest.mark.parametrize(
    ("size_bytes", "consistent", "units"),
    [
        (3_500, True, 1),
        (4 * KB, True, 1),
        (4 * KB, False, 0.5),
        (8 * KB, True, 2),
        (8 * KB, False, 1),
        (10 * KB, True, 3),
        (0, True, 1),
        (0, False, 0.5),
    ],
)
def test_a_read_is_rounded_up_to_four_kilobytes(
    size_bytes: int, consistent: bool, units: float
) -> None:
    assert read_units(size_bytes, consistent=consistent) == units


def test_a_batch_rounds_each_item_and_a_query_their_sum() -> None:
    sizes = [int(1.5 * KB), int(6.5 * KB)]
    assert batch_read_units(sizes, consistent=True) == 3  # 4 KB and 8 KB
    assert read_units(sum(sizes), consistent=True) == 2
    assert read_units(int(40.8 * KB), consistent=True) == 11  # 44 KB


# Writes, with the guide's examples


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (None, of(512), 1),
        (None, of(KB), 1),
        (None, of(KB + 1), 2),
        (None, of(int(3.5 * KB)), 4),
        (of(300 * KB), of(310 * KB), 310),
        (of(2 * KB), of(100), 2),
        (of(1500), None, 2),
        (None, None, 1),
    ],
    ids=["half", "one", "over", "3.5", "grown", "shrunk", "deleted", "nothing there"],
)
def test_a_write_costs_what_the_larger_of_both_items_weighs(
    before: dict[str, Any] | None, after: dict[str, Any] | None, units: int
) -> None:
    assert write_units(before, after) == units
    assert write_units(before, after, transactional=True) == 2 * units
    assert failed_write_units(before, after) == units


DUE = Index("due", "due_at")
PLAIN, AT_ONE = of(300, pk="p", sk="s"), of(300, pk="p", sk="s", due="d", due_at="1")
AT_TWO = of(300, pk="p", sk="s", due="d", due_at="2")


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (None, AT_ONE, 1),
        (AT_ONE, None, 1),
        (PLAIN, AT_ONE, 1),
        (AT_ONE, PLAIN, 1),
        (AT_ONE, AT_TWO, 2),
        (AT_ONE, AT_ONE | {"x": {"S": "other"}}, 0),
        (None, PLAIN, 0),
        (None, PLAIN | {"due": {"S": "half a key"}}, 0),
    ],
    ids=["comes", "goes", "joins", "leaves", "moves", "stays", "is not in it", "lacks one"],
)
def test_an_index_is_written_when_its_entry_comes_goes_or_moves(
    before: dict[str, Any] | None, after: dict[str, Any] | None, units: int
) -> None:
    assert DUE.write_units(before, after) == units
    assert write_units(before, after, [DUE]) == 1 + units
    assert write_units(before, after, [DUE], transactional=True) == 2 + units
    assert failed_write_units(before, after) == 1


@given(ITEMS, ITEMS)
def test_a_write_there_and_back_costs_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert write_units(one, other, [DUE]) == write_units(other, one, [DUE])
    assert write_units(one, one, [DUE]) == write_units(None, one)


def test_what_lies_there_weighs_a_hundred_bytes_more_and_so_does_its_entry() -> None:
    assert stored_bytes(PLAIN, [DUE]) == 400
    entry = size({name: AT_ONE[name] for name in ("pk", "sk", "due", "due_at")})
    assert stored_bytes(AT_ONE, [DUE]) == 400 + entry + 100
