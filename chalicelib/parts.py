"""A long SMS comes as several webhooks: they are stored as they come, and joined into one message.

Pieces arrive in any order, and more than once. They share a number that the phone reuses soon, so
that only pieces of a few minutes belong together; when that time is over, what came is delivered.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from chalicelib.errors import ConflictError, RetryableError
from chalicelib.items import PIECES_WAIT, Collected, Held, Step, Stored
from chalicelib.schema import Message, Part, message_id
from chalicelib.store import Store

_TRIES = 8


def collect(
    store: Store,
    held: Held[Stored],
    part: Part,
    clock: Callable[[], datetime],
    report: Callable[..., None],
) -> None:
    """Put a piece to the others; the last one makes the message. Safe to repeat."""
    for _ in range(_TRIES):
        try:
            complete = _collect(store, held, part, clock())
        except ConflictError:
            again = store.message(held.noun.message.id)
            if again is None or again.noun.step is not Step.ACCEPTED:
                return
            held = again
        else:
            report("piece.kept", message=held.noun.message.id, complete=complete)
            return
    raise RetryableError("the pieces of this message keep changing")


def _collect(store: Store, held: Held[Stored], part: Part, now: datetime) -> bool:
    """Whether that was the last one."""
    message = held.noun.message
    found = store.collected(message.inbox, message.address, part.of)
    if found.noun.done or now - found.noun.began_at > PIECES_WAIT:  # the number is used again
        found = found.change(began_at=now, pieces={}, done=False)
    pieces = {**found.noun.pieces, part.number: message.id}
    complete = len(pieces) >= part.total
    puts: list[Held[Any]] = [
        held.change(step=Step.DONE),
        found.change(pieces=pieces, done=complete),
    ]
    if complete:
        puts.append(Held(Stored(message=_joined(store, pieces, message, part))))
    store.commit(*puts)
    return complete


def give_up(store: Store, found: Held[Collected], report: Callable[..., None]) -> None:
    """Deliver what came of a message whose other pieces never did."""
    first = next(iter(found.noun.pieces.values()))
    held = store.message(first)
    if held is None or held.noun.message.part is None:
        return
    message, part = held.noun.message, held.noun.message.part
    joined = _joined(store, found.noun.pieces, message, part)
    try:
        store.commit(found.change(done=True), Held(Stored(message=joined)))
    except ConflictError:
        return  # a piece came after all
    report("piece.missing", message=joined.id, missing=part.total - len(found.noun.pieces))


def _joined(store: Store, pieces: Mapping[int, str], last: Message, part: Part) -> Message:
    """One message of the pieces that there are; a gap is said in words."""
    by_number: dict[int, Message] = {}
    for number, piece in pieces.items():
        held = store.message(piece)
        by_number[number] = held.noun.message if held else last
    by_number[part.number] = by_number.get(part.number, last)
    text = "".join(
        by_number[n].text if n in by_number else f" […{n}/{part.total}…] "
        for n in range(1, part.total + 1)
    )
    first = by_number[min(by_number)]
    own = "-".join(by_number[n].external_id for n in sorted(by_number))
    return first.model_copy(
        update={
            "id": message_id(first.inbox, first.address, "joined", own),
            "external_id": first.external_id,
            "text": text,
            "part": None,
            "sent_at": min(m.sent_at for m in by_number.values()),
            "received_at": max(m.received_at for m in by_number.values()),
        }
    )
