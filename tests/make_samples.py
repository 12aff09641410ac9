"""Writes tests/samples, the same files every time: `python -m tests.make_samples`.

Most are signed by infra/local/simulators.py with fixed times and ids. Those of RECORDED were
signed by other libraries (CC0) and are copied from the shared data where that is at hand.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt

from chalicelib.schema import digest
from infra.local import simulators
from infra.local.simulators import Sent
from tests import (
    samples_chat_desks,
    samples_desks,
    samples_mail,
    samples_message_desks,
    samples_request_tracker,
    samples_ses,
    samples_sms,
    samples_tencent,
)
from tests.recorded import SAMPLES, SHARED, path_secret

NOW = 1767258000  # 2026-01-01T09:00:00Z
SITE = "https://askonce.example"
CHANCE = bytes(range(16))
SOURCE = "tests/make_samples.py"
STANDARD_SECRET = "whsec_" + base64.b64encode(b"made up for the samples").decode()

Files = Iterator[tuple[str, dict[str, Any]]]


def _sample(
    about: str, sent: Sent, settings: Mapping[str, Any], *expected: Any, now: int = NOW
) -> dict[str, Any]:
    request = {"method": sent.method, "headers": sent.headers, "query": sent.query}
    if secret := path_secret(sent.path):
        request["path_secret"] = secret
    return {
        "about": about,
        "source": SOURCE,
        "settings": settings,
        "now": now,
        "public_url": SITE + sent.path,
        "request": request | _body(sent.body),
        "expected": list(expected),
    }


def _body(content: bytes) -> dict[str, str]:
    try:
        return {"body": content.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(content).decode()}


# WeChat

WECHAT = {
    "app_id": "wx5f0e1c2d3b4a6978",
    "app_secret": "made-up-app-secret",
    "token": "made-up-token",
    "encoding_aes_key": base64.b64encode(b"made up: thirty-two bytes of key").decode()[:43],
}
OPENID = "oSimulated-Openid-0000000001"


def _wechat() -> Files:
    secrets = WECHAT | {"aes_key": WECHAT["encoding_aes_key"]}

    def sample(about: str, fields: dict[str, Any], expected: Any, mode: str = "safe") -> Any:
        sent = simulators.wechat(secrets, OPENID, fields, mode=mode, at=NOW, chance=CHANCE)
        return _sample(about, sent, WECHAT | {"mode": mode}, expected)

    number = 2489535729852890001
    text = {"MsgType": "text", "Content": "Where is my parcel?", "MsgId": number}
    expected: dict[str, Any] = {
        "external_id": str(number),
        "address": f"wechat:{WECHAT['app_id']}:{OPENID}",
        "account": "gh_5f0e1c2d3b4a",
        "kind": "text",
        "text": "Where is my parcel?",
        "sent_at": "2026-01-01T09:00:00Z",
        "evidence": [{"level": "verified", "source": "wechat"}],
    }
    yield "text_simulated", sample("a text as the simulator sends it", text, expected)
    poll = {"MsgType": "poll", "Question": "茶？", "MsgId": number + 1}
    expected = {"kind": "unsupported", "text": "", "raw": {"media_type": "text/xml"}}
    yield "unknown_kind", sample("a kind that we do not know: kept whole", poll, expected)
    voice = {"MsgType": "voice", "MediaId": "media-1", "Format": "speex", "MsgId": number + 2}
    file = {"media_type": "audio/speex", "source": "media-1"}
    expected = {"kind": "audio", "attachments": [file]}
    yield "voice_speex_plain", sample("speex, plain mode", voice, expected, mode="plain")


# Email

EMAIL = {
    "address": "help@shop.example",
    "display_name": "Lantern Tea",
    "signing_secret": STANDARD_SECRET,
    "smtp_url": "smtp://user:made-up-password@127.0.0.1:2525",
}
LI = "li@example.com"


def _word(text: str, charset: str) -> str:
    return f"=?{charset}?B?{base64.b64encode(text.encode(charset)).decode()}?="


def _mail(
    text: str, *, charset: str = "utf-8", label: str = "", kind: str = "plain", **headers: str
) -> bytes:
    """A mail with an 8-bit body; `label` is the charset it claims, `headers` replace the usual."""
    usual = {
        "From": f"Li Wei <{LI}>",
        "To": EMAIL["address"],
        "Subject": "My parcel",
        "Date": "Thu, 01 Jan 2026 16:59:00 +0800",
        "Message-ID": "<parcel-1@example.com>",
        "MIME-Version": "1.0",
        "Content-Type": f"text/{kind}; charset={label or charset}",
        "Content-Transfer-Encoding": "8bit",
    }
    named = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return head.encode("ascii") + b"\r\n" + text.replace("\n", "\r\n").encode(charset)


def _email() -> Files:
    for name, about, raw, envelope, expected in (*_mails(), *_proofs(), *_charsets(), *_replies()):
        told = {"mail_from": LI, "rcpt_to": [EMAIL["address"]], "dmarc": "pass"} | envelope
        sent = simulators.signed_mail(STANDARD_SECRET, raw, told, webhook_id="msg_1", at=NOW)
        yield name, _sample(about, sent, EMAIL, expected)


#: name, about, mail, envelope, what it must give
Mails = Iterator[tuple[str, str, bytes, dict[str, Any], dict[str, Any]]]


def _mails() -> Mails:
    expected = {
        "external_id": "<parcel-1@example.com>",
        "address": "email:li@example.com",
        "account": "help@shop.example",
        "sender_name": "Li Wei",
        "kind": "text",
        "subject": "My parcel",
        "text": "Where is my parcel?",
        "automatic": False,
        "references": [],
        "attachments": [],
        "sent_at": "2026-01-01T08:59:00Z",
        "evidence": [{"level": "verified", "source": "dmarc"}],
    }
    signed = _mail("Where is my parcel?\n\n-- \nLi Wei\nLantern Street 8\n")
    yield "plain_text", "plain text, DMARC passes", signed, {}, expected
    html = (
        "<html><head><style>p {color: red}</style></head><body><p>Where is&nbsp;my parcel?</p>"
        "<script>alert(1)</script><div>Order <b>20260102</b></div></body></html>"
    )
    shown = {"text": "Where is my parcel?\nOrder 20260102"}
    yield "html_only", "what a reader sees of HTML", _mail(html, kind="html"), {}, shown
    file = {"name": "发票.pdf", "media_type": "application/pdf", "size_bytes": 8}
    expected = {"text": "Here is the invoice.", "attachments": [file]}
    yield "attachment", "a file with a Chinese name", _with_file(), {}, expected
    away = _mail("I am away until Monday.", Auto_Submitted="auto-replied")
    yield "out_of_office", "sent by a machine", away, {}, {"automatic": True}
    bounce = _mail("Your mail could not be delivered.", From="postmaster@example.com")
    returned = {"mail_from": "", "dmarc": "none"}
    yield "bounce", "no return path", bounce, returned, {"automatic": True}


def _with_file() -> bytes:
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"Li Wei <{LI}>"
    mail["Message-ID"] = "<file-1@example.com>"
    mail.set_content("Here is the invoice.\n")
    mail.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="发票.pdf")
    mail.set_boundary("=-made-up-boundary")
    return mail.as_bytes()


def _proofs() -> Mails:
    one, two = LI, f"Li <{LI}>, Eve <eve@evil.example>"
    aligned, foreign = ({"dmarc": "none", "dkim": [d]} for d in ("Example.com", "evil.example"))
    for name, about, sender, envelope, level, source in (
        ("dmarc_fail", "only claimed", one, {"dmarc": "fail"}, "claimed", "from_header"),
        ("dkim_aligned", "DKIM of the author's domain", one, aligned, "verified", "dkim"),
        ("dkim_foreign", "DKIM of another domain", one, foreign, "claimed", "from_header"),
        ("two_authors", "DMARC speaks of one of them", two, {}, "claimed", "from_header"),
    ):
        expected = {"address": f"email:{LI}", "evidence": [{"level": level, "source": source}]}
        yield name, about, _mail("Where is my parcel?", From=sender), envelope, expected


def _charsets() -> Mails:
    for name, charset, label, subject, text in (
        ("gbk_labelled_gb2312", "gbk", "gb2312", "关于发票", "朱镕基路的订单，请查收。"),
        ("big5", "big5", "big5", "訂單", "您好，我的訂單尚未收到，請協助查詢。"),
        ("iso_2022_jp", "iso-2022-jp", "iso-2022-jp", "お問い合わせ", "注文がまだ届いていません。"),
    ):
        raw = _mail(text, charset=charset, label=label, Subject=_word(subject, charset))
        yield name, f"a mail in {label}", raw, {}, {"subject": subject, "text": text}


_HISTORIES = {
    "quoted_zh_qq": """------------------ 原始邮件 ------------------
发件人: "客服中心" <help@shop.example>;
发送时间: 2026年1月1日(星期四) 上午10:00
收件人: "李" <li@example.com>;
主题: 回复：订单

您好""",
    "quoted_zh_163": """在 2026-01-01 10:00:00，"客服中心" <help@shop.example> 写道：

>您好""",
    "quoted_en_gmail": """On Thu, Jan 1, 2026 at 10:00 AM Lantern Tea <help@shop.example> wrote:

> Hello Li,""",
}


def _replies() -> Mails:
    own = "It has still not come."
    threaded = {
        "Subject": "Re: My parcel",
        "In_Reply_To": "<a2@shop.example>",
        "References": "<a1@shop.example> <a2@shop.example>",
    }
    expected = {"text": own, "references": ["<a2@shop.example>", "<a1@shop.example>"]}
    for name, history in _HISTORIES.items():
        yield name, "above what it quotes", _mail(f"{own}\n\n{history}", **threaded), {}, expected


# SMS

TWILIO = {
    "account_sid": "AC5ef8732a3c49700934481addd5ce1659",
    "auth_token": "made-up-auth-token",
    "number": "+14155550100",
}


def _sms() -> Files:
    secrets = TWILIO | {"token": TWILIO["auth_token"], "public_url": SITE}
    urls = [f"https://api.twilio.com/2010-04-01/Accounts/AC/Messages/MM/Media/ME{n}" for n in "12"]
    media = ((urls[0], "image/jpeg"), (urls[1], "image/heic"))
    sid = "MM00000000000000000000000000000001"
    expected = {
        "external_id": sid,
        "address": "phone:+8613800138000",
        "kind": "image",
        "text": "",
        "attachments": [{"source": url, "media_type": kind} for url, kind in media],
    }
    sent = simulators.twilio(secrets, "+8613800138000", "", media=media, sid=sid)
    yield "mms_no_text_two_images", _sample("two pictures, no words", sent, TWILIO, expected)


# Web chat

WEBCHAT = {
    "token_secret": "made-up-token-secret-of-enough-characters",
    "identity_secret": "made-up-identity-secret-of-enough-characters",
    "origins": ["https://shop.example"],
}
ORIGIN = WEBCHAT["origins"][0]
VISITOR = "v00112233445566778899aabbccddeeff"


def visitor_token(visitor: str = VISITOR, **claims: Any) -> str:
    """A session token as the connector gives it out for half an hour."""
    usual = {"aud": "askonce:inbox", "org": ORIGIN, "sub": visitor, "exp": NOW + 1800, "iat": NOW}
    return jwt.encode(usual | claims, str(WEBCHAT["token_secret"]), algorithm="HS256")


def _webchat() -> Files:
    def sample(about: str, token: str, said: dict[str, Any], expected: Any) -> dict[str, Any]:
        line = {"text": "", "client_id": "line-0001"} | said
        sent = simulators.webchat_message(token, ORIGIN, **line)
        return _sample(about, sent, WEBCHAT, expected)

    expected = {
        "external_id": "line-0001",
        "address": f"webchat:{VISITOR}",
        "account": ORIGIN,
        "kind": "text",
        "text": "Where is my parcel? 📦",
        "evidence": [{"level": "verified", "source": "visitor_token"}],
    }
    said: dict[str, Any] = {"text": "Where is my parcel? 📦"}
    yield "text", sample("a line of a visitor", visitor_token(), said, expected)
    picture = simulators.File("../tea.png", "image/png", b"\x89PNG")
    upload = f"uploads/{digest('inbox', f'webchat:{VISITOR}')}/{'0' * 32}"
    said = {"file": picture, "upload": upload}
    file = {"name": "tea.png", "media_type": "image/png", "source": upload}
    expected = {"kind": "image", "attachments": [file]}
    yield "file", sample("a picture; its name is a name only", visitor_token(), said, expected)
    known = {"sub": "C-7", "email": "Li@example.com", "phone": "+8613800138000", "name": "Li Wei"}
    proven = ("external:C-7", "email:li@example.com", "phone:+8613800138000")
    signed = [{"address": a, "level": "verified", "source": "signed_identity"} for a in proven]
    expected = {
        "address": "webchat:c-of-C-7",
        "sender_name": "Li Wei",
        "evidence": [{"address": "webchat:c-of-C-7", "source": "visitor_token"}, *signed],
    }
    token = visitor_token("c-of-C-7", known=known)
    yield "known_customer", sample("the site vouches", token, {"text": "It is me."}, expected)


# Helpdesks

AT = "2026-01-01T08:59:00Z"


SAME_PERSON = "same-person: li@example.com"


def _webhook_desk() -> Files:
    reply = {"type": "reply.created", "reply_id": "R1", "text": "Tomorrow. 明天", "author": "Kim"}
    replied = {"external_id": "R1", "text": "Tomorrow. 明天", "author": "Kim", "sent_at": AT}
    moved = {"external_id": "msg_1", "at": AT}
    for name, event, expected in (
        ("reply", reply, [replied]),
        ("note", {"type": "note.created", "text": "Nobody may see this"}, []),
        ("closed", {"type": "ticket.closed"}, [moved | {"state": "closed"}]),
        ("reopened", {"type": "ticket.reopened"}, [moved | {"state": "open"}]),
        (
            "set_apart",
            {"type": "message.set_apart", "message_id": "m1", "author": "Kim"},
            [moved | {"kind": "not_a_repeat", "message_id": "m1", "by": "Kim"}],
        ),
        (
            "same_person",
            {"type": "note.created", "text": SAME_PERSON, "author": "Kim"},
            [moved | {"kind": "same_person", "address": "email:li@example.com", "by": "Kim"}],
        ),
    ):
        told = event | {"ticket_id": "T7", "at": "2026-01-01T09:59:00+01:00"}
        yield name, _desk_sample("https://desk.example/askonce", told, expected)


def _sandbox_desk() -> Files:
    replied = {"external_id": "E1", "text": "Tomorrow.", "author": "Kim", "sent_at": AT}
    moved = {"external_id": "E1", "at": AT}
    for name, event, expected in (
        ("reply", {"text": "Tomorrow.", "agent": "Kim"}, [replied]),
        ("note", {"text": "Nobody may see this"}, []),
        ("closed", {}, [moved | {"state": "closed"}]),
        ("reopened", {}, [moved | {"state": "open"}]),
        (
            "set_apart",
            {"message": "m1", "agent": "Kim"},
            [moved | {"kind": "not_a_repeat", "message_id": "m1", "by": "Kim"}],
        ),
        (
            "same_person",
            {"type": "note", "text": SAME_PERSON, "agent": "Kim"},
            [moved | {"kind": "same_person", "address": "email:li@example.com", "by": "Kim"}],
        ),
    ):
        told = {"type": name, "ticket": "T7", "id": "E1", "at": AT} | event
        yield name, _desk_sample("http://127.0.0.1:8700", told, expected)


def _desk_sample(url: str, event: Any, expected: list[dict[str, Any]]) -> dict[str, Any]:
    body = json.dumps(event, ensure_ascii=False).encode()
    headers = simulators.standard_webhook(STANDARD_SECRET, body, webhook_id="msg_1", at=NOW)
    sent = Sent("POST", "/replies/desk", headers | {"Content-Type": "application/json"}, {}, body)
    settings = {"url": url, "secret": STANDARD_SECRET}
    about = f"an agent's webhook: {event['type']}"
    return _sample(about, sent, settings, *(e | {"ticket_id": "T7"} for e in expected))


def simulated() -> dict[str, dict[str, Any]]:
    """{file below tests/samples: its content} of all that the simulators sign."""
    folders = {
        "wechat": _wechat,
        "email_mime": _email,
        "sms_twilio": _sms,
        "webchat": _webchat,
        "helpdesks/webhook": _webhook_desk,
        "helpdesks/sandbox": _sandbox_desk,
    }
    return (
        {
            f"{folder}/{name}.json": content
            for folder, made in folders.items()
            for name, content in made()
        }
        | samples_sms.simulated()
        | samples_tencent.simulated()
        | samples_mail.simulated()
        | samples_ses.simulated()
        | samples_desks.simulated()
        | samples_chat_desks.simulated()
        | samples_request_tracker.simulated()
        | samples_message_desks.simulated()
    )


# Signed by wechatpy 1.8 and twilio 9.13, not by us

#: {case of generated_signed: (file, what it must give)}
RECORDED: dict[str, tuple[str, dict[str, Any]]] = {
    "wechat-oa__safe_text_0": ("wechat/text_safe", {
        "external_id": "2489535729852891325", "kind": "text",
        "text": "你好，我想问一下订单什么时候发货？", "sent_at": "2025-11-22T18:53:33Z"}),
    "wechat-oa__safe_text_2": ("wechat/text_markup", {"text": "😀表情 & <标签> ]]> 测试"}),
    "wechat-oa__safe_text_5": ("wechat/text_blanks_kept", {"text": "  前后有空格  "}),
    "wechat-oa__plain_text_1": ("wechat/text_plain", {
        "kind": "text", "text": "退货流程是什么"}),
    "wechat-oa__compat_text": ("wechat/text_compatible", {
        "kind": "text", "text": "你好，我想问一下订单什么时候发货？"}),
    "wechat-oa__safe_image_8": ("wechat/image", {"kind": "image", "attachments": [{
        "media_type": "image/jpeg",
        "source": "lpsournyxdbi6p16xrye9wo9uqsdf813cr3u1hexlh73jb5xp67g1sguhzsdw8aq"}]}),
    "wechat-oa__safe_voice_9": ("wechat/voice_recognised", {"kind": "audio", "attachments": [{
        "media_type": "audio/amr", "transcript": "我要查订单。",
        "source": "p94mwzs54w2lovttnns28vaojhb83v6mq8sye2nja3jgzdul48vwpme0rqspya0j"}]}),
    "wechat-oa__safe_voice_no_recognition_10": ("wechat/voice", {
        "kind": "audio", "attachments": [{"media_type": "audio/amr", "transcript": None}]}),
    "wechat-oa__safe_video_11": ("wechat/video", {
        "kind": "video", "attachments": [{"media_type": "video/mp4"}]}),
    "wechat-oa__safe_shortvideo_12": ("wechat/shortvideo", {
        "kind": "video", "attachments": [{"media_type": "video/mp4"}]}),
    "wechat-oa__safe_location_13": ("wechat/location", {"kind": "location", "location": {
        "latitude": 23.134521, "longitude": 113.358803, "label": "广东省广州市海珠区"}}),
    "wechat-oa__safe_link_14": ("wechat/link", {
        "kind": "link", "text": "标题&amp;", "link": {
            "url": "https://example.com/?a=1&b=2", "title": "标题&amp;", "description": "描述"}}),
    "wechat-oa__safe_file_type_unknown_to_wechatpy_15": ("wechat/file", {
        "kind": "file", "attachments": [{
            "name": "合同.pdf", "size_bytes": 123456, "source": None,
            "unavailable": "WeChat hands out files of this kind only in its own client"}]}),
    "wechat-oa__safe_event_subscribe_16": ("wechat/event_subscribe", {
        "kind": "event", "event": {"name": "subscribe", "key": ""},
        "external_id": "oNOd8r0q8C-mSiWMFGdfEv7o9_NM-1762614275-subscribe-"}),
    "wechat-oa__safe_event_subscribe_qrscene_17": ("wechat/event_subscribe_by_code", {
        "kind": "event", "event": {"name": "subscribe", "key": "qrscene_order_42"}}),
    "wechat-oa__safe_event_unsubscribe_18": ("wechat/event_unsubscribe", {
        "kind": "event", "event": {"name": "unsubscribe", "key": ""}}),
    "wechat-oa__safe_event_SCAN_19": ("wechat/event_scan", {
        "kind": "event", "event": {"name": "scan", "key": "order_42"}}),
    "wechat-oa__safe_event_CLICK_20": ("wechat/event_click", {
        "kind": "event", "event": {"name": "click", "key": "MENU_HELP"}}),
    "wechat-oa__plain_event_VIEW_21": ("wechat/event_view_plain", {
        "kind": "event", "event": {"name": "view", "key": "https://example.com/"}}),
    "wechat-oa__safe_event_LOCATION_22": ("wechat/event_location", {
        "kind": "event", "event": {"name": "location", "key": ""}}),
    "twilio__sms_0": ("sms_twilio/text", {
        "external_id": "SM28986b8bde9aecb089ea5aefe2ee3caa", "address": "phone:+8613854110268",
        "account": "+14155550100", "kind": "text", "text": "你好，我想问一下订单什么时候发货？",
        "attachments": [], "evidence": [{"level": "verified", "source": "sms"}]}),
    "twilio__sms_2": ("sms_twilio/emoji", {"text": "😀表情 & <标签> ]]> 测试"}),
    "twilio__sms_5": ("sms_twilio/blanks_kept", {"text": "  前后有空格  "}),
    "twilio__mms_two_images": ("sms_twilio/mms_text_and_images", {
        "kind": "text", "text": "看图", "attachments": [
            {"media_type": "image/jpeg"}, {"media_type": "image/heic"}]}),
    "twilio__new_unknown_parameter": ("sms_twilio/unknown_parameter", {"text": "hi"}),
}  # fmt: skip


def recorded() -> Files:
    """The same for the requests of RECORDED; nothing where the shared data is not at hand."""
    for case, (name, expected) in RECORDED.items():
        path = SHARED / "payloads" / "generated_signed" / f"{case}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            yield f"{name}.json", _recorded(record, expected)
    yield from samples_sms.recorded()
    yield from samples_tencent.recorded()
    yield from samples_mail.recorded()


def _recorded(record: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    parts = urlsplit(record["request"]["url"])
    query = dict(parse_qsl(parts.query))
    secret, provider = record["secret"], record["provider"]
    if provider == "twilio":
        settings = TWILIO | secret
    else:
        settings = {
            "app_id": secret["appid"],
            "app_secret": WECHAT["app_secret"],
            "token": secret["token"],
            "encoding_aes_key": secret["encoding_aes_key"],
            "mode": record["expected"]["mode"].replace("compat", "compatible"),
        }
    request = {key: record["request"][key] for key in ("method", "headers", "body")}
    return {
        "about": record["how"],
        "source": f"{provider}/{record['case']} (CC0)",
        "settings": settings,
        "now": int(query.get("timestamp", NOW)),
        "public_url": record["request"]["url"].partition("?")[0],
        "request": request | {"query": query},
        "expected": [expected],
    }


def written(content: dict[str, Any]) -> str:
    """A sample as its file holds it."""
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    for name, content in (simulated() | dict(recorded())).items():
        path = SAMPLES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written(content), encoding="utf-8")


if __name__ == "__main__":
    main()
