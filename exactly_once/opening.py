"""Opening one task, on a real Kafka and a real disk.

fence     take over the transactional id, and complete hanging transactions of the previous owner
clock     wait until this machine's clock agrees with the broker's
restore   bring the local store up to the ends of its changelogs
start     find the offset to resume each source from, and commit it where it has changed
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exactly_once.kafka.client_settings import ClientSettings
from exactly_once.kafka.hanging_transactions import NoLeader
from exactly_once.kafka.producer import TransactionalClient
from exactly_once.kafka.protocol import format_partitions
from exactly_once.state import rocksdb
from exactly_once.state.restore import LogBounds, restore
from exactly_once.task.clock_check import clock_skew_error
from exactly_once.task.interfaces import Clock
from exactly_once.task.manager import TaskManager
from exactly_once.task.task import POSITIONS, Task
from exactly_once.task.transaction import Position

log = logging.getLogger(__name__)

SOURCE_CHANGED = "%s/%d %s (offset %d was next; the topic has the offsets from %d to %d)"


@dataclass(frozen=True, slots=True)
class TaskOpening:
    """The opening of one task, to be run once."""

    manager: TaskManager
    partition: int
    client: TransactionalClient
    client_settings: ClientSettings
    path: Path
    """Directory of the task's local store."""
    clock_skewed: dict[int, str]
    """Partitions that wait for a synchronised clock -> reason and advice; the opening adds and removes its own."""

    @property
    def _about(self) -> dict[str, int]:
        """Attributes of a log record about this task."""
        return {"partition": self.partition}

    async def run(self) -> Task:
        """Fence the previous owner, check the clock, restore, find the start positions, and return the task.

        A failure or a cancellation closes what is open by then, and is raised.
        """
        manager, client = self.manager, self.client
        owned_since = manager.clock().monotonic()
        store: rocksdb.PartitionStore | None = None
        try:
            manager.failpoint("opening", client.disconnect)
            await self._fence()
            clock = await self._wait_for_synced_clock()
            client.now_ms = clock.now_ms
            ids = await client.topic_ids()
            store = rocksdb.PartitionStore(
                self.path,
                self.partition,
                manager.tables,
                {table: ids[topic] for table, topic in manager.changelogs.items()},
                clock.now_ms,
                manager.settings.checkpoint_every_s,
            )
            restored = await restore(
                self.client_settings,
                store,
                manager.changelogs,
                manager.sources,
                clock.now_ms(),
                self._batch_restored,
            )
            starts = {
                topic: self._start_position(store, topic, ids[topic], restored.sources[topic])
                for topic in manager.sources
            }
            await self._commit_start_positions(store, starts)
            log.info("task %d: %d changelog records restored", self.partition, restored.records, extra=self._about)
            manager.observer.restored(restored.records, manager.clock().monotonic() - owned_since)
            return Task(manager, self.partition, client, store, starts, clock, owned_since)
        except BaseException:
            if store is not None:
                store.close()
            await client.close()
            raise
        finally:
            manager.restoring.pop(self.partition, None)

    def _batch_restored(self, left: int) -> None:
        """Note how many changelog records are left to read."""
        self.manager.restoring[self.partition] = left
        self.manager.failpoint("restoring", self.client.disconnect)

    async def _fence(self) -> None:
        """Fence the previous owner, and complete its transactions that ended without a marker in some partition: see
        ``hanging_transactions``."""
        manager, client = self.manager, self.client
        await client.start([*manager.outputs, *manager.changelogs.values()])
        changelogs = [(topic, self.partition) for topic in manager.changelogs.values()]
        completed = await client.complete_hanging(changelogs, alone=True)
        try:
            completed += await client.complete_hanging(
                (topic, number) for topic, count in manager.outputs.items() for number in range(count)
            )
        except NoLeader as exc:  # nothing can be written there either; everything else can go on
            log.warning(
                "task %d: whether its last transaction is complete everywhere is unknown: %s",
                self.partition,
                exc,
                extra=self._about,
            )
        if completed:
            log.warning(
                "task %d: its last transaction had no marker in %s; the worker has written the marker",
                self.partition,
                format_partitions(completed),
                extra=self._about,
            )
            manager.counters["markers_written"] += len(completed)

    async def _wait_for_synced_clock(self) -> Clock:
        """Return a clock that agrees with the broker's. The task is held, and not opened, until there is one."""
        settings = self.manager.settings
        changelog = self.manager.changelogs[POSITIONS], self.partition
        try:
            while True:
                clock = self.manager.clock()
                skewed = await clock_skew_error(clock, self.client, changelog, settings.clock_apart_s)
                if not skewed:
                    return clock
                if self.partition not in self.clock_skewed:
                    log.warning("task %d is held: %s", self.partition, skewed, extra=self._about)
                self.clock_skewed[self.partition] = skewed
                await asyncio.sleep(settings.clock_again_s)
        finally:
            self.clock_skewed.pop(self.partition, None)

    async def _commit_start_positions(self, store: rocksdb.PartitionStore, starts: Mapping[str, Position]) -> None:
        """Commit the start positions that differ from the committed ones, before anything else is committed.

        The log may grow beyond the committed position before the next opening, which could not see the difference.
        """
        rows = {
            topic.encode(): start.row()
            for topic, start in starts.items()
            if (row := store.get(POSITIONS, topic.encode())) is not None and Position.of(row).offset != start.offset
        }
        if not rows:
            return
        changelog = self.manager.changelogs[POSITIONS], self.partition
        produced = (await self.client.produce({changelog: [(key, row, ()) for key, row in rows.items()]}))[changelog]
        await self.client.end()
        store.write({POSITIONS: dict(rows)}, {POSITIONS: produced.next_offset}, {POSITIONS: produced.broker_ms})

    def _start_position(self, store: rocksdb.PartitionStore, topic: str, topic_id: str, bounds: LogBounds) -> Position:
        """Return the position to resume from, given the committed position and the topic's bounds.

        A topic that was recreated or has lost records is logged and counted, not repaired.
        """
        row = store.get(POSITIONS, topic.encode())
        if row is None:
            return Position(bounds.start, topic_id)
        committed = Position.of(row)
        if committed.topic_id not in ("", topic_id):
            start, change = bounds.start, "was recreated: the task reads it from its start"
        elif committed.offset > bounds.end:
            start, change = bounds.end, "has lost its end: the task resumes at the present end"
        elif committed.offset < bounds.start:
            start, change = bounds.start, "has lost or expired the next records: they were not applied"
        else:
            return Position(committed.offset, topic_id)
        found = topic, self.partition, change, committed.offset, bounds.start, bounds.end
        log.warning(SOURCE_CHANGED, *found, extra=self._about)
        self.manager.counters["sources_not_as_left"] += 1
        return Position(start, topic_id)
