"""The protocol, message by message."""

import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.sql.postgres.connection import MAX_PORTALS, Limits
from streams.sql.postgres.messages import MAX_MESSAGE_BYTES, PROTOCOL
from tests.support.pg_client import (
    FLUSH,
    SYNC,
    TERMINATE,
    PgClient,
    bind,
    describe,
    execute,
    frame,
    kinds,
    parse,
    query,
    startup,
)
from tests.support.pg_server import PASSWORD, Running, serving
from tests.support.sql_sessions import DuckSession, Sessions

SSL = struct.pack("!ii", 8, 80877103)
GSS = struct.pack("!ii", 8, 80877104)


async def test_client_learns_the_settings(running: Running) -> None:
    client = await running.client(application_name="a test")
    assert client.settings["server_version"].startswith("15.")
    expected = {"client_encoding": "UTF8", "standard_conforming_strings": "on", "integer_datetimes": "on"}
    assert expected.items() <= client.settings.items()
    assert client.settings["application_name"] == "a test"


async def test_encryption_is_declined_and_the_start_goes_on(running: Running) -> None:
    client = await PgClient.open(running.port)
    for request in (SSL, GSS):
        client.send(request)
        assert await client.reader.readexactly(1) == b"N"
    client.send(startup(user="operator"))
    await client.authenticate(PASSWORD)
    assert kinds(await client.until("Z"))[0] == "R"


@pytest.mark.parametrize(("version", "options"), [(PROTOCOL + 2, {}), (PROTOCOL, {"_pq_.x": "1"})])
async def test_newer_protocol_is_negotiated_down(running: Running, version: int, options: dict[str, str]) -> None:
    client = await PgClient.open(running.port)
    client.send(startup(version, user="operator", **options))
    message = await client.message()
    assert (message.kind, message.payload[:4]) == ("v", struct.pack("!i", PROTOCOL))
    assert message.payload[8:] == b"".join(name.encode() + b"\0" for name in options)
    await client.authenticate(PASSWORD)
    assert (await client.until("Z"))[-1].payload == b"I"


async def test_older_protocol_is_refused(running: Running) -> None:
    client = await PgClient.open(running.port)
    client.send(startup(2 << 16, user="operator"))
    assert (await client.message()).fields["C"] == "0A000"


async def test_text_may_have_several_statements(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(query("select 1; begin; select 2 limit 0;"))
    assert kinds(messages) == "TDCCTCZ"
    assert messages[-1].payload == b"T"


async def test_error_ends_a_text_of_statements(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(query("select 1; select nope; select 3"))
    assert kinds(messages) == "TDCEZ"
    assert messages[3].fields["C"] == "42703"


async def test_error_of_a_statement_has_a_position(running: Running) -> None:
    client = await running.client()
    (error, _) = await client.ask(query("select 1,\n nope from orders"))
    assert error.fields["P"] == "12"
    assert "LINE" not in error.fields["M"]


async def test_empty_text_is_answered(running: Running) -> None:
    client = await running.client()
    assert kinds(await client.ask(query(" ; "))) == "IZ"
    assert kinds(await client.ask(parse(""), bind(), describe(), execute(), SYNC)) == "12nIZ"


async def test_prepared_statement_is_described(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(
        parse("select id, total from orders where partition = $1 and id = any($2)", "s", (23,)),
        describe("S", "s"),
        SYNC,
    )
    assert kinds(messages) == "1tTZ"
    assert messages[1].payload == struct.pack("!hII", 2, 23, 1009)


async def test_results_are_binary_where_asked(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(
        parse("select n::bigint, n::varchar from range($1::int) t(n)", oids=(23,)),
        bind((struct.pack("!i", 1),), formats=(1,), results=(1, 0)),
        describe(),
        execute(),
        SYNC,
    )
    assert kinds(messages) == "12TDCZ"
    assert messages[3].payload == struct.pack("!hiqi", 2, 8, 0, 1) + b"0"


async def test_one_format_counts_for_all_columns(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(parse("select 1::smallint, 2::smallint"), bind(results=(1,)), execute(), SYNC)
    assert messages[2].payload == struct.pack("!hihih", 2, 2, 1, 2, 2)


async def test_driver_may_send_the_type_that_it_was_told(running: Running) -> None:
    client = await running.client()
    wanted = parse("select $1::bigint + 1 from range(3) limit $2", "s")
    (_, told, *_) = await client.ask(wanted, describe("S", "s"), SYNC)
    assert told.payload == struct.pack("!hII", 2, 20, 20)
    values = (struct.pack("!q", 41), struct.pack("!q", 1))
    messages = await client.ask(bind(values, statement="s", formats=(1,)), execute(), SYNC)
    assert (kinds(messages), messages[1].payload[6:]) == ("2DCZ", b"42")
    messages = await client.ask(bind((b"41", b"1"), statement="s"), execute(), SYNC)
    assert (kinds(messages), messages[1].payload[6:]) == ("2DCZ", b"42")


async def test_execute_stops_at_its_limit_and_goes_on(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(
        parse("select * from range(5)"), bind(), execute(2), execute(2), execute(2), execute(2), SYNC
    )
    assert kinds(messages) == "12DDsDDsDCCZ"
    assert [one.payload for one in messages if one.kind == "C"] == [b"SELECT 1\0", b"SELECT 0\0"]


async def test_portal_survives_a_sync_in_a_transaction_only(running: Running) -> None:
    client = await running.client()
    await client.ask(query("begin"))
    await client.ask(parse("select * from range(5)"), bind(portal="p"), execute(2, "p"), SYNC)
    assert kinds(await client.ask(execute(2, "p"), SYNC)) == "DDsZ"
    await client.ask(query("commit"))
    assert (await client.ask(execute(2, "p"), SYNC))[0].fields["C"] == "34000"


async def test_another_statement_ends_a_suspended_portal(running: Running) -> None:
    client = await running.client()
    await client.ask(query("begin"))
    await client.ask(parse("select * from range(5)"), bind(portal="p"), execute(2, "p"), SYNC)
    assert kinds(await client.ask(query("select 1"))) == "TDCZ"
    assert (await client.ask(execute(2, "p"), SYNC))[0].fields["C"] == "34000"


@pytest.mark.parametrize(
    "wrong", [parse("select nope"), bind(statement="none"), execute(portal="none")], ids=["parse", "bind", "execute"]
)
async def test_server_skips_to_sync_after_an_error(running: Running, wrong: bytes) -> None:
    client = await running.client()
    messages = await client.ask(wrong, parse("select 1"), bind(), execute(), query("select 1"), SYNC)
    assert kinds(messages) == "EZ"
    assert kinds(await client.ask(query("select 1"))) == "TDCZ"


async def test_flush_brings_the_answers_so_far(running: Running) -> None:
    client = await running.client()
    client.send(parse("select 1", "s"), describe("S", "s"), FLUSH)
    assert kinds(await client.until("T")) == "1tT"


async def test_failed_transaction_waits_for_its_end(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(query("begin; select nope"))
    assert messages[-1].payload == b"E"
    assert (await client.ask(query("select 1")))[0].fields["C"] == "25P02"
    messages = await client.ask(query("commit"))
    assert (messages[0].payload, messages[1].payload) == (b"ROLLBACK\0", b"I")


async def test_savepoint_mends_a_transaction(running: Running) -> None:
    client = await running.client()
    await client.ask(query("begin; savepoint a; select nope"))
    assert (await client.ask(query("rollback to a")))[-1].payload == b"T"


async def test_settings_are_kept_and_shown(running: Running) -> None:
    client = await running.client()
    await client.ask(query("set application_name = 'mine'"))
    messages = await client.ask(query("show application_name"))
    assert (kinds(messages), messages[1].payload[6:]) == ("TDCZ", b"mine")


async def test_fixed_setting_is_kept_with_a_notice(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(query("set timezone to 'Asia/Kolkata'"))
    assert kinds(messages) == "NCZ"
    assert "UTC" in messages[0].fields["M"]
    assert kinds(await client.ask(query("set client_encoding to 'utf-8'"))) == "CZ"


async def test_deallocated_statement_is_gone(running: Running) -> None:
    client = await running.client()
    await client.ask(parse("select 1", "S"), SYNC)
    assert (await client.ask(parse("select 1", "S"), SYNC))[0].fields["C"] == "42P05"
    assert kinds(await client.ask(query('deallocate "S"'))) == "CZ"
    assert (await client.ask(bind(statement="S"), SYNC))[0].fields["C"] == "26000"
    await client.ask(parse("select 1", "S"), SYNC)
    await client.ask(query("discard all"))
    assert (await client.ask(bind(statement="S"), SYNC))[0].fields["C"] == "26000"


async def test_close_ends_statement_and_portal(running: Running) -> None:
    client = await running.client()
    messages = await client.ask(
        parse("select 1", "s"),
        bind(statement="s", portal="p"),
        frame("C", b"Pp\0"),
        frame("C", b"Ss\0"),
        frame("C", b"Snone\0"),
        bind(statement="s"),
        SYNC,
    )
    assert kinds(messages) == "12333EZ"


@pytest.mark.parametrize(
    ("message", "state"),
    [
        (parse("select 1; select 2"), "42601"),
        (bind(statement="none"), "26000"),
        (execute(portal="none"), "34000"),
        (describe("P", "none"), "34000"),
        (parse("insert into orders values (1)"), "25006"),
        (parse("select 1") + bind((b"1",)), "08P01"),
        (parse("select $1", oids=(23,)) + bind((b"x",)), "22P02"),
        (parse("select $1", oids=(23,)) + bind((b"x",), formats=(1,)), "22P03"),
        (parse("select $1", oids=(600,)) + bind((b"x",), formats=(1,)), "0A000"),
        (parse("select 1") + bind(results=(2,)), "22023"),
        (parse("select 1, 2") + bind(results=(1, 1, 1)), "08P01"),
        (query("select $1"), "42P02"),
        (query("copy orders to '/tmp/x'"), "25006"),
        (b"".join(bind(portal=f"p{n}") for n in range(MAX_PORTALS + 1)), "54000"),
        (frame("Q", b"select '\xff'\0"), "22021"),
        (frame("F", b""), "0A000"),
    ],
)
async def test_mistake_is_an_error_and_no_end(running: Running, message: bytes, state: str) -> None:
    client = await running.client()
    first = parse("select 1") if message.startswith(b"B") else b""
    messages = [*await client.ask(first + message + SYNC)]
    assert [one.fields["C"] for one in messages if one.kind == "E"] == [state]
    fresh = await running.client()
    assert kinds(await fresh.ask(query("select 1"))) == "TDCZ"


@pytest.mark.parametrize(
    "message",
    [
        frame("Q", b"select 1"),  # the text has no end
        frame("Q", b"select 1\0more"),
        frame("P", b"a\0select 1\0\0\x05"),
        frame("B", b"\0\0\0\0\0\x01\xff\xff\xff\x00"),
        frame("D", b"Xa\0"),
        frame("p", b"a password"),
        frame("\x01", b""),
        b"Q" + struct.pack("!i", MAX_MESSAGE_BYTES + 1),
        b"Q" + struct.pack("!i", -1),
        b"Q\0\0\0\x03",
    ],
)
async def test_bytes_outside_the_protocol_end_the_connection(running: Running, message: bytes) -> None:
    client = await running.client()
    client.send(message)
    error = await client.message()
    assert (error.kind, error.fields["S"], error.fields["C"]) == ("E", "FATAL", "08P01")
    assert await client.closed() == b""


@pytest.mark.parametrize(
    "packet",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!ii", 1 << 30, PROTOCOL),
        struct.pack("!i", 4),
        SSL * 4,
        struct.pack("!ii", 12, PROTOCOL) + b"user",
        startup(user="operator") + frame("Q", b"select 1\0"),
        startup(user="operator") + frame("p", b"MD5\0\0\0\0\0"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_bytes_before_authentication_start_no_session(
    running: Running, sessions: Sessions, packet: bytes
) -> None:
    client = await PgClient.open(running.port)
    client.send(packet)
    assert b"FATAL" in await client.closed()
    assert sessions.opened == []


@pytest.fixture
async def plain() -> AsyncIterator[Running]:
    """Return a server without a catalogue, which starts a session faster."""
    async with serving(Sessions(lambda setup: DuckSession())) as running:
        yield running


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(frame, st.sampled_from("QPBDECSHFXdcfp"), st.binary(max_size=40)),
            st.builds(query, st.text(max_size=20)),
            st.sampled_from([parse("select $1::int"), bind((b"1",)), describe(), execute(1), SYNC]),
        ),
        max_size=8,
    )
)
async def test_hostile_bytes_crash_nothing(plain: Running, parts: list[bytes]) -> None:
    client = await plain.client()
    with suppress(OSError):
        client.send(*parts, TERMINATE)
        client.writer.write_eof()
        answer = await client.closed()
        assert b"Traceback" not in answer
        assert b"XX000" not in answer
    again = await plain.client()
    assert kinds(await again.ask(query("select 1"))) == "TDCZ"
    await again.close()


async def test_result_is_cut_at_the_limit_with_a_notice(sessions: Sessions) -> None:
    async with serving(sessions, Limits(rows=700)) as running:
        client = await running.client()
        messages = await client.ask(query("select * from range(701)"))
        assert kinds(messages) == "T" + "D" * 700 + "NCZ"
        assert messages[-3].fields["C"] == "01004"
        assert kinds(await client.ask(query("select * from range(700)"))) == "T" + "D" * 700 + "CZ"
