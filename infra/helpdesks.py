"""`askonce helpdesks`: what they can do, how they are doing, and moving from one to another."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime

from chalicelib.errors import ConfigurationError, DeliveryError, NotFoundError
from chalicelib.moving import Mover
from chalicelib.pipeline import Pipeline
from chalicelib.ports import Helpdesk, PollingHelpdesk
from connectors.registry import HELPDESKS

#: The local world's own; nobody deploys it.
_OWN = "sandbox"


@dataclass(frozen=True)
class Row:
    """One helpdesk, in words."""

    helpdesk: str
    about: str
    customer: str
    files: str
    fields: str
    once: str
    back: str
    limit: str


_TITLES = Row(
    helpdesk="Helpdesk",
    about="What it is",
    customer="Customer's later words",
    files="Files",
    fields="Shows and follows",
    once="One effect by",
    back="The way back",
    limit="Limits kept",
)
_ONCE = {
    "key": "the desk's idempotency key",
    "look_up": "a look-up before a second try",
    "none": "nothing: a line whose answer was lost may stand twice",
}
_BACK = {"signed": "signed webhooks", "secret_address": "webhooks to a secret address"}


def rows() -> list[Row]:
    """A row a helpdesk, by name."""
    return [_row(load()) for name, load in sorted(HELPDESKS.items()) if name != _OWN]


def _row(kind: type[Helpdesk]) -> Row:
    can = kind.capabilities
    about = importlib.import_module(kind.__module__).__doc__ or ""
    return Row(
        helpdesk=kind.name,
        about=about.strip().partition("\n")[0].rstrip("."),
        customer="as the customer" if can.as_customer else "with the name in front",
        files=_listed({"in": can.files_in, "out": can.files_out}),
        fields=_listed(
            {
                "status": can.status,
                "priority": can.priority,
                "tags": can.tags,
                "merges": can.merges,
                "corrections": can.corrections,
            }
        ),
        once=_ONCE[can.once],
        back=_BACK[can.webhooks]
        + (", and asked what happened" if issubclass(kind, PollingHelpdesk) else ""),
        limit=_limit(kind),
    )


def _listed(can: dict[str, bool]) -> str:
    return ", ".join(name for name, yes in can.items() if yes) or "none"


def _limit(kind: type[Helpdesk]) -> str:
    can = kind.capabilities
    parts = ["what its headers say"]
    if can.calls_per_minute:
        parts.append(f"{can.calls_per_minute} calls a minute")
    if can.updates:
        most, seconds = can.updates
        parts.append(f"{most} updates of a ticket in {seconds // 60} min")
    return ", ".join(parts)


def as_markdown() -> str:
    """The table of docs/helpdesks/README.md."""
    lines = [_cells(_TITLES), ["---"] * len(fields(Row)), *(_cells(row) for row in rows())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def as_text() -> str:
    """A paragraph a helpdesk, for a terminal."""
    width = max(map(len, _cells(_TITLES)))
    blocks = []
    for row in rows():
        told = zip(_cells(_TITLES)[2:], _cells(row)[2:], strict=True)
        lines = [f"{row.helpdesk}  {row.about}"]
        blocks.append("\n".join([*lines, *(f"  {t:<{width}}  {v}" for t, v in told)]))
    return "\n\n".join(blocks) + "\n"


def _cells(row: Row) -> list[str]:
    return [str(getattr(row, field.name)) for field in fields(Row)]


# How they are doing


def states(pipeline: Pipeline) -> Iterator[str]:
    """A line for each configured helpdesk."""
    now = pipeline.clock()
    for name, settings in pipeline.deployment.document.helpdesks.items():
        yield f"{name} ({settings.get('connector')}): {_state(pipeline, name, now)}"


def _state(pipeline: Pipeline, name: str, now: datetime) -> str:
    state = pipeline.store.desk_state(name).noun
    rests = state.rests_until is not None and state.rests_until > now
    until = f" until {state.rests_until:%H:%M:%S} UTC" if rests and state.rests_until else ""
    if state.refused:
        return f"refuses our credentials; is let be{until}: {state.why}"
    if rests and state.failures:
        since = f", since {state.since:%H:%M} UTC" if state.since else ""
        return f"is let be{until} after {state.failures} failures{since}: {state.why}"
    if rests:
        return f"asked us to wait{until}"
    if state.failures:
        return f"works; the last {state.failures} calls failed: {state.why}"
    return "works"


def resume(pipeline: Pipeline, name: str) -> str:
    """Let a helpdesk that is let be have calls again, at once."""
    if name not in pipeline.deployment.document.helpdesks:
        raise NotFoundError(f"there is no helpdesk {name} in askonce.toml")
    held = pipeline.store.desk_state(name)
    changes = {"failures": 0, "refused": False, "rests_until": None, "why": "", "since": None}
    pipeline.store.commit(held.change(**changes))
    return f"{name} has calls again"


# Moving


@dataclass
class Moved:
    """What became of a move."""

    moved: int = 0
    failed: int = 0


def move(
    pipeline: Pipeline,
    source: str,
    target: str,
    inbox: str | None,
    tell: Callable[[str], None],
    *,
    dry_run: bool,
) -> Moved:
    """Move every open conversation; a line for each that cannot. ConfigurationError."""
    _demand_both(pipeline, source, target)
    mover = Mover(pipeline.store, pipeline.deployment, pipeline.clock, pipeline.report)
    summary = Moved()
    for conversation in list(mover.waiting(source, inbox)):
        try:
            if not dry_run:
                mover.move(conversation.id, source, target)
        except (DeliveryError, ConfigurationError) as error:
            summary.failed += 1
            tell(f"{conversation.reference} did not move: {error}")
        else:
            summary.moved += 1
            tell(f"{conversation.reference} {'would move' if dry_run else 'moved'}")
    return summary


def _demand_both(pipeline: Pipeline, source: str, target: str) -> None:
    known = pipeline.deployment.document.helpdesks
    for name in (source, target):
        if name not in known:
            raise ConfigurationError(
                f"there is no helpdesk {name} in askonce.toml: it has {', '.join(known)}"
            )
    if source == target:
        raise ConfigurationError(f"{source} is where they are")
