"""`dabbawala catalogue`: the restaurants and their menus, from a file to their topic, and looking at what is there."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import click
import httpx
import msgspec
from aiokafka.errors import KafkaError
from rich.text import Text

from streams.catalogue_file import WrongCatalogue, read_catalogue
from streams.cli.asking import TIMEOUT_S, ask, silent, worker_url
from streams.cli.errors import CommandError
from streams.cli.ids import RESTAURANT
from streams.cli.showing import json_option, print_fields, print_json, print_table, text
from streams.embedded.errors import SetUpError
from streams.embedded.slots import worker_urls
from streams.settings import Settings
from topics.restaurants import Restaurant

SERVED_S = 10.0
"""How long a worker may take to read what was written; it follows the topic, so this takes milliseconds."""
POLL_S = 0.05
WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Rows = Mapping[str, Restaurant]

file_argument = click.argument("file", type=click.Path(path_type=Path))


class Changes(NamedTuple):
    """What makes the topic as a file is: ids of restaurants."""

    new: list[str]
    changed: list[str]
    unchanged: list[str]
    removed: list[str]

    @classmethod
    def between(cls, known: Rows, wanted: Rows, *, remove_missing: bool) -> "Changes":
        """From what is known to what is wanted."""
        both = sorted(known.keys() & wanted.keys())
        return cls(
            new=sorted(wanted.keys() - known.keys()),
            changed=[key for key in both if known[key] != wanted[key]],
            unchanged=[key for key in both if known[key] == wanted[key]],
            removed=sorted(known.keys() - wanted.keys()) if remove_missing else [],
        )


@click.group()
def catalogue() -> None:
    """Load the restaurants and their menus from a file, and look at what is there."""


@catalogue.command()
@file_argument
def check(file: Path) -> None:
    """Say everything that is wrong with a file, and change nothing."""
    found = _read(file)
    items = sum(len(restaurant.menu) for restaurant in found.values())
    click.echo(f"{file} is good: {len(found)} restaurants, {items} items on their menus.")


@catalogue.command()
@file_argument
@click.option("--remove-missing", is_flag=True, help="Remove the restaurants that the file does not have.")
def load(file: Path, remove_missing: bool) -> None:
    """Write a file's restaurants to their topic, where they are not so already, and wait until the workers of this
    machine serve them."""
    wanted = _read(file)
    changes = _load(wanted, remove_missing)
    for what, keys in (("new", changes.new), ("changed", changes.changed), ("removed", changes.removed)):
        for key in keys:
            click.echo(f"{what:9} {key}")
    click.echo(f"unchanged {len(changes.unchanged)}")
    _wait_until_served({key: wanted.get(key) for key in (*changes.new, *changes.changed, *changes.removed)})
    _tell_what_comes_back(file, wanted, changes.removed)


@catalogue.command("list")
@click.option("--region", metavar="REGION", help="Only this region's.")
@json_option
def list_restaurants(region: str | None, as_json: bool) -> None:
    """List the restaurants, in the order of their ids."""
    found = ask("/v1/restaurants", {"region": region})
    if as_json:
        print_json(found)
        return
    rows = (
        [text(r["id"]), text(r["name"]), text(r["region"]), text("yes" if r["open"] else "no")]
        for r in found["restaurants"]
    )
    print_table("restaurants", ("id", "name", "region", "open"), rows)


@catalogue.command()
@click.argument("restaurant", type=RESTAURANT, metavar="ID")
@json_option
def get(restaurant: str, as_json: bool) -> None:
    """Show a restaurant with its hours and its menu."""
    found = ask(f"/v1/restaurants/{restaurant}")
    if as_json:
        print_json(found)
        return
    position = found["position"]
    print_fields(
        found["id"],
        [
            ("name", found["name"]),
            ("region", found["region"]),
            ("open", "yes" if found["open"] else "no"),
            ("position", f"{position['lat']:.5f}, {position['lon']:.5f}"),
            ("point of sale", found["pos_url"]),
            ("preparation", f"{found['preparation_s']} s"),
            ("time zone", found["time_zone"]),
            *((day, _hours(found["hours"][day])) for day in WEEK if found["hours"].get(day)),
            ("currency of the menu", found["currency"]),
        ],
    )
    if found["menu"]:
        heads = ("code", "name", "price", "available", "modifiers")
        print_table("menu", heads, (_item(item) for item in found["menu"]))


def _hours(spans: Iterable[Mapping[str, str]]) -> str:
    return ", ".join(f"{span['opens']} to {span['closes']}" for span in spans)


def _item(item: Mapping[str, Any]) -> list[Text]:
    modifiers = ", ".join(f"{each['pos_code']} {each['name']} {each['price']}" for each in item["modifiers"])
    available = "yes" if item["available"] else "sold out"
    return [text(value) for value in (item["pos_code"], item["name"], item["unit_price"], available, modifiers)]


def _read(file: Path) -> dict[str, Restaurant]:
    try:
        return {restaurant.key: restaurant for restaurant in read_catalogue(file)}
    except WrongCatalogue as wrong:
        raise CommandError(str(wrong)) from None


def _load(wanted: Rows, remove_missing: bool) -> Changes:
    """Make the topic, and what it holds, as they should be."""
    from streams.app import settings  # only here: it takes Faust a second to be there
    from streams.cli.kafka import find_kafka, use_kafka
    from streams.engine import NoBroker, OldBroker, TopicsDiffer

    try:
        use_kafka(find_kafka(settings, lambda progress: click.echo(progress, err=True)))
        return asyncio.run(_write(wanted, remove_missing))
    except (SetUpError, NoBroker, OldBroker, TopicsDiffer) as wrong:
        raise CommandError(str(wrong)) from None
    except KafkaError as error:
        raise CommandError(f"Kafka has not acknowledged all of it ({error!r}): load it again.") from None


async def _write(wanted: Rows, remove_missing: bool) -> Changes:
    from streams.app import engine, restaurants, settings
    from streams.catalogue import publish, read

    await engine.create_topics(settings.replication_factor)
    known = await read(engine.client_settings, restaurants)
    changes = Changes.between(known, wanted, remove_missing=remove_missing)
    written = [wanted[key] for key in (*changes.new, *changes.changed)]
    await publish(engine.client_settings, restaurants, written, changes.removed)
    return changes


def _wait_until_served(written: Mapping[str, Restaurant | None]) -> None:
    """Wait for the workers: the one of `DABBAWALA_URL`, else all that run on this machine."""
    directory = Settings.from_environment().directory
    workers = [worker_url()] if os.environ.get("DABBAWALA_URL") else worker_urls(directory)
    if not workers:
        click.echo(f"No worker runs under {directory}; those that start will serve it.")
    for worker in workers:
        deadline = time.monotonic() + SERVED_S
        for key, restaurant in written.items():
            _wait_for(worker, key, restaurant, deadline)
        click.echo(f"{worker} serves it.")


def _wait_for(worker: str, key: str, restaurant: Restaurant | None, deadline: float) -> None:
    while _served_by(worker, key) != restaurant:
        if time.monotonic() > deadline:
            raise CommandError(
                f"It is written, but {worker} does not serve {key} so after {SERVED_S:g} s: its log may say why."
            )
        time.sleep(POLL_S)


def _served_by(worker: str, key: str) -> Restaurant | None:
    address = f"{worker}/table/restaurants/{quote(key, safe='')}"
    try:
        rows = httpx.get(address, timeout=TIMEOUT_S).raise_for_status().json()["rows"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise CommandError(f"It is written, but is it served? {silent(worker, error)}") from None
    return msgspec.convert(rows[0]["row"], Restaurant) if rows else None


def _tell_what_comes_back(file: Path, wanted: Rows, removed: Iterable[str]) -> None:
    """A worker that starts loads its own file: say so, where that would undo what was loaded now."""
    own = Settings.from_environment().catalogue
    try:
        loaded_at_start = read_catalogue(own) if own else []
    except WrongCatalogue:
        return  # with it none starts
    back = [row.key for row in loaded_at_start if row.key in removed or wanted.get(row.key, row) != row]
    if back:
        click.echo(
            f"A worker that starts with DABBAWALA_CATALOGUE={own} brings back what that says of {', '.join(back)}: "
            f"name {file} there, or nothing."
        )
