"""What the first webhook of a channel imports: nothing that it does not need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench_cold import lambda_environment, stub
from tests.bench_webhooks import ANSWERING, CHANNELS, TOO_LATE_SECONDS, event_json

ROOT = Path(__file__).parents[1]
#: What only sending, comparing, forwarding or the SDK's calls need.
NOT_NEEDED = (
    *("boto3", "botocore", "urllib3", "requests", "tenacity", "jwt", "wechatpy", "smtplib"),
    *("charset_normalizer", "chalicelib.forwarding", "chalicelib.delivery", "infra", "tests"),
)
#: And what only an answer in the response needs, which SMS and mail have none of.
TO_ANSWER = ("chalicelib.repeats", "chalicelib.resolve", "chalicelib.faq", "opencc", "nh3")
_SCRIPT = """
import json, sys
import app
from tests.bench_apps.once import Context
answer = app.app(json.loads(sys.stdin.read()), Context())
loaded = [name for name in sys.modules if not name.startswith("tests")]
print(json.dumps([answer["statusCode"], loaded]))
"""


def after_one(channel: str, age_seconds: float = 0) -> set[str]:
    """The modules of a process that has taken one webhook, which came so long ago."""
    with stub() as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            input=event_json(channel, age_seconds),
            env=lambda_environment(endpoint),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status in (200, 202)
    return set(modules)


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_first_webhook_imports_nothing_that_it_does_not_need(channel: str) -> None:
    loaded = after_one(channel)
    assert {"app", "chalicelib.direct"} <= loaded
    assert loaded & {*NOT_NEEDED} == set()
    if channel in ("sms", "email"):
        assert loaded & {*TO_ANSWER} == set()


@pytest.mark.parametrize("channel", ANSWERING)
def test_what_came_too_late_for_an_answer_imports_nothing_that_gives_one(channel: str) -> None:
    assert after_one(channel, TOO_LATE_SECONDS) & {*TO_ANSWER} == set()
