"""Contacts as an operator reads them."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from chalicelib.codes import TRIES
from chalicelib.contacts import Contacts
from chalicelib.erasing import Erased
from chalicelib.items import Challenge, Step
from chalicelib.pipeline import Pipeline
from chalicelib.schema import AddressLink, Level, digest


def shown(pipeline: Pipeline, address: str) -> Iterator[str]:
    """The person behind an address, line by line. UnknownAddressError."""
    policy = pipeline.deployment.document.policy.contacts
    contacts = Contacts(pipeline.store, pipeline.clock, policy)
    contact, links, conversations = contacts.show(address)
    yield f"contact {contact.id}"
    for link in links:
        yield f"  {link.address}  {link.level.value}, by {link.source}"
        yield from _of_link(pipeline, link)
    for claimed in contact.suggestions:
        yield (
            f"  {claimed}  only claimed: link it if you know that it is the same person, or have "
            "it proven: askonce contacts challenge"
        )
    for c in conversations:
        ticket = c.ticket.id if c.ticket else "no ticket yet"
        yield f"  {c.reference}  {ticket}  {c.state.value}  asked {c.asked_times}x"


def _of_link(pipeline: Pipeline, link: AddressLink) -> Iterator[str]:
    store, now = pipeline.store, pipeline.clock()
    yield from _proven(pipeline, link, now)
    choice = store.opt_out(link.address)
    if choice and choice.noun.choice == "out":
        yield f"      opted out {_at(choice.noun.at)}: nothing is sent here"
    challenge = store.challenge(digest(link.address))
    if challenge:
        yield f"      {_expected(pipeline, challenge.noun, now)}"
    for event in link.history:
        yield f"      {_at(event.at)}  {event.source}, {event.by}"


def _proven(pipeline: Pipeline, link: AddressLink, now: datetime) -> Iterator[str]:
    policy = pipeline.deployment.document.policy.contacts
    until = policy.fresh_until(link)
    if link.level is not Level.VERIFIED or link.verified_at is None:
        return
    line = f"      proven {_at(link.verified_at)}"
    if policy.aged_out(link, now):
        yield f"{line}, and aged out since {_at(until)}: nothing is disclosed, whoever writes next"
        yield "      from here gets a contact of their own"
    else:
        yield f"{line}, holds until {_at(until)}" if until else line


def _expected(pipeline: Pipeline, challenge: Challenge, now: datetime) -> str:
    """How a code that should come back from an address is getting on."""
    what = f"a code to {challenge.claimed}, asked for by {challenge.by}"
    carrier = pipeline.store.message(challenge.message_id)
    if carrier and carrier.noun.step is Step.FAILED:
        return f"{what}, was not delivered: {carrier.noun.failure}"
    if challenge.until is None:
        return f"{what}, is on its way"
    if challenge.tries >= TRIES:
        return f"{what}, was guessed at {challenge.tries} times and counts no more"
    if challenge.until < now:
        return f"{what}, ran out {_at(challenge.until)}"
    return f"{what}, is expected until {_at(challenge.until)}, {challenge.tries} wrong tries so far"


def _at(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def erased(what: Erased) -> Iterator[str]:
    """What was removed, and what is left to do."""
    yield (
        f"Erased: {len(what.contacts)} contacts, {len(what.addresses)} addresses, "
        f"{len(what.conversations)} conversations, {what.messages} messages, {what.files} files, "
        f"{what.lines} lines of web chat."
    )
    for address in sorted(what.opted_out):
        yield f"Kept: the opt-out of {address}."
    for ticket in what.tickets:
        yield f"Still in the helpdesk {ticket.helpdesk}, erase it there: ticket {ticket.id}"
