"""A batch of the table's stream: what several parties said is relayed side by side, each in order.

What that sends to the queues goes at the end of the batch, ten in a request. If a record fails, or
the sending does, Lambda reads again from there on, and what succeeded finds its work done.
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from chalicelib import log
from chalicelib.consumer import groups_of, side_by_side
from chalicelib.items import new_item

#: So many parties at once: nobody but AWS is asked.
AT_ONCE = 5

Record = Mapping[str, Any]


def consume(
    records: Sequence[Record],
    relay: Callable[[str], None],
    sending_together: Callable[[], AbstractContextManager[None]],
) -> dict[str, list[dict[str, str]]]:
    """Relay what is new. Returns what Lambda wants to hear: the first record that failed, if any.

    What is sent while `sending_together` is open must be sent, or raise, when it closes.
    """
    new = [record for record in records if _id_of(record)]
    parties = groups_of(new, lambda record: str(record["dynamodb"]["NewImage"]["pk"]["S"]))

    def failing(group: Sequence[Record]) -> Sequence[Record]:
        """The first of a party's records that fails: those behind it wait for it."""
        return next(([record] for record in group if not _succeeds(record, relay)), [])

    try:
        with sending_together():
            found = [one for each in side_by_side(failing, parties, AT_ONCE) for one in each]
    except Exception as error:  # noqa: BLE001  # what was not sent is relayed again
        _tell("", error)
        found = new
    numbers = [r["dynamodb"]["SequenceNumber"] for r in new if any(r is one for one in found)]
    return {"batchItemFailures": [{"itemIdentifier": number} for number in numbers[:1]]}


def _id_of(record: Record) -> str | None:
    return new_item(record["eventName"], record["dynamodb"].get("NewImage", {}))


def _succeeds(record: Record, relay: Callable[[str], None]) -> bool:
    stored_id = _id_of(record) or ""
    try:
        relay(stored_id)
    except Exception as error:  # noqa: BLE001  # from here on again, and not one record further
        _tell(stored_id, error)
        return False
    return True


def _tell(stored_id: str, error: Exception) -> None:
    why, place = type(error).__name__, log.place(error)
    log.event("relay.failed", message=stored_id or None, why=why, place=place)
