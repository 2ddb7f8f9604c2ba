"""What the engine overrides in Faust and aiokafka, or relies on there, is there, and behaves as it is taken to.

Versions are pinned; when one is raised, this says what has to be looked at again.
"""

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from importlib.metadata import version
from io import StringIO
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

from streams.engine import Engine, EngineSettings, NotHere, Record, Task, exactly_once, runtime
from streams.engine.changes import Position
from streams.engine.engine import java_partition
from streams.engine.markers import MarkersLost, NoLeader
from streams.engine.protocol import TransactionError
from streams.engine.restore import Log
from streams.engine.store import TaskStore
from tests.engine.fakes import Stage

OVERRIDDEN: list[tuple[type, type, str]] = [
    (Worker, runtime.TaskWorker, "on_first_start"),
    (Worker, runtime.TaskWorker, "execute_from_commandline"),
    (Worker, runtime.TaskWorker, "install_signal_handlers"),
    (Worker, runtime.TaskWorker, "_schedule_shutdown"),
    (Worker, runtime.TaskWorker, "_gather_all"),
    (Worker, runtime.TaskWorker, "_sentinel_task"),
    (AIOKafkaConsumerThread, runtime.TaskConsumerThread, "on_start"),
    (AIOKafkaConsumerThread, runtime.TaskConsumerThread, "on_thread_stop"),
    (AIOKafkaConsumerThread, runtime.TaskConsumerThread, "_create_worker_consumer"),
    (AIOKafkaConsumerThread, runtime.TaskConsumerThread, "_fetch_records"),
    (Fetcher, runtime.TaskFetcher, "_fetcher"),
    (Consumer, runtime.TaskConsumer, "commit"),
    (Consumer, runtime.TaskConsumer, "close"),
    (Consumer, runtime.TaskConsumer, "perform_seek"),
    (Consumer, runtime.TaskConsumer, "_new_consumer_thread"),
    (Consumer, runtime.TaskConsumer, "_getmany"),
    (Consumer, runtime.TaskConsumer, "_to_message"),
    (TransactionManager, runtime.TaskTransactions, "on_partitions_revoked"),
    (TransactionManager, runtime.TaskTransactions, "on_rebalance"),
    (TransactionManager, runtime.TaskTransactions, "commit"),
    (TransactionManager, runtime.TaskTransactions, "send"),
    (Transport, runtime.TaskTransport, "Consumer"),
    (Transport, runtime.TaskTransport, "Fetcher"),
    (Transport, runtime.TaskTransport, "TransactionManager"),
    (Recovery, runtime.TaskRecovery, "_restart_recovery"),
    (Recovery, runtime.TaskRecovery, "on_stop"),
    (TableManager, runtime.TaskTables, "recovery"),
    (TableManager, runtime.TaskTables, "on_start"),
    (TableManager, runtime.TaskTables, "on_stop"),
    (TableManager, runtime.TaskTables, "_update_channels"),
]


@pytest.mark.parametrize(("base", "ours", "name"), OVERRIDDEN, ids=lambda value: getattr(value, "__name__", value))
def test_what_is_overridden_exists(base: type, ours: type, name: str) -> None:
    assert issubclass(ours, base)
    assert name in ours.__dict__, f"{ours.__name__} overrides it no more: take it off the list"
    theirs = inspect.getattr_static(base, name)
    assert theirs is not inspect.getattr_static(ours, name)
    if inspect.isfunction(theirs):
        assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(getattr(ours, name))


def test_every_override_is_on_the_list() -> None:
    ours = [cls for cls in vars(runtime).values() if isinstance(cls, type) and cls.__module__ == runtime.__name__]
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
def test_what_is_relied_on_exists(owner: object, name: str) -> None:
    assert hasattr(owner, name)


@pytest.mark.parametrize(
    ("package", "pinned"), [("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0")]
)
def test_the_versions_are_those_that_were_read(package: str, pinned: str) -> None:
    assert version(package) == pinned


def test_the_overridden_signatures_are_called_as_before() -> None:
    names: Callable[[Any], list[str]] = lambda function: list(inspect.signature(function).parameters)  # noqa: E731
    assert names(Consumer.commit) == ["self", "topics", "start_new_transaction"]
    assert names(Consumer._getmany) == ["self", "active_partitions", "timeout"]
    assert names(Consumer._to_message) == ["self", "tp", "record"]
    assert names(TransactionManager.on_rebalance) == ["self", "assigned", "revoked", "newly_assigned"]
    assert names(TransactionManager.commit) == ["self", "offsets", "start_new_transaction"]
    assert names(TransactionManager.send)[:7] == ["self", "topic", "key", "value", "partition", "timestamp", "headers"]
    assert names(AIOKafkaConsumerThread._fetch_records) == names(runtime.TaskConsumerThread._fetch_records)
    assert names(AIOKafkaConsumerThread._create_worker_consumer) == ["self", "transport"]
    assert names(Transport.__init__) == ["self", "args", "kwargs"]


@pytest.fixture
def engine() -> Engine:
    app = faust.App("app", broker="kafka://broker:1", **exactly_once(partitions=4, instance_id="worker-1"))
    return Engine(app, partitions=4, anchor="in", dead_letters="dead", settings=EngineSettings(fetch_max_wait_ms=77))


def test_the_settings_of_an_app_choose_our_classes(engine: Engine) -> None:
    conf: Any = engine.app.conf
    assert conf.TableManager is runtime.TaskTables
    assert conf.ConsumerScheduler is runtime.BatchScheduler
    assert conf.Worker is runtime.TaskWorker
    assert conf.consumer_group_instance_id == "worker-1"
    assert faust.stores.by_url(conf.store) is TaskStore
    assert engine.app.transport is engine.transport


def fetched(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset, timestamp=5) for offset in offsets]


def test_a_fetch_is_handed_on_as_one_item_a_topic_and_bound_to_the_tasks(engine: Engine) -> None:
    records = {
        TP("in", 0): fetched(3, 4, 7),
        TP("also", 0): fetched(1),
        TP("in", 1): fetched(9),
        TP("in", 2): fetched(5),
    }
    batches = dict(runtime.BatchScheduler().iterate(records))
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


async def test_an_agent_applies_what_a_batch_has_for_every_task(engine: Engine) -> None:
    applied: list[Any] = []

    async def apply(task: Any, follows: int, records: Any, handler: Any) -> None:
        applied.append((task, follows, records))

    engine.apply = apply  # type: ignore[method-assign]
    stream = SimpleNamespace(events=lambda: events())
    batch = SimpleNamespace(parts=[runtime.Part("first", 3, []), runtime.Part("second", 0, [])])  # type: ignore[arg-type]

    async def events() -> AsyncIterator[Any]:
        yield SimpleNamespace(message=SimpleNamespace(value=batch))

    agent: Any = engine.agent(engine.source("in"))(lambda task, record: None)
    await agent.fun(stream)
    assert applied == [("first", 3, []), ("second", 0, [])]


async def test_a_batch_can_be_made_a_faust_message(engine: Engine) -> None:
    task: Any = SimpleNamespace(fetched_to={"in": 0}, backlog={})
    engine.tasks[0] = task
    consumer = runtime.TaskConsumer.__new__(runtime.TaskConsumer)
    consumer.transport, consumer.app = engine.transport, engine.app
    batch = runtime.Batch(TP("in", 0), [(0, fetched(3))])
    message = consumer._to_message(TP("in", 0), batch)
    assert (message.offset, message.topic, batch.parts[0].task) == (3, "in", task)
    assert id(message.value) == id(batch)


async def test_the_worker_consumer_waits_as_short_for_a_fetch_as_the_settings_say(engine: Engine) -> None:
    consumer: Any = SimpleNamespace(app=engine.app, in_transaction=True, transport=engine.transport)
    thread = runtime.TaskConsumerThread.__new__(runtime.TaskConsumerThread)
    thread.app, thread.consumer = engine.app, consumer
    made = thread._create_worker_consumer(engine.transport)
    assert isinstance(made, aiokafka.AIOKafkaConsumer)
    assert made._fetch_max_wait_ms == 77
    assert made._isolation_level == "read_committed"
    assert made._group_instance_id == "worker-1"
    assert hasattr(made, "_coordinator"), "its member_id says whether the group has expelled us"


async def test_a_broker_that_goes_away_while_a_worker_starts_is_waited_for(
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
    monkeypatch.setattr(runtime, "AGAIN_S", 0)
    consumer: Any = engine.app.consumer
    thread = consumer._new_consumer_thread()
    thread.thread_loop = asyncio.get_running_loop()
    await thread.on_start()
    assert thread._consumer is tried[2]
    assert stopped == tried[:2]


def test_a_worker_that_kafka_leaves_alone_while_it_starts_ends_in_one_sentence(engine: Engine) -> None:
    said = StringIO()
    worker = runtime.TaskWorker(engine.app, loop=asyncio.new_event_loop(), redirect_stdouts=False, stderr=said)

    async def start() -> None:
        await worker.crash(KafkaConnectionError("nobody is there"))

    worker.start = start  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as ended:
        worker.execute_from_commandline()
    assert ended.value.code == runtime.USAGE
    assert "Kafka is not there as it should be" in said.getvalue()


class Marking:
    """A client of which only what has been lost is asked: of the own partitions, and of those that others write to."""

    def __init__(self, own: Exception | None, others: Exception | None) -> None:
        self._fails = {True: own, False: others}
        self.asked: list[tuple[bool, set[tuple[str, int]]]] = []

    async def start(self, topics: list[str]) -> None: ...

    async def write_lost_markers(
        self, partitions: Iterable[tuple[str, int]], *, alone: bool = False
    ) -> list[tuple[str, int]]:
        self.asked.append((alone, set(partitions)))
        if fails := self._fails[alone]:
            raise fails
        return []


async def test_who_takes_over_looks_at_its_changelogs_and_at_everything_it_may_have_written_to(engine: Engine) -> None:
    client: Any = Marking(None, None)
    await engine._take_over(1, client)
    assert client.asked == [
        (True, {(topic, 1) for topic in engine.changelogs.values()}),
        (False, {(topic, number) for topic, count in engine.outputs.items() for number in range(count)}),
    ]


async def test_a_topic_that_nobody_leads_holds_up_no_task_but_whose_changelog_it_is(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    without: Any = Marking(None, NoLeader("nobody answers for out/3"))
    await engine._take_over(1, without)
    assert "cannot be told: nobody answers for out/3" in caplog.text
    for client in (Marking(NoLeader("log/1"), None), Marking(None, MarkersLost("out/3"))):
        with pytest.raises(TransactionError, match=r"^(log/1|out/3)$"):
            await engine._take_over(1, client)  # type: ignore[arg-type]


async def test_the_clients_of_a_partition_share_what_is_known_of_how_its_transactions_ended(engine: Engine) -> None:
    clients = [engine._transactional_client(partition) for partition in (0, 0, 1)]
    clients[0]._remember({(7, 3): True})
    assert [client._outcomes for client in clients] == [{(7, 3): True}, {(7, 3): True}, {}]


async def test_a_worker_that_starts_has_python_look_for_garbage_less_often(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: Any) -> None:
        """As if it had started."""

    before = gc.get_threshold()
    monkeypatch.setattr(Worker, "on_first_start", nothing)
    monkeypatch.setattr(engine, "prepare", nothing)
    worker = runtime.TaskWorker(engine.app, loop=asyncio.get_running_loop(), redirect_stdouts=False)
    try:
        await worker.on_first_start()
        assert gc.get_threshold() == runtime.GARBAGE
    finally:
        gc.set_threshold(*before)


async def test_a_coordinator_that_was_expelled_has_no_member_id() -> None:
    coordinator: Any = SimpleNamespace(request_rejoin=lambda: None)
    coordinator.member_id = "worker-1-uuid"
    GroupCoordinator.reset_generation(coordinator)
    assert not coordinator.member_id


async def test_a_reset_waits_for_the_opening_under_way_and_a_rebalance_interrupts_it(engine: Engine) -> None:
    tables = runtime.TaskTables(engine.app)
    recovery = tables.recovery
    recovery._opening = asyncio.ensure_future(asyncio.sleep(60))
    recovery.request_reset()
    assert not recovery.signal_recovery_start.is_set()
    assert recovery._reset_wanted
    recovery.interrupt()
    await asyncio.wait([recovery._opening])
    assert recovery._opening.cancelled()
    recovery.request_reset()
    assert recovery.signal_recovery_start.is_set()


def test_a_decorated_handler_is_an_agent_of_its_name_with_its_docstring(engine: Engine) -> None:
    @engine.agent(engine.source("in"))
    def count(task: Task, record: Record) -> None:
        """Count things."""

    (agent,) = engine.app.agents.values()
    assert agent.name.endswith("test_runtime.count")
    assert agent.help == "Count things."
    assert list(agent.channel.topics) == ["in"]
    assert agent.channel.acks is False
    assert count is agent, "`faust send @module.count` sends to what it finds under that name"


def test_tables_have_a_changelog_of_bytes_and_a_help(engine: Engine) -> None:
    table = engine.table("counts", help="Word -> count.")
    assert table.help == "Word -> count."
    assert engine.changelogs["counts"] == "app-counts-changelog"
    assert {"timers", "calls"} <= set(engine.app.tables)
    with pytest.raises(TypeError, match=r"task\.put"):
        table.data[b"k"] = b"v"


def test_topics_are_all_that_has_to_exist_each_with_its_partitions(engine: Engine) -> None:
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
        "segment.bytes": "67108864",
        "message.timestamp.type": "LogAppendTime",
    }
    assert specs["out"].config == {"retention.ms": "1000"}


def test_an_index_over_no_table_is_refused(engine: Engine) -> None:
    with pytest.raises(LookupError, match="there is no table 'drivers' to index"):
        engine.index("drivers", lambda: None)  # type: ignore[arg-type,return-value]


async def test_views_read_committed_rows_of_the_tasks_open_here(engine: Engine) -> None:
    stage = Stage()
    stage.store.tables["counts"] = {b"a/%d" % n: b"%d" % n for n in range(3)} | {b"b": b"x"}
    engine.tasks[0] = stage.task
    stage.task.put("counts", b"a/0", b"uncommitted")
    assert engine.read("counts", 0, b"a/0") == engine.find("counts", b"a/0") == b"0"
    assert engine.read("counts", 0, b"none") is None
    assert list(engine.scan("counts", 0, prefix=b"a/", after=b"a/0")) == [(0, b"a/1", b"1"), (0, b"a/2", b"2")]
    assert list(engine.scan("counts", limit=1)) == [(0, b"a/0", b"0")]
    assert engine.open_partitions() == [0]
    with pytest.raises(NotHere, match="partition 1 is not open in this worker"):
        engine.read("counts", 1, b"a/0")
    stage.core.break_task(stage.task, RuntimeError("broken"))
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
def test_keys_are_partitioned_as_java_does(engine: Engine, key: bytes, hashed: int) -> None:
    """The hashes are those of Kafka's own test of its murmur2."""
    assert engine.partition_of(key) == java_partition(key, 4) == (hashed & 0x7FFFFFFF) % 4


@pytest.mark.parametrize(
    ("committed", "start", "end", "expected", "said"),
    [
        (None, 5, 9, 5, ""),
        (Position(7, "now").row(), 5, 9, 7, ""),
        (Position(9, "now").row(), 5, 9, 9, ""),
        (b"7", 5, 9, 7, ""),
        (Position(3, "now").row(), 5, 9, 5, "in/0 has lost what was next, or does not keep it any more"),
        (Position(10, "now").row(), 0, 9, 9, "in/0 has lost its end, it is read on from there"),
        (Position(10, "before").row(), 0, 9, 0, "in/0 was created anew, it is read from its start"),
        (Position(7, "before").row(), 0, 9, 0, "in/0 was created anew, it is read from its start"),
    ],
)
def test_a_task_reads_on_where_it_committed_and_says_where_that_cannot_be(
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    committed: bytes | None,
    start: int,
    end: int,
    expected: int,
    said: str,
) -> None:
    disk: Any = SimpleNamespace(get=lambda table, key: committed)
    assert engine._start(0, disk, "in", "now", Log(start, end)) == Position(expected, "now")
    assert said in caplog.text
    assert engine.counters["sources_not_as_left"] == bool(said)
