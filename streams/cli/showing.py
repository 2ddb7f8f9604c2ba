"""How commands show what they have found: tables for people, JSON for scripts."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP = 2
"""Between two columns."""
LONGEST_WORD = 20
"""What is longer and no id, as a URL is, may be broken anywhere; ids, statuses, events and moments are not."""
SENTENCE = 30
"""What is wider is text, and not narrower than this in a table."""
BENEATH = 4
"""How far in it begins what has no room in a row."""

Column = Sequence[Text]
"""The head first."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts, instead of a table.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows at most; more by --cursor."
)
cursor_option = click.option("--cursor", metavar="CURSOR", help="Go on after this one: what the page before told last.")
all_option = click.option("--all", "every", is_flag=True, help="All rows, however many.")


def print_json(data: Any) -> None:
    """Two spaces deep, without colours."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    """A table under a title, without the columns in which there is nothing. The first one is the id, to be copied.

    In a terminal that is too narrow for it, texts stand beneath their rows, and then the last columns.
    """
    lines = [[Text(head, "bold") for head in heads], *rows]
    columns: list[Column] = [column for column in zip(*lines, strict=True) if not _is_empty(column)]
    beneath: list[Column] = []
    console, room = _console()
    while room is not None and len(columns) > 1 and _across(_least(columns)) > room:
        texts = [number for number, column in enumerate(columns) if number and _widest(column) > SENTENCE]
        beneath.insert(0, columns.pop(texts[-1] if texts else -1))
    _print(console, title, columns, beneath, _widths(columns, room))


def print_fields(title: str, fields: Iterable[tuple[str, Any]]) -> None:
    """What is known of one thing: a line a field, those without a value left out."""
    cells = [(name, value if isinstance(value, Text) else text(value)) for name, value in fields]
    told = [(Text(name, "bold"), value) for name, value in cells if value.plain]
    columns = list(zip(*told, strict=True))
    console, room = _console()
    _print(console, title, columns, [], _widths(columns, room))


def text(value: Any) -> Text:
    """A value as it is, with nothing of it taken for markup."""
    return Text("" if value is None else str(value))


def when(moment: str | None) -> Text:
    """A moment of the API, by the clock of this machine; without the date if that is today."""
    if moment is None:
        return Text("")
    at = datetime.fromisoformat(moment).astimezone()
    today = at.date() == datetime.now().astimezone().date()
    return Text(at.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S"), no_wrap=True)


def tell_more(command: str, cursor: str | None) -> None:
    """On stderr, how to see what comes after this page; nothing where that is all."""
    if cursor is not None:
        click.echo(f"There are more: {command} --cursor '{cursor}', or --all.", err=True)


def _console() -> tuple[Console, int | None]:
    """And how wide what it shows may be: as a terminal is, else as it likes. In a pipe no line is broken or cut off."""
    console = Console(highlight=False)
    return console, console.width if console.is_terminal else None


def _print(
    console: Console, title: str, columns: Sequence[Column], beneath: Sequence[Column], widths: Sequence[int]
) -> None:
    console.print(Text(title, "italic"), soft_wrap=True)
    rows = list(zip(*columns, strict=True))
    if not beneath:  # all at once takes half the time
        console.print(_aligned(rows, widths), crop=False)
        return
    for number, row in enumerate(rows):
        console.print(_aligned([row], widths), crop=False)
        for column in beneath:
            if number and column[number].plain:
                told = Text.assemble(column[0], ": ", column[number])
                console.print(Padding(told, (0, 0, 0, BENEATH)))


def _aligned(rows: Iterable[Sequence[Text]], widths: Sequence[int]) -> Table:
    drawn = Table.grid(padding=(0, GAP, 0, 0))
    drawn.width = _across(widths)
    for width in widths:
        drawn.add_column(width=width, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _widths(columns: Sequence[Column], room: int | None) -> list[int]:
    """As wide as what is in them; where there is no room for that, the widest ones that can be narrower are."""
    widths, least = [_widest(column) for column in columns], _least(columns)
    if room is None:
        return widths
    widths = [min(width, max(room, needed)) for width, needed in zip(widths, least, strict=True)]
    while _across(widths) > room:
        narrower = [number for number, width in enumerate(widths) if width > least[number]]
        if not narrower:  # the terminal breaks the lines
            break
        widths[max(narrower, key=widths.__getitem__)] -= 1
    return widths


def _across(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _least(columns: Sequence[Column]) -> list[int]:
    """How narrow each can be and is still read well."""
    return [_narrowest(column) if number else _widest(column) for number, column in enumerate(columns)]


def _narrowest(column: Column) -> int:
    return SENTENCE if _widest(column) > SENTENCE else max(map(_longest_word, column))


def _is_empty(column: Column) -> bool:
    """All its cells are; where there are no rows, the head tells something."""
    return len(column) > 1 and not any(cell.plain for cell in column[1:])


def _widest(column: Column) -> int:
    return max(cell_len(line.expandtabs()) for cell in column for line in cell.plain.splitlines() or [""])


def _longest_word(cell: Text) -> int:
    if cell.no_wrap:
        return cell.cell_len
    return min(LONGEST_WORD, max(map(cell_len, cell.plain.split()), default=0))
