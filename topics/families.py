"""All topic families, with their names, readers and topic settings.

All topics have the same number of partitions, so partition N of each of them belongs to the same task.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from topics import (
    audit,
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
    """A family of topics: its short name, the reader of its records (None for any bytes), and its topic settings."""

    name: str
    reader: Reader[Any] | None
    config: Mapping[str, str]


def _outside(name: str, reader: Reader[Any]) -> Family:
    """Return a family of events that parties outside write. The broker stamps their time: a sender's may be wrong."""
    return Family(name, reader, {"retention.ms": str(WEEK_MS), "message.timestamp.type": "LogAppendTime"})


def _inside(name: str, reader: Reader[Any]) -> Family:
    """Return a family that only workers write. A record has the time at which its task decided it."""
    return Family(name, reader, {"retention.ms": str(WEEK_MS)})


ORDERS = _outside("orders", orders.READER)
PAYMENTS = _outside("payments", payments.READER)
POS = _outside("pos", pos.READER)
LOCATIONS = _outside("locations", locations.READER)
DISPATCH = _inside("dispatch", dispatch.READER)
DRIVERS = _inside("drivers", drivers.READER)
DELIVERIES = _inside("deliveries", deliveries.READER)
ORDER_UPDATES = _inside("order-updates", order_updates.READER)
ORDER_HISTORY = Family(
    "order-history", order_history.READER, {"cleanup.policy": "delete", "retention.ms": str(YEAR_MS)}
)
"""`DABBAWALA_HISTORY_DAYS` overrides the retention time."""
RESTAURANTS = Family("restaurants", restaurants.READER, {"cleanup.policy": "compact"})
AUDIT = Family("audit", audit.READER, {"cleanup.policy": "delete", "retention.ms": str(audit.YEAR_AND_A_MONTH_MS)})
DEAD_LETTERS = Family(dead_letters.FAMILY, None, {"retention.ms": str(4 * WEEK_MS)})

INPUTS = (ORDERS, PAYMENTS, POS, DELIVERIES, DISPATCH, DRIVERS, LOCATIONS)
"""Families of the events to decide on. The assignment of the first one's partitions assigns the tasks to workers."""
SOURCES = (*INPUTS, DEAD_LETTERS)
"""Families that agents consume, one agent per family."""
FAMILIES = (*SOURCES, ORDER_UPDATES, ORDER_HISTORY, RESTAURANTS, AUDIT)


def topic_name(family: str, prefix: str = "dabbawala") -> str:
    """Return the name of a family's Kafka topic."""
    return f"{prefix}.{family}"
