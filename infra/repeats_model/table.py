"""The words' vectors, trained so that a question and its repeats come together. In jax.

A text is the sum of its words' vectors, and also the set of them: it is compared as a whole, and
word by word (late interaction: Khattab and Zaharia, SIGIR 2020). Of a batch of questions each must
find its own repeat among the repeats of all (InfoNCE); most batches are of one source, since a
customer's other questions are about like things. A matrix that all words share carries what is
learnt to the words that no question has.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infra.repeats_model.questions import Group

NUMBERS = 128
_WORDS, _BATCH = 24, 48
_WHOLE, _BY_WORDS = 0.08, 0.05  # temperatures
_NEAR_MISS, _MARGIN, _KEEP, _KEEP_WEIGHT = 0.3, 0.05, 30.0, 0.1
_RATE = 2e-3
#: The share of batches whose questions are of one source.
_ONE_SOURCE = 0.7
_SHARE = {"Q": 1.0, "L": 0.5, "R": 2.0, "X": 1.5}
Cut = Callable[[str], list[int]]


def beginning(parts: Sequence[Any], chinese: Any, shares: Any, weights: Any) -> Any:
    """(words, NUMBERS): the teachers' vectors, centred, reduced, times how rare a word is."""
    joined = np.hstack([_centred(part, chinese, shares) for part in parts]) * np.sqrt(0.5)
    for size in (192, NUMBERS):
        joined = _principal(joined, size) * (weights[:, None] if size == 192 else 1)
    return joined.astype(np.float32)


def _centred(vectors: Any, chinese: Any, shares: Any) -> Any:
    """Without what all words of a language have in common, of length one."""
    vectors = vectors.copy()
    for own in (chinese, ~chinese):
        usual = (vectors[own] * shares[own, None]).sum(0) / shares[own].sum()
        vectors[own] -= (usual + vectors[own].mean(0)) / 2
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)


def _principal(vectors: Any, size: int) -> Any:
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    return vectors @ axes[:, ::-1][:, :size]


def train(start: Any, found: Sequence[Group], cut: Cut, steps: int, seed: int = 3) -> Any:
    """(words, NUMBERS): the vectors after so many steps."""
    rng = random.Random(seed)  # noqa: S311  # no secret
    places: dict[int, int] = {}
    lessons: list[Any] = []
    for group in found:
        repeats = [(_SHARE[letter], cut(text)) for letter, text in group.repeats]
        repeats = [(share, words) for share, words in repeats if words]
        near = [words for text in group.lines["N"] if (words := cut(text))]
        if len(repeats) > 3 and near:
            lessons.append((group.source, repeats, near))
            for words in (*(words for _, words in repeats), *near):
                for word in words:
                    places.setdefault(word, len(places))
    used = np.array(list(places))
    fixed = jnp.array(start[used])
    learnt = {
        "shared": jnp.eye(NUMBERS),
        "own": jnp.zeros_like(fixed),
        "weight": jnp.zeros(len(used)),
    }
    first = jax.tree.map(jnp.zeros_like, learnt)
    second = first
    for step in range(1, steps + 1):
        batch = _batch(lessons, places, rng)
        rate = _RATE * (1 - step / steps) + 1e-5
        learnt, first, second, loss = _step(learnt, fixed, first, second, float(step), batch, rate)
        if step % 100 == 0:
            print(f"  step {step} of {steps}: loss {float(loss):.2f}", flush=True)  # noqa: T201
    trained = start @ np.array(learnt["shared"])
    trained[used] = np.array(_vectors(learnt, fixed))
    return trained


def _batch(lessons: list[Any], places: dict[int, int], rng: random.Random) -> tuple[Any, ...]:
    ours, theirs, near_misses = [], [], []
    if rng.random() < _ONE_SOURCE:
        source = rng.choice(lessons)[0]
        lessons = [lesson for lesson in lessons if lesson[0] == source]
    for _, repeats, near in rng.sample(lessons, min(_BATCH, len(lessons))):
        shares = [share for share, _ in repeats]
        one = rng.choices(range(len(repeats)), shares)[0]
        other = one
        while other == one:
            other = rng.choices(range(len(repeats)), shares)[0]
        ours.append(repeats[one][1])
        theirs.append(repeats[other][1])
        near_misses.append(rng.choice(near))
    return tuple(part for texts in (ours, theirs, near_misses) for part in _padded(texts, places))


def _padded(texts: Sequence[Sequence[int]], places: dict[int, int]) -> tuple[Any, Any]:
    words, mask = (
        np.zeros((len(texts), _WORDS), np.int32),
        np.zeros((len(texts), _WORDS), np.float32),
    )
    for row, text in enumerate(texts):
        for column, word in enumerate(text[:_WORDS]):
            words[row, column], mask[row, column] = places[word], 1
    return words, mask


def _vectors(learnt: Any, fixed: Any) -> Any:
    return fixed @ learnt["shared"] * jnp.exp(learnt["weight"])[:, None] + learnt["own"]


def _contrast(scores: Any) -> Any:
    rows, columns = jax.nn.log_softmax(scores, 1), jax.nn.log_softmax(scores, 0)
    return -(jnp.mean(jnp.diag(rows)) + jnp.mean(jnp.diag(columns))) / 2


def _loss(learnt: Any, fixed: Any, batch: tuple[Any, ...]) -> Any:
    vectors = _vectors(learnt, fixed)

    def encode(words: Any, mask: Any) -> tuple[Any, Any, Any]:
        each = vectors[words] * mask[..., None]
        whole, norms = each.sum(-2), jnp.sqrt(jnp.sum(each * each, -1) + 1e-10)
        whole = whole / (jnp.linalg.norm(whole, axis=-1, keepdims=True) + 1e-6)
        return whole, each / (norms[..., None] + 1e-6), norms

    (ours, our_words, our_norms), (theirs, their_words, their_norms), (near, _, _) = (
        encode(*batch[n : n + 2]) for n in (0, 2, 4)
    )
    alike = jnp.einsum("ald,bmd->ablm", our_words, their_words)
    both = batch[1][:, None, :, None] * batch[3][None, :, None, :] > 0
    alike = jnp.where(both, alike, -1.0)
    forth = jnp.einsum("abl,al->ab", alike.max(3), our_norms) / our_norms.sum(1)[:, None]
    back = jnp.einsum("abm,bm->ab", alike.max(2), their_norms) / their_norms.sum(1)[None, :]
    near_miss = jnp.mean(
        jax.nn.relu(jnp.sum(ours * near, -1) - jnp.sum(ours * theirs, -1) + _MARGIN)
    )
    return (
        _contrast(ours @ theirs.T / _WHOLE)
        + _contrast((forth + back) / 2 / _BY_WORDS)
        + _NEAR_MISS * near_miss
        + _KEEP * jnp.mean(jnp.sum(learnt["own"] ** 2, -1))
        + _KEEP_WEIGHT * jnp.mean(learnt["weight"] ** 2)
    )


@jax.jit  # type: ignore[untyped-decorator,unused-ignore]
def _step(  # Adam: Kingma and Ba, ICLR 2015
    learnt: Any, fixed: Any, first: Any, second: Any, step: Any, batch: Any, rate: Any
) -> tuple[Any, Any, Any, Any]:
    loss, slope = jax.value_and_grad(_loss)(learnt, fixed, batch)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slope)
    learnt = jax.tree.map(
        lambda p, m, v: p - rate * (m / (1 - 0.9**step)) / (jnp.sqrt(v / (1 - 0.999**step)) + 1e-8),
        learnt, first, second,
    )  # fmt: skip
    return learnt, first, second, loss
