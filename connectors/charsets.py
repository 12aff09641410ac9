"""Bytes of a mail as text, whatever their label says.

Labels lie: GBK is called gb2312, us-ascii or iso-8859-1, UTF-8 is called anything, Windows
characters are called ISO. A label is believed where its text makes sense; then what the bytes
themselves look like decides.

Labels: https://encoding.spec.whatwg.org/#names-and-labels
"""

import codecs
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

#: What is looked at to judge how likely a reading is.
_SAMPLE = 4000

_GB = ("gb2312", "gbk", "cp936", "x-gbk", "gb_2312-80", "gb18030", "gb18030-2022", "x-cp936",
       "windows-936", "ms936", "csgb2312", "chinese", "gb2312_charset", "gb_2312", "euc-cn",
       "x-euc-cn", "iso-ir-58")  # fmt: skip
_BIG5 = ("big5", "x-big5", "cn-big5", "big-5", "big5-eten", "cp950", "windows-950", "big5-hkscs",
         "big5hkscs", "x-windows-950", "zh-big5")  # fmt: skip
_SJIS = ("shift_jis", "shift-jis", "sjis", "x-sjis", "ms_kanji", "windows-31j", "cp932",
         "sjis-win", "csshiftjis", "x-ms-cp932", "ms932")  # fmt: skip
_EUC_JP = ("euc-jp", "eucjp", "x-euc-jp", "x-euc", "cp51932", "eucjp-win", "eucjp-ms")
_JIS = ("iso-2022-jp", "csiso2022jp", "iso-2022-jp-ms", "cp50220", "cp50221", "cp50222", "jis",
        "iso-2022-jp-1", "iso-2022-jp-2", "iso-2022-jp-3", "iso-2022-jp-2004", "iso2022-jp",
        "iso2022-jp-1", "iso2022-jp-2", "iso2022-jp-3", "iso2022-jp-ext",
        "iso2022-jp-2004")  # fmt: skip
_KOREAN = ("euc-kr", "euckr", "ks_c_5601-1987", "ks_c_5601", "ksc5601", "ks_c_5601-1989",
           "korean", "cp949", "uhc", "windows-949", "x-windows-949", "iso-ir-149")  # fmt: skip
_WESTERN = ("iso-8859-1", "latin1", "latin-1", "l1", "iso8859-1", "iso_8859-1", "windows-1252",
            "cp1252", "cp-1252", "ansi", "iso-8859-15", "latin9", "iso8859-15")  # fmt: skip
#: Labels that say no more than that something was there.
_NONE = ("", "us-ascii", "ascii", "ansi_x3.4-1968", "ansi_x3.110-1983", "unknown-8bit", "unknown",
         "x-unknown", "default", "default_charset", "8bit", "binary", "x-user-defined", "none",
         "_autodetect", "_autodetect_all", "iso-8859-8bit", "7bit")  # fmt: skip
_OTHER = {
    "utf8": "utf-8", "uft-8": "utf-8", "utf8mb4": "utf-8", "unicode-1-1-utf-8": "utf-8",
    "cp65001": "utf-8", "utf-8n": "utf-8", "unicode-1-1-utf-7": "utf-7", "hz-gb-2312": "hz",
    "cp-850": "cp850", "tis-620": "cp874", "windows-874": "cp874", "iso-8859-11": "cp874",
    "iso-8859-8-i": "iso-8859-8", "iso-8859-6-i": "iso-8859-6", "iso-8859-9": "cp1254",
    "x-mac-cyrillic": "mac-cyrillic", "x-mac-roman": "mac-roman", "macintosh": "mac-roman",
    "koi8": "koi8-r", "cp-1251": "cp1251", "win-1251": "cp1251", "win1251": "cp1251",
}  # fmt: skip
_NAMES = {
    **{label: family for family, labels in (
        ("gb18030", _GB), ("big5", _BIG5), ("cp932", _SJIS), ("euc-jp", _EUC_JP),
        ("iso-2022-jp", _JIS), ("cp949", _KOREAN), ("cp1252", _WESTERN), ("", _NONE),
    ) for label in labels},
    **_OTHER,
    "iso-8859-15": "iso-8859-15", "latin9": "iso-8859-15", "iso8859-15": "iso-8859-15",
}  # fmt: skip
#: Python's text codecs that are no charset of mail; punycode takes quadratic time.
_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"}
#: Readings that follow one another where the first does not fit.
_READINGS = {
    "big5": ("big5", "big5hkscs", "cp950"),
    "cp932": ("cp932", "shift_jis_2004"),
    "euc-jp": ("euc_jp", "euc_jis_2004"),
    "cp1252": ("cp1252", "latin-1"),
}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SEVEN_BIT = ("iso2022-kr", "hz", "utf-7")


def decode(content: bytes, declared: str = "") -> str:
    """Bytes as text. Never raises; what means nothing becomes U+FFFD."""
    name = _name(declared[:100]) if declared else ""
    if content.isascii():
        return _seven_bit(content, name)
    for mark, charset in _MARKS:
        if content.startswith(mark):
            return content.decode(charset, "replace").removeprefix("\ufeff")
    text = _utf8(content, name)
    if text is None and name not in ("", "utf-8"):
        text = _as_declared(content, name)
    return text if text is not None else _guess(content)


_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@lru_cache(maxsize=64)
def _name(declared: str) -> str:
    """The charset that a label means; '' if it means none."""
    bare = re.split(r"[\s;,$*]", declared.strip(" \t\r\n\"'_").lower(), maxsplit=1)[0]
    bare = bare.strip("\"'_")
    if bare in _NAMES:
        return _NAMES[bare]
    try:
        found = codecs.lookup(bare)
        b"".decode(bare)  # LookupError for base64 and the like
    except (LookupError, ValueError):
        return ""
    found_name = found.name.replace("_", "-")
    return "" if found_name in _NO_CHARSETS else _NAMES.get(found_name, found_name)


def _seven_bit(content: bytes, name: str) -> str:
    """ASCII bytes: as they are, unless they carry a charset with shifts."""
    if b"\x1b" in content and name in ("", "utf-8", "iso-2022-jp", "cp932", "euc-jp"):
        return _jis(content)
    if name.startswith(_SEVEN_BIT) or name.startswith("utf-16") or name.startswith("utf-32"):
        text = _strictly(content, name)
        return text if text is not None else content.decode("ascii")
    return content.decode("ascii")


def _utf8(content: bytes, name: str) -> str | None:
    """UTF-8, which hardly any other text is by chance; None if it is not.

    Sequences of two bytes alone may be Chinese or Korean of that label, and everyday Chinese under
    no label: 谢谢 in GBK is лл. A few bad bytes, or an end in the middle of a character, leave the
    rest UTF-8 where that was the label.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return _nearly_utf8(content) if name in ("utf-8", "") else None
    short = all(c < "\u0800" for c in text[:_SAMPLE])
    if short and name in ("gb18030", "big5", "cp949", "euc-jp", "cp932"):
        other = _as_declared(content, name)
        return other if other is not None else text
    if short and name != "utf-8" and _NO_LATIN.fullmatch(text[:_SAMPLE]):
        other = _strictly(content, "gb18030")
        return other if other is not None and _is_chinese(other, 0.95) else text
    return text


#: Beyond ASCII, letters of Cyrillic, Greek and other scripts alone.
_NO_LATIN = re.compile("[\x00-\x7f\u0370-\u07ff]*")


def _nearly_utf8(content: bytes) -> str | None:
    text = content.decode("utf-8", "replace")
    if text[-1:] == "\ufffd" and text.count("\ufffd") == 1 and len(text) > 2:
        return text
    bad, good = text.count("\ufffd"), sum(c > "\u007f" for c in text) - text.count("\ufffd")
    return text if good >= 4 and bad * 8 <= good else None


def _as_declared(content: bytes, name: str) -> str | None:
    """The text by its label; None if it makes no sense."""
    own = next(
        (t for r in _READINGS.get(name, (name,)) if (t := _strictly(content, r)) is not None), None
    )
    if name in ("euc-jp", "cp932") and own is None and b"\x1b" in content:
        own = _jis(content)
    if own is None and name in _LENIENT:
        own = _leniently(content, name)
    if own is None:
        return None
    rival = _RIVALS.get(name)
    return rival(content, own) if rival else own


_LENIENT = ("gb18030", "big5", "cp932", "euc-jp", "cp949")


def _strictly(content: bytes, charset: str) -> str | None:
    try:
        text = content.decode(charset)
    except (LookupError, ValueError):
        return None
    return None if _LONE_SURROGATE.search(text) else text


def _leniently(content: bytes, charset: str) -> str | None:
    """With a few bad bytes in it; the euro sign of cp936, 0x80, is none. None if they are many."""
    try:
        text = content.decode(charset, "surrogateescape")
    except (LookupError, ValueError):
        return None
    if charset == "gb18030":
        text = text.replace("\udc80", "€")
    bad = len(_LONE_SURROGATE.findall(text))
    good = sum(c > "\u007f" for c in text) - bad
    return _LONE_SURROGATE.sub("\ufffd", text) if bad <= 1 or bad * 20 <= good else None


# Which of two readings


def _western_or_other(content: bytes, own: str) -> str:
    """Western text has its accents one by one; other scripts under that label are nothing else."""
    if _is_dense(content):
        for reading in (_cyrillic, _chinese, _japanese, _taiwanese):
            if (text := reading(content)) is not None:
                return text
    chinese = _strictly(content, "gb18030")
    if chinese is not None and _is_chinese(chinese) and not _hangul_rather(content):
        return chinese
    japanese = _japanese(content)
    return own if japanese is None else japanese


def _is_dense(content: bytes) -> bool:
    """More of it is beyond ASCII than any Western language writes."""
    sample = _BRACKETED.sub(b"", content[:_SAMPLE])
    high = sum(b > 0x7F for b in sample)
    letters = len(_LETTER.findall(sample))
    return high >= 6 and high > letters


_LETTER = re.compile(rb"[A-Za-z]")
#: Markup, and the address beside a name.
_BRACKETED = re.compile(rb"<[\x20-\x7e]{0,200}>")


def _big5_or_gb(content: bytes, own: str) -> str:
    other = _strictly(content, "gb18030")
    return other if other and _common(other, _gb_level) > _common(own, _big5_level) + 0.25 else own


def _korean_or_gb(content: bytes, own: str) -> str:
    other = _strictly(content, "gb18030")
    return other if other and _hanja(own) > 0.15 and _common(other, _gb_level) > 0.9 else own


def _hanja(text: str) -> float:
    letters = [c for c in text[:_SAMPLE] if "\u4e00" <= c <= "\ud7a3" or "\uf900" <= c <= "\ufaff"]
    return sum(not "가" <= c <= "힣" for c in letters) / len(letters) if letters else 0.0


def _gb_or_other(content: bytes, own: str) -> str:
    other = _strictly(content, "big5")
    if other and _common(own, _gb_level) < 0.5 and _common(other, _big5_level) > 0.9:
        return other
    return own


_RIVALS: dict[str, Callable[[bytes, str], str]] = {
    "cp1252": _western_or_other,
    "iso-8859-15": _western_or_other,
    "big5": _big5_or_gb,
    "gb18030": _gb_or_other,
    "cp949": _korean_or_gb,
}


def _is_chinese(text: str, share: float = 0.6) -> bool:
    marked = sum(c > "\u007f" for c in text[:_SAMPLE])
    return marked >= 2 and _common(text, _gb_level) >= share


def _common(text: str, level: Callable[[bytes], bool]) -> float:
    """The share of the characters beyond ASCII that are everyday ones of a charset."""
    marked = [c for c in text[:_SAMPLE] if c > "\u007f"]
    charset = "gb2312" if level is _gb_level else "big5"
    everyday = sum(level(c.encode(charset, "ignore")) for c in marked)
    return everyday / len(marked) if marked else 0.0


def _gb_level(pair: bytes) -> bool:
    """Punctuation, full-width letters, and the 3,755 hanzi of the first level."""
    return len(pair) == 2 and (pair[0] in (0xA1, 0xA2, 0xA3) or 0xB0 <= pair[0] <= 0xD7)


def _big5_level(pair: bytes) -> bool:
    """Punctuation, full-width letters, and the 5,401 hanzi of the first level."""
    return len(pair) == 2 and 0xA1 <= pair[0] <= 0xC6


# Without a label that helps


def _guess(content: bytes) -> str:
    for reading in (_cyrillic, _chinese, _japanese, _taiwanese, _western, _few_accents, _detected):
        if (text := reading(content)) is not None:
            return text
    gb = _leniently(content, "gb18030")
    return gb if gb is not None else content.decode("utf-8", "replace")


def _chinese(content: bytes) -> str | None:
    text = _strictly(content, "gb18030")
    if text is None and len(content) > 80:
        text = _leniently(content, "gb18030")
    if text is None or _kana(text) > 0.15:  # EUC-JP has its kana where GB 2312 has them
        return None
    if _hangul_rather(content):
        return _strictly(content, "cp949")
    if _is_chinese(text, 0.75):
        return text
    taiwanese = _strictly(content, "big5")
    traditional = taiwanese is not None and _common(taiwanese, _big5_level) > 0.9
    return text if _is_chinese(text, 0.5) and not traditional else None


def _hangul_rather(content: bytes) -> bool:
    """All hangul lie in 25 of the rows that Chinese text is spread over; some are in any text."""
    korean = _strictly(content, "euc_kr")
    if korean is None or _hangul(korean) < 0.95:
        return False
    hangul = [c for c in korean[:_SAMPLE] if "가" <= c <= "힣"]
    return len(hangul) >= 3 and sum(c in _EVERYDAY for c in hangul) >= 0.3 * len(hangul)


#: Particles, endings and the commonest syllables of Korean.
_EVERYDAY = frozenset(
    "이다는을에의가하고지로기사은한도를리어시자해서나수인그들일정대아으부보전것라장상제여마니스구조원국"
    "안녕세요습감합까게있없주문배송확문의드립된되오신청"
)


def _hangul(text: str) -> float:
    marked = [c for c in text[:_SAMPLE] if c > "\u007f"]
    return sum("가" <= c <= "힣" for c in marked) / len(marked) if marked else 0.0


def _japanese(content: bytes) -> str | None:
    """Shift_JIS or EUC-JP, if the text has kana as Japanese has."""
    for charset in ("cp932", "euc_jp"):
        text = _strictly(content, charset)
        if text is not None and _kana(text) > 0.2:
            return text
    return None


def _kana(text: str) -> float:
    marked = [c for c in text[:_SAMPLE] if c > "\u007f"]
    return sum("\u3041" <= c <= "\u30fa" for c in marked) / len(marked) if len(marked) > 1 else 0.0


def _taiwanese(content: bytes) -> str | None:
    text = _strictly(content, "big5")
    return text if text is not None and _common(text, _big5_level) > 0.9 else None


def _western(content: bytes) -> str | None:
    """Letters with accents, one or two at a time."""
    return None if _THREE_HIGH.search(content) else _strictly(content, "cp1252")


_THREE_HIGH = re.compile(rb"[\x80-\xff]{3}")


def _few_accents(content: bytes) -> str | None:
    """Letters of Western words in a row, too few to detect anything by them."""
    text = _strictly(content, "cp1252")
    marked = [c for c in text or "" if c > "\u007f"]
    return text if len(marked) < 24 and all(c.isalpha() and c < "\u0180" for c in marked) else None


def _cyrillic(content: bytes) -> str | None:
    """Words of Cyrillic letters alone, most of them small."""
    high = bytes(b for b in content[:_SAMPLE] if b > 0x7F)
    apart = sum(b < 0xC0 for b in high)
    if len(high) < 6 or apart * 10 > len(high) or any(b < 0xC0 for b in high if b not in _YO):
        return None
    for charset in ("cp1251", "koi8-r"):
        letters = high.decode(charset)
        if sum(c.islower() for c in letters) >= 0.8 * len(letters):
            return content.decode(charset, "replace")
    return None


#: The letter that both charsets have apart from the others: ё and Ё.
_YO = bytes.fromhex("a3 b3 a8 b8")


def _detected(content: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(content[: 64 * 1024]).best()
    return _strictly(content, best.encoding) if best else None


# ISO-2022-JP, with the characters that Windows added

_SHIFT = re.compile(rb"\x1b(\$[@B]|\$\([@BDOQ]|\([BJIH])")


def _jis(content: bytes) -> str:
    """ISO-2022-JP; rows that only Windows has (①, ㈱, 髙) are read as Windows writes them."""
    out: list[str] = []
    at, shift = 0, b"(B"
    for match in [*_SHIFT.finditer(content), None]:
        run = content[at : match.start() if match else len(content)]
        out.append(_run(run, shift))
        if match:
            at, shift = match.end(), match[1]
    return "".join(out)


def _run(run: bytes, shift: bytes) -> str:
    if shift in (b"$B", b"$@", b"$(B", b"$(@"):
        return "".join(_two_bytes(line) for line in re.split(rb"([\r\n]+)", run))
    if shift == b"(I":
        return bytes(b | 0x80 for b in run if b > 0x20).decode("cp932", "replace")
    if shift.startswith(b"$("):
        return (b"\x1b" + shift + run + b"\x1b(B").decode("iso2022_jp_3", "replace")
    return run.decode("ascii", "replace")


def _two_bytes(run: bytes) -> str:
    if run[:1] in (b"\r", b"\n"):
        return run.decode("ascii")
    pairs: Iterable[tuple[int, int]] = zip(run[::2], run[1::2], strict=False)
    return bytes(b for row, cell in pairs for b in _shifted(row, cell)).decode("cp932", "replace")


def _shifted(row: int, cell: int) -> tuple[int, int]:
    """A JIS row and cell as the two bytes of Shift_JIS."""
    lead = ((row - 0x21) >> 1) + (0x81 if row < 0x5F else 0xC1)
    if row % 2:
        return lead & 0xFF, (cell + (0x1F if cell < 0x60 else 0x20)) & 0xFF
    return lead & 0xFF, (cell + 0x7E) & 0xFF
