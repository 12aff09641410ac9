"""A batch from a FIFO queue: its conversations are worked on together, each in its own order.

Most of a worker's time is waiting for a helpdesk or a provider, which Lambda bills: conversations
wait at once, in a thread each. What fails goes back, later, and holds up only its own conversation.

Lambda deletes what a handler does not name in `batchItemFailures`; and only when the event source
says ReportBatchItemFailures (infra/overrides.yaml does).
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from typing import Any

from chalicelib import log
from chalicelib.errors import RetryableError

MAX_DELAY_SECONDS = 900.0
#: Lambda's own reserve: what is not begun by then goes back untouched.
RESERVE_SECONDS = 2.0

Record = Mapping[str, Any]


def consume(
    records: Sequence[Record],
    work: Callable[[str], None],
    delay: Callable[[str, float], None],
    remaining_seconds: Callable[[], float],
    *,
    at_once: int,
) -> dict[str, list[dict[str, str]]]:
    """Run `work` on each message id, at most `at_once` groups at a time, each of them in order.

    Returns what Lambda wants to hear: what failed or was not begun, in the batch's order. `delay`
    hides a failed message by its receipt handle; later ones of its group stay behind it.
    """

    def left_of(group: Sequence[Record]) -> Sequence[Record]:
        """What goes back of a group: from the first message that fails, or has no time left, on."""
        for n, record in enumerate(group):
            if remaining_seconds() < RESERVE_SECONDS or not _succeeds(record, work, delay):
                return group[n:]
        return ()

    conversations = groups_of(
        records, lambda record: str(record["attributes"].get("MessageGroupId", record["messageId"]))
    )
    found = side_by_side(left_of, conversations, at_once)
    left = {record["messageId"] for group in found for record in group}
    failed = [r["messageId"] for r in records if r["messageId"] in left]
    return {"batchItemFailures": [{"itemIdentifier": one} for one in failed]}


def groups_of(records: Iterable[Record], name: Callable[[Record], str]) -> list[list[Record]]:
    """Records of one name together, each group in order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(name(record), []).append(record)
    return list(groups.values())


def side_by_side(
    act: Callable[[Sequence[Record]], Sequence[Record]],
    groups: Sequence[Sequence[Record]],
    at_once: int,
) -> list[Sequence[Record]]:
    """What `act` gives for each group. A single one takes no thread, and imports none."""
    if min(len(groups), at_once) <= 1:
        return [act(group) for group in groups]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(len(groups), at_once)) as pool:
        # In its caller's context, which threads do not have by themselves: by that, the local
        # world knows with whose rights a call is made.
        running = [pool.submit(copy_context().run, act, group) for group in groups]
        return [one.result() for one in running]


def _succeeds(
    record: Record,
    work: Callable[[str], None],
    delay: Callable[[str, float], None],
) -> bool:
    tries = int(record["attributes"].get("ApproximateReceiveCount", "1"))
    message, place = None, None
    try:
        message = str(json.loads(record["body"])["message_id"])
        work(message)
    except RetryableError as error:
        wait, why = backoff_seconds(tries, error.retry_after_seconds), str(error)
    except Exception as error:  # noqa: BLE001  # one message's fault is not its neighbours'
        wait, why, place = backoff_seconds(tries, None), type(error).__name__, log.place(error)
    else:
        return True
    log.event(
        "retrying", message=message, tries=tries, wait_seconds=round(wait), why=why, place=place
    )
    try:
        delay(record["receiptHandle"], wait)
    except Exception as error:  # noqa: BLE001  # it comes back all the same, when it is visible again
        log.event("delay.failed", message=message, why=type(error).__name__)
    return False


def backoff_seconds(tries: int, retry_after_seconds: float | None) -> float:
    """What the other side asked for, else 5, 10, 20 ... seconds; at most a quarter hour."""
    own = 5.0 * 2 ** min(tries - 1, 10)
    wanted = own if retry_after_seconds is None else max(retry_after_seconds, 0.0)
    return min(wanted, MAX_DELAY_SECONDS)
