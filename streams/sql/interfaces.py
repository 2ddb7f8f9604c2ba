"""The query engine, as its front ends see it: the command `dabbawala sql` and the PostgreSQL server.

`Session.prepare` checks a statement and names its columns without reading a row. `Session.run` reads the rows that the
statement needs from the workers, and returns the result in pieces. All calls block: use a thread in asyncio.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

Row = tuple[object, ...]


class SqlError(Exception):
    """An error for the author of a statement: what is wrong, and what to do.

    ``sqlstate`` is the code of PostgreSQL's errors (https://www.postgresql.org/docs/current/errcodes-appendix.html).
    """

    def __init__(self, message: str, sqlstate: str = "42000") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Column(Struct, frozen=True):
    """A column of a result."""

    name: str
    type: str
    """Its type in DuckDB's words, such as `VARCHAR`, `BIGINT`, `TIMESTAMP WITH TIME ZONE` or `DECIMAL(18,2)`."""


class Prepared(Struct, frozen=True):
    """A statement that was checked."""

    sql: str
    columns: tuple[Column, ...]
    parameters: int = 0
    """Number of its parameters, `$1` to `$n`."""


class Result(Protocol):
    """The result of one run. Close it before the next run of its session."""

    columns: Sequence[Column]

    def batches(self, size: int) -> Iterator[list[Row]]:
        """Yield the rows in lists of at most ``size``. Raises `SqlError`."""
        ...

    def close(self) -> None:
        """Give up the rows that were not read."""
        ...


class Session(Protocol):
    """One user's connection to the query engine. One statement runs at a time."""

    def prepare(self, sql: str) -> Prepared:
        """Check one statement that reads. Raises `SqlError` for any other."""
        ...

    def run(self, prepared: Prepared, parameters: Sequence[object] = ()) -> Result:
        """Run a statement on the rows as they are now. Raises `SqlError`."""
        ...

    def interrupt(self) -> None:
        """End the statement under way with an `SqlError`. Any thread may call it."""
        ...

    def close(self) -> None:
        """Release what the session holds."""
        ...
