"""`askonce helpdesks`: the table of what they can do, how they are doing, moving to another one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chalicelib.errors import ConfigurationError, RejectedError, RetryableError
from connectors.registry import HELPDESKS
from infra import cli
from tests.fakes import FakeDesk, World, crash_at, world

PAGE = Path(__file__).parents[1] / "docs" / "helpdesks" / "README.md"
QUESTION = "How do I keep green tea fresh?"
Run = Callable[..., Result]


@pytest.fixture
def w() -> World:
    made = world()
    two = {"desk": {"connector": "fake_desk"}, "other": {"connector": "fake_desk"}}
    made.configure(helpdesks=two)
    return made


@pytest.fixture
def run(w: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(cli, "_pipeline", lambda folder: w.pipeline)
    return lambda *arguments: CliRunner().invoke(cli.main, ["helpdesks", *arguments])


def other(w: World) -> FakeDesk:
    desk = w.pipeline.deployment.helpdesk("other")
    assert isinstance(desk, FakeDesk)
    return desk


def asked(w: World) -> None:
    """One conversation with an answer, and one that is closed."""
    w.say("sms", "li", QUESTION)
    w.settle()
    w.reply("T1", "In a tin.")
    w.settle()
    w.say("email", "mei", "Where is my parcel 20260301-123?")
    w.settle()
    closed = {"ticket_id": "T2", "external_id": "c1", "state": "closed"}
    w.pipeline.accept_reply("desk", w.request(closed))
    w.settle()


# What they can do


def test_every_helpdesk_but_the_local_worlds_own_has_its_row(run: Run) -> None:
    printed = run("--markdown").output
    named = {line.split()[1] for line in printed.splitlines()[2:]}
    assert named == set(HELPDESKS) - {"sandbox"}


def test_the_page_holds_the_table_that_the_command_prints(run: Run) -> None:
    assert run("--markdown").output in PAGE.read_text(encoding="utf-8")


# How they are doing


def test_a_desk_in_trouble_says_since_when_and_why(w: World, run: Run) -> None:
    assert run("status").output.splitlines() == [
        "desk (fake_desk): works",
        "other (fake_desk): works",
    ]
    w.say("sms", "li", QUESTION)
    w.pipeline.relay(w.messages()[-1].message.id)
    [name] = w.forward_queue.take()
    for _ in range(5):
        w.desk.failures = [RetryableError("HTTP 502 from desk.example")]
        with pytest.raises(RetryableError):
            w.pipeline.forward(name)
    line = run("status").output.splitlines()[0]
    assert "is let be until" in line
    assert "after 5 failures" in line
    assert "HTTP 502 from desk.example" in line


def test_what_is_mended_has_calls_again_at_once(w: World, run: Run) -> None:
    w.say("sms", "li", QUESTION)
    w.pipeline.relay(w.messages()[-1].message.id)
    [name] = w.forward_queue.take()
    w.desk.failures = [ConfigurationError('helpdesk "desk" refuses our credentials')]
    with pytest.raises(ConfigurationError):
        w.pipeline.forward(name)
    assert "refuses our credentials" in run("status").output
    assert run("resume", "desk").output == "desk has calls again\n"
    w.pipeline.forward(name)
    assert w.desk.said == [("T1", QUESTION)]
    assert run("resume", "dsk").exit_code == 2


# Moving


def test_open_conversations_move_with_their_history_and_closed_ones_stay(
    w: World, run: Run
) -> None:
    asked(w)
    printed = run("move", "desk", "other").output
    assert printed.endswith("1 moved, 0 did not\n")
    assert other(w).said == [("T1", QUESTION)]
    [history] = other(w).notes
    assert "desk, ticket T1" in history
    assert history.index(QUESTION) < history.index("Kim: In a tin.")
    assert ["other, ticket T1" in note for note in w.desk.notes] == [True]


def test_what_is_said_afterwards_is_said_there_and_its_replies_arrive(w: World, run: Run) -> None:
    asked(w)
    run("move", "desk", "other")
    w.say("sms", "li", "thanks")
    w.settle()
    assert other(w).said[-1] == ("T1", "thanks")
    event = {"ticket_id": "T1", "external_id": "r9", "text": "You are welcome.", "author": "Mo"}
    w.pipeline.accept_reply("other", w.request(event))
    w.settle()
    assert w.sent("sms")[-1] == "You are welcome."


def test_moving_again_moves_nothing_twice(w: World, run: Run) -> None:
    asked(w)
    other(w).late_failures = [RetryableError("cut", uncertain=True)]
    first = run("move", "desk", "other")
    assert (first.exit_code, "did not move" in first.output) == (2, True)
    assert run("move", "desk", "other").exit_code == 0
    assert run("move", "desk", "other").output == "0 moved, 0 did not\n"
    assert other(w).said == [("T1", QUESTION)]
    assert len(other(w).notes) == 1


@pytest.mark.parametrize("event", ["ticket.opened", "moved"])
def test_stopped_at_any_moment_the_history_is_there_once_in_the_end(
    w: World, run: Run, event: str
) -> None:
    asked(w)
    running = w.pipeline
    w.pipeline = replace(running, report=crash_at(event))
    run("move", "desk", "other")
    w.pipeline = running
    run("move", "desk", "other")
    assert other(w).said == [("T1", QUESTION)]
    assert (len(other(w).notes), len(w.desk.notes)) == (1, 1)
    w.say("sms", "li", "thanks")
    w.settle()
    assert other(w).said[-1] == ("T1", "thanks")


@pytest.mark.parametrize("calls", [0, 1])
def test_what_fails_after_some_calls_is_made_good_by_moving_again(
    w: World, run: Run, calls: int
) -> None:
    asked(w)
    other(w).failures = [*[None] * calls, RetryableError("HTTP 503")]
    run("move", "desk", "other")
    run("move", "desk", "other")
    assert (len(other(w).said), len(other(w).notes)) == (1, 1)


def test_an_old_desk_that_takes_no_notes_holds_nothing_up(w: World, run: Run) -> None:
    asked(w)
    w.desk.failures = [RejectedError("gone")]
    assert run("move", "desk", "other").exit_code == 0
    assert "unnoted" in w.names()


def test_a_rehearsal_moves_nothing_and_an_inbox_limits_it(w: World, run: Run) -> None:
    asked(w)
    assert run("move", "desk", "other", "--dry-run").output.endswith("1 would move, 0 did not\n")
    assert run("move", "desk", "other", "--inbox", "email").output == "0 moved, 0 did not\n"
    assert other(w).said == []


@pytest.mark.parametrize(("source", "target"), [("dsk", "other"), ("desk", "desk")])
def test_a_wrong_name_is_said_in_one_line(w: World, run: Run, source: str, target: str) -> None:
    result = run("move", source, target)
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
