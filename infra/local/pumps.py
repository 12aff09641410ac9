"""What carries events to the functions on AWS: the stream, the queues, the schedule.

The pumps take from the Chalice app what its decorators registered, and honour what Lambda honours:
a batch's failures come again, from a stream in order, from a queue when its visibility ends. They
read with the function's own rights, as Lambda does.
"""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.config import Config
from chalice.app import Chalice
from chalice.local import LambdaContext

from chalicelib import log
from infra.local.front import LOCAL_TIMEOUT_MS
from infra.local.permissions import acting

#: On AWS a minute; here one looks on.
SCHEDULE_SECONDS = 5.0
#: How long all of them together may take to end.
STOP_SECONDS = 4.0


class Pumps:
    """A thread for each event source of the app."""

    def __init__(self, app: Chalice, written: threading.Event) -> None:
        self._stop = threading.Event()
        self._written = written
        kinds: dict[str, Callable[[Any, Any], None]] = {
            "DynamoDBEventConfig": self._stream,
            "SQSEventConfig": self._queue,
            "SNSEventConfig": self._topic,
            "ScheduledEventConfig": self._schedule,
        }
        #: Topic -> the queue under it, once that is there.
        self._queues = {
            source.topic: "" for source in app.event_sources if hasattr(source, "topic")
        }
        self._threads = [
            threading.Thread(
                target=kinds[type(source).__name__],
                args=(source, app.handler_map[source.name]),
                name=source.name,
                daemon=True,
            )
            for source in app.event_sources
        ]

    def start(self) -> None:
        """Whatever is published from now on is heard."""
        for topic in self._queues:
            self._queues[topic] = _queue_under(topic)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._written.set()
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:  # what is in the middle of something ends with the process
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _stream(self, source: Any, handler: Any) -> None:
        """By sequence numbers: moto's iterators go stale when a transaction is rolled back."""
        reader = _StreamReader(source.stream_arn.split("/")[1], source.batch_size)
        while not self._stop.is_set():
            with acting(source.name):
                records = reader.after()
            if not records:
                self._written.wait(1)
                self._written.clear()
            elif _failures(handler, {"Records": records}, source.name):
                self._stop.wait(1)  # the same batch again; what succeeded finds its work done
            else:
                reader.position = records[-1]["dynamodb"]["SequenceNumber"]

    def _queue(self, source: Any, handler: Any) -> None:
        sqs = boto3.client("sqs", config=Config(read_timeout=10))
        url = sqs.get_queue_url(QueueName=source.queue)["QueueUrl"]
        while not self._stop.is_set():
            with acting(source.name):
                received = sqs.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=source.batch_size,
                    WaitTimeSeconds=1,
                    MessageSystemAttributeNames=["All"],
                ).get("Messages", [])
            if not received:
                continue
            records = [_queue_record(m) for m in received]
            failed = _failures(handler, {"Records": records}, source.name)
            done = [m for m in received if m["MessageId"] not in failed]
            if done:
                with acting(source.name):
                    sqs.delete_message_batch(
                        QueueUrl=url,
                        Entries=[
                            {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]}
                            for n, m in enumerate(done)
                        ],
                    )

    def _topic(self, source: Any, handler: Any) -> None:
        """By a queue under the topic, since moto's SNS calls no function here."""
        sqs = boto3.client("sqs", config=Config(read_timeout=10))
        url = self._queues[source.topic]
        while not self._stop.is_set():
            received = sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=1
            ).get("Messages", [])
            for message in received:
                if not _failures(handler, _sns_event(message["Body"]), source.name):
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def _schedule(self, source: Any, handler: Any) -> None:
        while not self._stop.wait(SCHEDULE_SECONDS):
            event = {
                "id": str(time.time_ns()),
                "detail-type": "Scheduled Event",
                "source": "aws.events",
                "account": "123456789012",
                "time": datetime.now(UTC).isoformat(),
                "region": "us-east-1",
                "resources": [],
                "detail": {},
                "version": "0",
            }
            _failures(handler, event, source.name)


class _StreamReader:
    """Reads a table's one shard from a position on."""

    def __init__(self, table: str, limit: int) -> None:
        self._streams = boto3.client("dynamodbstreams")
        described = boto3.client("dynamodb").describe_table(TableName=table)["Table"]
        self._arn = described["LatestStreamArn"]
        stream = self._streams.describe_stream(StreamArn=self._arn)["StreamDescription"]
        self._shard = stream["Shards"][0]["ShardId"]
        self._limit = limit
        self.position = ""

    def after(self) -> list[dict[str, Any]]:
        start: Any = {"ShardIteratorType": "TRIM_HORIZON"}
        if self.position:
            start = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "SequenceNumber": self.position,
            }
        iterator = self._streams.get_shard_iterator(
            StreamArn=self._arn, ShardId=self._shard, **start
        )["ShardIterator"]
        found = self._streams.get_records(ShardIterator=iterator, Limit=self._limit)
        return [_stream_record(r, self._arn) for r in found["Records"]]


def _failures(handler: Any, event: dict[str, Any], name: str) -> set[str]:
    """Run a function as Lambda would; returns which records come again. An exception: all."""
    try:
        with acting(name):
            answer = handler(event, LambdaContext(name, 512, LOCAL_TIMEOUT_MS)) or {}
    except Exception as error:  # noqa: BLE001  # what Lambda catches too
        log.event("function.failed", function=name, why=type(error).__name__)
        return {_identity(r) for r in event.get("Records", [{"messageId": "all"}])}
    return {f["itemIdentifier"] for f in answer.get("batchItemFailures", [])}


def _queue_under(topic: str) -> str:
    """A queue that gets everything published on a topic."""
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    arns = (t["TopicArn"] for page in sns.get_paginator("list_topics").paginate()
            for t in page["Topics"])  # fmt: skip
    arn = next(a for a in arns if a.rpartition(":")[2] == topic)
    url = sqs.create_queue(QueueName=f"{topic}-pump")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=attributes["QueueArn"])
    return url


def _sns_event(envelope: str) -> dict[str, Any]:
    """As Lambda gives it: one record, with the addresses named otherwise than over HTTP."""
    told = {"Subject": None, "MessageAttributes": {}, **json.loads(envelope)}
    told |= {"SigningCertUrl": told.pop("SigningCertURL", ""),
             "UnsubscribeUrl": told.pop("UnsubscribeURL", "")}  # fmt: skip
    return {
        "Records": [
            {
                "EventSource": "aws:sns",
                "EventVersion": "1.0",
                "EventSubscriptionArn": f"{told['TopicArn']}:local",
                "Sns": told,
            }
        ]
    }


def _identity(record: dict[str, Any]) -> str:
    if "Sns" in record:
        return str(record["Sns"]["MessageId"])
    return str(record.get("messageId") or record["dynamodb"]["SequenceNumber"])


def _stream_record(record: Any, arn: str) -> dict[str, Any]:
    """As Lambda gives it: with the source's name, and the time as a number."""
    at = record["dynamodb"]["ApproximateCreationDateTime"]
    dynamodb = {**record["dynamodb"], "ApproximateCreationDateTime": at.timestamp()}
    return {**record, "eventSourceARN": arn, "dynamodb": dynamodb}


def _queue_record(message: Any) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:local",
        "awsRegion": "us-east-1",
    }
