"""What an operator does when something got stuck: `askonce redrive` and `askonce replay`.

Nothing here sends anything. A message is brought to its queue again, and the steps, which know
what they did, do the rest. So whatever stops half way is simply started again.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalicelib.errors import AskOnceError, ConfigurationError, ConflictError
from chalicelib.forwarding import without_words
from chalicelib.items import STUCK_AFTER, Held, Step, Stored
from chalicelib.pipeline import Pipeline
from chalicelib.schema import Conversation, Direction

Tell = Callable[[str], None]

#: Where dead letters lie: the names of their queues after the deployment's prefix.
DEAD_LETTERS = {
    "forward": "-forward-dead.fifo",
    "deliver": "-deliver-dead.fifo",
    "stream": "-stream-dead",
    "inbound": "-inbound-dead",
}
#: For so long nobody else sees a letter that was taken; long enough for a batch.
_HIDDEN_SECONDS = 120
_BATCH = 10


@dataclass
class Summary:
    """What became of it."""

    driven: int = 0
    #: Nothing was left to do.
    settled: int = 0
    failed: int = 0

    @property
    def words(self) -> str:
        return f"{self.driven} driven again, {self.settled} needed nothing, {self.failed} stay"


@dataclass(frozen=True)
class Letter:
    """One dead letter, as long as nobody else sees it."""

    id: str
    receipt: str
    body: str


class DeadLetters:
    """The dead letters of one kind."""

    def __init__(self, prefix: str, kind: str) -> None:
        self._sqs = _client("sqs")
        self._url = self._sqs.get_queue_url(QueueName=prefix + DEAD_LETTERS[kind])["QueueUrl"]

    def count(self) -> int:
        """How many there are, nearly."""
        name = "ApproximateNumberOfMessages"
        told = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=[name])
        return int(told["Attributes"][name])

    def take(self, limit: int) -> Iterator[Letter]:
        """Each once, those of a conversation in order; hidden from others until deleted or let go.

        The next one of a conversation comes only when the one before was deleted.
        """
        seen: set[str] = set()
        while len(seen) < limit:
            found = self._receive(min(_BATCH, limit - len(seen)))
            fresh = [letter for letter in found if letter.id not in seen]
            if not fresh:
                return
            seen |= {letter.id for letter in fresh}
            yield from fresh

    def _receive(self, most: int) -> list[Letter]:
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            VisibilityTimeout=_HIDDEN_SECONDS,
            WaitTimeSeconds=1,
        )
        return [
            Letter(m["MessageId"], m["ReceiptHandle"], m["Body"])
            for m in answer.get("Messages", [])
        ]

    def delete(self, letter: Letter) -> None:
        self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=letter.receipt)

    def let_go(self, letter: Letter) -> None:
        """As if nobody had taken it."""
        self._sqs.change_message_visibility(
            QueueUrl=self._url, ReceiptHandle=letter.receipt, VisibilityTimeout=0
        )


def _client(service: str) -> Any:
    from chalicelib.aws import client

    return client(service)


# Dead letters


@dataclass(frozen=True)
class Redriver:
    """Brings dead letters back into life, one after the other."""

    pipeline: Pipeline
    prefix: str
    #: Takes an event of the inbound topic: the app's own function.
    take: Callable[[Any], None]
    tell: Tell

    def redrive(self, kind: str, limit: int) -> Summary:
        """Drive each dead letter's message again, then delete the letter.

        Stopped in between, the letter is still there, and its message is driven twice: it is done
        once. A letter that fails stays where it is.
        """
        letters, summary = DeadLetters(self.prefix, kind), Summary()
        for letter in letters.take(limit):
            try:
                self._drive(kind, letter, summary)
            except Exception as error:  # noqa: BLE001  # one letter's fault is not its neighbours'
                summary.failed += 1
                self.tell(f"{kind} {letter.id}: stays, {_why(error)}")
                continue
            letters.delete(letter)
        return summary

    def show(self, kind: str, limit: int) -> int:
        """Tell of each dead letter what it is; returns how many there are, nearly."""
        letters = DeadLetters(self.prefix, kind)
        shown = list(letters.take(limit))
        for letter in shown:
            self.tell(f"{kind} {letter.id}: {self._about(kind, letter)}")
            letters.let_go(letter)
        return max(len(shown), letters.count())

    def _drive(self, kind: str, letter: Letter, summary: Summary) -> None:
        if kind == "inbound":
            self.take(json.loads(letter.body)["requestPayload"])
            summary.driven += 1
            return
        ids = self.unresolved() if kind == "stream" else [_message_of(letter)]
        driven = [self._bring(stored_id, letter.id) for stored_id in ids]
        summary.driven += sum(driven)
        summary.settled += not any(driven)

    def _bring(self, stored_id: str, attempt: str) -> bool:
        """Queue it again, unless nothing is left to do. The queue drops the same attempt twice."""
        held = self.pipeline.store.item(stored_id)
        if held is None or held.noun.finished:
            return False
        self.pipeline.relay(stored_id, attempt=f"-{attempt}")
        return True

    def unresolved(self) -> list[str]:
        """What was stored and then came no further: what the stream's dead letters are about.

        A letter names places in the stream, which forgets after a day; the table has them all.
        """
        store = self.pipeline.store
        found = ((name, store.item(name)) for name in store.unfinished())
        return [name for name, held in found if held and _is_unresolved(held)]

    def _about(self, kind: str, letter: Letter) -> str:
        if kind == "inbound":
            return "an event of the inbound topic"
        if kind == "stream":
            return f"{len(self.unresolved())} messages of the table came no further"
        stored_id = _message_of(letter)
        return f"message {stored_id}, {_state(self.pipeline.store.item(stored_id))}"


def redriven(redriver: Redriver, kind: str, limit: int, *, dry_run: bool) -> tuple[str, int]:
    """What was done about one kind of dead letters, or `rejected`, in a line; how many failed."""
    if kind == "rejected":
        return _redriven_rejected(redriver, limit, dry_run=dry_run)
    if dry_run:
        return f"{kind}: {redriver.show(kind, limit)} dead letters", 0
    done = redriver.redrive(kind, limit)
    return f"{kind}: {done.words}", done.failed


def _redriven_rejected(redriver: Redriver, limit: int, *, dry_run: bool) -> tuple[str, int]:
    found = rejected(redriver.pipeline)[:limit]
    for held in found:
        redriver.tell(shown(held))
    if dry_run:
        return f"rejected: {len(found)} messages", 0
    driven = [drive_rejected(redriver.pipeline, held) for held in found]
    return f"rejected: {sum(driven)} driven again", 0


def _message_of(letter: Letter) -> str:
    return str(json.loads(letter.body)["message_id"])


def _is_unresolved(held: Held[Any]) -> bool:
    return not isinstance(held.noun, Stored) or held.noun.step is Step.ACCEPTED


def _state(held: Held[Any] | None) -> str:
    if held is None:
        return "which is gone"
    if held.noun.finished:
        return "which needs nothing any more"
    return held.noun.step.value if isinstance(held.noun, Stored) else "an errand"


def _why(error: Exception) -> str:
    """Words of ours are for people; of others only the kind: they may quote a customer."""
    return without_words(str(error)) if isinstance(error, AskOnceError) else type(error).__name__


# What a helpdesk rejected


def rejected(pipeline: Pipeline) -> list[Held[Stored]]:
    """What customers said and the helpdesk would not take, oldest first. Reads the table."""
    found = (
        held
        for held in pipeline.store.everything_stored()
        if held.noun.step is Step.FAILED and held.noun.message.direction is Direction.INBOUND
    )
    return sorted(found, key=lambda held: held.noun.message.received_at)


def shown(held: Held[Stored]) -> str:
    """A rejected message, and what the helpdesk said of it."""
    message = held.noun.message
    when = f"{message.received_at:%Y-%m-%d %H:%M}"
    return f"{message.id}  {when}  {message.inbox}  {held.noun.failure or ''}".rstrip()


def drive_rejected(pipeline: Pipeline, held: Held[Stored]) -> bool:
    """Have it forwarded again; False if somebody else does so already."""
    return _forward_again(pipeline, held, "rejected", failure=None)


def _forward_again(pipeline: Pipeline, held: Held[Stored], why: str, **changes: Any) -> bool:
    """Set it back by one step, and queue it; stopped in between, the schedule queues it."""
    now = pipeline.clock()
    back = held.change(
        step=Step.RESOLVED, tried=True, drives=0, due_at=now + STUCK_AFTER, **changes
    )
    try:
        pipeline.store.commit(back)
    except ConflictError:
        return False
    pipeline.store.enqueue(held.noun.message, attempt=f"-{why}-{int(now.timestamp())}")
    return True


# Replay


@dataclass(frozen=True)
class Span:
    """Which messages are meant."""

    inbox: str
    since: datetime
    until: datetime

    def holds(self, stored: Stored) -> bool:
        message = stored.message
        return (
            message.inbox == self.inbox
            and message.direction is Direction.INBOUND
            and self.since <= message.received_at < self.until
        )


@dataclass
class Replayed:
    """What became of a replay."""

    #: Found, of that time and inbox.
    found: int = 0
    again: int = 0
    #: Opened no ticket and joined none: events, pieces of a longer message.
    nothing: int = 0
    #: Still on their way, or just being worked on.
    under_way: int = 0
    #: Their conversation's ticket was merged by agents, or moved to another helpdesk.
    elsewhere: int = 0

    def words(self, *, dry_run: bool) -> str:
        """In one line."""
        return (
            f"{self.found} found: {self.again} {'would be' if dry_run else 'are'} forwarded again, "
            f"{self.under_way} are on their way, {self.nothing} concern no ticket, "
            f"{self.elsewhere} have a ticket that was merged or moved"
        )


def replay(
    pipeline: Pipeline, span: Span, progress: Callable[[int], None], *, dry_run: bool
) -> Replayed:
    """Have messages forwarded again, oldest first: what the helpdesk has is not added twice.

    ConfigurationError for an inbox that is not configured, or a helpdesk that cannot tell what it
    has. Reads the table.
    """
    _demand_safe(pipeline, span.inbox)
    summary, meant = Replayed(), _meant(pipeline, span)
    summary.found = len(meant)
    for n, held in enumerate(meant):
        _replay_one(pipeline, held, summary, dry_run=dry_run)
        progress(n + 1)
    return summary


def _meant(pipeline: Pipeline, span: Span) -> list[Held[Stored]]:
    """Each once, oldest first: a line that went along with another message is that message's."""
    found: dict[str, Held[Stored]] = {}
    for held in pipeline.store.everything_stored():
        if not span.holds(held.noun):
            continue
        carrier = pipeline.store.message(held.noun.along) if held.noun.along else None
        own = carrier or held
        found[own.noun.message.id] = own
    return sorted(found.values(), key=lambda held: held.noun.message.received_at)


def _replay_one(
    pipeline: Pipeline, held: Held[Stored], summary: Replayed, *, dry_run: bool
) -> None:
    message = held.noun.message
    conversation = pipeline.store.conversation(message.conversation_id or "")
    if not held.noun.finished:
        summary.under_way += 1
    elif conversation is None:
        summary.nothing += 1
    elif not _is_where_it_was(pipeline, conversation.noun):
        summary.elsewhere += 1
    elif dry_run or _forward_again(pipeline, held, "replay", replayed=True, failure=None):
        summary.again += 1
    else:
        summary.under_way += 1


def _is_where_it_was(pipeline: Pipeline, conversation: Conversation) -> bool:
    """Elsewhere its earlier messages stand in another form, and would stand there twice."""
    if conversation.ticket is None:
        return True
    home = pipeline.store.ticket_home(conversation.ticket)
    return home is not None and home.noun.key != "" and "-to-" not in home.noun.key


def _demand_safe(pipeline: Pipeline, inbox: str) -> None:
    document = pipeline.deployment.document
    if inbox not in document.inboxes:
        known = ", ".join(document.inboxes)
        raise ConfigurationError(f"there is no inbox {inbox} in askonce.toml: it has {known}")
    helpdesk = pipeline.deployment.helpdesk_of(inbox)
    kind = pipeline.deployment.kind_of_helpdesk(helpdesk)
    if kind is None or kind.capabilities.once == "none":
        raise ConfigurationError(
            f"helpdesk {helpdesk} cannot tell what it has already: whatever is forwarded again "
            "would stand there twice"
        )
