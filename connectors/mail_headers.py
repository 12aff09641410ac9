"""What stands in a mail's headers: words, people, ids, parameters, file names.

RFC 5322, 2045, 2047, 2231. Values are bytes as they arrived; nothing here trusts a label or raises.
"""

import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote_to_bytes

from connectors.charsets import decode

#: What is read of one header.
MAX_VALUE = 8192

_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bq])\?([^\r\n]{0,2000}?)\?=", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"(\?=)\s+(?==\?[^?\s]{1,60}\?[bqBQ]\?)")


def from_bytes(value: bytes, charset: str = "") -> str:
    """A header's bytes as text. `charset` is what the mail's body claims to be in."""
    raw = value[:MAX_VALUE]
    helps = not raw.isascii() and not charset.lower().startswith(("utf-16", "utf-32", "utf-7"))
    return decode(raw, charset if helps else "")


def header_text(value: bytes | str, charset: str = "") -> str:
    """A header as readable text on one line: encoded words and raw 8-bit bytes decoded.

    Adjacent words of one charset are joined before decoding, since some mailers cut inside a
    character (RFC 2047 forbids it). No control characters are left: a decoded line feed in a
    subject would become a header of its own in the answer.
    """
    text = from_bytes(value, charset) if isinstance(value, bytes) else value[:MAX_VALUE]
    if "=?" in text:
        text = "".join(_words(_BETWEEN_WORDS.sub(r"\1", text)))
    return clean_line(text)


def _words(text: str) -> Iterator[str]:
    pending: tuple[str, bytes] | None = None
    rest, at = "", 0
    for match in _WORD.finditer(text):
        plain, charset = text[at : match.start()], match[1].split("*")[0].lower()
        if pending and (plain or pending[0] != charset):
            yield decode(pending[1], pending[0])
            pending, rest = None, ""
        yield plain
        content, rest = _unword(match[2], match[3], rest)
        pending = (charset, (pending[1] if pending else b"") + content)
        at = match.end()
    if pending:
        yield decode(pending[1], pending[0])
    yield text[at:]


def _unword(encoding: str, content: str, rest: str) -> tuple[bytes, str]:
    """An encoded word's bytes, and what belongs to the next one: base64 cut inside its four."""
    if encoding.lower() == "b":
        bare = rest + re.sub(r"[^A-Za-z0-9+/]", "", content)
        whole = bare if "=" in content else bare[: len(bare) // 4 * 4]
        left = bare[len(whole) :]
        if left and len(left) % 4 != 1:
            return b64decode(whole + left + "=" * (-len(left) % 4)), left if len(left) == 1 else ""
        return b64decode(whole + "=" * (-len(whole) % 4)) if len(whole) % 4 != 1 else b"", left
    spaced = content.replace("_", " ").encode("ascii", "replace")
    return re.sub(rb"=([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), spaced), ""


_NO_LETTERS = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def clean_line(text: str) -> str:
    """One line without control, formatting and bidirectional override characters."""
    if not text.isprintable():  # mostly it is, and letter by letter takes long
        text = "".join(c if unicodedata.category(c) not in _NO_LETTERS else " " for c in text)
    return re.sub("  +", " ", text).strip()


def safe_name(name: str) -> str:
    """A file name that names a file and nothing else."""
    bare = re.split(r"[/\\]", clean_line(name))[-1].lstrip(". ")
    return unicodedata.normalize("NFC", bare)[:200]


# People

#: Nothing that a parser may take for an end: `alice@a.example)bob@b.example` (CVE-2023-27043).
PLAIN_ADDRESS = re.compile(
    r"[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]{1,64}@[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]{1,255}"
)


def addresses(values: Sequence[bytes], charset: str = "") -> list[tuple[str, str]]:
    """(name, lower-case address) of each; what is no plain address is left out."""
    return plain(people(values, charset))


def plain(found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of people whose address is one, in lower case."""
    return [(name, a.lower()) for name, a in found if PLAIN_ADDRESS.fullmatch(a)]


def people(values: Iterable[bytes], charset: str = "") -> list[tuple[str, str]]:
    """(name, what stands where an address should) of everybody named."""
    found: list[tuple[str, str]] = []
    for value in values:
        waiting = ""
        for piece in _pieces(from_bytes(value, charset)):
            bare = piece.strip()
            if bare and "@" not in bare and "<" not in bare:  # `Wei, Li <li@example.com>`
                waiting += f"{bare}, "
                continue
            if bare:
                found.append(_person(waiting + bare))
            waiting = ""
        if waiting:
            found.append(("", waiting.rstrip(", ")))
    return found


#: What separates nobody: quoted names, comments, what is in angle brackets.
_OPAQUE = re.compile(r'"(?:[^"\\]|\\.)*"|\((?:[^()\\]|\\.)*\)|<[^<>]*>', re.DOTALL)
_SEPARATOR = re.compile(r"[,;:]|(?<=\S)[()](?=\S)|(?<=>)\s*(?=<)")


def _pieces(text: str) -> Iterator[str]:
    """The text between commas, semicolons and group names, outside of quotes and comments."""
    if not _SEPARATOR.search(text):  # one person, mostly
        yield text
        return
    masked = _OPAQUE.sub(_masked, text)
    start = 0
    for match in _SEPARATOR.finditer(masked):
        if match[0] != ":":
            yield text[start : match.start()]
        start = match.end()
    yield text[start:]


def _masked(match: re.Match[str]) -> str:
    inner = "_" * (len(match[0]) - 2)
    return f"<{inner}>" if match[0][0] == "<" else f"_{inner}_"


def _person(piece: str) -> tuple[str, str]:
    if piece.endswith(">"):
        name, _, address = piece[:-1].rpartition("<")
        bare = re.sub(r"\([^()]*\)", " ", name) if "(" in name else name
        return header_text(_unquoted(bare) or _unquoted(name)), address.strip()
    comment = re.search(r"\(([^()]*)\)$", piece) if piece.endswith(")") else None
    bare = piece[: comment.start()] if comment else piece
    return header_text(comment[1] if comment else ""), bare.strip()


def _unquoted(text: str) -> str:
    """A name, and quotes around it or around a part of it gone."""
    if '"' in text:
        text = _QUOTED.sub(lambda m: re.sub(r"\\(.)", r"\1", m[1]), text)
    return text.strip()


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


# Ids


def ids(value: bytes) -> list[str]:
    """Message ids, in their brackets; blanks that crept in are left out."""
    text = value[:MAX_VALUE].decode("ascii", "surrogateescape")
    bare = [re.sub(r"\s", "", each) for each in re.findall(r"<([^<>]{1,600})>", text)]
    if not bare and "<" not in text:
        bare = [word for word in text.split() if "@" in word]
    return [f"<{each}>" for each in bare if re.fullmatch(r"[!-;=?-~]{1,500}", each)]


# Parameters

_PARAMETER = re.compile(r';\s*([^\s=;"]{1,80})\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)


def parameters(value: bytes, charset: str = "") -> dict[str, str]:
    """The parameters of Content-Type or Content-Disposition; RFC 2231's go before plain ones."""
    if b";" not in value:
        return {}
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for name, quoted in _PARAMETER.findall(";" + from_bytes(value, charset).partition(";")[2]):
        text = _parameter(quoted)
        bare, star, number = name.lower().partition("*")
        if not star:
            plain.setdefault(bare, text)
            continue
        extended = number.endswith("*") or not number
        digits = number.rstrip("*") or "0"
        if digits.isdecimal() and len(digits) < 4:
            pieces.setdefault(bare, {})[int(digits)] = (text, extended)
    return plain | {name: _joined(found) for name, found in pieces.items()}


def _parameter(quoted: str) -> str:
    """Without quotes; a backslash that escapes nothing is part of a Windows path."""
    bare = quoted.strip()
    if len(bare) > 1 and bare[0] == bare[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", bare[1:-1])
    return bare.strip('"')


def _joined(pieces: dict[int, tuple[str, bool]]) -> str:
    """RFC 2231: numbered pieces, percent-encoded in a charset that the first one names."""
    charset, content = "", b""
    for number in sorted(pieces):
        text, extended = pieces[number]
        if extended and number == min(pieces) and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        content += unquote_to_bytes(text) if extended else text.encode("utf-8", "replace")
    return decode(content, charset)


def file_name(disposition: bytes, content_type: bytes, charset: str = "") -> str:
    """A part's name, decoded, without any path or trick; '' if there is none."""
    found = parameters(disposition, charset).get("filename", "")
    name = found or parameters(content_type, charset).get("name", "")
    return safe_name(_unescaped(header_text(name))) if name else ""


def _unescaped(name: str) -> str:
    """Percent-encoding in a plain name (some mailers do that) undone, if it holds UTF-8."""
    if not re.search(r"%[89a-fA-F][0-9a-fA-F]%", name):
        return name
    try:
        return unquote_to_bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        return name
