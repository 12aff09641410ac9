"""An inbox of Amazon SES, what its topic brings, and a bucket with mail, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import boto3
from moto import mock_aws

from chalicelib.ports import WebhookRequest
from chalicelib.schema import Message, Notice
from connectors.channels import email_ses
from connectors.channels.email_ses import EmailSes
from tests.make_samples import NOW
from tests.recorded import arrived, connector
from tests.samples_ses import (
    BUCKET,
    REGION,
    SES,
    published,
)

URL = "https://askonce.example/webhooks/inbox"
AT = datetime.fromtimestamp(NOW, UTC)


def inbox(**more: Any) -> EmailSes:
    made = connector("email_ses", SES | more, URL)
    assert isinstance(made, EmailSes)
    return made


def posted(told: Any, **more: Any) -> WebhookRequest:
    return arrived(published(told, **more), NOW)


def message(told: Any, **more: Any) -> Message:
    (found,) = inbox(**more).parse(posted(told))
    assert isinstance(found, Message)
    return found


def notice(told: Any, **more: Any) -> Notice:
    (found,) = inbox(**more).parse(posted(told))
    assert isinstance(found, Notice)
    return found


def put(storage: Any, content: bytes, bucket: str = BUCKET, **more: Any) -> None:
    storage.put_object(Bucket=bucket, Key="in/k1", Body=content, **more)


@contextmanager
def mail_buckets() -> Iterator[Any]:
    """S3 with the bucket of the mail, and one of somebody else; gives its client."""
    email_ses._client.cache_clear()
    with mock_aws():
        storage = boto3.client("s3", region_name=REGION)
        for bucket in (BUCKET, "somebody-else-s"):
            storage.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
            )
        yield storage
    email_ses._client.cache_clear()
