"""`askonce contacts import customers.csv`: which addresses are whose, by your own list.

Columns, in any order: customer_id, email, phone, wechat (<appid>:<openid>), wechat_union, webchat;
`name` is ignored. UTF-8, with or without a byte order mark, separated by commas or semicolons.
Safe to run again, and to go on after it was stopped.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chalicelib.customers import CUSTOMER_LIST, Customers
from chalicelib.errors import AskOnceError, ConflictError
from chalicelib.ports import Item, Table, Write

CUSTOMER_ID = "customer_id"
ADDRESSES = ("email", "phone", "wechat", "wechat_union", "webchat")
IGNORED = ("name",)
_LONGEST_ID = 255
#: ISO code -> country calling code, and the prefix that only calls inside the country have.
COUNTRIES: Mapping[str, tuple[str, str]] = {
    "AE": ("971", "0"), "AT": ("43", "0"), "AU": ("61", "0"), "BE": ("32", "0"), "BR": ("55", "0"),
    "CA": ("1", "1"), "CH": ("41", "0"), "CN": ("86", "0"), "CZ": ("420", ""), "DE": ("49", "0"),
    "DK": ("45", ""), "ES": ("34", ""), "FI": ("358", "0"), "FR": ("33", "0"), "GB": ("44", "0"),
    "HK": ("852", ""), "ID": ("62", "0"), "IE": ("353", "0"), "IN": ("91", "0"), "IT": ("39", ""),
    "JP": ("81", "0"), "KR": ("82", "0"), "MO": ("853", ""), "MX": ("52", ""), "MY": ("60", "0"),
    "NL": ("31", "0"), "NO": ("47", ""), "NZ": ("64", "0"), "PH": ("63", "0"), "PL": ("48", ""),
    "PT": ("351", ""), "SE": ("46", "0"), "SG": ("65", ""), "TH": ("66", "0"), "TW": ("886", "0"),
    "US": ("1", "1"), "VN": ("84", "0"), "ZA": ("27", "0"),
}  # fmt: skip


class CsvError(AskOnceError):
    """The file cannot be read as a list of customers, and why."""


@dataclass(frozen=True)
class Row:
    """One line of the file, as it stands there."""

    line: int
    customer_id: str
    #: (column, what stands in it)
    cells: Sequence[tuple[str, str]]


@dataclass
class Summary:
    """What became of the list."""

    customers: set[str] = field(default_factory=set)
    #: `linked`, `already`, `refused` -> how many addresses.
    counts: Counter[str] = field(default_factory=Counter)
    #: A line for each refusal: where, and why.
    refused: list[str] = field(default_factory=list)


def rows(path: Path) -> list[Row]:
    """The lines of a list of customers. CsvError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CsvError(
            f"{path.name}: byte {error.start} is not UTF-8: save it as CSV UTF-8"
        ) from None
    except OSError as error:
        raise CsvError(f"{path.name}: cannot be read: {error.strerror}") from None
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(header), strict=True)
    try:
        return list(_rows(reader, path.name))
    except csv.Error as error:
        raise CsvError(f"{path.name}: line {reader.line_num}: {error}") from None


def _delimiter(header: str) -> str:
    return ";" if header.count(";") > header.count(",") else ","


def _rows(lines: Any, name: str) -> Iterator[Row]:
    names = [cell.strip().lower() for cell in next(lines, [])]
    known = {CUSTOMER_ID, *ADDRESSES, *IGNORED}
    if unknown := [n for n in names if n not in known]:
        raise CsvError(f'{name}: the column "{unknown[0]}" is unknown; there are {_listed(known)}')
    if CUSTOMER_ID not in names or not {*names} & {*ADDRESSES}:
        raise CsvError(f"{name}: needs {CUSTOMER_ID} and at least one of {', '.join(ADDRESSES)}")
    if twice := [n for n, count in Counter(names).items() if count > 1]:
        raise CsvError(f'{name}: the column "{twice[0]}" is there twice')
    for cells in lines:
        number = lines.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise CsvError(f"{name}: line {number} has {len(cells)} cells, not {len(names)}")
        stands = {n: cell.strip() for n, cell in zip(names, cells, strict=True)}
        found = [(column, stands[column]) for column in ADDRESSES if stands.get(column)]
        yield Row(number, stands[CUSTOMER_ID], found)


def _listed(names: Iterable[str]) -> str:
    order = (CUSTOMER_ID, *ADDRESSES, *IGNORED)
    return ", ".join(sorted(names, key=order.index))


def e164(number: str, country: str | None) -> str:
    """A phone number as people write it, in E.164. ValueError that says what is wrong."""
    digits = re.sub(r"[\s().\-/]", "", number.replace("(0)", ""))
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    if not digits.startswith("+"):
        if country is None:
            raise ValueError("a number without +: say of which country by --country")
        code, trunk = COUNTRIES[country]
        digits = f"+{code}{digits.removeprefix(trunk)}"
    if not re.fullmatch(r"\+[1-9]\d{6,14}", digits, re.ASCII):
        raise ValueError("no phone number")
    return digits


def take(
    customers: Customers,
    found: Sequence[Row],
    *,
    country: str | None,
    by: str,
    progress: Callable[[int], object],
) -> Summary:
    """Link every address to its customer; `progress` hears how many rows are done."""
    summary = Summary()
    for done, row in enumerate(found, start=1):
        for column, cell in row.cells:
            why = _link(customers, row, column, cell, country, by, summary)
            if why:
                summary.counts["refused"] += 1
                summary.refused.append(f"line {row.line}: {column} {cell}: {why}")
        progress(done)
    return summary


def _link(  # one cell of one row
    customers: Customers,
    row: Row,
    column: str,
    cell: str,
    country: str | None,
    by: str,
    summary: Summary,
) -> str:
    """Why it was refused; '' if it was not."""
    if not row.customer_id or len(row.customer_id) > _LONGEST_ID:
        return "no customer_id, or too long a one"
    if column == "phone":
        try:
            cell = e164(cell, country)
        except ValueError as error:
            return str(error)
    result = customers.link(row.customer_id, f"{column}:{cell}", source=CUSTOMER_LIST, by=by)
    if result.outcome == "refused":
        return result.why
    summary.customers.add(row.customer_id)
    summary.counts[result.outcome] += 1
    return ""


class Rehearsal:
    """A table in whose stead everything happens, and nothing is written: for a dry run."""

    def __init__(self, table: Table) -> None:
        self._table = table
        #: What would lie there; None for what would be gone.
        self._written: dict[tuple[str, str], Item | None] = {}

    def get(self, pk: str, sk: str) -> Item | None:
        if (pk, sk) in self._written:
            return self._written[pk, sk]
        return self._table.get(pk, sk)

    def get_all(self, keys: Sequence[tuple[str, str]], *, consistent: bool = True) -> list[Item]:
        return [item for key in keys if (item := self.get(*key))]

    def query(
        self, pk: str, low: str, high: str, *, newest_first: bool = False, limit: int = 100
    ) -> list[Item]:
        there = self._table.query(pk, low, high, newest_first=newest_first, limit=limit)
        found: dict[str, Item | None] = {item.sk: item for item in there}
        own = {sk: item for (key, sk), item in self._written.items() if key == pk}
        found |= {sk: item for sk, item in own.items() if low <= sk <= high}
        items = [found[sk] for sk in sorted(found, reverse=newest_first)]
        return [item for item in items if item][:limit]

    def due(self, bucket: str, until: str, limit: int = 100) -> dict[tuple[str, str], str]:
        return self._table.due(bucket, until, limit)

    def thread(self, name: str, limit: int = 500) -> list[tuple[str, str]]:
        return self._table.thread(name, limit)

    def scan(self, *prefixes: str) -> Iterator[list[Item]]:
        return self._table.scan(*prefixes)

    def write(self, *writes: Write) -> None:
        for write in writes:
            existing = self.get(write.item.pk, write.item.sk)
            if (existing.version if existing else 0) != write.item.version:
                raise ConflictError("written by somebody else", existing=existing)
        for write in writes:
            after = None if write.delete else replace(write.item, version=write.item.version + 1)
            self._written[write.item.pk, write.item.sk] = after
