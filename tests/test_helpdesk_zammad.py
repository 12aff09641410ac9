"""Zammad: a fake that keeps what it is told, and events of the shapes that its pages show."""

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
from chalicelib.ports import FromDesk, WebhookRequest
from chalicelib.schema import (
    Attachment,
    Correction,
    Reply,
    State,
    TicketChange,
)
from connectors.helpdesks.zammad import Zammad
from tests import nouns
from tests.desk_server import DeskServer, Failure
from tests.desks import zammad
from tests.desks.calls import CONVERSATION, FILE, REPEATED, commented, opened
from tests.desks.zammad import FakeZammad, article, event
from tests.recorded import with_header

pytestmark = pytest.mark.usefixtures("no_waiting")

NOW = 1767258000


@pytest.fixture
def fake() -> FakeZammad:
    return FakeZammad()


@pytest.fixture
def server(fake: FakeZammad) -> Iterator[DeskServer]:
    with DeskServer(fake) as server:
        yield server
    assert fake.mistakes == []


@pytest.fixture
def desk(server: DeskServer) -> Zammad:
    return a_desk(url=server.url)


def a_desk(**more: Any) -> Zammad:
    settings: dict[str, Any] = {
        "url": zammad.URL,
        "token": zammad.TOKEN,
        "user_id": zammad.OWN_ID,
        "secret": zammad.SECRET,
        "group": zammad.GROUP,
    }
    return Zammad(Zammad.settings_model.model_validate(settings | more), "desk")


def paths(server: DeskServer) -> list[str]:
    return [f"{a.method} {a.path.removeprefix('/api/v1')}" for a in server.asked]


# Tickets


def test_a_first_message_makes_a_customer_and_a_ticket_by_one_call(
    desk: Zammad, fake: FakeZammad, server: DeskServer
) -> None:
    assert opened(desk) == "35"
    ticket, user = fake.tickets[35], fake.users[-1]
    assert (user["login"], user["mobile"]) == ("askonce-c1", "+8613800138000")
    assert (ticket.told["title"], ticket.customer_id) == ("Where is my parcel?", user["id"])
    assert ticket.tags == ["askonce", "sms", "question", "q-2222-3333"]
    assert ticket.priority_id == 2
    assert ticket.told["preferences"] == {"askonce": {"key": "q1", "conversation": "q1"}}
    [said] = fake.on(35)
    assert (said["body"], said["sender"], said["type"]) == (
        "Where is my parcel?",
        "Customer",
        "web",
    )
    assert (said["origin_by_id"], said["internal"]) == (user["id"], False)
    assert paths(server) == ["POST /tickets"]


def test_an_admins_attribute_holds_the_conversations_id(
    server: DeskServer, fake: FakeZammad
) -> None:
    opened(a_desk(url=server.url, conversation_attribute="conversation_id"))
    assert fake.tickets[35].told["conversation_id"] == "q1"


def test_a_known_customer_is_left_as_agents_made_it(desk: Zammad, fake: FakeZammad) -> None:
    known = {"id": 5, "login": "askonce-c1", "firstname": "Mrs Li, VIP"}
    fake.users.append(dict(known))
    opened(desk, sender_name="li")
    assert fake.tickets[35].customer_id == 5
    assert fake.users[-1] == known


def test_a_customer_is_known_by_a_verified_email(desk: Zammad, fake: FakeZammad) -> None:
    fake.users.append({"id": 5, "login": "li", "email": "li@example.com", "firstname": "Li"})
    opened(desk, address="email:li@example.com", channel="email")
    assert fake.tickets[35].customer_id == 5


def test_an_address_that_is_only_claimed_finds_nobody(desk: Zammad, fake: FakeZammad) -> None:
    fake.users.append({"id": 5, "login": "li", "email": "li@example.com", "firstname": "Li"})
    claimed = (nouns.evidence("email:li@example.com", "claimed"),)
    opened(desk, address="email:li@example.com", channel="email", evidence=claimed)
    assert fake.tickets[35].customer_id != 5


def test_an_address_that_zammad_does_not_like_is_left_out(desk: Zammad, fake: FakeZammad) -> None:
    opened(desk, address="email:li@host.invalid", channel="email")
    assert "email" not in fake.users[-1]
    assert list(fake.tickets) == [35]


def test_two_that_make_a_customer_at_once_make_one(
    desk: Zammad, fake: FakeZammad, server: DeskServer
) -> None:
    taken = {"error_human": "Email address 'li@example.com' is already used for another user."}
    server.fail(Failure(422, body=taken))
    with pytest.raises(RetryableError):
        opened(desk, address="email:li@example.com", channel="email")
    assert fake.users == fake.users[:1]


def test_a_ticket_has_an_address_for_agents() -> None:
    assert a_desk().url_of("35") == "https://desk.example/#ticket/zoom/35"


# Comments


def test_a_comment_is_the_customers_and_opens_the_ticket(desk: Zammad, fake: FakeZammad) -> None:
    ticket = opened(desk)
    fake.close(35)
    commented(desk, ticket)
    said = fake.on(35)[-1]
    assert (said["body"], said["sender"]) == ("thanks", "Customer")
    assert said["origin_by_id"] == fake.tickets[35].customer_id
    assert fake.tickets[35].state == "open"


def test_a_new_ticket_stays_new_until_an_agent_has_seen_it(desk: Zammad, fake: FakeZammad) -> None:
    commented(desk, opened(desk))
    assert fake.tickets[35].state == "new"


def test_a_comment_on_what_is_answered_leaves_the_state(desk: Zammad, fake: FakeZammad) -> None:
    ticket = opened(desk)
    fake.close(35)
    commented(desk, ticket, conversation=nouns.conversation(state=State.ANSWERED))
    assert fake.tickets[35].state == "closed"


def test_a_repeat_makes_it_high_and_others_leave_what_agents_set(
    desk: Zammad, fake: FakeZammad
) -> None:
    ticket = opened(desk)
    fake.tickets[35].priority_id = 1
    commented(desk, ticket)
    assert fake.tickets[35].priority_id == 1
    commented(desk, ticket, conversation=REPEATED, key="m3")
    assert fake.tickets[35].priority_id == 3
    fake.tickets[35].priority_id = 4
    commented(desk, ticket, conversation=REPEATED, key="m4")
    assert fake.tickets[35].priority_id == 4


def test_a_note_is_internal_and_ours(desk: Zammad, fake: FakeZammad) -> None:
    ticket = opened(desk)
    desk.add_note(ticket, "Asked twice.", CONVERSATION, idempotency_key="m1-note0")
    note = fake.on(35)[-1]
    assert (note["body"], note["internal"], note["sender"]) == ("Asked twice.", True, "Agent")


def test_files_go_along(desk: Zammad, fake: FakeZammad) -> None:
    lost = Attachment(name="a.pdf", unavailable="too big")
    ticket = opened(desk, attachments=(FILE, lost))
    [said] = fake.on(35)
    assert [(f["filename"], f["data"]) for f in said["attachments"]] == [("票.png", b"\x89PNG")]
    assert "a.pdf could not be had" in said["body"]
    file = Attachment(media_type="audio/amr", content=b"x")
    desk.add_comment(
        ticket, nouns.message(attachments=(file, FILE)), CONVERSATION, idempotency_key="m2"
    )
    assert [f["filename"] for f in fake.on(35)[-1]["attachments"]] == ["file-1.amr", "票.png"]


@pytest.mark.parametrize("what", ["comment", "note"])
def test_what_is_said_on_a_merged_ticket_goes_where_that_went(
    desk: Zammad, fake: FakeZammad, what: str
) -> None:
    opened(desk)
    opened(desk, key="q2", address="phone:+8613900139000")
    customer = fake.tickets[35].customer_id
    fake.merge(35, 36)
    act(desk, what)
    act(desk, what, again=True)
    assert effects(fake, what) == 1
    said = fake.on(36)[-1]
    assert fake.tickets[35].state == "merged"
    assert what == "note" or said["origin_by_id"] == customer


def test_a_ticket_merged_into_one_that_is_gone_takes_nothing(
    desk: Zammad, fake: FakeZammad
) -> None:
    opened(desk)
    fake.tickets[35].state = "merged"
    with pytest.raises(GoneError):
        act(desk, "comment")


# Once


def act(desk: Zammad, what: str, *, again: bool = False) -> None:
    """One of the three calls, always the same one."""
    if what == "open":
        opened(desk, again=again)
    elif what == "comment":
        commented(desk, "35", again=again)
    else:
        desk.add_note("35", "Asked twice.", CONVERSATION, idempotency_key="n1", again=again)


each_act = pytest.mark.parametrize("what", ["open", "comment", "note"])
BEFORE = {"open": 0, "comment": 1, "note": 1}


def prepared(desk: Zammad, server: DeskServer, what: str, failure: Failure) -> None:
    """The call's own effect is what goes wrong."""
    if what != "open":
        opened(desk)
    server.fail(*[None] * BEFORE[what], failure)


def effects(fake: FakeZammad, what: str) -> int:
    wanted = {"open": "Where is my parcel?", "comment": "thanks", "note": "Asked twice."}[what]
    return [a["body"] for a in fake.articles].count(wanted)


@each_act
@pytest.mark.parametrize("reset", ["before", "after"])
def test_a_cut_line_has_one_effect_in_the_end(
    desk: Zammad, fake: FakeZammad, server: DeskServer, what: str, reset: Any
) -> None:
    prepared(desk, server, what, Failure(reset=reset))
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.uncertain
    act(desk, what, again=True)
    act(desk, what, again=True)
    assert effects(fake, what) == 1


@each_act
def test_an_answer_of_nothing_may_mean_that_it_was_done(
    desk: Zammad, fake: FakeZammad, server: DeskServer, what: str
) -> None:
    prepared(desk, server, what, Failure(200, body=b"", acts=True))
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.uncertain
    act(desk, what, again=True)
    assert effects(fake, what) == 1


def test_a_ticket_after_another_one_is_told_from_it(desk: Zammad) -> None:
    opened(desk)
    second = [opened(desk, key="q1-after-35", again=True) for _ in range(2)]
    assert second == ["36", "36"]


def test_first_tries_look_for_no_key(desk: Zammad, server: DeskServer) -> None:
    ticket = opened(desk)
    commented(desk, ticket)
    desk.add_note(ticket, "n", CONVERSATION, idempotency_key="n1")
    assert not [p for p in paths(server) if "search" in p or "by_ticket" in p]


# What goes wrong


@each_act
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "93"}, 93.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "40"}, 40.0),
    ],
)
def test_the_limit_says_when_to_come_back(
    desk: Zammad, server: DeskServer, what: str, headers: dict[str, str], seconds: float
) -> None:
    prepared(desk, server, what, Failure(429, headers, "<html>slow down</html>"))
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.retry_after_seconds == seconds


def test_the_limit_may_name_a_time(desk: Zammad, server: DeskServer) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    prepared(desk, server, "comment", Failure(429, {"Retry-After": at}))
    with pytest.raises(RetryableError) as caught:
        act(desk, "comment")
    assert caught.value.retry_after_seconds == pytest.approx(300, abs=30)


@each_act
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failure_of_theirs_is_tried_again(
    desk: Zammad, server: DeskServer, what: str, status: int
) -> None:
    prepared(desk, server, what, Failure(status))
    with pytest.raises(RetryableError):
        act(desk, what)


@each_act
@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_the_deployments_fault(
    desk: Zammad, server: DeskServer, what: str, status: int
) -> None:
    prepared(desk, server, what, Failure(status, body={"error": "Not authorized"}))
    with pytest.raises(ConfigurationError, match=r'helpdesk "desk".*Not authorized'):
        act(desk, what)


@pytest.mark.parametrize("what", ["comment", "note"])
def test_a_deleted_ticket_takes_nothing_any_more(desk: Zammad, what: str) -> None:
    for again in (False, True):
        with pytest.raises(GoneError, match="Couldn't find Ticket"):
            act(desk, what, again=again)


def test_a_ticket_closed_for_good_takes_nothing_any_more(desk: Zammad, server: DeskServer) -> None:
    words = "Cannot follow-up on a closed ticket. Please create a new ticket."
    prepared(desk, server, "comment", Failure(422, body={"error": words}))
    with pytest.raises(GoneError, match="create a new ticket"):
        act(desk, "comment")


def test_a_refusal_keeps_zammads_words(server: DeskServer) -> None:
    with pytest.raises(RejectedError, match="Group is missing"):
        opened(a_desk(url=server.url, group="Nobody"))


# The way back


def request(told: dict[str, Any] | bytes, secret: str = zammad.SECRET) -> WebhookRequest:
    body = told if isinstance(told, bytes) else zammad.body_of(told)
    signed = zammad.headers(body, secret)
    return WebhookRequest(
        method="POST",
        headers={name.lower(): (value,) for name, value in signed.items()},
        body=body,
        received_at=datetime.fromtimestamp(NOW, UTC),
    )


def heard(told: dict[str, Any], **settings: Any) -> list[FromDesk]:
    desk = a_desk(**settings)
    desk.verify(request(told))
    return desk.parse(request(told))


def test_a_genuine_event_is_accepted_under_both_secrets() -> None:
    a_desk().verify(request(event(article())))
    a_desk(secret=["new", zammad.SECRET]).verify(request(event(article())))


def test_a_forged_or_changed_event_is_refused() -> None:
    genuine = request(event(article()))
    right = genuine.header("x-hub-signature")
    forged = [replace(genuine, body=genuine.body + b" "), request(genuine.body, secret="other")]
    for values in ((), ("",), (right, right), (right[:-1],), (right[5:],), ("签\ud800",)):
        forged.append(with_header(genuine, "x-hub-signature", *values))
    for each in forged:
        with pytest.raises(SignatureError):
            a_desk().verify(each)


REPLY = Reply(
    ticket_id="35",
    external_id="104",
    text="It left today. 明天",
    author="Kim Lee",
    sent_at=datetime(2026, 1, 1, 8, 59, tzinfo=UTC),
)


@pytest.mark.parametrize(
    "said",
    [
        article("<div>It left <b>today</b>. 明天</div>"),
        article("It left today. 明天\n", content_type="text/plain"),
        article("It left today. 明天", **{"from": "Kim Lee <kim@shop.example>"}),
    ],
)
def test_an_agents_public_note_is_a_reply(said: dict[str, Any]) -> None:
    assert heard(event(said)) == [REPLY]


@pytest.mark.parametrize(
    "said",
    [
        article(internal=True),
        article(sender="Customer", created_by_id=zammad.OWN_ID, origin_by_id=101),
        article(sender="Customer", created_by_id=101),
        article(sender="System", created_by_id=1),
        article(created_by_id=zammad.OWN_ID),
        article(created_by_id=zammad.OWN_ID, internal=True),
        article(type="phone"),
        article(type="email", to="li@example.com"),
        article("not-a-repeat", internal=True, created_by_id=zammad.OWN_ID),
        article("not-a-repeat", internal=True, sender="Customer"),
        article("<div> </div>"),
        article(""),
    ],
)
def test_notes_and_what_customers_zammad_or_we_said_never_leave(said: dict[str, Any]) -> None:
    assert heard(event(said)) == []


def test_mail_goes_out_by_us_where_the_owner_says_so() -> None:
    [reply] = heard(event(article(type="email")), reply_types=["note", "email"])
    assert isinstance(reply, Reply)


def test_an_agents_file_is_known_by_its_numbers_never_by_an_address() -> None:
    told = zammad.file(url="https://evil.example/x", filename="C:\\tmp\\label.pdf")
    [reply] = heard(event(article("", attachments=[told])))
    assert isinstance(reply, Reply)
    assert reply.attachments == (
        Attachment(
            name="label.pdf", media_type="application/pdf", size_bytes=35574, source="35/104/174"
        ),
    )


CLOSED = "2026-01-01T08:58:00.000Z"


def test_an_answer_that_closes_is_both() -> None:
    reply, closed = heard(event(article(), state="closed", last_close_at=CLOSED))
    assert isinstance(reply, Reply)
    assert isinstance(closed, TicketChange)
    assert (closed.state, closed.at) == ("closed", datetime(2026, 1, 1, 8, 58, tzinfo=UTC))


def test_a_closing_is_one_however_often_it_is_told() -> None:
    [first] = heard(event(state="closed", last_close_at=CLOSED))
    later = "2026-01-01T08:59:59.000Z"
    [again] = heard(event(state="closed", last_close_at=CLOSED, updated_at=later))
    [other] = heard(event(state="closed", last_close_at=later))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("ticket", "state"),
    [
        ({"state": "open", "last_close_at": CLOSED}, "open"),
        ({"state": "open", "last_close_at": CLOSED, "updated_by_id": zammad.OWN_ID}, None),
        ({"state": "open"}, None),
        ({"state": "pending reminder", "last_close_at": CLOSED}, None),
        ({"state": "merged", "last_close_at": CLOSED}, None),
    ],
)
def test_a_ticket_that_an_agent_opened_again_is_open(
    ticket: dict[str, Any], state: str | None
) -> None:
    found = [c.state for c in heard(event(**ticket)) if isinstance(c, TicketChange)]
    assert found == ([state] if state else [])


def test_a_state_of_ones_own_may_mean_closed() -> None:
    done = event(state="done", last_close_at=CLOSED)
    assert heard(done) == []
    assert len(heard(done, closed_states=["closed", "done"])) == 1


@pytest.mark.parametrize(
    ("note", "kind", "address"),
    [
        ("<div>not-a-repeat</div>", "not_a_repeat", None),
        ("same-person: li@example.com", "same_person", "email:li@example.com"),
        ("different-person<br>he said so", "different_person", None),
    ],
)
def test_an_internal_note_may_correct(note: str, kind: str, address: str | None) -> None:
    [found] = heard(event(article(note, internal=True)))
    assert isinstance(found, Correction)
    assert (found.kind, found.address, found.by) == (kind, address, "Kim Lee")
    assert (found.ticket_id, found.external_id) == ("35", "104")


def test_public_words_never_correct() -> None:
    [found] = heard(event(article("not-a-repeat")))
    assert isinstance(found, Reply)


def test_a_hostile_event_is_a_payload_error_or_harmless() -> None:
    whole = event(article(attachments=[zammad.file()]), state="closed")
    spoilt: list[Any] = [{}, [], None, 7, -1, 10**30, "x" * 5000, "0001-01-01T00:00:00+23:59"]
    bodies = [b"", b"null", b"[", b"[" * 50_000, b"\xff", b"7"]
    for part in ("ticket", "article"):
        bodies += [json.dumps(whole | {part: bad}).encode() for bad in spoilt]
        for name in whole[part]:
            changed = [whole | {part: whole[part] | {name: bad}} for bad in spoilt]
            bodies += [json.dumps(each).encode() for each in changed]
    for body in bodies:
        try:
            found = a_desk().parse(request(body))
        except PayloadError:
            continue
        assert all(isinstance(f, Reply | TicketChange | Correction) for f in found)


# Asked


def told_by(desk: Zammad, cursor: str, fake: FakeZammad) -> list[FromDesk]:
    """All pages of a round."""
    found: list[FromDesk] = []
    while True:
        page = desk.poll(cursor, fake.now)
        found += page.found
        cursor = page.cursor
        if not page.more:
            return found


def test_it_is_asked_from_now_on(desk: Zammad, fake: FakeZammad, server: DeskServer) -> None:
    page = desk.poll("", fake.now)
    assert (page.found, page.more, server.asked) == ((), False, [])


def test_what_is_found_has_the_ids_of_its_webhooks(desk: Zammad, fake: FakeZammad) -> None:
    opened(desk)
    start = desk.poll("", fake.now).cursor
    files = [zammad.file()]
    said = fake.said(35, "<p>It left today.</p>", attachments=files)
    fake.said(35, "Nobody may see this", internal=True)
    note = fake.said(35, "not-a-repeat", internal=True)
    commented(desk, "35")
    fake.close(35)
    found = told_by(desk, start, fake)
    ticket = fake.tickets[35].expanded | {"updated_by_id": 77}
    heard_of = [*heard({"ticket": ticket, "article": zammad.shown(said)})]
    assert found[0] == heard_of[0]
    assert isinstance(found[1], Correction)
    assert found[1].external_id == str(note["id"])
    assert found[2] == heard_of[1]
    assert len(found) == 3


def test_nothing_old_is_told_again(desk: Zammad, fake: FakeZammad) -> None:
    opened(desk)
    fake.said(35, "long ago")
    fake.close(35)
    fake.now += timedelta(minutes=10)
    start = desk.poll("", fake.now).cursor
    commented(desk, "35")
    assert told_by(desk, start, fake) == []


def test_a_round_has_as_many_pages_as_it_needs(desk: Zammad, fake: FakeZammad) -> None:
    start = desk.poll("", fake.now).cursor
    for n in range(45):
        opened(desk, key=f"q{n}")
        fake.said(35 + n, f"answer {n}")
    for n in (3, 4):  # of the first page, but said something late
        fake.said(35 + n, f"more {n}")
    texts = [found.text for found in told_by(desk, start, fake) if isinstance(found, Reply)]
    assert sorted(texts) == sorted([*(f"answer {n}" for n in range(45)), "more 3", "more 4"])


def test_tickets_that_are_not_ours_are_not_looked_at(desk: Zammad, fake: FakeZammad) -> None:
    start = desk.poll("", fake.now).cursor
    fake.tickets[1] = zammad.Ticket(1, 5, {}, tags=["vip"])
    fake.said(1, "to somebody else")
    assert told_by(desk, start, fake) == []


def test_a_merge_is_found_and_moved_articles_are_no_news(desk: Zammad, fake: FakeZammad) -> None:
    opened(desk)
    opened(desk, key="q2")
    fake.said(35, "said before")
    fake.now += timedelta(minutes=10)
    start = desk.poll("", fake.now).cursor
    fake.merge(35, 36)
    [merged] = told_by(desk, start, fake)
    assert isinstance(merged, TicketChange)
    assert (merged.ticket_id, merged.state, merged.merged_into) == ("35", "merged", "36")


# Files of agents


def test_a_file_is_fetched_with_credentials(desk: Zammad, server: DeskServer) -> None:
    assert desk.fetch(Attachment(source="35/104/174")) == b"%PDF"
    assert server.asked[0].path == "/api/v1/ticket_attachment/35/104/174"


@pytest.mark.parametrize("source", [None, "", "https://evil.example/x", "../users/1", "1/2/3?x"])
def test_anything_else_is_not_fetched(source: str | None) -> None:
    with pytest.raises(RejectedError):
        a_desk().fetch(Attachment(source=source))
