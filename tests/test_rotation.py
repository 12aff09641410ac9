"""A secret is rotated while requests come in: none that is rightly signed is refused.

Parameter Store is moto's, the clock is the test's own, and every call to the store is counted.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from pydantic import SecretStr

from chalicelib import aws, log
from chalicelib.errors import ConfigurationError, SignatureError
from chalicelib.pipeline import Pipeline
from chalicelib.ports import WebhookRequest
from chalicelib.settings import (
    SECRETS_LAST_SECONDS,
    SECRETS_MAX_AGE_SECONDS,
    SECRETS_MIN_AGE_SECONDS,
    Deployment,
    Document,
    SecretReader,
)
from chalicelib.store import Store
from connectors.registry import CONNECTORS, HELPDESKS
from connectors.signing import StandardWebhook
from infra.local import simulators
from tests.fakes import Clock, MemoryBucket, MemoryQueue, MemoryTable, NoTokens

URL = "https://askonce.example"
SLOTS = ("/askonce/twilio", "/askonce/twilio-next")
OLD, NEW = "twilio-token-of-last-year", "twilio-token-of-this-year"
ACCOUNT = "AC5ef8732a3c49700934481addd5ce1659"
TWILIO = {"account_sid": ACCOUNT, "number": "+14155550100", "public_url": URL}
DOCUMENT = {
    "public_url": URL,
    "helpdesk": "desk",
    "inboxes": {
        "sms": {
            "connector": "sms_twilio",
            "account_sid": ACCOUNT,
            "auth_token": [f"ssm:{slot}" for slot in SLOTS],
            "number": "+14155550100",
        }
    },
    "helpdesks": {
        "desk": {"connector": "webhook", "url": "https://d.example", "secret": "ssm:/askonce/desk"}
    },
}
DESK_OLD, DESK_NEW = "whsec_" + "a" * 44, "whsec_" + "b" * 44


@dataclass
class Deployed:
    """One container of a deployment, whose secrets lie in Parameter Store."""

    pipeline: Pipeline
    clock: Clock
    #: Calls to Parameter Store so far.
    reads: list[str] = field(default_factory=list)
    #: Raised by the next calls, until it is None again.
    trouble: Exception | None = None
    _number: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def put(self, name: str, value: str) -> None:
        aws.client("ssm").put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)

    def ask(self, token: str) -> bool:
        """A customer's SMS, signed with a token; whether it was taken."""
        with self._lock:
            self._number += 1
            text = f"question {self._number}"
        sent = simulators.twilio(TWILIO | {"token": token}, "+15550001111", text)
        request = WebhookRequest(
            method=sent.method,
            headers={name.lower(): (value,) for name, value in sent.headers.items()},
            query=tuple(sent.query.items()),
            body=sent.body,
            received_at=self.clock.now,
        )
        try:
            return self.pipeline.accept("sms", request).status == 200
        except SignatureError:
            return False

    def later(self, seconds: float) -> None:
        self.clock.forward(seconds=seconds)


@pytest.fixture
def deployed(moto_bucket: str) -> Deployed:
    clock, table = Clock(), MemoryTable()
    deployment = Deployment(
        Document.model_validate(DOCUMENT),
        CONNECTORS,
        HELPDESKS,
        NoTokens(),
        SecretReader({}),
        lambda: clock.now.timestamp(),  # noqa: PLW0108  # as it is by then
    )
    store = Store(table, MemoryBucket(), MemoryQueue(), MemoryQueue(), clock)
    quiet: Callable[..., None] = lambda *_, **__: None  # noqa: E731
    made = Deployed(Pipeline(store, deployment, clock, quiet), clock)
    for slot in SLOTS:
        made.put(slot, OLD)
    made.put("/askonce/desk", DESK_OLD)

    def note(model: Any, **_: Any) -> None:
        if model.name == "GetParameter":
            made.reads.append(model.name)
            if made.trouble:
                raise made.trouble

    aws.client("ssm").meta.events.register("before-call", note)
    return made


def test_a_rotation_by_the_book_refuses_nobody(deployed: Deployed) -> None:
    """Step by step as docs/operating.md has it, with a request every second of half an hour."""
    refused, minute = [], 60

    def load(seconds: int, *tokens: str) -> None:
        for n in range(seconds):
            token = tokens[n % len(tokens)]
            if not deployed.ask(token):
                refused.append((deployed.clock.now, token))
            deployed.later(1)

    load(5 * minute, OLD)
    deployed.put(SLOTS[1], NEW)  # 1. the new one beside the old one
    load(6 * minute, OLD)  # 2. six minutes, and every container has both
    load(10 * minute, OLD, NEW)  # 3. the console is changed: both come for a while
    deployed.put(SLOTS[0], NEW)  # 4. the old one is taken away
    load(9 * minute, NEW)
    assert refused == []
    assert not deployed.ask(OLD)
    seconds = 30 * minute
    assert len(deployed.reads) <= len(SLOTS) * (seconds // SECRETS_MAX_AGE_SECONDS + 1)


def test_a_rotation_in_haste_refuses_nobody(deployed: Deployed) -> None:
    """The console is changed in the same moment: a wrong signature has the secret read again."""
    assert deployed.ask(OLD)
    deployed.later(SECRETS_MIN_AGE_SECONDS)
    deployed.put(SLOTS[1], NEW)
    assert deployed.ask(NEW)
    assert deployed.ask(OLD)


def test_what_is_taken_away_is_refused_within_five_minutes(deployed: Deployed) -> None:
    deployed.put(SLOTS[1], NEW)
    assert (deployed.ask(OLD), deployed.ask(NEW)) == (True, True)
    deployed.put(SLOTS[0], NEW)
    deployed.later(SECRETS_MAX_AGE_SECONDS + 1)
    assert (deployed.ask(OLD), deployed.ask(NEW)) == (False, True)


def test_a_flood_of_wrong_signatures_reads_secrets_once_a_minute(deployed: Deployed) -> None:
    assert deployed.ask(OLD)
    before = len(deployed.reads)
    for _ in range(600):
        assert not deployed.ask("made up")
        deployed.later(1)
    assert len(deployed.reads) - before <= len(SLOTS) * 600 // SECRETS_MIN_AGE_SECONDS


def test_many_at_once_are_all_taken_and_read_a_secret_once(deployed: Deployed) -> None:
    deployed.put(SLOTS[1], NEW)
    taken: list[bool] = []

    def round_of(threads: int) -> None:
        """All at once, half of them signed with either."""
        gate = threading.Barrier(threads)

        def one(token: str) -> None:
            gate.wait()
            taken.append(deployed.ask(token))

        running = [threading.Thread(target=one, args=((OLD, NEW)[n % 2],)) for n in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    round_of(16)
    assert len(deployed.reads) == len(SLOTS), "the first time"
    deployed.later(SECRETS_MAX_AGE_SECONDS + 1)
    round_of(16)
    assert len(deployed.reads) == 2 * len(SLOTS), "and once they are old"
    assert taken == [True] * 32


def test_those_who_come_while_one_reads_go_on_with_what_there_is(deployed: Deployed) -> None:
    """Parameter Store takes its time: it holds up nobody but the one who asks it."""
    assert deployed.ask(OLD)
    deployed.later(SECRETS_MAX_AGE_SECONDS + 1)
    asked, answered = threading.Event(), threading.Event()

    def slowly(**_: Any) -> None:
        asked.set()
        answered.wait(20)

    aws.client("ssm").meta.events.register("before-call", slowly)
    reader = threading.Thread(target=deployed.ask, args=(OLD,))
    reader.start()
    assert asked.wait(20)
    assert deployed.ask(OLD)
    answered.set()
    reader.join()


# When what holds the secrets is in trouble


PASSING = [
    EndpointConnectionError(endpoint_url="https://ssm.example"),
    ClientError({"Error": {"Code": "ThrottlingException"}}, "GetParameter"),
]


@pytest.mark.parametrize("trouble", PASSING, ids=lambda e: type(e).__name__)
def test_an_outage_of_the_store_refuses_nobody_for_an_hour(
    trouble: Exception, deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployed.ask(OLD)
    deployed.trouble = trouble
    before = len(deployed.reads)
    for _ in range(SECRETS_LAST_SECONDS // 10 - 1):
        deployed.later(10)
        assert deployed.ask(OLD)
    tries = (SECRETS_LAST_SECONDS - SECRETS_MAX_AGE_SECONDS) // SECRETS_MIN_AGE_SECONDS
    assert len(deployed.reads) - before <= tries + 1
    assert "secrets.unread" in capsys.readouterr().out
    deployed.later(SECRETS_MIN_AGE_SECONDS)
    with pytest.raises(ConfigurationError, match="cannot be read from ssm:/askonce/twilio"):
        deployed.ask(OLD)
    deployed.trouble = None
    assert deployed.ask(OLD)


def test_a_secret_that_is_gone_is_used_no_longer(deployed: Deployed) -> None:
    """No outage: somebody took it away, perhaps because it leaked."""
    assert deployed.ask(OLD)
    aws.client("ssm").delete_parameter(Name=SLOTS[1])
    deployed.later(SECRETS_MAX_AGE_SECONDS + 1)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="ParameterNotFound"):
            deployed.ask(OLD)


def test_a_stranger_cannot_silence_an_inbox_whose_secret_is_gone_for_a_moment(
    deployed: Deployed,
) -> None:
    assert deployed.ask(OLD)
    deployed.later(SECRETS_MIN_AGE_SECONDS)
    aws.client("ssm").delete_parameter(Name=SLOTS[1])
    assert not deployed.ask("made up")
    assert deployed.ask(OLD)


def test_no_line_of_the_log_holds_a_secret(
    deployed: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "quiet", False)
    deployed.ask(OLD)
    deployed.trouble = PASSING[1]
    deployed.later(SECRETS_MAX_AGE_SECONDS + 1)
    deployed.ask(OLD)
    out = capsys.readouterr().out
    assert '"of":"sms"' in out
    assert OLD not in out


# Helpdesks


def test_a_helpdesks_secret_is_rotated_in_the_same_way(deployed: Deployed) -> None:
    def told(secret: str) -> bool:
        body = b'{"type": "nothing.that.we.know"}'
        signer = StandardWebhook((SecretStr(secret),))
        headers = signer.headers("msg_1", deployed.clock.now, body)
        request = WebhookRequest(
            method="POST",
            headers={name: (value,) for name, value in headers.items()},
            body=body,
            received_at=deployed.clock.now,
        )
        try:
            deployed.pipeline.accept_reply("desk", request)
        except SignatureError:
            return False
        return True

    assert told(DESK_OLD)
    deployed.put("/askonce/desk", DESK_NEW)
    deployed.later(SECRETS_MIN_AGE_SECONDS)
    assert told(DESK_NEW)
    assert not told(DESK_OLD)
