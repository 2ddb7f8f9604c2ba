"""Without a reveal no answer to an operator has a word of a customer, or the exact place of anybody."""

import re
from collections.abc import Mapping

from simulators.streets import moved
from streams.access.rules import RULES
from tests.flow.client import Client, Driver, an_order, order_id, place
from tests.flow.hand_pos import HandPos
from tests.flow.test_calls import BROKEN, prepare_of
from tests.flow.test_dead_letters import letter_of
from tests.support.keys import REVEALED
from topics.families import ORDERS
from topics.places import Position
from topics.restaurants import Restaurant

MARK = "Zquark"
ENDLESS = {"/v1/events", "/v1/orders/{order}/events"}
"""Feeds, which have records of `order-updates` alone; `tests/streams/web/test_masking.py` decides on their fields."""
SHOWS_WORDS = {"/table/{name}/", "/v1/rows/{name}", "/table/{name}/{key}", "/v1/dead-letters/{partition}/{offset}"}
SHOWS_PLACES = SHOWS_WORDS | {
    "/v1/drivers",
    "/v1/drivers/{driver}",
    "/v1/drivers/{driver}/delivery",
    "/v1/regions/{region}",
}
"""Routes that show the words of customers, and exact places, once they are revealed."""


def exact(position: Position) -> str:
    """Return digits of a latitude that no masked place has."""
    return str(position.lat)[:8]


async def test_no_answer_has_personal_data_unless_revealed(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    home, here = moved(kitchen.position, 1234.5, 321.0), moved(kitchen.position, 432.1, 77.7)
    secrets = [MARK, exact(home), exact(here)]
    variables = await a_marked_order(client, kitchen, hand_pos, unique, home, here)
    tables = [table["name"] for table in (await client.get("/table/"))["tables"]]
    owners = [variables["order"], variables["driver"], kitchen.region, variables["partition"]]
    words, places = set(), set()
    for route in [path for path, rules in RULES.items() if "GET" in rules and path not in ENDLESS]:
        for path in paths_of(route, variables, tables, owners):
            masked = await client.http.get(path, params={"limit": "1000"})
            assert masked.status_code in (200, 204), (path, masked.text)
            assert not [secret for secret in secrets if secret in masked.text], path
            revealed = await client.http.get(path, params={"limit": "1000", **REVEALED})
            words |= {route} if MARK in revealed.text else set()
            places |= {route} if exact(home) in revealed.text or exact(here) in revealed.text else set()
    assert words == SHOWS_WORDS
    assert places == SHOWS_PLACES


async def a_marked_order(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str, home: Position, here: Position
) -> dict[str, str]:
    """Leave a customer's words in each table, and two drivers of the region; return the variables of paths."""
    customer = {
        "name": f"{MARK} Rao",
        "address": f"12 {MARK} Road",
        "position": place(home),
        "phone": f"+91 {MARK}",
        "note": f"ring {MARK}",
    }
    body = an_order(kitchen, unique, customer=customer)
    body["items"][0]["note"] = f"for {MARK}"
    driver, order = Driver(client, f"{unique}-driver"), order_id(unique)
    await driver.available(kitchen.region, here)
    await client.place(body)
    await client.reaches(order, "IN_PREPARATION")
    await client.ticket(kitchen, order, "finished")
    await driver.has(order)
    await Driver(client, f"{unique}-waits").available(kitchen.region, here)
    hand_pos.answers[kitchen.restaurant] = BROKEN
    await client.place({**body, "external_id": f"{unique}-called"})
    await client.until(lambda: prepare_of(client, order_id(f"{unique}-called")), "the call with the note")
    wrong = {"type": "Placed", **body, "total": MARK}
    await client.produce(ORDERS, wrong, key=unique, headers={MARK: MARK})
    letter = await letter_of(client, unique)
    shown = await client.get(f"/v1/dead-letters/{letter['letter']}")
    assert shown["fields"]["customer"]["name"] == "Z***", "what helps is there, masked"
    partition, _, offset = letter["letter"].partition("/")
    return {
        "order": order,
        "driver": driver.name,
        "restaurant": kitchen.restaurant,
        "region": kitchen.region,
        "partition": partition,
        "offset": offset,
        "record": "orders.Placed",
    }


def paths_of(route: str, variables: Mapping[str, str], tables: list[str], owners: list[str]) -> list[str]:
    """Return the paths of a route: of a table each one, and with each owner."""
    named = [route.replace("{name}", table) for table in tables] if "{name}" in route else [route]
    keyed = [path.replace("{key}", owner) for path in named for owner in (owners if "{key}" in path else [""])]
    return [re.sub(r"\{(\w+)\}", lambda found: variables[found[1]], path) for path in keyed]
