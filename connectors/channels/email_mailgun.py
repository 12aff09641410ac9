"""Email through Mailgun: a route forwards mail to us, events tell what became of ours.

Routes:    https://documentation.mailgun.com/docs/mailgun/user-manual/receive-forward-store/receive-http
Signature: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
Events:    https://documentation.mailgun.com/docs/mailgun/user-manual/events/event-structure
Send:      https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages

The signature covers a timestamp and a token, not the body: whoever saw one request could sign any
for as long as it is fresh. So the address must end in a secret as well. Mailgun posts the mail
itself, which loses nothing, if that address ends in `mime`; else it posts the mail taken apart,
and every header of the sender's as a field beside its own: a field that could be either proves
nothing.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from chalicelib.errors import PayloadError, RetryableError, SignatureError
from chalicelib.ports import Capabilities, InboxContext, WebhookRequest
from chalicelib.schema import Attachment, Delivery, Kind, Message, Raw, Receipt
from connectors import forms, http
from connectors.forms import Form
from connectors.mail_channel import FILES, Arrival, Letter, MailboxSettings, MailConnector
from connectors.mail_fields import Piece, composed, encoded_word, first
from connectors.mail_headers import safe_name
from connectors.mail_parts import header_fields
from connectors.signing import (
    OneBody,
    PathSecrets,
    Secret,
    Secrets,
    basic_auth,
    demand_fresh,
    demand_path_secret,
    equals_any,
    values,
)

#: Fields of Mailgun's own, in mail that it took apart; `body-plain` is always there.
_APART = ("body-plain", "body-html", "stripped-text", "attachment-count")
#: Where Mailgun keeps the files of stored mail.
_STORES = (
    "storage.mailgun.net",
    "storage.eu.mailgun.net",
    *(f"storage-{region}.api.mailgun.net" for region in ("us-east4", "us-west1", "europe-west1")),
    *(f"{name}.api.mailgun.net" for name in ("sw", "se", "so")),
)
_STATES = {
    "delivered": (Delivery.DELIVERED, ""),
    "failed": (Delivery.FAILED, "it could not be delivered"),
    "bounced": (Delivery.FAILED, "it could not be delivered"),
    "dropped": (Delivery.FAILED, "Mailgun did not try to deliver it"),
    "rejected": (Delivery.FAILED, "Mailgun did not try to deliver it"),
    "complained": (Delivery.FAILED, "the recipient reported it as spam"),
}


class MailgunSettings(MailboxSettings):
    """[inboxes.<name>] connector = "email_mailgun" """

    #: The domain at Mailgun that answers leave from.
    domain: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.-]{0,252}$")
    #: The HTTP webhook signing key, or two while one replaces the other.
    signing_key: Secrets
    #: What the route's and the events' address ends in; end it in `mime` to get the mail itself.
    path_secret: PathSecrets
    api_key: Secret
    #: https://api.eu.mailgun.net for domains in the EU.
    api_url: str = "https://api.mailgun.net"


class EmailMailgun(MailConnector):
    """A mailbox at Mailgun."""

    name = "email_mailgun"
    settings_model = MailgunSettings
    capabilities = Capabilities(
        kinds_in=frozenset({Kind.TEXT}),
        kinds_out=FILES,
        # The Message-ID is the same each time: mail programs show one of two.
        resends_safely=True,
        threads=True,
        evidence=("dkim",),
        receipts=True,
    )
    secret_in_path = True

    settings: MailgunSettings

    def __init__(self, settings: MailgunSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._one_body = OneBody()

    def verify(self, request: WebhookRequest) -> None:
        demand_path_secret(request, self.settings.path_secret)
        try:
            timestamp, token, given = _proof(request)
        except PayloadError as error:
            raise SignatureError(str(error)) from None
        demand_fresh(timestamp, request.received_at)
        if not token or not given:
            raise SignatureError("the token or the signature is missing")
        wanted = [signature(key, timestamp, token) for key in values(self.settings.signing_key)]
        if not equals_any(given, wanted):
            raise SignatureError("the signature does not match")
        self._one_body.demand(token, request.body)

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        content_type = _content_type(request)
        if _is_json(content_type):
            return list(self._event(_object(request.body).get("event-data"), request))
        form = forms.read(content_type, request.body)
        if "event" in form and not any(name in form for name in ("body-mime", *_APART)):
            return list(self._old_event(form, request))
        return [self.arrived(_arrival(form, request), request)]

    def _event(self, event: Any, request: WebhookRequest) -> Iterable[Receipt]:
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise PayloadError("event-data is missing")
        status = _dict(event.get("delivery-status"))
        about = _dict(_dict(event.get("message")).get("headers"))
        passing = event["event"] == "failed" and event.get("severity") != "permanent"
        said = status.get("message") or status.get("description") or event.get("reason")
        if not passing:
            yield from self._state(event["event"], about.get("message-id"), said, request)

    def _old_event(self, form: Form, request: WebhookRequest) -> Iterable[Receipt]:
        """As Mailgun posted them before 2018, and still does where nobody changed it."""
        headers = _pairs(form.text("message-headers") or "[]")
        known = form.text("Message-Id") or first(headers, "message-id")
        said = form.text("error") or form.text("description")
        yield from self._state(form.text("event"), known, said, request)

    def _state(
        self, event: str, known: Any, said: Any, request: WebhookRequest
    ) -> Iterable[Receipt]:
        """A receipt for a mail that the event names; opens, clicks and the like say nothing."""
        if event in _STATES and isinstance(known, str) and 0 < len(known) <= 900:
            state, meaning = _STATES[event]
            why = f"{meaning}: {said}" if isinstance(said, str) and said and meaning else meaning
            yield self.receipt(f"<{known.strip('<> ')}>", state, why, request)

    def fetch(self, attachment: Attachment) -> bytes:
        key = self.settings.api_key.get_secret_value()
        own = urlsplit(self.settings.api_url).netloc
        return http.download(
            attachment.source or "", hosts=(*_STORES, own), headers=basic_auth("api", key)
        )

    def post(self, message: Message, letter: Letter) -> str:
        content_type, body = forms.multipart(
            [
                forms.Field("to", letter.to.encode("ascii")),
                forms.Field("message", letter.mail.as_bytes(), "message.eml", "message/rfc822"),
            ]
        )
        key = self.settings.api_key.get_secret_value()
        answer = http.call(
            "POST",
            f"{self.settings.api_url}/v3/{self.settings.domain}/messages.mime",
            headers={"Content-Type": content_type, **basic_auth("api", key)},
            body=body,
        )
        if not isinstance(answer.json().get("id"), str):
            raise RetryableError("Mailgun's answer names no mail", uncertain=True)
        return letter.message_id


def signature(key: str, timestamp: str, token: str) -> str:
    """Hex HMAC-SHA256 over timestamp and token."""
    signed = (timestamp + token).encode("utf-8", "surrogatepass")
    return hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()


def _content_type(request: WebhookRequest) -> str:
    return (request.headers.get("content-type") or ("",))[0].strip()


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _proof(request: WebhookRequest) -> tuple[str, str, str]:
    """Timestamp, token and signature. PayloadError if one is there twice: which one was signed?"""
    content_type = _content_type(request)
    if _is_json(content_type):
        told = _dict(_object(request.body).get("signature"))
        proof = [told.get(name) for name in ("timestamp", "token", "signature")]
    else:
        form = forms.read(content_type, request.body)
        proof = []
        for name in ("timestamp", "token", "signature"):
            if len(form.all(name)) != 1:
                raise PayloadError(f"{name} is missing or repeated")
            proof.append(form.text(name))
    timestamp, token, given = (each if isinstance(each, str) else "" for each in proof)
    return timestamp, token, given


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PayloadError("the body is no JSON object")
    return found


def _dict(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


# The mail


def _arrival(form: Form, request: WebhookRequest) -> Arrival:
    envelope: dict[str, Any] = {
        "mail_from": form.text("sender").strip("<> ") if "sender" in form else None,
        "recipients": form.text("recipient").split(",")[:100] if "recipient" in form else (),
    }
    if "body-mime" in form:
        mail = form.content("body-mime")
        original = Raw(media_type="message/rfc822", content=mail)
        alone = len(form.all("body-mime")) == 1 and not any(name in form for name in _APART)
        headers = [(n, v.decode("utf-8", "replace")) for n, v in header_fields(mail)]
    else:
        headers = _pairs(form.text("message-headers") or "[]")
        mail = _together(form, headers)
        original = Raw(media_type=_content_type(request)[:300], content=request.body)
        alone = len(form.all("message-headers")) == 1
    dkim = _signer(headers) if alone else ()
    kept = tuple(_kept(form))
    return Arrival(mime=mail, original=original, dkim=dkim, kept_elsewhere=kept, **envelope)


def _kept(form: Form) -> Iterable[Attachment]:
    """Files of a route that has `store()` for `forward()`: they stay at Mailgun for three days."""
    try:
        listed = json.loads(form.text("attachments") or "[]")
    except (ValueError, RecursionError):
        listed = []
    for told in (
        (each for each in listed if isinstance(each, dict)) if isinstance(listed, list) else ()
    ):
        name, url, kind = (str(told.get(key) or "") for key in ("name", "url", "content-type"))
        yield Attachment(
            name=safe_name(name), source=url, media_type=kind.lower() or "application/octet-stream"
        )


def _pairs(text: str) -> list[tuple[str, str]]:
    """Mailgun's list of headers."""
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        raise PayloadError("message-headers is no list")
    pairs = [p for p in listed if isinstance(p, list) and len(p) == 2 and isinstance(p[0], str)]
    return [(name, value) for name, value in pairs if isinstance(value, str)]


def _together(form: Form, headers: list[tuple[str, str]]) -> bytes:
    """The mail of the fields that Mailgun made of it; From and Subject are fields as well."""
    known = {name.lower() for name, _ in headers}
    fields = (
        ("From", form.text("from") or form.text("sender")),
        ("Subject", encoded_word(form.text("subject"))),
    )
    headers = [*headers, *((n, v) for n, v in fields if v and n.lower() not in known)]
    return composed(headers, form.text("body-plain"), form.text("body-html"), list(_pieces(form)))


def _pieces(form: Form) -> Iterable[Piece]:
    ids = _ids_of_pieces(form)
    for field in form.fields:
        if re.fullmatch(r"attachment-\d{1,3}", field.name):
            yield Piece(field.file_name, field.media_type, field.content, ids.get(field.name, ""))


def _ids_of_pieces(form: Form) -> dict[str, str]:
    """{field: Content-ID}; the map is sometimes broken, and is only needed for pictures in HTML."""
    try:
        listed = json.loads(form.text("content-id-map") or "{}")
    except (ValueError, RecursionError):
        return {}
    return {v: k for k, v in _dict(listed).items() if isinstance(v, str)}


_SIGNING_DOMAIN = re.compile(r"(?:^|;)\s*d\s*=\s*([^;\s]+)\s*(?=;|$)")


def _signer(headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The domain whose DKIM signature Mailgun found valid, if there can be no doubt about it.

    Mailgun writes its verdict above its own Received line; what stands below came with the mail.
    It does not say whose signature it was, so there must be just one.
    """
    names = [name.lower() for name, _ in headers]
    verdict = "x-mailgun-dkim-check-result"
    once = (verdict, "dkim-signature")
    if any(names.count(name) != 1 for name in once) or "received" not in names:
        return ()
    found = dict(zip(names, (value for _, value in headers), strict=True))
    above = names.index(verdict) < names.index("received")
    domains = _SIGNING_DOMAIN.findall(found["dkim-signature"])
    passed = above and found[verdict].strip().lower() == "pass" and len(domains) == 1
    return tuple(domains) if passed else ()
