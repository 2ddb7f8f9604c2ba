"""Distances and travel times."""

from math import sin

import h3.api.basic_int as h3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.geography import EARTH_RADIUS_M, chord_squared, distance_m, point, travel_ms
from processors.parameters import Parameters
from tests.processors.cases import HOME, KITCHEN
from topics.places import Position

POSITIONS = st.builds(Position, st.floats(-89.9, 89.9), st.floats(-180, 180))


@pytest.mark.parametrize(
    ("a", "b", "metres"),
    [
        (Position(0, 0), Position(0, 0), 0),
        (Position(0, 0), Position(0, 1), 111_195),
        (Position(0, 0), Position(0, 180), 20_015_115),
    ],
    ids=["nowhere", "a degree", "half around"],
)
def test_distances_are_those_of_the_great_circle(a: Position, b: Position, metres: float) -> None:
    assert distance_m(a, b) == pytest.approx(metres, rel=1e-3)


@given(POSITIONS, POSITIONS)
def test_distances_are_those_that_h3_finds(a: Position, b: Position) -> None:
    found = h3.great_circle_distance((a.lat, a.lon), (b.lat, b.lon), unit="m")
    assert distance_m(a, b) == pytest.approx(found, rel=1e-5, abs=0.01)


@given(POSITIONS, POSITIONS)
def test_chords_compare_as_distances_do(a: Position, b: Position) -> None:
    chord = 2 * sin(distance_m(a, b) / (2 * EARTH_RADIUS_M))
    assert chord_squared(point(a), point(b)) == pytest.approx(chord**2, abs=1e-12)


def test_travel_time_is_road_length_by_speed() -> None:
    slow = Parameters(courier_speed_m_s=2, road_factor=1.5, handover_s=10)
    assert travel_ms(KITCHEN, HOME, slow) == round(distance_m(KITCHEN, HOME) * 1.5 / 2 * 1000) + 10_000
    assert travel_ms(KITCHEN, HOME, Parameters(speed_up=0)) == 0
