"""`dabbawala parties`: who outside does not answer."""

from typing import Any

import click
from rich.text import Text

from streams.cli.asking import ask
from streams.cli.showing import json_option, print_json, print_table, text

STYLES = {"answers": "green", "silent": "yellow"}
HEADS = ("party", "state", "under way", "wait", "at once", "failures", "tried in", "last error", "worker")


@click.command()
@json_option
def parties(as_json: bool) -> None:
    """Show the parties that are called just now, for which calls wait, or which have failed to answer.

    A party answers, is silent (a call has been without an answer for two seconds), fails, rests after failures in a
    row, or is tried with one call. Each worker finds that out by itself.
    """
    found = ask("/v1/parties")
    if as_json:
        print_json(found)
    elif not found["parties"]:
        click.echo("Nobody outside is being called, and nobody has failed to answer.", err=True)
    else:
        print_table("parties", HEADS, (_line(row) for row in found["parties"]))


def _line(row: dict[str, Any]) -> list[Text]:
    return [
        text(row["party"]),
        Text(row["state"], STYLES.get(row["state"], "bold red")),
        *(text(row[name]) for name in ("running", "waiting", "window", "failures")),
        text(f"{row['tried_in_s']:.0f} s" if row["tried_in_s"] else ""),
        text(row["last_error"]),
        text(row["worker"]),
    ]
