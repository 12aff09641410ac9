"""Email as raw MIME, posted by any source: a mail server, a Cloudflare Email Worker, a script.

POST the mail's bytes as `message/rfc822`, with the envelope as JSON in the header
`askonce-envelope`, signed as Standard Webhooks over `<envelope>.<bytes>`: docs/email.md has the
few lines it takes. The envelope says who gave the mail to whom and what the receiving server found
about the sender; only that counts as evidence, never what stands in the mail.

Signature: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
Worker:    https://developers.cloudflare.com/email-routing/email-workers/runtime-api/
Out:       SMTP, https://www.rfc-editor.org/rfc/rfc5321, or Amazon SES,
           https://docs.aws.amazon.com/ses/latest/dg/send-email-raw.html
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from chalicelib.errors import PayloadError
from chalicelib.ports import Capabilities, InboxContext, WebhookRequest, WebhookResponse
from chalicelib.schema import Kind, Message, Raw, Receipt
from connectors.mail_channel import FILES, Arrival, Letter, MailboxSettings, MailConnector
from connectors.signing import Secrets, StandardWebhook

ENVELOPE_HEADER = "askonce-envelope"


class EmailMimeSettings(MailboxSettings):
    """[inboxes.<name>] connector = "email_mime" """

    #: Standard Webhooks secrets of whoever posts the mail.
    signing_secret: Secrets
    #: How answers leave: by a mail server, or by SES with the rights of the Lambda function.
    out: Literal["smtp", "ses"] = "smtp"
    #: smtp://user:password@host:587 (STARTTLS) or smtps://...:465; by reference: it is a secret.
    smtp_url: SecretStr | None = Field(None, validate_default=True)
    #: The region of SES, for example eu-central-1.
    region: str = Field("", pattern=r"^([a-z]{2}(-[a-z]+)+-\d)?$", validate_default=True)

    @field_validator("smtp_url")
    @classmethod
    def _smtp(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if info.data.get("out") == "ses":
            return url
        parts = urlsplit(url.get_secret_value() if url else "")
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("must be smtp://user:password@host:587 or smtps://...:465")
        return url

    @field_validator("region")
    @classmethod
    def _ses(cls, region: str, info: ValidationInfo) -> str:
        if info.data.get("out") == "ses" and not region:
            raise ValueError("must be the region of SES, for example eu-central-1")
        return region


class Envelope(BaseModel):
    """What the receiving mail server knows and the mail cannot say of itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    #: The envelope's sender; empty for bounces.
    mail_from: str | None = None
    rcpt_to: tuple[str, ...] = ()
    #: The server's verdict on From: only `pass` proves the sender.
    dmarc: Literal["pass", "fail", "none", "temperror", "permerror"] = "none"
    #: Domains of valid DKIM signatures; one that is From's own domain proves the sender too.
    dkim: tuple[str, ...] = ()


class EmailMime(MailConnector):
    """A mailbox whose mail comes as raw MIME and whose answers leave by SMTP or SES."""

    name = "email_mime"
    settings_model = EmailMimeSettings
    capabilities = Capabilities(
        kinds_in=frozenset({Kind.TEXT}),
        kinds_out=FILES,
        # The Message-ID is the same each time: mail programs show one of two.
        resends_safely=True,
        threads=True,
        evidence=("dmarc", "dkim"),
        receipts=True,
    )

    settings: EmailMimeSettings

    def __init__(self, settings: EmailMimeSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._signature = StandardWebhook(settings.signing_secret)
        if settings.out == "ses":  # it makes a Message-ID of its own each time
            vars(self)["capabilities"] = replace(type(self).capabilities, resends_safely=False)

    def endpoints(self) -> Sequence[str]:
        from connectors import mail_out

        by_ses = self.settings.out == "ses"
        return [mail_out.ses_endpoint(self.settings.region)] if by_ses else super().endpoints()

    def verify(self, request: WebhookRequest) -> None:
        envelope = request.header(ENVELOPE_HEADER).encode("utf-8", "surrogatepass")
        self._signature.verify(request, envelope + b"." + request.body)

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        try:
            envelope = Envelope.model_validate_json(request.header(ENVELOPE_HEADER) or "{}")
        except ValidationError as error:
            raise PayloadError(f"the envelope is malformed: {error.errors()[0]['loc']}") from None
        arrival = Arrival(
            mime=request.body,
            original=Raw(media_type="message/rfc822", content=request.body),
            mail_from=envelope.mail_from,
            recipients=envelope.rcpt_to,
            dmarc=envelope.dmarc == "pass",
            dkim=envelope.dkim,
        )
        return [self.arrived(arrival, request)]

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        return WebhookResponse(status=202)

    def post(self, message: Message, letter: Letter) -> str:
        from connectors import mail_out

        mail = letter.mail.as_bytes()
        if self.settings.out == "ses":
            return mail_out.send_by_ses(self.settings.region, letter.to, mail)
        # An automatic answer has no return path, so that a bounce cannot start a loop (RFC 3834).
        sender = "" if letter.automatic else letter.sender
        url = self.settings.smtp_url.get_secret_value() if self.settings.smtp_url else ""
        mail_out.submit(url, sender, letter.to, mail)
        return letter.message_id

    def sent_by_us(self, original: str) -> bool:
        from connectors import mail_out

        by_ses = self.settings.out == "ses" and mail_out.made_by_ses(original)
        return by_ses or super().sent_by_us(original)
