"""What every test gets: no way to the network, and AWS in process where it asks for it."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib import aws, log
from chalicelib.aws import DynamoTable
from chalicelib.ports import Table
from tests import engines
from tests.fakes import MemoryTable
from tests.racing import Hooked, Interposed

TABLE = "askonce"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that would leave this machine fails its test, even inside `except`."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            pytest.fail(f"a connection to {address[0]} was tried")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is written, whatever a command that ran before in this process said to it."""
    monkeypatch.setattr(log, "quiet", False)


@pytest.fixture(scope="module")
def moto_process() -> Iterator[None]:
    """moto in the place of AWS for a module: it takes moto a while to get there."""
    if engines.URL:
        yield
        return
    from moto import mock_aws

    with mock_aws():
        yield


@pytest.fixture
def moto_bucket(moto_process: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """AWS in process with nothing but the stack of infra/resources.yaml; its bucket's name."""
    if engines.URL:
        yield engines.emptied(TABLE)
        return
    from moto.core.base_backend import BackendDict

    from infra.local.aws import ENVIRONMENT
    from infra.local.resources import create_resources

    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    aws.client.cache_clear()
    BackendDict.reset()
    yield create_resources(TABLE)
    aws.client.cache_clear()


@pytest.fixture
def moto_table(moto_bucket: str) -> DynamoTable:
    """The table of that stack."""
    return DynamoTable(TABLE)


@pytest.fixture(params=engines.KINDS)
def table(request: pytest.FixtureRequest) -> Table:
    """The fake table, then the real one: what a test asserts holds for both."""
    if request.param == "memory":
        return MemoryTable()
    return request.getfixturevalue("moto_table")  # type: ignore[no-any-return]  # pytest's own Any


@pytest.fixture(params=engines.KINDS)
def hooked(request: pytest.FixtureRequest) -> Hooked:
    """The same two, with a hook before each write."""
    if request.param == "memory":
        return MemoryTable()
    request.getfixturevalue("moto_table")
    return Interposed(TABLE)


@pytest.fixture
def mail_bucket() -> Iterator[Any]:
    """S3 with the bucket of SES's mail, and one of somebody else; its client."""
    from tests.ses_inboxes import mail_buckets

    with mail_buckets() as storage:
        yield storage


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sleeps between the tries of one call."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
