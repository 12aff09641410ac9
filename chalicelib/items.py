"""What lies in the table: the nouns that only the store knows, and where every noun lies.

One table. Each item is a JSON document with a version; a write names the version that it read,
so that of two writers one wins and the other decides again (`ConflictError`).

item          pk                              sk                   found by
message       MSG#<its id's first half>       <its id>             its id; stream; thread, due
address       ADDRESS#<address>               LINK                 the address
contact       CONTACT#<id>                    PROFILE              its id
conversation  CONTACT#<contact>               CONV#<asked>#<id>    the contact: one query; due
home          CONV#<id>                       HOME                 a conversation's id, if it moved
ticket        TICKET#<helpdesk>#<ticket id>   CONV                 the helpdesk's id
reference     REF#<hash of inbox, external>   CONV                 an email's In-Reply-To
feed          FEED#<hash of inbox, address>   <sequence>           a web chat visitor
presence      FEED#<hash of inbox, address>   agent                the same query
recognised    REPEATS#<day>                   <time>#<message>     the day
corrected     CORRECTED#<hash of desk, ext.>  MESSAGE              an agent's correction, again
sent          SENT#<hash of inbox, external>  MESSAGE              a receipt
sending       SENDING#<hash of inbox, addr.>  LEDGER               the address, before sending
opt-out       OPTOUT#<address>                CHOICE               the address, before sending
pieces        PARTS#<hash of inbox, addr, of> PARTS                a piece of the same message; due
errand        ERRAND#<its id's first half>    <its id>             its id; stream, due
desk          DESK#<helpdesk>                 STATE                its name; never expires
cursor        CURSOR#<hash of inbox, source>  CURSOR               a notice
opinion       CONTACT#<contact>               SECOND#<keyed hash>  the contact, and two texts
challenge     CODE#<hash of the address>      CODE                 the address that sends it back
token         TOKEN#<name>                    TOKEN                its name
topic         TOPIC#<id>                      TOPIC                its id; thread, by its day
tally         TOPIC#<id>                      DAY#<day>            with its topic: one query
asker         TOPIC#<id>                      BY#<day>#<keyed hash of the contact>
shelf         SHELF#<keyed hash of 2 words>   SHELF                a question with both words
key           KEY#<name>                      KEY                  its name; never expires
quarantine    QUARANTINE#<id>                 RAW                  its id; thread

Indexes, both sparse and keys only: `due` (due, due_at) holds what must happen by a time, in eight
buckets, since one key takes a thousand writes a second; `thread` (thread, thread_at) holds a
conversation's messages in order. What expires does so by `expires_at`.
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
    Direction,
    Instruction,
    Kind,
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
#: The address of a message that was erased.
_ERASED = "erased:message"
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
    #: A worker began to bring it to the helpdesk, once at least.
    tried: bool = False
    #: The ticket that it opened in the place of one that takes nothing any more.
    opened: Ticket | None = None
    #: Later lines of the same customer that went to the helpdesk with it, in one update.
    joined: tuple[str, ...] | None = None
    #: The message that it went along with, as one of those lines.
    along: str | None = None
    #: An operator has it forwarded once more: perhaps the helpdesk lost it.
    replayed: bool = False
    #: What the agents must hear about it, and have not heard yet.
    untold: str | None = None
    #: What else asks the same: the topic that it was counted under.
    topic_id: str | None = None
    #: It made its topic surge: so many customers had asked the same within an hour.
    surge: int | None = None

    @property
    def erased(self) -> bool:
        """Whether it is the husk of an erased one."""
        return self.message.address == _ERASED

    @property
    def finished(self) -> bool:
        """Nothing is to be done about it now; what is held goes on by the customer's doing."""
        waits = self.step is Step.HELD and not self.sending
        return self.untold is None and (waits or self.step in (Step.DONE, Step.FAILED))


class Husk(Stored):
    """What is left of an erased message for a while, so that a redelivery does not bring it back.

    Read as any message, it is done, and says nothing.
    """

    @classmethod
    def of(cls, stored: Stored) -> "Husk":
        at = stored.message.received_at
        message = Message(
            id=stored.message.id,
            direction=Direction.INBOUND,
            channel=stored.message.channel,
            connector="",
            inbox="",
            external_id="",
            address=_ERASED,
            kind=Kind.UNSUPPORTED,
            sent_at=at,
            received_at=at,
        )
        return cls(message=message, step=Step.DONE)


class Home(Noun):
    """Where a conversation lies that moved with its contact; others lie where they were asked."""

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
    #: The idempotency key under which it was opened; '' where that is not known.
    key: str = ""
    #: When it was last updated by us, where the desk limits that.
    updates: tuple[Moment, ...] = ()


class Reference(Noun):
    """Which conversation a provider's message id belongs to."""

    inbox: str
    external_id: str
    conversation_id: str


class Recognised(Noun):
    """That a message was found to ask again, or would have been in observe mode."""

    message_id: str
    #: Of the conversation that it joined, or would have.
    reference: str
    at: Moment


class Corrected(Noun):
    """Which message an agent's correction was about."""

    helpdesk: str
    external_id: str
    message_id: str


class Sent(Noun):
    """Which of our messages a provider's id belongs to."""

    inbox: str
    external_id: str
    message_id: str


class Errand(Noun):
    """A receipt, a notice or an instruction, and whether it is done."""

    item: Receipt | Notice | Instruction
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


class DeskState(Noun):
    """How a helpdesk is doing."""

    helpdesk: str
    #: Nobody calls it before.
    rests_until: Moment | None = None
    #: How often it failed in a row, since when, and why it did last.
    failures: int = 0
    since: Moment | None = None
    why: str = ""
    #: It does not take our credentials.
    refused: bool = False
    #: Calls left of a minute's, and when that was so.
    left: float | None = None
    counted_at: Moment | None = None

    @property
    def troubled(self) -> bool:
        return self.failures > 0


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


class Founding(Noun):
    """A topic as a shelf names it: by the words that founded it, which never change."""

    topic_id: str
    #: Without numbers and addresses.
    text: str


class Shelf(Noun):
    """The latest topics whose founding words hold the same two rare words."""

    key: str
    topics: tuple[Founding, ...] = ()


class Topic(Noun):
    """A question that customers ask, whoever they are."""

    id: str
    #: The shortest wording of late, without numbers and addresses.
    sample: str
    sampled_at: Moment
    #: The last day on which it was one of those that many ask.
    listed_on: str | None = None
    surged_at: Moment | None = None


class Tally(Noun):
    """A topic's customers of a day. Many writers add to it at once."""

    topic_id: str
    day: str
    #: {ten minutes of the day, as `hhm`: how many customers}
    slots: dict[str, int] = Field(default_factory=dict, exclude=True)


class Asker(Noun):
    """A customer asked about a topic on a day: counted once, however often they ask."""

    topic_id: str
    day: str
    #: A keyed hash of the contact.
    mark: str
    #: The first message that asked.
    message_id: str


class TenantKey(Noun):
    """What this deployment hashes with, so that no hash can be looked up in a list of guesses."""

    name: str
    secret: str


class GivenOpinion(Noun):
    """A second opinion on two texts of a contact: never asked for again while it is kept."""

    contact_id: str
    #: A keyed hash of both texts and of who was asked.
    key: str
    same: bool
    reason: str


class Challenge(Noun):
    """A one-time code that was sent to one address, and must come back from another."""

    answers_from: Address
    claimed: Address
    #: Who asked for it: an operator's name, or `askonce`.
    by: str
    #: The message that carries the code.
    message_id: str
    made_at: Moment
    #: Of the code, under the salt; both empty until the code left.
    salt: str = ""
    digest: str = ""
    until: Moment | None = None
    #: Wrong ones so far.
    tries: int = 0


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


def first_message_id(conversation_id: str) -> str:
    """Of the message that began it: a conversation's id is that of its first message."""
    return "m" + conversation_id[1:]


def began_at(first: Message) -> tuple[str, str] | None:
    """The key of the conversation that a message began, as long as that has not moved."""
    if first.contact_id is None:
        return None
    begun = Home(
        conversation_id="q" + first.id[1:],
        contact_id=first.contact_id,
        asked_at=first.received_at,
    )
    return f"CONTACT#{begun.contact_id}", conversation_sk(begun)


def message_key(message_id: str) -> tuple[str, str]:
    """One party's messages share a key: the stream keeps the order of those, and of no others."""
    return f"MSG#{message_id[:MESSAGE_ID_HALF]}", message_id


def errand_key(errand_id: str) -> tuple[str, str]:
    return f"ERRAND#{errand_id[:MESSAGE_ID_HALF]}", errand_id


def opinion_sk(key: str) -> str:
    """Behind PROFILE, so that no history is read with it."""
    return f"SECOND#{key}"


def topic_pk(topic_id: str) -> str:
    return f"TOPIC#{topic_id}"


def shelf_key(key: str) -> tuple[str, str]:
    return f"SHELF#{key}", "SHELF"


def asker_sk(day: str, mark: str) -> str:
    return f"BY#{day}#{mark}"


def listed_under(day: str) -> str:
    """The thread of the topics that many ask, and that were last listed on a day."""
    return f"TOPICS#{day}"


def is_errand(stored_id: str) -> bool:
    """Whether an id is that of an errand, and not of a message."""
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


def _topic_index(topic: Topic) -> dict[str, str]:
    if not topic.listed_on:
        return {}
    return {"thread": listed_under(topic.listed_on), "thread_at": topic.id}


#: What is kept for less than messages are; None is kept for ever.
KEPT: Mapping[type[Noun], timedelta | None] = {
    TenantKey: None,
    DeskState: None,
    Asker: timedelta(days=31),
    Tally: timedelta(days=31),
    Challenge: timedelta(days=1),
    GivenOpinion: timedelta(days=30),
    # Longer than any provider tries.
    Husk: timedelta(days=30),
}

#: Where a noun lies, and which indexes see it.
PLACES: dict[type[Noun], Callable[[Any], tuple[str, str, dict[str, str]]]] = {
    Stored: lambda s: (*message_key(s.message.id), _message_index(s)),
    Husk: lambda s: (*message_key(s.message.id), {"kind": "message"}),
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
    Recognised: lambda r: (recognised_key(r.at), f"{sortable(r.at)}#{r.message_id}", {}),
    Corrected: lambda c: (f"CORRECTED#{digest(c.helpdesk, c.external_id)}", "MESSAGE", {}),
    Sent: lambda s: (f"SENT#{digest(s.inbox, s.external_id)}", "MESSAGE", {}),
    Errand: lambda e: (*errand_key(e.item.id), _errand_index(e)),
    DeskState: lambda d: (f"DESK#{d.helpdesk}", "STATE", {}),
    Cursor: lambda c: (f"CURSOR#{digest(c.inbox, c.source)}", "CURSOR", {}),
    Collected: lambda c: (
        f"PARTS#{digest(c.inbox, c.address, c.of)}",
        "PARTS",
        _pieces_index(c),
    ),
    GivenOpinion: lambda o: (f"CONTACT#{o.contact_id}", opinion_sk(o.key), {}),
    Challenge: lambda c: (f"CODE#{digest(c.answers_from)}", "CODE", {}),
    SendLedger: lambda w: (f"SENDING#{digest(w.inbox, w.address)}", "LEDGER", {}),
    OptOut: lambda o: (f"OPTOUT#{o.address}", "CHOICE", {}),
    Topic: lambda t: (topic_pk(t.id), "TOPIC", _topic_index(t)),
    Tally: lambda t: (topic_pk(t.topic_id), f"DAY#{t.day}", {}),
    Asker: lambda a: (topic_pk(a.topic_id), asker_sk(a.day, a.mark), {}),
    Shelf: lambda s: (*shelf_key(s.key), {}),
    TenantKey: lambda k: (f"KEY#{k.name}", "KEY", {}),
    Quarantined: lambda q: (
        f"QUARANTINE#{q.id}",
        "RAW",
        {"thread": "QUARANTINE", "thread_at": sortable(q.received_at)},
    ),
}


def recognised_key(at: datetime) -> str:
    return f"REPEATS#{at:%Y-%m-%d}"


def _bucket(identity: str) -> int:
    return sum(identity.encode()) % BUCKETS


def feed_key(inbox: str, address: str) -> str:
    return f"FEED#{digest(inbox, address)}"
