"""What is made on first use, and once, though several threads may want it first."""

import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class once(Generic[P, T]):  # noqa: N801  # a decorator, named like functools.cache
    """functools.cache, under a lock: who comes while something is made waits for it.

    `cache` alone would let each thread of a first batch make a client of its own, which takes more
    CPU than a message does. The lock is one for all: boto3's clients come of one session, which is
    not made for threads.
    https://boto3.amazonaws.com/v1/documentation/api/latest/guide/session.html
    """

    _making = threading.RLock()

    def __init__(self, make: Callable[P, T]) -> None:
        cached = cache(make)
        self._made: Callable[..., T] = cached
        self.cache_clear = cached.cache_clear
        update_wrapper(self, make)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._making:
            return self._made(*args, **kwargs)
