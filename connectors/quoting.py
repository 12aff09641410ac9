"""Quoted history: what was written now, without what it answers.

Mail programs put lines before what they quote, each in its own way and in its user's language; the
tables below hold those of WeChat's and NetEase's mail, Foxmail, Aliyun, Outlook, Gmail, Apple and
others. Only line starts and short lines are looked at, each a bounded number of times, so reading
takes time in proportion to the text.
"""

import re
from collections.abc import Sequence

from connectors.hypertext import HISTORY

MAX_LINES = 2000
_LONG = 400

# Words of mail programs: Chinese, English, Japanese, German, French; others in passing

_LABELS = {
    "from": "发件人 发信人 寄件者 寄件人 差出人 送信者 from von de da van fra från od от 보낸사람",
    "sent": "发送时间 发送日期 发件时间 寄件日期 傳送時間 送信日時 sent gesendet envoyé enviado"
    " inviato verzonden sendt skickat отправлено",
    "date": "日期 时间 時間 日時 date datum data fecha dato дата wysłano 날짜",
    "to": "收件人 收件者 宛先 to an à a para til till aan do кому 받는사람",
    "cc": "抄送 副本 密送 cc kopie copie",
    "subject": "主题 主旨 标题 主題 件名 subject betreff objet oggetto onderwerp emne asunto"
    " assunto ämne temat тема 제목",
    "reply": "reply-to risposta antwort",
}
_KIND_OF = {label: kind for kind, labels in _LABELS.items() for label in labels.split()}
_KIND_OF |= {"envoyé le": "sent", "enviado el": "sent", "reply to": "reply"}
_LABEL = re.compile(r"[*\s|>]{0,20}([^\W\d_][^:：|*]{0,18}?)[*\s]{0,5}[:：|]")

#: Words that stand alone between dashes above the history.
_ORIGINAL = re.compile(
    r"(?:原始邮件|原始郵件|原邮件|原郵件|邮件原件|邮件原文|回复的原邮件|回覆的原郵件|original"
    r"|(?:the )?original messages?|original e-?mail|元のメッセージ|オリジナルメッセージ"
    r"|ursprüngliche (?:nachricht|mail|e-mail)|originalnachricht|message d'origine"
    r"|message original|mail original|courriel original|mensaje original|mensagem original"
    r"|messaggio originale"
    r"|oorspronkelijk bericht|oprindelig (?:besked|meddelelse)|ursprungligt meddelande"
    r"|исходное сообщение|원본 메시지|repl(?:y|ied) message|original mail)",
    re.I,
)
#: Words above a mail that is passed on: that one is meant to be read.
_FORWARD = re.compile(
    r"(?:forwarded (?:message|mail|by .{1,60})|begin forwarded message|转发邮件信息|转发的邮件"
    r"|转发邮件|轉寄郵件|轉寄的郵件|轉寄的信件|被转发邮件|転送メッセージ|転送されたメッセージ"
    r"|weitergeleitete nachricht|anfang der weitergeleiteten nachricht|message transféré"
    r"|début du message (?:réexpédié|transféré)|mensaje reenviado|mensagem encaminhada"
    r"|messaggio inoltrato|doorgestuurd bericht)\s*[:：]?",
    re.I,
)
_FORWARD_SUBJECT = re.compile(r"(?:fwd?|转发|轉寄|转寄|転送|wg|tr|rv|i|doorst|vb)\s*[:：]", re.I)

_WROTE = re.compile(
    r"(?:写道|寫道|写到|のメール|さんは書きました|さんが書きました|さんのメッセージ|작성"
    r"|\b(?:wrote|writes|schrieb|a écrit|écrit|escribió|escreveu|ha scritto|schreef|geschreven"
    r"|skrev|napisał|написал|пишет|пише|írta|kirjoitti|napsal))",
    re.I,
)
#: How a line may begin that says who wrote when.
_STARTS = re.compile(
    r"(?:on|at|am|le|den|il|el|em|op|dnia|w dniu|在|于|於)[\s\d]"
    r"|\d{1,4}[-年/. ]|\w{2,12},? \d|\(\d{4}",
    re.I,
)
_SELF = re.compile(r"(?:i|we|you|he|she|they|ich|wir|je|nous)\b|[我您你私]", re.I)
_WHEN = re.compile(
    r"\d{1,2}[:：.h时]\d{2}|\d{4}\s?[-年/.]\s?\d|\b(?:19|20)\d{2}\b|\d{1,2}/\d{1,2}/\d{2}"
)
_ADDRESS = re.compile(
    r"[<(\[（]\s?(?:mailto:)?[^<>\s()\[\]]{1,80}@[^<>\s()\[\]]{1,80}|\S{1,60}@\S{1,60}"
)
_DATE_FIRST = re.compile(
    r"(?:\(?\d{4}\s?[-年/.년]\s?\d{1,2}|在\s?\d{4}|\d{1,2}[./]\d{1,2}[./]\d{4},? \d{1,2}:\d{2})"
)
_NAMED = re.compile(r"<[^<>\s]{1,80}@[^<>\s]{1,80}(?:>.{0,40})?$|<$")
_GMT = re.compile(r"\d{4}-\d{2}-\d{2} \d{1,2}:\d{2} GMT", re.I)

_RULE = re.compile(r"[-_—=─*\s]{10,}")
_DEVICES = "mobile|iphone|ipad|android|phone|手机|手機|邮箱|outlook|qq|网易|华为|小米|客户端|mail"
_SENT_FROM = re.compile(
    r"[<(\[*]{0,3}(?:"
    r"(?:sent|posted|gesendet|envoyé|enviado|inviato|verzonden|diese nachricht wurde)\s"
    r"(?:from|via|with|by|von|mit|depuis|de|desde|da|met)\s"
    r"(?:(?!\b(?:is|are|was|were|and|but)\b)[^.,;!?]){1,60}"
    r"|(?:\w{1,20} )?from (?:my )?(?:mobile|iphone|ipad|android|phone|cell)[^.,;!?]{0,20}"
    r"|von meinem .{1,40} gesendet|get .{0,20}outlook for .{1,20}"
    r"|(?:获取|下载|取得|取得する) ?.{0,20}outlook.{0,20}|.{1,20}から送信"
    r"|(?:发自|發自|发送自|發送自|来自|來自) ?"
    rf"(?:(?:我的|my).{{1,30}}|.{{0,12}}(?:{_DEVICES}).{{0,12}})"
    r"|[从從]我的 ?.{1,20}[发發傳传]送)"
    r"(?:[.,]\s{1,2}(?:please )?(?:excuse|pardon|sorry).{0,60})?[>)\]*.]{0,3}",
    re.I,
)
_URL = re.compile(r"[(<\[]?https?://\S{1,500}")


def without_history(text: str, subject: str = "") -> str:
    """What was written now: the quoted history cut off, interleaved answers kept.

    A mail that is passed on is kept whole: known by its subject, or by the words above it. Never
    empty for a text that is not.
    """
    whole = "\n".join(line for line in text.split("\n") if line != HISTORY).strip()
    lines = text.split("\n", MAX_LINES)[:MAX_LINES]
    begin, length = _history(lines)
    below = lines[begin + length :]
    passed_on = length == 0 and begin < len(lines)
    too_long = length == 0 and text.count("\n") >= MAX_LINES
    if passed_on or too_long or _FORWARD_SUBJECT.match(subject.strip()):
        return whole
    if (under := _answer_under(below)) is not None:
        kept = lines[:begin] + under
    elif _answers_below(below):
        kept = _without_attributions(lines)
    else:
        kept = _without_ends(lines[:begin])
    own = "\n".join(_without_signature([line for line in kept if line != HISTORY]))
    return own.strip("\n ") or whole


def _history(lines: Sequence[str]) -> tuple[int, int]:
    """Where the history begins, and how many lines say so; none at a mail that is passed on."""
    for n, line in enumerate(lines):
        bare = _bare(line)
        if not bare:
            continue
        if _between_dashes(bare, _FORWARD):
            return n, 0
        if length := _announced(lines, n, bare):
            return n, length
    return len(lines), 0


def _announced(lines: Sequence[str], n: int, bare: str) -> int:
    """How many lines from here on say that the history follows."""
    if bare == HISTORY:
        following = _first_words(lines, n + 1)
        if following is None:
            return 1
        after = _bare(lines[following])
        if _between_dashes(after, _FORWARD):
            return 0
        said = _announced(lines, following, after)
        return following - n + said if said else 1
    if _between_dashes(bare, _ORIGINAL):
        return 1
    return _attribution(lines, n) or _header_block(lines, n)


def _first_words(lines: Sequence[str], start: int) -> int | None:
    near = range(start, min(start + 8, len(lines)))
    return next((n for n in near if _bare(lines[n]) not in ("", HISTORY)), None)


def _between_dashes(line: str, words: re.Pattern[str]) -> bool:
    bare = line.strip("-_—=─*~# \t")
    marked = line[0] in "-_—=─*~#" or words is _FORWARD
    return marked and len(bare) < 80 and bool(words.fullmatch(bare))


def _attribution(lines: Sequence[str], n: int) -> int:
    """`On Monday, Li <li@example.com> wrote:`, on one line or several; 0 if it is not there."""
    first = _bare(lines[n])
    if _GMT.match(first) and len(first) < 120:
        return 1
    dated, longest = _is_dated(first), 1
    if dated or _WROTE.search(first) or _NAMED.search(first):
        longest = 8 if dated else 2
    window = [_bare(line) for line in lines[n : n + longest]]
    joined = ""
    for length, line in enumerate(window, 1):
        joined = f"{joined} {line}".strip()
        if len(joined) > _LONG:
            return 0
        if joined.endswith((":", "：")) or (joined.startswith("--") and joined.endswith("--")):
            return length if _says_who(joined) and not _begins_later(window[:length]) else 0
    return 0


def _begins_later(window: Sequence[str]) -> bool:
    """The first line is text, and one below begins to say who wrote."""
    later = [n for n in range(1, len(window)) if _is_dated(window[n])]
    return any(
        not window[n].startswith(("于", "於")) and _says_who(" ".join(window[n:])) for n in later
    )


def _bare(line: str) -> str:
    return line[:_LONG].replace("&nbsp;", " ").strip("> \t")


def _is_dated(line: str) -> bool:
    return bool(_STARTS.match(line)) and bool(re.search(r"\d", line))


def _says_who(joined: str) -> bool:
    bare = joined.strip("- ")
    if _SELF.match(bare):
        return False
    when, who = _WHEN.search(bare), _ADDRESS.search(bare)
    if _WROTE.search(bare):
        return bool(who or (when and _STARTS.match(bare)))
    return bool(_DATE_FIRST.match(bare) and who)


def _header_block(lines: Sequence[str], n: int) -> int:
    """From:, Sent:, To:, Subject: of the mail that is quoted; 0 if they are not there."""
    if not _kind(lines[n]):
        return 0
    kinds: set[str] = set()
    last, plain, address = n, 0, False
    for i in range(n, min(n + 12, len(lines))):
        if kind := _kind(lines[i]):
            kinds.add(kind)
            last, plain = i, 0
        elif not lines[i].strip("> \t|-") and len(kinds) > 2:
            break
        else:
            plain += 1
            if plain > 2:
                break
        address = address or "@" in lines[i][:_LONG]
    telling = {"subject", "sent"} & kinds or address
    enough = len(kinds - {"cc", "reply"}) >= 3 or ({"from", "sent"} <= kinds and address)
    return last - n + 1 if enough and telling and "from" in kinds else 0


def _kind(line: str) -> str:
    match = _LABEL.match(line[:80])
    if not match:
        return ""
    bare = re.sub(r"[\s\u3000]{1,4}", " ", match[1]).strip().lower()
    return _KIND_OF.get(bare) or _KIND_OF.get(bare.replace(" ", ""), "")


def _answer_under(below: Sequence[str]) -> list[str] | None:
    """What was written under all that is quoted; None if that is not how it was answered."""
    quoted = [n for n, line in enumerate(below) if line.startswith(">")]
    if not quoted or not _answers_below(below):
        return None
    between = any(line.strip() and not line.startswith(">") for line in below[: quoted[-1]])
    return None if between else list(below[quoted[-1] + 1 :])


def _answers_below(below: Sequence[str]) -> bool:
    """Something was written between or under what is quoted."""
    quoted, n = False, 0
    while n < len(below):
        bare = below[n].strip()
        if said := _attribution(below, n) if bare else 0:
            n += said
            continue
        if quoted and _is_signature(below, n):
            return False
        if bare.startswith(">"):
            quoted = True
        elif quoted and bare not in ("", HISTORY) and not _is_wrapped(below, n):
            return True
        n += 1
    return False


def _without_attributions(lines: Sequence[str]) -> list[str]:
    kept: list[str] = []
    n = 0
    while n < len(lines):
        said = 0 if lines[n].startswith(">") else _attribution(lines, n)
        kept += [] if said else [lines[n]]
        n += said or 1
    return kept


def _is_wrapped(lines: Sequence[str], n: int) -> bool:
    """A long quoted line that was broken in two on its way."""
    return n > 0 and lines[n - 1].startswith(">") and len(lines[n - 1]) >= 60


def _without_ends(lines: Sequence[str]) -> list[str]:
    """Without rules and quotes at the end."""
    kept = list(lines)
    while kept and (
        not kept[-1].strip()
        or kept[-1].startswith(">")
        or kept[-1] == HISTORY
        or (_RULE.fullmatch(kept[-1]) and len(kept) < len(lines) + 1)
    ):
        kept.pop()
    return kept


def _without_signature(lines: list[str]) -> list[str]:
    cut = next((n for n in range(len(lines)) if _is_signature(lines, n)), len(lines))
    kept = lines[:cut]
    while kept and (not kept[-1].strip() or _is_sent_from(kept[-1])):
        kept.pop()
    return kept


def _is_signature(lines: Sequence[str], n: int) -> bool:
    """Two dashes with a few lines below."""
    if lines[n].rstrip("\r") not in ("-- ", "--"):
        return False
    return sum(bool(line.strip()) for line in lines[n + 1 : n + 40]) <= 15


def _is_sent_from(line: str) -> bool:
    bare = _URL.sub("", line[:200]).strip()
    return bool(bare) and len(bare) <= 100 and bool(_SENT_FROM.fullmatch(bare))
