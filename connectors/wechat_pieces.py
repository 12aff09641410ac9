"""An outbound message as the several that WeChat takes: texts of 2048 bytes, then each file.

Service messages: https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Service_Center_messages.html
Temporary media:  https://developers.weixin.qq.com/doc/offiaccount/Asset_Management/New_temporary_materials.html
WeCom's media:    https://developer.work.weixin.qq.com/document/path/90253
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chalicelib.schema import Attachment, Kind, Message

TEXT_BYTES = 2048
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Takes:
    """What a provider takes of one kind."""

    #: The provider's word for the kind.
    type: str
    #: media type -> ending of the name under which it is uploaded. `*` takes any.
    endings: Mapping[str, str]
    max_bytes: int


PICTURES = {"image/jpeg": "jpg", "image/jpg": "jpg", "image/png": "png", "image/gif": "gif"}
VOICES = {"audio/amr": "amr", "audio/mpeg": "mp3", "audio/mp3": "mp3"}

_BREAKS_OUT = re.compile(r"[\"'<>&#?%\n]")
#: Kind of a file by the first half of its media type; everything else is a file.
_KINDS = {"image": Kind.IMAGE, "audio": Kind.AUDIO, "video": Kind.VIDEO}

#: Best places to cut a text, best first: after a paragraph, a line, a sentence, a clause, a word.
_CUTS = (r"\n\s*\n", r"\n", r"[。！？!?…]+[”’\"')）」』]*|\.(?=\s)", r"[；，、;,：:]", r"\s")
#: Characters that belong to the one before them: joiners, variation selectors, skin tones.
_CLINGING = re.compile("[\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]")


def taken(attachment: Attachment, takes: Mapping[Kind, Takes]) -> tuple[Kind, Takes] | None:
    """As what the provider takes a file; None if it does not."""
    for kind in (_kind(attachment), Kind.FILE):
        rule = takes.get(kind)
        if rule and _fits(attachment, rule):
            return kind, rule
    return None


def _kind(attachment: Attachment) -> Kind:
    return _KINDS.get(attachment.media_type.partition("/")[0], Kind.FILE)


def _fits(attachment: Attachment, rule: Takes) -> bool:
    known = attachment.media_type.lower() in rule.endings or "*" in rule.endings
    size = attachment.size_bytes if attachment.content is None else len(attachment.content)
    return known and (size is None or 5 < size <= rule.max_bytes)


def pieces(message: Message, takes: Mapping[Kind, Takes]) -> Sequence[Message]:
    """Texts first, then each file that the provider takes; the others as links in the text."""
    files = [(a, t) for a in message.attachments if (t := taken(a, takes))]
    links = [_linked(a) for a in message.attachments if _too_much(a, takes)]
    text = "\n".join([t for t in (message.text, *links) if t.strip()])
    parts = split(text)
    texts = [
        message.model_copy(
            update={
                "kind": Kind.TEXT,
                "text": part,
                "attachments": (),
                # They stand below the last one; a copy of them under each would be noise.
                "choices": message.choices if number == len(parts) else (),
            }
        )
        for number, part in enumerate(parts, 1)
    ]
    sent = [
        message.model_copy(update={"kind": kind, "text": "", "attachments": (a,)})
        for a, (kind, _) in files
    ]
    return (*texts, *sent) or (message,)


def with_links(message: Message) -> str:
    """The text with its choices as links below: who taps one has said what it stands for.

    WeChat's own scheme; a text that would be too long with them, or a word that would break out of
    its link, goes without, since the text names the words.
    """
    links = [
        f'<a href="weixin://bizmsgmenu?msgmenucontent={c.value}&msgmenuid={number}">{c.label}</a>'
        for number, c in enumerate(message.choices, 1)
        if not _BREAKS_OUT.search(c.value + c.label)
    ]
    linked = "\n\n".join([message.text, *links])
    return linked if len(_bytes(linked)) <= TEXT_BYTES else message.text


def _too_much(attachment: Attachment, takes: Mapping[Kind, Takes]) -> bool:
    """Of a kind that the provider takes (the core links the others), but not as it is."""
    return bool(_kind(attachment) in takes and attachment.url and not taken(attachment, takes))


def _linked(attachment: Attachment) -> str:
    return f"{attachment.name or 'file'}: {attachment.url}"


def split(text: str, limit: int = TEXT_BYTES) -> list[str]:
    """The text in parts of at most `limit` bytes: joined they are the text, but for blank parts."""
    parts = []
    while len(_bytes(text)) > limit:
        at = _cut(text, _bytes(text)[:limit].decode("utf-8", "ignore"))
        parts.append(text[:at])
        text = text[at:]
    return [part for part in (*parts, text) if part.strip()]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _cut(text: str, head: str) -> int:
    """Where to cut so that the first part is not longer than `head`."""
    for pattern in _CUTS:
        ends = [found.end() for found in re.finditer(pattern, head)]
        if ends and ends[-1] * 3 >= len(head):  # a cut that leaves next to nothing is no good one
            return ends[-1]
    at = len(head)
    while at > 1 and (_clings(text[at]) or text[at - 1] == "\u200d"):
        at -= 1
    return at if at > 1 else len(head)


def _clings(character: str) -> bool:
    return bool(unicodedata.combining(character) or _CLINGING.match(character))


def upload_name(attachment: Attachment, rule: Takes) -> str:
    """The file's name as customers see it where the provider shows one; else a plain one."""
    ending = rule.endings.get(attachment.media_type.lower())
    if ending:
        return f"file.{ending}"
    return attachment.name or "file"
