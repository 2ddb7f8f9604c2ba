"""`dabbawala timers`: what is to come."""

import click

from streams.cli.asking import ask_list
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


@click.group()
def timers() -> None:
    """Look at the timers that are running."""


@timers.command("list")
@limit_option
@cursor_option
@all_option
@json_option
@click.pass_context
def list_timers(ctx: click.Context, limit: int, cursor: str | None, every: bool, as_json: bool) -> None:
    """List timers, in the order in which they are due."""
    query = {"limit": limit, "cursor": cursor}
    page = ask_list("/v1/timers", "timers", query, every=every)
    if as_json:
        print_json(page)
    elif not page["timers"]:
        click.echo("No timer is running.", err=True)
    else:
        rows = ([when(row["due"]), text(row["timer"]), text(row["partition"])] for row in page["timers"])
        print_table("timers", ("due", "timer", "partition"), rows)
        tell_more(ctx.command_path, page["next"])
