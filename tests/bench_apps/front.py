"""HTTP for a Chalice app, one request at a time, as one Lambda environment takes them.

`python -ISB front.py FOLDER AGE` prints its port. An event is as the gateway makes it, but AGE
seconds old: what is too late for an answer in the response is only stored.
"""

import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

_BINARY = ("multipart/form-data", "message/rfc822", "application/octet-stream")


class Front(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, app: Any, context: Any, age_seconds: float) -> None:
        self._app, self._context, self._age = app, context, age_seconds
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        if len(body) < int(headers.get("Content-Length", 0)):
            return
        self._got = b""
        answer = self._app(self._event(first, headers, body), self._context)
        content = answer["body"].encode()
        status = f"HTTP/1.1 {answer['statusCode']} OK\r\nContent-Length: {len(content)}\r\n"
        told = "".join(f"{k}: {v}\r\n" for k, v in answer.get("headers", {}).items())
        self._transport.write((status + told + "\r\n").encode() + content)  # type: ignore[attr-defined]  # a stream's

    def _event(self, first: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        method, target, _ = first.split(" ")
        path, _, asked = target.partition("?")
        query = dict(parse_qsl(asked, keep_blank_values=True))
        _, area, inbox, *rest = path.split("/")
        resource = "/".join(["", area, "{inbox}", *rest])
        binary = headers.get("Content-Type", "").partition(";")[0] in _BINARY
        return {
            "resource": resource,
            "path": path,
            "httpMethod": method,
            "headers": headers,
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            "queryStringParameters": query or None,
            "multiValueQueryStringParameters": {n: [v] for n, v in query.items()} or None,
            "pathParameters": {"inbox": inbox},
            "stageVariables": None,
            "body": base64.b64encode(body).decode() if binary else body.decode(),
            "isBase64Encoded": binary,
            "requestContext": {
                "resourcePath": resource,
                "httpMethod": method,
                "identity": {"sourceIp": "192.0.2.1"},
                "requestId": "1",
                "requestTimeEpoch": int((time.time() - self._age) * 1000),
            },
        }


async def main() -> None:
    """Serve for ever; what the app logs goes nowhere."""
    folder, age = sys.argv[1:]
    sys.path[:0] = [folder, str(Path(__file__).parent)]
    from once import Context

    import app

    def connected() -> Front:
        return Front(app.app, Context(), float(age))

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", 0)
    sys.stdout.write(json.dumps(server.sockets[0].getsockname()[1]) + "\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
