"""Ways through a city whose streets run north-south and east-west."""

from collections.abc import Iterable
from math import cos, radians
from typing import NamedTuple

from topics.places import Position

METRES_PER_DEGREE = 111_320.0
"""Length of a degree of latitude; a degree of longitude is shorter by the cosine of the latitude. Exact to a metre."""


class Leg(NamedTuple):
    """A stretch of one street, and the speed of driving there in metres a second."""

    here: Position
    there: Position
    mps: float

    @property
    def seconds(self) -> float:
        """Seconds to drive it."""
        return metres(self.here, self.there) / self.mps


def after(legs: Iterable[Leg], seconds: float) -> Position:
    """Return the position on the way after so many seconds; its end if the way takes no longer."""
    left, place = seconds, None
    for leg in legs:
        if left < leg.seconds:
            return along(leg.here, leg.there, left * leg.mps)
        left, place = left - leg.seconds, leg.there
    assert place is not None
    return place


def metres(here: Position, there: Position) -> float:
    """Return the distance by the streets, in metres."""
    north, east = offset(here, there)
    return abs(north) + abs(east)


def moved(here: Position, north_m: float, east_m: float) -> Position:
    """Return the position so many metres away."""
    lat = here.lat + north_m / METRES_PER_DEGREE
    return Position(round(lat, 6), round(here.lon + east_m / (METRES_PER_DEGREE * cos(radians(here.lat))), 6))


def along(here: Position, there: Position, distance_m: float) -> Position:
    """Return the position after so many metres on the way, east or west first, then north or south."""
    north, east = offset(here, there)
    if distance_m >= abs(north) + abs(east):
        return there
    if distance_m <= abs(east):
        return moved(here, 0, distance_m if east > 0 else -distance_m)
    rest = distance_m - abs(east)
    return Position(round(here.lat + (rest if north > 0 else -rest) / METRES_PER_DEGREE, 6), there.lon)


def offset(here: Position, there: Position) -> tuple[float, float]:
    """Return the metres to the north and to the east."""
    north = (there.lat - here.lat) * METRES_PER_DEGREE
    return north, (there.lon - here.lon) * METRES_PER_DEGREE * cos(radians(here.lat))
