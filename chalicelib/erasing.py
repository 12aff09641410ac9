"""A person is forgotten: messages, conversations, files, feed, links; what is kept is the opt-out.

What names the rest goes last, so that an erasure that stopped anywhere is finished by asking again.
In the place of each message a husk stays for a month, without a word in it, so that a provider's
redelivery does not bring back what was erased.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from chalicelib import conversations, identity
from chalicelib.contacts import UnknownAddressError
from chalicelib.conversations import ASKONCE
from chalicelib.crowd import Crowd
from chalicelib.errors import ConflictError, RetryableError
from chalicelib.items import Held, Home, Husk, Stored
from chalicelib.schema import Address, AddressLink, Conversation, Direction, Message, Ticket, digest
from chalicelib.worker import Worker

_TRIES = 8


@dataclass
class Erased:
    """What was removed."""

    addresses: set[Address] = field(default_factory=set)
    contacts: set[str] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    messages: int = 0
    files: int = 0
    lines: int = 0
    #: Still in the helpdesk, where only its own means erase.
    tickets: list[Ticket] = field(default_factory=list)
    #: Customers who opted out: that is kept.
    opted_out: set[Address] = field(default_factory=set)


@dataclass(frozen=True)
class Eraser(Worker):
    """Removes what we know of a person."""

    def erase(self, who: str) -> Erased:
        """Forget an address's person, or the contact of an id. Safe to repeat, also half done.

        UnknownAddressError for a contact that is not there; an address may be unknown.
        """
        erased = Erased()
        for _ in range(_TRIES):
            try:
                if self._pass(who, erased):
                    self.report("erased", messages=erased.messages, files=erased.files)
                    return erased
            except ConflictError:
                continue  # the person wrote meanwhile: forget that, too
        raise RetryableError("the person keeps writing: try again")

    def _pass(self, who: str, erased: Erased) -> bool:
        """Remove all there is now; whether nothing has come up meanwhile."""
        found = self._found(who, again=bool(erased.contacts))
        erased.addresses |= set(found)
        erased.contacts |= {link.contact_id for link in found.values() if link}
        for contact_id in sorted(erased.contacts):
            self._contents(contact_id, found, erased)
        for address in found:
            self._of_address(address, found, erased)
        for claims in self.store.suggesting(found.keys()):
            left = tuple(a for a in claims.noun.suggestions if a not in found)
            self.store.commit(claims.change(suggestions=left))
        for contact_id in sorted(erased.contacts):
            self._names(contact_id)
        new = (c for name in erased.contacts for c in self.store.conversations_of(name))
        return next(new, None) is None

    # Who it is

    def _found(self, who: str, *, again: bool) -> dict[Address, AddressLink | None]:
        """Every address of the person, and of who only claimed to have one of them."""
        if ":" in who:
            own = self.store.link(who)
            contact_id = own.noun.contact_id if own else None
        else:
            contact_id = who
        addresses = [who] if ":" in who else []
        if contact_id:
            contact = self.store.history(contact_id).contact
            if not contact.version and not addresses and not again:
                raise UnknownAddressError(f"there is no contact {who}")
            addresses += contact.noun.addresses
        twins = [identity.UNPROVEN + a for a in addresses if not a.startswith(identity.UNPROVEN)]
        alone = [a for a in twins if self._is_alone(a)]
        links = ((a, self.store.link(a)) for a in dict.fromkeys([*addresses, *alone]))
        return {address: held.noun if held else None for address, held in links}

    def _is_alone(self, address: Address) -> bool:
        link = self.store.link(address)
        if link is None:
            return False
        contact = self.store.history(link.noun.contact_id).contact.noun
        return contact.addresses == (address,)

    # What was said

    def _contents(
        self, contact_id: str, found: dict[Address, AddressLink | None], erased: Erased
    ) -> None:
        """The contact's conversations, with their messages and tickets' names."""
        for held in self.store.conversations_of(contact_id):
            conversation = held.noun
            for stored in self._messages(conversation):
                sender, _ = identity.sender(stored.noun.message)
                if stored.noun.finished or sender in found or _is_ours(stored.noun.message):
                    self._bury(stored, erased)
            self.store.forget_conversation(held)
            erased.conversations.add(conversation.id)
            if conversation.ticket and conversation.ticket not in erased.tickets:
                erased.tickets.append(conversation.ticket)

    def _messages(self, conversation: Conversation) -> Iterator[Held[Stored]]:
        """By their keys, and by the index for what came through an inbox that is gone by now."""
        helpdesks = self.deployment.document.helpdesks
        for party in (ASKONCE, *helpdesks):
            yield from self.store.party(party, conversation.id)
        yield from self.store.threaded(conversation.id)

    def _of_address(
        self, address: Address, found: dict[Address, AddressLink | None], erased: Erased
    ) -> None:
        """What came from an address, or went there without a conversation."""
        plain = address.removeprefix(identity.UNPROVEN)
        inboxes = {*self.deployment.document.inboxes, *self._wrote_through(plain)}
        for inbox in sorted(inboxes):
            for stored in self.store.party(inbox, plain):
                if self._is_theirs(stored.noun.message, found):
                    self._leave(stored.noun.message, found, erased)
                    self._bury(stored, erased)
            if plain == address:
                erased.lines += self.store.forget_feed(inbox, plain)
                self.store.forget_sending(inbox, plain)
        if plain == address:
            self._codes_of(address, erased)
        choice = self.store.opt_out(plain)
        if choice and choice.noun.choice == "out":
            erased.opted_out.add(plain)

    def _wrote_through(self, address: Address) -> Iterable[str]:
        link = self.store.link(address)
        history = self.store.history(link.noun.contact_id).conversations if link else ()
        return {p.inbox for c in history for p in c.noun.participants if p.address == address}

    def _is_theirs(self, message: Message, found: dict[Address, AddressLink | None]) -> bool:
        """Not somebody's who had the address before, nor somebody's who only claimed to."""
        sender, _ = identity.sender(message)
        link = found.get(sender)
        since = identity.owned_since(link) if link else None
        return sender in found and (since is None or message.received_at >= since)

    def _leave(
        self, message: Message, found: dict[Address, AddressLink | None], erased: Erased
    ) -> None:
        """Take the person out of a conversation that is another one's."""

        def left(conversation: Conversation) -> Conversation:
            here = [p for p in conversation.participants if p.sender not in found]
            parted = conversations.parted(conversation, lambda q: q.asked_by in found, self.clock())
            questions = tuple(
                q.model_copy(
                    update={"doubts": tuple(d for d in q.doubts if d.message_id != message.id)}
                )
                for q in parted.questions
            )
            return parted.model_copy(update={"participants": tuple(here), "questions": questions})

        verdict = message.verdict
        for name in {message.conversation_id, verdict and verdict.closest_conversation_id}:
            conversation = self.store.amend(name, left) if name else None
            if conversation:  # the message may be the one that tells where it lies
                self.store.remember(Home.of(conversation))
            for stored in self._messages(conversation) if conversation else ():
                if _is_ours(stored.noun.message) and stored.noun.message.address in found:
                    self._bury(stored, erased)

    def _codes_of(self, address: Address, erased: Erased) -> None:
        """Codes on their way to an address, and the one expected back from it."""
        expected = self.store.challenge(digest(address))
        if expected:
            carrier = self.store.message(expected.noun.message_id)
            if carrier:
                self._bury(carrier, erased)
            self.store.commit(gone=[expected])
        for stored in self.store.party(ASKONCE, address):
            held = self.store.challenge(stored.noun.message.external_id.partition(":")[2])
            if held and held.noun.claimed == address:
                self.store.commit(gone=[held])
            self._bury(stored, erased)

    def _bury(self, held: Held[Stored], erased: Erased) -> None:
        """Leave a husk of a message. Its files go first: only the message knows their names."""
        while not held.noun.erased:
            Crowd(self.store, self.deployment, self.clock, self.report).forget(held.noun)
            erased.files += self.store.forget_files(held.noun)
            try:
                self.store.commit(Held(Husk.of(held.noun), held.version))
            except ConflictError:
                again = self.store.message(held.noun.message.id)
                if again is None:
                    return
                held = again
                continue
            erased.messages += 1
            return

    # Who is who

    def _names(self, contact_id: str) -> None:
        """The contact and its links, in one commit."""
        contact = self.store.history(contact_id).contact
        links = [self.store.link(a) for a in contact.noun.addresses]
        gone = [held for held in links if held and held.noun.contact_id == contact_id]
        self.store.forget_opinions(contact_id)
        if contact.version:
            self.store.commit(gone=[*gone, contact])


def _is_ours(message: Message) -> bool:
    return message.direction is Direction.OUTBOUND
