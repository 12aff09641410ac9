"""docs/performance.md has a place for each table of `make bench`, and says how to fill it."""

import pytest

from infra.package import ROOT
from tests import bench_cold, bench_page
from tests.bench_warm import BASELINE, BY_HAND, Run
from tests.bench_webhooks import CHANNELS

PAGE = bench_page.PAGE.read_text(encoding="utf-8")
NAMES = [*bench_page.TABLES, "targets"]


def test_the_page_names_the_command_and_the_makefile_has_it() -> None:
    assert f"`{bench_page.COMMAND}`" in PAGE
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\nbench:" in makefile
    assert "-m tests.bench_page" in makefile


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_one_place_for_each_table_and_a_table_in_it(name: str) -> None:
    before, behind = bench_page.marks(name)
    assert PAGE.count(before) == PAGE.count(behind) == 1
    table = PAGE.partition(before)[2].partition(behind)[0]
    assert table.count("\n| ") > 2


def test_a_table_replaces_the_one_that_was_there_and_nothing_else() -> None:
    before, behind = bench_page.marks("cold")
    page = f"above\n{before}\nold\n{behind}\nbelow\n"
    once = bench_page.written(page, "cold", "| new |")
    assert once == f"above\n{before}\n| new |\n{behind}\nbelow\n"
    assert bench_page.written(once, "cold", "| new |") == once


def test_a_page_without_a_place_is_told() -> None:
    with pytest.raises(SystemExit, match="no place for the table cold"):
        bench_page.written("nothing", "cold", "| new |")


def test_targets_say_what_was_met_and_what_was_not() -> None:
    ours = [f"AskOnce, {channel}" for channel in CHANNELS]
    cold = {bench_cold.BASELINE: [100.0]} | {name: [115.0] for name in ours}
    warm = {BASELINE: [Run(500, 1000)], **{name: [Run(700, 1151)] for name in ours}}
    warm |= {BY_HAND[0]: [Run(600, 1)], BY_HAND[1]: [Run(700, 1)]}
    rows = bench_page.targets(cold, warm)[1:]
    assert [row[1:] for row in rows[:3]] == [
        ["1.15", "yes"],
        ["+151 us", "no"],
        ["1.0 times", "no"],
    ]
    assert len(rows) == 3 * len(ours)
