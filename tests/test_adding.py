"""docs/adding-a-connector.md and adding-a-helpdesk.md, followed word by word in a copy of the tree.

The pages' code is taken from the pages: each block that stands below a file's name goes into that
file (of a configuration: to its end), and each command is run.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra import matrix

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("chalicelib", "connectors", "docs", "examples", "infra", "tests", ".chalice")
FILES = ("app.py", "askonce.toml", "pyproject.toml", "Makefile", "requirements.in")
_BLOCK = re.compile(r"^(?:`([\w./-]+)`\n\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What a developer does and a test need not: the first starts a world, which tests do themselves.
_BY_HAND = re.compile(r"^(make|\.venv/bin/askonce (dev|send)) ")


@dataclass(frozen=True)
class Block:
    """A piece of code of a page, and which file it is, if it is one."""

    file: str
    language: str
    content: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [Block(*found) for found in _BLOCK.findall(text)]


class Tree:
    """A copy of the project in which a page was followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__", "build", "node_modules")
        for name in COPIED:
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        for name in FILES:
            shutil.copy2(ROOT / name, root / name)
        (root / ".venv").symlink_to(sys.prefix)

    def follow(self, page: str) -> None:
        """Write the page's files, then run its commands."""
        found = blocks(page)
        for block in found:
            if block.file:
                self._write(root_of(self.root, block.file), block)
        for block in found:
            if block.language == "sh" and not _BY_HAND.match(block.content):
                self.run("bash", "-eu", "-c", block.content)

    def _write(self, path: Path, block: Block) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") + "\n" if path.exists() else ""
        path.write_text(before + block.content, encoding="utf-8")

    def run(self, *command: str) -> str:
        """What a command prints; the test fails with it if the command fails."""
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def pytest(self, listed: str, wanted: str) -> str:
        """Those tests that the Makefile lists under a name, as far as they are about one plugin."""
        makefile = (self.root / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
        [files] = re.findall(rf"^{listed} := (.*)$", makefile, re.MULTILINE)
        options = ("-n", "0", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers")
        command = (".venv/bin/python", "-m", "pytest", *options, *files.split(), "-k", wanted)
        return self.run(*command)


def root_of(root: Path, file: str) -> Path:
    """The path of a file of a page, which lies in the tree."""
    path = (root / file).resolve()
    assert path.is_relative_to(root.resolve())
    return path


def passed(printed: str) -> int:
    """How many tests passed, by pytest's last line."""
    [found] = re.findall(r"= (\d+) passed", printed)
    return int(found)


@pytest.fixture(scope="module")
def with_pigeon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    tree = Tree(tmp_path_factory.mktemp("tree"))
    tree.follow("adding-a-connector.md")
    page = tree.root / "docs" / "connectors.md"
    old = matrix.as_markdown(matrix.rows())
    new = tree.run(".venv/bin/askonce", "connectors", "--markdown")
    page.write_text(page.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    yield tree
    shutil.rmtree(tree.root)


def test_the_connector_of_the_page_has_under_a_hundred_lines() -> None:
    files = (b for b in blocks("adding-a-connector.md") if b.file.startswith("connectors/"))
    assert [len(block.content.splitlines()) < 100 for block in files] == [True]


@pytest.mark.world
def test_the_connector_of_the_page_passes_all_that_every_connector_must(with_pigeon: Tree) -> None:
    printed = with_pigeon.pytest("CONNECTOR_TESTS", "sms_pigeon or sms-pigeon")
    assert passed(printed) >= 170  # as the page says


def test_the_connector_of_the_page_is_listed_and_checked(with_pigeon: Tree) -> None:
    listed = with_pigeon.run(".venv/bin/askonce", "connectors")
    assert "sms_pigeon  SMS through Pigeon" in listed
    wrong = with_pigeon.root / "wrong.toml"
    told = (with_pigeon.root / "examples" / "every-provider.toml").read_text(encoding="utf-8")
    wrong.write_text(told.replace('number = "+14155550177"', ""), encoding="utf-8")
    with pytest.raises(AssertionError, match='inbox "sms-pigeon": number is missing'):
        with_pigeon.run(".venv/bin/askonce", "check", "--config", str(wrong))


def test_the_connector_of_the_page_is_in_the_house_s_style(with_pigeon: Tree) -> None:
    files = [b.file for b in blocks("adding-a-connector.md") if b.file.endswith(".py")]
    with_pigeon.run(".venv/bin/ruff", "check", *files)
    with_pigeon.run(".venv/bin/ruff", "format", "--check", *files)


# The helpdesk


@pytest.fixture(scope="module")
def with_counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    tree = Tree(tmp_path_factory.mktemp("tree"))
    tree.follow("adding-a-helpdesk.md")
    yield tree
    shutil.rmtree(tree.root)


def test_the_helpdesk_of_the_page_passes_all_that_every_helpdesk_must(with_counter: Tree) -> None:
    assert passed(with_counter.pytest("HELPDESK_TESTS", "counter")) > 50
    assert "| counter | Counter: customers" in with_counter.run(
        ".venv/bin/askonce", "helpdesks", "--markdown"
    )


def test_the_helpdesk_of_the_page_that_does_not_look_first_is_found_out(with_counter: Tree) -> None:
    path = with_counter.root / "connectors" / "helpdesks" / "counter.py"
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace("if again and (found", "if not again and (found"))
    with pytest.raises(AssertionError, match="test_a_second_try_leaves_the_desk_as_if_no_line"):
        with_counter.pytest("HELPDESK_TESTS", "counter")
    path.write_text(right, encoding="utf-8")


def test_the_helpdesk_of_the_page_is_in_the_house_s_style(with_counter: Tree) -> None:
    files = [b.file for b in blocks("adding-a-helpdesk.md") if b.file.endswith(".py")]
    with_counter.run(".venv/bin/ruff", "check", *files)
    with_counter.run(".venv/bin/ruff", "format", "--check", *files)
