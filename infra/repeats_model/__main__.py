"""`make repeats-model`: rebuild what the shipped scorer knows. Half an hour on two cores."""

import numpy as np

from chalicelib import lexicon as reader
from chalicelib.text import normalise
from infra.repeats_model import lexicon, questions, rarity, table, teachers, vocabulary, weights

#: Steps of training on a half of the questions, and on all of them.
HALF, ALL = 260, 400


def main() -> None:
    """Words, teachers, table, weights, file."""
    rarity.main()
    words = vocabulary.vocabulary()
    shares = np.array(words.shares)
    parts = [teachers.encoded(name, words.words) for name in ("use", "e5")]
    chinese = np.array([word[0] > "\u3000" for word in words.words])
    rare = np.array([reader.half_weighed(share) for share in shares])
    start = table.beginning(parts, chinese, shares, rare)

    lexicon.write(lexicon.SHIPPED, words, start, {})
    cutting, places = reader.read(lexicon.SHIPPED), {word: n for n, word in enumerate(words.words)}

    def cut(text: str) -> list[int]:
        found = cutting.words(normalise(text))
        return [places[word] for word in found if word in places]

    found = questions.groups()
    measures = []
    for learnt, tried in ((found[::2], found[1::2]), (found[1::2], found[::2])):
        lexicon.write(lexicon.SHIPPED, words, table.train(start, learnt, cut, HALF), {})
        reader.lexicon.cache_clear()
        measures.append(weights.measured(list(questions.pairs(tried, seed=5))))
    rows, kinds, stopped = (np.concatenate(part) for part in zip(*measures, strict=True))
    model = weights.learn(rows, kinds, stopped)
    lexicon.write(lexicon.SHIPPED, words, table.train(start, found, cut, ALL), model)


if __name__ == "__main__":
    main()
