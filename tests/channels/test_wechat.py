"""An Official Account's pushes: modes, signatures, what they say, and the inbox's settings."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from chalicelib.errors import ConfigurationError, PayloadError, SignatureError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message
from connectors import wechat_wire
from infra.local import simulators
from tests.make_samples import NOW, OPENID, WECHAT
from tests.recorded import answer_to, arrived, connector, later, messages_in, request_of, with_param

URL = "https://askonce.example/webhooks/inbox"
SECRETS = WECHAT | {"aes_key": WECHAT["encoding_aes_key"]}


def wechat(mode: str = "safe", tokens: Any = None) -> Connector:
    return connector("wechat", WECHAT | {"mode": mode}, URL, tokens)


def push(mode: str = "safe", **fields: str | int) -> WebhookRequest:
    said = {"MsgType": "text", "Content": "Where is my parcel?", "MsgId": 7, **fields}
    return arrived(simulators.wechat(SECRETS, OPENID, said, mode=mode, at=NOW), NOW)


def an_answer(text: str = "明天发货") -> Message:
    (message,) = messages_in(wechat(), push())
    return answer_to(message, text)


# Modes


@pytest.mark.parametrize("mode", ["safe", "compatible"])
def test_an_inbox_with_envelopes_takes_no_plain_push(mode: str) -> None:
    with pytest.raises(SignatureError, match="no envelope"):
        wechat(mode).verify(push("plain"))


def test_a_plain_inbox_reads_no_envelope() -> None:
    request = push("safe")
    wechat("plain").verify(request)
    with pytest.raises(PayloadError):
        messages_in(wechat("plain"), request)


@pytest.mark.parametrize("mode", ["safe", "compatible"])
def test_clear_fields_beside_an_envelope_count_for_nothing(mode: str) -> None:
    forged = b"<xml><Content>forged</Content><FromUserName>victim</FromUserName>"
    request = push(mode)
    request = replace(request, body=request.body.replace(b"<xml>", forged))
    wechat(mode).verify(request)
    (message,) = messages_in(wechat(mode), request)
    assert (message.text, message.address.rpartition(":")[2]) == ("Where is my parcel?", OPENID)


def test_an_envelope_for_another_account_does_not_open() -> None:
    other = SECRETS | {"app_id": "wxffffffffffffffff"}
    sent = simulators.wechat(other, OPENID, {"MsgType": "text", "MsgId": 1}, at=NOW)
    request = arrived(sent, NOW)
    wechat().verify(request)
    with pytest.raises(PayloadError, match="cannot be opened"):
        messages_in(wechat(), request)


@pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])
def test_the_answer_in_the_response_is_sealed_where_pushes_are(mode: str) -> None:
    body = wechat(mode).acknowledge([], an_answer("明天发货")).body
    assert ("<Encrypt>" in body) == (mode != "plain")
    assert ("明天发货" in body) == (mode == "plain")


# Signatures


def splits(digits: str) -> Iterator[tuple[str, str]]:
    for cut in range(1, len(digits)):
        yield digits[:cut], digits[cut:]
        yield digits[cut:], digits[:cut]


def test_one_signature_is_good_for_one_time_though_it_covers_several() -> None:
    """The digits of timestamp and nonce can be split in other ways under the same signature."""
    signature = wechat_wire.signature(WECHAT["token"], str(NOW), "123")
    others = [(time, nonce) for time, nonce in splits(f"123{NOW}") if time != str(NOW)]
    others = [o for o in others if wechat_wire.signature(WECHAT["token"], *o) == signature]
    assert others
    for time, nonce in others:
        query = {"signature": signature, "timestamp": time, "nonce": nonce}
        with pytest.raises(SignatureError, match="timestamp"):
            wechat().handshake(request_of({"method": "GET", "headers": {}, "query": query}, NOW))


def test_a_signature_over_no_nonce_is_none() -> None:
    query = {"timestamp": str(NOW), "nonce": ""}
    query["signature"] = wechat_wire.signature(WECHAT["token"], *query.values())
    request = request_of({"method": "POST", "headers": {}, "query": query}, NOW)
    with pytest.raises(SignatureError, match="signature"):
        wechat("plain").verify(request)


def probe_of_console() -> WebhookRequest:
    query = {
        "signature": wechat_wire.signature(WECHAT["token"], str(NOW), "nonce"),
        "timestamp": str(NOW),
        "nonce": "nonce",
        "echostr": "83003 <63>",
    }
    return request_of({"method": "GET", "headers": {}, "query": query}, NOW)


@pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])
def test_the_console_hears_its_echo_unchanged(mode: str) -> None:
    answer = wechat(mode).handshake(probe_of_console())
    assert answer
    assert (answer.body, answer.content_type) == ("83003 <63>", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    "forged",
    [
        with_param(probe_of_console(), "signature", "0" * 40),
        with_param(probe_of_console(), "signature"),
        with_param(probe_of_console(), "nonce", "", "nonce"),
        later(probe_of_console(), 301),
        request_of({"method": "GET", "headers": {}, "query": {}}, NOW),
    ],
)
def test_nobody_else_hears_an_echo(forged: WebhookRequest) -> None:
    with pytest.raises(SignatureError):
        wechat().handshake(forged)


ENDING = "an-unguessable-ending"


def at_the_end(request: WebhookRequest, secret: str) -> WebhookRequest:
    return replace(request, path_secret=secret)


@pytest.mark.parametrize("mode", ["plain", "compatible", "safe"])
def test_an_address_with_a_secret_takes_nothing_without_it(mode: str) -> None:
    """In plain mode whoever saw one signature may write anything: not without the address."""
    ours = connector("wechat", WECHAT | {"mode": mode, "path_secret": ENDING}, URL)
    ours.verify(at_the_end(push(mode), ENDING))
    assert ours.handshake(at_the_end(probe_of_console(), ENDING))
    for wrong in ("", ENDING[:-1], ENDING + "x", "签名"):
        with pytest.raises(SignatureError):
            ours.verify(at_the_end(push(mode), wrong))
        with pytest.raises(SignatureError):
            ours.handshake(at_the_end(probe_of_console(), wrong))


def test_an_address_without_a_secret_takes_none() -> None:
    with pytest.raises(SignatureError):
        wechat().verify(at_the_end(push(), ENDING))


def test_a_short_secret_in_the_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="path_secret"):
        connector("wechat", WECHAT | {"path_secret": "short"}, URL)


# Reading


def test_two_events_in_one_second_are_two_messages() -> None:
    scan = push(MsgType="event", Event="SCAN", EventKey="42", MsgId="")
    follow = push(MsgType="event", Event="subscribe", EventKey="", MsgId="")
    ids = {message.id for request in (scan, follow) for message in messages_in(wechat(), request)}
    assert len(ids) == 2


@pytest.mark.parametrize("made", ["", "soon", "9" * 30, "-5"])
def test_a_push_without_a_time_is_of_now(made: str) -> None:
    request = push(CreateTime=made)
    (message,) = messages_in(wechat(), request)
    assert message.sent_at == request.received_at


@pytest.mark.parametrize("kind", ["image", "voice", "video", "shortvideo"])
def test_a_file_without_its_id_is_told_to_the_agent(kind: str) -> None:
    (message,) = messages_in(wechat(), push(MsgType=kind))
    (file,) = message.attachments
    assert file.source is None
    assert file.unavailable


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("location", {"Latitude": "23.1", "Longitude": "113.3", "Precision": "119"}),
        ("location_select", {"SendLocationInfo": ""}),
    ],
)
def test_an_event_s_place_is_kept_where_there_is_one(name: str, fields: dict[str, str]) -> None:
    request = push(MsgType="event", Event=name.upper(), EventKey="", MsgId="", **fields)
    (message,) = messages_in(wechat(), request)
    assert message.event
    assert message.event.name == name
    assert bool(message.location) == ("Latitude" in fields)


def test_what_became_of_a_template_is_an_event_for_we_send_none() -> None:
    told: dict[str, Any] = {
        "Event": "TEMPLATESENDJOBFINISH",
        "MsgID": 200163840,
        "Status": "failed:user block",
    }
    (message,) = wechat().parse(push(MsgType="event", MsgId="", **told))
    assert isinstance(message, Message)
    assert message.event
    assert (message.event.name, message.event.key) == ("templatesendjobfinish", "200163840")
    assert message.raw
    assert b"failed:user block" in (message.raw.content or b"")


def test_an_event_with_an_endless_key_is_still_one_event() -> None:
    requests = [
        push(MsgType="event", Event="VIEW", EventKey="x" * 3000 + n, MsgId="") for n in "11"
    ]
    first, again = (messages_in(wechat(), request)[0] for request in requests)
    other = push(MsgType="event", Event="VIEW", EventKey="x" * 3000 + "2", MsgId="")
    assert first.id == again.id != messages_in(wechat(), other)[0].id


def test_two_messages_without_ids_are_told_apart_by_what_they_say() -> None:
    (one,) = messages_in(wechat(), push(MsgId="", Content="one"))
    (two,) = messages_in(wechat(), push(MsgId="", Content="two"))
    assert one.id != two.id
    assert one.id == messages_in(wechat(), push(MsgId="", Content="one"))[0].id


# Settings


@pytest.mark.parametrize(
    ("setting", "other"),
    [("token", "another-token"), ("encoding_aes_key", base64.b64encode(b"o" * 32).decode()[:43])],
)
def test_token_and_key_can_be_replaced_without_losing_a_push(setting: str, other: str) -> None:
    request, own = push(), WECHAT[setting]

    def read(*values: str) -> list[Message]:
        ours = connector("wechat", WECHAT | {setting: values}, URL)
        ours.verify(request)
        return messages_in(ours, request)

    assert read(own, other) == read(other, own)
    with pytest.raises((SignatureError, PayloadError)):
        read(other)


def test_answers_are_signed_and_sealed_with_the_first_of_two() -> None:
    old = "the-former-token"
    ours = connector("wechat", WECHAT | {"token": [WECHAT["token"], old]}, URL)
    body = ours.acknowledge([], an_answer("明天")).body
    assert simulators.wechat_passive_text(SECRETS, body) == "明天"


def test_every_mode_but_plain_needs_the_key() -> None:
    without = {k: v for k, v in WECHAT.items() if k != "encoding_aes_key"}
    assert connector("wechat", without | {"mode": "plain"}, URL)
    for mode in ("safe", "compatible"):
        with pytest.raises(ValidationError, match=f"mode {mode} needs it"):
            connector("wechat", without | {"mode": mode}, URL)


@pytest.mark.parametrize("key", ["short", "x" * 42, "!" * 43, "x" * 44])
def test_a_key_that_is_no_key_names_its_setting(key: str) -> None:
    with pytest.raises(ConfigurationError, match="encoding_aes_key"):
        connector("wechat", WECHAT | {"encoding_aes_key": key}, URL)


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValidationError, match="token"):
        connector("wechat", WECHAT | {"token": "abc"}, URL)
