"""Amazon SNS: what proves that a request is ours, and what to do about its subscriptions.

Messages:   https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
Signature:  https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
Subscribe:  https://docs.aws.amazon.com/sns/latest/api/API_ConfirmSubscription.html

A right signature proves only that somebody's topic sent it: the topic must be one of ours. No
address out of a request is ever called, but the certificate's, once it is certain that it is SNS's
own; a subscription is confirmed through the API. Where SNS calls a Lambda function by itself, IAM
is the proof, and the event names the topic.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from chalicelib.errors import PayloadError, RejectedError, RetryableError, SignatureError
from chalicelib.once import once
from chalicelib.ports import WebhookRequest, WebhookResponse
from connectors import http
from connectors.signing import equal

TOLERANCE_SECONDS = 3600
_ARN = r"^arn:aws(-cn|-us-gov)?:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$"
TopicArn = Annotated[str, Field(pattern=_ARN)]
TopicArns = TopicArn | Annotated[tuple[TopicArn, ...], Field(min_length=1)]
SignatureVersion = Literal["1", "2"]

_CERTIFICATE_URL = re.compile(
    r"https://(sns\.[a-z0-9-]{3,}\.amazonaws\.com(?:\.cn)?)/[A-Za-z0-9_-]{1,128}\.pem"
)
_SIGNERS = re.compile(r"sns(\.[a-z0-9-]{3,})?\.amazonaws\.com(\.cn)?")
_SUBSCRIBING = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
#: Type -> what is signed, in this order. Subject only where there is one.
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _SUBSCRIBING,
    "UnsubscribeConfirmation": _SUBSCRIBING,
}
#: Header -> the field that says the same.
_REPEATED = {
    "x-amz-sns-message-type": "Type",
    "x-amz-sns-message-id": "MessageId",
    "x-amz-sns-topic-arn": "TopicArn",
}
_MAX_CERTIFICATE_BYTES = 16 * 1024
_MAX_CERTIFICATES = 8


@dataclass(frozen=True)
class Envelope:
    """What SNS puts around a message."""

    kind: str
    topic_arn: str
    message_id: str
    message: str
    sent_at: datetime
    token: str = ""


def topics(arns: TopicArns) -> tuple[str, ...]:
    """The topics as a tuple."""
    return (arns,) if isinstance(arns, str) else arns


#: Address -> certificate. There is a new one a year or so.
certificates: dict[str, bytes] = {}


def certificate(url: str) -> bytes:
    """The certificate at an address that was checked. RetryableError, RejectedError."""
    if url not in certificates:
        found = http.download(url, hosts=(url.split("/")[2],), max_bytes=_MAX_CERTIFICATE_BYTES)
        if len(certificates) >= _MAX_CERTIFICATES:
            certificates.clear()
        certificates[url] = found
    return certificates[url]


class _NoCertificateError(SignatureError):
    """It cannot be told now whether the request is genuine: SNS should send it again."""


@dataclass(frozen=True)
class Subscription:
    """An endpoint of ours under some topics."""

    topic_arns: tuple[str, ...]
    #: Refuses the other one; None takes both.
    signature_version: SignatureVersion | None = None
    #: region -> a client of SNS.
    client: Callable[[str], Any] | None = None

    def verify(self, request: WebhookRequest) -> Envelope:
        """The envelope, if SNS sent exactly this, lately, from a topic of ours. SignatureError."""
        if request.event_source:
            return self._verified_event(request)
        if request.method != "POST" or request.headers.get("x-amz-sns-rawdelivery"):
            raise SignatureError("the message was delivered raw: nothing signs it")
        fields = _fields(request.body)
        for header, name in _REPEATED.items():
            if request.headers.get(header) and request.header(header) != fields.get(name):
                raise SignatureError(f"{header} says another thing than the body")
        self._demand_ours(fields)
        envelope = _envelope(fields)
        if abs((request.received_at - envelope.sent_at).total_seconds()) > TOLERANCE_SECONDS:
            raise SignatureError("the message is too old")
        self._demand_signature(fields, request.received_at)
        return envelope

    def _verified_event(self, request: WebhookRequest) -> Envelope:
        fields = _fields(request.body)
        self._demand_ours(fields)
        if not equal(request.event_source, fields["TopicArn"]):
            raise SignatureError("the event comes from another topic than it says")
        return _envelope(fields)

    def _demand_ours(self, fields: Mapping[str, str]) -> None:
        if fields.get("Type") not in _SIGNED:
            raise SignatureError("the type of the message is none of SNS's")
        if fields.get("TopicArn") not in self.topic_arns:
            raise SignatureError("the topic is none of ours")

    def _demand_signature(self, fields: Mapping[str, str], now: datetime) -> None:
        version = fields.get("SignatureVersion", "")
        if version not in ("1", "2") or self.signature_version not in (None, version):
            raise SignatureError("the version of the signature is not taken")
        url = fields.get("SigningCertURL", "")
        if not _CERTIFICATE_URL.fullmatch(url):
            raise SignatureError("the certificate is not at SNS")
        try:
            signature = base64.b64decode(fields.get("Signature", ""), validate=True)
        except (binascii.Error, ValueError):
            raise SignatureError("the signature is no base64") from None
        if not equal(
            base64.b64encode(signature), fields.get("Signature", "")
        ):  # the one way to write it
            raise SignatureError("the signature is no plain base64")
        try:
            pem = certificate(url)
        except RetryableError as error:
            raise _NoCertificateError(f"the certificate cannot be had: {error}") from None
        except RejectedError as error:
            raise SignatureError(f"the certificate cannot be had: {error}") from None
        demand_signed(pem, signature, signed_text(fields), version, now)

    # Setting up

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        """Confirm a subscription to a topic of ours; None for a notification. SignatureError.

        503 where we cannot tell now, since SNS takes 401 for a last word.
        """
        if request.event_source:
            return None
        try:
            envelope = self.verify(request)
        except _NoCertificateError:
            return WebhookResponse(status=503)
        if envelope.kind == "Notification":
            return None
        if envelope.kind == "SubscriptionConfirmation" and not self._confirmed(envelope):
            return WebhookResponse(status=503)
        return WebhookResponse()

    def _confirmed(self, envelope: Envelope) -> bool:
        region = envelope.topic_arn.split(":")[3]
        client = (self.client or _client)(region)
        try:
            client.confirm_subscription(
                TopicArn=envelope.topic_arn,
                Token=envelope.token,
                AuthenticateOnUnsubscribe="true",
            )
        except Exception:  # noqa: BLE001  # whatever AWS says: it is not confirmed
            return False
        return True


@once
def _client(region: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
    return boto3.client("sns", region_name=region, config=config)


def read(body: bytes) -> Envelope:
    """The envelope in a body that was verified. PayloadError."""
    try:
        return _envelope(_fields(body))
    except SignatureError as error:
        raise PayloadError(str(error)) from None


def _fields(body: bytes) -> dict[str, str]:
    """The envelope's texts. SignatureError for what cannot be one, or says a thing twice."""
    import json

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name is repeated")
        return found

    try:
        stated = json.loads(body.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise SignatureError("the body is no JSON") from None
    if not isinstance(stated, dict):
        raise SignatureError("the body is no JSON object")
    return {name: value for name, value in stated.items() if isinstance(value, str)}


def _envelope(fields: Mapping[str, str]) -> Envelope:
    missing = [n for n in ("Message", "MessageId", "Timestamp", "TopicArn") if n not in fields]
    if missing:
        raise SignatureError(f"{missing[0]} is missing")
    return Envelope(
        kind=fields.get("Type", ""),
        topic_arn=fields["TopicArn"],
        message_id=fields["MessageId"],
        message=fields["Message"],
        sent_at=_moment(fields["Timestamp"]),
        token=fields.get("Token", ""),
    )


def _moment(text: str) -> datetime:
    """`2026-01-02T03:04:05.678Z`; SNS writes no other form."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", text, re.ASCII):
        raise SignatureError("the time is no time of SNS")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise SignatureError("the time is no time of SNS") from None


def signed_text(fields: Mapping[str, str]) -> bytes:
    """What SNS signs: `name LF value LF`, in an order of its own. SignatureError."""
    kind = fields.get("Type", "")
    lines = []
    for name in _SIGNED[kind]:
        if name in fields:
            lines.append(f"{name}\n{fields[name]}\n")
        elif name != "Subject":
            raise SignatureError(f"{name} is missing")
    return "".join(lines).encode("utf-8", "surrogatepass")


def demand_signed(pem: bytes, signature: bytes, text: bytes, version: str, now: datetime) -> None:
    """SignatureError unless SNS's certificate, valid now, verifies the signature.

    The chain above it is TLS's: the certificate came from SNS's own host.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    try:
        found = x509.load_pem_x509_certificate(pem)
        names = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        key = found.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError("the certificate cannot be read") from None
    if not any(_SIGNERS.fullmatch(str(name.value)) for name in names):
        raise SignatureError("the certificate is not SNS's")
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        raise SignatureError("the certificate is not valid at this time")
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 2048:
        raise SignatureError("the certificate's key is not strong enough")
    hashed = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303  # version 1 is SHA-1
    try:
        key.verify(signature, text, padding.PKCS1v15(), hashed)
    except InvalidSignature:
        raise SignatureError("the signature does not match") from None
