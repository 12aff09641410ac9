"""The story through a real Request Tracker, over a network that breaks at random moments."""

import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import tomli_w

from infra.local.request_tracker import RequestTracker, missing
from infra.local.story import AGAIN, ANSWER, IN_ENGLISH, QUESTION, play_in_own_world
from tests.cutting import Cutter
from tests.local import Local, received

pytestmark = [pytest.mark.world, pytest.mark.real]

SECRET = "whsec_" + "c2VjcmV0" * 5
#: Another one breaks the network at other moments.
SEED = 2
SAMPLE = Path(__file__).parents[1] / "askonce.toml"


def two_free_ports() -> int:
    """The first of two free ports in a row: the page's, and the API's."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class Agent:
    """Alice, at work in RT."""

    def __init__(self, rt: RequestTracker) -> None:
        self._url = f"{rt.url}/REST/2.0"
        self._headers = {"Authorization": f"token {rt.tokens['alice']}"}

    def get(self, path: str, **query: str) -> Any:
        answer = requests.get(f"{self._url}{path}", params=query, headers=self._headers, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def reply(self, ticket: str, text: str) -> None:
        requests.post(
            f"{self._url}/ticket/{ticket}/correspond",
            json={"Content": text, "ContentType": "text/plain"},
            headers=self._headers,
            timeout=30,
        ).raise_for_status()

    def tickets(self) -> list[str]:
        return [item["id"] for item in self.get("/tickets", query="id > 0")["items"]]

    def said(self, ticket: str, kind: str) -> list[str]:
        """The texts of a ticket's transactions of one kind, in order."""
        found = self.get(
            "/transactions",
            query=f"ObjectId={ticket} AND ObjectType='RT::Ticket' AND Type='{kind}'",
        )
        return [self._text(item["id"]) for item in found["items"]]

    def _text(self, transaction: str) -> str:
        parts = self.get(f"/transaction/{transaction}/attachments", fields="Content,ContentType")
        return "\n".join(
            part["Content"]
            for part in parts["items"]
            if part.get("ContentType") == "text/plain" and part.get("Content")
        )


def configuration(folder: Path, url: str) -> Path:
    """The sample, with the desk behind the proxy."""
    content = tomllib.loads(SAMPLE.read_text(encoding="utf-8"))
    content["helpdesks"]["desk"] = {
        "connector": "request_tracker",
        "url": url,
        "token": "env:RT_TOKEN_FOR_TESTS",
        "secret": "env:RT_SECRET_FOR_TESTS",
    }
    path = folder / "askonce.toml"
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def rt(tmp_path: Path) -> Iterator[tuple[RequestTracker, int]]:
    if why := missing():
        pytest.skip(why)
    port = two_free_ports()
    hook = f"http://127.0.0.1:{port + 1}/replies/desk"
    with RequestTracker(tmp_path / "rt", hook_url=hook, secret=SECRET) as server:
        yield server, port


def test_a_breaking_network_leaves_one_ticket_each_line_once_and_each_answer_once(
    rt: tuple[RequestTracker, int], tmp_path: Path
) -> None:
    server, port = rt
    agent = Agent(server)
    with Cutter(server.port, seed=SEED) as cutter:
        world = Local(
            tmp_path / "world",
            "--port",
            str(port),
            ASKONCE_CONFIG=str(configuration(tmp_path, cutter.url)),
            RT_TOKEN_FOR_TESTS=server.tokens["askonce"],
            RT_SECRET_FOR_TESTS=SECRET,
        )
        try:
            play(world, agent, cutter)
        finally:
            world.stop()


#: What was cut is tried again after 5, 10, 20 seconds, and after five failures in a row after 30.
LONG_SECONDS = 150.0


def settled(world: Local) -> None:
    world.wait(lambda _: not world.client.waiting(), "everything at its end", LONG_SECONDS)


def play(world: Local, agent: Agent, cutter: Cutter) -> None:
    cutter.allow(3)
    world.client.say("li", "wechat", QUESTION)
    settled(world)
    [ticket] = agent.tickets()
    agent.reply(ticket, ANSWER)
    world.wait(lambda s: received(s, "wechat").count(ANSWER) == 1, "the answer on WeChat")
    cutter.allow(3)
    world.client.say("li", "email", AGAIN, subject="茶叶咨询")
    world.wait(lambda s: any(ANSWER in t for t in received(s, "email")), "the answer by email")
    settled(world)
    cutter.allow(3)
    world.client.say("li", "email", IN_ENGLISH, subject="Tea")
    settled(world)
    assert len([how for how in cutter.went if how]) >= 6
    assert agent.tickets() == [ticket]
    opened = agent.said(ticket, "Create")
    added = [text for text in agent.said(ticket, "Correspond") if ANSWER not in text]
    assert [QUESTION in text for text in opened] == [True]
    assert ["龍井茶要怎麼保存" in added[0], IN_ENGLISH in added[1], len(added)] == [True, True, 2]
    assert received(world.state(), "wechat").count(ANSWER) == 1
    assert len([t for t in received(world.state(), "email") if ANSWER in t]) == 1
    [shown] = world.state()["tickets"]
    assert (shown["helpdesk"], shown["url"].endswith(f"id={ticket}")) == ("desk", True)
    notes = agent.said(ticket, "Comment")
    assert len(notes) == len(set(notes))


def test_the_demo_plays_through_a_real_one() -> None:
    if why := missing():
        pytest.skip(why)
    assert play_in_own_world("request_tracker")
