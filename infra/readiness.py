"""`askonce check --stage`: whether a stage of .chalice/config.json can go live, and what is to do.

Looks at everything and changes nothing. Secrets are read, to see that they can be, and not shown.
"""

import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from chalicelib.errors import ConfigurationError, NotFoundError
from chalicelib.ports import Connector, Helpdesk, HostedConnector
from chalicelib.settings import Deployment, Document, SecretReader, is_reference
from connectors.registry import CONNECTORS, HELPDESKS
from infra import consoles
from infra.deployment import bucket_of, in_words
from infra.local.localise import NoTokens
from infra.operating import DEAD_LETTERS
from infra.stages import Stage

#: What the stack of a core has, by the names of infra/resources.yaml.
QUEUES = ("-forward.fifo", "-deliver.fifo", *DEAD_LETTERS.values())
_PATIENCE_SECONDS = 3.0
_PORTS = {"https": 443, "http": 80, "smtp": 587, "smtps": 465}
_SEALED = ("https", "smtps")
#: Which secrets the functions may read: .chalice/policy-*.json.
_READABLE = {"ssm": "/{prefix}/", "secretsmanager": "{prefix}/"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    #: Why it is not as it must be; None if it is.
    fault: str | None = None
    #: What only whoever deployed it can tell whether it is right.
    look: str | None = None

    def __str__(self) -> str:
        if self.fault:
            return f"FAULT  {self.what}: {self.fault}"
        return f"look   {self.what}: {self.look}" if self.look else f"ok     {self.what}"


@dataclass
class Readiness:
    """What is looked at for one stage."""

    stage: Stage
    document: Document
    prefix: str
    #: Where its API is; None: where public_url says.
    api: str | None = None
    read: Callable[[str], str] | None = None
    _known: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # As the functions have it: what only this shell knows does not help them.
        self._reader = self.read or SecretReader(self.stage.environment)

    @property
    def deployment(self) -> Deployment:
        return Deployment(self.document, CONNECTORS, HELPDESKS, NoTokens(), self._once)

    def _once(self, reference: str) -> str:
        """A reference's value, read once, whatever it is."""
        if reference not in self._known:
            try:
                self._known[reference] = self._reader(reference)
            except ConfigurationError as error:
                self._known[reference] = error
        found = self._known[reference]
        if isinstance(found, ConfigurationError):
            raise found
        return str(found)

    def findings(self) -> Iterator[Finding]:
        """Everything, a finding each."""
        yield from self._secrets()
        yield from self._settings()
        yield from self._network()
        yield from self._resources()
        if "edge" in self.stage.parts:
            yield from self._address()

    # Settings and secrets

    def _settings(self) -> Iterator[Finding]:
        unread = [str(e) for e in self._known.values() if isinstance(e, ConfigurationError)]
        found = self.deployment.faults()
        faults = [f for f in found if not any(why in f for why in unread)]
        yield from (Finding("setting", fault) for fault in faults)
        if not found:
            inboxes, helpdesks = len(self.document.inboxes), len(self.document.helpdesks)
            yield Finding(f"settings: {inboxes} inboxes, {helpdesks} helpdesks")

    def _secrets(self) -> Iterator[Finding]:
        for reference in sorted(set(_references(vars(self.document)))):
            yield Finding(f"secret {reference}", self._fault_of(reference))

    def _fault_of(self, reference: str) -> str | None:
        scheme, _, name = reference.partition(":")
        place = _READABLE.get(scheme, "").format(prefix=self.prefix)
        if not name.startswith(place):
            return f"the functions may read {scheme}:{place}... only"
        try:
            self._once(reference)
        except ConfigurationError as error:
            return str(error)
        return None

    # What is called

    def _network(self) -> Iterator[Finding]:
        called: dict[str, list[str]] = {}
        for name, plugin in self._plugins():
            for endpoint in plugin.endpoints():
                called.setdefault(place_of(endpoint), []).append(name)
        for place, names in called.items():
            yield Finding(f"{place.partition(' ')[0]} answers ({', '.join(names)})", reach(place))

    def _plugins(self) -> Iterator[tuple[str, Connector | Helpdesk]]:
        """Those whose settings are right: the others have their faults already."""
        made, document = self.deployment, self.document
        for label, names, make in (
            ("inbox", document.inboxes, made.inbox),
            ("helpdesk", document.helpdesks, made.helpdesk),
        ):
            for name in names:
                try:
                    yield f"{label} {name}", make(name)
                except (ConfigurationError, NotFoundError):
                    continue

    # What must be there

    def _resources(self) -> Iterator[Finding]:
        found = _asked(
            "AWS", "dynamodb", lambda _: bucket_of(self.prefix)
        )  # which knows no region, too
        yield found
        if found.fault:
            return
        table = f"table {self.prefix}"
        yield _asked(table, "dynamodb", lambda c: c.describe_table(TableName=self.prefix))
        for suffix in QUEUES:
            name = self.prefix + suffix
            yield _asked(f"queue {name}", "sqs", _queue(name))
        bucket = bucket_of(self.prefix)
        yield _asked(f"bucket {bucket}", "s3", lambda c: c.head_bucket(Bucket=bucket))

    # Where it is reached

    def _address(self) -> Iterator[Finding]:
        try:
            told = self.deployment.public_url
        except ConfigurationError:
            return  # it has its fault
        if self.api and told != self.api.rstrip("/"):
            yield Finding(
                "public_url",
                look=f"is {told}, and the API is at {self.api}: providers that sign their address "
                "are refused unless the first is where they call, and leads there",
            )

    def addresses(self) -> Iterator[str]:
        """What to enter where, line by line."""
        if "edge" not in self.stage.parts:
            return
        base = self._base()
        for name in self.stage.inboxes(self.document):
            yield from self._inbox(name, base)
        for name in self.document.helpdesks:
            yield from self._helpdesk(name, base)

    def _base(self) -> str:
        if self.api:
            return self.api.rstrip("/")
        try:
            return self.deployment.public_url
        except ConfigurationError:
            return "https://<your API>"

    def _inbox(self, name: str, base: str) -> Iterator[str]:
        values, kind = self.document.inboxes[name], self.deployment.kind(name)
        connector = str(values.get("connector"))
        url = f"{base}/webhooks/{name}" + _ending(values, secret=bool(kind and kind.secret_in_path))
        if kind and issubclass(kind, HostedConnector):
            url = f"{base}/webchat/{name}/widget.js"
        own = {key: str(value) for key, value in _defaults(kind, values).items()}
        yield f"inbox {name} ({connector}): {url}"
        told = own | {"url": url, "widget": url}
        for n, step in enumerate(consoles.steps(connector, told), 1):
            yield f"  {n}. {step}"

    def _helpdesk(self, name: str, base: str) -> Iterator[str]:
        values, kind = self.document.helpdesks[name], self.deployment.kind_of_helpdesk(name)
        ending = _ending(values, secret=bool(kind and kind.secret_in_path))
        connector = str(values.get("connector"))
        yield f"helpdesk {name} ({connector}): {base}/replies/{name}{ending}"
        yield f"  1. docs/helpdesks/{connector}.md says what to set up there"


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, str) and is_reference(node):
        yield node
    elif isinstance(node, Mapping):
        yield from (found for value in node.values() for found in _references(value))
    elif isinstance(node, list | tuple):
        yield from (found for value in node for found in _references(value))
    elif isinstance(node, BaseModel):
        yield from _references(vars(node))


def _ending(values: Mapping[str, Any], *, secret: bool) -> str:
    """Where the address ends in a secret: what to put there, never the value."""
    reference = values.get("path_secret")
    if not secret or not reference:
        return ""
    first = reference[0] if isinstance(reference, list) else reference
    return f"/<value of {first}>"


def _defaults(kind: type[Connector] | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """What an inbox says, and what holds where it is silent; no reference."""
    fields = kind.settings_model.model_fields if kind else {}
    silent = {name: f.default for name, f in fields.items() if isinstance(f.default, str)}
    return {k: v for k, v in (silent | dict(values)).items() if not set(_references(v))}


def _queue(name: str) -> Callable[[Any], object]:
    return lambda sqs: sqs.get_queue_url(QueueName=name)


def _asked(what: str, service: str, ask: Callable[[Any], object]) -> Finding:
    """Whether AWS has it, and lets us know."""
    from chalicelib.aws import client

    try:
        ask(client(service))
    except Exception as error:
        words = in_words(error)
        if words is None:
            raise
        return Finding(what, words)
    return Finding(what)


# Reaching


def place_of(endpoint: str) -> str:
    """`host:port`, and `tls` where the line is sealed; no name, password or path."""
    parts = urlsplit(endpoint)
    sealed = " tls" if parts.scheme in _SEALED else ""
    return f"{parts.hostname}:{parts.port or _PORTS.get(parts.scheme, 443)}{sealed}"


def reach(place: str) -> str | None:
    """Open a connection as our own calls do, say nothing, close it; why that failed, or None."""
    address, _, sealed = place.partition(" ")
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _PATIENCE_SECONDS) as line:
            if sealed:
                with ssl.create_default_context().wrap_socket(line, server_hostname=host):
                    pass
    except ssl.SSLError as error:
        return f"its certificate is not trusted, or it speaks no TLS ({error.reason})"
    except TimeoutError:
        return f"does not answer within {_PATIENCE_SECONDS:.0f} s"
    except socket.gaierror:
        return "its name is not known"
    except OSError as error:
        return f"cannot be reached: {error.strerror or type(error).__name__}"
    return None


# The API's address


def api_of(stack: str) -> str:
    """Where a stack's API is, by its output EndpointURL. ConfigurationError."""
    from chalicelib.aws import client

    try:
        described = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except Exception as error:
        if getattr(error, "response", {}).get("Error", {}).get("Code") != "ValidationError":
            raise
        raise ConfigurationError(
            f"there is no stack {stack} here: is its name right, and the region "
            "(AWS_DEFAULT_REGION)?"
        ) from None
    outputs: Iterable[Any] = described[0].get("Outputs", ())
    found = [o["OutputValue"] for o in outputs if o["OutputKey"] == "EndpointURL"]
    if not found:
        raise ConfigurationError(f"stack {stack} has no API: name one of the edge, or --api-url")
    return str(found[0]).rstrip("/")


def prefix_of(given: str | None) -> str:
    """Of the deployment that the stage is deployed with; `askonce` is the template's default."""
    return given or os.environ.get("ASKONCE_PREFIX") or "askonce"
