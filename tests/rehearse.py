"""`make rehearse`: what is packaged is deployed, by AWS's own command line, and a story played.

On loopback, ministack stands for AWS: it makes the stacks of the templates, puts its API Gateway in
front and runs the zip. A core and two edges, one with a REST and one with an HTTP API, secrets in
its Parameter Store; providers and desk are those of the local world. Then the store's tests are run
with it as the engine.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import requests
import tomli_w
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from chalicelib import settings
from chalicelib.aws import client
from chalicelib.errors import ConfigurationError
from chalicelib.ports import WebhookRequest
from connectors.signing import values
from infra import package, template
from infra.local import story
from infra.local.client import Client
from infra.local.desk import Desk
from infra.local.events import Events
from infra.local.front import QuietHandler, serve
from infra.local.localise import SMTP_ENVIRONMENT, localised, missing_secrets, outside_addresses
from infra.local.people import know_customers
from infra.local.providers import MailServer
from infra.local.records import Records
from infra.local.site import Site
from infra.local.world import Address
from infra.stages import API_ENVIRONMENT
from tests import http_api

ROOT = package.ROOT
TOOLS = ROOT / "build" / "rehearsal" / "bin"
PREFIX = "rehearsal"
#: Stage -> the inboxes whose webhooks come to its API; "" takes what no other does.
EDGES = {"edge-wechat": "wechat", "edge-rest": ""}
#: The one with an HTTP API.
BY_HTTP_API = "edge-rest"
#: Tests of what rests on the table: they ask the engine that this names instead of moto.
STORE_TESTS = tuple(
    f"tests/test_{name}.py" for name in ("table", "store", "tokens", "erasing", "crowd")
)
UNKNOWN_TO_ENGINE = ("AWS::SES::ReceiptRuleSet", "AWS::SES::ReceiptRule")
#: What the engine, and each function in it, wrote during the last rehearsal.
ENGINE_LOG = ROOT / "build" / "rehearsal.log"
#: What the log tells of a question that was asked again.
LIFE = ("accepted", "resolved", "queued", "forwarded")
_START_SECONDS = 60.0
_LONGEST_SEEN = 300
T = TypeVar("T")

Say = Callable[[str], Any]


def main() -> int:
    """Rehearse; the exit code is 0 if everything went as it should."""
    started = time.monotonic()

    def say(what: str) -> None:
        click.echo(f"{time.monotonic() - started:6.1f} s  {what}")

    if not (TOOLS / "ministack").exists():
        raise ConfigurationError("build/rehearsal is missing: make rehearse installs it")
    return rehearse(say)


def rehearse(say: Say) -> int:
    """The exit code; the last line that is said is how it ended, and if badly, where and how."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="askonce-rehearsal-") as temporary,
            contextlib.ExitStack() as held,
        ):
            with step("ministack listens", say):
                url = held.enter_context(engine())
            os.environ.update(_environment(url))
            Rehearsal(Path(temporary), url, say).play()
            with step("the store's tests pass on this engine", say):
                _demand_store_tests(url)
    except StepError as error:
        say(f"failed at: {error}; the engine's log: {ENGINE_LOG.relative_to(ROOT)}")
        return 1
    say("rehearsed")
    return 0


# Steps


class StepError(Exception):
    """A step that failed: which one, what was expected, and what was seen."""


@contextlib.contextmanager
def step(what: str, say: Say) -> Iterator[None]:
    """Say what is so after it. StepError if it is not."""
    try:
        yield
    except (ConfigurationError, story.StoryError, requests.RequestException, _UnlikeError) as error:
        raise StepError(f"{what}: {error}") from error
    say(what)


class _UnlikeError(Exception):
    """What was seen is not what was expected."""

    def __init__(self, expected: str, seen: object) -> None:
        super().__init__(f"expected {expected}; seen: {str(seen)[:_LONGEST_SEEN]}")


def see(
    expected: str, look: Callable[[], T], good: Callable[[T], object], seconds: float | None = None
) -> None:
    """Look until what is seen is good. _UnlikeError once patience ends."""
    until = time.monotonic() + (story.PATIENCE_SECONDS if seconds is None else seconds)
    while not good(seen := look()):
        if time.monotonic() > until:
            raise _UnlikeError(expected, seen)
        time.sleep(0.1)


# AWS, on loopback


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """A ministack of our own on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
    own |= {"SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0", "PATH": f"{TOOLS}:{os.environ['PATH']}"}
    ENGINE_LOG.parent.mkdir(exist_ok=True)
    with ENGINE_LOG.open("wb") as output:
        running = subprocess.Popen(
            [TOOLS / "ministack"],
            env={**os.environ, **own},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _demand_listening(port, running)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):  # it starts others: one for each function
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def _demand_listening(port: int, running: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise ConfigurationError("ministack does not start")


def _environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "ASKONCE_PREFIX": PREFIX,
        "ASKONCE_BUCKET": f"{PREFIX}-bytes-000000000000",
    }


def aws(*arguments: str) -> Any:
    """What AWS's command line answers."""
    done = subprocess.run(
        [TOOLS / "aws", *arguments, "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigurationError(f"aws {' '.join(arguments[:2])}: {done.stderr.strip()}")
    with contextlib.suppress(ValueError):
        return json.loads(done.stdout)
    return done.stdout


def _why_not(name: str) -> str:
    """What of a stack could not be made."""
    events = aws("cloudformation", "describe-stack-events", "--stack-name", name)["StackEvents"]
    failed = [e for e in events if "FAILED" in e["ResourceStatus"]]
    return "\n".join(
        f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason', '')}" for e in failed
    )


def deploy(stage: str, out: Path) -> dict[str, str]:
    """The stack of a stage, as docs/deploying.md says; its outputs."""
    packaged = out / f"{stage}.packaged.yaml"
    aws(
        *("cloudformation", "package", "--template-file", str(out / f"{stage}.yaml")),
        *("--s3-bucket", "code", "--output-template-file", str(packaged)),
    )
    try:
        aws(
            *("cloudformation", "deploy", "--template-file", str(packaged), "--s3-bucket", "code"),
            *("--stack-name", f"{PREFIX}-{stage}"),
            *("--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"),
            *("--parameter-overrides", f"Prefix={PREFIX}"),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}\n{_why_not(f'{PREFIX}-{stage}')}") from None
    stack = aws("cloudformation", "describe-stacks", "--stack-name", f"{PREFIX}-{stage}")
    outputs = stack["Stacks"][0].get("Outputs", ())
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


# The story


class Rehearsal:
    """One deployment, the providers and the desk around it."""

    def __init__(self, folder: Path, url: str, say: Say) -> None:
        self._folder = folder
        self._out = folder / "out"
        self._url = url
        self._say = say
        #: Inbox -> its API.
        self._apis: dict[str, Api] = {}
        self._domain = f"http://127.0.0.1:{domain_of(self._apis)}"
        self._document = settings.read(ROOT / "askonce.toml")

    def play(self) -> None:
        """StepError unless the story ends well, also with an edge made anew behind it."""
        site, desk = self._outside()
        with step("it is packaged", self._say):
            self._package(localised(self._document, self._domain, outside_addresses(site.origin)))
        with step("core is deployed", self._say):
            deploy("core", self._out)
        for stage in EDGES:
            self._deploy_edge(stage)
        import app

        know_customers(app.pipeline().store, self._document)
        desk.start()
        address = Address(page=site.origin, api=self._domain, environment={})
        client = Client(address)
        with step("the story ends as it should", self._say):
            story.tell(address, self._folder)
        for name in self._document.inboxes:
            with step(f"{name} is heard", self._say):
                _demand_heard(client, name)
        with step("edge-wechat is deleted", self._say):
            aws("cloudformation", "delete-stack", "--stack-name", f"{PREFIX}-edge-wechat")
        self._deploy_edge("edge-wechat")
        with step("with that edge made anew, nothing is forgotten", self._say):
            _demand_remembered(client)
        with step("the log of a question leads from its webhook to its ticket", self._say):
            self._demand_logged()

    def _outside(self) -> tuple[Site, Desk]:
        """The providers, which listen, and the desk, which will."""
        records = Records(self._folder / "outside.sqlite")
        mail = MailServer(records)
        os.environ.update(missing_secrets(self._document, {}))
        os.environ[SMTP_ENVIRONMENT] = f"smtp://127.0.0.1:{mail.start()}"
        os.environ["ASKONCE_CONFIG"] = str(self._folder / "local.toml")
        import app  # reads its prefix from the environment when it is imported

        def secret() -> str:
            own: Any = app.pipeline().deployment.helpdesk("desk").settings
            return values(own.secret)[0]

        desk = Desk(records, f"{self._domain}/replies/desk", secret)
        site = Site(records, desk, Events(), app.pipeline, self._domain)
        site.start(0)
        return site, desk

    def _package(self, config: dict[str, Any]) -> None:
        """As for AWS, with the secrets in its Parameter Store."""
        (self._folder / "local.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
        deployed = self._folder / "askonce.toml"
        deployed.write_text(tomli_w.dumps(_in_parameter_store(config)), encoding="utf-8")
        for name in _references(config):
            _put_parameter(name, os.environ[name])
        described = _with_an_http_api(self._folder / "stages.json")
        asked = package.Asked(["core", *EDGES], self._out, deployed, described=described)
        found = package.package(asked, self._say)
        found += _linted(self._out)
        if found:
            raise ConfigurationError("\n".join(found))
        for stage in asked.stages:
            _leave_out_what_the_engine_lacks(self._out / f"{stage}.yaml")
        aws("s3", "mb", "s3://code")

    def _deploy_edge(self, stage: str) -> None:
        http = stage == BY_HTTP_API
        with step(f"{stage} is deployed, by {'an HTTP' if http else 'a REST'} API", self._say):
            made = deploy(stage, self._out)
            api = HttpApi(made["HttpApiId"]) if http else RestApi(self._url, made["RestAPIId"])
            self._apis[EDGES[stage]] = api

    def _demand_logged(self) -> None:
        here = ("--folder", str(self._folder))  # else a running `askonce dev` would answer
        repeat = askonce("repeats", "list", "--outcome", "repeat", *here).split()[2]
        see(
            f"the log of {repeat} with {', '.join(LIFE)}",
            lambda: [event for event in LIFE if f" {event} " in askonce("logs", repeat, *here)],
            lambda found: found == list(LIFE),
        )


def askonce(*arguments: str) -> str:
    """What our command line says of the deployment that the environment names."""
    command = [sys.executable, "-m", "infra.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        raise _UnlikeError(f"words of askonce {' '.join(arguments[:2])}", done.stderr or "none")
    return done.stdout


def _demand_heard(client: Client, name: str) -> None:
    """A question through an inbox of askonce.toml becomes a ticket, or joins one."""
    question = f"Do you sell the green cups with number {len(name)} on them, too? ({name})"
    told = client.say("mei", name, question)
    see(
        f"{question!r} on a ticket, as its webhook heard {told}",
        lambda: [entry["text"] for entry in _entries(client)],
        lambda texts: any(question in text for text in texts),
    )


def _demand_remembered(client: Client) -> None:
    """What was known before an edge was made anew is known after: it is a repeat."""
    before = _repeats(client)
    told = client.say("li", "wechat", story.QUESTION)
    see(
        f"more repeats than {before}, as the webhook heard {told}",
        lambda: _repeats(client),
        lambda repeats: repeats > before,
    )


def _entries(client: Client) -> Iterator[dict[str, Any]]:
    """What customers said, on any ticket."""
    for ticket in client.state()["tickets"]:
        yield from (entry for entry in ticket["entries"] if "verdict" in entry)


def _repeats(client: Client) -> int:
    return sum(entry["verdict"]["outcome"] == "repeat" for entry in _entries(client))


def _leave_out_what_the_engine_lacks(path: Path) -> None:
    """Its CloudFormation refuses a template that names what it cannot make, even on condition."""
    whole = template.read(path)
    made = {
        name: resource
        for name, resource in whole["Resources"].items()
        # An alarm on what several metrics make together is unknown to it, too.
        if resource["Type"] not in UNKNOWN_TO_ENGINE and "Metrics" not in resource["Properties"]
    }
    template.write(whole | {"Resources": made}, path)


def _linted(out: Path) -> list[str]:
    """What cfn-lint finds in the templates, a line each."""
    templates = sorted(str(path) for path in out.glob("*.yaml"))
    command = [str(TOOLS / "cfn-lint"), "--format", "parseable", "--", *templates]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def _references(config: Any) -> set[str]:
    return set(re.findall(r"env:(\w+)", json.dumps(config)))


def _in_parameter_store(config: Any) -> Any:
    return json.loads(re.sub(r"env:(\w+)", rf"ssm:/{PREFIX}/\1", json.dumps(config)))


def _put_parameter(name: str, value: str) -> None:
    aws(
        *("ssm", "put-parameter", "--name", f"/{PREFIX}/{name}", "--type", "SecureString"),
        *("--value", value),
    )


def _with_an_http_api(path: Path) -> Path:
    """The stages of .chalice/config.json, one of them with an HTTP API."""
    config = json.loads(package.DESCRIBED.read_text(encoding="utf-8"))
    config["stages"][BY_HTTP_API]["environment_variables"][API_ENVIRONMENT] = "http"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


# The APIs, and a domain before them

Api = Callable[[Request], Response]


class RestApi:
    """A REST API, as the engine serves it."""

    def __init__(self, url: str, api: str) -> None:
        self._address = f"{url}/restapis/{api}/api/_user_request_"

    def __call__(self, request: Request) -> Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() != "host"}
        url = self._address + request.full_path.removesuffix("?")
        given = requests.request(
            request.method, url, data=request.get_data(), headers=headers, timeout=30
        )
        kept = {
            k: v
            for k, v in given.headers.items()
            if k.lower() not in ("transfer-encoding", "connection", "content-encoding",
                                 "content-length", "date", "server")
        }  # fmt: skip
        return Response(given.content, given.status_code, kept)


class HttpApi:
    """An HTTP API's routes and function, as they were deployed.

    The engine makes such an API, but hands requests over in format 2.0 whatever its integration
    asks for. So this matches the routes that it made, and asks the function in format 1.0.
    """

    def __init__(self, api: str) -> None:
        made = aws("apigatewayv2", "get-routes", "--api-id", api)["Items"]
        [asked] = aws("apigatewayv2", "get-integrations", "--api-id", api)["Items"]
        if asked["PayloadFormatVersion"] != "1.0":
            raise ConfigurationError("the HTTP API asks for a format that Chalice cannot read")
        self._function = asked["IntegrationUri"]
        self._routes = Map([_rule(*route["RouteKey"].split(" ")) for route in made])

    def __call__(self, request: Request) -> Response:
        try:
            route, parameters = self._routes.bind("").match(request.path, request.method)
        except HTTPException:
            return Response('{"message":"Not Found"}', 404, content_type="application/json")
        event = json.dumps(http_api.event_of(_arrived(request), route, parameters))
        asked = client("lambda", seconds=30, tries=1)
        answer = json.load(asked.invoke(FunctionName=self._function, Payload=event)["Payload"])
        return Response(answer["body"], answer["statusCode"], answer["headers"])


def _rule(method: str, path: str) -> Rule:
    return Rule(re.sub(r"{(\w+)}", r"<\1>", path), endpoint=path, methods=[method])


def _arrived(request: Request) -> WebhookRequest:
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in request.headers.items():
        headers[name.lower()] = (*headers.get(name.lower(), ()), value)
    return WebhookRequest(
        method=request.method,
        headers=headers,
        query=tuple(request.args.items(multi=True)),
        body=request.get_data(),
        received_at=datetime.now(UTC),
        source_ip=request.remote_addr or "",
        id=str(uuid.uuid4()),
    )


def domain_of(apis: Mapping[str, Api]) -> int:
    """A custom domain's work: each inbox's calls go to its own API. Returns the port."""

    @Request.application
    def answer(request: Request) -> Response:
        inbox = request.path.split("/")[2] if request.path.count("/") > 1 else ""
        return (apis.get(inbox) or apis[""])(request)

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=QuietHandler)
    serve(server, "domain")
    return int(server.port)


def _demand_store_tests(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", *STORE_TESTS],
        cwd=ROOT,
        env={**os.environ, "ASKONCE_TESTS_ENGINE": url},
        check=False,
    )
    if done.returncode:
        raise _UnlikeError("that all pass", f"exit code {done.returncode} and what stands above")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ConfigurationError as error:
        sys.exit(str(error))
