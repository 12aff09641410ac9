"""Each function's rights: no more than it uses, and none that nothing in the world uses."""

import base64
import json
import re
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import requests

import app
from infra import template
from infra.local import simulators
from infra.local.permissions import FUNCTIONS, POLICIES, Guard, grants
from infra.template import rendered
from tests.local import Local, local, messages, notes

ROOT = Path(__file__).parents[1]
INFRA, CONFIG = ROOT / "infra", ROOT / "examples" / "every-provider.toml"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/k"
Used = set[tuple[str, str, str]]


def statements(function: str) -> list[dict[str, Any]]:
    policy = json.loads((POLICIES / f"policy-{function}.json").read_text(encoding="utf-8"))
    return list(policy["Statement"])


# What the files say


def test_each_function_of_the_app_has_a_policy_of_its_own() -> None:
    assert set(FUNCTIONS) == {"api_handler", *(source.name for source in app.app.event_sources)}
    config = json.loads((POLICIES / "config.json").read_text(encoding="utf-8"))
    assert {name: told["iam_policy_file"] for name, told in config["lambda_functions"].items()} == {
        name: f"policy-{name}.json" for name in FUNCTIONS
    }
    assert {path.name for path in POLICIES.glob("policy-*")} == {
        f"policy-{name}.json" for name in FUNCTIONS
    }


#: What has no name of ours, and why.
OTHERS_NAMES = {
    "sns:ConfirmSubscription": "topics are named by whoever makes them; the settings list them",
    "ses:SendEmail": "identities are the user's own domains",
    "ses:SendRawEmail": "identities are the user's own domains",
    "sms-voice:SendTextMessage": "numbers are the user's own",
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_right_is_wider_than_a_name(function: str) -> None:
    for statement in statements(function):
        for action in statement["Action"]:
            assert "*" not in action
            for resource in statement["Resource"]:
                if resource == {"Fn::GetAtt": ["Key", "Arn"]}:
                    assert statement["Condition"]["StringLike"].keys() == {"kms:ViaService"}
                    continue
                arn = resource["Fn::Sub"]
                assert arn.startswith("arn:${AWS::Partition}:")
                assert "${Prefix}" in arn or action in OTHERS_NAMES
                assert "${AWS::AccountId}" in arn


@pytest.mark.parametrize("function", FUNCTIONS)
def test_names_are_derived_so_that_the_resources_may_be_in_another_stack(function: str) -> None:
    references = set(re.findall(r"\$\{([^}]+)\}", json.dumps(statements(function))))
    assert references == {"AWS::Partition", "AWS::Region", "AWS::AccountId", "Prefix"}


def test_what_the_internet_reaches_has_no_queue_and_no_index_and_deletes_no_bytes() -> None:
    actions = {a for s in statements("api_handler") for a in s["Action"] if s["Effect"] == "Allow"}
    assert not any(fnmatchcase(a, p) for a in actions for p in ("sqs:*", "*Delete*Object", "*Scan"))
    assert "/index/" not in json.dumps(statements("api_handler"))


def test_only_the_stream_s_function_reads_the_stream_and_each_worker_its_own_queue() -> None:
    readers = {
        (grant.function, grant.pattern.rpartition(":")[2])
        for grant in granted()
        if grant.action in ("dynamodb:GetRecords", "sqs:ReceiveMessage")
    }
    assert readers == {
        ("on_stored", "table/askonce/stream/*"),
        ("forward", "askonce-forward.fifo"),
        ("deliver", "askonce-deliver.fifo"),
    }


def granted() -> list[Any]:
    guard = Guard("askonce", KEY_ARN)
    return [grant for name in FUNCTIONS for grant in grants(name, guard.names)]


# What the template says

PARTS = ("resources", "security", "ses", "watching")
RESOURCES = template.merged(*(INFRA / f"{part}.yaml" for part in PARTS))
_OF_THE_KEY = {"Fn::GetAtt": ["Key", "Arn"]}
#: Type -> where it names the key that seals it.
SEALED: dict[str, tuple[str | int, ...]] = {
    "AWS::DynamoDB::Table": ("SSESpecification", "KMSMasterKeyId"),
    "AWS::SQS::Queue": ("KmsMasterKeyId",),
    "AWS::SNS::Topic": ("KmsMasterKeyId",),
    "AWS::S3::Bucket": (
        *("BucketEncryption", "ServerSideEncryptionConfiguration", 0),
        *("ServerSideEncryptionByDefault", "KMSMasterKeyID"),
    ),
}
#: Type -> which resource of its own policy names it, and how.
POLICY_OF = {
    "AWS::SQS::Queue": ("AWS::SQS::QueuePolicy", "Queues"),
    "AWS::SNS::Topic": ("AWS::SNS::TopicPolicy", "Topics"),
    "AWS::S3::Bucket": ("AWS::S3::BucketPolicy", "Bucket"),
}


def resources(*types: str) -> list[tuple[str, Any]]:
    found = RESOURCES["Resources"].items()
    return [(name, r["Properties"]) for name, r in found if r["Type"] in types]


@pytest.mark.parametrize("kind", SEALED)
def test_everything_that_keeps_something_is_sealed_with_the_one_key(kind: str) -> None:
    assert resources(kind)
    for _, properties in resources(kind):
        assert reduce(lambda told, step: told[step], SEALED[kind], properties) == _OF_THE_KEY


@pytest.mark.parametrize("kind", POLICY_OF)
def test_nothing_is_taken_without_tls(kind: str) -> None:
    policy_kind, by = POLICY_OF[kind]
    policies = resources(policy_kind)
    assert resources(kind)
    for name, _ in resources(kind):
        (policy,) = (p for _, p in policies if {"Ref": name} in (p[by], *p[by]))
        deny = policy["PolicyDocument"]["Statement"][0]
        assert (deny["Effect"], deny["Principal"]) == ("Deny", "*")
        assert deny["Condition"] == {"Bool": {"aws:SecureTransport": False}}
        assert name in json.dumps(deny["Resource"])


def test_whoever_else_is_let_in_acts_for_this_account() -> None:
    kinds = ("AWS::KMS::Key", *(kind for kind, _ in POLICY_OF.values()))
    documents = [p.get("PolicyDocument") or p["KeyPolicy"] for _, p in resources(*kinds)]
    allowed = [s for d in documents for s in d["Statement"] if s["Effect"] == "Allow"]
    root = {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}
    assert [s for s in allowed if s["Principal"] == root] == [allowed[0]]
    for statement in allowed[1:]:
        assert statement["Principal"].keys() == {"Service"}
        equal = statement["Condition"]["StringEquals"]
        assert equal["aws:SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_the_key_turns_and_outlives_the_stack_as_does_what_it_seals() -> None:
    (key,) = (p for _, p in resources("AWS::KMS::Key"))
    assert key["EnableKeyRotation"] is True
    for kind in ("AWS::KMS::Key", "AWS::DynamoDB::Table", "AWS::S3::Bucket"):
        kept = [r for r in RESOURCES["Resources"].values() if r["Type"] == kind]
        assert {r["DeletionPolicy"] for r in kept} == {"Retain"}
    assert RESOURCES["Outputs"]["Key"]["Export"] == {"Name": {"Fn::Sub": "${Prefix}-key"}}


def test_the_table_can_be_brought_back_to_any_second() -> None:
    ((_, table),) = resources("AWS::DynamoDB::Table")
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_mail_is_scanned_and_goes_where_the_worker_may_fetch_it() -> None:
    ((_, rule),) = resources("AWS::SES::ReceiptRule")
    ((action,),) = (a.values() for a in rule["Rule"]["Actions"])
    assert rule["Rule"]["ScanEnabled"] is True
    bucket = RESOURCES["Resources"]["MailBucket"]["Properties"]["BucketName"]["Fn::Sub"]
    guard = Guard("askonce", KEY_ARN)
    key = f"arn:aws:s3:::{rendered({'Fn::Sub': bucket}, guard.names)}/{action['ObjectKeyPrefix']}m1"
    readers = {
        g.function for g in granted() if g.action == "s3:GetObject" and fnmatchcase(key, g.pattern)
    }
    assert readers == {"forward"}


def test_only_our_receipt_rule_puts_mail_into_the_bucket() -> None:
    ((_, rule),) = resources("AWS::SES::ReceiptRule")
    ((_, rules),) = resources("AWS::SES::ReceiptRuleSet")
    policy = RESOURCES["Resources"]["MailBucketPolicy"]["Properties"]["PolicyDocument"]
    (allow,) = (s for s in policy["Statement"] if s["Effect"] == "Allow")
    source = allow["Condition"]["StringEquals"]["aws:SourceArn"]["Fn::Sub"]
    made, own = rules["RuleSetName"]["Fn::Sub"], rule["Rule"]["Name"]["Fn::Sub"]
    assert source.endswith(f":receipt-rule-set/{made}:receipt-rule/{own}")


def test_without_recipients_nothing_of_ses_is_made() -> None:
    mail = template.read(INFRA / "ses.yaml")
    assert all(r["Condition"] == "TakesMail" for r in mail["Resources"].values())
    assert mail["Parameters"]["SesRecipients"]["Default"] == ""


# What the world uses

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPgPAAEDAQAIicLsAAAAAElFTkSuQmCC"
)
_BY_LAMBDA = "asked by Lambda itself: when it sets a source up, writes a log, gives a record up"
_DENIED = "used in tests/test_denied.py"
#: (function, action, resource) -> why the story does not use it.
NOT_HERE: dict[tuple[str, str, str], str] = {
    ("*", "logs:*", "*"): _BY_LAMBDA,
    ("*", "sqs:GetQueueAttributes", "*"): _BY_LAMBDA,
    ("*", "sqs:SendMessage", "*-dead"): _BY_LAMBDA,
    ("on_stored", "dynamodb:DescribeStream", "*"): _BY_LAMBDA,
    ("on_stored", "dynamodb:ListStreams", "*"): _BY_LAMBDA,
    ("*", "ssm:GetParameter", "*"): _DENIED,
    ("*", "secretsmanager:GetSecretValue", "*"): _DENIED,
    ("api_handler", "sns:ConfirmSubscription", "*"): _DENIED,
    ("*", "sqs:ChangeMessageVisibility", "*"): _DENIED,
    ("*", "dynamodb:DeleteItem", "*"): _DENIED,
    ("forward", "s3:ListBucket", "*"): _DENIED,
    ("tick", "dynamodb:GetItem", "*"): _DENIED,
    ("tick", "dynamodb:Query", "*"): _DENIED,
    ("tick", "dynamodb:PutItem", "*"): _DENIED,
    ("tick", "sqs:SendMessage", "*"): _DENIED,
    ("tick", "kms:GenerateDataKey", "*"): _DENIED,
    ("*", "sqs:GetQueueUrl", "*"): "one process asks once for all functions; on AWS each does",
    ("api_handler", "s3:GetObject", "*/attachments/*"): "agents of the sandbox desk send no files",
    ("deliver", "s3:GetObject", "*"): "agents of the sandbox desk send no files",
    (
        "on_sns_message",
        "s3:PutObject",
        "*",
    ): "as api_handler: mail by SES in the one, over HTTP in the other",
    ("forward", "s3:PutObject", "*/html/*"): "as api_handler: of mail that is fetched",
    (
        "deliver",
        "ses:SendEmail",
        "*",
    ): "the reference names it for raw mail, too; SES asks for the other",
    ("deliver", "ses:SendRawEmail", "*:configuration-set/*"): "an inbox's option",
    (
        "deliver",
        "sms-voice:SendTextMessage",
        "*",
    ): "an inbox's number may be a pool or a sender's id",
}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Used:
    """The rights that one story on all channels used."""
    folder = tmp_path_factory.mktemp("world")
    with local(folder, "--config", str(CONFIG)) as world:
        _play(world)
    told = json.loads((folder / "permissions.json").read_text(encoding="utf-8"))
    return {(function, action, stated) for function, action, stated in told}


def _play(world: Local) -> None:
    for inbox, text in {
        "wechat": "请问龙井茶怎么保存？",
        "sms-aws": "Which of your teas is best with lemon cake?",
        "ses": "Which kettle is best?" + " It is long." * 2_000,
        "email": "Is the tin airtight?",
        "webchat": "Do you ship to Hangzhou?",
    }.items():
        picture = {"name": "tin.png", "media_type": "image/png"}
        picture["content"] = base64.b64encode(PNG).decode()
        file = picture if inbox in ("email", "webchat") else None
        assert world.client.say("mei", inbox, text, file=file)["status"] < 300
        ticket = _ticket_with(world, text[:20])
        world.client.agent(ticket["id"], "reply", f"We answer on {inbox}.")
    world.client.say("mei", "ses", "Is this picture the tea?" + " It is long." * 12_000)
    _ticket_with(world, "Is this picture")
    _mail_with_much_in_it(world)
    _read_chat(world)
    _opt_out(world)
    _set_apart(world)


def _mail_with_much_in_it(world: Local) -> None:
    """So much that it lies in the bucket; and one that nobody can read."""
    secret = world.secrets["ASKONCE_EMAIL_SECRET"]
    long = "<p>It is long.</p>" * 2_000
    headers = "From: mei@example.com\r\nTo: help@shop.example\r\nMessage-ID: <long@x>\r\n"
    html = f"{headers}Content-Type: text/html\r\n\r\nAre scoops sold?{long}".encode()
    for raw in (html, b"Subject: from nobody\r\n\r\n" + long.encode()):
        assert world.post(simulators.signed_mail(secret, raw, {"dmarc": "pass"})).ok
    _ticket_with(world, "Are scoops sold?")


def _read_chat(world: Local) -> None:
    origin = world.address.page
    identity = requests.get(f"{origin}/local/identity/mei", timeout=10).json()["identity"]
    session = world.post(simulators.webchat_session(origin, identity_=identity)).json()
    headers = {"Authorization": f"Bearer {session['token']}", "Origin": origin}
    url = f"{world.address.api}/webchat/webchat/messages"
    assert requests.get(url, headers=headers, timeout=10).json()["messages"]


def _opt_out(world: Local) -> None:
    """A reply that may not go out is told to the agents."""
    world.client.say("li", "sms-twilio", "Is the big caddy blue?")
    ticket = _ticket_with(world, "Is the big caddy blue?")
    world.client.say("li", "sms-twilio", "STOP")
    _ticket_with(world, "STOP")
    world.client.agent(ticket["id"], "reply", "It is.")

    def told(state: dict[str, Any]) -> Any:
        return notes(next(t for t in state["tickets"] if t["id"] == ticket["id"]))

    world.wait(told, "a note that it did not go out")


def _set_apart(world: Local) -> None:
    question = "How long does the jasmine green keep its scent?"
    world.client.say("mei", "wechat", question)
    ticket = _ticket_with(world, question)
    world.client.say("mei", "sms-vonage", question)

    def joined(state: dict[str, Any]) -> Any:
        said = messages(next(t for t in state["tickets"] if t["id"] == ticket["id"]))
        return [m for m in said if question in m["text"]][1:]

    world.client.agent(ticket["id"], "set_apart", world.wait(joined, "the repeat")[0]["id"])
    world.wait(
        lambda state: any(
            question in m["text"]
            for t in state["tickets"]
            if t["id"] != ticket["id"]
            for m in messages(t)
        ),
        "a ticket of its own",
    )


def _ticket_with(world: Local, text: str) -> Any:
    def find(state: dict[str, Any]) -> Any:
        said = ((t, m) for t in state["tickets"] for m in messages(t))
        return next((t for t, m in said if text in m["text"]), None)

    return world.wait(find, f"a ticket with {text}")


@pytest.mark.world
def test_every_right_is_used_or_says_why_not(used: Used) -> None:
    unused = [
        right
        for g in granted()
        if not g.denies and (right := (g.function, g.action, g.stated)) not in used
    ]
    unexplained = [
        right
        for right in unused
        if not any(all(map(fnmatchcase, right, known)) for known in NOT_HERE)
    ]
    assert unexplained == [], "\n".join(map(str, unexplained))
