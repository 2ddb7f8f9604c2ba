"""Reads one retired order from the history topic.

The order's row in the table `history` has the time at which its records were written. They lie in the partition of its
key, from a little before that time on. A short-lived consumer seeks there and scans.
"""

import asyncio
import logging
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from exactly_once import Engine
from exactly_once.kafka.consumers import skipping_consumer
from exactly_once.kafka.skipping_consumer import SkippingConsumer
from processors.history import Retired
from processors.workflow import JournalLine, Workflow
from streams.access.turns import NoTurn, Turns
from streams.logs import about_order
from streams.worker.sealing import Seal, Unsealable
from topics.order_history import READER, OrderRetired
from topics.records import Reader, Undecodable, epoch_ms

log = logging.getLogger(__name__)

MAX_WAIT_S = 10.0
"""Time that a reading waits for its turn."""
MAX_READ_S = 8.0
"""Time limit of the connection, the seek and the scan together, without the wait for a slot."""
SETTLED_MS = 60_000
"""Age at which every consumer sees a commit. Records that are missing by then will not appear."""
CLOCK_SLACK_MS = 60_000
"""Time by which the clock of the task may be ahead of the one that gave the record its timestamp."""
POLL_MS = 200
MAX_READS = 4
"""Reads at the same time in this worker. Each holds a fetch in memory."""


class HistoryUnavailable(Exception):
    """The records were not read in time, or Kafka no longer has them (``gone``)."""

    def __init__(self, order: str, *, gone: bool) -> None:
        state = "no longer has it" if gone else f"could not be read within {MAX_READ_S:g} s"
        super().__init__(f"the order {order} was moved to the history topic, which {state}")
        self.gone = gone


class RetiredOrder(NamedTuple):
    """An order as it was when it left the tables."""

    workflow: Workflow
    journal: tuple[JournalLine, ...]


class OrderHistory:
    """Reads retired orders from the history topic."""

    def __init__(self, engine: Engine, topic: str, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._topic = topic
        self._now_ms = now_ms
        self._turns = Turns(MAX_READS)

    async def read(self, order: str, retired: Retired, holder: str) -> RetiredOrder:
        """Return the order's rows and journal from the time it left the tables, when it is the holder's turn.

        Raises `HistoryUnavailable`.
        """
        partition = TopicPartition(self._topic, self._engine.partition_of(order.encode()))
        if not retired.data_key:
            raise HistoryUnavailable(order, gone=True)
        try:
            async with self._turns.take(holder, MAX_WAIT_S):
                parts = await self._scan(partition, order, retired)
        except NoTurn:
            raise HistoryUnavailable(order, gone=False) from None
        if not _is_complete(parts):
            raise HistoryUnavailable(order, gone=True)
        return _retired_order((parts[number] for number in sorted(parts)), Seal(b64decode(retired.data_key), order))

    async def _scan(self, partition: TopicPartition, order: str, retired: Retired) -> dict[int, OrderRetired]:
        """Return the order's records by number: all of them, or those that still exist."""
        parts: dict[int, OrderRetired] = {}
        caught_up = False
        try:
            async with asyncio.timeout(MAX_READ_S), self._consumer(partition) as consumer:
                end = await _seek(consumer, partition, max(0, retired.retired_ms - CLOCK_SLACK_MS))
                while not _is_complete(parts) and not (caught_up and self._is_settled(retired)):
                    parts |= _parts(order, retired, await consumer.getmany(partition, timeout_ms=POLL_MS))
                    caught_up = await consumer.position(partition) >= end
        except (TimeoutError, KafkaError):
            raise HistoryUnavailable(order, gone=caught_up) from None
        return parts

    def _is_settled(self, retired: Retired) -> bool:
        return self._now_ms() - retired.retired_ms > SETTLED_MS

    @asynccontextmanager
    async def _consumer(self, partition: TopicPartition) -> AsyncIterator[SkippingConsumer]:
        consumer = skipping_consumer(self._engine.client_settings)
        try:
            await consumer.start()
            consumer.assign([partition])
            yield consumer
        finally:
            await consumer.stop()


async def _seek(consumer: SkippingConsumer, place: TopicPartition, from_ms: int) -> int:
    """Seek to the first record from this time on, to the end if there is none. Return the end of the partition.

    The end is fetched first, so that records which are committed meanwhile lie behind it and are read too.
    """
    end: int = (await consumer.end_offsets([place]))[place]
    found = (await consumer.offsets_for_times({place: from_ms}))[place]
    consumer.seek(place, end if found is None else found.offset)
    return end


def _parts(order: str, retired: Retired, fetched: Mapping[TopicPartition, list[Any]]) -> dict[int, OrderRetired]:
    """Return the order's fetched records by number.

    Records of another retirement are skipped: an order that was forgotten can be placed and retired again.
    """
    parts: dict[int, OrderRetired] = {}
    seal = Seal(b64decode(retired.data_key), order)
    for record in (record for records in fetched.values() for record in records if record.key == order.encode()):
        try:
            part = _part(record.value, seal)
        except (Undecodable, Unsealable) as wrong:  # unsealable: of an earlier order with this id
            log.warning(
                "%s/%d at offset %d is passed over: %r",
                record.topic,
                record.partition,
                record.offset,
                str(wrong),
                extra=about_order(order),
            )
            continue
        if part.at is not None and epoch_ms(part.at) == retired.retired_ms:
            parts[part.part] = part
    return parts


def _part(value: bytes | None, seal: Seal) -> OrderRetired:
    """Return a record whose rows can be decoded too.

    Raises `Unsealable`, or `Undecodable`, also if the first part lacks the order's row.
    """
    part = READER.read(value)
    if _retired_order([part], seal).workflow.order is None and part.part == 1:
        raise Undecodable("there is no row of the order in it", "/rows")
    return part


def _is_complete(parts: Mapping[int, OrderRetired]) -> bool:
    return bool(parts) and len(parts) == next(iter(parts.values())).parts


def _retired_order(parts: Iterable[OrderRetired], seal: Seal) -> RetiredOrder:
    rows: dict[str, msgspec.Raw] = {}
    lines: list[JournalLine] = []
    for kept in (row for part in parts for row in part.rows):
        if kept.kind == "journal":
            lines.append(_line.read(seal.open(kept.row)))
        else:
            rows[kept.kind] = msgspec.Raw(seal.open(kept.row))
    return RetiredOrder(_workflow.read(msgspec.json.encode(rows)), tuple(lines))


_line: Reader[JournalLine] = Reader(JournalLine)
_workflow: Reader[Workflow] = Reader(Workflow)
