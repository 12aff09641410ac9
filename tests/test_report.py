"""`askonce repeats report`: a history played again, and the page on which its owner judges."""

import json
import random
import re
import stat
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from chalicelib.contacts import Contacts
from chalicelib.erasing import Eraser
from chalicelib.errors import ConfigurationError, RetryableError
from chalicelib.ports import Comparison, Match, Table
from chalicelib.schema import Outcome, Verdict
from chalicelib.scorers import Guarded
from chalicelib.shipped import SHIPPED
from infra import replay, report
from tests.browsing import chromium, demand_chromium
from tests.fakes import FakeScorer, MemoryTable, World, world
from tests.local import askonce, local
from tests.nouns import asked, message

QUESTION, ANSWER = "How do I keep green tea fresh?", "In a tin, cool and dark."
OTHER = "Which size of gaiwan suits one person?"
ORDER, NEXT_ORDER = "Where is my order 20260301?", "Where is my order 20260302?"
SHOP = [{"address": "external:7", "level": "verified", "source": "signed_identity"}]
SCREENS = Path("build/screens")


def ask(w: World, inbox: str = "sms", text: str = QUESTION, sender: str = "li", **more: Any) -> str:
    """A question, all the way; its message's id. Then hours pass."""
    w.say(inbox, sender, text, **more)
    message = w.messages()[-1].message.id
    w.settle()
    w.clock.forward(hours=5)
    return message


def reply(w: World, ticket: str = "T1", text: str = ANSWER) -> None:
    w.reply(ticket, text)
    w.settle()
    w.clock.forward(hours=5)


def reported(w: World, days: int = 90, **asked: Any) -> dict[str, Any]:
    wanted = report.Asked(days=days, **asked)
    history = replay.read(w.pipeline.store, report.since(w.pipeline, wanted), lambda _: None)
    return report.made(w.pipeline, wanted, history)


def linked(made: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(p["earlier"]["text"], p["new"]["text"], p["outcome"]) for p in made["linked"]]


# Played again


@pytest.mark.parametrize("mode", ["off", "observe", "suggest", "answer"])
def test_what_would_have_been_linked_does_not_depend_on_the_mode(mode: str) -> None:
    w = world(repeats={"mode": mode})
    ask(w)
    reply(w)
    ask(w)
    ask(w, text=OTHER)
    made = reported(w)
    assert linked(made) == [(QUESTION, QUESTION, "repeat")]
    assert (made["questions"], made["contacts"], made["compared"]) == (3, 1, 2)
    assert (made["joined"], made["answered"], made["vetoed"]) == (1, 1, 0)
    [pair] = made["linked"]
    assert pair["answered"]
    assert "asked before, on sms" in pair["reason"]


def test_a_veto_stops_the_answer_here_as_there() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w, text=ORDER)
    ask(w, text=NEXT_ORDER)
    made = reported(w)
    assert linked(made) == [(ORDER, NEXT_ORDER, "related")]
    assert made["vetoed"] == 1
    assert made["linked"][0]["veto"]
    assert made["examples"]["answer"] == [], "no threshold would change it"


def test_links_are_counted_by_pairs_of_channels() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w, evidence=SHOP)
    ask(w, "email", evidence=SHOP)
    ask(w, "email", evidence=SHOP)
    assert reported(w)["channels"] == [
        {"from": "sms", "to": "email", "joined": 2, "answered": 2},
    ]


def test_addresses_that_were_linked_meanwhile_are_one_customer() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    ask(w, "email")
    assert reported(w)["contacts"] == 2
    Contacts(w.pipeline.store, w.clock).link("email:li", "phone:li", source="operator", by="kim")
    made = reported(w)
    assert made["contacts"] == 1
    assert linked(made) == [(QUESTION, QUESTION, "repeat")]


def test_what_one_customer_asked_is_never_linked_with_what_another_did() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w, sender="li")
    ask(w, sender="mei")
    assert linked(reported(w)) == []


def test_strangers_questions_are_the_measure_of_chance() -> None:
    w = world(repeats={"mode": "observe"})
    for text in (QUESTION, OTHER):
        ask(w, text=text, sender="li")
    ask(w, sender="mei")
    made = reported(w)
    assert made["strangers"] == {"compared": 1, "joined": 0}
    assert sum(made["bins"]["same"]) == sum(made["bins"]["different"]) == 1
    assert made == reported(w), "the same each time"


def test_a_customer_alone_has_no_strangers() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    ask(w)
    assert reported(w)["strangers"] == {"compared": 0, "joined": 0}


@pytest.mark.parametrize(("days_between", "links"), [(6, 1), (8, 0)])
def test_the_horizon_of_open_questions_holds(days_between: int, links: int) -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    w.clock.forward(days=days_between)
    ask(w)
    assert len(linked(reported(w))) == links


@pytest.mark.parametrize(("days_between", "links"), [(28, 1), (31, 0)])
def test_so_does_that_of_answers(days_between: int, links: int) -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    reply(w)
    w.clock.forward(days=days_between)
    ask(w)
    assert len(linked(reported(w))) == links


def test_only_so_many_days_are_looked_at() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    w.clock.forward(days=3)
    ask(w)
    assert reported(w, days=2)["questions"] == 1
    assert linked(reported(w, days=2)) == []


def test_a_mail_that_answers_another_is_no_matter_of_scores() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w, "email")
    reply(w)
    sent = w.channel("email").sent[0]
    ask(w, "email", text=OTHER, references=[f"provider-{sent.id}"])
    assert reported(w)["compared"] == 0


def test_what_cannot_stand_alone_is_no_question() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    ask(w, text="thanks!")
    ask(w, kind="event", text="")
    assert (reported(w)["questions"], reported(w)["compared"]) == (1, 0)


def test_other_thresholds_link_otherwise() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    ask(w, text=OTHER)
    assert reported(w, join_threshold=0.0)["joined"] == 1
    strict = reported(w, join_threshold=1.0, answer_threshold=1.0)
    assert (strict["joined"], strict["join_threshold"], strict["answer_threshold"]) == (0, 1.0, 1.0)


def test_thresholds_that_are_asked_for_hold_for_every_category() -> None:
    own = {"mode": "observe", "join_threshold": 1.0, "answer_threshold": 1.0}
    w = world(categories={"tea": {"words": ["tea"], "repeats": own}})
    ask(w)
    ask(w, text=OTHER)
    assert reported(w)["joined"] == 0
    assert reported(w, join_threshold=0.0)["joined"] == 1


def test_a_category_that_is_off_stays_off() -> None:
    w = world(categories={"tea": {"words": ["tea"], "repeats": {"mode": "off"}}})
    ask(w)
    ask(w)
    assert reported(w)["compared"] == 0


def test_the_configured_scorer_compares_unless_the_shipped_one_is_asked_for() -> None:
    w = world(repeats={"mode": "observe"})
    deployment: Any = w.pipeline.deployment
    deployment.scorer = Guarded(FakeScorer(meanings={QUESTION: "tea", OTHER: "tea"}))
    ask(w)
    ask(w, text=OTHER)
    made = reported(w)
    assert (made["scorer"], made["section"], made["join_threshold"]) == ("fake-1", "scorer", 0.5)
    assert (linked(made), made["replaced"]) == ([(QUESTION, OTHER, "repeat")], 0)
    shipped = reported(w, shipped=True)
    assert (shipped["scorer"], shipped["section"]) == (SHIPPED.name, "policy.repeats")
    assert linked(shipped) == []


def test_what_the_shipped_scorer_had_to_compare_is_counted() -> None:
    w = world(repeats={"mode": "observe"})
    own, deployment = FakeScorer(), w.pipeline.deployment
    own.always = RetryableError("out of order")
    deployment.__dict__["scorer"] = Guarded(own)
    ask(w)
    ask(w)
    assert reported(w)["replaced"] == 1


def test_nothing_is_written() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    ask(w)

    def refuse(_: Any) -> None:
        raise AssertionError("it wrote")

    w.table.before_write = refuse
    assert reported(w)["joined"] == 1


def test_an_erased_message_is_not_replayed() -> None:
    w = world(repeats={"mode": "observe"})
    ask(w)
    p = w.pipeline
    Eraser(p.store, p.deployment, p.clock, p.report).erase("phone:li")
    assert reported(w)["questions"] == 0


def test_a_scan_reads_all_pages_of_what_it_is_asked_for(table: Table) -> None:
    store = world(table).pipeline.store
    noise = random.Random(1)
    for n in range(6):  # over a megabyte, even packed: DynamoDB gives that in several pages
        letters = "".join(noise.choices(string.ascii_letters + string.digits, k=300_000))
        store.add(message(letters, external_id=str(n)))
    store.key("tests")
    pages = list(table.scan("MSG#", "ADDRESS#"))
    assert [item.pk[:4] for page in pages for item in page] == ["MSG#"] * 6
    assert len(pages) > 1 or isinstance(table, MemoryTable)
    assert [m for page in store.everything_said() for m in page]


@pytest.mark.parametrize(
    ("low", "high", "fault"), [(0.9, 0.5, "--threshold 0.9 is above --answer-threshold 0.5")]
)
def test_thresholds_the_wrong_way_round_are_refused(low: float, high: float, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        report.Asked(days=1, join_threshold=low, answer_threshold=high)


# What is worth judging


def test_examples_lie_around_the_threshold_and_all_over_the_scale() -> None:
    scores = [n / 100 for n in range(1, 101)]
    found = report._around([_with(score) for score in scores], 0.5)
    chosen = sorted(f.compared.closest[1].score for f in found)
    assert len(chosen) == 36
    assert sum(0.38 <= score <= 0.62 for score in chosen) == 24
    assert chosen[0] < 0.1
    assert chosen[-1] > 0.9


def _with(score: float) -> report.Found:
    compared = replay.Compared(
        message=message(external_id=str(score)),
        verdict=Verdict(outcome=Outcome.NEW, rule="none", reason=""),
        questions=[asked()],
        found=Comparison(
            matches=[Match(score=score)], scorer="s", join_threshold=0.5, answer_threshold=0.9
        ),
    )
    return report.Found(compared=compared, strangers=None)


# The page


def example(number: int, score: float, **more: Any) -> dict[str, Any]:
    said = {"at": "2026-03-01T09:00:00+00:00", "channel": "sms"}
    return {
        "id": f"m{number}a~m{number}b",
        "score": score,
        "outcome": "related",
        "reason": "about what was asked on sms",
        "agreed": ["order number SF1234", "parcel / 快递"],
        "veto": None,
        "earlier": {"text": f"Earlier question {number}?", **said},
        "new": {"text": f"New question {number}?", **said},
        "answered": True,
        "then": "new",
        **more,
    }


SCORES = (0.2, 0.31, 0.38, 0.46, 0.55, 0.8)


def content(**more: Any) -> dict[str, Any]:
    """What a page shows; to be judged are scores that a test knows."""
    pairs = [example(n, score) for n, score in enumerate(SCORES)]
    return {
        "made_at": "2026-03-02T09:00:00+00:00",
        "days": 90,
        "mode": "observe",
        "scorer": "shipped-1",
        "section": "policy.repeats",
        "join_threshold": 0.3,
        "answer_threshold": 0.85,
        "contacts": 2,
        "questions": 9,
        "compared": 6,
        "joined": 5,
        "answered": 1,
        "vetoed": 1,
        "replaced": 0,
        "strangers": {"compared": 6, "joined": 1},
        "channels": [{"from": "wechat", "to": "email", "joined": 5, "answered": 1}],
        "bins": {"same": [n % 7 for n in range(50)], "different": [50 - n for n in range(50)]},
        "examples": {"join": pairs, "answer": pairs[3:]},
        "linked": pairs,
        **more,
    }


def test_the_page_is_for_nobody_elses_eyes(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("there was one before")
    path.chmod(0o644)
    report.write(path, report.page(content()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "customers' words" in path.read_text()


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"nowhere/report\.html cannot be written: No such"
    ):
        report.write(tmp_path / "nowhere" / "report.html", "")


def test_the_page_names_nothing_outside_itself() -> None:
    made = report.page(content())
    outside = set(re.findall(r"https?://[^\s\"'<]+", made))
    assert outside <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(src|href)=\"", made)


def test_no_words_end_the_element_that_they_are_in() -> None:
    attack = "</script><script>alert(1)</script><!--"
    made = report.page(content(linked=[example(0, 0.5, reason=attack)]))
    assert made.count("<script") == 2
    assert attack not in made
    [data] = re.findall(r'id="report">(.*?)</script>', made, re.DOTALL)
    assert json.loads(data)["linked"][0]["reason"] == attack


def test_a_long_list_is_cut_and_says_so() -> None:
    many = [example(n, 0.5) for n in range(report.LISTED + 5)]
    [data] = re.findall(r'id="report">(.*?)</script>', report.page(content(linked=many)), re.DOTALL)
    shown = json.loads(data)
    assert (len(shown["linked"]), shown["links"]) == (report.LISTED, report.LISTED + 5)


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    demand_chromium()
    with chromium() as opened:
        yield opened


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page from a file; whatever it complains of, or fetches, fails the test."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_(shown: dict[str, Any], **options: Any) -> Page:
        path = tmp_path / "report.html"
        report.write(path, report.page(shown))
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 1000}, **options})
        contexts.append(context)
        page: Page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "blob:")) else complaints.append(r.url),
        )
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def judge(page: Page, number: int, word: str) -> None:
    page.locator(f'button[data-pair="m{number}a~m{number}b"]', has_text=word).click()


@pytest.mark.browser
def test_the_threshold_that_fits_is_computed_from_the_owners_judgements(opened: Any) -> None:
    page = opened(content())
    expect(page.locator("#fit")).to_contain_text("Nothing judged yet: join_threshold stays 0.3")
    for number, word in enumerate(["No", "No", "No", "Yes", "Yes", "Yes"]):
        judge(page, number, word)
    expect(page.locator("#fit-join")).to_have_text("join_threshold = 0.42")
    expect(page.locator("#fit")).to_contain_text("0 mistakes; precision 100 %, recall 100 %")
    expect(page.locator("#toml")).to_have_text("[policy.repeats]\njoin_threshold = 0.42")
    page.get_by_role("tab", name="Answering").click()
    for number, word in ((3, "No"), (4, "Yes"), (5, "Yes")):
        judge(page, number, word)
    expect(page.locator("#fit-answer")).to_have_text("answer_threshold = 0.51")
    lines = "[policy.repeats]\njoin_threshold = 0.42\nanswer_threshold = 0.51"
    expect(page.locator("#toml")).to_have_text(lines)
    expect(page.locator("svg line.fitting")).to_have_count(2)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("words", "fits", "says"),
    [
        ("NYNNYY", "0.51", "1 mistake; precision 100 %, recall 67 %"),
        ("NYNYYY", "0.42", "1 mistake; precision 100 %, recall 75 %"),
        ("YYYYNN", "0.2", "2 mistakes; precision 67 %, recall 100 %"),
        ("YNNNNN", "0.85", "1 mistake; precision –, recall 0 %"),
        ("NNNNNY", "0.68", "0 mistakes; precision 100 %, recall 100 %"),
    ],
)
def test_it_is_the_one_with_the_fewest_mistakes_and_the_highest_of_several(
    opened: Any, words: str, fits: str, says: str
) -> None:
    page = opened(content())
    for number, letter in enumerate(words):
        judge(page, number, {"Y": "Yes", "N": "No"}[letter])
    expect(page.locator("#fit-join")).to_have_text(f"join_threshold = {fits}")
    expect(page.locator("#fit")).to_contain_text(says)


@pytest.mark.browser
def test_only_yes_or_only_no_fits_nothing(opened: Any) -> None:
    page = opened(content())
    judge(page, 1, "Yes")
    expect(page.locator("#fit")).to_contain_text("judge some of the other kind, too")
    expect(page.locator("#toml")).to_be_hidden()


@pytest.mark.browser
def test_judgements_outlive_the_page_and_can_be_taken_along(opened: Any) -> None:
    page = opened(content())
    judge(page, 0, "No")
    judge(page, 5, "Yes")
    judge(page, 1, "Yes")
    judge(page, 1, "Yes")  # again: taken back
    pressed = page.locator("button[aria-pressed=true]")
    for _ in range(20):  # the browser keeps them in a process of its own, which may be late
        page.reload()
        if pressed.count():
            break
    expect(pressed).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export judgements").click()
    exported = json.loads(Path(download.value.path()).read_text())
    assert exported["scorer"] == "shipped-1"
    assert exported["judgements"] == [
        {"threshold": "join_threshold", "earlier": "m0a", "new": "m0b", "score": 0.2, "yes": False},
        {"threshold": "join_threshold", "earlier": "m5a", "new": "m5b", "score": 0.8, "yes": True},
    ]
    assert "question" not in json.dumps(exported)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Forget judgements").click()
    expect(page.locator("button[aria-pressed=true]")).to_have_count(0)


@pytest.mark.browser
def test_what_customers_wrote_is_text_and_nothing_else(opened: Any) -> None:
    attack = "</script><img src=x onerror=\"document.title='taken'\"><b>bold</b>"
    said = {"text": attack, "at": "2026-03-01T09:00:00+00:00", "channel": "sms"}
    pair = example(0, 0.5, new=said, earlier=said, agreed=[attack], veto=attack, reason=attack)
    page = opened(content(linked=[pair], examples={"join": [pair], "answer": [pair]}))
    expect(page.locator("#linked")).to_contain_text("<b>bold</b>")
    assert page.locator("img, main b:not(#numbers b)").count() == 0
    assert page.title() == "AskOnce: what would have been linked"


@pytest.mark.browser
def test_links_can_be_filtered_and_a_long_list_comes_in_pieces(opened: Any) -> None:
    pairs = [example(n, 0.5) for n in range(150)]
    pairs[0] |= {"outcome": "repeat"}
    pairs[1] |= {"veto": "another number or date"}
    page = opened(content(linked=pairs))
    expect(page.locator("#linked article")).to_have_count(100)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#linked article")).to_have_count(150)
    page.locator("#filter").select_option("repeat")
    expect(page.locator("#linked article")).to_have_count(1)
    page.locator("#filter").select_option("veto")
    expect(page.locator("#linked")).to_contain_text("veto: another number or date")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_can_be_read_on_a_phone_and_in_the_dark(opened: Any, scheme: str, width: int) -> None:
    page = opened(content(), color_scheme=scheme, viewport={"width": width, "height": 800})
    judge(page, 1, "No")
    judge(page, 4, "Yes")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    colours = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    dark_ground = sum(map(int, re.findall(r"\d+", colours[1])[:3])) < 3 * 128
    assert dark_ground == (scheme == "dark")
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"report-{scheme}-{width}.png", full_page=True)


@pytest.mark.browser
def test_nothing_was_asked_twice_and_the_page_says_so(opened: Any) -> None:
    w = world(repeats={"mode": "observe"})
    page = opened(reported(w))
    expect(page.locator("#examples")).to_contain_text("There is nothing to judge")
    expect(page.locator("#channels-section")).to_be_hidden()


# On a running world


@pytest.mark.world
def test_the_command_reports_a_running_world(tmp_path: Path) -> None:
    with local(tmp_path / "world") as running:
        for _ in range(2):
            running.client.say("li", "sms", "你好，请问龙井茶怎么保存？")
        running.wait(
            lambda state: [e for t in state["tickets"] for e in t["entries"] if "verdict" in e][1:],
            "both messages",
        )
        folder = ("--folder", str(running.folder))
        done = askonce("repeats", "report", *folder, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["questions"] == 2
        out = tmp_path / "page.html"
        done = askonce("repeats", "report", *folder, "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert "2 questions of 1 customers" in done.stdout
        assert "龙井茶" in out.read_text()
        wrong = askonce("repeats", "report", *folder, "--out", str(tmp_path / "no" / "page.html"))
        assert wrong.returncode == 2
        assert "cannot be written" in wrong.stderr
