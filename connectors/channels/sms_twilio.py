"""SMS and MMS through Twilio.

Webhook:   https://www.twilio.com/docs/messaging/guides/webhook-request
Signature: https://www.twilio.com/docs/usage/security#validating-requests
Send:      https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource
Media:     https://www.twilio.com/docs/messaging/api/media-resource

Twilio signs the address as it calls it, so the configured public address counts, not what the
gateway sees; and it does not repeat an SMS webhook unless a fallback address is set. New parameters
appear without notice, and count in the signature. An answer of another type than XML would be sent
to the customer as an SMS.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

from pydantic import Field, ValidationError

from chalicelib.errors import PayloadError, RejectedError, SignatureError
from chalicelib.ports import (
    Capabilities,
    Connector,
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
    message_id,
)
from connectors import http
from connectors.signing import Secrets, basic_auth, equals_any, values

_E164 = r"^\+[1-9]\d{6,14}$"
_MAX_CHARACTERS = 1600
#: Where Twilio's media resource redirects to.
_MEDIA_HOSTS = ("media.twiliocdn.com", "mms.twiliocdn.com", "s3-external-1.amazonaws.com")
_DEFAULT_PORTS = {"https": 443, "http": 80}


class TwilioSmsSettings(PluginSettings):
    """[inboxes.<name>] connector = "sms_twilio" """

    account_sid: str = Field(pattern=r"^AC[0-9a-zA-Z]{2,64}$")
    #: One token, or primary and secondary while they are rotated.
    auth_token: Secrets
    number: str = Field(pattern=_E164)
    api_url: str = "https://api.twilio.com"


class TwilioSms(Connector):
    """A phone number at Twilio."""

    name = "sms_twilio"
    channel = Channel.SMS
    settings_model = TwilioSmsSettings
    capabilities = Capabilities(
        kinds_in=frozenset({Kind.TEXT, Kind.IMAGE, Kind.AUDIO, Kind.VIDEO, Kind.FILE}),
        kinds_out=frozenset({Kind.TEXT}),
        evidence=("sms",),
    )

    settings: TwilioSmsSettings

    def verify(self, request: WebhookRequest) -> None:
        given = request.header("x-twilio-signature")
        if not given:
            raise SignatureError("X-Twilio-Signature is missing")
        pairs = self._pairs(request)
        wanted = [
            signature(token, url, pairs)
            for token in values(self.settings.auth_token)
            for url in self._urls(request)
        ]
        if not equals_any(given, wanted):
            raise SignatureError("X-Twilio-Signature does not match")

    def _pairs(self, request: WebhookRequest) -> list[tuple[str, str]]:
        """What is signed besides the address: the form; of a JSON body only its digest is."""
        digests = [v for k, v in request.query if k == "bodySHA256"]
        if digests:
            if not equals_any(digests[0], [hashlib.sha256(request.body).hexdigest()]):
                raise SignatureError("bodySHA256 does not match")
            return []
        try:
            return _form(request.body)
        except PayloadError as error:
            raise SignatureError(str(error)) from None

    def _urls(self, request: WebhookRequest) -> Iterable[str]:
        """The public address as Twilio may have written it: the port, and blanks in the query."""
        parts = urlsplit(self.context.public_url)
        host = parts.hostname or ""
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 443)
        pairs = list(request.query)
        for netloc in dict.fromkeys((parts.netloc, host, f"{host}:{port}")):
            for query in dict.fromkeys(urlencode(pairs, quote_via=q) for q in (quote_plus, quote)):
                yield urlunsplit((parts.scheme, netloc, parts.path, query, ""))

    def parse(self, request: WebhookRequest) -> list[Message]:
        fields = dict(reversed(_form(request.body)))  # of a repeated name the first
        sid, sender = fields.get("MessageSid") or fields.get("SmsSid"), fields.get("From", "")
        if not sid or not sender:
            raise PayloadError("MessageSid or From is missing")
        address = f"phone:{sender}"
        attachments = tuple(_media(fields))
        try:
            message = Message(
                id=message_id(self.context.name, address, sid),
                direction=Direction.INBOUND,
                channel=Channel.SMS,
                connector=self.name,
                inbox=self.context.name,
                external_id=sid,
                address=address,
                account=fields.get("To", ""),
                sender_name=fields.get("ProfileName", ""),
                evidence=(Evidence(address=address, level=Level.VERIFIED, source="sms"),),
                kind=_kind(attachments) if not fields.get("Body") else Kind.TEXT,
                text=fields.get("Body", ""),
                attachments=attachments,
                sent_at=request.received_at,  # Twilio states no time
                received_at=request.received_at,
            )
        except ValidationError as error:
            raise PayloadError(f"a field is malformed: {error.errors()[0]['loc']}") from None
        return [message]

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """TwiML without an answer: what we say goes through the API, which tells how it ended."""
        return WebhookResponse(
            body='<?xml version="1.0" encoding="UTF-8"?><Response/>',
            content_type="text/xml; charset=utf-8",
        )

    def send(self, message: Message) -> str:
        if len(message.text) > _MAX_CHARACTERS:
            raise RejectedError(
                f"the text is too long for SMS: it takes {_MAX_CHARACTERS} characters"
            )
        sid = self.settings.account_sid
        form = {
            "To": message.address.removeprefix("phone:"),
            "From": self.settings.number,
            "Body": message.text,
        }
        answer = http.call(
            "POST",
            f"{self.settings.api_url}/2010-04-01/Accounts/{sid}/Messages.json",
            headers=self._authorization,
            form=form,
        )
        return str(answer.json().get("sid") or message.id)

    def fetch(self, attachment: Attachment) -> bytes:
        host = urlsplit(self.settings.api_url).netloc
        return http.download(
            attachment.source or "",
            hosts=(host,),
            redirect_hosts=_MEDIA_HOSTS,
            headers=self._authorization,
        )

    @property
    def _authorization(self) -> dict[str, str]:
        token = values(self.settings.auth_token)[0]
        return dict(basic_auth(self.settings.account_sid, token))


def signature(token: str, url: str, pairs: Sequence[tuple[str, str]]) -> str:
    """base64 HMAC-SHA1 over the address and every distinct name and value, sorted."""
    signed = url + "".join(name + value for name, value in sorted(set(pairs)))
    digest = hmac.new(token.encode(), signed.encode("utf-8", "surrogatepass"), hashlib.sha1)
    return base64.b64encode(digest.digest()).decode("ascii")


def _form(body: bytes) -> list[tuple[str, str]]:
    """Every pair, empty values and blanks kept: they count in the signature."""
    try:
        text = body.decode("utf-8")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise PayloadError("the body is no form") from None


_MEDIA_KINDS = {"image": Kind.IMAGE, "audio": Kind.AUDIO, "video": Kind.VIDEO}


def _media(fields: dict[str, Any]) -> Iterable[Attachment]:
    count = fields.get("NumMedia", "0")
    for n in range(min(int(count[:3]), 10) if count.isascii() and count.isdigit() else 0):
        if url := fields.get(f"MediaUrl{n}"):
            media_type = fields.get(f"MediaContentType{n}") or "application/octet-stream"
            yield Attachment(media_type=media_type.lower(), source=url)


def _kind(attachments: Sequence[Attachment]) -> Kind:
    if not attachments:
        return Kind.TEXT
    return _MEDIA_KINDS.get(attachments[0].media_type.partition("/")[0], Kind.FILE)
