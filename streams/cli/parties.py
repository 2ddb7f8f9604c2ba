"""`dabbawala parties`: destinations that do not answer."""

from typing import Any

import click
from rich.text import Text

from streams.cli.client import ask
from streams.cli.output import echo, json_option, print_json, print_table, text

STYLES = {"closed": "green", "unresponsive": "yellow", "half-open": "yellow"}
HEADS = ("destination", "breaker", "calls", "waiting", "limit", "failures", "next try", "last error", "worker")


@click.command()
@json_option
def parties(as_json: bool) -> None:
    """Show the destinations that are called now, that calls wait for, or that have failed.

    Each worker has a circuit breaker for each destination:

    \b
    closed        the destination answers
    unresponsive  a call has been without an answer for two seconds
    failing       the last calls failed, too few of them to open the breaker
    open          too many calls failed in a row; no call is made until the next try
    half-open     one call is tried; its answer closes the breaker, its failure opens it again

    \b
    calls     calls in flight
    waiting   calls that are due and held back
    limit     calls in flight at most
    failures  failures in a row
    next try  time until an open breaker lets one call through
    """
    found = ask("/v1/parties")
    if as_json:
        print_json(found)
    elif not found["parties"]:
        echo("No destination is being called, and none has failed.", err=True)
    else:
        print_table("parties", HEADS, (_line(row) for row in found["parties"]))
        if any(row["state"] == "open" for row in found["parties"]):
            echo("Next: dabbawala calls list, to see the calls that wait.", err=True)


def _line(row: dict[str, Any]) -> list[Text]:
    state: str = row["state"]
    return [
        text(row["party"]),
        Text(state, STYLES.get(state, "bold red")),
        *(text(row[name]) for name in ("running", "waiting", "window", "failures")),
        text(f"in {row['tried_in_s']:.0f} s" if row["tried_in_s"] else ""),
        text(row["last_error"]),
        text(row["worker"]),
    ]
