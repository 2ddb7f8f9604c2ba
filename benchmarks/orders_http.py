"""Orders over HTTP with one worker and two: rate, latency, and CPU time of each process.

The processes are those of the demo, without simulated delays: payment provider, restaurants, drivers, broker, workers.
The number of orders in progress is constant. Each order is followed from POST to the committed DELIVERED.
"""

import asyncio
import time
from typing import Any

import httpx
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from httpx_aiohttp import AiohttpTransport

from benchmarks.lab import Cpu, Lab, Sample, quantile
from benchmarks.topics_only import UPDATES, made
from tests.support.keys import HEADERS
from tests.support.plain_http import JSON
from tests.support.stack import Stack, installed
from topics.families import ORDER_UPDATES, topic_name
from topics.orders import Placed
from topics.records import write

BENCH = "whole flow with HTTP"
PARTITIONS = 4
DRIVERS = 500
WARM_UP, ORDERS = 600, 2000
UNDER_WAY = (150, 500)
"""Orders in progress. With more orders, more of them share a transaction, and each takes longer."""
WITHIN_S = 240.0
SIMULATORS = ("payment", "pos", "drivers")


def run(lab: Lab) -> None:
    """Measure one worker and two, in turns."""
    for turn in range(max(1, lab.rounds // 2)):
        for workers in (1, 2):
            lab.say(f"{BENCH}, round {turn + 1}: {workers} worker{'s' if workers > 1 else ''}")
            asyncio.run(measure(lab, BENCH, workers))
    lab.target(BENCH, f"1 worker, {UNDER_WAY[-1]} under way", "orders/s", ">= 150")


async def measure(lab: Lab, bench: str, workers: int, app: str = "streams.app", **environment: Any) -> None:
    """Measure one round with this app as the workers."""
    directory = lab.subdirectory("http")
    with installed(lab.kafka, directory.name, directory, 0.0) as stack:
        stack.start_payment()
        stack.start_pos()
        for number in range(1, workers + 1):
            stack.start_worker(number, app=app, **environment)
        stack.start_drivers(DRIVERS)
        async with Following(stack) as following:
            await all_wait(stack, DRIVERS)
            await following.run(made("warm", WARM_UP), UNDER_WAY[-1])
            for under_way in UNDER_WAY:
                following.took.clear()
                cpu = Cpu(
                    {
                        "worker": [psutil.Process(child.pid) for child in stack.workers.values()],
                        "broker": [lab.broker],
                        "simulators": [psutil.Process(stack.simulators[name].pid) for name in SIMULATORS],
                        "provider": [psutil.Process()],
                    }
                )
                seconds = await following.run(made(f"run-{under_way}", ORDERS), under_way)
                subject = f"{workers} worker{'s' if workers > 1 else ''}, {under_way} under way"
                lab.add(Sample(bench, subject, "orders/s", ORDERS / seconds))
                lab.add(Sample(bench, subject, "ms an order, p50", 1000 * quantile(following.took, 0.5)))
                lab.add(Sample(bench, subject, "ms an order, p99", 1000 * quantile(following.took, 0.99)))
                for name, used in cpu.used_s().items():
                    lab.add(Sample(bench, subject, f"CPU ms an order: {name}", 1000 * used / ORDERS))


async def all_wait(stack: Stack, drivers: int) -> None:
    """Wait until this number of drivers waits for work."""
    async with httpx.AsyncClient(base_url=stack.url, headers=HEADERS, timeout=10) as client, asyncio.timeout(60):
        while True:
            answers = [
                (await client.get("/table/dispatch/", params={"limit": "10000"})).json().get("rows", [])
                for _ in stack.workers
            ]
            if max(sum("/driver/" in row["key"] for row in rows) for rows in answers) >= drivers:
                return
            await asyncio.sleep(0.1)


def _unlimited() -> AiohttpTransport:
    return AiohttpTransport(limits=httpx.Limits(max_connections=0))  # 0: unlimited, for aiohttp


class Following:
    """Client that places orders over HTTP and follows them on `order-updates`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ended: dict[str, asyncio.Future[float]] = {}
        """Order -> time at which its delivery was seen."""
        self.took: list[float] = []

    async def __aenter__(self) -> "Following":
        urls = [self._stack.url_of(number) for number in self._stack.workers]
        self._clients = [
            httpx.AsyncClient(base_url=url, headers=HEADERS, transport=_unlimited(), timeout=60) for url in urls
        ]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._stack.kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
        )
        await self._consumer.start()
        topic = topic_name(ORDER_UPDATES.name, self._stack.name)
        tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        self._consumer.assign(tps)
        await self._consumer.seek_to_end(*tps)
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._consumer.stop()
        for client in self._clients:
            await client.aclose()

    async def run(self, orders: list[Placed], under_way: int) -> float:
        """Place orders, at most ``under_way`` at a time; return the seconds until all are delivered."""
        places, began = asyncio.Semaphore(under_way), time.perf_counter()
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
            for number, order in enumerate(orders):
                await places.acquire()
                group.create_task(self._one(order, self._clients[number % len(self._clients)], places))
        return time.perf_counter() - began

    async def _one(self, order: Placed, client: httpx.AsyncClient, places: asyncio.Semaphore) -> None:
        self.took.append(await self.delivered(order, client))
        places.release()

    async def delivered(self, order: Placed, client: httpx.AsyncClient | None = None) -> float:
        """Place an order; return the seconds until it is delivered."""
        began = time.perf_counter()
        ended = self._ended[order.key] = asyncio.get_running_loop().create_future()
        await self._place(order, client or self._clients[0])
        return float(await ended - began)

    async def _place(self, order: Placed, client: httpx.AsyncClient) -> None:
        """Place an order, again while the worker is overloaded."""
        answer = await client.post("/v1/orders", content=write(order), headers=JSON)
        if answer.status_code == 503:
            await asyncio.sleep(float(answer.headers["Retry-After"]))
            await self._place(order, client)
        elif answer.status_code not in (201, 202):
            raise SystemExit(f"{order.key}: {answer.status_code} {answer.text}")

    async def _read(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    update = UPDATES.decode(record.value)
                    if update.status == "REJECTED":
                        raise SystemExit(f"{update.order} was rejected.")
                    if update.status == "DELIVERED" and (ended := self._ended.pop(update.order, None)):
                        ended.set_result(time.perf_counter())
