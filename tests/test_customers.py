"""Your own customers: by a list in CSV, and by the signed API. Linked, refused, and why."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from chalice.local import LambdaContext
from standardwebhooks.webhooks import Webhook

import app
from chalicelib import settings
from chalicelib.contacts import Contacts
from chalicelib.customers import Customers, NoAddressError, normal
from chalicelib.settings import CONFIG_ENVIRONMENT, Document
from infra import customers as listed
from infra.customers import CsvError, Rehearsal, Summary, e164
from tests.fakes import World, world


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "customers.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def imported(w: World, path: Path, country: str | None = None, *, dry: bool = False) -> Summary:
    store = w.pipeline.store.over(Rehearsal) if dry else w.pipeline.store
    known = Customers(Contacts(store, w.clock), w.clock)
    rows = listed.rows(path)
    return listed.take(known, rows, country=country, by="kim", progress=lambda _: None)


def addresses(w: World, address: str) -> set[str]:
    return set(Contacts(w.pipeline.store, w.clock).show(address)[0].addresses)


Csv = Callable[..., Path]
LIST = """customer_id,email,phone,wechat,wechat_union,webchat,name
7,Li@Example.com,+86 138 0013 8000,wx1:oLi,u1,v1,Li
8,mei@example.com,,,,,Mei
"""


# The list


def test_every_address_of_a_row_is_the_customers(w: World, csv: Csv) -> None:
    summary = imported(w, csv(LIST))
    assert (summary.counts["linked"], summary.refused) == (6, [])
    assert addresses(w, "external:7") == {
        "external:7", "email:li@example.com", "phone:+8613800138000", "wechat:wx1:oLi",
        "wechat_union:u1", "webchat:v1",
    }  # fmt: skip
    link = w.pipeline.store.link("email:li@example.com")
    assert link is not None
    assert (link.noun.source, link.noun.level.value) == ("customer list", "verified")
    assert link.noun.history[-1].by == "kim"


def test_a_list_may_be_run_again(w: World, csv: Csv) -> None:
    imported(w, csv(LIST))
    before = dict(w.table.items)
    summary = imported(w, csv(LIST))
    assert (summary.counts["linked"], summary.counts["already"]) == (0, 6)
    assert w.table.items == before


def test_a_list_goes_on_where_it_was_stopped(w: World, csv: Csv) -> None:
    def pull() -> None:
        raise SystemExit

    w.table.interrupt(4, pull)
    with pytest.raises(SystemExit):
        imported(w, csv(LIST))
    summary = imported(w, csv(LIST))
    assert summary.counts["linked"] + summary.counts["already"] == 6
    assert len(addresses(w, "external:7")) == 6


def test_a_dry_run_says_the_same_and_writes_nothing(w: World, csv: Csv) -> None:
    text = LIST + "9,li@example.com,,,,,Somebody\n10,,0800,,,,\n"
    rehearsed = imported(w, csv(text), dry=True)
    assert w.table.items == {}
    assert rehearsed == imported(w, csv(text))


def test_a_customer_who_wrote_before_keeps_what_was_asked(w: World, csv: Csv) -> None:
    w.say("email", "mei@example.com", "Where is my order?")
    w.settle()
    imported(w, csv(LIST))
    assert "external:8" in addresses(w, "email:mei@example.com")
    assert len(Contacts(w.pipeline.store, w.clock).show("external:8")[2]) == 1


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("customer_id,email\r\n7,li@example.com\r\n", "utf-8-sig"),
        ("customer_id;email\n7;li@example.com\n", "utf-8"),
        (" Email ;Name; CUSTOMER_ID\nli@example.com;Li, Mr;7\n", "utf-8-sig"),
        ('"customer_id","email"\n"7","li@example.com"\n\n', "utf-8"),
    ],
)
def test_lists_are_read_as_spreadsheets_write_them(
    w: World, csv: Csv, text: str, encoding: str
) -> None:
    assert imported(w, csv(text, encoding)).counts["linked"] == 1
    assert addresses(w, "external:7") == {"external:7", "email:li@example.com"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "needs customer_id"),
        ("customer_id\n7\n", "at least one of email"),
        ("email\nx@y\n", "needs customer_id"),
        ("customer_id,e-mail\n7,x\n", 'the column "e-mail" is unknown; there are customer_id'),
        ("customer_id,email,email\n7,x,y\n", "is there twice"),
        ("customer_id,email\n7\n", "line 2 has 1 cells, not 2"),
        ('customer_id,email\n7,"x\n', "line 2: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_such_list_is_refused_whole(csv: Csv, text: str, why: str) -> None:
    with pytest.raises(CsvError, match=why):
        listed.rows(csv(text))


def test_a_file_in_another_encoding_is_named(csv: Csv) -> None:
    with pytest.raises(CsvError, match=r"customers\.csv: byte 22 is not UTF-8: save it as CSV"):
        listed.rows(csv("customer_id,email,nameé\n", "latin-1"))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("7,no mail,,,,,", "email no mail: no email address"),
        ("7,,0800,,,,", "phone 0800: a number without +: say of which country by --country"),
        ("7,,+12,,,,", "phone +12: no phone number"),
        ("7,,,oLi,,,", "wechat oLi: no wechat address: <appid>:<openid> is expected"),
        (",li@example.com,,,,,", "no customer_id"),
    ],
)
def test_what_cannot_be_an_address_is_refused_with_its_line(
    w: World, csv: Csv, row: str, why: str
) -> None:
    summary = imported(w, csv(LIST + row))
    assert (summary.counts["linked"], summary.counts["refused"]) == (6, 1)
    assert summary.refused[0].startswith("line 4: ")
    assert why in summary.refused[0]


def test_an_address_of_two_customers_stays_the_first_ones(w: World, csv: Csv) -> None:
    summary = imported(w, csv(LIST + "9,li@example.com,,,,,"))
    assert "another customer of yours" in summary.refused[0]
    assert "external:9" not in addresses(w, "external:7")


def test_what_an_operator_took_apart_stays_apart_and_is_reported(w: World, csv: Csv) -> None:
    imported(w, csv(LIST))
    Contacts(w.pipeline.store, w.clock).unlink("email:li@example.com", by="sam")
    [refused] = imported(w, csv(LIST)).refused
    assert "line 2: email Li@Example.com: an operator took it away" in refused
    assert addresses(w, "email:li@example.com") == {"email:li@example.com"}


def test_a_list_never_merges_two_people_whom_we_know(w: World, csv: Csv) -> None:
    contacts = Contacts(w.pipeline.store, w.clock)
    contacts.link("wechat:wx1:o", "email:mei@example.com", source="operator", by="kim")
    imported(w, csv("customer_id,phone\n8,+8613800138000\n"))
    [refused] = imported(w, csv("customer_id,email\n8,mei@example.com\n")).refused
    assert "known by several addresses" in refused


def test_a_list_renews_what_it_says_again(w: World, csv: Csv) -> None:
    imported(w, csv(LIST))
    w.clock.forward(days=100)
    imported(w, csv(LIST))
    link = w.pipeline.store.link("phone:+8613800138000")
    assert link is not None
    assert link.noun.verified_at == w.clock.now


@pytest.mark.parametrize(
    ("number", "country", "wanted"),
    [
        ("138 0013 8000", "CN", "+8613800138000"),
        ("010-1234 5678", "CN", "+861012345678"),
        ("+86 138-0013-8000", None, "+8613800138000"),
        ("0086 13800138000", None, "+8613800138000"),
        ("(030) 123 456", "DE", "+4930123456"),
        ("+49 (0)30 123456", None, "+4930123456"),
        ("06 1234 5678", "IT", "+390612345678"),
        ("(415) 555-0100", "US", "+14155550100"),
        ("1 415 555 0100", "US", "+14155550100"),
        ("9123 4567", "HK", "+85291234567"),
    ],
)
def test_phone_numbers_come_to_e164(number: str, country: str | None, wanted: str) -> None:
    assert e164(number, country) == wanted


@pytest.mark.parametrize("number", ["", "+", "call me", "+0123456789", "+1234567890123456"])
def test_what_is_no_phone_number_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="no phone number"):
        e164(number, "CN")


@pytest.mark.parametrize(
    "address",
    ["unproven:email:li@example.com", "external:7", "email:Li <li@x>", "phone:138", "li", "",
     "email:a@b\nc", "wechat:wx1"],
)  # fmt: skip
def test_what_is_not_to_be_linked_is_no_address_here(address: str) -> None:
    with pytest.raises(NoAddressError):
        normal(address)


# The signed API

SECRETS = ["whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b")]
CONFIG = """
public_url = "https://askonce.example"
helpdesk = "desk"
[helpdesks.desk]
connector = "webhook"
url = "https://desk.example"
secret = "env:NEW_SECRET"
"""
API = '[contacts_api]\nsecrets = ["env:NEW_SECRET", "env:OLD_SECRET"]\n'


@pytest.fixture
def deployed(
    moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """The app in one container, with a configuration."""
    config = tmp_path / "askonce.toml"
    monkeypatch.setenv(CONFIG_ENVIRONMENT, str(config))
    monkeypatch.setenv("ASKONCE_BUCKET", moto_bucket)
    monkeypatch.setenv("NEW_SECRET", SECRETS[0])
    monkeypatch.setenv("OLD_SECRET", SECRETS[1])

    def deploy(more: str = API) -> None:
        config.write_text(CONFIG + more, encoding="utf-8")
        app.pipeline.cache_clear()
        app.queue.cache_clear()

    deploy()
    yield deploy
    app.pipeline.cache_clear()
    app.queue.cache_clear()


def post(
    body: Any,
    secret: str = SECRETS[0],
    *,
    at: datetime | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    """A request as the published library of Standard Webhooks signs it."""
    text = body if isinstance(body, str) else json.dumps(body)
    at = at or app.now()
    signed = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, text),
        "Content-Type": "application/json",
    }
    given = signed if headers is None else headers
    event = {
        "resource": "/contacts",
        "path": "/contacts",
        "httpMethod": "POST",
        "headers": given,
        "multiValueHeaders": {k: [v] for k, v in given.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "body": text,
        "isBase64Encoded": False,
        "requestContext": {"resourcePath": "/contacts", "httpMethod": "POST", "identity": {}},
    }
    answer = app.app(event, LambdaContext("api_handler", 512, 29_000))
    return answer["statusCode"], json.loads(answer["body"]) if answer["body"] else None


def linking(*given: str, action: str = "link", customer_id: str = "7") -> dict[str, Any]:
    return {"action": action, "customer_id": customer_id, "addresses": list(given)}


Deploy = Callable[[str], None]
EMAIL, PHONE = "email:li@example.com", "phone:+8613800138000"


def test_your_system_links_a_customers_addresses(deployed: Deploy) -> None:
    status, answer = post(linking("email:Li@Example.com", PHONE))
    assert status == 200
    assert answer["customer_id"] == "7"
    assert {a["address"] for a in answer["addresses"]} == {"external:7", EMAIL, PHONE}
    assert {a["source"] for a in answer["addresses"]} == {"contacts api"}
    assert answer["results"] == [
        {"address": EMAIL, "outcome": "linked"},
        {"address": PHONE, "outcome": "linked"},
    ]


def test_saying_it_again_changes_nothing(deployed: Deploy) -> None:
    _, first = post(linking(EMAIL))
    status, again = post(linking(EMAIL))
    assert status == 200
    assert again["addresses"] == first["addresses"]
    assert again["results"] == [{"address": EMAIL, "outcome": "already"}]


def test_your_system_takes_an_address_away_and_gives_it_back(deployed: Deploy) -> None:
    post(linking(EMAIL, PHONE))
    status, answer = post(linking(EMAIL, action="unlink"))
    assert (status, answer["results"][0]["outcome"]) == (200, "unlinked")
    assert {a["address"] for a in answer["addresses"]} == {"external:7", PHONE}
    assert post(linking(EMAIL, action="unlink"))[1]["results"][0]["outcome"] == "already"
    assert post(linking(EMAIL))[1]["results"][0]["outcome"] == "linked"


def test_a_rotated_secret_is_heard_of_at_once_and_asked_for_once_a_minute(
    deployed: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert post(linking(EMAIL), SECRETS[1])[0] == 200
    new = "whsec_" + base64.b64encode(b"c" * 32).decode()
    monkeypatch.setenv("OLD_SECRET", new)
    assert post(linking(EMAIL), new)[0] == 401  # they were read a moment ago
    monkeypatch.setattr(settings, "SECRETS_MIN_AGE_SECONDS", 0)
    assert post(linking(EMAIL), new)[0] == 200
    assert post(linking(EMAIL), SECRETS[1])[0] == 401


def test_your_system_takes_nothing_from_somebody_else(deployed: Deploy) -> None:
    post(linking(EMAIL))
    status, answer = post(linking(EMAIL, action="unlink", customer_id="8"))
    assert (status, answer["results"][0]["outcome"]) == (200, "already")
    assert answer["contact_id"] is None
    assert {a["address"] for a in post(linking(EMAIL))[1]["addresses"]} == {"external:7", EMAIL}


def test_a_refused_address_is_named_with_the_reason_and_the_others_are_linked(
    deployed: Deploy,
) -> None:
    post(linking(EMAIL, customer_id="8"))
    status, answer = post(linking(EMAIL, PHONE, "phone:138"))
    assert status == 409
    assert [r["outcome"] for r in answer["results"]] == ["refused", "linked", "refused"]
    assert "another customer" in answer["results"][0]["why"]
    assert "E.164" in answer["results"][2]["why"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "Invalid JSON"),
        ("[]", "body"),
        ({"action": "merge", "customer_id": "7", "addresses": [EMAIL]}, "action"),
        (linking(), "addresses"),
        (linking(*[EMAIL] * 21), "addresses"),
        (linking(EMAIL, customer_id=""), "customer_id"),
        (linking(EMAIL) | {"email": "x"}, "email"),
    ],
)
def test_nonsense_is_answered_with_what_is_wrong(deployed: Deploy, body: Any, why: str) -> None:
    status, answer = post(body)
    assert status == 400
    assert why in answer["error"]


def test_both_secrets_are_valid_while_they_are_rotated(deployed: Deploy) -> None:
    assert [post(linking(EMAIL), secret)[0] for secret in SECRETS] == [200, 200]
    wrong = "whsec_" + base64.b64encode(b"c" * 32).decode()
    assert post(linking(EMAIL), wrong) == (401, None)


def test_an_unsigned_an_old_and_a_changed_request_are_refused(deployed: Deploy) -> None:
    early = datetime.fromtimestamp(app.now().timestamp() - 600, tz=app.now().tzinfo)
    assert post(linking(EMAIL), at=early) == (401, None)
    assert post(linking(EMAIL), headers={}) == (401, None)
    assert app.pipeline().store.link(EMAIL) is None


def test_without_the_setting_there_is_no_such_api(deployed: Deploy) -> None:
    deployed("")
    assert post(linking(EMAIL)) == (404, None)


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("[contacts_api]\n", "contacts_api: secrets is missing"),
        ('[contacts_api]\nsecrets = ["plain"]\n', "contacts_api: secrets must be a reference"),
        ('[contacts_api]\nsecrets = ["env:NOWHERE"]\n', "NOWHERE is not set"),
    ],
)
def test_a_wrong_setting_is_a_fault_and_opens_nothing(
    deployed: Deploy, setting: str, fault: str
) -> None:
    deployed(setting)
    assert any(fault in line for line in app.pipeline().deployment.faults())
    assert post(linking(EMAIL))[0] == 503


def test_the_setting_is_part_of_the_configuration() -> None:
    written = {"public_url": "https://a.example", "helpdesk": "d", "contacts_api": {"secrets": []}}
    assert Document.model_validate(written).contacts_api == {"secrets": []}


def test_a_body_over_the_cap_is_refused(deployed: Deploy) -> None:
    assert post(json.dumps(linking(EMAIL)) + " " * 65_536)[0] == 413
