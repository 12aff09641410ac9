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
from typing import TYPE_CHECKING, TypeVar

from chalicelib.errors import (
    ConfigurationError,
    DeliveryError,
    NotFoundError,
    PayloadError,
    SignatureError,
    TooLargeError,
)
from chalicelib.items import Held, Quarantined, Reference, Step, Stored, is_errand
from chalicelib.limits import Limits
from chalicelib.ports import (
    Connector,
    FromDesk,
    HostedConnector,
    PollingHelpdesk,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import (
    Conversation,
    Direction,
    Instruction,
    Message,
    Notice,
    Receipt,
    digest,
    errand_id,
)
from chalicelib.worker import POLLED, REPLIES, Worker

if TYPE_CHECKING:  # loaded on first use, below
    from chalicelib.delivery import Deliverer
    from chalicelib.errands import Errands
    from chalicelib.forwarding import Forwarder
    from chalicelib.replies import Replies
    from chalicelib.resolve import Resolver

#: Whatever holds secrets; what checking a request with it says.
P = TypeVar("P")
R = TypeVar("R")
_GLANCE_SECONDS = 0.05
#: How often a long poll looks for something new.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Pipeline(Worker):
    """The steps, over a store and the configured connectors and helpdesks."""

    #: The longest that one call to the store takes.
    worst_call_seconds: float = 4.0
    #: Waits for that many seconds.
    pause: Callable[[float], None] = time.sleep
    #: What customers of hosted channels may ask of this container.
    limits: Limits = field(default_factory=Limits)

    # Whose work a step is: imported with the first of it, for an acknowledgement needs none of them

    @property
    def _deliverer(self) -> "Deliverer":
        from chalicelib.delivery import Deliverer

        return self._as(Deliverer)

    @property
    def _errands(self) -> "Errands":
        from chalicelib.errands import Errands

        return self._as(Errands)

    @property
    def _forwarder(self) -> "Forwarder":
        from chalicelib.forwarding import Forwarder

        return self._as(Forwarder)

    @property
    def _replies(self) -> "Replies":
        from chalicelib.replies import Replies

        return self._as(Replies)

    @property
    def _resolver(self) -> "Resolver":
        from chalicelib.resolve import Resolver

        return self._as(Resolver)

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
        connector, probe = with_fresh_secrets(
            connector,
            lambda plugin: _probed(plugin, request),
            lambda: self.deployment.renewed_inbox(inbox),
        )
        if probe:
            return probe
        try:
            found = connector.parse(request)
        except PayloadError as error:
            self._quarantine(inbox, request, str(error))
            return connector.acknowledge(())
        messages = [item for item in found if isinstance(item, Message)]
        until = self._respond_until(connector, messages, request)
        stored = [self._store(message, until, request.id) for message in messages]
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

    def _store(
        self, message: Message, until: datetime | None = None, request: str = ""
    ) -> Held[Stored]:
        held, new = self.store.add(message, claimed_until=until)
        self.report(
            "accepted" if new else "redelivered",
            inbox=message.inbox,
            channel=message.channel.value,
            direction=message.direction.value,
            kind=message.kind.value,
            message=message.id,
            conversation=message.conversation_id,
            request=request or None,
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
        self.report(
            "quarantined",
            inbox=inbox,
            quarantine=identity_,
            new=new,
            why=reason,
            request=request.id or None,
        )

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
        if held.inbox.startswith(REPLIES):
            name = held.inbox.removeprefix(REPLIES)
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

        None where the channel cannot hear one, or it is too late, as after a slow cold start. Till
        then the message is ours, and relay waits.
        """
        seconds = connector.capabilities.answers_within_seconds
        if seconds is None or len(messages) != 1:
            return None
        until = request.received_at + timedelta(seconds=seconds - self.worst_call_seconds)
        return until if until >= self.clock() else None

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
        from chalicelib import conversations

        verdict = message.verdict
        return conversations.said(message, verdict.said or "", verdict.offered)

    # relay and resolve

    def relay(self, stored_id: str, attempt: str = "") -> None:
        """Bring a stored message or errand to its queue. Called by the stream, and by tick."""
        if is_errand(stored_id):
            self._errands.relay(stored_id, attempt)
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

    def _relay_inbound(self, held: Held[Stored], attempt: str) -> None:
        part = held.noun.message.part
        if part and held.noun.step is Step.ACCEPTED:
            from chalicelib import parts

            parts.collect(self.store, held, part, self.clock, self.report)
        if part:
            return
        resolved = self.resolve(held.noun.message.id, held=held)
        if resolved is None:
            return
        message = resolved.noun.message
        self._deliverer.show(message)
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
            self._deliverer.release(message.inbox, message.address, f"-{message.id}")

    def _relay_outbound(self, held: Held[Stored], attempt: str) -> None:
        from chalicelib import conversations

        stored, message = held.noun, held.noun.message
        if message.author != conversations.ASKONCE and message.conversation_id:
            self.store.amend(message.conversation_id, lambda c: conversations.answer(c, message))
        if stored.step is Step.ACCEPTED or (stored.step is Step.HELD and stored.sending):
            self.store.enqueue(message, attempt=attempt)
            self.report("queued", message=message.id, conversation=message.conversation_id)
        elif stored.step is Step.DONE and self._may_be_shown(message):
            self._deliverer.show(message)
        if stored.untold:
            self.store.enqueue_note(stored, attempt=attempt)

    def _may_be_shown(self, message: Message) -> bool:
        """Whether what went out in a response may still be told to whoever has the address.

        An agent's words were shown when they were sent.
        """
        from chalicelib.conversations import ASKONCE

        if message.author != ASKONCE:
            return False
        held = self.store.conversation(message.conversation_id or "")
        return held is not None and self._deliverer.may_still_hear(message, held.noun)

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
        return self._resolver.resolve(stored_id, held=held, respond_until=respond_until)

    # forward

    def forward(self, stored_id: str, lease_seconds: float = 60.0) -> None:
        """Bring a message to the helpdesk: one effect, however often it runs. RetryableError."""
        if is_errand(stored_id):
            self._errands.run(stored_id, self._keep)
            return
        self._forwarder.forward(stored_id, lease_seconds)

    # accept_reply

    def accept_reply(self, helpdesk_name: str, request: WebhookRequest) -> WebhookResponse:
        """Take a helpdesk's webhook. WebhookError; NotFoundError for a ticket that is not ours."""
        helpdesk = self.deployment.helpdesk(helpdesk_name)
        if request.path_secret and not helpdesk.secret_in_path:
            raise NotFoundError(f"helpdesk {helpdesk_name} has no such address")
        if len(request.body) > helpdesk.max_body_bytes:
            raise TooLargeError(f"over {helpdesk.max_body_bytes} bytes")
        helpdesk, _ = with_fresh_secrets(
            helpdesk,
            lambda plugin: plugin.verify(request),
            lambda: self.deployment.renewed_helpdesk(helpdesk_name),
        )
        try:
            found = helpdesk.parse(request)
        except PayloadError as error:
            self._quarantine(f"{REPLIES}{helpdesk_name}", request, str(error))
            return helpdesk.acknowledge()
        for item in found:
            self._take(helpdesk_name, item, request.received_at)
        return helpdesk.acknowledge()

    def _take(self, helpdesk_name: str, item: FromDesk, received_at: datetime) -> None:
        """Store what an agent said; carry out whatever else a desk told. NotFoundError."""
        if said := self._replies.take(helpdesk_name, item, received_at):
            self._keep(said)

    # deliver

    def deliver(self, stored_id: str, lease_seconds: float = 60.0) -> None:
        """Send an outbound message where the customer wrote last: `Deliverer.deliver`."""
        if is_errand(stored_id):
            self._errands.run(stored_id, self._keep)
        else:
            self._deliverer.deliver(stored_id, lease_seconds)

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
        if waiting := self.store.unfinished():
            self.report("backlog", messages=len(waiting))
        for stored_id in [each for each, stuck_at in waiting.items() if stuck_at <= now]:
            held = self.store.item(stored_id)
            if held and not held.noun.finished and self.store.postpone(held):
                self.report("stuck", message=stored_id, drives=held.noun.drives + 1)
                self.relay(stored_id, attempt=f"-{held.noun.drives + 1}")
        for collected in self.store.incomplete(now):
            from chalicelib import parts

            parts.give_up(self.store, collected, self.report)
        for conversation in self.store.overdue(now):
            self._note_overdue(conversation.noun)
        self._ask_helpdesks(now)

    def _ask_helpdesks(self, now: datetime) -> None:
        """Have those asked whose webhooks may get lost: once in so many minutes."""
        minute = int(now.timestamp() // 60)
        for name in self.deployment.document.helpdesks:
            kind = self.deployment.kind_of_helpdesk(name)
            if kind and issubclass(kind, PollingHelpdesk) and minute % kind.poll_minutes == 0:
                inbox = f"{REPLIES}{name}"
                self.store.add_errand(
                    Notice(
                        id=errand_id(inbox, POLLED, str(minute)),
                        inbox=inbox,
                        source=POLLED,
                        received_at=now,
                    )
                )

    def _note_overdue(self, conversation: Conversation) -> None:
        from chalicelib import conversations, notes
        from chalicelib.forwarding import without_words

        due_at, ticket = conversation.first_reply_due_at, conversation.ticket
        if ticket is None or due_at is None:
            return  # without a ticket nobody could reply: the message itself is stuck, and driven
        try:
            self._helpdesk(ticket.helpdesk).add_note(
                ticket.id,
                notes.overdue(due_at, self._agents_language),
                conversation,
                idempotency_key=f"{conversation.id}-overdue",
                again=True,
            )
        except (DeliveryError, ConfigurationError, NotFoundError) as error:
            why = without_words(str(error))
            self._report_late("overdue.untold", conversation, why=why)
            return
        self.store.amend(conversation.id, conversations.overdue)
        self._report_late("overdue", conversation)

    def _report_late(self, event: str, conversation: Conversation, why: str | None = None) -> None:
        first, ticket = conversation.first_message_id, conversation.ticket
        self.report(
            event,
            message=first,
            conversation=conversation.id,
            ticket=ticket.id if ticket else None,
            why=why,
        )


def with_fresh_secrets(
    plugin: P, check: Callable[[P], R], renewed: Callable[[], P | None]
) -> tuple[P, R]:
    """Who finds the signature right, and what the check says. SignatureError.

    A secret may have been rotated since it was read: then it is read again.
    """
    try:
        return plugin, check(plugin)
    except SignatureError:
        again = renewed()
        if again is None:
            raise
    return again, check(again)


def _probed(connector: Connector, request: WebhookRequest) -> WebhookResponse | None:
    """The answer to a set-up probe; None for a webhook that is signed as it must be."""
    probe = connector.handshake(request)
    if probe is None:
        connector.verify(request)
    return probe


def _reference_to(message: Message, provider_id: str) -> Reference:
    return Reference(
        inbox=message.inbox,
        external_id=provider_id,
        conversation_id=message.conversation_id or "",
    )
