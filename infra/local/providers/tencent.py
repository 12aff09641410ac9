"""Tencent's APIs on loopback: WeChat's, and WeCom's with its customer service.

They answer 200 to everything; what went wrong stands in errcode. What the real ones refuse they
refuse too: a wrong token, an unknown file, a text that is too long, a notice's token made up.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request

from infra.local.records import Records

Settings = Callable[[], Any]
_TEXT_BYTES = 2048
_MENU_BYTES = 1024
_FILE_KINDS = ("image", "voice", "video", "file")


class _Fake:
    """What WeChat and WeCom have in common: a token that is shown with each call, and files."""

    def __init__(self, records: Records, settings: Settings) -> None:
        self._records = records
        self._settings = settings
        self._token = ""

    def _given(self, *, renew: bool) -> Response:
        if not self._token or renew:
            self._token = secrets.token_urlsafe(32)
        return jsonify(errcode=0, access_token=self._token, expires_in=7200)

    def guard(self) -> Response | None:
        """Before every call but the one that gives out tokens."""
        if request.path.endswith("token"):
            return None
        if not self._token or request.args.get("access_token") != self._token:
            return jsonify(errcode=40014, errmsg="invalid access_token")
        return None

    def upload(self) -> Response:
        kind, file = request.args.get("type", ""), request.files.get("media")
        if kind not in _FILE_KINDS or file is None or not file.filename:
            return jsonify(errcode=40004, errmsg="invalid media type")
        media_id = f"MU{secrets.token_hex(16)}"
        self._records.add_file(media_id, file.mimetype, file.read())
        return jsonify(type=kind, media_id=media_id, created_at=1)

    def media(self) -> Response:
        held = self._records.file(request.args.get("media_id", ""))
        if held is None:
            return jsonify(errcode=40007, errmsg="invalid media_id")
        return Response(held[1], content_type=held[0])

    def _show(self, asked: Mapping[str, Any]) -> Response | None:
        """What was sent, on the phone of whoever gets it; None if that went well."""
        kind = asked.get("msgtype")
        line: dict[str, Any] = {"text": ""}
        if kind == "text":
            line["text"] = asked["text"]["content"]
            if not line["text"].strip():
                return jsonify(errcode=44004, errmsg="empty content")
            if len(line["text"].encode()) > _TEXT_BYTES:
                return jsonify(errcode=45002, errmsg="content size out of limit")
        elif kind == "msgmenu" and len(asked[kind]["head_content"].encode()) <= _MENU_BYTES:
            line["text"] = asked[kind]["head_content"]
            chosen = [item["click"]["content"] for item in asked[kind]["list"]]
            line["choices"] = [{"label": word, "value": word} for word in chosen]
        elif kind in _FILE_KINDS:
            held = self._records.file(asked[kind]["media_id"])
            if held is None:
                return jsonify(errcode=40007, errmsg="invalid media_id")
            line["files"] = [{"name": kind, "media_type": held[0]}]
        else:
            return jsonify(errcode=40008, errmsg="invalid message type")
        self._records.add_line("wechat", asked["touser"], "in", line)
        return None


class _FakeWeChat(_Fake):
    """api.weixin.qq.com"""

    def stable_token(self) -> Response:
        asked, own = request.get_json(force=True), self._settings()
        wanted = (own.app_id, own.app_secret.get_secret_value())
        if (asked.get("appid"), asked.get("secret")) != wanted:
            return jsonify(errcode=40125, errmsg="invalid appsecret")
        return self._given(renew=bool(asked.get("force_refresh")))

    def send(self) -> Response:
        return self._show(request.get_json(force=True)) or jsonify(errcode=0, errmsg="ok")


class _FakeWeCom(_Fake):
    """qyapi.weixin.qq.com"""

    def gettoken(self) -> Response:
        own = self._settings()
        wanted = (own.corp_id, own.secret.get_secret_value())
        if (request.args.get("corpid"), request.args.get("corpsecret")) != wanted:
            return jsonify(errcode=40001, errmsg="invalid credential")
        return self._given(renew=False)

    def send(self) -> Response:
        asked = request.get_json(force=True)
        if asked.get("agentid") != self._settings().agent_id:
            return jsonify(errcode=40056, errmsg="invalid agentid")
        return self._show(asked) or jsonify(errcode=0, errmsg="ok", msgid=secrets.token_hex(8))

    def send_to_customer(self) -> Response:
        """Nothing twice under one msgid."""
        asked = request.get_json(force=True)
        name = f"kf-sent/{asked.get('msgid')}"
        if self._records.file(name) is None:
            if no := self._show(asked):
                return no
            self._records.add_file(name, "text/plain", b"sent")
        return jsonify(errcode=0, errmsg="ok", msgid=asked.get("msgid"))

    def sync(self) -> Response:
        """What customers said after the cursor; it lies on their phones."""
        asked = request.get_json(force=True)
        if asked.get("token") and not str(asked["token"]).startswith("ENC"):
            return jsonify(errcode=95007, errmsg="invalid msg token")
        after, limit = int(asked.get("cursor") or 0), int(asked.get("limit", 1000))
        waiting = list(self._said(asked.get("open_kfid", ""), after))
        page = waiting[:limit]
        return jsonify(
            errcode=0,
            errmsg="ok",
            next_cursor=str(page[-1][0] if page else after),
            has_more=int(len(waiting) > limit),
            msg_list=[item for _, item in page],
        )

    def _said(self, open_kfid: str, after: int) -> Iterator[tuple[int, Any]]:
        for line in self._records.lines(after):
            item = json.loads(line["kf"]) if line.get("kf") else {}
            if item.get("open_kfid") == open_kfid:
                yield int(line["number"]), item


def _pages(connector: str, fake: _Fake, **calls: Callable[[], Response]) -> Blueprint:
    """The fake's calls, all under cgi-bin: `a__b` is a/b."""
    pages = Blueprint(connector, __name__, url_prefix=f"/providers/{connector}/cgi-bin")
    pages.before_request(fake.guard)
    own = {"media__upload": fake.upload, "media__get": fake.media}
    for name, call in {**own, **calls}.items():
        pages.add_url_rule("/" + name.replace("__", "/"), name, call, methods=["GET", "POST"])
    return pages


def _wechat(connector: str) -> Callable[[Records, Settings], Blueprint]:
    def make(records: Records, settings: Settings) -> Blueprint:
        fake = _FakeWeChat(records, settings)
        calls = {"stable_token": fake.stable_token, "message__custom__send": fake.send}
        return _pages(connector, fake, **calls)

    return make


def _wecom(records: Records, settings: Settings) -> Blueprint:
    fake = _FakeWeCom(records, settings)
    return _pages("wecom", fake, gettoken=fake.gettoken, message__send=fake.send)


def _wecom_kf(records: Records, settings: Settings) -> Blueprint:
    fake = _FakeWeCom(records, settings)
    calls = {"kf__sync_msg": fake.sync, "kf__send_msg": fake.send_to_customer}
    return _pages("wecom_kf", fake, gettoken=fake.gettoken, **calls)


PROVIDERS: Mapping[str, Callable[[Records, Settings], Blueprint]] = {
    "wechat": _wechat("wechat"),
    "wechat_miniprogram": _wechat("wechat_miniprogram"),
    "wecom": _wecom,
    "wecom_kf": _wecom_kf,
}
