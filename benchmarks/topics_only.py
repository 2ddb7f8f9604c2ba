"""All outside parties in one cheap process, which uses the topics instead of HTTP.

It keeps a constant number of orders in progress. It answers for the restaurants and the drivers, and
`benchmarks.answered` for the payment provider,
as soon as the committed topics ask for an answer. It builds batches with the transaction client of the engine, to leave
the CPU to the worker, which is measured.
"""

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient

from exactly_once.kafka.partitioning import java_partition
from exactly_once.kafka.producer import TransactionalClient
from simulators.city import driver_home, order
from topics.drivers import Delivered, PickedUp, SetAvailable
from topics.families import DRIVERS, ORDER_UPDATES, ORDERS, POS, topic_name
from topics.orders import Placed
from topics.pos import PreparationFinished, TicketAccepted
from topics.records import Record, instant, write


class Seen(msgspec.Struct, tag_field="type", tag="OrderUpdated"):
    """Fields of an update that are used here."""

    order: str
    status: str


class Assigned(msgspec.Struct, tag_field="type", tag="Assign"):
    """Fields of an assignment that are used here."""

    driver: str
    delivery: str


UPDATES = msgspec.json.Decoder(Seen)
ASSIGNMENTS = msgspec.json.Decoder(Assigned)


class Outside:
    """All parties outside the worker."""

    def __init__(self, kafka: str, prefix: str, partitions: int, drivers: int) -> None:
        self._kafka = kafka
        self._prefix = prefix
        self._partitions = partitions
        self._drivers = drivers
        self._out: defaultdict[tuple[str, int], list[Any]] = defaultdict(list)
        self._placed: dict[str, Placed] = {}
        self._began: dict[str, float] = {}
        self.took: list[float] = []
        """Seconds from placing an order to seeing it delivered."""
        self.rejected = 0

    async def __aenter__(self) -> Self:
        self._producer = TransactionalClient(AIOKafkaClient(bootstrap_servers=self._kafka), f"{self._prefix}-outside")
        await self._producer.start([self._topic(family.name) for family in (ORDERS, POS, DRIVERS)])
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=4 << 20,
            fetch_max_wait_ms=100,
        )
        await self._consumer.start()
        followed = [
            TopicPartition(self._topic(family.name), number)
            for family in (ORDER_UPDATES, DRIVERS)
            for number in range(self._partitions)
        ]
        self._consumer.assign(followed)
        await self._consumer.seek_to_end(*followed)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._producer.close()

    async def bring_drivers(self) -> None:
        """Make every driver available."""
        for number in range(self._drivers):
            self._queue(self._available(f"driver-{number}"))
        await self._send()

    async def place(self, orders: Iterable[Placed]) -> None:
        """Place orders without following them."""
        for each in orders:
            self._queue(each)
        await self._send()

    async def run(self, orders: Iterable[Placed], count: int, under_way: int, within_s: float) -> float:
        """Place ``count`` orders, at most ``under_way`` at a time; return the seconds until all have ended."""
        coming, placed, before = iter(orders), 0, len(self.took) + self.rejected
        began = time.perf_counter()
        while (ended := len(self.took) + self.rejected - before) < count:
            if time.perf_counter() - began > within_s:
                raise SystemExit(f"Only {ended} of {count} orders ended within {within_s:.0f} s.")
            while placed < count and placed - ended < under_way:
                self._place(next(coming))
                placed += 1
            await self.answer(100)
        await self._send()
        return time.perf_counter() - began

    async def answer(self, within_ms: int) -> None:
        """Send what is queued, and queue the answers to the records that come within this time."""
        await self._send()
        for tp, records in (await self._consumer.getmany(timeout_ms=within_ms)).items():
            is_update = tp.topic == self._topic(ORDER_UPDATES.name)
            answer = self._answer_update if is_update else self._answer_assignment
            for record in records:
                answer(record.value)

    def _place(self, order: Placed) -> None:
        self._placed[order.key] = order
        self._began[order.key] = time.perf_counter()
        self._queue(order)

    def _answer_update(self, value: bytes) -> None:
        seen = UPDATES.decode(value)
        placed = self._placed.get(seen.order)
        if placed is None:
            return
        if seen.status == "SCHEDULED":
            self._queue(TicketAccepted(order=seen.order, restaurant=placed.restaurant))
            self._queue(PreparationFinished(order=seen.order, restaurant=placed.restaurant))
        elif seen.status in ("DELIVERED", "REJECTED"):
            del self._placed[seen.order]
            took = time.perf_counter() - self._began.pop(seen.order)
            if seen.status == "DELIVERED":
                self.took.append(took)
            else:
                self.rejected += 1

    def _answer_assignment(self, value: bytes) -> None:
        if b'"type":"Assign"' not in value:
            return
        assigned = ASSIGNMENTS.decode(value)
        self._queue(PickedUp(driver=assigned.driver, delivery=assigned.delivery))
        self._queue(Delivered(driver=assigned.driver, delivery=assigned.delivery))
        self._queue(self._available(assigned.driver))

    def _available(self, driver: str) -> SetAvailable:
        region, position = driver_home("1", driver, int(driver.partition("-")[2]))
        return SetAvailable(driver=driver, region=region.id, position=position)

    def _queue(self, record: Record) -> None:
        key = record.key.encode()
        partition = java_partition(key, self._partitions)
        self._out[self._topic(record.family), partition].append((key, write(record), ()))

    async def _send(self) -> None:
        if self._out:
            out, self._out = self._out, defaultdict(list)
            await self._producer.produce(out)
            await self._producer.end()

    def _topic(self, family: str) -> str:
        return topic_name(family, self._prefix)


def made(run: str, count: int) -> list[Placed]:
    """Return orders of the simulated city."""
    at = instant(time.time_ns() // 1_000_000)
    return [order("1", run, number, at) for number in range(1, count + 1)]
