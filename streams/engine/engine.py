"""The engine of a Faust app: its public face, and how a task is opened on a real Kafka and a real disk."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from aiokafka.client import AIOKafkaClient
from aiokafka.partitioner import murmur2
from faust.assignor.partition_assignor import PartitionAssignor
from faust.tables.table import Table
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list
from faust.types import TP, AgentT, AppT, StreamT
from faust.types.topics import TopicT

from streams.engine import provision, store
from streams.engine.assignor import TaskAssignor
from streams.engine.calls import CALLS
from streams.engine.changes import Position
from streams.engine.clock import doubt_of
from streams.engine.core import Core, Handler, ResultHandler, TimerHandler
from streams.engine.indexes import IndexFactory
from streams.engine.markers import NoLeader, Outcomes
from streams.engine.membership import leave_with_other_sources
from streams.engine.protocol import listed
from streams.engine.provision import CHANGELOG_CONFIG, CREATED_WITHIN_S, Difference, TopicSpec
from streams.engine.quiet import quieten
from streams.engine.restore import Log, restore
from streams.engine.runtime import REACHED_S, BatchScheduler, TaskConsumer, TaskTables, TaskTransport, TaskWorker
from streams.engine.settings import EngineSettings
from streams.engine.task import POSITIONS, TIMERS, Clock, Task, TaskBroken
from streams.engine.transactions import TransactionalClient

log = logging.getLogger(__name__)

METADATA_MAX_AGE_MS = 60_000
"""How long a moved leader may go unnoticed by a task that has nothing to say."""
HEARTBEAT_S = 0.3
"""A rebalance begins for a worker with its next heartbeat, and for all of them with the last one's."""
MAX_INT = 2**31 - 1
LOST = "%s/%d %s (offset %d was next, there are those from %d to %d)"
PROOF_S = 3.0
"""How long a commit may take that proves to a view that the partition is still ours."""
KEYS_REMEMBERED = 200_000
"""Whose partition is not computed again: murmur2 in Python takes 3 us."""


class Reached(NamedTuple):
    """``next``: offset of the next record to apply. ``end``: where what is committed ends, the marks of transactions
    included. ``lag``: how much is still to be read or applied, without those that were read over."""

    next: int
    end: int
    lag: int


class NotHere(LookupError):
    """The partition is not open in this worker: ask its owner, see ``Engine.owners``."""


@contextmanager
def _whole_disk() -> Iterator[None]:
    """A task whose disk fails is broken, whoever reads, and opened again."""
    try:
        yield
    except TaskBroken as exc:
        raise NotHere(str(exc)) from exc


def java_partition(key: bytes, partitions: int) -> int:
    """The partition that Kafka's Java clients and aiokafka choose for a key by default."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def _until_large(rows: Iterable[tuple[int, bytes, bytes]], size: int | None) -> Iterator[tuple[int, bytes, bytes]]:
    """The first rows, up to the one with which they are ``size`` bytes; None: all."""
    found = 0
    for row in rows:
        yield row
        found += len(row[1]) + len(row[2])
        if size is not None and found >= size:
            return


def exactly_once(
    *, partitions: int, instance_id: str, session_timeout_s: float = 10.0, **others: Any
) -> dict[str, Any]:
    """The settings of a ``faust.App`` whose tasks are exactly-once; ``others`` are passed on.

    ``instance_id`` names this worker among those of the app (``group.instance.id``) and belongs to its data directory:
    two live workers with the same one take the group away from each other. A restarted worker resumes under it at once;
    that of a dead one is taken over after ``session_timeout_s``.
    """
    return {
        "store": f"{store.SCHEME}://",
        "Worker": TaskWorker,
        "TableManager": TaskTables,
        "PartitionAssignor": TaskAssignor,
        "ConsumerScheduler": BatchScheduler,
        "processing_guarantee": "exactly_once",
        "topic_partitions": partitions,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "consumer_group_instance_id": instance_id,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": 4 << 20,
        "broker_session_timeout": session_timeout_s,
        "broker_heartbeat_interval": min(HEARTBEAT_S, session_timeout_s / 3),
        "broker_max_poll_records": 4000,
        # A worker whose flow stands still, or who has no partition, is not to be put out of the group for it: aiokafka
        # would never join again. The heartbeat tells whether it lives.
        "broker_max_poll_interval": 1e9,
        # What a view has said and no broker has taken; a rebalance and the end of a worker wait for it.
        "producer_request_timeout": 5.0,
        "stream_wait_empty": False,
        **others,
    }


class Engine(Core):
    """Exactly-once tasks for ``app``, which was made with the settings of ``exactly_once``.

    ``anchor`` is the source topic whose partition N decides who owns task N. ``dead_letters`` is the topic for records,
    timers and results whose handler raised.
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
        self.app, self.anchor = app, anchor
        self.held: dict[int, str] = {}
        """Partition that is ours and not opened, because our clock cannot be gone by -> why, and what to do."""
        self.transport = TaskTransport(app.conf.broker_consumer, app, self)
        app.transport = self.transport
        self._prepared = False
        self._outcomes: defaultdict[int, Outcomes] = defaultdict(dict)
        """By partition: how the last transactions have ended that are known of."""
        self._configs: dict[str, Mapping[str, str]] = {}
        self.table(
            POSITIONS,
            help="How far each source topic has been applied: topic -> offset of the next record, id of the topic.",
        )
        self.table(TIMERS, help="Timers to come: when (8 bytes) and id -> what for.")
        self.table(CALLS, help="Outgoing calls not answered yet: idempotency key -> request, attempts, when next, why.")
        quieten()

    # -- declaring ----------------------------------------------------------------------------------------------------

    def table(self, name: str, *, help: str) -> Table[bytes, bytes]:
        """A table of bytes to bytes, co-partitioned with the sources, written through tasks alone."""
        made = self.app.Table(name, key_type=bytes, value_type=bytes, partitions=self.partitions, help=help)
        table = cast(Table[bytes, bytes], made)
        self.changelogs[name] = table.changelog_topic_name
        return table

    def source(self, name: str, *, config: Mapping[str, str] | None = None) -> TopicT:
        """A topic of every task's. ``config``: its topic-level settings, where ``create_topics`` creates it."""
        self.sources.append(name)
        self.sink(name, config=config)
        # no acks: offsets are committed by the task, and Faust would keep a list of what is not acknowledged
        return self.app.topic(
            name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            acks=False,
            partitions=self.partitions,
        )

    def sink(self, name: str, *, partitions: int | None = None, config: Mapping[str, str] | None = None) -> str:
        """A topic that handlers may emit to; it has as many partitions as the tasks unless told otherwise."""
        self.outputs[name] = partitions or self.partitions
        self._configs[name] = config or {}
        return name

    def agent(self, source: TopicT) -> Callable[[Handler], AgentT[Any]]:
        """Decorate the function that applies each record of a source; it becomes a Faust agent of its own name."""

        def decorate(handler: Handler) -> AgentT[Any]:
            self.handlers.update(dict.fromkeys(source.topics, handler))

            async def consume(stream: StreamT[Any]) -> None:
                async for event in stream.events():
                    for part in event.message.value.parts:
                        await self.apply(part.task, part.follows, part.records, handler)

            consume.__module__, consume.__name__ = handler.__module__, handler.__name__
            consume.__qualname__, consume.__doc__ = handler.__qualname__, handler.__doc__
            agent: AgentT[Any] = self.app.agent(source)(consume)
            return agent

        return decorate

    def on_timer(self, handler: TimerHandler) -> TimerHandler:
        """Decorate the function that is called with (task, timer id, payload) when a timer is due."""
        self.timer_handler = handler
        return handler

    def on_result(self, handler: ResultHandler) -> ResultHandler:
        """Decorate the function that is called with (task, call id, request, result) when a call was answered."""
        self.result_handler = handler
        return handler

    def index(self, table: str, factory: IndexFactory) -> None:
        """Keep an index over a table in each task; ``task.index(table)`` gives it to handlers."""
        if table not in self.changelogs:
            raise LookupError(
                f"there is no table {table!r} to index: declare it with engine.table({table!r}, help=...)"
            )
        self.index_factories[table] = factory

    # -- topics -------------------------------------------------------------------------------------------------------

    def topics(self) -> list[TopicSpec]:
        """Every topic that has to exist: sources, sinks, dead letters, changelogs."""
        outputs = [TopicSpec(name, count, self._configs.get(name, {})) for name, count in self.outputs.items()]
        return outputs + [TopicSpec(name, self.partitions, CHANGELOG_CONFIG) for name in self.changelogs.values()]

    async def create_topics(self, replication_factor: int, extra: Sequence[TopicSpec] = ()) -> None:
        """Create what is missing of ``topics()`` and ``extra``; return when the brokers know it, and it is right."""
        specs = [*self.topics(), *extra]
        await provision.create_topics(self.client_settings, specs, replication_factor)
        await provision.check_topics(self.client_settings, specs, wait_s=CREATED_WITHIN_S)

    async def check_topics(self) -> None:
        """Raise ``TopicsDiffer`` or ``OldBroker``, one sentence each, where the tasks could not run as they must."""
        await provision.check_topics(self.client_settings, self.topics())

    async def compare_topics(self) -> list[Difference]:
        """What of the topics, and of the brokers, is not as the tasks need it."""
        brokers = {
            "transaction.max.timeout.ms": (int(1000 * self.settings.transaction_timeout_s), MAX_INT),
            "group.min.session.timeout.ms": (0, int(1000 * self.session_timeout_s)),
            "group.max.session.timeout.ms": (int(1000 * self.session_timeout_s), MAX_INT),
        }
        return await provision.compare_topics(self.client_settings, self.topics(), brokers)

    async def mend_topics(self, replication_factor: int, differences: Sequence[Difference]) -> None:
        """Create what is missing, set what is set otherwise; the number of partitions stays as it is."""
        await provision.mend_topics(self.client_settings, self.topics(), replication_factor, differences)

    @property
    def client_settings(self) -> dict[str, Any]:
        """How to reach the cluster, for any aiokafka client."""
        conf = self.app.conf
        auth = credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context)
        return {"bootstrap_servers": server_list(conf.broker, self.transport.default_port), **auth}

    # -- looking in, from views ---------------------------------------------------------------------------------------

    def read(self, table: str, partition: int, key: bytes) -> bytes | None:
        """A committed row. ``NotHere`` if the partition is not open in this worker."""
        with _whole_disk():
            return self._open(partition).read(table, key)

    def find(self, table: str, key: bytes) -> bytes | None:
        """A committed row, in whichever partition open here it is."""
        with _whole_disk():
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
        """(partition, key, value) of the committed rows with this prefix whose keys come after ``after``, in order.

        Of one partition, or of all open here one after the other. At most ``limit`` rows, and none after those that
        are ``limit_bytes`` large together; they are read at once.
        """
        tasks = [self._open(partition)] if partition is not None else [self.tasks[p] for p in sorted(self.tasks)]
        found = ((task.partition, *row) for task in tasks for row in task.scan(table, prefix, after))
        with _whole_disk():
            return iter(list(islice(_until_large(found, limit_bytes), limit)))

    async def digest(self, partition: int) -> str:
        """Of all committed rows of a partition, between two commits: see ``digest``. ``NotHere`` if it is not open in
        this worker, or not until the end."""
        with _whole_disk():
            return await self._open(partition).digest()

    async def prove(self, partition: int) -> None:
        """Before rows of it are shown: ``NotHere`` unless it is certain that half a session ago nobody else had it."""
        try:
            async with asyncio.timeout(PROOF_S):
                await self._open(partition).prove()
        except (TimeoutError, TaskBroken):
            raise NotHere(f"partition {partition} may be another worker's by now") from None
        self._open(partition)

    def _open(self, partition: int) -> Task:
        task = self.tasks.get(partition)
        if task is None:
            raise NotHere(f"partition {partition} is not open in this worker")
        return task

    def open_partitions(self) -> list[int]:
        return sorted(partition for partition, task in self.tasks.items() if task.alive)

    def owned_partitions(self) -> list[int]:
        """Those that are this worker's, also while they are being restored."""
        return sorted(self.transport.owned)

    async def reached(self) -> dict[int, dict[str, Reached]]:
        """By partition open here and source topic: how far it has been applied. ``TimeoutError`` without a broker."""
        tasks = {partition: self.tasks[partition] for partition in self.open_partitions()}
        partitions = [TP(topic, partition) for partition in tasks for topic in self.sources]
        async with asyncio.timeout(REACHED_S):
            told = await cast(TaskConsumer, self.app.consumer).reached(partitions) if partitions else {}
        found: dict[int, dict[str, Reached]] = {partition: {} for partition in tasks}
        for tp, (position, end) in told.items():
            task = tasks[tp.partition]
            applied = task.next_offsets[tp.topic]
            at = position if applied == task.fetched_to[tp.topic] else applied
            found[tp.partition][tp.topic] = Reached(applied, end, max(0, end - max(at, applied)))
        return found

    def ready(self) -> bool:
        """Whether every task that is this worker's is open."""
        return self.transport.all_open()

    def owners(self) -> dict[int, str]:
        """Partition -> canonical URL of the worker that owns it, as of the last assignment; empty before the first."""
        distribution = cast(PartitionAssignor, self.app.assignor).external_topics_metadata()
        return {partition: url for url, topics in distribution.items() for partition in topics.get(self.anchor, ())}

    # -- opening a task -----------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Before anything is consumed, once: the topics are there, and right."""
        if self._prepared:
            return
        if self.settings.create_topics:
            await self.create_topics(self.settings.replication_factor)
        else:
            await self.check_topics()
        conf = self.app.conf
        await leave_with_other_sources(
            self.client_settings, conf.id, conf.consumer_group_instance_id, Path(conf.datadir) / "sources", self.sources
        )
        self._prepared = True

    async def open(self, partition: int) -> Task:
        """Fence the previous owner, see that our clock is right, restore, see where to read on. What is half open when
        it fails is closed."""
        owned_since = self.clock().monotonic()
        client = self._transactional_client(partition)
        disk: store.PartitionStore | None = None
        try:
            self.failpoint("opening", client.cut)
            await self._take_over(partition, client)
            clock = await self._right_clock(partition, client)
            client.now_ms = clock.now_ms
            ids = await client.topic_ids()
            disk = store.PartitionStore(
                Path(self.app.conf.datadir) / "tasks" / str(partition),
                partition,
                self.tables,
                {table: ids[topic] for table, topic in self.changelogs.items()},
                clock.now_ms,
                self.settings.progress_every_s,
            )
            restored = await restore(
                self.client_settings,
                disk,
                self.changelogs,
                self.sources,
                clock.now_ms(),
                lambda: self.failpoint("restoring", client.cut),
            )
            starts = {
                topic: self._start(partition, disk, topic, ids[topic], restored.sources[topic])
                for topic in self.sources
            }
            await self._note_starts(partition, client, disk, starts)
            log.info("task %d: %d changelog records restored", partition, restored.records)
            return Task(self, partition, client, disk, starts, clock, owned_since)
        except BaseException:
            if disk is not None:
                disk.close()
            await client.close()
            raise

    async def _take_over(self, partition: int, client: TransactionalClient) -> None:
        """Fence the previous owner, and have what it has committed seen as committed, and nothing else: see
        ``markers``."""
        await client.start([*self.outputs, *self.changelogs.values()])
        changelogs = [(topic, partition) for topic in self.changelogs.values()]
        marked = await client.write_lost_markers(changelogs, alone=True)
        try:
            marked += await client.write_lost_markers(
                (topic, number) for topic, count in self.outputs.items() for number in range(count)
            )
        except NoLeader as exc:  # nothing can be written there either, and everything else can go on
            log.warning("task %d: whether its last transaction is seen everywhere cannot be told: %s", partition, exc)
        if marked:
            where = listed(marked)
            log.warning(
                "task %d: Kafka had lost how its last transaction ended in %s; it is marked now", partition, where
            )
            self.counters["markers_written"] += len(marked)

    async def _right_clock(self, partition: int, client: TransactionalClient) -> Clock:
        """A clock that goes with the broker's. As long as there is none the task is held: it is not opened."""
        changelog = self.changelogs[POSITIONS], partition
        try:
            while True:
                clock = self.clock()
                doubt = await doubt_of(clock, client, changelog, self.settings.clock_apart_s)
                if not doubt:
                    return clock
                if partition not in self.held:
                    log.warning("task %d is held: %s", partition, doubt)
                self.held[partition] = doubt
                await asyncio.sleep(self.settings.clock_again_s)
        finally:
            self.held.pop(partition, None)

    def _transactional_client(self, partition: int) -> TransactionalClient:
        return TransactionalClient(
            AIOKafkaClient(**self.client_settings, metadata_max_age_ms=METADATA_MAX_AGE_MS),
            f"{self.app.conf.id}-{partition}",
            transaction_timeout_s=self.settings.transaction_timeout_s,
            on_end_sent=lambda client: self.failpoint("end_sent", client.cut),
            outcomes=self._outcomes[partition],
        )

    async def _note_starts(
        self, partition: int, client: TransactionalClient, disk: store.PartitionStore, starts: Mapping[str, Position]
    ) -> None:
        """Where one is not where the position was, it is committed before anything else is: the next to open might
        find a log that has grown beyond what was noted."""
        rows = {
            topic.encode(): start.row()
            for topic, start in starts.items()
            if (noted := disk.get(POSITIONS, topic.encode())) is not None and Position.of(noted).offset != start.offset
        }
        if not rows:
            return
        changelog = self.changelogs[POSITIONS], partition
        appended = (await client.produce({changelog: [(key, row, ()) for key, row in rows.items()]}))[changelog]
        await client.end()
        disk.write({POSITIONS: dict(rows)}, {POSITIONS: appended.next_offset}, {POSITIONS: appended.broker_ms})

    def _start(self, partition: int, disk: store.PartitionStore, topic: str, topic_id: str, log_of: Log) -> Position:
        """Where to read on, by what was applied and what there is. Whatever is not as it was left is said: it is not
        for us to mend."""
        row = disk.get(POSITIONS, topic.encode())
        if row is None:
            return Position(log_of.start, topic_id)
        noted = Position.of(row)
        if noted.topic_id not in ("", topic_id):
            start, why = log_of.start, "was created anew, it is read from its start"
        elif noted.offset > log_of.end:
            start, why = log_of.end, "has lost its end, it is read on from there"
        elif noted.offset < log_of.start:
            start, why = log_of.start, "has lost what was next, or does not keep it any more: it was not applied"
        else:
            return Position(noted.offset, topic_id)
        log.warning(LOST, topic, partition, why, noted.offset, log_of.start, log_of.end)
        self.counters["sources_not_as_left"] += 1
        return Position(start, topic_id)
