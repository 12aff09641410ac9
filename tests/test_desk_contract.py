"""What every helpdesk must do, over a fake of it: each call has one effect, whatever is lost.

A module of tests/desks that declares FAKES, SETTINGS and a fake with `shown` is tested by that.
`TWICE` names the calls after which a line may stand there twice: of a desk that knows no key and
lists nothing, where our own declaration says so as well.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import groupby
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Protocol

import pytest
from pydantic import SecretStr

from chalicelib.errors import (
    AskOnceError,
    ConfigurationError,
    GoneError,
    RejectedError,
    RetryableError,
)
from chalicelib.ports import Helpdesk, PollingHelpdesk
from chalicelib.schema import Attachment, Priority
from connectors import ticket_text
from connectors.registry import HELPDESKS
from tests import desks, nouns
from tests.desk_server import Asked, DeskServer, Failure, Said
from tests.fakes import START
from tests.loopback import NEVER
from tests.recorded import helpdesk

pytestmark = pytest.mark.usefixtures("no_waiting")


class Fake(Protocol):
    """A desk's API, and what its agents see."""

    def answer(self, asked: Asked) -> Said:
        """Act, and say what came of it."""
        ...

    def shown(self) -> Mapping[str, list[str]]:
        """{ticket: what stands on it}, private remarks in brackets."""
        ...


def declared() -> dict[str, ModuleType]:
    """{helpdesk: the module that plays it}."""
    names = (f"tests.desks.{module.name}" for module in iter_modules(desks.__path__))
    modules = (import_module(name) for name in names)
    return {desk: module for module in modules for desk in getattr(module, "FAKES", {})}


PLAYED = declared()
each_desk = pytest.mark.parametrize("name", sorted(PLAYED))
ASKED, MORE, NOTE = "Where is my parcel? 包裹在哪", "It should have come <today> &c.", "asked twice"
URGENT, FILE = "Hello?!", Attachment(name="票.png", media_type="image/png", content=b"\x89PNG")
CONVERSATION = nouns.conversation(ASKED)
REPEATED = nouns.conversation(ASKED, priority=Priority.HIGH)


class World:
    """A desk, what it talks to, and what was done so far."""

    def __init__(self, name: str, fake: Fake, server: DeskServer) -> None:
        self.fake, self.server = fake, server
        settings = {**PLAYED[name].SETTINGS, "url": server.url}
        self.desk: Helpdesk = helpdesk(name, settings)
        self.ticket = ""

    def open(self, *, again: bool = False) -> None:
        self.ticket = self.desk.open_ticket(
            nouns.message(ASKED), CONVERSATION, idempotency_key="q1", again=again
        )

    def comment(self, *, again: bool = False) -> None:
        message = nouns.message(MORE, external_id="SM2")
        self.desk.add_comment(self.ticket, message, CONVERSATION, idempotency_key="m2", again=again)

    def urge(self, *, again: bool = False) -> None:
        """What most requests are made for: it has a file, and makes the ticket urgent."""
        message = nouns.message(URGENT, external_id="SM4", attachments=(FILE,))
        self.desk.add_comment(self.ticket, message, REPEATED, idempotency_key="m4", again=again)

    def note(self, *, again: bool = False) -> None:
        self.desk.add_note(self.ticket, NOTE, CONVERSATION, idempotency_key="n3", again=again)


CALLS: dict[str, Callable[..., None]] = {
    "open": World.open,
    "comment": World.comment,
    "urge": World.urge,
    "note": World.note,
}
each_call = pytest.mark.parametrize("call", CALLS)
#: A call that is about a ticket which is there.
each_later_call = pytest.mark.parametrize("call", ["comment", "urge", "note"])


@contextmanager
def world(name: str, *, before: str = "open") -> Iterator[World]:
    """A world in which everything that comes before a call went well."""
    fake = PLAYED[name].FAKES[name]()
    with DeskServer(fake) as server:
        made = World(name, fake, server)
        if before != "open":
            made.open()
        server.asked.clear()
        yield made


def undisturbed(name: str, call: str) -> tuple[int, Mapping[str, list[str]]]:
    """How many requests a call makes, and what the desk shows after it."""
    with world(name, before=call) as w:
        CALLS[call](w)
        return len(w.server.asked), w.fake.shown()


@each_desk
def test_a_ticket_shows_the_customers_words_and_our_notes_to_agents_only(name: str) -> None:
    with world(name) as w:
        for call in CALLS.values():
            call(w)
        said = [read(name, text) for text in (ASKED, MORE, URGENT)]
        assert w.fake.shown() == {w.ticket: [*said, f"[{NOTE}]"]}


def read(name: str, text: str) -> str:
    """A customer's words as agents read them: as the customer's, else with the name in front."""
    if HELPDESKS[name]().capabilities.as_customer:
        return text
    return ticket_text.with_name(nouns.message(text))


@pytest.mark.parametrize("reset", ["before", "after"])
@each_call
@each_desk
def test_a_second_try_leaves_the_desk_as_if_no_line_had_been_cut(
    name: str, call: str, reset: Any
) -> None:
    requests, wanted = undisturbed(name, call)
    stood_twice = False
    for lost in range(requests):
        with world(name, before=call) as w:
            # thrice: what may be repeated is repeated at once
            w.server.fail(*[None] * lost, *[Failure(reset=reset)] * 3)
            with suppress(RetryableError):
                CALLS[call](w)
            w.server.mend()
            CALLS[call](w, again=True)
            shown = list(w.fake.shown().values())
        if may_stand_twice(name, call) and reset == "after":
            stood_twice |= shown != list(wanted.values())
            shown = [[line for line, _ in groupby(lines)] for lines in shown]
        assert shown == list(wanted.values()), f"request {lost + 1} of {requests}"
    assert stood_twice == (may_stand_twice(name, call) and reset == "after")


def may_stand_twice(name: str, call: str) -> bool:
    """Whether a line whose answer was lost stands there twice, and once is not to be had."""
    return call in getattr(PLAYED[name], "TWICE", ())


@each_desk
def test_a_desk_that_may_show_a_line_twice_is_declared_as_one(name: str) -> None:
    none = HELPDESKS[name]().capabilities.once == "none"
    assert none == any(may_stand_twice(name, call) for call in CALLS)


def test_no_desk_goes_without_this() -> None:
    assert set(PLAYED) == set(HELPDESKS)


def failing(name: str, call: str, *failures: Failure | None) -> AskOnceError:
    with world(name, before=call) as w:
        w.server.fail(*failures)
        with pytest.raises(AskOnceError) as caught:
            CALLS[call](w)
    assert not [secret for secret in secrets_of(w.desk) if secret in str(caught.value)]
    return caught.value


def secrets_of(desk: Helpdesk) -> list[str]:
    """Its secrets in the clear."""
    listed = (v if isinstance(v, tuple) else (v,) for _, v in desk.settings)
    return [s.get_secret_value() for held in listed for s in held if isinstance(s, SecretStr)]


@each_call
@each_desk
def test_a_desk_that_asks_for_time_gets_it(name: str, call: str) -> None:
    error = failing(name, call, *[Failure(429, {"Retry-After": "17"})] * 3)
    assert isinstance(error, RetryableError)
    assert error.retry_after_seconds == 17.0


@each_call
@each_desk
def test_a_desk_that_refuses_our_credentials_is_a_matter_of_configuration(
    name: str, call: str
) -> None:
    assert isinstance(failing(name, call, Failure(401)), ConfigurationError)


@each_later_call
@each_desk
def test_a_ticket_that_is_not_there_any_more_is_gone(name: str, call: str) -> None:
    assert isinstance(failing(name, call, Failure(404)), GoneError)


@pytest.mark.parametrize("status", sorted(set(NEVER) - {401, 403, 404, 409, 410}))
@each_later_call
@each_desk
def test_what_it_will_never_take_is_final(name: str, call: str, status: int) -> None:
    assert isinstance(failing(name, call, Failure(status)), RejectedError)


@pytest.mark.parametrize("body", ["", "null", "[]", "7", "<html>busy</html>"])
@each_call
@each_desk
def test_an_answer_that_cannot_be_read_is_asked_for_again_or_not_needed(
    name: str, call: str, body: str
) -> None:
    requests, _ = undisturbed(name, call)
    for odd in range(requests):
        with world(name, before=call) as w, suppress(RetryableError):
            w.server.fail(*[None] * odd, *[Failure(200, body=body)] * 3)
            CALLS[call](w)


@each_desk
def test_a_desk_that_is_asked_begins_now(name: str) -> None:
    with world(name) as w:
        if isinstance(w.desk, PollingHelpdesk):
            assert not w.desk.poll("", START).found
