"""What to do in a provider's console so that it calls an inbox: `askonce check --stage` prints it.

{url} is the inbox's address. Consoles change: a menu may be called otherwise, what to enter stays.
"""

from collections.abc import Sequence

#: Connector -> steps, in order.
STEPS: dict[str, Sequence[str]] = {
    "email_mailgun": (
        "Send > Receiving > Create route: match recipient {address}; action forward to {url}",
        "Send > Webhooks: delivered, permanent failure, spam complaints go to {url}, too",
        "In the domain's settings switch the spam filter on: it brings the DKIM verdict",
    ),
    "email_mime": (
        "Have whatever receives mail for {address} POST each one to {url}, raw and signed",
        "docs/email.md, Raw mail from your own server, shows how, with a program to copy",
    ),
    "email_postmark": (
        "Server > Default inbound stream > Settings: webhook {url}, with name:password@ before "
        "the host where basic_auth is set",
        "There, switch on: Include raw email content in JSON payload",
        "Server > the outbound stream > Webhooks: bounce, delivery, spam complaint to {url}, too",
    ),
    "email_sendgrid": (
        "Settings > Inbound Parse > Add host & URL: the host of {address}, URL {url}",
        "Switch on POST the raw, full MIME message; give it a security policy with a signature",
        "Settings > Mail settings > Event webhook: {url}, signed; delivered, bounced, dropped, "
        "spam reports",
        "Both public keys go into public_key",
    ),
    "email_ses": (
        "A stack with SesRecipients has its receipt rule already: run the command in its output "
        "ActivateMailRules once",
        "A topic of another stack: subscribe {url} to it by HTTPS, without raw delivery; AskOnce "
        "confirms by itself",
    ),
    "sms_aliyun": (
        "短信服务 > 系统设置 > 通用设置 > 国内消息设置: 上行短信 (SmsUp), HTTP批量推送模式, "
        "address {url}",
        "There, 状态报告 (SmsReport) likewise, the same address",
    ),
    "sms_aws": (
        "End User Messaging > SMS > Phone numbers > {number} > Two-way SMS: enable, destination "
        "Amazon SNS, the topic {topic_arns}",
        "The stack's own topic calls its function by itself; to another one subscribe {url} by "
        "HTTPS, without raw delivery",
        "Receipts: a configuration set with an event destination to the same topic",
    ),
    "sms_tencent": (
        "短信 > 应用管理 > 应用列表 > {sdk_app_id} > 事件回调配置: 短信回复 (回复短信回调), "
        "address {url}",
        "There, 短信下发状态 likewise, the same address",
    ),
    "sms_twilio": (
        "Phone Numbers > Manage > Active numbers > {number} > Messaging configuration",
        "A message comes in: Webhook, {url}, HTTP POST",
        "Primary handler fails: {url}, HTTP POST. Without it Twilio does not try again",
    ),
    "sms_vonage": (
        "API settings > SMS settings: inbound SMS webhooks {url}, delivery receipts {url}, "
        "method POST-JSON; or in your application > Messages: inbound URL and status URL",
        "There, switch on signed webhooks, with the method that signature_method names",
    ),
    "webchat": (
        'Put this before </body> of your pages: <script src="{widget}" async></script>',
        "origins must list them, and the stack's parameter WebChatOrigins, for uploads",
    ),
    "wechat": (
        "公众平台 > 设置与开发 > 基本配置 (开发接口管理) > 服务器配置: URL {url}",
        "Token, EncodingAESKey as in your secrets; 消息加解密方式: {mode} "
        "(safe 安全模式, compatible 兼容模式, plain 明文模式)",
        "提交, which sends a probe, then 启用",
        "There, IP白名单: the fixed address that your stack calls from (docs/wechat.md)",
    ),
    "wechat_miniprogram": (
        "小程序后台 > 开发管理 > 开发设置 > 消息推送: URL {url}",
        "Token, EncodingAESKey as in your secrets; mode {mode}; XML or JSON, both are read",
        "提交, which sends a probe; then 功能 > 客服: switch customer service on",
        "There, IP白名单: the fixed address that your stack calls from (docs/wechat.md)",
    ),
    "wecom": (
        "管理后台 > 应用管理 > the application > 接收消息 > 设置API接收: URL {url}",
        "Token, EncodingAESKey as in your secrets; 保存, which sends a probe",
        "企业可信IP: the fixed address that your stack calls from (docs/wechat.md)",
    ),
    "wecom_kf": (
        "管理后台 > 应用管理 > 微信客服 > API: 回调 URL {url}",
        "Token, EncodingAESKey as in your secrets; 完成, which sends a probe",
        "Let the API manage the accounts of 微信客服 that customers write to",
        "企业可信IP: the fixed address that your stack calls from (docs/wechat.md)",
    ),
}
#: For a connector that is not listed above.
ANY: Sequence[str] = ("Enter {url} where the provider wants to know its webhook",)


def steps(connector: str, told: dict[str, str]) -> list[str]:
    """What to do, in order; `told` fills in the address and the inbox's own settings."""
    return [step.format_map(_Told(told)) for step in STEPS.get(connector, ANY)]


class _Told(dict[str, str]):
    """A setting that an inbox does not have keeps its name."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"
