"""What S3 checks of a browser's upload, and moto does not: the signed policy of the form.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import base64
import hashlib
import hmac
import io
import json
from datetime import UTC, datetime
from typing import Any

from werkzeug.formparser import parse_form_data


def refusal(environ: dict[str, Any], body: bytes, secret: str) -> str | None:
    """S3's error code for a form that its policy does not allow; None for a good one."""
    _, form, files = parse_form_data({**environ, "wsgi.input": io.BytesIO(body)})
    content = files["file"].read() if "file" in files else form.get("file", "").encode()
    fields = form.to_dict()
    if not hmac.compare_digest(_signature(fields, secret), fields.get("x-amz-signature", "")):
        return "SignatureDoesNotMatch"
    policy = json.loads(base64.b64decode(fields["policy"]))
    if datetime.fromisoformat(policy["expiration"]) < datetime.now(UTC):
        return "AccessDenied"
    return next((why for c in policy["conditions"] if (why := _broken(c, fields, content))), None)


def _signature(fields: dict[str, str], secret: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in fields.get("x-amz-credential", "").split("/")[1:]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, fields.get("policy", "").encode(), hashlib.sha256).hexdigest()


def _broken(condition: Any, fields: dict[str, str], content: bytes) -> str | None:
    if isinstance(condition, list):
        _, low, high = condition
        if len(content) < low:
            return "EntityTooSmall"
        return "EntityTooLarge" if len(content) > high else None
    ((name, wanted),) = condition.items()
    return None if name == "bucket" or fields.get(name) == wanted else "AccessDenied"
