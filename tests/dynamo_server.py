"""A DynamoDB of one table that knows gets and conditional puts, and has mishaps, on loopback."""

import json
import socketserver
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]
#: What goes wrong with one request: gets what it asks, and how to carry that out.
Mishap = Callable[["Request"], bytes]


@dataclass
class Request:
    """One request; `act` carries it out and gives its right answer."""

    headers: dict[str, str]
    body: bytes
    act: Callable[[], bytes]
    #: Waits until the client has left.
    wait: Callable[[], None]


@dataclass
class Dynamo:
    """What it holds, what it was asked, and what goes wrong with the next requests."""

    port: int = 0
    items: dict[str, Document] = field(default_factory=dict)
    mishaps: list[Mishap] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    #: One entry for every connection that was made.
    connections: list[int] = field(default_factory=list)
    #: Every answer is the last on its connection, and the client is not told.
    closing: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def act(self, operation: str, asked: Document) -> bytes:
        """A get, or a conditional put as chalicelib.aws words it."""
        if operation == "GetItem":
            there = self.items.get(asked["Key"]["sk"]["S"])
            return answer(200, {"Item": there} if there else {})
        item = asked["Item"]
        values = asked["ExpressionAttributeValues"]
        with self.lock:
            there = self.items.get(item["sk"]["S"])
            version = values.get(":version")
            if (there is None) if version else (there is not None):
                return failed(there)
            if there and version and there["v"] != version:
                return failed(there)
            self.items[item["sk"]["S"]] = item
        return answer(200, {})


def answer(status: int, document: Document) -> bytes:
    """What DynamoDB would send."""
    return raw(status, json.dumps(document).encode())


def failed(there: Document | None) -> bytes:
    kind = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"
    said: Document = {"__type": kind, "message": "The conditional request failed"}
    return answer(400, said | ({"Item": there} if there else {}))


def raw(status: int, body: bytes, *, checksum: int | None = None, request_id: str = "R1") -> bytes:
    """An answer with a checksum of its own."""
    named = f"x-amzn-RequestId: {request_id}\r\n" if request_id else ""
    checksum = zlib.crc32(body) if checksum is None else checksum
    return (
        f"HTTP/1.1 {status} Said\r\nContent-Type: application/x-amz-json-1.0\r\n{named}"
        f"x-amz-crc32: {checksum}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


@contextmanager
def dynamo() -> Iterator[Dynamo]:
    """One on a free port, while the block lasts."""
    state = Dynamo()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            state.connections.append(1)
            while request := self._read():
                state.asked.append(request)
                mishap = state.mishaps.pop(0) if state.mishaps else None
                said = mishap(request) if mishap else request.act()
                self.wfile.write(said)
                if mishap or state.closing:
                    return

        def _read(self) -> Request | None:
            if not self.rfile.readline():
                return None
            headers = {}
            while line := self.rfile.readline().decode("latin-1").strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = self.rfile.read(int(headers["content-length"]))
            operation = headers["x-amz-target"].rpartition(".")[2]
            return Request(
                headers, body, lambda: state.act(operation, json.loads(body)), self._wait
            )

        def _wait(self) -> None:
            self.rfile.read()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        server.shutdown()
        thread.join()
