"""`make bench`, second part: the tables of docs/performance.md, printed and written there.

cold      process start to the first webhook stored        tests/bench_cold.py
warm      CPU and requests per second of one core          tests/bench_warm.py
judge     one message against 20 earlier questions         tests/bench_judge.py
targets   what was aimed at, and how far that was reached
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from infra.package import ROOT
from tests import bench_cold, bench_judge, bench_warm
from tests.bench_webhooks import CHANNELS

PAGE = ROOT / "docs" / "performance.md"
COMMAND = "make bench"
MOST_COLD, MOST_ADDED_US = 1.15, 150

Table = Sequence[Sequence[str]]


def targets(cold: Mapping[str, list[float]], warm: Mapping[str, Sequence[Any]]) -> Table:
    """What was aimed at; only what stores a message, for the bare apps do no more."""
    rows = [["target", "found", "met"]]
    bare = median(run.cpu_us for run in warm[bench_warm.BASELINE])
    by_hand = max(median(run.per_second for run in warm[name]) for name in bench_warm.BY_HAND)
    for name in (f"AskOnce, {channel}" for channel in CHANNELS):
        ratio = bench_cold.ratio(cold, name)
        aim = f"cold start, {name}: at most {MOST_COLD} of {bench_cold.BASELINE}"
        rows.append([aim, f"{ratio:.2f}", _met(ratio <= MOST_COLD)])
        added = median(run.cpu_us for run in warm[name]) - bare
        aim = f"warm, {name}: at most {MOST_ADDED_US} us more than {bench_warm.BASELINE}"
        rows.append([aim, f"{added:+.0f} us", _met(added <= MOST_ADDED_US)])
        rate = median(run.per_second for run in warm[name]) / by_hand
        aim = f"warm, {name}: more a second than FastAPI by hand"
        rows.append([aim, f"{rate:.1f} times", _met(rate > 1)])
    return rows


def _met(met: bool) -> str:
    return "yes" if met else "no"


def markdown(rows: Table) -> str:
    """Words to the left, figures to the right."""
    head, *rest = rows
    line = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, line, *rest))


def marks(name: str) -> tuple[str, str]:
    """What stands before and behind a table on the page."""
    return f"<!-- {COMMAND}: {name} -->", f"<!-- end: {name} -->"


def written(page: str, name: str, table: str) -> str:
    """The page with a table in its place. SystemExit if the page has no such place."""
    before, behind = marks(name)
    pattern = re.compile(f"{re.escape(before)}.*?{re.escape(behind)}", re.DOTALL)
    new, count = pattern.subn(lambda _: f"{before}\n{table}\n{behind}", page)
    if count != 1:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} has no place for the table {name}: {before}")
    return new


def show(name: str, rows: Table, path: Path = PAGE) -> None:
    """Print a table, and write it on the page."""
    table = markdown(rows)
    sys.stdout.write(f"\n{table}\n")
    sys.stdout.flush()
    page = path.read_text(encoding="utf-8")
    path.write_text(written(page, name, table), encoding="utf-8")


#: What the page is made of: what measures, and what makes a table of it.
TABLES: Mapping[str, tuple[Callable[[Path], Any], Callable[[Any], Table]]] = {
    "cold": (bench_cold.measure, bench_cold.table),
    "warm": (bench_warm.measure, bench_warm.table),
    "judge": (lambda task: bench_judge.measure(), bench_judge.table),
}


def main() -> None:
    """Measure, print, write: what can be measured here."""
    task = bench_cold.ours()
    found: dict[str, Any] = {}
    if install_first := bench_warm.missing():
        sys.stderr.write(f"warm and targets are left out: they take {install_first}\n")
    for name, (measure, table) in TABLES.items():
        if name == "warm" and install_first:
            continue
        found[name] = measure(task)
        show(name, table(found[name]))
    if "warm" in found:
        show("targets", targets(found["cold"], found["warm"]))


if __name__ == "__main__":
    main()
