"""forward: one ticket, every message on it once and in order, whatever the helpdesk does."""

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.errors import ConfigurationError, RejectedError, RetryableError
from chalicelib.items import Step
from tests.fakes import FakeDesk, World, crash_at, world
from tests.nouns import is_free_for_files

QUESTION = "How do I keep green tea fresh?"
DOWN = RetryableError("HTTP 503 from the desk")
REFUSED = RejectedError("HTTP 422 from the desk")
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]


@pytest.fixture
def w() -> World:
    return world()


def waiting(w: World, *texts: str, inbox: str = "sms", **more: Any) -> list[str]:
    """Messages of one customer, resolved and waiting for the helpdesk; their ids."""
    for text in texts:
        w.say(inbox, "li", text, **more)
        w.pipeline.relay(w.messages()[-1].message.id)
    return w.forward_queue.take()


def forward_failing(w: World, name: str, error: type[Exception] = RetryableError) -> None:
    with pytest.raises(error):
        w.pipeline.forward(name)


# Once and in order


def test_the_first_message_opens_the_ticket_and_the_next_ones_comment(w: World) -> None:
    for name in waiting(w, QUESTION, "thanks", "hello?"):
        w.pipeline.forward(name)
    assert w.desk.said == [("T1", QUESTION), ("T1", "thanks"), ("T1", "hello?")]
    assert {s.step for s in w.messages()} == {Step.DONE}


def test_the_ticket_is_opened_with_the_first_message_even_if_the_second_comes_first(
    w: World,
) -> None:
    first, second = waiting(w, QUESTION, "thanks")
    w.pipeline.forward(second)
    w.pipeline.forward(first)
    assert w.desk.said == [("T1", QUESTION), ("T1", "thanks")]


def test_a_message_that_was_forwarded_is_not_forwarded_again(w: World) -> None:
    names = waiting(w, QUESTION, "thanks")
    for name in (*names, *names, "m1"):
        w.pipeline.forward(name)
    assert w.desk.tries == 2


# When the helpdesk fails


@pytest.mark.parametrize("when", ["failures", "late_failures"])
def test_a_failing_helpdesk_gets_one_effect_when_it_is_back(w: World, when: str) -> None:
    first, second = waiting(w, QUESTION, "thanks")
    getattr(w.desk, when).extend([DOWN, DOWN, None, DOWN])
    for name in (first, second):
        while w.stored(name).step is not Step.DONE:
            try:
                w.pipeline.forward(name)
            except RetryableError:
                assert w.stored(name).claimed_until is None
    assert w.desk.said == [("T1", QUESTION), ("T1", "thanks")]
    assert w.desk.tries == 5


def test_a_broken_helpdesk_setting_frees_the_message_for_when_it_is_mended(w: World) -> None:
    [name] = waiting(w, QUESTION)
    w.configure(helpdesks={"desk": {"connector": "fake_desk", "colour": "blue"}})
    forward_failing(w, name, ConfigurationError)
    w.configure(helpdesks={"desk": {"connector": "fake_desk"}})
    w.pipeline.forward(name)
    assert w.desk.said == [("T1", QUESTION)]


def test_where_the_first_message_is_refused_the_next_one_opens_the_ticket(w: World) -> None:
    names = waiting(w, QUESTION, "thanks", "hello?")
    w.desk.failures.append(REFUSED)
    for name in names:
        w.pipeline.forward(name)
    assert w.desk.said == [("T1", "thanks"), ("T1", "hello?")]
    assert (w.stored(names[0]).step, w.stored(names[0]).failure) == (Step.FAILED, str(REFUSED))


def test_a_message_that_opened_the_ticket_in_place_of_the_first_is_on_it_once(w: World) -> None:
    first, second = waiting(w, QUESTION, "thanks", inbox="email", level="claimed")
    of_first, of_second, of_its_note = REFUSED, None, DOWN
    w.desk.failures.extend([of_first, of_second, of_its_note])
    w.pipeline.forward(first)
    forward_failing(w, second)
    w.pipeline.forward(second)
    assert w.desk.said == [("T1", "thanks")]


def test_a_refused_comment_is_given_up_and_holds_up_nothing(w: World) -> None:
    names = waiting(w, QUESTION, "thanks", "hello?")
    w.desk.failures.extend([None, REFUSED])
    for name in names:
        w.pipeline.forward(name)
    assert w.desk.said == [("T1", QUESTION), ("T1", "hello?")]
    assert w.stored(names[1]).step is Step.FAILED


# One worker at a time


def test_a_second_worker_is_sent_away_until_the_claim_ends(w: World) -> None:
    [name] = waiting(w, QUESTION)
    with pytest.raises(SystemExit):
        replace(w.pipeline, report=crash_at("claimed")).forward(name, lease_seconds=60)
    with pytest.raises(RetryableError) as refused:
        w.pipeline.forward(name, lease_seconds=30)
    assert refused.value.retry_after_seconds == 30
    w.clock.forward(seconds=60)
    w.pipeline.forward(name)
    assert w.desk.said == [("T1", QUESTION)]


def test_a_worker_that_was_overtaken_leaves_the_others_result_alone(w: World) -> None:
    [name] = waiting(w, QUESTION)

    events: list[str] = []

    def overtaken(event: str, **_: Any) -> None:
        events.append(event)
        if event == "ticket.opened":
            w.clock.forward(minutes=2)
            w.pipeline.forward(name)

    replace(w.pipeline, report=overtaken).forward(name)
    assert "claim.lost" in events
    assert w.stored(name).step is Step.DONE
    assert w.desk.said == [("T1", QUESTION)]


# Which helpdesk, which inbox


@pytest.mark.parametrize(
    ("files", "may_begin"), [([], True), ([{"source": "photo", "name": "tea.jpg"}], False)]
)
def test_the_files_of_one_message_at_a_time_are_in_memory(
    w: World, files: list[dict[str, str]], *, may_begin: bool
) -> None:
    seen: set[bool] = set()
    (name,) = waiting(w, QUESTION, attachments=files)
    w.channel("sms").files["photo"] = b"\xff\xd8"
    w.table.before_write = lambda _: seen.add(is_free_for_files())
    w.pipeline.forward(name)
    assert seen == {may_begin}


def test_a_message_goes_to_the_helpdesk_that_has_its_ticket(w: World) -> None:
    inboxes = {
        "sms": {"connector": "fake"},
        "email": {"connector": "fake_email", "helpdesk": "second"},
    }
    helpdesks = {"desk": {"connector": "fake_desk"}, "second": {"connector": "fake_desk"}}
    w.configure(inboxes=inboxes, helpdesks=helpdesks)
    w.say("sms", "li", QUESTION, evidence=SHOP)
    w.settle()
    w.clock.forward(hours=1)
    w.say("email", "li", QUESTION, evidence=SHOP)
    w.say("email", "wang", "Do you ship to Berlin?")
    w.settle()
    second = w.pipeline.deployment.helpdesk("second")
    assert isinstance(second, FakeDesk)
    assert w.desk.said == [("T1", QUESTION)] * 2
    assert second.said == [("T1", "Do you ship to Berlin?")]


def test_a_message_of_an_inbox_that_is_configured_no_more_still_arrives(w: World) -> None:
    names = waiting(w, QUESTION, attachments=[{"source": "photo"}])
    w.configure(inboxes={"email": {"connector": "fake_email"}})
    w.pipeline.forward(names[0])
    [opened] = w.desk.effects.values()
    assert opened.text == QUESTION
    assert "not configured any more" in (opened.attachments[0].unavailable or "")


# Files


def test_files_are_fetched_once_and_arrive_with_their_bytes(w: World) -> None:
    [name] = waiting(w, QUESTION, attachments=[{"source": "photo", "name": "tea.jpg"}])
    w.channel("sms").files["photo"] = b"\xff\xd8"
    w.pipeline.forward(name)
    [file] = w.desk.effects[f"q{name[1:]}"].attachments
    assert (file.content, file.size_bytes, file.name) == (b"\xff\xd8", 2, "tea.jpg")
    [kept] = w.stored(name).message.attachments
    assert (w.bucket.objects[kept.key or ""], kept.content, kept.url) == (b"\xff\xd8", None, None)


@pytest.mark.parametrize("known_before", [True, False])
def test_a_file_that_cannot_be_had_is_named_instead(w: World, known_before: bool) -> None:
    known = {"unavailable": "it was deleted"} if known_before else {}
    [name] = waiting(w, QUESTION, attachments=[{"source": "photo"} | known])
    w.channel("sms").files["photo"] = b"" if known_before else RejectedError("it was deleted")
    w.pipeline.forward(name)
    [file] = w.desk.effects[f"q{name[1:]}"].attachments
    assert (file.unavailable, file.content) == ("it was deleted", None)


def test_a_message_waits_for_files_that_can_be_had_later(w: World) -> None:
    [name] = waiting(w, QUESTION, attachments=[{"source": "photo"}])
    w.channel("sms").files["photo"] = RetryableError("try again")
    forward_failing(w, name)
    assert w.desk.tries == 0
    w.channel("sms").files["photo"] = b"x"
    w.pipeline.forward(name)
    assert w.desk.said == [("T1", QUESTION)]


# Notes


def test_an_unproven_sender_is_named_as_such_to_the_agent(w: World) -> None:
    w.say("email", "li", QUESTION, level="claimed")
    w.settle()
    [note] = w.desk.notes
    assert note.startswith("The sender is not proven (email)")


def test_a_note_whose_answer_got_lost_is_not_written_twice(w: World) -> None:
    [name] = waiting(w, QUESTION, inbox="email", level="claimed")
    w.desk.late_failures.extend([None, DOWN])
    forward_failing(w, name)
    w.pipeline.forward(name)
    assert len(w.desk.notes) == 1
    assert w.desk.said == [("T1", QUESTION)]
