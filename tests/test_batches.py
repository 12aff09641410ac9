"""Full batches through the real functions: each conversation has its ticket, whole and in order."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from chalice.local import LambdaContext
from moto.core.base_backend import BackendDict

import app
from chalicelib import log
from chalicelib.settings import CONFIG_ENVIRONMENT
from infra.local.aws import ENVIRONMENT, EmbeddedAws
from infra.local.simulators import Sent
from tests import flows
from tests.desk_server import Asked, DeskServer
from tests.flows import Customer, agent_says, gateway_event
from tests.metering import own_client

CUSTOMERS, LINES, REPLIES = 10, 4, 2
FUNCTIONS = {app.FORWARD_QUEUE: app.forward, app.DELIVER_QUEUE: app.deliver}


class Container:
    """The functions in one process, fed from their queues in full batches."""

    def __init__(self, desk: DeskServer) -> None:
        self.desk = desk
        self.lines: list[Mapping[str, Any]] = []
        #: Which threads wrote to the log.
        self.threads: set[int] = set()
        self._sqs = own_client("sqs")

    def hear(self, line: Mapping[str, Any]) -> None:
        self.lines.append(line)
        self.threads.add(threading.get_ident())

    def take(self, sent: Sent) -> None:
        """A request, and the stream behind it: its message is queued."""
        before = len(self.lines)
        answer = app.app(gateway_event(sent), LambdaContext("api_handler", 512, 29_000))
        assert answer["statusCode"] == 200
        accepted = [line for line in self.lines[before:] if line["event"] == "accepted"]
        assert len(accepted) == 1
        app.pipeline().relay(str(accepted[0]["message"]))

    def drain(self, queue: str) -> list[int]:
        """Work the queue off; returns how many conversations each batch held."""
        url, batches = self._sqs.get_queue_url(QueueName=queue)["QueueUrl"], []
        asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "MessageSystemAttributeNames": ["All"]}
        while got := self._sqs.receive_message(**asked).get("Messages", []):
            records = [
                {
                    "messageId": message["MessageId"],
                    "receiptHandle": message["ReceiptHandle"],
                    "body": message["Body"],
                    "attributes": message["Attributes"],
                }
                for message in got
            ]
            told = FUNCTIONS[queue]({"Records": records}, LambdaContext(queue, 512, 60_000))
            assert told == {"batchItemFailures": []}
            for message in got:
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            batches.append(len({r["attributes"]["MessageGroupId"] for r in records}))
        return batches

    def told(self, path: str) -> list[tuple[int, Asked]]:
        """Requests to an address, each with the number that its answer's id has."""
        asked = enumerate(self.desk.asked, 1)
        return [(n, one) for n, one in asked if one.path.endswith(path)]


@pytest.fixture
def container() -> Iterator[Container]:
    BackendDict.reset()
    with flows.environment({}):
        embedded = EmbeddedAws(app.PREFIX, None)
        embedded.start()
        try:
            with flows.deployed(embedded.bucket) as (_, desk, _):
                made = Container(desk)
                log.listeners.append(made.hear)
                yield made
                log.listeners.remove(made.hear)
        finally:
            embedded.stop()


#: Prints of one message, and of two: what was there when their work began.
_BEGINNINGS = """
import sys, threading
from types import SimpleNamespace
import app

class Event:
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)
    def to_dict(self):
        return {"Records": [
            {"messageId": name, "receiptHandle": "", "body": f'{{"message_id": "{name}"}}',
             "attributes": {}}
            for name in names
        ]}

def step(message, lease):
    loaded, alone = "requests" in sys.modules, threading.current_thread().name == "MainThread"
    found.append(f"loaded={loaded} alone={alone}")

for names in ("a", "bc"):
    found = []
    app.work_through(Event(), "q", step)
    print(*found, sep=", ")
"""


def beginnings(folder: Path, setting: str = "") -> list[str]:
    config = folder / "askonce.toml"
    config.write_text(f'public_url = "https://a.example"\nhelpdesk = "desk"\n{setting}\n')
    done = subprocess.run(
        [sys.executable, "-c", _BEGINNINGS],
        env={**os.environ, **ENVIRONMENT, CONFIG_ENVIRONMENT: str(config)},
        capture_output=True,
        text=True,
        check=True,
        cwd=flows.ROOT,
    )
    return done.stdout.splitlines()


def test_before_several_threads_call_one_has_imported_what_calls_take(tmp_path: Path) -> None:
    first, both = beginnings(tmp_path)
    assert first == "loaded=False alone=True"
    assert both == "loaded=True alone=False, loaded=True alone=False"


def test_how_many_are_worked_on_at_once_is_a_setting(tmp_path: Path) -> None:
    _, both = beginnings(tmp_path, "conversations_at_once = 1")
    assert both == "loaded=True alone=True, loaded=True alone=True"


def shuffled(times: int) -> list[tuple[int, int]]:
    """(customer, which of theirs): customers in disorder, what one says in order."""
    chance, left = random.Random(6), dict.fromkeys(range(CUSTOMERS), 0)
    found = []
    while open_ := [customer for customer, said in left.items() if said < times]:
        customer = chance.choice(open_)
        found.append((customer, left[customer]))
        left[customer] += 1
    return found


def words(asked: Asked) -> str:
    return str(asked.json["message"]["text"])


def test_forty_lines_of_ten_customers_and_their_answers_arrive_once_and_in_order(
    container: Container,
) -> None:
    for customer, n in shuffled(LINES):
        container.take(Customer("wechat", customer).says(f"客户{customer}的第{n}句话", later=n))
    container.threads.clear()
    assert max(container.drain(app.FORWARD_QUEUE)) > 1
    assert threading.get_ident() not in container.threads

    opened = {f"T{n:06}": words(asked) for n, asked in container.told("/api/tickets")}
    assert sorted(opened.values()) == [f"客户{c}的第0句话" for c in range(CUSTOMERS)]
    for ticket, first in opened.items():
        added = [words(asked) for _, asked in container.told(f"/{ticket}/comments")]
        assert added == [first.replace("第0句", f"第{n}句") for n in range(1, LINES)]
    assert len(container.told("/comments")) == CUSTOMERS * (LINES - 1)

    tickets = sorted(opened, key=lambda ticket: opened[ticket])
    for customer, n in shuffled(REPLIES):
        container.take(agent_says(tickets[customer], f"给客户{customer}的第{n}个答复"))
    assert max(container.drain(app.DELIVER_QUEUE)) > 1
    heard: dict[str, list[str]] = {}
    for _, asked in container.told("/message/custom/send"):
        heard.setdefault(asked.json["touser"], []).append(asked.json["text"]["content"])
    assert sorted(heard.values()) == [
        [f"给客户{c}的第{n}个答复" for n in range(REPLIES)] for c in range(CUSTOMERS)
    ]
    assert len(container.told("/stable_token")) == 1  # whoever comes first fetches it for all
