"""Writers that race: each comes to its first write before any of them writes."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from chalicelib.aws import DynamoTable
from chalicelib.ports import Write
from tests.fakes import MemoryTable


class Interposed(DynamoTable):
    """DynamoDB on moto, with a hook, and the lock that moto lacks between check and write."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.before_write: Callable[[Sequence[Write]], None] | None = None
        self._lock = threading.Lock()

    def write(self, *writes: Write) -> None:
        if hook := self.before_write:
            hook(writes)
        with self._lock:
            super().write(*writes)


Hooked = MemoryTable | Interposed


def race(table: Hooked, act: Callable[[int], Any], times: int = 2) -> list[Any]:
    """Run an act in threads, each of which comes to its first write before any of them writes."""
    barrier, met = threading.Barrier(times, timeout=30), set[int]()

    def meet(_: Sequence[Write]) -> None:
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            barrier.wait()

    table.before_write = meet
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(act, range(times)))
