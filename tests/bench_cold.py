"""Cold start: CPU from the start of a process to its first webhook, stored and answered.

Ours is the zip that `make package` left; beside it stand the smallest Chalice apps that store one
item, packaged by Chalice itself. Every start is a fresh process that sees nothing but its own
folder and the standard library; the rounds are interleaved, so that whatever else runs on the
machine slows all of them.
"""

import compileall
import json
import os
import platform
import py_compile
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from infra.package import ENVIRONMENT, ROOT
from tests.bench_webhooks import ANSWERING, CHANNELS, SECRETS, TOO_LATE_SECONDS, event_json

APPS = Path(__file__).parent / "bench_apps"
BUILD = ROOT / "build" / "bench-apps"
ROUNDS = 15
#: What everything is compared with.
BASELINE = "Chalice + botocore, compiled"


@dataclass(frozen=True)
class Start:
    """Something to start: the folder that Lambda would unpack, and what it is asked."""

    what: str
    folder: Path
    channel: str = "sms"
    age_seconds: float = 0


def starts(task: Path) -> Iterator[Start]:
    """Ours in `task`, and what it is compared with."""
    boto3, botocore = bare("bare_boto3"), bare("bare_botocore")
    yield Start("Chalice + boto3, as Chalice packages it", boto3)
    yield Start("Chalice + boto3, compiled", compiled(boto3))
    yield Start(BASELINE, compiled(botocore))
    for channel in CHANNELS:
        yield Start(f"AskOnce, {channel}", task, channel, TOO_LATE_SECONDS)
    for channel in ANSWERING:
        yield Start(f"AskOnce, {channel}, with an answer in the response", task, channel)


def ours() -> Path:
    """The packaged zip, unpacked. SystemExit if there is none."""
    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    packed = ROOT / "build" / "out" / f"askonce-{machine}.zip"
    if not packed.exists():
        raise SystemExit(f"{packed.relative_to(ROOT)} is missing: run `make package` first")
    return _unpacked(packed, "askonce")


def _unpacked(packed: Path, name: str) -> Path:
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder)
    return folder


def bare(name: str) -> Path:
    """One of tests/bench_apps as `chalice package` leaves it, unpacked; made once."""
    out = BUILD / f"{name}-out"
    if not (out / "deployment.zip").exists():
        project = BUILD / f"{name}-project"
        shutil.rmtree(project, ignore_errors=True)
        (project / ".chalice").mkdir(parents=True)
        config = {"version": "2.0", "app_name": "bare", "stages": {"dev": {}}}
        (project / ".chalice" / "config.json").write_text(json.dumps(config))
        shutil.copy(APPS / f"{name}.py", project / "app.py")
        lock = (ROOT / "requirements.txt").read_text(encoding="utf-8")
        package = name.removeprefix("bare_")
        (line,) = [one for one in lock.splitlines() if one.startswith(f"{package}==")]
        (project / "requirements.txt").write_text(line.removesuffix(" \\") + "\n")
        chalice = Path(sys.executable).with_name("chalice")
        command = [str(chalice), "--project-dir", str(project), "package", str(out)]
        subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT}, stdout=sys.stderr)
    return _unpacked(out / "deployment.zip", name)


def compiled(folder: Path) -> Path:
    """A copy with a .pyc for every module, which Python takes without looking at its source."""
    copy = folder.with_name(f"{folder.name}-compiled")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(copy, quiet=2, invalidation_mode=mode)
    return copy


@contextmanager
def stub(*pinned: str) -> Iterator[str]:
    """The address of a DynamoDB that says yes to everything, in a process of its own."""
    command = [*pinned, sys.executable, str(Path(__file__).with_name("bench_stub.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def lambda_environment(endpoint: str) -> dict[str, str]:
    """What a function finds set."""
    return SECRETS | {
        "AWS_LAMBDA_FUNCTION_NAME": "api_handler",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_SESSION_TOKEN": "x",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint,
        "ASKONCE_PREFIX": "askonce",
    }


def cpu_ms(start: Start, environment: Mapping[str, str]) -> float:
    """Of one start. SystemExit if it did not answer well."""
    event = BUILD / "event.json"
    event.write_text(event_json(start.channel, start.age_seconds), encoding="utf-8")
    command = [sys.executable, "-ISB", str(APPS / "once.py"), str(start.folder)]
    null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, [*command, str(event)], environment, file_actions=null)
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{start.what}: its first webhook failed")
    return (used.ru_utime + used.ru_stime) * 1000


def measure(task: Path, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """CPU ms of every start, by what was started."""
    BUILD.mkdir(parents=True, exist_ok=True)
    wanted = list(starts(task))
    found: dict[str, list[float]] = {start.what: [] for start in wanted}
    with stub() as endpoint:
        environment = lambda_environment(endpoint)
        for start in wanted:  # files come from the disk once, for everybody
            cpu_ms(start, environment)
        for _ in range(rounds):
            for start in wanted:
                found[start.what].append(cpu_ms(start, environment))
    return found


def ratio(found: Mapping[str, list[float]], what: str) -> float:
    """To the baseline's: the median over the rounds, since a machine may slow down for some."""
    return median(one / base for one, base in zip(found[what], found[BASELINE], strict=True))


def table(found: Mapping[str, list[float]]) -> list[list[str]]:
    """Rows for the page: what, median, spread, ratio."""
    rows = [["process start to the first webhook stored", "CPU ms", "min to max", "ratio"]]
    for what, values in found.items():
        spread = f"{min(values):.0f} to {max(values):.0f}"
        rows.append([what, f"{median(values):.0f}", spread, f"{ratio(found, what):.2f}"])
    return rows


if __name__ == "__main__":
    for row in table(measure(Path(sys.argv[1]) if sys.argv[1:] else ours())):
        sys.stdout.write("  ".join(row) + "\n")
