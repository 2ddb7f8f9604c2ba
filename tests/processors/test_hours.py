"""Opening hours of a restaurant, in its own time zone."""

from datetime import UTC, datetime

import msgspec
import pytest

from processors.hours import DAYS, describe, is_open, takes_orders
from tests.processors.cases import NOW, RESTAURANT
from topics.records import epoch_ms
from topics.restaurants import Hours, Interval, Restaurant

LUNCH, DINNER = Interval(opens="11:30", closes="15:00"), Interval(opens="18:00", closes="01:00")


def kitchen(time_zone: str = "UTC", **days: tuple[Interval, ...]) -> Restaurant:
    return msgspec.structs.replace(RESTAURANT, time_zone=time_zone, hours=Hours(**days))


def at(text: str) -> int:
    """Return a time of UTC, in milliseconds since 1970."""
    return epoch_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))


MONDAY, TUESDAY = "2026-01-05", "2026-01-06"


def test_without_hours_it_is_always_open() -> None:
    assert is_open(RESTAURANT, NOW)
    assert "hours on" in describe(RESTAURANT, NOW)


def test_week_of_empty_days_is_closed() -> None:
    assert not any(is_open(kitchen(), NOW + hour * 3_600_000) for hour in range(7 * 24))


@pytest.mark.parametrize(
    ("moment", "taken"),
    [(f"{MONDAY}T11:30", True), (f"{MONDAY}T14:39:59", True), (f"{MONDAY}T14:40", False), (f"{MONDAY}T23:59", True)],
)
def test_last_order_is_some_minutes_before_closing(moment: str, taken: bool) -> None:
    restaurant = msgspec.structs.replace(kitchen(monday=(LUNCH, DINNER)), last_order_minutes=20)
    assert takes_orders(restaurant, at(moment)) is taken


@pytest.mark.parametrize(
    ("moment", "taken"),
    [(f"{MONDAY}T13:59", True), (f"{MONDAY}T14:00", False), (f"{MONDAY}T14:59:59", False), (f"{MONDAY}T15:30", True)],
)
def test_break_shorter_than_the_last_order_time_is_a_closing(moment: str, taken: bool) -> None:
    dinner = Interval(opens="15:30", closes="22:00")
    restaurant = msgspec.structs.replace(kitchen(monday=(LUNCH, dinner)), last_order_minutes=60)
    assert takes_orders(restaurant, at(moment)) is taken


def test_intervals_that_touch_have_one_closing() -> None:
    dinner = Interval(opens="15:00", closes="22:00")
    restaurant = msgspec.structs.replace(kitchen(monday=(LUNCH, dinner)), last_order_minutes=60)
    assert takes_orders(restaurant, at(f"{MONDAY}T14:59:59"))
    assert not takes_orders(restaurant, at(f"{MONDAY}T21:00"))


def test_last_order_of_a_restaurant_that_never_closes_is_any() -> None:
    whole = Interval(opens="00:00", closes="00:00")
    week = Hours(**dict.fromkeys((day.lower() for day in DAYS), (whole,)))
    restaurant = msgspec.structs.replace(RESTAURANT, hours=week, last_order_minutes=60)
    assert all(takes_orders(restaurant, at(f"{MONDAY}T23:{minute:02d}")) for minute in range(60))


@pytest.mark.parametrize(
    ("moment", "opened"),
    [
        (f"{MONDAY}T11:29:59", False),
        (f"{MONDAY}T11:30", True),
        (f"{MONDAY}T14:59:59", True),
        (f"{MONDAY}T15:00", False),
        (f"{MONDAY}T17:59", False),
        (f"{MONDAY}T18:00", True),
        (f"{MONDAY}T23:59:59", True),
        (f"{TUESDAY}T00:00", True),
        (f"{TUESDAY}T00:59", True),
        (f"{TUESDAY}T01:00", False),
        (f"{TUESDAY}T12:00", False),
        (f"{MONDAY}T00:30", False),
    ],
)
def test_restaurant_is_open_from_first_minute_to_before_last(moment: str, opened: bool) -> None:
    assert is_open(kitchen(monday=(LUNCH, DINNER)), at(moment)) is opened


def test_sunday_night_ends_on_monday() -> None:
    assert is_open(kitchen(sunday=(DINNER,)), at(f"{MONDAY}T00:30"))
    assert not is_open(kitchen(sunday=(DINNER,)), at(f"{TUESDAY}T00:30"))


@pytest.mark.parametrize(("minutes", "opened"), [(-1, False), (0, True), (24 * 60 - 1, True), (24 * 60, False)])
def test_an_interval_that_ends_when_it_began_is_a_whole_day(minutes: int, opened: bool) -> None:
    day = kitchen(monday=(Interval(opens="06:00", closes="06:00"),))
    assert is_open(day, at(f"{MONDAY}T06:00") + minutes * 60_000) is opened


def test_hours_are_in_the_restaurant_s_time_zone() -> None:
    mumbai = kitchen("Asia/Kolkata", monday=(LUNCH,))
    assert is_open(mumbai, at(f"{MONDAY}T06:00"))
    assert not is_open(mumbai, at(f"{MONDAY}T12:00"))
    late = kitchen("America/Los_Angeles", sunday=(DINNER,))
    assert is_open(late, at(f"{MONDAY}T03:00")), "it is still Sunday evening there"


def test_hours_follow_summer_time() -> None:
    berlin = kitchen("Europe/Berlin", **{day.lower(): (LUNCH,) for day in DAYS})
    assert is_open(berlin, at("2026-01-05T10:30"))
    assert not is_open(berlin, at("2026-07-06T13:30"))
    assert is_open(berlin, at("2026-07-06T09:30"))


def test_description_has_local_time_and_hours() -> None:
    description = describe(kitchen("Asia/Kolkata", monday=(LUNCH, DINNER)), at(f"{MONDAY}T03:00"))
    assert description == "Monday 2026-01-05 08:30 in Asia/Kolkata; hours on Monday: 11:30-15:00, 18:00-01:00"
    assert describe(kitchen(monday=(LUNCH,)), at(f"{TUESDAY}T03:00")).endswith("hours on Tuesday: none")
