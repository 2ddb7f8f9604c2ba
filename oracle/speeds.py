"""Speeds in force during an order's life, from the runs on record (`runs.jsonl`).

The timers of the workers set every judged wait, so the records of the workers decide. The records of the simulators are
used if no worker left one. A run lasts until the next run of its party, or until a worker starts without that party.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oracle.ledgers import RunLine

FOREVER_MS = 1 << 62


class Run(NamedTuple):
    """One run of a party. Times in milliseconds since 1970."""

    speed: float
    began_ms: int
    ended_ms: int

    def overlaps(self, from_ms: int, to_ms: int) -> bool:
        """Return whether the run shares a moment with a span of time."""
        return self.began_ms <= to_ms and from_ms < self.ended_ms


class Speeds:
    """Speeds of an installation. ``otherwise`` is the speed if no run is on record."""

    def __init__(self, lines: Sequence[RunLine] = (), otherwise: float = 1.0) -> None:
        workers = _runs([line for line in lines if line.is_worker])
        self._runs = workers or _runs([line for line in lines if not line.is_worker])
        self._otherwise = otherwise

    def between(self, from_ms: int, to_ms: int) -> set[float]:
        """Return the speeds in force in a span of time; none if the record begins later."""
        if not self._runs:
            return {self._otherwise}
        if all(run.began_ms > from_ms for run in self._runs):
            return set()
        return {run.speed for run in self._runs if run.overlaps(from_ms, to_ms)}

    @property
    def on_record(self) -> list[float]:
        """Every speed on record, slowest first."""
        return sorted({run.speed for run in self._runs})


def _runs(lines: Sequence[RunLine]) -> list[Run]:
    ordered = sorted(lines, key=lambda line: line.at_ms)
    return [Run(line.speed, line.at_ms, _end_ms(line, ordered[number:])) for number, line in enumerate(ordered, 1)]


def _end_ms(line: RunLine, later: Iterable[RunLine]) -> int:
    return next((each.at_ms for each in later if _ends(line, each)), FOREVER_MS)


def _ends(line: RunLine, later: RunLine) -> bool:
    return later.party == line.party or (later.is_worker and line.party not in later.running)
