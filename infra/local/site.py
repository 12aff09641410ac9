"""The page at `/`: the desk's tickets, the customers' phones, and what happens in between.

Also here, since they share its port: the desk's REST interface and the fake providers.
"""

import base64
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request, send_from_directory
from werkzeug.serving import BaseWSGIServer, make_server

from chalicelib.pipeline import Pipeline
from chalicelib.policy import language_of
from connectors.signing import values
from infra.local import providers, simulators
from infra.local.desk import Desk
from infra.local.events import Events
from infra.local.front import QuietHandler, serve
from infra.local.people import PEOPLE, Person
from infra.local.records import Records

File_ = simulators.File | None

_STATIC = Path(__file__).with_name("page")
#: No inline script, nothing from elsewhere but the app's own address: customers' words stand here.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' {api}",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self' {api}",
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
            ("/local/say", ["POST"], self._say),
            ("/local/agent", ["POST"], self._agent),
            ("/local/identity/<person>", ["GET"], self._identity),
            ("/local/events", ["GET"], self._follow),
        ):
            app.add_url_rule(rule, view.__name__, view, methods=methods)
        return app

    def _register_providers(self, app: Flask) -> None:
        def wechat() -> tuple[str, str]:
            settings = self._inbox("wechat")[1]
            return settings.app_id, settings.app_secret.get_secret_value()

        def twilio() -> tuple[str, str]:
            settings = self._inbox("sms_twilio")[1]
            return settings.account_sid, values(settings.auth_token)[0]

        app.register_blueprint(providers.wechat(self._records, wechat))
        app.register_blueprint(providers.twilio(self._records, twilio))

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
        response.headers["Content-Security-Policy"] = _POLICY.format(api=self._api)
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
            inboxes=self._names(),
            tickets=self._records.tickets(),
            lines=self._records.lines(),
        )  # fmt: skip

    def _waiting(self) -> Response:
        """How many messages are on their way."""
        store, somewhen = self._pipeline().store, datetime.now(UTC) + timedelta(days=1)
        return jsonify(messages=len(store.stuck(somewhen)))

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
        """{ticket, act: reply|note|close|reopen, text}"""
        asked = request.get_json()
        ticket, act, text = asked["ticket"], asked["act"], asked.get("text", "").strip()
        if act in ("reply", "note") and not text:
            return jsonify(error="there is no text"), 400
        acts = {
            "reply": lambda: self._desk.reply(ticket, text),
            "note": lambda: self._desk.note(ticket, text),
            "close": lambda: self._desk.set_state(ticket, "closed"),
            "reopen": lambda: self._desk.set_state(ticket, "open"),
        }
        if act not in acts or not acts[act]():
            return jsonify(error="no such ticket or act"), 404
        return jsonify(ok=True), 200

    # As a customer

    def _say(self) -> tuple[Response, int]:
        """{person, channel, text, subject?, file?: {name, media_type, content}}"""
        asked = request.get_json()
        person, channel = PEOPLE.get(asked.get("person")), asked.get("channel")
        ways = {
            "wechat": self._wechat,
            "email": self._email,
            "sms": self._sms,
            "webchat": self._chat,
        }
        if person is None or channel not in ways:
            return jsonify(error="no such person or channel"), 404
        file = _file(asked.get("file"))
        text = str(asked.get("text", ""))
        answer = ways[channel](person, text, str(asked.get("subject", "")), file)
        return jsonify(status=answer.status_code, answer=answer.text[:2000]), 200

    def _record(self, channel: str, address: str, text: str, file: File_, **more: str) -> None:
        files = [{"name": file.name, "media_type": file.media_type}] if file else []
        self._records.add_line(channel, address, "out", {"text": text, "files": files, **more})

    def _wechat(self, person: Person, text: str, _subject: str, file: File_) -> Any:
        inbox, settings = self._inbox("wechat")
        key = settings.encoding_aes_key
        held = {
            "app_id": settings.app_id,
            "token": settings.token.get_secret_value(),
            "aes_key": key.get_secret_value() if key else "",
        }
        fields = simulators.wechat_text(text)
        if file:
            media_id = self._kept(file)
            audio = file.media_type.startswith("audio/")
            fields = (
                simulators.wechat_voice(media_id, text)
                if audio
                else simulators.wechat_image(media_id)
            )
        self._record("wechat", person.openid, text, file)
        sent = simulators.wechat(held, person.openid, fields, inbox=inbox, mode=settings.mode)
        answer = simulators.post(sent, self._api)
        if answer.ok and (said := simulators.wechat_passive_text(held, answer.text)):
            self._records.add_line("wechat", person.openid, "in", {"text": said, "passive": True})
        return answer

    def _email(self, person: Person, text: str, subject: str, file: File_) -> Any:
        inbox, settings = self._inbox("email_mime")
        latest = [
            line
            for line in self._records.lines()
            if (line["channel"], line["address"], line["direction"])
            == ("email", person.email, "in")
        ]
        answers = subject.lower().startswith("re:") and latest
        chinese = language_of([text]) == "zh"
        subject = subject or ("咨询" if chinese else "A question")
        self._record("email", person.email, text, file, subject=subject, sender=person.key)
        sent = simulators.email(
            values(settings.signing_secret)[0],
            sender=person.email,
            name=person.name,
            to=settings.address,
            text=text,
            subject=subject,
            dmarc=person.dmarc,
            in_reply_to=latest[-1]["message_id"] if answers else "",
            file=file,
            inbox=inbox,
        )
        return simulators.post(sent, self._api)

    def _sms(self, person: Person, text: str, _subject: str, file: File_) -> Any:
        inbox, settings = self._inbox("sms_twilio")
        sid = settings.account_sid
        held = {
            "account_sid": sid,
            "token": values(settings.auth_token)[0],
            "number": settings.number,
            "public_url": self._api,
        }
        media: tuple[tuple[str, str], ...] = ()
        if file:
            place = f"{self.origin}/providers/twilio/2010-04-01/Accounts/{sid}/Messages/MM0/Media"
            media = ((f"{place}/{self._kept(file)}", file.media_type),)
        self._record("sms", person.phone, text, file)
        return simulators.post(
            simulators.sms(held, person.phone, text, media=media, inbox=inbox), self._api
        )

    def _chat(self, person: Person, text: str, _subject: str, file: File_) -> Any:
        """As the widget does, for those who write from a shell."""
        inbox, _ = self._inbox("webchat")
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
        return simulators.post(
            simulators.webchat_message(token, self.origin, text, file=file, inbox=inbox), self._api
        )

    def _kept(self, file: simulators.File) -> str:
        """The provider's id of an uploaded file."""
        media_id = f"ME{uuid.uuid4().hex}"
        self._records.add_file(media_id, file.media_type, file.content)
        return media_id

    # Following

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


def _file(given: Mapping[str, str] | None) -> File_:
    if not given:
        return None
    content = base64.b64decode(given["content"])
    return simulators.File(given.get("name", "file"), given["media_type"], content)
