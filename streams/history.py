"""Reads what the history topic keeps of one order.

The order's row in the table `history` says when its records were written. They lie in the partition of its key from a
little before that moment on: one seek and a scan, by a consumer of its own that lives as long as the reading takes.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from processors.history import Retired
from processors.workflow import JournalLine, Workflow
from streams.app import engine, topic_of
from streams.lenient import LenientConsumer
from topics.families import ORDER_HISTORY
from topics.order_history import READER, OrderRetired
from topics.records import Reader, Undecodable, epoch_ms

log = logging.getLogger(__name__)

WITHIN_S = 8.0
"""How long Kafka has, for the connection, the seek and the scan; not counting the wait for a turn."""
SETTLED_MS = 60_000
"""After so long every consumer is given what was committed: what is not there then will not come any more."""
EARLIER_MS = 60_000
"""By how much the clock of the task may be ahead of the one that stamped the record."""
POLL_MS = 200
AT_ONCE = 4
"""Readings under way in this worker; each holds a fetch in memory."""


class Unread(Exception):
    """Kafka has not given the records in time; or it has them no more (``gone``)."""

    def __init__(self, order: str, *, gone: bool) -> None:
        kept = "has it no more" if gone else f"was not read within {WITHIN_S:g} s"
        super().__init__(f"the order {order} has left for the history topic, which {kept}")
        self.gone = gone


class Kept(NamedTuple):
    """An order as it was when it left the tables."""

    workflow: Workflow
    journal: tuple[JournalLine, ...]


async def read(order: str, retired: Retired) -> Kept:
    """The order's rows and journal, from the history topic. Raises ``Unread``."""
    place = TopicPartition(topic_of(ORDER_HISTORY), engine.partition_of(order.encode()))
    async with _turns():
        parts = await _scan(place, order, retired)
    if not _whole(parts):
        raise Unread(order, gone=True)
    return _kept(parts[number] for number in sorted(parts))


async def _scan(place: TopicPartition, order: str, retired: Retired) -> dict[int, OrderRetired]:
    """The order's records by number: all of them, or those that are left."""
    parts: dict[int, OrderRetired] = {}
    caught_up = False
    try:
        async with asyncio.timeout(WITHIN_S), _consumer(place) as consumer:
            end = await _seek(consumer, place, max(0, retired.retired_ms - EARLIER_MS))
            while not _whole(parts) and not (caught_up and _is_settled(retired)):
                parts |= _parts(order, retired, await consumer.getmany(place, timeout_ms=POLL_MS))
                caught_up = await consumer.position(place) >= end
    except (TimeoutError, KafkaError):
        raise Unread(order, gone=caught_up) from None
    return parts


def _is_settled(retired: Retired) -> bool:
    return time.time_ns() // 1_000_000 - retired.retired_ms > SETTLED_MS


@asynccontextmanager
async def _consumer(place: TopicPartition) -> AsyncIterator[LenientConsumer]:
    consumer = LenientConsumer(
        **engine.client_settings, isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="none"
    )
    try:
        await consumer.start()
        consumer.assign([place])
        yield consumer
    finally:
        await consumer.stop()


async def _seek(consumer: LenientConsumer, place: TopicPartition, from_ms: int) -> int:
    """To the first record that is not older; where none is yet, to the end. Returns where the end is.

    What has just been committed may not count yet: so the end is asked for first, and comes before it.
    """
    end: int = (await consumer.end_offsets([place]))[place]
    found = (await consumer.offsets_for_times({place: from_ms}))[place]
    consumer.seek(place, end if found is None else found.offset)
    return end


def _parts(order: str, retired: Retired, fetched: Mapping[TopicPartition, list[Any]]) -> dict[int, OrderRetired]:
    """The order's records among those fetched, by number. One may have been forgotten, placed and retired again."""
    parts: dict[int, OrderRetired] = {}
    for record in (record for records in fetched.values() for record in records if record.key == order.encode()):
        try:
            part = _part(record.value)
        except Undecodable as wrong:
            log.warning("%s/%d at offset %d is passed over: %s", record.topic, record.partition, record.offset, wrong)
            continue
        if part.at is not None and epoch_ms(part.at) == retired.retired_ms:
            parts[part.part] = part
    return parts


def _part(value: bytes | None) -> OrderRetired:
    """A record whose rows can be read too; the first one has the order's. Raises ``Undecodable``."""
    part = READER.read(value)
    if _kept([part]).workflow.order is None and part.part == 1:
        raise Undecodable("there is no row of the order in it", "/rows")
    return part


def _whole(parts: Mapping[int, OrderRetired]) -> bool:
    return bool(parts) and len(parts) == next(iter(parts.values())).parts


def _kept(parts: Iterable[OrderRetired]) -> Kept:
    rows: dict[str, msgspec.Raw] = {}
    lines: list[JournalLine] = []
    for kept in (row for part in parts for row in part.rows):
        if kept.kind == "journal":
            lines.append(_line.read(bytes(kept.row)))
        else:
            rows[kept.kind] = kept.row
    return Kept(_workflow.read(msgspec.json.encode(rows)), tuple(lines))


_line: Reader[JournalLine] = Reader(JournalLine)
_workflow: Reader[Workflow] = Reader(Workflow)


@cache
def _turns() -> asyncio.Semaphore:
    return asyncio.Semaphore(AT_ONCE)
