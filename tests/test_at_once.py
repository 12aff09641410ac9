"""What happens at once with a question: the same on another channel, an address taken away.

The other comes whole between any two writes of the question's way, for each of them in turn.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations
from typing import TypeVar

import pytest

from chalicelib.contacts import Contacts
from chalicelib.items import Step
from tests.fakes import World, world

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."
OTHER = "Which size of gaiwan suits one person?"
#: What a shop's own site signs for a customer who is logged in.
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]
#: More writes than any question takes on its way.
_MANY = 60
Past = Callable[[World], None]
A = TypeVar("A")
B = TypeVar("B")


def between_writes(
    past: Past, act: Callable[[World], A], other: Callable[[World], B]
) -> Iterator[tuple[World, A, B]]:
    """A world after each: `other` came whole before the first write of `act`, before the second...

    With what both returned; ends with the writes of `act`.
    """
    for number in range(1, _MANY):
        w, met = world(), list[B]()
        past(w)

        def come(w: World = w, met: list[B] = met) -> None:
            met.append(other(w))

        w.table.interrupt(number, come)
        done = act(w)
        w.table.before_write = None
        if not met:
            assert number > 2, "nothing came between"
            return
        yield w, done, met[0]
    pytest.fail("so many writes were never meant")


def say(w: World, inbox: str, text: str) -> str:
    """A customer's message as far as its queue; its id."""
    w.say(inbox, "li", text, evidence=SHOP)
    own = [s.message for s in w.messages() if (s.message.inbox, s.message.text) == (inbox, text)]
    said = own[-1].id
    w.pipeline.relay(said)
    return said


def asked(*said: tuple[str, str], apart: float = 0, since: float = 0) -> Past:
    """Questions by inbox, so many hours apart, the last one so many hours ago."""

    def past(w: World) -> None:
        for inbox, text in said:
            w.clock.forward(hours=apart)
            say(w, inbox, text)
            w.settle()
        w.clock.forward(hours=since)

    return past


def answered(*said: tuple[str, str]) -> Past:
    """The same, and the first ticket has its answer and is closed."""

    def past(w: World) -> None:
        asked(*said)(w)
        w.reply("T1", ANSWER)
        w.settle()
        closing = {"ticket_id": "T1", "external_id": "1", "state": "closed"}
        w.pipeline.accept_reply("desk", w.request(closing))
        w.clock.forward(hours=2)

    return past


def answers(w: World) -> None:
    """An agent, what was asked second; an hour ago."""
    w.reply("T2", ANSWER)
    w.settle()
    w.clock.forward(hours=1)


def take_away(w: World, inbox: str) -> str:
    """The customer's address there is somebody else's from now on."""
    address = next(s.message.address for s in w.messages() if s.message.inbox == inbox)
    Contacts(w.pipeline.store, w.clock).unlink(address, by="kim")
    return address


def unlinked(w: World) -> None:
    """An operator took the phone away and gave it back."""
    asked(("sms", OTHER), ("email", OTHER))(w)
    phone = take_away(w, "sms")
    Contacts(w.pipeline.store, w.clock).link(phone, "external:7", source="manual", by="kim")


PASTS: dict[str, Past] = {
    "nothing": asked(),
    "another question, moments ago, on one": asked(("sms", OTHER)),
    "another question, moments ago, on each": asked(("sms", OTHER), ("email", OTHER)),
    "another question, an hour ago, on each": asked(("sms", OTHER), ("email", OTHER), since=1),
    "another question, on each, an hour apart": asked(("email", OTHER), ("sms", OTHER), apart=1),
    "two other questions, each on its own": asked(("sms", OTHER), ("email", "Where is my cup?")),
    "the same question, a while ago": asked(("sms", QUESTION), since=3),
    "the same question, answered": answered(("email", QUESTION)),
    "another question, answered, and moments ago": answered(("sms", OTHER)),
    "an address that was taken away": unlinked,
}


@pytest.mark.parametrize("inboxes", list(permutations(("sms", "email", "chat"), 2)), ids="-".join)
@pytest.mark.parametrize("past", PASTS)
def test_the_same_question_on_two_channels_at_once_has_one_ticket(
    past: str, inboxes: tuple[str, str]
) -> None:
    one, other = (partial(say, inbox=inbox, text=QUESTION) for inbox in inboxes)
    for w, *ids in between_writes(PASTS[past], one, other):
        w.settle()
        decided = [w.stored(name).message for name in ids]
        assert len({m.contact_id for m in decided}) == 1
        assert len({m.conversation_id for m in decided}) == 1
        assert len({ticket for ticket, text in w.desk.said if text == QUESTION}) == 1
        assert {w.stored(name).step for name in ids} == {Step.DONE}


def test_a_question_at_the_moment_of_a_login_finds_what_the_visitor_asked() -> None:
    def past(w: World) -> None:
        asked(("sms", OTHER), ("chat", OTHER))(w)
        w.clock.forward(days=2)
        w.say("chat", "visitor", QUESTION)
        w.settle()

    def logs_in(w: World) -> None:
        was = {"address": "webchat:visitor", "level": "verified", "source": "continued"}
        w.say("chat", "li", "ok", evidence=[*SHOP, was])

    for w, *_ in between_writes(past, partial(say, inbox="sms", text=QUESTION), logs_in):
        w.settle()
        assert [ticket for ticket, text in w.desk.said if text == QUESTION] == ["T2", "T2"]


def asks_again(w: World) -> None:
    """By phone, what an agent answers by mail."""
    answers(w)
    say(w, "sms", QUESTION)
    w.settle()


def is_answered(w: World) -> None:
    """By an agent, what was asked by mail, then by phone: it would go there."""
    say(w, "sms", QUESTION)
    w.settle()
    answers(w)


@pytest.mark.parametrize("act", [asks_again, is_answered])
def test_an_address_taken_away_at_any_moment_hears_no_answer_from_then_on(act: Past) -> None:
    def away(w: World) -> int:
        take_away(w, "sms")
        return len(w.sent("sms"))

    past = asked(("sms", OTHER), ("email", QUESTION), apart=1)
    for w, _, heard in between_writes(past, act, away):
        assert ANSWER not in str(w.sent("sms")[heard:])
    w = world()
    past(w)
    act(w)
    assert ANSWER in str(w.sent("sms")), "it would have heard one"


def test_a_chat_taken_away_before_the_decision_hears_no_answer_in_the_response() -> None:
    def past(w: World) -> None:
        asked(("chat", OTHER), ("email", QUESTION), apart=1)(w)
        answers(w)

    def ask(w: World) -> str:
        return str(w.say("chat", "li", QUESTION).body)

    def away(w: World) -> bool:
        take_away(w, "chat")
        return w.names().count("resolved") == 2  # those of the past

    heard = []
    for w, response, undecided in between_writes(past, ask, away):
        w.settle()
        if undecided:
            heard.append(response + str(w.pipeline.store.feed_after("chat", "webchat:li", 0)))
    assert len(heard) > 1, "nothing came between"
    assert not any(ANSWER in text for text in heard)
    w = world()
    past(w)
    assert ANSWER in ask(w), "it would have heard one"
