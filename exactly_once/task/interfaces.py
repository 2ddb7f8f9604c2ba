"""Protocols that a task needs from outside, and the errors it raises.

    Record         one record of a source topic, as aiokafka delivers it
    Transactions   the task's transactional producer
    Store          the task's committed rows, on disk
    Clock          the time that timers and back-offs use

Production has aiokafka and RocksDB behind them, tests and the simulation have memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from exactly_once.task.digest import Rows
from exactly_once.task.transaction import Header, ProduceResult, ProducerRecord

RESERVED_PREFIX = b"\xff\xff"
"""Prefix that no row key may have: the store keeps its checkpoints under it."""


class Record(Protocol):
    """One record of a source topic, as aiokafka delivers it. ``timestamp`` is in milliseconds since the epoch."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[Header]: ...


class Transactions(Protocol):
    """The task's transactional producer. Any exception from ``produce`` or ``end`` breaks the task."""

    @property
    def in_doubt(self) -> bool:
        """True if some reader may not see the last commit yet. The next transaction resolves the doubt."""
        ...

    async def produce(
        self, outputs: Mapping[tuple[str, int], Sequence[ProducerRecord]]
    ) -> dict[tuple[str, int], ProduceResult]:
        """Append records to the log, by (topic, partition). Return the result of each partition."""
        ...

    async def end(self) -> None:
        """Commit the transaction. If this raises, Kafka may have committed it all the same."""
        ...

    async def close(self) -> None:
        """Close the producer."""
        ...

    def disconnect(self) -> None:
        """Cut the connection to the coordinators (a failpoint)."""
        ...


class Snapshot(Rows, Protocol):
    """All rows at one moment. The store stays open on disk until ``release``."""

    def release(self) -> None: ...


class Store(Protocol):
    """The committed rows of one task, on disk. Every method may raise ``StoreError``."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the row's value, or None if there is no row."""
        ...

    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows from this key on, in key order."""
        ...

    def write(
        self,
        rows: Mapping[str, Mapping[bytes, bytes | None]],
        next_offsets: Mapping[str, int],
        appended_ms: Mapping[str, int],
    ) -> None:
        """Write rows and checkpoints atomically.

        By table: the changed rows (None deletes), the offset after the last changelog record they include, and the
        broker's time of that record.
        """
        ...

    def snapshot(self) -> Snapshot:
        """Return all rows as they are now."""
        ...

    def purge(self, prefix: bytes) -> None:
        """Remove what the disk still has of deleted rows with this prefix. Any thread may call it."""
        ...

    def close(self) -> None:
        """Close the store and release its lock on the directory."""
        ...


class Clock(Protocol):
    """The clock of one task."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch; never runs backwards."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment."""
        ...


class RejectRecord(Exception):
    """Raised by a handler that rejects its record, timer or result.

    The task rolls the handler's changes back and writes a dead letter with the reason. The dead letter carries no
    stack trace: unlike any other exception, a rejection is no bug.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StoreError(Exception):
    """A disk failure. The failure breaks the task; the record that a handler was reading for is not set aside."""


class TaskBroken(Exception):
    """The task broke or closed before its changes were committed."""
