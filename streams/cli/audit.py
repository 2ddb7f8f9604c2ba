"""`dabbawala audit`: what operators did, and which personal data they read."""

from datetime import datetime
from typing import Any

import click
from rich.text import Text

from streams.cli.client import ask
from streams.cli.output import echo, json_option, print_json, print_table, text, when
from streams.cli.param_types import AGO

HEADS = ("at", "who", "did", "to", "outcome", "from", "reason")


@click.command()
@click.option("--order", metavar="ID", help="List actions on this order only; or on a driver, a dead letter, a table.")
@click.option("--by", metavar="NAME", help="List actions of the key with this name only.")
@click.option("--since", type=AGO, metavar="AGE", default="7d", show_default=True, help="Such as 90s, 30m, 2h or 7d.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows at most.")
@json_option
def audit(order: str | None, by: str | None, since: datetime, limit: int, as_json: bool) -> None:
    """List what operators did, and which personal data they read, the newest first.

    \b
    did      the last part of the request's path, or READ for a reading; --json has the method and the whole path
    outcome  the decision; FAILED if the action became a dead letter
    from     the address of the client
    """
    found = ask("/v1/audit", {"order": order, "by": by, "since": since.isoformat(), "limit": limit})
    if as_json:
        print_json(found)
    elif not found["actions"]:
        echo("No actions match.", err=True)
    else:
        print_table("actions", HEADS, map(_line, found["actions"]))


def _line(row: dict[str, Any]) -> list[Text]:
    method, _, path = row["action"].partition(" ")
    did = "read" if row["outcome"] == "READ" else path.rpartition("/")[2]
    outcome = "" if method == "GET" else row["outcome"]
    return [when(row["at"]), *map(text, (row["by"], did, row["thing"], outcome, row["address"], row["reason"]))]
