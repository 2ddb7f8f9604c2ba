"""``TaskContext``: the worker, as far as a task needs it.

    declared   tables, changelogs, indexes, outputs, dead letters, handlers
    shared     calls, waiters, commit pacing, counters, failpoints, settings
    reported   ``break_task``: the task is broken; ``observer``: what it did

``TaskManager`` provides all of it. A task knows this protocol alone.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from exactly_once.calls.interfaces import Performer
from exactly_once.calls.runner import CallRunner
from exactly_once.settings import EngineSettings
from exactly_once.task.commit_pacing import CommitPacer
from exactly_once.task.commit_waiters import CommitWaiters
from exactly_once.task.failpoints import Failpoint
from exactly_once.task.indexes import IndexFactory
from exactly_once.task.observer import Observer

TaskT = TypeVar("TaskT")
LetterSigner = Callable[[int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]], bytes]
"""(partition, key, value, headers) of a dead letter -> value of its header ``dead-letter.signature``."""


class TaskContext(Protocol[TaskT]):
    """Things that the tasks of one worker share. ``TaskT`` is the class of the tasks."""

    settings: EngineSettings
    dead_letters: str
    """Topic of the dead letters."""
    session_timeout_s: float
    """Time after which the group expels a silent worker."""
    partitioner: Callable[[bytes, int], int]
    """(key, number of partitions) -> partition."""
    changelogs: dict[str, str]
    """Table -> its changelog topic."""
    outputs: dict[str, int]
    """Topic that a handler may emit to -> its number of partitions."""
    index_factories: dict[str, IndexFactory]
    """Table -> factory of its index."""
    timer_handler: Callable[[TaskT, bytes, bytes], None]
    """Called with (task, timer id, payload)."""
    result_handler: Callable[[TaskT, bytes, bytes, bytes], None]
    """Called with (task, call id, request, result)."""
    letter_signer: LetterSigner | None
    """Function that proves that a task wrote a dead letter; None: letters carry no proof."""
    performer: Performer | None
    calls: CallRunner
    watch: CommitWaiters
    pace: CommitPacer
    counters: Counter[str]
    failpoint: Failpoint
    observer: Observer

    @property
    def tables(self) -> Sequence[str]:
        """Names of all tables."""
        ...

    def partition_of(self, key: bytes) -> int:
        """Return the partition of the task that owns this key's rows."""
        ...

    def break_task(self, task: TaskT, exc: BaseException) -> None:
        """Give the task up, because of this error."""
        ...
