"""Every connector's way out, and its settings: what another server does to a call of ours.

Mail leaves over SMTP, whose codes have their table in tests/channels/test_email_mime.py.
"""

import json
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
import responses
from pydantic import SecretStr, ValidationError

from chalicelib.errors import DeliveryError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import Connector, HostedConnector
from chalicelib.schema import Message
from connectors.channels.sms_aliyun import international
from connectors.registry import CONNECTORS
from tests.loopback import AGAIN, NEVER, UNREADABLE, mailbox, request_errors
from tests.recorded import Sample, answer_to, forged, messages_in, mode, one_of_each, samples

pytestmark = pytest.mark.usefixtures("no_waiting")

#: {connector over HTTP: an answer that means success}
OVER_HTTP: dict[str, Any] = {"sms_twilio": {"sid": "SM1"}, "wechat": {"errcode": 0, "errmsg": "ok"}}
OVER_HTTP |= {name: {"errcode": 0} for name in ("wechat_miniprogram", "wecom", "wecom_kf")}
OVER_HTTP |= {"email_mailgun": {"id": "<1@shop.example>", "message": "Queued."}}
OVER_HTTP |= {"email_sendgrid": {}, "email_postmark": {"ErrorCode": 0, "Message": "OK"}}
#: What success is called where it is not 200.
STATUS = {"email_sendgrid": 202}
OVER_HTTP |= {
    "sms_aliyun": {"Code": "OK", "BizId": "9^1"},
    "sms_tencent": {"Response": {"SendStatusSet": [{"Code": "Ok", "SerialNo": "8:1"}]}},
    "sms_vonage": {"messages": [{"status": "0", "message-id": "0A1"}]},
}
#: Through boto3, by IAM: tests/test_sms_aws.py and tests/test_email_ses.py have theirs.
BY_IAM = {"sms_aws", "email_ses"}
ANY_URL = re.compile(".*")
each_connector = pytest.mark.parametrize("name", sorted(CONNECTORS))
each_over_http = pytest.mark.parametrize("name", sorted(OVER_HTTP))


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def an_answer(name: str) -> tuple[Connector, Message]:
    sample = samples(of=name)[0]
    connector = sample.connector()
    return connector, answer_to(messages_in(connector, sample.request)[0])


def failure(name: str) -> DeliveryError:
    """What `send` raises; the test fails with whatever is no DeliveryError."""
    connector, message = an_answer(name)
    with pytest.raises(DeliveryError) as caught:
        connector.send(message)
    return caught.value


def test_every_connector_s_way_out_is_tested() -> None:
    assert {*OVER_HTTP, *BY_IAM, "email_mime", "webchat"} == set(CONNECTORS)


@each_over_http
def test_a_message_that_was_taken_has_an_id(name: str, wire: responses.RequestsMock) -> None:
    wire.post(ANY_URL, json=OVER_HTTP[name], status=STATUS.get(name, 200))
    connector, message = an_answer(name)
    assert connector.send(message)


@pytest.mark.parametrize("status", AGAIN)
@each_over_http
def test_what_may_pass_by_itself_is_tried_again(
    name: str, status: int, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, status=status, headers={"Retry-After": "17"})
    error = failure(name)
    assert isinstance(error, RetryableError)
    assert (error.retry_after_seconds, error.uncertain) == (17.0, status in (502, 504))


@pytest.mark.parametrize("status", NEVER)
@each_over_http
def test_a_refusal_is_final(name: str, status: int, wire: responses.RequestsMock) -> None:
    wire.post(ANY_URL, status=status)
    assert isinstance(failure(name), RejectedError)


@pytest.mark.parametrize("broken", request_errors(), ids=lambda e: type(e).__name__)
@each_over_http
def test_a_broken_line_is_tried_again(
    name: str, broken: Exception, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, body=broken)
    assert isinstance(failure(name), RetryableError)


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body[:10]))
@each_over_http
def test_after_an_answer_that_cannot_be_read_it_may_have_been_sent(
    name: str, body: bytes, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, body=body)
    error = failure(name)
    assert isinstance(error, RetryableError)
    assert error.uncertain


#: {connector: the address that a call on the wire went to}
RECIPIENT: dict[str, Callable[[Sample, str], str]] = {
    "sms_twilio": lambda sample, body: "phone:" + parse_qs(body)["To"][0],
    "email_mailgun": lambda sample, body: "email:" + re.findall(r"(?m)^To: (\S+)", body)[0],
    "email_sendgrid": lambda sample, body: (
        "email:" + json.loads(body)["personalizations"][0]["to"][0]["email"]
    ),
    "email_postmark": lambda sample, body: "email:" + json.loads(body)["To"],
    "sms_aliyun": lambda sample, body: "phone:" + international(parse_qs(body)["PhoneNumbers"][0]),
    "sms_tencent": lambda sample, body: "phone:" + json.loads(body)["PhoneNumberSet"][0],
    "sms_vonage": lambda sample, body: "phone:+" + parse_qs(body)["to"][0],
    "wechat": lambda sample, body: (
        f"wechat:{sample.settings['app_id']}:{json.loads(body)['touser']}"
    ),
    "wechat_miniprogram": lambda sample, body: (
        f"wechat:{sample.settings['app_id']}:{json.loads(body)['touser']}"
    ),
    "wecom": lambda sample, body: (
        f"wecom:{sample.settings['corp_id']}:{json.loads(body)['touser']}"
    ),
    "wecom_kf": lambda sample, body: (
        f"wecom_kf:{sample.settings['corp_id']}:{json.loads(body)['touser']}"
    ),
}


@pytest.mark.parametrize(
    "sample", [s for s in samples() if s.says and s.plugin in OVER_HTTP], ids=str
)
def test_an_answer_goes_back_to_where_the_question_came_from(
    sample: Sample, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, json=OVER_HTTP[sample.plugin], status=STATUS.get(sample.plugin, 200))
    connector = sample.connector()
    message, *_ = messages_in(connector, sample.request)
    connector.send(answer_to(message))
    body = wire.calls[0].request.body
    text = body.decode() if isinstance(body, bytes) else str(body)
    assert RECIPIENT[sample.plugin](sample, text) == message.address


@pytest.mark.parametrize("sample", samples(of="email_mime"), ids=str)
def test_an_answer_by_mail_goes_back_to_its_author(sample: Sample) -> None:
    with mailbox() as box:
        connector = sample.connector({"smtp_url": box.url})
        (message,) = messages_in(connector, sample.request)
        connector.send(answer_to(message))
    assert "email:" + box.argument("RCPT") == message.address


@pytest.mark.parametrize("sample", samples(of="webchat"), ids=str)
def test_an_answer_in_web_chat_waits_for_the_visitor_who_asked(sample: Sample) -> None:
    connector = sample.connector()
    assert isinstance(connector, HostedConnector)
    (message,) = messages_in(connector, sample.request)
    assert connector.send(answer_to(message))
    assert connector.reader(sample.request) == message.address


# Settings and secrets


def secrets_of(connector: Connector) -> dict[str, list[str]]:
    """{setting: its secrets in the clear}."""
    held = {k: v if isinstance(v, tuple) else (v,) for k, v in connector.settings}
    clear = {
        k: [s.get_secret_value() for s in several if isinstance(s, SecretStr)]
        for k, several in held.items()
    }
    return {k: several for k, several in clear.items() if several}


@each_connector
def test_a_setting_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="extra"):
        samples(of=name)[0].connector({"tokn": "x"})


@each_connector
def test_an_empty_secret_is_refused(name: str) -> None:
    sample = samples(of=name)[0]
    keys = list(secrets_of(sample.connector()))
    assert keys or name in BY_IAM
    for key in keys:
        for empty in ("", ()):
            with pytest.raises(ValidationError, match=key):
                sample.connector({key: empty})


def told(act: Callable[[], Any]) -> str:
    """The error as a log may show it."""
    try:
        act()
    except (DeliveryError, SignatureError) as error:
        return "".join(traceback.format_exception(error))
    return ""


@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.plugin not in BY_IAM], ids=mode)
def test_no_secret_shows_in_settings_or_errors(
    sample: Sample, wire: responses.RequestsMock
) -> None:
    connector = sample.connector()
    (message,) = messages_in(connector, sample.request)
    shown = [repr(connector.settings), str(connector.settings)]
    broken = requests.ConnectionError("https://api.example/?access_token=the-access-token")
    for trouble in ({"status": 400}, {"status": 500}, {"body": broken}):
        wire.post(ANY_URL, **trouble)
        shown.append(told(lambda: connector.send(answer_to(message))))
    shown += [
        told(lambda one=one: connector.verify(one))  # type: ignore[misc]  # binds the loop's request
        for one in forged(sample, lambda right: ("x",))
    ]
    secrets = [s for several in secrets_of(connector).values() for s in several]
    for secret in (*secrets, "the-access-token"):
        assert not [text for text in shown if secret in text]
