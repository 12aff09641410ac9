"""What a ticket says of a message and its sender, the same in every helpdesk."""

from collections.abc import Iterator
from dataclasses import dataclass

from chalicelib.schema import Attachment, Conversation, Level, Message

_LONGEST_SUBJECT = 100
#: Marks tickets as ours.
TAG = "askonce"


@dataclass(frozen=True, kw_only=True)
class Customer:
    """A person, as a desk wants to know one. Only proven addresses are in it."""

    #: Ours, and the same on every channel: the contact's id.
    external_id: str
    name: str
    email: str = ""
    #: E.164.
    phone: str = ""


def customer(message: Message, conversation: Conversation) -> Customer:
    """Who wrote. A claimed address names nobody: it could be somebody else's."""
    proven = {e.address for e in message.evidence if e.level is Level.VERIFIED}
    proven |= {p.address for p in conversation.participants if p.address == p.sender}
    by_scheme = {a.partition(":")[0]: a.partition(":")[2] for a in sorted(proven)}
    name = message.sender_name or by_scheme.get("email") or by_scheme.get("phone")
    return Customer(
        external_id=conversation.contact_id,
        name=name or f"{message.channel.value} {conversation.reference}",
        email=by_scheme.get("email", ""),
        phone=by_scheme.get("phone", ""),
    )


def subject(message: Message, conversation: Conversation) -> str:
    """The subject line, else the beginning of what was written; never empty."""
    line = " ".join((message.subject or message.words).split())
    if len(line) > _LONGEST_SUBJECT:
        line = f"{line[: _LONGEST_SUBJECT - 1]}…"
    return line or f"{message.channel.value}: {message.kind.value} ({conversation.reference})"


def words(message: Message) -> str:
    """What the customer said, with what a plain text can say of the rest. Never empty."""
    return "\n".join(_lines(message)) or f"[{message.kind.value}]"


def with_name(message: Message) -> str:
    """The same with who said it in front, for desks where it would look like our own words."""
    who = message.sender_name or message.address
    return f"{who} ({message.channel.value}):\n{words(message)}"


def tags(message: Message, conversation: Conversation) -> list[str]:
    """Ours, the channel, the category; without blanks, which part tags in some desks."""
    return [TAG, message.channel.value, conversation.category.replace(" ", "_")]


def _lines(message: Message) -> Iterator[str]:
    if message.text:
        yield message.text
    if place := message.location:
        yield _line("location", place.label, f"{place.latitude}, {place.longitude}")
    if link := message.link:
        yield _line("link", link.title, link.url)
    if event := message.event:
        yield _line(event.name, event.key)
    for file in message.attachments:
        yield from _lines_of(file)


def _lines_of(file: Attachment) -> Iterator[str]:
    """What was heard in a file, where it is, or why it is not there; nothing of one that is."""
    name = file.name or file.media_type
    if file.transcript:
        yield _line(f"{name}, as heard", file.transcript)
    if file.unavailable:
        yield _line(f"{name} could not be had", file.unavailable)
    elif file.url and not file.content:
        yield _line(name, file.url)


def _line(what: str, *said: str) -> str:
    return " ".join([f"[{what}]", *filter(None, said)])
