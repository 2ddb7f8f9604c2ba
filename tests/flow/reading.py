"""A consumer of a stack's topics. It reads committed records, from the start or from now on."""

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from oracle.checks.updates import illegal
from oracle.facts import Location, Order, Update
from topics.families import Family, topic_name
from topics.order_updates import READER, OrderUpdated

PARTITIONS = 4
POLL_MS = 100
WITHIN_S = 900.0
"""Deadline of a condition in the tests of the flow; far above what a busy machine needs."""


class Following:
    """The committed records of some topics, as far as it has read them."""

    def __init__(self, kafka: str, prefix: str, families: Sequence[Family], *, from_now: bool = False) -> None:
        self.records: list[Any] = []
        self._from_now = from_now
        self._partitions = [
            TopicPartition(topic_name(family.name, prefix), number)
            for family in families
            for number in range(PARTITIONS)
        ]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=POLL_MS,
        )

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        if self._from_now:
            await self._consumer.seek_to_end(*self._partitions)
            for partition in self._partitions:
                await self._consumer.position(partition)  # `seek_to_end` takes effect only with this call
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def read(self) -> None:
        """Read the records that arrive within one poll."""
        for records in (await self._consumer.getmany(timeout_ms=POLL_MS)).values():
            self.records += records

    async def catch_up(self) -> None:
        """Read everything that is committed by now."""
        ends = await self._consumer.end_offsets(self._partitions)
        while any([await self._consumer.position(partition) < end for partition, end in ends.items()]):
            await self.read()

    async def until(self, condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
        """Read on until the condition returns something true, and return it."""
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
            await self.read()
        return found

    def updates(self, marked: str = "") -> list[OrderUpdated]:
        """Return the records of `order-updates` for the orders with this in their id."""
        return [
            READER.read(r.value)
            for r in self.records
            if r.topic.endswith(".order-updates") and marked in r.key.decode()
        ]

    def statuses(self, marked: str = "") -> dict[str, str]:
        """Return order id -> newest status."""
        return {update.order: update.status.value for update in self.updates(marked)}


def illegal_steps(updates: Iterable[OrderUpdated]) -> list[str]:
    """Return the oracle's sentence for each illegal step in a sequence of updates."""
    orders: dict[str, Order] = {}
    for number, update in enumerate(updates):
        order = orders.setdefault(update.order, Order(update.order))
        order.add(Update.of(update, 0, Location("these updates", 0, number)))
    return [violation.sentence for order in orders.values() for violation in illegal(order)]


def headers(record: Any) -> dict[str, str]:
    """Return a record's headers as text."""
    return {name: value.decode() for name, value in record.headers}
