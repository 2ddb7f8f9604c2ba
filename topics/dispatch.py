"""What is said to the matcher of a region, which brings deliveries and waiting drivers together.

| topic | key | written by | read by |
|---|---|---|---|
| dispatch | region | the deliveries' and the drivers' tasks | agent `dispatch` |

A driver's ``shift`` counts how often they became available: what carries an older one comes too late.
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from topics.identity import OrderId, PartyId
from topics.places import Position
from topics.records import Reader, Record

Attempt = Annotated[int, Meta(ge=1)]
Shift = Annotated[int, Meta(ge=1)]


class _Dispatch(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "dispatch"

    region: PartyId

    @property
    def key(self) -> str:
        """The region."""
        return self.region


class DriverRequested(_Dispatch, frozen=True, kw_only=True, omit_defaults=True):
    """A delivery wants a driver; ``attempt`` counts how often it has asked."""

    delivery: OrderId
    attempt: Attempt
    restaurant: PartyId
    pickup: Position
    dropoff: Position


class DriverAvailable(_Dispatch, frozen=True, kw_only=True, omit_defaults=True):
    """A driver waits for work."""

    driver: PartyId
    shift: Shift
    position: Position


class DriverMoved(_Dispatch, frozen=True, kw_only=True, omit_defaults=True):
    """A waiting driver is in another cell now."""

    driver: PartyId
    shift: Shift
    position: Position


class DriverGone(_Dispatch, frozen=True, kw_only=True, omit_defaults=True):
    """A driver waits no more."""

    driver: PartyId
    shift: Shift


DispatchRecord = DriverRequested | DriverAvailable | DriverMoved | DriverGone
READER: Reader[DispatchRecord] = Reader(DispatchRecord)
