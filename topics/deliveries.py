"""Events of a delivery, from the state machine of its driver. A delivery has the id of its order.

| topic | key | written by | read by |
|---|---|---|---|
| deliveries | order id | the drivers' task | agent `deliveries` |
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from topics.dispatch import Attempt
from topics.identity import OrderId, PartyId
from topics.records import Reader, Record
from topics.text import Text

Seconds = Annotated[int, Meta(ge=0)]


class _Delivery(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "deliveries"

    order: OrderId
    driver: PartyId
    attempt: Attempt

    @property
    def key(self) -> str:
        """Order id."""
        return self.order


class DriverAssigned(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The driver is on the way to the restaurant, and reaches the customer in ``eta_s`` seconds."""

    eta_s: Seconds


class DriverRefused(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The driver cannot take the delivery: unavailable, busy, or in another shift."""

    reason: Text = ""


class PickedUp(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The driver has the food, and reaches the customer in ``eta_s`` seconds."""

    eta_s: Seconds


class Delivered(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The customer has the food."""


class EtaChanged(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The driver has moved, and reaches the customer ``eta_s`` seconds after ``at``."""

    eta_s: Seconds


DeliveryRecord = DriverAssigned | DriverRefused | PickedUp | Delivered | EtaChanged
READER: Reader[DeliveryRecord] = Reader(DeliveryRecord)
