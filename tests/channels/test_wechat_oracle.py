"""wechatpy as the oracle: what it seals we open, what we seal it opens, and both read the same.

Where the two differ we are right and say why: wechatpy cuts blanks off a text.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from wechatpy import parse_message
from wechatpy.crypto import WeChatCrypto
from wechatpy.enterprise.crypto import WeChatCrypto as CorporationCrypto
from wechatpy.enterprise.parser import parse_message as parse_corporation_message
from wechatpy.messages import UnknownMessage
from wechatpy.utils import WeChatSigner

from chalicelib.schema import Message
from connectors import wechat_wire
from infra.local import simulators
from infra.local.simulators import tencent
from tests.make_samples import NOW, OPENID, WECHAT
from tests.recorded import answer_to, arrived, connector, messages_in
from tests.samples_tencent import MEMBER, WECOM, secrets

bounded = settings(max_examples=150, deadline=None)
OURS = connector("wechat", WECHAT | {"mode": "safe"}, "https://askonce.example/webhooks/inbox")
HELD = secrets(WECOM)
CORPORATION = connector(
    "wecom", {k: v for k, v in HELD.items() if k != "aes_key"}, "https://askonce.example/"
)
THEIRS = WeChatCrypto(WECHAT["token"], WECHAT["encoding_aes_key"], WECHAT["app_id"])
THEIRS_CORPORATION = CorporationCrypto(HELD["token"], HELD["aes_key"], HELD["corp_id"])
KEY = wechat_wire.aes_key(HELD["aes_key"])

#: Text that XML can hold as it is.
texts = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff"),
    max_size=60,
) | st.lists(
    st.sampled_from(["]]>", "]]", ">", "&amp;", "<b>", "中文", "😀", " ", "\n"]), max_size=8
).map("".join)
words = st.text(st.sampled_from("abcXYZ019_-"), min_size=1, max_size=20)
numbers = st.integers(1, 2**63).map(str)
coordinates = st.floats(-80, 80).map(lambda n: f"{n:.6f}")
pushes = st.one_of(
    st.fixed_dictionaries({"MsgType": st.just("text"), "Content": texts, "MsgId": numbers}),
    st.fixed_dictionaries({"MsgType": st.just("image"), "MediaId": words, "PicUrl": words,
                           "MsgId": numbers}),
    st.fixed_dictionaries({"MsgType": st.just("voice"), "MediaId": words, "Format": st.just("amr"),
                           "Recognition": texts, "MsgId": numbers}),
    st.fixed_dictionaries({"MsgType": st.sampled_from(["video", "shortvideo"]), "MediaId": words,
                           "ThumbMediaId": words, "MsgId": numbers}),
    st.fixed_dictionaries({"MsgType": st.just("location"), "Location_X": coordinates,
                           "Location_Y": coordinates, "Label": texts, "Scale": st.just("20"),
                           "MsgId": numbers}),
    st.fixed_dictionaries({"MsgType": st.just("link"), "Title": texts, "Description": texts,
                           "Url": words, "MsgId": numbers}),
    st.fixed_dictionaries({"MsgType": st.just("event"), "EventKey": texts,
                           "Event": st.sampled_from(["CLICK", "VIEW", "SCAN", "subscribe"])}),
    st.fixed_dictionaries({"MsgType": words, "Content": texts, "MsgId": numbers}),
)  # fmt: skip


def said(message: Message) -> dict[str, Any]:
    """A message as wechatpy tells it."""
    file = message.attachments[0] if message.attachments else None
    place, link, event = message.location, message.link, message.event
    return {
        "source": message.address.split(":", 2)[2],
        "target": message.account,
        "time": int(message.sent_at.timestamp()),
        "content": message.text.strip(),
        "media_id": (file and file.source) or "",
        "recognition": ((file and file.transcript) or "").strip(),
        "location": (str(place.latitude), str(place.longitude)) if place else None,
        "label": place.label.strip() if place else "",
        "title": link.title.strip() if link else "",
        "url": link.url if link else event.key.strip() if event else "",  # of a menu's page
        "key": event.key.strip() if event else "",
    }


#: wechatpy's name of what we call so, and how its value is compared.
LOOKED_AT = ("source", "target", "time", "content", "media_id", "recognition", "label", "title",
             "url", "key")  # fmt: skip


def told(theirs: Any, name: str) -> Any:
    value = getattr(theirs, name, None)
    return value.strip() if isinstance(value, str) else value


@bounded
@given(push=pushes)
def test_we_read_what_wechatpy_reads(push: dict[str, str]) -> None:
    request = arrived(simulators.wechat(_secrets(), OPENID, push, at=NOW), NOW)
    OURS.verify(request)
    query = {name: request.param(name) for name in ("msg_signature", "timestamp", "nonce")}
    opened = THEIRS.decrypt_message(request.body, *query.values())
    theirs, ours = parse_message(opened), said(messages_in(OURS, request)[0])
    if isinstance(theirs, UnknownMessage):
        return
    for name in LOOKED_AT:
        if getattr(theirs, name, None) is not None:
            assert ours[name] == told(theirs, name), name
    if push["MsgType"] == "location":
        assert [float(x) for x in ours["location"]] == [float(x) for x in theirs.location]


def _secrets() -> dict[str, str]:
    return WECHAT | {"aes_key": WECHAT["encoding_aes_key"]}


@bounded
@given(push=pushes.filter(lambda p: p["MsgType"] in ("text", "image", "voice", "link")))
def test_of_wecom_too_we_read_what_wechatpy_reads(push: dict[str, str]) -> None:
    fields = {"FromUserName": MEMBER, "AgentID": "1000002", **push}
    request = arrived(tencent.wecom(HELD, fields, at=NOW), NOW)
    query = {name: request.param(name) for name in ("msg_signature", "timestamp", "nonce")}
    opened = THEIRS_CORPORATION.decrypt_message(request.body, *query.values())
    theirs, ours = parse_corporation_message(opened), said(messages_in(CORPORATION, request)[0])
    for name in ("source", "target", "content", "media_id", "title", "url"):
        if getattr(theirs, name, None) is not None:
            assert ours[name] == told(theirs, name), name


@bounded
@given(text=st.text(min_size=1, max_size=200))
def test_of_wecom_wechatpy_and_we_open_each_other_s_envelopes(text: str) -> None:
    envelope = wechat_wire.encrypt(text.encode(), KEY, HELD["corp_id"])
    signature = wechat_wire.signature(HELD["token"], "1", "2", envelope)
    opened = THEIRS_CORPORATION.decrypt_message({"Encrypt": envelope}, signature, "1", "2")
    assert opened == text
    theirs = wechat_wire.fields(THEIRS_CORPORATION.encrypt_message(text, "2", "1").encode())
    assert wechat_wire.decrypt(theirs["Encrypt"], KEY, HELD["corp_id"]) == text.encode()


@bounded
@given(clear=st.text(st.sampled_from("0123456789"), min_size=1, max_size=30))
def test_wechatpy_hears_in_an_echo_what_we_hear(clear: str) -> None:
    probe = arrived(tencent.wecom_echo(HELD, clear, at=NOW), NOW)
    asked = [probe.param(name) for name in ("msg_signature", "timestamp", "nonce", "echostr")]
    heard = CORPORATION.handshake(probe)
    assert heard
    assert THEIRS_CORPORATION.check_signature(*asked) == heard.body == clear


@bounded
@given(parts=st.lists(st.text(max_size=30), min_size=3, max_size=4))
def test_wechatpy_signs_as_we_do(parts: list[str]) -> None:
    signer = WeChatSigner()
    signer.add_data(*parts)
    assert signer.signature == wechat_wire.signature(*parts)


@bounded
@given(text=texts)
def test_wechatpy_reads_our_passive_reply(text: str) -> None:
    request = arrived(
        simulators.wechat(_secrets(), OPENID, {"MsgType": "text", "MsgId": 1}, at=NOW), NOW
    )
    (message,) = messages_in(OURS, request)
    body = OURS.acknowledge([message], answer_to(message, text)).body
    sealed = wechat_wire.fields(body.encode())
    opened = THEIRS.decrypt_message(
        body, sealed["MsgSignature"], sealed["TimeStamp"], sealed["Nonce"]
    )
    reply = parse_message(opened)
    assert (reply.type, reply.target) == ("text", OPENID)
    assert (reply.content or "") == text.strip()
