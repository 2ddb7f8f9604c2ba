"""Who waits where: the nearest is exact, and costs no more with many."""

import random
from array import array
from collections.abc import Collection, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.json import encode

from processors.dispatch import PendingDelivery, Row, WaitingDriver, driver_key, pending_key
from processors.geography import Point, chord_squared, point
from processors.waiting import ENTRY, DispatchIndex, Found, Overlay, Region
from tests.processors.cases import HOME, KITCHEN, REGION
from topics.places import Position

CITY = st.builds(Position, st.floats(18.80, 19.10), st.floats(72.75, 73.00))
BLOCK = st.builds(Position, st.floats(18.921, 18.923), st.floats(72.833, 72.836))
WORLD = st.builds(Position, st.floats(-90, 90), st.floats(-180, 180))
PLACES = st.one_of(CITY, BLOCK, WORLD, st.just(KITCHEN))


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


def brute_force(drivers: dict[str, Position], position: Position) -> str | None:
    here = point(position)
    return min(drivers, key=lambda name: (chord_squared(here, point(drivers[name])), name), default=None)


def name(row: WaitingDriver | None) -> str | None:
    return None if row is None else row.driver


@settings(max_examples=300)
@given(drivers=st.lists(PLACES, max_size=60), position=PLACES)
def test_nearest_is_nearest_anywhere_on_earth(drivers: list[Position], position: Position) -> None:
    index = DispatchIndex()
    where = {f"d{number:02}": place for number, place in enumerate(drivers)}
    index.load((key.encode(), encode(row)) for driver in where for key, row in waiting(driver, where[driver]).items())
    assert name(index.nearest(REGION, position)) == brute_force(where, position)


STEPS = st.tuples(st.sampled_from(["arrive", "leave", "begin", "commit"]), st.integers(0, 5), PLACES)


@settings(max_examples=300)
@given(steps=st.lists(STEPS, min_size=1, max_size=40), position=PLACES)
def test_nearest_counts_what_is_not_committed_yet(steps: list[tuple[str, int, Position]], position: Position) -> None:
    """As in a task: one transaction is under way, another is being filled, and each has a row's last value only."""
    index = DispatchIndex()
    where: dict[str, Position] = {}
    committing: dict[str, Row | None] = {}
    pending: dict[str, Row | None] = {}
    for what, number, place in [*steps, ("commit", 0, KITCHEN), ("begin", 0, KITCHEN), ("commit", 0, KITCHEN)]:
        driver = f"d{number}"
        if what == "begin" and not committing:
            committing, pending = pending, {}
        elif what == "commit":
            commit(index, committing)
            committing = {}
        elif what in ("arrive", "leave"):
            where.pop(driver, None)
            rows: dict[str, Row | None] = {driver_key(REGION, driver): None}
            if what == "arrive":
                where[driver] = place
                rows = {**waiting(driver, place)}
            pending |= rows
            index.write(rows)
        assert name(index.nearest(REGION, position)) == brute_force(where, position)
    assert index.uncommitted() == {}
    assert {key.rpartition("/")[2] for key in index.committed()} == set(where)


def test_nothing_uncommitted_changes_the_index_below() -> None:
    index = DispatchIndex()
    commit(index, {**waiting("asha", KITCHEN), **pending("bites:1", 5)})
    before = index.committed()
    index.write({driver_key(REGION, "asha"): None, pending_key(REGION, 5, "bites:1"): None, **waiting("ravi", HOME)})
    assert index.committed() == before
    assert name(index.nearest(REGION, KITCHEN)) == "ravi"
    assert index.oldest_pending(REGION) is None


def test_what_was_committed_no_longer_stands_over_the_index() -> None:
    index = DispatchIndex()
    rows: dict[str, Row | None] = {**waiting("asha", KITCHEN), **pending("bites:1", 5)}
    index.write(rows)
    commit(index, rows)
    assert index.uncommitted() == {}
    commit(index, dict.fromkeys(rows))
    assert (index.nearest(REGION, KITCHEN), index.oldest_pending(REGION)) == (None, None)


def test_an_index_kept_up_to_date_is_the_one_built_anew() -> None:
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
    anew = DispatchIndex()
    anew.load((key.encode(), encode(row)) for key, row in rows.items())
    assert index.committed() == anew.committed() == rows
    assert index.nearest(REGION, KITCHEN) == anew.nearest(REGION, KITCHEN)
    assert index.oldest_pending(REGION) == anew.oldest_pending(REGION)


def test_regions_do_not_see_each_other() -> None:
    index = DispatchIndex()
    commit(index, {**waiting("asha", KITCHEN, "bandra"), **pending("bites:1", 5, "bandra")})
    assert index.nearest(REGION, KITCHEN) is None
    assert index.oldest_pending(REGION) is None


def test_the_oldest_delivery_comes_first_committed_or_not() -> None:
    index = DispatchIndex()
    commit(index, {**pending("bites:2", 20), **pending("bites:3", 30)})
    index.write({**pending("bites:1", 10)})
    order = []
    while (row := index.oldest_pending(REGION)) is not None:
        order.append(row.delivery)
        index.write({pending_key(REGION, row.since_ms, row.delivery): None})
    assert order == ["bites:1", "bites:2", "bites:3"]


def test_the_view_reads_a_row_by_its_key() -> None:
    [(key, row)] = waiting("asha", KITCHEN).items()
    view = Overlay(DispatchIndex(), {key.encode(): encode(row)}.get)
    assert view.get(key) == row
    assert view.get(driver_key(REGION, "ravi")) is None


def drivers_all_over_town(many: int) -> Iterator[tuple[bytes, bytes]]:
    """In 15 km x 15 km."""
    choose = random.Random(1)
    for number in range(many):
        place = Position(18.9 + choose.random() * 0.135, 72.8 + choose.random() * 0.142)
        yield from ((key.encode(), encode(row)) for key, row in waiting(f"d{number}", place).items())


def somewhere_in_town(many: int, seed: int) -> list[Position]:
    choose = random.Random(seed)
    return [Position(18.9 + choose.random() * 0.135, 72.8 + choose.random() * 0.142) for _ in range(many)]


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each search to come: how many cubes, and how many drivers in them, are looked at in one step of it."""
    steps: list[tuple[int, int]] = []
    nearest_in = Region._nearest_in

    def counted(
        region: Region, cubes: Collection["array[float]"], here: Point, hidden: Collection[str]
    ) -> Found | None:
        steps.append((len(cubes), sum(map(len, cubes)) // ENTRY))
        return nearest_in(region, cubes, here, hidden)

    monkeypatch.setattr(Region, "_nearest_in", counted)
    return steps


@pytest.mark.parametrize("many", [30, 300, 3_000, 60_000])
def test_a_search_looks_at_as_much_however_many_wait(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    index, pickups = DispatchIndex(), somewhere_in_town(500, 2)
    index.load(drivers_all_over_town(many))
    steps = looked_at(monkeypatch)
    for pickup in pickups:
        index.nearest(REGION, pickup)
    cubes, drivers = (sum(counts) / len(pickups) for counts in zip(*steps, strict=True))
    assert cubes <= 20
    assert drivers <= 32


def test_the_nearest_of_thousands_is_nearest_however_they_stand() -> None:
    """Most of them in one street, some exactly where others are, a few all over the world."""
    choose = random.Random(3)
    places = [Position(18.92 + choose.random() / 5_000, 72.83 + choose.random() / 5_000) for _ in range(2_000)]
    places += [*somewhere_in_town(800, 4), *choose.sample(places, 200)]
    places += [Position(choose.uniform(-90, 90), choose.uniform(-180, 180)) for _ in range(100)]
    index = DispatchIndex()
    where = {f"d{number:04}": place for number, place in enumerate(places)}
    index.load((key.encode(), encode(row)) for driver in where for key, row in waiting(driver, where[driver]).items())
    pickups = [*choose.sample(places, 30), *somewhere_in_town(30, 5), Position(90, 0), Position(0, 180), Position(0, 0)]
    for pickup in pickups:
        assert name(index.nearest(REGION, pickup)) == brute_force(where, pickup)


@pytest.mark.parametrize("apart_m", [60, 100, 120, 129, 140, 160, 200, 400])
def test_drivers_who_stand_evenly_are_not_sorted_to_and_fro(apart_m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sorts = 0
    sort_anew = Region._sort_anew

    def counted(region: Region, level: int) -> None:
        nonlocal sorts
        sorts += 1
        sort_anew(region, level)

    monkeypatch.setattr(Region, "_sort_anew", counted)
    step = apart_m / 111_000
    index = DispatchIndex()
    for x in range(30):
        for y in range(30):
            commit(index, {**waiting(f"d{x}-{y}", Position(18.9 + x * step, 72.8 + y * step))})
    while_loading, sorts = sorts, 0
    for move in range(100):
        name = f"d{move % 30}-7"
        commit(index, {driver_key(REGION, name): None})
        commit(index, {**waiting(name, Position(18.9 + move * step / 7, 72.81))})
    assert while_loading <= 20
    assert sorts == 0


def test_drivers_who_came_from_one_depot_are_sorted_anew_where_they_stand_now(monkeypatch: pytest.MonkeyPatch) -> None:
    index, many = DispatchIndex(), 2_000
    for number in range(many):
        commit(index, {**waiting(f"d{number}", KITCHEN)})
    for shift in (2, 3):
        for number, place in enumerate(somewhere_in_town(many, 4 + shift)):
            commit(index, {**waiting(f"d{number}", place, shift=shift)})
    steps = looked_at(monkeypatch)
    for pickup in somewhere_in_town(100, 8):
        index.nearest(REGION, pickup)
    assert len(steps) <= 150, "hardly any goes through all cubes"
    assert max(cubes for cubes, _ in steps) < many / 8


def test_a_region_where_nobody_waits_is_forgotten() -> None:
    index = DispatchIndex()
    for number in range(10):
        rows = {**waiting("asha", KITCHEN, f"region-{number}"), **pending("bites:1", 5, f"region-{number}")}
        index.write(rows)
        commit(index, {**rows})
        commit(index, dict.fromkeys(rows))
        index.write({driver_key(f"never-{number}", "asha"): None})
        commit(index, {driver_key(f"never-{number}", "asha"): None})
    assert (index._committed, index._fresh, index.uncommitted()) == ({}, {}, {})
