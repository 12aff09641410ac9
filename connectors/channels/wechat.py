"""WeChat Official Account (公众号, 服务号).

Handshake, delivery: https://developers.weixin.qq.com/doc/offiaccount/Basic_Information/Access_Overview.html
Passive reply:       https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Passive_user_reply_message.html
Service message:     https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Service_Center_messages.html

No answer within five seconds: WeChat cuts the line and pushes again, three times in all. Any answer
but `success`, nothing, or a right reply shows the customer that the account is out of order. In
plain mode the signature does not cover the body; the mode is set per inbox, never read off it.
Choices are links of the scheme weixin://bizmsgmenu in a text: who taps one sends its word.
"""

from collections.abc import Sequence

from chalicelib.ports import Capabilities, SendWindow, WebhookResponse
from chalicelib.schema import Kind, Message
from connectors import wechat_pieces
from connectors.wechat_account import Account, AccountSettings
from connectors.wechat_pieces import MEGABYTE, PICTURES, TEXT_BYTES, VOICES, Takes

_TAKES = {
    Kind.IMAGE: Takes("image", PICTURES, 10 * MEGABYTE),
    Kind.AUDIO: Takes("voice", VOICES, 2 * MEGABYTE),
}
_MINUTE = SendWindow(seconds=60, count=3)


class WeChatSettings(AccountSettings):
    """[inboxes.<name>] connector = "wechat" """


class WeChat(Account):
    """An Official Account: it may answer within the push."""

    name = "wechat"
    settings_model = WeChatSettings
    takes = _TAKES
    capabilities = Capabilities(
        kinds_in=frozenset(Kind),
        kinds_out=frozenset({Kind.TEXT, *_TAKES}),
        answers_within_seconds=4.8,
        answers_within_bytes=TEXT_BYTES,
        evidence=("wechat",),
        windows={
            "message": SendWindow(seconds=48 * 3600, count=5),
            "subscribe": _MINUTE,
            "scan": _MINUTE,
            "click": _MINUTE,
            "scancode_push": _MINUTE,
            "scancode_waitmsg": _MINUTE,
        },
        choices=True,
    )

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """`success`, or the passive reply, in an envelope where the mode wants one."""
        return self._seal.passive_text(_linked(answer)) if answer else super().acknowledge(messages)

    def send(self, message: Message) -> str:
        return super().send(_linked(message))


def _linked(message: Message) -> Message:
    return message.model_copy(update={"text": wechat_pieces.with_links(message)})
