"""Events for the dispatch of a region, which matches deliveries with waiting drivers.

| topic | key | written by | read by |
|---|---|---|---|
| dispatch | region | the deliveries' and the drivers' tasks | agent `dispatch` |

A driver's ``shift`` is the number of the present shift (see the glossary). A record with an older shift has no effect.
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from topics.identity import OrderId, PartyId
from topics.places import Position
from topics.records import Reader, Record

Attempt = Annotated[int, Meta(ge=1, le=1_000_000)]
Shift = Annotated[int, Meta(ge=1, le=1_000_000)]
"""The limit keeps a forged number from making all later ones count as repeats."""


class _Dispatch(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "dispatch"

    region: PartyId

    @property
    def key(self) -> str:
        """Region id."""
        return self.region


class DriverRequested(_Dispatch, frozen=True, kw_only=True, omit_defaults=True):
    """A delivery needs a driver. ``attempt`` is the number of this request, from 1."""

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
    """A waiting driver is in another grid cell now."""

    driver: PartyId
    shift: Shift
    position: Position


class DriverGone(_Dispatch, frozen=True, kw_only=True, omit_defaults=True):
    """A driver has stopped waiting."""

    driver: PartyId
    shift: Shift


DispatchRecord = DriverRequested | DriverAvailable | DriverMoved | DriverGone
READER: Reader[DispatchRecord] = Reader(DispatchRecord)
