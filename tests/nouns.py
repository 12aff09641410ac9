"""Nouns for tests: complete and valid, so that a test names only what it is about."""

import threading
from typing import Any

from chalicelib.schema import (
    Attachment,
    Channel,
    Conversation,
    Direction,
    Evidence,
    Kind,
    Level,
    Message,
    Question,
    message_id,
)
from chalicelib.worker import turn_of
from tests.fakes import START


def evidence(address: str, level: str = "verified", source: str = "test") -> Evidence:
    """Why we believe that the sender owns an address."""
    return Evidence(address=address, level=Level(level), source=source)


def message(text: str = "Where is my parcel?", **more: Any) -> Message:
    """An inbound SMS of a proven sender."""
    fields: dict[str, Any] = {
        "direction": Direction.INBOUND,
        "channel": Channel.SMS,
        "connector": "sms_twilio",
        "inbox": "sms",
        "external_id": "SM1",
        "address": "phone:+8613800138000",
        "kind": Kind.TEXT,
        "text": text,
        "sent_at": START,
        "received_at": START,
    } | more
    fields.setdefault("id", message_id(fields["inbox"], fields["address"], fields["external_id"]))
    fields.setdefault("evidence", (evidence(fields["address"]),))
    return Message(**fields)


def asked(text: str = "Where is my parcel?", **more: Any) -> Question:
    """A question of the same sender."""
    fields: dict[str, Any] = {
        "text": text,
        "message_id": "m1",
        "asked_at": START,
        "asked_by": "phone:+8613800138000",
        "asked_by_level": Level.VERIFIED,
    }
    return Question(**(fields | more))


def conversation(question: str = "Where is my parcel?", **more: Any) -> Conversation:
    """An open question, asked once by SMS."""
    fields: dict[str, Any] = {
        "id": "q1",
        "reference": "Q-2222-3333",
        "contact_id": "c1",
        "asked_at": START,
        "asked_by": "phone:+8613800138000",
        "first_message_id": "m1",
        "questions": (asked(question),),
        "last_active_at": START,
    }
    return Conversation(**(fields | more))


def is_free_for_files() -> bool:
    """Whether another message with files could be worked on at this moment."""
    turn = turn_of(message(attachments=(Attachment(),)))
    assert isinstance(turn, type(threading.Lock()))
    if free := turn.acquire(blocking=False):
        turn.release()
    return free
