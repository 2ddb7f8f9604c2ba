"""Which restaurants there are, when they are open and what they cook: the catalogue.

| topic | key | written by | read by |
|---|---|---|---|
| restaurants (compacted) | restaurant id | a worker at its start, `catalogue load`, anyone | every worker, whole |

A restaurant with its menu is one record of at most ``LARGEST_RESTAURANT`` bytes; a record without a value removes it.
What is not said leaves the door open: no hours, always open; no menu, any items; no currency, any currency.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from topics.identity import PartyId
from topics.orders import Amount, Currency, Text
from topics.places import Position
from topics.records import Reader, Record

LARGEST_RESTAURANT = 1_000_000
"""In bytes of JSON: Kafka takes a record of 1 MiB, its key and headers included."""

TimeOfDay = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="on the restaurant's clock")]
PosCode = Annotated[str, Meta(min_length=1, max_length=200, description="what the restaurant's point of sale calls it")]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Open from one time of the day until before another. That is one of the next day unless it is later than the
    first: 18:00 to 02:00 passes midnight, 00:00 to 00:00 is a whole day."""

    opens: TimeOfDay
    closes: TimeOfDay


Intervals = Annotated[tuple[Interval, ...], Meta(max_length=24)]


class Hours(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """When it is open in the week, each interval under the day on which it opens. Without any: always."""

    monday: Intervals = ()
    tuesday: Intervals = ()
    wednesday: Intervals = ()
    thursday: Intervals = ()
    friday: Intervals = ()
    saturday: Intervals = ()
    sunday: Intervals = ()

    @property
    def days(self) -> tuple[Intervals, ...]:
        """Monday first."""
        return (
            self.monday,
            self.tuesday,
            self.wednesday,
            self.thursday,
            self.friday,
            self.saturday,
            self.sunday,
        )


class MenuModifier(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that may be added to an item, once; its price comes on top of each unit's."""

    pos_code: PosCode
    name: Text
    price: Amount = 0


class MenuItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something to eat. An order's line names it by its ``pos_code``."""

    pos_code: PosCode
    name: Text
    unit_price: Amount
    modifiers: Annotated[tuple[MenuModifier, ...], Meta(max_length=200)] = ()
    available: bool = True
    """False: sold out, for now."""

    def __post_init__(self) -> None:
        if twice := _twice(modifier.pos_code for modifier in self.modifiers):
            raise ValueError(f"modifiers: there are two {twice!r}")


class Restaurant(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A restaurant: where it is, which region's drivers serve it, where its point of sale listens, what it cooks."""

    family: ClassVar[str] = "restaurants"

    restaurant: PartyId
    name: Text
    region: PartyId
    position: Position
    pos_url: Annotated[str, Meta(pattern="^https?://")]
    preparation_s: Annotated[int, Meta(ge=0, le=86_400)]
    time_zone: str = "UTC"
    """Of the hours; a name of the IANA's, like `Asia/Kolkata`."""
    hours: Hours = Hours()
    currency: Currency | None = None
    """Of the menu's prices."""
    menu: tuple[MenuItem, ...] = ()

    def __post_init__(self) -> None:
        zone(self.time_zone)
        if self.menu and self.currency is None:
            raise ValueError("currency: the menu has prices, so say in which currency")
        if twice := _twice(item.pos_code for item in self.menu):
            raise ValueError(f"menu: there are two {twice!r}")

    @property
    def key(self) -> str:
        """The restaurant's id."""
        return self.restaurant


READER: Reader[Restaurant] = Reader(Restaurant)


@cache
def zone(name: str) -> ZoneInfo:
    """The time zone of that name; ``ValueError`` if there is none."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # of a name that is unknown, leads out of the database, is a folder
        raise ValueError(f"time_zone: there is no {name!r}; use a name like `Asia/Kolkata`") from None


def _twice(codes: Iterable[str]) -> str:
    """A code that is there more than once; empty if none is."""
    return next((code for code, times in Counter(codes).items() if times > 1), "")
