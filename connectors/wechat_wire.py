"""What all of Tencent's message pushes share: signature, AES envelope, flat XML.

Signature and AES: https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Message_encryption_and_decryption_instructions.html

The signature is sha1 over the sorted parts, joined without a delimiter, so one signature holds for
several splits of the same digits into timestamp and nonce: nothing may be keyed on the nonce. The
envelope has no MAC of its own: check the signature before decrypting, and fail the same way for
every fault, or padding becomes an oracle.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from xml.parsers import expat

from chalicelib.errors import ConfigurationError, PayloadError
from connectors.signing import equal

_BLOCK = 32
_MAX_DEPTH = 8
_MAX_ELEMENTS = 500


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
    """The leaves right below the root, as text; of a repeated one the first. PayloadError.

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
        self._elements = 0

    def doctype(self, *_: object) -> None:
        raise PayloadError("the body declares a document type")

    def start(self, name: str, _attributes: object) -> None:
        self._elements += 1
        if len(self._path) >= _MAX_DEPTH or self._elements > _MAX_ELEMENTS:
            raise PayloadError("the body is nested too deeply or has too many elements")
        self.root = self.root or name
        self._path.append(name)
        self._text = []
        self._leaf = True

    def characters(self, text: str) -> None:
        self._text.append(text)

    def end(self, _name: str) -> None:
        path = ".".join(self._path[1:])
        if path and self._leaf:
            self.found.setdefault(path, "".join(self._text))
        self._path.pop()
        self._leaf = False


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
