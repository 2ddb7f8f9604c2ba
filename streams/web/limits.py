"""Limits of what clients may have running in one worker at the same time, so that some leave room for the others."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from streams.access.turns import NoTurn, Turns
from streams.web.problems import SOON, Problem

MAX_WAITING = 1000
"""Event streams and long polls: each holds a connection, and most of them hold one for long."""
MAX_SHARE = 2
"""A holder of a key may have one of this many parts of the places; the rest is for others."""
MAX_SCANS = 4
"""Requests that read a table: each of them takes a share of the worker's time from the tasks."""
MAX_SCAN_WAIT_S = 10.0
"""Time that a request waits for its turn to read a table."""


FIRST_LIMIT, LEAST_LIMIT, MOST_LIMIT = 16.0, 4.0, 256.0
"""Undecided requests of a partition that are accepted: at first, at least, and at most."""
CUT = 0.7
"""Factor by which a slow decision lowers the limit."""


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
    """The undecided requests of each partition, and how many of them its task can decide in time.

    A task that gets more requests than it can decide refuses the surplus at once, so that those that it accepts do not
    wait for long. The limit is found as TCP finds its window (RFC 5681). Until the first slow decision, each decision
    in time raises it by one; then each round of them does. A slow decision cuts it.
    """

    def __init__(self, in_time_s: float) -> None:
        """``in_time_s`` is the time within which a request should be decided."""
        self._in_time_s = in_time_s
        self._undecided = Counter[int]()
        self._limits = defaultdict[int, float](lambda: FIRST_LIMIT)
        self._cut_at = defaultdict[int, float](float)
        """Partition -> the time of the last cut; 0 before the first. Requests from before it tell nothing about the new
        limit."""

    @contextmanager
    def wait(self, partition: int) -> Iterator[None]:
        """Count an undecided request within the block. Raises a 503 problem if the partition is overloaded."""
        if self._undecided[partition] >= int(self._limits[partition]):
            detail = f"this worker gets more requests for partition {partition} than it can decide; send it again"
            raise Problem(503, "overloaded", detail, headers=SOON)
        began = asyncio.get_running_loop().time()
        self._undecided[partition] += 1
        try:
            yield
        finally:
            self._adapt(partition, began)
            self._undecided[partition] -= 1

    def _adapt(self, partition: int, began: float) -> None:
        """Adapt the limit to the time that a request took."""
        now, limit = asyncio.get_running_loop().time(), self._limits[partition]
        if now - began > self._in_time_s:
            if began >= self._cut_at[partition]:
                self._limits[partition], self._cut_at[partition] = max(LEAST_LIMIT, limit * CUT), now
        elif 2 * self._undecided[partition] >= limit:  # else it is not the limit that was tried
            self._limits[partition] = min(MOST_LIMIT, limit + (1 / limit if self._cut_at[partition] else 1))


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
        try:
            async with self._scans.take(holder, MAX_SCAN_WAIT_S):
                yield
        except NoTurn:
            raise Problem(503, "busy", "this worker reads tables for others; try again", headers=SOON) from None
