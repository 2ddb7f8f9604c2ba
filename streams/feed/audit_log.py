"""Reads the newest records of the audit topic."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from heapq import nlargest
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from exactly_once.kafka.consumers import skipping_consumer
from topics.audit import READER, OperatorActed
from topics.records import Undecodable, epoch_ms, instant

log = logging.getLogger(__name__)

MAX_READ_S = 8.0
"""Time limit of the connection and the read together."""
CLOCK_SLACK_MS = 60_000
"""Time by which a record's timestamp may differ from its `at`: two clocks wrote them."""
POLL_MS = 200
START = instant(0)


class AuditUnavailable(Exception):
    """The topic could not be read in time."""

    def __init__(self) -> None:
        super().__init__(f"the audit could not be read within {MAX_READ_S:g} s: ask for a later time with since")


class AuditLog:
    """Reader of the audit topic."""

    def __init__(
        self,
        topic: str,
        partitions: int,
        client_settings: Callable[[], Mapping[str, Any]],
        consumer: Callable[..., Any] = skipping_consumer,
    ) -> None:
        """``consumer`` makes the client from ``client_settings`` (bootstrap servers)."""
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._client_settings = client_settings
        self._consumer = consumer

    async def newest(
        self, since_ms: int, limit: int, fits: Callable[[OperatorActed], bool] = lambda _: True
    ) -> list[OperatorActed]:
        """Return the newest records since a time that fit, the newest first, each once.

        Raises `AuditUnavailable`.
        """
        found: dict[str, OperatorActed] = {}
        consumer = self._consumer(self._client_settings())
        try:
            async with asyncio.timeout(MAX_READ_S):
                await consumer.start()
                consumer.assign(self._places)
                ends = await self._seek(consumer, since_ms)
                while any([await consumer.position(place) < end for place, end in ends.items()]):
                    for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                        _add(found, records, since_ms, fits)
                    found = _newest(found, limit)
        except (TimeoutError, KafkaError):
            raise AuditUnavailable from None
        finally:
            await consumer.stop()
        return list(found.values())

    async def _seek(self, consumer: Any, since_ms: int) -> dict[TopicPartition, int]:
        """Seek to the first records since a time, and return the ends of the partitions."""
        ends: dict[TopicPartition, int] = await consumer.end_offsets(self._places)
        starts = await consumer.offsets_for_times(dict.fromkeys(self._places, max(0, since_ms - CLOCK_SLACK_MS)))
        for place, end in ends.items():
            consumer.seek(place, end if starts[place] is None else starts[place].offset)
        return ends


def _add(
    found: dict[str, OperatorActed], records: list[Any], since_ms: int, fits: Callable[[OperatorActed], bool]
) -> None:
    for record in records:
        try:
            acted = READER.read(record.value)
        except Undecodable as wrong:
            log.warning(
                "%s/%d at offset %d is passed over: %r", record.topic, record.partition, record.offset, str(wrong)
            )
            continue
        if acted.at is not None and epoch_ms(acted.at) >= since_ms and fits(acted):
            found[acted.id] = acted


def _newest(found: Mapping[str, OperatorActed], limit: int) -> dict[str, OperatorActed]:
    kept = nlargest(limit, found.values(), key=lambda acted: acted.at or START)
    return {acted.id: acted for acted in kept}
