"""The owner's rules: categories, deadlines, when to answer, and in which words. Pure.

Defaults follow what the people who run customer service write down: first reply within 15 minutes,
a complaint registered at once and treated as urgent.
"""

import re
import string
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from chalicelib.schema import AddressLink, Answer, Conversation, Level, Priority

Language = Literal["zh", "en"]
#: How customers say that an answer did not help: by a button or link, a word, or any reply by mail.
Way = Literal["choice", "word", "mail"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


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


_Days = Annotated[float, Field(gt=0)] | Literal["never"]


class ContactPolicy(_Section):
    """[policy.contacts]"""

    #: For how many days after its last proof an address counts as the same person's: numbers are
    #: given to others, mailboxes are closed. What WeChat and your own site say does not age.
    phone_days: _Days = 180
    email_days: _Days = 365
    webchat_days: _Days = "never"
    #: `offer`: who claims an address that we know is sent a one-time code there, unasked.
    codes: Literal["off", "offer"] = "off"

    def fresh_until(self, link: AddressLink) -> datetime | None:
        """Until when an address counts as proven; None for one that does not age."""
        kind = link.address.removeprefix("unproven:").partition(":")[0]
        days: float | Literal["never"] = getattr(self, f"{kind}_days", "never")
        proven_at = link.verified_at or (link.history[-1].at if link.history else None)
        if days == "never" or proven_at is None:
            return None
        return proven_at + timedelta(days=days)

    def aged_out(self, link: AddressLink, at: datetime) -> bool:
        """Whether an address was proven too long ago to be the same person's."""
        until = self.fresh_until(link)
        return link.level is Level.VERIFIED and until is not None and until < at

    def is_fresh(self, link: AddressLink, at: datetime) -> bool:
        """Whether an address is proven as of then."""
        return link.level is Level.VERIFIED and not self.aged_out(link, at)


class TrendingPolicy(_Section):
    """[policy.trending]: what many customers ask, whoever they are."""

    #: Whether equal questions of different customers are counted.
    counted: bool = True
    #: How alike they must be, 0 to 1; None takes the middle of the scorer's two thresholds.
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    #: A question surges when so many customers ask it within an hour,
    surge_customers: Annotated[int, Field(ge=2)] = 5
    #: and so many times as many as usually do.
    surge_factor: Annotated[float, Field(ge=1)] = 3
    #: One that surged is quiet for so long.
    quiet_hours: Annotated[float, Field(ge=1)] = 6


class Policy(_Section):
    """[policy]"""

    repeats: RepeatPolicy = RepeatPolicy()
    trending: TrendingPolicy = TrendingPolicy()
    contacts: ContactPolicy = ContactPolicy()
    categories: dict[str, Category] = {
        "complaint": Category(words=_COMPLAINT, priority=Priority.HIGH)
    }
    #: For questions of no listed category.
    first_reply_minutes: Annotated[float, Field(gt=0)] = 15
    retention_days: Annotated[int, Field(ge=1)] = 400
    #: Of the notes that AskOnce leaves on tickets.
    agents_language: Language = "en"

    def categorise(self, text: str, asked_at: datetime) -> tuple[str, Priority, datetime]:
        """A question's category, its priority, and until when it wants a first reply."""
        folded = text.casefold()
        for name, category in self.categories.items():
            if category.covers(folded):
                minutes = category.first_reply_minutes
                return name, category.priority, asked_at + timedelta(minutes=minutes)
        due_at = asked_at + timedelta(minutes=self.first_reply_minutes)
        return "question", Priority.NORMAL, due_at

    def priority_of(self, category: str) -> Priority:
        """How urgent a question of a category is when it is first asked."""
        return self.categories.get(category, Category()).priority

    def reply_due(self, category: str, asked_at: datetime) -> datetime:
        """Until when a question of a category wants a reply."""
        known = self.categories.get(category)
        minutes = known.first_reply_minutes if known else self.first_reply_minutes
        return asked_at + timedelta(minutes=minutes)

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

    answered: Annotated[str, _template("answer", "reference", "answered_on", "help")]
    in_progress: Annotated[str, _template("reference")]
    #: The owner's answer to a question that anybody may ask: an entry of the FAQ.
    faq: Annotated[str, _template("answer", "reference", "help")]
    #: What {help} stands for: where there is a button, on channels without, and in mail, where
    #: whatever is answered counts. {word} is the button's text, or the word to reply.
    help_by_choice: Annotated[str, _template("word")] = ""
    help_by_word: Annotated[str, _template("word")] = ""
    help_by_mail: Annotated[str, _template("word")] = ""
    choice: Annotated[str, Field(max_length=20)] = ""
    reply_word: Annotated[str, Field(max_length=20)] = ""
    opted_out: Annotated[str, _template()] = ""
    opted_in: Annotated[str, _template()] = ""
    #: A one-time code, and where to send it back.
    code: Annotated[str, Field(min_length=1), _template("code", "channel")]
    code_subject: Annotated[str, Field(min_length=1), _template()]


_EN = Words(
    answered="You asked us about this before. This is the answer we gave on {answered_on}:\n\n"
    "{answer}\n\n{help}\n\nYour reference: {reference}",
    in_progress="Thank you for your message. We already have this question from you and are "
    "working on it; nothing is lost and you need not ask again. Your reference: {reference}",
    faq="This is our answer to a question that is often asked; we hope that it is yours:\n\n"
    "{answer}\n\n{help}\n\nYour reference: {reference}",
    help_by_choice='If that did not help, choose or write "{word}" and a colleague will '
    "take another look.",
    help_by_word="If that did not help, reply {word} and a colleague will take another look.",
    help_by_mail="If that did not help, just answer this mail and a colleague will take another "
    "look.",
    choice="That did not help",
    reply_word="NO",
    opted_out="You are opted out and will get no more messages from us here. "
    "Reply START to get them again.",
    code="Your code is {code}. Send it back to us {channel} within 10 minutes, and we will know "
    "that both are you. If you are not writing to us there, ignore this, and tell the code to "
    "nobody.",
    code_subject="Your code",
    opted_in="You are opted in again and will get our answers here. Reply STOP to opt out.",
)
_ZH = Words(
    answered="您好，您之前咨询过这个问题，我们在{answered_on}的答复如下：\n\n{answer}\n\n"
    "{help}\n\n您的咨询编号：{reference}",
    in_progress="您好，您的问题我们已经收到，正在处理中，无需重复提交。您的咨询编号：{reference}",
    faq="您好，您咨询的可能是一个常见问题，答复如下：\n\n{answer}\n\n{help}\n\n您的咨询编号：{reference}",
    help_by_choice="如果没有解决您的问题，请您点击或回复「{word}」，我们会请同事为您继续处理。",
    help_by_word="如果没有解决您的问题，请您回复{word}转人工处理。",
    help_by_mail="如果没有解决您的问题，请您直接回复此邮件，我们会请同事为您继续处理。",
    choice="没有解决",
    reply_word="0",
    code="您的验证码是{code}，10分钟内有效。请通过{channel}把它发给我们，以确认两处都是您本人。"
    "如非您本人操作，请忽略本消息，切勿将验证码告诉任何人。",
    code_subject="您的验证码",
    opted_out="您已成功退订，我们不会再向此号码发送短信。如需恢复，请回复 START。",
    opted_in="您已恢复接收我们的短信。如需退订，请回复 TD。",
)


def _over(shipped: Words, given: object) -> object:
    """What a deployment words itself, over what ships."""
    return shipped.model_dump() | given if isinstance(given, dict) else given


def _filled(template: str, **values: str) -> str:
    """The template with its values; one that is empty takes the blank lines before it along."""
    for name, value in values.items():
        if not value:
            template = re.sub(rf"\s*\{{{name}\}}", "", template)
    return template.format(**values)


class Wording(_Section):
    """[wording]"""

    en: Annotated[Words, BeforeValidator(partial(_over, _EN))] = _EN
    zh: Annotated[Words, BeforeValidator(partial(_over, _ZH))] = _ZH

    def answered(
        self,
        conversation: Conversation,
        answer: Answer,
        language: Language,
        way: Way | None = None,
    ) -> str:
        """The earlier answer, to be told again, with the way to say that it did not help."""
        at = answer.at
        on = f"{at.year}年{at.month}月{at.day}日" if language == "zh" else f"{at:%-d %B %Y}"
        return _filled(
            self._of(language).answered,
            answer=answer.text,
            reference=conversation.reference,
            answered_on=on,
            help=self.help(language, way),
        )

    def faq(
        self, conversation: Conversation, answer: str, language: Language, way: Way | None = None
    ) -> str:
        """An entry's answer, with the way to say that it did not help."""
        return _filled(
            self._of(language).faq,
            answer=answer,
            reference=conversation.reference,
            help=self.help(language, way),
        )

    def help(self, language: Language, way: Way | None) -> str:
        """How the customer says that an answer did not help; '' where no way is configured."""
        words = self._of(language)
        says = {
            None: "",
            "choice": words.help_by_choice,
            "word": words.help_by_word,
            "mail": words.help_by_mail,
        }[way]
        word = self.help_word(language, way)
        return says.format(word=word) if word or "{word}" not in says else ""

    def help_word(self, language: Language, way: Way | None) -> str:
        """What the customer says by that: a button's text, or a word; '' where anything does."""
        words = self._of(language)
        return {"choice": words.choice, "word": words.reply_word}.get(way or "", "")

    def in_progress(self, conversation: Conversation, language: Language) -> str:
        """That the question is being worked on."""
        return self._of(language).in_progress.format(reference=conversation.reference)

    def consent(self, choice: str, language: Language) -> str:
        """That an opt-out, or an opt-in, was understood."""
        words = self._of(language)
        return words.opted_out if choice == "out" else words.opted_in

    def code(self, code: str, channel: str, language: Language) -> str:
        """A one-time code, to be sent back by that channel."""
        return self._of(language).code.format(code=code, channel=channel)

    def code_subject(self, language: Language) -> str:
        """The subject of a mail with a one-time code."""
        return self._of(language).code_subject

    def _of(self, language: Language) -> Words:
        return self.zh if language == "zh" else self.en


def language_of(texts: Iterable[str]) -> Language:
    """`zh` if there is a Chinese character in it, else `en`."""
    return "zh" if any(re.search(r"[\u3400-\u9fff\uf900-\ufaff]", t) for t in texts) else "en"
