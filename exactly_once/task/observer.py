"""``Observer``: what a worker may measure of its tasks. The engine calls it and reads nothing back.

A commit is reported once it is on disk and published, with everything that it contained: so an observer counts what has
happened, and not what a handler decided and rolled back. Observers run in the event loop, so they must be quick. If
one raises, the engine logs the error and goes on: a measurement must not break the task that it measures.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from exactly_once.calls.interfaces import CallOutcome
from exactly_once.task.transaction import PendingTransaction

log = logging.getLogger(__name__)

FAILURES = "observer_failures"
"""Counter of the errors of observers and of callbacks after a commit."""


def tell(counters: Counter[str], function: Callable[..., None], *what: object) -> None:
    """Call a function that only listens; log the first error and count all: what happened has happened."""
    try:
        function(*what)
    except Exception:
        if not counters[FAILURES]:
            log.exception("a listener of the tasks failed; further failures are only counted (%s)", FAILURES)
        counters[FAILURES] += 1


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


class GuardedObserver:
    """Observer that passes everything on to another one, and outlives its errors."""

    def __init__(self, observer: Observer, counters: Counter[str]) -> None:
        self._observer = observer
        self._counters = counters

    def committed(self, commit: Commit) -> None:
        """Record a transaction that is committed."""
        tell(self._counters, self._observer.committed, commit)

    def timer_fired(self, late_ms: int) -> None:
        """Record that a timer fired so many milliseconds after it was due."""
        tell(self._counters, self._observer.timer_fired, late_ms)

    def restored(self, records: int, took_s: float) -> None:
        """Record that a task is restored."""
        tell(self._counters, self._observer.restored, records, took_s)

    def call_ended(self, request: bytes, took_s: float, outcome: CallOutcome) -> None:
        """Record one attempt of a call."""
        tell(self._counters, self._observer.call_ended, request, took_s, outcome)
