"""The zip that Lambda runs: what Chalice packed, less what no function uses, compiled.

Chalice ships no .pyc, and on Lambda nothing can be written beside the code: every cold start would
compile all of it. The same content gives the same zip, byte for byte.
"""

import gzip
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

#: The services that are called; botocore's knowledge of some 400 others stays out.
SERVICES = (
    "bedrock-runtime",
    "dynamodb",
    "pinpoint-sms-voice-v2",
    "s3",
    "secretsmanager",
    "sesv2",
    "sns",
    "sqs",
    "ssm",
)
#: Where functions find it.
TASK_ROOT = "/var/task"
#: What never runs: tests, types, C sources and headers, what only builds or describes a package.
_UNUSED = (
    *("**/tests", "**/test", "**/*.pyi", "**/py.typed", "**/*.c", "**/*.h", "**/include"),
    *("**/_pyinstaller", "bin", "boto3/examples"),
)
_MACHINES = {0x3E: "x86_64", 0xB7: "arm64"}
#: AWS's limits are 50 MB zipped and 250 MB unzipped; ours leave room, and notice what creeps in.
MAX_ZIP_BYTES, MAX_BYTES, MAX_BOTOCORE_BYTES = 45_000_000, 120_000_000, 2_500_000


def finish(packed: Path, out: Path) -> None:
    """`out` is the zip of what lies in the zip `packed`, trimmed and compiled."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "task"
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(folder)
        trim(folder)
        compile_all(folder)
        write(folder, out)


def trim(folder: Path) -> None:
    """Nothing is left that no function uses; licences stay, in a folder of their own."""
    for pattern in _UNUSED:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _trim_botocore(folder / "botocore" / "data")
    _trim_boto3(folder / "boto3" / "data")
    for described in folder.glob("*.dist-info"):
        _keep_licences(described, folder / "licenses")
        shutil.rmtree(described)
    for leftover in folder.glob("*.data"):
        shutil.rmtree(leftover)


def _trim_botocore(data: Path) -> None:
    for service in (path for path in data.iterdir() if path.is_dir()):
        if service.name not in SERVICES:
            shutil.rmtree(service)
    # botocore reads a bare .json as well, and faster than a packed one.
    for model in data.rglob("*.json.gz"):
        if model.name.startswith(("examples", "waiters")):
            model.unlink()
            continue
        plain = model.with_suffix("")
        plain.write_text(_compact(gzip.decompress(model.read_bytes())), encoding="utf-8")
        model.unlink()
    endpoints = data / "endpoints.json"
    known = json.loads(endpoints.read_text(encoding="utf-8"))
    for partition in known["partitions"]:
        theirs = partition["services"]
        # The name of an endpoint differs from the service's here and there: both are kept.
        kept = {*SERVICES, "sms-voice", "email", "bedrock"}
        partition["services"] = {name: theirs[name] for name in sorted(kept & set(theirs))}
    endpoints.write_text(json.dumps(known, separators=(",", ":")), encoding="utf-8")


def _compact(model: bytes) -> str:
    """A service's model without its documentation."""
    return json.dumps(_undocumented(json.loads(model)), separators=(",", ":"))


def _undocumented(node: object, *, names: bool = False) -> object:
    """Below `members` and `shapes`, documentation may be a name rather than a text."""
    if isinstance(node, dict):
        return {
            key: _undocumented(value, names=key in ("members", "shapes", "operations"))
            for key, value in node.items()
            if names or not key.startswith("documentation")
        }
    return [_undocumented(value) for value in node] if isinstance(node, list) else node


def _trim_boto3(data: Path) -> None:
    for service in (path for path in data.glob("*") if path.is_dir()):
        shutil.rmtree(service)  # what only its resources need, which nobody uses


def _keep_licences(described: Path, kept: Path) -> None:
    package = described.name.split("-")[0]
    for path in described.rglob("*"):
        if path.is_file() and re.match(r"(?i)licen[cs]e|notice|copying|author", path.name):
            target = kept / package / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def compile_all(folder: Path) -> None:
    """A .pyc beside every .py, good whatever the time of the file.

    In a process of its own: what a .pyc holds depends on what else its process has loaded.
    """
    code = (
        "import compileall, py_compile, sys; "
        "mode = py_compile.PycInvalidationMode.UNCHECKED_HASH; "
        "sys.exit(not compileall.compile_dir(sys.argv[1], quiet=1, maxlevels=20, force=True, "
        "invalidation_mode=mode, stripdir=sys.argv[1], prependdir=sys.argv[2]))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(folder), TASK_ROOT]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  # our own command
    if done.returncode:
        sys.exit(f"not everything can be compiled:\n{done.stdout}{done.stderr}")


def write(folder: Path, out: Path) -> None:
    """The zip of a folder, without anything that changes from run to run."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())


def faults(out: Path, wanted: set[str], architecture: str) -> Iterator[str]:
    """What is wrong with a finished zip, a line each."""
    with zipfile.ZipFile(out) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        for name in sizes:
            if name.endswith(".so") or ".so." in name:
                with archive.open(name) as library:
                    yield from _wrong_machine(name, library.read(20), architecture)
    yield from (f"{name} is not in the zip" for name in sorted(wanted - set(sizes)))
    for name in sizes:
        if name.partition("/")[0] in ("tests", "infra"):
            yield f"{name} must not be in the zip"
        if name.endswith(".py") and compiled(name) not in sizes:
            yield f"{name} is not compiled"
    yield from _too_large(out.stat().st_size, sizes)


def compiled(name: str) -> str:
    folder, _, module = name.rpartition("/")
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
    compiled = f"__pycache__/{module.removesuffix('.py')}.{tag}.pyc"
    return f"{folder}/{compiled}" if folder else compiled


def _wrong_machine(name: str, head: bytes, architecture: str) -> Iterator[str]:
    """https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html, e_machine."""
    machine = _MACHINES.get(int.from_bytes(head[18:20], "little"), "another machine")
    if head[:4] == b"\x7fELF" and machine != architecture:
        yield f"{name} is for {machine}, not for {architecture}"


def _too_large(zipped: int, sizes: dict[str, int]) -> Iterator[str]:
    of_botocore = sum(size for name, size in sizes.items() if name.startswith("botocore/data/"))
    for what, size, most in (
        ("the zip", zipped, MAX_ZIP_BYTES),
        ("what is in the zip", sum(sizes.values()), MAX_BYTES),
        ("botocore's data", of_botocore, MAX_BOTOCORE_BYTES),
    ):
        if size > most:
            yield f"{what} has {size / 1e6:.1f} MB, over {most / 1e6:.1f} MB"
