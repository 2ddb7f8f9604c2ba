"""Validation of orders against the menu and the opening hours."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.decision import Outcome
from processors.order_validation import Problem, validate
from processors.workflow import Workflow, decide_step
from tests.processors.cases import KITCHEN, NOW, RESTAURANT, P, later, placed
from topics.orders import Item, Modifier, Placed
from topics.records import epoch_ms
from topics.restaurants import Hours, Interval, MenuItem, MenuModifier, Restaurant

CODES = st.text("ABC-/.~ é1", min_size=1, max_size=4)
PRICES = st.integers(0, 10_000)
EXTRAS = st.lists(
    st.builds(MenuModifier, pos_code=CODES, name=st.just("extra"), price=PRICES),
    max_size=3,
    unique_by=lambda m: m.pos_code,
)
MENUS = st.lists(
    st.builds(MenuItem, pos_code=CODES, name=st.just("dish"), unit_price=PRICES, modifiers=EXTRAS.map(tuple)),
    min_size=1,
    max_size=5,
    unique_by=lambda item: item.pos_code,
)


def kitchen(*menu: MenuItem, **changes: Any) -> Restaurant:
    return msgspec.structs.replace(RESTAURANT, menu=menu, currency="INR", **changes)


def an_order(*items: Item, **changes: Any) -> Placed:
    """Return an order of these items with the right total."""
    due = sum(item.quantity * (item.unit_price + sum(m.price for m in item.modifiers)) for item in items)
    return placed(items=items, fees=(), tip=0, tax=0, **{"total": due, **changes})


def problems(order: Placed, restaurant: Restaurant) -> list[str]:
    """Return the pointers of the order's problems."""
    return [problem.pointer for problem in validate(order, restaurant, NOW, P)]


@st.composite
def lines(draw: st.DrawFn, menu: list[MenuItem]) -> list[Item]:
    """Draw items of an order, each with some of its modifiers."""
    found = []
    for number, dish in enumerate(draw(st.lists(st.sampled_from(menu), min_size=1, max_size=4))):
        extras = draw(st.lists(st.sampled_from(dish.modifiers), unique=True)) if dish.modifiers else []
        found.append(
            Item(
                id=str(number),
                pos_code=dish.pos_code,
                name=draw(st.sampled_from(["dish", "what the provider calls it"])),
                quantity=draw(st.integers(1, 5)),
                unit_price=dish.unit_price,
                modifiers=tuple(Modifier(name="extra", pos_code=m.pos_code, price=m.price) for m in extras),
            )
        )
    return found


@given(st.data())
def test_any_order_made_from_the_menu_passes(data: st.DataObject) -> None:
    menu = data.draw(MENUS)
    assert validate(an_order(*data.draw(lines(menu))), kitchen(*menu), NOW, P) == []


def _another_item(item: Item, _: st.DataObject) -> tuple[Item, str]:
    return msgspec.structs.replace(item, pos_code="not-there"), "pos_code"


def _no_code(item: Item, _: st.DataObject) -> tuple[Item, str]:
    return msgspec.structs.replace(item, pos_code=""), "pos_code"


def _another_price(item: Item, data: st.DataObject) -> tuple[Item, str]:
    price = data.draw(PRICES.filter(lambda price: price != item.unit_price))
    return msgspec.structs.replace(item, unit_price=price), "unit_price"


def _a_modifier_more(item: Item, _: st.DataObject) -> tuple[Item, str]:
    more = (*item.modifiers, Modifier(name="gold", pos_code="not-there"))
    return msgspec.structs.replace(item, modifiers=more), f"modifiers/{len(item.modifiers)}/pos_code"


def _a_modifiers_price(item: Item, data: st.DataObject) -> tuple[Item, str]:
    if not item.modifiers:
        return _another_price(item, data)
    index = data.draw(st.integers(0, len(item.modifiers) - 1))
    modifiers = list(item.modifiers)
    price = data.draw(PRICES.filter(lambda price: price != modifiers[index].price))
    modifiers[index] = msgspec.structs.replace(modifiers[index], price=price)
    return msgspec.structs.replace(item, modifiers=tuple(modifiers)), f"modifiers/{index}/price"


Change = Callable[[Item, st.DataObject], tuple[Item, str]]


@pytest.mark.parametrize("change", [_another_item, _no_code, _another_price, _a_modifier_more, _a_modifiers_price])
@given(st.data())
def test_any_change_of_a_line_is_refused_with_its_pointer(change: Change, data: st.DataObject) -> None:
    menu = data.draw(MENUS)
    items = data.draw(lines(menu))
    index = data.draw(st.integers(0, len(items) - 1))
    items[index], field = change(items[index], data)
    assert problems(an_order(*items), kitchen(*menu)) == [f"/items/{index}/{field}"]


@given(st.data(), st.integers(-10_000, 10_000).filter(bool))
def test_any_other_total_is_refused(data: st.DataObject, by: int) -> None:
    menu = data.draw(MENUS)
    order = an_order(*data.draw(lines(menu)))
    assert problems(msgspec.structs.replace(order, total=order.total + by), kitchen(*menu)) == ["/total"]


CHEESE = MenuModifier(pos_code="X", name="Cheese", price=40)
PIZZA = MenuItem(pos_code="P-1", name="Pizza", unit_price=320, modifiers=(CHEESE,))
A_PIZZA = Item(id="1", pos_code="P-1", name="Pizza", quantity=2, unit_price=320)


def test_problems_give_the_expected_value() -> None:
    wrong = msgspec.structs.replace(
        A_PIZZA, unit_price=310, modifiers=(Modifier(name="Cheese", pos_code="X", price=30), Modifier(name="Gold"))
    )
    sold_out = msgspec.structs.replace(PIZZA, pos_code="P-2", available=False)
    second = msgspec.structs.replace(A_PIZZA, pos_code="P-2")
    third = msgspec.structs.replace(A_PIZZA, pos_code="P-3")
    order = an_order(wrong, second, third, currency="EUR")
    assert validate(order, kitchen(PIZZA, sold_out), NOW, P) == [
        Problem("/currency", "Lakshmi's accepts INR, not EUR"),
        Problem("/items/0/unit_price", "the price of 'P-1' is 320 on the menu, not 310"),
        Problem("/items/0/modifiers/0/price", "the price of 'X' is 40 on the menu, not 30"),
        Problem("/items/0/modifiers/1/pos_code", "'P-1' has no modifier '' on the menu"),
        Problem("/items/1/pos_code", "'P-2' is sold out"),
        Problem("/items/2/pos_code", "Lakshmi's has no 'P-3' on its menu"),
    ]


def test_restaurant_without_menu_accepts_any_items() -> None:
    assert problems(an_order(msgspec.structs.replace(A_PIZZA, pos_code=""), currency="EUR"), RESTAURANT) == []


# -- opening hours: NOW is Friday 2027-01-15 08:00 UTC ---------------------------------------------------------------

FROM_NINE = Hours(friday=(Interval(opens="09:00", closes="10:00"),))


def test_order_for_now_is_refused_while_closed() -> None:
    [problem] = validate(an_order(A_PIZZA), kitchen(PIZZA, hours=FROM_NINE), NOW, P)
    assert problem == Problem(
        "/restaurant", "Lakshmi's is closed on Friday 2027-01-15 08:00 in UTC; hours on Friday: 09:00-10:00"
    )
    assert problems(an_order(A_PIZZA), kitchen(PIZZA, hours=FROM_NINE, time_zone="Europe/Berlin")) == []


AT_THE_DOOR = msgspec.structs.replace(placed().customer, position=KITCHEN)


@pytest.mark.parametrize(
    ("wished_s", "refused"),
    [(3600, ["/deliver_at"]), (4199, ["/deliver_at"]), (4200, []), (7799, []), (7800, ["/deliver_at"])],
)
def test_order_for_later_is_validated_at_its_start(wished_s: int, refused: list[str]) -> None:
    """The start is 600 s before the wished time, for a customer next door."""
    order = an_order(A_PIZZA, deliver_at=later(wished_s), customer=AT_THE_DOOR)
    assert problems(order, kitchen(PIZZA, hours=FROM_NINE)) == refused


def test_an_order_whose_start_has_passed_starts_at_once() -> None:
    until_eight = Hours(friday=(Interval(opens="07:00", closes="08:00"),))
    order = an_order(A_PIZZA, deliver_at=later(300), customer=AT_THE_DOOR)
    assert problems(order, kitchen(PIZZA, hours=until_eight)) == ["/deliver_at"]


# -- repeated orders -------------------------------------------------------------------------------------------------


def test_repeated_order_is_not_validated_against_a_new_menu() -> None:
    order, dearer = an_order(A_PIZZA), kitchen(msgspec.structs.replace(PIZZA, unit_price=400))
    applied = decide_step(Workflow(), order, NOW, P, kitchen(PIZZA))
    assert applied.outcome is Outcome.APPLIED
    for restaurant in (dearer, None):
        again = decide_step(applied.workflow, order, NOW, P, restaurant)
        assert (again.outcome, again.problems, again.emit) == (Outcome.ABSORBED, (), ())
    other = decide_step(Workflow(), order, NOW, P, dearer)
    assert (other.outcome, other.changed) == (Outcome.REFUSED, {})
    assert other.reason == "/items/0/unit_price: the price of 'P-1' is 400 on the menu, not 320"
    assert decide_step(other.workflow, order, NOW, P, kitchen(PIZZA)).outcome is Outcome.APPLIED, (
        "the order was refused before"
    )


def test_order_is_validated_at_the_time_it_was_placed() -> None:
    until_eight = kitchen(PIZZA, hours=Hours(friday=(Interval(opens="07:00", closes="08:00"),)))
    before = an_order(A_PIZZA, at=later(-60))
    assert before.at is not None
    assert epoch_ms(before.at) < NOW
    assert decide_step(Workflow(), before, NOW + 3_000_000, P, until_eight).outcome is Outcome.APPLIED
    assert decide_step(Workflow(), an_order(A_PIZZA), NOW + 3_000_000, P, until_eight).outcome is Outcome.REFUSED


def test_same_modifier_twice_is_an_order_for_two() -> None:
    ghee = Modifier(name="Ghee", pos_code="G", price=30)
    double = Item(id="1", pos_code="T", name="Thali", quantity=2, unit_price=250, modifiers=(ghee, ghee))
    offered = MenuItem(
        pos_code="T",
        name="Thali",
        unit_price=250,
        modifiers=(
            MenuModifier(pos_code="G", name="Ghee", price=30),
            MenuModifier(pos_code="G", name="More", price=30),
        ),
    )
    order = placed(items=(double,), fees=(), tip=0, tax=0, total=620)
    assert validate(order, msgspec.structs.replace(RESTAURANT, menu=(offered,), currency="INR"), NOW, P) == []
