"""Customers of a WeChat Mini Program (小程序) who open its customer service.

Delivery:        https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html
Messages in:     https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/customer-message/receive.html
Service message: https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/kf-mgnt/kf-message/sendCustomMessage.html

Pushed as an Official Account's messages are, as XML or as JSON, as the console is set: either is
read. There is no passive reply.
"""

from chalicelib.ports import Capabilities, SendWindow
from chalicelib.schema import Kind
from connectors.wechat_account import Account, AccountSettings
from connectors.wechat_pieces import MEGABYTE, PICTURES, Takes

_TAKES = {Kind.IMAGE: Takes("image", PICTURES, 10 * MEGABYTE)}


class MiniProgramSettings(AccountSettings):
    """[inboxes.<name>] connector = "wechat_miniprogram" """


class MiniProgram(Account):
    """A Mini Program: a customer who opens its service may be written to for a minute."""

    name = "wechat_miniprogram"
    settings_model = MiniProgramSettings
    takes = _TAKES
    capabilities = Capabilities(
        kinds_in=frozenset(Kind),
        kinds_out=frozenset({Kind.TEXT, *_TAKES}),
        evidence=("wechat",),
        windows={
            "message": SendWindow(seconds=48 * 3600, count=5),
            # WeChat's pages say one, two and three messages.
            "user_enter_tempsession": SendWindow(seconds=60, count=2),
        },
    )
