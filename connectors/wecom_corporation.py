"""What WeCom's connectors share: a corporation's settings, sealed pushes, calls with its token.

Callbacks: https://developer.work.weixin.qq.com/document/path/90930
Envelopes: https://developer.work.weixin.qq.com/document/path/90968
Media:     https://developer.work.weixin.qq.com/document/path/90253
"""

from collections.abc import Sequence

from pydantic import Field

from chalicelib.ports import (
    Connector,
    InboxContext,
    PluginSettings,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import Attachment, Channel, Kind, Message
from connectors import wechat_api, wechat_pieces
from connectors.signing import Secret, Secrets
from connectors.wechat_pieces import MEGABYTE, Takes
from connectors.wechat_seal import Seal, Tokens

_PICTURES = {"image/jpeg": "jpg", "image/jpg": "jpg", "image/png": "png"}
#: What members and customers can be sent; whatever else goes as a file.
TAKES = {
    Kind.IMAGE: Takes("image", _PICTURES, 10 * MEGABYTE),
    Kind.AUDIO: Takes("voice", {"audio/amr": "amr"}, 2 * MEGABYTE),
    Kind.VIDEO: Takes("video", {"video/mp4": "mp4"}, 10 * MEGABYTE),
    Kind.FILE: Takes("file", {"*": ""}, 20 * MEGABYTE),
}


class CorporationSettings(PluginSettings):
    """A corporation and the secrets of one of its applications."""

    corp_id: str = Field(pattern=r"^w[a-z][0-9a-zA-Z]{4,32}$")
    secret: Secret
    token: Tokens
    #: The 43 characters of the console: WeCom always seals.
    encoding_aes_key: Secrets
    api_url: str = "https://qyapi.weixin.qq.com"


class Corporation(Connector):
    """Sealed pushes in, calls with the token of the inbox's secret out."""

    channel = Channel.WECHAT

    settings: CorporationSettings

    def __init__(self, settings: CorporationSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._seal = Seal.of(settings.token, settings.encoding_aes_key, settings.corp_id)
        corp_id, url = settings.corp_id, settings.api_url
        secret = settings.secret.get_secret_value()
        self._api = wechat_api.Api(
            codes=wechat_api.WECOM,
            tokens=context.tokens,
            # WeCom gives each secret a token of its own.
            name=f"wecom:{corp_id}:{context.name}",
            fetch=wechat_api.corporation_token(url, corp_id, secret),
            client=wechat_api.corporation_client(url, corp_id),
        )

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        """The console's probe: what its echostr seals."""
        return self._seal.sealed_echo(request)

    def verify(self, request: WebhookRequest) -> None:
        self._seal.verify(request)

    def pieces(self, message: Message) -> Sequence[Message]:
        """Texts that are short enough, then file by file."""
        return wechat_pieces.pieces(message, TAKES)

    def fetch(self, attachment: Attachment) -> bytes:
        """A temporary file by its MediaId; WeCom keeps it for three days."""
        return self._api.download(attachment.source or "")
