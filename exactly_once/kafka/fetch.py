"""Take the records that aiokafka has fetched, so that an unreadable partition delays no other partition.

aiokafka's own ``fetched_records`` raises at a record that it cannot decode. It then drops the records taken before it,
of this partition and of others, though their positions have moved on: those records would be lost.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult

log = logging.getLogger(__name__)

RETRY_AFTER_S = 60.0
"""Pause before an unreadable partition is fetched, and logged, again."""
UNREADABLE = (
    "%s/%d cannot be read at offset %d: %r. The task retries every minute; the other partitions go on. To skip the "
    "unreadable record, delete the log up to it: kafka-delete-records.sh with "
    '{"version": 1, "partitions": [{"topic": "%s", "partition": %d, "offset": %d}]}'
)


class FetchedRecords:
    """The records that one consumer has fetched. Use it in the consumer's own thread."""

    def __init__(self) -> None:
        self._held: dict[TopicPartition, tuple[object, float]] = {}

    async def take(
        self, fetcher: Any, partitions: Collection[TopicPartition], wait_s: float, limit: int
    ) -> dict[TopicPartition, list[Any]]:
        """Return at most ``limit`` records of these partitions; without any, wait ``wait_s`` for the next fetch."""
        if fetcher._subscriptions.reassignment_in_progress:
            await fetcher._subscriptions.wait_for_assignment()
        taken = self._take(fetcher, partitions, limit)
        if taken or not wait_s:
            return taken
        waiter = fetcher._create_fetch_waiter()
        try:
            done, _ = await asyncio.wait([waiter], timeout=wait_s)
        finally:
            waiter.cancel()
        if not done or fetcher._closed:
            return {}
        waiter.result()
        return self._take(fetcher, partitions, limit)

    def _take(
        self, fetcher: Any, partitions: Collection[TopicPartition], limit: int
    ) -> dict[TopicPartition, list[Any]]:
        taken: dict[TopicPartition, list[Any]] = {}
        for tp, fetched in list(fetcher._records.items()):
            if tp not in partitions:
                if not fetcher._subscriptions.is_assigned(tp):
                    del fetcher._records[tp]
            elif (
                limit
                and not self._is_held(fetcher, tp, fetched)
                and (records := self._read(fetcher, tp, fetched, limit))
            ):
                taken[tp] = records
                limit -= len(records)
        return taken

    def _read(self, fetcher: Any, tp: TopicPartition, fetched: Any, limit: int) -> list[Any]:
        """Do as ``FetchResult.getall``, but keep the records before one that cannot be decoded."""
        if type(fetched) is not FetchResult:
            self._refused(fetcher, tp, fetched)
            return []
        records: list[Any] = []
        if not fetched.check_assignment(tp) or not fetched.has_more():
            self._done(fetcher, tp)
            return records
        undecoded = fetched._partition_records
        try:
            for record in undecoded:
                records.append(record)
                if len(records) == limit:
                    break
            else:
                self._done(fetcher, tp)
        except Exception as exc:
            self._undecodable(fetcher, tp, fetched, exc)
        fetched._update_position()
        return records

    def _refused(self, fetcher: Any, tp: TopicPartition, fetched: Any) -> None:
        """Hold the partition, because the broker has answered with an error."""
        position = fetcher._subscriptions.subscription.assignment.state_value(tp).position
        self._hold(tp, fetched, position, fetched._error)

    def _undecodable(self, fetcher: Any, tp: TopicPartition, fetched: Any, exc: Exception) -> None:
        """Hold the partition, because the next record cannot be decoded."""
        self._hold(tp, fetched, fetched._partition_records.next_fetch_offset, exc)

    @staticmethod
    def _done(fetcher: Any, tp: TopicPartition) -> None:
        """Let aiokafka fetch the partition again."""
        del fetcher._records[tp]
        fetcher._notify(fetcher._wait_consume_future)

    def _hold(self, tp: TopicPartition, fetched: object, offset: int, exc: BaseException) -> None:
        """Keep the result in place: aiokafka fetches nothing for its partition meanwhile."""
        self._held[tp] = (fetched, time.monotonic())
        log.error(UNREADABLE, tp.topic, tp.partition, offset, exc, tp.topic, tp.partition, offset + 1)

    def _is_held(self, fetcher: Any, tp: TopicPartition, fetched: object) -> bool:
        held, since = self._held.get(tp, (None, 0.0))
        if held is not fetched:  # a seek has dropped it
            self._held.pop(tp, None)
            return False
        if time.monotonic() - since > RETRY_AFTER_S:
            del self._held[tp]
            self._done(fetcher, tp)
        return True
