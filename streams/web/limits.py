"""Limits of what clients may have running in one worker at the same time, so that some leave room for the others."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from streams.access.turns import Turns
from streams.web.problems import SOON, Problem

MAX_WAITING = 1000
"""Event streams and long polls: each holds a connection, and most of them hold one for long."""
MAX_SHARE = 2
"""A holder of a key may have one of this many parts of the places; the rest is for others."""
MAX_SCANS = 4
"""Requests that read a table: each of them takes a share of the worker's time from the tasks."""
MAX_SCAN_WAIT_S = 10.0
"""Time that a request waits for its turn to read a table."""


FEW_UNDECIDED = 32
"""Undecided requests of a partition that are never too many: a burst waits for its turn."""


class Places:
    """A number of places, which holders of keys share. A request without a place is refused at once."""

    def __init__(self, number: int, what: str) -> None:
        """``what`` names the requests in the plural."""
        self._number = number
        self._what = what
        self._taken = Counter[str]()

    @contextmanager
    def take(self, holder: str) -> Iterator[None]:
        """Hold a place within the block.

        Raises a problem: 503 if none is free, 429 if the holder has its share.
        """
        if self._taken.total() >= self._number:
            raise Problem(503, "busy", f"this worker serves as many {self._what} as it can; try again", headers=SOON)
        share = max(1, self._number // MAX_SHARE)
        if self._taken[holder] >= share:
            raise Problem(
                429,
                "too-many-requests",
                f"the key {holder} has {share} {self._what} open, as many as it may: end one first",
                headers=SOON,
            )
        self._taken[holder] += 1
        try:
            yield
        finally:
            self._taken[holder] -= 1
            if not self._taken[holder]:
                del self._taken[holder]


class Backlog:
    """The undecided requests of each partition.

    A task that gets more requests than it can decide refuses the surplus at once, so that those that it admits do not
    wait for long. The wait of the oldest one tells a lasting overload from a burst (as in CoDel, RFC 8289).
    """

    def __init__(self, max_wait_s: float) -> None:
        """``max_wait_s`` is the wait of the oldest request beyond which others are refused, if they are not few."""
        self._max_wait_s = max_wait_s
        self._undecided = defaultdict[int, dict[object, float]](dict)
        """Partition -> request -> the moment of its arrival, oldest first."""

    @contextmanager
    def wait(self, partition: int) -> Iterator[None]:
        """Count an undecided request within the block. Raises a 503 problem if the partition is overloaded."""
        undecided, now = self._undecided[partition], asyncio.get_running_loop().time()
        if len(undecided) >= FEW_UNDECIDED and now - next(iter(undecided.values())) > self._max_wait_s:
            detail = f"this worker gets more requests for partition {partition} than it can decide; send it again"
            raise Problem(503, "overloaded", detail, headers=SOON)
        request = object()
        undecided[request] = now
        try:
            yield
        finally:
            del undecided[request]


class Limits:
    """The limits of one worker."""

    def __init__(self) -> None:
        self.waiting = Places(MAX_WAITING, "event streams and long polls")
        self.hashes = Places(1, "requests for hashes")
        """Each of them reads every row of this worker."""
        self._scans = Turns(MAX_SCANS)

    @asynccontextmanager
    async def scan(self, holder: str) -> AsyncIterator[None]:
        """Wait for a turn to read a table, and hold it in the block. Raises a 503 problem if that takes too long."""
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(MAX_SCAN_WAIT_S):
                    await turn.enter_async_context(self._scans.take(holder))
            except TimeoutError:
                raise Problem(503, "busy", "this worker reads tables for others; try again", headers=SOON) from None
            yield
