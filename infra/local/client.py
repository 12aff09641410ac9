"""Talking to a running local world, as the command line and the tests do."""

import json
from collections.abc import Iterator
from typing import Any

import requests

from chalicelib.errors import ConfigurationError
from infra.local.world import Address


class Client:
    """The page's own interface, without a browser."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._session = requests.Session()

    def say(
        self,
        person: str,
        channel: str,
        text: str,
        *,
        subject: str = "",
        file: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Write as a customer; returns the provider's view: status and answer.

        `channel` may be the name of an inbox: of a channel the first one is taken.
        """
        asked = {"person": person, "inbox": channel, "text": text, "subject": subject}
        return self._post("/local/say", {**asked, "file": file})

    def agent(self, ticket: str, act: str, text: str = "") -> None:
        """Act as an agent: `reply`, `note`, `close`, `reopen`, `set_apart` with a message's id."""
        self._post("/local/agent", {"ticket": ticket, "act": act, "text": text})

    def state(self) -> dict[str, Any]:
        """Tickets with their entries, and the lines on the customers' phones."""
        return self._checked(self._session.get(self.address.page + "/local/state", timeout=30))

    def waiting(self) -> int:
        """How many messages are on their way."""
        found = self._checked(self._session.get(self.address.page + "/local/waiting", timeout=30))
        return int(found["messages"])

    def log(self) -> list[dict[str, Any]]:
        """The latest lines of the log, oldest first."""
        found = self._checked(self._session.get(self.address.page + "/local/log", timeout=30))
        lines: list[dict[str, Any]] = found["lines"]
        return lines

    def events(self) -> Iterator[dict[str, Any]]:
        """Lines of the log, from the oldest kept one on, for ever."""
        url = self.address.page + "/local/events"
        with self._session.get(url, stream=True, timeout=60) as response:
            for line in response.iter_lines():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._checked(self._session.post(self.address.page + path, json=body, timeout=60))

    def _checked(self, response: requests.Response) -> dict[str, Any]:
        if not response.ok:
            try:
                why = response.json()["error"]
            except (ValueError, KeyError):
                why = f"HTTP {response.status_code}"
            raise ConfigurationError(f"the local world says: {why}")
        found: dict[str, Any] = response.json()
        return found
