"""The page at `/`: the desk's tickets, the customers' phones, and what happens in between.

Also here, since they share its port: the desk's REST interface and the fake providers.
"""

import base64
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request, send_from_directory
from werkzeug.serving import BaseWSGIServer, make_server

from chalicelib.items import Step, Stored
from chalicelib.pipeline import Pipeline
from chalicelib.schema import Ticket, digest, message_id
from infra.local import elsewhere, providers, simulators
from infra.local.desk import Desk
from infra.local.events import Events
from infra.local.front import QuietHandler, serve
from infra.local.people import PEOPLE, Person
from infra.local.records import Records
from infra.local.ways import Line, Scene, ways

File_ = simulators.File | None

_STATIC = Path(__file__).with_name("page")
#: No inline script, nothing from elsewhere but the app's own address: customers' words stand here.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' {api}",
        "style-src 'self'",
        "img-src 'self' data: blob: {bucket}",
        "connect-src 'self' {api} {bucket}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class Site:
    """Flask, on the world's first port."""

    def __init__(  # the page shows all of the world
        self,
        records: Records,
        desk: Desk,
        events: Events,
        pipeline: Callable[[], Pipeline],
        api: str,
    ) -> None:
        self._records = records
        self._desk = desk
        self._events = events
        self._pipeline = pipeline
        self._api = api
        self._visitors: dict[str, str] = {}
        self.origin = ""

    def start(self, port: int) -> BaseWSGIServer:
        """Serve on a loopback port; 0 takes a free one."""
        server = make_server(
            "127.0.0.1", port, self._app(), threaded=True, request_handler=QuietHandler
        )
        self.origin = f"http://127.0.0.1:{server.port}"
        serve(server, "site")
        return server

    def _app(self) -> Flask:
        app = Flask("askonce", static_folder=None)
        app.json.ensure_ascii = False  # type: ignore[attr-defined]  # of Flask's default provider
        app.register_blueprint(self._desk.api())
        self._register_providers(app)
        app.after_request(self._protect)
        for rule, methods, view in (
            ("/", ["GET"], self._index),
            ("/page/<name>", ["GET"], self._static),
            ("/local/state", ["GET"], self._state),
            ("/local/waiting", ["GET"], self._waiting),
            ("/local/fates/<ticket>", ["GET"], self._fates),
            ("/local/say", ["POST"], self._say),
            ("/local/agent", ["POST"], self._agent),
            ("/local/identity/<person>", ["GET"], self._identity),
            ("/local/events", ["GET"], self._follow),
            ("/local/log", ["GET"], self._log),
        ):
            app.add_url_rule(rule, view.__name__, view, methods=methods)
        return app

    def _register_providers(self, app: Flask) -> None:
        for connector, make in providers.fakes().items():
            app.register_blueprint(make(self._records, partial(self._settings, connector)))

    def _settings(self, connector: str) -> Any:
        return self._inbox(connector)[1]

    def _names(self) -> dict[str, str]:
        """{connector: name of its first inbox}"""
        inboxes = self._pipeline().deployment.document.inboxes
        return {str(i["connector"]): name for name, i in reversed(inboxes.items())}

    def _inbox(self, connector: str) -> tuple[str, Any]:
        """Name and settings of a connector's first inbox."""
        name = self._names().get(connector)
        if name is None:
            abort(404, f"no inbox has the connector {connector}")
        return name, self._pipeline().deployment.inbox(name).settings

    def _protect(self, response: Response) -> Response:
        response.headers["Content-Security-Policy"] = _POLICY.format(
            api=self._api, bucket=os.environ["AWS_ENDPOINT_URL"]
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    def _index(self) -> Response:
        return self._page("index.html")

    def _page(self, name: str) -> Response:
        """A page, with the app's address in it."""
        page = (_STATIC / name).read_text(encoding="utf-8").replace("{{api}}", self._api)
        page = page.replace("{{webchat}}", self._names().get("webchat", "webchat"))
        return Response(page, content_type="text/html; charset=utf-8")

    def _static(self, name: str) -> Response:
        if name == "embedded.html":
            return self._page(name)
        return send_from_directory(_STATIC, name)

    def _state(self) -> Response:
        """Everything that the page shows."""
        return jsonify(
            people=[
                {"key": p.key, "name": p.name, "openid": p.openid, "email": p.email,
                 "phone": p.phone, "known": bool(p.customer), "dmarc": p.dmarc}
                for p in PEOPLE.values()
            ],
            inboxes=self._inboxes(),
            tickets=(shown := self._records.tickets() + elsewhere.tickets(self._pipeline())),
            visitors=self._visitors_of(shown),
            lines=self._records.lines(),
        )  # fmt: skip

    def _inboxes(self) -> list[dict[str, str]]:
        """Name, connector and channel of each, as configured."""
        deployment = self._pipeline().deployment
        return [
            {"name": name, "connector": kind.name, "channel": kind.channel.value}
            for name in deployment.document.inboxes
            if (kind := deployment.kind(name))
        ]

    def _visitors_of(self, tickets: list[dict[str, Any]]) -> dict[str, str]:
        """{how the log calls a visitor of the web chat: the visitor's address}"""
        said = (entry for ticket in tickets for entry in ticket["entries"])
        chat = [e for e in said if e.get("channel") == "webchat"]
        return {digest(e["inbox"], e["address"]): e["address"] for e in chat}

    def _fates(self, ticket: str) -> Response:
        """What became of each answer on a ticket, in words."""
        store, helpdesks = self._pipeline().store, self._pipeline().deployment.document.helpdesks
        desk = next((n for n, h in helpdesks.items() if h.get("connector") == "sandbox"), "")
        home = store.ticket_home(Ticket(helpdesk=desk, id=ticket))
        conversation_id = home.noun.conversation_id if home else ""
        entries: list[dict[str, Any]] = next(
            (t["entries"] for t in self._records.tickets() if t["id"] == ticket), []
        )
        found = {
            e["event"]: store.message(message_id(desk, conversation_id, e["event"]))
            for e in entries
            if e["kind"] == "reply"
        }
        return jsonify({event: _fate(held.noun) for event, held in found.items() if held})

    def _waiting(self) -> Response:
        """How many messages are on their way."""
        return jsonify(messages=len(self._pipeline().store.unfinished()))

    def _identity(self, person: str) -> Response:
        """What the shop's server signs for a customer who is logged in; nothing for others."""
        return jsonify(identity=self._signed_identity(PEOPLE[person]))

    def _signed_identity(self, person: Person) -> str | None:
        if not person.customer:
            return None
        _, settings = self._inbox("webchat")
        if settings.identity_secret is None:
            return None
        return simulators.identity(
            settings.identity_secret.get_secret_value(),
            person.customer,
            person.email,
            person.phone,
            person.name,
        )

    def _agent(self) -> tuple[Response, int]:
        """{ticket, act: reply|note|close|reopen|set_apart|typing|read, text}

        The text of `set_apart` is our id of the message.
        """
        asked = request.get_json()
        ticket, act, text = asked["ticket"], asked["act"], asked.get("text", "").strip()
        if act in ("reply", "note") and not text:
            return jsonify(error="there is no text"), 400
        acts = {
            "reply": lambda: self._desk.reply(ticket, text),
            "note": lambda: self._desk.note(ticket, text),
            "close": lambda: self._desk.set_state(ticket, "closed"),
            "reopen": lambda: self._desk.set_state(ticket, "open"),
            "set_apart": lambda: self._desk.set_apart(ticket, text),
            "typing": lambda: self._desk.signal(ticket, "typing"),
            "read": lambda: self._desk.signal(ticket, "read"),
        }
        if act not in acts or not acts[act]():
            return jsonify(error="no such ticket or act"), 404
        return jsonify(ok=True), 200

    # As a customer

    def _say(self) -> tuple[Response, int]:
        """{person, channel or inbox, text, subject?, file?: {name, media_type, content}}"""
        asked = request.get_json()
        person = PEOPLE.get(asked.get("person"))
        inbox = self._inbox_for(str(asked.get("inbox") or asked.get("channel")))
        if person is None or inbox is None:
            return jsonify(error="no such person, channel or inbox"), 404
        line = Line(
            str(asked.get("text", "")), str(asked.get("subject", "")), _file(asked.get("file"))
        )
        answer = self._write(inbox, person, line)
        return jsonify(status=answer.status_code, answer=answer.text[:2000]), 200

    def _inbox_for(self, wanted: str) -> str | None:
        """An inbox by its name, or the first one of a channel."""
        deployment = self._pipeline().deployment
        names = list(deployment.document.inboxes)
        of_channel = (n for n in names if (k := deployment.kind(n)) and k.channel == wanted)
        return wanted if wanted in names else next(of_channel, None)

    def _write(self, inbox: str, person: Person, line: Line) -> Any:
        deployment = self._pipeline().deployment
        connector = str(deployment.document.inboxes[inbox]["connector"])
        if connector == "webchat":
            return self._chat(inbox, person, line)
        scene = Scene(
            inbox=inbox,
            settings=deployment.inbox(inbox).settings,
            api=self._api,
            origin=self.origin,
            records=self._records,
            kept=self._kept,
        )
        return ways()[connector](scene, person, line)

    def _chat(self, inbox: str, person: Person, line: Line) -> Any:
        """As the widget does, for those who write from a shell."""
        session = simulators.post(
            simulators.webchat_session(
                self.origin,
                identity_=self._signed_identity(person),
                token=self._visitors.get(person.key),
                inbox=inbox,
            ),
            self._api,
        )
        if not session.ok:
            return session
        token = session.json()["token"]
        if not person.customer:
            self._visitors[person.key] = token
        upload = ""
        if line.file:
            asked = simulators.webchat_upload(token, self.origin, line.file, inbox=inbox)
            offer = simulators.post(asked, self._api)
            if not offer.ok:
                return offer
            simulators.webchat_form(offer.json(), line.file).raise_for_status()
            upload = offer.json()["upload"]
        said = simulators.webchat_message(
            token, self.origin, line.text, file=line.file, upload=upload, inbox=inbox
        )
        return simulators.post(said, self._api)

    def _kept(self, file: simulators.File) -> str:
        """The provider's id of an uploaded file."""
        media_id = f"ME{uuid.uuid4().hex}"
        self._records.add_file(media_id, file.media_type, file.content)
        return media_id

    # Following

    def _log(self) -> Response:
        """The latest lines of the log."""
        lines = {"lines": self._events.kept()}  # jsonify would sort each line
        return Response(json.dumps(lines), content_type="application/json")

    def _follow(self) -> Response:
        """Server-sent events: each line of the log as it is written."""
        after = int(request.headers.get("Last-Event-ID", request.args.get("after", "0")))

        def lines() -> Iterator[str]:
            for pair in self._events.follow(after, idle_seconds=10.0):
                if pair is None:
                    yield ": nothing happened\n\n"
                else:
                    yield f"id: {pair[0]}\ndata: {json.dumps(pair[1])}\n\n"

        return Response(lines(), content_type="text/event-stream")


def _fate(stored: Stored) -> str:
    """What became of an agent's answer."""
    if stored.step is Step.HELD:
        return "waits until the customer writes again"
    if stored.step is Step.FAILED:
        return f"not delivered: {stored.failure}"
    how = stored.delivery.value if stored.delivery else "on its way"
    return f"{how} by {stored.message.inbox}" if stored.delivery else how


def _file(given: Mapping[str, str] | None) -> File_:
    if not given:
        return None
    content = base64.b64decode(given["content"])
    return simulators.File(given.get("name", "file"), given["media_type"], content)
