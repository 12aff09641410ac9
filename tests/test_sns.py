"""SNS over HTTP: whose request it is, by every check, and what a subscription makes us do."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import responses
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import PayloadError, SignatureError
from chalicelib.ports import WebhookRequest
from connectors import sns
from infra.local.simulators import sms
from tests.make_samples import NOW
from tests.recorded import arrived, connector, later, with_header
from tests.samples_sms import AWS, TOPIC
from tests.sns_signing import CERTIFICATE, CERTIFICATE_URL, PEM, know_certificate, signer

OURS = sns.Subscription((TOPIC,))
AT = datetime.fromtimestamp(NOW, UTC)
bounded = settings(max_examples=100, deadline=None)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[responses.RequestsMock]:
    """Nothing but what a test puts there, and no certificate that is known already."""
    monkeypatch.setattr(sns, "certificates", {})
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def fields(version: str = "2", topic: str = TOPIC, **more: Any) -> dict[str, str]:
    usual: dict[str, Any] = {"at": NOW, "message_id": "m1", "certificate_url": CERTIFICATE_URL}
    made = usual | {"version": version, "sign": signer(version)} | more
    return sms.sns_fields(topic, made.pop("message", "{}"), **made)


def posted(stated: dict[str, str]) -> WebhookRequest:
    return arrived(sms.sns_post(stated), NOW)


def subscribing(kind: str = "SubscriptionConfirmation", **more: Any) -> WebhookRequest:
    url = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription"
    return posted(fields(kind=kind, SubscribeURL=url, Token="the-token", **more))


def refused(request: WebhookRequest, ours: sns.Subscription = OURS) -> None:
    with pytest.raises(SignatureError):
        ours.verify(request)


# Genuine


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    "more", [{}, {"Subject": "x"}, {"Subject": ""}, {"message": "多行\n第二行"}]
)
def test_what_sns_signed_is_taken(version: str, more: dict[str, str]) -> None:
    envelope = OURS.verify(posted(fields(version, **more)))
    assert (envelope.kind, envelope.topic_arn, envelope.message_id) == ("Notification", TOPIC, "m1")


def test_one_version_of_the_signature_may_be_demanded() -> None:
    newer = sns.Subscription((TOPIC,), "2")
    newer.verify(posted(fields("2")))
    refused(posted(fields("1")), newer)
    refused(posted(fields("2") | {"SignatureVersion": "1"}))
    refused(posted(fields("2") | {"SignatureVersion": "3"}))
    refused(posted(fields("2") | {"SignatureVersion": ""}))


def test_it_is_good_for_an_hour_around_its_time() -> None:
    request = posted(fields())
    for seconds in (-3600, 3600):
        OURS.verify(later(request, seconds))
    for seconds in (-3601, 3601, 10**7):
        refused(later(request, seconds))


# Hostile

#: facts/security.md, section 4, and more of the same.
ELSEWHERE = [
    "https://sns.us-east-1.amazonaws.com.evil.example/x.pem",
    "https://sns.eu-west-1.amazonaws.com.evil.tld/x.pem",
    "https://s3.amazonaws.com/b/x.pem",
    "https://sns.us-east-1.amazonaws.com@evil.example/x.pem",
    "https://evil.example@sns.us-east-1.amazonaws.com/x.pem",
    "http://sns.us-east-1.amazonaws.com/x.pem",
    "HTTPS://sns.us-east-1.amazonaws.com/x.pem",
    "https://SNS.us-east-1.amazonaws.com/x.pem",
    "https://sns%2eus-east-1.amazonaws.com/x.pem",
    "https://sns.us-east-1.amazonaws.com./x.pem",
    "https://sns.us-east-1.amazonaws。com/x.pem",
    "https://sns.us-east-1.amazonaws.com:443/x.pem",
    "https://sns.us-east-1.amazonaws.com:8443/x.pem",
    "https://sns.us-east-1.amazonaws.com/x.pem?y",
    "https://sns.us-east-1.amazonaws.com/x.pem#y",
    "https://sns.us-east-1.amazonaws.com/x.txt",
    "https://sns.us-east-1.amazonaws.com/a/../x.pem",
    "https://sns.us-east-1.amazonaws.com/%2e%2e/x.pem",
    "https://sns.us-east-1.amazonaws.com/?x.pem",
    "https://sns.us-east-1.amazonaws.com\\x.pem",
    "https://sns.us-east-1.amazonaws.com/x.pem\n",
    " https://sns.us-east-1.amazonaws.com/x.pem",
    "https://sns.us-east-1.amazonaws.org/x.pem",
    "https://sns.us-east-1.amazonaws.com.cn.evil.example/x.pem",
    "https://evilsns.us-east-1.amazonaws.com/x.pem",
    "https://sns.a.b.amazonaws.com/x.pem",
    "https://sns..amazonaws.com/x.pem",
    "https://sns.amazonaws.com/x.pem",
    "https://snsXus-east-1.amazonaws.com/x.pem",
    "https://169.254.169.254/x.pem",
    "file:///x.pem",
    "//sns.us-east-1.amazonaws.com/x.pem",
    "",
]


@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_certificate_elsewhere_is_never_asked_for(url: str, wire: responses.RequestsMock) -> None:
    sns.certificates[url] = CERTIFICATE  # even if it were the right one
    refused(posted(fields(certificate_url=url)))
    assert not wire.calls


@pytest.mark.parametrize(
    "url",
    [CERTIFICATE_URL, "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1a.pem"],
)
def test_sns_s_own_certificate_is_fetched_once(url: str, wire: responses.RequestsMock) -> None:
    wire.get(url, body=CERTIFICATE)
    for _ in range(3):
        OURS.verify(posted(fields(certificate_url=url)))
    assert [call.request.url for call in wire.calls] == [url]


@pytest.mark.parametrize(
    ("trouble", "status"),
    [({"status": 503}, 503), ({"body": ConnectionError()}, None), ({"status": 404}, None)],
)
def test_without_the_certificate_nothing_is_taken(
    trouble: dict[str, Any], status: int | None, wire: responses.RequestsMock
) -> None:
    import requests

    if "body" in trouble:
        trouble, status = {"body": requests.ConnectionError()}, 503
    wire.get(CERTIFICATE_URL, **trouble)
    request = posted(fields())
    refused(request)
    if status is None:
        with pytest.raises(SignatureError):
            OURS.handshake(request)
        return
    response = OURS.handshake(request)  # SNS takes 401 for a last word, and comes again after 503
    assert response is not None
    assert response.status == status


def test_a_redirect_of_the_certificate_is_not_followed(wire: responses.RequestsMock) -> None:
    wire.get(CERTIFICATE_URL, status=302, headers={"Location": "https://evil.example/x.pem"})
    refused(posted(fields()))
    assert len(wire.calls) == 1


def other_certificate(
    name: str = "sns.amazonaws.com", years: tuple[int, int] = (2025, 2035), key: Any = None
) -> bytes:
    """A certificate for another key, or for the tests' own one under another name."""
    own: Any = key or serialization.load_pem_private_key(PEM, None)
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(named)
        .public_key(own.public_key())
        .serial_number(7)
        .not_valid_before(datetime(years[0], 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(years[1], 1, 1, tzinfo=UTC))
    )
    return built.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "make",
    [
        lambda: other_certificate("evil.example"),
        lambda: other_certificate("sns.amazonaws.com.evil.example"),
        lambda: other_certificate(years=(2015, 2016)),
        lambda: other_certificate(years=(2034, 2035)),
        lambda: other_certificate(key=rsa.generate_private_key(65537, 2048)),
        lambda: other_certificate(key=ec.generate_private_key(ec.SECP256R1())),
        lambda: b"",
        lambda: b"no certificate",
        lambda: CERTIFICATE[:-80],
    ],
    ids=["name", "longer name", "past", "to come", "key", "kind of key", "empty", "text", "cut"],
)
def test_another_certificate_proves_nothing(
    make: Callable[[], bytes], wire: responses.RequestsMock
) -> None:
    wire.get(CERTIFICATE_URL, body=make())
    refused(posted(fields()))


def test_a_weak_key_proves_nothing(wire: responses.RequestsMock) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    wire.get(CERTIFICATE_URL, body=other_certificate(key=weak))
    refused(posted(fields(sign=signer("2", weak))))


@pytest.mark.parametrize(
    "topic",
    ["arn:aws:sns:us-east-1:999999999999:evil", TOPIC + "x", TOPIC[:-1], TOPIC.upper(), "", "*"],
)
def test_a_topic_that_is_not_ours_is_refused_although_sns_signed(topic: str) -> None:
    refused(posted(fields(topic=topic)))


@pytest.mark.parametrize("name", ["Message", "MessageId", "Timestamp", "Subject", "Signature"])
def test_what_is_signed_cannot_be_changed_or_left_out(name: str) -> None:
    stated = fields(Subject="x")
    refused(posted(stated | {name: stated[name] + "x"}))
    request = posted(stated)
    less = json.dumps({k: v for k, v in stated.items() if k != name}).encode()
    refused(replace(request, body=less))


def test_a_subject_may_not_be_added() -> None:
    refused(posted(fields() | {"Subject": "added"}))


@pytest.mark.parametrize(
    "other", ["SubscriptionConfirmation", "UnsubscribeConfirmation", "notification", "", "Other"]
)
def test_a_notification_is_no_message_of_another_type(other: str) -> None:
    refused(posted(fields() | {"Type": other, "Token": "t", "SubscribeURL": "u"}))


@pytest.mark.parametrize(
    "header", ["x-amz-sns-message-type", "x-amz-sns-message-id", "x-amz-sns-topic-arn"]
)
def test_headers_may_not_say_another_thing_than_the_body(header: str) -> None:
    request = posted(fields())
    right = request.header(header)
    refused(with_header(request, header, "Other"))
    refused(with_header(request, header, right, right))


def test_raw_delivery_has_no_signature_and_is_refused() -> None:
    refused(with_header(posted(fields()), "x-amz-sns-rawdelivery", "true"))
    refused(replace(posted(fields()), method="GET"))


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"7", b"{}", b"[" * 100_000, b"\xff", b'{"Type": 1}']
)
def test_a_body_that_is_no_envelope_is_refused(body: bytes) -> None:
    refused(replace(posted(fields()), body=body))
    with pytest.raises(PayloadError):
        sns.read(body)


def test_a_name_that_stands_twice_is_refused() -> None:
    body = json.dumps(fields()).encode()
    for twice in (body[:-1] + b', "Message": "forged"}', b'{"Message": "forged", ' + body[1:]):
        refused(replace(posted(fields()), body=twice))


@pytest.mark.parametrize(
    "signature",
    [
        lambda right: "",
        lambda right: right[:-4],
        lambda right: right + "=",
        lambda right: right + "\n",
        lambda right: right.swapcase(),
        lambda right: base64.b64encode(base64.b64decode(right)[::-1]).decode(),
        lambda right: base64.urlsafe_b64encode(base64.b64decode(right)).decode() + "-",
        lambda right: "签名",
    ],
)
def test_a_signature_that_is_not_exactly_right_is_refused(
    signature: Callable[[str], str],
) -> None:
    stated = fields()
    refused(posted(stated | {"Signature": signature(stated["Signature"])}))


@bounded
@given(st.data())
def test_no_bit_of_what_is_signed_can_be_flipped(data: st.DataObject) -> None:
    stated = fields(Subject="x", message="你好 😀")
    name = data.draw(st.sampled_from(["Message", "MessageId", "Subject", "Timestamp", "Signature"]))
    content = bytearray(stated[name].encode())
    at = data.draw(st.integers(0, len(content) * 8 - 1))
    content[at // 8] ^= 1 << at % 8
    changed = bytes(content).decode("utf-8", "replace")
    refused(posted(stated | {name: changed}))


@bounded
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_body_is_refused_and_raises_nothing_else(body: bytes) -> None:
    refused(replace(posted(fields()), body=body))


@pytest.mark.parametrize(
    "time",
    ["", "now", "2026-01-01", "2026-01-01T09:00:00", "2026-01-01T09:00:00+00:00",
     "2026-13-01T09:00:00.000Z", "٢٠٢٦-01-01T09:00:00.000Z"],
)  # fmt: skip
def test_a_time_that_sns_does_not_write_is_refused(time: str) -> None:
    stated = fields()
    stated["Timestamp"] = time
    stated["Signature"] = base64.b64encode(signer()(sns.signed_text(stated))).decode()
    refused(posted(stated))


# Events


def event(source: str = TOPIC, **more: str) -> WebhookRequest:
    body = json.dumps(fields(sign=None) | more).encode()
    return WebhookRequest(method="POST", body=body, received_at=AT, event_source=source)


def test_an_event_needs_no_signature_but_the_topic_that_it_says() -> None:
    assert OURS.verify(event()).topic_arn == TOPIC
    assert OURS.handshake(event()) is None
    OURS.verify(replace(event(), received_at=AT + timedelta(days=1)))  # Lambda tries for hours
    refused(event(source=TOPIC + "x"))
    refused(event(TopicArn="arn:aws:sns:us-east-1:999999999999:evil"))
    other = "arn:aws:sns:us-east-1:999999999999:evil"
    refused(event(source=other, TopicArn=other))


def test_over_http_nobody_can_say_that_it_is_an_event() -> None:
    stated = fields(sign=None) | {"event_source": TOPIC, "EventSource": "aws:sns"}
    refused(posted(stated))


# Subscriptions


class Confirming:
    """A client of SNS that notes what it is asked."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.regions: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.fault = fault

    def __call__(self, region: str) -> "Confirming":
        self.regions.append(region)
        return self

    def confirm_subscription(self, **asked: str) -> None:
        self.asked.append(asked)
        if self.fault:
            raise self.fault


def test_a_subscription_to_our_topic_is_confirmed_through_the_api_and_no_address_is_called(
    wire: responses.RequestsMock,
) -> None:
    know_certificate()
    client = Confirming()
    response = replace(OURS, client=client).handshake(subscribing())
    assert response is not None
    assert (response.status, response.body) == (200, "")
    assert client.regions == ["us-east-1"]
    assert client.asked == [
        {"TopicArn": TOPIC, "Token": "the-token", "AuthenticateOnUnsubscribe": "true"}
    ]
    assert not wire.calls


def test_a_subscription_that_could_not_be_confirmed_is_asked_for_again() -> None:
    response = replace(OURS, client=Confirming(OSError("x"))).handshake(subscribing())
    assert response is not None
    assert response.status == 503


@pytest.mark.parametrize(
    "request_",
    [
        subscribing(topic="arn:aws:sns:us-east-1:999999999999:evil"),
        subscribing(certificate_url="https://evil.example/x.pem"),
        later(subscribing(), 4000),
        subscribing(sign=signer("1")),
        subscribing(sign=None),
    ],
    ids=["topic", "certificate", "old", "signature", "no signature"],
)
def test_a_forged_subscription_is_never_confirmed(request_: WebhookRequest) -> None:
    client = Confirming()
    with pytest.raises(SignatureError):
        replace(OURS, client=client).handshake(request_)
    assert not client.asked


def test_the_end_of_a_subscription_is_heard_and_nothing_more() -> None:
    client = Confirming()
    response = replace(OURS, client=client).handshake(subscribing("UnsubscribeConfirmation"))
    assert response is not None
    assert response.status == 200
    assert not client.asked


def test_a_notification_is_no_handshake() -> None:
    assert OURS.handshake(posted(fields())) is None


def test_the_api_that_confirms_is_that_of_aws(moto_process: None) -> None:
    import boto3

    topic = boto3.client("sns", region_name="us-east-1").create_topic(Name="askonce-inbound")
    assert topic["TopicArn"] == TOPIC
    sns._client.cache_clear()
    response = OURS.handshake(subscribing())
    sns._client.cache_clear()
    assert response is not None
    assert response.status == 200


def test_the_connector_hands_its_handshake_on() -> None:
    ours = connector("sms_aws", AWS, "https://askonce.example/webhooks/inbox")
    with pytest.raises(SignatureError):
        ours.handshake(later(subscribing(), 4000))
