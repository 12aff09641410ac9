"""How one message is compared with earlier ones: by all that is configured, where there is time.

In the HTTP response only the shipped scorer compares, and nobody is asked: a provider waits there,
WeChat for five seconds in all. What is not settled so is left to the stream, which has the time.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from chalicelib import scorers
from chalicelib.errors import DeliveryError
from chalicelib.items import GivenOpinion
from chalicelib.judge import SecondOpinion
from chalicelib.ports import Adviser, Comparison, Opinion
from chalicelib.schema import Outcome, Question, Verdict
from chalicelib.settings import Deployment
from chalicelib.shipped import SHIPPED
from chalicelib.store import Store

_KEY = "opinions"
#: Rules that a better scorer, or a second opinion, may come before.
_OPEN = frozenset({"score", "time", "none"})


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """For one message of one contact."""

    store: Store
    deployment: Deployment
    report: Callable[..., None]
    message_id: str
    contact_id: str
    #: In the HTTP response.
    at_once: bool

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        """Never fails: the shipped scorer stands in, which the comparison's remark says."""
        scorer = self.deployment.scorer
        if self.at_once and scorer is not SHIPPED:
            found = SHIPPED.compare(text, questions)
            return replace(found, remark="compared by the shipped scorer: the provider waits")
        found = scorer.compare(text, questions)
        if found.scorer != scorer.name:
            self.report("scorer.replaced", message=self.message_id, why=found.remark)
        return found

    def prepared(self, text: str) -> dict[str, str]:
        """What scorers keep with a question, by their names."""
        return scorers.prepared(SHIPPED if self.at_once else self.deployment.scorer, text)

    @property
    def second_opinion(self) -> SecondOpinion | None:
        """Whom to ask about the grey zone; None where there is nobody, or no time."""
        adviser = self.deployment.adviser
        if adviser is None or self.at_once:
            return None
        return lambda text, question: self._opinion(adviser, text, question)

    def leaves(self, verdict: Verdict) -> bool:
        """Whether nothing is said at once, and the stream might find more than was found here."""
        more = self.deployment.adviser or self.deployment.scorer is not SHIPPED
        settled = verdict.outcome is Outcome.REPEAT or verdict.rule not in _OPEN
        return bool(self.at_once and more and not settled and not verdict.said)

    def _opinion(self, adviser: Adviser, text: str, question: Question) -> Opinion | None:
        """Asked once about two texts: a message that is resolved again finds what was said."""
        told = "".join(f"{len(p)}:{p}" for p in (adviser.name, text, question.text))
        key = hmac.new(self.store.key(_KEY), told.encode("utf-8", "surrogatepass"), sha256)
        if held := self.store.opinion(self.contact_id, key.hexdigest()):
            return Opinion(same=held.same, reason=held.reason)
        try:
            opinion = adviser.ask(text, question.text)
        except DeliveryError as error:
            self.report("opinion.missing", message=self.message_id, why=str(error))
            return None
        self.report("opinion.given", message=self.message_id, same=opinion.same)
        own = {"contact_id": self.contact_id, "key": key.hexdigest()}
        self.store.remember(GivenOpinion(**own, same=opinion.same, reason=opinion.reason))
        return opinion
