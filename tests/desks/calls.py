"""What the tests of every desk say and ask: a customer's lines, twice asked, with a file."""

from typing import Any

from chalicelib.ports import Helpdesk
from chalicelib.schema import Attachment, Conversation, Priority
from tests import nouns

CONVERSATION = nouns.conversation()
REPEATED = nouns.conversation(priority=Priority.HIGH)
FILE = Attachment(name="票.png", media_type="image/png", key="k", content=b"\x89PNG")


def opened(desk: Helpdesk, *, key: str = "q1", again: bool = False, **more: Any) -> str:
    """The id of a ticket, opened with a message."""
    message = nouns.message(**more)
    return desk.open_ticket(message, CONVERSATION, idempotency_key=key, again=again)


def commented(
    desk: Helpdesk,
    ticket: str,
    text: str = "thanks",
    conversation: Conversation = CONVERSATION,
    *,
    key: str = "m2",
    again: bool = False,
) -> None:
    """A further line of the customer's on a ticket."""
    desk.add_comment(ticket, nouns.message(text), conversation, idempotency_key=key, again=again)
