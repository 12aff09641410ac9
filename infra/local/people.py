"""Who writes in the local world: two customers whom the shop knows, and a stranger.

The shop's customer list says which addresses are one person; the world records it as evidence when
it starts. The stranger writes from addresses of their own, and by email in Li's name.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from chalicelib.contacts import Contacts
from chalicelib.settings import Document
from chalicelib.store import Store


@dataclass(frozen=True)
class Person:
    """A customer and where they write from."""

    key: str
    name: str
    openid: str
    email: str
    phone: str
    #: The customer's number in the shop; None for somebody who is not logged in there.
    customer: str | None
    #: What the receiving mail server finds about mail in this name.
    dmarc: str = "pass"


PEOPLE = {
    p.key: p
    for p in (
        Person("li", "Li Lei 李雷", "oLi00000000000000000000000", "li@example.com", "+8613800138000", "C-1001"),
        Person("mei", "Mei Han 韩梅梅", "oMei0000000000000000000000", "mei@example.org", "+14155550123", "C-1002"),
        # Forges Li's From: the mail server's DMARC check fails.
        Person("mallory", "Mallory (stranger)", "oMal0000000000000000000000", "li@example.com", "+14155550199", None, dmarc="fail"),
    )
}  # fmt: skip
KNOWN = [p for p in PEOPLE.values() if p.customer]


def know_customers(store: Store, document: Document) -> None:
    """The shop's customer list: which addresses are one person. Safe to repeat."""
    contacts = Contacts(store, lambda: datetime.now(UTC))
    inboxes = document.inboxes.values()
    app_ids = [i["app_id"] for i in inboxes if i.get("connector") == "wechat"]
    for person in KNOWN:
        email = f"email:{person.email}"
        own = [f"wechat:{app_id}:{person.openid}" for app_id in app_ids]
        for address in (*own, f"phone:{person.phone}", f"external:{person.customer}"):
            contacts.link(address, email, source="customer list", by="the shop")
