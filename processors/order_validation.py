"""Validation of an order, before it exists and before the customer is charged.

Rules:
1. An order names its restaurant's items and modifiers by their ``pos_code`` and has the menu's prices and currency.
2. A restaurant without a menu accepts any items.
3. The customer must live within the restaurant's delivery radius.
4. An order for now may be an hour old, and a wished time may have passed by a quarter of an hour. An older order has
   waited in an outage, or is a copy: nobody wants it any more.
5. The restaurant must be open when the order starts, and not about to close. An order for later starts when its
   preparation has to begin; any other order starts when it is placed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from processors import hours
from processors.geography import distance_m
from processors.order import start_ms
from processors.parameters import Parameters
from topics.orders import Item, Placed
from topics.places import NULL_ADVICE, Position
from topics.records import epoch_ms, write
from topics.restaurants import MenuItem, Restaurant

HOUR_MS = 3_600_000
MAX_DAYS_AHEAD = 30
MAX_AGE_MS = HOUR_MS
"""Age at which an order for now is too old when a worker first sees it."""
MAX_WISH_PASSED_MS = HOUR_MS // 4
MAX_SENDER_LEAD_MS = HOUR_MS // 4
"""Time by which a sender's clock may be before the broker's."""
MAX_LATITUDE = 90
MAX_ORDER_BYTES = 256 * 1024
"""Limit of an order in bytes of JSON, so that its row and records stay far below Kafka's limit of 1 MiB."""


class Problem(msgspec.Struct, frozen=True):
    """Problem of an order."""

    pointer: str
    """JSON pointer (RFC 6901) of the field; "" for the whole order."""
    detail: str
    """Sentence that gives the present and the expected value."""


def validate(placed: Placed, restaurant: Restaurant | None, at_ms: int, parameters: Parameters) -> list[Problem]:
    """Return all problems of an order; ``at_ms`` is the time at which it was placed, in milliseconds since 1970."""
    problems: list[Problem] = []
    if placed.external_id is None:
        problems.append(Problem("/external_id", "the order has no id: give an external_id"))
    if restaurant is None:
        problems.append(Problem("/restaurant", f"there is no restaurant {placed.restaurant!r}"))
    else:
        problems += _menu_problems(placed, restaurant)
        problems += _place(placed.customer.position, restaurant)
    if placed.total != (expected := _total(placed)):
        problems.append(Problem("/total", f"the total is {placed.total}, but {_explain_total(placed)} = {expected}"))
    time_problems = list(_delivery_time(placed, at_ms))
    problems += time_problems
    if restaurant is not None and not time_problems:
        problems += _opening_hours(placed, restaurant, at_ms, parameters)
    if (size := len(write(placed))) > MAX_ORDER_BYTES:
        problems.append(Problem("", f"the order has {size} bytes of JSON, the limit is {MAX_ORDER_BYTES}"))
    return problems


class Times(NamedTuple):
    """Times of a placed order, in milliseconds since 1970."""

    sent_ms: int
    """Earliest time that the record bears: the sender's or the broker's."""
    placed_ms: int
    """Time at which the order counts as placed."""


def times_of(placed: Placed, recorded_ms: int, now_ms: int) -> Times:
    """Return the times of an order; ``recorded_ms`` is the broker's time of the record.

    The sender's ``at`` counts if it is at most ``MAX_SENDER_LEAD_MS`` before the broker's time and not after it.
    Otherwise a sender could choose a time at which the restaurant was open.
    """
    recorded_ms = max(0, min(recorded_ms, now_ms))
    at_ms = recorded_ms if placed.at is None else epoch_ms(placed.at)
    counts = recorded_ms - MAX_SENDER_LEAD_MS <= at_ms <= recorded_ms
    return Times(min(at_ms, recorded_ms), at_ms if counts else recorded_ms)


def timeliness(placed: Placed, sent_ms: int, now_ms: int) -> Iterator[Problem]:
    """List the problem of an order that comes too late; ``sent_ms`` is its earliest time."""
    age_ms = now_ms - sent_ms
    if placed.deliver_at is None and age_ms > MAX_AGE_MS:
        advice = f"an order for now may be at most {_duration(MAX_AGE_MS)} old; place it again if it is wanted"
        yield Problem("/at", f"the order is {_duration(age_ms)} old: {advice}")
    if placed.deliver_at is not None and (late_ms := now_ms - epoch_ms(placed.deliver_at)) > MAX_WISH_PASSED_MS:
        yield Problem("/deliver_at", f"the wished time passed {_duration(late_ms)} ago: wish for a time to come")


def _duration(duration_ms: int) -> str:
    """Return a duration as `50 min`, `14 h` or `3 days`, for people."""
    minutes = duration_ms // 60_000
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"


def _menu_problems(placed: Placed, restaurant: Restaurant) -> Iterator[Problem]:
    if restaurant.currency not in (None, placed.currency):
        yield Problem("/currency", f"{restaurant.name} accepts {restaurant.currency}, not {placed.currency}")
    if not restaurant.menu:
        return
    codes = {item.pos_code for item in placed.items}
    menu = {item.pos_code: item for item in restaurant.menu if item.pos_code in codes}
    for index, item in enumerate(placed.items):
        yield from _item_problems(f"/items/{index}", item, menu.get(item.pos_code), restaurant)


def _item_problems(pointer: str, item: Item, offered: MenuItem | None, restaurant: Restaurant) -> Iterator[Problem]:
    if not item.pos_code:
        yield Problem(f"{pointer}/pos_code", f"the item has no pos_code: give the one on {restaurant.name}'s menu")
    elif offered is None:
        yield Problem(f"{pointer}/pos_code", f"{restaurant.name} has no {item.pos_code!r} on its menu")
    else:
        if not offered.available:
            yield Problem(f"{pointer}/pos_code", f"{item.pos_code!r} is sold out")
        if item.unit_price != offered.unit_price:
            yield Problem(f"{pointer}/unit_price", _price(item.pos_code, item.unit_price, offered.unit_price))
        yield from _modifiers(f"{pointer}/modifiers", item, offered)


def _modifiers(pointer: str, item: Item, offered: MenuItem) -> Iterator[Problem]:
    prices = {modifier.pos_code: modifier.price for modifier in offered.modifiers}
    for index, modifier in enumerate(item.modifiers):
        code = modifier.pos_code
        if code not in prices:
            yield Problem(f"{pointer}/{index}/pos_code", f"{offered.pos_code!r} has no modifier {code!r} on the menu")
        elif modifier.price != prices[code]:
            yield Problem(f"{pointer}/{index}/price", _price(code, modifier.price, prices[code]))


def _price(code: str, given: int, price: int) -> str:
    return f"the price of {code!r} is {price} on the menu, not {given}"


def _delivery_time(placed: Placed, at_ms: int) -> Iterator[Problem]:
    """List the problems of the wished time."""
    if placed.deliver_at is None:
        return
    ahead_ms = epoch_ms(placed.deliver_at) - at_ms
    if ahead_ms > MAX_DAYS_AHEAD * 24 * HOUR_MS:
        yield Problem("/deliver_at", f"the wished time is more than {MAX_DAYS_AHEAD} days ahead")


def _opening_hours(placed: Placed, restaurant: Restaurant, at_ms: int, parameters: Parameters) -> Iterator[Problem]:
    starts_ms = max(at_ms, start_ms(placed, restaurant, at_ms, parameters))
    if hours.takes_orders(restaurant, starts_ms):
        return
    pointer, when = ("/restaurant", "") if placed.deliver_at is None else ("/deliver_at", "when it has to start, ")
    is_open = hours.is_open(restaurant, starts_ms)
    closed = f"takes no orders {restaurant.last_order_minutes} min before it closes" if is_open else "is closed"
    yield Problem(pointer, f"{restaurant.name} {closed} {when}on {hours.describe(restaurant, starts_ms)}")


def _place(customer: Position, restaurant: Restaurant) -> Iterator[Problem]:
    """List the problem of the customer's place: not known, or too far from the restaurant."""
    if customer.is_null:
        yield Problem("/customer/position", NULL_ADVICE)
        return
    away_m, radius_m = distance_m(restaurant.position, customer), restaurant.delivery_radius_m
    if away_m <= radius_m:
        return
    detail = f"the customer is {_km(away_m)} from {restaurant.name}, which delivers up to {_km(radius_m)}"
    if abs(customer.lon) <= MAX_LATITUDE:
        exchanged = Position(lat=customer.lon, lon=customer.lat)
        detail += ": are lat and lon exchanged?" if distance_m(restaurant.position, exchanged) <= radius_m else ""
    yield Problem("/customer/position", detail)


def _km(metres: float) -> str:
    return f"{metres / 1000:,.0f} km" if metres >= 10_000 else f"{metres / 1000:.1f} km"


def _line_total(item: Item) -> int:
    return item.quantity * (item.unit_price + sum(modifier.price for modifier in item.modifiers))


def _total(placed: Placed) -> int:
    """Return the sum of lines, fees, tip and tax, in minor units."""
    fees = sum(fee.amount for fee in placed.fees)
    return sum(_line_total(item) for item in placed.items) + fees + placed.tip + placed.tax


def _explain_total(placed: Placed) -> str:
    """Return the sum as a formula of JSON pointers and amounts, for people."""
    lines = [
        f"/items/{index} {item.quantity} x {item.unit_price + sum(modifier.price for modifier in item.modifiers)}"
        for index, item in enumerate(placed.items)
    ]
    lines += [f"/fees/{index} {fee.amount}" for index, fee in enumerate(placed.fees)]
    lines += [f"/{name} {amount}" for name, amount in (("tip", placed.tip), ("tax", placed.tax)) if amount]
    return " + ".join(lines)
