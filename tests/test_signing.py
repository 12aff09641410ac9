"""Freshness, equality and keys: what all signatures share."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from chalicelib.errors import ConfigurationError, SignatureError
from chalicelib.ports import WebhookRequest
from connectors.signing import StandardWebhook, basic_auth, demand_fresh, equal, equals_any, values
from tests.make_samples import NOW, STANDARD_SECRET

AT = datetime.fromtimestamp(NOW, UTC)
BODY = b'{"type": "test"}'
SIGNER = StandardWebhook(SecretStr(STANDARD_SECRET))
OTHER = StandardWebhook(SecretStr("whsec_YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlcg=="))


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_five_minutes_are_fresh(seconds: int) -> None:
    demand_fresh(str(NOW + seconds), AT)


@pytest.mark.parametrize(
    "timestamp",
    [
        str(NOW - 301),
        str(NOW + 301),
        f"0{NOW}",
        f"{NOW}.0",
        f"+{NOW}"[:10],
        f" {NOW}"[:10],
        "1_76725800",
        "١٧٦٧٢٥٨٠٠٠",
        "9" * 5000,
        "",
        "None",
    ],
)
def test_any_other_timestamp_is_refused(timestamp: str) -> None:
    with pytest.raises(SignatureError, match="timestamp"):
        demand_fresh(timestamp, AT)


def test_what_is_repeated_for_a_day_may_be_as_old_and_no_more_ahead_than_anything() -> None:
    for good in (-86400, 300):
        demand_fresh(str(NOW + good), AT, 86400)
    for bad in (-86401, 301):
        with pytest.raises(SignatureError, match="too far"):
            demand_fresh(str(NOW + bad), AT, 86400)


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [
        ("abc", "abc", True),
        ("abc", b"abc", True),
        ("签名", "签名", True),
        ("abc", "abd", False),
        ("abc", "ABC", False),
        ("abc", "", False),
        ("é", "e", False),
        ("\ud800", "?", False),
    ],
)
def test_equality_takes_whatever_comes(given: str | bytes, wanted: str | bytes, same: bool) -> None:
    assert equal(given, wanted) == same
    assert equals_any(given, ["other", wanted]) == same
    assert not equals_any(given, [])


@pytest.mark.parametrize(
    "secret", [SecretStr(""), (), (SecretStr(""),), (SecretStr("right"), SecretStr(""))]
)
def test_an_empty_secret_signs_nothing(secret: SecretStr | tuple[SecretStr, ...]) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        values(secret)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_YQ==", "no base64!", "whsec_é", "YWJj" * 4])
def test_a_key_that_is_none_or_short_is_a_configuration_error(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="Standard Webhooks") as caught:
        StandardWebhook(SecretStr(secret))
    assert secret.removeprefix("whsec_") not in str(caught.value) or secret == "whsec_"


def signed(*signers: StandardWebhook, webhook_id: str = "msg_1") -> WebhookRequest:
    """A request with the signatures of each, in order."""
    made = [signer.headers(webhook_id, AT, BODY) for signer in signers]
    together = made[0] | {"webhook-signature": " ".join(m["webhook-signature"] for m in made)}
    headers = {name: (value,) for name, value in together.items()}
    return WebhookRequest(method="POST", headers=headers, body=BODY, received_at=AT)


def with_signature(request: WebhookRequest, signature: str) -> WebhookRequest:
    return replace(request, headers={**request.headers, "webhook-signature": (signature,)})


@pytest.mark.parametrize(
    "request_", [signed(SIGNER), signed(OTHER, SIGNER), signed(*[OTHER] * 9, SIGNER)]
)
def test_one_right_signature_among_ten_is_enough(request_: WebhookRequest) -> None:
    SIGNER.verify(request_)


@pytest.mark.parametrize(
    "request_",
    [
        signed(OTHER),
        signed(*[OTHER] * 10, SIGNER),
        signed(SIGNER, webhook_id=""),
        with_signature(signed(SIGNER), "v1,"),
        with_signature(signed(SIGNER), "v1"),
        with_signature(signed(SIGNER), ","),
        with_signature(
            signed(SIGNER), signed(SIGNER).header("webhook-signature").replace("v1,", "v1a,")
        ),
        with_signature(
            signed(SIGNER), signed(SIGNER).header("webhook-signature").replace("v1,", "")
        ),
    ],
)
def test_nothing_else_is_a_signature(request_: WebhookRequest) -> None:
    with pytest.raises(SignatureError):
        SIGNER.verify(request_)


def test_two_secrets_sign_twice_so_that_the_receiver_may_rotate_too() -> None:
    both = StandardWebhook((SecretStr("bmV3IHNlY3JldCBvZiBieXRlcw=="), SecretStr(STANDARD_SECRET)))
    SIGNER.verify(signed(both))
    both.verify(signed(SIGNER))


def test_basic_authentication_is_what_the_standard_says() -> None:
    assert basic_auth("Aladdin", "open sesame") == {
        "Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    }
