"""Whose is it, was it asked before, which conversation, and what is said at once: one commit.

Two callers: the stream, for every message; and `accept`, on channels that can answer in the HTTP
response. Whichever comes first commits; the other finds the work done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from chalicelib import codes, conversations, identity, ledgers, saying
from chalicelib.codes import Codes
from chalicelib.comparing import Comparing
from chalicelib.contacts import Contacts
from chalicelib.errors import ConfigurationError, ConflictError, RetryableError
from chalicelib.faq import Found
from chalicelib.items import Challenge, Held, History, Recognised, Step, Stored
from chalicelib.judge import Known, is_question, judge
from chalicelib.ledgers import OptOut
from chalicelib.policy import Mode, language_of
from chalicelib.saying import Saying
from chalicelib.schema import (
    AddressLink,
    Consent,
    Conversation,
    Level,
    Message,
    Outcome,
    Verdict,
)
from chalicelib.worker import Worker

_TRIES = 8
_RECOGNISED = {Outcome.REPEAT, Outcome.RELATED}


@dataclass(frozen=True)
class Resolver(Worker):
    """Gives stored messages their contact, verdict and conversation."""

    def resolve(
        self,
        stored_id: str,
        *,
        held: Held[Stored] | None = None,
        respond_until: datetime | None = None,
    ) -> Held[Stored] | None:
        """Decide about a message, and commit. Safe to repeat.

        With `respond_until`, whatever AskOnce says goes out in the HTTP response; past that time
        nothing is done, and the stream does it. None if the message is gone, if time ran out, or
        if it takes the stream's time to tell.
        """
        for _ in range(_TRIES):
            held = held or self.store.message(stored_id)
            if held is None or held.noun.step is not Step.ACCEPTED:
                return held
            try:
                return self._decide(held, respond_until)
            except ConflictError:
                held = None  # somebody else wrote to the contact or the message: decide again
        raise RetryableError("the contact keeps changing")

    def _decide(self, held: Held[Stored], respond_until: datetime | None) -> Held[Stored] | None:
        message = held.noun.message
        if self._too_late(respond_until):
            return None
        own = self._contacts.of(message)
        tried = self._codes.expected(message)
        if tried and codes.is_right(tried.noun, message):
            own = self._contacts.made(own)
            return self._codes.redeem(held, own, tried, self._ledgers(message))
        link = own.noun
        history = self._contacts.history(own)
        thread = self.store.conversation_of_reference(message.inbox, message.references)
        if self._too_late(respond_until):
            return None
        comparing = self._comparing(message, link, at_once=respond_until is not None)
        verdict = judge(
            message,
            [c.noun for c in history.conversations],
            Known(sender=link.address, thread=thread, now=self.clock()),
            policy=self.deployment.document.policy,
            compare=comparing.compare,
            second_opinion=comparing.second_opinion,
        )
        if tried and verdict.outcome is Outcome.NEW:
            verdict = Verdict(outcome=Outcome.IGNORED, rule="code", reason="it is a wrong code")
        conversation = self._begun_or_joined(message, verdict, history, link, comparing)
        ledgers_ = self._ledgers(message) + self._of_contacts(message, own, tried)
        if conversation:
            on = self._saying(message, conversation.noun, link, verdict)
            verdict = self._said(verdict, on, in_response=respond_until is not None)
            conversation = _told(conversation, verdict, on)
        if comparing.leaves(verdict):
            self.store.commit(held.change(claimed_until=None))
            self.report("left", message=message.id)
            return None
        decided = message.model_copy(
            update={
                "contact_id": link.contact_id,
                "conversation_id": conversation.noun.id if conversation else None,
                "verdict": verdict,
            }
        )
        if self._too_late(respond_until):
            return None
        return self._commit(held, decided, conversation, history, ledgers_)

    @property
    def _contacts(self) -> Contacts:
        return Contacts(self.store, self.clock, self.deployment.document.policy.contacts)

    @property
    def _codes(self) -> Codes:
        return Codes(self.store, self.deployment, self.clock, self.report)

    def _of_contacts(
        self, message: Message, own: Held[AddressLink], tried: Held[Challenge] | None
    ) -> list[Held[Any]]:
        """What the message changes about its sender: new, proven once more, a code missed or sent.

        Of a sender whom we know, and who is not proven, nothing.
        """
        if identity.sender(message)[1] is not Level.VERIFIED:
            return [] if own.version else [own]
        link = replace(own, noun=identity.renewed(own.noun, message.received_at))
        puts: list[Held[Any]] = [self._codes.missed(tried)] if tried else []
        if offered := [] if tried else self._codes.offered(message, link):
            link = link.change(offered_at=self.clock())
        changed = not own.version or link.noun is not own.noun
        return [*puts, *offered, *([link] if changed else [])]

    def _ledgers(self, message: Message) -> list[Held[Any]]:
        """What the message changes about sending to its address: windows, opting out or in."""
        puts: list[Held[Any]] = []
        kind = self.deployment.kind(message.inbox)
        if kind and kind.capabilities.windows:
            sending = self.store.sending(message.inbox, message.address)
            opened = ledgers.opened(sending.noun, message, kind.capabilities.windows)
            if opened:
                puts.append(sending.change(grants=opened.grants))
        if message.consent:
            puts += self._consent(message, message.consent)
        return puts

    def _consent(self, message: Message, consent: Consent) -> list[Held[Any]]:
        """The customer's choice, and its confirmation: once, and not where the provider did it."""
        held = self.store.opt_out(message.address)
        before = held.noun.choice if held else "in"
        late = held is not None and held.noun.at > message.received_at
        if late or before == consent.choice:
            return []
        chinese = message.address.startswith("phone:+86")
        language = "zh" if chinese else language_of([message.text])
        text = self.deployment.document.wording.consent(consent.choice, language)
        confirmation = None if consent.confirmed or not text else conversations.said(message, text)
        choice = OptOut(
            address=message.address,
            choice=consent.choice,
            at=message.received_at,
            confirmation_id=confirmation.id if confirmation else None,
        )
        puts: list[Held[Any]] = [Held(choice, held.version if held else 0)]
        if confirmation:
            puts.append(Held(Stored(message=confirmation)))
        return puts

    def _said(self, verdict: Verdict, on: Saying, *, in_response: bool) -> Verdict:
        """The verdict with what is said at once, and whether the response carries it."""
        verdict = saying.at_once(verdict, on)
        if not verdict.said:
            return verdict
        in_response = in_response and self._fits(on.message, verdict.said)
        return verdict.model_copy(update={"said_in_response": in_response})

    def _fits(self, message: Message, said: str) -> bool:
        """Whether the response to the message's own webhook may carry so much."""
        kind = self.deployment.kind(message.inbox)
        return saying.fits(said, kind.capabilities.answers_within_bytes if kind else None)

    def _saying(
        self, message: Message, conversation: Conversation, link: AddressLink, verdict: Verdict
    ) -> Saying:
        document, kind = self.deployment.document, self.deployment.kind(message.inbox)
        return Saying(
            message=message,
            conversation=conversation,
            link=link,
            asker=self._asker(conversation, verdict),
            policy=document.policy,
            wording=document.wording,
            now=self.clock(),
            choices=kind is not None and kind.capabilities.choices,
            entry=self._entry(message, conversation, verdict),
        )

    def _entry(
        self, message: Message, conversation: Conversation, verdict: Verdict
    ) -> Found | None:
        """The FAQ's entry that answers a first question; None, too, where nobody can tell now."""
        off = self.deployment.document.policy.repeats_of(conversation.category).mode is Mode.OFF
        if verdict.outcome is not Outcome.NEW or off:
            return None
        if not is_question(message):
            return None
        try:
            found = self.deployment.faq.find(message.words, self.deployment.local_scorer)
        except (ConfigurationError, RetryableError) as error:
            self.report("faq.unread", message=message.id, why=type(error).__name__)
            return None
        return found if found and found.same else None

    def _asker(self, conversation: Conversation, verdict: Verdict) -> AddressLink | None:
        """Whose address asked the closest earlier question, as of now."""
        closest = verdict.closest_message_id
        asked = [q.asked_by for q in conversation.questions if q.message_id == closest]
        held = self.store.link(asked[0]) if asked else None
        return held.noun if held else None

    def _comparing(self, message: Message, link: AddressLink, *, at_once: bool) -> Comparing:
        return Comparing(
            store=self.store,
            deployment=self.deployment,
            report=self.report,
            message_id=message.id,
            contact_id=link.contact_id,
            at_once=at_once,
        )

    def _too_late(self, until: datetime | None) -> bool:
        return until is not None and self.clock() > until

    def _begun_or_joined(
        self,
        message: Message,
        verdict: Verdict,
        history: History,
        link: AddressLink,
        comparing: Comparing,
    ) -> Held[Conversation] | None:
        """The conversation with this message in it, new or joined; None for an event.

        Who opts out changes no conversation, but agents of their latest one should know.
        """
        if message.consent:
            return _latest_at(message.address, history)
        if verdict.outcome is Outcome.IGNORED:
            return None
        prepared = comparing.prepared(message.words) if is_question(message) else {}
        if verdict.outcome is Outcome.NEW:
            policy = self.deployment.document.policy
            return Held(conversations.begin(message, link, policy, prepared))
        joined = verdict.closest_conversation_id
        found = next(c for c in history.conversations if c.noun.id == joined)
        changed = conversations.join(found.noun, message, link, verdict.outcome, prepared)
        if verdict.rule == "unhelpful":
            policy, now = self.deployment.document.policy, self.clock()
            changed = conversations.unhelpful(changed, message, verdict, policy, now)
        return replace(found, noun=changed)

    def _commit(
        self,
        held: Held[Stored],
        message: Message,
        conversation: Held[Conversation] | None,
        history: History,
        ledgers_: Sequence[Held[Any]],
    ) -> Held[Stored]:
        """Write the decision: message, conversation, contact, ledgers, and what AskOnce says."""
        step = Step.RESOLVED if conversation else Step.DONE
        resolved = held.change(message=message, step=step, claimed_until=None)
        puts: list[Held[Any]] = [resolved, *ledgers_]
        asks = conversation is not None and _asks(conversation.noun, message)
        if conversation:
            puts.append(conversation)
        contact = self._contacts.suggest(history, message)
        said = message.verdict is not None and message.verdict.said is not None
        new = not history.contact.version
        if new or asks or said or contact != history.contact.noun:
            # The contact's version serialises questions: of two at once, one sees the other, in
            # whichever conversation each is written; and nobody hears anything who was taken away
            # from the contact meanwhile.
            puts.append(Held(contact, history.contact.version))
        verdict = message.verdict
        if verdict and verdict.said:
            step = Step.DONE if verdict.said_in_response else Step.ACCEPTED
            spoken = conversations.said(message, verdict.said, verdict.offered)
            puts.append(Held(Stored(message=spoken, step=step)))
        puts += self._recognised(message, conversation, history)
        self.store.commit(*puts)
        self._report(message)
        return replace(resolved, version=held.version + 1)

    def _recognised(
        self, message: Message, joined: Held[Conversation] | None, history: History
    ) -> list[Held[Any]]:
        """A line in the day's list, if it asks again, or would in observe mode."""
        verdict = message.verdict
        if not verdict or not {verdict.outcome, verdict.would_be} & _RECOGNISED:
            return []
        closest = verdict.closest_conversation_id
        found = (c.noun for c in (joined, *history.conversations) if c and c.noun.id == closest)
        reference = next((c.reference for c in found), "")
        at = self.clock()
        return [Held(Recognised(message_id=message.id, reference=reference, at=at))]

    def _report(self, message: Message) -> None:
        verdict = message.verdict or Verdict(outcome=Outcome.IGNORED, rule="", reason="")
        self.report(
            "resolved",
            message=message.id,
            inbox=message.inbox,
            channel=message.channel.value,
            outcome=verdict.outcome.value,
            rule=verdict.rule,
            score=verdict.score,
            said=verdict.said_kind,
            conversation=message.conversation_id,
        )


def _asks(conversation: Conversation, message: Message) -> bool:
    """Whether the message is another of the conversation's questions."""
    return any(question.message_id == message.id for question in conversation.questions)


def _told(conversation: Held[Conversation], verdict: Verdict, on: Saying) -> Held[Conversation]:
    """The conversation, once AskOnce has said something in it."""
    if not verdict.said:
        return conversation
    told = saying.told(verdict, on) or conversation.noun.told
    return conversation.change(last_said_at=on.now, told=told)


def _latest_at(address: str, history: History) -> Held[Conversation] | None:
    """The latest conversation in which an address wrote."""
    return next(
        (
            held
            for held in history.conversations
            if any(p.address == address for p in held.noun.participants)
        ),
        None,
    )
