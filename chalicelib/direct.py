"""DynamoDB without the SDK: the calls between a webhook and its acknowledgement.

The SDK's import and its client cost most of a cold start, and most of a warm acknowledgement
(docs/performance.md); one signed POST over a connection that stays open does not. What it cannot
settle is left to the SDK: a write that took effect although its answer got lost is told by its
writer's token (`aws.DynamoTable`), so that nothing is lost by asking twice.

Requests:  https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html
Signature: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import json
import os
import random
import re
import threading
import time
import zlib
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from email.message import Message

CONNECT_SECONDS, READ_SECONDS = 0.5, 1.0
#: Set, these change where the SDK calls, or how: it alone follows them.
_UNUSUAL = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_USE_FIPS_ENDPOINT",
            "AWS_USE_DUALSTACK_ENDPOINT", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
            "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
            "http_proxy", "https_proxy", "all_proxy")  # fmt: skip
_UNUSUAL_OVER_TLS = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_SUFFIXES = {"cn": "amazonaws.com.cn"} | dict.fromkeys(
    ("af", "ap", "ca", "eu", "il", "me", "mx", "sa", "us"), "amazonaws.com"
)
#: What a write says whose condition was not met.
CONDITIONS = ("ConditionalCheckFailedException", "TransactionCanceledException")
_BUSY = (b"Throttling", b"ThroughputExceeded", b"LimitExceeded", b"TransactionInProgress")
_PLAIN_URL = re.compile(r"https?://[\w.:-]+")
_REGION = re.compile(r"([a-z]{2})(-gov)?-[a-z]+-\d")

Answer = tuple[int, "Message", bytes]


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Signs requests to `/` without a query, by Signature Version 4."""

    key_id: str
    secret: str = field(repr=False)
    region: str
    service: str = "dynamodb"

    def authorization(self, method: str, headers: Mapping[str, str], body: bytes) -> str:
        """The header that proves all these headers (lower-case, x-amz-date among them) and body."""
        at, names = headers["x-amz-date"], sorted(headers)
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        canonical = f"{method}\n/\n\n{lines}\n{';'.join(names)}\n{_hash(body)}"
        scope = f"{at[:8]}/{self.region}/{self.service}/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{_hash(canonical.encode())}"
        key = derived_key(self.secret, at[:8], self.region, self.service)
        return (
            f"AWS4-HMAC-SHA256 Credential={self.key_id}/{scope}, "
            f"SignedHeaders={';'.join(names)}, "
            f"Signature={hmac.digest(key, to_sign.encode(), 'sha256').hex()}"
        )


def _base64(binary: bytes) -> str:
    return b2a_base64(binary, newline=False).decode()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=2)
def derived_key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key that signs for a day."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class Direct:
    """Calls, over connections that stay open: one for each thread that calls at a time."""

    def __init__(self, url: str, signer: Signer, token: str = "") -> None:
        self.url = url
        #: Waits for that many seconds.
        self.pause: Callable[[float], None] = time.sleep
        self._signer = signer
        self._open: deque[HTTPConnection] = deque()
        self._context: Any = None
        self._making = threading.Lock()
        self._headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": urlsplit(url).netloc,
        } | ({"x-amz-security-token": token} if token else {})

    def __call__(self, operation: str, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What DynamoDB says, `__type` in it if a condition failed; None if that is unsettled.

        Takes as long as one try of the SDK and the pause behind it, at most.
        """
        body = json.dumps(request, default=_base64).encode()
        headers = self._headers | {
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "x-amz-target": f"DynamoDB_20120810.{operation}",
        }
        headers["authorization"] = self._signer.authorization("POST", headers, body)
        answer = self._ask(headers, body)
        if answer is None:
            return None
        settled = _settled(*answer)
        if settled is None and _is_busy(*answer):
            self.pause(random.random())  # noqa: S311  # as the SDK would
        return settled

    def close(self) -> None:
        """Close what is open; the next put opens anew."""
        while self._open:
            self._open.pop().close()

    def _ask(self, headers: dict[str, str], body: bytes) -> Answer | None:
        until = time.monotonic() + CONNECT_SECONDS + READ_SECONDS
        for connection in self._connections():
            try:
                answer = _exchange(connection, headers, body, until)
            except TimeoutError:
                connection.close()
                return None
            except (OSError, HTTPException, ValueError):
                connection.close()
                continue
            self._open.append(connection)
            return answer
        return None

    def _connections(self) -> Iterator[HTTPConnection]:
        """An open one, which the other side may have left while Lambda slept; then a new one."""
        with suppress(IndexError):
            yield self._open.pop()
        scheme, host = urlsplit(self.url)[:2]
        if scheme == "https":
            yield HTTPSConnection(host, context=self._tls)
        else:
            yield HTTPConnection(host)

    @property
    def _tls(self) -> Any:
        """Made once: it takes longer than a call, and several threads may want it first."""
        import ssl

        with self._making:
            self._context = self._context or ssl.create_default_context()
        return self._context


def _exchange(
    connection: HTTPConnection, headers: dict[str, str], body: bytes, until: float
) -> Answer:
    """One request and its answer. OSError, HTTPException; ValueError for a broken length."""
    if connection.sock is None:
        connection.timeout = _left(until, CONNECT_SECONDS)
        connection.connect()
    connection.sock.settimeout(_left(until, READ_SECONDS))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST / HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n"
    connection.send(head.encode("latin-1") + body)  # in one packet: `request` would make it two
    with closing(HTTPResponse(connection.sock, method="POST")) as response:
        response.begin()
        said = response.read()
    if response.will_close:
        connection.close()
    return response.status, response.headers, said


def _left(until: float, most: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, most)


def _settled(status: int, headers: "Message", body: bytes) -> Mapping[str, Any] | None:
    """An answer that is whole, and says what became of the call; None for any other one."""
    checksum = headers.get("x-amz-crc32", "")
    if not headers.get("x-amzn-requestid") or checksum not in ("", str(zlib.crc32(body))):
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    failed = str(said.get("__type", "")).rpartition("#")[2] in CONDITIONS
    return said if status == 200 or (status == 400 and failed) else None


def _is_busy(status: int, headers: "Message", body: bytes) -> bool:
    return status >= 500 or any(word in body for word in _BUSY)


def from_environment(environment: Mapping[str, str] = os.environ) -> Direct | None:
    """Direct calls as this environment wants it; None where only the SDK knows what is wanted.

    That is: in Lambda, or where an endpoint is named, and with nothing unusual set.
    """
    given = environment.get
    region = given("AWS_DEFAULT_REGION") or given("AWS_REGION") or ""
    url = given("AWS_ENDPOINT_URL_DYNAMODB") or given("AWS_ENDPOINT_URL")
    if not url and given("AWS_LAMBDA_FUNCTION_NAME"):
        url = _public_endpoint(region)
    key_id, secret = given("AWS_ACCESS_KEY_ID"), given("AWS_SECRET_ACCESS_KEY")
    if not (url and key_id and secret and region):
        return None
    unusual = (*_UNUSUAL, *(_UNUSUAL_OVER_TLS if url.startswith("https:") else ()))
    if any(given(name) for name in unusual) or not _PLAIN_URL.fullmatch(url):
        return None
    signer = Signer(key_id=key_id, secret=secret, region=region)
    return Direct(url, signer, given("AWS_SESSION_TOKEN") or "")


def _public_endpoint(region: str) -> str | None:
    """https://docs.aws.amazon.com/general/latest/gr/ddb.html; None for a region of another kind."""
    found = _REGION.fullmatch(region)
    suffix = _SUFFIXES.get(found[1]) if found else None
    return f"https://dynamodb.{region}.{suffix}" if suffix else None
