"""One-time codes: sent to one address, sent back from another, and nothing else links."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.codes import GOOD_FOR, HIDDEN, TRIES, Codes, NoCodeError, code_in
from chalicelib.contacts import Contacts
from chalicelib.errors import RetryableError
from chalicelib.items import Step
from chalicelib.schema import Outcome, digest
from tests.fakes import World, crash_at, world
from tests.nouns import evidence, message

EMAIL, PHONE, CHAT = "email:li", "phone:li", "webchat:li"
QUESTION = "How do I keep green tea fresh?"


@pytest.fixture
def w() -> World:
    return world()


def codes_of(w: World) -> Codes:
    line = w.pipeline
    return Codes(line.store, line.deployment, line.clock, line.report)


def challenge(w: World, claimed: str = EMAIL, answers_from: str = PHONE, by: str = "kim") -> None:
    codes_of(w).challenge(claimed, answers_from, by=by)
    w.settle()


def sent_code(w: World, inbox: str = "email") -> str:
    """The code that was sent last."""
    text = w.sent(inbox)[-1]
    return "".join(c for c in text if c.isdigit())[:6]


def say(w: World, text: str, inbox: str = "sms", sender: str = "li", **more: Any) -> None:
    w.say(inbox, sender, text, **more)
    w.settle()


def together(w: World, one: str = EMAIL, other: str = PHONE) -> bool:
    links = [w.pipeline.store.link(address) for address in (one, other)]
    return None not in links and len({link.noun.contact_id for link in links if link}) == 1


def tries(w: World, answers_from: str = PHONE) -> int:
    held = w.pipeline.store.challenge(digest(answers_from))
    assert held is not None
    return held.noun.tries


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06d}"


# Right


def test_a_code_that_comes_back_links_both_sides(w: World) -> None:
    challenge(w)
    say(w, sent_code(w))
    assert together(w)
    link = w.pipeline.store.link(EMAIL)
    assert link is not None
    assert (link.noun.source, link.noun.level.value) == ("code", "verified")
    assert link.noun.history[-1].by == "kim"


def test_it_opens_no_ticket_and_says_why(w: World) -> None:
    challenge(w)
    say(w, sent_code(w))
    assert w.desk.said == []
    verdict = w.messages()[-1].message.verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.rule) == (Outcome.IGNORED, "code")


def test_people_whom_we_know_are_linked_on_an_operators_word(w: World) -> None:
    contacts = Contacts(w.pipeline.store, w.clock)
    contacts.link("external:1", EMAIL, source="operator", by="kim")
    contacts.link("external:2", PHONE, source="operator", by="kim")
    challenge(w)
    say(w, sent_code(w))
    assert together(w)


def test_what_was_answered_on_one_side_is_told_on_the_other_from_then_on(w: World) -> None:
    say(w, QUESTION, "email")
    w.reply("T1", "In a tin.")
    w.settle()
    challenge(w)
    say(w, sent_code(w))
    w.clock.forward(hours=2)
    say(w, QUESTION)
    assert any("In a tin." in text for text in w.sent("sms"))


@pytest.mark.parametrize(
    "text",
    [
        "{}", " {} ", "{}.", "Code: {}", "my code is {}", "The code is {}!", "{} thanks",
        "verification code {}", "验证码{}", "验证码是：{}", "您好，我的验证码是 {}，谢谢",
    ],
)  # fmt: skip
@pytest.mark.parametrize("digits", ["123456", "123 456", "1 2 3 4 5 6", "123-456", "１２３４５６"])
def test_a_code_is_read_with_spaces_and_the_words_around_it(text: str, digits: str) -> None:
    assert code_in(message(text.format(digits))) == "123456"


@pytest.mark.parametrize(
    "text",
    ["", "12345", "1234567", "order 123456", "Where is 123456?", "123456 or 654321", "٣٣٣٣٣٣"],
)
def test_whatever_says_more_than_a_code_is_none(text: str) -> None:
    assert code_in(message(text)) is None


def test_a_sender_who_is_not_proven_says_no_code() -> None:
    forged = message("123456", evidence=(evidence("phone:+8613800138000", "claimed"),))
    assert code_in(forged) is None


@given(st.text(max_size=200))
def test_reading_a_code_takes_no_text_amiss(text: str) -> None:
    found = code_in(message(text))
    assert found is None or (len(found) == 6 and found.isascii() and found.isdigit())


# Wrong


def test_a_wrong_code_is_counted_and_opens_no_ticket(w: World) -> None:
    challenge(w)
    say(w, wrong(sent_code(w)))
    assert (together(w), tries(w), w.desk.said) == (False, 1, [])


def test_a_number_that_answers_an_agent_meanwhile_still_reaches_the_agent(w: World) -> None:
    say(w, QUESTION)
    challenge(w)
    number = wrong(sent_code(w))
    say(w, number)
    assert ("T1", number) in w.desk.said


def test_after_five_wrong_tries_the_right_one_comes_too_late(w: World) -> None:
    challenge(w)
    code = sent_code(w)
    for _ in range(TRIES):
        say(w, wrong(code))
    say(w, code)
    assert not together(w)


def test_the_fifth_try_may_still_be_right(w: World) -> None:
    challenge(w)
    code = sent_code(w)
    for _ in range(TRIES - 1):
        say(w, wrong(code))
    say(w, code)
    assert together(w)


@pytest.mark.parametrize(("after", "in_time"), [(GOOD_FOR, True), (timedelta(minutes=11), False)])
def test_a_code_is_good_for_ten_minutes(w: World, after: timedelta, in_time: bool) -> None:
    challenge(w)
    w.clock.now += after
    say(w, sent_code(w))
    assert together(w) is in_time


def test_a_code_from_another_address_links_nothing(w: World) -> None:
    challenge(w)
    for inbox, sender in (("sms", "mei"), ("email", "li"), ("chat", "li")):
        say(w, sent_code(w), inbox, sender)
    assert not together(w)
    assert w.pipeline.store.link("phone:mei") is not None
    assert not together(w, EMAIL, "phone:mei")
    assert tries(w) == 0


def test_a_forged_sender_uses_up_no_try_and_links_nothing(w: World) -> None:
    challenge(w, PHONE, EMAIL)
    say(w, sent_code(w, "sms"), "email", level="claimed")
    assert not together(w)
    assert tries(w, EMAIL) == 0


def test_a_code_works_once(w: World) -> None:
    challenge(w)
    code = sent_code(w)
    say(w, code)
    Contacts(w.pipeline.store, w.clock).unlink(EMAIL, by="kim")
    say(w, code)
    assert not together(w)


def test_a_newer_code_takes_the_older_ones_place(w: World) -> None:
    challenge(w)
    old = sent_code(w)
    challenge(w)
    if sent_code(w) != old:  # one in a million
        say(w, old)
    assert not together(w)
    say(w, sent_code(w))
    assert together(w)


def test_the_same_digits_are_another_code_for_another_pair(w: World) -> None:
    """A digest that is moved to another challenge fits nothing there."""
    challenge(w)
    code = sent_code(w)
    held = w.pipeline.store.challenge(digest(PHONE))
    assert held is not None
    w.pipeline.store.commit(held.change(claimed="email:mei"))
    say(w, code)
    assert not together(w, "email:mei", PHONE)


# Secrecy


def test_a_code_is_stored_nowhere_and_logged_nowhere(w: World) -> None:
    challenge(w)
    code = sent_code(w)
    kept = [item.body for item in w.table.items.values()]
    assert not any(code in body for body in kept)
    assert any(HIDDEN in body for body in kept)
    assert code not in str(w.events)


def test_the_message_with_a_code_repeats_nothing_that_a_customer_wrote(w: World) -> None:
    say(w, QUESTION)
    challenge(w)
    assert QUESTION not in w.sent("email")[-1]
    assert "by SMS" in w.sent("email")[-1]


# Where to


def test_a_code_goes_through_the_inbox_that_the_address_used_last(w: World) -> None:
    inboxes = w.pipeline.deployment.document.inboxes
    w.configure(inboxes={**inboxes, "sms-hk": {"connector": "fake"}})
    say(w, QUESTION, "sms-hk")
    challenge(w, PHONE, EMAIL)
    assert len(w.sent("sms-hk")) == 1
    assert w.sent("sms") == []


@pytest.mark.parametrize(
    ("claimed", "answers_from", "why"),
    [
        (EMAIL, EMAIL, "nobody can send"),
        (EMAIL, "external:7", "nobody can send"),
        ("external:7", EMAIL, "no inbox can send"),
        (CHAT, EMAIL, "no inbox can send"),
        ("unproven:email:li", PHONE, "no inbox can send"),
    ],
)
def test_a_code_that_cannot_be_sent_is_refused_with_the_reason(
    w: World, claimed: str, answers_from: str, why: str
) -> None:
    say(w, QUESTION, "chat")
    with pytest.raises(NoCodeError, match=why):
        challenge(w, claimed, answers_from)


def test_who_opted_out_is_sent_no_code(w: World) -> None:
    w.say("sms", "li", "STOP", kind="event", event={"name": "opt_out"}, consent={"choice": "out"})
    w.settle()
    with pytest.raises(NoCodeError, match="opted out"):
        challenge(w, PHONE, EMAIL)


# Twice, and dying anywhere


@pytest.mark.parametrize("event", ["queued", "claimed", "sent", "delivered"])
def test_sending_a_code_survives_the_plug(w: World, event: str) -> None:
    codes_of(w).challenge(EMAIL, PHONE, by="kim")
    alive = w.pipeline.report
    object.__setattr__(w.pipeline, "report", crash_at(event))
    with pytest.raises(SystemExit):
        w.settle()
    object.__setattr__(w.pipeline, "report", alive)
    w.clock.forward(minutes=20)
    w.forward_queue.forget()
    w.deliver_queue.forget()
    w.read_stream_again()
    w.settle()
    assert w.messages()[0].step is Step.DONE
    if event == "delivered":
        w.clock.now -= timedelta(minutes=20)
    say(w, sent_code(w))
    assert together(w)


@pytest.mark.parametrize("number", range(1, 8))
def test_answering_a_code_survives_the_plug(w: World, number: int) -> None:
    def pull() -> None:
        raise SystemExit

    say(w, QUESTION, "email")
    challenge(w)
    w.say("sms", "li", sent_code(w))
    w.table.interrupt(number, pull)
    try:
        w.settle()
    except SystemExit:
        w.read_stream_again()
        w.settle()
    w.table.before_write = None
    assert together(w)
    assert [text for _, text in w.desk.said] == [QUESTION]


def test_a_redelivered_code_changes_nothing(w: World) -> None:
    challenge(w)
    code = sent_code(w)
    say(w, code, id="same")
    Contacts(w.pipeline.store, w.clock).unlink(EMAIL, by="kim")
    say(w, code, id="same")
    w.read_stream_again()
    w.settle()
    assert not together(w)


def test_a_wrong_try_is_counted_once_however_often_it_is_resolved(w: World) -> None:
    challenge(w)
    say(w, wrong(sent_code(w)))
    w.read_stream_again()
    w.settle()
    assert tries(w) == 1


def test_tries_at_once_are_all_counted(w: World) -> None:
    challenge(w)
    bad = wrong(sent_code(w))
    w.say("sms", "li", bad, id="one")
    w.say("sms", "li", bad, id="other")
    one, other = [s.message.id for s in w.messages()][-2:]
    w.table.interrupt(1, lambda: w.pipeline.resolve(other))
    w.pipeline.resolve(one)
    assert tries(w) == 2


def test_a_code_used_twice_at_once_is_used_once(w: World) -> None:
    challenge(w)
    code = sent_code(w)
    w.say("sms", "li", code, id="one")
    w.say("sms", "li", code, id="other")
    one, other = [s.message.id for s in w.messages()][-2:]
    w.table.interrupt(1, lambda: w.pipeline.resolve(other))
    w.pipeline.resolve(one)
    verdicts = [w.stored(name).message.verdict for name in (one, other)]
    assert [v.rule for v in verdicts if v].count("code") == 1
    assert together(w)


def test_a_provider_that_fails_gets_another_code_later(w: World) -> None:
    w.channel("email").failures.append(RetryableError("down"))
    with pytest.raises(RetryableError):
        challenge(w)
    w.clock.forward(minutes=10)
    w.pipeline.tick()
    w.settle()
    say(w, sent_code(w))
    assert together(w)


def test_a_code_that_could_not_leave_for_an_hour_is_not_sent(w: World) -> None:
    codes_of(w).challenge(EMAIL, PHONE, by="kim")
    w.clock.forward(hours=2)
    w.settle()
    assert w.sent("email") == []
    assert w.messages()[0].failure == "the code could not be sent in time"


# Offered by itself


def offering() -> World:
    w = world(contacts={"codes": "offer"})
    say(w, QUESTION, "email")
    w.clock.forward(hours=1)
    return w


CLAIM: list[dict[str, str]] = [{"address": EMAIL, "level": "claimed", "source": "form"}]


def test_who_claims_a_known_address_is_sent_a_code_there() -> None:
    w = offering()
    say(w, "Hello there, a question", "chat", evidence=CLAIM)
    say(w, sent_code(w), "chat")
    assert together(w, EMAIL, CHAT)


def test_the_claimer_hears_nothing_of_it() -> None:
    """Else one could ask us whose addresses we know."""
    w = offering()
    say(w, "Hello there, a question", "chat", evidence=CLAIM)
    unknown = [{"address": "email:nobody", "level": "claimed", "source": "form"}]
    say(w, "Hello there, a question", "chat", "mei", evidence=unknown)
    feeds = [w.pipeline.store.feed_after("chat", f"webchat:{who}", 0) for who in ("li", "mei")]
    assert [len(feed) for feed in feeds] == [1, 1]


def test_no_code_is_offered_unless_the_owner_wants_that(w: World) -> None:
    say(w, QUESTION, "email")
    say(w, "Hello there, a question", "chat", evidence=CLAIM)
    assert w.sent("email") == []


def test_a_code_is_offered_once_a_day_whoever_claims() -> None:
    w = offering()
    for who in ("li", "mei", "mallory"):
        say(w, "Hello there, a question", "chat", who, evidence=CLAIM)
    assert len(w.sent("email")) == 1
    w.clock.forward(hours=25)
    say(w, "Hello there, a question", "chat", "mei", evidence=CLAIM)
    assert len(w.sent("email")) == 2


def test_one_claimer_makes_us_write_to_one_address_a_day() -> None:
    w = offering()
    say(w, QUESTION, "email", "mei")
    others = [{"address": "email:mei", "level": "claimed", "source": "form"}]
    say(w, "Hello there, a question", "chat", evidence=CLAIM)
    say(w, "And another question", "chat", evidence=others)
    assert len(w.sent("email")) == 1


def forged(w: World) -> None:
    say(w, "Hello there, a question", "email", "mallory", evidence=CLAIM, level="claimed")


def of_a_stranger(w: World) -> None:
    stranger = [{"address": "email:stranger", "level": "claimed", "source": "form"}]
    say(w, "Hello there, a question", "chat", evidence=stranger)


def of_one_that_never_wrote(w: World) -> None:
    Contacts(w.pipeline.store, w.clock).link("email:quiet", "external:9", source="x", by="kim")
    quiet = [{"address": "email:quiet", "level": "claimed", "source": "form"}]
    say(w, "Hello there, a question", "chat", evidence=quiet)


def of_one_that_aged_out(w: World) -> None:
    w.clock.forward(days=366)
    say(w, "Hello there, a question", "chat", evidence=CLAIM)


def of_one_that_an_operator_separated(w: World) -> None:
    contacts = Contacts(w.pipeline.store, w.clock)
    contacts.link(EMAIL, CHAT, source="operator", by="kim")
    contacts.unlink(EMAIL, by="kim")
    say(w, "Hello there, a question", "chat", evidence=CLAIM)


def of_a_chat(w: World) -> None:
    say(w, QUESTION, "chat", "mei")
    chat = [{"address": "webchat:mei", "level": "claimed", "source": "form"}]
    say(w, "Hello there, a question", "sms", evidence=chat)


@pytest.mark.parametrize(
    "claims",
    [forged, of_a_stranger, of_one_that_never_wrote, of_one_that_aged_out,
     of_one_that_an_operator_separated, of_a_chat],
)  # fmt: skip
def test_nobody_is_written_to_on_a_mere_claim(claims: Any) -> None:
    w = offering()
    claims(w)
    assert [m for inbox in ("email", "sms", "chat") for m in w.channel(inbox).sent] == []


def test_an_offer_does_not_push_out_the_code_an_operator_asked_for() -> None:
    w = offering()
    challenge(w, "phone:other", CHAT)
    say(w, "Hello there, a question", "chat", evidence=CLAIM)
    assert w.sent("email") == []
    say(w, sent_code(w, "sms"), "chat")
    assert together(w, "phone:other", CHAT)


def test_a_code_offered_by_itself_never_merges_two_people_whom_we_know() -> None:
    w = offering()
    contacts = Contacts(w.pipeline.store, w.clock)
    contacts.link("external:1", EMAIL, source="operator", by="kim")
    contacts.link("external:2", CHAT, source="operator", by="kim")
    say(w, "Hello there, a question", "chat", evidence=CLAIM)
    say(w, sent_code(w), "chat")
    assert not together(w, EMAIL, CHAT)
    assert ("code.right", "two_customers") in [(n, f.get("outcome")) for n, f in w.events]
