"""What WeCom's connectors share: a corporation's settings, sealed pushes, calls with its token.

Callbacks: https://developer.work.weixin.qq.com/document/path/90930
Envelopes: https://developer.work.weixin.qq.com/document/path/90968
Media:     https://developer.work.weixin.qq.com/document/path/90253
"""

from pydantic import Field

from chalicelib.ports import InboxContext, PluginSettings
from chalicelib.schema import Kind
from connectors import wechat_api
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


def seal_of(settings: CorporationSettings) -> Seal:
    """ConfigurationError for a key that is none."""
    return Seal.of(settings.token, settings.encoding_aes_key, settings.corp_id)


def api_of(settings: CorporationSettings, context: InboxContext) -> wechat_api.Api:
    """Calls with the token of this inbox's secret: WeCom gives each secret one of its own."""
    corp_id, url = settings.corp_id, settings.api_url
    return wechat_api.Api(
        codes=wechat_api.WECOM,
        tokens=context.tokens,
        name=f"wecom:{corp_id}:{context.name}",
        fetch=wechat_api.corporation_token(url, corp_id, settings.secret.get_secret_value()),
        client=wechat_api.corporation_client(url, corp_id),
    )
