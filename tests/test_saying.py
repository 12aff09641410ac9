"""What the customer hears: the answer once, in fit words, and a way to say that it did not help."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import chatter, notes, saying
from chalicelib.policy import Language, Policy, Way, Wording, language_of
from chalicelib.schema import (
    AddressLink,
    Answer,
    Channel,
    Choice,
    Conversation,
    Level,
    Message,
    Outcome,
    Priority,
    Question,
    State,
    Verdict,
)
from connectors import sms_text
from tests.fakes import START, World, world
from tests.nouns import asked, conversation, message

QUESTION = "How do I keep green tea fresh once the tin is open?"
ANSWER = "In a tin, cool and dark."
AGAIN = "how do I keep green tea fresh once the tin is open then?"
LI = "phone:+8613800138000"


@pytest.fixture
def w() -> World:
    return world()


def ask(w: World, text: str = QUESTION, inbox: str = "sms", **more: Any) -> Message:
    """A customer's message, all the way."""
    w.say(inbox, more.pop("sender", "li"), text, **more)
    inbound = (s.message for s in reversed(w.messages()) if s.message.direction == "inbound")
    name = next(inbound).id
    w.settle()
    return w.stored(name).message


def verdict_of(message: Message) -> Verdict:
    assert message.verdict is not None
    return message.verdict


def told_again(w: World, inbox: str = "sms", **more: Any) -> Verdict:
    """A question, answered by an agent, and an hour later by AskOnce."""
    ask(w, QUESTION, inbox, **more)
    w.reply("T1", ANSWER)
    w.settle()
    w.clock.forward(hours=1)
    verdict = verdict_of(ask(w, AGAIN, inbox, **more))
    assert verdict.said_kind == "answered"
    w.clock.forward(minutes=20)
    return verdict


def only(w: World) -> Conversation:
    [name] = {m.message.conversation_id for m in w.messages()}
    held = w.pipeline.store.conversation(name or "")
    assert held is not None
    return held.noun


# That did not help: who says so


@pytest.mark.parametrize(
    "text",
    [
        "NO",
        "no!",
        "That didn't help",
        "not what I asked",
        "still not working",
        "没用",
        "還是沒解決",
        "不是这个问题",
        "转人工",
        "人工",
    ],
)
def test_it_reopens_urgently_and_tells_the_agent(w: World, text: str) -> None:
    told_again(w)
    due = w.clock.now + timedelta(minutes=15)
    verdict = verdict_of(ask(w, text))
    assert (verdict.outcome, verdict.rule) == (Outcome.FOLLOW_UP, "unhelpful")
    found = only(w)
    assert (found.state, found.priority) == (State.OPEN, Priority.HIGH)
    assert (found.first_reply_due_at, found.told) == (due, None)
    assert "given again at 2026-03-01 10:00 UTC, did not help" in w.desk.notes[-1]
    assert w.desk.said[-1] == ("T1", text)
    assert len(found.questions) == 1


def test_that_answer_is_not_given_again_until_an_agent_gives_another(w: World) -> None:
    told_again(w)
    ask(w, "没用")
    w.clock.forward(hours=2)
    again = verdict_of(ask(w, AGAIN))
    assert (again.outcome, again.said) == (Outcome.RELATED, None)
    assert "did not help" in (again.veto or "")
    w.reply("T1", "In the fridge.")
    w.settle()
    w.clock.forward(hours=2)
    assert "In the fridge." in (verdict_of(ask(w, QUESTION)).said or "")


@pytest.mark.parametrize(
    "text", ["Thanks, that helped", "谢谢，解决了", "ok", "thank you!", "好的"]
)
def test_thanks_change_nothing(w: World, text: str) -> None:
    told_again(w)
    assert verdict_of(ask(w, text)).rule == "nature"
    assert only(w).state is State.ANSWERED


@pytest.mark.parametrize("text", ["20260301-123", "And for how long, a year or two?"])
def test_whatever_else_is_more_than_thanks_reopens_without_a_doubt(w: World, text: str) -> None:
    told_again(w)
    w.clock.forward(minutes=-15)
    assert verdict_of(ask(w, text)).rule in ("nature", "time")
    found = only(w)
    assert found.state is State.OPEN
    assert all(q.doubts == () for q in found.questions)


def test_after_an_agent_has_answered_it_means_that_answer(w: World) -> None:
    told_again(w)
    w.reply("T1", "One more thing.")
    w.settle()
    assert verdict_of(ask(w, "没用")).rule == "nature"


def test_after_two_days_it_means_nothing_that_askonce_said(w: World) -> None:
    told_again(w)
    w.clock.forward(hours=48)
    assert verdict_of(ask(w, "NO")).rule != "unhelpful"


def test_another_address_did_not_hear_it(w: World) -> None:
    shop = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]
    told_again(w, evidence=shop)
    assert verdict_of(ask(w, "没用", "wechat", evidence=shop)).rule == "nature"


def test_a_forged_sender_cannot_say_so(w: World) -> None:
    told_again(w, "email")
    told = w.channel("email").sent[-1]
    forged = ask(w, "没用", "email", level="claimed", references=[f"provider-{told.id}"])
    assert verdict_of(forged).rule == "none"
    assert forged.conversation_id != w.messages()[0].message.conversation_id


def test_the_reference_alone_does_not_tell_askonce_is_on_it(w: World) -> None:
    """What is being worked on may be asked after, but it was no answer."""
    ask(w)
    w.clock.forward(hours=1)
    assert verdict_of(ask(w, AGAIN)).said_kind == "in_progress"
    assert verdict_of(ask(w, "NO")).rule == "nature"
    assert only(w).told is None


# By mail


def test_any_answer_to_that_mail_that_is_more_than_thanks_says_so(w: World) -> None:
    told_again(w, "email")
    told = w.channel("email").sent[-1]
    text = "I meant the white one, in the blue bag."
    verdict = verdict_of(ask(w, text, "email", references=[f"provider-{told.id}"]))
    assert verdict.rule == "unhelpful"
    assert text in [q.text for q in only(w).questions]


@pytest.mark.parametrize(
    ("text", "more"),
    [("Thanks, that helped!", {}), ("I am away until Monday.", {"automatic": True})],
)
def test_thanks_and_machines_do_not(w: World, text: str, more: dict[str, Any]) -> None:
    told_again(w, "email")
    told = w.channel("email").sent[-1]
    verdict = verdict_of(ask(w, text, "email", references=[f"provider-{told.id}"], **more))
    assert verdict.rule == "thread"


# The way to say so, channel by channel


@pytest.mark.parametrize(
    ("channel", "choices", "words"),
    [
        (Channel.SMS, False, "reply NO"),
        (Channel.WEBCHAT, True, '"That did not help"'),
        (Channel.EMAIL, False, "just answer this mail"),
    ],
)
def test_the_text_names_the_channels_own_way(channel: Channel, choices: bool, words: str) -> None:
    on = of(message(AGAIN, channel=channel), choices=choices)
    verdict = saying.at_once(repeat(), on)
    assert words in (verdict.said or "")
    label = "That did not help"
    assert verdict.offered == ((Choice(label=label, value=label),) if choices else ())


def test_what_is_offered_goes_out_with_the_message(w: World) -> None:
    kind = type(w.channel("sms"))
    assert not kind.capabilities.choices
    verdict = told_again(w)
    assert w.channel("sms").sent[-1].choices == verdict.offered == ()


def of(written: Message, *, choices: bool = False, **more: Any) -> saying.Saying:
    """A repeat of Li's answered question."""
    answer = more.pop("answer", Answer(text=ANSWER, author="Kim", at=START))
    question = more.pop("question", asked(QUESTION, answer=answer))
    link = AddressLink(address=LI, contact_id="c1", level=Level.VERIFIED, source="sms")
    fields: dict[str, Any] = {
        "message": written,
        "conversation": conversation(questions=(question,)),
        "link": link,
        "asker": link,
        "policy": Policy(),
        "wording": Wording(),
        "now": START + timedelta(hours=1),
        "choices": choices,
    }
    return saying.Saying(**(fields | more))


def repeat(**more: Any) -> Verdict:
    fields = {"rule": "score", "reason": "asked before", "mode": "answer"}
    return Verdict(outcome=Outcome.REPEAT, closest_message_id="m1", **(fields | more))


# In which words

TEXTS = st.text(st.sampled_from("abcdefg zyxw 茶叶怎么退货单号0123456789?？\n{}"), max_size=80)


@given(text=TEXTS, answered=st.booleans(), way=st.sampled_from(["sms", "email", "choice"]))
def test_what_the_customer_wrote_is_never_echoed(text: str, answered: bool, way: str) -> None:
    channel = Channel.EMAIL if way == "email" else Channel.SMS
    question = asked(text, answer=Answer(text=ANSWER, at=START) if answered else None)
    on = of(message(text, channel=channel), choices=way == "choice", question=question)
    said = saying.at_once(repeat(), on).said or ""
    own = saying.at_once(repeat(), of(message("", channel=channel), choices=way == "choice",
                                      question=question)).said or ""  # fmt: skip
    zh = saying.at_once(repeat(), of(message("茶", channel=channel), choices=way == "choice",
                                     question=question)).said or ""  # fmt: skip
    assert said in (own, zh)


@pytest.mark.parametrize(
    ("written", "language"),
    [("怎么保存？", "zh"), ("How do I keep it?", "en"), ("my 订单 where", "zh")],
)
def test_the_customer_hears_the_language_just_written(written: str, language: Language) -> None:
    on = of(message(written), conversation=conversation(
        language="en" if language == "zh" else "zh",
        questions=(asked(QUESTION, answer=Answer(text="好 ok", at=START)),)))  # fmt: skip
    said = (saying.at_once(repeat(), on).said or "").replace("好 ok", "")
    assert language_of([said]) == language


@pytest.mark.parametrize("way", ["choice", "word", "mail"])
def test_chinese_is_polite(way: Way) -> None:
    words = Wording().zh
    for text in (words.answered, words.in_progress, Wording().help("zh", way)):
        assert "您" in text
        assert "你" not in text


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_shipped_words_take_two_sms_beside_the_answer(language: Language) -> None:
    wording, held = Wording(), conversation(reference="Q-7F3K-2M4P")
    answer = Answer(text="", at=START + timedelta(days=297))
    told = wording.answered(held, answer, language, "word")
    assert len(sms_text.parts(told)) <= 2
    assert len(sms_text.parts(wording.in_progress(held, language))) == (
        1 if language == "zh" else 2
    )
    assert language == "zh" or sms_text.encoding(told) == "gsm7"


@pytest.mark.parametrize(
    ("help_", "word", "told"),
    [("Reply {word} if not.", "NO", "In a tin.\n\nReply NO if not."), ("", "NO", "In a tin."),
     ("Reply {word} if not.", "", "In a tin.")],
)  # fmt: skip
def test_a_way_left_empty_leaves_no_gap(help_: str, word: str, told: str) -> None:
    words = {"answered": "{answer}\n\n{help}", "help_by_word": help_, "reply_word": word}
    wording = Wording.model_validate({"en": words})
    held = conversation()
    assert wording.answered(held, Answer(text="In a tin.", at=START), "en", "word") == told


def test_a_deployment_that_words_one_text_keeps_the_others() -> None:
    wording = Wording.model_validate({"zh": {"in_progress": "请稍候"}})
    assert wording.in_progress(conversation(), "zh") == "请稍候"
    assert wording.zh.answered == Wording().zh.answered
    assert wording.zh.opted_out


def test_a_category_keeps_silent_where_its_mode_says_so(w: World) -> None:
    w.configure(
        policy={"categories": {"money": {"words": ["refund"], "repeats": {"mode": "suggest"}}}}
    )
    ask(w, "When do I get my refund for the kettle?")
    w.reply("T1", "Within ten days.")
    w.settle()
    w.clock.forward(hours=1)
    verdict = verdict_of(ask(w, "When do I get my refund for the kettle??"))
    assert (verdict.outcome, verdict.said) == (Outcome.REPEAT, None)
    assert verdict.proposed == "Within ten days."


def test_one_automatic_message_an_hour_also_after_it_did_not_help(w: World) -> None:
    told_again(w)
    ask(w, "NO")
    verdict = verdict_of(ask(w, AGAIN))
    assert verdict.said is None
    assert sum(ANSWER in text for text in w.sent("sms")) == 2


# What people write


@pytest.mark.parametrize(
    "text",
    ["没用过的茶叶可以退吗？", "Can I talk about my order?", "我的人工草坪什么时候发货",
     "不行的话可以退吗", "Is this useless box returnable?", "The agent told me to wait"],
)  # fmt: skip
def test_a_question_with_such_a_word_in_it_is_a_question(text: str) -> None:
    assert not chatter.says_unhelpful(text)
    assert not chatter.is_chatter(text)


@pytest.mark.parametrize(
    "piece",
    ["好的", "没有用", "嗯", "thank you", "还是没有解决", "the answer ", "麻烦了", "it still "],
)
def test_a_text_made_to_take_for_ever_takes_a_moment(piece: str) -> None:
    """A pattern that may go back would try every way to cut it: this test would not end."""
    text = piece * (1900 // len(piece)) + "x"
    assert not chatter.is_chatter(text)
    assert not chatter.is_only_unhelpful(text)
    assert not chatter.is_number(text)


@given(st.text(max_size=200))
def test_whatever_is_written_is_at_most_one_of_them(text: str) -> None:
    assert not (chatter.is_chatter(text) and chatter.is_only_unhelpful(text))


# The note on the ticket


def a_note(language: Language, **more: Any) -> str:
    question = asked(f"{QUESTION} {'It is a very good one. ' * 20}")
    verdict = repeat(score=0.934, evidence=("green tea", "fresh"), said="told so", **more)
    [note] = notes.of(
        message(AGAIN, verdict=verdict), conversation(questions=(question,)), language
    )
    return note


def test_the_note_is_short_and_says_why_and_what_was_told() -> None:
    lines = a_note("en").splitlines()
    assert lines[0] == "Asked again, by sms: asked before."
    assert lines[1].startswith(f'The earlier question: "{QUESTION}')
    assert len(lines[1]) < 160
    assert lines[2:] == ["Both say: green tea; fresh", "AskOnce told the customer:", "told so"]


def test_the_note_is_in_the_agents_language() -> None:
    note = a_note("zh", veto="another number or date")
    assert "相似度 0.93" in note
    assert "号码或日期不同" in note
    assert "asked before" not in note


def test_agents_language_is_the_owners_to_set(w: World) -> None:
    w.configure(policy={"agents_language": "zh"})
    told_again(w)
    ask(w, "没用")
    assert "没有解决问题" in w.desk.notes[-1]


def test_every_note_is_there_in_both_languages() -> None:
    assert set(notes._EN) <= set(notes._ZH)


def test_a_question_knows_whether_its_answer_failed() -> None:
    def doubted(minutes: int) -> Question:
        from chalicelib.schema import Doubt

        at = START + timedelta(minutes=minutes)
        doubt = Doubt(kind="unhelpful", text="NO", message_id="m2", by="customer", at=at)
        return asked(answer=Answer(text=ANSWER, at=START), doubts=(doubt,))

    assert doubted(1).unhelpful
    assert not doubted(-1).unhelpful
