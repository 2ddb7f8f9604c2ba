"""The house is as its documents say: folders, agents, settings, targets; and the rules of who may import whom bite."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import ROOT
from topics.families import FAMILIES, SOURCES
from topics.order_updates import OrderStatus

FOLDERS = ("topics", "processors", "streams", "simulators", "oracle", "examples", "benchmarks", "tests")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"


def modules(*folders: str) -> list[Path]:
    """Every Python file in these folders."""
    return [file for folder in folders for file in (ROOT / folder).rglob("*.py")]


def document(name: str) -> str:
    """One of the documents at the top."""
    return (ROOT / name).read_text()


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [file for file in modules(*FOLDERS) if VAGUE & {file.stem, file.parent.name}]


def test_every_module_says_what_it_is_for() -> None:
    files = modules("topics", "processors", "streams", "simulators", "oracle", "examples", "benchmarks")
    assert not [
        file for file in files if file.read_text().strip() and not ast.get_docstring(ast.parse(file.read_text()))
    ]


def test_each_consumed_topic_has_a_module_of_records_and_an_agent_of_its_name() -> None:
    for family in SOURCES:
        module = f"{family.name.replace('-', '_')}.py"
        assert (ROOT / "topics" / module).exists(), family.name
        assert (ROOT / "streams" / "agents" / module).exists(), family.name
    for family in FAMILIES:
        assert (ROOT / "topics" / f"{family.name.replace('-', '_')}.py").exists(), family.name


def test_the_architecture_names_only_what_there_is() -> None:
    named = re.findall(
        r"`((?:topics|processors|streams|simulators|oracle|examples|tests|benchmarks|requirements)/[^`*\s]*)`",
        document("ARCHITECTURE.md"),
    )
    assert len(named) > 20
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_status_an_order_can_have_is_in_the_architecture() -> None:
    text = document("ARCHITECTURE.md")
    assert not [status.value for status in OrderStatus if status.value not in text and status.value != "CANCELLED"]


def test_the_readme_tells_of_every_setting_and_of_none_that_is_not() -> None:
    read = {name for file in modules("streams", "simulators", "oracle") for name in settings_in(file.read_text())}
    assert settings_in(document("README.md")) == read
    assert settings_in(document("docker-compose.yaml")) <= read


def test_the_documents_name_only_targets_of_make_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md"):
        assert set(re.findall(r"`make ([a-z-]+)", document(name))) <= targets, name


def test_the_readme_shows_commands_that_there_are() -> None:
    named = re.findall(r"python -m ([a-z_.]+)", document("README.md"))
    assert named
    for module in named:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("topics/records.py", "import processors.order", "topics (what is said)"),
        ("processors/order.py", "import asyncio", "processors (what is decided)"),
        ("processors/order.py", "import streams.settings", "processors (what is decided)"),
        ("streams/engine/store.py", "import topics.orders", "the engine knows nothing of orders"),
        ("streams/engine/task.py", "import aiokafka", "the logic of a task"),
        ("simulators/pos.py", "import processors.order", "the outside world"),
        ("oracle/facts.py", "import processors.order", "the oracle judges from outside"),
        ("oracle/ledgers.py", "import simulators.ledger", "the oracle judges from outside"),
        ("streams/views/orders.py", "import oracle.judging", "nothing that is judged knows the oracle"),
    ],
)
def test_an_import_that_is_not_allowed_is_found(tmp_path: Path, file: str, line: str, contract: str) -> None:
    for package in ("topics", "processors", "streams", "simulators", "oracle"):
        for module in modules(package):
            copy = tmp_path / module.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(module.read_bytes())
    (tmp_path / "pyproject.toml").write_text(document("pyproject.toml"))
    with (tmp_path / file).open("a") as broken:
        broken.write(f"\n{line}\n")
    told = subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1, told.stdout + told.stderr
    broken_contracts = told.stdout.partition("Broken contracts")[2]
    assert contract in broken_contracts


def settings_in(text: str) -> set[str]:
    """The environment variables of ours that a text names."""
    return set(re.findall(r"\bDABBAWALA_[A-Z_]*[A-Z]\b", text))
