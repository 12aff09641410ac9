"""The desks that take each call as one request with an idempotency key: ours, and yours.

`sandbox` is played by the local world's own desk. `webhook` is any receiver that does what
docs/helpdesks/webhook.md asks of it; it verifies with the library of Standard Webhooks:
https://github.com/standard-webhooks/standard-webhooks
"""

import base64
import json
from typing import Any

from flask import Flask
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from infra.local.desk import Desk
from infra.local.records import Records
from tests.desk_server import Asked, Said

SECRET = f"whsec_{base64.b64encode(b'a key of thirty-two bytes, or so').decode()}"


class FakeSandbox:
    """The sandbox, without its page and in memory."""

    def __init__(self) -> None:
        self._records = Records(":memory:")
        app = Flask(__name__)
        app.register_blueprint(Desk(self._records, "", lambda: SECRET).api())
        self._client = app.test_client()

    def answer(self, asked: Asked) -> Said:
        """As its API does."""
        said = self._client.open(
            asked.path, method=asked.method, headers=dict(asked.headers), data=asked.body
        )
        return Said(said.status_code, said.data)

    def shown(self) -> dict[str, list[str]]:
        """{ticket: what stands on it}, private remarks in brackets."""
        return {t["id"]: [_line(entry) for entry in t["entries"]] for t in self._records.tickets()}


def _line(entry: dict[str, Any]) -> str:
    return f"[{entry['text']}]" if entry["kind"] == "note" else str(entry["text"])


class FakeReceiver:
    """A receiver that keeps each `webhook-id` once, and says the same of it each time."""

    def __init__(self) -> None:
        self.tickets: dict[str, list[str]] = {}
        self._answers: dict[str, Said] = {}

    def answer(self, asked: Asked) -> Said:
        """Verify; act once per id."""
        try:
            Webhook(SECRET).verify(asked.body, dict(asked.headers))
        except WebhookVerificationError:
            return Said(401)
        key = asked.headers["webhook-id"]
        if key not in self._answers:
            self._answers[key] = self._take(json.loads(asked.body))
        return self._answers[key]

    def _take(self, event: dict[str, Any]) -> Said:
        if event["type"] == "ticket.opened":
            ticket = f"T{len(self.tickets) + 1}"
            self.tickets[ticket] = [event["message"]["text"]]
            return Said(201, {"ticket_id": ticket})
        if event["ticket_id"] not in self.tickets:
            return Said(404)
        is_note = event["type"] == "note.added"
        line = f"[{event['text']}]" if is_note else event["message"]["text"]
        self.tickets[event["ticket_id"]].append(line)
        return Said(204)

    def shown(self) -> dict[str, list[str]]:
        """{ticket: what stands on it}, private remarks in brackets."""
        return self.tickets


#: For tests/test_desk_contract.py.
FAKES = {"sandbox": FakeSandbox, "webhook": FakeReceiver}
SETTINGS = {"secret": SECRET}
