"""What a message costs on AWS, and whether that grows: `python -m tests.bench_cost`.

    --write      put the tables on docs/performance.md, too
    --growth N   fill the table with up to so many messages; 0 leaves that out

calls     calls of AWS and units of DynamoDB for each thing that can happen, on each channel
dollars   the same times AWS's prices, for a million
growth    the same calls and units in a table that is ever fuller

tests/test_cost.py holds the page against the functions as they are: what costs more fails there.
"""

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from math import prod
from random import Random
from statistics import median
from typing import Any

import app
from chalicelib import metrics
from chalicelib.crowd import LISTED_CUSTOMERS
from infra import template
from infra.local.aws import EmbeddedAws
from infra.package import ROOT
from tests import bench_growth, prices
from tests.bench_page import PAGE, markdown, written
from tests.flows import (
    Customer,
    Machine,
    Run,
    agent_says,
    environment,
    forged,
    machine,
    twilio_says,
)
from tests.metering import Bill
from tests.prices import ALONE, BY_HTTP_API, IN_TENS, SERVICES, STEADY, Traffic

LONG_MAIL = "email of 20 kB"
#: On each channel others, so that on each somebody is the first to ask.
QUESTIONS = {
    "wechat": "你好，请问龙井茶怎么保存？",
    "sms": "Where is my order 20260311-7? It should have come on Monday.",
    "email": "Hello, can the blue porcelain teapot go into the dishwasher, or does its glaze suffer"
    " there over the years? And does it come with a lid, as the picture on your page shows?",
    "webchat": "Do you deliver to Norway, and how much does the shipping cost?",
}
FOLLOW_UP = {"wechat": "好的，谢谢"}
THANKS, ANSWER = "Thank you!", "Yes, and it comes tomorrow."
#: What makes a mail of about 20 kB.
FLOWS = ("first", "new", "follow-up", "reply", "repeat", "redelivery", "refused", "receipt")
#: What happens once in a conversation of the kind that the dollars are about.
CONVERSATION = ("first", "follow-up", "reply", "repeat")
WORDS = {
    "new": "a question that nobody asked before",
    "first": "a customer's first question; others asked it, too",
    "follow-up": "a line of thanks after it",
    "reply": "an agent's reply, delivered",
    "repeat": "the question again, answered from the reply",
    "redelivery": "the same webhook again",
    "refused": "a forged webhook",
    "receipt": "the provider's receipt for an SMS",
}
ROUNDS = 3
#: Takes about a minute to fill; a million takes ten, and memory.
GROWTH = 100_000
Table = list[list[str]]
#: Channel -> flow -> every run of it.
Played = dict[str, dict[str, list[Run]]]
Tell = Callable[[str], None]


# Playing


def play(on: Machine, rounds: int, tell: Tell) -> Played:
    """Every flow of every channel, on it so many times."""
    played: Played = {}
    on.run(Customer("sms", 999_999).says("Is the shop in Kyoto open on Sundays?"))
    for channel in (*QUESTIONS, LONG_MAIL):
        tell(f"{channel}, {rounds} times")
        base, long = channel.partition(" ")[0], channel == LONG_MAIL
        text = QUESTIONS[base] + (f"\n\n{_prose(20_000)}" if long else "")
        customers = (Customer(base, len(played) * 1000 + n) for n in count())
        # Until a question is among those that many ask, which is noted once a day.
        before = [on.run(next(customers).says(text)) for _ in range(LISTED_CUSTOMERS - 1)]
        _conversation(on, next(customers), text)  # what each container does once
        for customer in islice(customers, rounds):
            for flow, run in _conversation(on, customer, text).items():
                played.setdefault(channel, {}).setdefault(flow, []).append(run)
        if not long:
            played[channel]["new"] = before[:1]
    return played


def _prose(characters: int) -> str:
    """Words that mean nothing, and pack about as well as what people write."""
    chance = Random(20)
    syllables = [c + v for c in "bdfgklmnprstvw" for v in "aeiou"]
    words: list[str] = []
    while sum(map(len, words)) + len(words) < characters:
        words.append("".join(chance.choices(syllables, k=chance.randint(1, 4))))
    return "\n".join(" ".join(words[n : n + 12]) for n in range(0, len(words), 12))


def _conversation(on: Machine, customer: Customer, question: str) -> dict[str, Run]:
    sent = customer.says(question)
    found = {"first": on.run(sent)}
    ticket = on.tickets[-1]
    found["redelivery"] = on.run(sent)
    found["refused"] = on.run(forged(sent))
    found["follow-up"] = on.run(customer.says(FOLLOW_UP.get(customer.channel, THANKS), later=2))
    found["reply"] = on.run(agent_says(ticket, ANSWER))
    found["repeat"] = on.run(customer.says(question, later=4))
    if customer.channel == "sms":
        found["receipt"] = on.run(twilio_says(on.sms_sent[-1]))
    _demand_story(found)
    return found


def _demand_story(found: Mapping[str, Run]) -> None:
    """RuntimeError if something else happened than was meant to be counted."""
    taken = {flow: run.status // 100 == 2 for flow, run in found.items()}
    if taken != {flow: flow != "refused" for flow in found}:
        raise RuntimeError(f"not all was taken: {taken}")
    outcomes = {flow: found[flow].outcome for flow in ("first", "follow-up", "repeat")}
    if outcomes != {"first": "new", "follow-up": "follow_up", "repeat": "repeat"}:
        raise RuntimeError(f"the story went otherwise: {outcomes}")


def typical(runs: Sequence[Run]) -> Run:
    """One of them, with the median CPU of all. RuntimeError if they did not all do the same."""
    bills = {_bill_of(run) for run in runs}
    if len(bills) != 1:
        raise RuntimeError(f"the same took another number of calls or units: {bills}")
    every = zip(*(run.invocations for run in runs), strict=True)
    mean = [replace(same[0], cpu_ms=median(one.cpu_ms for one in same)) for same in every]
    return replace(runs[0], invocations=mean)


def _bill_of(run: Run) -> tuple[Any, ...]:
    bill = run.bill
    return (*sorted(bill.calls.items()), bill.write_units, bill.read_units, run.functions)


# Calls, units and dollars

_SHORT = {"api_handler": "api", "on_stored": "stream"}
HEAD = ["what happens", "functions", "calls of DynamoDB", "write units", "read units", "SQS", "S3"]


def figures(run: Run) -> list[str]:
    """What a row says of it, under HEAD."""
    services: Counter[str] = Counter()
    for name, times in run.bill.calls.items():
        services[name.partition(".")[0]] += times
    ran = " ".join(_SHORT.get(name, name) for name in run.functions)
    units = (str(run.bill.write_units), f"{run.bill.read_units:g}")
    return [ran, str(services["dynamodb"]), *units, str(services["sqs"]), str(services["s3"])]


def calls(played: Played) -> Table:
    """What each thing takes; the dollars are for a million that come alone."""
    rows = [[*HEAD, "dollars a million"]]
    for channel, flows in played.items():
        for flow in (name for name in FLOWS if name in flows):
            one = typical(flows[flow])
            price = f"{prices.total(prices.dollars(one)):.2f}"
            rows.append([f"{channel}: {WORDS[flow]}", *figures(one), price])
    return rows


def dollars(played: Played) -> Table:
    """A million messages of conversations, by service; first the floor."""
    rows = [["a million messages", *SERVICES, "sum", "kept, a month"]]
    rows.append(
        ["floor: one conditional put behind the REST API", *_priced([_floor(played)], ALONE)]
    )
    for channel, flows in played.items():
        runs = [typical(flows[flow]) for flow in CONVERSATION]
        for traffic in (ALONE, IN_TENS, BY_HTTP_API, STEADY):
            rows.append([f"{channel}, {traffic.name}", *_priced(runs, traffic)])
    return rows


def _priced(runs: Sequence[Run], traffic: Traffic) -> list[str]:
    """Of the mean of some runs."""
    each = [prices.dollars(run, traffic) for run in runs]
    mean = {service: sum(one[service] for one in each) / len(each) for service in SERVICES}
    kept = sum(map(prices.stored_dollars, runs)) / len(runs)
    return [f"{price:.2f}" for price in (*mean.values(), prices.total(mean), kept)]


def _floor(played: Played) -> Run:
    """What stores an SMS and says so, and nothing more: no index, no log."""
    stored = typical(played["sms"]["redelivery"]).invocations[0]
    return Run([replace(stored, log_bytes=0, bill=Bill(stored.bill.calls, 0, 1))])


# What is paid by the month

_MINUTES_A_MONTH = 60 * 730
#: Lambda asks an idle queue by so many lines, each as long as SQS lets it wait.
_POLLERS, _POLLS_A_MINUTE = 5, 3
_KEY, _KEY_REQUESTS, _METRIC, _ALARM, _DASHBOARD = 1.00, 3.00, 0.30, 0.10, 3.00
#: DynamoDB asks for the key of each role once in five minutes; SQS, of producers and consumers,
#: once in the hour that infra/resources.yaml lets it reuse a data key.
_ROLES, _KEY_MINUTES, _QUEUE_KEYS_AN_HOUR = 6, 5, 12


def monthly(on: Machine) -> Table:
    """What costs the same however many messages there are: a core, an edge, four inboxes."""
    tick = {service: price for service, price in prices.dollars(on.tick()).items() if price}
    ticks = _MINUTES_A_MONTH / 1_000_000
    polls = 2 * _POLLERS * _POLLS_A_MINUTE * _MINUTES_A_MONTH
    asked = _ROLES * _MINUTES_A_MONTH / _KEY_MINUTES + _QUEUE_KEYS_AN_HOUR * 730
    watched = _watched()
    metrics_ = _metrics()
    rows: list[tuple[str, float]] = [
        ("the schedule, every minute", ticks * prices.total(tick)),
        (f"{polls:,} looks of Lambda into idle queues", polls * prices.FIFO_REQUESTS / 1e6),
        ("the key", _KEY),
        (f"at most {asked:,.0f} requests to the key", asked * _KEY_REQUESTS / 1e6),
        (f"{metrics_} metrics", metrics_ * _METRIC),
        (f"alarms on {watched} metrics", watched * _ALARM),
        ("the dashboard", _DASHBOARD),
    ]
    rows.append(("sum", sum(price for _, price in rows)))
    return [["by the month", "dollars"], *([what, f"{price:.2f}"] for what, price in rows)]


def _watched() -> int:
    """Metrics that alarms look at: one that looks at several costs as much as several."""
    parts = [
        template.read(ROOT / "infra" / f"{name}.yaml") for name in ("watching", "edge_watching")
    ]
    found = (resource for part in parts for resource in part["Resources"].values())
    alarms = [r["Properties"] for r in found if r.get("Type") == "AWS::CloudWatch::Alarm"]
    return sum(sum("MetricStat" in m for m in a.get("Metrics", [])) or 1 for a in alarms)


def _metrics() -> int:
    """Each value of a dimension makes another metric."""
    values = {"Prefix": 1, "Channel": len(QUESTIONS), "Inbox": len(QUESTIONS)}
    named = {(m.name, names) for m in metrics.METRICS for names in m.dimensions}
    return sum(prod(values[name] for name in names) for _, names in named)


# Where it runs


@contextlib.contextmanager
def moto() -> Iterator[Machine]:
    """A machine over moto's server, with nothing in it."""
    from moto.core.base_backend import BackendDict

    BackendDict.reset()
    with environment({}):
        embedded = EmbeddedAws(app.PREFIX, None)
        embedded.start()
        try:
            with machine(embedded.bucket) as made:
                yield made
        finally:
            embedded.stop()


# Telling


def rows_for_page(on: Machine, rounds: int, tell: Tell) -> dict[str, Table]:
    """The tables of what one message costs."""
    played = play(on, rounds, tell)
    return {"calls": calls(played), "dollars": dollars(played), "monthly": monthly(on)}


def _conversation_by_sms(on: Machine, customer: Customer) -> Mapping[str, Run]:
    found = _conversation(on, customer, QUESTIONS["sms"])
    return {flow: found[flow] for flow in CONVERSATION}


def main() -> int:
    parser = argparse.ArgumentParser(description="What a message costs on AWS.")
    parser.add_argument("--write", action="store_true", help="put the tables on the page")
    parser.add_argument("--growth", type=int, default=GROWTH, metavar="MESSAGES",
                        help="fill the table with up to so many; 0 leaves that out")  # fmt: skip
    asked = parser.parse_args()
    started = time.monotonic()

    def tell(what: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {what}\n")

    with moto() as on:
        show(rows_for_page(on, ROUNDS, tell), write=asked.write)
    if asked.growth and not bench_growth.is_installed():
        tell("growth is left out: `make rehearse` installs the engine that it takes")
    elif asked.growth:
        show(bench_growth.tables(asked.growth, _conversation_by_sms, tell), write=asked.write)
    return 0


def show(tables: Mapping[str, Sequence[Sequence[str]]], *, write: bool) -> None:
    """Print them, and put them on the page if that is wanted."""
    for name, rows in tables.items():
        table = markdown(rows)
        sys.stdout.write(f"\n{table}\n")
        if write:
            page = PAGE.read_text(encoding="utf-8")
            PAGE.write_text(written(page, name, table), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
