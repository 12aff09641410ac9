"""Web forms as bytes: what providers post, and what we post to them.

https://www.rfc-editor.org/rfc/rfc7578 and https://url.spec.whatwg.org/#application/x-www-form-urlencoded
Values stay bytes: a provider may pass on text in the customer's own charset, beside a field that
names it. A body whose end is missing is no form, so that nothing is read from half of one.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote_to_bytes

from chalicelib.errors import PayloadError

MAX_FIELDS = 1000
MAX_HEADER_BYTES = 8 * 1024


@dataclass(frozen=True)
class Field:
    """One field; a file has a `media_type`, and mostly a `file_name`."""

    name: str
    content: bytes
    file_name: str = ""
    media_type: str = ""

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


@dataclass(frozen=True)
class Form:
    """Fields in the order sent."""

    fields: Sequence[Field] = field(default_factory=tuple)

    @cached_property
    def _named(self) -> Mapping[str, list[Field]]:
        named: dict[str, list[Field]] = {}
        for each in self.fields:
            named.setdefault(each.name, []).append(each)
        return named

    def all(self, name: str) -> Sequence[Field]:
        return self._named.get(name, ())

    def content(self, name: str) -> bytes:
        """The first value of a name, or b''."""
        found = self.all(name)
        return found[0].content if found else b""

    def text(self, name: str) -> str:
        """The same as text."""
        return self.content(name).decode("utf-8", "replace")

    def __contains__(self, name: object) -> bool:
        return name in self._named


def read(content_type: str, body: bytes) -> Form:
    """The form in a request. PayloadError, and nothing else."""
    kind, _, parameters = content_type.partition(";")
    match kind.strip().lower():
        case "application/x-www-form-urlencoded":
            return Form(tuple(_pairs(body)))
        case "multipart/form-data":
            return Form(tuple(_parts(body, _boundary(parameters))))
    raise PayloadError("the body is no form")


def _pairs(body: bytes) -> Iterator[Field]:
    pairs = body.split(b"&") if body else []
    if len(pairs) > MAX_FIELDS:
        raise PayloadError("the form has too many fields")
    for pair in pairs:
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        yield Field(_text(unquote_to_bytes(name)), unquote_to_bytes(value))


_BOUNDARY = re.compile(r"""\s*boundary=("?)([0-9A-Za-z'()+_,./:=?-]{1,200})\1\s*""", re.I)


def _boundary(parameters: str) -> bytes:
    for parameter in parameters.split(";")[:10]:
        if found := _BOUNDARY.fullmatch(parameter):
            return found[2].encode("ascii")
    raise PayloadError("the form has no boundary")


def _parts(body: bytes, boundary: bytes) -> Iterator[Field]:
    line = rb"(?:\A|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r?\n|\Z)"
    start, made = None, 0
    for delimiter in re.finditer(line, body):
        if start is not None:
            made += 1
            if made > MAX_FIELDS:
                raise PayloadError("the form has too many fields")
            yield _part(body[start : delimiter.start()])
        if delimiter[1]:
            return
        start = delimiter.end()
    raise PayloadError("the form has no end")


def _part(content: bytes) -> Field:
    """One part, from the line end after its delimiter on."""
    end = re.compile(rb"\r?\n\r?\n").search(content, 0, MAX_HEADER_BYTES)
    if end is None:
        raise PayloadError("a part of the form has no header")
    headers = dict(_headers(_text(content[: end.start()])))
    about = headers.get("content-disposition", "")
    return Field(
        name=_parameter(about, "name"),
        content=content[end.end() :],
        file_name=_parameter(about, "filename"),
        media_type=headers.get("content-type", ""),
    )


def _headers(head: str) -> Iterator[tuple[str, str]]:
    for line in re.split(r"\r?\n(?![ \t])", head):
        name, _, value = line.partition(":")
        yield name.strip().lower(), value.strip()


def _parameter(value: str, name: str) -> str:
    """A parameter as browsers and mailers write it: a backslash is just one (`C:\\\\a.txt`)."""
    found = re.search(rf';\s*{name}="(.*?)"(?=\s*(?:;|$))', value, re.I | re.S)
    found = found or re.search(rf";\s*{name}=([^;\"\s]*)", value, re.I)
    return found[1].replace('\\"', '"').replace("%22", '"') if found else ""


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def multipart(fields: Sequence[Field]) -> tuple[str, bytes]:
    """(content type, body) of a form, as browsers write it."""
    together = hashlib.sha256(b"\0".join(each.content for each in fields)).hexdigest()
    boundary = f"askonce-{together[:40]}"
    lines = []
    for each in fields:
        about = f'form-data; name="{_quotable(each.name)}"'
        if each.file_name:
            about += f'; filename="{_quotable(each.file_name)}"'
        head = f"--{boundary}\r\nContent-Disposition: {about}\r\n"
        head += f"Content-Type: {each.media_type}\r\n" if each.media_type else ""
        lines.append(head.encode("utf-8", "replace") + b"\r\n" + each.content + b"\r\n")
    body = b"".join(lines) + f"--{boundary}--\r\n".encode("ascii")
    return f"multipart/form-data; boundary={boundary}", body


def _quotable(name: str) -> str:
    return re.sub(r"[\r\n]", " ", name).replace('"', "%22")
