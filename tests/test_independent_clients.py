"""Requests signed by other people's libraries are accepted, and theirs accept ours.

The simulators share code with the connectors; wechatpy, twilio, standardwebhooks and a JWT library
do not. (PyJWT is what the web chat uses itself: joserfc signs for it here too.)
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import jwt
import pytest
import responses
from joserfc import jwt as jose
from joserfc.jwk import OctKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from twilio.request_validator import RequestValidator
from wechatpy import parse_message
from wechatpy.crypto import WeChatCrypto
from wechatpy.replies import TextReply
from wechatpy.utils import WeChatSigner

from chalicelib.errors import SignatureError
from chalicelib.ports import HostedConnector, WebhookRequest
from connectors.channels.webchat import WebChat
from tests import nouns
from tests.make_samples import EMAIL, NOW, ORIGIN, STANDARD_SECRET, TWILIO, WEBCHAT, WECHAT
from tests.recorded import answer_to, connector, helpdesk, messages_in, request_of

URL = "https://hooks.example/webhooks/inbox"
AT = datetime.fromtimestamp(NOW, UTC)


def request(
    body: str | bytes, headers: dict[str, str] | None = None, query: dict[str, str] | None = None
) -> WebhookRequest:
    text = body.decode() if isinstance(body, bytes) else body
    parts = {"method": "POST", "headers": headers or {}, "query": query or {}, "body": text}
    return request_of(parts, NOW)


def refused(verify: Callable[[WebhookRequest], None], forged: WebhookRequest) -> bool:
    try:
        verify(forged)
    except SignatureError:
        return True
    return False


# WeChat, by wechatpy

DOCUMENT = (
    "<xml><ToUserName><![CDATA[gh_1]]></ToUserName><FromUserName><![CDATA[openid-1]]></FromUserName>"
    f"<CreateTime>{NOW}</CreateTime><MsgType><![CDATA[text]]></MsgType>"
    "<Content><![CDATA[退货流程是什么 😀]]></Content><MsgId>24895357298528913</MsgId></xml>"
)
CRYPTO = WeChatCrypto(WECHAT["token"], WECHAT["encoding_aes_key"], WECHAT["app_id"])


def signed_by_wechatpy(token: str) -> dict[str, str]:
    signer = WeChatSigner()
    signer.add_data(token, str(NOW), "nonce-1")
    return {"signature": signer.signature, "timestamp": str(NOW), "nonce": "nonce-1"}


def test_a_plain_push_signed_by_wechatpy_is_accepted_and_a_forged_one_refused() -> None:
    ours = connector("wechat", WECHAT | {"mode": "plain"}, URL)
    genuine = request(DOCUMENT, query=signed_by_wechatpy(WECHAT["token"]))
    ours.verify(genuine)
    assert messages_in(ours, genuine)[0].text == "退货流程是什么 😀"
    assert refused(ours.verify, request(DOCUMENT, query=signed_by_wechatpy("another-token")))


def test_a_handshake_signed_by_wechatpy_hears_its_echo() -> None:
    ours = connector("wechat", WECHAT | {"mode": "safe"}, URL)
    query = signed_by_wechatpy(WECHAT["token"]) | {"echostr": "8300363328824442818"}
    probe = request_of({"method": "GET", "headers": {}, "query": query}, NOW)
    answer = ours.handshake(probe)
    assert answer
    assert answer.body == "8300363328824442818"


def sealed_by_wechatpy(crypto: Any) -> WebhookRequest:
    envelope = crypto.encrypt_message(DOCUMENT, "nonce-1", str(NOW))
    signature = envelope.partition("<MsgSignature><![CDATA[")[2].partition("]]>")[0]
    query = signed_by_wechatpy(WECHAT["token"]) | {"msg_signature": signature}
    return request(envelope, query=query)


def test_an_envelope_sealed_by_wechatpy_is_accepted_and_a_forged_one_refused() -> None:
    ours = connector("wechat", WECHAT | {"mode": "safe"}, URL)
    genuine = sealed_by_wechatpy(CRYPTO)
    ours.verify(genuine)
    assert messages_in(ours, genuine)[0].text == "退货流程是什么 😀"
    forger = WeChatCrypto("another-token", WECHAT["encoding_aes_key"], WECHAT["app_id"])
    assert refused(ours.verify, sealed_by_wechatpy(forger))


@pytest.mark.parametrize("text", ["明天发货。", "  kept  ", "]]> <b>&amp; \n second line"])
def test_wechatpy_opens_our_passive_reply(text: str) -> None:
    ours = connector("wechat", WECHAT | {"mode": "safe"}, URL)
    (message,) = messages_in(ours, sealed_by_wechatpy(CRYPTO))
    body = ours.acknowledge([message], answer_to(message, text)).body
    parts = parse_envelope(body)
    opened = CRYPTO.decrypt_message(body, parts["MsgSignature"], parts["TimeStamp"], parts["Nonce"])
    reply = parse_message(opened)
    assert (reply.source, reply.target, reply.type) == ("gh_1", "openid-1", TextReply.type)
    assert reply._data["Content"] == text.strip()  # wechatpy cuts blanks when it reads


def parse_envelope(body: str) -> dict[str, str]:
    return {element.tag: element.text or "" for element in ElementTree.fromstring(body)}


# SMS, by twilio

FORM = {"MessageSid": "SM1", "From": "+8613800138000", "To": "+14155550100", "Body": "货呢 a+b&c= "}


def sms(token: str, url: str = URL, query: dict[str, str] | None = None) -> WebhookRequest:
    signature = RequestValidator(token).compute_signature(url, FORM)
    return request(urlencode(FORM), {"X-Twilio-Signature": signature}, query)


@pytest.mark.parametrize(
    ("url", "query"),
    [
        (URL, {}),
        (URL.replace("example/", "example:443/"), {}),
        (f"{URL}?tenant=a+b&x=1", {"tenant": "a b", "x": "1"}),
        (f"{URL}?tenant=a%20b&x=1", {"tenant": "a b", "x": "1"}),
    ],
)
def test_an_sms_signed_by_twilio_is_accepted_and_a_forged_one_refused(
    url: str, query: dict[str, str]
) -> None:
    ours = connector("sms_twilio", TWILIO, URL)
    genuine = sms(TWILIO["auth_token"], url, query)
    ours.verify(genuine)
    assert messages_in(ours, genuine)[0].text == FORM["Body"]
    assert refused(ours.verify, sms("another-token", url, query))
    assert refused(ours.verify, sms(TWILIO["auth_token"], url + "/elsewhere", query))


# Email, by standardwebhooks

MAIL = "From: Li <li@example.com>\r\nSubject: Tea\r\n\r\nWhere is my tea?\r\n"
OTHER_SECRET = "whsec_YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlcg=="


def standard(secret: str, signed: str) -> dict[str, str]:
    signature = Webhook(secret).sign("msg_1", AT, signed)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": signature,
    }


def test_a_mail_signed_by_standardwebhooks_is_accepted_and_a_forged_one_refused() -> None:
    ours = connector("email_mime", EMAIL, URL)
    envelope = json.dumps({"mail_from": "li@example.com", "dmarc": "pass"})

    def posted(secret: str, told: str = envelope) -> WebhookRequest:
        headers = standard(secret, f"{told}.{MAIL}")
        return request(MAIL, headers | {"askonce-envelope": envelope})

    ours.verify(posted(STANDARD_SECRET))
    assert messages_in(ours, posted(STANDARD_SECRET))[0].text == "Where is my tea?"
    assert refused(ours.verify, posted(OTHER_SECRET))
    assert refused(ours.verify, posted(STANDARD_SECRET, told="{}"))


# Web chat, by PyJWT and joserfc


def by_pyjwt(claims: dict[str, Any], secret: str) -> str:
    return jwt.encode(claims, secret, algorithm="HS256")


def by_joserfc(claims: dict[str, Any], secret: str) -> str:
    return jose.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))


each_library = pytest.mark.parametrize("sign", [by_pyjwt, by_joserfc])
OTHER_TOKEN_SECRET = "x" * 40


def chat() -> HostedConnector:
    ours = connector("webchat", WEBCHAT, URL)
    assert isinstance(ours, WebChat)
    return ours


def said(token: str) -> WebhookRequest:
    headers = {"Authorization": f"Bearer {token}", "Origin": ORIGIN}
    return request(json.dumps({"client_id": "line-0001", "text": "It is me."}), headers)


def asked(identity: str) -> WebhookRequest:
    return request(json.dumps({"identity": identity}), {"Origin": ORIGIN})


@each_library
def test_a_token_of_ours_is_a_plain_jwt_and_a_forged_one_is_refused(
    sign: Callable[[dict[str, Any], str], str],
) -> None:
    claims = {"aud": "askonce:inbox", "org": ORIGIN, "sub": "v1", "exp": NOW + 60}
    chat().verify(said(sign(claims, str(WEBCHAT["token_secret"]))))
    assert refused(chat().verify, said(sign(claims, OTHER_TOKEN_SECRET)))


@each_library
def test_an_identity_signed_by_the_site_is_accepted_and_a_forged_one_refused(
    sign: Callable[[dict[str, Any], str], str],
) -> None:
    claims = {"sub": "C-7", "email": "Li@example.com", "exp": NOW + 60}
    session = chat().page("session", asked(sign(claims, str(WEBCHAT["identity_secret"]))))
    (message,) = messages_in(chat(), said(json.loads(session.body)["token"]))
    assert {"external:C-7", "email:li@example.com"} < {e.address for e in message.evidence}
    with pytest.raises(SignatureError):
        chat().page("session", asked(sign(claims, OTHER_TOKEN_SECRET)))


# Helpdesks, by standardwebhooks

DESKS = {
    "webhook": (
        {"url": "https://desk.example/hook"},
        {"type": "ticket.closed", "ticket_id": "T7"},
    ),
    "sandbox": (
        {"url": "https://desk.example"},
        {"type": "closed", "ticket": "T7", "id": "E1", "at": "2026-01-01T09:00:00Z"},
    ),
}


@pytest.mark.parametrize("name", DESKS)
def test_an_event_signed_by_standardwebhooks_is_accepted_and_a_forged_one_refused(
    name: str,
) -> None:
    settings, event = DESKS[name]
    desk, body = helpdesk(name, settings | {"secret": STANDARD_SECRET}), json.dumps(event)
    genuine = request(body, standard(STANDARD_SECRET, body))
    desk.verify(genuine)
    assert desk.parse(genuine)[0].ticket_id == "T7"
    assert refused(desk.verify, request(body, standard(OTHER_SECRET, body)))


@pytest.mark.parametrize("envelope", ["plain", "cloudevents"])
def test_standardwebhooks_verifies_what_the_webhook_helpdesk_sends(envelope: str) -> None:
    settings = {"url": "https://desk.example/hook", "secret": STANDARD_SECRET, "envelope": envelope}
    with responses.RequestsMock() as wire:
        wire.post(str(settings["url"]), json={})
        desk = helpdesk("webhook", settings)
        desk.add_note("T7", "问过两次", nouns.conversation(), idempotency_key="key-1")
        sent = wire.calls[0].request
    assert isinstance(sent.body, bytes)
    told = Webhook(STANDARD_SECRET).verify(sent.body, dict(sent.headers))
    assert told.get("data", told)["text"] == "问过两次"
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(sent.body, dict(sent.headers))
