"""Catalogue of restaurants with their opening hours and menus.

| topic | key | written by | read by |
|---|---|---|---|
| restaurants (compacted) | restaurant id | a worker at its start, the catalogue's maintainer | every worker, whole |

A restaurant with its menu is one record of at most ``MAX_RESTAURANT_BYTES`` bytes. A record without a value removes
the restaurant. An absent field permits everything: a restaurant without hours is always open, one without a menu takes
any items, and one without a currency takes any currency.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from topics import patterns
from topics.identity import PartyId
from topics.orders import Amount, Currency
from topics.party_urls import PartyUrl
from topics.places import NULL_ADVICE, Position
from topics.records import Reader, Record
from topics.text import MAX_NAME_LENGTH, Name

MAX_RESTAURANT_BYTES = 1_000_000
"""Limit of the JSON. Kafka takes records of at most 1 MiB, including key and headers."""

TimeOfDay = Annotated[str, Meta(pattern=patterns.TIME_OF_DAY, description="in the restaurant's zone")]
PosCode = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        pattern=patterns.LINE,
        description="the code in the restaurant's point of sale",
    ),
]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Opening hours from ``opens`` until just before ``closes``.

    The interval ends on the next day unless ``closes`` is later than ``opens``: 18:00 to 02:00 passes midnight, and
    00:00 to 00:00 is a whole day.
    """

    opens: TimeOfDay
    closes: TimeOfDay


Intervals = Annotated[tuple[Interval, ...], Meta(max_length=24)]


class Hours(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Opening hours of a week. An interval belongs to the day on which it opens; a day without intervals is closed."""

    monday: Intervals = ()
    tuesday: Intervals = ()
    wednesday: Intervals = ()
    thursday: Intervals = ()
    friday: Intervals = ()
    saturday: Intervals = ()
    sunday: Intervals = ()

    @property
    def days(self) -> tuple[Intervals, ...]:
        """Intervals of the seven days, from Monday."""
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
    """A possible addition to an item, once or several times. Its price is added to the price of each unit."""

    pos_code: PosCode
    name: Name
    price: Amount = 0


class MenuItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A dish of the menu. An item of an order refers to it by ``pos_code``."""

    pos_code: PosCode
    name: Name
    unit_price: Amount
    modifiers: Annotated[tuple[MenuModifier, ...], Meta(max_length=200)] = ()
    available: bool = True
    """False if the dish is sold out for now."""

    def __post_init__(self) -> None:
        if twice := _duplicate(code for code, _ in {(each.pos_code, each.price) for each in self.modifiers}):
            raise ValueError(f"modifiers: {twice!r} has two prices")


class Restaurant(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A restaurant: its position, the region whose drivers serve it, the URL of its point of sale, and its menu."""

    family: ClassVar[str] = "restaurants"

    restaurant: PartyId
    name: Name
    region: PartyId
    position: Position
    pos_url: PartyUrl
    preparation_s: Annotated[int, Meta(ge=0, le=86_400)]
    time_zone: Annotated[str, Meta(pattern=patterns.TIME_ZONE)] = "UTC"
    """Time zone of the hours: an IANA name, like `Asia/Kolkata`."""
    hours: Hours | None = None
    """Absent: always open. Without an interval on any day: closed."""
    last_order_minutes: Annotated[int, Meta(ge=0, le=720)] = 0
    """The restaurant takes no orders in this time before it closes."""
    delivery_radius_m: Annotated[int, Meta(ge=1, le=1_000_000)] = 30_000
    """Largest distance to the customer, as the crow flies."""
    currency: Currency | None = None
    """Currency of the menu's prices; required with a menu."""
    menu: tuple[MenuItem, ...] = ()

    def __post_init__(self) -> None:
        zone(self.time_zone)
        if self.position.is_null:
            raise ValueError(f"position: {NULL_ADVICE}")
        if self.menu and self.currency is None:
            raise ValueError("currency: the menu has prices, so say in which currency")
        if twice := _duplicate(item.pos_code for item in self.menu):
            raise ValueError(f"menu: there are two {twice!r}")

    @property
    def key(self) -> str:
        """Restaurant id."""
        return self.restaurant


READER: Reader[Restaurant] = Reader(Restaurant)


@cache
def zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name. Raises ``ValueError`` if no zone has this name."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # in turn: unknown, outside the database, a folder
        raise ValueError(f"time_zone: there is no {name!r}; use a name like `Asia/Kolkata`") from None


def _duplicate(codes: Iterable[str]) -> str:
    """Return a code that occurs more than once; empty if there is none."""
    return next((code for code, times in Counter(codes).items() if times > 1), "")
