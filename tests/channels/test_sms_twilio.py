"""Twilio's peculiarities: the address that it signs, and files behind redirects."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
import responses

from chalicelib.errors import PayloadError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Attachment, Message
from connectors.channels.sms_twilio import signature
from tests.make_samples import NOW, TWILIO
from tests.recorded import answer_to, connector, messages_in, request_of

URL = "https://askonce.example/webhooks/inbox"
API = "https://api.twilio.com/2010-04-01/Accounts/AC5ef8732a3c49700934481addd5ce1659"
MEDIA = f"{API}/Messages/MM1/Media/ME1"
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


def test_of_a_json_body_the_digest_is_signed_and_its_words_are_none_of_ours() -> None:
    digest = hashlib.sha256(b'{"a": 1}').hexdigest()
    request = json_request('{"a": 1}', digest)
    twilio().verify(request)
    with pytest.raises(PayloadError):
        messages_in(twilio(), request)
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


# Out


def test_an_answer_goes_out_from_the_configured_number(wire: responses.RequestsMock) -> None:
    wire.post(f"{API}/Messages.json", json={"sid": "SM2"})
    assert twilio().send(answer("明天 & more +")) == "SM2"
    form = dict(parse_qsl(str(wire.calls[0].request.body)))
    assert form == {"To": FORM["From"], "From": TWILIO["number"], "Body": "明天 & more +"}


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
