"""AWS End User Messaging: what its topic says, the function that hears it, and the way out."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore import exceptions as failures

import app
from chalicelib.errors import (
    ConflictError,
    DeliveryError,
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message, Receipt
from connectors.channels import sms_aws
from infra.local.simulators import sms
from tests.make_samples import NOW
from tests.recorded import answer_to, arrived, connector
from tests.samples_sms import AWS, LI, NUMBER, TOPIC, aws_post

URL = "https://askonce.example/webhooks/inbox"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    sms_aws._client.cache_clear()
    yield
    sms_aws._client.cache_clear()


def aws(**more: Any) -> Connector:
    return connector("sms_aws", AWS | more, URL)


def posted(message: str) -> WebhookRequest:
    return arrived(aws_post(message), NOW)


def said(**more: Any) -> str:
    return json.dumps(sms.aws_text(LI, NUMBER, "货呢?", message_id="i1") | more)


# In


@pytest.mark.parametrize(
    "message", ["Successfully validated SNS topic for Amazon SES event publishing.", "", "[]", "7"]
)
def test_a_word_of_aws_about_the_topic_is_nothing(message: str) -> None:
    assert aws().parse(posted(message)) == []


@pytest.mark.parametrize(
    "message",
    ["{", "{}", '{"messageBody": 7}', '{"messageBody": "x"}', "{" * 5000,
     '{"notificationType": "Received"}', said(originationNumber=None), said(messageBody=None)],
)  # fmt: skip
def test_what_is_no_text_is_a_payload_error(message: str) -> None:
    with pytest.raises(PayloadError):
        aws().parse(posted(message))


def test_without_an_id_of_its_own_that_of_sns_is_it() -> None:
    (message,) = aws().parse(posted(said(inboundMessageId="")))
    assert isinstance(message, Message)
    assert message.external_id == "made-up"


@pytest.mark.parametrize(
    ("event", "state"),
    [
        ("TEXT_QUEUED", "sent"),
        ("TEXT_SUCCESSFUL", "delivered"),
        ("TEXT_INVALID", "failed"),
        ("TEXT_TTL_EXPIRED", "failed"),
        ("TEXT_UNKNOWN", "failed"),
        ("TEXT_NEW", None),
        ("VOICE_ANSWERED", None),
    ],
)
def test_an_event_says_what_became_of_a_text(event: str, state: str | None) -> None:
    told = {"eventType": event, "messageId": "m9", "messageStatusDescription": "It ended so"}
    found = aws().parse(posted(json.dumps(told)))
    assert [(r.external_id, r.state) for r in found if isinstance(r, Receipt)] == (
        [("m9", state)] if state else []
    )
    assert all(r.reason == ("It ended so" if state == "failed" else "") for r in found)  # type: ignore[union-attr]  # receipts


# The function that the topic calls


class Taking:
    """A pipeline whose one inbox is under the topic, and that notes what it is given."""

    def __init__(self, fault: Exception | None = None, **inboxes: Any) -> None:
        self.taken: list[tuple[str, WebhookRequest]] = []
        self.fault = fault
        self.document = self
        self.inboxes = inboxes or {"sms": {"connector": "sms_aws", "topic_arns": TOPIC}}
        self.deployment = self

    def serves(self, name: str) -> bool:
        return name != "elsewhere"

    def accept(self, inbox: str, request: WebhookRequest) -> None:
        self.taken.append((inbox, request))
        if self.fault:
            raise self.fault


def event(topic: str = TOPIC) -> dict[str, Any]:
    """As Lambda gets it: addresses are named a little otherwise than over HTTP."""
    told: dict[str, Any] = sms.sns_fields(topic, said(), at=NOW, message_id="m1")
    told |= {"SigningCertUrl": told.pop("SigningCertURL"), "UnsubscribeUrl": ""}
    told |= {"Subject": None, "MessageAttributes": {}, "Signature": "EXAMPLE"}
    return {"Records": [{"EventSource": "aws:sns", "Sns": told}]}


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> Taking:
    pipeline = Taking(
        sms={"topic_arns": TOPIC},
        both={"topic_arns": ["arn:aws:sns:us-east-1:123456789012:other", TOPIC]},
        other={"topic_arns": "arn:aws:sns:us-east-1:123456789012:other"},
        elsewhere={"topic_arns": TOPIC},
        wechat={"connector": "wechat"},
    )
    monkeypatch.setattr(app, "pipeline", lambda: pipeline)
    return pipeline


def test_each_inbox_under_the_topic_takes_what_it_says(took: Taking) -> None:
    app.on_sns_message(event(), None)
    assert [name for name, _ in took.taken] == ["sms", "both"]
    request = took.taken[0][1]
    assert request.event_source == TOPIC
    ours = aws()
    assert ours.handshake(request) is None
    ours.verify(request)
    (message,) = ours.parse(request)
    assert isinstance(message, Message)
    assert (message.text, message.external_id) == ("货呢?", "i1")
    assert message.sent_at.isoformat() == "2026-01-01T09:00:00+00:00"


def test_a_topic_of_nobody_is_heard_by_nobody(took: Taking) -> None:
    app.on_sns_message(event("arn:aws:sns:us-east-1:123456789012:of-nobody"), None)
    assert took.taken == []


def test_a_refusal_is_final_and_anything_else_comes_again(took: Taking) -> None:
    took.fault = SignatureError("no")
    app.on_sns_message(event(), None)
    took.fault = ConflictError("again")
    with pytest.raises(RuntimeError, match="hand it over again"):
        app.on_sns_message(event(), None)


# Out


def answer(text: str = "明天") -> Message:
    (message,) = aws().parse(posted(said()))
    assert isinstance(message, Message)
    return answer_to(message, text)


@contextmanager
def at_aws(status: int = 200, body: Any = None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its API on loopback: (address, what it was asked)."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            target = self.headers["X-Amz-Target"].rpartition(".")[2]
            asked.append({"target": target, **json.loads(content)})
            told = json.dumps({"MessageId": "m9"} if body is None else body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_an_answer_is_sent_from_the_configured_number() -> None:
    with at_aws() as (url, asked):
        sent = aws(api_url=url, configuration_set="askonce").send(answer("明天 😀"))
    assert sent == "m9"
    (told,) = asked
    assert told["target"] == "SendTextMessage"
    assert (told["DestinationPhoneNumber"], told["OriginationIdentity"]) == (LI, NUMBER)
    assert (told["MessageBody"], told["ConfigurationSetName"]) == ("明天 😀", "askonce")


@pytest.mark.parametrize(
    ("status", "code", "more", "error", "says"),
    [
        (400, "ThrottlingException", {}, RetryableError, "ThrottlingException"),
        (500, "InternalServerException", {}, RetryableError, "InternalServerException"),
        (503, "ServiceUnavailable", {}, RetryableError, "ServiceUnavailable"),
        (400, "ValidationException", {}, RejectedError, "ValidationException"),
        (400, "AccessDeniedException", {}, RejectedError, "AccessDeniedException"),
        (
            400,
            "ConflictException",
            {"Reason": "DESTINATION_PHONE_NUMBER_OPTED_OUT"},
            RejectedError,
            "the customer has opted out",
        ),
    ],
)
def test_a_refusal_says_whether_to_try_again_and_is_not_tried_twice(
    status: int, code: str, more: dict[str, str], error: type[DeliveryError], says: str
) -> None:
    with (
        at_aws(status, {"__type": code, "Message": "x"} | more) as (url, asked),
        pytest.raises(error, match=says),
    ):
        aws(api_url=url).send(answer())
    assert len(asked) == 1


def test_a_server_that_is_not_there_was_not_called() -> None:
    with at_aws() as (url, _):
        pass
    with pytest.raises(RetryableError) as caught:
        aws(api_url=url).send(answer())
    assert not caught.value.uncertain


@pytest.mark.parametrize(
    ("broken", "error", "uncertain"),
    [
        (failures.ReadTimeoutError(endpoint_url="x"), RetryableError, True),
        (failures.ConnectionClosedError(endpoint_url="x"), RetryableError, True),
        (failures.ConnectTimeoutError(endpoint_url="x"), RetryableError, False),
        (failures.NoCredentialsError(), RetryableError, False),
        (failures.ParamValidationError(report="x"), RejectedError, False),
        (ValueError("x"), RetryableError, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_broken_call_says_whether_it_may_have_acted(
    broken: Exception, error: type[DeliveryError], uncertain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def send_text_message(self, **asked: Any) -> None:
            raise broken

    monkeypatch.setattr(sms_aws, "_client", lambda region, endpoint: Broken())
    with pytest.raises(error) as caught:
        aws().send(answer())
    assert getattr(caught.value, "uncertain", False) == uncertain
    monkeypatch.undo()


def test_a_long_answer_goes_out_in_numbered_pieces() -> None:
    long = answer("明天发货。" * 400)
    pieces = [piece.text for piece in aws().pieces(long)]
    assert "".join(piece.partition(") ")[2] for piece in pieces) == long.text
    with pytest.raises(RejectedError):
        aws().send(long)


@pytest.mark.parametrize(
    "topics",
    ["", "arn:aws:sns:us-east-1:123:x", "arn:aws:sqs:us-east-1:123456789012:x", "*", [],
     "arn:aws:sns:us-east-1:123456789012:*"],
)  # fmt: skip
def test_a_topic_that_is_none_is_a_fault_of_the_settings(topics: Any) -> None:
    with pytest.raises(ValueError, match="topic_arns"):
        aws(topic_arns=topics)
