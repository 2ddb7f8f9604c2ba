"""Drivers bring each delivery they are given, and report it once, whoever is killed on the way."""

import time
from itertools import pairwise

import pytest

from simulators.city import AVENUE_MPS, BLOCK_M, driver_home
from simulators.drivers import driver_name
from simulators.streets import metres
from tests.simulators.conftest import Starts
from tests.simulators.fake_worker import LOST, FakeWorker
from tests.simulators.process import Simulator
from tests.simulators.reading import records
from tests.simulators.waiting import WITHIN_S, until
from topics.families import LOCATIONS
from topics.locations import Location

DRIVER = driver_name(0)
REGION, HOME = driver_home("1", DRIVER, 0)
PICKUP, DROPOFF = REGION.crossing(2, 4), REGION.crossing(9, 18)
PATH = f"/v1/drivers/{DRIVER}"


def offer(delivery: str = "shop:1", attempt: int = 1) -> dict[str, object]:
    return {
        "delivery": delivery,
        "attempt": attempt,
        "restaurant": "ballard-slice",
        "pickup": {"lat": PICKUP.lat, "lon": PICKUP.lon},
        "dropoff": {"lat": DROPOFF.lat, "lon": DROPOFF.lon},
    }


def events(drivers: Simulator) -> list[str]:
    """The log of the one driver, in order."""
    return [f"{entry['event']} {entry['delivery']}".strip() for entry in drivers.entries()]


@pytest.fixture
def drivers(simulator: Starts, worker: FakeWorker, kafka: str, topics: str) -> Simulator:
    """One driver, in instant time unless started otherwise."""
    return simulator(
        "drivers", "--drivers", "1", "--worker", worker.url, "--bootstrap-servers", kafka, "--topic-prefix", topics,
        "--speed", "0",
    )  # fmt: skip


async def test_a_driver_brings_one_delivery_after_the_other(drivers: Simulator, worker: FakeWorker) -> None:
    worker.offers.extend([offer("shop:1"), offer("shop:2")])
    drivers.start()
    await until(lambda: len(events(drivers)) == 9, "two deliveries are brought")
    trip = ["available", "assigned shop:{0}", "picked_up shop:{0}", "delivered shop:{0}"]
    assert events(drivers) == [line.format(number) for number in (1, 2) for line in trip] + ["available"]
    assert worker.drivers[DRIVER].shift == 3


async def test_positions_go_from_home_by_the_restaurant_to_the_customer_at_the_speed_given(
    drivers: Simulator, worker: FakeWorker, kafka: str, topics: str
) -> None:
    worker.offers.append(offer())
    drivers.start("--speed", "200")
    await until(lambda: "delivered shop:1" in events(drivers), "the delivery is brought")
    await drivers.terminate()
    locations = [record for record in await records(kafka, topics, LOCATIONS) if record.at is not None]

    places = [location.position for location in locations]
    assert places.index(PICKUP) < places.index(DROPOFF)
    assert {location.driver for location in locations} == {DRIVER}
    assert len({location.id for location in locations}) == len(locations)
    for (here, then), (there, later) in pairwise((location.position, location.at) for location in locations):
        assert metres(here, there) <= 200 * AVENUE_MPS * (later - then).total_seconds() + BLOCK_M
    brought = [entry["at"] for entry in drivers.entries() if entry["event"] in ("assigned", "delivered")]
    assert brought == sorted(brought)


async def test_a_driver_killed_on_the_way_goes_on_from_where_they_were(drivers: Simulator, worker: FakeWorker) -> None:
    worker.offers.append(offer())
    drivers.start("--speed", "20")
    await until(lambda: "assigned shop:1" in events(drivers), "the driver is on the way")
    worker.drivers[DRIVER].position = {"lat": PICKUP.lat, "lon": PICKUP.lon}
    drivers.kill()
    drivers.start("--speed", "1")  # from home, it would take them minutes
    await until(lambda: "picked_up shop:1" in events(drivers), "the food is picked up")
    drivers.kill()
    drivers.start("--speed", "2000")
    await until(lambda: events(drivers)[-1] == "available", "the delivery is brought")

    assert events(drivers) == ["available", "assigned shop:1", "picked_up shop:1", "delivered shop:1", "available"]


@pytest.mark.parametrize(("event", "noted"), [("pickup", "picked_up shop:1"), ("delivered", "delivered shop:1")])
async def test_what_the_worker_heard_of_a_driver_who_was_killed_before_the_answer_is_noted_once(
    drivers: Simulator, worker: FakeWorker, event: str, noted: str
) -> None:
    worker.offers.append(offer())
    worker.first[f"{PATH}/{event}"].extend([LOST] * 1000)
    drivers.start()
    await until(lambda: worker.calls(f"{PATH}/{event}"), f"the worker hears of the {event}")
    drivers.kill()
    assert noted not in events(drivers)
    worker.first.clear()
    drivers.start()
    await until(lambda: events(drivers)[-1] == "available", "the delivery is brought")
    assert events(drivers) == ["available", "assigned shop:1", "picked_up shop:1", "delivered shop:1", "available"]


@pytest.mark.parametrize("event", ["available", "pickup", "delivered"])
async def test_what_a_driver_who_was_killed_tells_again_has_the_key_it_had(
    drivers: Simulator, worker: FakeWorker, event: str
) -> None:
    worker.offers.append(offer())
    worker.first[f"{PATH}/{event}"].extend([503] * 1000)
    drivers.start()
    await until(lambda: worker.calls(f"{PATH}/{event}"), "the worker hears and cannot")
    drivers.kill()
    worker.first.clear()
    drivers.start()
    await until(lambda: "delivered shop:1" in events(drivers), "the delivery is brought")
    statuses = {call.key: call.status for call in worker.calls(f"{PATH}/{event}")}
    assert statuses[worker.calls(f"{PATH}/{event}")[0].key] == 200


async def test_a_worker_that_dies_is_told_again_under_the_same_key(drivers: Simulator, worker: FakeWorker) -> None:
    worker.first[f"{PATH}/available"].extend([LOST, 500, 202])
    worker.first[f"{PATH}/pickup"].extend([LOST, 503])
    drivers.start()
    await until(lambda: "available" in events(drivers), "the driver is available")
    await worker.stop()
    await until(lambda: "trying again" in drivers.output, "the worker is missed")
    worker.offers.append(offer())
    await worker.start()
    await until(lambda: events(drivers)[-2:] == ["delivered shop:1", "available"], "the delivery is brought")

    for event in ("available", "pickup", "delivered"):
        calls = worker.calls(f"{PATH}/{event}")
        taken = [call.key for call in calls if call.status == 200]
        assert len(set(taken)) == len(taken)
        assert {call.key for call in calls} == set(taken)
    assert [call.status for call in worker.calls(f"{PATH}/available")] == [LOST, 500, 202, 200, 200]
    assert worker.drivers[DRIVER].shift == 2


async def test_a_delivery_taken_away_is_dropped_and_the_next_one_brought(
    drivers: Simulator, worker: FakeWorker
) -> None:
    worker.offers.append(offer("shop:1"))
    drivers.start("--speed", "100")
    await until(lambda: "assigned shop:1" in events(drivers), "the driver is on the way")
    twin = worker.drivers[DRIVER]
    twin.status, twin.delivery = "WAITING_FOR_WORK", None
    worker.offers.append(offer("shop:1", attempt=2))
    await until(lambda: "delivered shop:1" in events(drivers), "the delivery is brought")
    assert [(entry["event"], entry["attempt"]) for entry in drivers.entries()][1:5] == [
        ("assigned", 1),
        ("dropped", 1),
        ("assigned", 2),
        ("picked_up", 2),
    ]


async def test_a_driver_whom_the_worker_has_forgotten_becomes_available_again(
    drivers: Simulator, worker: FakeWorker
) -> None:
    drivers.start()
    await until(lambda: "available" in events(drivers), "the driver is available")
    await worker.stop()
    worker.drivers.clear()
    await worker.start()
    await until(lambda: DRIVER in worker.drivers, "the driver is available again")


async def test_waiting_drivers_say_goodbye_when_told_to_stop(drivers: Simulator, worker: FakeWorker) -> None:
    drivers.start()
    await until(lambda: "available" in events(drivers), "the driver is available")
    assert await drivers.terminate() == 0
    assert worker.drivers[DRIVER].status == "IDLE"
    assert events(drivers) == ["available", "unavailable"]


async def test_a_waiting_driver_drifts(drivers: Simulator, worker: FakeWorker, kafka: str, topics: str) -> None:
    drivers.start("--speed", "40")
    await until(lambda: "available" in events(drivers), "the driver is available")
    deadline, found = time.monotonic() + WITHIN_S, list[Location]()
    while not found and time.monotonic() < deadline:
        found = await records(kafka, topics, LOCATIONS)
    assert [location.driver for location in found] == [DRIVER]
    assert metres(HOME, found[0].position) == pytest.approx(BLOCK_M, abs=1)
