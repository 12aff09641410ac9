"""Who wrote: what evidence links, what it only suggests, and what may be told to whom. Pure.

Verified evidence links by itself. Claimed evidence never links and never discloses. A sender who
is not proven is known under an address of its own (`unproven:email:li@example.com`), so that a
forged From never reaches the questions of the mailbox's owner.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from chalicelib.schema import (
    Address,
    AddressLink,
    Evidence,
    Level,
    Message,
    Question,
)

UNPROVEN = "unproven:"
#: The source of a link that an operator made by taking an address away from a contact.
UNLINKED = "unlinked"
#: The same by your own system, which may say otherwise again.
WITHDRAWN = "withdrawn"
#: The source of a link that an address got when it was proven after its verification had aged
#: out: whoever has it now need not be who had it then.
AGED_OUT = "aged_out"
#: Your own customer id: addresses of two of them are two people's.
CUSTOMER = "external:"
#: A proof is noted at most so often.
_RENEWED_AFTER = timedelta(days=1)
_EVER = datetime.min.replace(tzinfo=UTC)
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


def two_customers(ours: Iterable[Address], theirs: Iterable[Address]) -> bool:
    """Whether your own system knows the two contacts as two customers."""
    mine, others = ({a for a in side if a.startswith(CUSTOMER)} for side in (ours, theirs))
    return bool(mine and others) and mine.isdisjoint(others)


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
    claimed = parts(source) and address.startswith(UNPROVEN)
    return Level.CLAIMED if claimed else Level.VERIFIED


def parts(source: str) -> bool:
    """Whether a link of this source proves nothing, and only takes an address away."""
    return source in (UNLINKED, WITHDRAWN)


def renewed(link: AddressLink, at: datetime) -> AddressLink:
    """The link after its address was proven once more; the same if that was noted lately."""
    before = link.verified_at
    if link.level is not Level.VERIFIED or (before and at - before < _RENEWED_AFTER):
        return link
    return link.model_copy(update={"verified_at": at})


def owned_since(link: AddressLink) -> datetime:
    """Since when the address is, as far as we know, the same person's."""
    aged_out = (e.at for e in link.history if e.source == AGED_OUT)
    return max(aged_out, default=_EVER)


def asked(question: Question, link: AddressLink) -> bool:
    """Whether the owner of an address asked it, and not somebody who had the address before."""
    return question.asked_by == link.address and question.asked_at >= owned_since(link)


def may_disclose(
    question: Question,
    link: AddressLink,
    asker: AddressLink | None,
    *,
    is_fresh: Callable[[AddressLink], bool],
) -> bool:
    """Whether what was answered to a question may be told to an address.

    To the address that asked, if it was proven. To another one only when both are proven, lately
    enough, and both belong to one contact right now: a conversation outlives the departure of who
    asked in it.
    `asker` is the link of the address that asked, as it is now.
    """
    if question.asked_by_level is not Level.VERIFIED:
        return False
    if asked(question, link):
        return True
    return (
        asker is not None
        and asked(question, asker)
        and link.contact_id == asker.contact_id
        and is_fresh(link)
        and is_fresh(asker)
    )


def may_hear(
    questions: Sequence[Question], link: AddressLink, *, is_fresh: Callable[[AddressLink], bool]
) -> bool:
    """Whether an agent's words on these questions of its contact may go to an address."""
    return is_fresh(link) or (bool(questions) and all(asked(q, link) for q in questions))
