"""A consumer for reads outside the tasks, which skips records that it cannot decode.

A task waits before such a record, because it must lose none. A view must not wait: one foreign record would hide the
rest of the topic. aiokafka's own consumer would raise at the record for ever, and lose what it fetched before it.
"""

import logging
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchError, FetchResult
from aiokafka.errors import ConsumerStoppedError

from exactly_once.kafka.fetch import FetchedRecords

log = logging.getLogger(__name__)

MAX_RECORDS = 500
"""Default limit of one ``getmany``."""


class SkippingConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """An ``AIOKafkaConsumer`` without a group."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._fetched = ReadableRecords()

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Any]]:
        """Return the next records that can be decoded, of these partitions or of all assigned ones.

        Raises ``KafkaError`` if a broker answers with an error, and nothing because of a record's content.
        """
        if self._closed:
            raise ConsumerStoppedError
        wanted = set(partitions) or self.assignment()
        with self._subscription.fetch_context():
            return await self._fetched.take(self._fetcher, wanted, timeout_ms / 1000, max_records or MAX_RECORDS)


class ReadableRecords(FetchedRecords):
    """The records that can be decoded. A record that cannot takes the rest of its batch with it, because the start of
    the next record in the batch is unknown."""

    async def take(
        self, fetcher: Any, partitions: Collection[TopicPartition], wait_s: float, limit: int
    ) -> dict[TopicPartition, list[Any]]:
        """Return records as the base class does; raise a partition's error once there is nothing else to return."""
        for limit_s in (0.0, wait_s):
            if taken := await super().take(fetcher, partitions, limit_s, limit):
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
        """Leave the error in place, for ``take`` to raise."""

    def _undecodable(self, fetcher: Any, tp: TopicPartition, fetched: Any, exc: Exception) -> None:
        undecoded = fetched._partition_records
        at = undecoded.next_fetch_offset
        undecoded.next_fetch_offset = behind = max(at + 1, undecoded._records.end)
        log.warning(
            "%s/%d cannot be read at offset %d: %r. The consumer skips to offset %d, where the next batch begins",
            tp.topic,
            tp.partition,
            at,
            exc,
            behind,
        )
        self._done(fetcher, tp)


class _Batches:
    """Record batches being read, and the end offset of the current one."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.end = 0

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        self.end = batch.next_offset
        return batch
