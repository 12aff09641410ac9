"""Schema version 1: what was written once is read for ever, and is documented field by field."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from chalicelib import schema
from chalicelib.schema import Conversation, Kind, Message, digest, message_id

GOLDEN = Path(__file__).parent / "samples" / "schema" / "v1"
PUBLISHED: dict[str, Any] = schema.json_schema()


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", list(Kind))
def test_a_golden_message_is_read_and_written_back_unchanged(kind: Kind) -> None:
    written = golden(kind.value)
    message = Message.model_validate(written)
    assert message.kind is kind
    assert json.loads(message.model_dump_json(exclude_defaults=True)) == written


def test_a_golden_conversation_is_read_and_written_back_unchanged() -> None:
    written = golden("conversation")
    conversation = Conversation.model_validate(written)
    assert json.loads(conversation.model_dump_json(exclude_defaults=True)) == written


@pytest.mark.parametrize("kind", list(Kind))
def test_a_field_of_a_later_version_is_no_fault(kind: Kind) -> None:
    later = golden(kind.value) | {"reactions": [{"emoji": "👍"}]}
    assert Message.model_validate(later) == Message.model_validate(golden(kind.value))


def test_the_published_schema_is_json_schema_and_describes_the_goldens() -> None:
    Draft202012Validator.check_schema(PUBLISHED)
    validator = Draft202012Validator(PUBLISHED)
    for path in sorted(GOLDEN.glob("*.json")):
        noun = Conversation if path.stem == "conversation" else Message
        whole = noun.model_validate(golden(path.stem)).model_dump(mode="json")
        assert list(validator.iter_errors(whole)) == [], path.stem


def test_every_field_is_described() -> None:
    silent = [
        f"{name}.{field}"
        for name, definition in PUBLISHED["$defs"].items()
        for field, described in definition.get("properties", {}).items()
        if not described.get("description")
    ]
    assert silent == []


def test_bytes_in_memory_are_no_part_of_the_published_form() -> None:
    file = schema.Attachment(name="a.png", content=b"secret bytes")
    assert "content" not in file.model_dump()
    assert "secret" not in repr(file)


def test_a_messages_id_never_changes_for_the_same_parts() -> None:
    assert message_id("inbox", "phone:+1", "SM1") == "mdl4nh4bmjuiu444kjf3btg43uq"
    alike = [("a", "bc"), ("ab", "c"), ("a", "b", "c"), ("a1:b", "c"), ("a", "1:b", "c")]
    assert len({digest(*parts) for parts in alike}) == len(alike)


def test_the_ids_of_one_party_begin_alike_and_others_do_not() -> None:
    one, other = message_id("sms", "phone:+1", "a"), message_id("sms", "phone:+1", "b")
    assert one[:14] == other[:14]
    assert one != other
    assert message_id("sms", "phone:+2", "a")[:14] != one[:14]


@pytest.mark.parametrize("naive", ["2026-03-01T09:00:00", 1767225600.5])
def test_a_time_without_a_zone_is_refused_or_utc(naive: Any) -> None:
    written = golden("text") | {"sent_at": naive}
    if isinstance(naive, str):
        with pytest.raises(ValueError, match="timezone"):
            Message.model_validate(written)
    else:
        assert str(Message.model_validate(written).sent_at.tzinfo) == "UTC"
