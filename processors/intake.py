"""What is checked at the door, before an order exists and before anybody is charged."""

import msgspec

from topics.orders import Placed
from topics.restaurants import Restaurant


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with an order: the JSON pointer (RFC 6901) of the field, and why."""

    pointer: str
    detail: str


def check(placed: Placed, restaurant: Restaurant | None, at_ms: int) -> list[Problem]:
    """Everything wrong with the order; ``at_ms`` is the record's own time, in milliseconds since 1970."""
    raise NotImplementedError
