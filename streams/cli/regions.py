"""`dabbawala regions`: free drivers, and deliveries without a driver."""

import click

from streams.cli.client import ask
from streams.cli.listing import reveal_option, reveal_reason_option
from streams.cli.output import counted, echo, json_option, print_json, print_table, text, when
from streams.cli.param_types import REGION


@click.group()
def regions() -> None:
    """Look at a region: its free drivers, and its deliveries without a driver."""


@regions.command()
@click.argument("region", type=REGION, metavar="REGION")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows of each kind at most.")
@reveal_option
@reveal_reason_option
@json_option
def get(region: str, limit: int, reveal: bool, reason: str | None, as_json: bool) -> None:
    """Show a region's free drivers, and its deliveries without a driver.

    Positions are to about a kilometre without --reveal.
    """
    found = ask(f"/v1/regions/{region}", {"limit": limit, "reveal": reveal, "reason": reason})
    if as_json:
        print_json(found)
        return
    echo(
        f"{region}: {counted(found['drivers_waiting'], 'free driver')}, "
        f"{counted(found['deliveries_pending'], 'delivery', 'deliveries')} without a driver."
    )
    if found["drivers"]:
        rows = (
            [text(d["driver"]), text(d["shift"]), text(f"{d['position']['lat']:.5f} {d['position']['lon']:.5f}")]
            for d in found["drivers"]
        )
        print_table("drivers", ("driver", "shift", "position"), rows)
    if found["deliveries"]:
        waiting = (
            [text(d["delivery"]), text(d["restaurant"]), text(d["attempt"]), when(d["since"])]
            for d in found["deliveries"]
        )
        print_table("deliveries", ("delivery", "restaurant", "attempt", "since"), waiting)
