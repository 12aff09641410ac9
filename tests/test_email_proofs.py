"""Who is refused: requests that Mailgun, SendGrid or Postmark did not make, or not lately."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from chalicelib.errors import ConfigurationError
from chalicelib.ports import WebhookRequest
from connectors import forms
from connectors.channels.email_mailgun import signature
from infra.local.simulators import Sent, mail
from tests import nearly_mail
from tests.mail_inboxes import (
    KEY,
    URL,
    from_mailgun,
    mailgun,
    postmark,
    refused,
    sendgrid,
    told_by_postmark,
)
from tests.make_samples import NOW
from tests.recorded import SHARED, arrived, connector, later, with_header
from tests.samples_mail import (
    LI,
    LOGIN,
    PATH,
    PATH_SECRET,
    SECRET_PATH,
    SENDGRID,
)

# Mailgun: the proof lies in the body and in the address


@pytest.mark.parametrize("name", ["timestamp", "token", "signature"])
@pytest.mark.parametrize("change", ["missing", "empty", "repeated", "other"])
def test_each_part_of_mailgun_s_proof_is_needed_once(name: str, change: str) -> None:
    proof = mail.mailgun_proof(KEY, at=NOW)
    fields = [("body-plain", "x"), ("from", LI), *proof.items()]
    changed: dict[str, list[tuple[str, str]]] = {
        "missing": [f for f in fields if f[0] != name],
        "empty": [(k, "" if k == name else v) for k, v in fields],
        "repeated": [*fields, (name, proof[name])],
        "other": [
            (k, v[:-1] + ("0" if v[-1] != "0" else "1") if k == name else v) for k, v in fields
        ],
    }
    request = arrived(from_mailgun(), NOW)
    for content_type, body in (
        mail._form([forms.Field(k, v.encode()) for k, v in changed[change]]),
        (
            "application/x-www-form-urlencoded",
            "&".join(f"{k}={v}" for k, v in changed[change]).encode(),
        ),
    ):
        headers = {"content-type": (content_type,)}
        assert refused(mailgun(), replace(request, headers=headers, body=body))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"signature": None},
        {"signature": []},
        {"signature": "x"},
        {"signature": {"timestamp": NOW, "token": "t", "signature": "s"}},
        {"signature": {"timestamp": str(NOW), "token": 7, "signature": None}},
        {"signature": {"timestamp": str(NOW), "token": "签", "signature": "签"}},
        {"signature": {"timestamp": str(NOW), "token": "\ud800", "signature": "\ud800"}},
        [],
        None,
    ],
)
def test_an_event_of_mailgun_without_a_proof_is_refused(told: Any) -> None:
    headers = {"Content-Type": "application/json"}
    body = json.dumps(told).encode()
    assert refused(mailgun(), arrived(Sent("POST", SECRET_PATH, headers, {}, body), NOW))


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[" * 100_000, b'{"signature": {"timestamp": ' + b"9" * 5000, b"a=b"]
)
@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=xYzZY",
        "multipart/form-data",
        "text/plain",
        "",
    ],
)
def test_an_unreadable_request_of_mailgun_is_refused(content_type: str, body: bytes) -> None:
    sent = Sent("POST", SECRET_PATH, {"Content-Type": content_type}, {}, body)
    assert refused(mailgun(), arrived(sent, NOW))


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200) | nearly_mail.forms_with(st.binary(max_size=50)))
@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/x-www-form-urlencoded",
        f"multipart/form-data; boundary={mail.BOUNDARY}",
    ],
)
def test_no_body_of_mailgun_verifies_by_chance(content_type: str, body: bytes) -> None:
    headers = {"Content-Type": content_type}
    assert refused(mailgun(), arrived(Sent("POST", SECRET_PATH, headers, {}, body), NOW))


@pytest.mark.parametrize("end", ["", "x", PATH_SECRET[:-1], PATH_SECRET + "/", PATH_SECRET.upper()])
def test_a_captured_signature_is_worth_nothing_without_the_address(end: str) -> None:
    request = arrived(from_mailgun(), NOW)
    assert not refused(mailgun(), request)
    assert refused(mailgun(), replace(request, path_secret=end))


def test_a_captured_signature_does_not_carry_another_mail_past_the_process_that_saw_it() -> None:
    inbox, request = mailgun(), arrived(from_mailgun(), NOW)
    assert not refused(inbox, request)
    assert not refused(inbox, later(request, 60))
    assert refused(inbox, replace(request, body=request.body + b"&body-plain=another"))


def test_a_signature_of_mailgun_made_with_another_key_is_refused() -> None:
    assert refused(mailgun(signing_key="another-key"), arrived(from_mailgun(), NOW))
    assert not refused(mailgun(signing_key=["another-key", KEY]), arrived(from_mailgun(), NOW))


def test_mailgun_s_path_secret_can_be_replaced() -> None:
    both = ["a-new-secret-of-enough-letters", PATH_SECRET]
    assert not refused(mailgun(path_secret=both), arrived(from_mailgun(), NOW))
    assert refused(mailgun(path_secret=both[0]), arrived(from_mailgun(), NOW))


@pytest.mark.parametrize("more", [{"path_secret": "too-short"}, {"domain": "a/../b"}])
def test_an_unsafe_setting_of_mailgun_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=next(iter(more))):
        mailgun(**more)


# SendGrid's signature


def signed_by_sendgrid(at: float = NOW) -> WebhookRequest:
    sent = mail.sendgrid_events([{"event": "open"}], path=PATH, at=at)
    return arrived(sent, NOW)


def other_key(curve: ec.EllipticCurve) -> tuple[ec.EllipticCurvePrivateKey, str]:
    private = ec.derive_private_key(7, curve)
    public = private.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return private, base64.b64encode(der).decode()


def test_a_body_of_sendgrid_counts_to_its_last_line_end() -> None:
    request = signed_by_sendgrid()
    assert not refused(sendgrid(), request)
    assert refused(sendgrid(), replace(request, body=request.body.rstrip()))
    assert refused(sendgrid(), replace(request, body=request.body + b" "))


def test_a_signature_by_another_key_is_refused() -> None:
    private, public = other_key(ec.SECP256R1())
    request = signed_by_sendgrid()
    made = private.sign(f"{NOW}".encode() + request.body, ec.ECDSA(SHA256()))
    name = "x-twilio-email-event-webhook-signature"
    forged = with_header(request, name, base64.b64encode(made).decode())
    assert refused(sendgrid(), forged)
    assert not refused(sendgrid(public_key=[public, SENDGRID["public_key"]]), forged)
    assert not refused(sendgrid(public_key=[public, SENDGRID["public_key"]]), request)
    assert refused(sendgrid(public_key=public), request)


@pytest.mark.parametrize("given", ["AA==", "MAYCAQECAQE=", "MAA=", "=", "签名", "A" * 5000])
def test_what_is_no_signature_is_refused(given: str) -> None:
    name = "x-twilio-email-event-webhook-signature"
    assert refused(sendgrid(), with_header(signed_by_sendgrid(), name, given))


@pytest.mark.parametrize("given", ["0", "", "1e9", str(NOW + 1), f"{NOW}.0", f" {NOW}", "１" * 10])
def test_another_timestamp_is_refused(given: str) -> None:
    name = "x-twilio-email-event-webhook-timestamp"
    assert refused(sendgrid(), with_header(signed_by_sendgrid(), name, given))


def test_what_sendgrid_repeats_after_two_days_is_taken() -> None:
    assert not refused(sendgrid(), later(signed_by_sendgrid(), 2 * 24 * 3600))
    assert refused(sendgrid(), later(signed_by_sendgrid(), 4 * 24 * 3600))


@pytest.mark.parametrize(
    "key", ["A" * 120, other_key(ec.SECP384R1())[1], "-----BEGIN PUBLIC KEY-----" + "A" * 90]
)
def test_a_key_that_is_none_is_a_wrong_setting(key: str) -> None:
    with pytest.raises(ConfigurationError, match="public_key"):
        sendgrid(public_key=key)


def test_a_key_may_be_pem() -> None:
    pem = f"-----BEGIN PUBLIC KEY-----\n{SENDGRID['public_key']}\n-----END PUBLIC KEY-----\n"
    assert not refused(sendgrid(public_key=pem), signed_by_sendgrid())


def test_without_a_key_there_is_no_inbox() -> None:
    with pytest.raises(ValidationError, match="public_key"):
        connector("email_sendgrid", {k: v for k, v in SENDGRID.items() if k != "public_key"}, URL)


# Published vectors


def vector(name: str) -> dict[str, Any]:
    path = SHARED / "vectors" / "vectors.json"
    if not path.exists():
        pytest.skip("the folder shared/data is not at hand")
    found = json.loads(path.read_text(encoding="utf-8"))
    return next(dict(v) for v in found if v["name"] == name)


def test_the_mailgun_signature_is_the_published_one() -> None:
    told = vector("mailgun")
    assert signature(**told["inputs"]) == told["expected"]


@pytest.mark.parametrize("name", ["sendgrid_ecdsa", "sendgrid_ecdsa_without_trailing_crlf"])
def test_the_published_request_of_sendgrid_verifies_to_its_last_byte(name: str) -> None:
    told = vector(name)
    inputs = told["inputs"]
    request = WebhookRequest(
        method="POST",
        headers={
            "x-twilio-email-event-webhook-signature": (inputs["signature"],),
            "x-twilio-email-event-webhook-timestamp": (inputs["timestamp"],),
        },
        body=inputs["body"].encode(),
        received_at=datetime.fromtimestamp(int(inputs["timestamp"]), UTC),
    )
    assert refused(sendgrid(public_key=inputs["public_key"]), request) != told["expected"]


# Postmark signs nothing


@pytest.mark.parametrize(
    ("more", "path", "login", "taken"),
    [
        ({}, SECRET_PATH, LOGIN, True),
        ({}, SECRET_PATH, "", False),
        ({}, SECRET_PATH, "postmark:another", False),
        ({}, SECRET_PATH, LOGIN[:-1], False),
        ({}, PATH, LOGIN, False),
        ({}, f"{PATH}/x", LOGIN, False),
        ({"basic_auth": None}, SECRET_PATH, "", True),
        ({"basic_auth": None}, PATH, LOGIN, False),
        ({"path_secret": None}, PATH, LOGIN, True),
        ({"path_secret": None}, PATH, "", False),
        ({"path_secret": None}, PATH, "postmark:", False),
        ({"basic_auth": ["postmark:a-new-password", LOGIN]}, SECRET_PATH, LOGIN, True),
        ({"basic_auth": ["postmark:a-new-password"]}, SECRET_PATH, LOGIN, False),
    ],
)
def test_every_secret_of_postmark_s_address_is_demanded(
    more: dict[str, Any], path: str, login: str, taken: bool
) -> None:
    request = arrived(mail.postmark(told_by_postmark(), path=path, login=login), NOW)
    assert refused(postmark(**more), request) != taken


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"basic_auth": None, "path_secret": None}, "signs nothing"),
        ({"basic_auth": "no-colon-in-here-at-all"}, "name:password"),
        ({"basic_auth": ":password-without-name"}, "name:password"),
        ({"basic_auth": "a:b"}, "basic_auth"),
        ({"path_secret": "short"}, "path_secret"),
    ],
)
def test_postmark_has_no_open_mode(more: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        postmark(**more)
