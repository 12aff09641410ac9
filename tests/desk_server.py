"""A helpdesk's API on loopback for tests: it keeps what it is told, and misbehaves when asked to.

    with DeskServer(MyDesk()) as server:
        server.fail(Failure(429, {"Retry-After": "7"}), Failure(reset="after"))

`MyDesk.answer(request)` is the desk: any object with that method.
"""

import json
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Protocol, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Said:
    """One answer; `body` is JSON unless it is text or bytes."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.encode()


@dataclass(frozen=True)
class Failure:
    """How the next request goes wrong: an answer without effect, or one that is lost after it."""

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = "<html>Bad gateway</html>"
    #: Cut the connection before the desk acts, or after it.
    reset: Literal["", "before", "after"] = ""
    #: The desk acts, and this is said all the same.
    acts: bool = False


class Desk(Protocol):
    """What the server plays."""

    def answer(self, asked: Asked) -> Said:
        """Act, and say what came of it."""
        ...


class DeskServer:
    """Serves a desk until the block ends; `asked` is what came, failures included.

    What the desk raises, the block raises at its end: to the other side it is a cut line, which
    tests of cut lines would pass over.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.asked: list[Asked] = []
        self._failures: list[Failure | None] = []
        self._raised: list[Exception] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                outer._handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Nothing to the console."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, *failures: Failure | None) -> None:
        """The next requests go so; None goes well."""
        self._failures += failures

    def mend(self) -> None:
        """From now on all requests go well."""
        self._failures.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._raised and error is None:
            raise self._raised[0]

    def _answer(self, asked: Asked) -> Said:
        try:
            return self.desk.answer(asked)
        except Exception as error:
            self._raised.append(error)
            raise

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        asked = Asked(
            handler.command,
            parts.path,
            {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()},
            {k.lower(): v for k, v in handler.headers.items()},
            handler.rfile.read(int(handler.headers.get("Content-Length") or 0)),
        )
        with self._lock:  # one after the other, as their order is asserted
            self.asked.append(asked)
            failure = self._failures.pop(0) if self._failures else None
            acts = failure is None or failure.acts or failure.reset == "after"
            said = self._answer(asked) if acts else Said()
        if failure and failure.reset:
            _cut(handler)
            return
        if failure:
            said = Said(failure.status, failure.body, failure.headers)
        handler.send_response(said.status)
        for name, value in {"Content-Type": "application/json", **said.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(said.content)))
        handler.end_headers()
        handler.wfile.write(said.content)


def _cut(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection: the other side gets no answer at all."""
    handler.close_connection = True
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
