"""winmail.dat as Outlook makes it, for tests: attributes, properties, compressed RTF."""

import struct

_LEVEL = {0x9002: 2, 0x8010: 2, 0x800F: 2, 0x9005: 2}


def tnef(*attributes: tuple[int, bytes]) -> bytes:
    """A file of these attributes."""
    head = struct.pack("<IH", 0x223E9F78, 1)
    return head + b"".join(_attribute(name, content) for name, content in attributes)


def _attribute(name: int, content: bytes) -> bytes:
    head = struct.pack("<BHHI", _LEVEL.get(name, 1), name, 6, len(content))
    return head + content + struct.pack("<H", sum(content) & 0xFFFF)


def properties(*values: tuple[int, int, bytes]) -> bytes:
    """A list of MAPI properties: (id, type, value); text and bytes with their length."""
    out = struct.pack("<I", len(values))
    for name, kind, value in values:
        out += struct.pack("<HH", kind, name)
        if name >= 0x8000:
            out += b"g" * 16 + struct.pack("<II", 0, 7)
        if kind in (0x1E, 0x1F, 0x102):
            out += struct.pack("<II", 1, len(value))
        out += value + b"\0" * (-len(value) % 4)
    return out


def stored_rtf(rtf: bytes) -> bytes:
    """RTF in the container of compressed RTF, uncompressed."""
    return struct.pack("<II4sI", len(rtf) + 12, len(rtf), b"MELA", 0) + rtf


#: The example of MS-OXRTFCP, 4.1.1.
COMPRESSED_RTF = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a0072637067313235423"
    "20af32068656c090020627705b06c647d0a800fa0"
)
COMPRESSED_TEXT = "hello world"
