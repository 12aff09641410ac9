"""The Lambda functions: routes, stream, queues and schedule. Translation only, no decision.

Everything is wired on first use (`pipeline`), so that importing this file defines and does nothing.
"""

import base64
import binascii
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from chalice.app import Chalice, Rate, Request, Response

from chalicelib import log
from chalicelib.errors import (
    ConfigurationError,
    NotFoundError,
    SignatureError,
    TooLargeError,
    TooManyError,
    WebhookError,
)
from chalicelib.ports import WebhookRequest, WebhookResponse

if TYPE_CHECKING:  # loaded on first use, below
    from chalicelib.aws import SqsQueue
    from chalicelib.pipeline import Pipeline

PREFIX = os.environ.get("ASKONCE_PREFIX", "askonce")
FORWARD_QUEUE = f"{PREFIX}-forward.fifo"
DELIVER_QUEUE = f"{PREFIX}-deliver.fifo"
#: infra/overrides.yaml puts the real one in its place; the local pump reads the table's name.
STREAM_ARN = f"arn:aws:dynamodb:us-east-1:123456789012:table/{PREFIX}/stream/latest"
#: Where services of AWS publish what is for us: two-way SMS and its delivery events.
INBOUND_TOPIC = f"{PREFIX}-inbound"
#: How long a claim outlives the function that made it.
LEASE_MARGIN_SECONDS = 2.0
#: When to come back, for who met trouble that passes.
RETRY_AFTER_SECONDS = "5"

app = Chalice(app_name="askonce")


def part(name: str) -> Chalice:
    """The app, where this stack has that part of it; else one that nobody asks."""
    parts = os.environ.get("ASKONCE_PARTS", "core edge").split()
    return app if name in parts else Chalice(app_name=app.app_name)


#: The edge takes webhooks, in any number of stacks; the core, in one, has all the workers.
edge, core = part("edge"), part("core")
# These arrive as base64, undecoded. Never text/xml: Chalice answers no text in a binary type.
app.api.binary_types = ["multipart/form-data", "message/rfc822", "application/octet-stream"]

STATUS: dict[type[Exception], int] = {
    SignatureError: 401,
    NotFoundError: 404,
    TooLargeError: 413,
    TooManyError: 429,
    ConfigurationError: 503,
}


@cache
def pipeline() -> "Pipeline":
    """The pipeline of this container."""
    from chalicelib import direct, settings
    from chalicelib.aws import WORST_CALL_SECONDS, DynamoTable, S3Bucket
    from chalicelib.pipeline import Pipeline
    from chalicelib.store import Store
    from chalicelib.tokens import StoredTokens
    from connectors.registry import CONNECTORS, HELPDESKS

    document = settings.read(settings.default_path())
    table = DynamoTable(PREFIX, direct.from_environment())
    tokens = StoredTokens(table, now, time.sleep)
    return Pipeline(
        store=Store(
            table,
            S3Bucket(os.environ.get("ASKONCE_BUCKET", PREFIX)),
            queue(FORWARD_QUEUE),
            queue(DELIVER_QUEUE),
            now,
            document.policy.retention_days,
        ),
        deployment=settings.Deployment(document, CONNECTORS, HELPDESKS, tokens),
        clock=now,
        report=log.event,
        worst_call_seconds=WORST_CALL_SECONDS,
    )


@cache
def queue(name: str) -> "SqsQueue":
    from chalicelib.aws import SqsQueue

    return SqsQueue(name)


def now() -> datetime:
    return datetime.now(UTC)


# From the channels


@edge.route("/webhooks/{inbox}", methods=["GET", "POST"], content_types=["*/*"])
def webhook(inbox: str) -> Response:
    """A provider's webhook, or its set-up probe."""
    return respond(inbox, lambda request: pipeline().accept(inbox, request))


@edge.route("/webhooks/{inbox}/{secret}", methods=["GET", "POST"], content_types=["*/*"])
def secret_webhook(inbox: str, secret: str) -> Response:
    """The webhook of a provider that signs nothing: its address is the secret."""
    return respond(
        inbox, lambda request: pipeline().accept(inbox, replace(request, path_secret=secret))
    )


@edge.route("/webchat/{inbox}/messages", methods=["GET", "POST", "OPTIONS"], content_types=["*/*"])
def webchat_messages(inbox: str) -> Response:
    """What a visitor says, and what a visitor reads; reading waits, when asked to (a long poll)."""

    def handle(request: WebhookRequest) -> WebhookResponse:
        if request.method == "POST":
            return pipeline().accept(inbox, request)
        if request.method == "OPTIONS":
            return pipeline().page(inbox, "messages", request)
        return pipeline().read(
            inbox,
            request,
            _number(request, "after"),
            wait_seconds=min(_number(request, "wait"), 25),
            mark=request.param("mark") if "mark" in dict(request.query) else None,
        )

    return respond(inbox, handle)


def _number(request: WebhookRequest, name: str) -> int:
    if name not in dict(request.query):
        return 0
    text = request.param(name)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise WebhookError(f"{name} is no number")
    return int(text)


@edge.route("/webchat/{inbox}/session", methods=["POST", "OPTIONS"], content_types=["*/*"])
def webchat_session(inbox: str) -> Response:
    """A visitor's token."""
    return respond(inbox, lambda request: pipeline().page(inbox, "session", request))


@edge.route("/webchat/{inbox}/uploads", methods=["POST", "OPTIONS"], content_types=["*/*"])
def webchat_uploads(inbox: str) -> Response:
    """Where a visitor may put a file."""

    def handle(request: WebhookRequest) -> WebhookResponse:
        if request.method == "OPTIONS":
            return pipeline().page(inbox, "uploads", request)
        return pipeline().upload(inbox, request)

    return respond(inbox, handle)


@edge.route("/webchat/{inbox}/signals", methods=["POST", "OPTIONS"], content_types=["*/*"])
def webchat_signals(inbox: str) -> Response:
    """A visitor is typing, or has read."""

    def handle(request: WebhookRequest) -> WebhookResponse:
        if request.method == "OPTIONS":
            return pipeline().page(inbox, "signals", request)
        return pipeline().signal(inbox, request)

    return respond(inbox, handle)


@edge.route("/webchat/{inbox}/widget.js", methods=["GET"])
def webchat_widget(inbox: str) -> Response:
    """The widget."""
    return respond(inbox, lambda request: pipeline().page(inbox, "widget.js", request))


# From your own system


@edge.route("/contacts", methods=["POST"], content_types=["*/*"])
def contacts() -> Response:
    """Which addresses are one customer's: signed as Standard Webhooks, 404 where not configured."""

    def handle(request: WebhookRequest) -> WebhookResponse:
        from chalicelib import customers
        from chalicelib.contacts import Contacts
        from chalicelib.pipeline import with_fresh_secrets
        from connectors.signing import StandardWebhook

        line = pipeline()
        api = line.deployment.contacts_api()
        if len(request.body) > customers.MAX_BYTES:
            raise TooLargeError(f"over {customers.MAX_BYTES} bytes")
        with_fresh_secrets(
            api,
            lambda own: StandardWebhook(own.secrets).verify(request),
            line.deployment.renewed_contacts_api,
        )
        policy = line.deployment.document.policy.contacts
        known = Contacts(line.store, line.clock, policy)
        response = customers.take(customers.Customers(known, line.clock), request.body)
        line.report("contacts.told", status=response.status)
        return response

    return respond(None, handle)


# From the helpdesks


@edge.route("/replies/{helpdesk}", methods=["POST", "HEAD"], content_types=["*/*"])
def replies(helpdesk: str) -> Response:
    """A helpdesk's webhook: an agent answered, or closed a ticket.

    Some look first whether the address is there at all (Intercom, by HEAD): that tells nothing.
    """
    if cast(Request, app.current_request).method == "HEAD":
        return Response(body="", status_code=200)
    return respond(None, lambda request: pipeline().accept_reply(helpdesk, request))


@edge.route("/replies/{helpdesk}/{secret}", methods=["POST"], content_types=["*/*"])
def secret_replies(helpdesk: str, secret: str) -> Response:
    """The webhook of a helpdesk that signs nothing: its address is the secret."""
    return respond(
        None,
        lambda request: pipeline().accept_reply(helpdesk, replace(request, path_secret=secret)),
    )


# Workers


@core.on_dynamodb_record(stream_arn=STREAM_ARN, batch_size=10)
def on_stored(event: Any) -> dict[str, Any]:
    """The table's stream: every message once it is stored."""
    from chalicelib import stream
    from chalicelib.aws import sending_together

    records = event.to_dict()["Records"]
    return stream.consume(records, lambda each: pipeline().relay(each), sending_together)


@core.on_sqs_message(queue=FORWARD_QUEUE, batch_size=10)
def forward(event: Any) -> dict[str, Any]:
    """The queue to the helpdesk."""
    return work_through(event, FORWARD_QUEUE, pipeline().forward)


@core.on_sqs_message(queue=DELIVER_QUEUE, batch_size=10)
def deliver(event: Any) -> dict[str, Any]:
    """The queue to the channels."""
    return work_through(event, DELIVER_QUEUE, pipeline().deliver)


@core.on_sns_message(topic=INBOUND_TOPIC)
def on_sns_message(event: Any) -> None:
    """A topic of ours: each inbox under it takes what SNS would have posted, on IAM's word."""
    for record in event.to_dict()["Records"]:
        told = record["Sns"]
        request = WebhookRequest(
            method="POST",
            body=json.dumps(told).encode(),
            received_at=now(),
            event_source=told["TopicArn"],
            id=told.get("MessageId", ""),
        )
        for inbox in _inboxes_under(told["TopicArn"]):
            try:
                pipeline().accept(inbox, request)
            except WebhookError as error:  # again would be the same; whatever else is raised is not
                log.event("refused", inbox=inbox, why=type(error).__name__, request=request.id)
            except Exception as error:  # noqa: BLE001  # Lambda would log what it says
                _log_failure(error, inbox=inbox, request=request.id)
                raise RuntimeError("SNS has to hand it over again") from None


def _inboxes_under(topic_arn: str) -> list[str]:
    """The inboxes whose setting topic_arns names the topic, alone or among others."""
    deployment = pipeline().deployment
    arns = {name: own.get("topic_arns") for name, own in deployment.document.inboxes.items()}
    return [
        name
        for name, own in arns.items()
        if topic_arn in (own if isinstance(own, list) else [own]) and deployment.serves(name)
    ]


@core.schedule(Rate(1, unit=Rate.MINUTES))
def tick(event: Any) -> None:
    """Once a minute."""
    pipeline().tick()


def work_through(event: Any, name: str, step: Callable[[str, float], None]) -> dict[str, Any]:
    """A batch of one queue; claims end a little after this invocation must have ended."""
    from chalicelib.consumer import consume

    def remaining_seconds() -> float:
        return float(event.context.get_remaining_time_in_millis()) / 1000

    records = event.to_dict()["Records"]
    if len(records) > 1:  # they may take threads
        from connectors import http

        http.load()
    return consume(
        records,
        lambda message_id: step(message_id, remaining_seconds() + LEASE_MARGIN_SECONDS),
        queue(name).delay,
        remaining_seconds,
        at_once=pipeline().deployment.document.conversations_at_once,
    )


# Between API Gateway and the core


def respond(inbox: str | None, handle: Callable[[WebhookRequest], WebhookResponse]) -> Response:
    """Run a handler on the current request; every error becomes its status, and nothing more."""
    headers: dict[str, str] = {}
    try:
        request = translate(cast(Request, app.current_request))
        if inbox:
            headers = dict(pipeline().response_headers(inbox, request))
        response = handle(request)
    except (WebhookError, ConfigurationError) as error:
        response = WebhookResponse(status=STATUS.get(type(error), 400), headers=_after(error))
        why = (
            str(error).splitlines()[0]
            if isinstance(error, ConfigurationError)
            else (type(error).__name__)
        )
        log.event("refused", status=response.status, inbox=inbox, why=why, request=_request_id())
    except Exception as error:  # noqa: BLE001  # Chalice would log what it says: a customer's words, perhaps
        response = _unforeseen(error, inbox)
    return Response(
        body=response.body,
        status_code=response.status,
        headers={"Content-Type": response.content_type, **headers, **response.headers},
    )


def _request_id() -> str | None:
    """The gateway's id of the current request, for its access log names it, too."""
    context = cast(Request, app.current_request).to_original_event().get("requestContext", {})
    return cast(str | None, context.get("requestId"))


def _unforeseen(error: Exception, inbox: str | None) -> WebhookResponse:
    """503 for what passes by itself, a table that does not answer; 500 for the rest."""
    from chalicelib.aws import passes

    status, headers = (503, {"Retry-After": RETRY_AFTER_SECONDS}) if passes(error) else (500, {})
    _log_failure(error, inbox=inbox, request=_request_id(), status=status)
    return WebhookResponse(status=status, headers=headers)


def _log_failure(
    error: Exception, *, inbox: str | None, request: str | None, status: int | None = None
) -> None:
    """What we did not expect, by its kind and place."""
    why, place = type(error).__name__, log.place(error)
    log.event("failed", status=status, inbox=inbox, request=request, why=why, place=place)


def _after(error: Exception) -> dict[str, str]:
    """When to come back, for whoever came too often."""
    if not isinstance(error, TooManyError):
        return {}
    return {"Retry-After": str(error.retry_after_seconds)}


def translate(request: Request) -> WebhookRequest:
    """API Gateway's event (format 1.0, of either kind of API) as a WebhookRequest. WebhookError."""
    event = request.to_original_event()
    body = (event.get("body") or "").encode("utf-8", "surrogatepass")
    if event.get("isBase64Encoded"):
        try:
            body = base64.b64decode(body, validate=True)
        except binascii.Error:
            raise WebhookError("the gateway's base64 is broken") from None
    query = event.get("multiValueQueryStringParameters") or {}
    headers = event.get("multiValueHeaders") or {}
    context = event.get("requestContext", {})
    arrived = context.get("requestTimeEpoch")
    return WebhookRequest(
        method=event["httpMethod"],
        headers={name.lower(): tuple(values) for name, values in headers.items()},
        query=tuple((name, value) for name, values in query.items() for value in values),
        body=body,
        received_at=datetime.fromtimestamp(arrived / 1000, UTC) if arrived else now(),
        source_ip=context.get("identity", {}).get("sourceIp", ""),
        id=context.get("requestId") or "",
    )
