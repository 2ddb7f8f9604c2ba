"""Who waits where, in memory: how dispatch finds the nearest driver and the oldest delivery.

Drivers are places on the unit sphere, sorted into the cubes of a grid in space. A search looks at the eight cubes
around the corner that is nearest to the pickup, then at all that lie in the eight of four times the side around theirs,
and so on, until nobody beyond can be nearer than who was found. How large the smallest cubes are follows from how many
wait: where many drivers share a cube, all are sorted into cubes of half the side, where hardly any do, into those of
the double. So a match costs much the same with a hundred thousand drivers as with a hundred, and it is exact.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop
from itertools import product
from math import floor, inf, sqrt
from typing import NamedTuple

from processors.dispatch import PendingDelivery, Row, WaitingDriver, decode_row, kind_of
from processors.geography import Point, chord_squared, point
from topics.identity import owner_of
from topics.places import Position

CROWDED = 2.0
"""Drivers a cube, on average, from which on smaller cubes are used. Half the side leaves a quarter of the drivers."""
LONELY = 0.4
"""And below which larger ones are."""
FEW = 16
"""So few cubes are gone through as they are, and so few drivers are not sorted anew."""
DOUBLED = (2, 4)
"""How often a search doubles the side of the smallest, before it goes through all cubes, the nearest first."""
FIRST_LEVEL = 10
COARSEST, FINEST = 6, 21
"""A cube's side at a level is 2 ** -level of the earth's radius: 100 km at 6, 6 km at 10, 3 m at 21."""
STRIDE = 1 << 24
"""Between the numbers of two cubes that are neighbours in x or y. In z they follow on each other."""
ROUNDED = 1 - 1e-9
"""What a bound is lowered by, so that nothing that was rounded makes a driver beyond it look nearer."""


class Found(NamedTuple):
    """A driver, compared by distance first, then by id."""

    distance: float
    """The square of the chord on the unit sphere."""
    driver: str
    row: WaitingDriver


Waiting = tuple[float, float, float, WaitingDriver]
"""Where on the unit sphere, and the row. One object: a search looks at many that are in no cache of the processor's."""


class Cube:
    """The drivers who wait in one cube, whose corner is counted in sides."""

    __slots__ = ("corner", "drivers")

    def __init__(self, corner: tuple[int, int, int]) -> None:
        self.corner = corner
        self.drivers: dict[str, Waiting] = {}

    def wider(self, doubled: int) -> int:
        """The number of the cube it lies in, whose side is so often the double."""
        x, y, z = self.corner
        return _number(x >> doubled, y >> doubled, z >> doubled)


class Region:
    """Who waits in one region. Rows go by their keys."""

    def __init__(self) -> None:
        self._level = FIRST_LEVEL
        self._cubes: dict[int, Cube] = {}
        self._wider: dict[int, dict[int, set[int]]] = {doubled: {} for doubled in DOUBLED}
        """By how often the side is doubled: the number of a cube -> those of the smallest ones in it."""
        self._cube_of: dict[str, int] = {}
        self._fitted = FEW
        """How many drivers there were when the level was chosen."""
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
        if len(self._cubes) <= FEW:
            return self._nearest_in(self._cubes, here, hidden)
        for doubled in (0, *DOUBLED):
            numbers, safe = self._around(here, doubled)
            best = self._nearest_in(numbers, here, hidden)
            if len(numbers) == len(self._cubes) or (best is not None and best.distance < safe):
                return best
        return self._nearest_of_all(here, hidden)

    def oldest_pending(self, hidden: Collection[str]) -> tuple[str, PendingDelivery] | None:
        """The delivery that has waited longest and whose row is not hidden, by key."""
        key = next((key for key in self._oldest_first if key not in hidden), None)
        return None if key is None else (key, self._pending[key])

    def rows(self) -> Iterator[tuple[str, Row]]:
        """All rows."""
        yield from self._pending.items()
        for cube in self._cubes.values():
            yield from ((key, row) for key, (_, _, _, row) in cube.drivers.items())

    def _around(self, here: Point, doubled: int) -> tuple[list[int], float]:
        """The smallest cubes in the eight around the corner nearest to here, of those whose side is so often the
        double, and the square of the distance up to which there are no others."""
        side = 0.5 ** (self._level - doubled)
        x, y, z = here[0] / side, here[1] / side, here[2] / side
        corner = round(x), round(y), round(z)
        off = max(abs(x - corner[0]), abs(y - corner[1]), abs(z - corner[2]))
        number = _number(*corner)
        numbers = [number + each for each in AROUND_A_CORNER]
        if doubled:
            wider = self._wider[doubled]
            numbers = [smallest for each in numbers if each in wider for smallest in wider[each]]
        else:
            numbers = [each for each in numbers if each in self._cubes]
        return numbers, ((1 - off) * side) ** 2 * ROUNDED

    def _nearest_of_all(self, here: Point, hidden: Collection[str]) -> Found | None:
        """By drivers' cubes, the nearest first, until none can hold anybody nearer than who was found."""
        side = 0.5**self._level
        radius = sqrt(3) / 2 * side
        cubes = []
        for number, cube in self._cubes.items():
            x, y, z = cube.corner
            middle = ((x + 0.5) * side, (y + 0.5) * side, (z + 0.5) * side)
            cubes.append((sqrt(chord_squared(here, middle)), number))
        heapify(cubes)
        best: Found | None = None
        while cubes:
            distance, number = heappop(cubes)
            if best is not None and sqrt(best.distance) < (distance - radius) * ROUNDED:
                break
            best = _nearer(best, self._nearest_in((number,), here, hidden))
        return best

    def _nearest_in(self, numbers: Iterable[int], here: Point, hidden: Collection[str]) -> Found | None:
        best, least, (x, y, z), cubes = None, inf, here, self._cubes
        for number in numbers:
            for key, (there_x, there_y, there_z, row) in cubes[number].drivers.items():
                # chord_squared, by hand: this is the innermost loop of a match
                dx, dy, dz = x - there_x, y - there_y, z - there_z
                distance = dx * dx + dy * dy + dz * dz
                if distance <= least and key not in hidden:
                    best, least = row if best is None or distance < least else _first(best, row), distance
        return None if best is None else Found(least, best.driver, best)

    def _add_driver(self, key: str, row: WaitingDriver) -> None:
        self._sort_in(key, (*point(row.position), row))
        self._fit_cubes()

    def _remove_driver(self, key: str) -> None:
        number = self._cube_of.pop(key, None)
        if number is None:
            return
        cube = self._cubes[number]
        del cube.drivers[key]
        if not cube.drivers:
            self._remove_cube(number, cube)
        self._fit_cubes()

    def _add_cube(self, number: int, corner: tuple[int, int, int]) -> Cube:
        cube = self._cubes[number] = Cube(corner)
        for doubled, wider in self._wider.items():
            wider.setdefault(cube.wider(doubled), set()).add(number)
        return cube

    def _remove_cube(self, number: int, cube: Cube) -> None:
        del self._cubes[number]
        for doubled, wider in self._wider.items():
            around = cube.wider(doubled)
            wider[around].remove(number)
            if not wider[around]:
                del wider[around]

    def _sort_in(self, key: str, waiting: Waiting) -> None:
        side = 0.5**self._level
        corner = floor(waiting[0] / side), floor(waiting[1] / side), floor(waiting[2] / side)
        number = self._cube_of[key] = _number(*corner)
        cube = self._cubes.get(number) or self._add_cube(number, corner)
        cube.drivers[key] = waiting

    def _fit_cubes(self) -> None:
        """Choose another level where the number of drivers wants it, and not before it has doubled or halved: else
        drivers who stand evenly could be sorted to and fro at every move."""
        drivers = len(self._cube_of)
        if self._fitted <= 2 * drivers and drivers <= 2 * self._fitted:
            return
        self._fitted = max(drivers, FEW)
        if self._is_crowded():
            while self._is_crowded() and self._level < FINEST:
                self._sort_anew(self._level + 1)
        else:
            while self._is_lonely() and self._level > COARSEST:
                self._sort_anew(self._level - 1)

    def _is_crowded(self) -> bool:
        return len(self._cube_of) > max(CROWDED * len(self._cubes), FEW)

    def _is_lonely(self) -> bool:
        return len(self._cubes) > FEW and len(self._cube_of) < LONELY * len(self._cubes)

    def _sort_anew(self, level: int) -> None:
        cubes, self._cubes, self._level = self._cubes, {}, level
        self._wider = {doubled: {} for doubled in DOUBLED}
        for cube in cubes.values():
            for key, waiting in cube.drivers.items():
                self._sort_in(key, waiting)


class DispatchIndex:
    """Who waits where, over the rows of dispatch: an index of the engine's.

    ``load`` and ``apply`` are the engine's, and bring every committed row. ``write`` is for what a handler has just
    put, which is not committed yet: call it last in the handler, so that nothing is left behind if the handler fails.
    Such rows stand over the committed ones until they are committed; they are few, and never change what is below.
    A row has been committed when its last value has: a task has one transaction under way and fills one more, each
    with a row's last value only, so no earlier value can be taken for it.
    """

    def __init__(self) -> None:
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
            region = regions[owner_of(key)] = Region()
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


def _number(x: int, y: int, z: int) -> int:
    """Of the cube that has this corner, counted in sides, and no other that is nearer the axes."""
    return (x * STRIDE + y) * STRIDE + z


AROUND_A_CORNER = tuple(_number(*step) for step in product((-1, 0), repeat=3))
"""From the number of a corner to those of the cubes that touch it."""


def _first(one: WaitingDriver, other: WaitingDriver) -> WaitingDriver:
    return one if one.driver < other.driver else other
