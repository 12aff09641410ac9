"""What many customers ask: counted, never merged.

Equal questions of different customers belong to one topic. A message is counted by the worker that
brings it to the helpdesk, and never on the way to an acknowledgement; the message remembers its
topic. A topic is found by keys: pairs of a question's four rarest words, hashed with a key of this
deployment, name shelves of topics.

What one message costs, at most and with the deployment's key in memory:

                          reads                                    single writes
    of a known topic      6 shelves (one request), the topic and   its customer's mark, the tally;
                          its month (one query)                    now and then the topic
    of a new one          the same                                 6 shelves, mark, tally, topic
    asked again that day  the same                                 a mark that is there already

Stopped anywhere, and run again, it goes on: a topic is on its shelves before anything is counted,
so that of two who ask first one makes it; a customer's mark is the customer's own, and tallies are
added to. Stopped between mark and tally, a customer is not counted: never twice.
"""

import hmac
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from itertools import combinations

from chalicelib.errors import ConflictError, RetryableError
from chalicelib.items import Asker, Founding, Held, Shelf, Step, Stored, Tally, Topic
from chalicelib.judge import is_question
from chalicelib.ports import Comparison
from chalicelib.repeats import rarest
from chalicelib.schema import Answer, Direction, Message, Question, digest
from chalicelib.worker import Worker

_TRIES = 8
_KEY = "crowd"
_RARE_WORDS = 4
#: Of one shelf: the oldest make way.
SHELF_TOPICS = 24
#: Compared with one message: those on most of its shelves.
COMPARED_TOPICS = 60
_TEXT_CHARACTERS = 300
_MONTH = timedelta(days=30)
_WEEK = 7
_HOUR = timedelta(hours=1)
_SLOT = timedelta(minutes=10)
#: A topic is listed once so many customers asked it within a month.
LISTED_CUSTOMERS = 3
#: A sample wording makes way for a longer one after this.
_SAMPLE_FOR = timedelta(days=7)
#: Of a topic's customers, those whose answers are looked at.
_ANSWERS_LOOKED_AT = 10

_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+|(?:https?://|www\.)[\w./?=&%#~:+-]+", re.ASCII)
_REFERENCE = re.compile(r"(?<![A-Z])Q-[A-Z0-9]{4}-[A-Z0-9]{4}")
_NUMBER = re.compile(
    r"(?<![A-Za-z\d])[A-Za-z]{0,6}[-#+]?\d(?:[\dA-Za-z./:-]|,(?=\d))*(?: \d{2,}[\d-]*)*"
)
#: Full-width letters, digits, @ and . as people type them in Chinese; its punctuation stays.
_NARROW = {
    0xFEE0 + ord(c): c for c in "0123456789@.ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
}
#: From so many digits on, a number is somebody's own: an order, a phone, a day, a card's end.
_PERSONAL_DIGITS = 4


def impersonal(text: str) -> str:
    """A question without what only one customer would write in it: addresses, long numbers."""
    bare = _REFERENCE.sub("…", _ADDRESS.sub("…", text.translate(_NARROW)))
    bare = _NUMBER.sub(_without_if_long, bare)
    shown = "".join(c for c in re.sub(r"\s+", " ", bare) if c.isprintable())
    return shown.strip()[:_TEXT_CHARACTERS]


def _without_if_long(found: re.Match[str]) -> str:
    digits = sum(c.isdigit() for c in found.group())
    return "…" if digits >= _PERSONAL_DIGITS else found.group()


def word_pairs(text: str) -> list[str]:
    """What a question is found by: pairs of its rarest words. [] for one that says too little."""
    rare = sorted(rarest(text, _RARE_WORDS))
    return ["\n".join(pair) for pair in combinations(rare, 2)]


class Counts:
    """How many customers asked, by ten minutes."""

    def __init__(self, tallies: Iterable[Tally]) -> None:
        self._slots: Counter[datetime] = Counter()
        for tally in tallies:
            for slot, customers in tally.slots.items():
                self._slots[_slot_at(tally.day, slot)] += customers

    def add(self, at: datetime) -> None:
        """One more customer."""
        self._slots[_slot_at(at.date().isoformat(), slot_of(at))] += 1

    def between(self, since: datetime, until: datetime) -> int:
        """Customers of the slots that begin from `since` to `until`."""
        return sum(n for at, n in self._slots.items() if since <= at <= until)

    def within_an_hour(self, now: datetime) -> int:
        """Customers in the hour that ends now, give or take a slot: never more than there were."""
        return self.between(now - _HOUR, now)

    def usual(self, now: datetime) -> float:
        """Customers in an hour like this one, in the week before or since it was first asked.

        The mean of all hours, or of this hour of the days, whichever is higher.
        """
        age = min(now - min(self._slots, default=now), timedelta(days=_WEEK))
        same = sum(self.within_an_hour(now - timedelta(days=d)) for d in range(1, _WEEK + 1))
        before = self.between(now - timedelta(days=_WEEK) - _HOUR, now - _HOUR)
        return max(same / max(age.days, 1), before / max(age / _HOUR - 1, 1))

    def on(self, day: date) -> int:
        """Customers of a day; each counts once."""
        return sum(n for at, n in self._slots.items() if at.date() == day)

    def trend(self, now: datetime) -> str:
        """Customers of the last day beside those of a day in the week before: `2.5x`, or `new`."""
        day = timedelta(days=1)
        before = self.between(now - (_WEEK + 1) * day, now - day) / _WEEK
        return f"{self.between(now - day, now) / before:.1f}x" if before else "new"

    def by_hour(self, now: datetime, hours: int = 48) -> list[int]:
        """Customers by the hour, the current hour last."""
        begun = now.replace(minute=0, second=0, microsecond=0)
        starts = (begun - n * _HOUR for n in reversed(range(hours)))
        return [self.between(start, start + _HOUR - _SLOT) for start in starts]

    def by_day(self, now: datetime, days: int = 30) -> list[int]:
        """Customers by the day, today last."""
        return [self.on(now.date() - timedelta(days=n)) for n in reversed(range(days))]


def slot_of(at: datetime) -> str:
    """Ten minutes of a day, as `hhm`."""
    return f"{at:%H}{at.minute // 10}"


def _slot_at(day: str, slot: str) -> datetime:
    start = time(int(slot[:2]), int(slot[2]) * 10, tzinfo=UTC)
    return datetime.combine(date.fromisoformat(day), start)


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A topic as the owner looks at it."""

    topic: Topic
    counts: Counts
    #: Customers within the days asked for.
    customers: int
    #: What an agent answered most recently, as far as a few tickets tell.
    answer: Answer | None


@dataclass(frozen=True)
class Crowd(Worker):
    """Counts what many ask, and shows it."""

    # Counting

    def count(self, stored: Stored) -> Stored:
        """Count a resolved message under its topic; returns it with that, for the caller to store.

        Safe to repeat. Whatever goes wrong is reported and raises nothing: a question is never
        held up by being counted.
        """
        if not self._is_counted(stored):
            return stored
        try:
            return self._counted(stored)
        except Exception as error:  # noqa: BLE001  # whatever it is, the question goes its way
            self.report("uncounted", message=stored.message.id, why=type(error).__name__)
            return stored

    def _is_counted(self, stored: Stored) -> bool:
        message = stored.message
        wanted = message.direction is Direction.INBOUND and stored.step is Step.RESOLVED
        begun = stored.tried or stored.topic_id is not None
        busy = stored.claimed_until is not None and stored.claimed_until > self.clock()
        # A machine's question is nobody's.
        of_nobody = message.automatic or message.consent or not is_question(message)
        counted = self.deployment.document.policy.trending.counted
        return counted and wanted and not (begun or busy or of_nobody)

    def _counted(self, stored: Stored) -> Stored:
        message = stored.message
        text = impersonal(message.words)
        pairs = word_pairs(text)
        if not pairs:
            return stored
        for attempt in range(_TRIES):
            try:
                # A look at half the price first: what it misses, a shelf's version tells.
                keys = [self._keyed(pair) for pair in pairs]
                shelves = self.store.shelves(keys, consistent=attempt > 0)
                topic_id, surge = self._add(message, text, shelves)
            except ConflictError:
                continue  # another customer's question changed a shelf, or the topic: look again
            self.report("counted", message=message.id, topic=topic_id)
            if surge:
                self._report_surge(topic_id, surge, message.received_at)
            return stored.model_copy(update={"topic_id": topic_id, "surge": surge})
        raise RetryableError("the topic keeps changing")

    def _add(
        self, message: Message, text: str, shelves: Sequence[Held[Shelf]]
    ) -> tuple[str, int | None]:
        """The message's topic, and how many asked within an hour if it surges by this message."""
        own, at = "t" + digest(message.id), message.received_at
        topic_id = self._closest(text, shelves) or own
        if topic_id == own:
            self._found(Founding(topic_id=own, text=text), shelves)
        known, tallies = self.store.topic(topic_id, at.date() - _MONTH)
        earlier = self.store.put_once(self._mark(topic_id, message))
        if earlier and earlier.message_id != message.id:
            return topic_id, None
        counts = Counts(tallies)
        if not earlier:
            day, slot = at.date().isoformat(), slot_of(at)
            self.store.tally(Tally(topic_id=topic_id, day=day, slots={slot: 1}))
            counts.add(at)
        topic = known or Held(Topic(id=topic_id, sample=text, sampled_at=at))
        changed = self._after(topic.noun, counts, text, at)
        if changed != topic.noun or not topic.version:
            self.store.commit(Held(changed, topic.version))
        # A run before this one may have stopped with the topic written.
        surges = changed.surged_at == at and (earlier or topic.noun.surged_at != at)
        return topic_id, counts.within_an_hour(at) if surges else None

    def _found(self, founding: Founding, shelves: Sequence[Held[Shelf]]) -> None:
        """Have it on every shelf. ConflictError, at the first of them if another one asks so."""
        for shelf in shelves:
            if founding not in shelf.noun.topics:
                self.store.commit(_with(shelf, founding))

    def _mark(self, topic_id: str, message: Message) -> Asker:
        return Asker(
            topic_id=topic_id,
            day=message.received_at.date().isoformat(),
            mark=self._keyed("contact", message.contact_id or ""),
            message_id=message.id,
        )

    def _report_surge(self, topic_id: str, customers: int, at: datetime) -> None:
        hour = f"{at:%Y-%m-%dT%H:00Z}"
        self.report("question.surging", topic=topic_id, customers=customers, hour=hour)

    def _keyed(self, *parts: str) -> str:
        """What nobody can find by guessing, without this deployment's key."""
        told = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self.store.key(_KEY), told, sha256).hexdigest()[:24]

    def _closest(self, text: str, shelves: Sequence[Held[Shelf]]) -> str | None:
        """The topic that asks the same, of those on the shelves; None if there is none yet."""
        on_shelves = Counter(topic for shelf in shelves for topic in shelf.noun.topics)
        likely = [founding for founding, _ in on_shelves.most_common(COMPARED_TOPICS)]
        if not likely:
            return None
        found = self.deployment.local_scorer.compare(text, [_as_question(f) for f in likely])
        threshold = self._threshold(found)
        alike = [
            (match.score, founding.topic_id)
            for match, founding in zip(found.matches, likely, strict=True)
            if match.score >= threshold and match.veto is None
        ]
        return max(alike)[1] if alike else None

    def _threshold(self, found: Comparison) -> float:
        own = self.deployment.document.policy.trending.threshold
        return (found.join_threshold + found.answer_threshold) / 2 if own is None else own

    def _after(self, topic: Topic, counts: Counts, text: str, at: datetime) -> Topic:
        """The topic, one customer later: its sample, whether it is listed, whether it surges."""
        changes: dict[str, object] = {}
        if len(text) < len(topic.sample) or at - topic.sampled_at > _SAMPLE_FOR:
            changes |= {"sample": text, "sampled_at": at}
        today, month = at.date().isoformat(), counts.between(at - _MONTH, at)
        if month >= LISTED_CUSTOMERS and (topic.listed_on or "") < today:
            changes["listed_on"] = today
        if self._surges(topic, counts, at):
            changes["surged_at"] = at
        return topic.model_copy(update=changes)

    def _surges(self, topic: Topic, counts: Counts, at: datetime) -> bool:
        policy = self.deployment.document.policy.trending
        quiet = timedelta(hours=policy.quiet_hours)
        lately = topic.surged_at is not None and at - topic.surged_at < quiet
        old_news = self.clock() - at > _HOUR  # a message that was stuck
        customers = counts.within_an_hour(at)
        many = customers >= max(policy.surge_customers, policy.surge_factor * counts.usual(at))
        return many and not lately and not old_news

    # Forgetting

    def forget(self, stored: Stored) -> None:
        """Remove an erased message's words from its topic. ConflictError.

        A topic that it founded is found no more: whoever asks the same next founds another.
        """
        if not stored.topic_id:
            return
        text, puts = impersonal(stored.message.words), list[Held[Topic] | Held[Shelf]]()
        topic, _ = self.store.topic(stored.topic_id, self.clock().date())
        if topic and topic.noun.sample == text:
            puts.append(topic.change(sample="…", sampled_at=topic.noun.sampled_at - _SAMPLE_FOR))
        for shelf in self.store.shelves([self._keyed(pair) for pair in word_pairs(text)]):
            left = tuple(f for f in shelf.noun.topics if f.topic_id != stored.topic_id)
            if any(f.text == text for f in set(shelf.noun.topics) - set(left)):
                puts.append(shelf.change(topics=left))
        if puts:
            self.store.commit(*puts)

    # Showing

    def trending(self, days: int) -> Iterator[Trend]:
        """What many asked within so many days, in no order. Reads a few tickets of each topic."""
        now = self.clock()
        since = now - timedelta(days=days)
        for n in range(days + 1):
            for topic_id in self.store.topics_listed(now.date() - timedelta(days=n)):
                topic, tallies = self.store.topic(topic_id, now.date() - _MONTH)
                counts = Counts(tallies)
                customers = counts.between(since, now)
                if topic and customers:
                    yield Trend(
                        topic=topic.noun,
                        counts=counts,
                        customers=customers,
                        answer=self._latest_answer(topic_id),
                    )

    def _latest_answer(self, topic_id: str) -> Answer | None:
        askers = self.store.askers(topic_id, _ANSWERS_LOOKED_AT)
        answers = [answer for asker in askers if (answer := self._answer_to(asker.message_id))]
        return max(answers, key=lambda answer: answer.at, default=None)

    def _answer_to(self, message_id: str) -> Answer | None:
        """What an agent answered to the question that a message asked."""
        held = self.store.message(message_id)
        message = held.noun.message if held else None
        if message is None or message.conversation_id is None:
            return None
        conversation = self.store.conversation(message.conversation_id)
        asked = {message.id, _asked_before(message)}
        questions = conversation.noun.questions if conversation else ()
        answers = [q.answer for q in questions if q.message_id in asked and q.answer]
        return answers[-1] if answers else None


def _asked_before(message: Message) -> str | None:
    """The message that asked the same first: a repeat is no question of its own."""
    return message.verdict.closest_message_id if message.verdict else None


def _with(shelf: Held[Shelf], founding: Founding) -> Held[Shelf]:
    return shelf.change(topics=(*shelf.noun.topics, founding)[-SHELF_TOPICS:])


def _as_question(founding: Founding) -> Question:
    return Question.model_construct(
        text=founding.text, message_id=founding.topic_id, prepared={}, doubts=()
    )
