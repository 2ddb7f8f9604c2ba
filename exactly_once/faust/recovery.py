"""Opening tasks, after an assignment and after a task broke: one procedure for both."""

import asyncio
import time
from collections.abc import Collection
from typing import Any, cast

from faust.app.base import App
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.types import TP
from mode import Service

from exactly_once.faust.consumer import TaskConsumer
from exactly_once.faust.host import TaskHost, host_of
from exactly_once.faust.openings import TaskOpenings
from exactly_once.task.task import Task

REOPEN_DELAY_S = 1.0
"""Pause before a failed opening is tried again."""


class TaskRecovery(Recovery):
    """Opens tasks outside the rebalance callback: that sends no heartbeats, and a restore may outlast the session."""

    owned: frozenset[int] = frozenset()
    """The partitions that the group has assigned to this worker."""
    assigned = True
    """False between revocation and assignment: the owner of each partition is unknown, and nothing is opened."""
    _opening: "asyncio.Future[None] | None" = None
    _reset_wanted = False
    _interruptions = 0

    @property
    def host(self) -> TaskHost:
        return host_of(self.app)

    @property
    def consumer(self) -> TaskConsumer:
        return cast(TaskConsumer, self.app.consumer)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owned_in: dict[int, int] = {}
        """Partition -> the last generation of the group in which this worker owned its task."""
        self._openings = TaskOpenings(lambda partition: self.host.open(partition), self.request_reset)

    def cancel_opening(self) -> None:
        """Cancel what is being opened, because of a rebalance or the end of the worker.

        Cancellations are counted, because aiokafka swallows one here and there.
        """
        self._interruptions += 1
        self._reset_wanted = False
        self._openings.cancel_all()
        if self._opening is not None:
            self._opening.cancel()

    async def on_stop(self) -> None:
        self.cancel_opening()
        await self._openings.wait_cancelled()
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
                asyncio.get_running_loop().call_later(REOPEN_DELAY_S, self.request_reset)
            finally:
                self._opening.cancel()
                await asyncio.wait([self._opening])
                if self._reset_wanted:
                    self._reset_wanted = False
                    self.signal_recovery_start.set()

    async def _open_tasks(self, generation: int) -> None:
        """Stop the flow, open owned tasks that are not open, seek every task to its position, resume the flow.

        A task that takes long to open, or fails, joins the others in a later run.
        """
        app, consumer, host = cast(App, self.app), self.consumer, self.host
        if not self.assigned or not consumer.is_member():
            return  # expelled: opening would fence the new owner; a rebalance follows
        began, interruptions = time.perf_counter(), self._interruptions
        consumer.stop_flow()
        app.flow_control.suspend()
        app.flow_control.clear()
        await app._stop_fetcher()
        await consumer.wait_for_fetch()
        stopped = time.perf_counter()
        assignment = consumer.assignment()
        self.owned = frozenset(tp.partition for tp in assignment if tp.topic == host.anchor)
        await self._openings.wait_cancelled()
        await self._close_broken()
        stay = await self._reusable_tasks(generation)
        opened, failed = await self._openings.collect(self.owned - host.tasks.keys() - stay.keys())
        if app.consumer_generation_id != generation or self._interruptions != interruptions:
            await asyncio.gather(*(task.close(commit=False) for task in opened.values()))
            return
        for partition in stay:
            del host.suspended[partition]
        host.tasks.update(opened | stay)
        self.owned_in |= dict.fromkeys(host.tasks, generation)
        await self._seek(assignment)
        if self._interruptions != interruptions:
            return  # the rebalance or the stop has suspended the tasks
        for task in host.tasks.values():
            if not task.is_running:  # also one that an opening left here when it was cancelled in its seek
                task.start()
        if failed or not all(task.alive for task in stay.values()):
            # a task that broke while it was suspended has not requested a reset
            asyncio.get_running_loop().call_later(REOPEN_DELAY_S if failed else 0, self.request_reset)
        await self._resume()
        host.watch.released()  # a row that was committed when its task broke came from the changelog, unannounced
        self.log.info(
            "tasks %s open, newly opened: %s; stopped in %.0f ms, opened in %.0f ms",
            sorted(host.tasks),
            sorted(opened),
            1e3 * (stopped - began),
            1e3 * (time.perf_counter() - stopped),
        )
        await self._close_suspended()

    async def _reusable_tasks(self, generation: int) -> dict[int, Task]:
        """Return the suspended tasks that resume here, and close those that have to be opened again.

        A task resumes only if this generation follows the last one in which this worker owned it: otherwise another
        worker may have owned it in between. Tasks that moved away are closed later, once the others have resumed.
        """
        suspended = self.host.suspended
        stay = {
            partition: task
            for partition, task in suspended.items()
            if task.alive and partition in self.owned and self.owned_in[partition] == generation - 1
        }
        await self._close_suspended(self.owned - stay.keys())
        return stay

    async def _close_suspended(self, partitions: Collection[int] | None = None) -> None:
        """Close the suspended tasks, or those of these partitions. Each stays listed until it is closed, because this
        may be cancelled."""
        suspended = self.host.suspended
        closed = [p for p in suspended if partitions is None or p in partitions]
        await asyncio.gather(*(suspended[partition].close(commit=False) for partition in closed))
        for partition in closed:
            suspended.pop(partition, None)

    async def _close_broken(self) -> None:
        """Close tasks that are broken or no longer owned. Healthy tasks know by themselves where to read next."""
        tasks = self.host.tasks
        for partition, task in list(tasks.items()):
            if not task.alive or partition not in self.owned:
                del tasks[partition]
                await task.close(commit=False)

    async def _seek(self, assignment: set[TP]) -> None:
        """Seek every task's sources, while the fetcher is stopped: a seek under a running fetcher loses or repeats
        records."""
        host = self.host
        sources = {tp for tp in assignment if tp.topic in host.sources and tp.partition in host.tasks}
        self.consumer.resume_partitions(sources)
        offsets = {}
        for tp in sources:
            task = host.tasks[tp.partition]
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
