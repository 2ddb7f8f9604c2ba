"""What one transaction will hold, before anything of it is sent."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

import msgspec

Header = tuple[str, bytes]
Outgoing = tuple[bytes | None, bytes | None, Sequence[Header]]
"""One record to produce: key, value (None is a tombstone), headers."""


class Appended(NamedTuple):
    """What was produced to a partition, as it is there. ``next_offset`` is that after the last record.

    ``broker_ms`` is when a broker, by its own clock, appended that; -1 where the topic does not tell
    (``message.timestamp.type=LogAppendTime``).
    """

    next_offset: int
    broker_ms: int


class Position(msgspec.Struct, frozen=True):
    """How far a source topic has been applied, and of which topic that is said: one that is created anew has another
    id, whatever its offsets. A row of the table ``positions``, in JSON."""

    offset: int
    """Of the next record to apply."""
    topic_id: str
    """Empty: nobody has noted it."""

    def row(self) -> bytes:
        return _encode(self)

    @classmethod
    def of(cls, row: bytes) -> "Position":
        """Once the offset alone was noted."""
        found = _decode(row)
        return cls(found, "") if isinstance(found, int) else found


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(int | Position).decode


class Missing(Enum):
    MISSING = "no entry"


MISSING: Final = Missing.MISSING
"""Tells 'nothing buffered for this key' from None, 'deleted'."""


class Changes:
    """Rows, outputs, positions, answers of one transaction, with a log that takes back those since the last ``mark``.

    A key is written once a transaction, with its last value, however often it changed.
    """

    __slots__ = (
        "_log",
        "_marked_answers",
        "_marked_bytes",
        "answers",
        "bytes",
        "counts",
        "outputs",
        "positions",
        "rows",
    )

    def __init__(self, tables: Iterable[str]) -> None:
        self.rows: dict[str, dict[bytes, bytes | None]] = {table: {} for table in tables}
        self.outputs: defaultdict[tuple[str, int], list[Outgoing]] = defaultdict(list)
        self.positions: dict[str, int] = {}
        """Source topic -> offset of the next record to apply. What is undone stays applied: not in the log."""
        self.answers: list[tuple[str, object]] = []
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self._log: list[tuple[dict[bytes, bytes | None], bytes, bytes | Missing | None] | list[Outgoing] | str] = []
        self._marked_bytes = self._marked_answers = 0

    def __bool__(self) -> bool:
        return bool(self.positions or self.outputs or any(self.rows.values()))

    def put(self, table: str, key: bytes, value: bytes | None, size: int) -> None:
        """``size``: of key and value, in bytes."""
        rows = self.rows[table]
        self._log.append((rows, key, rows.get(key, MISSING)))
        rows[key] = value
        self.bytes += size

    def emit(self, topic: str, partition: int, record: Outgoing, size: int) -> None:
        """``size``: of key, value and headers, in bytes."""
        records = self.outputs[topic, partition]
        self._log.append(records)
        records.append(record)
        self.bytes += size

    def note_positions(self, table: str, topic_ids: Mapping[str, str]) -> None:
        """Make the positions rows of this table, for the commit."""
        self.rows[table] = {
            topic.encode(): Position(offset, topic_ids[topic]).row() for topic, offset in self.positions.items()
        }

    def answer(self, event_id: str, answer: object) -> None:
        self.answers.append((event_id, answer))

    def count(self, name: str) -> None:
        self._log.append(name)
        self.counts[name] += 1

    def mark(self) -> None:
        """From here on changes can be taken back; the earlier ones stay."""
        self._log.clear()
        self._marked_bytes, self._marked_answers = self.bytes, len(self.answers)

    def undo(self) -> None:
        """Take back every change since the last ``mark``."""
        for entry in reversed(self._log):
            if isinstance(entry, tuple):
                rows, key, before = entry
                if before is MISSING:
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
        del self.answers[self._marked_answers :]
        self.bytes = self._marked_bytes
