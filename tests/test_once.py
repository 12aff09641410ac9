"""What is made once is made by one thread, and the others wait for it."""

import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalicelib import aws
from chalicelib.aws import SqsQueue
from chalicelib.direct import Direct, Signer
from chalicelib.once import once

THREADS = 5


def together(act: Callable[[], Any]) -> list[Any]:
    """What several threads get that begin at once."""
    begin = threading.Barrier(THREADS, timeout=10)

    def run(_: int) -> Any:
        begin.wait()
        return act()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


class Made:
    """Something that takes a while to make, in which others may begin."""

    making, most = 0, 0

    def __init__(self, name: str) -> None:
        Made.making += 1
        Made.most = max(Made.most, Made.making)
        for _ in range(100):
            time.sleep(0)
        Made.making -= 1
        self.name = name


@pytest.fixture(autouse=True)
def afresh() -> None:
    Made.making = Made.most = 0


def test_several_threads_get_the_same() -> None:
    make = once(Made)
    assert len({id(made) for made in together(lambda: make("a"))}) == 1


def test_other_things_are_made_one_after_the_other_too() -> None:
    one, other = once(lambda: Made("a")), once(Made)
    together(lambda: (one(), other("b"), other(name="c")))
    assert Made.most == 1


def test_what_is_forgotten_is_made_anew() -> None:
    make = once(Made)
    first = make("a")
    make.cache_clear()
    assert make("a") is not first


def test_something_may_be_made_of_something_else() -> None:
    inner = once(lambda: Made("a"))
    assert once(lambda: inner().name)() == "a"


def test_what_failed_is_tried_again() -> None:
    failures = [OSError()]

    def make() -> str:
        if failures:
            raise failures.pop()
        return "made"

    made = once(make)
    with pytest.raises(OSError):  # noqa: PT011  # its kind is all that matters
        made()
    assert made() == "made"


def test_threads_share_a_client_of_aws_and_ask_once_for_a_queue(moto_bucket: str) -> None:
    asked: list[str] = []

    def hear(session: Any) -> None:
        asked.append("a client")
        session.register("before-call.sqs.GetQueueUrl", lambda **_: asked.append("the queue"))

    aws.sessions.append(hear)
    queue = SqsQueue("askonce-forward.fifo")
    urls = together(lambda: queue.url)
    aws.sessions.remove(hear)
    assert len(set(urls)) == 1
    assert asked == ["a client", "the queue"]


def test_threads_share_what_tls_takes() -> None:
    signer = Signer(key_id="k", secret="s", region="us-east-1")
    direct = Direct("https://dynamodb.us-east-1.amazonaws.com", signer)
    contexts = together(lambda: direct._tls)
    assert len({id(context) for context in contexts}) == 1
    assert isinstance(contexts[0], ssl.SSLContext)
