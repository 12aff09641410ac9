"""askonce.toml: every fault named by place and key, secrets by reference, one inbox at a time."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from chalicelib.errors import ConfigurationError, NotFoundError
from chalicelib.ports import PluginSettings
from chalicelib.settings import (
    INBOXES_ENVIRONMENT,
    SECRETS_MAX_AGE_SECONDS,
    Deployment,
    Document,
    SecretReader,
    plugin_settings,
    read,
)
from connectors.registry import CONNECTORS, HELPDESKS
from tests.fakes import NoTokens

MINIMAL: dict[str, Any] = {
    "public_url": "https://askonce.example/",
    "helpdesk": "desk",
    "inboxes": {
        "sms": {
            "connector": "sms_twilio",
            "account_sid": "AC12",
            "auth_token": "env:TOKEN",
            "number": "+14155550100",
        },
        "sms-hk": {
            "connector": "sms_twilio",
            "account_sid": "AC12",
            "auth_token": ["env:TOKEN", "env:OLD"],
            "number": "+85255550100",
        },
    },
    "helpdesks": {
        "desk": {"connector": "webhook", "url": "https://desk.example", "secret": "env:DESK"}
    },
}
ENVIRONMENT = {"TOKEN": "new-token", "OLD": "old-token", "DESK": "whsec_" + "a" * 44}


def deployment(
    environment: dict[str, str] | None = None, clock: Any = lambda: 0.0, **sms: Any
) -> Deployment:
    """MINIMAL, with other settings of the inbox `sms`; None takes one away."""
    changed = {k: v for k, v in (MINIMAL["inboxes"]["sms"] | sms).items() if v is not None}
    content = MINIMAL | {"inboxes": MINIMAL["inboxes"] | {"sms": changed}}
    reader = SecretReader(ENVIRONMENT if environment is None else environment)
    document = Document.model_validate(content)
    return Deployment(document, CONNECTORS, HELPDESKS, NoTokens(), reader, clock)


def test_a_right_configuration_has_no_faults() -> None:
    assert deployment().faults() == []


@pytest.mark.parametrize(
    ("sms", "fault"),
    [
        ({"auth_token": None}, 'inbox "sms": auth_token is missing'),
        ({"auth_token": "env:NOWHERE"}, "environment variable NOWHERE is not set"),
        ({"auth_token": "plain-text"}, 'inbox "sms": auth_token must be a reference: env:NAME'),
        ({"auth_token": ["env:TOKEN", "plain"]}, "auth_token must be a reference"),
        ({"number": "0800"}, 'inbox "sms": number string should match pattern'),
        ({"numbre": "+1"}, 'inbox "sms": numbre is no setting that we know'),
        ({"connector": "sms_pigeon"}, 'inbox "sms": connector "sms_pigeon" is unknown'),
        ({"connector": None}, 'inbox "sms": connector is missing'),
        ({"when_closed": "never"}, 'inbox "sms": when_closed input should be'),
        ({"helpdesk": "nobody"}, 'inbox "sms": helpdesk "nobody" is not under [helpdesks]'),
    ],
)
def test_a_fault_names_inbox_and_key_and_nothing_secret(sms: dict[str, Any], fault: str) -> None:
    (found,) = deployment(**sms).faults()
    assert fault in found
    assert "new-token" not in found
    assert "\n" not in found


def test_a_secret_that_its_connector_refuses_names_whose_it_is() -> None:
    (found,) = deployment(ENVIRONMENT | {"DESK": "no base64!"}).faults()
    assert found.startswith('helpdesk "desk": a Standard Webhooks secret must be base64')


def test_a_missing_public_address_is_one_fault_however_many_inboxes_want_it() -> None:
    made = deployment()
    made.document = made.document.model_copy(update={"public_url": "env:NOWHERE"})
    assert made.faults() == [
        "public_url is missing: environment variable NOWHERE is not set",
    ]


def test_what_a_connector_can_do_is_known_although_its_settings_are_wrong() -> None:
    broken = deployment(number="0800")
    assert broken.kind("sms") is CONNECTORS["sms_twilio"]()
    assert deployment(connector="sms_pigeon").kind("sms") is None
    assert broken.kind("nobody") is None


def test_every_fault_has_its_line() -> None:
    found = deployment(number="0800", auth_token=None, numbre=1).faults()
    assert sorted(line.split()[2] for line in found) == ["auth_token", "number", "numbre"]


def test_a_broken_inbox_silences_no_other() -> None:
    broken = deployment(number="0800")
    with pytest.raises(ConfigurationError, match='inbox "sms": number'):
        broken.inbox("sms")
    assert broken.inbox("sms-hk").name == "sms_twilio"


def test_the_public_address_of_an_inbox_is_what_its_provider_calls() -> None:
    assert deployment().inbox("sms").context.public_url == "https://askonce.example/webhooks/sms"


def test_an_inbox_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        deployment().inbox("nobody")
    with pytest.raises(NotFoundError):
        deployment().helpdesk("nobody")


@pytest.mark.parametrize(
    ("served", "serves"),
    [(None, ["sms", "sms-hk"]), ("*", ["sms", "sms-hk"]), ("sms-hk, other", ["sms-hk"])],
)
def test_a_stack_takes_webhooks_only_for_the_inboxes_it_serves(
    served: str | None, serves: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if served:
        monkeypatch.setenv(INBOXES_ENVIRONMENT, served)
    made = deployment()
    assert [name for name in ("sms", "sms-hk", "other") if made.serves(name)] == serves
    assert made.inbox("sms").name == "sms_twilio"  # any stack may send through any


# The file


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("public_url = ", "askonce.toml: is not valid TOML"),
        ('helpdesk = "desk"', "askonce.toml: public_url is missing"),
        ('public_url = "x"\nhelpdesk = "d"', "askonce.toml: public_url string should match"),
        ('public_url = "https://x"\nhelpdesk = "d"\nfoo = 1', "foo is no setting that we know"),
        (
            'public_url = "https://x"\nhelpdesk = "d"\n[policy.repeats]\nmode = "maybe"',
            "askonce.toml: policy.repeats.mode input should be 'off', 'observe'",
        ),
        (
            'public_url = "https://x"\nhelpdesk = "d"\n[wording.en]\nanswered = "{x}"',
            "askonce.toml: wording.en.answered knows only {answer}",
        ),
        (
            'public_url = "https://x"\nhelpdesk = "d"\n[inboxes."a b"]\nconnector = "x"',
            "askonce.toml: inboxes.a b.[key] string should match pattern",
        ),
    ],
)
def test_a_fault_of_the_file_names_its_place(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "askonce.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        read(path)
    assert fault in str(error.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file"):
        read(tmp_path / "askonce.toml")


def test_the_sample_configuration_runs_once_its_secrets_are_set() -> None:
    from infra.local.localise import faults

    assert faults(read(Path("askonce.toml"))) == []


def test_no_test_ticket_leaves_for_a_desk_outside_this_machine() -> None:
    from infra.local.localise import with_desks_here

    outside = {"connector": "zendesk", "url": "https://shop.zendesk.com"}
    here = {"connector": "request_tracker", "url": "http://127.0.0.1:8095"}
    own = {"connector": "sandbox", "url": "https://desk.example"}
    document = read(Path("askonce.toml")).model_copy(
        update={"helpdesks": {"far": outside, "near": here, "own": own}}
    )
    desks = with_desks_here(document).helpdesks
    assert [desks[name]["connector"] for name in ("far", "near", "own")] == [
        "sandbox",
        "request_tracker",
        "sandbox",
    ]


def test_what_the_sample_has_in_comments_can_be_switched_on(tmp_path: Path) -> None:
    sample = Path("askonce.toml").read_text(encoding="utf-8")
    on = re.sub(r"^#(?=[\[a-z])", "", sample, flags=re.MULTILINE)
    assert on != sample
    questions = '[tea.en]\nquestion = "How do I keep tea?"\nanswer = "Dry."\n'
    (tmp_path / "faq.toml").write_text(questions, encoding="utf-8")
    (tmp_path / "askonce.toml").write_text(on, encoding="utf-8")
    document = read(tmp_path / "askonce.toml")
    assert document.second_opinion is not None
    assert document.faq is not None
    assert document.scorer.kind == "bedrock"


# Secrets


class Settings(PluginSettings):
    """A secret, several, and a plain value."""

    secret: SecretStr
    several: tuple[SecretStr, ...] = ()
    plain: str = ""


def test_a_secret_is_read_and_never_shown() -> None:
    made = plugin_settings(Settings, {"secret": "env:TOKEN"}, SecretReader(ENVIRONMENT))
    assert made.secret.get_secret_value() == "new-token"
    assert "new-token" not in repr(made)


def test_two_secrets_may_be_valid_at_once() -> None:
    values = {"secret": "env:TOKEN", "several": ["env:TOKEN", "env:OLD"]}
    made = plugin_settings(Settings, values, SecretReader(ENVIRONMENT))
    assert [s.get_secret_value() for s in made.several] == ["new-token", "old-token"]


def test_any_setting_may_be_a_reference() -> None:
    values = {"secret": "env:TOKEN", "plain": "env:OLD"}
    assert plugin_settings(Settings, values, SecretReader(ENVIRONMENT)).plain == "old-token"


def test_an_empty_secret_is_a_fault() -> None:
    with pytest.raises(ConfigurationError, match="secret is empty at env:TOKEN"):
        plugin_settings(Settings, {"secret": "env:TOKEN"}, SecretReader({"TOKEN": ""}))


def test_a_rotated_secret_arrives_after_five_minutes() -> None:
    environment, now = dict(ENVIRONMENT), [0.0]
    made = deployment(environment, clock=lambda: now[0])
    first = made.inbox("sms")
    environment["TOKEN"] = "rotated"
    now[0] = SECRETS_MAX_AGE_SECONDS - 1
    assert made.inbox("sms") is first
    now[0] = SECRETS_MAX_AGE_SECONDS + 1
    assert "rotated" in made.inbox("sms").settings.auth_token.get_secret_value()  # type: ignore[attr-defined]  # Twilio's


def test_a_secret_in_parameter_store_is_read_from_there(moto_bucket: str) -> None:
    import boto3

    boto3.client("ssm").put_parameter(Name="/askonce/t", Value="from-ssm", Type="SecureString")
    assert SecretReader()("ssm:/askonce/t") == "from-ssm"
    with pytest.raises(ConfigurationError, match="cannot be read from ssm:/askonce/nothing"):
        SecretReader()("ssm:/askonce/nothing")


def test_a_secret_in_secrets_manager_is_read_from_there(moto_bucket: str) -> None:
    import boto3

    manager = boto3.client("secretsmanager")
    manager.create_secret(Name="askonce/desk", SecretString='{"key": "from-manager"}')
    assert SecretReader()("secretsmanager:askonce/desk#key") == "from-manager"
    assert "from-manager" in SecretReader()("secretsmanager:askonce/desk")
