"""What AskOnce tells a customer at once, or why it keeps silent. Pure.

The answer to an earlier question goes only to who may hear it (`identity`); a machine hears
nothing; and within the time of silence, nobody hears a second word.
"""

from dataclasses import dataclass
from datetime import datetime

from chalicelib import identity
from chalicelib.faq import Found
from chalicelib.policy import Language, Mode, Policy, Way, Wording, language_of
from chalicelib.schema import (
    AddressLink,
    Channel,
    Choice,
    Conversation,
    Level,
    Message,
    Outcome,
    Told,
    Verdict,
)

#: Kinds of what is told that give an answer, which may or may not help.
ANSWERS = ("answered", "faq")


@dataclass(frozen=True, kw_only=True)
class Saying:
    """Who asks, where, and under whose rules."""

    message: Message
    #: With the message in it already.
    conversation: Conversation
    link: AddressLink
    #: The link of whoever asked the closest earlier question.
    asker: AddressLink | None
    policy: Policy
    wording: Wording
    now: datetime
    #: The channel shows choices as buttons or links.
    choices: bool = False
    #: The entry of the FAQ that answers a first question.
    entry: Found | None = None

    def is_fresh(self, link: AddressLink) -> bool:
        """Whether an address counts as proven at this moment."""
        return self.policy.contacts.is_fresh(link, self.now)

    @property
    def language(self) -> Language:
        """Of the message just written, whatever the conversation began in."""
        return language_of([self.message.words])

    @property
    def way(self) -> Way:
        """How this customer says that an answer did not help."""
        if self.choices:
            return "choice"
        return "mail" if self.message.channel is Channel.EMAIL else "word"


def at_once(verdict: Verdict, on: Saying) -> Verdict:
    """The verdict, with what the customer hears at once, or what the agent gets proposed."""
    if verdict.outcome is Outcome.REPEAT:
        return _to_a_repeat(verdict, on)
    if verdict.outcome is Outcome.NEW and on.entry:
        return _to_a_first_question(verdict, on, on.entry)
    return verdict


def _to_a_first_question(verdict: Verdict, on: Saying, entry: Found) -> Verdict:
    """With the FAQ's answer, which is fit for anybody who is proven to have asked."""
    found = {"faq_id": entry.entry_id, "faq_score": round(entry.match.score, 3)}
    verdict = verdict.model_copy(update=found)
    mode = on.policy.repeats_of(on.conversation.category).mode
    if mode is Mode.SUGGEST:
        return verdict.model_copy(update={"proposed": entry.answer})
    if mode is not Mode.ANSWER:
        return verdict
    if why := _why_silent(on, may_disclose=True):
        return verdict.model_copy(update={"kept_silent": why})
    said = on.wording.faq(on.conversation, entry.answer, on.language, on.way)
    return with_said(verdict, on, "faq", said)


def _to_a_repeat(verdict: Verdict, on: Saying) -> Verdict:
    question = next(
        q for q in on.conversation.questions if q.message_id == verdict.closest_message_id
    )
    answer = question.answer
    if verdict.mode == Mode.SUGGEST:
        return verdict.model_copy(update={"proposed": answer.text if answer else None})
    may = identity.may_disclose(question, on.link, on.asker, is_fresh=on.is_fresh)
    if why := _why_silent(on, may_disclose=may):
        return verdict.model_copy(update={"kept_silent": why})
    if answer:
        said = on.wording.answered(on.conversation, answer, on.language, on.way)
        return with_said(verdict, on, "answered", said)
    said = on.wording.in_progress(on.conversation, on.language)
    return with_said(verdict, on, "in_progress", said)


def with_said(verdict: Verdict, on: Saying, kind: str, said: str) -> Verdict:
    """The verdict with what is told, and with what the customer may choose below an answer."""
    if not said:
        return verdict.model_copy(update={"kept_silent": "the wording is empty"})
    word = on.wording.help_word(on.language, on.way)
    choosing = kind in ANSWERS and on.way == "choice" and word
    offered = (Choice(label=word, value=word),) if choosing else ()
    return verdict.model_copy(update={"said": said, "said_kind": kind, "offered": offered})


def told(verdict: Verdict, on: Saying) -> Told | None:
    """What the conversation remembers of what is told: None where that was no answer."""
    if not verdict.said or verdict.said_kind not in ANSWERS:
        return None
    return Told(
        at=on.now,
        address=on.link.address,
        message_id=(verdict.said_kind != "faq" and verdict.closest_message_id) or on.message.id,
        word=on.wording.help_word(on.language, on.way),
    )


def _why_silent(on: Saying, *, may_disclose: bool) -> str | None:
    """Why a repeat is not answered, in an agent's words; None if it may be."""
    if on.link.level is not Level.VERIFIED:
        return "the sender is not proven: an answer would reach the address's owner"
    if not may_disclose:
        return "who asked first is not proven to be the same person"
    if on.message.automatic:
        return "a machine sent it"
    if on.policy.spoke_lately(on.conversation, on.now):
        return "AskOnce spoke in this conversation a moment ago"
    return None


def fits(said: str, limit_bytes: int | None) -> bool:
    """Whether the response to the message's own webhook may carry so much."""
    return limit_bytes is None or len(said.encode("utf-8", "surrogatepass")) <= limit_bytes
