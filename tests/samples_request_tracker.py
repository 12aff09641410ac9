"""Samples of Request Tracker: what its Scrip sends; make_samples writes them with its own."""

import json
from collections.abc import Iterator
from typing import Any

from infra.local import simulators

AT = "2026-01-01T08:59:00Z"
NOW = 1767258000
SECRET = "whsec_bWFkZSB1cCBmb3IgdGhlIHNhbXBsZXM="
SETTINGS = {"url": "https://rt.example", "token": "1-27-made-up", "secret": SECRET}
FILE = {"id": 12, "name": "label.png", "type": "image/png", "size": 2048}
#: As a real 5.0.3 sends it (tests/test_request_tracker_real.py).
EVENT: dict[str, Any] = {
    "author": "alice",
    "author_name": "Alice Agent",
    "content": "",
    "content_type": None,
    "created": AT,
    "files": [],
    "is_agent": True,
    "new": None,
    "old": None,
    "ticket": 7,
    "transaction": 44,
}


def _request_tracker() -> Iterator[tuple[str, dict[str, Any]]]:
    replied = {"text": "Tomorrow. 明天", "author": "Alice Agent", "sent_at": AT}
    changed, corrected = {"at": AT}, {"at": AT, "by": "Alice Agent"}
    html = {"content_type": "text/html", "content": "<p>Tomorrow. 明天</p>"}
    file = {"name": "label.png", "media_type": "image/png", "size_bytes": 2048, "source": "12"}
    into = {"new": "fsck.com-rt://rt.example/ticket/9"}
    for name, kind, told, expected in (
        ("reply", "reply", text("Tomorrow. 明天"), [replied]),
        ("file", "reply", html | {"files": [FILE]}, [replied | {"attachments": [file]}]),
        ("note", "note", text("Nobody may see this"), []),
        ("own", "reply", text("Where is it?") | {"author": "askonce"}, []),
        ("customer", "reply", text("By mail") | {"author": "li", "is_agent": False}, []),
        ("closed", "status", moved("open", "resolved"), [changed | {"state": "closed"}]),
        ("reopened", "status", moved("resolved", "open"), [changed | {"state": "open"}]),
        ("merged", "merged", into, [changed | {"state": "merged", "merged_into": "9"}]),
        ("set_apart", "note", text("not-a-repeat"), [corrected | {"kind": "not_a_repeat"}]),
        (
            "same_person",
            "note",
            text("same-person: li@example.com"),
            [corrected | {"kind": "same_person", "address": "email:li@example.com"}],
        ),
    ):
        yield name, _sample(EVENT | {"type": f"ticket.{kind}"} | told, expected)


def text(content: str) -> dict[str, Any]:
    return {"content": content, "content_type": "text/plain"}


def moved(old: str, new: str) -> dict[str, Any]:
    return {"old": old, "new": new}


def _sample(event: dict[str, Any], expected: list[dict[str, Any]]) -> dict[str, Any]:
    body = json.dumps(event, ensure_ascii=False, sort_keys=True).encode()
    headers = simulators.standard_webhook(SECRET, body, webhook_id="rt-44", at=NOW)
    return {
        "about": f"RT's Scrip: {event['type']}",
        "source": "tests/make_samples.py",
        "settings": SETTINGS,
        "now": NOW,
        "public_url": "https://askonce.example/replies/desk",
        "request": {
            "method": "POST",
            "headers": headers | {"Content-Type": "application/json"},
            "query": {},
            "body": body.decode(),
        },
        "expected": [{"external_id": "44", "ticket_id": "7"} | e for e in expected],
    }


def simulated() -> dict[str, dict[str, Any]]:
    """{file below tests/samples: its content}."""
    return {f"helpdesks/request_tracker/{name}.json": made for name, made in _request_tracker()}
