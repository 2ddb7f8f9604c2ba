"""The server with real clients: psql, psycopg, many at a time, and some that misbehave."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.pq import TransactionStatus

from streams.sql.interfaces import Column, Prepared, Result, Row, SqlError
from streams.sql.postgres.connection import Limits
from streams.sql.postgres.server import Address, WrongAddress, parse_address, psql_command
from tests.support.pg_client import PgClient, bind, execute, kinds, parse, query
from tests.support.pg_server import PASSWORD, Running, serving
from tests.support.sql_sessions import DuckSession, Sessions

needs_psql = pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
SLOW = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b"
DEADLINE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.01)


async def psql(port: int, *commands: str, code: int = 0) -> str:
    """Run psql with commands, and return everything that it prints."""
    options = [option for command in commands for option in ("-c", command)]
    arguments = ["-X", "-h", "127.0.0.1", "-p", str(port), "-U", "operator", *options, "dabbawala"]
    environment = {**os.environ, "PGPASSWORD": PASSWORD, "PAGER": "cat", "LC_ALL": "C.UTF-8"}
    process = await asyncio.create_subprocess_exec(
        "psql", *arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode == code, output.decode()
    return output.decode()


# --- psql ---


@needs_psql
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("SELECT id, total FROM orders ORDER BY placed_ms LIMIT 1", "shop:1 |  1.25"),
        (r"\d", "public | open_orders | view  | operator"),
        (r"\dt", "public | drivers | table | operator"),
        (r"\dt+", "Orders and their states"),
        (r"\dv", "public | open_orders | view | operator"),
        (r"\dn", "public | operator"),
        (r"\df", "(0 rows)"),
        (r"\l", "dabbawala | operator | UTF8"),
        (r"\du", "operator"),
        (r"\d orders", "placed_at  | timestamp with time zone |"),
        (r"\d+ orders", "Time of the order"),
        (r"\d public.orders", "total      | numeric(18,2)"),
        (r"\d+ open_orders", "WHERE (status = 'CREATED')"),
        (r"\conninfo", 'database "dabbawala" as user "operator"'),
        ("SHOW server_version", "15.0 (Dabbawala)"),
        ("BEGIN", "BEGIN"),
        ("SET statement_timeout = 1", "SET"),
        ("EXPLAIN SELECT 1", "physical_plan"),
    ],
)
async def test_psql_shows(running: Running, command: str, expected: str) -> None:
    assert expected in await psql(running.port, command)


@needs_psql
async def test_psql_expands_rows(running: Running) -> None:
    assert "id       | d-2\n" in (await psql(running.port, r"\x", 'SELECT id, busy AS "is busy" FROM drivers')).replace(
        "id      |", "id       |"
    )


@needs_psql
async def test_psql_points_at_an_error(running: Running) -> None:
    output = await psql(running.port, "SELECT nope FROM orders", code=1)
    assert "LINE 1: SELECT nope FROM orders\n               ^\n" in output


@needs_psql
async def test_psql_refuses_no_table_by_surprise(running: Running) -> None:
    assert 'Did not find any relation named "none"' in await psql(running.port, r"\d none", code=1)


@needs_psql
def test_printed_command_line_connects(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from streams.sql.postgres import serve;"
        "from tests.support.sql_sessions import DuckSession;"
        f"directory = Path({str(tmp_path)!r});"
        "serve('127.0.0.1:0', DuckSession, directory=directory, echo=lambda text: print(text, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        command = server.stdout.readline().strip()
        secret = (tmp_path / "sql" / "password").read_text().strip()
        try:
            shown = subprocess.run(
                f"{command} -X -A -t -c 'SELECT count(*) FROM orders'",
                shell=True,
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
            )
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE_S) == 0
    assert (shown.stdout, secret in command) == ("30\n", False)


# --- psycopg ---


async def test_psycopg_reads_every_type(running: Running) -> None:
    async with await running.psycopg() as connection:
        for binary in (False, True):
            rows = await (
                await connection.execute("SELECT * FROM orders WHERE id = 'shop:1'", binary=binary)
            ).fetchall()
            assert rows == [
                (
                    *("shop:1", "DELIVERED", "r-1", Decimal("1.25"), 1767225600001),
                    *(datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), ["a", "b 1"], {"name": "***"}, 1),
                )
            ]


async def test_psycopg_sends_parameters(running: Running) -> None:
    async with await running.psycopg() as connection:
        cursor = await connection.execute(
            "SELECT id FROM orders WHERE status = %s AND total > %s AND placed_at < %s AND partition = ANY(%s) "
            "AND id = ANY(%s) LIMIT %s",
            ("CREATED", Decimal("2.5"), datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC), [2, 3], ["shop:3", "shop:6"], 5),
        )
        assert sorted(await cursor.fetchall()) == [("shop:3",), ("shop:6",)]


async def test_psycopg_prepares_on_the_server(running: Running) -> None:
    async with await running.psycopg(prepare_threshold=1) as connection:
        for partition in (0, 1, 2, 3, 0):
            cursor = await connection.execute("SELECT count(*) FROM orders WHERE partition = %s", (partition,))
            assert await cursor.fetchone() == (7 if partition in (0, 3) else 8,)


async def test_psycopg_makes_transactions(running: Running) -> None:
    async with await running.psycopg(autocommit=False) as connection:
        with pytest.raises(psycopg.errors.UndefinedColumn):
            await connection.execute("SELECT nope FROM orders")
        assert connection.info.transaction_status == TransactionStatus.INERROR
        await connection.rollback()
        async with connection.transaction():
            with pytest.raises(psycopg.errors.UndefinedColumn):
                async with connection.transaction():
                    await connection.execute("SELECT nope FROM orders")
            assert await (await connection.execute("SELECT 5")).fetchone() == (5,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute("DELETE FROM orders")


async def test_psycopg_sends_a_pipeline(running: Running) -> None:
    async with await running.psycopg() as connection, connection.pipeline():
        cursors = [await connection.execute("SELECT %s::int", (number,)) for number in range(20)]
        assert [await cursor.fetchone() for cursor in cursors] == [(number,) for number in range(20)]


async def test_client_cancels_its_statement(running: Running, sessions: Sessions) -> None:
    async with await running.psycopg() as connection:
        statement = asyncio.create_task(connection.execute(SLOW))
        await until(lambda: bool(sessions.opened) and _duck(sessions).running.is_set())
        while not statement.done():  # An engine may lose an interrupt that comes before the statement starts.
            await connection.cancel_safe()
            await asyncio.wait([statement], timeout=0.5)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await statement
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_cancel_with_a_wrong_key_does_nothing(running: Running, sessions: Sessions) -> None:
    client = await running.client()
    wrong = bytes([client.key[4] ^ 1]) + client.key[5:]
    client.send(query(SLOW))
    await until(_duck(sessions).running.is_set)
    for key in (wrong, b"", wrong * 50):
        other = await PgClient.open(running.port)
        other.send(struct.pack("!ii", 12 + len(key), 80877102) + client.key[:4] + key)
        await other.closed()
    assert not _duck(sessions).interrupted.is_set()
    answer = asyncio.create_task(client.until("Z"))
    while not answer.done():
        other = await PgClient.open(running.port)
        other.send(struct.pack("!ii", 16, 80877102) + client.key)
        await asyncio.wait([answer], timeout=0.5)
    assert (await answer)[-2].fields["C"] == "57014"


# --- clients that leave, wait, and come in numbers ---


async def test_statement_ends_with_its_client(running: Running, sessions: Sessions) -> None:
    client = await running.client()
    client.send(query(SLOW))
    await until(_duck(sessions).running.is_set)
    await client.close()
    await until(_duck(sessions).closed.is_set)
    assert _duck(sessions).interrupted.is_set()
    await until(lambda: running.server.connections == 0)


async def test_session_closes_with_its_client(running: Running, sessions: Sessions) -> None:
    async with await running.psycopg() as connection:
        await connection.execute("SELECT 1")
    await until(_duck(sessions).closed.is_set)
    assert not _duck(sessions).interrupted.is_set()


async def test_server_ends_statements_when_it_closes(sessions: Sessions) -> None:
    async with serving(sessions) as running:
        client = await running.client()
        client.send(query(SLOW))
        await until(_duck(sessions).running.is_set)
    assert _duck(sessions).closed.is_set()


async def test_connections_have_a_limit(sessions: Sessions) -> None:
    async with serving(sessions, Limits(connections=2)) as running:
        first, second = await running.client(), await running.client()
        with pytest.raises(psycopg.OperationalError, match="has 2 connections, its limit"):
            await running.psycopg()
        await first.close()
        await until(lambda: running.server.connections == 1)
        third = await running.client()
        for client in (second, third):
            assert kinds(await client.ask(query("SELECT 1"))) == "TDCZ"


async def test_many_connections_work_at_a_time(running: Running) -> None:
    async def count() -> object:
        async with await running.psycopg() as connection:
            return await (await connection.execute("SELECT count(*) FROM orders")).fetchone()

    assert await asyncio.gather(*(count() for _ in range(10))) == [(30,)] * 10


async def test_silent_client_is_disconnected(sessions: Sessions) -> None:
    async with serving(sessions, Limits(authentication_s=0.2)) as running:
        client = await PgClient.open(running.port)
        assert await client.closed() == b""
        await until(lambda: running.server.connections == 0)


async def test_unauthenticated_connections_have_a_limit(sessions: Sessions) -> None:
    async with serving(sessions, Limits(unauthenticated=3, authentication_s=600)) as running:
        waiting = [await PgClient.open(running.port) for _ in range(3)]
        await until(lambda: running.server.connections == 3)
        refused = await PgClient.open(running.port)
        assert await refused.closed() == b""
        for client in waiting:
            await client.close()


async def test_client_that_reads_nothing_is_disconnected(sessions: Sessions) -> None:
    async with serving(sessions, Limits(write_s=0.2)) as running:
        client = await running.client()
        client.send(query("SELECT repeat('x', 1000) FROM range(100000)"))
        await until(_duck(sessions).closed.is_set)
        await client.close()


# --- long results ---


class Numbers:
    """A session whose every statement has a million rows, and which counts those that were read."""

    ROWS = 1_000_000
    COLUMNS = (Column("number", "BIGINT"), Column("text", "VARCHAR"))

    def __init__(self, setup: Sequence[str]) -> None:
        self.read = 0
        self.closed = threading.Event()
        self.columns: Sequence[Column] = self.COLUMNS

    def prepare(self, sql: str) -> Prepared:
        """Accept everything."""
        return Prepared(sql, self.COLUMNS)

    def run(self, prepared: Prepared, parameters: Sequence[object] = ()) -> Result:
        """Begin at the first row."""
        self.read = 0
        return self

    def batches(self, size: int) -> Iterator[list[Row]]:
        """Yield the rows."""
        for begin in range(0, self.ROWS, size):
            self.read += size
            yield [(number, "x" * 40) for number in range(begin, begin + size)]

    def interrupt(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Note the end."""
        self.closed.set()


@asynccontextmanager
async def numbers() -> AsyncIterator[tuple[PgClient, Numbers]]:
    """Open a connection to a server of `Numbers`."""
    opened: list[Numbers] = []

    def open_session(setup: Sequence[str]) -> Numbers:
        opened.append(Numbers(setup))
        return opened[-1]

    async with serving(open_session) as running:
        client = await running.client()
        yield client, opened[0]
        await client.close()


async def test_memory_is_flat_over_a_million_rows() -> None:
    async with numbers() as (client, _):
        client.send(query("SELECT"))
        await client.until("D")
        process = psutil.Process()
        begin, peak, count, tail = process.memory_info().rss, 0, 0, b""
        while not tail.endswith(b"Z\0\0\0\x05I"):
            data = await client.reader.read(1 << 20)
            count += len(data)
            tail = (tail + data)[-6:]
            peak = max(peak, process.memory_info().rss)
    assert count > Numbers.ROWS * 50
    assert peak - begin < 24 << 20  # The result has 58 MB.


async def test_server_reads_only_as_much_as_the_client_takes() -> None:
    async with numbers() as (client, session):
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.send(parse("SELECT"), bind(), execute(), query("SELECT"))
        await until(lambda: session.read > 0)
        last = -1
        while session.read != last:
            last = session.read
            await asyncio.sleep(0.5)
        assert session.read < Numbers.ROWS / 2


# --- failures ---


class Broken(DuckSession):
    """A session with a bug."""

    def run(self, prepared: Prepared, parameters: Sequence[object] = ()) -> Result:
        """Fail."""
        raise KeyError("internal detail")


async def test_bug_shows_nothing_internal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with serving(Sessions(Broken)) as running:
            client = await running.client()
            client.send(query("SELECT 1"))
            error = await client.message()
            assert (error.fields["S"], error.fields["C"]) == ("FATAL", "XX000")
            assert b"detail" not in error.payload
            await client.closed()
    assert "KeyError" in caplog.text
    assert "Traceback" not in caplog.text


async def test_session_that_cannot_open_is_an_error() -> None:
    def refuse(setup: Sequence[str]) -> DuckSession:
        raise SqlError("No worker answers: start one.", "57P03")

    async with serving(refuse) as running:
        with pytest.raises(psycopg.OperationalError, match="No worker answers: start one"):
            await running.psycopg()


# --- addresses ---


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5433", Address("127.0.0.1", 5433)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:5433", Address("::1", 5433)),
    ],
)
def test_loopback_addresses_are_accepted(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["0.0.0.0:5433", ":5433", "192.0.2.1:1", "example.com:5433", "[::]:1"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(WrongAddress, match="not encrypted"):
        parse_address(text)


@pytest.mark.parametrize("text", ["", "5433", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", "127.0.0.1:-1"])
def test_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(WrongAddress, match="HOST:PORT"):
        parse_address(text)


async def test_taken_port_is_named(running: Running) -> None:
    with pytest.raises(WrongAddress, match=f"{running.port}.*another port"):
        await running.server.start(Address("127.0.0.1", running.port))


def test_command_line_quotes_the_file() -> None:
    assert "'/tmp/a b/password'" in psql_command(Address("127.0.0.1", 1), Path("/tmp/a b/password"))


def _duck(sessions: Sessions) -> DuckSession:
    session = sessions.opened[0]
    assert isinstance(session, DuckSession)
    return session
