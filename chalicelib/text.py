"""Text in the form in which questions are compared, Chinese and English. Pure.

The order of the steps matters: width and case first, then script, then what carries no meaning
(stickers, emoji, politeness), then punctuation. Numbers and ids stay: they are anchors.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

#: Longer texts are compared by their beginning: a question stands there, logs and histories below.
COMPARED_CHARACTERS = 2000

_STICKERS = re.compile(r"\[[\w\u3400-\u9fff]{1,8}\]|/:[:a-z0-9()\-|<>*!@$&'~,+]{1,10}")
_HAN = r"\u3400-\u9fff\uf900-\ufaff"
_HAS_HAN = re.compile(f"[{_HAN}]")
#: From here on a mail says nothing of its own: what it answers, or a signature.
_BELOW = re.compile(
    r"^[ \t]*(?:-{2,}\s*(?:original message|forwarded message|原始邮件|转发邮件|原邮件)"
    r"|on .{5,80} wrote:?\s*$|(?:在\s*)?\d{4}.{4,60}写道\s*[:：]?\s*$|于.{4,60}写道\s*[:：]?\s*$"
    r"|(?:from|发件人)\s*[:：].*$|>|--\s*$|[-_]{5,}\s*$|sent from my |get outlook for "
    r"|发自我的|来自我的)",
    re.MULTILINE,
)
#: A closing formula, with at most four short lines below it: names, a phone, a post.
_CLOSING = re.compile(
    r"\n[ \t]*(?:(?:many |kind |best |warm )?(?:thanks|regards|wishes)(?: in advance)?"
    r"|thank you(?: very much)?|cheers|sincerely|yours(?: sincerely| faithfully| truly)?|br"
    r"|此致|敬礼|祝好|谢谢|多谢|感谢|顺祝商祺|顺颂商祺|祝\S{1,6})[\s,.!，。！]*(?:\n[^\n?？]{0,40}){0,4}\s*$"
)
_GREETING = re.compile(
    r"^\s*(?:(?:dear|hello|hi|hey+|good (?:morning|afternoon|evening))\b[^\n,.!?]{0,30}"
    r"[,.!:]?[ \t]*\n"
    r"|dear (?:sir|madam|sirs)[^\n,]{0,20},?|(?:尊敬的|亲爱的)[^\n，,：:]{1,12}[：:，,])"
)
#: Mistaken for each other when typing by sound; what they mean apart matters little to a question.
_HOMOPHONES = str.maketrans("得地再哪定帐象她它做员", "的的在那订账像他他作元")
_SEPARATORS = re.compile(r"[^\w]+|_+")
_TOKENS = re.compile(rf"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?|[{_HAN}]|[^\W\d_a-z{_HAN}]+")

#: Of messages and chat, to the words they stand for.
_ABBREVIATIONS = {
    "u": "you", "ur": "your", "r": "are", "msg": "message", "acct": "account", "acc": "account",
    "pkg": "package", "qty": "quantity", "dont": "don't", "doesnt": "doesn't", "cant": "can't",
    "cannot": "can't", "isnt": "isn't", "wasnt": "wasn't", "havent": "haven't",
    "didnt": "didn't", "wont": "won't", "im": "i'm", "ive": "i've", "whats": "what's",
    "wheres": "where's", "asap": "soon", "w": "with", "pw": "password", "pwd": "password",
}  # fmt: skip

#: Said out of politeness, at the start or the end, in any question whatever.
_POLITE_EN = re.compile(
    r"^(?:(?:hi+|hello|hey+|dear|good (?:morning|afternoon|evening)|excuse me)"
    r"(?: (?:there|team|all|sir|madam|support|everyone))?\b[\s,.!:;]*)+"
    r"|\b(?:please|pls|plz|kindly|thx|tks|ty|thanks|thank you|thank you (?:very|so) much"
    r"|many thanks|cheers|regards|best regards|kind regards|in advance)\b"
)
_POLITE_ZH = re.compile(
    r"尊敬的|您好|你好|在吗|在不在|请问一下|请问|麻烦问一下|麻烦您|麻烦你|麻烦|想问一下|问一下|问下|咨询一下"
    r"|想(?:请问|咨询|问)|客服|亲爱的|谢谢您|谢谢|多谢|感谢|辛苦了|劳驾|打扰了|不好意思|一下"
    r"|(?<=[\u3400-\u9fff])[啊呀呢吗吧哦噢嘛哈了](?=[\W_]|$)"
)


@cache
def _simplifier() -> Any:
    from opencc import OpenCC  # native: 8 ms to import, and only when Chinese comes in

    return OpenCC("t2s")


@lru_cache(maxsize=256)
def fold(text: str) -> str:
    """Width, case and script folded, stickers and emoji gone; line breaks and punctuation kept."""
    text = unicodedata.normalize("NFKC", text[:COMPARED_CHARACTERS]).casefold()
    text = _STICKERS.sub(" ", text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("So", "Cf", "Sk", "Co", "Cs"))
    return str(_simplifier().convert(text)) if _HAS_HAN.search(text) else text


def said(folded: str) -> str:
    """A folded text without what a mail has around it: greeting, closing, signature, history."""
    below = _BELOW.search(folded)
    own = folded[: below.start()] if below else folded
    own = _GREETING.sub("", _CLOSING.sub("", own))
    return own if own.strip() else folded


def alike(folded: str) -> str:
    """With characters that are mistaken for each other written in one way."""
    return folded.translate(_HOMOPHONES)


def normalise(text: str) -> str:
    """The form in which two texts are compared: words and characters, one space between."""
    folded = alike(said(fold(text))).replace("\u2019", "'")
    bare = _POLITE_ZH.sub(" ", _POLITE_EN.sub(" ", folded))
    kept = "".join(c if c in "'." else " " if _SEPARATORS.match(c) else c for c in bare)
    words = [_ABBREVIATIONS.get(token, token) for token in _TOKENS.findall(kept)]
    return joined(words)


def joined(words: Sequence[str]) -> str:
    """Chinese characters run together, everything else apart by spaces."""
    out: list[str] = []
    after_han = False
    for word in words:
        if out and not (after_han and _is_han(word[0])):
            out.append(" ")
        out.append(word)
        after_han = _is_han(word[-1])
    return "".join(out)


def _is_han(character: str) -> bool:
    return "\u3400" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff"


def tokens(normalised: str) -> list[str]:
    """Words of letters, numbers, single Chinese characters."""
    return _TOKENS.findall(normalised)


def numbers(text: str) -> frozenset[str]:
    """Order, tracking and account numbers, amounts: what has two digits or more, letters kept."""
    found = _NUMBERS.findall(said(fold(text)))
    return frozenset(re.sub(r"[-,\s]", "", number) for number in found)


_NUMBERS = re.compile(r"(?<![a-z0-9])[a-z]{0,4}-?\d[\d.,-]*\d[a-z0-9-]*")
