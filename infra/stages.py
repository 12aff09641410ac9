"""The stages of .chalice/config.json: each is one stack, with these parts, for these inboxes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chalicelib.errors import ConfigurationError
from chalicelib.settings import INBOXES_ENVIRONMENT, Document

CONFIG = Path(".chalice") / "config.json"
PARTS_ENVIRONMENT = "ASKONCE_PARTS"
PARTS = ("core", "edge")
API_ENVIRONMENT = "ASKONCE_API"
APIS = ("rest", "http")
ARCHITECTURES = ("x86_64", "arm64")


@dataclass(frozen=True)
class Stage:
    """A stage as the file has it."""

    name: str
    environment: Mapping[str, str]
    architecture: str = ARCHITECTURES[0]

    @property
    def parts(self) -> list[str]:
        """ConfigurationError for one that there is not."""
        parts = self.environment.get(PARTS_ENVIRONMENT, " ".join(PARTS)).split()
        for part in parts:
            if part not in PARTS:
                raise ConfigurationError(
                    f"stage {self.name}: its {PARTS_ENVIRONMENT} names {part}: "
                    "it is core, edge, or both"
                )
        return parts

    @property
    def api(self) -> str:
        """The kind of API that its edge has. ConfigurationError for one that there is not."""
        api = self.environment.get(API_ENVIRONMENT, APIS[0])
        if api not in APIS:
            raise ConfigurationError(
                f"stage {self.name}: its {API_ENVIRONMENT} is {api}: it is {' or '.join(APIS)}"
            )
        return api

    def __str__(self) -> str:
        """What it is. ConfigurationError as above."""
        return " and ".join(
            f"edge ({self.api.upper()} API)" if part == "edge" else part for part in self.parts
        )

    def inboxes(self, document: Document) -> list[str]:
        """The inboxes that it takes webhooks for. ConfigurationError for one that is not there."""
        names = self.named(document)
        for name in names:
            if name not in document.inboxes:
                raise ConfigurationError(
                    f"stage {self.name}: its {INBOXES_ENVIRONMENT} names {name}, which is no inbox "
                    f"of askonce.toml: it has {', '.join(document.inboxes)}"
                )
        return names

    def named(self, document: Document) -> list[str]:
        """The inboxes that it names, be they there or not."""
        wanted = self.environment.get(INBOXES_ENVIRONMENT, "*")
        return [*document.inboxes] if wanted == "*" else [n.strip() for n in wanted.split(",")]


def unserved(configured: Sequence[Stage], document: Document) -> str:
    """A line that names the inboxes whose webhooks no stage takes; '' if there is none.

    A stage that is both core and edge is a deployment of its own, and no edge of another core.
    """
    edges = [one for one in configured if one.parts == ["edge"]]
    edges = edges or [one for one in configured if "edge" in one.parts]
    named = {name for one in edges for name in one.named(document)}
    left = [name for name in document.inboxes if name not in named]
    if not left:
        return ""
    mend = f"name it in {INBOXES_ENVIRONMENT} of {' or '.join(one.name for one in edges)}"
    return (
        f"no edge takes the webhooks of {', '.join(left)}: "
        f"{mend if edges else 'there is no stage with an edge'} in {CONFIG}"
    )


def read(config: Path, names: Sequence[str] = ()) -> list[Stage]:
    """Those of these names; all, if none is given. ConfigurationError for one that is not there."""
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{config} cannot be read: {type(error).__name__}") from None
    known, shared = told.get("stages", {}), told.get("environment_variables", {})
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"there is no stage {name} in {config}: it has {', '.join(known)}"
            )
    return [
        Stage(
            name,
            shared | own.get("environment_variables", {}),
            own.get("lambda_architecture", told.get("lambda_architecture", ARCHITECTURES[0])),
        )
        for name, own in known.items()
        if name in names or not names
    ]
