"""The catalogue file: either all of it is valid, or every error is listed with its place."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from processors.order_validation import validate
from processors.parameters import Parameters
from streams.catalogue.file import WrongCatalogue, read_catalogue
from tests.support.stack import ROOT
from topics import orders
from topics.patterns import ADVICE, PARTY_URL
from topics.records import write
from topics.restaurants import MAX_RESTAURANT_BYTES, READER

GOOD: list[dict[str, Any]] = json.loads((ROOT / "catalogue.json").read_text())


def file_of(directory: Path, content: Any) -> Path:
    """Write a file with this content."""
    file = directory / "catalogue.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def wrong_with(file: Path) -> list[str]:
    """Return the errors of a file, one per line."""
    with pytest.raises(WrongCatalogue) as wrong:
        read_catalogue(file)
    first, *others = str(wrong.value).splitlines()
    assert str(file) in first
    return [re.sub(r"^restaurant \S+ (?=/)", "", line) for line in others]


def test_the_shipped_catalogue_has_menus_and_is_always_open() -> None:
    found = read_catalogue(ROOT / "catalogue.json")
    assert len(found) == len(GOOD)
    assert all(6 <= len(restaurant.menu) <= 10 for restaurant in found)
    assert all(restaurant.hours is None for restaurant in found)


def test_a_file_without_menus_is_valid(tmp_path: Path) -> None:
    little = {name: GOOD[0][name] for name in ("restaurant", "name", "region", "position", "pos_url", "preparation_s")}
    [restaurant] = read_catalogue(file_of(tmp_path, [little]))
    assert restaurant.menu == ()


def test_all_errors_are_listed_at_once_with_their_places(tmp_path: Path) -> None:
    first, second, third = json.loads(json.dumps(GOOD[:3]))
    del first["name"]
    first["menu"][0]["unit_price"] = "1"
    first["menu"][1]["modifiers"] += [{**first["menu"][1]["modifiers"][0], "price": 1}]
    second["hours"] = {"monday": [{"opens": "25:00", "closes": "03:00"}]}
    second["restaurant"] = third["restaurant"]
    third["time_zone"] = "Bombay"
    assert wrong_with(file_of(tmp_path, [first, second, third, 3])) == [
        "/0/menu/0/unit_price: it must be a whole number, not text",
        "/0/menu/1/modifiers/1/price: 'X-GHEE' has the price 1500 before: it needs one price",
        "/0/name: the field is missing",
        "/1/hours/monday/0/opens: it must be a time of day, such as 11:30",
        "/1/restaurant: 'harbour-sushi' is there 2 times",
        "/2/time_zone: there is no 'Bombay'; use a name like `Asia/Kolkata`",
        "/2/restaurant: 'harbour-sushi' is there 2 times",
        "/3: it must be an object, not a whole number",
    ]


def test_an_error_names_the_restaurant_and_the_fields_that_exist(tmp_path: Path) -> None:
    first = {**GOOD[0], "hours": {"freitag": []}, "position": {"lat": 91.5, "lon": 72.8}, "pos_url": "pos"}
    with pytest.raises(WrongCatalogue) as wrong:
        read_catalogue(file_of(tmp_path, [first]))
    for sentence in (
        "restaurant lakshmi-tiffin /0/hours: there is no field `freitag`; the fields are monday, tuesday,",
        "restaurant lakshmi-tiffin /0/position/lat: it must be at most 90",
        "restaurant lakshmi-tiffin /0/pos_url: it must be a URL such as https://pos.example/orders, without user name",
    ):
        assert sentence in str(wrong.value)


def test_errors_across_fields_are_listed_beside_errors_of_fields(tmp_path: Path) -> None:
    first = json.loads(json.dumps(GOOD[0]))
    first["preparation_s"] = "soon"
    first["time_zone"] = "Bombay"
    del first["currency"]
    first["menu"] = [{**first["menu"][0], "pos_code": code} for code in ("A", "B", "A")]
    assert wrong_with(file_of(tmp_path, [first])) == [
        "/0/preparation_s: it must be a whole number, not text",
        "/0/time_zone: there is no 'Bombay'; use a name like `Asia/Kolkata`",
        "/0/currency: the menu has prices, so say in which currency",
        "/0/menu/0/pos_code: 'A' is there 2 times",
        "/0/menu/2/pos_code: 'A' is there 2 times",
    ]


@pytest.mark.parametrize("menu", [3, [3], [{}, {"pos_code": []}], {}])
@pytest.mark.parametrize("time_zone", [3, "", None])
def test_any_wrong_menu_or_zone_gives_an_error(tmp_path: Path, menu: Any, time_zone: Any) -> None:
    wrong = wrong_with(file_of(tmp_path, [{**GOOD[0], "menu": menu, "time_zone": time_zone}]))
    assert any(line.startswith("/0/menu") for line in wrong)
    assert any(line.startswith("/0/time_zone: ") for line in wrong)


def test_a_restaurant_that_is_too_large_for_a_record_is_refused(tmp_path: Path) -> None:
    def named(size: int) -> dict[str, Any]:
        dishes = [{"pos_code": f"D-{n}", "name": "n" * 200, "unit_price": 1} for n in range(4051)]
        return {**GOOD[0], "menu": [*dishes, {"pos_code": "L", "name": "n" * size, "unit_price": 1}]}

    fits = MAX_RESTAURANT_BYTES - len(write(READER.read(json.dumps(named(0)).encode())))
    assert 0 < fits <= 200
    assert read_catalogue(file_of(tmp_path, [named(fits)]))
    assert wrong_with(file_of(tmp_path, [GOOD[1], named(fits + 1)])) == [
        "/1: the restaurant has 1000001 bytes of JSON, and may have 1000000"
    ]


@pytest.mark.parametrize("content", ["", "{", "{}", '"x"', "null", "[" * 100_000], ids=lambda content: content[:5])
def test_a_file_that_is_no_list_gives_one_sentence(tmp_path: Path, content: str) -> None:
    file = file_of(tmp_path, content)
    with pytest.raises(WrongCatalogue, match="is not a JSON list of restaurants") as wrong:
        read_catalogue(file)
    assert len(str(wrong.value).splitlines()) == 1


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WrongCatalogue, match="No such file"):
        read_catalogue(tmp_path / "nothing.json")


def test_orders_of_the_readme_are_on_the_menu() -> None:
    text = (ROOT / "README.md").read_text()
    [curl], [record], [kcat] = (
        re.findall(pattern, text, re.DOTALL)
        for pattern in (r"application/json' -d '(\{.*?\})'\n", r"ORDER = (\{.*?\n\})", r"my-shop:1003=(\{.*?\})'")
    )
    menus = {restaurant.key: restaurant for restaurant in read_catalogue(ROOT / "catalogue.json")}
    for shown in (json.loads(curl), ast.literal_eval(record), json.loads(kcat)):
        placed = orders.PLACED.read(json.dumps({"type": "Placed", **shown}).encode())
        assert validate(placed, menus[placed.restaurant], 0, Parameters()) == []


def test_documented_restaurant_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text().partition("## Restaurants and menus")[2]
    [shown] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    [restaurant] = read_catalogue(file_of(tmp_path, f"[{shown}]"))
    assert restaurant.menu[0].modifiers


def test_an_http_address_outside_this_machine_needs_a_setting(tmp_path: Path) -> None:
    file = file_of(tmp_path, [GOOD[0], {**GOOD[1], "pos_url": "http://pos.example"}])
    assert wrong_with(file) == [
        "/1/pos_url: it must begin with https://, because DABBAWALA_ALLOW_HTTP_PARTIES is not set to 1"
    ]
    assert len(read_catalogue(file, allow_http=True)) == 2
    assert read_catalogue(file_of(tmp_path, [{**GOOD[1], "pos_url": "https://pos.example"}]))


@pytest.mark.parametrize(
    "url", ["https://u:p@pos.example", "https://pos.example?", "https://pos.example#x", "http:///"]
)
def test_a_url_with_more_than_host_and_path_is_refused(tmp_path: Path, url: str) -> None:
    [error] = wrong_with(file_of(tmp_path, [{**GOOD[0], "pos_url": url}]))
    assert error == f"/0/pos_url: {ADVICE[PARTY_URL]}"
