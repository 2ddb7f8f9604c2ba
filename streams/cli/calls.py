"""`dabbawala calls`: calls to payment providers and restaurants that are not answered yet."""

from typing import Any
from urllib.parse import quote
from uuid import uuid4

import click
import msgspec
from rich.text import Text

from processors.call_kinds import call_key_forms
from streams.cli.client import ask
from streams.cli.errors import CommandError
from streams.cli.listing import list_command
from streams.cli.output import duration, echo, seconds_until, text, when
from streams.cli.param_types import ORDER
from topics.headers import IDEMPOTENCY_KEY

HEADS = ("call", "to", "attempts", "next attempt", "last error", "held back")
KEY_FORMS = call_key_forms("ORDER", "CHARGE")
reason_option = click.option("--reason", metavar="TEXT", help="The reason, for the order's journal.")


@click.group(
    help=f"""List calls to outside parties, retry one now, or give one up.

    The KEY of a call is its idempotency key: {KEY_FORMS}.
    """
)
def calls() -> None:
    """Commands of calls."""


@calls.command()
@click.argument("key", metavar="KEY")
@reason_option
def retry(key: str, reason: str | None) -> None:
    """Retry a call, also one that was given up, with the idempotency key that it had.

    The call is made as soon as the circuit breaker of its destination lets it through.
    """
    if not _command(key, "retry", reason):
        echo(f"{key} will be retried: the command is accepted, but not applied yet.")
        return
    echo(f"{key} is due now{_delay_of(key)}.")
    echo(f"Next: dabbawala orders watch {key.partition('/')[0]}", err=True)


@calls.command()
@click.argument("key", metavar="KEY")
@reason_option
def abandon(key: str, reason: str | None) -> None:
    """Give a call up: it is not attempted again. An order that waits for the answer then needs a person."""
    decided = _command(key, "abandon", reason)
    done = "is given up" if decided else "will be given up: the command is accepted, but not applied yet"
    echo(f"{key} {done}.")
    echo(f"Next: dabbawala calls retry {key}, to attempt it again while its order waits.", err=True)


def _command(key: str, command: str, reason: str | None) -> bool:
    """Send the command to a worker. False if the worker has accepted it and not applied it yet."""
    order, slash, purpose = key.partition("/")
    if not slash or not purpose:
        raise CommandError(f"{key!r} is not the key of a call: use {KEY_FORMS}.")
    answer = ask(
        f"/v1/calls/{quote(order, safe=':')}/{quote(purpose)}/{command}",
        method="POST",
        body=msgspec.json.encode({"reason": reason or ""}),
        headers={"Content-Type": "application/json", IDEMPOTENCY_KEY: uuid4().hex},
    )
    return "outcome" in answer


def _delay_of(key: str) -> str:
    """The reason that a call waits although it is due, if its destination does not let it through."""
    try:
        found = ask("/v1/calls", {"order": key.partition("/")[0]})["calls"]
    except CommandError:
        return ""  # the retry itself is done
    held_back = [row["held_back"] for row in found if row["key"] == key and row["held_back"]]
    return f"; it waits: {held_back[0]}" if held_back else ""


def call_line(row: dict[str, Any]) -> list[Text]:
    """Return the cells of a call, under `HEADS`."""
    left_s = seconds_until(row["next_attempt"])
    return [
        text(row["key"]),
        text(row["url"]),
        text(row["attempts"]),
        text(f"in {duration(left_s)}") if left_s > 0 else when(row["next_attempt"]),
        text(row["last_error"]),
        text(row["held_back"]),
    ]


list_command(
    calls,
    "/v1/calls",
    "calls",
    HEADS,
    call_line,
    help="""List the calls that are not answered, by key.

    \b
    attempts      how many attempts have failed
    next attempt  the time of the next one
    held back     the reason that a call waits although it is due
    """,
    empty="No calls match.",
    options=(
        click.option("--order", type=ORDER, metavar="ID", help="List calls of this order only."),
        click.option(
            "--destination",
            metavar="TEXT",
            help="List calls whose URL contains TEXT only; a restaurant's URL contains its id.",
        ),
    ),
    footer=lambda rows: f"Next: dabbawala calls retry {rows[0]['key']}",
)
