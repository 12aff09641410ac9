"""Web chat: our own channel, hosted by us, read by the widget in webchat_widget.js.

docs/webchat.md describes the protocol. In short, below /webchat/<inbox>:

    POST session     {identity?, token?}   -> {token, visitor, expires_at}
    POST messages    {client_id, text}     -> {id, answer?}           Authorization: Bearer <token>
    GET  messages    ?after=<seq>&wait=<s> -> {messages, after}       Authorization: Bearer <token>
    GET  widget.js

A token is a JWT of ours (https://www.rfc-editor.org/rfc/rfc7519), bound to the inbox, the visitor
and the origin, and lives for minutes; an expired one is exchanged for a fresh one of the same
visitor. `identity` is a JWT that your own site's server signs for the customer who is logged in:
what it says is verified evidence. It is never a URL parameter, where logs would keep it.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from chalicelib.errors import NotFoundError, PayloadError, SignatureError
from chalicelib.ports import (
    Capabilities,
    FeedEntry,
    HostedConnector,
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
    digest,
    message_id,
)
from connectors.mime import safe_name
from connectors.signing import Secret, Secrets, values

_JSON = "application/json; charset=utf-8"
_RENEWABLE_SECONDS = 90 * 24 * 3600
_MAX_TEXT = 8000
_MAX_FILES = 5


class WebChatSettings(PluginSettings):
    """[inboxes.<name>] connector = "webchat" """

    #: Signs the visitors' tokens; at least 32 characters.
    token_secret: Secrets
    #: Where the widget may be embedded: exact origins, such as https://shop.example.
    origins: tuple[str, ...] = Field(min_length=1)
    #: Shared with your own site's server, which signs identities with it; as long.
    identity_secret: Secret | None = None
    token_minutes: int = Field(default=30, ge=1, le=24 * 60)

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
            if not origin.startswith(("https://", "http://")) or origin.count("/") != 2:
                raise ValueError(f'"{origin}" is no origin: https://host, without a path')
        return origins


class _Session(BaseModel):
    model_config = ConfigDict(extra="ignore")
    identity: str | None = Field(default=None, max_length=4096)
    token: str | None = Field(default=None, max_length=4096)


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str = Field(default="", max_length=500)
    media_type: str = Field(default="application/octet-stream", max_length=100)
    content: str = Field(max_length=800_000)


class _Said(BaseModel):
    """What the widget posts."""

    model_config = ConfigDict(extra="ignore")
    #: The widget's own id of the line, the same when it tries again.
    client_id: str = Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    text: str = Field(default="", max_length=_MAX_TEXT)
    files: list[_File] = Field(default=[], max_length=_MAX_FILES)
    sent_at: datetime | None = None


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
    )
    max_body_bytes = 1024 * 1024

    settings: WebChatSettings

    # Who is it

    def reader(self, request: WebhookRequest) -> str:
        return f"webchat:{self._claims(request)['sub']}"

    def verify(self, request: WebhookRequest) -> None:
        self._claims(request)

    def _claims(self, request: WebhookRequest) -> dict[str, Any]:
        """The token's claims. SignatureError."""
        scheme, _, token = request.header("authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise SignatureError("there is no token")
        claims = self._decoded(token, request.received_at)
        origin = request.header("origin")
        if origin and origin != claims.get("org"):
            raise SignatureError("the token belongs to another origin")
        return claims

    def _decoded(self, token: str, now: datetime, grace_seconds: int = 0) -> dict[str, Any]:
        for secret in values(self.settings.token_secret):
            claims = _verified(token, secret, self._audience)
            if claims is not None:
                break
        else:
            raise SignatureError("the token is not ours")
        if not isinstance(claims.get("sub"), str) or not isinstance(claims.get("exp"), int):
            raise SignatureError("the token is not ours")
        if now.timestamp() > claims["exp"] + grace_seconds:
            raise SignatureError("the token has expired")
        return claims

    @property
    def _audience(self) -> str:
        return f"askonce:{self.context.name}"

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
                headers={"Cache-Control": "public, max-age=300"},
            )
        raise NotFoundError(f"web chat has no page {name}")

    def _session(self, request: WebhookRequest) -> WebhookResponse:
        """A token: for a new visitor, for the one of an older token, or for a known customer."""
        origin = request.header("origin")
        if origin not in self.settings.origins:
            raise SignatureError("the origin is not on the inbox's list")
        try:
            asked = _Session.model_validate_json(request.body or b"{}")
        except ValidationError:
            raise SignatureError("the session request is malformed") from None
        claims = self._visitor(asked, origin, request.received_at)
        now = int(request.received_at.timestamp())
        claims |= {"exp": now + self.settings.token_minutes * 60, "iat": now}
        return _json_response(
            {
                "token": _signed(claims, values(self.settings.token_secret)[0]),
                "visitor": claims["sub"],
                "expires_at": datetime.fromtimestamp(claims["exp"], UTC).isoformat(),
            }
        )

    def _visitor(self, asked: _Session, origin: str, now: datetime) -> dict[str, Any]:
        own = {"aud": self._audience, "org": origin}
        if asked.identity:
            known = self._identity(asked.identity, now)
            # Of the customer's id, so that the same customer has one chat on all devices.
            visitor = digest(self._audience, str(known["sub"]))
            return own | {"sub": f"c{visitor}", "known": known}
        if asked.token:
            before = self._decoded(asked.token, now, grace_seconds=_RENEWABLE_SECONDS)
            if before.get("org") != origin or "known" in before:
                raise SignatureError("the token cannot be renewed here")
            return own | {"sub": before["sub"]}
        return own | {"sub": f"v{secrets.token_hex(16)}"}

    def _identity(self, token: str, now: datetime) -> dict[str, Any]:
        """What your site's server signed about its customer: sub, and email or phone if known."""
        if self.settings.identity_secret is None:
            raise SignatureError("identities are not set up for this inbox")
        claims = _verified(token, self.settings.identity_secret.get_secret_value(), None)
        expires = claims.get("exp") if claims else None
        if not claims or not claims.get("sub") or not isinstance(expires, int):
            raise SignatureError("the identity is not signed by the site")
        if now.timestamp() > expires:
            raise SignatureError("the identity has expired")
        return {k: str(claims[k])[:256] for k in ("sub", "email", "phone", "name") if claims.get(k)}

    # In

    def parse(self, request: WebhookRequest) -> list[Message]:
        claims = self._claims(request)
        try:
            said = _Said.model_validate_json(request.body)
            files = tuple(_attachment(f) for f in said.files)
        except ValueError as error:  # ValidationError, and whatever is wrong with base64
            what = error.errors()[0]["loc"] if isinstance(error, ValidationError) else "files"
            raise PayloadError(f"the message is malformed: {what}") from None
        if not said.text.strip() and not files:
            raise PayloadError("the message is empty")
        address = f"webchat:{claims['sub']}"
        known = claims.get("known", {})
        try:
            message = Message(
                id=message_id(self.context.name, address, said.client_id),
                direction=Direction.INBOUND,
                channel=Channel.WEBCHAT,
                connector=self.name,
                inbox=self.context.name,
                external_id=said.client_id,
                address=address,
                account=str(claims.get("org", "")),
                sender_name=str(known.get("name", "")),
                evidence=tuple(_evidence(address, known)),
                kind=Kind.TEXT if said.text.strip() else _kind(files),
                text=said.text,
                attachments=files,
                sent_at=request.received_at,  # a visitor's clock proves nothing
                received_at=request.received_at,
            )
        except ValidationError as error:
            raise PayloadError(f"the message is malformed: {error.errors()[0]['loc']}") from None
        return [message]

    # Out

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        if not messages:
            return _json_response({"error": "the message could not be read"}, status=202)
        body: dict[str, Any] = {"id": messages[0].id}
        if answer:
            body["answer"] = _line(answer)
        return _json_response(body)

    def send(self, message: Message) -> str:
        """Nothing to send: the visitor reads it from the feed, where delivering puts it."""
        return message.id

    def transcript(self, entries: Sequence[FeedEntry], after: int) -> WebhookResponse:
        lines = [{"seq": e.seq, **_line(e.message)} for e in entries]
        return _json_response({"messages": lines, "after": entries[-1].seq if entries else after})

    def response_headers(self, request: WebhookRequest) -> Mapping[str, str]:
        """CORS for exactly the configured origins: never `*`, never what the caller says it is."""
        origin = next(iter(request.headers.get("origin", ())), "")
        if origin not in self.settings.origins:
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Max-Age": "600",
        }


def _evidence(address: str, known: Mapping[str, str]) -> list[Evidence]:
    """The visitor's token proves the visitor; the site's signature proves the rest."""
    found = [Evidence(address=address, level=Level.VERIFIED, source="visitor_token")]
    for claim, prefix in (("sub", "external:"), ("email", "email:"), ("phone", "phone:")):
        if claim in known:
            value = known[claim].lower() if claim == "email" else known[claim]
            proven = Evidence(
                address=prefix + value, level=Level.VERIFIED, source="signed_identity"
            )
            found.append(proven)
    return found


def _attachment(file: _File) -> Attachment:
    content = base64.b64decode(file.content, validate=True)
    return Attachment(
        name=safe_name(file.name),
        media_type=file.media_type.lower(),
        size_bytes=len(content),
        content=content,
    )


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
        "files": [{"name": a.name, "media_type": a.media_type} for a in message.attachments],
        "at": message.sent_at.isoformat(),
    }


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


def _signed(claims: Mapping[str, Any], secret: str) -> str:
    import jwt

    return jwt.encode(dict(claims), secret, algorithm="HS256")


def _verified(token: str, secret: str, audience: str | None) -> dict[str, Any] | None:
    """The claims of a JWT if HS256 and the audience are right, else None; checks no times."""
    import jwt

    checks = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            audience=audience,
            options=checks if audience else checks | {"verify_aud": False},  # type: ignore[arg-type]
        )
    except (jwt.PyJWTError, ValueError, UnicodeError):
        return None
    return dict(claims)
