"""What the tasks of one worker share, and how they are applied to, broken and closed. No Faust and no Kafka here."""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NoReturn

from streams.engine.calls import CallRunner, Performer
from streams.engine.failpoints import from_environment
from streams.engine.indexes import IndexFactory
from streams.engine.pace import Pace
from streams.engine.settings import EngineSettings
from streams.engine.task import Clock, Record, Task, WallClock
from streams.engine.watch import Watch

log = logging.getLogger(__name__)

Handler = Callable[[Task, Record], None]
TimerHandler = Callable[[Task, bytes, bytes], None]
ResultHandler = Callable[[Task, bytes, bytes, bytes], None]


class LostRecords(Exception):
    """A batch follows on records that never reached the task: whoever had them was restarted in between."""


class Core:
    """``partitioner`` maps (key, number of partitions) to a partition, for every topic and table alike; ``clock`` makes
    the clock of a task that opens."""

    def __init__(
        self,
        settings: EngineSettings,
        partitions: int,
        dead_letters: str,
        partitioner: Callable[[bytes, int], int],
        session_timeout_s: float,
        clock: Callable[[], Clock] = WallClock,
    ) -> None:
        self.settings, self.partitions, self.dead_letters = settings, partitions, dead_letters
        self.partitioner, self.session_timeout_s, self.clock = partitioner, session_timeout_s, clock
        self.changelogs: dict[str, str] = {}
        """Table -> its changelog topic."""
        self.sources: list[str] = []
        self.handlers: dict[str, Handler] = {}
        """Source topic -> what applies its records."""
        self.outputs: dict[str, int] = {dead_letters: partitions}
        """Every topic a handler may emit to -> its number of partitions."""
        self.index_factories: dict[str, IndexFactory] = {}
        self.timer_handler: TimerHandler = _no_handler("timer", "on_timer")
        self.result_handler: ResultHandler = _no_handler("result of a call", "on_result")
        self.performer: Performer | None = None
        self.tasks: dict[int, Task] = {}
        self.suspended: dict[int, Task] = {}
        """Tasks that stand still while it is decided whether they stay here."""
        self.counters: Counter[str] = Counter()
        self.resets: Counter[int] = Counter()
        """Partition -> how often its task broke in this worker."""
        self.watch = Watch()
        self.pace = Pace(settings.commit_gap_ms, settings.commit_gap_most_ms)
        self.leaving = settings.leave_on_stop
        """Whether this worker is not to come back when it stops."""
        self.failpoint = from_environment()
        self.calls = CallRunner(
            settings,
            clock(),
            performer=lambda: self.performer,
            failpoint=lambda task, name: self.failpoint(name, task.cut),
            broken=self.break_task,
        )
        self.request_reset: Callable[[float], None] = lambda delay_s: None
        """Called when a task broke: open it again after so many seconds."""
        self._failures: defaultdict[int, int] = defaultdict(int)

    @property
    def tables(self) -> Sequence[str]:
        return list(self.changelogs)

    def partition_of(self, key: bytes) -> int:
        """The task that a key's rows live in."""
        return self.partitioner(key, self.partitions)

    # -- records ----------------------------------------------------------------------------------------------------

    async def apply(self, task: Task, follows: int, records: Sequence[Record], handler: Handler) -> None:
        """Apply one batch, fetched from one partition for this task; ``follows`` is where the batch before it ended.

        Never raises: Faust would restart a raising agent at the *next* batch, and this one would be lost. For the same
        reason a batch that does not follow on what was applied breaks the task, which then reads again from there.
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
            if not task.alive or task.closing:
                return
            if record.offset < task.next_offsets[topic]:
                continue  # applied before a seek
            task.apply(record, handler)
            self.counters["records"] += 1
            if time.perf_counter() > slice_end or task.full:
                task.touch()
                await task.room()
                await asyncio.sleep(0)
                slice_end = time.perf_counter() + self.settings.slice_s
        task.touch()

    # -- breaking, opening again, closing ---------------------------------------------------------------------------

    def break_task(self, task: Task, exc: BaseException) -> None:
        """Give up everything the task holds in memory and have it opened again from what is committed.

        One that is being closed is not opened again here: whoever owns it next opens it.
        """
        if not task.alive:
            return
        task.drop()
        if task.closing:
            log.warning("task %d broken while it was closed: %r", task.partition, exc)
            return
        self.counters["resets"] += 1
        self.resets[task.partition] += 1
        steady = task.commits >= self.settings.steady_commits
        self._failures[task.partition] = 1 if steady else self._failures[task.partition] + 1
        backoff = self.settings.reopen_backoff_s
        delay_s = backoff[min(self._failures[task.partition], len(backoff)) - 1]
        log.warning("task %d broken, opened again in %g s: %r", task.partition, delay_s, exc)
        self.request_reset(delay_s)

    async def suspend_all(self) -> None:
        """Have every task commit what it has applied and stand still; until it is started again nobody here sees it."""
        self.suspended |= self.tasks
        tasks, self.tasks = list(self.tasks.values()), {}
        await asyncio.gather(*(task.suspend() for task in tasks))
        self.watch.released()

    async def close_all(self, *, commit: bool = True) -> None:
        tasks, self.tasks, self.suspended = [*self.tasks.values(), *self.suspended.values()], {}, {}
        await asyncio.gather(*(task.close(commit=commit) for task in tasks))
        self.watch.released()


def _no_handler(what: str, decorator: str) -> Callable[..., NoReturn]:
    def refuse(*_: object) -> NoReturn:
        raise LookupError(f"nobody handles a {what}: decorate a function with engine.{decorator}")

    return refuse
