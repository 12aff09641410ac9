"""`askonce contacts`: what an operator reads and does, on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chalicelib.codes import TRIES, Codes
from chalicelib.errors import RejectedError
from infra import cli
from tests.fakes import World, world

Askonce = Callable[..., Result]


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture
def askonce(w: World, monkeypatch: pytest.MonkeyPatch) -> Askonce:
    """The command, on a world of fakes."""
    monkeypatch.setattr(cli, "_pipeline", lambda folder: w.pipeline)
    monkeypatch.setenv("USER", "kim")
    return lambda *words: CliRunner().invoke(cli.main, ["contacts", *words])


def say(w: World, inbox: str, sender: str, text: str, **more: object) -> None:
    w.say(inbox, sender, text, **more)
    w.settle()


def test_show_says_why_and_until_when(w: World, askonce: Askonce) -> None:
    say(w, "sms", "li", "Where is my parcel?")
    shown = askonce("show", "phone:li").stdout
    assert "phone:li  verified, by sms" in shown
    assert "proven 2026-03-01 09:00:00, holds until 2026-08-28 09:00:00" in shown
    assert "2026-03-01 09:00:00  sms, askonce" in shown


def test_show_says_what_aged_out(w: World, askonce: Askonce) -> None:
    say(w, "sms", "li", "Where is my parcel?")
    w.clock.forward(days=200)
    shown = askonce("show", "phone:li").stdout
    assert "aged out since 2026-08-28 09:00:00: nothing is disclosed" in shown


def test_show_names_what_is_only_claimed_and_how_to_prove_it(w: World, askonce: Askonce) -> None:
    claim = [{"address": "email:li", "level": "claimed", "source": "form"}]
    say(w, "chat", "li", "Where is my parcel?", evidence=claim)
    shown = askonce("show", "webchat:li").stdout
    assert "email:li  only claimed" in shown
    assert "askonce contacts challenge" in shown


def test_show_follows_a_code(w: World, askonce: Askonce) -> None:
    say(w, "sms", "li", "Where is my parcel?")
    started = askonce("challenge", "email:li", "--for", "phone:li")
    assert "A code is on its way to email:li" in started.stdout

    def shown() -> str:
        return askonce("show", "phone:li").stdout

    assert "a code to email:li, asked for by kim, is on its way" in shown()
    w.settle()
    assert "is expected until 2026-03-01 09:10:00, 0 wrong tries so far" in shown()
    code = "".join(c for c in w.sent("email")[-1] if c.isdigit())[:6]
    assert code not in shown()
    for _ in range(TRIES):
        say(w, "sms", "li", f"{(int(code) + 1) % 10**6:06d}")
    assert f"was guessed at {TRIES} times and counts no more" in shown()


def test_show_says_why_a_code_could_not_be_sent(w: World, askonce: Askonce) -> None:
    say(w, "sms", "li", "Where is my parcel?")
    w.channel("email").failures.append(RejectedError("the mailbox is unknown"))
    askonce("challenge", "email:li", "--for", "phone:li")
    w.settle()
    assert "was not delivered: the mailbox is unknown" in askonce("show", "phone:li").stdout


def test_show_says_that_a_code_ran_out(w: World, askonce: Askonce) -> None:
    say(w, "sms", "li", "Where is my parcel?")
    line = w.pipeline
    Codes(line.store, line.deployment, w.clock, line.report).challenge(
        "email:li", "phone:li", by="kim"
    )
    w.settle()
    w.clock.forward(minutes=11)
    assert "ran out 2026-03-01 09:10:00" in askonce("show", "phone:li").stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("show", "email:who"), "nothing was ever heard of email:who"),
        (("challenge", "email", "--for", "phone:li"), "email is no address"),
        (("challenge", "webchat:li", "--for", "phone:li"), "no inbox can send a code"),
        (("erase", "c123", "--yes"), "there is no contact c123"),
        (("erase", "email:li"), "this cannot be undone: askonce contacts erase email:li --yes"),
        (("import", "nowhere.csv"), "nowhere.csv: cannot be read: No such file"),
        (("import", "x.csv", "--country", "XX"), "--country XX is unknown"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    askonce: Askonce, words: tuple[str, ...], why: str
) -> None:
    done = askonce(*words)
    assert done.exit_code == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_import_links_reports_and_may_be_rehearsed(
    w: World, askonce: Askonce, tmp_path: Path
) -> None:
    path = tmp_path / "customers.csv"
    path.write_text("customer_id;email;phone\n7;li@example.com;138 0013 8000\n", encoding="utf-8")
    rehearsed = askonce("import", str(path), "--country", "cn", "--dry-run")
    assert "Would be: 2 linked, 0 already there, 0 refused; 1 customers" in rehearsed.stdout
    assert w.table.items == {}
    done = askonce("import", str(path), "--country", "cn")
    assert (done.exit_code, done.stdout) == (
        0, "2 linked, 0 already there, 0 refused; 1 customers\n"
    )  # fmt: skip
    assert "0 linked, 2 already there" in askonce("import", str(path), "--country", "cn").stdout
    refused = askonce("import", str(path))
    assert refused.exit_code == 2
    assert "line 2: phone 138 0013 8000: a number without +" in refused.stderr


def test_erase_says_what_it_did_and_may_be_repeated(w: World, askonce: Askonce) -> None:
    say(w, "sms", "li", "Where is my parcel?")
    done = askonce("erase", "phone:li", "--yes")
    assert done.exit_code == 0
    assert "Erased: 1 contacts, 1 addresses, 1 conversations, 1 messages" in done.stdout
    assert "Still in the helpdesk desk, erase it there: ticket T1" in done.stdout
    assert "Erased: 0 contacts" in askonce("erase", "phone:li", "--yes").stdout
