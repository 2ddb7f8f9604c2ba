"""The contents of one transaction, before anything of it is sent."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

import msgspec

Header = tuple[str, bytes]
ProducerRecord = tuple[bytes | None, bytes | None, Sequence[Header]]
"""One record to produce: key, value (None is a tombstone), headers."""


class ProduceResult(NamedTuple):
    """Result of a produce to one partition. ``next_offset`` is the offset after the last record.

    ``broker_ms`` is the broker's time of the append; -1 if the topic does not have
    ``message.timestamp.type=LogAppendTime``.
    """

    next_offset: int
    broker_ms: int


class Position(msgspec.Struct, frozen=True):
    """Position in a source topic: a row of the table ``positions``, in JSON.

    A topic that is deleted and created again has another id.
    """

    offset: int
    """Offset of the next record to apply."""
    topic_id: str
    """Id of the topic; empty if the row is from before ids were stored."""

    def row(self) -> bytes:
        """Return the row of this position."""
        return _encode(self)

    @classmethod
    def of(cls, row: bytes) -> "Position":
        """Decode a row. Old rows have the offset alone."""
        found = _decode(row)
        return cls(found, "") if isinstance(found, int) else found


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(int | Position).decode


class Unset(Enum):
    UNSET = "no entry"


UNSET: Final = Unset.UNSET
"""Distinguishes 'nothing buffered for this key' from None, 'deleted'."""


class PendingTransaction:
    """Contents of one transaction: rows, outputs, positions, answers and callbacks.

    A log of the changes rolls them back to the last savepoint.
    A transaction writes each key once, with its last value, however often the key changed.
    """

    __slots__ = (
        "_log",
        "_savepoint_answers",
        "_savepoint_bytes",
        "_savepoint_callbacks",
        "answers",
        "bytes",
        "callbacks",
        "counts",
        "first_ms",
        "outputs",
        "positions",
        "rows",
    )

    def __init__(self, tables: Iterable[str]) -> None:
        self.rows: dict[str, dict[bytes, bytes | None]] = {table: {} for table in tables}
        self.outputs: defaultdict[tuple[str, int], list[ProducerRecord]] = defaultdict(list)
        self.positions: dict[str, int] = {}
        """Source topic -> offset of the next record to apply. What is undone stays applied: not in the log."""
        self.first_ms: dict[str, int] = {}
        """Source topic -> time of its first record in this transaction, in milliseconds since the epoch."""
        self.answers: list[tuple[str, object]] = []
        self.callbacks: list[Callable[[], None]] = []
        """Functions to call once the transaction is committed."""
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self._log: list[tuple[dict[bytes, bytes | None], bytes, bytes | Unset | None] | list[ProducerRecord] | str] = []
        self._savepoint_bytes = 0
        self._savepoint_answers = 0
        self._savepoint_callbacks = 0

    def __bool__(self) -> bool:
        return bool(self.positions or self.outputs or any(self.rows.values()))

    def put(self, table: str, key: bytes, value: bytes | None, size: int) -> None:
        """Change a row. ``size``: key and value, in bytes."""
        rows = self.rows[table]
        self._log.append((rows, key, rows.get(key, UNSET)))
        rows[key] = value
        self.bytes += size

    def emit(self, topic: str, partition: int, record: ProducerRecord, size: int) -> None:
        """Add a record to produce. ``size``: key, value and headers, in bytes."""
        records = self.outputs[topic, partition]
        self._log.append(records)
        records.append(record)
        self.bytes += size

    def note_positions(self, table: str, topic_ids: Mapping[str, str]) -> None:
        """Turn the positions into rows of this table, for the commit."""
        self.rows[table] = {
            topic.encode(): Position(offset, topic_ids[topic]).row() for topic, offset in self.positions.items()
        }

    def answer(self, event_id: str, answer: object) -> None:
        self.answers.append((event_id, answer))

    def after_commit(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def count(self, name: str) -> None:
        self._log.append(name)
        self.counts[name] += 1

    def savepoint(self) -> None:
        """Set the savepoint: ``rollback`` keeps the changes made so far."""
        self._log.clear()
        self._savepoint_bytes = self.bytes
        self._savepoint_answers = len(self.answers)
        self._savepoint_callbacks = len(self.callbacks)

    def rollback(self) -> None:
        """Roll back every change since the last ``savepoint``."""
        for entry in reversed(self._log):
            if isinstance(entry, tuple):
                rows, key, before = entry
                if before is UNSET:
                    del rows[key]
                else:
                    rows[key] = before
            elif isinstance(entry, list):
                entry.pop()
            else:
                self.counts[entry] -= 1
        self._log.clear()
        for empty in [tp for tp, records in self.outputs.items() if not records]:
            del self.outputs[empty]
        del self.answers[self._savepoint_answers :]
        del self.callbacks[self._savepoint_callbacks :]
        self.bytes = self._savepoint_bytes
