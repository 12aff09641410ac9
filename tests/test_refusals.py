"""What is refused leaves no trace: every forgery of every connector, through the pipeline."""

from dataclasses import replace
from typing import cast

import pytest

from chalicelib.errors import NotFoundError, SignatureError, TooLargeError, WebhookError
from chalicelib.pipeline import Pipeline
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.settings import Deployment
from tests.fakes import World, world
from tests.recorded import Sample, forged, mode, one_of_each
from tests.test_conformance import FORGERIES, changed

each_mode = pytest.mark.parametrize("sample", one_of_each(), ids=mode)


class OneInbox:
    """As much of a deployment as `accept` asks: one inbox of one connector."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    def serves(self, name: str) -> bool:
        return name == "inbox"

    def inbox(self, name: str) -> Connector:
        return self._connector

    def renewed_inbox(self, name: str) -> None:
        """Its secrets were read a moment ago."""


def taking(connector: Connector) -> World:
    """A world whose one inbox is this one's."""
    made = world()
    deployment = cast(Deployment, OneInbox(connector))
    made.pipeline = replace(made.pipeline, deployment=deployment)
    return made


def refusal(pipeline: Pipeline, request: WebhookRequest) -> type[WebhookError] | None:
    """How a request is refused; None if it is taken."""
    try:
        pipeline.accept("inbox", request)
    except WebhookError as error:
        return type(error)
    return None


@pytest.mark.parametrize("forgery", FORGERIES)
@each_mode
def test_a_forged_request_is_refused_without_a_call_to_the_table(
    sample: Sample, forgery: str
) -> None:
    w = taking(sample.connector())
    for request in forged(sample, FORGERIES[forgery]):
        assert refusal(w.pipeline, request) is SignatureError
    assert (w.table.calls, w.bucket.objects, w.events) == (0, {}, [])


SIGNED = [sample for sample in one_of_each() if not sample.facts.unsigned_body]


@pytest.mark.parametrize("sample", SIGNED, ids=mode)
def test_a_changed_body_is_refused_without_a_call_to_the_table(sample: Sample) -> None:
    w = taking(sample.connector())
    refused = 0
    for request in changed(sample.request):
        before = w.table.calls
        if refusal(w.pipeline, request):
            refused += 1
            assert w.table.calls == before
    assert refused


@each_mode
def test_an_endless_body_is_refused_before_anything_looks_at_it(sample: Sample) -> None:
    w = taking(sample.connector())
    endless = b"x" * (sample.connector().max_body_bytes + 1)
    assert refusal(w.pipeline, replace(sample.request, body=endless)) is TooLargeError
    assert w.table.calls == 0


@each_mode
def test_a_secret_address_is_known_only_where_there_is_one(sample: Sample) -> None:
    w = taking(sample.connector())
    request = replace(sample.request, path_secret="guessed-guessed-guessed")
    wanted = SignatureError if sample.connector().secret_in_path else NotFoundError
    assert refusal(w.pipeline, request) is wanted
    assert w.table.calls == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
@each_mode
def test_another_method_without_a_proof_is_refused(sample: Sample, method: str) -> None:
    w = taking(sample.connector())
    bare = WebhookRequest(method=method, received_at=sample.request.received_at)
    assert refusal(w.pipeline, bare) is SignatureError
    assert w.table.calls == 0
