"""docs/performance.md says what each message takes of AWS: exactly that, and no more."""

import re
from collections import Counter

import pytest

from tests import bench_cost, prices
from tests.bench_page import PAGE, marks
from tests.flows import Invocation, Run
from tests.metering import Bill
from tests.prices import ALONE, BY_HTTP_API, IN_TENS, STEADY


def rows_on_page(name: str) -> list[list[str]]:
    """A table's rows, without its head."""
    before, behind = map(re.escape, marks(name))
    found = re.search(f"{before}\n(.*?)\n{behind}", PAGE.read_text("utf-8"), re.DOTALL)
    assert found, f"no table {name}"
    _, _, *lines = found[1].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_message_takes_the_calls_and_units_that_the_page_says() -> None:
    """Where less is taken, too: `python -m tests.bench_cost --write` renews the page."""
    with bench_cost.moto() as on:
        _, *found = bench_cost.calls(bench_cost.play(on, 1, lambda _: None))
    now = {what: figures for what, *figures, _dollars in found}
    told = {what: figures for what, *figures, _dollars in rows_on_page("calls")}
    other = [
        f"{what}: {told.get(what)} on the page, {now.get(what)} now"
        for what in told | now
        if told.get(what) != now.get(what)
    ]
    assert not other, "\n".join([", ".join(bench_cost.HEAD[1:]), *other])


def test_nothing_grows_with_what_is_stored() -> None:
    assert len({tuple(figures) for _, *figures in rows_on_page("growth")}) == 1


def test_beyond_what_is_looked_at_nothing_grows_with_what_a_customer_asked() -> None:
    first, *rest = rows_on_page("growth by contact")
    assert len({tuple(figures) for _, *figures in rest}) == 1
    assert first[1:3] == rest[0][1:3]


# Prices


def one(function: str, **changes: float) -> Invocation:
    bill = Bill(Counter({"dynamodb.PutItem": 2, "sqs.SendMessage": 1}), 1, 2)
    values = {"cpu_ms": 0.0, "outside": 0, "log_bytes": 0} | changes
    return Invocation(
        function, bill, values["cpu_ms"], int(values["outside"]), int(values["log_bytes"])
    )


def test_a_million_runs_cost_what_their_parts_do() -> None:
    found = prices.dollars(Run([one("api_handler")]))
    assert found["API Gateway"] == 3.5
    assert found["DynamoDB"] == pytest.approx(2 * 0.625 + 0.125)
    assert found["SQS"] == 0.5
    seconds = 3 * prices.AWS_MS / 1000
    assert found["Lambda"] == pytest.approx(0.2 + 1e6 * seconds * 0.5 * 0.0000133334)


def test_units_that_are_there_all_day_cost_two_fifths_where_seven_tenths_are_used() -> None:
    by_request, by_units = (
        prices.dollars(Run([one("forward")]), t)["DynamoDB"] for t in (ALONE, STEADY)
    )
    assert by_units == pytest.approx((2 * 0.00065 + 0.00013) * 1e6 / 3600 / 0.7)
    assert 0.40 < by_units / by_request < 0.43


def test_cpu_takes_longer_where_there_is_a_part_of_a_core() -> None:
    idle, busy = one("forward"), one("forward", cpu_ms=10)
    assert prices.billed_ms(busy) - prices.billed_ms(idle) == pytest.approx(10 * 1769 / 512)
    waits = one("forward", outside=1)
    assert prices.billed_ms(waits) - prices.billed_ms(idle) == prices.OUTSIDE_MS


def test_a_batch_shares_requests_and_no_write_and_no_line() -> None:
    run = Run([one("forward", cpu_ms=10, log_bytes=1000)])
    alone, tens = prices.dollars(run, ALONE), prices.dollars(run, IN_TENS)
    assert alone["SQS"] - tens["SQS"] == pytest.approx(0.5 * 2 * 0.9)
    assert alone["DynamoDB"] == tens["DynamoDB"]
    assert tens["logs"] == alone["logs"] == pytest.approx(0.5 * 1e9 / 2**30)


def test_an_http_api_costs_less_than_a_third_of_a_rest_api_and_changes_nothing_else() -> None:
    run = Run([one("api_handler")])
    rest, http = prices.dollars(run, IN_TENS), prices.dollars(run, BY_HTTP_API)
    assert (rest.pop("API Gateway"), http.pop("API Gateway")) == (3.5, 1.0)
    assert rest == http


def test_ten_conversations_wait_twice_instead_of_ten_times_and_compute_ten_times() -> None:
    waits, computes = one("forward", outside=1), one("deliver", cpu_ms=10)
    waiting = prices.OUTSIDE_MS + 3 * prices.AWS_MS
    assert prices.billed_ms(waits) == waiting
    assert 10 * prices.billed_ms(waits, IN_TENS) == pytest.approx(2 * waiting)
    idle = one("deliver")
    for traffic in (ALONE, IN_TENS):
        cpu = prices.billed_ms(computes, traffic) - prices.billed_ms(idle, traffic)
        assert cpu == pytest.approx(10 * 1769 / 512)


def test_the_streams_worker_waits_twice_for_ten_too_and_sends_what_they_come_to_at_once() -> None:
    stored = one("on_stored")
    assert 10 * prices.billed_ms(stored, IN_TENS) == pytest.approx(2 * prices.billed_ms(stored))
    alone, tens = (prices.dollars(Run([stored]), traffic)["SQS"] for traffic in (ALONE, IN_TENS))
    assert [alone, tens] == pytest.approx([0.5, 0.05])


def test_an_api_takes_one_message_at_a_time() -> None:
    invocation = one("api_handler", cpu_ms=1, outside=1)
    assert prices.billed_ms(invocation, IN_TENS) == prices.billed_ms(invocation)
