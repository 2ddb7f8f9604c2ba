"""Opening hours of a restaurant, in its own time zone."""

from collections.abc import Iterable

from topics.records import instant
from topics.restaurants import Hours, Interval, Restaurant, zone

DAYS = tuple(day.capitalize() for day in Hours.__struct_fields__)


def is_open(restaurant: Restaurant, at_ms: int) -> bool:
    """Return True if the restaurant is open at a time in milliseconds since 1970; always if it has no hours."""
    return restaurant.hours is None or _minutes_to_closing(restaurant, at_ms) > 0


def takes_orders(restaurant: Restaurant, at_ms: int) -> bool:
    """Return True if the restaurant is open, and does not close within its ``last_order_minutes``."""
    if restaurant.hours is None:
        return True
    last_ms = at_ms + restaurant.last_order_minutes * 60_000
    while (left := _minutes_to_closing(restaurant, at_ms)) and (closes_ms := at_ms + left * 60_000) <= last_ms:
        at_ms = closes_ms  # the next interval may begin at once
    return left > 0


def describe(restaurant: Restaurant, at_ms: int) -> str:
    """Return a time in the restaurant's time zone and its hours on that day, for people."""
    local = instant(at_ms).astimezone(zone(restaurant.time_zone))
    day = DAYS[local.weekday()]
    today = restaurant.hours.days[local.weekday()] if restaurant.hours else ()
    hours = ", ".join(f"{each.opens}-{each.closes}" for each in today)
    return f"{day} {local:%Y-%m-%d %H:%M} in {restaurant.time_zone}; hours on {day}: {hours or 'none'}"


def _minutes_to_closing(restaurant: Restaurant, at_ms: int) -> int:
    """Return the minutes until the present interval ends; 0 if the restaurant is closed or has no hours."""
    days = restaurant.hours.days if restaurant.hours else ((),) * 7
    local = instant(at_ms).astimezone(zone(restaurant.time_zone))
    now, today = local.hour * 60 + local.minute, local.weekday()
    return max(_left(days[today], now), _left(days[today - 1], now + 24 * 60))


def _left(intervals: Iterable[Interval], minute: int) -> int:
    """Return the minutes that are left of the interval with ``minute``, counted from the start of its first day."""
    ends = ((_minute(each.opens), _minute(each.closes)) for each in intervals)
    times = ((opens, closes if closes > opens else closes + 24 * 60) for opens, closes in ends)
    return max((closes - minute for opens, closes in times if opens <= minute < closes), default=0)


def _minute(time_of_day: str) -> int:
    return int(time_of_day[:2]) * 60 + int(time_of_day[3:])
