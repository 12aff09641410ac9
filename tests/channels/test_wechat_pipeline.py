"""The real connectors in the pipeline: forged pushes write nothing, redelivered ones hear again."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import responses

from chalicelib.errors import SignatureError, TooLargeError
from chalicelib.items import Step
from chalicelib.ports import WebhookRequest
from chalicelib.settings import Deployment, Document, SecretReader
from connectors.registry import CONNECTORS
from infra.local import simulators
from infra.local.simulators import Sent, tencent
from tests.fakes import HELPDESKS, World, world
from tests.make_samples import OPENID
from tests.recorded import OneToken, arrived, later, with_param
from tests.wechat_payloads import SETTINGS

SECRETS = ("app_secret", "secret", "token", "encoding_aes_key")
QUESTION, ANSWER = "龙井茶怎么保存？", "放在阴凉干燥的地方。"
each_inbox = pytest.mark.parametrize("name", sorted(SETTINGS))


def by_reference(name: str) -> dict[str, str]:
    """Settings as askonce.toml has them."""
    own = {k: f"env:{name}_{k}" if k in SECRETS else v for k, v in SETTINGS[name].items()}
    return {"connector": name, **own}


def inbox(name: str) -> str:
    return name.replace("_", "-")


@pytest.fixture
def w() -> World:
    made = world(repeats={"mode": "answer"})
    told = made.pipeline.deployment.document.model_dump(exclude_unset=True)
    told["inboxes"] = {inbox(name): by_reference(name) for name in SETTINGS}
    held = {f"{name}_{k}": v for name, s in SETTINGS.items() for k, v in s.items() if k in SECRETS}
    deployment = Deployment(
        Document.model_validate(told), CONNECTORS, HELPDESKS, OneToken(), SecretReader(held)
    )
    made.pipeline = replace(made.pipeline, deployment=deployment)
    return made


def keys(name: str) -> dict[str, str]:
    return {**SETTINGS[name], "aes_key": SETTINGS[name]["encoding_aes_key"]}


def push(
    w: World, name: str, text: str = QUESTION, number: int = 1, **other: str
) -> WebhookRequest:
    """A customer's text as its provider pushes it now, or as somebody with other secrets does."""
    at, held = w.clock.now.timestamp(), keys(name) | other
    fields: dict[str, Any] = {"MsgType": "text", "Content": text, "MsgId": number}
    return arrived(_sent(name, held, fields, at), at)


def _sent(name: str, held: dict[str, str], fields: dict[str, Any], at: float) -> Sent:
    if name == "wechat":
        return simulators.wechat(held, OPENID, fields, at=at)
    if name == "wechat_miniprogram":
        return tencent.miniprogram(held, OPENID, fields, at=at)
    if name == "wecom":
        return tencent.wecom(held, {"FromUserName": "zhangsan", **fields}, at=at)
    return tencent.kf_notice(held, "ENC1", at=at)


# Forged


def forged(w: World, name: str) -> Iterator[WebhookRequest]:
    """Requests that somebody makes who has seen genuine ones, but not the secrets."""
    genuine = push(w, name)
    signature = genuine.param("msg_signature")
    yield push(w, name, token="another-token-of-theirs")
    yield later(genuine, 301)
    yield later(genuine, -301)
    yield replace(genuine, body=push(w, name, "forged", 2).body)
    yield replace(genuine, body=genuine.body.replace(b"Encrypt", b"Encrypted"))
    yield replace(genuine, body=b"")
    yield replace(genuine, body=b'{"Encrypt": ["' + b"A" * 64 + b'"]}')
    yield replace(genuine, body=b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + genuine.body)
    yield replace(genuine, body=b"<xml>" * 5000)
    for value in ((), ("",), (signature, signature), ("0" * 40,), (signature.upper(),), ("签名",)):
        yield with_param(genuine, "msg_signature", *value)
    for other in ("timestamp", "nonce"):
        yield with_param(genuine, other)
        yield with_param(genuine, other, "1" * 10)
    timestamp, nonce = genuine.param("timestamp"), genuine.param("nonce")
    split = with_param(with_param(genuine, "timestamp", nonce), "nonce", timestamp)
    yield split  # the same digits, under the same signature
    clear = tencent.signed(keys(name)["token"], int(timestamp), b"n" * 16)
    body = b"<xml><FromUserName>victim</FromUserName><MsgType>text</MsgType></xml>"
    yield replace(genuine, query=tuple(clear.items()), body=body)  # a plain push, rightly signed
    yield with_param(replace(genuine, body=body), "signature", clear["signature"])
    yield replace(genuine, method="GET", query=(("echostr", "x"), ("signature", "0" * 40)))


@each_inbox
def test_a_forged_push_is_refused_and_leaves_no_trace(w: World, name: str) -> None:
    for request in forged(w, name):
        with pytest.raises(SignatureError):
            w.pipeline.accept(inbox(name), request)
    with pytest.raises(TooLargeError):
        w.pipeline.accept(inbox(name), replace(push(w, name), body=b"<xml>" + b" " * 65536))
    assert w.table.stream == []
    assert w.pipeline.store.all_quarantined() == []
    w.pipeline.accept(inbox(name), push(w, name))
    assert w.table.stream


@each_inbox
def test_a_push_sealed_for_somebody_else_is_kept_for_the_operator(w: World, name: str) -> None:
    receiver = "corp_id" if name.startswith("wecom") else "app_id"
    other: dict[str, Any] = {receiver: "wwffffffffffffffff"}
    heard = w.pipeline.accept(inbox(name), push(w, name, **other))
    assert heard.status == 200
    assert [q.reason for q in w.pipeline.store.all_quarantined()] == [
        "the envelope cannot be opened"
    ]


# Redelivered


@pytest.mark.parametrize("name", ["wechat", "wechat_miniprogram", "wecom"])
def test_three_pushes_are_one_message(w: World, name: str) -> None:
    first = push(w, name)
    for _ in range(3):
        w.pipeline.accept(inbox(name), first)
        w.clock.now += timedelta(seconds=5)
    w.settle()
    assert w.desk.said == [("T1", QUESTION)]


@pytest.mark.parametrize("name", ["wechat", "wecom"])
def test_a_redelivered_repeat_hears_the_same_passive_reply_again(w: World, name: str) -> None:
    w.pipeline.accept(inbox(name), push(w, name))
    w.settle()
    w.clock.now += timedelta(hours=1)
    w.reply("T1", ANSWER)
    for stored in w.messages():  # no call leaves: what is under test is the response
        assert stored.step is not Step.FAILED
    w.pipeline.relay(w.messages()[-1].message.id)
    w.clock.now += timedelta(hours=2)
    again = push(w, name, number=2)
    heard = []
    for seconds in (0, 5, 10):
        request = later(again, seconds)
        w.clock.now = request.received_at
        heard.append(w.pipeline.accept(inbox(name), request))
    held = keys(name) | {"app_id": keys(name).get("app_id") or keys(name)["corp_id"]}
    said = [simulators.wechat_passive_text(held, answer.body) for answer in heard]
    assert ANSWER in (said[0] or "")
    assert said == said[:1] * 3


# Fetched

KF = "https://qyapi.weixin.qq.com/cgi-bin/kf"


def page(cursor: str, *items: Any, more: int = 0) -> dict[str, Any]:
    return {"errcode": 0, "next_cursor": cursor, "has_more": more, "msg_list": list(items)}


def test_two_notices_bring_each_word_of_a_customer_once(w: World) -> None:
    lines = [tencent.kf_item("wmLi", "text", {"content": text}) for text in (QUESTION, "还有")]
    with responses.RequestsMock() as wire:
        for cursor, items in (("c1", lines[:1]), ("c2", []), ("c3", lines), ("c4", [])):
            wire.post(f"{KF}/sync_msg", json=page(cursor, *items, more=int(cursor != "c4")))
        for number in (1, 2):
            at = w.clock.now.timestamp()
            sent = tencent.kf_notice(keys("wecom_kf"), f"ENC{number}", at=at)
            w.pipeline.accept("wecom-kf", arrived(sent, at))
        wire.post(f"{KF}/sync_msg", json=page("c4"))
        w.settle()
        asked = [json.loads(call.request.body or b"")["cursor"] for call in wire.calls]
    assert [text for _, text in w.desk.said] == [QUESTION, "还有"]
    assert asked == ["", "c1", "c2", "c3", "c4"]


def test_a_message_that_did_not_arrive_becomes_a_note_on_its_ticket(w: World) -> None:
    with responses.RequestsMock() as wire:
        line = tencent.kf_item("wmLi", "text", {"content": QUESTION})
        wire.post(f"{KF}/sync_msg", json=page("c1", line))
        w.pipeline.accept("wecom-kf", push(w, "wecom_kf"))
        w.settle()
        wire.post(f"{KF}/send_msg", json={"errcode": 0, "errmsg": "ok"})
        w.reply("T1", ANSWER)
        w.settle()
        ours = json.loads(wire.calls[-1].request.body or b"")["msgid"]
        told = {"event_type": "msg_send_fail", "fail_msgid": ours, "fail_type": 10}
        event = {"msgid": "e1", "origin": 4, "msgtype": "event", "event": told}
        wire.replace("POST", f"{KF}/sync_msg", json=page("c2", event))
        w.clock.now += timedelta(minutes=1)
        w.pipeline.accept("wecom-kf", push(w, "wecom_kf"))
        w.settle()
    assert any("refuses messages" in note for note in w.desk.notes)
