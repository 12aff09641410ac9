"""Samples of SMS; make_samples writes them with its own."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from connectors.channels.sms_twilio import signature as twilio_signature
from infra.local.simulators import Sent, sms
from tests.recorded import SHARED, path_secret
from tests.sns_signing import CERTIFICATE_URL, signer

Files = Iterator[tuple[str, dict[str, Any]]]

LI, NUMBER = "+8613800138000", "+14155550100"
TOPIC = "arn:aws:sns:us-east-1:123456789012:askonce-inbound"
VONAGE = {
    "api_key": "abcd1234",
    "api_secret": "made-up-api-secret",
    "signature_secret": "made-up-signature-secret-of-32-bytes",
    "number": "+447700900000",
}
AWS = {"topic_arns": TOPIC, "number": NUMBER, "region": "us-east-1"}
ALIYUN = {
    "path_secret": "made-up-path-secret-of-aliyun",
    "access_key_id": "made-up-key-id",
    "access_key_secret": "made-up-access-key-secret",
    "sign_name": "灯笼茶",
    "template_code": "SMS_71390007",
}
TENCENT = {
    "path_secret": "made-up-path-secret-of-tencent",
    "secret_id": "made-up-secret-id",
    "secret_key": "made-up-secret-key",
    "sdk_app_id": "1400006666",
    "sign_name": "灯笼茶",
    "template_id": "1110",
}
QUESTION = "你好，我的包裹到哪里了？ 📦"
ASKED: dict[str, Any] = {
    "address": f"phone:{LI}",
    "kind": "text",
    "text": QUESTION,
    "evidence": [{"address": f"phone:{LI}", "level": "verified", "source": "sms"}],
    "consent": None,
    "part": None,
}


def opted(choice: str, key: str, *, confirmed: bool) -> dict[str, Any]:
    """What a message is that is just a word of opting out or in."""
    return {
        "kind": "event",
        "event": {"name": f"opt_{choice}", "key": key},
        "consent": {"choice": choice, "confirmed": confirmed},
    }


def _sample(
    about: str, sent: Sent, settings: dict[str, Any], *expected: Any, **more: Any
) -> dict[str, Any]:
    from tests.make_samples import _sample as usual

    made = usual(about, sent, settings, *expected, **more)
    secret = path_secret(sent.path)
    if secret:  # what the core knows as the public address ends before it
        made["public_url"] = made["public_url"].removesuffix(f"/{secret}")
    return made


# Twilio


def twilio_form(form: dict[str, str], secret: str, algorithm: str = "HMAC_SHA1") -> Sent:
    """A webhook of Twilio with just these parameters."""
    from tests.make_samples import SITE

    url = f"{SITE}/webhooks/inbox"
    signed = twilio_signature(secret, url, list(form.items()), algorithm)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "X-Twilio-Signature": signed,
    }
    return Sent("POST", "/webhooks/inbox", headers, {}, urlencode(form).encode())


def _twilio() -> Files:
    from tests.make_samples import SITE, TWILIO

    token, sid = TWILIO["auth_token"], "SM00000000000000000000000000000002"
    told = {"MessageSid": sid, "AccountSid": TWILIO["account_sid"], "To": LI, "From": NUMBER}
    for status, state, code, reason in (
        ("sent", "sent", "", ""),
        ("delivered", "delivered", "", ""),
        ("read", "read", "", ""),
        ("undelivered", "failed", "30003", "the phone cannot be reached"),
        ("failed", "failed", "21610", "the customer has opted out"),
    ):
        form = told | {"MessageStatus": status, "SmsStatus": status, "SmsSid": sid}
        form |= {"ErrorCode": code} if code else {}
        became = {"external_id": sid, "state": state}
        sample = _sample(f"a status: {reason or state}", twilio_form(form, token), TWILIO, became)
        yield f"status_{status}", sample
    said = {"MessageSid": sid, "From": LI, "To": NUMBER, "NumMedia": "0"}
    for name, text, more, expected in (
        ("opt_out", " Stop. ", {}, opted("out", "STOP", confirmed=False)),
        ("opt_out_zh", "ＴＤ", {}, opted("out", "TD", confirmed=False)),
        ("opt_in", "START", {}, opted("in", "START", confirmed=False)),
        ("opt_out_answered", "STOP", {"OptOutType": "STOP"}, opted("out", "STOP", confirmed=True)),
        ("opt_in_answered", "YES", {"OptOutType": "START"}, opted("in", "YES", confirmed=True)),
        ("help_answered", "HELP", {"OptOutType": "HELP"}, {"kind": "text", "consent": None}),
        ("no_opt_out", "stop texting me", {}, {"kind": "text", "consent": None}),
    ):
        sent = twilio_form(said | {"Body": text} | more, token)
        yield name, _sample("a word", sent, TWILIO, expected | {"text": text})
    body = json.dumps({**said, "Body": QUESTION}, ensure_ascii=False)
    digest = hashlib.sha256(body.encode()).hexdigest()
    url = f"{SITE}/webhooks/inbox?bodySHA256={digest}"
    headers = {
        "Content-Type": "application/json",
        "X-Twilio-Signature": twilio_signature(token, url, []),
    }
    sent = Sent("POST", "/webhooks/inbox", headers, {"bodySHA256": digest}, body.encode())
    yield "json", _sample("JSON, signed by its digest", sent, TWILIO, ASKED | {"external_id": sid})
    key = "made-up-shared-key"
    sent = twilio_form(said | {"Body": QUESTION}, key, "HMAC_SHA256")
    sent.headers["X-Twilio-Webhooks-Signature-Settings"] = "key=made-up,algorithm=HMAC_SHA256"
    settings = TWILIO | {"shared_key": key}
    yield "shared_key", _sample("signed with a shared key", sent, settings, ASKED)


# Vonage


def _vonage() -> Files:
    from tests.make_samples import NOW

    secret, to = VONAGE["signature_secret"], VONAGE["number"]

    def text(said: str, **more: Any) -> dict[str, str]:
        usual: dict[str, Any] = {"at": NOW, "message_id": "0A0000000123ABCD"} | more
        return sms.vonage_text(LI, to, said, **usual)

    def sample(about: str, fields: dict[str, str], expected: Any, **more: Any) -> dict[str, Any]:
        settings = VONAGE | {"signature_method": more.get("method", "sha256")}
        sent = sms.vonage(secret, fields, inbox="inbox", at=NOW, nonce="made-up", **more)
        return _sample(about, sent, settings, expected)

    expected = ASKED | {
        "external_id": "0A0000000123ABCD",
        "account": to,
        "sent_at": "2026-01-01T09:00:00Z",
    }
    for way in ("get", "form", "json"):
        yield f"text_{way}", sample(f"as {way}", text(QUESTION), expected, way=way)
    for method in ("md5hash", "md5", "sha1", "sha512"):
        yield f"text_{method}", sample(f"with {method}", text(QUESTION), expected, method=method)
    part = {"of": f"{to[1:]} 5", "number": 2, "total": 3}
    fields = text("，第二部分", part=("5", 2, 3))
    yield "part", sample("a part of a longer text", fields, {"text": "，第二部分", "part": part})
    yield "opt_out", sample("a word", text("退订"), opted("out", "退订", confirmed=False))
    binary = {k: v for k, v in text("").items() if k != "text"}
    binary |= {"type": "binary", "data": "0A0B", "udh": "06050415811581"}
    yield "binary", sample("a ringtone", binary, {"kind": "unsupported", "text": ""})
    for status, state, code in (
        ("delivered", "delivered", "0"),
        ("buffered", "sent", "0"),
        ("rejected", "failed", "14"),
    ):
        told = {"msisdn": LI[1:], "to": to[1:], "messageId": "0B1", "status": status}
        told |= {"err-code": code, "scts": "2601010900", "message-timestamp": "2026-01-01 09:00:00"}
        yield f"receipt_{status}", sample("a receipt", told, {"external_id": "0B1", "state": state})
    yield from _vonage_messages(secret, to)


def _vonage_messages(secret: str, to: str) -> Files:
    from tests.make_samples import NOW

    def sample(about: str, body: dict[str, Any], expected: Any) -> dict[str, Any]:
        sent = sms.vonage_message(secret, body, inbox="inbox", at=NOW)
        return _sample(about, sent, VONAGE, expected)

    body = {
        "message_uuid": "aaaaaaaa-bbbb-4ccc-8ddd-0123456789ab",
        "channel": "sms",
        "from": LI[1:],
        "to": to[1:],
        "timestamp": "2026-01-01T08:59:59Z",
    }
    said = body | {"message_type": "text", "text": QUESTION, "sms": {"num_messages": "1"}}
    expected = ASKED | {"account": to, "sent_at": "2026-01-01T08:59:59Z"}
    yield "token_text", sample("the Messages API", said, expected)
    older = said | {"from": {"type": "sms", "number": LI[1:]}, "to": {"number": to[1:]}}
    yield "token_text_older", sample("its older form", older, expected)
    for status, state in (
        ("submitted", "sent"),
        ("delivered", "delivered"),
        ("rejected", "failed"),
    ):
        told = body | {"status": status, "error": {"title": "1340", "detail": "Too many texts"}}
        expected = {"external_id": body["message_uuid"], "state": state}
        yield f"token_status_{status}", sample("a status", told, expected)


# AWS


def aws_post(message: str, version: str = "2", **more: Any) -> Sent:
    """A notification that SNS posts, signed."""
    from tests.make_samples import NOW

    own: dict[str, Any] = {"message_id": "made-up", "at": NOW, "certificate_url": CERTIFICATE_URL}
    own |= more
    topic = own.pop("topic_arn", TOPIC)
    fields = sms.sns_fields(topic, message, version=version, sign=signer(version), **own)
    return sms.sns_post(fields, inbox="inbox")


def _aws() -> Files:
    said = sms.aws_text(LI, NUMBER, QUESTION, message_id="made-up-1")
    expected = ASKED | {
        "external_id": "made-up-1",
        "account": NUMBER,
        "sent_at": "2026-01-01T09:00:00Z",
    }
    for version in ("1", "2"):
        sent = aws_post(json.dumps(said), version)
        yield f"text_v{version}", _sample(f"signature {version}", sent, AWS, expected)
    sent = aws_post(json.dumps(said), Subject="made up")
    yield "text_subject", _sample("with a subject, which is signed too", sent, AWS, expected)
    for name, settings, confirmed in (
        ("opt_out_answered", AWS, True),
        ("opt_out_self_managed", AWS | {"self_managed_opt_outs": True}, False),
    ):
        sent = aws_post(json.dumps(said | {"messageBody": "STOP"}))
        word = opted("out", "STOP", confirmed=confirmed)
        yield name, _sample("a word that AWS knows", sent, settings, word)
    sent = aws_post(json.dumps(said | {"messageBody": "退订"}))
    word = opted("out", "退订", confirmed=False)
    yield "opt_out_zh", _sample("a word that AWS does not know", sent, AWS, word)
    for event, state in (
        ("TEXT_SENT", "sent"),
        ("TEXT_DELIVERED", "delivered"),
        ("TEXT_CARRIER_BLOCKED", "failed"),
    ):
        told = {"eventType": event, "messageId": "made-up-2", "messageStatusDescription": "Why"}
        sample = _sample("an event", aws_post(json.dumps(told)), AWS,
                         {"external_id": "made-up-2", "state": state})  # fmt: skip
        yield f"event_{event.lower()}", sample


# Alibaba Cloud and Tencent Cloud


def _aliyun() -> Files:
    from tests.make_samples import NOW

    secret = ALIYUN["path_secret"]

    def sample(about: str, elements: list[Any], *expected: Any) -> dict[str, Any]:
        return _sample(about, sms.aliyun(secret, *elements, inbox="inbox"), ALIYUN, *expected)

    asked = sms.aliyun_text(LI, QUESTION, at=NOW, sequence_id="4010698783")
    expected = ASKED | {
        "external_id": "4010698783",
        "account": "1234",
        "sent_at": "2026-01-01T09:00:00Z",
    }
    yield "text", sample("one text, in Shanghai's time", [asked], expected)
    word = sms.aliyun_text("+8613800000001", "TD", at=NOW, sequence_id=4010698784)
    batch = [asked, word, asked]
    out = opted("out", "TD", confirmed=False) | {"external_id": "4010698784"}
    yield "batch", sample("ids of both kinds; the third repeats the first", batch, expected, out)
    bare = {k: v for k, v in asked.items() if k != "sequence_id"}
    yield "no_id", sample("without an id", [bare], ASKED)
    odd = {"kind": "unsupported", "evidence": []}
    yield "odd_element", sample("one of them cannot be read", [asked, {"x": 1}], expected, odd)
    abroad = sms.aliyun_text("+447700900123", "Hi", at=NOW, sequence_id="7")
    yield "abroad", sample("from abroad", [abroad], {"address": "phone:+447700900123"})
    reports = [
        {"phone_number": LI[3:], "success": success, "err_code": code, "biz_id": f"9^{code}",
         "send_time": "2026-01-01 17:00:00", "report_time": "2026-01-01 17:00:05", "sms_size": "1"}
        for success, code in ((True, "DELIVERED"), (False, "MOBILE_NOT_ON_SERVICE"))
    ]  # fmt: skip
    yield (
        "reports",
        sample(
            "SmsReport",
            reports,
            {"external_id": "9^DELIVERED", "state": "delivered"},
            {"external_id": "9^MOBILE_NOT_ON_SERVICE", "state": "failed"},
        ),
    )


def _tencent() -> Files:
    from tests.make_samples import NOW

    secret = TENCENT["path_secret"]

    def sample(about: str, body: Any, *expected: Any) -> dict[str, Any]:
        return _sample(about, sms.tencent(secret, body, inbox="inbox"), TENCENT, *expected)

    asked = sms.tencent_text(LI, QUESTION, at=NOW)
    expected = ASKED | {"account": "12", "sent_at": "2026-01-01T09:00:00Z"}
    yield "text", sample("a reply", asked, expected)
    word = sms.tencent_text(LI, "T", at=NOW)
    yield "opt_out", sample("a word", word, opted("out", "T", confirmed=False))
    abroad = sms.tencent_text("+447700900123", "Hi", country="44", at=NOW)
    yield "abroad", sample("from abroad", abroad, {"address": "phone:+447700900123"})
    statuses = [
        {"user_receive_time": "2026-01-01 17:00:05", "nationcode": "86", "mobile": LI[3:],
         "report_status": status, "errmsg": code, "description": "made up", "sid": f"8:{status}"}
        for status, code in (("SUCCESS", "DELIVRD"), ("FAIL", "user_black"))
    ]  # fmt: skip
    yield (
        "statuses",
        sample(
            "statuses, which come to the same address",
            statuses,
            {"external_id": "8:SUCCESS", "state": "delivered"},
            {"external_id": "8:FAIL", "state": "failed"},
        ),
    )


def simulated() -> dict[str, dict[str, Any]]:
    """{file below tests/samples: its content} of all that the simulators make."""
    folders = {
        "sms_aliyun": _aliyun,
        "sms_aws": _aws,
        "sms_tencent": _tencent,
        "sms_twilio": _twilio,
        "sms_vonage": _vonage,
    }
    return {
        f"{folder}/{name}.json": content
        for folder, make in folders.items()
        for name, content in make()
    }


#: {case of generated_signed: (file, what it must give)}
RECORDED: dict[str, tuple[str, dict[str, Any]]] = {
    "vonage__sms_sig_md5hash": ("sms_vonage/recorded_md5hash", {
        "external_id": "6030BDD176C2BCA1", "address": "phone:+8613800000000",
        "text": "a=b&c 你好", "sent_at": "2026-01-02T03:04:05Z"}),
    "vonage__sms_sig_sha512": ("sms_vonage/recorded_sha512", {
        "external_id": "901BAD519ECA7EF9", "text": "a=b&c 你好"}),
}  # fmt: skip


def recorded() -> Files:
    """The same for the requests of RECORDED; nothing where the shared data is not at hand."""
    from urllib.parse import parse_qsl, urlsplit

    for case, (name, expected) in RECORDED.items():
        path = SHARED / "payloads" / "generated_signed" / f"{case}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        query = dict(parse_qsl(urlsplit(record["request"]["url"]).query))
        secret = record["secret"]
        own = {k: secret[k] for k in ("signature_secret",)} | {"signature_method": secret["method"]}
        request = {key: record["request"][key] for key in ("method", "headers", "body")}
        yield (
            f"{name}.json",
            {
                "about": record["how"],
                "source": f"{record['provider']}/{record['case']} (CC0)",
                "settings": VONAGE | own,
                "now": int(query["timestamp"]),
                "public_url": record["request"]["url"].partition("?")[0],
                "request": request | {"query": query},
                "expected": [expected],
            },
        )
