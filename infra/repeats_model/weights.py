"""How the measures of two texts make one verdict, and from where on: logistic regression.

Learnt from pairs whose questions the table has not seen: it is trained on one half of the groups,
the weights on the other, and both ways round.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from chalicelib import repeats
from infra.repeats_model.questions import Pair

#: So many pairs of unrelated questions may pass, and so many near misses be taken for the same.
#: Meant is one in a thousand: a threshold that one half keeps to lets 1.18 in the other half pass.
UNRELATED_LINKED, NEAR_MISSES_ANSWERED = 0.00085, 0.012
#: Among more unrelated questions the near misses count for little, and small edits are missed.
_FEW = 4


def measured(found: Sequence[Pair]) -> tuple[Any, Any, Any]:
    """(pairs, measures), each pair's kind, and whether a veto stops it."""
    kept: dict[str, repeats.Prepared] = {}
    rows, kinds, stopped = [], [], []
    for pair in found:
        new, earlier = (kept.setdefault(t, repeats.prepare(t)) for t in (pair.new, pair.earlier))
        if new.words and earlier.words and new.normalised != earlier.normalised:
            rows.append(repeats.measure(new, earlier))
            kinds.append(pair.kind)
            stopped.append(repeats.stops(new, earlier) is not None)
    return np.array(rows), np.array(kinds), np.array(stopped)


def learn(rows: Any, kinds: Any, stopped: Any) -> dict[str, list[float]]:
    """{verdict: one weight a measure, and one that stands alone}; 0 is the threshold."""
    unrelated, near = kinds == "O", kinds == "N"
    matter = _fit(rows, np.isin(kinds, list("LRX")), unrelated, repeats.MATTER)
    matter[-1] -= np.quantile(_logits(rows, matter)[unrelated], 1 - UNRELATED_LINKED)
    few = unrelated & (np.arange(len(kinds)) % _FEW == 0)
    same = _fit(rows, np.isin(kinds, list("LV")), few | near, repeats.MEASURES)
    logits = np.where(stopped, -np.inf, _logits(rows, same))[near]
    same[-1] -= np.quantile(logits, 1 - NEAR_MISSES_ANSWERED)
    return {"matter": _plain(matter), "same": _plain(same)}


def _fit(rows: Any, same: Any, other: Any, names: Sequence[str]) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    columns = [repeats.MEASURES.index(name) for name in names]
    chosen = np.where(same | other)[0]
    scaler = StandardScaler().fit(rows[chosen][:, columns])
    found = LogisticRegression(C=0.1 if names is repeats.MATTER else 0.3, max_iter=3000).fit(
        scaler.transform(rows[chosen][:, columns]), same[chosen]
    )
    weights = np.zeros(len(repeats.MEASURES) + 1)
    weights[columns] = found.coef_[0] / scaler.scale_
    weights[-1] = found.intercept_[0] - (found.coef_[0] * scaler.mean_ / scaler.scale_).sum()
    return weights


def _logits(rows: Any, weights: Any) -> Any:
    return rows @ weights[:-1] + weights[-1]


def _plain(weights: Any) -> list[float]:
    return [round(float(w), 4) for w in weights]
