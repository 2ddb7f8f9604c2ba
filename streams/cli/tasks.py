"""`dabbawala tasks`: which worker has which partition, and how far behind it is."""

from collections.abc import Sequence
from typing import Any

import click
from rich.text import Text

from streams.cli.asking import ask
from streams.cli.errors import NOT_SO
from streams.cli.showing import json_option, print_json, print_table, text

OPEN = "open"
HASHED_S = 600.0
"""How long a worker may take to read all that it has."""
TOLD = ("worker", "lag", "commits", "resets", "calls", "backlog")


@click.command()
@click.option("--topics", "by_topic", is_flag=True, help="A line a topic: position, end, lag.")
@click.option("--hash", "hashed", is_flag=True, help="The hash of each one's tables: equal state, equal hash.")
@json_option
@click.pass_context
def tasks(ctx: click.Context, by_topic: bool, hashed: bool, as_json: bool) -> None:
    """Show each partition's task: its worker, whether it is open, how far behind it is.

    Ends with 1 if a partition is not open anywhere; what one is held for is said on stderr.
    """
    found = ask("/v1/tasks", {"hash": "true"}, timeout_s=HASHED_S) if hashed else ask("/v1/tasks")
    if as_json:
        print_json(found)
    elif by_topic:
        lines = (line for task in found["tasks"] for line in _topics(task))
        print_table("positions", ("partition", "topic", "next", "end", "lag"), lines)
    else:
        told = (*TOLD, "hash") if hashed else TOLD
        print_table("tasks", ("partition", "state", *told), (_line(task, told) for task in found["tasks"]))
        for why in dict.fromkeys(task["why"] for task in found["tasks"] if "why" in task):
            click.echo(f"Held: {why}.", err=True)
    if any(task["state"] != OPEN for task in found["tasks"]):
        ctx.exit(NOT_SO)


def _line(task: dict[str, Any], told: Sequence[str]) -> list[Text]:
    state = Text(task["state"], "green" if task["state"] == OPEN else "bold red")
    return [text(task["partition"]), state, *(text(task.get(name)) for name in told)]


def _topics(task: dict[str, Any]) -> list[list[Text]]:
    return [
        [text(value) for value in (task["partition"], topic, at["next"], at["end"], at["lag"])]
        for topic, at in task.get("topics", {}).items()
    ]
