"""What the core does for channels that we host: waiting, quotas, uploads, signs of life."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.errors import NotFoundError, TooManyError
from chalicelib.limits import Limits
from chalicelib.ports import Allowance, Signal, WebhookRequest, WebhookResponse
from chalicelib.store import SIGNAL_SECONDS, TYPING_SECONDS
from tests.fakes import START, World, world
from tests.recorded import helpdesk

QUESTION = "Where is my parcel?"


@pytest.fixture
def w() -> World:
    return world()


def reading(w: World, reader: str = "webchat:li") -> WebhookRequest:
    return WebhookRequest(method="GET", headers={"reader": (reader,)}, received_at=w.clock.now)


def read(w: World, after: int = 0, **more: Any) -> WebhookResponse:
    return w.pipeline.read("chat", reading(w), after, **more)


def asked(w: World) -> str:
    """A visitor's question on a ticket; returns the ticket."""
    w.say("chat", "li", QUESTION)
    w.settle()
    return next(iter(w.desk.effects.values())).ticket


def sign(w: World, ticket: str, kind: str) -> None:
    w.pipeline.accept_reply("desk", w.request({"ticket_id": ticket, "kind": kind}))


# Waiting


def test_a_reader_waits_no_longer_than_asked(w: World) -> None:
    began = w.clock.now
    assert read(w, wait_seconds=20).body == ""
    assert timedelta(seconds=20) <= w.clock.now - began < timedelta(seconds=21)


def test_a_reader_who_does_not_wait_is_answered_at_once(w: World) -> None:
    began = w.clock.now
    assert read(w).body == ""
    assert w.clock.now == began


def test_what_is_there_already_is_not_waited_for(w: World) -> None:
    asked(w)
    began = w.clock.now
    assert read(w, wait_seconds=20).body == f"1 {QUESTION}"
    assert w.clock.now == began


def test_a_look_is_one_call_to_the_table(w: World) -> None:
    asked(w)
    before = w.table.calls
    read(w)
    assert w.table.calls == before + 1


# Signs of life


def test_an_agent_who_types_is_seen_for_a_few_seconds(w: World) -> None:
    sign(w, asked(w), "typing")
    assert read(w, after=1).body == "typing"
    w.clock.forward(seconds=TYPING_SECONDS)
    assert read(w, after=1).body == ""


def test_a_waiting_reader_hears_of_it_once(w: World) -> None:
    ticket = asked(w)
    mark = read(w).headers["mark"]
    sign(w, ticket, "typing")
    began = w.clock.now
    news = read(w, 1, wait_seconds=20, mark=mark)
    assert news.body == "typing"
    assert w.clock.now == began
    read(w, 1, wait_seconds=20, mark=news.headers["mark"])
    assert w.clock.now > began


@pytest.mark.parametrize("kind", ["typing", "read"])
def test_the_same_sign_within_three_seconds_is_written_once(w: World, kind: str) -> None:
    ticket = asked(w)
    sign(w, ticket, kind)
    mark = read(w).headers["mark"]
    w.clock.forward(seconds=SIGNAL_SECONDS - 0.1)
    sign(w, ticket, kind)
    assert read(w).headers["mark"] == mark
    w.clock.forward(seconds=0.2)
    sign(w, ticket, kind)
    assert read(w).headers["mark"] != mark


def test_reading_and_typing_do_not_hide_each_other(w: World) -> None:
    ticket = asked(w)
    sign(w, ticket, "typing")
    sign(w, ticket, "read")
    _, presence = w.pipeline.store.feed("chat", "webchat:li", 0)
    assert presence.read_at == START
    assert presence.typing_seconds == TYPING_SECONDS


def test_signs_of_life_are_no_messages_and_are_forgotten(w: World) -> None:
    ticket = asked(w)
    messages, effects = len(w.messages()), len(w.desk.effects)
    for kind in ("typing", "read"):
        sign(w, ticket, kind)
    w.settle()
    assert (len(w.messages()), len(w.desk.effects)) == (messages, effects)
    (item,) = [i for i in w.table.items.values() if i.sk == "agent"]
    assert item.expires_at == int((START + timedelta(days=1)).timestamp())
    assert item.index == {}


def test_a_sign_beside_the_feed_takes_no_number_in_it(w: World) -> None:
    sign(w, asked(w), "typing")
    w.say("chat", "li", "And when does it come?")
    w.settle()
    assert [e.seq for e in w.pipeline.store.feed_after("chat", "webchat:li", 0)] == [1, 2]


def test_a_sign_on_a_channel_that_we_do_not_host_goes_nowhere(w: World) -> None:
    w.say("sms", "li", QUESTION)
    w.settle()
    before = len(w.table.items)
    sign(w, next(iter(w.desk.effects.values())).ticket, "typing")
    assert len(w.table.items) == before


def test_a_sign_on_a_ticket_that_is_not_ours_is_not_found(w: World) -> None:
    with pytest.raises(NotFoundError):
        sign(w, "T99", "typing")


def test_what_a_visitor_does_is_told_to_the_log_without_an_address(w: World) -> None:
    before = w.table.calls
    assert w.pipeline.signal("chat", reading(w)).status == 204
    assert w.table.calls == before
    name, told = w.events[-1]
    assert (name, told["inbox"], told["seq"]) == ("visitor.read", "chat", 3)
    assert "li" not in told["visitor"].split(":")
    assert len(told["visitor"]) == 13


# Uploads


def test_permission_to_upload_takes_no_call(w: World) -> None:
    before = w.table.calls
    assert w.pipeline.upload("chat", reading(w)).body == "https://bucket.example"
    assert w.table.calls == before


def test_an_uploaded_file_is_copied_to_its_message_and_linked_for_the_visitor(w: World) -> None:
    w.bucket.objects["uploads/x"] = b"leaf"
    w.say("chat", "li", "What is this?", attachments=[{"name": "leaf.png", "source": "uploads/x"}])
    w.settle()
    (call,) = [c for c in w.desk.effects.values() if c.what == "open"]
    (file,) = call.attachments
    assert (file.content, file.size_bytes) == (b"leaf", 4)
    assert str(file.key).startswith("attachments/")
    (entry,) = w.pipeline.store.feed_after("chat", "webchat:li", 0)
    (shown,) = w.pipeline.store.linked(entry.message).attachments
    assert shown.url == "https://bucket.example/uploads/x?for=3600"


def test_a_file_that_was_never_uploaded_is_named_as_missing_and_holds_up_nothing(w: World) -> None:
    w.say("chat", "li", "What is this?", attachments=[{"name": "leaf.png", "source": "uploads/x"}])
    w.settle()
    (call,) = [c for c in w.desk.effects.values() if c.what == "open"]
    assert call.attachments[0].unavailable == "the file was never uploaded"


# Quotas


def allowance(party: str = "li", per_minute: int = 6, cost: int = 1) -> Allowance:
    return Allowance(party=party, per_minute=per_minute, cost=cost)


def test_a_party_may_ask_as_often_as_its_quota_says_and_then_waits() -> None:
    limits = Limits()
    for _ in range(6):
        limits.demand([allowance()], START)
    with pytest.raises(TooManyError) as refused:
        limits.demand([allowance()], START)
    assert refused.value.retry_after_seconds == 10
    with pytest.raises(TooManyError):
        limits.demand([allowance()], START + timedelta(seconds=9.9))
    limits.demand([allowance()], START + timedelta(seconds=10))


def test_one_party_takes_nothing_from_another() -> None:
    limits = Limits()
    limits.demand([allowance(cost=6)], START)
    limits.demand([allowance("mei", cost=6)], START)
    for party in ("li", "mei"):
        with pytest.raises(TooManyError):
            limits.demand([allowance(party)], START)


def test_a_call_that_costs_more_is_allowed_less_often() -> None:
    limits = Limits()
    limits.demand([allowance(cost=4)], START)
    with pytest.raises(TooManyError) as refused:
        limits.demand([allowance(cost=4)], START)
    assert refused.value.retry_after_seconds == 20


def test_a_refused_call_takes_nothing_from_who_comes_later_in_line() -> None:
    limits = Limits()
    limits.demand([allowance(cost=6)], START)
    with pytest.raises(TooManyError):
        limits.demand([allowance(), allowance("all")], START)
    limits.demand([allowance("all", cost=6)], START)


def test_a_clock_that_goes_back_gives_nothing_away_and_takes_nothing() -> None:
    limits = Limits()
    limits.demand([allowance(cost=6)], START)
    with pytest.raises(TooManyError):
        limits.demand([allowance()], START - timedelta(hours=1))
    limits.demand([allowance()], START + timedelta(seconds=10))


def test_a_flood_of_parties_takes_no_more_memory_than_ten_thousand() -> None:
    limits = Limits()
    for n in range(10_050):
        limits.demand([allowance(str(n))], START)
    assert len(limits._buckets) == 10_000


@pytest.mark.parametrize("call", ["messages", "read", "uploads", "signals", "page"])
def test_every_call_of_a_hosted_channel_is_counted_before_anything_is_read(
    w: World, call: str
) -> None:
    pipeline = w.pipeline
    body = json.dumps([{"from": "li", "text": "hello?", "id": "1"}]).encode()
    headers = {"reader": ("webchat:li",), "signature": ("right",)}
    asked = WebhookRequest(
        method="POST", headers=headers, body=body, received_at=START, source_ip="192.0.2.7"
    )
    calls = {
        "messages": lambda: pipeline.accept("chat", asked),
        "read": lambda: pipeline.read("chat", asked, 0),
        "uploads": lambda: pipeline.upload("chat", asked),
        "signals": lambda: pipeline.signal("chat", asked),
        "page": lambda: pipeline.page("chat", "session", asked),
    }
    for _ in range(60):
        calls[call]()
    before = w.table.calls
    with pytest.raises(TooManyError):
        calls[call]()
    assert w.table.calls == before
    other = replace(asked, source_ip="192.0.2.8")
    pipeline.accept("chat", other)


def test_no_other_channel_is_counted(w: World) -> None:
    said = [w.say("sms", "li", f"line {n}").status for n in range(70)]
    assert said == [200] * 70


@pytest.mark.parametrize(
    ("desk", "event"),
    [
        ("sandbox", {"type": "KIND", "ticket": "T7", "id": "E1", "at": "2026-01-01T08:59:00Z"}),
        ("webhook", {"type": "agent.KIND", "ticket_id": "T7"}),
    ],
)
@pytest.mark.parametrize("kind", ["typing", "read"])
def test_a_helpdesk_tells_what_its_agent_is_doing(
    desk: str, event: dict[str, str], kind: str
) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    ours = helpdesk(desk, {"url": "https://desk.example/askonce", "secret": secret})
    body = json.dumps(event).replace("KIND", kind).encode()
    asked = WebhookRequest(method="POST", body=body, received_at=START)
    assert ours.parse(asked) == [Signal(ticket_id="T7", kind=kind)]  # type: ignore[arg-type]  # a literal


# An anonymous visitor who says who they are

WAS = {"address": "webchat:visitor", "level": "verified", "source": "continued"}
SIGNED = {"address": "external:C-1", "level": "verified", "source": "signed_identity"}
ANSWER = "It arrives tomorrow."


def logged_in(w: World, text: str) -> None:
    """The customer writes who was the visitor a moment ago."""
    w.say("chat", "customer", text, evidence=[SIGNED, WAS])
    w.settle()


def asked_anonymously(w: World) -> None:
    w.say("chat", "visitor", QUESTION)
    w.settle()


def lines_of(w: World, who: str) -> list[str]:
    entries = w.pipeline.store.feed_after("chat", f"webchat:{who}", 0)
    return [entry.message.text for entry in entries]


def contact_of(w: World, address: str) -> str:
    link = w.pipeline.store.link(address)
    assert link
    return link.noun.contact_id


def test_what_a_visitor_asked_becomes_the_customer_s_who_logs_in(w: World) -> None:
    asked_anonymously(w)
    logged_in(w, "Thanks, any news?")
    w.reply("T1", ANSWER)
    w.settle()
    assert ANSWER in lines_of(w, "customer")
    assert ANSWER not in lines_of(w, "visitor")
    assert [ticket for ticket, _ in w.desk.said] == ["T1", "T1"]


def test_an_answer_under_way_reaches_the_customer_instead_of_the_visitor(w: World) -> None:
    asked_anonymously(w)
    w.reply("T1", ANSWER)
    logged_in(w, "Do you sell teapots?")
    assert (ANSWER in lines_of(w, "customer"), ANSWER in lines_of(w, "visitor")) == (True, False)


def test_whoever_keeps_the_visitor_s_token_begins_anew(w: World) -> None:
    asked_anonymously(w)
    logged_in(w, "Thanks, any news?")
    w.reply("T1", ANSWER)
    w.settle()
    w.say("chat", "visitor", QUESTION)
    w.settle()
    assert lines_of(w, "visitor") == [QUESTION, QUESTION]
    assert w.desk.said[-1] == ("T2", QUESTION)
    assert contact_of(w, "webchat:visitor") != contact_of(w, "webchat:customer")


def test_what_was_answered_to_the_visitor_is_not_told_again_by_itself(w: World) -> None:
    asked_anonymously(w)
    w.reply("T1", ANSWER)
    w.settle()
    w.clock.forward(hours=1)
    logged_in(w, QUESTION)
    assert ANSWER not in lines_of(w, "customer")
    assert any("not proven to be the same person" in note for note in w.desk.notes)


def test_nobody_takes_over_a_person_whom_we_know(w: World) -> None:
    w.say("chat", "visitor", QUESTION, evidence=[SIGNED | {"address": "external:C-2"}])
    w.settle()
    logged_in(w, "Thanks, any news?")
    w.reply("T1", ANSWER)
    w.settle()
    assert (ANSWER in lines_of(w, "customer"), ANSWER in lines_of(w, "visitor")) == (False, True)


def test_taking_over_twice_changes_nothing(w: World) -> None:
    asked_anonymously(w)
    logged_in(w, "Thanks, any news?")
    logged_in(w, "Hello?")
    assert {ticket for ticket, _ in w.desk.said} == {"T1"}
