"""Helpdesks whose webhooks can get lost are asked, too: the same replies, once each."""

from datetime import timedelta

import pytest

from chalicelib.errors import RetryableError
from chalicelib.schema import Attachment, Reply, TicketChange
from tests.fakes import FakeAskedDesk, World, world

QUESTION = "How do I keep green tea fresh?"


@pytest.fixture
def w() -> World:
    made = world()
    made.configure(helpdesks={"desk": {"connector": "fake_asked_desk"}})
    made.say("sms", "li", QUESTION)
    made.settle()
    ask(made)
    return made


def desk(w: World) -> FakeAskedDesk:
    assert isinstance(w.desk, FakeAskedDesk)
    return w.desk


def ask(w: World) -> None:
    """The schedule's minute comes, as often as it takes."""
    for _ in range(2):
        w.clock.forward(minutes=1)
        w.pipeline.tick()
        w.settle()


def reply(w: World, name: str, text: str, ticket: str = "T1", *files: Attachment) -> Reply:
    return Reply(
        ticket_id=ticket,
        external_id=name,
        text=text,
        author="Kim",
        sent_at=w.clock.now,
        attachments=files,
    )


def test_a_reply_whose_webhook_was_lost_arrives(w: World) -> None:
    desk(w).happened = [reply(w, "r1", "In a tin."), reply(w, "r2", "Or a jar.")]
    ask(w)
    assert w.sent("sms") == ["In a tin.", "Or a jar."]


def test_one_that_came_by_webhook_is_not_sent_again(w: World) -> None:
    w.reply("T1", "In a tin.", external_id="r1")
    w.settle()
    desk(w).happened = [reply(w, "r1", "In a tin.")]
    ask(w)
    ask(w)
    assert w.sent("sms") == ["In a tin."]


def test_pages_are_read_to_the_end_and_never_again(w: World) -> None:
    desk(w).happened = [reply(w, f"r{n}", f"line {n}") for n in range(5)]
    ask(w)
    ask(w)
    assert w.sent("sms") == [f"line {n}" for n in range(5)]


def test_what_happened_on_other_peoples_tickets_is_passed_over(w: World) -> None:
    desk(w).happened = [reply(w, "r1", "For somebody else.", "T99"), reply(w, "r2", "In a tin.")]
    ask(w)
    assert w.sent("sms") == ["In a tin."]


def test_a_ticket_closed_while_webhooks_were_lost_is_closed(w: World) -> None:
    closed = TicketChange(ticket_id="T1", external_id="c1", state="closed", at=w.clock.now)
    desk(w).happened = [closed]
    ask(w)
    conversation = w.pipeline.store.conversation(w.messages()[0].message.conversation_id or "")
    assert conversation is not None
    assert conversation.noun.state == "closed"


def test_that_it_was_closed_is_old_news_once_the_customer_has_written_again(w: World) -> None:
    closed = TicketChange(ticket_id="T1", external_id="c1", state="closed", at=w.clock.now)
    w.clock.forward(seconds=20)
    w.say("sms", "li", "it is sencha")
    w.settle()
    desk(w).happened = [closed]
    ask(w)
    conversation = w.pipeline.store.conversation(w.messages()[0].message.conversation_id or "")
    assert conversation is not None
    assert conversation.noun.state == "open"


def test_a_desk_that_is_down_is_asked_later_and_nothing_is_missed(w: World) -> None:
    desk(w).happened = [reply(w, "r1", "In a tin.")]
    desk(w).failures = [RetryableError("HTTP 503")]
    w.clock.forward(minutes=2)
    w.pipeline.tick()
    with pytest.raises(RetryableError):
        w.settle()
    w.clock.now += timedelta(minutes=10)
    ask(w)
    assert w.sent("sms") == ["In a tin."]


# Files of agents


def test_an_agents_file_is_fetched_once_and_travels(w: World) -> None:
    file = Attachment(name="guide.pdf", media_type="application/pdf", source="f1")
    desk(w).happened = [reply(w, "r1", "See this.", "T1", file)]
    ask(w)
    [sent] = w.channel("sms").sent
    assert "guide.pdf" in sent.text + "".join(a.name for a in sent.attachments)
    stored = w.messages()[-1].message
    assert stored.attachments[0].key is not None


def test_a_file_that_cannot_be_had_holds_no_words_back_and_the_agent_hears_of_it(
    w: World,
) -> None:
    file = Attachment(name="guide.pdf", media_type="application/pdf", source="gone")
    desk(w).happened = [reply(w, "r1", "See this.", "T1", file)]
    ask(w)
    assert w.sent("sms") == ["See this."]
    assert any("guide.pdf" in note for note in w.desk.notes)


def test_a_file_without_words_is_no_answer_to_give_again(w: World) -> None:
    file = Attachment(name="guide.pdf", media_type="application/pdf", source="f1")
    desk(w).happened = [reply(w, "r1", "", "T1", file)]
    ask(w)
    conversation = w.pipeline.store.conversation(w.messages()[0].message.conversation_id or "")
    assert conversation is not None
    assert conversation.noun.questions[0].answer is None


def test_a_reply_of_nothing_but_a_file_that_cannot_be_had_is_not_sent(w: World) -> None:
    file = Attachment(name="guide.pdf", media_type="application/pdf", source="gone")
    desk(w).happened = [reply(w, "r1", "", "T1", file)]
    ask(w)
    assert w.sent("sms") == []
    assert any("could be fetched" in note for note in w.desk.notes)
