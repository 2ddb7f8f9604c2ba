"""Tasks that are being opened, each on its own: a long restore or a disk that fails delays no other task."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from exactly_once.task.task import Task

log = logging.getLogger(__name__)

TOGETHER_S = 1.0
"""Tasks that open within this time are collected together; the flow of all stops for a moment at each collection."""


class TaskOpenings:
    """Openings under way. ``on_done`` is called when one ends that no ``collect`` waits for."""

    def __init__(self, open_task: Callable[[int], Awaitable[Task]], on_done: Callable[[], None]) -> None:
        self._open_task = open_task
        self._on_done = on_done
        self._under_way: dict[int, asyncio.Task[Task]] = {}
        self._cancelled: list[asyncio.Task[Task]] = []
        self._collecting = False

    async def collect(self, partitions: Collection[int]) -> tuple[dict[int, Task], bool]:
        """Begin to open these partitions; return the tasks open within ``TOGETHER_S``, and whether an opening failed.

        Openings that take longer go on; a later call collects them.
        """
        for partition in partitions:
            if partition not in self._under_way:
                self._under_way[partition] = asyncio.ensure_future(self._open(partition))
        self._collecting = True
        try:
            if self._under_way:
                await asyncio.wait(self._under_way.values(), timeout=TOGETHER_S)
        finally:
            self._collecting = False
        ended = {partition: opening for partition, opening in self._under_way.items() if opening.done()}
        opened, failed = dict[int, Task](), False
        for partition, opening in ended.items():
            del self._under_way[partition]
            if opening.cancelled():
                failed = True
            elif (exc := opening.exception()) is not None:
                about = {"partition": partition}
                log.warning("opening task %d failed, again in a second: %r", partition, exc, extra=about)
                failed = True
            else:
                opened[partition] = opening.result()
        return opened, failed

    def cancel_all(self) -> None:
        """Cancel every opening; ``wait_cancelled`` waits for their end."""
        for opening in self._under_way.values():
            opening.cancel()
        self._cancelled += self._under_way.values()
        self._under_way = {}

    async def wait_cancelled(self) -> None:
        """Wait until no cancelled opening holds the lock of its store."""
        for task in await asyncio.gather(*self._cancelled, return_exceptions=True):
            if isinstance(task, Task):
                await task.close(commit=False)
        self._cancelled = []

    async def _open(self, partition: int) -> Task:
        try:
            return await self._open_task(partition)
        finally:
            if not self._collecting:
                asyncio.get_running_loop().call_soon(self._on_done)  # by then this opening is done itself
