"""How Vonage signs its webhooks: the parameters of the SMS API.

https://developer.vonage.com/en/getting-started/concepts/signing-messages
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal

Method = Literal["md5hash", "md5", "sha1", "sha256", "sha512"]


def signature(secret: str, fields: Mapping[str, str], method: Method) -> str:
    """The hex digest of every parameter but `sig`, sorted; `&` and `=` in a value count as `_`."""
    replaced = {k: v.replace("&", "_").replace("=", "_") for k, v in fields.items()}
    text = "".join(f"&{name}={replaced[name]}" for name in sorted(replaced))
    key, signed = (t.encode("utf-8", "surrogatepass") for t in (secret, text))
    if method == "md5hash":
        return hashlib.md5(signed + key).hexdigest()  # noqa: S324  # Vonage's choice
    return hmac.new(key, signed, method).hexdigest()
