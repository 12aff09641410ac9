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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from chalicelib import conversations, notes, parts
from chalicelib.corrections import was_undone
from chalicelib.crowd import Crowd
from chalicelib.delivery import Deliverer
from chalicelib.errands import Errands
from chalicelib.errors import (
    ConfigurationError,
    DeliveryError,
    NotFoundError,
    PayloadError,
    RejectedError,
    RetryableError,
    TooLargeError,
)
from chalicelib.items import Held, Quarantined, Reference, Step, Stored, TicketHome, is_errand
from chalicelib.limits import Limits
from chalicelib.ports import (
    Connector,
    FromDesk,
    HostedConnector,
    Signal,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.resolve import Resolver
from chalicelib.schema import (
    Attachment,
    Conversation,
    Correction,
    Direction,
    Instruction,
    Kind,
    Message,
    Notice,
    Receipt,
    Reply,
    Ticket,
    TicketChange,
    digest,
    errand_id,
    message_id,
)
from chalicelib.worker import Claim, Worker

W = TypeVar("W", bound=Worker)

_GLANCE_SECONDS = 0.05
#: How often a long poll looks for something new.
_LOOK_SECONDS = 0.5
#: Quarantined requests of a helpdesk lie under this and its name, which no inbox can have.
_REPLIES = "replies/"


@dataclass(frozen=True)
class Pipeline(Worker):
    """The steps, over a store and the configured connectors and helpdesks."""

    #: The longest that one call to the store takes.
    worst_call_seconds: float = 4.0
    #: Waits for that many seconds.
    pause: Callable[[float], None] = time.sleep
    #: What customers of hosted channels may ask of this container.
    limits: Limits = field(default_factory=Limits)

    # accept

    def accept(self, inbox: str, request: WebhookRequest) -> WebhookResponse:
        """Take a provider's webhook. WebhookError, ConfigurationError.

        When this returns, every message in it is durable.
        """
        connector = self._inbox(inbox)
        if request.path_secret and not connector.secret_in_path:
            raise NotFoundError(f"inbox {inbox} has no such address")
        if len(request.body) > connector.max_body_bytes:
            raise TooLargeError(f"over {connector.max_body_bytes} bytes")
        self._admit(connector, "messages", request)
        if probe := connector.handshake(request):
            return probe
        connector.verify(request)
        try:
            found = connector.parse(request)
        except PayloadError as error:
            self._quarantine(inbox, request, str(error))
            return connector.acknowledge(())
        messages = [item for item in found if isinstance(item, Message)]
        until = self._respond_until(connector, messages, request)
        stored = [self._store(message, until) for message in messages]
        for item in found:
            if not isinstance(item, Message):
                self._keep(item)
        answer = self._answer_in_response(stored[0], until) if until else None
        return connector.acknowledge(messages, answer)

    def response_headers(self, inbox: str, request: WebhookRequest) -> Mapping[str, str]:
        """Headers that even a refusal needs, or a browser keeps it from its page."""
        return self._inbox(inbox).response_headers(request)

    def _inbox(self, name: str) -> Connector:
        if not self.deployment.serves(name):
            raise NotFoundError(f"no inbox {name}")
        return self.deployment.inbox(name)

    def _store(self, message: Message, until: datetime | None = None) -> Held[Stored]:
        held, new = self.store.add(message, claimed_until=until)
        self.report(
            "accepted" if new else "redelivered",
            inbox=message.inbox,
            channel=message.channel.value,
            direction=message.direction.value,
            kind=message.kind.value,
            message=message.id,
        )
        return held

    def _keep(self, item: Message | Receipt | Notice | Instruction) -> None:
        """Store what was said: once, with one write."""
        if isinstance(item, Message):
            self._store(item)
            return
        name = "accepted" if self.store.add_errand(item) else "redelivered"
        self.report(name, inbox=item.inbox, errand=item.id, kind=type(item).__name__.lower())

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
        """Read a quarantined request with today's code; returns how many items it held.

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
        if held.inbox.startswith(_REPLIES):
            name = held.inbox.removeprefix(_REPLIES)
            found = self.deployment.helpdesk(name).parse(request)
            for item in found:
                self._take(name, item, held.received_at)
            count = len(found)
        else:
            items = self.deployment.inbox(held.inbox).parse(request)
            for read in items:
                self._keep(read)
            count = len(items)
        self.store.release(quarantine_id)
        return count

    def _respond_until(
        self, connector: Connector, messages: Sequence[Message], request: WebhookRequest
    ) -> datetime | None:
        """Until when a call to the store may begin, for an answer to be in the response.

        None where the channel cannot hear one. Till then the message is ours, and relay waits.
        """
        seconds = connector.capabilities.answers_within_seconds
        if seconds is None or len(messages) != 1:
            return None
        return request.received_at + timedelta(seconds=seconds - self.worst_call_seconds)

    def _answer_in_response(self, held: Held[Stored], until: datetime) -> Message | None:
        """What can be answered at once; None leaves it to relay, also when something goes wrong.

        The message is durable: an error now would make the provider show one to the customer.
        """
        try:
            resolved = self.resolve(held.noun.message.id, held=held, respond_until=until)
        except Exception as error:  # noqa: BLE001  # relay meets the same, and reports what lasts
            self.report("unanswered", message=held.noun.message.id, why=type(error).__name__)
            return None
        message = resolved.noun.message if resolved else None
        if not message or not message.verdict or not message.verdict.said_in_response:
            return None
        verdict = message.verdict
        return conversations.said(message, verdict.said or "", verdict.offered)

    # relay and resolve

    def relay(self, stored_id: str, attempt: str = "") -> None:
        """Bring a stored message or errand to its queue. Called by the stream, and by tick."""
        if is_errand(stored_id):
            self._as(Errands).relay(stored_id, attempt)
            return
        held = self._after_response(stored_id)
        if held is None:
            return
        if held.noun.message.direction is Direction.INBOUND:
            self._relay_inbound(held, attempt)
        else:
            self._relay_outbound(held, attempt)

    def _after_response(self, stored_id: str) -> Held[Stored] | None:
        """The message, once `accept` no longer works on its answer: mostly at once."""
        while held := self.store.message(stored_id):
            stored = held.noun
            working = stored.claimed_until and stored.claimed_until > self.clock()
            if not working or stored.step is not Step.ACCEPTED:
                break
            if stored.message.direction is Direction.OUTBOUND:
                break  # deliver has it
            self.pause(_GLANCE_SECONDS)
        return held

    def _as(self, kind: type[W]) -> W:
        """Another worker over the same things."""
        return kind(self.store, self.deployment, self.clock, self.report)

    def _relay_inbound(self, held: Held[Stored], attempt: str) -> None:
        part = held.noun.message.part
        if part and held.noun.step is Step.ACCEPTED:
            parts.collect(self.store, held, part, self.clock, self.report)
        if part:
            return
        resolved = self.resolve(held.noun.message.id, held=held)
        if resolved is None:
            return
        resolved = self._as(Crowd).count(resolved)
        message = resolved.noun.message
        self._as(Deliverer).show(message)
        self._release_held(message)
        if message.conversation_id and self._threads(message.inbox):
            self.store.remember(_reference_to(message, message.external_id))
        if resolved.noun.step is Step.RESOLVED:
            self.store.enqueue(message, attempt=attempt)
            self.report("queued", message=message.id, conversation=message.conversation_id)

    def _release_held(self, message: Message) -> None:
        """What waited for this customer to write again."""
        kind = self.deployment.kind(message.inbox)
        if kind and kind.capabilities.windows:
            self._as(Deliverer).release(message.inbox, message.address, f"-{message.id}")

    def _relay_outbound(self, held: Held[Stored], attempt: str) -> None:
        stored, message = held.noun, held.noun.message
        if message.author != conversations.ASKONCE and message.conversation_id:
            self.store.amend(message.conversation_id, lambda c: conversations.answer(c, message))
        if stored.step is Step.ACCEPTED or (stored.step is Step.HELD and stored.sending):
            self.store.enqueue(message, attempt=attempt)
            self.report("queued", message=message.id, conversation=message.conversation_id)
        elif stored.step is Step.DONE and self._may_be_shown(message):
            self._as(Deliverer).show(message)
        if stored.untold:
            self.store.enqueue_note(stored, attempt=attempt)

    def _may_be_shown(self, message: Message) -> bool:
        """Whether what went out in a response may still be told to whoever has the address.

        An agent's words were shown when they were sent.
        """
        if message.author != conversations.ASKONCE:
            return False
        held = self.store.conversation(message.conversation_id or "")
        return held is not None and self._as(Deliverer).may_still_hear(message, held.noun)

    def _threads(self, inbox: str) -> bool:
        kind = self.deployment.kind(inbox)
        return kind is not None and kind.capabilities.threads

    def resolve(
        self,
        stored_id: str,
        *,
        held: Held[Stored] | None = None,
        respond_until: datetime | None = None,
    ) -> Held[Stored] | None:
        """Give a message its contact, verdict and conversation: `Resolver.resolve`."""
        return self._as(Resolver).resolve(stored_id, held=held, respond_until=respond_until)

    # forward

    def forward(self, stored_id: str, lease_seconds: float = 60.0) -> None:
        """Bring a message to the helpdesk: one effect, however often it runs. RetryableError."""
        if is_errand(stored_id):
            self._as(Errands).run(stored_id, self._keep)
            return
        held = self.store.message(stored_id)
        if held is None or not _for_helpdesk(held.noun):
            return
        claim = self._claim(held, lease_seconds)
        try:
            if claim.noun.message.direction is Direction.OUTBOUND:
                self._tell(claim)
            else:
                self._forward(claim)
        except RejectedError as error:
            self._give_up(claim, str(error))
        except (RetryableError, ConfigurationError):
            # The helpdesk's idempotency key covers a call whose end we don't know.
            claim.finish(claim.noun.step)
            raise

    def _give_up(self, claim: Claim, why: str) -> None:
        """The helpdesk will never take it; a note that it refuses changes nothing else."""
        outbound = claim.noun.message.direction is Direction.OUTBOUND
        step = claim.noun.step if outbound else Step.FAILED
        claim.finish(step, failure=claim.noun.failure if outbound else why, untold=None)
        self.report("forward.rejected", message=claim.noun.message.id, why=why)

    def _forward(self, claim: Claim) -> None:
        message = claim.noun.message
        conversation = self._conversation(message)
        message = self._with_files(message)
        conversation = self._with_opener(conversation, message)
        ticket = conversation.ticket or self._open(conversation, message)
        helpdesk = self.deployment.helpdesk(ticket.helpdesk)
        key = _key(message)
        if message.id != conversation.first_message_id:
            helpdesk.add_comment(ticket.id, message, conversation, idempotency_key=key)
            self.report("commented", message=message.id, ticket=ticket.id)
        told = notes.of(message, conversation, self._agents_language)
        if claim.noun.surge:
            told.append(notes.surging(claim.noun.surge, self._agents_language))
        for n, note in enumerate(told):
            helpdesk.add_note(ticket.id, note, conversation, idempotency_key=f"{key}-note{n}")
        if was_undone(message):
            self._note_where_it_left(message, conversation, ticket)
        claim.finish(Step.DONE, message=_without_bytes(message))
        self.report("forwarded", message=message.id, ticket=ticket.id)

    def _note_where_it_left(self, message: Message, new: Conversation, ticket: Ticket) -> None:
        """On the ticket that a message had joined by mistake, name the one that it has now."""
        verdict = message.verdict
        old = self.store.conversation((verdict and verdict.closest_conversation_id) or "")
        if old is None or old.noun.ticket is None:
            return  # it left before it was ever seen there
        try:
            self.deployment.helpdesk(old.noun.ticket.helpdesk).add_note(
                old.noun.ticket.id,
                notes.set_apart(message, new, ticket.id, self._agents_language),
                old.noun,
                idempotency_key=f"{message.id}-left",
            )
        except RejectedError as error:  # an old ticket that takes no notes holds up no new one
            self.report("unnoted", message=message.id, ticket=old.noun.ticket.id, why=str(error))

    def _with_opener(self, conversation: Conversation, message: Message) -> Conversation:
        """The conversation; where the helpdesk refused its first message, this one opens it."""
        if conversation.ticket or message.id == conversation.first_message_id:
            return conversation
        first = self.store.message(conversation.first_message_id)
        if first and first.noun.step is not Step.FAILED:
            return conversation
        opener = {"first_message_id": message.id}
        amended = self.store.amend(conversation.id, lambda c: c.model_copy(update=opener))
        return amended or conversation

    def _open(self, conversation: Conversation, message: Message) -> Ticket:
        """The conversation's ticket, opened once: keyed by the conversation, and remembered."""
        first = message
        if message.id != conversation.first_message_id:
            held = self.store.message(conversation.first_message_id)
            first = self._with_files(held.noun.message) if held else message
        name = self.deployment.helpdesk_of(first.inbox)
        ticket_id = self.deployment.helpdesk(name).open_ticket(
            first, conversation, idempotency_key=conversation.id
        )
        ticket = Ticket(helpdesk=name, id=ticket_id)
        self.report("ticket.opened", message=first.id, ticket=ticket_id)
        self.store.remember(TicketHome(ticket=ticket, conversation_id=conversation.id))
        self.store.amend(conversation.id, lambda c: c.model_copy(update={"ticket": ticket}))
        return ticket

    def _with_files(self, message: Message) -> Message:
        """The message with its files in the bucket and in memory, fetched where need be."""
        attachments = tuple(self._fetched(message, n, a) for n, a in enumerate(message.attachments))
        return message.model_copy(update={"attachments": attachments})

    def _fetched(self, message: Message, number: int, attachment: Attachment) -> Attachment:
        if attachment.key or not attachment.source or attachment.unavailable:
            return self.store.load(attachment)
        try:
            connector = self._connector(message.inbox)
            if isinstance(connector, HostedConnector):
                content = self.store.uploaded(attachment.source)
            else:
                content = connector.fetch(attachment)
        except RejectedError as error:
            return attachment.model_copy(update={"unavailable": str(error)})
        kept = self.store.keep(message, number, attachment.model_copy(update={"content": content}))
        return self.store.load(kept)

    def _tell(self, claim: Claim) -> None:
        """Tell the agents what became of what they said."""
        stored = claim.noun
        ticket = self._conversation(stored.message).ticket
        note = stored.untold or ""
        if ticket:
            self.deployment.helpdesk(ticket.helpdesk).add_note(
                ticket.id,
                note,
                self._conversation(stored.message),
                idempotency_key=f"{stored.message.id}-{digest(note)}",
            )
        claim.finish(stored.step, untold=None)
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
            self._quarantine(f"{_REPLIES}{helpdesk_name}", request, str(error))
            return helpdesk.acknowledge()
        for item in found:
            self._take(helpdesk_name, item, request.received_at)
        return helpdesk.acknowledge()

    def _take(
        self,
        helpdesk_name: str,
        item: FromDesk,
        received_at: datetime,
    ) -> None:
        """Store an agent's reply, or a ticket's new state; show what an agent is doing."""
        ticket = Ticket(helpdesk=helpdesk_name, id=item.ticket_id)
        conversation_id = self.store.conversation_of_ticket(ticket)
        if conversation_id is None:
            raise NotFoundError("a ticket that we did not open")
        if isinstance(item, TicketChange):
            self.store.amend(conversation_id, lambda c: conversations.change(c, item))
            self.report("ticket.changed", conversation=conversation_id, state=item.state)
        elif isinstance(item, Signal):
            self._show_agent(conversation_id, item.kind)
        elif isinstance(item, Correction):
            self._keep(
                Instruction(
                    id=errand_id(f"{_REPLIES}{helpdesk_name}", conversation_id, item.external_id),
                    helpdesk=helpdesk_name,
                    conversation_id=conversation_id,
                    correction=item,
                    received_at=received_at,
                )
            )
        else:
            self._store_reply(helpdesk_name, conversation_id, item, received_at)

    def _store_reply(
        self, helpdesk_name: str, conversation_id: str, reply: Reply, received_at: datetime
    ) -> None:
        held = self.store.conversation(conversation_id)
        target = self._target(held.noun) if held else None
        if held is None or target is None:
            raise NotFoundError("the ticket's conversation has no address to reply to")
        self._store(
            conversations.addressed(
                Message(
                    id=message_id(helpdesk_name, conversation_id, reply.external_id),
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
                    received_at=received_at,
                    contact_id=held.noun.contact_id,
                    conversation_id=conversation_id,
                ),
                target,
            )
        )

    # deliver

    def deliver(self, stored_id: str, lease_seconds: float = 60.0) -> None:
        """Send an outbound message where the customer wrote last: `Deliverer.deliver`."""
        if is_errand(stored_id):
            self._as(Errands).run(stored_id, self._keep)
        else:
            self._as(Deliverer).deliver(stored_id, lease_seconds)

    # hosted channels

    def read(
        self,
        inbox: str,
        request: WebhookRequest,
        after: int,
        *,
        wait_seconds: float = 0.0,
        mark: str | None = None,
    ) -> WebhookResponse:
        """What a customer of a channel that we host may read, after a sequence number.

        Waits for as long for something new; with a `mark`, for what the agents do, too.
        """
        connector = self._hosted(inbox)
        self._admit(connector, "read", request)
        address = connector.reader(request)
        until = self.clock() + timedelta(seconds=wait_seconds)
        while True:
            entries, presence = self.store.feed(inbox, address, after)
            news = entries or mark not in (None, presence.mark)
            if news or self.clock() >= until:
                break
            self.pause(_LOOK_SECONDS)
        shown = [replace(e, message=self.store.linked(e.message)) for e in entries]
        return connector.transcript(shown, after, presence)

    def upload(self, inbox: str, request: WebhookRequest) -> WebhookResponse:
        """Let a customer put a file into the bucket, to be named in a message afterwards."""
        connector = self._hosted(inbox)
        self._admit(connector, "uploads", request)
        upload = connector.upload(request)
        return connector.offer(upload, self.store.upload_form(upload))

    def signal(self, inbox: str, request: WebhookRequest) -> WebhookResponse:
        """A customer is typing or has read: told to whoever follows the log, stored nowhere."""
        connector = self._hosted(inbox)
        self._admit(connector, "signals", request)
        told = connector.signal(request)
        visitor = digest(inbox, connector.reader(request))
        more = {name: value for name, value in told.items() if name != "kind"}
        self.report(f"visitor.{told['kind']}", inbox=inbox, visitor=visitor, **more)
        return WebhookResponse(status=204)

    def page(self, inbox: str, name: str, request: WebhookRequest) -> WebhookResponse:
        """A page of a hosted channel's own."""
        connector = self._hosted(inbox)
        if request.method == "POST":
            self._admit(connector, name, request)
        return connector.page(name, request)

    def _show_agent(self, conversation_id: str, kind: str) -> None:
        """On a channel that we host, let the customer see what an agent is doing."""
        held = self.store.conversation(conversation_id)
        target = self._target(held.noun) if held else None
        kind_of_inbox = self.deployment.kind(target.inbox) if target else None
        if target and kind_of_inbox and issubclass(kind_of_inbox, HostedConnector):
            shown = self.store.sign(target.inbox, target.address, kind)
            self.report(f"agent.{kind}", conversation=conversation_id, shown=shown)

    def _admit(self, connector: Connector, call: str, request: WebhookRequest) -> None:
        """TooManyError from somebody who asks a hosted channel too often."""
        if not isinstance(connector, HostedConnector):
            return
        inbox = connector.context.name
        own = (replace(a, party=f"{inbox}:{call}:{a.party}")
               for a in connector.allowances(call, request))  # fmt: skip
        self.limits.demand(own, request.received_at)

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
            held = self.store.item(stored_id)
            if held and not held.noun.finished and self.store.postpone(held):
                self.report("stuck", message=stored_id, drives=held.noun.drives + 1)
                self.relay(stored_id, attempt=f"-{held.noun.drives + 1}")
        for collected in self.store.incomplete(now):
            parts.give_up(self.store, collected, self.report)
        for conversation in self.store.overdue(now):
            self._note_overdue(conversation.noun)

    def _note_overdue(self, conversation: Conversation) -> None:
        due_at, ticket = conversation.first_reply_due_at, conversation.ticket
        if ticket is None or due_at is None:
            return  # without a ticket nobody could reply: the message itself is stuck, and driven
        try:
            self.deployment.helpdesk(ticket.helpdesk).add_note(
                ticket.id,
                notes.overdue(due_at, self._agents_language),
                conversation,
                idempotency_key=f"{conversation.id}-overdue",
            )
        except (DeliveryError, ConfigurationError, NotFoundError) as error:
            self.report("overdue.untold", conversation=conversation.id, why=str(error))
            return
        self.store.amend(conversation.id, conversations.overdue)
        self.report("overdue", conversation=conversation.id)


def _for_helpdesk(stored: Stored) -> bool:
    """What the customer said, once resolved; what became of a reply, for the agents to know."""
    if stored.message.direction is Direction.INBOUND:
        return stored.step is Step.RESOLVED
    return stored.untold is not None


def _key(message: Message) -> str:
    """Under which the helpdesk takes it once: once more after it left for another ticket."""
    moved = message.verdict is not None and message.verdict.rule == "undone"
    return f"{message.id}-{message.conversation_id}" if moved else message.id


def _reference_to(message: Message, provider_id: str) -> Reference:
    return Reference(
        inbox=message.inbox,
        external_id=provider_id,
        conversation_id=message.conversation_id or "",
    )


def _without_bytes(message: Message) -> Message:
    bare = tuple(a.model_copy(update={"content": None, "url": None}) for a in message.attachments)
    return message.model_copy(update={"attachments": bare})
