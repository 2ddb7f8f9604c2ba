"""Output of the commands: tables and sentences for people, JSON for scripts."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from topics.money import amount_text
from topics.order_updates import OrderStatus
from topics.text import plain, plain_lines

GAP = 2
"""Blanks between two columns."""
MAX_UNBROKEN = 20
"""A longer word, as a URL, may be broken anywhere. Ids in the first column, statuses and times are never broken."""
SENTENCE_WIDTH = 30
"""A wider column holds text, and stays at least this wide in a table."""
INDENT = 4
"""Blanks before a cell that is printed below its row."""
PIPE_WIDTH = 10_000
"""Width of a tree in a pipe: no text of an order is longer."""
STATUS_STYLES = {
    OrderStatus.CREATED: "white",
    OrderStatus.SCHEDULED: "cyan",
    OrderStatus.IN_PREPARATION: "yellow",
    OrderStatus.SCHEDULING_DELIVERY: "magenta",
    OrderStatus.WAITING_FOR_DRIVER: "magenta",
    OrderStatus.IN_DELIVERY: "blue",
    OrderStatus.DELIVERED: "green",
    OrderStatus.REJECTED: "red",
    OrderStatus.CANCELLED: "red",
}
NO_ANSWER = {
    "the payment": "no answer from the payment provider",
    "the restaurant's answer": "no answer from the restaurant",
    "a driver": "no driver found",
    "the food": "the food is not ready",
    "the driver to pick up": "the driver has not picked the food up",
    "the driver to deliver": "the driver has not delivered",
    "the refund": "no answer about the refund",
}
AN_OPERATOR = "an operator"
"""Start of the text of an attention that only an operator can clear."""
"""An order's `waits_for` -> the sentence for people, before the time."""

Column = Sequence[Text]
"""Cells of a column, its head first."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


# -- tables and JSON -------------------------------------------------------------------------------------------------


def echo(line: str, *, err: bool = False) -> None:
    """Print one line, on stderr if ``err``. Characters that could drive the terminal are escaped."""
    click.echo(plain(line), err=err)


def print_text(text: str) -> None:
    """Print a text of lines that may hold any characters. Those that could drive the terminal are escaped."""
    click.echo(plain_lines(text), nl=False)


def print_json(data: Any) -> None:
    """Print JSON, indented by two blanks. Characters that could drive a terminal are escaped as in JSON."""
    click.echo(plain_lines(json.dumps(data, indent=2, ensure_ascii=False)))


def print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    """Print a table under a title, if it has one, without its empty columns. The first column is the id, to be copied.

    In a terminal that is too narrow, text columns and then the last columns move below their rows. Output to a pipe is
    never broken or cut.
    """
    console, room = console_of()
    console.print(table_of(title, heads, rows, room), crop=False)


def table_of(title: str, heads: Sequence[str], rows: Iterable[Sequence[Text]], room: int | None) -> Group:
    """Return a table as `print_table` prints it; ``room`` is the width of the terminal, None in a pipe."""
    lines = [[Text(head, "bold") for head in heads], *(list(map(_harmless, row)) for row in rows)]
    columns: list[Column] = [column for column in zip(*lines, strict=True) if not _is_empty(column)]
    below: list[Column] = []
    while room is not None and len(columns) > 1 and _across(_narrowest(columns)) > room:
        texts = [number for number, column in enumerate(columns) if number and _widest(column) > SENTENCE_WIDTH]
        below.insert(0, columns.pop(texts[-1] if texts else -1))
    widths = _widths(columns, room)
    head = [Text(plain(title), "italic", no_wrap=True, overflow="ignore")] if title else []
    if not below:  # one grid takes half the time
        return Group(*head, _grid(list(zip(*columns, strict=True)), widths))
    parts: list[RenderableType] = [*head]
    for number, row in enumerate(zip(*columns, strict=True)):
        parts.append(_grid([row], widths))
        for column in below:
            if number and column[number].plain:
                cell = Text.assemble(column[0], ": ", column[number])
                parts.append(Padding(cell, (0, 0, 0, INDENT)))
    return Group(*parts)


def print_tree(tree: Tree) -> None:
    """Print a tree. In a terminal its texts are broken at the width; in a pipe they may have any length."""
    console, room = console_of()
    if room is None:
        console.width = PIPE_WIDTH
    console.print(tree, crop=False)


def print_fields(title: str, fields: Iterable[tuple[str, Any]]) -> None:
    """Print the fields of one thing, one a line; fields without a value are left out."""
    cells = [(plain(name), _harmless(value if isinstance(value, Text) else text(value))) for name, value in fields]
    columns = list(zip(*((Text(name, "bold"), value) for name, value in cells if value.plain), strict=True))
    console, room = console_of()
    console.print(Text(plain(title), "italic"), soft_wrap=True)
    console.print(_grid(list(zip(*columns, strict=True)), _widths(columns, room)), crop=False)


def print_next_page_hint(command: str, cursor: str | None) -> None:
    """Print on stderr how to see the next page, if there is one."""
    if cursor is not None:
        echo(f"There are more rows: {command} --cursor '{cursor}', or --all.", err=True)


# -- cells -----------------------------------------------------------------------------------------------------------


def text(value: Any) -> Text:
    """Return a value as a cell, without markup; None is empty."""
    return Text("" if value is None else str(value))


def _harmless(cell: Text) -> Text:
    """Return the cell; if it has characters that could drive the terminal, with these escaped and in one style."""
    shown = plain_lines(cell.plain)
    return cell if shown == cell.plain else Text(shown, cell.style)


def when(moment: str | datetime | None) -> Text:
    """Return a moment of the API in the local time zone, with date and zone: `2026-01-02 03:04:05 +0530`."""
    if moment is None:
        return Text("")
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return Text(at.astimezone().strftime("%Y-%m-%d %H:%M:%S %z"), no_wrap=True)


def status_text(status: str) -> Text:
    """Return an order's status in its colour."""
    return Text(status, STATUS_STYLES[OrderStatus(status)])


def money(minor_units: int | None, currency: str | None) -> str | None:
    """Return an amount as `INR 640.00` with the digits of its currency; None without one."""
    if minor_units is None:
        return None
    return amount_text(minor_units, currency or "")


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a count with its noun: `0 orders`, `1 order`, `2 orders`; ``things`` is a plural not made with s."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def duration(seconds: float) -> str:
    """Return a time as `29 s`, `4 min 10 s`, `2 h 5 min` or `3 days`."""
    left = max(0, round(seconds))
    if left < 120:
        return f"{left} s"
    if left < 7200:
        return f"{left // 60} min {left % 60} s"
    if left < 48 * 3600:
        return f"{left // 3600} h {left % 3600 // 60} min"
    return f"{left // 86_400} days"


def seconds_until(moment: str | datetime) -> float:
    """Return the seconds until a moment of the API; negative once it has passed."""
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return (at - datetime.now(UTC)).total_seconds()


def attention_text(waits_for: str, since: str | datetime) -> str:
    """Return the reason that an order needs a person: `no answer from the restaurant for 29 s`."""
    head, colon, reason = waits_for.partition(": ")
    sentence = NO_ANSWER.get(head, f"waiting for {head}")
    return f"{sentence} for {duration(-seconds_until(since))}" + (f" ({reason})" if colon else "")


def attention_advice(order: str, attention: dict[str, Any]) -> str:
    """Return the next attempt of the open call that an order waits for, with the command that retries it now; or the
    command that clears an attention which waits for an operator; or "".
    """
    call = attention.get("call")
    if call is None:
        waits_for_operator = attention["waits_for"].startswith(AN_OPERATOR)
        return f"resolve it, then `dabbawala orders settle {order}`" if waits_for_operator else ""
    left_s = seconds_until(call["next_attempt"])
    attempt = f"next attempt in {duration(left_s)}" if left_s > 0 else "an attempt is due now"
    return f"{attempt}; `dabbawala calls retry {call['key']}`"


# -- layout ----------------------------------------------------------------------------------------------------------


def console_of() -> tuple[Console, int | None]:
    """Return the console, and its width in a terminal; None in a pipe, where lines may have any length."""
    console = Console(highlight=False)
    return console, console.width if console.is_terminal else None


def _grid(rows: Iterable[Sequence[Text]], widths: Sequence[int]) -> Table:
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.width = _across(widths)
    for width in widths:
        grid.add_column(width=width, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    return grid


def _widths(columns: Sequence[Column], room: int | None) -> list[int]:
    """The width of each column; where they do not fit, the widest ones that can shrink do."""
    widths, least = [_widest(column) for column in columns], _narrowest(columns)
    if room is None:
        return widths
    widths = [min(width, max(room, needed)) for width, needed in zip(widths, least, strict=True)]
    while _across(widths) > room:
        shrinkable = [number for number, width in enumerate(widths) if width > least[number]]
        if not shrinkable:  # the terminal breaks the lines
            break
        widths[max(shrinkable, key=widths.__getitem__)] -= 1
    return widths


def _across(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _narrowest(columns: Sequence[Column]) -> list[int]:
    """The least width at which each column reads well; the first one keeps its width."""
    return [_least_width(column) if number else _widest(column) for number, column in enumerate(columns)]


def _least_width(column: Column) -> int:
    return SENTENCE_WIDTH if _widest(column) > SENTENCE_WIDTH else max(map(_longest_word, column))


def _is_empty(column: Column) -> bool:
    """True if every cell is empty; a table without rows keeps its heads."""
    return len(column) > 1 and not any(cell.plain for cell in column[1:])


def _widest(column: Column) -> int:
    return max(cell_len(line.expandtabs()) for cell in column for line in cell.plain.splitlines() or [""])


def _longest_word(cell: Text) -> int:
    if cell.no_wrap:
        return cell.cell_len
    return min(MAX_UNBROKEN, max(map(cell_len, cell.plain.split()), default=0))
