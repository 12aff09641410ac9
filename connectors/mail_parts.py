"""A mail's bytes cut into parts: RFC 5322 and 2045-2046, and what mailers make of them.

The standard library's parser goes line by line (a 10 MB mail of short lines takes it many seconds),
recurses, and raises on crafted mail. This one looks for boundaries, and is bounded by its caps.
"""

import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from chalicelib.errors import PayloadError
from connectors.charsets import decode
from connectors.mail_headers import addresses, file_name, header_text, parameters

MAX_BYTES = 10 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_PARTS = 200
MAX_DEPTH = 20

#: Padding in base64, beyond which it means nothing.
_MAX_PADDING = 200
#: Lines that look like a boundary, in one multipart.
_MAX_DELIMITERS = 10_000

_TYPE = re.compile(r"[\w!#$&^.+-]{1,100}/[\w!#$&^.+-]{1,100}", re.ASCII)
_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:[ \t]?")
_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_GUESSED_BOUNDARY = re.compile(rb"(?:^|\n)--([!-~][ -~]{0,69})\r?\n[Cc]ontent-")


@dataclass(frozen=True)
class Part:
    """A mail, or a part of one."""

    headers: tuple[tuple[str, bytes], ...]
    body: bytes
    #: What a part is that does not say it.
    default_type: str = "text/plain"
    parts: tuple["Part", ...] = field(default=(), repr=False)

    def all(self, name: str) -> list[bytes]:
        """Every value of a header (its name in lower case), folded as it arrived."""
        return self._values.get(name, [])

    def one(self, name: str) -> bytes:
        """The first value of a header; b"" if there is none."""
        found = self._values.get(name)
        return found[0] if found else b""

    @cached_property
    def _values(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        for name, value in self.headers:
            found.setdefault(name, []).append(value)
        return found

    @cached_property
    def authors(self) -> list[tuple[str, str]]:
        """(name, address) of everybody that From names."""
        return addresses(self.all("from"))

    @cached_property
    def subject(self) -> str:
        """The subject as a line of text."""
        return header_text(self.one("subject"))

    @cached_property
    def media_type(self) -> str:
        """The type, in lower case; a multipart whose boundary never comes is text."""
        stated = self.stated_type
        return "text/plain" if stated.startswith("multipart/") and not self.parts else stated

    @cached_property
    def stated_type(self) -> str:
        """The type as the header says it, if it says any."""
        values = [v.decode("ascii", "replace").partition(";")[0] for v in self.all("content-type")]
        stated = [v.strip().lower() for v in values]
        return next((v for v in stated if _TYPE.fullmatch(v)), self.default_type)

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Content-Type's parameters."""
        return parameters(self.one("content-type"))

    @cached_property
    def disposition(self) -> str:
        """`inline`, `attachment`, or what else; in lower case."""
        value = self.one("content-disposition").decode("ascii", "replace")
        return value.partition(";")[0].strip().lower()

    @cached_property
    def name(self) -> str:
        """The file name; '' if there is none."""
        charset = self.parameters.get("charset", "")
        return file_name(self.one("content-disposition"), self.one("content-type"), charset)

    @cached_property
    def content(self) -> bytes:
        """The body, its transfer encoding undone."""
        stated = self.one("content-transfer-encoding").decode("ascii", "replace")
        encoding = re.sub(r"[\s\"']", "", stated.partition(";")[0].lower())
        return _UNENCODE.get(encoding, bytes)(self.body)

    def text(self, limit: int) -> str:
        """The content as text, with one kind of line end. Reads no more than so many bytes."""
        text = decode(self.content[:limit], self.parameters.get("charset", ""))
        return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")

    def leaves(self) -> Iterator["Part"]:
        """Every part that is no container, in order. A forwarded mail is one leaf."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            if part.parts:
                waiting.extend(reversed(part.parts))
            else:
                yield part


# Transfer encodings


def _from_base64(body: bytes) -> bytes:
    """Base64, of one run or several, whatever else stands in between."""
    is_odd = body.count(b"=") > _MAX_PADDING
    kept = body.translate(None, _NOT_BASE64 + b"=" if is_odd else _NOT_BASE64)
    return b"".join(_run(run) for run in kept.split(b"="))


_NOT_BASE64 = bytes(
    set(range(256))
    - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
)  # fmt: skip


def _run(run: bytes) -> bytes:
    whole = run[:-1] if len(run) % 4 == 1 else run
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))


def _from_uuencode(body: bytes) -> bytes:
    _, begin, rest = body.partition(b"begin ")
    lines = rest.split(b"\n")[1:] if begin else body.split(b"\n")
    return b"".join(_uu_line(line.rstrip(b"\r")) for line in lines if line.strip() != b"end")


def _uu_line(line: bytes) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:  # broken encoders pad with a wrong length
        try:
            return binascii.a2b_uu(line[: (((line[0] - 32) & 63) * 4 + 5) // 3])
        except binascii.Error:
            return b""


_UNENCODE: dict[str, Callable[[bytes], bytes]] = {
    "base64": _from_base64,
    "quoted-printable": binascii.a2b_qp,
    **dict.fromkeys(("x-uuencode", "uuencode", "x-uue", "uue"), _from_uuencode),
}


# Cutting


def split(raw: bytes) -> Part:
    """The mail in these bytes, cut into its parts. PayloadError if it is beyond the caps."""
    if len(raw) > MAX_BYTES:
        raise PayloadError(f"the mail is over {MAX_BYTES} bytes")
    if b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")
    return _Cutter().part(raw.lstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf"), "text/plain", 0)


class _Cutter:
    """Counts parts while it cuts."""

    def __init__(self) -> None:
        self._made = 0

    def part(self, raw: bytes, default_type: str, depth: int) -> Part:
        self._made += 1
        if self._made > MAX_PARTS:
            raise PayloadError("the mail has too many parts")
        if depth > MAX_DEPTH:
            raise PayloadError("the mail's parts are nested too deep")
        headers, body = _header_and_body(raw)
        part = Part(tuple(headers), body, default_type)
        if not part.stated_type.startswith("multipart/"):
            return part
        inner = "message/rfc822" if part.stated_type.endswith("/digest") else "text/plain"
        parts = [self.part(piece, inner, depth + 1) for piece in _pieces(part)]
        return Part(part.headers, body, default_type, tuple(parts))


def header_fields(raw: bytes) -> list[tuple[str, bytes]]:
    """The fields of the header with which these bytes begin."""
    return _header_and_body(raw[:MAX_HEADER_BYTES])[0]


def _header_and_body(raw: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    if not _FIELD.match(raw) and not raw.startswith((b"From ", b">From ")):
        return [], re.sub(rb"^\r?\n", b"", raw, count=1)
    end = _END_OF_HEADER.search(raw, 0, MAX_HEADER_BYTES + 4)
    if not end and len(raw) > MAX_HEADER_BYTES:
        raise PayloadError("the mail's header is too long")
    block, body = (raw[: end.start()], raw[end.end() :]) if end else (raw, b"")
    lines = re.split(rb"\r?\n", block)
    headers: list[tuple[str, list[bytes]]] = []
    for n, line in enumerate(lines):
        if match := _FIELD.match(line):
            headers.append((match[1].decode("ascii").lower(), [line[match.end() :]]))
        elif headers and line[:1] in (b" ", b"\t"):
            headers[-1][1].append(line)
        elif not _is_junk(lines, n):
            body = b"\n".join(lines[n:]) + b"\n\n" + body
            break
    return [(name, b"\r\n".join(folded)) for name, folded in headers], body


def _is_junk(lines: list[bytes], n: int) -> bool:
    """A line that is no header, among headers; anything else begins the body."""
    if lines[n].startswith(b"--"):
        return False
    return n == 0 or (n < len(lines) - 1 and bool(_FIELD.match(lines[n + 1])))


def _pieces(part: Part) -> Iterator[bytes]:
    boundary = _boundary(part)
    if not boundary:
        return
    mark, start = b"--" + boundary, -1
    if part.body.count(mark) > _MAX_DELIMITERS:
        raise PayloadError("the mail has too many parts")
    for begin, end, last in _delimiters(part.body, mark):
        if start >= 0:
            yield _without_last_line_end(part.body[start:begin])
        start = -1 if last else end
        if last:
            return
    if start >= 0:
        yield part.body[start:]


def _delimiters(body: bytes, mark: bytes) -> Iterator[tuple[int, int, bool]]:
    """(where it begins, where the next line does, whether it is the last) of each delimiter."""
    at = body.find(mark)
    while at >= 0:
        if not at or body[at - 1 : at] == b"\n":
            end = (body.find(b"\n", at) + 1) or len(body)
            line = body[at + len(mark) : end].strip()
            if line in (b"", b"--"):
                yield at, end, bool(line)
        at = body.find(mark, at + len(mark))


def _boundary(part: Part) -> bytes:
    """As stated; if it is not, or never comes, what looks like one."""
    stated = part.parameters.get("boundary", "").rstrip().encode("utf-8", "replace")[:200]
    if stated and b"--" + stated in part.body:
        return stated
    guessed = _GUESSED_BOUNDARY.search(part.body, 0, 64 * 1024)
    return guessed[1].rstrip() if guessed else b""


def _without_last_line_end(piece: bytes) -> bytes:
    return piece.removesuffix(b"\n").removesuffix(b"\r")
