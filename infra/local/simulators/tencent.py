"""What Tencent does: pushes of Mini Programs and WeCom, and the ways of its whole family.

The push of an Official Account is in the package itself.
"""

import json
import os
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from connectors import wechat_wire
from connectors.signing import values
from infra.local import simulators
from infra.local.simulators import File, Sent

if TYPE_CHECKING:  # ways imports this module
    from infra.local.people import Person
    from infra.local.ways import Line, Scene, Way

Fields = Mapping[str, Any]
#: Where the fake of sync_msg finds what a customer wrote: beside the line on the phone.
KF_ACCOUNT = "wkSimulated00000000000000000001"


def miniprogram(  # noqa: PLR0913  # a push has that many parts
    secrets_: Mapping[str, str],
    openid: str,
    fields: Fields,
    *,
    inbox: str = "miniprogram",
    mode: str = "safe",
    as_json: bool = True,
    at: float | None = None,
    account: str = "gh_9d8c7b6a5f4e",
    chance: bytes | None = None,
) -> Sent:
    """A push of a Mini Program, as its console is set.

    `secrets_`: app_id, token, aes_key; `chance`: sixteen bytes in place of random ones.
    """
    if not as_json:
        return simulators.wechat(
            secrets_, openid, fields, inbox=inbox, mode=mode, at=at, account=account, chance=chance
        )
    chance = chance or os.urandom(16)
    now = int(time.time() if at is None else at)
    told = {"ToUserName": account, "FromUserName": openid, "CreateTime": now, **fields}
    document = json.dumps(told, ensure_ascii=False)
    query = signed(secrets_["token"], now, chance)
    if mode != "plain":
        envelope = _envelope(secrets_, secrets_["app_id"], document, chance)
        query |= {"encrypt_type": "aes", **signed(secrets_["token"], now, chance, envelope)}
        document = json.dumps({"ToUserName": account, "Encrypt": envelope})
    headers = {"Content-Type": "application/json"}
    query["openid"] = openid
    return Sent("POST", f"/webhooks/{inbox}", headers, query, document.encode())


def wecom(
    secrets_: Mapping[str, str],
    fields: Fields,
    *,
    inbox: str = "wecom",
    at: float | None = None,
    chance: bytes | None = None,
) -> Sent:
    """A callback of WeCom: `fields` with the sender, without corporation and time.

    `secrets_`: corp_id, token, aes_key.
    """
    chance = chance or os.urandom(16)
    now = int(time.time() if at is None else at)
    corp_id, agent = secrets_["corp_id"], str(fields.get("AgentID", ""))
    document = wechat_wire.document({"ToUserName": corp_id, "CreateTime": now, **fields})
    envelope = _envelope(secrets_, corp_id, document, chance)
    body = wechat_wire.document({"ToUserName": corp_id, "AgentID": agent, "Encrypt": envelope})
    query = signed(secrets_["token"], now, chance, envelope)
    return Sent("POST", f"/webhooks/{inbox}", {"Content-Type": "text/xml"}, query, body.encode())


def wecom_echo(
    secrets_: Mapping[str, str],
    clear: str,
    *,
    inbox: str = "wecom",
    at: float | None = None,
    chance: bytes | None = None,
) -> Sent:
    """The probe of WeCom's console: it wants to hear `clear`."""
    chance = chance or os.urandom(16)
    now = int(time.time() if at is None else at)
    echo = _envelope(secrets_, secrets_["corp_id"], clear, chance)
    query = signed(secrets_["token"], now, chance, echo)
    return Sent("GET", f"/webhooks/{inbox}", {}, {**query, "echostr": echo})


def kf_notice(
    secrets_: Mapping[str, str], token: str, open_kfid: str = KF_ACCOUNT, **more: Any
) -> Sent:
    """WeCom says that a customer-service account has something."""
    fields = {
        "MsgType": "event",
        "Event": "kf_msg_or_event",
        "Token": token,
        "OpenKfId": open_kfid,
    }
    return wecom(secrets_, fields, **{"inbox": "wecom_kf", **more})


def kf_item(
    sender: str, kind: str, told: Fields, *, msgid: str = "", at: float | None = None
) -> dict[str, Any]:
    """One message of a customer in the answer of sync_msg."""
    return {
        "msgid": msgid or uuid.uuid4().hex,
        "open_kfid": KF_ACCOUNT,
        "external_userid": sender,
        "send_time": int(time.time() if at is None else at),
        "origin": 3,
        "msgtype": kind,
        kind: dict(told),
    }


def signed(token: str, at: int, chance: bytes, envelope: str = "") -> dict[str, str]:
    """A push's query: its signature covers the envelope where there is one."""
    timestamp, nonce = str(at), chance.hex()[:10]
    name, more = ("msg_signature", (envelope,)) if envelope else ("signature", ())
    signature = wechat_wire.signature(token, timestamp, nonce, *more)
    return {name: signature, "timestamp": timestamp, "nonce": nonce}


def _envelope(secrets_: Mapping[str, str], receiver: str, document: str, chance: bytes) -> str:
    key = wechat_wire.aes_key(secrets_["aes_key"])
    return wechat_wire.encrypt(document.encode(), key, receiver, chance)


# Ways


def _secrets(settings: Any, receiver: str) -> dict[str, str]:
    key = settings.encoding_aes_key
    return {
        receiver: getattr(settings, receiver),
        "token": values(settings.token)[0],
        "aes_key": values(key)[0] if key else "",
    }


def _place(scene: "Scene") -> str:
    """The inbox's name in its address, with the secret that may follow it."""
    secret = scene.settings.path_secret
    return f"{scene.inbox}/{values(secret)[0]}" if secret else scene.inbox


def _fields(scene: "Scene", line: "Line") -> dict[str, str | int]:
    """What the customer wrote, in WeChat's words."""
    if line.file is None:
        return simulators.wechat_text(line.text)
    media_id = scene.kept(line.file)
    if line.file.media_type.startswith("audio/"):
        return simulators.wechat_voice(media_id, line.text)
    return simulators.wechat_image(media_id)


def _read_passive(
    scene: "Scene", person: "Person", secrets_: dict[str, str], receiver: str, answer: Any
) -> Any:
    """Show on the phone what the answer to the push says."""
    opened = secrets_ | {"app_id": secrets_[receiver]}
    if answer.ok and (said := simulators.wechat_passive_text(opened, answer.text)):
        line = {"text": said, "passive": True, "inbox": scene.inbox}
        scene.records.add_line("wechat", person.openid, "in", line)
    return answer


def _write_to_account(scene: "Scene", person: "Person", line: "Line") -> Any:
    secrets_, mode = _secrets(scene.settings, "app_id"), scene.settings.mode
    fields = _fields(scene, line)
    scene.say("wechat", person.openid, line)
    sent = simulators.wechat(secrets_, person.openid, fields, inbox=_place(scene), mode=mode)
    return _read_passive(scene, person, secrets_, "app_id", scene.post(sent))


def _write_in_mini_program(scene: "Scene", person: "Person", line: "Line") -> Any:
    secrets_, mode = _secrets(scene.settings, "app_id"), scene.settings.mode
    fields = _fields(scene, line)
    scene.say("wechat", person.openid, line)
    return scene.post(miniprogram(secrets_, person.openid, fields, inbox=_place(scene), mode=mode))


def _write_to_application(scene: "Scene", person: "Person", line: "Line") -> Any:
    secrets_ = _secrets(scene.settings, "corp_id")
    fields = {"FromUserName": person.openid, **_fields(scene, line)}
    fields["AgentID"] = scene.settings.agent_id
    scene.say("wechat", person.openid, line)
    answer = scene.post(wecom(secrets_, fields, inbox=scene.inbox))
    return _read_passive(scene, person, secrets_, "corp_id", answer)


def _write_to_service(scene: "Scene", person: "Person", line: "Line") -> Any:
    """The words wait at WeCom until they are fetched; the webhook says that they wait."""
    kind, told = _service_content(scene, line.text, line.file)
    item = json.dumps(kf_item(person.openid, kind, told))
    scene.say("wechat", person.openid, line, kf=item)
    secrets_ = _secrets(scene.settings, "corp_id")
    return scene.post(kf_notice(secrets_, f"ENC{uuid.uuid4().hex}", inbox=scene.inbox))


def _service_content(scene: "Scene", text: str, file: File | None) -> tuple[str, dict[str, str]]:
    if file is None:
        return "text", {"content": text}
    kinds = {"image": "image", "audio": "voice", "video": "video"}
    kind = kinds.get(file.media_type.partition("/")[0], "file")
    return kind, {"media_id": scene.kept(file)}


WAYS: "Mapping[str, Way]" = {
    "wechat": _write_to_account,
    "wechat_miniprogram": _write_in_mini_program,
    "wecom": _write_to_application,
    "wecom_kf": _write_to_service,
}
