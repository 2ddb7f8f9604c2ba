"""Events of an order's ticket, from the restaurant's point of sale (POS).

| topic | key | written by | read by |
|---|---|---|---|
| pos | order id | the callback view; the restaurant, by Kafka | agent `pos` |
"""

from typing import ClassVar

from topics.identity import OrderId, PartyId
from topics.records import Reader, Record
from topics.text import Text


class _Ticket(Record, frozen=True, kw_only=True, omit_defaults=True):
    family: ClassVar[str] = "pos"

    order: OrderId
    restaurant: PartyId | None = None

    @property
    def key(self) -> str:
        """Order id."""
        return self.order


class TicketAccepted(_Ticket, frozen=True, kw_only=True, omit_defaults=True):
    """The restaurant will cook the order."""

    @property
    def cause(self) -> str:
        return "accepted"


class TicketRejected(_Ticket, frozen=True, kw_only=True, omit_defaults=True):
    """The restaurant will not cook the order."""

    reason: Text = ""

    @property
    def cause(self) -> str:
        return "rejected"


class PreparationFinished(_Ticket, frozen=True, kw_only=True, omit_defaults=True):
    """The food is ready for the driver."""

    @property
    def cause(self) -> str:
        return "finished"


PosRecord = TicketAccepted | TicketRejected | PreparationFinished
READER: Reader[PosRecord] = Reader(PosRecord)
