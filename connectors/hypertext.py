"""A mail's HTML: harmless, and as the text that a reader sees.

Sanitised by nh3 (ammonia, html5ever): what it gives out is well-formed, and only that is looked at
here, so that no pattern meets text of a stranger's making. Where a mail program marks the beginning
of the quoted history, the text gets a line with HISTORY on it.

https://nh3.readthedocs.io/
"""

import re
from dataclasses import dataclass, field
from html import unescape

MAX_HTML = 512 * 1024
MAX_TAGS = 10_000
#: A line that stands where the quoted history begins; never part of what a mail says.
HISTORY = "\ue000"

_LEFT_OUT = {"script", "style", "title", "noscript", "template", "svg", "math", "object", "select"}
_SCHEMES = {"http", "https", "mailto", "tel", "cid"}
_DATA_URL = re.compile(r"data:[a-zA-Z0-9/;,=+._-]{64,}")


def _capped(html: str) -> str:
    """What the cleaner gets: its time grows with the square of the elements that are open."""
    short = _DATA_URL.sub("", html[: MAX_HTML * 4])[:MAX_HTML]
    return "<".join(short.split("<")[: MAX_TAGS + 1])


_TAG = re.compile(r'<(/?)([a-z][a-z0-9]*)((?:[^<>"]|"[^"]*")*)>')
_ATTRIBUTE = re.compile(r'([a-z-]+)="([^"]*)"')


def clean_html(html: str) -> str:
    """HTML to be shown: no script, style, event or form; no image from elsewhere."""
    import nh3

    tags = nh3.ALLOWED_TAGS - _LEFT_OUT
    once = nh3.clean(
        _capped(html),
        tags=tags,
        clean_content_tags=_LEFT_OUT,
        attribute_filter=_harmless,
        url_schemes=_SCHEMES,
    )
    shown = _TAG.sub(lambda m: "" if m[2] == "img" and ' src="cid:' not in m[3] else m[0], once)
    if shown != once:  # whatever the cut made of it
        shown = nh3.clean(shown, tags=tags, attribute_filter=_harmless, url_schemes=_SCHEMES)
    return shown.strip()


def _harmless(tag: str, attribute: str, value: str) -> str | None:
    if attribute in ("src", "cite", "longdesc", "background"):
        return value if tag == "img" and value.lower().startswith("cid:") else None
    return value


def html_text(html: str) -> str:
    """What a reader of the HTML sees, as lines of text; what is beyond the caps is left out."""
    import nh3

    clean = nh3.clean(
        _capped(html),
        tags=_KNOWN,
        clean_content_tags=_LEFT_OUT,
        attributes={
            "*": {"class", "id", "style"},
            "a": {"href"},
            "img": {"alt"},
            "blockquote": {"type"},
            "ol": {"start"},
        },
        url_schemes=_SCHEMES,
        link_rel=None,
    )
    page = _Page()
    at = 0
    for match in _TAG.finditer(clean):
        page.say(unescape(clean[at : match.start()]))
        at = match.end()
        if match[1]:
            page.close(match[2])
        else:
            page.open(match[2], dict(_ATTRIBUTE.findall(match[3])))
    page.say(unescape(clean[at:]))
    return page.text()


_BLOCKS = {
    "p", "div", "tr", "li", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "table",
    "pre", "center", "article", "section", "header", "footer", "dl", "dt", "dd", "hr", "caption",
}  # fmt: skip
_KNOWN = _BLOCKS | {"br", "td", "th", "a", "img", "span", "font", "b", "strong"}
_NEVER_CLOSED = {"br", "hr", "img"}

#: Containers of the history, by class or id.
_QUOTES = {
    "yahoo_quoted", "zmail_extra", "protonmail_quote", "tutanota_quote", "mail_quote",
    "ntes-mailmaster-quote", "history-quote-wrapper", "isreplycontent", "olk_src_body_section",
    "mail-editor-reference-message-container",
}  # fmt: skip
#: What stands before the history, by class or id.
_BEFORE_HISTORY = {
    "gmail_quote", "gmail_quote_container", "gmail_attr", "moz-cite-prefix", "divrplyfwdmsg",
    "appendonsend", "stopspelling", "outlookmessageheader", "reply-intro",
}  # fmt: skip
_HIDDEN = re.compile(r"(?:display:none|mso-hide:all|visibility:hidden)", re.IGNORECASE)


@dataclass
class _Element:
    tag: str
    quotes: int = 0
    hides: int = 0
    number: int = 0
    href: str = ""
    #: Where the text of a link begins: line and column.
    at: tuple[int, int] = (0, 0)


@dataclass
class _Page:
    """Lines as they come to be seen."""

    lines: list[str] = field(default_factory=lambda: [""])
    stack: list[_Element] = field(default_factory=list)
    depth: int = 0
    hidden: int = 0
    preformatted: int = 0
    before: str = ""

    def say(self, text: str) -> None:
        text = text.replace(HISTORY, "")
        if self.hidden or not text:
            return
        if not self.preformatted:
            text = re.sub(r"[ \t\n\r\f]+", " ", text)
        for n, piece in enumerate(text.replace("\u00a0", " ").split("\n")):
            if n:
                self._break(force=True)
            self._add(piece)

    def _add(self, text: str) -> None:
        line = self.lines[-1]
        bare = line.strip("> ")
        if not self.preformatted and (not bare or line.endswith(" ")):
            text = text.lstrip(" ")
        if not text:
            return
        line = line or self._quote()
        if self.before and text.strip():
            if self.before != _CELL:
                line += self.before
            elif bare:
                line = line.rstrip(" ") + _CELL
            self.before, text = "", text.lstrip(" ")
        self.lines[-1] = line + text

    def _quote(self) -> str:
        return "> " * min(self.depth, 20)

    def _break(self, *, force: bool = False) -> None:
        """The next text stands on a line of its own; `force` leaves an empty line empty."""
        if self.before == _CELL:
            self.before = ""
        if force and not self.lines[-1] and self.depth:
            self.lines[-1] = self._quote()
        if force or self.lines[-1]:
            self.lines.append("")

    def open(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "br":
            self._break(force=True)
        elif tag == "img":
            self._picture(unescape(attributes.get("alt", "")))
        elif tag in ("td", "th"):
            self.before = self.before or (_CELL if self.lines[-1].strip("> ") else "")
        elif tag in _BLOCKS:
            self._break()
        element = self._element(tag, attributes)
        if tag in _NEVER_CLOSED:
            return
        self.stack.append(element)
        self.hidden += element.hides
        self.depth += element.quotes
        self.preformatted += tag == "pre"
        if tag == "li":
            self.before = self._bullet()

    def _element(self, tag: str, attributes: dict[str, str]) -> _Element:
        names = f"{attributes.get('class', '')} {attributes.get('id', '')}".lower().split()
        bare = {name.removeprefix("x_") for name in names}
        if not self.hidden and tag != "blockquote" and bare & (_BEFORE_HISTORY | _QUOTES):
            self._break()
            self.lines[-1:] = [HISTORY, ""]
        style = attributes.get("style", "").replace(" ", "")
        return _Element(
            tag,
            quotes=int(tag == "blockquote" or bool(bare & _QUOTES)),
            hides=int(bool(_HIDDEN.search(style))),
            number=int(attributes["start"]) if _SMALL.fullmatch(attributes.get("start", "")) else 1,
            href=unescape(attributes.get("href", "")),
            at=(len(self.lines) - 1, len(self.lines[-1])),
        )

    def _picture(self, alt: str) -> None:
        if 0 < len(alt) <= 3 and not alt.isascii():  # an emoji as a picture
            self.say(alt)

    def _bullet(self) -> str:
        around = next((e for e in reversed(self.stack) if e.tag in ("ul", "ol")), None)
        if around is None or around.tag == "ul":
            return "- "
        around.number += 1
        return f"{around.number - 1}. "

    def close(self, tag: str) -> None:
        while self.stack:
            element = self.stack.pop()
            self._end(element)
            if element.tag == tag:
                return

    def _end(self, element: _Element) -> None:
        if element.tag == "a":
            self._address(element)
        elif element.tag in ("p", "div") and not self.lines[-1]:
            self._blank_if_empty(element)
        elif element.tag in _BLOCKS:
            self._break()
        if element.tag in _BLOCKS:
            self.before = ""
        self.hidden -= element.hides
        self.depth -= element.quotes
        self.preformatted -= element.tag == "pre"

    def _blank_if_empty(self, element: _Element) -> None:
        """An empty paragraph is an empty line to the reader."""
        if element.tag == "p" and element.at[0] == len(self.lines) - 1 and not self.hidden:
            self._break(force=True)

    def _address(self, link: _Element) -> None:
        """Where a link leads, if its text does not say it."""
        row, column = link.at
        said = "".join([self.lines[row][column:], *self.lines[row + 1 :]]).strip()
        url = link.href
        told = not said or _bare(url) in _bare(said) or len(url) > 300 or self.hidden
        if url.startswith(("http://", "https://")) and not told:
            self._add(f" ({url})" if self.lines[-1] else f"({url})")

    def text(self) -> str:
        lines = [line.rstrip(" ") for line in self.lines]
        kept = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
        return re.sub(r"(?:\n>[> ]*(?=\n>[> ]*\n)){2,}", "\n>", kept).strip("\n ")


_CELL = " | "
_SMALL = re.compile(r"[0-9]{1,4}")


def _bare(url: str) -> str:
    return re.sub(r"^(?:https?:)?//(?:www\.)?", "", url.strip().lower()).rstrip("/")
