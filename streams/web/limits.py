"""Limits of what clients may have running in one worker at the same time, so that some leave room for the others."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from streams.web.problems import SOON, Problem

MAX_WAITING = 1000
"""Event streams and long polls: each holds a connection, and most of them hold one for long."""
MAX_SCANS = 4
"""Requests that read a table: each of them takes a share of the worker's time from the tasks."""
MAX_SCAN_WAIT_S = 10.0
"""Time that a request waits for its turn to read a table."""


class Places:
    """A number of places. A request without a place is refused at once."""

    def __init__(self, number: int, what: str) -> None:
        """``what`` names the requests in the plural."""
        self._free = number
        self._what = what

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place within the block. Raises a 503 problem if none is free."""
        if self._free == 0:
            raise Problem(503, "busy", f"this worker serves as many {self._what} as it can; try again", headers=SOON)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Limits:
    """The limits of one worker."""

    def __init__(self) -> None:
        self.waiting = Places(MAX_WAITING, "event streams and long polls")
        self.hashes = Places(1, "requests for hashes")
        """Each of them reads every row of this worker."""
        self._scans = asyncio.Semaphore(MAX_SCANS)

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[None]:
        """Wait for a turn to read a table, and hold it in the block. Raises a 503 problem if that takes too long."""
        try:
            async with asyncio.timeout(MAX_SCAN_WAIT_S):
                await self._scans.acquire()
        except TimeoutError:
            raise Problem(503, "busy", "this worker reads tables for others; try again", headers=SOON) from None
        try:
            yield
        finally:
            self._scans.release()
