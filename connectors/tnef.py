"""winmail.dat: the body and the files that Outlook hides in application/ms-tnef.

Only what is needed of the format, within caps: attribute after attribute, each with its length;
in two of them lists of MAPI properties.

Format: https://learn.microsoft.com/openspecs/exchange_server_protocols/ms-oxtnef/
Compressed RTF: https://learn.microsoft.com/openspecs/exchange_server_protocols/ms-oxrtfcp/
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from connectors.charsets import decode

_SIGNATURE = b"\x78\x9f\x3e\x22"
_MAX_FILES = 50
_MAX_PROPERTIES = 1000
_MAX_RTF = 256 * 1024

_CODE_PAGE, _MESSAGE, _BODY = 0x9007, 0x9003, 0x800C
_FILE_BEGINS, _FILE_TITLE, _FILE_BYTES, _FILE = 0x9002, 0x8010, 0x800F, 0x9005

_PLAIN, _RTF, _HTML = 0x1000, 0x1009, 0x1013
_LONG_NAME, _SHORT_NAME, _MEDIA_TYPE, _BYTES = 0x3707, 0x3704, 0x370E, 0x3701
#: Property types: fixed sizes, and those that have a length of their own.
_SIZES = {
    0x2: 4,
    0x3: 4,
    0x4: 4,
    0x5: 8,
    0x6: 8,
    0x7: 8,
    0xA: 4,
    0xB: 4,
    0x14: 8,
    0x40: 8,
    0x48: 16,
}
_COUNTED = {0x1E, 0x1F, 0xD, 0x102}


@dataclass
class File:
    """A file in it."""

    name: str = ""
    media_type: str = "application/octet-stream"
    content: bytes = b""


@dataclass
class Tnef:
    """What it holds."""

    text: str = ""
    html: str = ""
    files: list[File] = field(default_factory=list)


def read(raw: bytes) -> Tnef | None:
    """What is in these bytes; None if they are no TNEF. As much as is whole of what is cut off."""
    if not is_tnef(raw):
        return None
    found, charset = Tnef(), "cp1252"
    for name, content in _attributes(raw):
        if name == _CODE_PAGE and len(content) >= 4:
            charset = f"cp{struct.unpack_from('<I', content)[0]}"
        elif name == _BODY:
            found.text = _text(content, charset)
        elif name == _MESSAGE:
            _read_message(found, content, charset)
        elif name == _FILE_BEGINS and len(found.files) < _MAX_FILES:
            found.files.append(File())
        elif found.files:
            _read_file(found.files[-1], name, content, charset)
    return found


def is_tnef(raw: bytes) -> bool:
    """The bytes begin as TNEF does."""
    return raw.startswith(_SIGNATURE) and len(raw) >= 6


def _attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 6
    while at + 9 <= len(raw):
        _, name, _, length = struct.unpack_from("<BHHI", raw, at)
        if at + 9 + length > len(raw):
            return
        yield name, raw[at + 9 : at + 9 + length]
        at += 9 + length + 2  # and a checksum that nobody keeps right


def _read_message(found: Tnef, content: bytes, charset: str) -> None:
    for name, kind, value in _properties(content):
        if name == _PLAIN:
            found.text = _string(value, kind, charset)
        elif name == _HTML:
            found.html = _text(value, "" if kind == 0x102 else charset)
        elif name == _RTF and not found.text:
            found.text = rtf_text(_decompressed(value))


def _read_file(file: File, name: int, content: bytes, charset: str) -> None:
    if name == _FILE_TITLE:
        file.name = file.name or _text(content, charset)
    elif name == _FILE_BYTES:
        file.content = content
    elif name == _FILE:
        for key, kind, value in _properties(content):
            if key == _LONG_NAME or (key == _SHORT_NAME and not file.name):
                file.name = _string(value, kind, charset)
            elif key == _MEDIA_TYPE:
                file.media_type = _string(value, kind, charset).lower() or file.media_type
            elif key == _BYTES and not file.content:
                file.content = value


def _properties(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(id, type, value) of each MAPI property."""
    try:
        (count,) = struct.unpack_from("<I", content)
        at = 4
        for _ in range(min(count, _MAX_PROPERTIES)):
            kind, name = struct.unpack_from("<HH", content, at)
            at = _after_name(content, at + 4) if name >= 0x8000 else at + 4
            many, kind = bool(kind & 0x1000), kind & 0x0FFF
            values, at = _values(content, at, kind, many)
            if values:
                yield name, kind, values[0]
    except struct.error:
        return


def _after_name(content: bytes, at: int) -> int:
    """Behind the name of a named property: a GUID, and a number or a text."""
    (is_text,) = struct.unpack_from("<I", content, at + 16)
    if not is_text:
        return at + 24
    length: int = struct.unpack_from("<I", content, at + 20)[0]
    return at + 24 + -(-length // 4) * 4


def _values(content: bytes, at: int, kind: int, many: bool) -> tuple[list[bytes], int]:
    count = 1
    if many or kind in _COUNTED:
        (count,) = struct.unpack_from("<I", content, at)
        at += 4
    values: list[bytes] = []
    for _ in range(min(count, _MAX_PROPERTIES)):
        size = _SIZES.get(kind, 0)
        if kind in _COUNTED:
            (size,) = struct.unpack_from("<I", content, at)
            at += 4
        if at + size > len(content) or (not size and kind not in _COUNTED):
            raise struct.error("cut off")
        values.append(content[at : at + size])
        at += -(-size // 4) * 4
    return values, at


def _string(value: bytes, kind: int, charset: str) -> str:
    return _text(value, "utf-16-le" if kind == 0x1F else charset)


def _text(value: bytes, charset: str) -> str:
    if charset == "utf-16-le":
        return value.decode("utf-16-le", "replace").rstrip("\0")
    return decode(value.rstrip(b"\0"), charset)


# RTF

_PRELOAD = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern "
    b"\\fscript \\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0"
    b"\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)


def _decompressed(content: bytes) -> bytes:
    """Compressed RTF (LZFu), up to a cap."""
    if len(content) < 16:
        return b""
    if content[8:12] == b"MELA":
        return content[16 : 16 + _MAX_RTF]
    window = _Window()
    at = 16
    while at < len(content) and len(window.out) < _MAX_RTF:
        flags, at = content[at], at + 1
        for bit in range(8):
            is_copy = flags >> bit & 1
            if at + is_copy >= len(content):
                return bytes(window.out)
            if not is_copy:
                window.put(content[at])
            elif not window.copy(content[at] << 4 | content[at + 1] >> 4, content[at + 1] & 15):
                return bytes(window.out)
            at += 1 + is_copy
    return bytes(window.out)


class _Window:
    """The last 4,096 bytes, from which runs are copied."""

    def __init__(self) -> None:
        self._ring = bytearray(_PRELOAD.ljust(4096, b"\0"))
        self._at = len(_PRELOAD)
        self.out = bytearray()

    def put(self, byte: int) -> None:
        self.out.append(byte)
        self._ring[self._at] = byte
        self._at = (self._at + 1) % 4096

    def copy(self, offset: int, length: int) -> bool:
        """False at the end: a run that begins where the next byte goes."""
        if offset == self._at:
            return False
        for n in range(length + 2):
            self.put(self._ring[(offset + n) % 4096])
        return True


_RTF_TOKEN = re.compile(
    rb"\\([a-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-z])|([{}])|[\r\n]+"
)
_NO_TEXT = {
    b"fonttbl", b"colortbl", b"stylesheet", b"info", b"pict", b"object", b"themedata", b"generator",
    b"datastore", b"latentstyles", b"listtable", b"listoverridetable", b"htmltag", b"mhtmltag",
}  # fmt: skip
_BREAKS = {b"par": "\n", b"line": "\n", b"tab": "\t", b"cell": "\t", b"row": "\n"}


def rtf_text(rtf: bytes) -> str:
    """The text of RTF, without anything that makes it look nice."""
    page = _Rtf()
    at = 0
    for match in _RTF_TOKEN.finditer(rtf):
        page.raw(rtf[at : match.start()])
        page.token(match)
        at = match.end()
    page.raw(rtf[at:])
    return page.done()


class _Rtf:
    def __init__(self) -> None:
        self._charset = "cp1252"
        self._out: list[str] = []
        self._bytes = bytearray()
        self._groups: list[bool] = []
        self._silent = False
        self._skip = 0

    def raw(self, content: bytes) -> None:
        """Bytes that stand for themselves, but for those that stand in for a character."""
        skipped = min(self._skip, len(content))
        self._skip -= skipped
        if not self._silent:
            self._bytes += content[skipped:]

    def token(self, match: re.Match[bytes]) -> None:
        word, number, coded, symbol, brace = match.groups()
        if coded:
            self.raw(bytes([int(coded, 16)]))
        elif brace:
            self._group(brace)
        elif symbol == b"*":
            self._silent = True
        elif symbol in (b"\\", b"{", b"}"):
            self.raw(symbol)
        elif word:
            self._word(word, int(number or 0))

    def _group(self, brace: bytes) -> None:
        if brace == b"{":
            self._groups.append(self._silent)
        elif self._groups:
            self._silent = self._groups.pop()

    def _word(self, word: bytes, number: int) -> None:
        if word == b"ansicpg":
            self._charset = f"cp{number}"
        elif word in _NO_TEXT:
            self._silent = True
        elif word == b"u" and not self._silent:
            self._say(chr(number % 65536))
            self._skip = 1
        elif word in _BREAKS and not self._silent:
            self._say(_BREAKS[word])

    def _say(self, text: str) -> None:
        self._out += [decode(bytes(self._bytes), self._charset), text]
        self._bytes.clear()

    def done(self) -> str:
        self._say("")
        whole = "".join(self._out).encode("utf-16-le", "surrogatepass")
        return whole.decode("utf-16-le", "replace").replace("\0", "").strip()
