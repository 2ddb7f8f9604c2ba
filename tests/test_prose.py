"""The prose that people read keeps the rules of CONTRIBUTING.md, as far as ``tools/prose.py`` can check them."""

from pathlib import Path

import pytest

from tools.prose import OTHER_FILES, files, findings, package_of


@pytest.mark.parametrize("package", sorted({package_of(file) for file in files()}))
def test_prose_is_plain(package: str) -> None:
    places = [str(finding) for file in files() if package_of(file) == package for finding in findings(file)]
    assert not places, "\n".join(places)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""What a task holds."""', [1]),
        ('"""Whatsoever."""', []),
        ('"""Return what a task holds."""', []),
        ('X = 1\n"""Of every topic."""', [2]),
        ('"""Read it\n\nanew."""', [3]),
        ("x = 1  # it is no\nx = 2  # more", [1]),
        ("x = 1  # no more than four", []),
        ('raise ValueError("choose it anew")', [1]),
        ('raise ValueError(f"{1} are told")', [1]),
        ('X = "anew"', []),
        ("# ``anew`` is a word", []),
    ],
)
def test_rules_find_what_they_should(tmp_path: Path, text: str, expected: list[int]) -> None:
    (tmp_path / "module.py").write_text(text)
    assert [finding.line for finding in findings(Path("module.py"), tmp_path)] == expected


def test_markdown_is_checked_outside_code(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# Page\n\nIt is no\nmore.\n\n```sh\necho anew\n```\n\n`anew`, whoever.\n")
    assert [finding.line for finding in findings(Path("page.md"), tmp_path)] == [3, 10]


def test_other_files_are_checked_with_their_comments(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("demo: ## choose it anew\n\n# It is no\n# more.\n")
    assert [finding.line for finding in findings(Path("Makefile"), tmp_path)] == [1, 3]


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_among_the_files(name: str) -> None:
    assert Path(name) in files()


def test_generated_pages_are_checked_at_their_source(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("<!-- Generated: run it. -->\n\nIt is anew.\n")
    assert findings(Path("page.md"), tmp_path) == []


@pytest.mark.parametrize(
    ("file", "package"),
    [
        ("README.md", "."),
        ("topics/orders.py", "topics"),
        ("streams/cli/orders.py", "streams/cli"),
        ("streams/app.py", "streams"),
    ],
)
def test_findings_are_counted_by_package(file: str, package: str) -> None:
    assert package_of(Path(file)) == package
