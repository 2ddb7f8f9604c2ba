"""The index finds the nearest driver exactly, and looks at few drivers however many wait."""

import random
from collections.abc import Iterator
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.json import encode

from processors import spatial_index
from processors.dispatch import PendingDelivery, Row, WaitingDriver, driver_key, pending_key
from processors.geography import Point, chord_squared, distance_m, point
from processors.spatial_index import DispatchIndex, Overlay
from tests.processors.cases import HOME, KITCHEN, REGION
from topics.places import Position

CITY = st.builds(Position, st.floats(18.80, 19.10), st.floats(72.75, 73.00))
BLOCK = st.builds(Position, st.floats(18.921, 18.923), st.floats(72.833, 72.836))
WORLD = st.builds(Position, st.floats(-90, 90), st.floats(-180, 180))
CORNERS = st.builds(Position, st.sampled_from([-90, -45, 0, 45, 90]), st.sampled_from([-180, -90, 0, 90, 180]))
"""Faces and corners of cubes; many of them are equally far from each other."""
PLACES = st.one_of(CITY, BLOCK, WORLD, CORNERS, st.just(KITCHEN))


def waiting(driver: str, position: Position, region: str = REGION, shift: int = 1) -> dict[str, Row]:
    return {driver_key(region, driver): WaitingDriver(region=region, driver=driver, shift=shift, position=position)}


def pending(delivery: str, since_ms: int, region: str = REGION) -> dict[str, Row]:
    row = PendingDelivery(
        region=region,
        delivery=delivery,
        attempt=1,
        since_ms=since_ms,
        restaurant="lakshmi",
        pickup=KITCHEN,
        dropoff=HOME,
    )
    return {pending_key(region, since_ms, delivery): row}


def commit(index: DispatchIndex, rows: dict[str, Row | None]) -> None:
    for key, row in rows.items():
        index.apply(key.encode(), None if row is None else encode(row))


class BruteForce:
    """The rows of all regions, searched one by one: the index must give the same answers."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def write(self, rows: dict[str, Row | None]) -> None:
        self.rows = {key: row for key, row in (self.rows | rows).items() if row is not None}

    def nearest(self, region: str, position: Position) -> WaitingDriver | None:
        drivers = [row for row in self.rows.values() if isinstance(row, WaitingDriver) and row.region == region]
        here = point(position)
        return min(drivers, key=lambda row: (chord_squared(here, point(row.position)), row.driver), default=None)

    def oldest_pending(self, region: str, near: Position, within_m: float = inf) -> PendingDelivery | None:
        deliveries = [row for row in self.rows.values() if isinstance(row, PendingDelivery) and row.region == region]
        deliveries = [row for row in deliveries if distance_m(near, row.pickup) <= within_m]
        return min(deliveries, key=lambda row: (row.since_ms, row.delivery), default=None)


def name(row: WaitingDriver | None) -> str | None:
    return None if row is None else row.driver


@settings(max_examples=500)
@given(drivers=st.lists(PLACES, max_size=60), positions=st.lists(PLACES, min_size=1, max_size=5))
def test_nearest_driver_is_exact_anywhere_on_earth(drivers: list[Position], positions: list[Position]) -> None:
    index, twin = DispatchIndex(), BruteForce()
    for number, place in enumerate(drivers):
        twin.write({**waiting(f"d{number:02}", place)})
    index.load((key.encode(), encode(row)) for key, row in twin.rows.items())
    for position in positions:
        assert index.nearest(REGION, position) == twin.nearest(REGION, position)


REGIONS = (REGION, "bandra")
STEPS = st.tuples(
    st.sampled_from(["arrive", "leave", "queue", "assign", "begin", "commit"]), st.integers(0, 11), PLACES
)


@settings(max_examples=500)
@given(steps=st.lists(STEPS, min_size=1, max_size=60), positions=st.lists(PLACES, min_size=1, max_size=3))
def test_uncommitted_rows_replace_committed_ones(
    steps: list[tuple[str, int, Position]], positions: list[Position]
) -> None:
    """A task commits one transaction while it fills the next, each with the last value of a row only."""
    index, twin = DispatchIndex(), BruteForce()
    committing: dict[str, Row | None] = {}
    filling: dict[str, Row | None] = {}
    end = [("commit", 0, KITCHEN), ("begin", 0, KITCHEN), ("commit", 0, KITCHEN)]
    for step, number, place in [*steps, *end]:
        region = REGIONS[number % 2]
        rows: dict[str, Row | None] = {}
        if step == "begin" and not committing:
            committing, filling = filling, {}
        elif step == "commit":
            commit(index, committing)
            committing = {}
        elif step == "arrive":
            rows = {**waiting(f"d{number}", place, region)}
        elif step == "leave":
            rows = {driver_key(region, f"d{number}"): None}
        elif step == "queue":
            rows = {**pending(f"bites:{number}", number // 4, region)}
        elif step == "assign":
            rows = {pending_key(region, number // 4, f"bites:{number}"): None}
        filling |= rows
        index.write(rows)
        twin.write(rows)
        for region in REGIONS:
            assert index.oldest_pending(region, KITCHEN) == twin.oldest_pending(region, KITCHEN)
            for position in positions:
                assert index.nearest(region, position) == twin.nearest(region, position)
    assert index.uncommitted() == {}
    assert index.rows() == twin.rows


@pytest.mark.parametrize("seed", range(20))
def test_crowds_that_come_and_go_leave_an_exact_index(seed: int) -> None:
    """Cubes split and go away; half of the drivers stand exactly where others do."""
    choose = random.Random(seed)
    index, twin = DispatchIndex(), BruteForce()
    spread = 10.0 ** -choose.randint(0, 6)
    places = [Position(18.9 + choose.uniform(0, spread), 72.8 + choose.uniform(0, spread)) for _ in range(150)]
    for share in (0.9, 0.1, 0.9, 0.1):
        for number in range(300):
            stays = choose.random() < share
            rows: dict[str, Row | None] = {driver_key(REGION, f"d{number}"): None}
            if stays:
                rows = {**waiting(f"d{number}", choose.choice(places))}
            commit(index, rows)
            twin.write(rows)
        for position in [*choose.sample(places, 10), *somewhere_in_town(10, seed)]:
            assert index.nearest(REGION, position) == twin.nearest(REGION, position)
    commit(index, dict.fromkeys(twin.rows))
    assert index.nearest(REGION, KITCHEN) is None


def test_drivers_at_one_distance_are_taken_by_id() -> None:
    index, choose = DispatchIndex(), random.Random(5)
    drivers = [f"d{number:02}" for number in range(40)]
    for driver in choose.sample(drivers, len(drivers)):
        commit(index, {**waiting(driver, Position(0, choose.choice([90, -90])))})
    taken = []
    while (row := index.nearest(REGION, Position(0, 0))) is not None:
        taken.append(row.driver)
        index.write({driver_key(REGION, row.driver): None})
    assert taken == drivers


def test_uncommitted_row_stays_when_an_earlier_one_commits() -> None:
    index = DispatchIndex()
    earlier: dict[str, Row | None] = {**waiting("asha", KITCHEN), **pending("bites:1", 5)}
    index.write(earlier)
    index.write({**dict.fromkeys(earlier), **waiting("ravi", HOME)})
    commit(index, earlier)
    assert name(index.nearest(REGION, KITCHEN)) == "ravi"
    assert index.oldest_pending(REGION, KITCHEN) is None


def test_committed_row_can_be_replaced_by_the_next_commit() -> None:
    index = DispatchIndex()
    rows: dict[str, Row | None] = {**waiting("asha", KITCHEN), **pending("bites:1", 5)}
    index.write(rows)
    commit(index, rows)
    assert index.uncommitted() == {}
    commit(index, dict.fromkeys(rows))
    assert (index.nearest(REGION, KITCHEN), index.oldest_pending(REGION, KITCHEN)) == (None, None)


def test_index_kept_up_to_date_equals_one_built_from_disk() -> None:
    rows: dict[str, Row] = {}
    index, choose = DispatchIndex(), random.Random(7)
    for step in range(500):
        place = Position(18.9 + choose.random() / 10, 72.8 + choose.random() / 10)
        fresh = waiting(f"d{choose.randrange(30)}", place) if choose.random() < 0.5 else pending(f"b:{step % 40}", step)
        rows |= fresh
        commit(index, {**fresh})
        gone = choose.choice(sorted(rows))
        if choose.random() < 0.4:
            del rows[gone]
            commit(index, {gone: None})
    rebuilt = DispatchIndex()
    rebuilt.load((key.encode(), encode(row)) for key, row in rows.items())
    assert index.rows() == rebuilt.rows() == rows
    assert index.nearest(REGION, KITCHEN) == rebuilt.nearest(REGION, KITCHEN)
    assert index.oldest_pending(REGION, KITCHEN) == rebuilt.oldest_pending(REGION, KITCHEN)


def test_regions_are_separate() -> None:
    index = DispatchIndex()
    commit(index, {**waiting("asha", KITCHEN, "bandra"), **pending("bites:1", 5, "bandra")})
    assert index.nearest(REGION, KITCHEN) is None
    assert index.oldest_pending(REGION, KITCHEN) is None


def test_oldest_delivery_is_first_committed_or_not() -> None:
    index = DispatchIndex()
    commit(index, {**pending("bites:2", 20), **pending("bites:3", 30)})
    index.write({**pending("bites:1", 10)})
    order = []
    while (row := index.oldest_pending(REGION, KITCHEN)) is not None:
        order.append(row.delivery)
        index.write({pending_key(REGION, row.since_ms, row.delivery): None})
    assert order == ["bites:1", "bites:2", "bites:3"]


def test_view_reads_a_row_by_its_key() -> None:
    [(key, row)] = waiting("asha", KITCHEN).items()
    view = Overlay(DispatchIndex(), {key.encode(): encode(row)}.get)
    assert view.get(key) == row
    assert view.get(driver_key(REGION, "ravi")) is None


def somewhere_in_town(many: int, seed: int) -> list[Position]:
    """Places in 15 km x 15 km."""
    choose = random.Random(seed)
    return [Position(18.9 + choose.random() * 0.135, 72.8 + choose.random() * 0.142) for _ in range(many)]


def stored(places: list[Position]) -> Iterator[tuple[bytes, bytes]]:
    """The rows of drivers at these places, as the store has them."""
    for number, place in enumerate(places):
        yield from ((key.encode(), encode(row)) for key, row in waiting(f"d{number:05}", place).items())


def count_distances(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """The places of all drivers that later searches look at."""
    seen: list[Point] = []

    def counted(here: Point, place: Point) -> float:
        seen.append(place)
        return chord_squared(here, place)

    monkeypatch.setattr(spatial_index, "chord_squared", counted)
    return seen


@pytest.mark.parametrize("many", [30, 300, 3_000, 30_000])
def test_search_looks_at_few_drivers_however_many_wait(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    index, pickups = DispatchIndex(), somewhere_in_town(300, 2)
    index.load(stored(somewhere_in_town(many, 1)))
    seen = count_distances(monkeypatch)
    for pickup in pickups:
        index.nearest(REGION, pickup)
    assert len(seen) / len(pickups) <= 40


def test_search_looks_at_few_drivers_when_all_are_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    index = DispatchIndex()
    index.load(stored(somewhere_in_town(3_000, 1)))
    seen = count_distances(monkeypatch)
    index.nearest(REGION, Position(52.5, 13.4))
    assert len(seen) <= 100


def test_search_looks_at_few_drivers_after_a_depot_empties(monkeypatch: pytest.MonkeyPatch) -> None:
    index, many = DispatchIndex(), 2_000
    index.load(stored([KITCHEN] * many))
    for number, place in enumerate(somewhere_in_town(many, 6)):
        commit(index, {**waiting(f"d{number:05}", place, shift=2)})
    seen = count_distances(monkeypatch)
    pickups = somewhere_in_town(100, 8)
    for pickup in pickups:
        index.nearest(REGION, pickup)
    assert len(seen) / len(pickups) <= 40


def test_nearest_of_thousands_is_exact_however_they_stand() -> None:
    """Most of them in one street, some exactly where others are, a few all over the world."""
    choose = random.Random(3)
    places = [Position(18.92 + choose.random() / 5_000, 72.83 + choose.random() / 5_000) for _ in range(2_000)]
    places += [*somewhere_in_town(800, 4), *choose.sample(places, 200)]
    places += [Position(choose.uniform(-90, 90), choose.uniform(-180, 180)) for _ in range(100)]
    index, twin = DispatchIndex(), BruteForce()
    index.load(stored(places))
    twin.write({**index.rows()})
    pickups = [*choose.sample(places, 30), *somewhere_in_town(30, 5), Position(90, 0), Position(0, 180), Position(0, 0)]
    for pickup in pickups:
        assert index.nearest(REGION, pickup) == twin.nearest(REGION, pickup)


def test_region_without_rows_takes_no_memory() -> None:
    index = DispatchIndex()
    for number in range(10):
        rows = {**waiting("asha", KITCHEN, f"region-{number}"), **pending("bites:1", 5, f"region-{number}")}
        index.write(rows)
        commit(index, {**rows})
        commit(index, dict.fromkeys(rows))
        index.write({driver_key(f"never-{number}", "asha"): None})
        commit(index, {driver_key(f"never-{number}", "asha"): None})
    assert (index._drivers, index._pending, index.rows(), index.uncommitted()) == ({}, {}, {}, {})
