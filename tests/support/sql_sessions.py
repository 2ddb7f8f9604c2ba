"""A query engine for tests of its front ends: a DuckDB database in memory with a few tables."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import duckdb

from streams.sql.interfaces import Column, Prepared, Result, Row, Session, SqlError

TABLES = (
    "CREATE TABLE orders (id VARCHAR NOT NULL, status VARCHAR, restaurant VARCHAR, total DECIMAL(18,2), "
    "placed_ms BIGINT, placed_at TIMESTAMP WITH TIME ZONE, codes VARCHAR[], customer STRUCT(name VARCHAR), "
    "partition INTEGER)",
    "COMMENT ON TABLE orders IS 'Orders and their states'",
    "COMMENT ON COLUMN orders.placed_at IS 'Time of the order'",
    """INSERT INTO orders SELECT 'shop:' || n, ['CREATED', 'DELIVERED', 'CANCELLED'][n % 3 + 1], 'r-' || n % 5,
        n + 0.25, 1767225600000 + n, to_timestamp(1767225600 + n), ['a', 'b ' || n], {'name': '***'}, n % 4
        FROM range(1, 31) numbers(n)""",
    "CREATE TABLE drivers (id VARCHAR, busy BOOLEAN, speed DOUBLE, since DATE, token UUID, photo BLOB, note JSON)",
    "INSERT INTO drivers VALUES ('d-1', true, 4.5, DATE '2026-01-02', '00000000-0000-0000-0000-000000000007', "
    "'\\x01\\xFF'::BLOB, '{\"a\": 1}'), ('d-2', NULL, NULL, NULL, NULL, NULL, NULL)",
    "CREATE VIEW open_orders AS SELECT * FROM orders WHERE status = 'CREATED'",
)
_STATES: Mapping[type[duckdb.Error], str] = {
    duckdb.ParserException: "42601",
    duckdb.BinderException: "42703",
    duckdb.CatalogException: "42P01",
    duckdb.ConversionException: "22P02",
    duckdb.InterruptException: "57014",
}


class DuckSession:
    """A session of a new database; every session has the same rows."""

    def __init__(self, setup: Sequence[str] = ()) -> None:
        """Make the tables."""
        self._connection = duckdb.connect(config={"threads": 1})
        for statement in ("SET TimeZone = 'UTC'", *TABLES, *setup, "SET lock_configuration = true"):
            self._connection.execute(statement)
        self.interrupted = threading.Event()
        self.closed = threading.Event()
        self.running = threading.Event()

    def prepare(self, sql: str) -> Prepared:
        """Check a statement."""
        with _errors():
            (statement,) = self._connection.extract_statements(sql)
            if statement.type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
                raise SqlError("Only statements that read are allowed: use SELECT.", "25006")
            count = len(statement.named_parameters)
            if statement.type == duckdb.StatementType.EXPLAIN:
                columns = [("explain_key", "VARCHAR"), ("explain_value", "VARCHAR")]
            else:
                described = self._connection.execute(f"DESCRIBE {sql}", [None] * count or None).fetchall()
                columns = [(row[0], row[1]) for row in described]
        return Prepared(sql, tuple(Column(name, kind) for name, kind in columns), count)

    def run(self, prepared: Prepared, parameters: Sequence[object] = ()) -> Result:
        """Run a statement."""
        self.running.set()
        with _errors():
            cursor = self._connection.execute(prepared.sql, list(parameters) or None)
        return DuckResult(cursor)

    def interrupt(self) -> None:
        """End the statement under way."""
        self.interrupted.set()
        self._connection.interrupt()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
        self.closed.set()


class DuckResult:
    """The result of a statement."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self.columns: Sequence[Column] = [Column(name, str(kind)) for name, kind, *_ in cursor.description]

    def batches(self, size: int) -> Iterator[list[Row]]:
        """Yield the rows."""
        while True:
            with _errors():
                rows = self._cursor.fetchmany(size)
            if not rows:
                return
            yield rows

    def close(self) -> None:
        """Give up the other rows."""
        self._cursor.abort()


class _errors:
    """Turn errors of DuckDB into errors for the author of a statement."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, duckdb.Error):
            raise SqlError(str(error), _STATES.get(type(error), "42000")) from None


class Sessions:
    """Open sessions, and keep them for the test to look at."""

    def __init__(self, make: Callable[[Sequence[str]], Session] = DuckSession) -> None:
        self.opened: list[Session] = []
        self._make = make

    def __call__(self, setup: Sequence[str]) -> Session:
        """Open a session."""
        self.opened.append(self._make(setup))
        return self.opened[-1]
