"""Mail: one reader for every source, one writer for every way out.

RFC 5322, 2045-2047, 2231, 3676, 3834. Real mail breaks all of them, so nothing here trusts a
label: charsets are tried, headers are decoded by hand, and the standard library's parser (with its
old policy: the new one is seven times slower and raises on crafted headers) sees only mail that
passed the caps.
"""

import codecs
import email
import re
import unicodedata
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.header import Header
from email.message import EmailMessage, Message
from email.utils import (
    collapse_rfc2231_value,
    formatdate,
    getaddresses,
    parsedate_to_datetime,
)
from html import unescape
from typing import Any

from chalicelib.errors import PayloadError, RejectedError
from chalicelib.schema import Attachment

MAX_BYTES = 10 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_PARTS = 200
MAX_MULTIPARTS = 20
MAX_TEXT = 64 * 1024
MAX_TAGS = 10_000


@dataclass(frozen=True)
class Mail:
    """What one mail says."""

    message_id: str
    sender: str
    sender_name: str
    #: There is exactly one author: only then may the address count as evidence.
    one_author: bool
    recipients: tuple[str, ...]
    subject: str
    sent_at: datetime | None
    #: What was written now: without quoted history and signature.
    text: str
    #: The whole text, as sent.
    full_text: str
    references: tuple[str, ...]
    attachments: tuple[Attachment, ...]
    automatic: bool


def read(raw: bytes) -> Mail:
    """The mail in these bytes. PayloadError, and nothing else."""
    _demand_caps(raw)
    try:
        return _read(email.message_from_bytes(raw, _class=_counted(), policy=policy.compat32))
    except (RecursionError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise PayloadError(f"the mail cannot be read: {type(error).__name__}") from error


def _demand_caps(raw: bytes) -> None:
    if len(raw) > MAX_BYTES:
        raise PayloadError(f"the mail is over {MAX_BYTES} bytes")
    header = re.split(rb"\r?\n\r?\n", raw[: MAX_HEADER_BYTES + 4], maxsplit=1)[0]
    if len(header) > MAX_HEADER_BYTES:
        raise PayloadError("the mail's header is too long")
    lowered = raw.lower()
    if lowered.count(b"content-type:") > MAX_PARTS or lowered.count(b"multipart/") > MAX_MULTIPARTS:
        raise PayloadError("the mail has too many parts")


def _counted() -> Callable[..., Message]:
    """Makes parts, not too many: one in a multipart needs no header that could be counted."""
    made = 0

    def make(**options: Any) -> Message:
        nonlocal made
        made += 1
        if made > MAX_PARTS:
            raise PayloadError("the mail has too many parts")
        return Message(**options)

    return make


def _read(mail: Message) -> Mail:
    lines = _all(mail, "from")
    authors = _addresses(lines)
    sender = authors[0] if authors else ("", "")
    if "@" not in sender[1]:
        raise PayloadError("the mail has no author's address")
    full_text = _text(mail)
    return Mail(
        message_id=next(iter(_ids(_one(mail, "message-id"))), ""),
        sender=sender[1],
        sender_name=sender[0],
        one_author=len(lines) == 1 and sum("@" in a for _, a in _people(lines)) == 1,
        recipients=tuple(a for _, a in _addresses(_all(mail, "to") + _all(mail, "cc"))),
        subject=header_text(_one(mail, "subject")),
        sent_at=_date(_one(mail, "date")),
        text=without_history(full_text),
        full_text=full_text,
        references=tuple(_references(mail)),
        attachments=tuple(_attachments(mail)),
        automatic=is_automatic(mail),
    )


# Headers


def _all(mail: Message, name: str) -> list[str]:
    """Every value of a header as it arrived; `Message.get` mangles raw 8-bit bytes."""
    return [str(value) for key, value in mail.raw_items() if key.lower() == name]


def _one(mail: Message, name: str) -> str:
    return next(iter(_all(mail, name)), "")


_WORD = re.compile(r"=\?([^?\s]{1,40})\?([bq])\?([^?\s]*)\?=", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"(\?=)\s+(?==\?)")


def header_text(raw: str) -> str:
    """A header as readable text on one line: encoded words and raw 8-bit bytes decoded.

    Adjacent words of one charset are joined before decoding, since some mailers cut inside a
    character (RFC 2047 forbids it). No control characters are left: a decoded line feed in a
    subject would become a header of its own in the answer.
    """
    raw = _BETWEEN_WORDS.sub(r"\1", _from_8bit(raw))
    out: list[str] = []
    pending: tuple[str, bytes] | None = None
    at = 0
    for match in _WORD.finditer(raw):
        plain = raw[at : match.start()]
        charset, content = match[1].split("*")[0].lower(), _unword(match[2], match[3])
        if pending and (plain or pending[0] != charset):
            out.append(decode(pending[1], pending[0]))
            pending = None
        out.append(plain)
        pending = (charset, (pending[1] if pending else b"") + content)
        at = match.end()
    if pending:
        out.append(decode(pending[1], pending[0]))
    out.append(raw[at:])
    return clean_line("".join(out))


def _from_8bit(raw: str) -> str:
    """Raw 8-bit bytes in a header, which the parser keeps as surrogates, decoded."""
    if not any("\udc80" <= c <= "\udcff" for c in raw):
        return raw
    return decode(raw.encode("utf-8", "surrogateescape"), "")


def _unword(encoding: str, content: str) -> bytes:
    if encoding.lower() == "b":
        padded = content + "=" * (-len(content) % 4)
        try:
            return b64decode(padded)
        except ValueError:
            return content.encode("ascii", "replace")
    spaced = content.replace("_", " ").encode("ascii", "replace")
    return re.sub(rb"=([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), spaced)


def clean_line(text: str) -> str:
    """One line without control, formatting and bidirectional override characters."""
    kept = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cs") else " " for c in text)
    return re.sub(r"\s+", " ", "".join(kept)).strip()


def _addresses(values: Sequence[str]) -> list[tuple[str, str]]:
    """(name, lower-case address) of each; what is no plain address is left out."""
    found = _people(values)
    return [(header_text(n), a.lower()) for n, a in found if _PLAIN_ADDRESS.fullmatch(a)]


def _people(values: Sequence[str]) -> list[tuple[str, str]]:
    return getaddresses([_from_8bit(value[:8192]) for value in values])


#: Nothing that a parser may take for an end: `alice@a.example)bob@b.example` (CVE-2023-27043).
_PLAIN_ADDRESS = re.compile(
    r"[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]{1,64}@[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]{1,255}"
)


def _ids(value: str) -> list[str]:
    return re.findall(r"<[!-;=?-~]{1,500}>", value[:8192])


def _references(mail: Message) -> Iterable[str]:
    """What the mail answers, nearest first."""
    nearest = [*_ids(_one(mail, "in-reply-to"))[:1], *reversed(_ids(_one(mail, "references")))]
    return dict.fromkeys(nearest[:20])


def _date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


#: https://www.rfc-editor.org/rfc/rfc3834 and what mailers do instead.
_AUTOMATIC_HEADERS = (
    "X-Autoreply",
    "X-Autorespond",
    "X-Auto-Reply",
    "X-Loop",
    "List-Id",
    "List-Unsubscribe",
)
_AUTOMATIC_SUBJECTS = re.compile(
    r"(?:auto(?:matic)?[- ]?reply|out of (?:the )?office|自动回复|自动答复|自動回覆)\s*[:：]", re.I
)
_AUTOMATIC_SENDERS = re.compile(
    r"(?:mailer-daemon|postmaster|no-?reply|do-?not-?reply)[@+.-]", re.I
)


def is_automatic(mail: Message) -> bool:
    """Sent by a machine: never answered by one."""
    submitted = _one(mail, "auto-submitted").split(";")[0].strip().lower()
    precedence = _one(mail, "precedence").strip().lower()
    suppress = _one(mail, "x-auto-response-suppress").strip().lower()
    return (
        submitted not in ("", "no")
        or precedence in ("bulk", "list", "junk", "auto_reply")
        or suppress not in ("", "none")
        or any(name in mail for name in _AUTOMATIC_HEADERS)
        or _one(mail, "return-path").strip() == "<>"
        or mail.get_content_type() == "multipart/report"
        or bool(_AUTOMATIC_SENDERS.search(_one(mail, "from")))
        or bool(_AUTOMATIC_SUBJECTS.match(header_text(_one(mail, "subject"))))
    )


# Charsets


_ALIASES = {
    **dict.fromkeys(("gb2312", "gbk", "cp936", "x-gbk", "gb_2312-80", "gb18030"), "gb18030"),
    "cp-850": "cp850", "unicode-1-1-utf-7": "utf-7", "x-sjis": "cp932", "shift_jis": "cp932",
    "ks_c_5601-1987": "cp949", "euc-kr": "cp949", "iso-8859-1": "cp1252", "us-ascii": "utf-8",
    "ascii": "utf-8",
}  # fmt: skip
#: Python's text codecs that are no charset of mail; punycode takes quadratic time.
_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape"}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_AFTER = {"big5": ("big5", "big5hkscs", "cp950"), "iso-2022-jp": ("iso-2022-jp", "iso2022_jp_3")}


def decode(content: bytes, declared: str) -> str:
    """Bytes as text, whatever the label says: declared, then UTF-8, then GB 18030, then a guess."""
    name = declared.strip().strip("\"'").lower()
    name = _ALIASES.get(name, name)
    own = _AFTER.get(name, (name,)) if name else ()
    for charset in (*own, "utf-8", "gb18030"):
        if (text := _decoded(content, charset)) is not None:
            return text
    from charset_normalizer import from_bytes

    best = from_bytes(content).best()
    return str(best) if best else content.decode("utf-8", "replace")


def _decoded(content: bytes, charset: str) -> str | None:
    try:
        if codecs.lookup(charset).name in _NO_CHARSETS:
            return None
        text = content.decode(charset)
    except (LookupError, ValueError):
        return None
    return None if _LONE_SURROGATE.search(text) else text


# Bodies


def _text(mail: Message) -> str:
    """All plain parts in order; if there are none, what the HTML says."""
    plain, html = [], []
    for part in _leaves(mail):
        if _is_attachment(part):
            continue
        if _type(part) == "text/plain":
            plain.append(_flowed(part, _content(part)[:MAX_TEXT]))
        elif _type(part) == "text/html":
            html.append(_content(part))
    text = "\n".join(p.strip("\n") for p in plain if p.strip())
    if not text:
        text = "\n".join(html_text(h) for h in html)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")[:MAX_TEXT].strip()


def _leaves(mail: Message) -> Iterable[Message]:
    """Every part that is no container; a forwarded mail is one leaf, its text is not ours."""
    waiting = [mail]
    while waiting:
        part = waiting.pop(0)
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            waiting = [p for p in part.get_payload() if isinstance(p, Message)] + waiting
        else:
            yield part


def _type(part: Message) -> str:
    """The leaf's type; a multipart whose boundary never comes is text."""
    return "text/plain" if part.get_content_maintype() == "multipart" else part.get_content_type()


def _content(part: Message) -> str:
    payload = part.get_payload(decode=True)
    charset = str(part.get_param("charset") or "")
    return decode(payload if isinstance(payload, bytes) else b"", charset)


def _is_attachment(part: Message) -> bool:
    disposition = str(part.get("Content-Disposition", "")).strip().lower()
    is_text = _type(part) in ("text/plain", "text/html")
    return disposition.startswith("attachment") or not is_text or bool(part.get_filename())


def _flowed(part: Message, text: str) -> str:
    """format=flowed undone (RFC 3676): soft breaks joined, stuffing removed, quotes kept apart."""
    if str(part.get_param("format") or "").lower() != "flowed":
        return text
    joint = "" if str(part.get_param("delsp") or "").lower() == "yes" else " "
    lines: list[str] = []
    soft = False
    for line in text.replace("\r\n", "\n").split("\n"):
        bare = line.removeprefix(" ") if not line.startswith(">") else line
        if soft and not bare.startswith(">"):
            lines[-1] += joint + bare.rstrip(" ") if bare else ""
        else:
            lines.append(bare if bare == "-- " else bare.rstrip(" "))
        soft = bare.endswith(" ") and bare != "-- " and not bare.startswith(">")
    return "\n".join(lines)


_BREAKS = re.compile(r"(?i)<(?:br|/p|/div|/tr|/li|/h[1-6]|/blockquote)\b[^<>]*>")


def html_text(html: str) -> str:
    """What a reader of the HTML sees, as lines of text; what is beyond the caps is left out.

    The cleaner takes time in the square of the elements that are open.
    """
    import nh3

    capped = "<".join(html[: MAX_TEXT * 8].split("<")[: MAX_TAGS + 1])
    broken = _BREAKS.sub("\n", capped.replace("\n", " ").replace("\r", " "))
    bare = nh3.clean(broken, tags=set(), clean_content_tags={"script", "style", "title"})
    lines = (re.sub(r"[ \t\u00a0]+", " ", line).strip() for line in unescape(bare).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


# History


_WROTE = re.compile(r"(?:> ?)?(?:on|at) .{6,200}wrote\s*:", re.I)
_HISTORY_LINES = [
    re.compile(p, re.I)
    for p in (
        r"-{2,}\s*(?:原始邮件|原始郵件|回复的原邮件|original(?: message)?)\s*-{2,}",
        r"-{2,}\s*forwarded message\s*-{2,}",
        r"(?:> ?)?[在於于]?\s*\d{4}[-年/].{4,120}(?:写道|寫道)\s*[:：]",
        r".{0,120}<[^<>\s]{3,120}@[^<>\s]{3,120}>.{0,80}(?:写道|寫道|wrote)\s*[:：]",
        _WROTE.pattern,
        r"[_-]{20,}",
    )
]
_LABEL = re.compile(
    r"[*\s|]*(?:发件人|寄件者|寄件人|from|发送时间|发送日期|寄件日期|日期|sent|date|收件人|收件者|to|抄送|cc"
    r"|主\s?题|主旨|subject)[*\s|]*[:：|]",
    re.I,
)
_SIGNATURE_LINE = re.compile(
    r"-- |发自我的.{0,20}|sent from my .{0,30}|获取 ?outlook for .{0,20}|get outlook for .{0,20}",
    re.I,
)


def without_history(text: str) -> str:
    """What was written now: the quoted history cut off, interleaved answers kept.

    Looks at line starts only, so it takes time in proportion to the text. Never empty for a text
    that is not.
    """
    lines = text.split("\n")[:2000]
    end = next((n for n in range(len(lines)) if _begins_history(lines, n)), len(lines))
    below = [line for line in lines[end + 1 :] if line.strip()]
    quoted_below = [line.startswith(">") for line in below]
    interleaved = bool(below) and any(quoted_below) and not all(quoted_below)
    kept = lines if interleaved else lines[:end]
    while kept and (not kept[-1].strip() or kept[-1].startswith(">")):
        kept = kept[:-1]
    cut = next((n for n, line in enumerate(kept) if _SIGNATURE_LINE.fullmatch(line)), len(kept))
    own = "\n".join(kept[:cut]).strip()
    return own or text.strip()


def _begins_history(lines: Sequence[str], n: int) -> bool:
    line = lines[n].strip()[:400]
    if any(p.fullmatch(line) for p in _HISTORY_LINES):
        return True
    joined = f"{line} {lines[n + 1].strip()[:200]}" if n + 1 < len(lines) else line
    if line.lower().startswith(("on ", "> on ")) and _WROTE.fullmatch(joined):
        return True
    labels = [bool(_LABEL.match(each[:200])) for each in lines[n : n + 4]]
    return len(labels) >= 3 and labels[0] and sum(labels) >= 3


# Attachments


def _attachments(mail: Message) -> Iterable[Attachment]:
    for part in _leaves(mail):
        if not _is_attachment(part):
            continue
        if part.get_content_maintype() == "message":
            content = b"".join(p.as_bytes() for p in part.get_payload() if isinstance(p, Message))
        else:
            payload = part.get_payload(decode=True)
            content = payload if isinstance(payload, bytes) else b""
        yield Attachment(
            name=_file_name(part),
            media_type=part.get_content_type(),
            size_bytes=len(content),
            content=content,
        )


def _file_name(part: Message) -> str:
    """The name, decoded, without any path or trick; '' if there is none."""
    for header in ("Content-Disposition", "Content-Type"):
        raw = _one(part, header.lower())
        if raw != (clear := _from_8bit(raw)):
            part.replace_header(header, clear)
    try:
        name = part.get_filename() or ""
        for key, value in part.get_params([], "content-disposition"):
            if key == "filename" and isinstance(value, tuple):  # filename*, before filename
                name = collapse_rfc2231_value(value)
    except (LookupError, ValueError, TypeError):
        name = ""
    return safe_name(header_text(name))


def safe_name(name: str) -> str:
    """A file name that names a file and nothing else."""
    bare = re.split(r"[/\\]", clean_line(name))[-1].lstrip(". ")
    return unicodedata.normalize("NFC", bare)[:200]


# Out


#: What is set raw stays as it is: the library, folding long headers, takes the quotes off names,
#: the blanks out of subjects, and makes encoded words of message ids.
_OUTGOING = policy.SMTP.clone(refold_source="none")
_MEDIA_TYPE = re.compile(r"(?!multipart|message)([a-z]{2,20})/([a-z0-9.+-]{1,100})")


def write(  # noqa: PLR0913  # a mail has that many parts
    *,
    sender: str,
    sender_name: str,
    to: str,
    subject: str,
    text: str,
    message_id: str,
    references: Sequence[str],
    sent_at: datetime,
    automatic: bool,
    attachments: Sequence[Attachment] = (),
) -> EmailMessage:
    """A mail, ready to be sent. RejectedError if it would say anything else than it should.

    Python before 3.11.10 lets an encoded word with a line feed become a header of its own
    (CVE-2024-6923), so every mail is read again and its headers are counted.
    """
    mail = EmailMessage(policy=_OUTGOING)
    mail.set_raw("From", _person(sender, sender_name))
    mail.set_raw("To", _person(to))
    mail.set_raw("Subject", _encoded(_harmless(subject)))
    mail["Date"] = formatdate(sent_at.timestamp(), usegmt=True)
    mail["Message-ID"] = message_id
    ids = [r for r in references if re.fullmatch(r"<[!-~]{1,500}>", r)]
    if ids:
        mail.set_raw("In-Reply-To", ids[0])
        mail.set_raw("References", "\r\n ".join(reversed(ids[:20])))
    if automatic:
        mail["Auto-Submitted"] = "auto-replied"
        mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(text, cte="base64" if not text.isascii() else None)
    for attachment in attachments:
        known = _MEDIA_TYPE.fullmatch(attachment.media_type)
        mail.add_attachment(
            attachment.content or b"",
            maintype=known[1] if known else "application",
            subtype=known[2] if known else "octet-stream",
            filename=_harmless(safe_name(attachment.name)) or "file",
        )
    _demand_same_headers(mail)
    return mail


def _person(address: str, name: str = "") -> str:
    """An address, with a name if there is one, as a header holds it. RejectedError."""
    if not address.isascii() or not _PLAIN_ADDRESS.fullmatch(address):
        raise RejectedError("mail to addresses with other than plain letters is not supported")
    name = _harmless(name)
    if not name:
        return address
    if name.isascii() and len(name) <= 60:
        return '"{}" <{}>'.format(name.replace("\\", "\\\\"), address)
    return f"{Header(name, 'utf-8').encode()}\r\n <{address}>"


def _encoded(text: str) -> str:
    """One line of text as a header holds it, folded."""
    plain = text.isascii() and all(len(word) < 200 for word in text.split())
    return Header(text, "us-ascii" if plain else "utf-8", header_name="Subject").encode()


def _harmless(text: str) -> str:
    return clean_line(text).replace("=?", "= ?").replace('"', "'")


def _demand_same_headers(mail: EmailMessage) -> None:
    again = email.message_from_bytes(mail.as_bytes(), policy=policy.compat32)
    if [part.keys() for part in again.walk()] != [part.keys() for part in mail.walk()]:
        raise RejectedError("the mail's headers cannot be written safely")
