"""A worker: the product's engine, its Faust side and handlers, on a simulated Kafka and disk.

``Engine``, ``TaskTables`` and ``TaskRecovery`` are the real ones. ``App`` provides the part of a Faust app that they
use, and ``Consumer`` that of its consumer and fetcher. ``Worker`` joins the group as aiokafka's coordinator does.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from exactly_once import Engine, Task
from exactly_once.faust.batches import BatchScheduler, TopicBatch
from exactly_once.faust.consumer import IDLE_S
from exactly_once.faust.tables import TaskTables
from exactly_once.settings import EngineSettings
from exactly_once.task.timers import DUE_BYTES, due_of
from streams.access.keys import MAX_RATE, Identity, Role
from streams.build import Surroundings, build
from streams.services import Services
from streams.settings import Settings
from streams.views.api_view import ApiView
from streams.worker.sealing import KEY_BYTES
from verification.simulation.broker import Broker, StoredRecord
from verification.simulation.clients import site
from verification.simulation.disk import Disk
from verification.simulation.loop import Actor, VirtualLoop
from verification.simulation.network import Network

SESSION_S = 10.0
HEARTBEAT_S = 0.3
MAX_FETCH_RECORDS = 500
RETRY_S = 0.1
COMMIT_INTERVAL_S = 2.8
"""Faust's ``broker_commit_interval``."""


KEY = "simulated"
"""The key of all parties outside."""


class FlowControl:
    """Faust's flow control with the queues of the agents: while it is suspended, agents receive no batches."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[TopicBatch]] = {}
        self.changed: dict[str, asyncio.Event] = {}
        self.active = False

    def queue(self, topic: str) -> None:
        self.queues[topic] = deque()
        self.changed[topic] = asyncio.Event()

    def suspend(self) -> None:
        self.active = False

    def resume(self) -> None:
        self.active = True
        for changed in self.changed.values():
            changed.set()

    def clear(self) -> None:
        for queue in self.queues.values():
            queue.clear()

    def put(self, topic: str, batch: TopicBatch) -> None:
        self.queues[topic].append(batch)
        self.changed[topic].set()

    async def get(self, topic: str) -> TopicBatch:
        while not self.active or not self.queues[topic]:
            self.changed[topic].clear()
            await self.changed[topic].wait()
        return self.queues[topic].popleft()


class Table:
    """The part of a Faust table that ``Engine.table`` and the catalogue use."""

    def __init__(self, application: str, name: str) -> None:
        self.name = name
        self.changelog_topic_name = f"{application}-{name}-changelog"
        self.data: dict[str, Any] = {}


class Producer:
    """The part of Faust's producer that views use. It sends each record separately, outside any transaction."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker

    async def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        partition: int | None,
        _timestamp: None,
        headers: Mapping[str, bytes],
    ) -> Awaitable[Any]:
        """Return an awaitable that completes when a broker has the record."""
        tp = (topic, self._worker.engine.partition_of(key) if partition is None else partition)
        broker = self._worker.broker
        return self._worker.ask("send", lambda: broker.append(tp, key, value, list(headers.items())))


class App:
    """The part of a Faust app that the product uses."""

    rebuild: Any = None

    def __init__(self, worker: "Worker", application: str, partitions: int) -> None:
        self._worker = worker
        self.declared_tables: dict[str, Table] = {}
        self.views: dict[str, ApiView] = {}
        """Path pattern -> the view that serves it."""
        self.on_before_shutdown = SimpleNamespace(connect=lambda *_, **__: None)
        self.conf = SimpleNamespace(
            id=application,
            datadir=Path("/simulated") / worker.name,
            broker_session_timeout=SESSION_S,
            broker=[],
            broker_consumer=[],
            broker_credentials=None,
            ssl_context=None,
            stream_recovery_delay=0,
            topic_partitions=partitions,
            canonical_url=worker.name,
            consumer_group_instance_id=worker.name,
        )
        self.flow_control = FlowControl()
        self.consumer_generation_id = 0
        self.rebalancing = False
        self.transport: Any = None
        self.tables: Any = None
        self.consumer: Any = None
        self.assignor = self
        self.urls: dict[str, dict[str, list[int]]] = {}

    def Table(self, name: str, **_: Any) -> Table:
        """Stand in for the method of Faust."""
        return self.declared_tables.setdefault(name, Table(self.conf.id, name))

    @staticmethod
    def topic(name: str, **_: Any) -> SimpleNamespace:
        """Stand in for the method of Faust."""
        return SimpleNamespace(topics=[name])

    @staticmethod
    def agent(_: Any) -> Callable[[Any], Any]:
        """Return the function itself: ``Worker._consume`` runs every agent."""
        return lambda consume: consume

    def page(self, path: str) -> Callable[[type[ApiView]], None]:
        """Stand in for the method of Faust."""

        def add(view: type[ApiView]) -> None:
            self.views[path] = view(self, None)  # type: ignore[arg-type]

        return add

    async def maybe_start_producer(self) -> Producer:
        """Stand in for the method of Faust."""
        return Producer(self._worker)

    def external_topics_metadata(self) -> dict[str, dict[str, list[int]]]:
        """Return URL -> topic -> partitions of the last assignment."""
        return self.urls

    @property
    def _fetcher(self) -> Any:
        return self.consumer

    async def _stop_fetcher(self) -> None:
        await self.consumer.stop_fetching()

    def on_rebalance_end(self) -> None:
        """Stand in for the method of Faust."""
        self.rebalancing = False


class Consumer:
    """Fetches committed records for the tasks and hands them to the agents."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self.partitions: set[int] = set()
        self.positions: dict[TP, int] = {}
        self._flows = False
        self._fetching: asyncio.Task[None] | None = None
        self._fetch: asyncio.Future[dict[TP, list[StoredRecord]]] | None = None
        self.may_fetch = asyncio.Event()
        """Set when a fetch may find records: they have arrived, or the flow was resumed."""

    # -- used by the recovery -----------------------------------------------------------------------------------------

    def is_member(self) -> bool:
        return self._worker.member_number > 0

    def assignment(self) -> set[TP]:
        return {TP(topic, partition) for topic in self._worker.engine.sources for partition in self.partitions}

    def stop_flow(self) -> None:
        self._flows = False

    def resume_flow(self) -> None:
        self._flows = True
        self.may_fetch.set()

    def resume_partitions(self, partitions: set[TP]) -> None:
        """Do nothing: no partition is ever paused."""

    async def wait_for_fetch(self) -> None:
        if self._fetch is not None:
            await asyncio.wait([self._fetch])

    async def seek_wait(self, offsets: Mapping[TP, int]) -> None:
        await asyncio.sleep(0)  # Faust passes the request to the consumer's thread
        self.positions = dict(offsets)

    async def stop_fetching(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
            self._fetching = None

    async def maybe_start(self) -> None:
        """Stand in for the method of Faust."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._keep_fetching())

    # -- fetching -----------------------------------------------------------------------------------------------------

    async def _keep_fetching(self) -> None:
        while True:
            fetched = await self._next()
            for tp, batch in BatchScheduler().iterate(fetched):
                batch.bind(self._worker.engine.tasks)
                self._worker.app.flow_control.put(tp.topic, batch)

    async def _next(self) -> dict[TP, list[StoredRecord]]:
        readable = self._readable() if self._flows else []
        if not readable:
            self.may_fetch.clear()
            await self.may_fetch.wait()
            return {}
        wanted = [tp for tp in readable if self._has_capacity(tp.partition)]
        if not wanted:
            await asyncio.sleep(IDLE_S)
            return {}
        self._fetch = asyncio.ensure_future(self._fetch_from(wanted))
        return await asyncio.shield(self._fetch)

    def _readable(self) -> list[TP]:
        """Return the partitions with records to read; empty fetches are not simulated."""
        logs, alive = self._worker.broker.logs, self._worker.engine.open_partitions()
        return sorted(
            tp for tp, position in self.positions.items() if tp.partition in alive and logs[tp].stable_end > position
        )

    def _has_capacity(self, partition: int) -> bool:
        engine = self._worker.engine
        return sum(engine.tasks[partition].backlog.values()) < engine.settings.backlog_records

    async def _fetch_from(self, tps: Sequence[TP]) -> dict[TP, list[StoredRecord]]:
        positions = {tp: self.positions[tp] for tp in tps}
        logs = self._worker.broker.logs
        try:
            fetched = await self._worker.ask(
                "fetch", lambda: {tp: logs[tp].read(at, MAX_FETCH_RECORDS) for tp, at in positions.items()}
            )
        except KafkaError:
            await asyncio.sleep(RETRY_S)
            return {}
        self.positions |= {tp: next_offset for tp, (_, next_offset) in fetched.items()}
        return {tp: records for tp, (records, _) in fetched.items() if records}


class Keys:
    """The keys that a worker knows: one, of all parties outside."""

    def find(self, key: str) -> Identity | None:
        """Return the holder of a key."""
        return Identity("simulated", Role.OPERATOR, rate=MAX_RATE) if key == KEY else None


class Worker:
    """One process of the product, from its start to its end. Its ``disk`` outlives it."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        network: Network,
        broker: Broker,
        disk: Disk,
        *,
        product: Settings,
        settings: EngineSettings,
        performer: Callable[["Worker"], Any],
        http_client: Callable[["Worker"], Any],
        time: Callable[[], float],
        on_end: Callable[["Worker"], None],
        report_violation: Callable[[str], None],
    ) -> None:
        self.name = name
        self.loop = loop
        self.network = network
        self.broker = broker
        self.disk = disk
        self.time = time
        self.actor = Actor(name)
        self.member_number = 0
        """Number in the group; 0 while it is no member."""
        self.stopping = False
        self.starts_again_after_s = 0.0
        self.open_answers: dict[asyncio.Future[Any], None] = {}
        """Answers that parties outside await, the oldest first; a set would have a different order in each run."""
        self._product = product
        self._settings = settings
        self._performer = performer
        self._http_client = http_client
        self._partitions = product.partitions
        self._requests = itertools.count(1)
        self._on_end = on_end
        self._report_violation = report_violation
        self._rejoin = asyncio.Event()
        self.actor.context.run(site.set, self)
        self.actor.context.run(self._build_services)

    def _build_services(self) -> None:
        self.app = App(self, self._product.application, self._partitions)
        self.services: Services = build(
            self._product,
            surroundings=Surroundings(
                make_app=lambda *_, **__: self.app,  # type: ignore[arg-type]
                make_engine=lambda app, **given: Engine(app, **{**given, "settings": self._settings}),
                make_performer=lambda *_: self._performer(self),
                make_http_client=lambda: self._http_client(self),
                make_keys=lambda _: Keys(),
                read_secret=lambda _: b"the secret of all simulated workers",
                now_ms=lambda: int(self.time() * 1000),
                clock=self.time,
                new_data_key=lambda: bytes(KEY_BYTES),
                new_id=lambda: f"{self.name}-{next(self._requests)}",
            ),
        )
        self.engine = self.services.engine
        self._timer_due = self.engine.timer_handler
        self.engine.timer_handler = self._fire
        self.app.consumer = self.consumer = Consumer(self)
        self.app.tables = self.tables = TaskTables(self.app, loop=self.loop)  # type: ignore[arg-type]
        self.recovery = self.tables.recovery

    def _fire(self, task: Task, timer_id: bytes, payload: bytes) -> None:
        """Check that a timer is not early by the world's clock, then call the product's handler."""
        gone = [key for key, row in task.pending.rows["timers"].items() if row is None and key[DUE_BYTES:] == timer_id]
        due_ms = min((due_of(key) for key in gone), default=0)
        early_ms = due_ms - int(self.time() * 1000)
        if early_ms > 0:
            self._report_violation(f"the timer {timer_id.decode()} fired {early_ms} ms early")
        self._timer_due(task, timer_id, payload)

    # -- running ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process, as `faust worker` does."""
        self.spawn(self._run())

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine as a task of this process."""
        return self.loop.spawn(self.actor, coroutine)

    async def _run(self) -> None:
        for topic in self.engine.sources:
            self.app.flow_control.queue(topic)
            self.spawn(self._consume(topic))
            for partition in range(self._partitions):
                self.broker.logs[topic, partition].listeners.append(self._notify_consumer)
        restart: Any = type(self.recovery)._restart_recovery  # a `Service.task`
        background = [self.spawn(restart.fun(self.recovery)), self.spawn(self._verify_commits())]
        try:
            await self._keep_membership()
        finally:
            for each in background:
                each.cancel()

    async def _verify_commits(self) -> None:
        """Do the part of ``TaskConsumer.commit`` that matters here."""
        while not self.stopping:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            for task in self.engine.tasks.values():
                task.verify_last_commit()

    async def _consume(self, topic: str) -> None:
        """Apply the batches of a topic, as the agent of ``Engine.agent`` does."""
        handler = self.engine.handlers[topic]
        while True:
            batch = await self.app.flow_control.get(topic)
            for part in batch.parts:
                await self.engine.apply(part.task, part.follows, part.records, handler)

    def _notify_consumer(self) -> None:
        """Wake the consumer after a delay, because a broker has records."""
        if self.network.reaches(self.actor):
            self.loop.later(self.network.delay_s(self.name), self.actor, self.consumer.may_fetch.set)

    async def ask(self, kind: str, handle: Callable[[], Any]) -> Any:
        """Send a request to a broker and return its answer; raise ``KafkaError`` if one of them is lost."""
        return await self.network.ask(self.actor, kind, handle)

    # -- the group ----------------------------------------------------------------------------------------------------

    async def _keep_membership(self) -> None:
        while not self.stopping:
            await self._join()
            await self._rejoin.wait()
            if self.stopping:
                return
            if not self.broker.is_member(self.name, self.member_number):
                self.member_number = 0
            await self._revoked()

    async def _join(self) -> None:
        while True:
            self._rejoin.clear()
            try:
                generation, partitions, number = await self.ask("join", self._ask_to_join)
            except KafkaError:
                await asyncio.sleep(RETRY_S)
                continue
            if number:
                break
            self.member_number = 0
        self.member_number = number
        await self._assigned(generation, partitions)

    def _ask_to_join(self) -> "asyncio.Future[tuple[int, set[int], int]]":
        if self.actor.dead:  # in reality a process starts later than the last request of its predecessor arrives
            return self.loop.create_future()
        return self.broker.join(self.name, self.member_number, set(self.consumer.partitions), self._schedule_heartbeat)

    def _schedule_heartbeat(self) -> None:
        """Schedule the heartbeat by which the member learns that it has to rejoin."""
        delay_s = self.network.chance(self.name).uniform(0, HEARTBEAT_S)
        self.loop.later(delay_s, self.loop.world, self._heartbeat)

    def _heartbeat(self) -> None:
        if self.actor in self.network.cut:
            self.loop.later(HEARTBEAT_S, self.loop.world, self._heartbeat)
        elif not self.actor.dead:
            self.loop.later(0, self.actor, self._rejoin.set)

    async def _revoked(self) -> None:
        """Do what ``App._on_partitions_revoked`` does."""
        self.app.rebalancing = True
        self.consumer.stop_flow()
        self.app.flow_control.suspend()
        self.app.flow_control.clear()
        self.recovery.assigned = False
        await self.tables.suspend()

    async def _assigned(self, generation: int, partitions: set[int]) -> None:
        """Do what ``App._on_partitions_assigned`` does."""
        self.app.consumer_generation_id = generation
        self.consumer.partitions = partitions
        self.app.urls = {
            name: {self.engine.anchor: [partition for partition, owner in self.broker.owners.items() if owner == name]}
            for name in self.broker.members
        }
        await asyncio.sleep(0)
        await self.tables.suspend()
        self.recovery.assigned = True
        await asyncio.sleep(0)
        self.recovery.signal_recovery_start.set()
        self.recovery._generation_id = generation

    # -- stopping -----------------------------------------------------------------------------------------------------

    def stop(self, *, leave: bool) -> None:
        """Stop as at SIGTERM, with ``leave`` as at SIGQUIT. The process is killed if it takes too long."""
        self.stopping = True
        self.engine.leaving = leave
        self.loop.later(self._settings.stop_s, self.loop.world, self._on_end, self)
        self.spawn(self._stop())

    async def _stop(self) -> None:
        self.recovery.cancel_opening()
        await self.recovery._openings.wait_cancelled()
        self.recovery._stopped.set()
        await self.engine.close_all()
        self.engine.watch.stopped()
        if self.engine.leaving:
            with contextlib.suppress(KafkaError):
                await self.ask("leave", lambda: self.broker.leave(self.name, self.member_number))
        self.loop.later(0, self.loop.world, self._on_end, self)

    def break_connections(self) -> None:
        """Fail the requests that this process has not answered with ``ConnectionError``."""
        for answer in list(self.open_answers):
            if not answer.done():
                answer.set_exception(ConnectionError())
        self.open_answers.clear()
