"""Faust's transport: it holds the engine and names the engine's consumer, fetcher and transaction manager.

Every name of Faust or aiokafka that this package overrides or relies on has a test, which fails when a new version
drops the name. Everything is plugged in through settings (``exactly_once``) and ``app.transport``; Faust is unchanged.

    open      Recovery._restart_recovery, after an assignment and after a task broke: one procedure for both
    suspend   TransactionManager.on_partitions_revoked and on_rebalance: a task that stays here is not opened again
    close     after the assignment, tasks that moved away; TableManager.on_stop when the worker ends
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, cast

from faust.transport.consumer import TransactionManager
from faust.transport.drivers.aiokafka import Transport
from faust.types import TP, AppT

from exactly_once.faust.consumer import POSITIONS_TIMEOUT_S, TaskConsumer, TaskFetcher
from exactly_once.faust.host import TaskHost, alive_partitions
from exactly_once.faust.recovery import TaskRecovery
from exactly_once.faust.tables import TaskTables


class TaskTransactions(TransactionManager):
    """Faust's hooks for its own transactions. The tasks commit by themselves; ``send`` is for views, outside tasks."""

    @property
    def tables(self) -> TaskTables:
        return cast(TaskTables, self.app.tables)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.tables.recovery.assigned = False
        await self.tables.suspend()

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]) -> None:
        await self.tables.suspend()
        self.tables.recovery.assigned = True

    async def commit(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        return True

    async def send(
        self, topic: str, key: Any, value: Any, partition: Any, timestamp: Any, headers: Any, **_: Any
    ) -> Any:
        """Send with the plain producer: acks=all, idempotent, outside any transaction."""
        return await self.producer.send(topic, key, value, partition, timestamp, headers)


class TaskTransport(Transport):
    Consumer = TaskConsumer
    Fetcher = TaskFetcher
    TransactionManager = TaskTransactions

    def __init__(self, url: Any, app: AppT, host: TaskHost) -> None:
        super().__init__(url, app)
        self.host = host

    def request_reset(self, delay_s: float) -> None:
        """Have broken tasks opened again, after ``delay_s`` seconds."""
        asyncio.get_running_loop().call_later(delay_s, self._recovery.request_reset)

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that the group has assigned to this worker, open or not."""
        return self._recovery.owned

    def all_open(self) -> bool:
        """Return whether this worker is in the group and every task that it owns is open."""
        recovery = self._recovery
        settled = recovery.completed.is_set() and not self.app.rebalancing and recovery.consumer.is_member()
        return settled and recovery.owned == set(alive_partitions(self.host))

    async def positions_and_ends(self, partitions: Collection[TP]) -> dict[TP, tuple[int, int]]:
        """Return (position, end of what is committed) of each source partition. ``TimeoutError`` without a broker."""
        async with asyncio.timeout(POSITIONS_TIMEOUT_S):
            return await cast(TaskConsumer, self.app.consumer).positions_and_ends(partitions) if partitions else {}

    @property
    def _recovery(self) -> TaskRecovery:
        return cast(TaskTables, self.app.tables).recovery
