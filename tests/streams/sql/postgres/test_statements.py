"""Division of a text into statements, and the statements that the server answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.sql.postgres import statements
from streams.sql.postgres.statements import Begin, Command, Deallocate, End, NoEffect, RollBackTo, Set, Show


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("select 1", ["select 1"]),
        ("select 1; select 2;", ["select 1", " select 2"]),
        ("select ';'; select 2", ["select ';'", " select 2"]),
        ("select 'it''s;' ; select 2", ["select 'it''s;' ", " select 2"]),
        (r"select E'\';'; select 2", [r"select E'\';'", " select 2"]),
        ('select 1 as ";"";"', ['select 1 as ";"";"']),
        ("select $$;$$, $a$;$$;$a$; x", ["select $$;$$, $a$;$$;$a$", " x"]),
        ("select 1 -- ; no\n; x", ["select 1 -- ; no\n", " x"]),
        ("/* ; */ select 1", ["/* ; */ select 1"]),
        ("select $1; select $2", ["select $1", " select $2"]),
        ("", []),
        (" ; ;-- nothing\n", []),
        ("select 'open ; ", ["select 'open ; "]),
    ],
)
def test_statements_end_at_semicolons_outside_literals(text: str, parts: list[str]) -> None:
    assert statements.split(text) == parts


@given(st.text(st.sampled_from("'\"$aeE;-/*\\\n 1")))
def test_tokens_are_the_text(text: str) -> None:
    assert "".join(token.text for token in statements.tokens(text)) == text


@pytest.mark.parametrize(
    ("sql", "command"),
    [
        ("BEGIN", Begin("BEGIN")),
        ("begin transaction isolation level serializable", Begin("BEGIN")),
        ("START TRANSACTION READ ONLY", Begin("START TRANSACTION")),
        ("/* mine */ commit", End("COMMIT")),
        ("end", End("COMMIT")),
        ("rollback", End("ROLLBACK")),
        ("ROLLBACK TO SAVEPOINT a", RollBackTo()),
        ("savepoint a", NoEffect("SAVEPOINT")),
        ("RELEASE SAVEPOINT a", NoEffect("RELEASE")),
        ("SET application_name = 'it''s'", Set("application_name", "it's")),
        ("set session TimeZone to UTC", Set("TimeZone", "UTC")),
        ("SET TIME ZONE 'Asia/Kolkata'", Set("TimeZone", "Asia/Kolkata")),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", NoEffect("SET")),
        ("show server_version", Show("server_version")),
        ("SHOW TRANSACTION ISOLATION LEVEL", Show("transaction_isolation")),
        ("discard all", Deallocate(None, "DISCARD ALL")),
        ("DEALLOCATE ALL", Deallocate(None, "DEALLOCATE ALL")),
        ('DEALLOCATE "Mine"', Deallocate("Mine")),
        ("deallocate prepare MINE", Deallocate("mine")),
        ("UNLISTEN *", NoEffect("UNLISTEN")),
        ("select 1", None),
        ("beginning", None),
        ("endless", None),
        ("show all tables", None),
    ],
)
def test_commands_are_found(sql: str, command: Command | None) -> None:
    assert statements.command(sql) == command


@pytest.mark.parametrize(
    ("error", "sql", "expected"),
    [
        ("No x\n\nLINE 1: select x\n               ^", "select x", ("No x", 8)),
        ("No x\n\nLINE 2:  x\n         ^", "select\n x", ("No x", 9)),
        ("No x\n\nLINE 1: DESCRIBE select x\n                        ^", "select x", ("No x", 8)),
        ("No x", "select x", ("No x", None)),
    ],
)
def test_error_has_its_position(error: str, sql: str, expected: tuple[str, int | None]) -> None:
    assert statements.located(error, sql) == expected


@pytest.mark.parametrize("line", ["LINE 1: ...ct x\n         ^", "LINE 7: select x\n        ^"])
def test_line_that_is_not_the_clients_stays(line: str) -> None:
    assert statements.located(f"No x\n\n{line}", "select x") == (f"No x\n\n{line}", None)
