"""What goes on AWS: `askonce package`, or `python -m infra.package`.

One zip, and a template beside it for every stage of .chalice/config.json: a stage is a stack. The
core's has table, queues, bucket and workers; those of the edge have an API for the inboxes they
name; one may have both. Chalice packs only app.py, chalicelib/ and vendor/, so the project is
staged in build/stage with connectors/ and askonce.toml under vendor/.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from chalicelib import settings
from chalicelib.bedrock import plain_name
from chalicelib.errors import ConfigurationError
from infra import artefact, http_api, stages, template
from infra.stages import Stage

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "out"
DESCRIBED = ROOT / stages.CONFIG
#: Otherwise Python's caches end in the zip, and change its hash from run to run.
ENVIRONMENT = {"AWS_DEFAULT_REGION": "us-east-1", "PYTHONDONTWRITEBYTECODE": "1"}
#: Part of a deployment -> what infra/ says of it. Every stack is told where the rest is.
PARTS = {
    "core": (
        "resources.yaml",
        "overrides.yaml",
        "security.yaml",
        "ses.yaml",
        "network.yaml",
        "capacity.yaml",
        "watching.yaml",
    ),
    "edge": ("edge.yaml", "edge_watching.yaml"),
}
#: The same of the kinds of API that an edge may have.
APIS = {"rest": ("edge_rest.yaml",), "http": ("edge_http.yaml",)}
SHARED = ("shared.yaml",)

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Asked:
    """What to package."""

    stages: Sequence[str]
    out: Path = OUT
    config: Path = ROOT / "askonce.toml"
    #: In place of what is described.
    architecture: str | None = None
    #: Where the zip will lie, s3://bucket/key; beside the template if None.
    code: str | None = None
    #: Where the stages are described.
    described: Path = DESCRIBED

    @property
    def staged(self) -> Path:
        """What Chalice packs, laid out as it wants it."""
        return self.out.resolve().parent / "stage"


def package(asked: Asked, say: Say = click.echo) -> list[str]:
    """The zip and the templates are in `out`; what is wrong with them, a line each.

    ConfigurationError for a stage or a setting that cannot be packaged.
    """
    configured = stages_of(asked)
    demand_good_settings(asked.config)
    for one in configured:
        one.inboxes(settings.read(asked.config))
        said_of(one)
    if left := stages.unserved(stages.read(ROOT / stages.CONFIG), settings.read(asked.config)):
        say(left)
    stage(asked)
    asked.out.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    for architecture in sorted({one.architecture for one in configured}):
        theirs = [one for one in configured if one.architecture == architecture]
        found += _package_for(architecture, theirs, asked, say)
    return found


def _package_for(
    architecture: str, configured: Iterable[Stage], asked: Asked, say: Say
) -> Iterator[str]:
    """One zip, and its stages' templates; what is wrong with them."""
    zip_ = asked.out / f"askonce-{architecture}.zip"
    packed: bytes | None = None
    for one in configured:
        name = one.name
        with tempfile.TemporaryDirectory() as temporary:
            made = Path(temporary)
            whole = by_chalice(asked.staged, one, made)
            content = (made / "deployment.zip").read_bytes()
            if packed is None:
                artefact.finish(made / "deployment.zip", zip_)
                say(f"{zip_}: {zip_.stat().st_size / 1e6:.1f} MB")
                yield from artefact.faults(zip_, _ours(asked.config), architecture)
        packed = packed or content
        if content != packed:
            yield f"{name}: Chalice packed something else than for the stages before"
        for function in template.functions(whole).values():
            function["CodeUri"] = asked.code or f"./{zip_.name}"
        template.write(whole, asked.out / f"{name}.yaml")
        say(f"{asked.out / name}.yaml: {one}")
        yield from (f"{name}: {fault}" for fault in template.faults(whole))


# Stages


def stages_of(asked: Asked) -> list[Stage]:
    """Those to package. ConfigurationError for one that is not there."""
    found = stages.read(asked.described, asked.stages)
    if asked.architecture is None:
        return found
    return [replace(one, architecture=asked.architecture) for one in found]


def demand_good_settings(config: Path) -> None:
    """ConfigurationError with a line for each fault; secrets are not read."""
    from infra.local.localise import faults_of_shape

    if found := faults_of_shape(settings.read(config)):
        raise ConfigurationError("\n".join(f"{config.name}: {fault}" for fault in found))


# Staging


def stage(asked: Asked) -> None:
    """A fresh copy of what goes on AWS, laid out as Chalice wants it."""
    staged = asked.staged
    no_caches = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    shutil.copy(ROOT / "app.py", staged)
    shutil.copytree(ROOT / "chalicelib", staged / "chalicelib", ignore=no_caches)
    shutil.copytree(ROOT / "connectors", staged / "vendor" / "connectors", ignore=no_caches)
    shutil.copy(asked.config, staged / "vendor" / "askonce.toml")
    if name := faq_file(asked.config):
        (staged / "vendor" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(asked.config.parent / name, staged / "vendor" / name)
    shutil.copytree(
        ROOT / ".chalice", staged / ".chalice", ignore=shutil.ignore_patterns("deploy*")
    )
    _complete(staged / stages.CONFIG, asked)
    allow_models(staged / ".chalice", settings.read(asked.config))
    shutil.copy(ROOT / "requirements.txt", staged)


def _complete(path: Path, asked: Asked) -> None:
    """What all stages have in common stands at the top in ours, and in each of them for Chalice."""
    config = json.loads(asked.described.read_text(encoding="utf-8"))
    common = config.pop("lambda_functions")
    config["stages"] = {
        one.name: {"lambda_functions": common}
        | config["stages"][one.name]
        | {"lambda_architecture": one.architecture}
        for one in stages_of(asked)
    }
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def faq_file(config: Path) -> str | None:
    """The FAQ's file as the configuration names it. ConfigurationError if it lies elsewhere."""
    document = tomllib.loads(config.read_text(encoding="utf-8"))
    name: str | None = document.get("faq", {}).get("file")
    folder = config.parent.resolve()
    beside = name and (folder / name).resolve().is_relative_to(folder)
    if name and (not beside or Path(name).is_absolute()):
        raise ConfigurationError(
            f"{config.name}: faq.file {name} must lie beside it to be packaged"
        )
    return name


#: The functions that compare with time to spare: the stream's, and the one that drives the stuck.
_COMPARING = ("policy-on_stored.json", "policy-forward.json", "policy-tick.json")


def allow_models(policies: Path, document: settings.Document) -> None:
    """Let those functions call the models of Bedrock that the configuration names, and no other."""
    scorer, adviser = document.scorer, document.second_opinion
    asked = [(scorer.model, scorer.region)] if scorer.model else []
    asked += [(adviser.model, adviser.region)] if adviser else []
    if not asked:
        return
    resources = [{"Fn::Sub": arn} for model, region in asked for arn in _arns(model, region)]
    for name in _COMPARING:
        policy = json.loads((policies / name).read_text(encoding="utf-8"))
        allowed = {"Effect": "Allow", "Action": ["bedrock:InvokeModel"], "Resource": resources}
        policy["Statement"].append(allowed)
        (policies / name).write_text(json.dumps(policy, indent=2), encoding="utf-8")


def _arns(model: str, region: str | None) -> Iterator[str]:
    """What must be allowed for a model; an inference profile asks its models in other regions."""
    place, plain = (
        f"arn:${{AWS::Partition}}:bedrock:{region or '${AWS::Region}'}",
        plain_name(model),
    )
    if model.startswith("arn:"):
        yield model
    elif model != plain:
        yield f"{place}:${{AWS::AccountId}}:inference-profile/{model}"
    if model == plain:
        yield f"{place}::foundation-model/{model}"
    else:
        yield f"arn:${{AWS::Partition}}:bedrock:*::foundation-model/{plain}"


def by_chalice(staged: Path, stage: Stage, made: Path) -> Any:
    """The template of one stage; its zip is in `made`. `chalice package` validates nothing."""
    merge = staged / "merge.yaml"
    template.write(template.merged(*said_of(stage)), merge)
    validate = (
        "import sys; from chalice.cli.factory import CLIFactory as F; "
        "from chalice.deploy.validate import validate_configuration as v; "
        "v(F(sys.argv[1]).create_config_obj(sys.argv[2]))"
    )
    chalice = str(Path(sys.executable).with_name("chalice"))
    part = {stages.PARTS_ENVIRONMENT: " ".join(stage.parts)}
    _run(staged, part, sys.executable, "-c", validate, str(staged), stage.name)
    _run(
        staged,
        part,
        *(chalice, "--project-dir", str(staged), "package", "--stage", stage.name),
        *("--merge-template", str(merge), str(made)),
    )
    whole = template.importing(template.read(made / "sam.yaml"))
    http = "edge" in stage.parts and stage.api == "http"
    return http_api.in_place_of_rest(whole) if http else whole


def said_of(stage: Stage) -> list[Path]:
    """The files of infra/ that say what a stage is, the later over the earlier.

    ConfigurationError for a part or an API that there is not.
    """
    files = [file for part in stage.parts for file in PARTS[part]]
    files += APIS[stage.api] if "edge" in stage.parts else ()
    return [ROOT / "infra" / file for file in (*files, *SHARED)]


def _run(folder: Path, environment: Mapping[str, str], *command: str) -> None:
    done = subprocess.run(  # noqa: S603  # our own commands
        command,
        check=False,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ConfigurationError(f"Chalice cannot package this:\n{done.stdout}{done.stderr}")


def _ours(config: Path) -> set[str]:
    """What of ours, and of what it rests on, must be in the zip."""
    ours = {
        path.relative_to(ROOT).as_posix()
        for folder in ("chalicelib", "connectors")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    faq = {faq_file(config)} - {None}
    return (
        ours
        | {"app.py", "askonce.toml", "pydantic/__init__.py", "wechatpy/__init__.py"}
        | {str(name) for name in faq}
    )
