"""What a mail says: which of its parts are its text, and how each becomes lines.

Plain text goes before HTML, unless it is empty or only says that there is HTML; text behind
attachments belongs to it; a forwarded mail does not. RFC 2046, 3676, 5545.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from connectors.charsets import decode
from connectors.hypertext import HISTORY, MAX_HTML, MAX_TAGS, html_text
from connectors.mail_parts import Part

MAX_TEXT = 64 * 1024
_MAX_HTML_PARTS = 5

_NO_ATTACHMENTS = ("text/plain", "text/html")
#: The same text once more, for machines that show it in another way.
_ASIDE = ("text/x-amp-html", "text/watch-html")
_ONLY_SAYS_HTML = re.compile(
    r"(?:view|read|see|display|open|supports?|requires?|enable|unable)[^\n]{0,80}html"
    r"|html[^\n]{0,60}(?:mail|message|email|version|format|viewer|client)"
    r"|view (?:this|it|the) [^\n]{0,40}in (?:a|your) (?:web )?browser|no plain ?text|请.{0,20}html"
    r"|html.{0,20}(?:邮件|郵件|格式|メール)|不支持|不支援",
    re.I,
)


@dataclass(frozen=True)
class _Text:
    words: str
    is_html: bool


def mail_text(mail: Part) -> str:
    """All that the mail says, capped; with HISTORY where a mail program marked the quoted part."""
    budget = _Budget()
    text = _joined(list(_texts(mail, budget)))
    if not text:  # better a text that claims to be a file than none
        plain = [leaf for leaf in mail.leaves() if leaf.media_type in _NO_ATTACHMENTS]
        named = [leaf for leaf in plain if leaf.disposition != "attachment"]
        text = _joined([_of_leaf(leaf, budget) for leaf in named[:_MAX_HTML_PARTS]])
    if not text:
        invitations = (leaf for leaf in mail.leaves() if leaf.media_type == "text/calendar")
        text = next((invitation_text(leaf.text(MAX_TEXT)) for leaf in invitations), "")
    return text[:MAX_TEXT].strip()


def html_parts(mail: Part) -> list[Part]:
    """The parts that are its HTML."""
    html = [leaf for leaf in mail.leaves() if leaf.media_type == "text/html"]
    return [leaf for leaf in html if not is_attachment(leaf)][:_MAX_HTML_PARTS]


def is_attachment(leaf: Part) -> bool:
    """The leaf is a file, and no part of the text."""
    if leaf.media_type not in _NO_ATTACHMENTS:
        return True
    return leaf.disposition == "attachment" or bool(leaf.name)


def is_aside(leaf: Part) -> bool:
    """The leaf says the same again and is no file either."""
    return leaf.media_type in _ASIDE and not leaf.name and leaf.disposition != "attachment"


class _Budget:
    """How much is still to be read."""

    def __init__(self) -> None:
        self.text, self.html, self.parts, self.tags = MAX_TEXT, MAX_HTML, _MAX_HTML_PARTS, MAX_TAGS

    def plain(self, leaf: Part) -> str:
        if self.text <= 0:
            return ""
        text = leaf.text(MAX_TEXT * 4)[:MAX_TEXT]
        self.text -= len(text)
        return text

    def rich(self, leaf: Part) -> str:
        if min(self.html, self.parts, self.tags) <= 0:
            return ""
        html = html_of(leaf, leaf.content[: MAX_HTML * 2])[: self.html]
        self.html -= len(html)
        self.parts -= 1
        self.tags -= html.count("<")
        return html


def _texts(part: Part, budget: _Budget) -> Iterator[_Text]:
    """The texts to be joined. Goes no deeper than parts may be nested."""
    if not part.parts:
        if not is_attachment(part):
            yield _of_leaf(part, budget)
    elif part.stated_type == "multipart/alternative":
        yield from _best([_merged(list(_texts(p, budget))) for p in part.parts])
    else:
        yield from _without_twins([t for p in part.parts for t in _texts(p, budget)])


def _of_leaf(leaf: Part, budget: _Budget) -> _Text:
    if leaf.media_type == "text/html":
        return _Text(html_text(budget.rich(leaf)), is_html=True)
    return _Text(_flowed(leaf, budget.plain(leaf).replace(HISTORY, "")), is_html=False)


_META = re.compile(r"<meta[^<>]{0,200}charset\s*=\s*[\"']?([\w-]{2,40})", re.IGNORECASE)


def html_of(leaf: Part, content: bytes) -> str:
    """The HTML's characters: the mail's label goes before the page's own."""
    declared = leaf.parameters.get("charset", "")
    if not declared:
        own = _META.search(content[:4096].decode("latin-1"))
        declared = own[1] if own else ""
    return decode(content, declared).replace("\0", "")


def _merged(texts: list[_Text]) -> _Text:
    return _Text(_joined(texts), any(t.is_html for t in texts))


def _best(choices: list[_Text]) -> Iterator[_Text]:
    """Plain text, if it says anything; else the HTML's."""
    said = [c for c in choices if c.words.strip()]
    plain = next((c for c in said if not c.is_html), None)
    rich = next((c for c in reversed(said) if c.is_html), None)
    if plain and rich and _points_to_html(plain.words, rich.words):
        plain = None
    if best := plain or rich:
        yield best


def _points_to_html(plain: str, rich: str) -> bool:
    bare = plain.strip()
    return len(bare) < 400 and len(rich) > len(bare) / 2 and bool(_ONLY_SAYS_HTML.search(bare))


def _without_twins(texts: list[_Text]) -> list[_Text]:
    """Without HTML that says what a plain part beside it says."""
    plain = {word for t in texts if not t.is_html for word in t.words.split()}
    kept = []
    for text in texts:
        words = text.words.split()
        known = sum(word in plain for word in words)
        if not (text.is_html and plain and known >= 0.7 * len(words)):
            kept.append(text)
    return kept


def _joined(texts: list[_Text]) -> str:
    return "\n".join(t.words.strip("\n") for t in texts if t.words.strip())


def _flowed(part: Part, text: str) -> str:
    """format=flowed undone (RFC 3676): soft breaks joined, stuffing removed, quotes kept apart."""
    if part.parameters.get("format", "").strip().lower() != "flowed":
        return text
    joint = "" if part.parameters.get("delsp", "").strip().lower() == "yes" else " "
    lines: list[tuple[int, list[str]]] = []
    soft = False
    for line in text.split("\n"):
        bare = line.lstrip(">")
        depth, bare = len(line) - len(bare), bare.removeprefix(" ")
        if soft and lines[-1][0] == depth and bare != "-- ":
            lines[-1][1].append(bare)
        else:
            lines.append((depth, [bare]))
        soft = bare.endswith(" ") and bare != "-- "
        if soft:
            lines[-1][1][-1] = bare[:-1] + joint
    return "\n".join(_line(depth, "".join(pieces)) for depth, pieces in lines)


def _line(depth: int, words: str) -> str:
    quote = ">" * depth + " " if depth else ""
    return quote + (words if words == "-- " else words.rstrip(" "))


# Invitations

_TOLD = (("SUMMARY", ""), ("DTSTART", ""), ("DTEND", "– "), ("LOCATION", ""), ("DESCRIPTION", ""))
_ICS = re.compile(r"([A-Z-]{1,40})(?:;[^:\n]{0,400})?:(.{0,4000})")
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)\d\d(Z?))?")


def invitation_text(ics: str) -> str:
    """A calendar's event in a few lines: what, when, where."""
    _, _, event = re.sub(r"\n[ \t]", "", ics).partition("BEGIN:VEVENT")
    fields: dict[str, str] = {}
    for name, value in _ICS.findall(event.partition("END:VEVENT")[0]):
        fields.setdefault(name, re.sub(r"\\(.)", _unescaped, value).strip())
    lines = [f"{mark}{_moment(fields[name])}" for name, mark in _TOLD if fields.get(name)]
    return "\n".join(lines)


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] in "nN" else match[1]


def _moment(value: str) -> str:
    found = _MOMENT.fullmatch(value)
    if not found:
        return value
    year, month, day, hour, minute, utc = found.groups()
    time = f" {hour}:{minute}" if hour else ""
    return f"{year}-{month}-{day}{time}{' UTC' if utc else ''}"
