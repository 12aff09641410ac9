"""Other people's recorded WeChat payloads, each put through its connector; and the page on them.

`python -m tests.wechat_payloads` writes docs/payloads/wechat.md; a test holds the page to the code.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.errors import PayloadError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message, Notice, Receipt
from connectors import wechat_wire
from infra.local.simulators import Sent, tencent
from tests.make_samples import CHANCE, NOW, WECHAT
from tests.recorded import SHARED, arrived, connector
from tests.samples_tencent import MINIPROGRAM, WECOM, WECOM_KF

PAYLOADS = SHARED / "payloads"
PAGE = Path(__file__).parents[1] / "docs" / "payloads" / "wechat.md"
SOURCES = ("botframework_wechat", "wechatpy", "werobot", "wxjava")
_KEYS = {name: WECHAT[name] for name in ("token", "encoding_aes_key")}
SETTINGS: dict[str, dict[str, Any]] = {
    "wechat": WECHAT,
    "wechat_miniprogram": MINIPROGRAM | _KEYS,
    "wecom": WECOM | _KEYS,
    "wecom_kf": WECOM_KF | _KEYS,
}
_CONNECTORS = {
    "wechat-oa": "wechat",
    "wechat-common": "wechat",
    "wechat-miniprogram": "wechat_miniprogram",
    "wechat-channels": "wechat_miniprogram",
    "wecom": "wecom",
}
#: WeChat's word for a kind of message, where it is not ours.
_OUR_WORD = {"voice": "audio", "shortvideo": "video", "miniprogrampage": "link"}


@dataclass(frozen=True)
class Payload:
    """A line of the index."""

    file: str
    provider: str
    kind: str
    expected: dict[str, str]

    def __str__(self) -> str:
        return self.file

    @property
    def body(self) -> bytes:
        return (PAYLOADS / self.file).read_bytes()

    @property
    def connector(self) -> str:
        return "wecom_kf" if "/cp_WxCpKf" in self.file else _CONNECTORS[self.provider]

    @property
    def modes(self) -> tuple[str, ...]:
        """How it may come in."""
        if self.connector.startswith("wecom"):
            return ("",)
        return ("safe", "compatible", "plain")


def payloads() -> list[Payload]:
    """All of the four sources; none where the shared data is not at hand."""
    if not (PAYLOADS / "INDEX.tsv").exists():
        return []
    with (PAYLOADS / "INDEX.tsv").open(encoding="utf-8", newline="") as index:
        rows = list(csv.DictReader(index, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        Payload(r["file"], r["provider"], r["kind"], json.loads(r["expected"] or "{}"))
        for r in rows
        if r["file"].startswith(SOURCES) and r["provider"] in _CONNECTORS
    ]


def put_in(payload: Payload, mode: str) -> tuple[Connector, WebhookRequest]:
    """The payload as its provider would push it, signed and sealed with secrets made up."""
    settings = SETTINGS[payload.connector] | ({"mode": mode} if mode else {})
    ours = connector(payload.connector, settings, "https://askonce.example/webhooks/inbox")
    receiver = str(settings.get("app_id") or settings["corp_id"])
    return ours, arrived(_sealed(payload.body, receiver, mode), NOW)


def _sealed(body: bytes, receiver: str, mode: str) -> Sent:
    token, key = str(_KEYS["token"]), wechat_wire.aes_key(str(_KEYS["encoding_aes_key"]))
    if mode == "plain":
        return Sent("POST", "/", {}, tencent.signed(token, NOW, CHANCE), body)
    envelope = wechat_wire.encrypt(body, key, receiver, CHANCE)
    query = tencent.signed(token, NOW, CHANCE, envelope)
    sealed = wechat_wire.document({"ToUserName": "x", "Encrypt": envelope})
    if mode == "compatible":  # the clear fields beside the envelope count for nothing
        sealed = sealed.replace("</xml>", "<MsgType>text</MsgType></xml>")
    return Sent("POST", "/", {}, query, sealed.encode())


def outcome(payload: Payload, mode: str) -> Message | Receipt | Notice | str:
    """The one thing that it becomes, or why it is quarantined."""
    ours, request = put_in(payload, mode)
    ours.verify(request)
    try:
        (found,) = ours.parse(request)
    except PayloadError as error:
        return str(error)
    return found


def in_wechat_s_words(message: Message) -> dict[str, str]:
    """What a message keeps, under the names of the index."""
    event = message.event
    return {
        "MsgType": message.kind.value,
        "Event": event.name if event else "",
        "EventKey": event.key if event else "",
        "MsgId": message.external_id,
        "FromUserName": message.address.split(":", 2)[2],
        "ToUserName": message.account,
        "CreateTime": str(int(message.sent_at.timestamp())),
        "Content": message.text,
    }


def wanted(payload: Payload) -> dict[str, str]:
    """The index's expectation, with our words for kinds and events."""
    expected = dict(payload.expected)
    for name in {"MsgType", "Event"} & set(expected):
        word = expected[name].lower()
        expected[name] = _OUR_WORD.get(word, word) if name == "MsgType" else word
    return expected


def deviations(payload: Payload, message: Message) -> list[str]:
    """Fields that the index states and the message does not have so."""
    found = in_wechat_s_words(message)
    return [name for name, text in wanted(payload).items() if found.get(name, "") != text]


#: Why a field is not what the index says.
_REASONS = {
    "MsgType": "a kind that we do not know: `unsupported`, kept whole in `raw`",
    "Content": "it stands in `raw`: only a text message has text",
    "Event": "an event's name in a message that is none",
    "EventKey": "an event's key in a message that is none",
    "AgentID": "not kept: an inbox is one application",
}
#: Why something is no message at all.
_QUARANTINED = {
    "outbound-api:json": "what a server sends, or reads from an archive: no push",
    "message-encrypted": "an envelope for another account inside ours",
    "message:?": "declares a document type, as no provider does",
    "message:change_contact": "a third-party suite's callback: an inbox is an application's",
    "message:register_corp": "a third-party suite's callback: an inbox is an application's",
}


def why(payload: Payload, found: Message | Receipt | Notice | str) -> str:
    """What deviates from the index, and why; '' if nothing does."""
    if isinstance(found, str):
        return _QUARANTINED.get(payload.kind, "an answer to a push, not a push")
    if not isinstance(found, Message):
        return "says that there is something to fetch"
    return "; ".join(f"{name}: {_REASONS[name]}" for name in deviations(payload, found))


def becomes(found: Message | Receipt | Notice | str) -> str:
    """In a word or two."""
    if isinstance(found, str):
        return f"quarantined: {found}"
    if isinstance(found, Notice):
        return "a notice"
    assert isinstance(found, Message)
    if found.event is None:
        return found.kind.value
    key = f" `{found.event.key}`" if found.event.key else ""
    return f"event `{found.event.name}`{key}"


def _lines() -> Iterator[str]:
    for payload in payloads():
        found = outcome(payload, payload.modes[0])
        yield f"| {payload.file} | {payload.connector} | {becomes(found)} | {why(payload, found)} |"


_HEAD = """# Recorded WeChat payloads, and what becomes of them

Written by `python -m tests.wechat_payloads`; `tests/channels/test_wechat_payloads.py` holds it to
the code. Each payload of the public test suites in `shared/data/payloads` is signed and sealed with
secrets made up, in every mode that its inbox may have, and read by its connector; the outcome is
compared field by field with the index. "Deviates" says where a message is not what the index says.

Not counted as deviations: our words for kinds (`voice` is `audio`, `shortvideo` is `video`,
`miniprogrampage` is a `link`) and events' names in lower case. An event's key is its `EventKey`, or
what else tells it from others of its name (`SessionFrom`, `MsgID`, `CardId`, `ChangeType`, ...);
its whole document is kept in `raw` where it has more fields than those. A file without a `MediaId`
becomes an attachment that says so.

| payload | connector | becomes | deviates |
|---|---|---|---|
"""


def page() -> str:
    """The whole of docs/payloads/wechat.md."""
    return _HEAD + "\n".join(_lines()) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
