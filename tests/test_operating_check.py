"""`askonce check --stage`: every fault by name, no secret shown, what to enter in each console."""

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chalicelib import aws, settings
from chalicelib.errors import ConfigurationError
from chalicelib.settings import Deployment, SecretReader
from connectors.registry import CONNECTORS, HELPDESKS
from infra import cli, consoles, stages
from infra.local.localise import missing_secrets
from infra.readiness import place_of, reach
from infra.stages import Stage
from tests.fakes import NoTokens

CONFIG = """
public_url = "https://askonce.example"
helpdesk = "desk"

[inboxes.sms]
connector = "sms_twilio"
account_sid = "AC5ef8732a3c49700934481addd5ce1659"
auth_token = ["ssm:/askonce/twilio", "ssm:/askonce/twilio-old"]
number = "+14155550100"
api_url = "{twilio}"

[inboxes.ali]
connector = "sms_aliyun"
path_secret = "ssm:/askonce/ali-path"
access_key_id = "key-id"
access_key_secret = "secretsmanager:askonce/ali#key"
sign_name = "x"
template_code = "SMS_1"
api_url = "{twilio}"

[inboxes.chat]
connector = "webchat"
token_secret = "ssm:/askonce/chat"
origins = ["https://shop.example"]

[helpdesks.desk]
connector = "webhook"
url = "{desk}"
secret = "ssm:/askonce/desk"
"""
STAGES = """
{"version": "2.0", "stages": {
  "all": {"environment_variables": {"ASKONCE_PARTS": "core edge"}},
  "core": {"environment_variables": {"ASKONCE_PARTS": "core"}},
  "sms": {"environment_variables": {"ASKONCE_PARTS": "edge", "ASKONCE_INBOXES": "sms, ali"}},
  "wrong": {"environment_variables": {"ASKONCE_PARTS": "edge", "ASKONCE_INBOXES": "smss"}}
}}
"""
VALUES = {
    "/askonce/twilio": "canary-twilio-new-token",
    "/askonce/twilio-old": "canary-twilio-old-token",
    "/askonce/ali-path": "canary0ali0path0secret",
    "/askonce/chat": "canary-" + "c" * 40,
    "/askonce/desk": "whsec_" + "Y2FuYXJ5" * 6,
}
Check = Callable[..., Result]


@pytest.fixture
def listening() -> Iterator[str]:
    """Something that takes connections and says nothing; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=take_all, args=(server,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def take_all(server: socket.socket, wrap: Callable[[socket.socket], Any] = lambda s: s) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return
        try:
            wrap(line).close()
        except OSError:
            line.close()


@pytest.fixture
def check(
    tmp_path: Path, moto_bucket: str, listening: str, monkeypatch: pytest.MonkeyPatch
) -> Check:
    """The command, in a folder with stages, over a deployment on moto; `changed` edits the file."""
    (tmp_path / ".chalice").mkdir()
    (tmp_path / ".chalice" / "config.json").write_text(STAGES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASKONCE_PREFIX", raising=False)
    ssm = aws.client("ssm")
    for name, value in VALUES.items():
        ssm.put_parameter(Name=name, Value=value, Type="SecureString")
    secret = '{"key": "canary-ali-key"}'
    aws.client("secretsmanager").create_secret(Name="askonce/ali", SecretString=secret)

    def run(*arguments: str, changed: dict[str, str] | None = None) -> Result:
        text = CONFIG.format(twilio=listening, desk=listening)
        for old, new in (changed or {}).items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "askonce.toml"
        path.write_text(text, encoding="utf-8")
        return CliRunner().invoke(cli.main, ["check", *arguments, "--config", str(path)])

    return run


def faults(told: Result) -> list[str]:
    return [line.strip() for line in told.output.splitlines() if "FAULT" in line]


def test_a_stage_that_can_go_live_has_no_faults(check: Check) -> None:
    told = check("--stage", "all")
    assert faults(told) == []
    assert told.exit_code == 0
    assert told.output.splitlines()[-1] == "no faults"


def test_everything_is_looked_at(check: Check, listening: str) -> None:
    lines = check("--stage", "all").output.splitlines()
    seen = [line.removeprefix("  ok     ") for line in lines if line.startswith("  ok")]
    place = listening.removeprefix("http://")
    names = [
        *("forward.fifo", "deliver.fifo", "forward-dead.fifo", "deliver-dead.fifo"),
        *("stream-dead", "inbound-dead"),
    ]
    assert seen == [
        "secret secretsmanager:askonce/ali#key",
        *(f"secret ssm:{name}" for name in sorted(VALUES)),
        "settings: 3 inboxes, 1 helpdesks",
        f"{place} answers (inbox sms, inbox ali, helpdesk desk)",
        "AWS",
        "table askonce",
        *(f"queue askonce-{name}" for name in names),
        "bucket askonce-bytes-123456789012",
    ]


def test_no_secret_is_shown(check: Check) -> None:
    for name in ("all", "core", "sms"):
        told = check("--stage", name, "--api-url", "https://api.example").output
        assert [value for value in (*VALUES.values(), "canary-ali-key") if value in told] == []
        assert "canary" not in told


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"/askonce/twilio-old": "/askonce/none"},
         "secret ssm:/askonce/none: cannot be read from ssm:/askonce/none: ParameterNotFound"),
        ({"ssm:/askonce/desk": "env:DESK"},
         "secret env:DESK: is missing: environment variable DESK is not set"),
        ({'number = "+14155550100"': 'number = "0800"'},
         'setting: inbox "sms": number string should match pattern'),
        ({"askonce/ali#key": "askonce/none#key"},
         "secretsmanager:askonce/none#key: ResourceNotFoundException"),
    ],
)  # fmt: skip
def test_each_fault_is_named_once(changed: dict[str, str], fault: str, check: Check) -> None:
    told = check("--stage", "all", changed=changed)
    [found] = faults(told)
    assert fault in found
    assert told.exit_code == 2


def test_a_secret_that_the_functions_may_not_read_is_a_fault(check: Check) -> None:
    value = VALUES["/askonce/desk"]
    aws.client("ssm").put_parameter(Name="/shop/desk", Value=value, Type="SecureString")
    told = check("--stage", "all", changed={"ssm:/askonce/desk": "ssm:/shop/desk"})
    assert faults(told) == [
        "FAULT  secret ssm:/shop/desk: the functions may read ssm:/askonce/... only"
    ]


def test_what_only_this_shell_knows_does_not_count(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK", VALUES["/askonce/desk"])
    told = check("--stage", "all", changed={"ssm:/askonce/desk": "env:DESK"})
    assert "DESK is not set" in faults(told)[0]


def test_a_deployment_that_is_not_there_is_a_fault_by_each_part(check: Check) -> None:
    told = check("--stage", "core", "--prefix", "shop")
    missing = [line for line in faults(told) if "AWS has nothing of the deployment" in line]
    assert len(missing) == 8, "the table, six queues, the bucket"


def test_without_credentials_aws_is_one_fault(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    aws.client.cache_clear()
    told = [line for line in faults(check("--stage", "core")) if line.startswith("FAULT  AWS")]
    assert told == ["FAULT  AWS: no AWS region is named: set AWS_DEFAULT_REGION"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("prod", "there is no stage prod in .chalice/config.json: it has all, core, sms, wrong"),
        ("wrong", "its ASKONCE_INBOXES names smss, which is no inbox of askonce.toml: it has sms"),
    ],
)
def test_a_wrong_stage_is_said_to_be_wrong(name: str, says: str, check: Check) -> None:
    told = check("--stage", name)
    assert (told.exit_code, says in told.output) == (2, True)


def test_a_stage_of_the_core_has_no_address(check: Check) -> None:
    assert "webhooks" not in check("--stage", "core").output


# Where it is reached


def test_an_inbox_is_told_with_its_address_and_its_providers_steps(check: Check) -> None:
    lines = check("--stage", "sms", "--api-url", "https://api.example/api/").output.splitlines()
    at = lines.index("inbox sms (sms_twilio): https://api.example/api/webhooks/sms")
    assert lines[at + 1 : at + 3] == [
        "  1. Phone Numbers > Manage > Active numbers > +14155550100 > Messaging configuration",
        "  2. A message comes in: Webhook, https://api.example/api/webhooks/sms, HTTP POST",
    ]
    assert (
        "inbox ali (sms_aliyun): https://api.example/api/webhooks/ali/<value of "
        "ssm:/askonce/ali-path>"
    ) in lines
    assert "helpdesk desk (webhook): https://api.example/api/replies/desk" in lines
    assert not any("inbox chat" in line for line in lines)


def test_a_page_gets_the_widgets_address(check: Check) -> None:
    told = check("--stage", "all").output
    assert "inbox chat (webchat): https://askonce.example/webchat/chat/widget.js" in told


def test_an_api_elsewhere_than_public_url_is_to_be_looked_at(check: Check) -> None:
    """It may be a domain's name that leads there, or another edge's: no fault by itself."""
    told = check("--stage", "sms", "--api-url", "https://api.example/api")
    [look] = [line for line in told.output.splitlines() if line.startswith("  look")]
    assert "is https://askonce.example, and the API is at https://api.example/api" in look
    assert faults(told) == []
    same = check("--stage", "sms", "--api-url", "https://askonce.example/")
    assert "look " not in same.output


@pytest.mark.parametrize(
    ("output", "value", "says"),
    [
        ("EndpointURL", "https://api.example/api/", "https://api.example/api/webhooks/sms"),
        ("EndpointURL", "https://http.example/", "https://http.example/webhooks/sms"),
        ("Other", "https://api.example/", "stack shop-edge has no API"),
    ],
)
def test_a_stack_knows_where_its_api_is(output: str, value: str, says: str, check: Check) -> None:
    template = f"""{{"Resources": {{"Topic": {{"Type": "AWS::SNS::Topic"}}}},
        "Outputs": {{"{output}": {{"Value": "{value}"}}}}}}"""
    aws.client("cloudformation").create_stack(StackName="shop-edge", TemplateBody=template)
    assert says in check("--stage", "sms", "--stack", "shop-edge").output


def test_a_stack_that_is_not_there_is_named(check: Check) -> None:
    told = check("--stage", "sms", "--stack", "nowhere")
    assert told.exit_code == 2
    assert told.output.startswith("there is no stack nowhere here: is its name right")


def test_every_connector_is_told_what_to_do_and_every_step_has_its_words() -> None:
    assert set(consoles.STEPS) <= set(CONNECTORS)  # one without its own gets ANY
    for name, load in CONNECTORS.items():
        fields = {f: f"[{f}]" for f in load().settings_model.model_fields}
        told = consoles.steps(name, fields | {"url": "[url]", "widget": "[widget]"})
        assert not any(re.search(r"<\w+>", step) for step in told), name
    assert consoles.steps("a_new_one", {"url": "U"}) == [
        "Enter U where the provider wants to know its webhook"
    ]


def test_every_helpdesk_has_its_page() -> None:
    pages = {path.stem for path in Path("docs/helpdesks").glob("*.md")}
    assert set(HELPDESKS) - {"sandbox"} <= pages


# What is called


def test_every_connector_says_where_it_sends() -> None:
    document = settings.read(Path("examples/every-provider.toml"))
    held = missing_secrets(document, {}) | {"ASKONCE_SMTP_URL": "smtp://li:canary@127.0.0.1:25"}
    held |= {"ASKONCE_PUBLIC_URL": "https://askonce.example"}
    made = Deployment(document, CONNECTORS, HELPDESKS, NoTokens(), SecretReader(held))
    seen = set()
    for name in document.inboxes:
        connector = made.inbox(name)
        seen.add(connector.name)
        places = connector.endpoints()
        assert bool(places) is (connector.name != "webchat"), name
        assert all(place.startswith(("https://", "smtp://")) for place in places), name
    assert seen == set(CONNECTORS)


def test_what_does_not_listen_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert reach(f"127.0.0.1:{port}") == "cannot be reached: Connection refused"


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("https://api.example/v3", "api.example:443 tls"),
        ("http://127.0.0.1:8700", "127.0.0.1:8700"),
        ("smtp://li:canary@mail.example", "mail.example:587"),
        ("smtps://li:canary@mail.example:465", "mail.example:465 tls"),
    ],
)
def test_a_place_holds_no_name_and_no_password(endpoint: str, place: str) -> None:
    assert place_of(endpoint) == place


def test_a_name_that_nobody_knows_is_said_to_be_unknown() -> None:
    assert reach("nowhere.invalid:443 tls") == "its name is not known"


@pytest.fixture(params=[True, False], ids=["trusted", "untrusted"])
def sealed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, bool]]:
    """A server that speaks TLS, and whether this process trusts its certificate."""
    key_file = certificate(tmp_path)
    if request.param:
        monkeypatch.setenv("SSL_CERT_FILE", str(key_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key_file)
    with socket.create_server(("127.0.0.1", 0)) as server:
        wrap = lambda line: context.wrap_socket(line, server_side=True)  # noqa: E731
        thread = threading.Thread(target=take_all, args=(server, wrap), daemon=True)
        thread.start()
        yield f"localhost:{server.getsockname()[1]} tls", request.param
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def certificate(folder: Path) -> Path:
    """A key and its own certificate for localhost, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_must_be_trusted(sealed: tuple[str, bool]) -> None:
    place, trusted = sealed
    why = reach(place)
    assert (why is None) is trusted
    if why:
        assert why.startswith("its certificate is not trusted")


def test_a_stage_says_of_what_it_is_made() -> None:
    assert str(Stage("s", {"ASKONCE_PARTS": "core"})) == "core"
    assert str(Stage("s", {})) == "core and edge (REST API)"
    said = {"ASKONCE_PARTS": "edge", "ASKONCE_API": "http"}
    assert str(Stage("s", said)) == "edge (HTTP API)"
    with pytest.raises(ConfigurationError, match="stage s: its ASKONCE_API is HTTP: it is rest or"):
        str(Stage("s", said | {"ASKONCE_API": "HTTP"}))


def test_a_stage_inherits_what_all_stages_have(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        '{"environment_variables": {"ASKONCE_PARTS": "core", "A": "1"},'
        ' "stages": {"s": {"environment_variables": {"A": "2"}}}}',
        encoding="utf-8",
    )
    assert stages.read(path, ["s"]) == [Stage("s", {"ASKONCE_PARTS": "core", "A": "2"})]
    with pytest.raises(ConfigurationError, match="cannot be read: FileNotFoundError"):
        stages.read(tmp_path / "none.json", ["s"])
