"""The log: a line of JSON an event, whatever goes in, and nobody's words or addresses in it."""

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import log
from chalicelib.consumer import consume
from chalicelib.errors import ConfigurationError, RejectedError, RetryableError
from chalicelib.ports import WebhookRequest
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


class Stuttering(io.StringIO):
    """Writes letter by letter, and lets others come between."""

    def write(self, text: str) -> int:
        for letter in text:
            super().write(letter)
            time.sleep(0)
        return len(text)


def test_lines_of_several_threads_stay_whole() -> None:
    def tell(thread: int) -> None:
        for n in range(20):
            log.event("tested", thread=thread, n=n)

    with redirect_stdout(Stuttering()) as out, ThreadPoolExecutor(5) as pool:
        list(pool.map(tell, range(5)))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert sorted((line["thread"], line["n"]) for line in lines) == [
        (thread, n) for thread in range(5) for n in range(20)
    ]


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


# Whose line it is

#: What is about no message: a helpdesk as a whole, a count, what an agent did to a ticket.
OF_NO_MESSAGE = {"helpdesk.refused", "helpdesk.resting", "helpdesk.back", "backlog"}
OF_A_TICKET = {"ticket.changed"}


def eventful(of: World) -> None:
    """Refused for a while by the desk, answered in vain, asked again, late, closed."""
    of.say("sms", "+15550001111", "canary-text, where is it?")
    of.desk.failures += [RetryableError("down")] * 3 + [ConfigurationError("refused")]
    name = of.messages()[0].message.id
    of.pipeline.relay(name)
    for _ in range(12):
        record = {"body": json.dumps({"message_id": name}), "receiptHandle": "r"}
        attributes = {"MessageGroupId": "g", "ApproximateReceiveCount": "1"}
        consume(
            [record | {"messageId": "s", "attributes": attributes}],
            of.pipeline.forward,
            lambda _receipt, _seconds: None,
            lambda: 60.0,
            at_once=5,
        )
        of.clock.forward(minutes=3)
        of.pipeline.tick()
    of.settle()
    of.channel("sms").failures.append(RejectedError("the number is unknown"))
    of.reply("T1", "canary-text answered")
    of.settle()
    of.say("email", "canary@example.com", "canary-text, where is it?", subject="canary-subject")
    of.settle()
    closed = {"ticket_id": "T1", "state": "closed", "external_id": "e1"}
    of.pipeline.accept_reply("desk", of.request(closed))


def lines_of(of: World, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, dict[str, object]]]:
    """What the steps reported, and what the consumer wrote by itself."""
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return of.events + [(str(line["event"]), line) for line in written]


def test_every_line_of_a_messages_life_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    of = world()
    eventful(of)
    found = lines_of(of, capsys)
    ids = {stored.message.id for stored in of.messages()}
    nameless = {e for e, f in found if f.get("message") not in ids} - OF_NO_MESSAGE - OF_A_TICKET
    assert nameless == set()
    assert {"retrying", "stuck", "forwarded", "undelivered", "overdue", "noted"} <= {
        event for event, _ in found
    }


def test_a_line_of_a_ticket_names_its_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    of = world()
    eventful(of)
    told = [f for e, f in lines_of(of, capsys) if e in OF_A_TICKET]
    assert [f["conversation"] for f in told] == [of.messages()[0].message.conversation_id]


def test_nothing_personal_stands_in_a_line_of_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    of = world()
    eventful(of)
    seen = str(lines_of(of, capsys))
    assert [canary for canary in CANARIES if canary in seen] == []


def test_an_error_that_quotes_the_customer_is_told_by_its_place_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(_message: str) -> None:
        raise ValueError("canary-text is no number")

    record = {"body": '{"message_id": "m1"}', "receiptHandle": "r", "messageId": "s"}
    consume(
        [record | {"attributes": {}}],
        work,
        lambda _receipt, _seconds: None,
        lambda: 60.0,
        at_once=1,
    )
    out = capsys.readouterr().out
    assert "canary-text" not in out
    assert json.loads(out)["why"] == "ValueError"
    assert json.loads(out)["place"].startswith("test_log.py:")


def test_what_is_unreadable_is_named_by_the_gateways_id() -> None:
    of = world()
    request = WebhookRequest(
        method="POST",
        headers={"signature": ("right",)},
        body=b"{canary-text",
        received_at=of.clock.now,
        id="gateway-1",
    )
    of.pipeline.accept("sms", request)
    [(event, fields)] = of.events
    assert (event, fields["request"]) == ("quarantined", "gateway-1")
    assert "canary-text" not in str(fields)


def test_what_was_accepted_is_named_by_both_ids() -> None:
    of = world()
    line = [{"from": "li", "text": "hello", "id": "1"}]
    request = replace(of.request(line), id="gateway-1")
    of.pipeline.accept("sms", request)
    [(_, fields)] = of.events
    assert (fields["message"], fields["request"]) == (of.messages()[0].message.id, "gateway-1")
