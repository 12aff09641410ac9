"""What each function may do on AWS, here: its policy file, held against every call that it makes.

IAM's part of this machine. While a function runs, or an event source reads on its behalf, a call by
botocore that the function's policy does not allow ends in AccessDenied, in IAM's words. What is
asked of the key for each service, and which action an operation needs, is written here by hand:
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from chalicelib import aws, log
from infra.template import rendered

POLICIES = Path(__file__).resolve().parents[2] / ".chalice"
FUNCTIONS = ("api_handler", "on_stored", "on_sns_message", "forward", "deliver", "tick")
ACCOUNT, REGION = "123456789012", "us-east-1"
Params = Mapping[str, Any]

_acting: ContextVar[str] = ContextVar("acting", default="")


@contextmanager
def acting(function: str) -> Iterator[None]:
    """Whatever is called meanwhile is called with that function's role."""
    token = _acting.set(function)
    try:
        yield
    finally:
        _acting.reset(token)


# Policies


@dataclass(frozen=True)
class Grant:
    """One action on one pattern of resources, as a policy file states it."""

    function: str
    action: str
    #: As it stands in the file, so that a test can name it.
    stated: str
    denies: bool
    pattern: str
    conditions: Mapping[str, Mapping[str, Any]] = field(hash=False)

    def speaks_of(self, need: "Need") -> bool:
        return (
            self.action == need.action
            and _like(self.pattern, need.resource)
            and all(
                _HOLDS[how](need.context.get(key, ()), values)
                for how, told in self.conditions.items()
                for key, values in told.items()
            )
        )


@dataclass(frozen=True)
class Need:
    """What one call takes: an action on a resource, and what conditions may ask about."""

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


def _like(pattern: str, text: str) -> bool:
    """IAM's wildcards: `*` is any text, `?` one character."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _any(values: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(_like(p, v) for v in values for p in patterns)


#: The conditions that our policies state. A key that a call does not have fulfils ForAllValues.
_HOLDS: Mapping[str, Callable[[tuple[str, ...], list[str]], bool]] = {
    "StringLike": _any,
    "ForAnyValue:StringLike": _any,
    "ForAllValues:StringLike": lambda values, ps: all(_any([v], ps) for v in values),
}


def grants(function: str, names: Mapping[str, str], folder: Path = POLICIES) -> list[Grant]:
    """What a function's policy file allows, with CloudFormation's references replaced."""
    path = folder / f"policy-{function}.json"
    return [
        Grant(
            function,
            action,
            stated if isinstance(stated, str) else stated.get("Fn::Sub") or "Key.Arn",
            statement["Effect"] == "Deny",
            rendered(stated, names),
            rendered(statement.get("Condition", {}), names),
        )
        for statement in json.loads(path.read_text(encoding="utf-8"))["Statement"]
        for action in statement["Action"]
        for stated in statement["Resource"]
    ]


# Calls


def _arn(service: str, rest: str, region: str = REGION) -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{rest}"


def _table_need(action: str, params: Params, keys: Iterable[str]) -> Need:
    place = f"table/{params['TableName']}"
    if index := params.get("IndexName"):
        place += f"/index/{index}"
    leading = {"dynamodb:LeadingKeys": tuple(keys)}
    return Need(f"dynamodb:{action}", _arn("dynamodb", place), leading)


def _one_item(operation: str, params: Params) -> Iterator[Need]:
    item = params.get("Item") or params["Key"]
    yield _table_need(operation, params, [item["pk"]["S"]])


def _query(operation: str, params: Params) -> Iterator[Need]:
    """Every query of ours says `<hash> = :<value>` first."""
    name = params["KeyConditionExpression"].split()[2]
    yield _table_need(operation, params, [params["ExpressionAttributeValues"][name]["S"]])


def _batch_get(operation: str, params: Params) -> Iterator[Need]:
    for table, asked in params["RequestItems"].items():
        keys = [key["pk"]["S"] for key in asked["Keys"]]
        yield _table_need(operation, {"TableName": table}, keys)


def _transaction(_operation: str, params: Params) -> Iterator[Need]:
    for item in params["TransactItems"]:
        for kind, request in item.items():
            yield from _one_item(f"{kind}Item", request)


def _stream(operation: str, params: Params) -> Iterator[Need]:
    arn = params.get("StreamArn") or params["ShardIterator"].split("|")[0]
    yield Need(f"dynamodb:{operation}", arn)


def _queue(operation: str, params: Params) -> Iterator[Need]:
    name = params.get("QueueName") or params["QueueUrl"].rpartition("/")[2]
    yield Need(f"sqs:{operation.removesuffix('Batch')}", _arn("sqs", name))


def _object(operation: str, params: Params) -> Iterator[Need]:
    action = {"HeadObject": "GetObject"}.get(operation, operation)
    yield Need(f"s3:{action}", f"arn:aws:s3:::{params['Bucket']}/{params['Key']}")


def _parameter(operation: str, params: Params) -> Iterator[Need]:
    yield Need(f"ssm:{operation}", _arn("ssm", f"parameter/{params['Name'].lstrip('/')}"))


def _secret(operation: str, params: Params) -> Iterator[Need]:
    name = params["SecretId"]
    arn = name if name.startswith("arn:") else _arn("secretsmanager", f"secret:{name}-AbCdEf")
    yield Need(f"secretsmanager:{operation}", arn)


def _topic(operation: str, params: Params) -> Iterator[Need]:
    yield Need(f"sns:{operation}", params["TopicArn"])


def _text(operation: str, params: Params) -> Iterator[Need]:
    """A number's ARN holds an id of its own; a sender's id is its name."""
    origin = params["OriginationIdentity"]
    place = "phone-number/phone-0" if origin.startswith("+") else f"sender-id/{origin}/HK"
    yield Need(f"sms-voice:{operation}", _arn("sms-voice", place))
    if configured := params.get("ConfigurationSetName"):
        yield Need(f"sms-voice:{operation}", _arn("sms-voice", f"configuration-set/{configured}"))


def _mail(_operation: str, params: Params) -> Iterator[Need]:
    """SES asks for SendRawEmail where the mail is given whole."""
    action = "ses:SendRawEmail" if "Raw" in params["Content"] else "ses:SendEmail"
    yield Need(action, _arn("ses", "identity/shop.example"))
    if configured := params.get("ConfigurationSetName"):
        yield Need(action, _arn("ses", f"configuration-set/{configured}"))


Needs = Callable[[str, Params], Iterator[Need]]
#: How the operations of each service say what they are about.
_READ: Mapping[str, tuple[tuple[str, Needs], ...]] = {
    "dynamodb": (
        ("GetItem PutItem UpdateItem DeleteItem", _one_item),
        ("Query", _query),
        ("BatchGetItem", _batch_get),
        ("TransactWriteItems", _transaction),
    ),
    "dynamodbstreams": (("GetRecords GetShardIterator", _stream),),
    "sqs": (
        ("SendMessage SendMessageBatch ReceiveMessage DeleteMessageBatch", _queue),
        ("ChangeMessageVisibility GetQueueUrl", _queue),
    ),
    "s3": (("GetObject HeadObject PutObject", _object),),
    "ssm": (("GetParameter", _parameter),),
    "secretsmanager": (("GetSecretValue", _secret),),
    "sns": (("ConfirmSubscription", _topic),),
    "pinpoint-sms-voice-v2": (("SendTextMessage", _text),),
    "sesv2": (("SendEmail", _mail),),
}
#: Operation -> what the service asks of the key, in the caller's name. Of DynamoDB: all of them.
_OF_THE_KEY: Mapping[str, tuple[str, ...]] = {
    "SendMessage": ("GenerateDataKey", "Decrypt"),
    "SendMessageBatch": ("GenerateDataKey", "Decrypt"),
    "ReceiveMessage": ("Decrypt",),
    "PutObject": ("GenerateDataKey",),
    "GetObject": ("Decrypt",),
    "HeadObject": ("Decrypt",),
}
_NEEDING_THE_KEY = {"dynamodb": "dynamodb", "dynamodbstreams": "dynamodb", "sqs": "sqs", "s3": "s3"}


def needs(service: str, operation: str, params: Params, key_arn: str) -> Iterator[Need]:
    """All that a call takes. One that is not known here takes what no policy gives."""
    told = (read for names, read in _READ.get(service, ()) if operation in names.split())
    own = next(told, None)
    if own is None:
        yield Need(f"{service}:{operation}", "unknown to infra/local/permissions.py")
        return
    yield from own(operation, params)
    if via := _NEEDING_THE_KEY.get(service):
        asked = ("Decrypt",) if via == "dynamodb" else _OF_THE_KEY.get(operation, ())
        context = {"kms:ViaService": (f"{via}.{REGION}.amazonaws.com",)}
        yield from (Need(f"kms:{action}", key_arn, context) for action in asked)


# Enforcing


class Guard:
    """Refuses what the acting function's policy does not allow, and remembers what it used."""

    def __init__(
        self, prefix: str, key_arn: str, *, folder: Path = POLICIES, record: Path | None = None
    ) -> None:
        self.key_arn = key_arn
        self.names = {
            "Prefix": prefix,
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::AccountId": ACCOUNT,
            "Key.Arn": key_arn,
        }
        self._prefix = prefix
        self._record = record
        self._grants = {f: grants(f, self.names, folder) for f in FUNCTIONS}
        self.used: set[Grant] = set()

    def demand(self, service: str, operation: str, params: Params) -> None:
        """ClientError as AWS raises it; nothing where no function acts."""
        function = _acting.get()
        if not function:
            return
        for need in needs(service, operation, params, self.key_arn):
            if not self._allowed(function, need):
                log.event(
                    "permission.denied",
                    function=function,
                    action=need.action,
                    resource=need.resource,
                )
                raise self._refusal(function, service, operation, need)

    def _allowed(self, function: str, need: Need) -> bool:
        found = [grant for grant in self._grants[function] if grant.speaks_of(need)]
        self.used.update(grant for grant in found if not grant.denies)
        return bool(found) and not any(grant.denies for grant in found)

    def _refusal(self, function: str, service: str, operation: str, need: Need) -> ClientError:
        who = f"arn:aws:sts::{ACCOUNT}:assumed-role/{self._prefix}-{function}/local"
        words = (
            f"User: {who} is not authorized to perform: {need.action} on resource: "
            f"{need.resource} because no identity-based policy allows the {need.action} action"
        )
        code = {"s3": "AccessDenied", "sns": "AuthorizationError"}.get(
            service, "AccessDeniedException"
        )
        response: Any = {
            "Error": {"Code": code, "Message": words},
            "ResponseMetadata": {"HTTPStatusCode": 403 if service == "s3" else 400},
        }
        return ClientError(response, operation)

    # The hooks

    def watch(self, session: Any) -> None:
        """Hear of every call by clients that this session will make, presigned links included."""
        session.register("before-parameter-build", self._before_call)
        session.register("before-sign.s3.PutObject", self._before_form)
        session.register("after-call.s3.GetObject", self._after_object)

    def _before_call(self, params: Params, model: Any, context: Any, **_: Any) -> None:
        signing = context.get("is_presign_request")
        if not (signing and model.name == "CreateBucket"):  # how the SDK begins a form: see below
            context["permissions"] = params
            self.demand(model.service_model.service_name, model.name, params)

    def _after_object(self, parsed: Any, context: Any, **_: Any) -> None:
        """That there is no such object, S3 tells those alone who may list what there is."""
        function = _acting.get()
        if not function or parsed.get("Error", {}).get("Code") != "NoSuchKey":
            return
        need = Need("s3:ListBucket", f"arn:aws:s3:::{context['permissions']['Bucket']}")
        if not self._allowed(function, need):
            parsed["Error"] = {"Code": "AccessDenied", "Message": "Access Denied"}

    def _before_form(self, request: Any, signature_version: str, **_: Any) -> None:
        """A form for an upload is signed with no call of its own."""
        if "presign-post" in str(signature_version):
            conditions = request.context["s3-presign-post-policy"]["conditions"]
            told = {k: v for c in conditions if isinstance(c, dict) for k, v in c.items()}
            self.demand("s3", "PutObject", {"Bucket": told["bucket"], "Key": told["key"]})

    def start(self) -> None:
        """Every client that is made from now on asks the guard."""
        import boto3

        boto3.setup_default_session()
        default: Any = boto3.DEFAULT_SESSION
        self.watch(default.events)
        aws.client.cache_clear()
        aws.sessions.append(self.watch)
        aws.watchers.append(self.demand)

    def stop(self) -> None:
        """Clients that are made from now on are free again."""
        import boto3

        boto3.DEFAULT_SESSION = None
        aws.client.cache_clear()
        aws.sessions.remove(self.watch)
        aws.watchers.remove(self.demand)
        if self._record:
            used = sorted([grant.function, grant.action, grant.stated] for grant in self.used)
            self._record.write_text(json.dumps(used, indent=1), encoding="utf-8")
