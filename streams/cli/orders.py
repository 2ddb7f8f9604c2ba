"""`dabbawala orders`: finding orders, looking at one, following it, placing one, settling what one asks for."""

from typing import IO, Any
from uuid import uuid4

import click
import msgspec
from rich.text import Text

from streams.cli.asking import ask, ask_list
from streams.cli.calls import by_option
from streams.cli.errors import NOT_SO, CommandError, Refused
from streams.cli.ids import ORDER
from streams.cli.showing import (
    all_option,
    cursor_option,
    json_option,
    limit_option,
    print_fields,
    print_json,
    print_table,
    tell_more,
    text,
    when,
)
from streams.cli.watching import follow
from streams.embedded.screen import STYLES
from topics.order_updates import OrderStatus, OrderUpdated

order_argument = click.argument("order", type=ORDER, metavar="ID")


@click.group()
def orders() -> None:
    """Find orders, look at one, follow it, place one, settle what one asks for. An ID is provider:external-id."""


@orders.command("list")
@click.option("--status", type=click.Choice([status.value for status in OrderStatus], case_sensitive=False))
@click.option("--restaurant", metavar="ID", help="Only this restaurant's.")
@click.option("--attention", is_flag=True, help="Only those that a person should look at.")
@limit_option
@cursor_option
@all_option
@json_option
@click.pass_context
def list_orders(
    ctx: click.Context,
    status: str | None,
    restaurant: str | None,
    attention: bool,
    limit: int,
    cursor: str | None,
    every: bool,
    as_json: bool,
) -> None:
    """List orders, in the order of their ids."""
    query = {"status": status, "restaurant": restaurant, "attention": attention, "limit": limit, "cursor": cursor}
    page = ask_list("/v1/orders", "orders", query, every=every)
    if as_json:
        print_json(page)
    elif not page["orders"]:
        click.echo("No order is like that.", err=True)
    else:
        heads = ("order", "status", "restaurant", "driver", "ETA", "placed", "needs a person because of")
        print_table("orders", heads, ([text(row["id"]), *_line(row)] for row in page["orders"]))
        tell_more(ctx.command_path, page["next"])


@orders.command()
@order_argument
@json_option
def get(order: str, as_json: bool) -> None:
    """Show how an order stands."""
    row = ask(f"/v1/orders/{order}")
    if as_json:
        print_json(row)
        return
    attention = row["attention"]
    print_fields(
        row["id"],
        [
            ("status", _status(row["status"])),
            ("reason", row["reason"]),
            ("needs a person because of", attention and Text(attention["waits_for"], "bold red")),
            ("since", attention and when(attention["since"])),
            ("restaurant", row["restaurant"]),
            ("driver", row["driver"]),
            ("ETA", when(row["eta"])),
            ("payment", row["payment"] and row["payment"]["status"]),
            ("refunded", "yes" if row["refunded"] else None),
            ("ticket", row["ticket"] and row["ticket"]["status"]),
            ("delivery", row["delivery"] and f"{row['delivery']['status']}, attempt {row['delivery']['attempt']}"),
            ("total", None if row["total"] is None else f"{row['total']} {row['currency']}, in minor units"),
            ("placed", when(row["placed_at"])),
            ("updated", when(row["updated_at"])),
            ("left for the history", when(row.get("retired_at"))),
            ("version", row["version"]),
        ],
    )


@orders.command()
@order_argument
@json_option
def journal(order: str, as_json: bool) -> None:
    """Show every event that was applied to an order, and what it led to."""
    found = ask(f"/v1/orders/{order}/journal")
    if as_json:
        print_json(found)
        return
    heads = ("", "at", "machine", "event", "stage", "outcome", "reason", "emitted")
    print_table(order, heads, (_journal_line(entry) for entry in found["entries"]))
    if retired_at := found.get("retired_at"):
        click.echo(f"It has left the tables for the history at {when(retired_at)}.")


@orders.command()
@order_argument
@click.option(
    "--json", "as_json", is_flag=True, help="Print each update as one line of JSON, as `order-updates` has it."
)
@click.pass_context
def watch(ctx: click.Context, order: str, as_json: bool) -> None:
    """Follow an order until it has ended, over any restart of a worker.

    Ends with 0 if the order was delivered, with 1 if it was not.
    """
    status = follow(order, lambda update, line: click.echo(line if as_json else _update_line(update)))
    if status is not OrderStatus.DELIVERED:
        ctx.exit(NOT_SO)


@orders.command()
@click.argument("file", type=click.File("rb"))
@click.option("--key", metavar="KEY", help="The Idempotency-Key that names an order without an external_id.")
@json_option
def place(file: IO[bytes], key: str | None, as_json: bool) -> None:
    """Place the order that is in FILE, as JSON; - is the standard input.

    The same order again is the same order: nothing is placed twice.
    """
    body = file.read()
    if not body.strip():
        raise CommandError(f"{file.name} is empty: an order is a JSON object, as in the README.")
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    answer = ask("/v1/orders", method="POST", body=body, headers=headers)
    if as_json:
        print_json(answer)
    elif "placed_at" not in answer:
        click.echo(f"{answer['id']} is noted and will be decided soon; see `dabbawala orders get {answer['id']}`.")
    else:
        click.echo(f"{answer['id']} is placed.")


@orders.command()
@order_argument
@by_option
@click.option("--why", metavar="TEXT", help="What was done about it, for the order's journal.")
def settle(order: str, by: str | None, why: str | None) -> None:
    """Say that you have seen to what an order asks an operator for, as `orders list --attention` shows.

    What it waits for otherwise ends by itself, or by what `dabbawala calls` does.
    """
    try:
        answer = ask(
            f"/v1/orders/{order}/settled",
            method="POST",
            body=msgspec.json.encode({"by": by or "", "reason": why or ""}),
            headers={"Content-Type": "application/json", "Idempotency-Key": uuid4().hex},
        )
    except Refused as refused:  # it does not know which call that is, if it is one
        again = f"`dabbawala calls retry {order}/charge` (or /prepare, /refund/CHARGE) makes a call again"
        raise Refused(f"{refused.message} {again}, also one that was given up.") from None
    match answer.get("outcome"):
        case None:
            click.echo(f"{order} will be settled soon: that is noted.")
        case "ABSORBED":
            click.echo(f"{order} asks nobody to look at it.")
        case _:
            click.echo(f"{order} is settled.")


def _line(row: dict[str, Any]) -> list[Text]:
    attention = row["attention"]
    return [
        _status(row["status"]),
        text(row["restaurant"]),
        text(row["driver"]),
        when(row["eta"]),
        when(row["placed_at"]),
        Text(attention["waits_for"], "bold red") if attention else Text(""),
    ]


def _journal_line(entry: dict[str, Any]) -> list[Text]:
    before, after = entry.get("before", ""), entry.get("after", "")
    stage = after if after == before else f"{before} → {after}".strip()
    told = (stage, entry.get("outcome"), entry.get("reason"), ", ".join(entry.get("emitted", ())))
    return [text(entry["seq"]), when(entry["at"]), text(entry["machine"]), text(entry["event"]), *map(text, told)]


def _update_line(update: OrderUpdated) -> str:
    at = update.at.astimezone().strftime("%H:%M:%S") if update.at else ""
    parts = [at, update.order, update.status.value]
    parts += [update.reason] if update.reason else []
    parts += ["refunded"] if update.refunded else []
    parts += [f"driver {update.driver}"] if update.driver else []
    parts += [f"ETA {update.eta.astimezone():%H:%M:%S}"] if update.eta and not update.status.ended else []
    parts += [f"needs a person because of: {update.attention.waits_for}"] if update.attention else []
    return "  ".join(part for part in parts if part)


def _status(status: str) -> Text:
    return Text(status, STYLES[OrderStatus(status)])
