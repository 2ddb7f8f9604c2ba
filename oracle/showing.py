"""How a report is shown: tables and sentences for people, JSON for scripts."""

from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.report import Promise, Report

UNBOUND = 500
"""Width of a table that goes into a file or a pipe: nothing is broken into lines there."""
MOST = 200
"""Sentences shown of one promise; JSON has all."""


def as_json(report: Report) -> str:
    """All of it, two spaces deep."""
    shown = {
        "since": report.since,
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
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()


def show(report: Report) -> None:
    """The books, the promises, and each violation as a sentence."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=UNBOUND)
    since = f", of what began from {report.since:%Y-%m-%d %H:%M:%S} UTC on" if report.since else ""
    console.print(_table(f"the books{since}", ("", ""), ((name, str(count)) for name, count in report.books.items())))
    console.print()
    console.print(
        _table("the promises", ("", "promise", "checked", "violations", "not judged"), map(_line, report.promises))
    )
    for promise in report.promises:
        _show_violations(console, promise)
    if report.unreadable:
        console.print("\nnot readable", style="bold")
        for each in report.unreadable:
            console.print(Text(f"{each.where}: {each.why}{' (no task wrote it)' if each.foreign else ''}"))


def _show_violations(console: Console, promise: Promise) -> None:
    if not promise.violations:
        return
    console.print(Text(f"\n{promise.number}. {promise.title}", "bold red"))
    for violation in promise.violations[:MOST]:
        console.print(Text(violation.sentence))
    if len(promise.violations) > MOST:
        console.print(f"and {len(promise.violations) - MOST:,} more, which --json has")


def _line(promise: Promise) -> tuple[str | Text, ...]:
    count = Text(str(len(promise.violations)), "bold red" if promise.violations else "green")
    if not promise.checked:
        count = Text("" if not promise.violations else str(len(promise.violations)))
    return str(promise.number), promise.title, str(promise.checked or ""), count, Text(promise.unjudged)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.show_header = any(heads)
    for head in heads:
        drawn.add_column(
            head, header_style="bold", overflow="fold", justify="right" if head in ("checked", "violations") else "left"
        )
    for row in rows:
        drawn.add_row(*row)
    return drawn
