"""No answer of one person ever reaches an address that is not verified as theirs.

Random histories of several people on all channels: messages proven and forged, claims, evidence,
codes right and wrong, links, unlinks, imports, erasures, replies, repetitions, years that pass, and
the plug pulled anywhere. Whatever goes out is held against `tests/whose.py`, which says in its own
words whose an address is at that moment. A history that fails is cut down before it is shown.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

import pytest

from chalicelib.codes import Codes, NoCodeError, code_in
from chalicelib.contacts import Contacts, UnknownAddressError
from chalicelib.conversations import ASKONCE
from chalicelib.customers import Customers
from chalicelib.erasing import Eraser
from chalicelib.errors import NotFoundError, RejectedError, RetryableError
from chalicelib.ports import Comparison, Match, Scorer, WebhookRequest
from chalicelib.schema import AddressLink, Level, Message, Question
from chalicelib.settings import Deployment, Document
from tests.fakes import CONNECTORS, HELPDESKS, MemoryQueue, NoTokens, World, document, world
from tests.whose import UNPROVEN, Owner, Whose

#: In all shards together; each has its own histories.
STEPS, SHARDS, STEPS_OF_A_HISTORY = 100_000, 4, 200
INBOXES = {
    "sms": "phone",
    "email": "email",
    "chat": "webchat",
    "official": "wechat",
    "mp": "wechat",
}
#: The fakes' phone numbers and mail addresses as a customer list writes them.
NAMES = {"phone": ("+8613800000001", "+8613800000002"), "email": ("li@x.example", "mei@x.example"),
         "webchat": ("li", "mei"), "wechat": ("app:li", "app:mei")}  # fmt: skip
PEOPLE = (0, 1)
ADDRESSES = [f"{scheme}:{name}" for scheme, names in NAMES.items() for name in names]
OTHERS = ["external:1", "external:2", "wechat_union:u"]
#: What is asked, and which questions are about the same.
MATTERS = {
    "Green tea?": 1,
    "Tins for tea?": 1,
    "My parcel?": 2,
}
ANSWER = re.compile(r"answer<\d+>")
CODE = re.compile(r"\b\d{6}\b")
Act = tuple[str, tuple[Any, ...]]


class PlugPulledError(BaseException):
    """The end of a process."""


class Exact(Scorer):
    """The same words are the same question; others may be about the same matter."""

    name = "exact"

    def prepare(self, text: str) -> str:
        return ""

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        scores = [1.0 if q.text == text else 0.7 * (MATTERS.get(q.text) == MATTERS.get(text, 0))
                  for q in questions]  # fmt: skip
        return Comparison(
            matches=[Match(score=score) for score in scores],
            scorer=self.name,
            join_threshold=0.6,
            answer_threshold=0.9,
        )


class Exactly(Deployment):
    """A deployment with that scorer."""

    scorer = Exact()


def configured() -> Document:
    policy = {
        "first_reply_minutes": 10**7,
        "repeats": {
            "silence_minutes": 0,
            "answered_days": 10**4,
            "open_days": 10**4,
            "burst_minutes": 0,
        },
        "contacts": {"codes": "offer"},
        "trending": {"counted": False},
    }
    inboxes = {
        "sms": {"connector": "fake"},
        "email": {"connector": "fake_email"},
        "chat": {"connector": "fake_chat"},
        "official": {"connector": "fake_official", "when_closed": "other_channel"},
        "mp": {"connector": "fake_wechat"},
    }
    written = document(**policy).model_dump(exclude_unset=True) | {"inboxes": inboxes}
    return Document.model_validate(written)


CONFIGURED = configured()


class Watched(list[Message]):
    """What a channel sent, looked at while it is sent."""

    def __init__(self, look: Callable[[Message], None]) -> None:
        super().__init__()
        self._look = look

    def append(self, message: Message) -> None:
        self._look(message)
        super().append(message)


@dataclass
class Expected:
    """A code that was sent, as the test knows it."""

    claimed: str
    by: str
    digits: str
    until: datetime
    tries: int = 0


class History:
    """A world, what was done to it, and who may hear what."""

    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen
        self.whose = Whose()
        self.w: World = world()
        self.w.pipeline = replace(
            self.w.pipeline,
            deployment=Exactly(CONFIGURED, CONNECTORS, HELPDESKS, NoTokens()),
            report=self._report,
        )
        object.__setattr__(self.w.pipeline, "resolve", self._resolve)
        store = self.w.pipeline.store
        append = store.feed_append

        def shown(message: Message) -> int:
            self._look_at(message)
            return append(message)

        object.__setattr__(store, "feed_append", shown)
        for inbox in INBOXES:
            self.w.channel(inbox).sent = Watched(self._look_at)
        self.numbers = 0
        #: What was accepted, to be repeated; whom a message is from; what became of it.
        self.accepted: list[tuple[str, WebhookRequest]] = []
        self.asked: dict[str, Owner] = {}
        self.outcomes: dict[str, str] = {}
        #: Answer -> the owners whose questions it answers; ticket -> how far its agent has read.
        self.given: dict[str, list[Owner]] = {}
        self.read: Counter[str] = Counter()
        self.codes: dict[str, Expected] = {}
        self.right: set[str] = set()
        self.wrong: set[str] = set()
        self.written_at: dict[str, datetime] = {}
        #: Conversation -> the messages in it, first its own; those whose sender left it since.
        self.held: dict[str, list[str]] = {}
        self.left: set[str] = set()

    # What is promised

    def _look_at(self, message: Message) -> None:
        if message.direction == "inbound":
            return  # what they said themselves
        if found := CODE.search(message.text):
            self._code_left(message, found.group())
        else:
            self._heard(message.text, message.address)
            if message.author == ASKONCE and ANSWER.search(message.text):
                self._repeated(message.external_id)

    def _heard(self, text: str, address: str) -> None:
        """Each answer in a text belongs to whoever has the address, as of now."""
        for answer in ANSWER.findall(text):
            askers = self.given[answer]
            assert all(self._may_hear(asker, address) for asker in askers), (answer, address)
            here = self.whose.owners.get(address)
            travels = all(o not in (here,) and o.address != UNPROVEN + address for o in askers)
            self.seen["travelled" if travels else "came home"] += 1

    def _repeated(self, name: str) -> None:
        """AskOnce gave an earlier answer by itself: to a proven sender, who asked, or is proven."""
        message = self.w.stored(name).message
        assert message.verdict is not None
        asker = self.asked[message.verdict.closest_message_id or ""]
        here = self.whose.owners[message.address]
        proven = self.whose.together(asker, here) and self._is_fresh(asker)
        assert asker == here or (proven and self._is_fresh(here)), (name, asker, here)
        assert self.asked[name].address == message.address
        self.seen["repeated elsewhere" if asker != here else "repeated"] += 1

    def _may_hear(self, asker: Owner, address: str) -> bool:
        if asker.address == UNPROVEN + address:
            return True  # the very address that was written from, whoever wrote
        here = self.whose.owners.get(address)
        if here is None:
            return False
        return here == asker or (self.whose.together(here, asker) and self._is_fresh(here))

    def _is_fresh(self, owner: Owner) -> bool:
        return self.whose.is_fresh(owner, self.w.clock.now)

    def _report(self, event: str, **fields: Any) -> None:
        if event == "resolved":
            name = fields["message"]
            self.outcomes[name] = fields["outcome"]
            assert name not in self.right
            self.whose.renew(self.asked[name], self.written_at[name])
            self.seen[fields["outcome"]] += 1
            if conversation := fields.get("conversation"):
                self.held.setdefault(conversation, []).append(name)
        if event == "code.right":
            assert fields["message"] in self.right
            self.seen["right code"] += 1
        if event == "undelivered":
            self.seen["undelivered: " + fields["why"].partition(":")[0][:40]] += 1

    def _everybody_is_who_they_are(self) -> None:
        """The system knows the same people as we do."""
        people: dict[str, set[str]] = {}
        for (_, sk), item in self.w.table.items.items():
            if sk == "LINK":
                link = AddressLink.model_validate_json(item.body)
                people.setdefault(link.contact_id, set()).add(link.address)
        ours, theirs = {frozenset(p) for p in people.values()}, self.whose.people()
        assert ours == theirs, (ours - theirs, theirs - ours)

    def _notice_who_leaves(self) -> None:
        """What somebody asked who is another one's for a while is on that ticket no more."""
        for first, *others in self.held.values():
            opener = self.asked[first]
            self.left |= {m for m in others if not self.whose.together(self.asked[m], opener)}

    # What a message proves, told to `whose` as it is resolved

    def _resolve(self, name: str, **more: Any) -> Any:
        held = more.get("held") or self.w.pipeline.store.message(name)
        until = more.get("respond_until")
        too_late = until is not None and self.w.clock.now > until
        if held and held.noun.step == "accepted" and not too_late:
            self._learn(held.noun.message)
        return type(self.w.pipeline).resolve(self.w.pipeline, name, **more)

    def _learn(self, message: Message) -> None:
        at, whose = message.received_at, self.whose
        verified = {e.address for e in message.evidence if e.level is Level.VERIFIED}
        proven = message.address in verified
        self.asked[message.id] = owner = whose.wrote(message.address, at, proven=proven)
        for address in sorted(verified - {message.address} if proven else ()):
            whose.prove(owner, address, at)
        self.written_at[message.id] = at
        self._answers_a_code(message, owner)

    def _answers_a_code(self, message: Message, owner: Owner) -> None:
        digits, code = code_in(message), self.codes.get(message.address)
        live = code and message.received_at <= code.until and code.tries < 5
        if not digits or not code or not live or message.id in self.right | self.wrong:
            return
        if digits != code.digits:
            code.tries += 1
            self.wrong.add(message.id)
            return
        del self.codes[message.address]
        self.right.add(message.id)
        if not self.whose.prove(owner, code.claimed, message.received_at) and code.by != ASKONCE:
            self.whose.link(code.claimed, owner.address, self.w.clock.now)

    def _code_left(self, message: Message, digits: str) -> None:
        _, _, hashed = message.external_id.partition(":")
        held = self.w.pipeline.store.challenge(hashed)
        assert held is not None
        challenge = held.noun
        assert message.address == challenge.claimed
        until = self.w.clock.now + timedelta(minutes=10)
        code = Expected(challenge.claimed, challenge.by, digits, until)
        self.codes[challenge.answers_from] = code
        self.seen["code"] += 1

    # What happens

    def play(self, acts: Sequence[Act]) -> int:
        """Do it all; returns how many of the acts had something to do."""
        done = 0
        for name, numbers in acts:
            done += getattr(self, name)(*numbers) is not False
            self._notice_who_leaves()
            self.w.clock.forward(seconds=20)
        self._settles()
        self._everybody_is_who_they_are()
        return done

    def _say(self, inbox: str, name: str, text: str, **more: Any) -> None:
        self.numbers += 1
        line = {"from": name, "id": str(self.numbers), "text": text, **more}
        self._accept(inbox, self.w.request([line]))

    def _accept(self, inbox: str, request: WebhookRequest) -> None:
        self.accepted.append((inbox, request))
        response = self._again(lambda: self.w.pipeline.accept(inbox, request))
        if ANSWER.search(response.body):
            [message] = self.w.pipeline.deployment.inbox(inbox).parse(request)
            assert isinstance(message, Message)
            self._heard(response.body, message.address)
            self._repeated(message.id)
            self.seen["in response"] += 1

    def _again(self, act: Callable[[], Any]) -> Any:
        """Whoever was not answered asks again; and nobody else acts before."""
        try:
            return act()
        except PlugPulledError:
            self._begins_again()
            return act()

    def _begins_again(self) -> None:
        """What was running is gone."""
        self.seen["plug"] += 1
        self.w.table.before_write = None

    # Its workers, one by one, in any order

    def the_stream_moves_on(self) -> bool:
        world_, stream = self.w, self.w.table.stream
        if world_._relayed == len(stream):
            return False
        item = stream[world_._relayed]
        if item.index.get("kind") in ("message", "errand"):
            self._again(lambda: world_.pipeline.relay(item.sk))
        world_._relayed += 1
        return True

    def the_stream_is_read_again(self) -> bool:
        behind = min(20, self.w._relayed)
        self.w._relayed -= behind
        return behind > 0

    def a_ticket_moves(self, number: int = 0) -> bool:
        return self._moves_on(self.w.forward_queue, number, self.w.pipeline.forward)

    def a_reply_moves(self, number: int = 0) -> bool:
        return self._moves_on(self.w.deliver_queue, number, self.w.pipeline.deliver)

    def _moves_on(self, queue: MemoryQueue, number: int, work: Callable[[str], None]) -> bool:
        """The first of one group of a queue; it comes again if its worker did not end well."""
        groups = list(dict.fromkeys(group for group, _ in queue.waiting))
        if not groups:
            return False
        group = groups[number % len(groups)]
        place = next(n for n, (own, _) in enumerate(queue.waiting) if own == group)
        entry = queue.waiting.pop(place)
        try:
            work(entry[1])
        except RetryableError:
            queue.waiting.insert(place, entry)
        except PlugPulledError:
            self._begins_again()
            self.w.clock.forward(minutes=2)  # then its claim has ended
            queue.waiting.insert(place, entry)
        return True

    def the_clock_ticks(self) -> None:
        self.w.table.before_write = None
        with suppress(RetryableError):
            self.w.pipeline.tick()

    def _settles(self) -> None:
        """Everything that is on its way arrives."""
        self.w.table.before_write = None
        for _ in range(2000):
            moves = (self.the_stream_moves_on, self.a_ticket_moves, self.a_reply_moves)
            moved = [move() for move in moves]
            if not any(moved):
                return
            self.w.clock.forward(seconds=20)
        raise AssertionError("it never settles")

    # Its people

    def somebody_asks(
        self,
        inbox: str,
        who: int,
        text: str,
        level: str,
        evidence: tuple[str, str] | None,
    ) -> None:
        given = (
            [{"address": evidence[0], "level": evidence[1], "source": "test"}] if evidence else []
        )
        self._say(inbox, NAMES[INBOXES[inbox]][who], text, level=level, evidence=given)

    def a_provider_repeats_itself(self, number: int) -> bool:
        if not self.accepted:
            return False
        inbox, request = self.accepted[-1 - number % min(len(self.accepted), 20)]
        self._again(lambda: self.w.pipeline.accept(inbox, request))
        return True

    def an_agent_answers(self, number: int) -> bool:
        calls = [(k, c) for k, c in self.w.desk.effects.items() if c.what != "note"]
        if not calls:
            return False
        ticket = calls[-1 - number % min(len(calls), 12)][1].ticket
        ids = [
            k if c.what == "comment" else f"m{k[1:]}"
            for k, c in calls
            if c.ticket == ticket and (c.what == "open" or c.text in MATTERS)
        ]
        questions = [m for m in ids if self.outcomes[m] != "repeat"]
        new = questions[self.read[ticket] :][-10:] or questions[-1:]
        self.read[ticket] = len(questions)
        self.numbers += 1
        answer = f"answer<{self.numbers}>"
        # Who has left is not on this ticket any more: the agent answers the others.
        stay = [m for m in new if m not in self.left] or questions[:1]
        self.given[answer] = [self.asked[m] for m in stay]
        reply = {"ticket_id": ticket, "external_id": answer, "text": f"{answer} it is."}
        request = self.w.request(reply)
        try:
            self._again(lambda: self.w.pipeline.accept_reply("desk", request))
            self.seen["reply"] += 1
        except NotFoundError:
            self.seen["reply refused"] += 1
        return True

    def an_operator_links(self, address: str, to: str) -> None:
        self._again(lambda: self._contacts().link(address, to, source="operator", by="kim"))
        self.whose.link(address, to, self.w.clock.now)

    def an_operator_unlinks(self, address: str) -> bool:
        try:
            self._again(lambda: self._contacts().unlink(address, by="kim"))
        except UnknownAddressError:
            return False
        self.whose.unlink(address, by_operator=True)
        return True

    def a_list_is_imported(self, customer: str, address: str) -> None:
        at = self.w.clock.now
        customers = Customers(self._contacts(), lambda: at)
        self._again(lambda: customers.link(customer, address, source="customer list", by="kim"))
        self.whose.customer(customer, address, at)

    def your_system_takes_it_back(self, customer: str, address: str) -> None:
        customers = Customers(self._contacts(), self.w.clock)
        own = self.whose.owners.get(address)
        theirs = self.whose.owners.get(f"external:{customer}")
        self._again(lambda: customers.unlink(customer, address, by="crm"))
        if own and theirs and self.whose.together(own, theirs):
            self.whose.unlink(address, by_operator=False)

    def an_operator_asks_for_a_code(self, claimed: str, answers_from: str) -> bool:
        line = self.w.pipeline
        codes = Codes(line.store, line.deployment, line.clock, self._report)
        try:
            self._again(lambda: codes.challenge(claimed, answers_from, by="kim"))
        except NoCodeError:
            return False
        self.codes.pop(answers_from, None)
        return True

    def somebody_says_a_code(self, number: int, how: str) -> bool:
        if not self.codes:
            return False
        address = sorted(self.codes)[number % len(self.codes)]
        digits = self.codes[address].digits
        if how == "wrong":
            digits = f"{(int(digits) + 1 + number) % 10**6:06d}"
        if how == "elsewhere":
            address = ADDRESSES[number % len(ADDRESSES)]
        scheme, _, name = address.partition(":")
        inbox = next(i for i, prefix in INBOXES.items() if prefix == scheme)
        level = "claimed" if how == "forged" else "verified"
        self._say(inbox, name, digits, level=level)
        return True

    def a_person_is_erased(self, address: str) -> None:
        line = self.w.pipeline
        eraser = Eraser(line.store, line.deployment, line.clock, self._report)
        self._again(lambda: eraser.erase(address))
        gone = self.whose.erase(address)
        self.codes = {a: c for a, c in self.codes.items() if not {a, c.claimed} & gone}
        self.seen["erased"] += 1

    def a_provider_fails_next(self, inbox: str, how: str) -> None:
        error = {"down": RetryableError("down"), "no": RejectedError("unknown"),
                 "broke": RetryableError("broke", uncertain=True)}[how]  # fmt: skip
        self.w.channel(inbox).failures.append(error)

    def the_helpdesk_fails_next(self) -> None:
        self.w.desk.failures.append(RetryableError("down"))

    def the_plug_is_pulled_at_a_write(self, number: int) -> None:
        def pull() -> None:
            raise PlugPulledError

        self.w.table.interrupt(number, pull)

    def time_passes(self, hours: int) -> None:
        while hours >= 24 and self.the_stream_moves_on():
            pass  # no message waits for so long
        self.w.clock.forward(hours=hours)

    def _contacts(self) -> Contacts:
        return Contacts(self.w.pipeline.store, self.w.clock)


# Drawing and cutting down


def _asks(draw: Random) -> tuple[Any, ...]:
    text = draw.choice(list(MATTERS))
    level = draw.choice(["verified"] * 4 + ["claimed"])
    who = draw.choice(PEOPLE)
    evidence: tuple[str, str] | None = None
    if draw.random() < 0.6:
        honest = f"external:{who + 1}"
        claimed = draw.choice(ADDRESSES + OTHERS)
        evidence = draw.choice([(honest, "verified")] * 4 + [(claimed, "verified")]
                               + [(claimed, "claimed")] * 2)  # fmt: skip
    return draw.choice(list(INBOXES)), who, text, level, evidence


def _address(draw: Random) -> str:
    return draw.choice(ADDRESSES)


def _customer(draw: Random) -> tuple[str, str]:
    return draw.choice("12"), _address(draw)


def _number(draw: Random) -> int:
    return draw.randrange(1000)


#: What happens: how often, and with what.
ACTS: dict[str, tuple[int, Callable[[Random], tuple[Any, ...]]]] = {
    "somebody_asks": (28, _asks),
    "the_stream_moves_on": (70, lambda d: ()),
    "a_ticket_moves": (38, lambda d: (_number(d),)),
    "a_reply_moves": (24, lambda d: (_number(d),)),
    "an_agent_answers": (12, lambda d: (_number(d),)),
    "a_provider_repeats_itself": (4, lambda d: (_number(d),)),
    "the_stream_is_read_again": (1, lambda d: ()),
    "the_clock_ticks": (2, lambda d: ()),
    "an_operator_links": (5, lambda d: (_address(d), d.choice(ADDRESSES + OTHERS))),
    "an_operator_unlinks": (6, lambda d: (d.choice(ADDRESSES + OTHERS),)),
    "a_list_is_imported": (6, _customer),
    "your_system_takes_it_back": (3, _customer),
    "an_operator_asks_for_a_code": (7, lambda d: (_address(d), _address(d))),
    "somebody_says_a_code": (20, lambda d: (
        _number(d), d.choice(["right", "right", "wrong", "elsewhere", "forged"]))),
    "a_person_is_erased": (1, lambda d: (_address(d),)),
    "a_provider_fails_next": (3, lambda d: (
        d.choice(list(INBOXES)), d.choice(["down", "no", "broke"]))),
    "the_helpdesk_fails_next": (2, lambda d: ()),
    "the_plug_is_pulled_at_a_write": (7, lambda d: (d.randint(1, 9),)),
    "time_passes": (3, lambda d: (d.choice([1, 1, 30, 24 * 100, 24 * 200, 24 * 400]),)),
}  # fmt: skip
NAMES_OF_ACTS, WEIGHTS = list(ACTS), [weight for weight, _ in ACTS.values()]


def drawn(number: int) -> list[Act]:
    """The history of a number: always the same."""
    draw = Random(number)
    names = draw.choices(NAMES_OF_ACTS, WEIGHTS, k=STEPS_OF_A_HISTORY)
    return [(name, ACTS[name][1](draw)) for name in names]


def fault(acts: Sequence[Act], seen: Counter[str] | None = None) -> AssertionError | None:
    """What a history breaks of the promise; None if nothing."""
    seen = Counter() if seen is None else seen
    try:
        seen["steps"] += History(seen).play(acts)
    except AssertionError as error:
        return error
    return None


def cut_down(acts: list[Act], tries: int = 500) -> list[Act]:
    """Far fewer acts that still break something: chunks are left out, then single ones."""
    size = len(acts) // 2
    while size and tries:
        start = 0
        while start < len(acts) and tries:
            fewer, tries = acts[:start] + acts[start + size :], tries - 1
            if fault(fewer):
                acts = fewer
            else:
                start += size
        size //= 2
    return acts


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_answer_reaches_an_address_that_is_not_verified_as_its_askers(shard: int) -> None:
    seen: Counter[str] = Counter()
    for number in count(shard, SHARDS):
        if error := fault(drawn(number), seen):
            acts = "\n".join(f"  {name}{numbers}" for name, numbers in cut_down(drawn(number)))
            pytest.fail(f"history {number}: {error!r}\n{acts}")
        if seen["steps"] >= STEPS // SHARDS:
            break
    print(seen)  # noqa: T201  # pytest shows it with -s
    assert seen["steps"] >= STEPS // SHARDS
    # The histories are about something.
    for what in ("travelled", "repeated elsewhere", "in response", "right code", "erased", "plug"):
        assert seen[what] > 10, what
