"""What is kept of orders that have left the tables, row by row as the tables held them. Personal data: body and places.

| topic | key | written by | read by |
|---|---|---|---|
| order-history | order id | the order's task, when it retires the order | views of a retired order, auditors |

The records of one order follow each other in one partition, of one transaction: all of them or none.
"""

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from topics.identity import OrderId
from topics.order_updates import OrderStatus
from topics.records import Reader, Record

Kind = Literal["order", "placed", "payment", "ticket", "delivery", "journal"]


class KeptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row: of the order itself, its body, payment, ticket or delivery, or one line of its journal."""

    kind: Kind
    row: msgspec.Raw
    """The JSON that was in the table."""


class OrderRetired(Record, frozen=True, kw_only=True, omit_defaults=True):
    """An order that ended some time ago is kept here from now on; ``at`` says when it left the tables.

    One whose journal is too long for one record of Kafka comes in several ``parts``.
    """

    family: ClassVar[str] = "order-history"

    order: OrderId
    status: OrderStatus
    rows: tuple[KeptRow, ...]
    """The journal's lines after the others, in order."""
    part: Annotated[int, Meta(ge=1)] = 1
    parts: Annotated[int, Meta(ge=1)] = 1

    @property
    def key(self) -> str:
        """The order's id."""
        return self.order


READER: Reader[OrderRetired] = Reader(OrderRetired)
