"""A worker: the product's engine, runtime and handlers, on a simulated Kafka and disk.

``Engine``, ``TaskTables`` and ``TaskRecovery`` are the real ones. ``App`` has what they use of a Faust app,
``Consumer`` what they use of its consumer and fetcher; ``Worker`` joins the group as aiokafka's coordinator does.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

import streams.agents  # noqa: F401  the declarations of the product
from streams.app import app as declared_app
from streams.app import engine as declared
from streams.engine import Engine, Task
from streams.engine.runtime import IDLE_S, Batch, BatchScheduler, TaskTables
from streams.engine.settings import EngineSettings
from streams.engine.timers import DUE_BYTES
from tests.simulation.broker import Broker, StoredRecord
from tests.simulation.clients import site
from tests.simulation.disk import Disk
from tests.simulation.loop import Actor, VirtualLoop
from tests.simulation.network import Network

SESSION_S = 10.0
HEARTBEAT_S = 0.3
FETCHED_AT_ONCE = 500
RETRY_S = 0.1
LOOK_BACK_S = 2.8
"""Faust's ``broker_commit_interval``."""


class FlowControl:
    """Whether the agents get anything; ``clear`` drops what waits for them."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[Batch]] = {}
        self.changed: dict[str, asyncio.Event] = {}
        self.active = False

    def queue(self, topic: str) -> None:
        self.queues[topic], self.changed[topic] = deque(), asyncio.Event()

    def suspend(self) -> None:
        self.active = False

    def resume(self) -> None:
        self.active = True
        for changed in self.changed.values():
            changed.set()

    def clear(self) -> None:
        for queue in self.queues.values():
            queue.clear()

    def put(self, topic: str, batch: Batch) -> None:
        self.queues[topic].append(batch)
        self.changed[topic].set()

    async def get(self, topic: str) -> Batch:
        while not self.active or not self.queues[topic]:
            self.changed[topic].clear()
            await self.changed[topic].wait()
        return self.queues[topic].popleft()


class Table:
    """What ``Engine.table`` uses of a Faust table."""

    def __init__(self, application: str, name: str) -> None:
        self.changelog_topic_name = f"{application}-{name}-changelog"


class App:
    """What the engine and its runtime use of a Faust app."""

    def __init__(self, worker: "Worker", partitions: int) -> None:
        self.conf = SimpleNamespace(
            id=declared_app.conf.id,
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
        """As Faust calls it."""
        return Table(self.conf.id, name)

    def external_topics_metadata(self) -> dict[str, dict[str, list[int]]]:
        """URL -> topic -> partitions, as of the last assignment."""
        return self.urls

    @property
    def _fetcher(self) -> Any:
        return self.consumer

    async def _stop_fetcher(self) -> None:
        await self.consumer.stop_fetching()

    def on_rebalance_end(self) -> None:
        """As Faust's."""
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
        self.news = asyncio.Event()

    # -- as the runtime uses it ---------------------------------------------------------------------------------------

    def is_member(self) -> bool:
        return self._worker.member_number > 0

    def assignment(self) -> set[TP]:
        return {TP(topic, partition) for topic in self._worker.engine.sources for partition in self.partitions}

    def stop_flow(self) -> None:
        self._flows = False

    def resume_flow(self) -> None:
        self._flows = True
        self.news.set()

    def resume_partitions(self, partitions: set[TP]) -> None:
        """None is ever paused."""

    async def settle(self) -> None:
        if self._fetch is not None:
            await asyncio.wait([self._fetch])

    async def seek_wait(self, offsets: Mapping[TP, int]) -> None:
        await asyncio.sleep(0)  # Faust asks the consumer's thread
        self.positions = dict(offsets)

    async def stop_fetching(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
            self._fetching = None

    async def maybe_start(self) -> None:
        """As Faust calls it."""
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
        waiting = self._waiting() if self._flows else []
        if not waiting:
            self.news.clear()
            await self.news.wait()
            return {}
        hungry = [tp for tp in waiting if self._is_hungry(tp.partition)]
        if not hungry:
            await asyncio.sleep(IDLE_S)
            return {}
        self._fetch = asyncio.ensure_future(self._take(hungry))
        return await asyncio.shield(self._fetch)

    def _waiting(self) -> list[TP]:
        """Where there is something to read; a fetch that finds nothing is not worth simulating."""
        logs, alive = self._worker.broker.logs, self._worker.engine.open_partitions()
        return sorted(
            tp for tp, position in self.positions.items() if tp.partition in alive and logs[tp].stable_end > position
        )

    def _is_hungry(self, partition: int) -> bool:
        engine = self._worker.engine
        return sum(engine.tasks[partition].backlog.values()) < engine.settings.backlog_records

    async def _take(self, hungry: Sequence[TP]) -> dict[TP, list[StoredRecord]]:
        positions, logs = {tp: self.positions[tp] for tp in hungry}, self._worker.broker.logs
        try:
            fetched = await self._worker.ask(
                "fetch", lambda: {tp: logs[tp].read(at, FETCHED_AT_ONCE) for tp, at in positions.items()}
            )
        except KafkaError:
            await asyncio.sleep(RETRY_S)
            return {}
        self.positions |= {tp: next_offset for tp, (_, next_offset) in fetched.items()}
        return {tp: records for tp, (records, _) in fetched.items() if records}


class Worker:
    """One process of the product, from its start to its end; ``disk`` outlives it."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        network: Network,
        broker: Broker,
        disk: Disk,
        *,
        partitions: int,
        settings: EngineSettings,
        performer: Callable[["Worker"], Any],
        time: Callable[[], float],
        ended: Callable[["Worker"], None],
        wrong: Callable[[str], None],
    ) -> None:
        self.name, self.loop, self.network, self.broker, self.disk, self.time = name, loop, network, broker, disk, time
        self.actor = Actor(name)
        self.member_number = 0
        self.stopping, self.starts_again_after_s = False, 0.0
        self.said: dict[asyncio.Future[Any], None] = {}
        """Answers that somebody outside waits for, the oldest first: a set would have another order each time."""
        self._partitions, self._settings, self._performer = partitions, settings, performer
        self._ended, self._wrong = ended, wrong
        self._rejoin = asyncio.Event()
        self.actor.context.run(site.set, self)
        self.actor.context.run(self._wire)

    def _wire(self) -> None:
        self.app = App(self, self._partitions)
        self.engine = Engine(
            self.app,  # type: ignore[arg-type]
            partitions=self._partitions,
            anchor=declared.anchor,
            dead_letters=declared.dead_letters,
            settings=self._settings,
        )
        engine = self.engine
        engine.changelogs = dict(declared.changelogs)
        engine.sources = list(declared.sources)
        engine.outputs = dict.fromkeys(declared.outputs, self._partitions)
        engine.handlers = declared.handlers
        engine.index_factories = declared.index_factories
        engine.result_handler = declared.result_handler
        engine.timer_handler = self._fire
        engine.performer = self._performer(self)
        self.app.consumer = self.consumer = Consumer(self)
        self.app.tables = self.tables = TaskTables(self.app, loop=self.loop)  # type: ignore[arg-type]
        self.recovery = self.tables.recovery

    def _fire(self, task: Task, timer_id: bytes, payload: bytes) -> None:
        """The product's handler; and no timer is ever early by our clock."""
        gone = [key for key, row in task.pending.rows["timers"].items() if row is None and key[DUE_BYTES:] == timer_id]
        due_ms = min((int.from_bytes(key[:DUE_BYTES], "big") for key in gone), default=0)
        early_ms = due_ms - int(self.time() * 1000)
        if early_ms > 0:
            self._wrong(f"the timer {timer_id.decode()} fired {early_ms} ms early")
        declared.timer_handler(task, timer_id, payload)

    # -- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """As `faust worker` does."""
        self.spawn(self._run())

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Have this process do something."""
        return self.loop.spawn(self.actor, coroutine)

    async def _run(self) -> None:
        for topic in self.engine.sources:
            self.app.flow_control.queue(topic)
            self.spawn(self._consume(topic))
            for partition in range(self._partitions):
                self.broker.logs[topic, partition].listeners.append(self._news)
        restart: Any = type(self.recovery)._restart_recovery  # a `Service.task`
        beside = [self.spawn(restart.fun(self.recovery)), self.spawn(self._look_back())]
        try:
            await self._be_a_member()
        finally:
            for each in beside:
                each.cancel()

    async def _look_back(self) -> None:
        """What ``TaskConsumer.commit`` does, as far as it matters."""
        while not self.stopping:
            await asyncio.sleep(LOOK_BACK_S)
            for task in self.engine.tasks.values():
                task.look_back()

    async def _consume(self, topic: str) -> None:
        """The agent of a topic, as ``Engine.agent`` writes it."""
        handler = self.engine.handlers[topic]
        while True:
            batch = await self.app.flow_control.get(topic)
            for part in batch.parts:
                await self.engine.apply(part.task, part.follows, part.records, handler)

    def _news(self) -> None:
        """A broker has something to read."""
        if self.network.reaches(self.actor):
            self.loop.later(self.network.delay_s(self.name), self.actor, self.consumer.news.set)

    async def ask(self, kind: str, handle: Callable[[], Any]) -> Any:
        """Ask a broker."""
        return await self.network.ask(self.actor, kind, handle)

    # -- the group ----------------------------------------------------------------------------------------------------

    async def _be_a_member(self) -> None:
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
        if self.actor.dead:  # no process starts so quickly that it is there before the last request of the one before
            return self.loop.create_future()
        return self.broker.join(self.name, self.member_number, set(self.consumer.partitions), self._told)

    def _told(self) -> None:
        """The next heartbeat says that there is something to do."""
        delay_s = self.network.chance(self.name).uniform(0, HEARTBEAT_S)
        self.loop.later(delay_s, self.loop.world, self._heartbeat)

    def _heartbeat(self) -> None:
        if self.actor in self.network.cut:
            self.loop.later(HEARTBEAT_S, self.loop.world, self._heartbeat)
        elif not self.actor.dead:
            self.loop.later(0, self.actor, self._rejoin.set)

    async def _revoked(self) -> None:
        """``App._on_partitions_revoked``."""
        self.app.rebalancing = True
        self.consumer.stop_flow()
        self.app.flow_control.suspend()
        self.app.flow_control.clear()
        self.recovery.assigned = False
        await self.tables.give_up()

    async def _assigned(self, generation: int, partitions: set[int]) -> None:
        """``App._on_partitions_assigned``."""
        self.app.consumer_generation_id = generation
        self.consumer.partitions = partitions
        self.app.urls = {
            name: {declared.anchor: [partition for partition, owner in self.broker.owners.items() if owner == name]}
            for name in self.broker.members
        }
        await asyncio.sleep(0)
        await self.tables.give_up()
        self.recovery.assigned = True
        await asyncio.sleep(0)
        self.recovery.signal_recovery_start.set()
        self.recovery._generation_id = generation

    # -- its end ------------------------------------------------------------------------------------------------------

    def stop(self, *, leave: bool) -> None:
        """SIGTERM; with ``leave`` SIGQUIT. What has not ended in time is cut off."""
        self.stopping = True
        self.engine.leaving = leave
        self.loop.later(self._settings.stop_s, self.loop.world, self._ended, self)
        self.spawn(self._stop())

    async def _stop(self) -> None:
        self.recovery.interrupt()
        await self.recovery._openings.settle()
        self.recovery._stopped.set()
        await self.engine.close_all()
        self.engine.watch.stopped()
        if self.engine.leaving:
            with contextlib.suppress(KafkaError):
                await self.ask("leave", lambda: self.broker.leave(self.name, self.member_number))
        self.loop.later(0, self.loop.world, self._ended, self)

    def break_connections(self) -> None:
        """Whoever waits for an answer of this process gets none."""
        for waiting in list(self.said):
            if not waiting.done():
                waiting.set_exception(ConnectionError())
        self.said.clear()


Answer = tuple[int, Any]
"""Status and body."""
View = Callable[[Worker, bool], Awaitable[Answer]]
