"""The story, played through real webhooks against a running world, and judged by its end.

A customer asks on WeChat; an agent answers there; the customer asks again by email and gets the
answer by email; a stranger who forges the customer's address gets nothing. One ticket.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chalicelib.errors import ConfigurationError
from infra.local.client import Client
from infra.local.request_tracker import RequestTracker, missing
from infra.local.world import RT_FOLDER, Address

QUESTION = "你好，请问龙井茶怎么保存？"
AGAIN = "客服您好：\n\n想請問一下，龍井茶要怎麼保存呢？\n\n謝謝！\n\n發自我的 iPhone"
IN_ENGLISH = "How should I store the Longjing tea at home so that it keeps fresh?"
ANSWER = "密封后放进冰箱冷藏，避光防潮，建议半年内喝完。"
PATIENCE_SECONDS = 20.0
OUTPUT = "output.log"


class StoryError(Exception):
    """The story did not go as it should."""


class Story:
    """Says what happens, with times, and waits for it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._started = time.monotonic()

    def say(self, who: str, what: str, colour: str | None = None) -> None:
        seconds = time.monotonic() - self._started
        click.echo(f"{seconds:6.2f} s  {click.style(f'{who:<10}', fg=colour)} {what}")

    def wait(self, what: str, find: Callable[[dict[str, Any]], Any]) -> Any:
        """What `find` finds in the world's state. StoryError if it never does."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            state = self._client.state()
            if found := find(state):
                return found
            time.sleep(0.05)
        there = f"{len(state['tickets'])} tickets, {len(state['lines'])} lines on phones"
        raise StoryError(f"never happened: {what}; seen: {there}")


def play(address: Address, folder: Path) -> bool:
    """Play it; True if it ended with one ticket, two channels and the answer by email."""
    try:
        tell(address, folder)
    except StoryError as error:
        click.echo(click.style(str(error), fg="red"), err=True)
        return False
    return True


def tell(address: Address, folder: Path) -> None:
    """The same. StoryError if it ended otherwise."""
    client = Client(address)
    story = Story(client)

    def answer(ticket: dict[str, Any]) -> None:
        if "helpdesk" in ticket:
            RequestTracker(folder / RT_FOLDER).reply(ticket["id"], ANSWER)
        else:
            client.agent(ticket["id"], "reply", ANSWER)

    _play(story, client, answer)
    click.echo(click.style("\nOne question, one ticket, two channels, one answer.", fg="green"))


def _play(story: Story, client: Client, answer: Callable[[dict[str, Any]], None]) -> None:
    before = {t["id"] for t in client.state()["tickets"]}
    story.say("Li", f"asks on WeChat: {QUESTION}", "cyan")
    client.say("li", "wechat", QUESTION)
    ticket = story.wait("the question becomes a ticket", lambda s: _new_ticket(s, before))
    story.say("AskOnce", f"verified, decrypted, stored, acknowledged; ticket {ticket['id']}")
    story.say("Kim", f"answers in the helpdesk: {ANSWER}", "yellow")
    answer(ticket)
    story.wait("the answer arrives on WeChat", lambda s: _received(s, "wechat", ANSWER))
    story.say("Li", "reads the answer on WeChat", "cyan")
    story.say("Li", f"asks again, by email: {AGAIN.splitlines()[2]}", "cyan")
    client.say("li", "email", AGAIN, subject="茶叶咨询")
    mail = story.wait("the answer arrives by email", lambda s: _received(s, "email", ANSWER))
    story.say("Li", f"gets the earlier answer by email: {mail['subject']}", "cyan")
    joined = story.wait("the repeat joins the ticket", lambda s: _joined(s, ticket["id"], "repeat"))
    story.say("AskOnce", f"ticket {ticket['id']}: {joined['verdict']['reason']}")
    story.say("Li", f"asks once more, in English: {IN_ENGLISH}", "cyan")
    client.say("li", "email", IN_ENGLISH, subject="Tea")
    related = story.wait(
        "the question in other words joins the ticket",
        lambda s: _joined(s, ticket["id"], "related"),
    )
    why = related["verdict"]
    story.say("AskOnce", f"ticket {ticket['id']}: {why['reason']}: {', '.join(why['evidence'])}")
    known = {t["id"] for t in client.state()["tickets"]}
    story.say("Mallory", f"asks the same by email, forging Li's address: {QUESTION}", "red")
    client.say("mallory", "email", QUESTION, subject="茶叶咨询")
    strange = story.wait("the stranger gets a ticket of their own", lambda s: _new_ticket(s, known))
    story.say("AskOnce", f"DMARC failed: ticket {strange['id']}, nothing disclosed")
    _demand_right_end(client.state(), before, ticket["id"], strange["id"])


def _new_ticket(state: dict[str, Any], before: set[str]) -> Any:
    return next((t for t in state["tickets"] if t["id"] not in before and t["entries"]), None)


def _received(state: dict[str, Any], channel: str, text: str) -> Any:
    wanted = (channel, "in")
    lines = (line for line in state["lines"] if (line["channel"], line["direction"]) == wanted)
    return next((line for line in lines if text in line["text"]), None)


def _joined(state: dict[str, Any], ticket_id: str, outcome: str) -> Any:
    ticket = next(t for t in state["tickets"] if t["id"] == ticket_id)
    messages = (e for e in ticket["entries"] if e["kind"] not in ("note", "reply"))
    return next((m for m in messages if m["verdict"]["outcome"] == outcome), None)


def _demand_right_end(
    state: dict[str, Any], before: set[str], ticket_id: str, strange_id: str
) -> None:
    """StoryError unless everything is there once."""
    ours = {t["id"]: t for t in state["tickets"] if t["id"] not in before}
    if set(ours) != {ticket_id, strange_id}:
        raise StoryError(f"there are other tickets than two: {sorted(ours)}")
    said = [e for e in ours[ticket_id]["entries"] if e["kind"] not in ("note", "reply")]
    if [e["channel"] for e in said] != ["wechat", "email", "email"]:
        raise StoryError("the ticket does not hold what was asked, on two channels")
    answers = [
        line for line in state["lines"] if line["direction"] == "in" and ANSWER in line["text"]
    ]
    if [line["channel"] for line in answers] != ["wechat", "email"]:
        raise StoryError("the answer did not arrive exactly once on each of two channels")


def play_in_own_world(helpdesk: str = "sandbox") -> bool:
    """Start a world on free ports, play, stop it. ConfigurationError if the helpdesk is missing."""
    if helpdesk == "request_tracker" and (why := missing()):
        raise ConfigurationError(why)
    with tempfile.TemporaryDirectory(prefix="askonce-") as folder:
        world = start_world(Path(folder), "--helpdesk", helpdesk)
        try:
            return play(Address.read(Path(folder)), Path(folder))
        finally:
            stop_world(world)


def start_world(folder: Path, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
    """A world in a process of its own, up and listening. StoryError if it does not come up.

    What it prints goes to `output.log` in its folder: a pipe that nobody reads would fill.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / OUTPUT
    with output.open("wb") as written:
        world = subprocess.Popen(  # noqa: S603  # our own command line
            [
                sys.executable,
                "-m",
                "infra.cli",
                "dev",
                *(() if "--port" in options else ("--free-ports",)),
                "--folder",
                str(folder),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            env={"PYTHONFAULTHANDLER": "1", **os.environ, **environment},
            start_new_session=True,
        )
    while world.poll() is None:
        if b"\nTry: " in output.read_bytes():
            return world
        time.sleep(0.05)
    raise StoryError("the world did not start:\n" + output.read_text("utf-8", "replace"))


def stop_world(world: "subprocess.Popen[bytes]") -> None:
    """As Ctrl-C does; by force if it does not listen: then its output ends with where it hung."""
    world.send_signal(signal.SIGINT)
    try:
        world.wait(timeout=15)
    except subprocess.TimeoutExpired:
        world.send_signal(signal.SIGABRT)
        world.wait()
