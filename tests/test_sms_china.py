"""Alibaba Cloud and Tencent Cloud: secret addresses, numbers, arrays, and calls signed by hand."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from chalicelib.errors import PayloadError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Kind, Message, Receipt
from connectors.channels import sms_aliyun, sms_tencent
from infra.local.simulators import sms
from tests.make_samples import NOW
from tests.recorded import answer_to, arrived, connector
from tests.samples_sms import ALIYUN, LI, TENCENT

BOTH = {"sms_aliyun": ALIYUN, "sms_tencent": TENCENT}
URL = "https://askonce.example/webhooks/inbox"
bounded = settings(max_examples=100, deadline=None)
each_of_both = pytest.mark.parametrize("name", sorted(BOTH))


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def made(name: str, **more: Any) -> Connector:
    return connector(name, BOTH[name] | more, URL)


def asked(name: str, text: str = "货呢?", **more: Any) -> WebhookRequest:
    secret = str(BOTH[name]["path_secret"])
    if name == "sms_aliyun":
        return arrived(sms.aliyun(secret, sms.aliyun_text(LI, text, at=NOW, **more)), NOW)
    return arrived(sms.tencent(secret, sms.tencent_text(LI, text, at=NOW) | more), NOW)


def said(name: str, body: Any) -> list[Any]:
    request = replace(asked(name), body=json.dumps(body).encode())
    return list(made(name).parse(request))


# The secret address


@each_of_both
def test_only_the_secret_that_ends_the_address_opens_it(name: str) -> None:
    request = asked(name)
    made(name).verify(request)
    right = request.path_secret
    for wrong in (
        "",
        right[:-1],
        right + "x",
        right.upper(),
        right + "/",
        "签名",
        "None",
        "\ud800",
    ):
        with pytest.raises(SignatureError):
            made(name).verify(replace(request, path_secret=wrong))
    elsewhere = replace(request, path_secret="", query=(("k", right),))
    with pytest.raises(SignatureError):
        made(name).verify(elsewhere)


@each_of_both
def test_a_secret_that_can_be_guessed_is_refused(name: str) -> None:
    for short in ("", "x" * 15, ()):
        with pytest.raises(ValidationError, match="path_secret"):
            made(name, path_secret=short)
    made(name, path_secret=["x" * 16, "y" * 16])


# What they say


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("13800138000", "+8613800138000"),
        ("19912345678", "+8619912345678"),
        ("8613800138000", "+8613800138000"),
        ("+8613800138000", "+8613800138000"),
        ("008613800138000", "+8613800138000"),
        ("0044770090012", "+44770090012"),
        ("447700900123", "+447700900123"),
        ("12025550123", "+12025550123"),  # no mobile number of China begins with 120
        ("14155550123", "+14155550123"),
        ("10086", "+10086"),
    ],
)
def test_a_number_that_alibaba_writes_is_e164_here(written: str, number: str) -> None:
    assert sms_aliyun.international(written) == number


@pytest.mark.parametrize("number", ["+8613800138000", "+447700900123", "+85291234567"])
def test_a_number_goes_to_alibaba_and_back(number: str) -> None:
    assert sms_aliyun.international(sms_aliyun.domestic(number)) == number


@pytest.mark.parametrize(
    ("written", "country", "number"),
    [
        ("13800138000", "86", "+8613800138000"),
        ("13800138000", "+86", "+8613800138000"),
        ("+8613800138000", "86", "+8613800138000"),
        ("+8613800138000", "", "+8613800138000"),
        ("7700900123", "44", "+447700900123"),
        ("", "86", ""),
    ],
)
def test_a_number_that_tencent_writes_is_e164_here(written: str, country: str, number: str) -> None:
    assert sms_tencent.international(written, country) == number


def test_of_an_array_each_element_counts_for_itself() -> None:
    good = sms.aliyun_text(LI, "货呢?", at=NOW, sequence_id="1")
    odd: list[Any] = [
        7,
        None,
        "x",
        [],
        {},
        {"phone_number": LI},
        {"content": "x"},
        good | {"content": 7},
    ]
    found = said("sms_aliyun", [*odd, good, good])
    assert [m.text for m in found if m.kind is Kind.TEXT] == ["货呢?"]
    kept = [m for m in found if m.kind is Kind.UNSUPPORTED]
    assert [json.loads(m.raw.content) for m in kept] == odd
    assert not any(m.evidence for m in kept)
    assert len({m.address for m in found}) == len(found)


@pytest.mark.parametrize("body", [7, "x", None, {"a": 1}, [7], [{}, []], [0] * 1001])
@each_of_both
def test_what_holds_nothing_to_read_is_a_payload_error(name: str, body: Any) -> None:
    with pytest.raises(PayloadError):
        said(name, body)


@each_of_both
def test_an_empty_array_says_nothing(name: str) -> None:
    assert said(name, []) == []


def test_a_time_that_cannot_be_read_is_that_of_arrival() -> None:
    element = sms.aliyun_text(LI, "x", sequence_id="1")
    for time in ("", "soon", "2026-13-01 00:00:00", "0001-01-01 00:00:00", 7, None):
        (found,) = said("sms_aliyun", [element | {"send_time": time}])
        assert found.sent_at == datetime.fromtimestamp(NOW, UTC)
    for moment in ("", "soon", "9" * 12, None, -1):
        (found,) = said("sms_tencent", sms.tencent_text(LI, "x") | {"time": moment})
        assert found.sent_at == datetime.fromtimestamp(NOW, UTC)


def test_ids_of_either_kind_are_the_same_id() -> None:
    ids = [
        said("sms_aliyun", [sms.aliyun_text(LI, "x", at=NOW, sequence_id=i)])[0].id
        for i in (4010698783, "4010698783")
    ]
    assert ids[0] == ids[1]


@each_of_both
def test_without_an_id_what_it_says_is_the_id(name: str) -> None:
    body = json.loads(asked(name).body)
    element = body[0] if isinstance(body, list) else body
    element.pop("sequence_id", None)

    def external_id(**more: Any) -> str:
        one = element | more
        (found,) = said(name, [one] if isinstance(body, list) else one)
        assert isinstance(found, Message)
        return found.external_id

    text = "content" if name == "sms_aliyun" else "text"
    assert external_id() == external_id()
    assert len({external_id(), external_id(**{text: "another"})}) == 2


@bounded
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["phone_number", "content", "send_time", "sequence_id", "success", "biz_id",
                         "mobile", "nationcode", "text", "time", "sid", "report_status"]),
        inner, max_size=6),
))  # fmt: skip
def test_any_json_is_read_or_a_payload_error(body: Any) -> None:
    for name in BOTH:
        try:
            found = said(name, body)
        except PayloadError:
            continue
        assert all(isinstance(one, Message | Receipt) for one in found)


def test_a_failure_is_told_in_words() -> None:
    report = {"success": False, "err_code": "MOBILE_IN_BLACK", "biz_id": "9"}
    (found,) = said("sms_aliyun", [report])
    assert found.reason.startswith("the customer is on a list of those who want no messages")
    status = {"report_status": "FAIL", "errmsg": "user_black", "sid": "8", "description": "x"}
    (found,) = said("sms_tencent", [status])
    assert found.reason.startswith("the customer is on a list of those who want no messages")


# Out


def answer(name: str, text: str = "明天发货") -> Message:
    (message,) = made(name).parse(asked(name))
    assert isinstance(message, Message)
    return answer_to(message, text)


def test_alibaba_gets_the_template_filled_and_the_call_signed(
    wire: responses.RequestsMock,
) -> None:
    wire.post("https://dysmsapi.aliyuncs.com/", json={"Code": "OK", "BizId": "9^1"})
    assert made("sms_aliyun").send(answer("sms_aliyun", "明天 & +*~")) == "9^1"
    form = dict(parse_qsl(str(wire.calls[0].request.body)))
    signed = form.pop("Signature")
    secret = str(ALIYUN["access_key_secret"])
    assert signed == sms_aliyun.signature(secret, "POST", form)
    assert json.loads(form["TemplateParam"]) == {"text": "明天 & +*~"}
    assert (form["PhoneNumbers"], form["SignName"]) == ("13800138000", "灯笼茶")


def test_tencent_s_calls_are_signed_as_its_library_signs_them() -> None:
    from tencentcloud.common.abstract_client import AbstractClient

    at, body = datetime(2026, 1, 1, tzinfo=UTC), '{"中文": 1}'.encode()
    ours = sms_tencent.signed_headers("id", "key", host="sms.example", body=body, at=at)
    request = SimpleNamespace(
        method="POST",
        uri="/",
        data=body,
        header={
            "Content-Type": ours["Content-Type"],
            "Host": "sms.example",
            "X-TC-Timestamp": str(int(at.timestamp())),
        },
    )
    theirs = AbstractClient._get_tc3_signature(None, {}, request, "2026-01-01", "sms", "key")
    assert ours["Authorization"].endswith(f"Signature={theirs}")


def test_tencent_gets_the_template_filled(wire: responses.RequestsMock) -> None:
    sent = {"Response": {"SendStatusSet": [{"Code": "Ok", "SerialNo": "8:1"}]}}
    wire.post("https://sms.tencentcloudapi.com/", json=sent)
    assert made("sms_tencent").send(answer("sms_tencent")) == "8:1"
    request = wire.calls[0].request
    told = json.loads(request.body or b"")
    assert (told["PhoneNumberSet"], told["TemplateParamSet"]) == ([LI], ["明天发货"])
    assert request.headers["X-TC-Action"] == "SendSms"


def tencent_says(code: str) -> dict[str, Any]:
    return {"Response": {"Error": {"Code": code, "Message": "x"}}}


@pytest.mark.parametrize(
    ("name", "told", "error"),
    [
        ("sms_aliyun", {"Code": "isv.BUSINESS_LIMIT_CONTROL"}, RetryableError),
        ("sms_aliyun", {"Code": "isp.SYSTEM_ERROR"}, RetryableError),
        ("sms_aliyun", {"Code": "isv.BLACK_LIST"}, RejectedError),
        ("sms_aliyun", {"Code": "isv.NEW_ONE"}, RejectedError),
        ("sms_aliyun", {}, RetryableError),
        ("sms_tencent", tencent_says("RequestLimitExceeded.UinLimitExceeded"), RetryableError),
        ("sms_tencent", tencent_says("InternalError.Timeout"), RetryableError),
        ("sms_tencent", tencent_says("FailedOperation.PhoneNumberInBlacklist"), RejectedError),
        ("sms_tencent", tencent_says("AuthFailure.SignatureFailure"), RejectedError),
        ("sms_tencent", {"Response": {"SendStatusSet": [{"Code": "Bad.X"}]}}, RejectedError),
        ("sms_tencent", {"Response": {"SendStatusSet": [{}]}}, RetryableError),
        ("sms_tencent", {"Response": {"SendStatusSet": []}}, RetryableError),
        ("sms_tencent", {"Response": 7}, RetryableError),
        ("sms_tencent", {}, RetryableError),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_yes_says_whether_to_try_again(
    name: str, told: Any, error: type[Exception], wire: responses.RequestsMock
) -> None:
    wire.post(str(made(name).settings.api_url) + "/", json=told)  # type: ignore[attr-defined]
    with pytest.raises(error):
        made(name).send(answer(name))


def test_a_refusal_of_alibaba_says_why(wire: responses.RequestsMock) -> None:
    wire.post("https://dysmsapi.aliyuncs.com/", status=400, json={"Code": "isv.AMOUNT_NOT_ENOUGH"})
    with pytest.raises(RejectedError, match="the account has no credit left"):
        made("sms_aliyun").send(answer("sms_aliyun"))


@each_of_both
def test_an_answer_longer_than_the_variable_goes_out_in_numbered_pieces(name: str) -> None:
    ours = made(name, max_characters=35)
    long = answer(name, "您的包裹明天发货，请您耐心等待。" * 5)
    pieces = [piece.text for piece in ours.pieces(long)]
    assert len(pieces) > 2
    assert all(len(piece) <= 35 for piece in pieces)
    assert "".join(piece.partition(") ")[2] for piece in pieces) == long.text
    with pytest.raises(RejectedError, match="35"):
        ours.send(long)
