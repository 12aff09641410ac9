"""accept_reply and deliver: an agent's answer goes out once, to whoever it is for, or is noted."""

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.contacts import Contacts
from chalicelib.errors import (
    ConfigurationError,
    NotFoundError,
    RejectedError,
    RetryableError,
    SignatureError,
    TooLargeError,
)
from chalicelib.items import Step
from chalicelib.notes import MAY_HAVE_ARRIVED
from chalicelib.ports import WebhookRequest
from chalicelib.schema import Conversation, State
from tests.fakes import World, crash_at, world
from tests.nouns import is_free_for_files

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]
DOWN = RetryableError("HTTP 503")
BROKE = RetryableError("the connection broke", uncertain=True)
REFUSED = RejectedError("the number is unknown")


@pytest.fixture
def w() -> World:
    return world()


def asked(w: World, inbox: str = "sms", **more: Any) -> None:
    """A question that has its ticket."""
    w.say(inbox, "li", QUESTION, **more)
    w.settle()


def replied(w: World, inbox: str = "sms", **more: Any) -> str:
    """An agent's answer that waits to be delivered; its id."""
    asked(w, inbox, **more)
    w.reply("T1", ANSWER)
    w.pipeline.relay(w.messages()[-1].message.id)
    [name] = w.deliver_queue.take()
    return name


def conversation(w: World) -> Conversation:
    held = w.pipeline.store.conversation(w.messages()[0].message.conversation_id or "")
    assert held is not None
    return held.noun


def unlink(w: World, address: str) -> None:
    Contacts(w.pipeline.store, w.clock).unlink(address, by="kim")


def event(w: World, **fields: Any) -> None:
    """Something that happened to the ticket in the helpdesk."""
    w.pipeline.accept_reply("desk", w.request({"ticket_id": "T1", "external_id": "e1"} | fields))
    w.settle()


# Accepted


@pytest.mark.parametrize(
    ("helpdesk", "changes", "refusal"),
    [
        ("nowhere", {}, NotFoundError),
        ("desk", {"headers": {}}, SignatureError),
        ("desk", {"headers": {"signature": ("wrong",)}}, SignatureError),
        ("desk", {"body": b"{" + b" " * 1024 * 1024}, TooLargeError),
    ],
)
def test_a_reply_that_is_refused_never_reaches_the_table(
    w: World, helpdesk: str, changes: dict[str, Any], refusal: type[Exception]
) -> None:
    asked(w)
    calls = w.table.calls
    request = w.request({"ticket_id": "T1", "external_id": "1", "text": ANSWER})
    with pytest.raises(refusal):
        w.pipeline.accept_reply(helpdesk, replace(request, **changes))
    assert w.table.calls == calls


@pytest.mark.parametrize("fields", [{"text": ANSWER}, {"state": "closed"}])
def test_nothing_is_taken_for_a_ticket_that_is_not_ours(w: World, fields: dict[str, str]) -> None:
    asked(w)
    with pytest.raises(NotFoundError):
        event(w, ticket_id="T2", **fields)
    w.settle()
    assert w.sent("sms") == []


def test_an_unreadable_reply_is_acknowledged_and_kept(w: World) -> None:
    unreadable = replace(w.request({}), body=b"no JSON")
    assert w.pipeline.accept_reply("desk", unreadable).status == 200
    [kept] = w.pipeline.store.all_quarantined()
    assert (kept.inbox, kept.body) == ("replies/desk", b"no JSON")


def test_a_redelivered_reply_goes_out_once(w: World) -> None:
    asked(w)
    for _ in range(3):
        w.reply("T1", ANSWER, external_id="r1")
        w.settle()
    assert w.sent("sms") == [ANSWER]


# Where it goes


def test_a_reply_answers_the_message_on_the_channel_used_last(w: World) -> None:
    asked(w, evidence=SHOP)
    w.clock.forward(hours=1)
    asked(w, "email", evidence=SHOP, subject="Green tea")
    w.reply("T1", ANSWER)
    w.settle()
    assert (w.sent("sms"), w.sent("email")[-1]) == ([], ANSWER)
    sent = w.channel("email").sent[-1]
    assert (sent.address, sent.subject, sent.references) == ("email:li", "Re: Green tea", ("id-2",))
    assert sent.account == "us"


def test_a_reply_never_goes_to_an_address_that_was_unlinked_meanwhile(w: World) -> None:
    asked(w, evidence=SHOP)
    name = replied(w, "email", evidence=SHOP)
    unlink(w, "email:li")
    w.pipeline.deliver(name)
    assert w.sent("sms") == [ANSWER]
    assert ANSWER not in w.sent("email")


def test_what_askonce_says_goes_to_whom_it_answers_or_nowhere(w: World) -> None:
    asked(w, evidence=SHOP)
    w.clock.forward(hours=1)
    w.say("email", "li", QUESTION, evidence=SHOP)
    w.pipeline.relay(w.messages()[-1].message.id)
    unlink(w, "email:li")
    w.settle()
    assert (w.sent("sms"), w.sent("email")) == ([], [])
    assert "Not delivered: no address of this person is left to reply to" in w.desk.notes


def test_a_reply_without_any_address_left_is_refused(w: World) -> None:
    asked(w)
    w.pipeline.store.amend(conversation(w).id, lambda c: c.model_copy(update={"participants": ()}))
    with pytest.raises(NotFoundError):
        w.reply("T1", ANSWER)


def test_a_mail_that_answers_our_reply_finds_its_conversation(w: World) -> None:
    w.pipeline.deliver(replied(w, "email"))
    reply = w.channel("email").sent[0]
    w.clock.forward(days=60)
    w.say("email", "li", "Does a fridge do as well?", references=[f"provider-{reply.id}"])
    w.settle()
    assert w.desk.said[-1] == ("T1", "Does a fridge do as well?")


# When it cannot go out


def test_a_reply_that_the_provider_refuses_becomes_one_note(w: World) -> None:
    name = replied(w)
    w.channel("sms").failures.append(REFUSED)
    for _ in range(2):
        w.pipeline.deliver(name)
        w.settle()
    assert w.sent("sms") == []
    assert w.desk.notes == ["Not delivered: the number is unknown"]
    assert (w.stored(name).step, w.stored(name).failure) == (Step.FAILED, "the number is unknown")


def test_a_provider_that_is_down_is_tried_again(w: World) -> None:
    name = replied(w)
    w.channel("sms").failures.append(DOWN)
    with pytest.raises(RetryableError):
        w.pipeline.deliver(name)
    w.pipeline.deliver(name)
    w.pipeline.deliver(name)
    assert w.sent("sms") == [ANSWER]


def uncertain(w: World, name: str) -> None:
    """A try of which we hear that the line broke."""
    inbox = w.stored(name).message.inbox
    w.channel(inbox).failures.append(BROKE)
    try:
        w.pipeline.deliver(name)
    except RetryableError:
        w.pipeline.deliver(name)


def crashed(w: World, name: str) -> None:
    """A try of which nothing was heard again: it was sent, and not noted down."""
    with pytest.raises(SystemExit):
        replace(w.pipeline, report=crash_at("sent")).deliver(name)
    w.clock.forward(minutes=2)
    w.pipeline.deliver(name)


@pytest.mark.parametrize("try_", [uncertain, crashed])
@pytest.mark.parametrize(("inbox", "again"), [("sms", False), ("email", True), ("chat", True)])
def test_a_try_of_unknown_end_is_repeated_only_where_that_is_harmless(
    w: World, try_: Any, inbox: str, again: bool
) -> None:
    name = replied(w, inbox)
    try_(w, name)
    w.settle()
    sent_before = 1 if try_ is crashed else 0
    assert len(w.sent(inbox)) == sent_before + again
    assert w.desk.notes == ([] if again else [f"Not delivered: {MAY_HAVE_ARRIVED}"])


def test_a_broken_inbox_setting_leaves_the_reply_for_when_it_is_mended(w: World) -> None:
    name = replied(w)
    right = w.pipeline.deployment.document.inboxes
    w.configure(inboxes=right | {"sms": {"connector": "fake", "colour": "blue"}})
    with pytest.raises(ConfigurationError):
        w.pipeline.deliver(name)
    w.configure(inboxes=right)
    w.pipeline.deliver(name)
    assert (w.sent("sms"), w.desk.notes) == ([ANSWER], [])


def test_a_reply_through_an_inbox_that_is_gone_becomes_a_note(w: World) -> None:
    name = replied(w)
    w.configure(inboxes={"email": {"connector": "fake_email"}})
    w.pipeline.deliver(name)
    w.settle()
    assert w.desk.notes == ["Not delivered: the inbox sms is not configured any more"]


def test_a_second_worker_does_not_send_what_the_first_one_is_sending(w: World) -> None:
    name = replied(w)
    with pytest.raises(SystemExit):
        replace(w.pipeline, report=crash_at("claimed")).deliver(name, lease_seconds=60)
    with pytest.raises(RetryableError):
        w.pipeline.deliver(name)
    assert w.sent("sms") == []


# What it changes


def test_a_reply_answers_the_question_and_meets_the_deadline(w: World) -> None:
    w.pipeline.deliver(replied(w))
    now = conversation(w)
    assert (now.state, now.first_reply_due_at) == (State.ANSWERED, None)
    [question] = now.questions
    assert question.answer is not None
    assert (question.answer.text, question.answer.author) == (ANSWER, "Kim")


@pytest.mark.parametrize(
    ("events", "state"),
    [
        (["closed"], State.CLOSED),
        (["closed", "open"], State.OPEN),
        ([ANSWER, "closed"], State.CLOSED),
        ([ANSWER, "closed", "open"], State.ANSWERED),
        (["closed", ANSWER], State.CLOSED),
    ],
)
def test_a_conversation_stands_where_its_ticket_stands(
    w: World, events: list[str], state: State
) -> None:
    asked(w)
    for n, what in enumerate(events):
        fields = {"state": what} if what in ("open", "closed") else {"text": what}
        event(w, external_id=f"e{n}", **fields)
    assert conversation(w).state is state


# Hosted


def read(w: World, reader: str = "webchat:li", after: int = 0) -> list[str]:
    request = WebhookRequest(method="GET", headers={"reader": (reader,)}, received_at=w.clock.now)
    return w.pipeline.read("chat", request, after).body.splitlines()


def test_a_visitor_reads_both_sides_in_order_and_once(w: World) -> None:
    name = replied(w, "chat")
    w.pipeline.deliver(name)
    assert read(w) == [f"1 {QUESTION}", f"2 {ANSWER}"]
    for stored in w.messages():
        w.pipeline.relay(stored.message.id)
    assert read(w) == [f"1 {QUESTION}", f"2 {ANSWER}"]
    assert read(w, after=1) == [f"2 {ANSWER}"]
    assert read(w, reader="webchat:eve") == []


def test_a_hosted_inbox_has_pages(w: World) -> None:
    assert w.pipeline.page("chat", "widget.js", w.request({})).body == "widget.js"


def test_a_visitor_reads_what_was_said_in_the_response_too(w: World) -> None:
    w.pipeline.deliver(replied(w, "chat"))
    w.clock.forward(hours=1)
    response = w.say("chat", "li", QUESTION)
    w.settle()
    lines = [entry.message.text for entry in w.pipeline.store.feed_after("chat", "webchat:li", 2)]
    assert lines == [QUESTION, response.body]
    assert ANSWER in response.body


@pytest.mark.parametrize("inbox", ["sms", "nowhere"])
def test_no_other_inbox_has_pages_or_something_to_read(w: World, inbox: str) -> None:
    with pytest.raises(NotFoundError):
        w.pipeline.page(inbox, "widget.js", w.request({}))
    with pytest.raises(NotFoundError):
        w.pipeline.read(inbox, w.request({}), 0)


@pytest.mark.parametrize(
    ("files", "may_begin"), [([], True), ([{"name": "a.txt", "content": "aGVsbG8="}], False)]
)
def test_an_agents_files_take_turns_too(
    w: World, files: list[dict[str, str]], *, may_begin: bool
) -> None:
    asked(w)
    reply = {"ticket_id": "T1", "external_id": "e1", "text": ANSWER, "attachments": files}
    w.pipeline.accept_reply("desk", w.request(reply))
    w.pipeline.relay(w.messages()[-1].message.id)
    [name] = w.deliver_queue.take()
    seen: set[bool] = set()
    w.table.before_write = lambda _: seen.add(is_free_for_files())
    w.pipeline.deliver(name)
    assert seen == {may_begin}


def test_files_of_an_agent_go_out_with_their_bytes(w: World) -> None:
    asked(w, "email")
    event(w, text=ANSWER, attachments=[{"name": "a.txt", "content": "aGVsbG8="}])
    [sent] = w.channel("email").sent
    assert [(a.name, a.content) for a in sent.attachments] == [("a.txt", b"hello")]
