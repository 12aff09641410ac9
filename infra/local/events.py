"""What happens in the local world, as it happens: kept for a while, followed by any number."""

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator

from chalicelib.log import Field

_KEPT = 500
FAIL_AT_ENVIRONMENT = "ASKONCE_FAIL_AT"


class Events:
    """A listener of chalicelib.log whose lines can be followed."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, dict[str, Field]]] = deque(maxlen=_KEPT)
        self._count = 0
        self._changed = threading.Condition()

    def __call__(self, line: dict[str, Field]) -> None:
        with self._changed:
            self._count += 1
            self._lines.append((self._count, line))
            self._changed.notify_all()

    def kept(self) -> list[dict[str, Field]]:
        """The latest lines, oldest first."""
        with self._changed:
            return [line for _, line in self._lines]

    def follow(
        self, after: int, idle_seconds: float
    ) -> Iterator[tuple[int, dict[str, Field]] | None]:
        """Lines after a number, for ever; None whenever nothing happened for a while."""
        while True:
            with self._changed:
                fresh = [pair for pair in self._lines if pair[0] > after]
                if not fresh and not self._changed.wait(idle_seconds):
                    fresh = []
            yield from fresh
            if not fresh:
                yield None
            after = fresh[-1][0] if fresh else after


def kill_at(wanted: str) -> "_Killer":
    """A listener that kills this process, as a power cut would, at an event: `name` or `name:3`."""
    name, _, count = wanted.partition(":")
    return _Killer(name, int(count or 1))


class _Killer:
    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count
        self._seen: Counter[str] = Counter()

    def __call__(self, line: dict[str, Field]) -> None:
        name = str(line["event"])
        self._seen[name] += 1
        if name == self._name and self._seen[name] == self._count:
            os.kill(os.getpid(), signal.SIGKILL)
