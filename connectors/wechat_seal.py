"""Who may push to an inbox: the console's token signs, its key seals.

Modes: https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Message_encryption_and_decryption_instructions.html
Always sealed: https://developer.work.weixin.qq.com/document/path/90238

Token and key may be two each while one replaces the other: a push signed or sealed with either is
taken, and ours are made with the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import Field, SecretStr

from chalicelib.errors import PayloadError, SignatureError
from chalicelib.ports import WebhookRequest, WebhookResponse
from chalicelib.schema import Message
from connectors import wechat_wire
from connectors.signing import Secrets, demand_fresh, equals_any, values

Token = Annotated[SecretStr, Field(min_length=6, max_length=32)]
#: 3 to 32 letters and digits in the console; short ones can be guessed.
Tokens = Token | Annotated[tuple[Token, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Seal:
    """The secrets of one inbox; without keys it is one in plain mode."""

    tokens: Sequence[str]
    keys: Sequence[bytes]
    #: Who the envelopes are made for: an appid or a corporation's id.
    receiver: str

    @staticmethod
    def of(tokens: Tokens, keys: Secrets | None, receiver: str) -> "Seal":
        """ConfigurationError for a key that is none."""
        opened = [wechat_wire.aes_key(key) for key in values(keys)] if keys else []
        return Seal(values(tokens), opened, receiver)

    def echo(self, request: WebhookRequest) -> WebhookResponse | None:
        """A WeChat console's probe: its echostr back, unchanged. SignatureError."""
        if request.method != "GET":
            return None
        self._demand_signature(request, "signature")
        return WebhookResponse(body=request.param("echostr"))

    def sealed_echo(self, request: WebhookRequest) -> WebhookResponse | None:
        """A WeCom console's probe: what its echostr seals. SignatureError."""
        if request.method != "GET":
            return None
        # Base64 has no blanks: one was a plus sign that somebody decoded once too often.
        echo = request.param("echostr").replace(" ", "+")
        self._demand_signature(request, "msg_signature", echo)
        try:
            return WebhookResponse(body=self._opened(echo).decode("utf-8"))
        except (PayloadError, UnicodeDecodeError):
            raise SignatureError("the echo cannot be opened") from None

    def verify(self, request: WebhookRequest) -> None:
        """SignatureError unless a console with our token sent this, sealed where it has keys."""
        if not self.keys:
            self._demand_signature(request, "signature")
            return
        try:
            envelope = _envelope(request.body)
        except PayloadError:
            raise SignatureError("there is no envelope") from None
        if not envelope:
            raise SignatureError("there is no envelope")
        self._demand_signature(request, "msg_signature", envelope)

    def _demand_signature(self, request: WebhookRequest, name: str, *more: str) -> None:
        timestamp, nonce, given = (request.param(n) for n in ("timestamp", "nonce", name))
        wanted = [wechat_wire.signature(token, timestamp, nonce, *more) for token in self.tokens]
        if not given or not nonce or not equals_any(given, wanted):
            raise SignatureError(f"{name} does not match")
        demand_fresh(timestamp, request.received_at)

    def opened(self, body: bytes) -> bytes:
        """The push itself. PayloadError."""
        return self._opened(_envelope(body)) if self.keys else body

    def _opened(self, envelope: str) -> bytes:
        for key in self.keys[:-1]:
            try:
                return wechat_wire.decrypt(envelope, key, self.receiver)
            except PayloadError:
                continue
        return wechat_wire.decrypt(envelope, self.keys[-1], self.receiver)

    def passive_text(self, answer: Message) -> WebhookResponse:
        """A text in the answer to a push, in an envelope where pushes have one."""
        at = int(answer.sent_at.timestamp())
        reply = wechat_wire.document(
            {
                "ToUserName": answer.address.split(":", 2)[2],
                "FromUserName": answer.account,
                "CreateTime": at,
                "MsgType": "text",
                "Content": answer.text,
            }
        )
        if self.keys:
            reply = self._sealed(reply, at, nonce=answer.id[-10:])
        return WebhookResponse(body=reply, content_type="application/xml; charset=utf-8")

    def _sealed(self, document: str, at: int, nonce: str) -> str:
        envelope = wechat_wire.encrypt(document.encode(), self.keys[0], self.receiver)
        return wechat_wire.document(
            {
                "Encrypt": envelope,
                "MsgSignature": wechat_wire.signature(self.tokens[0], str(at), nonce, envelope),
                "TimeStamp": at,
                "Nonce": nonce,
            }
        )


@lru_cache(maxsize=1)  # verified, and then opened: the same body twice
def _envelope(body: bytes) -> str:
    """Its text in either spelling: a robot's callbacks write `encrypt`."""
    found = wechat_wire.read(body)
    return found.get("Encrypt") or found.get("encrypt") or ""
