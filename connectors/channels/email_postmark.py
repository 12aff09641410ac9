"""Email through Postmark: its inbound stream posts mail to us, webhooks tell what became of ours.

Inbound:  https://postmarkapp.com/developer/webhooks/inbound-webhook
Bounces:  https://postmarkapp.com/developer/webhooks/bounce-webhook (also delivery, spam complaint)
Security: https://postmarkapp.com/support/article/800-ips-for-firewalls
Send:     https://postmarkapp.com/developer/api/email-api

Postmark signs nothing. So its webhooks' address holds a secret: a name and a password (Postmark
sends them as basic authentication), the end of the path, or both.

Switch on "Include raw email content in JSON payload": the mail itself loses nothing. Postmark
copies the sender's headers among its own; so its spam headers prove the author only if you say
that all your mail is checked (`trust_spam_tests`), since the sender could write the same.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from chalicelib.errors import PayloadError, RejectedError, RetryableError, SignatureError
from chalicelib.ports import Capabilities, WebhookRequest
from chalicelib.schema import Delivery, Kind, Message, Raw, Receipt
from connectors import http, mime_out
from connectors.mail_channel import FILES, Arrival, Letter, MailboxSettings, MailConnector
from connectors.mail_fields import Piece, composed, encoded_word, first
from connectors.signing import (
    PathSecrets,
    Secret,
    basic_auth,
    demand_path_secret,
    equals_any,
)

_OWN_ID = "askonce_id"
_Login = Annotated[SecretStr, Field(min_length=16)]
#: Postmark's types of bounces that are none: the mail is on its way, or a machine answered it.
#: https://postmarkapp.com/developer/api/bounce-api#bounce-types
_NO_FAILURES = {"Transient", "AutoResponder", "Subscribe", "Unsubscribe", "AddressChange"}
_NO_FAILURES |= {"OpenRelayTest"}


class PostmarkSettings(MailboxSettings):
    """[inboxes.<name>] connector = "email_postmark" """

    #: `name:password` as it stands in the webhooks' addresses: https://name:password@...
    basic_auth: _Login | Annotated[tuple[_Login, ...], Field(min_length=1)] | None = None
    #: What the webhooks' addresses end in.
    path_secret: PathSecrets | None = Field(None, validate_default=True)
    server_token: Secret
    #: The author is proven where Postmark's SpamAssassin says so. Only if it checks all your mail.
    trust_spam_tests: bool = False
    api_url: str = "https://api.postmarkapp.com"

    @field_validator("basic_auth")
    @classmethod
    def _login(cls, logins: Any) -> Any:
        for login in logins if isinstance(logins, tuple) else (logins,):
            if login and not all(login.get_secret_value().partition(":")):
                raise ValueError("must be name:password")
        return logins

    @field_validator("path_secret")
    @classmethod
    def _one_of_them(cls, secrets: Any, info: ValidationInfo) -> Any:
        if secrets is None and info.data.get("basic_auth") is None:
            raise ValueError("is missing: Postmark signs nothing, so set this or basic_auth")
        return secrets


class EmailPostmark(MailConnector):
    """A mailbox at Postmark."""

    name = "email_postmark"
    settings_model = PostmarkSettings
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

    settings: PostmarkSettings

    def verify(self, request: WebhookRequest) -> None:
        """Every proof that is configured is demanded."""
        if self.settings.path_secret is not None:
            demand_path_secret(request, self.settings.path_secret)
        if self.settings.basic_auth is not None:
            logins = self.settings.basic_auth
            several = logins if isinstance(logins, tuple) else (logins,)
            wanted = [_authorization(login) for login in several]
            if not equals_any(request.header("authorization"), wanted):
                raise SignatureError("the name and the password are wrong or missing")

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        told = _object(request.body)
        if "RecordType" in told:
            return list(self._receipts(told, request))
        if not isinstance(told.get("FromFull"), dict) and not isinstance(told.get("RawEmail"), str):
            raise PayloadError("the body is neither a mail nor an event")
        return [self.arrived(self._arrival(told, request), request)]

    def _receipts(self, told: dict[str, Any], request: WebhookRequest) -> Iterable[Receipt]:
        """Nothing for opens, clicks and the like."""
        match told["RecordType"]:
            case "Delivery":
                state, why = Delivery.DELIVERED, ""
            case "Bounce" if _text(told, "Type") not in _NO_FAILURES:
                state, why = Delivery.FAILED, f"{_text(told, 'Description')} {_details(told)}"
            case "SpamComplaint":
                state, why = Delivery.FAILED, "the recipient reported it as spam"
            case _:
                return
        metadata = told.get("Metadata")
        own = metadata.get(_OWN_ID) if isinstance(metadata, dict) else None
        known = self.own_message_id(own) or _text(told, "MessageID")
        if not 0 < len(known) <= 900:
            raise PayloadError("MessageID is missing")
        yield self.receipt(known, state, why, request)

    def _arrival(self, told: dict[str, Any], request: WebhookRequest) -> Arrival:
        headers = _headers(told)
        whole = _text(told, "RawEmail")
        if whole and "\ufffd" not in whole:  # else it was in another charset, and is spoilt
            mail = whole.encode("utf-8", "surrogatepass")
            original = Raw(media_type="message/rfc822", content=mail)
        else:
            mail = _together(told, headers)
            original = Raw(media_type="application/json", content=request.body)
        return_path = first(headers, "return-path") or None
        return Arrival(
            mime=mail,
            original=original,
            mail_from=return_path.strip("<> ") if return_path else None,
            recipients=_recipients(told),
            dkim=self._signer(told, headers),
        )

    def _signer(self, told: dict[str, Any], headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """The author's domain, if SpamAssassin found a valid signature of just that domain."""
        tests = [value for name, value in headers if name.lower() == "x-spam-tests"]
        if not self.settings.trust_spam_tests or len(tests) != 1:
            return ()
        passed = "DKIM_VALID_AU" in {t.strip() for t in tests[0].split(",")}
        author = _text(_full(told.get("FromFull")), "Email")
        return (author.rpartition("@")[2],) if passed and author else ()

    def post(self, message: Message, letter: Letter) -> str:
        answer = http.call(
            "POST",
            f"{self.settings.api_url}/email",
            headers={
                "X-Postmark-Server-Token": self.settings.server_token.get_secret_value(),
                "Accept": "application/json",
            },
            json=_asked(message, letter),
        ).json()
        if answer.get("ErrorCode") != 0:
            code = answer.get("ErrorCode")
            if isinstance(code, int):
                raise RejectedError(f"Postmark refused the mail (error {code})")
            raise RetryableError("Postmark's answer says nothing of the mail", uncertain=True)
        return letter.message_id


def _authorization(login: SecretStr) -> str:
    name, _, password = login.get_secret_value().partition(":")
    return basic_auth(name, password)["Authorization"]


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PayloadError("the body is no JSON object")
    return found


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    return value if isinstance(value, str) else ""


def _listed(told: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = told.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _full(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _details(told: dict[str, Any]) -> str:
    details = _text(told, "Details")
    return f"({details})" if details else ""


# The mail


def _headers(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(_text(h, "Name"), _text(h, "Value")) for h in _listed(told, "Headers")]


def _recipients(told: dict[str, Any]) -> list[str]:
    """The envelope's; else those of the header: Postmark names the mailbox among them."""
    if original := _text(told, "OriginalRecipient"):
        return [original]
    keys = ("ToFull", "CcFull", "BccFull")
    return [_text(each, "Email") for key in keys for each in _listed(told, key)][:50]


def _together(told: dict[str, Any], headers: list[tuple[str, str]]) -> bytes:
    """The mail of the fields that Postmark made of it."""
    own = [
        ("From", _people([_full(told.get("FromFull"))])),
        ("To", _people(_listed(told, "ToFull"))),
        ("Cc", _people(_listed(told, "CcFull"))),
        ("Subject", encoded_word(_text(told, "Subject"))),
        ("Date", _text(told, "Date")),
    ]
    known = {name.lower() for name, _ in headers}
    added = [(name, value) for name, value in own if value and name.lower() not in known]
    pieces = [_piece(each) for each in _listed(told, "Attachments")]
    return composed([*headers, *added], _text(told, "TextBody"), _text(told, "HtmlBody"), pieces)


def _people(people: Sequence[dict[str, Any]]) -> str:
    return ", ".join(
        f"{encoded_word(_text(p, 'Name'))} <{_text(p, 'Email')}>".strip()
        for p in people
        if _text(p, "Email")
    )


def _piece(told: dict[str, Any]) -> Piece:
    """A file. The console's test button sends `Data` for `Content`."""
    encoded = _text(told, "Content") or _text(told, "Data")
    try:
        content = base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        raise PayloadError("a file is no base64") from None
    content_id = _text(told, "ContentID")
    return Piece(_text(told, "Name"), _text(told, "ContentType"), content, content_id)


# Out


def _asked(message: Message, letter: Letter) -> dict[str, Any]:
    """The letter as Postmark wants it: without X-PM-KeepID it would make its own Message-ID."""
    headers = {"Message-ID": letter.message_id, "X-PM-KeepID": "true", **letter.headers}
    name = letter.sender_name.replace("\\", "\\\\")
    asked: dict[str, Any] = {
        "From": f'"{name}" <{letter.sender}>' if name else letter.sender,
        "To": letter.to,
        "Subject": letter.subject,
        "TextBody": letter.text or " ",
        "Headers": [{"Name": key, "Value": value} for key, value in headers.items()],
        "Metadata": {_OWN_ID: message.id},
        "TrackOpens": False,
        "TrackLinks": "None",
    }
    if letter.reply_to:
        asked["ReplyTo"] = letter.reply_to
    if letter.files:
        asked["Attachments"] = [
            {
                "Name": mime_out.file_name(file),
                "ContentType": "/".join(mime_out.media_type(file)),
                "Content": base64.b64encode(file.content or b"").decode("ascii"),
            }
            for file in letter.files
        ]
    return asked
