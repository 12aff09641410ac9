"""The local world's WeChat and WeCom: what customers write there reaches the connectors, what we
answer shows on their phones, and what the real ones refuse is refused.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from flask import Flask, Response, request
from werkzeug.serving import make_server

from chalicelib.errors import RejectedError, RetryableError
from chalicelib.ports import Connector, FetchingConnector, WebhookRequest
from chalicelib.schema import Attachment, Kind, Message, Notice
from chalicelib.tokens import StoredTokens
from infra.local.people import LI
from infra.local.providers.tencent import PROVIDERS
from infra.local.records import Records
from infra.local.simulators import File
from infra.local.simulators.tencent import KF_ACCOUNT, WAYS
from infra.local.ways import Line, Scene
from tests.fakes import Clock, MemoryTable
from tests.recorded import answer_to, connector
from tests.wechat_payloads import SETTINGS

PICTURE = File("tea.png", "image/png", b"\x89PNG tea")
each_way = pytest.mark.parametrize("name", sorted(WAYS))


@dataclass
class Town:
    """One inbox of ours, and its provider beside it, on a free port."""

    name: str
    records: Records = field(default_factory=lambda: Records(":memory:"))
    messages: list[Message] = field(default_factory=list)
    cursor: str = ""
    origin: str = ""
    ours: Connector = field(init=False)

    def start(self, origin: str) -> None:
        self.origin = origin
        place = {"api_url": f"{origin}/providers/{self.name}"}
        tokens = StoredTokens(MemoryTable(), Clock(), lambda seconds: None)
        self.ours = connector(self.name, {**SETTINGS[self.name], **place}, origin, tokens)

    def take(self) -> Response:
        """What comes in over HTTP, into the connector, and what it answers."""
        taken = WebhookRequest(
            method=request.method,
            headers={name.lower(): (value,) for name, value in request.headers},
            query=tuple(request.args.items()),
            body=request.get_data(),
            received_at=datetime.now(UTC),
        )
        self.ours.verify(taken)
        found = list(self.ours.parse(taken))
        for notice in [one for one in found if isinstance(one, Notice)]:
            found += self.fetch(notice)
        self.messages += [one for one in found if isinstance(one, Message)]
        heard = self.ours.acknowledge(self.messages[-1:])
        return Response(heard.body, heard.status, content_type=heard.content_type)

    def fetch(self, notice: Notice) -> list[Any]:
        assert isinstance(self.ours, FetchingConnector)
        page = self.ours.fetch_messages(notice, self.cursor, notice.received_at)
        self.cursor = page.cursor
        return list(page.found)

    def say(self, text: str, file: File | None = None) -> Message:
        """Li writes; what arrived of it."""
        scene = Scene(
            inbox="inbox", settings=self.ours.settings, api=self.origin, origin=self.origin,
            records=self.records, kept=self.kept,
        )  # fmt: skip
        assert WAYS[self.name](scene, LI, Line(text, file=file)).ok
        return self.messages[-1]

    def kept(self, file: File) -> str:
        self.records.add_file("ME1", file.media_type, file.content)
        return "ME1"

    def phone(self) -> list[dict[str, Any]]:
        """What Li got."""
        return [
            line
            for line in self.records.lines()
            if (line["direction"], line["address"]) == ("in", LI.openid)
        ]


@contextmanager
def town(name: str) -> Iterator[Town]:
    here, app = Town(name), Flask("town")
    app.register_blueprint(PROVIDERS[name](here.records, lambda: here.ours.settings))
    app.add_url_rule("/webhooks/inbox", "take", here.take, methods=["GET", "POST"])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        here.start(f"http://127.0.0.1:{server.port}")
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        here.records.close()


@each_way
def test_what_a_customer_writes_comes_in_and_the_answer_shows_on_the_phone(name: str) -> None:
    with town(name) as here:
        message = here.say("货呢?")
        assert (message.text, message.address.split(":", 2)[2]) == ("货呢?", LI.openid)
        assert here.ours.send(answer_to(message, "明天到。"))
        assert [line["text"] for line in here.phone()] == ["明天到。"]


@each_way
def test_a_picture_comes_in_and_one_goes_out(name: str) -> None:
    with town(name) as here:
        message = here.say("", PICTURE)
        assert message.kind is Kind.IMAGE
        assert here.ours.fetch(message.attachments[0]) == PICTURE.content
        file = Attachment(name="a.png", media_type="image/png", content=b"\x89PNG ours")
        pieces = here.ours.pieces(answer_to(message, "See:", attachments=(file,)))
        for number, piece in enumerate(pieces):
            here.ours.send(piece.model_copy(update={"id": f"{piece.id}-{number}"}))
        text, picture = here.phone()
        assert text["text"] == "See:"
        assert picture["files"] == [{"name": "image", "media_type": "image/png"}]


@each_way
def test_a_wrong_secret_is_refused_as_the_provider_refuses_it(name: str) -> None:
    with town(name) as here:
        message = here.say("货呢?")
        key = "secret" if name.startswith("wecom") else "app_secret"
        own = {**SETTINGS[name], key: "another", "api_url": f"{here.origin}/providers/{name}"}
        tokens = StoredTokens(MemoryTable(), Clock(), lambda seconds: None)
        ours = connector(name, own, here.origin, tokens)
        with pytest.raises(RetryableError, match="does not accept"):
            ours.send(answer_to(message))


@each_way
def test_what_is_too_long_or_of_an_unknown_file_is_refused(name: str) -> None:
    with town(name) as here:
        message = here.say("货呢?")
        with pytest.raises(RejectedError, match="too long"):
            here.ours.send(answer_to(message, "一" * 700))
        with pytest.raises(RejectedError, match="no such file"):
            here.ours.fetch(Attachment(source="ME0"))
        assert here.phone() == []


def test_no_call_works_without_a_token() -> None:
    with town("wechat") as here:
        place = f"{here.origin}/providers/wechat/cgi-bin/message/custom/send"
        said = requests.post(place, json={"touser": LI.openid}, timeout=5).json()
        assert said["errcode"] == 40014


def test_customer_service_sends_nothing_twice_under_one_id() -> None:
    with town("wecom_kf") as here:
        message = answer_to(here.say("货呢?"), "明天到。")
        assert here.ours.send(message) == here.ours.send(message)
        assert len(here.phone()) == 1


def test_words_wait_at_wecom_until_they_are_fetched_and_each_is_fetched_once() -> None:
    with town("wecom_kf") as here:
        for text in ("一", "二", "三"):
            here.say(text)
        assert [message.text for message in here.messages] == ["一", "二", "三"]
        again = Notice(id="e1", inbox="inbox", source=KF_ACCOUNT, received_at=datetime.now(UTC))
        assert here.fetch(again) == []
        here.cursor = ""
        assert len(here.fetch(again)) == 3
        another = again.model_copy(update={"source": "wk-another"})
        assert here.fetch(another) == []
