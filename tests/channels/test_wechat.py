"""WeChat's peculiarities: tokens, codes, modes, files."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import responses
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pydantic import ValidationError

from chalicelib.errors import (
    ConfigurationError,
    DeliveryError,
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Attachment, Message
from chalicelib.store import StoredTokens
from connectors import http, wechat_wire
from infra.local import simulators
from tests.fakes import Clock, MemoryTable
from tests.make_samples import NOW, OPENID, WECHAT
from tests.recorded import answer_to, arrived, connector, later, messages_in, request_of, with_param

URL = "https://askonce.example/webhooks/inbox"
API = "https://api.weixin.qq.com/cgi-bin"
SEND, TOKEN, MEDIA = f"{API}/message/custom/send", f"{API}/stable_token", f"{API}/media/get"
SECRETS = WECHAT | {"aes_key": WECHAT["encoding_aes_key"]}
OK = {"errcode": 0, "errmsg": "ok"}


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def wechat(mode: str = "safe", tokens: Any = None) -> Connector:
    return connector("wechat", WECHAT | {"mode": mode}, URL, tokens)


def push(mode: str = "safe", **fields: str | int) -> WebhookRequest:
    said = {"MsgType": "text", "Content": "Where is my parcel?", "MsgId": 7, **fields}
    return arrived(simulators.wechat(SECRETS, OPENID, said, mode=mode, at=NOW), NOW)


def an_answer(text: str = "明天发货") -> Message:
    (message,) = messages_in(wechat(), push())
    return answer_to(message, text)


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
        (40003, RejectedError, "openid"),
        (45002, RejectedError, "too long"),
        (45015, RejectedError, "48 hours"),
        (45047, RejectedError, "five messages"),
        (48001, RejectedError, "no right"),
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
        ({"json": {"video_url": "http://evil.example/v"}}, RejectedError),
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


# Modes


@pytest.mark.parametrize("mode", ["safe", "compatible"])
def test_an_inbox_with_envelopes_takes_no_plain_push(mode: str) -> None:
    with pytest.raises(SignatureError, match="no envelope"):
        wechat(mode).verify(push("plain"))


def test_a_plain_inbox_reads_no_envelope() -> None:
    request = push("safe")
    wechat("plain").verify(request)
    with pytest.raises(PayloadError):
        messages_in(wechat("plain"), request)


@pytest.mark.parametrize("mode", ["safe", "compatible"])
def test_clear_fields_beside_an_envelope_count_for_nothing(mode: str) -> None:
    forged = b"<xml><Content>forged</Content><FromUserName>victim</FromUserName>"
    request = push(mode)
    request = replace(request, body=request.body.replace(b"<xml>", forged))
    wechat(mode).verify(request)
    (message,) = messages_in(wechat(mode), request)
    assert (message.text, message.address.rpartition(":")[2]) == ("Where is my parcel?", OPENID)


def test_an_envelope_for_another_account_does_not_open() -> None:
    other = SECRETS | {"app_id": "wxffffffffffffffff"}
    sent = simulators.wechat(other, OPENID, {"MsgType": "text", "MsgId": 1}, at=NOW)
    request = arrived(sent, NOW)
    wechat().verify(request)
    with pytest.raises(PayloadError, match="cannot be opened"):
        messages_in(wechat(), request)


@pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])
def test_the_answer_in_the_response_is_sealed_where_pushes_are(mode: str) -> None:
    body = wechat(mode).acknowledge([], an_answer("明天发货")).body
    assert ("<Encrypt>" in body) == (mode != "plain")
    assert ("明天发货" in body) == (mode == "plain")


# Signatures


def splits(digits: str) -> Iterator[tuple[str, str]]:
    for cut in range(1, len(digits)):
        yield digits[:cut], digits[cut:]
        yield digits[cut:], digits[:cut]


def test_one_signature_is_good_for_one_time_though_it_covers_several() -> None:
    """The digits of timestamp and nonce can be split in other ways under the same signature."""
    signature = wechat_wire.signature(WECHAT["token"], str(NOW), "123")
    others = [(time, nonce) for time, nonce in splits(f"123{NOW}") if time != str(NOW)]
    others = [o for o in others if wechat_wire.signature(WECHAT["token"], *o) == signature]
    assert others
    for time, nonce in others:
        query = {"signature": signature, "timestamp": time, "nonce": nonce}
        with pytest.raises(SignatureError, match="timestamp"):
            wechat().handshake(request_of({"method": "GET", "headers": {}, "query": query}, NOW))


def probe_of_console() -> WebhookRequest:
    query = {
        "signature": wechat_wire.signature(WECHAT["token"], str(NOW), "nonce"),
        "timestamp": str(NOW),
        "nonce": "nonce",
        "echostr": "83003 <63>",
    }
    return request_of({"method": "GET", "headers": {}, "query": query}, NOW)


@pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])
def test_the_console_hears_its_echo_unchanged(mode: str) -> None:
    answer = wechat(mode).handshake(probe_of_console())
    assert answer
    assert (answer.body, answer.content_type) == ("83003 <63>", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    "forged",
    [
        with_param(probe_of_console(), "signature", "0" * 40),
        with_param(probe_of_console(), "signature"),
        with_param(probe_of_console(), "nonce", "", "nonce"),
        later(probe_of_console(), 301),
        request_of({"method": "GET", "headers": {}, "query": {}}, NOW),
    ],
)
def test_nobody_else_hears_an_echo(forged: WebhookRequest) -> None:
    with pytest.raises(SignatureError):
        wechat().handshake(forged)


# Reading


def test_two_events_in_one_second_are_two_messages() -> None:
    scan = push(MsgType="event", Event="SCAN", EventKey="42", MsgId="")
    follow = push(MsgType="event", Event="subscribe", EventKey="", MsgId="")
    ids = {message.id for request in (scan, follow) for message in messages_in(wechat(), request)}
    assert len(ids) == 2


@pytest.mark.parametrize("made", ["", "soon", "9" * 30, "-5"])
def test_a_push_without_a_time_is_of_now(made: str) -> None:
    request = push(CreateTime=made)
    (message,) = messages_in(wechat(), request)
    assert message.sent_at == request.received_at


@pytest.mark.parametrize("kind", ["image", "voice", "video", "shortvideo"])
def test_a_file_without_its_id_is_a_payload_error(kind: str) -> None:
    with pytest.raises(PayloadError):
        messages_in(wechat(), push(MsgType=kind))


# The wire


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (b"<xml><A>1</A><B><![CDATA[<2>]]></B></xml>", {"A": "1", "B": "<2>"}),
        (b"<xml><A>1</A><A>2</A></xml>", {"A": "1"}),
        (b"<xml><A><B>1</B><B>2</B></A></xml>", {"A.B": "1"}),
        (b"<xml><A>x<B/>y</A></xml>", {"A.B": ""}),
        (b"<xml>words<A b='c'> 1 </A></xml>", {"A": " 1 "}),
        (b"<xml/>", {}),
    ],
)
def test_a_document_is_read_as_its_leaves(document: bytes, found: dict[str, str]) -> None:
    assert wechat_wire.fields(document) == found


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"<!DOCTYPE xml><xml><A>1</A></xml>", "document type"),
        (b'<!DOCTYPE xml SYSTEM "file:///etc/passwd"><xml/>', "document type"),
        (b"<xml>" + b"<A>" * 8 + b"</A>" * 8 + b"</xml>", "nested too deeply"),
        (b"<xml>" + b"<A/>" * 500 + b"</xml>", "too many elements"),
        (b"<html><A>1</A></html>", "root"),
        (b"<xml><A>1</xml>", "no XML"),
        (b"<xml><A>1</A></xml><xml/>", "no XML"),
        (b"<xml>&undefined;</xml>", "no XML"),
        ("<xml>中</xml>".encode("gbk"), "no XML"),
        (b"", "no XML"),
    ],
)
def test_a_document_that_is_none_of_wechat_s_is_a_payload_error(
    document: bytes, fault: str
) -> None:
    with pytest.raises(PayloadError, match=fault):
        wechat_wire.fields(document)


KEY = wechat_wire.aes_key(WECHAT["encoding_aes_key"])


def sealed(clear: bytes) -> str:
    """Any bytes, encrypted as envelopes are, whatever their padding says."""
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(KEY[:16])).encryptor()
    return base64.b64encode(encryptor.update(clear) + encryptor.finalize()).decode()


def padded(length: int, receiver: str, padding: bytes) -> bytes:
    """Sixteen bytes of chance, the length, a message of four bytes, the receiver, the padding."""
    return b"r" * 16 + length.to_bytes(4, "big") + b"text" + receiver.encode() + padding


APP = WECHAT["app_id"]  # 18 characters: 22 bytes of padding are missing


def test_an_envelope_made_by_hand_opens() -> None:
    assert wechat_wire.decrypt(sealed(padded(4, APP, b"\x16" * 22)), KEY, APP) == b"text"


@pytest.mark.parametrize(
    "clear",
    [
        padded(4, APP, b"\x15" + b"\x16" * 21),
        padded(4, APP, b"\x16" * 21 + b"\0"),
        padded(4, APP, b"\x16" * 21 + b"\x21"),
        padded(4, APP, b"\x16" * 21 + b"\xff"),
        padded(5, APP, b"\x16" * 22),
        padded(3, APP, b"\x16" * 22),
        padded(2**32 - 1, APP, b"\x16" * 22),
        padded(4, "x" + APP[1:], b"\x16" * 22),
        padded(4, APP + "x", b"\x15" * 21),
        b"\x20" * 32,
        b"\x10" * 16,
        b"",
    ],
)
def test_an_envelope_that_is_wrong_anywhere_does_not_open(clear: bytes) -> None:
    with pytest.raises(PayloadError, match=r"^the envelope cannot be opened$"):
        wechat_wire.decrypt(sealed(clear), KEY, APP)


# Settings


def test_every_mode_but_plain_needs_the_key() -> None:
    without = {k: v for k, v in WECHAT.items() if k != "encoding_aes_key"}
    assert connector("wechat", without | {"mode": "plain"}, URL)
    for mode in ("safe", "compatible"):
        with pytest.raises(ValidationError, match=f"mode {mode} needs it"):
            connector("wechat", without | {"mode": mode}, URL)


@pytest.mark.parametrize("key", ["short", "x" * 42, "!" * 43, "x" * 44])
def test_a_key_that_is_no_key_names_its_setting(key: str) -> None:
    with pytest.raises(ConfigurationError, match="encoding_aes_key"):
        connector("wechat", WECHAT | {"encoding_aes_key": key}, URL)


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValidationError, match="token"):
        connector("wechat", WECHAT | {"token": "abc"}, URL)
