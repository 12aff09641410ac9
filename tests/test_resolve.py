"""resolve: whose it is, whether it was asked before, and what is said to whom, in one commit."""

from collections.abc import Sequence
from typing import Any

import pytest

from chalicelib.contacts import Contacts
from chalicelib.errors import ConflictError, RetryableError
from chalicelib.items import Step
from chalicelib.ports import Write
from chalicelib.schema import Conversation, Outcome, Priority, State, Verdict
from tests.fakes import World, world

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."
OTHER, OTHER_ANSWER = "Which size of gaiwan suits one person?", "Around 110 ml."
#: What a shop's own site signs for a customer who is logged in.
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]
CLAIM = [{"address": "external:7", "level": "claimed", "source": "form"}]


@pytest.fixture
def w() -> World:
    return world()


def ask(w: World, inbox: str = "sms", text: str = QUESTION, **more: Any) -> Verdict:
    """A customer's message, all the way; what was decided about it."""
    w.say(inbox, more.pop("sender", "li"), text, **more)
    decided = w.messages()[-1]
    w.settle()
    verdict = w.stored(decided.message.id).message.verdict
    assert verdict is not None
    return verdict


def answered(w: World, inbox: str = "sms", hours: float = 1, **more: Any) -> None:
    """A question with an agent's answer, some time ago."""
    ask(w, inbox, **more)
    w.reply("T1", ANSWER)
    w.settle()
    w.clock.forward(hours=hours)


def conversations(w: World) -> list[Conversation]:
    """Every conversation, in the order of their beginning."""
    names = [i.sk.rpartition("#")[2] for i in w.table.stream if i.sk.startswith("CONV#")]
    found = [w.pipeline.store.conversation(name) for name in dict.fromkeys(names)]
    return [held.noun for held in found if held]


def told(w: World, inbox: str, text: str = ANSWER) -> int:
    return sum(text in sent for sent in w.sent(inbox))


# The mode


@pytest.mark.parametrize(
    ("mode", "outcome", "would_be", "tickets", "answers"),
    [
        ("off", "new", None, ["T1", "T2"], 1),
        ("observe", "new", "repeat", ["T1", "T2"], 1),
        ("suggest", "repeat", None, ["T1", "T1"], 1),
        ("answer", "repeat", None, ["T1", "T1"], 2),
    ],
)
def test_what_becomes_of_a_repeat_is_the_modes_to_say(
    mode: str, outcome: str, would_be: str | None, tickets: list[str], answers: int
) -> None:
    w = world(repeats={"mode": mode})
    answered(w)
    verdict = ask(w)
    assert (verdict.outcome, verdict.would_be, verdict.mode) == (outcome, would_be, mode)
    assert w.desk.said == [(ticket, QUESTION) for ticket in tickets]
    assert told(w, "sms") == answers


@pytest.mark.parametrize(
    ("mode", "note"),
    [("suggest", "The earlier answer, to send again if it fits"), ("answer", "AskOnce told")],
)
def test_the_agent_gets_the_earlier_answer_in_a_note(mode: str, note: str) -> None:
    w = world(repeats={"mode": mode})
    answered(w)
    ask(w)
    [told_agent] = w.desk.notes
    assert note in told_agent
    assert ANSWER in told_agent


def test_a_repeat_before_the_answer_hears_its_reference(w: World) -> None:
    ask(w)
    w.clock.forward(hours=1)
    assert ask(w).said_kind == "in_progress"
    [conversation] = conversations(w)
    assert told(w, "sms", conversation.reference) == 1


def test_a_repeat_counts_and_makes_its_conversation_urgent(w: World) -> None:
    answered(w)
    ask(w)
    [conversation] = conversations(w)
    assert (conversation.asked_times, conversation.priority) == (2, Priority.HIGH)
    assert len(conversation.questions) == 1
    assert [p.sender for p in conversation.participants] == ["phone:li"]


def test_a_wording_left_empty_keeps_silent(w: World) -> None:
    w.configure(wording={"en": {"answered": "", "in_progress": "one moment"}})
    answered(w)
    assert ask(w).kept_silent == "the wording is empty"
    assert told(w, "sms") == 1


# Who may hear it


def test_the_answer_crosses_channels_on_verified_evidence(w: World) -> None:
    answered(w, evidence=SHOP)
    verdict = ask(w, "email", evidence=SHOP)
    assert (verdict.outcome, verdict.said_kind) == (Outcome.REPEAT, "answered")
    assert told(w, "email") == 1
    assert w.desk.said == [("T1", QUESTION)] * 2


@pytest.mark.parametrize("evidence", [[], CLAIM])
def test_the_answer_never_crosses_channels_without(w: World, evidence: list[Any]) -> None:
    answered(w, evidence=SHOP)
    assert ask(w, "email", evidence=evidence).outcome is Outcome.NEW
    assert told(w, "email") == 0
    assert [ticket for ticket, _ in w.desk.said] == ["T1", "T2"]


def test_a_claim_is_put_before_the_agents(w: World) -> None:
    ask(w, evidence=CLAIM)
    contact, _, _ = Contacts(w.pipeline.store, w.clock).show("phone:li")
    assert contact.suggestions == ("external:7",)


def test_an_unproven_sender_hears_nothing_and_the_note_says_why(w: World) -> None:
    answered(w, "email", level="claimed")
    verdict = ask(w, "email", level="claimed")
    assert verdict.kept_silent == (
        "the sender is not proven: an answer would reach the address's owner"
    )
    assert verdict.kept_silent in w.desk.notes[-2]
    assert told(w, "email") == 1


def test_a_forged_sender_gets_a_ticket_of_its_own_and_nothing_else(w: World) -> None:
    answered(w, "email")
    assert ask(w, "email", level="claimed").outcome is Outcome.NEW
    assert w.desk.said == [("T1", QUESTION), ("T2", QUESTION)]
    assert told(w, "email") == 1


def test_the_answer_to_an_unproven_sender_is_told_to_nobody_else(w: World) -> None:
    answered(w, "email", level="claimed")
    ask(w, text="Good evening, dear tea house")
    contacts = Contacts(w.pipeline.store, w.clock)
    contacts.link("unproven:email:li", "phone:li", source="operator", by="kim")
    assert ask(w).kept_silent == "who asked first is not proven to be the same person"


def test_the_answer_to_an_address_that_was_unlinked_is_told_to_nobody_else(w: World) -> None:
    """It had asked in a conversation that the other one began, and that stays with that one."""
    ask(w, text=OTHER, evidence=SHOP)
    ask(w, "email", text=QUESTION, evidence=SHOP, references=["id-1"])
    Contacts(w.pipeline.store, w.clock).link("email:li", "phone:li", source="operator", by="kim")
    w.clock.forward(minutes=30)
    merged = f"{OTHER} {QUESTION}"
    thread = [f"conversation:{w.messages()[0].message.conversation_id}"]
    ask(w, "email", text=merged, references=thread)
    w.reply("T1", ANSWER)
    w.settle()
    Contacts(w.pipeline.store, w.clock).unlink("email:li", by="kim")
    assert ask(w, text=merged).said is None
    assert told(w, "sms") == 0


def test_a_machine_hears_nothing(w: World) -> None:
    answered(w, "email")
    assert ask(w, "email", automatic=True).kept_silent == "a machine sent it"
    assert told(w, "email") == 1


def test_askonce_speaks_once_within_the_time_of_silence(w: World) -> None:
    answered(w)
    heard = []
    for _ in range(3):
        heard.append(ask(w).said_kind)
        w.clock.forward(minutes=31)
    assert heard == ["answered", None, "answered"]
    assert any("spoke in this conversation a moment ago" in note for note in w.desk.notes)


# Which conversation


def test_a_mail_joins_the_conversation_that_it_answers_whatever_it_says(w: World) -> None:
    answered(w, "email", hours=1)
    reply = w.channel("email").sent[0]
    verdict = ask(w, "email", text=OTHER, references=["unknown", f"provider-{reply.id}"])
    assert (verdict.outcome, verdict.rule) == (Outcome.FOLLOW_UP, "thread")
    assert w.desk.said[-1] == ("T1", OTHER)


def test_a_reference_to_somebody_elses_message_proves_nothing(w: World) -> None:
    answered(w, "email")
    reply = w.channel("email").sent[0]
    verdict = ask(w, "email", sender="eve", text=OTHER, references=[f"provider-{reply.id}"])
    assert verdict.outcome is Outcome.NEW
    assert w.desk.said[-1] == ("T2", OTHER)


@pytest.mark.parametrize("text", ["thanks!", "20260301-123", ""])
def test_what_cannot_stand_alone_joins_what_is_going_on(w: World, text: str) -> None:
    answered(w)
    assert ask(w, text=text).rule == "nature"
    assert w.desk.said[-1] == ("T1", text)


def test_an_event_opens_no_ticket(w: World) -> None:
    assert ask(w, kind="event").outcome is Outcome.IGNORED
    assert w.messages()[0].step is Step.DONE
    assert (conversations(w), w.desk.tries) == ([], 0)


def test_a_question_about_the_same_joins_without_an_answer(w: World) -> None:
    ask(w, text="Where is my order 20260301?")
    w.clock.forward(hours=1)
    verdict = ask(w, text="Where is my order 20260302?")
    assert (verdict.outcome, verdict.veto) == (Outcome.RELATED, "another number or date")
    assert [ticket for ticket, _ in w.desk.said] == ["T1", "T1"]
    assert w.sent("sms") == []


def test_each_question_of_a_conversation_keeps_its_own_answer(w: World) -> None:
    answered(w, hours=0.1)
    assert ask(w, text=OTHER).rule == "time"
    w.reply("T1", OTHER_ANSWER)
    w.settle()
    w.clock.forward(hours=1)
    ask(w)
    w.clock.forward(hours=2)
    ask(w, text=OTHER)
    assert [told(w, "sms", text) for text in (ANSWER, OTHER_ANSWER)] == [2, 2]


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("Where is my order 20260302?", State.OPEN),
        ("Where is my order 20260301?", State.CLOSED),
        ("thanks", State.CLOSED),
    ],
)
def test_only_another_question_reopens_a_closed_conversation(
    w: World, text: str, state: State
) -> None:
    ask(w, text="Where is my order 20260301?")
    w.pipeline.accept_reply(
        "desk", w.request({"ticket_id": "T1", "external_id": "1", "state": "closed"})
    )
    w.clock.forward(minutes=1)
    ask(w, text=text)
    assert [c.state for c in conversations(w)] == [state]


def test_a_message_that_is_gone_is_nothing_to_resolve(w: World) -> None:
    assert w.pipeline.resolve("m1") is None


# At once


def test_one_message_resolved_from_two_places_is_decided_once(w: World) -> None:
    w.say("sms", "li", QUESTION)
    [stored] = w.messages()
    w.table.interrupt(2, lambda: w.pipeline.relay(stored.message.id))
    w.pipeline.relay(stored.message.id)
    w.settle()
    assert w.names().count("resolved") == 1
    assert w.desk.said == [("T1", QUESTION)]


def test_a_contact_that_keeps_changing_is_tried_again_later(w: World) -> None:
    def conflict(_: Sequence[Write]) -> None:
        raise ConflictError("written by somebody else")

    w.say("sms", "li", QUESTION)
    w.table.before_write = conflict
    with pytest.raises(RetryableError):
        w.pipeline.resolve(w.messages()[0].message.id)
    w.table.before_write = None
    w.settle()
    assert w.desk.said == [("T1", QUESTION)]
