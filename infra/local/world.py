"""The whole system in one process on loopback: `askonce dev`.

Embedded AWS, the app behind an HTTP front, pumps, fake providers, the sandbox desk and its page.
Everything it remembers lies in one folder; `world.json` in it tells other commands where it
listens.
"""

import contextlib
import fcntl
import io
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from chalicelib import direct, log
from chalicelib.errors import ConfigurationError
from chalicelib.settings import CONFIG_ENVIRONMENT, Document
from connectors.signing import values
from infra.local import front
from infra.local.aws import ENVIRONMENT as AWS_ENVIRONMENT
from infra.local.aws import EmbeddedAws
from infra.local.desk import Desk
from infra.local.events import FAIL_AT_ENVIRONMENT, Events, kill_at
from infra.local.localise import (
    SMTP_ENVIRONMENT,
    localised,
    missing_secrets,
    outside_addresses,
    with_desks_here,
)
from infra.local.people import know_customers
from infra.local.permissions import Guard
from infra.local.providers import MailServer
from infra.local.pumps import Pumps
from infra.local.records import Records
from infra.local.resources import key_arn
from infra.local.site import Site

DEFAULT_FOLDER = Path(".askonce")
DEFAULT_PORT = 8700
TABLE = "askonce-local"
TABLE_SECONDS = 5.0
_OWN_FILES = ("aws.jsonl", "outside.sqlite", "outside.sqlite-wal", "outside.sqlite-shm",
              "secrets.json", "askonce.toml", "world.json")  # fmt: skip


@dataclass(frozen=True)
class Address:
    """Where a running world listens, and the environment it runs in: what `world.json` holds."""

    page: str
    api: str
    environment: dict[str, str]

    @staticmethod
    def read(folder: Path) -> "Address":
        """ConfigurationError if no world runs there."""
        try:
            return Address(**json.loads((folder / "world.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigurationError(
                f"no world runs in {folder}: start one with `askonce dev`, or name its --folder"
            ) from None


#: Stands for the address of a Request Tracker that is started with the world.
RT_URL = "http://127.0.0.1/request_tracker"
RT_FOLDER = "request_tracker"
RT_TOKEN, RT_SECRET = "ASKONCE_LOCAL_RT_TOKEN", "ASKONCE_LOCAL_RT_SECRET"


class World:
    """One local world. `start`, then `stop`; a killed one is found again with `keep`."""

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        keep: bool,
        document: Document,
        helpdesk: str = "sandbox",
    ) -> None:
        self.folder = folder
        #: What else there is to say of it once it has started, a line each.
        self.more: list[str] = []
        self.events = Events()
        self._port = port
        self._keep = keep
        self._document = with_desks_here(document)
        if helpdesk == "request_tracker":
            self._document = with_request_tracker(self._document)
        self._parts: list[Any] = []
        self._lock: Any = None

    def start(self) -> Address:
        """Everything is up when this returns. ConfigurationError in words for whoever typed it."""
        self._take_folder()
        self._listen_to_log()
        # The embedded table shares a processor with all the rest; DynamoDB needs no such patience.
        direct.READ_SECONDS = TABLE_SECONDS
        held = self._secrets()
        records = Records(self.folder / "outside.sqlite")
        mail = MailServer(records)
        smtp = f"smtp://127.0.0.1:{mail.start()}"
        self._parts.append(mail)
        aws = EmbeddedAws(TABLE, self.folder / "aws.jsonl")
        aws.start()
        guard = Guard(TABLE, key_arn(TABLE), record=self.folder / "permissions.json")
        guard.start()
        self._parts += [aws, guard]
        environment = held | {
            SMTP_ENVIRONMENT: smtp,
            CONFIG_ENVIRONMENT: str((self.folder / "askonce.toml").resolve()),
            "ASKONCE_PREFIX": TABLE,
            "ASKONCE_BUCKET": aws.bucket,
            "AWS_ENDPOINT_URL": aws.url,
            **AWS_ENVIRONMENT,
        }
        os.environ.update(environment)
        address = self._start_servers(records, environment, aws.written)
        self._write_private("world.json", json.dumps(asdict(address), indent=1))
        return address

    def stop(self) -> None:
        """In the reverse order of starting."""
        for part in reversed(self._parts):
            part.stop()
        (self.folder / "world.json").unlink(missing_ok=True)
        if self._lock:
            self._lock.close()

    def _take_folder(self) -> None:
        """One world a folder; a fresh one unless it is to be kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"a world runs already in {self.folder}: stop it, or choose another --folder"
            ) from None
        for path in () if self._keep else _OWN_FILES:
            (self.folder / path).unlink(missing_ok=True)
        if not self._keep:
            shutil.rmtree(self.folder / RT_FOLDER, ignore_errors=True)

    def _listen_to_log(self) -> None:
        log.listeners[:] = [self.events]
        if wanted := os.environ.get(FAIL_AT_ENVIRONMENT):
            log.listeners.append(kill_at(wanted))

    def _secrets(self) -> dict[str, str]:
        """Those that the environment lacks, made once a folder."""
        path = self.folder / "secrets.json"
        held: dict[str, str] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        held |= missing_secrets(self._document, held)
        self._write_private("secrets.json", json.dumps(held, indent=1))
        return held

    def _write_private(self, name: str, content: str) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(content, encoding="utf-8")

    def _request_tracker(self, config: dict[str, Any], api: str) -> dict[str, str]:
        """Start the real desk, if there is one; its address goes to the configuration.

        Returns what the environment gets.
        """
        name = str(config["helpdesk"])
        if config["helpdesks"][name].get("url") != RT_URL:
            return {}
        from infra.local.request_tracker import RequestTracker

        server = RequestTracker(
            self.folder / RT_FOLDER,
            hook_url=f"{api}/replies/{name}",
            secret=os.environ[RT_SECRET],
        )
        server.start()
        self._parts.append(server)
        config["helpdesks"][name]["url"] = server.url
        password = server.tokens["alice/password"]
        self.more.append(f"  tickets    {server.url}/   log in as alice, password {password}")
        return {RT_TOKEN: server.tokens["askonce"]}

    def _start_servers(
        self, records: Records, environment: dict[str, str], written: threading.Event
    ) -> Address:
        """The app's front, the page, and last what drives them."""
        _demand_free(self._port)
        import app  # reads its prefix from the environment when it is imported

        front_server = _listening(front.start, app.app, self._port and self._port + 1)
        self._parts.append(_Closing(front_server))
        api = f"http://127.0.0.1:{front_server.port}"
        desk_name = next(
            (n for n, h in self._document.helpdesks.items() if h.get("connector") == "sandbox"), ""
        )

        def desk_secret() -> str:  # there once the configuration is written
            settings: Any = app.pipeline().deployment.helpdesk(desk_name).settings
            return values(settings.secret)[0]

        desk = Desk(records, f"{api}/replies/{desk_name}", desk_secret)
        site = Site(records, desk, self.events, app.pipeline, api)
        site_server = _listening(site.start, self._port)
        self._parts.append(_Closing(site_server))
        config = localised(self._document, api, outside_addresses(site.origin))
        environment |= self._request_tracker(config, api)
        os.environ.update(environment)
        self._write_private("askonce.toml", tomli_w.dumps(config))
        know_customers(app.pipeline().store, self._document)
        desk.start()
        pumps = Pumps(app.app, written)
        pumps.start()
        self._parts += [desk, pumps]
        return Address(page=site.origin, api=api, environment=environment)


def with_request_tracker(document: Document) -> Document:
    """With a Request Tracker of this machine's where tickets go."""
    told = {
        "connector": "request_tracker",
        "url": RT_URL,
        "token": f"env:{RT_TOKEN}",
        "secret": f"env:{RT_SECRET}",
    }
    desks = {**document.helpdesks, document.helpdesk: told}
    return document.model_copy(update={"helpdesks": desks})


def _demand_free(port: int) -> None:
    """ConfigurationError for the page's port before anything takes the one after it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _listening(lambda wanted: probe.bind(("127.0.0.1", wanted)), port)


def _listening(start: Callable[..., Any], *arguments: Any) -> Any:
    """A server, started. ConfigurationError when its port is taken."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return start(*arguments)
    except (OSError, SystemExit):  # werkzeug says so on stderr and exits by itself
        raise ConfigurationError(
            f"port {arguments[-1]} is in use: stop what listens there, or choose another --port"
        ) from None


class _Closing:
    """A werkzeug server as a part that can be stopped."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
