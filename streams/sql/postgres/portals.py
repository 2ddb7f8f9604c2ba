"""Prepared statements and portals of a connection, and the rows of a portal in the bytes of the protocol.

Everything here blocks, and runs in a thread of the connection.
"""

import struct
from collections.abc import Sequence

from msgspec import Struct

from streams.sql.interfaces import Column, Prepared, Result, Row, Session, SqlError
from streams.sql.postgres import messages
from streams.sql.postgres.statements import Command, Show
from streams.sql.postgres.types import BINARY, TEXT, Encoder, PgType, parameter, type_of

BATCH_ROWS = 500
"""Rows that are encoded at a time: some 100 KiB of orders, so that a cancel waits for milliseconds."""


class Statement(Struct):
    """A prepared statement."""

    sql: str
    """Text of the client, without a semicolon; empty for an empty statement."""
    command: Command | None = None
    """Statement that the server answers by itself."""
    prepared: Prepared = Prepared("", ())
    """The statement for the engine, if it is no command."""
    oids: tuple[int, ...] = ()
    """Types of the parameters as the client gave them; 0 if it left one open."""

    found_oids: dict[int, int] = {}
    """Parameter -> its type where the text shows it."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the result, found without running the statement."""
        if isinstance(self.command, Show):
            return (Column(self.command.name, "VARCHAR"),)
        return self.prepared.columns

    @property
    def parameter_oids(self) -> list[int]:
        """Types of all parameters; text if neither the client nor the statement gives one."""
        numbers = range(1, self.prepared.parameters + 1)
        return [self._given(number) or self.found_oids.get(number, TEXT.oid) for number in numbers]

    def values(self, values: Sequence[bytes | None], formats: Sequence[int]) -> tuple[object, ...]:
        """Return the parameters of one run. Raises `SqlError`."""
        each = formats_of(len(values), formats)
        numbered = enumerate(zip(values, self.parameter_oids, each, strict=True), 1)
        return tuple(parameter(value, self._read_as(at, oid, one), one, at) for at, (value, oid, one) in numbered)

    def _given(self, number: int) -> int:
        return self.oids[number - 1] if number <= len(self.oids) else 0

    def _read_as(self, number: int, oid: int, format_: int) -> int:
        """Return the type to decode; a text that the statement casts stays a text: the engine knows more forms."""
        is_open = format_ != BINARY and not self._given(number) and oid != TEXT.array
        return TEXT.oid if is_open else oid


class Chunk(Struct):
    """Some rows of a result, encoded."""

    data: bytes
    count: int
    is_last: bool


class Rows:
    """The rows of a running statement."""

    def __init__(self, result: Result, formats: Sequence[int]) -> None:
        """Read no row."""
        self.columns: tuple[Column, ...] = tuple(result.columns)
        self._result = result
        self._batches = result.batches(BATCH_ROWS)
        self._encoders = encoders(self.columns, formats)
        self._batch: list[Row] = []
        self._is_ended = False

    def take(self, limit: int) -> Chunk:
        """Return at most ``limit`` of the next rows. Raises `SqlError`."""
        if not self._batch and not self._is_ended:
            self._batch = next(self._batches, [])
            self._is_ended = not self._batch
        rows, self._batch = self._batch[:limit], self._batch[limit:]
        return Chunk(encoded(rows, self._encoders), len(rows), self._is_ended)

    def close(self) -> None:
        """Give up the rows that were not read."""
        self._result.close()


class Portal(Struct):
    """A statement with its parameters, and as much of its result as was sent."""

    statement: Statement
    parameters: tuple[object, ...] = ()
    formats: tuple[int, ...] = ()
    """Format of every column, of all columns, or none for text."""
    rows: Rows | None = None
    is_done: bool = False
    sent: int = 0
    """Rows that were sent."""


def started(session: Session, portal: Portal) -> Rows:
    """Run the statement of a portal. Raises `SqlError`."""
    return Rows(session.run(portal.statement.prepared, portal.parameters), portal.formats)


def pg_types(columns: Sequence[Column]) -> list[PgType]:
    """Return the types of columns."""
    return [type_of(column.type) for column in columns]


def formats_of(count: int, formats: Sequence[int]) -> list[int]:
    """Return the format of each of so many values. Raises `SqlError`."""
    if len(formats) > 1 and len(formats) != count:
        raise SqlError(f"The message has {len(formats)} formats for {count} values: send one, or one each.", "08P01")
    if any(one not in (0, 1) for one in formats):
        raise SqlError("A format is neither 0 (text) nor 1 (binary).", "22023")
    return list(formats) if len(formats) == count else [*formats, 0][:1] * count


def encoders(columns: Sequence[Column], formats: Sequence[int]) -> list[Encoder]:
    """Return the function for the values of each column."""
    kinds = pg_types(columns)
    return [kind.encoder(one) for kind, one in zip(kinds, formats_of(len(kinds), formats), strict=True)]


def description(columns: Sequence[Column], formats: Sequence[int] = ()) -> bytes:
    """Return the description of a result: its columns, or the message that there are none."""
    if not columns:
        return messages.NO_DATA
    if len(columns) > messages.MAX_FIELDS:
        raise SqlError(f"The result has more than {messages.MAX_FIELDS} columns: name those that you need.", "54011")
    names = [column.name for column in columns]
    return messages.row_description(zip(names, pg_types(columns), formats_of(len(columns), formats), strict=True))


def encoded(rows: Sequence[Row], functions: Sequence[Encoder]) -> bytes:
    """Return the messages of rows. Raises `SqlError`."""
    try:
        return b"".join([messages.data_row(_values(row, functions)) for row in rows])
    except (struct.error, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise SqlError("A value of the result does not fit its type: cast its column to text.", "22003") from None


def _values(row: Row, functions: Sequence[Encoder]) -> list[bytes | None]:
    return [None if value is None else function(value) for value, function in zip(row, functions, strict=True)]
