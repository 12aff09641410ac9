"""What all of Tencent's message pushes share: signature, AES envelope, flat XML or JSON.

Signature and AES: https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Message_encryption_and_decryption_instructions.html
The same in WeCom: https://developer.work.weixin.qq.com/document/path/90968

The signature is sha1 over the sorted parts, joined without a delimiter, so one signature holds for
several splits of the same digits into timestamp and nonce: nothing may be keyed on the nonce. The
envelope has no MAC of its own: check the signature before decrypting, and fail the same way for
every fault, or padding becomes an oracle.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any
from xml.parsers import expat

from chalicelib.errors import ConfigurationError, PayloadError
from connectors.signing import equal

_BLOCK = 32
_MAX_DEPTH = 8
_MAX_LEAVES = 500
_TOO_MUCH = "the body is nested too deeply or has too many elements"


def signature(*parts: str) -> str:
    """sha1 of the sorted parts: token, timestamp, nonce, and the envelope where there is one."""
    joined = "".join(sorted(parts)).encode("utf-8", "surrogatepass")
    return hashlib.sha1(joined).hexdigest()  # noqa: S324  # Tencent's choice


def aes_key(encoding_aes_key: str) -> bytes:
    """The 32 bytes of an EncodingAESKey. ConfigurationError."""
    try:
        key = base64.b64decode(encoding_aes_key + "=", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(encoding_aes_key) != 43 or len(key) != 32:
        raise ConfigurationError("encoding_aes_key must be the 43 characters of the console")
    return key


def decrypt(envelope: str, key: bytes, receiver: str) -> bytes:
    """The message in an envelope made for `receiver` (an appid). PayloadError for every fault."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    try:
        sealed = base64.b64decode(envelope, validate=True)
    except (binascii.Error, ValueError):
        raise PayloadError("the envelope cannot be opened") from None
    if not sealed or len(sealed) % 16:
        raise PayloadError("the envelope cannot be opened")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    padded = decryptor.update(sealed) + decryptor.finalize()
    pad = padded[-1]
    clear = padded[:-pad] if 1 <= pad <= _BLOCK else b""
    length = int.from_bytes(clear[16:20], "big")
    whole = 1 <= pad <= _BLOCK and padded[-pad:] == bytes([pad]) * pad
    if not whole or len(clear) < 20 + length or not equal(clear[20 + length :], receiver):
        raise PayloadError("the envelope cannot be opened")
    return clear[20 : 20 + length]


def encrypt(message: bytes, key: bytes, receiver: str, prefix: bytes | None = None) -> str:
    """An envelope; `prefix` are the sixteen random bytes, for tests with published vectors."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    start = prefix if prefix is not None else os.urandom(16)
    clear = start + len(message).to_bytes(4, "big") + message + receiver.encode()
    pad = _BLOCK - len(clear) % _BLOCK
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    sealed = encryptor.update(clear + bytes([pad]) * pad) + encryptor.finalize()
    return base64.b64encode(sealed).decode("ascii")


def fields(document: bytes) -> dict[str, str]:
    """The leaves of an XML document, as text; of a repeated one the first. PayloadError.

    Elements with children are left out here, but their leaves are found under `Parent.Child`.
    No document type, no entities, few levels, few elements: provider's messages have no more.
    """
    reader = _FlatReader()
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    parser.StartCdataSectionHandler = reader.section
    parser.EndCdataSectionHandler = reader.section_end
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError):
        raise PayloadError("the body is no XML") from None
    if reader.root != "xml":
        raise PayloadError("the root element is not <xml>")
    return reader.found


class _FlatReader:
    """Collects text by path, in one pass."""

    def __init__(self) -> None:
        self.root = ""
        self.found: dict[str, str] = {}
        self._path: list[str] = []
        self._text: list[str] = []
        self._leaf = False
        self._in_section = False
        self._blank_means_nothing = False
        self._elements = 0

    def doctype(self, *_: object) -> None:
        raise PayloadError("the body declares a document type")

    def start(self, name: str, _attributes: object) -> None:
        self._elements += 1
        if len(self._path) >= _MAX_DEPTH or self._elements > _MAX_LEAVES:
            raise PayloadError(_TOO_MUCH)
        self.root = self.root or name
        self._path.append(name)
        self._text = []
        self._leaf = True
        self._blank_means_nothing = False

    def section(self) -> None:
        """Text stands in a CDATA section: blanks around it are the writer's layout."""
        self._text = [text for text in self._text if text.strip()]
        self._in_section = self._blank_means_nothing = True

    def section_end(self) -> None:
        self._in_section = False

    def characters(self, text: str) -> None:
        if self._in_section or not self._blank_means_nothing or text.strip():
            self._text.append(text)

    def end(self, _name: str) -> None:
        path = ".".join(self._path[1:])
        if path and self._leaf:
            self.found.setdefault(path, "".join(self._text))
        self._path.pop()
        self._leaf = False


def json_fields(document: bytes) -> dict[str, str]:
    """The same of a JSON object: what `fields` gives for it as XML. PayloadError.

    Numbers keep their digits: a MsgId is longer than a double.
    """
    try:
        # The first of two equal names counts, as in XML.
        found = json.loads(
            document.decode("utf-8-sig"),
            parse_int=str,
            parse_float=str,
            parse_constant=str,
            object_pairs_hook=lambda pairs: dict(reversed(pairs)),
        )
    except (ValueError, RecursionError):
        raise PayloadError("the body is no JSON") from None
    if not isinstance(found, dict):
        raise PayloadError("the body is no JSON object")
    flat: dict[str, str] = {}
    for n, (path, leaf) in enumerate(_leaves("", found)):
        if n >= _MAX_LEAVES:
            raise PayloadError(_TOO_MUCH)
        flat.setdefault(path, _whole(leaf))
    return flat


def _leaves(path: str, found: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth > _MAX_DEPTH:
        raise PayloadError(_TOO_MUCH)
    match found:
        case dict():
            for name, inner in found.items():
                yield from _leaves(f"{path}.{name}" if path else name, inner, depth + 1)
        case list():
            for inner in found:
                yield from _leaves(path, inner, depth + 1)
        case bool():
            yield path, str(found).lower()
        case None:
            yield path, ""
        case _:
            yield path, found


def _whole(text: str) -> str:
    """Text that UTF-8 can write: JSON may hold half a character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_json(document: bytes) -> bool:
    """Which of the two it is: a console lets one choose, and the first character tells."""
    return document.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def read(document: bytes) -> dict[str, str]:
    """The fields of a push, XML or JSON. PayloadError."""
    return (json_fields if is_json(document) else fields)(document)


def document(fields_: Mapping[str, str | int]) -> str:
    """`<xml>` with one element a field: text as CDATA, numbers bare."""
    inner = "".join(
        f"<{name}>{value if isinstance(value, int) else cdata(value)}</{name}>"
        for name, value in fields_.items()
    )
    return f"<xml>{inner}</xml>"


def cdata(text: str) -> str:
    """Text that cannot end its section: `]]>` is cut in two, what XML cannot write is left out."""
    legal = "".join(c for c in text if _is_legal(c))
    return "<![CDATA[" + legal.replace("]]>", "]]]]><![CDATA[>") + "]]>"


def _is_legal(character: str) -> bool:
    if character < " ":
        return character in "\t\n\r"
    return not ("\ud800" <= character <= "\udfff" or character in "\ufffe\uffff")
