"""Between AskOnce's `webhook` helpdesk and a desk's own API: what every adapter shares.

    POST /                  AskOnce's signed events
    POST /desk/<secret>     what the desk tells; it goes to AskOnce, signed

Environment: ASKONCE_URL (the address .../replies/<name>), ASKONCE_SECRET (whsec_...), DESK_URL,
DESK_TOKEN, DESK_USER, DESK_PATH_SECRET. Python's standard library and requests.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import requests

Event = dict[str, Any]
#: Seconds before each try to tell AskOnce something: the desk itself tells it only once.
WAITS = (0, 1, 5, 30, 120)
OUR_OWN_FAULT = (401, 403)  # of the adapter: AskOnce is to try again


class Desk(Protocol):
    """The key is the same on every try: each method looks for it before it writes."""

    def open(self, event: Event, key: str) -> str:
        """Open a ticket; return its id."""

    def add(self, event: Event, key: str) -> None:
        """Add what the customer said."""

    def note(self, event: Event, key: str) -> None:
        """Add a remark for agents only."""

    def happened(self, told: Event) -> Iterable[tuple[str, Event]]:
        """What the desk told, as events for AskOnce, each with an id that stays the same."""


def said(event: Event) -> str:
    """The customer's words with the name in front, and links to what was sent along."""
    message = event["message"]
    who = message.get("sender_name") or message["address"]
    lines = [f"{who} ({message['channel']}):", message.get("text") or f"[{message['kind']}]"]
    for file in message.get("attachments") or ():
        lines.append(f"{file.get('name') or 'file'}: {file.get('url') or file.get('unavailable')}")
    return "\n".join(lines)


def title(event: Event) -> str:
    """What a ticket is called."""
    message = event["message"]
    return str(message.get("subject") or message.get("text") or "A question").split("\n")[0][:80]


def signature(secret: str, name: str, at: str, body: bytes) -> str:
    """As Standard Webhooks has it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    proof = hmac.new(key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(proof).decode()


def genuine(headers: Any, body: bytes, secret: str) -> bool:
    """Whether AskOnce sent exactly this, in the last five minutes."""
    name, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    fresh = name and at.isdigit() and abs(time.time() - int(at)) < 300
    wanted, given = signature(secret, name, at, body), headers.get("webhook-signature", "")
    right = [hmac.compare_digest(each.encode(), wanted.encode()) for each in given.split(" ")]
    return bool(fresh and any(right))


def tell(events: list[tuple[str, Event]]) -> None:
    """Send each to AskOnce until it is taken, in order: an answer before what closes it."""
    for name, event in events:
        if not told(name, event):
            logging.error("AskOnce did not take %s", name)


def told(name: str, event: Event) -> bool:
    """Whether AskOnce took an event in the end. 404 may mean "not yet"."""
    body, secret = json.dumps(event).encode(), os.environ["ASKONCE_SECRET"]
    for wait in WAITS:
        time.sleep(wait)
        at = str(int(time.time()))
        proof = {"webhook-signature": signature(secret, name, at, body)}
        proof |= {"webhook-id": name, "webhook-timestamp": at}
        try:
            answer = requests.post(os.environ["ASKONCE_URL"], body, headers=proof, timeout=20)
        except requests.RequestException:
            continue
        if answer.ok:
            return True
    return False


def carry_out(desk: Desk, event: Event, key: str) -> tuple[int, Event, str]:
    """Do what an event of AskOnce says: status, answer, and Retry-After where the desk has one."""
    try:
        if event["type"] == "ticket.opened":
            return 200, {"ticket_id": desk.open(event, key)}, ""
        if event["type"] in ("message.added", "note.added"):
            (desk.note if event["type"] == "note.added" else desk.add)(event, key)
    except requests.HTTPError as error:  # its pace, and its refusals, as they are
        status, again = error.response.status_code, error.response.headers.get("Retry-After", "")
        return (503 if status >= 500 or status in OUR_OWN_FAULT else status), {}, again
    except requests.RequestException:
        return 503, {}, ""
    return 200, {}, ""


class Handler(BaseHTTPRequestHandler):
    """One request, of AskOnce or of the desk."""

    desk: Desk

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        desk_path = f"/desk/{os.environ['DESK_PATH_SECRET']}".encode()
        if self.path == "/" and genuine(self.headers, body, os.environ["ASKONCE_SECRET"]):
            self._answer(*carry_out(self.desk, json.loads(body), self.headers["webhook-id"]))
        elif hmac.compare_digest(self.path.encode(), desk_path):
            happened = list(self.desk.happened(json.loads(body)))
            threading.Thread(target=tell, args=(happened,), daemon=True).start()
            self._answer(200, {}, "")
        else:
            self._answer(401, {}, "")

    def _answer(self, status: int, body: Event, again: str) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if again:
            self.send_header("Retry-After", again)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: addresses hold a secret."""


def server(desk: Desk, port: int) -> ThreadingHTTPServer:
    """Threads, since a desk may call us while we call it."""
    return ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"desk": desk}))
