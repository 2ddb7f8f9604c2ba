"""Events for the state machine of a driver, from the driver's app, dispatch and deliveries.

| topic | key | written by | read by |
|---|---|---|---|
| drivers | driver id | the HTTP view; dispatch and deliveries | agent `drivers` |
"""

from typing import ClassVar

from topics.dispatch import Attempt, Shift
from topics.identity import OrderId, PartyId
from topics.places import Position
from topics.records import Reader, Record


class _Driver(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "drivers"

    driver: PartyId

    @property
    def key(self) -> str:
        """Driver id."""
        return self.driver


class SetAvailable(_Driver, frozen=True, kw_only=True, omit_defaults=True):
    """The driver is available for work in a region."""

    region: PartyId
    position: Position


class SetUnavailable(_Driver, frozen=True, kw_only=True, omit_defaults=True):
    """The driver is not available for work any more."""


class PickedUp(_Driver, frozen=True, kw_only=True, omit_defaults=True):
    """The driver has the food of this delivery."""

    delivery: OrderId

    @property
    def cause(self) -> str:
        return f"picked-up/{self.delivery}"


class Delivered(_Driver, frozen=True, kw_only=True, omit_defaults=True):
    """The driver has handed over the food of this delivery."""

    delivery: OrderId

    @property
    def cause(self) -> str:
        return f"delivered/{self.delivery}"


class Assign(_Driver, frozen=True, kw_only=True, omit_defaults=True):
    """Dispatch assigns a delivery to the driver, who waits in this shift."""

    shift: Shift
    delivery: OrderId
    attempt: Attempt
    restaurant: PartyId
    pickup: Position
    dropoff: Position


class Unassign(_Driver, frozen=True, kw_only=True, omit_defaults=True):
    """The delivery releases this driver."""

    delivery: OrderId
    attempt: Attempt


DriverRecord = SetAvailable | SetUnavailable | PickedUp | Delivered | Assign | Unassign
READER: Reader[DriverRecord] = Reader(DriverRecord)
