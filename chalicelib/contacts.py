"""Contacts in the store: found, made, linked and unlinked, by the rules of `identity`.

Each change is one commit, so that it happens once or not at all, and two channels at once end
with one contact. An address takes the conversations that it began along when it moves.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from chalicelib import conversations, identity
from chalicelib.errors import AskOnceError, ConflictError, RetryableError
from chalicelib.items import Held, History, Home
from chalicelib.policy import ContactPolicy
from chalicelib.schema import (
    Address,
    AddressLink,
    Contact,
    Conversation,
    Level,
    LinkEvent,
    Message,
    Question,
)
from chalicelib.store import Store

_TRIES = 8
ASKONCE = "askonce"


class UnknownAddressError(AskOnceError):
    """Nothing was ever heard of that address."""


class Linking(StrEnum):
    """What verified evidence does to two addresses, or why it does nothing."""

    LINKED = "linked"
    ALREADY = "already"
    #: An operator took one away from the other.
    SEPARATED = "separated"
    #: Your own system knows them as two customers.
    TWO_CUSTOMERS = "two_customers"
    #: Each belongs to a person whom we know by several addresses.
    BOTH_KNOWN = "both_known"


@dataclass(frozen=True)
class Plan:
    """What verified evidence will do to two addresses, as they were read."""

    outcome: Linking
    own: Held[AddressLink]
    other: Held[AddressLink] | None
    #: The one that gets the other's contact; None where nothing moves.
    moving: Held[AddressLink] | None = None

    @property
    def contact_id(self) -> str:
        """Whose contact `own` has afterwards."""
        moves_own = self.moving is self.own and self.other is not None
        return (self.other if moves_own and self.other else self.own).noun.contact_id


@dataclass(frozen=True)
class Along:
    """What else is written in the commit of a link, all or nothing."""

    puts: Sequence[Held[Any]] = ()
    gone: Sequence[Held[Any]] = ()


_ALONE = Along()


@dataclass(frozen=True)
class Proof:
    """Who or what says that an address is somebody's, and when."""

    source: str
    at: datetime
    by: str = ASKONCE


class Contacts:
    """Whose address is it?"""

    def __init__(
        self, store: Store, clock: Callable[[], datetime], policy: ContactPolicy | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy or ContactPolicy()

    def of(self, message: Message) -> Held[AddressLink]:
        """The link of whoever wrote, moved as the message's evidence demands.

        Of somebody new it has version 0, and is written with what is decided about the message.
        ConflictError if somebody else wrote to it.
        """
        address, level = identity.sender(message)
        at = message.received_at
        proof = Proof(identity.own_source(message), at)
        own = self._store.link(address) or Held(_linked(address, _new_id(), level, proof))
        others = identity.proven_others(message)
        if others:
            own = self.made(own)
        if level is Level.VERIFIED and self._policy.aged_out(own.noun, at):
            own = self._begin_anew(own, at)
        for evidence in others:
            if evidence.source == identity.CONTINUED:
                self._take_over(own.noun, evidence.address, message)
            else:
                own = self._proven(own, evidence.address, Proof(evidence.source, at))
        return own

    def made(self, own: Held[AddressLink]) -> Held[AddressLink]:
        """The link, written with its contact if it was not. ConflictError."""
        if own.version:
            return own
        self._store.commit(own, self.history(own).contact)
        return replace(own, version=1)

    def history(self, own: Held[AddressLink]) -> History:
        """The contact of a link, and what it asked: nothing, if the link is not written yet."""
        if own.version:
            return self._store.history(own.noun.contact_id)
        contact = Contact(id=own.noun.contact_id, addresses=(own.noun.address,))
        return History(contact=Held(contact), conversations=())

    def _proven(self, own: Held[AddressLink], address: Address, proof: Proof) -> Held[AddressLink]:
        """`own` after evidence in its message that another address is the same person's."""
        plan = self.plan(own, address, proof.at)
        own = self.carry_out(plan, address, proof)
        if plan.outcome in (Linking.TWO_CUSTOMERS, Linking.BOTH_KNOWN):
            ours = self._store.history(own.noun.contact_id).contact
            suggestions = tuple(dict.fromkeys((*ours.noun.suggestions, address)))
            if suggestions != ours.noun.suggestions:
                self._store.commit(ours.change(suggestions=suggestions))
        return own

    def _take_over(self, own: AddressLink, address: Address, message: Message) -> None:
        """What an anonymous address asked is the sender's from now on.

        The address keeps its contact, and nothing else: whoever still holds it begins anew. One
        that is known by more than itself is left alone.
        """
        other = self._store.link(address)
        if other is None or other.noun.contact_id == own.contact_id:
            return
        before = self._store.history(other.noun.contact_id)
        if list(before.contact.noun.addresses) != [address] or not before.conversations:
            return
        # The contact, too, as it is: whoever asks at this moment elsewhere sees what it got.
        puts: list[Held[Any]] = [self._store.history(own.contact_id).contact]
        for held in before.conversations:
            puts.append(Held(conversations.taken_over(held.noun, address, message, own)))
            puts.append(self._rehomed(held.noun, own.contact_id))
        self._store.commit(*puts, gone=before.conversations)

    def plan(self, own: Held[AddressLink], address: Address, at: datetime) -> Plan:
        """What it does that `own` and another address are proven to be the same person's."""
        other = self._store.link(address)
        if other is None:
            return Plan(Linking.LINKED, own, None)
        if other.noun.contact_id == own.noun.contact_id:
            return Plan(Linking.ALREADY, own, other)
        if self._policy.aged_out(other.noun, at):
            other = self._begin_anew(other, at)
        ours, theirs = (
            self._store.history(held.noun.contact_id).contact.noun.addresses
            for held in (own, other)
        )
        if self._were_separated(ours, theirs):
            return Plan(Linking.SEPARATED, own, other)
        if identity.two_customers(ours, theirs):
            return Plan(Linking.TWO_CUSTOMERS, own, other)
        moving = identity.which_moves(own.noun, ours, other.noun, theirs)
        if moving is None:
            return Plan(Linking.BOTH_KNOWN, own, other)
        return Plan(Linking.LINKED, own, other, own if moving is own.noun else other)

    def _were_separated(self, ours: Iterable[Address], theirs: Iterable[Address]) -> bool:
        """Whether an operator took any of theirs away from any of ours."""
        mine, others = (
            [link.noun for a in addresses if (link := self._store.link(a))]
            for addresses in (ours, theirs)
        )
        return any(identity.were_separated(one, other) for one in mine for other in others)

    def carry_out(
        self, plan: Plan, address: Address, proof: Proof, along: Along = _ALONE
    ) -> Held[AddressLink]:
        """`own` after the plan. ConflictError if something of it changed meanwhile."""
        own, other = plan.own, plan.other
        if other is None:
            self._attach(address, own, Level.VERIFIED, proof, along)
        elif plan.moving is own:
            return self._move(own, other.noun.contact_id, proof, along)
        elif plan.moving is other:
            self._move(other, own.noun.contact_id, proof, along)
        else:
            self._renew(other, plan.outcome, proof, along)
        return own

    def _renew(
        self, other: Held[AddressLink], outcome: Linking, proof: Proof, along: Along
    ) -> None:
        """An address that is linked already was proven once more."""
        noun = identity.renewed(other.noun, proof.at)
        news = outcome is Linking.ALREADY and noun is not other.noun
        puts = [*along.puts, *([replace(other, noun=noun)] if news else ())]
        if puts or along.gone:
            self._store.commit(*puts, gone=along.gone)

    def prove(self, address: Address, to: Address, proof: Proof) -> Linking:
        """Link two addresses on somebody's word, as evidence does: it never merges two people."""
        own = self._find_or_make(to, Level.VERIFIED, proof)
        plan = self.plan(own, address, proof.at)
        self.carry_out(plan, address, proof)
        return plan.outcome

    def link(
        self, address: Address, to: Address, *, source: str, by: str, along: Along = _ALONE
    ) -> AddressLink:
        """Give `address` the contact of `to`, whatever it had; both are made if they are new."""
        proof = Proof(source, self._clock(), by)
        target = self._find_or_make(to, Level.VERIFIED, proof)
        own = self._store.link(address)
        if own is None:
            return self._attach(address, target, Level.VERIFIED, proof, along).noun
        if own.noun.contact_id == target.noun.contact_id:
            self._renew(own, Linking.ALREADY, proof, along)
            return own.noun
        if self._policy.aged_out(own.noun, proof.at):
            own = self._begin_anew(own, proof.at)
        return self._move(own, target.noun.contact_id, proof, along).noun

    def unlink(self, address: Address, *, by: str, source: str = identity.UNLINKED) -> AddressLink:
        """Give an address a contact of its own and what it began. UnknownAddressError."""
        own = self._known(address)
        history = self._store.history(own.noun.contact_id)
        if list(history.contact.noun.addresses) == [address]:
            return own.noun
        return self._move(own, _new_id(), Proof(source, self._clock(), by)).noun

    def _known(self, address: Address) -> Held[AddressLink]:
        own = self._store.link(address)
        if own is None:
            raise UnknownAddressError(f"nothing was ever heard of {address}")
        return own

    def show(self, address: Address) -> tuple[Contact, list[AddressLink], list[Conversation]]:
        """The contact of an address, its links with their history, its conversations."""
        history = self._store.history(self._known(address).noun.contact_id)
        contact = history.contact.noun
        links = [link.noun for a in contact.addresses if (link := self._store.link(a))]
        return contact, links, [held.noun for held in history.conversations]

    def suggest(self, history: History, message: Message) -> Contact:
        """The contact, with the addresses that the message claims added for an agent to see."""
        contact = history.contact.noun
        claimed = [a for a in identity.suggested(message) if a not in contact.addresses]
        suggestions = tuple(dict.fromkeys((*contact.suggestions, *claimed)))
        return contact.model_copy(update={"suggestions": suggestions})

    def _find_or_make(self, address: Address, level: Level, proof: Proof) -> Held[AddressLink]:
        for _ in range(_TRIES):
            if found := self._store.link(address):
                return found
            try:
                return self.made(Held(_linked(address, _new_id(), level, proof)))
            except ConflictError:
                continue  # written to by two inboxes at once: the other one made the contact
        raise ConflictError(f"the contact of {address} keeps changing")

    def _attach(
        self,
        address: Address,
        to: Held[AddressLink],
        level: Level,
        proof: Proof,
        along: Along = _ALONE,
    ) -> Held[AddressLink]:
        """Link an address of which nothing was known."""
        contact = self._store.history(to.noun.contact_id).contact
        link = _linked(address, to.noun.contact_id, level, proof)
        self._store.commit(
            Held(link), _with_address(contact, address), *along.puts, gone=along.gone
        )
        return Held(link, 1)

    def _begin_anew(self, own: Held[AddressLink], at: datetime) -> Held[AddressLink]:
        """Give an address a contact of its own, and nothing of what was asked from it before.

        Its verification had aged out: whoever has it now need not be who had it then. What came
        from it since counts as the new owner's.
        """
        before = self._store.history(own.noun.contact_id)
        theirs = partial(identity.asked, link=own.noun)
        asked = (replace(held, noun=conversations.disowned(held.noun, theirs))
                 for held in before.conversations
                 if any(map(theirs, held.noun.questions)))  # fmt: skip
        since = self._policy.fresh_until(own.noun) or at
        moved = _moved(own, _new_id(), Proof(identity.AGED_OUT, since))
        link = moved.change(verified_at=at)
        fresh = Contact(id=link.noun.contact_id, addresses=(own.noun.address,))
        left = _without_address(before.contact, own.noun.address)
        self._store.commit(link, Held(fresh), left, *asked)
        return replace(link, version=own.version + 1)

    def _move(
        self, own: Held[AddressLink], to_contact: str, proof: Proof, along: Along = _ALONE
    ) -> Held[AddressLink]:
        """One commit: the link, both contacts, and the conversations that the address began.

        Where others have asked, what it asked is nobody's question any more; the other way, too.
        """
        address = own.noun.address
        before = self._store.history(own.noun.contact_id)
        after = self._store.history(to_contact)
        link = _moved(own, to_contact, proof)
        puts: list[Held[Any]] = [link, _with_address(after.contact, address)]
        puts.append(_without_address(before.contact, address))
        stay = {a for a in before.contact.noun.addresses if a != address}
        leaves, now = partial(identity.asked, link=own.noun), self._clock()
        gone = []
        for held in before.conversations:
            if _began(held.noun, own.noun):
                gone.append(held)
                parted = conversations.parted(held.noun, partial(self._stays, stay), now)
                puts.append(Held(parted.model_copy(update={"contact_id": to_contact})))
                puts.append(self._rehomed(held.noun, to_contact))
            else:
                parted = conversations.parted(held.noun, leaves, now)
                puts.extend([replace(held, noun=parted)] if parted is not held.noun else ())
        self._store.commit(*puts, *along.puts, gone=[*gone, *along.gone])
        return replace(link, version=own.version + 1)

    def _stays(self, others: Set[Address], question: Question) -> bool:
        """Whether a question on a ticket that moves is another one's, or of a former owner."""
        if question.asked_by in others:
            return True
        link = self._store.link(question.asked_by)
        return link is not None and question.asked_at < identity.owned_since(link.noun)

    def _rehomed(self, conversation: Conversation, to_contact: str) -> Held[Home]:
        home = self._store.home(conversation.id) or Held(Home.of(conversation))
        return home.change(contact_id=to_contact)


def decided(act: Callable[[], Any]) -> Any:
    """Decide again for as long as somebody else writes to the same contact."""
    for _ in range(_TRIES):
        try:
            return act()
        except ConflictError:
            continue
    raise RetryableError("the contact keeps changing")


def _began(conversation: Conversation, link: AddressLink) -> bool:
    began = conversation.asked_by == link.address
    return began and conversation.asked_at >= identity.owned_since(link)


def _linked(address: Address, contact_id: str, level: Level, proof: Proof) -> AddressLink:
    event = LinkEvent(
        at=proof.at, contact_id=contact_id, level=level, source=proof.source, by=proof.by
    )
    return AddressLink(
        address=address,
        contact_id=contact_id,
        level=level,
        source=proof.source,
        verified_at=proof.at if level is Level.VERIFIED else None,
        history=(event,),
    )


def _moved(own: Held[AddressLink], to_contact: str, proof: Proof) -> Held[AddressLink]:
    """The link with another contact; only what proves something makes it newly proven."""
    level = identity.level_after(own.noun.address, proof.source)
    entry = _linked(own.noun.address, to_contact, level, proof)
    verified_at = own.noun.verified_at if identity.parts(proof.source) else entry.verified_at
    return own.change(
        contact_id=to_contact,
        level=level,
        source=proof.source,
        verified_at=verified_at if level is Level.VERIFIED else None,
        history=(*own.noun.history, *entry.history),
    )


def _with_address(contact: Held[Contact], address: Address) -> Held[Contact]:
    addresses = tuple(dict.fromkeys((*contact.noun.addresses, address)))
    suggestions = tuple(a for a in contact.noun.suggestions if a != address)
    return contact.change(addresses=addresses, suggestions=suggestions)


def _without_address(contact: Held[Contact], address: Address) -> Held[Contact]:
    left = tuple(a for a in contact.noun.addresses if a != address)
    return contact.change(addresses=left)


def _new_id() -> str:
    return "c" + uuid.uuid4().hex
