"""Calls to other people's servers: bounded, never redirected, and with one meaning of each answer.

Retries at two scales: here tenacity rides out a blip of seconds; the queue owns the minutes. An
error names the host and the status, never the address (tokens stand in queries), never a body.
"""

import json as jsonlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from chalicelib.errors import DeliveryError, RejectedError, RetryableError

CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
MAX_ANSWER_BYTES = 1024 * 1024
MAX_DOWNLOAD_BYTES = 10 * 1024 * 1024
MAX_DOWNLOAD_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "localhost")
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
#: The gateway lost the other side's answer: it may have acted.
_UNKNOWN = {502, 504}


def load() -> None:
    """Import what calls take: done by one thread before several call.

    Those that import parts of one package for the first time may wait for each other, and one of
    them then fails (_DeadlockError): as here, where the SDK and requests both begin with urllib3.
    """
    import requests  # noqa: F401
    import tenacity  # noqa: F401


@dataclass(frozen=True)
class Answer:
    """An answer, of `call` a 2xx one."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, a JSON object. RetryableError for anything else: some proxy spoke."""
        try:
            found = jsonlib.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise RetryableError("the answer is no JSON object", uncertain=True)
        return found


def call(  # noqa: PLR0913  # an HTTP request has that many parts
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    body: bytes | None = None,
    form: Mapping[str, str | list[str]] | None = None,
    repeatable: bool = False,
    explain: Callable[[bytes], str] | None = None,
) -> Answer:
    """One request. RetryableError or RejectedError, nothing else.

    `explain` puts into our words what the body of a refusal says; '' where it says nothing known.

    `repeatable` calls (reads, and those with an idempotency key) are tried three times at once;
    others only where nothing was sent.
    """
    own = dict(headers or {})
    if json is not None:
        body = jsonlib.dumps(json, ensure_ascii=False).encode("utf-8")
        own.setdefault("Content-Type", "application/json")
    host = urlsplit(url).hostname or "?"

    def once() -> Answer:
        answer = _once(method, url, own, body if form is None else form)
        if refusal := status_error(answer.status, answer.headers, host):
            words = explain(answer.body) if explain else ""
            refusal.args = (f"{words} ({refusal})" if words else str(refusal),)
            raise refusal
        return answer

    return _patiently(once, repeatable=repeatable)


def exchange(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    repeatable: bool = False,
) -> Answer:
    """One request, whatever its answer's status. RetryableError where there is none."""

    def once() -> Answer:
        answer = _once(method, url, headers, body)
        if repeatable and answer.status >= 500:
            judge_status(answer.status, answer.headers, urlsplit(url).hostname or "?")
        return answer

    return _patiently(once, repeatable=repeatable)


def _patiently(once: Callable[[], Answer], *, repeatable: bool) -> Answer:
    """Up to three times at once: what is repeatable, and what was never sent."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    def again(error: BaseException) -> bool:
        return (
            isinstance(error, RetryableError)
            and error.retry_after_seconds is None
            and (repeatable or isinstance(error, _NotSentError))
        )

    retrying = Retrying(
        retry=retry_if_exception(again),
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(multiplier=0.1, max=1),
        reraise=True,
    )
    answer: Answer = retrying(once)
    return answer


class _NotSentError(RetryableError):
    """The connection was never made."""


def _once(method: str, url: str, headers: Mapping[str, str], data: Any) -> Answer:
    import requests

    host = urlsplit(url).hostname or "?"
    try:
        with requests.request(
            method,
            url,
            headers=headers,
            data=data,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
            stream=True,
        ) as response:
            content = bounded(response.iter_content(65536), MAX_ANSWER_BYTES)
    except requests.exceptions.ConnectTimeout:
        raise _NotSentError(f"{host} does not answer") from None
    except requests.exceptions.ConnectionError as error:
        if "NewConnectionError" in repr(error):
            raise _NotSentError(f"{host} cannot be reached") from None
        raise RetryableError(f"{host} cut the connection", uncertain=True) from None
    except requests.exceptions.Timeout:
        raise RetryableError(f"{host} did not answer in time", uncertain=True) from None
    except requests.exceptions.RequestException as error:
        raise RetryableError(f"{host}: {type(error).__name__}", uncertain=True) from None
    return Answer(response.status_code, response.headers, content)


def bounded(chunks: Iterable[bytes], limit: int) -> bytes:
    """All chunks as one; RejectedError as soon as they are over the limit."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > limit:
            raise RejectedError(f"the answer is over {limit} bytes")
    return bytes(content)


def judge_status(status: int, headers: Mapping[str, str], host: str) -> None:
    """Return for 2xx; RetryableError for what may pass by itself; RejectedError for the rest."""
    if error := status_error(status, headers, host):
        raise error


def status_error(status: int, headers: Mapping[str, str], host: str) -> DeliveryError | None:
    """What `judge_status` raises; None for 2xx."""
    if 200 <= status < 300:
        return None
    if status in _AGAIN:
        return RetryableError(
            f"HTTP {status} from {host}",
            retry_after_seconds=retry_after_seconds(headers.get("Retry-After", "")),
            uncertain=status in _UNKNOWN,
        )
    return RejectedError(f"HTTP {status} from {host}")


def retry_after_seconds(value: str) -> float | None:
    """Retry-After in either form, as seconds from now; None if there is none that makes sense."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def download(
    url: str,
    *,
    hosts: Collection[str],
    redirect_hosts: Collection[str] = (),
    headers: Mapping[str, str] | None = None,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    max_seconds: float = MAX_DOWNLOAD_SECONDS,
) -> bytes:
    """The bytes behind an address that came in a payload, if its host is on the list.

    https only (loopback hosts excepted, for the local world), no user in the address, public
    addresses only, looked up once and connected to as looked up, at most one redirect, to one of
    `redirect_hosts` and without the credentials. RetryableError, RejectedError.
    """
    until = time.monotonic() + max_seconds
    demand_listed(url, hosts)
    content, location = _get(url, dict(headers or {}), max_bytes, until)
    if location:
        demand_listed(location, redirect_hosts)
        content, location = _get(location, {}, max_bytes, until)
    if location:
        raise RejectedError("the file is redirected more than once")
    return content


def _get(url: str, headers: dict[str, str], max_bytes: int, until: float) -> tuple[bytes, str]:
    """(bytes, '') or, of a redirect, (b'', its location)."""
    import requests

    from connectors import public_only

    seconds = max(until - time.monotonic(), 0.1)
    local = urlsplit(url).hostname in _LOOPBACK
    try:
        with (
            public_only.session(seconds, local=local) as session,
            session.get(
                url,
                headers=headers,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            if response.is_redirect:
                return b"", response.headers["Location"]
            judge_status(response.status_code, response.headers, urlsplit(url).hostname or "?")
            content = bounded(response.iter_content(65536), max_bytes)
    except requests.exceptions.RequestException as error:
        raise RetryableError(f"the file cannot be fetched: {type(error).__name__}") from None
    if time.monotonic() >= until:  # the line was cut, which may look like the file's end
        raise RetryableError("the file did not come in time")
    return content, ""


def demand_listed(url: str, hosts: Collection[str]) -> None:
    """RejectedError unless the address is plain https to exactly one of the hosts."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise RejectedError("the file's address is malformed") from None
    place = parts.hostname if port is None else f"{parts.hostname}:{port}"
    local = parts.hostname in _LOOPBACK and place in hosts
    odd = "@" in parts.netloc or any(c <= " " or c == "\\" for c in url)
    if odd or place not in hosts:
        raise RejectedError("the file lies on a host that is not the provider's")
    if parts.scheme != "https" and not (local and parts.scheme == "http"):
        raise RejectedError("the file's address is not https")
