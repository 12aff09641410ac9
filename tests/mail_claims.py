"""What the payload set states about its mails, and what we read of them, field by field."""

import ast
import base64
import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from functools import cache
from pathlib import Path
from typing import Any

from chalicelib.errors import PayloadError
from connectors import mime
from tests.recorded import SHARED

PAYLOADS = SHARED / "payloads"


@dataclass(frozen=True)
class Claim:
    """One field of one payload: what is stated, and how we come to what we read."""

    file: str
    field: str
    stated: Any
    read: Callable[[], Any]

    def __str__(self) -> str:
        return f"{self.file}-{self.field}"


def claims() -> list[Claim]:
    """Every field that the set states."""
    sources = (
        _generated, _stalwart, _sisimai, _flufl, _trimmer, _talon, _anymail, _reply_fixtures,
    )  # fmt: skip
    return [claim for source in sources for claim in source()] if PAYLOADS.exists() else []


def index(folder: str) -> list[tuple[str, str]]:
    """(file, what is expected of it) of a folder's lines in the index."""
    with (PAYLOADS / "INDEX.tsv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(r["file"], r["expected"]) for r in rows if r["file"].startswith(f"{folder}/")]


@cache
def mail(file: str) -> mime.Mail:
    """A mail of the set; one that has no author gets one, so that the rest can be compared."""
    raw = (PAYLOADS / file).read_bytes()
    try:
        return mime.read(raw)
    except PayloadError:
        return mime.read(b"From: somebody@example.com\n" + raw)


def words(text: str) -> str:
    """The text, with blanks and line ends as one blank each."""
    return " ".join(text.split())


def _claims(file: str, stated: dict[str, Any], found: dict[str, Any]) -> Iterator[Claim]:
    for field, value in stated.items():
        if field in found:
            yield Claim(file, field, value, found[field])


# What was generated for this project: exact

#: Names that the truth describes in words: what we make of them.
NAMES = {
    "060_fn_path_traversal": "passwd",
    "062_fn_nul_and_newline": "a b c.exe",
    "063_fn_rtlo": "fdp.exe",
}


def _generated() -> Iterator[Claim]:
    for path in sorted((PAYLOADS / "generated_mail").glob("*.expected.json")):
        truth = json.loads(path.read_text(encoding="utf-8"))
        name = path.name.removesuffix(".expected.json")
        file = f"generated_mail/{name}.eml"
        yield from _claims(file, _in_our_words(truth, name), _fields(file))


def _in_our_words(truth: dict[str, Any], name: str) -> dict[str, Any]:
    stated = {**truth, "full_text": truth.get("full_text", truth.get("text"))}
    if "text_from_html" in truth:
        stated["full_text"] = truth["text_from_html"].replace(" / ", "\n")
    if "attachments" in truth:
        files = [a["filename"] or "" for a in truth["attachments"]]
        stated["names"] = [NAMES.get(name, each) for each in files]
        stated["digests"] = [a["sha256"] for a in truth["attachments"] if "sha256" in a]
    if "inline" in truth:
        stated["digests"] = [a["sha256"] for a in truth["inline"]]
    if "subject_must_not_contain" in truth:
        stated["one_line"] = True
    return {k: v for k, v in stated.items() if v is not None or k == "subject"}


def _fields(file: str) -> dict[str, Callable[[], Any]]:
    def digests() -> list[str]:
        whole = [a for a in mail(file).attachments if a.media_type != "message/rfc822"]
        return [hashlib.sha256(a.content or b"").hexdigest() for a in whole]

    return {
        "from_name": lambda: mail(file).sender_name,
        "from_addr": lambda: mail(file).sender,
        "subject": lambda: mail(file).subject or None,
        "one_line": lambda: not re.search(r"[\r\n]", mail(file).subject),
        "message_id": lambda: mail(file).message_id,
        "full_text": lambda: mail(file).full_text,
        "reply_text": lambda: mail(file).text,
        "in_reply_to": lambda: next(iter(mail(file).references), None),
        "auto_reply_or_bulk": lambda: mail(file).automatic,
        "is_bounce": lambda: mail(file).bounce is not None,
        "final_recipient": lambda: _bounce(file).recipient,
        "status": lambda: _bounce(file).status,
        "names": lambda: [a.name for a in mail(file).attachments],
        "digests": digests,
        "reply_token": lambda: _token(mail(file)),
    }


def _bounce(file: str) -> mime.Bounce:
    return mail(file).bounce or mime.Bounce("", "", "", hard=False, reason="")


def _token(found: mime.Mail) -> str | None:
    matches = (re.match(r"support\+(.+?)@", recipient) for recipient in found.recipients)
    return next((m[1] for m in matches if m), None)


# stalwart_mail_parser: another parser's full result


def _stalwart() -> Iterator[Claim]:
    for path in sorted((PAYLOADS / "stalwart_mail_parser").glob("*.expected.json")):
        truth = json.loads(path.read_text(encoding="utf-8"))
        file = f"stalwart_mail_parser/{path.name.removesuffix('.expected.json')}.eml"
        yield from _of_stalwart(file, truth)


def _of_stalwart(file: str, truth: dict[str, Any]) -> Iterator[Claim]:
    parts = truth["parts"]
    headers = {h["name"]: h["value"] for h in parts[0]["headers"] if isinstance(h["name"], str)}
    texts = [next(iter(parts[n]["body"].values())) for n in truth["text_body"]]
    names = [_stalwart_name(parts[n]) for n in truth["attachments"]]
    subject = headers.get("subject")
    stated = {
        "subject": words(subject.get("Text", "")) if isinstance(subject, dict) else "",
        "full_text": words("\n".join(t for t in texts if isinstance(t, str))),
        "names": names,
    }
    if author := _stalwart_author(headers):
        stated["from"] = author
    found = {
        "subject": lambda: mail(file).subject,
        "full_text": lambda: words(mail(file).full_text),
        "names": lambda: [a.name for a in mail(file).attachments],
        "from": lambda: (mail(file).sender_name, mail(file).sender),
    }
    yield from _claims(file, stated, found)


def _stalwart_name(part: dict[str, Any]) -> str:
    for header in part["headers"]:
        value = header["value"]
        if header["name"] in ("content_disposition", "content_type") and "ContentType" in value:
            given = {a["name"]: a["value"] for a in value["ContentType"]["attributes"] or ()}
            if name := given.get("filename", given.get("name")):
                return str(name)
    return ""


def _stalwart_author(headers: dict[str, Any]) -> tuple[str, str] | None:
    value = headers.get("from")
    if not isinstance(value, dict) or "Address" not in value:
        return None
    stated = value["Address"]
    people = stated.get("List") or [a for g in stated.get("Group", []) for a in g["addresses"]]
    if not people or not people[0].get("address"):
        return None
    return words(people[0].get("name") or ""), people[0]["address"].lower()


# sisimai and flufl_bounce: bounces


def _sisimai() -> Iterator[Claim]:
    for file, expected in index("sisimai"):
        truth = json.loads(expected)
        if "is_bounce" in truth:
            yield Claim(file, "is_bounce", False, _is_bounce(file))
            continue
        rows = truth["[[dsn, replycode, reason, hardbounce]]"]
        stated = ast.literal_eval(rows.replace("false", "False").replace("true", "True"))
        if stated[0][2] in ("feedback", "vacation"):
            yield Claim(file, "is_bounce", False, _is_bounce(file))
            yield Claim(file, "automatic", True, lambda f=file: mail(f).automatic)  # type: ignore[misc]  # one file each
            continue
        yield Claim(file, "is_bounce", True, _is_bounce(file))
        yield Claim(file, "status", True, _has_status(file, [row[0] for row in stated]))
        if all(row[3] for row in stated):
            yield Claim(file, "hard", True, lambda f=file: _bounce(f).hard)  # type: ignore[misc]


def _is_bounce(file: str) -> Callable[[], bool]:
    return lambda: mail(file).bounce is not None


def _has_status(file: str, stated: list[str]) -> Callable[[], bool]:
    """One of the recipients' codes; of those that sisimai makes itself (x.0.9xx) the class."""

    def has() -> bool:
        ours = _bounce(file).status
        own = [code for code in stated if re.match(r"[45]\.0\.9\d\d", code)]
        return ours in stated or any(ours[:1] == code[0] for code in own)

    return has


def _flufl() -> Iterator[Claim]:
    for file, expected in index("flufl_bounce"):
        rows = json.loads(expected)["detector_temp_perm"]
        told = [(a.decode().lower(), row[3] == "True") for row in rows for a in _literal(row[2])]
        if not told:
            yield Claim(file, "is_bounce", False, _is_bounce(file))
            continue
        people = [address for address, _ in told]
        yield Claim(file, "recipient", True, _is_one_of(file, people))
        yield Claim(file, "delayed", told[0][1], lambda f=file: _bounce(f).delayed)  # type: ignore[misc]


def _literal(text: str) -> list[bytes]:
    return list(ast.literal_eval(text))


def _is_one_of(file: str, people: list[str]) -> Callable[[], bool]:
    return lambda: _bounce(file).recipient in people


# Replies


def _text(file: str) -> str:
    return (PAYLOADS / file).read_text(encoding="utf-8").replace("\r\n", "\n")


def _own(file: str) -> Callable[[], str]:
    return lambda: words(mime.without_history(_text(file)))


def _trimmer() -> Iterator[Claim]:
    for file, _ in index("email_reply_trimmer"):
        stated = _text(file.replace(".txt", ".trimmed.txt"))
        yield Claim(file, "reply_text", words(stated), _own(file))


def _talon() -> Iterator[Claim]:
    for file, expected in index("talon"):
        if expected:
            stated = words(json.loads(expected)["reply_text"])
            yield Claim(file, "reply_text", stated, _talon_own(file))


def _talon_own(file: str) -> Callable[[], str]:
    if file.endswith(".eml"):
        return lambda: words(mail(file).text)
    return lambda: words(mime.without_history(mime.html_text(_text(file))))


#: Of the fixtures that come without a truth: how many of their first lines are the reply.
#: 0: all of them.
_OWN_LINES = {
    "crisp_reply": {
        "email_18": 5, "email_21": 0, "email_8": 5, "email_custom_quote_header": 1,
        "email_customer_quote_header_2": 1, "email_customer_quote_header_3": 3,
        "email_danish_dash_separator": 5, "email_german_2": 5, "email_not_a_signature": 0,
        "email_not_a_signature_2": 0, "email_original_message": 5, "email_original_message_2": 5,
        "email_outlook_split_line_from": 5, "email_reply_header": 11,
        "email_tricky_13_timestamp_variations": 0, "email_tricky_15_original_message_variations": 5,
        "email_tricky_16_unicode_signatures": 0, "email_tricky_17_forward_header": 0,
        "email_tricky_20_html_entities": 3, "email_tricky_2_url_with_wrote": 0,
        "email_tricky_6_regards_in_sentence": 0, "email_tricky_9_nested_quotes": 1,
        "email_with_regards": 0, "email_zoho": 2,
    },
    "mail_parser_reply": {
        "email_danish_2": 6, "email_danish_3": 3, "email_danish_4": 3, "email_danish_5": 0,
        "email_ja_1_1": 0, "email_nl_1_1": 0, "email_nl_1_2": 1,
        "email_sent_from_not_signature": 0, "email_swedish_2": 7, "forward": 0, "multi_header": 1,
        "outlook": 8,
    },
}  # fmt: skip


def _reply_fixtures() -> Iterator[Claim]:
    for folder, fixtures in _OWN_LINES.items():
        for name, count in fixtures.items():
            file = f"{folder}/{name}.txt"
            lines = _text(file).split("\n")
            yield Claim(file, "reply_text", words("\n".join(lines[: count or None])), _own(file))


# anymail: requests that carry a mail as it is


def _anymail() -> Iterator[Claim]:
    expected = dict(index("anymail"))
    for file, unpack in _RAW_IN.items():
        truth = json.loads(expected[file])[0]["message"]
        files = [*truth["inlines"], *truth["attachments"]]
        stated = {
            "subject": truth["subject"],
            "full_text": words(truth["text"]),
            "from": truth["from"].rpartition("<")[2].rstrip(">"),
            "recipients": [a.rpartition("<")[2].rstrip(">") for a in truth["to"] + truth["cc"]],
            "names": sorted(f[0] or "" for f in files),
        }
        yield from _claims(file, stated, _anymail_fields(file, unpack))


def _anymail_fields(
    file: str, unpack: Callable[[dict[str, Any]], bytes]
) -> dict[str, Callable[[], Any]]:
    @cache
    def read() -> mime.Mail:
        record = json.loads((PAYLOADS / file).read_text(encoding="utf-8"))
        return mime.read(unpack(record))

    return {
        "subject": lambda: read().subject,
        "full_text": lambda: words(read().full_text),
        "from": lambda: read().sender,
        "recipients": lambda: list(read().recipients),
        "names": lambda: sorted(a.name for a in read().attachments),
    }


def _body(record: dict[str, Any]) -> bytes:
    encoded = record.get("body_base64")
    return base64.b64decode(encoded) if encoded else str(record["body"]).encode()


def _from_sns(record: dict[str, Any]) -> bytes:
    notice = json.loads(json.loads(_body(record))["Message"])
    return str(notice["content"]).encode()


def _from_postal(record: dict[str, Any]) -> bytes:
    return base64.b64decode(json.loads(_body(record))["message"])


def _from_sparkpost(record: dict[str, Any]) -> bytes:
    content = json.loads(_body(record))[0]["msys"]["relay_message"]["content"]
    return base64.b64decode(content["email_rfc822"])


def _from_sendgrid(record: dict[str, Any]) -> bytes:
    head = f"Content-Type: {record['headers']['Content-Type']}\n\n".encode()
    form = message_from_bytes(head + _body(record), policy=policy.compat32)
    part = next(p for p in form.walk() if p.get_param("name", header="content-disposition"))
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.lstrip()


_RAW_IN: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "anymail/amazon_ses_inbound_inbound_sns_utf8_0004.http.json": _from_sns,
    "anymail/postal_inbound_inbound_basics_0201.http.json": _from_postal,
    "anymail/sparkpost_inbound_attachments_0319.http.json": _from_sparkpost,
    "anymail/sendgrid_inbound_inbound_mime_0282.http.json": _from_sendgrid,
}


def mails() -> list[Path]:
    """Every mail of the set."""
    return sorted(PAYLOADS.glob("*/*.eml"))
