"""Faust's consumer, which fetches for the tasks that want records, and its thread, which talks to the group.

fetch     TaskConsumer._getmany -> FetchedRecords -> BatchScheduler -> _to_message binds batches to tasks
"""

import asyncio
import sys
from collections.abc import Collection, Mapping
from typing import Any, cast

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaConnectionError, KafkaError
from faust.transport.consumer import Fetcher
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from exactly_once.faust.host import TaskHost, host_of
from exactly_once.kafka.fetch import FetchedRecords
from exactly_once.kafka.membership import end_membership
from exactly_once.task.task import Task

POSITIONS_TIMEOUT_S = 3.0
"""Limit of the wait for the brokers' end offsets."""
GROUP_COMMIT_TIMEOUT_S = 2.0
"""Limit of the wait for the group's coordinator to store the offsets; the next commit follows soon."""
CONNECT_RETRY_S = 1.0
"""Pause between attempts to reach a first broker."""
IDLE_S = 0.005
"""Pause before the consumer looks again for a task that wants records."""


class TaskConsumerThread(AIOKafkaConsumerThread):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetched = FetchedRecords()

    async def on_start(self) -> None:
        """Wait for a broker that goes away while the worker starts; Faust would crash."""
        while not self.should_stop:
            try:
                await super().on_start()
                return
            except KafkaConnectionError as exc:
                self.log.warning("no broker answers, again in a second: %r", exc)
                await self._ensure_consumer().stop()
                self._consumer = None
                await asyncio.sleep(CONNECT_RETRY_S)

    async def on_thread_stop(self) -> None:
        """End the membership. The tasks are closed and committed by now, so the next owners may begin."""
        if self._consumer is not None:
            await end_membership(self._consumer, leave=host_of(self.transport.app).leaving)
        await super().on_thread_stop()

    def _create_worker_consumer(self, transport: Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = host_of(transport.app).settings.fetch_max_wait_ms
        return consumer

    async def positions_and_ends(self, partitions: Collection[TP]) -> dict[TP, tuple[int, int]]:
        """Return (position, end of what is committed) of each partition."""
        return cast(dict[TP, tuple[int, int]], await self.call_thread(self._positions_and_ends, partitions))

    async def _positions_and_ends(self, partitions: Collection[TP]) -> dict[TP, tuple[int, int]]:
        # with a limit: this call holds one of the two places from which the consumer takes every other call
        consumer = self._ensure_consumer()
        async with asyncio.timeout(POSITIONS_TIMEOUT_S):
            ends = await consumer.end_offsets([TopicPartition(*tp) for tp in partitions])
            return {TP(*tp): (await consumer.position(tp), end) for tp, end in ends.items()}

    async def commit_group_offsets(self, positions: Mapping[TP, int]) -> None:
        """Commit the positions to the consumer group. A failure is logged alone: only the lag is stale then."""
        await self.call_thread(self._commit_group_offsets, positions)

    async def _commit_group_offsets(self, positions: Mapping[TP, int]) -> None:
        offsets = {TopicPartition(*tp): position for tp, position in positions.items()}
        try:
            async with asyncio.timeout(GROUP_COMMIT_TIMEOUT_S):
                await self._ensure_consumer().commit(offsets)
        except (KafkaError, TimeoutError) as exc:
            self.log.debug("the offsets of the tasks were not committed to the group: %r", exc)

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109
        max_records: int | None = None,
    ) -> Any:
        """Take what was fetched. With aiokafka's own method a record that cannot be decoded would end the worker, and
        every worker started after it."""
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
        """Drain messages. Faust's own method asks, when stopped in a rebalance, a supervisor that does not exist, and
        crashes the worker."""
        try:
            await cast(Consumer, self.app.consumer)._drain_messages(self)
        finally:
            self.set_shutdown()


class TaskConsumer(Consumer):
    _fetch: "asyncio.Future[Any] | None" = None
    _is_fetch_full = False
    """True if the last fetch brought as many records as one fetch may."""

    @property
    def host(self) -> TaskHost:
        return host_of(self.transport.app)

    def is_member(self) -> bool:
        """Return whether this worker is in the group: False from a heartbeat that reports the expulsion until the next
        join."""
        return bool(self._thread._ensure_consumer()._coordinator.member_id)

    def close(self) -> None:
        """Do nothing. In a rebalance of a worker that stops, Faust would close the consumer from the wrong thread: see
        ``TaskConsumerThread.on_thread_stop``."""

    def rejoin(self) -> None:
        """Join the group once more, to give the others a new URL. Call this in the consumer's thread."""
        self._thread._ensure_consumer()._coordinator.request_rejoin()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit the tasks' positions to the group, for monitoring alone: no task resumes from there.

        Faust calls this every ``broker_commit_interval``. The tasks verify their last commit at that time, too.
        """
        for task in self.host.tasks.values():
            task.verify_last_commit()
        positions = {
            TP(topic, task.partition): position
            for task in self.host.tasks.values()
            if task.alive
            for topic, position in task.committed_positions.items()
        }
        if positions and not self.app.rebalancing:
            await cast(TaskConsumerThread, self._thread).commit_group_offsets(positions)
        return True

    async def perform_seek(self) -> None:
        """Do nothing: only the recovery seeks. Faust would seek when records arrive while the flow is stopped."""

    async def positions_and_ends(self, partitions: Collection[TP]) -> dict[TP, tuple[int, int]]:
        """Return (position, end of what is committed) of each partition; a position steps over transaction markers and
        aborted records."""
        return await cast(TaskConsumerThread, self._thread).positions_and_ends(partitions)

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return TaskConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        """Fetch for the tasks that are not full; the records of the others stay on the broker."""
        host, active = self.host, active_partitions or set()
        wanted = {tp for tp in active if (task := host.tasks.get(tp.partition)) and self._wants_records(task)}
        if not wanted:
            await asyncio.sleep(IDLE_S)
            return {}
        if host.pace.pause_s and not self._is_fetch_full:
            await asyncio.sleep(host.pace.pause_s)  # one fetch then brings more
        wait_s = host.settings.poll_s if len(wanted) == len(active) else IDLE_S
        # a fetch that outlived its cancelled fetcher would swallow the records after a seek: see wait_for_fetch()
        self._fetch = asyncio.ensure_future(super()._getmany(wanted, wait_s))
        records = await asyncio.shield(self._fetch)
        self._is_fetch_full = sum(map(len, records.values())) >= self.transport.app.conf.broker_max_poll_records
        return records

    def _wants_records(self, task: Task) -> bool:
        return task.alive and sum(task.backlog.values()) < self.host.settings.backlog_records

    async def wait_for_fetch(self) -> None:
        """Wait for the fetch under way; a seek is safe only after it."""
        if self._fetch is not None:
            await asyncio.wait([self._fetch])

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        record.bind(self.host.tasks)
        return super()._to_message(tp, record)
