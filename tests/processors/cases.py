"""Common cases of the tests: one restaurant, one order and one driver in a small city."""

from datetime import timedelta
from typing import Any

import msgspec

from processors.parameters import Parameters
from topics.orders import Customer, Fee, Item, Modifier, Placed
from topics.places import Position
from topics.records import instant
from topics.restaurants import Restaurant

NOW = 1_800_000_000_000
P = Parameters()
KITCHEN, HOME, STREET = Position(18.9220, 72.8347), Position(18.9322, 72.8264), Position(18.9275, 72.8310)
REGION, ORDER, DRIVER = "fort", "bites:1001", "asha"
RESTAURANT = Restaurant(
    restaurant="lakshmi",
    name="Lakshmi's",
    region=REGION,
    position=KITCHEN,
    pos_url="http://pos.example/restaurants/lakshmi",
    preparation_s=600,
)


def placed(external_id: str | None = "1001", **changes: Any) -> Placed:
    """Return an order of 2 x (250 + 30) + 40 + 20 + 10 = 630, placed at NOW."""
    order = Placed(
        at=instant(NOW),
        provider="bites",
        external_id=external_id,
        display_number="A7",
        restaurant=RESTAURANT.restaurant,
        items=(
            Item(
                id="thali",
                pos_code="T1",
                name="Thali",
                quantity=2,
                unit_price=250,
                modifiers=(Modifier(name="Ghee", pos_code="G", price=30),),
                note="not hot",
            ),
        ),
        fees=(Fee(name="delivery", amount=40),),
        tip=20,
        tax=10,
        total=630,
        currency="INR",
        customer=Customer(name="Meera", address="12 Marine Drive", position=HOME, note="ring twice"),
    )
    return msgspec.structs.replace(order, **changes)


def later(seconds: float) -> Any:
    """Return a time after NOW."""
    return instant(NOW) + timedelta(seconds=seconds)
