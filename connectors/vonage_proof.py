"""How Vonage signs its webhooks: the parameters of the SMS API, the token of the Messages API.

https://developer.vonage.com/en/getting-started/concepts/signing-messages
https://developer.vonage.com/en/getting-started/concepts/webhooks#decoding-signed-webhooks
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from chalicelib.errors import SignatureError
from connectors.signing import equals_any

Method = Literal["md5hash", "md5", "sha1", "sha256", "sha512"]


def signature(secret: str, fields: Mapping[str, str], method: Method) -> str:
    """The hex digest of every parameter but `sig`, sorted; `&` and `=` in a value count as `_`."""
    replaced = {k: v.replace("&", "_").replace("=", "_") for k, v in fields.items()}
    text = "".join(f"&{name}={replaced[name]}" for name in sorted(replaced))
    key, signed = (t.encode("utf-8", "surrogatepass") for t in (secret, text))
    if method == "md5hash":
        return hashlib.md5(signed + key).hexdigest()  # noqa: S324  # Vonage's choice
    return hmac.new(key, signed, method).hexdigest()


def claims(token: str, secrets: Sequence[str]) -> Mapping[str, Any]:
    """What a token says that one of the secrets signed with HMAC-SHA256. SignatureError."""
    signed, _, given = token.rpartition(".")
    text = signed.encode("utf-8", "surrogatepass")
    wanted = [
        _base64url(hmac.new(secret.encode("utf-8", "surrogatepass"), text, "sha256").digest())
        for secret in secrets
    ]
    if not given or not equals_any(given, wanted):
        raise SignatureError("the token's signature does not match")
    header, _, payload = signed.partition(".")
    if _opened(header).get("alg") != "HS256":
        raise SignatureError("the token is not signed with HS256")
    return _opened(payload)


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
