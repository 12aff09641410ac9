"""Access tokens in the table: one worker fetches, all use the result, none uses an old one."""

import threading
from datetime import UTC, datetime

import pytest

from chalicelib.errors import RetryableError
from chalicelib.ports import Table
from chalicelib.tokens import StoredTokens
from tests.fakes import Clock
from tests.racing import Hooked, race


class Fetching:
    """Fetches tokens that are numbered, each good for an hour."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> tuple[str, float]:
        self.times += 1
        return f"token-{self.times}", 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.now(UTC))


@pytest.fixture
def tokens(table: Table, clock: Clock) -> StoredTokens:
    def pause(seconds: float) -> None:
        clock.forward(seconds=seconds)

    return StoredTokens(table, clock, pause)


def test_one_worker_fetches_a_token_and_all_use_it(hooked: Hooked, clock: Clock) -> None:
    fetch, one_waits, one_has_it = Fetching(), threading.Event(), threading.Event()

    def fetch_slowly() -> tuple[str, float]:
        one_waits.wait(30)
        return fetch()

    def pause(_: float) -> None:
        one_waits.set()
        one_has_it.wait(30)

    def get(_: int) -> str:
        token = StoredTokens(hooked, clock, pause).get("wechat", fetch_slowly)
        one_has_it.set()
        return token

    assert race(hooked, get) == ["token-1", "token-1"]


def test_a_token_is_fetched_anew_before_it_ends(tokens: StoredTokens, clock: Clock) -> None:
    fetch = Fetching()
    tokens.get("wechat", fetch)
    clock.forward(seconds=3600 - 61)
    assert tokens.get("wechat", fetch) == "token-1"
    clock.forward(seconds=1)
    assert tokens.get("wechat", fetch) == "token-2"


def test_tokens_of_different_names_are_apart(tokens: StoredTokens) -> None:
    fetch = Fetching()
    got = [tokens.get(name, fetch) for name in ("a", "b", "a")]
    assert got == ["token-1", "token-2", "token-1"]


def test_a_refused_token_is_replaced_once_whoever_reports_it(tokens: StoredTokens) -> None:
    fetch = Fetching()
    stale = tokens.get("wechat", fetch)
    assert [tokens.get("wechat", fetch, stale=stale) for _ in range(2)] == ["token-2"] * 2
    assert tokens.get("wechat", fetch) == "token-2"


def test_a_fetch_that_failed_is_tried_again_when_its_lease_ends(
    tokens: StoredTokens, clock: Clock
) -> None:
    def fails() -> tuple[str, float]:
        raise RetryableError("WeChat is busy")

    with pytest.raises(RetryableError, match="busy"):
        tokens.get("wechat", fails)
    with pytest.raises(RetryableError, match="another worker"):
        tokens.get("wechat", Fetching())
    clock.forward(seconds=StoredTokens.LEASE_SECONDS / 2)
    assert tokens.get("wechat", Fetching()) == "token-1"
