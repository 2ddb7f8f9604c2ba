"""Latency of a single order from POST to DELIVERED, hop by hop, and its number of transactions.

Worker, payment provider, restaurants and drivers are separate processes without simulated delays. A consumer of the
committed topics notes when each record of an order becomes visible. A hop is the time from one record to the next.
"""

import asyncio
import statistics
import time
from collections import defaultdict

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.lab import Lab, Sample, quantile
from simulators.city import order
from tests.support.keys import HEADERS
from tests.support.plain_http import JSON
from tests.support.stack import Stack, running
from topics.families import DELIVERIES, DISPATCH, DRIVERS, ORDER_UPDATES, ORDERS, Family, topic_name
from topics.orders import Placed
from topics.records import Record, instant, write

BENCH = "one order alone"
ORDERS_MEASURED = 200
WARM_UP = 100
"""Orders before the first measured one, because the JVM of the broker compiles code while it runs."""
PARTITIONS = 4
FOLLOWED = (ORDERS, DISPATCH, DRIVERS, DELIVERIES, ORDER_UPDATES)
MAX_WAIT_S = 20.0
DRIVER_COMMITS = 2
"""Transactions for the driver: SetAvailable in the driver's task, DriverAvailable in the region's."""
FLEET = 12
"""Drivers: enough for one in each region."""


def run(lab: Lab) -> None:
    """Measure one round."""
    lab.say(f"{BENCH}: {ORDERS_MEASURED} orders, one after the other")
    directory = lab.subdirectory("alone")
    with running(lab.kafka, directory.name, directory, speed=0, drivers=FLEET) as stack:
        took, commits, hops = asyncio.run(_measure(stack, ORDERS_MEASURED))
    for of, value in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        lab.add(Sample(BENCH, "POST to DELIVERED", f"ms, {of}", quantile(took, value)))
    for hop, times in hops.items():
        lab.add(Sample(BENCH, hop, "ms, p50", statistics.median(times)))
        lab.add(Sample(BENCH, hop, "ms, p90", quantile(times, 0.9)))
    lab.note(
        BENCH,
        f"An order takes {statistics.median(commits):.0f} transactions (from {min(commits)} to {max(commits)}). "
        f"{DRIVER_COMMITS} of them make its driver available again. The rows below the first are the times from one "
        "visible record to the next.",
    )
    lab.target(BENCH, "POST to DELIVERED", "ms, p50", "<= 60")
    lab.target(BENCH, "POST to DELIVERED", "ms, p99", "<= 100")


async def _measure(stack: Stack, count: int) -> tuple[list[float], list[int], dict[str, list[float]]]:
    """Return the milliseconds and the commits of each order, and the milliseconds of each hop."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=stack.kafka,
        isolation_level="read_committed",
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    partitions = [
        TopicPartition(topic_name(family.name, stack.name), number)
        for family in FOLLOWED
        for number in range(PARTITIONS)
    ]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    took, commits, hops = [], [], defaultdict(list)
    async with httpx.AsyncClient(base_url=stack.url, headers=HEADERS, timeout=10) as client:
        for number in range(WARM_UP + count):
            await _until_all_drivers_wait(client)
            before = await _commits(client)
            placed = order("1", "alone", number, instant(time.time_ns() // 1_000_000))
            began = time.perf_counter()
            posting = asyncio.create_task(client.post("/v1/orders", content=write(placed), headers=JSON))
            seen = await _follow(consumer, stack.name, placed, began)
            answer = await posting
            assert answer.status_code == 201, answer.text
            if number >= WARM_UP:
                took.append(max(at for _, at in seen))
                await _until_all_drivers_wait(client)
                commits.append(await _commits(client) - before)
                for (_, earlier), (name, at) in zip([("", 0.0), *seen], seen, strict=False):
                    hops[name].append(at - earlier)
    await consumer.stop()
    return took, commits, hops


async def _follow(consumer: AIOKafkaConsumer, prefix: str, placed: Placed, began: float) -> list[tuple[str, float]]:
    """Return (record, milliseconds until it was visible) in order, until the order is delivered."""
    families = {topic_name(family.name, prefix): family for family in FOLLOWED}
    seen: list[tuple[str, float]] = []
    while all(name != "order-updates DELIVERED" for name, _ in seen):
        if time.perf_counter() - began > MAX_WAIT_S:
            raise SystemExit(f"{placed.key} was not delivered within {MAX_WAIT_S:.0f} s; the last record: {seen[-1:]}")
        for tp, records in (await consumer.getmany(timeout_ms=200)).items():
            at_ms = 1000 * (time.perf_counter() - began)
            for record in records:
                read = _read(families[tp.topic], record.value)
                if placed.key in (getattr(read, "order", None), getattr(read, "delivery", None), read.key):
                    seen.append((_named(families[tp.topic], read), at_ms))
    return seen


def _read(family: Family, value: bytes) -> Record:
    assert family.reader is not None
    record: Record = family.reader.read(value)
    return record


def _named(family: Family, record: Record) -> str:
    return f"{family.name} {record.status.value if hasattr(record, 'status') else type(record).__name__}"


async def _commits(client: httpx.AsyncClient) -> int:
    (worker,) = (await client.get("/v1/tasks")).json()["workers"]
    return int(worker["counters"].get("commits", 0))


async def _until_all_drivers_wait(client: httpx.AsyncClient) -> None:
    deadline = time.perf_counter() + MAX_WAIT_S
    while time.perf_counter() < deadline:
        rows = (await client.get("/table/dispatch/", params={"limit": "10000"})).json()["rows"]
        if sum("/driver/" in row["key"] for row in rows) == FLEET:
            return
        await asyncio.sleep(0.005)
    raise SystemExit(f"Not all {FLEET} drivers wait for work.")
