"""What all email connectors share: a mail becomes a message, a message becomes a letter.

A reply belongs to its conversation by a token in the address that it was sent to, by In-Reply-To,
by References, in this order of trust; the core asks in addition whether the sender takes part.
Only what the receiving provider found itself counts as evidence, never what stands in the mail.

Bounces:  https://www.rfc-editor.org/rfc/rfc3464
Machines: https://www.rfc-editor.org/rfc/rfc3834
"""

import hashlib
import hmac
import re
from abc import abstractmethod
from base64 import b32encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage

from pydantic import Field, ValidationError, field_validator

from chalicelib.errors import PayloadError, RejectedError
from chalicelib.ports import (
    Connector,
    InboxContext,
    PluginSettings,
    WebhookRequest,
)
from chalicelib.schema import (
    Attachment,
    Channel,
    Delivery,
    Direction,
    Evidence,
    Kind,
    Level,
    Message,
    Raw,
    Receipt,
    errand_id,
    message_id,
)
from connectors import mime, mime_out
from connectors.mail_headers import clean_line
from connectors.signing import Secrets, equals_any, values

FILES = frozenset({Kind.TEXT, Kind.IMAGE, Kind.AUDIO, Kind.VIDEO, Kind.FILE})
_MAX_REASON = 300
_OWN_ID = re.compile(r"m[a-z2-7]{26}")


class MailboxSettings(PluginSettings):
    """What every email inbox has."""

    #: The mailbox: From of what we send.
    address: str = Field(pattern=r"^[^\s@<>]+@[^\s@<>]+$")
    display_name: str = ""
    #: Signs the token in the address that answers go to: help+<token>@shop.example, which your
    #: provider must deliver like help@shop.example. Without it answers are found by their headers.
    reply_secret: Secrets | None = None
    #: Where answers go if that is not `address`: the one that the provider takes mail at.
    reply_address: str = Field("", pattern=r"^([^\s@<>]+@[^\s@<>]+)?$")

    @field_validator("address", "reply_address")
    @classmethod
    def _lower(cls, address: str) -> str:
        if not address.isascii():
            raise ValueError("must have no other letters than ASCII")
        return address.lower()


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A mail, and what its receiving provider knows and the mail cannot say of itself."""

    mime: bytes
    #: What the provider sent, to be kept.
    original: Raw
    #: The envelope's sender: "" for bounces, None where the provider does not tell.
    mail_from: str | None = None
    recipients: Sequence[str] = ()
    #: The provider's own verdicts: From's domain passed DMARC; domains of valid DKIM signatures.
    dmarc: bool = False
    dkim: Iterable[str] = ()
    #: Files that the provider did not send along.
    kept_elsewhere: tuple[Attachment, ...] = ()


@dataclass(frozen=True)
class Letter:
    """An outbound message as a mail has it: every field safe to put anywhere."""

    message_id: str
    sender: str
    sender_name: str
    reply_to: str
    to: str
    subject: str
    text: str
    #: In-Reply-To, References, and what marks an automatic answer.
    headers: dict[str, str]
    files: tuple[Attachment, ...]
    automatic: bool
    mail: EmailMessage


class MailConnector(Connector):
    """A mailbox."""

    channel = Channel.EMAIL
    max_body_bytes = mime.MAX_BYTES

    settings: MailboxSettings

    def __init__(self, settings: MailboxSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._tokens = ReplyTokens(settings.reply_secret) if settings.reply_secret else None

    def fetch(self, attachment: Attachment) -> bytes:
        raise RejectedError("the mail did not hold this file")

    # In

    def arrived(self, arrival: Arrival, request: WebhookRequest) -> Message | Receipt:
        """What a mail says: a message, or that one of ours did not arrive. PayloadError."""
        mail = mime.read(arrival.mime)
        if bounced := self._bounced(mail, request):
            return bounced
        address = f"email:{mail.sender}"
        digest = hashlib.sha256(arrival.mime).hexdigest()
        external_id = mail.message_id or f"<{digest}>"
        try:
            return Message(
                id=message_id(self.context.name, address, external_id, *_told_apart(mail, arrival)),
                direction=Direction.INBOUND,
                channel=Channel.EMAIL,
                connector=self.name,
                inbox=self.context.name,
                external_id=external_id,
                address=address,
                account=self.settings.address,
                sender_name=mail.sender_name,
                evidence=(_evidence(address, mail, arrival),),
                kind=Kind.TEXT,
                text=mail.text,
                subject=mail.subject,
                attachments=(*mail.attachments, *arrival.kept_elsewhere),
                references=(*self._proven(arrival.recipients, mail), *mail.references),
                automatic=mail.automatic or arrival.mail_from == "" or self._is_own(mail.sender),
                sent_at=mail.sent_at or request.received_at,
                received_at=request.received_at,
                html=_html(mail),
                raw=arrival.original,
            )
        except ValidationError as error:
            raise PayloadError(f"the mail cannot be read: {error.errors()[0]['loc']}") from None

    def _proven(self, envelope: Sequence[str], mail: mime.Mail) -> Iterable[str]:
        """`conversation:<id>` if a recipient holds a token of ours."""
        if self._tokens is None:
            return
        for recipient in [*envelope, *mail.recipients][:50]:
            token = recipient.lower().rpartition("@")[0].rpartition("+")[2]
            if conversation := self._tokens.conversation(token):
                yield f"conversation:{conversation}"
                return

    def _is_own(self, sender: str) -> bool:
        """Our own mail came back: answering it would go round for ever."""
        local, _, domain = sender.partition("@")
        bare = f"{local.rpartition('+')[0]}@{domain}"
        own = {self.settings.address, self.settings.reply_address}
        return sender in own or bare in own

    def _bounced(self, mail: mime.Mail, request: WebhookRequest) -> Receipt | None:
        """A bounce of something we sent; one of other mail, or a delay, is a machine's message."""
        bounce = mail.bounce
        if bounce is None or bounce.delayed or not self.sent_by_us(bounce.original_message_id):
            return None
        why = f"{bounce.status} {bounce.reason}"
        return self.receipt(bounce.original_message_id, Delivery.FAILED, why, request)

    def sent_by_us(self, original: str) -> bool:
        """Whether a Message-ID is one that `send` may have returned."""
        name, _, domain = original.strip("<>").partition("@")
        return bool(_OWN_ID.fullmatch(name)) and domain.lower() == self._domain

    def receipt(
        self, external_id: str, state: Delivery, reason: str, request: WebhookRequest
    ) -> Receipt:
        """What became of something we sent. PayloadError."""
        try:
            return Receipt(
                id=errand_id(self.context.name, external_id, state),
                inbox=self.context.name,
                external_id=external_id,
                state=state,
                reason=clean_line(reason[: 4 * _MAX_REASON])[:_MAX_REASON],
                received_at=request.received_at,
            )
        except ValidationError as error:
            raise PayloadError(f"a field is malformed: {error.errors()[0]['loc']}") from None

    def own_message_id(self, own_id: object) -> str:
        """The Message-ID that we gave, of the id of ours that the provider gives back; or ''."""
        known = isinstance(own_id, str) and _OWN_ID.fullmatch(own_id)
        return f"<{own_id}@{self._domain}>" if known else ""

    # Out

    @property
    def _domain(self) -> str:
        return self.settings.address.rpartition("@")[2]

    def send(self, message: Message) -> str:
        """Send. Returns the Message-ID, which is made of our id."""
        return self.post(message, self.letter(message))

    @abstractmethod
    def post(self, message: Message, letter: Letter) -> str:
        """Hand a letter to the provider; return its Message-ID. RetryableError, RejectedError."""

    def letter(self, message: Message) -> Letter:
        """The message as a mail. RejectedError if it cannot be one."""
        settings = self.settings
        to, mail_id = message.address.removeprefix("email:"), f"<{message.id}@{self._domain}>"
        subject = message.subject or settings.display_name or "Your question"
        files, text = _carried(message)
        reply_to = self._reply_to(message)
        mail = mime_out.write(
            sender=settings.address,
            sender_name=settings.display_name,
            to=to,
            subject=subject,
            text=text,
            message_id=mail_id,
            references=message.references,
            sent_at=message.sent_at,
            automatic=message.automatic,
            attachments=files,
            reply_to=reply_to,
        )
        ids = mime_out.message_ids(message.references)[:5]
        threaded = {"In-Reply-To": ids[0], "References": " ".join(reversed(ids))} if ids else {}
        return Letter(
            message_id=mail_id,
            sender=settings.address,
            sender_name=mime_out.harmless(settings.display_name),
            reply_to=reply_to,
            to=to,
            subject=mime_out.harmless(subject),
            text=mime_out.plain(text),
            headers=threaded | (mime_out.AUTOMATIC if message.automatic else {}),
            files=files,
            automatic=message.automatic,
            mail=mail,
        )

    def _reply_to(self, message: Message) -> str:
        local, _, domain = (self.settings.reply_address or self.settings.address).partition("@")
        token = self._tokens.token(message.conversation_id or "") if self._tokens else ""
        if token and len(local) + 1 + len(token) <= 64:
            return f"{local}+{token}@{domain}"
        return self.settings.reply_address


class ReplyTokens:
    """Tells in an address which conversation an answer belongs to: letters that any server keeps.

    26 letters name the conversation, 13 prove that we wrote them.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._keys = [secret.encode() for secret in values(secrets)]

    def token(self, conversation_id: str) -> str:
        """The token of a conversation; '' for an id that is none of the core's."""
        if not re.fullmatch("q[a-z2-7]{26}", conversation_id):
            return ""
        return conversation_id[1:] + _mac(self._keys[0], conversation_id)

    def conversation(self, token: str) -> str | None:
        """The conversation of a token that we made."""
        if not re.fullmatch("[a-z2-7]{39}", token):
            return None
        conversation_id = "q" + token[:26]
        proven = equals_any(token[26:], [_mac(key, conversation_id) for key in self._keys])
        return conversation_id if proven else None


def _mac(key: bytes, conversation_id: str) -> str:
    made = hmac.new(key, b"askonce reply to " + conversation_id.encode(), hashlib.sha256).digest()
    return b32encode(made).decode("ascii").lower()[:13]


def _told_apart(mail: mime.Mail, arrival: Arrival) -> tuple[str, str]:
    """What tells mails of one Message-ID apart: broken clients give one to several mails.

    The content without the header, of which the way here is a part; and who it was given to.
    """
    body = re.split(rb"\r?\n\r?\n", arrival.mime, maxsplit=1)[-1]
    content = hashlib.sha256(mail.subject.encode("utf-8", "replace") + b"\0" + body)
    return content.hexdigest(), " ".join(sorted({r.lower() for r in arrival.recipients}))


def _carried(message: Message) -> tuple[tuple[Attachment, ...], str]:
    """The files that go along, and the text, with links to those whose bytes are not at hand."""
    files = tuple(a for a in message.attachments if a.content is not None)
    others = [a for a in message.attachments if a.content is None]
    if any(not a.url for a in others):
        raise RejectedError("a file of the answer could not be had")
    links = [f"{mime_out.file_name(a)}: {a.url}" for a in others]
    return files, "\n\n".join(part for part in (message.text, "\n".join(links)) if part)


def _html(mail: mime.Mail) -> Raw | None:
    if not mail.html:
        return None
    content = mail.html.encode("utf-8", "replace")
    return Raw(media_type="text/html; charset=utf-8", content=content)


def _evidence(address: str, mail: mime.Mail, arrival: Arrival) -> Evidence:
    """What proves the author: DMARC, or a DKIM signature of the author's own domain."""
    domain = mail.sender.rpartition("@")[2]
    if mail.one_author and arrival.dmarc:
        return Evidence(address=address, level=Level.VERIFIED, source="dmarc")
    if mail.one_author and domain in {d.lower() for d in arrival.dkim}:
        return Evidence(address=address, level=Level.VERIFIED, source="dkim")
    return Evidence(address=address, level=Level.CLAIMED, source="from_header")
