"""SMS through AWS End User Messaging: two-way messages and events, by way of SNS.

Inbound: https://docs.aws.amazon.com/sms-voice/latest/userguide/two-way-sms-payload.html
Events:  https://docs.aws.amazon.com/sms-voice/latest/userguide/configuration-sets-event-format.html
Opt-out: https://docs.aws.amazon.com/sms-voice/latest/userguide/opt-out-list-keywords.html
Send:    https://docs.aws.amazon.com/pinpoint/latest/apireference_smsvoicev2/API_SendTextMessage.html

The topic calls our function by itself (IAM is the proof), or this inbox's address over HTTP (every
check of connectors/sns.py). A message states no time: SNS does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from chalicelib.errors import DeliveryError, PayloadError, RejectedError, RetryableError
from chalicelib.once import once
from chalicelib.ports import (
    Connector,
    InboxContext,
    PluginSettings,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import Channel, Delivery, Kind, Message, Receipt
from connectors import sms_message, sms_text, sns

_MAX_UNITS = 1600
#: Words that AWS answers by itself, unless the number's opt-outs are self-managed.
_AWS_WORDS = frozenset(
    ("ARRET", "CANCEL", "END", "OPT-OUT", "OPTOUT", "QUIT", "REMOVE", "STOP", "TD", "UNSUBSCRIBE")
)


class AwsSmsSettings(PluginSettings):
    """[inboxes.<name>] connector = "sms_aws" """

    #: Where End User Messaging publishes what comes in, and what became of what went out.
    topic_arns: sns.TopicArns
    #: The number, its id or its pool, from which we send.
    number: str = Field(pattern=r"^[+A-Za-z0-9_:/-]{1,256}$")
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    #: Names the event destination that publishes delivery events to the topic.
    configuration_set: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_:/-]{1,256}$")
    #: Refuses the other version over HTTP; none takes both.
    signature_version: sns.SignatureVersion | None = None
    #: The number's opt-outs are self-managed: AWS answers no STOP, so we do.
    self_managed_opt_outs: bool = False
    #: Another end than AWS's own.
    api_url: str | None = None


class AwsSms(Connector):
    """A phone number at AWS End User Messaging."""

    name = "sms_aws"
    channel = Channel.SMS
    settings_model = AwsSmsSettings
    capabilities = replace(sms_message.TEXTS, kinds_in=frozenset({Kind.TEXT, Kind.EVENT}))
    max_body_bytes = 300 * 1024

    settings: AwsSmsSettings

    def __init__(self, settings: AwsSmsSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._subscription = sns.Subscription(
            sns.topics(settings.topic_arns), settings.signature_version
        )

    # In

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        """A subscription to a topic of ours is confirmed, through SNS's API."""
        return self._subscription.handshake(request)

    def verify(self, request: WebhookRequest) -> None:
        self._subscription.verify(request)

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        envelope = sns.read(request.body)
        if envelope.kind != "Notification" or not envelope.message.lstrip().startswith("{"):
            return []  # a subscription, or a word of AWS about the topic
        fields = sms_message.read_json(envelope.message.encode("utf-8", "surrogatepass"))
        if "eventType" in fields:
            return self._receipts(fields, request)
        text = fields.get("messageBody")
        if not isinstance(text, str):
            raise PayloadError("the message has no messageBody")
        managed = self.settings.self_managed_opt_outs
        return [
            sms_message.inbound(
                self,
                request,
                phone=sms_message.word(fields, "originationNumber"),
                external_id=sms_message.word(fields, "inboundMessageId") or envelope.message_id,
                text=text,
                confirmed=not managed and sms_text.keyword(text) in _AWS_WORDS,
                account=sms_message.word(fields, "destinationNumber"),
                sent_at=envelope.sent_at,
            )
        ]

    def _receipts(self, fields: Mapping[str, Any], request: WebhookRequest) -> list[Any]:
        event = sms_message.word(fields, "eventType")
        state = _STATES.get(event)
        if state is None:
            return []
        reason = sms_message.word(fields, "messageStatusDescription")[:200]
        sent = sms_message.word(fields, "messageId")
        return [sms_message.receipt(self, request, sent, state, reason or event)]

    # Out

    def pieces(self, message: Message) -> Sequence[Message]:
        """The text, numbered where it is long."""
        return sms_message.pieces(message, _MAX_UNITS)

    def endpoints(self) -> Sequence[str]:
        return [self.settings.api_url or f"https://sms-voice.{self.settings.region}.amazonaws.com"]

    def send(self, message: Message) -> str:
        text = sms_text.within(message.text, _MAX_UNITS)
        asked = {
            "DestinationPhoneNumber": message.address.removeprefix("phone:"),
            "OriginationIdentity": self.settings.number,
            "MessageBody": text,
            "MessageType": "TRANSACTIONAL",
            "Context": {"askonce": message.id[:100]},
        }
        if self.settings.configuration_set:
            asked["ConfigurationSetName"] = self.settings.configuration_set
        try:
            client = _client(self.settings.region, self.settings.api_url)
            answer = client.send_text_message(**asked)
        except Exception as error:  # noqa: BLE001  # botocore raises of every kind
            raise _failure(error) from None
        return str(answer.get("MessageId") or message.id)


@once
def _client(region: str, endpoint: str | None) -> Any:
    """A client that tries once: a text must not go out twice."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 1})
    return boto3.client(
        "pinpoint-sms-voice-v2", region_name=region, endpoint_url=endpoint, config=config
    )


_AGAIN = {"ThrottlingException", "TooManyRequestsException", "InternalServerException"}
#: Reasons of a ConflictException or ValidationException, in words.
_REASONS = {
    "DESTINATION_PHONE_NUMBER_OPTED_OUT": "the customer has opted out of messages",
    "DESTINATION_COUNTRY_BLOCKED": "the account may not send to that country",
    "DESTINATION_PHONE_NUMBER_NOT_VERIFIED": "the account is in the sandbox: the number is unknown",
    "SPENDING_LIMIT_REACHED": "the account's spending limit is reached",
    "PHONE_NUMBER_CANNOT_BE_OPTED_IN": "the customer has opted out of messages",
}


def _failure(error: Exception) -> DeliveryError:
    """What an exception of botocore means."""
    from botocore import exceptions as failures

    if isinstance(error, failures.ClientError):
        return _refusal(error.response)
    if isinstance(error, failures.EndpointConnectionError | failures.ConnectTimeoutError):
        return RetryableError("AWS cannot be reached")
    if isinstance(error, failures.NoCredentialsError | failures.CredentialRetrievalError):
        return RetryableError("this function has no credentials for AWS")
    if isinstance(error, failures.ParamValidationError):
        return RejectedError(f"the message cannot be sent: {type(error).__name__}")
    return RetryableError(f"AWS: {type(error).__name__}", uncertain=True)


def _refusal(response: Mapping[str, Any]) -> DeliveryError:
    stated = response.get("Error", {})
    code = str(stated.get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
    if code in _AGAIN or status == 429 or status >= 500:
        return RetryableError(f"AWS says {code}", uncertain=status in (502, 504))
    words = _REASONS.get(str(response.get("Reason", "")), f"AWS says {code}")
    return RejectedError(f"{words} ({code})" if code not in words else words)


_STATES = {
    **dict.fromkeys(("TEXT_QUEUED", "TEXT_PENDING", "TEXT_SENT"), Delivery.SENT),
    # The carrier took it; in many countries nothing later comes.
    **dict.fromkeys(("TEXT_SUCCESSFUL", "TEXT_DELIVERED"), Delivery.DELIVERED),
    **dict.fromkeys(
        (
            "TEXT_INVALID",
            "TEXT_INVALID_MESSAGE",
            "TEXT_UNREACHABLE",
            "TEXT_CARRIER_UNREACHABLE",
            "TEXT_BLOCKED",
            "TEXT_CARRIER_BLOCKED",
            "TEXT_SPAM",
            "TEXT_TTL_EXPIRED",
            "TEXT_PROTECT_BLOCKED",
            "TEXT_UNKNOWN",
        ),
        Delivery.FAILED,
    ),
}
