"""Every helpdesk over every sample, because both exist; and what another server does to a call."""

import importlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import responses
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from chalicelib.errors import (
    DeliveryError,
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import Helpdesk, Signal, WebhookRequest
from chalicelib.schema import Attachment, Correction, Reply, TicketChange, json_schema
from connectors.registry import HELPDESKS
from tests import nouns
from tests.loopback import AGAIN, NEVER, UNREADABLE, request_errors
from tests.recorded import SAMPLES, Sample, desk_samples, forged, later, like, with_header

pytestmark = pytest.mark.usefixtures("no_waiting")

ANY_URL = re.compile(".*")
KEY = "key-1"


#: Those that take each call as one request with an idempotency key; the others have fakes that
#: play them (tests/desks), and tests of their own.
OWN = ("sandbox", "webhook")
#: An answer that means success, and the header in which a desk looks for the idempotency key.
TAKEN: dict[str, Any] = {"sandbox": {"id": "T1"}, "webhook": {"ticket_id": "T1"}}
KEY_HEADER = {"sandbox": "Idempotency-Key", "webhook": "webhook-id"}

each_desk = pytest.mark.parametrize("name", sorted(HELPDESKS))
each_own = pytest.mark.parametrize("name", OWN)
each_sample = pytest.mark.parametrize("sample", desk_samples(), ids=str)


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def a_sample(name: str) -> Sample:
    return next(sample for sample in desk_samples() if sample.plugin == name)


# Being there


@each_desk
def test_a_helpdesk_has_one_name_everywhere(name: str) -> None:
    kind = HELPDESKS[name]()
    assert (kind.name, kind.__module__) == (name, f"connectors.helpdesks.{name}")
    assert importlib.import_module(kind.__module__).__doc__
    kinds = {sample.path.stem for sample in desk_samples() if sample.plugin == name}
    assert {"reply", "note"} <= kinds


def test_there_is_no_helpdesk_and_no_sample_outside_the_registry() -> None:
    folder = Path(__file__).parents[1] / "connectors" / "helpdesks"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(HELPDESKS)
    assert {path.name for path in (SAMPLES / "helpdesks").iterdir()} == set(HELPDESKS)


# In


@each_sample
def test_a_genuine_event_verifies_and_gives_what_is_expected(sample: Sample) -> None:
    desk, request = sample.helpdesk(), sample.request
    desk.verify(request)
    first, second = desk.parse(request), desk.parse(request)
    assert first == second
    assert like(sample.expected, [n.model_dump(mode="json") for n in first]) == sample.expected


@pytest.mark.parametrize("sample", [s for s in desk_samples() if s.path.stem == "note"], ids=str)
def test_a_note_never_leaves_the_helpdesk(sample: Sample) -> None:
    assert sample.helpdesk().parse(sample.request) == []


#: What may stand in the place of what proves a request.
FORGERIES: tuple[Callable[[str], tuple[str, ...]], ...] = (
    lambda right: (),
    lambda right: ("",),
    lambda right: (right, right),
    lambda right: (right[:-1],),
    lambda right: ("签名\ud800",),
)


def forgeries(sample: Sample) -> Iterator[WebhookRequest]:
    """The request with any part of its proof missing, repeated or wrong; stale; changed."""
    request, facts = sample.request, sample.facts
    for forge in FORGERIES:
        yield from forged(sample, forge)
    if facts.good_seconds:
        before, after = facts.good_seconds
        yield later(request, after + 1)
        yield later(request, -before - 1)
    if not facts.unsigned_body:
        yield from _changed(request)


def _changed(request: WebhookRequest) -> Iterator[WebhookRequest]:
    for at in range(0, len(request.body), 9):
        body = bytearray(request.body)
        body[at] ^= 1
        yield replace(request, body=bytes(body))


@each_sample
def test_a_forged_changed_or_stale_event_is_refused(sample: Sample) -> None:
    for request in forgeries(sample):
        with pytest.raises(SignatureError):
            sample.helpdesk().verify(request)


@each_own
def test_an_event_is_good_for_five_minutes_and_under_both_secrets(name: str) -> None:
    sample = a_sample(name)
    new = "whsec_bmV3IHNlY3JldCBvZiBlbm91Z2ggYnl0ZXM="
    sample.helpdesk().verify(later(sample.request, 300))
    sample.helpdesk({"secret": [new, sample.settings["secret"]]}).verify(sample.request)
    with pytest.raises(SignatureError):
        sample.helpdesk({"secret": new}).verify(sample.request)


def hostile(sample: Sample) -> Iterator[bytes]:
    """Bodies that no desk sends, and the sample's with each of its fields spoilt."""
    whole = sample.request.body
    yield from (b"", b"null", b"[]", b"7", b"\xff\xfe", b"[" * 50_000, whole[:-1], whole[:9])
    event = json.loads(whole)
    spoilt: tuple[Any, ...] = (None, [], {}, "", "\0", "x" * 5000, 7, "0001-01-01T00:00:00+23:59")
    for name in event:
        for value in spoilt:
            yield json.dumps(event | {name: value}).encode()


@each_sample
def test_a_hostile_event_is_a_payload_error_or_harmless(sample: Sample) -> None:
    requests = [replace(sample.request, body=body) for body in hostile(sample)]
    for request in (*requests, with_header(sample.request, "webhook-id", "x" * 3000)):
        with suppress(PayloadError):
            found = sample.helpdesk().parse(request)
            assert all(
                isinstance(noun, Reply | TicketChange | Correction | Signal) for noun in found
            )


# Out

MESSAGE = nouns.message(
    "货到哪儿了? <b>&",
    attachments=(Attachment(name="票.png", media_type="image/png", key="k", content=b"png"),),
)
CONVERSATION = nouns.conversation("货到哪儿了?")
#: The three calls, and what they carry.
CALLS: dict[str, Callable[[Helpdesk], Any]] = {
    "open_ticket": lambda desk: desk.open_ticket(MESSAGE, CONVERSATION, idempotency_key=KEY),
    "add_comment": lambda desk: desk.add_comment("T1", MESSAGE, CONVERSATION, idempotency_key=KEY),
    "add_note": lambda desk: desk.add_note("T1", "asked twice", CONVERSATION, idempotency_key=KEY),
}
each_call = pytest.mark.parametrize("call", CALLS)


def sent(name: str, call: str, wire: responses.RequestsMock, **settings: Any) -> Any:
    """The one request that a call makes."""
    wire.post(ANY_URL, json=TAKEN[name])
    CALLS[call](a_sample(name).helpdesk(settings))
    (only,) = wire.calls
    return only.request


def failure(name: str, call: str) -> DeliveryError:
    """What a call raises; the test fails with whatever is no DeliveryError."""
    with pytest.raises(DeliveryError) as caught:
        CALLS[call](a_sample(name).helpdesk())
    return caught.value


@each_own
def test_a_ticket_has_the_id_that_the_desk_gave_it(name: str, wire: responses.RequestsMock) -> None:
    wire.post(ANY_URL, json=TAKEN[name])
    assert CALLS["open_ticket"](a_sample(name).helpdesk()) == "T1"


@each_call
@each_own
def test_every_try_carries_the_same_idempotency_key(
    name: str, call: str, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, status=500)
    failure(name, call)
    assert [c.request.headers[KEY_HEADER[name]] for c in wire.calls] == [KEY] * 3


@pytest.mark.parametrize("status", AGAIN)
@each_call
@each_own
def test_what_may_pass_by_itself_is_tried_again(
    name: str, call: str, status: int, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, status=status, headers={"Retry-After": "17"})
    error = failure(name, call)
    assert isinstance(error, RetryableError)
    assert error.retry_after_seconds == 17.0
    assert len(wire.calls) == 1


@pytest.mark.parametrize("status", sorted(set(NEVER) - {401, 403}))
@each_call
@each_own
def test_a_refusal_is_final(
    name: str, call: str, status: int, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, status=status)
    assert isinstance(failure(name, call), RejectedError)


@pytest.mark.parametrize("broken", request_errors(), ids=lambda e: type(e).__name__)
@each_call
@each_own
def test_a_broken_line_is_tried_again(
    name: str, call: str, broken: Exception, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, body=broken)
    assert isinstance(failure(name, call), RetryableError)


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body[:10]))
def test_a_desk_of_our_own_answers_readably_or_is_asked_again(
    body: bytes, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, body=body)
    assert isinstance(failure("sandbox", "open_ticket"), RetryableError)


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body[:10]))
def test_a_webhook_that_answers_anything_leaves_the_ticket_our_own_id(
    body: bytes, wire: responses.RequestsMock
) -> None:
    wire.post(ANY_URL, body=body)
    assert CALLS["open_ticket"](a_sample("webhook").helpdesk()) == CONVERSATION.id


def demand_valid(noun: Any, name: str) -> None:
    """The JSON is what the published schema says of a Message or Conversation."""
    schema = json_schema()
    schema = {**schema, "anyOf": [{"$ref": f"#/$defs/{name}"}]}
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(noun)


@pytest.mark.parametrize("call", ["open_ticket", "add_comment"])
@each_own
def test_the_message_is_as_the_published_schema_says(
    name: str, call: str, wire: responses.RequestsMock
) -> None:
    told = json.loads(sent(name, call, wire).body)
    demand_valid(told["message"], "Message")
    assert told["message"]["text"] == MESSAGE.text
    assert "raw" not in told["message"]


@each_call
def test_a_webhook_carries_the_conversation_as_the_published_schema_says(
    call: str, wire: responses.RequestsMock
) -> None:
    told = json.loads(sent("webhook", call, wire).body)
    demand_valid(told["conversation"], "Conversation")
    assert told["conversation"]["id"] == CONVERSATION.id


#: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#required-attributes
CLOUD_EVENT = {
    "type": "object",
    "required": ["id", "source", "specversion", "type"],
    "properties": {
        "id": {"const": KEY},
        "source": {"type": "string", "minLength": 1},
        "specversion": {"const": "1.0"},
        "type": {"type": "string", "pattern": "^askonce\\.(ticket|message|note)\\.[a-z]+$"},
        "subject": {"type": "string", "minLength": 1},
        "time": {"type": "string", "pattern": "^[0-9]{4}(-[0-9]{2}){2}T[0-9:.]{8,}Z$"},
        "datacontenttype": {"const": "application/json"},
        "data": {"type": "object", "required": ["type", "conversation"]},
    },
    "propertyNames": {"pattern": "^[a-z0-9]{1,20}$"},
    "additionalProperties": False,
}  # fmt: skip


@each_call
def test_a_cloud_event_has_its_required_attributes(call: str, wire: responses.RequestsMock) -> None:
    request = sent("webhook", call, wire, envelope="cloudevents")
    Draft202012Validator(CLOUD_EVENT).validate(json.loads(request.body))
    assert request.headers["Content-Type"] == "application/cloudevents+json"


# Settings


@each_own
def test_unknown_settings_and_empty_secrets_are_refused(name: str) -> None:
    for wrong in ({"secrt": "x"}, {"secret": ""}, {"secret": ()}, {"url": "desk.example"}):
        with pytest.raises(ValidationError):
            a_sample(name).helpdesk(wrong)


@each_own
def test_no_secret_shows_in_settings_or_errors(name: str, wire: responses.RequestsMock) -> None:
    sample = a_sample(name)
    wire.post(ANY_URL, status=400)
    shown = [repr(sample.helpdesk().settings), str(failure(name, "add_note"))]
    assert not [text for text in shown if sample.settings["secret"] in text]
