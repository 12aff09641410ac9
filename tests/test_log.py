"""The log: a line of JSON an event, whatever goes in, and nobody's words or addresses in it."""

import io
import json
from contextlib import redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import log
from tests.fakes import World, world

VALUES = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none())
CANARIES = ("canary-text", "canary-name", "canary-subject", "+15550001111", "canary@example.com")


NAMES = st.from_regex(r"f_[a-z_]{1,12}", fullmatch=True)


def no_number(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_whatever_goes_in_comes_out_as_one_line_of_json(fields: dict[str, log.Field]) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        log.event("tested", **fields)
    assert out.getvalue().isascii()
    (line,) = out.getvalue().splitlines()
    read = json.loads(line, parse_constant=no_number)
    assert read.keys() == {"at", "event"} | {k for k, v in fields.items() if v is not None}
    assert all(read[k] == v for k, v in fields.items() if isinstance(v, str | int))


def test_a_line_cannot_be_broken_or_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    log.event("tested", why="a\nb\r\u2028c\x1b[31m")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "\x1b" not in out


def story(of: World) -> None:
    """Asked by SMS, answered, asked again by email, with something personal everywhere."""
    phone, mailbox = "+15550001111", "canary@example.com"
    proof = [{"address": f"phone:{phone}", "level": "verified", "source": "shop"}]
    of.say("sms", phone, "canary-text, where is it?")
    of.settle()
    of.reply("T1", "canary-text answered")
    of.settle()
    of.say("email", mailbox, "canary-text, where is it?", subject="canary-subject", evidence=proof)
    of.say("email", mailbox, "canary-text", level="claimed")
    of.settle()


def test_no_event_and_no_queue_holds_anything_personal() -> None:
    of = world()
    queued: list[str] = []
    for queue in (of.forward_queue, of.deliver_queue):
        send = queue.send

        def noted(body: str, *, send: object = send, **names: str) -> None:
            queued.append(body + str(names))
            send(body, **names)  # type: ignore[operator]  # the queue's own

        queue.send = noted  # type: ignore[method-assign]  # looks on, changes nothing
    story(of)
    assert "resolved" in of.names()
    seen = str(of.events) + str(queued)
    assert [canary for canary in CANARIES if canary in seen] == []
