"""Validation of orders: totals, times and sizes."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from processors.order_validation import MAX_ORDER_BYTES, Problem, Times, timeliness, times_of, validate
from tests.processors.cases import NOW, RESTAURANT, P, later, placed
from topics.orders import READER, Fee, Item, Modifier
from topics.places import Position
from topics.records import Undecodable, write


def test_an_order_that_adds_up_passes() -> None:
    assert validate(placed(), RESTAURANT, NOW, P) == []


@pytest.mark.parametrize("total", [629, 631, 0])
def test_a_wrong_total_is_refused_line_by_line(total: int) -> None:
    assert validate(placed(total=total), RESTAURANT, NOW, P) == [
        Problem("/total", f"the total is {total}, but /items/0 2 x 280 + /fees/0 40 + /tip 20 + /tax 10 = 630")
    ]


def test_every_part_of_the_sum_counts() -> None:
    fees = (Fee(name="delivery", amount=40), Fee(name="bag", amount=5))
    assert validate(placed(fees=fees, tip=0, tax=0, total=605), RESTAURANT, NOW, P) == []


def test_an_unknown_restaurant_is_refused() -> None:
    assert validate(placed(), None, NOW, P) == [Problem("/restaurant", "there is no restaurant 'lakshmi'")]


@pytest.mark.parametrize(("seconds", "problems"), [(3600, []), (0, []), (-900, []), (-901, ["/deliver_at"])])
def test_wished_time_long_past_is_refused(seconds: int, problems: list[str]) -> None:
    found = timeliness(placed(deliver_at=later(seconds)), NOW - 14 * 3_600_000, NOW)
    assert [problem.pointer for problem in found] == problems


@pytest.mark.parametrize(
    ("age_s", "shown"), [(3600, ""), (3601, "60 min"), (14 * 3600, "14 h"), (14 * 86_400, "14 days")]
)
def test_order_for_now_that_is_over_an_hour_old_is_refused(age_s: int, shown: str) -> None:
    details = [problem.detail for problem in timeliness(placed(), NOW - age_s * 1000, NOW)]
    assert not details if not shown else [detail for detail in details if f"is {shown} old" in detail]


@pytest.mark.parametrize(
    ("seconds", "counts"), [(-901, False), (-900, True), (0, True), (1, False), (-(10**9), False), (10**9, False)]
)
def test_sender_s_time_counts_shortly_before_the_broker_s(seconds: int, counts: bool) -> None:
    times = times_of(placed(at=later(seconds)), NOW, NOW + 5)
    assert times == Times(NOW + min(seconds, 0) * 1000, NOW + (seconds if counts else 0) * 1000)
    assert times_of(placed(at=None), NOW + 10, NOW + 5) == Times(NOW + 5, NOW + 5)


@pytest.mark.parametrize(
    ("place", "detail"),
    [
        (Position(18.9322, 72.8264), ""),
        (Position(19.3, 72.83), "the customer is 42 km from Lakshmi's, which delivers up to 30 km"),
        (Position(72.8264, 18.9322), "are lat and lon exchanged?"),
        (Position(0.0, 0.0), "is in the sea"),
        (Position(0.0, 179.0), "km from Lakshmi's"),
    ],
)
def test_customer_must_live_within_the_delivery_radius(place: Position, detail: str) -> None:
    order = placed()
    moved = placed(customer=msgspec.structs.replace(order.customer, position=place))
    problems = validate(moved, RESTAURANT, NOW, P)
    assert [problem.pointer for problem in problems] == (["/customer/position"] if detail else [])
    assert all(detail in problem.detail for problem in problems)


def test_restaurant_has_its_own_delivery_radius() -> None:
    near = msgspec.structs.replace(RESTAURANT, delivery_radius_m=1_000)
    [problem] = validate(placed(), near, NOW, P)
    assert problem.detail == "the customer is 1.4 km from Lakshmi's, which delivers up to 1.0 km"


DAYS_30 = 30 * 24 * 3600


@pytest.mark.parametrize(("seconds", "problems"), [(DAYS_30, []), (DAYS_30 + 1, ["/deliver_at"])])
def test_a_wish_more_than_thirty_days_ahead_is_refused(seconds: int, problems: list[str]) -> None:
    assert [problem.pointer for problem in validate(placed(deliver_at=later(seconds)), RESTAURANT, NOW, P)] == problems


@pytest.mark.parametrize(
    "wished",
    [
        datetime(9999, 12, 31, 23, 59, 59, 999_999, timezone(-timedelta(hours=23, minutes=59))),
        datetime(9999, 12, 31, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=23, minutes=59))),
    ],
    ids=str,
)
def test_a_wish_at_the_end_of_time_is_refused_like_any_other(wished: datetime) -> None:
    order = placed(deliver_at=wished)
    [problem] = [*timeliness(order, NOW, NOW), *validate(order, RESTAURANT, NOW, P)]
    assert problem.pointer == "/deliver_at"


def test_an_order_of_more_than_256_kib_is_refused() -> None:
    fits = MAX_ORDER_BYTES - len(write(placed(display_number="n"))) + 1
    largest = placed(display_number="n" * fits)
    assert len(write(largest)) == MAX_ORDER_BYTES == 262_144
    assert validate(largest, RESTAURANT, NOW, P) == []
    assert validate(placed(display_number="n" * (fits + 1)), RESTAURANT, NOW, P) == [
        Problem("", "the order has 262145 bytes of JSON, the limit is 262144")
    ]


def test_an_item_has_fifty_modifiers_at_most() -> None:
    def item(modifiers: int) -> Item:
        ghee = Modifier(name="Ghee")
        return Item(id="thali", name="Thali", quantity=1, unit_price=1, modifiers=(ghee,) * modifiers)

    assert READER.read(write(placed(items=(item(50),))))
    with pytest.raises(Undecodable, match="/items/0/modifiers"):
        READER.read(write(placed(items=(item(51),))))


def test_all_problems_are_reported_together() -> None:
    wrong = placed(external_id=None, total=1, deliver_at=later(DAYS_30 + 9999))
    pointers = [problem.pointer for problem in validate(wrong, None, NOW, P)]
    assert pointers == ["/external_id", "/restaurant", "/total", "/deliver_at"]
