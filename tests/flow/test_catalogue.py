"""The catalogue in a whole installation of two workers: orders against the menu, and changes of it while orders run."""

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
from tests.flow.reading import Following, headers
from tests.flow.two_workers import one_of_each, two_workers
from tests.stack import Stack, run_command
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
"""What `an_order` orders two of."""


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two workers and everybody outside."""
    with two_workers(kafka, tmp_path_factory.mktemp("catalogue"), hand_pos.kitchens(1)) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    """A party outside."""
    async with one_of_each(stack) as (client, _):
        yield client


@pytest.fixture
def kitchen(hand_pos: HandPos, unique: str) -> Restaurant:
    """A restaurant with a menu, which nobody knows yet; its point of sale accepts every ticket."""
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
    """Load a file with these; what the command says."""
    file = stack.directory / "loaded.json"
    file.write_bytes(msgspec.json.encode(restaurants))
    status, said, error = dabbawala(stack, "catalogue", "load", str(file), *options)
    assert status == 0, error
    return said


def dabbawala(stack: Stack, *arguments: str) -> tuple[int, str, str]:
    """The command: its exit status, stdout and stderr."""
    return run_command([sys.executable, "-m", "streams.cli", *arguments], stack.environment)


def wrong_lines(answer: Any) -> dict[str, str]:
    """Pointer -> detail of a problem."""
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def city_order(name: str, restaurant: str) -> Body:
    """An order of the simulated city's for this restaurant, made from its menu."""
    made = (order(name, name, number, datetime.now(UTC)) for number in range(1, 1000))
    body: Body = json.loads(write(next(placed for placed in made if placed.restaurant == restaurant)))
    return body


# -- at the door -----------------------------------------------------------------------------------------------------


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


async def test_what_differs_from_the_menu_is_refused_naming_the_line_and_nobody_is_charged(
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
        await letters.until(lambda: len(letters.records) >= len(wrong), "each is set aside")
    for letter in letters.records:
        name = letter.key.decode().partition(":")[2]
        assert headers(letter)["dead-letter.reason"].startswith(f"{pointers[name]}: ")
        assert await client.order(order_id(name)) is None
        assert not client.payments(order_id(name))


async def test_a_restaurant_that_is_closed_takes_orders_for_when_it_is_open(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    """It opens on one day of the week, three days from now."""
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


# -- changes while orders run ----------------------------------------------------------------------------------------


async def test_a_restaurant_that_is_loaded_changed_and_removed_while_orders_run(
    client: Client, stack: Stack, kitchen: Restaurant, unique: str
) -> None:
    """Removed last, with all that others have loaded; the city's orders run through all of it."""
    stack.place(unique[-6:], 40, 10.0)
    assert list(wrong_lines(await client.place(an_order(kitchen, unique)))) == ["/restaurant"]
    said = load(stack, kitchen)
    assert f"new       {kitchen.key}\nunchanged 0\n" in said
    for number in (1, 2):
        assert f"{stack.url_of(number)} serves it." in said
        answer = await client.http.get(f"{stack.url_of(number)}/v1/restaurants/{kitchen.key}")
        assert answer.json()["menu"][0]["unit_price"] == 80_00
    assert (await client.place(an_order(kitchen, unique))).status_code == 201

    dearer = msgspec.structs.replace(kitchen, menu=(msgspec.structs.replace(THALI, unit_price=90_00),))
    assert f"changed   {kitchen.key}\n" in load(stack, dearer)
    other = await client.place(an_order(kitchen, f"{unique}-other"))
    assert wrong_lines(other) == {"/items/0/unit_price": "the price of 'TH-1' is 9000 on the menu, not 8000"}
    assert (await client.place(an_order(kitchen, unique))).status_code == 200, "the same order again"

    sold_out = msgspec.structs.replace(kitchen, menu=(msgspec.structs.replace(THALI, available=False),))
    load(stack, sold_out)
    assert wrong_lines(await client.place(an_order(kitchen, f"{unique}-other"))) == {
        "/items/0/pos_code": "'TH-1' is sold out"
    }
    assert load(stack, sold_out).startswith("unchanged 1\n")

    city = stack.directory / "catalogue.json"
    status, said, error = dabbawala(stack, "catalogue", "load", str(city), "--remove-missing")
    assert status == 0, error
    assert f"removed   {kitchen.key}\n" in said
    assert list(wrong_lines(await client.place(an_order(kitchen, f"{unique}-other")))) == ["/restaurant"]
    assert (await client.place(an_order(kitchen, unique))).status_code == 200, "the same order still"
    await client.reaches(order_id(unique), "IN_PREPARATION")
    ended = stack.wait_until_ended(unique[-6:], 40, 60)
    assert set(ended.values()) == {"DELIVERED"}


async def test_anybodys_producer_may_load_a_restaurant_and_remove_it(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    await client.produce(RESTAURANTS, write(kitchen), key=kitchen.key)

    async def accepted() -> bool:
        return (await client.place(an_order(kitchen, unique))).status_code == 201

    await client.until(accepted, "the restaurant is known")
    await client.produce(RESTAURANTS, None, key=kitchen.key)

    async def gone() -> bool:
        return (await client.http.get(f"/v1/restaurants/{kitchen.key}")).status_code == 404

    await client.until(gone, "the restaurant is gone")
    await client.reaches(order_id(unique), "IN_PREPARATION")


async def test_a_file_that_is_wrong_changes_nothing(client: Client, kitchen: Restaurant, tmp_path: Path) -> None:
    before = await client.get("/table/restaurants/")
    wrong = {**msgspec.to_builtins(kitchen), "restaurant": "wrong", "time_zone": "Bombay"}
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps([msgspec.to_builtins(kitchen), wrong]))
    for command in ("check", "load"):
        status, said, error = dabbawala(client.stack, "catalogue", command, str(file))
        assert (status, said) == (2, "")
        assert error.splitlines()[1:] == ["/1/time_zone: there is no 'Bombay'; use a name like `Asia/Kolkata`"]
    assert await client.get("/table/restaurants/") == before


# -- looking at it ---------------------------------------------------------------------------------------------------


async def test_the_api_lists_restaurants_and_shows_one_whole(client: Client, stack: Stack) -> None:
    for number in (1, 2):
        url = f"{stack.url_of(number)}/v1/restaurants"
        listed = (await client.http.get(url)).json()["restaurants"]
        assert [row["id"] for row in listed] == sorted(row["id"] for row in listed)
        assert {"id": "ballard-slice", "name": "Ballard Slice", "region": "mumbai-fort", "open": True} in listed
        fort = (await client.http.get(url, params={"region": "mumbai-fort"})).json()["restaurants"]
        assert {row["id"] for row in fort} == {key for key, it in KITCHENS.items() if it.region.id == "mumbai-fort"}
    one = await client.get("/v1/restaurants/ballard-slice")
    assert {"position", "pos_url", "preparation_s", "hours", "open"} <= one.keys()
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


async def test_it_is_a_table_like_the_others(client: Client, stack: Stack) -> None:
    rows = (await client.get("/table/restaurants/"))["rows"]
    assert KITCHENS.keys() <= {row["key"] for row in rows}
    assert len((await client.get("/table/restaurants/", limit=2))["rows"]) == 2
    [row] = (await client.get("/table/restaurants/ballard-slice"))["rows"]
    assert (row["key"], row["row"]["name"]) == ("ballard-slice", "Ballard Slice")
    page = await client.http.get("/table/restaurants/", headers={"Accept": "text/html"})
    assert "<td>ballard-slice</td>" in page.text
    status, said, error = stack.faust("tables")
    assert status == 0, error
    assert "Restaurant id -> where it is, when it is open, what it cooks." in said
    status, said, error = stack.faust("--json", "table", "restaurants", "ballard-slice")
    assert status == 0, error
    assert json.loads(said) == [row]


async def test_the_commands_show_it_too(client: Client, stack: Stack) -> None:
    status, said, error = dabbawala(stack, "catalogue", "list", "--region", "mumbai-fort")
    assert status == 0, error
    assert "Ballard Slice" in said
    assert "Seaface Burgers" not in said
    status, said, error = dabbawala(stack, "catalogue", "list", "--json")
    assert [row["id"] for row in json.loads(said)["restaurants"]] == [
        row["id"] for row in (await client.get("/v1/restaurants"))["restaurants"]
    ]
    status, said, error = stack.faust("catalogue", "get", "ballard-slice", "--json")
    assert (status, json.loads(said)) == (0, await client.get("/v1/restaurants/ballard-slice"))
    assert dabbawala(stack, "catalogue", "get", "nowhere")[0] == 1


# -- restarts: the last one ------------------------------------------------------------------------------------------


async def test_a_worker_that_starts_with_a_changed_file_loads_it_and_one_without_a_file_leaves_all_as_it_is(
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

    await client.until(dear, "the other worker has it from the topic")
    assert (await client.get("/v1/restaurants/ballard-slice"))["name"] == "Ballard Slice", (
        "what the file has not, stays"
    )
    for number in (2, 1):
        stack.workers[number].kill()
    stack.start_worker(DABBAWALA_CATALOGUE="")
    async with Client(stack) as fresh:

        async def again() -> bool:
            return (await fresh.place(an_order(kitchen, unique))).status_code == 200

        async def refused() -> bool:
            answer = await fresh.place(an_order(kitchen, f"{unique}-other"))
            if answer.status_code == 503:
                return False  # its partition is still that of the worker which is gone
            return list(wrong_lines(answer)) == ["/items/0/unit_price"]

        await fresh.until(again, "the same order again", 60)
        await fresh.until(refused, "another one is told the price that holds", 60)
