"""Rendering of a report: tables and sentences for people, JSON for scripts."""

from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.report import Promise, Report
from topics.text import plain, plain_lines

FILE_WIDTH = 500
"""Width of tables in a file or a pipe, large enough that no line is wrapped."""
MAX_SENTENCES = 200
"""Number of sentences shown per promise; JSON contains all."""


def as_json(report: Report) -> str:
    """Return the whole report as JSON, indented by two spaces."""
    shown = {
        "verdict": report.verdict,
        "since": report.since,
        "speeds": report.speeds,
        "books": report.books,
        "promises": [
            {
                "number": promise.number,
                "promise": promise.title,
                "checked": promise.checked,
                "violations": [violation._asdict() for violation in promise.violations],
                "not_judged": promise.unjudged,
            }
            for promise in report.promises
        ],
        "unreadable": [each._asdict() for each in report.unreadable],
    }
    return plain_lines(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())


def show(report: Report) -> None:
    """Print the books, the promises, and a sentence for each violation."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=FILE_WIDTH)
    since = f", from {report.since:%Y-%m-%d %H:%M:%S} UTC on" if report.since else ""
    console.print(_table(f"the books{since}", ("", ""), ((name, str(count)) for name, count in report.books.items())))
    console.print()
    console.print(
        _table("the promises", ("", "promise", "checked", "violations", "not judged"), map(_line, report.promises))
    )
    for promise in report.promises:
        _show_violations(console, promise)
    if report.unreadable:
        console.print("\nunreadable", style="bold")
        for each in report.unreadable:
            console.print(Text(plain(f"{each.where}: {each.why}{' (no task wrote it)' if each.foreign else ''}")))
    console.print()
    if report.speeds:
        console.print(
            f"Waits are judged by the speed on record: {', '.join(f'{speed:g}x' for speed in report.speeds)}."
        )
    console.print(Text(report.verdict, "bold red" if report.violations else "bold green"))


def _show_violations(console: Console, promise: Promise) -> None:
    if not promise.violations:
        return
    console.print(Text(f"\n{promise.number}. {promise.title}", "bold red"))
    for violation in promise.violations[:MAX_SENTENCES]:
        console.print(Text(plain(violation.sentence)))
    if len(promise.violations) > MAX_SENTENCES:
        console.print(f"and {len(promise.violations) - MAX_SENTENCES:,} more; --json lists all")


def _line(promise: Promise) -> tuple[str | Text, ...]:
    count = Text(str(len(promise.violations)), "bold red" if promise.violations else "green")
    if not promise.checked:
        count = Text("" if not promise.violations else str(len(promise.violations)))
    return str(promise.number), promise.title, str(promise.checked or ""), count, Text(promise.unjudged)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.show_header = any(heads)
    for head in heads:
        table.add_column(
            head, header_style="bold", overflow="fold", justify="right" if head in ("checked", "violations") else "left"
        )
    for row in rows:
        table.add_row(*row)
    return table
