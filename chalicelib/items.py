"""What lies in the table: the nouns that only the store knows, and where every noun lies.

One table. Each item is a JSON document with a version; a write names the version that it read,
so that of two writers one wins and the other decides again (`ConflictError`).

item          pk                              sk                   found by
message       MSG#<its id's first half>       <its id>             its id; stream; thread, due
address       ADDRESS#<address>               LINK                 the address
contact       CONTACT#<id>                    PROFILE              its id
conversation  CONTACT#<contact>               CONV#<asked>#<id>    the contact: one query; due
home          CONV#<id>                       HOME                 a conversation's id
ticket        TICKET#<helpdesk>#<ticket id>   CONV                 the helpdesk's id
reference     REF#<hash of inbox, external>   CONV                 an email's In-Reply-To
feed          FEED#<hash of inbox, address>   <sequence>           a web chat visitor
presence      FEED#<hash of inbox, address>   agent                the same query
sent          SENT#<hash of inbox, external>  MESSAGE              a receipt
sending       SENDING#<hash of inbox, addr.>  LEDGER               the address, before sending
opt-out       OPTOUT#<address>                CHOICE               the address, before sending
pieces        PARTS#<hash of inbox, addr, of> PARTS                a piece of the same message; due
errand        ERRAND#<its id's first half>    <its id>             its id; stream, due
cursor        CURSOR#<hash of inbox, source>  CURSOR               a notice
token         TOKEN#<name>                    TOKEN                its name
quarantine    QUARANTINE#<id>                 RAW                  its id; thread

Indexes, both sparse and keys only: `due` (due, due_at) holds what must happen by a time, in eight
buckets, since one key takes a thousand writes a second; `thread` (thread, thread_at) holds a
conversation's messages in order. Everything expires by `expires_at`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

from pydantic import Field

from chalicelib.ledgers import OptOut, SendLedger
from chalicelib.ports import Item
from chalicelib.schema import (
    MESSAGE_ID_HALF,
    Address,
    AddressLink,
    Contact,
    Conversation,
    Delivery,
    Message,
    Moment,
    Notice,
    Noun,
    Receipt,
    Ticket,
    digest,
)

N = TypeVar("N", bound=Noun)

STUCK_AFTER = timedelta(minutes=3)
#: How long the pieces of one message may take.
PIECES_WAIT = timedelta(minutes=10)
#: Parts of the index of what is due.
BUCKETS = 8


class Step(StrEnum):
    """How far a message has come."""

    ACCEPTED = "accepted"
    RESOLVED = "resolved"
    #: Waits until the customer writes again: the channel's window is closed.
    HELD = "held"
    DONE = "done"
    FAILED = "failed"


class Stored(Noun):
    """A message with how far it has come."""

    message: Message
    step: Step = Step.ACCEPTED
    #: Until when one worker has it to itself.
    claimed_until: Moment | None = None
    #: A worker began to send it, and has not written how that ended.
    sending: bool = False
    #: By when it should be finished; then the schedule drives it again, ever more rarely.
    due_at: Moment | None = None
    drives: int = 0
    #: What the provider calls the pieces of a message that we sent, in order.
    provider_ids: tuple[str, ...] = ()
    #: What the provider says became of it.
    delivery: Delivery | None = None
    #: Why it failed, in words for an agent.
    failure: str | None = None
    #: What the agents must hear about it, and have not heard yet.
    untold: str | None = None

    @property
    def finished(self) -> bool:
        """Nothing is to be done about it now; what is held goes on by the customer's doing."""
        waits = self.step is Step.HELD and not self.sending
        return self.untold is None and (waits or self.step in (Step.DONE, Step.FAILED))


class Home(Noun):
    """Where a conversation lies: it moves with its contact."""

    conversation_id: str
    contact_id: str
    asked_at: Moment

    @classmethod
    def of(cls, conversation: Conversation) -> "Home":
        return cls(
            conversation_id=conversation.id,
            contact_id=conversation.contact_id,
            asked_at=conversation.asked_at,
        )


class TicketHome(Noun):
    """Which conversation a ticket belongs to."""

    ticket: Ticket
    conversation_id: str


class Reference(Noun):
    """Which conversation a provider's message id belongs to."""

    inbox: str
    external_id: str
    conversation_id: str


class Sent(Noun):
    """Which of our messages a provider's id belongs to."""

    inbox: str
    external_id: str
    message_id: str


class Errand(Noun):
    """A receipt or a notice, and whether it is done."""

    item: Receipt | Notice
    done: bool = False
    due_at: Moment | None = None
    drives: int = 0

    @property
    def finished(self) -> bool:
        return self.done


class Cursor(Noun):
    """How far a source has been read."""

    inbox: str
    source: str
    value: str = ""


class Collected(Noun):
    """The pieces of one long message that came so far."""

    inbox: str
    address: Address
    of: str
    began_at: Moment
    #: number -> message id
    pieces: dict[int, str] = Field(default_factory=dict)
    #: The message was made of them.
    done: bool = False


class Quarantined(Noun):
    """An authentic request that could not be read."""

    id: str
    inbox: str
    reason: str
    received_at: Moment
    method: str
    headers: dict[str, list[str]]
    query: list[tuple[str, str]]
    body: bytes | None = None
    key: str | None = None


@dataclass(frozen=True)
class Held(Generic[N]):
    """A noun as it was read: `version` 0 means that it is new."""

    noun: N
    version: int = 0

    def change(self, **changes: Any) -> "Held[N]":
        """The same with other values, to be committed over the version that was read."""
        return replace(self, noun=self.noun.model_copy(update=changes))


@dataclass(frozen=True)
class History:
    """A contact and its latest conversations, latest first."""

    contact: Held[Contact]
    conversations: Sequence[Held[Conversation]]


# Keys and indexes


def held_as(kind: type[N], item: Item) -> Held[N]:
    return Held(kind.model_validate_json(item.body), item.version)


def sortable(moment: datetime) -> str:
    """Sorts as text in the order of time: always UTC, always microseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def conversation_sk(conversation: Conversation | Home) -> str:
    identity = (
        conversation.id
        if isinstance(conversation, Conversation)
        else (conversation.conversation_id)
    )
    return f"CONV#{sortable(conversation.asked_at)}#{identity}"


def message_key(message_id: str) -> tuple[str, str]:
    """One party's messages share a key: the stream keeps the order of those, and of no others."""
    return f"MSG#{message_id[:MESSAGE_ID_HALF]}", message_id


def errand_key(errand_id: str) -> tuple[str, str]:
    return f"ERRAND#{errand_id[:MESSAGE_ID_HALF]}", errand_id


def is_errand(stored_id: str) -> bool:
    """Whether an id is that of a receipt or a notice, and not of a message."""
    return stored_id.startswith("e")


def new_item(event: str, image: Mapping[str, Any]) -> str | None:
    """The id of the message or errand that a record of the stream says is new; None for others."""
    if event != "INSERT" or image.get("kind", {}).get("S") not in ("message", "errand"):
        return None
    return str(image["sk"]["S"])


def _message_index(stored: Stored) -> dict[str, str]:
    message = stored.message
    index = {"kind": "message"}
    if message.conversation_id:
        index |= {
            "thread": message.conversation_id,
            "thread_at": f"{sortable(message.received_at)}#{message.id}",
        }
    if not stored.finished:
        index |= {
            "due": f"message#{_bucket(message.id)}",
            "due_at": sortable(stored.due_at or message.received_at + STUCK_AFTER),
        }
    return index


def _errand_index(errand: Errand) -> dict[str, str]:
    if errand.done:
        return {"kind": "errand"}
    due_at = errand.due_at or errand.item.received_at + STUCK_AFTER
    due = f"message#{_bucket(errand.item.id)}"
    return {"kind": "errand", "due": due, "due_at": sortable(due_at)}


def _pieces_index(collected: Collected) -> dict[str, str]:
    if collected.done:
        return {}
    due = f"parts#{_bucket(collected.of)}"
    return {"due": due, "due_at": sortable(collected.began_at + PIECES_WAIT)}


def _conversation_index(conversation: Conversation) -> dict[str, str]:
    due_at = conversation.first_reply_due_at
    if not due_at:
        return {}
    return {"due": f"reply#{_bucket(conversation.id)}", "due_at": sortable(due_at)}


#: Where a noun lies, and which indexes see it.
PLACES: dict[type[Noun], Callable[[Any], tuple[str, str, dict[str, str]]]] = {
    Stored: lambda s: (*message_key(s.message.id), _message_index(s)),
    AddressLink: lambda link: (f"ADDRESS#{link.address}", "LINK", {}),
    Contact: lambda c: (f"CONTACT#{c.id}", "PROFILE", {}),
    Conversation: lambda c: (
        f"CONTACT#{c.contact_id}",
        conversation_sk(c),
        _conversation_index(c),
    ),
    Home: lambda h: (f"CONV#{h.conversation_id}", "HOME", {}),
    TicketHome: lambda t: (f"TICKET#{t.ticket.helpdesk}#{t.ticket.id}", "CONV", {}),
    Reference: lambda r: (f"REF#{digest(r.inbox, r.external_id)}", "CONV", {}),
    Sent: lambda s: (f"SENT#{digest(s.inbox, s.external_id)}", "MESSAGE", {}),
    Errand: lambda e: (*errand_key(e.item.id), _errand_index(e)),
    Cursor: lambda c: (f"CURSOR#{digest(c.inbox, c.source)}", "CURSOR", {}),
    Collected: lambda c: (
        f"PARTS#{digest(c.inbox, c.address, c.of)}",
        "PARTS",
        _pieces_index(c),
    ),
    SendLedger: lambda w: (f"SENDING#{digest(w.inbox, w.address)}", "LEDGER", {}),
    OptOut: lambda o: (f"OPTOUT#{o.address}", "CHOICE", {}),
    Quarantined: lambda q: (
        f"QUARANTINE#{q.id}",
        "RAW",
        {"thread": "QUARANTINE", "thread_at": sortable(q.received_at)},
    ),
}


def _bucket(identity: str) -> int:
    return sum(identity.encode()) % BUCKETS


def feed_key(inbox: str, address: str) -> str:
    return f"FEED#{digest(inbox, address)}"
