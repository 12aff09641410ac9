"""Samples of Zendesk and Freshdesk; make_samples writes them with its own."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.desks import freshdesk, zendesk
from tests.desks.zendesk import comment, event

Files = Iterator[tuple[str, dict[str, Any]]]

AT = "2026-01-01T08:59:00Z"
NOW_TEXT = "2026-01-01T09:00:00Z"
ZENDESK = {
    "url": zendesk.SUBDOMAIN_URL,
    "email": zendesk.EMAIL,
    "token": "made-up-api-token",
    "user_id": zendesk.OWN_ID,
    "secret": "made-up-signing-secret",
}
FRESHDESK = {
    "url": freshdesk.ACCOUNT_URL,
    "api_key": "made-up-api-key",
    "path_secret": "made-up-end-of-the-address",
}
FILE = {
    "content_type": "application/pdf",
    "content_url": "https://example.zendesk.com/attachments/token/made-up/?name=label.pdf",
    "filename": "label.pdf",
    "id": "8658",
    "is_public": True,
}


def _zendesk() -> Files:
    ticket = {"ticket_id": "35"}
    replied = ticket | {"external_id": "501", "author": "Kim", "sent_at": AT}
    changed = ticket | {"external_id": "030a3f7a-9bb9-47a4-9a36-6aa8f1d66783", "at": AT}
    corrected = ticket | {"external_id": "501", "by": "Kim", "at": AT}
    person = {"kind": "same_person", "address": "email:li@example.com"}
    merged = {"state": "merged", "merged_into": "99"}
    solved, opened = ("OPEN", "SOLVED"), ("SOLVED", "OPEN")
    file = {"source": f"{FILE['content_url']}#35/501", "name": "label.pdf"}
    customer = {"id": "1000", "is_staff": False, "name": "Li"}
    for name, told, expected in (
        ("reply", event("comment_added", comment("Tomorrow. 明天")), [replied]),
        ("note", _note("Nobody may see this"), []),
        ("own", event("comment_added", comment(author=customer), actor_id="900"), []),
        ("closed", _moved(*solved), [changed | {"state": "closed"}]),
        ("reopened", _moved(*opened), [changed | {"state": "open"}]),
        ("merged", event("merged", {"target_ticket_id": "99"}), [changed | merged]),
        ("set_apart", _note("not-a-repeat"), [corrected | {"kind": "not_a_repeat"}]),
        ("same_person", _note("same-person: li@example.com"), [corrected | person]),
        (
            "tagged",
            event("tags_changed", {"tags_added": ["not_a_repeat"], "tags_removed": []}),
            [ticket | {"kind": "not_a_repeat", "by": "77"}],
        ),
        (
            "file",
            event("attachment_linked_to_comment", {"comment": {"id": "501", "attachment": FILE}}),
            [ticket | {"external_id": "501-8658", "text": "", "attachments": [file]}],
        ),
    ):
        body = zendesk.body_of(told)
        yield (
            name,
            _sample(
                f"a webhook: {told['type']}",
                zendesk.headers(body, _now(), str(ZENDESK["secret"])),
                body,
                ZENDESK,
                expected,
            ),
        )


def _note(text: str) -> dict[str, Any]:
    return event("comment_added", comment(text, is_public=False))


def _moved(before: str, now: str) -> dict[str, Any]:
    return event("status_changed", {"current": now, "previous": before}, status=now)


def _freshdesk() -> Files:
    """What docs/helpdesks/freshdesk.md has the rules send; words are asked for, never told."""
    changed = {"ticket_id": "21", "at": NOW_TEXT}
    for name, told, expected in (
        ("reply", "replied", []),
        ("note", "noted", []),
        ("closed", "closed", [changed | {"state": "closed"}]),
        ("reopened", "reopened", [changed | {"state": "open"}]),
    ):
        body = json.dumps({"event": told, "ticket_id": "21"}).encode()
        headers = {"Content-Type": "application/json"}
        sample = _sample(f"a rule's webhook: {told}", headers, body, FRESHDESK, expected)
        sample["request"]["path_secret"] = FRESHDESK["path_secret"]
        yield name, sample


def _now() -> int:
    from tests.make_samples import NOW

    return NOW


def _sample(
    about: str,
    headers: Mapping[str, str],
    body: bytes,
    settings: Mapping[str, Any],
    expected: list[Any],
) -> dict[str, Any]:
    return {
        "about": about,
        "source": "tests/make_samples.py",
        "settings": settings,
        "now": _now(),
        "public_url": "https://askonce.example/replies/desk",
        "request": {"method": "POST", "headers": headers, "query": {}, "body": body.decode()},
        "expected": expected,
    }


def simulated() -> dict[str, dict[str, Any]]:
    """By their files' names."""
    desks = {"zendesk": _zendesk, "freshdesk": _freshdesk}
    return {
        f"helpdesks/{desk}/{name}.json": sample
        for desk, made in desks.items()
        for name, sample in made()
    }
