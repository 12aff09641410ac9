"""Email as raw MIME, posted by any source: a mail server, a Cloudflare Email Worker, a script.

POST the mail's bytes as `message/rfc822`, with the envelope as JSON in the header
`askonce-envelope`, signed as Standard Webhooks over `<envelope>.<bytes>`: docs/email.md has the
few lines it takes. The envelope says who gave the mail to whom and what the receiving server found
about the sender; only that counts as evidence, never what stands in the mail.

Signature: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
Worker:    https://developers.cloudflare.com/email-routing/email-workers/runtime-api/
Out:       SMTP, https://www.rfc-editor.org/rfc/rfc5321
"""

import hashlib
import smtplib
import ssl
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from chalicelib.errors import PayloadError, RejectedError, RetryableError
from chalicelib.ports import (
    Capabilities,
    Connector,
    InboxContext,
    PluginSettings,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import (
    Attachment,
    Channel,
    Direction,
    Evidence,
    Kind,
    Level,
    Message,
    Raw,
    message_id,
)
from connectors import mime
from connectors.signing import Secrets, StandardWebhook

ENVELOPE_HEADER = "askonce-envelope"
_TIMEOUT_SECONDS = 10


class EmailMimeSettings(PluginSettings):
    """[inboxes.<name>] connector = "email_mime" """

    #: The mailbox: From of what we send.
    address: str = Field(pattern=r"^[^\s@<>]+@[^\s@<>]+$")
    display_name: str = ""
    #: Standard Webhooks secrets of whoever posts the mail.
    signing_secret: Secrets
    #: smtp://user:password@host:587 (STARTTLS) or smtps://...:465; by reference: it is a secret.
    smtp_url: SecretStr

    @field_validator("address")
    @classmethod
    def _lower(cls, address: str) -> str:
        if not address.isascii():
            raise ValueError("must have no other letters than ASCII")
        return address.lower()

    @field_validator("smtp_url")
    @classmethod
    def _smtp(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("must be smtp://user:password@host:587 or smtps://...:465")
        return url


class Envelope(BaseModel):
    """What the receiving mail server knows and the mail cannot say of itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    #: The envelope's sender; empty for bounces.
    mail_from: str = ""
    rcpt_to: tuple[str, ...] = ()
    #: The server's verdict on From: only `pass` proves the sender.
    dmarc: Literal["pass", "fail", "none", "temperror", "permerror"] = "none"
    #: Domains of valid DKIM signatures; one that is From's own domain proves the sender too.
    dkim: tuple[str, ...] = ()


class EmailMime(Connector):
    """A mailbox whose mail comes as raw MIME and whose answers leave by SMTP."""

    name = "email_mime"
    channel = Channel.EMAIL
    settings_model = EmailMimeSettings
    capabilities = Capabilities(
        kinds_in=frozenset({Kind.TEXT}),
        kinds_out=frozenset({Kind.TEXT, Kind.IMAGE, Kind.AUDIO, Kind.VIDEO, Kind.FILE}),
        # The Message-ID is the same each time: mail programs show one of two.
        resends_safely=True,
        threads=True,
        evidence=("dmarc", "dkim"),
    )
    max_body_bytes = mime.MAX_BYTES

    settings: EmailMimeSettings

    def __init__(self, settings: EmailMimeSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._signature = StandardWebhook(settings.signing_secret)

    def verify(self, request: WebhookRequest) -> None:
        envelope = request.header(ENVELOPE_HEADER).encode("utf-8", "surrogatepass")
        self._signature.verify(request, envelope + b"." + request.body)

    def parse(self, request: WebhookRequest) -> list[Message]:
        try:
            envelope = Envelope.model_validate_json(request.header(ENVELOPE_HEADER) or "{}")
        except ValidationError as error:
            raise PayloadError(f"the envelope is malformed: {error.errors()[0]['loc']}") from None
        mail = mime.read(request.body)
        address = f"email:{mail.sender}"
        external_id = mail.message_id or f"<{hashlib.sha256(request.body).hexdigest()}>"
        # Some clients send another mail under the same Message-ID: the words tell them apart.
        words = hashlib.sha256(f"{mail.subject}\0{mail.full_text}".encode("utf-8", "replace"))
        try:
            message = Message(
                id=message_id(self.context.name, address, external_id, words.hexdigest()),
                direction=Direction.INBOUND,
                channel=Channel.EMAIL,
                connector=self.name,
                inbox=self.context.name,
                external_id=external_id,
                address=address,
                account=self.settings.address,
                sender_name=mail.sender_name,
                evidence=(_evidence(address, mail, envelope),),
                kind=Kind.TEXT,
                text=mail.text,
                subject=mail.subject,
                attachments=mail.attachments,
                references=mail.references,
                automatic=mail.automatic
                or (not envelope.mail_from and "mail_from" in envelope.model_fields_set),
                sent_at=mail.sent_at or request.received_at,
                received_at=request.received_at,
                raw=Raw(media_type="message/rfc822", content=request.body),
            )
        except ValidationError as error:
            raise PayloadError(f"the mail cannot be read: {error.errors()[0]['loc']}") from None
        return [message]

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        return WebhookResponse(status=202)

    def send(self, message: Message) -> str:
        """Send by SMTP. Returns the Message-ID, which is made of our id."""
        recipient = message.address.removeprefix("email:")
        domain = self.settings.address.rsplit("@", 1)[1]
        mail_id = f"<{message.id}@{domain}>"
        mail = mime.write(
            sender=self.settings.address,
            sender_name=self.settings.display_name,
            to=recipient,
            subject=message.subject or self.settings.display_name or "Your question",
            text=message.text,
            message_id=mail_id,
            references=message.references,
            sent_at=message.sent_at,
            automatic=message.automatic,
            attachments=message.attachments,
        )
        # An automatic answer has no return path, so that a bounce cannot start a loop (RFC 3834).
        sender = "" if message.automatic else self.settings.address
        self._submit(sender, recipient, mail.as_bytes())
        return mail_id

    def fetch(self, attachment: Attachment) -> bytes:
        raise RejectedError("the mail did not hold this file")

    def _submit(self, sender: str, recipient: str, mail: bytes) -> None:
        try:
            with closing(self._connection()) as connection:
                self._introduce(connection)
                connection.sendmail(sender, [recipient], mail)
                with suppress(smtplib.SMTPException):  # the server has the mail, whatever it says
                    connection.quit()
        except smtplib.SMTPRecipientsRefused as error:
            code = next(iter(error.recipients.values()))[0]
            raise _by_code(code, "the mail server refused the recipient") from None
        except smtplib.SMTPResponseException as error:
            raise _by_code(error.smtp_code, "the mail server refused the mail") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise RetryableError(
                f"the mail server: {type(error).__name__}", uncertain=True
            ) from None

    def _connection(self) -> smtplib.SMTP:
        parts = urlsplit(self.settings.smtp_url.get_secret_value())
        options: dict[str, Any] = {"host": parts.hostname, "timeout": _TIMEOUT_SECONDS}
        if parts.scheme == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(**options, port=parts.port or 465, context=context)
        return smtplib.SMTP(**options, port=parts.port or 587)

    def _introduce(self, connection: smtplib.SMTP) -> None:
        parts = urlsplit(self.settings.smtp_url.get_secret_value())
        if parts.scheme == "smtp" and parts.hostname not in ("127.0.0.1", "localhost"):
            connection.starttls(context=ssl.create_default_context())
        if parts.username:
            connection.login(unquote(parts.username), unquote(parts.password or ""))


def _evidence(address: str, mail: mime.Mail, envelope: Envelope) -> Evidence:
    """What proves the author: DMARC, or a DKIM signature of the author's own domain."""
    domain = mail.sender.rsplit("@", 1)[1]
    if mail.one_author and envelope.dmarc == "pass":
        return Evidence(address=address, level=Level.VERIFIED, source="dmarc")
    if mail.one_author and domain in {d.lower() for d in envelope.dkim}:
        return Evidence(address=address, level=Level.VERIFIED, source="dkim")
    return Evidence(address=address, level=Level.CLAIMED, source="from_header")


def _by_code(code: int, what: str) -> RejectedError | RetryableError:
    """Only 5xx never passes by itself: https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1"""
    if 500 <= code < 600:
        return RejectedError(f"{what} ({code})")
    return RetryableError(f"{what} for now ({code})")
