"""The page and the web chat widget in a real browser; screenshots end in build/screens/."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browsing import chromium, demand_chromium
from tests.local import Local, local, messages

pytestmark = [pytest.mark.world, pytest.mark.browser]

SCREENS = Path("build/screens")
QUESTION = "你好，请问龙井茶怎么保存？"
ANSWER = "密封后放进冰箱冷藏，避光防潮，建议半年内喝完。"


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
    """The page, as it is when somebody opens it; whatever it complains of fails the test."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1500, "height": 950})
    opened = context.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    opened.goto(world.address.page + "/")
    yield opened
    context.close()
    assert [c for c in complaints if "ERR_INTERNET_DISCONNECTED" not in c] == []


def write(page: Page, channel: str, text: str) -> None:
    """As the chosen person, on one of the three phones with a form."""
    page.locator(f".phone.{channel} textarea").fill(text)
    page.locator(f".phone.{channel} textarea").press("Enter")


def chat(page: Page) -> Any:
    return page.locator("askonce-chat")


def screenshot(page: Page, name: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png")


def test_the_story_by_hand_ends_with_one_ticket_and_the_answer_by_email(page: Page) -> None:
    write(page, "wechat", QUESTION)
    ticket = page.locator(".tickets button", has_text=QUESTION)
    ticket.click()
    page.locator(".ticket textarea").fill(ANSWER)
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator(".phone.wechat .lines li.in")).to_contain_text(ANSWER)
    expect(page.locator(".entries li.reply .fate")).to_have_text("sent by wechat")
    write(page, "email", "您好，请问一下龙井茶怎么保存？谢谢")
    expect(page.locator(".phone.email .lines li.in")).to_contain_text(ANSWER)
    expect(page.locator(".entries li.email .chip.repeat")).to_be_visible()
    expect(page.locator(".entries li.email")).to_contain_text("Why: asked before, on wechat")
    expect(page.locator(".entries li.note")).to_contain_text("AskOnce told the customer")
    expect(ticket).to_have_count(1)
    screenshot(page, "story")


def test_a_draft_survives_the_page_keeping_itself_up_to_date(page: Page, world: Local) -> None:
    world.client.say("mei", "sms", "Do you sell white tea in bulk?")
    page.locator(".tickets button", has_text="white tea in bulk").click()
    page.locator(".ticket textarea").fill("half an answ")
    world.client.say("mei", "sms", "More than five kilos?")
    expect(page.locator(".entries")).to_contain_text("More than five kilos?")
    assert page.locator(".ticket textarea").input_value() == "half an answ"


def test_what_customers_write_is_shown_as_text_and_never_as_html(page: Page, world: Local) -> None:
    world.client.say("mei", "email", "<img src=x onerror=alert(1)><b>bold?</b>", subject="<i>s</i>")
    expect(page.locator(".tickets button", has_text="<img src=x")).to_be_visible()
    page.locator(".tickets button", has_text="<img src=x").click()
    expect(page.locator(".entries")).to_contain_text("<b>bold?</b>")
    assert page.locator(".entries b, .entries i, .entries img").count() == 0


def test_the_widget_says_and_hears_without_doubling_over_a_reload(page: Page, world: Local) -> None:
    page.get_by_role("tab", name="Mei").click()
    chat(page).get_by_role("textbox").fill("Is oolong good in the evening?")
    chat(page).get_by_role("textbox").press("Enter")
    page.locator(".tickets button", has_text="oolong good in the evening").click()
    page.locator(".ticket textarea").fill("Rather not: it keeps you awake.")
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(chat(page).locator("li.us")).to_contain_text("it keeps you awake")
    page.reload()
    page.get_by_role("tab", name="Mei").click()
    expect(chat(page).locator("li.us")).to_contain_text("it keeps you awake")
    expect(chat(page).locator("li.you")).to_have_count(1)
    screenshot(page, "widget")


def test_the_widget_keeps_a_line_while_the_network_is_gone(page: Page, world: Local) -> None:
    page.get_by_role("tab", name="Mallory").click()
    expect(chat(page).get_by_role("textbox")).to_be_visible()
    page.context.set_offline(True)
    chat(page).get_by_role("textbox").fill("Written in a tunnel about green tea?")
    chat(page).get_by_role("textbox").press("Enter")
    expect(chat(page).get_by_role("status")).to_be_visible()
    expect(chat(page).locator("li.waiting")).to_have_count(1)
    page.context.set_offline(False)
    expect(chat(page).locator("li.waiting")).to_have_count(0, timeout=20_000)

    def arrived(state: dict[str, Any]) -> Any:
        said = [m["text"] for t in state["tickets"] for m in messages(t)]
        return [text for text in said if "in a tunnel" in text]

    assert len(world.wait(arrived, "the line")) == 1


def test_the_widget_floats_on_any_page_and_is_usable_by_keyboard(page: Page, world: Local) -> None:
    page.goto(world.address.page + "/page/embedded.html")
    page.get_by_role("button", name="打开聊天").press("Enter")
    box = chat(page).get_by_role("textbox")
    expect(box).to_be_focused()
    box.fill("你们周末营业吗？")
    box.press("Enter")
    expect(chat(page).locator("li.you")).to_contain_text("你们周末营业吗？")
    screenshot(page, "embedded")
    box.press("Escape")
    expect(page.get_by_role("button", name="打开聊天")).to_be_focused()
