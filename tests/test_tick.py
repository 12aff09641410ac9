"""tick: what is stuck is driven again, ever more rarely; what is late is told once."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.errors import RejectedError, RetryableError
from chalicelib.items import STUCK_AFTER, Step
from chalicelib.schema import Conversation, Priority
from tests.fakes import World, crash_at, world

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."
LATE = "The first reply is late: it was due by 09:15 UTC."


@pytest.fixture
def w() -> World:
    return world()


def asked(w: World, inbox: str = "sms", text: str = QUESTION, **more: Any) -> str:
    """A question that has its ticket; the id of its message."""
    name = said(w, inbox, text, **more)
    w.settle()
    return name


def said(w: World, inbox: str = "sms", text: str = QUESTION, **more: Any) -> str:
    w.say(inbox, more.pop("sender", "li"), text, **more)
    return w.messages()[-1].message.id


def conversation(w: World, message: str) -> Conversation:
    held = w.pipeline.store.conversation(w.stored(message).message.conversation_id or "")
    assert held is not None
    return held.noun


def minutes_of_drives(w: World, minutes: int) -> list[int]:
    """Tick every minute; at which of them something was stuck."""
    found = []
    for minute in range(1, minutes + 1):
        w.clock.forward(minutes=1)
        before = w.names().count("stuck")
        w.pipeline.tick()
        if w.names().count("stuck") > before:
            found.append(minute)
    return found


# Stuck


def test_a_message_that_the_stream_never_brought_is_driven_to_its_end(w: World) -> None:
    name = said(w)
    w.clock.now += STUCK_AFTER
    w.pipeline.tick()
    assert w.forward_queue.take() == [name]


def test_a_reply_whose_queueing_failed_is_driven_to_its_end(w: World) -> None:
    asked(w)
    w.reply("T1", ANSWER)
    w.deliver_queue.fails = True
    with pytest.raises(OSError, match="out of reach"):
        w.settle()
    w.deliver_queue.fails = False
    w.clock.now += STUCK_AFTER
    w.pipeline.tick()
    w.settle()
    assert w.sent("sms") == [ANSWER]


@pytest.mark.parametrize("queued", [True, False])
def test_a_note_that_got_lost_is_driven_to_its_end(w: World, queued: bool) -> None:
    asked(w)
    w.channel("sms").failures.append(RejectedError("the number is unknown"))
    w.reply("T1", ANSWER)
    w.pipeline.relay(w.messages()[-1].message.id)
    w.forward_queue.fails = not queued
    with nullcontext() if queued else pytest.raises(OSError, match="out of reach"):
        w.pipeline.deliver(w.deliver_queue.take()[0])
    w.forward_queue.fails = False
    w.forward_queue.take()
    w.clock.now += STUCK_AFTER
    w.pipeline.tick()
    w.settle()
    assert w.desk.notes == ["Not delivered: the number is unknown"]


def test_a_stuck_message_is_driven_ever_more_rarely(w: World) -> None:
    said(w)
    assert minutes_of_drives(w, 60) == [3, 6, 12, 24, 48]


def test_a_drive_is_queued_although_an_earlier_one_was(w: World) -> None:
    """The queue drops what it has seen within five minutes: a drive must not look like that."""
    name = said(w)
    w.pipeline.relay(name)
    minutes_of_drives(w, 12)
    assert w.forward_queue.take() == [name] * 4


def test_what_is_finished_is_left_alone(w: World) -> None:
    asked(w)
    w.say("sms", "li", "", kind="event")
    w.settle()
    assert minutes_of_drives(w, 10) == []


def test_a_message_that_stays_stuck_does_not_keep_others_waiting(w: World) -> None:
    names = [said(w, sender=f"customer-{n}") for n in range(20)]
    w.clock.now += STUCK_AFTER
    w.pipeline.tick()
    assert sorted(w.forward_queue.take()) == sorted(names)


def test_a_broken_inbox_setting_stops_neither_the_stream_nor_the_tick(w: World) -> None:
    replied = asked(w, "chat")
    w.reply("T1", ANSWER)
    said(w, "chat", "thanks")
    said(w, "email", QUESTION)
    right = w.pipeline.deployment.document.inboxes
    broken = {name: settings | {"colour": "blue"} for name, settings in right.items()}
    w.configure(inboxes=broken)
    for stored in w.messages():
        w.pipeline.relay(stored.message.id)
    w.clock.now += STUCK_AFTER
    w.pipeline.tick()
    assert w.stored(replied).step is Step.DONE
    assert {s.step for s in w.messages()[1:]} == {Step.RESOLVED, Step.ACCEPTED}
    w.configure(inboxes=right)
    w.settle()
    assert {s.step for s in w.messages()} == {Step.DONE}


# Late


def test_a_late_first_reply_is_told_once_and_makes_it_urgent(w: World) -> None:
    name = asked(w)
    minutes_of_drives(w, 14)
    assert w.desk.notes == []
    minutes_of_drives(w, 60)
    assert w.desk.notes == [LATE]
    assert conversation(w, name).priority is Priority.HIGH


@pytest.mark.parametrize("event", [{"text": ANSWER}, {"state": "closed"}])
def test_an_answered_or_closed_question_is_not_late(w: World, event: dict[str, str]) -> None:
    asked(w)
    w.pipeline.accept_reply("desk", w.request({"ticket_id": "T1", "external_id": "1"} | event))
    w.settle()
    minutes_of_drives(w, 30)
    assert w.desk.notes == []


def test_a_question_without_a_ticket_has_nobody_to_tell(w: World) -> None:
    w.pipeline.relay(said(w))
    minutes_of_drives(w, 30)
    assert w.desk.tries == 0


@pytest.mark.parametrize("failure", [RetryableError("down"), RejectedError("refused")])
def test_a_helpdesk_that_fails_is_told_a_minute_later(w: World, failure: Exception) -> None:
    asked(w)
    w.desk.failures.append(failure)
    minutes_of_drives(w, 16)
    assert w.desk.notes == [LATE]
    assert w.names().count("overdue.untold") == 1


def test_a_note_whose_answer_got_lost_is_not_told_again(w: World) -> None:
    asked(w)
    w.desk.late_failures.append(RetryableError("the connection broke", uncertain=True))
    minutes_of_drives(w, 16)
    assert w.desk.notes == [LATE]


def test_a_helpdesk_that_is_gone_keeps_no_other_from_hearing(w: World) -> None:
    inboxes, desk = w.pipeline.deployment.document.inboxes, {"connector": "fake_desk"}
    second = {"email": {"connector": "fake_email", "helpdesk": "gone"}}
    w.configure(inboxes=inboxes | second, helpdesks={"desk": desk, "gone": desk})
    for n in range(8):
        asked(w, "email", sender=f"customer-{n}")
    w.configure(inboxes=inboxes, helpdesks={"desk": desk})
    asked(w)
    minutes_of_drives(w, 15)
    assert w.names().count("overdue.untold") == 8
    assert w.desk.notes == [LATE]


def test_a_tick_that_was_cut_off_is_finished_by_the_next_one(w: World) -> None:
    name = said(w)
    w.clock.now += STUCK_AFTER
    with pytest.raises(SystemExit):
        replace(w.pipeline, report=crash_at("stuck")).tick()
    minutes_of_drives(w, 6)
    w.settle()
    assert w.desk.said == [("T1", QUESTION)]
    assert w.stored(name).step is Step.DONE
