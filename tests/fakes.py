"""Fakes that implement the core's ports in memory, and can be told to fail."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from chalicelib.errors import (
    ConflictError,
    NotFoundError,
    PayloadError,
    RejectedError,
    SignatureError,
)
from chalicelib.items import Stored
from chalicelib.pipeline import Pipeline
from chalicelib.ports import (
    Adviser,
    Allowance,
    Capabilities,
    Comparison,
    Connector,
    DeskCapabilities,
    FeedEntry,
    Fetched,
    FetchingConnector,
    FromDesk,
    Helpdesk,
    HostedConnector,
    Item,
    Match,
    Opinion,
    PluginSettings,
    Polled,
    PollingHelpdesk,
    Presence,
    Scorer,
    SendWindow,
    Signal,
    Upload,
    UploadForm,
    WebhookRequest,
    WebhookResponse,
    Write,
)
from chalicelib.schema import (
    Attachment,
    Channel,
    Consent,
    Conversation,
    Correction,
    Direction,
    Event,
    Evidence,
    Kind,
    Level,
    Message,
    Notice,
    Part,
    Question,
    Receipt,
    Reply,
    TicketChange,
    errand_id,
    message_id,
)
from chalicelib.settings import Deployment, Document
from chalicelib.store import Store

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **parts: float) -> None:
        self.now += timedelta(**parts)


class MemoryTable:
    """A table of versioned documents, with the limits of the real one that matter here."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.calls = 0
        #: Called with the writes before they take effect; may raise, or write by itself.
        self.before_write: Callable[[Sequence[Write]], None] | None = None
        #: New items, in order: what a stream would carry.
        self.stream: list[Item] = []
        self._lock = threading.RLock()

    def get(self, pk: str, sk: str) -> Item | None:
        self.calls += 1
        _demand_key(pk, sk)
        return self.items.get((pk, sk))

    def get_all(self, keys: Sequence[tuple[str, str]], *, consistent: bool = True) -> list[Item]:
        self.calls += 1
        assert len(set(keys)) == len(keys) <= 100, "DynamoDB refuses the batch"
        return [self.items[key] for key in keys if key in self.items]

    def query(
        self, pk: str, low: str, high: str, *, newest_first: bool = False, limit: int = 100
    ) -> list[Item]:
        self.calls += 1
        _demand_key(pk, low)
        found = sorted(sk for own, sk in self.items if own == pk and low <= sk <= high)
        if newest_first:
            found.reverse()
        return [self.items[pk, sk] for sk in found[:limit]]

    def due(self, bucket: str, until: str, limit: int = 100) -> dict[tuple[str, str], str]:
        keys = self._index("due", "due_at", bucket, until, limit)
        return {key: self.items[key].index["due_at"] for key in keys}

    def thread(self, name: str, limit: int = 500) -> list[tuple[str, str]]:
        return self._index("thread", "thread_at", name, "~", limit)

    def scan(self, *prefixes: str) -> Iterator[list[Item]]:
        self.calls += 1
        yield [item for (pk, _), item in list(self.items.items()) if pk.startswith(prefixes)]

    def _index(
        self, key: str, order: str, name: str, until: str, limit: int
    ) -> list[tuple[str, str]]:
        self.calls += 1
        found = [i for i in self.items.values() if i.index.get(key) == name]
        found = [i for i in found if i.index[order] <= until]
        found.sort(key=lambda i: i.index[order])
        return [(i.pk, i.sk) for i in found[:limit]]

    def write(self, *writes: Write) -> None:
        self.calls += 1
        if hook := self.before_write:
            hook(writes)
        with self._lock:
            keys = [(w.item.pk, w.item.sk) for w in writes]
            assert len(set(keys)) == len(keys), "DynamoDB refuses two writes of one item"
            assert len(writes) <= 100, "DynamoDB takes 100 writes in a transaction"
            for write in writes:
                _demand_key(write.item.pk, write.item.sk)
                stored = self.items.get((write.item.pk, write.item.sk))
                if write.add:
                    continue
                if (stored.version if stored else 0) != write.item.version:
                    raise ConflictError("written by somebody else", existing=stored)
            for write in writes:
                self._apply(write)

    def interrupt(self, number: int, act: Callable[[], object]) -> None:
        """Run an act just before the write of that number from now on takes effect."""
        writes: list[Sequence[Write]] = []

        def hook(wanted: Sequence[Write]) -> None:
            writes.append(wanted)
            if len(writes) == number:
                self.before_write = None
                act()

        self.before_write = hook

    def _apply(self, write: Write) -> None:
        key = (write.item.pk, write.item.sk)
        if write.delete:
            del self.items[key]
            return
        if write.add:
            self._add(write)
            return
        written = replace(write.item, version=write.item.version + 1)
        self.items[key] = written
        if not write.item.version:
            self.stream.append(written)

    def _add(self, write: Write) -> None:
        key = (write.item.pk, write.item.sk)
        before = self.items.get(key, replace(write.item, version=0))
        counts = dict(before.counts)
        for name, more in write.add.items():
            counts[name] = counts.get(name, 0) + more
        self.items[key] = replace(write.item, version=before.version + 1, counts=counts)


def _demand_key(pk: str, sk: str) -> None:
    assert pk, "DynamoDB refuses empty keys"
    assert sk, "DynamoDB refuses empty keys"


class MemoryQueue:
    """A FIFO queue that drops repeated deduplication ids, as SQS does for five minutes."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, str]] = []
        self._seen: set[str] = set()
        self.fails = False

    def send(self, body: str, *, group: str, deduplication_id: str) -> None:
        if self.fails:
            raise OSError("the queue is out of reach")
        assert len(group) <= 128
        assert len(deduplication_id) <= 128
        if deduplication_id not in self._seen:
            self._seen.add(deduplication_id)
            self.waiting.append((group, json.loads(body)["message_id"]))

    def forget(self) -> None:
        """As a new queue is: empty, and having seen nothing."""
        self.waiting.clear()
        self._seen.clear()

    def take(self) -> list[str]:
        """Every waiting message id, in order; the queue is empty then."""
        taken, self.waiting = [message for _, message in self.waiting], []
        return taken


class MemoryBucket:
    """A bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, content: bytes, media_type: str) -> None:
        self.objects[key] = content

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotFoundError("the bucket does not have it")
        return self.objects[key]

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def form(self, upload: Upload) -> UploadForm:
        return UploadForm(url="https://bucket.example", fields={"key": upload.key})

    def link(self, key: str, name: str, seconds: int) -> str:
        return f"https://bucket.example/{key}?for={seconds}"


class FakeSettings(PluginSettings):
    """One secret, as the smallest real connector has."""

    secret: SecretStr = SecretStr("right")


class FakeChannel(Connector):
    """A provider whose webhook is our own JSON: {from, text, id, ...}, signed by a header."""

    name = "fake"
    channel = Channel.SMS
    settings_model = FakeSettings
    capabilities = Capabilities(
        kinds_in=frozenset(Kind), kinds_out=frozenset({Kind.TEXT}), evidence=("sms",)
    )
    prefix = "phone"
    sent: list[Message]
    #: Raised by the next sends, one each; None lets one through.
    failures: list[Exception | None]
    #: What can be fetched by its `source`.
    files: dict[str, bytes | Exception]

    def __init__(self, settings: PluginSettings, context: Any) -> None:
        super().__init__(settings, context)
        self.sent = []
        self.failures = []
        self.files = {}

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        return WebhookResponse(body=request.param("probe")) if request.method == "GET" else None

    def verify(self, request: WebhookRequest) -> None:
        if request.header("signature") != "right":
            raise SignatureError("wrong")

    def parse(self, request: WebhookRequest) -> Sequence[Message | Receipt | Notice]:
        try:
            lines = json.loads(request.body)
        except ValueError as error:
            raise PayloadError("no JSON") from error
        return [self._item(line, request) for line in lines]

    def _item(self, line: Mapping[str, Any], request: WebhookRequest) -> Message | Receipt | Notice:
        own: dict[str, Any] = {"inbox": self.context.name, "received_at": request.received_at}
        if "state" in line:
            name = errand_id(self.context.name, line["external_id"], line["state"])
            return Receipt(id=name, **own, **line)
        if "source" in line:
            name = errand_id(self.context.name, line["source"], line.get("token", ""))
            return Notice(id=name, **own, **line)
        return self._message(line, request)

    def _message(self, line: Mapping[str, Any], request: WebhookRequest) -> Message:
        address = f"{self.prefix}:{line['from']}"
        own = Evidence(
            address=address, level=Level(line.get("level", "verified")), source=self.channel.value
        )
        others = [Evidence(**e) for e in line.get("evidence", ())]
        return Message(
            id=message_id(self.context.name, address, line["id"]),
            direction=Direction.INBOUND,
            channel=self.channel,
            connector=self.name,
            inbox=self.context.name,
            external_id=line["id"],
            address=address,
            account="us",
            evidence=(own, *others),
            kind=Kind(line.get("kind", "text")),
            text=line.get("text", ""),
            subject=line.get("subject", ""),
            references=tuple(line.get("references", ())),
            attachments=tuple(Attachment(**a) for a in line.get("attachments", ())),
            automatic=line.get("automatic", False),
            event=Event(**line["event"]) if "event" in line else None,
            consent=Consent(**line["consent"]) if "consent" in line else None,
            part=Part(**line["part"]) if "part" in line else None,
            sent_at=request.received_at,
            received_at=request.received_at,
        )

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        return WebhookResponse(body=answer.text if answer else "ok")

    def pieces(self, message: Message) -> Sequence[Message]:
        """One a line, where the channel has receipts: those of others are sent whole."""
        if not self.capabilities.receipts:
            return (message,)
        return [message.model_copy(update={"text": line}) for line in message.text.split("\n")]

    def send(self, message: Message) -> str:
        failure = self.failures.pop(0) if self.failures else None
        if failure:
            raise failure
        self.sent.append(message)
        return f"provider-{message.id}"

    def fetch(self, attachment: Attachment) -> bytes:
        found = self.files[attachment.source or ""]
        if isinstance(found, Exception):
            raise found
        return found


class FakeEmail(FakeChannel):
    """A channel that threads, and may be sent to twice."""

    name = "fake_email"
    channel = Channel.EMAIL
    prefix = "email"
    capabilities = replace(
        FakeChannel.capabilities, threads=True, resends_safely=True, kinds_out=frozenset(Kind)
    )


class FakeWeChat(FakeChannel):
    """A channel that answers in the response."""

    name = "fake_wechat"
    channel = Channel.WECHAT
    prefix = "wechat"
    capabilities = replace(
        FakeChannel.capabilities, answers_within_seconds=4.8, answers_within_bytes=2048
    )


class FakeOfficial(FakeChannel):
    """A channel with windows, that tells what became of what we sent."""

    name = "fake_official"
    channel = Channel.WECHAT
    prefix = "wechat"
    capabilities = replace(
        FakeChannel.capabilities,
        windows={
            "message": SendWindow(seconds=48 * 3600, count=2),
            "click": SendWindow(seconds=60, count=1),
        },
        receipts=True,
    )


class FakeFetching(FakeChannel, FetchingConnector):
    """A channel whose webhook only says that there is something."""

    name = "fake_fetching"
    channel = Channel.WECHAT
    prefix = "kf"

    def __init__(self, settings: PluginSettings, context: Any) -> None:
        super().__init__(settings, context)
        #: (source, cursor) -> lines of that page and the cursor after it; '' when it is the last.
        self.held: dict[tuple[str, str], tuple[list[Any], str]] = {}
        self.asked: list[tuple[str, str, str]] = []

    def fetch_messages(self, notice: Notice, cursor: str, received_at: datetime) -> Fetched:
        self.asked.append((notice.source, cursor, notice.token))
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        lines, after = self.held.get((notice.source, cursor), ([], cursor))
        request = WebhookRequest(method="POST", received_at=received_at)
        found = [
            item for line in lines if not isinstance(item := self._item(line, request), Notice)
        ]
        return Fetched(found=found, cursor=after, more=(notice.source, after) in self.held)


class FakeChat(FakeChannel, HostedConnector):
    """A channel that we host."""

    name = "fake_chat"
    channel = Channel.WEBCHAT
    prefix = "webchat"
    capabilities = replace(
        FakeChannel.capabilities, answers_within_seconds=15.0, resends_safely=True
    )

    def page(self, name: str, request: WebhookRequest) -> WebhookResponse:
        return WebhookResponse(body=name)

    def reader(self, request: WebhookRequest) -> str:
        return request.header("reader")

    def transcript(
        self, entries: Sequence[FeedEntry], after: int, presence: Presence
    ) -> WebhookResponse:
        lines = [f"{e.seq} {e.message.text}" for e in entries]
        lines += ["typing"] if presence.typing_seconds else []
        return WebhookResponse(body="\n".join(lines), headers={"mark": presence.mark})

    def allowances(self, call: str, request: WebhookRequest) -> Iterable[Allowance]:
        return [Allowance(party=request.source_ip, per_minute=60)] if request.source_ip else []

    def upload(self, request: WebhookRequest) -> Upload:
        key = f"uploads/{self.reader(request)}"
        return Upload(key=key, media_type="image/png", max_bytes=9, seconds=60)

    def offer(self, upload: Upload, form: UploadForm) -> WebhookResponse:
        return WebhookResponse(body=form.url)

    def signal(self, request: WebhookRequest) -> Mapping[str, str | int]:
        return {"kind": "read", "seq": 3}


@dataclass
class Call:
    """What the helpdesk was asked to do."""

    what: str
    key: str
    ticket: str
    text: str
    attachments: tuple[Attachment, ...] = ()


class FakeDesk(Helpdesk):
    """A helpdesk that acts once per idempotency key, and can be told to fail."""

    name = "fake_desk"
    settings_model = FakeSettings
    capabilities = DeskCapabilities(as_customer=True, once="key", webhooks="signed")

    def __init__(self, settings: PluginSettings, name: str) -> None:
        super().__init__(settings, name)
        self.effects: dict[str, Call] = {}
        #: Raised by the next calls, one each, before (or, in `late_failures`, after) the effect.
        self.failures: list[Exception | None] = []
        self.late_failures: list[Exception | None] = []
        self.tries = 0
        #: Whether each try was told that an earlier one may have taken effect.
        self.again: list[bool] = []

    @property
    def said(self) -> list[tuple[str, str]]:
        """(ticket, text) of what customers said, in order."""
        return [(c.ticket, c.text) for c in self.effects.values() if c.what != "note"]

    @property
    def notes(self) -> list[str]:
        return [c.text for c in self.effects.values() if c.what == "note"]

    def open_ticket(
        self,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> str:
        self.again.append(again)
        opened = sum(call.what == "open" for call in self.effects.values())
        call = Call("open", idempotency_key, f"T{opened + 1}", message.text, message.attachments)
        return self._once(call).ticket

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        self.again.append(again)
        comment = Call("comment", idempotency_key, ticket_id, message.text, message.attachments)
        self._once(comment)

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        self._once(Call("note", idempotency_key, ticket_id, text))

    def _once(self, call: Call) -> Call:
        self.tries += 1
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        done = self.effects.setdefault(call.key, call)
        if self.late_failures and (failure := self.late_failures.pop(0)):
            raise failure
        return done

    def verify(self, request: WebhookRequest) -> None:
        if request.header("signature") != "right":
            raise SignatureError("wrong")

    def parse(self, request: WebhookRequest) -> Sequence[FromDesk]:
        try:
            event = json.loads(request.body)
        except ValueError as error:
            raise PayloadError("no JSON") from error
        if event.get("kind") in ("not_a_repeat", "same_person", "different_person"):
            return [Correction(**event, at=request.received_at)]
        if "kind" in event:
            return [Signal(**event)]
        if "state" in event:
            return [TicketChange(**event, at=request.received_at)]
        return [Reply(**event, sent_at=request.received_at)]


class FakeScorer(Scorer):
    """Alike is what it was told means the same; it can be told to fail."""

    name = "fake-1"

    def __init__(self, score: float = 0.9, meanings: Mapping[str, str] | None = None) -> None:
        self.score = score
        #: {text: what it means}
        self.meanings = meanings or {}
        #: Raised by the next calls, one each; `always` by all of them.
        self.failures: list[Exception] = []
        self.always: Exception | None = None
        self.compared: list[str] = []
        self.prepared: list[str] = []

    def prepare(self, text: str) -> str:
        self._fail()
        self.prepared.append(text)
        return self._meaning(text)

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        self._fail()
        self.compared.append(text)
        own = self._meaning(text)
        kept = [q.prepared.get(self.name) or self._meaning(q.text) for q in questions]
        return Comparison(
            matches=[Match(score=self.score if one == own else 0.0) for one in kept],
            scorer=self.name,
            join_threshold=0.5,
            answer_threshold=0.8,
        )

    def _meaning(self, text: str) -> str:
        return self.meanings.get(text, text)

    def _fail(self) -> None:
        if failure := self.failures.pop(0) if self.failures else self.always:
            raise failure


class FakeAdviser(Adviser):
    """Is of one opinion; it can be told to fail."""

    name = "fake-adviser-1"

    def __init__(self, *, same: bool = True) -> None:
        self.same = same
        self.failures: list[Exception] = []
        self.asked: list[tuple[str, str]] = []

    def ask(self, text: str, earlier: str) -> Opinion:
        self.asked.append((text, earlier))
        if self.failures:
            raise self.failures.pop(0)
        return Opinion(same=self.same, reason="Both want to know the same.")


class NoTokens:
    """Fetches every time."""

    def get(self, name: str, fetch: Callable[[], tuple[str, float]], *, stale: str = "") -> str:
        return fetch()[0]


@dataclass
class World:
    """A pipeline over fakes, and hands to drive it with."""

    pipeline: Pipeline
    table: MemoryTable
    bucket: MemoryBucket
    forward_queue: MemoryQueue
    deliver_queue: MemoryQueue
    clock: Clock
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _numbers: int = 0
    _relayed: int = 0

    @property
    def desk(self) -> FakeDesk:
        desk = self.pipeline.deployment.helpdesk("desk")
        assert isinstance(desk, FakeDesk)
        return desk

    def channel(self, inbox: str) -> FakeChannel:
        connector = self.pipeline.deployment.inbox(inbox)
        assert isinstance(connector, FakeChannel)
        return connector

    def say(self, inbox: str, sender: str, text: str, **more: Any) -> WebhookResponse:
        """A customer's message, accepted and not yet brought any further."""
        self._numbers += 1
        line = {"from": sender, "text": text, "id": f"id-{self._numbers}", **more}
        return self.pipeline.accept(inbox, self.request([line]))

    def post(self, inbox: str, *lines: Mapping[str, Any]) -> WebhookResponse:
        """Whatever else a provider's webhook says, accepted and not yet brought any further."""
        return self.pipeline.accept(inbox, self.request(list(lines)))

    def reply(self, ticket: str, text: str, external_id: str = "") -> WebhookResponse:
        """An agent's answer, accepted and not yet brought any further."""
        self._numbers += 1
        event = {
            "ticket_id": ticket,
            "external_id": external_id or f"reply-{self._numbers}",
            "text": text,
            "author": "Kim",
        }
        return self.pipeline.accept_reply("desk", self.request(event))

    def request(self, body: Any, signature: str = "right") -> WebhookRequest:
        return WebhookRequest(
            method="POST",
            headers={"signature": (signature,)},
            body=json.dumps(body).encode(),
            received_at=self.clock.now,
        )

    def sent(self, inbox: str) -> list[str]:
        """What customers got by a channel's own means, in order."""
        return [message.text for message in self.channel(inbox).sent]

    def stored(self, message_id: str) -> Stored:
        """A message and how far it has come."""
        held = self.pipeline.store.message(message_id)
        assert held is not None
        return held.noun

    def messages(self) -> list[Stored]:
        """Every message, in the order of its storing."""
        found = (i.sk for i in self.table.stream if i.index.get("kind") == "message")
        return [self.stored(name) for name in found]

    def configure(self, **changes: Any) -> None:
        """Deploy anew, with some of askonce.toml changed."""
        before = self.pipeline.deployment.document.model_dump(exclude_unset=True)
        changed = Document.model_validate(before | changes)
        deployment = Deployment(changed, CONNECTORS, HELPDESKS, NoTokens())
        self.pipeline = replace(self.pipeline, deployment=deployment)

    def read_stream_again(self) -> None:
        """From its beginning, as a reader does that lost its place."""
        self._relayed = 0

    def settle(self) -> None:
        """Everything that the stream and the queues carry, until nothing moves any more."""
        while self._relayed < len(self.table.stream) or self._queued():
            for item in self.table.stream[self._relayed :]:
                self._relayed += 1
                if item.index.get("kind") in ("message", "errand"):
                    self.pipeline.relay(item.sk)
            for message in self.forward_queue.take():
                self.pipeline.forward(message)
            for message in self.deliver_queue.take():
                self.pipeline.deliver(message)

    def _queued(self) -> bool:
        return bool(self.forward_queue.waiting or self.deliver_queue.waiting)

    def names(self) -> list[str]:
        """The events so far, by name."""
        return [name for name, _ in self.events]


CONNECTORS: dict[str, Callable[[], type[Connector]]] = {
    kind.name: (lambda kind=kind: kind)  # type: ignore[misc]  # a default argument binds the loop's class
    for kind in (FakeChannel, FakeEmail, FakeWeChat, FakeOfficial, FakeFetching, FakeChat)
}


class FakeAskedDesk(FakeDesk, PollingHelpdesk):
    """The same, and it is asked what happened: `happened` is what it says, two things a page."""

    name = "fake_asked_desk"

    def __init__(self, settings: PluginSettings, name: str) -> None:
        super().__init__(settings, name)
        self.happened: list[FromDesk] = []

    def fetch(self, attachment: Attachment) -> bytes:
        if attachment.source == "gone":
            raise RejectedError("HTTP 404 from the desk")
        return f"bytes of {attachment.source}".encode()

    def poll(self, cursor: str, now: datetime) -> Polled:
        if not cursor:
            return Polled(found=(), cursor=str(len(self.happened)), more=False)
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        at = int(cursor)
        page = self.happened[at : at + 2]
        cursor = str(at + len(page))
        return Polled(found=page, cursor=cursor, more=at + 2 < len(self.happened))


HELPDESKS: dict[str, Callable[[], type[Helpdesk]]] = {
    "fake_desk": lambda: FakeDesk,
    "fake_asked_desk": lambda: FakeAskedDesk,
}


def document(**policy: Any) -> Document:
    """A configuration of one inbox a channel, and one helpdesk."""
    return Document.model_validate(
        {
            "public_url": "https://askonce.example",
            "helpdesk": "desk",
            "inboxes": {
                "sms": {"connector": "fake"},
                "email": {"connector": "fake_email"},
                "wechat": {"connector": "fake_wechat"},
                "chat": {"connector": "fake_chat"},
                "official": {"connector": "fake_official"},
                "fetching": {"connector": "fake_fetching"},
            },
            "helpdesks": {"desk": {"connector": "fake_desk"}},
            "policy": policy,
        }
    )


def world(table: Any = None, **policy: Any) -> World:
    """A fresh one; `policy` as in askonce.toml."""
    clock = Clock()
    made = table or MemoryTable()
    bucket, forward, deliver = MemoryBucket(), MemoryQueue(), MemoryQueue()
    events: list[tuple[str, dict[str, Any]]] = []
    configured = document(**policy)
    pipeline = Pipeline(
        store=Store(made, bucket, forward, deliver, clock),
        deployment=Deployment(configured, CONNECTORS, HELPDESKS, NoTokens()),
        clock=clock,
        report=lambda name, **fields: events.append((name, fields)),
        pause=lambda seconds: clock.forward(seconds=seconds),
    )
    return World(pipeline, made, bucket, forward, deliver, clock, events)


def crash_at(event: str) -> Callable[..., None]:
    """A `report` that pulls the plug at an event."""

    def report(name: str, **_: Any) -> None:
        if name == event:
            raise SystemExit(event)

    return report
