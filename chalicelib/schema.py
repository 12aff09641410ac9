"""The nouns, version 1: what every connector makes, and every helpdesk gets.

Written as pydantic models, published as JSON Schema by `askonce schema`. Rules of the version:
fields are only ever added, and readers ignore fields that they do not know, so that an older
reader takes a newer message. `tests/samples/schema` holds a golden sample of each kind.

Normal forms: times are aware UTC; email addresses are lower-case; phone numbers are E.164;
sizes are bytes; coordinates are degrees; durations carry their unit in the name.
"""

import hashlib
from base64 import b32encode
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1


def digest(*parts: str) -> str:
    """Thirteen characters that these parts always have: safe in URLs, queues and keys."""
    told_apart = "".join(f"{len(part)}:{part}" for part in parts)
    hashed = hashlib.sha256(told_apart.encode("utf-8", "surrogatepass")).digest()
    return b32encode(hashed[:8]).decode("ascii").rstrip("=").lower()


def message_id(place: str, party: str, *own: str) -> str:
    """The id that a message always has, so that a redelivery finds it by key; nothing personal.

    Inbound: inbox, address, the provider's id. Outbound: helpdesk, conversation, the helpdesk's
    id. Its first half is that of all messages of the party: what lies under one key stays in order
    on its way through the table's stream.
    """
    return "m" + digest(place, party) + digest(*own)


MESSAGE_ID_HALF = len("m") + 13


def errand_id(inbox: str, source: str, *own: str) -> str:
    """The id of what is no message, but work, as a receipt: its first half is its source's."""
    return "e" + digest(inbox, source) + digest(*own)


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # the year 1 somewhere east of Greenwich
        raise ValueError("the time is out of range") from None


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]

#: `channel:rest`, for example `email:li@example.com`, `phone:+8613800138000`,
#: `wechat:<appid>:<openid>`, `webchat:<visitor>`; `external:<your own customer id>` as evidence.
Address = Annotated[
    str, Field(pattern=r"^[a-z_]+:\S.*$", max_length=512, examples=["email:li@example.com"])
]


class Noun(BaseModel):
    """Frozen, and tolerant of fields that a later version added.

    The string below a field is its documentation, and `json_schema` reads it from there: letting
    pydantic do so would parse this file at every cold start. Validators are built on first use.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        ser_json_bytes="base64",
        val_json_bytes="base64",
        defer_build=True,
    )


class Channel(StrEnum):
    """The medium."""

    WECHAT = "wechat"
    EMAIL = "email"
    SMS = "sms"
    WEBCHAT = "webchat"


class Direction(StrEnum):
    """Seen from us: `inbound` was said by the customer, `outbound` by an agent or by AskOnce."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Kind(StrEnum):
    """What a message mainly is. One that we do not know is `unsupported`, with `raw` kept."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"
    LOCATION = "location"
    LINK = "link"
    EVENT = "event"
    UNSUPPORTED = "unsupported"


class Level(StrEnum):
    """How sure we are: only `verified` links addresses and lets answers travel."""

    VERIFIED = "verified"
    CLAIMED = "claimed"


class Evidence(Noun):
    """A reason to believe that whoever wrote owns an address."""

    address: Address
    """Whose ownership is in question; the sender's own address or another one of the person."""
    level: Level
    """`verified` or `claimed`."""
    source: str
    """What says so: `dmarc`, `sms`, `wechat`, `signed_identity`, `operator`, `from_header` ..."""


class Attachment(Noun):
    """A file that came with a message: by reference, never inline in the published form."""

    name: str = ""
    """File name without any path; empty where the provider gives none."""
    media_type: str = "application/octet-stream"
    """MIME type as the provider states it, lower-case."""
    size_bytes: int | None = None
    """Size in bytes; null until the bytes were fetched and the provider does not say."""
    sha256: str | None = None
    """Hex digest of the bytes; null until they were fetched."""
    key: str | None = None
    """Where the bytes lie in the bucket; null until they were fetched."""
    source: str | None = None
    """The provider's own reference, by which the connector fetches the bytes."""
    url: str | None = None
    """A signed link to the bytes, present in what helpdesks get; it expires."""
    transcript: str | None = None
    """What was said in it, where the provider transcribes audio."""
    unavailable: str | None = None
    """Why the bytes could not be had, in words for an agent."""
    content: bytes | None = Field(default=None, exclude=True, repr=False)
    """The bytes while they are in memory; never part of the published form."""


class Location(Noun):
    """A place that the customer sent."""

    latitude: float = Field(ge=-90, le=90)
    """Degrees north. WeChat in mainland China gives GCJ-02, not WGS 84."""
    longitude: float = Field(ge=-180, le=180)
    """Degrees east."""
    label: str = ""
    """The place's name or street address, as the provider gives it."""


class Link(Noun):
    """A web page that the customer shared. Never fetched."""

    url: str
    """The address, as sent."""
    title: str = ""
    """Its title, as sent."""
    description: str = ""
    """Its description, as sent."""


class Event(Noun):
    """Something that happened without words: a follow, a menu click, a scan."""

    name: str
    """The provider's name of it, lower-case: `subscribe`, `click`, `scan` ..."""
    key: str = ""
    """The provider's detail, for example the menu item."""


class Raw(Noun):
    """The bytes the provider sent, kept where the message does not say everything."""

    media_type: str
    """MIME type of the bytes."""
    content: bytes | None = None
    """The bytes, base64 in JSON; null where they are long and lie in the bucket."""
    key: str | None = None
    """Where they lie in the bucket."""


class Consent(Noun):
    """What a customer decided about being written to at the address written from."""

    choice: Literal["out", "in"]
    """`out`: no more messages; `in`: messages again."""
    confirmed: bool = False
    """The provider has told the customer so by itself: we must not do so again."""


class Choice(Noun):
    """What the customer may choose below a message: a button, or a link, where the channel can."""

    label: str
    """What stands on it."""
    value: str
    """What the customer says by choosing it."""


class Part(Noun):
    """Which piece of a longer message this is: the provider delivers it in several webhooks."""

    of: str
    """What all its pieces share, as the provider calls it."""
    number: int = Field(ge=1)
    """Which one it is, from 1."""
    total: int = Field(ge=1, le=255)
    """How many there are."""


class Outcome(StrEnum):
    """What `judge` found a message to be."""

    NEW = "new"
    FOLLOW_UP = "follow_up"
    RELATED = "related"
    REPEAT = "repeat"
    IGNORED = "ignored"


class Verdict(Noun):
    """What was decided about an inbound message, and why. Recorded for good."""

    outcome: Outcome
    """`new`, `follow_up`, `related`, `repeat`; `ignored` for events that open no ticket."""
    rule: str
    """Which rule decided: `thread`, `nature`, `unhelpful`, `score`, `time`, `none`, `event`,
    `code`; `undone` after somebody said that it was not the same question."""
    reason: str
    """The same in words that an agent reads."""
    score: float | None = None
    """How alike the closest earlier question is, 0 to 1; null where nothing was compared."""
    closest_conversation_id: str | None = None
    """Where the closest earlier question was asked, whether it was joined or not."""
    closest_message_id: str | None = None
    """The message that asked the closest earlier question."""
    veto: str | None = None
    """Why a question that is alike enough is not answered, for example `other number`."""
    evidence: tuple[str, ...] = ()
    """What both questions say, in words that an agent reads."""
    scorer: str = ""
    """Which scorer compared them; empty where nothing was compared."""
    opinion: str | None = None
    """What the second opinion said, where one was asked for."""
    mode: str = "off"
    """`repeats.mode` at that time."""
    would_be: Outcome | None = None
    """In `observe` mode: what it would have been."""
    said: str | None = None
    """What AskOnce told the customer at once, in full; null where it kept silent."""
    said_kind: Literal["answered", "in_progress", "faq"] | None = None
    """Which template that was."""
    said_in_response: bool = False
    """It went out in the answer to the customer's own webhook; else as a message of its own."""
    told_at: Moment | None = None
    """By rule `unhelpful`: when AskOnce had given the answer that did not help."""
    offered: tuple[Choice, ...] = ()
    """What the customer could choose below it."""
    kept_silent: str | None = None
    """Why AskOnce said nothing to what it could answer, in words that an agent reads."""
    proposed: str | None = None
    """In `suggest` mode: the earlier answer, or the FAQ's, for the agent to send."""
    faq_id: str | None = None
    """The entry of the FAQ that answers a first question, whether that was told or not."""
    faq_score: float | None = None
    """How alike the closest wording of that entry is, 0 to 1."""


class Message(Noun):
    """One thing that one party said, in either direction, on any channel."""

    schema_version: Literal[1] = 1
    """Version of this schema; absent means 1."""
    id: str
    """Ours. Stable over redeliveries: made of inbox, address and external_id."""
    direction: Direction
    """`inbound` or `outbound`."""
    channel: Channel
    """The medium."""
    connector: str
    """Which connector read it or sends it, for example `sms_twilio`."""
    inbox: str
    """Which configured inbox it came through or leaves by."""
    external_id: str = Field(max_length=1024)
    """The provider's own id; of an outbound message the helpdesk's."""
    address: Address
    """The customer's end: who wrote, or who is written to."""
    account: str = ""
    """Our end, as the provider names it: a phone number, a mailbox, an official account."""
    sender_name: str = ""
    """A name as shown by the provider; never used as evidence."""
    author: str = ""
    """Outbound: the agent's name, or `askonce`."""
    evidence: tuple[Evidence, ...] = ()
    """What the webhook proves about who wrote."""
    kind: Kind
    """What it mainly is."""
    text: str = ""
    """What was written, without markup, quoted history and signature where those are known."""
    subject: str = ""
    """Subject line; email only."""
    attachments: tuple[Attachment, ...] = ()
    """Files, in the order sent."""
    location: Location | None = None
    """Of kind `location`."""
    link: Link | None = None
    """Of kind `link`."""
    event: Event | None = None
    """Of kind `event`."""
    consent: Consent | None = None
    """What the customer decided about being written to; null in nearly every message."""
    choices: tuple[Choice, ...] = ()
    """Outbound: what the customer may choose below it, and say by that."""
    part: Part | None = None
    """Set while it is one piece of a longer message, waiting for the others."""
    references: tuple[str, ...] = ()
    """External ids of the messages that this one answers, nearest first.

    `conversation:<id>` where the provider's request proves the conversation itself.
    """
    automatic: bool = False
    """Sent by a machine (out of office, bounce, list): never answered automatically."""
    sent_at: Moment
    """When the provider says it was sent."""
    received_at: Moment
    """When we took it."""
    html: Raw | None = None
    """The text as sanitised HTML, where it was sent as HTML; email only."""
    raw: Raw | None = None
    """What the provider sent, where it is kept."""
    contact_id: str | None = None
    """The person; null until resolved."""
    conversation_id: str | None = None
    """The thread that it belongs to; null until resolved."""
    verdict: Verdict | None = None
    """What was decided about it; null until resolved."""

    @property
    def words(self) -> str:
        """What was said, written or transcribed, to compare with other questions."""
        spoken = " ".join(a.transcript for a in self.attachments if a.transcript)
        return self.text or spoken or self.subject


class State(StrEnum):
    """Where a conversation stands."""

    OPEN = "open"
    ANSWERED = "answered"
    CLOSED = "closed"


class Priority(StrEnum):
    """How urgent a conversation is."""

    NORMAL = "normal"
    HIGH = "high"


class Answer(Noun):
    """The latest public answer of an agent on a conversation."""

    text: str
    """The answer, as the agent wrote it."""
    author: str = ""
    """Who wrote it."""
    at: Moment
    """When."""


class Participant(Noun):
    """An address that wrote in a conversation, and where a reply to it goes."""

    address: Address
    """The customer's end."""
    sender: Address
    """The address under which the sender is known: not the same where the sender is not proven."""
    channel: Channel
    """The medium."""
    inbox: str
    """Which inbox took it."""
    account: str = ""
    """Our end."""
    last_at: Moment
    """When it last wrote."""
    external_id: str = ""
    """Its latest message, to thread a reply under."""
    subject: str = ""
    """Its latest subject line; email only."""


class Ticket(Noun):
    """What a helpdesk opened for a conversation."""

    helpdesk: str
    """Which configured helpdesk."""
    id: str
    """The helpdesk's own id."""


class Doubt(Noun):
    """Somebody said that two questions are not the same, or that an answer did not help."""

    kind: Literal["apart", "unhelpful"]
    """`apart`: another question; `unhelpful`: the answer was given again and did not help."""
    text: str
    """The other question's words."""
    message_id: str
    """The message that asked it."""
    by: str
    """Who said so: `customer`, or the agent's or operator's name."""
    at: Moment
    """When."""


class Told(Noun):
    """An answer that AskOnce gave by itself, while no agent has answered since."""

    at: Moment
    """When."""
    address: Address
    """To whom: the address under which the customer is known."""
    message_id: str
    """The message that asked the question whose answer it was."""
    word: str = ""
    """What the customer was offered to say if it did not help."""


class Question(Noun):
    """Something asked in a conversation, and what was answered to it."""

    text: str
    """The question's words."""
    message_id: str
    """The message that asked it."""
    asked_at: Moment
    """When."""
    asked_by: Address
    """The address that asked; decides to whom the answer may be told."""
    asked_by_level: Level
    """How sure we were of that address."""
    answer: Answer | None = None
    """The latest answer that an agent gave before the next question."""
    prepared: dict[str, str] = Field(default_factory=dict)
    """What scorers keep with it, by their names."""
    doubts: tuple[Doubt, ...] = ()
    """What it was mistaken for, and whether its answer failed to help."""

    @property
    def unhelpful(self) -> bool:
        """Whether its answer did not help when it was given again, and there is no newer one."""
        answer = self.answer
        return any(
            d.kind == "unhelpful" and (answer is None or answer.at <= d.at) for d in self.doubts
        )


class Conversation(Noun):
    """Our thread on one matter with one contact, across channels."""

    id: str
    """Ours."""
    reference: str
    """What customers and agents quote, for example `Q-7F3K-2M`."""
    contact_id: str
    """The person."""
    asked_at: Moment
    """When it began."""
    asked_by: Address
    """The address that began it: the conversation follows it to another contact."""
    first_message_id: str
    """The message that began it: the ticket is opened with it."""
    questions: tuple[Question, ...] = ()
    """What was asked in it, oldest first."""
    parted_at: Moment | None = None
    """When somebody who had asked in it turned out to be another person: what agents wrote before
    may be meant for them."""
    language: Literal["zh", "en"] = "en"
    """The language of the first question."""
    category: str = "question"
    """From the owner's list of categories."""
    priority: Priority = Priority.NORMAL
    """`high` when the category says so, or when it was asked again."""
    state: State = State.OPEN
    """`open`, `answered` or `closed`."""
    participants: tuple[Participant, ...] = ()
    """Who wrote, latest first."""
    asked_times: int = 1
    """How often something in it was asked, repeats included."""
    last_active_at: Moment
    """When either side last said something."""
    last_said_at: Moment | None = None
    """When AskOnce last told the customer something by itself."""
    told: Told | None = None
    """The answer that AskOnce gave last; null once an agent has answered, or it did not help."""
    first_reply_due_at: Moment | None = None
    """Until when an agent should have answered; null once one has."""
    ticket: Ticket | None = None
    """Null until the helpdesk opened one."""


class LinkEvent(Noun):
    """One entry of an address's history: which contact it was given to, and why."""

    at: Moment
    """When."""
    contact_id: str
    """To whom."""
    level: Level
    """How sure."""
    source: str
    """What said so."""
    by: str
    """Who did it: `askonce`, or the operator's name."""


class AddressLink(Noun):
    """The contact that an address belongs to."""

    address: Address
    """The address, or `unproven:` and the address for a sender that is not proven."""
    contact_id: str
    """The person."""
    level: Level
    """How sure."""
    source: str
    """What says so."""
    verified_at: Moment | None = None
    """When it was last proven; null where it never was."""
    offered_at: Moment | None = None
    """When AskOnce last offered by itself to link it by a one-time code, at either end."""
    history: tuple[LinkEvent, ...] = ()
    """Every link before and including this one, oldest first."""


class Contact(Noun):
    """A person."""

    id: str
    """Ours."""
    addresses: tuple[Address, ...] = ()
    """Where the person is reached."""
    suggestions: tuple[Address, ...] = ()
    """Addresses that claim to be the same person: for an agent to decide."""


class Reply(Noun):
    """An agent's public answer, as a helpdesk sent it."""

    ticket_id: str
    """The helpdesk's own id of the ticket."""
    external_id: str = Field(max_length=1024)
    """The helpdesk's own id of the answer."""
    text: str
    """The answer."""
    author: str = ""
    """The agent's name."""
    attachments: tuple[Attachment, ...] = ()
    """Files of the agent."""
    sent_at: Moment
    """When the agent sent it."""


class TicketChange(Noun):
    """A ticket was solved, opened again, or merged into another one in the helpdesk."""

    ticket_id: str
    """The helpdesk's own id of the ticket."""
    external_id: str = Field(max_length=1024)
    """The helpdesk's own id of the change."""
    state: Literal["open", "closed", "merged"]
    """What it is now."""
    merged_into: str = ""
    """The helpdesk's own id of the ticket that took it in; empty unless `state` is `merged`."""
    at: Moment
    """When."""


class Correction(Noun):
    """An agent says that a message is on the wrong ticket, or who somebody is."""

    ticket_id: str
    """The helpdesk's own id of the ticket."""
    external_id: str = Field(max_length=1024)
    """The helpdesk's own id of the correction."""
    kind: Literal["not_a_repeat", "same_person", "different_person"] = "not_a_repeat"
    """It is not the same question; who writes here also has `address`; or is somebody else."""
    address: Address | None = None
    """Of `same_person`: another address of the person."""
    message_id: str | None = None
    """Our id of the message; null means the one that joined the ticket last."""
    by: str = ""
    """The agent's name."""
    at: Moment
    """When."""


class Delivery(StrEnum):
    """What became of a message that we sent. Later ones in this order never fall back."""

    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"


class Receipt(Noun):
    """A provider tells what became of a message that we sent."""

    id: str
    """Ours: `errand_id`."""
    inbox: str
    """Which inbox it came through."""
    external_id: str = Field(max_length=1024)
    """The provider's id of the message that we sent: what `send` returned."""
    state: Delivery
    """What became of it."""
    reason: str = ""
    """Why it failed, in words for an agent."""
    received_at: Moment
    """When we took it."""


class Notice(Noun):
    """A provider says that there is something to fetch."""

    id: str
    """Ours: `errand_id`."""
    inbox: str
    """Which inbox it came through."""
    source: str = Field(max_length=256)
    """What to fetch from: each source has a cursor, and is read by one worker at a time."""
    token: str = ""
    """What the fetch must show; expires."""
    received_at: Moment
    """When we took it."""


class Instruction(Noun):
    """A correction that an agent wants carried out."""

    id: str
    """Ours: `errand_id`."""
    helpdesk: str
    """Its configured name."""
    conversation_id: str
    """The conversation of the ticket that it was given on."""
    correction: Correction
    """What the agent said."""
    received_at: Moment
    """When we took it."""

    @property
    def inbox(self) -> str:
        """Where it came in, as errands are reported."""
        return f"replies/{self.helpdesk}"


def json_schema() -> dict[str, Any]:
    """The schema of `Message` and `Conversation`, as JSON Schema 2020-12, fields documented."""
    from pydantic.json_schema import models_json_schema

    _, definitions = models_json_schema(
        [(Message, "serialization"), (Conversation, "serialization")],
        title=f"AskOnce messages, version {SCHEMA_VERSION}",
        ref_template="#/$defs/{model}",
    )
    documentation = _field_documentation()
    for name, definition in definitions["$defs"].items():
        for field, published in definition.get("properties", {}).items():
            published["description"] = documentation[name][field]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": [{"$ref": "#/$defs/Message"}, {"$ref": "#/$defs/Conversation"}],
        **definitions,
    }


def _field_documentation() -> dict[str, dict[str, str]]:
    """{class: {field: the string below it}}, read from this file."""
    import ast
    import inspect
    import sys

    documentation: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[__name__])).body:
        if isinstance(node, ast.ClassDef):
            fields = documentation.setdefault(node.name, {})
            for field, below in pairwise(node.body):
                match field, below:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        fields[name] = " ".join(text.split())
    return documentation
