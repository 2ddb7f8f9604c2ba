"""Bring one partition's store up to the ends of its changelogs."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from exactly_once.kafka.client_settings import ClientSettings
from exactly_once.kafka.consumers import committed_consumer
from exactly_once.state.rocksdb import MAX_AGE_S, Checkpoint, PartitionStore
from exactly_once.task.clock_check import CLOCK
from exactly_once.task.interfaces import Record

POLL_MS = 10
FETCH_BYTES = 4 << 20
MAX_AHEAD_S = 60.0
"""A checkpoint from further in the future was written under a wrong clock."""


class LogBounds(NamedTuple):
    """Offsets of a topic's partition: of the first record kept, and after the last one committed."""

    start: int
    end: int


class Restored(NamedTuple):
    """Number of changelog records read, and the bounds of each source topic."""

    records: int
    sources: dict[str, LogBounds]


async def restore(
    client_settings: ClientSettings,
    store: PartitionStore,
    changelogs: Mapping[str, str],
    sources: Sequence[str],
    now_ms: int,
    on_batch: Callable[[int], None],
) -> Restored:
    """Read each changelog to its end, into the store. ``changelogs`` maps table to topic.

    ``on_batch`` is called after each batch with the number of offsets that are left to read. Raises ``KafkaError`` and
    ``StoreError``.

    Call this after the previous owner was fenced: the last stable offset is then final. The position of a
    read_committed consumer steps over aborted records and transaction markers, so it reaches that offset.
    """
    tables = {TopicPartition(topic, store.partition): table for table, topic in changelogs.items()}
    origins = [TopicPartition(topic, store.partition) for topic in sources]
    consumer = committed_consumer(client_settings, max_partition_fetch_bytes=FETCH_BYTES)
    try:
        await consumer.start()
        # the sources are assigned too: a look-up of an unassigned topic costs two metadata back-offs, 200 ms
        consumer.assign([*tables, *origins])
        consumer.pause(*tables, *origins)
        starts = await consumer.beginning_offsets([*tables, *origins])
        ends = await consumer.end_offsets([*tables, *origins])
        restorer = ChangelogRestorer(consumer, store, tables, starts, ends)
        for tp in tables:
            restorer.start(tp, now_ms)
        while restorer.behind:
            for tp, records in (await consumer.getmany(*restorer.behind, timeout_ms=POLL_MS)).items():
                if restorer.apply(tp, records):
                    on_batch(restorer.left)
            await restorer.drop_finished()
        store.write({}, {table: ends[tp] for tp, table in tables.items()}, {})
        return Restored(restorer.count, {tp.topic: LogBounds(starts[tp], ends[tp]) for tp in origins})
    finally:
        await consumer.stop()


class ChangelogRestorer:
    """Reads each changelog from its table's checkpoint.

    The last record before the checkpoint is read once more. If its offset now holds another record, or none, the table
    does not belong to this changelog, and is read from the start.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        store: PartitionStore,
        tables: Mapping[TopicPartition, str],
        starts: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._tables = tables
        self._starts = starts
        self._ends = ends
        self._unverified: dict[TopicPartition, Checkpoint] = {}
        self.behind: set[TopicPartition] = set()
        """Changelogs that are not read to their end."""
        self.count = 0
        """Number of rows' records applied."""
        self._next: dict[TopicPartition, int] = {}
        """Offset of the next record to read of each changelog."""

    @property
    def left(self) -> int:
        """Number of offsets that are left to read."""
        return sum(self._ends[tp] - self._next[tp] for tp in self.behind)

    def start(self, tp: TopicPartition, now_ms: int) -> None:
        """Seek to the checkpoint if it is valid as far as bounds and times show, otherwise to the start."""
        table = self._tables[tp]
        checkpoint = self._store.checkpoint(table)
        if checkpoint and (
            error := _validation_error(checkpoint, self._starts[tp], self._ends[tp], self._store, table, now_ms)
        ):
            self._reset(tp, error)
        elif checkpoint and checkpoint.last_offset >= 0:
            self._unverified[tp] = checkpoint
            self._read_from(tp, checkpoint.last_offset)
        else:  # without a last record nothing proves that the changelog is still the one that was read
            self._read_from(tp, self._starts[tp])

    def apply(self, tp: TopicPartition, records: Sequence[Record]) -> bool:
        """Write the records; return whether any is new. The first record of the first batch verifies the checkpoint."""
        if checkpoint := self._unverified.pop(tp, None):
            if not _is_last(checkpoint, records[0]):
                self._reset(tp, f"offset {checkpoint.last_offset} no longer holds the last record applied")
                return False
            records = records[1:]
        if not records:
            return False
        table, last = self._tables[tp], records[-1]
        self._next[tp] = last.offset + 1
        rows = {record.key: record.value for record in records if record.key is not None}
        self._store.write({table: rows}, {table: last.offset + 1}, {table: last.timestamp}, to_the_end=False)
        self.count += sum(record.key != CLOCK for record in records)
        return True

    async def drop_finished(self) -> None:
        """Remove from ``behind`` the changelogs that are read to their end."""
        for tp in [tp for tp in self.behind if await self._consumer.position(tp) >= self._ends[tp]]:
            if checkpoint := self._unverified.pop(tp, None):
                self._reset(tp, f"it ends before offset {checkpoint.last_offset}, the last record applied")
            else:
                self.behind.discard(tp)

    def _reset(self, tp: TopicPartition, error: str) -> None:
        self._store.reset_table(self._tables[tp], f"{tp.topic}: {error}")
        self._read_from(tp, self._starts[tp])

    def _read_from(self, tp: TopicPartition, offset: int) -> None:
        self._next[tp] = offset
        if offset < self._ends[tp]:
            self._consumer.seek(tp, offset)
            self._consumer.resume(tp)
            self.behind.add(tp)
        else:
            self.behind.discard(tp)


def _is_last(checkpoint: Checkpoint, record: Record) -> bool:
    return record.offset == checkpoint.last_offset and record.timestamp == checkpoint.last_ms


def _validation_error(
    checkpoint: Checkpoint, start: int, end: int, store: PartitionStore, table: str, now_ms: int
) -> str:
    """Return why a table with this checkpoint cannot be brought up to date by reading on; empty if it can."""
    if checkpoint.topic_id != store.topic_ids[table]:
        return "the topic was recreated"
    if checkpoint.partition != store.partition:
        return f"the store is of partition {checkpoint.partition}"
    if checkpoint.next_offset > end:
        return f"applied to offset {checkpoint.next_offset}, but the topic ends at {end}"
    if 0 <= checkpoint.last_offset < start:
        return f"applied to offset {checkpoint.next_offset}, but the topic begins at {start}"
    age_s = (now_ms - checkpoint.written_ms) / 1000
    if age_s > MAX_AGE_S:
        return f"last applied {age_s / 3600:.0f} h ago, deletions may be missing"
    if age_s < -MAX_AHEAD_S:
        return f"last applied {-age_s / 3600:.1f} h in the future, by a clock that was ahead"
    return ""
