"""The records of restaurants: what may be left out, and what cannot be."""

import json
from typing import Any

import pytest

from topics.records import Undecodable, write
from topics.restaurants import READER, Hours, Restaurant

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


def test_a_restaurant_as_it_was_before_there_were_menus_is_one_that_is_always_open_and_cooks_anything() -> None:
    old = read()
    assert (old.time_zone, old.hours, old.currency, old.menu) == ("UTC", Hours(), None, ())
    assert json.loads(write(old)) == OLD, "and is written as it was"


def test_what_is_written_is_read_again() -> None:
    full = read(
        time_zone="Asia/Kolkata",
        hours={"friday": [{"opens": "18:00", "closes": "02:00"}]},
        currency="INR",
        menu=[{**PIZZA, "available": False, "modifiers": [{"pos_code": "X", "name": "Cheese", "price": 40}]}],
    )
    assert READER.read(write(full)) == full
    assert full.key == "lakshmi"


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"time_zone": "Mars/Olympus"}, "", "time_zone: there is no 'Mars/Olympus'"),
        ({"time_zone": "../etc/passwd"}, "", "time_zone: there is no"),
        ({"time_zone": "Asia"}, "", "time_zone: there is no"),
        ({"time_zone": "x" * 5000}, "", "time_zone: there is no"),
        ({"time_zone": "\0"}, "", "time_zone: there is no"),
        ({"time_zone": ""}, "", "time_zone: there is no"),
        ({"hours": {"monday": [{"opens": "24:00", "closes": "01:00"}]}}, "/hours/monday/0/opens", "matching regex"),
        ({"hours": {"monday": [{"opens": "10:00"}]}}, "/hours/monday/0/closes", "is missing"),
        ({"hours": {"mon": []}}, "/hours", "unknown field `mon`"),
        ({"menu": [PIZZA]}, "", "currency: the menu has prices"),
        ({"menu": [PIZZA, PIZZA], "currency": "INR"}, "", "menu: there are two 'P-1'"),
        ({"menu": [{**PIZZA, "unit_price": -1}], "currency": "INR"}, "/menu/0/unit_price", ">= 0"),
        ({"menu": [{**PIZZA, "pos_code": ""}], "currency": "INR"}, "/menu/0/pos_code", "length >= 1"),
        (
            {"menu": [{**PIZZA, "modifiers": [{"pos_code": "X", "name": "x"}] * 2}], "currency": "INR"},
            "/menu/0",
            "modifiers: there are two 'X'",
        ),
    ],
)
def test_what_cannot_be_is_refused_naming_the_place(changes: dict[str, Any], pointer: str, said: str) -> None:
    with pytest.raises(Undecodable) as wrong:
        read(**changes)
    assert wrong.value.pointer == pointer
    assert said in wrong.value.reason
