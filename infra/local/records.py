"""What the outside world remembers: the desk's tickets, and what customers said and got.

One SQLite file, written before any answer leaves, so that a killed world finds it again.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS tickets (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE, fields TEXT, state TEXT, priority TEXT, at TEXT);
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE, ticket TEXT, kind TEXT, fields TEXT, at TEXT);
CREATE TABLE IF NOT EXISTS lines (
    number INTEGER PRIMARY KEY, channel TEXT, address TEXT, direction TEXT, fields TEXT, at TEXT);
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, media_type TEXT, content BLOB);
"""


class Records:
    """Tickets (with their entries), lines on the customers' phones, and files at providers."""

    def __init__(self, path: Path | str) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.executescript(_TABLES)
        self._lock = threading.RLock()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [_row(r) for r in self._connection.execute(sql, values).fetchall()]

    # The desk

    def open_ticket(self, key: str, fields: dict[str, Any]) -> str:
        """A ticket, once per key; its opening message is its first entry."""
        with self._write() as db:
            found = db.execute("SELECT number FROM tickets WHERE key = ?", (key,)).fetchone()
            if found:
                return f"T{found['number']}"
            # Priority has a column of its own, which changes; fields are as the ticket was opened.
            message, priority = fields.pop("message"), fields.pop("priority", "normal")
            number = db.execute(
                "INSERT INTO tickets (key, fields, state, priority, at)"
                " VALUES (?, ?, 'open', ?, ?)",
                (key, json.dumps(fields), priority, _now()),
            ).lastrowid
            self._insert(db, f"{key}-first", f"T{number}", "message", message)
            return f"T{number}"

    def add_entry(
        self, key: str, ticket: str, kind: str, fields: dict[str, Any], priority: str | None = None
    ) -> bool:
        """A message, note or reply on a ticket, once per key; False if there is no such ticket."""
        with self._write() as db:
            number = int(ticket[1:]) if ticket[1:].isdigit() else 0
            if not db.execute("SELECT 1 FROM tickets WHERE number = ?", (number,)).fetchone():
                return False
            self._insert(db, key, ticket, kind, fields)
            if priority:
                db.execute("UPDATE tickets SET priority = ? WHERE number = ?", (priority, number))
            return True

    def _insert(
        self, db: sqlite3.Connection, key: str, ticket: str, kind: str, fields: dict[str, Any]
    ) -> None:
        db.execute(
            "INSERT OR IGNORE INTO entries (key, ticket, kind, fields, at) VALUES (?, ?, ?, ?, ?)",
            (key, ticket, kind, json.dumps(fields), _now()),
        )

    def set_state(self, ticket: str, state: str) -> None:
        with self._write() as db:
            db.execute("UPDATE tickets SET state = ? WHERE number = ?", (state, int(ticket[1:])))

    def tickets(self) -> list[dict[str, Any]]:
        """Newest first, each with its entries in order."""
        found = self._rows("SELECT * FROM tickets ORDER BY number DESC")
        for ticket in found:
            ticket["id"] = f"T{ticket.pop('number')}"
            ticket["entries"] = self._rows(
                "SELECT * FROM entries WHERE ticket = ? AND kind <> 'sent' ORDER BY number",
                ticket["id"],
            )
        return found

    def unsent(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(ticket, kind, entry) of what agents said and nobody confirmed."""
        found = self._rows(
            "SELECT * FROM entries WHERE json_extract(fields, '$.own') AND NOT EXISTS"
            " (SELECT 1 FROM entries AS sent WHERE sent.key = entries.key || '-sent')"
            " ORDER BY number"
        )
        return [(entry["ticket"], entry["kind"], entry) for entry in found]

    # The customers' phones

    def add_line(self, channel: str, address: str, direction: str, fields: dict[str, Any]) -> int:
        """What a customer said (`out`) or got (`in`)."""
        with self._write() as db:
            return int(
                db.execute(
                    "INSERT INTO lines (channel, address, direction, fields, at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (channel, address, direction, json.dumps(fields), _now()),
                ).lastrowid
                or 0
            )

    def lines(self, after: int = 0) -> list[dict[str, Any]]:
        return self._rows("SELECT * FROM lines WHERE number > ? ORDER BY number", after)

    # Files at providers

    def add_file(self, file_id: str, media_type: str, content: bytes) -> None:
        with self._write() as db:
            db.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (file_id, media_type, content)
            )

    def file(self, file_id: str) -> tuple[str, bytes] | None:
        with self._lock:
            row = self._connection.execute(
                "SELECT media_type, content FROM files WHERE id = ?", (file_id,)
            ).fetchone()
        return (row["media_type"], row["content"]) if row else None

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _row(row: sqlite3.Row) -> dict[str, Any]:
    found = dict(row)
    found.pop("key", None)
    fields: dict[str, Any] = json.loads(found.pop("fields", None) or "{}")
    return found | fields


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
