"""The owner's rules: categories, deadlines, silence, and the words that customers hear."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from chalicelib.policy import Policy, RepeatPolicy, Wording, Words, language_of
from chalicelib.schema import Answer, Priority
from tests.fakes import START
from tests.nouns import conversation

POLICY = Policy.model_validate(
    {
        "categories": {
            "complaint": {"words": ["late", "投诉"], "priority": "high", "first_reply_minutes": 5},
            "refund": {"words": ["refund"]},
        }
    }
)


@pytest.mark.parametrize(
    ("text", "category", "priority", "minutes"),
    [
        ("Why is my parcel LATE?", "complaint", Priority.HIGH, 5),
        ("我要投诉你们", "complaint", Priority.HIGH, 5),
        ("Please translate the label", "question", Priority.NORMAL, 15),
        ("late, and I want a refund", "complaint", Priority.HIGH, 5),
        ("I want a refund", "refund", Priority.NORMAL, 15),
        ("", "question", Priority.NORMAL, 15),
    ],
)
def test_a_question_belongs_to_the_first_category_with_a_word_in_it(
    text: str, category: str, priority: Priority, minutes: int
) -> None:
    found = POLICY.categorise(text, START)
    assert found == (category, priority, START + timedelta(minutes=minutes))


@pytest.mark.parametrize(("minutes", "spoke"), [(0, True), (59, True), (60, False)])
def test_askonce_keeps_silent_for_an_hour_after_it_spoke(minutes: int, spoke: bool) -> None:
    said = conversation(last_said_at=START)
    assert Policy().spoke_lately(said, START + timedelta(minutes=minutes)) is spoke


def test_a_conversation_in_which_it_never_spoke_is_open_to_it() -> None:
    assert not Policy().spoke_lately(conversation(), START)


def test_an_answer_is_told_with_its_date_and_the_reference() -> None:
    answer = Answer(text="Keep it cool.", at=START)
    told = Wording().answered(conversation(reference="Q-1"), answer, "en")
    assert "Keep it cool." in told
    assert "1 March 2026" in told
    assert "Q-1" in told
    assert "2026年3月1日" in Wording().answered(conversation(reference="Q-1"), answer, "zh")


def test_braces_in_an_answer_are_just_braces() -> None:
    answer = Answer(text="Set {reference} to {0}.", at=START)
    assert "Set {reference} to {0}." in Wording().answered(conversation(), answer, "en")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("Hello {name}", r"knows only .*\{reference\}, not \{name\}"),
        ("{", "is no template"),
        ("{reference.__class__}", "knows only"),
    ],
)
def test_a_template_with_another_name_is_refused_when_it_is_read(template: str, fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Words.model_validate({"answered": "", "in_progress": template})


def test_thresholds_and_times_out_of_range_are_refused() -> None:
    for wrong in ({"join_threshold": 1.1}, {"open_days": 0}, {"mode": "sometimes"}):
        with pytest.raises(ValidationError):
            RepeatPolicy.model_validate(wrong)


@pytest.mark.parametrize(
    ("texts", "language"),
    [(["where"], "en"), (["茶"], "zh"), (["", "ok 好"], "zh"), ([], "en"), (["かな"], "en")],
)
def test_one_chinese_character_makes_it_chinese(texts: list[str], language: str) -> None:
    assert language_of(texts) == language
