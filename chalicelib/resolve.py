"""Whose is it, was it asked before, which conversation, and what is said at once: one commit.

Two callers: the stream, for every message; and `accept`, on channels that can answer in the HTTP
response. Whichever comes first commits; the other finds the work done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from chalicelib import conversations, identity, ledgers
from chalicelib.contacts import Contacts
from chalicelib.errors import ConflictError, RetryableError
from chalicelib.items import Held, History, Home, Step, Stored
from chalicelib.judge import Known, is_question, judge
from chalicelib.ledgers import OptOut
from chalicelib.policy import Mode, language_of
from chalicelib.schema import (
    AddressLink,
    Consent,
    Contact,
    Conversation,
    Level,
    Message,
    Outcome,
    Verdict,
)
from chalicelib.worker import Worker

_TRIES = 8


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
        nothing is done, and the stream does it. None if the message is gone or time ran out.
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
        link = Contacts(self.store, self.clock).of(message).noun
        history = self.store.history(link.contact_id)
        thread = self.store.conversation_of_reference(message.inbox, message.references)
        if self._too_late(respond_until):
            return None
        scorer = self.deployment.scorer
        verdict = judge(
            message,
            [c.noun for c in history.conversations],
            Known(sender=link.address, thread=thread, now=self.clock()),
            policy=self.deployment.document.policy,
            compare=scorer.compare,
        )
        conversation = self._begun_or_joined(message, verdict, history, link)
        ledgers_ = self._ledgers(message)
        if conversation and verdict.outcome is Outcome.REPEAT:
            verdict = self._say(message, verdict, conversation.noun, link, history.contact.noun)
            if verdict.said:
                in_response = respond_until is not None and self._fits(message, verdict.said)
                verdict = verdict.model_copy(update={"said_in_response": in_response})
                conversation = conversation.change(last_said_at=self.clock())
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

    def _fits(self, message: Message, said: str) -> bool:
        """Whether the response to the message's own webhook may carry so much."""
        kind = self.deployment.kind(message.inbox)
        limit = kind.capabilities.answers_within_bytes if kind else None
        return limit is None or len(said.encode("utf-8", "surrogatepass")) <= limit

    def _too_late(self, until: datetime | None) -> bool:
        return until is not None and self.clock() > until

    def _begun_or_joined(
        self, message: Message, verdict: Verdict, history: History, link: AddressLink
    ) -> Held[Conversation] | None:
        """The conversation with this message in it, new or joined; None for an event.

        Who opts out changes no conversation, but agents of their latest one should know.
        """
        if message.consent:
            return _latest_at(message.address, history)
        if verdict.outcome is Outcome.IGNORED:
            return None
        prepared = self._prepared(message)
        if verdict.outcome is Outcome.NEW:
            policy = self.deployment.document.policy
            return Held(conversations.begin(message, link, policy, prepared))
        joined = verdict.closest_conversation_id
        found = next(c for c in history.conversations if c.noun.id == joined)
        changed = conversations.join(found.noun, message, link, verdict.outcome, prepared)
        return replace(found, noun=changed)

    def _prepared(self, message: Message) -> dict[str, str]:
        """What the scorer keeps with a question; nothing of what is none."""
        scorer = self.deployment.scorer
        return {scorer.name: scorer.prepare(message.words)} if is_question(message) else {}

    def _say(
        self,
        message: Message,
        verdict: Verdict,
        conversation: Conversation,
        link: AddressLink,
        contact: Contact,
    ) -> Verdict:
        """The verdict, with what the customer hears at once, or what the agent gets proposed."""
        question = next(
            q for q in conversation.questions if q.message_id == verdict.closest_message_id
        )
        answer = question.answer
        if verdict.mode == Mode.SUGGEST:
            return verdict.model_copy(update={"proposed": answer.text if answer else None})
        may = identity.may_disclose(question, link, contact)
        if why := self._why_silent(message, conversation, link, may_disclose=may):
            return verdict.model_copy(update={"kept_silent": why})
        wording, language = self.deployment.document.wording, language_of([message.words])
        if answer:
            kind, said = "answered", wording.answered(conversation, answer, language)
        else:
            kind, said = "in_progress", wording.in_progress(conversation, language)
        if not said:
            return verdict.model_copy(update={"kept_silent": "the wording is empty"})
        return verdict.model_copy(update={"said": said, "said_kind": kind})

    def _why_silent(
        self,
        message: Message,
        conversation: Conversation,
        link: AddressLink,
        *,
        may_disclose: bool,
    ) -> str | None:
        """Why a repeat is not answered, in an agent's words; None if it may be."""
        if link.level is not Level.VERIFIED:
            return "the sender is not proven: an answer would reach the address's owner"
        if not may_disclose:
            return "who asked first is not proven to be the same person"
        if message.automatic:
            return "a machine sent it"
        if self.deployment.document.policy.spoke_lately(conversation, self.clock()):
            return "AskOnce spoke in this conversation a moment ago"
        return None

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
        begins = conversation is not None and not conversation.version
        if conversation:
            puts.append(conversation)
        if conversation and begins:
            puts.append(Held(Home.of(conversation.noun)))
        contact = Contacts(self.store, self.clock).suggest(history, message)
        if begins or contact != history.contact.noun:
            # The contact's version serialises new questions: of two at once, one sees the other.
            puts.append(Held(contact, history.contact.version))
        verdict = message.verdict
        if verdict and verdict.said:
            step = Step.DONE if verdict.said_in_response else Step.ACCEPTED
            spoken = conversations.said(message, verdict.said)
            puts.append(Held(Stored(message=spoken, step=step)))
        self.store.commit(*puts)
        self._report(message)
        return replace(resolved, version=held.version + 1)

    def _report(self, message: Message) -> None:
        verdict = message.verdict or Verdict(outcome=Outcome.IGNORED, rule="", reason="")
        self.report(
            "resolved",
            message=message.id,
            outcome=verdict.outcome.value,
            rule=verdict.rule,
            score=verdict.score,
            said=verdict.said_kind,
            conversation=message.conversation_id,
        )


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
