"""SMS and SNS: published signatures, and every request of the shared set with its known verdict.

docs/payloads/sms.md says of each of them what we do and why; `test_the_page_...` holds it to that.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from chalicelib.errors import SignatureError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.schema import Message, Receipt
from connectors import hs256, sms_text, sns, vonage_proof
from connectors.channels import sms_aliyun
from tests.recorded import SHARED, connector
from tests.samples_sms import ALIYUN, AWS, TENCENT, VONAGE
from tests.sns_signing import know_certificate
from tests.test_vectors import absent, name_of, records, request_in, vectors

PAGE = Path(__file__).parents[1] / "docs" / "payloads" / "sms.md"
SOMEWHEN = datetime(2026, 1, 1, tzinfo=UTC)
LAMBDA = SHARED / "payloads"
pytestmark = absent


# Published signatures


def test_the_vonage_signature_is_the_published_one() -> None:
    inputs, expected = vectors()["vonage_sms_md5hash"]
    assert vonage_proof.signature(inputs["secret"], inputs["params"], "md5hash") == expected


def test_the_signature_of_alibaba_s_calls_is_the_published_one() -> None:
    """The example of Alibaba's page on signing."""
    fields = {
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
        "AccessKeyId": "testid",
        "SignatureVersion": "1.0",
        "Timestamp": "2016-02-23T12:46:24Z",
        "Format": "XML",
        "Action": "DescribeRegions",
        "Version": "2014-05-26",
    }
    signed = sms_aliyun.signature("testsecret", "GET", fields)
    assert signed == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="


# Whole requests


def vonage(record: Any) -> tuple[Connector, WebhookRequest]:
    secret = {k: v for k, v in record["secret"].items() if k == "signature_secret"}
    method = record["secret"].get("method", "sha256")
    settings = VONAGE | secret | {"signature_method": method}
    request = request_in(record)
    now = re.search(rb'"timestamp": "(\d{10})"', request.body)
    at = float(now[1]) if now else request.received_at.timestamp()
    if token := request.header("authorization"):
        at = hs256.claims(token.removeprefix("Bearer "), [*secret.values()])["iat"]
    return connector("sms_vonage", settings, "https://hooks.example.com/vonage"), moved(request, at)


def moved(request: WebhookRequest, at: float) -> WebhookRequest:
    return replace(request, received_at=datetime.fromtimestamp(at, UTC))


def aws(record: Any) -> tuple[Connector, WebhookRequest]:
    request, secret = request_in(record), record["secret"]
    stated = json.loads(request.body)
    know_certificate(secret["signing_cert_pem"].encode(), stated["SigningCertURL"])
    settings = AWS | {"topic_arns": secret["allowed_topic_arn"]}
    at = sns.read(request.body).sent_at.timestamp()
    return connector("sms_aws", settings, "https://hooks.example.com/sns"), moved(request, at)


def in_china(record: Any) -> tuple[Connector, WebhookRequest]:
    """The secret that these records have in the query ends the address with us."""
    secret = parse_qs(urlsplit(record["request"]["url"]).query)["k"][0]
    name, settings = {
        "aliyun-sms": ("sms_aliyun", ALIYUN),
        "tencent-sms": ("sms_tencent", TENCENT),
    }[record["provider"]]
    request = replace(moved(request_in(record), 1767323050), path_secret=secret)
    return connector(name, settings | {"path_secret": secret}, "https://x.example"), request


MAKERS = {"vonage": vonage, "sns": aws, "aliyun-sms": in_china, "tencent-sms": in_china}


def verdict(record: Any) -> bool:
    made, request = MAKERS[record["provider"]](record)
    try:
        made.verify(request)
    except SignatureError:
        return False
    return True


@pytest.mark.parametrize("record", records("vonage", "sns"))
def test_the_verdict_on_a_signed_request_is_the_known_one(record: Any) -> None:
    assert verdict(record) == record["expected"]["verify"]


def said(record: Any) -> Sequence[Message | Receipt]:
    made, request = MAKERS[record["provider"]](record)
    return made.parse(request)  # type: ignore[return-value]  # none of these gives notices


@pytest.mark.parametrize("record", records("vonage", stating="parsed"))
def test_a_vonage_text_has_the_known_fields(record: Any) -> None:
    (message,) = said(record)
    assert isinstance(message, Message)
    assert record["expected"]["parsed"] == {
        "id": message.external_id,
        "text": message.text,
        "from": message.address.removeprefix("phone:+"),
    }


def test_the_parts_of_a_long_text_share_what_joins_them() -> None:
    found = records("vonage", stating="join")
    pieces = [said(p.values[0])[0] for p in found]
    assert all(isinstance(piece, Message) and piece.part for piece in pieces)
    numbered = {p.part.number: p for p in pieces if isinstance(p, Message) and p.part}
    assert len({(p.address, p.account, p.part and p.part.of) for p in numbered.values()}) == 1
    joined = "".join(numbered[n].text for n in sorted(numbered))
    assert joined == found[0].values[0]["expected"]["join"]


def test_parts_that_nothing_signs_are_refused() -> None:
    for parameter in records("vonage", stating="join"):
        assert not verdict(parameter.values[0])


@pytest.mark.parametrize("record", records("sns", stating="provider"))
def test_a_two_way_text_of_aws_is_a_message(record: Any) -> None:
    (message,) = said(record)
    assert isinstance(message, Message)
    assert message.external_id == "wycb0de0-v97u4ojqe9jo" or message.text
    assert message.sent_at.isoformat() == "2026-01-02T03:04:05.678000+00:00"


@pytest.mark.parametrize("record", records("aliyun-sms", "tencent-sms", stating="messages"))
def test_what_nothing_signs_is_taken_by_its_address_alone(record: Any) -> None:
    made, request = in_china(record)
    made.verify(request)
    for secret in ("", "x" * 16, request.path_secret[:-1], request.path_secret + "x"):
        with pytest.raises(SignatureError):
            made.verify(replace(request, path_secret=secret))
    messages = [m for m in made.parse(request) if isinstance(m, Message)]
    assert len(messages) == record["expected"]["messages"]
    out = [m for m in messages if m.consent and m.consent.choice == "out"]
    wanted = record["expected"]["opt_out"]
    numbers = ["13800000000"] if wanted is True else wanted
    assert [m.address for m in out] == [f"phone:+86{number}" for number in numbers]
    response = made.acknowledge(messages)
    assert response.status == 200
    assert json.loads(response.body) == record["expected"]["response_json"]


WORDS = [p for p in records("twilio", stating="parsed") if p.values[0]["case"].startswith("sms_")]


@pytest.mark.parametrize("record", WORDS)
def test_only_a_whole_text_opts_out(record: Any) -> None:
    text = record["expected"]["parsed"]["text"]
    wanted = "out" if text.strip() in ("STOP", "退订", "TD", "Stop") else None
    assert sms_text.choice(text) == wanted


# Events that Lambda functions get


def test_an_event_of_sns_is_taken_from_the_topic_that_it_names_only() -> None:
    text = (LAMBDA / "aws_lambda_go" / "sns-event.json").read_text(encoding="utf-8")
    stated = json.loads(text)["Records"][0]["Sns"] | {"TopicArn": AWS["topic_arns"]}
    body = json.dumps(stated).encode()
    event = WebhookRequest(
        method="POST", body=body, received_at=SOMEWHEN, event_source=str(AWS["topic_arns"])
    )
    ours = connector("sms_aws", AWS, "https://x.example")
    assert ours.handshake(event) is None
    ours.verify(event)
    for source in ("", f"{AWS['topic_arns']}x"):  # over HTTP; an event of another topic
        with pytest.raises(SignatureError):
            ours.verify(replace(event, event_source=source))


# The page


def rows() -> dict[str, list[str]]:
    """{file of the set: the other cells of its line}."""
    cells = [line.strip("|").split("|") for line in PAGE.read_text("utf-8").splitlines()]
    found = [[cell.strip() for cell in line] for line in cells if len(line) == 4]
    return {line[0].strip("`"): line[1:] for line in found if line[0].startswith("`")}


def test_the_page_names_every_payload_of_sms_and_sns_and_no_other() -> None:
    index = (LAMBDA / "INDEX.tsv").read_text(encoding="utf-8").splitlines()[1:]
    providers = {"twilio", "vonage", "sns", "aliyun-sms", "tencent-sms", "aws-sns", "aws-snssqs"}
    wanted = {line.split("\t")[0] for line in index if line.split("\t")[1] in providers}
    assert set(rows()) == wanted


@pytest.mark.parametrize("record", records("vonage", "sns", "twilio"))
def test_the_page_tells_the_verdict(record: Any) -> None:
    file = f"generated_signed/{record['provider']}__{record['case']}.json"
    taken = rows()[file][0] == "taken"
    assert taken == record["expected"]["verify"], name_of(record)


def test_the_query_of_a_record_is_read_as_the_gateway_reads_it() -> None:
    (record,) = (p.values[0] for p in records("vonage") if p.id == "vonage/sms_sig_sha512")
    pairs = parse_qsl(urlsplit(record["request"]["url"]).query)
    assert list(vonage(record)[1].query) == pairs
