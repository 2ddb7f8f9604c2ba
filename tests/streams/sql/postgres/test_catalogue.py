"""Queries that clients really send at their start, and the rules that adapt them."""

from pathlib import Path

import pytest

from streams.sql.postgres.catalogue import parameter_types, rewrite
from tests.support.pg_server import Running

RECORDED = Path(__file__).parent / "recorded"
PARTS = {file.stem: file.read_text().split("\n---\n") for file in sorted(RECORDED.glob("*.sql"))}
COLUMNS = ["id", "status", "restaurant", "total", "placed_ms", "placed_at", "codes", "customer", "partition"]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("client", PARTS)
async def test_recorded_queries_are_answered(running: Running, client: str, binary: bool) -> None:
    async with await running.psycopg() as connection:
        (oid,) = await (await connection.execute("SELECT 'orders'::regclass::oid")).fetchone() or (0,)
        for part in PARTS[client]:
            cursor = await connection.execute(part.replace("{oid}", str(oid)).encode(), binary=binary)
            assert cursor.description is None or isinstance(await cursor.fetchall(), list), part


async def test_grafana_lists_tables_and_columns(running: Running) -> None:
    async with await running.psycopg() as connection:
        tables = await (await connection.execute(PARTS["grafana"][0].encode(), binary=True)).fetchall()
        columns = await (await connection.execute(PARTS["grafana"][1].encode(), binary=True)).fetchall()
    assert [name for (name,) in tables] == ["drivers", "open_orders", "orders"]
    assert sorted(columns) == sorted(
        zip(
            COLUMNS,
            ["text", "text", "text", "numeric", "bigint", "timestamp with time zone", "ARRAY", "json", "integer"],
            strict=True,
        )
    )


async def test_metabase_may_read_and_nothing_else(running: Running) -> None:
    async with await running.psycopg() as connection:
        rows = await (await connection.execute(PARTS["metabase"][4].encode())).fetchall()
    assert sorted(rows) == [(None, "public", name, False, True, False) for name in ("drivers", "open_orders", "orders")]


async def test_result_has_the_types_of_the_catalogue(running: Running) -> None:
    async with await running.psycopg() as connection:
        cursor = await connection.execute(
            "SELECT attname, atttypid::int FROM pg_attribute WHERE attrelid = 'orders'::regclass ORDER BY attnum"
        )
        catalogue = await cursor.fetchall()
        result = await connection.execute("SELECT * FROM orders LIMIT 0")
        assert result.description is not None
        assert [(column.name, column.type_code) for column in result.description] == catalogue


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 'pg_catalog.x', \"pg_catalog.x\" from orders", None),
        ("select id from orders where status = 'public.x'", None),
        ("select id from public.orders", "select id from main.orders"),
        ('select id from "public"."orders"', 'select id from main."orders"'),
        ("select public.id from other public", "select main.id from other public"),
        ("select pg_catalog.lower('A')", "select lower('A')"),
        ("select 'x' OPERATOR(pg_catalog.~) 'y' COLLATE pg_catalog.default", "select 'x'  ~  'y' "),
        ("select 'orders'::pg_catalog.regclass", "select postgres.regclass('orders')"),
        ("select $1::regclass", "select postgres.regclass($1)"),
        ("select atttypid::regtype::text", "select postgres.format_type(atttypid, -1)::text"),
        ("select x.pg_class, version", None),
        ("select version()", "select postgres.version()"),
        ("select current_setting('a')", "select postgres.current_setting('a')"),
        ("select 1 where a = any('{a,b}')", "select 1 where a = any(string_to_array(trim('{a,b}', '{}'), ','))"),
    ],
)
def test_rules_change_only_the_catalogue(sql: str, expected: str | None) -> None:
    assert rewrite(sql) == (expected or sql)


@pytest.mark.parametrize(
    ("sql", "types"),
    [
        ("select 1 where a = any($1)", {1: 1009}),
        ("select 1 where a <> ALL ( $2 ) and b = $1 limit $3", {2: 1009, 3: 20}),
        ("select $1::int + $2 :: BIGINT, $3::timestamptz, $4::decimal(9,2)", {1: 23, 2: 20, 3: 1184, 4: 1700}),
        ("select $1::point, $2::int[]", {1: 25}),
        ("select 'any($1)' -- limit $2", {}),
    ],
)
def test_types_of_parameters_are_found(sql: str, types: dict[int, int]) -> None:
    assert parameter_types(sql) == types
