"""Mail that Amazon SES puts into S3: fetched once, from our buckets only, up to a ticket."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as failures
from botocore.response import StreamingBody

from chalicelib.errors import (
    DeliveryError,
    PayloadError,
    RejectedError,
    RetryableError,
)
from chalicelib.schema import Message
from chalicelib.settings import Deployment, Document
from connectors import mime
from connectors.channels import email_ses
from connectors.channels.email_ses import EmailSes
from infra.local.simulators import File
from tests.fakes import HELPDESKS, NoTokens, World, world
from tests.local import askonce, local, messages
from tests.samples_mail import written
from tests.samples_ses import (
    BUCKET,
    SES,
    STORED,
    judged,
    received,
)
from tests.ses_inboxes import AT, inbox, message, notice, posted, put

# Fetching


def test_a_mail_in_s3_is_the_message_that_it_would_be_inline(mail_bucket: Any) -> None:
    put(mail_bucket, written().as_bytes())
    page = inbox().fetch_messages(notice(received(action=STORED)), "", AT)
    assert (list(page.found), page.cursor, page.more) == ([message(received())], "done", False)


def test_a_mail_that_is_stored_is_not_fetched_again(mail_bucket: Any) -> None:
    page = inbox().fetch_messages(notice(received(action=STORED)), "done", AT)
    assert (list(page.found), page.cursor, page.more) == ([], "done", False)


def test_the_verdicts_go_with_a_mail_in_s3(mail_bucket: Any) -> None:
    put(mail_bucket, written(file=File("x.exe", "application/x-msdownload", b"MZ")).as_bytes())
    told = received(action=STORED, verdicts=judged(virus="FAIL", dmarc="FAIL"))
    (found,) = inbox().fetch_messages(notice(told), "", AT).found
    assert isinstance(found, Message)
    assert (found.automatic, found.evidence[0].level) == (True, "claimed")
    assert found.attachments[0].content is None


def test_a_bucket_that_is_not_listed_is_never_read(mail_bucket: Any) -> None:
    put(mail_bucket, written().as_bytes(), "somebody-else-s")
    told = received(action=STORED | {"bucketName": "somebody-else-s"})
    with pytest.raises(PayloadError, match="not among this inbox's buckets"):
        inbox().parse(posted(told))
    known = notice(told, buckets="somebody-else-s")
    with pytest.raises(RejectedError, match="not among this inbox's buckets"):
        inbox().fetch_messages(known, "", AT)
    for token in ("", "{", "[]", '{"bucket": 7}', "{}"):
        with pytest.raises(RejectedError):
            inbox().fetch_messages(known.model_copy(update={"token": token}), "", AT)


def test_two_rules_for_one_mail_are_two_sources_and_a_redelivery_is_none() -> None:
    help_, again = notice(received(action=STORED)), notice(received(action=STORED))
    sales = notice(received(action=STORED, recipients=["sales@shop.example"]))
    assert help_ == again
    assert (help_.source, help_.id) != (sales.source, sales.id)
    long = notice(received(action=STORED | {"objectKey": "in/" + "k" * 1000}))
    assert long.source.startswith(f"{BUCKET}/")


def test_a_mail_that_cannot_be_had_says_why(mail_bucket: Any) -> None:
    asked = notice(received(action=STORED))
    with pytest.raises(RejectedError, match="gone from the bucket shop-example-mail"):
        inbox().fetch_messages(asked, "", AT)
    put(mail_bucket, b"Subject: no author\r\n\r\nx")
    with pytest.raises(RejectedError, match="no author"):
        inbox().fetch_messages(asked, "", AT)
    put(mail_bucket, b"x" * (mime.MAX_BYTES + 1))
    with pytest.raises(RejectedError, match="longer than"):
        inbox().fetch_messages(asked, "", AT)
    put(mail_bucket, b"sealed", Metadata={"x-amz-key-v2": "k"})
    with pytest.raises(RejectedError, match="switch off message encryption"):
        inbox().fetch_messages(asked, "", AT)
    elsewhere = received(action=STORED | {"bucketName": "not-there"})
    with pytest.raises(RetryableError, match="there is no bucket not-there"):
        inbox(buckets="not-there").fetch_messages(notice(elsewhere, buckets="not-there"), "", AT)


class Broken:
    """S3 that answers with an exception, or with a body that breaks off."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def get_object(self, **asked: str) -> dict[str, Any]:
        if self.fault:
            raise self.fault
        return {"Body": StreamingBody(io.BytesIO(b"short"), 100), "ContentLength": 100}


@pytest.mark.parametrize(
    ("broken", "error", "says"),
    [
        (Broken(), RetryableError, "S3: IncompleteReadError"),
        (Broken(failures.EndpointConnectionError(endpoint_url="x")), RetryableError, "Endpoint"),
        (Broken(failures.NoCredentialsError()), RetryableError, "NoCredentials"),
        (Broken(failures.ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")),
         RetryableError, "allow s3:GetObject on it to the worker's role"),
        (Broken(failures.ClientError({"Error": {"Code": "SlowDown"}}, "GetObject")),
         RetryableError, "SlowDown"),
        (Broken(failures.ClientError({}, "GetObject")), RetryableError, "S3"),
        (Broken(failures.ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")),
         RejectedError, "gone"),
    ],
)  # fmt: skip
def test_a_broken_fetch_says_whether_to_try_again(
    broken: Broken, error: type[DeliveryError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(email_ses, "_client", lambda region: broken)
    with pytest.raises(error, match=says):
        inbox().fetch_messages(notice(received(action=STORED)), "", AT)


# Through the core


def configured(**more: Any) -> World:
    """A world whose configuration has an inbox of SES."""
    made = world()
    own = {k: v for k, v in SES.items() if k != "reply_secret"} | more
    held = made.pipeline.deployment.document.model_dump(exclude_unset=True)
    document = Document.model_validate(
        held | {"inboxes": {"inbox": {"connector": "email_ses"} | own}}
    )
    deployment = Deployment(document, {"email_ses": lambda: EmailSes}, HELPDESKS, NoTokens())
    made.pipeline = replace(made.pipeline, deployment=deployment)
    return made


def test_a_mail_in_s3_opens_one_ticket_however_often_it_is_told(mail_bucket: Any) -> None:
    put(mail_bucket, written().as_bytes())
    w = configured()
    for _ in range(2):
        w.pipeline.accept("inbox", posted(received(action=STORED)))
        w.settle()
    w.pipeline.accept("inbox", posted(received()))  # another rule brought it along
    w.settle()
    (stored,) = w.messages()
    assert stored.message.external_id == "<parcel-1@example.com>"
    assert [call[1] for call in w.desk.said] == [stored.message.text]


def test_a_mail_in_a_bucket_that_is_not_listed_is_set_aside(mail_bucket: Any) -> None:
    put(mail_bucket, written().as_bytes(), "somebody-else-s")
    w = configured()
    told = received(action=STORED | {"bucketName": "somebody-else-s"})
    assert w.pipeline.accept("inbox", posted(told)).status == 200
    w.settle()
    assert (w.messages(), w.names()) == ([], ["quarantined"])


# In the local world


@pytest.mark.world
def test_a_long_mail_comes_by_way_of_s3_and_its_answer_is_told_to_have_arrived(
    tmp_path: Path,
) -> None:
    config = Path(__file__).parents[1] / "examples" / "every-provider.toml"
    with local(tmp_path, ASKONCE_CONFIG=str(config)) as running:
        question = "Does this picture show the tea?" + " It is long." * 12_000
        assert running.client.say("mei", "ses", question)["status"] < 300
        ticket = running.wait(
            lambda state: next((t for t in state["tickets"] if messages(t)), None), "a ticket"
        )
        running.client.agent(ticket["id"], "reply", "It does.")
        running.wait(
            lambda state: any("It does." in x["text"] for x in state["lines"]), "the answer"
        )
        events = running.client.events()
        receipt = next(e for e in events if e["event"] == "receipt")
        assert receipt["state"] == "delivered"
        held = askonce("quarantine", "list", **running.secrets)
        assert (held.returncode, "ses" in held.stdout) == (0, False)
