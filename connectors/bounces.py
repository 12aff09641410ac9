"""Mail that comes back: which message could not be delivered, to whom, and why.

Delivery status notifications are read as RFC 3464 has them, whether or not the mail says
multipart/report; what Chinese providers, qmail, Exim and others write for people is read as well as
words allow. Status codes are those of RFC 3463: 5.x.x is final, 4.x.x may pass.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from connectors.mail_headers import PLAIN_ADDRESS, addresses, clean_line, header_text, ids
from connectors.mail_parts import Part, header_fields

_MAX_TEXT = 16 * 1024
_MAX_LINES = 300
#: A report of many recipients tells of so many.
_MAX_BLOCKS = 50


@dataclass(frozen=True)
class Bounce:
    """One message that did not arrive."""

    #: The Message-ID of what we sent, in its brackets; '' if the bounce does not say.
    original_message_id: str
    recipient: str
    #: RFC 3463, as 5.1.1; x.0.0 where only the class is known.
    status: str
    #: It never comes through; a soft one is only late, or may be tried again.
    hard: bool
    reason: str
    #: Only late: the server that says so goes on trying.
    delayed: bool = False


_DAEMON = re.compile(
    r"(?:^|[._+-])(?:mailer-?daemon|mail-?daemon|postmaster|postmast|mdaemon|bounces?|majordomo"
    r"|mail-delivery|delivery-?(?:agent|status))(?:$|[._+-])",
    re.I,
)
_DAEMON_NAME = re.compile(
    r"mail(?:er)?[- ]?(?:delivery|daemon)|postmaster|system administrator|delivery (?:sub)?system"
    r"|系统退信|系统邮件|邮件系统|系統退信|メール配信",
    re.I,
)
_SUBJECT = re.compile(
    r"undeliver|non-?delivery|processing error"
    r"|(?:delivery|mail|message|failure|returned|status)[\w ]{0,20}"
    r"(?:fail|notif|notice|error|report|delay|warning|problem|returned|undeliver|mail)"
    r"|fail(?:ed|ure) (?:notice|delivery)|warning: (?:could not|message)|couldn't be delivered"
    r"|could not be delivered|error sending|mail system error|delayed \d+ hours|unzustellbar"
    r"|nicht zustellbar|non remis|échec|退信|投递失败|发送失败|投遞失敗|無法傳遞|无法投递"
    r"|未送达|未传递|传递失败|传递延迟"
    r"|送信エラー|配信エラー|配信不能|エラーメール|配信できません",
    re.I,
)
#: Subjects that only machines give.
_SURELY = re.compile(
    r"(?:undelivered mail returned to sender|delivery (?:failure|status) notification"
    r"|mail delivery (?:failed|failure|warning|subsystem)|failure notice|undeliverable:|系统退信)",
    re.I,
)
_BODY = re.compile(
    r"(?:not|n't|unable|cannot|fail\w*|problems?|impossible|never)[\w ,']{0,40}"
    r"(?:deliver|reach|sen[dt]\b|accept|relay|complet)"
    r"|deliver\w*[^.\n]{0,60}(?:fail|postpone|delay|error|problem)|undeliver"
    r"|returned (?:because|mail)|permanent(?:ly)? (?:fatal )?(?:error|fail)"
    r"|returned errors?|rejected|unknown user|user (?:is )?(?:unknown|not found)"
    r"|recipients? (?:was |were )?(?:not|unknown)|no such (?:user|mailbox)|mailbox (?:is )?full"
    r"|over ?quota|退信|退回|未能发送|无法投递|无法送达|投递失败|不存在|已满|拒收"
    r"|無法傳遞|无法传递|未能.{0,20}传递"
    r"|配信できません|届けることができ|送信できません|エラー|見つかりません",
    re.I,
)
_SOFT = re.compile(
    r"delayed|will (?:be )?(?:retr|continue|keep trying)|still (?:being )?(?:re)?tr|postponed"
    r"|not yet been|temporar|warning|advisory|no action is required|延迟|延遲|暂时|遅延|一時",
    re.I,
)
#: What is said only when no one tries any more.
_FINAL = re.compile(
    r"permanent|giv(?:en|ing) up|not be retried|退信|退回|(?:^|[\s:(\[])5\d\d[\s-]", re.I | re.M
)
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(words, re.I), status)
    for words, status in (
        (r"mailbox .{0,20}full|quota|mailfolder is full|已满|超出.{0,6}容量|容量.{0,8}超", "5.2.2"),
        (
            r"user.{0,10}unknown|unknown user|no such user|not found|does(?:n't| not) exist"
            r"|doesn't have|no mailbox|not known|not recogni[sz]ed|invalid (?:address|recipient)"
            r"|不存在|見つかりません",
            "5.1.1",
        ),
    )
)
_COPY = re.compile(
    r"\W{0,12}(?:below this line is a copy|original message|this is a copy of"
    r"|a copy of (?:the|your)|included is a copy|header of the original"
    r"|message headers?\b|the first \d+ lines"
    r"|unsent message|your message (?:reads|was:)|original headers|undelivered message"
    r"|-{3,}.{0,4}原始?邮件)"
    r"|(?:return-path|received|x-originating-ip|dkim-signature): ",
    re.I,
)
_ADDRESS = re.compile(
    r"[^\s<>()\[\],;:\"'“”：，。（）、=|]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"
)
_ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,2}\.\d{1,3})(?![\d.]*\d)")
_REPLY = re.compile(r"(?:^|[\s:(\[\"'<])([45])\d\d[\s-](?!\d)", re.MULTILINE)
_OTHERS = re.compile(
    r"\s*(?:message-?id|from|to:|cc:|sender|return-path|reply-to|by|for more|contact|reporting)\b",
    re.I,
)


def find(mail: Part, text: str) -> Bounce | None:
    """The bounce that this mail is, if it is one. `text` is what it says to people."""
    blocks = list(_status_blocks(mail, text))
    top = _top(text)
    if blocks:
        return _reported(mail, blocks, top)
    return _told(mail, text, top) if _tells_of_failure(mail, top) else None


def is_report(mail: Part) -> bool:
    """A machine's report on a mail: not delivered, read, or complained about."""
    return mail.stated_type == "multipart/report" or any(
        leaf.media_type in _REPORTS for leaf in mail.leaves()
    )


_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
_RETURNED = ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers")
#: Read receipts and complaints.
_NO_BOUNCES = ("message/disposition-notification", "message/feedback-report")
_REPORTS = (*_STATUS_TYPES, *_NO_BOUNCES)


# As RFC 3464 has it


def _status_blocks(mail: Part, text: str) -> Iterator[dict[str, str]]:
    """What is said of each recipient."""
    stated = [leaf for leaf in mail.leaves() if leaf.media_type in _STATUS_TYPES]
    sources = [leaf.text(_MAX_TEXT * 4) for leaf in stated]
    if not sources and re.search(r"^Final-Recipient:", text, re.MULTILINE | re.IGNORECASE):
        sources = [text[: _MAX_TEXT * 4]]
    for source in sources:
        for block in re.split(r"\n[ \t]*\n", source)[:_MAX_BLOCKS]:
            fields = {
                name: clean_line(value.decode("utf-8", "replace"))
                for name, value in reversed(header_fields(block.strip("\n").encode()))
            }
            if fields.keys() & {"final-recipient", "original-recipient", "status", "action"}:
                yield fields


def _reported(mail: Part, blocks: list[dict[str, str]], top: str) -> Bounce | None:
    """The first recipient to whom it failed, or else is late."""
    actions = [block.get("action", "failed").split(" ")[0].lower() for block in blocks]
    action = next((a for a in ("failed", "delayed") if a in actions), "")
    if not action:
        return None
    block = blocks[actions.index(action)]
    said = block.get("diagnostic-code", "")
    reason = said.partition(";")[2].strip() or said
    status = _status(block, reason, top)
    if status.startswith("2"):
        return None
    if action == "delayed":
        status = f"4{status[1:]}"
    return Bounce(
        original_message_id=_original_id(mail, ""),
        recipient=_block_recipient(block) or _recipient(mail, top),
        status=status,
        hard=status.startswith("5"),
        reason=(reason or _reason(top))[:300],
        delayed=action == "delayed",
    )


def _status(block: dict[str, str], reason: str, top: str) -> str:
    """The refusing server's own code, if it gives one of that class; else as stated."""
    stated = _ENHANCED.search(block.get("status", ""))
    found = stated[1] if stated else ""
    more = _ENHANCED.search(reason)
    if more and not more[1].endswith(".0.0") and (not found or more[1][0] == found[0]):
        return more[1]
    if found and not found.endswith(".0.0"):
        return found
    reply = _REPLY.search(reason)
    return found or (f"{reply[1]}.0.0" if reply else _status_by_words(top))


def _block_recipient(block: dict[str, str]) -> str:
    for name in ("final-recipient", "original-recipient", "x-actual-recipient"):
        value = block.get(name, "").rpartition(";")[2].strip(" <>\"'").lower()
        if PLAIN_ADDRESS.fullmatch(value):
            return value
    return ""


def _original_id(mail: Part, copy: str) -> str:
    """The id in the returned mail or its headers; else in what is copied; else what it answers."""
    for leaf in [leaf for leaf in mail.leaves() if leaf.media_type in _RETURNED][:5]:
        fields = header_fields(leaf.content.lstrip(b"\r\n"))
        found = [i for name, value in fields if name == "message-id" for i in ids(value)]
        if found:
            return found[0]
    copied = re.search(r"^[ \t>]{0,4}message-id:\s{0,4}(<[^<>\s]{1,500}>)", copy, re.M | re.I)
    if copied:
        return copied[1]
    answered = [i for name in ("in-reply-to", "references") for i in ids(mail.one(name))[-1:]]
    return next(iter(answered), "")


# As it is told to people


def _tells_of_failure(mail: Part, top: str) -> bool:
    if mail.one("x-failed-recipients"):
        return True
    types = {leaf.media_type for leaf in mail.leaves()}
    if types & {*_REPORTS}:
        return not types & {*_NO_BOUNCES}
    whole = header_text(mail.one("from"))
    local = mail.authors[0][1].partition("@")[0] if mail.authors else whole
    daemon = bool(_DAEMON.search(local)) or bool(_DAEMON_NAME.search(whole))
    subject, body = mail.subject[:200], bool(_BODY.search(top))
    if daemon:
        return body or bool(_SUBJECT.search(subject))
    machine = bool(_SUBJECT.search(subject)) and _is_machine(mail)
    return body and (machine or bool(_SURELY.match(subject)))


def _is_machine(mail: Part) -> bool:
    submitted = mail.one("auto-submitted").strip().lower()
    return (
        mail.one("return-path").strip() == b"<>"
        or b"mailer-daemon" in mail.one("return-path").lower()
        or submitted not in (b"", b"no")
        or mail.stated_type == "multipart/report"
        or mail.one("precedence").strip().lower() in (b"bulk", b"junk", b"auto_reply")
    )


def _top(text: str) -> str:
    """What is told, without the copy of what was sent."""
    lines = text[:_MAX_TEXT].split("\n")[:_MAX_LINES]
    end = next((n for n, line in enumerate(lines) if n and _COPY.match(line[:200])), len(lines))
    return "\n".join(line[:500] for line in lines[:end])


def _told(mail: Part, text: str, top: str) -> Bounce | None:
    recipient = _recipient(mail, top)
    if not recipient:
        return None
    subject = mail.subject[:200]
    status = _status_by_words(top)
    coded = _ENHANCED.search(top) or _FINAL.search(top)
    late = bool(_SOFT.search(subject) or (_SOFT.search(top) and not coded))
    late = late and not status.startswith("5.1.")
    if late:
        status = f"4{status[1:]}"
    return Bounce(
        original_message_id=_original_id(mail, text[: _MAX_TEXT * 4]),
        recipient=recipient,
        status=status,
        hard=status.startswith("5"),
        reason=_reason(top)[:300],
        delayed=late,
    )


def _recipient(mail: Part, top: str) -> str:
    stated = addresses(mail.all("x-failed-recipients")) or addresses(
        mail.all("x-actual-recipients")
    )
    if stated:
        return stated[0][1]
    own = {a for _, a in mail.authors + addresses(mail.all("to"))}
    lines = top.split("\n")
    failed = next((n for n, line in enumerate(lines) if _BODY.search(line)), 0)
    found = [
        match[0].lower().lstrip("*>")
        for line in lines[failed:] + lines[:failed]
        if not _OTHERS.match(line)
        for match in _ADDRESS.finditer(line)
    ]
    others = [each for each in found if each not in own]
    people = [each for each in others if not _DAEMON.search(each.partition("@")[0])]
    return next(iter(people or others or found), "")


def _status_by_words(top: str) -> str:
    if enhanced := _ENHANCED.search(top):
        return enhanced[1]
    reply = _REPLY.search(top)
    known = next((status for words, status in _WORDS if words.search(top)), "5.0.0")
    return f"{reply[1]}{known[1:]}" if reply else known


def _reason(top: str) -> str:
    """The line that says most: with a code, or else with the words of a failure."""
    lines = [line for line in top.split("\n") if line.strip()]
    for pattern in (_ENHANCED, _REPLY, _WORDS[1][0], _WORDS[0][0], _BODY):
        if found := next((line for line in lines if pattern.search(line)), ""):
            return clean_line(found)
    return clean_line(lines[0]) if lines else ""
