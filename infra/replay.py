"""A deployment's history, played again: what a scorer and its thresholds would have linked.

Every contact's messages go through `judge` in the order in which they came, as if recognising had
been on from the start. Nothing is written, and nobody is asked for a second opinion.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from chalicelib import conversations, identity, scorers
from chalicelib.judge import Known, is_question, judge
from chalicelib.policy import Category, Mode, Policy, RepeatOverrides
from chalicelib.ports import Comparison, Match, Scorer
from chalicelib.schema import (
    AddressLink,
    Conversation,
    Direction,
    Level,
    Message,
    Outcome,
    Question,
    Verdict,
)
from chalicelib.store import Store

#: As many as the store reads of a contact.
_LATEST = 20


@dataclass(frozen=True)
class History:
    """What everybody said, by contact and in order."""

    #: {contact: (their link at that address, what was said)}
    contacts: Mapping[str, Sequence[tuple[AddressLink, Message]]]

    @cached_property
    def questions(self) -> Mapping[str, Message]:
        """Everything that customers asked, by the messages' ids."""
        said = (m for _, lines in sorted(self.contacts.items()) for _, m in lines)
        asked = (m for m in said if m.direction is Direction.INBOUND and is_question(m))
        return {message.id: message for message in asked}


def read(store: Store, since: datetime, progress: Callable[[int], None]) -> History:
    """What was said since then, under today's contacts. Reads the whole table, by pages."""
    links: dict[str, AddressLink] = {}
    said: list[Message] = []
    for page in store.everything_said():
        progress(len(page))
        for noun in page:
            if isinstance(noun, AddressLink):
                links[noun.address] = noun
            elif noun.received_at >= since and not noun.part:
                said.append(noun)
    said.sort(key=lambda message: (message.received_at, message.id))
    return History(_by_contact(said, links))


def _by_contact(
    said: Iterable[Message], links: Mapping[str, AddressLink]
) -> dict[str, list[tuple[AddressLink, Message]]]:
    """An agent's reply belongs to whoever asked in its conversation."""
    contacts: dict[str, list[tuple[AddressLink, Message]]] = defaultdict(list)
    asked_in: dict[str, AddressLink] = {}
    for message in said:
        if message.direction is Direction.INBOUND:
            link = _link_of(message, links)
            asked_in[message.conversation_id or ""] = link
        elif found := asked_in.get(message.conversation_id or ""):
            link = found
        else:
            continue  # the question is older than what is looked at
        contacts[link.contact_id].append((link, message))
    return contacts


def _link_of(message: Message, links: Mapping[str, AddressLink]) -> AddressLink:
    address, level = identity.sender(message)
    known = links.get(address)
    if known:
        return known
    contact = message.contact_id or address
    return AddressLink(address=address, contact_id=contact, level=level, source="replay")


# One contact


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One question, and the closest of what the same contact had asked before."""

    message: Message
    verdict: Verdict
    #: What it was compared with, and how; the closest has the highest score.
    questions: Sequence[Question]
    found: Comparison

    @property
    def closest(self) -> tuple[Question, Match]:
        """The earlier question that decided; else the one with the highest score."""
        pairs = list(zip(self.questions, self.found.matches, strict=True))
        decided = self.verdict.closest_message_id if self.linked else None
        return next(
            ((q, m) for q, m in pairs if q.message_id == decided),
            max(pairs, key=lambda pair: pair[1].score),
        )

    @property
    def linked(self) -> bool:
        return self.verdict.outcome in (Outcome.REPEAT, Outcome.RELATED)


def as_if_on(policy: Policy, join: float | None, answer: float | None) -> Policy:
    """The policy with recognising on, and with these thresholds for all where they are given."""
    given = {"join_threshold": join, "answer_threshold": answer}
    thresholds = {name: value for name, value in given.items() if value is not None}
    repeats = policy.repeats.model_copy(update={"mode": Mode.ANSWER, **thresholds})
    categories = {
        name: category.model_copy(update={"repeats": _own(category, thresholds)})
        for name, category in policy.categories.items()
    }
    return policy.model_copy(update={"repeats": repeats, "categories": categories})


def _own(category: Category, thresholds: Mapping[str, float]) -> RepeatOverrides:
    """A category that is off stays off."""
    own = category.repeats
    mode = own.mode if own.mode in (None, Mode.OFF) else Mode.ANSWER
    return own.model_copy(update={"mode": mode, **dict.fromkeys(thresholds)})


@dataclass
class Replay:
    """Plays one contact's messages."""

    policy: Policy
    scorer: Scorer
    #: Messages that are questions, by their ids.
    asks: Container[str]
    #: Latest first, as the store has them.
    _conversations: list[Conversation] = field(default_factory=list)
    #: Where what was said in a conversation ended up in this one.
    _moved: dict[str, str] = field(default_factory=dict)
    _heard: list[tuple[Sequence[Question], Comparison]] = field(default_factory=list)

    def play(self, lines: Iterable[tuple[AddressLink, Message]]) -> Iterator[Compared]:
        """Each question that was compared with earlier ones."""
        for link, message in lines:
            if message.direction is Direction.OUTBOUND:
                self._answer(message)
            elif not message.consent:
                yield from self._ask(link, message)

    def _ask(self, link: AddressLink, message: Message) -> Iterator[Compared]:
        self._heard.clear()
        verdict = judge(
            message,
            self._conversations,
            Known(sender=link.address, thread=self._thread(message), now=message.received_at),
            policy=self.policy,
            compare=self._compare,
        )
        if self._heard:
            questions, found = self._heard[0]
            yield Compared(message=message, verdict=verdict, questions=questions, found=found)
        if verdict.outcome is not Outcome.IGNORED:
            self._place(link, message, verdict)

    def _compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        found = self.scorer.compare(text, questions)
        self._heard.append((questions, found))
        return found

    def _thread(self, message: Message) -> str | None:
        """The conversation that it answers by its headers, as was found when it came."""
        verdict = message.verdict
        known = verdict.closest_conversation_id if verdict and verdict.rule == "thread" else None
        return self._moved.get(known or "")

    def _place(self, link: AddressLink, message: Message, verdict: Verdict) -> None:
        asks = message.id in self.asks and verdict.outcome is not Outcome.REPEAT
        kept = scorers.prepared(self.scorer, message.words) if asks else {}
        if verdict.outcome is Outcome.NEW:
            changed = conversations.begin(message, link, self.policy, kept)
        else:
            own = next(c for c in self._conversations if c.id == verdict.closest_conversation_id)
            changed = conversations.join(own, message, link, verdict.outcome, kept)
        self._put(changed)
        self._moved[message.conversation_id or ""] = changed.id

    def _answer(self, reply: Message) -> None:
        where = self._moved.get(reply.conversation_id or "")
        found = next((c for c in self._conversations if c.id == where), None)
        if found and reply.author != conversations.ASKONCE:
            self._put(conversations.answer(found, reply))

    def _put(self, changed: Conversation) -> None:
        others = [c for c in self._conversations if c.id != changed.id]
        latest = sorted([changed, *others], key=lambda c: c.asked_at, reverse=True)
        self._conversations = latest[:_LATEST]


# Strangers


class Strangers:
    """Questions of other contacts: what is close to those would be linked wrongly."""

    def __init__(self, history: History, scorer: Scorer) -> None:
        self._scorer = scorer
        self._asked = [
            (contact, message)
            for contact, lines in sorted(history.contacts.items())
            for _, message in lines
            if message.id in history.questions
        ]
        self._prepared: dict[str, dict[str, str]] = {}

    def closest(self, contact: str, compared: Compared) -> float | None:
        """The highest score against as many questions of others; always the same ones.

        None where the others asked nothing.
        """
        drawn = self._draw(contact, compared.message.id, len(compared.questions))
        if not drawn:
            return None
        found = self._scorer.compare(compared.message.words, [self._question(m) for m in drawn])
        return max(match.score for match in found.matches)

    def _draw(self, contact: str, seed: str, count: int) -> list[Message]:
        """Without going through all of them for each: they may be many."""
        drawn: dict[str, Message] = {}
        numbers = random.Random(seed)  # noqa: S311  # the same each time is what is wanted
        for _ in range(20 * count):
            if len(drawn) == count:
                break
            whose, message = self._asked[numbers.randrange(len(self._asked))]
            if whose != contact:
                drawn[message.id] = message
        return list(drawn.values())

    def _question(self, message: Message) -> Question:
        if message.id not in self._prepared:
            self._prepared[message.id] = scorers.prepared(self._scorer, message.words)
        return Question(
            text=message.words,
            message_id=message.id,
            asked_at=message.received_at,
            asked_by=message.address,
            asked_by_level=Level.CLAIMED,
            prepared=self._prepared[message.id],
        )
