"""Stage, validate, package, check: `python -m infra.package STAGE OUTDIR`.

Chalice packs only app.py, chalicelib/ and vendor/, so the project is staged in build/stage with
connectors/ and askonce.toml under vendor/. boto3 and what only it needs stay out: Lambda has them,
and the lock resolved everything else against the same release.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from chalicelib import settings
from chalicelib.bedrock import plain_name

ROOT = Path(__file__).resolve().parent.parent
STAGED = ROOT / "build" / "stage"
IN_LAMBDA = {"boto3", "botocore", "s3transfer"}
#: Otherwise Python's caches end in the zip, and change its hash from run to run.
ENVIRONMENT = {"AWS_DEFAULT_REGION": "us-east-1", "PYTHONDONTWRITEBYTECODE": "1"}


def stage(root: Path = ROOT, staged: Path = STAGED) -> Path:
    """A fresh copy of what goes on AWS, laid out as Chalice wants it."""
    no_caches = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    shutil.copy(root / "app.py", staged)
    shutil.copytree(root / "chalicelib", staged / "chalicelib", ignore=no_caches)
    shutil.copytree(root / "connectors", staged / "vendor" / "connectors", ignore=no_caches)
    shutil.copy(root / "askonce.toml", staged / "vendor")
    if name := faq_file(root):
        (staged / "vendor" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, staged / "vendor" / name)
    shutil.copytree(
        root / ".chalice", staged / ".chalice", ignore=shutil.ignore_patterns("deploy*")
    )
    allow_models(staged / ".chalice", settings.read(root / "askonce.toml"))
    lock = (root / "requirements.txt").read_text(encoding="utf-8")
    (staged / "requirements.txt").write_text(without(lock, IN_LAMBDA), encoding="utf-8")
    (staged / "merge.yaml").write_text(yaml.safe_dump(_merged(root)), encoding="utf-8")
    return staged


def faq_file(root: Path) -> str | None:
    """The FAQ's file as askonce.toml names it. SystemExit if it lies elsewhere."""
    document = tomllib.loads((root / "askonce.toml").read_text(encoding="utf-8"))
    name: str | None = document.get("faq", {}).get("file")
    beside = name and (root / name).resolve().is_relative_to(root.resolve())
    if name and (not beside or Path(name).is_absolute()):
        sys.exit(f"askonce.toml: faq.file {name} must lie beside it to be packaged")
    return name


#: The functions that compare with time to spare: the stream's, the one that drives the stuck, and
#: the one that carries out corrections.
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


def without(lock: str, names: set[str]) -> str:
    """A lock file without some packages and their hashes."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return "".join(e for e in entries if re.split(r"[=\s\[]", e, maxsplit=1)[0] not in names)


def _merged(root: Path) -> dict[str, Any]:
    """Chalice takes one template to merge: ours are merged first, the later wins."""
    from chalice.package import TemplateDeepMerger, YAMLTemplateSerializer

    merged: dict[str, Any] = {}
    for name in ("resources.yaml", "overrides.yaml"):
        text = (root / "infra" / name).read_text(encoding="utf-8")
        part = YAMLTemplateSerializer().load_template(text, name)
        merged = TemplateDeepMerger().merge(part, merged)
    return merged


def package(stage_name: str, out: Path, staged: Path = STAGED) -> None:
    """The template and the zip of one stage, in `out`. `chalice package` does not validate."""
    validate = (
        "import sys; from chalice.cli.factory import CLIFactory as F; "
        "from chalice.deploy.validate import validate_configuration as v; "
        "v(F(sys.argv[1]).create_config_obj(sys.argv[2]))"
    )
    chalice = Path(sys.executable).with_name("chalice")
    _run(staged, sys.executable, "-c", validate, str(staged), stage_name)
    _run(
        staged,
        *(str(chalice), "--project-dir", str(staged), "package", "--stage", stage_name),
        *("--merge-template", str(staged / "merge.yaml"), str(out.resolve())),
    )


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, **ENVIRONMENT})  # noqa: S603  # our own commands


def faults(out: Path, root: Path = ROOT) -> Iterator[str]:
    """What is wrong with a packaged artefact, a line each."""
    with zipfile.ZipFile(out / "deployment.zip") as packed:
        names = set(packed.namelist())
    ours = [p for d in ("chalicelib", "connectors") for p in (root / d).rglob("*")]
    for path in ours:
        name = path.relative_to(root).as_posix()
        if path.is_file() and "__pycache__" not in name and name not in names:
            yield f"{name} is not in the zip"
    yield from (f"{name} must not be in the zip" for name in names if _is_foreign(name))
    wanted_names = ["app.py", "askonce.toml", "wechatpy/__init__.py", "pydantic/__init__.py"]
    for wanted in (*wanted_names, faq_file(root) or "askonce.toml"):
        if wanted not in names:
            yield f"{wanted} is not in the zip"
    yield from _template_faults(template(out))


def _is_foreign(name: str) -> bool:
    top, _, _ = name.partition("/")
    return top in (*IN_LAMBDA, "tests", "infra") or name.endswith(".pyc")


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, kept as {"!Tag": value}."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {f"!{tag}": loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {f"!{tag}": loader.construct_sequence(node, deep=True)}
    return {f"!{tag}": loader.construct_mapping(node, deep=True)}  # type: ignore[arg-type]  # the last kind of node there is


_Loader.add_multi_constructor("!", _tagged)


def template(out: Path) -> Any:
    """The packaged template; short forms of intrinsics as {"!Sub": ...}."""
    text = (out / "sam.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader with harmless tags


#: Event type -> what its source must say.
_EVENTS: dict[str, dict[str, object]] = {
    "SQS": {"FunctionResponseTypes": ["ReportBatchItemFailures"]},
    "SNS": {"Topic": {"Fn::Sub": "${InboundTopic}"}},
    "DynamoDB": {
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "StartingPosition": "TRIM_HORIZON",
        "BisectBatchOnFunctionError": True,
    },
}


def _template_faults(packaged: Any) -> Iterator[str]:
    """A misspelt override adds an event of its own without a type: it would be ignored on AWS."""
    for name, resource in packaged["Resources"].items():
        if resource.get("Type") != "AWS::Serverless::Function":
            if "Type" not in resource:
                yield f"{name} in overrides.yaml is no function of the app"
            continue
        for event_name, event in resource["Properties"].get("Events", {}).items():
            if "Type" not in event:
                yield f"{name}: the event {event_name} in overrides.yaml is none of the app's"
            for key, wanted in _EVENTS.get(event.get("Type", ""), {}).items():
                if event["Properties"].get(key) != wanted:
                    yield f"{name}: {key} must be {wanted}"


def main() -> None:
    """Package one stage, and say what is wrong with the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    stage()
    package(asked.stage, asked.out)
    found = list(faults(asked.out))
    for fault in found:
        sys.stderr.write(fault + "\n")
    size = (asked.out / "deployment.zip").stat().st_size
    sys.stdout.write(f"{asked.out}: {size / 1e6:.1f} MB, {len(found)} faults\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
