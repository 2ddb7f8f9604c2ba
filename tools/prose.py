"""Rules of English for docstrings, comments, string literals and Markdown: ``python -m tools.prose [PATH ...]``.

CONTRIBUTING.md explains the rules. This program finds only those that a pattern can find:

| rule | applies to |
|---|---|
| the first line of a docstring starts with a verb or a noun | docstrings, also those of attributes |
| words of :data:`WORDS` do not occur | docstrings, comments, strings with a space in them, Markdown outside code |

The words do not occur in :data:`OTHER_FILES` either.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "exactly_once",
    "topics",
    "processors",
    "streams",
    "simulators",
    "oracle",
    "examples",
    "benchmarks",
    "tests",
    "tools",
    "verification",
)
"""Folders of Python packages."""
FOLDERS = (*PACKAGES, "requirements", "docs")
NESTED = {"exactly_once", "streams", "tests", "verification"}
"""Folders whose subfolders are counted one by one."""
OTHER_FILES = ("Makefile", "pyproject.toml", "docker-compose.yaml", "Dockerfile", ".ci/run")
"""Files whose comments, help texts and names are read by people."""
EXEMPT = {Path("tests/test_prose.py")}
"""Files that quote what the rules forbid."""

FIRST_WORDS = re.compile(
    r"(what|who|whose|which|when|where|whether|how|why|whom|of|as|else|it|in a row)\b", re.IGNORECASE
)
WORDS = re.compile(
    r"\b(anew|whoever|whomever|whatever|thereof|whereof|at\s+hand|for\s+else|be\s+it|be\s+they|"
    r"of\s+(?:its|their|his)\s+own|the\s+same\s+again|no\s+more(?!\s+than)|go(?:es)?\s+by|"
    r"(?:is|are|was|were|be|been|being)\s+told)\b",
    re.IGNORECASE,
)
CODE_SPAN = re.compile(r"(`+)[^`]+\1")
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)

COMMENT_SIGN = re.compile(r"^[ \t]*#+", re.MULTILINE)

GENERATED = "<!-- Generated"
"""Beginning of a generated page."""


class Finding(NamedTuple):
    """A place where a rule is broken."""

    file: Path
    """Relative to the root of the repository."""
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def package_of(file: Path) -> str:
    """Return the name under which the findings of a file are counted."""
    parts = file.parts[:-1]
    return "/".join(parts[: 2 if parts and parts[0] in NESTED else 1]) or "."


def files(root: Path = ROOT) -> list[Path]:
    """List the files that the rules apply to, relative to the root."""
    found = [*root.glob("*.md")]
    for folder in FOLDERS:
        found += [file for file in (root / folder).rglob("*") if file.suffix in (".py", ".md")]
    relative = (file.relative_to(root) for file in sorted(found))
    visible = (file for file in relative if not any(part.startswith(".") for part in file.parts))
    return [*(file for file in visible if file not in EXEMPT), *map(Path, OTHER_FILES)]


def findings(file: Path, root: Path = ROOT) -> list[Finding]:
    """Return the findings of one file, by line; a generated page has none, its source has them."""
    text = (root / file).read_text(encoding="utf-8")
    if text.startswith(GENERATED):
        return []
    check = CHECKS.get(file.suffix, _in_other)
    return sorted(Finding(file, line, message) for line, message in check(text))


def _in_python(text: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(text)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_docstring = id(node) in docstrings
            if is_docstring:
                yield from _first_word(node.value, node.lineno)
            if is_docstring or " " in node.value:
                yield from _words(node.value, node.lineno)
    yield from _in_comments(text)


def _in_comments(text: str) -> Iterator[tuple[int, str]]:
    """Check runs of comment lines as one text, so that a phrase may break over two lines."""
    run, begin, last = "", 0, -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            yield from _words(run, begin)
            run, begin = "", token.start[0]
        run += token.string.lstrip("#") + "\n"
        last = token.start[0]
    yield from _words(run, begin)


def _in_markdown(text: str) -> Iterator[tuple[int, str]]:
    yield from _words(FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text), 1)


def _in_other(text: str) -> Iterator[tuple[int, str]]:
    """Check a file as one text, so that a phrase of a comment may break over two lines."""
    yield from _words(COMMENT_SIGN.sub("", text), 1)


CHECKS = {".py": _in_python, ".md": _in_markdown}
"""Suffix -> check; other files are checked as a whole."""


def _first_word(docstring: str, line: int) -> Iterator[tuple[int, str]]:
    found = FIRST_WORDS.match(docstring.strip())
    if found:
        yield line, f"the docstring starts with {found[0]!r}: start with a verb or a noun"


def _words(text: str, line: int) -> Iterator[tuple[int, str]]:
    plain = CODE_SPAN.sub(lambda span: " " * len(span[0]) if "\n" not in span[0] else span[0], text)
    for found in WORDS.finditer(plain):
        phrase = " ".join(found[0].split())
        yield line + plain.count("\n", 0, found.start()), f"{phrase!r}: use plain English"


def main(paths: Iterable[str]) -> int:
    """Print the findings of the files under these paths, of all files without one; return how many there are."""
    wanted = [Path(path) for path in paths] or [Path()]
    found = [
        finding
        for file in files()
        if any(file.is_relative_to(path) or path == Path() for path in wanted)
        for finding in findings(file)
    ]
    for finding in found:
        print(finding)
    return len(found)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
