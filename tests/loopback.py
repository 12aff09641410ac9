"""A mail server and other people's mishaps, for tests of what leaves AskOnce."""

import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

#: What may pass by itself, and what will not.
AGAIN = (408, 425, 429, 500, 502, 503, 504)
NEVER = (400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 451)
#: 2xx answers in which nothing can be read.
UNREADABLE = (b"", b"null", b"[]", b'"sent"', b"<html>busy</html>", b"\xff\xfe", b"[" * 100_000)


def request_errors() -> list[requests.RequestException]:
    """One of every exception that requests has."""
    return [_made(kind) for kind in _kinds(requests.RequestException)]


def _kinds(
    kind: type[requests.RequestException],
) -> Iterator[type[requests.RequestException]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == "requests.exceptions":
            yield from _kinds(below)


def _made(kind: type[requests.RequestException]) -> requests.RequestException:
    if issubclass(kind, requests.exceptions.JSONDecodeError):
        return kind("broken", "", 0)
    return kind("broken")


@dataclass
class Mailbox:
    """A mail server that notes what it gets, and answers as `says` tells it."""

    #: {command: answer}: MAIL, RCPT, DATA (after the text), QUIT ...; `drop` cuts the line.
    says: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    commands: list[str] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def argument(self, command: str) -> str:
        """What stands in angle brackets in the one command of that name."""
        (line,) = [line for line in self.commands if line.upper().startswith(command)]
        return line.partition("<")[2].partition(">")[0]


@contextmanager
def mailbox(**says: str) -> Iterator[Mailbox]:
    """A mail server on a free port of this machine, while the block lasts."""
    box = Mailbox(says)

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            _serve(self, box)

    with socketserver.TCPServer(("127.0.0.1", 0), Session) as server:
        box.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join()


def _serve(session: socketserver.StreamRequestHandler, box: Mailbox) -> None:
    usual = {"GREETING": "220 loopback", "EHLO": "250 loopback", "QUIT": "221 bye"}
    command = "GREETING"
    while True:
        answer = box.says.get(command, usual.get(command, "250 OK"))
        if answer == "drop":
            return
        session.wfile.write(answer.encode() + b"\r\n")
        line = session.rfile.readline().decode("ascii", "replace")
        if not line or command == "QUIT":
            return
        box.commands.append(line.strip())
        command = line[:4].upper()
        if command == "DATA":
            session.wfile.write(b"354 go on\r\n")
            box.mails.append(_text(session))


def _text(session: socketserver.StreamRequestHandler) -> bytes:
    lines = []
    while (line := session.rfile.readline()) not in (b".\r\n", b""):
        lines.append(line.removeprefix(b"."))
    return b"".join(lines)


@contextmanager
def silent() -> Iterator[str]:
    """The address of who takes connections and never says a word, while the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}"
