"""What is checked at the door, before an order exists and before anybody is charged."""

import msgspec

from topics.orders import Item, Placed
from topics.records import epoch_ms, write
from topics.restaurants import Restaurant

HOUR_MS = 3_600_000
LONGEST_AHEAD_DAYS = 30
LARGEST_ORDER = 256 * 1024
"""In bytes of JSON: an order's row and its records are to stay far below what Kafka takes, 1 MiB."""


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with an order: the JSON pointer (RFC 6901) of the field, empty for the whole order, and why."""

    pointer: str
    detail: str


def check(placed: Placed, restaurant: Restaurant | None, at_ms: int) -> list[Problem]:
    """Everything wrong with the order; ``at_ms`` is the record's own time, in milliseconds since 1970."""
    problems: list[Problem] = []
    if placed.external_id is None:
        problems.append(Problem("/external_id", "the order has no id: give an external_id"))
    if restaurant is None:
        problems.append(Problem("/restaurant", f"there is no restaurant {placed.restaurant!r}"))
    if placed.total != (expected := _total(placed)):
        problems.append(Problem("/total", f"the total is {placed.total}, but {_sum(placed)} = {expected}"))
    if placed.deliver_at is not None:
        ahead_ms = epoch_ms(placed.deliver_at) - at_ms
        if ahead_ms < -HOUR_MS:
            problems.append(Problem("/deliver_at", "the wished time is more than an hour before the order"))
        if ahead_ms > LONGEST_AHEAD_DAYS * 24 * HOUR_MS:
            problems.append(Problem("/deliver_at", f"the wished time is more than {LONGEST_AHEAD_DAYS} days ahead"))
    if (size := len(write(placed))) > LARGEST_ORDER:
        problems.append(Problem("", f"the order has {size} bytes of JSON, and may have {LARGEST_ORDER}"))
    return problems


def _line_total(item: Item) -> int:
    return item.quantity * (item.unit_price + sum(modifier.price for modifier in item.modifiers))


def _total(placed: Placed) -> int:
    """In minor units."""
    fees = sum(fee.amount for fee in placed.fees)
    return sum(_line_total(item) for item in placed.items) + fees + placed.tip + placed.tax


def _sum(placed: Placed) -> str:
    """How the total comes about, line by line."""
    lines = [
        f"/items/{index} {item.quantity} x {item.unit_price + sum(modifier.price for modifier in item.modifiers)}"
        for index, item in enumerate(placed.items)
    ]
    lines += [f"/fees/{index} {fee.amount}" for index, fee in enumerate(placed.fees)]
    lines += [f"/{name} {amount}" for name, amount in (("tip", placed.tip), ("tax", placed.tax)) if amount]
    return " + ".join(lines)
