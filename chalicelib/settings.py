"""askonce.toml and its secrets become validated settings, and inboxes and helpdesks on demand.

A wrong setting is a fault that names it (`inbox "sms-hk": auth_token is missing`), found by
`faults` all at once, and raised as ConfigurationError on first use of that inbox or helpdesk, so
that it silences no other.

Secrets are references: `env:NAME`, `ssm:/path` or `secretsmanager:name#key`. They are read once,
and again after five minutes, so that a rotated secret arrives without a deployment; and sooner, a
minute at the soonest, when a signature is wrong. What holds them may be out of reach for an hour.
"""

import json
import os
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from chalicelib import log, scorers
from chalicelib.errors import ConfigurationError, NotFoundError
from chalicelib.policy import Policy, Wording
from chalicelib.ports import (
    Adviser,
    Connector,
    Helpdesk,
    InboxContext,
    PluginSettings,
    Scorer,
    TokenCache,
)
from chalicelib.schema import Channel
from chalicelib.scorers import ScorerSettings, SecondOpinionSettings
from chalicelib.shipped import SHIPPED

if TYPE_CHECKING:  # loaded on first use, below
    from chalicelib.faq import Faq

SECRETS_MAX_AGE_SECONDS = 300
#: How soon they are read again at the soonest; and how long the last ones hold if they cannot be.
SECRETS_MIN_AGE_SECONDS, SECRETS_LAST_SECONDS = 60, 3600
CONFIG_ENVIRONMENT = "ASKONCE_CONFIG"
#: A batch of ten then waits twice instead of ten times; all ten at once would spare a tenth more,
#: and ask twice as much at once of a helpdesk or a mail server (docs/operating.md).
CONVERSATIONS_AT_ONCE = 5
#: Comma-separated names of the inboxes that this stack serves; unset or `*` serves all.
INBOXES_ENVIRONMENT = "ASKONCE_INBOXES"
_REFERENCES = ("env:", "ssm:", "secretsmanager:")
#: A name is a segment of an address: /webhooks/<name>, /replies/<name>.
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class _Plugin(BaseModel):
    """An inbox or a helpdesk before its connector's own settings are looked at."""

    model_config = ConfigDict(extra="allow", defer_build=True)
    connector: str
    helpdesk: str | None = None
    #: Where the provider's window is closed: wait for the customer, or use another channel.
    when_closed: Literal["hold", "other_channel"] = "hold"


class ContactsApi(PluginSettings):
    """[contacts_api]: your own system says over HTTP which addresses are whose."""

    #: Of Standard Webhooks: whsec_ and base64. All of them are valid; references, like any secret.
    secrets: Annotated[tuple[SecretStr, ...], Field(min_length=1)]


class FaqFile(BaseModel):
    """[faq]"""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    #: Relative to askonce.toml.
    file: str = Field(min_length=1)


class Document(BaseModel):
    """askonce.toml as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    public_url: str = Field(pattern=r"^(https?://[^\s?#]+|(env|ssm|secretsmanager):\S+)$")
    helpdesk: str
    inboxes: dict[_Name, dict[str, Any]] = {}
    helpdesks: dict[_Name, dict[str, Any]] = {}
    #: Its secrets are looked at when it is used; without it, there is no such API.
    contacts_api: dict[str, Any] | None = None
    faq: FaqFile | None = None
    scorer: ScorerSettings = ScorerSettings()
    second_opinion: SecondOpinionSettings | None = None
    #: So many conversations of a batch are worked on at once.
    conversations_at_once: Annotated[int, Field(ge=1, le=10)] = CONVERSATIONS_AT_ONCE
    policy: Policy = Policy()
    wording: Wording = Wording()


def default_path() -> Path:
    """Where the configuration lies: $ASKONCE_CONFIG, else askonce.toml beside app.py."""
    named = os.environ.get(CONFIG_ENVIRONMENT)
    return Path(named) if named else Path(__file__).resolve().parent.parent / "askonce.toml"


def read(path: Path) -> Document:
    """The configuration. ConfigurationError with one line per fault."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path.name}: there is no such file at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name}: is not valid TOML: {error}") from None
    try:
        return _with_whole_paths(Document.model_validate(document), path.resolve().parent)
    except ValidationError as error:
        lines = [f"{path.name}: {_place(e)} {_what(e)}" for e in error.errors()]
        raise ConfigurationError("\n".join(lines)) from None


def _with_whole_paths(document: Document, folder: Path) -> Document:
    """Other files are named relative to this one, wherever it is read from."""
    if document.faq is None:
        return document
    whole = FaqFile(file=str(folder / document.faq.file))
    return document.model_copy(update={"faq": whole})


def _read_thoroughly(file: str) -> "Faq":
    from chalicelib import faq

    return faq.read(Path(file), thoroughly=True)


def _place(error: Any) -> str:
    return ".".join(str(part) for part in error["loc"]) or "the file"


#: pydantic's error types in our words.
_PLAIN = {"missing": "is missing", "extra_forbidden": "is no setting that we know"}


def _what(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    return _PLAIN.get(error["type"], message[:1].lower() + message[1:])


class _UnreachedError(ConfigurationError):
    """Whatever holds the secret does not answer now: what was read before may still be right."""


class SecretReader:
    """Reads references. ConfigurationError that names the reference, never the value."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def __call__(self, reference: str) -> str:
        scheme, _, name = reference.partition(":")
        try:
            value = getattr(self, f"_{scheme}")(name)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever the service says, only its kind is shown
            from chalicelib.aws import passes

            kind = _UnreachedError if passes(error) else ConfigurationError
            raise kind(f"cannot be read from {reference}: {type(error).__name__}") from None
        if not value:
            raise ConfigurationError(f"is empty at {reference}")
        return str(value)

    def _env(self, name: str) -> str:
        if name not in self._environment:
            raise ConfigurationError(f"is missing: environment variable {name} is not set")
        return self._environment[name]

    def _ssm(self, name: str) -> str:
        from chalicelib.aws import client

        response = client("ssm").get_parameter(Name=name, WithDecryption=True)
        return str(response["Parameter"]["Value"])

    def _secretsmanager(self, name: str) -> str:
        from chalicelib.aws import client

        secret, _, key = name.partition("#")
        text = str(client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"])
        return str(json.loads(text)[key]) if key else text


def resolve_secret(value: Any, reader: Callable[[str], str]) -> Any:
    """The value with every reference in it, lists included, replaced by what it refers to."""
    if isinstance(value, str) and value.startswith(_REFERENCES):
        return reader(value)
    if isinstance(value, list):
        return [resolve_secret(v, reader) for v in value]
    return value


def _resolved(values: Mapping[str, Any], reader: Callable[[str], str]) -> dict[str, Any]:
    """Values that are passed on, with secrets in the place of references."""
    resolved: dict[str, Any] = {}
    for key, value in values.items():
        with _named(f"settings.{key}"):
            resolved[key] = resolve_secret(value, reader)
    return resolved


P = TypeVar("P", bound=PluginSettings)


def plugin_settings(model: type[P], values: Mapping[str, Any], reader: Callable[[str], str]) -> P:
    """Validated settings. ConfigurationError with one line `key fault` per fault."""
    faults: list[str] = []
    resolved: dict[str, Any] = {}
    for key, value in values.items():
        if _is_secret(model, key) and not is_reference(value):
            faults.append(
                f"{key} must be a reference: env:NAME, ssm:/path, secretsmanager:name#key"
            )
            continue
        try:
            resolved[key] = resolve_secret(value, reader)
        except _UnreachedError as error:
            raise _UnreachedError(f"{key} {error}") from None
        except ConfigurationError as error:
            faults.append(f"{key} {error}")
    try:
        settings = model.model_validate(resolved)
    except ValidationError as error:
        named = {fault.split(" ", 1)[0] for fault in faults}
        faults += [
            f"{_place(e)} {_what(e)}" for e in error.errors() if str(e["loc"][0]) not in named
        ]
        raise ConfigurationError("\n".join(faults)) from None
    if faults:
        raise ConfigurationError("\n".join(faults))
    return settings


def _is_secret(model: type[BaseModel], key: str) -> bool:
    field = model.model_fields.get(key)
    return field is not None and _mentions_secret(field.annotation)


def _mentions_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_mentions_secret(a) for a in get_args(annotation))


def is_reference(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(is_reference(v) for v in value)
    return isinstance(value, str) and value.startswith(_REFERENCES)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Every fault that is found inside says whose it is."""
    try:
        yield
    except ConfigurationError as error:
        lines = [f"{what} {line}" for line in str(error).splitlines()]
        raise type(error)("\n".join(lines)) from None


T = TypeVar("T")


@dataclass
class _Made(Generic[T]):
    """A value, when it was made, and when somebody last began to make it again."""

    value: T
    at: float
    tried_at: float


class _Fresh(Generic[T]):
    """Values made on first use, and again when they are older than secrets may be.

    One caller makes a value again; those who come meanwhile go on with the one that there is.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._made: dict[str, _Made[T]] = {}
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[str], T]) -> T:
        """ConfigurationError when it cannot be made, and the last one holds no longer."""
        held = self._made.get(name) or self._first(name, make)
        if self._clock() - held.at > SECRETS_MAX_AGE_SECONDS and self._begins(held):
            self._make_again(name, make, held)
        return held.value

    def renewed(self, name: str, make: Callable[[str], T]) -> T | None:
        """Made again now, before its time; None if that was tried a moment ago, or fails."""
        held = self._made.get(name)
        if held is None or not self._begins(held):
            return None
        try:
            held.value, held.at = make(name), held.tried_at
        except ConfigurationError:
            return None  # its time will come, and whoever comes then hears it
        return held.value

    def _first(self, name: str, make: Callable[[str], T]) -> _Made[T]:
        with self._lock:
            if name not in self._made:
                now, value = self._clock(), make(name)
                self._made[name] = _Made(value, now, now)
            return self._made[name]

    def _begins(self, held: _Made[T]) -> bool:
        """Whether it is this caller's to make it again: nobody else began to, lately."""
        with self._lock:
            now = self._clock()
            if now - held.tried_at < SECRETS_MIN_AGE_SECONDS:
                return False
            held.tried_at = now
            return True

    def _make_again(self, name: str, make: Callable[[str], T], held: _Made[T]) -> None:
        try:
            held.value, held.at = make(name), held.tried_at
        except ConfigurationError as error:
            holds = self._clock() - held.at < SECRETS_LAST_SECONDS
            if not (holds and isinstance(error, _UnreachedError)):
                del self._made[name]  # whoever comes next hears it, too
                raise
            log.event("secrets.unread", of=name, why=str(error))


class Deployment:
    """The configured inboxes and helpdesks, made on first use from what the registry offers."""

    KINDS: ClassVar[Mapping[str, str]] = {"inbox": "inboxes", "helpdesk": "helpdesks"}

    def __init__(  # what a deployment is made of, and two seams for tests
        self,
        document: Document,
        connectors: Mapping[str, Callable[[], type[Connector]]],
        helpdesks: Mapping[str, Callable[[], type[Helpdesk]]],
        tokens: TokenCache,
        reader: Callable[[str], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.document = document
        self._registry: dict[str, Mapping[str, Callable[[], type[Any]]]] = {
            "inbox": connectors,
            "helpdesk": helpdesks,
        }
        self._tokens = tokens
        self._read = reader or SecretReader()
        self._clock = clock
        self._inboxes = _Fresh[Connector](clock)
        self._helpdesks = _Fresh[Helpdesk](clock)
        self._contacts_api = _Fresh[ContactsApi](clock)
        served = os.environ.get(INBOXES_ENVIRONMENT, "*")
        self._served = None if served == "*" else {n.strip() for n in served.split(",")}

    @property
    def public_url(self) -> str:
        with _named("public_url"):
            return str(resolve_secret(self.document.public_url, self._read)).rstrip("/")

    @cached_property
    def scorer(self) -> Scorer:
        """What tells how alike questions are; its `compare` never fails.

        Where the configured one cannot be made, `faults` says so, and the shipped one stands in.
        """
        try:
            return self._make_scorer("scorer")
        except ConfigurationError as error:
            return scorers.Guarded(scorers.Missing(str(error)), clock=self._clock)

    def _make_scorer(self, name: str) -> Scorer:
        configured = self.document.scorer
        with _named(f"{name}:"):
            resolved = _resolved(configured.settings, self._read)
            return scorers.make_scorer(configured, resolved, self._clock)

    @cached_property
    def adviser(self) -> Adviser | None:
        """Who is asked for second opinions; None where nobody is."""
        configured = self.document.second_opinion
        return scorers.make_adviser(configured, self._clock) if configured else None

    @property
    def local_scorer(self) -> Scorer:
        """The shipped one, whatever is configured: for comparing with many, at no cost each."""
        return SHIPPED

    @cached_property
    def faq(self) -> "Faq":
        """The entries of the FAQ; none where none is configured. ConfigurationError."""
        from chalicelib import faq

        configured = self.document.faq
        return faq.read(Path(configured.file)) if configured else faq.Faq({})

    def contacts_api(self) -> ContactsApi:
        """NotFoundError where there is none; ConfigurationError if its secrets are wrong."""
        if self.document.contacts_api is None:
            raise NotFoundError("there is no [contacts_api]")
        return self._contacts_api.get("contacts_api", self._make_contacts_api)

    def renewed_contacts_api(self) -> ContactsApi | None:
        """The same with its secrets as they are now: as `renewed_inbox`."""
        return self._contacts_api.renewed("contacts_api", self._make_contacts_api)

    def _make_contacts_api(self, name: str) -> ContactsApi:
        with _named(f"{name}:"):
            return plugin_settings(ContactsApi, self.document.contacts_api or {}, self._read)

    def serves(self, name: str) -> bool:
        """Whether this stack takes webhooks for an inbox; any stack may send through any."""
        return name in self.document.inboxes and (self._served is None or name in self._served)

    def inbox(self, name: str) -> Connector:
        """NotFoundError, or ConfigurationError if its settings are wrong."""
        if name not in self.document.inboxes:
            raise NotFoundError(f"no inbox {name}")
        return self._inboxes.get(name, self._make_inbox)

    def renewed_inbox(self, name: str) -> Connector | None:
        """An inbox with its secrets as they are now; None if they were read a moment ago.

        For a signature that is wrong: perhaps its secret was rotated since.
        """
        return self._inboxes.renewed(name, self._make_inbox)

    def renewed_helpdesk(self, name: str) -> Helpdesk | None:
        """The same of a helpdesk."""
        return self._helpdesks.renewed(name, self._make_helpdesk)

    def kind(self, name: str) -> type[Connector] | None:
        """An inbox's class, whether its settings are right or not.

        None for an inbox that is gone from the configuration while its messages are on their way.
        """
        connector = self.document.inboxes.get(name, {}).get("connector")
        load = self._registry["inbox"].get(str(connector))
        return load() if load else None

    def kind_of_helpdesk(self, name: str) -> type[Helpdesk] | None:
        """A helpdesk's class, whether its settings are right or not; None if there is none."""
        connector = self.document.helpdesks.get(name, {}).get("connector")
        load = self._registry["helpdesk"].get(str(connector))
        return load() if load else None

    def helpdesk(self, name: str) -> Helpdesk:
        """NotFoundError, or ConfigurationError if its settings are wrong."""
        if name not in self.document.helpdesks:
            raise NotFoundError(f"no helpdesk {name}")
        return self._helpdesks.get(name, self._make_helpdesk)

    def helpdesk_of(self, inbox: str) -> str:
        """The name of the helpdesk that an inbox feeds."""
        own = self.document.inboxes.get(inbox, {}).get("helpdesk")
        return str(own or self.document.helpdesk)

    def when_closed(self, inbox: str) -> str:
        """What becomes of a reply while an inbox's window is closed: `hold` or `other_channel`."""
        return str(self.document.inboxes.get(inbox, {}).get("when_closed", "hold"))

    def first_inbox(self, channel: Channel) -> str | None:
        """The first configured inbox of a channel."""
        kinds = ((name, self.kind(name)) for name in self.document.inboxes)
        return next((name for name, kind in kinds if kind and kind.channel is channel), None)

    def faults(self) -> list[str]:
        """Every fault of every inbox and helpdesk, a line each; [] when all is well."""
        found = (
            *self._faults_of("inbox", self.document.inboxes, self._make_inbox),
            *self._faults_of("helpdesk", self.document.helpdesks, self._make_helpdesk),
            *self._faults_of("contacts_api", self._apis(), self._make_contacts_api),
            *self._faults_of("faq", self._faq_files(), _read_thoroughly),
            *self._faults_of("scorer", ["scorer"], self._make_scorer),
            *self._foreign_thresholds(),
            *self._missing_helpdesks(),
        )
        return list(dict.fromkeys(found))  # public_url is every inbox's fault

    def _faults_of(
        self, kind: str, names: Iterable[str], make: Callable[[str], object]
    ) -> Iterator[str]:
        for name in names:
            try:
                make(name)
            except ConfigurationError as error:
                yield from str(error).splitlines()

    def _faq_files(self) -> list[str]:
        return [self.document.faq.file] if self.document.faq else []

    def _apis(self) -> list[str]:
        return [] if self.document.contacts_api is None else ["contacts_api"]

    def _foreign_thresholds(self) -> Iterator[str]:
        """Thresholds of the policy hold for whichever scorer compares, and scales differ."""
        if self.document.scorer.kind == "shipped":
            return
        policy = self.document.policy
        places = {"policy.repeats": policy.repeats} | {
            f"policy.categories.{name}.repeats": own.repeats
            for name, own in policy.categories.items()
        }
        for place, own in places.items():
            for key in ("join_threshold", "answer_threshold"):
                if getattr(own, key) is not None:
                    yield (
                        f"{place}.{key} would hold for the shipped scorer, too, when it stands "
                        f"in: set {key} under [scorer]"
                    )

    def _missing_helpdesks(self) -> Iterator[str]:
        wanted = {"": self.document.helpdesk} | {
            name: str(values["helpdesk"])
            for name, values in self.document.inboxes.items()
            if values.get("helpdesk")
        }
        for inbox, helpdesk in wanted.items():
            if helpdesk not in self.document.helpdesks:
                place = f'inbox "{inbox}": helpdesk' if inbox else "helpdesk"
                yield f'{place} "{helpdesk}" is not under [helpdesks]'

    def _make_inbox(self, name: str) -> Connector:
        kind, settings = self._plugin("inbox", name)
        context = InboxContext(
            name=name, public_url=f"{self.public_url}/webhooks/{name}", tokens=self._tokens
        )
        with _named(f'inbox "{name}":'):
            connector: Connector = kind(settings, context)
        return connector

    def _make_helpdesk(self, name: str) -> Helpdesk:
        kind, settings = self._plugin("helpdesk", name)
        with _named(f'helpdesk "{name}":'):
            helpdesk: Helpdesk = kind(settings, name)
        return helpdesk

    def _plugin(self, kind: str, name: str) -> tuple[type[Any], PluginSettings]:
        """The class and the settings of one configured inbox or helpdesk."""
        values = getattr(self.document, self.KINDS[kind])[name]
        label = f'{kind} "{name}"'
        try:
            plugin = _Plugin.model_validate(values)
        except ValidationError as error:
            lines = [f"{label}: {_place(e)} {_what(e)}" for e in error.errors()]
            raise ConfigurationError("\n".join(lines)) from None
        registry = self._registry[kind]
        if plugin.connector not in registry:
            known = ", ".join(sorted(registry))
            raise ConfigurationError(
                f'{label}: connector "{plugin.connector}" is unknown; there are {known}'
            )
        made = registry[plugin.connector]()
        own = {k: v for k, v in values.items() if k not in _Plugin.model_fields}
        with _named(f"{label}:"):
            return made, plugin_settings(made.settings_model, own, self._read)
