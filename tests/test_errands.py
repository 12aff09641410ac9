"""Receipts for what we sent, notices to fetch something, and the pieces of one long message."""

from collections.abc import Sequence
from itertools import permutations

import pytest

from chalicelib.errors import RetryableError
from chalicelib.items import Step
from chalicelib.ports import Write
from chalicelib.schema import Conversation, Delivery
from tests.fakes import World, crash_at, world

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."


@pytest.fixture
def w() -> World:
    return world()


def answered(w: World, text: str = ANSWER) -> str:
    """A reply that was sent; what the provider calls it."""
    w.say("official", "li", QUESTION)
    w.settle()
    w.reply("T1", text)
    w.settle()
    return w.messages()[-1].provider_ids[0]


def conversation_of(w: World, message_id: str) -> Conversation:
    held = w.pipeline.store.conversation(w.stored(message_id).message.conversation_id or "")
    assert held
    return held.noun


def tell(w: World, external_id: str, state: str, **more: str) -> None:
    w.post("official", {"external_id": external_id, "state": state, **more})
    w.settle()


# Receipts


def test_a_receipt_says_what_became_of_a_message(w: World) -> None:
    tell(w, answered(w), "delivered")
    assert w.messages()[-1].delivery is Delivery.DELIVERED


def test_a_state_never_falls_back(w: World) -> None:
    sent = answered(w)
    for state in ("read", "delivered", "sent"):
        tell(w, sent, state)
    assert w.messages()[-1].delivery is Delivery.READ


def test_a_failure_is_told_to_the_agents_once(w: World) -> None:
    sent = answered(w)
    for _ in range(2):
        tell(w, sent, "failed", reason="the phone is switched off")
    stored = w.messages()[-1]
    assert (stored.step, stored.delivery) == (Step.FAILED, Delivery.FAILED)
    assert sum("switched off" in note for note in w.desk.notes) == 1


def test_a_receipt_that_overtakes_our_own_write_is_taken_later(w: World) -> None:
    w.post("official", {"external_id": "provider-unknown", "state": "delivered"})
    with pytest.raises(RetryableError, match="not known yet"):
        w.settle()


def test_a_receipt_for_somebody_elses_message_is_dropped_in_the_end(w: World) -> None:
    w.post("official", {"external_id": "provider-unknown", "state": "delivered"})
    w.clock.forward(minutes=16)
    w.settle()
    assert "receipt.unknown" in w.names()


def test_a_receipt_costs_one_call_before_the_provider_is_answered(w: World) -> None:
    before = w.table.calls
    w.post("official", {"external_id": "x", "state": "delivered"})
    assert w.table.calls == before + 1


def test_a_receipt_waits_while_a_worker_has_the_message(w: World) -> None:
    sent = answered(w)
    held = w.pipeline.store.message(w.messages()[-1].message.id)
    assert held
    w.pipeline.store.claim(held, 60)
    w.post("official", {"external_id": sent, "state": "failed"})
    with pytest.raises(RetryableError, match="at work"):
        w.settle()


def test_a_receipt_tells_how_a_send_ended_whose_worker_died(w: World) -> None:
    w.say("official", "li", QUESTION)
    w.settle()
    w.reply("T1", ANSWER)
    object.__setattr__(w.pipeline, "report", crash_at("delivered"))
    w.table.before_write = refuse_done
    with pytest.raises(OSError, match="out of reach"):
        w.settle()
    w.table.before_write = None
    object.__setattr__(w.pipeline, "report", lambda *_, **__: None)
    w.clock.forward(minutes=2)
    tell(w, f"provider-{w.messages()[-1].message.id}", "delivered")
    w.clock.forward(minutes=4)
    w.pipeline.tick()
    w.settle()
    stored = w.messages()[-1]
    assert (stored.step, stored.delivery) == (Step.DONE, Delivery.DELIVERED)
    assert w.sent("official") == [ANSWER]


def refuse_done(writes: Sequence[Write]) -> None:
    """The plug is pulled when the end of the sending is to be written."""
    if '"delivery":"sent"' in writes[0].item.body:
        raise OSError("the table is out of reach")


# Pieces out


def test_a_message_in_pieces_goes_on_where_it_stopped(w: World) -> None:
    w.say("official", "li", QUESTION)
    w.settle()
    w.channel("official").failures = [None, RetryableError("HTTP 503")]
    w.reply("T1", "first\nsecond")
    with pytest.raises(RetryableError):
        w.settle()
    w.deliver_queue.forget()
    w.pipeline.deliver(w.messages()[-1].message.id)
    assert w.sent("official") == ["first", "second"]
    assert len(w.messages()[-1].provider_ids) == 2


def test_a_message_half_sent_is_finished_where_it_began(w: World) -> None:
    shop = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]
    w.say("official", "li", QUESTION, evidence=shop)
    w.settle()
    w.channel("official").failures = [None, RetryableError("HTTP 503")]
    w.reply("T1", "first\nsecond")
    with pytest.raises(RetryableError):
        w.settle()
    reply = w.messages()[-1].message.id
    w.say("email", "li@example.com", "Thanks, any news?", evidence=shop)
    w.read_stream_again()
    w.deliver_queue.forget()
    w.settle()
    w.pipeline.deliver(reply)
    assert w.sent("official") == ["first", "second"]
    assert len(conversation_of(w, reply).participants) == 2
    assert w.sent("email") == []


def test_a_receipt_for_any_piece_is_a_receipt_for_the_message(w: World) -> None:
    answered(w, "first\nsecond")
    tell(w, w.messages()[-1].provider_ids[1], "failed", reason="the phone is switched off")
    assert w.messages()[-1].delivery is Delivery.FAILED


# Notices


def notice(w: World, token: str = "t1", source: str = "kf1") -> None:
    w.post("fetching", {"source": source, "token": token})


def fetching(w: World):  # type: ignore[no-untyped-def]  # a fake with more than the port
    return w.channel("fetching")


def line(n: int, text: str = QUESTION) -> dict[str, str]:
    return {"from": "li", "id": f"msg-{n}", "text": f"{text} {n}"}


def test_a_notice_fetches_page_by_page_and_keeps_its_place(w: World) -> None:
    fetching(w).held = {("kf1", ""): ([line(1)], "c1"), ("kf1", "c1"): ([], "c2"),
                        ("kf1", "c2"): ([line(2)], "c3")}  # fmt: skip
    notice(w)
    w.settle()
    assert [text for _, text in w.desk.said] == [f"{QUESTION} 1", f"{QUESTION} 2"]
    notice(w, "t2")
    w.settle()
    assert fetching(w).asked[-1] == ("kf1", "c3", "t2")


def test_the_cursor_moves_only_once_everything_is_stored(w: World) -> None:
    fetching(w).held = {("kf1", ""): ([line(1)], "c1")}
    fetching(w).failures = [RetryableError("HTTP 503")]
    notice(w)
    with pytest.raises(RetryableError):
        w.settle()
    w.forward_queue.forget()
    w.read_stream_again()
    w.settle()
    assert [cursor for _, cursor, _ in fetching(w).asked] == ["", ""]
    assert [text for _, text in w.desk.said] == [f"{QUESTION} 1"]


def test_a_page_that_is_fetched_twice_is_stored_once(w: World) -> None:
    fetching(w).held = {("kf1", ""): ([line(1)], "c1")}

    def fail(writes: Sequence[Write]) -> None:
        if writes[0].item.pk.startswith("CURSOR"):
            raise OSError("the table is out of reach")

    w.table.before_write = fail
    notice(w)
    with pytest.raises(OSError, match="out of reach"):
        w.settle()
    w.table.before_write = None
    w.forward_queue.forget()
    w.read_stream_again()
    w.settle()
    assert [cursor for _, cursor, _ in fetching(w).asked] == ["", ""]
    assert len(w.desk.said) == 1


def test_a_notice_is_stored_with_one_call_and_fetched_later(w: World) -> None:
    before = w.table.calls
    notice(w)
    assert w.table.calls == before + 1
    assert fetching(w).asked == []


def test_notices_of_one_source_are_one_group_of_the_queue(w: World) -> None:
    for token in ("t1", "t2"):
        notice(w, token)
    notice(w, "t3", source="kf2")
    for item in w.table.stream:
        w.pipeline.relay(item.sk)
    groups = [group for group, _ in w.forward_queue.waiting]
    assert groups[0] == groups[1] != groups[2]


def test_a_fetched_receipt_is_a_receipt(w: World) -> None:
    fetching(w).held = {("kf1", ""): ([{"external_id": "x", "state": "failed"}], "c1")}
    notice(w)
    with pytest.raises(RetryableError, match="what this receipt is for"):
        w.settle()


# Pieces in


def piece(w: World, number: int, *, of: str = "ref7", total: int = 3, mark: str = "") -> None:
    text = ("Where ", "is my ", "parcel?")[number - 1]
    own = {"id": f"piece-{of}-{number}{mark}", "part": {"of": of, "number": number, "total": total}}
    w.post("sms", {"from": "li", "text": text, **own})


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_pieces_become_one_message_in_any_order(w: World, order: tuple[int, ...]) -> None:
    for number in order:
        piece(w, number)
        w.settle()
    assert w.desk.said == [("T1", "Where is my parcel?")]


def test_a_redelivered_piece_changes_nothing(w: World) -> None:
    for number in (1, 1, 2, 2, 3, 3):
        piece(w, number)
        w.settle()
    w.read_stream_again()
    w.settle()
    assert w.desk.said == [("T1", "Where is my parcel?")]


def test_what_came_is_delivered_when_the_rest_does_not_come(w: World) -> None:
    piece(w, 1)
    piece(w, 3)
    w.settle()
    w.clock.forward(minutes=11)
    w.pipeline.tick()
    w.settle()
    assert w.desk.said == [("T1", "Where  […2/3…] parcel?")]


def test_the_same_reference_later_is_another_message(w: World) -> None:
    for mark in ("", "-later"):
        for number in (1, 2, 3):
            piece(w, number, mark=mark)
        w.settle()
        w.clock.forward(minutes=30)
    assert [text for _, text in w.desk.said] == ["Where is my parcel?"] * 2


def test_pieces_of_two_senders_are_kept_apart(w: World) -> None:
    for number in (1, 2, 3):
        piece(w, number)
        w.post("sms", {"from": "mei", "text": "x", "id": f"other-{number}",
                       "part": {"of": "ref7", "number": number, "total": 3}})  # fmt: skip
    w.settle()
    assert sorted(text for _, text in w.desk.said) == ["Where is my parcel?", "xxx"]
