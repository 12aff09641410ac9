"""The payload set's mails, field by field, as it states them; where we read another thing, and why.

docs/payloads/mail.md has the same table for people. Skipped where the shared data is absent.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from chalicelib.errors import PayloadError
from connectors import mime
from tests.mail_claims import PAYLOADS, Claim, claims, mails

pytestmark = pytest.mark.skipif(
    not PAYLOADS.exists(), reason="the folder shared/data is not at hand"
)

_SAME = "two multiparts of one boundary: its text counts as text, not as a file"
_PREFIX = "boundaries that begin alike: only a line that is exactly the boundary divides"
_FORWARDED = "a forwarded mail without a file name is called by its subject"
_NOT_THERE = (
    "the source's test compares with these words in another place; the reply is in the file"
)
_SIGNATURE = "a signature and the line of a device are no part of what was written"
_LATE = "a warning that the mail is late: 4.x.x and delayed, not failed"
_NO_BOUNCE = "a mailing list's word on its own rules; nothing of ours failed to arrive"

#: (file, field) -> why we read another thing.
DEVIATIONS: dict[tuple[str, str], str] = {
    ("stalwart_mail_parser/malformed_003.eml", "full_text"): _SAME,
    ("stalwart_mail_parser/malformed_003.eml", "names"): _SAME,
    ("stalwart_mail_parser/malformed_006.eml", "full_text"): _SAME,
    ("stalwart_mail_parser/malformed_006.eml", "names"): _SAME,
    ("stalwart_mail_parser/malformed_007.eml", "names"): "an empty part is no file",
    ("stalwart_mail_parser/malformed_009.eml", "full_text"): _PREFIX,
    ("stalwart_mail_parser/malformed_009.eml", "names"): _PREFIX,
    ("stalwart_mail_parser/malformed_010.eml", "names"): _FORWARDED,
    ("stalwart_mail_parser/malformed_011.eml", "full_text"): _PREFIX,
    ("stalwart_mail_parser/malformed_011.eml", "names"): _PREFIX,
    ("stalwart_mail_parser/malformed_016.eml", "full_text"): _PREFIX,
    ("stalwart_mail_parser/malformed_016.eml", "names"): _PREFIX,
    ("stalwart_mail_parser/malformed_020.eml", "full_text"): "the first of two Content-Type counts",
    ("stalwart_mail_parser/rfc_000.eml", "names"): _FORWARDED,
    ("stalwart_mail_parser/rfc_001.eml", "names"): "a file's name never has a path",
    ("stalwart_mail_parser/rfc_007.eml", "names"): _FORWARDED,
    ("stalwart_mail_parser/thirdparty_000.eml", "full_text"): (
        "of two plain texts in one alternative the first is read; no NUL is left"
    ),
    ("stalwart_mail_parser/thirdparty_005.eml", "full_text"): (
        "a boundary begins a line; in the middle of one it is text"
    ),
    ("stalwart_mail_parser/thirdparty_008.eml", "names"): _FORWARDED,
    ("stalwart_mail_parser/thirdparty_012.eml", "names"): _FORWARDED,
    ("stalwart_mail_parser/thirdparty_015.eml", "names"): "all three forwarded mails are files",
    ("sisimai/lhost-exim-06.eml", "status"): "it says `permanent error`: 5.0.0",
    ("sisimai/lhost-fml-02.eml", "is_bounce"): _NO_BOUNCE,
    ("sisimai/lhost-fml-02.eml", "status"): _NO_BOUNCE,
    ("sisimai/lhost-fml-03.eml", "is_bounce"): _NO_BOUNCE,
    ("sisimai/lhost-fml-03.eml", "status"): _NO_BOUNCE,
    ("sisimai/lhost-opensmtpd-04.eml", "status"): _LATE,
    ("sisimai/lhost-opensmtpd-06.eml", "status"): _LATE,
    ("sisimai/lhost-postfix-05.eml", "hard"): "the status is 4.1.1: soft by RFC 3463",
    ("flufl_bounce/simple_20.eml", "recipient"): "nothing in it shows that a machine wrote it",
    ("flufl_bounce/simple_38.eml", "recipient"): "a disposition notification is no bounce",
    ("flufl_bounce/simple_42.eml", "is_bounce"): "a bounce by RFC 3464, which the source misses",
    ("flufl_bounce/yale_01.eml", "recipient"): "the address is not in it, only the local part",
    ("email_reply_trimmer/embedded_email_18.txt", "reply_text"): (
        "nothing but what looks quoted: the whole is kept, never an empty text"
    ),
    ("email_reply_trimmer/forwarded_message.txt", "reply_text"): "a forwarded mail is kept whole",
    ("email_reply_trimmer/spam_1.txt", "reply_text"): (
        "nothing but what is quoted: the whole is kept, never an empty text"
    ),
    ("talon/html_gmail.html", "reply_text"): _NOT_THERE,
    ("talon/html_hotmail.html", "reply_text"): _NOT_THERE,
    ("talon/html_ms_outlook_2003.html", "reply_text"): _NOT_THERE,
    ("talon/html_ms_outlook_2007.html", "reply_text"): _NOT_THERE,
    ("talon/html_yandex_ru.html", "reply_text"): _NOT_THERE,
    ("talon/iphone.eml", "reply_text"): _SIGNATURE,
    ("talon/sparrow.eml", "reply_text"): _SIGNATURE,
    ("anymail/sparkpost_inbound_attachments_0319.http.json", "full_text"): (
        "the source takes the text of the forwarded mail for the mail's own"
    ),
    ("anymail/sparkpost_inbound_attachments_0319.http.json", "names"): _FORWARDED,
}


def named(found: list[Claim]) -> list[Any]:
    return [pytest.param(claim, id=str(claim)) for claim in found]


AS_STATED = [c for c in claims() if (c.file, c.field) not in DEVIATIONS]
OTHERWISE = [c for c in claims() if (c.file, c.field) in DEVIATIONS]


@pytest.mark.parametrize("claim", named(AS_STATED))
def test_a_mail_is_read_as_the_set_states_it(claim: Claim) -> None:
    assert claim.read() == claim.stated


@pytest.mark.parametrize("claim", named(OTHERWISE))
def test_a_deviation_is_one(claim: Claim) -> None:
    assert claim.read() != claim.stated


def test_every_deviation_is_of_something_that_the_set_states() -> None:
    assert {(c.file, c.field) for c in OTHERWISE} == DEVIATIONS.keys()


def test_the_documentation_lists_the_deviations_and_no_others() -> None:
    text = (Path(__file__).parents[1] / "docs/payloads/mail.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z_]+) \| (.+) \|$", text, re.MULTILINE)
    assert {(file, field): why for file, field, why in rows} == DEVIATIONS


def fault(raw: bytes) -> str:
    """Why a mail cannot be read; '' if it can."""
    try:
        mime.read(raw)
    except PayloadError as error:
        return str(error)
    return ""


#: Of those that are made to do harm, what is wrong with the ones that are not read.
UNREAD = {
    "106_hostile_200_nested": "the mail's parts are nested too deep",
    "107_hostile_many_parts": "the mail has too many parts",
    "110_hostile_no_headers": "the mail has no author's address",
}


@pytest.mark.parametrize(
    "path", [p for p in mails() if "_hostile_" in p.name], ids=lambda p: p.stem
)
def test_a_hostile_mail_is_read_or_quarantined(path: Path) -> None:
    assert fault(path.read_bytes()) == UNREAD.get(path.stem, "")


@pytest.mark.parametrize(
    "path", [p for p in mails() if p.parent.name != "generated_mail"], ids=lambda p: p.stem
)
def test_any_mail_of_anybody_is_read_unless_it_has_no_author(path: Path) -> None:
    assert fault(path.read_bytes()) in ("", "the mail has no author's address")
