"""WeChat's API as we call it: tokens, codes, files in and out, fences around the client."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import responses

from chalicelib.errors import ClosedError, DeliveryError, RejectedError, RetryableError
from chalicelib.schema import Attachment
from chalicelib.tokens import StoredTokens
from connectors import http, wechat_api
from tests.channels.test_wechat import an_answer, wechat
from tests.fakes import Clock, MemoryTable
from tests.make_samples import OPENID

API = "https://api.weixin.qq.com/cgi-bin"
SEND, TOKEN, MEDIA = f"{API}/message/custom/send", f"{API}/stable_token", f"{API}/media/get"
OK = {"errcode": 0, "errmsg": "ok"}


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def asked(wire: responses.RequestsMock, url: str) -> list[Any]:
    """What was sent to one address: (token in the address, body)."""
    calls = [c.request for c in wire.calls if str(c.request.url).startswith(url)]
    return [(str(r.url).partition("access_token=")[2], json.loads(r.body or "null")) for r in calls]


# Tokens


def shared_tokens() -> StoredTokens:
    return StoredTokens(MemoryTable(), Clock(), lambda seconds: None)


def test_one_token_serves_all_workers(wire: responses.RequestsMock) -> None:
    wire.post(TOKEN, json={"access_token": "t1", "expires_in": 7200})
    wire.post(SEND, json=OK)
    tokens = shared_tokens()
    for _ in range(3):
        wechat(tokens=tokens).send(an_answer())
    assert len(asked(wire, TOKEN)) == 1
    assert [token for token, _ in asked(wire, SEND)] == ["t1"] * 3


@pytest.mark.parametrize("code", [40001, 40014, 42001])
def test_a_refused_token_is_replaced_once_for_all(code: int, wire: responses.RequestsMock) -> None:
    wire.post(TOKEN, json={"access_token": "t1", "expires_in": 7200})
    wire.post(TOKEN, json={"access_token": "t2", "expires_in": 7200})
    wire.post(SEND, json={"errcode": code, "errmsg": "invalid credential"})
    wire.post(SEND, json=OK)
    tokens = shared_tokens()
    wechat(tokens=tokens).send(an_answer())
    wechat(tokens=tokens).send(an_answer())
    assert [body["force_refresh"] for _, body in asked(wire, TOKEN)] == [False, True]
    assert [token for token, _ in asked(wire, SEND)] == ["t1", "t2", "t2"]


def test_a_token_that_stays_refused_is_given_up(wire: responses.RequestsMock) -> None:
    wire.post(TOKEN, json={"access_token": "t1", "expires_in": 7200})
    wire.post(SEND, json={"errcode": 40001, "errmsg": "invalid credential"})
    with pytest.raises(RetryableError, match="app_id and app_secret"):
        wechat(tokens=shared_tokens()).send(an_answer())
    assert len(asked(wire, SEND)) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"errcode": 40013, "errmsg": "invalid appid"},
        {"errcode": 40125, "errmsg": "invalid appsecret"},
        {"errcode": 40164, "errmsg": "invalid ip"},
        {"errcode": -1, "errmsg": "system error"},
        {"errcode": 50002, "errmsg": "user limited"},
        {"errcode": 99999, "errmsg": "new"},
        {"errcode": "busy"},
        {"access_token": None},
        {},
        [],
        None,
    ],
)
def test_without_a_token_a_message_waits(answer: Any, wire: responses.RequestsMock) -> None:
    wire.post(TOKEN, json=answer)
    with pytest.raises(RetryableError):
        wechat(tokens=shared_tokens()).send(an_answer())


# Sending


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (-1, RetryableError, "busy"),
        (40164, RetryableError, "allow-list"),
        (45009, RetryableError, "quota"),
        (45011, RetryableError, "too fast"),
        (40003, RejectedError, "openid"),
        (40007, RejectedError, "three days"),
        (43004, RejectedError, "follow"),
        (45002, RejectedError, "too long"),
        (45015, ClosedError, "48 hours"),
        (45047, ClosedError, "five messages"),
        (48001, RejectedError, "no right"),
        (50002, RejectedError, "restricted"),
        (99999, RejectedError, "99999"),
    ],
)
def test_a_code_says_whether_to_try_again_in_words_for_an_agent(
    code: int, error: type[DeliveryError], words: str, wire: responses.RequestsMock
) -> None:
    wire.post(SEND, json={"errcode": code, "errmsg": "x"})
    with pytest.raises(error, match=words) as caught:
        wechat().send(an_answer())
    assert str(code) in str(caught.value)


@pytest.mark.parametrize("answer", [{"errcode": "busy"}, {"errcode": None}, {"errcode": []}])
def test_a_code_that_is_no_number_is_tried_again(answer: Any, wire: responses.RequestsMock) -> None:
    wire.post(SEND, json=answer)
    with pytest.raises(RetryableError):
        wechat().send(an_answer())


def test_the_address_to_allow_is_told_where_wechat_tells_it(wire: responses.RequestsMock) -> None:
    said = "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: 1"
    wire.post(TOKEN, json={"errcode": 40164, "errmsg": said})
    with pytest.raises(RetryableError, match=r"203\.0\.113\.9: add it to the IP allow-list"):
        wechat(tokens=shared_tokens()).send(an_answer())


def test_chinese_is_sent_as_it_is_for_wechat_shows_escapes(wire: responses.RequestsMock) -> None:
    wire.post(SEND, json=OK)
    wechat().send(an_answer("明天发货 😀"))
    assert "明天发货 😀".encode() in (wire.calls[0].request.body or b"")


# Files


def test_a_file_is_fetched_by_its_media_id(wire: responses.RequestsMock) -> None:
    wire.get(MEDIA, body=b"\xff\xd8jpeg", content_type="image/jpeg")
    found = wechat().fetch(Attachment(media_type="image/jpeg", source="media-1"))
    assert found == b"\xff\xd8jpeg"
    assert "media_id=media-1" in str(wire.calls[0].request.url)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        ({"json": {"errcode": 40007, "errmsg": "invalid media_id"}}, RejectedError),
        ({"json": {"video_url": "http://video.example/v"}}, RejectedError),
        ({"json": ["no file"]}, RejectedError),
        ({"body": b"\xff" * (http.MAX_DOWNLOAD_BYTES + 1)}, RejectedError),
        ({"json": {"errcode": -1, "errmsg": "busy"}}, RetryableError),
        ({"status": 502}, RetryableError),
    ],
)
def test_a_file_that_cannot_be_had_says_whether_to_try_again(
    trouble: dict[str, Any], error: type[DeliveryError], wire: responses.RequestsMock
) -> None:
    wire.get(MEDIA, **trouble)
    with pytest.raises(error):
        wechat().fetch(Attachment(source="media-1"))


# Fences around the client


def test_no_redirect_is_followed(wire: responses.RequestsMock) -> None:
    elsewhere = wire.get("https://evil.example/", body=b"\xff\xd8")
    wire.get(MEDIA, status=302, headers={"Location": "https://evil.example/"})
    with pytest.raises(RejectedError, match="HTTP 302"):
        wechat().fetch(Attachment(source="media-1"))
    wire.post(SEND, status=307, headers={"Location": "https://evil.example/"})
    with pytest.raises(RejectedError, match="HTTP 307"):
        wechat().send(an_answer())
    assert elsewhere.call_count == 0


def test_an_answer_without_end_is_given_up(wire: responses.RequestsMock) -> None:
    wire.post(SEND, body=b" " * (http.MAX_DOWNLOAD_BYTES + 1))
    with pytest.raises(RejectedError, match="over"):
        wechat().send(an_answer())


# The page


def test_the_page_s_codes_are_those_of_the_tables() -> None:
    page = Path(__file__).parents[2] / "docs" / "wechat.md"
    rows = [line.split("|") for line in page.read_text("utf-8").splitlines() if "mend" not in line]
    codes = {
        int(code): row[3]
        for row in rows
        if len(row) == 5 and re.fullmatch(r"[-0-9, ]+", row[1]) and any(c.isdigit() for c in row[1])
        for code in row[1].split(",")
    }
    assert len(codes) > 20
    for code, mend in codes.items():
        both = (wechat_api.WECHAT, wechat_api.WECOM)
        assert any(code in {**c.later, **c.never, **c.closed} for c in both), code
        assert ("messages wait" in mend) == any(code in c.later for c in both), code


# Files that go out


def uploaded(wire: responses.RequestsMock) -> tuple[str, bytes]:
    (call,) = [c.request for c in wire.calls if "media/upload" in str(c.request.url)]
    body = call.body if isinstance(call.body, bytes) else b""
    return str(call.url), body


@pytest.mark.parametrize(
    ("media_type", "word", "name"),
    [
        ("image/jpeg", "image", "file.jpg"),
        ("image/png", "image", "file.png"),
        ("audio/amr", "voice", "file.amr"),
        ("audio/mpeg", "voice", "file.mp3"),
    ],
)
def test_a_picture_or_voice_is_uploaded_and_sent(
    media_type: str, word: str, name: str, wire: responses.RequestsMock
) -> None:
    wire.post(f"{API}/media/upload", json={"type": word, "media_id": "up-1"})
    wire.post(SEND, json=OK)
    file = Attachment(name="发票.x", media_type=media_type, content=b"\xff\xd8 seven")
    message = an_answer("").model_copy(update={"attachments": (file,)})
    (piece,) = wechat().pieces(message)
    assert wechat().send(piece) == piece.id
    url, body = uploaded(wire)
    assert f"type={word}" in url
    assert f'filename="{name}"'.encode() in body
    assert b"\xff\xd8 seven" in body
    ((_, told),) = asked(wire, SEND)
    assert told == {"touser": OPENID, "msgtype": word, word: {"media_id": "up-1"}}


@pytest.mark.parametrize("answer", [{}, {"media_id": 7}, [], {"errcode": 45001, "errmsg": "x"}])
def test_a_file_that_could_not_be_uploaded_is_not_sent(
    answer: Any, wire: responses.RequestsMock
) -> None:
    wire.post(f"{API}/media/upload", json=answer)
    file = Attachment(media_type="image/png", content=b"\x89PNG\r\n")
    with pytest.raises(DeliveryError):
        wechat().send(an_answer("").model_copy(update={"attachments": (file,)}))
    assert asked(wire, SEND) == []
