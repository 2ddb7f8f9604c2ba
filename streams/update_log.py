"""The topic `order-updates` as it lies on Kafka: what is committed there, from any offset on."""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from streams.lenient import LenientConsumer
from topics.order_updates import READER, OrderUpdated
from topics.records import Undecodable, write

log = logging.getLogger(__name__)

POLL_MS = 1000
"""How long a read waits where there is nothing to read."""
FETCH_BYTES = 256 << 10
"""Of a partition, fetched at once: what a consumer holds in memory."""


class Update(NamedTuple):
    """One record of the topic."""

    partition: int
    offset: int
    value: bytes
    """As on the topic, without line breaks."""
    said: OrderUpdated


class Reading:
    """Some partitions, being read."""

    def __init__(self, consumer: Any, topic: str, partitions: Iterable[int]) -> None:
        self._consumer = consumer
        self._partitions = {number: TopicPartition(topic, number) for number in partitions}

    async def begins(self) -> dict[int, int]:
        """Partition -> offset of the oldest record that is still kept."""
        return self._numbered(await self._consumer.beginning_offsets([*self._partitions.values()]))

    async def ends(self) -> dict[int, int]:
        """Partition -> the last stable offset: everything before it is committed or aborted."""
        return self._numbered(await self._consumer.end_offsets([*self._partitions.values()]))

    async def since(self, partition: int, at_ms: int) -> int | None:
        """Offset of the first record written at that time or later; None if there is none."""
        tp = self._partitions[partition]
        found = (await self._consumer.offsets_for_times({tp: at_ms}))[tp]
        return None if found is None else int(found.offset)

    def seek(self, positions: Mapping[int, int]) -> None:
        """Read on from these offsets, and only these partitions."""
        for number, position in positions.items():
            self._consumer.seek(self._partitions[number], position)
            self._consumer.resume(self._partitions[number])

    async def read(self, limit: int | None = None) -> list[Update]:
        """The next updates, at most so many; none if there are none within `POLL_MS`."""
        fetched = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=limit)
        updates = (_update(record) for records in fetched.values() for record in records)
        return [update for update in updates if update is not None]

    async def position(self, partition: int) -> int:
        """Where it reads on: behind everything read, aborted records and transaction markers too."""
        return int(await self._consumer.position(self._partitions[partition]))

    @staticmethod
    def _numbered(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
        return {tp.partition: offset for tp, offset in offsets.items()}


class UpdateLog:
    """Opens readings of the topic. `consumer` makes the client; `client_settings` tells it where Kafka is."""

    def __init__(
        self,
        topic: str,
        client_settings: Callable[[], Mapping[str, Any]],
        consumer: Callable[..., Any] = LenientConsumer,
    ) -> None:
        self._topic, self._client_settings, self._consumer = topic, client_settings, consumer

    @asynccontextmanager
    async def open(self, partitions: Collection[int]) -> AsyncIterator[Reading]:
        """Connected within the block; nothing is fetched before a `seek`. `KafkaError` where Kafka is not there."""
        consumer = self._consumer(
            **self._client_settings(),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            await consumer.start()
            assigned = [TopicPartition(self._topic, number) for number in partitions]
            consumer.assign(assigned)
            consumer.pause(*assigned)
            yield Reading(consumer, self._topic, partitions)
        finally:
            await consumer.stop()


def _update(record: Any) -> Update | None:
    try:
        said = READER.read(record.value)
    except Undecodable as wrong:
        log.warning("%s/%d at offset %d is passed over: %s", record.topic, record.partition, record.offset, wrong)
        return None
    one_line = b"\n" not in record.value and b"\r" not in record.value
    return Update(record.partition, record.offset, record.value if one_line else write(said), said)
