"""Send windows: asked before sending; where one is closed, another channel or later, and a note."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import ledgers
from chalicelib.contacts import Contacts
from chalicelib.errors import ClosedError, RetryableError
from chalicelib.items import Step
from chalicelib.ledgers import SendLedger
from chalicelib.ports import SendWindow
from chalicelib.schema import Delivery
from tests.fakes import START, Clock, World, crash_at, world

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]


@pytest.fixture
def w() -> World:
    return world()


def asked(w: World, **more: object) -> None:
    w.say("official", "li", QUESTION, **more)
    w.settle()


def answered(w: World, text: str = ANSWER) -> None:
    w.reply("T1", text)
    w.settle()


def click(w: World) -> None:
    w.say("official", "li", "", kind="event", event={"name": "click", "key": "menu"})
    w.settle()


def step_of_reply(w: World, number: int = -1) -> Step:
    replies = [s for s in w.messages() if s.message.direction.value == "outbound"]
    return replies[number].step


# Open


def test_a_reply_goes_out_while_the_window_is_open(w: World) -> None:
    asked(w)
    answered(w)
    assert w.sent("official") == [ANSWER]
    assert w.messages()[-1].delivery is Delivery.SENT


def test_the_count_of_a_window_is_kept(w: World) -> None:
    asked(w)
    for text in ("one", "two", "three"):
        answered(w, text)
    assert w.sent("official") == ["one", "two"]
    assert step_of_reply(w) is Step.HELD


def test_a_message_opens_the_window_again_in_full(w: World) -> None:
    asked(w)
    answered(w, "one")
    w.clock.forward(hours=1)
    w.say("official", "li", "And white tea?")
    w.settle()
    for text in ("two", "three", "four"):
        answered(w, text)
    assert w.sent("official") == ["one", "two", "three"]


def test_a_channel_without_windows_may_be_written_to_at_any_time(w: World) -> None:
    w.say("sms", "li", QUESTION)
    w.settle()
    w.clock.forward(days=300)
    answered(w)
    assert w.sent("sms") == [ANSWER]


# Later, where it is closed


def test_a_reply_after_the_window_waits_and_the_agents_hear_of_it(w: World) -> None:
    asked(w)
    w.clock.forward(hours=49)
    answered(w)
    assert w.sent("official") == []
    assert step_of_reply(w) is Step.HELD
    assert [note for note in w.desk.notes if "Not sent yet" in note]


def test_what_waits_goes_out_when_the_customer_writes_again(w: World) -> None:
    asked(w)
    w.clock.forward(hours=49)
    answered(w, "one")
    answered(w, "two")
    w.say("official", "li", "Hello?")
    w.settle()
    assert w.sent("official") == ["one", "two"]
    assert step_of_reply(w) is Step.DONE


def test_a_menu_click_opens_a_short_window_for_what_waits(w: World) -> None:
    asked(w)
    w.clock.forward(hours=49)
    answered(w, "one")
    answered(w, "two")
    click(w)
    assert w.sent("official") == ["one"]
    assert step_of_reply(w) is Step.HELD


def test_a_reply_that_waits_is_not_driven_by_the_schedule(w: World) -> None:
    asked(w)
    w.clock.forward(hours=49)
    answered(w)
    w.clock.forward(days=1)
    w.pipeline.tick()
    assert "stuck" not in w.names()


@pytest.mark.parametrize("event", ["held", "noted", "released", "queued", "sent", "claimed"])
def test_a_crash_loses_nothing_that_waits_and_sends_nothing_twice(w: World, event: str) -> None:
    asked(w)
    w.clock.forward(hours=49)
    w.reply("T1", ANSWER)
    crashing(w, event)
    w.say("official", "li", "Hello?")
    crashing(w, event)
    if event in ("sent", "claimed"):  # it may have arrived: the agent is told, nothing is repeated
        assert len(w.sent("official")) <= 1
        assert [note for note in w.desk.notes if "may or may not" in note]
    else:
        assert w.sent("official") == [ANSWER]


def crashing(w: World, event: str) -> None:
    """Settle with the plug pulled at an event, and then as if all came again."""
    report = w.pipeline.report
    object.__setattr__(w.pipeline, "report", crash_at(event))
    with suppress(SystemExit):
        w.settle()
    object.__setattr__(w.pipeline, "report", report)
    for _ in range(6):
        w.clock.forward(minutes=4)
        w.forward_queue.forget()
        w.deliver_queue.forget()
        w.read_stream_again()
        try:
            w.pipeline.tick()
            w.settle()
        except RetryableError:
            continue


# Elsewhere, where it is closed


def prefer_another_channel(w: World) -> None:
    inboxes = w.pipeline.deployment.document.inboxes
    official = {"connector": "fake_official", "when_closed": "other_channel"}
    w.configure(inboxes={**inboxes, "official": official})


def test_a_closed_window_sends_by_another_verified_address_of_the_contact(w: World) -> None:
    prefer_another_channel(w)
    w.say("email", "li@example.com", "Hello there", evidence=SHOP)
    w.settle()
    asked(w, evidence=SHOP)
    w.clock.forward(hours=49)
    w.reply("T2", ANSWER)
    w.settle()
    assert (w.sent("official"), w.sent("email")) == ([], [ANSWER])
    assert [n for n in w.desk.notes if "Sent by email to email:li@example.com" in n]


def test_an_address_that_is_only_claimed_never_gets_what_another_channel_could_not(
    w: World,
) -> None:
    prefer_another_channel(w)
    w.say("email", "li@example.com", "Hello there", level="claimed")
    w.settle()
    claim = [{"address": "email:li@example.com", "level": "claimed", "source": "form"}]
    asked(w, evidence=claim)
    w.clock.forward(hours=49)
    w.reply("T2", ANSWER)
    w.settle()
    assert w.sent("email") == []
    assert step_of_reply(w) is Step.HELD


def test_an_address_taken_away_from_the_contact_gets_nothing(w: World) -> None:
    prefer_another_channel(w)
    w.say("email", "li@example.com", "Hello there", evidence=SHOP)
    w.settle()
    asked(w, evidence=SHOP)
    Contacts(w.pipeline.store, w.clock).unlink("email:li@example.com", by="kim")
    w.clock.forward(hours=49)
    w.reply("T2", ANSWER)
    w.settle()
    assert w.sent("email") == []
    assert step_of_reply(w) is Step.HELD


def test_a_provider_that_says_closed_is_believed_over_our_ledger(w: World) -> None:
    asked(w)
    w.channel("official").failures = [ClosedError("WeChat's count is used up")]
    answered(w)
    assert step_of_reply(w) is Step.HELD
    w.say("official", "li", "Hello?")
    w.settle()
    assert w.sent("official") == [ANSWER]


# The ledger itself

WINDOWS = {"message": SendWindow(seconds=100, count=3), "click": SendWindow(seconds=10, count=2)}


@given(
    acts=st.lists(
        st.tuples(st.sampled_from(["message", "click", "send", "wait"]), st.integers(0, 60))
    )
)
def test_no_more_is_ever_taken_than_the_provider_allows(acts: list[tuple[str, int]]) -> None:
    ledger, clock = SendLedger(inbox="i", address="wechat:a:b"), Clock()
    allowed = {"message": (START, 0), "click": (START, 0)}
    for n, (act, seconds) in enumerate(acts):
        if act == "wait":
            clock.forward(seconds=seconds)
        elif act == "send":
            after = ledgers.taken(ledger, f"m{n}", clock.now)
            usable = [k for k, (until, left) in allowed.items() if until > clock.now and left]
            assert (after is not None) == bool(usable)
            if after:
                name = min(usable, key=lambda k: allowed[k][0])
                allowed[name] = (allowed[name][0], allowed[name][1] - 1)
                ledger = after
        else:
            ledger = opened(ledger, act, clock) or ledger
            window = WINDOWS[act]
            until = clock.now + timedelta(seconds=window.seconds)
            if until > allowed[act][0]:
                allowed[act] = (until, window.count)


def opened(ledger: SendLedger, act: str, clock: Clock) -> SendLedger | None:
    from tests.nouns import message

    more: dict[str, Any] = {"kind": "event", "event": {"name": act}} if act != "message" else {}
    said = message(sent_at=clock.now, received_at=clock.now, **more)
    return ledgers.opened(ledger, said, WINDOWS)


def test_taking_twice_for_one_message_costs_one() -> None:
    ledger = opened(SendLedger(inbox="i", address="wechat:a:b"), "click", Clock())
    assert ledger
    once = ledgers.taken(ledger, "m1", START)
    assert once
    assert ledgers.taken(once, "m1", START) == once
