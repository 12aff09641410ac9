"""The system's functions, run one after the other to the end, and what each run took.

AWS is an engine at AWS_ENDPOINT_URL; what stands outside of it (desk, WeChat, Twilio, a mail
server) answers at once on loopback. One event after the other: the same happens every time.
"""

import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import tomli_w
from chalice.local import LambdaContext

import app
from chalicelib import aws, direct, log, metrics, settings
from chalicelib.schema import Ticket
from chalicelib.settings import CONFIG_ENVIRONMENT
from connectors.channels.sms_twilio import signature as twilio_signature
from infra.local import simulators
from infra.local.localise import localised, outside_addresses
from infra.local.providers import MailServer
from infra.local.records import Records
from infra.local.simulators import Sent
from tests.bench_webhooks import ACCOUNT, ORIGIN, SAYING, SECRETS, event
from tests.desk_server import Asked, DeskServer, Said
from tests.metering import Bill, Meter, own_client

ROOT = Path(__file__).resolve().parent.parent
_URL = SECRETS["ASKONCE_PUBLIC_URL"]
#: The end of a line, and what CloudWatch adds to each.
_LINE_BYTES = 1 + 26


# What stands outside


class _Outside:
    """Desk, WeChat and Twilio: each says yes, and gives a new id."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.sms: list[str] = []

    def answer(self, asked: Asked) -> Said:
        number = next(self._numbers)
        if asked.path.endswith("stable_token"):
            return Said(body={"access_token": "t", "expires_in": 7200})
        sid = f"SM{number:032x}"
        if asked.path.endswith("Messages.json"):
            self.sms.append(sid)
        return Said(201, {"id": f"T{number:06}", "sid": sid, "errcode": 0, "status": "queued"})


# Who writes


@dataclass(frozen=True)
class Customer:
    """Somebody who writes on one channel."""

    channel: str
    number: int

    def says(self, text: str, later: float = 0) -> Sent:
        """A new webhook with these words, so many seconds from now: WeChat tells whole ones."""
        return SAYING[self.channel](self.number, text, time.time() + later)


def forged(sent: Sent) -> Sent:
    """The same, with other words than were signed."""
    headers = {**sent.headers}
    if "Authorization" in headers:
        headers["Authorization"] += "x"
    query = sent.query | ({"msg_signature": "0" * 40} if sent.query else {})
    return Sent(sent.method, sent.path, headers, query, sent.body + b" ")


def agent_says(ticket: str, text: str) -> Sent:
    """The desk's webhook for an agent's reply."""
    told = {
        "type": "reply", "ticket": ticket, "id": uuid.uuid4().hex, "text": text, "agent": "Kim",
        "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }  # fmt: skip
    body = json.dumps(told, ensure_ascii=False).encode()
    headers = simulators.standard_webhook(SECRETS["ASKONCE_DESK_SECRET"], body)
    headers["Content-Type"] = "application/json"
    return Sent("POST", "/replies/desk", headers, {}, body)


def twilio_says(sid: str) -> Sent:
    """Twilio's webhook for an SMS of ours that arrived."""
    told = {"MessageSid": sid, "MessageStatus": "delivered", "AccountSid": ACCOUNT}
    path = "/webhooks/sms"
    token = SECRETS["ASKONCE_TWILIO_TOKEN"]
    signed = twilio_signature(token, _URL + path, list(told.items()))
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Twilio-Signature": signed,
    }
    return Sent("POST", path, headers, {}, urlencode(told).encode())


# What runs


@dataclass(frozen=True)
class Invocation:
    """One run of a function for one message."""

    function: str
    bill: Bill
    cpu_ms: float
    #: Calls to desk, provider or mail server.
    outside: int
    #: Of its own lines, metrics included.
    log_bytes: int


@dataclass
class Run:
    """Everything that came of a webhook."""

    invocations: list[Invocation] = field(default_factory=list)
    status: int = 0
    #: What `judge` found, if it was asked.
    outcome: str = ""

    @property
    def bill(self) -> Bill:
        return sum((one.bill for one in self.invocations), Bill())

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(one.function for one in self.invocations)


class Machine:
    """The functions, over an engine; each event reaches its function as soon as there is one."""

    def __init__(self, meter: Meter, outside: _Outside, desk: DeskServer, mails: Records) -> None:
        self._meter = meter
        self._desk = desk
        #: Twilio's ids of what was sent through it.
        self.sms_sent = outside.sms
        self._mails = mails
        self._lines: list[Mapping[str, Any]] = []
        self._queues = {
            app.FORWARD_QUEUE: ("forward", app.forward),
            app.DELIVER_QUEUE: ("deliver", app.deliver),
        }
        self._sqs = own_client("sqs")
        log.listeners.append(self._lines.append)

    def close(self) -> None:
        log.listeners.remove(self._lines.append)

    def run(self, sent: Sent) -> Run:
        """A request, and all that follows, until nothing does."""
        run = Run()
        self._meter.bill()  # what was called for another reason is no part of this
        asked = gateway_event(sent)
        lines = len(self._lines)
        run.status = self._invoke(run, "api_handler", app.app, asked)["statusCode"]
        while self._stream(run) + sum(self._queue(run, name) for name in self._queues):
            pass
        resolved = (line for line in self._lines[lines:] if line["event"] == "resolved")
        run.outcome = next((str(line["outcome"]) for line in resolved), "")
        return run

    def tick(self) -> Run:
        """The minute's schedule, with nothing to do."""
        run = Run()
        self._invoke(run, "tick", app.tick, _SCHEDULED)
        return run

    @property
    def tickets(self) -> list[str]:
        """Ids of those that were opened, oldest first."""
        opened = (line for line in self._lines if line["event"] == "ticket.opened")
        return [str(line["ticket"]) for line in opened]

    @property
    def contact(self) -> str:
        """Whose latest ticket that was."""
        home = app.pipeline().store.ticket_home(Ticket(helpdesk="desk", id=self.tickets[-1]))
        held = app.pipeline().store.conversation(home.noun.conversation_id) if home else None
        if held is None:
            raise RuntimeError("there was no ticket")
        return held.noun.contact_id

    def _stream(self, run: Run) -> int:
        """The event source's filter lets new messages and errands pass, one by one here."""
        kinds = ("message", "errand")
        new = [i for i in self._meter.new_items() if i.get("kind", {}).get("S") in kinds]
        for item in new:
            record = {
                "eventName": "INSERT",
                "eventSource": "aws:dynamodb",
                "dynamodb": {"SequenceNumber": "1", "NewImage": dict(item)},
            }
            answer = self._invoke(run, "on_stored", app.on_stored, {"Records": [record]})
            _demand_success(answer)
        return len(new)

    def _queue(self, run: Run, name: str) -> int:
        url = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        got = self._sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"])
        function, handler = self._queues[name]
        for message in (messages := got.get("Messages", [])):
            record = {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
            }
            _demand_success(self._invoke(run, function, handler, {"Records": [record]}))
            self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def _invoke(self, run: Run, function: str, handler: Any, asked: Any) -> Any:
        before, lines = self._called_outside(), len(self._lines)
        started, counting = time.thread_time(), self._meter.spent
        answer = handler(asked, LambdaContext(function, 512, 29_000))
        cpu = time.thread_time() - started - (self._meter.spent - counting)
        told = self._lines[lines:]
        run.invocations.append(
            Invocation(
                function=function,
                bill=self._meter.bill(),
                cpu_ms=cpu * 1000,
                outside=self._called_outside() - before,
                log_bytes=sum(map(_logged_bytes, told)),
            )
        )
        return answer

    def _called_outside(self) -> int:
        return len(self._desk.asked) + len(self._mails.lines())


_SCHEDULED = {
    "id": "1", "detail-type": "Scheduled Event", "source": "aws.events", "account": "123456789012",
    "time": "2026-09-01T00:00:00Z", "region": "us-east-1", "resources": [], "detail": {},
    "version": "0",
}  # fmt: skip


def gateway_event(sent: Sent) -> dict[str, Any]:
    """What API Gateway makes of a request."""
    asked = event(sent)
    # A time in whole seconds would be written with fewer digits, and weigh less.
    asked["requestContext"]["requestTimeEpoch"] |= 1
    if sent.path.startswith("/replies/"):
        asked["resource"] = asked["requestContext"]["resourcePath"] = "/replies/{helpdesk}"
        asked["pathParameters"] = {"helpdesk": sent.path.split("/")[2]}
    return asked


def _demand_success(answer: Any) -> None:
    if answer["batchItemFailures"]:
        raise RuntimeError(f"a message failed: {answer}")


def _logged_bytes(line: Mapping[str, Any]) -> int:
    """As Lambda writes it, with its metrics; of its own it adds nothing (`LambdaLogLevel`)."""
    whole = {**line, **metrics.embedded(line, app.PREFIX, 1_700_000_000_000)}
    return len(json.dumps(whole, separators=(",", ":")).encode()) + _LINE_BYTES


@contextmanager
def machine(bucket: str) -> Iterator[Machine]:
    """A machine over the engine at AWS_ENDPOINT_URL, with askonce.toml for configuration."""
    with ExitStack() as stack:
        outside, desk, mails = stack.enter_context(deployed(bucket))
        meter = Meter().start()
        stack.callback(meter.stop)
        made = Machine(meter, outside, desk, mails)
        stack.callback(made.close)
        yield made


@contextmanager
def deployed(bucket: str) -> Iterator[tuple[_Outside, DeskServer, Records]]:
    """The app as in a new container, and what stands outside of it."""
    mails = Records(":memory:")
    mail = MailServer(mails)
    outside = _Outside()
    with ExitStack() as stack:
        desk = stack.enter_context(DeskServer(outside))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="askonce-flows-")))
        smtp = f"smtp://127.0.0.1:{mail.start()}"
        stack.callback(mail.stop)
        stack.enter_context(environment(SECRETS | {
            "ASKONCE_SMTP_URL": smtp,
            "ASKONCE_LOCAL_SMTP_URL": smtp,
            "ASKONCE_BUCKET": bucket,
            CONFIG_ENVIRONMENT: str(folder / "askonce.toml"),
        }))  # fmt: skip
        document = settings.read(ROOT / "askonce.toml")
        config = localised(document, _URL, outside_addresses(desk.url))
        config["inboxes"]["webchat"]["origins"] = [ORIGIN]
        # All ask within a minute what in truth comes over the day.
        config["policy"]["trending"]["surge_customers"] = 1_000_000
        (folder / "askonce.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
        stack.enter_context(_fresh())
        yield outside, desk, mails


@contextmanager
def _fresh() -> Iterator[None]:
    """A container that knows nothing yet, and leaves nothing behind; it prints no line."""
    quiet, log.quiet = log.quiet, True
    # An engine's slow answer is not to be counted as two calls.
    seconds, direct.READ_SECONDS = direct.READ_SECONDS, 60.0
    for cached in (app.pipeline, app.queue, aws.client):
        cached.cache_clear()
    try:
        yield
    finally:
        table: Any = app.pipeline().store._table  # nobody closes what stays open between calls
        if table._direct:
            table._direct.close()
        log.quiet, direct.READ_SECONDS = quiet, seconds
        for cached in (app.pipeline, app.queue, aws.client):
            cached.cache_clear()


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """These set; at the end everything as it was before."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
