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
    Connector,
    InboxContext,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import Attachment, Channel, Kind, Message
from connectors import wechat_kinds, wechat_pieces
from connectors.wecom_corporation import TAKES, CorporationSettings, api_of, seal_of


class WeComSettings(CorporationSettings):
    """[inboxes.<name>] connector = "wecom" """

    #: The application's AgentId.
    agent_id: int = Field(gt=0)


class WeCom(Connector):
    """An application's callbacks and messages."""

    name = "wecom"
    channel = Channel.WECHAT
    settings_model = WeComSettings
    capabilities = Capabilities(
        kinds_in=frozenset(Kind),
        kinds_out=frozenset({Kind.TEXT, *TAKES}),
        answers_within_seconds=4.8,
        answers_within_bytes=wechat_pieces.TEXT_BYTES,
        evidence=("wecom",),
    )
    max_body_bytes = 64 * 1024

    settings: WeComSettings

    def __init__(self, settings: WeComSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._seal = seal_of(settings)
        self._api = api_of(settings, context)

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        """The console's probe: what its echostr seals."""
        return self._seal.sealed_echo(request)

    def verify(self, request: WebhookRequest) -> None:
        self._seal.verify(request)

    def parse(self, request: WebhookRequest) -> list[Message]:
        document = self._seal.opened(request.body)
        prefix = f"wecom:{self.settings.corp_id}"
        system = wechat_kinds.SYSTEM
        return [wechat_kinds.message(self, prefix, document, request.received_at, system=system)]

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """Nothing, or the passive reply in its envelope."""
        return self._seal.passive_text(answer) if answer else WebhookResponse()

    def pieces(self, message: Message) -> Sequence[Message]:
        """Texts that are short enough, then file by file."""
        return wechat_pieces.pieces(message, TAKES)

    def send(self, message: Message) -> str:
        """An application message to one member."""
        member = message.address.split(":", 2)[2]
        content = self._api.content(message, TAKES)
        told = {"touser": member, "agentid": self.settings.agent_id, **content}
        answer = self._api.post("message/send", told)
        if answer.get("invaliduser"):
            raise RejectedError(self._api.codes.never[81013])
        return str(answer.get("msgid") or message.id)

    def fetch(self, attachment: Attachment) -> bytes:
        """A temporary file by its MediaId; WeCom keeps it for three days."""
        return self._api.download(attachment.source or "")
