"""Mails whose content is known: charsets, headers, file names, quoted history, machines, attacks.

Read from the shared data (generated_mail, CC0); skipped where that is absent.
"""

import hashlib
import json
from typing import Any

import pytest

from chalicelib.errors import PayloadError
from connectors import mime
from tests.recorded import SHARED

MAILS = SHARED / "payloads" / "generated_mail"
pytestmark = pytest.mark.skipif(not MAILS.exists(), reason="the folder shared/data is not at hand")

#: {(mail, what): why we say something else}
DEVIATIONS = {
    ("024_declared_iso88591_really_gbk", "text"): "a label that fits the bytes is believed",
    ("068_html_only_meta_conflict", "text_from_html"): "its / stands for a new line",
    ("069_format_flowed", "text"): "lines of a quotation are left as they are",
}
#: Names that the truth describes in words: what we make of them.
NAMES = {
    "060_fn_path_traversal": "passwd",
    "062_fn_nul_and_newline": "a b c.exe",
    "063_fn_rtlo": "fdp.exe",
}


def known(*keys: str) -> list[Any]:
    """(mail, what is known of it) for every mail of which one of these is known."""
    found = []
    for path in sorted(MAILS.glob("*.expected.json")):
        truth = json.loads(path.read_text(encoding="utf-8"))
        name = path.name.removesuffix(".expected.json")
        wanted = {k: truth[k] for k in keys if k in truth and (name, k) not in DEVIATIONS}
        if wanted:
            found.append(pytest.param(name, wanted, id=name))
    return found


def read(name: str) -> mime.Mail:
    return mime.read((MAILS / f"{name}.eml").read_bytes())


@pytest.mark.parametrize(
    ("name", "wanted"),
    known(
        "from_name", "from_addr", "subject", "message_id", "text", "full_text", "reply_text",
        "in_reply_to", "auto_reply_or_bulk",
    ),
)  # fmt: skip
def test_a_mail_is_read_as_it_is_known_to_be(name: str, wanted: dict[str, Any]) -> None:
    mail = read(name)
    found = {
        "from_name": mail.sender_name,
        "from_addr": mail.sender,
        "subject": mail.subject or None,
        "message_id": mail.message_id,
        "text": mail.full_text,
        "full_text": mail.full_text,
        "reply_text": mail.text,
        "in_reply_to": next(iter(mail.references), None),
        "auto_reply_or_bulk": mail.automatic,
    }
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize(("name", "wanted"), known("attachments"))
def test_files_have_their_names_and_bytes(name: str, wanted: dict[str, Any]) -> None:
    files = wanted["attachments"]
    found = read(name).attachments
    assert [f.name for f in found] == [NAMES.get(name, f["filename"] or "") for f in files]
    for file, truth in zip(found, files, strict=True):
        digest = hashlib.sha256(file.content or b"").hexdigest()
        assert digest == truth.get("sha256", digest)


@pytest.mark.parametrize("name", [p.values[0] for p in known("is_bounce")])
def test_a_bounce_is_automatic(name: str) -> None:
    assert read(name).automatic


def fault(raw: bytes) -> str:
    """Why a mail cannot be read; '' if it can."""
    try:
        mime.read(raw)
    except PayloadError as error:
        return str(error)
    return ""


#: Of those that are made to do harm, what is wrong with the ones that are not read.
UNREAD = {
    "106_hostile_200_nested": "the mail has too many parts",
    "107_hostile_many_parts": "the mail has too many parts",
    "110_hostile_no_headers": "the mail has no author's address",
}


@pytest.mark.parametrize("name", [p.values[0] for p in known("must")])
def test_a_hostile_mail_is_read_or_quarantined(name: str) -> None:
    assert fault((MAILS / f"{name}.eml").read_bytes()) == UNREAD.get(name, "")


@pytest.mark.parametrize(
    "path",
    sorted(set(SHARED.glob("payloads/*/*.eml")) - set(MAILS.glob("*"))),
    ids=lambda p: p.stem,
)
def test_any_mail_of_anybody_is_read_unless_it_has_no_author(path: Any) -> None:
    assert fault(path.read_bytes()) in ("", "the mail has no author's address")
