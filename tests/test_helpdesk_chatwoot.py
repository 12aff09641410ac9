"""Chatwoot over a fake of it that validates each request against Chatwoot's own OpenAPI."""

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
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
from chalicelib.ports import FromDesk, Signal, WebhookRequest
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
from connectors.helpdesks.chatwoot import Chatwoot, ChatwootSettings
from tests import nouns
from tests.desk_server import Asked, DeskServer, Failure, Said
from tests.desks.chatwoot import (
    ACCOUNT,
    IDENTIFIER,
    INBOX,
    TOKEN,
    Chat,
    FakeChatwoot,
    signed,
    webhook,
)
from tests.desks.contract import contract

pytestmark = pytest.mark.usefixtures("no_waiting")

NOW = 1767258000
AT = datetime.fromtimestamp(NOW, UTC)
SECRET = "the-webhook-secret"
SETTINGS: dict[str, Any] = {
    "account_id": ACCOUNT,
    "inbox_id": INBOX,
    "inbox_identifier": IDENTIFIER,
    "api_access_token": TOKEN,
    "webhook_secret": SECRET,
}
PHOTO = Attachment(name="票.png", media_type="image/png", content=b"png")
QUESTION = nouns.conversation()
URGENT = nouns.conversation(priority=Priority.HIGH)


class World:
    """A desk, and the fake that it talks to."""

    def __init__(self, server: DeskServer, fake: FakeChatwoot) -> None:
        self.server, self.fake = server, fake

    def desk(self, **settings: Any) -> Chatwoot:
        told = SETTINGS | {"url": self.server.url} | settings
        return Chatwoot(ChatwootSettings.model_validate(told), "desk")

    def opened(self, message: Message | None = None, *, again: bool = False) -> Chat:
        ticket = self.desk().open_ticket(
            message or nouns.message(), QUESTION, idempotency_key="q1", again=again
        )
        return self.fake.chats[int(ticket)]

    def comment(self, chat: Chat, message: Message, *, again: bool = False) -> None:
        self.desk().add_comment(
            str(chat.id), message, QUESTION, idempotency_key=message.id, again=again
        )

    def note(self, chat: Chat, *, again: bool = False) -> None:
        self.desk().add_note(str(chat.id), "asked twice", QUESTION, idempotency_key="m1-note0",
                             again=again)  # fmt: skip

    @property
    def calls(self) -> list[str]:
        return [f"{a.method} {a.path.rpartition('/')[2]}" for a in self.server.asked]


@pytest.fixture
def world() -> Iterator[World]:
    fake = FakeChatwoot()
    with DeskServer(fake) as server:
        yield World(server, fake)
    assert fake.mistakes == []


def contents(chat: Chat) -> list[str | None]:
    return [said["content"] for said in chat.messages]


# Out


def test_a_wrong_request_would_be_found_by_chatwoots_own_contract() -> None:
    known = contract("chatwoot")
    if known is None:
        pytest.skip("Chatwoot's OpenAPI is not at hand")
    path = f"/api/v1/accounts/{ACCOUNT}/conversations/41/toggle_priority"
    headers = {"api_access_token": TOKEN, "content-type": "application/json"}
    right = Asked("POST", path, {}, headers, b'{"priority": "high"}')
    assert known.mistake_in(right) == ""
    assert "very" in known.mistake_in(replace(right, body=b'{"priority": "very"}'))
    assert known.mistake_in(replace(right, path="/api/v1/nowhere"))


def test_a_ticket_is_a_conversation_of_the_contact_with_what_was_asked(world: World) -> None:
    chat = world.opened()
    assert chat.contact.source_id == QUESTION.contact_id
    assert chat.contact.told["phone_number"] == "+8613800138000"
    assert chat.custom_attributes["askonce_conversation"] == QUESTION.id
    assert chat.custom_attributes["askonce_reference"] == QUESTION.reference
    assert chat.labels == ["askonce", "sms", "question"]
    assert (contents(chat), chat.messages[0]["message_type"]) == (["Where is my parcel?"], 0)
    assert chat.priority is None


def test_a_first_try_looks_nothing_up(world: World) -> None:
    chat = world.opened()
    world.comment(chat, nouns.message("hello?"))
    looks = [call for call in world.calls if call.startswith("GET")]
    assert looks == [f"GET {chat.id}"]  # its state and priority, after the comment


def test_the_same_person_is_one_contact_however_often_it_writes(world: World) -> None:
    first, second = world.opened(), world.opened()
    assert first is not second
    assert len(world.fake.contacts) == 1


def test_only_proven_addresses_are_told(world: World) -> None:
    claimed = Evidence(address="email:li@example.com", level=Level.CLAIMED, source="from_header")
    mail = nouns.message(address="email:li@example.com", channel=Channel.EMAIL, evidence=(claimed,))
    assert "email" not in world.opened(mail).contact.told


def test_a_subject_stands_above_the_first_message(world: World) -> None:
    chat = world.opened(nouns.message("It is late.", subject="Parcel"))
    assert contents(chat) == ["Parcel\n\nIt is late."]


def test_an_inbox_with_identity_validation_gets_the_proof() -> None:
    fake = FakeChatwoot(hmac_token="the-hmac-token")
    with DeskServer(fake) as server:
        world = World(server, fake)
        desk = world.desk(hmac_token="the-hmac-token")
        assert desk.open_ticket(nouns.message(), QUESTION, idempotency_key="q1")
        with pytest.raises(RetryableError):
            world.opened()


def test_further_words_are_the_customers_own(world: World) -> None:
    chat = world.opened()
    world.comment(chat, nouns.message("hello?"))
    assert contents(chat)[1:] == ["hello?"]
    assert chat.messages[1]["sender"] == {"id": chat.contact.id, "type": "contact"}


def test_a_note_is_private(world: World) -> None:
    chat = world.opened()
    world.note(chat)
    assert (contents(chat)[-1], chat.messages[-1]["private"]) == ("asked twice", True)


def test_files_of_customers_are_uploaded_with_their_message(world: World) -> None:
    lost = Attachment(name="a.mp4", unavailable="too large")
    chat = world.opened(nouns.message("看", attachments=(PHOTO, lost)))
    assert contents(chat) == ["看\n[a.mp4 could not be had] too large"]
    assert chat.messages[0]["attachments"] == [
        {"data_url": "票.png", "type": "image/png", "bytes": 3}
    ]


def test_a_message_takes_fifteen_files_and_the_others_follow_once(world: World) -> None:
    chat = world.opened()
    message = nouns.message("many", attachments=(PHOTO,) * 17)
    world.server.fail(None, Failure(reset="before"))
    with pytest.raises(RetryableError):
        world.comment(chat, message)
    world.comment(chat, message, again=True)
    assert contents(chat)[1:] == ["many", "…"]
    assert [len(said["attachments"]) for said in chat.messages[1:]] == [15, 2]


def test_an_urgent_conversation_is_urgent_there_and_never_less_than_agents_made_it(
    world: World,
) -> None:
    chat = world.opened()
    for before, after in ((None, "high"), ("low", "high"), ("urgent", "urgent")):
        chat.priority = before
        message = nouns.message("again")
        world.desk().add_comment(str(chat.id), message, URGENT, idempotency_key="m9")
        assert chat.priority == after
    ticket = world.desk().open_ticket(nouns.message(), URGENT, idempotency_key="q2")
    assert world.fake.chats[int(ticket)].priority == "high"


@pytest.mark.parametrize("status", ["resolved", "snoozed"])
def test_what_a_customer_writes_opens_it_again(world: World, status: str) -> None:
    chat = world.opened()
    chat.status = status
    world.comment(chat, nouns.message("not yet"))
    assert chat.status == "open"


def test_a_muted_customer_opens_nothing(world: World) -> None:
    chat = world.opened()
    chat.status, chat.muted = "resolved", True
    world.comment(chat, nouns.message("not yet"))
    assert chat.status == "resolved"


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
    Failure(429, {"Retry-After": "7"}),
)


@pytest.mark.parametrize("how", LOST, ids=str)
@pytest.mark.parametrize("at", range(3))
def test_a_ticket_is_opened_once_whatever_goes_wrong(world: World, at: int, how: Failure) -> None:
    lost(world, at, how)
    with pytest.raises(RetryableError):
        world.opened()
    chat = world.opened(again=True)
    assert list(world.fake.chats.values()) == [chat]
    assert len(world.fake.contacts) == 1
    assert contents(chat) == ["Where is my parcel?"]
    assert chat.labels == ["askonce", "sms", "question"]


def test_labels_that_an_agent_set_meanwhile_stay(world: World) -> None:
    chat = world.opened()
    chat.labels.append("vip")
    assert world.opened(again=True) is chat
    assert "vip" in chat.labels


@pytest.mark.parametrize("how", LOST, ids=str)
def test_a_comment_is_made_once_whatever_goes_wrong(world: World, how: Failure) -> None:
    chat = world.opened()
    lost(world, 0, how)
    message = nouns.message("ok", id="m2")
    with pytest.raises(RetryableError):
        world.comment(chat, message)
    world.comment(chat, message, again=True)
    world.comment(chat, nouns.message("ok", id="m3"))
    assert contents(chat)[1:] == ["ok", "ok"]


@pytest.mark.parametrize("how", LOST, ids=str)
def test_a_note_is_made_once_whatever_goes_wrong(world: World, how: Failure) -> None:
    chat = world.opened()
    lost(world, 0, how)
    with pytest.raises(RetryableError):
        world.note(chat)
    world.note(chat, again=True)
    assert contents(chat)[1:] == ["asked twice"]


def test_what_was_said_meanwhile_hides_no_earlier_try(world: World) -> None:
    chat = world.opened()
    message = nouns.message("ok", id="m2")
    world.comment(chat, message)
    for n in range(45):
        world.fake.say(chat, f"line {n}")
    world.comment(chat, message, again=True)
    assert contents(chat).count("ok") == 1


# Refusals


def failure(world: World, how: Failure | None = None) -> AskOnceError:
    if how:
        world.server.fail(how)
    with pytest.raises(AskOnceError) as caught:
        world.desk().add_note("41", "x", QUESTION, idempotency_key="k")
    return caught.value


def test_a_limit_says_when_to_come_again(world: World) -> None:
    world.opened()
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for value, low, high in (("7", 7, 7), (later, 60, 91)):
        error = failure(world, Failure(429, {"Retry-After": value}))
        assert isinstance(error, RetryableError)
        assert low <= (error.retry_after_seconds or 0) <= high


def test_two_hundred_messages_a_minute_are_a_limit_though_it_is_called_422(world: World) -> None:
    chat = world.opened()
    for n in range(200):
        world.fake.say(chat, f"line {n}")
    error = failure(world)
    assert isinstance(error, RetryableError)
    assert error.retry_after_seconds == 60


def test_a_contact_that_somebody_else_makes_right_now_is_asked_for_again(world: World) -> None:
    world.server.fail(Failure(422, body={"message": "Identifier has already been taken"}))
    with pytest.raises(RetryableError):
        world.opened()


def test_a_refusal_keeps_chatwoots_own_words(world: World) -> None:
    error = failure(world, Failure(422, body={"message": "Content is too long"}))
    assert type(error) is RejectedError
    assert "Content is too long" in str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_stop_the_desk(world: World, status: int) -> None:
    error = failure(world, Failure(status, body={"error": "no"}))
    assert isinstance(error, ConfigurationError)
    assert '"desk"' in str(error)


def test_a_wrong_token_and_a_wrong_inbox_are_mistakes_of_the_configuration(world: World) -> None:
    for wrong, named in (
        ("api_access_token", "credentials"),
        ("inbox_identifier", "inbox_identif"),
    ):
        desk = world.desk(**{wrong: "wrong"})
        with pytest.raises(ConfigurationError, match=named):
            desk.open_ticket(nouns.message(), QUESTION, idempotency_key="q1")


def test_a_deleted_conversation_is_gone(world: World) -> None:
    assert isinstance(failure(world), GoneError)
    with pytest.raises(GoneError):
        world.desk().add_comment("41", nouns.message(), QUESTION, idempotency_key="m1")


def test_no_secret_shows_in_settings_or_errors(world: World) -> None:
    told = [repr(world.desk().settings), str(failure(world, Failure(400)))]
    assert not [t for t in told for secret in (TOKEN, SECRET, IDENTIFIER) if secret in t]


def test_settings_that_could_mean_nothing_are_refused() -> None:
    for wrong in ({"url": "desk.example"}, {"webhook_secret": ""}, {"api_access_token": ""},
                  {"account_id": "x"}, {"secrt": "x"}):  # fmt: skip
        with pytest.raises(ValidationError):
            ChatwootSettings.model_validate(SETTINGS | wrong)


# Back


def request_of(body: bytes, headers: dict[str, str]) -> WebhookRequest:
    told = {name.lower(): (value,) for name, value in headers.items()}
    return WebhookRequest(method="POST", headers=told, body=body, received_at=AT)


def posted(event: dict[str, Any], secret: str = SECRET) -> WebhookRequest:
    return request_of(*signed(event, secret, NOW))


def heard(world: World, event: dict[str, Any]) -> list[FromDesk]:
    desk, request = world.desk(), posted(event)
    desk.verify(request)
    return desk.parse(request)


def test_a_webhook_signed_by_the_published_formula_is_taken(world: World) -> None:
    body = b'{"event": "webwidget_triggered"}'
    mac = hmac.new(SECRET.encode(), f"{NOW}.".encode() + body, hashlib.sha256).hexdigest()
    request = request_of(body, {"X-Chatwoot-Timestamp": str(NOW),
                                "X-Chatwoot-Signature": f"sha256={mac}"})  # fmt: skip
    world.desk().verify(request)
    assert world.desk().parse(request) == []
    world.desk(webhook_secret=["new", SECRET]).verify(request)


def test_a_forged_changed_or_stale_webhook_is_refused(world: World) -> None:
    good = posted({"event": "message_created"})
    headers = dict(good.headers)
    wrong = [replace(good, body=good.body + b" "), posted({"event": "x"}, "another-secret")]
    for name in ("x-chatwoot-timestamp", "x-chatwoot-signature"):
        (right,) = headers[name]
        for value in ((), ("",), (right[:-1],), (right, right), ("签名\ud800",)):
            wrong.append(replace(good, headers=headers | {name: value}))
    for seconds in (301, -301):
        wrong.append(replace(good, received_at=AT + timedelta(seconds=seconds)))
    for request in wrong:
        with pytest.raises(SignatureError):
            world.desk().verify(request)


def test_an_agents_public_words_are_a_reply(world: World) -> None:
    chat = world.opened()
    said = world.fake.say(chat, "Tomorrow. 明天", attachments=[
        {"data_url": "https://files.example/b/%E7%A5%A8.pdf", "file_type": "file", "file_size": 9},
        {"data_url": None, "file_type": "location"},
    ])  # fmt: skip
    (reply,) = heard(world, webhook(chat, said))
    file = Attachment(name="票.pdf", media_type="application/pdf", size_bytes=9,
                      source="https://files.example/b/%E7%A5%A8.pdf")  # fmt: skip
    assert reply == Reply(
        ticket_id=str(chat.id),
        external_id=str(said["id"]),
        text="Tomorrow. 明天",
        author="Kim",
        attachments=(file,),
        sent_at=AT,
    )


UNSAID: dict[str, dict[str, Any]] = {
    "a note": {"private": True},
    "what the customer says": {"message_type": 0, "sender": {"id": 501, "type": "contact"}},
    "an activity": {"message_type": 2, "sender": None},
    "a greeting or a survey": {"message_type": 3},
    "what an automation says": {"content_attributes": {"automation_rule_id": 5}},
    "what was deleted": {"content_attributes": {"deleted": True}},
    "our own words": {"source_id": "askonce:m1"},
    "nothing": {"content": None},
}


@pytest.mark.parametrize("what", UNSAID)
def test_nothing_else_leaves_the_helpdesk(world: World, what: str) -> None:
    chat = world.opened()
    said = world.fake.say(chat, "Nobody may see this")
    said |= UNSAID[what]
    assert heard(world, webhook(chat, said)) == []
    assert world.desk().poll(f"{NOW}:1:{NOW}", AT).found == []


def test_what_we_post_comes_back_by_no_road(world: World) -> None:
    chat = world.opened(nouns.message("not-a-repeat"))
    world.note(chat)
    assert [heard(world, webhook(chat, said)) for said in chat.messages] == [[], []]
    assert world.desk().poll(f"{NOW}:1:{NOW}", AT).found == []


def test_another_inbox_of_the_account_is_not_ours(world: World) -> None:
    chat = world.opened()
    said = world.fake.say(chat, "Tomorrow.")
    event = webhook(chat, said) | {"inbox": {"id": INBOX + 1}}
    assert heard(world, event) == []
    closed = {"event": "conversation_status_changed", "id": 41, "status": "resolved"}
    assert heard(world, closed | {"inbox_id": INBOX + 1}) == []


@pytest.mark.parametrize(
    ("status", "state"), [("resolved", "closed"), ("open", "open"), ("pending", "open")]
)
def test_a_status_is_a_change_of_the_ticket(world: World, status: str, state: str) -> None:
    event = {"event": "conversation_status_changed", "id": 41, "inbox_id": INBOX, "status": status,
             "updated_at": 1767257999.5}  # fmt: skip
    (change,) = heard(world, event)
    assert isinstance(change, TicketChange)
    assert (change.ticket_id, change.state, change.at) == ("41", state, AT)
    assert heard(world, event | {"status": "snoozed"}) == []


def test_an_agent_who_writes_to_the_customer_is_seen_typing(world: World) -> None:
    event = {"event": "conversation_typing_on", "conversation": {"id": 41},
             "user": {"id": 7, "type": "user"}, "is_private": False}  # fmt: skip
    assert heard(world, event) == [Signal(ticket_id="41", kind="typing")]
    assert heard(world, event | {"is_private": True}) == []
    assert heard(world, event | {"user": {"id": 501, "type": "contact"}}) == []
    assert heard(world, event | {"event": "conversation_typing_off"}) == []


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("not-a-repeat", "not_a_repeat", None),
        ("same-person: li@example.com", "same_person", "email:li@example.com"),
        ("different-person", "different_person", None),
    ],
)
def test_a_private_note_corrects(world: World, text: str, kind: str, address: str | None) -> None:
    chat = world.opened()
    said = world.fake.say(chat, text, private=True)
    (found,) = heard(world, webhook(chat, said))
    wanted = {"ticket_id": str(chat.id), "external_id": str(said["id"]), "kind": kind,
              "address": address, "by": "Kim", "at": AT}  # fmt: skip
    assert found == Correction.model_validate(wanted)
    assert list(world.desk().poll(f"{NOW}:1:{NOW}", AT).found) == [found]


@pytest.mark.parametrize("before", [[], None, "vip, old"])
def test_a_label_corrects_when_it_is_added(world: World, before: Any) -> None:
    def event(previous: Any, current: Any) -> dict[str, Any]:
        changed = [{"label_list": {"previous_value": previous, "current_value": current}}]
        return {"event": "conversation_updated", "id": 41, "inbox_id": INBOX, "status": "open",
                "updated_at": 1.5, "changed_attributes": changed}  # fmt: skip

    (found,) = heard(world, event(before, ["vip", "not-a-repeat"]))
    assert isinstance(found, Correction)
    assert (found.kind, found.external_id) == ("not_a_repeat", "41-not-a-repeat-1.5")
    assert heard(world, event(["not-a-repeat"], ["vip", "not-a-repeat"])) == []
    assert heard(world, event(["not-a-repeat"], [])) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"\xff", b"[" * 50_000, b'{"event": 7}', b'{"event": "message_created"}',
     b'{"event": "conversation_status_changed", "id": "x"}'],
)  # fmt: skip
def test_a_malformed_event_is_a_payload_error(world: World, body: bytes) -> None:
    with pytest.raises(PayloadError):
        world.desk().parse(request_of(body, {}))


def test_any_field_of_an_event_may_be_anything(world: World) -> None:
    chat = world.opened()
    whole = webhook(chat, world.fake.say(chat, "Tomorrow."))
    spoilt: tuple[Any, ...] = (None, [], {}, "", "x" * 5000, 7, "0001-01-01T00:00:00+23:59", 10**30)
    for name in whole:
        for value in spoilt:
            try:
                world.desk().parse(request_of(json.dumps(whole | {name: value}).encode(), {}))
            except PayloadError:
                continue


# Polling


def polled(world: World, cursor: str, now: datetime = AT) -> tuple[list[FromDesk], str]:
    """All pages."""
    found: list[FromDesk] = []
    while True:
        page = world.desk().poll(cursor, now)
        found += page.found
        cursor = page.cursor
        if not page.more:
            return found, cursor


def test_polling_begins_now(world: World) -> None:
    chat = world.opened()
    world.fake.say(chat, "long ago", created_at=NOW - 9999)
    first = world.desk().poll("", AT)
    assert (list(first.found), first.more) == ([], False)
    assert polled(world, first.cursor)[0] == []


def test_polling_gives_a_lost_reply_with_the_id_that_the_webhook_has(world: World) -> None:
    chat = world.opened()
    cursor = world.desk().poll("", AT).cursor
    world.fake.now += 300
    said = [world.fake.say(chat, text) for text in ("one", "two")]
    found, cursor = polled(world, cursor)
    by_webhook = [heard(world, webhook(chat, each))[0] for each in said]
    assert [(r.external_id, r.text) for r in found if isinstance(r, Reply)] == [
        (r.external_id, r.text) for r in by_webhook if isinstance(r, Reply)
    ]
    world.fake.say(chat, "three")
    again, cursor = polled(world, cursor)
    assert "three" in [r.text for r in again if isinstance(r, Reply)]
    for _ in range(2):
        _, cursor = polled(world, cursor, AT + timedelta(minutes=10))
    assert polled(world, cursor, AT + timedelta(minutes=10))[0] == []


def test_polling_misses_nothing_of_many_busy_conversations(world: World) -> None:
    contact = world.opened().contact
    for n in range(30):
        chat = Chat(1000 + n, contact, {})
        world.fake.chats[chat.id] = chat
        for line in range(25):
            world.fake.say(chat, f"{n}.{line}")
    found, _ = polled(world, f"{NOW}:1:{NOW}")
    told = [r.text for r in found if isinstance(r, Reply)]
    assert sorted(told) == sorted(f"{n}.{line}" for n in range(30) for line in range(25))
    assert [t for t in told if t.startswith("7.")] == [f"7.{line}" for line in range(25)]


def test_polling_finds_what_is_said_while_a_long_round_goes_on(world: World) -> None:
    contact, desk = world.opened().contact, world.desk()
    for n in range(60):
        chat = Chat(1000 + n, contact, {}, last_activity_at=NOW + 60 + n)
        world.fake.chats[chat.id] = chat
    at = AT + timedelta(seconds=130)
    page = desk.poll(f"{NOW}:1:{NOW}", at)
    assert page.more
    world.fake.now = NOW + 140
    world.fake.say(world.fake.chats[1000], "late")  # it stood on the last page
    found = polled(world, page.cursor, at + timedelta(minutes=10))
    again = polled(world, found[1], at + timedelta(minutes=12))
    assert "late" in [r.text for r in found[0] + again[0] if isinstance(r, Reply)]


def test_polling_tells_that_a_ticket_was_closed(world: World) -> None:
    chat = world.opened()
    world.fake.resolve(chat)
    (change,) = world.desk().poll(f"{NOW}:1:{NOW}", AT).found
    assert isinstance(change, TicketChange)
    assert (change.ticket_id, change.state) == (str(chat.id), "closed")


def test_polling_a_desk_that_speaks_nonsense_is_tried_later(world: World) -> None:
    nonsense: tuple[Any, ...] = ("<html>", {"data": {"payload": [{"id": "x"}]}}, [], None)
    for body in nonsense:
        world.server.fail(Failure(200, body=body))
        with pytest.raises(RetryableError):
            world.desk().poll(f"{NOW}:1:{NOW}", AT)


# Files of agents


class Storage:
    """Hands out one file, by a detour."""

    def answer(self, asked: Asked) -> Said:
        if asked.path == "/rails/file.pdf":
            return Said(302, headers={"Location": f"{asked.headers['x-to']}/disk/file.pdf"})
        return Said(200, b"%PDF")


def test_an_agents_file_is_fetched_from_chatwoot_and_from_nowhere_else(world: World) -> None:
    with DeskServer(Storage()) as storage:
        host = storage.url.removeprefix("http://")
        file = Attachment(source=f"{storage.url}/disk/file.pdf")
        assert world.desk(file_hosts=[host]).fetch(file) == b"%PDF"
        assert world.desk(url=storage.url).fetch(file) == b"%PDF"
        with pytest.raises(RejectedError):
            world.desk().fetch(file)
        assert not [a for a in storage.asked if "api_access_token" in a.headers]


def test_agents_find_the_conversation_under_its_address(world: World) -> None:
    desk = world.desk(url="https://chat.example/")
    assert desk.url_of("41") == f"https://chat.example/app/accounts/{ACCOUNT}/conversations/41"
