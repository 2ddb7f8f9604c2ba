"""`dabbawala workflows`: the orders under way, what each waits for, and why one of them is stuck."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from processors.waiting import WaitsOn
from streams.cli.calls import HEADS as CALL_HEADS
from streams.cli.calls import call_line
from streams.cli.client import ask, ask_list
from streams.cli.errors import CommandError
from streams.cli.journal_tree import journal_tree
from streams.cli.listing import all_option, cursor_option, limit_option
from streams.cli.orders import order_argument
from streams.cli.output import (
    console_of,
    duration,
    echo,
    json_option,
    money,
    print_fields,
    print_json,
    print_next_page_hint,
    print_table,
    print_tree,
    seconds_until,
    status_text,
    table_of,
    text,
    when,
)
from streams.cli.param_types import AGE
from topics.order_updates import OrderStatus, in_words
from topics.text import plain_lines

PATH = "/v1/workflows"
HEADS = ("order", "status", "waits for", "waited", "attempts", "next try", "last error", "what to do")
REDRAW_S = 2.0
"""Pause between two pictures of `--watch`."""
MAX_SHARE = 10
"""Factor by which the pause is longer than the request before it: a worker spends a tenth of its time on it at most."""
PATIENCE_S = 60.0
"""Time without an answer after which `--watch` gives up: a killed worker is back by then."""


class Statuses(click.ParamType):
    """One or more statuses, separated by commas."""

    name = "statuses"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return them as the API spells them."""
        names = [status.value for status in OrderStatus]
        found = [each.strip().upper() for each in str(value).split(",")]
        if wrong := [each for each in found if each not in names]:
            raise CommandError(f"{wrong[0]!r} is no status: use {', '.join(names)}, separated by commas.")
        return ",".join(found)


@click.group()
def workflows() -> None:
    """List the orders under way and what each waits for; describe one: why it is stuck, and what to do."""


@workflows.command("list")
@click.option(
    "--waiting-on",
    type=click.Choice(list(WaitsOn), case_sensitive=False),
    help="List orders that wait for this party only; operator: those that need a person.",
)
@click.option("--for", "at_least", type=AGE, metavar="AGE", help="List orders that have waited so long, as 5m.")
@click.option("--status", type=Statuses(), metavar="S[,S]", help="List orders in these statuses only.")
@click.option("--oldest-first", is_flag=True, help="Put the longest wait first; by default the shortest.")
@click.option("--watch", is_flag=True, help="Redraw the list until Ctrl-C.")
@limit_option
@cursor_option
@all_option
@json_option
@click.pass_context
def list_workflows(
    ctx: click.Context,
    /,
    waiting_on: str | None,
    at_least: timedelta | None,
    status: str | None,
    oldest_first: bool,
    watch: bool,
    limit: int,
    cursor: str | None,
    every: bool,
    as_json: bool,
) -> None:
    """List the orders that have not ended or need attention, with what each waits for.

    \b
    waits for   the awaited event, red if the order needs a person, and other reasons for that
    waited      the time since the wait began
    attempts    how many attempts of the call that it waits for have failed
    next try    the time of the next attempt
    what to do  the command that helps, if there is one
    """
    query = {
        "waiting_on": waiting_on,
        "waited_s": None if at_least is None else round(at_least.total_seconds()),
        "status": status,
        "sort": "oldest" if oldest_first else "newest",
        "limit": limit,
        "cursor": cursor,
    }
    if watch:
        if as_json or every:
            raise CommandError("--watch redraws a page: leave out --json and --all.")
        _watch(lambda room: _picture(ask(PATH, query), room))
        return
    page = ask_list(PATH, "workflows", query, every=every)
    if as_json:
        print_json(page)
    elif not page["workflows"]:
        echo("No orders match.", err=True)
    else:
        print_table(_title(page), HEADS, map(_line, page["workflows"]))
        print_next_page_hint(ctx.command_path, page["next"])
        echo(f"Next: dabbawala workflows describe {page['workflows'][0]['id']}", err=True)


@workflows.command()
@order_argument
@click.option("--all", "every", is_flag=True, help="Show each change of the ETA and every line of a long journal too.")
@json_option
def describe(order: str, every: bool, as_json: bool) -> None:
    """Show why an order is stuck: its wait, what will happen next, its calls, its journal, and what you can do.

    The journal is a tree: an entry stands below the one from which it follows. The entries of one transaction share a
    node. The order may also have moved to the history.
    """
    found = ask(f"/v1/orders/{order}/workflow")
    if as_json:
        print_json(found)
        return
    print_fields(found["order"]["id"], _fields(found))
    if found["calls"]:
        echo("")
        print_table("calls without an answer", CALL_HEADS, map(call_line, found["calls"]))
    echo("")
    print_tree(journal_tree(found["journal"], found["calls"], every=every))
    if found["remedies"]:
        echo("")
        lines = ([text(remedy["command"]), text(remedy["effect"])] for remedy in found["remedies"])
        print_table("what you can do", ("command", "effect"), lines)


# -- the list --------------------------------------------------------------------------------------------------------


def _title(page: dict[str, Any]) -> str:
    shown = len(page["workflows"])
    return f"workflows: {shown} of {page.get('count', shown)}"


def _line(row: dict[str, Any]) -> list[Text]:
    call = row["call"] or {}
    waits_for = Text(row["waits_for"], "bold red" if row["attention"] else "")
    if more := [item for item in row["attention"] if item != row["waits_for"]]:
        waits_for.append(f" (needs a person: {'; '.join(more)})")
    return [
        text(row["id"]),
        status_text(row["status"]),
        waits_for,
        Text(duration(row["waited_s"]), no_wrap=True),
        text(call.get("attempts")),
        Text(_until(call["next_attempt"]) if call else "", no_wrap=True),
        text(call.get("last_error")),
        text(row["command"]),
    ]


def _until(moment: str) -> str:
    left_s = seconds_until(moment)
    return f"in {duration(left_s)}" if left_s > 0 else "now"


class _Tried(NamedTuple):
    """The last answer, and the time at which it came."""

    picture: RenderableType
    at: float


def _watch(draw: Callable[[int | None], RenderableType]) -> None:
    """Redraw a picture until Ctrl-C. Without an answer, the last picture stays, with the error below it."""
    console, room = console_of()
    last: _Tried | None = None
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            began = time.monotonic()
            try:
                last = _Tried(draw(room and console.width), time.monotonic())
                picture = last.picture
            except CommandError as error:
                if last is None or time.monotonic() - last.at > PATIENCE_S:
                    raise
                picture = Group(last.picture, Text(plain_lines(error.message), "bold red"))
            if room is None:
                console.print(picture, crop=False)
            else:
                live.update(picture, refresh=True)
            time.sleep(_pause_s(time.monotonic() - began))


def _pause_s(took_s: float) -> float:
    """Return the pause after a picture that took so long: a worker reads all its orders for each."""
    return max(REDRAW_S, MAX_SHARE * took_s)


def _picture(page: dict[str, Any], room: int | None) -> RenderableType:
    return table_of(_title(page), HEADS, map(_line, page["workflows"]), room)


# -- one order -------------------------------------------------------------------------------------------------------


def _fields(found: dict[str, Any]) -> list[tuple[str, Any]]:
    order, waiting = found["order"], found["waiting"]
    payment, ticket, delivery = found["payment"], found["ticket"], found["delivery"]
    stage = "" if found["stage"] == order["status"] else f" ({found['stage']})"
    return [
        ("status", Text.assemble(status_text(order["status"]), stage)),
        ("reason", in_words(order["reason"])),
        ("waits for", waiting and f"{waiting['waits_for']}, for {duration(-seconds_until(waiting['since']))}"),
        ("since", waiting and when(waiting["since"])),
        ("waits on", waiting and ", ".join(waiting["on"])),
        ("needs a person", Text("\n".join(map(_attention, found["attention"])), "bold red")),
        ("next", "\n".join(map(_upcoming, found["upcoming"]))),
        ("payment", payment and _payment(payment)),
        ("ticket", ticket and f"{ticket['status']} at {ticket['restaurant']}" + _because(ticket["reason"])),
        ("delivery", delivery and f"{delivery['status']} in {delivery['region']}, attempt {delivery['attempt']}"),
        ("driver", order["driver"]),
        ("ETA", when(order["eta"])),
        ("placed", when(order["placed_at"])),
        ("updated", when(order["updated_at"])),
        ("moved to the history", when(found.get("retired_at"))),
        ("trace", found["trace_id"]),
    ]


def _attention(item: dict[str, Any]) -> str:
    cleared = "; only an operator can clear it" if item["needs_operator"] else ""
    return f"{item['waits_for']}, for {duration(-seconds_until(item['since']))}{cleared}"


def _upcoming(item: dict[str, Any]) -> str:
    return f"{_until(item['at'])}: {item['happens']}"


def _payment(payment: dict[str, Any]) -> str:
    parts = [payment["status"], money(payment["amount"], payment["currency"])]
    parts += [f"charge {payment['charge_id']}"] if payment["charge_id"] else []
    for refund in payment["refunds"]:
        state = "is refunded" if refund["done"] else "is to be refunded"
        parts.append(f"{money(refund['amount'], refund['currency'])} of {refund['charge_id']} {state}")
    return ", ".join(filter(None, parts))


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
