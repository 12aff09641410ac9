"""Mail as it leaves: written once for every way out, and read again before it may go.

RFC 5322, 2047, 2231, 3834. Python before 3.11.10 lets an encoded word with a line feed become a
header of its own (CVE-2024-6923), so nothing that a person wrote reaches a header as it was: it is
one clean line, and the headers of the finished mail are compared with those that were meant.
"""

import email
import re
from collections.abc import Sequence
from datetime import datetime
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.utils import formatdate

from chalicelib.errors import RejectedError
from chalicelib.schema import Attachment
from connectors.mail_headers import clean_line, safe_name

#: What is set raw stays as it is: the library, folding long headers, takes the quotes off names,
#: the blanks out of subjects, and makes encoded words of message ids.
_OUTGOING = policy.SMTP.clone(refold_source="none")
_MEDIA_TYPE = re.compile(r"(?!multipart|message)([a-z]{2,20})/([a-z0-9][a-z0-9.+-]{0,100})")
_PLAIN_ADDRESS = re.compile(
    r"[!#$%&'*+\-/0-9=?A-Z^_`a-z{|}~.]{1,64}@[0-9A-Za-z](?:[0-9A-Za-z.-]{0,253}[0-9A-Za-z])?"
)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,500}>")
#: Text that needs no encoding on its way.
_PRINTABLE = re.compile("[\t\n -~]*")
_LONGEST_LINE = 998
_MAX_REFERENCES = 20


def write(  # noqa: PLR0913  # a mail has that many parts
    *,
    sender: str,
    sender_name: str,
    to: str,
    subject: str,
    text: str,
    message_id: str,
    references: Sequence[str],
    sent_at: datetime,
    automatic: bool,
    attachments: Sequence[Attachment] = (),
    reply_to: str = "",
) -> EmailMessage:
    """A mail, ready to be sent. RejectedError if it would say anything else than it should."""
    mail = EmailMessage(policy=_OUTGOING)
    mail.set_raw("From", _person(sender, sender_name))
    mail.set_raw("To", _person(to))
    if reply_to:
        mail.set_raw("Reply-To", _person(reply_to))
    mail.set_raw("Subject", _encoded(harmless(subject)))
    mail.set_raw("Date", formatdate(sent_at.timestamp(), usegmt=True))
    mail.set_raw("Message-ID", demand_message_id(message_id))
    if ids := message_ids(references):
        mail.set_raw("In-Reply-To", ids[0])
        mail.set_raw("References", "\r\n ".join(reversed(ids)))
    for name, value in AUTOMATIC.items() if automatic else ():
        mail.set_raw(name, value)
    body = plain(text)
    mail.set_content(body, cte=None if _PRINTABLE.fullmatch(body) else "base64")
    for attachment in attachments:
        _attach(mail, attachment)
    _demand_same(mail)
    return mail


#: https://www.rfc-editor.org/rfc/rfc3834#section-5 and what Exchange knows.
AUTOMATIC = {"Auto-Submitted": "auto-replied", "X-Auto-Response-Suppress": "All"}


def message_ids(references: Sequence[str]) -> list[str]:
    """Those references that are ids of mails, nearest first."""
    return [r for r in references if _MESSAGE_ID.fullmatch(r)][:_MAX_REFERENCES]


def demand_message_id(given: str) -> str:
    """RejectedError for what is no id of a mail."""
    if not _MESSAGE_ID.fullmatch(given):
        raise RejectedError("the mail has no valid Message-ID")
    return given


def demand_address(given: str) -> str:
    """RejectedError for an address that could be read as more than one, or needs SMTPUTF8."""
    if not _PLAIN_ADDRESS.fullmatch(given):
        raise RejectedError("mail to addresses with other than plain letters is not supported")
    return given


def harmless(text: str) -> str:
    """One line that no reader takes for anything but text."""
    return clean_line(text).replace("=?", "= ?").replace('"', "'")


def plain(text: str) -> str:
    """Text whose lines end in one way, and in which nothing is half a character."""
    return re.sub("\r\n?", "\n", text).encode("utf-8", "replace").decode("utf-8")


def file_name(attachment: Attachment) -> str:
    """The name that an attachment leaves under."""
    return harmless(safe_name(attachment.name)) or "file"


def media_type(attachment: Attachment) -> tuple[str, str]:
    """Its type, or that of any bytes where it is none that can be sent as a file."""
    known = _MEDIA_TYPE.fullmatch(attachment.media_type.lower())
    return (known[1], known[2]) if known else ("application", "octet-stream")


def _attach(mail: EmailMessage, attachment: Attachment) -> None:
    main, sub = media_type(attachment)
    name = file_name(attachment)
    mail.add_attachment(attachment.content or b"", maintype=main, subtype=sub, filename=name)


def _person(address: str, name: str = "") -> str:
    """An address, with a name if there is one, as a header holds it."""
    demand_address(address)
    name = harmless(name)
    if not name:
        return address
    if name.isascii() and len(name) <= 60:
        return '"{}" <{}>'.format(name.replace("\\", "\\\\"), address)
    words = Header(name, "utf-8", header_name="From").encode(linesep="\r\n")
    return f"{words}\r\n <{address}>"


def _encoded(text: str) -> str:
    """One line of text as a header holds it, folded."""
    is_plain = text.isascii() and all(len(word) < 200 for word in text.split())
    charset = "us-ascii" if is_plain else "utf-8"
    return Header(text, charset, header_name="Subject").encode(linesep="\r\n")


def _demand_same(mail: EmailMessage) -> None:
    """RejectedError unless the mail, read again, has just these headers, and no odd line."""
    written = mail.as_bytes()
    again = email.message_from_bytes(written, policy=policy.compat32)
    if [part.keys() for part in again.walk()] != [part.keys() for part in mail.walk()]:
        raise RejectedError("the mail's headers cannot be written safely")
    lines = written.split(b"\r\n")
    if any(len(line) > _LONGEST_LINE or b"\r" in line or b"\n" in line for line in lines):
        raise RejectedError("the mail's lines cannot be written safely")
