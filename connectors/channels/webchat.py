"""Web chat: our own channel, hosted by us, read by the widget in webchat_widget.js.

docs/webchat.md and docs/webchat.openapi.yaml describe the protocol. Below /webchat/<inbox>:

    POST session    {identity?, token?}              -> {token, visitor, expires_at}
    POST messages   {client_id, text, files}         -> {id, answer?}
    GET  messages   ?after=<seq>&wait=<s>&mark=<m>   -> {messages, after, agent, mark}
    POST uploads    {name, media_type, size_bytes}   -> {upload, url, fields, expires_at}
    POST signals    {kind: typing} or {kind: read, seq}
    GET  widget.js

All but the first and the last want `Authorization: Bearer <token>`: connectors/webchat_tokens.py.
A file is put into the bucket with a form that is signed for just this file
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingHTTPPOST.html) and then named in a
message; its key lies in the visitor's own folder, so that nobody names another one's.
"""

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from chalicelib.errors import (
    NotFoundError,
    PayloadError,
    SignatureError,
    TooLargeError,
    WebhookError,
)
from chalicelib.ports import (
    Allowance,
    Capabilities,
    FeedEntry,
    HostedConnector,
    PluginSettings,
    Presence,
    Upload,
    UploadForm,
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
    digest,
    message_id,
)
from connectors.mail_headers import safe_name
from connectors.signing import Secret, Secrets, values
from connectors.webchat_tokens import Tokens

_JSON = "application/json; charset=utf-8"
_MAX_TEXT = 8000
_MAX_FILES = 5
_UPLOAD_SECONDS = 15 * 60
#: What a visitor may send unless the inbox says otherwise: nothing that a browser would run.
FILE_TYPES = (
    "image/png", "image/jpeg", "image/gif", "image/webp", "image/heic",
    "audio/mpeg", "audio/mp4", "audio/ogg", "audio/webm",
    "video/mp4", "video/quicktime", "video/webm",
    "application/pdf", "text/plain", "text/csv",
    "application/msword", "application/vnd.ms-excel",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)  # fmt: skip
#: How many calls of the quota one call takes.
_COSTS = {"session": 2, "messages": 2, "uploads": 4, "read": 1, "signals": 1}


class WebChatSettings(PluginSettings):
    """[inboxes.<name>] connector = "webchat" """

    #: Signs the visitors' tokens; at least 32 characters.
    token_secret: Secrets
    #: Where the widget may be embedded: exact origins, such as https://shop.example.
    origins: tuple[str, ...] = Field(min_length=1)
    #: Shared with your own site's server, which signs identities with it; as long.
    identity_secret: Secret | None = None
    token_minutes: int = Field(default=30, ge=1, le=24 * 60)
    max_file_megabytes: int = Field(default=10, ge=1, le=25)
    file_types: tuple[str, ...] = FILE_TYPES
    #: Calls of one kind, per minute; messages count twice, uploads four times. The last is what
    #: one container takes for the whole inbox.
    visitor_per_minute: int = Field(default=60, ge=1)
    address_per_minute: int = Field(default=600, ge=1)
    inbox_per_minute: int = Field(default=6000, ge=1)

    @field_validator("token_secret", "identity_secret")
    @classmethod
    def _long(cls, secret: Secrets | None) -> Secrets | None:
        if secret is not None and any(len(value) < 32 for value in values(secret)):
            raise ValueError("must have at least 32 characters")
        return secret

    @field_validator("origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9.\-\[\]:]+", origin):
                raise ValueError(f'"{origin}" is no origin: https://host, lower-case, no path')
        return origins


def _number(given: Any) -> Any:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError("is no number")
    return given


#: What JSON Schema calls an integer: 3 and 3.0, and neither "3" nor true.
Whole = Annotated[int, BeforeValidator(_number)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Session(_Asked):
    identity: str | None = Field(default=None, max_length=4096)
    token: str | None = Field(default=None, max_length=4096)


class _Upload(_Asked):
    name: str = Field(default="", max_length=500)
    media_type: str = Field(max_length=100)
    size_bytes: Whole = Field(ge=1)


class _Signal(_Asked):
    kind: Literal["typing", "read"]
    seq: Whole = Field(default=0, ge=0, le=10**9)


class _File(_Asked):
    upload: str = Field(max_length=200)
    name: str = Field(default="", max_length=500)
    media_type: str = Field(max_length=100)


class _Said(_Asked):
    """What the widget posts."""

    #: The widget's own id of the line, the same when it tries again.
    client_id: str = Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    text: str = Field(default="", max_length=_MAX_TEXT)
    files: list[_File] = Field(default=[], max_length=_MAX_FILES)


A = TypeVar("A", bound=_Asked)


class WebChat(HostedConnector):
    """Chat on your own pages."""

    name = "webchat"
    channel = Channel.WEBCHAT
    settings_model = WebChatSettings
    capabilities = Capabilities(
        kinds_in=frozenset({Kind.TEXT, Kind.IMAGE, Kind.AUDIO, Kind.VIDEO, Kind.FILE}),
        kinds_out=frozenset({Kind.TEXT, Kind.IMAGE, Kind.AUDIO, Kind.VIDEO, Kind.FILE}),
        answers_within_seconds=15.0,
        resends_safely=True,
        evidence=("visitor_token", "signed_identity"),
        choices=True,
    )
    max_body_bytes = 128 * 1024

    settings: WebChatSettings

    # Who is it

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(
            inbox=self.context.name,
            secret=self.settings.token_secret,
            identity_secret=self.settings.identity_secret,
            minutes=self.settings.token_minutes,
        )

    def reader(self, request: WebhookRequest) -> str:
        return f"webchat:{self._claims(request)['sub']}"

    def verify(self, request: WebhookRequest) -> None:
        self._claims(request)

    def _claims(self, request: WebhookRequest) -> dict[str, Any]:
        """The token's claims. SignatureError."""
        scheme, _, token = request.header("authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise SignatureError("there is no token")
        claims = self._tokens.read(token, request.received_at)
        origin = request.header("origin")
        if origin and origin != claims.get("org"):
            raise SignatureError("the token belongs to another origin")
        return claims

    def allowances(self, call: str, request: WebhookRequest) -> Iterator[Allowance]:
        """The address first: whoever has no token uses up nobody else's quota."""
        limits, cost = self.settings, _COSTS.get(call, 1)
        network = _network(request.source_ip)
        yield Allowance(party=f"from {network}", per_minute=limits.address_per_minute, cost=cost)
        if call != "session":
            visitor = self.reader(request)
            yield Allowance(party=visitor, per_minute=limits.visitor_per_minute, cost=cost)
        yield Allowance(party="all", per_minute=limits.inbox_per_minute, cost=cost)

    # Pages

    def page(self, name: str, request: WebhookRequest) -> WebhookResponse:
        if request.method == "OPTIONS":
            return WebhookResponse(status=204)
        if name == "session" and request.method == "POST":
            return self._session(request)
        if name == "widget.js" and request.method == "GET":
            return WebhookResponse(
                body=_widget(),
                content_type="text/javascript; charset=utf-8",
                headers={
                    "Cache-Control": "public, max-age=300",
                    "Cross-Origin-Resource-Policy": "cross-origin",
                    "X-Content-Type-Options": "nosniff",
                },
            )
        raise NotFoundError(f"web chat has no page {name}")

    def _session(self, request: WebhookRequest) -> WebhookResponse:
        """A token: for a new visitor, for the one of an older token, or for a known customer."""
        origin = request.header("origin")
        if origin not in self.settings.origins:
            raise SignatureError("the origin is not on the inbox's list")
        asked = _asked(_Session, request.body or b"{}")
        claims = self._tokens.visitor(asked.identity, asked.token, origin, request.received_at)
        token, until = self._tokens.issue(claims, origin, request.received_at)
        told = {"token": token, "visitor": claims["sub"], "expires_at": until.isoformat()}
        return _json_response(told)

    # Files, and what happens without words

    def upload(self, request: WebhookRequest) -> Upload:
        folder = self._folder(self.reader(request))
        asked = _asked(_Upload, request.body)
        media_type = asked.media_type.lower()
        max_bytes = self.settings.max_file_megabytes * 1_000_000
        if media_type not in self.settings.file_types:
            raise WebhookError("files of this type are not taken")
        if asked.size_bytes > max_bytes:
            raise TooLargeError(f"files over {max_bytes} bytes are not taken")
        key = folder + secrets.token_hex(16)
        return Upload(key=key, media_type=media_type, max_bytes=max_bytes, seconds=_UPLOAD_SECONDS)

    def offer(self, upload: Upload, form: UploadForm) -> WebhookResponse:
        told = {"upload": upload.key, "url": form.url, "fields": dict(form.fields)}
        return _json_response(told | {"seconds": upload.seconds})

    def _folder(self, address: str) -> str:
        return f"uploads/{digest(self.context.name, address)}/"

    def signal(self, request: WebhookRequest) -> Mapping[str, str | int]:
        self.verify(request)
        asked = _asked(_Signal, request.body)
        return {"kind": asked.kind} | ({"seq": asked.seq} if asked.kind == "read" else {})

    # In

    def parse(self, request: WebhookRequest) -> list[Message]:
        claims = self._claims(request)
        address = f"webchat:{claims['sub']}"
        try:
            said = _Said.model_validate_json(request.body)
            files = tuple(self._attachment(f, address) for f in said.files)
            message = self._message(said, files, address, claims, request.received_at)
        except ValidationError as error:
            raise PayloadError(f"the message is malformed: {error.errors()[0]['loc']}") from None
        if not said.text.strip() and not files:
            raise PayloadError("the message is empty")
        return [message]

    def _message(
        self,
        said: _Said,
        files: tuple[Attachment, ...],
        address: str,
        claims: Mapping[str, Any],
        received_at: datetime,
    ) -> Message:
        known = claims.get("known", {})
        return Message(
            id=message_id(self.context.name, address, said.client_id),
            direction=Direction.INBOUND,
            channel=Channel.WEBCHAT,
            connector=self.name,
            inbox=self.context.name,
            external_id=said.client_id,
            address=address,
            account=str(claims.get("org", "")),
            sender_name=str(known.get("name", "")),
            evidence=tuple(_evidence(address, known, claims.get("was"))),
            kind=Kind.TEXT if said.text.strip() or not files else _kind(files),
            text=said.text,
            attachments=files,
            sent_at=received_at,  # a visitor's clock proves nothing
            received_at=received_at,
        )

    def _attachment(self, file: _File, address: str) -> Attachment:
        """A file by its key, if the visitor may have put one there."""
        own = re.escape(self._folder(address))
        if not re.fullmatch(own + "[0-9a-f]{32}", file.upload):
            raise PayloadError("the file is not an upload of this visitor")
        media_type = file.media_type.lower()
        if media_type not in self.settings.file_types:
            raise PayloadError("files of this type are not taken")
        return Attachment(name=safe_name(file.name), media_type=media_type, source=file.upload)

    # Out

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        if not messages:
            # Nobody sends this again by itself, and the visitor should know.
            return _json_response({"error": "the message could not be read"}, status=422)
        body: dict[str, Any] = {"id": messages[0].id}
        if answer:
            body["answer"] = _line(answer)
        return _json_response(body)

    def send(self, message: Message) -> str:
        """Nothing to send: the visitor reads it from the feed, where delivering puts it."""
        return message.id

    def transcript(
        self, entries: Sequence[FeedEntry], after: int, presence: Presence
    ) -> WebhookResponse:
        read_at = presence.read_at.isoformat() if presence.read_at else None
        return _json_response(
            {
                "messages": [{"seq": e.seq, **_line(e.message)} for e in entries],
                "after": entries[-1].seq if entries else after,
                "agent": {"typing_seconds": round(presence.typing_seconds, 1), "read_at": read_at},
                "mark": presence.mark,
            }
        )

    def response_headers(self, request: WebhookRequest) -> Mapping[str, str]:
        """CORS for exactly the configured origins: never `*`, never what the caller says it is."""
        origins = request.headers.get("origin", ())
        if len(origins) != 1 or origins[0] not in self.settings.origins:
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origins[0],
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Expose-Headers": "Retry-After",
            "Access-Control-Max-Age": "600",
        }


def _evidence(address: str, known: Mapping[str, str], was: str | None) -> Iterator[Evidence]:
    """The visitor's token proves the visitor; the site's signature proves the rest.

    A customer who was an anonymous visitor a moment ago takes along what the visitor asked, and
    leaves the visitor behind: whoever kept that token has nothing to read with it.
    """
    yield Evidence(address=address, level=Level.VERIFIED, source="visitor_token")
    for claim, prefix in (("sub", "external:"), ("email", "email:"), ("phone", "phone:")):
        if claim in known:
            value = known[claim].lower() if claim == "email" else known[claim]
            yield Evidence(address=prefix + value, level=Level.VERIFIED, source="signed_identity")
    if was:
        yield Evidence(address=f"webchat:{was}", level=Level.VERIFIED, source="continued")


_FILE_KINDS = {"image": Kind.IMAGE, "audio": Kind.AUDIO, "video": Kind.VIDEO}


def _kind(files: Sequence[Attachment]) -> Kind:
    return _FILE_KINDS.get(files[0].media_type.partition("/")[0], Kind.FILE)


def _line(message: Message) -> dict[str, Any]:
    """What a visitor sees of a message: nothing of its verdict, its contact or its ticket."""
    return {
        "id": message.id,
        "client_id": message.external_id if message.direction is Direction.INBOUND else None,
        "from": "you" if message.direction is Direction.INBOUND else "us",
        "author": message.author,
        "text": message.text,
        "files": [
            {"name": a.name, "media_type": a.media_type, "url": a.url} for a in message.attachments
        ],
        "at": message.sent_at.isoformat(),
        "choices": [choice.model_dump() for choice in message.choices],
    }


def _asked(kind: type[A], body: bytes) -> A:
    """WebhookError, which is 400: nothing here is worth keeping."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise WebhookError(f"the request is malformed: {error.errors()[0]['loc']}") from None


def _network(source_ip: str) -> str:
    """Whoever has one address of IPv6 has the whole /64."""
    try:
        address = ip_address(source_ip)
    except ValueError:
        return "nowhere"
    return str(address if address.version == 4 else ip_network((address, 64), strict=False))


def _json_response(body: Mapping[str, Any], status: int = 200) -> WebhookResponse:
    import json

    return WebhookResponse(
        status=status,
        body=json.dumps(body, ensure_ascii=False),
        content_type=_JSON,
        headers={"Cache-Control": "no-store"},
    )


def _widget() -> str:
    return Path(__file__).with_name("webchat_widget.js").read_text(encoding="utf-8")
