"""Drivers bring each delivery and report it once, even if the worker or the drivers are killed."""

import time
from itertools import pairwise

import pytest

from simulators.city import AVENUE_MPS, BLOCK_M, driver_home
from simulators.drivers import driver_name
from simulators.streets import metres
from tests.simulators.conftest import MakeSimulator
from tests.simulators.fake_worker import CUT, FakeWorker
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
    """Return the ledger of the one driver, in order."""
    return [f"{entry['event']} {entry['delivery']}".strip() for entry in drivers.entries()]


@pytest.fixture
def drivers(simulator: MakeSimulator, worker: FakeWorker, kafka: str, topics: str) -> Simulator:
    """Return one driver, without delays by default."""
    return simulator(
        "drivers", "--drivers", "1", "--worker", worker.url, "--bootstrap-servers", kafka, "--topic-prefix", topics,
        "--speed", "0",
    )  # fmt: skip


async def test_driver_brings_one_delivery_after_the_other(drivers: Simulator, worker: FakeWorker) -> None:
    worker.offers.extend([offer("shop:1"), offer("shop:2")])
    drivers.start()
    await until(lambda: len(events(drivers)) == 9, "two deliveries are brought")
    trip = ["available", "assigned shop:{0}", "picked_up shop:{0}", "delivered shop:{0}"]
    assert events(drivers) == [line.format(number) for number in (1, 2) for line in trip] + ["available"]
    assert worker.drivers[DRIVER].shift == 3


async def test_positions_follow_the_trip_at_the_given_speed(
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


async def test_killed_driver_continues_from_the_last_position(drivers: Simulator, worker: FakeWorker) -> None:
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


@pytest.mark.parametrize(("event", "entry"), [("pickup", "picked_up shop:1"), ("delivered", "delivered shop:1")])
async def test_driver_killed_before_the_answer_records_it_once(
    drivers: Simulator, worker: FakeWorker, event: str, entry: str
) -> None:
    worker.offers.append(offer())
    worker.next_statuses[f"{PATH}/{event}"].extend([CUT] * 1000)
    drivers.start()
    await until(lambda: worker.calls(f"{PATH}/{event}"), f"the worker receives the {event}")
    drivers.kill()
    assert entry not in events(drivers)
    worker.next_statuses.clear()
    drivers.start()
    await until(lambda: events(drivers)[-1] == "available", "the delivery is brought")
    assert events(drivers) == ["available", "assigned shop:1", "picked_up shop:1", "delivered shop:1", "available"]


@pytest.mark.parametrize("event", ["available", "pickup", "delivered"])
async def test_killed_driver_repeats_requests_under_their_keys(
    drivers: Simulator, worker: FakeWorker, event: str
) -> None:
    worker.offers.append(offer())
    worker.next_statuses[f"{PATH}/{event}"].extend([503] * 1000)
    drivers.start()
    await until(lambda: worker.calls(f"{PATH}/{event}"), "the worker receives it and fails")
    drivers.kill()
    worker.next_statuses.clear()
    drivers.start()
    await until(lambda: "delivered shop:1" in events(drivers), "the delivery is brought")
    statuses = {call.key: call.status for call in worker.calls(f"{PATH}/{event}")}
    assert statuses[worker.calls(f"{PATH}/{event}")[0].key] == 200


async def test_requests_to_a_dead_worker_are_repeated_under_their_keys(drivers: Simulator, worker: FakeWorker) -> None:
    worker.next_statuses[f"{PATH}/available"].extend([CUT, 500, 202])
    worker.next_statuses[f"{PATH}/pickup"].extend([CUT, 503])
    drivers.start()
    await until(lambda: "available" in events(drivers), "the driver is available")
    await worker.stop()
    await until(lambda: "trying again" in drivers.output, "the driver has no answer")
    worker.offers.append(offer())
    await worker.start()
    await until(lambda: events(drivers)[-2:] == ["delivered shop:1", "available"], "the delivery is brought")

    for event in ("available", "pickup", "delivered"):
        calls = worker.calls(f"{PATH}/{event}")
        accepted = [call.key for call in calls if call.status == 200]
        assert len(set(accepted)) == len(accepted)
        assert {call.key for call in calls} == set(accepted)
    assert [call.status for call in worker.calls(f"{PATH}/available")] == [CUT, 500, 202, 200, 200]
    assert worker.drivers[DRIVER].shift == 2


async def test_withdrawn_delivery_is_dropped(drivers: Simulator, worker: FakeWorker) -> None:
    worker.offers.append(offer("shop:1"))
    drivers.start("--speed", "100")
    await until(lambda: "assigned shop:1" in events(drivers), "the driver is on the way")
    row = worker.drivers[DRIVER]
    row.status, row.delivery = "WAITING_FOR_WORK", None
    worker.offers.append(offer("shop:1", attempt=2))
    await until(lambda: "delivered shop:1" in events(drivers), "the delivery is brought")
    assert [(entry["event"], entry["attempt"]) for entry in drivers.entries()][1:5] == [
        ("assigned", 1),
        ("dropped", 1),
        ("assigned", 2),
        ("picked_up", 2),
    ]


async def test_forgotten_driver_becomes_available_again(drivers: Simulator, worker: FakeWorker) -> None:
    drivers.start()
    await until(lambda: "available" in events(drivers), "the driver is available")
    await worker.stop()
    worker.drivers.clear()
    await worker.start()
    await until(lambda: DRIVER in worker.drivers, "the driver is available again")


async def test_waiting_drivers_sign_off_on_sigterm(drivers: Simulator, worker: FakeWorker) -> None:
    drivers.start()
    await until(lambda: "available" in events(drivers), "the driver is available")
    assert await drivers.terminate() == 0
    assert worker.drivers[DRIVER].status == "IDLE"
    assert events(drivers) == ["available", "unavailable"]


async def test_waiting_driver_drifts_across_polls(
    drivers: Simulator, worker: FakeWorker, kafka: str, topics: str
) -> None:
    worker.longest_poll_s = 0.5
    drivers.start("--speed", "40")
    await until(lambda: "available" in events(drivers), "the driver is available")
    deadline, found = time.monotonic() + WITHIN_S, list[Location]()
    while not found and time.monotonic() < deadline:
        found = await records(kafka, topics, LOCATIONS)
    assert [location.driver for location in found] == [DRIVER]
    assert metres(HOME, found[0].position) == pytest.approx(BLOCK_M, abs=1)
