"""The engine as Faust's side of a worker sees it, and the way to it.

Faust makes the worker, the consumer and the tables itself and gives each of them the app alone. The app has a
transport, and the engine hands itself to that transport once.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from faust.types import AppT

from exactly_once.settings import EngineSettings
from exactly_once.task.commit_pacing import CommitPacer
from exactly_once.task.commit_waiters import CommitWaiters
from exactly_once.task.task import Task


class TaskHost(Protocol):
    """The engine, as Faust's side of a worker uses it."""

    settings: EngineSettings
    anchor: str
    sources: list[str]
    tasks: dict[int, Task]
    suspended: dict[int, Task]
    watch: CommitWaiters
    pace: CommitPacer
    leaving: bool

    async def prepare(self) -> None:
        """Check or create the topics, before anything is consumed."""
        ...

    async def open(self, partition: int) -> Task:
        """Open the task of a partition that the group has assigned to this worker."""
        ...

    async def suspend_all(self) -> None: ...
    async def close_all(self, *, commit: bool = True) -> None: ...
    def find(self, table: str, key: bytes) -> bytes | None: ...
    def scan(self, table: str, *, limit: int | None) -> Iterator[tuple[int, bytes, bytes]]: ...


class _HasHost(Protocol):
    host: TaskHost


def host_of(app: AppT) -> TaskHost:
    """Return the engine of this app."""
    return cast(_HasHost, app.transport).host


def alive_partitions(host: TaskHost) -> Sequence[int]:
    """Return the partitions whose tasks are open and not broken."""
    return [partition for partition, task in host.tasks.items() if task.alive]
