"""DynamoDB without the SDK: signed as the SDK signs, settled or left to it, and never twice."""

import datetime
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import EndpointConnectionError
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import aws, direct
from chalicelib.aws import DynamoTable
from chalicelib.direct import Direct, Signer
from chalicelib.errors import ConflictError
from chalicelib.ports import Item, Write
from tests.dynamo_server import Dynamo, Mishap, Request, answer, dynamo, failed, raw

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "a-token",
    "AWS_DEFAULT_REGION": "us-east-1",
}
LAMBDA = ENVIRONMENT | {"AWS_LAMBDA_FUNCTION_NAME": "askonce-api"}


# Signing

#: The suite that AWS publishes for Signature Version 4; those of its cases that ask for / and
#: nothing behind it: method, more headers, body, signature.
#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
PUBLISHED = {
    "get-vanilla": (
        "GET", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "post-vanilla": (
        "POST", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "post-header-value-case": (
        "POST", {"my-header1": "VALUE1"}, b"",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"),
    "post-x-www-form-urlencoded": (
        "POST", {"content-type": "application/x-www-form-urlencoded"}, b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
}  # fmt: skip


@pytest.mark.parametrize("case", PUBLISHED)
def test_signatures_are_those_that_aws_publishes(case: str) -> None:
    method, more, body, signature = PUBLISHED[case]
    signer = Signer(
        key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        secret=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        service="service",
    )
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z", **more}
    assert signer.authorization(method, headers, body) == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={';'.join(sorted(headers))}, Signature={signature}"
    )


@pytest.mark.parametrize(
    ("day", "key"),
    [
        ("20120215", "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"),
        ("20150830", "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"),
    ],
)
def test_keys_are_derived_as_aws_publishes(day: str, key: str) -> None:
    secret = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
    assert direct.derived_key(secret, day, "us-east-1", "iam").hex() == key


_WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(
    key_id=st.from_regex(r"[A-Z0-9]{16,20}", fullmatch=True),
    secret=_WORD,
    token=_WORD,
    region=st.sampled_from(["us-east-1", "cn-north-1", "ap-southeast-2"]),
    host=st.from_regex(r"[a-z][a-z0-9.-]{0,30}(:[1-9][0-9]{3})?", fullmatch=True),
    body=st.binary(max_size=300),
    at=st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2040, 1, 1)),  # noqa: DTZ001
)
def test_the_sdk_signs_the_same(
    key_id: str, secret: str, token: str, region: str, host: str, body: bytes, at: Any
) -> None:
    headers = {
        "content-type": "application/x-amz-json-1.0",
        "host": host,
        "x-amz-date": f"{at:%Y%m%dT%H%M%SZ}",
        "x-amz-security-token": token,
        "x-amz-target": "DynamoDB_20120810.PutItem",
    }
    theirs = SigV4Auth(Credentials(key_id, secret, token), "dynamodb", region)
    request = AWSRequest("POST", f"https://{host}/", headers, body)
    request.context["timestamp"] = headers["x-amz-date"]
    to_sign = theirs.string_to_sign(request, theirs.canonical_request(request))
    ours = Signer(key_id=key_id, secret=secret, region=region)
    signature = ours.authorization("POST", headers, body).rpartition("=")[2]
    assert signature == theirs.signature(to_sign, request)


def test_no_secret_shows_in_what_is_printed() -> None:
    signer = Signer(key_id="AKIDEXAMPLE", secret="unspeakable", region="us-east-1")
    assert "unspeakable" not in repr(signer)


# Where

REGIONS = [
    region
    for partition in ("aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b")
    for region in get_session().get_available_regions("dynamodb", partition)
    if "fips" not in region and region != "local"
]


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_is_asked_where_the_sdk_asks_or_not_at_all(region: str) -> None:
    there = direct.from_environment(LAMBDA | {"AWS_DEFAULT_REGION": region})
    if "iso" in region:
        assert there is None
        return
    assert there is not None
    assert there.url == sdks_endpoint(region)


@cache
def session() -> Any:
    return get_session()


def sdks_endpoint(region: str) -> Any:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    return session().create_client("dynamodb", region_name=region, **keys).meta.endpoint_url


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        (LAMBDA, "https://dynamodb.us-east-1.amazonaws.com"),
        (ENVIRONMENT, None),
        (ENVIRONMENT | {"AWS_ENDPOINT_URL": "http://127.0.0.1:8000"}, "http://127.0.0.1:8000"),
        (
            LAMBDA | {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_DYNAMODB": "https://b:81"},
            "https://b:81",
        ),
        (LAMBDA | {"AWS_ENDPOINT_URL": "https://a/path"}, None),
        (LAMBDA | {"AWS_ENDPOINT_URL": "ftp://a"}, None),
        (LAMBDA | {"AWS_ENDPOINT_URL": "http://me:secret@a"}, None),
        (LAMBDA | {"AWS_DEFAULT_REGION": "mars-north-1"}, None),
        (LAMBDA | {"AWS_ACCESS_KEY_ID": ""}, None),
        (LAMBDA | {"AWS_SECRET_ACCESS_KEY": ""}, None),
        (LAMBDA | {"AWS_PROFILE": "work"}, None),
        (LAMBDA | {"AWS_USE_FIPS_ENDPOINT": "true"}, None),
        (LAMBDA | {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, None),
        (LAMBDA | {"https_proxy": "http://proxy:3128"}, None),
        (LAMBDA | {"AWS_CA_BUNDLE": "/etc/own.pem"}, None),
        (
            LAMBDA | {"AWS_CA_BUNDLE": "/etc/own.pem", "AWS_ENDPOINT_URL": "http://a"},
            "http://a",
        ),
    ],
)
def test_only_lambda_or_a_named_endpoint_with_nothing_unusual_is_asked_directly(
    environment: dict[str, str], url: str | None
) -> None:
    there = direct.from_environment(environment)
    assert (there.url if there else None) == url


# Writing


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dynamo]:
    """One that the SDK and we both take for AWS; the SDK's clients are those of this test."""
    with dynamo() as running:
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": running.url}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(direct, "READ_SECONDS", 30)
        monkeypatch.setattr(direct, "CONNECT_SECONDS", 30)
        aws.client.cache_clear()
        aws.client("dynamodb", tries=1)  # with this patience, whatever a test sets for direct calls
        yield running
        aws.client.cache_clear()


@pytest.fixture
def paused() -> list[float]:
    """How long the direct puts of a test pause, in place of pausing."""
    return []


@pytest.fixture
def table(server: Dynamo, paused: list[float]) -> Iterator[DynamoTable]:
    """A table that puts directly."""
    with closing(put_to(server.url)) as put:
        put.pause = paused.append
        yield DynamoTable("askonce", put)


def put_to(url: str) -> Direct:
    put = direct.from_environment(ENVIRONMENT | {"AWS_ENDPOINT_URL": url})
    assert put is not None
    return put


def item(sk: str = "A", **more: Any) -> Item:
    return Item(pk="P", sk=sk, body='{"said": "你好"}', **more)


def by_sdk(request: Request) -> bool:
    return "amz-sdk-request" in request.headers


def test_a_put_is_one_request_and_none_of_the_sdks(table: DynamoTable, server: Dynamo) -> None:
    table.write(Write(item=item(index={"kind": "message"}, expires_at=4_000_000_000)))
    (asked,) = server.asked
    assert not by_sdk(asked)
    assert server.items["A"]["body"] == {"S": '{"said": "你好"}'}


def test_what_is_asked_and_signed_is_what_the_sdk_asks(table: DynamoTable, server: Dynamo) -> None:
    table.write(Write(item=item()))
    DynamoTable("askonce").write(Write(item=item("B")))
    ours, theirs = server.asked
    assert by_sdk(theirs)
    signed = ours.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    for name in (*signed, "host", "x-amz-target"):
        if name != "x-amz-date":
            assert ours.headers[name] == theirs.headers[name]
    of_ours, of_theirs = json.loads(ours.body), json.loads(theirs.body)
    del of_ours["Item"], of_theirs["Item"]
    now = ":now"
    assert of_ours["ExpressionAttributeValues"].keys() == {now}
    del of_ours["ExpressionAttributeValues"], of_theirs["ExpressionAttributeValues"]
    assert of_ours == of_theirs


def test_of_two_first_puts_the_other_sees_the_first(table: DynamoTable, server: Dynamo) -> None:
    table.write(Write(item=item()))
    with pytest.raises(ConflictError) as conflict:
        table.write(Write(item=item(index={"kind": "late"})))
    assert conflict.value.existing == item(version=1)
    assert not any(by_sdk(asked) for asked in server.asked)


def test_a_put_over_what_is_gone_conflicts_with_nothing(table: DynamoTable) -> None:
    with pytest.raises(ConflictError) as conflict:
        table.write(Write(item=item(version=1)))
    assert conflict.value.existing is None


def test_a_transaction_left_to_the_sdk_keeps_its_token(table: DynamoTable, server: Dynamo) -> None:
    server.mishaps = [MISHAPS["cut behind the status"], lambda request: answer(200, {})]
    table.write(Write(item=item()), Write(item=item("B")))
    assert [by_sdk(asked) for asked in server.asked] == [False, True]
    ours, theirs = (json.loads(asked.body)["ClientRequestToken"] for asked in server.asked)
    assert ours == theirs


def _after(said: bytes) -> Mishap:
    """It was written, and this is what comes back."""

    def mishap(request: Request) -> bytes:
        request.act()
        return said

    return mishap


def _stalled(request: Request) -> bytes:
    request.act()
    request.wait()
    return b""


@pytest.fixture
def impatient(server: Dynamo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for what never comes; where something comes, patience has no end."""
    monkeypatch.setattr(direct, "READ_SECONDS", 0.1)


_THROTTLED = {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}
MISHAPS: dict[str, Mishap] = {
    "cut before it was written": lambda request: b"",
    "cut after it was written": _after(b""),
    "cut in the head": _after(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "cut behind the status": _after(b"HTTP/1.1 200 OK\r\n"),
    "cut in the body": _after(answer(200, {})[:-1]),
    "500, not written": lambda request: raw(500, b"{}"),
    "500, written": _after(raw(500, b"{}")),
    "503 of a load balancer": lambda request: raw(503, b"<html>busy</html>", request_id=""),
    "throttled": lambda request: answer(400, _THROTTLED),
    "another checksum": _after(raw(200, b"{}", checksum=1)),
    "another checksum, failed": _after(raw(400, failed(None)[-80:], checksum=1)),
    "no JSON": _after(raw(200, b"{]")),
    "no object, failed": _after(raw(400, b"[]")),
    "no id": _after(raw(200, b"{}", request_id="")),
    "no HTTP": _after(b"\x00\xff\xfe" * 50),
    "a length that is none": _after(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "a long head": _after(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    "redirected": lambda request: raw(302, b""),
}  # fmt: skip


@pytest.mark.parametrize("mishap", MISHAPS)
def test_whatever_happens_to_the_direct_put_the_sdk_settles_it(
    table: DynamoTable, server: Dynamo, mishap: str
) -> None:
    server.mishaps = [MISHAPS[mishap]]
    table.write(Write(item=item()))
    assert [by_sdk(asked) for asked in server.asked] == [False, True]
    assert server.items["A"]["v"] == {"N": "1"}


@pytest.mark.parametrize("mishap", MISHAPS)
def test_whatever_happens_somebody_elses_item_stays_and_is_seen(
    table: DynamoTable, server: Dynamo, mishap: str
) -> None:
    DynamoTable("askonce").write(Write(item=item()))
    theirs = server.items["A"]
    server.mishaps = [MISHAPS[mishap]]
    with pytest.raises(ConflictError) as conflict:
        table.write(Write(item=item(index={"kind": "late"})))
    assert conflict.value.existing == item(version=1)
    assert server.items["A"] == theirs


@pytest.mark.parametrize("mishap", MISHAPS)
def test_whatever_happens_what_is_there_is_found(
    table: DynamoTable, server: Dynamo, mishap: str
) -> None:
    DynamoTable("askonce").write(Write(item=item()))
    server.mishaps = [MISHAPS[mishap]]
    assert table.get("P", "A") == item(version=1)
    assert [by_sdk(asked) for asked in server.asked] == [True, False, True]


@pytest.mark.parametrize("mishap", MISHAPS)
def test_whatever_happens_a_later_version_is_written_once(
    table: DynamoTable, server: Dynamo, mishap: str
) -> None:
    table.write(Write(item=item()))
    server.mishaps = [MISHAPS[mishap]]
    table.write(Write(item=item(version=1)))
    assert server.items["A"]["v"] == {"N": "2"}


def test_where_nobody_is_the_sdk_says_so(server: Dynamo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws.client.cache_clear()
    nobody = DynamoTable("askonce", put_to("http://127.0.0.1:9"))
    with pytest.raises(EndpointConnectionError):
        nobody.write(Write(item=item()))


# Connections


def test_connections_stay_open(table: DynamoTable, server: Dynamo) -> None:
    for n in range(5):
        table.write(Write(item=item(str(n))))
    assert len(server.connections) == 1


def test_one_that_the_other_side_left_is_replaced(table: DynamoTable, server: Dynamo) -> None:
    server.closing = True
    for n in range(5):
        table.write(Write(item=item(str(n))))
    assert len(server.connections) == 5
    assert not any(by_sdk(asked) for asked in server.asked)


def test_one_that_breaks_in_use_is_replaced_and_the_put_is_known_as_ours(
    table: DynamoTable, server: Dynamo
) -> None:
    table.write(Write(item=item()))
    server.mishaps = [MISHAPS["cut after it was written"]]
    table.write(Write(item=item("B")))
    assert [by_sdk(asked) for asked in server.asked] == [False] * 3
    assert server.items["B"]["v"] == {"N": "1"}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("open_already", [True, False])
def test_one_that_does_not_answer_is_not_waited_for_twice(
    table: DynamoTable, server: Dynamo, open_already: bool
) -> None:
    if open_already:
        table.write(Write(item=item()))
    server.asked.clear()
    server.mishaps = [_stalled]
    table.write(Write(item=item("B")))
    assert [by_sdk(asked) for asked in server.asked] == [False, True]
    assert server.items["B"]["v"] == {"N": "1"}


def test_threads_share_no_connection(table: DynamoTable, server: Dynamo) -> None:
    together = threading.Barrier(8, timeout=30)

    def meet(request: Request) -> bytes:
        together.wait()
        return request.act()

    server.mishaps = [meet] * 8
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: table.write(Write(item=item(str(n)))), range(8)))
    assert len(server.items) == len(server.connections) == 8


# Time and watching


def test_a_direct_call_and_the_sdk_behind_it_end_within_the_time_that_is_counted_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    aws.client.cache_clear()
    sdk = aws.client("dynamodb", region="us-east-1", tries=1).meta.config
    aws.client.cache_clear()
    assert sdk.retries["total_max_attempts"] == 1
    first = direct.CONNECT_SECONDS + direct.READ_SECONDS
    longest_pause = 1.0
    second = sdk.connect_timeout + sdk.read_timeout
    assert first + longest_pause + second <= aws.WORST_CALL_SECONDS


def test_a_pause_follows_an_answer_that_says_too_busy_and_no_other(
    table: DynamoTable, server: Dynamo, paused: list[float]
) -> None:
    for mishap in ("cut after it was written", "no id", "throttled"):
        server.mishaps = [MISHAPS[mishap]]
        table.write(Write(item=item(mishap)))
    assert len(paused) == 1
    assert 0 <= paused[0] <= 1


def test_watchers_see_a_direct_put_before_it_is_made_and_may_forbid_it(
    table: DynamoTable, server: Dynamo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(service: str, operation: str, params: Any) -> None:
        raise PermissionError(f"{service}:{operation} on {params['TableName']}")

    watch: Callable[..., None] = forbid
    monkeypatch.setattr(aws, "watchers", [watch])
    with pytest.raises(PermissionError, match="dynamodb:PutItem on askonce"):
        table.write(Write(item=item()))
    assert server.asked == []
