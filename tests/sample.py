"""One more sample of a connector: a body as its provider documents it, signed as it signs.

    python -m tests.sample CONNECTOR NAME SOURCE < body.json
    python -m tests.sample helpdesks/HELPDESK NAME SOURCE < body.json

SOURCE is the page, or the capture, that the body comes from. The settings are those of the
connector's inbox in examples/every-provider.toml, with secrets made up; of a helpdesk those of
tests/desks/. What is read in the body is written down as what is expected: from then on tests hold
the connector to that.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from chalicelib import settings
from chalicelib.errors import WebhookError
from chalicelib.ports import WebhookRequest
from chalicelib.settings import is_reference
from connectors.registry import CONNECTORS, HELPDESKS
from infra.local.outside import declared
from infra.local.simulators import Sent
from tests import recorded
from tests.make_samples import NOW, SITE, written

EXAMPLE = Path(__file__).parents[1] / "examples" / "every-provider.toml"
#: Of our own making, and the same in every message of an inbox.
_OURS = {"id", "direction", "channel", "connector", "inbox", "received_at"}


#: Reads a verified request.
Read = Callable[[WebhookRequest], Sequence[BaseModel]]


def of_connector(name: str, about: str, source: str, body: bytes) -> dict[str, Any]:
    """The content of a sample's file. SignatureError, PayloadError."""
    held, sign = _settings(name), declared("SIGNED").get(name)
    if sign is None:
        sys.exit(f"no module of infra/local/providers has {name} in its SIGNED")
    settings_of_it = CONNECTORS[name]().settings_model.model_validate(held)
    sent: Sent = sign(settings_of_it, body, inbox="inbox", at=NOW)
    url = f"{SITE}/webhooks/inbox"
    connector = recorded.connector(name, held, url)

    def read(request: WebhookRequest) -> Sequence[BaseModel]:
        connector.verify(request)
        return connector.parse(request)

    return _content(about, source, held, sent, url, read)


def of_helpdesk(name: str, about: str, source: str, body: bytes) -> dict[str, Any]:
    """The same of a helpdesk."""
    played = import_module(f"tests.desks.{name}")
    sent: Sent = played.signed(body, at=NOW)
    desk = recorded.helpdesk(name, played.SETTINGS)

    def read(request: WebhookRequest) -> Sequence[BaseModel]:
        desk.verify(request)
        return desk.parse(request)

    return _content(about, source, played.SETTINGS, sent, f"{SITE}/replies/desk", read)


def _content(  # a sample has that many parts
    about: str, source: str, held: Mapping[str, Any], sent: Sent, url: str, read: Read
) -> dict[str, Any]:
    request: dict[str, Any] = {"method": sent.method, "headers": sent.headers, "query": sent.query}
    if secret := recorded.path_secret(sent.path):
        request["path_secret"] = secret
    request["body"] = sent.body.decode("utf-8")
    said = read(recorded.request_of(request, NOW))
    return {
        "about": about,
        "source": source,
        "settings": dict(held),
        "now": NOW,
        "public_url": url,
        "request": request,
        "expected": [
            each.model_dump(mode="json", exclude_unset=True, exclude=_OURS) for each in said
        ],
    }


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


def main(place: str, case: str, source: str) -> None:
    folder, _, name = place.rpartition("/")
    known, make = (HELPDESKS, of_helpdesk) if folder else (CONNECTORS, of_connector)
    if name not in known:
        sys.exit(f"there is no {folder or 'connectors/channels'}/{name}.py")
    try:
        found = make(name, case.replace("_", " "), source, sys.stdin.buffer.read().strip())
    except WebhookError as error:
        sys.exit(f"{name}: {type(error).__name__}: {error}")
    path = recorded.SAMPLES / place / f"{case}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written(found), encoding="utf-8")
    print(json.dumps(found["expected"], ensure_ascii=False, indent=1))  # noqa: T201  # for whoever compares


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m tests.sample CONNECTOR NAME SOURCE < body")
    main(*sys.argv[1:])
