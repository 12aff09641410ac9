"""django-helpdesk as a helpdesk of AskOnce: `python django_helpdesk_adapter.py 8095`.

docs/helpdesks/django-helpdesk.md says how to set it up; adapter.py has what all adapters share.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import requests
from adapter import Event, said, server, title

PRIORITY = {"high": 2, "normal": 3}
REOPENED, RESOLVED, CLOSED = 2, 3, 4
#: Tickets are listed oldest first, and cannot be searched: one that was opened a moment ago is
#: among the last of them.
LAST = 100


class DjangoHelpdesk:
    """Tickets carry the conversation in the custom field `external_id`, follow-ups our key."""

    def open(self, event: Event, key: str) -> str:
        conversation = event["conversation"]
        if found := self._lately_opened(conversation["id"]):
            return found
        ticket = {
            "queue": int(os.environ.get("DESK_QUEUE", "1")),
            "title": f"{plain(title(event))} ({conversation['reference']})",
            "description": plain(said(event)),
            "priority": PRIORITY[conversation["priority"]],
            "custom_external_id": conversation["id"],
            # and no submitter_email: django-helpdesk would mail each answer, too
        }
        return str(self._call("POST", "tickets/", json=ticket)["id"])

    def add(self, event: Event, key: str) -> None:
        ticket = self._follow_up(event["ticket_id"], said(event), key, public=True)
        changes: Event = {}
        if ticket["status"] in (RESOLVED, CLOSED) and event["conversation"]["state"] == "open":
            changes["status"] = REOPENED
        if ticket["priority"] > PRIORITY[event["conversation"]["priority"]]:  # 1 is the highest
            changes["priority"] = PRIORITY[event["conversation"]["priority"]]
        if changes:
            self._call("PATCH", f"tickets/{ticket['id']}/", json=changes)

    def note(self, event: Event, key: str) -> None:
        self._follow_up(event["ticket_id"], event["text"], key, public=False)

    def _follow_up(self, ticket_id: str, text: str, key: str, *, public: bool) -> Event:
        """Added unless it is there: it answers 500 for what it stored when a webhook fails."""
        ticket: Event = self._call("GET", f"tickets/{ticket_id}/")
        mark = f"[askonce {key}]"
        if not any(mark in (each["comment"] or "") for each in ticket["followup_set"]):
            follow_up = {
                "ticket": ticket["id"],
                "title": ticket["title"],  # another one would become the ticket's
                "comment": f"{plain(text)}\n{mark}",
                "public": public,
            }
            self._call("POST", "followups/", json=follow_up)
        return ticket

    def happened(self, told: Event) -> Iterator[tuple[str, Event]]:
        """It tells of private remarks and of our own words as well, whole tickets each time."""
        ticket, number = told["ticket"], told["followup_id"]
        follow_up = next(each for each in ticket["followup_set"] if each["id"] == number)
        if follow_up["user"] in (None, int(os.environ["DESK_USER"])):
            return
        about = {"ticket_id": str(ticket["id"]), "at": follow_up["date"]}
        if follow_up["public"] and (follow_up["comment"] or "").strip():
            reply = {"type": "reply.created", "reply_id": str(number), "author": "Support"}
            yield f"reply-{number}", about | reply | {"text": follow_up["comment"]}
        if follow_up["new_status"] in (RESOLVED, CLOSED):
            yield f"closed-{number}", about | {"type": "ticket.closed"}
        elif follow_up["new_status"] == REOPENED:
            yield f"reopened-{number}", about | {"type": "ticket.reopened"}

    def _lately_opened(self, conversation: str) -> str:
        count = self._call("GET", "tickets/?page_size=1")["count"]
        for page in {-(-count // LAST), max(1, count // LAST)} if count else ():
            listed = self._call("GET", f"tickets/?page_size={LAST}&page={page}")["results"]
            for ticket in listed:
                if ticket["custom_external_id"] == conversation:
                    return str(ticket["id"])
        return ""

    def _call(self, method: str, path: str, **body: Any) -> Any:
        answer = requests.request(
            method,
            f"{os.environ['DESK_URL'].rstrip('/')}/api/{path}",
            headers={"Authorization": f"Token {os.environ['DESK_TOKEN']}"},
            timeout=20,
            **body,
        )
        answer.raise_for_status()
        return answer.json()


def plain(text: str) -> str:
    """django-helpdesk fills in what looks like a template, a customer's words too."""
    return text.replace("{{", "{ {").replace("{%", "{ %")


if __name__ == "__main__":
    server(DjangoHelpdesk(), int(sys.argv[1])).serve_forever()
