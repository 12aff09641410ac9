"""A Mini Program's peculiarities: XML or JSON, no passive reply, a minute after coming in."""

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.errors import PayloadError, SignatureError
from chalicelib.ports import Connector, WebhookRequest
from infra.local.simulators import tencent
from tests.make_samples import NOW, OPENID
from tests.recorded import answer_to, arrived, connector, messages_in
from tests.samples_tencent import BIG, MINIPROGRAM, secrets

HELD = secrets(MINIPROGRAM)
SETTINGS = {key: value for key, value in HELD.items() if key != "aes_key"}
MODES = ["safe", "compatible", "plain"]


def program(mode: str = "safe") -> Connector:
    return connector("wechat_miniprogram", SETTINGS | {"mode": mode}, "https://askonce.example/")


def push(mode: str = "safe", *, as_json: bool = True, **fields: Any) -> WebhookRequest:
    said = {"MsgType": "text", "Content": " 到货了吗？", "MsgId": BIG, **fields}
    sent = tencent.miniprogram(HELD, OPENID, said, mode=mode, as_json=as_json, at=NOW)
    return arrived(sent, NOW)


@pytest.mark.parametrize("mode", MODES)
def test_xml_and_json_say_the_same(mode: str) -> None:
    ours, requests = program(mode), [push(mode, as_json=as_json) for as_json in (True, False)]
    for request in requests:
        ours.verify(request)
    (one,), (other,) = (messages_in(ours, request) for request in requests)
    assert one == other
    assert (one.external_id, one.text) == (str(BIG), " 到货了吗？")


def test_ids_that_a_double_cannot_tell_apart_are_told_apart() -> None:
    ids = {messages_in(program(), push(MsgId=BIG + n))[0].external_id for n in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("mode", ["safe", "compatible"])
@pytest.mark.parametrize("as_json", [True, False])
def test_an_inbox_with_envelopes_takes_no_clear_push(mode: str, as_json: bool) -> None:
    with pytest.raises(SignatureError, match="no envelope"):
        program(mode).verify(push("plain", as_json=as_json))


def test_a_second_envelope_beside_the_signed_one_is_not_read() -> None:
    request, other = push(), json.loads(push(Content="forged").body)
    told = json.loads(request.body)
    both = f'{{"Encrypt": "{told["Encrypt"]}", "encrypt": "{other["Encrypt"]}", "Encrypt": "x"}}'
    request = replace(request, body=both.encode())
    program().verify(request)
    assert messages_in(program(), request)[0].text == " 到货了吗？"


def test_an_answer_is_never_in_the_response() -> None:
    (message,) = messages_in(program(), push())
    assert program().capabilities.answers_within_seconds is None
    assert program().acknowledge([message], answer_to(message)).body == "success"


def test_coming_in_is_an_event_that_opens_a_window_and_no_ticket() -> None:
    enter = {"MsgType": "event", "Event": "user_enter_tempsession", "SessionFrom": "shop"}
    sent = tencent.miniprogram(HELD, OPENID, enter, at=NOW)
    (message,) = messages_in(program(), arrived(sent, NOW))
    assert message.event
    assert (message.event.name, message.event.key) == ("user_enter_tempsession", "shop")
    assert message.event.name in program().capabilities.windows


@pytest.mark.parametrize(
    "told",
    [
        {"MsgType": "text"},
        {"FromUserName": OPENID},
        {"FromUserName": {"a": OPENID}, "MsgType": "text"},
        {"FromUserName": OPENID, "MsgType": ["text"], "MsgId": {}} | {"MsgType": None},
    ],
)
def test_a_json_push_that_names_nobody_or_nothing_is_a_payload_error(told: Any) -> None:
    request = replace(push("plain"), body=json.dumps(told).encode())
    with pytest.raises(PayloadError, match="missing"):
        program("plain").parse(request)
