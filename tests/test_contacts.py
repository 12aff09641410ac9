"""Whose address it is: evidence links, claims only suggest, operators decide, all is undoable."""

from contextlib import suppress
from datetime import timedelta

import pytest

from chalicelib import identity
from chalicelib.contacts import Contacts, Linking, Proof, UnknownAddressError
from chalicelib.errors import ConflictError, NotFoundError
from chalicelib.items import Held, Home
from chalicelib.policy import ContactPolicy
from chalicelib.schema import AddressLink, Level, Message
from tests.fakes import START, World, world
from tests.nouns import asked, conversation, evidence, message

WECHAT, EMAIL, SMS, SHOP = "wechat:wx1:li", "email:li@example.com", "phone:+86138", "external:7"


@pytest.fixture
def w() -> World:
    return world()


def contacts(w: World) -> Contacts:
    return Contacts(w.pipeline.store, w.clock)


def writes(address: str, *proven: str, claimed: str = "", level: str = "verified") -> Message:
    """A message from an address that proves or claims others too."""
    others = [evidence(other) for other in proven]
    others += [evidence(claimed, "claimed")] if claimed else []
    return message(address=address, evidence=(evidence(address, level), *others))


def of(own: Contacts, noun: Message) -> Held[AddressLink]:
    """The link of whoever wrote, and what comes of the message is written."""
    while True:
        link = own.of(noun)
        with suppress(ConflictError):  # somebody else wrote from there, too
            return own.made(link)


def heard(w: World, address: str, *proven: str, level: str = "verified") -> str:
    """The contact of whoever wrote."""
    return of(contacts(w), writes(address, *proven, level=level)).noun.contact_id


def linked(w: World, address: str) -> AddressLink:
    held = w.pipeline.store.link(address)
    assert held is not None
    return held.noun


def together(w: World, *addresses: str) -> bool:
    """Whether they belong to one contact, which lists exactly them."""
    found = {linked(w, a).contact_id for a in addresses}
    return len(found) == 1 and set(contacts(w).show(addresses[0])[0].addresses) == set(addresses)


def by_hand(w: World, address: str, to: str) -> AddressLink:
    return contacts(w).link(address, to, source="operator", by="kim")


def began(w: World, address: str, name: str) -> None:
    """A conversation that an address began."""
    noun = conversation(
        id=name,
        contact_id=linked(w, address).contact_id,
        asked_by=address,
        questions=(asked(asked_by=address),),
    )
    w.pipeline.store.commit(Held(noun), Held(Home.of(noun)))


def conversations_of(w: World, address: str) -> set[str]:
    contact_id = linked(w, address).contact_id
    found = contacts(w).show(address)[2]
    assert all(c.contact_id == contact_id for c in found)
    assert all(w.pipeline.store.conversation(c.id) for c in found)
    return {c.id for c in found}


# By evidence


def test_an_address_keeps_its_contact(w: World) -> None:
    assert heard(w, EMAIL) == heard(w, EMAIL)
    assert heard(w, EMAIL) != heard(w, SMS)


def test_verified_evidence_links_an_address_that_never_wrote(w: World) -> None:
    heard(w, WECHAT, EMAIL, SHOP)
    assert together(w, WECHAT, EMAIL, SHOP)
    assert heard(w, EMAIL) == heard(w, WECHAT)


@pytest.mark.parametrize(("first", "second"), [(WECHAT, EMAIL), (EMAIL, WECHAT)])
def test_verified_evidence_links_addresses_that_were_strangers(
    w: World, first: str, second: str
) -> None:
    heard(w, first)
    heard(w, second)
    heard(w, WECHAT, EMAIL)
    assert together(w, WECHAT, EMAIL)


def test_a_single_address_moves_to_the_person_whom_we_know(w: World) -> None:
    known = heard(w, WECHAT, SHOP)
    heard(w, EMAIL)
    assert heard(w, EMAIL, WECHAT) == known
    heard(w, SMS)
    assert heard(w, WECHAT, SMS) == known
    assert together(w, WECHAT, SHOP, EMAIL, SMS)


def test_two_people_whom_we_know_are_never_merged_by_evidence(w: World) -> None:
    one, other = heard(w, WECHAT, SHOP), heard(w, EMAIL, SMS)
    assert heard(w, WECHAT, EMAIL) == one != other
    assert together(w, EMAIL, SMS)
    assert contacts(w).show(WECHAT)[0].suggestions == (EMAIL,)


def test_a_claim_links_nothing_and_becomes_a_suggestion(w: World) -> None:
    heard(w, EMAIL)
    claiming = writes(WECHAT, claimed=EMAIL)
    own = of(contacts(w), claiming)
    assert not together(w, WECHAT, EMAIL)
    history = w.pipeline.store.history(own.noun.contact_id)
    assert contacts(w).suggest(history, claiming).suggestions == (EMAIL,)


def test_a_suggestion_is_made_once_and_never_of_what_is_linked(w: World) -> None:
    own = of(contacts(w), writes(WECHAT, SHOP)).noun
    store = w.pipeline.store
    for claimed in (EMAIL, SHOP, EMAIL):
        history = store.history(own.contact_id)
        suggested = contacts(w).suggest(history, writes(WECHAT, claimed=claimed))
        store.commit(Held(suggested, history.contact.version))
    assert store.history(own.contact_id).contact.noun.suggestions == (EMAIL,)


def test_a_linked_address_is_suggested_no_longer(w: World) -> None:
    heard(w, EMAIL, SMS)
    heard(w, WECHAT, SHOP)
    heard(w, WECHAT, EMAIL)
    by_hand(w, EMAIL, WECHAT)
    assert contacts(w).show(WECHAT)[0].suggestions == ()


# Forgery


def test_a_forged_sender_never_reaches_the_owners_contact(w: World) -> None:
    owner = heard(w, EMAIL)
    forged = heard(w, EMAIL, level="claimed")
    assert forged != owner
    assert together(w, EMAIL)
    assert linked(w, identity.UNPROVEN + EMAIL).level is Level.CLAIMED


def test_what_a_forged_sender_proves_about_others_is_worth_nothing(w: World) -> None:
    heard(w, SHOP)
    heard(w, EMAIL, SHOP, level="claimed")
    assert together(w, SHOP)
    assert together(w, identity.UNPROVEN + EMAIL)


# By hand


def test_an_operator_links_what_evidence_cannot(w: World) -> None:
    known = heard(w, WECHAT, SHOP)
    heard(w, EMAIL, SMS)
    assert by_hand(w, EMAIL, WECHAT).contact_id == known
    assert together(w, WECHAT, SHOP, EMAIL)
    assert together(w, SMS)


def test_an_operator_may_link_addresses_that_never_wrote(w: World) -> None:
    by_hand(w, EMAIL, WECHAT)
    assert together(w, WECHAT, EMAIL)
    assert heard(w, EMAIL) == heard(w, WECHAT)


def test_linking_or_unlinking_again_changes_nothing(w: World) -> None:
    linked_once = by_hand(w, EMAIL, WECHAT)
    assert by_hand(w, EMAIL, WECHAT) == linked_once
    apart = contacts(w).unlink(EMAIL, by="kim")
    assert contacts(w).unlink(EMAIL, by="kim") == apart


def test_an_unlinked_address_is_a_person_of_its_own(w: World) -> None:
    heard(w, WECHAT, EMAIL)
    contacts(w).unlink(EMAIL, by="kim")
    assert together(w, WECHAT)
    assert together(w, EMAIL)


@pytest.mark.parametrize(("writer", "proven"), [(WECHAT, EMAIL), (EMAIL, WECHAT)])
def test_later_evidence_does_not_undo_an_unlink(w: World, writer: str, proven: str) -> None:
    heard(w, WECHAT, EMAIL)
    contacts(w).unlink(EMAIL, by="kim")
    heard(w, writer, proven)
    assert together(w, WECHAT)
    assert together(w, EMAIL)


def test_later_evidence_does_not_undo_an_unlink_by_way_of_a_third_contact(w: World) -> None:
    heard(w, WECHAT, EMAIL)
    contacts(w).unlink(EMAIL, by="kim")
    heard(w, SMS, SHOP)
    heard(w, WECHAT, SMS)
    heard(w, EMAIL, WECHAT)
    assert together(w, SMS, SHOP, WECHAT)
    assert together(w, EMAIL)


def test_an_operator_undoes_an_unlink(w: World) -> None:
    heard(w, WECHAT, EMAIL)
    contacts(w).unlink(EMAIL, by="kim")
    by_hand(w, EMAIL, WECHAT)
    heard(w, WECHAT, EMAIL)
    assert together(w, WECHAT, EMAIL)


@pytest.mark.parametrize("act", ["unlink", "show"])
def test_an_address_of_which_nothing_was_heard_is_named_as_such(w: World, act: str) -> None:
    with pytest.raises(UnknownAddressError, match=EMAIL):
        contacts(w).unlink(EMAIL, by="kim") if act == "unlink" else contacts(w).show(EMAIL)


# What goes along


def test_what_an_address_began_moves_with_it_and_back(w: World) -> None:
    heard(w, WECHAT)
    heard(w, EMAIL)
    began(w, WECHAT, "q1")
    began(w, EMAIL, "q2")
    by_hand(w, EMAIL, WECHAT)
    assert conversations_of(w, WECHAT) == {"q1", "q2"}
    contacts(w).unlink(EMAIL, by="kim")
    assert conversations_of(w, WECHAT) == {"q1"}
    assert conversations_of(w, EMAIL) == {"q2"}


def test_every_link_of_an_address_is_remembered(w: World) -> None:
    heard(w, WECHAT)
    heard(w, EMAIL)
    by_hand(w, EMAIL, WECHAT)
    contacts(w).unlink(EMAIL, by="sam")
    link = linked(w, EMAIL)
    told = [(e.source, e.by) for e in link.history]
    assert told == [("test", "askonce"), ("operator", "kim"), ("unlinked", "sam")]
    assert [e.contact_id for e in link.history[1:]] == [
        linked(w, WECHAT).contact_id,
        link.contact_id,
    ]


def test_an_unproven_sender_that_is_unlinked_is_only_claimed_again(w: World) -> None:
    unproven = identity.UNPROVEN + EMAIL
    heard(w, EMAIL, level="claimed")
    assert by_hand(w, unproven, WECHAT).level is Level.VERIFIED
    assert contacts(w).unlink(unproven, by="kim").level is Level.CLAIMED


# At once


def test_two_first_messages_at_once_make_one_contact(w: World) -> None:
    others: list[str] = []
    w.table.interrupt(1, lambda: others.append(heard(w, WECHAT)))
    assert [heard(w, WECHAT)] == others
    assert together(w, WECHAT)


def test_an_address_that_is_linked_while_it_moves_is_decided_about_again(w: World) -> None:
    heard(w, WECHAT)
    heard(w, EMAIL, SHOP)
    w.table.interrupt(1, lambda: by_hand(w, SMS, WECHAT))
    with pytest.raises(ConflictError):
        heard(w, WECHAT, EMAIL)
    assert together(w, WECHAT, SMS)
    heard(w, WECHAT, EMAIL)
    assert together(w, WECHAT, SMS)


# Ageing


def days_later(w: World, days: float) -> None:
    w.clock.forward(days=days)


def says(w: World, address: str, *proven: str, level: str = "verified") -> str:
    """The contact of whoever writes now."""
    other = [evidence(a) for a in proven]
    now = writes(address, level=level).model_copy(update={"received_at": w.clock.now})
    noun = now.model_copy(update={"evidence": (*now.evidence, *other)})
    return of(contacts(w), noun).noun.contact_id


@pytest.mark.parametrize(
    ("address", "days", "same"),
    [
        (SMS, 179, True),
        (SMS, 181, False),
        (EMAIL, 364, True),
        (EMAIL, 366, False),
        (WECHAT, 4000, True),
        ("webchat:v1", 4000, True),
        ("wechat_union:u1", 4000, True),
        (SHOP, 4000, True),
    ],
)
def test_whoever_writes_after_a_proof_aged_out_is_another_person(
    w: World, address: str, days: int, *, same: bool
) -> None:
    before = says(w, address)
    days_later(w, days)
    assert (says(w, address) == before) is same


def test_an_aged_out_address_takes_nothing_along(w: World) -> None:
    old = says(w, SMS, SHOP)
    began(w, SMS, "q1")
    days_later(w, 181)
    new = says(w, SMS)
    assert new != old
    assert together(w, SMS)
    assert together(w, SHOP)
    assert conversations_of(w, SHOP) == {"q1"}
    assert conversations_of(w, SMS) == set()
    assert [e.source for e in linked(w, SMS).history] == ["test", "aged_out"]


def test_an_address_that_is_a_persons_only_one_leaves_its_questions_behind(w: World) -> None:
    old = says(w, SMS)
    began(w, SMS, "q1")
    days_later(w, 181)
    says(w, SMS)
    assert [c.noun.id for c in w.pipeline.store.history(old).conversations] == ["q1"]
    assert conversations_of(w, SMS) == set()


def test_a_forged_sender_neither_renews_nor_takes_over_what_aged_out(w: World) -> None:
    old = says(w, EMAIL)
    days_later(w, 366)
    says(w, EMAIL, level="claimed")
    assert linked(w, EMAIL).contact_id == old
    assert linked(w, EMAIL).verified_at == START


def test_whoever_has_a_number_now_does_not_get_the_old_questions_by_an_unlink(w: World) -> None:
    says(w, SMS, SHOP)
    began(w, SMS, "q1")
    days_later(w, 181)
    says(w, SMS)
    by_hand(w, SMS, SHOP)
    contacts(w).unlink(SMS, by="kim")
    assert conversations_of(w, SMS) == set()
    assert conversations_of(w, SHOP) == {"q1"}


def test_an_operator_who_links_an_aged_out_address_moves_nothing_of_its_past(w: World) -> None:
    old = says(w, SMS)
    began(w, SMS, "q1")
    days_later(w, 181)
    by_hand(w, SMS, EMAIL)
    assert conversations_of(w, EMAIL) == set()
    assert [c.noun.id for c in w.pipeline.store.history(old).conversations] == ["q1"]


def test_evidence_in_the_same_persons_message_renews_an_address(w: World) -> None:
    person = says(w, WECHAT, SMS)
    days_later(w, 170)
    says(w, WECHAT, SMS)
    days_later(w, 170)
    assert says(w, SMS) == person


def test_evidence_about_an_aged_out_address_of_another_person_brings_it_without_its_past(
    w: World,
) -> None:
    says(w, SMS, SHOP)
    began(w, SMS, "q1")
    days_later(w, 181)
    says(w, WECHAT, SMS)
    assert together(w, WECHAT, SMS)
    assert conversations_of(w, WECHAT) == set()


def test_the_owner_decides_how_long_a_proof_holds(w: World) -> None:
    own = Contacts(w.pipeline.store, w.clock, ContactPolicy(phone_days="never", webchat_days=1))
    for address, same in ((SMS, True), ("webchat:v", False)):
        first = of(own, writes(address)).noun.contact_id
        later = writes(address).model_copy(update={"received_at": w.clock.now + timedelta(days=2)})
        assert (of(own, later).noun.contact_id == first) is same


@pytest.mark.parametrize(("days", "told"), [(100, True), (200, False)])
def test_an_answer_travels_only_while_both_sides_are_proven(days: int, *, told: bool) -> None:
    w = world(repeats={"answered_days": 1000})
    shop = [{"address": SHOP, "level": "verified", "source": "signed_identity"}]
    w.say("sms", "li", "How do I keep green tea fresh?", evidence=shop)
    w.settle()
    w.reply("T1", "In a tin.")
    w.settle()
    days_later(w, days)
    w.say("wechat", "li", "How do I keep green tea fresh?", evidence=shop)
    w.settle()
    verdict = w.messages()[-1 - told].message.verdict
    assert verdict is not None
    assert (verdict.said is not None) is told


def test_every_message_renews_its_address_at_most_once_a_day(w: World) -> None:
    for hours, renewed in ((0, START), (5, START), (20, START + timedelta(hours=25))):
        w.clock.forward(hours=hours)
        w.say("sms", "li", "Where is my parcel?")
        w.settle()
        assert linked(w, "phone:li").verified_at == renewed


def test_what_the_old_owner_asked_is_not_told_to_the_new_one() -> None:
    w = world(repeats={"answered_days": 1000})
    w.say("sms", "li", "How do I keep green tea fresh?")
    w.settle()
    w.reply("T1", "In a tin.")
    w.settle()
    days_later(w, 181)
    w.say("sms", "li", "How do I keep green tea fresh?")
    w.settle()
    assert w.sent("sms") == ["In a tin."]
    with pytest.raises(NotFoundError, match="no address to reply to"):
        w.reply("T1", "And dry.")


# Parting


def shared_ticket(w: World) -> None:
    """Two addresses have asked on one ticket, since an operator linked them."""
    w.say("sms", "li", "How do I keep green tea fresh?")
    w.settle()
    by_hand(w, "email:mei", "phone:li")
    [conversation] = contacts(w).show("phone:li")[2]
    thread = [f"conversation:{conversation.id}"]
    w.say("email", "mei", "Where is my order?", references=thread)
    w.settle()
    assert {t for t, _ in w.desk.said} == {"T1"}


def test_what_somebody_asked_on_anothers_ticket_is_asked_no_more_when_they_part(
    w: World,
) -> None:
    shared_ticket(w)
    contacts(w).unlink("email:mei", by="kim")
    [conversation] = contacts(w).show("phone:li")[2]
    assert [q.asked_by for q in conversation.questions] == ["phone:li"]


def test_whoever_began_a_ticket_leaves_the_others_questions_behind(w: World) -> None:
    shared_ticket(w)
    contacts(w).unlink("phone:li", by="kim")
    [conversation] = contacts(w).show("phone:li")[2]
    assert [q.asked_by for q in conversation.questions] == ["phone:li"]


def test_a_reply_written_before_two_people_parted_is_sent_to_neither(w: World) -> None:
    shared_ticket(w)
    w.reply("T1", "In a tin.")
    contacts(w).unlink("email:mei", by="kim")
    w.settle()
    assert (w.sent("sms"), w.sent("email")) == ([], [])
    assert any("another customer" in note for note in w.desk.notes)
    w.clock.forward(minutes=1)
    w.reply("T1", "In a tin, Li.")
    w.settle()
    assert (w.sent("sms"), w.sent("email")) == (["In a tin, Li."], [])


def test_an_answer_given_to_both_is_not_repeated_to_one_after_they_parted(w: World) -> None:
    shared_ticket(w)
    w.reply("T1", "In a tin.")
    w.settle()
    contacts(w).unlink("email:mei", by="kim")
    w.clock.forward(hours=2)
    w.say("sms", "li", "How do I keep green tea fresh?")
    w.settle()
    assert "In a tin." not in "".join(w.sent("sms"))


# By your own system


def proven(w: World, address: str, to: str) -> Linking:
    return contacts(w).prove(address, to, Proof("customer list", w.clock.now, "kim"))


def test_your_own_system_links_addresses_to_a_customer(w: World) -> None:
    assert proven(w, EMAIL, SHOP) is Linking.LINKED
    assert proven(w, SMS, SHOP) is Linking.LINKED
    assert proven(w, EMAIL, SHOP) is Linking.ALREADY
    assert together(w, EMAIL, SMS, SHOP)


def test_two_of_your_customers_are_never_made_one(w: World) -> None:
    proven(w, EMAIL, SHOP)
    assert proven(w, EMAIL, "external:8") is Linking.TWO_CUSTOMERS
    assert heard(w, WECHAT, SHOP) != heard(w, "webchat:v", "external:8")
    assert heard(w, WECHAT, "external:8") != heard(w, "webchat:v")
    assert contacts(w).show(WECHAT)[0].suggestions == ("external:8",)


def test_your_own_system_does_not_undo_what_an_operator_took_apart(w: World) -> None:
    proven(w, EMAIL, SHOP)
    proven(w, SMS, SHOP)
    contacts(w).unlink(EMAIL, by="kim")
    assert proven(w, EMAIL, SHOP) is Linking.SEPARATED


def test_your_own_system_may_take_back_what_it_took_back(w: World) -> None:
    proven(w, EMAIL, SHOP)
    contacts(w).unlink(EMAIL, by="crm", source=identity.WITHDRAWN)
    assert together(w, EMAIL)
    assert proven(w, EMAIL, SHOP) is Linking.LINKED
