"""Every connector's way out, and its settings: what another server does to a call of ours.

Mail leaves over SMTP, whose codes have their table in tests/channels/test_email_mime.py.
"""

import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import responses
from flask import Flask
from pydantic import SecretStr, ValidationError

from chalicelib.errors import DeliveryError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import Connector, HostedConnector, url_names
from chalicelib.schema import Message
from connectors.registry import CONNECTORS
from infra.local.localise import outside_addresses
from infra.local.providers import fakes
from infra.local.records import Records
from tests.loopback import AGAIN, NEVER, UNREADABLE, mailbox, request_errors
from tests.recorded import Sample, answer_to, forged, messages_in, mode, one_of_each, samples

pytestmark = pytest.mark.usefixtures("no_waiting")

#: Through boto3, by IAM: tests/test_sms_aws.py and tests/test_email_ses.py have theirs.
BY_IAM = {"sms_aws", "email_ses"}
#: Those whose provider's API the local world plays.
OVER_HTTP = set(fakes()) - BY_IAM
ANY_URL = re.compile(".*")
each_connector = pytest.mark.parametrize("name", sorted(CONNECTORS))
each_over_http = pytest.mark.parametrize("name", sorted(OVER_HTTP))


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def an_answer(name: str) -> tuple[Connector, Message]:
    sample = next(sample for sample in samples(of=name) if sample.says)
    connector = sample.connector()
    return connector, answer_to(messages_in(connector, sample.request)[0])


def failure(name: str) -> DeliveryError:
    """What `send` raises; the test fails with whatever is no DeliveryError."""
    connector, message = an_answer(name)
    with pytest.raises(DeliveryError) as caught:
        connector.send(message)
    return caught.value


@each_connector
def test_a_connector_s_way_out_is_tested(name: str) -> None:
    assert name in {*OVER_HTTP, *BY_IAM, "email_mime", "webchat"}, "nothing declares its PROVIDERS"


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


PAGE = "http://127.0.0.1:1"


class Fetching:
    """A cache that fetches a token for each call."""

    def get(self, name: str, fetch: Callable[[], tuple[str, float]], *, stale: str = "") -> str:
        return fetch()[0]


def played(sample: Sample, wire: responses.RequestsMock) -> tuple[Connector, Records]:
    """A connector whose provider the local world plays, and what the customers' phones show."""
    kind, records = CONNECTORS[sample.plugin](), Records(":memory:")
    places = outside_addresses(PAGE)[sample.plugin]
    own = {k: v for k, v in places.items() if k in url_names(kind.settings_model)}
    connector = sample.connector(own, Fetching())
    api = Flask("provider")
    api.register_blueprint(fakes()[sample.plugin](records, lambda: connector.settings))

    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        path = str(request.url).removeprefix(PAGE)
        headers = {name: str(value) for name, value in request.headers.items()}
        heard = api.test_client().open(
            path, method=request.method, headers=headers, data=request.body
        )
        return heard.status_code, dict(heard.headers), heard.data

    for method in ("GET", "POST", "PUT", "PATCH"):
        wire.add_callback(method, re.compile(f"{PAGE}/.*"), answer)
    return connector, records


@pytest.mark.parametrize(
    "sample", [s for s in samples() if s.says and s.plugin in OVER_HTTP], ids=str
)
def test_an_answer_is_taken_and_goes_back_to_where_the_question_came_from(
    sample: Sample, wire: responses.RequestsMock
) -> None:
    connector, records = played(sample, wire)
    message, *_ = messages_in(connector, sample.request)
    assert connector.send(answer_to(message, "明天发货 & <b>"))
    [line] = records.lines()
    assert message.address.endswith(f":{line['address']}")
    assert line["text"] == "明天发货 & <b>"


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
