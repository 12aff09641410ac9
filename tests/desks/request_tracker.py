"""Request Tracker as far as we use it, keeping what it is told, with its odd status codes.

What it takes is checked against schemas written from RT's documentation and from what a real 5.0.3
does (tests/test_request_tracker_real.py): https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html
"""

import base64
import json
import re
from email import policy
from email.parser import BytesParser
from typing import Any

from jsonschema import Draft202012Validator

from tests.desk_server import Asked, Said

_TEXT = {"type": "string", "minLength": 1}
_USER = {
    "type": "object",
    "required": ["Name", "RealName", "Privileged"],
    "additionalProperties": False,
    "properties": {
        "Name": _TEXT,
        "RealName": _TEXT,
        "Privileged": {"const": 0},
        "EmailAddress": _TEXT,
        "MobilePhone": _TEXT,
    },
}
_TICKET = {
    "type": "object",
    "required": ["Queue", "Subject", "Requestor", "Content", "ContentType", "CustomFields"],
    "additionalProperties": False,
    "properties": {
        "Queue": _TEXT,
        "Subject": _TEXT,
        "Requestor": _TEXT,
        "Content": _TEXT,
        "ContentType": {"const": "text/plain"},
        "CustomFields": {"type": "object", "required": ["ExternalId"]},
        "SquelchMailTo": _TEXT,
        "Priority": {"type": "integer"},
    },
}
_WORDS = {
    "type": "object",
    "required": ["Content", "ContentType", "TxnCustomFields"],
    "additionalProperties": False,
    "properties": {
        "Content": _TEXT,
        "ContentType": {"const": "text/plain"},
        "TxnCustomFields": {"type": "object", "required": ["MessageId"]},
    },
}


#: What the Scrip signs with.
SECRET = f"whsec_{base64.b64encode(b'a key of thirty-two bytes, or so').decode()}"


class FakeRequestTracker:
    """A queue `General` with an agent, alice."""

    token = "1-27-abc"

    def __init__(self) -> None:
        self.fields = {"ExternalId", "MessageId"}
        self.unsearched: set[str] = set()
        self.users: dict[str, dict[str, Any]] = {"alice": {"RealName": "Alice", "Privileged": 1}}
        self.tickets: dict[str, dict[str, Any]] = {}
        self.transactions: list[dict[str, Any]] = []
        self.parts: dict[str, dict[str, Any]] = {}
        self.may_write = True

    def happen(self, kind: str, ticket: str, who: str = "alice", **more: Any) -> dict[str, Any]:
        """Something on a ticket that is not our doing."""
        told = {
            "id": str(len(self.transactions) + 1),
            "Type": kind,
            "ObjectId": ticket,
            "Creator": {"id": who, "type": "user"},
            "Created": "2026-01-01T09:00:00Z",
            "parts": [],
        } | more
        self.transactions.append(told)
        return told

    def part(self, kind: str, content: bytes, name: str = "") -> dict[str, Any]:
        """A piece of a transaction's text, or a file of it."""
        part = {
            "id": str(len(self.parts) + 1),
            "ContentType": kind,
            "Filename": name,
            "ContentLength": str(len(content)),
            "Content": base64.b64encode(content).decode(),
        }
        self.parts[part["id"]] = part
        return part

    def shown(self) -> dict[str, list[str]]:
        """{ticket: what stands on it}, comments in brackets: RT mails those to nobody outside."""
        return {
            number: [
                ticket["Content"],
                *(_line(t) for t in self.transactions if t["ObjectId"] == number),
            ]
            for number, ticket in self.tickets.items()
        }

    def answer(self, asked: Asked) -> Said:
        """As RT would."""
        if asked.headers.get("authorization") != f"token {self.token}":
            return Said(401, {"message": "Unauthorized"})
        path = asked.path.removeprefix("/REST/2.0")
        for method, pattern, act in (
            ("POST", r"/user", self._make_user),
            ("GET", r"/user/([^/]+)", self._show_user),
            ("GET", r"/(users|tickets|transactions|customfields)", self._search),
            ("POST", r"/ticket", self._open),
            ("PUT", r"/ticket/(\w+)", self._change),
            ("GET", r"/ticket/(\w+)", self._show),
            ("POST", r"/ticket/(\w+)/(correspond|comment)", self._add),
            ("GET", r"/transaction/(\d+)/attachments", self._list_parts),
            ("GET", r"/attachment/(\d+)", self._show_part),
        ):
            found = re.fullmatch(pattern, path)
            if found and method == asked.method:
                said: Said = act(asked, *found.groups())
                return said
        return Said(404, {"message": "Not Found"})

    # Users

    def _make_user(self, asked: Asked) -> Said:
        user = _valid(asked.json, _USER)
        if user["Name"] in self.users:
            return Said(400, {"message": "Name in use"})
        mail = user.get("EmailAddress")
        if mail and any(u.get("EmailAddress") == mail for u in self.users.values()):
            return Said(400, {"message": "Email address in use"})
        self.users[user["Name"]] = user
        return Said(201, {"type": "user", "id": user["Name"]})

    def _show_user(self, _asked: Asked, name: str) -> Said:
        user = self.users.get(name)
        return Said(200, {"Name": name, **user}) if user else Said(404, {"message": "Not Found"})

    # Searches

    def _search(self, asked: Asked, what: str) -> Said:
        query, per_page = asked.query["query"], int(asked.query.get("per_page", 20))
        find = {
            "users": self._users,
            "customfields": self._fields,
            "tickets": self._tickets,
            "transactions": self._transactions,
        }[what]
        items = find(query)
        if asked.query.get("order") == "DESC":
            items = items[::-1]
        return Said(200, {"items": items[:per_page], "count": len(items[:per_page])})

    def _users(self, query: str) -> list[dict[str, Any]]:
        """A field that RT does not search by is no condition: it finds everybody."""
        (wanted,) = json.loads(query)
        field, value = wanted["field"], wanted["value"]
        return [
            {"id": name, "Name": name, **user}
            for name, user in self.users.items()
            if field in self.unsearched or value == (user | {"Name": name}).get(field)
        ]

    def _fields(self, query: str) -> list[dict[str, Any]]:
        (wanted,) = json.loads(query)
        return [{"id": "5", "type": "customfield"}] if wanted["value"] in self.fields else []

    def _tickets(self, query: str) -> list[dict[str, Any]]:
        key = re.fullmatch(r"CF\.\{ExternalId\}='([\w-]+)'", query)
        ids = re.findall(r"\bid=(\d+)", query)
        assert key or ids, query
        return [
            {"id": number, "type": "ticket", "Status": ticket["Status"]}
            for number, ticket in self.tickets.items()
            if (key and ticket["CustomFields"]["ExternalId"] == key[1]) or number in ids
        ]

    def _transactions(self, query: str) -> list[dict[str, Any]]:
        if key := re.fullmatch(r"CF\.\{MessageId\}='([\w-]+)'", query):
            return [_listed(t) for t in self.transactions if t.get("MessageId") == key[1]]
        after = re.search(r" AND id>(\d+) AND Creator!='askonce' ", query)
        assert after, query
        return [
            _listed(told)
            for told in self.transactions
            if int(told["id"]) > int(after[1]) and told["Creator"]["id"] != "askonce"
        ]

    # Tickets

    def _open(self, asked: Asked) -> Said:
        fields, files = _form(asked)
        ticket = _valid(fields, _TICKET)
        if ticket["Queue"] != "General":
            why = f"No permission to create tickets in the queue '{ticket['Queue']}'"
            return Said(403, {"message": why})
        number = str(len(self.tickets) + 1)
        self.tickets[number] = ticket | {"Status": "new", "files": files}
        return Said(201, {"type": "ticket", "id": number})

    def _show(self, _asked: Asked, number: str) -> Said:
        if number not in self.tickets:
            return Said(404, {"message": "Not Found"})
        return Said(200, {"id": int(number), "Status": self.tickets[number]["Status"]})

    def _change(self, asked: Asked, number: str) -> Said:
        if number not in self.tickets:
            return Said(404, {"message": "Resource does not exist; use POST to create"})
        if not self.may_write:
            return Said(200, [f"Ticket {number}: Permission Denied"])
        self.tickets[number] |= asked.json
        return Said(200, [f"Ticket {number}: Priority changed"])

    def _add(self, asked: Asked, number: str, how: str) -> Said:
        fields, files = _form(asked)
        words = _valid(fields, _WORDS)
        if number not in self.tickets or not self.may_write:
            return Said(400, {"message": "Permission Denied"})
        if words["Content"] == "refuse this":
            return Said(400, {"message": "The message is not to RT's taste"})
        kind = "Correspond" if how == "correspond" else "Comment"
        if kind == "Correspond":
            self.tickets[number]["Status"] = "open"
        key = words["TxnCustomFields"]["MessageId"]
        text = words["Content"]
        self.happen(kind, number, "askonce", MessageId=key, text=text, files=files)
        return Said(201, ["Correspondence added", "Custom fields updated"])

    # What was said

    def _list_parts(self, _asked: Asked, number: str) -> Said:
        (told,) = [t for t in self.transactions if t["id"] == number]
        items = [{k: v for k, v in part.items() if k != "Content"} for part in told["parts"]]
        return Said(200, {"items": items})

    def _show_part(self, _asked: Asked, number: str) -> Said:
        return Said(200, self.parts[number])


def _line(told: dict[str, Any]) -> str:
    return f"[{told['text']}]" if told["Type"] == "Comment" else str(told["text"])


def _listed(told: dict[str, Any]) -> dict[str, Any]:
    """A transaction without what it says: for that RT is asked once more."""
    return {name: value for name, value in told.items() if name not in ("parts", "files")}


def _valid(told: Any, schema: dict[str, Any]) -> dict[str, Any]:
    Draft202012Validator(schema).validate(told)
    return dict(told)


def _form(asked: Asked) -> tuple[Any, list[tuple[str, bytes]]]:
    """(fields, files) of a request in either form."""
    kind = asked.headers["content-type"]
    if kind == "application/json":
        return asked.json, []
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    fields, files = None, []
    for part in BytesParser(policy=policy.HTTP).parsebytes(head + asked.body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if name == "JSON":
            fields = json.loads(content)
        else:
            assert name == "Attachments"
            files.append((part.get_filename() or "", content))
    return fields, files


#: For tests/test_desk_contract.py.
FAKES = {"request_tracker": FakeRequestTracker}
SETTINGS = {"token": FakeRequestTracker.token, "secret": SECRET}
