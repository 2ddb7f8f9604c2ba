"""Who waits where, in memory: how dispatch finds the nearest driver and the oldest delivery.

Drivers are places on the unit sphere, sorted into the cubes of a grid in space. A search looks at the eight cubes
around the corner that is nearest to the pickup, then at all that lie in the eight of four times the side around theirs,
and so on, until nobody beyond can be nearer than who was found. How large the smallest cubes are follows from how many
wait: where many drivers share a cube, all are sorted into cubes of half the side, where hardly any do, into those of
the double. So a match looks at as much with a hundred thousand drivers as with a hundred, and it is exact.

Of so many hardly anything is in a cache of the processor's, and each object that is looked at has to be waited for. So
the places in a cube are numbers in one array; of the drivers themselves only the one who was found is looked at.
"""

from array import array
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

CROWDED = 4.0
"""Drivers a cube, on average, from which on smaller cubes are used. Half the side leaves a quarter of the drivers."""
LONELY = 1.2
"""And below which larger ones are. No cube is without drivers: where they stand far apart, it is near 1."""
FEW = 16
"""So few cubes are gone through as they are, and so few drivers are not sorted anew."""
DOUBLED = (2, 4)
"""How often a search doubles the side of the smallest, before it goes through all cubes, the nearest first."""
FIRST_LEVEL = 10
COARSEST, FINEST = 6, 19
"""A cube's side at a level is 2 ** -level of the earth's radius: 100 km at 6, 6 km at 10, 12 m at 19."""
STRIDE = 1 << 21
"""Between the numbers of two cubes that are neighbours in y, and its square between those in x; in z they follow on
each other. A number has 63 bits."""
HALF_STRIDE = STRIDE // 2
ENTRY = 4
"""How many numbers of a cube's array are one driver's: three of the place on the unit sphere, and the slot."""
FIRST_SLOT = 2
"""The places of a slot's driver are no larger than 1: the number of a slot is not to be taken for one."""
ROUNDED = 1 - 1e-9
"""What a bound is lowered by, so that nothing that was rounded makes a driver beyond it look nearer."""


class Found(NamedTuple):
    """A driver, compared by distance first, then by id."""

    distance: float
    """The square of the chord on the unit sphere."""
    driver: str
    row: WaitingDriver


class Region:
    """Who waits in one region. Rows go by their keys."""

    def __init__(self) -> None:
        self._level = FIRST_LEVEL
        self._cubes: dict[int, array[float]] = {}
        self._wider: dict[int, dict[int, set[int]]] = {doubled: {} for doubled in DOUBLED}
        """By how often the side is doubled: the number of a cube -> those of the smallest ones in it."""
        self._slot_of: dict[str, int] = {}
        """Key of a driver's row -> where in the next three the driver is."""
        self._keys = [""] * FIRST_SLOT
        self._rows: list[WaitingDriver | None] = [None] * FIRST_SLOT
        self._cube_of = array("q", [0] * FIRST_SLOT)
        self._free: list[int] = []
        self._fitted, self._sorted = FEW, 0
        """How many drivers there were when the level was chosen, and how many have come since."""
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

    def nearest(self, here: Point, hidden: Collection[str]) -> Found | None:
        """The nearest driver whose row is not hidden."""
        if len(self._cubes) <= FEW:
            return self._nearest_in(self._cubes.values(), here, hidden)
        for doubled in (0, *DOUBLED):
            cubes, safe = self._around(here, doubled)
            best = self._nearest_in(cubes, here, hidden)
            if len(cubes) == len(self._cubes) or (best is not None and best.distance < safe):
                return best
        return self._nearest_of_all(here, hidden)

    def oldest_pending(self, hidden: Collection[str]) -> tuple[str, PendingDelivery] | None:
        """The delivery that has waited longest and whose row is not hidden, by key."""
        key = next((key for key in self._oldest_first if key not in hidden), None)
        return None if key is None else (key, self._pending[key])

    @property
    def empty(self) -> bool:
        """Whether nobody waits."""
        return not self._slot_of and not self._pending

    def rows(self) -> Iterator[tuple[str, Row]]:
        """All rows."""
        yield from self._pending.items()
        yield from ((key, row) for key, slot in self._slot_of.items() if (row := self._rows[slot]) is not None)

    def _around(self, here: Point, doubled: int) -> tuple[list["array[float]"], float]:
        """The smallest cubes in the eight around the corner nearest to here, of those whose side is so often the
        double, and the square of the distance up to which there are no others."""
        sides = float(1 << self._level - doubled)
        x, y, z = here[0] * sides, here[1] * sides, here[2] * sides
        corner_x, corner_y, corner_z = round(x), round(y), round(z)
        off = max(abs(x - corner_x), abs(y - corner_y), abs(z - corner_z))
        number, find = _number(corner_x, corner_y, corner_z), self._cubes.get
        if not doubled:
            cubes = [cube for step in AROUND_A_CORNER if (cube := find(number + step)) is not None]
        else:
            wider = self._wider[doubled]
            cubes = [self._cubes[each] for step in AROUND_A_CORNER for each in wider.get(number + step, ())]
        return cubes, ((1 - off) / sides) ** 2 * ROUNDED

    def _nearest_of_all(self, here: Point, hidden: Collection[str]) -> Found | None:
        """By drivers' cubes, the nearest first, until none can hold anybody nearer than who was found."""
        side = 0.5**self._level
        radius = sqrt(3) / 2 * side
        cubes = []
        for number in self._cubes:
            x, y, z = _corner(number)
            middle = ((x + 0.5) * side, (y + 0.5) * side, (z + 0.5) * side)
            cubes.append((sqrt(chord_squared(here, middle)), number))
        heapify(cubes)
        best: Found | None = None
        while cubes:
            distance, number = heappop(cubes)
            if best is not None and sqrt(best.distance) < (distance - radius) * ROUNDED:
                break
            best = _nearer(best, self._nearest_in((self._cubes[number],), here, hidden))
        return best

    def _nearest_in(self, cubes: Iterable["array[float]"], here: Point, hidden: Collection[str]) -> Found | None:
        (x, y, z), keys, best, least = here, self._keys, 0, inf
        for cube in cubes:
            each = iter(cube)
            for there_x, there_y, there_z, slot in zip(each, each, each, each):  # noqa: B905
                # chord_squared, by hand: this is the innermost loop of a match
                dx, dy, dz = x - there_x, y - there_y, z - there_z
                distance = dx * dx + dy * dy + dz * dz
                if distance > least or (hidden and keys[int(slot)] in hidden):
                    continue
                if distance < least or keys[int(slot)] < keys[best]:
                    best, least = int(slot), distance
        row = self._rows[best]
        return None if row is None else Found(least, row.driver, row)

    def _add_driver(self, key: str, row: WaitingDriver) -> None:
        if self._free:
            slot = self._free.pop()
            self._keys[slot], self._rows[slot] = key, row
        else:
            slot = len(self._keys)
            self._keys.append(key)
            self._rows.append(row)
            self._cube_of.append(0)
        self._slot_of[key] = slot
        self._sorted += 1
        self._sort_in(*point(row.position), slot)
        self._fit_cubes()

    def _remove_driver(self, key: str) -> None:
        slot = self._slot_of.pop(key, None)
        if slot is None:
            return
        number = self._cube_of[slot]
        cube = self._cubes[number]
        if len(cube) == ENTRY:
            self._remove_cube(number)
        else:
            end = cube.index(slot) + 1
            cube[end - ENTRY : end] = cube[-ENTRY:]
            del cube[-ENTRY:]
        self._keys[slot], self._rows[slot] = "", None
        self._free.append(slot)
        self._fit_cubes()

    def _remove_cube(self, number: int) -> None:
        del self._cubes[number]
        for doubled, wider in self._wider.items():
            around = _wider(number, doubled)
            wider[around].remove(number)
            if not wider[around]:
                del wider[around]

    def _sort_in(self, x: float, y: float, z: float, slot: int) -> None:
        side = 0.5**self._level
        number = self._cube_of[slot] = _number(floor(x / side), floor(y / side), floor(z / side))
        cube = self._cubes.get(number)
        if cube is None:
            self._cubes[number] = array("d", (x, y, z, slot))
            for doubled, wider in self._wider.items():
                wider.setdefault(_wider(number, doubled), set()).add(number)
        else:
            cube.extend((x, y, z, slot))

    def _fit_cubes(self) -> None:
        """Choose another level where the number of drivers wants it, or where they stand; and not before it has doubled
        or halved, or as many have come as there are: so sorting anew costs each of them little."""
        drivers = len(self._slot_of)
        if self._fitted <= 2 * drivers and drivers <= 2 * self._fitted and self._sorted < self._fitted:
            return
        self._fitted, self._sorted = max(drivers, FEW), 0
        if self._is_crowded():
            while self._is_crowded() and self._level < FINEST:
                self._sort_anew(self._level + 1)
        else:
            while self._is_lonely() and self._level > COARSEST:
                self._sort_anew(self._level - 1)

    def _is_crowded(self) -> bool:
        return len(self._slot_of) > max(CROWDED * len(self._cubes), FEW)

    def _is_lonely(self) -> bool:
        return len(self._cubes) > FEW and len(self._slot_of) < LONELY * len(self._cubes)

    def _sort_anew(self, level: int) -> None:
        cubes, self._cubes, self._level = self._cubes, {}, level
        self._wider = {doubled: {} for doubled in DOUBLED}
        for cube in cubes.values():
            each = iter(cube)
            for x, y, z, slot in zip(each, each, each, each):  # noqa: B905
                self._sort_in(x, y, z, int(slot))


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
        here, below, above = point(position), self._committed.get(region), self._fresh.get(region)
        best = None if below is None else below.nearest(here, self._uncommitted)
        best = best if above is None else _nearer(best, above.nearest(here, ()))
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
        name = owner_of(key)
        region = regions.get(name)
        if region is None:
            if row is None:
                return
            region = regions[name] = Region()
        assert row is None or isinstance(row, WaitingDriver | PendingDelivery)
        region.put(key, row)
        if region.empty:  # whoever makes up names of regions must not fill the memory
            del regions[name]


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


def _corner(number: int) -> tuple[int, int, int]:
    """Of the cube that has this number."""
    number, z = divmod(number + HALF_STRIDE, STRIDE)
    x, y = divmod(number + HALF_STRIDE, STRIDE)
    return x, y - HALF_STRIDE, z - HALF_STRIDE


def _wider(number: int, doubled: int) -> int:
    """The number of the cube that this one lies in, whose side is so often the double."""
    x, y, z = _corner(number)
    return _number(x >> doubled, y >> doubled, z >> doubled)


AROUND_A_CORNER = tuple(_number(*step) for step in product((-1, 0), repeat=3))
"""From the number of a corner to those of the cubes that touch it."""
