"""What the core asks of the outside: connectors, helpdesks, and the three AWS services it uses.

A connector or helpdesk is one file of translation. It raises the errors that its method names,
knows neither store nor web framework, and reads no clock: times come with the request. Several
threads may call one at once.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from chalicelib.errors import NotFoundError, SignatureError
from chalicelib.schema import (
    Attachment,
    Channel,
    Conversation,
    Correction,
    Kind,
    Message,
    Notice,
    Question,
    Receipt,
    Reply,
    TicketChange,
)


@dataclass(frozen=True, kw_only=True)
class WebhookRequest:
    """An HTTP request as it arrived: every value of a repeated header or parameter, raw bytes."""

    method: str
    #: Lower-case names.
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Decoded, in the order received where the gateway keeps it.
    query: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    received_at: datetime
    #: The address that the request came from, for rate limits; never logged.
    source_ip: str = ""
    #: What follows the inbox in the address: the secret of a provider that signs nothing.
    path_secret: str = ""
    #: The ARN of the AWS service that handed us this as an event: nothing over HTTP can set it.
    event_source: str = ""
    #: The gateway's own id of the request: what the log calls a request that has no message yet.
    id: str = ""

    def header(self, name: str) -> str:
        """The one value of a header, or ''. SignatureError when it is repeated."""
        return _single(self.headers.get(name, ()), f"header {name}")

    def param(self, name: str) -> str:
        """The one value of a query parameter, or ''. SignatureError when it is repeated."""
        return _single([v for k, v in self.query if k == name], f"parameter {name}")


def _single(values: Sequence[str], what: str) -> str:
    if len(values) > 1:  # which of them was signed cannot be known
        raise SignatureError(f"{what} is repeated")
    return values[0] if values else ""


@dataclass(frozen=True, kw_only=True)
class WebhookResponse:
    """What the caller gets. An empty body is sent as such."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


class PluginSettings(BaseModel):
    """Base of a connector's or helpdesk's settings. Secrets are SecretStr, by reference only."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def url_names(model: type[PluginSettings]) -> list[str]:
    """The settings that are addresses: those called `url`, or that end in `_url`."""
    return [name for name in model.model_fields if name == "url" or name.endswith("_url")]


def urls_of(settings: PluginSettings) -> list[str]:
    """The addresses among settings."""
    named = [getattr(settings, name) for name in url_names(type(settings))]
    plain = (v.get_secret_value() if hasattr(v, "get_secret_value") else v for v in named)
    return [str(value) for value in plain if value]


@dataclass(frozen=True, kw_only=True)
class SendWindow:
    """What a customer's act allows us: so many messages, for so long."""

    seconds: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a connector can do; printed by `askonce connectors`, and asked before acting."""

    kinds_in: frozenset[Kind]
    kinds_out: frozenset[Kind]
    #: Until how long after arrival the HTTP response may carry an answer; None where it cannot.
    answers_within_seconds: float | None = None
    #: The longest answer, in UTF-8, that the response may carry; longer ones go out by `send`.
    answers_within_bytes: int | None = None
    #: Sending a message again, after a try whose end we don't know, reaches the customer once.
    resends_safely: bool = False
    #: Messages name the messages that they answer.
    threads: bool = False
    #: What verified evidence its webhooks can give.
    evidence: tuple[str, ...] = ()
    #: What opens a window for sending: `message` (anything but an event), or an event's name. A
    #: channel that names none may be written to at any time. Acts of one name don't add up: the
    #: latest counts.
    windows: Mapping[str, SendWindow] = field(default_factory=dict)
    #: Its webhooks tell what became of what we sent.
    receipts: bool = False
    #: Customers opt out by a word, and must not be written to after that.
    opt_out: bool = False
    #: It shows a message's choices as buttons or links; elsewhere the text names a word to reply.
    choices: bool = False


class TokenCache(Protocol):
    """Access tokens shared by all workers."""

    def get(self, name: str, fetch: Callable[[], tuple[str, float]], *, stale: str = "") -> str:
        """A token that is valid now and is not `stale`.

        `fetch` gets a new one and its life in seconds; one worker calls it, the others wait.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class InboxContext:
    """What an inbox's connector knows of its surroundings."""

    name: str
    #: The address that the provider calls, and signs where it signs addresses.
    public_url: str
    tokens: TokenCache


class Connector(ABC):
    """One provider of one channel: its webhooks become Messages, our Messages its API calls."""

    name: ClassVar[str]
    channel: ClassVar[Channel]
    settings_model: ClassVar[type[PluginSettings]]
    capabilities: ClassVar[Capabilities]
    #: Refused with 413 before anything else looks at it.
    max_body_bytes: ClassVar[int] = 64 * 1024
    #: Its address ends in a secret, since the provider signs nothing: /webhooks/<inbox>/<secret>.
    secret_in_path: ClassVar[bool] = False

    def __init__(self, settings: PluginSettings, context: InboxContext) -> None:
        self.settings = settings
        self.context = context

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        """Answer a set-up probe; None for everything else. SignatureError."""
        return None

    @abstractmethod
    def verify(self, request: WebhookRequest) -> None:
        """Return if the provider sent exactly this, lately. SignatureError, and nothing else."""

    @abstractmethod
    def parse(self, request: WebhookRequest) -> Sequence[Message | Receipt | Notice]:
        """What a verified request says; empty if that is nothing. PayloadError, nothing else.

        Pure: no clock, no network, and the same messages each time.
        """

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """What the provider wants to hear, with `answer` in it where capabilities allow that."""
        return WebhookResponse()

    def pieces(self, message: Message) -> Sequence[Message]:
        """An outbound message as the several that the channel wants it to be, each sent once."""
        return (message,)

    @abstractmethod
    def send(self, message: Message) -> str:
        """Send; return the provider's id. RetryableError or RejectedError, nothing else."""

    def fetch(self, attachment: Attachment) -> bytes:
        """The bytes behind `attachment.source`. RetryableError or RejectedError, nothing else."""
        raise NotImplementedError(f"{self.name} sends its files inline")

    def endpoints(self) -> Sequence[str]:
        """Where it sends: addresses that `askonce check --stage` tries to reach."""
        return urls_of(self.settings)

    def response_headers(self, request: WebhookRequest) -> Mapping[str, str]:
        """Headers that every answer to this request needs, refusals too (CORS)."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """One page of what a provider had for us."""

    found: Sequence[Message | Receipt]
    #: Where the next page begins; saved only once all of `found` is stored.
    cursor: str
    more: bool


class FetchingConnector(Connector):
    """A channel whose webhook only says that there is something: a `Notice`."""

    @abstractmethod
    def fetch_messages(self, notice: Notice, cursor: str, received_at: datetime) -> Fetched:
        """The page after `cursor` ('' is the beginning). RetryableError, RejectedError."""


@dataclass(frozen=True, kw_only=True)
class FeedEntry:
    """One line of a hosted conversation as the customer sees it; `seq` counts from 1, gap-free."""

    seq: int
    message: Message


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What the agents do at this moment, beside the feed: forgotten soon, never a message."""

    #: For how long still an agent counts as typing.
    typing_seconds: float = 0.0
    #: Up to when an agent has read.
    read_at: datetime | None = None
    #: Another text whenever there is something new in it.
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How often a party may ask: as many at once as in a minute; this call counts `cost` times."""

    party: str
    per_minute: int
    cost: int = 1


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that a customer may put into the bucket."""

    key: str
    media_type: str
    max_bytes: int
    #: For how long the permission holds.
    seconds: int


@dataclass(frozen=True, kw_only=True)
class UploadForm:
    """Where a browser posts a file, and the signed fields that go before it."""

    url: str
    fields: Mapping[str, str]


class HostedConnector(Connector):
    """A channel whose conversation we serve ourselves: the customer reads it from us.

    A message's files lie in the bucket already, each under the key that is its `source`.
    """

    @abstractmethod
    def page(self, name: str, request: WebhookRequest) -> WebhookResponse:
        """A page of the channel's own, such as its script. 404 for a name it does not know."""

    @abstractmethod
    def reader(self, request: WebhookRequest) -> str:
        """The address whose conversation this request may read. SignatureError."""

    @abstractmethod
    def transcript(
        self, entries: Sequence[FeedEntry], after: int, presence: Presence
    ) -> WebhookResponse:
        """The entries, where to read on, and what the agents are doing."""

    def allowances(self, call: str, request: WebhookRequest) -> Iterable[Allowance]:
        """Whose quota a call takes from, one after the other. SignatureError."""
        return ()

    def upload(self, request: WebhookRequest) -> Upload:
        """The file that a request wants to upload. WebhookError if it may not."""
        raise NotFoundError(f"{self.name} takes no uploads")

    def offer(self, upload: Upload, form: UploadForm) -> WebhookResponse:
        """How to upload it."""
        raise NotFoundError(f"{self.name} takes no uploads")

    def signal(self, request: WebhookRequest) -> Mapping[str, str | int]:
        """What the customer does right now: `kind`, and more of it. WebhookError."""
        raise NotFoundError(f"{self.name} knows no signals")


class Signal(BaseModel):
    """What an agent does on a ticket right now: shown to the customer where we host the channel."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    ticket_id: str
    kind: Literal["typing", "read"]


@dataclass(frozen=True, kw_only=True)
class DeskCapabilities:
    """What a helpdesk can do; printed by `askonce helpdesks`, and asked before acting."""

    #: What a customer writes later stands on the ticket as the customer's own words; else as ours,
    #: with the name in front.
    as_customer: bool
    #: How the same call has one effect: by a key that the desk honours, or because we look for it;
    #: `none`: what was said may stand there twice after a lost answer, which beats not at all.
    once: Literal["key", "look_up", "none"]
    #: How its webhooks prove where they come from.
    webhooks: Literal["signed", "secret_address"]
    #: Files that customers send, and that agents send, travel.
    files_in: bool = False
    files_out: bool = False
    #: A ticket is opened again by what a customer writes, and shows how urgent it is.
    status: bool = False
    priority: bool = False
    #: Channel and category show as tags or fields.
    tags: bool = False
    #: A merge that agents make there is followed.
    merges: bool = False
    #: What is wrong can be corrected there: by a note that says so, by a tag.
    corrections: bool = False
    #: So many updates of one ticket in so many seconds: a busy chat's lines are joined.
    updates: tuple[int, int] | None = None
    #: Calls in a minute, until the desk's own headers say otherwise; None where it has no limit.
    calls_per_minute: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a desk said of its rate limit with an answer."""

    #: Calls left, and in how many seconds they are counted anew.
    remaining: int
    resets_in_seconds: float


class _Talk(threading.local):
    """How a desk is talked with, in one thread."""

    pace: Pace | None = None
    calls = 0


#: What a desk tells us.
FromDesk = Reply | TicketChange | Signal | Correction


class Helpdesk(ABC):
    """Where agents work: it takes our Messages and gives back Replies.

    Every call carries an idempotency key that is the same however often the step runs. `again`
    says that an earlier try may have taken effect: a desk that honours no key looks for it first.

    What a call raises: RetryableError; ConfigurationError where the desk refuses our credentials;
    GoneError for a ticket that takes nothing any more; RejectedError for what it will never take.
    """

    name: ClassVar[str]
    settings_model: ClassVar[type[PluginSettings]]
    capabilities: ClassVar[DeskCapabilities]
    max_body_bytes: ClassVar[int] = 1024 * 1024
    #: Its address ends in a secret, since the desk signs nothing: /replies/<helpdesk>/<secret>.
    secret_in_path: ClassVar[bool] = False

    def __init__(self, settings: PluginSettings, name: str) -> None:
        self.settings = settings
        #: The configured name: the URL segment of `/replies/{name}`.
        self.configured_name = name
        #: Of each thread its own: a worker counts the calls that it made itself.
        self._talk = _Talk()

    @property
    def pace(self) -> Pace | None:
        """What the desk said last of its rate limit."""
        return self._talk.pace

    @pace.setter
    def pace(self, pace: Pace | None) -> None:
        self._talk.pace = pace

    @property
    def calls(self) -> int:
        """How many calls were made in all."""
        return self._talk.calls

    @calls.setter
    def calls(self, calls: int) -> None:
        self._talk.calls = calls

    @abstractmethod
    def open_ticket(
        self,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> str:
        """Open a ticket with the first message; return its id."""

    @abstractmethod
    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        """Add what the customer said, as the customer where the desk can; it is open after that."""

    @abstractmethod
    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool = False,
    ) -> None:
        """Add a remark that only agents see."""

    @abstractmethod
    def verify(self, request: WebhookRequest) -> None:
        """Return if the helpdesk sent exactly this, lately. SignatureError, and nothing else."""

    @abstractmethod
    def parse(self, request: WebhookRequest) -> Sequence[FromDesk]:
        """Public replies, state changes, signals, corrections; [] for notes and our own words.

        PayloadError, and nothing else.
        """

    def acknowledge(self) -> WebhookResponse:
        """What the helpdesk wants to hear."""
        return WebhookResponse()

    def fetch(self, attachment: Attachment) -> bytes:
        """The bytes behind an agent's file. RetryableError, RejectedError."""
        raise NotImplementedError(f"{self.name} sends no files")

    def endpoints(self) -> Sequence[str]:
        """What it calls: addresses that `askonce check --stage` tries to reach."""
        return urls_of(self.settings)

    def url_of(self, ticket_id: str) -> str:
        """Where agents see the ticket; '' where that is not known."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Polled:
    """One page of what happened in a helpdesk."""

    found: Sequence[FromDesk]
    #: Where the next page begins; saved only once all of `found` is stored.
    cursor: str
    more: bool


class PollingHelpdesk(Helpdesk):
    """A desk whose webhooks can get lost: it is asked, too, what happened."""

    #: How often.
    poll_minutes: ClassVar[int] = 2

    @abstractmethod
    def poll(self, cursor: str, now: datetime) -> Polled:
        """What happened after `cursor` ('' is now), with the same ids as webhooks give it."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """How an earlier question compares with a new text."""

    #: 0 to 1, vetoes left out.
    score: float
    #: What both say, in words that an agent reads: `order number SF1234`, `parcel / 快递`.
    agreed: tuple[str, ...] = ()
    #: Why they do not ask the same, however alike they are; None if nothing speaks against it.
    veto: str | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a scorer found, and how its scores are to be read."""

    #: One for each question, in their order.
    matches: Sequence[Match]
    #: Which scorer it was.
    scorer: str
    #: From here on a message belongs to the earlier question's ticket.
    join_threshold: float
    #: From here on, with no veto, it is the same question.
    answer_threshold: float
    #: What agents should know about how it was found: that the usual scorer did not answer.
    remark: str = ""


class Scorer(ABC):
    """Tells how alike questions are."""

    #: With the version of what `prepare` returns: another name means preparing again.
    name: str

    @abstractmethod
    def prepare(self, text: str) -> str:
        """What is kept with a question, so that comparing with it is quick. RetryableError."""

    @abstractmethod
    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        """How each question compares with a text. RetryableError when it cannot tell now.

        A question carries what `prepare` made of it under `question.prepared[name]`, or nothing.
        """


class Opinion(BaseModel):
    """A second opinion on two texts."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    same: bool
    #: In words that an agent reads.
    reason: str


class Adviser(ABC):
    """Gives second opinions."""

    #: Another name means asking again: it holds the model and the version of the question put.
    name: str

    @abstractmethod
    def ask(self, text: str, earlier: str) -> Opinion:
        """Whether a text asks the same as an earlier one.

        RetryableError if it cannot tell now, RejectedError if it cannot tell about these two.
        """


class Table(Protocol):
    """Versioned documents by two keys: DynamoDB, or a fake in memory."""

    def get(self, pk: str, sk: str) -> "Item | None":
        """The item as it is now (strongly consistent), expired ones left out."""
        ...

    def get_all(
        self, keys: "Sequence[tuple[str, str]]", *, consistent: bool = True
    ) -> "list[Item]":
        """Those of up to a hundred items that are there, in any order: one request.

        What was written within the last second may be missing, unless it is to be `consistent`.
        """
        ...

    def query(
        self, pk: str, low: str, high: str, *, newest_first: bool = False, limit: int = 100
    ) -> "list[Item]":
        """Items of one pk with low <= sk <= high."""
        ...

    def due(self, bucket: str, until: str, limit: int = 100) -> dict[tuple[str, str], str]:
        """{key: when it is due}, in order, of one bucket up to a time. May lag."""
        ...

    def thread(self, name: str, limit: int = 500) -> list[tuple[str, str]]:
        """Keys in the index of threads, in order. May lag."""
        ...

    def scan(self, *prefixes: str) -> "Iterator[list[Item]]":
        """All items whose pk begins so, by pages, in no order; a page may be empty. May lag.

        Reads the whole table: for commands that an operator runs, never for a message.
        """
        ...

    def write(self, *writes: "Write") -> None:
        """All of them or none. ConflictError if one's expectation does not hold.

        A lost answer that the SDK retried counts as written: the writer's token tells.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Item:
    """A document in the table."""

    pk: str
    sk: str
    #: JSON text.
    body: str
    #: Counts writes; 0 means not stored yet.
    version: int = 0
    #: What the stream's filter and the indexes see: `kind`, `due`, `due_at`, `thread`, `thread_at`.
    index: Mapping[str, str] = field(default_factory=dict)
    #: Epoch seconds after which the item is gone.
    expires_at: int | None = None
    #: Numbers that are only ever added to (`Write.add`), by name.
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Write:
    """Put an item, or delete it, if its stored version is still `item.version`."""

    item: Item
    delete: bool = False
    #: Add to the item's `counts` instead, whatever its version; made if it is not there.
    add: Mapping[str, int] = field(default_factory=dict)


class Queue(Protocol):
    """A FIFO queue."""

    def send(self, body: str, *, group: str, deduplication_id: str) -> None:
        """Append to a group; a repeated deduplication id within five minutes is dropped."""
        ...


class Bucket(Protocol):
    """Bytes too long for the table."""

    def put(self, key: str, content: bytes, media_type: str) -> None:
        """Write; writing the same again is harmless."""
        ...

    def get(self, key: str) -> bytes:
        """Read. NotFoundError."""
        ...

    def delete(self, key: str) -> None:
        """Remove; removing what is not there is harmless."""
        ...

    def link(self, key: str, name: str, seconds: int) -> str:
        """A signed address for reading it, valid that long."""
        ...

    def form(self, upload: Upload) -> UploadForm:
        """What a browser needs to write just this file, of this type and no longer than allowed."""
        ...
