"""What your own system says of its customers: which addresses are whose, by CSV or signed API.

It counts as verified evidence, and does what evidence does: it links addresses to a customer, and
never merges two people, nor undoes what an operator took apart.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chalicelib import identity
from chalicelib.contacts import Contacts, Linking, Proof, UnknownAddressError, decided
from chalicelib.ports import WebhookResponse
from chalicelib.schema import Address, AddressLink

#: The evidence of a link that the CSV, or the API, made.
CUSTOMER_LIST = "customer list"
CONTACTS_API = "contacts api"
MAX_BYTES = 64 * 1024
#: How the address of a scheme looks in its normal form, and what is expected, in words.
_FORMS = {
    "email": (r"[^\s@\"<>,;]+@[^\s@\"<>,;]+", "a mail address, lower-case"),
    "phone": (r"\+[1-9]\d{6,14}", "E.164, such as +8613800138000"),
    "wechat": (r"[\w-]+:[\w-]+", "<appid>:<openid>"),
    "wechat_union": (r"[\w-]+", "a unionid"),
    "webchat": (r"[\w-]+", "a visitor's id"),
}
#: Why your system's word was not followed.
REFUSALS = {
    Linking.SEPARATED: "an operator took it away from this customer: link it by hand",
    Linking.TWO_CUSTOMERS: "it belongs to another customer of yours: unlink it there first",
    Linking.BOTH_KNOWN: "it belongs to a person known by several addresses: link it by hand",
}


class NoAddressError(ValueError):
    """Not an address in its normal form; says what is expected."""


def normal(address: str) -> Address:
    """An address in its normal form. NoAddressError."""
    scheme, _, rest = address.strip().partition(":")
    if scheme not in _FORMS:
        raise NoAddressError(f"no address: it must begin with one of {', '.join(_FORMS)}, and :")
    pattern, expected = _FORMS[scheme]
    rest = rest.lower() if scheme == "email" else rest
    if not re.fullmatch(pattern, rest, re.ASCII if scheme == "phone" else 0) or len(rest) > 320:
        raise NoAddressError(f"no {scheme} address: {expected} is expected")
    return f"{scheme}:{rest}"


@dataclass(frozen=True)
class Result:
    """What became of one address."""

    address: str
    #: `linked`, `already`, `unlinked`; `refused` with the reason.
    outcome: str
    why: str = ""


@dataclass(frozen=True)
class Customers:
    """Links addresses to customers, and takes them away again."""

    contacts: Contacts
    clock: Callable[[], datetime]

    def link(self, customer_id: str, address: str, *, source: str, by: str) -> Result:
        """An address is this customer's. Safe to repeat."""
        try:
            known = normal(address)
        except NoAddressError as error:
            return Result(address, "refused", str(error))
        customer = identity.CUSTOMER + customer_id
        outcome = decided(
            lambda: self.contacts.prove(known, customer, Proof(source, self.clock(), by))
        )
        if outcome in REFUSALS:
            return Result(known, "refused", REFUSALS[outcome])
        return Result(known, outcome.value)

    def unlink(self, customer_id: str, address: str, *, by: str) -> Result:
        """An address is this customer's no more. Safe to repeat; other people's are left alone."""
        try:
            known = normal(address)
        except NoAddressError as error:
            return Result(address, "refused", str(error))
        if known not in {link.address for link in self.links(customer_id)}:
            return Result(known, "already")
        decided(lambda: self.contacts.unlink(known, by=by, source=identity.WITHDRAWN))
        return Result(known, "unlinked")

    def links(self, customer_id: str) -> list[AddressLink]:
        """Every address of a customer; [] of one of whom nothing was ever heard."""
        try:
            return self.contacts.show(identity.CUSTOMER + customer_id)[1]
        except UnknownAddressError:
            return []


# The signed API


class _Said(BaseModel):
    """The body of POST /contacts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    action: Literal["link", "unlink"]
    customer_id: Annotated[str, Field(pattern=r"^\S.{0,254}$")]
    addresses: Annotated[list[str], Field(min_length=1, max_length=20)]


def take(customers: Customers, body: bytes) -> WebhookResponse:
    """Do what a verified request says; 409 when at least one address was refused, 400 for nonsense.

    Answers with the contact as it is afterwards, and what became of each address.
    """
    try:
        said = _Said.model_validate_json(body)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()]
        return _answer(400, {"error": "; ".join(faults)})
    if said.action == "link":
        results = [
            customers.link(said.customer_id, a, source=CONTACTS_API, by=CONTACTS_API)
            for a in dict.fromkeys(said.addresses)
        ]
    else:
        results = [
            customers.unlink(said.customer_id, a, by=CONTACTS_API)
            for a in dict.fromkeys(said.addresses)
        ]
    refused = any(r.outcome == "refused" for r in results)
    return _answer(409 if refused else 200, _contact(customers, said.customer_id, results))


def _contact(customers: Customers, customer_id: str, results: Iterable[Result]) -> dict[str, Any]:
    links = customers.links(customer_id)
    return {
        "customer_id": customer_id,
        "contact_id": links[0].contact_id if links else None,
        "addresses": [
            link.model_dump(mode="json", include={"address", "level", "source", "verified_at"})
            for link in links
        ],
        "results": [
            {"address": r.address, "outcome": r.outcome} | ({"why": r.why} if r.why else {})
            for r in results
        ],
    }


def _answer(status: int, body: dict[str, Any]) -> WebhookResponse:
    import json

    return WebhookResponse(
        status=status,
        body=json.dumps(body, ensure_ascii=False),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
