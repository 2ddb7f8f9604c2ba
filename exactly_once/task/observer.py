"""``Observer``: what a worker may measure of its tasks. The engine calls it and reads nothing back.

A commit is reported once it is on disk and published, with everything that it contained: so an observer counts what has
happened, and not what a handler decided and rolled back. Observers run in the event loop: they must be quick and must
not raise.
"""

from typing import NamedTuple, Protocol

from exactly_once.calls.interfaces import CallOutcome
from exactly_once.task.transaction import PendingTransaction


class Commit(NamedTuple):
    """One committed transaction of a task."""

    partition: int
    changes: PendingTransaction
    took_s: float
    """Time from the first record produced until RocksDB and the indexes had the changes."""
    now_ms: int
    clock_ahead_ms: int | None
    """Milliseconds by which the task's clock was ahead of the broker's, and the time of its answer. None if the
    transaction changed no row."""


class Observer(Protocol):
    """Listener of the tasks and calls of one worker."""

    def committed(self, commit: Commit) -> None:
        """Record a transaction that is committed."""
        ...

    def timer_fired(self, late_ms: int) -> None:
        """Record that a timer fired so many milliseconds after it was due."""
        ...

    def restored(self, records: int, took_s: float) -> None:
        """Record that a task is restored: changelog records read, and the time from the assignment on."""
        ...

    def call_ended(self, request: bytes, took_s: float, outcome: CallOutcome) -> None:
        """Record one attempt of a call. Its answer may still be rolled back."""
        ...


class NoObserver:
    """Observer that records nothing."""

    def committed(self, commit: Commit) -> None: ...
    def timer_fired(self, late_ms: int) -> None: ...
    def restored(self, records: int, took_s: float) -> None: ...
    def call_ended(self, request: bytes, took_s: float, outcome: CallOutcome) -> None: ...
