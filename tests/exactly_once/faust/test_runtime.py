"""The parts of Faust and aiokafka that the engine overrides or relies on exist and behave as expected.

Versions are pinned. When one is raised, these tests show which parts need another review.
"""

import asyncio
import gc
import inspect
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiokafka
import faust
import faust.stores
import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher as AIOKafkaFetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaConnectionError
from faust.app.base import App
from faust.assignor.partition_assignor import PartitionAssignor
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.conductor import Conductor
from faust.transport.consumer import ConsumerThread, Fetcher, ThreadDelegateConsumer, TransactionManager
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from faust.worker import Worker
from mode import Service

from exactly_once import Engine, EngineSettings, PartitionNotOwned, Record, Task, exactly_once
from exactly_once import engine as engine_module
from exactly_once.faust import batches, recovery, tables, transport
from exactly_once.faust import consumer as consumers
from exactly_once.faust import worker as workers
from exactly_once.faust.batches import BatchScheduler, TaskBatch, TopicBatch
from exactly_once.faust.consumer import TaskConsumer, TaskConsumerThread, TaskFetcher
from exactly_once.faust.recovery import TaskRecovery
from exactly_once.faust.tables import TaskStore, TaskTables
from exactly_once.faust.transport import TaskTransactions, TaskTransport
from exactly_once.faust.worker import GC_THRESHOLDS, USAGE, TaskWorker
from exactly_once.kafka.hanging_transactions import HangingTransactionError, NoLeader
from exactly_once.kafka.partitioning import java_partition
from exactly_once.kafka.protocol import TransactionError
from exactly_once.opening import TaskOpening
from exactly_once.state.restore import LogBounds
from exactly_once.state.rocksdb import MAX_AGE_S
from exactly_once.task.transaction import Position
from tests.exactly_once.fakes import Stage

OVERRIDDEN: list[tuple[type, type, str]] = [
    (Worker, TaskWorker, "on_first_start"),
    (Worker, TaskWorker, "execute_from_commandline"),
    (Worker, TaskWorker, "install_signal_handlers"),
    (Worker, TaskWorker, "_schedule_shutdown"),
    (Worker, TaskWorker, "_shutdown_loop"),
    (Worker, TaskWorker, "_gather_all"),
    (Worker, TaskWorker, "_sentinel_task"),
    (AIOKafkaConsumerThread, TaskConsumerThread, "on_start"),
    (AIOKafkaConsumerThread, TaskConsumerThread, "on_thread_stop"),
    (AIOKafkaConsumerThread, TaskConsumerThread, "_create_worker_consumer"),
    (AIOKafkaConsumerThread, TaskConsumerThread, "_fetch_records"),
    (Fetcher, TaskFetcher, "_fetcher"),
    (Consumer, TaskConsumer, "commit"),
    (Consumer, TaskConsumer, "close"),
    (Consumer, TaskConsumer, "perform_seek"),
    (Consumer, TaskConsumer, "_new_consumer_thread"),
    (Consumer, TaskConsumer, "_getmany"),
    (Consumer, TaskConsumer, "_to_message"),
    (TransactionManager, TaskTransactions, "on_partitions_revoked"),
    (TransactionManager, TaskTransactions, "on_rebalance"),
    (TransactionManager, TaskTransactions, "commit"),
    (TransactionManager, TaskTransactions, "send"),
    (Transport, TaskTransport, "Consumer"),
    (Transport, TaskTransport, "Fetcher"),
    (Transport, TaskTransport, "TransactionManager"),
    (Recovery, TaskRecovery, "_restart_recovery"),
    (Recovery, TaskRecovery, "on_stop"),
    (TableManager, TaskTables, "recovery"),
    (TableManager, TaskTables, "on_start"),
    (TableManager, TaskTables, "on_stop"),
    (TableManager, TaskTables, "_update_channels"),
]


@pytest.mark.parametrize(("base", "ours", "name"), OVERRIDDEN, ids=lambda value: getattr(value, "__name__", value))
def test_every_overridden_name_exists(base: type, ours: type, name: str) -> None:
    assert issubclass(ours, base)
    assert name in ours.__dict__, f"{ours.__name__} no longer overrides it: remove it from the list"
    theirs = inspect.getattr_static(base, name)
    assert theirs is not inspect.getattr_static(ours, name)
    if inspect.isfunction(theirs):
        assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(getattr(ours, name))


def test_every_override_is_listed() -> None:
    modules = (batches, consumers, recovery, tables, transport, workers)
    ours = [
        cls
        for module in modules
        for cls in vars(module).values()
        if isinstance(cls, type) and cls.__module__ == module.__name__ and cls is not TaskStore
    ]
    overriding = {
        (cls.__name__, name)
        for cls in ours
        for name in cls.__dict__
        if not name.startswith("__") and any(name in base.__dict__ for base in cls.__mro__[1:] if base is not object)
    }
    noise = {"_abc_impl", "abstract", "logger", "_Service__tasks_fully_registered", "_tasks"}
    listed = {(ours.__name__, name) for _, ours, name in OVERRIDDEN}
    assert {(cls, name) for cls, name in overriding if name not in noise} == listed


RELIED_ON: list[tuple[object, str]] = [
    (App, "_stop_fetcher"),
    (App, "_fetcher"),
    (App, "flow_control"),
    (App, "consumer_generation_id"),
    (App, "on_rebalance_end"),
    (App, "assignor"),
    (App, "transport"),
    (Consumer, "stop_flow"),
    (Consumer, "resume_flow"),
    (Consumer, "seek_wait"),
    (Consumer, "resume_partitions"),
    (Consumer, "_drain_messages"),
    (ThreadDelegateConsumer, "assignment"),
    (AIOKafkaConsumerThread, "_ensure_consumer"),
    (ConsumerThread, "getmany"),
    (Recovery, "signal_recovery_start"),
    (Recovery, "_wait"),
    (Recovery, "on_rebalance"),
    (Service, "wait_for_stopped"),
    (Service, "set_shutdown"),
    (Service, "service_reset"),
    (TableManager, "on_actives_ready"),
    (TableManager, "on_standbys_ready"),
    (Conductor, "acks_enabled_for"),
    (PartitionAssignor, "external_topics_metadata"),
    (PartitionAssignor, "_perform_assignment"),
    (PartitionAssignor, "on_assignment"),
    (PartitionAssignor, "_get_client_metadata"),
    (PartitionAssignor, "_update_member_urls"),
    (PartitionAssignor, "_protocol_assignments"),
    (PartitionAssignor, "_get_changelog_distribution"),
    (PartitionAssignor, "_get_external_topic_distribution"),
    (GroupCoordinator, "request_rejoin"),
    (GroupCoordinator, "close"),
    (AIOKafkaConnection, "connected"),
    (AIOKafkaClient, "bootstrap"),
    (AIOKafkaClient, "coordinator_lookup"),
    (AIOKafkaClient, "force_metadata_update"),
    (AIOKafkaClient, "get_random_node"),
    (AIOKafkaClient, "set_topics"),
    (AIOKafkaFetcher, "fetched_records"),
    (AIOKafkaFetcher, "_create_fetch_waiter"),
    (AIOKafkaFetcher, "_notify"),
    (FetchResult, "check_assignment"),
    (FetchResult, "has_more"),
    (FetchResult, "_update_position"),
    (GroupCoordinator, "reset_generation"),
    (ConnectionGroup, "COORDINATION"),
    (CoordinationType, "TRANSACTION"),
    (TaskStore, "persisted_offset"),
]


@pytest.mark.parametrize(("owner", "name"), RELIED_ON, ids=lambda value: getattr(value, "__name__", value))
def test_every_name_relied_on_exists(owner: object, name: str) -> None:
    assert hasattr(owner, name)


@pytest.mark.parametrize(
    ("package", "pinned"), [("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0")]
)
def test_the_installed_versions_are_the_reviewed_ones(package: str, pinned: str) -> None:
    assert version(package) == pinned


def test_overridden_signatures_are_unchanged() -> None:
    names: Callable[[Any], list[str]] = lambda function: list(inspect.signature(function).parameters)  # noqa: E731
    assert names(Consumer.commit) == ["self", "topics", "start_new_transaction"]
    assert names(Consumer._getmany) == ["self", "active_partitions", "timeout"]
    assert names(Consumer._to_message) == ["self", "tp", "record"]
    assert names(TransactionManager.on_rebalance) == ["self", "assigned", "revoked", "newly_assigned"]
    assert names(TransactionManager.commit) == ["self", "offsets", "start_new_transaction"]
    assert names(TransactionManager.send)[:7] == ["self", "topic", "key", "value", "partition", "timestamp", "headers"]
    assert names(AIOKafkaConsumerThread._fetch_records) == names(TaskConsumerThread._fetch_records)
    assert names(AIOKafkaConsumerThread._create_worker_consumer) == ["self", "transport"]
    assert names(Transport.__init__) == ["self", "args", "kwargs"]


@pytest.fixture
def engine() -> Engine:
    app = faust.App("app", broker="kafka://broker:1", **exactly_once(partitions=4, instance_id="worker-1"))
    return Engine(app, partitions=4, anchor="in", dead_letters="dead", settings=EngineSettings(fetch_max_wait_ms=77))


def test_app_settings_select_the_engines_classes(engine: Engine) -> None:
    conf: Any = engine.app.conf
    assert conf.TableManager is TaskTables
    assert conf.ConsumerScheduler is BatchScheduler
    assert conf.Worker is TaskWorker
    assert conf.consumer_group_instance_id == "worker-1"
    assert faust.stores.by_url(conf.store) is TaskStore
    assert engine.app.transport is engine.transport


def fetched(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset, timestamp=5) for offset in offsets]


def test_a_fetch_becomes_one_batch_per_topic_bound_to_tasks(engine: Engine) -> None:
    records = {
        TP("in", 0): fetched(3, 4, 7),
        TP("also", 0): fetched(1),
        TP("in", 1): fetched(9),
        TP("in", 2): fetched(5),
    }
    batches = dict(BatchScheduler().iterate(records))
    assert list(batches) == [TP("in", 0), TP("also", 0)]
    first, second = (SimpleNamespace(fetched_to={"in": 3, "also": 0}, backlog={}) for _ in range(2))
    batch = batches[TP("in", 0)]
    batch.bind({0: first, 1: second})  # type: ignore[dict-item]
    assert (batch.offset, batch.value) == (7, batch)
    assert [tuple(part) for part in batch.parts] == [
        (first, 3, records[TP("in", 0)]),
        (second, 3, records[TP("in", 1)]),
    ]
    assert (first.fetched_to, second.fetched_to) == ({"in": 8, "also": 0}, {"in": 10, "also": 0})
    assert (list(first.backlog.values()), list(second.backlog.values())) == ([3], [1])


async def test_an_agent_applies_a_batch_to_each_of_its_tasks(engine: Engine) -> None:
    applied: list[Any] = []

    async def apply(task: Any, follows: int, records: Any, handler: Any) -> None:
        applied.append((task, follows, records))

    engine.apply = apply  # type: ignore[method-assign]
    stream = SimpleNamespace(events=lambda: events())
    batch = SimpleNamespace(parts=[TaskBatch("first", 3, []), TaskBatch("second", 0, [])])  # type: ignore[arg-type]

    async def events() -> AsyncIterator[Any]:
        yield SimpleNamespace(message=SimpleNamespace(value=batch))

    agent: Any = engine.agent(engine.source("in"))(lambda task, record: None)
    await agent.fun(stream)
    assert applied == [("first", 3, []), ("second", 0, [])]


async def test_a_batch_converts_to_a_faust_message(engine: Engine) -> None:
    task: Any = SimpleNamespace(fetched_to={"in": 0}, backlog={})
    engine.tasks[0] = task
    consumer = TaskConsumer.__new__(TaskConsumer)
    consumer.transport, consumer.app = engine.transport, engine.app
    batch = TopicBatch(TP("in", 0), [(0, fetched(3))])
    message = consumer._to_message(TP("in", 0), batch)
    assert (message.offset, message.topic, batch.parts[0].task) == (3, "in", task)
    assert id(message.value) == id(batch)


async def test_the_consumer_uses_the_fetch_wait_of_the_settings(engine: Engine) -> None:
    consumer: Any = SimpleNamespace(app=engine.app, in_transaction=True, transport=engine.transport)
    thread = TaskConsumerThread.__new__(TaskConsumerThread)
    thread.app, thread.consumer = engine.app, consumer
    made = thread._create_worker_consumer(engine.transport)
    assert isinstance(made, aiokafka.AIOKafkaConsumer)
    assert made._fetch_max_wait_ms == 77
    assert made._isolation_level == "read_committed"
    assert made._group_instance_id == "worker-1"
    assert hasattr(made, "_coordinator"), "its member_id shows whether the group has expelled the worker"


async def test_a_starting_worker_waits_for_a_broker_that_goes_away(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, stopped = list[Any](), list[Any]()

    async def start(consumer: Any) -> None:
        tried.append(consumer)
        if len(tried) < 3:
            raise KafkaConnectionError("nobody is there")

    async def stop(consumer: Any) -> None:
        stopped.append(consumer)

    monkeypatch.setattr(aiokafka.AIOKafkaConsumer, "start", start)
    monkeypatch.setattr(aiokafka.AIOKafkaConsumer, "stop", stop)
    monkeypatch.setattr(consumers, "CONNECT_RETRY_S", 0)
    consumer: Any = engine.app.consumer
    thread = consumer._new_consumer_thread()
    thread.thread_loop = asyncio.get_running_loop()
    await thread.on_start()
    assert thread._consumer is tried[2]
    assert stopped == tried[:2]


def test_a_lost_kafka_ends_a_starting_worker_in_one_sentence(engine: Engine) -> None:
    stderr = StringIO()
    worker = TaskWorker(engine.app, loop=asyncio.new_event_loop(), redirect_stdouts=False, stderr=stderr)

    async def start() -> None:
        await worker.crash(KafkaConnectionError("nobody is there"))

    worker.start = start  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as ended:
        worker.execute_from_commandline()
    assert ended.value.code == USAGE
    assert "Kafka went away" in stderr.getvalue()


def opening_of(engine: Engine, partition: int, client: Any) -> TaskOpening:
    """Return the opening of a task with this client."""
    return TaskOpening(engine, partition, client, {}, Path("/nowhere"), {})


class Marking:
    """Client that only completes hanging transactions, in its own partitions (alone) and in shared ones."""

    def __init__(self, own: Exception | None, others: Exception | None) -> None:
        self._fails = {True: own, False: others}
        self.asked: list[tuple[bool, set[tuple[str, int]]]] = []

    async def start(self, topics: list[str]) -> None: ...

    async def complete_hanging(
        self, partitions: Iterable[tuple[str, int]], *, alone: bool = False
    ) -> list[tuple[str, int]]:
        self.asked.append((alone, set(partitions)))
        if fails := self._fails[alone]:
            raise fails
        return []


async def test_fencing_checks_changelogs_and_all_possible_outputs(engine: Engine) -> None:
    client: Any = Marking(None, None)
    await opening_of(engine, 1, client)._fence()
    assert client.asked == [
        (True, {(topic, 1) for topic in engine.changelogs.values()}),
        (False, {(topic, number) for topic, count in engine.outputs.items() for number in range(count)}),
    ]


async def test_only_a_changelog_without_a_leader_stops_an_opening(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    without: Any = Marking(None, NoLeader("nobody answers for out/3"))
    await opening_of(engine, 1, without)._fence()
    assert "complete everywhere is unknown: nobody answers for out/3" in caplog.text
    for client in (Marking(NoLeader("log/1"), None), Marking(None, HangingTransactionError("out/3"))):
        with pytest.raises(TransactionError, match=r"^(log/1|out/3)$"):
            await opening_of(engine, 1, client)._fence()


async def test_clients_of_a_partition_share_transaction_outcomes(engine: Engine) -> None:
    clients = [engine._transactional_client(partition) for partition in (0, 0, 1)]
    clients[0]._remember({(7, 3): True})
    assert [client._outcomes for client in clients] == [{(7, 3): True}, {(7, 3): True}, {}]


async def test_a_starting_worker_makes_garbage_collection_rarer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: Any) -> None:
        """Stand in for the start of a worker."""

    before = gc.get_threshold()
    monkeypatch.setattr(Worker, "on_first_start", nothing)
    monkeypatch.setattr(engine, "prepare", nothing)
    worker = TaskWorker(engine.app, loop=asyncio.get_running_loop(), redirect_stdouts=False)
    try:
        await worker.on_first_start()
        assert gc.get_threshold() == GC_THRESHOLDS
    finally:
        gc.set_threshold(*before)


async def test_an_expelled_coordinator_has_no_member_id() -> None:
    coordinator: Any = SimpleNamespace(request_rejoin=lambda: None)
    coordinator.member_id = "worker-1-uuid"
    GroupCoordinator.reset_generation(coordinator)
    assert not coordinator.member_id


async def test_a_reset_awaits_an_opening_and_a_rebalance_cancels_it(engine: Engine) -> None:
    tables = TaskTables(engine.app)
    recovery = tables.recovery
    recovery._opening = asyncio.ensure_future(asyncio.sleep(60))
    recovery.request_reset()
    assert not recovery.signal_recovery_start.is_set()
    assert recovery._reset_wanted
    recovery.cancel_opening()
    await asyncio.wait([recovery._opening])
    assert recovery._opening.cancelled()
    recovery.request_reset()
    assert recovery.signal_recovery_start.is_set()


def test_an_agent_has_its_handlers_name_and_docstring(engine: Engine) -> None:
    @engine.agent(engine.source("in"))
    def count(task: Task, record: Record) -> None:
        """Count things."""

    (agent,) = engine.app.agents.values()
    assert agent.name.endswith("test_runtime.count")
    assert agent.help == "Count things."
    assert list(agent.channel.topics) == ["in"]
    assert agent.channel.acks is False
    assert count is agent, "`faust send @module.count` looks the agent up by that name"


def test_tables_have_a_bytes_changelog_and_a_help_text(engine: Engine) -> None:
    table = engine.table("counts", help="Word -> count.")
    assert table.help == "Word -> count."
    assert engine.changelogs["counts"] == "app-counts-changelog"
    assert {"timers", "calls"} <= set(engine.app.tables)
    with pytest.raises(TypeError, match=r"task\.put"):
        table.data[b"k"] = b"v"


def test_topics_lists_every_required_topic_with_partitions(engine: Engine) -> None:
    engine.source("in")
    engine.sink("out", partitions=1, config={"retention.ms": "1000"})
    specs = {spec.name: spec for spec in engine.topics()}
    assert {name: spec.partitions for name, spec in specs.items()} == {
        "dead": 4,
        "in": 4,
        "out": 1,
        "app-positions-changelog": 4,
        "app-timers-changelog": 4,
        "app-calls-changelog": 4,
    }
    assert specs["app-calls-changelog"].config == {
        "cleanup.policy": "compact",
        "delete.retention.ms": "86400000",
        "max.compaction.lag.ms": "604800000",
        "segment.bytes": "67108864",
        "message.timestamp.type": "LogAppendTime",
    }
    assert specs["out"].config == {"retention.ms": "1000"}


def test_an_index_over_an_unknown_table_is_refused(engine: Engine) -> None:
    with pytest.raises(LookupError, match="there is no table 'drivers' to index"):
        engine.index("drivers", lambda: None)  # type: ignore[arg-type,return-value]


async def test_views_read_committed_rows_of_local_tasks(engine: Engine) -> None:
    stage = Stage()
    stage.store.tables["counts"] = {b"a/%d" % n: b"%d" % n for n in range(3)} | {b"b": b"x"}
    engine.tasks[0] = stage.task
    stage.task.put("counts", b"a/0", b"uncommitted")
    assert engine.read("counts", 0, b"a/0") == engine.find("counts", b"a/0") == b"0"
    assert engine.read("counts", 0, b"none") is None
    assert list(engine.scan("counts", 0, prefix=b"a/", after=b"a/0")) == [(0, b"a/1", b"1"), (0, b"a/2", b"2")]
    assert list(engine.scan("counts", limit=1)) == [(0, b"a/0", b"0")]
    assert engine.open_partitions() == [0]
    with pytest.raises(PartitionNotOwned, match="partition 1 is not open in this worker"):
        engine.read("counts", 1, b"a/0")
    stage.manager.break_task(stage.task, RuntimeError("broken"))
    assert engine.open_partitions() == []


def test_owners_are_read_from_the_last_assignment(engine: Engine) -> None:
    assert engine.owners() == {}
    engine.app.assignor.external_topic_distribution = {  # type: ignore[attr-defined]
        "http://one:6066": {"in": [0, 2], "else": [1]},
        "http://two:6067": {"in": [1, 3]},
    }
    assert engine.owners() == {0: "http://one:6066", 2: "http://one:6066", 1: "http://two:6067", 3: "http://two:6067"}


@pytest.mark.parametrize(
    ("key", "hashed"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
def test_keys_are_partitioned_as_in_java(engine: Engine, key: bytes, hashed: int) -> None:
    """The hashes are those of Kafka's own test of its murmur2."""
    assert engine.partition_of(key) == java_partition(key, 4) == (hashed & 0x7FFFFFFF) % 4


@pytest.mark.parametrize(
    ("committed", "start", "end", "expected", "warning"),
    [
        (None, 5, 9, 5, ""),
        (Position(7, "now").row(), 5, 9, 7, ""),
        (Position(9, "now").row(), 5, 9, 9, ""),
        (b"7", 5, 9, 7, ""),
        (Position(3, "now").row(), 5, 9, 5, "in/0 has lost or expired the next records"),
        (Position(10, "now").row(), 0, 9, 9, "in/0 has lost its end"),
        (Position(10, "before").row(), 0, 9, 0, "in/0 was recreated"),
        (Position(7, "before").row(), 0, 9, 0, "in/0 was recreated"),
    ],
)
def test_a_task_resumes_at_its_commit_and_logs_a_mismatch(
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    committed: bytes | None,
    start: int,
    end: int,
    expected: int,
    warning: str,
) -> None:
    disk: Any = SimpleNamespace(get=lambda table, key: committed)
    start_position = opening_of(engine, 0, None)._start_position(disk, "in", "now", LogBounds(start, end))
    assert start_position == Position(expected, "now")
    assert warning in caplog.text
    assert engine.counters["sources_not_as_left"] == bool(warning)


async def test_state_of_moved_partitions_is_deleted_hourly(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "SWEEP_S", 0.01)
    monkeypatch.setattr(type(engine), "_stores", tmp_path)
    monkeypatch.setattr(type(engine.transport), "owned", frozenset({1}))
    long_ago = time.time() - MAX_AGE_S - 60
    engine._remove_stale_stores()
    for partition in (0, 1, 2):
        (tmp_path / str(partition)).mkdir()
        os.utime(tmp_path / str(partition), (long_ago, long_ago))
    os.utime(tmp_path / "2")
    async with asyncio.timeout(60):
        while {path.name for path in tmp_path.iterdir()} != {"1", "2"}:  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)
