"""A fake of Qiyu's message interface: it keeps visitors, sessions, messages and files.

Each request is compared with a JSON Schema of the call, written from the vendor's page, and its
checksum with the formula there:
https://qiyukf.com/newdoc/html/message_interface.html
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

from tests.desk_server import Asked, Said
from tests.desks.contract import files, is_form

APP_KEY, APP_SECRET = "app-key", "app-secret"
_NOTE = "askonce_note_"
UID, STAFF = "q1", "lantian"


def _object(required: str, **properties: Any) -> dict[str, Any]:
    """Just these, and the first ones always."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_TEXT, _NUMBER = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
_MD5 = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_PICTURE = _object("url size md5", url=_TEXT, size=_NUMBER, md5=_MD5, w=_NUMBER, h=_NUMBER)
_AUDIO = _object("url size md5 dur", url=_TEXT, size=_NUMBER, md5=_MD5, dur=_NUMBER)


def _message(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    return _object("uid msgType content", uid=_TEXT, msgType={"const": kind}, content=content)


_LINE = _object("key", key=_TEXT, label=_TEXT, value=_TEXT, index={"type": "integer", "minimum": 0})
#: Paths, and what their bodies must be; what is not here is a call that we do not make.
_CALLS: dict[str, dict[str, Any]] = {
    "/message/send": {
        "oneOf": [
            _message("TEXT", _TEXT | {"maxLength": 4000}),
            _message("PICTURE", _PICTURE),
            _message("AUDIO", _AUDIO),
        ]
    },
    "/event/applyStaff": _object(
        "uid", uid=_TEXT, staffType={"enum": [0, 1]}, groupId=_NUMBER, fromTitle={"type": "string"}
    ),
    "/event/updateUInfo": _object(
        "uid userinfo", uid=_TEXT, userinfo={"type": "array", "items": _LINE, "minItems": 1}
    ),
    "/event/queryQueueStatus": _object("uid", uid=_TEXT),
}


def mistake_in(asked: Asked) -> str:
    """What is wrong with a request; '' if nothing."""
    path = asked.path.removeprefix("/openapi")
    if asked.method != "POST":
        return f"{asked.method} is none of its methods"
    if path == "/message/uploadFile":
        names = [name for name, _, _ in files(asked)] if is_form(asked) else []
        return "" if len(names) == 1 else "a form with one file is wanted"
    if path not in _CALLS:
        return f"no call of ours: {path}"
    if asked.headers.get("content-type") != "application/json;charset=utf-8":
        return "the type is not as documented"
    return "; ".join(
        f"{e.json_path}: {e.message}"
        for e in Draft202012Validator(_CALLS[path]).iter_errors(asked.json)
    )


@dataclass
class Visitor:
    """What Qiyu knows of a uid."""

    profile: dict[str, str] = field(default_factory=dict)
    #: '', or who has the visitor: an agent, the queue, the list of messages left, a robot.
    held_by: str = ""
    messages: list[tuple[str, Any]] = field(default_factory=list)
    applied: int = 0
    group: int | None = None

    @property
    def texts(self) -> list[str]:
        """What was written, in order."""
        return [content for kind, content in self.messages if kind == "TEXT"]


class FakeQiyu:
    """What the server plays."""

    def __init__(self) -> None:
        self.visitors: dict[str, Visitor] = {}
        self.files: list[tuple[str, bytes]] = []
        self.mistakes: list[str] = []
        #: What asking for an agent gives: 200, or 14005, 14006, 14010.
        self.staff = 200

    def end(self, uid: str = UID) -> None:
        """The session is over."""
        self.visitors[uid].held_by = ""

    def shown(self) -> dict[str, list[str]]:
        """{visitor: what was written}, and the notes of the profile in brackets."""
        return {
            uid: [*v.texts, *(f"[{v.profile[k]}]" for k in v.profile if k.startswith(_NOTE))]
            for uid, v in self.visitors.items()
        }

    def answer(self, asked: Asked) -> Said:
        """Act, and say what came of it: by a code in the body."""
        if mistake := mistake_in(asked):
            self.mistakes.append(mistake)
            return _code(14004, mistake)
        content = files(asked)[0][2] if is_form(asked) else asked.body
        if code := _unproved(asked, content):
            return _code(code)
        if is_form(asked):
            return self._upload(asked)
        visitor = self.visitors.setdefault(asked.json["uid"], Visitor())
        acts: dict[str, Callable[[Visitor, dict[str, Any]], Said]] = {
            "/message/send": self._send,
            "/event/applyStaff": self._apply,
            "/event/updateUInfo": self._describe,
            "/event/queryQueueStatus": self._status,
        }
        return acts[asked.path.removeprefix("/openapi")](visitor, asked.json)

    def _upload(self, asked: Asked) -> Said:
        self.files.append(files(asked)[0][::2])
        return Said(200, {"code": 200, "url": f"https://ysf.nosdn.127.net/{len(self.files)}"})

    def _describe(self, visitor: Visitor, told: dict[str, Any]) -> Said:
        visitor.profile |= {line["key"]: line["value"] for line in told["userinfo"]}
        return _code(200)

    def _status(self, visitor: Visitor, told: dict[str, Any]) -> Said:
        if not visitor.held_by:
            return _code(14007)
        return Said(200, {"code": 200, "count": 3 if visitor.held_by == "queue" else -1})

    def _send(self, visitor: Visitor, told: dict[str, Any]) -> Said:
        visitor.held_by = visitor.held_by or "robot"
        visitor.messages.append((told["msgType"], told["content"]))
        return _code(200)

    def _apply(self, visitor: Visitor, told: dict[str, Any]) -> Said:
        visitor.applied += 1
        visitor.group = told.get("groupId")
        holds = {200: "staff", 14005: "left", 14006: "queue"}
        human = told.get("staffType") == 1
        visitor.held_by = holds.get(self.staff, "") if human else "robot"
        return _code(self.staff, "您好" if self.staff == 200 else "客服不在线")


def _unproved(asked: Asked, content: bytes) -> int:
    """The code for what is wrong with a request's proof; 0 for nothing."""
    if asked.query.get("appKey") != APP_KEY:
        return 14001
    at = asked.query.get("time", "")
    if not at.isdigit() or abs(time.time() - int(at)) > 300:
        return 14003
    return 0 if asked.query.get("checksum") == checksum(content, at) else 14002


def _code(code: int, message: str = "") -> Said:
    return Said(200, {"code": code} | ({"message": message} if message else {}))


# Its pushes


def checksum(content: bytes, at: str, secret: str = APP_SECRET) -> str:
    """SHA1(appSecret + md5 + time), as the page's Java does it."""
    sha = hashlib.sha1(secret.encode("utf-8"))
    sha.update(hashlib.md5(content).hexdigest().lower().encode("utf-8"))
    sha.update(at.encode("utf-8"))
    return sha.hexdigest()


def query(event_type: str, body: bytes, at: int, secret: str = APP_SECRET) -> dict[str, str]:
    """The parameters of a push."""
    proof = checksum(body, str(at), secret)
    return {"eventType": event_type, "time": str(at), "checksum": proof}


def said(content: Any = "It left today. 明天", **more: Any) -> dict[str, Any]:
    """The body of a push of type MSG."""
    return {
        "uid": UID,
        "content": content,
        "staffId": 143,
        "timeStamp": 1767257940316,
        "staffName": STAFF,
        "msgId": "8ca1c9fb30c40aa6cc390844e2756fac",
        "msgType": "TEXT",
    } | more


def session(**more: Any) -> dict[str, Any]:
    """The body of a push about a session."""
    return {
        "code": 200,
        "staffId": 1234,
        "message": "",
        "sessionId": 62927,
        "staffName": STAFF,
        "staffType": 1,
        "staffIcon": "https://ysf.nosdn.127.net/29C25737ABC2524667D223A90FEF156D",
        "uid": UID,
    } | more


def body_of(told: dict[str, Any]) -> bytes:
    """The push's bytes."""
    return json.dumps(told, ensure_ascii=False).encode()


#: For tests/test_desk_contract.py: it lists no messages, and knows no key of ours.
FAKES = {"qiyu": FakeQiyu}
SETTINGS = {"app_key": APP_KEY, "app_secret": APP_SECRET}
TWICE = {"open", "comment", "urge"}
