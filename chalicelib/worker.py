"""What the steps that work on one message share: having it to itself, and whom it goes to."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from chalicelib import identity
from chalicelib.desks import Watched
from chalicelib.errors import ConflictError, RejectedError, RetryableError
from chalicelib.items import Held, Step, Stored, first_message_id
from chalicelib.policy import Language
from chalicelib.ports import Connector
from chalicelib.schema import AddressLink, Conversation, Message, Participant
from chalicelib.settings import Deployment
from chalicelib.store import Store

#: Where a helpdesk's requests come in, as an inbox's do under its name; no inbox can have it.
REPLIES = "replies/"
#: The source of what a helpdesk is asked for.
POLLED = "polled"


#: Files lie in memory on their way out, some copies of each: those of one message at a time,
#: however many conversations are worked on.
_files = threading.Lock()


def turn_of(message: Message) -> AbstractContextManager[object]:
    """Its turn, for a message with files; any other one needs none."""
    return _files if message.attachments else nullcontext()


class Claim:
    """A message that one worker has to itself, as it is stored now."""

    def __init__(self, store: Store, held: Held[Stored], report: Callable[..., None]) -> None:
        self._store = store
        self._held = held
        self._report = report

    @property
    def noun(self) -> Stored:
        return self._held.noun

    def record(self, **changes: Any) -> None:
        """Write how far it has come. ConflictError if the claim ran out and another has it now."""
        changed = self._held.change(**changes)
        self._store.commit(changed)
        self._held = replace(changed, version=changed.version + 1)

    def finish(self, step: Step, **changes: Any) -> None:
        """Write how it ended, and let go of it."""
        try:
            self.record(step=step, claimed_until=None, sending=False, **changes)
        except ConflictError:
            self._report("claim.lost", message=self.noun.message.id)


W = TypeVar("W", bound="Worker")


@dataclass(frozen=True)
class Worker:
    """Works on stored messages, over a store and the configured connectors and helpdesks."""

    store: Store
    deployment: Deployment
    clock: Callable[[], datetime]
    report: Callable[..., None]

    @property
    def _agents_language(self) -> Language:
        """Of notes for agents."""
        return self.deployment.document.policy.agents_language

    def _as(self, kind: type[W]) -> W:
        """Another worker over the same things."""
        return kind(self.store, self.deployment, self.clock, self.report)

    def _helpdesk(self, name: str) -> Watched:
        """A configured helpdesk, called only when it may be."""
        return Watched(self.deployment.helpdesk(name), self.store, self.clock, self.report)

    def _claim(self, held: Held[Stored], lease_seconds: float, **changes: bool) -> Claim:
        claimed = self.store.claim(held, lease_seconds, **changes)
        if claimed is None:
            raise RetryableError("another worker has it", retry_after_seconds=lease_seconds)
        self.report("claimed", message=held.noun.message.id)
        return Claim(self.store, claimed, self.report)

    def _latency_ms(self, message: Message) -> int:
        """How long ago it came to us."""
        return round((self.clock() - message.received_at).total_seconds() * 1000)

    def _conversation(self, message: Message) -> Conversation:
        conversation_id = message.conversation_id or ""
        began_it = message.id == first_message_id(conversation_id)
        held = self.store.conversation(conversation_id, message if began_it else None)
        if held is None:
            raise RejectedError("its conversation is gone")
        return held.noun

    def _connector(self, inbox: str) -> Connector:
        """An inbox to send through or fetch from; RejectedError if it is configured no more."""
        if self.deployment.kind(inbox) is None:
            raise RejectedError(f"the inbox {inbox} is not configured any more")
        return self.deployment.inbox(inbox)

    def _target(
        self,
        conversation: Conversation,
        message: Message | None = None,
        *,
        stays: bool = False,
    ) -> Participant | None:
        """The address used last, of those that still belong to the conversation's contact.

        What AskOnce says answers one message, and goes where that came from, or nowhere; `stays`
        says the same of any other message.
        """
        from chalicelib.conversations import ASKONCE

        for participant in conversation.participants:
            if message and (stays or message.author == ASKONCE):
                where = (participant.address, participant.inbox)
                if where != (message.address, message.inbox):
                    continue
            if self._may_hear(participant, conversation):
                return participant
        return None

    def _may_hear(self, participant: Participant, conversation: Conversation) -> bool:
        """Whether what is said in a conversation may go to an address, as of now."""
        link = self.store.link(participant.sender)
        if link is None or link.noun.contact_id != conversation.contact_id:
            return False
        return identity.may_hear(conversation.questions, link.noun, is_fresh=self._is_fresh)

    def _is_fresh(self, link: AddressLink) -> bool:
        """Whether an address counts as proven at this moment."""
        return self.deployment.document.policy.contacts.is_fresh(link, self.clock())
