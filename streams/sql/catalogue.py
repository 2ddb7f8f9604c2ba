"""DuckDB with the tables and views of SQL, locked: it reads and writes no file, and takes no setting."""

from collections.abc import Iterable, Sequence

import duckdb

from streams.sql.tables import TABLES, VIEWS, Table

LOADED = "loaded"
"""Schema of the rows that were read for the statement under way."""


class Limits:
    """Limits of DuckDB in the process of its user."""

    THREADS = 2
    MEMORY = "256MB"
    DISK = "1GB"
    """Results that do not fit into the memory are written to a temporary directory."""


def open_catalogue(
    directory: str = "", setup: Sequence[str] = (), *, without_optimizers: Iterable[str] = ()
) -> duckdb.DuckDBPyConnection:
    """Return a connection to a new database, in which every table exists and is empty.

    ``directory`` is that of temporary files; empty for none. ``setup`` are statements to run before it is locked.
    """
    connection = duckdb.connect(":memory:", config={"threads": Limits.THREADS, "memory_limit": Limits.MEMORY})
    connection.execute(f"CREATE SCHEMA {LOADED}")
    for table in TABLES.values():
        connection.execute(create_table(table))
    for view in VIEWS.values():
        connection.execute(f"CREATE VIEW {view.name} AS {view.sql}")
    for statement in setup:
        connection.execute(statement)
    settings = {
        "TimeZone": "UTC",
        "disabled_optimizers": ",".join(without_optimizers),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": directory,
        "max_temp_directory_size": Limits.DISK,
        "enable_external_access": False,
        "lock_configuration": True,
    }
    for name, value in settings.items():
        connection.execute(f"SET {name} = {_literal(value)}")
    return connection


def _literal(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"'{value}'"


def create_table(table: Table) -> str:
    """Return the statement that creates an empty table."""
    columns = ", ".join(f'"{column.name}" {column.type}' for column in table.columns.values())
    return f"CREATE TABLE main.{table.name} ({columns})"


def optimizers() -> frozenset[str]:
    """Return the names of DuckDB's optimizers."""
    with duckdb.connect(":memory:") as connection:
        return frozenset(name for (name,) in connection.execute("SELECT name FROM duckdb_optimizers()").fetchall())
