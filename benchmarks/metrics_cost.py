"""CPU time of the metrics, in microseconds an order: ``python -m benchmarks.metrics_cost``.

It replays the reports of one order that is delivered: the changes of its rows and of its driver's, its calls, its
requests over HTTP, and its commits. A worker commits several orders at a time when it has much to do; the two extremes
are shown. An order takes about 900 us of a worker without HTTP, and 3,400 with it (RESULTS.md).
"""

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from exactly_once import Completed
from exactly_once.task.observer import Commit
from exactly_once.task.transaction import PendingTransaction
from processors.driver import Driver
from processors.driver import Stage as DriverStage
from processors.order import Order, Stage
from streams.metrics.indexes import OpenOrders, RowCount, call_kind, driver_state
from streams.metrics.instruments import Instruments
from streams.metrics.observed import TaskMetrics, request_middleware
from topics.places import Position

ROUNDS = 20_000
HERE = Position(18.92, 72.83)
TOPICS = ("orders", "payments", "pos", "deliveries", "dispatch", "drivers", "locations")
REQUESTS = 8
"""Requests of an order: placing it, callbacks, the driver's app."""
UPDATES = 4
"""Changes of a driver's row for an order."""
CALL = b'{"kind":"charge","body":{"order":"my-shop:1001","amount":20000,"currency":"INR"}}'


def order_rows() -> list[bytes]:
    """Return the rows of an order from its start to its end."""
    order = Order(
        id="my-shop:1001",
        stage=Stage.CREATED,
        body_hash="0" * 64,
        placed_ms=1,
        updated_ms=1,
        restaurant="lakshmi-tiffin",
        region="fort",
        pos_url="https://pos.example/lakshmi-tiffin",
        pickup=HERE,
        dropoff=HERE,
        preparation_ms=600_000,
        travel_ms=600_000,
        start_ms=1,
    )
    stages = (
        Stage.CREATED,
        Stage.ASKED,
        Stage.IN_PREPARATION,
        Stage.SCHEDULING_DELIVERY,
        Stage.WAITING_FOR_DRIVER,
        Stage.IN_DELIVERY,
        Stage.DELIVERED,
    )
    return [msgspec.json.encode(msgspec.structs.replace(order, stage=stage)) for stage in stages]


def cost_us(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, in microseconds; the best of three runs."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for _ in range(ROUNDS):
            work()
        best = min(best, time.process_time() - began)
    return best / ROUNDS * 1e6


def main() -> None:
    """Print the cost of each part, and of an order."""
    instruments = Instruments()
    observed = TaskMetrics(instruments, "dead-letters")
    orders = OpenOrders(observed.order_placed, observed.order_moved)
    rows = order_rows()

    def an_order() -> None:
        for row in rows:
            orders.apply(b"my-shop:1001", row)

    drivers = RowCount(driver_state)
    driver = msgspec.json.encode(
        Driver(
            id="d",
            stage=DriverStage.WAITING_FOR_WORK,
            shift=1,
            region="fort",
            position=HERE,
            located_ms=1,
            cell="8a3d",
        )
    )

    def its_driver() -> None:
        for _ in range(UPDATES):
            drivers.apply(b"d", driver)

    calls, done = RowCount(call_kind), Completed(b"")

    def its_calls() -> None:
        for key in (b"my-shop:1001/charge", b"my-shop:1001/prepare"):
            calls.apply(key, CALL)
            observed.call_ended(CALL, 0.1, done)
            calls.apply(key, None)

    changes = PendingTransaction(["orders"])
    changes.first_ms = dict.fromkeys(TOPICS[:2], 1)
    commit = Commit(0, changes, 0.01, 1_000, 3)

    async def answer(_: web.Request) -> web.StreamResponse:
        return response

    response, handler = web.Response(), request_middleware(instruments)
    request = make_mocked_request("POST", "/v1/orders")
    loop = asyncio.new_event_loop()

    async def record() -> None:
        for _ in range(ROUNDS):
            await handler(request, answer)

    def requests_us() -> float:
        began = time.process_time()
        loop.run_until_complete(record())
        return (time.process_time() - began) / ROUNDS * 1e6

    costs = {"order": cost_us(an_order), "driver": cost_us(its_driver), "calls": cost_us(its_calls)}
    costs["commit"] = cost_us(lambda: observed.committed(commit))
    costs["request"] = min(requests_us() for _ in range(3))
    loop.close()
    for name, took_us in costs.items():
        print(f"{name:8} {took_us:6.2f} us")
    rows_us = costs["order"] + costs["driver"] + costs["calls"]
    print(f"an order without HTTP, 10 orders a commit: {rows_us + costs['commit']:.1f} us (9 commits for 10 orders)")
    print(f"an order without HTTP, 9 commits an order: {rows_us + 9 * costs['commit']:.1f} us")
    print(f"its {REQUESTS} HTTP requests: {REQUESTS * costs['request']:.1f} us")


if __name__ == "__main__":
    main()
