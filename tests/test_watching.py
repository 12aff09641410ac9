"""Alarms and the dashboard: what they look at exists, and what they mean is written down."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chalicelib.metrics import METRICS, NAMESPACE
from infra import package, template
from infra.stages import Stage

ROOT = Path(__file__).resolve().parent.parent
CORE = template.read(ROOT / "infra" / "watching.yaml")
#: An edge looks at the figures of the API that it has.
EDGES = {
    api: template.merged(
        *package.said_of(Stage("s", {"ASKONCE_PARTS": "edge", "ASKONCE_API": api}))
    )
    for api in package.APIS
}
PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
#: What AWS counts by itself, and by which dimensions:
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
#: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html
NATIVE: dict[tuple[str, tuple[str, ...]], set[str]] = {
    ("AWS/SQS", ("QueueName",)): {
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesVisible",
    },
    ("AWS/Lambda", ("FunctionName",)): {"Errors", "Throttles", "Invocations", "IteratorAge"},
    ("AWS/ApiGateway", ("ApiName",)): {"4XXError", "5XXError", "Latency"},
    ("AWS/ApiGateway", ("ApiId",)): {"4xx", "5xx", "Count", "Latency"},
}
FUNCTIONS = {"OnStored", "OnSnsMessage", "Forward", "Deliver", "Tick"}
Metric = tuple[str, str, tuple[str, ...]]


def of_type(part: Any, kind: str) -> dict[str, Any]:
    """{logical name: properties}"""
    found = part["Resources"].items()
    return {name: r["Properties"] for name, r in found if r.get("Type") == kind}


ALARMS = of_type(CORE, "AWS::CloudWatch::Alarm") | {
    f"{name}-{api}": alarm
    for api, edge in EDGES.items()
    for name, alarm in of_type(edge, "AWS::CloudWatch::Alarm").items()
}


def body() -> dict[str, Any]:
    """The dashboard's, with every reference replaced, as CloudFormation does."""
    [dashboard] = of_type(CORE, "AWS::CloudWatch::Dashboard").values()
    text = re.sub(r"\$\{([^}]+)\}", r"<\1>", dashboard["DashboardBody"]["Fn::Sub"])
    found: dict[str, Any] = json.loads(text)
    return found


def shown() -> list[list[Any]]:
    """The lines of all graphs."""
    widgets = (w["properties"] for w in body()["widgets"])
    return [line for properties in widgets for line in properties.get("metrics", ())]


def named(line: list[Any]) -> Metric:
    """Namespace, name and dimensions of a line."""
    if isinstance(line[0], dict):
        found = re.match(r"SEARCH\('\{(\w+),([\w,]+)\} MetricName=\"(\w+)\"", line[0]["expression"])
        assert found, line
        return found[1], found[3], tuple(found[2].split(","))
    names = [part for part in line if isinstance(part, str)]
    return names[0], names[1], tuple(names[2::2])


def watched(alarm: dict[str, Any]) -> list[Metric]:
    """What an alarm looks at: one metric, or a sum of several."""
    stats = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", ()) if "MetricStat" in m]
    return [
        (m["Namespace"], m["MetricName"], tuple(d["Name"] for d in m["Dimensions"]))
        for m in stats or [alarm]
    ]


def exists(metric: Metric) -> bool:
    namespace, name, dimensions = metric
    if namespace == NAMESPACE:
        return any(m.name == name and dimensions in m.dimensions for m in METRICS)
    return name in NATIVE.get((namespace, dimensions), ())


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_what_an_alarm_looks_at_is_counted(name: str) -> None:
    missing = [metric for metric in watched(ALARMS[name]) if not exists(metric)]
    assert missing == []


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_an_alarm_says_what_it_means_and_where_to_read_on(name: str) -> None:
    said, _, where = ALARMS[name]["AlarmDescription"].partition(' docs/operating.md, "')
    assert said.endswith(".")
    section = where.removesuffix('".')
    assert re.search(rf"^#+ {re.escape(section)}$", PAGE, re.MULTILINE), section


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_an_alarm_tells_somebody_when_it_begins_and_when_it_ends(name: str) -> None:
    alarm = ALARMS[name]
    assert alarm["AlarmActions"] == alarm["OKActions"]
    [told] = alarm["AlarmActions"]
    arn = "arn:${AWS::Partition}:sns:${AWS::Region}:${AWS::AccountId}:${Prefix}-alarms"
    assert told == ({"Ref": "AlarmTopic"} if name in CORE["Resources"] else {"Fn::Sub": arn})


def test_stacks_of_the_edge_know_the_cores_topic_by_its_name() -> None:
    topic = of_type(CORE, "AWS::SNS::Topic")["AlarmTopic"]
    assert topic["TopicName"] == {"Fn::Sub": "${Prefix}-alarms"}


def test_only_the_schedules_silence_is_an_alarm_without_figures() -> None:
    breaching = [n for n, a in ALARMS.items() if a["TreatMissingData"] != "notBreaching"]
    assert breaching == ["TickSilentAlarm"]


@pytest.mark.parametrize("name", ["FunctionsFailedAlarm", "FunctionsThrottledAlarm"])
def test_no_function_is_forgotten(name: str) -> None:
    stats = [m["MetricStat"]["Metric"] for m in ALARMS[name]["Metrics"] if "MetricStat" in m]
    assert {d["Value"]["Ref"] for m in stats for d in m["Dimensions"]} == FUNCTIONS


def test_every_queue_and_its_dead_letters_are_watched() -> None:
    resources = template.read(ROOT / "infra" / "resources.yaml")
    queues = of_type(resources, "AWS::SQS::Queue")
    seen = {
        d["Value"]["Fn::GetAtt"][0]
        for alarm in ALARMS.values()
        for d in alarm.get("Dimensions", ())
        if d["Name"] == "QueueName"
    }
    assert seen == set(queues)


def test_nobody_need_be_told_by_mail() -> None:
    [mail] = [r for r in CORE["Resources"].values() if r["Type"] == "AWS::SNS::Subscription"]
    assert mail["Condition"] == "HasAlarmEmail"
    assert CORE["Parameters"]["AlarmEmail"]["Default"] == ""


# The dashboard


def test_what_the_dashboard_shows_is_counted() -> None:
    lines = [named(line) for line in shown()]
    assert [metric for metric in lines if not exists(metric)] == []
    assert len(lines) > 30


def test_the_dashboard_shows_everything_that_we_count() -> None:
    ours = {name for namespace, name, _ in map(named, shown()) if namespace == NAMESPACE}
    assert ours == {metric.name for metric in METRICS}


def test_the_dashboard_names_nothing_but_resources_of_the_core() -> None:
    [dashboard] = of_type(CORE, "AWS::CloudWatch::Dashboard").values()
    referred = re.findall(r"\$\{([A-Za-z:]+)", dashboard["DashboardBody"]["Fn::Sub"])
    resources = template.read(ROOT / "infra" / "resources.yaml")["Resources"]
    known = {*CORE["Resources"], *resources, *FUNCTIONS, "Prefix", "AWS::Region"}
    assert set(referred) - known == set()


def test_the_dashboard_lists_every_alarm_of_its_stack() -> None:
    [listed] = [w["properties"]["alarms"] for w in body()["widgets"] if w["type"] == "alarm"]
    assert set(listed) == {f"<{name}.Arn>" for name in of_type(CORE, "AWS::CloudWatch::Alarm")}


def test_latencies_are_shown_as_a_customer_feels_them() -> None:
    stats = {
        (named(line)[1], line[-1]["stat"]) for line in shown() if named(line)[1].endswith("Latency")
    }
    assert stats == {
        (name, stat) for name in ("ForwardLatency", "DeliverLatency") for stat in ("p50", "p95")
    }


def test_no_two_graphs_lie_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for w in body()["widgets"]:
        own = {
            (x, y)
            for x in range(w["x"], w["x"] + w["width"])
            for y in range(w["y"], w["y"] + w["height"])
        }
        assert not own & taken, w["properties"]["title"]
        assert w["x"] + w["width"] <= 24
        taken |= own


def test_every_graph_says_where_it_is() -> None:
    """CloudWatch refuses a graph without a region."""
    regions = [w["properties"]["region"] for w in body()["widgets"] if w["type"] == "metric"]
    assert set(regions) == {"<AWS::Region>"}
