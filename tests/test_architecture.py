"""Who may import whom, what happens at import, and how signatures are compared."""

import ast
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("app", "chalicelib", "connectors", "infra", "tests")

#: Module -> which of our modules, and which packages of others, it may import.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "log": {"metrics"},
    "metrics": set(),
    "schema": {"pydantic"},
    "ports": {"schema", "errors", "pydantic"},
    "text": {"opencc"},
    "policy": {"schema", "pydantic"},
    "identity": {"schema", "errors"},
    "lexicon": set(),
    "repeats": {"chatter", "lexicon", "text"},
    "shipped": {"ports", "repeats", "schema"},
    "chatter": {"text"},
    "judge": {"chatter", "policy", "ports", "schema", "text"},
    "conversations": {"judge", "schema", "policy"},
    "notes": {"identity", "policy", "schema"},
    "aws": {
        "botocore",
        "mypy_boto3_dynamodb",
        "mypy_boto3_s3",
        "mypy_boto3_sqs",
        "direct",
        "once",
        "ports",
        "errors",
    },
    "direct": set(),
    "once": set(),
    "ledgers": {"schema", "ports", "pydantic"},
    "items": {"ledgers", "ports", "schema", "pydantic"},
    "store": {"errors", "items", "ledgers", "ports", "schema"},
    "tokens": {"errors", "ports"},
    "contacts": {"conversations", "errors", "identity", "items", "policy", "schema", "store"},
    "customers": {"contacts", "errors", "identity", "ports", "schema", "pydantic"},
    "erasing": {"contacts", "conversations", "crowd", "errors", "identity", "items", "schema"}
    | {"worker"},
    "codes": {"contacts", "errors", "identity", "items", "policy", "ports", "schema", "worker"},
    "faq": {"errors", "policy", "ports", "pydantic", "repeats", "schema", "text"},
    "bedrock": {"aws", "botocore", "errors", "ports", "pydantic", "shipped", "schema"},
    "scorers": {"bedrock", "errors", "limits", "ports", "pydantic", "repeats", "shipped", "schema"},
    "comparing": {"errors", "items", "judge", "ports", "shipped", "schema", "scorers", "settings"}
    | {"store"},
    "settings": {"errors", "log", "faq", "policy", "ports", "aws", "shipped", "schema", "scorers"}
    | {"pydantic"},
    "saying": {"faq", "identity", "policy", "schema"},
    "resolve": {"codes", "comparing", "contacts", "conversations", "errors", "faq", "identity"}
    | {"items", "judge", "ledgers", "policy", "saying", "schema", "worker"},
    "corrections": {"conversations", "errors", "identity", "items", "schema", "worker"},
    "desks": {"errors", "items", "ports", "schema", "store"},
    "forwarding": {"conversations", "corrections", "crowd", "errors", "identity", "items"}
    | {"notes", "ports", "schema", "worker"},
    "moving": {"errors", "forwarding", "notes", "schema", "worker"},
    "replies": {"conversations", "errors", "items", "ports", "schema", "worker"},
    "worker": {"conversations", "desks", "errors", "identity", "items", "policy", "ports", "schema"}
    | {"settings", "store"},
    "crowd": {"errors", "items", "judge", "ports", "repeats", "schema", "worker"},
    "parts": {"errors", "items", "schema", "store"},
    "errands": {"contacts", "corrections", "customers", "errors", "items", "notes", "policy"}
    | {"ports", "replies", "schema", "worker"},
    "delivery": {"codes", "conversations", "errors", "identity", "items", "ledgers", "notes"}
    | {"ports", "schema", "worker"},
    "limits": {"errors", "ports"},
    "pipeline": {"conversations", "delivery", "errands", "errors", "forwarding", "items"}
    | {"limits", "notes", "parts", "ports", "replies", "resolve", "schema", "worker"},
    "consumer": {"errors", "log"},
    "stream": {"consumer", "items", "log"},
}
CORE_FOR_CONNECTORS = {f"chalicelib.{name}" for name in ("schema", "errors", "once", "ports")}
SHARED_BY_CONNECTORS = {"connectors"} | {
    f"connectors.{name}" for name in ("http", "mime", "signing", "webchat_tokens", "wechat_wire")
}
SHARED_BY_CONNECTORS |= {
    f"connectors.wechat_{name}" for name in ("account", "api", "kinds", "pieces", "seal")
} | {"connectors.wecom_corporation"}
SHARED_BY_CONNECTORS |= {
    f"connectors.{name}"
    for name in ("forms", "mail_channel", "mail_fields", "mail_out", "mime_out")
}
SHARED_BY_CONNECTORS |= {
    f"connectors.{name}"
    for name in ("bounces", "charsets", "hypertext", "mail_headers", "mail_parts", "mail_text")
}
SHARED_BY_CONNECTORS |= {"connectors.quoting", "connectors.tnef"} | {
    f"connectors.{name}"
    for name in (
        "chatwoot_events",
        "desk_calls",
        "freshdesk_talk",
        "intercom_events",
        "note_commands",
        "request_tracker_events",
        "ticket_text",
        "zendesk_events",
        "public_only",
        "sms_message",
        "sms_text",
        "sns",
        "hs256",
        "vonage_proof",
        "zammad_articles",
        "qiyu_events",
    )
}
SDKS = {"pydantic", "wechatpy", "requests", "nh3", "cryptography", "charset_normalizer"}
SDKS |= {"tenacity", "boto3", "botocore", "urllib3"}
HEAVY = ("boto3", "botocore", "requests", "wechatpy", "opencc", "nh3")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; `from a import b` counts as a and a.b."""
    return imported(ast.parse(path.read_text(encoding="utf-8")))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            package = node.module in ("chalicelib", "connectors")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if package else [node.module]


def foreign(name: str) -> bool:
    return name.partition(".")[0] not in sys.stdlib_module_names


def python_files(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*.py") if p.name != "__init__.py")


def test_every_module_of_the_core_has_its_line_in_the_table() -> None:
    assert {p.stem for p in python_files("chalicelib")} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_a_module_of_the_core_imports_only_what_the_table_allows(module: str) -> None:
    found = {name for name in imports(ROOT / "chalicelib" / f"{module}.py") if foreign(name)}
    names = {name.removeprefix("chalicelib.").partition(".")[0] for name in found}
    if module in ("consumer", "stream"):  # they write to the log, by the package
        names.discard("chalicelib")
    assert names <= MAY_IMPORT[module]


@pytest.mark.parametrize("path", python_files("connectors"), ids=lambda p: p.stem)
def test_a_connector_knows_only_the_ports_what_is_shared_and_its_sdk(path: Path) -> None:
    found = {name for name in imports(path) if foreign(name)}
    ours = {name for name in found if name.startswith(("chalicelib", "connectors"))}
    assert ours <= CORE_FOR_CONNECTORS | SHARED_BY_CONNECTORS
    assert {name.partition(".")[0] for name in found - ours} <= SDKS


def at_import(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.Try | ast.With):
            yield from at_import(statement.body)
        elif not (isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"):
            yield statement


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Threads that import them for the first time would wait for each other, and one would fail."""
    ours = [*python_files("chalicelib"), *python_files("connectors")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ours}
    graph = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [s for s in at_import(tree.body) if isinstance(s, ast.Import | ast.ImportFrom)]
        graph[name] = set(imported(tree)) & names.keys()
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_the_core_never_looks_outward() -> None:
    outward = {"connectors", "infra", "chalice", "app"}
    for path in python_files("chalicelib"):
        assert not outward & {name.partition(".")[0] for name in imports(path)}, path


def test_importing_the_app_loads_no_sdk_and_calls_nobody() -> None:
    script = f"import app, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path", [*python_files("chalicelib"), *python_files("connectors"), ROOT / "app.py"],
    ids=lambda p: p.stem,
)  # fmt: skip
def test_modules_and_public_classes_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert ast.get_docstring(tree), path
    assert silent == []


def test_no_test_reaches_the_network() -> None:
    with socket.socket() as outside, pytest.raises(pytest.fail.Exception, match="was tried"):
        outside.connect(("192.0.2.1", 443))


def test_no_test_uses_a_mock() -> None:
    for path in python_files("tests"):
        assert not any("mock" in name.split(".") for name in imports(path)), path


def test_what_was_signed_is_never_compared_with_equals() -> None:
    """`==` stops at the first difference, and tells an attacker how far they came."""
    telling = ("signature", "digest", "given", "wanted", "token", "hmac")
    for path in python_files("connectors"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
                words = ast.unparse(node).lower()
                assert not any(word in words for word in telling), f"{path.name}: {words}"


def test_the_zip_holds_no_package_that_nothing_in_it_imports() -> None:
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    asked = {line.partition("[")[0].lower() for line in lines if not line.startswith("#")}
    files = [ROOT / "app.py", *python_files("chalicelib"), *python_files("connectors")]
    imported = {name.partition(".")[0] for path in files for name in imports(path)}
    modules: dict[str, set[str]] = {name: set() for name in asked}
    for module, packages in packages_distributions().items():
        for package in asked.intersection(name.lower() for name in packages):
            modules[package].add(module)
    unused = {name for name, own in modules.items() if not own & imported}
    assert unused <= {"boto3"}  # what we import, botocore, is of its making
