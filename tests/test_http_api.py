"""An HTTP API in the place of a REST API: nothing that a provider sends or signs is lost."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from chalice.app import Request
from hypothesis import given, settings
from hypothesis import strategies as st

import app
from chalicelib.ports import WebhookRequest
from tests import http_api
from tests.recorded import Sample, desk_samples, samples

CONNECTORS, DESKS = samples(), desk_samples()
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def through(request: WebhookRequest, kind: str = "webhooks", name: str = "inbox") -> WebhookRequest:
    """What the app is given of a request, once it has gone through an HTTP API."""
    route, parameters = f"/{kind}/{{{name}}}", {name: "one"}
    if request.path_secret:
        route, parameters = f"{route}/{{secret}}", parameters | {"secret": request.path_secret}
    given = Request(http_api.event_of(request, route, parameters), None)
    arrived = app.translate(given)
    return replace(arrived, path_secret=(given.uri_params or {}).get("secret", ""))


@pytest.mark.parametrize("sample", CONNECTORS, ids=str)
def test_a_providers_genuine_webhook_verifies_and_says_the_same(sample: Sample) -> None:
    arrived, connector = through(sample.request), sample.connector()
    connector.verify(arrived)
    assert connector.parse(arrived) == connector.parse(sample.request)


@pytest.mark.parametrize("sample", DESKS, ids=str)
def test_a_helpdesks_genuine_webhook_verifies_and_says_the_same(sample: Sample) -> None:
    arrived, desk = through(sample.request, "replies", "helpdesk"), sample.helpdesk()
    desk.verify(arrived)
    assert desk.parse(arrived) == desk.parse(sample.request)


def test_every_kind_of_body_that_providers_send_was_tried() -> None:
    kinds = {s.request.header("content-type").partition(";")[0] for s in CONNECTORS + DESKS}
    assert {"application/json", "application/x-www-form-urlencoded", "text/xml"} <= kinds
    assert {"multipart/form-data", "message/rfc822"} <= kinds


# Whatever is sent

anything = settings(max_examples=200, deadline=None)
some_text = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1)


def posted(kind: str, body: bytes) -> WebhookRequest:
    headers = {"content-type": (kind,)} if kind else {}
    return WebhookRequest(method="POST", headers=headers, body=body, received_at=NOW)


@anything
@given(
    st.sampled_from(["", "multipart/form-data; boundary=x", "message/rfc822", "image/png"]),
    st.binary(),
)
def test_every_byte_of_what_is_no_text_arrives(kind: str, body: bytes) -> None:
    assert through(posted(kind, body)).body == body


@anything
@given(
    st.sampled_from(["application/json", "Text/XML; charset=utf-8", "text/plain",
                     "application/x-www-form-urlencoded"]),
    some_text,
)  # fmt: skip
def test_every_byte_of_a_text_arrives(kind: str, text: str) -> None:
    assert through(posted(kind, text.encode())).body == text.encode()


@anything
@given(st.dictionaries(some_text, st.lists(some_text, min_size=1, max_size=3)))
def test_every_parameter_arrives_and_repeated_ones_whole(query: dict[str, list[str]]) -> None:
    pairs = tuple((name, value) for name, values in query.items() for value in values)
    assert through(replace(posted("", b""), query=pairs)).query == pairs


@anything
@given(st.dictionaries(names, st.lists(some_text, min_size=1, max_size=3).map(tuple)))
def test_every_header_arrives_and_repeated_ones_whole(headers: dict[str, tuple[str]]) -> None:
    assert through(replace(posted("", b""), headers=headers)).headers == headers


def test_the_time_the_caller_and_the_gateways_id_arrive() -> None:
    sent = replace(posted("", b""), source_ip="198.51.100.7", id="request-1=")
    arrived = through(sent)
    assert (arrived.received_at, arrived.source_ip) == (NOW, "198.51.100.7")
    assert arrived.id == "request-1="
