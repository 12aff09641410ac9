"""Dead letters, rejected messages and replays: once each, in order, whatever stops half way."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib import aws
from chalicelib.errors import ConfigurationError, RejectedError
from chalicelib.items import Step
from chalicelib.schema import digest
from infra.operating import (
    DEAD_LETTERS,
    DeadLetters,
    Redriver,
    Replayed,
    Span,
    drive_rejected,
    rejected,
    replay,
    shown,
)
from tests.fakes import HELPDESKS, FakeDesk, World, world

PREFIX = "askonce"
QUESTION, OTHER = "How do I keep green tea fresh?", "Where is parcel SF1234567?"


@pytest.fixture
def w() -> World:
    return world()


# Dead letters


class Box:
    """A dead-letter queue of the deployment, and what an operator does with it."""

    def __init__(self, w: World, kind: str) -> None:
        self.sqs, self.kind = aws.client("sqs"), kind
        self.url = self.sqs.get_queue_url(QueueName=PREFIX + DEAD_LETTERS[kind])["QueueUrl"]
        self.said: list[str] = []
        self.taken: list[Any] = []
        self.redriver = Redriver(w.pipeline, PREFIX, self.taken.append, self.said.append)

    def put(self, body: Any, group: str = "g") -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        own = {"MessageGroupId": group, "MessageDeduplicationId": digest(text)}
        more = own if self.url.endswith(".fifo") else {}
        self.sqs.send_message(QueueUrl=self.url, MessageBody=text, **more)

    def redrive(self, limit: int = 100) -> tuple[int, int, int]:
        done = self.redriver.redrive(self.kind, limit)
        return done.driven, done.settled, done.failed

    def left(self) -> int:
        """Letters that are there, seen or hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(value) for value in found["Attributes"].values())


@pytest.fixture
def box(w: World, moto_bucket: str) -> Callable[[str], Box]:
    return lambda kind: Box(w, kind)


def dead(w: World, box: Box, *said: tuple[str, str]) -> list[str]:
    """Messages that were tried for hours, and lie among the dead letters; their ids."""
    names = []
    for sender, text in said:
        w.say("sms", sender, text)
        names.append(w.messages()[-1].message.id)
        w.pipeline.relay(names[-1])
        box.put({"message_id": names[-1]}, group=w.stored(names[-1]).message.conversation_id or "")
    w.forward_queue.take()
    return names


def test_a_dead_letter_reaches_the_helpdesk_after_all(w: World, box: Callable[[str], Box]) -> None:
    letters = box("forward")
    dead(w, letters, ("li", QUESTION))
    assert letters.redrive() == (1, 0, 0)
    w.settle()
    assert w.desk.said == [("T1", QUESTION)]
    assert letters.left() == 0


def test_each_conversation_keeps_its_order(w: World, box: Callable[[str], Box]) -> None:
    letters = box("forward")
    said = [("li", QUESTION), ("mei", OTHER), ("li", "thanks"), ("mei", "hello?"), ("li", "ok")]
    names = dead(w, letters, *said)
    assert letters.redrive() == (5, 0, 0)
    waiting = list(w.forward_queue.waiting)
    for sender in (0, 1):
        group = w.stored(names[sender]).message.conversation_id
        own = [m for g, m in waiting if g == group]
        assert own == [n for n in names if w.stored(n).message.conversation_id == group]


def test_more_than_a_batch_is_driven_and_a_limit_is_kept(
    w: World, box: Callable[[str], Box]
) -> None:
    letters = box("forward")
    dead(w, letters, *[(f"customer-{n}", QUESTION) for n in range(23)])
    assert letters.redrive(limit=12) == (12, 0, 0)
    assert letters.left() == 11
    assert letters.redrive() == (11, 0, 0)
    assert len(set(w.forward_queue.take())) == 23


def test_what_was_done_meanwhile_is_not_driven(w: World, box: Callable[[str], Box]) -> None:
    letters = box("forward")
    [name] = dead(w, letters, ("li", QUESTION))
    w.pipeline.forward(name)
    letters.put({"message_id": "m-that-was-erased"})
    assert letters.redrive() == (0, 2, 0)
    assert (w.forward_queue.take(), letters.left()) == ([], 0)


def test_stopped_before_the_letter_is_deleted_the_message_is_there_once(
    w: World, box: Callable[[str], Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = box("forward")
    dead(w, letters, ("li", QUESTION))

    def pull_the_plug(*_: Any) -> None:
        raise SystemExit

    delete = DeadLetters.delete
    monkeypatch.setattr(DeadLetters, "delete", pull_the_plug)
    with pytest.raises(SystemExit):
        letters.redrive()
    monkeypatch.setattr(DeadLetters, "delete", delete)
    w.settle()
    assert letters.left() == 1
    release(letters)
    assert letters.redrive() == (0, 1, 0)
    w.settle()
    assert w.desk.said == [("T1", QUESTION)]


def release(letters: Box) -> None:
    """As if the time for which they are hidden were over."""
    from moto.sqs.models import sqs_backends

    queue = sqs_backends["123456789012"]["us-east-1"].queues[letters.url.rpartition("/")[2]]
    for message in [*queue._messages]:
        message.change_visibility(0)
    queue.pending_messages.clear()
    queue.pending_message_groups.clear()


def test_a_letter_that_fails_stays_and_keeps_no_other_waiting(
    w: World, box: Callable[[str], Box]
) -> None:
    letters = box("forward")
    letters.put("no JSON, canary-text", group="broken")
    dead(w, letters, ("li", QUESTION))
    assert letters.redrive() == (1, 0, 1)
    assert letters.left() == 1
    [line] = letters.said
    assert line.endswith("stays, JSONDecodeError")


def test_a_dead_answer_and_a_dead_note_are_driven_by_their_kind(
    w: World, box: Callable[[str], Box]
) -> None:
    w.say("sms", "li", QUESTION)
    w.settle()
    w.reply("T1", "In a tin.")
    name = w.messages()[-1].message.id
    w.pipeline.relay(name)
    w.deliver_queue.take()
    answers = box("deliver")
    answers.put({"message_id": name})
    assert answers.redrive() == (1, 0, 0)
    w.channel("sms").failures.append(RejectedError("the number is unknown"))
    w.pipeline.deliver(w.deliver_queue.take()[0])
    w.forward_queue.take()
    notes = box("forward")
    notes.put({"message_id": name})
    assert notes.redrive() == (1, 0, 0)
    w.settle()
    assert w.desk.notes == ["Not delivered: the number is unknown"]


def test_what_the_stream_never_brought_is_driven(w: World, box: Callable[[str], Box]) -> None:
    letters = box("stream")
    w.say("sms", "li", QUESTION)
    w.say("email", "mei", OTHER)
    batch = {"shardId": "shardId-1", "startSequenceNumber": "1", "endSequenceNumber": "2"}
    letters.put({"version": "1.0", "DDBStreamBatchInfo": batch})
    assert letters.redrive() == (2, 0, 0)
    assert len(w.forward_queue.take()) == 2
    assert letters.left() == 0


def test_what_the_topics_function_could_not_take_is_handed_to_it_again(
    w: World, box: Callable[[str], Box]
) -> None:
    letters = box("inbound")
    event = {"Records": [{"Sns": {"TopicArn": "arn:aws:sns:eu-west-1:1:t", "Message": "{}"}}]}
    letters.put({"version": "1.0", "requestPayload": event, "responsePayload": {}})
    assert letters.redrive() == (1, 0, 0)
    assert letters.taken == [event]
    assert letters.left() == 0


@pytest.mark.parametrize("kind", sorted(DEAD_LETTERS))
def test_a_dry_run_tells_of_each_and_changes_nothing(
    kind: str, w: World, box: Callable[[str], Box]
) -> None:
    letters = box(kind)
    [name] = dead(w, letters, ("li", QUESTION))
    assert letters.redriver.show(kind, 100) == 1
    assert (w.forward_queue.take(), letters.taken) == ([], [])
    assert letters.redriver.show(kind, 100) == 1, "it was let go"
    if kind in ("forward", "deliver"):
        assert letters.said[0].endswith(f"message {name}, resolved")


# What a helpdesk rejected


def refused(w: World, *texts: str) -> list[str]:
    """Messages that the helpdesk would not take; their ids."""
    names = []
    for n, text in enumerate(texts):
        w.desk.failures.append(RejectedError("HTTP 422 from desk.example: the field is missing"))
        w.say("sms", f"customer-{n}", text)
        names.append(w.messages()[-1].message.id)
        w.settle()
        w.clock.forward(minutes=1)
    return names


def test_what_was_rejected_is_listed_with_what_the_desk_said(w: World) -> None:
    names = refused(w, QUESTION, OTHER)
    lines = [shown(held) for held in rejected(w.pipeline)]
    assert [line.split()[0] for line in lines] == names
    assert lines[0].endswith("HTTP 422 from desk.example: the field is missing")


def test_what_was_rejected_goes_to_the_desk_once_it_takes_it(w: World) -> None:
    refused(w, QUESTION, OTHER)
    assert [drive_rejected(w.pipeline, held) for held in rejected(w.pipeline)] == [True, True]
    w.settle()
    assert [text for _, text in w.desk.said] == [QUESTION, OTHER]
    assert rejected(w.pipeline) == []
    assert w.desk.again[-2:] == [True, True], "it may have taken effect: the desk looks first"


def test_what_is_rejected_again_is_there_again(w: World) -> None:
    [name] = refused(w, QUESTION)
    w.desk.failures.append(RejectedError("still not"))
    [held] = rejected(w.pipeline)
    drive_rejected(w.pipeline, held)
    w.settle()
    assert [h.noun.message.id for h in rejected(w.pipeline)] == [name]


def test_two_operators_drive_it_once(w: World) -> None:
    refused(w, QUESTION)
    [held] = rejected(w.pipeline)
    assert (drive_rejected(w.pipeline, held), drive_rejected(w.pipeline, held)) == (True, False)


def test_stopped_before_it_is_queued_the_schedule_drives_it(w: World) -> None:
    refused(w, QUESTION)
    [held] = rejected(w.pipeline)
    w.forward_queue.fails = True
    with pytest.raises(OSError, match="out of reach"):
        drive_rejected(w.pipeline, held)
    w.forward_queue.fails = False
    w.clock.forward(minutes=4)
    w.pipeline.tick()
    w.settle()
    assert w.desk.said == [("T1", QUESTION)]


# Replay


def span(w: World, inbox: str = "sms", minutes: float = 60) -> Span:
    return Span(inbox, w.clock.now - timedelta(minutes=minutes), w.clock.now + timedelta(seconds=1))


def again(w: World, of: Span, *, dry_run: bool = False) -> Replayed:
    steps: list[int] = []
    done = replay(w.pipeline, of, steps.append, dry_run=dry_run)
    assert steps == list(range(1, done.found + 1))
    w.settle()
    return done


def talked(w: World) -> None:
    """A conversation of three lines, and another one by email."""
    for text in (QUESTION, "thanks", OTHER):
        w.say("sms", "li", text)
        w.settle()
        w.clock.forward(minutes=20)
    w.say("email", "mei", QUESTION)
    w.settle()


def test_a_desk_that_has_everything_gets_nothing_twice(w: World) -> None:
    talked(w)
    before = list(w.desk.said)
    done = again(w, span(w, minutes=120))
    assert (done.found, done.again) == (3, 3)
    assert w.desk.said == before
    assert w.desk.tries > len(before)


def test_what_the_desk_lost_is_there_again_and_in_order(w: World) -> None:
    talked(w)
    before = [text for _, text in w.desk.said]
    w.desk.effects.clear()
    again(w, span(w, minutes=120))
    again(w, span(w, "email", minutes=120))
    assert [text for _, text in w.desk.said] == before


class NewNumbers(FakeDesk):
    """A desk that counts on after it lost its tickets."""

    name = "fake_desk"
    opened = 100

    def open_ticket(self, *rest: Any, **named: Any) -> str:
        key = named["idempotency_key"]
        found = super().open_ticket(*rest, **named)
        if self.effects[key].ticket == found and not found.startswith("N"):
            self.opened += 1
            self.effects[key].ticket = f"N{self.opened}"
        return self.effects[key].ticket


def test_a_ticket_opened_anew_is_the_conversations_from_then_on(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    talked(w)
    monkeypatch.setitem(HELPDESKS, "fake_desk", lambda: NewNumbers)
    w.configure()  # the same, with a desk that has nothing
    again(w, span(w, minutes=120))
    tickets = {ticket for ticket, _ in w.desk.said}
    assert all(ticket.startswith("N") for ticket in tickets)
    w.say("sms", "li", "thanks")
    w.settle()
    assert w.desk.said[-1][0] in tickets


@pytest.mark.parametrize(
    ("minutes", "inbox", "found"), [(30, "sms", 1), (120, "chat", 0), (0, "email", 1)]
)
def test_only_what_was_meant_is_replayed(w: World, minutes: int, inbox: str, found: int) -> None:
    talked(w)
    assert again(w, span(w, inbox, minutes)).found == found


def test_a_dry_run_counts_and_changes_nothing(w: World) -> None:
    talked(w)
    tries = w.desk.tries
    assert again(w, span(w, minutes=120), dry_run=True).again == 3
    assert w.desk.tries == tries
    assert {s.step for s in w.messages()} == {Step.DONE}


def test_what_is_on_its_way_is_left_to_its_worker(w: World) -> None:
    w.say("sms", "li", QUESTION)
    assert again(w, span(w), dry_run=True).under_way == 1


def test_an_event_concerns_no_ticket(w: World) -> None:
    w.say("sms", "li", "", kind="event")
    w.settle()
    assert again(w, span(w)).nothing == 1


def test_what_moved_to_another_desk_is_left_there(w: World) -> None:
    from chalicelib.moving import Mover

    talked(w)
    desks = {name: {"connector": "fake_desk"} for name in ("desk", "second")}
    w.configure(helpdesks=desks)
    mover = Mover(w.pipeline.store, w.pipeline.deployment, w.pipeline.clock, w.pipeline.report)
    for conversation in list(mover.waiting("desk", "sms")):
        mover.move(conversation.id, "desk", "second")
    done = again(w, span(w, minutes=120))
    assert (done.found, done.elsewhere) == (3, 3)


def test_what_agents_merged_is_left_there(w: World) -> None:
    talked(w)
    merged = {"ticket_id": "T1", "external_id": "e", "state": "merged", "merged_into": "T77"}
    w.pipeline.accept_reply("desk", w.request(merged))
    assert again(w, span(w, minutes=120)).elsewhere > 0


def test_a_line_that_went_along_is_its_carriers(w: World) -> None:
    """Alone it would stand on the ticket a second time."""
    from chalicelib.ports import DeskCapabilities

    w.say("sms", "li", QUESTION)
    w.settle()
    capabilities = DeskCapabilities(
        as_customer=True, once="key", webhooks="signed", updates=(100, 60)
    )
    w.desk.capabilities = capabilities  # type: ignore[misc]  # this desk's alone
    w.clock.forward(minutes=5)
    for text in ("one", "two", "three"):
        w.clock.forward(seconds=1)
        w.say("sms", "li", text)
    w.settle()
    before = list(w.desk.said)
    assert before[-1] == ("T1", "one\ntwo\nthree")
    done = again(w, span(w, minutes=4))
    assert (done.found, done.again) == (1, 1)
    assert w.desk.said == before


def test_a_replay_tells_no_latency(w: World) -> None:
    talked(w)
    w.events.clear()
    again(w, span(w, minutes=120))
    told = [fields["latency_ms"] for event, fields in w.events if event == "forwarded"]
    assert told == [None] * 3


def test_a_desk_that_cannot_tell_what_it_has_is_not_replayed_to(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    can = replace(FakeDesk.capabilities, once="none")
    monkeypatch.setattr(FakeDesk, "capabilities", can)
    with pytest.raises(ConfigurationError, match="helpdesk desk cannot tell what it has"):
        again(w, span(w))


def test_an_unknown_inbox_is_named_with_those_that_there_are(w: World) -> None:
    with pytest.raises(ConfigurationError, match=r"no inbox smss in askonce\.toml: it has sms, "):
        again(w, span(w, "smss"))
