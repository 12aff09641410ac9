"""Which connectors and helpdesks there are: one line each, imported when one is first used.

The key is the module's name, the class's `name`, and the folder of its samples. Being here is
being tested (tests/test_conformance.py).
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from chalicelib.ports import Connector, Helpdesk

_CONNECTORS = {
    "email_mailgun": "EmailMailgun",
    "email_mime": "EmailMime",
    "email_postmark": "EmailPostmark",
    "email_sendgrid": "EmailSendGrid",
    "email_ses": "EmailSes",
    "sms_aliyun": "AliyunSms",
    "sms_aws": "AwsSms",
    "sms_tencent": "TencentSms",
    "sms_twilio": "TwilioSms",
    "sms_vonage": "VonageSms",
    "webchat": "WebChat",
    "wechat": "WeChat",
    "wechat_miniprogram": "MiniProgram",
    "wecom": "WeCom",
    "wecom_kf": "WeComKf",
}
_HELPDESKS = {
    "chatwoot": "Chatwoot",
    "freshdesk": "Freshdesk",
    "intercom": "Intercom",
    "qiyu": "Qiyu",
    "request_tracker": "RequestTracker",
    "sandbox": "Sandbox",
    "webhook": "WebhookDesk",
    "zammad": "Zammad",
    "zendesk": "Zendesk",
}


def _lazily(package: str, classes: Mapping[str, str]) -> dict[str, Callable[[], Any]]:
    def load(module: str, name: str) -> Any:
        return getattr(import_module(f"connectors.{package}.{module}"), name)

    return {m: (lambda m=m, c=c: load(m, c)) for m, c in classes.items()}  # type: ignore[misc]


CONNECTORS = cast(Mapping[str, Callable[[], type[Connector]]], _lazily("channels", _CONNECTORS))
HELPDESKS = cast(Mapping[str, Callable[[], type[Helpdesk]]], _lazily("helpdesks", _HELPDESKS))
