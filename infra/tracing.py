"""`askonce logs`: what was logged of one message, from its webhook to its ticket, in order.

An id is a message's, or that of a request, a conversation, a ticket, an errand, a quarantined
request: whatever a line names.
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from chalicelib.errors import ConfigurationError, NotFoundError

Line = Mapping[str, Any]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/=-]{0,127}")
_SPAN = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def demand_id(text: str) -> str:
    """ConfigurationError for what can be no id."""
    if not _ID.fullmatch(text):
        raise ConfigurationError(
            f"{text} is no id: take that of a message, a request, a conversation or a ticket, "
            "as the log has it"
        )
    return text


def span_of(text: str) -> timedelta:
    """`30m`, `2h`, `1d`. ConfigurationError."""
    found = _SPAN.fullmatch(text)
    if not found:
        raise ConfigurationError(f"--since {text} is no span of time: write 30m, 2h or 1d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def about(lines: Iterable[Line], wanted: str) -> list[Line]:
    """The lines that name an id; if it is a request's, those of what was said in it, too."""
    known = list(lines)
    own = [line for line in known if wanted in line.values()]
    said = {line["message"] for line in own if line.get("request") == wanted and "message" in line}
    more = [line for line in known if line.get("message") in said and line not in own]
    return sorted(own + more, key=lambda line: str(line.get("at", "")))


def shown(line: Line) -> str:
    """One line for people, without what only CloudWatch reads."""
    at = str(line.get("at", ""))[:23].replace("T", " ")
    left_out = ("at", "event", "_aws")
    rest = [f"{k}={v}" for k, v in line.items() if k not in left_out and not k[:1].isupper()]
    return f"{at}  {line.get('event', '')!s:<16} {'  '.join(rest)}".rstrip()


def nothing_of(wanted: str, since: str) -> NotFoundError:
    """What to say where no line names an id."""
    return NotFoundError(
        f"nothing was logged of {wanted} in the last {since}: look further back with --since, "
        "as far as logs are kept"
    )


def of_deployment(prefix: str, wanted: str, since: datetime) -> list[Line]:
    """The lines of a deployment's functions that name an id. ConfigurationError without logs."""
    from chalicelib.aws import client

    logs = client("logs")
    groups = list(_groups(logs, f"/askonce/{prefix}/"))
    if not groups:
        raise ConfigurationError(
            f"there are no logs under /askonce/{prefix}/ here: is the prefix right, and the "
            "region (AWS_DEFAULT_REGION), and the account?"
        )
    own = list(_found(logs, groups, wanted, since))
    said = {str(li["message"]) for li in own if li.get("request") == wanted and "message" in li}
    more = (line for name in said for line in _found(logs, groups, name, since))
    return own + [line for line in more if line not in own]


def _groups(logs: Any, prefix: str) -> Iterator[str]:
    for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
        yield from (group["logGroupName"] for group in page["logGroups"])


def _found(logs: Any, groups: Iterable[str], wanted: str, since: datetime) -> Iterator[Line]:
    pages = logs.get_paginator("filter_log_events")
    for group in groups:
        for page in pages.paginate(
            logGroupName=group,
            startTime=int(since.timestamp() * 1000),
            filterPattern=f'"{wanted}"',
        ):
            for event in page["events"]:
                yield from _parsed(event["message"])


def _parsed(text: str) -> Iterator[Line]:
    """What Lambda itself writes is no JSON, or none of ours."""
    try:
        line = json.loads(text)
    except ValueError:
        return
    if isinstance(line, dict) and "event" in line:
        yield line
