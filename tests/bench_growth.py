"""Whether a message costs more when the table is full, or the customer asked much before.

On ministack (`make rehearse` installs it), which stays fast when there is much in it: not so moto.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count, islice
from typing import Any

import app
from chalicelib.crowd import LISTED_CUSTOMERS
from chalicelib.items import Held
from infra.local.aws import ENVIRONMENT
from tests import engines
from tests.flows import Customer, Machine, Run, environment, machine
from tests.metering import own_client
from tests.rehearse import TOOLS, engine

SMALLEST, PER_CONTACT = 100, (1, 20, 100, 1000)
_BATCH = 25
_ANOTHER = "Which of your green teas is grown without any pesticides?"
Table = list[list[str]]
#: Plays a conversation of a customer: what happened -> the run.
Conversation = Callable[[Machine, Customer], Mapping[str, Run]]


def is_installed() -> bool:
    """Whether there is a ministack to start."""
    return (TOOLS / "ministack").exists()


@contextmanager
def ministack() -> Iterator[Machine]:
    """A machine over a ministack of its own."""
    with ExitStack() as stack:
        url = stack.enter_context(engine())
        stack.enter_context(environment(ENVIRONMENT | {"AWS_ENDPOINT_URL": url}))
        yield stack.enter_context(machine(engines.emptied(app.PREFIX)))


def stored(
    on: Machine, most: int, conversation: Conversation, tell: Callable[[str], None]
) -> Table:
    """A conversation with ever more messages in the table."""
    rows = [["messages in the table", "calls of AWS", "write units", "read units"]]
    customers = (Customer("sms", number) for number in count(1_000_000))
    for customer in islice(
        customers, LISTED_CUSTOMERS + 1
    ):  # what each container does once, and each topic
        conversation(on, customer)
    there, size = 0, SMALLEST
    while size <= most:
        _fill(size - there)
        there = size
        runs = conversation(on, next(customers))
        rows.append([f"{size:,}", *_figures(runs.values())])
        tell(f"{size:,} messages: {', '.join(rows[-1][1:])}")
        size *= 10
    return rows


def asked(on: Machine, conversation: Conversation, tell: Callable[[str], None]) -> Table:
    """Another question of a customer who asked ever more before."""
    rows = [["earlier questions of the customer", "calls of AWS", "write units", "read units"]]
    for number in range(LISTED_CUSTOMERS):  # then it is noted as one that many ask
        on.run(Customer("sms", 2_000_000 + number).says(_ANOTHER))
    for number in PER_CONTACT:
        customer = Customer("sms", 3_000_000 + number)
        conversation(on, customer)
        _have_asked(on.contact, number - 1)
        run = on.run(customer.says(_ANOTHER))
        rows.append([f"{number:,}", *_figures([run])])
        tell(f"{number:,} questions: {', '.join(rows[-1][1:])}")
    return rows


def _figures(runs: Iterable[Run]) -> list[str]:
    bills = [run.bill for run in runs]
    calls = sum(bill.calls.total() for bill in bills)
    units = sum(bill.write_units for bill in bills), sum(bill.read_units for bill in bills)
    return [str(calls), str(units[0]), f"{units[1]:g}"]


def _fill(many: int) -> None:
    """So many more messages, each of its own sender."""
    client = own_client("dynamodb")
    pages = client.get_paginator("scan").paginate(TableName=app.PREFIX)
    items = (item for page in pages for item in page["Items"])
    one = next(i for i in items if i.get("kind") == {"S": "message"} and "thread" in i)
    for start in range(0, many, _BATCH):
        put = [{"PutRequest": {"Item": _other(one)}} for _ in range(min(_BATCH, many - start))]
        answer = client.batch_write_item(RequestItems={app.PREFIX: put})
        if answer.get("UnprocessedItems"):
            raise RuntimeError("the engine is too busy to be filled")


def _other(item: Mapping[str, Any]) -> dict[str, Any]:
    identity = uuid.uuid4().hex
    own = {"pk": f"MSG#m{identity[:13]}", "sk": f"m{identity[:27]}", "thread": f"q{identity[:27]}"}
    return {**item, **{name: {"S": value} for name, value in own.items()}}


def _have_asked(contact_id: str, many: int) -> None:
    """So many more conversations of a contact, each an hour before the one before."""
    store = app.pipeline().store
    (held,) = store.history(contact_id).conversations
    for number in range(many):
        at = held.noun.asked_at - timedelta(hours=number + 1)
        question = held.noun.questions[0].model_copy(
            update={"text": f"Old question {number} about a cup", "asked_at": at, "prepared": {}}
        )
        changes = {"id": f"q{uuid.uuid4().hex[:27]}", "asked_at": at, "questions": (question,)}
        store.commit(Held(held.noun.model_copy(update=changes)))


def tables(
    most: int, conversation: Conversation, tell: Callable[[str], None]
) -> Mapping[str, Sequence[Sequence[str]]]:
    """Both, on an engine of their own."""
    with ministack() as on:
        by_stored = stored(on, most, conversation, tell)
        return {"growth": by_stored, "growth by contact": asked(on, conversation, tell)}
