"""What every connector can do, from what it declares: `askonce connectors`, docs/connectors.md."""

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from chalicelib.ports import Connector, FetchingConnector, HostedConnector, SendWindow
from chalicelib.schema import Kind
from connectors.registry import CONNECTORS

#: Written out only where something is left out.
_ALL = frozenset(Kind)
_UNITS = ((3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Row:
    """One connector, in words."""

    connector: str
    channel: str
    provider: str
    kinds_in: str
    kinds_out: str
    window: str
    receipts: str
    opt_out: str
    evidence: str
    more: str


_TITLES = Row(
    connector="Connector",
    channel="Channel",
    provider="Provider",
    kinds_in="Kinds in",
    kinds_out="Kinds out",
    window="Send window",
    receipts="Receipts",
    opt_out="Opt-out",
    evidence="Identity evidence",
    more="Besides",
)


def rows() -> list[Row]:
    """A row a connector, by channel and name."""
    kinds = [load() for load in CONNECTORS.values()]
    return [_row(kind) for kind in sorted(kinds, key=lambda k: (k.channel.value, k.name))]


def _row(kind: type[Connector]) -> Row:
    can = kind.capabilities
    about = importlib.import_module(kind.__module__).__doc__ or ""
    return Row(
        connector=kind.name,
        channel=kind.channel.value,
        provider=about.strip().partition("\n")[0].rstrip("."),
        kinds_in=_kinds(can.kinds_in),
        kinds_out=_kinds(can.kinds_out),
        window=", ".join(_window(name, w) for name, w in sorted(can.windows.items())) or "always",
        receipts="yes" if can.receipts else "no",
        opt_out="yes" if can.opt_out else "no",
        evidence=", ".join(can.evidence) or "none",
        more=", ".join(_more(kind)) or "",
    )


def _kinds(kinds: frozenset[Kind]) -> str:
    if kinds == _ALL:
        return "all"
    return ", ".join(kind.value for kind in Kind if kind in kinds)


def _window(name: str, window: SendWindow) -> str:
    seconds = int(window.seconds)
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{window.count} in {seconds // size} {unit} after {name}"


def _more(kind: type[Connector]) -> Iterator[str]:
    can = kind.capabilities
    if can.answers_within_seconds:
        yield f"answers in the webhook's response, within {can.answers_within_seconds:g} s"
    if can.threads:
        yield "threads"
    if can.choices:
        yield "shows choices"
    if can.resends_safely:
        yield "sending twice reaches the customer once"
    if kind.secret_in_path:
        yield "secret in its address"
    if issubclass(kind, FetchingConnector):
        yield "messages are fetched"
    if issubclass(kind, HostedConnector):
        yield "served by AskOnce itself"


def as_markdown(found: Iterable[Row]) -> str:
    """A table of Markdown."""
    lines = [_cells(_TITLES), ["---"] * len(fields(Row)), *(_cells(row) for row in found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(row: Row) -> list[str]:
    return [str(getattr(row, field.name)) for field in fields(Row)]


def as_text(found: Iterable[Row]) -> str:
    """A paragraph a connector, for a terminal."""
    width = max(len(title) for title in _cells(_TITLES))
    blocks = []
    for row in found:
        lines = [f"{row.connector}  {row.provider}"]
        for field in fields(Row)[3:]:
            if value := getattr(row, field.name):
                lines.append(f"  {getattr(_TITLES, field.name):<{width}}  {value}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
