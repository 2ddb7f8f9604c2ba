"""Distances, journeys, cells."""

import h3.api.basic_int as h3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.geography import (
    cell,
    chord_squared,
    chord_squared_of,
    distance_m,
    middle,
    point,
    radius_at_most_m,
    ring,
    ring_at_least_m,
    travel_ms,
)
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
    assert chord_squared(point(a), point(b)) == pytest.approx(chord_squared_of(distance_m(a, b)), abs=1e-12)


def test_journeys_take_the_road_s_length_at_the_courier_s_speed() -> None:
    slow = Parameters(courier_speed_m_s=2, detour=1.5, handover_s=10)
    assert travel_ms(KITCHEN, HOME, slow) == round(distance_m(KITCHEN, HOME) * 1.5 / 2 * 1000) + 10_000
    assert travel_ms(KITCHEN, HOME, Parameters(speed_up=0)) == 0


@pytest.mark.parametrize("resolution", [5, 9])
@given(position=POSITIONS, k=st.integers(0, 12), there=st.integers(0, 10_000))
def test_no_point_of_a_ring_is_nearer_than_its_bound(resolution: int, position: Position, k: int, there: int) -> None:
    cells = ring(cell(position, resolution), k)
    if not cells:
        return
    for lat, lon in h3.cell_to_boundary(cells[there % len(cells)]):
        assert distance_m(position, Position(lat, lon)) >= ring_at_least_m(k, resolution)


@pytest.mark.parametrize("resolution", [5, 9])
@given(position=POSITIONS)
def test_no_point_is_further_from_the_middle_of_its_cell_than_the_bound(resolution: int, position: Position) -> None:
    metres = chord_squared(point(position), middle(cell(position, resolution)))
    assert metres <= chord_squared_of(radius_at_most_m(resolution))


@pytest.mark.parametrize("pentagon", h3.get_pentagons(9))
def test_rings_around_a_pentagon_hold_every_cell_once(pentagon: str) -> None:
    cells = [name for k in range(6) for name in ring(pentagon, k)]
    assert len(cells) == len(set(cells))
    assert set(cells) == set(h3.grid_disk(pentagon, 5))


@pytest.mark.parametrize("pentagon", h3.get_pentagons(9))
def test_rings_across_a_pentagon_hold_every_cell_once(pentagon: str) -> None:
    for centre in h3.grid_ring(pentagon, 2):
        cells = [name for k in range(6) for name in ring(centre, k)]
        assert len(cells) == len(set(cells))
        assert set(cells) == set(h3.grid_disk(centre, 5))
