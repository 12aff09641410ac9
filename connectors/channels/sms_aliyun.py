"""SMS through Alibaba Cloud (阿里云短信服务), mainland China first.

Inbound: https://help.aliyun.com/document_detail/101847.html (SmsUp)
Reports: https://help.aliyun.com/document_detail/101867.html (SmsReport)
Send:    https://help.aliyun.com/document_detail/419273.html (SendSms)
Signing: https://help.aliyun.com/document_detail/315526.html (RPC, HMAC-SHA1)

Nothing signs what comes in: the address ends in a secret. Texts come in arrays, repeat inside them
and over them, in Shanghai's time and without a country code. Texts that go out fill a template that
Alibaba approved, with one variable for what we say.
"""

import base64
import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

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

SHANGHAI = timezone(timedelta(hours=8))


class AliyunSmsSettings(PluginSettings):
    """[inboxes.<name>] connector = "sms_aliyun" """

    #: What the address given to Alibaba ends in.
    path_secret: PathSecrets
    access_key_id: str = Field(min_length=1)
    access_key_secret: Secret
    #: The approved signature, without its brackets 【】.
    sign_name: str = Field(min_length=1)
    template_code: str = Field(pattern=r"^SMS_\d+$")
    #: The template's variable that takes our text.
    template_variable: str = Field(default="text", pattern=r"^[A-Za-z0-9_]{1,64}$")
    #: What the variable takes: a longer text goes out in numbered pieces.
    max_characters: int = Field(default=450, ge=20, le=500)
    api_url: str = "https://dysmsapi.aliyuncs.com"


class AliyunSms(Connector):
    """A signature and a template at Alibaba Cloud."""

    name = "sms_aliyun"
    channel = Channel.SMS
    settings_model = AliyunSmsSettings
    capabilities = sms_message.TEXTS
    secret_in_path = True
    max_body_bytes = 1024 * 1024

    settings: AliyunSmsSettings

    # In

    def verify(self, request: WebhookRequest) -> None:
        demand_path_secret(request, self.settings.path_secret)

    def parse(self, request: WebhookRequest) -> list[Message | Receipt]:
        stated = sms_message.read_json(request.body)
        if not isinstance(stated, list):
            raise PayloadError("the body is no JSON array")
        return sms_message.each(self, request, stated, self._one)

    def _one(self, fields: Mapping[str, Any], request: WebhookRequest) -> Message | Receipt:
        if "success" in fields and "content" not in fields:
            return self._receipt(fields, request)
        number, text = sms_message.word(fields, "phone_number"), fields.get("content")
        if not isinstance(text, str):
            raise PayloadError("the message has no content")
        at, code = (sms_message.word(fields, name) for name in ("send_time", "dest_code"))
        return sms_message.inbound(
            self,
            request,
            phone=international(number),
            external_id=sms_message.word(fields, "sequence_id")
            or sms_message.own_id(number, at, text, code),
            text=text,
            account=code,
            sent_at=sms_message.moment(at, SHANGHAI, request.received_at),
        )

    def _receipt(self, fields: Mapping[str, Any], request: WebhookRequest) -> Receipt:
        arrived = fields["success"] is True or fields["success"] == "true"
        code = sms_message.word(fields, "err_code")
        reason = _REPORTS.get(code, sms_message.word(fields, "err_msg")[:200])
        return sms_message.receipt(
            self,
            request,
            sms_message.word(fields, "biz_id"),
            Delivery.DELIVERED if arrived else Delivery.FAILED,
            f"{reason} ({code[:64]})".strip() if code else reason,
        )

    def acknowledge(
        self, messages: Sequence[Message], answer: Message | None = None
    ) -> WebhookResponse:
        """What Alibaba looks for is that `code` is a number."""
        return WebhookResponse(
            body='{"code":0,"msg":"接收成功"}', content_type="application/json; charset=utf-8"
        )

    # Out

    def pieces(self, message: Message) -> Sequence[Message]:
        """The text, numbered where it is longer than the variable takes."""
        return sms_message.pieces(message, self.settings.max_characters)

    def send(self, message: Message) -> str:
        text = sms_text.within(message.text, self.settings.max_characters, "the template")
        asked = {
            "Action": "SendSms",
            "PhoneNumbers": domestic(message.address.removeprefix("phone:")),
            "SignName": self.settings.sign_name,
            "TemplateCode": self.settings.template_code,
            "TemplateParam": json.dumps({self.settings.template_variable: text}),
            "OutId": message.id[:255],
        }
        answer = http.call(
            "POST", self.settings.api_url + "/", form=self._signed(asked), explain=_refusal
        ).json()
        code = sms_message.word(answer, "Code")
        if code != "OK":
            raise _failure(code)
        return sms_message.word(answer, "BizId") or message.id

    def _signed(self, asked: Mapping[str, str]) -> dict[str, str | list[str]]:
        common = {
            "Format": "JSON",
            "Version": "2017-05-25",
            "AccessKeyId": self.settings.access_key_id,
            "SignatureMethod": "HMAC-SHA1",
            "SignatureVersion": "1.0",
            "SignatureNonce": uuid.uuid4().hex,
            "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        fields = {**common, **asked}
        secret = self.settings.access_key_secret.get_secret_value()
        return {**fields, "Signature": signature(secret, "POST", fields)}


def signature(secret: str, method: str, fields: Mapping[str, str]) -> str:
    """base64 HMAC-SHA1 over the method and the sorted fields, encoded twice."""

    def encoded(text: str) -> str:
        return quote(text, safe="~")

    query = "&".join(f"{encoded(name)}={encoded(fields[name])}" for name in sorted(fields))
    text = f"{method}&{encoded('/')}&{encoded(query)}"
    digest = hmac.new(f"{secret}&".encode(), text.encode(), hashlib.sha1)
    return base64.b64encode(digest.digest()).decode("ascii")


#: Mobile numbers of mainland China. Abroad, only some of North America's look the same (1 310 ...).
_MAINLAND = re.compile(r"1(3\d|4[5-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])\d{8}", re.ASCII)


def international(number: str) -> str:
    """E.164: mobile numbers of mainland China come without their country."""
    digits = number.strip()
    if digits.startswith(("+", "00")):
        return "+" + digits.removeprefix("+").removeprefix("00")
    if _MAINLAND.fullmatch(digits):
        return f"+86{digits}"
    return f"+{digits}" if digits.isascii() and digits.isdigit() else digits


def domestic(number: str) -> str:
    """As Alibaba takes numbers: without +86, other countries without the plus."""
    return number.removeprefix("+86") if number.startswith("+861") else number.removeprefix("+")


#: https://help.aliyun.com/document_detail/101347.html
_REPORTS = {
    "UNDELIVRD": "the network could not deliver it",
    "EXPIRED": "the phone was off for too long",
    "REJECTED": "the network refused it",
    "REJECTD": "the network refused it",
    "MOBILE_NOT_ON_SERVICE": "the phone is off or the number is out of service",
    "MOBILE_IN_BLACK": "the customer is on a list of those who want no messages",
    "BLACKLIST": "the customer is on a list of those who want no messages",
    "UNSUBSCRIBE": "the customer has opted out",
    "CONTENT_KEYWORD": "a word in the text is not allowed",
    "CONTENT_ERROR": "the text does not fit the template",
    "NO_ROUTE": "there is no route to this number",
    "UNKNOWN": "the network gives no reason",
}
#: https://help.aliyun.com/document_detail/101346.html
_REFUSALS = {
    "isv.MOBILE_NUMBER_ILLEGAL": "the number is not valid",
    "isv.AMOUNT_NOT_ENOUGH": "the account has no credit left",
    "isv.OUT_OF_SERVICE": "the account is suspended",
    "isv.ACCOUNT_ABNORMAL": "the account is suspended",
    "isv.SMS_SIGNATURE_ILLEGAL": "sign_name is not approved",
    "isv.SMS_SIGN_ILLEGAL": "sign_name is not approved",
    "isv.SMS_TEMPLATE_ILLEGAL": "template_code is not approved",
    "isv.TEMPLATE_MISSING_PARAMETERS": "the template has other variables than template_variable",
    "isv.INVALID_PARAMETERS": "a parameter is not valid",
    "isv.PARAM_LENGTH_LIMIT": "the text is too long for the template: lower max_characters",
    "isv.TEMPLATE_PARAMS_ILLEGAL": "the text holds what the template's variable does not take",
    "isv.PARAM_NOT_SUPPORT_URL": "the template's variable takes no web addresses",
    "isv.BLACK_KEY_CONTROL_LIMIT": "a word in the text is not allowed",
    "isv.BLACK_LIST": "the customer is on a list of those who want no messages",
    "isv.DAY_LIMIT_CONTROL": "the account's messages of a day are used up",
    "isv.MONTH_LIMIT_CONTROL": "the account's messages of a month are used up",
}
_AGAIN = {
    "isv.BUSINESS_LIMIT_CONTROL": 60.0,
    "Throttling.User": 2.0,
    "Throttling": 2.0,
    "isp.SYSTEM_ERROR": None,
    "ServiceUnavailable": None,
}


def _failure(code: str) -> Exception:
    if code in _AGAIN:
        return RetryableError(f"Alibaba says {code}", retry_after_seconds=_AGAIN[code])
    if not code:
        return RetryableError("Alibaba's answer cannot be read", uncertain=True)
    return RejectedError(f"{_REFUSALS.get(code, 'Alibaba refused it')} ({code[:64]})")


def _refusal(body: bytes) -> str:
    code = sms_message.word(sms_message.refusal(body), "Code")
    return str(_failure(code)) if code else ""
