"""Random histories of customers, agents, operators and crashes: what we promise holds in each."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chalicelib import identity
from chalicelib.contacts import Contacts, UnknownAddressError
from chalicelib.conversations import ASKONCE
from chalicelib.errors import NotFoundError, RejectedError, RetryableError
from chalicelib.ports import WebhookRequest
from chalicelib.schema import AddressLink, Contact, Conversation, Level, Message
from tests.fakes import World, world

PEOPLE = st.sampled_from("ab")
PREFIXES = {"sms": "phone", "email": "email", "chat": "webchat", "official": "wechat"}
#: A channel with windows, that sends elsewhere where one is closed.
ELSEWHERE = {"connector": "fake_official", "when_closed": "other_channel"}
INBOXES = st.sampled_from(list(PREFIXES))
QUESTIONS = st.sampled_from(
    ["How do I keep green tea fresh?", "Where is my order 20260301?", "Where is my order 20260302?"]
)
ADDRESSES = st.sampled_from([f"{prefix}:{who}" for prefix in PREFIXES.values() for who in "ab"])
#: Mostly what a shop knows of its own customer; now and then somebody else's address.
EVIDENCE: st.SearchStrategy[list[tuple[str, str]]] = st.one_of(
    st.just([]),
    st.just([("external:a", "verified")]),
    st.just([("external:a", "verified")]),
    st.tuples(ADDRESSES, st.sampled_from(["verified", "claimed"])).map(lambda one: [one]),
)
LEVELS = st.sampled_from(["verified", "verified", "verified", "claimed"])
#: What was asked before anything else, and answered.
BEFORE = [
    ("a", "sms", "How do I keep green tea fresh?"),
    ("a", "email", "Where is my order 20260301?"),
    ("a", "sms", "Where is my order 20260302?"),
    ("b", "chat", "How do I keep green tea fresh?"),
]
OPTING = {"out": "STOP", "in": "START"}
NUMBERS = st.integers(min_value=0, max_value=100)
DOWN, BROKE = RetryableError("down"), RetryableError("the line broke", uncertain=True)


class PlugPulledError(BaseException):
    """The end of a process."""


class Watched(list[Message]):
    """What a channel sent, looked at while it is sent."""

    def __init__(self, histories: "Histories") -> None:
        super().__init__()
        self._histories = histories

    def append(self, message: Message) -> None:
        self._histories.look_at(message)
        super().append(message)


class Histories(RuleBasedStateMachine):
    """Whatever happens, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.w: World = world(repeats={"silence_minutes": 0})
        inboxes = self.w.pipeline.deployment.document.inboxes
        self.w.configure(inboxes={**inboxes, "official": ELSEWHERE})
        self.w.pipeline = replace(self.w.pipeline, report=self._report)
        self.accepted: dict[str, tuple[str, WebhookRequest]] = {}
        self.numbers = 0
        for inbox in PREFIXES:
            self.w.channel(inbox).sent = Watched(self)
        for who, inbox, text in BEFORE:
            self._say(inbox, who, text, [(f"external:{who}", "verified")])
        self.everything_settles()
        self.agents_answer_every_ticket(settles=True)

    # What is promised of everything that goes out

    def look_at(self, message: Message) -> None:
        """Every agent's words go to the person whose conversation it is, as of now.

        Nothing but the confirmation goes to somebody who opted out.
        """
        opted = self.w.pipeline.store.opt_out(message.address)
        if opted and opted.noun.choice == "out":
            assert message.id == opted.noun.confirmation_id
        if message.conversation_id is None:
            return
        conversation = self._conversation(message.conversation_id or "")
        senders = [p.sender for p in conversation.participants if p.address == message.address]
        # An address that never wrote in it is one that is proven to be the same person's.
        assert conversation.contact_id in map(self._contact, senders or [message.address])
        if message.author == ASKONCE:
            assert message.address == self.w.stored(message.external_id).message.address

    def _report(self, event: str, **fields: Any) -> None:
        """When AskOnce decides to say something: to a proven sender, of the same proven person."""
        if event != "resolved" or not fields["said"]:
            return
        message = self.w.stored(fields["message"]).message
        assert message.verdict is not None
        assert identity.sender(message) == (message.address, Level.VERIFIED)
        conversation = self._conversation(message.conversation_id or "")
        closest = message.verdict.closest_message_id
        question = next(q for q in conversation.questions if q.message_id == closest)
        if question.asked_by != message.address:
            assert question.asked_by_level is Level.VERIFIED
            assert self._contact(question.asked_by) == self._contact(message.address)

    def _contact(self, address: str) -> str | None:
        link = self.w.pipeline.store.link(address)
        return link.noun.contact_id if link else None

    def _conversation(self, name: str) -> Conversation:
        held = self.w.pipeline.store.conversation(name)
        assert held is not None
        return held.noun

    # What happens

    @rule(
        inbox=INBOXES,
        who=PEOPLE,
        text=QUESTIONS,
        level=LEVELS,
        evidence=EVIDENCE,
        settles=st.booleans(),
    )
    def somebody_asks(self, settles: bool, **said: Any) -> None:
        self._say(**said)
        if settles:
            self.everything_settles()

    @rule(inbox=INBOXES, number=NUMBERS)
    def somebody_asks_again_elsewhere(self, inbox: str, number: int) -> None:
        name = list(self.accepted)[number % len(self.accepted)]
        message = self.w.stored(name).message
        self._say(inbox, message.address[-1], message.text, [])
        self.everything_settles()

    @rule(text=QUESTIONS)
    def somebody_unknown_asks(self, text: str) -> None:
        self._say("chat", "v", text, [])

    @rule(who=PEOPLE, text=QUESTIONS)
    def who_was_unknown_logs_in(self, who: str, text: str) -> None:
        known = [(f"external:{who}", "verified")]
        self._say("chat", who, text, known, continued="webchat:v")

    def _say(
        self,
        inbox: str,
        who: str,
        text: str,
        evidence: list[tuple[str, str]],
        level: str = "verified",
        continued: str = "",
    ) -> None:
        self.numbers += 1
        others = [{"address": a, "level": proof, "source": "test"} for a, proof in evidence]
        if continued:
            others.append({"address": continued, "level": "verified", "source": identity.CONTINUED})
        line = {"from": who, "id": str(self.numbers), "text": text, "level": level}
        self._accept(inbox, self.w.request([line | {"evidence": others}]))
        self.w.clock.forward(minutes=15)

    def _accept(self, inbox: str, request: WebhookRequest) -> None:
        self._until_acknowledged(lambda: self.w.pipeline.accept(inbox, request))
        [message] = self.w.pipeline.deployment.inbox(inbox).parse(request)
        self.accepted[message.id] = (inbox, request)

    def _until_acknowledged(self, act: Callable[[], object]) -> None:
        """A provider repeats what a crash kept from being acknowledged."""
        try:
            act()
        except PlugPulledError:
            self._restart()
            act()

    def _restart(self) -> None:
        self.w.table.before_write = None
        self.w.read_stream_again()
        self.w.clock.forward(minutes=20)

    @rule(who=PEOPLE, choice=st.sampled_from(["out", "in"]))
    def somebody_opts_out_or_in(self, who: str, choice: str) -> None:
        self.numbers += 1
        line = {"from": who, "id": str(self.numbers), "text": OPTING[choice], "kind": "event",
                "event": {"name": f"opt_{choice}"}, "consent": {"choice": choice}}  # fmt: skip
        request = self.w.request([line])
        self._until_acknowledged(lambda: self.w.pipeline.accept("sms", request))
        self.w.clock.forward(minutes=15)

    @rule(number=NUMBERS)
    def a_provider_repeats_itself(self, number: int) -> None:
        self._accept(*list(self.accepted.values())[number % len(self.accepted)])

    @rule(settles=st.booleans())
    def agents_answer_every_ticket(self, settles: bool) -> None:
        for ticket in sorted({ticket for ticket, _ in self.w.desk.said}):
            self.numbers += 1
            reply = {"ticket_id": ticket, "external_id": str(self.numbers)}
            self._tell(reply | {"text": f"Answer number {self.numbers}."})
        if settles:
            self.everything_settles()

    @rule(number=NUMBERS, state=st.sampled_from(["open", "closed"]))
    def an_agent_closes_or_opens_a_ticket(self, number: int, state: str) -> None:
        ticket = self.w.desk.said[number % len(self.w.desk.said)][0]
        self._tell({"ticket_id": ticket, "external_id": "1", "state": state})

    def _tell(self, event: Any) -> None:
        request = self.w.request(event)
        with suppress(NotFoundError):  # the address moved away, and nobody is left to answer
            self._until_acknowledged(lambda: self.w.pipeline.accept_reply("desk", request))

    @rule(address=ADDRESSES, to=ADDRESSES)
    def an_operator_links(self, address: str, to: str) -> None:
        self._by_hand(lambda contacts: contacts.link(address, to, source="operator", by="kim"))

    @rule(address=ADDRESSES)
    def an_operator_unlinks(self, address: str) -> None:
        self._by_hand(lambda contacts: contacts.unlink(address, by="kim"))

    def _by_hand(self, act: Callable[[Contacts], object]) -> None:
        with suppress(UnknownAddressError, PlugPulledError):
            act(Contacts(self.w.pipeline.store, self.w.clock))

    @rule(inbox=INBOXES, failure=st.sampled_from([DOWN, BROKE, RejectedError("unknown number")]))
    def a_provider_fails_next(self, inbox: str, failure: Exception) -> None:
        self.w.channel(inbox).failures.append(failure)

    @rule(late=st.booleans())
    def the_helpdesk_fails_next(self, late: bool) -> None:
        (self.w.desk.late_failures if late else self.w.desk.failures).append(DOWN)

    @rule(number=st.integers(min_value=1, max_value=8))
    def the_plug_is_pulled_at_a_write(self, number: int) -> None:
        def pull() -> None:
            raise PlugPulledError

        self.w.table.interrupt(number, pull)

    @rule(hours=st.sampled_from([1, 30]))
    def time_passes(self, hours: float) -> None:
        self.w.clock.forward(hours=hours)

    @rule()
    def everything_settles(self) -> None:
        for _ in range(200):
            try:
                self.w.settle()
                if all(s.finished for s in self.w.messages()):
                    return
                self.w.clock.forward(minutes=20)
                self.w.pipeline.tick()
            except (RetryableError, PlugPulledError):
                self._restart()
        raise AssertionError("it never settles")

    # What is promised of the whole

    @invariant()
    def every_address_belongs_to_the_one_contact_that_lists_it(self) -> None:
        items = self.w.table.items.items()
        links = [AddressLink.model_validate_json(i.body) for (_, sk), i in items if sk == "LINK"]
        people = [Contact.model_validate_json(i.body) for (_, sk), i in items if sk == "PROFILE"]
        listed = sorted((a, c.id) for c in people for a in c.addresses)
        assert listed == sorted((link.address, link.contact_id) for link in links)

    @invariant()
    def every_conversation_belongs_to_whoever_began_it(self) -> None:
        for (_, sk), item in self.w.table.items.items():
            if sk.startswith("CONV#"):
                conversation = Conversation.model_validate_json(item.body)
                assert conversation.contact_id == self._contact(conversation.asked_by)

    def teardown(self) -> None:
        self.everything_settles()
        for name in self.accepted:
            self._is_in_the_helpdesk_once(name)
        said = [c for c in self.w.desk.effects.values() if c.what != "note"]
        questions = [c for c in said if c.text not in OPTING.values()]
        assert len(questions) == len(self.accepted)

    def _is_in_the_helpdesk_once(self, name: str) -> None:
        """On the one ticket of its conversation: it opened it, or was added to it."""
        conversation = self._conversation(self.w.stored(name).message.conversation_id or "")
        opened = self.w.desk.effects[conversation.id]
        assert conversation.ticket is not None
        assert conversation.ticket.id == opened.ticket
        if conversation.first_message_id != name:
            assert self.w.desk.effects[name].ticket == opened.ticket


Histories.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestHistories = Histories.TestCase
