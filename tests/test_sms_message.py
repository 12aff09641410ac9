"""What SMS connectors share to read what a provider says, whatever it says."""

from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.schema import Attachment, Kind
from connectors import sms_message
from tests.recorded import samples

NEVER = datetime(2026, 1, 1, tzinfo=UTC)
PICTURE = Attachment(media_type="image/png", source="https://files.example/1")


def test_files_are_read_from_an_array_of_objects() -> None:
    told = {"media": [{"at": PICTURE.source, "type": "Image/PNG"}]}
    assert sms_message.files(told, "media", url="at", media_type="type") == (PICTURE,)


@pytest.mark.parametrize("told", [None, [], {}, {"media": None}, {"media": {"at": "x"}}])
def test_there_are_no_files_in_anything_else(told: Any) -> None:
    assert sms_message.files(told, "media", url="at", media_type="type") == ()


@pytest.mark.parametrize("one", [None, 1, [], {}, {"at": None, "type": ["a"]}])
def test_an_agent_hears_of_a_file_without_an_address(one: Any) -> None:
    [file] = sms_message.files({"media": [one]}, "media", url="at", media_type="type")
    assert file.unavailable
    assert (file.media_type, file.source) == ("application/octet-stream", None)


@pytest.mark.parametrize(
    ("text", "media_type", "kind"),
    [
        ("Look", "image/png", Kind.TEXT),
        ("", "image/png", Kind.IMAGE),
        ("", "audio/amr", Kind.AUDIO),
        ("", "video/mp4", Kind.VIDEO),
        ("", "text/vcard", Kind.FILE),
        ("", "", Kind.TEXT),
    ],
)
def test_a_message_without_text_is_of_the_kind_of_its_first_file(
    text: str, media_type: str, kind: Kind
) -> None:
    sample = samples(of="sms_twilio")[0]
    files = (sms_message.file("https://files.example/1", media_type),) if media_type else ()
    message = sms_message.inbound(
        sample.connector(),
        sample.request,
        phone="+447700900123",
        external_id="1",
        text=text,
        attachments=files,
    )
    assert message.kind is kind


def test_epoch_seconds_are_a_time_and_anything_else_is_none() -> None:
    assert sms_message.epoch("1767258000", NEVER) == datetime(2026, 1, 1, 9, tzinfo=UTC)
    for text in ("", "-1", "1.5", "１７", "9" * 12):
        assert sms_message.epoch(text, NEVER) == NEVER


@pytest.mark.parametrize("body", [b"", b"\xff", b"[1]", b"<html>", b"[" * 100_000])
def test_a_refusal_that_is_no_object_says_nothing(body: bytes) -> None:
    assert sms_message.refusal(body) == {}
