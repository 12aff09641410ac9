"""The scorer that is always there: `repeats` behind the port of scorers. Needs no network."""

from collections.abc import Sequence

from chalicelib import repeats
from chalicelib.ports import Comparison, Match, Scorer
from chalicelib.repeats import ANSWER_THRESHOLD, JOIN_THRESHOLD, Prepared
from chalicelib.schema import Question


class Shipped(Scorer):
    """What it keeps with a question is the question's words, its numbers, and its length."""

    name = "shipped-2"

    def prepare(self, text: str) -> str:
        return repeats.stored(repeats.prepare(text))

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        ours = repeats.prepare(text)
        return Comparison(
            matches=[self._match(ours, self._of(q)) for q in questions],
            scorer=self.name,
            join_threshold=JOIN_THRESHOLD,
            answer_threshold=ANSWER_THRESHOLD,
        )

    def _of(self, question: Question) -> Prepared:
        kept = question.prepared.get(self.name)
        return repeats.restored(kept) if kept else repeats.prepare(question.text)

    def _match(self, ours: Prepared, theirs: Prepared) -> Match:
        score = repeats.similarity(ours, theirs)
        if score < JOIN_THRESHOLD / 2:
            return Match(score=score)
        return Match(
            score=score,
            agreed=repeats.agreed(ours, theirs),
            veto=repeats.stops(ours, theirs),
        )


SHIPPED = Shipped()
