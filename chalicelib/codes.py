"""One-time codes: what was sent to one address comes back from another, so both are one person's.

A code is made when its message leaves, and only then; what is stored shows dots in its place, and
a digest of it under a salt. It is good for ten minutes, five tries, one use, and only from the
address that it was asked for. Right: both are linked and the code is gone, in one commit with the
message that brought it. Wrong: a try is counted.
"""

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from chalicelib import identity
from chalicelib.contacts import ASKONCE, Along, Contacts, Linking, Proof
from chalicelib.errors import AskOnceError, RejectedError
from chalicelib.items import Challenge, Held, Step, Stored
from chalicelib.policy import Language
from chalicelib.ports import HostedConnector
from chalicelib.schema import (
    Address,
    AddressLink,
    Channel,
    Direction,
    Kind,
    Level,
    Message,
    Outcome,
    Participant,
    Verdict,
    digest,
    message_id,
)
from chalicelib.worker import Worker

GOOD_FOR = timedelta(minutes=10)
TRIES = 5
#: The evidence of a link that a code made.
CODE = "code"
#: Stands in the stored message where the code stands in what is sent.
HIDDEN = "••••••"
#: A code that could not leave for so long is not expected any more.
_SENT_WITHIN = timedelta(hours=1)
_OFFERED_AGAIN_AFTER = timedelta(days=1)
_PREFIX = "code:"
_LONGEST = 80
_AROUND = (
    r"(?:\b(?:hi|hello|the|my|your|this|it|is|its|it's|here|code|verification|one-time|thanks)\b"
    r"|您好|你好|我的|你的|这是|這是|验证码|驗證碼|校验码|校驗碼|代码|代碼|是|为|為|谢谢|謝謝"
    r"|[\s:：,，.。!！;；\"'“”「」【】()（）#-])*"
)
_NOTHING_BUT_A_CODE = re.compile(rf"{_AROUND}([0-9](?:[ -]?[0-9]){{5}}){_AROUND}", re.IGNORECASE)
#: Where an address of a scheme is written to.
_CHANNELS = {"email": Channel.EMAIL, "phone": Channel.SMS, "wechat": Channel.WECHAT}
#: Addresses that somebody can write from.
_WRITES = {*_CHANNELS, "webchat"}
_NAMES: dict[str, tuple[str, str]] = {
    "email": ("by email", "邮件"),
    "phone": ("by SMS", "短信"),
    "wechat": ("on WeChat", "微信"),
    "webchat": ("in the web chat", "网页客服"),
}
_REASONS = {
    Linking.LINKED: "both addresses belong to this customer now",
    Linking.ALREADY: "both addresses belonged to this customer already",
}


class NoCodeError(AskOnceError):
    """A code cannot be sent, and why."""


def code_in(message: Message) -> str | None:
    """The six digits of a proven sender's message that says nothing else."""
    if message.kind is not Kind.TEXT or len(message.text) > _LONGEST:
        return None
    found = _NOTHING_BUT_A_CODE.fullmatch(unicodedata.normalize("NFKC", message.text))
    if not found or identity.sender(message)[1] is not Level.VERIFIED:
        return None
    return re.sub(r"\D", "", found[1])


def _digest(challenge: Challenge, answers_from: Address, code: str) -> str:
    """Bound to both sides: the same six digits are another code elsewhere."""
    bound = "".join(f"{len(part)}:{part}" for part in (challenge.claimed, answers_from, code))
    return hmac.new(challenge.salt.encode(), bound.encode(), hashlib.sha256).hexdigest()


def is_right(challenge: Challenge, message: Message) -> bool:
    """Whether a message says the code of a challenge, from where it was asked for."""
    wanted = _digest(challenge, message.address, code_in(message) or "")
    return hmac.compare_digest(wanted.encode(), challenge.digest.encode())


@dataclass(frozen=True)
class Codes(Worker):
    """Sends codes, and knows them again."""

    # Asked for by an operator

    def challenge(self, claimed: Address, answers_from: Address, *, by: str) -> Challenge:
        """Send a code to `claimed`, to come back from `answers_from`. NoCodeError.

        Takes the place of the code that was expected from there before.
        """
        if claimed == answers_from or answers_from.partition(":")[0] not in _WRITES:
            raise NoCodeError(f"nobody can send a code for {claimed} back from {answers_from}")
        target = self._target_of(claimed)
        if target is None:
            raise NoCodeError(
                f"no inbox can send a code to {claimed}: name an email:, phone: or wechat: address "
                "that one of your inboxes writes to"
            )
        if self._opted_out(claimed):
            raise NoCodeError(f"{claimed} opted out of messages: START sent from there opts in")
        challenge, carrier = self._made(target, answers_from, by)
        pending = self.store.challenge(digest(answers_from))
        self.store.commit(Held(challenge, pending.version if pending else 0), carrier)
        return challenge

    # Offered by AskOnce itself

    def offered(self, message: Message, own: Held[AddressLink]) -> list[Held[Any]]:
        """What to write, so that who claims an address is sent a code there; [] mostly.

        Both sides once a day, and only to an address that wrote to us itself and is proven: else
        whoever can type an address into a chat could have us write to strangers. The sender hears
        nothing of it: whether we know an address is nobody's business.
        """
        if self.deployment.document.policy.contacts.codes != "offer" or not self._free(own.noun):
            return []
        pending = self.store.challenge(digest(own.noun.address))
        if pending and self._is_live(pending.noun, message):
            return []
        for other, target in self._claimed(message, own.noun):
            challenge, carrier = self._made(target, own.noun.address, ASKONCE)
            version = pending.version if pending else 0
            return [Held(challenge, version), carrier, other.change(offered_at=self.clock())]
        return []

    def _claimed(
        self, message: Message, own: AddressLink
    ) -> Iterator[tuple[Held[AddressLink], Participant]]:
        """The addresses that a message claims and that may be sent a code, and by which inbox."""
        for address in identity.suggested(message):
            other = self.store.link(address)
            if other is None or not self._free(other.noun) or self._opted_out(address):
                continue
            if other.noun.contact_id == own.contact_id or identity.were_separated(own, other.noun):
                continue
            if (target := self._wrote(other.noun)) and self._sends(target.inbox):
                yield other, target

    def _free(self, link: AddressLink) -> bool:
        """Whether an address is proven, and was not offered a code today."""
        lately = link.offered_at and self.clock() - link.offered_at < _OFFERED_AGAIN_AFTER
        return link.address.partition(":")[0] in _WRITES and self._is_fresh(link) and not lately

    # Where to, and with which words

    def _target_of(self, address: Address) -> Participant | None:
        """Where an address wrote last; else the first inbox of its channel."""
        channel = _CHANNELS.get(address.partition(":")[0])
        link = self.store.link(address)
        wrote = self._wrote(link.noun) if link else None
        if wrote and self._sends(wrote.inbox):
            return wrote
        inbox = self.deployment.first_inbox(channel) if channel else None
        if channel is None or inbox is None:
            return None
        return Participant(
            address=address, sender=address, channel=channel, inbox=inbox, last_at=self.clock()
        )

    def _wrote(self, link: AddressLink) -> Participant | None:
        history = self.store.history(link.contact_id)
        wrote = [p for c in history.conversations for p in c.noun.participants
                 if p.sender == link.address]  # fmt: skip
        return max(wrote, key=lambda p: p.last_at, default=None)

    def _sends(self, inbox: str) -> bool:
        """Whether a code may leave by an inbox: what we host ourselves would keep it readable."""
        kind = self.deployment.kind(inbox)
        return kind is not None and not issubclass(kind, HostedConnector)

    def _opted_out(self, address: Address) -> bool:
        choice = self.store.opt_out(address)
        return choice is not None and choice.noun.choice == "out"

    def _made(
        self, target: Participant, answers_from: Address, by: str
    ) -> tuple[Challenge, Held[Stored]]:
        """A challenge, and the message that will carry its code."""
        language = self._language(target)
        wording = self.deployment.document.wording
        channel = _NAMES[answers_from.partition(":")[0]][language == "zh"]
        now = self.clock()
        message = Message(
            id=message_id(ASKONCE, target.address, secrets.token_hex(8)),
            direction=Direction.OUTBOUND,
            channel=target.channel,
            connector=ASKONCE,
            inbox=target.inbox,
            external_id=_PREFIX + digest(answers_from),
            address=target.address,
            account=target.account,
            author=ASKONCE,
            kind=Kind.TEXT,
            text=wording.code(HIDDEN, channel, language),
            subject=wording.code_subject(language) if target.channel is Channel.EMAIL else "",
            automatic=True,
            sent_at=now,
            received_at=now,
        )
        challenge = Challenge(
            answers_from=answers_from,
            claimed=target.address,
            by=by,
            message_id=message.id,
            made_at=now,
        )
        return challenge, Held(Stored(message=message))

    def _language(self, target: Participant) -> Language:
        link = self.store.link(target.address)
        asked = self.store.history(link.noun.contact_id).conversations if link else ()
        known = [held.noun.language for held in asked]
        return known[0] if known else ("zh" if target.address.startswith("phone:+86") else "en")

    # On its way out

    def filled(self, message: Message) -> Message:
        """A message as it is sent: if it carries a code, with a new one in it. RejectedError.

        Under an id of its own, since a second try says another code than the first.
        """
        if message.author != ASKONCE or not message.external_id.startswith(_PREFIX):
            return message
        held = self.store.challenge(message.external_id.removeprefix(_PREFIX))
        if held is None or held.noun.message_id != message.id:
            raise RejectedError("another code took its place, or it was used")
        if self.clock() - held.noun.made_at > _SENT_WITHIN:
            raise RejectedError("the code could not be sent in time")
        code = f"{secrets.randbelow(10**6):06d}"
        salted = held.noun.model_copy(update={"salt": secrets.token_hex(16), "tries": 0})
        known = _digest(salted, salted.answers_from, code)
        made = salted.model_copy(update={"digest": known, "until": self.clock() + GOOD_FOR})
        self.store.commit(replace(held, noun=made))
        sent = {"id": f"{message.id}-{salted.salt[:8]}", "text": message.text.replace(HIDDEN, code)}
        return message.model_copy(update=sent)

    # On its way back

    def expected(self, message: Message) -> Held[Challenge] | None:
        """The live challenge at which a message is a try, right or wrong."""
        if code_in(message) is None:
            return None
        held = self.store.challenge(digest(message.address))
        return held if held and self._is_live(held.noun, message) else None

    def _is_live(self, challenge: Challenge, message: Message) -> bool:
        until = challenge.until
        return until is not None and message.received_at <= until and challenge.tries < TRIES

    def missed(self, held: Held[Challenge]) -> Held[Challenge]:
        """The challenge after a wrong try."""
        tries = held.noun.tries + 1
        self.report("code.wrong", message=held.noun.message_id, tries=tries)
        return held.change(tries=tries)

    def redeem(
        self,
        held: Held[Stored],
        own: Held[AddressLink],
        challenge: Held[Challenge],
        puts: Sequence[Held[Any]],
    ) -> Held[Stored]:
        """Link both sides, use up the code and finish its message, in one commit. ConflictError.

        What an operator asked for links people whom we know, too; else that is an agent's decision.
        """
        message, asked = held.noun.message, challenge.noun
        contacts = Contacts(self.store, self.clock, self.deployment.document.policy.contacts)
        plan = contacts.plan(own, asked.claimed, message.received_at)
        forced = plan.outcome not in _REASONS and asked.by != ASKONCE
        why = _REASONS[Linking.LINKED] if forced else _REASONS.get(plan.outcome, _UNDECIDED)
        verdict = Verdict(outcome=Outcome.IGNORED, rule=CODE, reason=f"it is the code: {why}")
        decided = {"verdict": verdict, "contact_id": plan.contact_id}
        done = held.change(
            message=message.model_copy(update=decided), step=Step.DONE, claimed_until=None
        )
        along = Along(puts=[done, *puts], gone=[challenge])
        if forced:
            contacts.link(asked.claimed, own.noun.address, source=CODE, by=asked.by, along=along)
        else:
            proof = Proof(CODE, message.received_at, asked.by)
            contacts.carry_out(plan, asked.claimed, proof, along)
        self.report("code.right", message=message.id, outcome=plan.outcome.value)
        return replace(done, version=held.version + 1)


_UNDECIDED = "whether both addresses are one customer's is for an agent to decide"
