"""Is it the same question: scores over trials, vetoes, and what the verdict makes of them."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import repeats
from chalicelib.judge import Known, is_question, judge
from chalicelib.lexicon import BITS, COSINES, entry, lexicon
from chalicelib.policy import Mode, Policy, RepeatPolicy
from chalicelib.repeats import ANSWER_THRESHOLD, JOIN_THRESHOLD, scores, veto
from chalicelib.schema import (
    Answer,
    Channel,
    Conversation,
    Event,
    Kind,
    Message,
    Outcome,
    Participant,
    State,
    Verdict,
)
from chalicelib.shipped import SHIPPED
from tests.fakes import START
from tests.nouns import asked, conversation, message

PAIRS = json.loads((Path(__file__).parent / "samples" / "repeats.json").read_text("utf-8"))
TRIALS = Path(__file__).parents[2] / "shared" / "data" / "repeats" / "trials"
LI = "phone:+8613800138000"
LATER = START + timedelta(hours=1)


def participant(**more: Any) -> Participant:
    """Li by SMS, at the start."""
    fields: dict[str, Any] = {"address": LI, "sender": LI, "channel": Channel.SMS}
    fields |= {"inbox": "sms", "last_at": START}
    return Participant(**(fields | more))


def verdict(
    new: str | Message, *earlier: Conversation, thread: str | None = None, **policy: Any
) -> Verdict:
    """What Li's new message is, an hour after the earlier ones."""
    written = message(new) if isinstance(new, str) else new
    return judge(
        written,
        earlier,
        Known(sender=LI, thread=thread, now=LATER),
        policy=Policy(repeats=RepeatPolicy(**policy)),
        compare=SHIPPED.compare,
    )


# Scores


@pytest.mark.parametrize(("outcome", "veto", "earlier", "new"), PAIRS)
def test_a_pair_of_questions_gets_its_verdict(
    outcome: str, veto: str | None, earlier: str, new: str
) -> None:
    found = verdict(new, conversation(earlier))
    assert (found.outcome.value, found.veto) == (outcome, veto)


@pytest.mark.parametrize(
    ("earlier", "new", "why"),
    [
        (
            "我买的是绿色的，寄来的是白色的，能换吗",
            "我买的是白色的，寄来的是绿色的，能换吗",
            "exchanged",
        ),
        ("Transfer from Australia to India?", "Transfer from India to Australia?", "exchanged"),
        ("智能音箱连不上家里WiFi怎么办", "智能门锁连不上家里WiFi怎么办", "another thing"),
        ("Is it held at customs in Mumbai?", "Is it held at customs in Chennai?", "another thing"),
        ("The verification code never came", "the verificaton code never came", None),
        ("Can I pay it in September?", "can i pay it in sept", None),
    ],
)
def test_one_word_that_makes_another_question_is_told_from_one_misspelt(
    earlier: str, new: str, why: str | None
) -> None:
    found = veto(new, earlier)
    assert (found and found.partition(":")[0]) == why


@given(st.text(max_size=200), st.lists(st.text(max_size=200), max_size=4))
def test_a_score_lies_between_nothing_and_one_whatever_is_compared(
    new: str, earlier: list[str]
) -> None:
    found = scores(new, earlier)
    assert len(found) == len(earlier)
    assert all(0 <= score <= 1.0000001 for score in found)


@given(st.text(max_size=100), st.text(max_size=100))
def test_who_asked_first_makes_no_difference_to_the_score(one: str, other: str) -> None:
    assert scores(one, [other]) == pytest.approx(scores(other, [one]), abs=0.02)


def trials(kind: str, sets: str) -> Iterator[tuple[str, list[str], int]]:
    """(new, earlier, which of them is meant or -1) of some sets."""
    if not TRIALS.is_dir():
        pytest.skip("the trials of ../shared/data are not here")
    for path in sorted(TRIALS.glob(sets)):
        for line in path.read_text(encoding="utf-8").splitlines():
            trial = json.loads(line)
            if trial["kind"] == kind:
                yield trial["new"], trial["earlier"], trial["gold"]


def share_linked(
    kind: str, threshold: float, sets: str = "handwritten_*.jsonl", every: int = 1
) -> float:
    """Share of the trials of a kind that are linked, to the right one where there is one."""
    linked = []
    for new, earlier, gold in list(trials(kind, sets))[::every]:
        found = scores(new, earlier)
        best = max(range(len(found)), key=found.__getitem__)
        linked.append(found[best] >= threshold and gold in (-1, best))
    return sum(linked) / len(linked)


@pytest.mark.parametrize(
    ("kind", "at_least"), [("verbatim", 0.99), ("light", 0.99), ("repeat", 0.78)]
)
def test_repeats_join_their_ticket(kind: str, at_least: float) -> None:
    assert share_linked(kind, JOIN_THRESHOLD) >= at_least


def test_at_most_one_in_a_hundred_unrelated_questions_joins_a_ticket() -> None:
    assert share_linked("other", JOIN_THRESHOLD) <= 0.01


def test_what_is_answered_is_asked_in_nearly_the_same_words() -> None:
    assert share_linked("verbatim", ANSWER_THRESHOLD) >= 0.95
    assert share_linked("light", ANSWER_THRESHOLD) >= 0.5
    assert share_linked("hard", ANSWER_THRESHOLD) <= 0.02
    assert share_linked("other", ANSWER_THRESHOLD) == 0


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ("My card has been frozen, what do I do?", "卡被冻住了咋整", "卡 / card"),
        (
            "我的包裹一直没有动，是不是丢了？",
            "has my parcel been lost? it stays still",
            "lost / 丢",
        ),
    ],
)
def test_a_question_is_known_again_in_the_other_language_and_says_by_which_words(
    one: str, other: str, named: str
) -> None:
    found = SHIPPED.compare(other, [asked(one)])
    [match] = found.matches
    assert found.join_threshold <= match.score < found.answer_threshold
    assert named in match.agreed


def test_a_preparation_that_an_earlier_table_made_is_not_read() -> None:
    text = "Where is my parcel? It should have come on Tuesday."
    of_old = asked(text, prepared={"shipped-2": "9.0000\n\nwhere is my parcel"})
    [match] = SHIPPED.compare("where did my parcel get to", [of_old]).matches
    [without] = SHIPPED.compare("where did my parcel get to", [asked(text)]).matches
    assert match == without


def test_the_table_has_a_whole_code_for_each_of_its_words() -> None:
    table = lexicon()
    assert len(table.codes) == len(table.places) * BITS // 8


def test_a_word_that_the_table_lacks_is_like_itself_and_like_no_other() -> None:
    words = ["qzxvk", "88214kd", "携号转网不了", "parcel", "包裹"]
    codes = [entry(word).code for word in words]
    likeness = [[COSINES[(a ^ b).bit_count()] for b in codes[:3]] for a in codes]
    assert [row[n] for n, row in enumerate(likeness[:3])] == [1.0] * 3
    assert max(c for n, row in enumerate(likeness) for m, c in enumerate(row) if m != n) < 0.2


@given(st.text(max_size=150), st.text(max_size=150))
def test_a_preparation_that_was_stored_scores_as_the_text_itself(one: str, other: str) -> None:
    kept = asked(other, prepared={SHIPPED.name: SHIPPED.prepare(other)})
    [with_it], [without] = (
        SHIPPED.compare(one, [question]).matches for question in (kept, asked(other))
    )
    assert with_it.score == pytest.approx(without.score, abs=0.001)
    assert with_it.veto == without.veto


def test_what_another_version_stored_is_not_read() -> None:
    stale = asked("龙井茶怎么保存", prepared={"shipped-0": "nonsense"})
    assert SHIPPED.compare("龙井茶怎么保存？", [stale]).matches[0].score == 1.0


@pytest.mark.parametrize(
    "mail",
    [
        "Dear Sir or Madam,\n\nwhere is my parcel?\n\nKind regards\nTom Reed",
        "where is my parcel?\n\nOn Tue, 3 Jun 2025 at 10:00, Shop <a@b.example> wrote:\n> Hello",
        "Hi,\nwhere is my parcel?\n\n-----Original Message-----\nFrom: Shop\nOrder 123456",
        "where is my parcel?\n\nSent from my iPhone",
    ],
)
def test_what_a_mail_has_around_a_question_makes_no_difference(mail: str) -> None:
    assert scores(mail, ["where is my parcel"]) == [1.0]


def test_slips_of_a_chinese_keyboard_make_no_difference() -> None:
    assert scores("哪个定单在那里？", ["那个订单再哪里"]) == [1.0]


def test_of_all_unrelated_questions_hardly_one_in_a_thousand_would_be_answered() -> None:
    """Other customers' intents included, where unrelated questions sound alike."""
    assert share_linked("other", ANSWER_THRESHOLD, sets="en_*.jsonl", every=5) <= 0.001


# The verdict, rule by rule


def test_an_answer_to_our_mail_follows_up_whatever_it_says() -> None:
    found = verdict("Something entirely different?", conversation(), thread="q1")
    assert (found.outcome, found.rule) == (Outcome.FOLLOW_UP, "thread")


def test_a_thread_of_somebody_else_proves_nothing() -> None:
    assert verdict("Something else?", conversation(), thread="q-of-another").rule != "thread"


@pytest.mark.parametrize(
    "chatter",
    [
        "thanks!",
        "OK, thank you so much",
        "在吗",
        "好的，谢谢",
        "hello?",
        "单号是 SF123456789",
        "4711 0815",
    ],
)
def test_what_cannot_stand_alone_follows_up(chatter: str) -> None:
    found = verdict(chatter, conversation())
    assert (found.outcome, found.rule) == (Outcome.FOLLOW_UP, "nature")


def test_a_picture_without_words_follows_up() -> None:
    assert verdict(message("", kind=Kind.IMAGE), conversation()).rule == "nature"


def test_thanks_out_of_the_blue_open_a_ticket() -> None:
    long_ago = conversation(last_active_at=START - timedelta(days=3))
    assert verdict("thanks!", long_ago).outcome is Outcome.NEW
    assert verdict("thanks!").outcome is Outcome.NEW


@pytest.mark.parametrize(
    "text", ["Where is it?", "thanks, but where is it?", "好的，那什么时候发货"]
)
def test_a_question_after_thanks_is_a_question(text: str) -> None:
    assert is_question(message(text))


def test_an_event_opens_no_ticket() -> None:
    event = message("", kind=Kind.EVENT, event=Event(name="subscribe"))
    assert verdict(event, conversation()).outcome is Outcome.IGNORED


def test_each_question_of_a_conversation_is_remembered() -> None:
    two = (asked("Where is my parcel?"), asked("Do you sell kettles?", message_id="m2"))
    found = verdict("do you sell kettles", conversation(questions=two))
    assert (found.outcome, found.closest_message_id) == (Outcome.REPEAT, "m2")


def test_lines_in_a_burst_belong_together() -> None:
    just_now = conversation(participants=(participant(last_at=LATER - timedelta(minutes=9)),))
    assert verdict("And do you sell kettles?", just_now).rule == "time"
    a_while_ago = conversation(participants=(participant(last_at=LATER - timedelta(minutes=11)),))
    assert verdict("And do you sell kettles?", a_while_ago).outcome is Outcome.NEW


def test_two_mails_with_two_subjects_are_two_matters() -> None:
    at = LATER - timedelta(minutes=1)
    mailed = conversation(participants=(participant(inbox="sms", last_at=at, subject="Parcel"),))
    assert verdict(message("Do you sell kettles?", subject="Kettles"), mailed).rule == "none"
    assert verdict(message("Do you sell kettles?", subject="Re: parcel"), mailed).rule == "time"


@pytest.mark.parametrize(
    ("days", "answered", "outcome"),
    [
        (6, False, Outcome.REPEAT),
        (8, False, Outcome.NEW),
        (29, True, Outcome.REPEAT),
        (31, True, Outcome.NEW),
    ],
)
def test_a_question_is_the_same_matter_only_for_a_while(
    days: int, answered: bool, outcome: Outcome
) -> None:
    answer = Answer(text="soon", at=START) if answered else None
    earlier = conversation(questions=(asked(answer=answer),), state=State.ANSWERED)
    found = judge(
        message("Where is my parcel?"),
        [earlier],
        Known(sender=LI, thread=None, now=START + timedelta(days=days)),
        policy=Policy(),
        compare=SHIPPED.compare,
    )
    assert found.outcome is outcome


# Modes


def test_off_compares_nothing() -> None:
    found = verdict("Where is my parcel?", conversation(), mode=Mode.OFF)
    assert (found.outcome, found.score) == (Outcome.NEW, None)


def test_observe_records_and_changes_nothing() -> None:
    found = verdict("Where is my parcel?", conversation(), mode=Mode.OBSERVE)
    assert (found.outcome, found.would_be) == (Outcome.NEW, Outcome.REPEAT)
    assert found.score == 1.0
    assert "observing only" in found.reason


def test_the_owners_thresholds_go_before_the_shipped_ones() -> None:
    near = "夏天龙井茶应该怎么保存"
    shipped = verdict(near, conversation("龙井茶怎么保存"))
    strict = verdict(near, conversation("龙井茶怎么保存"), join_threshold=0.99)
    lax = verdict(near, conversation("龙井茶怎么保存"), answer_threshold=0.4)
    assert (shipped.outcome, strict.outcome, lax.outcome) == (
        Outcome.RELATED,
        Outcome.NEW,
        Outcome.REPEAT,
    )


def test_the_reason_names_channel_time_and_score() -> None:
    earlier = conversation(participants=(participant(channel=Channel.WECHAT),))
    reason = verdict("where is my parcel", earlier).reason
    assert "asked before, on wechat, 2026-03-01 09:00 UTC" in reason
    assert "score 1.00" in reason


def test_whether_it_is_the_same_matter_is_told_by_few_measures_and_no_other_has_a_weight() -> None:
    weights = dict(zip(repeats.MEASURES, lexicon().model["matter"], strict=False))
    assert {name for name, weight in weights.items() if weight} <= set(repeats.MATTER)


@pytest.mark.parametrize(
    "earlier", ["Where is my parcel?", "我的包裹 SF1234567 在哪里", "请问你们几点开门"]
)
def test_what_is_measured_in_part_is_what_is_measured_in_whole(earlier: str) -> None:
    a, b = repeats.prepare("我的快递 SF1234567 没收到"), repeats.prepare(earlier)
    cosines = repeats._cosines(a.codes, b.codes)
    part, whole = repeats._of_matter(a, b, cosines), repeats.measure(a, b)
    known = [repeats.MEASURES.index(name) for name in repeats.MATTER]
    assert [part[n] for n in known] == [whole[n] for n in known]
