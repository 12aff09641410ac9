"""Samples of Chatwoot and Intercom; make_samples writes them with its own."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.desks import chatwoot, intercom

Files = Iterator[tuple[str, dict[str, Any]]]

AT = "2026-01-01T09:00:00Z"
SECRET = "made-up-webhook-secret"
CHATWOOT = {
    "url": "https://chat.example",
    "account_id": chatwoot.ACCOUNT,
    "inbox_id": chatwoot.INBOX,
    "inbox_identifier": "made-up-inbox-identifier",
    "api_access_token": "made-up-access-token",
    "webhook_secret": SECRET,
}
INTERCOM = {
    "access_token": "made-up-access-token",
    "client_secret": SECRET,
    "admin_id": intercom.ADMIN,
}


def _now() -> int:
    from tests.make_samples import NOW

    return NOW


def _chatwoot() -> Files:
    chat = chatwoot.Chat(41, chatwoot.Contact(501, "c1", {}), {"askonce_key": "q1"})
    replied = {"ticket_id": "41", "external_id": "101", "text": "Tomorrow. 明天", "author": "Kim"}
    corrected = {"ticket_id": "41", "external_id": "101", "kind": "not_a_repeat", "by": "Kim"}
    file = {
        "data_url": "https://chat.example/rails/active_storage/blobs/redirect/x/label.pdf",
        "file_type": "file",
        "file_size": 2048,
    }
    attached = {"name": "label.pdf", "size_bytes": 2048, "source": file["data_url"]}
    customer = {"id": 501, "name": "Li", "type": "contact"}
    private, deleted = {"private": True}, {"content_attributes": {"deleted": True}}
    for name, words, more, expected in (
        ("reply", "Tomorrow. 明天", {}, [replied | {"sent_at": AT}]),
        ("note", "Nobody may see this", private, []),
        ("customer", "Thanks", {"message_type": 0, "sender": customer}, []),
        ("deleted", "This message was deleted", deleted, []),
        ("file", "", {"attachments": [file]}, [{"text": "", "attachments": [attached]}]),
        ("set_apart", "not-a-repeat", private, [corrected | {"at": AT}]),
    ):
        said = chatwoot.FakeChatwoot().say(chat, words, **more)
        yield name, _of_chatwoot(chatwoot.webhook(chat, said), expected)
    for name, event, expected in _chatwoot_changes():
        yield name, _of_chatwoot({"id": 41, "inbox_id": chatwoot.INBOX} | event, expected)


def _chatwoot_changes() -> Iterator[tuple[str, dict[str, Any], list[Any]]]:
    changed = {"event": "conversation_status_changed", "updated_at": 1767257999.25}
    yield "closed", changed | {"status": "resolved"}, [{"ticket_id": "41", "state": "closed"}]
    yield "reopened", changed | {"status": "open"}, [{"ticket_id": "41", "state": "open"}]
    labels = {"previous_value": ["askonce"], "current_value": ["askonce", "not-a-repeat"]}
    updated = changed | {"event": "conversation_updated", "status": "open"}
    yield (
        "labelled",
        updated | {"changed_attributes": [{"label_list": labels}]},
        [{"ticket_id": "41", "kind": "not_a_repeat", "by": ""}],
    )


def _of_chatwoot(event: dict[str, Any], expected: list[Any]) -> dict[str, Any]:
    body, headers = chatwoot.signed(event, SECRET, _now())
    return _sample(f"a webhook: {event['event']}", headers, body, CHATWOOT, expected)


def _intercom() -> Files:
    thread = intercom.Thread("499", "0" * 24, "<p>Where is it?</p>", 0)
    replied = {"ticket_id": "499", "external_id": "131", "author": "Kim", "sent_at": AT}
    corrected = {"ticket_id": "499", "external_id": "131", "by": "Kim", "at": AT}
    changed = {"ticket_id": "499", "at": AT}
    person = {"kind": "same_person", "address": "email:li@example.com"}
    note = {"part_type": "note"}
    file = {
        "type": "upload",
        "name": "label.pdf",
        "url": "https://downloads.intercomcdn.com/i/o/1/made-up/label.pdf?expires=1767258000",
        "content_type": "application/pdf",
        "filesize": 2048,
    }
    attached = {"name": "label.pdf", "size_bytes": 2048, "source": file["url"]}
    for name, topic, body, more, expected in (
        ("reply", "replied", "<p>Tomorrow. 明天</p>", {}, [replied | {"text": "Tomorrow. 明天"}]),
        ("note", "noted", "<p>Nobody may see this</p>", note, []),
        ("file", "replied", None, {"attachments": [file]}, [{"attachments": [attached]}]),
        ("closed", "closed", None, {"part_type": "close"}, [changed | {"state": "closed"}]),
        ("reopened", "opened", None, {"part_type": "open"}, [changed | {"state": "open"}]),
        ("set_apart", "noted", "<p>not-a-repeat</p>", note, [corrected | {"kind": "not_a_repeat"}]),
        ("same_person", "noted", "<p>same-person: li@example.com</p>", note, [corrected | person]),
    ):
        part = intercom.FakeIntercom().say(thread, body, **more)
        told = intercom.webhook(f"conversation.admin.{topic}", thread, part)
        content, headers = intercom.signed(told, SECRET)
        about = f"a webhook: conversation.admin.{topic}"
        yield name, _sample(about, headers, content, INTERCOM, expected)


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
    desks = {"chatwoot": _chatwoot, "intercom": _intercom}
    return {
        f"helpdesks/{desk}/{name}.json": sample
        for desk, made in desks.items()
        for name, sample in made()
    }
