"""The query engine: the rows that a statement needs, complete answers, and nothing but reading."""

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from streams.sql import engine
from streams.sql.engine import DuckSession, open_session
from streams.sql.interfaces import SqlError
from streams.sql.tables import TABLES, VIEWS
from tests.streams.sql.rows import AS_OF_MS, Asked, MemoryRows, rows_of

PLACED_MS = AS_OF_MS - 60_000


def an_order(name: str, stage: str = "IN_PREPARATION", **more: object) -> dict[str, Any]:
    return {
        "id": name,
        "stage": stage,
        "placed_ms": PLACED_MS,
        "updated_ms": PLACED_MS + 5_000,
        "restaurant": "tiffin",
        "dropoff": {"lat": 18.93799, "lon": 72.83599},
        **more,
    }


ORDERS = {
    order["id"]: order
    for order in (
        an_order("shop:1", "DELIVERED"),
        an_order("shop:2", attention=[{"wait": "p", "waits_for": "the food", "since_ms": PLACED_MS}]),
        an_order("shop:3", "SCHEDULED, asked", waits_since_ms=PLACED_MS),
        an_order("it's:4", "REJECTED, refund due"),
    )
}
ROWS: Mapping[str, Mapping[str, object]] = {
    "orders": ORDERS,
    "payments": {name: {"order": name, "stage": "CHARGED", "amount": 5, "currency": "INR"} for name in ORDERS},
    "journal": {
        f"{name}/{number}": {"seq": number, "at_ms": PLACED_MS, "machine": "order", "event": "Placed", "event_id": "e"}
        for name in ORDERS
        for number in (1, 2)
    },
    "calls": {
        "shop:3/prepare": {
            "request": {"kind": "prepare", "body": {"customer": "Zquark"}, "restaurant": "tiffin"},
            "attempt": 3,
            "due_ms": AS_OF_MS,
            "why": "status 500",
        }
    },
}


@pytest.fixture
def rows() -> MemoryRows:
    return MemoryRows(ROWS)


@pytest.fixture
def session(rows: MemoryRows, tmp_path: Path) -> Iterator[DuckSession]:
    opened = open_session(rows, directory=str(tmp_path))
    yield opened
    opened.close()


def test_group_by_reads_the_fields_it_needs(session: DuckSession, rows: MemoryRows) -> None:
    found = rows_of(session, "select status, count(*), avg(age_s) from orders group by 1 order by 1")
    assert found == [
        ("DELIVERED", 1, 5.0),
        ("IN_PREPARATION", 1, 60.0),
        ("REJECTED", 1, 5.0),
        ("SCHEDULED", 1, 60.0),
    ]
    assert rows.asked == [Asked("orders", ("placed_ms", "stage", "updated_ms"), None, None)]
    assert session.as_of_ms == AS_OF_MS


def test_rows_are_counted_without_any_field(session: DuckSession, rows: MemoryRows) -> None:
    assert rows_of(session, "select count(*) from orders") == [(4,)]
    assert rows_of(session, "select worker, count(*) from orders group by 1 order by 1")[0][0] == "http://w0"
    assert [asked.fields for asked in rows.asked] == [(), ()]


@pytest.mark.parametrize(
    ("sql", "keys"),
    [
        ("select stage from orders where id = 'shop:1'", ["shop:1"]),
        ("select stage from orders where key = 'it''s:4' and placed_ms > 0", ["it's:4"]),
        ("select stage from orders where order_id in ('shop:1', 'shop:2') and refunded = false", ["shop:1", "shop:2"]),
        ("select seq from journal where order_id = 'shop:2'", ["shop:2"]),
        ("select status from open_orders where order_id = 'shop:2'", ["shop:2"] * 5),
        ("select amount from orders join payments using (order_id) where order_id = 'shop:1'", ["shop:1"] * 2),
        ("select stage from orders where id = 'shop:1' or stage = 'DELIVERED'", [None]),
        ("select stage from orders where id <> 'shop:1'", [None]),
        ("select a.id from orders a, orders b where a.id = 'shop:1' and a.stage <> b.stage", [None]),
        ("select count(*) from journal where event = 'shop:1'", [None]),
    ],
)
def test_a_key_is_looked_up_at_its_owner(
    session: DuckSession, rows: MemoryRows, sql: str, keys: list[str | None]
) -> None:
    found = rows_of(session, sql)
    assert [asked.key for asked in rows.asked] == keys
    scanned = rows_of(open_session(MemoryRows(ROWS)), f"select * from ({sql}) order by all")
    assert sorted(found, key=str) == sorted(scanned, key=str)
    assert found


def test_keys_of_one_owner_give_each_row_once(session: DuckSession) -> None:
    sql = "select key from calls where key in ('shop:3', 'shop:3/prepare')"
    assert rows_of(session, sql) == [("shop:3/prepare",)]


def test_a_parameter_is_looked_up_too(session: DuckSession, rows: MemoryRows) -> None:
    prepared = session.prepare("select stage from orders where id = $1")
    assert (prepared.parameters, [column.name for column in prepared.columns]) == (1, ["stage"])
    result = session.run(prepared, ["shop:1"])
    assert list(result.batches(10)) == [[("DELIVERED",)]]
    result.close()
    assert rows.asked[-1].key == "shop:1"


@pytest.mark.parametrize(
    ("sql", "limit"),
    [
        ("select id from orders limit 1", 1),
        ("from orders limit 1 offset 2", 3),
        ("select id from orders order by id limit 1", None),
        ("select id from orders where stage = 'DELIVERED' limit 1", None),
        ("select count(*) from orders limit 1", None),
        ("select distinct restaurant from orders limit 1", None),
        ("select * from orders join payments using (order_id) limit 1", None),
    ],
)
def test_a_limit_is_read_only_if_any_rows_will_do(
    session: DuckSession, rows: MemoryRows, sql: str, limit: int | None
) -> None:
    assert len(rows_of(session, sql)) == 1
    assert {asked.limit for asked in rows.asked} == {limit}


def test_every_table_and_column_can_be_selected(session: DuckSession) -> None:
    for table in TABLES.values():
        for column in table.columns:
            rows_of(session, f"select {column} from {table.name}")
    for view in VIEWS:
        rows_of(session, f"from {view}")


def test_times_are_timestamps_beside_their_milliseconds(session: DuckSession) -> None:
    found = rows_of(session, "select placed_ms, placed_at, waits_since_at from orders where id = 'shop:1'")
    assert found == [(PLACED_MS, datetime.fromtimestamp(PLACED_MS / 1000, UTC), None)]


def test_waiting_names_the_wait_and_its_call(session: DuckSession) -> None:
    found = rows_of(session, "select order_id, waits_for, needs_person, attempts, last_error from waiting order by 1")
    assert found == [
        ("it's:4", "the refund", False, None, None),
        ("shop:2", "the food", True, None, None),
        ("shop:3", "the restaurant's answer", False, 2, "status 500"),
    ]


def test_lists_of_the_http_api_are_tables(session: DuckSession, rows: MemoryRows) -> None:
    assert rows_of(session, "select partition, state, lag from tasks") == [(0, "open", 3)]
    assert rows_of(session, "select worker from workers") == []
    assert rows.paths == ["/v1/tasks", "/v1/tasks"]


def test_a_statement_without_tables_asks_no_worker(session: DuckSession, rows: MemoryRows) -> None:
    assert rows_of(session, "select 1") == [(1,)]
    assert rows_of(session, "select count(*) from information_schema.tables where table_name = 'orders'") == [(1,)]
    assert rows_of(session, "describe orders")[0][0] == "key"
    assert rows_of(session, "explain select * from orders")
    assert rows_of(session, "select count(*) from pg_catalog.pg_class where relname = 'open_orders'") == [(1,)]
    assert not rows.asked + rows.paths


def test_a_column_the_plan_missed_is_read_after_all(
    session: DuckSession, rows: MemoryRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = session._planner.scans

    def forgetful(*given: Any) -> Any:
        return {name: structs.replace(scan, columns=scan.columns[:1]) for name, scan in scans(*given).items()}

    monkeypatch.setattr(session._planner, "scans", forgetful)
    assert rows_of(session, "select restaurant, stage from orders where id = 'shop:1'") == [("tiffin", "DELIVERED")]
    assert len(rows.asked) == 2


@pytest.mark.parametrize("fault", ["busy", "cut", "torn", "failed"])
def test_an_answer_that_breaks_off_is_asked_for_again(
    session: DuckSession, rows: MemoryRows, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RETRY_S", 0.0)
    rows.faults = [fault, fault]
    assert rows_of(session, "select count(*), count(id) from orders") == [(4, 4)]
    assert len(rows.asked) == 3


@pytest.mark.parametrize("fault", ["busy", "cut", "torn", "failed"])
def test_a_partial_answer_is_an_error(
    session: DuckSession, rows: MemoryRows, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PATIENCE_S", -1.0)
    rows.faults = [fault]
    with pytest.raises(SqlError, match="try again") as raised:
        rows_of(session, "select count(id) from orders")
    assert raised.value.sqlstate == "57P03"
    assert rows_of(session, "select count(id) from orders") == [(4,)], "the session goes on"


@pytest.mark.parametrize(
    "sql",
    [
        "insert into orders(id) values ('x')",
        "delete from orders",
        "update orders set id = 'x'",
        "create table x (a int)",
        "drop table orders",
        "copy orders to '/tmp/never'",
        "copy (select 1) to '/tmp/never'",
        "export database '/tmp/never'",
        "attach '/tmp/never.db'",
        "install httpfs",
        "load httpfs",
        "set threads = 8",
        "reset memory_limit",
        "pragma version",
        "call pragma_version()",
        "use memory",
        "begin",
        "vacuum",
        "prepare a as select 1",
        "explain copy orders to '/tmp/never'",
        "explain analyze select 1",
        "explain (format json, analyze) select 1",
        "explain analyze insert into orders(id) values ('x')",
        "with a as (insert into orders(id) values ('x') returning *) select * from a",
        "with a as (delete from orders returning *) select * from a",
        "select 1; select 2",
        "",
        "selec",
    ],
)
def test_a_statement_that_does_not_read_is_refused(session: DuckSession, rows: MemoryRows, sql: str) -> None:
    with pytest.raises(SqlError):
        session.prepare(sql)
    assert rows_of(session, "select count(*) from orders") == [(4,)]
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize(
    "expression",
    [
        "* from read_csv('/etc/passwd')",
        "* from read_text('/etc/passwd')",
        "* from read_blob('/etc/passwd')",
        "* from read_json('/etc/passwd')",
        "* from read_parquet('/etc/passwd')",
        "* from parquet_metadata('/etc/passwd')",
        "* from sniff_csv('/etc/passwd')",
        "* from glob('/etc/*')",
        "* from '/etc/passwd'",
        "* from '/etc/passwd.csv'",
        "* from query('copy (select 1) to ''/tmp/never''')",
        "* from duckdb_secrets(redact = false)",
        "getenv('HOME')",
        "* from read_text('https://example.invalid/x')",
    ],
)
def test_no_expression_reads_outside_the_tables(session: DuckSession, expression: str) -> None:
    try:
        found = rows_of(session, f"select {expression}")
    except SqlError:
        return
    assert found == []


def test_an_error_shows_its_place_in_the_statement(session: DuckSession) -> None:
    with pytest.raises(SqlError) as raised:
        session.prepare("select nothing from orders")
    assert raised.value.sqlstate == "42703"
    assert "EXPLAIN" not in str(raised.value)
    line, caret = str(raised.value).splitlines()[-2:]
    assert line[caret.index("^") :].startswith("nothing")


def test_a_statement_can_be_interrupted(session: DuckSession) -> None:
    prepared = session.prepare("select count(*) from range(100000000000) a, orders")
    timer = threading.Timer(0.2, session.interrupt)
    timer.start()
    with pytest.raises(SqlError, match="cancelled") as raised:
        list(session.run(prepared).batches(10))
    assert raised.value.sqlstate == "57014"
    session.restore()
    assert rows_of(session, "select count(*) from orders") == [(4,)]


def test_a_statement_has_limited_time() -> None:
    session = open_session(MemoryRows(ROWS), timeout_s=0.2)
    with pytest.raises(SqlError, match=r"took longer than 0\.2 s"):
        rows_of(session, "select count(*) from range(100000000000) a, orders")
    session.close()


def test_rows_are_dropped_after_the_run(session: DuckSession) -> None:
    rows_of(session, "select * from orders")
    found = session._connection.execute("select table_schema, table_type from information_schema.tables").fetchall()
    assert ("loaded", "BASE TABLE") not in found
    assert sum(kind == "BASE TABLE" for _, kind in found) == len(TABLES)
    assert session._connection.execute("select count(*) from orders").fetchall() == [(0,)]
