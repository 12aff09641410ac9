"""The plug is pulled before and after every effect of a story: nothing gets lost or said twice.

What is running then is gone, with what the queues had handed to it. Then everything starts again
from what is stored: providers repeat what was not acknowledged, the stream is read from its
beginning, the schedule drives what is stuck.
"""

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.errors import RejectedError
from chalicelib.notes import MAY_HAVE_ARRIVED
from tests.fakes import world

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]
PHOTO = [{"source": "photo", "name": "tea.jpg"}]


class PlugPulledError(BaseException):
    """Nothing can catch it, as nothing can catch the end of a process."""


class Plug:
    """Counts what happens, and is pulled at one of those points."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.points: list[str] = []

    def __call__(self, point: str) -> None:
        self.points.append(point)
        if len(self.points) - 1 == self.at:
            raise PlugPulledError(point)

    def between(self, owner: Any, name: str) -> None:
        """Come by before and after each call of a method."""
        method = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self(f"before {name}")
            result = method(*args, **kwargs)
            self(f"after {name}")
            return result

        setattr(owner, name, watched)


class Story:
    """A world with a plug, and what its customers heard in responses."""

    def __init__(self, at: int | None = None) -> None:
        self.plug = Plug(at)
        self.world = w = world(first_reply_minutes=10_000, repeats={"silence_minutes": 0})
        self.heard: list[str] = []
        w.channel("email").files["photo"] = b"jpeg"
        self.plug.between(w.table, "write")
        for queue in (w.forward_queue, w.deliver_queue):
            self.plug.between(queue, "send")
        for act in ("open_ticket", "add_comment", "add_note"):
            self.plug.between(w.desk, act)
        for inbox in ("wechat", "email", "sms", "chat"):
            self.plug.between(w.channel(inbox), "send")
        report = w.pipeline.report

        def reported(name: str, **fields: Any) -> None:
            report(name, **fields)
            self.plug(f"at {name}")

        object.__setattr__(w.pipeline, "report", reported)

    def play(self) -> "Story":
        for act in ACTS:
            try:
                act(self)
            except PlugPulledError:
                self.restart()
                act(self)
        return self

    def restart(self) -> None:
        """All claims are over; the stream is read from its beginning."""
        w = self.world
        for queue in (w.forward_queue, w.deliver_queue):
            queue.forget()
        w.read_stream_again()
        w.clock.forward(minutes=20)
        w.pipeline.tick()

    def webhook(self, inbox: str, number: str, text: str, **more: Any) -> None:
        line = {"from": "li", "id": number, "text": text, "evidence": SHOP, **more}
        response = self.world.pipeline.accept(inbox, self.world.request([line]))
        self.heard.append(f"{number} {response.body}")

    def reply(self, number: str, text: str) -> None:
        event = {"ticket_id": "T1", "external_id": number, "text": text, "author": "Kim"}
        self.world.pipeline.accept_reply("desk", self.world.request(event))


def settle(story: Story) -> None:
    story.world.settle()


def refuse_next_sms(story: Story) -> None:
    story.world.channel("sms").failures[:] = [RejectedError("the number is unknown")]


def an_hour_later(story: Story) -> None:
    story.world.clock.forward(hours=1)


ACTS: list[Callable[[Story], None]] = [
    lambda s: s.webhook("wechat", "w1", QUESTION),
    settle,
    lambda s: s.reply("r1", ANSWER),
    settle,
    an_hour_later,
    lambda s: s.webhook("email", "e1", QUESTION, attachments=PHOTO),
    settle,
    an_hour_later,
    lambda s: s.webhook("wechat", "w2", QUESTION),
    settle,
    an_hour_later,
    lambda s: s.webhook("chat", "c1", "And for how long does loose tea keep when I store it so?"),
    lambda s: s.webhook("chat", "c2", "thanks"),
    settle,
    lambda s: s.reply("r2", "Half a year."),
    settle,
    an_hour_later,
    lambda s: s.webhook("sms", "s1", "hello?"),
    settle,
    refuse_next_sms,
    lambda s: s.reply("r3", "Anything else?"),
    settle,
]
POINTS = Story().play().plug.points
MORE = "And for how long does loose tea keep when I store it so?"
SAID = [QUESTION, QUESTION, QUESTION, MORE, "thanks", "hello?"]
REFUSED = "Not delivered: the number is unknown"
LOST = f"Not delivered: {MAY_HAVE_ARRIVED}"


def heard(story: Story, inbox: str, text: str) -> int:
    """How often a customer got a text: a message of one id is shown once where ids are known."""
    channel = story.world.channel(inbox)
    sent = [m.id for m in channel.sent if text in m.text]
    return len(set(sent)) if channel.capabilities.resends_safely else len(sent)


def in_responses(story: Story, number: str) -> set[str]:
    """What was heard in the responses to one message, however often it was delivered."""
    return {line for line in story.heard if line.startswith(number) and ANSWER in line}


@pytest.mark.parametrize("at", range(len(POINTS)), ids=POINTS)
def test_whenever_the_plug_is_pulled_everything_happens_once(at: int) -> None:
    story = Story(at).play()
    w = story.world
    for _ in range(3):
        story.restart()
        w.settle()
    assert w.desk.said == [("T1", text) for text in SAID]
    assert all(stored.finished for stored in w.messages())
    lost, refused = w.desk.notes.count(LOST), w.desk.notes.count(REFUSED)
    assert lost <= 1
    assert refused == 1 or (refused, lost) == (0, 1)
    assert heard(story, "sms", "Anything else?") == 0
    answers = heard(story, "wechat", ANSWER) + len(in_responses(story, "w2"))
    assert answers == 2 or (answers, lost) == (1, 1)
    assert heard(story, "email", ANSWER) == 1
    feed = w.pipeline.store.feed_after("chat", "webchat:li", 0)
    assert [entry.message.text for entry in feed] == [*SAID[3:5], "Half a year."]


def test_the_plug_can_be_pulled_everywhere() -> None:
    wanted = {f"{when} {what}" for when in ("before", "after") for what in ("write", "send")}
    wanted |= {"at accepted", "at resolved", "at queued", "at ticket.opened", "at delivered"}
    assert wanted <= set(POINTS)
    assert len(POINTS) > 150
