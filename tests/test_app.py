"""The Lambda functions, through events as AWS makes them: statuses, and how many calls are made."""

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from chalice.local import LambdaContext

import app
from chalicelib import aws, direct, log
from chalicelib.settings import CONFIG_ENVIRONMENT
from infra.local import simulators
from infra.local.simulators import Sent
from tests import http_api
from tests.loopback import nobody, silent
from tests.recorded import arrived

CONFIG = """
public_url = "https://askonce.example"
helpdesk = "desk"

[inboxes.shop]
connector = "wechat"
app_id = "wx5f0e1c2d3b4a6978"
app_secret = "env:APP_SECRET"
token = "env:WECHAT_TOKEN"
encoding_aes_key = "env:AES_KEY"

[inboxes.sms]
connector = "sms_twilio"
account_sid = "AC5ef8732a3c49700934481addd5ce1659"
auth_token = "env:TWILIO_TOKEN"
number = "+14155550100"

[inboxes.mail]
connector = "email_mime"
address = "help@shop.example"
signing_secret = "env:MAIL_SECRET"
smtp_url = "env:SMTP_URL"

[inboxes.chat]
connector = "webchat"
token_secret = "env:CHAT_SECRET"
origins = ["https://shop.example"]

[inboxes.broken]
connector = "sms_twilio"
account_sid = "AC1234"
auth_token = "env:NOWHERE"
number = "+14155550100"

[helpdesks.desk]
connector = "webhook"
url = "https://desk.example/askonce"
secret = "env:MAIL_SECRET"

[helpdesks.unsigned]
connector = "freshdesk"
url = "https://shop.freshdesk.com"
api_key = "env:APP_SECRET"
path_secret = "env:DESK_ADDRESS"
"""
AES_KEY = base64.b64encode(bytes(range(32))).decode().rstrip("=")
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
ENVIRONMENT = {
    "DESK_ADDRESS": "made-up-end-of-the-address",
    "APP_SECRET": "s",
    "WECHAT_TOKEN": "a-token-of-wechat",
    "AES_KEY": AES_KEY,
    "TWILIO_TOKEN": "twilio-token",
    "MAIL_SECRET": SECRET,
    "SMTP_URL": "smtp://127.0.0.1:2525",
    "CHAT_SECRET": "c" * 40,
}
WECHAT = {"app_id": "wx5f0e1c2d3b4a6978", "token": "a-token-of-wechat", "aes_key": AES_KEY}
TWILIO = {
    "account_sid": "AC5ef8732a3c49700934481addd5ce1659",
    "token": "twilio-token",
    "number": "+14155550100",
    "public_url": "https://askonce.example",
}


@pytest.fixture(autouse=True)
def deployed(moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The app as it runs in one container, with moto for AWS."""
    config = tmp_path / "askonce.toml"
    config.write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv(CONFIG_ENVIRONMENT, str(config))
    monkeypatch.setenv("ASKONCE_BUCKET", moto_bucket)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    app.pipeline.cache_clear()
    app.queue.cache_clear()
    yield
    app.pipeline.cache_clear()
    app.queue.cache_clear()


@pytest.fixture
def calls() -> list[str]:
    """The AWS operations, by name, from here on."""
    made: list[str] = []

    def note(model: Any, **_: Any) -> None:
        made.append(model.name)

    for service in ("dynamodb", "s3", "sqs"):
        aws.client(service).meta.events.register("before-call", note)
    return made


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """What is logged, from here on."""
    lines: list[dict[str, Any]] = []
    log.listeners.append(lines.append)
    yield lines
    log.listeners.remove(lines.append)


#: What a desk that signs nothing says of a ticket that is not ours.
CLOSED = b'{"event": "closed", "ticket_id": "21"}'
ROUTES = {"webhooks": "/webhooks/{inbox}", "replies": "/replies/{helpdesk}"}


def event_of(sent: Sent, **changes: Any) -> dict[str, Any]:
    """API Gateway's event (REST API, version 1) for a request."""
    _, area, name, *rest = sent.path.split("/")
    resource = ROUTES.get(area, "/".join(["/webchat/{inbox}", *rest]))
    parameters = {"helpdesk" if area == "replies" else "inbox": name}
    if area == "replies" and rest:
        resource, parameters["secret"] = f"{resource}/{{secret}}", rest[0]
    binary = sent.headers.get("Content-Type", "") in app.app.api.binary_types
    headers = dict(sent.headers)
    event = {
        "resource": resource,
        "path": sent.path,
        "httpMethod": sent.method,
        "headers": headers,
        "multiValueHeaders": {k: [v] for k, v in headers.items()},
        "queryStringParameters": dict(sent.query) or None,
        "multiValueQueryStringParameters": {k: [v] for k, v in sent.query.items()} or None,
        "pathParameters": parameters,
        "stageVariables": None,
        "body": base64.b64encode(sent.body).decode() if binary else sent.body.decode(),
        "isBase64Encoded": binary,
        "requestContext": {"resourcePath": resource, "httpMethod": sent.method, "identity": {}},
    }
    return event | changes


def call(sent: Sent, **changes: Any) -> dict[str, Any]:
    """The API's answer to a request."""
    return dict(app.app(event_of(sent, **changes), LambdaContext("api_handler", 512, 29_000)))


def call_by_http_api(sent: Sent) -> dict[str, Any]:
    """The answer to the same request where an HTTP API hands it over."""
    told = event_of(sent)
    request = arrived(sent, time.time())
    event = http_api.event_of(request, told["resource"], told["pathParameters"])
    return dict(app.app(event, LambdaContext("api_handler", 512, 29_000)))


def wechat(text: str = "你好，龙井茶怎么保存？") -> Sent:
    return simulators.wechat(WECHAT, "oLi", simulators.wechat_text(text), inbox="shop")


def sms(text: str = "Where is my tea?", inbox: str = "sms") -> Sent:
    return simulators.twilio(TWILIO, "+8613800138000", text, inbox=inbox)


def mail(raw: bytes = b"From: li@example.com\r\nMessage-ID: <1@x>\r\n\r\nhello?") -> Sent:
    return simulators.signed_mail(SECRET, raw, {"dmarc": "pass"}, inbox="mail")


def chat(text: str = "Is anybody there to help me?") -> Sent:
    origin = "https://shop.example"
    session = call(simulators.webchat_session(origin, inbox="chat"))
    token = json.loads(session["body"])["token"]
    return simulators.webchat_message(token, origin, text, inbox="chat")


GENUINE: dict[str, Callable[[], Sent]] = {
    "wechat": wechat,
    "sms": sms,
    "mail": mail,
    "chat": chat,
}


def forged(sent: Sent) -> Sent:
    """The same with another body and signature."""
    headers = {k: v for k, v in sent.headers.items() if k.lower() != "authorization"}
    query = sent.query | ({"msg_signature": "0" * 40} if sent.query else {})
    return Sent(sent.method, sent.path, headers, query, sent.body + b" ")


# Statuses


@pytest.mark.parametrize("channel", GENUINE)
def test_a_genuine_webhook_is_taken(channel: str) -> None:
    assert call(GENUINE[channel]())["statusCode"] in (200, 202)


@pytest.mark.parametrize("channel", GENUINE)
def test_an_http_api_is_answered_what_a_rest_api_is(channel: str) -> None:
    sent = GENUINE[channel]()
    answer = call_by_http_api(sent)
    again = call(sent)
    assert answer["statusCode"] in (200, 202)
    assert (answer["statusCode"], answer["body"]) == (again["statusCode"], again["body"])


@pytest.mark.parametrize("channel", GENUINE)
def test_a_forged_one_is_401_with_an_empty_body_and_one_line_without_content(
    channel: str, events: list[dict[str, Any]]
) -> None:
    sent = forged(GENUINE[channel]())
    del events[:]
    answer = call(sent)
    assert (answer["statusCode"], answer["body"]) == (401, "")
    (line,) = events
    assert line.keys() == {"at", "event", "status", "inbox", "why"}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (Sent("POST", "/webhooks/nobody"), 404),
        (Sent("POST", "/replies/nobody"), 404),
        (Sent("GET", "/webchat/sms/widget.js"), 404),
        (Sent("POST", "/webhooks/shop", body=b"x" * 70_000), 413),
        (Sent("POST", "/webhooks/broken"), 503),
        (Sent("POST", "/replies/desk"), 401),
        (Sent("POST", "/replies/desk/a-secret-of-nobody"), 404),
        (Sent("POST", "/replies/unsigned", body=CLOSED), 401),
        (Sent("POST", "/replies/unsigned/made-up-end-of-the-addresS", body=CLOSED), 401),
        (Sent("POST", "/replies/unsigned/made-up-end-of-the-address", body=CLOSED), 404),
        (Sent("POST", "/replies/unsigned/made-up-end-of-the-address", body=b"{"), 200),
        (Sent("HEAD", "/replies/desk"), 200),
        (Sent("HEAD", "/replies/nobody"), 200),
    ],
    ids=lambda x: x.path if isinstance(x, Sent) else str(x),
)
def test_a_request_that_is_not_taken_has_its_own_status(sent: Sent, status: int) -> None:
    assert call(sent)["statusCode"] == status


def test_a_broken_inbox_says_what_is_wrong_and_silences_no_other(
    events: list[dict[str, Any]],
) -> None:
    call(Sent("POST", "/webhooks/broken"))
    assert 'inbox "broken": auth_token is missing' in str(events[-1]["why"])
    assert call(sms())["statusCode"] == 200


def test_the_gateways_broken_base64_is_400() -> None:
    assert call(mail(), body="&&&")["statusCode"] == 400


def test_an_unreadable_mail_is_taken_and_kept() -> None:
    assert call(mail(b"Subject: from nobody\r\n\r\nhello"))["statusCode"] == 202
    (held,) = app.pipeline().store.all_quarantined()
    assert (held.inbox, held.reason) == ("mail", "the mail has no author's address")


def test_wechats_handshake_gives_the_echo_back() -> None:
    signed = {k: v for k, v in wechat().query.items() if k in ("signature", "timestamp", "nonce")}
    answer = call(Sent("GET", "/webhooks/shop", query={**signed, "echostr": "1234567890"}))
    assert (answer["statusCode"], answer["body"]) == (200, "1234567890")


def test_wechat_hears_the_bare_word_success() -> None:
    answer = call(wechat())
    assert answer["body"] == "success"
    assert answer["headers"]["Content-Type"] == "text/plain; charset=utf-8"


def test_even_a_refusal_lets_the_browser_read_its_status() -> None:
    origin = "https://shop.example"
    refused = call(simulators.webchat_message("not.a.token", origin, "hello", inbox="chat"))
    assert refused["statusCode"] == 401
    assert refused["headers"]["Access-Control-Allow-Origin"] == origin


def test_another_sites_origin_is_allowed_nothing() -> None:
    refused = call(simulators.webchat_session("https://evil.example", inbox="chat"))
    assert refused["statusCode"] == 401
    assert "Access-Control-Allow-Origin" not in refused["headers"]


def test_whoever_asks_too_often_hears_when_to_come_back(
    deployed: None, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_ENVIRONMENT, limited(visitor_per_minute=2))
    app.pipeline.cache_clear()
    sent = chat()
    assert call(sent)["statusCode"] == 200
    del calls[:]
    refused = call(sent)
    assert refused["statusCode"] == 429
    assert refused["headers"]["Retry-After"] == "60"
    assert refused["headers"]["Access-Control-Allow-Origin"] == "https://shop.example"
    assert calls == []


def limited(**settings: int) -> str:
    """The configuration with other settings of the web chat; its path."""
    path = Path(os.environ[CONFIG_ENVIRONMENT])
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    content = CONFIG.replace("[inboxes.chat]\n", f"[inboxes.chat]\n{more}")
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_even_what_nobody_foresaw_lets_the_browser_read_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = chat()
    fault: list[str] = []

    def fail(**_: Any) -> None:
        fault.append("PutItem")
        raise RuntimeError("out of order")

    aws.client("dynamodb").meta.events.register_first("before-call.dynamodb.PutItem", fail)
    answer = call(sent)
    assert (answer["statusCode"], answer["body"], fault) == (500, "", ["PutItem"])
    assert answer["headers"]["Access-Control-Allow-Origin"] == "https://shop.example"


def tabled(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is there, and nobody's patience is long."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    monkeypatch.setattr(direct, "READ_SECONDS", 0.05)
    aws.client.cache_clear()
    app.pipeline.cache_clear()


@pytest.mark.parametrize("channel", GENUINE)
def test_while_the_table_does_not_answer_who_asks_is_told_to_come_again(
    channel: str, monkeypatch: pytest.MonkeyPatch, events: list[dict[str, Any]]
) -> None:
    sent = GENUINE[channel]()
    with silent() as mute:
        for url, why in ((mute, "ReadTimeoutError"), (nobody(), "EndpointConnectionError")):
            tabled(url, monkeypatch)
            answer = call(sent)
            assert (answer["statusCode"], answer["body"]) == (503, "")
            assert answer["headers"]["Retry-After"] == "5"
            line = events[-1]
            assert (line["event"], line["status"], line["why"]) == ("failed", 503, why)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ThrottlingException", 503),
        ("ProvisionedThroughputExceededException", 503),
        ("InternalServerError", 503),
        ("AccessDeniedException", 500),  # again would be the same
        ("ResourceNotFoundException", 500),
    ],
)
def test_of_what_the_table_says_only_what_passes_is_to_be_tried_again(
    code: str, status: int
) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code}}, "PutItem")

    aws.client("dynamodb").meta.events.register_first("before-call.dynamodb.PutItem", refuse)
    assert call(sms())["statusCode"] == status


@pytest.mark.parametrize("page", ["messages", "session", "uploads", "signals"])
def test_a_browser_may_ask_before_it_asks(page: str) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    answer = call(Sent("OPTIONS", f"/webchat/chat/{page}", asked))
    assert answer["statusCode"] == 204
    assert answer["headers"]["Access-Control-Allow-Origin"] == "https://shop.example"
    assert answer["headers"]["Vary"] == "Origin"
    assert call_by_http_api(Sent("OPTIONS", f"/webchat/chat/{page}", asked)) == answer


# Calls


@pytest.mark.parametrize("channel", ["sms", "mail"])
def test_one_call_makes_a_message_durable_and_is_all(channel: str, calls: list[str]) -> None:
    call(GENUINE[channel]())
    assert calls == ["PutItem"]


@pytest.mark.parametrize("channel", ["wechat", "chat"])
def test_where_an_answer_is_possible_the_first_call_makes_it_durable(
    channel: str, calls: list[str]
) -> None:
    call(GENUINE[channel]())
    assert calls[0] == "PutItem"
    assert len(calls) > 1


@pytest.mark.parametrize("channel", GENUINE)
def test_a_redelivery_takes_one_call(channel: str, calls: list[str]) -> None:
    sent = GENUINE[channel]()
    first = call(sent)
    del calls[:]
    assert call(sent)["body"] == first["body"]
    assert calls == ["PutItem"]


@pytest.mark.parametrize("channel", GENUINE)
def test_a_refused_request_takes_none(channel: str, calls: list[str]) -> None:
    sent = forged(GENUINE[channel]())
    del calls[:]
    call(sent)
    assert calls == []


def test_a_line_with_a_file_takes_no_call_to_the_bucket(calls: list[str]) -> None:
    token = chat().headers["Authorization"].removeprefix("Bearer ")
    file = simulators.File("a.png", "image/png", b"png")
    origin = "https://shop.example"
    asked = simulators.webchat_upload(token, origin, file, inbox="chat")
    del calls[:]
    offer = json.loads(call(asked)["body"])
    assert calls == []
    sent = simulators.webchat_message(
        token, origin, "", file=file, upload=offer["upload"], inbox="chat"
    )
    assert call(sent)["statusCode"] == 200
    assert calls[0] == "PutItem"
    assert not [name for name in calls if "Object" in name]


def test_an_attachment_goes_to_the_bucket_before_the_message_that_names_it(
    calls: list[str],
) -> None:
    raw = simulators.email(
        SECRET, sender="li@example.com", name="Li", to="help@shop.example", text="see",
        file=simulators.File("a.png", "image/png", b"png"), inbox="mail",
    )  # fmt: skip
    call(raw)
    assert calls == ["PutObject", "PutItem"]


# Workers


def stream_event(*ids: str, kind: str = "message", name: str = "INSERT") -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventName": name,
                "eventSource": "aws:dynamodb",
                "dynamodb": {
                    "SequenceNumber": str(n),
                    "NewImage": {"pk": {"S": "MSG#"}, "sk": {"S": i}, "kind": {"S": kind}},
                },
            }
            for n, i in enumerate(ids)
        ]
    }


def queue_event(*ids: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"sqs-{n}",
                "receiptHandle": "none",
                "body": json.dumps({"message_id": i}),
                "attributes": {"MessageGroupId": i, "ApproximateReceiveCount": "1"},
            }
            for n, i in enumerate(ids)
        ]
    }


def run(function: Any, event: dict[str, Any]) -> Any:
    return function(event, LambdaContext("function", 512, 60_000))


def stored_id() -> str:
    call(sms())
    return str(next(iter(app.pipeline().store.unfinished())))


def test_the_stream_brings_a_message_to_its_queue() -> None:
    message = stored_id()
    assert run(app.on_stored, stream_event(message)) == {"batchItemFailures": []}
    queue = aws.client("sqs").get_queue_url(QueueName=app.FORWARD_QUEUE)["QueueUrl"]
    (received,) = aws.client("sqs").receive_message(QueueUrl=queue)["Messages"]
    assert json.loads(received["Body"]) == {"message_id": message}


def test_the_stream_passes_over_what_is_no_new_message(calls: list[str]) -> None:
    run(app.on_stored, stream_event("x", kind="other"))
    run(app.on_stored, stream_event("x", name="MODIFY"))
    assert calls == []


def test_a_stream_batch_comes_again_from_the_record_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = stored_id()
    app.pipeline.cache_clear()
    monkeypatch.setenv(CONFIG_ENVIRONMENT, "/nowhere/askonce.toml")
    assert run(app.on_stored, stream_event(message, "other")) == {
        "batchItemFailures": [{"itemIdentifier": "0"}]
    }


def test_a_message_that_is_gone_is_no_failure() -> None:
    assert run(app.forward, queue_event("mgone")) == {"batchItemFailures": []}
    assert run(app.deliver, queue_event("mgone")) == {"batchItemFailures": []}


def test_what_is_stored_carries_the_readers_own_words_and_no_address_in_its_key() -> None:
    call(sms("Where is my parcel?"))
    found = aws.client("dynamodb").scan(TableName=app.PREFIX)["Items"]
    (item,) = [i for i in found if i["pk"]["S"].startswith("MSG#")]
    assert "Where is my parcel?" in item["body"]["S"]
    assert "138" not in item["pk"]["S"]


def test_a_queue_gets_back_what_failed_and_hides_it_for_a_while(calls: list[str]) -> None:
    message = stored_id()
    run(app.on_stored, stream_event(message))
    store = app.pipeline().store
    held = store.message(message)
    assert held
    store.claim(held, 60)
    queue = aws.client("sqs").get_queue_url(QueueName=app.FORWARD_QUEUE)["QueueUrl"]
    (received,) = aws.client("sqs").receive_message(QueueUrl=queue)["Messages"]
    event = queue_event(message, "mgone")
    event["Records"][0]["receiptHandle"] = received["ReceiptHandle"]
    assert run(app.forward, event) == {"batchItemFailures": [{"itemIdentifier": "sqs-0"}]}
    assert "ChangeMessageVisibility" in calls


# What the log says of a request


def test_a_refused_request_is_named_by_the_gateways_id(events: list[dict[str, Any]]) -> None:
    sent = simulators.twilio(TWILIO | {"token": "wrong"}, "+15550001111", "canary-text")
    event = event_of(sent)
    event["requestContext"]["requestId"] = "gateway-1"
    assert call(sent, requestContext=event["requestContext"])["statusCode"] == 401
    [line] = events
    assert (line["event"], line["request"], line["inbox"]) == ("refused", "gateway-1", "sms")


def test_a_fault_of_ours_is_answered_500_and_told_by_its_place_alone(
    events: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def break_down(*_: Any, **__: Any) -> Any:
        raise KeyError("canary-text")

    monkeypatch.setattr(app.pipeline().store, "add", break_down)
    sent = simulators.twilio(TWILIO, "+15550001111", "canary-text")
    assert call(sent)["statusCode"] == 500
    assert (events[-1]["event"], events[-1]["why"]) == ("failed", "KeyError")
    assert events[-1]["place"].startswith("test_app.py:")
    printed = "".join(capfd.readouterr())
    assert "canary-text" not in printed
    assert "+15550001111" not in printed
