"""A real Request Tracker 5 on loopback, of Debian's packages: what tests and the demo work with.

    with RequestTracker(folder, hook_url="http://127.0.0.1:8700/replies/rt", secret=SECRET) as rt:
        rt.url, rt.tokens["askonce"], rt.tokens["alice"]

Everything lies in the folder: configuration, database, log, the server's process id. A database
that is ready to use is kept aside, so that only the first start makes one (about ten seconds).
Mail is never sent.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from chalicelib.errors import ConfigurationError

_PACKAGES = "request-tracker5 rt5-standalone rt5-db-sqlite msmtp-mta"
INSTALL = f"apt-get install --no-install-recommends {_PACKAGES}"
_DATABASE = Path("/usr/sbin/rt-setup-database-5")
_SERVER = Path("/usr/share/request-tracker5/libexec/standalone_httpd")
_SEED = Path(__file__).with_name("request_tracker_seed.pl")
_SCRIP = Path(__file__).with_name("request_tracker_scrip.pl")
_LONGEST_START_SECONDS, _LONGEST_STOP_SECONDS = 60.0, 10.0
#: Tokens are hashed at each call: cheaply, as nobody else can reach these.
_CONFIGURATION = """\
Set($rtname, 'rt.example');
Set($Organization, 'rt.example');
Set($CorrespondAddress, 'rt@rt.example');
Set($CommentAddress, 'rt-comment@rt.example');
Set($WebDomain, '127.0.0.1');
Set($WebPort, {port});
Set($WebPath, '');
Set($WebBaseURL, 'http://127.0.0.1:{port}');
Set($Timezone, 'UTC');
Set($DatabaseType, 'SQLite');
Set($DatabaseName, '{folder}/rt.sqlite');
Set($MasonDataDir, '{folder}/mason');
Set($MasonSessionDir, '{folder}/sessions');
Set($WebSessionClass, 'Apache::Session::File');
Set($LogToSyslog, undef);
Set($LogToFile, undef);
Set($LogToSTDERR, 'warning');
Set($MailCommand, 'testfile');
Set($BcryptCost, 4);
Set($AskOnceURL, '{hook_url}');
Set($AskOnceSecret, '{secret}');
Set($AskOnceUser, 'askonce');
1;
"""


def missing() -> str:
    """What to do so that it can be started; '' when nothing is missing."""
    if all(path.exists() for path in (_DATABASE, _SERVER)) and shutil.which("perl"):
        return ""
    return f"Request Tracker is not installed; on Debian 12 as root: {INSTALL}"


class RequestTracker:
    """One server with a queue `General` and two users, `askonce` and the agent `alice`."""

    def __init__(
        self,
        folder: Path,
        *,
        hook_url: str = "",
        secret: str = "",
        port: int = 0,
        kept: Path | None = None,
    ) -> None:
        """`kept` is where the ready database lies; without a `hook_url` it tells nobody."""
        self.folder, self.port = folder.resolve(), port
        self.tokens: dict[str, str] = {}
        self._hook_url, self._secret = hook_url, secret
        self._server: subprocess.Popen[bytes] | None = None
        self._kept = kept or _cache() / f"request_tracker-{_version()}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """It answers when this returns. ConfigurationError in words for whoever typed it."""
        if how := missing():
            raise ConfigurationError(how)
        if any(mark in f"{self.folder}{self._hook_url}{self._secret}" for mark in "'\\\n"):
            raise ConfigurationError("a folder, address or secret has a quote in it")
        self.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or _free_port()
        self._configure()
        if not (self.folder / "rt.sqlite").exists():
            self._take_database()
        self._read()
        self._serve()

    def reply(self, ticket: str, text: str) -> None:
        """Answer a ticket as the agent alice, in the server of this folder."""
        self._read()
        requests.post(
            f"{self.url}/REST/2.0/ticket/{ticket}/correspond",
            json={"Content": text, "ContentType": "text/plain"},
            headers={"Authorization": f"token {self.tokens['alice']}"},
            timeout=30,
        ).raise_for_status()

    def _read(self) -> None:
        """Port and tokens of the server of this folder."""
        found = re.search(r"WebPort, (\d+)", (self.folder / "RT_SiteConfig.pm").read_text("utf-8"))
        self.port = int(found[1]) if found else self.port
        lines = (self.folder / "tokens").read_text(encoding="utf-8").splitlines()
        self.tokens = dict(line.split(" ", 1) for line in lines)

    def stop(self) -> None:
        """End the server of this folder, whoever started it; nothing if there is none."""
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid = int((self.folder / "server.pid").read_text(encoding="ascii"))
            if _is_ours(pid, self.folder):
                os.kill(pid, signal.SIGTERM)
                _await_end(pid, self.folder)
        if self._server:  # ours to clear away
            self._server.wait(_LONGEST_STOP_SECONDS)
            self._server = None
        (self.folder / "server.pid").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _configure(self) -> None:
        for name in ("mason", "sessions", "conf.d"):
            (self.folder / name).mkdir(exist_ok=True)
        told = {"folder": self.folder, "port": self.port}
        told |= {"hook_url": self._hook_url, "secret": self._secret}
        _write_private(self.folder / "RT_SiteConfig.pm", _CONFIGURATION.format(**told))

    @property
    def _environment(self) -> dict[str, str]:
        own = {
            "RT_SITE_CONFIG": str(self.folder / "RT_SiteConfig.pm"),
            "RT_SITE_CONFIG_DIR": str(self.folder / "conf.d"),
        }
        return os.environ | own

    # The database

    def _take_database(self) -> None:
        """A copy of the one kept aside, which is made first where there is none."""
        if not self._kept.exists():
            self._make_database()
        for name in ("tokens", "rt.sqlite"):
            shutil.copy(self._kept / name, self.folder / name)

    def _make_database(self) -> None:
        """Whole or not at all, as another process may do the same at once."""
        own_address = "--dba", "root", "--dba-password", ""
        self._run(str(_DATABASE), "--action", "init", "--skip-create", *own_address)
        self._run("perl", str(_SEED), str(_SCRIP), str(self.folder / "tokens"))
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=self._kept.parent))
        for name in ("tokens", "rt.sqlite"):
            shutil.move(self.folder / name, made / name)
        try:
            made.rename(self._kept)
        except OSError:  # the other one was quicker
            shutil.rmtree(made)

    def _run(self, *command: str) -> None:
        log = self.folder / "setup.log"
        with log.open("ab") as out:
            done = subprocess.run(  # noqa: S603  # our own words
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            (self.folder / "rt.sqlite").unlink(missing_ok=True)
            raise ConfigurationError(f"{Path(command[0]).name} failed: see {log}")

    # The server

    def _serve(self) -> None:
        place = ("--host", "127.0.0.1", "--port", str(self.port))
        with (self.folder / "server.log").open("ab") as out:
            self._server = subprocess.Popen(  # noqa: S603  # our own words
                [str(_SERVER), "--server", "Standalone", *place],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self.folder / "server.pid").write_text(str(self._server.pid), encoding="ascii")
        until = time.monotonic() + _LONGEST_START_SECONDS
        while not _answers(self.url):
            if self._server.poll() is not None or time.monotonic() > until:
                self.stop()
                raise ConfigurationError(
                    f"Request Tracker does not start: see {self.folder / 'server.log'}"
                )
            time.sleep(0.1)


def _version() -> str:
    """Another one whenever the kept database would be another one."""
    found = hashlib.sha256(_SEED.read_bytes() + _SCRIP.read_bytes() + _CONFIGURATION.encode())
    if _DATABASE.exists():
        found.update(_DATABASE.read_bytes())
    return found.hexdigest()[:16]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "askonce"


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    """Any answer will do: without a token it is 401."""
    try:
        requests.get(f"{url}/REST/2.0/rt", timeout=10)
    except requests.RequestException:
        return False
    return True


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether that process serves this folder: numbers are given out again."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"RT_SITE_CONFIG={folder / 'RT_SiteConfig.pm'}".encode() in environment.split(b"\0")


def _await_end(pid: int, folder: Path) -> None:
    until = time.monotonic() + _LONGEST_STOP_SECONDS
    while _is_ours(pid, folder) and time.monotonic() < until:
        time.sleep(0.05)
    if _is_ours(pid, folder):
        os.kill(pid, signal.SIGKILL)
