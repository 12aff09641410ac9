"""Which lines of the log are metrics, too: CloudWatch takes them from the line, at no call of ours.

Each set of dimensions makes a metric of its own, which is paid for by the month: what nobody looks
at by channel or inbox is counted for the deployment alone (docs/operating.md, "What it costs").
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

NAMESPACE = "AskOnce"
#: Dimension -> the field of the line that holds its value.
DIMENSIONS = {"Prefix": "prefix", "Channel": "channel", "Inbox": "inbox"}

_ALL = (("Prefix",),)
_BY_CHANNEL = (*_ALL, ("Prefix", "Channel"))
_BY_INBOX = (*_ALL, ("Prefix", "Inbox"))
_BY_BOTH = (*_BY_CHANNEL, ("Prefix", "Inbox"))


class Metric(NamedTuple):
    """A metric that a line carries, if its fields are as in `where`."""

    event: str
    name: str
    dimensions: tuple[tuple[str, ...], ...] = _ALL
    unit: str = "Count"
    #: The field that holds its value; None counts lines.
    field: str | None = None
    where: Mapping[str, object] = {}


_INBOUND = {"direction": "inbound"}

METRICS = (
    Metric("accepted", "Accepted", _BY_BOTH, where=_INBOUND),
    Metric("redelivered", "Redelivered", where=_INBOUND),
    Metric("refused", "Refused", _BY_INBOX, where={"status": 401}),
    Metric("quarantined", "Quarantined", _BY_INBOX, where={"new": True}),
    Metric("resolved", "ResolvedAsNew", where={"outcome": "new"}),
    Metric("resolved", "ResolvedAsFollowUp", where={"outcome": "follow_up"}),
    Metric("resolved", "ResolvedAsRelated", where={"outcome": "related"}),
    Metric("resolved", "ResolvedAsRepeat", where={"outcome": "repeat"}),
    Metric("forwarded", "ForwardLatency", _BY_CHANNEL, "Milliseconds", "latency_ms"),
    Metric("forward.rejected", "ForwardRejected"),
    Metric("delivered", "DeliverLatency", _BY_CHANNEL, "Milliseconds", "latency_ms"),
    Metric("undelivered", "Undelivered", _BY_CHANNEL),
    Metric("helpdesk.refused", "HelpdeskRefused"),
    Metric("helpdesk.resting", "HelpdeskResting"),
    Metric("stuck", "RepairedBySweep"),
    Metric("overdue", "Overdue"),
    Metric("backlog", "Backlog", field="messages"),
)


def embedded(line: Mapping[str, Any], prefix: str, at_ms: int) -> dict[str, Any]:
    """What is added to a line of the log for CloudWatch to find its metrics; {} if it has none."""
    found = list(_found(line))
    if not found:
        return {}
    known = {"Prefix": prefix} | {
        dimension: str(line[field]) for dimension, field in DIMENSIONS.items() if field in line
    }
    told = [_directive(metric, known) for metric in found]
    values = {metric.name: line[metric.field] if metric.field else 1 for metric in found}
    used = {name: known[name] for d in told for names in d["Dimensions"] for name in names}
    return {**values, **used, "_aws": {"Timestamp": at_ms, "CloudWatchMetrics": told}}


def _found(line: Mapping[str, Any]) -> Iterator[Metric]:
    for metric in METRICS:
        if metric.event != line["event"] or (metric.field and metric.field not in line):
            continue
        if all(line.get(name) == value for name, value in metric.where.items()):
            yield metric


def _directive(metric: Metric, known: Mapping[str, str]) -> dict[str, Any]:
    """A line that lacks a dimension counts without it: CloudWatch drops what is half named."""
    return {
        "Namespace": NAMESPACE,
        "Dimensions": [list(names) for names in metric.dimensions if known.keys() >= set(names)],
        "Metrics": [{"Name": metric.name, "Unit": metric.unit}],
    }
