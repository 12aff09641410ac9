"""`askonce repeats list|show|explain|undo`: what was decided, in words, and taking it back."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra import cli
from tests.fakes import World, world

QUESTION = "How do I keep green tea fresh once the tin is open?"
AGAIN = "how do I keep green tea fresh once the tin is open then?"
ANSWER = "In a tin, cool and dark."


@dataclass
class Desk:
    """A world of fakes, and the command line over it."""

    w: World
    run: Callable[..., Result]

    def say(self, text: str, inbox: str = "sms") -> str:
        self.w.say(inbox, "li", text)
        name = self.w.messages()[-1].message.id
        self.w.settle()
        return name

    def repeated(self, again: str = AGAIN) -> str:
        """A question, answered, and asked again an hour later: the id of the latter."""
        self.say(QUESTION)
        self.w.reply("T1", ANSWER)
        self.w.settle()
        self.w.clock.forward(hours=1)
        return self.say(again)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    w = world()
    monkeypatch.setattr(cli, "_pipeline", lambda folder: w.pipeline)

    def run(*arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(cli.main, ["repeats", *arguments], **more)

    return Desk(w, run)


def test_the_list_names_what_asked_again_newest_first(desk: Desk) -> None:
    first = desk.repeated()
    desk.w.clock.forward(days=1)
    second = desk.say("How do I keep green tea fresh once the tin is open??")
    lines = desk.run("list").output.splitlines()
    assert [line.split()[2] for line in lines] == [second, first]
    assert "told: answered" in lines[1]
    assert "repeat" in lines[0]
    assert "tea" not in desk.run("list").output


def test_the_list_looks_back_as_many_days_as_asked_for(desk: Desk) -> None:
    desk.repeated()
    desk.w.clock.forward(days=3)
    assert desk.run("list", "--days", "2").output.startswith("Nothing was recognised")
    assert len(desk.run("list", "--days", "4").output.splitlines()) == 1


def test_the_list_as_json_holds_no_words(desk: Desk) -> None:
    message = desk.repeated()
    [line] = desk.run("list", "--json").output.splitlines()
    found = json.loads(line)
    assert (found["message"], found["outcome"], found["told"]) == (message, "repeat", "answered")
    assert "tea" not in line
    assert "phone" not in line


def test_the_list_finds_what_observe_mode_would_have_joined(desk: Desk) -> None:
    desk.w.configure(policy={"repeats": {"mode": "observe"}})
    message = desk.repeated()
    [line] = desk.run("list", "--outcome", "would_be").output.splitlines()
    assert message in line
    assert "observed only: repeat" in line
    assert "Nothing" in desk.run("list", "--outcome", "repeat").output


def test_a_question_of_its_own_is_not_listed(desk: Desk) -> None:
    desk.say(QUESTION)
    assert desk.run("list").output == "Nothing was recognised in the last 7 days.\n"


def test_more_than_a_page_of_a_day_is_listed_whole(desk: Desk) -> None:
    from chalicelib.items import Held, Recognised

    store, at = desk.w.pipeline.store, desk.w.clock.now
    for n in range(250):
        store.commit(Held(Recognised(message_id=f"m{n:03}", reference="Q-1", at=at)))
    assert len(list(store.recognised(at))) == 250


def test_show_tells_what_was_decided_and_what_was_said(desk: Desk) -> None:
    message = desk.repeated()
    output = desk.run("show", message).output
    for part in (AGAIN, QUESTION, ANSWER, "by the rule `score`", "ticket T1", "as a message of"):
        assert part in output


def test_a_reference_means_its_latest_repeat(desk: Desk) -> None:
    message = desk.repeated()
    reference = desk.run("list").output.split()[5]
    assert reference.startswith("Q-")
    assert f"message {message}" in desk.run("show", reference.lower()).output


@pytest.mark.parametrize("name", ["m1", "Q-NONE-SUCH"])
def test_what_is_not_there_is_one_line_and_exit_2(desk: Desk, name: str) -> None:
    for command in ("show", "explain", "undo"):
        result = desk.run(command, name)
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1
        assert name in result.output


def test_explain_compares_anew_and_names_rules_and_thresholds(desk: Desk) -> None:
    message = desk.repeated("Where is my order 20260301 with the green tea?")
    output = desk.run("explain", message).output
    for part in ("Rules, in this order", "unhelpful", "answers from", "join threshold", QUESTION):
        assert part in output


def test_explain_says_which_rule_decided_and_what_spoke_against_it(desk: Desk) -> None:
    desk.say("Where is my order 20260301?")
    desk.w.clock.forward(hours=1)
    output = desk.run("explain", desk.say("Where is my order 20260302?")).output
    assert "-> score" in output
    assert "no nature" in output
    assert "veto: another number or date" in output


def test_undo_asks_first_and_says_what_it_did(desk: Desk) -> None:
    message = desk.repeated()
    assert "Is this another question?" in desk.run("undo", message, input="n\n").output
    assert desk.w.desk.said[-1] == ("T1", AGAIN)
    done = desk.run("undo", message, input="y\n")
    assert "a conversation of its own now" in done.output
    desk.w.settle()
    assert desk.w.desk.said[-1] == ("T2", AGAIN)
    assert message in desk.run("list", "--outcome", "undone").output
    assert "words like those set apart" in desk.run("explain", message).output
    assert "somebody took it out" in desk.run("explain", message).output


def test_undo_of_what_joined_nothing_is_one_line_more_and_exit_2(desk: Desk) -> None:
    message = desk.say(QUESTION)
    result = desk.run("undo", message, "--yes")
    assert result.exit_code == 2
    assert "joined no earlier question" in result.output


def test_without_a_world_or_a_deployment_it_says_what_to_do(tmp_path: Path) -> None:
    for command in (["list"], ["show", "m1"], ["explain", "m1"], ["undo", "m1", "--yes"]):
        result = CliRunner(env={"ASKONCE_PREFIX": None}).invoke(
            cli.main, ["repeats", *command, "--folder", str(tmp_path)]
        )
        assert result.exit_code == 2
        assert "start `askonce dev`" in result.output
