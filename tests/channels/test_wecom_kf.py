"""WeChat Customer Service: notices, pages of messages, receipts, sending under our own id."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import responses
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import (
    ClosedError,
    DeliveryError,
    PayloadError,
    RejectedError,
    RetryableError,
    SignatureError,
)
from chalicelib.ports import Fetched, FetchingConnector
from chalicelib.schema import Attachment, Delivery, Kind, Message, Notice, Receipt
from infra.local.simulators import tencent
from tests.make_samples import NOW
from tests.nouns import message as a_message
from tests.recorded import arrived, connector
from tests.samples_tencent import WECOM_KF, secrets

SETTINGS = {key: value for key, value in secrets(WECOM_KF).items() if key != "aes_key"}
CORP = WECOM_KF["corp_id"]
API = "https://qyapi.weixin.qq.com/cgi-bin"
SYNC, SEND = f"{API}/kf/sync_msg", f"{API}/kf/send_msg"
AT = datetime.fromtimestamp(NOW, UTC)
LI = "wmLi00000000000000000000000001"
ADDRESS = f"wecom_kf:{CORP}:{LI}"


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def kf() -> FetchingConnector:
    ours = connector("wecom_kf", SETTINGS, "https://askonce.example/webhooks/inbox")
    assert isinstance(ours, FetchingConnector)
    return ours


def notice(token: str = "ENC1") -> Notice:
    request = arrived(tencent.kf_notice(secrets(WECOM_KF), token, at=NOW), NOW)
    ours = kf()
    ours.verify(request)
    (found,) = ours.parse(request)
    assert isinstance(found, Notice)
    return found


def item(kind: str = "text", told: Any = None, **more: Any) -> dict[str, Any]:
    made = tencent.kf_item(LI, kind, told or {"content": "到货了吗？"}, msgid="i1", at=NOW)
    return {key: value for key, value in (made | more).items() if value is not None}


def page(*items: Any, **more: Any) -> dict[str, Any]:
    answer = {"errcode": 0, "errmsg": "ok", "next_cursor": "c2", "has_more": 0}
    return answer | {"msg_list": list(items)} | more


def fetched(wire: responses.RequestsMock, *items: Any, **more: Any) -> Fetched:
    wire.post(SYNC, json=page(*items, **more))
    return kf().fetch_messages(notice(), "c1", AT)


def only(wire: responses.RequestsMock, one: Any) -> Message | Receipt:
    (found,) = fetched(wire, one).found
    return found


def asked(wire: responses.RequestsMock) -> list[Any]:
    return [json.loads(call.request.body or b"null") for call in wire.calls]


# Notices


def test_a_notice_is_another_one_each_time_and_the_same_when_it_is_pushed_again() -> None:
    assert notice("ENC1") == notice("ENC1")
    assert notice("ENC1").id != notice("ENC2").id
    assert notice("ENC1").source == tencent.KF_ACCOUNT


def test_a_notice_of_no_account_is_a_payload_error() -> None:
    sent = tencent.kf_notice(secrets(WECOM_KF), "ENC1", open_kfid="", at=NOW)
    with pytest.raises(PayloadError, match="OpenKfId"):
        kf().parse(arrived(sent, NOW))


def test_a_notice_sealed_for_another_corporation_does_not_open() -> None:
    other = secrets(WECOM_KF) | {"corp_id": "wwffffffffffffffff"}
    with pytest.raises(PayloadError, match="cannot be opened"):
        kf().parse(arrived(tencent.kf_notice(other, "ENC1", at=NOW), NOW))


# Fetching


def test_a_page_is_asked_for_with_cursor_token_and_account(wire: responses.RequestsMock) -> None:
    found = fetched(wire, item())
    (told,) = asked(wire)
    assert (told["cursor"], told["token"], told["open_kfid"]) == ("c1", "ENC1", tencent.KF_ACCOUNT)
    assert (found.cursor, found.more) == ("c2", False)


def test_an_empty_page_may_have_more_behind_it(wire: responses.RequestsMock) -> None:
    found = fetched(wire, has_more=1)
    assert (found.found, found.cursor, found.more) == ([], "c2", True)


def test_a_page_that_leads_nowhere_is_the_last_one(wire: responses.RequestsMock) -> None:
    assert not fetched(wire, has_more=1, next_cursor="c1").more


def test_a_page_without_a_cursor_keeps_the_old_one(wire: responses.RequestsMock) -> None:
    assert fetched(wire, item(), next_cursor=None).cursor == "c1"


def test_a_notice_that_is_too_old_still_fetches(wire: responses.RequestsMock) -> None:
    wire.post(SYNC, json={"errcode": 95007, "errmsg": "invalid msg token"})
    wire.post(SYNC, json=page(item()))
    found = kf().fetch_messages(notice(), "", AT)
    assert len(found.found) == 1
    assert [told["token"] for told in asked(wire)] == ["ENC1", ""]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"errcode": -1, "errmsg": "busy"}, RetryableError),
        ({"errcode": 45009, "errmsg": "freq"}, RetryableError),
        ({"errcode": 60020, "errmsg": "not allow, from ip: 203.0.113.9"}, RetryableError),
        ({"errcode": 95000, "errmsg": "invalid open_kfid"}, RejectedError),
        (page() | {"msg_list": "none"}, RetryableError),
        (page() | {"next_cursor": 7}, RetryableError),
        ([], RetryableError),
    ],
)
def test_a_page_that_cannot_be_had_says_whether_to_try_again(
    answer: Any, error: type[DeliveryError], wire: responses.RequestsMock
) -> None:
    wire.post(SYNC, json=answer)
    with pytest.raises(error):
        kf().fetch_messages(notice(), "c1", AT)


# Items


def test_a_customer_s_message_is_proven_to_be_the_customer_s(wire: responses.RequestsMock) -> None:
    found = only(wire, item())
    assert isinstance(found, Message)
    assert (found.address, found.account) == (ADDRESS, tencent.KF_ACCOUNT)
    assert (found.external_id, found.text, found.sent_at) == ("i1", "到货了吗？", AT)
    (evidence,) = found.evidence
    assert (evidence.address, evidence.source) == (ADDRESS, "wecom_kf")


def test_an_item_without_its_account_is_of_the_one_that_was_asked(
    wire: responses.RequestsMock,
) -> None:
    found = only(wire, item(open_kfid=None))
    assert isinstance(found, Message)
    assert found.account == tencent.KF_ACCOUNT


@pytest.mark.parametrize("origin", [4, 5, None, "3"])
def test_what_we_or_a_colleague_said_is_no_message(
    origin: Any, wire: responses.RequestsMock
) -> None:
    assert fetched(wire, item(origin=origin)).found == []


MEDIA = {"media_id": "m1"}


@pytest.mark.parametrize(
    ("kind", "told", "becomes"),
    [
        ("image", MEDIA, Kind.IMAGE),
        ("voice", MEDIA, Kind.AUDIO),
        ("video", MEDIA, Kind.VIDEO),
        ("file", MEDIA, Kind.FILE),
        ("location", {"latitude": 23.1, "longitude": 113.3, "name": "Tower"}, Kind.LOCATION),
        ("link", {"title": "T", "desc": "D", "url": "https://a.example"}, Kind.LINK),
        ("miniprogram", {"title": "T", "pagepath": "pages/1"}, Kind.LINK),
        ("business_card", {"userid": "lisi"}, Kind.UNSUPPORTED),
        ("msgmenu", {"head_content": "?"}, Kind.UNSUPPORTED),
        ("channels_shop_order", {"order_id": "1"}, Kind.UNSUPPORTED),
        ("location", {"latitude": 123}, Kind.UNSUPPORTED),
        ("location", {}, Kind.UNSUPPORTED),
    ],
)
def test_every_kind_becomes_ours_or_is_kept_whole(
    kind: str, told: Any, becomes: Kind, wire: responses.RequestsMock
) -> None:
    one = item("text", **{"msgtype": kind, "text": None, kind: told})
    found = only(wire, one)
    assert isinstance(found, Message)
    assert found.kind is becomes
    assert [a.source for a in found.attachments] == ([told["media_id"]] if told is MEDIA else [])
    if becomes is Kind.UNSUPPORTED:
        assert found.raw
        assert json.loads(found.raw.content or b"") == one


def event(name: str, **told: Any) -> dict[str, Any]:
    about = {"event_type": name, "open_kfid": tencent.KF_ACCOUNT, "external_userid": LI, **told}
    return item(msgtype="event", origin=4, external_userid=None, text=None, event=about)


@pytest.mark.parametrize(
    ("one", "key", "address"),
    [
        (event("enter_session", scene="oa_menu", welcome_code="W1"), "oa_menu", ADDRESS),
        (event("user_recall_msg", recall_msgid="i0"), "i0", ADDRESS),
        (event("session_status_change", change_type=3), "3", ADDRESS),
        (
            event("servicer_status_change", external_userid=None, status=2),
            "2",
            f"wecom_kf:{CORP}:sys",
        ),
        (event("msg_send_fail", fail_type=4), "", ADDRESS),
    ],
)
def test_what_happens_without_words_is_an_event(
    one: Any, key: str, address: str, wire: responses.RequestsMock
) -> None:
    found = only(wire, one)
    assert isinstance(found, Message)
    assert found.event
    assert (found.event.name, found.event.key) == (one["event"]["event_type"], key)
    assert (found.address, found.external_id, found.kind) == (address, "i1", Kind.EVENT)
    assert found.raw


@pytest.mark.parametrize(
    ("fail_type", "words"), [(4, "48 hours"), (6, "five"), (10, "refuses"), (99, "does not say")]
)
def test_a_message_that_did_not_arrive_is_told_with_its_reason(
    fail_type: int, words: str, wire: responses.RequestsMock
) -> None:
    found = only(wire, event("msg_send_fail", fail_msgid="m-ours", fail_type=fail_type))
    assert isinstance(found, Receipt)
    assert (found.external_id, found.state) == ("m-ours", Delivery.FAILED)
    assert words in found.reason


def test_one_odd_item_keeps_no_other_from_coming_in(wire: responses.RequestsMock) -> None:
    odd = [7, None, {}, item(external_userid="a\nb"), item(external_userid="x" * 600)]
    odd += [item(send_time="soon"), item(text=["?"]), item(msgid={"a": 1})]
    found = fetched(wire, *odd, item(msgid="good")).found
    assert [m.external_id for m in found if isinstance(m, Message)][-1] == "good"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
NAMES = ["msgid", "external_userid", "open_kfid", "send_time", "origin", "msgtype", "text", "event"]
NAMES += ["image", "location", "link", "event_type", "fail_msgid", "fail_type", "media_id"]
KINDS = ["text", "image", "location", "link", "event", "msg_send_fail", "enter_session"]
items = st.dictionaries(
    st.sampled_from(NAMES),
    st.sampled_from([*KINDS, 3, 4])
    | json_values
    | st.dictionaries(st.sampled_from(NAMES), json_values),
)


@settings(max_examples=200, deadline=None)
@given(one=items)
def test_an_item_never_raises(one: dict[str, Any]) -> None:
    """Through JSON, as it comes over the wire: with halves of characters, too."""
    with responses.RequestsMock() as wire:
        wire.post(SYNC, body=json.dumps(page({"origin": 3} | one)))
        for found in kf().fetch_messages(notice(), "c1", AT).found:
            assert type(found).model_validate_json(found.model_dump_json())


# Sending


def an_answer(**more: Any) -> Message:
    return a_message(
        id="m" + "a" * 26, address=ADDRESS, account=tencent.KF_ACCOUNT, text="明天发货", **more
    )


def test_a_message_leaves_under_our_own_id(wire: responses.RequestsMock) -> None:
    wire.post(SEND, json={"errcode": 0, "errmsg": "ok", "msgid": "m" + "a" * 26})
    assert kf().send(an_answer()) == "m" + "a" * 26
    assert asked(wire) == [
        {
            "touser": LI,
            "open_kfid": tencent.KF_ACCOUNT,
            "msgid": "m" + "a" * 26,
            "msgtype": "text",
            "text": {"content": "明天发货"},
        }
    ]


def test_an_id_that_wecom_does_not_take_becomes_one_that_it_takes(
    wire: responses.RequestsMock,
) -> None:
    wire.post(SEND, json={"errcode": 0})
    message = an_answer().model_copy(update={"id": "x" * 40})
    assert kf().send(message) == kf().send(message) == asked(wire)[0]["msgid"]
    assert len(asked(wire)[0]["msgid"]) <= 32


def test_a_session_that_a_colleague_has_is_closed_to_us(wire: responses.RequestsMock) -> None:
    wire.post(SEND, json={"errcode": 95018, "errmsg": "session status invalid"})
    with pytest.raises(ClosedError, match="colleague"):
        kf().send(an_answer())


def test_a_document_goes_as_a_file_under_its_name(wire: responses.RequestsMock) -> None:
    wire.post(f"{API}/media/upload", json={"errcode": 0, "media_id": "up-1"})
    wire.post(SEND, json={"errcode": 0})
    file = Attachment(name="发票.pdf", media_type="application/pdf", content=b"%PDF-1.7")
    (_, piece) = kf().pieces(an_answer(attachments=(file,)))
    kf().send(piece)
    body = wire.calls[0].request.body
    assert isinstance(body, bytes)
    assert 'filename="发票.pdf"'.encode() in body
    assert json.loads(wire.calls[1].request.body or b"")["file"] == {"media_id": "up-1"}


@pytest.mark.parametrize("other", [{"corp_id": "wwffffffffffffffff"}, {"token": "another-token"}])
def test_the_probe_of_another_console_is_refused(other: dict[str, str]) -> None:
    held = secrets(WECOM_KF)
    probe = tencent.wecom_echo(held, "3746526292198561984", at=NOW)
    heard = kf().handshake(arrived(probe, NOW))
    assert heard
    assert heard.body == "3746526292198561984"
    with pytest.raises(SignatureError):
        kf().handshake(arrived(tencent.wecom_echo(held | other, "1", at=NOW), NOW))
