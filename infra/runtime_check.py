"""Run the packaged zip in AWS's own runtime client: `python -m infra.runtime_check OUTDIR STAGE`.

A clean environment: the unpacked zip and the runtime client, and none of this project's own
packages, so that a module missing from the zip shows. Each function of the template is started as
Lambda starts it, and called once.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from infra import template
from infra.artefact import SERVICES
from infra.package import ROOT

RUNTIME = {"awslambdaric", "simplejson", "snapshot-restore-py"}
PATIENCE_SECONDS = 60
#: What is imported only when it is needed, so that no start shows that it is there.
LAZY = ("nh3", "opencc", "wechatpy.client", "requests", "cryptography")
_IMPORT_ALL = """
import importlib, pkgutil, chalicelib, connectors
for package in (chalicelib, connectors):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
for name in {lazy!r}:
    importlib.import_module(name)
from botocore.session import get_session
for service in {services!r}:
    get_session().create_client(service, region_name="us-east-1")
from chalicelib.repeats import scores
assert scores("where is my order", ["where is my order?"]) == [1.0]
"""


def install_runtime(folder: Path) -> None:
    """The runtime client, from the lock file, without anything it needs."""
    lock = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    wanted = [e for e in entries if re.split(r"[=\s\[]", e, maxsplit=1)[0] in RUNTIME]
    requirements = folder / "runtime.txt"
    requirements.write_text("".join(wanted), encoding="utf-8")
    subprocess.run(  # noqa: S603  # our own command
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--require-hashes", "--no-deps", "--target", str(folder / "runtime")),
            *("-r", str(requirements)),
        ],
        check=True,
    )


class RuntimeApi:
    """Lambda's side of the runtime interface, for one invocation of one function."""

    def __init__(self, event: Any) -> None:
        self.answer: queue.Queue[tuple[str, Any]] = queue.Queue()
        outer, todo = self, [event]

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one piece

            def do_GET(self) -> None:
                """The next invocation; after the only one, wait to be ended."""
                if not todo:
                    time.sleep(PATIENCE_SECONDS)
                    return
                deadline = int((time.time() + 30) * 1000)
                self._reply(
                    200,
                    json.dumps(todo.pop()).encode(),
                    {
                        "Lambda-Runtime-Aws-Request-Id": "1",
                        "Lambda-Runtime-Deadline-Ms": str(deadline),
                        "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:x:1:function:f",
                    },
                )

            def do_POST(self) -> None:
                """response or error of an invocation, or init/error."""
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                outer.answer.put((self.path.rsplit("/", 1)[-1], json.loads(body or b"null")))
                self._reply(202, b"", {})

            def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                own = {"Content-Type": "application/json", "Content-Length": str(len(body))}
                for name, value in (own | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # killed clients are meant
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def environment(task: Path, runtime: Path) -> dict[str, str]:
    """What a function finds set, and no way to any package but the zip's and the runtime's."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{task}:{runtime}",
        "LAMBDA_TASK_ROOT": str(task),
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "ASKONCE_PREFIX": "askonce",
    }


def invoke(handler: str, event: Any, env: dict[str, str], task: Path) -> tuple[str, Any]:
    """("response" | "error", what the function returned or why it did not)."""
    api = RuntimeApi(event)
    address = f"127.0.0.1:{api.server.server_port}"
    process = subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-S", "-m", "awslambdaric", handler],
        cwd=task,
        env={**env, "_HANDLER": handler, "AWS_LAMBDA_RUNTIME_API": address},
        stdout=subprocess.DEVNULL,
    )
    try:
        return api.answer.get(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
        api.server.shutdown()


#: A form to an address that no inbox has, as a REST API hands it over.
_FORM: dict[str, Any] = {
    "resource": "/webhooks/{inbox}",
    "path": "/webhooks/nobody",
    "httpMethod": "POST",
    "headers": {"Content-Type": "application/x-www-form-urlencoded"},
    "multiValueHeaders": {"Content-Type": ["application/x-www-form-urlencoded"]},
    "queryStringParameters": None,
    "multiValueQueryStringParameters": None,
    "pathParameters": {"inbox": "nobody"},
    "stageVariables": None,
    "body": "a=b",
    "isBase64Encoded": False,
    "requestContext": {
        "resourcePath": "/webhooks/{inbox}",
        "httpMethod": "POST",
        "identity": {},
    },
}
#: What an HTTP API does otherwise, where it is asked for the same format.
_BY_HTTP_API: dict[str, Any] = {
    "version": "1.0",
    "headers": {"content-type": "application/x-www-form-urlencoded"},
    "multiValueHeaders": {"content-type": ["application/x-www-form-urlencoded"]},
    "body": "YT1i",
    "isBase64Encoded": True,
}
_OF_A_TOPIC: dict[str, Any] = {
    "Sns": {"TopicArn": "of nobody", "Message": "", "Subject": None, "MessageAttributes": {}}
}
#: Function of the template, an event, and what must come back.
CALLS: tuple[tuple[str, Any, Any], ...] = (
    ("APIHandler", _FORM, 404),
    ("APIHandler", _FORM | _BY_HTTP_API, 404),
    ("OnStored", {"Records": []}, {"batchItemFailures": []}),
    ("OnSnsMessage", {"Records": [_OF_A_TOPIC]}, None),
    ("Forward", {"Records": []}, {"batchItemFailures": []}),
    ("Deliver", {"Records": []}, {"batchItemFailures": []}),
)


def faults(out: Path, stage: str) -> list[str]:
    """What of a stage does not run, a line each."""
    whole = template.read(out / f"{stage}.yaml")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        task = folder / "task"
        code = {function["CodeUri"] for function in template.functions(whole).values()}
        with zipfile.ZipFile(out / code.pop()) as packed:
            packed.extractall(task)
        install_runtime(folder)
        env = environment(task, folder / "runtime")
        found = [_import_all(env, task)]
        functions = template.functions(whole)
        for name, event, wanted in CALLS:
            if name in functions:
                answer = invoke(functions[name]["Handler"], event, env, task)
                found.append(_fault_of(name, answer, wanted))
        return [fault for fault in found if fault]


def _import_all(env: dict[str, str], task: Path) -> str:
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-S", "-c", _IMPORT_ALL.format(lazy=LAZY, services=SERVICES)],
        cwd=task,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"importing: {done.stderr.strip().splitlines()[-1]}" if done.returncode else ""


def _fault_of(name: str, answered: tuple[str, Any], wanted: Any) -> str:
    kind, answer = answered
    given = answer.get("statusCode", answer) if isinstance(answer, dict) else answer
    return "" if (kind, given) == ("response", wanted) else f"{name}: {kind} {answer}"


def main() -> None:
    """Check one packaged artefact."""
    found = faults(Path(sys.argv[1]), sys.argv[2])
    for fault in found:
        sys.stderr.write(fault + "\n")
    sys.stdout.write(f"{sys.argv[1]}: {len(CALLS)} calls, {len(found)} faults\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
