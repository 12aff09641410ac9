"""The requests under tests/samples as objects: settings, request, and what they must give."""

import base64
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from chalicelib.errors import SignatureError
from chalicelib.ports import Connector, Helpdesk, InboxContext, TokenCache, WebhookRequest
from chalicelib.schema import Direction, Message, message_id
from connectors import wechat_wire
from connectors.registry import CONNECTORS, HELPDESKS
from infra.local.simulators import Sent
from tests.sns_signing import know_certificate

SAMPLES = Path(__file__).parent / "samples"
SHARED = Path(__file__).parents[2] / "shared" / "data"

know_certificate()


class OneToken:
    """A cache that always holds the same access token."""

    def get(self, name: str, fetch: Any, *, stale: str = "") -> str:
        return "the-access-token"


#: Among what proves a request: the secret that ends its address.
PATH = "path_secret"
#: Beside a provider's samples.
FACTS = "provider.toml"


class Heard(BaseModel):
    """What a provider wants to hear; `<id>` stands for our message's id."""

    model_config = ConfigDict(extra="forbid")
    status: int = 200
    type: str = "text/plain"
    body: str = ""


class Facts(BaseModel):
    """What a provider does that its samples do not show: `provider.toml` beside them."""

    model_config = ConfigDict(extra="forbid")
    #: What carries a request's proof: headers, `?parameters`, `path_secret`.
    proof: list[str]
    #: How long before and after its time a request is good (0: as long as you like); empty where
    #: nothing in it says when it was made.
    good_seconds: list[int]
    #: The setting that takes two values while one replaces the other.
    rotated: str = ""
    #: Where nothing signs the body: what proves the sender then.
    unsigned_body: str = ""
    #: A changed body may have lost its proof.
    proof_in_body: bool = False
    heard: Heard = Heard()
    #: After a request that could not be read, if that is something else.
    heard_if_unreadable: Heard | None = None


@dataclass(frozen=True)
class Sample:
    """One file; its folder names the connector or the helpdesk."""

    path: Path

    def __str__(self) -> str:
        return f"{self.plugin}/{self.path.stem}"

    @property
    def plugin(self) -> str:
        return self.path.parent.name

    @cached_property
    def content(self) -> dict[str, Any]:
        return json.loads(self.path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]  # JSON

    @property
    def facts(self) -> "Facts":
        """What is known of its provider, in the way in which it is set up here."""
        told = tomllib.loads((self.path.parent / FACTS).read_text(encoding="utf-8"))
        modes = told.pop("mode", {})
        return Facts.model_validate(told | modes.get(self.settings.get("mode"), {}))

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.content["settings"])

    @property
    def expected(self) -> list[Any]:
        return list(self.content["expected"])

    @property
    def says(self) -> bool:
        """Whether it gives messages: receipts and notices are none."""
        return any(not {"state", "token"} & set(one) for one in self.expected)

    @property
    def request(self) -> WebhookRequest:
        return request_of(self.content["request"], self.content["now"])

    def connector(
        self, more: Mapping[str, Any] | None = None, tokens: TokenCache | None = None
    ) -> Connector:
        """The connector, with other values of some settings."""
        settings = self.settings | dict(more or {})
        return connector(self.plugin, settings, self.content["public_url"], tokens)

    def helpdesk(self, more: Mapping[str, Any] | None = None) -> Helpdesk:
        """The helpdesk, with other values of some settings."""
        return helpdesk(self.plugin, self.settings | dict(more or {}))


def messages_in(connector: Connector, request: WebhookRequest) -> list[Message]:
    """The messages of a request, without receipts and notices. PayloadError."""
    return [item for item in connector.parse(request) if isinstance(item, Message)]


def heard_by(connector: Connector, request: WebhookRequest) -> str | None:
    """What an accepted request hears, '' where that is for later; None if it is refused."""
    try:
        if probe := connector.handshake(request):
            return probe.body
        connector.verify(request)
    except SignatureError:
        return None
    return ""


def connector(
    name: str, settings: Mapping[str, Any], public_url: str, tokens: TokenCache | None = None
) -> Connector:
    """A connector of the registry; its inbox is called `inbox`."""
    kind = CONNECTORS[name]()
    context = InboxContext(name="inbox", public_url=public_url, tokens=tokens or OneToken())
    return kind(kind.settings_model.model_validate(settings), context)


def helpdesk(name: str, settings: Mapping[str, Any]) -> Helpdesk:
    """A helpdesk of the registry, configured as `desk`."""
    kind = HELPDESKS[name]()
    return kind(kind.settings_model.model_validate(settings), "desk")


def mode(sample: Sample) -> str:
    """A connector, and the way in which it is set up where that changes what it reads."""
    return f"{sample.plugin} {sample.settings.get('mode', '')}".strip()


def one_of_each() -> list[Sample]:
    """A sample for every connector and mode, one that gives a message."""
    return list({mode(sample): sample for sample in samples() if sample.says}.values())


def samples(*, of: str | None = None) -> list[Sample]:
    """Every connector's samples, or those of one."""
    return list(_samples(SAMPLES, [of] if of else CONNECTORS))


def desk_samples() -> list[Sample]:
    """Every helpdesk's samples."""
    return list(_samples(SAMPLES / "helpdesks", HELPDESKS))


def _samples(folder: Path, names: Any) -> Iterator[Sample]:
    for name in names:
        yield from (Sample(path) for path in sorted((folder / name).glob("*.json")))


def request_of(parts: Mapping[str, Any], now: float) -> WebhookRequest:
    """A request as the samples' files hold it: one value a header and parameter."""
    encoded = parts.get("body_base64")
    return WebhookRequest(
        method=parts["method"],
        headers={name.lower(): (value,) for name, value in parts["headers"].items()},
        query=tuple(parts["query"].items()),
        body=base64.b64decode(encoded) if encoded else parts.get("body", "").encode(),
        received_at=datetime.fromtimestamp(now, UTC),
        path_secret=parts.get("path_secret", ""),
    )


def path_secret(path: str) -> str:
    """What follows the inbox in the address of a webhook."""
    return "/".join(path.split("/")[3:]) if path.startswith("/webhooks/") else ""


def arrived(sent: Sent, now: float) -> WebhookRequest:
    """What a simulator sends, as it comes in."""
    parts = {"method": sent.method, "headers": sent.headers, "query": sent.query}
    secret = path_secret(sent.path)
    return replace(request_of(parts, now), body=sent.body, path_secret=secret)


def later(request: WebhookRequest, seconds: float) -> WebhookRequest:
    """The same request, looked at at another time."""
    return replace(request, received_at=request.received_at + timedelta(seconds=seconds))


def with_header(request: WebhookRequest, name: str, *values: str) -> WebhookRequest:
    """The request with other values of one header; none removes it."""
    return replace(request, headers={**request.headers, name: values})


def with_param(request: WebhookRequest, name: str, *values: str) -> WebhookRequest:
    """The request with other values of one query parameter; none removes it."""
    others = [(k, v) for k, v in request.query if k != name]
    return replace(request, query=(*others, *((name, v) for v in values)))


def answer_to(message: Message, text: str = "It leaves tomorrow.", **more: Any) -> Message:
    """What an agent answers to an inbound message."""
    fields: dict[str, Any] = {
        "id": message_id("desk", "q1", "reply-1"),
        "direction": Direction.OUTBOUND,
        "channel": message.channel,
        "connector": message.connector,
        "inbox": message.inbox,
        "external_id": "reply-1",
        "address": message.address,
        "account": message.account,
        "author": "Kim",
        "kind": "text",
        "text": text,
        "subject": f"Re: {message.subject}" if message.subject else "",
        "references": (message.external_id,),
        "sent_at": message.received_at,
        "received_at": message.received_at,
    }
    return Message(**(fields | more))


def like(wanted: Any, found: Any) -> Any:
    """`found`, cut down to what `wanted` states, to be compared with it."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return {key: like(value, found.get(key)) for key, value in wanted.items()}
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [like(w, f) for w, f in zip(wanted, found, strict=True)]
    return found


def enveloped(sample: Sample, body: bytes) -> bytes | None:
    """The body in one of Tencent's envelopes, as the sample's own is; None where it has no key."""
    settings = sample.settings
    if "encoding_aes_key" not in settings:
        return None
    key = wechat_wire.aes_key(settings["encoding_aes_key"])
    receiver = settings.get("app_id") or settings["corp_id"]
    return wechat_wire.document({"Encrypt": wechat_wire.encrypt(body, key, receiver)}).encode()


def forged(sample: Sample, forge: Callable[[str], tuple[str, ...]]) -> list[WebhookRequest]:
    """The sample's request, once for each part of its proof, with that part forged."""
    return [_forged(sample.request, part, forge) for part in sample.facts.proof]


def _forged(
    request: WebhookRequest, part: str, forge: Callable[[str], tuple[str, ...]]
) -> WebhookRequest:
    if part == PATH:
        return replace(request, path_secret="/".join(forge(request.path_secret)))
    if part.startswith("?"):
        return with_param(request, part[1:], *forge(request.param(part[1:])))
    return with_header(request, part, *forge(request.header(part)))
