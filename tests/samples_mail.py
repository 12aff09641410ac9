"""Samples of Mailgun, SendGrid and Postmark; make_samples writes them with its own."""

import base64
import json
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

from infra.local.simulators import File, Sent, mail
from tests.recorded import SHARED

Files = Iterator[tuple[str, dict[str, Any]]]

PATH_SECRET = "made-up-end-of-the-address"
REPLY_SECRET = "made-up-reply-secret"
MAILBOX = {
    "address": "help@shop.example",
    "display_name": "Lantern Tea",
    "reply_secret": REPLY_SECRET,
}
MAILGUN = MAILBOX | {
    "domain": "shop.example",
    "signing_key": "made-up-signing-key",
    "path_secret": PATH_SECRET,
    "api_key": "made-up-api-key",
}
SENDGRID = MAILBOX | {"public_key": mail.sendgrid_public_key(), "api_key": "SG.made-up-api-key"}
LOGIN = "postmark:made-up-password"
POSTMARK = MAILBOX | {
    "basic_auth": LOGIN,
    "path_secret": PATH_SECRET,
    "server_token": "made-up-server-token",
}
LI = "li@example.com"
PATH = "/webhooks/inbox"
SECRET_PATH = f"{PATH}/{PATH_SECRET}"
OUR_ID = "m" + "a" * 26
TOKEN = "5" * 50
TEXT: dict[str, Any] = {
    "external_id": "<parcel-1@example.com>",
    "address": f"email:{LI}",
    "account": "help@shop.example",
    "sender_name": "Li Wei",
    "kind": "text",
    "subject": "包裹",
    "text": "Where is my parcel? 我的包裹呢？",
    "automatic": False,
    "references": [],
    "sent_at": "2026-01-01T09:00:00Z",
}
CLAIMED = [{"address": f"email:{LI}", "level": "claimed", "source": "from_header"}]
VERIFIED = [{"address": f"email:{LI}", "level": "verified", "source": "dkim"}]
PICTURE = {"name": "茶.png", "media_type": "image/png", "size_bytes": 4}


def written(**more: Any) -> EmailMessage:
    """Li's mail."""
    from tests.make_samples import NOW

    usual: dict[str, Any] = {
        "sender": LI,
        "name": "Li Wei",
        "to": "help@shop.example",
        "text": TEXT["text"],
        "subject": TEXT["subject"],
        "message_id": TEXT["external_id"],
        "at": NOW,
    }
    made = mail.mail(**usual | more)
    if made.is_multipart():
        made.set_boundary("=-made-up-boundary")
    return made


def _sample(about: str, sent: Sent, settings: dict[str, Any], *expected: Any) -> dict[str, Any]:
    from tests import make_samples

    return make_samples._sample(about, sent, settings, *expected)


def delivered(event: str, **more: Any) -> dict[str, Any]:
    """An event of Mailgun about something we sent."""
    return {"event": event, "message": {"headers": {"message-id": f"{OUR_ID}@shop.example"}}} | more


def receipt(state: str, reason: str = "") -> dict[str, Any]:
    return {"external_id": f"<{OUR_ID}@shop.example>", "state": state, "reason": reason}


def _mailgun() -> Files:
    from tests.make_samples import NOW

    key = str(MAILGUN["signing_key"])
    proof: dict[str, Any] = {"path": SECRET_PATH, "at": NOW, "token": TOKEN}

    def event(about: str, told: dict[str, Any], *expected: Any) -> dict[str, Any]:
        return _sample(about, mail.mailgun_event(key, told, **proof), MAILGUN, *expected)

    def whole(about: str, raw: bytes, expected: Any) -> dict[str, Any]:
        envelope: dict[str, Any] = {"sender": LI, "recipient": "help@shop.example", **proof}
        return _sample(about, mail.mailgun_mime(key, raw, **envelope), MAILGUN, expected)

    def apart(about: str, files: list[File], expected: Any) -> dict[str, Any]:
        made = written()
        fields = {
            "recipient": "help@shop.example",
            "sender": LI,
            "from": str(made["From"]),
            "subject": TEXT["subject"],
            "body-plain": TEXT["text"],
            "body-html": "<p>Where is my <b>parcel</b>?</p>",
        }
        listed = [(name, str(value)) for name, value in made.items()]
        sent = mail.mailgun_apart(key, fields, listed, files=files, **proof)
        return _sample(about, sent, MAILGUN, expected)

    failed = {
        "severity": "permanent",
        "delivery-status": {"code": 550, "message": "5.1.1 no such mailbox"},
    }
    yield "delivered", event("it arrived", delivered("delivered"), receipt("delivered"))
    why = receipt("failed", "it could not be delivered: 5.1.1 no such mailbox")
    yield "bounced", event("it did not arrive", delivered("failed", **failed), why)
    yield "deferred", event("Mailgun tries on", delivered("failed", severity="temporary"))
    yield "opened", event("says nothing", delivered("opened"))
    picture = File("../茶.png", "image/png", b"\x89PNG")
    expected = TEXT | {"evidence": CLAIMED, "attachments": [PICTURE]}
    yield "apart_with_file", apart("a form with a file", [picture], expected)
    expected = TEXT | {"evidence": CLAIMED, "attachments": []}
    yield "apart", apart("a mail in fields", [], expected)
    forged = written()
    forged["X-Mailgun-Dkim-Check-Result"] = "Pass"
    yield "forged_verdict", whole("the sender wrote the verdict", forged.as_bytes(), expected)
    raw = mail.mailgun_verdict(written(), "Pass")
    yield "mime", whole("the mail itself, signed", raw, TEXT | {"evidence": VERIFIED})


def _sendgrid() -> Files:
    from tests.make_samples import NOW

    envelope = json.dumps({"to": ["help@shop.example"], "from": LI})

    def inbound(about: str, fields: dict[str, Any], expected: Any, *files: File) -> dict[str, Any]:
        sent = mail.sendgrid_mail(fields | {"envelope": envelope}, files=files, path=PATH, at=NOW)
        return _sample(about, sent, SENDGRID, expected)

    def events(about: str, told: list[Any], *expected: Any) -> dict[str, Any]:
        return _sample(about, mail.sendgrid_events(told, path=PATH, at=NOW), SENDGRID, *expected)

    ours = {"askonce_id": OUR_ID, "smtp-id": "<x@ismtpd.example>", "email": LI}
    told = [
        {**ours, "event": "processed"},
        {**ours, "event": "deferred", "response": "busy"},
        {**ours, "event": "delivered", "response": "250 OK"},
        {**ours, "event": "bounce", "type": "bounce", "reason": "550 no such mailbox"},
        "no event",
    ]
    why = receipt("failed", "it could not be delivered: 550 no such mailbox")
    yield "events", events("a batch; one is none", told, receipt("delivered"), why)
    head = "".join(f"{k}: {v}\n" for k, v in written().items() if k != "Subject")
    apart = {
        "headers": head,
        "from": f"Li Wei <{LI}>",
        "subject": TEXT["subject"].encode("gbk"),
        "text": TEXT["text"].encode("gbk"),
        "html": "<p>我的包裹呢？</p>".encode(),
        "charsets": json.dumps({"text": "gb2312", "subject": "gbk", "html": "UTF-8"}),
        "attachment-info": json.dumps(
            {"attachment1": {"filename": "茶.png", "type": "image/png", "content-id": "c1"}}
        ),
        "dkim": "{@example.com : fail}",
    }
    picture = File("x.png", "image/png", b"\x89PNG")
    expected = TEXT | {"evidence": CLAIMED, "attachments": [PICTURE]}
    yield "apart_gbk", inbound("fields in charsets of their own", apart, expected, picture)
    whole = {"email": written().as_bytes(), "dkim": "{@example.com : pass}", "SPF": "pass"}
    other = whole | {"dkim": "{@mail.example.com : pass, @evil.example : pass}"}
    expected = TEXT | {"evidence": CLAIMED}
    yield "raw_foreign_dkim", inbound("signatures of other domains", other, expected)
    yield "raw", inbound("the mail itself, signed", whole, TEXT | {"evidence": VERIFIED})


def _postmark() -> Files:
    def sample(about: str, told: dict[str, Any], *expected: Any) -> dict[str, Any]:
        sent = mail.postmark(told, path=SECRET_PATH, login=LOGIN)
        return _sample(about, sent, POSTMARK, *expected)

    ours = {"MessageID": "5a0b", "Metadata": {"askonce_id": OUR_ID}}
    bounce = {
        "RecordType": "Bounce",
        "Type": "HardBounce",
        "Description": "The server was unable to deliver your message.",
        "Details": "smtp;550 no such mailbox",
    }
    why = "The server was unable to deliver your message. (smtp;550 no such mailbox)"
    yield "bounce", sample("it did not arrive", bounce | ours, receipt("failed", why))
    away = {"RecordType": "Bounce", "Type": "AutoResponder"}
    yield "auto_responder", sample("a machine answered: it arrived", away | ours)
    arrived = {"RecordType": "Delivery", "Recipient": LI}
    yield "delivery", sample("it arrived", arrived | ours, receipt("delivered"))
    spam = {"RecordType": "SpamComplaint", "Email": LI}
    why = "the recipient reported it as spam"
    yield "spam_complaint", sample("reported", spam | ours, receipt("failed", why))
    yield "open", sample("says nothing", {"RecordType": "Open"} | ours)
    told = mail.postmark_mail(written(), sender=LI, recipient="help@shop.example")
    told["Headers"].append({"Name": "X-Spam-Tests", "Value": "DKIM_VALID, DKIM_VALID_AU"})
    expected = TEXT | {"evidence": CLAIMED}
    yield "raw", sample("the mail itself; its headers prove nothing", told, expected)
    del told["RawEmail"]
    file = {
        "Name": "茶.png",
        "Content": base64.b64encode(b"\x89PNG").decode(),
        "ContentType": "image/png",
        "ContentID": "c1",
    }
    told |= {"Attachments": [file], "HtmlBody": "<p>我的包裹呢？</p>"}
    yield "apart", sample("a mail in fields", told, expected | {"attachments": [PICTURE]})


def simulated() -> dict[str, dict[str, Any]]:
    """{file below tests/samples: its content}."""
    folders = {
        "email_mailgun": _mailgun,
        "email_sendgrid": _sendgrid,
        "email_postmark": _postmark,
    }
    return {
        f"{folder}/{name}.json": content
        for folder, made in folders.items()
        for name, content in made()
    }


#: {case of generated_signed: (file, its time, what it must give)}
RECORDED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "mailgun__route_form": ("email_mailgun/recorded_form", 1760545746, {
        "external_id": "<a@qq.com>", "address": "email:zhangsan@qq.com", "sender_name": "张三",
        "subject": "Re: 订单", "text": "请尽快处理。", "references": ["<b@example.com>"]}),
    "mailgun__route_mime": ("email_mailgun/recorded_mime", 1760545746, {
        "subject": "订单什么时候发货", "text": "您好，订单什么时候发货？"}),
    "sendgrid__inbound_parsed_gb18030": ("email_sendgrid/recorded_apart", 1784802800, {
        "subject": "订单", "text": "您好，𠮷", "address": "email:zhangsan@qq.com"}),
    "sendgrid__inbound_raw_mime": ("email_sendgrid/recorded_raw", 1784802800, {
        "subject": "订单什么时候发货", "text": "您好，订单什么时候发货？"}),
    "postmark__basic_auth": ("email_postmark/recorded", 1767323045, {
        "external_id": "<a@qq.com>", "sender_name": "张三", "text": "请尽快处理。"}),
}  # fmt: skip


def recorded() -> Files:
    """Requests that were not made by us (CC0); Mailgun's address ends in a secret of ours."""
    for case, (name, now, expected) in RECORDED.items():
        path = SHARED / "payloads" / "generated_signed" / f"{case}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            yield f"{name}.json", _recorded(record, now, expected)


def _recorded(record: dict[str, Any], now: int, expected: dict[str, Any]) -> dict[str, Any]:
    secret = record["secret"]
    match record["provider"]:
        case "mailgun":
            settings = MAILGUN | {"signing_key": secret["signing_key"]}
        case "sendgrid":
            settings = SENDGRID | {"public_key": secret["public_key_der_b64"]}
        case _:
            settings = POSTMARK | {"basic_auth": base64.b64decode(secret["basic"]).decode()}
    request = {k: v for k, v in record["request"].items() if k != "url"} | {"query": {}}
    if "path_secret" in settings:
        request["path_secret"] = PATH_SECRET
    return {
        "about": record["how"] or record["case"],
        "source": f"{record['provider']}/{record['case']} (CC0)",
        "settings": settings,
        "now": now,
        "public_url": record["request"]["url"],
        "request": request,
        "expected": [expected],
    }
