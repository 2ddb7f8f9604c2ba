"""Purity of the processors: a decision depends only on its arguments."""

import ast
import sys
from pathlib import Path

import pytest

import processors

FOLDER = Path(processors.__file__).parent
ALLOWED = {"msgspec", "h3", "topics", "processors"}
IMPURE = {
    "asyncio",
    "datetime",
    "io",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "sys",
    "threading",
    "time",
    "uuid",
}
IMPURE_NAMES = {"open", "print", "input", "eval", "exec", "__import__"}
MODULES = sorted(FOLDER.glob("*.py"))


def imports(tree: ast.AST) -> set[str]:
    """Return the top-level packages that a module imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_processors_import_no_impure_module(module: Path) -> None:
    packages = imports(ast.parse(module.read_text()))
    assert packages - ALLOWED <= sys.stdlib_module_names
    assert not packages & IMPURE


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_processors_are_not_async_and_have_no_globals(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global | ast.Nonlocal)
        assert not (isinstance(node, ast.Name) and node.id in IMPURE_NAMES)
