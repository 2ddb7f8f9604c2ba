"""Index of dispatch in memory: it finds the nearest waiting driver and the oldest pending delivery of a region.

The drivers of a region lie in an octree over the unit sphere. A cube of space holds up to ``MAX_PER_CUBE`` drivers, or
up to eight cubes of half its side. So cubes are small where drivers stand close together, and a search opens few of
them. It opens the nearest cube first, and ends when the next one is farther away than the nearest driver so far.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from math import inf

from processors.dispatch import PendingDelivery, Row, WaitingDriver, decode_row, kind_of
from processors.geography import Point, chord_squared, distance_m, point
from topics.identity import owner_of
from topics.places import Position

MAX_PER_CUBE = 16
"""Drivers in a cube; a cube with more is split."""
MIN_SIDE = 0.5**19
"""Side of the smallest cubes, in radii of the earth (12 m). Such a cube holds any number of drivers."""


class Cube:
    """A cube of the octree. A leaf has drivers, any other cube has children, and only an empty root has neither."""

    __slots__ = ("children", "drivers", "low", "side")

    def __init__(self, low: Point = (-1.0, -1.0, -1.0), side: float = 2.0) -> None:
        self.low = low
        """Corner with the least coordinates. Corners and sides are exact: sums of few powers of two."""
        self.side = side
        self.children: dict[Point, Cube] = {}
        """Cubes of half the side, by their low corners."""
        self.drivers: dict[str, Point] = {}
        """Key of a driver's row -> place of the driver."""

    def add(self, key: str, place: Point) -> None:
        """Add a driver, and split a leaf that has too many."""
        if self.children:
            corner = self._corner(place)
            if corner not in self.children:
                self.children[corner] = Cube(corner, self.side / 2)
            self.children[corner].add(key, place)
            return
        self.drivers[key] = place
        if len(self.drivers) > MAX_PER_CUBE and self.side > MIN_SIDE:
            drivers, self.drivers = self.drivers, {}
            corners = {self._corner(each) for each in drivers.values()}
            self.children = {corner: Cube(corner, self.side / 2) for corner in corners}
            for key, place in drivers.items():
                self.add(key, place)

    def remove(self, key: str, place: Point) -> None:
        """Remove a driver, and each child that becomes empty."""
        if not self.children:
            del self.drivers[key]
            return
        corner = self._corner(place)
        child = self.children[corner]
        child.remove(key, place)
        if child.is_empty:
            del self.children[corner]

    @property
    def is_empty(self) -> bool:
        """True if no driver is in this cube."""
        return not self.children and not self.drivers

    def nearest(self, here: Point) -> str:
        """Return the key of the nearest driver; of those at the same distance, the least key. "" if there is none."""
        best = (inf, "")
        queue = [(0.0, self.low, self)]  # disjoint cubes: no two have the same corner
        while queue and queue[0][0] <= best[0]:
            cube = heappop(queue)[2]
            while len(cube.children) == 1:  # from the earth down to a city
                (cube,) = cube.children.values()
            for child in cube.children.values():
                heappush(queue, (child._distance(here), child.low, child))
            for key, place in cube.drivers.items():
                best = min(best, (chord_squared(here, place), key))
        return best[1]

    def _corner(self, place: Point) -> Point:
        """Return the low corner of the child that contains a place."""
        (x, y, z), (low_x, low_y, low_z), half = place, self.low, self.side / 2
        return (
            low_x + half * (x >= low_x + half),
            low_y + half * (y >= low_y + half),
            low_z + half * (z >= low_z + half),
        )

    def _distance(self, here: Point) -> float:
        """Return a lower bound of ``chord_squared`` from here to the places in this cube.

        It is exact to the last bit, because both round the same operations, and rounding keeps the order of numbers.
        """
        (x, y, z), (low_x, low_y, low_z), side = here, self.low, self.side
        dx = max(low_x - x, x - (low_x + side), 0.0)
        dy = max(low_y - y, y - (low_y + side), 0.0)
        dz = max(low_z - z, z - (low_z + side), 0.0)
        return dx * dx + dy * dy + dz * dz


class DispatchIndex:
    """Waiting drivers and pending deliveries of a task: an index of the engine, with uncommitted rows applied.

    The engine passes committed rows to ``load`` and ``apply``. A handler passes the rows that it has put to ``write``,
    as its last step, because a rollback does not reach the index. An uncommitted row replaces the committed one until
    the engine applies the same value; any other value is from an earlier transaction. One transaction commits while the
    next is filled, and each has the last value of a row only, so an earlier value cannot be taken for it. A task
    that breaks is opened with a new index.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._uncommitted: dict[str, Row | None] = {}
        self._drivers: dict[str, Cube] = {}
        """Region -> its waiting drivers, if there are any."""
        self._pending: dict[str, list[str]] = {}
        """Region -> keys of its pending deliveries, the oldest first, if there are any."""
        self.waiting_drivers = Counter[str]()
        """Region -> number of its waiting drivers, if there are any."""

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Add every committed row."""
        for key, value in rows:
            self.apply(key, value)

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Apply a committed row, unless an uncommitted one replaces it; None deletes it."""
        name = key.decode()
        if kind_of(name) == "asked":
            return
        row = None if value is None else decode_row(name, value)
        if name not in self._uncommitted:
            self._put(name, row)
        elif self._uncommitted[name] == row:
            del self._uncommitted[name]

    def write(self, rows: Mapping[str, Row | None]) -> None:
        """Apply rows that are not committed yet; None deletes a row."""
        for key, row in rows.items():
            if kind_of(key) != "asked":
                self._uncommitted[key] = row
                self._put(key, row)

    def nearest(self, region: str, position: Position) -> WaitingDriver | None:
        """Return the nearest waiting driver of a region; of those at the same distance, the first by id."""
        if region not in self._drivers:
            return None
        row = self._rows[self._drivers[region].nearest(point(position))]
        assert isinstance(row, WaitingDriver)
        return row

    def oldest_pending(self, region: str, near: Position, within_m: float = inf) -> PendingDelivery | None:
        """Return the delivery of a region that has waited longest, of those with a pickup within a distance."""
        for key in self._pending.get(region, ()):
            row = self._rows[key]
            assert isinstance(row, PendingDelivery)
            if distance_m(near, row.pickup) <= within_m:
                return row
        return None

    def pending_deliveries(self) -> dict[str, int]:
        """Return region -> number of its pending deliveries, if there are any."""
        return {region: len(keys) for region, keys in self._pending.items()}

    def rows(self) -> dict[str, Row]:
        """Return all drivers and deliveries by key, committed or not."""
        return dict(self._rows)

    def uncommitted(self) -> dict[str, Row | None]:
        """Return the rows that are not committed yet, by key; None for a deletion."""
        return dict(self._uncommitted)

    def _put(self, key: str, row: Row | None) -> None:
        region, old = owner_of(key), self._rows.pop(key, None)
        if row is not None:
            self._rows[key] = row
        if isinstance(old, WaitingDriver):
            self._drivers[region].remove(key, point(old.position))
            self.waiting_drivers[region] -= 1
            if self._drivers[region].is_empty:  # a made-up name of a region must not take memory for ever
                del self._drivers[region]
                del self.waiting_drivers[region]
        if isinstance(row, WaitingDriver):
            self._drivers.setdefault(region, Cube()).add(key, point(row.position))
            self.waiting_drivers[region] += 1
        if isinstance(old, PendingDelivery):
            keys = self._pending[region]
            del keys[bisect_left(keys, key)]
            if not keys:
                del self._pending[region]
        if isinstance(row, PendingDelivery):
            insort(self._pending.setdefault(region, []), key)


class Overlay:
    """The view of one decision (``dispatch.View``): the index, and ``read`` (the task's ``get``) for a row by key."""

    def __init__(self, index: DispatchIndex, read: Callable[[bytes], bytes | None]) -> None:
        self._read = read
        self.nearest = index.nearest
        self.oldest_pending = index.oldest_pending

    def get(self, key: str) -> Row | None:
        """Return the row of this key, committed or not."""
        value = self._read(key.encode())
        return None if value is None else decode_row(key, value)
