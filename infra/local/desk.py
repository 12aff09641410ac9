"""The sandbox helpdesk: takes each ticket once, by its key, and sends replies until they arrive.

Its REST interface is what connectors/helpdesks/sandbox.py speaks. Agents' replies leave as signed
webhooks; one that was not taken is sent again, also after a restart.
"""

import hmac
import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import requests
from flask import Blueprint, Response, jsonify, request

from infra.local import simulators
from infra.local.records import Records

AGENT = "Kim"


class Desk:
    """Tickets, agents, and the way back to AskOnce."""

    def __init__(self, records: Records, replies_url: str, secret: Callable[[], str]) -> None:
        self._records = records
        self._replies_url = replies_url
        self._secret = secret
        self._wake = threading.Event()
        self._stopped = False

    # What AskOnce calls

    def api(self) -> Blueprint:
        pages = Blueprint("desk", __name__, url_prefix="/api")

        @pages.before_request
        def authorise() -> tuple[Response, int] | None:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._secret()}".encode()):
                return jsonify(error="unauthorised"), 401
            return None

        @pages.post("/tickets")
        def open_ticket() -> Response:
            key = request.headers["Idempotency-Key"]
            return jsonify(id=self._records.open_ticket(key, request.get_json()))

        @pages.post("/tickets/<ticket>/<any(comments, notes):kind>")
        def add(ticket: str, kind: str) -> tuple[Response, int]:
            asked = request.get_json()
            entry = asked["message"] if kind == "comments" else {"text": asked["text"]}
            name = "message" if kind == "comments" else "note"
            key = request.headers["Idempotency-Key"]
            if not self._records.add_entry(key, ticket, name, entry, asked.get("priority")):
                return jsonify(error="no such ticket"), 404
            return jsonify(ok=True), 201

        return pages

    # What agents do

    def reply(self, ticket: str, text: str) -> bool:
        """Answer the customer; False if there is no such ticket."""
        return self._say(ticket, "reply", text)

    def note(self, ticket: str, text: str) -> bool:
        """A remark that must not leave the desk."""
        return self._say(ticket, "note", text)

    def set_state(self, ticket: str, state: str) -> bool:
        """`closed` or `open`."""
        self._records.set_state(ticket, state)
        return self._say(ticket, "closed" if state == "closed" else "reopened", "")

    def set_apart(self, ticket: str, message: str) -> bool:
        """Say that a message is not the same question as the ticket's."""
        return self._say(ticket, "set_apart", "", message=message)

    def signal(self, ticket: str, kind: str) -> bool:
        """`typing` or `read`: told at once or never."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._post({"type": kind, "ticket": ticket, "id": uuid.uuid4().hex, "at": at})
        return True

    def _say(self, ticket: str, kind: str, text: str, **more: str) -> bool:
        event = uuid.uuid4().hex
        entry = {"text": text, "agent": AGENT, "own": True, "event": event, **more}
        known = self._records.add_entry(event, ticket, kind, entry)
        self._wake.set()
        return known

    # Sending

    def start(self) -> None:
        threading.Thread(target=self._send_for_ever, name="desk", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def _send_for_ever(self) -> None:
        while not self._stopped:
            waiting = self._records.unsent()
            for ticket, kind, entry in waiting:
                event = {
                    "type": kind,
                    "ticket": ticket,
                    "id": entry["event"],
                    "text": entry["text"],
                    "agent": entry["agent"],
                    "message": entry.get("message"),
                    "at": entry["at"].replace("+00:00", "Z"),
                }
                if self._post(event):
                    self._records.add_entry(f"{entry['event']}-sent", ticket, "sent", {})
            self._wake.wait(0.5 if waiting else 2.0)
            self._wake.clear()

    def _post(self, event: dict[str, Any]) -> bool:
        body = json.dumps(event, ensure_ascii=False).encode()
        headers = simulators.standard_webhook(self._secret(), body, webhook_id=event["id"])
        headers["Content-Type"] = "application/json"
        try:
            return requests.post(self._replies_url, data=body, headers=headers, timeout=10).ok
        except requests.RequestException:
            return False
