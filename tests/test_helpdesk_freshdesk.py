"""Freshdesk: a fake that keeps what it is told; agents' answers are asked for, not told."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from chalicelib.errors import (
    ConfigurationError,
    GoneError,
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import FromDesk, Polled, WebhookRequest
from chalicelib.schema import (
    Attachment,
    Correction,
    Reply,
    State,
    TicketChange,
)
from connectors.helpdesks.freshdesk import Freshdesk
from tests import nouns
from tests.desk_server import Asked, DeskServer, Failure, Said
from tests.desks import freshdesk
from tests.desks.calls import CONVERSATION, FILE, REPEATED, commented, opened
from tests.desks.freshdesk import FakeFreshdesk, Ticket

pytestmark = pytest.mark.usefixtures("no_waiting")

NOW = 1767258000


@pytest.fixture
def fake() -> FakeFreshdesk:
    return FakeFreshdesk()


@pytest.fixture
def server(fake: FakeFreshdesk) -> Iterator[DeskServer]:
    with DeskServer(fake) as server:
        yield server
    assert fake.mistakes == []


@pytest.fixture
def desk(server: DeskServer) -> Freshdesk:
    return a_desk(url=server.url)


def a_desk(**more: Any) -> Freshdesk:
    settings: dict[str, Any] = {
        "url": freshdesk.ACCOUNT_URL,
        "api_key": freshdesk.API_KEY,
        "path_secret": freshdesk.PATH_SECRET,
    }
    return Freshdesk(Freshdesk.settings_model.model_validate(settings | more), "desk")


def calls(server: DeskServer) -> list[str]:
    return [f"{a.method} {a.path.removeprefix('/api/v2')}" for a in server.asked]


# Tickets


def test_a_first_message_makes_a_contact_and_a_ticket(desk: Freshdesk, fake: FakeFreshdesk) -> None:
    assert opened(desk, text="Where <is>\nit? & when") == "21"
    [contact], told = fake.contacts, fake.tickets[21].told
    assert contact == {
        "id": contact["id"],
        "name": "+8613800138000",
        "unique_external_id": "c1",
        "mobile": "+8613800138000",
    }
    assert told == {
        "requester_id": contact["id"],
        "subject": "Where <is> it? & when",
        "description": "<div>Where &lt;is&gt;<br>it? &amp; when</div>",
        "status": 2,
        "priority": 2,
        "tags": ["askonce", "sms", "question", "Q-2222-3333"],
        "custom_fields": {"cf_askonce": "q1"},
    }


@pytest.mark.parametrize("name", ["mobile", "phone"])
def test_a_contact_is_known_by_a_verified_number(
    desk: Freshdesk, fake: FakeFreshdesk, name: str
) -> None:
    fake.contacts.append({"id": 5, name: "+8613800138000"})
    opened(desk)
    assert [(c["id"], c["unique_external_id"]) for c in fake.contacts] == [(5, "c1")]


def test_a_contact_is_known_by_a_verified_email(desk: Freshdesk, fake: FakeFreshdesk) -> None:
    fake.contacts.append({"id": 5, "email": "li@example.com"})
    opened(desk, address="email:li@example.com", channel="email")
    assert [(c["id"], c["unique_external_id"]) for c in fake.contacts] == [(5, "c1")]


def test_a_contact_of_another_system_keeps_that_systems_id(
    desk: Freshdesk, fake: FakeFreshdesk
) -> None:
    fake.contacts.append({"id": 5, "email": "li@example.com", "unique_external_id": "crm-1"})
    opened(desk, address="email:li@example.com", channel="email")
    assert fake.contacts[0]["unique_external_id"] == "crm-1"
    assert fake.tickets[21].told["requester_id"] == 5


def test_an_address_that_is_only_claimed_finds_nobody(desk: Freshdesk, fake: FakeFreshdesk) -> None:
    fake.contacts.append({"id": 5, "email": "li@example.com"})
    claimed = (nouns.evidence("email:li@example.com", "claimed"),)
    opened(desk, address="email:li@example.com", channel="email", evidence=claimed)
    assert fake.tickets[21].told["requester_id"] != 5


def test_who_writes_from_an_agents_address_is_a_contact_without_it(
    desk: Freshdesk, fake: FakeFreshdesk
) -> None:
    fake.agents_emails.add("kim@example.com")
    opened(desk, address="email:kim@example.com", channel="email")
    [contact] = fake.contacts
    assert "email" not in contact


def test_two_at_once_make_one_contact(
    desk: Freshdesk, fake: FakeFreshdesk, server: DeskServer
) -> None:
    made = {"id": 5, "unique_external_id": "c1"}

    class Meanwhile(FakeFreshdesk):
        def answer(self, asked: Asked) -> Said:
            if asked.method == "POST" and asked.path.endswith("/contacts"):
                fake.contacts.append(made)
            return fake.answer(asked)

    server.desk = Meanwhile()
    opened(desk)
    assert fake.contacts == [made]
    assert fake.tickets[21].told["requester_id"] == 5


def test_without_the_field_the_deployment_is_wrong_and_says_what_to_do(
    desk: Freshdesk, fake: FakeFreshdesk
) -> None:
    fake.fields.clear()
    with pytest.raises(ConfigurationError, match="no ticket field cf_askonce: add"):
        opened(desk)


def test_a_ticket_has_an_address_for_agents() -> None:
    assert a_desk().url_of("21") == "https://example.freshdesk.com/a/tickets/21"


# Comments


def test_a_comment_is_an_incoming_note_in_the_customers_name(
    desk: Freshdesk, fake: FakeFreshdesk, server: DeskServer
) -> None:
    commented(desk, opened(desk))
    [note] = fake.tickets[21].talks
    assert (note["incoming"], note["private"]) == (True, False)
    assert note["user_id"] == fake.contacts[0]["id"]
    assert note["body"].startswith("<div>thanks</div><div style=")
    assert not [call for call in calls(server) if "reply" in call]


def test_a_comment_opens_the_ticket_again_unless_it_is_answered(
    desk: Freshdesk, fake: FakeFreshdesk
) -> None:
    ticket = opened(desk)
    fake.tickets[21].told["status"] = 4
    commented(desk, ticket, conversation=nouns.conversation(state=State.ANSWERED))
    assert fake.tickets[21].told["status"] == 4
    commented(desk, ticket, key="m3")
    assert fake.tickets[21].told["status"] == 2


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 3), (3, 3), (4, 4)])
def test_a_repeat_makes_it_urgent_and_never_less(
    desk: Freshdesk, fake: FakeFreshdesk, before: int, after: int
) -> None:
    ticket = opened(desk)
    fake.tickets[21].told["priority"] = before
    commented(desk, ticket)
    assert fake.tickets[21].told["priority"] == before
    commented(desk, ticket, conversation=REPEATED, key="m3")
    assert fake.tickets[21].told["priority"] == after


def test_a_note_is_private_and_ours(desk: Freshdesk, fake: FakeFreshdesk) -> None:
    ticket = opened(desk)
    desk.add_note(ticket, "Asked <twice>.", CONVERSATION, idempotency_key="n1")
    [note] = fake.tickets[21].talks
    assert (note["private"], note["incoming"], note["user_id"]) == (True, False, 9)
    assert "Asked &lt;twice&gt;." in note["body"]


def test_files_go_along(desk: Freshdesk, fake: FakeFreshdesk) -> None:
    lost = Attachment(name="a.pdf", unavailable="too big")
    ticket = opened(desk, attachments=(FILE, lost))
    told = fake.tickets[21].told
    assert told["attachments"] == [("票.png", "image/png", FILE.content)]
    assert "a.pdf could not be had" in told["description"]
    assert told["custom_fields"] == {"cf_askonce": "q1"}
    assert told["tags"][0] == "askonce"
    desk.add_comment(ticket, nouns.message(attachments=(FILE,)), CONVERSATION, idempotency_key="m2")
    [note] = fake.tickets[21].talks
    assert (note["incoming"], note["private"]) == (True, False)
    assert fake.files[note["id"]] == [("票.png", "image/png", FILE.content)]


# Once


def act(desk: Freshdesk, what: str, *, again: bool = False) -> None:
    """One of the three calls, always the same one."""
    if what == "open":
        desk.open_ticket(nouns.message(), CONVERSATION, idempotency_key="q1", again=again)
    elif what == "comment":
        commented(desk, "21", again=again)
    else:
        desk.add_note("21", "Asked twice.", CONVERSATION, idempotency_key="n1", again=again)


each_act = pytest.mark.parametrize("what", ["open", "comment", "note"])
BEFORE = {"open": 4, "comment": 1, "note": 0}


def prepared(desk: Freshdesk, server: DeskServer, what: str, failure: Failure) -> None:
    """The call's own effect is what goes wrong."""
    if what != "open":
        opened(desk)
    server.fail(*[None] * BEFORE[what], failure)


def effects(fake: FakeFreshdesk, what: str) -> int:
    if what == "open":
        return len(fake.tickets)
    wanted = {"comment": "thanks", "note": "Asked twice."}[what]
    return sum(wanted in talk["body"] for talk in fake.tickets[21].talks)


@each_act
@pytest.mark.parametrize(
    "failure",
    [
        Failure(reset="before"),
        Failure(reset="after"),
        Failure(200, body=b"", acts=True),
        Failure(502, acts=True),
        Failure(504),
    ],
    ids=["cut before", "cut after", "empty 200", "bad gateway after", "gateway time-out"],
)
def test_a_lost_answer_has_one_effect_in_the_end(
    desk: Freshdesk, fake: FakeFreshdesk, server: DeskServer, what: str, failure: Failure
) -> None:
    prepared(desk, server, what, failure)
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.uncertain
    act(desk, what, again=True)
    act(desk, what, again=True)
    assert effects(fake, what) == 1


def test_what_a_comment_makes_of_the_ticket_is_done_by_the_second_try(
    desk: Freshdesk, fake: FakeFreshdesk, server: DeskServer
) -> None:
    ticket = opened(desk)
    fake.tickets[21].told["status"] = 5
    server.fail(None, None, *[Failure(503)] * 3)
    with pytest.raises(RetryableError):
        commented(desk, ticket)
    commented(desk, ticket, again=True)
    assert (effects(fake, "comment"), fake.tickets[21].told["status"]) == (1, 2)


def test_a_ticket_after_another_one_is_told_from_it(desk: Freshdesk) -> None:
    opened(desk)
    second = [
        desk.open_ticket(
            nouns.message("more"), CONVERSATION, idempotency_key="q1-after-21", again=True
        )
        for _ in range(2)
    ]
    assert second == ["22", "22"]


def test_our_key_is_found_on_any_page(desk: Freshdesk, fake: FakeFreshdesk) -> None:
    ticket = opened(desk)
    for n in range(150):
        fake.say(fake.tickets[21], f"line {n}")
    commented(desk, ticket)
    commented(desk, ticket, again=True)
    assert effects(fake, "comment") == 1


def test_a_key_that_another_one_begins_with_is_another_one(
    desk: Freshdesk, fake: FakeFreshdesk
) -> None:
    ticket = opened(desk)
    commented(desk, ticket, key="m10")
    commented(desk, ticket, "more", key="m1", again=True)
    assert len(fake.tickets[21].talks) == 2


def test_first_tries_look_for_nothing_of_ours(desk: Freshdesk, server: DeskServer) -> None:
    ticket = opened(desk)
    commented(desk, ticket)
    desk.add_note(ticket, "n", CONVERSATION, idempotency_key="n1")
    assert not [c for c in calls(server) if c.startswith("GET /tickets")]


# What goes wrong


@each_act
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "93"}, 93.0), ({"X-RateLimit-Remaining": "0"}, 60.0)],
)
def test_the_limit_says_when_to_come_back(
    desk: Freshdesk, server: DeskServer, what: str, headers: dict[str, str], seconds: float
) -> None:
    prepared(desk, server, what, Failure(429, headers, {"message": "Too many requests"}))
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.retry_after_seconds == seconds


def test_the_limit_may_name_a_time(desk: Freshdesk, server: DeskServer) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    prepared(desk, server, "comment", Failure(429, {"Retry-After": at}))
    with pytest.raises(RetryableError) as caught:
        act(desk, "comment")
    assert caught.value.retry_after_seconds == pytest.approx(300, abs=30)


@each_act
@pytest.mark.parametrize("status", [500, 503])
def test_a_failure_of_theirs_is_tried_again(
    desk: Freshdesk, server: DeskServer, what: str, status: int
) -> None:
    prepared(desk, server, what, Failure(status))
    with pytest.raises(RetryableError):
        act(desk, what)


@each_act
@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_the_deployments_fault(
    desk: Freshdesk, server: DeskServer, what: str, status: int
) -> None:
    refusal = {"code": "access_denied", "message": "You are not authorized"}
    prepared(desk, server, what, Failure(status, body=refusal))
    with pytest.raises(ConfigurationError, match=r'helpdesk "desk".*not authorized'):
        act(desk, what)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("what", ["comment", "note"])
def test_a_ticket_that_is_gone_takes_nothing_any_more(
    desk: Freshdesk, what: str, again: bool
) -> None:
    with pytest.raises(GoneError):
        act(desk, what, again=again)


def test_a_refusal_keeps_freshdesks_words(desk: Freshdesk, server: DeskServer) -> None:
    wrong = {"field": "type", "message": "It should not be blank", "code": "missing_field"}
    refusal = {"description": "Validation failed", "errors": [wrong]}
    prepared(desk, server, "open", Failure(400, body=refusal))
    with pytest.raises(RejectedError, match="Validation failed; type: It should not be blank"):
        act(desk, "open")


# Webhooks


def request(body: bytes, secret: str = freshdesk.PATH_SECRET) -> WebhookRequest:
    return WebhookRequest(
        method="POST",
        headers={"content-type": ("application/json",)},
        body=body,
        received_at=datetime.fromtimestamp(NOW, UTC),
        path_secret=secret,
    )


def test_a_webhook_ends_in_a_secret_and_two_are_good_while_they_change() -> None:
    genuine = request(b"{}")
    a_desk().verify(genuine)
    a_desk(path_secret=["another-one-of-16", freshdesk.PATH_SECRET]).verify(genuine)
    for forged in ("", freshdesk.PATH_SECRET[:-1], freshdesk.PATH_SECRET + "x", "签\ud800"):
        with pytest.raises(SignatureError):
            a_desk().verify(replace(genuine, path_secret=forged))


@pytest.mark.parametrize(("name", "state"), [("closed", "closed"), ("reopened", "open")])
def test_a_rule_tells_that_a_ticket_was_closed_or_opened(name: str, state: str) -> None:
    [change] = a_desk().parse(request(json.dumps({"event": name, "ticket_id": "21"}).encode()))
    assert isinstance(change, TicketChange)
    assert (change.ticket_id, change.state) == ("21", state)


def test_other_rules_tell_nothing() -> None:
    told = {"event": "replied", "ticket_id": "21", "text": "It left today."}
    assert a_desk().parse(request(json.dumps(told).encode())) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"\xff",
        b"[" * 50_000,
        b"{}",
        b'{"event": "closed"}',
        b'{"event": "closed", "ticket_id": ""}',
        b'{"event": [], "ticket_id": "1"}',
    ],
)
def test_a_hostile_webhook_is_a_payload_error(body: bytes) -> None:
    with pytest.raises(PayloadError):
        a_desk().parse(request(body))


# Polling


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


@pytest.fixture
def ticket(desk: Freshdesk, fake: FakeFreshdesk) -> Ticket:
    return fake.tickets[int(opened(desk))]


def polled(desk: Freshdesk, cursor: str, seconds: int = 0) -> tuple[list[FromDesk], str]:
    """All pages from a cursor on, so many seconds later, and the cursor after them."""
    found: list[FromDesk] = []
    page = Polled(found=(), cursor=cursor, more=True)
    while page.more:
        page = desk.poll(page.cursor, at(seconds))
        found += page.found
    return found, page.cursor


def begun(desk: Freshdesk) -> str:
    return desk.poll("", at(0)).cursor


def test_an_agents_answer_is_found_with_freshdesks_own_id(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket
) -> None:
    cursor = begun(desk)
    fake.now += 60
    talk = fake.say(ticket, "<div>It left <b>today</b>. 明天</div>")
    found, _ = polled(desk, cursor)
    assert found == [
        Reply(
            ticket_id="21", external_id=str(talk["id"]), text="It left today. 明天", sent_at=at(60)
        )
    ]


def test_what_was_found_comes_again_for_a_while_with_the_same_id_and_then_no_more(
    desk: Freshdesk, fake: FakeFreshdesk, server: DeskServer, ticket: Ticket
) -> None:
    cursor = begun(desk)
    found = []
    for seconds, texts in ((60, ["one"]), (241, ["two"]), (300, []), (600, [])):
        fake.now = NOW + seconds
        for text in texts:
            fake.say(ticket, text)
        replies, cursor = polled(desk, cursor, seconds)
        found.append([r for r in replies if isinstance(r, Reply)])
    assert [[r.text for r in each] for each in found] == [["one"], ["one", "two"], ["two"], ["two"]]
    assert found[0][0] == found[1][0]
    server.asked.clear()
    assert polled(desk, cursor, 660)[0] == []
    assert calls(server) == ["GET /tickets"]


def test_a_reply_of_before_the_first_poll_is_left(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket
) -> None:
    fake.say(ticket, "long ago")
    fake.now += 500
    cursor = desk.poll("", at(500)).cursor
    fake.now += 1
    fake.say(ticket, "now")
    found, _ = polled(desk, cursor)
    assert [r.text for r in found if isinstance(r, Reply)] == ["now"]


@pytest.mark.parametrize(
    "more",
    [
        {"private": True, "source": 2},
        {"incoming": True},
        {"source": 8},
        {"source": 6},
        {"incoming": True, "source": 2, "user_id": 1001},
        {"source": None},
    ],
)
def test_notes_and_what_customers_said_and_forwards_never_leave(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket, more: dict[str, Any]
) -> None:
    cursor = begun(desk)
    fake.say(ticket, "not for customers", **more)
    assert polled(desk, cursor)[0] == []


def test_our_own_words_never_come_back(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket
) -> None:
    cursor = begun(desk)
    commented(desk, "21")
    desk.add_note("21", "Asked twice.", CONVERSATION, idempotency_key="n1")
    assert polled(desk, cursor)[0] == []


def test_tickets_that_are_not_ours_are_not_looked_at(
    desk: Freshdesk, fake: FakeFreshdesk, server: DeskServer
) -> None:
    cursor = begun(desk)
    other = Ticket(99, {"requester_id": 3, "status": 2, "custom_fields": {"cf_askonce": None}}, NOW)
    fake.tickets[99] = other
    fake.say(other, "for somebody else")
    assert polled(desk, cursor)[0] == []
    assert calls(server) == ["GET /tickets"]


@pytest.mark.parametrize(
    "history",
    [
        '<div class="freshdesk_quote"><blockquote class="freshdesk_quote">On Monday</blockquote>',
        '<div class="gmail_quote">On Monday Li wrote</div>',
        "<div>[askonce:m2]</div>",
    ],
)
def test_history_below_a_reply_is_left_out(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket, history: str
) -> None:
    cursor = begun(desk)
    fake.say(ticket, f"<p>It left today.</p>{history}")
    found, _ = polled(desk, cursor)
    assert [r.text for r in found if isinstance(r, Reply)] == ["It left today."]


def test_a_public_note_of_an_agent_is_a_reply(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket
) -> None:
    cursor = begun(desk)
    fake.say(ticket, "It left today.", source=2)
    assert len(polled(desk, cursor)[0]) == 1


def test_files_of_agents_come_along_even_without_words(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket
) -> None:
    cursor = begun(desk)
    url = "https://s3.amazonaws.com/cdn.freshdesk.com/data/helpdesk/attachments/1/label.pdf?X-Amz=1"
    file = {"id": 4, "name": "label.pdf", "content_type": "application/pdf", "size": 9}
    fake.say(ticket, "", attachments=[file | {"attachment_url": url}])
    [reply] = polled(desk, cursor)[0]
    assert isinstance(reply, Reply)
    assert reply.attachments == (
        Attachment(name="label.pdf", media_type="application/pdf", size_bytes=9, source=url),
    )


@pytest.mark.parametrize("status", [4, 5])
def test_a_closed_ticket_is_told_once(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket, status: int
) -> None:
    cursor = begun(desk)
    fake.now += 60
    fake.resolve(ticket, status)
    found, cursor = polled(desk, cursor)
    assert [c.state for c in found if isinstance(c, TicketChange)] == ["closed"]
    assert polled(desk, cursor)[0] == []


@pytest.mark.parametrize(
    ("note", "kind", "address"),
    [
        ("<p>not-a-repeat</p>", "not_a_repeat", None),
        ("same-person: li@example.com", "same_person", "email:li@example.com"),
        ("<div>different-person</div><div>he said so</div>", "different_person", None),
    ],
)
def test_a_private_note_may_correct(
    desk: Freshdesk, fake: FakeFreshdesk, ticket: Ticket, note: str, kind: str, address: str | None
) -> None:
    cursor = begun(desk)
    talk = fake.say(ticket, note, private=True, source=2)
    [found] = polled(desk, cursor)[0]
    assert isinstance(found, Correction)
    assert (found.kind, found.address, found.by) == (kind, address, "agent 7")
    assert found.external_id == str(talk["id"])


def test_many_tickets_at_once_are_read_page_by_page(desk: Freshdesk, fake: FakeFreshdesk) -> None:
    cursor = begun(desk)
    for n in range(45):
        ticket = Ticket(
            100 + n, {"requester_id": 3, "status": 2, "custom_fields": {"cf_askonce": "q"}}, NOW
        )
        fake.tickets[ticket.id] = ticket
        fake.say(ticket, f"answer {n}")
    first = desk.poll(cursor, at(0))
    assert (len(first.found), first.more) == (20, True)
    found, after = polled(desk, cursor)
    assert {r.text for r in found if isinstance(r, Reply)} == {f"answer {n}" for n in range(45)}
    assert polled(desk, after)[1] == after


def test_what_is_answered_while_a_long_round_is_read_is_found_by_the_next_one(
    desk: Freshdesk, fake: FakeFreshdesk
) -> None:
    cursor = begun(desk)
    told = {"requester_id": 3, "status": 2, "custom_fields": {"cf_askonce": "q"}}
    fake.tickets |= {100 + n: Ticket(100 + n, dict(told), NOW + n) for n in range(45)}
    fake.now = NOW + 80
    page = desk.poll(cursor, at(80))
    fake.now += 1
    fake.say(fake.tickets[100], "It left today.")  # that of the last page goes to the first one
    _, cursor = polled(desk, page.cursor, 500)
    found, _ = polled(desk, cursor, 560)
    assert "It left today." in {r.text for r in found if isinstance(r, Reply)}


@pytest.mark.parametrize("body", [b"", b"{}", b"[7]", b'[{"id": 1}]', b"<html>"])
def test_what_is_no_list_of_tickets_is_asked_for_again(
    desk: Freshdesk, server: DeskServer, body: bytes
) -> None:
    cursor = begun(desk)
    server.fail(Failure(200, body=body))
    with pytest.raises(RetryableError):
        desk.poll(cursor, at(0))


# Files of agents


class Bucket:
    """Serves one file, and remembers the credentials that it was shown."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def answer(self, asked: Asked) -> Said:
        self.seen.append(asked.headers.get("authorization", ""))
        return Said(200, b"%PDF", {"Content-Type": "application/pdf"})


def test_a_file_is_fetched_without_credentials() -> None:
    bucket = Bucket()
    with DeskServer(bucket) as server:
        desk = a_desk(file_hosts=[server.url.removeprefix("http://")])
        assert desk.fetch(Attachment(source=f"{server.url}/label.pdf")) == b"%PDF"
    assert bucket.seen == [""]


@pytest.mark.parametrize("source", [None, "https://evil.example/x", "http://s3.amazonaws.com/x"])
def test_a_file_elsewhere_is_not_fetched(source: str | None) -> None:
    with pytest.raises(RejectedError):
        a_desk().fetch(Attachment(source=source))
