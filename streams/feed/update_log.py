"""Reads the committed records of the topic `order-updates`, from any offset on."""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from exactly_once.kafka.consumers import skipping_consumer
from topics.order_updates import READER, OrderUpdated
from topics.records import Undecodable, write

log = logging.getLogger(__name__)

POLL_MS = 1000
"""Longest wait of a read that finds no record."""
MAX_FETCH_BYTES = 256 << 10
"""Bytes fetched from a partition at once; a consumer holds them in memory."""


class Update(NamedTuple):
    """One record of the topic."""

    partition: int
    offset: int
    value: bytes
    """The JSON on the topic, without line breaks."""
    record: OrderUpdated


class UpdateReader:
    """Reader of some partitions of the topic."""

    def __init__(self, consumer: Any, topic: str, partitions: Iterable[int]) -> None:
        self._consumer = consumer
        self._partitions = {number: TopicPartition(topic, number) for number in partitions}

    async def begins(self) -> dict[int, int]:
        """Return the offset of the oldest record of each partition that is still kept."""
        return self._numbered(await self._consumer.beginning_offsets([*self._partitions.values()]))

    async def ends(self) -> dict[int, int]:
        """Return the last stable offset of each partition: all records before it are committed or aborted."""
        return self._numbered(await self._consumer.end_offsets([*self._partitions.values()]))

    async def since(self, partition: int, at_ms: int) -> int | None:
        """Return the offset of the first record written at that time or later; None if there is none."""
        tp = self._partitions[partition]
        found = (await self._consumer.offsets_for_times({tp: at_ms}))[tp]
        return None if found is None else int(found.offset)

    def seek(self, positions: Mapping[int, int]) -> None:
        """Continue at these offsets, and read only these partitions of the paused ones."""
        for number, position in positions.items():
            self._consumer.seek(self._partitions[number], position)
            self._consumer.resume(self._partitions[number])

    async def read(self, limit: int | None = None) -> list[Update]:
        """Return the next updates, at most ``limit``; an empty list if there are none within `POLL_MS`."""
        fetched = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=limit)
        updates = (_update(record) for records in fetched.values() for record in records)
        return [update for update in updates if update is not None]

    async def position(self, partition: int) -> int:
        """Return the offset of the next read: behind all records read, aborted ones and transaction markers."""
        return int(await self._consumer.position(self._partitions[partition]))

    @staticmethod
    def _numbered(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
        return {tp.partition: offset for tp, offset in offsets.items()}


class UpdateLog:
    """Opens readers of the topic. ``consumer`` makes the client from ``client_settings`` (bootstrap servers)."""

    def __init__(
        self,
        topic: str,
        client_settings: Callable[[], Mapping[str, Any]],
        consumer: Callable[..., Any] = skipping_consumer,
    ) -> None:
        self._topic = topic
        self._client_settings = client_settings
        self._consumer = consumer

    @asynccontextmanager
    async def open(self, partitions: Collection[int]) -> AsyncIterator[UpdateReader]:
        """Open a reader for a ``with`` block. It fetches nothing before a `seek`. Raises `KafkaError`."""
        consumer = self._consumer(self._client_settings(), max_partition_fetch_bytes=MAX_FETCH_BYTES)
        try:
            await consumer.start()
            assigned = [TopicPartition(self._topic, number) for number in partitions]
            consumer.assign(assigned)
            consumer.pause(*assigned)
            yield UpdateReader(consumer, self._topic, partitions)
        finally:
            await consumer.stop()


def _update(record: Any) -> Update | None:
    """Decode a record; log it and return None if that fails. The value has no line breaks, for server-sent events."""
    try:
        decoded = READER.read(record.value)
    except Undecodable as wrong:
        place = record.topic, record.partition, record.offset
        log.warning("%s/%d at offset %d is passed over: %r", *place, str(wrong), extra={"partition": record.partition})
        return None
    one_line = b"\n" not in record.value and b"\r" not in record.value
    return Update(record.partition, record.offset, record.value if one_line else write(decoded), decoded)
