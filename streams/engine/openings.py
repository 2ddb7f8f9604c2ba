"""Tasks that are being opened, each by itself: a long restore or a disk that fails holds up no other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from streams.engine.task import Task

log = logging.getLogger(__name__)

TOGETHER_S = 1.0
"""What opens within this time is taken together; the flow of all stops for a moment each time that some are."""


class Openings:
    """``done`` is called when one has ended after nobody waited for it any more."""

    def __init__(self, open_task: Callable[[int], Awaitable[Task]], done: Callable[[], None]) -> None:
        self._open_task, self._done = open_task, done
        self._under_way: dict[int, asyncio.Task[Task]] = {}
        self._given_up: list[asyncio.Task[Task]] = []
        self._taking = False

    async def take(self, partitions: Collection[int]) -> tuple[dict[int, Task], bool]:
        """The tasks of these that are open within ``TOGETHER_S``, and whether one has failed. The others go on."""
        for partition in partitions:
            if partition not in self._under_way:
                self._under_way[partition] = asyncio.ensure_future(self._open(partition))
        self._taking = True
        try:
            if self._under_way:
                await asyncio.wait(self._under_way.values(), timeout=TOGETHER_S)
        finally:
            self._taking = False
        ended = {partition: opening for partition, opening in self._under_way.items() if opening.done()}
        opened, failed = dict[int, Task](), False
        for partition, opening in ended.items():
            del self._under_way[partition]
            if opening.cancelled():
                failed = True
            elif (exc := opening.exception()) is not None:
                log.warning("opening task %d failed, again in a second: %r", partition, exc)
                failed = True
            else:
                opened[partition] = opening.result()
        return opened, failed

    def give_up(self) -> None:
        """None of them is to be opened any more; ``settle`` waits for that."""
        for opening in self._under_way.values():
            opening.cancel()
        self._given_up += self._under_way.values()
        self._under_way = {}

    async def settle(self) -> None:
        """Once this is over, nothing that was given up holds the lock of its store."""
        for task in await asyncio.gather(*self._given_up, return_exceptions=True):
            if isinstance(task, Task):
                await task.close(commit=False)
        self._given_up = []

    async def _open(self, partition: int) -> Task:
        try:
            return await self._open_task(partition)
        finally:
            if not self._taking:
                asyncio.get_running_loop().call_soon(self._done)  # when this is done itself
