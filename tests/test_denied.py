"""What a function's policy does not allow is refused here, as on AWS; and nothing more is."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import app
from chalicelib import aws, log
from chalicelib.contacts import Contacts
from chalicelib.errors import ConfigurationError, NotFoundError
from chalicelib.ports import Item, Upload, Write
from chalicelib.settings import SecretReader
from infra.local.permissions import FUNCTIONS, POLICIES, Guard, Need, acting, grants
from infra.local.resources import key_arn
from tests.test_app import call, deployed, mail, queue_event, run, sms, stored_id, stream_event

pytestmark = pytest.mark.usefixtures(deployed.__name__)
PREFIX = app.PREFIX


@contextmanager
def guarded(folder: Path = POLICIES) -> Iterator[list[dict[str, Any]]]:
    """A guard over this process's AWS; gives what it refuses."""
    refused: list[dict[str, Any]] = []

    def note(line: dict[str, Any]) -> None:
        if line["event"] == "permission.denied":
            refused.append(line)

    guard = Guard(PREFIX, key_arn(PREFIX), folder=folder)
    guard.start()
    log.listeners.append(note)
    try:
        yield refused
    finally:
        log.listeners.remove(note)
        guard.stop()


def without(function: str, action: str, folder: Path) -> Path:
    """The policies in another folder, one action taken out of one of them."""
    for path in POLICIES.glob("policy-*.json"):
        policy = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == f"policy-{function}":
            for statement in policy["Statement"]:
                if statement["Effect"] == "Allow":
                    statement["Action"] = [a for a in statement["Action"] if a != action]
        (folder / path.name).write_text(json.dumps(policy), encoding="utf-8")
    return folder


# Stories, each of one function


def receive(_: str) -> None:
    with acting("api_handler"):
        call(sms())
        call(mail(b"Subject: from nobody\r\n\r\n" + b"long " * 5_000))


def resolve(message: str) -> None:
    with acting("on_stored"):
        run(app.on_stored, stream_event(message))


def resolve_two(message: str) -> None:
    """Two lines of one customer: of the second, what was asked before is looked at."""
    call(sms("And where is my teapot?"))
    for each in {message, *app.pipeline().store.unfinished()}:
        resolve(each)


def forward(message: str) -> None:
    """Nothing answers at the desk's address, so that the message goes back to its queue."""
    run(app.on_stored, stream_event(message))
    url = aws.client("sqs").get_queue_url(QueueName=app.FORWARD_QUEUE)["QueueUrl"]
    (received,) = aws.client("sqs").receive_message(QueueUrl=url)["Messages"]
    event = queue_event(message)
    event["Records"][0]["receiptHandle"] = received["ReceiptHandle"]
    app.queue.cache_clear()  # as in a container of its own
    with acting("forward"):
        run(app.forward, event)


def forward_two(message: str) -> None:
    """Two conversations in a batch, each in a thread."""
    call(mail())
    ids = list(app.pipeline().store.unfinished())
    assert len({message, *ids}) == 2
    run(app.on_stored, stream_event(*ids))
    with acting("forward"):
        run(app.forward, queue_event(*ids))


def link(_: str) -> None:
    """As an agent asks for it by a note: one contact takes the other's conversations."""
    for sent in (sms(), mail()):
        call(sent)
    for message in app.pipeline().store.unfinished():
        run(app.on_stored, stream_event(message))
    contacts = Contacts(app.pipeline().store, app.now)
    with acting("forward"):
        contacts.link("phone:+8613800138000", "email:li@example.com", source="agent", by="kim")


def tick(_: str) -> None:
    """The stream's function never came."""
    line = app.pipeline()
    later = app.now() + timedelta(hours=1)
    object.__setattr__(line, "clock", lambda: later)
    with acting("tick"):
        line.tick()


Story = Callable[[str], None]
STORIES: list[tuple[str, Story, tuple[str, ...]]] = [
    ("api_handler", receive, ("dynamodb:PutItem", "s3:PutObject", "kms:GenerateDataKey")),
    (
        "on_stored",
        resolve,
        ("dynamodb:GetItem", "dynamodb:PutItem", "sqs:SendMessage", "sqs:GetQueueUrl",
         "kms:Decrypt", "kms:GenerateDataKey"),
    ),
    ("on_stored", resolve_two, ("dynamodb:Query",)),
    ("forward", forward, ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:BatchGetItem",
                          "dynamodb:UpdateItem", "sqs:ChangeMessageVisibility",
                          "sqs:GetQueueUrl")),
    ("forward", forward_two, ("dynamodb:PutItem",)),
    ("forward", link, ("dynamodb:Query", "dynamodb:DeleteItem")),
    ("tick", tick, ("dynamodb:Query", "dynamodb:GetItem", "dynamodb:PutItem", "sqs:SendMessage",
                    "sqs:GetQueueUrl", "kms:GenerateDataKey")),
]  # fmt: skip
_EACH = [(f, story, action) for f, story, actions in STORIES for action in actions]


@pytest.mark.parametrize("story", [story for _, story, _ in STORIES])
def test_a_function_may_do_what_it_does(story: Story) -> None:
    with guarded() as refused:
        story(stored_id())
    assert refused == []


@pytest.mark.parametrize(
    ("function", "story", "action"), _EACH, ids=[f"{s.__name__}-{a}" for _, s, a in _EACH]
)
def test_with_one_right_less_its_story_fails(
    function: str, story: Story, action: str, tmp_path: Path
) -> None:
    with guarded(without(function, action, tmp_path)) as refused:
        message = stored_id()
        with suppress(ClientError):  # Lambda would take it as the function's failure
            story(message)
    assert (refused[0]["function"], refused[0]["action"]) == (function, action)


def denied(error: "pytest.ExceptionInfo[ClientError]") -> str:
    assert error.value.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException")
    return str(error.value.response["Error"]["Message"])


def test_it_is_said_as_iam_says_it() -> None:
    with guarded(), acting("tick"), pytest.raises(ClientError) as error:
        aws.client("dynamodb").scan(TableName=PREFIX)
    assert denied(error) == (
        f"User: arn:aws:sts::123456789012:assumed-role/{PREFIX}-tick/local is not authorized to "
        "perform: dynamodb:Scan on resource: unknown to infra/local/permissions.py because no "
        "identity-based policy allows the dynamodb:Scan action"
    )


def test_where_no_function_acts_everything_is_allowed() -> None:
    with guarded() as refused:
        aws.client("dynamodb").scan(TableName=PREFIX)
        boto3.client("sns").list_topics()
    assert refused == []


def test_what_the_internet_reaches_cannot_have_the_providers_access_tokens() -> None:
    table = aws.DynamoTable(PREFIX)
    token = Write(item=Item(pk="TOKEN#wechat", sk="TOKEN", body="{}"))
    with guarded(), acting("api_handler"):
        for ask in (
            lambda: table.get("TOKEN#wechat", "TOKEN"),
            lambda: table.query("TOKEN#wechat", "A", "Z"),
            lambda: table.write(token),
            lambda: table.write(token, Write(item=Item(pk="MSG#1", sk="1", body="{}"))),
        ):
            with pytest.raises(ClientError) as error:
                ask()
            denied(error)


def test_what_a_topic_calls_writes_messages_and_nothing_else() -> None:
    table = aws.DynamoTable(PREFIX)
    with guarded(), acting("on_sns_message"):
        table.write(Write(item=Item(pk="MSG#1", sk="1", body="{}")))
        with pytest.raises(ClientError) as error:
            table.write(Write(item=Item(pk="CONTACT#1", sk="PROFILE", body="{}")))
        denied(error)
        with pytest.raises(ClientError) as error:
            table.get("MSG#1", "1")
        denied(error)


def test_another_table_queue_or_bucket_is_refused() -> None:
    with guarded(), acting("forward"):
        for ask in (
            lambda: aws.DynamoTable(f"{PREFIX}-other").get("MSG#1", "1"),
            lambda: aws.SqsQueue(app.DELIVER_QUEUE).url,
            lambda: aws.S3Bucket("somebody-elses").get("attachments/1"),
        ):
            with pytest.raises(ClientError) as error:
                ask()
            denied(error)


def test_a_link_and_a_form_are_refused_when_they_are_signed(moto_bucket: str) -> None:
    bucket = aws.S3Bucket(moto_bucket)

    def upload(key: str) -> Upload:
        return Upload(key=key, media_type="image/png", max_bytes=10, seconds=60)

    with guarded() as refused, acting("api_handler"):
        bucket.link("attachments/1", "a", 60)
        bucket.form(upload("uploads/1"))
        for ask in (
            lambda: bucket.link("raw/1", "a", 60),
            lambda: bucket.form(upload("elsewhere/1")),
        ):
            with pytest.raises(ClientError) as error:
                ask()
            denied(error)
    assert [line["action"] for line in refused] == ["s3:GetObject", "s3:PutObject"]


def test_that_a_file_is_not_there_is_told_to_those_alone_who_may_list(moto_bucket: str) -> None:
    bucket = aws.S3Bucket(moto_bucket)
    with guarded():
        with acting("forward"), pytest.raises(NotFoundError):
            bucket.get("uploads/none")
        with acting("deliver"), pytest.raises(ClientError) as error:
            bucket.get("attachments/none")
    denied(error)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_secrets_are_read_under_the_deployments_name_and_nowhere_else(function: str) -> None:
    boto3.client("ssm").put_parameter(Name=f"/{PREFIX}/x", Value="v", Type="SecureString")
    boto3.client("secretsmanager").create_secret(Name=f"{PREFIX}/x", SecretString="v")
    read = SecretReader({})
    with guarded() as refused, acting(function):
        assert read(f"ssm:/{PREFIX}/x") == read(f"secretsmanager:{PREFIX}/x") == "v"
        for reference in ("ssm:/other/x", "secretsmanager:other/x"):
            with pytest.raises(ConfigurationError):
                read(reference)
    assert [x["action"] for x in refused] == ["ssm:GetParameter", "secretsmanager:GetSecretValue"]


def test_a_subscription_is_confirmed_by_the_api_alone() -> None:
    guard = Guard(PREFIX, "arn:aws:kms:us-east-1:123456789012:key/k")
    topic = "arn:aws:sns:eu-west-1:123456789012:shop-mail"
    need = Need("sns:ConfirmSubscription", topic)
    allowed = {g.function for f in FUNCTIONS for g in grants(f, guard.names) if g.speaks_of(need)}
    assert allowed == {"api_handler"}


def test_the_put_that_is_not_the_sdks_is_held_against_the_policy_too(tmp_path: Path) -> None:
    with guarded(without("api_handler", "dynamodb:PutItem", tmp_path)), acting("api_handler"):
        for watch in aws.watchers:
            with pytest.raises(ClientError) as error:
                watch("dynamodb", "PutItem", {"TableName": PREFIX, "Item": {"pk": {"S": "MSG#1"}}})
            denied(error)
        assert aws.watchers


def test_a_guard_that_is_gone_refuses_nothing() -> None:
    with guarded():
        pass
    with acting("tick"):
        aws.client("dynamodb").scan(TableName=PREFIX)
