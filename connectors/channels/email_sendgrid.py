"""Email through SendGrid: Inbound Parse posts mail to us, events tell what became of ours.

Inbound:   https://www.twilio.com/docs/sendgrid/for-developers/parsing-email/setting-up-the-inbound-parse-webhook
Signature: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
Events:    https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
Send:      https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send

Both webhooks must be signed: ECDSA over timestamp and body, each webhook with a key of its own.
The signature covers the body whole, and a mail that comes again is found by its id; so a request is
good for the three days in which SendGrid repeats it, with the timestamp that it first had: a
narrower window would lose mail after an outage of ours.

Inbound Parse posts the mail itself (`Send Raw`: loses nothing) or its fields, each in a charset of
its own, named in the field `charsets`.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from chalicelib.errors import ConfigurationError, PayloadError, RetryableError, SignatureError
from chalicelib.ports import Capabilities, InboxContext, WebhookRequest
from chalicelib.schema import Delivery, Kind, Message, Raw, Receipt
from connectors import forms, http, mime_out
from connectors.charsets import decode
from connectors.forms import Form
from connectors.mail_channel import FILES, Arrival, Letter, MailboxSettings, MailConnector
from connectors.mail_fields import Piece, composed, encoded_word
from connectors.mail_parts import header_fields
from connectors.signing import Secret, equal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SIGNATURE_HEADER = "x-twilio-email-event-webhook-signature"
TIMESTAMP_HEADER = "x-twilio-email-event-webhook-timestamp"
#: SendGrid repeats for three days.
OLDEST_SECONDS = 3 * 24 * 3600
FUTURE_SECONDS = 300
_OWN_ID = "askonce_id"
_STATES = {
    "delivered": (Delivery.DELIVERED, ""),
    "bounce": (Delivery.FAILED, "it could not be delivered"),
    "dropped": (Delivery.FAILED, "SendGrid did not try to deliver it"),
    "spamreport": (Delivery.FAILED, "the recipient reported it as spam"),
}
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/=\s-]{80,600}$")]


class SendGridSettings(MailboxSettings):
    """[inboxes.<name>] connector = "email_sendgrid" """

    #: The verification keys as SendGrid shows them: of Inbound Parse's security policy and of the
    #: event webhook, and new ones beside old ones while they are replaced.
    public_key: Key | Annotated[tuple[Key, ...], Field(min_length=1, max_length=6)]
    api_key: Secret
    #: https://api.eu.sendgrid.com for EU subusers.
    api_url: str = "https://api.sendgrid.com"


class EmailSendGrid(MailConnector):
    """A mailbox at SendGrid."""

    name = "email_sendgrid"
    settings_model = SendGridSettings
    capabilities = Capabilities(
        kinds_in=frozenset({Kind.TEXT}),
        kinds_out=FILES,
        threads=True,
        evidence=("dkim",),
        receipts=True,
    )

    settings: SendGridSettings

    def __init__(self, settings: SendGridSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        keys = settings.public_key
        self._keys = [_key(key) for key in ((keys,) if isinstance(keys, str) else keys)]

    def verify(self, request: WebhookRequest) -> None:
        given, timestamp = request.header(SIGNATURE_HEADER), request.header(TIMESTAMP_HEADER)
        if not given or not timestamp:
            raise SignatureError("a header of the signature is missing")
        _demand_lately(timestamp, request.received_at.timestamp())
        try:
            signature = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            raise SignatureError("the signature is no base64") from None
        if not equal(base64.b64encode(signature), given):  # bits that mean nothing
            raise SignatureError("the signature is no base64")
        signed = timestamp.encode("ascii") + request.body
        if not any(_is_signed(key, signature, signed) for key in self._keys):
            raise SignatureError("no key made this signature")

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        content_type = (request.headers.get("content-type") or ("",))[0].strip()
        if content_type.lower().startswith("multipart/form-data"):
            form = forms.read(content_type, request.body)
            original = Raw(media_type=content_type[:300], content=request.body)
            return [self.arrived(_arrival(form, original), request)]
        events = _json(request.body)
        if not isinstance(events, list):
            raise PayloadError("the body is neither a mail nor a list of events")
        found = (self._receipt(e, request) for e in events if isinstance(e, dict))
        return list({r.id: r for r in found if r}.values())

    def _receipt(self, event: Mapping[str, Any], request: WebhookRequest) -> Receipt | None:
        """None for what says nothing: deferrals, opens, clicks, and mail that is not ours."""
        name = event.get("event")
        if not isinstance(name, str) or name not in _STATES:
            return None
        state, meaning = _STATES[name]
        said = event.get("reason") or event.get("response")
        why = f"{meaning}: {said}" if meaning and isinstance(said, str) else meaning
        known = self.own_message_id(event.get(_OWN_ID)) or event.get("smtp-id")
        if not isinstance(known, str) or not 0 < len(known) <= 900:
            return None
        return self.receipt(known, state, why, request)

    def post(self, message: Message, letter: Letter) -> str:
        answer = http.call(
            "POST",
            f"{self.settings.api_url}/v3/mail/send",
            headers={"Authorization": f"Bearer {self.settings.api_key.get_secret_value()}"},
            json=_asked(message, letter),
        )
        if answer.status != 202:  # some proxy spoke
            raise RetryableError("SendGrid's answer says nothing of the mail", uncertain=True)
        return letter.message_id


# The signature


def _key(text: str) -> "EllipticCurvePublicKey":
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    bare = re.sub(r"-----[A-Z ]+-----|\s", "", text)
    try:
        key = load_der_public_key(base64.b64decode(bare, validate=True))
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ConfigurationError("public_key must be a verification key as SendGrid shows it")
    return key


def _is_signed(key: "EllipticCurvePublicKey", signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(signature, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _demand_lately(timestamp: str, now: float) -> None:
    if len(timestamp) != 10 or not timestamp.isascii() or not timestamp.isdigit():
        raise SignatureError("the timestamp is no epoch time")
    if not -FUTURE_SECONDS <= now - int(timestamp) <= OLDEST_SECONDS:
        raise SignatureError("the timestamp is too far from now")


# The mail


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _object(text: bytes) -> dict[str, Any]:
    found = _json(text)
    return found if isinstance(found, dict) else {}


def _arrival(form: Form, original: Raw) -> Arrival:
    envelope = _object(form.content("envelope"))
    to, sender = envelope.get("to"), envelope.get("from")
    if "email" in form:
        mail = form.content("email")
        original = Raw(media_type="message/rfc822", content=mail)
    else:
        mail = _together(form)
    return Arrival(
        mime=mail,
        original=original,
        mail_from=sender if isinstance(sender, str) else None,
        recipients=[r for r in to if isinstance(r, str)] if isinstance(to, list) else (),
        dkim=_signers(form),
    )


_DKIM = re.compile(r"\s*@([0-9a-z][0-9a-z.-]{0,252})\s*:\s*(\w{1,20})\s*", re.I)


def _signers(form: Form) -> list[str]:
    """Domains whose DKIM signatures SendGrid found valid: `{@shop.example : pass}`.

    Anything else in the field, or a domain twice, and it proves nothing: whoever signs a mail
    writes the domain.
    """
    told = form.text("dkim").strip()[:2000]
    listed = told.removeprefix("{").removesuffix("}").split(",")
    found = [match for each in listed if (match := _DKIM.fullmatch(each))]
    domains = [match[1].lower() for match in found]
    if len(form.all("dkim")) != 1 or len(found) != len(listed) or len({*domains}) != len(domains):
        return []
    return [match[1].lower() for match in found if match[2].lower() == "pass"]


def _together(form: Form) -> bytes:
    """The mail of the fields that SendGrid made of it."""
    charsets = _object(form.content("charsets"))

    def text(name: str) -> str:
        charset = charsets.get(name)
        return decode(form.content(name), charset if isinstance(charset, str) else "utf-8")

    headers: list[tuple[str, str | bytes]] = list(header_fields(form.content("headers")))
    known = {name.lower() for name, _ in headers}
    for name in ("from", "to", "cc", "subject"):
        if name not in known and (value := text(name)):
            headers.append((name, encoded_word(value) if name == "subject" else value))
    return composed(headers, text("text"), text("html"), list(_pieces(form)))


def _pieces(form: Form) -> Iterable[Piece]:
    about = _object(form.content("attachment-info"))
    for field in form.fields:
        if re.fullmatch(r"attachment\d{1,3}", field.name):
            told = about.get(field.name)
            told = told if isinstance(told, dict) else {}
            name, kind, content_id = (
                str(told.get(key) or "") for key in ("filename", "type", "content-id")
            )
            yield Piece(
                name or field.file_name, kind or field.media_type, field.content, content_id
            )


# Out


def _asked(message: Message, letter: Letter) -> dict[str, Any]:
    """The letter as mail/send wants it. An empty text is refused there."""
    sender = {"email": letter.sender} | ({"name": letter.sender_name} if letter.sender_name else {})
    asked: dict[str, Any] = {
        "personalizations": [{"to": [{"email": letter.to}], "custom_args": {_OWN_ID: message.id}}],
        "from": sender,
        "subject": letter.subject,
        "content": [{"type": "text/plain", "value": letter.text or " "}],
        "headers": {"Message-ID": letter.message_id, **letter.headers},
    }
    if letter.reply_to:
        asked["reply_to"] = {"email": letter.reply_to}
    if letter.files:
        asked["attachments"] = [
            {
                "filename": mime_out.file_name(file),
                "type": "/".join(mime_out.media_type(file)),
                "content": base64.b64encode(file.content or b"").decode("ascii"),
                "disposition": "attachment",
            }
            for file in letter.files
        ]
    return asked
