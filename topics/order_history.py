"""Rows of retired orders, as the tables held them, sealed: the body and the places are personal data.

| topic | key | written by | read by |
|---|---|---|---|
| order-history | order id | the order's task, when it retires the order | views of a retired order, auditors |

One transaction writes all records of an order, one after another in the partition.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from topics.identity import OrderId
from topics.order_updates import OrderStatus
from topics.records import Reader, Record


class RowKind(StrEnum):
    """Kind of an order's row. The machine that owns a row has the same name."""

    ORDER = "order"
    PLACED = "placed"
    """Body of the order. No machine changes it."""
    PAYMENT = "payment"
    TICKET = "ticket"
    DELIVERY = "delivery"
    JOURNAL = "journal"
    """One line of the journal."""
    HISTORY = "history"
    """Row that remains in the tables for a retired order. It is never part of a record."""


class KeptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the order: its own, its body, payment, ticket or delivery, or one line of its journal."""

    kind: RowKind
    row: str
    """The row's JSON, sealed with AES-256-GCM under the order's data key, in Base64: 12 bytes of nonce, then the text.
    The order's row in the table `history` has the data key, until the order is erased."""


class OrderRetired(Record, frozen=True, kw_only=True, omit_defaults=True):
    """An order that had ended left the tables at the time ``at``; its rows are kept here.

    An order whose journal is too long for one Kafka record has several records; ``parts`` is their number.
    """

    family: ClassVar[str] = "order-history"

    order: OrderId
    status: OrderStatus
    rows: tuple[KeptRow, ...]
    """Rows of the machines first, then the lines of the journal, oldest first."""
    part: Annotated[int, Meta(ge=1)] = 1
    parts: Annotated[int, Meta(ge=1)] = 1

    @property
    def key(self) -> str:
        """Order id."""
        return self.order


READER: Reader[OrderRetired] = Reader(OrderRetired)
