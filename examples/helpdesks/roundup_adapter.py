"""Roundup as a helpdesk of AskOnce: `python roundup_adapter.py 8095`.

docs/helpdesks/roundup.md says how to set it up; adapter.py has what all adapters share.
"""

import base64
import os
import sys
from collections.abc import Iterator
from typing import Any

import requests
from adapter import Event, said, server, title

#: Of the classic tracker's priorities and states, by name.
PRIORITY = {"high": "urgent", "normal": "bug"}
OPEN, DONE = "chatting", ("resolved", "done-cbb")
TRIES = 5
#: Every message is public in Roundup; agents begin one with this word to keep it there.
INTERNAL = "internal:"


class Roundup:
    """Issues carry our reference in their title, messages our key as their messageid."""

    def open(self, event: Event, key: str) -> str:
        conversation = event["conversation"]
        issue = self._search("issue", "title", conversation["reference"])
        if not issue:
            about = {
                "title": f"{title(event)} ({conversation['reference']})",
                "priority": PRIORITY[conversation["priority"]],
                "status": OPEN,
            }
            issue = str(self._call("POST", "issue", json=about)["data"]["id"])
        self._say(issue, said(event), key, {})
        return issue

    def add(self, event: Event, key: str) -> None:
        conversation, changes = event["conversation"], {}
        if conversation["state"] == "open":
            changes["status"] = OPEN
        if conversation["priority"] == "high":
            changes["priority"] = PRIORITY["high"]
        self._say(event["ticket_id"], said(event), key, changes)

    def note(self, event: Event, key: str) -> None:
        self._say(event["ticket_id"], f"{INTERNAL} {event['text']}", key, {})

    def _say(self, issue: str, text: str, key: str, changes: Event) -> None:
        """A message, made once, on its issue, put there once."""
        message = self._search("msg", "messageid:", key)  # `:=` is all of it
        if not message:
            # one without an author could be put on no issue
            words = {"author": os.environ["DESK_USER"], "content": text, "messageid": key}
            message = str(self._call("POST", "msg", json=words)["data"]["id"])
        for last in (False,) * (TRIES - 1) + (True,):
            answer = self._call("GET", f"issue/{issue}")["data"]
            there = [str(each["id"]) for each in answer["attributes"]["messages"]]
            if message in there:
                return
            seen = {"If-Match": answer["@etag"]}
            body = changes | {"messages": [*there, message]}
            try:
                self._call("PATCH", f"issue/{issue}", json=body, headers=seen)
                return
            except requests.HTTPError as error:
                if error.response.status_code != 412 or last:  # an agent was quicker: look again
                    raise

    def happened(self, told: Event) -> Iterator[tuple[str, Event]]:
        """What roundup_detector.py posts."""
        ticket = {"ticket_id": told["issue"]}
        for message in told["messages"]:
            text = message["content"].strip()
            if message["author"] != os.environ["DESK_USER"] and text:
                if text.lower().startswith(INTERNAL):
                    continue
                reply = {"type": "reply.created", "reply_id": message["id"], "text": text}
                yield f"reply-{message['id']}", ticket | reply | {"author": message["author"]}
        if told["status_changed"]:
            kind = "ticket.closed" if told["status"] in DONE else "ticket.reopened"
            if told["status"] in (*DONE, OPEN):
                yield f"status-{told['issue']}-{told['activity']}", ticket | {"type": kind}

    def _search(self, kind: str, field: str, text: str) -> str:
        found = self._call("GET", kind, params={field: text})["data"]["collection"]
        return str(found[0]["id"]) if found else ""

    def _call(self, method: str, path: str, **more: Any) -> Any:
        url = os.environ["DESK_URL"].rstrip("/")
        login = f"{os.environ['DESK_USER']}:{os.environ['DESK_TOKEN']}"
        headers = {
            "Authorization": "Basic " + base64.b64encode(login.encode()).decode(),
            "X-Requested-With": "rest",
            "Origin": "/".join(url.split("/")[:3]),
        } | more.pop("headers", {})
        answer = requests.request(
            method, f"{url}/rest/data/{path}", headers=headers, timeout=20, **more
        )
        answer.raise_for_status()
        return answer.json()


if __name__ == "__main__":
    server(Roundup(), int(sys.argv[1])).serve_forever()
