"""A topic in memory, and consumers of it with the part of aiokafka's interface that the feed uses."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError

from topics.order_updates import OrderStatus, OrderUpdated
from topics.records import instant, write

TOPIC = "order-updates"
HOUR_MS = 3_600_000


def an_update(
    order: str, version: int, status: OrderStatus = OrderStatus.CREATED, at_ms: int = HOUR_MS
) -> OrderUpdated:
    """Return an update of an order."""
    return OrderUpdated(order=order, version=version, status=status, restaurant="r", at=instant(at_ms))


class FakeKafka:
    """A topic in memory."""

    def __init__(self, partitions: int) -> None:
        self.records: dict[int, list[Any]] = {number: [] for number in range(partitions)}
        self.begins = dict.fromkeys(self.records, 0)
        self.ends = dict.fromkeys(self.records, 0)
        self.down = False
        self.opened = 0
        """Number of consumers that were ever opened."""
        self.open = 0
        """Number of open consumers."""
        self.most_open = 0
        """Largest number of consumers that were open at the same time."""
        self._changed = asyncio.Event()

    def append(self, partition: int, update: OrderUpdated, *, marker: bool = True) -> int:
        """Append a record and the marker of its transaction; return the record's offset."""
        offset = self.ends[partition]
        assert update.at
        stamp = int(update.at.timestamp() * 1000)
        self.records[partition].append(
            SimpleNamespace(topic=TOPIC, partition=partition, offset=offset, timestamp=stamp, value=write(update))
        )
        self.ends[partition] += 1 + marker
        self.notify()
        return offset

    def delete_records(self, partition: int, before: int) -> None:
        """Delete the records before this offset, as retention does."""
        self.begins[partition] = before
        self.records[partition] = [record for record in self.records[partition] if record.offset >= before]

    def notify(self) -> None:
        """Wake the consumers that poll."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, within_s: float) -> None:
        """Wait until the topic changes."""
        try:
            await asyncio.wait_for(self._changed.wait(), within_s)
        except TimeoutError:
            return

    @property
    def consumer(self) -> Callable[..., "FakeConsumer"]:
        """Factory of consumers of the topic."""
        return lambda client_settings, **_: FakeConsumer(self)


class FakeConsumer:
    """The part of ``AIOKafkaConsumer`` that the feed uses."""

    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._started = False

    async def start(self) -> None:
        await asyncio.sleep(0)
        self._check()
        self._started = True
        self._kafka.opened += 1
        self._kafka.open += 1
        self._kafka.most_open = max(self._kafka.most_open, self._kafka.open)

    async def stop(self) -> None:
        if self._started:
            self._kafka.open -= 1

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._assigned = partitions

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= set(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        await asyncio.sleep(0)
        self._check()
        return {tp: self._kafka.begins[tp.partition] for tp in partitions}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        await asyncio.sleep(0)
        self._check()
        return {tp: self._kafka.ends[tp.partition] for tp in partitions}

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        await asyncio.sleep(0)
        self._check()
        return {
            tp: next((record for record in self._kafka.records[tp.partition] if record.timestamp >= at_ms), None)
            for tp, at_ms in times.items()
        }

    async def getmany(self, *, timeout_ms: int, max_records: int | None) -> dict[TopicPartition, list[Any]]:
        if not (taken := self._take(max_records or 500)):
            await self._kafka.changed(timeout_ms / 1000)
            taken = self._take(max_records or 500)
        return taken

    def _take(self, limit: int) -> dict[TopicPartition, list[Any]]:
        taken: dict[TopicPartition, list[Any]] = {}
        for tp, position in self._positions.items():
            if tp in self._paused or self._kafka.down:
                continue
            if not self._kafka.begins[tp.partition] <= position <= self._kafka.ends[tp.partition]:
                raise OffsetOutOfRangeError({tp: position})
            ahead = [record for record in self._kafka.records[tp.partition] if record.offset >= position]
            records = ahead[: limit - sum(map(len, taken.values()))]
            if records:
                taken[tp] = records
            # the position is behind the markers once all records were taken
            done = len(records) == len(ahead)
            self._positions[tp] = (
                self._kafka.ends[tp.partition] if done else records[-1].offset + 1 if records else position
            )
        return taken

    def _check(self) -> None:
        if self._kafka.down:
            raise KafkaConnectionError("it is down")
