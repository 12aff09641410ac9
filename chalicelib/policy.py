"""The owner's rules: categories, deadlines, when to answer, and in which words. Pure.

Defaults follow what the people who run customer service write down: first reply within 15 minutes,
a complaint registered at once and treated as urgent.
"""

import re
import string
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from chalicelib.schema import Answer, Conversation, Priority

Language = Literal["zh", "en"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mode(StrEnum):
    """What becomes of a recognised repeat."""

    OFF = "off"  # not looked for
    OBSERVE = "observe"  # recorded, nothing changes
    SUGGEST = "suggest"  # joins the ticket; the agent gets the earlier answer proposed
    ANSWER = "answer"  # joins the ticket; the customer hears the earlier answer


class RepeatPolicy(_Section):
    """[policy.repeats]"""

    mode: Mode = Mode.ANSWER
    #: An unanswered question older than this is not the same matter any more.
    open_days: Annotated[float, Field(gt=0)] = 7
    #: How long an answer may be given again.
    answered_days: Annotated[float, Field(gt=0)] = 30
    #: Lines on the same channel within this time belong together.
    burst_minutes: Annotated[float, Field(ge=0)] = 10
    #: How long "thanks" and "ok" still belong to a conversation.
    active_hours: Annotated[float, Field(gt=0)] = 48
    #: Scores from 0 to 1; None takes what the scorer ships.
    join_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    answer_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    #: AskOnce speaks by itself in one conversation at most once in this time.
    silence_minutes: Annotated[float, Field(ge=0)] = 60


class RepeatOverrides(_Section):
    """[policy.categories.<name>.repeats]: what differs for the questions of a category."""

    mode: Mode | None = None
    open_days: Annotated[float, Field(gt=0)] | None = None
    answered_days: Annotated[float, Field(gt=0)] | None = None
    join_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    answer_threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class Category(_Section):
    """[policy.categories.<name>]: a question belongs to the first category with a word in it."""

    words: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    first_reply_minutes: Annotated[float, Field(gt=0)] = 15
    repeats: RepeatOverrides = RepeatOverrides()

    def covers(self, text: str) -> bool:
        return any(_contains(text, word.casefold()) for word in self.words)


def _contains(text: str, word: str) -> bool:
    if word.isascii():  # whole words, since "late" is not in "translate"
        return re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", text) is not None
    return word in text


_COMPLAINT = (
    *("complain", "complaint", "refund my money", "unacceptable", "lawyer", "scam"),
    *("投诉", "投訴", "差评", "差評", "举报", "舉報", "退一赔三", "骗子", "騙子", "消协"),
)


class Policy(_Section):
    """[policy]"""

    repeats: RepeatPolicy = RepeatPolicy()
    categories: dict[str, Category] = {
        "complaint": Category(words=_COMPLAINT, priority=Priority.HIGH)
    }
    #: For questions of no listed category.
    first_reply_minutes: Annotated[float, Field(gt=0)] = 15
    retention_days: Annotated[int, Field(ge=1)] = 400

    def categorise(self, text: str, asked_at: datetime) -> tuple[str, Priority, datetime]:
        """A question's category, its priority, and until when it wants a first reply."""
        folded = text.casefold()
        for name, category in self.categories.items():
            if category.covers(folded):
                minutes = category.first_reply_minutes
                return name, category.priority, asked_at + timedelta(minutes=minutes)
        due_at = asked_at + timedelta(minutes=self.first_reply_minutes)
        return "question", Priority.NORMAL, due_at

    def repeats_of(self, category: str) -> RepeatPolicy:
        """What holds for the questions of a category."""
        own = self.categories.get(category, Category()).repeats
        return self.repeats.model_copy(update=own.model_dump(exclude_none=True))

    def spoke_lately(self, conversation: Conversation, now: datetime) -> bool:
        """Whether AskOnce spoke by itself within the time of silence."""
        said = conversation.last_said_at
        silence = timedelta(minutes=self.repeats.silence_minutes)
        return said is not None and now - said < silence


def _template(*names: str) -> AfterValidator:
    """Checks that a template holds only these names in braces."""

    def check(text: str) -> str:
        try:
            used = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise ValueError(f"is no template: {error}") from None
        if unknown := used - set(names):
            known = ", ".join("{%s}" % n for n in names)  # noqa: UP031  # braces inside braces
            raise ValueError(f"knows only {known}, not {{{min(unknown)}}}")
        return text

    return AfterValidator(check)


class Words(_Section):
    """[wording.<language>]: what customers hear from AskOnce itself; '' keeps silent."""

    answered: Annotated[str, _template("answer", "reference", "answered_on")]
    in_progress: Annotated[str, _template("reference")]
    opted_out: Annotated[str, _template()] = ""
    opted_in: Annotated[str, _template()] = ""


_EN = Words(
    answered="You asked us about this before. This is the answer we gave on {answered_on}:\n\n"
    "{answer}\n\n"
    "If that does not help, just reply and a colleague will take another look. ({reference})",
    in_progress="Thank you for your message. We already have this question from you and are "
    "working on it; nothing is lost and you need not ask again. Your reference: {reference}",
    opted_out="You are opted out and will get no more messages from us here. "
    "Reply START to get them again.",
    opted_in="You are opted in again and will get our answers here. Reply STOP to opt out.",
)
_ZH = Words(
    answered="您好，您之前咨询过这个问题，我们在{answered_on}的答复如下：\n\n{answer}\n\n"
    "如果没有解决您的问题，请直接回复，我们会请同事为您继续处理。（编号 {reference}）",
    in_progress="您好，您的问题我们已经收到，正在处理中，无需重复提交。您的咨询编号：{reference}",
    opted_out="您已成功退订，我们不会再向此号码发送短信。如需恢复，请回复 START。",
    opted_in="您已恢复接收我们的短信。如需退订，请回复 TD。",
)


class Wording(_Section):
    """[wording]"""

    en: Words = _EN
    zh: Words = _ZH

    def answered(self, conversation: Conversation, answer: Answer, language: Language) -> str:
        """The earlier answer, to be told again."""
        at = answer.at
        on = f"{at.year}年{at.month}月{at.day}日" if language == "zh" else f"{at:%-d %B %Y}"
        return self._of(language).answered.format(
            answer=answer.text, reference=conversation.reference, answered_on=on
        )

    def in_progress(self, conversation: Conversation, language: Language) -> str:
        """That the question is being worked on."""
        return self._of(language).in_progress.format(reference=conversation.reference)

    def consent(self, choice: str, language: Language) -> str:
        """That an opt-out, or an opt-in, was understood."""
        words = self._of(language)
        return words.opted_out if choice == "out" else words.opted_in

    def _of(self, language: Language) -> Words:
        return self.zh if language == "zh" else self.en


def language_of(texts: Iterable[str]) -> Language:
    """`zh` if there is a Chinese character in it, else `en`."""
    return "zh" if any(re.search(r"[\u3400-\u9fff\uf900-\ufaff]", t) for t in texts) else "en"
