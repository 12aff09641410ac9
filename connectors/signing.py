"""Signatures and freshness, once for all connectors.

Everything compares bytes in constant time: `hmac.compare_digest` on text raises TypeError for
anything that is not ASCII, which an attacker may send.

Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field, SecretStr

from chalicelib.errors import ConfigurationError, SignatureError
from chalicelib.ports import WebhookRequest

TOLERANCE_SECONDS = 300
Secret = Annotated[SecretStr, Field(min_length=1)]
#: One secret, or two of which both are valid while they are rotated; the first one signs.
Secrets = Secret | Annotated[tuple[Secret, ...], Field(min_length=1)]
PathSecret = Annotated[SecretStr, Field(min_length=16)]
#: The same for secrets that end an address, where the provider signs nothing or not the body.
PathSecrets = PathSecret | Annotated[tuple[PathSecret, ...], Field(min_length=1)]


def values(secrets: Secrets) -> list[str]:
    """The secrets in the clear. ConfigurationError if one is empty: an empty key signs anything."""
    all_of_them = (secrets,) if isinstance(secrets, SecretStr) else secrets
    clear = [secret.get_secret_value() for secret in all_of_them]
    if not clear or not all(clear):
        raise ConfigurationError("a secret is empty")
    return clear


def equal(given: str | bytes, wanted: str | bytes) -> bool:
    """Constant-time equality of whatever comes over the wire."""
    return hmac.compare_digest(_bytes(given), _bytes(wanted))


def equals_any(given: str | bytes, wanted: Sequence[str | bytes]) -> bool:
    """The same for several acceptable values, all of them looked at."""
    return sum(equal(given, w) for w in wanted) > 0


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def demand_path_secret(request: WebhookRequest, secrets: PathSecrets) -> None:
    """SignatureError unless the address ends in one of the secrets."""
    if not request.path_secret or not equals_any(request.path_secret, values(secrets)):
        raise SignatureError("the address does not end in the secret")


def demand_fresh(timestamp: str, now: datetime, seconds: int = TOLERANCE_SECONDS) -> None:
    """SignatureError unless a ten-digit epoch timestamp is at most `seconds` old.

    More than the usual five minutes are for a provider that repeats a request with its first time.
    Nobody's clock is ahead for that reason: by five minutes at most, whatever `seconds` is.
    """
    if len(timestamp) != 10 or not timestamp.isascii() or not timestamp.isdigit():
        raise SignatureError("the timestamp is no epoch time")
    age = now.timestamp() - int(timestamp)
    if age > seconds or -age > min(seconds, TOLERANCE_SECONDS):
        raise SignatureError("the timestamp is too far from now")


class OneBody:
    """Remembers which body a one-time token came with, where the signature does not cover it.

    Of this process only, and of the latest tokens: what it misses is settled by freshness.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._seen: OrderedDict[str, bytes] = OrderedDict()
        self._limit = limit

    def demand(self, token: str, body: bytes) -> None:
        """Return for a new token, or the same request again. SignatureError for another body."""
        digest = hashlib.sha256(body).digest()
        if not equal(self._seen.setdefault(token, digest), digest):
            raise SignatureError("the token was used for another body")
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)


class StandardWebhook:
    """Signs and verifies `id.timestamp.payload` with HMAC-SHA256, as Standard Webhooks does."""

    def __init__(self, secrets: Secrets) -> None:
        self._keys = [_key(secret) for secret in values(secrets)]

    def headers(self, webhook_id: str, at: datetime, payload: bytes) -> dict[str, str]:
        """The three headers; signed with every secret, so that the receiver may rotate too."""
        timestamp = str(int(at.timestamp()))
        signed = [self._sign(key, webhook_id, timestamp, payload) for key in self._keys]
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(f"v1,{s}" for s in signed),
        }

    def verify(self, request: WebhookRequest, payload: bytes | None = None) -> None:
        """Return if one of the request's signatures is right. SignatureError and nothing else.

        `payload` is what was signed, if that is more than the body.
        """
        webhook_id = request.header("webhook-id")
        timestamp = request.header("webhook-timestamp")
        given = request.header("webhook-signature")
        if not (webhook_id and timestamp and given):
            raise SignatureError("a header of Standard Webhooks is missing")
        demand_fresh(timestamp, request.received_at)
        body = request.body if payload is None else payload
        wanted = [self._sign(key, webhook_id, timestamp, body) for key in self._keys]
        offered = [s.partition(",")[2] for s in given.split(" ")[:10] if s.startswith("v1,")]
        if not sum(equals_any(s, wanted) for s in offered):
            raise SignatureError("no signature matches")

    def _sign(self, key: bytes, webhook_id: str, timestamp: str, payload: bytes) -> str:
        signed = f"{webhook_id}.{timestamp}.".encode("utf-8", "surrogatepass") + payload
        return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode("ascii")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(
            "a Standard Webhooks secret must be base64, with or without whsec_"
        ) from None
    if len(key) < 16:
        raise ConfigurationError("a Standard Webhooks secret must have at least 16 bytes")
    return key


def basic_auth(user: str, password: str) -> Mapping[str, str]:
    """The header of HTTP basic authentication."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return {"Authorization": f"Basic {token}"}
