"""Hands for tests that drive a real local world, in a process of its own, over HTTP."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from infra.local import simulators
from infra.local.client import Client
from infra.local.story import OUTPUT, start_world, stop_world
from infra.local.world import Address

PATIENCE_SECONDS = 40.0


class Local:
    """A running world and its folder; it can be killed and started again."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self._process = start_world(folder, *options, **environment)
        self.address = Address.read(folder)
        self.client = Client(self.address)

    def stop(self) -> None:
        """Stop it. Fails the test whose world was surprised, refused a right or did not stop."""
        stop_world(self._process)
        printed = (self.folder / OUTPUT).read_text("utf-8", "replace")
        for surprise in (
            "Traceback",
            "Fatal Python error",
            "permission.denied",
            '"event":"failed"',
        ):
            assert surprise not in printed, _around(surprise, printed)

    def died(self) -> int:
        """Wait for it to end by itself; returns its exit status."""
        self._process.wait(timeout=PATIENCE_SECONDS)
        return self._process.returncode

    def post(self, sent: simulators.Sent) -> requests.Response:
        """A provider's request."""
        response: requests.Response = simulators.post(sent, self.address.api)
        return response

    def state(self) -> dict[str, Any]:
        return self.client.state()

    def wait(
        self,
        find: Callable[[dict[str, Any]], Any],
        what: str = "",
        seconds: float = PATIENCE_SECONDS,
    ) -> Any:
        """What `find` finds in the state; fails the test if it never does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := find(self.state()):
                return found
            time.sleep(0.05)
        raise AssertionError(f"never happened: {what or find}\n{json.dumps(self.state())[:4000]}")

    @property
    def secrets(self) -> dict[str, str]:
        return self.address.environment

    @property
    def wechat_secrets(self) -> dict[str, str]:
        return {
            "app_id": "wx5f0e1c2d3b4a6978",
            "token": self.secrets["ASKONCE_WECHAT_TOKEN"],
            "aes_key": self.secrets["ASKONCE_WECHAT_AES_KEY"],
        }

    def wechat(self, openid: str, fields: dict[str, str | int], **more: Any) -> simulators.Sent:
        return simulators.wechat(self.wechat_secrets, openid, fields, **more)

    def sms(self, phone: str, text: str, **more: Any) -> simulators.Sent:
        held = {
            "account_sid": "AC5ef8732a3c49700934481addd5ce1659",
            "token": self.secrets["ASKONCE_TWILIO_TOKEN"],
            "number": "+14155550100",
            "public_url": self.address.api,
        }
        return simulators.twilio(held, phone, text, **more)

    def email(self, sender: str, text: str, **more: Any) -> simulators.Sent:
        secret = self.secrets["ASKONCE_EMAIL_SECRET"]
        more = {"name": "", "to": "help@shop.example", **more}
        return simulators.email(secret, sender=sender, text=text, **more)


def _around(surprise: str, printed: str) -> str:
    at = printed.index(surprise)
    return printed[max(0, at - 3000) : at + 3000]


@contextlib.contextmanager
def local(folder: Path, *options: str, **environment: str) -> Iterator[Local]:
    """A world that is stopped at the end, whatever happens."""
    world = Local(folder, *options, **environment)
    try:
        yield world
    finally:
        world.stop()


def askonce(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command line, as a user runs it."""
    import os

    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def messages(ticket: dict[str, Any]) -> list[dict[str, Any]]:
    """What customers said on a ticket."""
    return [e for e in ticket["entries"] if "verdict" in e]


def notes(ticket: dict[str, Any]) -> list[str]:
    """What AskOnce and agents remarked on a ticket."""
    return [e["text"] for e in ticket["entries"] if e["kind"] == "note"]


def received(state: dict[str, Any], channel: str) -> list[str]:
    """What customers got on a channel."""
    lines = state["lines"]
    return [x["text"] for x in lines if x["channel"] == channel and x["direction"] == "in"]
