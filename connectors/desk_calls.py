"""Calls to a helpdesk's API: what its answers mean for us, its own words kept, its pace noted.

429 in every dialect: Retry-After in both forms, and the names of the headers that count down,
whose end is a time for some desks and seconds for others.
"""

import json as jsonlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from chalicelib.errors import (
    AskOnceError,
    ConfigurationError,
    GoneError,
    RejectedError,
    RetryableError,
)
from chalicelib.ports import Helpdesk, Pace
from chalicelib.schema import Attachment
from connectors import http

_REMAINING = ("ratelimit-remaining", "x-ratelimit-remaining", "x-rate-limit-remaining")
_RESET = ("ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset", "x-ratelimit-retry-after")
#: How long a minute is left at most, where a desk says how many calls but not until when.
_MINUTE = 60.0
_EPOCH = 1_000_000_000
_MOST_WORDS = 300


class DeskCalls:
    """A desk's API under one address, with one kind of credentials."""

    def __init__(
        self,
        desk: Helpdesk,
        url: str,
        headers: Callable[[], Mapping[str, str]],
        *,
        explain: Callable[[Any], str] | None = None,
        passing: Callable[[int, Any], float | None] | None = None,
    ) -> None:
        """`explain` finds a refusal's words in its JSON; `passing` says of a status that means
        "never" elsewhere in how many seconds it may be another one for the same ticket here."""
        self._desk, self._url, self._headers = desk, url.rstrip("/"), headers
        self._explain, self._passing = explain or _words, passing or (lambda _status, _body: None)

    def get(self, path: str, **query: str | int) -> Any:
        """What is there, as JSON."""
        return self.call("GET", path, query=query, repeatable=True)

    def find(self, path: str, **query: str | int) -> Any:
        """The same; None if nothing is there."""
        try:
            return self.get(path, **query)
        except GoneError:
            return None

    def call(  # an HTTP request has that many parts
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        multipart: tuple[bytes, str] | None = None,
        repeatable: bool = False,
    ) -> Any:
        """One request; its answer's JSON, or None for one without a body.

        RetryableError, ConfigurationError, GoneError, RejectedError. `repeatable` as `http.call`.
        """
        url = f"{self._url}{path}" + (f"?{urlencode(query)}" if query else "")
        own = {"Accept": "application/json", **self._headers(), **(headers or {})}
        body = None
        if json is not None:
            body = jsonlib.dumps(json, ensure_ascii=False).encode("utf-8")
            own["Content-Type"] = "application/json"
        elif multipart:
            body, own["Content-Type"] = multipart
        self._desk.calls += 1
        answer = http.exchange(method, url, headers=own, body=body, repeatable=repeatable)
        self._desk.pace = pace_of(answer.headers, datetime.now(UTC)) or self._desk.pace
        if error := self._error(answer, urlsplit(url).hostname or "?"):
            raise error
        return _json(answer.body) if answer.body.strip() else None

    def _error(self, answer: http.Answer, host: str) -> AskOnceError | None:
        status, found = answer.status, _json(answer.body)
        again = self._passing(status, found)
        if again is not None:
            said = f"HTTP {status} from {host}"
            return RetryableError(said, retry_after_seconds=again, of_one=True)
        error = http.status_error(status, answer.headers, host)
        if isinstance(error, RetryableError):
            if error.retry_after_seconds is None and status == 429 and self._desk.pace:
                error.retry_after_seconds = self._desk.pace.resets_in_seconds
            return error
        words = self._explain(found)[:_MOST_WORDS] if error else ""
        said = f"HTTP {status} from {host}" + (f": {words}" if words else "")
        if status in (401, 403):
            name = self._desk.configured_name
            return ConfigurationError(f'helpdesk "{name}" refuses our credentials: {said}')
        if status in (404, 410):
            return GoneError(said)
        return RejectedError(said) if error else None


def multipart(
    fields: Mapping[str, str], files: Iterable[tuple[str, Attachment]]
) -> tuple[bytes, str]:
    """(body, content type) of a form with files, each under its field's name."""
    from urllib3 import encode_multipart_formdata

    parts: list[Any] = list(fields.items())
    parts += [
        (field, (name_of(file, number), file.content or b"", file.media_type))
        for number, (field, file) in enumerate(files, 1)
    ]
    return encode_multipart_formdata(parts)


def name_of(file: Attachment, number: int) -> str:
    """A file's name; one of ours where it has none."""
    return file.name or f"file-{number}.{file.media_type.partition('/')[2] or 'bin'}"


def pace_of(headers: Mapping[str, str], now: datetime) -> Pace | None:
    """What an answer says of the desk's rate limit; None if nothing."""
    told = {name.lower(): value for name, value in headers.items()}
    remaining = next((told[n] for n in _REMAINING if told.get(n, "").isdigit()), None)
    if remaining is None:
        return None
    reset = next((told[n] for n in _RESET if told.get(n, "").isdigit()), None)
    seconds = _MINUTE if reset is None else float(reset)
    if seconds > _EPOCH:
        seconds = max(0.0, seconds - now.timestamp())
    return Pace(remaining=int(remaining), resets_in_seconds=seconds)


def _json(body: bytes) -> Any:
    try:
        return jsonlib.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(found: Any) -> str:
    """What most desks say under one of these names."""
    if not isinstance(found, dict):
        return ""
    for name in ("description", "message", "error", "errors", "details"):
        if value := found.get(name):
            return value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)
    return ""
