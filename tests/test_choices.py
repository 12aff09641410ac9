"""What a customer may choose below a message, channel by channel: shown where it can be."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
import responses

from chalicelib.ports import Connector
from chalicelib.schema import Choice, Message
from connectors.registry import CONNECTORS
from tests.recorded import answer_to, messages_in, samples

TEXT = "In a tin, cool and dark."
WORD = "没有解决"
CHOICES = (Choice(label=WORD, value=WORD),)
TAKEN = {"errcode": 0, "errmsg": "ok"}


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add(responses.POST, re.compile(".*"), json=TAKEN)
        yield mock


def an_answer(name: str, text: str = TEXT, word: str = WORD) -> tuple[Connector, Message]:
    sample = next(s for s in samples(of=name) if s.says)
    connector = sample.connector()
    found = messages_in(connector, sample.request)
    told = {"text": text, "choices": (Choice(label=word, value=word),), "attachments": ()}
    return connector, answer_to(found[0]).model_copy(update=told)


def sent(wire: responses.RequestsMock) -> dict[str, Any]:
    """The last call's body."""
    body = wire.calls[-1].request.body
    found: dict[str, Any] = json.loads(body or "{}")
    return found


def test_who_shows_choices_is_known() -> None:
    shows = {name for name, load in CONNECTORS.items() if load().capabilities.choices}
    assert shows == {"webchat", "wecom_kf", "wechat"}


def test_wechat_has_a_link_that_says_the_word(wire: responses.RequestsMock) -> None:
    connector, message = an_answer("wechat")
    connector.send(message)
    content = sent(wire)["text"]["content"]
    assert content.startswith(TEXT)
    [url] = re.findall(r'<a href="weixin://bizmsgmenu\?([^"]*)">没有解决</a>', content)
    assert parse_qs(url)["msgmenucontent"] == [WORD]


def test_the_passive_reply_has_the_same_link() -> None:
    sample = next(s for s in samples(of="wechat") if s.path.stem == "text_plain")
    connector = sample.connector()
    [message] = messages_in(connector, sample.request)
    answer = answer_to(message).model_copy(update={"text": TEXT, "choices": CHOICES})
    assert "weixin://bizmsgmenu" in connector.acknowledge([message], answer).body


@pytest.mark.parametrize(
    ("text", "word"), [("茶" * 680, WORD), (TEXT, '"><b>'), (TEXT, "a&b"), (TEXT, "50%")]
)
def test_a_link_that_does_not_fit_or_would_break_is_left_out(
    text: str, word: str, wire: responses.RequestsMock
) -> None:
    connector, message = an_answer("wechat", text, word)
    connector.send(message)
    assert sent(wire)["text"]["content"] == text


def test_customer_service_has_a_menu(wire: responses.RequestsMock) -> None:
    connector, message = an_answer("wecom_kf")
    connector.send(message)
    told = sent(wire)
    assert told["msgtype"] == "msgmenu"
    assert told["msgmenu"] == {
        "head_content": TEXT,
        "list": [{"type": "click", "click": {"id": "1", "content": WORD}}],
    }


def test_a_text_too_long_for_a_menu_goes_without(wire: responses.RequestsMock) -> None:
    connector, message = an_answer("wecom_kf", "茶" * 400)
    connector.send(message)
    assert sent(wire)["msgtype"] == "text"


@pytest.mark.parametrize("name", ["wechat", "wecom_kf"])
def test_of_several_pieces_only_the_last_text_has_them(name: str) -> None:
    connector, message = an_answer(name, "茶是好的。" * 400)
    *before, last = connector.pieces(message)
    assert before
    assert all(not piece.choices for piece in before)
    assert last.choices == CHOICES


def test_a_visitor_of_the_web_chat_gets_them_with_the_line() -> None:
    connector, message = an_answer("webchat")
    body = json.loads(connector.acknowledge([message], message).body)
    assert body["answer"]["choices"] == [{"label": WORD, "value": WORD}]
