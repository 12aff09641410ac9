"""Web chat's peculiarities: tokens, identities, origins, and what a visitor sees."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from pydantic import ValidationError

from chalicelib.errors import (
    NotFoundError,
    PayloadError,
    SignatureError,
    TooLargeError,
    WebhookError,
)
from chalicelib.ports import FeedEntry, Presence, Upload, WebhookRequest, WebhookResponse
from chalicelib.schema import Attachment, Message, Outcome, Verdict, digest
from connectors.channels.webchat import WebChat
from tests.make_samples import NOW, ORIGIN, VISITOR, WEBCHAT, visitor_token
from tests.recorded import answer_to, connector, later, request_of, with_header

URL = "https://askonce.example/webhooks/inbox"
DAY = 24 * 3600
TOKEN_SECRET, IDENTITY_SECRET = str(WEBCHAT["token_secret"]), str(WEBCHAT["identity_secret"])


def chat(**settings: Any) -> WebChat:
    ours = connector("webchat", WEBCHAT | settings, URL)
    assert isinstance(ours, WebChat)
    return ours


def request(
    body: Any = None, *, token: str = "", origin: str | None = ORIGIN, method: str = "POST"
) -> WebhookRequest:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Origin": origin} if origin is not None else {}
    text = "" if body is None else json.dumps(body)
    return request_of({"method": method, "headers": headers, "query": {}, "body": text}, NOW)


def said(token: str, **more: Any) -> WebhookRequest:
    return request({"client_id": "line-0001", "text": "hello"} | more, token=token)


def told(response: WebhookResponse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    return found


def session(ours: WebChat | None = None, seconds_later: float = 0, **asked: str) -> dict[str, Any]:
    """What the widget gets when it asks for a token."""
    return told((ours or chat()).page("session", later(request(asked), seconds_later)))


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def unsigned(claims: dict[str, Any], algorithm: str) -> str:
    """A JWT that says how it is signed, and is not."""
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}."


# Tokens

CLAIMS = {"aud": "askonce:inbox", "org": ORIGIN, "sub": VISITOR, "exp": NOW + 60}


def test_a_token_s_visitor_may_write_and_read() -> None:
    chat().verify(said(visitor_token()))
    assert chat().reader(said(visitor_token())) == f"webchat:{VISITOR}"


@pytest.mark.parametrize(
    "token",
    [
        visitor_token(aud="askonce:another-inbox"),
        visitor_token(aud=None),
        visitor_token(org="https://evil.example"),
        visitor_token(org=None),
        visitor_token(exp=NOW - 1),
        visitor_token(exp=None),
        visitor_token(exp="never"),
        visitor_token(sub=None),
        jwt.encode(CLAIMS, IDENTITY_SECRET, algorithm="HS256"),
        jwt.encode(CLAIMS, TOKEN_SECRET * 2, algorithm="HS384"),
        unsigned(CLAIMS, "none"),
        unsigned(CLAIMS, "None"),
        unsigned(CLAIMS, "HS256"),
        visitor_token()[:-4],
        f"{visitor_token()}.x",
        f"{part({'alg': 'HS256', 'crit': ['x']})}.{part(CLAIMS)}.x",
        "[" * 5000,
        "é.é.é",
        "..",
        "x",
    ],
)
def test_a_token_that_is_not_for_here_and_now_is_refused(token: str) -> None:
    for ask in (chat().verify, chat().reader):
        with pytest.raises(SignatureError):
            ask(said(token))


@pytest.mark.parametrize("scheme", ["Basic ", "", "Bearer", "Bearer  ", "Token "])
def test_a_token_is_given_as_a_bearer(scheme: str) -> None:
    asked = request_of(
        {"method": "POST", "headers": {"Authorization": scheme + visitor_token()}, "query": {}}, NOW
    )
    with pytest.raises(SignatureError):
        chat().verify(asked)


@pytest.mark.parametrize("origin", ["null", "https://evil.example", f"{ORIGIN}/", ORIGIN.upper()])
def test_a_token_taken_to_another_page_is_refused(origin: str) -> None:
    with pytest.raises(SignatureError, match="origin"):
        chat().verify(request({}, token=visitor_token(), origin=origin))


def test_a_token_without_a_browser_is_good() -> None:
    chat().verify(request({}, token=visitor_token(), origin=None))


# Sessions


def test_every_new_visitor_is_somebody_else() -> None:
    first, second = session(), session()
    assert first["visitor"] != second["visitor"]
    assert len(first["visitor"]) == 33
    assert first["expires_at"] == "2026-01-01T09:30:00+00:00"


@pytest.mark.parametrize("days", [0, 1, 89])
def test_a_token_is_renewed_for_the_same_visitor(days: int) -> None:
    renewed = session(seconds_later=days * DAY, token=visitor_token())
    assert renewed["visitor"] == VISITOR
    chat().verify(later(said(renewed["token"]), days * DAY))


@pytest.mark.parametrize(
    ("token", "days"),
    [
        (visitor_token(), 91),
        (visitor_token(org="https://evil.example"), 0),
        (visitor_token(aud="askonce:another-inbox"), 0),
        (visitor_token(known={"sub": "C-7"}), 0),
        (jwt.encode(CLAIMS, IDENTITY_SECRET, algorithm="HS256"), 0),
        (unsigned(CLAIMS, "none"), 0),
    ],
)
def test_a_token_that_is_old_foreign_or_a_customer_s_is_not_renewed(token: str, days: int) -> None:
    with pytest.raises(SignatureError):
        session(seconds_later=days * DAY, token=token)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        None,
        "https://evil.example",
        "https://shop.example.evil.example",
        "https://evilshop.example",
        "https://shop.example:8443",
        "http://shop.example",
        "HTTPS://SHOP.EXAMPLE",
        "https://shop.example/",
    ],
)
def test_another_origin_gets_no_session_and_no_cors_header(origin: str | None) -> None:
    asked = request({}, origin=origin)
    with pytest.raises(SignatureError):
        chat().page("session", asked)
    assert chat().response_headers(asked) == {"Vary": "Origin"}


def test_two_origins_are_none() -> None:
    asked = with_header(request({}), "origin", ORIGIN, "https://evil.example")
    assert chat().response_headers(asked) == {"Vary": "Origin"}


def test_a_listed_origin_may_read_the_answers_and_no_other() -> None:
    headers = chat(origins=[ORIGIN, "https://www.shop.example"]).response_headers(request({}))
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize("body", ["[]", "x", '{"token": 7}', '{"identity": "%s"}' % ("x" * 5000)])
def test_a_session_asked_for_in_another_way_is_refused(body: str) -> None:
    parts = {"method": "POST", "headers": {"Origin": ORIGIN}, "query": {}, "body": body}
    with pytest.raises(WebhookError, match="malformed"):
        chat().page("session", request_of(parts, NOW))


# Identities


def identity(secret: str = IDENTITY_SECRET, **more: Any) -> str:
    usual = {"sub": "C-7", "email": "Li@Example.com", "phone": "+8613800138000", "exp": NOW + 60}
    return jwt.encode(usual | more, secret, algorithm="HS256")


def test_an_identity_is_verified_evidence_of_all_that_it_says() -> None:
    (message,) = chat().parse(said(session(identity=identity(name="Li Wei"))["token"]))
    assert message.sender_name == "Li Wei"
    assert {e.address for e in message.evidence if e.source == "signed_identity"} == {
        "external:C-7",
        "email:li@example.com",
        "phone:+8613800138000",
    }


def test_a_customer_has_one_chat_on_all_devices_and_of_nobody_else() -> None:
    phone, laptop = session(identity=identity()), session(identity=identity(exp=NOW + 9))
    other = session(identity=identity(sub="C-8"))
    assert phone["visitor"] == laptop["visitor"] != other["visitor"]


@pytest.mark.parametrize(
    "forged",
    [
        identity("x" * 40),
        identity(TOKEN_SECRET),
        identity(exp=NOW - 1),
        identity(exp=None),
        identity(sub=""),
        identity(sub=None),
        unsigned({"sub": "C-7", "exp": NOW + 60}, "none"),
        unsigned({"sub": "C-7", "exp": NOW + 60}, "HS256"),
        identity()[:-4],
    ],
)
def test_an_identity_that_the_site_did_not_sign_lately_is_refused(forged: str) -> None:
    with pytest.raises(SignatureError, match="identity"):
        session(identity=forged)


def test_without_a_secret_there_are_no_identities() -> None:
    with pytest.raises(SignatureError, match="not set up"):
        session(chat(identity_secret=None), identity=identity())


def evidence(token: str) -> dict[str, str]:
    (message,) = chat().parse(said(token))
    return {e.address: e.level.value for e in message.evidence}


def test_a_customer_goes_on_where_the_visitor_of_a_moment_ago_stopped() -> None:
    joined = session(identity=identity(), token=visitor_token())
    assert evidence(joined["token"])[f"webchat:{VISITOR}"] == "verified"
    assert joined["visitor"] == session(identity=identity())["visitor"]


@pytest.mark.parametrize(
    "token",
    [
        visitor_token(exp=NOW - 1),
        visitor_token(org="https://evil.example"),
        visitor_token(known={"sub": "C-8"}),
        "x",
    ],
)
def test_a_visitor_of_another_day_or_place_is_not_even_suggested(token: str) -> None:
    assert f"webchat:{VISITOR}" not in evidence(session(identity=identity(), token=token)["token"])


@pytest.mark.parametrize("claim", ["email", "phone", "sub"])
def test_an_identity_that_is_no_address_is_a_payload_error(claim: str) -> None:
    token = session(identity=identity(**{claim: "\n"}))["token"]
    with pytest.raises(PayloadError):
        chat().parse(said(token))


# Lines

OWN = digest("inbox", f"webchat:{VISITOR}")
UPLOAD = f"uploads/{OWN}/{'0a' * 16}"
FILE = {"upload": UPLOAD, "name": "a.bin", "media_type": "image/png"}


def test_a_line_tried_again_is_the_same_line() -> None:
    first, again = (chat().parse(said(visitor_token()))[0].id for _ in range(2))
    (other,) = chat().parse(said(visitor_token("v2")))
    assert first == again != other.id


@pytest.mark.parametrize(
    "said_",
    [
        {"text": " \n"},
        {"text": "x" * 8001},
        {"client_id": "short"},
        {"client_id": "line 0001 with blanks"},
        {"client_id": "line-0001\n"},
        {"files": [FILE] * 6},
        {"files": [{}]},
        {"files": [FILE | {"upload": UPLOAD.replace(OWN, digest("inbox", "webchat:v2"))}]},
        {"files": [FILE | {"upload": f"{UPLOAD}0"}]},
        {"files": [FILE | {"upload": f"{UPLOAD[:-3]}/.."}]},
        {"files": [FILE | {"upload": "attachments/m1/0"}]},
        {"files": [FILE | {"upload": UPLOAD + "\n"}]},
        {"files": [FILE | {"media_type": "text/html"}]},
        {"files": [FILE | {"media_type": "image/svg+xml"}]},
    ],
)
def test_a_line_beyond_the_limits_is_a_payload_error(said_: dict[str, Any]) -> None:
    with pytest.raises(PayloadError):
        chat().parse(said(visitor_token(), **said_))


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("image/PNG", "image"), ("audio/mp4", "audio"), ("video/mp4", "video"), ("text/csv", "file")],
)
def test_a_file_without_words_is_of_its_own_kind(media_type: str, kind: str) -> None:
    file = FILE | {"media_type": media_type}
    (message,) = chat().parse(said(visitor_token(), text="", files=[file]))
    assert (message.kind, message.attachments[0].source) == (kind, UPLOAD)


# Uploads


def upload(token: str = "", ours: WebChat | None = None, **asked: Any) -> Upload:
    wanted = {"name": "tea.png", "media_type": "image/PNG", "size_bytes": 4} | asked
    return (ours or chat()).upload(request(wanted, token=token or visitor_token()))


def test_an_upload_is_for_one_file_in_the_visitor_s_own_folder() -> None:
    first, second = upload(), upload()
    assert first.key != second.key
    assert first.key.startswith(f"uploads/{OWN}/")
    assert (first.media_type, first.max_bytes, first.seconds) == ("image/png", 10_000_000, 900)
    file = {"upload": first.key, "name": "tea.png", "media_type": "image/png"}
    chat().parse(said(visitor_token(), files=[file]))
    with pytest.raises(PayloadError, match="not an upload of this visitor"):
        chat().parse(said(visitor_token("v2"), files=[file]))


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"size_bytes": 10_000_001}, TooLargeError),
        ({"size_bytes": 0}, WebhookError),
        ({"size_bytes": None}, WebhookError),
        ({"media_type": "text/html"}, WebhookError),
        ({"media_type": "image/svg+xml"}, WebhookError),
        ({"media_type": ""}, WebhookError),
    ],
)
def test_an_upload_beyond_the_caps_is_refused(asked: Any, refused: type[Exception]) -> None:
    with pytest.raises(refused):
        upload(**asked)


def test_the_caps_are_the_inbox_s_own() -> None:
    ours = chat(max_file_megabytes=1, file_types=["application/zip"])
    assert upload(ours=ours, media_type="application/zip").max_bytes == 1_000_000
    with pytest.raises(WebhookError, match="type"):
        upload(ours=ours)
    with pytest.raises(TooLargeError):
        upload(ours=ours, media_type="application/zip", size_bytes=1_000_001)


def test_nobody_without_a_token_may_upload_or_signal() -> None:
    for ask in (chat().upload, chat().signal):
        with pytest.raises(SignatureError):
            ask(request({"kind": "typing"}))


# Signals


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"kind": "typing"}, {"kind": "typing"}),
        ({"kind": "typing", "seq": 3, "text": "secret"}, {"kind": "typing"}),
        ({"kind": "read", "seq": 3}, {"kind": "read", "seq": 3}),
    ],
)
def test_a_signal_says_what_the_visitor_does_and_nothing_else(asked: Any, told: Any) -> None:
    assert chat().signal(request(asked, token=visitor_token())) == told


@pytest.mark.parametrize("asked", [{}, [], {"kind": "dancing"}, {"kind": "read", "seq": -1}])
def test_another_signal_is_refused(asked: Any) -> None:
    with pytest.raises(WebhookError, match="malformed"):
        chat().signal(request(asked, token=visitor_token()))


# Limits


def parties(call: str, *, source_ip: str = "192.0.2.7", token: str = "") -> list[str]:
    asked = replace(request({}, token=token or visitor_token()), source_ip=source_ip)
    return [a.party for a in chat().allowances(call, asked)]


def test_an_address_a_visitor_and_the_inbox_have_their_quota() -> None:
    assert parties("messages") == ["from 192.0.2.7", f"webchat:{VISITOR}", "all"]
    assert parties("session") == ["from 192.0.2.7", "all"]


def test_a_network_of_ipv6_is_one_address() -> None:
    one, other = parties("read", source_ip="2001:db8::1"), parties("read", source_ip="2001:db8::2")
    assert one == other
    assert parties("read", source_ip="2001:db8:0:1::1") != one


def test_whoever_has_no_token_takes_from_the_address_only() -> None:
    asked = replace(request({}, token="x"), source_ip="192.0.2.7")
    allowances = chat().allowances("messages", asked)
    assert next(iter(allowances)).party == "from 192.0.2.7"
    with pytest.raises(SignatureError):
        next(iter(allowances))


# What a visitor sees


def line(number: int, **more: Any) -> FeedEntry:
    (message,) = chat().parse(said(visitor_token()))
    verdict = Verdict(outcome=Outcome.REPEAT, rule="score", reason="asked before by another")
    hidden = {"verdict": verdict, "contact_id": "c1", "conversation_id": "q1", **more}
    return FeedEntry(seq=number, message=message.model_copy(update=hidden))


def test_a_visitor_sees_the_words_and_nothing_of_what_we_think() -> None:
    response = chat().transcript([line(4), line(5, author="Kim")], 3, Presence())
    shown = told(response)
    assert shown["after"] == 5
    assert set(shown["messages"][0]) == {
        "seq", "id", "client_id", "from", "author", "text", "files", "at", "choices",
    }  # fmt: skip
    assert "asked before" not in response.body


def test_without_news_the_place_in_the_feed_stays() -> None:
    nobody = {"typing_seconds": 0.0, "read_at": None}
    assert told(chat().transcript([], 7, Presence())) == {
        "messages": [], "after": 7, "agent": nobody, "mark": "",
    }  # fmt: skip


def test_a_visitor_sees_what_the_agent_does() -> None:
    at = datetime(2026, 1, 1, 9, tzinfo=UTC)
    shown = told(chat().transcript([], 7, Presence(typing_seconds=6.04, read_at=at, mark="3")))
    assert shown["agent"] == {"typing_seconds": 6.0, "read_at": "2026-01-01T09:00:00+00:00"}
    assert shown["mark"] == "3"


def test_a_visitor_gets_links_to_files_and_nothing_of_where_they_lie() -> None:
    file = Attachment(name="a.png", media_type="image/png", url="https://b.example/a?sig")
    file = file.model_copy(update={"key": "attachments/m1/0", "source": UPLOAD, "sha256": "ab"})
    response = chat().transcript([line(1, attachments=(file,))], 0, Presence())
    assert told(response)["messages"][0]["files"] == [
        {"name": "a.png", "media_type": "image/png", "url": "https://b.example/a?sig"}
    ]


def test_an_agent_s_line_is_from_us_and_has_no_client_id() -> None:
    (message,) = chat().parse(said(visitor_token()))
    reply: Message = answer_to(message)
    (shown,) = told(chat().transcript([FeedEntry(seq=1, message=reply)], 0, Presence()))["messages"]
    assert (shown["from"], shown["client_id"], shown["author"]) == ("us", None, "Kim")


# Pages


def test_the_widget_is_served_to_anybody() -> None:
    served = chat().page("widget.js", request(method="GET", origin=None))
    assert served.content_type == "text/javascript; charset=utf-8"
    assert "askonce-chat" in served.body


def test_the_widget_is_one_small_file_that_needs_nothing_else() -> None:
    served = chat().page("widget.js", request(method="GET", origin=None)).body
    assert len(served.encode()) < 25_000
    for needs in ("import ", "require(", "eval(", "cdn.", "document.write"):
        assert needs not in served
    assert served.count("innerHTML") == 1  # its own page; nobody's words


@pytest.mark.parametrize("name", ["session", "messages", "anything"])
def test_a_browser_may_ask_before_it_asks(name: str) -> None:
    assert chat().page(name, request(method="OPTIONS")).status == 204


@pytest.mark.parametrize(
    ("name", "method"),
    [("../secrets", "GET"), ("session", "GET"), ("widget.js", "POST"), ("", "GET")],
)
def test_there_is_no_other_page(name: str, method: str) -> None:
    with pytest.raises(NotFoundError):
        chat().page(name, request({}, method=method))


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"token_secret": "x" * 31},
        {"token_secret": ["x" * 40, "short"]},
        {"identity_secret": "x" * 31},
        {"origins": []},
        {"origins": ["*"]},
        {"origins": ["shop.example"]},
        {"origins": ["https://shop.example/"]},
        {"origins": ["https://shop.example/page"]},
        {"origins": ["https://SHOP.example"]},
        {"origins": ["null"]},
        {"origins": ["https://shop.example,https://evil.example"]},
        {"origins": ["https://user@shop.example"]},
        {"token_minutes": 0},
        {"max_file_megabytes": 26},
        {"visitor_per_minute": 0},
    ],
)
def test_a_setting_that_lets_anybody_in_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        chat(**wrong)
