"""A batch from a FIFO queue: what fails goes back, later, and holds up only its own conversation.

Lambda deletes what a handler does not name in `batchItemFailures`; and only when the event source
says ReportBatchItemFailures (infra/overrides.yaml does).
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chalicelib import log
from chalicelib.errors import RetryableError

MAX_DELAY_SECONDS = 900.0
#: Lambda's own reserve: what is not begun by then goes back untouched.
RESERVE_SECONDS = 2.0


def consume(
    records: Sequence[Mapping[str, Any]],
    work: Callable[[str], None],
    delay: Callable[[str, float], None],
    remaining_seconds: Callable[[], float],
) -> dict[str, list[dict[str, str]]]:
    """Run `work` on each message id, in order. Returns what Lambda wants to hear.

    `delay` hides a failed message by its receipt handle; later ones of its group stay behind it.
    """
    failed: list[dict[str, str]] = []
    waiting_groups: set[str] = set()
    for record in records:
        group = record["attributes"].get("MessageGroupId", record["messageId"])
        if group in waiting_groups or remaining_seconds() < RESERVE_SECONDS:
            waiting_groups.add(group)
        elif _succeeds(record, work, delay):
            continue
        waiting_groups.add(group)
        failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}


def _succeeds(
    record: Mapping[str, Any],
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
