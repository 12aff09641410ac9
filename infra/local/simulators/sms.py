"""What SMS providers do: Vonage, AWS, Alibaba Cloud, Tencent Cloud. (Twilio is next door.)"""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from connectors import sms_text, sns, vonage_proof
from connectors.channels.sms_aliyun import SHANGHAI
from connectors.channels.sms_aliyun import domestic as as_alibaba_writes_it
from connectors.signing import values
from infra.local.people import Person
from infra.local.simulators import Sent
from infra.local.ways import Line, Scene, Way

JSON = {"Content-Type": "application/json"}
#: text of SNS -> its signature: what a test's own certificate makes.
Sign = Callable[[bytes], bytes]


def _json(path: str, body: Any, headers: Mapping[str, str] | None = None) -> Sent:
    content = json.dumps(body, ensure_ascii=False).encode()
    return Sent("POST", path, JSON | dict(headers or {}), {}, content)


def _clock(at: float | None) -> float:
    return time.time() if at is None else at


# Vonage


def vonage(  # noqa: PLR0913  # a webhook has that many parts
    secret: str,
    fields: Mapping[str, str],
    *,
    method: vonage_proof.Method = "sha256",
    api_key: str = "abcd1234",
    inbox: str = "sms",
    way: str = "json",
    at: float | None = None,
    nonce: str = "",
) -> Sent:
    """A webhook of the SMS API with these fields: `json`, `form` or `get`, as the console says."""
    stated = {
        **fields,
        "api-key": api_key,
        "timestamp": str(int(_clock(at))),
        "nonce": nonce or uuid.uuid4().hex,
    }
    stated["sig"] = vonage_proof.signature(secret, stated, method)
    path = f"/webhooks/{inbox}"
    if way == "get":
        return Sent("GET", path, {}, stated)
    if way == "form":
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Sent("POST", path, headers, {}, urlencode(stated).encode())
    return _json(path, stated)


def vonage_text(
    phone: str,
    to: str,
    text: str,
    *,
    at: float | None = None,
    message_id: str = "",
    part: tuple[str, int, int] | None = None,
) -> dict[str, str]:
    """An inbound text of the SMS API, or a part of one: reference, number, total."""
    moment = datetime.fromtimestamp(_clock(at), UTC)
    return {
        "msisdn": phone.removeprefix("+"),
        "to": to.removeprefix("+"),
        "messageId": message_id or uuid.uuid4().hex[:16].upper(),
        "text": text,
        "type": "text" if sms_text.encoding(text) == "gsm7" else "unicode",
        "keyword": text.partition(" ")[0].upper(),
        "message-timestamp": moment.strftime("%Y-%m-%d %H:%M:%S"),
        **(_concatenated(*part) if part else {}),
    }


def _concatenated(reference: str, number: int, total: int) -> dict[str, str]:
    shared = {"concat": "true", "concat-ref": reference}
    return shared | {"concat-total": str(total), "concat-part": str(number)}


def vonage_message(
    secret: str,
    body: Mapping[str, Any],
    *,
    api_key: str = "abcd1234",
    inbox: str = "sms",
    at: float | None = None,
    claims: Mapping[str, Any] | None = None,
) -> Sent:
    """A webhook of the Messages API: a token signs the body's digest."""
    content = json.dumps(body, ensure_ascii=False).encode()
    stated = {
        "iat": int(_clock(at)),
        "jti": "made-up",
        "iss": "Vonage",
        "payload_hash": hashlib.sha256(content).hexdigest(),
        "api_key": api_key,
    } | dict(claims or {})
    token = token_of({"alg": "HS256", "typ": "JWT"}, stated, secret)
    headers = JSON | {"Authorization": f"Bearer {token}"}
    return Sent("POST", f"/webhooks/{inbox}", headers, {}, content)


def token_of(header: Mapping[str, Any], claims: Mapping[str, Any], secret: str) -> str:
    """A JSON web token, whatever its header says, signed with HMAC-SHA256."""
    parts = [_base64url(json.dumps(part).encode()) for part in (header, claims)]
    text = ".".join(parts)
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{_base64url(digest)}"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


# AWS


def aws_text(phone: str, to: str, text: str, *, message_id: str = "") -> dict[str, str]:
    """What End User Messaging publishes."""
    return {
        "originationNumber": phone,
        "destinationNumber": to,
        "messageKeyword": "KEYWORD_123456789012",
        "messageBody": text,
        "inboundMessageId": message_id or str(uuid.uuid4()),
        "previousPublishedMessageId": "made-up",
    }


def sns_fields(  # noqa: PLR0913  # an envelope has that many parts
    topic_arn: str,
    message: str,
    *,
    kind: str = "Notification",
    at: float | None = None,
    message_id: str = "",
    version: str = "2",
    certificate_url: str = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0.pem",
    sign: Sign | None = None,
    **more: str,
) -> dict[str, str]:
    """An envelope of SNS; unsigned without `sign`, as a Lambda function may take it."""
    moment = datetime.fromtimestamp(_clock(at), UTC)
    fields = {
        "Type": kind,
        "MessageId": message_id or str(uuid.uuid4()),
        "TopicArn": topic_arn,
        "Message": message,
        "Timestamp": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z",
        "SignatureVersion": version,
        "SigningCertURL": certificate_url,
        **more,
    }
    if sign:
        fields["Signature"] = base64.b64encode(sign(sns.signed_text(fields))).decode()
    return fields


def sns_post(fields: Mapping[str, str], *, inbox: str = "sms") -> Sent:
    """SNS posts an envelope."""
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "x-amz-sns-message-type": fields["Type"],
        "x-amz-sns-message-id": fields["MessageId"],
        "x-amz-sns-topic-arn": fields["TopicArn"],
        "User-Agent": "Amazon Simple Notification Service Agent",
    }
    content = json.dumps(dict(fields), ensure_ascii=False, indent=2).encode()
    return Sent("POST", f"/webhooks/{inbox}", headers, {}, content)


# Alibaba Cloud and Tencent Cloud


def aliyun_text(
    phone: str, text: str, *, at: float | None = None, sequence_id: str | int = ""
) -> dict[str, Any]:
    """One element of SmsUp."""
    return {
        "phone_number": as_alibaba_writes_it(phone),
        "content": text,
        "send_time": f"{datetime.fromtimestamp(_clock(at), SHANGHAI):%Y-%m-%d %H:%M:%S}",
        "dest_code": "1234",
        "sequence_id": sequence_id or str(uuid.uuid4().int)[:10],
    }


def aliyun(path_secret: str, *elements: Any, inbox: str = "sms") -> Sent:
    """SmsUp or SmsReport: an array."""
    return _json(f"/webhooks/{inbox}/{path_secret}", list(elements))


def tencent_text(
    phone: str, text: str, *, country: str = "86", at: float | None = None
) -> dict[str, Any]:
    """A reply, as Tencent tells it."""
    return {
        "extend": "12",
        "mobile": phone.removeprefix("+").removeprefix(country),
        "nationcode": country,
        "sign": "灯笼茶",
        "text": text,
        "time": int(_clock(at)),
    }


def tencent(path_secret: str, body: Any, *, inbox: str = "sms") -> Sent:
    """A reply, or an array of statuses."""
    return _json(f"/webhooks/{inbox}/{path_secret}", body)


# In the local world


def _vonage_way(scene: Scene, person: Person, line: Line) -> Any:
    """A long text comes in parts, one request each."""
    settings = scene.settings
    scene.say("sms", person.phone, line)
    found, reference = sms_text.parts(line.text), uuid.uuid4().hex[:4]
    for number, part in enumerate(found, 1):
        concat = (reference, number, len(found)) if len(found) > 1 else None
        answer = scene.post(
            vonage(
                values(settings.signature_secret)[0],
                vonage_text(person.phone, settings.number, part, part=concat),
                method=settings.signature_method,
                api_key=settings.api_key,
                inbox=scene.inbox,
            )
        )
    return answer


def _aws_way(scene: Scene, person: Person, line: Line) -> Any:
    """Published on the topic of the embedded AWS, which calls the function."""
    import boto3
    import requests

    scene.say("sms", person.phone, line)
    boto3.client("sns").publish(
        TopicArn=sns.topics(scene.settings.topic_arns)[0],
        Message=json.dumps(aws_text(person.phone, scene.settings.number, line.text)),
    )
    answer = requests.Response()
    answer.status_code = 200
    return answer


def _aliyun_way(scene: Scene, person: Person, line: Line) -> Any:
    scene.say("sms", person.phone, line)
    secret = values(scene.settings.path_secret)[0]
    return scene.post(aliyun(secret, aliyun_text(person.phone, line.text), inbox=scene.inbox))


def _tencent_way(scene: Scene, person: Person, line: Line) -> Any:
    scene.say("sms", person.phone, line)
    country = "86" if person.phone.startswith("+86") else "1"
    said = tencent_text(person.phone, line.text, country=country)
    return scene.post(tencent(values(scene.settings.path_secret)[0], said, inbox=scene.inbox))


WAYS: Mapping[str, Way] = {
    "sms_aliyun": _aliyun_way,
    "sms_aws": _aws_way,
    "sms_tencent": _tencent_way,
    "sms_vonage": _vonage_way,
}
