"""A real Request Tracker 5 on loopback: what customers say goes in, what agents say comes out."""

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib.errors import ConfigurationError, GoneError
from chalicelib.ports import FromDesk, WebhookRequest
from chalicelib.schema import Attachment, Channel, Correction, Priority, Reply, TicketChange
from connectors.helpdesks.request_tracker import RequestTracker as Connector
from infra.local.request_tracker import RequestTracker, missing
from tests import nouns
from tests.recorded import helpdesk

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
SECRET = "whsec_b25seSBmb3IgdGhpcyBtYWNoaW5lIQ=="
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"
_numbers = count(1)


@dataclass
class Receiver:
    """Where the Scrip posts to."""

    requests: list[WebhookRequest] = field(default_factory=list)
    #: Refuses what comes, as when our end is down.
    deaf: bool = False
    port: int = 0


def _serve(receiver: Receiver) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not receiver.deaf:
                headers = {name.lower(): [value] for name, value in self.headers.items()}
                now = datetime.now(UTC)
                request = WebhookRequest(method="POST", headers=headers, body=body, received_at=now)
                receiver.requests.append(request)
            self.send_response(503 if receiver.deaf else 200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing to the console."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@dataclass
class Place:
    """An RT, an agent at work there, and us."""

    rt: RequestTracker
    receiver: Receiver
    desk: Connector

    def agent(self, method: str, path: str, **more: Any) -> Any:
        """What alice does."""
        return self._call("alice", method, path, **more)

    def look(self, path: str, **query: str) -> Any:
        """What stands there."""
        return self._call("askonce", "GET", path, params=query)

    def _call(self, who: str, method: str, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"token {self.rt.tokens[who]}"}
        url = f"{self.rt.url}/REST/2.0{path}"
        answer = requests.request(method, url, headers=headers, timeout=30, **more)
        assert answer.ok, answer.text
        return answer.json()

    def texts(self, ticket: str) -> list[tuple[str, str]]:
        """(type, text) of what was said on a ticket."""
        said = []
        history = self.look(f"/ticket/{ticket}/history", fields="Type", per_page="100")
        for each in history["items"]:
            if each["Type"] in ("Create", "Correspond", "Comment"):
                where = f"/transaction/{each['id']}/attachments"
                parts = self.look(where, fields="ContentType,Content,Filename")["items"]
                texts = [p["Content"] for p in parts if p["ContentType"] == "text/plain"]
                said.append((each["Type"], texts[0]))
        return said

    def heard(self) -> list[FromDesk]:
        """What the Scrip sent, verified and read."""
        found: list[FromDesk] = []
        for request in self.receiver.requests:
            self.desk.verify(request)
            found += self.desk.parse(request)
        return found

    def ticket(self, **more: Any) -> str:
        """One opened for a new customer."""
        n = next(_numbers)
        asked = nouns.conversation(id=f"q{n}", contact_id=f"c{n}", **more)
        message = nouns.message(sender_name="Li Wei")
        return self.desk.open_ticket(message, asked, idempotency_key=asked.id)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    receiver = Receiver()
    server = _serve(receiver)
    folder: Path = tmp_path_factory.mktemp("rt")
    hook = f"http://127.0.0.1:{receiver.port}/replies/desk"
    with RequestTracker(folder, hook_url=hook, secret=SECRET) as rt:
        settings = {"url": rt.url, "token": rt.tokens["askonce"], "secret": SECRET}
        desk = helpdesk("request_tracker", settings)
        assert isinstance(desk, Connector)
        yield Place(rt, receiver, desk)
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(running: Place) -> Place:
    running.receiver.requests.clear()
    running.receiver.deaf = False
    return running


def settled() -> datetime:
    """A time at which whatever happened is old enough to be found."""
    return datetime.now(UTC) + timedelta(minutes=1)


def polled(place: Place, cursor: str) -> list[FromDesk]:
    """What happened since, in as many pages as there are."""
    found: list[FromDesk] = []
    while True:
        page = place.desk.poll(cursor, settled())
        found += page.found
        cursor = page.cursor
        if not page.more:
            return found


# In


def test_a_question_is_a_ticket_of_a_customer_who_is_known_from_then_on(place: Place) -> None:
    asked = nouns.conversation(id="q-in", contact_id="c-in", category="delivery")
    file = Attachment(name="票.png", media_type="image/png", content=PNG)
    message = nouns.message(
        "订单没有收到 <b>&'", sender_name="李伟", channel=Channel.WECHAT, attachments=(file,),
        address="wechat:app:openid",
    )  # fmt: skip
    ticket = place.desk.open_ticket(message, asked, idempotency_key="q-in")
    held = place.look(f"/ticket/{ticket}")
    fields = {f["name"]: f["values"] for f in held["CustomFields"] if f["values"]}
    assert fields == {
        "ExternalId": ["q-in"],
        "Reference": ["Q-2222-3333"],
        "Channel": ["wechat"],
        "Category": ["delivery"],
    }
    assert [r["id"] for r in held["Requestor"]] == ["askonce-c-in"]
    assert place.look("/user/askonce-c-in")["RealName"] == "李伟"
    assert place.texts(ticket) == [("Create", "李伟 (wechat):\n订单没有收到 <b>&'")]
    parts = place.look(f"/ticket/{ticket}/attachments", fields="Filename")["items"]
    (picture,) = [part["id"] for part in parts if part["Filename"] == "票.png"]
    assert place.desk.fetch(Attachment(source=picture)) == PNG


def test_a_customer_who_asks_twice_is_one_user(place: Place) -> None:
    for key in ("q-twice-1", "q-twice-2"):
        asked = nouns.conversation(id=key, contact_id="c-twice")
        ticket = place.desk.open_ticket(nouns.message(), asked, idempotency_key=key)
        requestors = place.look(f"/ticket/{ticket}")["Requestor"]
        assert [r["id"] for r in requestors] == ["askonce-c-twice"]


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("email:wang@example.cn", {"EmailAddress": "wang@example.cn"}),
        ("phone:+8613912345678", {"MobilePhone": "+8613912345678"}),
    ],
)
def test_a_customer_whom_rt_knows_by_a_proven_address_is_no_second_user(
    place: Place, address: str, known: dict[str, str]
) -> None:
    name = f"wang-{address.partition(':')[0]}"
    admin = requests.post(
        f"{place.rt.url}/REST/2.0/user",
        headers={"Authorization": f"token {place.rt.tokens['askonce']}"},
        json={"Name": name, "Privileged": 0, **known},
        timeout=30,
    )
    assert admin.status_code == 201
    asked = nouns.conversation(id=f"q-{name}", contact_id=f"c-{name}")
    message = nouns.message(address=address)
    ticket = place.desk.open_ticket(message, asked, idempotency_key=asked.id)
    assert [r["id"] for r in place.look(f"/ticket/{ticket}")["Requestor"]] == [name]


def test_a_second_try_finds_the_ticket_and_what_was_said(place: Place) -> None:
    asked, message = nouns.conversation(id="q-again", contact_id="c-again"), nouns.message()
    first = place.desk.open_ticket(message, asked, idempotency_key="q-again")
    again = place.desk.open_ticket(message, asked, idempotency_key="q-again", again=True)
    assert again == first
    for again_ in (False, True, True):
        place.desk.add_comment(first, message, asked, idempotency_key="m-again", again=again_)
        place.desk.add_note(first, "asked twice", asked, idempotency_key="n-again", again=again_)
    said = "phone:+8613800138000 (sms):\nWhere is my parcel?"
    assert place.texts(first) == [
        ("Create", said),
        ("Correspond", said),
        ("Comment", "asked twice"),
    ]


def test_what_a_customer_adds_opens_the_ticket_again_and_makes_it_urgent(place: Place) -> None:
    ticket = place.ticket()
    place.agent("PUT", f"/ticket/{ticket}", json={"Status": "resolved"})
    place.receiver.requests.clear()
    urgent = nouns.conversation(priority=Priority.HIGH)
    file = Attachment(name="票.png", media_type="image/png", content=PNG)
    message = nouns.message("还没到", sender_name="李伟", attachments=(file,))
    place.desk.add_comment(ticket, message, urgent, idempotency_key=f"m-{ticket}")
    held = place.look(f"/ticket/{ticket}")
    assert (held["Status"], held["Priority"]) == ("open", "100")
    assert place.texts(ticket)[-1] == ("Correspond", "李伟 (sms):\n还没到")
    assert place.heard() == []


# Out


def test_an_agents_reply_comes_back_signed_with_its_file(place: Place) -> None:
    ticket = place.ticket()
    place.agent(
        "POST",
        f"/ticket/{ticket}/correspond",
        json={
            "Content": "<p>Tomorrow.<br>明天 &amp; later</p>",
            "ContentType": "text/html",
            "Attachments": [
                {"FileName": "l.png", "FileType": "image/png", "FileContent": "iVBORw0KGgoA/w=="}
            ],
        },
    )  # fmt: skip
    (reply,) = place.heard()
    assert isinstance(reply, Reply)
    assert (reply.ticket_id, reply.author) == (ticket, "Alice Agent")
    assert reply.text == "Tomorrow.\n明天 & later"
    (file,) = reply.attachments
    assert (file.name, file.media_type, file.size_bytes) == ("l.png", "image/png", len(PNG))
    assert place.desk.fetch(file) == PNG


def test_what_the_webhook_lost_is_found_when_asked_and_is_the_same(place: Place) -> None:
    ticket = place.ticket()
    cursor = place.desk.poll("", settled()).cursor
    place.agent(
        "POST",
        f"/ticket/{ticket}/correspond",
        json={
            "Content": "see file",
            "ContentType": "text/plain",
            "Attachments": [
                {"FileName": "a.txt", "FileType": "text/plain", "FileContent": "aGkgdGhlcmU="}
            ],
        },
    )
    place.agent("POST", f"/ticket/{ticket}/comment", json=said("same-person: +8613800138000"))
    place.agent("PUT", f"/ticket/{ticket}", json={"Status": "resolved"})
    heard = place.heard()
    assert [type(noun) for noun in heard] == [Reply, Correction, TicketChange]
    assert polled(place, cursor) == heard
    place.receiver.deaf = True
    place.agent("POST", f"/ticket/{ticket}/correspond", json=said("and another thing"))
    assert place.heard() == heard
    (lost,) = [noun for noun in polled(place, cursor) if noun not in heard]
    assert isinstance(lost, Reply)
    assert lost.text == "and another thing"


def said(text: str) -> dict[str, str]:
    return {"Content": text, "ContentType": "text/plain"}


def test_what_is_too_fresh_to_be_in_order_is_left_for_the_next_time(place: Place) -> None:
    ticket = place.ticket()
    cursor = place.desk.poll("", settled()).cursor
    place.agent("POST", f"/ticket/{ticket}/correspond", json=said("now"))
    now = place.desk.poll(cursor, datetime.now(UTC))
    assert (list(now.found), now.cursor, now.more) == ([], cursor, False)
    assert len(polled(place, cursor)) == 1


def test_a_state_that_is_past_is_no_news_when_asked(place: Place) -> None:
    ticket = place.ticket()
    cursor = place.desk.poll("", settled()).cursor
    place.agent("PUT", f"/ticket/{ticket}", json={"Status": "resolved"})
    place.agent("PUT", f"/ticket/{ticket}", json={"Status": "open"})
    changes = [noun.state for noun in place.heard() if isinstance(noun, TicketChange)]
    assert changes == ["closed", "open"]
    (left,) = polled(place, cursor)
    assert isinstance(left, TicketChange)
    assert left.state == "open"


def test_a_note_never_leaves_and_a_correction_does(place: Place) -> None:
    ticket = place.ticket()
    cursor = place.desk.poll("", settled()).cursor
    place.agent("POST", f"/ticket/{ticket}/comment", json=said("Nobody may see this"))
    assert place.receiver.requests == []
    assert polled(place, cursor) == []
    place.agent("POST", f"/ticket/{ticket}/comment", json=said("not-a-repeat"))
    (correction,) = place.heard()
    assert isinstance(correction, Correction)
    assert (correction.ticket_id, correction.kind) == (ticket, "not_a_repeat")
    assert polled(place, cursor) == [correction]


def test_a_merged_ticket_is_followed_and_takes_what_is_said_under_either_number(
    place: Place,
) -> None:
    old, new = place.ticket(), place.ticket()
    cursor = place.desk.poll("", settled()).cursor
    place.agent("PUT", f"/ticket/{old}", json={"MergeInto": int(new)})
    (change,) = place.heard()
    assert isinstance(change, TicketChange)
    assert (change.state, change.ticket_id, change.merged_into) == ("merged", old, new)
    assert polled(place, cursor) == [change]
    assert place.look(f"/ticket/{old}")["id"] == int(new)
    asked, message = nouns.conversation(), nouns.message("to the old number")
    key = f"m-merged-{old}"
    for again in (False, True):
        place.desk.add_comment(old, message, asked, idempotency_key=key, again=again)
    texts = [text for _, text in place.texts(new)]
    assert sum("to the old number" in text for text in texts) == 1
    place.agent("POST", f"/ticket/{old}/correspond", json=said("answered"))
    reply = place.heard()[-1]
    assert isinstance(reply, Reply)
    assert reply.ticket_id == new


def test_a_reply_on_a_foreign_ticket_that_took_ours_in_comes_back(place: Place) -> None:
    ours = place.ticket()
    made = place.agent(
        "POST", "/ticket", json={"Queue": "General", "Subject": "by phone", **said("called")}
    )
    foreign = str(made["id"])
    place.agent("POST", f"/ticket/{foreign}/correspond", json=said("before"))
    assert place.receiver.requests == []
    place.agent("PUT", f"/ticket/{ours}", json={"MergeInto": int(foreign)})
    place.agent("POST", f"/ticket/{foreign}/correspond", json=said("after"))
    texts = [noun.text for noun in place.heard() if isinstance(noun, Reply)]
    assert texts == ["after"]


def test_rt_itself_writes_to_no_customer_of_ours(place: Place) -> None:
    asked = nouns.conversation(id="q-mail", contact_id="c-mail")
    message = nouns.message(address="email:zhao@example.cn")
    ticket = place.desk.open_ticket(message, asked, idempotency_key="q-mail")
    place.agent("POST", f"/ticket/{ticket}/correspond", json=said("Tomorrow."))
    with sqlite3.connect(place.rt.folder / "rt.sqlite") as database:
        mails = "SELECT count(*) FROM Transactions WHERE Type = 'EmailRecord' AND ObjectId = ?"
        assert database.execute(mails, [ticket]).fetchone() == (0,)
    database.close()
    assert place.look("/user/askonce-c-mail")["EmailAddress"] == "zhao@example.cn"


# Refusals


def test_a_ticket_that_is_not_there_is_gone(place: Place) -> None:
    for conversation in (nouns.conversation(), nouns.conversation(priority=Priority.HIGH)):
        with pytest.raises(GoneError):
            place.desk.add_comment("99999", nouns.message(), conversation, idempotency_key="k")
    with pytest.raises(GoneError):
        place.desk.add_note("99999", "note", nouns.conversation(), idempotency_key="k")


@pytest.mark.parametrize("wrong", [{"token": "1-2-3"}, {"queue": "Nowhere"}])
def test_a_wrong_setting_stops_the_desk(place: Place, wrong: dict[str, str]) -> None:
    settings = {"url": place.rt.url, "token": place.rt.tokens["askonce"], "secret": SECRET}
    desk = helpdesk("request_tracker", settings | wrong)
    with pytest.raises(ConfigurationError, match='"desk"'):
        desk.open_ticket(nouns.message(), nouns.conversation(), idempotency_key="q1")


def test_it_is_stopped_by_whoever_knows_its_folder(place: Place, tmp_path: Path) -> None:
    rt = RequestTracker(tmp_path)
    rt.start()
    assert requests.get(f"{rt.url}/REST/2.0/rt", timeout=30).status_code == 401
    RequestTracker(tmp_path).stop()
    rt.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{rt.url}/REST/2.0/rt", timeout=30)
