"""Commands in notes: few, exact, and never anything that the core would choke on."""

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chalicelib.schema import Correction
from connectors.note_commands import command_in

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("note", "found"),
    [
        ("not-a-repeat", ("not_a_repeat", None)),
        ("  Not-A-Repeat \nthe other one is about jars", ("not_a_repeat", None)),
        ("askonce: different-person", ("different_person", None)),
        ("same-person: Li@Example.com", ("same_person", "email:li@example.com")),
        ("same-person：+8613800138000", ("same_person", "phone:+8613800138000")),
        ("same-person: wechat:wx1:o1", ("same_person", "wechat:wx1:o1")),
    ],
)
def test_a_note_that_begins_with_one_is_a_command(note: str, found: object) -> None:
    assert command_in(note) == found


@pytest.mark.parametrize(
    "note",
    [
        "",
        "I think it is not-a-repeat",
        "not-a-repeat!",
        "same-person",
        "same-person: somebody",
        "different-person: li@example.com",
        "same-person: li@example.com and mei@example.org",
        f"same-person: {'x' * 600}@example.com",
    ],
)
def test_any_other_note_is_a_note(note: str) -> None:
    assert command_in(note) is None


@given(st.one_of(st.text(), st.text().map(lambda t: f"same-person: {t}")))
@example("same-person: a:b")
def test_whatever_it_finds_is_a_correction(note: str) -> None:
    found = command_in(note)
    if found:
        kind, address = found
        Correction(ticket_id="T1", external_id="1", kind=kind, address=address, at=AT)
