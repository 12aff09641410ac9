"""Helpdesks at their own pace: one that limits us is asked later, one that fails is let be.

How a desk is doing is one item of the table, shared by all workers: the calls left of its limit,
counted by us and corrected by its own headers; how often it failed in a row; until when nobody
calls it. After that one worker tries, and the others wait for how that ends.
"""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from chalicelib.errors import (
    ConfigurationError,
    ConflictError,
    DeliveryError,
    RejectedError,
    RetryableError,
)
from chalicelib.items import DeskState, Held
from chalicelib.ports import DeskCapabilities, Helpdesk, Polled, PollingHelpdesk
from chalicelib.schema import Attachment, Conversation, Message
from chalicelib.store import Store

T = TypeVar("T")

#: After so many failures in a row nobody calls for a while, which doubles with each further one.
PATIENCE = 5
_FIRST_REST, _LONGEST_REST = timedelta(seconds=30), timedelta(minutes=15)
#: A desk that refuses our credentials is tried again so often: perhaps somebody mended them.
REFUSED_REST = timedelta(minutes=10)
#: How long one try of a desk that was let be may take before another worker tries.
_TRIAL = timedelta(seconds=30)
_TRIES = 10
#: One thread of a container writes at a time: so many tries are enough for that many containers.
_noting = threading.Lock()


class Watched:
    """A helpdesk's calls, each made only when the desk may be called. RetryableError if not now."""

    def __init__(
        self,
        desk: Helpdesk,
        store: Store,
        clock: Callable[[], datetime],
        report: Callable[..., None],
    ) -> None:
        self._desk, self._store, self._clock, self._report = desk, store, clock, report

    @property
    def capabilities(self) -> DeskCapabilities:
        return self._desk.capabilities

    def open_ticket(
        self, message: Message, conversation: Conversation, *, idempotency_key: str, again: bool
    ) -> str:
        return self._call(
            lambda: self._desk.open_ticket(
                message, conversation, idempotency_key=idempotency_key, again=again
            )
        )

    def add_comment(
        self,
        ticket_id: str,
        message: Message,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool,
    ) -> None:
        self._call(
            lambda: self._desk.add_comment(
                ticket_id, message, conversation, idempotency_key=idempotency_key, again=again
            )
        )

    def add_note(
        self,
        ticket_id: str,
        text: str,
        conversation: Conversation,
        *,
        idempotency_key: str,
        again: bool,
    ) -> None:
        self._call(
            lambda: self._desk.add_note(
                ticket_id, text, conversation, idempotency_key=idempotency_key, again=again
            )
        )

    def fetch(self, attachment: Attachment) -> bytes:
        return self._call(lambda: self._desk.fetch(attachment))

    def poll(self, cursor: str, now: datetime) -> Polled:
        desk = self._desk
        if not isinstance(desk, PollingHelpdesk):
            raise RejectedError(f"helpdesk {desk.configured_name} is not asked what happened")
        return self._call(lambda: desk.poll(cursor, now))

    def _call(self, act: Callable[[], T]) -> T:
        held = self._admitted()
        self._desk.pace, before = None, self._desk.calls
        try:
            result = act()
        except (RetryableError, ConfigurationError) as error:
            self._went(held, before, error)
            raise
        except DeliveryError:
            self._went(held, before, None)  # it refused this one thing, and works
            raise
        self._went(held, before, None)
        return result

    # Before

    def _admitted(self) -> Held[DeskState]:
        """How the desk is doing, if it may be called now."""
        held, now = self._store.desk_state(self._desk.configured_name), self._clock()
        state = held.noun
        if state.rests_until and state.rests_until > now:
            raise self._not_now(state.why, state.rests_until - now)
        per_minute = self._desk.capabilities.calls_per_minute
        if per_minute and (left := calls_left(state, per_minute, now)) < 1:
            wait = timedelta(minutes=(1 - left) / per_minute)
            raise self._not_now("it has had all the calls of this minute", wait)
        return self._on_trial(held, now) if state.rests_until else held

    def _on_trial(self, held: Held[DeskState], now: datetime) -> Held[DeskState]:
        """It was let be until now: this worker tries, and no other one meanwhile."""
        trial = held.change(rests_until=now + _TRIAL)
        try:
            self._store.commit(trial)
        except ConflictError:
            raise self._not_now(held.noun.why, _TRIAL / 6) from None
        return Held(trial.noun, trial.version + 1)

    def _not_now(self, why: str, wait: timedelta) -> RetryableError:
        name = self._desk.configured_name
        return RetryableError(
            f"helpdesk {name}: {why}", retry_after_seconds=max(1.0, wait.total_seconds())
        )

    # After

    def _went(self, held: Held[DeskState], calls_before: int, error: Exception | None) -> None:
        """Note how it went, where that changes anything for the next call."""
        with _noting:
            self._note(held, self._desk.calls - calls_before, error)

    def _note(self, held: Held[DeskState], calls: int, error: Exception | None) -> None:
        met = False
        for _ in range(_TRIES):
            state = after(held.noun, self._desk, calls, error, self._clock(), met=met)
            if state == held.noun:
                return
            try:
                self._store.commit(Held(state, held.version))
            except ConflictError:  # another call ended, too
                held, met = self._store.desk_state(self._desk.configured_name), True
                continue
            self._tell(held.noun, state)
            return

    def _tell(self, before: DeskState, state: DeskState) -> None:
        name = state.helpdesk
        if state.refused and not before.refused:
            self._report("helpdesk.refused", helpdesk=name, why=state.why)
        elif state.failures == PATIENCE and before.failures < PATIENCE:
            self._report("helpdesk.resting", helpdesk=name, why=state.why)
        elif before.troubled and not state.troubled:
            self._report("helpdesk.back", helpdesk=name)


def calls_left(state: DeskState, per_minute: int, now: datetime) -> float:
    """Of a bucket that holds a minute's calls and fills evenly."""
    if state.left is None or state.counted_at is None:
        return float(per_minute)
    filled = (now - state.counted_at).total_seconds() * per_minute / 60
    return min(float(per_minute), state.left + max(0.0, filled))


def after(
    state: DeskState,
    desk: Helpdesk,
    calls: int,
    error: Exception | None,
    now: datetime,
    *,
    met: bool = False,
) -> DeskState:
    """How the desk is doing after some calls.

    `met`: others' calls ended meanwhile. Those that were on their way together and fail together
    are one trouble: once the desk is let be for it, they make the rest no longer.
    """
    changes = _counted(state, desk, calls, now)
    if isinstance(error, RetryableError) and error.of_one:
        error = None  # the desk works: one ticket, or one customer, has to wait
    if isinstance(error, RetryableError) and error.retry_after_seconds is not None:
        wait = min(timedelta(seconds=error.retry_after_seconds), _LONGEST_REST)
        changes |= {"rests_until": now + wait, "why": str(error)}
    elif error is not None:
        known = met and state.rests_until is not None and state.rests_until > now
        changes |= {} if known else _troubled(state, error, now)
    elif desk.pace and desk.pace.remaining < 1:
        wait = timedelta(seconds=desk.pace.resets_in_seconds)
        why = "it has had all the calls that it takes for now"
        changes |= _WELL | {"rests_until": now + min(wait, _LONGEST_REST), "why": why}
    elif state.troubled or state.rests_until:
        changes |= _WELL
    return state.model_copy(update=changes)


_WELL: dict[str, Any] = {
    "failures": 0,
    "refused": False,
    "rests_until": None,
    "why": "",
    "since": None,
}


def _counted(state: DeskState, desk: Helpdesk, calls: int, now: datetime) -> dict[str, Any]:
    per_minute = desk.capabilities.calls_per_minute
    if not per_minute:
        return {}
    left = calls_left(state, per_minute, now) - calls
    if desk.pace:
        left = min(left, float(desk.pace.remaining))
    return {"left": left, "counted_at": now}


def _troubled(state: DeskState, error: Exception, now: datetime) -> dict[str, Any]:
    failures = state.failures + 1
    refused = isinstance(error, ConfigurationError)
    changes = {
        "failures": failures,
        "refused": refused,
        "why": str(error),
        "since": state.since or now,
    }
    if refused:
        return changes | {"rests_until": now + REFUSED_REST}
    if failures < PATIENCE:
        return changes | {"rests_until": None}
    rest = min(_FIRST_REST * 2 ** min(failures - PATIENCE, 10), _LONGEST_REST)
    return changes | {"rests_until": now + rest}
