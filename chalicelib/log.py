"""One line of JSON per event, on standard output, without personal data.

Callers pass names, ids, counts and reasons of our own wording; never text, addresses or headers.
On Lambda a line carries its metrics, too (`metrics`).
The local world listens: what `askonce tail` shows is what the log holds.
"""

import json
import math
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from chalicelib import metrics

Field = str | int | float | bool | None
Listener = Callable[[dict[str, Field]], None]

listeners: list[Listener] = []
quiet = False
#: Of the output, which is not made for threads: lines of a batch's conversations stay whole.
_writing = threading.Lock()
#: How many places of a traceback are told.
_PLACES = 3


def event(name: str, **fields: Field) -> None:
    """Write one line: `at`, `event`, and the fields that are not None."""
    now = datetime.now(UTC)
    line: dict[str, Field] = {"at": now.isoformat(timespec="milliseconds"), "event": name}
    line |= {k: _plain(v) for k, v in fields.items() if v is not None}
    if not quiet:
        # Without blanks: each byte of it is paid for.
        written = json.dumps(line | _metrics(line, now), separators=(",", ":")) + "\n"
        with _writing:
            sys.stdout.write(written)
            sys.stdout.flush()
    for listener in listeners:
        listener(line)


def _metrics(line: dict[str, Field], now: datetime) -> dict[str, object]:
    """Only CloudWatch wants them."""
    if "AWS_LAMBDA_FUNCTION_NAME" not in os.environ:
        return {}
    prefix = os.environ.get("ASKONCE_PREFIX", "askonce")
    return metrics.embedded(line, prefix, int(now.timestamp() * 1000))


def place(error: BaseException) -> str:
    """Where an error that we did not expect was raised, innermost first.

    Never what it says: a library's message may quote what a customer wrote.
    """
    found, frames = [], error.__traceback__
    while frames:
        code = frames.tb_frame.f_code
        found.append(f"{code.co_filename.rpartition('/')[2]}:{frames.tb_lineno}")
        frames = frames.tb_next
    return " < ".join(found[: -_PLACES - 1 : -1])


def _plain(value: Field) -> Field:
    """JSON has no word for an infinite number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
