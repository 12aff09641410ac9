"""The file that is shipped: chalicelib/lexicon.py reads what this writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from chalicelib.lexicon import BITS
from chalicelib.text import alike
from infra.repeats_model.vocabulary import Vocabulary

SHIPPED = Path(__file__).resolve().parents[2] / "chalicelib" / "lexicon.bin"


def write(path: Path, words: Vocabulary, vectors: Any, model: dict[str, list[float]]) -> None:
    """One line of JSON, one of words, then of each word a byte of frequency, one of norm, its code.

    Of words that are written alike once folded, the most used one stands for all.
    """
    shares = np.array(words.shares)
    places: dict[str, int] = {}
    for place in np.argsort(-shares, kind="stable"):
        places.setdefault(alike(words.words[place]), int(place))
    kept = sorted(places, key=lambda word: places[word])
    chosen = [places[word] for word in kept]
    vectors, shares = vectors[chosen], shares[chosen]
    norms = np.linalg.norm(vectors, axis=1)
    largest = float(np.quantile(norms, 0.9995))
    head = json.dumps({"version": 1, "largest": round(largest, 5), "model": model})
    path.write_bytes(
        f"{head}\n{' '.join(kept)}\n".encode()
        + np.clip(np.round(-10 * np.log10(shares)), 0, 255).astype(np.uint8).tobytes()
        + np.round(np.minimum(norms / largest, 1) * 255).astype(np.uint8).tobytes()
        + np.packbits(vectors @ _planes(vectors.shape[1]) > 0, axis=1, bitorder="little").tobytes()
    )


def _planes(numbers: int) -> Any:
    """(numbers, BITS): hyperplanes, batch by batch at right angles to each other.

    So they read a cosine more truly than independent ones (super-bits: Ji et al., NIPS 2012).
    """
    rng = np.random.default_rng(7)
    batches = -(-BITS // numbers)
    axes = [np.linalg.qr(rng.standard_normal((numbers, numbers)))[0] for _ in range(batches)]
    return np.hstack(axes)[:, :BITS]
