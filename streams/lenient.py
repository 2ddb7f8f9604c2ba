"""A consumer for whoever reads a topic outside the tasks, which steps over what cannot be decoded.

A task waits before such a record, for it must lose none. Whoever shows what a topic holds must not: one record of a
stranger would take the restaurants, the feed or an order's history from everybody. aiokafka's own consumer would raise
at it for ever, and lose what it has fetched before it.
"""

import logging
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult
from aiokafka.errors import ConsumerStoppedError

from streams.engine.fetch import FetchedRecords

log = logging.getLogger(__name__)

MOST_RECORDS = 500
"""Returned at once, unless told otherwise."""


class LenientConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """As aiokafka's, without a group."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._fetched = ReadableRecords()

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Any]]:
        """The next records that can be decoded, of these partitions or all. Raises what Kafka answers (`KafkaError`),
        but nothing because of what a record looks like."""
        if self._closed:
            raise ConsumerStoppedError
        wanted = set(partitions) or self.assignment()
        with self._subscription.fetch_context():
            return await self._fetched.take(self._fetcher, wanted, timeout_ms / 1000, max_records or MOST_RECORDS)


class ReadableRecords(FetchedRecords):
    """What can be decoded. The rest of a record batch in which something cannot is passed over with it: nothing tells
    where the next record in it begins."""

    async def take(
        self, fetcher: Any, partitions: Collection[TopicPartition], wait_s: float, limit: int
    ) -> dict[TopicPartition, list[Any]]:
        """As the engine's; raises what Kafka answered for a partition once there is nothing else to return."""
        for patience_s in (0.0, wait_s):
            if taken := await super().take(fetcher, partitions, patience_s, limit):
                return taken
            for tp, fetched in list(fetcher._records.items()):
                if tp in partitions and type(fetched) is FetchError:
                    self._done(fetcher, tp)
                    fetched.check_raise()
        return {}

    def _read(self, fetcher: Any, tp: TopicPartition, fetched: Any, limit: int) -> list[Any]:
        if type(fetched) is FetchResult and fetched.has_more():
            undecoded = fetched._partition_records
            if type(undecoded._records) is not _Batches:  # not begun yet
                undecoded._records = _Batches(undecoded._records)
        return super()._read(fetcher, tp, fetched, limit)

    def _refused(self, fetcher: Any, tp: TopicPartition, fetched: Any) -> None:
        """It stays, for `take` to raise."""

    def _undecodable(self, fetcher: Any, tp: TopicPartition, fetched: Any, exc: Exception) -> None:
        undecoded = fetched._partition_records
        at = undecoded.next_fetch_offset
        undecoded.next_fetch_offset = behind = max(at + 1, undecoded._records.end)
        log.warning(
            "%s/%d cannot be read at offset %d: %r. It is passed over, up to offset %d, where the next batch begins",
            tp.topic,
            tp.partition,
            at,
            exc,
            behind,
        )
        self._done(fetcher, tp)


class _Batches:
    """Record batches being read, and where the one that was begun last ends."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.end = 0

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        self.end = batch.next_offset
        return batch
