"""Rows in memory in place of the workers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from streams.sql.engine import DuckSession, Unavailable
from streams.sql.interfaces import Row
from streams.sql.projection import ROWS_PREFIX, Expected, Failed, Opened, line, lines_of
from streams.sql.tables import TABLES
from topics.identity import owner_of

AS_OF_MS = 1_700_000_100_000
PARTITIONS = 2


class Asked(NamedTuple):
    """A request for rows."""

    table: str
    fields: tuple[str, ...]
    key: str | None
    limit: int | None


class MemoryRows:
    """A `RowSource` over rows in memory; `faults` of it are used up, one a request."""

    def __init__(self, rows: Mapping[str, Mapping[str, object]], *, is_masked: bool = True) -> None:
        self._rows = rows
        self._is_masked = is_masked
        self.asked: list[Asked] = []
        self.paths: list[str] = []
        self.faults: list[str] = []

    def lines(
        self, table: str, fields: Sequence[str], *, key: str | None, partitions: Sequence[int] | None, limit: int | None
    ) -> Iterator[bytes]:
        """Yield the lines of a table."""
        self.asked.append(Asked(table, tuple(fields), key, limit))
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "busy":
            raise Unavailable("it is busy")
        wanted = list(range(PARTITIONS)) if partitions is None else list(partitions)
        yield line(Expected(wanted))
        for partition in wanted:
            rows = [
                (name.encode(), row if isinstance(row, bytes) else msgspec.json.encode(row))
                for name, row in sorted(self._rows.get(table, {}).items())
                if partition_of(name) == partition and (key is None or name == key or name.startswith(f"{key}/"))
            ]
            opened = Opened(partition=partition, worker=f"http://w{partition}", as_of_ms=AS_OF_MS)
            sent = list(lines_of(opened, TABLES[table], fields, rows, is_masked=self._is_masked, limit=limit))
            if partition == wanted[-1] and fault:
                yield from sent[:-1]
                if fault == "torn":
                    yield ROWS_PREFIX + b'{"id":["sh'
                if fault == "failed":
                    yield line(Failed("the disk is full"))
                return
            yield from sent

    def listed(self, path: str) -> Any:
        """Return the list of a path."""
        self.paths.append(path)
        return {"tasks": [{"partition": 0, "state": "open", "lag": 3}], "workers": [], "parties": []}


def partition_of(key: str) -> int:
    """Return the partition of a row."""
    return sum(owner_of(key).encode()) % PARTITIONS


def rows_of(session: DuckSession, sql: str, *parameters: object) -> list[Row]:
    """Run a statement; return its rows."""
    result = session.run(session.prepare(sql), parameters)
    try:
        return [row for batch in result.batches(2) for row in batch]
    finally:
        result.close()
