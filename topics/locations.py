"""Locations of drivers, as reported by their apps.

| topic | key | written by | read by |
|---|---|---|---|
| locations | driver id | the HTTP view; the driver's app, by Kafka | agent `locations` |
"""

from typing import ClassVar

from topics.identity import PartyId
from topics.places import Position
from topics.records import Reader, Record


class Location(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The driver was at ``position`` at the time ``at``, by default the record's Kafka timestamp."""

    family: ClassVar[str] = "locations"

    driver: PartyId
    position: Position

    @property
    def key(self) -> str:
        """Driver id."""
        return self.driver


READER: Reader[Location] = Reader(Location)
