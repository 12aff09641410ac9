"""Requests compared with a vendor's own OpenAPI, where its file is at hand.

The files lie outside of the project (../shared/data/specs) and are not ours to keep here.
"""

import json
import re
from email.parser import BytesParser
from email.policy import HTTP
from functools import cache
from typing import Any

from tests.desk_server import Asked
from tests.recorded import SHARED

HOST = "http://localhost"


@cache
def contract(name: str) -> "Contract | None":
    """The contract of that file; None where the folder is absent."""
    file = SHARED / "specs" / f"{name}.json"
    return Contract(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


class Contract:
    """An OpenAPI, and what is wrong with a request by it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        from openapi_core import Config, OpenAPI

        spec["servers"] = [{"url": HOST}]
        # None: what is wrong with a vendor's own document is no concern of our requests
        self._api = OpenAPI.from_dict(spec, config=Config(spec_validator_cls=None))

    def mistake_in(self, asked: Asked) -> str:
        """What is wrong with a request; '' if nothing. A form counts as the JSON of its fields."""
        from openapi_core.exceptions import OpenAPIError
        from openapi_core.testing import MockRequest

        body = json.dumps(fields(asked)).encode() if is_form(asked) else asked.body
        request = MockRequest(
            HOST,
            asked.method.lower(),
            asked.path,
            args=dict(asked.query),
            headers=dict(asked.headers),
            data=body or None,
            content_type="application/json",
        )
        try:
            self._api.validate_request(request)
        except OpenAPIError as error:
            causes = getattr(error.__cause__, "schema_errors", ())
            return f"{asked.method} {asked.path}: {error!r} {[c.message for c in causes]}"
        return ""


def is_form(asked: Asked) -> bool:
    """The request is a form with files."""
    return asked.headers.get("content-type", "").startswith("multipart/form-data")


def fields(asked: Asked) -> dict[str, Any]:
    """What the JSON of a request says, or the form's fields without its files."""
    if not is_form(asked):
        return dict(asked.json) if asked.body else {}
    return {name: content.decode() for name, file, _, content in _parts(asked) if not file}


def files(asked: Asked) -> list[tuple[str, str, bytes]]:
    """(name, type, bytes) of the files of a form."""
    return [part[1:] for part in _parts(asked) if part[1]] if is_form(asked) else []


def _parts(asked: Asked) -> list[tuple[str, str, str, bytes]]:
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    form = BytesParser(policy=HTTP).parsebytes(head + asked.body)
    found = []
    for part in form.iter_parts():
        told = part["content-disposition"]
        name = re.search(r'name="([^"]*)"', told)
        content = part.get_payload(decode=True)
        assert name
        assert isinstance(content, bytes)
        found.append((name[1], part.get_filename() or "", part.get_content_type(), content))
    return found
