"""A real browser for tests: Debian's chromium, driven by playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATIENCE_MILLISECONDS = 60_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def demand_chromium() -> None:
    """Skip the test where there is no browser; in CI there must be one."""
    if CHROMIUM is None:
        why = "chromium is missing: install Debian's package chromium"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser, closed at the end."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MILLISECONDS)  # a world under load takes its time

    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking"]
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*quiet, *sandbox])
        yield opened
        opened.close()
