"""The web chat widget in a real browser, while the network comes and goes; screenshots end in
build/screens/."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    BrowserContext,
    FilePayload,
    Locator,
    Page,
    Route,
    expect,
)

from tests.browsing import chromium, demand_chromium
from tests.local import Local, local, messages

pytestmark = [pytest.mark.world, pytest.mark.browser]

SCREENS = Path("build/screens")
LONG = 60_000
#: What a browser says by itself about a network that is gone, or about a refusal in a test.
NETWORK = (
    "ERR_INTERNET_DISCONNECTED",
    "ERR_FAILED",
    "ERR_CONNECTION",
    "ERR_ABORTED",
    "status of 4",
    "status of 5",
)
MESSAGES = "**/webchat/*/messages"
POLLS = "**/webchat/*/messages?*"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000020802000000fdd49a73"
    "0000001649444154789c63606060f8cfc0c0c0f09f818181e13f0006d401fe24a9f6aa0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    demand_chromium()
    with local(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(world: Local) -> Iterator[Any]:
    with chromium() as opened:
        yield opened


class Visitor:
    """An anonymous visitor's browser on a page that embeds the widget."""

    def __init__(self, world: Local, context: BrowserContext) -> None:
        self.world = world
        self.context = context
        self.complaints: list[str] = []
        self.page = self.tab()

    def tab(self) -> Page:
        """Another tab, with the chat open."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.goto(self.world.address.page + "/page/embedded.html")
        launcher(page).click()
        return page

    def says(self, text: str, page: Page | None = None) -> None:
        field(page or self.page).fill(text)
        field(page or self.page).press("Enter")

    def answered(self, about: str, text: str) -> None:
        """An agent answers the ticket on which the visitor wrote something."""
        self.world.client.agent(self.ticket(about)["id"], "reply", text)

    def ticket(self, about: str) -> dict[str, Any]:
        def find(state: dict[str, Any]) -> Any:
            return next(
                (t for t in state["tickets"] if about in json.dumps(t, ensure_ascii=False)), 0
            )

        found: dict[str, Any] = self.world.wait(find, f"a ticket about {about}")
        return found


@pytest.fixture
def visitor(world: Local, browser: Any) -> Iterator[Visitor]:
    context = browser.new_context(viewport={"width": 900, "height": 800})
    somebody = Visitor(world, context)
    yield somebody
    context.close()
    assert [c for c in somebody.complaints if not any(n in c for n in NETWORK)] == []


def chat(page: Page) -> Locator:
    return page.locator("askonce-chat")


def launcher(page: Page) -> Locator:
    return chat(page).locator(".launcher")


def field(page: Page) -> Locator:
    return chat(page).get_by_role("textbox")


def attach(page: Page, name: str, media_type: str, content: bytes) -> None:
    file = FilePayload(name=name, mimeType=media_type, buffer=content)
    chat(page).locator("input[type=file]").set_input_files(file)


def told(page: Page) -> Locator:
    """What the visitor was told, top to bottom."""
    return chat(page).locator("li.us .bubble")


def expect_sent(page: Page, *texts: str) -> None:
    """The lines are there, each once, in this order, and none is waiting."""
    expect(chat(page).locator("li.you .bubble")).to_have_text(list(texts), timeout=LONG)
    expect(chat(page).locator("li.waiting")).to_have_count(0, timeout=LONG)


def arrived(world: Local, mark: str, count: int) -> list[str]:
    """What reached the helpdesk of lines that hold a mark, once there are so many or more."""

    def find(state: dict[str, Any]) -> Any:
        entries = [m for t in state["tickets"] for m in messages(t) if mark in m["text"]]
        texts = [m["text"] for m in sorted(entries, key=lambda m: m["number"])]
        return len(texts) >= count and texts

    found: list[str] = world.wait(find, f"{count} lines with {mark}")
    return found


def screenshot(page: Page, name: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png")


def once(act: Callable[[Route], Any]) -> Callable[[Route], Any]:
    """Act on the first POST that comes; let all others through."""
    done: list[Route] = []

    def handle(route: Route) -> None:
        if done or route.request.method != "POST":
            route.continue_()
        else:
            done.append(route)
            act(route)

    return handle


# The network


def test_lines_written_while_the_network_is_gone_arrive_once_and_in_order(
    visitor: Visitor, world: Local
) -> None:
    page = visitor.page
    lines = [f"tunnel {n}: is the mountain tea from this year?" for n in range(4)]
    visitor.says(lines[0])
    expect_sent(page, lines[0])
    field(page).press_sequentially("tunnel 1: is the mount")
    visitor.context.set_offline(True)
    field(page).press_sequentially("ain tea from this year?")
    field(page).press("Enter")
    visitor.says(lines[2])
    expect(chat(page).locator("li.waiting")).to_have_count(2)
    expect(chat(page).get_by_role("status")).to_contain_text("网络已断开")
    screenshot(page, "webchat-offline")
    visitor.context.set_offline(False)
    visitor.says(lines[3])
    expect_sent(page, *lines)
    expect(chat(page).get_by_role("status")).to_be_hidden()
    assert arrived(world, "tunnel", 4) == lines


def test_a_line_whose_answer_got_lost_is_not_doubled(visitor: Visitor, world: Local) -> None:
    def lose(route: Route) -> None:
        assert route.fetch().status == 200
        route.abort()

    visitor.page.route(MESSAGES, once(lose))
    visitor.says("lost answer: do you ship abroad?")
    expect(chat(visitor.page).locator("li.waiting")).to_have_count(0, timeout=LONG)
    visitor.says("lost answer: and to islands?")
    expect_sent(visitor.page, "lost answer: do you ship abroad?", "lost answer: and to islands?")
    assert len(arrived(world, "lost answer", 2)) == 2


def test_a_request_that_never_left_is_made_again(visitor: Visitor, world: Local) -> None:
    visitor.page.route(MESSAGES, once(lambda route: route.abort()))
    visitor.says("never left: is the shop open on Sunday?")
    expect_sent(visitor.page, "never left: is the shop open on Sunday?")
    assert len(arrived(world, "never left", 1)) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_when_it_says(
    visitor: Visitor, world: Local, status: int
) -> None:
    headers = {"Retry-After": "1", "Access-Control-Allow-Origin": world.address.page}
    headers["Access-Control-Expose-Headers"] = "Retry-After"
    visitor.page.route(MESSAGES, once(lambda r: r.fulfill(status=status, headers=headers)))
    visitor.says(f"busy {status}: how long is the queue?")
    expect_sent(visitor.page, f"busy {status}: how long is the queue?")
    assert len(arrived(world, f"busy {status}", 1)) == 1


def test_unsent_lines_survive_a_reload_and_so_does_half_a_line(
    visitor: Visitor, world: Local
) -> None:
    page = visitor.page
    # The page itself can be loaded, the chat cannot be reached.
    page.route("**/webchat/*/session", lambda route: route.abort())
    visitor.says("reload: where is my parcel?")
    visitor.says("reload: it was sent on Monday")
    field(page).fill("half a li")
    page.reload()
    launcher(page).click()
    expect(chat(page).locator("li.waiting .bubble")).to_have_text(
        ["reload: where is my parcel?", "reload: it was sent on Monday"]
    )
    expect(field(page)).to_have_value("half a li")
    page.unroute("**/webchat/*/session")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect_sent(page, "reload: where is my parcel?", "reload: it was sent on Monday")
    assert len(arrived(world, "reload:", 2)) == 2


def test_a_connection_that_died_in_sleep_is_let_go(visitor: Visitor) -> None:
    page = visitor.page
    visitor.says("sleep: do you have oolong?")
    expect_sent(page, "sleep: do you have oolong?")
    hanging: list[Route] = []

    def hang(route: Route) -> None:
        if hanging:
            route.continue_()
        else:
            hanging.append(route)  # and it never gets an answer

    page.route(POLLS, hang)
    with page.expect_request(POLLS):
        page.evaluate("dispatchEvent(new Event('online'))")
    visitor.answered("sleep: do you have oolong?", "Yes, four of them.")
    visitor.world.wait(lambda s: "Yes, four of them." in json.dumps(s["tickets"]))
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(told(page).last).to_have_text("Yes, four of them.")
    assert len(hanging) == 1


def test_lines_stand_in_the_order_of_the_server(visitor: Visitor) -> None:
    page = visitor.page
    visitor.says("order: first question")
    expect_sent(page, "order: first question")
    page.route(MESSAGES, lambda route: route.abort())
    visitor.says("order: written before the answer came, and sent after it")
    visitor.answered("order: first question", "The answer")
    shown = chat(page).locator("li.you .bubble, li.us .bubble")
    wanted = [
        "order: first question",
        "The answer",
        "order: written before the answer came, and sent after it",
    ]
    expect(shown).to_have_text(wanted, timeout=LONG)
    page.unroute(MESSAGES)
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(chat(page).locator("li.waiting")).to_have_count(0, timeout=LONG)
    expect(shown).to_have_text(wanted)


def test_answers_given_meanwhile_are_read_once_and_in_order(visitor: Visitor) -> None:
    page = visitor.page
    visitor.says("meanwhile: which tea for the morning?")
    expect_sent(page, "meanwhile: which tea for the morning?")
    visitor.context.set_offline(True)
    for n in range(3):
        visitor.answered("meanwhile: which tea", f"Answer {n}")
    visitor.world.wait(lambda s: [e for t in s["tickets"] for e in t["entries"]
                                  if e.get("text") == "Answer 2"])  # fmt: skip
    visitor.context.set_offline(False)
    expect(told(page)).to_have_text(["Answer 0", "Answer 1", "Answer 2"], timeout=LONG)


def test_a_token_that_is_refused_is_renewed_for_the_same_visitor(
    visitor: Visitor, world: Local
) -> None:
    visitor.says("renewed: first line")
    expect_sent(visitor.page, "renewed: first line")
    visitor.page.route(MESSAGES, once(lambda route: route.fulfill(
        status=401, headers={"Access-Control-Allow-Origin": world.address.page})))  # fmt: skip
    visitor.says("renewed: second line")
    expect_sent(visitor.page, "renewed: first line", "renewed: second line")
    addresses = {m["address"] for m in messages(visitor.ticket("renewed: second line"))}
    assert len(addresses) == 1


# Tabs


def test_two_tabs_are_one_conversation(visitor: Visitor, world: Local) -> None:
    first, second = visitor.page, visitor.tab()
    visitor.says("tabs: from the first", first)
    for page in (first, second):
        expect_sent(page, "tabs: from the first")
    visitor.says("tabs: from the second", second)
    for page in (first, second):
        expect_sent(page, "tabs: from the first", "tabs: from the second")
    assert arrived(world, "tabs:", 2) == ["tabs: from the first", "tabs: from the second"]
    addresses = {m["address"] for m in messages(visitor.ticket("tabs: from the second"))}
    assert len(addresses) == 1


def test_what_two_tabs_wrote_without_network_arrives_once(visitor: Visitor, world: Local) -> None:
    first, second = visitor.page, visitor.tab()
    visitor.context.set_offline(True)
    for n, page in enumerate((first, second, first, second)):
        visitor.says(f"two tabs offline {n}", page)
    visitor.context.set_offline(False)
    wanted = [f"two tabs offline {n}" for n in range(4)]
    for page in (first, second):
        expect_sent(page, *wanted)
    assert arrived(world, "two tabs offline", 4) == wanted


# What is unread, read and typed


def test_an_answer_behind_a_closed_chat_is_counted_until_it_is_read(visitor: Visitor) -> None:
    page = visitor.page
    visitor.says("badge: can I return an opened bag?")
    expect_sent(page, "badge: can I return an opened bag?")
    chat(page).locator(".close").click()
    visitor.answered("badge: can I return", "You can, within 14 days.")
    visitor.answered("badge: can I return", "Send us the order number.")
    badge = chat(page).locator(".badge")
    expect(badge).to_be_hidden()
    visitor.world.wait(lambda s: len([x for t in s["tickets"] for x in t["entries"]
                                      if x["kind"] == "reply"]) >= 2)  # fmt: skip

    # A closed chat looks every half minute, and when the visitor comes back to the page.
    page.evaluate("setInterval(() => dispatchEvent(new Event('pageshow')), 200)")
    expect(badge).to_have_text("2", timeout=LONG)
    expect(page.get_by_role("button", name="打开聊天, 2 条未读")).to_be_visible()
    screenshot(page, "webchat-unread")
    launcher(page).click()
    expect(badge).to_be_hidden()
    page.reload()
    expect(chat(page).locator("li.us .bubble", has_text="order number")).to_have_count(1)
    expect(badge).to_be_hidden()


def test_typing_and_reading_show_on_the_other_side_and_are_no_messages(
    visitor: Visitor, world: Local, browser: Any
) -> None:
    page = visitor.page
    desk = browser.new_context().new_page()
    desk.goto(world.address.page + "/")
    visitor.says("signs: is white tea mild?")
    expect_sent(page, "signs: is white tea mild?")
    desk.locator(".tickets button", has_text="signs: is white tea mild?").click()
    expect(chat(page).locator("li.you small").last).to_contain_text("已读", timeout=LONG)
    field(page).press_sequentially("and")
    expect(desk.locator(".ticket .live")).to_have_text("The customer is typing …")
    desk.locator(".ticket textarea").press_sequentially("It is")
    expect(chat(page).locator(".dots")).to_be_visible(timeout=LONG)
    screenshot(page, "webchat-typing")
    before = visitor.ticket("signs: is white tea mild?")
    assert [m["text"] for m in messages(before)] == ["signs: is white tea mild?"]
    visitor.answered("signs: is white tea mild?", "Very.")
    expect(told(page).last).to_have_text("Very.", timeout=LONG)
    expect(chat(page).locator(".dots")).to_be_hidden()
    expect(desk.locator(".ticket .live")).to_have_text(
        "The customer has read your answer.", timeout=LONG
    )
    desk.context.close()


# Files


def test_a_file_is_put_into_the_bucket_and_reaches_the_helpdesk(
    visitor: Visitor, world: Local
) -> None:
    page = visitor.page
    attach(page, "leaf.png", "image/png", PNG)
    expect(chat(page).locator(".chips")).to_contain_text("leaf.png")
    visitor.says("attached: what is this leaf?")
    expect_sent(page, "attached: what is this leaf?")
    expect(chat(page).locator("li.you img")).to_be_visible()

    def find(state: dict[str, Any]) -> Any:
        entries = [m for t in state["tickets"] for m in messages(t) if "attached:" in m["text"]]
        return entries and entries[0]["files"]

    (file,) = world.wait(find, "the file")
    assert (file["name"], file["media_type"]) == ("leaf.png", "image/png")
    assert file["content"].startswith("iVBORw0KGgo")
    page.reload()
    launcher(page).click()
    expect(chat(page).locator("li.you img")).to_be_visible()
    screenshot(page, "webchat-file")


def test_a_file_waits_for_the_network_over_a_reload(visitor: Visitor, world: Local) -> None:
    page = visitor.page
    page.route("**/webchat/*/session", lambda route: route.abort())
    attach(page, "kept.txt", "text/plain", b"the invoice")
    visitor.says("file offline: here it is")
    expect(chat(page).locator("li.waiting")).to_have_count(1)
    page.reload()
    page.unroute("**/webchat/*/session")
    launcher(page).click()
    expect(chat(page).locator("li.you .bubble")).to_contain_text(["file offline: here it is"])
    expect(chat(page).locator("li.waiting")).to_have_count(0, timeout=LONG)
    (text,) = arrived(world, "file offline", 1)
    (entry,) = messages(visitor.ticket(text))
    assert entry["files"][0]["content"] == "dGhlIGludm9pY2U="


def test_a_file_that_is_not_taken_comes_back_to_be_changed(visitor: Visitor, world: Local) -> None:
    page = visitor.page
    attach(page, "run.html", "text/html", b"<script>")
    visitor.says("refused file: please look")
    expect(chat(page).locator("li.failed small")).to_contain_text("不支持此类型的文件")
    screenshot(page, "webchat-refused-file")
    chat(page).get_by_role("button", name="修改").click()
    expect(field(page)).to_have_value("refused file: please look")
    chat(page).get_by_role("button", name="移除 run.html").click()
    field(page).press("Enter")
    expect_sent(page, "refused file: please look")
    assert len(arrived(world, "refused file", 1)) == 1


# Hands, eyes and ears


def test_it_is_used_with_the_keyboard_alone(visitor: Visitor) -> None:
    page = visitor.page
    page.reload()
    page.keyboard.press("Tab")
    expect(launcher(page)).to_be_focused()
    page.keyboard.press("Enter")
    expect(field(page)).to_be_focused()
    page.keyboard.type("keyboard: 周末营业吗？")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second row")
    page.keyboard.press("Enter")
    expect_sent(page, "keyboard: 周末营业吗？\nsecond row")
    page.keyboard.press("Tab")
    expect(chat(page).get_by_role("button", name="发送")).to_be_focused()
    page.keyboard.press("Escape")
    expect(chat(page).get_by_role("dialog")).to_be_hidden()
    expect(launcher(page)).to_be_focused()
    assert launcher(page).evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_what_a_screen_reader_hears_has_names_and_is_announced(visitor: Visitor) -> None:
    page = visitor.page
    dialog = page.get_by_role("dialog", name="在线客服")
    expect(dialog).to_be_visible()
    log = dialog.get_by_role("log", name="在线客服")
    assert log.get_attribute("aria-live") == "polite"
    for name in ("关闭聊天", "添加文件", "发送"):
        expect(dialog.get_by_role("button", name=name)).to_be_visible()
    expect(dialog.get_by_role("textbox", name="请输入消息")).to_be_visible()
    assert dialog.get_attribute("lang") == "zh"


def test_on_a_phone_it_fills_the_screen_and_every_target_is_large_enough(
    world: Local, browser: Any
) -> None:
    context = browser.new_context(
        viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True,
        device_scale_factor=2,
    )  # fmt: skip
    somebody = Visitor(world, context)
    page = somebody.page
    somebody.says("phone: 请问龙井茶怎么保存？")
    expect_sent(page, "phone: 请问龙井茶怎么保存？")
    somebody.answered(
        "phone: ", "密封后放进冰箱冷藏，避光防潮，建议半年内喝完。详见 https://shop.example/tea"
    )
    expect(told(page).last).to_contain_text("密封", timeout=LONG)
    screenshot(page, "webchat-phone")
    box = chat(page).get_by_role("dialog").bounding_box()
    assert box == {"x": 0, "y": 0, "width": 375, "height": 667}
    for button in chat(page).get_by_role("dialog").get_by_role("button").all():
        size = button.bounding_box()
        assert size is not None
        assert min(size["width"], size["height"]) >= 44
    overflow = "document.documentElement.scrollWidth > innerWidth"
    assert page.evaluate(overflow) is False
    # The page behind cannot be reached.
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement?.tagName ?? ''") in ("ASKONCE-CHAT", "BODY")
    context.close()
    assert somebody.complaints == []


@pytest.mark.parametrize(("lang", "title"), [("en-GB", "Chat with us"), ("zh-TW", "在线客服")])
def test_it_speaks_the_language_of_its_page(visitor: Visitor, lang: str, title: str) -> None:
    visitor.page.evaluate(
        """(lang) => {
            document.querySelector("askonce-chat").remove();
            document.documentElement.lang = lang;
            document.body.append(document.createElement("askonce-chat"));
        }""",
        lang,
    )
    launcher(visitor.page).click()
    expect(visitor.page.get_by_role("dialog", name=title)).to_be_visible()


# Who it is


def test_a_visitor_who_logs_in_takes_along_what_was_asked(visitor: Visitor, world: Local) -> None:
    page = visitor.page
    visitor.says("log in: does order 7788 contain a cup?")
    expect_sent(page, "log in: does order 7788 contain a cup?")
    (before,) = messages(visitor.ticket("log in: does order 7788"))
    page.evaluate(
        """async () => {
            const { identity } = await (await fetch("/local/identity/li")).json();
            document.querySelector("askonce-chat").setAttribute("identity", identity);
        }"""
    )
    expect(chat(page).locator("li.you", has_text="7788")).to_have_count(0)
    visitor.says("log in: does order 7788 contain a cup? It is me")

    def same(state: dict[str, Any]) -> Any:
        found = [m for t in state["tickets"] for m in messages(t) if "It is me" in m["text"]]
        return found and found[0]

    said = world.wait(same, "the line of the customer")
    assert said["sender_name"] == "Li Lei 李雷"
    assert said["contact_id"] != before["contact_id"]
    went_on = {"address": before["address"], "level": "verified", "source": "continued"}
    assert went_on in said["evidence"]
    ticket = visitor.ticket("log in: does order 7788")
    world.client.agent(ticket["id"], "reply", "log in: it does contain a cup")
    expect(chat(page).locator("li.us", has_text="it does contain a cup")).to_be_visible()
    kept = page.evaluate("Object.keys(localStorage).filter((key) => key.endsWith(':token'))")
    assert [key.split(":")[-2] for key in kept] == ["visitor"]
