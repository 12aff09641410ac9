"""Vonage: what signs its two APIs, texts in parts, receipts, and the ways out."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import PayloadError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message, Receipt
from connectors import vonage_proof
from infra.local.simulators import sms
from tests.make_samples import NOW
from tests.recorded import answer_to, arrived, connector, later, with_header, with_param
from tests.samples_sms import LI, VONAGE

SECRET, NUMBER = str(VONAGE["signature_secret"]), str(VONAGE["number"])
URL = "https://askonce.example/webhooks/inbox"
METHODS: tuple[vonage_proof.Method, ...] = ("md5hash", "md5", "sha1", "sha256", "sha512")
bounded = settings(max_examples=150, deadline=None)
names = st.text(st.characters(categories=["L", "N"], include_characters="-"), min_size=1)
params = st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"])), max_size=8)


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def vonage(**more: Any) -> Connector:
    return connector("sms_vonage", VONAGE | more, URL)


def text(said: str = "货呢? a=b&c", **more: Any) -> dict[str, str]:
    return sms.vonage_text(LI, NUMBER, said, at=NOW, message_id="0A1", **more)


def signed(fields: dict[str, str] | None = None, **more: Any) -> WebhookRequest:
    return arrived(sms.vonage(SECRET, fields or text(), at=NOW, nonce="n", **more), NOW)


def tokened(body: dict[str, Any] | None = None, **more: Any) -> WebhookRequest:
    said = {
        "message_uuid": "u1",
        "channel": "sms",
        "message_type": "text",
        "from": LI[1:],
        "to": NUMBER[1:],
        "text": "货呢?",
        "timestamp": "2026-01-01T08:59:59Z",
    }
    return arrived(sms.vonage_message(SECRET, body or said, at=NOW, **more), NOW)


def refused(request: WebhookRequest, **more: Any) -> None:
    with pytest.raises(SignatureError):
        vonage(**more).verify(request)


# The signature of the SMS API


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["get", "form", "json"])
def test_every_method_verifies_whichever_way_the_text_comes(
    method: vonage_proof.Method, way: str
) -> None:
    request = signed(method=method, way=way)
    vonage(signature_method=method).verify(request)
    for other in set(METHODS) - {method}:  # the method is the inbox's, never the request's
        refused(request, signature_method=other)


@bounded
@given(params, st.sampled_from(["md5", "sha1", "sha256", "sha512"]))
def test_the_signature_is_that_of_vonage_s_library(
    fields: dict[str, str], method: vonage_proof.Method
) -> None:
    """What its `Auth.sign_params` does with the same parameters."""
    import hmac

    hasher = hmac.new(SECRET.encode(), digestmod=method)
    for name in sorted(fields):
        value = fields[name].replace("&", "_").replace("=", "_")
        hasher.update(f"&{name}={value}".encode())
    assert vonage_proof.signature(SECRET, fields, method) == hasher.hexdigest()


@pytest.mark.parametrize("way", ["get", "form", "json"])
@pytest.mark.parametrize(
    "name", ["text", "msisdn", "to", "messageId", "timestamp", "nonce", "type"]
)
def test_no_parameter_can_be_changed_added_or_left_out(way: str, name: str) -> None:
    fields = text() | {"api-key": "abcd1234", "timestamp": str(NOW), "nonce": "n"}
    fields["sig"] = vonage_proof.signature(SECRET, fields, "sha256")
    for forged in (
        fields | {name: fields[name] + "x"},
        {k: v for k, v in fields.items() if k != name},
        fields | {"added": "x"},
        fields | {"sig": ""},
        {k: v for k, v in fields.items() if k != "sig"},
        fields | {"sig": fields["sig"].upper()},
    ):
        refused(_posed(forged, way))
    vonage().verify(_posed(fields, way))


def _posed(fields: dict[str, str], way: str) -> WebhookRequest:
    from urllib.parse import urlencode

    request = signed(way=way)
    if way == "get":
        return replace(request, query=tuple(fields.items()))
    body = urlencode(fields) if way == "form" else json.dumps(fields)
    return replace(request, body=body.encode())


def test_a_repeated_parameter_is_refused_in_every_way() -> None:
    got = signed(way="get")
    refused(replace(got, query=(*got.query, ("text", "forged"))))
    refused(with_param(got, "sig", got.param("sig"), got.param("sig")))
    form = signed(way="form")
    refused(replace(form, body=form.body + b"&text=forged"))
    posted = signed(way="json")
    refused(replace(posted, body=posted.body[:-1] + b', "text": "forged"}'))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{}", b"[]", b'{"a": {"b": 1}}', b'{"a": null}', b'{"a": 1.5}', b"\xff", b"a"],
)
def test_a_body_without_a_signature_is_refused(body: bytes) -> None:
    refused(replace(signed(), body=body))


def test_a_request_is_good_for_as_long_as_vonage_repeats_it_or_as_is_set() -> None:
    request, longest = signed(), 25 * 3600
    vonage().verify(later(request, longest))
    vonage().verify(later(request, -300))
    refused(later(request, longest + 1))
    refused(later(request, -301))
    vonage(tolerance_seconds=300).verify(later(request, 300))
    refused(later(request, 301), tolerance_seconds=300)


def test_another_account_is_refused_although_it_shares_the_secret() -> None:
    refused(signed(api_key="another"))
    refused(tokened(api_key="another"))


@bounded
@given(st.data())
def test_no_bit_of_a_signed_text_can_be_flipped(data: st.DataObject) -> None:
    request = signed()
    body = bytearray(request.body)
    at = data.draw(st.integers(0, len(body) * 8 - 1))
    body[at // 8] ^= 1 << at % 8
    changed = replace(request, body=bytes(body))
    try:
        vonage().verify(changed)
    except SignatureError:
        return
    assert vonage().parse(changed) == vonage().parse(request)  # a blank between fields


# The token of the Messages API


def test_the_token_is_what_others_make_and_read() -> None:
    import vonage_jwt

    request = tokened()
    token = request.header("authorization").removeprefix("Bearer ")
    assert vonage_jwt.verify_signature(token, SECRET)
    claims = {
        "iat": NOW,
        "payload_hash": hashlib.sha256(request.body).hexdigest(),
        "api_key": "abcd1234",
    }
    made = jwt.encode(claims, SECRET, algorithm="HS256")
    vonage().verify(with_header(request, "authorization", f"Bearer {made}"))


def test_the_body_is_what_the_token_says() -> None:
    request = tokened()
    vonage().verify(request)
    refused(replace(request, body=request.body + b" "))
    refused(replace(request, body=b""))
    refused(tokened(claims={"payload_hash": ""}))
    refused(tokened(claims={"payload_hash": None}))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_is_refused(algorithm: str) -> None:
    request = tokened()
    claims = jwt.decode(
        request.header("authorization").removeprefix("Bearer "),
        options={"verify_signature": False},
    )
    key = SECRET * 2
    made = jwt.encode(claims, key, algorithm=algorithm)
    refused(with_header(request, "authorization", f"Bearer {made}"), signature_secret=key)


@pytest.mark.parametrize("algorithm", ["none", "None", "RS256", "", None, 7, ["HS256"]])
def test_a_header_that_names_another_algorithm_is_refused(algorithm: Any) -> None:
    request = tokened()
    claims = {
        "iat": NOW,
        "api_key": "abcd1234",
        "payload_hash": hashlib.sha256(request.body).hexdigest(),
    }
    token = sms.token_of({"alg": algorithm}, claims, SECRET)
    refused(with_header(request, "authorization", f"Bearer {token}"))
    unsigned = token.rpartition(".")[0] + "."
    refused(with_header(request, "authorization", f"Bearer {unsigned}"))


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": NOW - 25 * 3600 - 1},
        {"iat": NOW + 301},
        {"iat": None},
        {"iat": "soon"},
        {"iat": True},
        {"exp": NOW - 1},
        {"exp": "never"},
        {"api_key": None},
    ],
)
def test_a_token_of_another_time_or_account_is_refused(claims: dict[str, Any]) -> None:
    refused(tokened(claims=claims))


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Bearer a.b", "Bearer a.b.c", "Basic {0}", "{0}", "bearer {0}"],
)
def test_an_authorization_that_is_no_token_is_refused(value: str) -> None:
    request = tokened()
    token = request.header("authorization").removeprefix("Bearer ")
    refused(with_header(request, "authorization", value.format(token)))


@bounded
@given(st.data())
def test_no_bit_of_a_token_can_be_flipped(data: st.DataObject) -> None:
    request = tokened()
    token = bytearray(request.header("authorization").encode())
    at = data.draw(st.integers(len("Bearer ") * 8, len(token) * 8 - 1))
    token[at // 8] ^= 1 << at % 8
    refused(with_header(request, "authorization", token.decode("utf-8", "replace")))


# What they say


def one(request: WebhookRequest) -> Any:
    (found,) = vonage().parse(request)
    return found


def test_a_part_names_its_message_and_opts_nobody_out() -> None:
    found = one(signed(text("STOP", part=("7", 2, 2))))
    assert isinstance(found, Message)
    assert found.part is not None
    assert (found.part.number, found.part.total) == (2, 2)
    assert found.consent is None


@pytest.mark.parametrize("part", [("7", 3, 2), ("7", 0, 2), ("7", 1, 300)])
def test_a_part_that_cannot_be_one_is_a_payload_error(part: tuple[str, int, int]) -> None:
    with pytest.raises(PayloadError):
        vonage().parse(signed(text(part=part)))


def test_the_one_part_of_a_message_is_the_message() -> None:
    assert one(signed(text(part=("7", 1, 1)))).part is None


@pytest.mark.parametrize(
    ("status", "state"),
    [("accepted", "sent"), ("delivered", "delivered"), ("expired", "failed"), ("failed", "failed")],
)
def test_a_receipt_says_what_became_of_a_text(status: str, state: str) -> None:
    told = {"messageId": "0B1", "status": status, "err-code": "2", "msisdn": LI[1:]}
    found = one(signed(told))
    assert isinstance(found, Receipt)
    assert (found.external_id, found.state) == ("0B1", state)
    assert found.reason == ("the phone is off or without a network" if state == "failed" else "")


def test_a_status_that_nobody_knows_is_nothing() -> None:
    assert vonage().parse(signed({"messageId": "0B1", "status": "unknown"})) == []
    assert vonage().parse(tokened({"message_uuid": "u1", "status": "soon"})) == []


@pytest.mark.parametrize("more", [{"channel": "whatsapp"}, {"from": None}, {"message_uuid": ""}])
def test_what_is_no_sms_is_a_payload_error(more: dict[str, Any]) -> None:
    body = {"message_uuid": "u1", "channel": "sms", "message_type": "text", "from": "1", "to": "2"}
    with pytest.raises(PayloadError):
        vonage().parse(tokened(body | more))


# Out


def answer(said: str = "Tomorrow") -> Message:
    return answer_to(one(signed()), said)


def test_the_sms_api_is_told_the_encoding_and_where_receipts_go(
    wire: responses.RequestsMock,
) -> None:
    wire.post(
        "https://rest.nexmo.com/sms/json",
        json={"messages": [{"status": "0", "message-id": "0A1"}, {"status": "0"}]},
    )
    assert vonage().send(answer("明天")) == "0A1"
    form = {k: v[0] for k, v in parse_qs(str(wire.calls[0].request.body)).items()}
    assert form["type"] == "unicode"
    assert (form["to"], form["from"], form["text"]) == (LI[1:], NUMBER[1:], "明天")
    assert (form["status-report-req"], form["callback"]) == ("1", URL)
    vonage().send(answer("Tomorrow"))
    assert parse_qs(str(wire.calls[1].request.body))["type"] == ["text"]


def test_the_messages_api_sends_where_it_is_set(wire: responses.RequestsMock) -> None:
    wire.post("https://api.nexmo.com/v1/messages", json={"message_uuid": "u9"}, status=202)
    assert vonage(api="messages").send(answer()) == "u9"
    told = json.loads(wire.calls[0].request.body or b"")
    assert (told["channel"], told["to"], told["text"]) == ("sms", LI[1:], "Tomorrow")


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"messages": [{"status": "1"}]}, RetryableError),
        ({"messages": [{"status": "5"}]}, RetryableError),
        ({"messages": [{"status": "7"}]}, RejectedError),
        ({"messages": [{"status": "9"}]}, RejectedError),
        ({"messages": [{}]}, RejectedError),
        ({"messages": [{"status": "0"}, {"status": "1"}]}, RejectedError),
        ({"messages": []}, RetryableError),
        ({"messages": [7]}, RetryableError),
        ({}, RetryableError),
    ],
)
def test_an_answer_that_is_no_yes_says_whether_to_try_again(
    told: Any, error: type[Exception], wire: responses.RequestsMock
) -> None:
    wire.post("https://rest.nexmo.com/sms/json", json=told)
    with pytest.raises(error):
        vonage().send(answer())


def test_a_long_answer_goes_out_in_numbered_pieces() -> None:
    long = answer("明天发货。" * 300)
    pieces = [piece.text for piece in vonage().pieces(long)]
    assert [p[:6] for p in pieces] == ["(1/2) ", "(2/2) "]
    assert "".join(p[6:] for p in pieces) == long.text
    with pytest.raises(RejectedError):
        vonage().send(long)
    assert list(vonage().pieces(answer())) == [answer()]
