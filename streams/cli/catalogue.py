"""`dabbawala catalogue`: check and load a file of restaurants, and show the restaurants in use."""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import click
import msgspec
from aiokafka.errors import KafkaError
from rich.text import Text

from exactly_once import BrokerTooOld, BrokerUnreachable, TopicMismatch
from streams.catalogue.file import WrongCatalogue, read_catalogue
from streams.catalogue.topic import publish, read
from streams.cli.client import TIMEOUT_S, UNREACHABLE, ask, open_client, unreachable, worker_url
from streams.cli.errors import CommandError
from streams.cli.kafka import read_settings, services_with_kafka
from streams.cli.output import counted, echo, json_option, money, print_fields, print_json, print_table, text
from streams.cli.param_types import RESTAURANT
from streams.local.worker_slots import worker_urls
from streams.settings import Settings
from topics.restaurants import Restaurant

if TYPE_CHECKING:
    from streams.services import Services

SERVE_TIMEOUT_S = 10.0
"""Limit for a worker to read a change; it follows the topic, so this takes milliseconds."""
POLL_S = 0.05
WEEK = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Rows = Mapping[str, Restaurant]

file_argument = click.argument("file", type=click.Path(path_type=Path))


class Changes(NamedTuple):
    """The difference between the topic and a file: ids of restaurants."""

    new: list[str]
    changed: list[str]
    unchanged: list[str]
    removed: list[str]

    @classmethod
    def between(cls, known: Rows, wanted: Rows, *, remove_missing: bool) -> "Changes":
        """Compare the restaurants of the topic with those of a file."""
        both = sorted(known.keys() & wanted.keys())
        return cls(
            new=sorted(wanted.keys() - known.keys()),
            changed=[key for key in both if known[key] != wanted[key]],
            unchanged=[key for key in both if known[key] == wanted[key]],
            removed=sorted(known.keys() - wanted.keys()) if remove_missing else [],
        )


@click.group()
def catalogue() -> None:
    """Check and load a file of restaurants and menus; show those in use."""


@catalogue.command()
@file_argument
def check(file: Path) -> None:
    """List every error in a file, without loading it."""
    found = _read(file)
    items = sum(len(restaurant.menu) for restaurant in found.values())
    echo(f"{file} has no errors: {counted(len(found), 'restaurant')} with {counted(items, 'menu item')}.")
    for restaurant in found.values():
        for hint in _hints(restaurant):
            echo(f"restaurant {restaurant.key}: {hint}", err=True)


def _hints(restaurant: Restaurant) -> Iterator[str]:
    """Yield advice about hours that are valid but probably not meant."""
    days = restaurant.hours.days if restaurant.hours else ()
    if days and not any(days):
        yield "it is closed all week; leave `hours` out if it is always open"
    if any(interval.closes == "23:59" for day in days for interval in day):
        yield "it closes at 23:59, a minute before midnight; midnight is 00:00, and a whole day 00:00 to 00:00"


@catalogue.command()
@file_argument
@click.option("--remove-missing", is_flag=True, help="Remove restaurants that are not in the file.")
def load(file: Path, remove_missing: bool) -> None:
    """Load the restaurants of a file that are new or changed.

    The command ends when the workers of this machine serve them.
    """
    wanted = _read(file)
    changes = _load(wanted, remove_missing)
    for what, keys in (("new", changes.new), ("changed", changes.changed), ("removed", changes.removed)):
        for key in keys:
            echo(f"{what:9} {key}")
    echo(f"unchanged {len(changes.unchanged)}")
    _wait_until_served({key: wanted.get(key) for key in (*changes.new, *changes.changed, *changes.removed)})
    _warn_of_overwrite(file, wanted, changes.removed)


@catalogue.command("list")
@click.option("--region", metavar="REGION", help="List restaurants of this region only.")
@json_option
def list_restaurants(region: str | None, as_json: bool) -> None:
    """List the restaurants by id."""
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
    """Show a restaurant, its hours and its menu."""
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
            ("preparation", f"{found['preparation_s']} s"),
            ("time zone", found["time_zone"]),
            ("hours", _week(found["hours"])),
            *((day, _hours(found["hours"][day])) for day in WEEK if (found["hours"] or {}).get(day)),
            ("currency of the menu", found["currency"]),
        ],
    )
    if found["menu"]:
        heads = ("code", "name", "price", "available", "modifiers")
        print_table("menu", heads, (_item(item, found["currency"]) for item in found["menu"]))


def _week(hours: Mapping[str, Any] | None) -> str | None:
    """Return the sentence for a week without intervals; None if a day has some."""
    if hours is None:
        return "always open"
    return None if any(hours.values()) else "closed all week"


def _hours(spans: Iterable[Mapping[str, str]]) -> str:
    return ", ".join(f"{span['opens']} to {span['closes']}" for span in spans)


def _item(item: Mapping[str, Any], currency: str | None) -> list[Text]:
    modifiers = ", ".join(
        f"{each['pos_code']} {each['name']} {money(each['price'], currency)}" for each in item["modifiers"]
    )
    available, price = "yes" if item["available"] else "sold out", money(item["unit_price"], currency)
    return [text(value) for value in (item["pos_code"], item["name"], price, available, modifiers)]


def _read(file: Path) -> dict[str, Restaurant]:
    try:
        allow_http = read_settings().allow_http_parties
        return {restaurant.key: restaurant for restaurant in read_catalogue(file, allow_http=allow_http)}
    except WrongCatalogue as wrong:
        raise CommandError(str(wrong)) from None


def _load(wanted: Rows, remove_missing: bool) -> Changes:
    """Create the topic if needed, and write the changes to it."""
    worker = services_with_kafka()
    try:
        return asyncio.run(_write(worker, wanted, remove_missing))
    except (BrokerUnreachable, BrokerTooOld, TopicMismatch) as wrong:
        raise CommandError(str(wrong)) from None
    except KafkaError as error:
        raise CommandError(f"Kafka has not acknowledged every restaurant ({error!r}): load the file again.") from None


async def _write(worker: "Services", wanted: Rows, remove_missing: bool) -> Changes:
    engine, restaurants, settings = worker.engine, worker.restaurants, worker.settings
    await engine.create_topics(settings.replication_factor)
    known = await read(engine.client_settings, restaurants)
    changes = Changes.between(known, wanted, remove_missing=remove_missing)
    written = [wanted[key] for key in (*changes.new, *changes.changed)]
    await publish(engine.client_settings, restaurants, written, changes.removed)
    return changes


def _wait_until_served(written: Mapping[str, Restaurant | None]) -> None:
    """Wait for the worker of `DABBAWALA_URL`, else for all that run on this machine."""
    directory = Settings.from_environment().directory
    workers = [worker_url()] if os.environ.get("DABBAWALA_URL") else worker_urls(directory)
    if not workers:
        echo(f"No worker runs under {directory}. Next: make worker")
    for worker in workers:
        deadline = time.monotonic() + SERVE_TIMEOUT_S
        for key, restaurant in written.items():
            _wait_for(worker, key, restaurant, deadline)
        echo(f"{worker} serves the restaurants of the file.")


def _wait_for(worker: str, key: str, restaurant: Restaurant | None, deadline: float) -> None:
    while _served_by(worker, key) != restaurant:
        if time.monotonic() > deadline:
            raise CommandError(
                f"The file is loaded, but {worker} does not serve {key} after {SERVE_TIMEOUT_S:g} s: see its log."
            )
        time.sleep(POLL_S)


def _served_by(worker: str, key: str) -> Restaurant | None:
    address = f"{worker}/table/restaurants/{quote(key, safe='')}"
    try:
        with open_client(address, TIMEOUT_S) as client:
            rows = client.get(address).raise_for_status().json()["rows"]
    except (*UNREACHABLE, ValueError, KeyError) as error:
        raise CommandError(
            f"The file is loaded, but its workers cannot be checked: {unreachable(worker, error)}"
        ) from None
    return msgspec.convert(rows[0]["row"], Restaurant) if rows else None


def _warn_of_overwrite(file: Path, wanted: Rows, removed: Iterable[str]) -> None:
    """Warn if the file that a worker loads at its start would undo these changes."""
    settings = Settings.from_environment()
    own = settings.catalogue
    try:
        loaded_at_start = read_catalogue(own, allow_http=settings.allow_http_parties) if own else []
    except WrongCatalogue:
        return  # no worker starts with this file
    back = [row.key for row in loaded_at_start if row.key in removed or wanted.get(row.key, row) != row]
    if back:
        echo(
            f"A worker that starts with DABBAWALA_CATALOGUE={own} will overwrite {', '.join(back)}: "
            f"set DABBAWALA_CATALOGUE to {file}, or to nothing."
        )
