"""What is kept: the tables, and how their rows are read and written.

Every row belongs to somebody: the part of its key before the first slash is an order's, a driver's or a region's id,
and decides the partition (a dead letter's is the partition itself). Handlers read and write through their task and see
its own changes; views read what is committed.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import msgspec

from processors import dispatch as dispatch_rows
from processors.delivery import Delivery
from processors.driver import Driver
from processors.history import Retired
from processors.letters import Letter
from processors.order import Order
from processors.payment import Payment
from processors.restaurant import Ticket
from processors.workflow import JournalLine, Workflow
from streams.app import engine
from streams.engine import MISSING, Recent, Task
from topics.orders import Placed
from topics.records import instant

T = TypeVar("T")
Raw = tuple[bytes, bytes]
"""Key and value of a row."""
DUE_BYTES = 8
READ_LATELY = 4_096
READ_LATELY_BYTES = 2_048
"""Of each table, so many rows or up to twice as many that were used last, those that are no larger, are not
decoded again."""
PAGE = 500
"""Rows read without a pause: 5 ms."""
PAGE_BYTES = 1 << 20
"""And bytes: a row may be as large as a record of Kafka."""


class Rows(Generic[T]):
    """A table of the engine with rows of one type, JSON on disk and in the changelog."""

    def __init__(self, name: str, decode: Callable[[str, bytes], T], help: str, *, read_soon: bool = True) -> None:
        """``read_soon``: rows are read again soon after they were written."""
        self.name, self.decode, self._read_soon = name, decode, read_soon
        self._lately: Recent[str, tuple[bytes, T]] = Recent(READ_LATELY)
        engine.table(name, help=help)

    def get(self, task: Task, key: str) -> T | None:
        """The row as the task sees it."""
        found = task.get(self.name, key.encode())
        if found is None:
            return None
        lately = self._lately.get(key)
        if lately is not MISSING and lately[0] == found:
            return lately[1]
        row = self.decode(key, found)
        if len(found) <= READ_LATELY_BYTES:
            self._lately.put(key, (found, row))
        return row

    def put(self, task: Task, key: str, row: T | None) -> None:
        """Write a row; None deletes it."""
        if row is None:
            task.put(self.name, key.encode(), None)
            return
        written = _encode(row)
        task.put(self.name, key.encode(), written)
        if self._read_soon and len(written) <= READ_LATELY_BYTES:
            self._lately.put(key, (written, row))

    def read(self, owner: str, key: str) -> T | None:
        """The committed row. `NotHere` where the owner's partition is not open in this worker."""
        found = engine.read(self.name, engine.partition_of(owner.encode()), key.encode())
        return None if found is None else self.decode(key, found)

    def read_in(self, partition: int, key: str) -> T | None:
        """The committed row of a table whose keys begin with the partition. `NotHere` where it is not open here."""
        found = engine.read(self.name, partition, key.encode())
        return None if found is None else self.decode(key, found)

    async def pages(self, owner: str, prefix: str) -> AsyncIterator[tuple[str, T]]:
        """The owner's committed rows with this prefix, in key order; others may run after every page of them."""
        async with aclosing(paged(self.name, engine.partition_of(owner.encode()), prefix.encode())) as rows:
            async for key, value in rows:
                yield key.decode(), self.decode(key.decode(), value)


async def paged(table: str, partition: int, prefix: bytes = b"", after: bytes = b"") -> AsyncGenerator[Raw, None]:
    """The committed rows with this prefix that come after that key, in key order, read a page at a time: others may run
    after each. `NotHere` as soon as the partition is not open in this worker."""
    while page := list(engine.scan(table, partition, prefix, after, PAGE, PAGE_BYTES)):
        await asyncio.sleep(0)
        after = page[-1][1]
        for _, key, value in page:
            yield key, value


_encode = msgspec.json.Encoder().encode


def _struct(kind: type[T]) -> Callable[[str, bytes], T]:
    decoder = msgspec.json.Decoder(kind)
    return lambda _, value: decoder.decode(value)


orders: Rows[Order] = Rows("orders", _struct(Order), "Order id -> how far the order is, and what it was asked for.")
payments: Rows[Payment] = Rows("payments", _struct(Payment), "Order id -> where its money is.")
tickets: Rows[Ticket] = Rows("tickets", _struct(Ticket), "Order id -> what the restaurant said of it.")
deliveries: Rows[Delivery] = Rows("deliveries", _struct(Delivery), "Order id -> who brings it.")
bodies: Rows[Placed] = Rows("bodies", _struct(Placed), "Order id -> what was ordered, as it was placed.")
journal: Rows[JournalLine] = Rows(
    "journal",
    _struct(JournalLine),
    "Order id/number -> one event that was applied to the order, and what it led to.",
    read_soon=False,
)
history: Rows[Retired] = Rows(
    "history", _struct(Retired), "Order id -> when the order left the tables; the history topic has it."
)
drivers: Rows[Driver] = Rows("drivers", _struct(Driver), "Driver id -> what the driver does, and where.")
dispatch: Rows[dispatch_rows.Row] = Rows(
    "dispatch",
    dispatch_rows.decode_row,
    "Region/what/id -> a driver who waits, a delivery that does, a request already seen.",
)
dead_letters: Rows[Letter] = Rows(
    "dead_letters", _struct(Letter), "Partition/offset -> a dead letter, until somebody has seen to it."
)

OF_AN_ORDER: dict[str, Rows[Any]] = {
    "order": orders,
    "placed": bodies,
    "payment": payments,
    "ticket": tickets,
    "delivery": deliveries,
    "history": history,
}
"""The tables of what moves together, by the names it has in `processors.workflow.Workflow`."""


def workflow_of(task: Task, order: str) -> Workflow:
    """The rows of an order as the task sees them. One that is in the tables has not left them: a look less."""
    rows = {name: table.get(task, order) for name, table in OF_AN_ORDER.items() if table is not history}
    return Workflow(**rows, history=None if rows["order"] else history.get(task, order))


def committed_workflow_of(order: str) -> Workflow:
    """The committed rows of an order. `NotHere` where its partition is not open in this worker."""
    return Workflow(**{name: table.read(order, order) for name, table in OF_AN_ORDER.items()})


def shown(table: str, key: bytes, value: bytes) -> tuple[str, Any]:
    """A row of any table as (key, value) for people: decoded, times readable."""
    if table == "timers":
        due, timer = int.from_bytes(key[:DUE_BYTES], "big"), key[DUE_BYTES:]
        return timer.decode(errors="replace"), {"due": instant(due), "payload": _text(value)}
    return key.decode(errors="replace"), msgspec.json.decode(value)


def _text(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value.decode(errors="replace")
