"""Which restaurants there are.

| topic | key | written by | read by |
|---|---|---|---|
| restaurants (compacted) | restaurant id | the worker at its start, from a file | every worker, whole |
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from topics.identity import PartyId
from topics.orders import Text
from topics.places import Position
from topics.records import Reader, Record


class Restaurant(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A restaurant: where it is, which region's drivers serve it, where its point of sale listens."""

    family: ClassVar[str] = "restaurants"

    restaurant: PartyId
    name: Text
    region: PartyId
    position: Position
    pos_url: Annotated[str, Meta(pattern="^https?://")]
    preparation_s: Annotated[int, Meta(ge=0, le=86_400)]

    @property
    def key(self) -> str:
        """The restaurant's id."""
        return self.restaurant


READER: Reader[Restaurant] = Reader(Restaurant)
