"""`dabbawala orders`: list, show, follow, place and settle orders."""

from typing import IO, Any
from uuid import uuid4

import click
import httpx
import msgspec
from rich.text import Text

from streams.cli.client import ask, content_of, request
from streams.cli.errors import EXIT_FALSE, CommandError, Refused
from streams.cli.follow import follow
from streams.cli.journal_tree import moves_eta
from streams.cli.listing import list_command
from streams.cli.output import (
    attention_advice,
    attention_text,
    duration,
    echo,
    json_option,
    money,
    print_fields,
    print_json,
    print_table,
    seconds_until,
    status_text,
    text,
    when,
)
from streams.cli.param_types import ORDER
from topics.headers import IDEMPOTENCY_KEY
from topics.order_updates import OrderStatus, OrderUpdated, in_words

order_argument = click.argument("order", type=ORDER, metavar="ID")


@click.group()
def orders() -> None:
    """List orders, show one, follow it, place one, settle one. An ID is provider:external-id."""


@orders.command()
@order_argument
@json_option
def get(order: str, as_json: bool) -> None:
    """Show one order, and the command to run next if it needs a person."""
    row = ask(f"/v1/orders/{order}")
    if as_json:
        print_json(row)
        return
    attention = row["attention"]
    call = (attention or {}).get("call")
    print_fields(
        row["id"],
        [
            ("status", status_text(row["status"])),
            ("reason", in_words(row["reason"])),
            ("needs a person", attention and Text(attention_text(**_reason(attention)), "bold red")),
            ("since", attention and when(attention["since"])),
            ("open call", call and call["key"]),
            ("next attempt", call and when(call["next_attempt"])),
            ("last error", call and call["last_error"]),
            ("restaurant", row["restaurant"]),
            ("driver", row["driver"]),
            ("ETA", _eta(row)),
            ("payment", row["payment"] and row["payment"]["status"]),
            ("refunded", "yes" if row["refunded"] else None),
            ("ticket", row["ticket"] and row["ticket"]["status"]),
            ("delivery", row["delivery"] and f"{row['delivery']['status']}, attempt {row['delivery']['attempt']}"),
            ("total", money(row["total"], row["currency"])),
            ("placed", when(row["placed_at"])),
            ("updated", when(row["updated_at"])),
            ("moved to the history", when(row.get("retired_at"))),
            ("version", row["version"]),
        ],
    )
    if attention:
        echo(_advice(row["id"], attention), err=True)


@orders.command()
@order_argument
@click.option("--all", "every", is_flag=True, help="Print every line, also each change of the ETA.")
@json_option
def journal(order: str, every: bool, as_json: bool) -> None:
    """Show every event that was applied to an order, and its effects.

    Changes of the ETA in a row are folded into one line; --all and --json show each.
    """
    found = ask(f"/v1/orders/{order}/journal")
    if as_json:
        print_json(found)
        return
    heads = ("", "at", "machine", "event", "stage", "outcome", "reason", "emitted")
    lines = [_journal_line(entry) for entry in found["entries"]] if every else _folded(found["entries"])
    print_table(order, heads, lines)
    if retired_at := found.get("retired_at"):
        echo(f"The order moved from the tables to the history at {when(retired_at)}.")


@orders.command()
@order_argument
@click.option("--all", "every", is_flag=True, help="Print updates of the ETA too.")
@click.option("--json", "as_json", is_flag=True, help="Print every record of `order-updates` as one line of JSON.")
@click.pass_context
def watch(ctx: click.Context, order: str, every: bool, as_json: bool) -> None:
    """Follow an order until it has ended, also while workers restart.

    The exit code is 0 if the order was delivered, 1 if it was not.
    """
    before: OrderUpdated | None = None

    def show(update: OrderUpdated, line: str) -> None:
        nonlocal before
        if every or as_json or before is None or not _differs_by_eta(before, update):
            echo(line if as_json else _update_line(update))
        before = update

    status = follow(order, show)
    if status is not OrderStatus.DELIVERED:
        ctx.exit(EXIT_FALSE)


@orders.command()
@click.argument("file", type=click.File("rb"))
@click.option("--key", metavar="KEY", help="The Idempotency-Key that names an order without an external_id.")
@json_option
def place(file: IO[bytes], key: str | None, as_json: bool) -> None:
    """Place the order in FILE, a JSON object; - is the standard input.

    An order that exists is not placed twice.
    """
    body = file.read()
    if not body.strip():
        raise CommandError(f"{file.name} is empty: an order is a JSON object, as in the README.")
    headers = {"Content-Type": "application/json"} | ({IDEMPOTENCY_KEY: key} if key else {})
    answer = request("/v1/orders", method="POST", body=body, headers=headers)
    placed = content_of(answer)
    if as_json:
        print_json(placed)
        return
    match answer.status_code:
        case httpx.codes.CREATED:
            echo(f"{placed['id']} is placed (new).")
        case httpx.codes.OK:
            echo(f"{placed['id']} was already placed.")
        case _:
            echo(f"{placed['id']} is accepted, but not checked yet.")
    echo(f"Next: dabbawala orders watch {placed['id']}", err=True)


@orders.command()
@order_argument
@click.option("--reason", metavar="TEXT", help="What you did about it, for the order's journal.")
def settle(order: str, reason: str | None) -> None:
    """Clear an attention that waits for an operator, once you have resolved its cause.

    Such an attention has no event that could clear it: a provider has contradicted itself, for example. Every other
    attention ends when the awaited event arrives; `dabbawala calls retry` may speed that up.
    """
    try:
        answer = ask(
            f"/v1/orders/{order}/settled",
            method="POST",
            body=msgspec.json.encode({"reason": reason or ""}),
            headers={"Content-Type": "application/json", IDEMPOTENCY_KEY: uuid4().hex},
        )
    except Refused as refused:
        raise Refused(f"{refused.message} {_advice(order, _attention_of(order))}") from None
    match answer.get("outcome"):
        case None:
            echo(f"{order} will be settled: the command is accepted, but not applied yet.")
        case "ABSORBED":
            echo(f"{order} does not need a person; nothing to do.")
        case _:
            echo(f"{order} is settled.")


def _differs_by_eta(before: OrderUpdated, update: OrderUpdated) -> bool:
    """Return whether the ETA is all that an update changes."""
    same = {"id": before.id, "at": before.at, "version": before.version, "eta": before.eta}
    return msgspec.structs.replace(update, **same) == before


def _attention_of(order: str) -> dict[str, Any]:
    try:
        return ask(f"/v1/orders/{order}")["attention"] or {}
    except CommandError:
        return {}


def _advice(order: str, attention: dict[str, Any]) -> str:
    """The command to run next for an order that needs a person."""
    if call := attention.get("call"):
        return f"Next: dabbawala calls retry {call['key']}"
    return f"Next: dabbawala orders journal {order}"


def _reason(attention: dict[str, Any]) -> dict[str, str]:
    return {"waits_for": attention["waits_for"], "since": attention["since"]}


def _eta(row: dict[str, Any]) -> Text:
    """The ETA, or how late the order is."""
    if row["eta"] is None:
        return Text("")
    left_s = seconds_until(row["eta"])
    return when(row["eta"]) if left_s >= 0 else Text(f"late by {duration(-left_s)}", "bold red")


def _line(row: dict[str, Any]) -> list[Text]:
    attention = row["attention"]
    return [
        text(row["id"]),
        status_text(row["status"]),
        text(row["restaurant"]),
        text(row["driver"]),
        _eta(row),
        when(row["placed_at"]),
        Text(attention_text(**_reason(attention)), "bold red") if attention else Text(""),
        text(attention_advice(row["id"], attention) if attention else ""),
    ]


def _footer(rows: list[dict[str, Any]]) -> str:
    stuck = next((row["id"] for row in rows if row["attention"]), None)
    return f"Next: dabbawala orders get {stuck}" if stuck else ""


def _folded(entries: list[dict[str, Any]]) -> list[list[Text]]:
    """The lines of a journal. Changes of the ETA between two other events are one line, at the place of the first."""
    lines: list[list[Text]] = []
    changes: list[dict[str, Any]] = []

    def fold() -> None:
        if changes:
            line = _journal_line(changes[-1])
            first, last = changes[0]["seq"], changes[-1]["seq"]
            line[0] = text(first if first == last else f"{first}-{last}")
            line[3] = text(f"EtaChanged x{len(changes)}")
            lines.append(line)
            changes.clear()

    for entry in entries:
        if moves_eta(entry):
            changes.append(entry)
            continue
        fold()
        lines.append(_journal_line(entry))
    fold()
    return lines


def _journal_line(entry: dict[str, Any]) -> list[Text]:
    before, after = entry.get("before", ""), entry.get("after", "")
    stage = after if after == before else f"{before} → {after}".strip()
    rest = (stage, entry.get("outcome"), entry.get("reason"), ", ".join(entry.get("emitted", ())))
    return [text(entry["seq"]), when(entry["at"]), text(entry["machine"]), text(entry["event"]), *map(text, rest)]


def _update_line(update: OrderUpdated) -> str:
    at = when(update.at).plain
    parts = [at, update.order, update.status.value]
    parts += [in_words(update.reason)] if update.reason else []
    parts += ["refunded"] if update.refunded else []
    parts += [f"driver {update.driver}"] if update.driver else []
    parts += [f"ETA {_eta({'eta': update.eta})}"] if update.eta and not update.status.ended else []
    attention = update.attention
    parts += [f"needs a person: {attention_text(attention.waits_for, attention.since)}"] if attention else []
    return "  ".join(part for part in parts if part)


list_command(
    orders,
    "/v1/orders",
    "orders",
    ("order", "status", "restaurant", "driver", "ETA", "placed", "needs a person", "what to do"),
    _line,
    help="""List orders, the newest first.""",
    empty="No orders match.",
    options=(
        click.option(
            "--status",
            type=click.Choice([status.value for status in OrderStatus], case_sensitive=False),
            help="List orders in this status only.",
        ),
        click.option("--provider", metavar="ID", help="List orders of this provider only."),
        click.option("--restaurant", metavar="ID", help="List orders of this restaurant only."),
        click.option("--attention", is_flag=True, help="List orders that need a person only."),
    ),
    query={"sort": "newest"},
    footer=_footer,
)
