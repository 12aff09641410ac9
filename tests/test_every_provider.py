"""Every connector in the local world: a question comes in as its provider posts it, and its answer
reaches the customer through the provider's API.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib import settings
from connectors.registry import CONNECTORS
from infra.local.ways import ways
from tests.local import Local, askonce, local, messages

pytestmark = pytest.mark.world

CONFIG = Path(__file__).parents[1] / "examples" / "every-provider.toml"
INBOXES = settings.read(CONFIG).inboxes
#: Web chat's other side is the widget (tests/test_webchat_browser.py).
POSTING = {name for name, inbox in INBOXES.items() if inbox["connector"] != "webchat"}


def each_inbox(names: Iterable[str]) -> pytest.MarkDecorator:
    """`make connector` finds them by the connector's name, whatever the inbox is called."""
    listed = sorted(names)
    ids = [f"{name}-{INBOXES[name]['connector']}" for name in listed]
    return pytest.mark.parametrize("inbox", listed, ids=ids)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("world"), "--config", str(CONFIG)) as running:
        yield running


@pytest.mark.parametrize("connector", sorted(CONNECTORS))
def test_the_example_has_an_inbox_of_a_connector_and_the_local_world_a_way_to_it(
    connector: str,
) -> None:
    assert connector in {inbox["connector"] for inbox in INBOXES.values()}
    assert connector in ways() or connector == "webchat"


def test_the_example_has_no_faults(world: Local) -> None:
    outside = {"ASKONCE_PUBLIC_URL": "https://askonce.example", "ASKONCE_SMTP_URL": "smtps://mail"}
    checked = askonce("check", "--config", str(CONFIG), **(world.secrets | outside))
    assert (checked.returncode, checked.stderr) == (0, "")


def ticket_with(world: Local, text: str) -> Any:
    def find(state: dict[str, Any]) -> Any:
        return next(
            (t for t in state["tickets"] if any(text in m["text"] for m in messages(t))), None
        )

    return world.wait(find, f"a ticket with {text}")


@each_inbox(POSTING)
def test_a_question_becomes_a_ticket_and_its_answer_comes_back(world: Local, inbox: str) -> None:
    question = f"Which of your teas is best with {inbox} cake?"
    assert world.client.say("mei", inbox, question)["status"] < 300
    ticket = ticket_with(world, question)
    answer = f"Darjeeling goes well with {inbox} cake."
    world.client.agent(ticket["id"], "reply", answer)

    def arrived(state: dict[str, Any]) -> bool:
        return any(answer in x["text"] for x in state["lines"] if x["direction"] == "in")

    world.wait(arrived, f"the answer by {inbox}")


def test_a_provider_that_tells_what_became_of_an_answer_is_heard(world: Local) -> None:
    question = "Which tea keeps longest in a tin?"
    world.client.say("mallory", "sms-twilio", question)
    world.client.agent(ticket_with(world, question)["id"], "reply", "Pu'er does.")
    receipts = (e for e in world.client.events() if e["event"] == "receipt")
    assert next(receipts)["state"] == "delivered"


SMS = sorted(name for name in POSTING if CONNECTORS[INBOXES[name]["connector"]]().channel == "sms")


@each_inbox(SMS)
def test_a_long_chinese_question_arrives_whole(world: Local, inbox: str) -> None:
    question = f"{inbox}：" + "请问这款龙井茶应该怎样保存才不会受潮变味呢？" * 8
    assert world.client.say("li", inbox, question)["status"] < 300
    ticket_with(world, question)
