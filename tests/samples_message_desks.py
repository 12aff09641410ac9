"""Samples of Zammad and Qiyu; make_samples writes them with its own."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.desks import qiyu, zammad
from tests.desks.qiyu import said, session
from tests.desks.zammad import article, event

Files = Iterator[tuple[str, dict[str, Any]]]

NOW, AT = 1767258000, "2026-01-01T08:59:00Z"
CLOSED_AT = "2026-01-01T08:58:00.000Z"
ZAMMAD = {
    "url": zammad.URL,
    "token": "made-up-access-token",
    "user_id": zammad.OWN_ID,
    "secret": "made-up-signature-token",
    "group": zammad.GROUP,
}
QIYU = {"app_key": "made-up-app-key", "app_secret": "made-up-app-secret"}


def _zammad() -> Files:
    replied = {"external_id": "104", "text": "Tomorrow. 明天", "author": "Kim Lee", "sent_at": AT}
    corrected = {"external_id": "104", "by": "Kim Lee", "at": AT}
    file = {"name": "label.pdf", "media_type": "application/pdf", "source": "35/104/174"}
    customer = {"sender": "Customer", "type": "web", "created_by_id": zammad.OWN_ID}
    for name, told, expected in (
        ("reply", event(article("<div>Tomorrow. 明天</div>")), [replied]),
        ("note", event(article("Nobody may see this", internal=True)), []),
        ("customer", event(article("Thanks", **customer)), []),
        ("own", event(article("Sent", created_by_id=zammad.OWN_ID)), []),
        ("mail", event(article("By mail", type="email")), []),
        (
            "file",
            event(article("", attachments=[zammad.file()])),
            [replied | {"text": "", "attachments": [file]}],
        ),
        (
            "closed",
            event(state="closed", last_close_at=CLOSED_AT),
            [{"state": "closed", "at": "2026-01-01T08:58:00Z"}],
        ),
        ("reopened", event(last_close_at=CLOSED_AT), [{"state": "open", "at": AT}]),
        (
            "set_apart",
            event(article("<div>not-a-repeat</div>", internal=True)),
            [corrected | {"kind": "not_a_repeat"}],
        ),
        (
            "same_person",
            event(article("same-person: li@example.com", internal=True)),
            [corrected | {"kind": "same_person", "address": "email:li@example.com"}],
        ),
    ):
        body = zammad.body_of(told)
        headers = zammad.headers(body, str(ZAMMAD["secret"]))
        mine = [{"ticket_id": "35"} | each for each in expected]
        yield name, _sample(f"a trigger's webhook: {name}", ZAMMAD, headers, {}, body, mine)


def _qiyu() -> Files:
    own = {"ticket_id": qiyu.UID, "external_id": "8ca1c9fb30c40aa6cc390844e2756fac"}
    told_at = "2026-01-01T08:59:00.316000Z"
    replied = own | {"text": "Tomorrow. 明天", "author": qiyu.STAFF, "sent_at": told_at}
    picture = {"url": "https://ysf.nosdn.127.net/label.png", "size": 2048, "md5": "made-up"}
    file = {"name": "label.png", "size_bytes": 2048, "source": picture["url"]}
    changed = {"ticket_id": qiyu.UID, "at": "2026-01-01T09:00:00Z"}
    corrected = own | {"kind": "not_a_repeat", "by": qiyu.STAFF, "at": told_at}
    ended = session(closeReason=0)
    for name, event_type, told, expected in (
        ("reply", "MSG", said("Tomorrow. 明天"), [replied]),
        # Qiyu has no notes: what else it says that no customer may see
        ("note", "EVA_INVITATION", session(), []),
        (
            "file",
            "MSG",
            said(picture, msgType="PICTURE"),
            [replied | {"text": "", "attachments": [file]}],
        ),
        ("closed", "SESSION_END", ended, [changed | {"state": "closed"}]),
        ("handed_over", "SESSION_END", session(closeReason=5, transferTo=62928), []),
        ("reopened", "SESSION_START", session(), [changed | {"state": "open"}]),
        ("set_apart", "MSG", said("not-a-repeat"), [corrected]),
    ):
        body = qiyu.body_of(told)
        query = qiyu.query(event_type, body, NOW, QIYU["app_secret"])
        headers = {"Content-Type": "application/json;charset=utf-8"}
        yield name, _sample(f"a push: {event_type}", QIYU, headers, query, body, expected)


def _sample(  # a sample has that many parts
    about: str,
    settings: Mapping[str, Any],
    headers: Mapping[str, str],
    query: Mapping[str, str],
    body: bytes,
    expected: list[Any],
) -> dict[str, Any]:
    return {
        "about": about,
        "source": "tests/make_samples.py",
        "settings": settings,
        "now": NOW,
        "public_url": "https://askonce.example/replies/desk",
        "request": {"method": "POST", "headers": headers, "query": query, "body": body.decode()},
        "expected": expected,
    }


def simulated() -> dict[str, dict[str, Any]]:
    """By their files' names."""
    return {
        f"helpdesks/{desk}/{name}.json": sample
        for desk, made in (("zammad", _zammad), ("qiyu", _qiyu))
        for name, sample in made()
    }
