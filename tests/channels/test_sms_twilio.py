"""Twilio's peculiarities: the address that it signs, and files behind redirects."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from chalicelib.errors import PayloadError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Attachment, Message, Receipt
from connectors.channels.sms_twilio import signature
from tests.make_samples import NOW, TWILIO
from tests.recorded import answer_to, connector, messages_in, request_of, with_header

URL = "https://askonce.example/webhooks/inbox"
API = "https://api.twilio.com/2010-04-01/Accounts/AC5ef8732a3c49700934481addd5ce1659"
MEDIA = f"{API}/Messages/MM1/Media/ME1"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
FORM = {"MessageSid": "SM1", "From": "+8613800138000", "To": TWILIO["number"], "Body": "货呢?"}


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def twilio(public_url: str = URL, **settings: Any) -> Connector:
    return connector("sms_twilio", TWILIO | settings, public_url)


def signed(
    form: list[tuple[str, str]], url: str = URL, query: dict[str, str] | None = None
) -> WebhookRequest:
    """A request whose address Twilio wrote as `url`."""
    headers = {"X-Twilio-Signature": signature(TWILIO["auth_token"], url, form)}
    parts = {"method": "POST", "headers": headers, "query": query or {}, "body": urlencode(form)}
    return request_of(parts, NOW)


def sms(**more: str) -> WebhookRequest:
    return signed(list((FORM | more).items()))


def answer(text: str = "Tomorrow") -> Message:
    return answer_to(messages_in(twilio(), sms())[0], text)


# The address that it signs


@pytest.mark.parametrize(
    ("configured", "written"),
    [
        (URL, URL),
        (URL, "https://askonce.example:443/webhooks/inbox"),
        ("https://askonce.example:443/webhooks/inbox", URL),
        ("http://askonce.example/webhooks/inbox", "http://askonce.example:80/webhooks/inbox"),
        ("https://askonce.example:8443/webhooks/inbox", URL),
    ],
)
def test_the_port_may_stand_in_the_address_or_not(configured: str, written: str) -> None:
    twilio(configured).verify(signed(list(FORM.items()), written))


@pytest.mark.parametrize(
    "written",
    [
        "http://askonce.example/webhooks/inbox",
        "https://askonce.example:444/webhooks/inbox",
        "https://askonce.example/webhooks/other",
        "https://evil.example/webhooks/inbox",
        "https://askonce.example/webhooks/inbox/",
    ],
)
def test_a_signature_for_another_address_is_refused(written: str) -> None:
    with pytest.raises(SignatureError):
        twilio().verify(signed(list(FORM.items()), written))


def test_parameters_of_the_address_are_signed_too() -> None:
    url, query = f"{URL}?tenant=a%20b", {"tenant": "a b"}
    twilio().verify(signed(list(FORM.items()), url, query))
    with pytest.raises(SignatureError):
        twilio().verify(signed(list(FORM.items()), url, {"tenant": "a c"}))


def test_either_of_two_tokens_verifies_and_the_first_one_signs_calls(
    wire: responses.RequestsMock,
) -> None:
    both = twilio(auth_token=["a-new-token", TWILIO["auth_token"]])
    both.verify(sms())
    wire.post(f"{API}/Messages.json", json={"sid": "SM2"})
    both.send(answer())
    told = str(wire.calls[0].request.headers["Authorization"]).removeprefix("Basic ")
    assert base64.b64decode(told) == f"{TWILIO['account_sid']}:a-new-token".encode()


# Bodies


def json_request(body: str, digest: str) -> WebhookRequest:
    url = f"{URL}?bodySHA256={digest}"
    headers = {"X-Twilio-Signature": signature(TWILIO["auth_token"], url, [])}
    parts = {"method": "POST", "headers": headers, "query": {"bodySHA256": digest}, "body": body}
    return request_of(parts, NOW)


def test_of_a_json_body_the_digest_is_signed_and_its_parameters_are_those_of_a_form() -> None:
    body = json.dumps(FORM, ensure_ascii=False)
    request = json_request(body, hashlib.sha256(body.encode()).hexdigest())
    twilio().verify(request)
    assert messages_in(twilio(), request) == messages_in(twilio(), sms())


@pytest.mark.parametrize("body", ['{"a": 1}', "[]", "7", "", "{", '{"MessageSid": ["SM1"]}'])
def test_json_that_holds_no_message_is_a_payload_error(body: str) -> None:
    request = json_request(body, hashlib.sha256(body.encode()).hexdigest())
    twilio().verify(request)
    with pytest.raises(PayloadError):
        twilio().parse(request)


def test_a_digest_of_another_body_is_refused() -> None:
    digest = hashlib.sha256(b'{"a": 1}').hexdigest()
    with pytest.raises(SignatureError, match="bodySHA256"):
        twilio().verify(json_request('{"a": 2}', digest))


def test_of_a_repeated_parameter_the_first_counts() -> None:
    request = signed([*FORM.items(), ("Body", "forged")])
    twilio().verify(request)
    assert messages_in(twilio(), request)[0].text == "货呢?"


@pytest.mark.parametrize("missing", ["MessageSid", "From"])
def test_a_message_without_id_or_sender_is_a_payload_error(missing: str) -> None:
    with pytest.raises(PayloadError):
        messages_in(twilio(), sms(**{missing: ""}))


@pytest.mark.parametrize(
    ("said", "count"), [("2", 2), ("1", 1), ("0", 0), ("-1", 0), ("9" * 5000, 2), ("x", 0)]
)
def test_files_are_those_that_are_counted_and_there(said: str, count: int) -> None:
    files = {f"MediaUrl{n}": f"{MEDIA}{n}" for n in range(2)}
    (message,) = messages_in(twilio(), sms(NumMedia=said, **files))
    assert [file.source for file in message.attachments] == [f"{MEDIA}{n}" for n in range(count)]


# Who signed it

KEY = "made-up-shared-key-of-the-account"
SETTINGS_HEADER = "x-twilio-webhooks-signature-settings"


def with_key(algorithm: str, stated: str, key: str = KEY) -> WebhookRequest:
    """A request signed with a shared key, whose header states something of that."""
    signed_ = signature(key, URL, list(FORM.items()), algorithm)
    request = with_header(sms(), "x-twilio-signature", signed_)
    return with_header(request, SETTINGS_HEADER, stated)


@pytest.mark.parametrize("algorithm", ["HMAC_SHA1", "HMAC_SHA256"])
def test_a_shared_key_signs_as_its_header_says(algorithm: str) -> None:
    stated = f"key=webhooks_sharedkey_1,algorithm={algorithm}"
    twilio(shared_key=KEY).verify(with_key(algorithm, stated))
    twilio(shared_key=["another", KEY]).verify(
        with_key(algorithm, f"algorithm = {algorithm}, key=x")
    )


@pytest.mark.parametrize(
    ("algorithm", "stated"),
    [
        ("HMAC_SHA256", ""),
        ("HMAC_SHA256", "key=x"),
        ("HMAC_SHA256", "key=x,algorithm=HMAC_SHA1"),
        ("HMAC_SHA1", "key=x,algorithm=HMAC_SHA256"),
        ("HMAC_SHA1", "key=x,algorithm=HMAC_MD5"),
        ("HMAC_SHA1", "key=x,algorithm=none"),
    ],
)
def test_a_header_that_names_another_algorithm_is_refused(algorithm: str, stated: str) -> None:
    with pytest.raises(SignatureError):
        twilio(shared_key=KEY, auth_token="another").verify(with_key(algorithm, stated))


def test_a_shared_key_counts_only_where_it_is_configured() -> None:
    request = with_key("HMAC_SHA256", "key=x,algorithm=HMAC_SHA256")
    with pytest.raises(SignatureError):
        twilio().verify(request)
    with pytest.raises(SignatureError):
        twilio(shared_key="another").verify(request)
    repeated = with_header(request, SETTINGS_HEADER, "algorithm=HMAC_SHA256", "x")
    with pytest.raises(SignatureError):
        twilio(shared_key=KEY).verify(repeated)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(TEXTS, TEXTS, max_size=6), st.sampled_from(["HMAC_SHA1", "HMAC_SHA256"]))
def test_the_signature_is_that_of_twilio_s_library(form: dict[str, str], algorithm: str) -> None:
    theirs = RequestValidator(KEY).compute_signature(URL, form, algorithm)
    assert signature(KEY, URL, list(form.items()), algorithm) == theirs


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bit_of_a_signed_form_can_be_flipped(data: st.DataObject) -> None:
    request = sms()
    body = bytearray(request.body)
    at = data.draw(st.integers(0, len(body) * 8 - 1))
    body[at // 8] ^= 1 << at % 8
    changed = replace(request, body=bytes(body))
    try:
        twilio().verify(changed)
    except SignatureError:
        return
    assert twilio().parse(changed) == twilio().parse(request)  # %2b is %2B


# What became of what we sent


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("21610", "the customer has opted out of messages from this number (error 21610)"),
        ("30006", "the number is a landline, or its network cannot be reached (error 30006)"),
        ("39999", "undelivered (error 39999)"),
        ("", "undelivered"),
        ("x" * 3000, "undelivered"),
    ],
)
def test_a_failure_is_told_in_words(code: str, words: str) -> None:
    told = {"MessageSid": "SM2", "MessageStatus": "undelivered", "ErrorCode": code}
    (receipt,) = twilio().parse(signed(list(told.items())))
    assert isinstance(receipt, Receipt)
    assert (receipt.external_id, receipt.state, receipt.reason) == ("SM2", "failed", words)


def test_a_status_that_nobody_knows_is_nothing_and_one_of_no_message_an_error() -> None:
    told = [("MessageSid", "SM2"), ("MessageStatus", "wondering")]
    assert twilio().parse(signed(told)) == []
    with pytest.raises(PayloadError):
        twilio().parse(signed([("MessageStatus", "sent")]))


def test_a_status_over_get_is_one_too() -> None:
    query = {"MessageSid": "SM2", "MessageStatus": "delivered"}
    url = f"{URL}?{urlencode(query)}"
    request = replace(signed([], url, query), method="GET", body=b"")
    twilio().verify(request)
    (receipt,) = twilio().parse(request)
    assert isinstance(receipt, Receipt)


# Out


def test_an_answer_goes_out_from_the_configured_number(wire: responses.RequestsMock) -> None:
    wire.post(f"{API}/Messages.json", json={"sid": "SM2"})
    assert twilio().send(answer("明天 & more +")) == "SM2"
    form = dict(parse_qsl(str(wire.calls[0].request.body)))
    assert form == {
        "To": FORM["From"],
        "From": TWILIO["number"],
        "Body": "明天 & more +",
        "StatusCallback": URL,  # this inbox hears what became of it
    }


def test_a_long_answer_is_numbered_and_each_picture_goes_by_itself(
    wire: responses.RequestsMock,
) -> None:
    link = "https://bytes.example/1?signed"
    pictures = tuple(Attachment(media_type="image/png", url=link) for _ in range(2))
    long = answer("Tomorrow. " * 200).model_copy(update={"attachments": pictures})
    pieces = twilio().pieces(long)
    assert [(p.text[:6], len(p.attachments)) for p in pieces] == [
        ("(1/2) ", 0),
        ("(2/2) ", 0),
        ("", 1),
        ("", 1),
    ]
    assert "".join(p.text[6:] for p in pieces) == long.text
    wire.post(f"{API}/Messages.json", json={"sid": "SM2"})
    for piece in pieces:
        twilio().send(piece)
    form = dict(parse_qsl(str(wire.calls[-1].request.body)))
    assert (form["MediaUrl"], "Body" in form) == (link, False)
    (alone,) = twilio().pieces(answer("").model_copy(update={"attachments": pictures[:1]}))
    assert alone.attachments == pictures[:1]


def test_nothing_is_sent_where_there_is_nothing_to_say(wire: responses.RequestsMock) -> None:
    with pytest.raises(RejectedError):
        twilio().send(answer(""))
    assert not wire.calls


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"code": 21610, "message": "+8613800138000 said STOP"}', "the customer has opted out"),
        ('{"code": 21999}', r"Twilio refused it \(error 21999\)"),
        ("<html>", "HTTP 400 from api.twilio.com"),
        ("[]", "HTTP 400 from api.twilio.com"),
        ('{"code": "' + "9" * 99 + '"}', "HTTP 400 from api.twilio.com"),
    ],
)
def test_a_refusal_says_why_and_nothing_personal(
    body: str, says: str, wire: responses.RequestsMock
) -> None:
    wire.post(f"{API}/Messages.json", status=400, body=body)
    with pytest.raises(RejectedError, match=says) as caught:
        twilio().send(answer())
    assert "138" not in str(caught.value)


def test_a_text_too_long_is_refused_before_anything_is_sent(wire: responses.RequestsMock) -> None:
    with pytest.raises(RejectedError, match="1600"):
        twilio().send(answer("x" * 1601))
    assert not wire.calls


# Files


def fetch(url: str) -> bytes:
    return twilio().fetch(Attachment(media_type="image/jpeg", source=url))


def test_a_file_is_fetched_with_credentials_which_its_redirect_does_not_get(
    wire: responses.RequestsMock,
) -> None:
    wire.get(MEDIA, status=307, headers={"Location": "https://mms.twiliocdn.com/1"})
    wire.get("https://mms.twiliocdn.com/1", body=b"jpeg")
    assert fetch(MEDIA) == b"jpeg"
    assert ["Authorization" in c.request.headers for c in wire.calls] == [True, False]


@pytest.mark.parametrize(
    "place",
    [
        "https://evil.example/1",
        "http://mms.twiliocdn.com/1",
        "https://mms.twiliocdn.com.evil.example/1",
        "https://mms.twiliocdn.com@evil.example/1",
        "https://169.254.169.254/latest/meta-data/",
        "https://api.twilio.com/1",
    ],
)
def test_a_redirect_elsewhere_is_not_followed(place: str, wire: responses.RequestsMock) -> None:
    wire.get(MEDIA, status=307, headers={"Location": place})
    with pytest.raises(RejectedError):
        fetch(MEDIA)
    assert len(wire.calls) == 1


@pytest.mark.parametrize(
    "url", ["https://evil.example/x", "http://api.twilio.com/x", "https://api.twilio.com.evil/", ""]
)
def test_a_file_that_is_not_at_twilio_is_never_asked_for(
    url: str, wire: responses.RequestsMock
) -> None:
    with pytest.raises(RejectedError):
        fetch(url)
    assert not wire.calls


@pytest.mark.parametrize(("status", "error"), [(404, RejectedError), (503, RetryableError)])
def test_a_file_that_cannot_be_had_says_whether_to_try_again(
    status: int, error: type[Exception], wire: responses.RequestsMock
) -> None:
    wire.get(MEDIA, status=status)
    with pytest.raises(error):
        fetch(MEDIA)
