"""The rows that a statement needs, out of DuckDB's plan for it: columns of which tables, of which owners, how many.

DuckDB resolves names, views and joins, and its optimizers move the columns and filters to the scans of the tables. Two
databases without rows plan each statement: in one, filters stay above the scans, so that a scan lists every column that
is needed; in the other, filters reach the scans, also through views and joins. So no SQL is parsed here.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import msgspec

from streams.sql.catalogue import open_catalogue, optimizers
from streams.sql.interfaces import SqlError
from streams.sql.tables import TABLES

MAX_KEYS = 50
"""Keys that are looked up one by one; with more, all rows are read."""
MAX_LIMIT = 10_000
EXPLAINED = "EXPLAIN (FORMAT JSON) "
TABLE_NAMES = {f"memory.main.{name}": name for name in TABLES}
WRITES = re.compile(r"INSERT|UPDATE|DELETE|MERGE|COPY|CREATE|DROP|ALTER|ATTACH|EXPORT")
"""Operators of a statement that writes: a common table expression may, within a SELECT."""
_TEXT = r"'(?:[^']|'')*'"
_EQUAL = re.compile(rf"\((\w+) = ({_TEXT})\)")
_IN = re.compile(rf"(?:optional: )?\((\w+) IN \(({_TEXT}(?:, {_TEXT})*)\)\)")
_MANY = re.compile(_TEXT)

Node = Mapping[str, Any]


class Scan(msgspec.Struct, frozen=True):
    """The rows of a table that a statement needs."""

    columns: tuple[str, ...]
    keys: tuple[str, ...] | None = None
    """Owners of the rows; None for all."""
    limit: int | None = None
    """Number of rows that are enough, whichever they are; None for all."""


class Planner:
    """Two databases that plan statements and never have rows."""

    def __init__(self, setup: Sequence[str] = ()) -> None:
        """``setup`` are statements to run in both before they are locked."""
        known = optimizers()
        self._columns = open_catalogue(setup=setup, without_optimizers=sorted(known - {"unused_columns"}))
        kept_out = {"statistics_propagation", "empty_result_pullup", "late_materialization", "top_n"}
        self._filters = open_catalogue(setup=setup, without_optimizers=sorted(known & kept_out))

    def scans(self, sql: str, parameters: Sequence[object]) -> dict[str, Scan]:
        """Return table -> the rows that the statement needs. Raises `SqlError` for a statement that writes.

        Raises DuckDB's errors.
        """
        wide, narrow = (_plan(each, sql, parameters) for each in (self._columns, self._filters))
        if writing := next((node["name"] for node in _nodes(wide) if WRITES.search(node["name"])), None):
            raise SqlError(f"{writing.strip()}: the tables can be read only, so write SELECT", "25006")
        columns: dict[str, set[str]] = {}
        for name, scan in _table_scans(wide):
            columns.setdefault(name, set()).update(_listed(scan, "Projections"))
        filters: dict[str, list[list[str]]] = {}
        for name, scan in _table_scans(narrow):
            filters.setdefault(name, []).append(_listed(scan, "Filters"))
        return {
            name: Scan(
                tuple(
                    column for column in TABLES[name].columns if column in {each.partition(".")[0] for each in found}
                ),
                _keys(name, filters.get(name, [])),
                _limit(narrow),
            )
            for name, found in columns.items()
        }

    def parse(self, sql: str) -> list[Any]:
        """Return the statements of a text. Raises DuckDB's errors."""
        return list(self._columns.extract_statements(sql))

    def columns(self, sql: str, parameters: int) -> list[tuple[str, str]]:
        """Return name and type of the columns of a result. Raises DuckDB's errors."""
        unbound = [None] * parameters
        return [(name, kind) for name, kind, *_ in self._columns.execute(f"DESCRIBE {sql}", unbound).fetchall()]

    def explain(self, sql: str) -> list[tuple[str, str]]:
        """Return name and type of the columns of EXPLAIN. Raises DuckDB's errors."""
        self._filters.execute(sql).fetchall()
        return [("explain_key", "VARCHAR"), ("explain_value", "VARCHAR")]

    def interrupt(self) -> None:
        """End the planning under way, as far as DuckDB lets it end. Any thread may call it."""
        self._columns.interrupt()
        self._filters.interrupt()

    def close(self) -> None:
        """Close both databases."""
        self._columns.close()
        self._filters.close()


def _plan(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object]) -> list[Node]:
    found = connection.execute(EXPLAINED + sql, list(parameters)).fetchall()
    plan: list[Node] = json.loads(found[-1][1])
    return plan


def _nodes(plan: Sequence[Node]) -> Iterator[Node]:
    for node in plan:
        yield node
        yield from _nodes(node["children"])


def _table_scans(plan: Sequence[Node]) -> Iterator[tuple[str, Node]]:
    for node in _nodes(plan):
        if (name := TABLE_NAMES.get(node["extra_info"].get("Table", ""))) is not None:
            yield name, node


def _listed(node: Node, name: str) -> list[str]:
    """Return what a node lists under a name; DuckDB writes a list of one as a text."""
    found = node["extra_info"].get(name, "")
    return [found] if isinstance(found, str) and found else list(found)


def _keys(table: str, scans: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """Return the owners to which every scan of a table is limited; None if one is not."""
    found: dict[str, None] = {}
    for filters in scans:
        keys = next((keys for each in filters if (keys := _owners(table, each)) is not None), None)
        if keys is None:
            return None
        found |= dict.fromkeys(keys)
    # the rows of an owner are those whose keys begin with it: `a:1` has those of `a:1/charge`
    owners = tuple(key for key in found if not any(key.startswith(f"{other}/") for other in found))
    return owners if scans and len(owners) <= MAX_KEYS else None


def _owners(table: str, filtered: str) -> list[str] | None:
    """Return the owners that a filter admits: `(id = 'x')` or `(id IN ('x', 'y'))`; None for another filter."""
    found = _EQUAL.fullmatch(filtered) or _IN.fullmatch(filtered)
    if found is None or found[1] not in TABLES[table].owners:
        return None
    return [text[1:-1].replace("''", "'") for text in _MANY.findall(found[2])]


def _limit(plan: Sequence[Node]) -> int | None:
    """Return how many rows are enough, if the plan takes the first ones of one table, and nothing else."""
    limit: int | None = None
    while len(plan) == 1:
        [node] = plan
        info = node["extra_info"]
        match node["name"].strip():
            case "STREAMING_LIMIT" | "LIMIT" if limit is None:
                numbers = [str(info.get("Limit", "")), str(info.get("Offset", "0"))]
                if not all(number.isdecimal() for number in numbers):
                    return None
                limit = sum(map(int, numbers))
            case "PROJECTION":
                pass
            case "SEQ_SCAN" if not _listed(node, "Filters"):
                return limit if limit is not None and limit <= MAX_LIMIT else None
            case _:
                return None
        plan = node["children"]
    return None
