"""The owner's answers: read, found, told to whoever asks first; never a draft, never a guess."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import faq, settings
from chalicelib.errors import ConfigurationError, RetryableError
from chalicelib.faq import Entry, Faq, Version
from chalicelib.ports import Comparison, Match, Scorer
from chalicelib.schema import Question
from chalicelib.settings import Deployment, read
from chalicelib.shipped import SHIPPED
from infra.cli import main
from infra.package import faq_file
from tests.fakes import CONNECTORS, HELPDESKS, NoTokens, World, document, world

EXAMPLES = Path(__file__).parent.parent / "examples"

RETURNS = """
[returns]
approved = true

[returns.en]
question = "How long can I return something I bought?"
variants = ["What is your return policy?"]
answer = "You have 30 days."

[returns.zh]
question = "买的东西多久之内可以退货？"
answer = "30天内可以退货。"
"""
DRAFT = """
[warranty]

[warranty.en]
question = "How long is the warranty of a kettle?"
answer = "Two years."
"""


def entries(text: str) -> Faq:
    import tomllib

    return Faq(faq.entries_of(tomllib.loads(text), "faq.toml"))


class Counting(Scorer):
    """The shipped scorer, which remembers with how many it compared."""

    name = "counting"

    def __init__(self) -> None:
        self.compared: list[int] = []
        self.prepared = 0

    def prepare(self, text: str) -> str:
        self.prepared += 1
        return text

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        self.compared.append(len(questions))
        return SHIPPED.compare(text, questions)


class Fixed(Scorer):
    """Gives each wording the match that is written down for it."""

    name = "fixed"

    def __init__(self, matches: dict[str, Match]) -> None:
        self.matches = matches

    def prepare(self, text: str) -> str:
        return ""

    def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
        return Comparison(
            matches=[self.matches.get(q.text, Match(score=0.0)) for q in questions],
            scorer=self.name,
            join_threshold=0.3,
            answer_threshold=0.9,
        )


# Finding


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("How long can I return something I bought?", "You have 30 days."),
        ("hi!! how long can i return something i bought 🙏", "You have 30 days."),
        ("what is your return policy", "You have 30 days."),
        ("请问买的东西多久之内可以退货", "30天内可以退货。"),
        ("買的東西多久之內可以退貨？", "30天内可以退货。"),
    ],
)
def test_an_entry_answers_its_wordings_in_the_language_asked(text: str, answer: str) -> None:
    found = entries(RETURNS).find(text, SHIPPED)
    assert found
    assert (found.entry_id, found.answer, found.same) == ("returns", answer, True)


@pytest.mark.parametrize(
    "text", ["Where is my parcel?", "Can I return something I did not buy from you?", "退货", ""]
)
def test_another_question_is_not_answered(text: str) -> None:
    found = entries(RETURNS).find(text, SHIPPED)
    assert found is None or not found.same


def test_a_draft_is_never_found_but_by_who_looks_for_drafts() -> None:
    text = "How long is the warranty of a kettle?"
    found = entries(RETURNS + DRAFT)
    assert not (other := found.find(text, SHIPPED)) or not other.same
    draft = found.find(text, SHIPPED, drafts=True)
    assert draft
    assert draft.same


@pytest.mark.parametrize(
    ("match", "same"),
    [
        (Match(score=0.9), True),
        (Match(score=0.89), False),
        (Match(score=1.0, veto="another number"), False),
    ],
)
def test_it_takes_the_answer_threshold_and_no_veto(match: Match, same: bool) -> None:
    scorer = Fixed({"How long can I return something I bought?": match})
    found = entries(RETURNS).find("how long can i return a kettle", scorer)
    assert found
    assert found.same is same


@pytest.mark.parametrize(("rival", "same"), [(0.99, False), (0.97, True)])
def test_of_two_entries_equally_close_neither_is_told(rival: float, same: bool) -> None:
    both = RETURNS + DRAFT.replace("[warranty]", "[warranty]\napproved = true")
    scorer = Fixed(
        {
            "How long can I return something I bought?": Match(score=1.0),
            "How long is the warranty of a kettle?": Match(score=rival),
        }
    )
    found = entries(both).find("how long is it for a kettle I bought", scorer)
    assert found
    assert found.same is same


def test_a_thousand_entries_of_five_variants_cost_few_comparisons() -> None:
    things = [f"{c}{v}{d}o" for c in "bdfgklmnprstvz" for v in "aeiou" for d in "bdfgklmnprstvz"]
    many = {
        thing: Entry(
            approved=True,
            en=Version(
                question=f"How do I clean my {thing}?",
                variants=tuple(f"{how} the {thing}?" for how in ("Cleaning", "Can I wash",
                    "What cleans", "How to scrub", "Is soap good for")),
                answer=f"Wash the {thing}.",
            ),
        )
        for thing in things[:900]
    }  # fmt: skip
    scorer, all_of_them = Counting(), Faq(many)
    for thing in things[:50]:
        found = all_of_them.find(f"how do i clean my {thing}??", scorer)
        assert found
        assert (found.entry_id, found.same) == (thing, True)
    assert max(scorer.compared) <= faq.COMPARED_WORDINGS
    prepared = scorer.prepared
    all_of_them.find(f"how do i clean my {things[0]}", scorer)
    assert scorer.prepared == prepared  # what is prepared once is kept


# Reading


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[a.en]\nquestion = "Why?"', 'entry "a": en.answer is missing'),
        ('[a.en]\nquestion = " "\nanswer = "x"', 'entry "a": en.question is empty'),
        ('[a.en]\nquestion = "Why?"\nanswer = ""', 'entry "a": en.answer is empty'),
        ("[a]\napproved = true", 'entry "a": has neither en nor zh: write [a.en] or [a.zh]'),
        ('[a]\nen = "Why?"', 'entry "a": en is no table'),
        ("a = 3", 'entry "a": is no table'),
        ('[a.fr]\nquestion = "Quoi?"', 'entry "a": fr is no setting that we know'),
        ('[A.en]\nquestion = "Why?"\nanswer = "x"',
         'entry "A": write its id in lower-case letters, digits and hyphens'),
        ('[a.en]\nquestion = "?!"\nanswer = "x"',
         'entry "a": en: "?!" holds no word to recognise it by'),
        ('[a.zh]\nquestion = "Why is it?"\nanswer = "x"',
         'entry "a": zh: "Why is it?" is not written in zh'),
        ('[a.en]\nquestion = "Why is it?"\nanswer = "x"\n[b.en]\nquestion = "why is it"\n'
         'answer = "y"', 'entry "b": "why is it" stands in entry "a" as well'),
    ],
)  # fmt: skip
def test_a_fault_names_its_entry(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        entries(text)
    assert str(found.value).splitlines()[0] == f"faq.toml: {fault}"


def test_a_file_that_is_not_there_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: there is no such file"):
        faq.read(tmp_path / "none.toml")
    (tmp_path / "faq.toml").write_text("[a", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"faq\.toml: is not valid TOML"):
        faq.read(tmp_path / "faq.toml")


def test_the_file_is_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "faq.toml").write_text(RETURNS, encoding="utf-8")
    (tmp_path / "askonce.toml").write_text(
        'public_url = "https://a.example"\nhelpdesk = "desk"\n[helpdesks.desk]\n'
        'connector = "fake_desk"\n[faq]\nfile = "faq.toml"\n',
        encoding="utf-8",
    )
    configured = Deployment(read(tmp_path / "askonce.toml"), CONNECTORS, HELPDESKS, NoTokens())
    assert list(configured.faq.entries) == ["returns"]
    assert configured.faults() == []


def test_the_files_faults_are_the_configurations(tmp_path: Path) -> None:
    told = document().model_copy(update={"faq": settings.FaqFile(file=str(tmp_path / "faq.toml"))})
    configured = Deployment(told, CONNECTORS, HELPDESKS, NoTokens())
    (fault,) = configured.faults()
    assert "faq.toml: there is no such file" in fault
    twice = RETURNS + RETURNS.replace("returns", "again")
    (tmp_path / "faq.toml").write_text(twice, encoding="utf-8")
    assert any("as well" in fault for fault in configured.faults())


# CSV


def test_a_table_becomes_entries_in_both_languages() -> None:
    table = (
        "\ufeffid,language,question,variants,answer,approved\n"
        'returns,en,How long may I return?,"Can I return it? | Return policy","30 days, all",yes\n'
        "returns,zh,多久可以退货？,,30天。,yes\n"
        "draft,,Why?,,Because.,\n"
    )
    found = faq.from_csv(table, "q.csv")
    assert found["returns"].en == Version(
        question="How long may I return?",
        variants=("Can I return it?", "Return policy"),
        answer="30 days, all",
    )
    assert (found["returns"].zh or Version(question="x", answer="x")).answer == "30天。"
    assert (found["returns"].approved, found["draft"].approved) == (True, False)


def test_an_entry_is_approved_in_both_languages_or_not_at_all() -> None:
    table = "id;question;answer;approved\na;Why?;Because.;yes\na;为什么？;因为。;no\n"
    assert faq.from_csv(table, "q.csv")["a"].approved is False


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("id,question\n", "q.csv: the column answer is missing in its first line"),
        ("id,question,answer,mood\n", 'q.csv: the column "mood" is none that we know'),
        ("id,question,answer\n,Why?,x\n", "q.csv: line 2: id is empty"),
        ("id,question,answer\na,Why?,x\na,Who?,y\n", 'q.csv: line 3: entry "a": has en twice'),
        ("id,question,answer,language\na,Why?,x,fr\n",
         'q.csv: line 2: entry "a": language is fr: write zh or en'),
        ("id,question,answer,approved\na,Why?,x,maybe\n",
         'q.csv: line 2: entry "a": approved is maybe: write yes or no'),
        ("id,question,answer\na,Why?,\n", 'q.csv: entry "a": en.answer is empty'),
    ],
)  # fmt: skip
def test_a_fault_of_a_table_names_its_line_or_entry(table: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        faq.from_csv(table, "q.csv")
    assert str(found.value).splitlines()[0] == fault


def askonce(*words: str) -> Result:
    return CliRunner().invoke(main, ["faq", *words])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "askonce.toml"
    path.write_text(
        'public_url = "https://a.example"\nhelpdesk = "desk"\n[faq]\nfile = "faq.toml"\n',
        encoding="utf-8",
    )
    return path


def test_a_table_is_added_to_the_file_once(config: Path) -> None:
    file, table = config.with_name("faq.toml"), str(EXAMPLES / "faq.csv")
    file.write_text("# mine\n" + RETURNS, encoding="utf-8")
    assert askonce("import", table, "--dry-run", "--config", str(config)).exit_code == 0
    assert list(faq.read(file).entries) == ["returns"]
    assert askonce("import", table, "--config", str(config)).exit_code == 0
    assert list(faq.read(file).entries) == ["returns", "delivery-time", "invoice"]
    assert file.read_text(encoding="utf-8").startswith("# mine\n")
    again = askonce("import", table, "--config", str(config))
    assert again.exit_code == 2
    assert 'faq.toml: entry "invoice" is there already' in again.output


def test_a_table_may_begin_the_file(config: Path) -> None:
    done = askonce("import", str(EXAMPLES / "faq.csv"), "--config", str(config))
    assert done.output == "faq.toml: 2 entries added, 1 of them approved\n"
    checked = askonce("check", "--config", str(config))
    assert checked.exit_code == 0
    assert checked.output.endswith("faq.toml: 2 entries, 1 approved, no faults\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [(("check",), "there is no such file"), (("import", "none.csv"), "there is no such file")],
)
def test_what_is_not_there_is_one_line(config: Path, words: tuple[str, ...], told: str) -> None:
    done = askonce(*words, "--config", str(config))
    assert done.exit_code == 2
    assert told in done.output
    assert done.output.count("\n") == 1


def test_without_a_faq_the_mend_is_named(config: Path) -> None:
    config.write_text('public_url = "https://a.example"\nhelpdesk = "desk"\n', encoding="utf-8")
    done = askonce("check", "--config", str(config))
    assert done.exit_code == 2
    assert 'write [faq] and file = "faq.toml"' in done.output


def test_the_file_is_packaged_only_from_beside_the_configuration(config: Path) -> None:
    assert faq_file(config) == "faq.toml"
    for elsewhere in ("../faq.toml", str(config.with_name("faq.toml"))):
        config.write_text(f'[faq]\nfile = "{elsewhere}"\n', encoding="utf-8")
        with pytest.raises(ConfigurationError, match="must lie beside it"):
            faq_file(config)


TEXTS = st.text(min_size=1, max_size=60).filter(lambda t: t.strip())


@given(question=TEXTS, variants=st.lists(TEXTS, max_size=3), answer=TEXTS, approved=st.booleans())
def test_what_is_written_is_read_again(
    question: str, variants: list[str], answer: str, approved: bool
) -> None:
    import tomllib

    version = Version(question=question, variants=tuple(variants), answer=answer)
    entry = Entry(approved=approved, en=version)
    again = tomllib.loads(faq.as_toml({"a-1": entry}))
    surrogates = any("\ud800" <= c <= "\udfff" for t in (question, answer, *variants) for c in t)
    assert surrogates or Entry.model_validate(again["a-1"]) == entry


def test_the_examples_hold_no_faults() -> None:
    written = faq.read(EXAMPLES / "faq.toml")
    assert {e.approved for e in written.entries.values()} == {True, False}
    table = faq.from_csv((EXAMPLES / "faq.csv").read_text(encoding="utf-8"), "faq.csv")
    assert len(table) > 1


# Told to whoever asks first


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "faq.toml"
    path.write_text(RETURNS + DRAFT, encoding="utf-8")
    return path


def with_faq(file: Path, **policy: Any) -> World:
    made = world(**policy)
    made.configure(faq={"file": str(file)})
    return made


ASKED = "What is your return policy?"


def test_a_first_question_is_answered_from_the_faq_and_still_becomes_a_ticket(file: Path) -> None:
    w = with_faq(file)
    w.say("sms", "+8613800138000", ASKED)
    w.settle()
    (told,) = w.sent("sms")
    assert "You have 30 days." in told
    assert w.desk.said == [("T1", ASKED)]
    (note,) = w.desk.notes
    assert 'The FAQ entry "returns" answers this (score 1.00)' in note
    assert told in note
    verdict = w.messages()[0].message.verdict
    assert verdict
    assert (verdict.outcome, verdict.said_kind, verdict.faq_id) == ("new", "faq", "returns")


def test_a_chinese_question_gets_the_chinese_answer_in_chinese_words(file: Path) -> None:
    w = with_faq(file)
    w.say("sms", "+8613800138000", "请问买的东西多久之内可以退货？")
    w.settle()
    (told,) = w.sent("sms")
    assert "30天内可以退货。" in told
    assert "常见问题" in told


def test_a_channel_that_answers_in_the_response_does_so(file: Path) -> None:
    w = with_faq(file)
    assert "You have 30 days." in w.say("wechat", "li", ASKED).body


def test_the_same_question_again_is_not_answered_twice_within_the_hour(file: Path) -> None:
    w = with_faq(file)
    for _ in range(3):
        w.say("sms", "+8613800138000", ASKED)
        w.settle()
        w.clock.forward(minutes=15)
    assert len(w.sent("sms")) == 1


@pytest.mark.parametrize("more", [{"level": "claimed"}, {"automatic": True}])
def test_who_is_not_proven_and_what_a_machine_sent_hear_nothing(
    file: Path, more: dict[str, Any]
) -> None:
    w = with_faq(file)
    w.say("sms", "+8613800138000", ASKED, **more)
    w.settle()
    assert w.sent("sms") == []
    assert w.desk.said == [("T1", ASKED)]


def test_the_agent_reads_why_nothing_was_told_to_who_is_not_proven(file: Path) -> None:
    w = with_faq(file)
    w.say("sms", "+8613800138000", ASKED, level="claimed")
    w.settle()
    assert "AskOnce said nothing: the sender is not proven" in w.desk.notes[0]


@pytest.mark.parametrize(
    ("mode", "notes", "faq_id"),
    [("suggest", 1, "returns"), ("observe", 0, "returns"), ("off", 0, None)],
)  # fmt: skip
def test_other_modes_tell_the_customer_nothing(
    file: Path, mode: str, notes: int, faq_id: str | None
) -> None:
    w = with_faq(file, repeats={"mode": mode})
    w.say("sms", "+8613800138000", ASKED)
    w.settle()
    assert w.sent("sms") == []
    assert len(w.desk.notes) == notes
    assert all("You have 30 days." in note for note in w.desk.notes)
    verdict = w.messages()[0].message.verdict
    assert verdict
    assert verdict.faq_id == faq_id


def test_a_category_has_its_own_mode(file: Path) -> None:
    own = {"returns": {"words": ["return"], "repeats": {"mode": "off"}}}
    w = with_faq(file, categories=own)
    w.say("sms", "+8613800138000", ASKED)
    w.settle()
    assert w.sent("sms") == []


@pytest.mark.parametrize(
    "text", ["How long is the warranty of a kettle?", "Where is my parcel?", "ok"]
)
def test_a_draft_another_question_and_chatter_get_no_answer(file: Path, text: str) -> None:
    w = with_faq(file)
    w.say("sms", "+8613800138000", text)
    w.settle()
    assert w.sent("sms") == []


def test_an_empty_wording_keeps_silent(file: Path) -> None:
    w = with_faq(file)
    w.configure(wording={"en": {"faq": ""}})
    w.say("sms", "+8613800138000", ASKED)
    w.settle()
    assert w.sent("sms") == []
    assert "the wording is empty" in w.desk.notes[0]


def test_that_did_not_help_reaches_the_agent_on_the_same_ticket(file: Path) -> None:
    w = with_faq(file)
    w.say("sms", "+8613800138000", ASKED)
    w.settle()
    w.say("sms", "+8613800138000", "NO")
    w.settle()
    assert w.desk.said == [("T1", ASKED), ("T1", "NO")]
    verdict = w.messages()[-1].message.verdict
    assert verdict
    assert (verdict.outcome, verdict.rule) == ("follow_up", "unhelpful")


def test_a_broken_file_holds_up_nobody(file: Path) -> None:
    file.write_text("[returns", encoding="utf-8")
    w = with_faq(file)
    w.say("sms", "+8613800138000", ASKED)
    w.settle()
    assert w.desk.said == [("T1", ASKED)]
    assert "faq.unread" in w.names()


def test_a_scorer_that_cannot_tell_now_holds_up_nobody(file: Path) -> None:
    class Silent(Counting):
        def compare(self, text: str, questions: Sequence[Question]) -> Comparison:
            raise RetryableError("out of reach")

    with pytest.raises(RetryableError):
        entries(RETURNS).find(ASKED, Silent())
