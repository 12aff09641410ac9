"""Zendesk: a fake that keeps what it is told, and events of the shapes that its pages show."""

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
from connectors.helpdesks.zendesk import Zendesk
from tests import nouns
from tests.desk_server import Asked, DeskServer, Failure, Said
from tests.desks import zendesk
from tests.desks.calls import CONVERSATION, FILE, REPEATED, commented, opened
from tests.desks.zendesk import FakeZendesk, comment, event, mistake_in
from tests.recorded import later, with_header

pytestmark = pytest.mark.usefixtures("no_waiting")

NOW = 1767258000


@pytest.fixture
def fake() -> FakeZendesk:
    return FakeZendesk()


@pytest.fixture
def server(fake: FakeZendesk) -> Iterator[DeskServer]:
    with DeskServer(fake) as server:
        yield server
    assert fake.mistakes == []


@pytest.fixture
def desk(server: DeskServer) -> Zendesk:
    return a_desk(url=server.url)


def a_desk(**more: Any) -> Zendesk:
    settings: dict[str, Any] = {
        "url": zendesk.SUBDOMAIN_URL,
        "email": zendesk.EMAIL,
        "token": zendesk.TOKEN,
        "user_id": zendesk.OWN_ID,
        "secret": zendesk.SECRET,
    }
    return Zendesk(Zendesk.settings_model.model_validate(settings | more), "desk")


def paths(server: DeskServer) -> list[str]:
    return [f"{a.method} {a.path.removeprefix('/api/v2')}" for a in server.asked]


# Tickets


def test_a_first_message_makes_a_user_and_a_ticket(
    desk: Zendesk, fake: FakeZendesk, server: DeskServer
) -> None:
    assert opened(desk) == "35"
    [user], told = fake.users, fake.tickets[35].told
    assert (user["external_id"], user["phone"]) == ("c1", "+8613800138000")
    assert told == {
        "subject": "Where is my parcel?",
        "requester_id": user["id"],
        "external_id": "q1",
        "priority": "normal",
        "tags": ["askonce", "sms", "question", "q-2222-3333"],
    }
    [said] = fake.tickets[35].comments
    assert (said["body"], said["author_id"]) == ("Where is my parcel?", user["id"])
    assert said["public"] is True
    assert paths(server) == ["GET /users/search", "POST /users/create_or_update", "POST /tickets"]


def test_a_known_user_is_found_and_left_as_agents_made_it(
    desk: Zendesk, fake: FakeZendesk, server: DeskServer
) -> None:
    fake.users.append({"id": 5, "external_id": "c1", "name": "Mrs Li, VIP"})
    opened(desk, sender_name="li")
    assert fake.users == [{"id": 5, "external_id": "c1", "name": "Mrs Li, VIP"}]
    assert paths(server) == ["GET /users/search", "POST /tickets"]


def test_a_user_is_known_by_a_verified_email(desk: Zendesk, fake: FakeZendesk) -> None:
    fake.users.append({"id": 5, "email": "li@example.com", "name": "Li"})
    opened(desk, address="email:li@example.com", channel="email")
    assert [(u["id"], u["external_id"]) for u in fake.users] == [(5, "c1")]


def test_an_address_that_is_only_claimed_finds_nobody(desk: Zendesk, fake: FakeZendesk) -> None:
    fake.users.append({"id": 5, "email": "li@example.com", "name": "Li"})
    claimed = (nouns.evidence("email:li@example.com", "claimed"),)
    opened(desk, address="email:li@example.com", channel="email", evidence=claimed)
    assert fake.tickets[35].told["requester_id"] != 5


def test_an_address_that_is_another_users_is_left_to_that_one(
    desk: Zendesk, fake: FakeZendesk, server: DeskServer
) -> None:
    fake.users.append({"id": 5, "email": "li@example.com", "name": "Li"})
    server.fail(None, Failure(422, body={"error": "RecordInvalid", "description": "taken"}))
    opened(desk, address="email:li@example.com", channel="email")
    [_, own] = fake.users
    assert own == {"id": own["id"], "role": "end-user", "external_id": "c1"} | {
        "name": "li@example.com"
    }


def test_an_oauth_token_is_sent_as_such(server: DeskServer, fake: FakeZendesk) -> None:
    fake.authorization = "Bearer api-token"
    assert opened(a_desk(url=server.url, email="")) == "35"


def test_a_ticket_has_an_address_for_agents() -> None:
    assert a_desk().url_of("35") == "https://example.zendesk.com/agent/tickets/35"


# Comments


def test_a_comment_is_the_customers_and_opens_the_ticket(desk: Zendesk, fake: FakeZendesk) -> None:
    ticket = opened(desk)
    fake.tickets[35].status = "solved"
    commented(desk, ticket)
    said = fake.tickets[35].comments[-1]
    assert (said["body"], said["author_id"]) == ("thanks", fake.users[0]["id"])
    assert (said["public"], fake.tickets[35].status) == (True, "open")


def test_a_comment_on_what_is_answered_leaves_the_status(desk: Zendesk, fake: FakeZendesk) -> None:
    ticket = opened(desk)
    fake.tickets[35].status = "solved"
    commented(desk, ticket, conversation=nouns.conversation(state=State.ANSWERED))
    assert fake.tickets[35].status == "solved"


def test_a_repeat_makes_it_urgent_and_others_leave_what_agents_set(
    desk: Zendesk, fake: FakeZendesk
) -> None:
    ticket = opened(desk)
    fake.tickets[35].told["priority"] = "low"
    commented(desk, ticket)
    assert fake.tickets[35].told["priority"] == "low"
    commented(desk, ticket, conversation=REPEATED, key="m3")
    assert fake.tickets[35].told["priority"] == "high"
    fake.tickets[35].told["priority"] = "urgent"
    commented(desk, ticket, conversation=REPEATED, key="m4")
    assert fake.tickets[35].told["priority"] == "urgent"


def test_a_note_is_private_and_ours(desk: Zendesk, fake: FakeZendesk) -> None:
    ticket = opened(desk)
    desk.add_note(ticket, "Asked twice.", CONVERSATION, idempotency_key="m1-note0")
    note = fake.tickets[35].comments[-1]
    assert note == {"body": "Asked twice.", "public": False, "files": []}


def test_files_go_along(desk: Zendesk, fake: FakeZendesk) -> None:
    lost = Attachment(name="a.pdf", unavailable="too big")
    ticket = opened(desk, attachments=(FILE, lost))
    [said] = fake.tickets[35].comments
    assert said["files"] == [("票.png", "image/png", FILE.content)]
    assert "a.pdf could not be had" in said["body"]
    file = Attachment(media_type="audio/amr", content=b"x")
    desk.add_comment(
        ticket, nouns.message(attachments=(file, FILE)), CONVERSATION, idempotency_key="m2"
    )
    named = [name for name, _, _ in fake.tickets[35].comments[-1]["files"]]
    assert named == ["file-1.amr", "票.png"]


# Once


def act(desk: Zendesk, what: str, *, again: bool = False) -> None:
    """One of the three calls, always the same one."""
    if what == "open":
        desk.open_ticket(nouns.message(), CONVERSATION, idempotency_key="q1", again=again)
    elif what == "comment":
        commented(desk, "35", again=again)
    else:
        desk.add_note("35", "Asked twice.", CONVERSATION, idempotency_key="n1", again=again)


each_act = pytest.mark.parametrize("what", ["open", "comment", "note"])
BEFORE = {"open": 2, "comment": 1, "note": 0}


def prepared(
    desk: Zendesk, server: DeskServer, what: str, failure: Failure, times: int = 1
) -> None:
    """The call's own effect is what goes wrong."""
    if what != "open":
        opened(desk)
    server.fail(*[None] * BEFORE[what], *[failure] * times)


def effects(fake: FakeZendesk, what: str) -> int:
    wanted = {"open": "Where is my parcel?", "comment": "thanks", "note": "Asked twice."}[what]
    return [c["body"] for t in fake.tickets.values() for c in t.comments].count(wanted)


@each_act
@pytest.mark.parametrize("reset", ["before", "after"])
def test_a_cut_line_has_one_effect_in_the_end(
    desk: Zendesk, fake: FakeZendesk, server: DeskServer, what: str, reset: Any
) -> None:
    prepared(desk, server, what, Failure(reset=reset), times=3 if what == "open" else 1)
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.uncertain
    fake.forget_keys()
    act(desk, what, again=True)
    act(desk, what, again=True)
    assert effects(fake, what) == 1


@each_act
def test_an_answer_of_nothing_may_mean_that_it_was_done(
    desk: Zendesk, fake: FakeZendesk, server: DeskServer, what: str
) -> None:
    prepared(desk, server, what, Failure(200, body=b"", acts=True))
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.uncertain
    act(desk, what, again=True)
    assert effects(fake, what) == 1


def test_a_blip_while_opening_is_ridden_out_under_zendesks_own_key(
    desk: Zendesk, fake: FakeZendesk, server: DeskServer
) -> None:
    prepared(desk, server, "open", Failure(reset="after"))
    assert opened(desk) == "35"
    assert list(fake.tickets) == [35]


def test_the_key_with_other_words_waits_until_the_first_try_can_be_found(
    desk: Zendesk, fake: FakeZendesk
) -> None:
    opened(desk)
    with pytest.raises(RetryableError):
        desk.open_ticket(nouns.message("other"), CONVERSATION, idempotency_key="q1")
    again = desk.open_ticket(nouns.message("other"), CONVERSATION, idempotency_key="q1", again=True)
    assert again == "35"


def test_a_ticket_after_another_one_is_told_from_it(desk: Zendesk, fake: FakeZendesk) -> None:
    opened(desk)
    key = "q1-after-35"
    second = [
        desk.open_ticket(nouns.message("more"), CONVERSATION, idempotency_key=key, again=True)
        for _ in range(2)
    ]
    assert second == ["36", "36"]


def test_our_key_is_found_on_any_page(fake: FakeZendesk, desk: Zendesk) -> None:
    fake.with_pages_of(2)
    ticket = opened(desk)
    for n in range(5):
        commented(desk, ticket, f"line {n}", key=f"m{n}")
    commented(desk, ticket, "line 4", key="m4", again=True)
    assert len(fake.tickets[35].comments) == 6


def test_first_tries_look_for_nothing(desk: Zendesk, server: DeskServer) -> None:
    ticket = opened(desk)
    commented(desk, ticket)
    desk.add_note(ticket, "n", CONVERSATION, idempotency_key="n1")
    assert not [p for p in paths(server) if p.startswith("GET /tickets")]


# What goes wrong


@each_act
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "93"}, 93.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "40"}, 40.0),
        ({"X-Rate-Limit-Remaining": "0"}, 60.0),
    ],
)
def test_the_limit_says_when_to_come_back(
    desk: Zendesk, server: DeskServer, what: str, headers: dict[str, str], seconds: float
) -> None:
    prepared(desk, server, what, Failure(429, headers, {"error": "TooManyRequests"}))
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.retry_after_seconds == seconds


def test_the_limit_may_name_a_time(desk: Zendesk, server: DeskServer) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    prepared(desk, server, "comment", Failure(429, {"Retry-After": at}))
    with pytest.raises(RetryableError) as caught:
        act(desk, "comment")
    assert caught.value.retry_after_seconds == pytest.approx(300, abs=30)


def test_every_answer_tells_the_pace(desk: Zendesk, server: DeskServer) -> None:
    server.fail(Failure(200, {"ratelimit-remaining": "699", "ratelimit-reset": "41"}, "{}"))
    with pytest.raises(RetryableError):
        opened(desk)
    assert desk.pace is not None
    assert (desk.pace.remaining, desk.pace.resets_in_seconds) == (699, 41.0)


@each_act
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_failure_of_theirs_is_tried_again(
    desk: Zendesk, server: DeskServer, what: str, status: int
) -> None:
    prepared(desk, server, what, Failure(status), times=3)
    with pytest.raises(RetryableError):
        act(desk, what)


def test_two_updates_at_once_take_turns(desk: Zendesk, server: DeskServer) -> None:
    prepared(desk, server, "comment", Failure(409, body={"error": "UpdateConflict"}))
    with pytest.raises(RetryableError):
        act(desk, "comment")


@each_act
@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_the_deployments_fault(
    desk: Zendesk, server: DeskServer, what: str, status: int
) -> None:
    refusal = {"error": {"title": "Forbidden", "message": "You do not have access to this page."}}
    prepared(desk, server, what, Failure(status, body=refusal))
    with pytest.raises(ConfigurationError, match=r'helpdesk "desk".*do not have access'):
        act(desk, what)


@pytest.mark.parametrize("what", ["comment", "note"])
def test_a_closed_ticket_takes_nothing_any_more(
    desk: Zendesk, fake: FakeZendesk, server: DeskServer, what: str
) -> None:
    opened(desk)
    fake.tickets[35].status = "closed"
    with pytest.raises(GoneError, match="closed prevents ticket update"):
        act(desk, what)
    server.fail(*[None] * BEFORE[what], Failure(403, body={"error": "Ticket is closed"}))
    with pytest.raises(GoneError):
        act(desk, what)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("what", ["comment", "note"])
def test_a_deleted_ticket_takes_nothing_any_more(desk: Zendesk, what: str, again: bool) -> None:
    with pytest.raises(GoneError):
        act(desk, what, again=again)


def test_a_refusal_keeps_zendesks_words(desk: Zendesk, server: DeskServer) -> None:
    details = {"base": [{"description": "Category: is needed"}]}
    refusal = {"error": "RecordInvalid", "description": "Errors", "details": details}
    prepared(desk, server, "comment", Failure(422, body=refusal))
    with pytest.raises(RejectedError, match="Errors; Category: is needed") as caught:
        act(desk, "comment")
    assert not isinstance(caught.value, GoneError)


# The way back


def request(told: dict[str, Any] | bytes, secret: str = zendesk.SECRET) -> WebhookRequest:
    body = told if isinstance(told, bytes) else zendesk.body_of(told)
    signed = zendesk.headers(body, NOW, secret)
    return WebhookRequest(
        method="POST",
        headers={name.lower(): (value,) for name, value in signed.items()},
        body=body,
        received_at=datetime.fromtimestamp(NOW, UTC),
    )


def heard(told: dict[str, Any]) -> list[FromDesk]:
    desk = a_desk()
    desk.verify(request(told))
    return desk.parse(request(told))


def test_a_genuine_event_is_accepted_under_both_secrets_for_five_minutes() -> None:
    genuine = request(event("comment_added", comment()))
    a_desk().verify(genuine)
    a_desk(secret=["new", zendesk.SECRET]).verify(genuine)
    a_desk().verify(later(genuine, 300))


def test_a_forged_changed_or_stale_event_is_refused() -> None:
    genuine = request(event("comment_added", comment()))
    forged = [later(genuine, 301), later(genuine, -301)]
    forged += [replace(genuine, body=genuine.body + b" "), request(genuine.body, secret="other")]
    for name in ("x-zendesk-webhook-signature", "x-zendesk-webhook-signature-timestamp"):
        right = genuine.header(name)
        for values in ((), ("",), (right, right), (right[:-1],), (right + "Z",), ("签\ud800",)):
            forged.append(with_header(genuine, name, *values))
    for name in ("2026-01-01T09:00:00", "0001-01-01T00:00:00+23:59", "1767258000"):
        forged.append(with_header(genuine, "x-zendesk-webhook-signature-timestamp", name))
    for each in forged:
        with pytest.raises(SignatureError):
            a_desk().verify(each)


def test_the_same_moment_written_otherwise_was_not_signed() -> None:
    genuine = request(event("comment_added", comment()))
    other = with_header(
        genuine, "x-zendesk-webhook-signature-timestamp", "2026-01-01T09:00:00+00:00"
    )
    with pytest.raises(SignatureError):
        a_desk().verify(other)


def test_an_agents_public_comment_is_a_reply() -> None:
    assert heard(event("comment_added", comment("It left today. 明天"))) == [
        Reply(
            ticket_id="35",
            external_id="501",
            text="It left today. 明天",
            author="Kim",
            sent_at=datetime(2026, 1, 1, 8, 59, tzinfo=UTC),
        )
    ]


CUSTOMER = {"id": "1000", "is_staff": False, "name": "Li"}


@pytest.mark.parametrize(
    "told",
    [
        event("comment_added", comment(is_public=False)),
        event("comment_added", comment(author=CUSTOMER), actor_id="900"),
        event("comment_added", comment(author=CUSTOMER), actor_id="1000"),
        event("comment_added", comment(author=CUSTOMER | {"id": "2000"}), actor_id="2000"),
        event("comment_added", comment(author=CUSTOMER | {"is_staff": True})),
        event("comment_added", comment(author={"id": "900", "is_staff": True, "name": "AskOnce"})),
        event("comment_added", comment(author={"id": 77, "is_staff": True}), actor_id=900),
        event("comment_added", comment(None)),
        event("comment_added", comment("not-a-repeat", author=CUSTOMER, is_public=False)),
        event("priority_changed", {"current": "HIGH", "previous": None}),
        event("created", {}),
    ],
)
def test_notes_and_what_customers_or_we_said_never_leave(told: dict[str, Any]) -> None:
    assert heard(told) == []


def linked(**detail: Any) -> dict[str, Any]:
    file = {
        "content_type": "application/pdf",
        "content_url": "https://example.zendesk.com/attachments/token/kPg/?name=label.pdf",
        "filename": "label.pdf",
        "id": "8658",
        "is_public": detail.pop("is_public", True),
    }
    happened = {"comment": {"id": "501", "attachment": file}}
    return event("attachment_linked_to_comment", happened, **detail)


def test_an_agents_file_is_a_reply_of_its_own() -> None:
    [reply] = heard(linked())
    assert isinstance(reply, Reply)
    [words] = heard(event("comment_added", comment()))
    assert isinstance(words, Reply)
    assert (reply.external_id, reply.text) == ("501-8658", "")
    assert reply.sent_at < words.sent_at
    [file] = reply.attachments
    assert (file.name, file.media_type) == ("label.pdf", "application/pdf")
    assert (file.source or "").endswith("?name=label.pdf#35/501")


@pytest.mark.parametrize(
    "detail",
    [
        {"is_public": False},
        {"actor_id": "900"},
        {"actor_id": "1000"},
        {"actor_id": "-1"},
        {"actor_id": None},
    ],
)
def test_files_of_notes_of_customers_and_of_us_never_leave(detail: dict[str, Any]) -> None:
    assert heard(linked(**detail)) == []


@pytest.mark.parametrize(
    ("before", "now", "state"),
    [
        ("OPEN", "SOLVED", "closed"),
        ("pending", "closed", "closed"),
        ("SOLVED", "OPEN", "open"),
        ("SOLVED", "CLOSED", None),
        ("NEW", "PENDING", None),
    ],
)
def test_a_status_that_closes_or_opens_is_a_change(
    before: str, now: str, state: str | None
) -> None:
    found = heard(event("status_changed", {"current": now, "previous": before}))
    assert [c.state for c in found if isinstance(c, TicketChange)] == ([state] if state else [])


def test_a_ticket_that_we_opened_again_is_no_news() -> None:
    moved = {"current": "OPEN", "previous": "SOLVED"}
    assert heard(event("status_changed", moved, actor_id="900")) == []


def test_a_merge_is_followed_and_its_closing_is_not() -> None:
    [merged] = heard(event("merged", {"target_ticket_id": "99"}))
    assert isinstance(merged, TicketChange)
    assert (merged.ticket_id, merged.state, merged.merged_into) == ("35", "merged", "99")
    closed = {"current": "CLOSED", "previous": "OPEN"}
    assert heard(event("status_changed", closed, tags=["closed_by_merge"])) == []


@pytest.mark.parametrize(
    ("note", "kind", "address"),
    [
        ("not-a-repeat", "not_a_repeat", None),
        ("same-person: li@example.com", "same_person", "email:li@example.com"),
        ("different-person\nhe said so", "different_person", None),
    ],
)
def test_a_note_may_correct(note: str, kind: str, address: str | None) -> None:
    [found] = heard(event("comment_added", comment(note, is_public=False)))
    assert isinstance(found, Correction)
    assert (found.kind, found.address, found.by) == (kind, address, "Kim")
    assert (found.ticket_id, found.external_id) == ("35", "501")


def test_a_public_comment_never_corrects() -> None:
    [found] = heard(event("comment_added", comment("not-a-repeat")))
    assert isinstance(found, Reply)


def test_a_tag_may_correct() -> None:
    tags = {"tags_added": ["vip", "not_a_repeat"], "tags_removed": []}
    [found] = heard(event("tags_changed", tags))
    assert isinstance(found, Correction)
    assert found.kind == "not_a_repeat"
    assert heard(event("tags_changed", tags, actor_id="900")) == []
    assert heard(event("tags_changed", {"tags_added": [], "tags_removed": ["not_a_repeat"]})) == []


@pytest.mark.parametrize("kind", ["comment_added", "merged", "status_changed", "tags_changed"])
def test_a_hostile_event_is_a_payload_error_or_harmless(kind: str) -> None:
    whole = event(kind, comment() | {"target_ticket_id": "9", "current": "SOLVED"})
    spoilt: list[Any] = [{}, [], None, 7, "x" * 5000, {"comment": {}}, "0001-01-01T00:00:00+23:59"]
    bodies = [b"", b"null", b"[", b"[" * 50_000, b"\xff", b"7"]
    bodies += [json.dumps(whole | {name: bad}).encode() for name in whole for bad in spoilt]
    for name in whole["detail"]:
        bodies += [
            json.dumps(whole | {"detail": whole["detail"] | {name: bad}}).encode() for bad in spoilt
        ]
    for body in bodies:
        try:
            found = a_desk().parse(request(body))
        except PayloadError:
            continue
        assert all(isinstance(f, Reply | TicketChange | Correction) for f in found)


def test_a_time_before_all_times_is_a_payload_error() -> None:
    with pytest.raises(PayloadError):
        a_desk().parse(request(linked(updated_at="0001-01-01T00:00:00Z")))


# Files of agents


class Files:
    """Serves one file, and remembers with which credentials it was asked for.

    Its comments are 501, which is public, 502, which is a note, and on the next page 503.
    """

    def __init__(self, location: str = "") -> None:
        self.location, self.seen = location, list[tuple[str, str]]()

    def answer(self, asked: Asked) -> Said:
        if asked.path.startswith("/api/"):
            ours = asked.path == "/api/v2/tickets/35/comments"
            return self._comments(asked) if ours else Said(404)
        self.seen.append((asked.path, asked.headers.get("authorization", "")))
        if self.location and asked.path.startswith("/attachments"):
            return Said(302, None, {"Location": self.location})
        return Said(200, b"%PDF", {"Content-Type": "application/pdf"})

    def _comments(self, asked: Asked) -> Said:
        assert mistake_in(asked) == ""
        if asked.query.get("page[after]"):
            return Said(200, {"comments": [{"id": 503, "public": True}], "meta": {}})
        shown = [{"id": 501, "public": True}, {"id": 502, "public": False}]
        meta = {"has_more": True, "after_cursor": "x"}
        return Said(200, {"comments": shown, "meta": meta})


def test_a_file_is_fetched_with_credentials_which_go_no_further() -> None:
    store = Files()
    with DeskServer(store) as bucket:
        front = Files(f"{bucket.url}/there")
        with DeskServer(front) as server:
            host = bucket.url.removeprefix("http://")
            desk = a_desk(url=server.url, file_hosts=[host])
            source = f"{server.url}/attachments/token/kPg/?name=label.pdf#35/501"
            assert desk.fetch(Attachment(source=source)) == b"%PDF"
            assert desk.fetch(Attachment(source=f"{bucket.url}/x#35/503")) == b"%PDF"
    assert front.seen[0][1].startswith("Basic ")
    assert store.seen == [("/there", ""), ("/x", "")]


@pytest.mark.parametrize("place", ["", "#", "#35", "#35/502", "#35/504", "#36/501", "#../35/501"])
def test_a_file_is_fetched_only_if_its_comment_is_public(place: str) -> None:
    store = Files()
    with DeskServer(store) as server:
        with pytest.raises(RejectedError):
            a_desk(url=server.url).fetch(Attachment(source=f"{server.url}/x{place}"))
        assert not [path for path, _ in store.seen if path == "/x"]


@pytest.mark.parametrize(
    "source", [None, "", "https://evil.example/x", "https://example.zendesk.com@evil.example/"]
)
def test_a_file_elsewhere_is_not_fetched(source: str | None) -> None:
    with pytest.raises(RejectedError):
        a_desk().fetch(Attachment(source=source))
