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


LI = Person(
    key="li",
    name="Li Lei 李雷",
    openid="oLi00000000000000000000000",
    email="li@example.com",
    phone="+8613800138000",
    customer="C-1001",
)
MEI = Person(
    key="mei",
    name="Mei Han 韩梅梅",
    openid="oMei0000000000000000000000",
    email="mei@example.org",
    phone="+14155550123",
    customer="C-1002",
)
#: Forges Li's From: the mail server's DMARC check fails.
MALLORY = Person(
    key="mallory",
    name="Mallory (stranger)",
    openid="oMal0000000000000000000000",
    email="li@example.com",
    phone="+14155550199",
    customer=None,
    dmarc="fail",
)
PEOPLE = {p.key: p for p in (LI, MEI, MALLORY)}
KNOWN = [p for p in PEOPLE.values() if p.customer]


#: connector -> the customer's address there.
_PLACES = {
    "wechat": "wechat:{app_id}:{id}",
    "wechat_miniprogram": "wechat:{app_id}:{id}",
    "wecom": "wecom:{corp_id}:{id}",
    "wecom_kf": "wecom_kf:{corp_id}:{id}",
}


def know_customers(store: Store, document: Document) -> None:
    """The shop's customer list: which addresses are one person. Safe to repeat."""
    contacts = Contacts(store, lambda: datetime.now(UTC))
    ours = [i for i in document.inboxes.values() if i.get("connector") in _PLACES]
    for person in KNOWN:
        email = f"email:{person.email}"
        own = [_PLACES[i["connector"]].format(**i, id=person.openid) for i in ours]
        for address in (*own, f"phone:{person.phone}", f"external:{person.customer}"):
            contacts.link(address, email, source="customer list", by="the shop")
