"""WeChat Official Account (公众号, 服务号).

Handshake, delivery: https://developers.weixin.qq.com/doc/offiaccount/Basic_Information/Access_Overview.html
Messages:            https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Receiving_standard_messages.html
Events:              https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Receiving_event_pushes.html
Passive reply:       https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Passive_user_reply_message.html
Service message:     https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Service_Center_messages.html
Token:               https://developers.weixin.qq.com/doc/offiaccount/Basic_Information/getStableAccessToken.html

No answer within five seconds: WeChat cuts the line and pushes again, three times in all. Any answer
but `success`, nothing, or a right reply shows the customer that the account is out of order. In
plain mode the signature does not cover the body; the mode is set per inbox, never read off it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pydantic import Field, SecretStr, model_validator

from chalicelib.errors import (
    DeliveryError,
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import (
    Capabilities,
    Connector,
    InboxContext,
    PluginSettings,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import (
    Attachment,
    Channel,
    Direction,
    Event,
    Evidence,
    Kind,
    Level,
    Link,
    Location,
    Message,
    Raw,
    message_id,
)
from connectors import http, wechat_wire
from connectors.signing import Secret, demand_fresh, equal

SUCCESS = WebhookResponse(body="success")


class WeChatSettings(PluginSettings):
    """[inboxes.<name>] connector = "wechat" """

    app_id: str = Field(pattern=r"^wx[0-9a-zA-Z]{4,32}$")
    app_secret: Secret
    #: 3 to 32 letters and digits in WeChat's console; short ones can be guessed.
    token: SecretStr = Field(min_length=6, max_length=32)
    mode: Literal["plain", "compatible", "safe"] = "safe"
    #: The 43 characters of the console; needed unless the mode is plain.
    encoding_aes_key: Secret | None = None
    api_url: str = "https://api.weixin.qq.com"

    @model_validator(mode="after")
    def _key_for_envelope(self) -> "WeChatSettings":
        if self.mode != "plain" and self.encoding_aes_key is None:
            raise ValueError(f"encoding_aes_key is missing: mode {self.mode} needs it")
        return self


class WeChat(Connector):
    """An Official Account's pushes and its customer-service messages."""

    name = "wechat"
    channel = Channel.WECHAT
    settings_model = WeChatSettings
    capabilities = Capabilities(
        kinds_in=frozenset(Kind),
        kinds_out=frozenset({Kind.TEXT}),
        answers_within_seconds=4.8,
        evidence=("wechat",),
    )
    max_body_bytes = 64 * 1024

    settings: WeChatSettings

    def __init__(self, settings: WeChatSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._key = (
            wechat_wire.aes_key(settings.encoding_aes_key.get_secret_value())
            if settings.encoding_aes_key and settings.mode != "plain"
            else b""
        )

    # In

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        """The console's probe: its echostr back, unchanged, if the signature is right."""
        if request.method != "GET":
            return None
        self._demand_signature(request, "signature")
        return WebhookResponse(body=request.param("echostr"))

    def verify(self, request: WebhookRequest) -> None:
        if self.settings.mode == "plain":
            self._demand_signature(request, "signature")
            return
        try:
            envelope = wechat_wire.fields(request.body).get("Encrypt", "")
        except PayloadError:
            raise SignatureError("there is no envelope") from None
        if not envelope:
            raise SignatureError("there is no envelope")
        self._demand_signature(request, "msg_signature", envelope)

    def _demand_signature(self, request: WebhookRequest, name: str, *more: str) -> None:
        timestamp, nonce = request.param("timestamp"), request.param("nonce")
        given, token = request.param(name), self.settings.token.get_secret_value()
        wanted = wechat_wire.signature(token, timestamp, nonce, *more)
        if not given or not nonce or not equal(given, wanted):
            raise SignatureError(f"{name} does not match")
        demand_fresh(timestamp, request.received_at)

    def parse(self, request: WebhookRequest) -> list[Message]:
        document = request.body
        if self._key:
            envelope = wechat_wire.fields(document).get("Encrypt", "")
            document = wechat_wire.decrypt(envelope, self._key, self.settings.app_id)
        return [self._message(wechat_wire.fields(document), document, request.received_at)]

    def _message(
        self, fields: Mapping[str, str], document: bytes, received_at: datetime
    ) -> Message:
        openid, kind = fields.get("FromUserName", ""), fields.get("MsgType", "").lower()
        if not openid or not kind:
            raise PayloadError("FromUserName or MsgType is missing")
        address = f"wechat:{self.settings.app_id}:{openid}"
        external_id = _external_id(fields)
        try:
            translated = _KINDS[kind](fields) if kind in _KINDS else _unsupported(document)
            return Message(
                id=message_id(self.context.name, address, external_id),
                direction=Direction.INBOUND,
                channel=Channel.WECHAT,
                connector=self.name,
                inbox=self.context.name,
                external_id=external_id,
                address=address,
                account=fields.get("ToUserName", ""),
                evidence=(Evidence(address=address, level=Level.VERIFIED, source="wechat"),),
                sent_at=_moment(fields.get("CreateTime", ""), received_at),
                received_at=received_at,
                **translated,
            )
        except ValueError as error:
            raise PayloadError(f"a field of the {kind} message is malformed") from error

    # Out

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """`success`, or the passive reply, in an envelope where the mode wants one."""
        if answer is None:
            return SUCCESS
        at = int(answer.sent_at.timestamp())
        reply = wechat_wire.document(
            {
                "ToUserName": answer.address.rsplit(":", 1)[1],
                "FromUserName": answer.account,
                "CreateTime": at,
                "MsgType": "text",
                "Content": answer.text,
            }
        )
        if self._key:
            reply = self._sealed(reply, str(at), nonce=answer.id[-10:])
        return WebhookResponse(body=reply, content_type="application/xml; charset=utf-8")

    def _sealed(self, document: str, timestamp: str, nonce: str) -> str:
        envelope = wechat_wire.encrypt(document.encode(), self._key, self.settings.app_id)
        token = self.settings.token.get_secret_value()
        return wechat_wire.document(
            {
                "Encrypt": envelope,
                "MsgSignature": wechat_wire.signature(token, timestamp, nonce, envelope),
                "TimeStamp": int(timestamp),
                "Nonce": nonce,
            }
        )

    def send(self, message: Message) -> str:
        """A customer-service message. WeChat gives no id for it: ours is returned."""
        openid = message.address.rsplit(":", 1)[1]
        answer = self._call(lambda client: client.message.send_text(openid, message.text))
        if not isinstance(answer, dict):  # wechatpy takes anything that is no JSON for success
            raise RetryableError("WeChat's answer cannot be read", uncertain=True)
        return message.id

    def fetch(self, attachment: Attachment) -> bytes:
        """A temporary file by its MediaId; WeChat keeps it for three days."""
        import requests

        def download(client: Any) -> bytes:
            answer = client.media.download(attachment.source)
            if not isinstance(answer, requests.Response):
                raise RejectedError("WeChat has no such file any more")
            return http.bounded(answer.iter_content(65536), http.MAX_DOWNLOAD_BYTES)

        return cast(bytes, self._call(download))

    def _call(self, act: Callable[[Any], Any]) -> Any:
        """Call through wechatpy's client with the shared token, fetched anew once if refused."""
        from wechatpy.exceptions import WeChatClientException

        token = self._token()
        try:
            return self._try(act, token)
        except WeChatClientException as error:
            if error.errcode not in _TOKEN_ERRORS:
                raise _delivery_error(error) from None
        try:
            return self._try(act, self._token(stale=token))
        except WeChatClientException as error:
            raise _delivery_error(error) from None

    def _try(self, act: Callable[[Any], Any], token: str) -> Any:
        import requests
        from wechatpy import WeChatClient

        # auto_retry recurses without end on a token that stays wrong (wechatpy issue 629).
        client = WeChatClient(
            self.settings.app_id,
            "",
            access_token=token,
            timeout=(http.CONNECT_SECONDS, http.READ_SECONDS),
            auto_retry=False,
        )
        client.API_BASE_URL = f"{self.settings.api_url}/cgi-bin/"
        try:
            return act(client)
        except requests.exceptions.ConnectTimeout:
            raise RetryableError("WeChat does not answer") from None
        except requests.exceptions.RequestException as error:
            sent = "NewConnectionError" not in repr(error)
            raise RetryableError("the line to WeChat broke", uncertain=sent) from None
        except (ValueError, TypeError, RecursionError):  # an errcode that is no number, and such
            raise RetryableError("WeChat's answer cannot be read", uncertain=True) from None

    def _token(self, stale: str = "") -> str:
        def fetch() -> tuple[str, float]:
            answer = http.call(
                "POST",
                f"{self.settings.api_url}/cgi-bin/stable_token",
                json={
                    "grant_type": "client_credential",
                    "appid": self.settings.app_id,
                    "secret": self.settings.app_secret.get_secret_value(),
                    "force_refresh": bool(stale),
                },
                repeatable=True,
            ).json()
            token, seconds = answer.get("access_token"), answer.get("expires_in")
            if not isinstance(token, str):
                code = answer.get("errcode")
                raise _by_code(code if isinstance(code, int) else -1)
            return token, float(seconds if isinstance(seconds, int) else 7200)

        return self.context.tokens.get(f"wechat:{self.settings.app_id}", fetch, stale=stale)


def _external_id(fields: Mapping[str, str]) -> str:
    """MsgId; events have none, and two of them may happen in one second."""
    if fields.get("MsgId"):
        return fields["MsgId"]
    parts = ("FromUserName", "CreateTime", "Event", "EventKey")
    return "-".join(fields.get(p, "") for p in parts)


def _moment(epoch: str, otherwise: datetime) -> datetime:
    if epoch.isascii() and epoch.isdigit() and len(epoch) <= 11:
        return datetime.fromtimestamp(int(epoch), UTC)
    return otherwise


def _file(fields: Mapping[str, str], media_type: str, **more: Any) -> Attachment:
    if not fields.get("MediaId"):
        raise PayloadError("MediaId is missing")
    return Attachment(media_type=media_type, source=fields["MediaId"], **more)


def _image(fields: Mapping[str, str]) -> dict[str, Any]:
    return {"kind": Kind.IMAGE, "attachments": (_file(fields, "image/jpeg"),)}


_AUDIO_TYPES = {"amr": "audio/amr", "speex": "audio/speex"}


def _voice(fields: Mapping[str, str]) -> dict[str, Any]:
    media_type = _AUDIO_TYPES.get(fields.get("Format", "").lower(), "audio/amr")
    transcript = fields.get("Recognition") or None
    return {
        "kind": Kind.AUDIO,
        "attachments": (_file(fields, media_type, transcript=transcript),),
    }


def _video(fields: Mapping[str, str]) -> dict[str, Any]:
    return {"kind": Kind.VIDEO, "attachments": (_file(fields, "video/mp4"),)}


def _document(fields: Mapping[str, str]) -> dict[str, Any]:
    """Undocumented in older pages: Title, Description, FileKey, FileMd5, FileTotalLen."""
    size = fields.get("FileTotalLen", "")
    attachment = Attachment(
        name=fields.get("Title", ""),
        size_bytes=int(size) if size.isascii() and size.isdigit() else None,
        unavailable="WeChat hands out files of this kind only in its own client",
    )
    return {"kind": Kind.FILE, "attachments": (attachment,)}


def _location(fields: Mapping[str, str]) -> dict[str, Any]:
    location = Location(
        latitude=float(fields.get("Location_X", "nan")),
        longitude=float(fields.get("Location_Y", "nan")),
        label=fields.get("Label", ""),
    )
    return {"kind": Kind.LOCATION, "location": location}


def _link(fields: Mapping[str, str]) -> dict[str, Any]:
    link = Link(
        url=fields.get("Url", ""),
        title=fields.get("Title", ""),
        description=fields.get("Description", ""),
    )
    return {"kind": Kind.LINK, "link": link, "text": link.title}


def _event(fields: Mapping[str, str]) -> dict[str, Any]:
    event = Event(name=fields.get("Event", "").lower(), key=fields.get("EventKey", ""))
    return {"kind": Kind.EVENT, "event": event}


def _unsupported(document: bytes) -> dict[str, Any]:
    return {"kind": Kind.UNSUPPORTED, "raw": Raw(media_type="text/xml", content=document)}


#: WeChat's MsgType -> our kind and its fields (Receiving_standard_messages above).
_KINDS: Mapping[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
    "text": lambda fields: {"kind": Kind.TEXT, "text": fields.get("Content", "")},
    "image": _image,
    "voice": _voice,
    "video": _video,
    "shortvideo": _video,
    "file": _document,
    "location": _location,
    "link": _link,
    "event": _event,
}

_TOKEN_ERRORS = {40001, 40014, 42001}
#: Return codes: https://developers.weixin.qq.com/doc/offiaccount/Getting_Started/Global_Return_Code.html
_REJECTED = {
    40003: "WeChat does not know this customer's openid",
    45002: "the text is too long for WeChat: it takes 2048 bytes, some 680 Chinese characters",
    45015: "WeChat's window is closed: the customer has not written within 48 hours",
    45047: "WeChat's count is used up: five messages after each of the customer's",
    48001: "this official account has no right to send customer-service messages",
}
_LATER = {
    -1: "WeChat is busy",
    40164: "WeChat refuses calls from our address: add it to the IP allow-list in its console",
    45009: "WeChat's daily quota of calls is used up",
}


def _delivery_error(error: Any) -> DeliveryError:
    if error.errcode is None:  # an HTTP status instead of a code
        status, headers = error.response.status_code, error.response.headers
        return http.status_error(status, headers, "WeChat") or _by_code(-1)
    return _by_code(int(error.errcode))


def _by_code(code: int) -> RejectedError | RetryableError:
    if code in _LATER:
        return RetryableError(f"{_LATER[code]} ({code})")
    if code in _TOKEN_ERRORS or code in (40013, 40125):
        return RetryableError(f"WeChat does not accept app_id and app_secret ({code})")
    return RejectedError(f"{_REJECTED.get(code, 'WeChat refused the message')} ({code})")
