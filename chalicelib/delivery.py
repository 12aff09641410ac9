"""deliver: an outbound message goes out, once, to where the customer can be reached.

Asked before anything leaves: has the customer opted out there, and is the channel's window open?
Where it is closed, the inbox's `when_closed` decides: another verified address of the person, or
wait until they write again; the agents hear of it either way. A message that the channel wants in
several pieces is sent piece by piece, and goes on after a crash where it stopped.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from chalicelib import conversations, identity, ledgers, notes
from chalicelib.codes import Codes
from chalicelib.errors import (
    ClosedError,
    ConfigurationError,
    ConflictError,
    RejectedError,
    RetryableError,
)
from chalicelib.items import Held, Reference, Sent, Step, Stored
from chalicelib.ports import Connector, HostedConnector
from chalicelib.schema import (
    Attachment,
    Channel,
    Contact,
    Conversation,
    Delivery,
    Kind,
    Message,
    Participant,
)
from chalicelib.worker import Claim, Worker, turn_of

#: The channel on which an address of a scheme is written to.
_CHANNELS = {"email": Channel.EMAIL, "phone": Channel.SMS}
_KINDS = {"image": Kind.IMAGE, "audio": Kind.AUDIO, "video": Kind.VIDEO}


@dataclass(frozen=True)
class Deliverer(Worker):
    """The step `deliver`."""

    def deliver(self, stored_id: str, lease_seconds: float) -> None:
        """Send an outbound message. RetryableError.

        A try whose end is unknown is repeated only where the channel can tell; elsewhere the
        agent hears that it may not have arrived.
        """
        held = self.store.message(stored_id)
        if held is None or held.noun.step not in (Step.ACCEPTED, Step.HELD):
            return
        with turn_of(held.noun.message):
            self._work_on(held, lease_seconds)

    def _work_on(self, held: Held[Stored], lease_seconds: float) -> None:
        unknown_end = held.noun.sending
        claim = self._claim(held, lease_seconds, sending=True)
        try:
            self._deliver(claim, unknown_end=unknown_end)
        except RejectedError as error:
            self._undelivered(claim, str(error))
        except ConflictError:
            raise RetryableError("another worker has it", retry_after_seconds=1) from None
        except (RetryableError, ConfigurationError):
            claim.finish(claim.noun.step)
            raise

    def _deliver(self, claim: Claim, *, unknown_end: bool) -> None:
        message = claim.noun.message
        if unknown_end and not self._connector(message.inbox).capabilities.resends_safely:
            raise RejectedError(notes.MAY_HAVE_ARRIVED)
        half_sent = bool(claim.noun.provider_ids)
        conversation = self._conversation(message) if message.conversation_id else None
        if conversation and (why := self._why_not_any_more(message, conversation)):
            raise RejectedError(why)
        target = self._first_target(message, conversation, half_sent=half_sent)
        if target is None:
            raise RejectedError("no address of this person is left to reply to")
        own = message if half_sent else _addressed(message, target)
        own = self._with_agents_files(claim, own)
        lost = [a.name or a.media_type for a in own.attachments if a.unavailable]
        if lost and not own.text.strip() and len(lost) == len(own.attachments):
            raise RejectedError(notes.NO_FILES)
        note = notes.without_files(lost, self._agents_language) if lost else None
        try:
            self._send_all(claim, own, note)
        except ClosedError as closed:
            self._elsewhere_or_later(claim, own, str(closed))

    def _first_target(
        self, message: Message, conversation: Conversation | None, *, half_sent: bool
    ) -> Participant | None:
        """Where it goes: what is half sent stays where it began, if it may still go there."""
        if conversation is None:
            return _participant_of(message)
        return self._target(conversation, message, stays=half_sent)

    def _why_not_any_more(self, message: Message, conversation: Conversation) -> str | None:
        """Why what was written may not be sent after all; None if it may.

        Somebody who asked in the conversation may have turned out to be another person since.
        """
        if message.author == conversations.ASKONCE:
            return None if self.may_still_hear(message, conversation) else notes.NO_LONGER_PROVEN
        return notes.PARTED if conversations.is_outdated(conversation, message) else None

    def may_still_hear(self, message: Message, conversation: Conversation) -> bool:
        """Whether an earlier answer that AskOnce repeats may go to whom it was meant for."""
        answered = self.store.message(message.external_id)
        verdict = answered.noun.message.verdict if answered else None
        if answered is None or verdict is None:
            return False  # who was meant was erased
        if verdict.said_kind != "answered":
            return True
        closest = verdict.closest_message_id
        question = next((q for q in conversation.questions if q.message_id == closest), None)
        sender, _ = identity.sender(answered.noun.message)
        link, asker = (self.store.link(a) for a in (sender, question.asked_by if question else ""))
        return (
            question is not None
            and question.answer is not None  # or it was somebody's, too, who has left
            and link is not None
            and link.noun.contact_id == conversation.contact_id
            and identity.may_disclose(
                question, link.noun, asker.noun if asker else None, is_fresh=self._is_fresh
            )
        )

    # Sending

    def _send_all(self, claim: Claim, message: Message, note: str | None = None) -> None:
        """Every piece that has not gone yet, and then it is delivered. ClosedError."""
        if self._opted_out(message):
            raise RejectedError(notes.OPTED_OUT)
        connector = self._connector(message.inbox)
        sent = claim.noun.provider_ids
        pieces = connector.pieces(self._with_code(self._with_files(connector, message), sent))
        for number in range(len(sent), len(pieces)):
            sent = (*sent, self._send(connector, _numbered(pieces[number], number)))
            if number + 1 < len(pieces):
                claim.record(message=message, provider_ids=sent)
        self.show(message)
        claim.finish(
            Step.DONE,
            message=message,
            provider_ids=sent,
            delivery=Delivery.SENT,
            failure=None,
            untold=note,
        )
        self.report(
            "delivered",
            message=message.id,
            inbox=message.inbox,
            channel=message.channel.value,
            conversation=message.conversation_id,
            latency_ms=self._latency_ms(message),
        )
        if note:
            self.store.enqueue_note(claim.noun)

    def _with_code(self, message: Message, sent: Sequence[str]) -> Message:
        """With a one-time code in it, if it carries one; only the first piece can be trusted to."""
        filled = Codes(self.store, self.deployment, self.clock, self.report).filled(message)
        if sent and filled is not message:
            raise RejectedError(notes.MAY_HAVE_ARRIVED)
        return filled

    def _opted_out(self, message: Message) -> bool:
        """Whether nothing but the confirmation of that may go to the address."""
        held = self.store.opt_out(message.address)
        out = held is not None and held.noun.choice == "out"
        return out and held is not None and held.noun.confirmation_id != message.id

    def _with_files(self, connector: Connector, message: Message) -> Message:
        """With the files' bytes; those of a kind that the channel does not take, as links."""
        loaded = [self.store.load(a) for a in message.attachments]
        taken = [a for a in loaded if kind_of(a) in connector.capabilities.kinds_out]
        links = [a for a in loaded if a not in taken and a.url]
        text = "\n".join([message.text, *(f"{a.name or 'file'}: {a.url}" for a in links)]).strip()
        return message.model_copy(update={"attachments": tuple(taken), "text": text})

    def _with_agents_files(self, claim: Claim, message: Message) -> Message:
        """With the files that an agent sent in the bucket, fetched from the helpdesk once."""
        found = tuple(
            self._kept(message, n, a) if a.source and not (a.key or a.unavailable) else a
            for n, a in enumerate(message.attachments)
        )
        if found == message.attachments:
            return message
        message = message.model_copy(update={"attachments": found})
        claim.record(message=message)
        return message

    def _kept(self, message: Message, number: int, attachment: Attachment) -> Attachment:
        try:
            content = self._helpdesk(message.connector).fetch(attachment)
        except RejectedError as error:
            return attachment.model_copy(update={"unavailable": str(error)})
        return self.store.keep(message, number, attachment.model_copy(update={"content": content}))

    def _send(self, connector: Connector, piece: Message) -> str:
        self._take_window(connector, piece)
        try:
            provider_id = connector.send(piece)
        except ClosedError:
            self._close_window(piece)
            raise
        except RetryableError as error:
            if error.uncertain and not connector.capabilities.resends_safely:
                raise RejectedError(notes.MAY_HAVE_ARRIVED) from error
            raise
        whole, _, number = piece.id.partition("-")
        self.report("sent", message=whole, inbox=piece.inbox, piece=number or None)
        if connector.capabilities.receipts:
            self.store.remember(Sent(inbox=piece.inbox, external_id=provider_id, message_id=whole))
        if connector.capabilities.threads and piece.conversation_id:
            self.store.remember(
                Reference(
                    inbox=piece.inbox,
                    external_id=provider_id,
                    conversation_id=piece.conversation_id,
                )
            )
        return provider_id

    def _take_window(self, connector: Connector, piece: Message) -> None:
        """One message of an open window. ClosedError."""
        if not connector.capabilities.windows:
            return
        while True:
            held = self.store.sending(piece.inbox, piece.address)
            ledger = ledgers.taken(held.noun, piece.id, self.clock())
            if ledger is None:
                raise ClosedError(ledgers.why_closed(held.noun, self.clock()))
            if ledger == held.noun:
                return
            try:
                self.store.commit(held.change(grants=ledger.grants))
            except ConflictError:
                continue
            return

    def _close_window(self, piece: Message) -> None:
        """The provider counts otherwise than we do: it is right until the customer writes again."""
        held = self.store.sending(piece.inbox, piece.address)
        with suppress(ConflictError):  # the customer just wrote
            self.store.commit(held.change(grants={}))

    def show(self, message: Message) -> None:
        """On a channel that we host, let the customer see it."""
        kind = self.deployment.kind(message.inbox)
        if kind and issubclass(kind, HostedConnector):
            self.store.feed_append(message)

    # Where the window is closed

    def _elsewhere_or_later(self, claim: Claim, message: Message, why: str) -> None:
        """By another verified address of the person if the inbox wants that; else later."""
        if message.author == conversations.ASKONCE or message.conversation_id is None:
            raise RejectedError(why)
        whole = not claim.noun.provider_ids  # a message half sent stays on its channel
        if whole and self.deployment.when_closed(message.inbox) == "other_channel":
            for target in self._others(message):
                moved = _addressed(message, target)
                if self._opted_out(moved):
                    continue
                try:
                    return self._send_all(
                        claim, moved, notes.sent_elsewhere(why, moved, self._agents_language)
                    )
                except ClosedError:
                    continue
        return self._hold(claim, message, why)

    def _others(self, message: Message) -> Iterator[Participant]:
        """The other verified addresses of the contact, those in the conversation first."""
        conversation = self._conversation(message)
        contact = self.store.history(conversation.contact_id).contact.noun
        seen = {(message.address, message.inbox)}
        for other in (*conversation.participants, *self._known(contact)):
            if (other.address, other.inbox) in seen:
                continue
            seen.add((other.address, other.inbox))
            link = self.store.link(other.sender)
            if (
                link
                and link.noun.contact_id == conversation.contact_id
                and self._is_fresh(link.noun)
            ):
                yield other

    def _known(self, contact: Contact) -> Sequence[Participant]:
        """The contact's addresses that we can write to although nothing came from there."""
        found = []
        for address in contact.addresses:
            channel = _CHANNELS.get(address.partition(":")[0])
            inbox = self.deployment.first_inbox(channel) if channel else None
            if channel and inbox:
                found.append(
                    Participant(
                        address=address,
                        sender=address,
                        channel=channel,
                        inbox=inbox,
                        last_at=self.clock(),
                    )
                )
        return found

    def _hold(self, claim: Claim, message: Message, why: str) -> None:
        """Keep it until the customer writes again; tell the agents."""
        held = self.store.sending(message.inbox, message.address)
        ledger = ledgers.holding(held.noun, message.id)
        if ledgers.taken(ledger, "", self.clock()):
            raise RetryableError("the window opened just now", retry_after_seconds=0)
        try:
            self.store.commit(held.change(held=ledger.held))
        except ConflictError:
            raise RetryableError("the window is changing", retry_after_seconds=0) from None
        claim.finish(
            Step.HELD, message=message, failure=why, untold=notes.held(why, self._agents_language)
        )
        self.report("held", message=message.id, inbox=message.inbox, why=why)
        self.store.enqueue_note(claim.noun)

    def release(self, inbox: str, address: str, attempt: str) -> None:
        """Queue what waited for this customer to write again. Safe to repeat."""
        while waiting := (held := self.store.sending(inbox, address)).noun.held:
            for message_id in waiting:
                self._release_one(message_id, attempt)
            with suppress(ConflictError):  # the next round finds what else waits by now
                self.store.commit(held.change(held=()))

    def _release_one(self, message_id: str, attempt: str) -> None:
        stored = self.store.message(message_id)
        if stored is None:
            return
        if stored.noun.step is Step.HELD and not stored.noun.claimed_until:
            with suppress(ConflictError):  # whoever tells the agents has it: the queue is enough
                self.store.commit(stored.change(step=Step.ACCEPTED))
        self.store.enqueue(stored.noun.message, attempt=attempt)
        self.report("released", message=message_id)

    def _undelivered(self, claim: Claim, why: str) -> None:
        claim.finish(Step.FAILED, failure=why, untold=notes.undelivered(why, self._agents_language))
        message = claim.noun.message
        self.report(
            "undelivered",
            message=message.id,
            inbox=message.inbox,
            channel=message.channel.value,
            conversation=message.conversation_id,
            why=why,
        )
        self.store.enqueue_note(claim.noun)


def kind_of(attachment: Attachment) -> Kind:
    """What an attachment is to a channel."""
    return _KINDS.get(attachment.media_type.partition("/")[0], Kind.FILE)


def _numbered(piece: Message, number: int) -> Message:
    return piece.model_copy(update={"id": f"{piece.id}-{number}"}) if number else piece


def _addressed(message: Message, target: Participant) -> Message:
    if message.author == conversations.ASKONCE:
        return message
    return conversations.addressed(message, target)


def _participant_of(message: Message) -> Participant:
    return Participant(
        address=message.address,
        sender=message.address,
        channel=message.channel,
        inbox=message.inbox,
        account=message.account,
        last_at=message.received_at,
    )
