"""The tables of the product, and the access to their rows.

Every row has an owner: an order, a driver or a region. The part of the key before the first slash is the owner's id and
determines the partition; for a dead letter it is the partition itself. Handlers read and write through their task and
see its uncommitted changes. Views read committed rows.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import msgspec

from exactly_once import UNSET, Engine, Task, TwoGenerationCache
from processors import dispatch as dispatch_rows
from processors.dead_letters import DeadLetter
from processors.delivery import Delivery
from processors.driver import Driver, ForgottenShift
from processors.history import Retired
from processors.order import Order
from processors.payment import Payment
from processors.ticket import Ticket
from processors.used_keys import UsedKey
from processors.workflow import JournalLine, Workflow
from topics.orders import Placed
from topics.records import instant
from topics.timer_rows import parse_timer_key

T = TypeVar("T")
Raw = tuple[bytes, bytes]
"""Key and value of a row."""
DECODED_CACHE_ROWS = 4_096
"""Decoded rows that a table caches at least; at most twice as many."""
MAX_CACHED_ROW_BYTES = 2_048
"""Bytes of the largest row that is cached decoded."""
MAX_PAGE_ROWS = 500
"""Rows read without a pause; they take about 5 ms."""
MAX_PAGE_BYTES = 1 << 20
"""Bytes read without a pause. One row may be as large as a record in Kafka."""


class Rows(Generic[T]):
    """A table of the engine with rows of one type, JSON on disk and in the changelog."""

    def __init__(
        self, engine: Engine, name: str, decode: Callable[[str, bytes], T], help: str, *, cache_on_write: bool = True
    ) -> None:
        """Declare the table. ``cache_on_write``: cache a row when it is written, because it is read again soon."""
        self.name = name
        self.decode = decode
        self._engine = engine
        self._cache_on_write = cache_on_write
        self._decoded: TwoGenerationCache[str, tuple[bytes, T]] = TwoGenerationCache(DECODED_CACHE_ROWS)
        engine.table(name, help=help)

    def get(self, task: Task, key: str) -> T | None:
        """Return the row as the task sees it, with uncommitted changes; None if there is none."""
        found = task.get(self.name, key.encode())
        if found is None:
            return None
        decoded = self._decoded.get(key)
        if decoded is not UNSET and decoded[0] == found:
            return decoded[1]
        row = self.decode(key, found)
        if len(found) <= MAX_CACHED_ROW_BYTES:
            self._decoded.put(key, (found, row))
        return row

    def put(self, task: Task, key: str, row: T | None) -> None:
        """Write a row to the task's transaction; None deletes it."""
        if row is None:
            task.put(self.name, key.encode(), None)
            return
        written = _encode(row)
        task.put(self.name, key.encode(), written)
        if self._cache_on_write and len(written) <= MAX_CACHED_ROW_BYTES:
            self._decoded.put(key, (written, row))

    def read(self, owner: str, key: str) -> T | None:
        """Return the committed row; None if there is none.

        Raises `PartitionNotOwned` if the partition of the owner is not open in this worker.
        """
        found = self._engine.read(self.name, self._engine.partition_of(owner.encode()), key.encode())
        return None if found is None else self.decode(key, found)

    def read_in(self, partition: int, key: str) -> T | None:
        """Return the committed row of a table that is keyed by partition; None if there is none.

        Raises `PartitionNotOwned` if the partition is not open in this worker.
        """
        found = self._engine.read(self.name, partition, key.encode())
        return None if found is None else self.decode(key, found)

    async def pages(self, owner: str, prefix: str) -> AsyncIterator[tuple[str, T]]:
        """Yield the owner's committed rows with this prefix, in key order. Other asyncio tasks run after each page."""
        partition = self._engine.partition_of(owner.encode())
        async with aclosing(paged(self._engine, self.name, partition, prefix.encode())) as rows:
            async for key, value in rows:
                yield key.decode(), self.decode(key.decode(), value)


async def paged(
    engine: Engine, table: str, partition: int, prefix: bytes = b"", after: bytes = b""
) -> AsyncGenerator[Raw, None]:
    """Yield the committed rows with this prefix and after this key, in key order.

    The rows are read a page at a time, and other asyncio tasks run after each page. Raises `PartitionNotOwned` as soon
    as the partition is not open in this worker.
    """
    while page := list(engine.scan(table, partition, prefix, after, MAX_PAGE_ROWS, MAX_PAGE_BYTES)):
        await asyncio.sleep(0)
        after = page[-1][1]
        for _, key, value in page:
            yield key, value


_encode = msgspec.json.Encoder().encode


def _struct(kind: type[T]) -> Callable[[str, bytes], T]:
    decoder = msgspec.json.Decoder(kind)
    return lambda _, value: decoder.decode(value)


class Tables:
    """All tables of the product, declared with an engine."""

    def __init__(self, engine: Engine) -> None:
        self.orders: Rows[Order] = Rows(
            engine, "orders", _struct(Order), "Order id -> stage, ETA and attention of the order."
        )
        self.payments: Rows[Payment] = Rows(
            engine, "payments", _struct(Payment), "Order id -> state of its payment and refunds."
        )
        self.tickets: Rows[Ticket] = Rows(
            engine, "tickets", _struct(Ticket), "Order id -> state of its ticket at the restaurant."
        )
        self.deliveries: Rows[Delivery] = Rows(
            engine, "deliveries", _struct(Delivery), "Order id -> state of its delivery, and the driver."
        )
        self.bodies: Rows[Placed] = Rows(engine, "bodies", _struct(Placed), "Order id -> the order as it was placed.")
        self.journal: Rows[JournalLine] = Rows(
            engine,
            "journal",
            _struct(JournalLine),
            "Order id/number -> one event that was applied to the order or refused, and its effect.",
            cache_on_write=False,
        )
        self.history: Rows[Retired] = Rows(
            engine,
            "history",
            _struct(Retired),
            "Order id -> when the order left the tables; the history topic has it.",
        )
        self.used_keys: Rows[UsedKey] = Rows(
            engine,
            "used_keys",
            _struct(UsedKey),
            "Id that follows from an Idempotency-Key -> the order with an external id that the key stands for.",
        )
        self.drivers: Rows[Driver] = Rows(
            engine, "drivers", _struct(Driver), "Driver id -> status, shift, position and delivery of the driver."
        )
        self.forgotten_shifts: Rows[ForgottenShift] = Rows(
            engine,
            "forgotten_shifts",
            _struct(ForgottenShift),
            "Partition -> the highest shift of its drivers that were forgotten; the shifts of new ones come after it.",
        )
        self.dispatch: Rows[dispatch_rows.Row] = Rows(
            engine,
            "dispatch",
            dispatch_rows.decode_row,
            "Region/kind/id -> a waiting driver, a pending delivery, or a request already seen.",
        )
        self.dead_letters: Rows[DeadLetter] = Rows(
            engine,
            "dead_letters",
            _struct(DeadLetter),
            "Partition/offset -> a dead letter, until it is replayed, discarded or expired.",
        )
        self.of_an_order: dict[str, Rows[Any]] = {
            "order": self.orders,
            "placed": self.bodies,
            "payment": self.payments,
            "ticket": self.tickets,
            "delivery": self.deliveries,
            "history": self.history,
        }
        """The tables of an order, by the names of the fields of `processors.workflow.Workflow`."""
        self.by_name: dict[str, Rows[Any]] = {rows.name: rows for rows in vars(self).values() if isinstance(rows, Rows)}

    def workflow_of(self, task: Task, order: str) -> Workflow:
        """Return the rows of an order as the task sees them.

        An order has either rows in the tables or a row in `history`, which is read only if there is no order row.
        """
        rows = {name: table.get(task, order) for name, table in self.of_an_order.items() if table is not self.history}
        return Workflow(**rows, history=None if rows["order"] else self.history.get(task, order))

    def committed_workflow_of(self, order: str) -> Workflow:
        """Return the committed rows of an order.

        Raises `PartitionNotOwned` if its partition is not open in this worker.
        """
        return Workflow(**{name: table.read(order, order) for name, table in self.of_an_order.items()})


def shown(table: str, key: bytes, value: bytes) -> tuple[str, Any]:
    """Return the key and value of a row of any table for display: decoded, and times as datetimes."""
    if table == "timers":
        timer = parse_timer_key(key)
        return timer.name, {"due": instant(timer.due_ms), "payload": _text(value)}
    return key.decode(errors="replace"), msgspec.json.decode(value)


def _text(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value.decode(errors="replace")
