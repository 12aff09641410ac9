"""Contacts in the store: found, made, linked and unlinked, by the rules of `identity`.

Each change is one commit, so that it happens once or not at all, and two channels at once end
with one contact. An address takes the conversations that it began along when it moves.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from chalicelib import conversations, identity
from chalicelib.errors import AskOnceError, ConflictError
from chalicelib.items import Held, History, Home
from chalicelib.schema import (
    Address,
    AddressLink,
    Contact,
    Conversation,
    Evidence,
    Level,
    LinkEvent,
    Message,
)
from chalicelib.store import Store

_TRIES = 8


class UnknownAddressError(AskOnceError):
    """Nothing was ever heard of that address."""


class Contacts:
    """Whose address is it?"""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def of(self, message: Message) -> Held[AddressLink]:
        """The link of whoever wrote, made or moved as the message's evidence demands."""
        address, level = identity.sender(message)
        source = identity.own_source(message)
        own = self._find_or_make(address, level, source)
        for evidence in identity.proven_others(message):
            if evidence.source == identity.CONTINUED:
                self._take_over(own.noun, evidence.address, message)
            else:
                own = self._join(own, evidence)
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
        puts: list[Held[Any]] = []
        for held in before.conversations:
            puts.append(Held(conversations.taken_over(held.noun, address, message, own)))
            puts.extend(self._rehomed(held.noun, own.contact_id))
        self._store.commit(*puts, gone=before.conversations)

    def link(self, address: Address, to: Address, *, source: str, by: str) -> AddressLink:
        """Give `address` the contact of `to`, whatever it had; both are made if they are new."""
        target = self._find_or_make(to, Level.VERIFIED, source, by=by)
        own = self._store.link(address)
        if own is None:
            return self._attach(address, target, Level.VERIFIED, source, by).noun
        if own.noun.contact_id == target.noun.contact_id:
            return own.noun
        return self._move(own, target.noun.contact_id, source, by).noun

    def unlink(self, address: Address, *, by: str) -> AddressLink:
        """Give an address a contact of its own and what it began. UnknownAddressError."""
        own = self._store.link(address)
        if own is None:
            raise UnknownAddressError(f"nothing was ever heard of {address}")
        history = self._store.history(own.noun.contact_id)
        if list(history.contact.noun.addresses) == [address]:
            return own.noun
        return self._move(own, _new_id(), identity.UNLINKED, by).noun

    def show(self, address: Address) -> tuple[Contact, list[AddressLink], list[Conversation]]:
        """The contact of an address, its links with their history, its conversations."""
        own = self._store.link(address)
        if own is None:
            raise UnknownAddressError(f"nothing was ever heard of {address}")
        history = self._store.history(own.noun.contact_id)
        contact = history.contact.noun
        links = [link.noun for a in contact.addresses if (link := self._store.link(a))]
        return contact, links, [held.noun for held in history.conversations]

    def suggest(self, history: History, message: Message) -> Contact:
        """The contact, with the addresses that the message claims added for an agent to see."""
        contact = history.contact.noun
        claimed = [a for a in identity.suggested(message) if a not in contact.addresses]
        suggestions = tuple(dict.fromkeys((*contact.suggestions, *claimed)))
        return contact.model_copy(update={"suggestions": suggestions})

    def _find_or_make(
        self, address: Address, level: Level, source: str, by: str = "askonce"
    ) -> Held[AddressLink]:
        for _ in range(_TRIES):
            if found := self._store.link(address):
                return found
            contact = Contact(id=_new_id(), addresses=(address,))
            link = self._entry(address, contact.id, level, source, by)
            try:
                self._store.commit(Held(link), Held(contact))
            except ConflictError:
                continue  # written to by two inboxes at once: the other one made the contact
            return Held(link, 1)
        raise ConflictError(f"the contact of {address} keeps changing")

    def _join(self, own: Held[AddressLink], evidence: Evidence) -> Held[AddressLink]:
        """`own` after verified evidence that another address is the same person's."""
        other = self._store.link(evidence.address)
        if other is None:
            self._attach(evidence.address, own, Level.VERIFIED, evidence.source, "askonce")
            return own
        if other.noun.contact_id == own.noun.contact_id:
            return own
        if identity.were_separated(own.noun, other.noun):
            return own
        ours = self._store.history(own.noun.contact_id).contact
        theirs = self._store.history(other.noun.contact_id).contact
        moving = identity.which_moves(
            own.noun, ours.noun.addresses, other.noun, theirs.noun.addresses
        )
        if moving is own.noun:
            return self._move(own, other.noun.contact_id, evidence.source, "askonce")
        if moving is other.noun:
            self._move(other, own.noun.contact_id, evidence.source, "askonce")
            return own
        suggestions = tuple(dict.fromkeys((*ours.noun.suggestions, evidence.address)))
        if suggestions != ours.noun.suggestions:
            self._store.commit(ours.change(suggestions=suggestions))
        return own

    def _attach(
        self, address: Address, to: Held[AddressLink], level: Level, source: str, by: str
    ) -> Held[AddressLink]:
        """Link an address of which nothing was known."""
        contact = self._store.history(to.noun.contact_id).contact
        link = self._entry(address, to.noun.contact_id, level, source, by)
        self._store.commit(Held(link), _with_address(contact, address))
        return Held(link, 1)

    def _move(
        self, own: Held[AddressLink], to_contact: str, source: str, by: str
    ) -> Held[AddressLink]:
        """One commit: the link, both contacts, and the conversations that the address began."""
        address = own.noun.address
        before = self._store.history(own.noun.contact_id)
        after = self._store.history(to_contact)
        level = identity.level_after(address, source)
        entry = self._entry(address, to_contact, level, source, by)
        link = own.change(
            contact_id=to_contact,
            level=level,
            source=source,
            history=(*own.noun.history, *entry.history),
        )
        puts: list[Held[Any]] = [link, _with_address(after.contact, address)]
        left = tuple(a for a in before.contact.noun.addresses if a != address)
        puts.append(before.contact.change(addresses=left))
        gone = [c for c in before.conversations if c.noun.asked_by == address]
        for held in gone:
            puts.append(Held(held.noun.model_copy(update={"contact_id": to_contact})))
            puts.extend(self._rehomed(held.noun, to_contact))
        self._store.commit(*puts, gone=gone)
        return replace(link, version=own.version + 1)

    def _rehomed(self, conversation: Conversation, to_contact: str) -> Iterable[Held[Home]]:
        home = self._store.home(conversation.id)
        return [home.change(contact_id=to_contact)] if home else []

    def _entry(
        self, address: Address, contact_id: str, level: Level, source: str, by: str
    ) -> AddressLink:
        event = LinkEvent(
            at=self._clock(), contact_id=contact_id, level=level, source=source, by=by
        )
        return AddressLink(
            address=address, contact_id=contact_id, level=level, source=source, history=(event,)
        )


def _with_address(contact: Held[Contact], address: Address) -> Held[Contact]:
    addresses = tuple(dict.fromkeys((*contact.noun.addresses, address)))
    suggestions = tuple(a for a in contact.noun.suggestions if a != address)
    return contact.change(addresses=addresses, suggestions=suggestions)


def _new_id() -> str:
    return "c" + uuid.uuid4().hex
