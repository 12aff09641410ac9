"""docs/webchat.openapi.yaml says what the app does: the same paths, and what schemathesis finds."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import tomli_w
import yaml
from hypothesis import HealthCheck, settings
from openapi_spec_validator import validate
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import unsupported_method

import app
from chalicelib.settings import default_path, read
from connectors.channels.webchat import FILE_TYPES
from infra.local import simulators
from tests.local import Local, local, messages

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "webchat.openapi.yaml").read_text())


def test_the_document_is_openapi() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")


def test_it_describes_the_routes_of_the_app_and_no_others() -> None:
    routes = {
        path: {method.lower() for method in by_method} - {"options"}
        for path, by_method in app.app.routes.items()
        if path.startswith("/webchat/")
    }
    described = {path: set(item) - {"parameters"} for path, item in DOCUMENT["paths"].items()}
    assert described == routes


def cut_down() -> dict[str, Any]:
    """The document, cut down to what a generator can know.

    An inbox that is there, a token that is right, no waiting, types of files that are taken, and
    no file in a line: only an upload of this very visitor would do.
    """
    document = copy.deepcopy(DOCUMENT)
    parts = document["components"]
    document["security"] = []  # the token is given to all, in a header
    parts["parameters"]["inbox"]["schema"] = {"type": "string", "enum": ["webchat"]}
    reading = document["paths"]["/webchat/{inbox}/messages"]["get"]
    reading["parameters"] = [p for p in reading["parameters"] if p["name"] != "wait"]
    document["paths"]["/webchat/{inbox}/session"]["post"]["parameters"] = []
    said, upload = parts["schemas"]["Said"], parts["schemas"]["UploadRequest"]
    said["anyOf"].pop()
    del said["properties"]["files"]
    upload["properties"]["media_type"] = {"type": "string", "enum": list(FILE_TYPES)}
    upload["properties"]["size_bytes"]["maximum"] = 10_000_000
    return document


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A local world whose web chat has no quota that a test could use up."""
    folder = tmp_path_factory.mktemp("world")
    content = read(default_path()).model_dump(mode="json", exclude_none=True, exclude_unset=True)
    quotas = ("visitor_per_minute", "address_per_minute", "inbox_per_minute")
    content["inboxes"]["webchat"] |= dict.fromkeys(quotas, 1_000_000)
    config = folder / "unlimited.toml"
    config.write_text(tomli_w.dumps(content), encoding="utf-8")
    with local(folder, "--config", str(config)) as running:
        yield running


@pytest.fixture(scope="module")
def headers(world: Local) -> dict[str, str]:
    """What the widget of a visitor sends."""
    session = simulators.post(simulators.webchat_session(world.address.page), world.address.api)
    token = session.json()["token"]
    return {"Origin": world.address.page, "Authorization": f"Bearer {token}"}


TOKEN_WANTED = [
    (path, method)
    for path, item in DOCUMENT["paths"].items()
    for method in set(item) - {"parameters"}
    if item[method].get("security") != []
]

load_all_checks()
REFUSALS = ["400", "401", "403", "404", "413", "422"]
CONFIG = SchemathesisConfig.from_dict(
    {"seed": 7, "checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}}
)
schema = schemathesis.openapi.from_dict(cut_down(), config=CONFIG)


@pytest.mark.world
@schema.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_to_whatever_is_asked_is_described(
    case: schemathesis.Case[Any], world: Local, headers: dict[str, str]
) -> None:
    case.call_and_validate(
        base_url=world.address.api,
        headers=headers,
        timeout=30,
        # API Gateway knows the methods, and answers others by itself.
        excluded_checks=[unsupported_method],
    )


@pytest.mark.world
@pytest.mark.parametrize("authorization", ["", "Bearer x", "Bearer ", "Basic eDp5"])
def test_whoever_has_no_token_is_refused_and_told_nothing(
    world: Local, headers: dict[str, str], authorization: str
) -> None:
    own = headers | {"Authorization": authorization}
    for path, method in TOKEN_WANTED:
        url = world.address.api + path.replace("{inbox}", "webchat")
        answer = requests.request(method, url, headers=own, data=b"{}", timeout=30)
        assert (answer.status_code, answer.text) == (401, "")
        assert answer.headers["Access-Control-Allow-Origin"] == world.address.page


@pytest.mark.world
@pytest.mark.parametrize("origin", ["null", "https://evil.example", ""])
def test_another_origin_is_refused_everywhere_and_told_nothing(
    world: Local, headers: dict[str, str], origin: str
) -> None:
    for path, item in DOCUMENT["paths"].items():
        for method in set(item) - {"parameters"}:
            if path.endswith("widget.js"):
                continue
            url = world.address.api + path.replace("{inbox}", "webchat")
            answer = requests.request(
                method, url, headers=headers | {"Origin": origin}, data=b"{}", timeout=30
            )
            own_page_without_origin = origin == "" and not path.endswith("session")
            assert own_page_without_origin or (answer.status_code, answer.text) == (401, "")
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Vary"] == "Origin"


@pytest.mark.world
def test_the_examples_of_the_manual_are_what_happens(world: Local, headers: dict[str, str]) -> None:
    said = {"client_id": "example-0001", "text": "Is anybody there to help me?"}
    base = f"{world.address.api}/webchat/webchat"
    stored = requests.post(f"{base}/messages", json=said, headers=headers, timeout=30).json()
    again = requests.post(f"{base}/messages", json=said, headers=headers, timeout=30).json()
    assert stored["id"] == again["id"]

    def news(_: Any) -> Any:
        read = requests.get(f"{base}/messages?after=0", headers=headers, timeout=30).json()
        return [line for line in read["messages"] if line["client_id"] == "example-0001"]

    (line,) = world.wait(news, "the line in the feed")
    assert line["text"] == said["text"]
    assert json.dumps(line).count(stored["id"]) == 1


FILE = simulators.File("tea.png", "image/png", b"leaf")


def offer(world: Local, headers: dict[str, str], file: simulators.File) -> dict[str, Any]:
    """What the server says about where a file may be put."""
    token = headers["Authorization"].removeprefix("Bearer ")
    asked = simulators.webchat_upload(token, headers["Origin"], file)
    found: dict[str, Any] = simulators.post(asked, world.address.api).json()
    return found


@pytest.mark.world
def test_a_form_takes_just_the_file_that_was_asked_for(
    world: Local, headers: dict[str, str]
) -> None:
    good = offer(world, headers, FILE)
    key, fields = good["upload"], good["fields"]
    assert simulators.webchat_form(good, FILE).status_code == 204
    longer = simulators.File("tea.png", "image/png", b"x" * 10_000_001)
    assert "EntityTooLarge" in simulators.webchat_form(good, longer).text
    empty = simulators.File("tea.png", "image/png", b"")
    assert "EntityTooSmall" in simulators.webchat_form(good, empty).text
    for changed in (
        {"Content-Type": "text/html"},
        {"key": key[:-1] + "x"},
        {"key": "attachments/m1/0-ab"},
    ):
        forged = good | {"fields": fields | changed}
        assert "AccessDenied" in simulators.webchat_form(forged, FILE).text
    policy = fields | {"policy": fields["policy"][:-8] + "AAAAAAA="}
    assert "SignatureDoesNotMatch" in simulators.webchat_form(good | {"fields": policy}, FILE).text


@pytest.mark.world
def test_an_upload_outlives_the_world_that_took_it(tmp_path: Path) -> None:
    with local(tmp_path) as before:
        page = before.address.page
        session = simulators.post(simulators.webchat_session(page), before.address.api).json()
        held = {"Origin": page, "Authorization": f"Bearer {session['token']}"}
        upload = offer(before, held, FILE)
        assert simulators.webchat_form(upload, FILE).status_code == 204
    with local(tmp_path, "--keep") as after:
        line = {"client_id": "after-0001", "text": "Which leaf is this?"}
        file = {"upload": upload["upload"], "name": "tea.png", "media_type": "image/png"}
        url = f"{after.address.api}/webchat/webchat/messages"
        del held["Origin"]  # the page has another port by now
        said = requests.post(url, json=line | {"files": [file]}, headers=held, timeout=30)
        assert said.status_code == 200
        (found,) = after.wait(
            lambda s: [m["files"] for t in s["tickets"] for m in messages(t)], "the file"
        )
        assert [(f["name"], f["content"]) for f in found] == [("tea.png", "bGVhZg==")]
