"""What others recorded of WeChat and WeCom becomes what the index says, or the page says why."""

import json
from typing import Any

import pytest
import responses

from chalicelib.schema import Attachment, Direction, Kind, Message, Notice
from connectors import wechat_wire
from tests import wechat_payloads
from tests.recorded import answer_to, connector, messages_in
from tests.wechat_payloads import PAYLOADS, Payload, payloads, put_in

EVERY = payloads()
pytestmark = pytest.mark.skipif(not EVERY, reason="the folder shared/data is not at hand")
each = pytest.mark.parametrize(
    ("payload", "mode"), [(p, mode) for p in EVERY for mode in p.modes], ids=str
)


def test_no_payload_of_the_family_is_left_out() -> None:
    assert len(EVERY) > 180
    assert {p.connector for p in EVERY} == {"wechat", "wechat_miniprogram", "wecom", "wecom_kf"}


@each
def test_a_recorded_payload_says_what_the_index_says_or_the_page_says_why(
    payload: Payload, mode: str
) -> None:
    found = wechat_payloads.outcome(payload, mode)
    if isinstance(found, str):
        assert wechat_payloads.why(payload, found)
    elif isinstance(found, Notice):
        assert (found.source, found.token[:3]) == ("wkxxxxxxx", "ENC")
    else:
        assert isinstance(found, Message)
        assert found.direction is Direction.INBOUND
        said, wanted = wechat_payloads.in_wechat_s_words(found), wechat_payloads.wanted(payload)
        odd = wechat_payloads.deviations(payload, found)
        assert {k: said[k] for k in wanted if k not in odd} == {
            k: v for k, v in wanted.items() if k not in odd
        }
        assert not {"FromUserName", "ToUserName", "CreateTime", "MsgId"} & set(odd)
        if "MsgType" in odd:
            assert found.kind is Kind.UNSUPPORTED
            assert found.raw
            assert found.raw.content == payload.body


@each
def test_a_payload_is_the_same_message_in_every_mode(payload: Payload, mode: str) -> None:
    assert wechat_payloads.outcome(payload, mode) == wechat_payloads.outcome(
        payload, payload.modes[0]
    )


def test_the_page_says_what_the_code_does() -> None:
    kept = wechat_payloads.PAGE.read_text(encoding="utf-8")
    assert kept == wechat_payloads.page(), "run `python -m tests.wechat_payloads`"


# What we send, beside what others send


def theirs(name: str) -> Any:
    return json.loads((PAYLOADS / "wxjava" / name).read_text(encoding="utf-8"))


def shape(told: Any) -> Any:
    """Names and nesting, and the one value that is a word of the protocol."""
    if not isinstance(told, dict):
        return None
    return {k: v if k == "msgtype" else shape(v) for k, v in told.items()}


def a_message(name: str) -> tuple[Any, Message]:
    payload = next(p for p in EVERY if p.connector == name and p.kind == "message:text")
    ours, request = put_in(payload, payload.modes[0])
    return ours, messages_in(ours, request)[0]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mp_WxMpKefuMessageTest_testTextBuild_2.json", "text"),
        ("mp_WxMpKefuMessageTest_testImageBuild_4.json", "image"),
        ("mp_WxMpKefuMessageTest_testVoiceBuild_6.json", "voice"),
        ("miniapp_WxMaKefuMessageTest_testTextBuilder_1.json", "text"),
        ("miniapp_WxMaKefuMessageTest_testImageBuilder_2.json", "image"),
    ],
)
def test_a_service_message_has_the_shape_that_others_give_it(file: str, name: str) -> None:
    ours, message = a_message("wechat")
    media = {"image": "image/png", "voice": "audio/amr"}
    files = [Attachment(media_type=media[name], content=b"\x89PNG\r\n")] if name in media else []
    answer = answer_to(message, "" if files else "Tomorrow.", attachments=tuple(files))
    with responses.RequestsMock() as wire:
        if files:
            wire.post("https://api.weixin.qq.com/cgi-bin/media/upload", json={"media_id": "m"})
        wire.post("https://api.weixin.qq.com/cgi-bin/message/custom/send", json={"errcode": 0})
        (piece,) = ours.pieces(answer)
        ours.send(piece)
        sent = json.loads(wire.calls[-1].request.body or b"")
    assert shape(sent) == shape(theirs(file))


@pytest.mark.parametrize("source", ["mp_WxMpXmlOut", "cp_WxCpXmlOut"])
def test_a_passive_reply_has_the_elements_that_others_give_it(source: str) -> None:
    file = PAYLOADS / "wxjava" / f"{source}TextMessageTest_test_1.xml"
    ours, message = a_message("wechat")
    plain = connector("wechat", {**dict(ours.settings), "mode": "plain"}, "https://a.example/")
    body = plain.acknowledge([message], answer_to(message)).body
    theirs_ = wechat_wire.fields(file.read_bytes())
    assert wechat_wire.fields(body.encode()).keys() == theirs_.keys()
