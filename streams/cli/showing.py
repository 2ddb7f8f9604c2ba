"""How commands show what they have found: tables for people, JSON for scripts."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

UNBOUND = 500
"""Width of a table that goes into a file or a pipe: nothing is broken into lines there."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts, instead of a table.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows at most; more by --cursor."
)
cursor_option = click.option("--cursor", metavar="CURSOR", help="Go on after this one: what the page before told last.")
all_option = click.option("--all", "every", is_flag=True, help="All rows, however many.")


def print_json(data: Any) -> None:
    """Two spaces deep, without colours."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[RenderableType]]) -> None:
    """A table under a title."""
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        drawn.add_column(head, header_style="bold", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    _console().print(drawn)


def print_fields(title: str, fields: Iterable[tuple[str, Any]]) -> None:
    """What is known of one thing: a line a field, those without a value left out."""
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name, value in fields:
        if value not in (None, ""):
            drawn.add_row(Text(name, "bold"), value if isinstance(value, Text) else text(value))
    _console().print(drawn)


def text(value: Any) -> Text:
    """A value as it is, with nothing of it taken for markup."""
    return Text("" if value is None else str(value))


def when(moment: str | None) -> Text:
    """A moment of the API, by the clock of this machine."""
    if moment is None:
        return Text("")
    return Text(datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S"))


def tell_more(command: str, cursor: str | None) -> None:
    """On stderr, how to see what comes after this page; nothing where that is all."""
    if cursor is not None:
        click.echo(f"There are more: {command} --cursor '{cursor}', or --all.", err=True)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=UNBOUND)
