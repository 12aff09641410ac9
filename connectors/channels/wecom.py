"""A WeCom application (企业微信应用): members of the corporation write to it.

Callback:      https://developer.work.weixin.qq.com/document/path/90930
Messages in:   https://developer.work.weixin.qq.com/document/path/90239
Events:        https://developer.work.weixin.qq.com/document/path/90240
Passive reply: https://developer.work.weixin.qq.com/document/path/90241
Messages out:  https://developer.work.weixin.qq.com/document/path/90236

Always sealed; five seconds and three pushes, as WeChat. An empty 200 is no reply.
"""

from collections.abc import Sequence

from pydantic import Field

from chalicelib.errors import RejectedError
from chalicelib.ports import (
    Capabilities,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import Kind, Message
from connectors import wechat_kinds, wechat_pieces
from connectors.wecom_corporation import TAKES, Corporation, CorporationSettings


class WeComSettings(CorporationSettings):
    """[inboxes.<name>] connector = "wecom" """

    #: The application's AgentId.
    agent_id: int = Field(gt=0)


class WeCom(Corporation):
    """An application's callbacks and messages."""

    name = "wecom"
    settings_model = WeComSettings
    capabilities = Capabilities(
        kinds_in=frozenset(Kind),
        kinds_out=frozenset({Kind.TEXT, *TAKES}),
        answers_within_seconds=4.8,
        answers_within_bytes=wechat_pieces.TEXT_BYTES,
        evidence=("wecom",),
    )

    settings: WeComSettings

    def parse(self, request: WebhookRequest) -> list[Message]:
        document = self._seal.opened(request.body)
        prefix = f"wecom:{self.settings.corp_id}"
        system = wechat_kinds.SYSTEM
        return [wechat_kinds.message(self, prefix, document, request.received_at, system=system)]

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """Nothing, or the passive reply in its envelope."""
        return self._seal.passive_text(answer) if answer else super().acknowledge(messages)

    def send(self, message: Message) -> str:
        """An application message to one member."""
        member = message.address.split(":", 2)[2]
        content = self._api.content(message, TAKES)
        told = {"touser": member, "agentid": self.settings.agent_id, **content}
        answer = self._api.post("message/send", told)
        if answer.get("invaliduser"):
            raise RejectedError(self._api.codes.never[81013])
        return str(answer.get("msgid") or message.id)
