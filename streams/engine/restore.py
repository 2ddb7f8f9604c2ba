"""Bring one partition's store up to its changelogs' ends."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.engine.clock import CLOCK
from streams.engine.store import OLDEST_S, PartitionStore, Progress

POLL_MS = 10
FETCH_BYTES = 4 << 20
AHEAD_S = 60.0
"""A note from so far in the future was made by a clock that nobody can go by."""


class Log(NamedTuple):
    """Offsets of what is kept of a topic's partition: of the first record, and after the last that is committed."""

    start: int
    end: int


class Restored(NamedTuple):
    """How many changelog records of rows were read, and what there is of the source topics."""

    records: int
    sources: dict[str, Log]


async def restore(
    client_settings: Mapping[str, Any],
    store: PartitionStore,
    changelogs: Mapping[str, str],
    sources: Sequence[str],
    now_ms: int,
    passed: Callable[[], None],
) -> Restored:
    """``changelogs``: table -> topic. ``passed`` is called after each batch (a failpoint).

    To be called after the previous owner was fenced: then the last stable offset is the end for good. A read_committed
    consumer's position steps over aborted records and transaction markers, so it gets there.
    """
    tables = {TopicPartition(topic, store.partition): table for table, topic in changelogs.items()}
    origins = [TopicPartition(topic, store.partition) for topic in sources]
    consumer = AIOKafkaConsumer(
        **client_settings,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    try:
        await consumer.start()
        # the sources are assigned too: asking about a topic that is not costs two metadata back-offs, 200 ms
        consumer.assign([*tables, *origins])
        consumer.pause(*tables, *origins)
        starts = await consumer.beginning_offsets([*tables, *origins])
        ends = await consumer.end_offsets([*tables, *origins])
        following = _Following(consumer, store, tables, starts, ends)
        for tp in tables:
            following.begin(tp, now_ms)
        while following.behind:
            for tp, records in (await consumer.getmany(*following.behind, timeout_ms=POLL_MS)).items():
                if following.take(tp, records):
                    passed()
            await following.look()
        store.write({}, {table: ends[tp] for tp, table in tables.items()}, {})
        return Restored(following.count, {tp.topic: Log(starts[tp], ends[tp]) for tp in origins})
    finally:
        await consumer.stop()


class _Following:
    """Follows each changelog from where its table stands. The last record that the table has followed is read once
    more: if another lies there now, or none, the table is not its changelog's, and begins at the start."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        store: PartitionStore,
        tables: Mapping[TopicPartition, str],
        starts: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> None:
        self._consumer, self._store, self._tables, self._starts, self._ends = consumer, store, tables, starts, ends
        self._unproven: dict[TopicPartition, Progress] = {}
        self.behind: set[TopicPartition] = set()
        self.count = 0

    def begin(self, tp: TopicPartition, now_ms: int) -> None:
        """Read on from where the table stands, as far as that can be told without reading."""
        table = self._tables[tp]
        noted = self._store.progress(table)
        if noted and (doubt := _doubt(noted, self._starts[tp], self._ends[tp], self._store, table, now_ms)):
            self._start_over(tp, doubt)
        elif noted and noted.last_offset >= 0:
            self._unproven[tp] = noted
            self._read_from(tp, noted.last_offset)
        else:  # it has no rows, and nothing to tell by that what it has passed over is what is there now
            self._read_from(tp, self._starts[tp])

    def take(self, tp: TopicPartition, records: Sequence[Any]) -> bool:
        """Write what was read, and say whether any of it was new; the first record of the first batch is the proof."""
        if noted := self._unproven.pop(tp, None):
            if not _is_last(noted, records[0]):
                self._start_over(tp, f"it does not have the record at {noted.last_offset} that was followed last")
                return False
            records = records[1:]
        if not records:
            return False
        table, last = self._tables[tp], records[-1]
        rows = {record.key: record.value for record in records}
        self._store.write({table: rows}, {table: last.offset + 1}, {table: last.timestamp}, to_the_end=False)
        self.count += sum(record.key != CLOCK for record in records)
        return True

    async def look(self) -> None:
        """See who has reached the end."""
        for tp in [tp for tp in self.behind if await self._consumer.position(tp) >= self._ends[tp]]:
            if noted := self._unproven.pop(tp, None):
                self._start_over(tp, f"it ends before the record at {noted.last_offset} that was followed last")
            else:
                self.behind.discard(tp)

    def _start_over(self, tp: TopicPartition, doubt: str) -> None:
        self._store.start_over(self._tables[tp], f"{tp.topic}: {doubt}")
        self._read_from(tp, self._starts[tp])

    def _read_from(self, tp: TopicPartition, offset: int) -> None:
        if offset < self._ends[tp]:
            self._consumer.seek(tp, offset)
            self._consumer.resume(tp)
            self.behind.add(tp)
        else:
            self.behind.discard(tp)


def _is_last(noted: Progress, record: Any) -> bool:
    return bool(record.offset == noted.last_offset and record.timestamp == noted.last_ms)


def _doubt(noted: Progress, start: int, end: int, store: PartitionStore, table: str, now_ms: int) -> str:
    """Why a table with this progress cannot be brought up to date by reading on; empty where it can."""
    if noted.topic_id != store.topic_ids[table]:
        return "the topic has been created anew"
    if noted.partition != store.partition:
        return f"followed in partition {noted.partition}"
    if noted.next_offset > end:
        return f"followed to {noted.next_offset}, but the topic ends at {end}"
    if 0 <= noted.last_offset < start:
        return f"followed to {noted.next_offset}, but the topic begins at {start}"
    age_s = (now_ms - noted.written_ms) / 1000
    if age_s > OLDEST_S:
        return f"not followed for {age_s / 3600:.0f} h, deletions may be missing"
    if age_s < -AHEAD_S:
        return f"followed {-age_s / 3600:.1f} h from now, by a clock that was ahead"
    return ""
