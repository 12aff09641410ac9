"""Intercom over a fake of it that validates each request against Intercom's own OpenAPI."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from html import unescape
from typing import Any

import pytest
import responses
from pydantic import ValidationError

from chalicelib.errors import (
    AskOnceError,
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
    Channel,
    Correction,
    Evidence,
    Level,
    Message,
    Priority,
    Reply,
    TicketChange,
)
from connectors.helpdesks.intercom import Intercom, IntercomSettings
from tests import nouns
from tests.desk_server import Asked, DeskServer, Failure, Said
from tests.desks.contract import contract
from tests.desks.intercom import (
    ADMIN,
    ATTRIBUTES,
    KIM,
    TOKEN,
    FakeIntercom,
    Thread,
    signed,
    webhook,
)
from tests.fakes import START

pytestmark = pytest.mark.usefixtures("no_waiting")

NOW = int(START.timestamp())
SECRET = "the-client-secret"
SETTINGS: dict[str, Any] = {"access_token": TOKEN, "client_secret": SECRET, "admin_id": ADMIN}
PHOTO = Attachment(name="票.png", media_type="image/png", content=b"png")
QUESTION = nouns.conversation()
URGENT = nouns.conversation(priority=Priority.HIGH)
ASKED = "Where is my parcel?"


class World:
    """A desk, and the fake that it talks to."""

    def __init__(self, server: DeskServer, fake: FakeIntercom) -> None:
        self.server, self.fake = server, fake

    def desk(self, **settings: Any) -> Intercom:
        told = SETTINGS | {"url": self.server.url} | settings
        return Intercom(IntercomSettings.model_validate(told), "desk")

    def opened(self, message: Message | None = None, *, again: bool = False) -> Thread:
        ticket = self.desk().open_ticket(
            message or nouns.message(), QUESTION, idempotency_key="q1", again=again
        )
        return self.fake.threads[ticket]

    def comment(self, thread: Thread, message: Message, *, again: bool = False) -> None:
        self.desk().add_comment(
            thread.id, message, QUESTION, idempotency_key=message.id, again=again
        )

    def note(self, thread: Thread, *, again: bool = False) -> None:
        self.desk().add_note(thread.id, NOTE, QUESTION, idempotency_key="m1-note0", again=again)

    @property
    def calls(self) -> list[str]:
        return [f"{a.method} {a.path}" for a in self.server.asked]


NOTE = "asked twice:\n<where> & when?"


@pytest.fixture
def world() -> Iterator[World]:
    fake = FakeIntercom(now=NOW)
    with DeskServer(fake) as server:
        yield World(server, fake)
    assert fake.mistakes == []


def bodies(thread: Thread) -> list[str | None]:
    return [part["body"] for part in thread.parts]


# Out


def test_a_wrong_request_would_be_found_by_intercoms_own_contract() -> None:
    known = contract("intercom-2.14")
    if known is None:
        pytest.skip("Intercom's OpenAPI is not at hand")
    headers = {"authorization": "Bearer x", "content-type": "application/json"}
    body = b'{"from": {"type": "user", "id": "000000000000000000000001"}, "body": "hi"}'
    right = Asked("POST", "/conversations", {}, headers, body)
    assert known.mistake_in(right) == ""
    assert "body" in known.mistake_in(replace(right, body=body.replace(b"body", b"text")))
    assert known.mistake_in(replace(right, path="/nowhere"))


def test_a_ticket_is_a_conversation_that_the_contact_began(world: World) -> None:
    thread = world.opened()
    contact = world.fake.contacts[thread.contact]
    assert contact["external_id"] == QUESTION.contact_id
    assert contact["phone"] == "+8613800138000"
    assert (thread.body, thread.title, thread.parts) == (f"<p>{ASKED}</p>", None, [])
    assert thread.custom_attributes == {
        "askonce_id": "q1",
        "askonce_reference": QUESTION.reference,
        "askonce_channel": "sms",
        "askonce_category": "question",
        "askonce_priority": "normal",
    }


def test_a_first_try_looks_nothing_up(world: World) -> None:
    world.opened()
    assert world.calls == ["POST /contacts", "POST /conversations", "PUT /conversations/499"]


def test_a_contact_that_is_there_already_is_taken(world: World) -> None:
    first, second = world.opened(), world.opened()
    assert first.contact == second.contact
    assert len(world.fake.contacts) == 1


def test_a_proven_address_finds_the_users_own_contact(world: World) -> None:
    own = "0123456789abcdef01234567"
    world.fake.contacts[own] = {"external_id": "shop-77", "email": "li@example.com"}
    proof = nouns.evidence("email:li@example.com")
    mail = nouns.message(address="email:li@example.com", channel=Channel.EMAIL, evidence=(proof,))
    thread = world.opened(mail)
    assert thread.contact == own
    world.comment(thread, nouns.message("hello?"))
    assert bodies(thread) == ["<p>hello?</p>"]


def test_an_archived_contact_is_taken_out_of_the_archive(world: World) -> None:
    thread = world.opened()
    world.fake.archived.add(thread.contact)
    assert world.opened().contact == thread.contact
    assert not world.fake.archived


def test_only_proven_addresses_are_told(world: World) -> None:
    claimed = Evidence(address="email:li@example.com", level=Level.CLAIMED, source="from_header")
    mail = nouns.message(address="email:li@example.com", channel=Channel.EMAIL, evidence=(claimed,))
    assert "email" not in world.fake.contacts[world.opened(mail).contact]


def test_a_subject_is_the_conversations_title(world: World) -> None:
    assert world.opened(nouns.message("It is late.", subject="Parcel")).title == "Parcel"


def test_further_words_are_the_customers_own(world: World) -> None:
    thread = world.opened()
    world.comment(thread, nouns.message("a < b\nok?"))
    (part,) = thread.parts
    assert part["author"] == {"type": "user", "id": thread.contact}
    assert part["body"] == "<p>a &lt; b<br>\nok?</p>"


def test_a_note_is_private_and_its_text_no_html(world: World) -> None:
    thread = world.opened()
    world.note(thread)
    (part,) = thread.parts
    assert (part["part_type"], part["author"]["id"]) == ("note", ADMIN)
    assert part["body"] == "<p>asked twice:<br>&lt;where&gt; &amp; when?</p>"


def test_files_of_customers_are_uploaded(world: World) -> None:
    thread = world.opened(nouns.message("看", attachments=(PHOTO,)))
    world.comment(thread, nouns.message("又", attachments=(PHOTO,)))
    assert (thread.body, bodies(thread)) == ("<p>看</p>", ["<p>票.png</p>", "<p>又</p>"])
    sent = {"type": "upload", "name": "票.png", "content_type": "image/png", "data": "cG5n"}
    assert [part["attachments"] for part in thread.parts] == [[sent], [sent]]


def test_a_reply_takes_ten_files_and_the_others_follow_once(world: World) -> None:
    thread = world.opened()
    message = nouns.message("many", attachments=(PHOTO,) * 12)
    world.server.fail(None, None, Failure(reset="before"))
    with pytest.raises(RetryableError):
        world.comment(thread, message)
    world.comment(thread, message, again=True)
    assert [len(part["attachments"]) for part in thread.parts] == [10, 2]
    assert bodies(thread) == ["<p>many</p>", "<p>票.png, 票.png</p>"]


def test_an_urgent_conversation_says_so(world: World) -> None:
    thread = world.opened()
    world.desk().add_comment(thread.id, nouns.message("again"), URGENT, idempotency_key="m2")
    assert thread.custom_attributes["askonce_priority"] == "high"


@pytest.mark.parametrize("state", ["closed", "snoozed"])
@pytest.mark.parametrize("by_itself", [True, False])
def test_what_a_customer_writes_opens_it_again(world: World, state: str, by_itself: bool) -> None:
    thread = world.opened()
    thread.state = state
    if not by_itself:  # a workspace may keep them closed
        world.fake.reopens = False
    world.comment(thread, nouns.message("not yet"))
    assert thread.state == "open"
    assert ("POST /conversations/499/parts" in world.calls) is not by_itself


# Once


def lost(world: World, at: int, how: Failure) -> None:
    """The request of that number goes wrong."""
    world.server.fail(*(None for _ in range(at)), how)


LOST = (
    Failure(reset="before"),
    Failure(reset="after"),
    Failure(200, body=None, acts=True),
    Failure(200, body="<html>busy</html>", acts=True),
    Failure(502),
    Failure(500, acts=True),
    Failure(429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(NOW)}),
)


@pytest.mark.parametrize("how", LOST, ids=str)
@pytest.mark.parametrize("at", range(5))
def test_a_ticket_is_opened_once_whatever_goes_wrong(world: World, at: int, how: Failure) -> None:
    message = nouns.message(ASKED, attachments=(PHOTO,))
    lost(world, at, how)
    with suppress(RetryableError):  # a PUT is tried again at once, and needs no answer
        world.opened(message)
    thread = world.opened(message, again=True)
    assert list(world.fake.threads.values()) == [thread]
    assert len(world.fake.contacts) == 1
    assert (thread.body, bodies(thread)) == (f"<p>{ASKED}</p>", ["<p>票.png</p>"])


def test_another_question_of_the_same_contact_is_another_ticket(world: World) -> None:
    first = world.opened()
    other = world.desk().open_ticket(nouns.message(), QUESTION, idempotency_key="q2", again=True)
    assert other != first.id


@pytest.mark.parametrize("how", LOST, ids=str)
@pytest.mark.parametrize("at", range(3))
def test_a_comment_is_made_once_whatever_goes_wrong(world: World, at: int, how: Failure) -> None:
    thread = world.opened()
    world.comment(thread, nouns.message("ok", id="m2"))
    lost(world, at, how)
    message = nouns.message("ok", id="m3")
    with suppress(RetryableError):
        world.comment(thread, message)
    world.comment(thread, message, again=True)
    assert bodies(thread) == ["<p>ok</p>"] * 2


def test_a_mark_that_was_set_is_enough(world: World) -> None:
    thread = world.opened()
    message = nouns.message("ok", id="m2")
    world.comment(thread, message)
    thread.parts.clear()  # redacted, or more than 500 parts ago
    world.comment(thread, message, again=True)
    assert thread.parts == []


@pytest.mark.parametrize("how", LOST, ids=str)
def test_a_note_is_made_once_whatever_goes_wrong(world: World, how: Failure) -> None:
    thread = world.opened()
    lost(world, 0, how)
    with pytest.raises(RetryableError):
        world.note(thread)
    world.note(thread, again=True)
    assert len(thread.parts) == 1


# Refusals


def failure(world: World, how: Failure | None = None) -> AskOnceError:
    if how:
        world.server.fail(how)
    with pytest.raises(AskOnceError) as caught:
        world.desk().add_note("499", "x", QUESTION, idempotency_key="k")
    return caught.value


def test_a_limit_says_when_to_come_again(world: World) -> None:
    world.opened()
    now = datetime.now(UTC)
    dialects = (
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(now.timestamp()) + 8)}, 5, 8),
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": format_datetime(now + timedelta(seconds=90), usegmt=True)}, 60, 91),
    )
    for headers, low, high in dialects:
        error = failure(world, Failure(429, headers))
        assert isinstance(error, RetryableError)
        assert low <= (error.retry_after_seconds or 0) <= high


def test_what_intercom_says_of_its_limit_is_noted(world: World) -> None:
    world.opened()
    desk = world.desk()
    soon = str(int(datetime.now(UTC).timestamp()) + 8)
    headers = {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": soon}
    world.server.fail(Failure(400, headers))
    with pytest.raises(RejectedError):
        desk.add_note("499", "x", QUESTION, idempotency_key="k")
    assert desk.pace is not None
    assert desk.pace.remaining == 3
    assert 0 < desk.pace.resets_in_seconds <= 8


def said(*words: str) -> dict[str, Any]:
    return {"type": "error.list", "errors": [{"code": "x", "message": w} for w in words]}


def test_a_refusal_keeps_intercoms_own_words(world: World) -> None:
    error = failure(world, Failure(422, body=said("Body is too long", "Try less")))
    assert type(error) is RejectedError
    assert "Body is too long; Try less" in str(error)


def test_a_conflict_that_names_nobody_is_a_refusal(world: World) -> None:
    world.server.fail(Failure(409, body=said("Multiple contacts match")))
    with pytest.raises(RejectedError, match="Multiple contacts match"):
        world.opened()


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_stop_the_desk(world: World, status: int) -> None:
    error = failure(world, Failure(status, body=said("no")))
    assert isinstance(error, ConfigurationError)
    assert '"desk"' in str(error)


def test_a_wrong_token_is_a_mistake_of_the_configuration(world: World) -> None:
    with pytest.raises(ConfigurationError, match="Access Token Invalid"):
        world.desk(access_token="wrong").open_ticket(
            nouns.message(), QUESTION, idempotency_key="q1"
        )


def test_attributes_that_were_not_created_are_named_and_nothing_is_lost() -> None:
    fake = FakeIntercom(attributes=ATTRIBUTES - {"askonce_category"}, now=NOW)
    with DeskServer(fake) as server:
        world = World(server, fake)
        with pytest.raises(ConfigurationError, match="askonce_category"):
            world.opened()
        fake.attributes = ATTRIBUTES
        world.opened(again=True)
        assert len(fake.threads) == 1


def test_a_deleted_conversation_is_gone(world: World) -> None:
    assert isinstance(failure(world), GoneError)
    with pytest.raises(GoneError):
        world.desk().add_comment("499", nouns.message(), QUESTION, idempotency_key="m1")


def test_a_conversation_whose_contact_was_deleted_is_gone(world: World) -> None:
    thread = world.opened()
    shown = {"id": thread.id, "contacts": {"contacts": []}}
    world.server.fail(Failure(200, body=shown))
    with pytest.raises(GoneError):
        world.comment(thread, nouns.message())


def test_no_secret_shows_in_settings_or_errors(world: World) -> None:
    told = [repr(world.desk().settings), str(failure(world, Failure(400)))]
    assert not [t for t in told for secret in (TOKEN, SECRET) if secret in t]


def test_settings_that_could_mean_nothing_are_refused() -> None:
    for wrong in (
        {"url": "desk.example"},
        {"client_secret": ""},
        {"access_token": ""},
        {"admin_id": "Kim"},
        {"region": "cn"},
        {"secrt": "x"},
    ):
        with pytest.raises(ValidationError):
            IntercomSettings.model_validate(SETTINGS | wrong)


@pytest.mark.parametrize(
    ("region", "app"),
    [("us", "app.intercom.com"), ("eu", "app.eu.intercom.com"), ("au", "app.au.intercom.com")],
)
def test_agents_find_the_conversation_in_their_region(world: World, region: str, app: str) -> None:
    desk = world.desk(region=region, workspace_id="shop1234")
    assert desk.url_of("499") == f"https://{app}/a/inbox/shop1234/inbox/conversation/499"
    assert world.desk(region=region).url_of("499") == ""


@pytest.mark.parametrize(
    ("region", "api"),
    [("us", "api.intercom.io"), ("eu", "api.eu.intercom.io"), ("au", "api.au.intercom.io")],
)
def test_each_region_has_its_api(region: str, api: str) -> None:
    desk = Intercom(IntercomSettings.model_validate(SETTINGS | {"region": region}), "desk")
    with responses.RequestsMock() as wire:
        wire.post(f"https://{api}/conversations/499/reply", status=404)
        with pytest.raises(GoneError):
            desk.add_note("499", "x", QUESTION, idempotency_key="k")
        assert wire.calls[0].request.headers["Intercom-Version"] == "2.14"


# Back


def request_of(body: bytes, headers: dict[str, str]) -> WebhookRequest:
    told = {name.lower(): (value,) for name, value in headers.items()}
    return WebhookRequest(method="POST", headers=told, body=body, received_at=START)


def posted(event: dict[str, Any], secret: str = SECRET) -> WebhookRequest:
    return request_of(*signed(event, secret))


def heard(world: World, topic: str, thread: Thread, *parts: dict[str, Any]) -> list[FromDesk]:
    desk, request = world.desk(), posted(webhook(topic, thread, *parts, now=NOW))
    desk.verify(request)
    return desk.parse(request)


REPLIED, NOTED = "conversation.admin.replied", "conversation.admin.noted"
CLOSED, OPENED = "conversation.admin.closed", "conversation.admin.opened"


def test_a_webhook_signed_by_the_published_formula_is_taken(world: World) -> None:
    body = b'{"topic": "ping", "data": {"item": {"type": "ping"}}}'
    mac = hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()
    request = request_of(body, {"X-Hub-Signature": f"sha1={mac}"})
    world.desk().verify(request)
    assert world.desk().parse(request) == []
    world.desk(client_secret=["new", SECRET]).verify(request)


def test_a_forged_or_changed_webhook_is_refused(world: World) -> None:
    good = posted({"topic": "ping"})
    (right,) = good.headers["x-hub-signature"]
    wrong = [replace(good, body=good.body + b" "), posted({"topic": "x"}, "another-secret")]
    for value in ((), ("",), (right[:-1],), (right[5:],), (right, right), ("签名\ud800",)):
        wrong.append(replace(good, headers={"x-hub-signature": value}))
    for request in wrong:
        with pytest.raises(SignatureError):
            world.desk().verify(request)


def test_an_agents_public_words_are_a_reply_in_plain_text(world: World) -> None:
    thread = world.opened()
    picture = (
        "https://shop.intercom-attachments-7.com/i/o/1/%E5%9B%BE.jpg?expires=1&amp;signature=f"
    )
    file: dict[str, Any] = {
        "type": "upload",
        "name": "a/票.pdf",
        "content_type": "application/pdf",
        "filesize": 9,
        "url": "https://downloads.intercomcdn.com/i/o/2/x?expires=1",
    }
    body = f'<p>Tomorrow &amp; <b>early</b>.<br>明天</p><div><img src="{picture}"></div>'
    part = world.fake.say(thread, body, attachments=[file])
    (reply,) = heard(world, REPLIED, thread, part)
    assert reply == Reply(
        ticket_id=thread.id,
        external_id=part["id"],
        text="Tomorrow & early.\n明天",
        author="Kim",
        attachments=(
            Attachment(name="票.pdf", media_type="application/pdf", size_bytes=9,
                       source=file["url"]),
            Attachment(name="图.jpg", media_type="image/jpeg", source=unescape(picture)),
        ),
        sent_at=START,
    )  # fmt: skip


@pytest.mark.parametrize(("topic", "kind"), [(REPLIED, "open"), (CLOSED, "close")])
def test_a_reply_may_open_or_close_at_once(world: World, topic: str, kind: str) -> None:
    thread = world.opened()
    part = world.fake.say(thread, "<p>Bye.</p>", part_type=kind)
    found = heard(world, topic, thread, part)
    assert [r.text for r in found if isinstance(r, Reply)] == ["Bye."]
    assert [c.state for c in found if isinstance(c, TicketChange)] == ["closed"] * (topic == CLOSED)


UNSAID: dict[str, dict[str, Any]] = {
    "a note": {"part_type": "note"},
    "a remark with an assignment": {"part_type": "assignment"},
    "a kind that we do not know": {"part_type": "whisper"},
    "what the customer says": {"author": {"type": "user", "id": "0" * 24}},
    "what a lead says": {"author": {"type": "lead", "id": "0" * 24}},
    "what a bot says": {"author": {"type": "bot", "id": "1"}},
    "what was redacted": {"redacted": True},
    "nothing": {"body": None},
}


@pytest.mark.parametrize("topic", [REPLIED, NOTED, CLOSED, OPENED, "conversation.user.replied"])
@pytest.mark.parametrize("what", UNSAID)
def test_nothing_else_leaves_the_helpdesk(world: World, what: str, topic: str) -> None:
    thread = world.opened()
    part = world.fake.say(thread, "<p>Nobody may see this</p>") | UNSAID[what]
    found = heard(world, topic, thread, part)
    assert [item for item in found if not isinstance(item, TicketChange)] == []


def test_a_note_that_comes_under_any_topic_stays_there(world: World) -> None:
    thread = world.opened()
    part = world.fake.say(thread, "<p>between us</p>", part_type="comment")
    assert heard(world, NOTED, thread, part) == []
    assert heard(world, "conversation.admin.assigned", thread, part) == []


def test_what_we_post_comes_back_by_no_topic(world: World) -> None:
    thread = world.opened()
    world.comment(thread, nouns.message("not-a-repeat"))
    world.desk().add_note(thread.id, "not-a-repeat", QUESTION, idempotency_key="k")
    for topic in (REPLIED, NOTED):
        assert heard(world, topic, thread, *thread.parts) == []


@pytest.mark.parametrize(("topic", "state"), [(CLOSED, "closed"), (OPENED, "open")])
def test_closing_and_opening_are_changes_of_the_ticket(
    world: World, topic: str, state: str
) -> None:
    thread = world.opened()
    part = world.fake.say(thread, None, part_type=state)
    (change,) = heard(world, topic, thread, part)
    assert isinstance(change, TicketChange)
    assert (change.ticket_id, change.state, change.at) == (thread.id, state, START)
    assert change.external_id.startswith("notif_")


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("<p>not-a-repeat</p>", "not_a_repeat", None),
        (
            '<p>same-person: <a href="mailto:li@example.com">li@example.com</a></p>',
            "same_person",
            "email:li@example.com",
        ),
        ("different-person", "different_person", None),
    ],
)
def test_a_private_note_corrects(world: World, text: str, kind: str, address: str | None) -> None:
    thread = world.opened()
    part = world.fake.say(thread, text, part_type="note")
    wanted = {
        "ticket_id": thread.id,
        "external_id": part["id"],
        "kind": kind,
        "address": address,
        "by": "Kim",
        "at": START,
    }
    assert heard(world, NOTED, thread, part) == [Correction.model_validate(wanted)]
    assert part["author"]["id"] == KIM


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 50_000,
        b'{"topic": 7}',
        b'{"topic": "conversation.admin.replied"}',
        b'{"topic": "conversation.admin.closed", "data": {"item": {"id": 7}}}',
    ],
)
def test_a_malformed_event_is_a_payload_error(world: World, body: bytes) -> None:
    with pytest.raises(PayloadError):
        world.desk().parse(request_of(body, {}))


def test_any_field_of_an_event_may_be_anything(world: World) -> None:
    thread = world.opened()
    part = world.fake.say(thread, "<p>Tomorrow.</p>")
    spoilt: tuple[Any, ...] = (None, [], {}, "", "x" * 5000, 7, "0001-01-01T00:00:00+23:59", 10**30)
    for name in part:
        for value in spoilt:
            event = webhook(REPLIED, thread, part | {name: value}, now=NOW)
            with suppress(PayloadError):
                world.desk().parse(request_of(json.dumps(event).encode(), {}))


# Files of agents


class Storage:
    """Hands out one file."""

    def answer(self, asked: Asked) -> Said:
        return Said(200, b"%PDF")


def test_an_agents_file_is_fetched_from_intercom_and_from_nowhere_else(world: World) -> None:
    with DeskServer(Storage()) as storage:
        file = Attachment(source=f"{storage.url}/x.pdf")
        host = storage.url.removeprefix("http://")
        assert world.desk(file_hosts=[host]).fetch(file) == b"%PDF"
        assert not [a for a in storage.asked if "authorization" in a.headers]
    for url in (
        f"{storage.url}/x.pdf",
        "https://intercom-attachments-1.com.evil.example/x",
        "https://evil-intercomcdn.com/x",
        "https://shop.intercom-attachments-77.com/x",
    ):
        with pytest.raises(RejectedError):
            world.desk().fetch(Attachment(source=url))
