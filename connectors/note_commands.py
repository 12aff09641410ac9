"""What agents write in a private note, or set as a tag, to correct AskOnce.

    not-a-repeat                  what joined this ticket last is another question
    same-person: li@example.com   who writes here has this address, too
    different-person              who writes here is not the person that we take them for

One command on a line of its own, at the note's beginning; anything else is a note.
"""

import re
from typing import Literal

from chalicelib.schema import Address

Command = Literal["not_a_repeat", "same_person", "different_person"]
_COMMAND = re.compile(
    r"\s*(?:askonce[:\s]+)?(not-a-repeat|same-person|different-person)\s*(?:[:：]\s*(\S{1,300}))?\s*$",
    re.IGNORECASE,
)
_PHONE = re.compile(r"\+\d{6,15}$")


def command_in(text: str) -> tuple[Command, Address | None] | None:
    """The command of a note, with the address that it names; None for any other note."""
    lines = text.strip().splitlines()
    found = _COMMAND.match(lines[0]) if lines else None
    if not found:
        return None
    kind: Command = found[1].lower().replace("-", "_")  # type: ignore[assignment]  # one of three
    address = _address(found[2] or "")
    if (kind == "same_person") != (address is not None):
        return None
    return kind, address


def _address(text: str) -> Address | None:
    """`li@example.com` and `+49151...` as our addresses; ours as they are."""
    if _PHONE.match(text):
        return f"phone:{text}"
    if re.match(r"[a-z_]+:\S", text):
        return text
    if "@" in text:
        return f"email:{text.lower()}"
    return None
