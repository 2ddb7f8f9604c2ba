"""The engine: the public face of exactly-once tasks in a Faust app."""

import asyncio
import logging
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from faust.tables.table import Table
from faust.types import TP, AppT
from faust.types.topics import TopicT

from exactly_once.calls.rows import CALLS
from exactly_once.faust.app_settings import client_settings
from exactly_once.faust.assignor import assigned_owners
from exactly_once.faust.declarations import BatchAgent, batch_agent, bytes_table, source_topic
from exactly_once.faust.transport import TaskTransport
from exactly_once.kafka import topic_admin
from exactly_once.kafka.client_settings import ClientSettings
from exactly_once.kafka.hanging_transactions import Outcomes
from exactly_once.kafka.log_throttling import throttle_aiokafka_logs
from exactly_once.kafka.membership import leave_with_other_sources
from exactly_once.kafka.partitioning import java_partition
from exactly_once.kafka.producer import TransactionalClient, transactional_client
from exactly_once.kafka.topic_admin import (
    CHANGELOG_CONFIG,
    CREATED_WITHIN_S,
    ConfigMismatch,
    TopicSpec,
    retry_while_unavailable,
)
from exactly_once.opening import TaskOpening
from exactly_once.settings import EngineSettings
from exactly_once.state.rocksdb import set_stale_aside
from exactly_once.task.indexes import IndexFactory
from exactly_once.task.interfaces import TaskBroken
from exactly_once.task.manager import Handler, ResultHandler, TaskManager, TimerHandler
from exactly_once.task.task import POSITIONS, TIMERS, Task

log = logging.getLogger(__name__)

MAX_INT = 2**31 - 1
SWEEP_S = 3600.0
"""Time between two searches for stores that are to be deleted."""
VERIFY_TIMEOUT_S = 3.0
"""Limit of the commit that proves to a view that this worker still owns the partition."""
KEYS_REMEMBERED = 200_000
"""Keys whose partition is cached: murmur2 in Python takes 3 us."""


class SourceProgress(NamedTuple):
    """The progress of one task in one source topic."""

    next: int
    """Offset of the next record to apply."""
    end: int
    """Offset after the last committed record, or after the transaction marker behind it."""
    lag: int
    """Number of offsets still to be read or applied; markers that were read do not count."""


class StoreOpening(NamedTuple):
    """The store of an open task on disk, for a reader in another process."""

    path: Path
    number: int
    """Number of the opening in this worker. A reader opens the store again for each: opening may replace tables."""


class PartitionNotOwned(LookupError):
    """The partition is not open in this worker; ``Engine.owners`` has the URL of its owner."""


@contextmanager
def _disk_errors_as_not_owned() -> Iterator[None]:
    """Raise ``PartitionNotOwned`` if the disk fails: the task is broken then, and opened again."""
    try:
        yield
    except TaskBroken as exc:
        raise PartitionNotOwned(str(exc)) from exc


def _until_large(rows: Iterable[tuple[int, bytes, bytes]], size: int | None) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield rows up to the one that completes ``size`` bytes; all rows if ``size`` is None."""
    found = 0
    for row in rows:
        yield row
        found += len(row[1]) + len(row[2])
        if size is not None and found >= size:
            return


class Engine(TaskManager):
    """Exactly-once tasks for ``app``, a ``faust.App`` with the settings of ``exactly_once()``.

    ``partitions`` is the number of tasks, and of partitions of every source and table. ``anchor`` is the name of the
    source topic whose partition N decides the owner of task N. ``dead_letters`` is the name of the topic for records,
    timers and call results whose handler raised; it has as many partitions. ``settings`` has the tuning values.

    Declare sources, sinks, tables, handlers and indexes before the worker starts. Handlers run in tasks; ``read``,
    ``find``, ``scan`` and the other views of the state may be called anywhere in the worker's event loop. ``counters``
    counts what tasks commit, by name. ``watch`` waits for answers and for changed rows. ``performer`` performs the
    handlers' calls: set it before the worker starts. ``letter_signer`` signs dead letters, so that a reader of their
    topic can tell those of the tasks from what others write there. ``observer`` measures the tasks (``task.observer``).
    """

    def __init__(
        self, app: AppT, *, partitions: int, anchor: str, dead_letters: str, settings: EngineSettings | None = None
    ) -> None:
        super().__init__(
            settings or EngineSettings(),
            partitions,
            dead_letters,
            lru_cache(KEYS_REMEMBERED)(java_partition),
            app.conf.broker_session_timeout,
        )
        self.app = app
        self.anchor = anchor
        self.clock_skewed: dict[int, str] = {}
        """Owned partition that waits, because this machine's clock differs from the broker's -> reason, advice."""
        self.transport = TaskTransport(app.conf.broker_consumer, app, self)
        app.transport = self.transport
        self.request_reset = self.transport.request_reset
        self._prepared = False
        self._before_consuming: list[Callable[[], Awaitable[None]]] = []
        self._outcomes: defaultdict[int, Outcomes] = defaultdict(dict)
        """Partition -> outcomes of its last transactions, shared by its successive clients."""
        self._configs: dict[str, Mapping[str, str]] = {}
        self._openings: Counter[int] = Counter()
        """Partition -> how often its task was opened in this worker."""
        self.table(
            POSITIONS,
            help="Position in each source topic: topic -> offset of the next record, id of the topic.",
        )
        self.table(TIMERS, help="Pending timers: due time (8 bytes) and id -> payload.")
        self.table(
            CALLS, help="Unanswered outgoing calls: idempotency key -> request, attempts, next attempt, last error."
        )
        throttle_aiokafka_logs()

    # -- declaring ----------------------------------------------------------------------------------------------------

    def table(self, name: str, *, help: str) -> Table[bytes, bytes]:
        """Declare a table of bytes to bytes, co-partitioned with the sources. Only tasks write to it.

        ``help`` is the description that Faust shows. Returns Faust's table.
        """
        table = bytes_table(self.app, name, self.partitions, help)
        self.changelogs[name] = table.changelog_topic_name
        return table

    def source(self, name: str, *, config: Mapping[str, str] | None = None) -> TopicT:
        """Declare a source topic, which every task reads its partition of; handlers may also emit to it.

        ``config`` has the topic-level settings for ``create_topics``. Returns Faust's topic, for ``agent``.
        """
        self.sources.append(name)
        self.sink(name, config=config)
        return source_topic(self.app, name, self.partitions)

    def sink(self, name: str, *, partitions: int | None = None, config: Mapping[str, str] | None = None) -> str:
        """Declare a topic that handlers may emit to; return its name.

        ``partitions`` defaults to the number of tasks. ``config`` has the topic-level settings for ``create_topics``.
        """
        self.outputs[name] = partitions or self.partitions
        self._configs[name] = config or {}
        return name

    def agent(self, source: TopicT) -> Callable[[Handler], BatchAgent]:
        """Decorate the function of (task, record) that applies each record of a source.

        The function becomes a Faust agent under its own name. If it raises, its changes are rolled back and the record
        goes to the dead-letter topic; ``RejectRecord`` gives the reason without a stack.
        """

        def decorate(handler: Handler) -> BatchAgent:
            self.handlers.update(dict.fromkeys(source.topics, handler))
            return batch_agent(self.app, source, handler, self.apply)

        return decorate

    def on_timer(self, handler: TimerHandler) -> TimerHandler:
        """Decorate the function that is called with (task, timer id, payload) when a timer is due."""
        self.timer_handler = handler
        return handler

    def on_result(self, handler: ResultHandler) -> ResultHandler:
        """Decorate the function that is called with (task, call id, request, result) when a call is answered."""
        self.result_handler = handler
        return handler

    def index(self, table: str, factory: IndexFactory) -> None:
        """Keep an index over a table in each task; ``task.index(table)`` returns it to handlers.

        ``LookupError`` if the table is not declared.
        """
        if table not in self.changelogs:
            raise LookupError(
                f"there is no table {table!r} to index: declare it with engine.table({table!r}, help=...)"
            )
        self.index_factories[table] = factory

    def before_consuming(self, step: Callable[[], Awaitable[None]]) -> None:
        """Have ``step`` awaited once before anything is consumed, after the topics are created or checked."""
        self._before_consuming.append(step)

    # -- topics -------------------------------------------------------------------------------------------------------

    def topics(self) -> list[TopicSpec]:
        """Return every topic that has to exist: sources, sinks, dead letters, changelogs."""
        outputs = [TopicSpec(name, count, self._configs.get(name, {})) for name, count in self.outputs.items()]
        return outputs + [TopicSpec(name, self.partitions, CHANGELOG_CONFIG) for name in self.changelogs.values()]

    async def create_topics(self, replication_factor: int, extra: Sequence[TopicSpec] = ()) -> None:
        """Create the missing topics of ``topics()`` and ``extra``; return once the brokers know them.

        Raises as ``check_topics`` does.
        """
        specs = [*self.topics(), *extra]
        await topic_admin.create_topics(self.client_settings, specs, replication_factor)
        await topic_admin.check_topics(self.client_settings, specs, wait_s=CREATED_WITHIN_S)

    async def check_topics(self) -> None:
        """Raise ``TopicMismatch``, ``BrokerTooOld`` or ``BrokerUnreachable`` if the tasks cannot run."""
        await topic_admin.check_topics(self.client_settings, self.topics())

    async def compare_topics(self) -> list[ConfigMismatch]:
        """Return the differences of the topics' and the brokers' settings from those that the tasks need.

        Raises ``BrokerTooOld`` and ``BrokerUnreachable``.
        """
        brokers = {
            "transaction.max.timeout.ms": (int(1000 * self.settings.transaction_timeout_s), MAX_INT),
            "group.min.session.timeout.ms": (0, int(1000 * self.session_timeout_s)),
            "group.max.session.timeout.ms": (int(1000 * self.session_timeout_s), MAX_INT),
        }
        return await topic_admin.compare_topics(self.client_settings, self.topics(), brokers)

    async def repair_topics(self, replication_factor: int, differences: Sequence[ConfigMismatch]) -> None:
        """Create missing topics and correct their settings; the number of partitions stays. ``TopicMismatch`` if Kafka
        refuses."""
        await topic_admin.repair_topics(self.client_settings, self.topics(), replication_factor, differences)

    @property
    def client_settings(self) -> ClientSettings:
        """The settings with which any aiokafka client reaches the cluster."""
        return client_settings(self.app, self.transport.default_port)

    # -- reading, from views ------------------------------------------------------------------------------------------

    def read(self, table: str, partition: int, key: bytes) -> bytes | None:
        """Return the value of a committed row; None without one.

        ``PartitionNotOwned`` if the partition is not open in this worker.
        """
        with _disk_errors_as_not_owned():
            return self._open(partition).read(table, key)

    def find(self, table: str, key: bytes) -> bytes | None:
        """Return the value of a committed row of any partition that is open here; None without one."""
        with _disk_errors_as_not_owned():
            rows = (task.read(table, key) for task in self.tasks.values())
            return next((value for value in rows if value is not None), None)

    def scan(
        self,
        table: str,
        partition: int | None = None,
        prefix: bytes = b"",
        after: bytes = b"",
        limit: int | None = 1000,
        limit_bytes: int | None = None,
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """Return (partition, key, value) of the committed rows whose keys have the prefix and sort after ``after``.

        The rows are those of one partition, in key order, or of all partitions open here, one after the other. At most
        ``limit`` rows are read, and none once they add up to ``limit_bytes``. ``PartitionNotOwned`` if the partition
        is not open in this worker.
        """
        tasks = [self._open(partition)] if partition is not None else [self.tasks[p] for p in sorted(self.tasks)]
        found = ((task.partition, *row) for task in tasks for row in task.scan(table, prefix, after))
        with _disk_errors_as_not_owned():
            return iter(list(islice(_until_large(found, limit_bytes), limit)))

    async def digest(self, partition: int) -> str:
        """Return a hash of a partition's committed rows between two commits, see ``digest``.

        ``PartitionNotOwned`` if the partition is not open in this worker, or closes meanwhile.
        """
        with _disk_errors_as_not_owned():
            return await self._open(partition).digest()

    async def purge(self, key: bytes) -> None:
        """Remove from this worker's disk what it still has of deleted rows whose keys begin with this one.

        RocksDB deletes a row at once for readers, but keeps its bytes until it compacts the file. ``PartitionNotOwned``
        if the key's partition is not open in this worker.
        """
        with _disk_errors_as_not_owned():
            await self._open(self.partition_of(key)).purge(key)

    async def verify_ownership(self, partition: int) -> None:
        """Raise ``PartitionNotOwned`` unless this worker certainly owned the partition half a session ago.

        Commits if the last proof is older, which takes up to ``VERIFY_TIMEOUT_S`` seconds.
        """
        try:
            async with asyncio.timeout(VERIFY_TIMEOUT_S):
                await self._open(partition).verify_ownership()
        except (TimeoutError, TaskBroken):
            raise PartitionNotOwned(f"partition {partition} may have moved to another worker") from None
        self._open(partition)

    def _open(self, partition: int) -> Task:
        task = self.tasks.get(partition)
        if task is None:
            raise PartitionNotOwned(f"partition {partition} is not open in this worker")
        return task

    def store_of(self, partition: int) -> StoreOpening:
        """Return the place of a partition's committed rows on disk.

        ``PartitionNotOwned`` if the partition is not open in this worker.
        """
        self._open(partition)
        return StoreOpening(self._stores / str(partition), self._openings[partition])

    def open_partitions(self) -> list[int]:
        """Return the partitions whose tasks are open in this worker, sorted."""
        return sorted(partition for partition, task in self.tasks.items() if task.alive)

    def owned_partitions(self) -> list[int]:
        """Return the partitions that this worker owns, also while they are being restored, sorted."""
        return sorted(self.transport.owned)

    async def source_progress(self) -> dict[int, dict[str, SourceProgress]]:
        """Return partition -> source topic -> progress, for partitions open here. ``TimeoutError`` without a broker."""
        tasks = {partition: self.tasks[partition] for partition in self.open_partitions()}
        partitions = [TP(topic, partition) for partition in tasks for topic in self.sources]
        located = await self.transport.positions_and_ends(partitions)
        found: dict[int, dict[str, SourceProgress]] = {partition: {} for partition in tasks}
        for tp, (position, end) in located.items():
            task = tasks[tp.partition]
            applied = task.next_offsets[tp.topic]
            at = position if applied == task.fetched_to[tp.topic] else applied
            found[tp.partition][tp.topic] = SourceProgress(applied, end, max(0, end - max(at, applied)))
        return found

    def ready(self) -> bool:
        """Return whether every task that this worker owns is open."""
        return self.transport.all_open()

    def owners(self) -> dict[int, str]:
        """Return partition -> canonical URL of its owner, as of the last assignment; empty before the first."""
        return assigned_owners(self.app, self.anchor)

    # -- opening a task -----------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Create or check the topics, once, before anything is consumed. Raises as ``check_topics`` does."""
        if self._prepared:
            return
        await retry_while_unavailable(self._prepare_cluster, self.settings.cluster_patience_s)
        for step in self._before_consuming:
            await step()
        self._remove_stale_stores()
        self._prepared = True

    def _remove_stale_stores(self) -> None:
        """Delete the stores of partitions that moved to another worker long ago, now and then every `SWEEP_S`."""
        loop = asyncio.get_running_loop()
        in_use = {*self.owned_partitions(), *self.tasks, *self.suspended}
        for store in set_stale_aside(self._stores, in_use, time.time()):
            log.info("the local state of partition %s, which moved to another worker, is deleted", store.stem)
            loop.run_in_executor(None, partial(shutil.rmtree, store, ignore_errors=True))
        loop.call_later(SWEEP_S, self._remove_stale_stores)

    @property
    def _stores(self) -> Path:
        """Directory of the tasks' local stores."""
        return Path(self.app.conf.datadir) / "tasks"

    async def _prepare_cluster(self) -> None:
        if self.settings.create_topics:
            await self.create_topics(self.settings.replication_factor)
        else:
            await self.check_topics()
        conf = self.app.conf
        await leave_with_other_sources(
            self.client_settings, conf.id, conf.consumer_group_instance_id, Path(conf.datadir) / "sources", self.sources
        )

    async def open(self, partition: int) -> Task:
        """Open the task of a partition that the group has assigned to this worker: see ``TaskOpening``."""
        self._openings[partition] += 1
        client = self._transactional_client(partition)
        path = self._stores / str(partition)
        return await TaskOpening(self, partition, client, self.client_settings, path, self.clock_skewed).run()

    def _transactional_client(self, partition: int) -> TransactionalClient:
        return transactional_client(
            self.client_settings,
            f"{self.app.conf.id}-{partition}",
            transaction_timeout_s=self.settings.transaction_timeout_s,
            on_end_sent=lambda client: self.failpoint("end_sent", client.disconnect),
            outcomes=self._outcomes[partition],
        )
