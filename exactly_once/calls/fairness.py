"""Calls at once, shared fairly: unresponsive destinations leave room for those that answer.

limit   A host and the worker as a whole have a limit of calls at once. All unresponsive destinations together get half
        of it at most.
queue   Destinations with a call to start take turns, in the order in which they came. Unresponsive ones wait in a
        second line, as there may be capacity for the others alone; so do the destinations at a host that was full at
        their turn. The queue passes over those lines: when a host with a thousand destinations is down, a look at
        each of them would be most of what a worker does.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from exactly_once.calls.destinations import Destination


class ConcurrencyLimit:
    """A limit of calls at once, half of them at most to unresponsive destinations."""

    def __init__(self, size: int) -> None:
        self.count = 0
        """Calls under way."""
        self.destinations: dict[Destination, int] = {}
        """Destinations with calls under way, and the number of those."""
        self._size = size
        self._half = max(1, size // 2)
        self._unresponsive = 0
        self._counted_at = -1.0

    def has_capacity(self, unresponsive: bool, now: float) -> bool:
        """Return whether one more call may start, to a destination of this kind."""
        if self.count < self._half:
            return True
        if self._counted_at != now:
            self._unresponsive = sum(count for each, count in self.destinations.items() if each.is_unresponsive(now))
            self._counted_at = now
        if unresponsive:
            return self._unresponsive < self._half and self.count < self._size
        return self.count - self._unresponsive < self._size - min(self._unresponsive, self._half)

    def begin(self, destination: Destination) -> None:
        """Count a call that starts."""
        self.destinations[destination] = self.destinations.get(destination, 0) + 1
        self.count += 1
        self._counted_at = -1.0

    def end(self, destination: Destination) -> None:
        """Count a call that ended."""
        self.destinations[destination] -= 1
        if not self.destinations[destination]:
            del self.destinations[destination]
        self.count -= 1
        self._counted_at = -1.0


class Turn(NamedTuple):
    """A place in a line."""

    number: int
    destination: Destination
    unresponsive: bool


class FairQueue:
    """The destinations that have a call to start, first come, first served."""

    def __init__(self) -> None:
        self._count = 0
        self._turns: dict[Destination, Turn] = {}
        """The valid place of each destination; a line may hold outdated ones, too."""
        self._lines: dict[bool, deque[Turn]] = {False: deque(), True: deque()}
        self._at_full_hosts: dict[tuple[bool, str], deque[Turn]] = {}

    def __bool__(self) -> bool:
        return any(self._lines.values()) or bool(self._at_full_hosts)

    def put(self, destination: Destination, now: float) -> None:
        """Append a destination, unless it waits in the right line already."""
        unresponsive = destination.is_unresponsive(now)
        turn = self._turns.get(destination)
        if turn is None or turn.unresponsive is not unresponsive:
            self._count += 1
            self._turns[destination] = turn = Turn(self._count, destination, unresponsive)
            self._lines[unresponsive].append(turn)

    def remove(self, destination: Destination) -> None:
        """Take a destination out of its line."""
        self._turns.pop(destination, None)

    def take(self, worker: ConcurrencyLimit, hosts: Mapping[str, ConcurrencyLimit], now: float) -> Turn | None:
        """Remove and return the first turn that the worker and the host have capacity for; None if there is none."""
        kinds = [unresponsive for unresponsive in (False, True) if worker.has_capacity(unresponsive, now)]
        open_lines = [line for unresponsive in kinds for line in self._open_lines(unresponsive, hosts, now)]
        if not open_lines:
            return None
        turn = min(open_lines, key=lambda line: line[0].number).popleft()
        self.remove(turn.destination)
        return turn

    def _open_lines(
        self, unresponsive: bool, hosts: Mapping[str, ConcurrencyLimit], now: float
    ) -> Iterator[deque[Turn]]:
        """Yield the lines whose first destination has a host with capacity."""
        line = self._lines[unresponsive]
        while first := self._head(line):
            host = first.destination.key.host
            if hosts[host].has_capacity(unresponsive, now):
                yield line
                break
            self._at_full_hosts.setdefault((unresponsive, host), deque()).append(line.popleft())
        for (kind, host), waiting in list(self._at_full_hosts.items()):
            if self._head(waiting) is None:
                del self._at_full_hosts[kind, host]
            elif kind is unresponsive and hosts[host].has_capacity(unresponsive, now):
                yield waiting

    def _head(self, line: deque[Turn]) -> Turn | None:
        """Drop outdated places and return the first valid one."""
        while line and self._turns.get(line[0].destination) is not line[0]:
            line.popleft()
        return line[0] if line else None
