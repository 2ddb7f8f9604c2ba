"""The tasks of one worker: apply batches, break, suspend and close.

    apply     a batch to its task, in slices, so that other tasks run in between
    break     drop a task's memory, and have it opened again after a back-off
    suspend   commit and stop, until the assignment decides which worker goes on
    close     release everything

This module knows neither Faust nor Kafka.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NoReturn

from exactly_once.calls.interfaces import Performer
from exactly_once.calls.runner import CallRunner
from exactly_once.settings import EngineSettings
from exactly_once.task.commit_pacing import CommitPacer
from exactly_once.task.commit_waiters import CommitWaiters
from exactly_once.task.context import LetterSigner
from exactly_once.task.failpoints import parse_failpoints
from exactly_once.task.indexes import IndexFactory
from exactly_once.task.interfaces import Clock, Record
from exactly_once.task.observer import GuardedObserver, NoObserver, Observer
from exactly_once.task.state import TaskState
from exactly_once.task.task import Task, WallClock

log = logging.getLogger(__name__)

Handler = Callable[[Task, Record], None]
TimerHandler = Callable[[Task, bytes, bytes], None]
ResultHandler = Callable[[Task, bytes, bytes, bytes], None]


class LostRecords(Exception):
    """A batch follows records that never reached the task: the agent that held them was restarted in between."""


class TaskManager:
    """The tasks of one worker, and everything that they share (``TaskContext``).

    ``partitioner`` maps (key, number of partitions) to a partition, for every topic and table alike. ``clock`` makes
    the clock of a task that opens.
    """

    def __init__(
        self,
        settings: EngineSettings,
        partitions: int,
        dead_letters: str,
        partitioner: Callable[[bytes, int], int],
        session_timeout_s: float,
        clock: Callable[[], Clock] = WallClock,
    ) -> None:
        self.settings = settings
        self.partitions = partitions
        self.dead_letters = dead_letters
        self.partitioner = partitioner
        self.session_timeout_s = session_timeout_s
        self.clock = clock
        self.changelogs: dict[str, str] = {}
        """Table -> its changelog topic."""
        self.sources: list[str] = []
        self.handlers: dict[str, Handler] = {}
        """Source topic -> handler of its records."""
        self.outputs: dict[str, int] = {dead_letters: partitions}
        """Every topic a handler may emit to -> its number of partitions."""
        self.index_factories: dict[str, IndexFactory] = {}
        self.timer_handler: TimerHandler = _no_handler("timer", "on_timer")
        self.result_handler: ResultHandler = _no_handler("result of a call", "on_result")
        self.letter_signer: LetterSigner | None = None
        self.performer: Performer | None = None
        self._observer: Observer = NoObserver()
        """Listener of the tasks; set it before the worker starts."""
        self.tasks: dict[int, Task] = {}
        self.suspended: dict[int, Task] = {}
        """Suspended tasks: the next assignment decides whether they stay in this worker."""
        self.counters: Counter[str] = Counter()
        self.resets: Counter[int] = Counter()
        """Partition -> how often its task broke in this worker."""
        self.restoring: dict[int, int] = {}
        """Partition of a task that is being restored -> changelog records to read."""
        self.watch = CommitWaiters()
        self.pace = CommitPacer(settings.commit_gap_ms, settings.commit_gap_most_ms)
        self.leaving = settings.leave_on_stop
        """True if this worker leaves the group when it stops."""
        self.failpoint = parse_failpoints(settings.failpoints)
        self.calls = CallRunner(
            settings,
            clock(),
            performer=lambda: self.performer,
            on_end=lambda *attempt: self.observer.call_ended(*attempt),
        )
        self.request_reset: Callable[[float], None] = lambda delay_s: None
        """Called when a task broke, with the seconds after which to open it again."""
        self._failures: defaultdict[int, int] = defaultdict(int)

    @property
    def observer(self) -> Observer:
        """The listener of the tasks. An error of it is logged and counted, and breaks nothing."""
        return self._observer

    @observer.setter
    def observer(self, observer: Observer) -> None:
        self._observer = GuardedObserver(observer, self.counters)

    @property
    def tables(self) -> Sequence[str]:
        return list(self.changelogs)

    def partition_of(self, key: bytes) -> int:
        """Return the partition of the task that owns this key's rows."""
        return self.partitioner(key, self.partitions)

    # -- records ----------------------------------------------------------------------------------------------------

    async def apply(self, task: Task, follows: int, records: Sequence[Record], handler: Handler) -> None:
        """Apply one batch, fetched from one partition for this task; ``follows`` is the offset after the batch before.

        Never raises: Faust would restart a raising agent at the *next* batch and lose this one. For the same reason, a
        batch that does not follow the last applied record breaks the task, which then reads again from there.
        """
        topic = records[0].topic
        try:
            if task.alive and task.next_offsets[topic] < follows:
                raise LostRecords(
                    f"{topic}: applied to {task.next_offsets[topic]}, the next batch follows on {follows}"
                )
            await self._apply(task, topic, records, handler)
        except Exception as exc:
            self.break_task(task, exc)
        except asyncio.CancelledError:
            self.break_task(task, LostRecords(f"{topic}: the agent was stopped within a batch"))
            raise
        finally:
            task.backlog.pop(id(records), None)

    async def _apply(self, task: Task, topic: str, records: Sequence[Record], handler: Handler) -> None:
        slice_end = time.perf_counter() + self.settings.slice_s
        for record in records:
            if not task.accepts_work:
                return
            if record.offset < task.next_offsets[topic]:
                continue  # applied before a seek
            task.apply(record, handler)
            self.counters["records"] += 1
            if time.perf_counter() > slice_end or task.is_full:
                task.request_commit()
                await task.wait_for_capacity()
                await asyncio.sleep(0)
                slice_end = time.perf_counter() + self.settings.slice_s
        task.request_commit()

    # -- breaking, opening again, closing ---------------------------------------------------------------------------

    def break_task(self, task: Task, exc: BaseException) -> None:
        """Drop everything the task has in memory, and have it opened again from what is committed.

        A suspended task is not opened again here: the next assignment decides its owner.
        """
        if not task.alive:
            return
        was_suspended = task.state is TaskState.SUSPENDED
        task.mark_broken()
        if was_suspended:
            log.warning("task %d broke while it was suspended: %r", task.partition, exc, extra=_about(task))
            return
        self.counters["resets"] += 1
        self.resets[task.partition] += 1
        steady = task.commits >= self.settings.steady_commits
        self._failures[task.partition] = 1 if steady else self._failures[task.partition] + 1
        backoff = self.settings.reopen_backoff_s
        delay_s = backoff[min(self._failures[task.partition], len(backoff)) - 1]
        log.warning("task %d broken, opened again in %g s: %r", task.partition, delay_s, exc, extra=_about(task))
        self.request_reset(delay_s)

    async def suspend_all(self) -> None:
        """Suspend every task. Views do not see a task until it is started again."""
        self.suspended |= self.tasks
        tasks = list(self.tasks.values())
        self.tasks = {}
        await asyncio.gather(*(task.suspend() for task in tasks))
        self.watch.released()

    async def close_all(self, *, commit: bool = True) -> None:
        """Close every task; with ``commit``, after it has committed what it has applied."""
        tasks = [*self.tasks.values(), *self.suspended.values()]
        self.tasks = {}
        self.suspended = {}
        await asyncio.gather(*(task.close(commit=commit) for task in tasks))
        self.watch.released()


def _about(task: Task) -> dict[str, int]:
    """Return the attributes of a log record about a task."""
    return {"partition": task.partition}


def _no_handler(what: str, decorator: str) -> Callable[..., NoReturn]:
    def refuse(*_: object) -> NoReturn:
        raise LookupError(f"no handler for a {what}: decorate a function with engine.{decorator}")

    return refuse
