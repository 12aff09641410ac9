"""What agents are told beside the customer's words: why, what was said, what went wrong. Pure."""

from datetime import datetime

from chalicelib import identity
from chalicelib.schema import Level, Message, Outcome, Verdict

MAY_HAVE_ARRIVED = (
    "the connection broke while it was being sent, so it may or may not have arrived; "
    "send it again if the customer does not react"
)

OPTED_OUT = (
    "the customer has opted out of messages at this address; "
    "they can opt in again by writing START there"
)


def of(message: Message) -> list[str]:
    """The notes that go with an inbound message."""
    notes: list[str] = []
    verdict = message.verdict
    if verdict and verdict.outcome in (Outcome.REPEAT, Outcome.RELATED):
        notes.append(_of_verdict(verdict, message))
    _, level = identity.sender(message)
    if message.consent:
        notes.append(_CONSENT[message.consent.choice])
    if level is Level.CLAIMED:
        notes.append(
            f"The sender is not proven ({identity.own_source(message)}): this may be "
            f"{message.address} or somebody else. Nothing was disclosed, no history was joined."
        )
    return notes


_CONSENT = {
    "out": "The customer opted out: nothing more is sent to this address.",
    "in": "The customer opted in again: messages to this address are sent.",
}


def _of_verdict(verdict: Verdict, message: Message) -> str:
    lines = [f"Asked again, by {message.channel.value}: {verdict.reason}."]
    if verdict.said:
        lines.append(f"AskOnce told the customer:\n{verdict.said}")
    elif verdict.kept_silent:
        lines.append(f"AskOnce said nothing: {verdict.kept_silent}.")
    elif verdict.proposed:
        lines.append(f"The earlier answer, to send again if it fits:\n{verdict.proposed}")
    return "\n".join(lines)


def undelivered(why: str) -> str:
    """That a reply did not reach the customer."""
    return f"Not delivered: {why}"


def held(why: str) -> str:
    """That a reply waits for the customer."""
    return f"Not sent yet: {why}. It goes out by itself as soon as the customer writes again."


def sent_elsewhere(why: str, message: Message) -> str:
    """That a reply took another channel than the one the customer used last."""
    return f"Sent by {message.channel.value} to {message.address}, since {why}."


def overdue(due_at: datetime) -> str:
    """That the first reply is late."""
    return f"The first reply is late: it was due by {due_at:%H:%M} UTC."
