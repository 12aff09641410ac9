"""The configuration as the local world runs it.

Every address outside is replaced by a fake one on loopback, so that no test message ever leaves the
machine, and every secret that the environment does not have is made up. Any askonce.toml runs.
"""

import base64
import os
import secrets
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chalicelib.errors import ConfigurationError
from chalicelib.ports import url_names
from chalicelib.settings import Deployment, Document, SecretReader, is_reference
from connectors.registry import CONNECTORS, HELPDESKS
from infra.local.simulators.mail import sendgrid_public_key


def _word(length: int) -> str:
    letters = string.ascii_letters + string.digits
    return "".join(secrets.choice(letters) for _ in range(length))


def _webhook_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _aes_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")


_WECOM: Mapping[str, Callable[[], str]] = {
    "secret": lambda: _word(43),
    "token": lambda: _word(24),
    "encoding_aes_key": _aes_key,
}
_WECHAT: Mapping[str, Callable[[], str]] = {
    "path_secret": lambda: _word(32),
    "app_secret": lambda: secrets.token_hex(16),
    "token": lambda: _word(24),
    "encoding_aes_key": _aes_key,
}
#: connector -> setting -> how its secret looks. All of those of any other connector are words.
_MAKERS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "wechat": _WECHAT,
    "wechat_miniprogram": _WECHAT,
    "wecom": _WECOM,
    "wecom_kf": _WECOM,
    "email_mime": {"signing_secret": _webhook_secret, "reply_secret": lambda: _word(32)},
    "email_mailgun": {
        "signing_key": lambda: secrets.token_hex(16),
        "path_secret": lambda: f"{_word(32)}.mime",
        "api_key": lambda: _word(32),
        "reply_secret": lambda: _word(32),
    },
    "email_sendgrid": {"api_key": lambda: f"SG.{_word(40)}", "reply_secret": lambda: _word(32)},
    "email_postmark": {
        "basic_auth": lambda: f"postmark:{_word(24)}",
        "path_secret": lambda: _word(32),
        "server_token": lambda: _word(32),
        "reply_secret": lambda: _word(32),
    },
    "sms_twilio": {
        "auth_token": lambda: secrets.token_hex(16),
        "shared_key": lambda: _word(40),
    },
    "sandbox": {"secret": _webhook_secret},
    "webhook": {"secret": _webhook_secret},
    "request_tracker": {"token": lambda: _word(40), "secret": _webhook_secret},
}


SMTP_ENVIRONMENT = "ASKONCE_LOCAL_SMTP_URL"
#: Of the desk that stands in for one outside.
_DESK_SECRET = "env:ASKONCE_LOCAL_DESK_SECRET"
_HERE = ("http://127.0.0.1", "http://localhost")


#: The embedded AWS has the stack's topic in this region and account.
LOCAL_TOPIC = "arn:aws:sns:us-east-1:123456789012:askonce-local-inbound"
#: That of SES, beside it: what is mail and what is an SMS does not mix.
LOCAL_MAIL_TOPIC = "arn:aws:sns:us-east-1:123456789012:askonce-local-mail"
LOCAL_MAIL_BUCKET = "askonce-local-mail-123456789012"


class OutsideAddresses(dict[str, dict[str, Any]]):
    """connector -> the settings that point outside, pointed at the local fakes instead.

    Of a connector that is not listed these are all addresses among its settings.
    """

    def __init__(self, page: str, listed: Mapping[str, dict[str, Any]]) -> None:
        super().__init__(listed)
        self._page = page

    def __missing__(self, connector: str) -> dict[str, Any]:
        if connector not in CONNECTORS:
            return {}
        fake = f"{self._page}/providers/{connector}"
        return dict.fromkeys(url_names(CONNECTORS[connector]().settings_model), fake)


def outside_addresses(page: str) -> OutsideAddresses:
    """What points outside, pointed at the page's port instead: no test message ever leaves."""
    listed: dict[str, dict[str, Any]] = {
        "sms_aws": {"topic_arns": LOCAL_TOPIC, "api_url": f"{page}/providers/sms_aws"},
        "email_mime": {"smtp_url": f"env:{SMTP_ENVIRONMENT}", "out": "smtp"},
        "email_sendgrid": {
            "api_url": f"{page}/providers/email_sendgrid",
            "public_key": sendgrid_public_key(),
        },
        "email_ses": {
            "topic_arns": LOCAL_MAIL_TOPIC,
            "buckets": LOCAL_MAIL_BUCKET,
            "region": "us-east-1",
            "api_url": f"{page}/providers/email_ses",
        },
        "webchat": {"origins": [page]},
        "sandbox": {"url": page},
    }
    return OutsideAddresses(page, listed)


def with_desks_here(document: Document) -> Document:
    """With the page's desk in the place of each that lies outside: no test ticket leaves either."""
    stand_in = {"connector": "sandbox", "url": _HERE[0], "secret": _DESK_SECRET}
    desks = {
        name: settings if _is_here(settings) else stand_in
        for name, settings in document.helpdesks.items()
    }
    return document.model_copy(update={"helpdesks": desks})


def _is_here(settings: Mapping[str, Any]) -> bool:
    own = settings.get("connector") == "sandbox"
    return own or str(settings.get("url", "")).startswith(_HERE)


def localised(document: Document, api: str, addresses: OutsideAddresses) -> dict[str, Any]:
    """askonce.toml's content with the local addresses in it."""
    content = document.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    content["public_url"] = api
    for plugins, registry in (("inboxes", CONNECTORS), ("helpdesks", HELPDESKS)):
        for settings in content.get(plugins, {}).values():
            connector = str(settings.get("connector"))
            own = {k: v for k, v in addresses[connector].items()
                   if k in settings or not _is_required(registry[connector], k)}  # fmt: skip
            settings.update(own)
    return content


def _is_required(load: Callable[[], type[Any]], key: str) -> bool:
    """A required setting that the file lacks stays missing, so that it is found as a fault."""
    return bool(load().settings_model.model_fields[key].is_required())


def faults(document: Document) -> list[str]:
    """What is wrong with the configuration even here, a line each."""
    somewhere = "http://127.0.0.1"
    local = Document.model_validate(localised(document, somewhere, outside_addresses(somewhere)))
    secrets_ = {**os.environ, **missing_secrets(document, {}), SMTP_ENVIRONMENT: "smtp://127.0.0.1"}
    return Deployment(local, CONNECTORS, HELPDESKS, NoTokens(), SecretReader(secrets_)).faults()


def faults_of_shape(document: Document) -> list[str]:
    """What is wrong with the configuration whatever its secrets are, a line each.

    Where a secret would be read, something of the right shape stands, if we know that.
    """
    made = {reference: maker() for _, reference, maker in _references(document)}
    found = Deployment(
        document, CONNECTORS, HELPDESKS, NoTokens(), lambda name: made.get(name, "unknown")
    ).faults()
    unknown = {
        f'{kind} "{name}": {key} '
        for kind, plugins in (("inbox", document.inboxes), ("helpdesk", document.helpdesks))
        for name, held in plugins.items()
        for key, value in held.items()
        if any(is_reference(one) and one not in made for one in _listed(value))
    }
    return [fault for fault in found if not fault.startswith(tuple(unknown))]


class NoTokens:
    """For a deployment that is only looked at."""

    def get(self, name: str, fetch: Callable[[], tuple[str, float]], *, stale: str = "") -> str:
        raise ConfigurationError("nothing is called while settings are looked at")


def missing_secrets(document: Document, known: Mapping[str, str]) -> dict[str, str]:
    """{environment variable: value} for each that askonce.toml names and nobody has set.

    ConfigurationError for a reference that only AWS can follow.
    """
    made: dict[str, str] = {}
    for place, name, maker in _references(document):
        if not name.startswith("env:"):
            raise ConfigurationError(
                f"{place} is at {name}, which this machine cannot read: use env: to run it locally"
            )
        variable = name.removeprefix("env:")
        if variable not in os.environ and variable not in known:
            made.setdefault(variable, maker())
    return made


def _references(document: Document) -> Iterator[tuple[str, str, Callable[[], str]]]:
    for kind, plugins in (("inbox", document.inboxes), ("helpdesk", document.helpdesks)):
        for name, settings in plugins.items():
            for key, maker in _MAKERS.get(str(settings.get("connector")), {}).items():
                for reference in _listed(settings.get(key)):
                    yield f'{kind} "{name}": {key}', reference, maker
    for place, reference in _of_others(document):
        yield place, reference, lambda: _word(40)
    for reference in _listed((document.contacts_api or {}).get("secrets", ())):
        yield "contacts_api: secrets", reference, _webhook_secret


def _listed(given: Any) -> Iterator[str]:
    """What is a reference of one or several values."""
    for reference in given if isinstance(given, (list, tuple)) else [given]:
        if isinstance(reference, str) and ":" in reference:
            yield reference


def _of_others(document: Document) -> Iterator[tuple[str, str]]:
    """(place, reference) of secrets of which nothing is known but that they are text.

    Those of a desk that lies outside nobody needs here, wherever they are.
    """
    for kind, plugins in (("inbox", document.inboxes), ("helpdesk", document.helpdesks)):
        for name, settings in plugins.items():
            if str(settings.get("connector")) in _MAKERS:
                continue
            for key, reference in ((k, r) for k, v in settings.items() for r in _listed(v)):
                if reference.startswith("env:") or (kind == "inbox" and is_reference(reference)):
                    yield f'{kind} "{name}": {key}', reference
