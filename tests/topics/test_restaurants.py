"""Records of restaurants: optional fields, and values that are rejected."""

import json
from typing import Any

import pytest

from topics.records import Undecodable, write
from topics.restaurants import READER, Restaurant

OLD = {
    "type": "Restaurant",
    "restaurant": "lakshmi",
    "name": "Lakshmi's",
    "region": "fort",
    "position": {"lat": 18.9, "lon": 72.8},
    "pos_url": "http://pos.example/lakshmi",
    "preparation_s": 600,
}
PIZZA = {"pos_code": "P-1", "name": "Pizza", "unit_price": 320}


def read(**changes: Any) -> Restaurant:
    return READER.read(json.dumps({**OLD, **changes}).encode())


def test_restaurant_without_menu_is_open_and_cooks_anything() -> None:
    old = read()
    assert (old.time_zone, old.hours, old.currency, old.menu) == ("UTC", None, None, ())
    assert json.loads(write(old)) == OLD, "it is written without the new fields"


def test_written_restaurant_is_read_back() -> None:
    full = read(
        time_zone="Asia/Kolkata",
        hours={"friday": [{"opens": "18:00", "closes": "02:00"}]},
        currency="INR",
        menu=[{**PIZZA, "available": False, "modifiers": [{"pos_code": "X", "name": "Cheese", "price": 40}]}],
    )
    assert READER.read(write(full)) == full
    assert full.key == "lakshmi"


TWO_PRICES = [{"pos_code": "X", "name": "x", "price": price} for price in (1, 2)]


@pytest.mark.parametrize(
    ("changes", "pointer", "reason"),
    [
        ({"time_zone": "Mars/Olympus"}, "", "time_zone: there is no 'Mars/Olympus'"),
        ({"time_zone": "../etc/passwd"}, "", "time_zone: there is no"),
        ({"time_zone": "Asia"}, "", "time_zone: there is no"),
        ({"time_zone": "x" * 5000}, "/time_zone", "the IANA name of a time zone"),
        ({"time_zone": "\0"}, "/time_zone", "the IANA name of a time zone"),
        ({"time_zone": ""}, "/time_zone", "the IANA name of a time zone"),
        (
            {"hours": {"monday": [{"opens": "24:00", "closes": "01:00"}]}},
            "/hours/monday/0/opens",
            "a time of day",
        ),
        ({"hours": {"monday": [{"opens": "10:00"}]}}, "/hours/monday/0/closes", "is missing"),
        ({"hours": {"mon": []}}, "/hours", "there is no field `mon`"),
        ({"menu": [PIZZA]}, "", "currency: the menu has prices"),
        ({"menu": [PIZZA, PIZZA], "currency": "INR"}, "", "menu: there are two 'P-1'"),
        ({"menu": [{**PIZZA, "unit_price": -1}], "currency": "INR"}, "/menu/0/unit_price", "at least 0"),
        ({"menu": [{**PIZZA, "pos_code": ""}], "currency": "INR"}, "/menu/0/pos_code", "at least 1 characters"),
        (
            {"menu": [{**PIZZA, "modifiers": TWO_PRICES}], "currency": "INR"},
            "/menu/0",
            "modifiers: 'X' has two prices",
        ),
        ({"position": {"lat": 0, "lon": 0}}, "", "position: latitude 0, longitude 0 is in the sea"),
    ],
)
def test_wrong_value_is_rejected_with_its_location(changes: dict[str, Any], pointer: str, reason: str) -> None:
    with pytest.raises(Undecodable) as raised:
        read(**changes)
    assert raised.value.pointer == pointer
    assert reason in raised.value.reason
