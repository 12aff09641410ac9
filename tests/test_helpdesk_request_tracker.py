"""The connector for Request Tracker against a small one that misbehaves when asked to.

What RT really does is in tests/test_request_tracker_real.py.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from chalicelib.errors import (
    ConfigurationError,
    GoneError,
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import WebhookRequest
from chalicelib.schema import Attachment, Correction, Priority, Reply, TicketChange
from connectors.helpdesks.request_tracker import RequestTracker
from tests import nouns
from tests.desk_server import DeskServer, Failure
from tests.desks.request_tracker import FakeRequestTracker
from tests.recorded import helpdesk

pytestmark = pytest.mark.usefixtures("no_waiting")

KEY = b"a key of thirty-two bytes, or so"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
NOW = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
ASKED, MESSAGE = nouns.conversation(), nouns.message(sender_name="Li Wei")
URGENT = nouns.conversation(priority=Priority.HIGH)
FILE = Attachment(name="票.png", media_type="image/png", content=b"\x89PNG\r\n\x00")


@dataclass
class Place:
    """An RT and its connector."""

    server: DeskServer
    rt: FakeRequestTracker
    desk: RequestTracker

    def open(self, *, again: bool = False) -> str:
        return self.desk.open_ticket(MESSAGE, ASKED, idempotency_key="q1", again=again)

    def comment(self, ticket: str = "1", *, again: bool = False, **more: Any) -> None:
        self.desk.add_comment(
            ticket, MESSAGE, more.get("about", ASKED), idempotency_key="m1", again=again
        )

    def note(self, ticket: str = "1", *, again: bool = False) -> None:
        self.desk.add_note(ticket, "asked twice", ASKED, idempotency_key="n1", again=again)

    @property
    def said(self) -> list[tuple[str, str]]:
        ours = [t for t in self.rt.transactions if t["Creator"]["id"] == "askonce"]
        return [(t["Type"], t["text"]) for t in ours]


@pytest.fixture
def place() -> Iterator[Place]:
    rt = FakeRequestTracker()
    with DeskServer(rt) as server:
        yield Place(server, rt, desk_at(server.url))


def desk_at(url: str = "https://rt.example", **more: Any) -> RequestTracker:
    settings = {"url": url, "token": FakeRequestTracker.token, "secret": SECRET}
    desk = helpdesk("request_tracker", settings | more)
    assert isinstance(desk, RequestTracker)
    return desk


CALLS: dict[str, Callable[[Place], Any]] = {
    "open_ticket": Place.open,
    "add_comment": Place.comment,
    "add_note": Place.note,
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


# In


def test_a_first_try_looks_for_nothing(place: Place) -> None:
    place.open()
    place.comment()
    place.note()
    paths = [(a.method, a.path.removeprefix("/REST/2.0")) for a in place.server.asked]
    assert paths == [
        ("GET", "/users"),  # a telephone number is nobody's alone
        ("POST", "/user"),
        ("POST", "/ticket"),
        ("POST", "/ticket/1/correspond"),
        ("POST", "/ticket/1/comment"),
    ]


def test_rt_is_told_not_to_write_to_the_customer(place: Place) -> None:
    message = nouns.message(address="email:li@example.cn")
    place.desk.open_ticket(message, ASKED, idempotency_key="q1")
    assert place.rt.tickets["1"]["SquelchMailTo"] == "li@example.cn"
    assert place.rt.users["askonce-c1"]["EmailAddress"] == "li@example.cn"


def test_an_address_that_is_only_claimed_finds_and_names_nobody(place: Place) -> None:
    place.rt.users["li"] = {"EmailAddress": "li@example.cn"}
    address = "email:li@example.cn"
    message = nouns.message(address=address, evidence=(nouns.evidence(address, "claimed"),))
    place.desk.open_ticket(message, ASKED, idempotency_key="q1")
    assert place.rt.tickets["1"]["Requestor"] == "askonce-c1"
    assert "EmailAddress" not in place.rt.users["askonce-c1"]


@pytest.mark.parametrize(
    ("field", "address"),
    [("EmailAddress", "email:li@example.cn"), ("MobilePhone", "phone:+8613800138000")],
)
def test_a_customer_whom_rt_knows_by_a_proven_address_is_taken(
    place: Place, field: str, address: str
) -> None:
    place.rt.users["li"] = {field: address.partition(":")[2]}
    place.desk.open_ticket(nouns.message(address=address), ASKED, idempotency_key="q1")
    assert place.rt.tickets["1"]["Requestor"] == "li"
    assert set(place.rt.users) == {"alice", "li"}


def test_a_search_that_finds_everybody_names_nobody(place: Place) -> None:
    place.rt.unsearched.add("MobilePhone")
    place.open()
    assert place.rt.tickets["1"]["Requestor"] == "askonce-c1"


def test_who_was_made_by_somebody_else_at_once_is_taken(place: Place) -> None:
    place.server.fail(None, Failure(400, acts=True, body={"message": "Name in use"}))
    place.open()
    assert place.rt.tickets["1"]["Requestor"] == "askonce-c1"


def test_files_go_with_the_first_words_and_with_later_ones(place: Place) -> None:
    lost = Attachment(name="lost.png", unavailable="it has expired")
    message = nouns.message("see", attachments=(FILE, lost))
    place.desk.open_ticket(message, ASKED, idempotency_key="q1")
    place.desk.add_comment("1", message, ASKED, idempotency_key="m1")
    files = [("票.png", FILE.content)]
    assert place.rt.tickets["1"]["files"] == files
    assert place.rt.transactions[0]["files"] == files
    assert place.said[0][1].endswith("see\n[lost.png could not be had] it has expired")


def test_what_is_urgent_is_raised_and_what_is_not_is_left_to_the_agents(place: Place) -> None:
    place.open()
    place.comment()
    assert "Priority" not in place.rt.tickets["1"]
    place.comment(about=URGENT)
    assert place.rt.tickets["1"]["Priority"] == 100
    place.desk.open_ticket(MESSAGE, URGENT, idempotency_key="q2")
    assert place.rt.tickets["2"]["Priority"] == 100


# Once


@each_call
@pytest.mark.parametrize("reset", ["before", "after"])
def test_a_line_that_is_cut_leaves_one_effect(
    place: Place, call: Callable[..., Any], reset: Any
) -> None:
    place.open()
    cut: list[Failure | None] = [Failure(reset=reset)]
    place.server.fail(*([None, None] if call is Place.open else []), *cut)
    if call is Place.open:
        place.rt.tickets.clear()
        place.rt.users.clear()
    with pytest.raises(RetryableError) as caught:
        call(place)
    assert caught.value.uncertain
    call(place, again=True)
    call(place, again=True)
    assert len(place.rt.tickets) == 1
    assert len(place.said) == (0 if call is Place.open else 1)


def test_without_the_field_that_tells_what_was_said_nothing_is_sent_again(place: Place) -> None:
    place.open()
    place.rt.fields.clear()
    for call in (place.open, place.comment, place.note):
        with pytest.raises(ConfigurationError, match="no custom field"):
            call(again=True)
    assert (len(place.rt.tickets), place.said) == (1, [])


def test_a_ticket_that_follows_a_gone_one_is_found_by_its_own_key(place: Place) -> None:
    place.open()
    key = "q1-after-1"
    second = place.desk.open_ticket(MESSAGE, ASKED, idempotency_key=key, again=True)
    assert second == place.desk.open_ticket(MESSAGE, ASKED, idempotency_key=key, again=True) == "2"


# Refusals


@each_call
@pytest.mark.parametrize("after", ["17", "Thu, 01 Jan 2099 00:00:00 GMT"])
def test_too_many_calls_wait_for_as_long_as_rts_front_says(
    place: Place, call: Callable[..., Any], after: str
) -> None:
    place.server.fail(Failure(429, {"Retry-After": after}))
    with pytest.raises(RetryableError) as caught:
        call(place)
    assert caught.value.retry_after_seconds is not None
    assert caught.value.retry_after_seconds >= 17


@each_call
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_page_of_html_is_tried_again(place: Place, call: Callable[..., Any], status: int) -> None:
    place.server.fail(*[Failure(status)] * 3)
    with pytest.raises(RetryableError):
        call(place)


@each_call
def test_a_wrong_token_stops_the_desk(place: Place, call: Callable[..., Any]) -> None:
    place.rt.token = "another"
    with pytest.raises(ConfigurationError, match='helpdesk "desk" refuses our credentials'):
        call(place)


def test_a_wrong_queue_stops_the_desk_in_rts_own_words(place: Place) -> None:
    place.desk = desk_at(place.server.url, queue="Nowhere")
    with pytest.raises(ConfigurationError, match="No permission to create tickets in the queue"):
        place.open()


@pytest.mark.parametrize("ticket", ["99", "T1", "1/../../user"])
def test_a_ticket_that_is_not_there_is_gone_though_rt_speaks_of_permission(
    place: Place, ticket: str
) -> None:
    for call in (place.comment, place.note):
        with pytest.raises(GoneError):
            call(ticket)
    with pytest.raises(GoneError):
        place.comment(ticket, about=URGENT)


def test_a_missing_right_stops_the_desk_though_rt_speaks_of_a_bad_request(place: Place) -> None:
    place.open()
    place.rt.may_write = False
    for call in (place.comment, place.note):
        with pytest.raises(ConfigurationError, match="has no right to"):
            call()
    with pytest.raises(ConfigurationError, match="no right to change the priority"):
        place.comment(about=URGENT)


def test_what_rt_will_never_take_is_refused_in_its_own_words(place: Place) -> None:
    place.open()
    with pytest.raises(RejectedError, match="not to RT's taste"):
        place.desk.add_note("1", "refuse this", ASKED, idempotency_key="n1")


@pytest.mark.parametrize("body", ["", "[]", '{"id": null}', "<html>ok</html>"])
def test_an_answer_without_a_ticket_may_be_one_all_the_same(place: Place, body: str) -> None:
    place.server.fail(None, None, Failure(200, body=body, acts=True))
    with pytest.raises(RetryableError) as caught:
        place.open()
    assert caught.value.uncertain
    assert place.open(again=True) == "1"


# Back


def signed(event: Any, *, key: bytes = KEY, at: datetime = NOW) -> WebhookRequest:
    """As the Scrip signs it, by Standard Webhooks' formula."""
    body, stamp = json.dumps(event).encode(), str(int(at.timestamp()))
    mac = hmac.new(key, f"rt-44.{stamp}.".encode() + body, hashlib.sha256).digest()
    headers = {
        "webhook-id": ["rt-44"],
        "webhook-timestamp": [stamp],
        "webhook-signature": [f"v1,{base64.b64encode(mac).decode()}"],
    }
    return WebhookRequest(method="POST", headers=headers, body=body, received_at=NOW)


def as_html(text: str) -> str:
    return f"<p>{'<br>'.join(text.splitlines())}</p>"


def told(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "type": f"ticket.{kind}",
        "ticket": 7,
        "transaction": 44,
        "author": "alice",
        "author_name": "Alice",
        "is_agent": True,
        "created": "2026-01-01T09:00:00Z",
        "old": None,
        "new": None,
        "content_type": "text/plain",
        "content": "Tomorrow.",
        "files": [],
    } | more


def read(kind: str, **more: Any) -> list[Any]:
    return desk_at().parse(signed(told(kind, **more)))


def test_what_the_scrip_signs_is_taken_and_nothing_else() -> None:
    genuine = signed(told("reply"))
    desk_at().verify(genuine)
    for forged in (
        signed(told("reply"), key=b"another key of thirty-two bytes."),
        signed(told("reply"), at=NOW - timedelta(seconds=301)),
        replace(genuine, body=genuine.body + b" "),
        replace(genuine, headers={}),
    ):
        with pytest.raises(SignatureError):
            desk_at().verify(forged)


def test_both_secrets_are_good_while_they_are_changed() -> None:
    new = f"whsec_{base64.b64encode(b'the next key of the same length').decode()}"
    desk_at(secret=[new, SECRET]).verify(signed(told("reply")))
    with pytest.raises(SignatureError):
        desk_at(secret=new).verify(signed(told("reply")))


def test_a_reply_has_rts_own_number() -> None:
    (reply,) = read("reply")
    assert reply == Reply(
        ticket_id="7", external_id="44", text="Tomorrow.", author="Alice", sent_at=NOW
    )


@pytest.mark.parametrize(
    "more",
    [
        {"author": "askonce"},
        {"is_agent": False},  # a customer who answers a mail of RT's
        {"content": " \n"},
    ],
)
def test_our_own_words_and_the_customers_never_come_back(more: dict[str, Any]) -> None:
    assert read("reply", **more) == []


@pytest.mark.parametrize("kind", ["reply", "note", "status", "merged"])
def test_nothing_that_we_did_comes_back(kind: str) -> None:
    more = {"content": "not-a-repeat", "old": "open", "new": "resolved"}
    assert read(kind, author="askonce", **more) == []


def test_a_note_never_leaves() -> None:
    assert read("note", content="The customer is right, not-a-repeat") == []


@pytest.mark.parametrize(
    ("content", "kind", "address"),
    [
        ("not-a-repeat", "not_a_repeat", None),
        ("same-person: Li@example.cn", "same_person", "email:li@example.cn"),
        ("askonce different-person\nsee the other ticket", "different_person", None),
    ],
)
def test_a_note_that_begins_with_a_command_is_a_correction(
    content: str, kind: str, address: str | None
) -> None:
    (correction,) = read("note", content=content)
    assert isinstance(correction, Correction)
    assert (correction.kind, correction.address, correction.by) == (kind, address, "Alice")
    (same,) = read("note", content=as_html(content), content_type="text/html")
    assert same == correction
    assert read("note", content=content, is_agent=False) == []


@pytest.mark.parametrize(
    ("old", "new", "author", "state"),
    [
        ("open", "resolved", "alice", "closed"),
        ("new", "rejected", "RT_System", "closed"),
        ("resolved", "open", "alice", "open"),
        ("resolved", "open", "RT_System", None),  # because somebody wrote: it is no agent's doing
        ("new", "open", "alice", None),
        ("open", "stalled", "alice", None),
        ("resolved", "deleted", "alice", None),
    ],
)
def test_a_ticket_is_closed_and_opened_by_agents(
    old: str, new: str, author: str, state: str | None
) -> None:
    found = read("status", old=old, new=new, author=author)
    assert [change.state for change in found] == ([state] if state else [])


def test_of_a_merge_the_ticket_that_went_is_told() -> None:
    into = "fsck.com-rt://rt.example/ticket/9"
    (change,) = read("merged", new=into)
    assert isinstance(change, TicketChange)
    assert (change.ticket_id, change.state, change.merged_into) == ("7", "merged", "9")
    assert read("merged", ticket=9, new=into) == []


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"type": "ticket.reply"}', b"\xff"])
def test_what_cannot_be_read_is_kept_aside(body: bytes) -> None:
    with pytest.raises(PayloadError):
        desk_at().parse(replace(signed({}), body=body))


def test_an_agents_file_is_fetched_with_our_token(place: Place) -> None:
    part = place.rt.part("image/png", b"\x89PNG\r\n", "label.png")
    (reply,) = read(
        "reply", files=[{"id": part["id"], "name": r"C:\label.png", "type": "Image/PNG", "size": 6}]
    )  # fmt: skip
    (file,) = reply.attachments
    assert (file.name, file.media_type, file.size_bytes) == ("label.png", "image/png", 6)
    assert place.desk.fetch(file) == b"\x89PNG\r\n"


# When asked


def replied(rt: FakeRequestTracker, ticket: str, text: bytes, **more: Any) -> dict[str, Any]:
    return rt.happen("Correspond", ticket, parts=[rt.part("text/plain", text)], **more)


def test_asked_for_the_first_time_it_begins_now(place: Place) -> None:
    assert place.desk.poll("", LATER).cursor == "0"
    last = replied(place.rt, "1", b"before")
    assert place.desk.poll("", LATER).cursor == last["id"]


def test_what_is_found_is_what_the_webhook_would_have_said(place: Place) -> None:
    place.open()
    place.comment()
    replied(place.rt, "1", "明天".encode())
    place.rt.happen("Comment", "1", parts=[place.rt.part("text/html", b"<p>not-a-repeat</p>")])
    place.rt.tickets["1"]["Status"] = "resolved"
    place.rt.happen("Status", "1", OldValue="open", NewValue="resolved")
    into = "fsck.com-rt://rt.example/ticket/9"
    place.rt.happen("AddLink", "1", NewValue=into, OldValue="")
    page = place.desk.poll("0", LATER)
    common: dict[str, Any] = {"ticket": 1, "author_name": "Alice"}
    assert list(page.found) == [
        *read("reply", transaction=2, content="明天", **common),
        *read("note", transaction=3, content="not-a-repeat", **common),
        *read("status", transaction=4, old="open", new="resolved", **common),
        *read("merged", transaction=5, new=into, **common),
    ]
    assert (page.cursor, page.more) == ("5", False)


def test_a_state_that_is_past_is_no_news(place: Place) -> None:
    place.open()
    place.rt.happen("Status", "1", OldValue="open", NewValue="resolved")
    assert place.desk.poll("0", LATER).found == []


def test_what_may_still_be_overtaken_is_left_for_the_next_time(place: Place) -> None:
    replied(place.rt, "1", b"one")
    replied(place.rt, "1", b"two", Created="2026-01-01T09:00:50Z")
    page = place.desk.poll("0", LATER)
    assert ([r.text for r in page.found], page.cursor) == (["one"], "1")  # type: ignore[union-attr]  # replies
    later = place.desk.poll(page.cursor, LATER + timedelta(minutes=1))
    assert ([r.text for r in later.found], later.cursor) == (["two"], "2")  # type: ignore[union-attr]  # replies


def test_many_things_come_in_pages_in_order(place: Place) -> None:
    for n in range(60):
        replied(place.rt, "1", str(n).encode())
    first = place.desk.poll("0", LATER)
    second = place.desk.poll(first.cursor, LATER)
    texts = [r.text for r in (*first.found, *second.found)]  # type: ignore[union-attr]  # replies
    assert texts == [str(n) for n in range(60)]
    assert (first.more, second.more) == (True, False)


def test_a_transaction_that_is_gone_holds_nothing_up(place: Place) -> None:
    replied(place.rt, "1", b"by nobody", who="shredded")
    replied(place.rt, "1", b"here")
    assert [r.text for r in place.desk.poll("0", LATER).found] == ["here"]  # type: ignore[union-attr]  # replies


@pytest.mark.parametrize("body", ["", "[]", '{"items": [{}]}', '{"items": 7}', "<html>"])
def test_an_answer_that_makes_no_sense_is_asked_for_again(place: Place, body: str) -> None:
    place.server.fail(Failure(200, body=body))
    with pytest.raises(RetryableError):
        place.desk.poll("0", LATER)


# Settings


@pytest.mark.parametrize(
    "wrong",
    [{"url": "ftp://rt"}, {"queue": "a' OR 1=1"}, {"user": "a\\"}, {"token": ""}, {"secret": ""}],
)
def test_a_wrong_setting_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        desk_at(**wrong)


def test_a_ticket_has_an_address_for_agents() -> None:
    assert desk_at().url_of("7") == "https://rt.example/Ticket/Display.html?id=7"
