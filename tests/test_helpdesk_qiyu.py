"""Qiyu: a fake of its message interface, and pushes of the shapes that its page shows."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from chalicelib.errors import (
    ConfigurationError,
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import FromDesk, WebhookRequest
from chalicelib.schema import Attachment, Conversation, Correction, Reply, TicketChange
from connectors.helpdesks.qiyu import Qiyu
from tests import nouns
from tests.desk_server import Asked, DeskServer, Failure, Said
from tests.desks import qiyu
from tests.desks.calls import CONVERSATION, REPEATED, opened
from tests.desks.qiyu import FakeQiyu, said, session
from tests.recorded import later, with_param

pytestmark = pytest.mark.usefixtures("no_waiting")

NOW = 1767258000
PICTURE = Attachment(name="票.png", media_type="image/png", key="k", content=b"\x89PNG")
#: Two frames of 12.2 kbit/s and one of silence: 60 ms.
VOICE = b"#!AMR\n" + (bytes([7 << 3]) + b"v" * 31) * 2 + bytes([8 << 3]) + b"s" * 5


@pytest.fixture
def fake() -> FakeQiyu:
    return FakeQiyu()


@pytest.fixture
def server(fake: FakeQiyu) -> Iterator[DeskServer]:
    with DeskServer(fake) as server:
        yield server
    assert fake.mistakes == []


@pytest.fixture
def desk(server: DeskServer) -> Qiyu:
    return a_desk(url=server.url)


def a_desk(**more: Any) -> Qiyu:
    settings: dict[str, Any] = {"app_key": qiyu.APP_KEY, "app_secret": qiyu.APP_SECRET}
    return Qiyu(Qiyu.settings_model.model_validate(settings | more), "desk")


def commented(
    desk: Qiyu,
    text: str = "thanks",
    conversation: Conversation = CONVERSATION,
    *,
    again: bool = False,
    **more: Any,
) -> None:
    message = nouns.message(text, **more)
    desk.add_comment("q1", message, conversation, idempotency_key="m2", again=again)


def paths(server: DeskServer) -> list[str]:
    return [a.path.removeprefix("/openapi") for a in server.asked]


# Sessions


def test_a_first_message_makes_a_visitor_who_asks_for_an_agent(
    desk: Qiyu, fake: FakeQiyu, server: DeskServer
) -> None:
    assert opened(desk, sender_name="李伟") == "q1"
    visitor = fake.visitors["q1"]
    assert visitor.messages == [("TEXT", "Where is my parcel?")]
    assert (visitor.held_by, visitor.group) == ("staff", None)
    assert visitor.profile == {
        "real_name": "李伟",
        "mobile_phone": "+8613800138000",
        "askonce_customer": "c1",
        "askonce_reference": "Q-2222-3333",
        "askonce_channel": "sms",
        "askonce_category": "question",
        "askonce_priority": "普通",
    }
    assert paths(server) == ["/event/updateUInfo", "/event/applyStaff", "/message/send"]


def test_two_questions_of_a_person_are_two_visitors(desk: Qiyu, fake: FakeQiyu) -> None:
    assert opened(desk) != opened(desk, key="q2")
    assert {v.profile["askonce_customer"] for v in fake.visitors.values()} == {"c1"}


def test_an_address_that_is_only_claimed_is_not_told(desk: Qiyu, fake: FakeQiyu) -> None:
    claimed = (nouns.evidence("email:li@example.com", "claimed"),)
    opened(desk, address="email:li@example.com", channel="email", evidence=claimed)
    assert "email" not in fake.visitors["q1"].profile


def test_a_group_of_agents_may_be_named(server: DeskServer, fake: FakeQiyu) -> None:
    opened(a_desk(url=server.url, group_id=7))
    assert fake.visitors["q1"].group == 7


def test_a_subject_line_is_the_first_line(desk: Qiyu, fake: FakeQiyu) -> None:
    opened(desk, subject="Order 7")
    assert fake.visitors["q1"].texts == ["Order 7\n\nWhere is my parcel?"]


@pytest.mark.parametrize(("code", "held_by"), [(14005, "left"), (14006, "queue")])
def test_with_no_agent_free_the_message_waits_at_the_desk(
    desk: Qiyu, fake: FakeQiyu, code: int, held_by: str
) -> None:
    fake.staff = code
    opened(desk)
    visitor = fake.visitors["q1"]
    assert (visitor.held_by, visitor.texts) == (held_by, ["Where is my parcel?"])


def test_where_nobody_is_there_and_nothing_can_be_left_it_waits_here(
    desk: Qiyu, fake: FakeQiyu
) -> None:
    fake.staff = 14010
    with pytest.raises(RetryableError) as caught:
        opened(desk)
    assert caught.value.retry_after_seconds == 300
    assert fake.visitors["q1"].messages == []


def test_a_comment_goes_to_the_session_that_goes_on(desk: Qiyu, fake: FakeQiyu) -> None:
    opened(desk)
    commented(desk)
    assert fake.visitors["q1"].texts == ["Where is my parcel?", "thanks"]
    assert fake.visitors["q1"].applied == 1


def test_a_comment_after_the_end_asks_for_an_agent_before_a_robot_takes_it(
    desk: Qiyu, fake: FakeQiyu
) -> None:
    opened(desk)
    fake.end()
    commented(desk)
    assert (fake.visitors["q1"].held_by, fake.visitors["q1"].applied) == ("staff", 2)


def test_a_session_that_ends_while_we_write_is_asked_for_again(
    desk: Qiyu, fake: FakeQiyu, server: DeskServer
) -> None:
    opened(desk)
    server.fail(None, Failure(200, body={"code": 14007}))
    commented(desk)
    assert fake.visitors["q1"].texts[-1] == "thanks"
    assert fake.visitors["q1"].applied == 2


def test_a_repeat_shows_as_urgent(desk: Qiyu, fake: FakeQiyu) -> None:
    opened(desk)
    commented(desk, conversation=REPEATED)
    assert fake.visitors["q1"].profile["askonce_priority"] == "高"


def test_a_note_is_in_the_profile_and_never_a_message(desk: Qiyu, fake: FakeQiyu) -> None:
    opened(desk)
    for key, text in (("n1", "Asked twice."), ("n2", "x" * 3000), ("n1", "Asked twice.")):
        desk.add_note("q1", text, CONVERSATION, idempotency_key=key, again=True)
    notes = [v for k, v in fake.visitors["q1"].profile.items() if k.startswith("askonce_note")]
    assert notes == ["Asked twice.", "x" * 999 + "…"]
    assert fake.visitors["q1"].texts == ["Where is my parcel?"]


def test_a_long_text_goes_as_several_and_nothing_of_it_is_lost(desk: Qiyu, fake: FakeQiyu) -> None:
    opened(desk)
    lines = "\n".join(f"line {n} " + "x" * 90 for n in range(100))
    commented(desk, lines + "\n" + "y" * 9000)
    texts = fake.visitors["q1"].texts[1:]
    assert all(len(text) <= 4000 for text in texts)
    assert "\n".join(texts[:3]) == lines
    assert "".join(texts[3:]) == "y" * 9000


# Files


def test_a_picture_and_a_voice_message_go_as_such(desk: Qiyu, fake: FakeQiyu) -> None:
    voice = Attachment(media_type="audio/amr", content=VOICE)
    opened(desk, attachments=(PICTURE, voice))
    (_, picture), (_, audio) = fake.visitors["q1"].messages[1:]
    assert fake.files == [("票.png", b"\x89PNG"), ("file-2.amr", VOICE)]
    assert picture == {
        "url": "https://ysf.nosdn.127.net/1",
        "size": 4,
        "md5": hashlib.md5(b"\x89PNG").hexdigest(),
    }
    assert (audio["dur"], audio["size"]) == (60, len(VOICE))


def test_any_other_file_goes_as_a_link(desk: Qiyu, fake: FakeQiyu) -> None:
    mp3 = Attachment(name="a.mp3", media_type="audio/mpeg", content=b"ID3")
    lost = Attachment(name="b.pdf", unavailable="too big")
    opened(desk, attachments=(mp3, lost))
    words, link = fake.visitors["q1"].texts
    assert "b.pdf could not be had" in words
    assert link == "[a.mp3] https://ysf.nosdn.127.net/1"


def test_a_file_that_is_too_long_for_qiyu_is_told_of(desk: Qiyu, fake: FakeQiyu) -> None:
    big = Attachment(name="film.mp4", content=b"x" * (5 * 1024 * 1024 + 1), url="https://s3/film")
    opened(desk, attachments=(big,))
    assert fake.visitors["q1"].texts[1] == "[film.mp4] https://s3/film"
    assert fake.files == []


# Once, or twice


def act(desk: Qiyu, what: str, *, again: bool = False) -> None:
    """One of the three calls, always the same one."""
    if what == "open":
        opened(desk, again=again)
    elif what == "comment":
        commented(desk, again=again)
    else:
        desk.add_note("q1", "Asked twice.", CONVERSATION, idempotency_key="n1", again=again)


each_act = pytest.mark.parametrize("what", ["open", "comment", "note"])
BEFORE = {"open": 2, "comment": 1, "note": 0}
TIMES = {"open": 1, "comment": 1, "note": 3}


def prepared(desk: Qiyu, server: DeskServer, what: str, failure: Failure) -> None:
    """The call's own effect is what goes wrong."""
    if what != "open":
        opened(desk)
    server.fail(*[None] * BEFORE[what], *[failure] * TIMES[what])


def effects(fake: FakeQiyu, what: str) -> int:
    wanted = {"open": "Where is my parcel?", "comment": "thanks", "note": "Asked twice."}[what]
    visitor = fake.visitors["q1"]
    return [*visitor.texts, *visitor.profile.values()].count(wanted)


@each_act
@pytest.mark.parametrize("reset", ["before", "after"])
def test_a_cut_line_loses_nothing_and_a_message_whose_answer_was_lost_stands_twice(
    desk: Qiyu, fake: FakeQiyu, server: DeskServer, what: str, reset: Any
) -> None:
    prepared(desk, server, what, Failure(reset=reset))
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.uncertain
    act(desk, what, again=True)
    act(desk, what, again=True)
    assert effects(fake, what) == (2 if reset == "after" and what != "note" else 1)


def test_pieces_that_went_out_are_not_sent_again(
    desk: Qiyu, fake: FakeQiyu, server: DeskServer
) -> None:
    opened(desk)
    server.fail(None, None, Failure(500))
    for again in (False, True):
        try:
            commented(desk, "x" * 4000 + "y", again=again, attachments=(PICTURE,))
        except RetryableError:
            continue
    assert fake.visitors["q1"].texts[1:] == ["x" * 4000, "y"]
    assert len(fake.files) == 1


@each_act
def test_an_answer_of_nothing_may_mean_that_it_was_done(
    desk: Qiyu, server: DeskServer, what: str
) -> None:
    prepared(desk, server, what, Failure(200, body=b"", acts=True))
    with pytest.raises(RetryableError) as caught:
        act(desk, what)
    assert caught.value.uncertain


# What goes wrong


@each_act
def test_their_own_fault_is_tried_again(desk: Qiyu, server: DeskServer, what: str) -> None:
    prepared(desk, server, what, Failure(200, body={"code": 14500}))
    with pytest.raises(RetryableError, match="14500"):
        act(desk, what)


@each_act
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_failure_of_a_server_between_is_tried_again(
    desk: Qiyu, server: DeskServer, what: str, status: int
) -> None:
    prepared(desk, server, what, Failure(status))
    with pytest.raises(RetryableError):
        act(desk, what)


def test_a_limit_says_when_to_come_back_in_both_forms(desk: Qiyu, server: DeskServer) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for value in ("90", at):
        server.fail(Failure(429, {"Retry-After": value}))
        with pytest.raises(RetryableError) as caught:
            act(desk, "note")
        assert caught.value.retry_after_seconds == pytest.approx(90, abs=30)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"app_key": "other"}, "no such app_key"), ({"app_secret": "other"}, "app_secret")],
)
def test_refused_credentials_are_the_deployments_fault(
    server: DeskServer, settings: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=f'helpdesk "desk": .*{words}'):
        opened(a_desk(url=server.url, **settings))


@each_act
@pytest.mark.parametrize(("code", "words"), [(14003, "our clock"), (14515, "not allowed")])
def test_what_the_deployment_has_to_mend_is_named(
    desk: Qiyu, server: DeskServer, what: str, code: int, words: str
) -> None:
    prepared(desk, server, what, Failure(200, body={"code": code}))
    with pytest.raises(ConfigurationError, match=words):
        act(desk, what)


@each_act
def test_a_refusal_keeps_qiyus_words(desk: Qiyu, server: DeskServer, what: str) -> None:
    prepared(desk, server, what, Failure(200, body={"code": 14004, "message": "内容格式不对"}))
    with pytest.raises(RejectedError, match=r"14004 from Qiyu: 内容格式不对"):
        act(desk, what)


def test_a_full_queue_is_waited_for(desk: Qiyu, server: DeskServer) -> None:
    prepared(desk, server, "comment", Failure(200, body={"code": 14006}))
    with pytest.raises(RetryableError) as caught:
        act(desk, "comment")
    assert caught.value.retry_after_seconds == 60


def test_the_new_secret_signs_while_they_are_rotated(server: DeskServer) -> None:
    assert opened(a_desk(url=server.url, app_secret=[qiyu.APP_SECRET, "old"])) == "q1"


# The way back


def request(
    event_type: str, told: dict[str, Any] | bytes, secret: str = qiyu.APP_SECRET
) -> WebhookRequest:
    body = told if isinstance(told, bytes) else qiyu.body_of(told)
    return WebhookRequest(
        method="POST",
        query=tuple(qiyu.query(event_type, body, NOW, secret).items()),
        body=body,
        received_at=datetime.fromtimestamp(NOW, UTC),
    )


def heard(event_type: str, told: dict[str, Any]) -> list[FromDesk]:
    desk = a_desk()
    desk.verify(request(event_type, told))
    return desk.parse(request(event_type, told))


def test_a_genuine_push_is_accepted_under_both_secrets_for_five_minutes() -> None:
    genuine = request("MSG", said())
    a_desk().verify(genuine)
    a_desk(app_secret=["new", qiyu.APP_SECRET]).verify(genuine)
    a_desk().verify(later(genuine, 300))


def test_a_forged_changed_or_stale_push_is_refused() -> None:
    genuine = request("MSG", said())
    forged = [later(genuine, 301), later(genuine, -301)]
    forged += [replace(genuine, body=genuine.body + b" "), request("MSG", said(), secret="other")]
    for name in ("checksum", "time"):
        right = genuine.param(name)
        for values in ((), ("",), (right, right), (right[:-1],), (right + "0",), ("签\ud800",)):
            forged.append(with_param(genuine, name, *values))
    forged.append(with_param(genuine, "time", str(NOW + 1)))
    forged.append(with_param(genuine, "eventType", "MSG", "SESSION_END"))
    for each in forged:
        with pytest.raises(SignatureError):
            a_desk().verify(each)


def test_the_acknowledgement_is_an_empty_body() -> None:
    answer = a_desk().acknowledge()
    assert (answer.status, answer.body) == (200, "")


def test_an_agents_message_is_a_reply() -> None:
    assert heard("MSG", said()) == [
        Reply(
            ticket_id="q1",
            external_id="8ca1c9fb30c40aa6cc390844e2756fac",
            text="It left today. 明天",
            author="lantian",
            sent_at=datetime(2026, 1, 1, 8, 59, 0, 316000, tzinfo=UTC),
        )
    ]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    ("kind", "url", "media_type"),
    [
        ("PICTURE", "https://ysf.nosdn.127.net/abc", "image/jpeg"),
        ("PICTURE", "https://ysf.nosdn.127.net/abc.png?x=1", "image/png"),
        ("AUDIO", "https://ysf.nosdn.127.net/abc", "audio/amr"),
        ("FILE", "https://ysf.nosdn.127.net/%E7%A5%A8.pdf", "application/pdf"),
    ],
)
def test_an_agents_file_is_a_reply(kind: str, url: str, media_type: str, as_text: bool) -> None:
    content = {"url": url, "size": 10, "md5": "x"}
    told = said(json.dumps(content) if as_text else content, msgType=kind)
    [reply] = heard("MSG", told)
    assert isinstance(reply, Reply)
    [file] = reply.attachments
    assert (file.media_type, file.size_bytes, file.source) == (media_type, 10, url)
    assert reply.text == ""


@pytest.mark.parametrize(
    ("event_type", "told", "state"),
    [
        ("SESSION_END", session(closeReason=0), "closed"),
        ("SESSION_END", session(closeReason=2), "closed"),
        ("SESSION_END", session(closeReason=4), "closed"),
        ("SESSION_END", session(closeReason=3), None),
        ("SESSION_END", session(closeReason=5, transferTo=62928), None),
        ("SESSION_END", session(closeReason=0, transferTo=62928), None),
        ("SESSION_START", session(), "open"),
        ("SESSION_START", session(transferFrom=62917), None),
        ("EVA_INVITATION", session(), None),
        ("TOMORROWS_EVENT", {}, None),
    ],
)
def test_a_session_that_ends_closes_and_one_that_begins_opens(
    event_type: str, told: dict[str, Any], state: str | None
) -> None:
    found = [(c.ticket_id, c.state) for c in heard(event_type, told) if isinstance(c, TicketChange)]
    assert found == ([("q1", state)] if state else [])


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("not-a-repeat", "not_a_repeat", None),
        (" same-person：li@example.com ", "same_person", "email:li@example.com"),
        ("different-person", "different_person", None),
    ],
)
def test_a_message_that_is_a_command_corrects_and_goes_no_further(
    text: str, kind: str, address: str | None
) -> None:
    [found] = heard("MSG", said(text))
    assert isinstance(found, Correction)
    assert (found.kind, found.address, found.by) == (kind, address, "lantian")


@pytest.mark.parametrize("text", ["not-a-repeat\nI think", "It is not-a-repeat", "same-person"])
def test_a_message_with_other_words_is_a_reply(text: str) -> None:
    [found] = heard("MSG", said(text))
    assert isinstance(found, Reply)


def test_an_empty_message_is_nothing() -> None:
    assert heard("MSG", said(" ")) == []


@pytest.mark.parametrize("event_type", ["MSG", "SESSION_END", "SESSION_START"])
def test_a_hostile_push_is_a_payload_error_or_harmless(event_type: str) -> None:
    whole = said(msgType="PICTURE") if event_type == "MSG" else session(closeReason=0)
    spoilt: list[Any] = [{}, [], None, 7, -1, 10**30, "x" * 5000, "\0", {"url": "http://[x"}]
    bodies = [b"", b"null", b"[", b"[" * 50_000, b"\xff", b"7"]
    bodies += [json.dumps(whole | {name: bad}).encode() for name in whole for bad in spoilt]
    for body in bodies:
        try:
            found = a_desk().parse(request(event_type, body))
        except PayloadError:
            continue
        assert all(isinstance(f, Reply | TicketChange | Correction) for f in found)


class File:
    """Serves one file."""

    def answer(self, asked: Asked) -> Said:
        return Said(200, b"%PDF", {"Content-Type": "application/pdf"})


def test_a_file_is_fetched_from_a_host_that_is_named() -> None:
    with DeskServer(File()) as server:
        desk = a_desk(file_hosts=[server.url.removeprefix("http://")])
        assert desk.fetch(Attachment(source=f"{server.url}/x.pdf")) == b"%PDF"


@pytest.mark.parametrize(
    "source", [None, "", "https://evil.example/x", "https://ysf.nosdn.127.net@evil.example/"]
)
def test_a_file_elsewhere_is_not_fetched(source: str | None) -> None:
    with pytest.raises(RejectedError):
        a_desk().fetch(Attachment(source=source))
