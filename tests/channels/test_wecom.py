"""A WeCom application's peculiarities: always sealed, events from nobody, one member at a time."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import responses
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
from chalicelib.tokens import StoredTokens
from connectors import wechat_wire
from infra.local import simulators
from infra.local.simulators import tencent
from tests.fakes import Clock, MemoryTable
from tests.make_samples import NOW
from tests.recorded import answer_to, arrived, connector, later, messages_in, with_param
from tests.samples_tencent import MEMBER, WECOM, secrets

HELD = secrets(WECOM)
SETTINGS = {key: value for key, value in HELD.items() if key != "aes_key"}
API = "https://qyapi.weixin.qq.com/cgi-bin"
SEND, TOKEN = f"{API}/message/send", f"{API}/gettoken"
OK = {"errcode": 0, "errmsg": "ok", "msgid": "wecom-1"}
URL = "https://askonce.example/webhooks/inbox"


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def wecom(tokens: Any = None, **more: Any) -> Connector:
    return connector("wecom", SETTINGS | more, URL, tokens)


def push(**fields: Any) -> WebhookRequest:
    said = {"FromUserName": MEMBER, "AgentID": 1000002, **simulators.wechat_text("货呢?"), **fields}
    return arrived(tencent.wecom(HELD, said, at=NOW), NOW)


def an_answer(text: str = "明天发货", **more: Any) -> Message:
    return answer_to(messages_in(wecom(), push())[0], text, **more)


# In


def test_a_clear_push_is_refused_whatever_it_is_signed_with() -> None:
    clear = wechat_wire.document({"FromUserName": MEMBER, "MsgType": "text", "Content": "forged"})
    signed = tencent.signed(HELD["token"], NOW, b"n" * 16)
    request = replace(push(), body=clear.encode(), query=tuple(signed.items()))
    with pytest.raises(SignatureError, match="no envelope"):
        wecom().verify(request)
    with pytest.raises(SignatureError):
        wecom().verify(with_param(push(), "msg_signature", signed["signature"]))


def test_an_envelope_for_another_corporation_does_not_open() -> None:
    other = HELD | {"corp_id": "wwffffffffffffffff"}
    request = arrived(tencent.wecom(other, {"MsgType": "text", "FromUserName": "x"}, at=NOW), NOW)
    wecom().verify(request)
    with pytest.raises(PayloadError, match="cannot be opened"):
        wecom().parse(request)


def test_an_event_of_nobody_s_is_one_of_the_system_s() -> None:
    (message,) = messages_in(wecom(), push(FromUserName="", MsgType="event", Event="a", MsgId=""))
    assert message.address == f"wecom:{WECOM['corp_id']}:sys"


def test_a_message_of_nobody_s_is_a_payload_error() -> None:
    with pytest.raises(PayloadError, match="FromUserName"):
        wecom().parse(push(FromUserName=""))


def test_the_console_hears_what_its_echo_seals() -> None:
    probe = arrived(tencent.wecom_echo(HELD, "3746526292198561984", at=NOW), NOW)
    heard = wecom().handshake(probe)
    assert heard
    assert (heard.status, heard.body) == (200, "3746526292198561984")


PROBE = arrived(tencent.wecom_echo(HELD, "3746526292198561984", at=NOW), NOW)


@pytest.mark.parametrize(
    "forged",
    [
        with_param(PROBE, "echostr"),
        with_param(PROBE, "echostr", "AAAA"),
        with_param(PROBE, "msg_signature"),
        with_param(PROBE, "nonce", "1"),
        later(PROBE, 301),
        arrived(tencent.wecom_echo(HELD | {"token": "another-token"}, "1", at=NOW), NOW),
        arrived(tencent.wecom_echo(HELD | {"corp_id": "wwffffff"}, "1", at=NOW), NOW),
    ],
)
def test_nobody_else_hears_an_echo(forged: WebhookRequest) -> None:
    with pytest.raises(SignatureError):
        wecom().handshake(forged)


# Out


def test_an_answer_goes_to_one_member_and_has_wecom_s_id(wire: responses.RequestsMock) -> None:
    wire.post(SEND, json=OK)
    assert wecom().send(an_answer()) == "wecom-1"
    told = json.loads(wire.calls[0].request.body or b"")
    assert told == {
        "touser": MEMBER,
        "agentid": 1000002,
        "msgtype": "text",
        "text": {"content": "明天发货"},
    }
    assert "明天发货".encode() in (wire.calls[0].request.body or b"")


def test_a_member_who_may_not_be_written_to_is_told_to_the_agent(
    wire: responses.RequestsMock,
) -> None:
    wire.post(SEND, json=OK | {"invaliduser": MEMBER})
    with pytest.raises(RejectedError, match="visible range"):
        wecom().send(an_answer())


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (-1, RetryableError, "busy"),
        (45009, RetryableError, "too fast"),
        (45033, RetryableError, "at once"),
        (60020, RetryableError, r"203\.0\.113\.9: add it"),
        (40014, RetryableError, "corp_id and secret"),
        (42001, RetryableError, "corp_id and secret"),
        (40056, RejectedError, "agent_id"),
        (81013, RejectedError, "visible range"),
        (301002, RejectedError, "one application"),
        (48002, RejectedError, "rights"),
        (99999, RejectedError, "99999"),
    ],
)
def test_a_code_says_whether_to_try_again_in_words_for_an_agent(
    code: int, error: type[DeliveryError], words: str, wire: responses.RequestsMock
) -> None:
    wire.post(SEND, json={"errcode": code, "errmsg": "x, from ip: 203.0.113.9, more info"})
    with pytest.raises(error, match=words) as caught:
        wecom().send(an_answer())
    assert str(code) in str(caught.value)


def shared_tokens() -> StoredTokens:
    return StoredTokens(MemoryTable(), Clock(), lambda seconds: None)


def test_one_token_serves_all_workers_and_a_refused_one_is_replaced_once(
    wire: responses.RequestsMock,
) -> None:
    wire.get(TOKEN, json={"errcode": 0, "access_token": "t1", "expires_in": 7200})
    wire.get(TOKEN, json={"errcode": 0, "access_token": "t2", "expires_in": 7200})
    wire.post(SEND, json=OK)
    wire.post(SEND, json={"errcode": 42001, "errmsg": "access_token expired"})
    wire.post(SEND, json=OK)
    tokens = shared_tokens()
    for _ in range(3):
        wecom(tokens).send(an_answer())
    used = [str(c.request.url) for c in wire.calls]
    assert len([url for url in used if url.startswith(TOKEN)]) == 2
    shown = [url.partition("access_token=")[2] for url in used if url.startswith(SEND)]
    assert shown == ["t1", "t1", "t2", "t2"]


@pytest.mark.parametrize("answer", [{"errcode": 40001, "errmsg": "invalid secret"}, {}, []])
def test_without_a_token_a_message_waits(answer: Any, wire: responses.RequestsMock) -> None:
    wire.get(TOKEN, json=answer)
    with pytest.raises(RetryableError) as caught:
        wecom(shared_tokens()).send(an_answer())
    assert WECOM["secret"] not in str(caught.value)


def test_a_file_is_fetched_by_its_media_id(wire: responses.RequestsMock) -> None:
    wire.get(f"{API}/media/get", body=b"\xff\xd8jpeg", content_type="image/jpeg")
    assert wecom().fetch(Attachment(source="media-1")) == b"\xff\xd8jpeg"


# Settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [("agent_id", 0), ("corp_id", "corporation"), ("encoding_aes_key", None), ("token", "abc")],
)
def test_a_setting_that_cannot_be_right_is_named(setting: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=setting):
        wecom(**{setting: value})


def test_a_key_that_is_no_key_names_its_setting() -> None:
    with pytest.raises(ConfigurationError, match="encoding_aes_key"):
        wecom(encoding_aes_key="short")
