"""Descriptions of the tables of SQL, out of the docstrings of the rows' types."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from msgspec import Struct

from streams.sql.tables import TABLES, VIEWS, TableColumn


class Described(NamedTuple):
    """A column for people."""

    name: str
    type: str
    meaning: str


def summaries() -> list[tuple[str, str]]:
    """Return name and meaning of each table and view."""
    tables = [(table.name, table.meaning) for table in TABLES.values()]
    return tables + [(view.name, view.meaning) for view in VIEWS.values()]


def columns_of(name: str, types: list[tuple[str, str]]) -> list[Described]:
    """Return the columns of a table or view; ``types`` has their names and types in DuckDB.

    A column of a view has the meaning of the column of the same name in a table, unless the view has another.
    """
    if name in TABLES:
        return [Described(column, kind, _meaning(TABLES[name].columns[column])) for column, kind in types]
    known = {
        column: _meaning(each)
        for table in ("calls", "bodies", "orders")
        for column, each in TABLES[table].columns.items()
    }
    return [
        Described(column, kind, VIEWS[name].meanings.get(column) or known.get(column, "")) for column, kind in types
    ]


def _meaning(column: TableColumn) -> str:
    if column.documented_by is None:
        return column.meaning
    kind, field = column.documented_by
    bases = [each for each in inspect.getmro(kind) if issubclass(each, Struct) and each is not Struct]
    return next((text for each in bases for name, text in _docstrings(each) if name == field), "")


def _docstrings(kind: type[Struct]) -> Iterator[tuple[str, str]]:
    """Yield each field of a type that has a docstring, with it."""
    [declared] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(declared, ast.ClassDef)
    for node, after in pairwise(declared.body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield node.target.id, " ".join(str(after.value.value).split())
