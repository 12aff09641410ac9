"""Samples of the Mini Program and of WeCom; make_samples writes them with its own."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from infra.local import simulators
from infra.local.simulators import tencent
from tests.recorded import SHARED

Files = Iterator[tuple[str, dict[str, Any]]]

MINIPROGRAM = {"app_id": "wx9d8c7b6a5f4e3021", "app_secret": "made-up-mini-secret"}
WECOM: dict[str, Any] = {
    "corp_id": "ww5f0e1c2d3b4a6978",
    "secret": "made-up-application-secret",
    "agent_id": 1000002,
}
WECOM_KF: dict[str, Any] = {"corp_id": WECOM["corp_id"], "secret": "made-up-service-secret"}
MEMBER = "zhangsan"
BIG = 2486219589123456789  # more than a double holds


def _keys() -> dict[str, str]:
    from tests.make_samples import WECHAT

    return {name: WECHAT[name] for name in ("token", "encoding_aes_key")}


def secrets(settings: dict[str, Any]) -> dict[str, str]:
    """Settings as the simulators want them."""
    return {**settings, **_keys(), "aes_key": _keys()["encoding_aes_key"]}


def _miniprogram() -> Files:
    from tests.make_samples import CHANCE, NOW, OPENID, _sample

    settings = MINIPROGRAM | _keys()

    def sample(about: str, fields: dict[str, Any], expected: Any, **more: Any) -> dict[str, Any]:
        own: dict[str, Any] = {"mode": "safe", "inbox": "inbox", "at": NOW, "chance": CHANCE}
        own |= more
        sent = tencent.miniprogram(secrets(MINIPROGRAM), OPENID, fields, **own)
        return _sample(about, sent, settings | {"mode": own["mode"]}, expected)

    text = {"MsgType": "text", "Content": "  到货了吗？ ]]> &amp;", "MsgId": BIG}
    expected: dict[str, Any] = {
        "external_id": str(BIG),
        "address": f"wechat:{MINIPROGRAM['app_id']}:{OPENID}",
        "account": "gh_9d8c7b6a5f4e",
        "kind": "text",
        "text": "  到货了吗？ ]]> &amp;",
        "evidence": [{"level": "verified", "source": "wechat"}],
    }
    yield "text_json_safe", sample("JSON; the id is longer than a double", text, expected)
    yield "text_xml_safe", sample("the same as XML", text, expected, as_json=False)
    yield "text_xml_plain", sample("XML, plain", text, expected, as_json=False, mode="plain")
    yield "text_json_compatible", sample("JSON, compatible", text, expected, mode="compatible")
    told = {"MsgType": "event", "Event": "wxa_media_check", "trace_id": "t-1", "status_code": 0}
    expected = {
        "kind": "event",
        "event": {"name": "wxa_media_check", "key": "t-1"},
        "raw": {"media_type": "application/json"},
    }
    yield "event_media_check", sample("an event that concerns no customer", told, expected)


def _wecom() -> Files:
    from tests.make_samples import CHANCE, NOW, _sample

    def sample(about: str, fields: dict[str, Any], expected: Any) -> dict[str, Any]:
        told = {"FromUserName": MEMBER, "AgentID": 1000002, **fields}
        sent = tencent.wecom(secrets(WECOM), told, inbox="inbox", at=NOW, chance=CHANCE)
        return _sample(about, sent, WECOM | _keys(), expected)

    fields = simulators.wechat_image("media-1") | {"MsgId": BIG}
    image = {"media_type": "image/jpeg", "source": "media-1"}
    expected = {
        "external_id": str(BIG),
        "address": f"wecom:{WECOM['corp_id']}:{MEMBER}",
        "account": WECOM["corp_id"],
        "kind": "image",
        "attachments": [image],
        "evidence": [{"level": "verified", "source": "wecom"}],
    }
    yield "image", sample("a picture of a member", fields, expected)
    fields = {
        "FromUserName": "sys",
        "MsgType": "event",
        "Event": "change_contact",
        "ChangeType": "create_user",
        "UserID": "lisi",
    }
    expected = {
        "kind": "event",
        "event": {"name": "change_contact", "key": "create_user"},
        "address": f"wecom:{WECOM['corp_id']}:sys",
        "raw": {"media_type": "text/xml"},
    }
    yield "event_change_contact", sample("an event of nobody's", fields, expected)


def _wecom_kf() -> Files:
    from tests.make_samples import CHANCE, NOW, _sample

    settings, held = WECOM_KF | _keys(), secrets(WECOM_KF)
    fixed: dict[str, Any] = {"inbox": "inbox", "at": NOW, "chance": CHANCE}
    sent = tencent.kf_notice(held, "ENCmade-up", **fixed)
    expected: dict[str, Any] = {"source": tencent.KF_ACCOUNT, "token": "ENCmade-up"}
    yield "notice_simulated", _sample("an account has something", sent, settings, expected)
    fields = {
        "FromUserName": "sys",
        "MsgType": "event",
        "Event": "kf_account_auth_change",
        "AuthAddOpenKfId": "wk1",
    }
    sent = tencent.wecom(held, fields, **fixed)
    expected = {
        "kind": "event",
        "event": {"name": "kf_account_auth_change", "key": "wk1"},
        "address": f"wecom_kf:{WECOM_KF['corp_id']}:sys",
    }
    yield "event_auth_change", _sample("an event of no customer's", sent, settings, expected)


def simulated() -> dict[str, dict[str, Any]]:
    """{file below tests/samples: its content} of all that the simulators sign."""
    folders = {"wechat_miniprogram": _miniprogram, "wecom": _wecom, "wecom_kf": _wecom_kf}
    return {
        f"{folder}/{name}.json": content
        for folder, made in folders.items()
        for name, content in made()
    }


#: {case of generated_signed: (file, what it must give)}
RECORDED: dict[str, tuple[str, dict[str, Any]]] = {
    "wechat-miniprogram__json_safe_text": ("wechat_miniprogram/text_json_recorded", {
        "external_id": "2465540112760218998", "kind": "text",
        "text": "English text with 中文 mixed"}),
    "wechat-miniprogram__json_safe_image": ("wechat_miniprogram/image_json_recorded", {
        "kind": "image", "attachments": [{"media_type": "image/jpeg"}]}),
    "wechat-miniprogram__json_safe_miniprogrampage": ("wechat_miniprogram/page_json_recorded", {
        "kind": "link", "text": "商品", "external_id": "2328186471166591821",
        "link": {"url": "pages/item?id=1", "title": "商品"},
        "raw": {"media_type": "application/json"}}),
    "wechat-miniprogram__json_plain_user_enter_tempsession": (
        "wechat_miniprogram/event_enter_plain_recorded", {
            "kind": "event", "event": {"name": "user_enter_tempsession", "key": "sessionFrom"}}),
    "wecom__text": ("wecom/text_recorded", {
        "external_id": "2377085680382160233", "kind": "text", "text": "  前后有空格  ",
        "address": "wecom:wwe5cb1fa63906d812:zhangsan", "account": "wwe5cb1fa63906d812"}),
    "wecom__enter_agent": ("wecom/event_enter_agent_recorded", {
        "kind": "event", "event": {"name": "enter_agent", "key": ""}, "raw": None}),
    "wecom__kf_msg_or_event": ("wecom_kf/notice_recorded", {
        "source": "wknqupw5ej3nkvo83eg2mrfs20y0jjt6",
        "token": "ENCpuaxmwdojxae0ha2dhtm2livfex5r43o0ymuwgll"}),
}  # fmt: skip


def recorded() -> Files:
    """The same for the requests of RECORDED; nothing where the shared data is not at hand."""
    for case, (name, expected) in RECORDED.items():
        path = SHARED / "payloads" / "generated_signed" / f"{case}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            yield f"{name}.json", _recorded(record, name.partition("/")[0], expected)


def settings_for(record: dict[str, Any], connector: str) -> dict[str, Any]:
    """A connector's settings with a record's secrets."""
    secret, own = record["secret"], {"wecom": WECOM, "wecom_kf": WECOM_KF}.get(connector)
    keys = {"token": secret["token"], "encoding_aes_key": secret["encoding_aes_key"]}
    if own:
        return own | keys | {"corp_id": secret["corp_id"]}
    mode = record["expected"].get("mode", "safe")
    return MINIPROGRAM | keys | {"app_id": secret["appid"], "mode": mode}


def _recorded(record: dict[str, Any], connector: str, expected: dict[str, Any]) -> dict[str, Any]:
    query = dict(parse_qsl(urlsplit(record["request"]["url"]).query))
    request = {key: record["request"][key] for key in ("method", "headers", "body")}
    return {
        "about": record["how"],
        "source": f"{record['provider']}/{record['case']} (CC0)",
        "settings": settings_for(record, connector),
        "now": int(query["timestamp"]),
        "public_url": record["request"]["url"].partition("?")[0],
        "request": request | {"query": query},
        "expected": [expected],
    }
