"""One line of JSON per event, on standard output, without personal data.

Callers pass names, ids, counts and reasons of our own wording; never text, addresses or headers.
The local world listens too: what `askonce tail` shows is what the log holds.
"""

import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime

Field = str | int | float | bool | None
Listener = Callable[[dict[str, Field]], None]

listeners: list[Listener] = []
quiet = False


def event(name: str, **fields: Field) -> None:
    """Write one line: `at`, `event`, and the fields that are not None."""
    line: dict[str, Field] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    line |= {"event": name} | {k: _plain(v) for k, v in fields.items() if v is not None}
    if not quiet:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    for listener in listeners:
        listener(line)


def _plain(value: Field) -> Field:
    """JSON has no word for an infinite number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
