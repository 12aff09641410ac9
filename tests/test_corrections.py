"""Undo: a message that joined by mistake gets a ticket of its own, once, wherever it stops."""

from typing import Any

import pytest

from chalicelib.corrections import WITHDRAWN, Corrections
from chalicelib.errors import NotFoundError
from chalicelib.items import Step
from chalicelib.schema import Conversation, Message, Outcome, Priority, State
from tests.fakes import World, world
from tests.nouns import asked, conversation, message

QUESTION = "How do I keep green tea fresh once the tin is open?"
ANSWER = "In a tin, cool and dark."
AGAIN = "how do I keep green tea fresh once the tin is open then??"
#: What a shop's own site signs for a customer who is logged in.
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]


@pytest.fixture
def w() -> World:
    return world()


def say(w: World, text: str, inbox: str = "sms", **more: Any) -> Message:
    """A customer's message, all the way."""
    w.say(inbox, "li", text, evidence=SHOP, **more)
    inbound = (s.message for s in reversed(w.messages()) if s.message.direction == "inbound")
    name = next(inbound).id
    w.settle()
    return w.stored(name).message


def repeated(w: World, inbox: str = "email", text: str = AGAIN) -> Message:
    """A question, answered; and asked again an hour later."""
    say(w, QUESTION)
    w.reply("T1", ANSWER)
    w.settle()
    w.clock.forward(hours=1)
    found = say(w, text, inbox)
    assert found.verdict is not None
    assert found.verdict.outcome is Outcome.REPEAT
    return found


def corrections(w: World) -> Corrections:
    p = w.pipeline
    return Corrections(p.store, p.deployment, p.clock, p.report)


def undo(w: World, message: Message, by: str = "Kim") -> Conversation:
    new = corrections(w).undo(message.id, by)
    w.settle()
    return new


def of(w: World, message: Message) -> Conversation:
    held = w.pipeline.store.conversation(w.stored(message.id).message.conversation_id or "")
    assert held is not None
    return held.noun


def notes_on(w: World, ticket: str) -> list[str]:
    return [c.text for c in w.desk.effects.values() if (c.what, c.ticket) == ("note", ticket)]


def correct(w: World, event: dict[str, Any]) -> int:
    body = {"ticket_id": "T1", "external_id": "c1", "kind": "not_a_repeat", "by": "Kim"}
    return w.pipeline.accept_reply("desk", w.request(body | event)).status


# What it does


def test_it_gets_a_conversation_and_a_ticket_of_its_own(w: World) -> None:
    again = repeated(w)
    new = undo(w, again)
    assert w.desk.said == [("T1", QUESTION), ("T1", AGAIN), ("T2", AGAIN)]
    assert (new.first_message_id, new.asked_times, new.state) == (again.id, 1, State.OPEN)
    verdict = w.stored(again.id).message.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.rule) == (Outcome.NEW, "undone")
    assert of(w, again).ticket is not None
    assert w.stored(again.id).step is Step.DONE


def test_the_earlier_conversation_is_as_if_it_had_never_come(w: World) -> None:
    first = say(w, QUESTION)
    w.reply("T1", ANSWER)
    w.settle()
    before = of(w, first)
    w.clock.forward(hours=1)
    undo(w, say(w, AGAIN, "email"))
    after = of(w, first)
    assert (after.asked_times, after.priority) == (1, Priority.NORMAL)
    assert (after.state, after.participants) == (before.state, before.participants)
    assert after.told is None


def test_both_tickets_name_each_other_and_nothing_told_is_taken_back(w: World) -> None:
    again = repeated(w)
    new = undo(w, again)
    old = of(w, w.messages()[0].message)
    *_, left = notes_on(w, "T1")
    [arrived] = notes_on(w, "T2")
    assert "T2" in left
    assert new.reference in left
    assert "T1" in arrived
    assert old.reference in arrived
    assert all("not taken back" in note for note in (left, arrived))
    assert ANSWER in arrived
    assert sum(ANSWER in text for text in w.sent("email")) == 1


def test_nearly_the_same_words_never_join_that_question_again(w: World) -> None:
    undo(w, repeated(w))
    w.clock.forward(hours=2)
    once_more = say(w, "Hello, how do I keep green tea fresh once the tin is open then?", "wechat")
    assert w.desk.said[-1][0] == "T2"
    assert once_more.verdict is not None
    assert once_more.verdict.said_kind != "answered"


def test_the_earlier_question_itself_is_still_recognised(w: World) -> None:
    undo(w, repeated(w))
    w.clock.forward(hours=2)
    verdict = say(w, QUESTION, "wechat").verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.said_kind) == (Outcome.REPEAT, "answered")
    assert w.desk.said[-1] == ("T1", QUESTION)


def test_what_the_customer_wrote_right_after_it_goes_along(w: World) -> None:
    again = repeated(w)
    w.clock.forward(minutes=1)
    number = say(w, "20260301-123", "email")
    w.clock.forward(minutes=30)
    late = say(w, "thanks", "email")
    elsewhere = say(w, "thank you", "sms")
    undo(w, again)
    assert of(w, number).id == of(w, again).id
    assert w.desk.said[-2:] == [("T2", AGAIN), ("T2", "20260301-123")]
    assert {of(w, late).id, of(w, elsewhere).id} == {of(w, w.messages()[0].message).id}


def test_that_its_answer_did_not_help_says_nothing_about_the_earlier_question(w: World) -> None:
    again = repeated(w)
    w.clock.forward(minutes=1)
    say(w, "that is not what I asked", "email")
    first = w.messages()[0].message
    assert (of(w, first).state, of(w, first).priority) == (State.OPEN, Priority.HIGH)
    undo(w, again)
    [question] = of(w, first).questions
    assert [d.kind for d in question.doubts] == ["apart"]
    assert (of(w, first).state, of(w, first).priority) == (State.ANSWERED, Priority.NORMAL)
    assert of(w, first).first_reply_due_at is None


def test_a_reply_to_it_reaches_the_customer_where_it_was_asked(w: World) -> None:
    undo(w, repeated(w))
    w.reply("T2", "In the freezer.")
    w.settle()
    assert "In the freezer." in w.sent("email")[-1]
    w.reply("T1", "One more thing.")
    w.settle()
    assert "One more thing." in w.sent("sms")[-1]


def test_mails_that_answer_it_follow_it(w: World) -> None:
    again = repeated(w)
    [told] = w.channel("email").sent
    undo(w, again)
    w.clock.forward(hours=1)
    say(w, "And the black one?", "email", references=[again.external_id])
    say(w, "And the white one?", "email", references=[f"provider-{told.id}"])
    assert [ticket for ticket, _ in w.desk.said[-2:]] == ["T2", "T2"]


def test_that_it_did_not_help_is_understood_after_it_left(w: World) -> None:
    again = repeated(w, "sms")
    undo(w, again)
    w.clock.forward(minutes=30)
    verdict = say(w, "NO").verdict
    assert verdict is not None
    assert verdict.rule == "unhelpful"
    assert w.desk.said[-1] == ("T2", "NO")


def test_an_answer_that_has_not_gone_out_yet_stays_here(w: World) -> None:
    say(w, QUESTION)
    w.reply("T1", ANSWER)
    w.settle()
    w.clock.forward(hours=1)
    w.say("sms", "li", AGAIN, evidence=SHOP)
    again = w.messages()[-1].message
    w.pipeline.relay(again.id)
    undo(w, again)
    [said] = [s for s in w.messages() if s.message.author == "askonce"]
    assert (said.step, said.failure) == (Step.FAILED, WITHDRAWN)
    assert sum(ANSWER in text for text in w.sent("sms")) == 1


def test_a_question_that_was_only_about_the_same_takes_its_own_answer_along(w: World) -> None:
    say(w, "Where is my order 20260301?")
    w.clock.forward(hours=1)
    other = say(w, "Where is my order 20260302?", "email")
    assert other.verdict is not None
    assert other.verdict.outcome is Outcome.RELATED
    w.reply("T1", "Both are on their way.")
    w.settle()
    new = undo(w, other)
    assert new.state is State.ANSWERED
    [question] = new.questions
    assert question.answer is not None
    [left] = of(w, w.messages()[0].message).questions
    assert left.text == "Where is my order 20260301?"


def test_what_is_asked_again_by_others_stays_urgent(w: World) -> None:
    again = repeated(w)
    w.clock.forward(hours=2)
    say(w, QUESTION, "wechat")
    undo(w, again)
    first = of(w, w.messages()[0].message)
    assert (first.asked_times, first.priority) == (2, Priority.HIGH)


# What cannot be undone


def test_a_message_that_joined_nothing_stays(w: World) -> None:
    first = say(w, QUESTION)
    with pytest.raises(NotFoundError, match="nothing to undo"):
        corrections(w).undo(first.id, "Kim")


def test_a_message_that_is_not_there_is_named(w: World) -> None:
    with pytest.raises(NotFoundError, match="no message m1"):
        corrections(w).undo("m1", "Kim")


# Twice, at once, and stopped


def test_twice_is_once(w: World) -> None:
    again = repeated(w)
    first, second = undo(w, again), undo(w, again)
    assert first.id == second.id
    assert w.desk.said == [("T1", QUESTION), ("T1", AGAIN), ("T2", AGAIN)]
    assert w.names().count("undone") == 1
    assert len(notes_on(w, "T2")) == 1


def test_two_at_once_are_one(w: World) -> None:
    again = repeated(w)
    w.table.interrupt(1, lambda: corrections(w).undo(again.id, "Lee"))
    undo(w, again)
    assert w.table.before_write is None
    assert w.desk.said.count(("T2", AGAIN)) == 1
    assert "Lee" in notes_on(w, "T2")[0]


def test_a_line_that_comes_at_the_same_time_is_not_lost(w: World) -> None:
    again = repeated(w)
    w.table.interrupt(1, lambda: say(w, "20260301-123", "email"))
    undo(w, again)
    assert w.table.before_write is None
    assert w.desk.said[-1] == ("T2", "20260301-123")


def test_stopped_after_the_commit_the_schedule_goes_on(w: World) -> None:
    again = repeated(w)
    w.forward_queue.fails = True
    with pytest.raises(OSError, match="out of reach"):
        corrections(w).undo(again.id, "Kim")
    assert of(w, again).ticket is None
    w.forward_queue.fails = False
    w.clock.forward(minutes=4)
    w.pipeline.tick()
    w.settle()
    assert w.desk.said[-1] == ("T2", AGAIN)


def test_stopped_after_the_commit_it_can_be_repeated_at_once(w: World) -> None:
    again = repeated(w)
    w.forward_queue.fails = True
    with pytest.raises(OSError, match="out of reach"):
        corrections(w).undo(again.id, "Kim")
    w.forward_queue.fails = False
    undo(w, again)
    assert w.desk.said[-1] == ("T2", AGAIN)


# From the helpdesk


@pytest.mark.parametrize("named", [True, False])
def test_an_agent_says_so_in_the_helpdesk(w: World, named: bool) -> None:
    again = repeated(w)
    assert correct(w, {"message_id": again.id} if named else {}) == 200
    w.settle()
    assert w.desk.said[-1] == ("T2", AGAIN)
    assert "Kim" in notes_on(w, "T2")[0]


def test_the_same_correction_again_takes_no_other_message_out(w: World) -> None:
    repeated(w)
    w.clock.forward(hours=2)
    say(w, QUESTION, "wechat")
    for _ in range(2):
        assert correct(w, {}) == 200
        w.settle()
    assert [ticket for ticket, _ in w.desk.said].count("T2") == 1


def test_a_correction_that_cannot_be_done_says_why_on_its_ticket(w: World) -> None:
    first = say(w, QUESTION)
    assert correct(w, {}) == 200
    w.settle()
    assert "nothing joined this ticket" in notes_on(w, "T1")[-1]
    w.clock.forward(hours=1)
    say(w, "Which size of gaiwan suits one person?", "wechat")
    assert correct(w, {"ticket_id": "T2", "message_id": first.id}) == 200
    w.settle()
    assert "not on this ticket" in notes_on(w, "T2")[-1]
    assert w.stored(first.id).message.conversation_id


def test_a_correction_of_a_ticket_that_is_not_ours_is_refused(w: World) -> None:
    with pytest.raises(NotFoundError):
        correct(w, {"ticket_id": "T9"})


def test_a_correction_is_only_stored_when_it_comes(w: World) -> None:
    """The function that faces the internet splits no conversation; a worker does."""
    again = repeated(w)
    assert correct(w, {}) == 200
    assert w.stored(again.id).message.conversation_id == of(w, again).id
    assert w.desk.said[-1] == ("T1", AGAIN)
    w.settle()
    assert w.desk.said[-1] == ("T2", AGAIN)


def test_an_agent_says_that_another_address_is_the_same_persons(w: World) -> None:
    say(w, QUESTION)
    event = {"kind": "same_person", "address": "phone:+8613900000009"}
    assert correct(w, event) == 200
    w.settle()
    link = w.pipeline.store.link("phone:+8613900000009")
    assert link is not None
    assert (link.noun.source, link.noun.history[-1].by) == ("agent", "Kim")
    first = w.messages()[0].message
    assert link.noun.contact_id == first.contact_id
    assert "+8613900000009" in notes_on(w, "T1")[-1]


def test_an_agent_says_that_somebody_is_another_person(w: World) -> None:
    again = repeated(w)
    address = again.address
    assert correct(w, {"kind": "different_person"}) == 200
    w.settle()
    link = w.pipeline.store.link(address)
    assert link is not None
    assert link.noun.history[-1].source == "unlinked"
    assert address in notes_on(w, "T1")[-1]


def test_an_old_ticket_that_takes_no_notes_holds_up_no_new_one(w: World) -> None:
    from chalicelib.errors import RejectedError

    again = repeated(w)
    corrections(w).undo(again.id, "Kim")
    w.desk.failures = [None, None, RejectedError("the ticket is archived")]
    w.settle()
    assert w.stored(again.id).step is Step.DONE
    assert "unnoted" in w.names()


# The doubt


def test_the_words_set_apart_are_told_from_the_question_by_which_is_closer() -> None:
    """Verbatim, a question is itself, however close the other one is."""
    from datetime import timedelta

    from chalicelib.judge import Known, judge
    from chalicelib.policy import Policy
    from chalicelib.schema import Doubt
    from chalicelib.shipped import SHIPPED
    from tests.fakes import START

    doubt = Doubt(kind="apart", text=AGAIN, message_id="m2", by="Kim", at=START)
    earlier = conversation(QUESTION, questions=(asked(QUESTION, doubts=(doubt,)),))
    known = Known(sender="phone:+8613800138000", thread=None, now=START + timedelta(hours=1))
    found = {
        text: judge(
            message(text), [earlier], known, policy=Policy(), compare=SHIPPED.compare
        ).outcome
        for text in (QUESTION, AGAIN)
    }
    assert found == {QUESTION: Outcome.REPEAT, AGAIN: Outcome.NEW}
