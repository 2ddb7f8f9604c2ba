"""The city: the same orders for the same seed, which add up and can be cooked and delivered."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.city import DRIVING_MPS, KITCHENS, REGIONS, order
from simulators.streets import along, metres
from topics.families import ORDERS
from topics.orders import Placed
from topics.places import Position
from topics.records import write

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = range(1, 200)
LATITUDES, LONGITUDES = st.floats(18.9, 19.1), st.floats(72.8, 72.9)
POSITIONS = st.builds(Position, LATITUDES, LONGITUDES)


def test_the_catalogue_is_what_the_city_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "simulators.city"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    assert (ROOT / "catalogue.json").read_text() == printed


def test_a_seed_replays_the_same_orders_whatever_the_run() -> None:
    first = [order("7", "a", number, AT) for number in NUMBERS]
    assert [order("7", "a", number, AT) for number in NUMBERS] == first
    other_run = [order("7", "b", number, AT) for number in NUMBERS]
    assert [placed.items for placed in other_run] == [placed.items for placed in first]
    assert {placed.external_id for placed in other_run}.isdisjoint(placed.external_id for placed in first)
    assert [order("8", "a", number, AT).items for number in NUMBERS] != [placed.items for placed in first]


@pytest.mark.parametrize("number", [1, 2, 3, 50])
def test_an_order_is_a_record_of_its_topic(number: int) -> None:
    placed = order("1", "run", number, AT)
    assert ORDERS.reader is not None
    assert ORDERS.reader.read(write(placed)) == placed


def test_every_order_adds_up_and_every_restaurant_gets_some() -> None:
    orders = [order("1", "run", number, AT) for number in NUMBERS]
    assert all(placed.total == _sum(placed) for placed in orders)
    assert {placed.restaurant for placed in orders} == set(KITCHENS)
    for placed in orders:
        menu = {product.code: product for product in KITCHENS[placed.restaurant].menu}
        assert all(menu[item.pos_code].price == item.unit_price for item in placed.items)


def test_customers_live_in_the_region_of_their_restaurant() -> None:
    for placed in (order("1", "run", number, AT) for number in NUMBERS):
        region = KITCHENS[placed.restaurant].region
        far = max(metres(region.corner, region.crossing(lane, road)) for lane in (0, region.lanes) for road in (0, 22))
        assert metres(region.corner, placed.customer.position) <= far
    assert len({kitchen.region.id for kitchen in KITCHENS.values()}) == len(REGIONS)


@given(POSITIONS, POSITIONS, st.floats(0, 1), st.floats(1, 60))
def test_a_driver_gets_nearer_by_what_is_driven_and_ends_there(
    here: Position, there: Position, part: float, seconds: float
) -> None:
    distance = metres(here, there)
    before, after = part * distance, min(distance, part * distance + seconds * DRIVING_MPS)
    driven = metres(along(here, there, before), along(here, there, after))
    assert driven == pytest.approx(after - before, abs=0.01 * distance + 1)
    assert along(here, there, distance + 1) == there


def _sum(placed: Placed) -> int:
    items = sum(
        item.quantity * (item.unit_price + sum(modifier.price for modifier in item.modifiers)) for item in placed.items
    )
    return items + sum(fee.amount for fee in placed.fees) + placed.tip + placed.tax
