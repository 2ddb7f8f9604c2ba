"""Ways through a city whose streets run north-south and east-west."""

from collections.abc import Iterable
from math import cos, radians
from typing import NamedTuple

from topics.places import Position

METRES_PER_DEGREE = 111_320.0
"""Of latitude; of longitude it is less by the cosine of the latitude. Good to a metre within a city."""


class Leg(NamedTuple):
    """A stretch of one street, and how fast one drives there in metres a second."""

    here: Position
    there: Position
    mps: float

    @property
    def seconds(self) -> float:
        """What it takes."""
        return metres(self.here, self.there) / self.mps


def after(legs: Iterable[Leg], seconds: float) -> Position:
    """Where one is on the way after so many seconds; at its end if that is all it takes."""
    left, place = seconds, None
    for leg in legs:
        if left < leg.seconds:
            return along(leg.here, leg.there, left * leg.mps)
        left, place = left - leg.seconds, leg.there
    assert place is not None
    return place


def metres(here: Position, there: Position) -> float:
    """How far it is by the streets."""
    north, east = offset(here, there)
    return abs(north) + abs(east)


def moved(here: Position, north_m: float, east_m: float) -> Position:
    """The position so many metres away."""
    lat = here.lat + north_m / METRES_PER_DEGREE
    return Position(round(lat, 6), round(here.lon + east_m / (METRES_PER_DEGREE * cos(radians(here.lat))), 6))


def along(here: Position, there: Position, distance_m: float) -> Position:
    """Where one is after so many metres on the way, east or west first, then north or south."""
    north, east = offset(here, there)
    if distance_m >= abs(north) + abs(east):
        return there
    if distance_m <= abs(east):
        return moved(here, 0, distance_m if east > 0 else -distance_m)
    rest = distance_m - abs(east)
    return Position(round(here.lat + (rest if north > 0 else -rest) / METRES_PER_DEGREE, 6), there.lon)


def offset(here: Position, there: Position) -> tuple[float, float]:
    """Metres to the north and to the east."""
    north = (there.lat - here.lat) * METRES_PER_DEGREE
    return north, (there.lon - here.lon) * METRES_PER_DEGREE * cos(radians(here.lat))
