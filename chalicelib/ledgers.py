"""What we may send to an address: a provider's windows, and the customer's own word. Pure.

A window is opened by something that the customer does, and holds so many messages for so long. A
message takes one of them by its id, so that taking twice costs nothing.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from chalicelib.ports import SendWindow
from chalicelib.schema import Address, Kind, Message, Moment, Noun

#: The name of the window that anything opens which the customer says.
MESSAGE = "message"


class Grant(Noun):
    """An open window."""

    until: Moment
    count: int
    #: Ids of what was sent in it.
    sent: tuple[str, ...] = ()


class SendLedger(Noun):
    """The windows of one address at one inbox, and what waits for the next one."""

    inbox: str
    address: Address
    #: By what opened it; the latest of a name counts.
    grants: dict[str, Grant] = Field(default_factory=dict)
    #: Ids of outbound messages that wait until the customer writes again.
    held: tuple[str, ...] = ()


class OptOut(Noun):
    """What a customer last said about being written to at an address."""

    address: Address
    choice: Literal["out", "in"]
    at: Moment
    #: The message that AskOnce confirms it with: the only one that may still go out.
    confirmation_id: str | None = None


def opens(message: Message) -> str:
    """The name of the window that a message opens, if its channel has one of that name."""
    return message.event.name if message.kind is Kind.EVENT and message.event else MESSAGE


def opened(
    ledger: SendLedger, message: Message, windows: Mapping[str, SendWindow]
) -> SendLedger | None:
    """The ledger after what the customer did; None if that opens nothing new."""
    name = opens(message)
    window = windows.get(name)
    if window is None:
        return None
    # From the provider's time: a redelivery or a late webhook must not stretch the window.
    began = min(message.sent_at, message.received_at)
    grant = Grant(until=began + timedelta(seconds=window.seconds), count=window.count)
    before = ledger.grants.get(name)
    if before and before.until >= grant.until:
        return None
    return ledger.model_copy(update={"grants": {**ledger.grants, name: grant}})


def taken(ledger: SendLedger, piece_id: str, now: datetime) -> SendLedger | None:
    """The ledger after sending one more; None if no window is open.

    The window that ends first is used up first.
    """
    if any(piece_id in grant.sent for grant in ledger.grants.values()):
        return ledger
    usable = [
        (grant.until, name)
        for name, grant in ledger.grants.items()
        if grant.until > now and len(grant.sent) < grant.count
    ]
    if not usable:
        return None
    name = min(usable)[1]
    grant = ledger.grants[name]
    used = grant.model_copy(update={"sent": (*grant.sent, piece_id)})
    return ledger.model_copy(update={"grants": {**ledger.grants, name: used}})


def why_closed(ledger: SendLedger, now: datetime) -> str:
    """Why no window is open, in an agent's words."""
    if not ledger.grants:
        return "the customer has not written here yet"
    if all(grant.until <= now for grant in ledger.grants.values()):
        return "the channel's window is closed: the customer wrote too long ago"
    return "the channel's count is used up until the customer writes again"


def holding(ledger: SendLedger, message_id: str) -> SendLedger:
    """With one more message that waits."""
    held = tuple(dict.fromkeys((*ledger.held, message_id)))
    return ledger.model_copy(update={"held": held})
