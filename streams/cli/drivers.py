"""`dabbawala drivers`: each driver's status, position and delivery."""

from typing import Any

import click
from rich.text import Text

from streams.cli.client import ask
from streams.cli.listing import list_command, reveal_option, reveal_reason_option
from streams.cli.output import echo, json_option, print_fields, print_json, text
from streams.cli.param_types import DRIVER

STATUSES = ("IDLE", "WAITING_FOR_WORK", "DELIVERING")
HEADS = ("driver", "status", "region", "position", "delivery", "picked up")


@click.group()
def drivers() -> None:
    """Look at drivers: the status, position and delivery of each."""


@drivers.command()
@click.argument("driver", type=DRIVER, metavar="ID")
@reveal_option
@reveal_reason_option
@json_option
def get(driver: str, reveal: bool, reason: str | None, as_json: bool) -> None:
    """Show one driver. The position is to about a kilometre without --reveal.

    SHIFT is the number of the present shift: the driver waits in it, and brings at most one delivery.
    """
    row = ask(f"/v1/drivers/{driver}", {"reveal": reveal, "reason": reason})
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
    if row["delivery"]:
        echo(f"Next: dabbawala orders get {row['delivery']}", err=True)


def _line(row: dict[str, Any]) -> list[Text]:
    first = [text(row[name]) for name in ("driver", "status", "region")]
    return [*first, _place(row["position"]), text(row["delivery"]), text("yes" if row["picked_up"] else "")]


def _place(position: dict[str, float]) -> Text:
    return Text(f"{position['lat']:.5f} {position['lon']:.5f}")


list_command(
    drivers,
    "/v1/drivers",
    "drivers",
    HEADS,
    _line,
    help="""List drivers by id.

    \b
    status     IDLE: off duty; WAITING_FOR_WORK: free; DELIVERING: has a delivery
    position   latitude and longitude, as last reported; to about a kilometre without --reveal
    delivery   the order that the driver delivers
    picked up  yes once the driver has the food
    """,
    empty="No drivers match.",
    options=(
        reveal_option,
        reveal_reason_option,
        click.option(
            "--status", type=click.Choice(STATUSES, case_sensitive=False), help="List drivers in this status only."
        ),
        click.option("--region", metavar="ID", help="List drivers of this region only."),
    ),
)
