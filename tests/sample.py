"""One more sample of a connector: a body as its provider documents it, signed as it signs.

    python -m tests.sample CONNECTOR NAME SOURCE < body.json

SOURCE is the page, or the capture, that the body comes from. The settings are those of the
connector's inbox in examples/every-provider.toml, with secrets made up. What the connector reads in
the body is written down as what is expected: from then on tests hold it to that.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from chalicelib import settings
from chalicelib.errors import WebhookError
from chalicelib.ports import Connector, WebhookRequest
from chalicelib.settings import is_reference
from connectors.registry import CONNECTORS
from infra.local.outside import declared
from infra.local.simulators import Sent
from tests import recorded
from tests.make_samples import NOW, SITE, written

EXAMPLE = Path(__file__).parents[1] / "examples" / "every-provider.toml"
#: Of our own making, and the same in every message of an inbox.
_OURS = {"id", "direction", "channel", "connector", "inbox", "received_at"}


def sample(name: str, about: str, source: str, body: bytes) -> dict[str, Any]:
    """The content of a sample's file. ConfigurationError, SignatureError, PayloadError."""
    kind, held = CONNECTORS[name](), _settings(name)
    sent: Sent = declared("SIGNED")[name](
        kind.settings_model.model_validate(held), body, inbox="inbox", at=NOW
    )
    secret = recorded.path_secret(sent.path)
    request = {"method": sent.method, "headers": sent.headers, "query": sent.query}
    request |= {"path_secret": secret} if secret else {}
    found: dict[str, Any] = {
        "about": about,
        "source": source,
        "settings": held,
        "now": NOW,
        "public_url": f"{SITE}/webhooks/inbox",
        "request": request | {"body": sent.body.decode("utf-8")},
    }
    connector = recorded.connector(name, held, found["public_url"])
    read = _read(connector, recorded.request_of(found["request"], NOW))
    return found | {"expected": list(read)}


def _settings(name: str) -> dict[str, Any]:
    """Those of the connector's first inbox in the example."""
    inboxes = settings.read(EXAMPLE).inboxes.values()
    own = next((inbox for inbox in inboxes if inbox["connector"] == name), None)
    if own is None:
        sys.exit(f"{EXAMPLE.name} has no inbox of {name}: give it one, with all its settings")
    fields = CONNECTORS[name]().settings_model.model_fields
    return {key: _made_up(key, value) for key, value in own.items() if key in fields}


def _made_up(key: str, value: Any) -> Any:
    """In the place of a secret, or of the first of several, something that looks made up."""
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    return f"made-up-{key.replace('_', '-')}" if is_reference(first) else value


def _read(connector: Connector, request: WebhookRequest) -> Iterable[Mapping[str, Any]]:
    connector.verify(request)
    for item in connector.parse(request):
        yield item.model_dump(mode="json", exclude_defaults=True, exclude=_OURS)


def main(name: str, case: str, source: str) -> None:
    for known, what in ((CONNECTORS, "connectors/channels"), (declared("SIGNED"), "SIGNED")):
        if name not in known:
            sys.exit(f"{name} is not in {what}: see docs/adding-a-connector.md")
    try:
        found = sample(name, case.replace("_", " "), source, sys.stdin.buffer.read().strip())
    except WebhookError as error:
        sys.exit(f"{name}: {type(error).__name__}: {error}")
    path = recorded.SAMPLES / name / f"{case}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(written(found), encoding="utf-8")
    print(json.dumps(found["expected"], ensure_ascii=False, indent=1))  # noqa: T201  # for whoever compares


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m tests.sample CONNECTOR NAME SOURCE < body")
    main(*sys.argv[1:])
