"""JWTs signed with HMAC-SHA256, and no others: https://www.rfc-editor.org/rfc/rfc7519

Whoever reads one looks at its times, since nothing here has a clock. The usual library imports all
of public-key cryptography for this, at every cold start of a channel that needs none of it.
"""

import base64
import binascii
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.errors import SignatureError
from connectors.signing import equals_any

_HEADER = {"alg": "HS256", "typ": "JWT"}


def signed(claims: Mapping[str, Any], secret: str) -> str:
    """The claims as a token."""
    parts = (_HEADER, claims)
    text = ".".join(_base64url(json.dumps(p, separators=(",", ":")).encode()) for p in parts)
    return f"{text}.{_signature(text, secret)}"


def claims(token: str, secrets: Sequence[str]) -> dict[str, Any]:
    """What a token says that one of the secrets signed. SignatureError."""
    text, _, given = token.rpartition(".")
    if not given or not equals_any(given, [_signature(text, secret) for secret in secrets]):
        raise SignatureError("the token's signature does not match")
    header, _, payload = text.partition(".")
    known = _opened(header)
    if known.get("alg") != "HS256" or "crit" in known:
        raise SignatureError("the token is not signed with HS256")
    return _opened(payload)


def _signature(text: str, secret: str) -> str:
    key, content = (t.encode("utf-8", "surrogatepass") for t in (secret, text))
    return _base64url(hmac.digest(key, content, "sha256"))


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode("ascii").rstrip("=")


def _opened(part: str) -> dict[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SignatureError("the token cannot be read")
    return found
