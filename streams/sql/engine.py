"""The query engine: DuckDB in the user's process, over rows that the workers send for each statement.

A run reads the columns that its statement needs into tables of the schema `loaded`, and puts views in the place of the
empty tables. A column that was not read is an error in these views, and not NULL: if the plan ever missed a column, the
statement runs again with all columns. The rows of a partition are added in one transaction, once all of them are here.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import duckdb
import msgspec

from streams.sql.catalogue import LOADED, create_table, open_catalogue
from streams.sql.interfaces import Column, Prepared, Row, SqlError
from streams.sql.plan import EXPLAINED, Planner, Scan
from streams.sql.projection import ROWS_PREFIX
from streams.sql.tables import AS_OF, PARTITION, TABLES, WORKER, Table
from topics.text import plain_lines

TIMEOUT_S = 120.0
"""Time that one statement may take, without the time that its reader takes for the result."""
PATIENCE_S = 15.0
"""Time for which a partition may be open on no worker, because it moves."""
RETRY_S = 0.3
BROKE_OFF = "a worker's answer broke off"
NOT_READ = "column was not read"
_ANALYZED = re.compile(r"\s*EXPLAIN\s*(?:\([^)]*)?\bANALYZE\b", re.IGNORECASE)
_EXPLAIN = re.compile(r"\s*EXPLAIN(?:\s+ANALYZE)?(?:\s*\([^)]*\))?\s", re.IGNORECASE)
_STATES: Sequence[tuple[type[Exception], str]] = (
    (duckdb.ParserException, "42601"),
    (duckdb.CatalogException, "42P01"),
    (duckdb.BinderException, "42703"),
    (duckdb.ConversionException, "22P02"),
    (duckdb.OutOfRangeException, "22003"),
    (duckdb.InvalidInputException, "22023"),
    (duckdb.NotImplementedException, "0A000"),
    (duckdb.PermissionException, "42501"),
    (duckdb.OutOfMemoryException, "53200"),
    (duckdb.InterruptException, "57014"),
)
"""Error of DuckDB -> code of PostgreSQL."""


class Unavailable(Exception):
    """A worker does not answer now, or its answer broke off; the message says which and why."""


class RowSource(Protocol):
    """The workers, as the query engine asks them. Any method may raise `Unavailable` and `SqlError`."""

    def lines(
        self, table: str, fields: Sequence[str], *, key: str | None, partitions: Sequence[int] | None, limit: int | None
    ) -> Iterator[bytes]:
        """Yield the lines of rows of a table, see `streams.sql.projection`."""
        ...

    def listed(self, path: str) -> Any:
        """Return the JSON that a path of the HTTP API answers."""
        ...


class _Line(msgspec.Struct):
    """Any line of an answer but one with rows."""

    expected: list[int] | None = None
    partition: int | None = None
    worker: str = ""
    as_of_ms: int = 0
    count: int | None = None
    failed: str = ""


_decode_line = msgspec.json.Decoder(_Line).decode


def open_session(
    source: RowSource, *, directory: str = "", timeout_s: float = TIMEOUT_S, setup: Sequence[str] = ()
) -> "DuckSession":
    """Return a session over these workers.

    ``directory`` is for temporary files; empty for none. ``setup`` are statements to run before the database is locked.
    """
    return DuckSession(source, directory, timeout_s, setup)


class DuckSession:
    """A `Session` with a separate DuckDB."""

    def __init__(self, source: RowSource, directory: str, timeout_s: float, setup: Sequence[str]) -> None:
        self._source = source
        self._timeout_s = timeout_s
        self._planner = Planner(setup)
        self._connection = open_catalogue(directory, setup)
        self._loaded: list[str] = []
        """Tables with rows in the schema `loaded`."""
        self._replaced: list[str] = []
        """Tables in whose place there is a view of these."""
        self._interrupted = ""
        """Reason why the statement under way has to end; empty without one."""
        self._used_s = 0.0
        self.as_of_ms: int | None = None
        """The rows of the last run are as of this time, or newer; None if it read none."""

    def prepare(self, sql: str) -> Prepared:
        """Check one statement that reads. Raises `SqlError` for any other."""
        used_s, self._interrupted, self._used_s = self._used_s, "", 0.0
        try:
            with self.limited():
                return self._prepare(sql)
        finally:
            self._used_s = used_s

    def _prepare(self, sql: str) -> Prepared:
        statement = self._only_statement(sql)
        count = len(statement.named_parameters)
        if statement.type == duckdb.StatementType.EXPLAIN:
            if _ANALYZED.match(statement.query):
                raise SqlError("EXPLAIN ANALYZE runs the statement: use EXPLAIN, or run it", "0A000")
            self._only_statement(_EXPLAIN.sub("", statement.query, count=1), explained=True)
            columns = self._planner.explain(statement.query)
        else:
            self._planner.scans(statement.query, [None] * count)
            columns = self._planner.columns(statement.query, count)
        return Prepared(statement.query, tuple(Column(name, kind) for name, kind in columns), count)

    def run(self, prepared: Prepared, parameters: Sequence[object] = ()) -> "DuckResult":
        """Run a statement on the rows as they are now. Raises `SqlError`."""
        self.restore()
        self._interrupted, self._used_s, self.as_of_ms = "", 0.0, None
        if len(parameters) != prepared.parameters:
            raise SqlError(f"the statement has {prepared.parameters} parameters, not {len(parameters)}", "08P01")
        try:
            with self.limited():
                return self._run(prepared, parameters)
        except BaseException:
            self.restore()
            raise

    def interrupt(self) -> None:
        """End the statement under way with an `SqlError`. Any thread may call it."""
        self._stop("the statement was cancelled")

    def close(self) -> None:
        """Release what the session holds."""
        self._planner.close()
        self._connection.close()

    # -- for the result -----------------------------------------------------------------------------------------------

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Run the block within the time that is left; DuckDB's errors become `SqlError`."""
        left_s = max(0.001, self._timeout_s - self._used_s)
        advice = f"the statement took longer than {self._timeout_s:g} s: ask for fewer rows or columns"
        timer = threading.Timer(left_s, self._stop, (advice,))
        timer.daemon = True
        timer.start()
        began = time.monotonic()
        try:
            with _errors(lambda: self._interrupted):
                yield
        finally:
            timer.cancel()
            self._used_s += time.monotonic() - began

    def restore(self) -> None:
        """Drop the rows that were read."""
        self._connection.abort()
        with suppress(duckdb.TransactionException):  # there may be no transaction
            self._connection.rollback()
        for name in self._replaced:
            self._connection.execute(f"DROP VIEW main.{name}")
            self._connection.execute(create_table(TABLES[name]))
        for name in self._loaded:
            self._connection.execute(f"DROP TABLE IF EXISTS {LOADED}.{name}")
        self._replaced, self._loaded = [], []

    # -- running ------------------------------------------------------------------------------------------------------

    def _only_statement(self, sql: str, *, explained: bool = False) -> Any:
        statements = self._planner.parse(sql)
        if len(statements) != 1:
            raise SqlError(f"send one statement at a time, not {len(statements)}", "42601")
        [statement] = statements
        kinds = {duckdb.StatementType.SELECT} | (set() if explained else {duckdb.StatementType.EXPLAIN})
        if statement.type not in kinds:
            raise SqlError(
                f"{statement.type.name} is not allowed: the tables can be read only, with SELECT, EXPLAIN, DESCRIBE or "
                "SHOW",
                "25006",
            )
        return statement

    def _run(self, prepared: Prepared, parameters: Sequence[object]) -> "DuckResult":
        if _EXPLAIN.match(prepared.sql):
            return DuckResult(self, self._connection.execute(prepared.sql), prepared.columns)
        scans = self._planner.scans(prepared.sql, parameters)
        try:
            return self._run_on(scans, prepared, parameters)
        except duckdb.InvalidInputException as error:
            if NOT_READ not in str(error):
                raise
        self.restore()
        everything = {
            name: msgspec.structs.replace(scan, columns=tuple(TABLES[name].columns)) for name, scan in scans.items()
        }
        return self._run_on(everything, prepared, parameters)

    def _run_on(self, scans: dict[str, Scan], prepared: Prepared, parameters: Sequence[object]) -> "DuckResult":
        for name, scan in scans.items():
            self._load(TABLES[name], scan)
        self._check()
        return DuckResult(self, self._connection.execute(prepared.sql, list(parameters)), prepared.columns)

    def _load(self, table: Table, scan: Scan) -> None:
        """Read rows into a table of the schema `loaded`, and put a view of it in the place of the empty one."""
        columns = [table.columns[name] for name in scan.columns]
        declared = ", ".join(f'"{column.name}" {column.type}' for column in columns) or '"_nothing" BOOLEAN'
        self._loaded.append(table.name)
        self._connection.execute(f"CREATE OR REPLACE TABLE {LOADED}.{table.name} ({declared})")
        loader = _Loader(self._connection, table, scan.columns)
        if table.path:
            loader.add_listed(self._source.listed(table.path.partition("#")[0])[table.path.partition("#")[2]])
        else:
            for key in scan.keys if scan.keys is not None else (None,):
                self._read(loader, key, scan.limit)
        self._connection.begin()
        self._connection.execute(f"DROP TABLE main.{table.name}")
        self._connection.execute(_view_of(table, scan.columns))
        self._connection.commit()
        self._replaced.append(table.name)

    def _read(self, loader: "_Loader", key: str | None, limit: int | None) -> None:
        """Read every partition once. Raises `SqlError` if one is open on no worker for long."""
        missing: set[int] | None = None
        deadline = time.monotonic() + PATIENCE_S
        while missing is None or missing:
            why = "its worker did not answer for it"
            wanted = None if missing is None else sorted(missing)
            lines = self._source.lines(loader.table.name, loader.fields, key=key, partitions=wanted, limit=limit)
            try:
                for line in lines:
                    self._check()
                    if line.startswith(ROWS_PREFIX):
                        loader.add(line)
                        continue
                    found = _decode_line(line)
                    if found.failed:
                        raise Unavailable(found.failed)
                    if found.expected is not None and missing is None:
                        missing = set(found.expected)
                    elif found.partition is not None:
                        loader.begin(
                            found.partition, found.worker, found.as_of_ms, skip=found.partition not in (missing or ())
                        )
                    elif found.count is not None and (done := loader.end(found.count)) is not None:
                        assert missing is not None
                        missing.discard(done)
                        self.as_of_ms = min(self.as_of_ms or loader.as_of_ms, loader.as_of_ms)
            except Unavailable as error:
                why = str(error)
            except msgspec.MsgspecError:
                why = "a worker's answer broke off, or is of another version than this command"
            loader.give_up()
            if missing is None or missing:
                if time.monotonic() > deadline:
                    which = "" if not missing else f"partition {min(missing)}: "
                    raise SqlError(f"{which}{why}; try again", "57P03")
                self._check()
                time.sleep(RETRY_S)

    def _check(self) -> None:
        if self._interrupted:
            raise SqlError(self._interrupted, "57014")

    def _stop(self, why: str) -> None:
        self._interrupted = why
        self._planner.interrupt()
        self._connection.interrupt()


class _Loader:
    """Adds rows to a table, a transaction for each partition."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: Table, columns: Sequence[str]) -> None:
        self.table = table
        self.fields = table.fields_of(columns)
        self.as_of_ms = 0
        self._connection = connection
        made = [table.columns[name] for name in columns]
        self._expressions = ", ".join(column.expression for column in made) or "true"
        self._given: list[object] = []
        self._partition: int | None = None
        self._skip = False
        self._count = 0
        types = {name: f"{table.fields[name].type}[]" for name in self.fields}
        self._shape = msgspec.json.encode({"rows": types}).decode().replace("'", "''")
        self._unnested = ", ".join(f'unnest(r."{name}") AS "{name}"' for name in self.fields)
        self._constants = f"(SELECT $1::INTEGER AS {PARTITION}, $2::VARCHAR AS {WORKER}, $3::BIGINT AS {AS_OF})"

    def begin(self, partition: int, worker: str, as_of_ms: int, *, skip: bool) -> None:
        """Begin the rows of a partition. ``skip`` ignores them: another worker has sent them."""
        self.give_up()
        self._partition, self._skip, self._count, self.as_of_ms = partition, skip, 0, as_of_ms
        self._given = [partition, worker, as_of_ms]
        self._connection.begin()

    def add(self, line: bytes) -> None:
        """Add rows."""
        if self._skip:
            return
        rows = f"SELECT {self._unnested} FROM (SELECT from_json($4, '{self._shape}').rows AS r)"
        try:
            self._insert(rows, line.decode())
        except UnicodeDecodeError:
            raise Unavailable(BROKE_OFF) from None
        except duckdb.InvalidInputException as error:
            if "Malformed JSON" not in str(error):
                raise
            raise Unavailable(BROKE_OFF) from None

    def end(self, count: int) -> int | None:
        """Commit the rows of the partition; return it, or None if they are skipped. Raises `Unavailable`."""
        if self._partition is None or self._skip:
            self.give_up()
            return None
        if not self.fields:
            self._insert("SELECT range FROM range($4::BIGINT)", count)
        if self._count != count:
            raise Unavailable(f"{self._count} of {count} rows arrived")
        self._connection.commit()
        done, self._partition = self._partition, None
        return done

    def give_up(self) -> None:
        """Drop the rows of a partition that are not complete."""
        if self._partition is not None:
            self._connection.rollback()
            self._partition = None

    def add_listed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows of the HTTP API."""
        for row in rows:
            row["topics"] = row.get("topics")
        content = {name: [row.get(name) for row in rows] for name in self.fields}
        self.begin(0, "", 0, skip=False)
        if self.fields:
            self.add(ROWS_PREFIX + msgspec.json.encode(content) + b"}")
        self.end(len(rows))

    def _insert(self, rows: str, given: object) -> None:
        into = f"INSERT INTO {LOADED}.{self.table.name} SELECT {self._expressions} FROM ({rows}), {self._constants}"
        done = self._connection.execute(into, [*self._given, given]).fetchone()
        self._count += 0 if done is None else int(done[0])


class DuckResult:
    """The result of one run, a `Result`."""

    def __init__(self, session: DuckSession, found: Any, columns: Sequence[Column]) -> None:
        self.columns = columns
        self._session = session
        self._found = found

    def batches(self, size: int) -> Iterator[list[Row]]:
        """Yield the rows in lists of at most ``size``. Raises `SqlError`."""
        while True:
            with self._session.limited():
                rows: list[Row] = self._found.fetchmany(size)
            if not rows:
                return
            yield rows

    def close(self) -> None:
        """Give up the rows that were not read."""
        self._session.restore()


def _view_of(table: Table, read: Sequence[str]) -> str:
    """Return the view of the rows that were read; the other columns are errors."""
    columns = [
        f'"{name}"'
        if name in read
        else f"CAST(CASE WHEN rowid >= 0 THEN error('{NOT_READ}: {name}') END AS {column.type}) AS \"{name}\""
        for name, column in table.columns.items()
    ]
    return f"CREATE VIEW main.{table.name} AS SELECT {', '.join(columns)} FROM {LOADED}.{table.name}"


@contextmanager
def _errors(interrupted: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn errors of DuckDB into `SqlError`, without its names for them."""
    try:
        yield
    except duckdb.InterruptException:
        raise SqlError(interrupted() or "the statement was cancelled", "57014") from None
    except duckdb.OutOfMemoryException:
        raise SqlError("the statement needs too much memory: ask for fewer rows or columns", "53200") from None
    except duckdb.Error as error:
        state = next((state for kind, state in _STATES if isinstance(error, kind)), "42000")
        raise SqlError(plain_lines(_sentence(str(error))), state) from None


def _sentence(text: str) -> str:
    """Return DuckDB's message without the name of the error, and without the EXPLAIN before the statement."""
    text = re.sub(r"^(?:[\w ]+ Error: )+", "", text)
    if EXPLAINED in text:
        text = re.sub(rf"^ {{{len(EXPLAINED)}}}( *\^)", r"\1", text.replace(EXPLAINED, ""), flags=re.MULTILINE)
    return text.rstrip()


def as_of(session: DuckSession) -> str:
    """Return the time of the rows of the last run, as a text; empty if it read none."""
    if session.as_of_ms is None:
        return ""
    return datetime.fromtimestamp(session.as_of_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
