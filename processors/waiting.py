"""Who waits where, in memory: how dispatch finds the nearest driver and the oldest delivery.

Drivers are found by H3 cell. A search looks at the cell of the pickup, then at the ring around it, and so on, until no
ring can hold anybody nearer than who was found. How large the cells are follows from how many wait: where many drivers
share a cell, all are sorted into smaller ones, where hardly two do, into larger ones. And once a search has looked at
more cells than there are drivers' cells, it goes through those instead, the nearest first. So a match costs little more
with a hundred thousand drivers than with ten, and it is exact.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop
from itertools import count
from math import inf, sqrt
from typing import NamedTuple

from processors.dispatch import PendingDelivery, Row, WaitingDriver, decode_row, kind_of
from processors.geography import (
    EARTH_RADIUS_M,
    Point,
    cell,
    chord_squared,
    chord_squared_of,
    middle,
    point,
    radius_at_most_m,
    ring,
    ring_at_least_m,
)
from topics.identity import owner_of
from topics.places import Position

CROWDED = 4.0
"""Drivers a cell, on average, from which on smaller cells are used. One step of H3 divides a cell by seven."""
LONELY = 1.15
"""And below which larger ones are."""
FEW_CELLS = 16
"""So few are gone through faster than rings are looked up."""
COARSEST, FINEST = 3, 13
"""H3 resolutions: cells of 69 km and of 4 m edge."""


class Found(NamedTuple):
    """A driver, compared by distance first, then by id."""

    distance: float
    """The square of the chord on the unit sphere."""
    driver: str
    row: WaitingDriver


class Cell:
    """The drivers who wait in one cell."""

    __slots__ = ("drivers", "middle")

    def __init__(self, number: int) -> None:
        self.middle = middle(number)
        self.drivers: dict[str, tuple[Point, WaitingDriver]] = {}


class Region:
    """Who waits in one region. Rows go by their keys."""

    def __init__(self, resolution: int) -> None:
        self._resolution = resolution
        self._cells: dict[int, Cell] = {}
        self._cell_of: dict[str, int] = {}
        self._fitted = FEW_CELLS
        """How many drivers there were when the resolution was chosen."""
        self._pending: dict[str, PendingDelivery] = {}
        self._oldest_first: list[str] = []

    def put(self, key: str, row: WaitingDriver | PendingDelivery | None) -> None:
        """This row is so now; None: it is gone."""
        if kind_of(key) == "driver":
            self._remove_driver(key)
            if isinstance(row, WaitingDriver):
                self._add_driver(key, row)
            return
        if self._pending.pop(key, None) is not None:
            del self._oldest_first[bisect_left(self._oldest_first, key)]
        if isinstance(row, PendingDelivery):
            self._pending[key] = row
            insort(self._oldest_first, key)

    def nearest(self, position: Position, hidden: Collection[str]) -> Found | None:
        """The nearest driver whose row is not hidden."""
        here = point(position)
        if len(self._cells) <= FEW_CELLS:
            return self._nearest_of_all(here, hidden)
        centre, best, looked = cell(position, self._resolution), None, 0
        for k in count():
            if best is not None and best.distance < chord_squared_of(ring_at_least_m(k, self._resolution)):
                return best
            if looked > len(self._cells):
                return self._nearest_of_all(here, hidden)
            cells = ring(centre, k)
            looked += len(cells)
            best = _nearer(best, self._nearest_in(cells, here, hidden))
        raise AssertionError("rings do not end")

    def oldest_pending(self, hidden: Collection[str]) -> tuple[str, PendingDelivery] | None:
        """The delivery that has waited longest and whose row is not hidden, by key."""
        key = next((key for key in self._oldest_first if key not in hidden), None)
        return None if key is None else (key, self._pending[key])

    def rows(self) -> Iterator[tuple[str, Row]]:
        """All rows."""
        yield from self._pending.items()
        for one in self._cells.values():
            yield from ((key, row) for key, (_, row) in one.drivers.items())

    def _nearest_of_all(self, here: Point, hidden: Collection[str]) -> Found | None:
        """By drivers' cells, the nearest first, until no cell can hold anybody nearer than who was found."""
        radius = radius_at_most_m(self._resolution) / EARTH_RADIUS_M
        cells = [(sqrt(chord_squared(here, one.middle)), number) for number, one in self._cells.items()]
        heapify(cells)
        best: Found | None = None
        while cells:
            distance, number = heappop(cells)
            if best is not None and sqrt(best.distance) < distance - radius:
                break
            best = _nearer(best, self._nearest_in((number,), here, hidden))
        return best

    def _nearest_in(self, cells: Iterable[int], here: Point, hidden: Collection[str]) -> Found | None:
        best, least, (x, y, z) = None, inf, here
        for number in cells:
            if number not in self._cells:
                continue
            for key, (there, row) in self._cells[number].drivers.items():
                # chord_squared, by hand: this is the innermost loop of a match
                dx, dy, dz = x - there[0], y - there[1], z - there[2]
                distance = dx * dx + dy * dy + dz * dz
                if distance <= least and key not in hidden:
                    best, least = _nearer(best, Found(distance, row.driver, row)), distance
        return best

    def _add_driver(self, key: str, row: WaitingDriver) -> None:
        self._sort_in(key, point(row.position), row)
        self._fit_cells()

    def _remove_driver(self, key: str) -> None:
        number = self._cell_of.pop(key, None)
        if number is None:
            return
        drivers = self._cells[number].drivers
        del drivers[key]
        if not drivers:
            del self._cells[number]
        self._fit_cells()

    def _sort_in(self, key: str, there: Point, row: WaitingDriver) -> None:
        number = self._cell_of[key] = cell(row.position, self._resolution)
        if number not in self._cells:
            self._cells[number] = Cell(number)
        self._cells[number].drivers[key] = there, row

    def _fit_cells(self) -> None:
        """Choose another resolution where the number of drivers wants it, and not before it has doubled or halved: else
        drivers who stand evenly could be sorted to and fro at every move."""
        drivers = len(self._cell_of)
        if self._fitted <= 2 * drivers and drivers <= 2 * self._fitted:
            return
        self._fitted = max(drivers, FEW_CELLS)
        if self._is_crowded():
            while self._is_crowded() and self._resolution < FINEST:
                self._sort_anew(self._resolution + 1)
        else:
            while self._is_lonely() and self._resolution > COARSEST:
                self._sort_anew(self._resolution - 1)

    def _is_crowded(self) -> bool:
        return len(self._cell_of) > max(CROWDED * len(self._cells), FEW_CELLS)

    def _is_lonely(self) -> bool:
        return len(self._cells) > FEW_CELLS and len(self._cell_of) < LONELY * len(self._cells)

    def _sort_anew(self, resolution: int) -> None:
        cells, self._cells, self._resolution = self._cells, {}, resolution
        for one in cells.values():
            for key, (there, row) in one.drivers.items():
                self._sort_in(key, there, row)


class DispatchIndex:
    """Who waits where, over the rows of dispatch: an index of the engine's.

    ``load`` and ``apply`` are the engine's, and bring every committed row. ``write`` is for what a handler has just
    put, which is not committed yet: call it last in the handler, so that nothing is left behind if the handler fails.
    Such rows stand over the committed ones until they are committed; they are few, and never change what is below.
    A row has been committed when its last value has: a task has one transaction under way and fills one more, each
    with a row's last value only, so no earlier value can be taken for it.
    """

    def __init__(self, resolution: int) -> None:
        """``resolution``: of the H3 cells to begin with."""
        self._resolution = resolution
        self._committed: dict[str, Region] = {}
        self._fresh: dict[str, Region] = {}
        self._uncommitted: dict[str, Row | None] = {}

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Every committed row, once, at the start."""
        for key, value in rows:
            self.apply(key, value)

    def apply(self, key: bytes, value: bytes | None) -> None:
        """A row was committed; None: deleted."""
        name = key.decode()
        if kind_of(name) == "asked":
            return
        row = None if value is None else decode_row(name, value)
        self._put(self._committed, name, row)
        if name in self._uncommitted and self._uncommitted[name] == row:
            del self._uncommitted[name]
            self._put(self._fresh, name, None)

    def write(self, rows: Mapping[str, Row | None]) -> None:
        """Rows that are to be committed; None: to be deleted."""
        for key, row in rows.items():
            if kind_of(key) != "asked":
                self._uncommitted[key] = row
                self._put(self._fresh, key, row)

    def nearest(self, region: str, position: Position) -> WaitingDriver | None:
        """The nearest driver who waits in a region, of those at the same distance the first by id."""
        below, above = self._committed.get(region), self._fresh.get(region)
        best = None if below is None else below.nearest(position, self._uncommitted)
        best = best if above is None else _nearer(best, above.nearest(position, ()))
        return None if best is None else best.row

    def oldest_pending(self, region: str) -> PendingDelivery | None:
        """The delivery that has waited longest in a region."""
        below, above = self._committed.get(region), self._fresh.get(region)
        candidates = (
            None if below is None else below.oldest_pending(self._uncommitted),
            None if above is None else above.oldest_pending(()),
        )
        oldest = min((found for found in candidates if found is not None), default=None, key=lambda found: found[0])
        return None if oldest is None else oldest[1]

    def committed(self) -> dict[str, Row]:
        """The rows that were committed, by key."""
        return {key: row for region in self._committed.values() for key, row in region.rows()}

    def uncommitted(self) -> dict[str, Row | None]:
        """The rows over them, by key."""
        return dict(self._uncommitted)

    def _put(self, regions: dict[str, Region], key: str, row: Row | None) -> None:
        region = regions.get(owner_of(key))
        if region is None:
            region = regions[owner_of(key)] = Region(self._resolution)
        assert row is None or isinstance(row, WaitingDriver | PendingDelivery)
        region.put(key, row)


class Overlay:
    """The view of one decision (``dispatch.View``): the index, and ``read`` (the task's ``get``) for a row by key."""

    def __init__(self, index: DispatchIndex, read: Callable[[bytes], bytes | None]) -> None:
        self._read = read
        self.nearest, self.oldest_pending = index.nearest, index.oldest_pending

    def get(self, key: str) -> Row | None:
        """The row of this key, committed or not."""
        value = self._read(key.encode())
        return None if value is None else decode_row(key, value)


def _nearer(one: Found | None, other: Found | None) -> Found | None:
    if one is None or other is None:
        return one or other
    return min(one, other)
