"""Published signature vectors, and whole signed requests with their known verdict.

Read from the shared data (its README says where each comes from); skipped where that is absent.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import SecretStr

from chalicelib.errors import PayloadError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message
from connectors import wechat_wire
from connectors.channels.sms_twilio import signature as twilio_signature
from connectors.signing import StandardWebhook
from tests.recorded import SHARED, connector, heard_by, messages_in, request_of

VECTORS = SHARED / "vectors" / "vectors.json"
SIGNED = SHARED / "payloads" / "generated_signed"
ABSENT = not VECTORS.exists()
absent = pytest.mark.skipif(ABSENT, reason="the folder shared/data is not at hand")
pytestmark = absent


# Vectors


def vectors() -> dict[str, tuple[dict[str, Any], str]]:
    found = [] if ABSENT else json.loads(VECTORS.read_text(encoding="utf-8"))
    return {v["name"]: (v["inputs"], v["expected"]) for v in found}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("wechat_oa_plain", ("token", "timestamp", "nonce")),
        ("wecom_url_verify_signature", ("token", "timestamp", "nonce", "echostr")),
        ("wechat_aes_reply_signature", ("token", "timestamp", "nonce", "encrypt")),
        ("wecom_message_signature", ("token", "timestamp", "nonce", "encrypt")),
    ],
)
def test_the_wechat_signature_is_the_published_one(name: str, parts: tuple[str, ...]) -> None:
    inputs, expected = vectors()[name]
    assert wechat_wire.signature(*(inputs[part] for part in parts)) == expected


def test_the_wechat_envelope_opens_to_the_published_text() -> None:
    inputs, expected = vectors()["wecom_url_verify_plain"]
    _, receiver = vectors()["wecom_url_verify_receiveid"]
    key = wechat_wire.aes_key(inputs["encoding_aes_key"])
    assert wechat_wire.decrypt(inputs["echostr"], key, receiver) == expected.encode()


def test_a_published_wechat_message_opens() -> None:
    inputs, receiver = vectors()["wecom_message_receiveid"]
    key = wechat_wire.aes_key(inputs["encoding_aes_key"])
    document = wechat_wire.decrypt(inputs["encrypt"], key, receiver)
    assert wechat_wire.fields(document)["Content"] == "test"


def test_the_wechat_envelope_is_made_as_published() -> None:
    inputs, expected = vectors()["wechat_aes_encrypt"]
    key = wechat_wire.aes_key(inputs["encoding_aes_key"])
    message, prefix = inputs["message"].encode(), inputs["random16"].encode()
    assert wechat_wire.encrypt(message, key, inputs["receiveid"], prefix) == expected


def test_the_twilio_signature_is_the_published_one() -> None:
    inputs, expected = vectors()["twilio_form"]
    pairs = list(inputs["params"].items())
    assert twilio_signature(inputs["token"], inputs["url"], pairs) == expected


def test_the_digest_of_a_twilio_body_is_the_known_one() -> None:
    inputs, expected = vectors()["twilio_body_sha256"]
    assert hashlib.sha256(inputs["body"].encode()).hexdigest() == expected


def test_the_standard_webhooks_signature_is_the_published_one() -> None:
    inputs, expected = vectors()["standard_webhooks"]
    at = datetime.fromtimestamp(int(inputs["timestamp"]), UTC)
    signer = StandardWebhook(SecretStr(inputs["secret"]))
    headers = signer.headers(inputs["id"], at, inputs["body"].encode())
    assert headers["webhook-signature"] == expected


# Signed requests

#: {case that we judge otherwise: why}
DEVIATIONS: dict[str, str] = {}
#: Fields of a message that the expectation states and the message does not keep.
NOT_KEPT = {"PicUrl", "dedupe_key"}
KINDS = {"shortvideo": "video", "voice": "audio"}


def records(*providers: str, stating: str = "verify") -> list[Any]:
    """Signed requests of some providers whose expectation states something, as parameters."""
    read = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SIGNED.glob("*.json"))]
    ours = [r for r in read if r["provider"] in providers and stating in r["expected"]]
    return [pytest.param(r, id=name_of(r)) for r in ours]


def name_of(record: Any) -> str:
    return f"{record['provider']}/{record['case']}"


def request_in(record: Any) -> WebhookRequest:
    """The request, at the time that it carries."""
    query = dict(parse_qsl(urlsplit(record["request"]["url"]).query))
    now = record["expected"].get("now") or int(query.get("timestamp", 0))
    return request_of({"body": "", **record["request"], "query": query}, now)


def connector_for(record: Any) -> Connector:
    """The connector, set up with the record's secrets."""
    secret, url = record["secret"], record["request"]["url"].partition("?")[0]
    if record["provider"] == "twilio":
        token = secret.get("auth_token", "there is none")
        settings = {"account_sid": "AC12", "auth_token": token, "number": "+14155550100"}
        settings |= {"shared_key": secret["shared_key"]} if "shared_key" in secret else {}
        return connector("sms_twilio", settings, url)
    usual = "plain" if record["case"].startswith("hostile") else "safe"
    settings = {
        "app_id": secret["appid"],
        "app_secret": "made-up",
        "token": secret["token"],
        "encoding_aes_key": secret["encoding_aes_key"],
        "mode": record["expected"].get("mode", usual).replace("compat", "compatible"),
    }
    return connector("wechat", settings, url)


def answered(record: Any) -> str | None:
    """What a request that is accepted hears, '' where that is for later; None if refused."""
    return heard_by(connector_for(record), request_in(record))


@pytest.mark.parametrize("record", records("wechat-oa", "twilio"))
def test_the_verdict_is_the_known_one(record: Any) -> None:
    wanted = record["expected"]["verify"] and name_of(record) not in DEVIATIONS
    assert (answered(record) is not None) == wanted
    if wanted:
        assert answered(record) == record["expected"].get("response_body", "")


@pytest.mark.parametrize("record", records("standard-webhooks"))
def test_a_standard_webhook_verifies(record: Any) -> None:
    StandardWebhook(SecretStr(record["secret"]["secret"])).verify(request_in(record))


@pytest.mark.parametrize("record", records("wechat-oa", stating="decrypted"))
def test_an_envelope_opens_to_the_known_text(record: Any) -> None:
    key = wechat_wire.aes_key(record["secret"]["encoding_aes_key"])
    sealed = wechat_wire.fields(request_in(record).body)["Encrypt"]
    document = wechat_wire.decrypt(sealed, key, record["secret"]["appid"])
    assert document.decode() == record["expected"]["decrypted"]


def wechat_fields(message: Message) -> dict[str, Any]:
    """A message in WeChat's words."""
    file = message.attachments[0] if message.attachments else None
    return {
        "msg_type": message.kind.value,
        "from": message.address.rpartition(":")[2],
        "to": message.account,
        "create_time": int(message.sent_at.timestamp()),
        "msg_id": message.external_id,
        "Content": message.text,
        "MediaId": file and file.source,
        "Recognition": file and file.transcript,
        "Label": message.location and message.location.label,
        "Location_X": message.location and str(message.location.latitude),
        "Location_Y": message.location and str(message.location.longitude),
        "Url": message.link and message.link.url,
        "Title": message.link.title if message.link else file and file.name,
        "event": message.event and message.event.name,
        "event_key": message.event and message.event.key,
    }


@pytest.mark.parametrize("record", records("wechat-oa", stating="parsed"))
def test_a_wechat_message_has_the_known_fields(record: Any) -> None:
    (message,) = messages_in(connector_for(record), request_in(record))
    wanted = {k: v for k, v in record["expected"]["parsed"].items() if k not in NOT_KEPT}
    wanted["msg_type"] = KINDS.get(wanted["msg_type"], wanted["msg_type"])
    if "event" in wanted:
        wanted["event"] = wanted["event"].lower()
    found = wechat_fields(message)
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("record", records("wechat-oa", stating="parsed"))
def test_a_wechat_message_is_known_again_by_what_the_documentation_says(record: Any) -> None:
    (message,) = messages_in(connector_for(record), request_in(record))
    parsed = record["expected"]["parsed"]
    if parsed["dedupe_key"] == "MsgId":
        assert message.external_id == parsed["msg_id"]
    else:
        wanted = "{from}-{create_time}-{event}-{event_key}".format(**parsed)
        assert message.external_id == wanted


@pytest.mark.parametrize("record", records("wechat-oa", stating="parse"))
def test_a_hostile_wechat_body_is_a_payload_error(record: Any) -> None:
    with pytest.raises(PayloadError):
        messages_in(connector_for(record), request_in(record))


@pytest.mark.parametrize(
    "record", [p for p in records("twilio", stating="parsed") if p.values[0]["expected"]["verify"]]
)
def test_an_sms_has_the_known_fields(record: Any) -> None:
    (message,) = messages_in(connector_for(record), request_in(record))
    assert record["expected"]["parsed"] == {
        "id": message.external_id,
        "from": message.address.removeprefix("phone:"),
        "to": message.account,
        "text": message.text,
        "media": [file.source for file in message.attachments],
    }
