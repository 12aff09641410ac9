"""`make bench`: how much CPU it takes to verify and read what providers and attackers send.

Each line is the slowest of its kind, as CPU time and as a part of its cap: 50 ms for a chat, SMS or
WeChat body, 1 s for a mail of 10 MB. Then ratios against what one would use instead, in one run.
Exit code 1 if something is over its cap.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from statistics import median

import click

from chalicelib.errors import WebhookError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Channel
from connectors import mime
from tests.recorded import Sample, mode, one_of_each, samples
from tests.test_conformance import HOSTILE, posed

BODY_CAP_SECONDS, MAIL_CAP_SECONDS = 0.05, 1.0
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Line:
    """One measurement."""

    what: str
    worst: str
    seconds: float
    cap: float


def cpu_seconds(act: Callable[[], object], rounds: int = 5) -> float:
    """Median CPU time of one call; long ones are called once."""
    found = []
    for _ in range(rounds):
        started = time.process_time()
        with suppress(WebhookError):
            act()
        found.append(time.process_time() - started)
        if found[-1] > 0.2:
            break
    return median(found)


def slowest(what: str, acts: dict[str, Callable[[], object]], cap: float) -> Line:
    seconds, worst = max((cpu_seconds(act), name) for name, act in acts.items())
    return Line(what, worst, seconds, cap)


def taken(connector: Connector, request: WebhookRequest) -> Callable[[], object]:
    def act() -> object:
        connector.verify(request)
        return connector.parse(request)

    return act


def reading(connector: Connector, request: WebhookRequest) -> Callable[[], object]:
    return lambda: connector.parse(request)


def cap_of(connector: Connector) -> float:
    return MAIL_CAP_SECONDS if connector.channel is Channel.EMAIL else BODY_CAP_SECONDS


def genuine() -> Iterator[Line]:
    """What providers send: signature checked and read."""
    by_mode: dict[str, list[Sample]] = {}
    for sample in samples():
        by_mode.setdefault(mode(sample), []).append(sample)
    for name, found in sorted(by_mode.items()):
        acts = {s.path.stem: taken(s.connector(), s.request) for s in found}
        yield slowest(name, acts, cap_of(found[0].connector()))


def hostile() -> Iterator[Line]:
    """What attackers send, in an envelope where there is one: read only."""
    for sample in one_of_each():
        connector = sample.connector()
        acts = {}
        for name, body in HOSTILE.items():
            longest = body[: connector.max_body_bytes]
            for n, request in enumerate(posed(sample, longest)):
                acts[f"{name}{' in its envelope' if n else ''}"] = reading(connector, request)
        yield slowest(f"{mode(sample)}, hostile", acts, cap_of(connector))


_HEAD = b"From: Li <li@example.com>\r\nTo: help@shop.example\r\nMessage-ID: <1@example.com>\r\n"


def mail_of(body: bytes, content_type: str) -> bytes:
    head = _HEAD + b"MIME-Version: 1.0\r\nContent-Type: " + content_type.encode() + b"\r\n"
    return head + b"\r\n" + body


def mails() -> Iterator[Line]:
    """Mails of nearly ten megabytes."""
    size = mime.MAX_BYTES - 2000
    base64 = (b"QUJD" * 19 + b"\r\n") * (size // 78)
    part = b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    text = b"Content-Type: text/plain\r\n\r\nhello\r\n"
    file = b"--b\r\n" + text + part + base64 + b"\r\n--b--"
    bodies = {
        "one attachment": (file, "multipart/mixed; boundary=b"),
        "text": ("你好，龙井茶怎么保存？\r\n".encode() * (size // 35), "text/plain; charset=utf-8"),
        "text in GB 18030, no label": (
            "你好，龙井茶怎么保存？\r\n".encode("gb18030") * (size // 24), "text/plain"),
        "HTML": (b"<p>hello <b>there</b></p>\r\n" * (size // 28), "text/html"),
        "deep HTML": (b"<div>" * (size // 5), "text/html"),
        "one line": (b"x" * size, "text/plain"),
        "quotation marks": (b"> " * (size // 2), "text/plain"),
        "'On' without end": (b"On " * (size // 3), "text/plain"),
        "empty lines": (b"\r\n" * (size // 2), "text/plain"),
        "reply headers": ("发件人: a\r\n".encode() * (size // 14), "text/plain; charset=utf-8"),
    }  # fmt: skip
    for name, (body, kind) in bodies.items():
        raw = mail_of(body[:size], kind)
        what = f"mail of {len(raw) / _MEGABYTE:.1f} MB"
        yield slowest(what, {name: partial(mime.read, raw)}, MAIL_CAP_SECONDS)


def against() -> Iterator[tuple[str, float]]:
    """How many times longer the usual library takes for the same."""
    from email import message_from_bytes
    from email.policy import default

    from wechatpy.crypto import WeChatCrypto
    from wechatpy.parser import parse_message

    sample = next(s for s in samples() if str(s) == "wechat/text_safe")
    connector, request, settings = sample.connector(), sample.request, sample.settings
    crypto = WeChatCrypto(settings["token"], settings["encoding_aes_key"], settings["app_id"])
    query = dict(request.query)

    def theirs() -> object:
        proof = (query["msg_signature"], query["timestamp"], query["nonce"])
        return parse_message(crypto.decrypt_message(request.body, *proof))

    ours = many(taken(connector, request))
    yield "a WeChat text message, wechatpy", many(theirs) / ours
    mail = next(s for s in samples() if str(s) == "email_mime/attachment").request.body

    def stdlib() -> object:
        read = message_from_bytes(mail, policy=default)
        body = read.get_body()
        return read["subject"], read["from"], body and body.get_content()

    yield (
        "a mail with a file, the standard library's new policy",
        many(stdlib) / many(lambda: mime.read(mail)),
    )


def many(act: Callable[[], object]) -> float:
    return median(cpu_seconds(lambda: [act() for _ in range(200)], 3) for _ in range(3))


def main() -> int:
    lines = [*genuine(), *hostile(), *mails()]
    click.echo(f"{'CPU ms':>8}  {'of cap':>7}  what (its slowest case)")
    for line in lines:
        over = "   OVER ITS CAP" if line.seconds > line.cap else ""
        share = line.seconds / line.cap
        click.echo(f"{line.seconds * 1000:8.2f}  {share:7.1%}  {line.what} ({line.worst}){over}")
    click.echo("\nTimes longer than ours:")
    for what, ratio in against():
        click.echo(f"{ratio:8.2f}  {what}")
    return int(any(line.seconds > line.cap for line in lines))


if __name__ == "__main__":
    sys.exit(main())
