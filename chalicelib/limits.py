"""How often one party may ask: token buckets in this container's memory, no call to anybody.

A flood is refused before anything is read or written. Several containers hold several buckets, so
that what a party may do in all is a multiple of its allowance: API Gateway's throttling and AWS WAF
bound that.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime

from chalicelib.errors import TooManyError
from chalicelib.ports import Allowance

_KEPT = 10_000


class Limits:
    """A bucket a party: full at first, refilled evenly, the longest unused one forgotten."""

    def __init__(self) -> None:
        #: {party: (what is left, when that was)}
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def demand(self, allowances: Iterable[Allowance], now: datetime) -> None:
        """Take from each in turn; TooManyError as soon as one holds too little."""
        for allowance in allowances:
            with self._lock:
                missing = self._take(allowance, now.timestamp())
            if missing > 0:
                seconds = math.ceil(missing * 60 / allowance.per_minute)
                raise TooManyError("too many requests", retry_after_seconds=seconds)

    def _take(self, allowance: Allowance, now: float) -> float:
        """How much is missing; what there is is taken only if nothing is."""
        full = float(max(allowance.per_minute, allowance.cost))
        left, before = self._buckets.pop(allowance.party, (full, now))
        left = min(full, left + max(0.0, now - before) * allowance.per_minute / 60)
        missing = allowance.cost - left
        self._buckets[allowance.party] = (left if missing > 0 else -missing, max(now, before))
        while len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        return missing
