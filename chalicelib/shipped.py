"""The scorer that is always there: `repeats` behind the port of scorers. Needs no network.

`repeats` is imported with the first comparison: an acknowledgement makes none.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chalicelib.ports import Comparison, Match, Scorer
from chalicelib.schema import Question

if TYPE_CHECKING:
    from chalicelib.repeats import Prepared


class Shipped(Scorer):
    """What it keeps with a question is the question's words, its numbers, and its length."""

    name = "shipped-3"

    def prepare(self, text: str) -> str:
        from chalicelib import repeats

        return repeats.stored(repeats.prepare(text))

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        from chalicelib import repeats

        ours = repeats.prepare(text)
        return Comparison(
            matches=[self._match(ours, self._of(q)) for q in questions],
            scorer=self.name,
            join_threshold=repeats.JOIN_THRESHOLD,
            answer_threshold=repeats.ANSWER_THRESHOLD,
        )

    def _of(self, question: Question) -> "Prepared":
        from chalicelib import repeats

        kept = question.prepared.get(self.name)
        return repeats.restored(kept) if kept else repeats.prepare(question.text)

    def _match(self, ours: "Prepared", theirs: "Prepared") -> Match:
        from chalicelib import repeats

        score = repeats.similarity(ours, theirs)
        if score < repeats.JOIN_THRESHOLD / 2:
            return Match(score=score)
        return Match(
            score=score,
            agreed=repeats.agreed(ours, theirs),
            veto=repeats.stops(ours, theirs),
        )


SHIPPED = Shipped()
