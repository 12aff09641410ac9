"""`askonce connectors` and docs/connectors.md say what the connectors declare."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from connectors.registry import CONNECTORS
from infra import matrix
from infra.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "connectors.md"


def test_every_connector_has_its_row() -> None:
    assert {row.connector for row in matrix.rows()} == set(CONNECTORS)


@pytest.mark.parametrize("name", sorted(CONNECTORS))
def test_the_page_holds_a_connectors_row(name: str) -> None:
    [row] = [row for row in matrix.rows() if row.connector == name]
    assert matrix.as_markdown([row]).splitlines()[-1] in PAGE.read_text(encoding="utf-8")


def test_the_page_holds_the_table_that_the_command_prints() -> None:
    printed = CliRunner().invoke(main, ["connectors", "--markdown"]).output
    assert printed in PAGE.read_text(encoding="utf-8")


def test_the_command_names_kinds_window_receipts_and_evidence() -> None:
    printed = CliRunner().invoke(main, ["connectors"]).output
    [wechat] = [block for block in printed.split("\n\n") if block.startswith("wechat ")]
    for words in ("Kinds out", "5 in 48 h after message", "Receipts", "wechat"):
        assert words in wechat
