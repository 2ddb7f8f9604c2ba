"""Opening hours of a restaurant, in its own time zone."""

from collections.abc import Iterable

from topics.records import instant
from topics.restaurants import Hours, Interval, Restaurant, zone

DAYS = tuple(day.capitalize() for day in Hours.__struct_fields__)


def is_open(restaurant: Restaurant, at_ms: int) -> bool:
    """Return True if the restaurant is open at a time in milliseconds since 1970; always if it has no hours."""
    if restaurant.hours is None:
        return True
    days = restaurant.hours.days
    local = instant(at_ms).astimezone(zone(restaurant.time_zone))
    now, today = local.hour * 60 + local.minute, local.weekday()
    return _is_within(days[today], now) or _is_within(days[today - 1], now + 24 * 60)


def takes_orders(restaurant: Restaurant, at_ms: int) -> bool:
    """Return True if the restaurant is open, and does not close within its ``last_order_minutes``."""
    margin_ms = restaurant.last_order_minutes * 60_000
    return is_open(restaurant, at_ms) and (not margin_ms or is_open(restaurant, at_ms + margin_ms))


def describe(restaurant: Restaurant, at_ms: int) -> str:
    """Return a time in the restaurant's time zone and its hours on that day, for people."""
    local = instant(at_ms).astimezone(zone(restaurant.time_zone))
    day = DAYS[local.weekday()]
    today = restaurant.hours.days[local.weekday()] if restaurant.hours else ()
    hours = ", ".join(f"{each.opens}-{each.closes}" for each in today)
    return f"{day} {local:%Y-%m-%d %H:%M} in {restaurant.time_zone}; hours on {day}: {hours or 'none'}"


def _is_within(intervals: Iterable[Interval], minute: int) -> bool:
    """Return True if an interval contains ``minute``, counted from the start of the day on which it opens."""
    for each in intervals:
        opens, closes = _minute(each.opens), _minute(each.closes)
        if opens <= minute < (closes if closes > opens else closes + 24 * 60):
            return True
    return False


def _minute(time_of_day: str) -> int:
    return int(time_of_day[:2]) * 60 + int(time_of_day[3:])
