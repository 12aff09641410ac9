"""SMS through Vonage: the SMS API, and the Messages API.

Inbound:   https://developer.vonage.com/en/messaging/sms/guides/inbound-sms
Receipts:  https://developer.vonage.com/en/messaging/sms/guides/delivery-receipts
Signature: https://developer.vonage.com/en/getting-started/concepts/signing-messages
Messages:  https://developer.vonage.com/en/messages/concepts/signed-webhooks
Send:      https://developer.vonage.com/en/api/sms, https://developer.vonage.com/en/api/messages

The SMS API signs every parameter, and each part of a long text comes by itself. The Messages API
signs a token that holds the body's digest: checking the token alone proves nothing of the body.
Vonage sends again for a day until it hears 200 or 204.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import Field

from chalicelib.errors import PayloadError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import (
    Connector,
    PluginSettings,
    WebhookRequest,
)
from chalicelib.schema import Channel, Delivery, Kind, Message, Part, Raw, Receipt
from connectors import hs256, http, sms_message, sms_text, vonage_proof
from connectors.signing import Secret, Secrets, basic_auth, demand_fresh, equal, equals_any, values

#: The Messages API takes no longer text, and the SMS API cuts one into parts by itself.
_MAX_UNITS = 1000


class VonageSmsSettings(PluginSettings):
    """[inboxes.<name>] connector = "sms_vonage" """

    api_key: str = Field(min_length=1)
    api_secret: Secret
    #: One, or two while they are rotated. Signed webhooks must be switched on in the dashboard.
    signature_secret: Secrets
    #: As set in the dashboard; of the SMS API only.
    signature_method: vonage_proof.Method = "sha256"
    number: str = Field(pattern=r"^\+?[0-9A-Za-z ]{3,16}$")
    #: Which API sends.
    api: Literal["sms", "messages"] = "sms"
    #: How old a signed request may be. Vonage repeats one for a day, with the old time; all of it
    #: is signed, and the store settles what comes again.
    tolerance_seconds: int = Field(default=25 * 3600, ge=1, le=25 * 3600)
    sms_url: str = "https://rest.nexmo.com"
    messages_url: str = "https://api.nexmo.com"


class VonageSms(Connector):
    """A phone number at Vonage."""

    name = "sms_vonage"
    channel = Channel.SMS
    settings_model = VonageSmsSettings
    capabilities = sms_message.TEXTS

    settings: VonageSmsSettings

    # In

    def verify(self, request: WebhookRequest) -> None:
        if request.header("authorization"):
            self._verify_token(request)
        else:
            self._verify_parameters(request)

    def _verify_parameters(self, request: WebhookRequest) -> None:
        try:
            fields = _parameters(request)
        except PayloadError as error:
            raise SignatureError(str(error)) from None
        given = fields.pop("sig", "")
        if not given:
            raise SignatureError("sig is missing")
        wanted = [
            vonage_proof.signature(secret, fields, self.settings.signature_method)
            for secret in values(self.settings.signature_secret)
        ]
        if not equals_any(given, wanted):
            raise SignatureError("sig does not match")
        if not equal(fields.get("api-key", self.settings.api_key), self.settings.api_key):
            raise SignatureError("the account is another one")
        self._demand_fresh(fields.get("timestamp", ""), request)

    def _verify_token(self, request: WebhookRequest) -> None:
        scheme, _, token = request.header("authorization").partition(" ")
        if scheme != "Bearer":
            raise SignatureError("the authorization is no bearer token")
        claims = hs256.claims(token, values(self.settings.signature_secret))
        digest = hashlib.sha256(request.body).hexdigest()
        if not equal(str(claims.get("payload_hash", "")), digest):
            raise SignatureError("payload_hash does not match")
        if not equal(str(claims.get("api_key", "")), self.settings.api_key):
            raise SignatureError("the account is another one")
        self._demand_fresh(str(claims.get("iat", "")), request)
        expires = claims.get("exp")
        if expires is not None and not (
            isinstance(expires, int) and request.received_at.timestamp() <= expires
        ):
            raise SignatureError("the token has expired")

    def _demand_fresh(self, timestamp: str, request: WebhookRequest) -> None:
        demand_fresh(timestamp, request.received_at, self.settings.tolerance_seconds)

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        if request.header("authorization"):
            return self._of_messages_api(sms_message.read_object(request.body), request)
        return self._of_sms_api(_parameters(request), request)

    def _of_sms_api(
        self, fields: Mapping[str, str], request: WebhookRequest
    ) -> list[Message | Receipt]:
        external_id = fields.get("messageId", "")
        if status := fields.get("status", ""):
            state = _STATES.get(status.lower())
            reason = _RECEIPT_REASONS.get(fields.get("err-code", ""), status)
            return [sms_message.receipt(self, request, external_id, state, reason)] if state else []
        more: dict[str, Any] = {}
        if fields.get("type") == "binary":
            more = {"kind": Kind.UNSUPPORTED, "raw": _raw(fields)}
        return [
            sms_message.inbound(
                self,
                request,
                phone=_phone(fields.get("msisdn", "")),
                external_id=external_id,
                text=fields.get("text", ""),
                account=_phone(fields.get("to", "")),
                part=_part(fields),
                sent_at=sms_message.moment(
                    fields.get("message-timestamp", ""), UTC, request.received_at
                ),
                **more,
            )
        ]

    def _of_messages_api(
        self, fields: Mapping[str, Any], request: WebhookRequest
    ) -> list[Message | Receipt]:
        external_id = sms_message.word(fields, "message_uuid")
        if status := sms_message.word(fields, "status"):
            state = _STATES.get(status.lower())
            error = fields.get("error")
            reason = sms_message.word(error, "detail", "title") if isinstance(error, dict) else ""
            reason = reason[:200] or status
            return [sms_message.receipt(self, request, external_id, state, reason)] if state else []
        if sms_message.word(fields, "channel") != "sms":
            raise PayloadError("the message is no SMS")
        more: dict[str, Any] = {}
        if sms_message.word(fields, "message_type") != "text":
            more = {"kind": Kind.UNSUPPORTED, "raw": _raw(fields)}
        return [
            sms_message.inbound(
                self,
                request,
                phone=_phone(_party(fields.get("from"))),
                external_id=external_id,
                text=sms_message.word(fields, "text"),
                account=_phone(_party(fields.get("to"))),
                sent_at=sms_message.instant(
                    sms_message.word(fields, "timestamp"), request.received_at
                ),
                **more,
            )
        ]

    # Out

    def pieces(self, message: Message) -> Sequence[Message]:
        """The text, numbered where it is long."""
        return sms_message.pieces(message, _MAX_UNITS)

    def send(self, message: Message) -> str:
        text = sms_text.within(message.text, _MAX_UNITS)
        to = message.address.removeprefix("phone:").removeprefix("+")
        sender = self.settings.number.removeprefix("+")
        if self.settings.api == "messages":
            return self._send_message(to, sender, text)
        return self._send_sms(to, sender, text, message.id)

    def _send_sms(self, to: str, sender: str, text: str, reference: str) -> str:
        form: dict[str, str | list[str]] = {
            "api_key": self.settings.api_key,
            "api_secret": self.settings.api_secret.get_secret_value(),
            "to": to,
            "from": sender,
            "text": text,
            "type": "text" if sms_text.encoding(text) == "gsm7" else "unicode",
            "status-report-req": "1",
            "callback": self.context.public_url,
            "client-ref": reference[:100],
        }
        answer = http.call("POST", f"{self.settings.sms_url}/sms/json", form=form).json()
        told = answer.get("messages")
        if not isinstance(told, list) or not told or not all(isinstance(m, dict) for m in told):
            raise RetryableError("Vonage's answer cannot be read", uncertain=True)
        refused = [status for m in told if (status := sms_message.word(m, "status")) != "0"]
        if refused and len(refused) == len(told):
            _raise(refused[0])
        if refused:  # some of its parts are on their way
            raise RejectedError("Vonage sent only a part of the text")
        return sms_message.word(told[0], "message-id") or reference

    def _send_message(self, to: str, sender: str, text: str) -> str:
        answer = http.call(
            "POST",
            f"{self.settings.messages_url}/v1/messages",
            headers=basic_auth(self.settings.api_key, self.settings.api_secret.get_secret_value()),
            json={
                "message_type": "text",
                "channel": "sms",
                "to": to,
                "from": sender,
                "text": text,
                "webhook_url": self.context.public_url,
            },
            explain=_refusal,
        ).json()
        sent = sms_message.word(answer, "message_uuid")
        if not sent:
            raise RetryableError("Vonage's answer names no message", uncertain=True)
        return sent


# The requests


def _parameters(request: WebhookRequest) -> dict[str, str]:
    """Every parameter, wherever the console puts it. PayloadError, also if one is repeated."""
    if request.method == "GET":
        pairs = list(request.query)
    elif request.body.lstrip()[:1] == b"{":
        pairs = _json_pairs(request.body)
    else:
        pairs = _form_pairs(request.body)
    fields = dict(pairs)
    if len(fields) != len(pairs):  # which of them was signed cannot be known
        raise PayloadError("a parameter is repeated")
    return fields


def _form_pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        text = body.decode("utf-8")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError:
        raise PayloadError("the body is no form") from None


def _json_pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        raise PayloadError("the body is no JSON") from None
    pairs = []
    for name, value in found:
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30
        if not isinstance(value, str) and not whole:
            raise PayloadError("a parameter is no text")
        pairs.append((name, str(value)))
    return pairs


def _part(fields: Mapping[str, str]) -> Part | None:
    if fields.get("concat") != "true":
        return None
    number, total = (fields.get(name, "") for name in ("concat-part", "concat-total"))
    if not all(n.isascii() and n.isdigit() and len(n) < 4 for n in (number, total)):
        raise PayloadError("the part of a longer message has no number")
    shared = f"{fields.get('to', '')} {fields.get('concat-ref', '')}"
    part = sms_message.made(lambda: Part(of=shared, number=int(number), total=int(total)))
    if part.number > part.total:
        raise PayloadError("the part of a longer message has too high a number")
    return part if part.total > 1 else None


def _phone(number: str) -> str:
    """With a plus, unless the sender is a name."""
    digits = number.removeprefix("+").removeprefix("00")
    return f"+{digits}" if digits.isascii() and digits.isdigit() else number


def _party(stated: Any) -> str:
    """A number, or an object that holds one, as older versions have it."""
    if isinstance(stated, dict):
        return sms_message.word(stated, "number", "id")
    return sms_message.word({"stated": stated}, "stated")


def _raw(fields: Mapping[str, Any]) -> Raw:
    return Raw(media_type="application/json", content=json.dumps(fields).encode())


# What became of what we sent

_STATES = {
    **dict.fromkeys(("submitted", "accepted", "buffered"), Delivery.SENT),
    "delivered": Delivery.DELIVERED,
    "read": Delivery.READ,
    **dict.fromkeys(("expired", "failed", "rejected", "undeliverable"), Delivery.FAILED),
}
_RECEIPT_REASONS = {
    "1": "the network gives no reason",
    "2": "the phone is off or without a network",
    "3": "the number is no longer in service",
    "4": "the customer has barred messages",
    "5": "the number was moved to another network, which is not known",
    "6": "the network took it for spam",
    "7": "the phone was busy",
    "8": "the network had a fault",
    "9": "the number is not valid",
    "10": "the message is not valid",
    "11": "there is no route to this number",
    "12": "the phone cannot be reached",
    "13": "the customer is under the age for this content",
    "14": "the customer has opted out, or the network blocks the sender",
    "15": "the customer's prepaid account is empty",
    "99": "the network gives no reason",
}
#: Status of the SMS API's answer -> in words. https://developer.vonage.com/en/messaging/sms/guides/troubleshooting-sms
_REFUSALS = {
    "2": "a parameter is missing",
    "3": "a parameter is not valid",
    "4": "api_key or api_secret is wrong",
    "6": "the message is not valid",
    "7": "the number is barred: the customer has opted out, or Vonage blocks it",
    "8": "the account is barred",
    "9": "the account has no credit left",
    "11": "the account may not use this API",
    "15": "the sender is not allowed there",
    "22": "the network is not known",
    "23": "the callback address is not valid",
    "29": "the number is not on the list of test numbers",
    "33": "the number has no service",
}


def _raise(status: str) -> None:
    if status == "1":
        raise RetryableError("Vonage takes fewer messages a second", retry_after_seconds=2)
    if status == "5":
        raise RetryableError("Vonage had a fault of its own")
    raise RejectedError(f"{_REFUSALS.get(status, 'Vonage refused it')} (status {status[:6]})")


def _refusal(body: bytes) -> str:
    """The title of a refusal of the Messages API."""
    title = sms_message.word(sms_message.refusal(body), "title")
    return f"Vonage says {title[:80]}" if title.isascii() and title.isprintable() and title else ""
