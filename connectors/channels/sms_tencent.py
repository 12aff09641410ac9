"""SMS through Tencent Cloud (腾讯云短信).

Inbound: https://cloud.tencent.com/document/product/382/43548
Status:  https://cloud.tencent.com/document/product/382/43547
Send:    https://cloud.tencent.com/document/product/382/55981
Signing: https://cloud.tencent.com/document/api/382/52072 (TC3-HMAC-SHA256)

Nothing signs what comes in: the address ends in a secret. A reply is one object and has no id, so
that what it says is its id; statuses come to the same address, as an array. Texts that go out fill
a template that Tencent approved, with one variable for what we say.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from chalicelib.errors import PayloadError, RejectedError, RetryableError
from chalicelib.ports import (
    Connector,
    PluginSettings,
    WebhookRequest,
    WebhookResponse,
)
from chalicelib.schema import Channel, Delivery, Message, Receipt
from connectors import http, sms_message, sms_text
from connectors.signing import PathSecrets, Secret, demand_path_secret


class TencentSmsSettings(PluginSettings):
    """[inboxes.<name>] connector = "sms_tencent" """

    #: What the address given to Tencent ends in.
    path_secret: PathSecrets
    secret_id: str = Field(min_length=1)
    secret_key: Secret
    #: The SMS application.
    sdk_app_id: str = Field(pattern=r"^\d{5,20}$")
    #: The approved signature, without its brackets 【】.
    sign_name: str = Field(min_length=1)
    template_id: str = Field(pattern=r"^\d{1,20}$")
    #: What the template's one variable takes: a longer text goes out in numbered pieces.
    max_characters: int = Field(default=450, ge=12, le=500)
    region: str = Field(default="ap-guangzhou", pattern=r"^[a-z]{2}-[a-z]+$")
    api_url: str = "https://sms.tencentcloudapi.com"


class TencentSms(Connector):
    """A signature and a template at Tencent Cloud."""

    name = "sms_tencent"
    channel = Channel.SMS
    settings_model = TencentSmsSettings
    capabilities = sms_message.TEXTS
    secret_in_path = True
    max_body_bytes = 1024 * 1024

    settings: TencentSmsSettings

    # In

    def verify(self, request: WebhookRequest) -> None:
        demand_path_secret(request, self.settings.path_secret)

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        stated = sms_message.read_json(request.body)
        if isinstance(stated, list):
            return sms_message.each(self, request, stated, self._receipt)
        if not isinstance(stated, dict):
            raise PayloadError("the body is neither a reply nor a list of statuses")
        return [self._reply(stated, request)]

    def _reply(self, fields: Mapping[str, Any], request: WebhookRequest) -> Message:
        text = fields.get("text")
        if not isinstance(text, str):
            raise PayloadError("the reply has no text")
        number, country, at, extension = (
            sms_message.word(fields, name) for name in ("mobile", "nationcode", "time", "extend")
        )
        phone = international(number, country)
        return sms_message.inbound(
            self,
            request,
            phone=phone,
            external_id=sms_message.own_id(phone, at, text, extension),
            text=text,
            account=extension or sms_message.word(fields, "sign"),
            sent_at=sms_message.epoch(at, request.received_at),
        )

    def _receipt(self, fields: Mapping[str, Any], request: WebhookRequest) -> Receipt:
        status = sms_message.word(fields, "report_status")
        if status not in ("SUCCESS", "FAIL"):
            raise PayloadError("the status is neither SUCCESS nor FAIL")
        code = sms_message.word(fields, "errmsg")
        reason = _REPORTS.get(code, sms_message.word(fields, "description")[:200])
        return sms_message.receipt(
            self,
            request,
            sms_message.word(fields, "sid"),
            Delivery.DELIVERED if status == "SUCCESS" else Delivery.FAILED,
            f"{reason} ({code[:64]})" if code else reason,
        )

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """That it was taken."""
        return WebhookResponse(
            body='{"result":0,"errmsg":"OK"}', content_type="application/json; charset=utf-8"
        )

    # Out

    def pieces(self, message: Message) -> Sequence[Message]:
        """The text, numbered where it is longer than the variable takes."""
        return sms_message.pieces(message, self.settings.max_characters)

    def send(self, message: Message) -> str:
        text = sms_text.within(message.text, self.settings.max_characters, "the template")
        asked = {
            "PhoneNumberSet": [message.address.removeprefix("phone:")],
            "SmsSdkAppId": self.settings.sdk_app_id,
            "SignName": self.settings.sign_name,
            "TemplateId": self.settings.template_id,
            "TemplateParamSet": [text],
            "SessionContext": message.id[:512],
        }
        body = json.dumps(asked).encode()
        answer = http.call(
            "POST", self.settings.api_url + "/", headers=self._signed(body), body=body
        ).json()
        return _sent(answer.get("Response"), message.id)

    def _signed(self, body: bytes) -> dict[str, str]:
        return signed_headers(
            self.settings.secret_id,
            self.settings.secret_key.get_secret_value(),
            host=urlsplit(self.settings.api_url).netloc,
            body=body,
            at=datetime.now(UTC),
        ) | {
            "X-TC-Action": "SendSms",
            "X-TC-Version": "2021-01-11",
            "X-TC-Region": self.settings.region,
        }


_TYPE = "application/json; charset=utf-8"


def signed_headers(
    secret_id: str, secret_key: str, *, host: str, body: bytes, at: datetime, service: str = "sms"
) -> dict[str, str]:
    """The headers of TC3-HMAC-SHA256 for a call with this body at this time."""
    timestamp, day = str(int(at.timestamp())), at.strftime("%Y-%m-%d")
    hashed = hashlib.sha256(body).hexdigest()
    canonical = f"POST\n/\n\ncontent-type:{_TYPE}\nhost:{host}\n\ncontent-type;host\n{hashed}"
    scope = f"{day}/{service}/tc3_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{digest}"
    key = f"TC3{secret_key}".encode()
    for part in (day, service, "tc3_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signed = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return {
        "Authorization": f"TC3-HMAC-SHA256 Credential={secret_id}/{scope}, "
        f"SignedHeaders=content-type;host, Signature={signed}",
        "Content-Type": _TYPE,
        "Host": host,
        "X-TC-Timestamp": timestamp,
    }


def international(number: str, country: str) -> str:
    """E.164 of a number and its country's code."""
    digits = number.strip().removeprefix("+")
    code = country.strip().removeprefix("+")
    if number.strip().startswith("+") or not code:
        return f"+{digits}" if digits else ""
    return f"+{code}{digits}" if digits else ""


#: https://cloud.tencent.com/document/product/382/59177
_REPORTS = {
    "UNDELIVRD": "the network could not deliver it",
    "EXPIRED": "the phone was off for too long",
    "REJECTD": "the network refused it",
    "UNDELIV": "the network could not deliver it",
    "UNKNOWN": "the network gives no reason",
    "user_black": "the customer is on a list of those who want no messages",
    "mobile_black": "the customer is on a list of those who want no messages",
    "unsubscribe": "the customer has opted out",
    "forbid_word": "a word in the text is not allowed",
    "mobile_not_on_service": "the phone is off or the number is out of service",
}
#: https://cloud.tencent.com/document/product/382/59179
_REFUSALS = {
    "FailedOperation.ContainSensitiveWord": "a word in the text is not allowed",
    "FailedOperation.InsufficientBalanceInSmsPackage": "the account has no messages left",
    "FailedOperation.PhoneNumberInBlacklist": "the customer has opted out of messages",
    "FailedOperation.SignatureIncorrectOrUnapproved": "sign_name is not approved",
    "FailedOperation.TemplateIncorrectOrUnapproved": "template_id is not approved",
    "FailedOperation.TemplateParamSetNotMatchApprovedTemplate": "the template has not one variable",
    "InvalidParameterValue.IncorrectPhoneNumber": "the number is not valid",
    "InvalidParameterValue.TemplateParameterLengthLimit": "the text is too long for the template: "
    "lower max_characters",
    "InvalidParameterValue.ProhibitedUseUrlInTemplateParameter": "the template's variable takes no "
    "web addresses",
    "LimitExceeded.PhoneNumberDailyLimit": "this number has had its messages of the day",
    "UnsupportedOperation.UnsupportedRegion": "the account may not send to that country",
}
_AGAIN = ("RequestLimitExceeded", "InternalError", "LimitExceeded.DeliveryFrequencyLimit",
          "LimitExceeded.PhoneNumberThirtySecondLimit", "LimitExceeded.PhoneNumberOneHourLimit",
          "ResourceUnavailable")  # fmt: skip


def _sent(answer: Any, otherwise: str) -> str:
    """The id in an answer. RetryableError, RejectedError."""
    if not isinstance(answer, dict):
        raise RetryableError("Tencent's answer cannot be read", uncertain=True)
    if isinstance(error := answer.get("Error"), dict):
        raise _failure(sms_message.word(error, "Code"))
    told = answer.get("SendStatusSet")
    if not isinstance(told, list) or len(told) != 1 or not isinstance(told[0], dict):
        raise RetryableError("Tencent's answer cannot be read", uncertain=True)
    code = sms_message.word(told[0], "Code")
    if code != "Ok":
        raise _failure(code)
    return sms_message.word(told[0], "SerialNo") or otherwise


def _failure(code: str) -> Exception:
    if code.startswith(_AGAIN):
        return RetryableError(f"Tencent says {code[:64]}", retry_after_seconds=30)
    if not code:
        return RetryableError("Tencent's answer cannot be read", uncertain=True)
    return RejectedError(f"{_REFUSALS.get(code, 'Tencent refused it')} ({code[:64]})")
