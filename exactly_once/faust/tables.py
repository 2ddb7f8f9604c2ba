"""Faust's tables: the manager, which opens and closes the tasks instead of reading changelogs, and the store."""

from collections.abc import Iterator
from typing import Any, cast

from faust.stores.base import Store
from faust.tables.manager import TableManager
from faust.types import TP

from exactly_once.faust.host import TaskHost, host_of
from exactly_once.faust.recovery import TaskRecovery


class TaskTables(TableManager):
    @property
    def host(self) -> TaskHost:
        return host_of(self.app)

    @property
    def recovery(self) -> TaskRecovery:
        if self._recovery is None:
            self._recovery = TaskRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast(TaskRecovery, self._recovery)

    async def on_start(self) -> None:
        """Prepare the topics before the conductor subscribes to them: it waits for the tables to be registered."""
        await self.host.prepare()
        await self._update_channels()
        await self.recovery.start()

    async def _update_channels(self) -> None:
        """Register the tables without their changelogs: the engine restores them, not Faust."""
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()

    async def suspend(self) -> None:
        """Commit what was applied and suspend every task: the partitions are revoked, but most of them stay here."""
        self.recovery.cancel_opening()
        await self.host.suspend_all()

    async def on_stop(self) -> None:
        """Commit what was applied and close every task, because the worker ends.

        The recovery stops first: a task opened meanwhile would fence those that commit.
        """
        await self.recovery.stop()
        await self.host.close_all()
        self.host.watch.stopped()
        await super().on_stop()


class TaskStore(Store[bytes, bytes]):
    """The committed rows of the tasks open in this worker, as a Faust table shows them. Only tasks write rows."""

    @property
    def host(self) -> TaskHost:
        return host_of(self.app)

    def __getitem__(self, key: bytes) -> bytes:
        value = self.host.find(self.table_name, key)
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[bytes]:
        return (key for _, key, _ in self.host.scan(self.table_name, limit=None))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        raise TypeError(f"the table {self.table_name} is written through a task: task.put(...)")

    def __delitem__(self, key: bytes) -> None:
        raise TypeError(f"the table {self.table_name} is written through a task: task.put(..., None)")

    def persisted_offset(self, tp: TP) -> int | None:
        """Return None: Faust restores nothing, the engine does."""
        return None

    def apply_changelog_batch(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("tables are restored by the engine")

    def reset_state(self) -> None:
        """Do nothing: the rows belong to the tasks."""

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a table's backup is its changelog topic")

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a table's backup is its changelog topic")
