"""In a real browser: "not the same question" on the desk, "that did not help" on the phones."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browsing import chromium, demand_chromium
from tests.local import Local, local

pytestmark = [pytest.mark.world, pytest.mark.browser]

SCREENS = Path("build/screens")
PATIENCE_MS = 40_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    demand_chromium()
    with local(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(world: Local) -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(world: Local, browser: Any) -> Iterator[Page]:
    expect.set_options(timeout=PATIENCE_MS)
    context = browser.new_context(viewport={"width": 1500, "height": 950})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    opened.goto(world.address.page + "/")
    yield opened
    context.close()


def screenshot(page: Page, name: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png")


def told_again(
    page: Page, world: Local, person: str, ways: str, question: str, answer: str
) -> None:
    """Asked on one channel, answered, and asked again: the customer has the answer on the other.

    Each test has channels of its own: lines on one belong together.
    """
    first, second = ways.split()
    world.client.say(person.lower(), first, question)
    page.locator(".tickets button", has_text=question).click()
    page.locator(".ticket textarea").fill(answer)
    page.get_by_role("button", name="Answer", exact=True).click()
    # The provider's receipt may come before the page has looked once.
    gone = re.compile(f"(sent|delivered) by {first}")
    expect(page.locator(".entries li.reply .fate")).to_have_text(gone)
    page.get_by_role("tab", name=person).click()
    if second == "webchat":
        box = page.locator("askonce-chat").get_by_role("textbox")
    else:
        box = page.locator(f".phone.{second} textarea")
    box.fill(question)
    box.press("Enter")


def test_not_the_same_question_gives_it_a_ticket_of_its_own(page: Page, world: Local) -> None:
    question = "Does the bamboo whisk need to be soaked before its first use?"
    told_again(page, world, "Mei", "sms email", question, "Yes, for a minute in warm water.")
    email = page.locator(".entries li.email")
    expect(email.locator(".chip.repeat")).to_be_visible()
    screenshot(page, "repeat")
    email.get_by_role("button", name="Not the same question").click()
    rows = page.locator(".tickets button", has_text="bamboo whisk")
    expect(rows).to_have_count(2)
    expect(page.locator(".entries li.email .why b")).to_contain_text("Now on ticket T")
    expect(page.locator(".entries li.note").last).to_contain_text("Not the same question")
    expect(page.get_by_role("button", name="Not the same question")).to_have_count(0)
    screenshot(page, "undone-old")
    rows.first.click()
    expect(page.locator(".entries li.note")).to_contain_text("Kim said that it is not the same")
    screenshot(page, "undone-new")


def test_a_button_under_the_answer_says_that_it_did_not_help(page: Page, world: Local) -> None:
    question = "Which tea goes well with a heavy dinner in winter?"
    told_again(page, world, "Mei", "wechat webchat", question, "A ripe pu-erh.")
    chat = page.locator("askonce-chat")
    expect(chat.locator("li.us .bubble", has_text="A ripe pu-erh.")).to_have_count(1)
    choice = chat.get_by_role("button", name="That did not help")
    screenshot(page, "choice")
    choice.click()
    expect(chat.locator("li.you")).to_have_count(2)
    expect(chat.locator("li.you").last).to_contain_text("That did not help")
    expect(page.locator(".entries li.note").last).to_contain_text("did not help")
    expect(page.locator(".ticket .head .chip.high")).to_be_visible()
    screenshot(page, "unhelpful")


def test_a_link_in_wechat_says_so_too(page: Page, world: Local) -> None:
    question = "Is jasmine tea made with real flowers, or with perfume?"
    told_again(page, world, "Li", "sms wechat", question, "With real flowers.")
    phone = page.locator(".phone.wechat .lines")
    expect(phone.locator("li.in")).to_contain_text("With real flowers.")
    expect(phone).not_to_contain_text("bizmsgmenu")
    phone.get_by_role("button", name="That did not help").click()
    expect(phone.locator("li.out").last).to_contain_text("That did not help")
    expect(page.locator(".entries li.note").last).to_contain_text("did not help")
