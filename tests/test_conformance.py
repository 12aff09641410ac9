"""Every connector over every sample, because both exist: being in the registry is being tested.

What comes in, and what the provider hears. The way out is in test_conformance_out.py.
"""

import base64
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.errors import PayloadError, SignatureError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message, Notice, Receipt
from connectors.registry import CONNECTORS
from infra.local.simulators import wechat_passive_text
from tests import make_samples
from tests.recorded import (
    SAMPLES,
    Heard,
    Sample,
    answer_to,
    enveloped,
    forged,
    later,
    like,
    messages_in,
    mode,
    one_of_each,
    samples,
    with_header,
    with_param,
)

EVERY = samples()
each_connector = pytest.mark.parametrize("name", sorted(CONNECTORS))
each_sample = pytest.mark.parametrize("sample", EVERY, ids=str)
each_mode = pytest.mark.parametrize("sample", one_of_each(), ids=mode)


# Being there


@each_connector
def test_a_connector_has_one_name_everywhere_and_links_to_its_provider(name: str) -> None:
    kind = CONNECTORS[name]()
    module = importlib.import_module(kind.__module__)
    assert (kind.name, kind.__module__) == (name, f"connectors.channels.{name}")
    assert samples(of=name)
    assert "https://" in str(module.__doc__)


def test_there_is_no_connector_and_no_sample_outside_the_registry() -> None:
    folder = Path(__file__).parents[1] / "connectors" / "channels"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    folders = {path.name for path in SAMPLES.iterdir() if path.is_dir()}
    assert modules == set(CONNECTORS)
    assert folders - {"helpdesks", "schema"} == set(CONNECTORS)


def test_the_samples_are_what_their_script_writes() -> None:
    made = make_samples.simulated() | dict(make_samples.recorded())
    kept = {name: (SAMPLES / name).read_text(encoding="utf-8") for name in made}
    assert kept == {name: make_samples.written(content) for name, content in made.items()}


# What a request says


@each_sample
def test_a_genuine_request_verifies_and_gives_the_expected_messages(sample: Sample) -> None:
    connector, request = sample.connector(), sample.request
    assert connector.handshake(request) is None
    connector.verify(request)
    first, second = connector.parse(request), connector.parse(request)
    dumped = [message.model_dump(mode="json") for message in first]
    assert first == second
    assert like(sample.expected, dumped) == sample.expected


@each_sample
def test_times_are_aware_and_utc(sample: Sample) -> None:
    for message in messages_in(sample.connector(), sample.request):
        assert message.sent_at.utcoffset() == message.received_at.utcoffset() == timedelta(0)


def redelivered(request: WebhookRequest) -> WebhookRequest:
    """The same request a minute later, with the new time that some providers state."""
    moved = later(request, 60)
    if stamp := request.header("webhook-timestamp"):
        moved = with_header(moved, "webhook-timestamp", str(int(stamp) + 60))
    if stamp := request.param("timestamp"):
        moved = with_param(moved, "timestamp", str(int(stamp) + 60))
    return moved


@each_sample
def test_a_redelivery_has_the_same_ids(sample: Sample) -> None:
    connector = sample.connector()
    first = connector.parse(sample.request)
    again = connector.parse(redelivered(sample.request))
    assert [item.id for item in first] == [item.id for item in again]


# Whether it is genuine


def changed(request: WebhookRequest) -> Iterator[WebhookRequest]:
    """The request with one byte of its body changed, at some forty places."""
    for at in range(0, len(request.body), 1 + len(request.body) // 40):
        body = bytearray(request.body)
        body[at] ^= 1
        yield replace(request, body=bytes(body))


def accepted(connector: Connector, request: WebhookRequest) -> bool:
    try:
        connector.verify(request)
    except SignatureError:
        return False
    return True


@pytest.mark.parametrize("sample", [s for s in EVERY if not s.facts.unsigned_body], ids=str)
def test_a_changed_body_is_refused_or_says_the_same(sample: Sample) -> None:
    connector, request = sample.connector(), sample.request
    passed = [one for one in changed(request) if accepted(connector, one)]
    assert len(passed) < 20
    assert all(connector.parse(one) == connector.parse(request) for one in passed)


@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.facts.unsigned_body], ids=mode)
def test_a_body_that_nothing_signs_is_accepted(sample: Sample) -> None:
    found = [accepted(sample.connector(), one) for one in changed(sample.request)]
    assert any(found) if sample.facts.proof_in_body else all(found)


FORGERIES: dict[str, Callable[[str], tuple[str, ...]]] = {
    "missing": lambda right: (),
    "empty": lambda right: ("",),
    "repeated": lambda right: (right, right),
    "cut": lambda right: (right[:-1],),
    "other case": lambda right: (right.swapcase() + "=",),
    "no ASCII": lambda right: ("签名\ud800",),
    "the word None": lambda right: ("None",),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@each_mode
def test_a_missing_repeated_or_wrong_proof_is_refused(sample: Sample, forgery: str) -> None:
    for request in forged(sample, FORGERIES[forgery]):
        with pytest.raises(SignatureError):
            sample.connector().verify(request)


@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.facts.good_seconds], ids=mode)
def test_a_stale_request_is_refused(sample: Sample) -> None:
    before, after = sample.facts.good_seconds
    connector, request = sample.connector(), sample.request
    assert accepted(connector, later(request, after))
    assert not accepted(connector, later(request, after + 1))
    if before:
        assert accepted(connector, later(request, -before))
        assert not accepted(connector, later(request, -before - 1))


@pytest.mark.parametrize("sample", [s for s in one_of_each() if s.facts.rotated], ids=mode)
def test_a_secret_can_be_replaced_without_losing_a_request(sample: Sample) -> None:
    key = sample.facts.rotated
    old, new = sample.settings[key], base64.b64encode(b"n" * 48).decode()
    assert accepted(sample.connector({key: [new, old]}), sample.request)
    assert not accepted(sample.connector({key: [new]}), sample.request)


# What it may do to us

_MAIL = b"From: a@b.example\r\nContent-Type: "
_XML = b"<xml><FromUserName>o</FromUserName><MsgType>"
HOSTILE = {
    "nothing": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"7",
    "invalid UTF-8": b"\xff\xfe\x00",
    "invalid UTF-8 in a form": b"MessageSid=%FF&From=%ED%A0%80",
    "many fields": b"a=1&" * 5000,
    "long number": b"MessageSid=SM1&From=%2B1&NumMedia=" + b"9" * 5000,
    "deep XML": b"<xml>" * 10_000,
    "wide XML": b"<xml>" + b"<a/>" * 10_000 + b"</xml>",
    "entities": b'<!DOCTYPE xml [<!ENTITY a "b">]>' + _XML + b"&a;</MsgType></xml>",
    "no sender": b"<xml><MsgType>text</MsgType></xml>",
    "odd sender": b"<xml><FromUserName>a\nb</FromUserName><MsgType>text</MsgType></xml>",
    "long sender": b"<xml><FromUserName>%s</FromUserName><MsgType>text</MsgType></xml>"
    % (b"x" * 600),
    "no such place": _XML + b"location</MsgType><Location_X>1e9</Location_X></xml>",
    "endless size": _XML + b"file</MsgType><FileTotalLen>" + b"9" * 5000 + b"</FileTotalLen></xml>",
    "deep JSON": b"[" * 50_000,
    "lone surrogate": b'{"client_id": "line-0001", "text": "\\ud800"}',
    "odd base64": '{"client_id": "line-0001", "files": [{"content": "é"}]}'.encode(),
    "no author": b"Subject: x\r\n\r\nx",
    "deep mail": _MAIL + b"multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: " * 300,
    "many parts": _MAIL + b"multipart/mixed; boundary=b\r\n\r\n" + b"--b\n\n" * 50_000,
    "odd codec": _MAIL + b"text/plain; charset=unicode_escape\r\n\r\n\\ud800",
    "open brackets": b"From: " + b"(" * 2000 + b" a@b.example\r\n\r\nx",
} | {f"that of {mode(sample)}": sample.request.body for sample in one_of_each()}


def posed(sample: Sample, body: bytes) -> Iterator[WebhookRequest]:
    """The body in place of the sample's, and inside an envelope where there is one."""
    yield replace(sample.request, body=body)
    if envelope := enveloped(sample, body):
        yield replace(sample.request, body=envelope)


def demand_payload_error_or_messages(connector: Connector, request: WebhookRequest) -> None:
    with suppress(PayloadError):
        assert all(isinstance(m, Message | Receipt | Notice) for m in connector.parse(request))


@pytest.mark.parametrize("kind", HOSTILE)
@each_mode
def test_a_hostile_body_is_a_payload_error_or_a_message(sample: Sample, kind: str) -> None:
    for request in posed(sample, HOSTILE[kind]):
        demand_payload_error_or_messages(sample.connector(), request)


@each_sample
def test_a_body_cut_short_is_a_payload_error_or_a_message(sample: Sample) -> None:
    whole = sample.request.body
    for length in range(0, len(whole), 1 + len(whole) // 20):
        for request in posed(sample, whole[:length]):
            demand_payload_error_or_messages(sample.connector(), request)


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, [], {}, [[]], "", " ", "\0", "\ud800", "x" * 5000, -1, 1e300, 10**400),
    *("9" * 5000, "0001-01-01T00:00:00+23:59"),
)


def spoilt(whole: Any) -> Iterator[Any]:
    """The JSON with each of its members, however deep, left out or replaced by each odd value."""
    if not isinstance(whole, dict | list):
        return
    for place in list(whole) if isinstance(whole, dict) else range(len(whole)):
        for value in (*ODD_VALUES, *spoilt(whole[place])):
            copy = whole.copy()
            copy[place] = value
            yield copy
        copy = whole.copy()
        del copy[place]
        yield copy


@each_sample
def test_a_spoilt_field_is_a_payload_error_or_a_message(sample: Sample) -> None:
    try:
        whole = json.loads(sample.request.body)
    except ValueError:
        return
    for body in spoilt(whole):
        changed_body = replace(sample.request, body=json.dumps(body).encode())
        demand_payload_error_or_messages(sample.connector(), changed_body)


# What the provider hears


def heard(connector: Connector, *about: Any) -> Heard:
    response = connector.acknowledge(*about)
    kind, _, charset = response.content_type.partition("; charset=")
    assert charset == "utf-8"
    return Heard(status=response.status, type=kind, body=response.body)


@each_mode
def test_a_provider_hears_exactly_what_it_wants_to_hear(sample: Sample) -> None:
    connector, facts = sample.connector(), sample.facts
    (message,) = messages_in(connector, sample.request)
    wanted = facts.heard.model_copy(update={"body": facts.heard.body.replace("<id>", message.id)})
    assert heard(connector, [message]) == wanted
    assert heard(connector, ()) == (facts.heard_if_unreadable or facts.heard)


def read_by_wechat(sample: Sample, body: str) -> str | None:
    held = sample.settings
    receiver = held.get("app_id") or held["corp_id"]
    return wechat_passive_text(
        {"token": held["token"], "aes_key": held["encoding_aes_key"], "app_id": receiver}, body
    )


#: Who can be answered in the response: the type, and what the customer then reads.
ANSWERED: dict[str, tuple[str, Callable[[Sample, str], Any]]] = {
    "wechat": ("application/xml", read_by_wechat),
    "wecom": ("application/xml", read_by_wechat),
    "webchat": ("application/json", lambda sample, body: json.loads(body)["answer"]["text"]),
}
ANSWER = "明天发货 ]]> &amp; <b>"


@each_mode
def test_an_answer_in_the_response_reaches_the_customer_as_written(sample: Sample) -> None:
    connector = sample.connector()
    (message,) = messages_in(connector, sample.request)
    told = heard(connector, [message], answer_to(message, ANSWER))
    if connector.capabilities.answers_within_seconds is None:
        assert told == heard(connector, [message])
    else:
        content_type, read = ANSWERED[sample.plugin]
        assert (told.status, told.type) == (200, content_type)
        assert read(sample, told.body) == ANSWER
