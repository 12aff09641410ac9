"""accept: refused without a write, stored once before the acknowledgement, answered in time."""

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.errors import NotFoundError, PayloadError, SignatureError, TooLargeError
from chalicelib.items import Quarantined, Step
from chalicelib.ports import WebhookRequest
from chalicelib.settings import INBOXES_ENVIRONMENT
from tests.fakes import START, World, world

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]
LINE = {"from": "li", "text": QUESTION, "id": "1"}


@pytest.fixture
def w() -> World:
    return world()


def answered(w: World, inbox: str = "wechat") -> None:
    """A question with an agent's answer, an hour ago."""
    w.say(inbox, "li", QUESTION)
    w.settle()
    w.reply("T1", ANSWER)
    w.settle()
    w.clock.forward(hours=1)


# Refused


@pytest.mark.parametrize(
    ("inbox", "changes", "refusal"),
    [
        ("nowhere", {}, NotFoundError),
        ("sms", {"headers": {}}, SignatureError),
        ("sms", {"headers": {"signature": ("wrong",)}}, SignatureError),
        ("sms", {"headers": {"signature": ("right", "right")}}, SignatureError),
        ("sms", {"body": b"[]" + b" " * 64 * 1024}, TooLargeError),
        ("sms", {"body": b" " * 65537, "headers": {}}, TooLargeError),
    ],
)
def test_what_is_refused_never_reaches_the_table(
    w: World, inbox: str, changes: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        w.pipeline.accept(inbox, replace(w.request([LINE]), **changes))
    assert (w.table.calls, w.bucket.objects, w.names()) == (0, {}, [])


def test_an_inbox_that_another_stack_serves_is_not_found_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(INBOXES_ENVIRONMENT, "email, sms")
    w = world()
    with pytest.raises(NotFoundError):
        w.say("wechat", "li", QUESTION)
    assert w.say("sms", "li", QUESTION).body == "ok"


def test_a_set_up_probe_is_answered_and_nothing_else_happens(w: World) -> None:
    probe = WebhookRequest(method="GET", query=[("probe", "echo")], received_at=START)
    assert w.pipeline.accept("sms", probe).body == "echo"
    assert w.table.calls == 0


# Stored


@pytest.mark.parametrize("inbox", ["sms", "email"])
def test_a_message_is_stored_by_one_call_and_left_to_the_stream(w: World, inbox: str) -> None:
    assert w.say(inbox, "li", QUESTION).body == "ok"
    assert w.table.calls == 1
    [stored] = w.messages()
    assert (stored.message.text, stored.step) == (QUESTION, Step.ACCEPTED)


def test_every_message_of_a_webhook_is_stored(w: World) -> None:
    lines = [LINE | {"id": str(n), "text": str(n)} for n in range(3)]
    w.pipeline.accept("sms", w.request(lines))
    assert [s.message.text for s in w.messages()] == ["0", "1", "2"]


def test_a_webhook_without_messages_is_acknowledged(w: World) -> None:
    assert w.pipeline.accept("sms", w.request([])).body == "ok"
    assert w.table.calls == 0


def test_a_webhook_whose_storing_fails_is_not_acknowledged(w: World) -> None:
    def fail() -> None:
        raise OSError("the table is out of reach")

    w.table.interrupt(1, fail)
    with pytest.raises(OSError, match="out of reach"):
        w.say("sms", "li", QUESTION)


def test_a_redelivery_is_acknowledged_alike_and_changes_nothing(w: World) -> None:
    for _ in range(2):
        assert w.pipeline.accept("sms", w.request([LINE])).body == "ok"
        w.settle()
    assert w.names().count("redelivered") == 1
    assert w.desk.said == [("T1", QUESTION)]


# Quarantined


def test_an_unreadable_request_is_acknowledged_and_kept_once(w: World) -> None:
    unreadable = replace(w.request([]), body=b"no JSON", query=[("a", "1")])
    for _ in range(2):
        assert w.pipeline.accept("sms", unreadable).body == "ok"
    [kept] = w.pipeline.store.all_quarantined()
    assert (kept.inbox, kept.body, kept.query) == ("sms", b"no JSON", [("a", "1")])
    assert [fields["new"] for _, fields in w.events] == [True, False]


def test_equal_bytes_in_two_inboxes_are_kept_apart(w: World) -> None:
    for inbox in ("sms", "email"):
        w.pipeline.accept(inbox, replace(w.request([]), body=b"no JSON"))
    assert len(w.pipeline.store.all_quarantined()) == 2


def quarantined(w: World, inbox: str, body: Any) -> None:
    """A request that an earlier release could not read."""
    kept = Quarantined(
        id="1",
        inbox=inbox,
        reason="no JSON",
        received_at=START,
        method="POST",
        headers={},
        query=[],
        body=json.dumps(body).encode() if body else b"no JSON",
    )
    w.pipeline.store.quarantine(kept)


def test_a_quarantined_message_goes_its_way_once_it_can_be_read(w: World) -> None:
    quarantined(w, "sms", [LINE, LINE | {"id": "2", "text": "thanks"}])
    assert w.pipeline.retry_quarantined("1") == 2
    w.settle()
    assert w.desk.said == [("T1", QUESTION), ("T1", "thanks")]
    assert w.pipeline.store.all_quarantined() == []


def test_a_quarantined_reply_goes_its_way_once_it_can_be_read(w: World) -> None:
    w.say("sms", "li", QUESTION)
    w.settle()
    quarantined(w, "replies/desk", {"ticket_id": "T1", "external_id": "r1", "text": ANSWER})
    assert w.pipeline.retry_quarantined("1") == 1
    w.settle()
    assert w.sent("sms") == [ANSWER]


def test_what_is_still_unreadable_stays_in_quarantine(w: World) -> None:
    quarantined(w, "sms", None)
    with pytest.raises(PayloadError):
        w.pipeline.retry_quarantined("1")
    assert len(w.pipeline.store.all_quarantined()) == 1


def test_what_was_never_quarantined_is_not_found(w: World) -> None:
    with pytest.raises(NotFoundError):
        w.pipeline.retry_quarantined("1")


# Answered in the response


def test_a_repeat_hears_the_answer_in_the_response_and_not_again(w: World) -> None:
    answered(w)
    assert ANSWER in w.say("wechat", "li", QUESTION).body
    w.settle()
    assert w.sent("wechat") == [ANSWER]
    assert w.desk.said == [("T1", QUESTION)] * 2
    assert ANSWER in w.desk.notes[0]


def test_a_redelivery_hears_the_same_answer(w: World) -> None:
    answered(w)
    line = LINE | {"id": "again"}
    bodies = []
    for _ in range(3):
        bodies.append(w.pipeline.accept("wechat", w.request([line])).body)
        w.settle()
        w.clock.forward(seconds=5)
    assert ANSWER in bodies[0]
    assert len(set(bodies)) == 1
    assert w.sent("wechat") == [ANSWER]


def test_an_answer_too_long_for_the_response_is_a_message_of_its_own(w: World) -> None:
    long = "It keeps best in a tin. " * 100
    w.say("wechat", "li", QUESTION)
    w.settle()
    w.reply("T1", long)
    w.settle()
    assert w.say("wechat", "li", QUESTION).body == "ok"
    w.settle()
    assert len([text for text in w.sent("wechat") if long.strip() in text]) == 2


def test_a_new_question_hears_nothing_in_the_response(w: World) -> None:
    assert w.say("wechat", "li", QUESTION).body == "ok"
    [stored] = w.messages()
    assert stored.step is Step.RESOLVED


def test_of_several_messages_none_is_answered_in_the_response(w: World) -> None:
    answered(w)
    lines = [LINE | {"id": "2"}, LINE | {"id": "3"}]
    assert w.pipeline.accept("wechat", w.request(lines)).body == "ok"
    w.settle()
    assert len([text for text in w.sent("wechat") if ANSWER in text]) == 2


#: 4.8 seconds, less the 4 that a call to the table may take: a call must begin within 0.8.
TOO_LONG_SECONDS = 0.9


@pytest.mark.parametrize(
    ("slow_write", "in_time"),
    [
        (1, False),  # of the message
        (2, False),  # of the contact
        (3, True),  # of the decision: it began in time, so it ends in time
    ],
)
def test_past_its_time_accept_decides_nothing_and_the_stream_does(
    w: World, slow_write: int, in_time: bool
) -> None:
    answered(w)
    w.table.interrupt(slow_write, lambda: w.clock.forward(seconds=TOO_LONG_SECONDS))
    response = w.say("wechat", "li", QUESTION, evidence=SHOP)
    assert (ANSWER in response.body) is in_time
    assert (w.messages()[2].step is Step.RESOLVED) is in_time
    w.settle()
    assert len([text for text in w.sent("wechat") if ANSWER in text]) == (1 if in_time else 2)


def test_an_accept_that_is_late_from_the_start_leaves_even_the_contact_alone(w: World) -> None:
    w.table.interrupt(1, lambda: w.clock.forward(seconds=TOO_LONG_SECONDS))
    w.say("wechat", "li", QUESTION)
    assert [pk[:4] for pk, _ in w.table.items] == ["MSG#"]


def test_the_stream_waits_while_accept_works_on_the_answer_and_not_longer(w: World) -> None:
    answered(w)
    began = w.clock.now
    w.table.interrupt(2, lambda: w.pipeline.relay(w.messages()[-1].message.id))
    assert w.say("wechat", "li", QUESTION).body == "ok"
    assert 0.8 <= (w.clock.now - began).total_seconds() < 0.9
    w.settle()
    assert len([text for text in w.sent("wechat") if ANSWER in text]) == 2


def test_an_error_after_storing_is_no_error_for_the_provider(w: World) -> None:
    def fail() -> None:
        raise OSError("the table is out of reach")

    w.table.interrupt(2, fail)
    assert w.say("wechat", "li", QUESTION).body == "ok"
    assert "unanswered" in w.names()
    w.settle()
    assert w.desk.said == [("T1", QUESTION)]
