"""The city: a seed always gives the same orders, which are valid and can be cooked and delivered."""

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.city import AVENUE_MPS, BLOCK_M, KITCHENS, REGIONS, STREET_MPS, Region, driver_home, order
from simulators.streets import after, along, metres
from topics.families import ORDERS
from topics.orders import Placed
from topics.places import Position
from topics.records import write

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = range(1, 200)
LATITUDES, LONGITUDES = st.floats(18.9, 19.1), st.floats(72.8, 72.9)
POSITIONS = st.builds(Position, LATITUDES, LONGITUDES)


def test_catalogue_json_is_the_output_of_the_city() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "simulators.city"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    assert (ROOT / "catalogue.json").read_text() == printed


def test_seed_decides_the_orders_of_every_run() -> None:
    first = [order("7", "a", number, AT) for number in NUMBERS]
    assert [order("7", "a", number, AT) for number in NUMBERS] == first
    other_run = [order("7", "b", number, AT) for number in NUMBERS]
    assert [placed.items for placed in other_run] == [placed.items for placed in first]
    assert {placed.external_id for placed in other_run}.isdisjoint(placed.external_id for placed in first)
    assert [order("8", "a", number, AT).items for number in NUMBERS] != [placed.items for placed in first]


@pytest.mark.parametrize("number", [1, 2, 3, 50])
def test_order_is_a_record_of_its_topic(number: int) -> None:
    placed = order("1", "run", number, AT)
    assert ORDERS.reader is not None
    assert ORDERS.reader.read(write(placed)) == placed


def test_totals_add_up_and_every_restaurant_has_orders() -> None:
    orders = [order("1", "run", number, AT) for number in NUMBERS]
    assert all(placed.total == _sum(placed) for placed in orders)
    assert {placed.restaurant for placed in orders} == set(KITCHENS)
    for placed in orders:
        menu = {product.code: product for product in KITCHENS[placed.restaurant].menu}
        assert all(menu[item.pos_code].price == item.unit_price for item in placed.items)


def test_customers_live_in_the_region_of_their_restaurant() -> None:
    for placed in (order("1", "run", number, AT) for number in NUMBERS):
        assert KITCHENS[placed.restaurant].region.holds(placed.customer.position)
    assert len({kitchen.region.id for kitchen in KITCHENS.values()}) == len(REGIONS)


def test_regions_are_disjoint_and_share_the_drivers() -> None:
    for region in REGIONS:
        assert not any(region.holds(kitchen.position) for kitchen in KITCHENS.values() if kitchen.region is not region)
    homes = [driver_home("1", f"driver-{number}", number) for number in range(12)]
    assert Counter(region.id for region, _ in homes) == {region.id: 4 for region in REGIONS}
    assert all(region.holds(home) for region, home in homes)


def test_restaurants_are_drawn_by_weight() -> None:
    placed = Counter(order("1", "run", number, AT).restaurant for number in range(1, 3001))
    weights = sum(kitchen.weight for kitchen in KITCHENS.values())
    for kitchen in KITCHENS.values():
        assert placed[kitchen.id] / 3000 == pytest.approx(kitchen.weight / weights, abs=0.03)


def test_avenues_are_faster_than_streets() -> None:
    region = REGIONS[0]
    avenue, street = region.crossing(0, 4), region.crossing(0, 5)
    by_avenue, by_street = region.way(avenue, region.crossing(8, 4)), region.way(street, region.crossing(8, 5))
    assert sum(leg.seconds for leg in by_avenue) == pytest.approx(8 * BLOCK_M / AVENUE_MPS, rel=0.01)
    assert sum(leg.seconds for leg in by_street) == pytest.approx(8 * BLOCK_M / STREET_MPS, rel=0.01)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(REGIONS), st.randoms(use_true_random=False))
def test_way_follows_the_streets_at_their_speed(one: float, other: float, region: Region, rng: Random) -> None:
    here, there = region.crossing(*region.somewhere(rng)), region.crossing(*region.somewhere(rng))
    way = region.way(here, there)
    takes = sum(leg.seconds for leg in way)
    first, second = sorted((one * takes, other * takes))
    assert after(way, 0) in (here, there)
    assert after(way, takes + 1) == there
    assert metres(here, after(way, first)) <= metres(here, after(way, second)) + 1
    assert metres(after(way, first), after(way, second)) <= (second - first) * AVENUE_MPS + 1


@given(st.sampled_from(REGIONS), st.randoms(use_true_random=False))
def test_drifting_driver_stays_in_the_region(region: Region, rng: Random) -> None:
    place = region.crossing(0, 0)
    for _ in range(50):
        place = rng.choice(region.a_block_from(place))
        assert region.holds(place)


@given(POSITIONS, POSITIONS, st.floats(0, 1), st.floats(1, 60))
def test_position_advances_by_the_distance_driven(here: Position, there: Position, part: float, seconds: float) -> None:
    distance = metres(here, there)
    before, then = part * distance, min(distance, part * distance + seconds * AVENUE_MPS)
    driven = metres(along(here, there, before), along(here, there, then))
    assert driven == pytest.approx(then - before, abs=0.01 * distance + 1)
    assert along(here, there, distance + 1) == there


def _sum(placed: Placed) -> int:
    items = sum(
        item.quantity * (item.unit_price + sum(modifier.price for modifier in item.modifiers)) for item in placed.items
    )
    return items + sum(fee.amount for fee in placed.fees) + placed.tip + placed.tax
