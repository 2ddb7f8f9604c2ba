"""How the tasks run inside a Faust worker: subclasses of Faust's consumer, transport, recovery and tables.

Everything is plugged in through settings (``exactly_once``) and ``app.transport``; nothing of Faust is changed. Each
name that is overridden or relied on here has a test that fails when a new version of Faust or aiokafka has it no more.

    fetch     Consumer._getmany -> FetchedRecords -> BatchScheduler -> Consumer._to_message binds batches to tasks
    open      Recovery._restart_recovery, after an assignment and after a task broke: one procedure for both
    suspend   TransactionManager.on_partitions_revoked and on_rebalance: what stays in this worker is not opened again
    close     after the assignment, what went to others; TableManager.on_stop when the worker ends
    stop      Worker._schedule_shutdown: tables, consumer (leaves the group, if it is to), web, producer, all in time
"""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

import aiokafka
import faust
from aiohttp.web import AppRunner
from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaConnectionError, KafkaError
from faust.app.base import App
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.transport.consumer import Fetcher, TransactionManager
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, AppT
from faust.types.tuples import ConsumerMessage
from faust.web.drivers.aiohttp import Web
from mode import Service

from streams.engine.fetch import FetchedRecords
from streams.engine.membership import end_membership
from streams.engine.openings import Openings
from streams.engine.provision import NoBroker, TopicsDiffer
from streams.engine.task import Record, Task
from streams.engine.transactions import OldBroker

if TYPE_CHECKING:
    from streams.engine.engine import Engine

USAGE = 2
"""Exit status of a worker that cannot work as it was started."""
LEAVE_SIGNAL = signal.SIGQUIT
"""Stop for good: leave the group, so that the others take over at once. Faust has SIGUSR1 and SIGUSR2 already."""
GARBAGE = (100_000, 20, 100)
"""How many more objects are made than let go before Python looks for garbage, and how often it looks among older ones.
What a transaction holds is tens of thousands that all live until the commit: with Python's own 700 a busy worker spends
a fifth of its time looking at them again and again."""
GATHER_S = 0.5
"""How long what is left running is waited for at the very end."""
REACHED_S = 3.0
"""How long the brokers may take to say where topics end."""
TELL_S = 2.0
"""How long the group's coordinator has to take note of how far the tasks are; the next time is soon."""
AGAIN_S = 1.0
"""Before what failed is tried again: an opening, the first connection to a broker."""
IDLE_S = 0.005
"""Pause before looking again whether a task wants records, when none does."""


class Part(NamedTuple):
    """What a batch has for one task: ``task`` is the incarnation it was fetched for, ``follows`` where the records
    before these ended."""

    task: Task
    follows: int
    records: Sequence[Record]


class Batch:
    """The records of one fetch from one topic, in the shape of one record: what Faust takes for an event, 60 us, is
    paid once a topic, however many partitions of it are ours."""

    __slots__ = ("_fetched", "offset", "partition", "parts", "timestamp", "topic")
    timestamp_type = 0
    headers = ()
    key = checksum = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, tp: TP, fetched: Sequence[tuple[int, Sequence[Record]]]) -> None:
        """``tp``: whose place in Faust's books it takes. ``fetched``: partition and records, at least of that one."""
        last = fetched[0][1][-1]
        self.topic, self.partition, self.offset, self.timestamp = tp.topic, tp.partition, last.offset, last.timestamp
        self.parts: list[Part] = []
        self._fetched = fetched

    @property
    def value(self) -> "Batch":
        return self

    def bind(self, tasks: Mapping[int, Task]) -> None:
        for partition, records in self._fetched:
            task = tasks.get(partition)
            if task is not None:
                self.parts.append(Part(task, task.fetched_to[self.topic], records))
                task.fetched_to[self.topic] = records[-1].offset + 1
                task.backlog[id(records)] = len(records)


class BatchScheduler:
    """Faust's ``ConsumerScheduler``: one item a topic instead of one a record."""

    def iterate(self, records: Mapping[TP, Sequence[Record]]) -> Iterator[tuple[TP, Batch]]:
        topics: dict[str, list[tuple[int, Sequence[Record]]]] = {}
        for tp, fetched in records.items():
            topics.setdefault(tp.topic, []).append((tp.partition, fetched))
        for topic, fetched_of_topic in topics.items():
            tp = TP(topic, fetched_of_topic[0][0])
            yield tp, Batch(tp, fetched_of_topic)


class TaskWorker(faust.Worker):
    """Stops on SIGTERM and SIGINT to come back, on ``LEAVE_SIGNAL`` for good."""

    @property
    def engine(self) -> "Engine":
        return cast(TaskTransport, self.app.transport).engine

    async def on_first_start(self) -> None:
        """Refuse to start in one sentence, before there is anything to stop."""
        await super().on_first_start()
        web = cast(Web, self.app.web)
        web._runner = AppRunner(web.web_app, access_log=None, shutdown_timeout=self.engine.settings.close_requests_s)
        try:
            await self.engine.prepare()
        except (NoBroker, OldBroker, TopicsDiffer) as exc:
            self._refuse(str(exc))
        except KafkaError as exc:
            self._refuse(f"Kafka does not answer as it should ({exc!r}): try again when it does.")
        gc.set_threshold(*GARBAGE)

    def execute_from_commandline(self) -> NoReturn:
        """A worker that Kafka leaves alone while it starts ends in one sentence, too."""
        try:
            super().execute_from_commandline()
        except SystemExit:
            if isinstance(self.crash_reason, KafkaError):
                self._refuse(f"Kafka is not there as it should be ({self.crash_reason!r}): start again when it is.")
            raise

    def _refuse(self, why: str) -> NoReturn:
        print(why, file=self.stderr)  # not sys.stderr: that is a log by now, and `-l error` would not show it
        raise SystemExit(USAGE) from None

    def install_signal_handlers(self) -> None:
        super().install_signal_handlers()
        self.loop.add_signal_handler(LEAVE_SIGNAL, self._leave)

    def _leave(self) -> None:
        self.engine.leaving = True
        self._flag_as_shutdown_by_signal()
        self._schedule_shutdown(LEAVE_SIGNAL)

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        """In time whatever happens: the broker may be away, and somebody read his answer a byte a second."""
        limit = threading.Timer(self.engine.settings.stop_s, self._cut_off)
        limit.daemon = True
        limit.start()
        super()._schedule_shutdown(signal)

    def _cut_off(self) -> None:
        self.log.warning("stopping takes too long, the rest is cut off")
        os._exit(0)

    def _gather_all(self) -> None:
        """Faust gives what is left a second to end by itself, which nothing of it does."""
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.wait(left, timeout=GATHER_S) if left else asyncio.sleep(0))

    async def _sentinel_task(self) -> None:
        """Faust sleeps for a second before it closes the event loop."""


class TaskConsumerThread(AIOKafkaConsumerThread):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetched = FetchedRecords()

    async def on_start(self) -> None:
        """A broker that goes away while the worker starts is waited for, as it is later: Faust would crash."""
        while not self.should_stop:
            try:
                await super().on_start()
                return
            except KafkaConnectionError as exc:
                self.log.warning("no broker answers, again in a second: %r", exc)
                await self._ensure_consumer().stop()
                self._consumer = None
                await asyncio.sleep(AGAIN_S)

    async def on_thread_stop(self) -> None:
        """The tasks are closed and committed by now: whoever takes over may begin."""
        if self._consumer is not None:
            await end_membership(self._consumer, leave=cast(TaskTransport, self.transport).engine.leaving)
        await super().on_thread_stop()

    def _create_worker_consumer(self, transport: Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = cast(TaskTransport, transport).engine.settings.fetch_max_wait_ms
        return consumer

    async def reached(self, partitions: Collection[TP]) -> dict[TP, tuple[int, int]]:
        """Of each: the position, and where what is committed ends."""
        return cast(dict[TP, tuple[int, int]], await self.call_thread(self._reached, partitions))

    async def _reached(self, partitions: Collection[TP]) -> dict[TP, tuple[int, int]]:
        """In time, for it holds one of two places from which everything else is asked of the consumer."""
        consumer = self._ensure_consumer()
        async with asyncio.timeout(REACHED_S):
            ends = await consumer.end_offsets([TopicPartition(*tp) for tp in partitions])
            return {TP(*tp): (await consumer.position(tp), end) for tp, end in ends.items()}

    async def tell_group(self, reached: Mapping[TP, int]) -> None:
        await self.call_thread(self._tell_group, reached)

    async def _tell_group(self, reached: Mapping[TP, int]) -> None:
        offsets = {TopicPartition(*tp): position for tp, position in reached.items()}
        try:
            async with asyncio.timeout(TELL_S):
                await self._ensure_consumer().commit(offsets)
        except (KafkaError, TimeoutError) as exc:  # out of date for a while, and nothing else
            self.log.debug("the group was not told how far its tasks are: %r", exc)

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109
        max_records: int | None = None,
    ) -> Any:
        """A record that cannot be decoded would end the worker, and every one that is started after it."""
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        with fetcher._subscriptions.fetch_context():
            return await self._fetched.take(fetcher, active_partitions, timeout or 0.0, max_records or sys.maxsize)


class TaskFetcher(Fetcher):
    @Service.task
    async def _fetcher(self) -> None:
        """Faust's own, stopped in a rebalance, asks a supervisor that it has not got, and crashes the worker."""
        try:
            await cast(Consumer, self.app.consumer)._drain_messages(self)
        finally:
            self.set_shutdown()


class TaskConsumer(Consumer):
    _fetch: "asyncio.Future[Any] | None" = None
    _more = False
    """Whether the last fetch brought as many records as one may."""

    @property
    def engine(self) -> "Engine":
        return cast(TaskTransport, self.transport).engine

    def is_member(self) -> bool:
        """False from the moment a heartbeat says that the group has expelled us until we have joined it again."""
        return bool(self._thread._ensure_consumer()._coordinator.member_id)

    def close(self) -> None:
        """Faust would close it from the wrong thread where a rebalance meets a worker that stops: see
        ``TaskConsumerThread.on_thread_stop``."""

    def rejoin(self) -> None:
        """Join the group once more, to tell the others of a new address. To be called in the consumer's thread."""
        self._thread._ensure_consumer()._coordinator.request_rejoin()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Tell the group how far its tasks are, for those who watch its lag; nobody reads on from there.

        Faust calls this every ``broker_commit_interval``. It is also when tasks look back at what they did last.
        """
        for task in self.engine.tasks.values():
            task.look_back()
        reached = {
            TP(topic, task.partition): position
            for task in self.engine.tasks.values()
            if task.alive
            for topic, position in task.committed_positions.items()
        }
        if reached and not self.app.rebalancing:
            await cast(TaskConsumerThread, self._thread).tell_group(reached)
        return True

    async def perform_seek(self) -> None:
        """Faust seeks by itself when records arrive while the flow is stopped; here only the recovery seeks."""

    async def reached(self, partitions: Collection[TP]) -> dict[TP, tuple[int, int]]:
        """Of each: the position, which steps over what is no record, and where what is committed ends."""
        return await cast(TaskConsumerThread, self._thread).reached(partitions)

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return TaskConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        """Fetch for the tasks that are not full; the others' records stay on the broker."""
        engine, active = self.engine, active_partitions or set()
        hungry = {tp for tp in active if (task := engine.tasks.get(tp.partition)) and self._is_hungry(task)}
        if not hungry:
            await asyncio.sleep(IDLE_S)
            return {}
        if engine.pace.pause_s and not self._more:
            await asyncio.sleep(engine.pace.pause_s)  # more comes with one fetch
        wait_s = engine.settings.poll_s if len(hungry) == len(active) else IDLE_S
        # a fetch left behind by a cancelled fetcher would swallow the records that follow a seek: see settle()
        self._fetch = asyncio.ensure_future(super()._getmany(hungry, wait_s))
        records = await asyncio.shield(self._fetch)
        self._more = sum(map(len, records.values())) >= engine.app.conf.broker_max_poll_records
        return records

    def _is_hungry(self, task: Task) -> bool:
        return task.alive and sum(task.backlog.values()) < self.engine.settings.backlog_records

    async def settle(self) -> None:
        """Wait for the fetch under way; only then may anybody seek."""
        if self._fetch is not None:
            await asyncio.wait([self._fetch])

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        record.bind(self.engine.tasks)
        return super()._to_message(tp, record)


class TaskTransactions(TransactionManager):
    """Where Faust commits and closes transactions, the tasks have done so; ``send`` is for views, outside any task."""

    @property
    def tables(self) -> "TaskTables":
        return cast(TaskTables, self.app.tables)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.tables.recovery.assigned = False
        await self.tables.give_up()

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]) -> None:
        await self.tables.give_up()
        self.tables.recovery.assigned = True

    async def commit(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        return True

    async def send(
        self, topic: str, key: Any, value: Any, partition: Any, timestamp: Any, headers: Any, **_: Any
    ) -> Any:
        """The plain producer: acks=all, idempotent, of no transaction."""
        return await self.producer.send(topic, key, value, partition, timestamp, headers)


class TaskTransport(Transport):
    Consumer = TaskConsumer
    Fetcher = TaskFetcher
    TransactionManager = TaskTransactions

    def __init__(self, url: Any, app: AppT, engine: "Engine") -> None:
        super().__init__(url, app)
        self.engine = engine
        engine.request_reset = self._request_reset

    def _request_reset(self, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._recovery.request_reset)

    @property
    def owned(self) -> frozenset[int]:
        """The partitions whose tasks are this worker's, open or not."""
        return self._recovery.owned

    def all_open(self) -> bool:
        recovery = self._recovery
        settled = recovery.completed.is_set() and not self.app.rebalancing and recovery.consumer.is_member()
        return settled and recovery.owned == self._alive()

    def _alive(self) -> set[int]:
        return {partition for partition, task in self.engine.tasks.items() if task.alive}

    @property
    def _recovery(self) -> "TaskRecovery":
        return cast(TaskTables, self.app.tables).recovery


class TaskRecovery(Recovery):
    """Opens tasks. Not in the rebalance callback: no heartbeats are sent there, and a restore may take longer than the
    session."""

    owned: frozenset[int] = frozenset()
    """The partitions whose tasks are this worker's."""
    assigned = True
    """False between revocation and assignment: what is ours is not known, and nothing is opened."""
    _opening: "asyncio.Future[None] | None" = None
    _reset_wanted = False
    _interruptions = 0

    @property
    def engine(self) -> "Engine":
        return cast(TaskTransport, self.app.transport).engine

    @property
    def consumer(self) -> TaskConsumer:
        return cast(TaskConsumer, self.app.consumer)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held_in: dict[int, int] = {}
        """Partition -> generation of the group in which its task was this worker's last."""
        self._openings = Openings(lambda partition: self.engine.open(partition), self.request_reset)

    def interrupt(self) -> None:
        """A rebalance or the end of the worker: what is being opened is not ours any more.

        Counted, because aiokafka swallows a cancellation here and there.
        """
        self._interruptions += 1
        self._reset_wanted = False
        self._openings.give_up()
        if self._opening is not None:
            self._opening.cancel()

    async def on_stop(self) -> None:
        self.interrupt()
        await self._openings.settle()
        await super().on_stop()

    def request_reset(self) -> None:
        """Open what is broken, after the opening under way: tasks that break in turn must not interrupt each other."""
        if self._opening is not None and not self._opening.done():
            self._reset_wanted = True
        else:
            self.signal_recovery_start.set()

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):  # type: ignore[arg-type]
                break
            self.signal_recovery_start.clear()
            self._opening = asyncio.ensure_future(self._open_tasks(self._generation_id))
            try:
                await self._wait(self._opening)
            except ServiceStopped:
                break
            except (RebalanceAgain, asyncio.CancelledError):
                self._opening.cancel()
            except Exception as exc:
                self.log.warning("opening tasks failed, again in a second: %r", exc)
                asyncio.get_running_loop().call_later(AGAIN_S, self.request_reset)
            finally:
                self._opening.cancel()
                await asyncio.wait([self._opening])
                if self._reset_wanted:
                    self._reset_wanted = False
                    self.signal_recovery_start.set()

    async def _open_tasks(self, generation: int) -> None:
        """Stop the flow, open what is ours and not open, seek every task to where it stands, resume.

        What takes long to open, or fails, joins the others later: this is run again then.
        """
        app, consumer, engine = cast(App, self.app), self.consumer, self.engine
        if not self.assigned or not consumer.is_member():
            return  # expelled: opening would fence the new owner; a rebalance follows
        began, interruptions = time.perf_counter(), self._interruptions
        consumer.stop_flow()
        app.flow_control.suspend()
        app.flow_control.clear()
        await app._stop_fetcher()
        await consumer.settle()
        stopped = time.perf_counter()
        assignment = consumer.assignment()
        self.owned = frozenset(tp.partition for tp in assignment if tp.topic == engine.anchor)
        await self._openings.settle()
        await self._close_broken()
        stay = await self._sort_out_suspended(generation)
        opened, failed = await self._openings.take(self.owned - engine.tasks.keys() - stay.keys())
        if app.consumer_generation_id != generation or self._interruptions != interruptions:
            await asyncio.gather(*(task.close(commit=False) for task in opened.values()))
            return
        for partition in stay:
            del engine.suspended[partition]
        engine.tasks.update(opened | stay)
        self.held_in |= dict.fromkeys(engine.tasks, generation)
        await self._seek(assignment)
        if self._interruptions != interruptions:
            return  # whoever interrupted has suspended the tasks
        for task in engine.tasks.values():
            if not task.goes:  # also one that was put there by an opening which was cut short in its seek
                task.start()
        if failed or not all(task.alive for task in stay.values()):
            # one that broke while it stood still has not asked for it
            asyncio.get_running_loop().call_later(AGAIN_S if failed else 0, self.request_reset)
        await self._resume()
        engine.watch.released()  # a row that was committed when its task broke came from the changelog, unannounced
        self.log.info(
            "tasks %s open, of them now %s: stopped in %.0f ms, opened in %.0f ms",
            sorted(engine.tasks),
            sorted(opened),
            1e3 * (stopped - began),
            1e3 * (time.perf_counter() - stopped),
        )
        await self._close_suspended()

    async def _sort_out_suspended(self, generation: int) -> dict[int, Task]:
        """Those that stay: nobody else can have had them if this generation follows on the one that they were ours in.
        What is ours and has to be opened anew is closed; what is not ours can wait until the others go on."""
        suspended = self.engine.suspended
        stay = {
            partition: task
            for partition, task in suspended.items()
            if task.alive and partition in self.owned and self.held_in[partition] == generation - 1
        }
        await self._close_suspended(self.owned - stay.keys())
        return stay

    async def _close_suspended(self, partitions: Collection[int] | None = None) -> None:
        """All, or those of these partitions. They are on record until they are closed, for this may be cancelled."""
        suspended = self.engine.suspended
        closed = [p for p in suspended if partitions is None or p in partitions]
        await asyncio.gather(*(suspended[partition].close(commit=False) for partition in closed))
        for partition in closed:
            suspended.pop(partition, None)

    async def _close_broken(self) -> None:
        """Drop what is broken or not ours. Healthy tasks go on: they know themselves where to read next."""
        tasks = self.engine.tasks
        for partition, task in list(tasks.items()):
            if not task.alive or partition not in self.owned:
                del tasks[partition]
                await task.close(commit=False)

    async def _seek(self, assignment: set[TP]) -> None:
        """Only while the fetcher stands still: a seek under a running one loses or repeats records."""
        engine = self.engine
        sources = {tp for tp in assignment if tp.topic in engine.sources and tp.partition in engine.tasks}
        self.consumer.resume_partitions(sources)
        offsets = {}
        for tp in sources:
            task = engine.tasks[tp.partition]
            task.backlog.clear()
            offsets[tp] = task.fetched_to[tp.topic] = task.next_offsets[tp.topic]
        if offsets:
            await self.consumer.seek_wait(offsets)

    async def _resume(self) -> None:
        app = cast(App, self.app)
        self.completed.set()
        app.flow_control.resume()
        self.consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        if app.rebalancing:
            app.on_rebalance_end()


class TaskTables(TableManager):
    @property
    def engine(self) -> "Engine":
        return cast(TaskTransport, self.app.transport).engine

    @property
    def recovery(self) -> TaskRecovery:
        if self._recovery is None:
            self._recovery = TaskRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast(TaskRecovery, self._recovery)

    async def on_start(self) -> None:
        """The topics are there before the conductor subscribes to them: it waits for the tables to be registered."""
        await self.engine.prepare()
        await self._update_channels()
        await self.recovery.start()

    async def _update_channels(self) -> None:
        """Faust would subscribe to the changelogs, fetch them and hold them in memory; the engine restores them."""
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()

    async def give_up(self) -> None:
        """The partitions are revoked: commit what was applied and stand still, for most of them will stay here."""
        self.recovery.interrupt()
        await self.engine.suspend_all()

    async def on_stop(self) -> None:
        """The worker ends: commit what was applied, release everything. Nothing may be opened meanwhile: it would fence
        those that commit."""
        await self.recovery.stop()
        await self.engine.close_all()
        self.engine.watch.stopped()
        await super().on_stop()
