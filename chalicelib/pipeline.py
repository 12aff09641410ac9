"""The life of a question, from webhook to ticket and back: read it from top to bottom.

    accept        a provider's webhook: verify, parse, store once, acknowledge
    relay         the table's stream: resolve what was stored, then queue it
    resolve       whose is it, was it asked before, which conversation: one commit
    forward       the queue to the helpdesk: open a ticket or add to it
    accept_reply  the helpdesk's webhook: verify, parse, store once, acknowledge
    deliver       the queue to the channel the customer used last
    tick          once a minute: drive what is stuck, note what is late

Every step may run twice and stop anywhere. `report` is called after each effect: it is the log,
what `askonce tail` shows, and where tests pull the plug.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from chalicelib import identity, repeats
from chalicelib.contacts import Contacts
from chalicelib.errors import (
    ConflictError,
    NotFoundError,
    PayloadError,
    RejectedError,
    RetryableError,
    TooLargeError,
)
from chalicelib.policy import Mode, language_of
from chalicelib.ports import (
    Connector,
    Helpdesk,
    HostedConnector,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import (
    AddressLink,
    Answer,
    Attachment,
    Conversation,
    Direction,
    Kind,
    Level,
    Message,
    Outcome,
    Participant,
    Priority,
    Reply,
    State,
    Ticket,
    TicketChange,
    Verdict,
    message_id,
)
from chalicelib.settings import Deployment
from chalicelib.store import (
    Held,
    History,
    Home,
    Quarantined,
    Reference,
    Step,
    Store,
    Stored,
    TicketHome,
)

ASKONCE = "askonce"
_TRIES = 8


@dataclass(frozen=True)
class Pipeline:
    """The steps, over a store and the configured connectors and helpdesks."""

    store: Store
    deployment: Deployment
    clock: Callable[[], datetime]
    report: Callable[..., None]
    #: The longest that one call to the store takes.
    worst_call_seconds: float = 4.0

    # accept

    def accept(self, inbox: str, request: WebhookRequest) -> WebhookResponse:
        """Take a provider's webhook. WebhookError, ConfigurationError.

        When this returns, every message in it is durable.
        """
        connector = self._inbox(inbox)
        if len(request.body) > connector.max_body_bytes:
            raise TooLargeError(f"over {connector.max_body_bytes} bytes")
        if probe := connector.handshake(request):
            return probe
        connector.verify(request)
        try:
            messages = connector.parse(request)
        except PayloadError as error:
            self._quarantine(inbox, request, str(error))
            return connector.acknowledge(())
        stored = [self._store(message) for message in messages]
        return connector.acknowledge(messages, self._answer_in_response(connector, stored, request))

    def response_headers(self, inbox: str, request: WebhookRequest) -> Mapping[str, str]:
        """Headers that even a refusal needs, or a browser keeps it from its page."""
        return self._inbox(inbox).response_headers(request)

    def _inbox(self, name: str) -> Connector:
        if not self.deployment.serves(name):
            raise NotFoundError(f"no inbox {name}")
        return self.deployment.inbox(name)

    def _store(self, message: Message) -> Held[Stored]:
        held, new = self.store.add(message)
        self.report(
            "accepted" if new else "redelivered",
            inbox=message.inbox,
            channel=message.channel.value,
            direction=message.direction.value,
            kind=message.kind.value,
            message=message.id,
        )
        return held

    def _quarantine(self, inbox: str, request: WebhookRequest, reason: str) -> None:
        identity_ = hashlib.sha256(inbox.encode() + b"\0" + request.body).hexdigest()[:24]
        new = self.store.quarantine(
            Quarantined(
                id=identity_,
                inbox=inbox,
                reason=reason,
                received_at=request.received_at,
                method=request.method,
                headers={name: list(values) for name, values in request.headers.items()},
                query=list(request.query),
                body=request.body,
            )
        )
        self.report("quarantined", inbox=inbox, quarantine=identity_, new=new, why=reason)

    def retry_quarantined(self, quarantine_id: str) -> int:
        """Read a quarantined request with today's code; returns how many messages it held.

        NotFoundError, PayloadError when it is still unreadable.
        """
        held = self.store.quarantined(quarantine_id)
        if held is None:
            raise NotFoundError(f"nothing in quarantine under {quarantine_id}")
        request = WebhookRequest(
            method=held.method,
            headers=held.headers,
            query=held.query,
            body=held.body or b"",
            received_at=held.received_at,
        )
        messages = self.deployment.inbox(held.inbox).parse(request)
        for message in messages:
            self._store(message)
        self.store.release(quarantine_id)
        return len(messages)

    def _answer_in_response(
        self, connector: Connector, stored: Sequence[Held[Stored]], request: WebhookRequest
    ) -> Message | None:
        """What can be answered at once, where the channel can hear it; None leaves it to relay."""
        seconds = connector.capabilities.answers_within_seconds
        if seconds is None or len(stored) != 1:
            return None
        until = request.received_at + timedelta(seconds=seconds - self.worst_call_seconds)
        resolved = self.resolve(stored[0].noun.message.id, held=stored[0], respond_until=until)
        message = resolved.noun.message if resolved else None
        if not message or not message.verdict or not message.verdict.said_in_response:
            return None
        return self._said(message, message.verdict.said or "")

    # relay and resolve

    def relay(self, stored_id: str, attempt: str = "") -> None:
        """Bring a stored message to its queue. Called by the stream, and by tick."""
        held = self.store.message(stored_id)
        if held is None:
            return
        if held.noun.message.direction is Direction.INBOUND:
            self._relay_inbound(held, attempt)
        else:
            self._relay_outbound(held, attempt)

    def _relay_inbound(self, held: Held[Stored], attempt: str) -> None:
        resolved = self.resolve(held.noun.message.id, held=held)
        if resolved is None:
            return
        message = resolved.noun.message
        self._show(message)
        if message.conversation_id and self._threads(message.inbox):
            self.store.remember(_reference_to(message, message.external_id))
        if resolved.noun.step is Step.RESOLVED:
            self.store.enqueue(message, attempt=attempt)
            self.report("queued", message=message.id, conversation=message.conversation_id)

    def _relay_outbound(self, held: Held[Stored], attempt: str) -> None:
        stored, message = held.noun, held.noun.message
        if message.author != ASKONCE and message.conversation_id:
            self.store.amend(message.conversation_id, lambda c: _answered(c, message))
        if stored.step is Step.ACCEPTED:
            self.store.enqueue(message, attempt=attempt)
            self.report("queued", message=message.id, conversation=message.conversation_id)
        elif stored.step is Step.UNDELIVERED:
            self.store.enqueue_note(stored, attempt=attempt)
        elif stored.step is Step.DONE:
            self._show(message)

    def _show(self, message: Message) -> None:
        """On a channel that we host, let the customer see it."""
        if self._is_configured(message.inbox) and isinstance(
            self.deployment.inbox(message.inbox), HostedConnector
        ):
            self.store.feed_append(message)

    def _threads(self, inbox: str) -> bool:
        return self._is_configured(inbox) and self.deployment.inbox(inbox).capabilities.threads

    def _is_configured(self, inbox: str) -> bool:
        """An inbox may be gone from the configuration while its messages are on their way."""
        return inbox in self.deployment.document.inboxes

    def resolve(
        self,
        stored_id: str,
        *,
        held: Held[Stored] | None = None,
        respond_until: datetime | None = None,
    ) -> Held[Stored] | None:
        """Give a message its contact, verdict and conversation, in one commit. Safe to repeat.

        With `respond_until`, whatever AskOnce says goes out in the HTTP response; past that time
        nothing is done, and relay does it. None if the message is gone or time ran out.
        """
        for _ in range(_TRIES):
            held = held or self.store.message(stored_id)
            if held is None or held.noun.step is not Step.ACCEPTED:
                return held
            try:
                return self._resolve(held, respond_until)
            except ConflictError:
                held = None  # somebody else wrote to the contact or the message: decide again
        raise RetryableError("the contact keeps changing")

    def _resolve(self, held: Held[Stored], respond_until: datetime | None) -> Held[Stored] | None:
        message = held.noun.message
        if self._too_late(respond_until):
            return None
        link = self._contacts.of(message)
        history = self.store.history(link.noun.contact_id)
        thread = self.store.conversation_of_reference(message.inbox, message.references)
        if self._too_late(respond_until):
            return None
        verdict = repeats.judge(
            message,
            [c.noun for c in history.conversations],
            sender=link.noun.address,
            thread=thread,
            policy=self.deployment.document.policy.repeats,
            now=self.clock(),
        )
        if verdict.outcome is Outcome.IGNORED:
            return self._commit(held, verdict, None, link, history, respond_until)
        conversation = self._joined(message, verdict, history, link) or Held(
            self._new_conversation(message, link)
        )
        verdict = self._say(message, verdict, conversation.noun, link, respond_until)
        if verdict.said:
            conversation = conversation.change(last_said_at=self.clock())
        return self._commit(held, verdict, conversation, link, history, respond_until)

    def _too_late(self, until: datetime | None) -> bool:
        return until is not None and self.clock() > until

    @property
    def _contacts(self) -> Contacts:
        return Contacts(self.store, self.clock)

    def _joined(
        self, message: Message, verdict: Verdict, history: History, link: Held[AddressLink]
    ) -> Held[Conversation] | None:
        """The conversation that the verdict joins, this message counted; None for a new one."""
        if verdict.outcome is Outcome.NEW:
            return None
        found = next(
            c for c in history.conversations if c.noun.id == verdict.closest_conversation_id
        )
        repeated = verdict.outcome is Outcome.REPEAT
        reopens = found.noun.state is State.CLOSED and repeats.is_question(message)
        return found.change(
            state=State.OPEN if reopens and not repeated else found.noun.state,
            participants=_with_participant(found.noun, message, link.noun),
            last_active_at=max(found.noun.last_active_at, message.received_at),
            asked_times=found.noun.asked_times + (1 if repeated else 0),
            priority=Priority.HIGH if repeated else found.noun.priority,
        )

    def _new_conversation(self, message: Message, link: Held[AddressLink]) -> Conversation:
        words = message.words
        category, priority, due_at = self.deployment.document.policy.categorise(
            words, message.received_at
        )
        _, level = identity.sender(message)
        conversation = Conversation(
            # Of the message's id, so that a commit whose answer got lost is found, not repeated.
            id="q" + message.id[1:],
            reference=_reference(),
            contact_id=link.noun.contact_id,
            asked_at=message.received_at,
            asked_by=link.noun.address,
            asked_by_level=level,
            question=words[:2000],
            first_message_id=message.id,
            language=language_of([words]),
            category=category,
            priority=priority,
            last_active_at=message.received_at,
            first_reply_due_at=due_at,
        )
        return conversation.model_copy(
            update={"participants": _with_participant(conversation, message, link.noun)}
        )

    def _say(
        self,
        message: Message,
        verdict: Verdict,
        conversation: Conversation,
        link: Held[AddressLink],
        respond_until: datetime | None,
    ) -> Verdict:
        """The verdict, with what the customer hears at once, or what the agent gets proposed."""
        if verdict.outcome is not Outcome.REPEAT:
            return verdict
        document = self.deployment.document
        if document.policy.repeats.mode is Mode.SUGGEST:
            answer = conversation.answer
            return verdict.model_copy(update={"proposed": answer.text if answer else None})
        if why := self._why_silent(message, conversation, link.noun):
            return verdict.model_copy(update={"kept_silent": why})
        kind = "answered" if conversation.answer else "in_progress"
        said = getattr(document.wording, kind)(conversation, language_of([message.words]))
        if not said:
            return verdict.model_copy(update={"kept_silent": "the wording is empty"})
        in_response = respond_until is not None
        return verdict.model_copy(
            update={"said": said, "said_kind": kind, "said_in_response": in_response}
        )

    def _why_silent(
        self, message: Message, conversation: Conversation, link: AddressLink
    ) -> str | None:
        """Why a repeat is not answered, in an agent's words; None if it may be."""
        if link.level is not Level.VERIFIED:
            return "the sender is not proven: an answer would reach the address's owner"
        if not identity.may_disclose(conversation, link.address, link):
            return "who asked first is not proven to be the same person"
        if message.automatic:
            return "a machine sent it"
        if self.deployment.document.policy.spoke_lately(conversation, self.clock()):
            return "AskOnce spoke in this conversation a moment ago"
        return None

    def _said(self, message: Message, text: str) -> Message:
        """The outbound message in which AskOnce itself speaks; always the same one."""
        return Message(
            id=message_id("said", message.id),
            direction=Direction.OUTBOUND,
            channel=message.channel,
            connector=message.connector,
            inbox=message.inbox,
            external_id=message.id,
            address=message.address,
            account=message.account,
            author=ASKONCE,
            kind=Kind.TEXT,
            text=text,
            subject=_answer_subject(message.subject),
            references=(message.external_id, *message.references),
            automatic=True,
            sent_at=message.received_at,
            received_at=message.received_at,
            contact_id=message.contact_id,
            conversation_id=message.conversation_id,
        )

    def _commit(  # everything that one decision writes
        self,
        held: Held[Stored],
        verdict: Verdict,
        conversation: Held[Conversation] | None,
        link: Held[AddressLink],
        history: History,
        respond_until: datetime | None,
    ) -> Held[Stored] | None:
        """Write the decision: message, conversation, contact, and what AskOnce says."""
        message = held.noun.message.model_copy(
            update={
                "contact_id": link.noun.contact_id,
                "conversation_id": conversation.noun.id if conversation else None,
                "verdict": verdict,
            }
        )
        step = Step.RESOLVED if conversation else Step.DONE
        resolved = held.change(message=message, step=step)
        puts: list[Held[Any]] = [resolved]
        if conversation:
            puts.append(conversation)
            if not conversation.version:
                puts.append(Held(_home(conversation.noun)))
        contact = self._contacts.suggest(history, message)
        if (conversation and not conversation.version) or contact != history.contact.noun:
            # The contact's version serialises new questions: of two at once, one sees the other.
            puts.append(Held(contact, history.contact.version))
        if verdict.said:
            step = Step.DONE if verdict.said_in_response else Step.ACCEPTED
            puts.append(Held(Stored(message=self._said(message, verdict.said), step=step)))
        if self._too_late(respond_until):
            return None
        self.store.commit(*puts)
        self.report(
            "resolved",
            message=message.id,
            outcome=verdict.outcome.value,
            rule=verdict.rule,
            score=verdict.score,
            said=verdict.said_kind,
            conversation=message.conversation_id,
        )
        return replace(resolved, version=held.version + 1)

    # forward

    def forward(self, stored_id: str, lease_seconds: float = 60.0) -> None:
        """Bring a message to the helpdesk: one effect, however often it runs. RetryableError."""
        held = self.store.message(stored_id)
        if held is None or not _for_helpdesk(held.noun):
            return
        claimed = self._claim(held, lease_seconds)
        try:
            self._forward(claimed)
        except RejectedError as error:
            self._finish(claimed, Step.FAILED, failure=str(error))
            self.report("forward.rejected", message=stored_id, why=str(error))
        except RetryableError:
            # The helpdesk's idempotency key covers a call whose end we don't know.
            self._finish(claimed, claimed.noun.step)
            raise

    def _claim(self, held: Held[Stored], lease_seconds: float) -> Held[Stored]:
        claimed = self.store.claim(held, lease_seconds)
        if claimed is None:
            raise RetryableError("another worker has it", retry_after_seconds=lease_seconds)
        self.report("claimed", message=held.noun.message.id)
        return claimed

    def _finish(self, claimed: Held[Stored], step: Step, **changes: Any) -> None:
        """Write how it ended, unless our claim ran out and another worker has it now."""
        try:
            self.store.commit(claimed.change(step=step, claimed_until=None, **changes))
        except ConflictError:
            self.report("claim.lost", message=claimed.noun.message.id)

    def _forward(self, claimed: Held[Stored]) -> None:
        stored, message = claimed.noun, claimed.noun.message
        conversation = self._conversation(message)
        helpdesk_name = self.deployment.helpdesk_of(message.inbox)
        helpdesk = self.deployment.helpdesk(helpdesk_name)
        if message.direction is Direction.OUTBOUND:
            self._note_undelivered(claimed, helpdesk, conversation)
            return
        message = self._with_files(message)
        ticket = conversation.ticket or self._open(helpdesk_name, helpdesk, conversation, message)
        if message.id != self._opener(conversation, message):
            helpdesk.add_comment(ticket.id, message, conversation, idempotency_key=message.id)
            self.report("commented", message=message.id, ticket=ticket.id)
        for n, note in enumerate(_notes(message)):
            helpdesk.add_note(
                ticket.id, note, conversation, idempotency_key=f"{message.id}-note{n}"
            )
        self._finish(claimed, Step.DONE, message=_without_bytes(message))
        self.report("forwarded", message=stored.message.id, ticket=ticket.id)

    def _conversation(self, message: Message) -> Conversation:
        held = self.store.conversation(message.conversation_id or "")
        if held is None:
            raise RejectedError("its conversation is gone")
        return held.noun

    def _opener(self, conversation: Conversation, message: Message) -> str:
        """Which message opens the ticket: the first, unless the helpdesk refused that one."""
        if message.id == conversation.first_message_id:
            return message.id
        first = self.store.message(conversation.first_message_id)
        if conversation.ticket is None and (first is None or first.noun.step is Step.FAILED):
            return message.id
        return conversation.first_message_id

    def _open(
        self, name: str, helpdesk: Helpdesk, conversation: Conversation, message: Message
    ) -> Ticket:
        """The conversation's ticket, opened once: keyed by the conversation, and remembered."""
        opener = self._opener(conversation, message)
        first = message
        if opener != message.id and (held := self.store.message(opener)):
            first = self._with_files(held.noun.message)
        ticket_id = helpdesk.open_ticket(first, conversation, idempotency_key=conversation.id)
        ticket = Ticket(helpdesk=name, id=ticket_id)
        self.report("ticket.opened", message=first.id, ticket=ticket_id)
        self.store.remember(TicketHome(ticket=ticket, conversation_id=conversation.id))
        self.store.amend(conversation.id, lambda c: c.model_copy(update={"ticket": ticket}))
        return ticket

    def _with_files(self, message: Message) -> Message:
        """The message with its files in the bucket and in memory, fetched where need be."""
        connector = self.deployment.inbox(message.inbox)
        attachments = tuple(
            self._fetched(connector, message, n, a) for n, a in enumerate(message.attachments)
        )
        return message.model_copy(update={"attachments": attachments})

    def _fetched(
        self, connector: Connector, message: Message, number: int, attachment: Attachment
    ) -> Attachment:
        if attachment.key or not attachment.source or attachment.unavailable:
            return self.store.load(attachment)
        try:
            content = connector.fetch(attachment)
        except RejectedError as error:
            return attachment.model_copy(update={"unavailable": str(error)})
        kept = self.store.keep(message, number, attachment.model_copy(update={"content": content}))
        return self.store.load(kept)

    def _note_undelivered(
        self, claimed: Held[Stored], helpdesk: Helpdesk, conversation: Conversation
    ) -> None:
        """Tell the agents what a customer did not get."""
        stored = claimed.noun
        if conversation.ticket:
            helpdesk.add_note(
                conversation.ticket.id,
                f"Not delivered: {stored.failure}",
                conversation,
                idempotency_key=f"{stored.message.id}-undelivered",
            )
        self._finish(claimed, Step.FAILED)
        self.report("noted", message=stored.message.id)

    # accept_reply

    def accept_reply(self, helpdesk_name: str, request: WebhookRequest) -> WebhookResponse:
        """Take a helpdesk's webhook. WebhookError; NotFoundError for a ticket that is not ours."""
        helpdesk = self.deployment.helpdesk(helpdesk_name)
        if len(request.body) > helpdesk.max_body_bytes:
            raise TooLargeError(f"over {helpdesk.max_body_bytes} bytes")
        helpdesk.verify(request)
        try:
            found = helpdesk.parse(request)
        except PayloadError as error:
            self._quarantine(f"replies-{helpdesk_name}", request, str(error))
            return helpdesk.acknowledge()
        for item in found:
            ticket = Ticket(helpdesk=helpdesk_name, id=item.ticket_id)
            conversation_id = self.store.conversation_of_ticket(ticket)
            if conversation_id is None:
                raise NotFoundError("a ticket that we did not open")
            if isinstance(item, TicketChange):
                self._change_state(conversation_id, item)
            else:
                self._store_reply(helpdesk_name, conversation_id, item, request)
        return helpdesk.acknowledge()

    def _change_state(self, conversation_id: str, change: TicketChange) -> None:
        def changed(conversation: Conversation) -> Conversation:
            answered = State.ANSWERED if conversation.answer else State.OPEN
            state = State.CLOSED if change.state == "closed" else answered
            due_at = None if state is State.CLOSED else conversation.first_reply_due_at
            return conversation.model_copy(update={"state": state, "first_reply_due_at": due_at})

        self.store.amend(conversation_id, changed)
        self.report("ticket.changed", conversation=conversation_id, state=change.state)

    def _store_reply(
        self, helpdesk_name: str, conversation_id: str, reply: Reply, request: WebhookRequest
    ) -> None:
        held = self.store.conversation(conversation_id)
        target = self._target(held.noun) if held else None
        if held is None or target is None:
            raise NotFoundError("the ticket's conversation has no address to reply to")
        self._store(
            _addressed(
                Message(
                    id=message_id("reply", helpdesk_name, reply.external_id),
                    direction=Direction.OUTBOUND,
                    channel=target.channel,
                    connector=helpdesk_name,
                    inbox=target.inbox,
                    external_id=reply.external_id,
                    address=target.address,
                    author=reply.author,
                    kind=Kind.TEXT,
                    text=reply.text,
                    attachments=reply.attachments,
                    sent_at=reply.sent_at,
                    received_at=request.received_at,
                    contact_id=held.noun.contact_id,
                    conversation_id=conversation_id,
                ),
                target,
            )
        )

    def _target(self, conversation: Conversation) -> Participant | None:
        """The address used last, of those that still belong to the conversation's contact."""
        for participant in conversation.participants:
            link = self.store.link(participant.sender)
            if link and link.noun.contact_id == conversation.contact_id:
                return participant
        return None

    # deliver

    def deliver(self, stored_id: str, lease_seconds: float = 60.0) -> None:
        """Send an outbound message where the customer wrote last. RetryableError.

        A try whose end is unknown is repeated only where the channel can tell; elsewhere the
        agent hears that it may not have arrived.
        """
        held = self.store.message(stored_id)
        if held is None or held.noun.step is not Step.ACCEPTED:
            return
        unknown_end = held.noun.claimed_until is not None
        claimed = self._claim(held, lease_seconds)
        try:
            self._deliver(claimed, unknown_end=unknown_end)
        except RejectedError as error:
            self._undelivered(claimed, str(error))
        except RetryableError:
            self._finish(claimed, Step.ACCEPTED)
            raise

    def _deliver(self, claimed: Held[Stored], *, unknown_end: bool) -> None:
        message = claimed.noun.message
        conversation = self._conversation(message)
        target = self._target(conversation)
        if target is None:
            raise RejectedError("no address of this person is left to reply to")
        if message.author != ASKONCE:  # what AskOnce says answers one message, where that came in
            message = _addressed(message, target)
        connector = self.deployment.inbox(message.inbox)
        if unknown_end and not connector.capabilities.resends_safely:
            raise RejectedError(_MAY_HAVE_ARRIVED)
        loaded = tuple(self.store.load(a) for a in message.attachments)
        try:
            provider_id = connector.send(message.model_copy(update={"attachments": loaded}))
        except RetryableError as error:
            if error.uncertain and not connector.capabilities.resends_safely:
                raise RejectedError(_MAY_HAVE_ARRIVED) from error
            raise
        self.report("sent", message=message.id, inbox=message.inbox)
        if connector.capabilities.threads:
            self.store.remember(_reference_to(message, provider_id))
        self._show(message)
        self._finish(claimed, Step.DONE, message=message, provider_id=provider_id)
        self.report("delivered", message=message.id, inbox=message.inbox)

    def _undelivered(self, claimed: Held[Stored], why: str) -> None:
        self._finish(claimed, Step.UNDELIVERED, failure=why)
        self.report("undelivered", message=claimed.noun.message.id, why=why)
        self.store.enqueue_note(claimed.noun)

    # hosted channels

    def read(self, inbox: str, request: WebhookRequest, after: int) -> WebhookResponse:
        """What a customer of a channel that we host may read, after a sequence number."""
        connector = self._hosted(inbox)
        address = connector.reader(request)
        return connector.transcript(self.store.feed_after(inbox, address, after), after)

    def page(self, inbox: str, name: str, request: WebhookRequest) -> WebhookResponse:
        """A page of a hosted channel's own."""
        return self._hosted(inbox).page(name, request)

    def _hosted(self, inbox: str) -> HostedConnector:
        connector = self._inbox(inbox)
        if not isinstance(connector, HostedConnector):
            raise NotFoundError(f"inbox {inbox} has no pages")
        return connector

    # tick

    def tick(self) -> None:
        """Drive again what should be finished by now, and tell agents of replies that are late."""
        now = self.clock()
        for stored_id in self.store.stuck(now):
            held = self.store.message(stored_id)
            if held and not held.noun.finished and self.store.postpone(held):
                self.report("stuck", message=stored_id, drives=held.noun.drives + 1)
                self.relay(stored_id, attempt=f"-{held.noun.drives + 1}")
        for conversation in self.store.overdue(now):
            self._note_overdue(conversation.noun)

    def _note_overdue(self, conversation: Conversation) -> None:
        due_at, ticket = conversation.first_reply_due_at, conversation.ticket
        if ticket is None or due_at is None:
            return  # without a ticket nobody could reply: the message itself is stuck, and driven
        try:
            self.deployment.helpdesk(ticket.helpdesk).add_note(
                ticket.id,
                f"The first reply is late: it was due by {due_at:%H:%M} UTC.",
                conversation,
                idempotency_key=f"{conversation.id}-overdue",
            )
        except (RetryableError, RejectedError) as error:
            self.report("overdue.untold", conversation=conversation.id, why=str(error))
            return
        self.store.amend(
            conversation.id,
            lambda c: c.model_copy(update={"first_reply_due_at": None, "priority": Priority.HIGH}),
        )
        self.report("overdue", conversation=conversation.id)


_MAY_HAVE_ARRIVED = (
    "the connection broke while it was being sent, so it may or may not have arrived; "
    "send it again if the customer does not react"
)


def _for_helpdesk(stored: Stored) -> bool:
    """What the customer said, once resolved; what we could not send, for the agents to know."""
    inbound = stored.message.direction is Direction.INBOUND
    return stored.step is (Step.RESOLVED if inbound else Step.UNDELIVERED)


def _home(conversation: Conversation) -> Home:
    return Home(
        conversation_id=conversation.id,
        contact_id=conversation.contact_id,
        asked_at=conversation.asked_at,
    )


def _answered(conversation: Conversation, message: Message) -> Conversation:
    """The conversation after an agent's reply; an older reply never replaces a newer one."""
    if conversation.answer and conversation.answer.at >= message.sent_at:
        return conversation
    closed = conversation.state is State.CLOSED
    return conversation.model_copy(
        update={
            "answer": Answer(text=message.text, author=message.author, at=message.sent_at),
            "state": State.CLOSED if closed else State.ANSWERED,
            "last_active_at": max(conversation.last_active_at, message.received_at),
            "first_reply_due_at": None,
        }
    )


def _with_participant(
    conversation: Conversation, message: Message, link: AddressLink
) -> tuple[Participant, ...]:
    """Who wrote, latest first, each address once."""
    latest = Participant(
        address=message.address,
        sender=link.address,
        channel=message.channel,
        inbox=message.inbox,
        account=message.account,
        last_at=message.received_at,
        external_id=message.external_id,
        subject=message.subject,
    )
    others = [
        p for p in conversation.participants if (p.sender, p.inbox) != (latest.sender, latest.inbox)
    ]
    return tuple(sorted((latest, *others), key=lambda p: p.last_at, reverse=True))


def _addressed(message: Message, target: Participant) -> Message:
    """An outbound message on its way to where the customer wrote last."""
    return message.model_copy(
        update={
            "channel": target.channel,
            "inbox": target.inbox,
            "address": target.address,
            "account": target.account,
            "subject": _answer_subject(target.subject),
            "references": (target.external_id,) if target.external_id else (),
        }
    )


def _answer_subject(subject: str) -> str:
    if not subject or subject.lower().startswith(("re:", "re：", "回复", "答复")):
        return subject
    return f"Re: {subject}"


def _reference_to(message: Message, provider_id: str) -> Reference:
    return Reference(
        inbox=message.inbox,
        external_id=provider_id,
        conversation_id=message.conversation_id or "",
    )


def _notes(message: Message) -> list[str]:
    """What agents are told beside the customer's words."""
    notes: list[str] = []
    verdict = message.verdict
    if verdict and verdict.outcome in (Outcome.REPEAT, Outcome.RELATED):
        notes.append(_verdict_note(verdict, message))
    _, level = identity.sender(message)
    if level is Level.CLAIMED:
        notes.append(
            f"The sender is not proven ({identity.own_source(message)}): this may be "
            f"{message.address} or somebody else. Nothing was disclosed, no history was joined."
        )
    return notes


def _verdict_note(verdict: Verdict, message: Message) -> str:
    lines = [f"Asked again, by {message.channel.value}: {verdict.reason}."]
    if verdict.said:
        lines.append(f"AskOnce told the customer:\n{verdict.said}")
    elif verdict.kept_silent:
        lines.append(f"AskOnce said nothing: {verdict.kept_silent}.")
    elif verdict.proposed:
        lines.append(f"The earlier answer, to send again if it fits:\n{verdict.proposed}")
    return "\n".join(lines)


def _without_bytes(message: Message) -> Message:
    bare = tuple(a.model_copy(update={"content": None, "url": None}) for a in message.attachments)
    return message.model_copy(update={"attachments": bare})


_REFERENCE_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"


def _reference() -> str:
    """What people can read to each other: `Q-7F3K-2M4P`, without letters that look alike."""
    letters = "".join(secrets.choice(_REFERENCE_LETTERS) for _ in range(8))
    return f"Q-{letters[:4]}-{letters[4:]}"
