"""Generated pages of ``docs/``: ``python -m tools.docs`` writes them, ``--check`` names those that are out of date."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tools import cli_pages, configuration, http_api, interfaces, monitoring, sql_tables, state_machines, topic_pages

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "<!-- Generated: change the source, then run `make docs`. -->\n\n"
PAGES: dict[str, Callable[[], str]] = {
    "docs/configuration.md": configuration.render,
    "docs/state-machines.md": state_machines.render,
    "docs/topics.md": topic_pages.render,
    "docs/http-api.md": http_api.render,
    "docs/cli.md": cli_pages.render,
    "docs/monitoring.md": monitoring.render,
    "docs/openapi.json": interfaces.openapi,
    "docs/asyncapi.json": interfaces.asyncapi,
    "docs/sql-tables.md": sql_tables.render,
}
"""Path of each generated page, and the function that renders it."""


def page(path: str) -> str:
    """Return the text that a generated page has to have."""
    notice = NOTICE if path.endswith(".md") else ""  # JSON has no comments
    return notice + PAGES[path]()


def is_current(path: str, root: Path = ROOT) -> bool:
    """Return whether a generated page exists and has the text that it has to have."""
    file = root / path
    return file.exists() and file.read_text(encoding="utf-8") == page(path)


def write(root: Path = ROOT) -> list[str]:
    """Write the pages that are out of date; return their paths."""
    stale = [path for path in PAGES if not is_current(path, root)]
    for path in stale:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(page(path), encoding="utf-8")
    return stale


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check the pages; return the exit code: 1 if the check finds a page that is out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description="Write the generated pages of docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    if parser.parse_args(arguments).check:
        stale = [path for path in PAGES if not is_current(path, root)]
        for path in stale:
            print(f"{path} is out of date: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for path in write(root):
        print(f"{path} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
