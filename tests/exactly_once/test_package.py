"""The package is independent of the product, and its README shows its exports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import exactly_once
from tests.support.stack import ROOT

PACKAGE = ROOT / "exactly_once"
README = (PACKAGE / "README.md").read_text()
PRODUCT_WORDS = re.compile(
    r"dabbawala|restaurant|\bdriver\b|\borders\b|payment|courier|\bmenus?\b|/v1/|(?-i:\bstreams\.)", re.IGNORECASE
)
UNTYPED_ROOMS = {"faust", "kafka"}
"""Folders that call Faust and aiokafka, whose types are incomplete: `Any` and `cast` occur in no other."""
WITHOUT_THE_PRODUCT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"streams", "topics", "processors", "simulators", "oracle"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import exactly_once
"""


def test_the_package_imports_without_the_product() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_THE_PRODUCT], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "file",
    sorted(file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".md", ".typed")),
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_no_file_names_the_product(file: Path) -> None:
    assert not PRODUCT_WORDS.findall(file.read_text())


def test_the_readme_shows_the_example() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert shown == (ROOT / "examples" / "count.py").read_text()


def test_the_readme_describes_every_public_name() -> None:
    section = README.partition("## Public names")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)` \| .+\. \|$", section, re.MULTILINE) == exactly_once.__all__


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_two_rooms_touch_untyped_clients(file: Path) -> None:
    names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
    assert file.relative_to(PACKAGE).parts[0] in UNTYPED_ROOMS or not names & {"Any", "cast"}
