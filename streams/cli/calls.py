"""`dabbawala calls`: what parties outside were asked and have not answered."""

from typing import Any
from urllib.parse import quote
from uuid import uuid4

import click
import msgspec
from rich.text import Text

from streams.cli.asking import ask, ask_list
from streams.cli.errors import CommandError
from streams.cli.showing import (
    all_option,
    cursor_option,
    json_option,
    limit_option,
    print_json,
    print_table,
    tell_more,
    text,
    when,
)

by_option = click.option(
    "--by", envvar="USER", show_envvar=True, metavar="NAME", help="Who asks for it, for the order's journal."
)
reason_option = click.option("--reason", metavar="TEXT", help="Why, for the order's journal.")


@click.group()
def calls() -> None:
    """Look at calls to parties outside, have one made again, or give one up.

    A call's KEY is its idempotency key: ORDER/charge, ORDER/prepare or ORDER/refund/CHARGE.
    """


@calls.command("list")
@limit_option
@cursor_option
@all_option
@json_option
@click.pass_context
def list_calls(ctx: click.Context, limit: int, cursor: str | None, every: bool, as_json: bool) -> None:
    """List the calls that are not answered, in the order of their keys."""
    query = {"limit": limit, "cursor": cursor}
    page = ask_list("/v1/calls", "calls", query, every=every)
    if as_json:
        print_json(page)
    elif not page["calls"]:
        click.echo("No call waits for an answer.", err=True)
    else:
        heads = ("call", "to", "attempts", "next attempt", "the last one", "held back")
        print_table("calls", heads, (_line(row) for row in page["calls"]))
        tell_more(ctx.command_path, page["next"])


@calls.command()
@click.argument("key", metavar="KEY")
@by_option
@reason_option
def retry(key: str, by: str | None, reason: str | None) -> None:
    """Make a call again at once, also one that was given up, under the same idempotency key."""
    decided = _tell(key, "retry", by, reason)
    click.echo(f"{key} is made again." if decided else f"{key} will be made again soon: that is noted.")


@calls.command()
@click.argument("key", metavar="KEY")
@by_option
@reason_option
def abandon(key: str, by: str | None, reason: str | None) -> None:
    """Give a call up: no further attempt. An order that waits for the answer asks for a person's attention."""
    decided = _tell(key, "abandon", by, reason)
    done = "is given up" if decided else "will be given up soon: that is noted"
    click.echo(f"{key} {done}; `dabbawala calls retry {key}` makes it again while its order waits.")


def _tell(key: str, what: str, by: str | None, reason: str | None) -> bool:
    """Have it decided; False if that takes longer than the worker waits for."""
    order, slash, purpose = key.partition("/")
    if not slash or not purpose:
        raise CommandError(f"{key!r} is no call's key: that is ORDER/charge, ORDER/prepare or ORDER/refund/CHARGE.")
    answer = ask(
        f"/v1/calls/{quote(order, safe=':')}/{quote(purpose)}/{what}",
        method="POST",
        body=msgspec.json.encode({"by": by or "", "reason": reason or ""}),
        headers={"Content-Type": "application/json", "Idempotency-Key": uuid4().hex},
    )
    return "outcome" in answer


def _line(row: dict[str, Any]) -> list[Text]:
    return [
        text(row["key"]),
        text(row["url"]),
        text(row["attempts"]),
        when(row["next_attempt"]),
        text(row["last_error"]),
        text(row["held_back"]),
    ]
