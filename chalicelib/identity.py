"""Who wrote: what evidence links, what it only suggests, and what may be told to whom. Pure.

Verified evidence links by itself. Claimed evidence never links and never discloses. A sender who
is not proven is known under an address of its own (`unproven:email:li@example.com`), so that a
forged From never reaches the questions of the mailbox's owner.
"""

from collections.abc import Sequence

from chalicelib.schema import (
    Address,
    AddressLink,
    Contact,
    Evidence,
    Level,
    Message,
    Question,
)

UNPROVEN = "unproven:"
#: The source of a link that an operator made by taking an address away from a contact.
UNLINKED = "unlinked"
#: The source of evidence that a sender goes on where an anonymous address stopped: its
#: conversations become the sender's, the address itself does not.
CONTINUED = "continued"


def sender(message: Message) -> tuple[Address, Level]:
    """The address under which the sender is known, and how sure we are of it."""
    if any(_proves(e, message.address) for e in message.evidence):
        return message.address, Level.VERIFIED
    return UNPROVEN + message.address, Level.CLAIMED


def _proves(evidence: Evidence, address: Address) -> bool:
    return evidence.level is Level.VERIFIED and evidence.address == address


def own_source(message: Message) -> str:
    """What says that the sender owns the address written from."""
    own = [e for e in message.evidence if e.address == message.address]
    own.sort(key=lambda e: e.level is not Level.VERIFIED)
    return own[0].source if own else "nothing"


def proven_others(message: Message) -> list[Evidence]:
    """Verified evidence about other addresses; worth nothing from a sender who is not proven."""
    _, level = sender(message)
    if level is not Level.VERIFIED:
        return []
    others = (e for e in message.evidence if e.address != message.address)
    return [e for e in others if e.level is Level.VERIFIED]


def suggested(message: Message) -> list[Address]:
    """Addresses that may be the same person: for an agent to decide."""
    address, level = sender(message)
    claims = [e.address for e in message.evidence if e.level is Level.CLAIMED]
    if level is Level.CLAIMED:
        claims.append(message.address)
    return [a for a in dict.fromkeys(claims) if a != address]


def which_moves(
    own: AddressLink,
    others_of_own: Sequence[Address],
    other: AddressLink,
    others_of_other: Sequence[Address],
) -> AddressLink | None:
    """Of two proven addresses with different contacts, the one to move; None to only suggest.

    An address moves only when it is its contact's single one: contacts with several addresses
    are people whom we know, and joining two of them is an agent's decision.
    """
    if list(others_of_own) == [own.address]:
        return own
    if list(others_of_other) == [other.address]:
        return other
    return None


def were_separated(one: AddressLink, other: AddressLink) -> bool:
    """Whether an operator took one of them away from the other: evidence does not undo that."""
    return _left(one, other) or _left(other, one)


def _left(link: AddressLink, other: AddressLink) -> bool:
    """Whether it was taken away from a contact that the other one belongs or belonged to."""
    others = {e.contact_id for e in other.history}
    before = [e.contact_id for e in link.history]
    unlinked = [n for n, e in enumerate(link.history) if e.source == UNLINKED]
    return any(others.intersection(before[:n]) for n in unlinked)


def level_after(address: Address, source: str) -> Level:
    """How sure we are of an address after it moved: alone again, a claimed one is only claimed."""
    claimed = source == UNLINKED and address.startswith(UNPROVEN)
    return Level.CLAIMED if claimed else Level.VERIFIED


def may_disclose(question: Question, link: AddressLink, contact: Contact) -> bool:
    """Whether what was answered to a question may be told to an address of this contact.

    To the address that asked, always. To another one only when both are verified and both belong
    to the contact right now: a conversation keeps the questions of an address that has left.
    """
    if link.address == question.asked_by:
        return True
    return (
        link.contact_id == contact.id
        and question.asked_by in contact.addresses
        and link.level is Level.VERIFIED
        and question.asked_by_level is Level.VERIFIED
    )
