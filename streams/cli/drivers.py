"""`dabbawala drivers`: what drivers do, and where."""

from typing import Any

import click
from rich.text import Text

from streams.cli.asking import ask, ask_list
from streams.cli.ids import DRIVER
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
)

STATUSES = ("IDLE", "WAITING_FOR_WORK", "DELIVERING")


@click.group()
def drivers() -> None:
    """Look at drivers: what each does, where, with which delivery."""


@drivers.command("list")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False))
@click.option("--region", metavar="ID", help="Only those of this region.")
@limit_option
@cursor_option
@all_option
@json_option
@click.pass_context
def list_drivers(
    ctx: click.Context,
    status: str | None,
    region: str | None,
    limit: int,
    cursor: str | None,
    every: bool,
    as_json: bool,
) -> None:
    """List drivers, in the order of their ids."""
    query = {"status": status, "region": region, "limit": limit, "cursor": cursor}
    page = ask_list("/v1/drivers", "drivers", query, every=every)
    if as_json:
        print_json(page)
    elif not page["drivers"]:
        click.echo("No driver is like that.", err=True)
    else:
        heads = ("driver", "status", "region", "position", "delivery", "picked up")
        print_table("drivers", heads, (_line(row) for row in page["drivers"]))
        tell_more(ctx.command_path, page["next"])


@drivers.command()
@click.argument("driver", type=DRIVER, metavar="ID")
@json_option
def get(driver: str, as_json: bool) -> None:
    """Show how a driver stands."""
    row = ask(f"/v1/drivers/{driver}")
    if as_json:
        print_json(row)
        return
    print_fields(
        row["driver"],
        [
            ("status", row["status"]),
            ("region", row["region"]),
            ("position", _place(row["position"])),
            ("delivery", row["delivery"]),
            ("picked up", "yes" if row["picked_up"] else None),
            ("shift", row["shift"]),
        ],
    )


def _line(row: dict[str, Any]) -> list[Text]:
    told = [text(row[name]) for name in ("driver", "status", "region")]
    return [*told, _place(row["position"]), text(row["delivery"]), text("yes" if row["picked_up"] else "")]


def _place(position: dict[str, float]) -> Text:
    return Text(f"{position['lat']:.5f} {position['lon']:.5f}")
