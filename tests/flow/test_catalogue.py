"""The catalogue in an installation of two workers: orders checked against the menu, and changes while orders run."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulators.city import KITCHENS, order
from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.hand_pos import HandPos
from tests.flow.reading import WITHIN_S, Following, headers
from tests.flow.two_workers import one_of_each, two_workers
from tests.support.stack import Stack, run_command
from topics.families import DEAD_LETTERS, ORDERS, RESTAURANTS
from topics.places import Position
from topics.records import write
from topics.restaurants import Hours, Interval, MenuItem, MenuModifier, Restaurant

THALI = MenuItem(
    pos_code="TH-1",
    name="Thali",
    unit_price=80_00,
    modifiers=(MenuModifier(pos_code="GHEE", name="Ghee", price=5_00),),
)
"""The item of which `an_order` orders two."""


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run two workers and all outside parties."""
    with two_workers(kafka, tmp_path_factory.mktemp("catalogue"), hand_pos.kitchens(1)) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    """Return a client of the first worker."""
    async with one_of_each(stack) as (client, _):
        yield client


@pytest.fixture
def kitchen(hand_pos: HandPos, unique: str) -> Restaurant:
    """Return a restaurant with a menu that is not loaded yet. Its point of sale accepts every ticket."""
    return msgspec.structs.replace(
        hand_pos.kitchens(1)[0],
        restaurant=unique,
        name="Thali House",
        region=unique,
        position=Position(11.0, 73.0),
        currency="INR",
        menu=(THALI,),
    )


def load(stack: Stack, *restaurants: Restaurant, options: tuple[str, ...] = ()) -> str:
    """Load a file with these restaurants, and return the output of the command."""
    file = stack.directory / "loaded.json"
    file.write_bytes(msgspec.json.encode(restaurants))
    status, printed, error = dabbawala(stack, "catalogue", "load", str(file), *options)
    assert status == 0, error
    return printed


def dabbawala(stack: Stack, *arguments: str) -> tuple[int, str, str]:
    """Run the command; return exit status, stdout and stderr."""
    return run_command([sys.executable, "-m", "streams.cli", *arguments], stack.environment)


def wrong_lines(answer: Any) -> dict[str, str]:
    """Return pointer -> detail of a problem's errors."""
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def city_order(name: str, restaurant: str) -> Body:
    """Return an order of the simulated city for this restaurant, made from its menu."""
    made = (order(name, name, number, datetime.now(UTC)) for number in range(1, 1000))
    body: Body = json.loads(write(next(placed for placed in made if placed.restaurant == restaurant)))
    return body


# -- validation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restaurant", [name for name in KITCHENS if name != "lakshmi-tiffin"])
async def test_an_order_from_the_menu_is_delivered_over_http_and_kafka(
    client: Client, unique: str, restaurant: str
) -> None:
    by_http, by_kafka = (city_order(f"{unique[-6:]}-{number}", restaurant) for number in range(2))
    assert (await client.place(by_http)).status_code == 201
    await client.produce(ORDERS, by_kafka, key=f"{by_kafka['provider']}:{by_kafka['external_id']}")
    for body in (by_http, by_kafka):
        await client.reaches(f"{body['provider']}:{body['external_id']}", "DELIVERED")


def _cheaper(body: Body) -> str:
    body["items"][0]["unit_price"] -= 1
    body["total"] -= body["items"][0]["quantity"]
    return "/items/0/unit_price"


def _something_else(body: Body) -> str:
    body["items"][0]["pos_code"] = "OFF-THE-MENU"
    return "/items/0/pos_code"


def _with_gold(body: Body) -> str:
    body["items"][0]["modifiers"] = [{"name": "Gold", "pos_code": "GOLD"}]
    return "/items/0/modifiers/0/pos_code"


def _in_euros(body: Body) -> str:
    body["currency"] = "EUR"
    return "/currency"


def _another_total(body: Body) -> str:
    body["total"] += 1
    return "/total"


CHANGES = (_cheaper, _something_else, _with_gold, _in_euros, _another_total)


async def test_an_order_off_the_menu_is_rejected_and_not_charged(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    load(client.stack, kitchen)
    wrong: dict[str, Body] = {}
    pointers: dict[str, str] = {}
    for number, change in enumerate(CHANGES):
        name = f"{unique}-{number}"
        wrong[name] = an_order(kitchen, name)
        pointers[name] = change(wrong[name])
        assert list(wrong_lines(await client.place(wrong[name]))) == [pointers[name]]
    async with Following(client.stack.kafka, client.stack.name, [DEAD_LETTERS], from_now=True) as letters:
        for name, body in wrong.items():
            await client.produce(ORDERS, {"type": "Placed", **body}, key=order_id(name))
        await letters.until(lambda: len(letters.records) >= len(wrong), "each becomes a dead letter")
    for letter in letters.records:
        name = letter.key.decode().partition(":")[2]
        assert headers(letter)["dead-letter.reason"].startswith(f"{pointers[name]}: ")
        assert await client.order(order_id(name)) is None
        assert not client.payments(order_id(name))


async def test_a_closed_restaurant_takes_orders_for_opening_hours(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    """The restaurant opens on one day of the week, three days from now."""
    day = datetime.now(UTC) + timedelta(days=3)
    hours = Hours(**{f"{day:%A}".lower(): (Interval(opens="12:00", closes="14:00"),)})
    load(client.stack, msgspec.structs.replace(kitchen, hours=hours))
    (pointer, detail), *others = wrong_lines(await client.place(an_order(kitchen, f"{unique}-now"))).items()
    assert (pointer, others) == ("/restaurant", [])
    assert detail.startswith("Thali House is closed on ")
    noon = day.replace(hour=13, minute=0)
    later = an_order(kitchen, f"{unique}-later", deliver_at=noon.isoformat())
    assert (await client.place(later)).status_code == 201
    await client.reaches(order_id(f"{unique}-later"), "SCHEDULED")
    at_night = an_order(kitchen, f"{unique}-night", deliver_at=(noon + timedelta(hours=9)).isoformat())
    assert list(wrong_lines(await client.place(at_night))) == ["/deliver_at"]


# -- changes while orders run ------------------------------------------------------------------------------------------


async def test_a_restaurant_is_loaded_changed_and_removed_live(
    client: Client, stack: Stack, kitchen: Restaurant, unique: str
) -> None:
    """The removal comes last and removes the restaurants of other tests too. Orders of the city run meanwhile."""
    stack.place(unique[-6:], 40, 10.0)
    assert list(wrong_lines(await client.place(an_order(kitchen, unique)))) == ["/restaurant"]
    printed = load(stack, kitchen)
    assert f"new       {kitchen.key}\nunchanged 0\n" in printed
    for number in (1, 2):
        assert f"{stack.url_of(number)} serves the restaurants of the file." in printed
        answer = await client.http.get(f"{stack.url_of(number)}/v1/restaurants/{kitchen.key}")
        assert answer.json()["menu"][0]["unit_price"] == 80_00
    assert (await client.place(an_order(kitchen, unique))).status_code == 201

    dearer = msgspec.structs.replace(kitchen, menu=(msgspec.structs.replace(THALI, unit_price=90_00),))
    assert f"changed   {kitchen.key}\n" in load(stack, dearer)
    other = await client.place(an_order(kitchen, f"{unique}-other"))
    assert wrong_lines(other) == {"/items/0/unit_price": "the price of 'TH-1' is 9000 on the menu, not 8000"}
    assert (await client.place(an_order(kitchen, unique))).status_code == 200, "a repeated order"

    sold_out = msgspec.structs.replace(kitchen, menu=(msgspec.structs.replace(THALI, available=False),))
    load(stack, sold_out)
    assert wrong_lines(await client.place(an_order(kitchen, f"{unique}-other"))) == {
        "/items/0/pos_code": "'TH-1' is sold out"
    }
    assert load(stack, sold_out).startswith("unchanged 1\n")

    city = stack.directory / "catalogue.json"
    status, printed, error = dabbawala(stack, "catalogue", "load", str(city), "--remove-missing")
    assert status == 0, error
    assert f"removed   {kitchen.key}\n" in printed
    assert list(wrong_lines(await client.place(an_order(kitchen, f"{unique}-other")))) == ["/restaurant"]
    assert (await client.place(an_order(kitchen, unique))).status_code == 200, "a repeated order, after the removal"
    await client.reaches(order_id(unique), "IN_PREPARATION")
    ended = stack.wait_until_ended(unique[-6:], 40, WITHIN_S)
    assert set(ended.values()) == {"DELIVERED"}


async def test_any_producer_may_add_and_remove_a_restaurant(client: Client, kitchen: Restaurant, unique: str) -> None:
    await client.produce(RESTAURANTS, write(kitchen), key=kitchen.key)

    async def accepted() -> bool:
        return (await client.place(an_order(kitchen, unique))).status_code == 201

    await client.until(accepted, "the restaurant is loaded")
    await client.produce(RESTAURANTS, None, key=kitchen.key)

    async def gone() -> bool:
        return (await client.http.get(f"/v1/restaurants/{kitchen.key}")).status_code == 404

    await client.until(gone, "the restaurant is removed")
    await client.reaches(order_id(unique), "IN_PREPARATION")


async def test_an_invalid_file_changes_nothing(client: Client, kitchen: Restaurant, tmp_path: Path) -> None:
    before = await client.get("/table/restaurants/")
    wrong = {**msgspec.to_builtins(kitchen), "restaurant": "wrong", "time_zone": "Bombay"}
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps([msgspec.to_builtins(kitchen), wrong]))
    for command in ("check", "load"):
        status, printed, error = dabbawala(client.stack, "catalogue", command, str(file))
        assert (status, printed) == (2, "")
        assert error.splitlines()[1:] == [
            "restaurant wrong /1/time_zone: there is no 'Bombay'; use a name like `Asia/Kolkata`"
        ]
    assert await client.get("/table/restaurants/") == before


# -- views and commands ------------------------------------------------------------------------------------------------


async def test_the_api_lists_restaurants_and_shows_one(client: Client, stack: Stack) -> None:
    for number in (1, 2):
        url = f"{stack.url_of(number)}/v1/restaurants"
        listed = (await client.http.get(url)).json()["restaurants"]
        assert [row["id"] for row in listed] == sorted(row["id"] for row in listed)
        assert {"id": "ballard-slice", "name": "Ballard Slice", "region": "mumbai-fort", "open": True} in listed
        fort = (await client.http.get(url, params={"region": "mumbai-fort"})).json()["restaurants"]
        assert {row["id"] for row in fort} == {key for key, it in KITCHENS.items() if it.region.id == "mumbai-fort"}
    one = await client.get("/v1/restaurants/ballard-slice")
    assert {"position", "preparation_s", "hours", "open"} <= one.keys()
    assert "pos_url" not in one
    assert (one["id"], one["time_zone"], one["currency"]) == ("ballard-slice", "Asia/Kolkata", "INR")
    assert one["menu"][3] == {
        "pos_code": "BS-04",
        "name": "Fresh lime soda",
        "unit_price": 80_00,
        "modifiers": [],
        "available": True,
    }
    for name in ("nowhere", "no way"):
        answer = await client.http.get(f"/v1/restaurants/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_the_catalogue_is_a_table_like_the_others(client: Client, stack: Stack) -> None:
    rows = (await client.get("/table/restaurants/"))["rows"]
    assert KITCHENS.keys() <= {row["key"] for row in rows}
    assert len((await client.get("/table/restaurants/", limit=2))["rows"]) == 2
    [row] = (await client.get("/table/restaurants/ballard-slice"))["rows"]
    assert (row["key"], row["row"]["name"]) == ("ballard-slice", "Ballard Slice")
    page = await client.http.get("/table/restaurants/", headers={"Accept": "text/html"})
    assert "<td>ballard-slice</td>" in page.text
    status, printed, error = stack.faust("tables")
    assert status == 0, error
    assert "Restaurant id -> position, opening hours and menu." in printed
    status, printed, error = stack.faust("--json", "table", "restaurants", "ballard-slice")
    assert status == 0, error
    assert json.loads(printed) == [row]


async def test_the_commands_show_the_catalogue(client: Client, stack: Stack) -> None:
    status, printed, error = dabbawala(stack, "catalogue", "list", "--region", "mumbai-fort")
    assert status == 0, error
    assert "Ballard Slice" in printed
    assert "Seaface Burgers" not in printed
    status, printed, error = dabbawala(stack, "catalogue", "list", "--json")
    assert [row["id"] for row in json.loads(printed)["restaurants"]] == [
        row["id"] for row in (await client.get("/v1/restaurants"))["restaurants"]
    ]
    status, printed, error = stack.faust("catalogue", "get", "ballard-slice", "--json")
    assert (status, json.loads(printed)) == (0, await client.get("/v1/restaurants/ballard-slice"))
    assert dabbawala(stack, "catalogue", "get", "nowhere")[0] == 1


# -- restarts, last because one worker ends ----------------------------------------------------------------------------


async def test_a_changed_catalogue_file_is_loaded_at_the_start(
    client: Client, stack: Stack, kitchen: Restaurant, unique: str
) -> None:
    load(stack, kitchen)
    assert (await client.place(an_order(kitchen, unique))).status_code == 201
    file = stack.directory / "restarted.json"
    dearer = msgspec.structs.replace(kitchen, menu=(msgspec.structs.replace(THALI, unit_price=90_00),))
    file.write_bytes(msgspec.json.encode([dearer]))
    stack.workers[2].kill()
    stack.start_worker(2, DABBAWALA_CATALOGUE=str(file))

    async def price() -> int:
        answer = await client.http.get(f"/v1/restaurants/{kitchen.key}")
        return int(answer.json()["menu"][0]["unit_price"])

    async def dear() -> bool:
        return await price() == 90_00

    await client.until(dear, "the other worker reads the new price from the topic")
    assert (await client.get("/v1/restaurants/ballard-slice"))["name"] == "Ballard Slice", (
        "restaurants that are missing from the file stay"
    )
    for number in (2, 1):
        stack.workers[number].kill()
    stack.start_worker(DABBAWALA_CATALOGUE="")
    async with Client(stack) as fresh:

        async def again() -> bool:
            return (await fresh.place(an_order(kitchen, unique))).status_code == 200

        async def refused() -> bool:
            answer = await fresh.place(an_order(kitchen, f"{unique}-other"))
            return list(wrong_lines(answer)) == ["/items/0/unit_price"]

        await fresh.until(again, "a repeated order is answered")
        await fresh.until(refused, "a new order is rejected for the old price")
