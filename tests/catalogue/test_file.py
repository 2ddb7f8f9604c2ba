"""The catalogue as a file: all of it can be used, or everything that is wrong with it is said, with its place."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from processors.intake import check
from processors.parameters import Parameters
from streams.catalogue_file import WrongCatalogue, read_catalogue
from tests.stack import ROOT
from topics import orders
from topics.records import write
from topics.restaurants import LARGEST_RESTAURANT, READER

GOOD: list[dict[str, Any]] = json.loads((ROOT / "catalogue.json").read_text())


def file_of(directory: Path, content: Any) -> Path:
    """A file with this in it."""
    file = directory / "catalogue.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def wrong_with(file: Path) -> list[str]:
    """What is said of it, a line each."""
    with pytest.raises(WrongCatalogue) as wrong:
        read_catalogue(file)
    first, *others = str(wrong.value).splitlines()
    assert str(file) in first
    return others


def test_the_catalogue_of_the_city_is_good_and_every_restaurant_has_a_menu_and_is_always_open() -> None:
    found = read_catalogue(ROOT / "catalogue.json")
    assert len(found) == len(GOOD)
    assert all(6 <= len(restaurant.menu) <= 10 for restaurant in found)
    assert not any(any(restaurant.hours.days) for restaurant in found)


def test_a_file_may_say_as_little_as_before_there_were_menus(tmp_path: Path) -> None:
    little = {name: GOOD[0][name] for name in ("restaurant", "name", "region", "position", "pos_url", "preparation_s")}
    [restaurant] = read_catalogue(file_of(tmp_path, [little]))
    assert restaurant.menu == ()


def test_everything_that_is_wrong_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    first, second, third = json.loads(json.dumps(GOOD[:3]))
    del first["name"]
    first["menu"][0]["unit_price"] = "1"
    first["menu"][1]["modifiers"] *= 2
    second["hours"] = {"monday": [{"opens": "25:00", "closes": "03:00"}]}
    second["restaurant"] = third["restaurant"]
    third["time_zone"] = "Bombay"
    assert wrong_with(file_of(tmp_path, [first, second, third, 3])) == [
        "/0/menu/0/unit_price: Expected `int`, got `str`",
        "/0/menu/1/modifiers/0/pos_code: 'X-GHEE' is there 2 times",
        "/0/menu/1/modifiers/1/pos_code: 'X-GHEE' is there 2 times",
        "/0/name: the field is missing",
        "/1/hours/monday/0/opens: Expected `str` matching regex '^([01][0-9]|2[0-3]):[0-5][0-9]$'",
        "/1/restaurant: 'harbour-sushi' is there 2 times",
        "/2/time_zone: there is no 'Bombay'; use a name like `Asia/Kolkata`",
        "/2/restaurant: 'harbour-sushi' is there 2 times",
        "/3: Expected `object`, got `int`",
    ]


def test_what_no_field_shows_is_said_beside_what_is_wrong_with_the_fields(tmp_path: Path) -> None:
    first = json.loads(json.dumps(GOOD[0]))
    first["preparation_s"] = "soon"
    first["time_zone"] = "Bombay"
    del first["currency"]
    first["menu"] = [{**first["menu"][0], "pos_code": code} for code in ("A", "B", "A")]
    assert wrong_with(file_of(tmp_path, [first])) == [
        "/0/preparation_s: Expected `int`, got `str`",
        "/0/time_zone: there is no 'Bombay'; use a name like `Asia/Kolkata`",
        "/0/currency: the menu has prices, so say in which currency",
        "/0/menu/0/pos_code: 'A' is there 2 times",
        "/0/menu/2/pos_code: 'A' is there 2 times",
    ]


@pytest.mark.parametrize("menu", [3, [3], [{}, {"pos_code": []}], {}])
@pytest.mark.parametrize("time_zone", [3, "", None])
def test_a_menu_and_a_zone_may_be_anything_and_are_said_to_be_wrong(tmp_path: Path, menu: Any, time_zone: Any) -> None:
    wrong = wrong_with(file_of(tmp_path, [{**GOOD[0], "menu": menu, "time_zone": time_zone}]))
    assert any(line.startswith("/0/menu") for line in wrong)
    assert any(line.startswith("/0/time_zone: ") for line in wrong)


def test_a_restaurant_that_is_too_large_for_a_record_is_refused(tmp_path: Path) -> None:
    def named(size: int) -> dict[str, Any]:
        dishes = [{"pos_code": f"D-{n}", "name": "n" * 200, "unit_price": 1} for n in range(4051)]
        return {**GOOD[0], "menu": [*dishes, {"pos_code": "L", "name": "n" * size, "unit_price": 1}]}

    fits = LARGEST_RESTAURANT - len(write(READER.read(json.dumps(named(0)).encode())))
    assert 0 < fits <= 200
    assert read_catalogue(file_of(tmp_path, [named(fits)]))
    assert wrong_with(file_of(tmp_path, [GOOD[1], named(fits + 1)])) == [
        "/1: the restaurant has 1000001 bytes of JSON, and may have 1000000"
    ]


@pytest.mark.parametrize("content", ["", "{", "{}", '"x"', "null", "[" * 100_000], ids=lambda content: content[:5])
def test_what_is_no_list_of_restaurants_is_said_in_a_sentence(tmp_path: Path, content: str) -> None:
    file = file_of(tmp_path, content)
    with pytest.raises(WrongCatalogue, match="is not a JSON list of restaurants") as wrong:
        read_catalogue(file)
    assert len(str(wrong.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(WrongCatalogue, match="No such file"):
        read_catalogue(tmp_path / "nothing.json")


def test_the_orders_that_the_readme_shows_are_on_the_menu() -> None:
    text = (ROOT / "README.md").read_text()
    [curl], [record], [kcat] = (
        re.findall(pattern, text, re.DOTALL)
        for pattern in (r"application/json' -d '(\{.*?\})'\n", r"ORDER = (\{.*?\n\})", r"my-shop:1003=(\{.*?\})'")
    )
    menus = {restaurant.key: restaurant for restaurant in read_catalogue(ROOT / "catalogue.json")}
    for shown in (json.loads(curl), ast.literal_eval(record), json.loads(kcat)):
        placed = orders.PLACED.read(json.dumps({"type": "Placed", **shown}).encode())
        assert check(placed, menus[placed.restaurant], 0, Parameters()) == []


def test_the_restaurant_that_the_readme_shows_is_good(tmp_path: Path) -> None:
    [shown] = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [restaurant] = read_catalogue(file_of(tmp_path, f"[{shown}]"))
    assert restaurant.menu[0].modifiers
