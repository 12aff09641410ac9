"""examples/helpdesks between the `webhook` helpdesk and real servers: django-helpdesk and Roundup.

They run in an environment of their own, build/helpdesks, which ASKONCE_REAL_DESKS=1 makes.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from chalicelib.errors import ConfigurationError, GoneError, RetryableError
from chalicelib.ports import FromDesk, WebhookRequest
from chalicelib.schema import Priority, Reply, State, TicketChange
from connectors.helpdesks.webhook import WebhookDesk, WebhookDeskSettings
from tests import nouns

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "helpdesks"
SERVERS = ROOT / "build" / "helpdesks"
PYTHON, READY = SERVERS / "bin" / "python", SERVERS / ".ready"
INSTALL = "make build/helpdesks/.ready"
SECRET = "whsec_bWFkZSB1cCBmb3IgdGhlIHRlc3RzIG9mIGFkYXB0ZXJz"
PATH_SECRET = "made-up-path-secret"
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def servers() -> None:
    """The environment with the servers; made, by one worker, where it is asked for."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "helpdesks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if READY.exists():
            return
        if not os.environ.get("ASKONCE_REAL_DESKS"):
            pytest.skip(f"django-helpdesk and Roundup are not installed: {INSTALL}")
        subprocess.run(INSTALL.split(), check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], port: int, log: Path, **environment: str) -> Iterator[None]:
    """A server until the block ends."""
    own = os.environ | {"PYTHONUNBUFFERED": "1"} | environment
    with log.open("ab") as out:
        server = subprocess.Popen(command, env=own, stdout=out, stderr=out)
    try:
        eventually(lambda: answers(port) or server.poll() is not None, log)
        assert server.poll() is None, log.read_text()
        yield
    finally:
        server.terminate()
        server.wait(10)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(holds: Callable[[], Any], log: Path | None = None) -> Any:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never happened\n{log.read_text() if log else ''}")


@dataclass
class AskOnce:
    """What the adapter posts to, and what the connector makes of it."""

    port: int = 0
    desk: WebhookDesk | None = None
    heard: list[FromDesk] = field(default_factory=list)

    def take(self, headers: Any, body: bytes) -> None:
        assert self.desk
        request = WebhookRequest(
            method="POST",
            headers={name.lower(): (value,) for name, value in headers.items()},
            body=body,
            received_at=datetime.now(UTC),
        )
        self.desk.verify(request)
        self.heard += self.desk.parse(request)

    def replies(self) -> list[str]:
        return [item.text for item in self.heard if isinstance(item, Reply)]

    def states(self) -> list[str]:
        return [item.state for item in self.heard if isinstance(item, TicketChange)]


@contextmanager
def listening(askonce: AskOnce) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            askonce.take(self.headers, body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing to the console."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    askonce.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Set:
    """A desk, its adapter and AskOnce's end, all running."""

    askonce: AskOnce
    desk: WebhookDesk
    #: The desk's API as the agent calls it, and as the adapter does.
    agent: Callable[..., Any]
    own: Callable[..., Any]
    adapter: str
    folder: Path

    def open(self, name: str, again: bool = False) -> str:
        """A ticket for a conversation of that name."""
        message, conversation = story(name)
        return self.desk.open_ticket(
            message, conversation, idempotency_key=conversation.id, again=again
        )

    def add(self, name: str, ticket: str, text: str, key: str, **more: Any) -> None:
        message, conversation = story(name, text, **more)
        self.desk.add_comment(ticket, message, conversation, idempotency_key=key)


def story(name: str, text: str = "货到哪儿了? {{ ticket.title }}", **more: Any) -> Any:
    message = nouns.message(text, sender_name="李伟", external_id=f"{name}-{text}")
    conversation = nouns.conversation(text, id=name, reference=f"Q-{name.upper()}-3333", **more)
    return message, conversation


@contextmanager
def adapter(name: str, folder: Path, port: int, **environment: str) -> Iterator[Any]:
    """AskOnce's end and an adapter that listens at `port`."""
    askonce = AskOnce()
    settings = {"url": f"http://127.0.0.1:{port}/", "secret": SECRET}
    askonce.desk = WebhookDesk(WebhookDeskSettings.model_validate(settings), "desk")
    with ExitStack() as stack:
        stack.enter_context(listening(askonce))
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), str(port)]
        told = {
            "ASKONCE_URL": f"http://127.0.0.1:{askonce.port}/replies/desk",
            "ASKONCE_SECRET": SECRET,
            "DESK_PATH_SECRET": PATH_SECRET,
        } | environment
        stack.enter_context(running(command, port, folder / "adapter.log", **told))
        yield askonce


# django-helpdesk

DJANGO_SETTINGS = """
import pathlib
HERE = pathlib.Path(__file__).parent
SECRET_KEY, DEBUG, ALLOWED_HOSTS = "made up", False, ["127.0.0.1"]
INSTALLED_APPS = [f"django.contrib.{app}" for app in (
    "admin", "auth", "contenttypes", "humanize", "messages", "sessions", "sites", "staticfiles",
)] + ["rest_framework", "rest_framework.authtoken", "helpdesk"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
processors = [f"django.{name}" for name in (
    "contrib.auth.context_processors.auth",
    "contrib.messages.context_processors.messages",
    "template.context_processors.request",
)]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": processors},
}]
ROOT_URLCONF, SITE_ID, USE_TZ, TIME_ZONE = "desk_urls", 1, True, "UTC"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "db.sqlite3"}}
STATIC_URL, MEDIA_URL, MEDIA_ROOT = "/static/", "/media/", HERE / "media"
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
HELPDESK_ACTIVATE_API_ENDPOINT, HELPDESK_TEAMS_MODE_ENABLED = True, False
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"]
}
def HELPDESK_GET_FOLLOWUP_WEBHOOK_URLS():
    return [(HERE / "hook").read_text()]
"""
DJANGO_URLS = """
from django.urls import include, path
urlpatterns = [path("", include("helpdesk.urls", namespace="helpdesk"))]
"""
DJANGO_SEED = """
from django.contrib.auth import get_user_model
from helpdesk.models import CustomField, Queue
from rest_framework.authtoken.models import Token
Queue.objects.create(title="General", slug="general", allow_public_submission=True)
CustomField.objects.create(
    name="external_id", label="AskOnce", data_type="varchar", max_length=100, required=False)
for name in ("askonce", "alice"):
    user = get_user_model().objects.create_user(name, password="made up", is_staff=True)
    print(Token.objects.create(user=user).key, user.id)
"""


@pytest.fixture(scope="module")
def django(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Set]:
    folder, port, own_port = tmp_path_factory.mktemp("django"), free_port(), free_port()
    hook = f"http://127.0.0.1:{own_port}/desk/{PATH_SECRET}"
    for name, text in (("desk_settings.py", DJANGO_SETTINGS), ("desk_urls.py", DJANGO_URLS),
                       ("hook", hook)):  # fmt: skip
        (folder / name).write_text(text)
    environment = {"DJANGO_SETTINGS_MODULE": "desk_settings", "PYTHONPATH": str(folder)}
    admin = str(SERVERS / "bin" / "django-admin")

    def command(*words: str) -> str:
        done = subprocess.run(
            [admin, *words],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command("migrate", "-v0")
    told = command("shell", "-v0", "-c", DJANGO_SEED).split()
    tokens, user = told[0::2], told[1]

    def caller(token: str) -> Callable[..., Any]:
        def call(method: str, path: str, **body: Any) -> Any:
            url, login = f"http://127.0.0.1:{port}/api/{path}", {"Authorization": f"Token {token}"}
            answer = requests.request(method, url, headers=login, timeout=30, **body)
            return answer.json() if answer.ok else answer.status_code

        return call

    server = [admin, "runserver", "--noreload", f"127.0.0.1:{port}"]
    desk_at = {
        "DESK_URL": f"http://127.0.0.1:{port}",
        "DESK_TOKEN": tokens[0],
        "DESK_USER": user,
    }
    with (
        running(server, port, folder / "server.log", **environment),
        adapter("django_helpdesk_adapter", folder, own_port, **desk_at) as askonce,
    ):
        yield Set(askonce, askonce.desk, caller(tokens[1]), caller(tokens[0]), hook, folder)


def follow_up(django: Set, ticket: str, comment: str, *, public: bool = True, **more: Any) -> None:
    title = django.agent("GET", f"tickets/{ticket}/")["title"]
    body = {"ticket": ticket, "title": title, "comment": comment, "public": public}
    assert isinstance(django.agent("POST", "followups/", json=body | more), dict)


def test_django_a_question_opens_one_ticket_however_often_it_is_sent(django: Set) -> None:
    ticket = django.open("once")
    assert django.open("once", again=True) == ticket
    there = django.own("GET", f"tickets/{ticket}/")
    assert there["custom_external_id"] == "once"
    assert there["title"].endswith("(Q-ONCE-3333)")
    assert "李伟" in there["description"]
    assert "{ { ticket.title }}" in there["description"]  # not filled in
    listed = django.own("GET", "tickets/?page_size=100")["results"]
    assert [t["custom_external_id"] for t in listed].count("once") == 1


def test_django_what_was_stored_though_it_answered_500_is_added_once(django: Set) -> None:
    ticket = django.open("stored")
    hook = (django.folder / "hook").read_text()
    (django.folder / "hook").write_text(f"http://127.0.0.1:{free_port()}/nobody")
    django.add("stored", ticket, "Anyone?", "stored-m2")  # tries again at once
    (django.folder / "hook").write_text(hook)
    assert '"POST /api/followups/ HTTP/1.1" 500' in (django.folder / "server.log").read_text()
    there = django.own("GET", f"tickets/{ticket}/")["followup_set"]
    assert len([f for f in there if "Anyone?" in f["comment"]]) == 1


def test_django_only_what_agents_say_in_public_comes_back(django: Set) -> None:
    ticket = django.open("back")
    django.add("back", ticket, "Hello?", "back-m2")
    _, conversation = story("back")
    django.desk.add_note(ticket, "asked before", conversation, idempotency_key="back-note")
    follow_up(django, ticket, "The customer is difficult", public=False)
    follow_up(django, ticket, "明天到。", new_status=3)
    eventually(lambda: "closed" in django.askonce.states())
    mine = [item for item in django.askonce.heard if item.ticket_id == ticket]
    (reply,) = [item for item in mine if isinstance(item, Reply)]
    assert reply.text == "明天到。"
    assert [item.state for item in mine if isinstance(item, TicketChange)] == ["closed"]
    there = django.own("GET", f"tickets/{ticket}/")["followup_set"]
    assert [f["public"] for f in there if "asked before" in f["comment"]] == [False]


def test_django_a_repeat_opens_its_ticket_again_and_makes_it_urgent(django: Set) -> None:
    ticket = django.open("urgent")
    follow_up(django, ticket, "Done.", new_status=3)
    again = {"priority": Priority.HIGH, "state": State.OPEN}
    django.add("urgent", ticket, "Still nothing", "urgent-m2", **again)
    there = django.own("GET", f"tickets/{ticket}/")
    assert (there["status"], there["priority"]) == (2, 2)
    assert there["title"].endswith("(Q-URGENT-3333)")


def test_django_a_ticket_that_is_gone_is_said_to_be(django: Set) -> None:
    with pytest.raises(GoneError):
        django.add("gone", "99999", "Hello?", "gone-m2")


def test_an_adapter_takes_nothing_that_is_not_signed(django: Set) -> None:
    base = django.adapter.partition("/desk/")[0]
    other = {"url": f"{base}/", "secret": "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldA=="}
    stranger = WebhookDesk(WebhookDeskSettings.model_validate(other), "desk")
    message, conversation = story("forged")
    with pytest.raises(ConfigurationError):
        stranger.open_ticket(message, conversation, idempotency_key="forged")
    assert requests.post(f"{base}/desk/wrong", json={}, timeout=10).status_code == 401
    assert requests.post(f"{base}/", data=b"{}", timeout=10).status_code == 401


# Roundup

ROUNDUP_SERVER = """
import sys
from wsgiref.simple_server import make_server
from roundup.cgi.wsgi_handler import RequestDispatcher
make_server("127.0.0.1", int(sys.argv[1]), RequestDispatcher(sys.argv[2])).serve_forever()
"""


@pytest.fixture(scope="module")
def tracker_home(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracker with two users, to be copied; it takes a while to make."""
    home = tmp_path_factory.mktemp("roundup") / "home"

    def command(*words: str) -> None:
        done = subprocess.run(
            [str(SERVERS / "bin" / "roundup-admin"), "-i", str(home), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    set_up = "tracker_web=http://tracker.invalid/,mail_domain=local.test,mail_host=127.0.0.1,"
    set_up += "mail_debug=mail,web_api_calls_per_interval=987654,"
    set_up += "password_pbkdf2_default_rounds=1000"  # each call proves a password
    command("install", "classic", "sqlite", set_up)
    (home / "detectors" / "askonce.py").write_text((EXAMPLES / "roundup_detector.py").read_text())
    command("initialise", "made-up")
    for name in ("askonce", "alice"):
        address = f"address={name}@local.test"
        command("create", "user", f"username={name}", "password=made-up", address, "roles=User")
    return home


@contextmanager
def a_tracker(made: Path, folder: Path, calls_an_hour: int) -> Iterator[Set]:
    port, own_port = free_port(), free_port()
    home, hook = folder / "tracker", f"http://127.0.0.1:{own_port}/desk/{PATH_SECRET}"
    url = f"http://127.0.0.1:{port}"
    shutil.copytree(made, home)
    config = (home / "config.ini").read_text().replace("987654", str(calls_an_hour))
    (home / "config.ini").write_text(config.replace("http://tracker.invalid", url))
    with (home / "detectors" / "config.ini").open("a") as own:
        own.write(f"\n[askonce]\nurl = {hook}\nuser = askonce\n")

    def caller(name: str) -> Callable[..., Any]:
        def call(method: str, path: str, **body: Any) -> Any:
            headers = {"X-Requested-With": "rest", "Origin": url} | body.pop("headers", {})
            answer = requests.request(
                method, f"{url}/rest/data/{path}", headers=headers, auth=(name, "made-up"),
                timeout=30, **body,
            )  # fmt: skip
            assert answer.ok, answer.text
            return answer.json()["data"]

        return call

    server = [str(PYTHON), "-c", ROUNDUP_SERVER, str(port), str(home)]
    desk_at = {"DESK_URL": url, "DESK_USER": "askonce", "DESK_TOKEN": "made-up"}
    with (
        running(server, port, folder / "server.log"),
        adapter("roundup_adapter", folder, own_port, **desk_at) as askonce,
    ):
        yield Set(askonce, askonce.desk, caller("alice"), caller("askonce"), hook, folder)


@pytest.fixture(scope="module")
def roundup(tracker_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Set]:
    with a_tracker(tracker_home, tmp_path_factory.mktemp("roundup"), 0) as tracker:
        yield tracker


def say(roundup: Set, issue: str, text: str, **changes: Any) -> None:
    """An agent's message, with other changes of the issue."""
    message = roundup.agent("POST", "msg", json={"author": "alice", "content": text})["id"]
    there = roundup.agent("GET", f"issue/{issue}")
    listed = [each["id"] for each in there["attributes"]["messages"]]
    body = {"messages": [*listed, message]} | changes
    seen = {"If-Match": there["@etag"]}
    roundup.agent("PATCH", f"issue/{issue}", json=body, headers=seen)


def texts(roundup: Set, issue: str) -> list[str]:
    there = roundup.own("GET", f"issue/{issue}")["attributes"]["messages"]
    paths = [f"msg/{each['id']}/content" for each in there]
    return [roundup.own("GET", path)["data"] for path in paths]


def test_roundup_a_question_opens_one_issue_however_often_it_is_sent(roundup: Set) -> None:
    issue = roundup.open("once")
    assert roundup.open("once", again=True) == issue
    (text,) = texts(roundup, issue)
    assert text.startswith("李伟 (sms):\n货到哪儿了?")


def test_roundup_a_message_is_added_once_and_makes_the_issue_urgent(roundup: Set) -> None:
    issue = roundup.open("more")
    for _ in range(2):
        roundup.add("more", issue, "Still nothing", "more-m2", priority=Priority.HIGH)
    assert [t for t in texts(roundup, issue) if "Still nothing" in t] == [
        "李伟 (sms):\nStill nothing"
    ]
    there = roundup.own("GET", f"issue/{issue}?@verbose=2")["attributes"]
    assert there["priority"]["name"] == "urgent"


def test_roundup_what_agents_say_comes_back_unless_it_is_internal(roundup: Set) -> None:
    issue = roundup.open("back")
    _, conversation = story("back")
    roundup.desk.add_note(issue, "asked before", conversation, idempotency_key="back-note")
    say(roundup, issue, "Internal: the customer is difficult")
    say(roundup, issue, "明天到。", status="resolved")
    eventually(lambda: "closed" in roundup.askonce.states())
    eventually(lambda: "明天到。" in roundup.askonce.replies())
    mine = [item for item in roundup.askonce.heard if item.ticket_id == issue]
    (reply,) = [item for item in mine if isinstance(item, Reply)]
    assert (reply.text, reply.author) == ("明天到。", "alice")


def test_roundup_that_limits_us_is_asked_again_when_it_says(
    tracker_home: Path, tmp_path: Path
) -> None:
    with a_tracker(tracker_home, tmp_path, 2) as tracker:
        with pytest.raises(RetryableError) as caught:
            tracker.open("limited")
        assert (caught.value.retry_after_seconds or 0) > 60


def test_the_adapters_are_short_and_use_nothing_but_requests() -> None:
    allowed = sys.stdlib_module_names | {"requests", "adapter"}
    for path in EXAMPLES.glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) < 150
        used = [line.split()[1].partition(".")[0] for line in lines
                if line.startswith(("import ", "from "))]  # fmt: skip
        assert set(used) <= allowed
