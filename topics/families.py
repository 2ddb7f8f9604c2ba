"""All topic families: what each is called, which records it holds, and how it is kept.

All have the same number of partitions, so that partition N of every one of them belongs to the same task.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from topics import (
    dead_letters,
    deliveries,
    dispatch,
    drivers,
    locations,
    order_history,
    order_updates,
    orders,
    payments,
    pos,
    restaurants,
)
from topics.records import Reader

WEEK_MS = 7 * 24 * 3600 * 1000
YEAR_MS = 365 * 24 * 3600 * 1000


class Family(NamedTuple):
    """A family of topics: its short name, the reader of its records (None: any bytes), and its topic settings."""

    name: str
    reader: Reader[Any] | None
    config: Mapping[str, str]


def _kept_for_a_week(name: str, reader: Reader[Any]) -> Family:
    return Family(name, reader, {"retention.ms": str(WEEK_MS)})


ORDERS = _kept_for_a_week("orders", orders.READER)
PAYMENTS = _kept_for_a_week("payments", payments.READER)
POS = _kept_for_a_week("pos", pos.READER)
DISPATCH = _kept_for_a_week("dispatch", dispatch.READER)
DRIVERS = _kept_for_a_week("drivers", drivers.READER)
LOCATIONS = _kept_for_a_week("locations", locations.READER)
DELIVERIES = _kept_for_a_week("deliveries", deliveries.READER)
ORDER_UPDATES = _kept_for_a_week("order-updates", order_updates.READER)
ORDER_HISTORY = Family(
    "order-history", order_history.READER, {"cleanup.policy": "delete", "retention.ms": str(YEAR_MS)}
)
"""An installation may keep it for another time (`DABBAWALA_HISTORY_DAYS`)."""
RESTAURANTS = Family("restaurants", restaurants.READER, {"cleanup.policy": "compact"})
DEAD_LETTERS = Family(dead_letters.FAMILY, None, {"retention.ms": str(4 * WEEK_MS)})

INPUTS = (ORDERS, PAYMENTS, POS, DELIVERIES, DISPATCH, DRIVERS, LOCATIONS)
"""What is decided on; the first one decides which worker owns which partition."""
SOURCES = (*INPUTS, DEAD_LETTERS)
"""What the agents consume, one agent each."""
FAMILIES = (*SOURCES, ORDER_UPDATES, ORDER_HISTORY, RESTAURANTS)


def topic_name(family: str, prefix: str = "dabbawala") -> str:
    """The Kafka topic of a family."""
    return f"{prefix}.{family}"
