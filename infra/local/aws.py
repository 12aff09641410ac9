"""AWS on this machine: moto's server, made from infra/resources.yaml, that survives `kill -9`.

moto keeps everything in memory. With a journal, every write that it accepted is on disk before its
answer leaves; a restart replays them. Queues are not kept: the replayed stream fills them again.

DynamoDB answers one request at a time here. moto checks conditions without a lock, so that two
racing writes could both win, which the real one never allows.
"""

import base64
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from infra.local.resources import create_resources
from infra.local.uploads import refusal

ENVIRONMENT = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_WRITES = {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem"}

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class EmbeddedAws:
    """A moto server on a free loopback port. `journal` None forgets everything at the end."""

    def __init__(self, prefix: str, journal: Path | None) -> None:
        self.prefix = prefix
        self._journal = Journal(journal) if journal else None
        self._server: Any = None
        self.bucket = ""
        #: Set by every write to the table: what the stream's reader waits for.
        self.written = threading.Event()

    def start(self) -> None:
        """Serve, make the resources, bring back what the journal holds."""
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        from infra.local.front import QuietHandler, serve

        app = _OneAtATime(
            DomainDispatcherApplication(create_backend_app), self._journal, self.written
        )
        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
        serve(self._server, "aws")
        os.environ.update(ENVIRONMENT)
        os.environ["AWS_ENDPOINT_URL"] = self.url
        self.bucket = create_resources(self.prefix)
        if self._journal:
            self._journal.replay()
            self._journal.compact(self.prefix, self.bucket)
            app.recording = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _OneAtATime:
    """moto, with DynamoDB's requests one after the other and its accepted writes in the journal."""

    def __init__(self, app: WsgiApp, journal: "Journal | None", written: threading.Event) -> None:
        self._app = app
        self._journal = journal
        self._written = written
        self._lock = threading.Lock()
        self.recording = False

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target.startswith("DynamoDB"):
            with self._lock:
                return self._handle(environ, start_response, target)
        form = environ.get("CONTENT_TYPE", "").startswith("multipart/form-data")
        if not target and (form or environ["REQUEST_METHOD"] in ("PUT", "DELETE")):
            with self._lock:
                return self._handle(environ, start_response, "s3")
        return self._app(environ, start_response)

    def _handle(
        self, environ: dict[str, Any], start_response: Callable[..., Any], target: str
    ) -> list[bytes]:
        import io

        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        form = environ["REQUEST_METHOD"] == "POST" and target == "s3"
        if form and (why := refusal(environ, body, ENVIRONMENT["AWS_SECRET_ACCESS_KEY"])):
            start_response("403 Forbidden", [("Access-Control-Allow-Origin", "*")])
            return [f"<Error><Code>{why}</Code></Error>".encode()]
        status = ""

        def started(given: str, *rest: Any) -> Any:
            nonlocal status
            status = given
            return start_response(given, *rest)

        answer = list(self._app(environ, started))
        writes = target == "s3" or target.rpartition(".")[2] in _WRITES
        if writes and status.startswith("2"):
            if self.recording and self._journal:
                self._journal.append(_entry(environ, target, body))
            self._written.set()
        return answer


def _entry(environ: dict[str, Any], target: str, body: bytes) -> dict[str, str]:
    entry = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "target": target,
        "type": environ.get("CONTENT_TYPE", ""),
    }
    if target == "s3":
        return entry | {"base64": base64.b64encode(_unchunked(environ, body)).decode("ascii")}
    return entry | {"body": body.decode("utf-8")}


def _unchunked(environ: dict[str, Any], body: bytes) -> bytes:
    """An upload's bytes without the chunk framing that newer SDKs put around them."""
    if "aws-chunked" not in environ.get("HTTP_CONTENT_ENCODING", ""):
        return body
    content, rest = bytearray(), body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.split(b";")[0] or b"0", 16)
        if not length:
            break
        content += rest[:length]
        rest = rest[length + 2 :]
    return bytes(content)


class Journal:
    """Accepted writes, a JSON line each, in the order in which they took effect."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def append(self, entry: dict[str, str]) -> None:
        self._file = self._file or self._path.open("a", encoding="utf-8")
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()  # the kernel has it: enough for a killed process

    def _entries(self) -> Iterator[dict[str, str]]:
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # the last one may have been cut off by the kill
                    yield json.loads(line)

    def replay(self) -> None:
        """Send every write again."""
        import requests

        url = os.environ["AWS_ENDPOINT_URL"]
        with requests.Session() as session:
            for entry in self._entries():
                _replay(session, url, entry)

    def compact(self, table: str, bucket: str) -> None:
        """Keep only what there is now: one put an item, one put an object."""
        import boto3

        new = self._path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as lines:
            for page in boto3.client("dynamodb").get_paginator("scan").paginate(TableName=table):
                for item in page["Items"]:
                    lines.write(json.dumps(_put_item(table, item), ensure_ascii=False) + "\n")
            s3 = boto3.client("s3")
            for objects in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for found in objects.get("Contents", []):
                    held = s3.get_object(Bucket=bucket, Key=found["Key"])
                    entry = _put_object(
                        bucket, found["Key"], held["Body"].read(), held["ContentType"]
                    )
                    lines.write(json.dumps(entry) + "\n")
        new.replace(self._path)


def _replay(session: Any, url: str, entry: dict[str, str]) -> None:
    headers = {
        "Content-Type": entry["type"],
        "Authorization": f"AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/"
        f"{'s3' if entry['target'] == 's3' else 'dynamodb'}/aws4_request",
    }
    if entry["target"] != "s3":
        headers["X-Amz-Target"] = entry["target"]
    data = base64.b64decode(entry["base64"]) if "base64" in entry else entry["body"].encode()
    session.request(entry["method"], url + entry["path"], data=data, headers=headers)


def _put_item(table: str, item: dict[str, Any]) -> dict[str, str]:
    return {
        "method": "POST",
        "path": "/",
        "target": "DynamoDB_20120810.PutItem",
        "type": "application/x-amz-json-1.0",
        "body": json.dumps(
            {"TableName": table, "Item": item},
            ensure_ascii=False,
            default=lambda binary: base64.b64encode(binary).decode(),
        ),
    }


def _put_object(bucket: str, key: str, content: bytes, media_type: str) -> dict[str, str]:
    return {
        "method": "PUT",
        "path": f"/{bucket}/{key}",
        "target": "s3",
        "type": media_type,
        "base64": base64.b64encode(content).decode("ascii"),
    }
