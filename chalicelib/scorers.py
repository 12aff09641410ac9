"""Which scorer and which second opinion a deployment has, and what stands in when they fail.

Neither can hold a message up: a scorer that fails is replaced by the shipped one, which says so in
the verdict, and without a second opinion there is none. After a failure nobody asks for a while.
"""

import importlib
import inspect
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chalicelib.errors import (
    ConfigurationError,
    DeliveryError,
    RejectedError,
    RetryableError,
    TooManyError,
)
from chalicelib.limits import Limits
from chalicelib.ports import Adviser, Allowance, Comparison, Match, Opinion, Scorer
from chalicelib.schema import Question
from chalicelib.shipped import SHIPPED

T = TypeVar("T")

#: How long nobody asks one that failed; each container finds out for itself.
REST_SECONDS = 30.0
_Threshold = Annotated[float, Field(ge=0, le=1)] | None


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ScorerSettings(_Section):
    """[scorer]"""

    #: `shipped`, `bedrock`, or a class of one's own as `package.module:Class`.
    kind: Annotated[str, Field(pattern=r"^(shipped|bedrock|\w+(\.\w+)*:\w+)$")] = "shipped"
    #: What a class of one's own is made with, by name; secrets as references.
    settings: dict[str, Any] = {}
    #: Of this scorer, in the place of its own: on its scale, not on the shipped one's.
    join_threshold: _Threshold = None
    answer_threshold: _Threshold = None
    model: str | None = None
    #: None takes the region that the function runs in.
    region: str | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=10)] = 1.5

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "ScorerSettings":
        common = {"kind", "join_threshold", "answer_threshold"}
        allowed = {
            "shipped": {"kind"},
            "bedrock": common | {"model", "region", "timeout_seconds"},
        }.get(self.kind, common | {"settings"})
        if foreign := self.model_fields_set - allowed:
            raise ValueError(f'has {min(foreign)}, which does not go with kind = "{self.kind}"')
        if self.kind == "bedrock":
            _demand_model(self.model)
        low, high = self.join_threshold, self.answer_threshold
        if low is not None and high is not None and low > high:
            raise ValueError("has a join_threshold above its answer_threshold")
        return self


def _demand_model(model: str | None) -> None:
    from chalicelib.bedrock import EMBEDDING_MODELS, plain_name

    if plain_name(model or "") not in EMBEDDING_MODELS:
        raise ValueError(f"needs a model that we know: {', '.join(sorted(EMBEDDING_MODELS))}")


class SecondOpinionSettings(_Section):
    """[second_opinion]; without it, nobody is asked."""

    model: Annotated[str, Field(min_length=1)]
    #: None takes the region that the function runs in.
    region: str | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=20)] = 3.0
    #: Of each container.
    max_per_minute: Annotated[int, Field(ge=1)] = 30


class Rest:
    """Lets somebody be who just failed: for a while nobody asks, and all hear why."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = name, clock
        self._until, self._why = float("-inf"), ""

    def ask(self, call: Callable[[], T]) -> T:
        """What the call returns. RetryableError, whatever it raises, and while at rest.

        A RejectedError is about what was asked, which a customer wrote: nobody rests for that.
        """
        if self._clock() < self._until:
            raise RetryableError(f"{self._why}, a moment ago")
        try:
            return call()
        except RejectedError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever somebody else's code raises
            own = isinstance(error, RetryableError)
            self._why = str(error) if own else f"{self._name} failed ({type(error).__name__})"
            self._until = self._clock() + REST_SECONDS
            raise RetryableError(self._why) from None


class Guarded(Scorer):
    """A scorer that always compares: its own way, or by the shipped scorer, with a remark.

    The shipped vetoes hold for every scorer: a stronger one is surer, not more careful.
    """

    def __init__(
        self,
        own: Scorer,
        *,
        join_threshold: float | None = None,
        answer_threshold: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = own.name
        self._own = own
        given = {"join_threshold": join_threshold, "answer_threshold": answer_threshold}
        self._thresholds: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        self._rest = Rest(own.name, clock)

    def prepare(self, text: str) -> str:
        return self._rest.ask(lambda: self._own.prepare(text))

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        """By the shipped scorer, which is never at fault, when the own one cannot tell now."""
        try:
            return self._rest.ask(lambda: self._compared(text, questions))
        except DeliveryError as error:
            found = SHIPPED.compare(text, questions)
            return replace(found, remark=f"compared by the shipped scorer: {error}")

    def _compared(self, text: str, questions: Sequence[Question]) -> Comparison:
        found = replace(self._own.compare(text, questions), **self._thresholds)
        inside = all(0 <= match.score <= 1 for match in found.matches)
        if len(found.matches) != len(questions) or not inside:
            raise RetryableError(f"{self.name} did not give each question a score from 0 to 1")
        vetoed = [
            _vetoed(match, text, question) if match.score >= found.join_threshold else match
            for match, question in zip(found.matches, questions, strict=True)
        ]
        return replace(found, matches=vetoed)


def _vetoed(match: Match, text: str, question: Question) -> Match:
    """With the shipped veto where there is none: nothing is answered for another order's number."""
    from chalicelib.repeats import veto

    return match if match.veto else replace(match, veto=veto(text, question.text))


class Careful(Adviser):
    """An adviser who is asked only so often, and left alone after a failure."""

    def __init__(
        self, own: Adviser, max_per_minute: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = own.name
        self._own, self._clock = own, clock
        self._allowance = Allowance(party=own.name, per_minute=max_per_minute)
        self._limits, self._rest = Limits(), Rest(own.name, clock)

    def ask(self, text: str, earlier: str) -> Opinion:
        try:
            self._limits.demand([self._allowance], datetime.fromtimestamp(self._clock(), UTC))
        except TooManyError:
            raise RetryableError("it was asked too often within a minute") from None
        return self._rest.ask(lambda: self._own.ask(text, earlier))


class Missing(Scorer):
    """In the place of a scorer that could not be made: it cannot tell, and says why."""

    name = "missing"

    def __init__(self, why: str) -> None:
        self._why = why

    def prepare(self, text: str) -> str:
        raise RetryableError(self._why)

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        raise RetryableError(self._why)


def prepared(scorer: Scorer, text: str) -> dict[str, str]:
    """What is kept with a question, by scorers' names; nothing of one that cannot tell now.

    The shipped one's always: it gives the vetoes, and stands in.
    """
    kept = {SHIPPED.name: SHIPPED.prepare(text)}
    if scorer is not SHIPPED:
        with suppress(DeliveryError):
            kept[scorer.name] = scorer.prepare(text)
    return kept


# Making them


def make_scorer(
    configured: ScorerSettings,
    resolved: Mapping[str, Any],
    clock: Callable[[], float] = time.monotonic,
) -> Scorer:
    """The configured scorer; `resolved` is its settings with secrets. ConfigurationError."""
    if configured.kind == "shipped":
        return SHIPPED
    if configured.kind == "bedrock":
        from chalicelib.bedrock import Embeddings

        own: Scorer = Embeddings(
            configured.model or "", configured.region, configured.timeout_seconds
        )
    else:
        own = _made(configured, resolved)
    return Guarded(
        own,
        join_threshold=configured.join_threshold,
        answer_threshold=configured.answer_threshold,
        clock=clock,
    )


def make_adviser(
    configured: SecondOpinionSettings, clock: Callable[[], float] = time.monotonic
) -> Adviser:
    """The configured model."""
    from chalicelib.bedrock import Converse

    own = Converse(configured.model, configured.region, configured.timeout_seconds)
    return Careful(own, configured.max_per_minute, clock)


def _made(configured: ScorerSettings, resolved: Mapping[str, Any]) -> Scorer:
    """A scorer of one's own. ConfigurationError: one line, and no secret in it."""
    module_name, _, class_name = configured.kind.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001  # a module may raise anything while it is imported
        raise ConfigurationError(f"{module_name} cannot be imported: {_said(error)}") from None
    kind = getattr(module, class_name, None)
    if not (inspect.isclass(kind) and issubclass(kind, Scorer)):
        raise ConfigurationError(f"{class_name} in {module_name} is no chalicelib.ports.Scorer")
    try:
        made = kind(**resolved)
    except Exception as error:  # noqa: BLE001  # so may a class
        secret = resolved != configured.settings
        said = type(error).__name__ if secret else _said(error)
        raise ConfigurationError(f"{class_name} cannot be made: {said}") from None
    name = getattr(made, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[\w./:-]{1,100}", name):
        raise ConfigurationError(f'{class_name} needs a name, such as "ours-1"')
    if name in (SHIPPED.name, Missing.name):
        raise ConfigurationError(f"{class_name} has another scorer's name, {name}")
    return made


def _said(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
