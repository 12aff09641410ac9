"""Metrics come out of the log's own lines, in the format that CloudWatch reads, and are few."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from chalicelib import log
from chalicelib.items import BUCKETS
from chalicelib.metrics import METRICS, Metric, embedded
from chalicelib.schema import Outcome
from tests.fakes import world

NAME = {"type": "string", "minLength": 1, "maxLength": 1024}
#: The units that CloudWatch knows, of those that a program like this may use.
UNITS = ["Seconds", "Microseconds", "Milliseconds", "Bytes", "Percent", "Count", "None"]
#: As CloudWatch's documents describe the format:
#: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 10**12},  # milliseconds
                "CloudWatchMetrics": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "additionalProperties": False,
                        "properties": {
                            "Namespace": NAME,
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "maxItems": 30,
                                    "items": {"type": "string", "minLength": 1, "maxLength": 250},
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "Name": NAME,
                                        "Unit": {"enum": UNITS},
                                        "StorageResolution": {"enum": [1, 60]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
PLACE = {"channel": "sms", "inbox": "sms-hk"}


def line_of(metric: Metric, **more: Any) -> dict[str, Any]:
    """A line of the log that carries a metric."""
    own = {metric.field: 1234} if metric.field else {}
    return {"at": "now", "event": metric.event, **PLACE, **metric.where, **own, **more}


def sets_of(made: dict[str, Any], name: str) -> list[list[str]]:
    """The sets of dimensions under which a line names a metric."""
    directives = made["_aws"]["CloudWatchMetrics"]
    return [
        names
        for told in directives
        for names in told["Dimensions"]
        if name in [m["Name"] for m in told["Metrics"]]
    ]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_a_line_with_a_metric_is_as_cloudwatch_wants_it(metric: Metric) -> None:
    line = line_of(metric)
    made = line | embedded(line, "askonce", 1_764_000_000_000)
    assert list(Draft202012Validator(SCHEMA).iter_errors(made)) == []
    assert made[metric.name] == (1234 if metric.field else 1)
    assert sets_of(made, metric.name) == [list(names) for names in metric.dimensions]
    for names in metric.dimensions:
        assert all(isinstance(made[name], str) for name in names), "a dimension is a root member"


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_a_metric_is_counted_once_and_under_no_other_name(metric: Metric) -> None:
    made = embedded(line_of(metric), "askonce", 1)
    told = [m["Name"] for d in made["_aws"]["CloudWatchMetrics"] for m in d["Metrics"]]
    assert told == [metric.name]


@pytest.mark.parametrize("metric", [m for m in METRICS if m.where], ids=lambda m: m.name)
def test_a_line_that_is_about_something_else_carries_no_metric(metric: Metric) -> None:
    assert embedded(line_of(metric) | dict.fromkeys(metric.where, "other"), "askonce", 1) == {}


def test_a_line_that_names_no_inbox_counts_without_it() -> None:
    made = embedded({"event": "refused", "status": 401}, "askonce", 1)
    assert sets_of(made, "Refused") == [["Prefix"]]


def test_there_are_no_dimensions_but_deployment_channel_and_inbox() -> None:
    """Each value of each set is paid for: never an id, never what a caller can choose."""
    allowed = {("Prefix",), ("Prefix", "Channel"), ("Prefix", "Inbox")}
    assert {names for metric in METRICS for names in metric.dimensions} == allowed


def custom_metrics(channels: int, inboxes: int) -> int:
    """How many a deployment pays for."""
    of = {("Prefix",): 1, ("Prefix", "Channel"): channels, ("Prefix", "Inbox"): inboxes}
    return sum(of[names] for metric in METRICS for names in metric.dimensions)


def test_what_the_page_says_of_their_number_is_so() -> None:
    said = Path("docs/operating.md").read_text(encoding="utf-8")
    for channels, inboxes in ((1, 1), (4, 4), (4, 12)):
        row = f"| {channels} | {inboxes} | {custom_metrics(channels, inboxes)} |"
        assert row in said


def test_every_outcome_of_a_verdict_is_counted_but_the_one_that_opens_nothing() -> None:
    counted = {m.where["outcome"] for m in METRICS if m.event == "resolved"}
    assert counted == {outcome.value for outcome in Outcome} - {Outcome.IGNORED.value}


# Where they stand


def logged(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    log.event("accepted", direction="inbound", channel="sms", inbox="sms", message="m1")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_on_lambda_a_line_carries_its_metrics(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "askonce-api")
    monkeypatch.setenv("ASKONCE_PREFIX", "shop")
    line = logged(capsys)
    assert list(Draft202012Validator(SCHEMA).iter_errors(line)) == []
    assert (line["Accepted"], line["Prefix"], line["Channel"]) == (1, "shop", "sms")
    assert (line["event"], line["message"]) == ("accepted", "m1")


def test_elsewhere_it_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    assert set(logged(capsys)) == {"at", "event", "direction", "channel", "inbox", "message"}


def test_whoever_listens_hears_the_line_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "askonce-api")
    heard: list[dict[str, Any]] = []
    log.listeners.append(heard.append)
    try:
        log.event("stuck", message="m1")
    finally:
        log.listeners.remove(heard.append)
    assert "_aws" not in heard[0]


# That the steps say what is counted


def carried(event: str, fields: dict[str, Any]) -> list[str]:
    """The metrics of what a step reported."""
    line = {"event": event} | {k: v for k, v in fields.items() if v is not None}
    made = embedded(line, "askonce", 1)
    directives = made.get("_aws", {}).get("CloudWatchMetrics", [])
    return [metric["Name"] for told in directives for metric in told["Metrics"]]


def test_a_question_and_its_answer_are_counted_at_every_step() -> None:
    w = world()
    w.say("sms", "li", "How do I keep green tea fresh?", id="same")
    w.say("sms", "li", "How do I keep green tea fresh?", id="same")
    w.clock.forward(seconds=2)
    w.settle()
    w.reply("T1", "In a tin.")
    w.clock.forward(seconds=3)
    w.settle()
    w.say("sms", "li", "How do I keep green tea fresh?")
    w.settle()
    found = [(name, fields) for event, fields in w.events for name in carried(event, fields)]
    assert [name for name, _ in found] == [
        *("Accepted", "Redelivered", "ResolvedAsNew", "ForwardLatency", "DeliverLatency"),
        *("Accepted", "ResolvedAsRepeat"),
        *("ForwardLatency", "DeliverLatency"),
    ]
    latencies = {name: f["latency_ms"] for name, f in reversed(found) if name.endswith("Latency")}
    assert latencies == {"ForwardLatency": 2000, "DeliverLatency": 3000}


def sets_named(event: str, fields: dict[str, Any], metric: str) -> list[tuple[str, ...]]:
    line = {"event": event} | {k: v for k, v in fields.items() if v is not None}
    return [tuple(names) for names in sets_of(embedded(line, "askonce", 1), metric)]


@pytest.mark.parametrize("name", ["Accepted", "ForwardLatency", "DeliverLatency", "Quarantined"])
def test_a_step_names_every_dimension_of_its_metric(name: str) -> None:
    w = world()
    w.say("sms", "li", "How do I keep green tea fresh?")
    w.settle()
    w.reply("T1", "In a tin.")
    w.settle()
    request = w.request([])
    w.pipeline.accept("sms", type(request)(**vars(request) | {"body": b"{"}))
    metric = next(m for m in METRICS if m.name == name)
    told = next((e, f) for e, f in w.events if name in carried(e, f))
    assert sets_named(*told, name) == list(metric.dimensions)


def test_a_minute_looks_once_at_what_is_on_its_way() -> None:
    w = world()
    before = w.table.calls
    w.pipeline.tick()
    kinds = ("message", "parts", "reply")
    assert w.table.calls - before == len(kinds) * BUCKETS


def test_what_is_on_its_way_is_counted_each_minute_and_nothing_when_there_is_none() -> None:
    w = world()
    w.pipeline.tick()
    assert "backlog" not in w.names()
    w.say("sms", "li", "How do I keep green tea fresh?")
    w.say("email", "mei", "Where is my parcel?")
    w.pipeline.tick()
    assert ("backlog", {"messages": 2}) in w.events
