"""What a webhook says that is no message: a receipt, a notice to fetch something, a correction.

Stored with one write like a message, brought to a queue by the stream, done by a worker. A source
is one group of its queue: its cursor is read and moved by one worker at a time.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from chalicelib import notes
from chalicelib.contacts import Contacts, UnknownAddressError, decided
from chalicelib.corrections import Corrections
from chalicelib.errors import ConflictError, NotFoundError, RejectedError, RetryableError
from chalicelib.items import Held, Step, Stored
from chalicelib.policy import Language
from chalicelib.ports import Fetched, FetchingConnector, FromDesk, Polled
from chalicelib.replies import Replies
from chalicelib.schema import Conversation, Delivery, Instruction, Message, Notice, Receipt
from chalicelib.worker import REPLIES, Worker

#: A receipt may overtake the write that remembers what it is for, but not for long.
PATIENCE = timedelta(minutes=15)
#: The evidence of a link that an agent asked for.
AGENT = "agent"
#: Pages of one run; the queue brings the notice back for the rest.
_PAGES = 50
_ORDER = list(Delivery)
Keep = Callable[[Message | Receipt | Instruction], None]


@dataclass(frozen=True)
class Errands(Worker):
    """Receipts, notices and instructions, once they are stored."""

    def relay(self, errand_id: str, attempt: str = "") -> None:
        """Bring a stored errand to its queue."""
        held = self.store.errand(errand_id)
        if held and not held.noun.done:
            self.store.enqueue_errand(held.noun, attempt=attempt)

    def run(self, errand_id: str, keep: Keep) -> None:
        """Do it; what it fetches goes to `keep`. RetryableError."""
        held = self.store.errand(errand_id)
        if held is None or held.noun.done:
            return
        item = held.noun.item
        if isinstance(item, Receipt):
            self._note(item)
        elif isinstance(item, Notice) and item.inbox.startswith(REPLIES):
            self._poll(item, keep)
        elif isinstance(item, Notice):
            self._fetch(item, keep)
        else:
            self._correct(item)
        self.store.finish_errand(held)

    # Receipts

    def _note(self, receipt: Receipt) -> None:
        message_id = self.store.sent_as(receipt.inbox, receipt.external_id)
        if message_id is None:
            self._unknown(receipt)
            return
        while held := self.store.message(message_id):
            if held.noun.claimed_until and held.noun.claimed_until > self.clock():
                raise RetryableError("what this receipt is for is at work", retry_after_seconds=5)
            changed = after(held.noun, receipt, self._agents_language)
            try:
                if changed != held.noun:
                    self.store.commit(Held(changed, held.version))
            except ConflictError:
                continue
            self.report("receipt", message=message_id, state=receipt.state.value)
            if changed.untold:
                self.store.enqueue_note(changed)
            return

    def _unknown(self, receipt: Receipt) -> None:
        if self.clock() - receipt.received_at < PATIENCE:
            raise RetryableError(
                "what this receipt is for is not known yet", retry_after_seconds=60
            )
        # Somebody else sends through the same account: no business of ours.
        self.report("receipt.unknown", inbox=receipt.inbox, state=receipt.state.value)

    # Notices

    def _fetch(self, notice: Notice, keep: Keep) -> None:
        """What an inbox's provider has for us."""
        connector = self.deployment.inbox(notice.inbox)
        if not isinstance(connector, FetchingConnector):
            raise RejectedError(f"inbox {notice.inbox} fetches nothing")
        self._read(notice, lambda c: connector.fetch_messages(notice, c, self.clock()), keep)

    def _poll(self, notice: Notice, keep: Keep) -> None:
        """What a helpdesk's webhooks may have lost."""
        name = notice.inbox.removeprefix(REPLIES)
        watched, replies = self._helpdesk(name), self._as(Replies)

        def take(found: FromDesk) -> None:
            with suppress(NotFoundError):  # other tickets than ours are in the desk, too
                if said := replies.take(name, found, notice.received_at):
                    keep(said)

        self._read(notice, lambda c: watched.poll(c, self.clock()), take)

    def _read(
        self,
        notice: Notice,
        page_after: Callable[[str], Fetched | Polled],
        take: Callable[[Any], None],
    ) -> None:
        """Every page from where the source was read to; the place is saved after each."""
        for _ in range(_PAGES):
            cursor = self.store.cursor(notice.inbox, notice.source)
            page = page_after(cursor.noun.value)
            for found in page.found:
                take(found)
            if page.cursor and page.cursor != cursor.noun.value:
                self.store.commit(cursor.change(value=page.cursor))
            self.report("fetched", errand=notice.id, inbox=notice.inbox, count=len(page.found))
            if not page.more:
                return
        raise RetryableError("there is more to fetch", retry_after_seconds=0)

    # Instructions

    def _correct(self, told: Instruction) -> None:
        """Do what an agent said, or tell on the ticket why it cannot be done."""
        act = {
            "not_a_repeat": self._set_apart,
            "same_person": self._link,
            "different_person": self._unlink,
        }[told.correction.kind]
        try:
            done = act(told)
        except (NotFoundError, UnknownAddressError) as error:
            self.report("uncorrected", errand=told.id, why=type(error).__name__)
            done = notes.uncorrected(str(error), self._agents_language)
        if done:
            self._answer(told, done)

    def _set_apart(self, told: Instruction) -> str:
        """Both tickets get their notes with the message itself."""
        self._as(Corrections).correct(told.helpdesk, told.conversation_id, told.correction)
        return ""

    def _link(self, told: Instruction) -> str:
        """Another address is that of the person who began the conversation."""
        address, to = told.correction.address or "", self._conversation_of(told).asked_by
        decided(lambda: self._contacts.link(address, to, source=AGENT, by=told.correction.by))
        self.report("contacts.linked", conversation=told.conversation_id, source=AGENT)
        return notes.linked(address, self._agents_language)

    def _unlink(self, told: Instruction) -> str:
        """Whoever wrote last in the conversation is somebody else."""
        participants = self._conversation_of(told).participants
        if not participants:
            raise NotFoundError("nobody wrote on this ticket")
        address = participants[0].sender
        decided(lambda: self._contacts.unlink(address, by=told.correction.by))
        self.report("contacts.unlinked", conversation=told.conversation_id)
        return notes.unlinked(address, self._agents_language)

    @property
    def _contacts(self) -> Contacts:
        return Contacts(self.store, self.clock, self.deployment.document.policy.contacts)

    def _conversation_of(self, told: Instruction) -> Conversation:
        held = self.store.conversation(told.conversation_id)
        if held is None:
            raise NotFoundError("the conversation is gone")
        return held.noun

    def _answer(self, told: Instruction, note: str) -> None:
        conversation = self.store.conversation(told.conversation_id)
        if conversation is None:
            return  # erased meanwhile
        self._helpdesk(told.helpdesk).add_note(
            told.correction.ticket_id, note, conversation.noun, idempotency_key=told.id, again=True
        )


def after(stored: Stored, receipt: Receipt, language: Language) -> Stored:
    """A message after a receipt: a state never falls back, and a failure is told to agents once."""
    if stored.delivery and _ORDER.index(stored.delivery) >= _ORDER.index(receipt.state):
        return stored
    if receipt.state is not Delivery.FAILED:
        # It also tells how a send ended that a worker left half done.
        unknown_end = stored.sending and not stored.provider_ids
        known: dict[str, Any] = {"step": Step.DONE, "sending": False} if unknown_end else {}
        return stored.model_copy(update={"delivery": receipt.state, **known})
    why = receipt.reason or "the provider could not deliver it"
    return stored.model_copy(
        update={
            "delivery": receipt.state,
            "step": Step.FAILED,
            "sending": False,
            "failure": why,
            "untold": notes.undelivered(why, language),
        }
    )
