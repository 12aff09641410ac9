"""Whose an address is, said once more and in other words: what the tests hold the system against.

Addresses change hands: an `Owner` is an address in the hands of one person, as far as anybody can
know. Owners who are proven to be one person form a group. How the system does it is not known here.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

UNPROVEN = "unproven:"
#: How long a proof holds, in days; others hold for ever.
HOLDS = {"phone": 180, "email": 365}
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Owner:
    """An address, and which of its owners."""

    address: str
    number: int


@dataclass(eq=False)
class Group:
    """One person: the addresses that they have, and those that they had."""

    number: int
    live: set[Owner] = field(default_factory=set)


class Whose:
    """Who has which address now, and who is proven to be whom."""

    def __init__(self) -> None:
        self.owners: dict[str, Owner] = {}
        self.groups: dict[Owner, Group] = {}
        self._proven_at: dict[Owner, datetime] = {}
        self._numbers = count()
        #: By address: the groups it has been in, and those an operator took it away from.
        self._been: dict[str, set[int]] = {}
        self._banned: dict[str, set[int]] = {}

    # Asked

    def together(self, one: Owner, other: Owner) -> bool:
        """Whether both are proven to be the same person's, right now."""
        mine, others = self.groups.get(one), self.groups.get(other)
        return mine is not None and mine is others

    def is_fresh(self, owner: Owner, now: datetime) -> bool:
        """Whether an address was proven lately enough to be its owner's."""
        if owner.address.startswith(UNPROVEN) or self.owners.get(owner.address) != owner:
            return False
        return not self._aged_out(owner, now)

    def people(self) -> set[frozenset[str]]:
        """Who is who, by addresses."""
        groups = {id(g): g for g in self.groups.values()}
        return {frozenset(o.address for o in g.live) for g in groups.values() if g.live}

    # Told

    def wrote(self, address: str, at: datetime, *, proven: bool) -> Owner:
        """Somebody wrote from an address."""
        if not proven:
            return self._known(UNPROVEN + address, at)
        owner = self._known(address, at)
        return self._anew(owner, at) if self._aged_out(owner, at) else owner

    def renew(self, owner: Owner, at: datetime) -> None:
        """It was proven once more; noted once a day."""
        if not owner.address.startswith(UNPROVEN) and at - self._proven_at[owner] >= _DAY:
            self._proven_at[owner] = at

    def prove(self, own: Owner, address: str, at: datetime) -> bool:
        """Evidence that two addresses are one person's; whether they are from now on."""
        other = self.owners.get(address)
        if other is None:
            self._enter(self._new(address, at), self.groups[own])
            return True
        if self.together(own, other):
            self.renew(other, at)
            return True
        if self._aged_out(other, at):
            other = self._anew(other, at)
        mine, others = self.groups[own].live, self.groups[other].live
        if self._separated(mine, others) or _customers(mine, others):
            return False
        if mine == {own}:
            self._enter(own, self.groups[other])
            self._proven_at[own] = at
        elif others == {other}:
            self._enter(other, self.groups[own])
            self._proven_at[other] = at
        else:
            return False
        return True

    def customer(self, name: str, address: str, at: datetime) -> None:
        """The owner's own list says whose an address is."""
        self.prove(self._known(f"external:{name}", at), address, at)

    def link(self, address: str, to: str, at: datetime) -> None:
        """An operator says that one address is the same person as another."""
        target, own = self._known(to, at), self.owners.get(address)
        if own is None:
            self._enter(self._new(address, at), self.groups[target])
        elif self.together(own, target):
            self.renew(own, at)
        else:
            own = self._anew(own, at) if self._aged_out(own, at) else own
            self._enter(own, self.groups[target])
            self._proven_at[own] = at

    def unlink(self, address: str, *, by_operator: bool) -> None:
        """An address is somebody else's than the rest of its group."""
        own = self.owners.get(address)
        if own is None or self.groups[own].live == {own}:
            return
        if by_operator:
            self._banned.setdefault(address, set()).update(self._been[address])
        self._enter(own, Group(next(self._numbers)))

    def erase(self, address: str) -> set[str]:
        """A person is forgotten; returns their addresses."""
        own = self.owners.get(address)
        addresses = {address} | ({o.address for o in self.groups[own].live} if own else set())
        for twin in {UNPROVEN + a for a in addresses}:
            unproven = self.owners.get(twin)
            if unproven and self.groups[unproven].live == {unproven}:
                addresses.add(twin)
        known = [self.owners.pop(gone) for gone in addresses & self.owners.keys()]
        people = {self.groups[owner] for owner in known}
        self.groups = {o: g for o, g in self.groups.items() if g not in people}
        for gone in addresses:
            self._been.pop(gone, None)
            self._banned.pop(gone, None)
        return addresses

    # Kept

    def _known(self, address: str, at: datetime) -> Owner:
        if address not in self.owners:
            self._enter(self._new(address, at), Group(next(self._numbers)))
        return self.owners[address]

    def _new(self, address: str, at: datetime) -> Owner:
        self.owners[address] = owner = Owner(address, next(self._numbers))
        self._proven_at[owner] = at
        return owner

    def _anew(self, owner: Owner, at: datetime) -> Owner:
        """The address has another owner; the former one stays who they were."""
        self.groups[owner].live.discard(owner)
        after = self._new(owner.address, at)
        self._enter(after, Group(next(self._numbers)))
        return after

    def _enter(self, owner: Owner, group: Group) -> None:
        before = self.groups.get(owner)
        if before:
            before.live.discard(owner)
        group.live.add(owner)
        self.groups[owner] = group
        self._been.setdefault(owner.address, set()).add(group.number)

    def _aged_out(self, owner: Owner, at: datetime) -> bool:
        days = HOLDS.get(owner.address.partition(":")[0])
        return days is not None and at - self._proven_at[owner] > timedelta(days=days)

    def _separated(self, mine: set[Owner], others: set[Owner]) -> bool:
        pairs = [(a.address, b.address) for a in mine for b in others]
        return any(
            self._banned.get(a, set()) & self._been[b] or self._banned.get(b, set()) & self._been[a]
            for a, b in pairs
        )


def _customers(mine: set[Owner], others: set[Owner]) -> bool:
    ours, theirs = (
        {o.address for o in s if o.address.startswith("external:")} for s in (mine, others)
    )
    return bool(ours and theirs) and not ours & theirs
