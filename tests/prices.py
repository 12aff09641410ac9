"""What AWS asks in us-east-1, and what a run of the functions comes to.

API Gateway, DynamoDB and Lambda as published in September 2026, requests to FIFO queues as of March
2026, S3 and CloudWatch as told by their pages. Without the free tier.
https://aws.amazon.com/dynamodb/pricing/on-demand/  https://aws.amazon.com/lambda/pricing/
https://aws.amazon.com/api-gateway/pricing/  https://aws.amazon.com/sqs/pricing/
https://aws.amazon.com/s3/pricing/  https://aws.amazon.com/cloudwatch/pricing/
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from chalicelib import stream
from chalicelib.settings import CONVERSATIONS_AT_ONCE
from infra.package import ROOT
from tests.flows import Invocation, Run

_MILLION = 1_000_000
# Dollars for a million, or for what is named.
REST_CALLS, HTTP_CALLS = 3.50, 1.00
WRITE_UNITS, READ_UNITS = 0.625, 0.125
#: Of one unit a second, for an hour; and how much of them infra/capacity.yaml wants used.
#: https://aws.amazon.com/dynamodb/pricing/provisioned/
WRITE_UNIT_HOUR, READ_UNIT_HOUR, USED = 0.00065, 0.00013, 0.70
FIFO_REQUESTS = 0.50
INVOCATIONS, GIGABYTE_SECOND_ARM64 = 0.20, 0.0000133334
S3_PUTS, S3_GETS = 5.00, 0.40
LOG_GIGABYTE = 0.50
STORED_GIGABYTE_MONTH = 0.25

#: A vCPU's worth of memory: below it, Lambda gives its part of one.
_VCPU_MB = 1769
#: What is assumed, for it cannot be measured here: how long others take to answer.
AWS_MS, OUTSIDE_MS = 5.0, 300.0
_OF_QUEUES = ("forward", "deliver")
#: So many messages of a batch are worked on at once.
_AT_ONCE = dict.fromkeys(_OF_QUEUES, CONVERSATIONS_AT_ONCE) | {"on_stored": stream.AT_ONCE}
SERVICES = ("API Gateway", "Lambda", "DynamoDB", "SQS", "S3", "logs")


def memory_mb() -> int:
    """What a function has."""
    config = json.loads((ROOT / ".chalice" / "config.json").read_text(encoding="utf-8"))
    return int(config["lambda_memory_size"])


@dataclass(frozen=True)
class Traffic:
    """How many messages one invocation of a worker takes, and one request of its poller."""

    name: str
    batch: int
    #: What a million requests to the edge's API cost, and a million units of the table.
    api: float = REST_CALLS
    write_units: float = WRITE_UNITS
    read_units: float = READ_UNITS


#: Up to some messages a second each comes alone; in a burst they come in full batches, each
#: message of another conversation.
ALONE, IN_TENS = Traffic("alone", 1), Traffic("in tens", 10)
BY_HTTP_API = Traffic("in tens, by an HTTP API", 10, HTTP_CALLS)


def _of_an_hour(unit: float) -> float:
    """A million units out of those that are there all the time."""
    return unit * _MILLION / 3600 / USED


#: The same all day long, with a table that has its units a second.
STEADY = Traffic(
    "in tens, by an HTTP API, table by units",
    10,
    HTTP_CALLS,
    _of_an_hour(WRITE_UNIT_HOUR),
    _of_an_hour(READ_UNIT_HOUR),
)


def dollars(run: Run, traffic: Traffic = ALONE) -> dict[str, float]:
    """Of a million such runs, by service."""
    calls, bill = run.bill.calls, run.bill
    worked = sum(one.function in _OF_QUEUES for one in run.invocations)
    polled = 2 * worked / traffic.batch  # Lambda receives and deletes in our name
    sent = sum(_sent(one, traffic) for one in run.invocations)
    return {
        "API Gateway": traffic.api * run.functions.count("api_handler"),
        "Lambda": sum(_lambda_dollars(one, traffic) for one in run.invocations),
        "DynamoDB": traffic.write_units * bill.write_units + traffic.read_units * bill.read_units,
        "SQS": FIFO_REQUESTS * (sent + polled),
        "S3": S3_PUTS * calls["s3.PutObject"] + S3_GETS * calls["s3.GetObject"],
        "logs": LOG_GIGABYTE * _MILLION * sum(one.log_bytes for one in run.invocations) / 2**30,
    }


def _sent(one: Invocation, traffic: Traffic) -> float:
    """Requests that send: the stream's worker sends what a batch comes to in one."""
    sent = sum(n for name, n in one.bill.calls.items() if name.startswith("sqs."))
    return sent / traffic.batch if one.function == "on_stored" else sent


def _batch(one: Invocation, traffic: Traffic) -> int:
    return 1 if one.function == "api_handler" else traffic.batch


def _lambda_dollars(one: Invocation, traffic: Traffic) -> float:
    gigabyte_seconds = billed_ms(one, traffic) / 1000 * memory_mb() / 1024
    return INVOCATIONS / _batch(one, traffic) + _MILLION * gigabyte_seconds * GIGABYTE_SECOND_ARM64


def billed_ms(one: Invocation, traffic: Traffic = ALONE) -> float:
    """How long a message takes on Lambda: its CPU, by the part of a vCPU that it has, and waiting.

    Conversations of a batch wait at once, so many at a time; their CPU adds up, as if none of it
    were spent while another one waits.
    """
    cpu = one.cpu_ms / min(1.0, memory_mb() / _VCPU_MB)
    waiting = AWS_MS * one.bill.calls.total() + OUTSIDE_MS * one.outside
    return cpu + waiting * _waits(one, traffic) / _batch(one, traffic)


def _waits(one: Invocation, traffic: Traffic) -> int:
    """How often a batch waits, one time after the other, as long as a message does."""
    return ceil(_batch(one, traffic) / _AT_ONCE.get(one.function, 1))


def stored_dollars(run: Run) -> float:
    """Of keeping what a million such runs leave in the table, a month."""
    return STORED_GIGABYTE_MONTH * _MILLION * run.bill.stored_bytes / 2**30


def total(by_service: Mapping[str, float]) -> float:
    return sum(by_service.values())
