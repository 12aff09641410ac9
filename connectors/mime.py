"""Mail: one reader for every source, one writer for every way out.

RFC 5322, 2045-2047, 2231, 3676, 3834. Real mail breaks all of them, so nothing here trusts a
label: charsets are tried, headers are decoded by hand, parts are cut within caps.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chalicelib.errors import PayloadError
from chalicelib.schema import Attachment
from connectors import bounces, mime_out, tnef
from connectors.bounces import Bounce
from connectors.charsets import decode
from connectors.hypertext import HISTORY, MAX_HTML, MAX_TAGS, clean_html, html_text
from connectors.mail_headers import (
    addresses,
    clean_line,
    header_text,
    ids,
    people,
    plain,
    safe_name,
)
from connectors.mail_parts import (
    MAX_BYTES,
    MAX_HEADER_BYTES,
    MAX_PARTS,
    Part,
    header_fields,
    split,
)
from connectors.mail_text import MAX_TEXT, html_of, html_parts, is_aside, is_attachment, mail_text
from connectors.quoting import without_history

__all__ = [
    "MAX_BYTES", "MAX_HEADER_BYTES", "MAX_PARTS", "MAX_TAGS", "MAX_TEXT", "Bounce", "Mail",
    "clean_html", "clean_line", "decode", "header_text", "html_text", "is_automatic", "read",
    "safe_name", "without_history", "write",
]  # fmt: skip

write = mime_out.write

#: Who writes a bounce that does not say who does.
NOBODY = "mailer-daemon@unknown.invalid"
_MAX_RECIPIENTS = 100
_MAX_INNER_HEADER = 16 * 1024


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
    #: Sent by a machine: never answered by one.
    automatic: bool
    #: It came by a mailing list or is sent to many.
    listed: bool = False
    #: What Auto-Submitted says, in lower case, without parameters; '' if it is not there.
    auto_submitted: str = ""
    #: The message that this mail says did not arrive.
    bounce: Bounce | None = None
    #: The HTML, sanitised; '' if there is none.
    html: str = field(default="", repr=False)
    #: Every header: its name in lower case, its value as it arrived.
    headers: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)

    def header(self, name: str) -> tuple[str, ...]:
        """Every value of a header, readable, on one line each."""
        lower = name.lower()
        return tuple(header_text(value) for key, value in self.headers if key == lower)


def read(raw: bytes) -> Mail:
    """The mail in these bytes. PayloadError, and nothing else."""
    try:
        return _read(split(raw))
    except (RecursionError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise PayloadError(f"the mail cannot be read: {type(error).__name__}") from error


def _read(mail: Part) -> Mail:
    charset = _charset(mail)
    hidden = _hidden(mail)
    marked = mail_text(mail) or hidden.text or html_text(hidden.html)
    full_text = "\n".join(line for line in marked.split("\n") if line != HISTORY).strip()
    subject = header_text(mail.one("subject"), charset)
    bounce = bounces.find(mail, full_text)
    name, sender, one_author = _author(mail, charset, is_bounce=bounce is not None)
    listed = any(mail.one(header) for header in _LIST_HEADERS)
    return Mail(
        message_id=next(iter(ids(mail.one("message-id"))), ""),
        sender=sender,
        sender_name=name,
        one_author=one_author,
        recipients=_recipients(mail),
        subject=subject,
        sent_at=_date(mail.one("date")),
        text=without_history(marked, subject),
        full_text=full_text,
        references=tuple(_references(mail)),
        attachments=(*_attachments(mail), *_files(hidden)),
        automatic=bounce is not None or is_automatic(mail),
        listed=listed or _word(mail, "precedence") in ("list", "bulk"),
        auto_submitted=_word(mail, "auto-submitted"),
        bounce=bounce,
        html=_html(mail, hidden),
        headers=mail.headers,
    )


# Headers


def _charset(mail: Part) -> str:
    """What the body claims to be in: it helps with headers of raw 8-bit bytes."""
    stated = (leaf.parameters.get("charset", "") for leaf in mail.leaves())
    return next((name for name in stated if name), "")


def _author(mail: Part, charset: str, *, is_bounce: bool) -> tuple[str, str, bool]:
    """(name, address, whether it is the only one). PayloadError if there is none."""
    lines = mail.all("from")
    named = people(lines, charset)
    if authors := plain(named):
        alone = len(lines) == 1 and sum("@" in address for _, address in named) == 1
        return *authors[0], alone and len(authors) == 1
    others = [found for name in _STAND_INS for found in addresses(mail.all(name), charset)]
    if others and not lines:
        return *others[0], False
    if is_bounce:
        return header_text(mail.one("from"), charset), NOBODY, False
    raise PayloadError("the mail has no author's address")


#: Who is answered where From is not there at all.
_STAND_INS = ("sender", "reply-to", "return-path")


def _recipients(mail: Part) -> tuple[str, ...]:
    found = [a for _, a in addresses(mail.all("to") + mail.all("cc"))]
    return tuple(dict.fromkeys(found))[:_MAX_RECIPIENTS]


def _references(mail: Part) -> Iterable[str]:
    """What the mail answers, nearest first."""
    nearest = [*ids(mail.one("in-reply-to"))[:1], *reversed(ids(mail.one("references")[-8192:]))]
    return list(dict.fromkeys(nearest))[:20]


def _date(value: bytes) -> datetime | None:
    try:
        at = parsedate_to_datetime(value[:200].decode("ascii", "replace"))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _word(mail: Part, name: str) -> str:
    value = mail.one(name)[:200].decode("ascii", "replace").partition(";")[0]
    return re.split(r"[\s(]", value.strip().lower())[0]


#: https://www.rfc-editor.org/rfc/rfc3834 and what mailers do instead.
_AUTOMATIC_HEADERS = (
    "x-autoreply", "x-autorespond", "x-auto-reply", "x-autoresponse", "x-autogenerated",
    "x-mail-autoreply", "x-auto-reply-from", "x-autoreply-from", "x-loop", "x-failed-recipients",
    "x-ms-exchange-inbox-rules-loop", "x-cron-env",
)  # fmt: skip
_LIST_HEADERS = ("list-id", "list-unsubscribe", "list-post")
_AUTOMATIC_SUBJECTS = re.compile(
    r"[\[【(]?(?:auto(?:matic|mated)?[- ]?(?:reply|response|antwort)|autoreply"
    r"|out of (?:the )?office(?: (?:auto-?)?(?:reply|response|message|notice|notification))?"
    r"|away from (?:my|the) (?:desk|office)|abwesenheits(?:notiz|nachricht)|abwesend"
    r"|automatische antwort|réponse automatique|absence du bureau|respuesta automática"
    r"|自动回复|自动答复|自动应答|自動回覆|自動回復|自動返信|自動応答|不在通知|不在のお知らせ)"
    r"(?:[\]】)]|\s*[:：\-—–(（]|\s+(?:from|to|re)\b|$)"
    r"|系统退信|退信通知|送信エラー|undeliver(?:ed|able)(?: mail)?\b\s*(?:[:：]|mail|$)",
    re.I,
)
_AUTOMATIC_SENDERS = re.compile(
    r"(?:^|[._+-])(?:mailer-?daemon|postmaster|no-?_?reply|do-?_?not-?_?reply|bounces?)"
    r"(?:$|[._+-])",
    re.I,
)


def is_automatic(mail: Part) -> bool:
    """Sent by a machine: never answered by one."""
    names = {name for name, _ in mail.headers}
    sender = mail.authors[0][1] if mail.authors else header_text(mail.one("from"))
    return (
        _word(mail, "auto-submitted") not in ("", "no")
        or _word(mail, "precedence") in ("bulk", "list", "junk", "auto_reply")
        or _word(mail, "x-auto-response-suppress") not in ("", "none")
        or any(name in names for name in (*_AUTOMATIC_HEADERS, *_LIST_HEADERS))
        or mail.one("return-path").strip() == b"<>"
        or bounces.is_report(mail)
        or bool(_AUTOMATIC_SENDERS.search(sender.partition("@")[0]))
        or bool(_AUTOMATIC_SUBJECTS.match(mail.subject))
    )


# Bodies and files


def _html(mail: Part, hidden: tnef.Tnef) -> str:
    found = [html_of(leaf, leaf.content[: MAX_HTML * 2]) for leaf in html_parts(mail)]
    joined = "\n".join(found) or hidden.html
    return clean_html(joined) if joined else ""


def _is_tnef(leaf: Part) -> bool:
    return leaf.media_type in ("application/ms-tnef", "application/vnd.ms-tnef") or (
        leaf.name.lower() == "winmail.dat"
    )


def _hidden(mail: Part) -> tnef.Tnef:
    """What winmail.dat holds; nothing, mostly."""
    found = (tnef.read(leaf.content) for leaf in mail.leaves() if _is_tnef(leaf))
    return next((each for each in found if each), tnef.Tnef())


def _attachments(mail: Part) -> Iterable[Attachment]:
    for leaf in mail.leaves():
        if is_attachment(leaf) and not is_aside(leaf) and not _is_opened(leaf):
            content = leaf.content
            yield Attachment(
                name=_file_name(leaf),
                media_type=leaf.media_type,
                size_bytes=len(content),
                content=content,
            )


def _is_opened(leaf: Part) -> bool:
    return _is_tnef(leaf) and tnef.is_tnef(leaf.content)


def _file_name(leaf: Part) -> str:
    """As stated; a forwarded mail is called by its subject, a picture by where it lay."""
    if leaf.name or leaf.media_type != "message/rfc822":
        return leaf.name or _place(leaf)
    fields = dict(reversed(header_fields(leaf.content[:_MAX_INNER_HEADER].lstrip(b"\r\n"))))
    return safe_name(f"{header_text(fields.get('subject', b'')) or 'mail'}.eml")


def _place(leaf: Part) -> str:
    """The end of Content-Location, if that is a file's name."""
    place = safe_name(re.split(r"[?#]", header_text(leaf.one("content-location")))[0])
    return place if re.search(r"\.[A-Za-z0-9]{1,5}$", place) else ""


def _files(hidden: tnef.Tnef) -> Iterable[Attachment]:
    for file in hidden.files:
        yield Attachment(
            name=safe_name(file.name),
            media_type=file.media_type,
            size_bytes=len(file.content),
            content=file.content,
        )
