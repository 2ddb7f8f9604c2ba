"""The API of a driver's app, and the matching of deliveries and drivers."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx

from simulators.streets import metres, moved
from tests.flow.client import Body, Client, Driver, an_order, order_id, place
from tests.flow.reading import Following
from topics.families import DELIVERIES, DISPATCH, LOCATIONS
from topics.places import Position
from topics.restaurants import Restaurant

MAX_POLL_S = 30.0

RIDE_MPS = 5.0 / 1.3
"""Metres a second along the straight line: 5 m/s on roads that are 1.3 times as long."""
CLOSE = timedelta(seconds=5)
"""Tolerance of an ETA. Smaller changes are not reported."""


async def cooked(client: Client, kitchen: Restaurant, name: str) -> str:
    """Place an order, have it cooked, and return its id; the order then waits for a driver."""
    order = order_id(name)
    assert (await client.place(an_order(kitchen, name))).status_code == 201
    await client.reaches(order, "IN_PREPARATION")
    assert (await client.ticket(kitchen, order, "finished")).status_code == 200
    return order


def ride(*stops: Position) -> timedelta:
    """Return the duration of a ride along these stops of one meridian."""
    return timedelta(seconds=sum(metres(here, there) for here, there in pairwise(stops)) / RIDE_MPS)


async def test_a_driver_delivers_and_repeats_are_idempotent(client: Client, kitchen: Restaurant, unique: str) -> None:
    driver = Driver(client, unique)
    state = await driver.available(kitchen.region, kitchen.position)
    assert state == {
        "driver": unique,
        "status": "WAITING_FOR_WORK",
        "shift": 1,
        "region": kitchen.region,
        "position": place(kitchen.position),
        "delivery": None,
        "picked_up": False,
        "outcome": "APPLIED",
    }
    order = await cooked(client, kitchen, unique)
    there = moved(kitchen.position, 1000.0, 0)
    assert await driver.has(order) == {
        "delivery": order,
        "attempt": 1,
        "restaurant": kitchen.restaurant,
        "pickup": place(kitchen.position),
        "dropoff": place(there),
        "picked_up": False,
    }
    assert (await client.reaches(order, "WAITING_FOR_DRIVER"))["driver"] == unique
    for outcome in ("APPLIED", "ABSORBED"):
        answer = await driver.tell("pickup", {"delivery": order})
        assert (answer.status_code, answer.json()["picked_up"]) == (200, True)
        assert answer.json()["outcome"] == outcome
    await client.reaches(order, "IN_DELIVERY")
    assert (await driver.has(order))["picked_up"]
    for _ in range(2):
        answer = await driver.tell("delivered", {"delivery": order})
        assert (answer.status_code, answer.json()["status"], answer.json()["delivery"]) == (200, "IDLE", None)
    done = await client.reaches(order, "DELIVERED")
    assert (done["eta"], done["eta_s"], done["delivery"]) == (None, None, {"status": "DELIVERED", "attempt": 1})
    assert (await driver.tell("pickup", {"delivery": order})).status_code == 200, "a late repeat"


async def test_an_illegal_step_of_a_driver_is_rejected(client: Client, kitchen: Restaurant, unique: str) -> None:
    busy, other, nobody = (Driver(client, f"{unique}-{name}") for name in ("busy", "other", "nobody"))
    wanted = {"region": kitchen.region, "position": place(kitchen.position)}
    await busy.available(kitchen.region, kitchen.position)
    order = await cooked(client, kitchen, unique)
    await busy.has(order)
    await other.available(kitchen.region, kitchen.position)
    rejected = [
        (busy, "delivered", {"delivery": order}, 409, "has not picked it up"),
        (busy, "available", wanted, 409, "has a delivery"),
        (busy, "unavailable", {}, 409, "has a delivery"),
        (busy, "pickup", {"delivery": "my-shop:another"}, 409, f"has {order}, not my-shop:another"),
        (other, "pickup", {"delivery": order}, 409, "has no delivery"),
        (other, "delivered", {"delivery": order}, 409, "has no delivery"),
        (nobody, "pickup", {"delivery": order}, 404, nobody.name),
        (nobody, "delivered", {"delivery": order}, 404, nobody.name),
        (nobody, "unavailable", {}, 404, nobody.name),
        (nobody, "location", {"position": place(kitchen.position)}, 404, nobody.name),
        (busy, "pickup", {}, 422, "delivery"),
        (busy, "available", {"region": "no such region!", "position": wanted["position"]}, 422, "region"),
        (busy, "location", {"position": {"lat": 100, "lon": 0}}, 422, "lat"),
    ]
    for driver, what, body, status, detail in rejected:
        answer = await driver.tell(what, body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), what
        assert detail in answer.json()["detail"]
    assert (await nobody.poll(0)).status_code == 404
    assert (await client.http.get(f"/v1/drivers/{nobody.name}")).status_code == 404
    assert (await client.http.get("/v1/drivers/no%20name")).status_code == 404
    assert (await busy.poll(31)).status_code == 422
    assert (await client.order(order) or {})["status"] == "WAITING_FOR_DRIVER", "the order is unchanged"


async def test_a_request_repeated_under_its_key_is_one_shift(client: Client, kitchen: Restaurant, unique: str) -> None:
    driver = Driver(client, unique)
    shifts = [
        (await driver.available(kitchen.region, kitchen.position, **{"Idempotency-Key": f"{unique}/1"}))["shift"]
        for _ in range(2)
    ]
    for _ in range(2):
        assert (await driver.tell("unavailable", **{"Idempotency-Key": f"{unique}/off"})).json()["status"] == "IDLE"
    again = await driver.available(kitchen.region, kitchen.position, **{"Idempotency-Key": f"{unique}/1"})
    assert (shifts, again["shift"], again["status"]) == ([1, 1], 1, "IDLE"), "a late copy opens no shift"
    new = await driver.available(kitchen.region, kitchen.position, **{"Idempotency-Key": f"{unique}/2"})
    assert (new["shift"], new["status"]) == (2, "WAITING_FOR_WORK")


async def test_a_long_poll_lasts_its_time_without_a_transaction(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    driver = Driver(client, unique)
    await driver.available(kitchen.region, kitchen.position)

    async def known_to_dispatch() -> Body | None:
        return (await client.rows("dispatch", kitchen.region)).get(f"{kitchen.region}/driver/{unique}")

    await client.until(known_to_dispatch, "dispatch has the driver")
    began = time.monotonic()
    assert (await driver.poll(1)).status_code == 204
    assert time.monotonic() - began >= 1
    for wait_s in (0, 0.2):
        commits = [await client.counter("commits")]
        for _ in range(15):
            assert (await driver.poll(wait_s)).status_code == 204
            commits.append(await client.counter("commits"))
        # The worker may commit for other reasons: a timer of another order, or a check that it owns the partition.
        assert 0 in [after - before for before, after in pairwise(commits)]


async def test_a_delivery_ends_the_long_poll(client: Client, kitchen: Restaurant, unique: str) -> None:
    driver = Driver(client, unique)
    await driver.available(kitchen.region, kitchen.position)

    async def poll_until_offered() -> tuple[httpx.Response, float]:
        """Poll until there is an offer; return it, and the seconds that the last poll took."""
        while True:
            began = time.monotonic()
            answer = await driver.poll(MAX_POLL_S)
            if answer.status_code != 204:
                return answer, time.monotonic() - began

    polling = asyncio.create_task(poll_until_offered())
    order = await cooked(client, kitchen, unique)
    answer, took_s = await polling
    assert (answer.status_code, answer.json()["delivery"]) == (200, order)
    assert took_s < MAX_POLL_S, "the offer ends the poll, not the poll's own deadline"


async def test_the_eta_falls_as_the_driver_comes_nearer(client: Client, kitchen: Restaurant, unique: str) -> None:
    far, near = moved(kitchen.position, -3000.0, 0), moved(kitchen.position, -1000.0, 0)
    there, almost = moved(kitchen.position, 1000.0, 0), moved(kitchen.position, 800.0, 0)
    driver = Driver(client, unique)
    await driver.available(kitchen.region, far)
    since = datetime.now(UTC)
    order = await cooked(client, kitchen, unique)
    await driver.has(order)

    async def expect(since: datetime, *stops: Position) -> None:
        """Wait until the ETA is that of a ride along these stops, begun between `since` and now."""

        async def is_eta() -> bool:
            asked = datetime.now(UTC)
            shown = await client.order(order) or {}
            now = datetime.now(UTC)
            if shown["eta"] is None:
                return False
            eta = datetime.fromisoformat(shown["eta"])
            assert int((eta - now).total_seconds()) - 1 <= shown["eta_s"] <= int((eta - asked).total_seconds()) + 1
            return since - CLOSE <= eta - ride(*stops) <= now + CLOSE

        await client.until(is_eta, f"the ETA of a ride of {ride(*stops)} from {stops[0]}")

    await client.reaches(order, "WAITING_FOR_DRIVER")
    await expect(since, far, kitchen.position, there)
    since = datetime.now(UTC)
    await client.produce(LOCATIONS, driver.location(near), key=unique)
    await expect(since, near, kitchen.position, there)
    old = driver.location(far, datetime.now(UTC) - timedelta(minutes=1))
    await client.produce(LOCATIONS, old, key=unique)
    since = datetime.now(UTC)
    answer = await driver.tell("location", {"position": place(kitchen.position)})
    assert answer.status_code == 202
    await expect(since, kitchen.position, there)
    changes = [entry for entry in await client.journal(order) if entry["event"] == "EtaChanged"]
    assert len(changes) == 2, "an older location changes nothing"
    await driver.tell("pickup", {"delivery": order})
    await client.reaches(order, "IN_DELIVERY")
    since = datetime.now(UTC)
    await client.produce(LOCATIONS, driver.location(almost), key=unique)
    await expect(since, almost, there)
    assert (await driver.state())["position"] == place(almost)


async def test_locations_without_a_delivery_change_no_order(client: Client, kitchen: Restaurant, unique: str) -> None:
    unknown = "locations of unknown drivers"
    before = await client.counter(unknown)
    driver, nobody = Driver(client, unique), Driver(client, f"{unique}-nobody")
    await driver.available(kitchen.region, kitchen.position)
    order = await cooked(client, kitchen, unique)
    await driver.has(order)
    for what in ("pickup", "delivered"):
        assert (await driver.tell(what, {"delivery": order})).status_code == 200
    await client.reaches(order, "DELIVERED")
    await client.produce(LOCATIONS, nobody.location(kitchen.position), key=nobody.name)
    elsewhere = moved(kitchen.position, 500.0, 0)
    await client.produce(LOCATIONS, driver.location(elsewhere), key=unique)

    async def arrived() -> bool:
        return (await driver.state())["position"] == place(elsewhere) and await client.counter(unknown) > before

    await client.until(arrived, "both locations are applied")
    done = await client.order(order) or {}
    assert (done["status"], done["eta"]) == ("DELIVERED", None)


async def test_the_nearest_driver_is_found_at_the_last_location(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    near, far = Driver(client, f"{unique}-near"), Driver(client, f"{unique}-far")
    await near.available(kitchen.region, moved(kitchen.position, 500.0, 0))
    await far.available(kitchen.region, moved(kitchen.position, 4000.0, 0))
    nearest = moved(kitchen.position, 0, 50.0)
    await client.produce(LOCATIONS, far.location(nearest), key=far.name)

    async def both_known() -> bool:
        rows = await client.rows("dispatch", kitchen.region)
        waiting = {key.rpartition("/")[2]: row["position"] for key, row in rows.items() if "/driver/" in key}
        return waiting.keys() == {near.name, far.name} and waiting[far.name] == place(nearest)

    await client.until(both_known, "dispatch has the last location of both drivers")
    first = await cooked(client, kitchen, f"{unique}-1")
    await far.has(first)
    second = await cooked(client, kitchen, f"{unique}-2")
    await near.has(second)


async def test_waiting_deliveries_are_assigned_oldest_first(client: Client, kitchen: Restaurant, unique: str) -> None:
    orders = []
    for number in range(2):
        orders.append(await cooked(client, kitchen, f"{unique}-{number}"))

        async def waits(count: int = number + 1) -> bool:
            return sum("/pending/" in key for key in await client.rows("dispatch", kitchen.region)) == count

        await client.until(waits, "the delivery waits in dispatch")
    for order in orders:
        driver = Driver(client, f"{unique}-{order[-1]}")
        await driver.available(kitchen.region, kitchen.position)
        await driver.has(order)


async def test_an_unavailable_driver_gets_no_delivery(client: Client, kitchen: Restaurant, unique: str) -> None:
    """Dispatch has a driver who went home. The driver's twin rejects the assignment, and the delivery asks again."""
    gone, comes = Driver(client, f"{unique}-gone"), Driver(client, f"{unique}-comes")
    await gone.available(kitchen.region, kitchen.position)
    assert (await gone.tell("unavailable")).json()["status"] == "IDLE"

    async def forgotten() -> bool:
        return not any("/driver/" in key for key in await client.rows("dispatch", kitchen.region))

    await client.until(forgotten, "dispatch has removed the driver")
    ghost = {
        "type": "DriverAvailable",
        "region": kitchen.region,
        "driver": gone.name,
        "shift": 1,
        "position": place(kitchen.position),
    }
    async with Following(client.stack.kafka, client.stack.name, [DELIVERIES], from_now=True) as deliveries:
        await client.produce(DISPATCH, ghost, key=kitchen.region)
        order = await cooked(client, kitchen, unique)
        await deliveries.until(
            lambda: [r for r in deliveries.records if b"DriverRefused" in r.value and r.key.decode() == order],
            "the driver's twin rejects the assignment",
        )
    await comes.available(kitchen.region, moved(kitchen.position, 3000.0, 0))
    assert (await comes.has(order))["attempt"] == 2
    assert (await gone.poll(0)).status_code == 204
    assert (await client.reaches(order, "WAITING_FOR_DRIVER"))["driver"] == comes.name


async def test_a_driver_waits_only_in_the_newest_region(client: Client, kitchen: Restaurant, unique: str) -> None:
    driver, elsewhere = Driver(client, unique), f"{kitchen.region}-west"
    await driver.available(kitchen.region, kitchen.position)
    assert (await driver.available(elsewhere, kitchen.position))["shift"] == 2

    async def moved_on() -> bool:
        old, new = [await client.rows("dispatch", region) for region in (kitchen.region, elsewhere)]
        return not any("/driver/" in key for key in old) and f"{elsewhere}/driver/{unique}" in new

    await client.until(moved_on, "the driver waits in the new region only")
