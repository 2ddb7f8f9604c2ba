"""`dabbawala trace`: the trace of an order as a tree, without a collector."""

from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from streams.cli.client import ask
from streams.cli.output import echo, json_option, print_json, when
from streams.cli.param_types import ORDER
from topics.text import plain

MAX_LINE = 10_000
"""Characters of a line in a pipe, where no line is broken."""


@click.command()
@click.argument("order", type=ORDER, metavar="ID")
@json_option
def trace(order: str, as_json: bool) -> None:
    """Show the trace of an order: each step below the one that caused it, with times, waits and errors.

    The tree comes from the order's journal, so it needs no collector and shows every order. `/traces/ID` of a worker
    shows it as a page.
    """
    found = ask(f"/traces/{order}")
    if as_json:
        print_json(found)
        return
    spans = found["spans"]
    began = datetime.fromisoformat(spans[0]["start"])
    trees: dict[str, Tree] = {}
    for span in spans:
        above = trees.get(span.get("parent", ""))
        label = _label(span, began)
        trees[span["id"]] = Tree(label) if above is None else above.add(label)
    echo(f"trace {found['trace_id']} of {order}, placed at {when(spans[0]['start']).plain}")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = MAX_LINE
    console.print(trees[spans[0]["id"]])
    sampled = "exports" if found["sampled"] else "does not export"
    echo(f"The worker {sampled} this trace to a collector.", err=True)


def _label(span: dict[str, Any], began: datetime) -> Text:
    start, end = datetime.fromisoformat(span["start"]), span["end"]
    label = Text(f"+{_seconds((start - began).total_seconds())}  ", "dim")
    label.append(plain(span["name"]), "bold")
    took_s = 0.0 if end is None else (datetime.fromisoformat(end) - start).total_seconds()
    if end is None:
        label.append("  goes on", "yellow")
    elif took_s:
        label.append(f"  took {_seconds(took_s)}")
    notes = list(span.get("notes", ()))
    if "attempts" in span:
        notes.append(f"{span['attempts']} attempts so far")
    if "next" in span:
        notes.append(
            f"next at {when(span['next']).plain}" if "attempts" in span else f"until {when(span['next']).plain}"
        )
    if notes:
        label.append(plain("  " + "; ".join(notes)))
    if error := span.get("error"):
        label.append(plain(f"  {error}"), "bold red")
    return label


def _seconds(duration_s: float) -> str:
    return f"{duration_s:.3f} s"
