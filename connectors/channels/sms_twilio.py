"""SMS and MMS through Twilio.

Webhook:   https://www.twilio.com/docs/messaging/guides/webhook-request
Status:    https://www.twilio.com/docs/messaging/guides/track-outbound-message-status
Signature: https://www.twilio.com/docs/usage/security#validating-requests
Opt-out:   https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out
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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

from pydantic import Field

from chalicelib.errors import PayloadError, RejectedError, SignatureError
from chalicelib.ports import (
    Capabilities,
    Connector,
    PluginSettings,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import Attachment, Channel, Delivery, Kind, Message, Receipt
from connectors import http, sms_message, sms_text
from connectors.signing import Secrets, basic_auth, equals_any, values

_E164 = r"^\+[1-9]\d{6,14}$"
_MAX_UNITS = 1600
#: Where Twilio's media resource redirects to.
_MEDIA_HOSTS = ("media.twiliocdn.com", "mms.twiliocdn.com", "s3-external-1.amazonaws.com")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_SETTINGS_HEADER = "x-twilio-webhooks-signature-settings"
_HASHES = {"HMAC_SHA1": hashlib.sha1, "HMAC_SHA256": hashlib.sha256}


class TwilioSmsSettings(PluginSettings):
    """[inboxes.<name>] connector = "sms_twilio" """

    account_sid: str = Field(pattern=r"^AC[0-9a-zA-Z]{2,64}$")
    #: One token, or primary and secondary while they are rotated.
    auth_token: Secrets
    #: What signs webhooks in place of the token, where the account has such a key.
    shared_key: Secrets | None = None
    number: str = Field(pattern=_E164)
    api_url: str = "https://api.twilio.com"


class TwilioSms(Connector):
    """A phone number at Twilio."""

    name = "sms_twilio"
    channel = Channel.SMS
    settings_model = TwilioSmsSettings
    capabilities = Capabilities(
        kinds_in=sms_message.FILES | {Kind.TEXT, Kind.EVENT},
        kinds_out=frozenset({Kind.TEXT, Kind.IMAGE}),
        evidence=("sms",),
        receipts=True,
        opt_out=True,
    )

    settings: TwilioSmsSettings

    # In

    def verify(self, request: WebhookRequest) -> None:
        given = request.header("x-twilio-signature")
        if not given:
            raise SignatureError("X-Twilio-Signature is missing")
        secrets, algorithm = self._signer(request)
        pairs = self._pairs(request)
        wanted = [
            signature(secret, url, pairs, algorithm)
            for secret in secrets
            for url in self._urls(request)
        ]
        if not equals_any(given, wanted):
            raise SignatureError("X-Twilio-Signature does not match")

    def _signer(self, request: WebhookRequest) -> tuple[list[str], str]:
        """The secrets that may have signed it, and how: tokens, or what the header names."""
        stated = request.header(_SETTINGS_HEADER)
        tokens = values(self.settings.auth_token)
        if not stated:
            return tokens, "HMAC_SHA1"
        named = (part.partition("=") for part in stated.split(","))
        algorithm = next((v.strip() for k, _, v in named if k.strip() == "algorithm"), "HMAC_SHA1")
        algorithm = algorithm.upper()
        if algorithm not in _HASHES:
            raise SignatureError("the algorithm of the signature is not known")
        keys = values(self.settings.shared_key) if self.settings.shared_key else []
        return [*keys, *tokens], algorithm

    def _pairs(self, request: WebhookRequest) -> list[tuple[str, str]]:
        """What is signed besides the address: the form; of a JSON body only its digest is."""
        digests = [v for k, v in request.query if k == "bodySHA256"]
        if digests:
            if not equals_any(hashlib.sha256(request.body).hexdigest(), [digests[0]]):
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
            for query in dict.fromkeys(_encoded(pairs, way) for way in (quote_plus, quote)):
                yield urlunsplit((parts.scheme, netloc, parts.path, query, ""))

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        fields = _fields(request)
        status = fields.get("MessageStatus", "").lower()
        if status and status not in ("received", "receiving"):
            return list(self._receipts(fields, status, request))
        opted = fields.get("OptOutType", "").upper()
        message = sms_message.inbound(
            self,
            request,
            phone=fields.get("From", ""),
            external_id=fields.get("MessageSid") or fields.get("SmsSid", ""),
            text=fields.get("Body", ""),
            choice=_CHOICES.get(opted),
            confirmed=bool(opted),  # Twilio answers by itself where it names this
            account=fields.get("To", ""),
            sender_name=fields.get("ProfileName", ""),
            attachments=tuple(_media(fields)),  # Twilio states no time
        )
        return [message]

    def _receipts(
        self, fields: Mapping[str, str], status: str, request: WebhookRequest
    ) -> Iterable[Receipt]:
        state = _STATES.get(status)
        sid = fields.get("MessageSid") or fields.get("SmsSid", "")
        if state:
            reason = explained(fields.get("ErrorCode", ""), status)
            yield sms_message.receipt(self, request, sid, state, reason)

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """TwiML without an answer: what we say goes through the API, which tells how it ended."""
        return WebhookResponse(
            body='<?xml version="1.0" encoding="UTF-8"?><Response/>',
            content_type="text/xml; charset=utf-8",
        )

    # Out

    def pieces(self, message: Message) -> Sequence[Message]:
        """The text, numbered where it is long, then each picture as an MMS of its own."""
        texts = sms_message.pieces(message, _MAX_UNITS) if message.text else ()
        return [
            *(piece.model_copy(update={"attachments": ()}) for piece in texts),
            *(
                message.model_copy(
                    update={"text": "", "kind": Kind.IMAGE, "attachments": (picture,)}
                )
                for picture in message.attachments
            ),
        ]

    def send(self, message: Message) -> str:
        pictures = [a.url for a in message.attachments if a.url]
        text = sms_text.within(message.text, _MAX_UNITS)
        if not text and not pictures:
            raise RejectedError("there is neither text nor a picture with an address")
        sid = self.settings.account_sid
        form: dict[str, str | list[str]] = {
            "To": message.address.removeprefix("phone:"),
            "From": self.settings.number,
            "StatusCallback": self.context.public_url,
        }
        form |= {"Body": text} if text else {}
        form |= {"MediaUrl": pictures} if pictures else {}
        answer = http.call(
            "POST",
            f"{self.settings.api_url}/2010-04-01/Accounts/{sid}/Messages.json",
            headers=self._authorization,
            form=form,
            explain=_refusal,
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


def signature(
    secret: str, url: str, pairs: Sequence[tuple[str, str]], algorithm: str = "HMAC_SHA1"
) -> str:
    """base64 HMAC over the address and every distinct name and value, sorted."""
    signed = url + "".join(name + value for name, value in sorted(set(pairs)))
    key = secret.encode("utf-8", "surrogatepass")
    digest = hmac.new(key, signed.encode("utf-8", "surrogatepass"), _HASHES[algorithm])
    return base64.b64encode(digest.digest()).decode("ascii")


def _encoded(pairs: Sequence[tuple[str, str]], way: Any) -> str:
    return urlencode(pairs, quote_via=way, errors="surrogatepass")


def _fields(request: WebhookRequest) -> dict[str, str]:
    """The parameters, wherever the method puts them; of a repeated name the first. PayloadError."""
    if request.method == "GET":
        return dict(reversed(request.query))
    if any(name == "bodySHA256" for name, _ in request.query):
        stated = sms_message.read_json(request.body)
        if not isinstance(stated, dict):
            raise PayloadError("the body is no JSON object")
        return {name: sms_message.word(stated, name) for name in stated}
    return dict(reversed(_form(request.body)))


def _form(body: bytes) -> list[tuple[str, str]]:
    """Every pair, empty values and blanks kept: they count in the signature."""
    try:
        text = body.decode("utf-8")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise PayloadError("the body is no form") from None


def _media(fields: Mapping[str, str]) -> Iterable[Attachment]:
    count = fields.get("NumMedia", "0")
    for n in range(min(int(count[:3]), 10) if count.isascii() and count.isdigit() else 0):
        if url := fields.get(f"MediaUrl{n}"):
            yield sms_message.file(url, fields.get(f"MediaContentType{n}", ""))


_CHOICES: Mapping[str, sms_text.Choice] = {"STOP": "out", "START": "in"}
#: https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
_STATES = {
    **dict.fromkeys(("accepted", "scheduled", "queued", "sending", "sent"), Delivery.SENT),
    "delivered": Delivery.DELIVERED,
    "read": Delivery.READ,
    **dict.fromkeys(("undelivered", "failed", "canceled"), Delivery.FAILED),
}
#: https://www.twilio.com/docs/api/errors
_REASONS = {
    "21211": "the number is not valid",
    "21408": "the account may not send to that country",
    "21610": "the customer has opted out of messages from this number",
    "21611": "too many messages wait to be sent from this number",
    "21612": "this number cannot reach the customer's",
    "21614": "the number is no mobile number",
    "21617": "the text is too long",
    "30001": "too many messages wait to be sent",
    "30002": "the Twilio account is suspended",
    "30003": "the phone cannot be reached: it is off, or without a network",
    "30004": "the message was blocked, by the customer or the network",
    "30005": "the number is unknown or no longer in service",
    "30006": "the number is a landline, or its network cannot be reached",
    "30007": "the network filtered the message out",
    "30008": "the network gives no reason",
    "30010": "it costs more than the price limit",
    "30019": "the file is too large for the network",
    "30032": "this toll-free number is not verified",
    "30034": "this number is not registered for messages to the United States",
    "63024": "the recipient is not valid",
}


def explained(code: str, otherwise: str = "") -> str:
    """An error code of Twilio in words for an agent."""
    if not code.isascii() or not code.isdigit() or len(code) > 6:
        return otherwise
    return f"{_REASONS.get(code, otherwise or 'Twilio refused it')} (error {code})"


def _refusal(body: bytes) -> str:
    """What a refusal of the API says, if it is one that we know."""
    return explained(sms_message.word(sms_message.refusal(body), "code"))
