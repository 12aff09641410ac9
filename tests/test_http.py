"""Calls to other people's servers: what each answer means, and where we never go."""

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import responses
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import RejectedError, RetryableError
from connectors import http
from tests.loopback import AGAIN, NEVER, UNREADABLE

API = "https://api.twilio.com/x"
HOSTS = ("api.twilio.com", "127.0.0.1:8700")
pytestmark = pytest.mark.usefixtures("no_waiting")
bounded = settings(max_examples=200, deadline=None)


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


# What an answer means


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17.0),
        ("0", 0.0),
        ("99999999999999999999", 999999999.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("١٧", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str, seconds: float | None) -> None:
    assert http.retry_after_seconds(value) == seconds


def test_a_date_to_come_is_a_number_of_seconds() -> None:
    assert (http.retry_after_seconds("Mon, 01 Jan 2999 00:00:00 GMT") or 0) > 1e9


@bounded
@given(st.text())
def test_any_retry_after_is_a_wait_or_nothing(value: str) -> None:
    seconds = http.retry_after_seconds(value)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_2xx_is_a_success(status: int) -> None:
    http.judge_status(status, {}, "desk.example")


@pytest.mark.parametrize("status", AGAIN)
def test_a_status_that_may_pass_is_retryable(status: int) -> None:
    with pytest.raises(RetryableError, match=f"HTTP {status} from desk.example") as caught:
        http.judge_status(status, {"Retry-After": "17"}, "desk.example")
    assert caught.value.retry_after_seconds == 17.0
    assert caught.value.uncertain == (status in (502, 504))


@pytest.mark.parametrize("status", [*NEVER, 301, 302, 304, 501, 505])
def test_any_other_status_is_final(status: int) -> None:
    with pytest.raises(RejectedError, match=f"HTTP {status} from desk.example"):
        http.judge_status(status, {}, "desk.example")


@pytest.mark.parametrize("body", UNREADABLE)
def test_an_answer_without_a_json_object_is_somebody_else_s(body: bytes) -> None:
    with pytest.raises(RetryableError) as caught:
        http.Answer(200, {}, body).json()
    assert caught.value.uncertain


# One call, and its second try


@pytest.mark.parametrize(
    ("repeatable", "trouble", "tries"),
    [
        (True, {"status": 500}, 3),
        (False, {"status": 500}, 1),
        (True, {"status": 500, "headers": {"Retry-After": "9"}}, 1),
        (True, {"status": 404}, 1),
        (True, {"body": requests.ReadTimeout()}, 3),
        (False, {"body": requests.ReadTimeout()}, 1),
        (False, {"body": requests.ConnectTimeout()}, 3),
        (False, {"body": requests.ConnectionError("reset")}, 1),
    ],
)
def test_only_what_cannot_act_twice_is_tried_at_once_again(
    repeatable: bool, trouble: dict[str, Any], tries: int, wire: responses.RequestsMock
) -> None:
    wire.post(API, **trouble)
    with pytest.raises((RetryableError, RejectedError)):
        http.call("POST", API, json={}, repeatable=repeatable)
    assert len(wire.calls) == tries


@pytest.mark.parametrize(
    ("broken", "uncertain"),
    [
        (requests.ConnectTimeout(), False),
        (requests.ReadTimeout(), True),
        (requests.ConnectionError("reset by peer"), True),
        (requests.exceptions.ChunkedEncodingError(), True),
    ],
)
def test_a_broken_call_says_whether_it_may_have_acted(
    broken: Exception, uncertain: bool, wire: responses.RequestsMock
) -> None:
    wire.post(API, body=broken)
    with pytest.raises(RetryableError) as caught:
        http.call("POST", API)
    assert caught.value.uncertain == uncertain


def test_a_server_that_is_not_there_was_not_called() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        http.call("POST", f"http://127.0.0.1:{port}/?token=secret")
    assert not caught.value.uncertain


def test_a_call_is_never_redirected(wire: responses.RequestsMock) -> None:
    wire.post(API, status=307, headers={"Location": "https://evil.example/"})
    with pytest.raises(RejectedError):
        http.call("POST", API, headers={"Authorization": "Bearer x"})
    assert len(wire.calls) == 1


def test_an_endless_answer_is_cut_off(wire: responses.RequestsMock) -> None:
    wire.get(API, body=b"x" * (http.MAX_ANSWER_BYTES + 1))
    with pytest.raises(RejectedError, match="over"):
        http.call("GET", API)


# Where we fetch from


@pytest.mark.parametrize(
    "url",
    [
        "https://api.twilio.com/2010-04-01/Media/ME1",
        "https://API.twilio.com/x?y=1#z",
        "http://127.0.0.1:8700/media/1",
    ],
)
def test_a_file_on_a_listed_host_may_be_fetched(url: str) -> None:
    http.demand_listed(url, HOSTS)


#: facts/security.md, section 4: addresses that were tried on others.
ELSEWHERE = [
    "https://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::1]:8700/",
    "http://127.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://0/",
    "http://localhost/",
    "http://localhost./",
    "http://127.0.0.1/",
    "http://127.0.0.1:8701/",
    "http://127.0.0.1:87000/",
    "https://api.twilio.com.evil.example/",
    "https://evil.example/api.twilio.com",
    "https://evil.example?api.twilio.com",
    "https://evil.example#api.twilio.com",
    "https://api.twilio.com@evil.example/",
    "https://evil.example@api.twilio.com/",
    "https://:secret@api.twilio.com/",
    "https://@api.twilio.com/",
    "https://api.twilio.com\\@evil.example/",
    "https://evil.example\\@api.twilio.com/",
    "https:\\\\evil.example/",
    "https://api.twilio.com./",
    "https://api%2etwilio%2ecom/",
    "https://api。twilio。com/",
    "https://api\uff0etwilio.com/",
    "https://api.twi\tlio.com/",
    "https://api.twilio.com\n/",
    " https://api.twilio.com/",
    "https://api.twilio.com:0/",
    "https://api.twilio.com:444/",
    "https://api.twilio.com:x/",
    "https://xn--api.twilio.com/",
    "http://api.twilio.com/",
    "ftp://api.twilio.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:8700/",
    "javascript:alert(1)",
    "//api.twilio.com/",
    "api.twilio.com",
    "https://",
    "https://[",
    "",
]


@pytest.mark.parametrize("url", ELSEWHERE)
def test_no_other_address_is_ever_fetched(url: str) -> None:
    with pytest.raises(RejectedError):
        http.download(url, hosts=HOSTS)


pieces = st.sampled_from(
    ["https://", "http://", "api.twilio.com", "127.0.0.1:8700", "evil.example", *"@:/\\?#[].%\t;&"]
)


@bounded
@given(st.lists(pieces | st.text(max_size=2), max_size=8).map("".join))
def test_the_library_that_fetches_reads_the_same_host_as_we_do(url: str) -> None:
    try:
        http.demand_listed(url, HOSTS)
    except RejectedError:
        return
    there = urlsplit(requests.Request("GET", url).prepare().url or "")
    assert there.netloc in HOSTS
    assert not there.username


# Downloads


def test_a_file_may_be_redirected_once_and_without_the_credentials(
    wire: responses.RequestsMock,
) -> None:
    wire.get(API, status=302, headers={"Location": "https://cdn.example/1"})
    wire.get("https://cdn.example/1", body=b"png")
    secret = {"Authorization": "Basic x"}
    found = http.download(API, hosts=HOSTS, redirect_hosts=("cdn.example",), headers=secret)
    assert found == b"png"
    assert [c.request.headers.get("Authorization") for c in wire.calls] == ["Basic x", None]


@pytest.mark.parametrize(
    "place", ["https://evil.example/", "http://cdn.example/", "/x", "http://169.254.169.254/", API]
)
def test_a_redirect_to_an_unlisted_place_is_not_followed(
    place: str, wire: responses.RequestsMock
) -> None:
    wire.get(API, status=302, headers={"Location": place})
    with pytest.raises(RejectedError):
        http.download(API, hosts=HOSTS, redirect_hosts=("cdn.example",))
    assert len(wire.calls) == 1


def test_a_second_redirect_is_not_followed(wire: responses.RequestsMock) -> None:
    wire.get(API, status=302, headers={"Location": "https://cdn.example/1"})
    wire.get("https://cdn.example/1", status=302, headers={"Location": "https://cdn.example/2"})
    with pytest.raises(RejectedError, match="more than once"):
        http.download(API, hosts=HOSTS, redirect_hosts=("cdn.example",))


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        ({"status": 404}, RejectedError),
        ({"status": 503}, RetryableError),
        ({"body": requests.ReadTimeout()}, RetryableError),
        ({"body": b"x" * 100}, RejectedError),
    ],
)
def test_a_file_that_cannot_be_had_says_whether_to_try_again(
    trouble: dict[str, Any], error: type[Exception], wire: responses.RequestsMock
) -> None:
    wire.get(API, **trouble)
    with pytest.raises(error):
        http.download(API, hosts=HOSTS, max_bytes=99)
