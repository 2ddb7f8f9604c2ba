"""All topic families: what each is called, which records it holds, and how it is kept.

All have the same number of partitions, so that partition N of every one of them belongs to the same task.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from topics import dead_letters, deliveries, dispatch, drivers, locations, order_updates, orders, payments, pos
from topics import restaurants as restaurant_records
from topics.records import Reader, Record

WEEK_MS = 7 * 24 * 3600 * 1000


class Family(NamedTuple):
    """A family of topics: its short name, the reader of its records (None: any bytes), and its topic settings."""

    name: str
    reader: Reader[Any] | None
    config: Mapping[str, str]


def _kept_for_a_week(name: str, records: Any) -> Family:
    return Family(name, Reader[Record](records), {"retention.ms": str(WEEK_MS)})


ORDERS = _kept_for_a_week("orders", orders.Placed)
PAYMENTS = _kept_for_a_week("payments", payments.PaymentRecord)
POS = _kept_for_a_week("pos", pos.PosRecord)
DISPATCH = _kept_for_a_week("dispatch", dispatch.DispatchRecord)
DRIVERS = _kept_for_a_week("drivers", drivers.DriverRecord)
LOCATIONS = _kept_for_a_week("locations", locations.Location)
DELIVERIES = _kept_for_a_week("deliveries", deliveries.DeliveryRecord)
ORDER_UPDATES = _kept_for_a_week("order-updates", order_updates.OrderUpdated)
RESTAURANTS = Family("restaurants", Reader[Record](restaurant_records.Restaurant), {"cleanup.policy": "compact"})
DEAD_LETTERS = Family(dead_letters.FAMILY, None, {"retention.ms": str(4 * WEEK_MS)})

SOURCES = (ORDERS, PAYMENTS, POS, DELIVERIES, DISPATCH, DRIVERS, LOCATIONS)
"""What the agents consume, one agent each; the first one decides which worker owns which partition."""
FAMILIES = (*SOURCES, ORDER_UPDATES, RESTAURANTS, DEAD_LETTERS)


def topic_name(family: str, prefix: str = "dabbawala") -> str:
    """The Kafka topic of a family."""
    return f"{prefix}.{family}"
