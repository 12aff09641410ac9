"""`judge` over 20 earlier questions of the contact: CPU for one new message.

The earlier questions are as the table holds them: prepared when they were stored. Every new message
is another one, so that nothing is remembered from the one before.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import cycle, islice
from statistics import median

from chalicelib.judge import Known, judge
from chalicelib.policy import Policy
from chalicelib.schema import Conversation
from chalicelib.shipped import SHIPPED
from tests.fakes import START
from tests.nouns import conversation, message

CANDIDATES, TIMES = 20, 200
_ZH = ["你好，龙井茶怎么保存才不会受潮？", "我的订单什么时候发货，已经等了三天",
       "收到的杯子碎了，可以换一个吗", "发票抬头写错了，能重新开吗",
       "这款红茶有没有小包装"]  # fmt: skip
_EN = ["Where is my order? It should have come on Monday.", "How do I keep green tea fresh?",
       "The cup arrived broken, can I get another one?", "Can you change the name on the invoice?",
       "Do you sell this black tea in smaller packs?"]  # fmt: skip
_MAIL = ["Hello, I wrote to you last week but have not heard anything since.",
         "I ordered two tins of Darjeeling and one pot, and only the pot has come so far.",
         "The tracking page has said for five days that the parcel is in the sorting centre.",
         "Could you please find out where it is, or else send the tins again or refund me?",
         "I need them before the weekend, since they are meant as a present for my mother.",
         "Many thanks in advance, and kind regards from Hamburg."]  # fmt: skip
#: What is asked, by the kind of text: the words before and the number behind make each another one.
TEXTS = {
    "short, Chinese": (_ZH, _ZH[0]),
    "short, English": (_EN, _EN[0]),
    "a mail of 2 kB": (_EN, " ".join([*_MAIL] * 4)),
}


def earlier(texts: list[str]) -> list[Conversation]:
    """Twenty conversations, each with a question prepared as `resolve` leaves it."""
    return [_prepared(text, n) for n, text in enumerate(islice(cycle(texts), CANDIDATES))]


def _prepared(text: str, number: int) -> Conversation:
    asked = conversation(f"{text} ({number})")
    questions = tuple(
        q.model_copy(update={"prepared": {SHIPPED.name: SHIPPED.prepare(q.text)}})
        for q in asked.questions
    )
    return asked.model_copy(update={"questions": questions, "id": f"q{number}"})


def _times(texts: list[str], new: str) -> Iterator[float]:
    known = Known(sender="phone:+8613800138000", thread=None, now=START + timedelta(hours=1))
    conversations, policy = earlier(texts), Policy()
    for number in range(TIMES):
        written = message(f"{new} {number * 7919}")
        started = time.process_time()
        judge(written, conversations, known, policy=policy, compare=SHIPPED.compare)
        yield (time.process_time() - started) * 1e6


def measure() -> dict[str, list[float]]:
    """CPU us of each call, by the kind of text; the first ones load the word table."""
    for texts, new in TEXTS.values():
        list(islice(_times(texts, new), 5))
    return {kind: list(_times(*asked)) for kind, asked in TEXTS.items()}


def table(found: Mapping[str, list[float]]) -> list[list[str]]:
    """Rows for the page."""
    rows = [[f"judge over {CANDIDATES} questions", "CPU us", "min to max"]]
    for kind, values in found.items():
        rows.append([kind, f"{median(values):.0f}", f"{min(values):.0f} to {max(values):.0f}"])
    return rows


if __name__ == "__main__":
    for row in table(measure()):
        sys.stdout.write("  ".join(row) + "\n")
