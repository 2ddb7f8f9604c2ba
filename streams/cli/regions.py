"""`dabbawala regions`: who waits for whom."""

import click

from streams.cli.asking import ask
from streams.cli.ids import REGION
from streams.cli.showing import json_option, print_json, print_table, text, when


@click.group()
def regions() -> None:
    """Look at a region: the drivers who wait for work, the deliveries that wait for a driver."""


@regions.command()
@click.argument("region", type=REGION, metavar="REGION")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Of each kind at most.")
@json_option
def get(region: str, limit: int, as_json: bool) -> None:
    """Show who waits in a region."""
    found = ask(f"/v1/regions/{region}", {"limit": limit})
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{region}: {found['drivers_waiting']} drivers wait for work, "
        f"{found['deliveries_pending']} deliveries wait for a driver."
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
