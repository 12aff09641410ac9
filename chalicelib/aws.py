"""DynamoDB, SQS and S3 behind the core's ports. Clients are made on first use.

Time-outs are chosen for the acknowledgement: WeChat waits five seconds. One DynamoDB call ends
within `WORST_CALL_SECONDS`, whatever the network does: two tries of half a second to connect and
one to read, and at most one second between them. The first try may be a direct one.
"""

import secrets
import threading
import time
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from chalicelib import direct
from chalicelib.direct import CONDITIONS, CONNECT_SECONDS, Direct
from chalicelib.errors import ConflictError, NotFoundError, RetryableError
from chalicelib.once import once
from chalicelib.ports import Item, Upload, UploadForm, Write

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

WORST_CALL_SECONDS = 4.0
#: What SQS takes in one request.
_SENT_AT_ONCE = 10
_TRIES = 2
#: A body of so many characters is packed: with keys and indexes it would come near a kilobyte, and
#: DynamoDB bills each that was begun, at every write.
PACKED_FROM = 600
#: Called with service, operation and parameters before each call that is not the SDK's, which has
#: hooks of its own.
watchers: list[Callable[[str, str, Mapping[str, Any]], None]] = []
#: Called with each new session of the SDK, by whoever must hear of every call.
sessions: list[Callable[[Any], None]] = []


#: What AWS answers when it will answer otherwise in a moment.
_PASSING = {"InternalServerError", "InternalServiceError", "ServiceUnavailable", "Throttling"}
_PASSING |= {"ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}
_PASSING |= {"ProvisionedThroughputExceededException", "TransactionInProgressException"}


def passes(error: Exception) -> bool:
    """Whether AWS, or the line to it, is in trouble for now: not that it refuses or lacks a thing.

    Told here and not raised as a RetryableError, which to workers means that their own call to a
    desk or a provider had no effect: after it they would send once more.
    """
    if isinstance(error, RetryableError):
        return True
    answer: Any = getattr(error, "response", None) or {}
    # By name: a reader of environment variables does not import the SDK.
    of_the_line = {"ConnectionError", "HTTPClientError"} & {c.__name__ for c in type(error).__mro__}
    return bool(of_the_line) or answer.get("Error", {}).get("Code") in _PASSING


@once
def client(
    service: str, *, region: str | None = None, seconds: float | None = None, tries: int = _TRIES
) -> Any:
    """A client of one service. botocore's, since importing boto3 costs another 50 ms.

    It waits for an answer for that many seconds, so many times.
    """
    from botocore.config import Config
    from botocore.session import get_session

    # A long poll of SQS and an upload to S3 take longer than a put of one item.
    seconds = seconds or (direct.READ_SECONDS if service == "dynamodb" else 25)
    session = get_session()
    for told in sessions:
        told(session)
    return session.create_client(
        service,
        region_name=region,
        config=Config(
            connect_timeout=min(CONNECT_SECONDS, seconds),
            read_timeout=seconds,
            retries={"mode": "standard", "total_max_attempts": tries},
            account_id_endpoint_mode="disabled",
            s3={"addressing_style": "path"},
            # Else links are signed in the old way, which buckets made since 2020 refuse.
            signature_version="s3v4" if service == "s3" else None,
        ),
    )


class DynamoTable:
    """One DynamoDB table of versioned documents.

    Attributes: `v` counts the writes of an item, `w` is the token of the last writer. The token
    tells our own write from somebody else's when a put whose answer got lost is repeated:
    https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html
    (ReturnValuesOnConditionCheckFailure). A long `body` is packed by zlib, in binary: a message is
    written seven times on its way, and would mostly take two kilobytes where it now takes one.
    """

    def __init__(self, name: str, direct: Direct | None = None) -> None:
        self.name = name
        self._direct = direct

    def get(self, pk: str, sk: str) -> Item | None:
        key = {"pk": {"S": pk}, "sk": {"S": sk}}
        said = self._call("GetItem", {"TableName": self.name, "Key": key, "ConsistentRead": True})
        found = said.get("Item")
        return _live(_decode(found)) if found else None

    def get_all(self, keys: Sequence[tuple[str, str]], *, consistent: bool = True) -> list[Item]:
        wanted: list[Any] = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in keys]
        found: list[Item | None] = []
        while wanted:
            request: Any = {self.name: {"Keys": wanted, "ConsistentRead": consistent}}
            said = self._call("BatchGetItem", {"RequestItems": request})
            found += [_live(_decode(item)) for item in said["Responses"].get(self.name, ())]
            unread: Any = said.get("UnprocessedKeys", {})
            left = unread.get(self.name, {}).get("Keys", [])
            if len(left) == len(wanted):
                raise ConnectionError("DynamoDB is too busy to answer")
            wanted = list(left)
        return [item for item in found if item]

    def query(
        self, pk: str, low: str, high: str, *, newest_first: bool = False, limit: int = 100
    ) -> list[Item]:
        request = {
            "TableName": self.name,
            "KeyConditionExpression": "pk = :pk AND sk BETWEEN :low AND :high",
            "ExpressionAttributeValues": {
                ":pk": {"S": pk},
                ":low": {"S": low},
                ":high": {"S": high},
            },
            "ScanIndexForward": not newest_first,
            "Limit": limit,
            "ConsistentRead": True,
        }
        said = self._call("Query", request)
        return [item for found in said["Items"] if (item := _live(_decode(found)))]

    def due(self, bucket: str, until: str, limit: int = 100) -> dict[tuple[str, str], str]:
        found = self._index("due", "due = :name AND due_at <= :until", bucket, until, limit)
        return {(each["pk"]["S"], each["sk"]["S"]): each["due_at"]["S"] for each in found}

    def thread(self, name: str, limit: int = 500) -> list[tuple[str, str]]:
        found = self._index("thread", "thread = :name AND thread_at <= :until", name, "~", limit)
        return [(each["pk"]["S"], each["sk"]["S"]) for each in found]

    def _index(self, index: str, condition: str, name: str, until: str, limit: int) -> Any:
        request = {
            "TableName": self.name,
            "IndexName": index,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": {":name": {"S": name}, ":until": {"S": until}},
            "Limit": limit,
        }
        return self._call("Query", request)["Items"]

    def scan(self, *prefixes: str) -> Iterator[list[Item]]:
        # Up to a megabyte a page, and patience: nobody waits for an acknowledgement.
        patient = client("dynamodb", seconds=30, tries=8)
        names = {f":prefix{n}": {"S": prefix} for n, prefix in enumerate(prefixes)}
        pages = patient.get_paginator("scan").paginate(
            TableName=self.name,
            FilterExpression=" OR ".join(f"begins_with(pk, {name})" for name in names),
            ExpressionAttributeValues=names,
        )
        for page in pages:
            _demand_whole(page)
            yield [item for found in page["Items"] if (item := _live(_decode(found)))]

    def write(self, *writes: Write) -> None:
        writer = secrets.token_urlsafe(12)
        requests = [self._request(write, writer) for write in writes]
        if len(requests) == 1:
            self._write_one(requests[0], writer)
        else:
            self._write_all(requests, writer)

    def _write_one(self, request: dict[str, Any], writer: str) -> None:
        operation = _operation(request)
        try:
            self._call(f"{operation}Item", request)
        except _ConditionError as error:
            if operation == "Update":
                return  # added by us, the answer lost
            if "Key" in request and "Item" not in error.said:
                return  # deleted by us, the answer lost; or by somebody else, which is the same
            _conflict_unless_ours([error.said], writer)

    def _write_all(self, requests: Sequence[dict[str, Any]], writer: str) -> None:
        transaction = {
            "TransactItems": [{_operation(request): request} for request in requests],
            "ClientRequestToken": writer,
        }
        try:
            self._call("TransactWriteItems", transaction)
        except _ConditionError as error:
            reasons = error.said.get("CancellationReasons", [])
            _conflict_unless_ours([r for r in reasons if r.get("Code") != "None"], writer)

    def _call(self, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        """What DynamoDB says. _ConditionError; ConnectionError for half of what is read."""
        if self._direct is None:
            return _by_sdk(client("dynamodb"), operation, request)
        for watch in watchers:
            watch("dynamodb", operation, request)
        said = self._direct(operation, request)
        if said is None:  # that was the first try
            return _by_sdk(client("dynamodb", tries=_TRIES - 1), operation, request)
        if "__type" in said:
            raise _ConditionError(said)
        return said

    def _request(self, write: Write, writer: str) -> dict[str, Any]:
        item = write.item
        if write.add:
            return {"TableName": self.name} | _addition(item, write.add, writer)
        request: dict[str, Any] = {
            "TableName": self.name,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if write.delete:
            request["Key"] = {"pk": {"S": item.pk}, "sk": {"S": item.sk}}
        else:
            request["Item"] = _encode(item, writer)
        if item.version:
            condition, values = "v = :version", {":version": {"N": str(item.version)}}
        else:  # never written, or past its time and only not yet swept away
            condition = "attribute_not_exists(pk) OR expires_at < :now"
            values = {":now": {"N": str(int(time.time()))}}
        return request | {
            "ConditionExpression": condition,
            "ExpressionAttributeValues": values,
        }


def _operation(request: Mapping[str, Any]) -> str:
    if "UpdateExpression" in request:
        return "Update"
    return "Put" if "Item" in request else "Delete"


def _addition(item: Item, counts: Mapping[str, int], writer: str) -> dict[str, Any]:
    """An update that adds: many writers may do so at once, and none of them waits for another.

    Sent twice since its answer got lost, it adds once, unless somebody else added in between.
    """
    names = {f"#n{n}": name for n, name in enumerate(counts)}
    values: dict[str, Any] = {f":n{n}": {"N": str(more)} for n, more in enumerate(counts.values())}
    values |= {":one": {"N": "1"}, ":body": {"S": item.body}, ":writer": {"S": writer}}
    to_set = "body = :body, w = :writer"
    if item.expires_at is not None:
        values[":expires_at"] = {"N": str(item.expires_at)}
        to_set += ", expires_at = :expires_at"
    added = ", ".join(f"{name} {name.replace('#', ':')}" for name in names)
    return {
        "Key": {"pk": {"S": item.pk}, "sk": {"S": item.sk}},
        "UpdateExpression": f"ADD v :one, {added} SET {to_set}",
        "ConditionExpression": "attribute_not_exists(w) OR w <> :writer",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


class _ConditionError(Exception):
    """A condition was not met, or one of a transaction's: what DynamoDB says of it."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__("the condition failed")
        self.said = said


#: How the SDK calls an operation.
_METHODS = {
    "GetItem": "get_item",
    "BatchGetItem": "batch_get_item",
    "Query": "query",
    "PutItem": "put_item",
    "UpdateItem": "update_item",
    "DeleteItem": "delete_item",
    "TransactWriteItems": "transact_write_items",
}
_READS = ("GetItem", "BatchGetItem", "Query")


def _by_sdk(sdk: Any, operation: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    from botocore.exceptions import ClientError

    try:
        response: Mapping[str, Any] = getattr(sdk, _METHODS[operation])(**request)
    except ClientError as error:
        if error.response["Error"].get("Code") not in CONDITIONS:
            raise
        raise _ConditionError(cast(Mapping[str, Any], error.response)) from None
    if operation in _READS:
        _demand_whole(response)
    return response


def _demand_whole(response: Mapping[str, Any]) -> None:
    """An answer cut off in its headers looks like "no such item"; this tells them apart.

    No RetryableError: to a worker that means that its call to a provider had no effect.
    """
    if not response.get("ResponseMetadata", {}).get("RequestId"):
        raise ConnectionError("DynamoDB's answer was cut off")


def _conflict_unless_ours(failures: Sequence[Mapping[str, Any]], writer: str) -> None:
    existing = [f.get("Item") for f in failures]
    if not failures or any(not old or old.get("w", {}).get("S") != writer for old in existing):
        old = next((old for old in existing if old), None)
        raise ConflictError("written by somebody else", existing=_decode(old) if old else None)


def _encode(item: Item, writer: str) -> dict[str, Any]:
    encoded: dict[str, Any] = {name: {"S": value} for name, value in item.index.items()}
    encoded |= {
        "pk": {"S": item.pk},
        "sk": {"S": item.sk},
        "v": {"N": str(item.version + 1)},
        "w": {"S": writer},
        "body": _packed(item.body),
    }
    if item.expires_at is not None:
        encoded["expires_at"] = {"N": str(item.expires_at)}
    return encoded


def _packed(body: str) -> dict[str, str | bytes]:
    if len(body) < PACKED_FROM:
        return {"S": body}
    return {"B": zlib.compress(body.encode())}


def _unpacked(found: Mapping[str, Any]) -> str:
    """The SDK gives binary as it is, a direct call in base64."""
    if "S" in found:
        return str(found["S"])
    packed = found["B"]
    return zlib.decompress(packed if isinstance(packed, bytes) else b64decode(packed)).decode()


_OWN_ATTRIBUTES = {"pk", "sk", "v", "w", "body", "expires_at"}


def _decode(found: Mapping[str, Any]) -> Item:
    expires_at = found.get("expires_at")
    rest = {name: value for name, value in found.items() if name not in _OWN_ATTRIBUTES}
    return Item(
        pk=found["pk"]["S"],
        sk=found["sk"]["S"],
        body=_unpacked(found["body"]),
        version=int(found["v"]["N"]),
        index={name: value["S"] for name, value in rest.items() if "S" in value},
        counts={name: int(value["N"]) for name, value in rest.items() if "N" in value},
        expires_at=int(expires_at["N"]) if expires_at else None,
    )


def _live(item: Item) -> Item | None:
    """DynamoDB deletes expired items within days, not at once."""
    return None if item.expires_at is not None and item.expires_at < time.time() else item


#: What is to be sent at the end of `sending_together`, in this context and the threads under it.
_together: ContextVar["list[tuple[SqsQueue, Mapping[str, Any]]] | None"] = ContextVar(
    "together", default=None
)


@contextmanager
def sending_together() -> Iterator[None]:
    """What is sent to queues within goes at the end, ten in a request: SQS asks for requests.

    ConnectionError if not all was taken: what was is dropped by its deduplication id when it comes
    again. Nothing goes where an exception passes.
    """
    waiting: list[tuple[SqsQueue, Mapping[str, Any]]] = []
    before = _together.set(waiting)
    try:
        yield
    finally:
        _together.reset(before)
    for queue in dict.fromkeys(queue for queue, _ in waiting):
        entries = [entry for own, entry in waiting if own is queue]
        for at in range(0, len(entries), _SENT_AT_ONCE):
            queue._send(entries[at : at + _SENT_AT_ONCE])


class SqsQueue:
    """A FIFO queue, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._url = ""
        self._asking = threading.Lock()

    @property
    def _client(self) -> "SQSClient":
        return cast("SQSClient", client("sqs"))

    @property
    def url(self) -> str:
        with self._asking:  # once, though several threads may want it first
            self._url = self._url or self._client.get_queue_url(QueueName=self.name)["QueueUrl"]
        return self._url

    def send(self, body: str, *, group: str, deduplication_id: str) -> None:
        """Send it; at the end of `sending_together`, within that."""
        entry = {
            "MessageBody": body,
            "MessageGroupId": group,
            "MessageDeduplicationId": deduplication_id,
        }
        together = _together.get()
        if together is None:
            self._send([entry])
        else:
            together.append((self, entry))

    def _send(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Ten at most, in order. ConnectionError if not all of them were taken."""
        if len(entries) == 1:
            self._client.send_message(QueueUrl=self.url, **entries[0])
            return
        named: Any = [{"Id": str(n), **entry} for n, entry in enumerate(entries)]
        if self._client.send_message_batch(QueueUrl=self.url, Entries=named).get("Failed"):
            raise ConnectionError("SQS did not take all of a batch")

    def delay(self, receipt_handle: str, seconds: float) -> None:
        """Hide a received message for that long: its group waits with it, and keeps its order."""
        self._client.change_message_visibility(
            QueueUrl=self.url,
            ReceiptHandle=receipt_handle,
            VisibilityTimeout=max(0, min(int(seconds), 43_200)),
        )


class S3Bucket:
    """A bucket."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def _client(self) -> "S3Client":
        return cast("S3Client", client("s3"))

    def put(self, key: str, content: bytes, media_type: str) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=content, ContentType=media_type)

    def get(self, key: str) -> bytes:
        from botocore.exceptions import ClientError

        try:
            return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"].get("Code") != "NoSuchKey":
                raise
            raise NotFoundError("the bucket does not have it") from None

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def link(self, key: str, name: str, seconds: int) -> str:
        safe = "".join(c for c in name if c.isalnum() or c in "._- ") or "file"
        return self._client.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self.name,
                "Key": key,
                "ResponseContentDisposition": f'attachment; filename="{ascii_only(safe)}"',
            },
            ExpiresIn=seconds,
        )

    def form(self, upload: Upload) -> UploadForm:
        """https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html"""
        made = self._client.generate_presigned_post(
            self.name,
            upload.key,
            Fields={"Content-Type": upload.media_type},
            Conditions=[
                {"Content-Type": upload.media_type},
                ["content-length-range", 1, upload.max_bytes],
            ],
            ExpiresIn=upload.seconds,
        )
        return UploadForm(url=made["url"], fields=made["fields"])


def ascii_only(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii").replace("?", "_")
