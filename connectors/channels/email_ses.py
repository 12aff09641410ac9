"""Email through Amazon SES: receipt rules hand mail over by SNS, events tell what became of ours.

Inbound: https://docs.aws.amazon.com/ses/latest/dg/receiving-email-notifications-contents.html
Events:  https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
Bounces: https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html
Send:    https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html

An action of SNS brings the mail itself, 150 KB at most; one of S3 its key in a bucket, and a worker
fetches it. The topic calls our function by itself (IAM is the proof), or this inbox's address over
HTTP (every check of connectors/sns.py).
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chalicelib.errors import DeliveryError, PayloadError, RejectedError, RetryableError
from chalicelib.once import once
from chalicelib.ports import (
    Capabilities,
    Fetched,
    FetchingConnector,
    InboxContext,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import (
    Attachment,
    Delivery,
    Kind,
    Message,
    Notice,
    Raw,
    Receipt,
    digest,
    errand_id,
)
from connectors import mail_out, mime, sns
from connectors.mail_channel import FILES, Arrival, Letter, MailboxSettings, MailConnector

#: What SES writes, as a mail or as a notification, to try out what was configured.
_SETUP = "AMAZON_SES_SETUP_NOTIFICATION"
_DONE = "done"
_VIRUS = "SES found a virus in this mail"
_MAX_RECIPIENTS, _MAX_ADDRESS = 100, 320
_OWN_ID = re.compile(r"[A-Za-z0-9-]{1,200}")
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


class SesSettings(MailboxSettings):
    """[inboxes.<name>] connector = "email_ses" """

    #: Where receipt rules, bounces, complaints and events are published.
    topic_arns: sns.TopicArns
    #: The region of SES, for example eu-central-1.
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    #: Where receipt rules with an action of S3 put mail; mail is fetched from no other bucket.
    buckets: Bucket | tuple[Bucket, ...] = ()
    #: Names the event destination that publishes what became of our mail to the topic.
    configuration_set: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    #: Refuses the other version over HTTP; none takes both.
    signature_version: sns.SignatureVersion | None = None
    #: Another end than AWS's own, for sending.
    api_url: str | None = None


class Handover(BaseModel):
    """What SES tells of a mail, and the mail cannot say of itself."""

    model_config = ConfigDict(frozen=True)

    bucket: str = ""
    key: str = ""
    mail_from: str | None = None
    recipients: tuple[str, ...] = ()
    dmarc: bool = False
    spam: bool = False
    virus: bool = False


class EmailSes(MailConnector, FetchingConnector):
    """A mailbox at Amazon SES."""

    name = "email_ses"
    settings_model = SesSettings
    capabilities = Capabilities(
        kinds_in=frozenset({Kind.TEXT}),
        kinds_out=FILES,
        # SES makes a Message-ID of its own each time: sent twice is two mails.
        resends_safely=False,
        threads=True,
        evidence=("dmarc",),
        receipts=True,
    )
    #: SNS takes 256 KB, written as JSON within JSON.
    max_body_bytes = 1024 * 1024

    settings: SesSettings

    def __init__(self, settings: SesSettings, context: InboxContext) -> None:
        super().__init__(settings, context)
        self._subscription = sns.Subscription(
            sns.topics(settings.topic_arns), settings.signature_version
        )
        own = settings.buckets
        self._buckets = (own,) if isinstance(own, str) else own

    # In

    def handshake(self, request: WebhookRequest) -> WebhookResponse | None:
        """A subscription to a topic of ours is confirmed, through SNS's API."""
        return self._subscription.handshake(request)

    def verify(self, request: WebhookRequest) -> None:
        self._subscription.verify(request)

    def parse(self, request: WebhookRequest) -> list[Message | Receipt | Notice]:
        envelope = sns.read(request.body)
        if envelope.kind != "Notification" or not envelope.message.lstrip().startswith("{"):
            return []  # a subscription, or a word of AWS about the topic
        told = _object(envelope.message)
        kind = _word(told, "notificationType") or _word(told, "eventType")
        if not kind:
            raise PayloadError("the notification has no type of SES")
        if kind == "Received":
            return self._received(told, request)
        return self._receipts(kind, told, request)

    def _received(
        self, told: Mapping[str, Any], request: WebhookRequest
    ) -> list[Message | Receipt | Notice]:
        action, handover = _part(_part(told, "receipt"), "action"), _handover(told)
        if _SETUP in (_word(_part(told, "mail"), "messageId"), handover.key.rpartition("/")[2]):
            return []
        match _word(action, "type"):
            case "S3":
                return [self._notice(handover, request)]
            case "SNS":
                content = _content(told.get("content"), _word(action, "encoding"))
                return [self._read(content, handover, request.received_at)]
        raise PayloadError("no mail is in it: the receipt rule needs an action of SNS or S3")

    def _notice(self, handover: Handover, request: WebhookRequest) -> Notice:
        self._demand_ours(handover, PayloadError)
        # One mail for two recipients, by two rules, lies under one key and is two messages.
        own = digest(handover.key, *sorted(r.lower() for r in handover.recipients))
        source = f"{handover.bucket}/{own}"
        return Notice(
            id=errand_id(self.context.name, source),
            inbox=self.context.name,
            source=source,
            token=handover.model_dump_json(),
            received_at=request.received_at,
        )

    def _demand_ours(
        self, handover: Handover, error: type[PayloadError] | type[RejectedError]
    ) -> None:
        if handover.bucket not in self._buckets:
            raise error("the mail lies in a bucket that is not among this inbox's buckets")
        if not handover.key:
            raise error("objectKey is missing")

    def fetch_messages(self, notice: Notice, cursor: str, received_at: datetime) -> Fetched:
        """The one mail that lies under the notice's key; nothing once that is stored."""
        if cursor:
            return Fetched(found=(), cursor=cursor, more=False)
        try:
            handover = Handover.model_validate_json(notice.token)
            self._demand_ours(handover, RejectedError)
            content = _stored(self.settings.region, handover.bucket, handover.key)
            found = self._read(content, handover, notice.received_at)
        except ValidationError:
            raise RejectedError("the notice cannot be read") from None
        except PayloadError as error:
            raise RejectedError(str(error)) from None
        return Fetched(found=(found,), cursor=_DONE, more=False)

    def _read(self, content: bytes, handover: Handover, at: datetime) -> Message | Receipt:
        arrival = Arrival(
            mime=content,
            original=Raw(media_type="message/rfc822", content=content),
            mail_from=handover.mail_from,
            recipients=handover.recipients,
            dmarc=handover.dmarc,
        )
        found = self.arrived(arrival, WebhookRequest(method="POST", received_at=at))
        if isinstance(found, Receipt) or not (handover.spam or handover.virus):
            return found
        files = tuple(map(_withheld, found.attachments)) if handover.virus else found.attachments
        return found.model_copy(update={"automatic": True, "attachments": files})

    def _receipts(
        self, kind: str, told: Mapping[str, Any], request: WebhookRequest
    ) -> list[Message | Receipt | Notice]:
        """Nothing for opens, clicks, delays and the like."""
        became = _BECAME.get(kind, _nothing)(told)
        if became is None:
            return []
        own_id = _word(_part(told, "mail"), "messageId")
        if not _OWN_ID.fullmatch(own_id):
            raise PayloadError("messageId is missing or malformed")
        known = mail_out.ses_message_id(own_id, self.settings.region)
        return [self.receipt(known, *became, request)]

    # Out

    def endpoints(self) -> Sequence[str]:
        return [self.settings.api_url or mail_out.ses_endpoint(self.settings.region)]

    def post(self, message: Message, letter: Letter) -> str:
        return mail_out.send_by_ses(
            self.settings.region,
            letter.to,
            letter.mail.as_bytes(),
            configuration_set=self.settings.configuration_set,
            endpoint=self.settings.api_url,
        )

    def sent_by_us(self, original: str) -> bool:
        return mail_out.made_by_ses(original) or super().sent_by_us(original)


# What SES tells


def _object(text: str) -> Mapping[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise PayloadError("the notification is no JSON") from None
    if not isinstance(told, dict):
        raise PayloadError("the notification is no JSON object")
    return told


def _part(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _word(told: Mapping[str, Any], name: str) -> str:
    return _text(told.get(name))


def _text(value: Any) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _handover(told: Mapping[str, Any]) -> Handover:
    receipt, mail = _part(told, "receipt"), _part(told, "mail")
    action, source = _part(receipt, "action"), mail.get("source")
    listed = receipt.get("recipients")
    recipients = map(_text, listed[:_MAX_RECIPIENTS] if isinstance(listed, list) else ())
    return Handover(
        bucket=_word(action, "bucketName"),
        key=_word(action, "objectKey"),
        mail_from=_text(source).strip("<> ") if isinstance(source, str) else None,
        recipients=tuple(r for r in recipients if 0 < len(r) <= _MAX_ADDRESS),
        # PASS alone proves anything: of DKIM's it is not known whose signature passed.
        dmarc=_word(_part(receipt, "dmarcVerdict"), "status") == "PASS",
        spam=_word(_part(receipt, "spamVerdict"), "status") == "FAIL",
        virus=_word(_part(receipt, "virusVerdict"), "status") == "FAIL",
    )


def _content(content: Any, encoding: str) -> bytes:
    """The mail's bytes. SES's UTF-8 spoils mail in other charsets: BASE64 is the one to choose."""
    if not isinstance(content, str) or not content:
        raise PayloadError("the notification has no content")
    match encoding.upper().replace("-", ""):
        case "" | "UTF8":
            return content.encode("utf-8", "surrogatepass")
        case "BASE64":
            try:
                return b64decode("".join(content.split()), validate=True)
            except ValueError:
                raise PayloadError("the content is no base64") from None
    raise PayloadError("the content is in an encoding that is none of SES's")


def _withheld(file: Attachment) -> Attachment:
    return file.model_copy(update={"content": None, "unavailable": _VIRUS})


Became = tuple[Delivery, str] | None


def _nothing(told: Mapping[str, Any]) -> Became:
    return None


def _bounced(told: Mapping[str, Any]) -> Became:
    """Transient ones say nothing: SES tries on, or a machine of the recipient's answered."""
    bounce = _part(told, "bounce")
    if _word(bounce, "bounceType") not in ("Permanent", "Undetermined"):
        return None
    listed = bounce.get("bouncedRecipients")
    first = listed[0] if isinstance(listed, list) and listed else {}
    code = _word(first, "diagnosticCode") if isinstance(first, dict) else ""
    why = code or _word(bounce, "bounceSubType")
    return Delivery.FAILED, f"it could not be delivered: {why}".rstrip(": ")


def _complained(told: Mapping[str, Any]) -> Became:
    complaint = _part(told, "complaint")
    if _word(complaint, "complaintFeedbackType") == "not-spam":  # the opposite of a complaint
        return None
    return Delivery.FAILED, "the recipient reported it as spam"


def _refused(told: Mapping[str, Any]) -> Became:
    why = _word(_part(told, "reject"), "reason") or _word(_part(told, "failure"), "errorMessage")
    return Delivery.FAILED, f"SES did not send it: {why}".rstrip(": ")


#: notificationType or eventType -> what it says about a mail of ours.
_BECAME: Mapping[str, Callable[[Mapping[str, Any]], Became]] = {
    "Bounce": _bounced,
    "Complaint": _complained,
    "Delivery": lambda told: (Delivery.DELIVERED, ""),
    "Reject": _refused,
    "Rendering Failure": _refused,
}


# S3


@once
def _client(region: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2})
    return boto3.client("s3", region_name=region, config=config)


def _stored(region: str, bucket: str, key: str) -> bytes:
    """A mail that a receipt rule put into S3. RetryableError, RejectedError."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        held = _client(region).get_object(Bucket=bucket, Key=key)
        with closing(held["Body"]) as body:
            if held["ContentLength"] > mime.MAX_BYTES:
                raise RejectedError(f"the mail is longer than {mime.MAX_BYTES} bytes")
            content = bytes(body.read())  # the whole: only then a body that broke off is noticed
    except ClientError as error:
        raise _unread(error.response, bucket) from None
    except BotoCoreError as error:
        raise RetryableError(f"S3: {type(error).__name__}") from None
    if any(name.startswith("x-amz-key") for name in held.get("Metadata", {})):
        raise RejectedError(
            "SES encrypted the mail for S3: switch off message encryption in the receipt rule"
        )
    return content


def _unread(response: Any, bucket: str) -> DeliveryError:
    """What a refusal of S3 means."""
    code = str(response.get("Error", {}).get("Code", ""))[:60]
    match code:
        case "NoSuchKey":
            return RejectedError(f"the mail is gone from the bucket {bucket}")
        case "AccessDenied" | "403":
            return RetryableError(
                f"S3 refuses the bucket {bucket}: allow s3:GetObject on it to the worker's role"
            )
        case "NoSuchBucket":
            return RetryableError(f"there is no bucket {bucket}: see the inbox's buckets")
    return RetryableError(f"S3: {code}")
