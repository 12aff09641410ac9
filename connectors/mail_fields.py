"""A mail that a provider took apart, put together again, so that one reader reads every source.

RFC 5322, 2045, 2231. Header lines go in as they came; texts and files become parts.
"""

import hashlib
import re
from base64 import b64encode, encodebytes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from connectors.mail_headers import safe_name

#: Of the mail as it was: the parts are made anew.
_LEFT_OUT = ("content-type", "content-transfer-encoding", "content-disposition", "mime-version")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,100}")
_MEDIA_TYPE = re.compile(r"(?!multipart)[a-z]{2,20}/[a-z0-9][a-z0-9.+-]{0,100}")
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,200}")


@dataclass(frozen=True)
class Piece:
    """A file that a provider cut out of a mail."""

    name: str
    media_type: str
    content: bytes
    #: By which the HTML refers to it.
    content_id: str = ""


def composed(
    headers: Iterable[tuple[str, str | bytes]], text: str, html: str, files: Sequence[Piece]
) -> bytes:
    """The mail as MIME; the same for the same fields."""
    parts = [_text(kind, body) for kind, body in (("plain", text), ("html", html)) if body]
    own = _joined("alternative", parts) if len(parts) > 1 else b"".join(parts) or _text("plain", "")
    body = _joined("mixed", [own, *map(_file, files)]) if files else own
    return b"".join(_header(n, v) for n, v in headers) + b"MIME-Version: 1.0\r\n" + body


def encoded_word(text: str) -> str:
    """Any text as a header can hold it."""
    return f"=?utf-8?b?{b64encode(text.encode('utf-8', 'replace')).decode()}?=" if text else ""


def first(headers: Iterable[tuple[str, str]], name: str) -> str:
    """The first header of a name, or ''."""
    return next((value for key, value in headers if key.lower() == name), "")


def _header(name: str, value: str | bytes) -> bytes:
    if not _HEADER_NAME.fullmatch(name) or name.lower() in _LEFT_OUT:
        return b""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    return name.encode("ascii") + b": " + b" ".join(raw.split()) + b"\r\n"


def _text(kind: str, body: str) -> bytes:
    head = f"Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return head.encode() + encodebytes(body.encode("utf-8", "replace"))


def _file(file: Piece) -> bytes:
    media_type = file.media_type.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "application/octet-stream"
    content_id = file.content_id.strip().removeprefix("<").removesuffix(">")
    inline = bool(_CONTENT_ID.fullmatch(content_id))
    name = quote(safe_name(file.name), safe="", errors="replace")
    lines = [
        f"Content-Type: {media_type}",
        f"Content-Disposition: {'inline' if inline else 'attachment'}"
        + (f"; filename*=utf-8''{name}" if name else ""),
    ]
    lines += [f"Content-ID: <{content_id}>"] if inline else []
    if media_type.startswith("message/"):  # never encoded: RFC 2046, 5.2.1
        return "\r\n".join([*lines, "", ""]).encode() + file.content
    lines += ["Content-Transfer-Encoding: base64"]
    return "\r\n".join([*lines, "", ""]).encode() + encodebytes(file.content)


def _joined(kind: str, parts: Sequence[bytes]) -> bytes:
    """A multipart; its boundary depends on what is in it, so that nothing in it can foresee it."""
    boundary = b"=_" + hashlib.sha256(b"\0".join(parts)).hexdigest()[:40].encode()
    head = b"Content-Type: multipart/%s; boundary=%s\r\n\r\n" % (
        kind.encode(),
        b'"' + boundary + b'"',
    )
    return (
        head
        + b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
        + b"--"
        + boundary
        + b"--\r\n"
    )
