"""What asks nothing: thanks, hello?, a bare number, and words about the answer just given. Pure.

All of it looks at text as `text.fold` leaves it, and only at what people really write: a sentence
that says more than this is a question, or a detail of one.
"""

import re

from chalicelib.text import fold

_CHATTER = (
    r"(?:thanks?(?: you)?(?: (?:so|very) much)?|thx|ty|ok(?:ay)?|k|yes|no|yep|nope|sure|great|good"
    r"|fine|perfect|cool|got it|hello|hi|hey|anyone(?: there)?|are you there|any (?:news|update)s?"
    r"|still waiting|never ?mind|bye|please|asap|hurry(?: up)?"
    r"|谢谢(?:你|您|啦|了)?|多谢|感谢|好的?|好吧|嗯+|哦+|行|可以|是的?|不是|对|没有|有|知道了|明白了?"
    r"|收到|你好|您好|在吗|在不在|有人吗|人呢|喂|亲|快点|急|还在吗|稍等|再见|拜拜|辛苦了?|麻烦了?|没事了?|算了)"
)
_NUMBER = re.compile(
    r"(?:[\w\s]{0,20}?(?:is|no|number|#|是|号|：|:)\s*)?[a-z]{0,4}[-\s]?\d[\d\s-]{3,}\W*"
)

#: It helped: nothing is to be done.
_HELPED = (
    r"(?:(?:it|that|this)(?:'s| is| has| was)?(?: really| all)? "
    r"(?:helped(?: a lot)?|helps|helpful|works?(?: now)?|worked|did it|solved(?: it)?|clear|perfect"
    r"|what i needed)"
    r"|(?:problem |all |it's )?(?:solved|sorted|resolved)|works now|all good|very helpful|helpful"
    r"|(?:已经?|都|问题)*解决(?:了|啦)|可以了|好了|搞定了?|(?:很|挺)?有(?:用|帮助)|有帮助|会了|懂了|清楚了|成功了)"
)

_THAT = r"(?:it|that|this|the answer|your answer|nothing)"
_NOT = (
    r"(?:did ?n[o']?t|didnt|does ?n[o']?t|doesnt|has ?n[o']?t|do ?n[o']?t|was ?n[o']?t|is ?n[o']?t)"
)
#: It did not help, wherever in a text that stands.
_UNHELPFUL_ANYWHERE = (
    rf"(?:{_THAT}(?: still| really| just)?(?:'s not| {_NOT})(?: really)? (?:help(?:ful|ed|ing)?\b"
    r"|answer|solve|fix|what i (?:asked|meant|wanted)|my question|the (?:answer|question|problem))"
    r"|not what i (?:asked|meant|wanted)(?: for)?|(?:that's|this is|it's) not my question"
    rf"|{_THAT}(?: still)? (?:{_NOT}) work\b"
    r"|(?:is |it's )?still (?:not (?:working|solved|resolved|fixed|helpful)|unsolved|unresolved)"
    r"|still the same(?: problem| issue)?|you (?:didn't|did not) (?:answer|understand)"
    r"|wrong answer"
    r"|(?:talk|speak|chat) (?:to|with) (?:a |an |some)?\s?(?:human|person|agent|someone|somebody"
    r"|representative|colleague|real person)|real person"
    r"|转人工|找人工|要人工|人工客服|人工服务"
    r"|(?:还是|仍然|依然|仍|都|并|根本|完全)?(?:没有?|未)(?:能)?(?:解决|帮助|回答)"
    r"|解决不了|帮不(?:上|到|了)|不是(?:我)?(?:这个|要|想)?(?:问题|问的|要问的|想问的)|不是这个问题|不是这个意思"
    r"|问的不是(?:这个)?|答非所问|(?:还是|仍然|依然)(?:不行|不能|不可以|没用|不管用|一样|老样子))"
)
#: It did not help, if nothing else is said.
_UNHELPFUL_ALONE = (
    r"(?:useless|unhelpful|not helpful|no help|no use|not working|does ?n[o']?t work"
    r"|did ?n[o']?t help|not (?:it|this|that)|wrong"
    r"|(?:a )?(?:human|agent|operator|person|representative)"
    r"|没有?(?:什么)?用|不管用|不顶用|没帮助|不行|不对|不是这个|人工|真人|找人|客服)"
)
#: Around it.
_FILLER = (
    r"(?:but|sorry|well|really|just|at all|still|i'm afraid|for me|me|i need|i want|give me|again"
    r"|这个|这|那个?|你们?的?|您的?|的|回答|答案|答复|完全|根本|真的?|还是|都|也|可是|但是?|可|我要?|帮我|请|给我"
    r"|了|啊|呀|吧|呢|嘛|啦|哦|呜)"
)


#: Each ends where a word ends.
_END = r"(?:(?<=[a-z])(?![a-z0-9'])|(?<![a-z]))"
_KINDS = {
    name: re.compile(f"(?:{pattern}){_END}")
    for name, pattern in (
        ("unhelpful", f"{_UNHELPFUL_ANYWHERE}|{_UNHELPFUL_ALONE}"),
        ("helped", _HELPED),
        ("chatter", _CHATTER),
        ("filler", _FILLER),
    )
}
_ANYWHERE = re.compile(rf"(?<![a-z]){_UNHELPFUL_ANYWHERE}")
_BETWEEN = re.compile(r"[\s\W_]*")


def is_chatter(text: str) -> bool:
    """Thanks, hello?, "that helped": nothing that anybody must do anything about."""
    kinds = _made_of(_folded(text))
    return kinds == {"chatter"} or ("helped" in kinds and "unhelpful" not in kinds)


def is_number(text: str) -> bool:
    """A bare order, tracking or phone number, perhaps with its name."""
    return bool(_NUMBER.fullmatch(_folded(text)))


def says_unhelpful(text: str, word: str = "") -> bool:
    """Whether it says that an answer did not help, or is the word that was offered to say so."""
    folded = _folded(text)
    if word and _bare(folded) == _bare(_folded(word)):
        return True
    return bool(_ANYWHERE.search(folded)) or is_only_unhelpful(text)


def is_only_unhelpful(text: str) -> bool:
    """Whether it says that an answer did not help, and nothing else."""
    return "unhelpful" in _made_of(_folded(text))


def _made_of(folded: str) -> set[str]:
    """The kinds of phrases that a text wholly consists of; none if anything else is in it.

    The longest phrase counts at each place, and no other is tried: a pattern that may go back
    takes for ever on a text made for that.
    """
    kinds: set[str] = set()
    at = _end_of(_BETWEEN, folded, 0)
    while at < len(folded):
        end, kind = max((_end_of(pattern, folded, at), name) for name, pattern in _KINDS.items())
        if end <= at:
            return set()
        kinds.add(kind)
        at = _end_of(_BETWEEN, folded, end)
    return kinds


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else -1


def _bare(folded: str) -> str:
    return _BETWEEN.sub("", folded)


def _folded(text: str) -> str:
    return fold(text).replace("\u2019", "'").strip()
