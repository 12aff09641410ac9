"""The packaged template: read, written, and held against what AWS needs to be told.

Chalice's decorators know little of event sources, and a template that says too little deploys
well and loses messages later. So its rules stand here, and a template that breaks one is not made.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Resource = Mapping[str, Any]

FUNCTION = "AWS::Serverless::Function"
_QUEUE = "AWS::SQS::Queue"
#: Lambda deletes what it took within this many time-outs: AWS's own advice.
_VISIBILITY_TIMEOUTS = 6
_MIN_MEMORY, _API_SECONDS = 512, 29


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, in their long forms."""


def _long_form(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    name = tag if tag in ("Ref", "Condition") else f"Fn::{tag}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if tag == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}  # type: ignore[arg-type]  # the last kind of node there is


Loader.add_multi_constructor("!", _long_form)


class _Dumper(yaml.SafeDumper):
    """Without anchors: not every reader of templates knows them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read(path: Path) -> Any:
    """A template, intrinsic functions in their long forms."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506  # a SafeLoader with harmless tags


def write(template: Any, path: Path) -> None:
    path.write_text(
        yaml.dump(template, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=100),
        encoding="utf-8",
    )


def merged(*paths: Path) -> Any:
    """The parts of a template as one, the later deep into the earlier."""
    from chalice.package import TemplateDeepMerger

    whole: dict[str, Any] = {}
    for path in paths:
        whole = TemplateDeepMerger().merge(read(path), whole)
    return whole


def importing(template: Any) -> Any:
    """The same, with the key's address imported where another stack makes the key."""
    if "Key" in template["Resources"]:
        return template
    return _replaced(
        template, {"Fn::GetAtt": ["Key", "Arn"]}, {"Fn::ImportValue": {"Fn::Sub": "${Prefix}-key"}}
    )


def _replaced(node: Any, old: Any, new: Any) -> Any:
    if node == old:
        return new
    if isinstance(node, dict):
        return {key: _replaced(value, old, new) for key, value in node.items()}
    return [_replaced(value, old, new) for value in node] if isinstance(node, list) else node


def rendered(stated: Any, names: Mapping[str, Any]) -> Any:
    """What is stated, with every reference replaced by what `names` says that it stands for."""
    match stated:
        case {"Fn::Sub": str() as text}:
            return re.sub(r"\$\{([^}]+)\}", lambda found: str(names[found[1]]), text)
        case {"Fn::GetAtt": parts}:
            return names[".".join(parts)]
        case {"Ref": name}:
            return names[name]
        case dict():
            return {key: rendered(value, names) for key, value in stated.items()}
        case list():
            return [rendered(value, names) for value in stated]
    return stated


def functions(template: Any) -> dict[str, Any]:
    """{logical name: properties} of every function."""
    return {
        name: resource["Properties"]
        for name, resource in template["Resources"].items()
        if resource.get("Type") == FUNCTION
    }


def faults(template: Any) -> Iterator[str]:
    """What is wrong with a packaged template, a line each."""
    for name, resource in template["Resources"].items():
        # A misspelt name in a part makes a resource, or an event, of its own without a type.
        if "Type" not in resource:
            yield f"{name} in infra/ is no function of the app"
        rules = _RESOURCES.get(resource.get("Type", ""), ())
        yield from (f"{name}: {what}" for what, holds in rules if not holds(resource["Properties"]))
    queues = {
        resource["Properties"]["QueueName"]["Fn::Sub"]: resource["Properties"]
        for resource in template["Resources"].values()
        if resource.get("Type") == _QUEUE
    }
    for name, function in functions(template).items():
        yield from (f"{name}: {fault}" for fault in _of_function(name, function))
        for event_name, event in function.get("Events", {}).items():
            if "Type" not in event:
                yield f"{name}: the event {event_name} in infra/ is none of the app's"
                continue
            rules = _EVENTS.get(event["Type"], ())
            held = event["Properties"]
            yield from (f"{name}: {what}" for what, holds in rules if not holds(held))
            if event["Type"] == "SQS":
                yield from (f"{name}: {fault}" for fault in _of_queue(function, held, queues))


def _of_function(name: str, function: Resource) -> Iterator[str]:
    if function["MemorySize"] < _MIN_MEMORY:
        yield f"{function['MemorySize']} MB are too few: a cold start would take seconds"
    if name == "APIHandler" and function["Timeout"] > _API_SECONDS:
        yield f"API Gateway waits {_API_SECONDS} s at most"
    if "LoggingConfig" not in function:
        yield "has no log group of its own, whose lines end some day"
    if function["Role"]["Fn::GetAtt"][1] != "Arn":
        yield "has no role of its own"


def _of_queue(function: Resource, event: Resource, queues: Mapping[str, Resource]) -> Iterator[str]:
    # "${ForwardQueue.Arn}": the queue is a resource of this template.
    source = event["Queue"]["Fn::Sub"].removeprefix("${").removesuffix(".Arn}")
    queue = next((q for n, q in queues.items() if _logical(n) == source), None)
    if queue is None:
        yield f"its queue {source} is none of this template's"
        return
    least = _VISIBILITY_TIMEOUTS * function["Timeout"]
    if queue["VisibilityTimeout"] < least:
        yield f"its queue must hide what was taken for {least} s"
    if queue["RedrivePolicy"]["maxReceiveCount"] < 5:
        yield "its queue must try five times at least"


def _logical(queue_name: str) -> str:
    """${Prefix}-forward.fifo -> ForwardQueue."""
    kind = queue_name.removeprefix("${Prefix}-").removesuffix(".fifo")
    return "".join(word.capitalize() for word in kind.split("-")) + "Queue"


_Rule = tuple[str, Callable[[Resource], bool]]


def _says(key: str, wanted: object) -> _Rule:
    return f"{key} must be {wanted}", lambda properties: properties.get(key) == wanted


def _has(key: str) -> _Rule:
    return f"{key} is missing", lambda properties: bool(properties.get(key))


def _lacks(key: str, why: str) -> _Rule:
    return f"{key} must not be there: {why}", lambda properties: key not in properties


_BATCHES = _says("FunctionResponseTypes", ["ReportBatchItemFailures"])
#: Type of event -> what its source must say.
_EVENTS: dict[str, tuple[_Rule, ...]] = {
    "SQS": (
        _BATCHES,
        # Reserved concurrency would throw messages back, and count them as tried.
        _has("ScalingConfig"),
    ),
    "SNS": (_says("Topic", {"Fn::Sub": "${InboundTopic}"}),),
    "DynamoDB": (
        _BATCHES,
        _says("StartingPosition", "TRIM_HORIZON"),
        _says("BisectBatchOnFunctionError", True),
        _has("MaximumRetryAttempts"),
        _has("MaximumRecordAgeInSeconds"),
        _has("DestinationConfig"),
        _has("FilterCriteria"),
    ),
}
#: Type of resource -> what it must say.
_RESOURCES: dict[str, tuple[_Rule, ...]] = {
    "AWS::Serverless::Api": (_has("MethodSettings"),),
    "AWS::ApiGatewayV2::Api": (
        _says("ProtocolType", "HTTP"),
        _lacks("CorsConfiguration", "the API would answer preflights, and not the inbox's origins"),
    ),
    # Chalice reads events of this format only; CloudFormation has no default.
    "AWS::ApiGatewayV2::Integration": (_says("PayloadFormatVersion", "1.0"),),
    "AWS::ApiGatewayV2::Stage": (_says("AutoDeploy", True), _has("DefaultRouteSettings")),
}
