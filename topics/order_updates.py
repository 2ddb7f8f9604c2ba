"""Public feed of every change of every order. It names no person, except in the text of ``attention``.

| topic | key | written by | read by |
|---|---|---|---|
| order-updates | order id | the order's task | anyone |

``version`` counts an order's updates from 1 without a gap. Later versions of Dabbawala may add a status: readers should
expect statuses and reasons that they do not know. ``driver`` is a pseudonym: it is the same in all updates of an order,
and two orders of one driver have different ones. The records have CloudEvents 1.0 headers in Kafka's binary mode
(https://github.com/cloudevents/spec, kafka-protocol-binding).
"""

from enum import Enum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from topics.identity import OrderId, PartyId
from topics.records import Instant, Reader, Record
from topics.text import Text


class OrderStatus(Enum):
    """Public status of an order.

    Readers should expect statuses that they do not know. CANCELLED is reserved: no event leads to it yet.
    """

    CREATED = "CREATED"
    SCHEDULED = "SCHEDULED"
    IN_PREPARATION = "IN_PREPARATION"
    SCHEDULING_DELIVERY = "SCHEDULING_DELIVERY"
    WAITING_FOR_DRIVER = "WAITING_FOR_DRIVER"
    IN_DELIVERY = "IN_DELIVERY"
    DELIVERED = "DELIVERED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """True if the order has ended: no event changes its status any more."""
        return self in (OrderStatus.DELIVERED, OrderStatus.REJECTED, OrderStatus.CANCELLED)


class Reason(Enum):
    """Reason of a rejection, as a code. The party's own words stay in the journal.

    Readers should expect codes that they do not know.
    """

    PAYMENT_DECLINED = "payment_declined"
    WRONG_CHARGE = "wrong_charge"
    """The provider charged another amount than the total. The charge is refunded."""
    RESTAURANT_REJECTED = "restaurant_rejected"
    SOLD_OUT = "sold_out"
    TOO_BUSY = "too_busy"
    CLOSED = "closed"
    OTHER = "other"
    """A code of a later version, or the text of an earlier one."""

    @classmethod
    def _missing_(cls, _value: object) -> "Reason":
        return cls.OTHER


def in_words(reason: Reason | str | None) -> str:
    """Return a reason for people: `payment declined`; empty without one."""
    code = reason.value if isinstance(reason, Reason) else reason or ""
    return code.replace("_", " ")


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """A mark that a person should look at the order: the awaited event and the start of the wait."""

    waits_for: Text
    since: Instant


class OrderUpdated(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The order changed; ``status`` is its current status."""

    family: ClassVar[str] = "order-updates"

    order: OrderId
    version: Annotated[int, Meta(ge=1)]
    status: OrderStatus
    restaurant: PartyId
    reason: Reason | None = None
    driver: PartyId | None = None
    eta: Instant | None = None
    refunded: bool = False
    attention: Attention | None = None

    @property
    def key(self) -> str:
        """Order id."""
        return self.order


READER: Reader[OrderUpdated] = Reader(OrderUpdated)
