"""The providers of SMS on loopback: Twilio, Vonage, AWS, Alibaba Cloud, Tencent Cloud.

They check what the real ones check: the key, the signature over the call, the length.
"""

import json
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from flask import Blueprint, Response, jsonify, request

from connectors.channels import sms_aliyun, sms_tencent, sms_twilio
from connectors.signing import equal, values
from infra.local.records import Records

Settings = Callable[[], Any]
Answer = Response | tuple[Response, int]


def twilio(records: Records, settings: Settings) -> Blueprint:
    """api.twilio.com; what was sent is delivered a moment later, and the inbox hears so."""
    pages = Blueprint("twilio", __name__, url_prefix="/providers/sms_twilio/2010-04-01")

    @pages.before_request
    def authorise() -> Answer | None:
        given, ours = request.authorization, settings()
        known = (ours.account_sid, values(ours.auth_token)[0])
        if not given or (given.username, given.password) != known:
            return jsonify(code=20003, message="Authenticate", status=401), 401
        return None

    @pages.post("/Accounts/<sid>/Messages.json")
    def create(sid: str) -> Answer:
        said, pictures = request.form.get("Body", ""), request.form.getlist("MediaUrl")
        if not said and not pictures:
            return jsonify(code=21602, message="Message body is required.", status=400), 400
        text = "\n".join([said, *pictures]).strip()  # a phone would show the pictures
        records.add_line("sms", request.form["To"], "in", {"text": text})
        sent = f"SM{secrets.token_hex(16)}"
        if callback := request.form.get("StatusCallback"):
            told = {"MessageSid": sent, "MessageStatus": "delivered", "AccountSid": sid}
            _later(callback, told, values(settings().auth_token)[0])
        return jsonify(sid=sent, status="queued", account_sid=sid), 201

    @pages.get("/Accounts/<sid>/Messages/<message>/Media/<media>")
    def media(sid: str, message: str, media: str) -> Answer:
        held = records.file(media)
        if held is None:
            return jsonify(code=20404, message="not found", status=404), 404
        return Response(held[1], content_type=held[0])

    return pages


def _later(callback: str, told: dict[str, str], token: str) -> None:
    """Post a status as Twilio does, to this machine only."""
    if urlsplit(callback).hostname != "127.0.0.1":
        return
    signed = sms_twilio.signature(token, callback, list(told.items()))
    headers = {"X-Twilio-Signature": signed}
    timer = threading.Timer(
        0.5, requests.post, (callback, told), {"headers": headers, "timeout": 10}
    )
    timer.daemon = True
    timer.start()


def vonage(records: Records, settings: Settings) -> Blueprint:
    """rest.nexmo.com and api.nexmo.com."""
    pages = Blueprint("sms_vonage", __name__, url_prefix="/providers/sms_vonage")

    def known(key: str | None, secret: str | None) -> bool:
        wanted = settings()
        return key == wanted.api_key and equal(secret or "", wanted.api_secret.get_secret_value())

    @pages.post("/sms/json")
    def sms() -> Answer:
        form = request.form
        if not known(form.get("api_key"), form.get("api_secret")):
            told = {"status": "4", "error-text": "Bad Credentials"}
            return jsonify({"message-count": "1", "messages": [told]})
        records.add_line("sms", f"+{form['to']}", "in", {"text": form["text"]})
        told = {"to": form["to"], "message-id": secrets.token_hex(8).upper(), "status": "0"}
        return jsonify({"message-count": "1", "messages": [told]})

    @pages.post("/v1/messages")
    def messages() -> Answer:
        given = request.authorization
        if not given or not known(given.username, given.password):
            return jsonify(title="Unauthorized"), 401
        asked = request.get_json(force=True)
        records.add_line("sms", f"+{asked['to']}", "in", {"text": asked["text"]})
        return jsonify(message_uuid=str(uuid.uuid4())), 202

    return pages


def aws(records: Records, settings: Settings) -> Blueprint:
    """pinpoint-sms-voice-v2, which speaks JSON 1.0 to one address."""
    pages = Blueprint("sms_aws", __name__, url_prefix="/providers/sms_aws")

    @pages.post("/", strict_slashes=False)  # boto3 ends the address without one
    def call() -> Answer:
        asked = json.loads(request.get_data())
        if request.headers.get("X-Amz-Target", "").rpartition(".")[2] != "SendTextMessage":
            return jsonify(__type="ValidationException", Message="unknown operation"), 400
        if asked["OriginationIdentity"] != settings().number:
            return jsonify(__type="ResourceNotFoundException", Message="no such number"), 400
        records.add_line(
            "sms", asked["DestinationPhoneNumber"], "in", {"text": asked["MessageBody"]}
        )
        return jsonify(MessageId=str(uuid.uuid4()))

    return pages


def aliyun(records: Records, settings: Settings) -> Blueprint:
    """dysmsapi.aliyuncs.com."""
    pages = Blueprint("sms_aliyun", __name__, url_prefix="/providers/sms_aliyun")

    @pages.post("/")
    def call() -> Answer:
        wanted, asked = settings(), request.form.to_dict()
        given = asked.pop("Signature", "")
        secret = wanted.access_key_secret.get_secret_value()
        if not equal(given, sms_aliyun.signature(secret, "POST", asked)):
            return jsonify(Code="SignatureDoesNotMatch", Message="no"), 400
        if (asked["SignName"], asked["TemplateCode"]) != (wanted.sign_name, wanted.template_code):
            return jsonify(Code="isv.SMS_TEMPLATE_ILLEGAL", Message="no")
        text = json.loads(asked["TemplateParam"])[wanted.template_variable]
        if len(text) > wanted.max_characters:
            return jsonify(Code="isv.PARAM_LENGTH_LIMIT", Message="no")
        number = sms_aliyun.international(asked["PhoneNumbers"])
        records.add_line("sms", number, "in", {"text": text})
        return jsonify(Code="OK", Message="OK", BizId=secrets.token_hex(8), RequestId="made-up")

    return pages


def tencent(records: Records, settings: Settings) -> Blueprint:
    """sms.tencentcloudapi.com."""
    pages = Blueprint("sms_tencent", __name__, url_prefix="/providers/sms_tencent")

    def refused(code: str) -> Response:
        return jsonify(Response={"Error": {"Code": code, "Message": "no"}, "RequestId": "x"})

    @pages.post("/")
    def call() -> Answer:
        wanted, body = settings(), request.get_data()
        at = datetime.fromtimestamp(int(request.headers.get("X-TC-Timestamp", "0")), UTC)
        right = sms_tencent.signed_headers(
            wanted.secret_id,
            wanted.secret_key.get_secret_value(),
            host=request.headers["Host"],
            body=body,
            at=at,
        )
        if not equal(request.headers.get("Authorization", ""), right["Authorization"]):
            return refused("AuthFailure.SignatureFailure")
        asked = json.loads(body)
        (number,), (text,) = asked["PhoneNumberSet"], asked["TemplateParamSet"]
        if len(text) > wanted.max_characters:
            return refused("InvalidParameterValue.TemplateParameterLengthLimit")
        records.add_line("sms", number, "in", {"text": text})
        told = {"SerialNo": f"8:{secrets.token_hex(8)}", "PhoneNumber": number, "Code": "Ok"}
        return jsonify(Response={"SendStatusSet": [told], "RequestId": "made-up"})

    return pages


PROVIDERS: Mapping[str, Callable[[Records, Settings], Blueprint]] = {
    "sms_aliyun": aliyun,
    "sms_aws": aws,
    "sms_tencent": tencent,
    "sms_twilio": twilio,
    "sms_vonage": vonage,
}
