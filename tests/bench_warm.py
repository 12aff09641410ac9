"""Warm acknowledgement: CPU for each webhook, and how many a core takes in a second.

Every server has core 0 to itself; the load (wrk) and the DynamoDB that says yes to everything have
core 1. The rounds are interleaved. What is not ours gets the SMS webhook, and only the one written
by hand checks its signature; none of them normalises anything, or writes a log.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

from infra.package import ROOT
from tests.bench_cold import APPS, BUILD, bare, compiled, lambda_environment, ours, stub
from tests.bench_webhooks import ANSWERING, CHANNELS, TOO_LATE_SECONDS

ROUNDS, SECONDS, CONNECTIONS = 5, 2, 16
SERVER, LOAD = ("taskset", "-c", "0"), ("taskset", "-c", "1")
BASELINE = "Chalice + botocore, one put"
BY_HAND = ("FastAPI + boto3 by hand, put in a thread", "FastAPI + boto3 by hand, put in the loop")
PYTHON = ROOT / "build" / "bench-python"
NODE = ROOT / "build" / "bench-node"
NODE_RED = "node-red@4.1.15"
N8N = ROOT / "build" / "bench-n8n"
#: Its xlsx comes from outside npm, which not every registry has; this flow needs none of it.
N8N_PACKAGE = {"dependencies": {"n8n": "1.100.1"}, "overrides": {"xlsx": "0.18.5"}}
#: Different messages of a run, so that nothing can answer from memory.
MESSAGES = 100


@dataclass(frozen=True)
class Server:
    """How it is started, and what it is asked."""

    what: str
    command: Sequence[str]
    channel: str = "sms"
    path: str = "/webhooks"
    #: 0 prints its port.
    port: int = 0


@dataclass(frozen=True)
class Run:
    """What one run of the load found."""

    per_second: float
    cpu_us: float


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def servers(task: Path) -> Iterator[Server]:
    """Ours in `task`, and what one would use instead, as far as it is installed."""
    alone = (sys.executable, "-ISB", str(APPS / "front.py"))
    yield Server(BASELINE, (*alone, str(compiled(bare("bare_botocore"))), "0"))
    for channel in CHANNELS:
        command = (*alone, str(task), str(TOO_LATE_SECONDS))
        yield Server(f"AskOnce, {channel}", command, channel)
    for channel in ANSWERING:
        command = (*alone, str(task), "0")
        yield Server(f"AskOnce, {channel}, with an answer in the response", command, channel)
    python = str(PYTHON / "bin" / "python")
    uvicorn = (python, "-m", "uvicorn", "--app-dir", str(APPS), "--no-access-log", "--port")
    for what, path in zip(BY_HAND, ("/webhooks", "/plain"), strict=True):
        port = free_port()
        yield Server(what, (*uvicorn, str(port), "by_hand:app"), path=path, port=port)
    folder = BUILD / "powertools"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(APPS / "with_powertools.py", folder / "app.py")
    # Not -S: its packages are those of its environment.
    powertools = (python, "-IB", str(APPS / "front.py"), str(folder), "0")
    yield Server("Powertools resolver and idempotency", powertools)
    port = free_port()
    yield Server("node-red", node_red(port), port=port)
    if (N8N / "node_modules" / "n8n").exists():
        port = free_port()
        yield Server("n8n", n8n(port), path="/webhook", port=port)


def install() -> None:
    """What is compared with, in environments of its own; once."""
    if not (PYTHON / "bin" / "uvicorn").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON)], check=True)
        pip = [str(PYTHON / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        wanted = str(Path(__file__).with_name("bench_servers.txt"))
        subprocess.run([*pip, "--requirement", wanted], check=True)
    if not (NODE / "node_modules" / "node-red").exists():
        NODE.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", NODE_RED]
        subprocess.run(npm, check=True, cwd=NODE)
    if not N8N.exists():
        N8N.mkdir()
        (N8N / "package.json").write_text(json.dumps(N8N_PACKAGE))
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
        if subprocess.run(command, check=False, cwd=N8N).returncode:
            sys.stderr.write("n8n could not be installed: its line will be missing\n")


def node_red(port: int) -> Sequence[str]:
    """Its command, with the one flow it runs."""
    shutil.copy(APPS / "node_red.json", NODE / "flows.json")
    settings = {"uiPort": port, "uiHost": "127.0.0.1", "httpAdminRoot": False}
    settings |= {"flowFile": "flows.json", "userDir": str(NODE), "logging": {}}
    (NODE / "settings.js").write_text(f"module.exports = {json.dumps(settings)};\n")
    red = NODE / "node_modules" / "node-red" / "red.js"
    return ("node", str(red), "--settings", str(NODE / "settings.js"))


def n8n(port: int) -> Sequence[str]:
    """Its command, with the one workflow it runs active."""
    program = ("node", str(N8N / "node_modules" / "n8n" / "bin" / "n8n"))
    settings = {"N8N_USER_FOLDER": str(N8N), "N8N_DIAGNOSTICS_ENABLED": "false"}
    settings |= {"N8N_BLOCK_ENV_ACCESS_IN_NODE": "false", "N8N_LOG_LEVEL": "error"}
    settings |= {"N8N_PORT": str(port), "N8N_LISTEN_ADDRESS": "127.0.0.1"}
    flow = f"--input={APPS / 'n8n.json'}"
    for step in (("import:workflow", flow), ("update:workflow", "--all", "--active=true")):
        set_here = {**os.environ, **settings}
        subprocess.run([*program, *step], check=True, env=set_here, stdout=subprocess.DEVNULL)
    return ("env", *(f"{name}={value}" for name, value in settings.items()), *program, "start")


@contextmanager
def running(server: Server, environment: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """A server on core 0: its process and its port."""
    log = (BUILD / "servers.log").open("ab")
    process = subprocess.Popen(
        [*SERVER, *server.command],
        env=environment,
        stdout=subprocess.PIPE if not server.port else log,
        stderr=log,
        text=True,
        cwd=BUILD,
    )
    try:
        if server.port:
            _wait_for(server, process)
            yield process.pid, server.port
        else:
            assert process.stdout
            yield process.pid, int(process.stdout.readline() or 0)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        log.close()


def _wait_for(server: Server, process: subprocess.Popen[str]) -> None:
    """Until it answers a webhook well."""
    for _ in range(300):
        with suppress(OSError, HTTPException):
            sent = CHANNELS[server.channel]()
            connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
            path = sent.path.replace("/webhooks", server.path)
            connection.request(sent.method, path, sent.body, sent.headers)
            if connection.getresponse().status < 300:
                return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise SystemExit(f"{server.what} did not start: see {BUILD / 'servers.log'}")


def script(server: Server, port: int) -> Path:
    """What wrk sends: genuine requests, signed now."""
    whole = []
    for _ in range(MESSAGES):
        sent = CHANNELS[server.channel]()
        target = sent.path.replace("/webhooks", server.path)
        target += f"?{urlencode(sent.query)}" if sent.query else ""
        headers = {"Host": f"127.0.0.1:{port}", **sent.headers}
        headers["Content-Length"] = str(len(sent.body))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        whole.append(f"{sent.method} {target} HTTP/1.1\r\n{head}\r\n".encode() + sent.body)
    quoted = ",\n".join('"' + "".join(f"\\{byte:03d}" for byte in one) + '"' for one in whole)
    path = BUILD / "load.lua"
    path.write_text(
        f"local all = {{{quoted}}}\nlocal n = 0\n"
        "function request() n = n % #all + 1; return all[n] end\n"
    )
    return path


def load(server: Server, process: int, port: int, seconds: int = SECONDS) -> Run:
    """One run. SystemExit if something was not answered well."""
    before = cpu_seconds(process)
    wrk = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s")
    command = [*LOAD, *wrk, "-s", str(script(server, port)), f"http://127.0.0.1:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = cpu_seconds(process) - before
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{server.what}: {done.stdout}")
    count = int(_found(r"(\d+) requests in", done.stdout))
    return Run(float(_found(r"Requests/sec:\s+([\d.]+)", done.stdout)), used / count * 1e6)


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"wrk said something else: {text}")
    return found[1]


def cpu_seconds(process: int) -> float:
    """What a process used so far, in all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def environment(endpoint: str) -> dict[str, str]:
    """As in Lambda, with quotas that no load exhausts."""
    config = (ROOT / "askonce.toml").read_text(encoding="utf-8")
    quotas = "".join(f"{n}_per_minute = 100000000\n" for n in ("address", "visitor", "inbox"))
    own = BUILD / "askonce.toml"
    own.write_text(config.replace('connector = "webchat"\n', f'connector = "webchat"\n{quotas}'))
    return lambda_environment(endpoint) | {
        "ASKONCE_CONFIG": str(own),
        "PATH": os.environ["PATH"],
        "HOME": str(BUILD),
    }


def missing() -> str:
    """What has to be installed first, as a command; nothing where all is there."""
    lacking = [name for name in ("wrk", "taskset", "npm") if not shutil.which(name)]
    return "apt-get install wrk util-linux npm" if lacking else ""


def measure(task: Path, rounds: int = ROUNDS) -> dict[str, list[Run]]:
    """Every run of every server, by what it is. SystemExit if something is missing."""
    if install_first := missing():
        raise SystemExit(f"first: {install_first}")
    BUILD.mkdir(parents=True, exist_ok=True)
    install()
    with ExitStack() as stack:
        endpoint = stack.enter_context(stub(*LOAD))
        set_here = environment(endpoint)
        wanted = {s.what: (s, *stack.enter_context(running(s, set_here))) for s in servers(task)}
        for one in wanted.values():
            load(*one, seconds=2)
        found: dict[str, list[Run]] = {what: [] for what in wanted}
        for _ in range(rounds):
            for what, one in wanted.items():
                found[what].append(load(*one))
    return found


def table(found: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    """Rows for the page: what, CPU, requests per second, each as median and spread."""
    base = median(run.cpu_us for run in found[BASELINE])
    rows = [
        ["one webhook stored", "CPU us", "min to max", "more than bare", "a second", "min to max"]
    ]
    for what, runs in found.items():
        cpu, rate = [r.cpu_us for r in runs], [r.per_second for r in runs]
        more = f"{median(cpu) - base:+.0f}" if what != BASELINE else ""
        rows.append([
            what, f"{median(cpu):.0f}", f"{min(cpu):.0f} to {max(cpu):.0f}", more,
            f"{median(rate):.0f}", f"{min(rate):.0f} to {max(rate):.0f}",
        ])  # fmt: skip
    return rows


if __name__ == "__main__":
    for row in table(measure(Path(sys.argv[1]) if sys.argv[1:] else ours())):
        sys.stdout.write("  ".join(row) + "\n")
