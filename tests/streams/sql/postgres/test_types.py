"""Values in the text and binary forms of PostgreSQL, checked by psycopg's codecs."""

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import Format

from streams.sql.interfaces import SqlError
from streams.sql.postgres import types
from streams.sql.postgres.types import ALL, parameter, type_of

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**18), max_value=10**18)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOLEAN": st.booleans(),
    "SMALLINT": st.integers(-(2**15), 2**15 - 1),
    "INTEGER": st.integers(-(2**31), 2**31 - 1),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "HUGEINT": st.integers(-(2**127), 2**127).map(Decimal),
    "DOUBLE": st.floats(allow_nan=False),
    "DECIMAL(28,9)": DECIMALS,
    "VARCHAR": TEXTS,
    "TIMESTAMP WITH TIME ZONE": TIMES.map(lambda one: one.replace(tzinfo=UTC)),
    "TIMESTAMP": TIMES,
    "DATE": st.dates(),
    "TIME": st.times(),
    "INTERVAL": st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000)),
    "UUID": st.uuids(),
    "BLOB": st.binary(),
    "VARCHAR[]": st.lists(st.none() | TEXTS),
    "BIGINT[]": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    "DECIMAL(28,9)[]": st.lists(DECIMALS),
}


@pytest.mark.parametrize("format_", [Format.TEXT, Format.BINARY])
@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_client_reads_the_value_that_was_sent(name: str, format_: Format, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    kind = type_of(name)
    encoded = kind.encoder(format_)(value)
    assert Transformer().get_loader(kind.oid, format_).load(encoded) == value


@pytest.mark.parametrize("format_", [PyFormat.TEXT, PyFormat.BINARY])
@pytest.mark.parametrize(
    "name",
    [
        "BOOLEAN",
        "BIGINT",
        "DOUBLE",
        "DECIMAL(28,9)",
        "VARCHAR",
        "TIMESTAMP",
        "DATE",
        "UUID",
        "TIMESTAMP WITH TIME ZONE",
        "VARCHAR[]",
        "BIGINT[]",
    ],
)
@given(data=st.data())
def test_server_reads_the_parameter_that_was_sent(name: str, format_: PyFormat, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    dumper = Transformer().get_dumper(value, format_)
    encoded = dumper.dump(value)
    oid = dumper.oid or type_of(name).oid
    assert parameter(None if encoded is None else bytes(encoded), oid, dumper.format, 1) == value


@pytest.mark.parametrize("data", [b"\\x00FF5c27", rb"\000\377\\'"])
def test_bytes_arrive_in_both_forms_of_text(data: bytes) -> None:
    assert parameter(data, types.BYTEA.oid, 0, 1) == b"\0\xff\\'"


@given(st.binary(max_size=60), st.sampled_from([*ALL, 0, 18, 19, 26, 3802, 4711]), st.integers(0, 1))
def test_hostile_parameter_is_an_error_of_sql(data: bytes, oid: int, format_: int) -> None:
    with suppress(SqlError):
        parameter(data, oid, format_, 1)


@pytest.mark.parametrize(
    ("duckdb", "name"),
    [
        ("TINYINT", "int2"),
        ("UINTEGER", "int8"),
        ("UBIGINT", "numeric"),
        ("DECIMAL(18,2)", "numeric"),
        ("DECIMAL(18,2)[]", "_numeric"),
        ("VARCHAR[3]", "_text"),
        ("VARCHAR[][]", "json"),
        ("STRUCT(a INTEGER)", "json"),
        ("STRUCT(a INTEGER[])[]", "json"),
        ("MAP(VARCHAR, INTEGER)", "json"),
        ("ENUM('a', 'b')", "text"),
        ('"NULL"', "text"),
        ("JSON", "json"),
    ],
)
def test_type_of_the_engine_has_one_of_postgresql(duckdb: str, name: str) -> None:
    assert type_of(duckdb).name == name


def test_nested_values_are_json() -> None:
    value = {
        "a": [1, None, {"at": datetime(2026, 1, 1, tzinfo=UTC)}],
        7: Decimal("1.5"),
        "t": time(1),
        "u": UUID(int=1),
    }
    assert json.loads(types.JSON.text(value)) == {
        "a": [1, None, {"at": "2026-01-01 00:00:00+00"}],
        "7": "1.5",
        "t": "01:00:00",
        "u": "00000000-0000-0000-0000-000000000001",
    }


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_without_a_value_have_names(text: str) -> None:
    assert types.FLOAT8.text(float(text)).decode() == text
    binary = Transformer().get_loader(types.NUMERIC.oid, Format.BINARY).load(types.NUMERIC.binary(Decimal(text)))
    assert str(binary) == text


def test_date_before_the_epoch_is_negative() -> None:
    assert types.DATE.binary(date(1999, 12, 31)) == struct.pack("!i", -1)


@pytest.mark.parametrize("wrong", [lambda: type_of("SMALLINT").binary(1 << 20), lambda: type_of("UUID").binary("x")])
def test_unfit_value_raises_no_bytes(wrong: Callable[[], bytes]) -> None:
    with pytest.raises((struct.error, AttributeError)):
        wrong()


def test_psycopg_knows_every_type() -> None:
    known = {info.oid for info in psycopg.adapters.types} | {info.array_oid for info in psycopg.adapters.types}
    assert set(ALL) <= known
