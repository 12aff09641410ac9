"""Opting out: by a word, confirmed once, respected by whoever sends, and taken back by a word."""

import pytest

from chalicelib.items import Step
from chalicelib.notes import OPTED_OUT
from chalicelib.schema import Delivery
from tests.fakes import World, world

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."


@pytest.fixture
def w() -> World:
    return world()


def choose(w: World, choice: str, *, inbox: str = "sms", confirmed: bool = False) -> None:
    word = {"out": "STOP", "in": "START"}[choice]
    w.say(
        inbox,
        "+44123",
        word,
        kind="event",
        event={"name": f"opt_{choice}", "key": word},
        consent={"choice": choice, "confirmed": confirmed},
    )
    w.settle()


def asked(w: World) -> None:
    w.say("sms", "+44123", QUESTION)
    w.settle()


def answered(w: World, text: str = ANSWER) -> None:
    w.reply("T1", text)
    w.settle()


def test_who_opts_out_is_told_so_and_gets_nothing_more(w: World) -> None:
    asked(w)
    choose(w, "out")
    answered(w)
    [confirmation] = w.sent("sms")
    assert "opted out" in confirmation
    assert w.messages()[-1].step is Step.FAILED
    assert any(OPTED_OUT in note for note in w.desk.notes)


def test_an_opt_out_is_confirmed_once(w: World) -> None:
    asked(w)
    choose(w, "out")
    choose(w, "out")
    assert len(w.sent("sms")) == 1


def test_an_opt_out_that_the_provider_confirmed_is_not_confirmed_again(w: World) -> None:
    asked(w)
    choose(w, "out", confirmed=True)
    answered(w)
    assert w.sent("sms") == []


def test_who_opts_in_again_gets_answers_again(w: World) -> None:
    asked(w)
    choose(w, "out")
    choose(w, "in")
    answered(w)
    assert len(w.sent("sms")) == 3
    assert w.sent("sms")[-1] == ANSWER


def test_opting_in_without_having_opted_out_changes_nothing(w: World) -> None:
    asked(w)
    choose(w, "in")
    assert w.sent("sms") == []


def test_an_opt_out_holds_at_every_inbox_that_sends_to_the_address(w: World) -> None:
    inboxes = w.pipeline.deployment.document.inboxes
    w.configure(inboxes={**inboxes, "sms-hk": {"connector": "fake"}})
    w.say("sms-hk", "+44123", QUESTION)
    w.settle()
    choose(w, "out", inbox="sms")
    answered(w)
    assert w.sent("sms-hk") == []


def test_an_opt_out_at_one_address_leaves_the_others_alone(w: World) -> None:
    asked(w)
    w.say("email", "li@example.com", QUESTION)
    w.settle()
    choose(w, "out")
    w.reply("T2", ANSWER)
    w.settle()
    assert w.sent("email") == [ANSWER]


def test_the_agents_of_the_latest_ticket_hear_of_an_opt_out(w: World) -> None:
    asked(w)
    choose(w, "out")
    assert ("T1", "STOP") in w.desk.said
    assert any("opted out" in note for note in w.desk.notes)


def test_an_opt_out_opens_no_ticket(w: World) -> None:
    choose(w, "out")
    assert w.desk.said == []
    assert len(w.sent("sms")) == 1


def test_what_askonce_would_say_by_itself_is_not_sent_either(w: World) -> None:
    asked(w)
    answered(w)
    choose(w, "out", confirmed=True)
    w.say("sms", "+44123", QUESTION)
    w.settle()
    assert w.sent("sms") == [ANSWER]


def test_a_chinese_number_is_told_in_chinese(w: World) -> None:
    w.say("sms", "+8613800138000", "TD", kind="event", event={"name": "opt_out"},
          consent={"choice": "out"})  # fmt: skip
    w.settle()
    [confirmation] = w.sent("sms")
    assert "退订" in confirmation


def test_a_redelivered_opt_out_does_not_undo_a_later_opt_in(w: World) -> None:
    asked(w)
    choose(w, "out")
    choose(w, "in")
    w.read_stream_again()
    w.settle()
    answered(w)
    assert w.sent("sms")[-1] == ANSWER


def test_a_delivered_confirmation_is_a_message_like_any_other(w: World) -> None:
    choose(w, "out")
    assert w.messages()[-1].delivery is Delivery.SENT
