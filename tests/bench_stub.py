"""A DynamoDB that says yes to everything, as fast as Python can: `python tests/bench_stub.py`.

Prints its port, then answers until it is ended. Nothing is stored: measured is whoever asks.
"""

import asyncio
import sys
import zlib

_BODIES = {"Query": b'{"Count":0,"Items":[],"ScannedCount":0}', "BatchGetItem": b'{"Responses":{}}'}


def _answer(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
        b"x-amzn-RequestId: STUB\r\nx-amz-crc32: %d\r\nContent-Length: %d\r\n\r\n%b"
        % (zlib.crc32(body), len(body), body)
    )


_EMPTY = _answer(b"{}")
_ANSWERS = {name.encode(): _answer(body) for name, body in _BODIES.items()}


class Stub(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        if len(body) < int(fields.get(b"content-length", 0)):
            return
        self._got = b""
        operation = fields.get(b"x-amz-target", b"").rpartition(b".")[2]
        known = (said for name, said in _ANSWERS.items() if name.lower() == operation)
        self._transport.write(next(known, _EMPTY))  # type: ignore[attr-defined]  # a stream's


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
