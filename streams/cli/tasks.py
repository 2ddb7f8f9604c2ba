"""`dabbawala tasks`: each partition's worker, and its lag."""

from collections.abc import Sequence
from typing import Any

import click
from rich.text import Text

from streams.cli.client import ask
from streams.cli.errors import EXIT_FALSE
from streams.cli.output import echo, json_option, print_json, print_table, text

OPEN = "open"
HASH_TIMEOUT_S = 600.0
"""Limit for a worker to read every row that it has."""
FIELDS = ("worker", "lag", "commits", "resets", "calls", "backlog")


@click.command()
@click.option("--topics", "by_topic", is_flag=True, help="Print one line a topic: next offset, end, lag.")
@click.option("--hash", "hashed", is_flag=True, help="Print a hash of each task's tables: equal tables, equal hash.")
@json_option
@click.pass_context
def tasks(ctx: click.Context, by_topic: bool, hashed: bool, as_json: bool) -> None:
    """Show the task of each partition: its worker, state and lag.

    \b
    state    open; restoring; held (stderr gives the reason); unassigned (no worker has the partition);
             unknown (its worker does not answer)
    lag      records of the input topics that are not applied yet
    commits  transactions committed since the task opened
    resets   how often a failed transaction was rolled back
    calls    calls that wait for an answer
    backlog  records fetched and not applied yet

    The exit code is 1 if a partition is open on no worker.
    """
    found = ask("/v1/tasks", {"hash": "true"}, timeout_s=HASH_TIMEOUT_S) if hashed else ask("/v1/tasks")
    if as_json:
        print_json(found)
    elif by_topic:
        lines = (line for task in found["tasks"] for line in _topics(task))
        print_table("positions", ("partition", "topic", "next", "end", "lag"), lines)
    else:
        fields = (*FIELDS, "hash") if hashed else FIELDS
        print_table("tasks", ("partition", "state", *fields), (_line(task, fields) for task in found["tasks"]))
        for reason in dict.fromkeys(task["why"] for task in found["tasks"] if "why" in task):
            echo(f"Held: {reason}.", err=True)
    if any(task["state"] != OPEN for task in found["tasks"]):
        ctx.exit(EXIT_FALSE)


def _line(task: dict[str, Any], fields: Sequence[str]) -> list[Text]:
    state = Text(task["state"], "green" if task["state"] == OPEN else "bold red")
    return [text(task["partition"]), state, *(text(task.get(name)) for name in fields)]


def _topics(task: dict[str, Any]) -> list[list[Text]]:
    return [
        [text(value) for value in (task["partition"], topic, at["next"], at["end"], at["lag"])]
        for topic, at in task.get("topics", {}).items()
    ]
