"""A person is forgotten: nothing readable is left but the opt-out, whatever happens meanwhile."""

from typing import Any

import pytest

from chalicelib.aws import S3Bucket
from chalicelib.codes import Codes
from chalicelib.contacts import Contacts, UnknownAddressError
from chalicelib.erasing import Erased, Eraser
from chalicelib.errors import NotFoundError, RetryableError
from chalicelib.items import Held, Home, Step
from chalicelib.ports import Table
from infra import people
from tests.fakes import Clock, World, world
from tests.nouns import conversation, message
from tests.test_store import over

CANARY = "Zwicky"
SHOP = [{"address": f"external:{CANARY}", "level": "verified", "source": "signed_identity"}]
QUESTION = f"How do I keep the tea of {CANARY} fresh?"
ADDRESSES = [f"{scheme}:{CANARY}" for scheme in ("phone", "email", "webchat", "external")]


@pytest.fixture
def w() -> World:
    """A person who wrote on every channel, with files, long bytes, a code and an opt-out."""
    w = world(repeats={"silence_minutes": 0})
    w.channel("email").files["photo"] = b"jpeg of Zwicky"
    say(w, "sms", QUESTION, evidence=SHOP)
    say(w, "email", QUESTION, evidence=SHOP, attachments=[{"source": "photo", "name": CANARY}],
        subject=CANARY)  # fmt: skip
    say(w, "chat", f"And where does {CANARY} sign?", evidence=SHOP)
    say(w, "official", f"Hello, {CANARY} here again, about tea")
    say(w, "official", "", kind="event", event={"name": "subscribe"})
    w.reply("T1", f"In a tin, dear {CANARY}.")
    w.settle()
    w.clock.forward(hours=2)
    say(w, "chat", QUESTION, evidence=SHOP)
    say(w, "email", f"I am {CANARY}, believe me", level="claimed")
    codes(w).challenge(f"email:{CANARY}", f"phone:{CANARY}", by="kim")
    codes(w).challenge(f"phone:{CANARY}", "webchat:mei", by="kim")
    w.settle()
    # Somebody else.
    w.say("sms", "mei", "Is the shop open on Sundays?")
    claim = [{"address": f"email:{CANARY}", "level": "claimed", "source": "form"}]
    w.say("chat", "mei", "Is the shop open on Mondays?", evidence=claim)
    w.settle()
    w.bucket.put("attachments/other", b"somebody else's", "text/plain")
    return w


def codes(w: World) -> Codes:
    return Codes(w.pipeline.store, w.pipeline.deployment, w.clock, w.pipeline.report)


def say(w: World, inbox: str, text: str, **more: Any) -> None:
    w.say(inbox, CANARY, text, **more)
    w.settle()


def erase(w: World, who: str = f"email:{CANARY}") -> Erased:
    line = w.pipeline
    return Eraser(line.store, line.deployment, line.clock, line.report).erase(who)


def left(w: World) -> list[str]:
    """What is still readable of the person: where it lies."""
    found = [f"{pk} {sk}" for (pk, sk), i in w.table.items.items() if CANARY in pk + sk + i.body]
    return found + [key for key, value in w.bucket.objects.items() if CANARY.encode() in value]


def of_mei(w: World) -> list[str]:
    """Mei's own words: that she claimed an address is part of what she said."""
    message = next(s.message for s in w.messages() if "Mondays" in s.message.text)
    return [f"MSG#{message.id[:14]} {message.id}"]


def entirely(w: World) -> None:
    """Of both contacts, as the official account was never linked to the others."""
    erase(w)
    erase(w, f"wechat:{CANARY}")


def test_nothing_readable_is_left(w: World) -> None:
    assert len(left(w)) > 20
    entirely(w)
    assert set(left(w)) <= {*of_mei(w), *mei_feed(w)}
    assert list(w.bucket.objects) == ["attachments/other"]


def mei_feed(w: World) -> set[str]:
    """What Mei reads of what she wrote."""
    return {f"{pk} {sk}" for (pk, sk), i in w.table.items.items() if "Mondays" in i.body}


def test_after_it_the_addresses_are_unknown(w: World) -> None:
    erase(w)
    for address in [*ADDRESSES, f"unproven:email:{CANARY}"]:
        with pytest.raises(UnknownAddressError):
            Contacts(w.pipeline.store, w.clock).show(address)
    assert w.pipeline.store.feed_after("chat", f"webchat:{CANARY}", 0) == []


def test_it_says_what_it_removed_and_what_is_left_to_do(w: World) -> None:
    erased = erase(w)
    assert {*ADDRESSES, f"unproven:email:{CANARY}"} == erased.addresses
    assert (len(erased.contacts), erased.files) == (2, 1)
    assert erased.messages > 8
    assert erased.lines > 2
    lines = list(people.erased(erased))
    assert any(f"1 files, {erased.lines} lines of web chat" in line for line in lines)
    assert sum("Still in the helpdesk desk, erase it there" in line for line in lines) == len(
        erased.tickets
    )


def test_somebody_else_is_left_alone(w: World) -> None:
    before = Contacts(w.pipeline.store, w.clock).show("webchat:mei")
    entirely(w)
    after = Contacts(w.pipeline.store, w.clock).show("webchat:mei")
    assert before[0].suggestions == (f"email:{CANARY}",)
    assert after[0].suggestions == ()
    assert after[1:] == before[1:]


def test_an_opt_out_outlives_the_person(w: World) -> None:
    say(w, "sms", "STOP", kind="event", event={"name": "opt_out"}, consent={"choice": "out"})
    erased = erase(w)
    assert erased.opted_out == {f"phone:{CANARY}"}
    assert f"Kept: the opt-out of phone:{CANARY}." in list(people.erased(erased))
    held = w.pipeline.store.opt_out(f"phone:{CANARY}")
    assert held is not None
    assert held.noun.choice == "out"


@pytest.mark.parametrize("who", ["contact", *ADDRESSES])
def test_a_person_is_found_by_any_address_and_by_the_contacts_id(w: World, who: str) -> None:
    contact = Contacts(w.pipeline.store, w.clock).show(f"phone:{CANARY}")[0]
    erased = erase(w, contact.id if who == "contact" else who)
    assert contact.id in erased.contacts


def test_a_contact_that_is_not_there_is_named(w: World) -> None:
    with pytest.raises(UnknownAddressError, match="there is no contact c123"):
        erase(w, "c123")


def test_erasing_again_finds_nothing(w: World) -> None:
    entirely(w)
    kept = dict(w.table.items)
    again = erase(w)
    assert (again.messages, again.conversations, again.contacts) == (0, set(), set())
    assert w.table.items == kept


@pytest.mark.parametrize("number", [*range(1, 12), 15, 20, 25, 30, 35, 40])
def test_an_erasure_that_stopped_anywhere_is_finished_by_asking_again(
    w: World, number: int
) -> None:
    def pull() -> None:
        raise SystemExit

    w.table.interrupt(number, pull)
    try:
        erase(w)
    except SystemExit:
        erase(w)
    w.table.before_write = None
    erase(w, f"wechat:{CANARY}")
    assert set(left(w)) <= {*of_mei(w), *mei_feed(w)}


@pytest.mark.parametrize("number", range(1, 40, 3))
def test_whoever_writes_meanwhile_is_forgotten_too_or_is_somebody_new(
    w: World, number: int
) -> None:
    w.table.interrupt(number, lambda: say(w, "sms", "Where is my parcel?"))
    erase(w)
    w.table.before_write = None
    w.settle()
    link = w.pipeline.store.link(f"phone:{CANARY}")
    said = [c for c in w.table.items.values() if "Where is my parcel?" in c.body]
    if link is None:
        assert said == []
    else:
        assert [e.source for e in link.noun.history] == ["sms"]


def test_a_redelivery_does_not_bring_back_what_was_erased(w: World) -> None:
    say(w, "sms", "Where is my parcel?", id="again")
    entirely(w)
    say(w, "sms", "Where is my parcel?", id="again")
    w.read_stream_again()
    w.settle()
    assert w.pipeline.store.link(f"phone:{CANARY}") is None
    assert set(left(w)) <= {*of_mei(w), *mei_feed(w)}


def test_what_is_on_its_way_goes_nowhere(w: World) -> None:
    w.reply("T1", f"One more thing, {CANARY}.")
    w.say("sms", CANARY, "Where is my parcel?")
    sent, said = [len(w.sent(i)) for i in ("sms", "email", "chat")], len(w.desk.said)
    erase(w)
    w.settle()
    for _ in range(3):
        w.clock.forward(minutes=20)
        w.pipeline.tick()
        w.settle()
    assert [len(w.sent(i)) for i in ("sms", "email", "chat")] == sent
    assert len(w.desk.said) == said
    assert all(stored.finished for stored in w.messages())


def test_an_agents_reply_to_an_erased_persons_ticket_is_refused(w: World) -> None:
    erase(w)
    with pytest.raises(NotFoundError):
        w.reply("T1", "Are you there?")


def test_who_writes_again_is_new_and_hears_nothing_of_before(w: World) -> None:
    entirely(w)
    heard = len(w.sent("sms"))
    say(w, "sms", QUESTION)
    assert len(w.sent("sms")) == heard
    assert len(Contacts(w.pipeline.store, w.clock).show(f"phone:{CANARY}")[2]) == 1


def test_what_somebody_asked_on_anothers_ticket_is_forgotten_there(w: World) -> None:
    store, contacts = w.pipeline.store, Contacts(w.pipeline.store, w.clock)
    w.say("chat", "li", "When do you open?")
    w.settle()
    contacts.link(f"wechat:{CANARY}", "webchat:li", source="operator", by="kim")
    [conversation] = [c for c in contacts.show("webchat:li")[2] if c.asked_by == "webchat:li"]
    say(w, "official", f"And is {CANARY} there?", references=[f"conversation:{conversation.id}"])
    contacts.unlink(f"wechat:{CANARY}", by="kim")
    entirely(w)
    held = store.conversation(conversation.id)
    assert held is not None
    assert CANARY not in held.noun.model_dump_json()
    assert [p.address for p in held.noun.participants] == ["webchat:li"]


def test_whoever_has_a_number_now_is_erased_without_its_former_owner(w: World) -> None:
    say(w, "sms", "Where is my parcel?")
    w.clock.forward(days=181)
    say(w, "sms", "Is this the tea shop?")
    erase(w, f"phone:{CANARY}")
    texts = [s.message.text for s in w.messages()]
    assert "Where is my parcel?" in texts
    assert "Is this the tea shop?" not in texts


def test_a_person_who_keeps_writing_is_an_error_that_says_so(w: World) -> None:
    contacts = Contacts(w.pipeline.store, w.clock)
    numbers = iter(range(10_000))

    def meddle(_: Any) -> None:
        hook, w.table.before_write = w.table.before_write, None
        contacts.link(f"phone:{next(numbers)}", f"email:{CANARY}", source="operator", by="kim")
        w.table.before_write = hook

    w.table.before_write = meddle
    with pytest.raises(RetryableError, match="keeps writing"):
        erase(w)


def test_a_conversation_is_found_though_the_message_that_began_it_is_erased() -> None:
    w = world()
    say(w, "sms", QUESTION)
    store, (stored,) = w.pipeline.store, w.messages()
    name = stored.message.conversation_id or ""
    held, first = store.conversation(name), store.message(stored.message.id)
    assert held is not None
    assert first is not None
    # It is another one's, and has not moved.
    theirs = stored.message.model_copy(update={"contact_id": "another"})
    moved = Held(held.noun.model_copy(update={"contact_id": "another"}))
    store.commit(first.change(message=theirs), moved, gone=[held])
    erase(w, f"phone:{CANARY}")
    found, left_ = store.conversation(name), store.message(stored.message.id)
    assert left_ is not None
    assert left_.noun.erased
    assert found is not None
    assert found.noun.participants == ()


# On the real table and bucket


def test_a_person_is_erased_from_the_real_table(table: Table) -> None:
    clock = Clock()
    store = over(table, clock)
    told = message(f"Where is the parcel of {CANARY}?", address=f"email:{CANARY}")
    held, _ = store.add(told)
    contacts = Contacts(store, clock)
    link = contacts.made(contacts.of(told)).noun
    noun = conversation(f"Where is the parcel of {CANARY}?", contact_id=link.contact_id)
    store.commit(Held(noun), Held(Home.of(noun)))
    resolved = told.model_copy(update={"conversation_id": noun.id})
    store.commit(held.change(message=resolved, step=Step.DONE))
    store.feed_append(told)
    deployment = world().pipeline.deployment
    eraser = Eraser(store, deployment, clock, lambda name, **_: None)
    erased = eraser.erase(f"email:{CANARY}")
    assert (erased.messages, len(erased.conversations), erased.lines) == (1, 1, 1)
    found = [item for page in table.scan("") for item in page if CANARY in f"{item.pk}{item.body}"]
    assert found == []
    assert eraser.erase(f"email:{CANARY}").messages == 0


def test_a_file_is_gone_after_it_was_removed_and_may_be_removed_again(moto_bucket: str) -> None:
    bucket = S3Bucket(moto_bucket)
    bucket.put("attachments/1", b"jpeg", "image/jpeg")
    for _ in range(2):
        bucket.delete("attachments/1")
    with pytest.raises(NotFoundError):
        bucket.get("attachments/1")
