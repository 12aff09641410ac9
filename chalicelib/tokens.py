"""Access tokens, shared by all workers through the table: one fetches, the others wait."""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from chalicelib.errors import ConflictError, RetryableError
from chalicelib.ports import Item, Table, Write


class StoredTokens:
    """Access tokens in the table: one worker fetches, under a lease, and all use the result."""

    LEASE_SECONDS = 10.0

    def __init__(self, table: Table, clock: Callable[[], datetime], pause: Callable[[float], None]):
        self._table = table
        self._clock = clock
        self._pause = pause

    def get(self, name: str, fetch: Callable[[], tuple[str, float]], *, stale: str = "") -> str:
        for _ in range(20):
            item = self._table.get(f"TOKEN#{name}", "TOKEN")
            held = json.loads(item.body) if item else {}
            now = self._clock().timestamp()
            if held.get("expires_at", 0) > now and held["token"] != stale:
                return str(held["token"])
            if held.get("lease_until", 0) > now or not self._lease(name, item, held, now):
                self._pause(0.25)
                continue
            return self._refresh(name, fetch)
        raise RetryableError("another worker is fetching a new access token")

    def _lease(self, name: str, item: Item | None, held: dict[str, Any], now: float) -> bool:
        try:
            self._put(name, item, held | {"lease_until": now + self.LEASE_SECONDS})
        except ConflictError:
            return False
        return True

    def _refresh(self, name: str, fetch: Callable[[], tuple[str, float]]) -> str:
        token, seconds = fetch()
        item = self._table.get(f"TOKEN#{name}", "TOKEN")
        # A minute early: a token that ends on its way is worse than one fetched too soon.
        expires_at = self._clock().timestamp() + max(seconds - 60, seconds / 2)
        with suppress(ConflictError):  # our lease ran out, and somebody else's token is as good
            self._put(name, item, {"token": token, "expires_at": expires_at})
        return token

    def _put(self, name: str, item: Item | None, body: dict[str, Any]) -> None:
        expires_at = int(self._clock().timestamp()) + 7 * 24 * 3600
        self._table.write(
            Write(
                item=Item(
                    pk=f"TOKEN#{name}",
                    sk="TOKEN",
                    body=json.dumps(body),
                    version=item.version if item else 0,
                    expires_at=expires_at,
                )
            )
        )
