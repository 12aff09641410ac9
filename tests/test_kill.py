"""`kill -9` between any two steps, then a restart with --keep: nothing lost, nothing doubled.

The world kills itself right after the step named; providers and the desk send again what was not
acknowledged, as the real ones do.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.local import simulators
from infra.local.events import FAIL_AT_ENVIRONMENT
from infra.local.people import LI
from tests.local import Local, messages, notes, received

pytestmark = pytest.mark.world

EVERY_PROVIDER = Path(__file__).parents[1] / "examples" / "every-provider.toml"
QUESTION = "请问白茶可以放多久？"
ANSWER = "密封干燥，白茶可以放很多年。"

#: Steps of the story after which the world is killed: each start of it after the next one, named by
#: its event and how often that comes before, counted anew with each start.
KILLS = [
    # The question is stored, found to be new, brought to the desk.
    "accepted:1 resolved:1 queued:1 claimed:1 ticket.opened:1 forwarded:1",
    # The agent's reply is stored; a worker has it, and may have sent it.
    "accepted:2 queued:1 claimed:1",
    "sent:1",  # on WeChat, which cannot tell whether it got it
    "delivered:1",
    # The repeat by email is stored, recognised, brought to the desk, answered.
    "accepted:3 resolved:1",
    "commented:1 forwarded:1",
    "sent:2",
    "delivered:2",
]


#: How often the answer by email may come where it is not once. The desk's worker and the one that
#: delivers run at the same time: a kill in the one may meet the other with a mail half sent.
MAILS = {"sent:2": (2,), "commented:1 forwarded:1": (1, 2)}


class Unbreakable:
    """A world that is started again, with what it kept, whenever it was killed."""

    def __init__(self, folder: Path, kills: str, **environment: str) -> None:
        self._folder = folder
        self._environment = environment
        self._left = kills.split()
        self.world = Local(folder, **self._next())

    def _next(self) -> dict[str, str]:
        """The environment of the next start."""
        kill = {FAIL_AT_ENVIRONMENT: self._left[0]} if self._left else {}
        return self._environment | kill

    @property
    def survived(self) -> bool:
        """Whether it was killed as often as it was to be."""
        return not self._left

    def do(self, act: Callable[[Local], Any]) -> Any:
        """Until it succeeds, on however many worlds it takes."""
        while True:
            try:
                return act(self.world)
            except requests.RequestException:
                assert self.world.died() == -9
                self._left.pop(0)
                self.world = Local(self._folder, "--keep", **self._next())

    def deliver(self, make: Callable[[Local], simulators.Sent]) -> None:
        """One webhook, sent again until it is taken."""
        sent = self.do(make)
        self.do(lambda world: world.post(sent).raise_for_status())

    def wait(self, find: Callable[[dict[str, Any]], Any], what: str) -> Any:
        return self.do(lambda world: world.wait(find, what))


@pytest.mark.parametrize("kills", KILLS)
def test_nothing_is_lost_or_doubled_by_kills_after(kills: str, tmp_path: Path) -> None:
    unbreakable = Unbreakable(tmp_path, kills)
    try:
        play(unbreakable)
        check(unbreakable.world.state(), kills)
    finally:
        unbreakable.world.stop()


def play(unbreakable: Unbreakable) -> None:
    """Asked on WeChat, answered, asked again by email."""
    unbreakable.deliver(lambda w: w.wechat(LI.openid, simulators.wechat_text(QUESTION)))
    ticket = unbreakable.wait(lambda s: s["tickets"] and s["tickets"][0], "the ticket")
    # The desk shows it before we have noted that: what is claimed next is the reply, and no more.
    unbreakable.wait(lambda _: not unbreakable.world.client.waiting(), "the question at its end")

    def reply(world: Local) -> None:
        """An agent looks whether the desk has it before saying it again."""
        if "reply" not in [e["kind"] for e in world.state()["tickets"][0]["entries"]]:
            world.client.agent(ticket["id"], "reply", ANSWER)

    unbreakable.do(reply)
    unbreakable.wait(lambda s: ANSWER in received(s, "wechat") or unsure_notes(s), "the answer")
    unbreakable.deliver(lambda w: w.email(LI.email, QUESTION, message_id="<again@example.com>"))
    unbreakable.wait(
        lambda s: any(ANSWER in t for t in received(s, "email")), "the repeat's answer"
    )
    unbreakable.wait(lambda s: len(messages(s["tickets"][0])) == 2 and notes(s["tickets"][0]), "it")
    unbreakable.wait(lambda _: unbreakable.survived, "the step after which it is killed")
    unbreakable.wait(finished, "the end")
    unbreakable.wait(lambda _: not unbreakable.world.client.waiting(), "everything at its end")


def finished(state: dict[str, Any]) -> bool:
    """Everything that comes in the story has come, however often."""
    (ticket,) = state["tickets"]
    whole = len(messages(ticket)) == 2 and any("Asked again" in n for n in notes(ticket))
    return whole and any(ANSWER in text for text in received(state, "email"))


def unsure_notes(state: dict[str, Any]) -> list[str]:
    return [n for t in state["tickets"] for n in notes(t) if "may or may not have arrived" in n]


def check(state: dict[str, Any], kills: str) -> None:
    """Each message once, in order; each answer once, or an agent who knows that it is unsure."""
    (ticket,) = state["tickets"]
    assert [m["channel"] for m in messages(ticket)] == ["wechat", "email"]
    assert len([e for e in ticket["entries"] if e["kind"] == "reply"]) == 1
    on_wechat = received(state, "wechat").count(ANSWER)
    if kills in ("accepted:2 queued:1 claimed:1", "sent:1"):
        # WeChat cannot tell whether it got a message: never sent twice, and the agent knows.
        assert (on_wechat, len(unsure_notes(state))) == (int(kills == "sent:1"), 1)
    else:
        assert (on_wechat, unsure_notes(state)) == (1, [])
    mails = [x for x in state["lines"] if x["channel"] == "email" and x["direction"] == "in"]
    assert len({mail["message_id"] for mail in mails}) == 1, "mail programs show one of two"
    assert len(mails) in MAILS.get(kills, (1,))


#: Of messages that are fetched: the notice's message is stored, its page is done, it is forwarded.
FETCHING_KILLS = "accepted:2 fetched:1 forwarded:1"


def test_what_is_fetched_arrives_once_whenever_the_fetching_is_killed(tmp_path: Path) -> None:
    unbreakable = Unbreakable(tmp_path, FETCHING_KILLS, ASKONCE_CONFIG=str(EVERY_PROVIDER))

    def ask(world: Local) -> None:
        if not any(line["text"] == QUESTION for line in world.state()["lines"]):
            world.client.say("li", "wecom-kf", QUESTION)

    try:
        unbreakable.do(ask)
        unbreakable.wait(lambda s: s["tickets"] and messages(s["tickets"][0]), "the question")
        unbreakable.wait(lambda _: unbreakable.survived, "the step after which it is killed")
        unbreakable.wait(lambda _: not unbreakable.world.client.waiting(), "everything at its end")
        (ticket,) = unbreakable.do(lambda world: world.state())["tickets"]
        assert [m["text"] for m in messages(ticket)] == [QUESTION]
    finally:
        unbreakable.world.stop()
