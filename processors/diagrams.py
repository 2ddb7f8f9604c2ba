"""The machines' tables as people read them, for ARCHITECTURE.md: ``python -m processors.diagrams --write``.

The text stands between two marks in that file; ``--check`` says whether it is what the tables say today. This module
is a command and no part of what is decided: it is the only one here that reads and writes files.
"""

import argparse
import sys
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from processors import delivery, dispatch, driver, history, order, payment, restaurant
from processors.decision import Table, Transition

BEGIN, END = "<!-- machines: begin -->", "<!-- machines: end -->"
FILE = Path("ARCHITECTURE.md")
MACHINES: tuple[tuple[str, str, Table[Any], type[Enum]], ...] = (
    ("Order", "processors/order.py", order.TABLE, order.Stage),
    ("Payment", "processors/payment.py", payment.TABLE, payment.Stage),
    ("Restaurant", "processors/restaurant.py", restaurant.TABLE, restaurant.Stage),
    ("Delivery", "processors/delivery.py", delivery.TABLE, delivery.Stage),
    ("History", "processors/history.py", history.TABLE, history.Stage),
    ("Driver", "processors/driver.py", driver.TABLE, driver.Stage),
    ("Dispatch", "processors/dispatch.py", dispatch.TABLE, dispatch.Stage),
)


class NoMarks(ValueError):
    """The file has no place for the tables; the message says what to do."""


def render() -> str:
    """Every machine: a state diagram (Mermaid) where it has states to move between, and its table (Markdown)."""
    return "\n\n".join(_machine(*machine) for machine in MACHINES) + "\n"


def inserted(text: str) -> str:
    """The text of a file with what stands between the marks brought up to date; :class:`NoMarks` if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoMarks(f"{FILE} needs the lines {BEGIN} and {END}: the machines' tables go between them")
    return f"{before}{BEGIN}\n\n{render()}\n{END}{after}"


def main(arguments: list[str]) -> str | None:
    """Write the file or check it; what is wrong, if anything is."""
    parser = argparse.ArgumentParser(
        prog="python -m processors.diagrams", description="The machines' tables, for people."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help=f"bring {FILE} up to date")
    what.add_argument("--check", action="store_true", help=f"see whether {FILE} is up to date")
    chosen = parser.parse_args(arguments)
    try:
        text = FILE.read_text()
        wanted = inserted(text)
    except FileNotFoundError:
        return f"{FILE} is not here: run this in the folder that holds it"
    except NoMarks as missing:
        return str(missing)
    if chosen.write:
        FILE.write_text(wanted)
    elif text != wanted:
        return f"{FILE} is not what the machines' tables say: run python -m processors.diagrams --write"
    return None


def _machine(name: str, path: str, table: Table[Any], stages: type[Enum]) -> str:
    moves = [row for row in table if row.to is not None]
    parts = [f"#### {name} (`{path}`)", *([_diagram(moves, stages)] if moves else []), _table(table, stages)]
    return "\n\n".join(parts)


def _diagram(moves: Iterable[Transition], stages: type[Enum]) -> str:
    lines = [f'    state "{stage.value}" as {stage.name}' for stage in stages if stage.value != stage.name]
    reached = {row.to for row in moves if row.to is not None}
    left = {stage for row in moves for stage in row.at}
    for row in moves:
        assert row.to is not None
        for stage in row.at:
            lines.append(f"    {'[*]' if stage is None else stage.name} --> {row.to.name}: {row.event.__name__}")
    lines += [f"    {stage.name} --> [*]" for stage in stages if stage in reached - left]
    return "\n".join(["```mermaid", "stateDiagram-v2", *dict.fromkeys(lines), "```"])


def _table(table: Iterable[Transition], stages: type[Enum]) -> str:
    lines = ["| in | event | if | to | what happens |", "|---|---|---|---|---|"]
    guarded: set[tuple[Enum | None, type]] = set()
    for row in table:
        otherwise = any((stage, row.event) in guarded for stage in row.at)
        lines.append(f"| {' | '.join(_cells(row, stages, otherwise))} |")
        guarded.update((stage, row.event) for stage in row.at if row.when is not None)
    return "\n".join(lines)


def _cells(row: Transition, stages: type[Enum], otherwise: bool) -> tuple[str, ...]:
    does = [row.does.__doc__ or ""]
    if row.again:
        does.append("the event is applied once more in that stage")
    if row.update:
        does.append("a record on `order-updates`")
    condition = ("otherwise" if otherwise else "") if row.when is None else row.when.__doc__ or ""
    return _in(row, stages), row.event.__name__, condition, "" if row.to is None else row.to.value, "; ".join(does)


def _in(row: Transition, stages: type[Enum]) -> str:
    if set(row.at) == set(stages):
        return "any"
    return " / ".join("-" if stage is None else stage.value for stage in row.at)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
