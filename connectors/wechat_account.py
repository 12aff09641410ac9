"""What Official Accounts and Mini Programs share: settings, pushes, customer-service messages.

Delivery:        https://developers.weixin.qq.com/doc/offiaccount/Basic_Information/Access_Overview.html
Service message: https://developers.weixin.qq.com/doc/offiaccount/Message_Management/Service_Center_messages.html
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from chalicelib.errors import SignatureError
from chalicelib.ports import (
    Connector,
    InboxContext,
    PluginSettings,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import Attachment, Channel, Kind, Message
from connectors import wechat_api, wechat_kinds, wechat_pieces
from connectors.signing import PathSecrets, Secret, Secrets, demand_path_secret
from connectors.wechat_pieces import Takes
from connectors.wechat_seal import Seal, Tokens


class AccountSettings(PluginSettings):
    """An account as WeChat's console shows it."""

    app_id: str = Field(pattern=r"^wx[0-9a-zA-Z]{4,32}$")
    app_secret: Secret
    token: Tokens
    mode: Literal["plain", "compatible", "safe"] = "safe"
    #: The 43 characters of the console; needed unless the mode is plain.
    encoding_aes_key: Secrets | None = None
    #: What the address in the console ends in. In plain mode nothing else keeps a stranger who has
    #: seen one push from writing in a customer's name.
    path_secret: PathSecrets | None = None
    api_url: str = "https://api.weixin.qq.com"

    @model_validator(mode="after")
    def _key_for_envelope(self) -> "AccountSettings":
        if self.mode != "plain" and self.encoding_aes_key is None:
            raise ValueError(f"encoding_aes_key is missing: mode {self.mode} needs it")
        return self


class Account(Connector):
    """An account's pushes, and what it sends to customers who wrote to it."""

    channel = Channel.WECHAT
    secret_in_path = True
    #: The files that it may send.
    takes: ClassVar[Mapping[Kind, Takes]]

    settings: AccountSettings

    def __init__(self, settings: AccountSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        app_id, url = settings.app_id, settings.api_url
        keys = None if settings.mode == "plain" else settings.encoding_aes_key
        self._seal = Seal.of(settings.token, keys, app_id)
        self._api = wechat_api.Api(
            codes=wechat_api.WECHAT,
            tokens=context.tokens,
            name=f"wechat:{app_id}",
            fetch=wechat_api.stable_token(url, app_id, settings.app_secret.get_secret_value()),
            client=wechat_api.official_client(url, app_id),
        )

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        """The console's probe: its echostr back, unchanged, if the signature is right."""
        self._demand_address(request)
        return self._seal.echo(request)

    def verify(self, request: WebhookRequest) -> None:
        self._demand_address(request)
        self._seal.verify(request)

    def _demand_address(self, request: WebhookRequest) -> None:
        if self.settings.path_secret is not None:
            demand_path_secret(request, self.settings.path_secret)
        elif request.path_secret:
            raise SignatureError("the address ends in a secret that the inbox does not have")

    def parse(self, request: WebhookRequest) -> list[Message]:
        document = self._seal.opened(request.body)
        prefix = f"wechat:{self.settings.app_id}"
        return [wechat_kinds.message(self, prefix, document, request.received_at)]

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """`success`: anything else shows the customer that the account is out of order."""
        return WebhookResponse(body="success")

    def pieces(self, message: Message) -> Sequence[Message]:
        """Texts that are short enough, then file by file."""
        return wechat_pieces.pieces(message, self.takes)

    def send(self, message: Message) -> str:
        """A customer-service message. WeChat gives no id for it: ours is returned."""
        content = self._api.content(message, self.takes)
        recipient = message.address.split(":", 2)[2]
        self._api.post("message/custom/send", {"touser": recipient, **content})
        return message.id

    def fetch(self, attachment: Attachment) -> bytes:
        """A temporary file by its MediaId; WeChat keeps it for three days."""
        return self._api.download(attachment.source or "")
