"""Distances, journeys and cells on the earth.

The earth is a sphere of its mean radius here (6371.0088 km, IUGG), which is right to 0.5 %: less than any road's
detour.
"""

from functools import lru_cache
from math import asin, cos, radians, sin, sqrt

import h3.api.basic_int as h3

from processors.parameters import Parameters
from topics.places import Position

EARTH_RADIUS_M = 6_371_008.8

Point = tuple[float, float, float]
"""A place on the unit sphere: x, y, z."""


def distance_m(a: Position, b: Position) -> float:
    """The great-circle distance in metres, by the haversine formula."""
    lat_a, lat_b = radians(a.lat), radians(b.lat)
    haversine = sin((lat_b - lat_a) / 2) ** 2 + cos(lat_a) * cos(lat_b) * sin(radians(b.lon - a.lon) / 2) ** 2
    return 2 * EARTH_RADIUS_M * asin(min(1.0, sqrt(haversine)))


def travel_ms(a: Position, b: Position, parameters: Parameters) -> int:
    """How long a courier takes from one place to another, the handover there included, in milliseconds."""
    road_m = distance_m(a, b) * parameters.detour
    return parameters.duration_ms(road_m / parameters.courier_speed_m_s + parameters.handover_s)


def cell(position: Position, resolution: int) -> int:
    """The H3 cell a position lies in, as the number that it is: half the time of its name."""
    number: int = h3.latlng_to_cell(position.lat, position.lon, resolution)
    return number


def cell_name(position: Position, resolution: int) -> str:
    """The H3 cell a position lies in, as it is usually written: in hexadecimal."""
    return str(h3.int_to_str(cell(position, resolution)))


@lru_cache(maxsize=65_536)
def ring(centre: int, k: int) -> tuple[int, ...]:
    """The cells ``k`` steps away from a cell."""
    return tuple(h3.grid_ring(centre, k))


def middle(cell: int) -> Point:
    """The middle of a cell."""
    lat, lon = h3.cell_to_latlng(cell)
    return point(Position(lat, lon))


@lru_cache(maxsize=16)
def _edge_m(resolution: int) -> tuple[float, float]:
    """No cell's edge is shorter than the first, none longer than the second.

    H3 lays a regular grid of hexagons on each face of an icosahedron by gnomonic projection. That shrinks lengths by
    cos(37.4 degrees) squared, 0.63, at most, from the middle of a face to its corner. Edges in the middle, the longest,
    have 1.11 times the average, and 0.63 * 1.11 = 0.70; the rest is a margin.
    """
    average: float = h3.average_hexagon_edge_length(resolution, unit="m")
    return 0.65 * average, 1.2 * average


def radius_at_most_m(resolution: int) -> float:
    """How far a point is from the middle of its cell, at most."""
    return _edge_m(resolution)[1]


def ring_at_least_m(k: int, resolution: int) -> float:
    """How far a point in ring ``k`` is, at least, from any point in the middle cell.

    The middles of cells k steps apart are at least 1.5 k edges apart, and a point is at most one edge from its
    cell's middle.
    """
    return max(0.0, 1.5 * k - 2) * _edge_m(resolution)[0]


def point(position: Position) -> Point:
    """The place on the unit sphere: distances between such are cheap to compare."""
    lat, lon = radians(position.lat), radians(position.lon)
    flat = cos(lat)
    return flat * cos(lon), flat * sin(lon), sin(lat)


def chord_squared(a: Point, b: Point) -> float:
    """The square of the straight line through the earth: the nearer the place, the smaller."""
    x, y, z = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return x * x + y * y + z * z


def chord_squared_of(distance: float) -> float:
    """``chord_squared`` of two places this many metres apart."""
    return (2 * sin(distance / (2 * EARTH_RADIUS_M))) ** 2
