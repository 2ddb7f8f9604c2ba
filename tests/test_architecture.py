"""Documents name what exists: folders, agents, settings, targets. Each import rule finds a violation."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streams.cli.registry import COMMANDS
from tests.support.stack import ROOT
from tools.prose import FOLDERS, PACKAGES
from topics.families import FAMILIES, SOURCES
from topics.order_updates import OrderStatus

SETTINGS = "docs/configuration.md"
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
ENTRY_POINT = re.compile(r"[\w.]+:\w+")
"""A function by name, as in `streams/cli/registry.py`."""
MAX_TEST_NAME = 60
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"


def modules(*folders: str) -> list[Path]:
    """Return every Python file in these folders."""
    return [file for folder in folders for file in (ROOT / folder).rglob("*.py")]


def document(name: str) -> str:
    """Return the text of a file, by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")


def documents() -> list[str]:
    """List the Markdown files of the repository's root, of docs/ and of the packages, as paths from the root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "exactly_once").rglob("*.md")]
    return sorted(str(file.relative_to(ROOT)) for file in found)


def test_no_module_has_a_vague_name() -> None:
    assert not [file for file in modules(*PACKAGES) if VAGUE & {file.stem, file.parent.name}]


def test_names_of_tests_are_short() -> None:
    defined = [
        node.name
        for file in modules("tests")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert not [name for name in defined if name.startswith("test_") and len(name) > MAX_TEST_NAME]


def test_every_module_has_a_docstring() -> None:
    files = modules("topics", "processors", "streams", "simulators", "oracle", "examples", "benchmarks")
    assert not [
        file for file in files if file.read_text().strip() and not ast.get_docstring(ast.parse(file.read_text()))
    ]


def test_each_consumed_topic_has_records_and_an_agent() -> None:
    for family in SOURCES:
        module = f"{family.name.replace('-', '_')}.py"
        assert (ROOT / "topics" / module).exists(), family.name
        assert (ROOT / "streams" / "agents" / module).exists(), family.name
    for family in FAMILIES:
        assert (ROOT / "topics" / f"{family.name.replace('-', '_')}.py").exists(), family.name


def test_documents_name_only_paths_that_exist() -> None:
    found = {name: re.findall(rf"`((?:{'|'.join(FOLDERS)})/[^`*\s]*)`", document(name)) for name in documents()}
    assert sum(map(len, found.values())) > 20
    assert not [(name, path) for name, paths in found.items() for path in paths if not (ROOT / path).exists()]


def test_documents_link_only_to_files_that_exist() -> None:
    links = [
        (name, link.partition("#")[0])
        for name in documents()
        for link in re.findall(r"\]\(([^)\s]+)\)", document(name))
        if not re.match(r"[a-z]+:|#", link)
    ]
    assert links
    assert not [(name, link) for name, link in links if not (ROOT / name).parent.joinpath(link).exists()]


def test_state_machines_name_every_status() -> None:
    text = document("docs/state-machines.md")
    assert not [status.value for status in OrderStatus if status.value not in text and status.value != "CANCELLED"]


def test_documents_describe_every_setting_and_no_other() -> None:
    read = {
        name
        for file in modules("exactly_once", "streams", "simulators", "oracle")
        for name in settings_in(file.read_text())
    }
    assert settings_in(document(SETTINGS)) == read
    assert not [
        (name, settings_in(document(name)) - read) for name in documents() if settings_in(document(name)) - read
    ]
    assert settings_in(document("docker-compose.yaml")) <= read


def test_documents_name_only_targets_of_make_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", document("Makefile"), re.MULTILINE))
    for name in documents():
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", document(name), re.MULTILINE)) <= targets, name


def test_documents_show_only_modules_that_exist() -> None:
    found = {name: re.findall(r"python -m ([a-z_.]+)", document(name)) for name in documents()}
    assert any(found.values())
    assert not [(name, module) for name, shown in found.items() for module in shown if not exists_module(module)]


def exists_module(name: str) -> bool:
    """Return whether ``python -m NAME`` runs a module of ours."""
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("topics/records.py", "import processors.order", "topics import no other package"),
        ("processors/order.py", "import asyncio", "processors import only topics"),
        ("processors/order.py", "import streams.settings", "processors import only topics"),
        ("exactly_once/state/rocksdb.py", "import topics.orders", "the engine imports no module of the product"),
        ("exactly_once/task/task.py", "import aiokafka", "a task and its calls"),
        ("exactly_once/faust/host.py", "import exactly_once.engine", "each layer of the engine"),
        ("simulators/pos.py", "import processors.order", "simulators import only topics"),
        ("oracle/facts.py", "import processors.order", "the oracle imports only topics"),
        ("oracle/ledgers.py", "import simulators.ledger", "the oracle imports only topics"),
        ("streams/views/orders.py", "import oracle.run", "of the worker only one command"),
        ("streams/web/listing.py", "import streams.views.orders", "the worker is built in layers"),
        ("streams/newcomer.py", "", "the worker is built in layers"),
        ("exactly_once/newcomer.py", "", "each layer of the engine"),
    ],
)
def test_a_broken_import_rule_is_found(tmp_path: Path, file: str, line: str, contract: str) -> None:
    for package in ("exactly_once", "topics", "processors", "streams", "simulators", "oracle"):
        for module in modules(package):
            copy = tmp_path / module.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(module.read_bytes())
    (tmp_path / "pyproject.toml").write_text(document("pyproject.toml"))
    with (tmp_path / file).open("a") as broken:
        broken.write(f"\n{line}\n")
    done = subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    broken_contracts = done.stdout.partition("Broken contracts")[2]
    assert contract in broken_contracts


def settings_in(text: str) -> set[str]:
    """Return the `DABBAWALA_` variables that a text names."""
    return set(re.findall(r"\bDABBAWALA_[A-Z_]*[A-Z]\b", text))


PRODUCTION = ("exactly_once", "topics", "processors", "streams", "simulators", "oracle")


def test_production_code_has_no_circle_of_imports() -> None:
    assert circles(imports_among(modules(*PRODUCTION))) == []


@pytest.mark.parametrize(
    "importing_b",
    [
        "import b",
        "from b import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import b",
        "def late():\n    from b import x",
        "from importlib import import_module\nimport_module('b')",
        "import importlib\ndef late():\n    importlib.import_module('b').run()",
        "COMMANDS = {'run': 'b:run'}",
    ],
)
def test_a_circle_of_imports_is_found(tmp_path: Path, importing_b: str) -> None:
    (tmp_path / "a.py").write_text(f"{importing_b}\n")
    (tmp_path / "b.py").write_text("import c\n")
    (tmp_path / "c.py").write_text("import a\n")
    (tmp_path / "d.py").write_text("import a\n")
    assert circles(imports_among(list(tmp_path.glob("*.py")), tmp_path)) == [{"a", "b", "c"}]


def test_imports_by_name_are_seen() -> None:
    imports = imports_among(modules("streams"))
    assert {target.partition(":")[0] for target in COMMANDS.values()} <= imports["streams.cli.registry"]
    assert "streams.build" in imports["streams.cli.kafka"]


def imports_among(files: list[Path], root: Path = ROOT) -> dict[str, set[str]]:
    """Return module -> the modules of these files that it imports.

    Imports in functions and under `TYPE_CHECKING` count, and those by name: `import_module("a.b")`, `"a.b:function"`.
    """
    named = {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    found: dict[str, set[str]] = {}
    for module, file in named.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                parts = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= (parts & named.keys()) or {node.module}
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                imported |= {str(each.value) for each in node.args if isinstance(each, ast.Constant)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ENTRY_POINT.fullmatch(node.value):
                imported.add(node.value.partition(":")[0])
        found[module] = imported & (named.keys() - {module})
    return found


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of modules that reach each other."""
    reached = {module: reachable(module, imports) for module in imports}
    together = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in imports
        if module in reached[module]
    }
    return [set(circle) for circle in together]


def reachable(module: str, imports: dict[str, set[str]]) -> set[str]:
    """Return the modules that a module imports, directly or through others."""
    found: set[str] = set()
    waiting = list(imports[module])
    while waiting:
        if (other := waiting.pop()) not in found:
            found.add(other)
            waiting += imports[other]
    return found


def test_the_engine_is_imported_where_the_product_cannot_be() -> None:
    program = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('streams', 'topics', 'processors', 'simulators', 'oracle'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from exactly_once import Engine, Task, exactly_once\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
