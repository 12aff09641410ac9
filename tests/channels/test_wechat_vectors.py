"""Signed requests of Mini Programs and WeCom with their known verdict, made by other libraries.

Those of Official Accounts are in tests/test_vectors.py. Read from the shared data; skipped where
that is absent.
"""

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from wechatpy.enterprise.crypto import WeChatCrypto

from chalicelib.errors import PayloadError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message, Notice
from connectors import wechat_wire
from tests.recorded import SHARED, answer_to, connector, heard_by, messages_in, request_of
from tests.samples_tencent import settings_for

SIGNED = SHARED / "payloads" / "generated_signed"
pytestmark = pytest.mark.skipif(not SIGNED.exists(), reason="shared/data is not at hand")

#: {case that we judge otherwise: why}
UNREADABLE = {
    "wecom/aibot_json": "a robot's envelope is made for nobody: an inbox is an application's",
}


def name_of(record: Any) -> str:
    return f"{record['provider']}/{record['case']}"


def records(*, stating: str = "verify") -> list[Any]:
    """The requests whose expectation states something, as parameters."""
    files = sorted([*SIGNED.glob("wechat-miniprogram__*.json"), *SIGNED.glob("wecom__*.json")])
    read = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return [pytest.param(r, id=name_of(r)) for r in read if stating in r["expected"]]


def request_in(record: Any) -> WebhookRequest:
    query = dict(parse_qsl(urlsplit(record["request"]["url"]).query))
    return request_of({"body": "", **record["request"], "query": query}, int(query["timestamp"]))


def connector_for(record: Any) -> Connector:
    name = "wechat_miniprogram" if record["provider"] == "wechat-miniprogram" else "wecom"
    if "kf_msg" in record["case"]:
        name = "wecom_kf"
    return connector(name, settings_for(record, name), "https://hooks.example.com/")


def answered(record: Any) -> str | None:
    """What an accepted request hears, '' where that is for later; None if it is refused."""
    return heard_by(connector_for(record), request_in(record))


@pytest.mark.parametrize("record", records())
def test_the_verdict_is_the_known_one(record: Any) -> None:
    expected = record["expected"]
    wanted = expected.get("response_body", "") if expected["verify"] else None
    assert answered(record) == wanted


@pytest.mark.parametrize("record", records(stating="decrypted"))
def test_an_envelope_opens_to_the_known_text(record: Any) -> None:
    secret, body = record["secret"], request_in(record).body
    receiver = secret.get("receive_id", secret.get("corp_id", secret.get("appid")))
    envelope = {k.lower(): v for k, v in wechat_wire.read(body).items()}["encrypt"]
    key = wechat_wire.aes_key(secret["encoding_aes_key"])
    assert wechat_wire.decrypt(envelope, key, receiver).decode() == record["expected"]["decrypted"]


@pytest.mark.parametrize("record", records(stating="decrypted"))
def test_a_request_that_is_for_nobody_here_is_unreadable(record: Any) -> None:
    if name_of(record) in UNREADABLE:
        with pytest.raises(PayloadError, match="cannot be opened"):
            connector_for(record).parse(request_in(record))
    else:
        assert connector_for(record).parse(request_in(record))


#: The record's word for a kind, where it is not ours.
KINDS = {"miniprogrampage": "link"}
#: What a message does not keep but in its raw bytes.
IN_RAW = {"PicUrl", "AppId", "ThumbUrl", "ThumbMediaId", "AgentID"}


def in_their_words(message: Message) -> dict[str, str]:
    file = message.attachments[0] if message.attachments else None
    return {
        "ToUserName": message.account,
        "FromUserName": message.address.split(":", 2)[2],
        "CreateTime": str(int(message.sent_at.timestamp())),
        "MsgType": message.kind.value,
        "MsgId": message.external_id,
        "Content": message.text,
        "MediaId": (file and file.source) or "",
        "Title": message.link.title if message.link else "",
        "PagePath": message.link.url if message.link else "",
        "Event": message.event.name if message.event else "",
        "EventKey": message.event.key if message.event else "",
        "SessionFrom": message.event.key if message.event else "",
    }


@pytest.mark.parametrize("record", [p for p in records(stating="parsed") if "kf_msg" not in p.id])
def test_a_message_has_the_known_fields(record: Any) -> None:
    (message,) = messages_in(connector_for(record), request_in(record))
    parsed = {k: str(v) for k, v in record["expected"]["parsed"].items() if k not in IN_RAW}
    parsed["MsgType"] = KINDS.get(parsed["MsgType"], parsed["MsgType"])
    found = in_their_words(message)
    assert {name: found[name] for name in parsed} == parsed


@pytest.mark.parametrize("record", [p for p in records(stating="parsed") if "kf_msg" in p.id])
def test_a_notice_says_where_to_fetch_and_with_which_token(record: Any) -> None:
    (notice,) = connector_for(record).parse(request_in(record))
    assert isinstance(notice, Notice)
    parsed = record["expected"]["parsed"]
    assert (notice.source, notice.token) == (parsed["OpenKfId"], parsed["Token"])


@pytest.mark.parametrize("record", [p for p in records(stating="parsed") if p.id == "wecom/text"])
def test_the_passive_reply_opens_with_another_library(record: Any) -> None:
    ours, secret = connector_for(record), record["secret"]
    (message,) = messages_in(ours, request_in(record))
    body = ours.acknowledge([message], answer_to(message, "明天发货 ]]> &amp;")).body
    parts = wechat_wire.fields(body.encode())
    theirs = WeChatCrypto(secret["token"], secret["encoding_aes_key"], secret["corp_id"])
    opened = theirs.decrypt_message(body, parts["MsgSignature"], parts["TimeStamp"], parts["Nonce"])
    reply = wechat_wire.fields(opened.encode())
    assert (reply["Content"], reply["ToUserName"]) == ("明天发货 ]]> &amp;", "zhangsan")
    assert reply["FromUserName"] == secret["corp_id"]


def test_the_console_s_probe_is_answered_though_a_plus_became_a_blank() -> None:
    """A gateway that decodes once too often turns `+` into a blank; base64 has none."""
    (record,) = [p.values[0] for p in records(stating="response_body")]
    parts = dict(parse_qsl(urlsplit(record["request"]["url"]).query))
    assert "+" in parts["echostr"]
    parts["echostr"] = parts["echostr"].replace("+", " ")
    probe = request_of({**record["request"], "query": parts}, int(parts["timestamp"]))
    heard = connector_for(record).handshake(probe)
    assert heard
    assert heard.body == record["expected"]["response_body"]
