"""What is kept: the tables, and how their rows are read and written.

Every row belongs to somebody: the part of its key before the first slash is an order's, a driver's or a region's id,
and decides the partition. Handlers read and write through their task and see its own changes; views read what is
committed.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import msgspec
from processors.delivery import Delivery
from processors.dispatch import decode_row
from processors.driver import Driver
from processors.order import Order
from processors.payment import Payment
from processors.restaurant import Ticket
from processors.workflow import JournalEntry

from streams.app import engine
from streams.engine import Task
from topics.identity import owner_of
from topics.records import instant

T = TypeVar("T")
DUE_BYTES = 8


class Rows(Generic[T]):
    """A table of the engine with rows of one type, JSON on disk and in the changelog."""

    def __init__(self, name: str, decode: Callable[[str, bytes], T], help: str) -> None:
        self.name, self.decode = name, decode
        engine.table(name, help=help)

    def get(self, task: Task, key: str) -> T | None:
        """The row as the task sees it."""
        found = task.get(self.name, key.encode())
        return None if found is None else self.decode(key, found)

    def put(self, task: Task, key: str, row: T | None) -> None:
        """Write a row; None deletes it."""
        task.put(self.name, key.encode(), None if row is None else msgspec.json.encode(row))

    def read(self, owner: str, key: str) -> T | None:
        """The committed row. `NotHere` where the owner's partition is not open in this worker."""
        found = engine.read(self.name, engine.partition_of(owner.encode()), key.encode())
        return None if found is None else self.decode(key, found)

    def scan(self, owner: str, prefix: str) -> Iterator[tuple[str, T]]:
        """The owner's committed rows with this prefix, in key order."""
        partition = engine.partition_of(owner.encode())
        for _, key, value in engine.scan(self.name, partition, prefix.encode(), limit=None):
            yield key.decode(), self.decode(key.decode(), value)

    def scan_all(self) -> Iterator[tuple[str, T]]:
        """The committed rows of every partition open in this worker, a partition after the other."""
        for _, key, value in engine.scan(self.name, limit=None):
            yield key.decode(), self.decode(key.decode(), value)


def _struct(kind: type[T]) -> Callable[[str, bytes], T]:
    decoder = msgspec.json.Decoder(kind)
    return lambda _, value: decoder.decode(value)


orders: Rows[Order] = Rows("orders", _struct(Order), "Order id -> how far the order is, and what it was asked for.")
payments: Rows[Payment] = Rows("payments", _struct(Payment), "Order id -> where its money is.")
tickets: Rows[Ticket] = Rows("tickets", _struct(Ticket), "Order id -> what the restaurant said of it.")
deliveries: Rows[Delivery] = Rows("deliveries", _struct(Delivery), "Order id -> who brings it.")
journal: Rows[JournalEntry] = Rows(
    "journal", _struct(JournalEntry), "Order id/number -> one event that was applied to the order, and what it led to."
)
drivers: Rows[Driver] = Rows("drivers", _struct(Driver), "Driver id -> what the driver does, and where.")
dispatch: Rows[Any] = Rows(
    "dispatch",
    decode_row,
    "Region/driver|pending|asked/id -> a waiting driver, a delivery without one, a request seen.",
)


def shown(table: str, key: bytes, value: bytes) -> tuple[str, Any]:
    """A row of any table as (key, value) for people: decoded, times readable."""
    if table == "timers":
        due, timer = int.from_bytes(key[:DUE_BYTES], "big"), key[DUE_BYTES:]
        return timer.decode(errors="replace"), {"due": instant(due), "payload": _text(value)}
    return key.decode(errors="replace"), msgspec.json.decode(value)


def owner(table: str, key: str) -> str:
    """Whose row a key of a table is."""
    return owner_of(key)


def _text(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value.decode(errors="replace")
