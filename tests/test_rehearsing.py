"""What a rehearsal says when it fails: the step, what was expected and seen, where the log lies."""

from pathlib import Path

import pytest
import requests

from chalicelib.errors import ConfigurationError
from infra.local.story import StoryError
from tests import rehearse
from tests.rehearse import StepError, see, step

SEEN = ["another question", "and one more"]


@pytest.fixture
def lines() -> list[str]:
    return []


def test_what_went_well_is_said_and_what_did_not_is_not(lines: list[str]) -> None:
    with step("core is deployed", lines.append):
        see("a ticket", lambda: SEEN, lambda seen: "and one more" in seen)
    with pytest.raises(StepError), step("sms is heard", lines.append):
        see("a ticket", lambda: SEEN, lambda seen: "mine" in seen, seconds=0)
    assert lines == ["core is deployed"]


def test_a_failure_names_its_step_and_what_was_expected_and_seen(lines: list[str]) -> None:
    with pytest.raises(StepError) as caught, step("sms is heard", lines.append):
        see("'mine' on a ticket", lambda: SEEN, lambda seen: "mine" in seen, seconds=0)
    assert str(caught.value) == f"sms is heard: expected 'mine' on a ticket; seen: {SEEN}"


def test_what_is_seen_is_cut_short(lines: list[str]) -> None:
    with pytest.raises(StepError) as caught, step("sms is heard", lines.append):
        see("little", lambda: "much " * 10_000, lambda _: False, seconds=0)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("error", [ConfigurationError, StoryError, requests.ConnectionError])
def test_an_error_in_a_step_is_told_as_that_steps(error: type[Exception], lines: list[str]) -> None:
    with pytest.raises(StepError) as caught, step("edge-rest is deployed", lines.append):
        raise error("no such stack")
    assert str(caught.value) == "edge-rest is deployed: no such stack"


def test_the_last_line_says_where_the_engines_log_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    engine = tmp_path / "ministack"
    engine.write_text("#!/bin/sh\necho this machine is too small\nexit 3\n", encoding="utf-8")
    engine.chmod(0o755)
    monkeypatch.setattr(rehearse, "TOOLS", tmp_path)
    monkeypatch.setattr(rehearse, "ROOT", tmp_path)
    monkeypatch.setattr(rehearse, "ENGINE_LOG", tmp_path / "build" / "rehearsal.log")
    assert rehearse.rehearse(lines.append) == 1
    assert lines == [
        "failed at: ministack listens: ministack does not start; "
        "the engine's log: build/rehearsal.log"
    ]
    assert "too small" in (tmp_path / "build" / "rehearsal.log").read_text(encoding="utf-8")
