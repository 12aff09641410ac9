"""A network that breaks: a proxy on loopback that cuts connections before, during and after."""

import random
import socket
import socketserver
import threading
from types import TracebackType
from typing import Literal, Self

How = Literal["before", "during", "after"]
_HOWS: tuple[How, ...] = ("before", "during", "after")
_PATIENCE_SECONDS = 30.0


class Cutter:
    """Passes connections on to a port, and cuts as many as it is allowed to, at random."""

    def __init__(self, port: int, *, seed: int, chance: float = 0.5) -> None:
        self._target = port
        self._rng = random.Random(seed)
        self._chance, self._left = chance, 0
        self._lock = threading.Lock()
        #: How each connection went: how it was cut, or "".
        self.went: list[How | Literal[""]] = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._pass_on(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def allow(self, cuts: int) -> None:
        """Cut so many more."""
        with self._lock:
            self._left += cuts

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

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

    def _how(self) -> How | Literal[""]:
        with self._lock:
            cut = self._left > 0 and self._rng.random() < self._chance
            self._left -= cut
            how: How | Literal[""] = self._rng.choice(_HOWS) if cut else ""
            self.went.append(how)
        return how

    def _pass_on(self, client: socket.socket) -> None:
        """One request and its answer; both sides close after it."""
        how = self._how()
        if how == "before":
            return
        with socket.create_connection(("127.0.0.1", self._target), _PATIENCE_SECONDS) as server:
            request = _whole(client)
            if how == "during":
                server.sendall(request[: len(request) // 2])
                return
            server.sendall(_closing(request))
            answer = _until_closed(server)
            if how == "":
                client.sendall(answer)


def _whole(client: socket.socket) -> bytes:
    """A request, head and body."""
    client.settimeout(_PATIENCE_SECONDS)
    got = b""
    while b"\r\n\r\n" not in got:
        got += _more(client)
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ),
        0,
    )
    while len(body) < length:
        body += _more(client)
    return head + b"\r\n\r\n" + body


def _more(client: socket.socket) -> bytes:
    part = client.recv(65536)
    if not part:
        raise ConnectionError("the client left")
    return part


def _closing(request: bytes) -> bytes:
    """The request, asking the server to close afterwards."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body


def _until_closed(server: socket.socket) -> bytes:
    server.settimeout(_PATIENCE_SECONDS)
    got = b""
    while part := server.recv(65536):
        got += part
    return got
