"""What a driver's twin says to a delivery. A delivery's id is its order's.

| topic | key | written by | read by |
|---|---|---|---|
| deliveries | order id | the drivers' task | agent `deliveries` |
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from topics.dispatch import Attempt
from topics.identity import OrderId, PartyId
from topics.orders import Text
from topics.records import Reader, Record

Seconds = Annotated[int, Meta(ge=0)]


class _Delivery(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "deliveries"

    order: OrderId
    driver: PartyId
    attempt: Attempt

    @property
    def key(self) -> str:
        """The order's id."""
        return self.order


class DriverAssigned(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The driver is on the way to the restaurant; at the customer's in ``eta_s`` seconds."""

    eta_s: Seconds


class DriverRefused(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The driver cannot take it: gone, busy, or waiting in another shift."""

    reason: Text = ""


class PickedUp(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The driver has the food."""

    eta_s: Seconds


class Delivered(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The customer has the food."""


class EtaChanged(_Delivery, frozen=True, kw_only=True, omit_defaults=True):
    """The driver has moved: at the customer's in ``eta_s`` seconds from ``at``."""

    eta_s: Seconds


DeliveryRecord = DriverAssigned | DriverRefused | PickedUp | Delivered | EtaChanged
READER: Reader[DeliveryRecord] = Reader(DeliveryRecord)
