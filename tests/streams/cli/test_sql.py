"""`dabbawala sql`: its formats, its prompt and its errors."""

import csv
import io
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from streams.cli.sql import run_once
from streams.cli.sql_prompt import history_file, is_complete, prompt, words
from streams.sql.engine import DuckSession, open_session
from tests.streams.cli.conftest import Run
from tests.streams.sql.rows import MemoryRows

VALUES = """
    select 1 as number, 'a, "b"' as text, null as nothing, {'x': [1.5]} as nested,
           timestamptz '2026-01-02 00:00:00+00' as day
"""


def test_json_has_an_object_for_each_row(run: Run) -> None:
    done = run("sql", "--json", f"{VALUES} union all {VALUES}")
    row = {"number": 1, "text": 'a, "b"', "nothing": None, "nested": {"x": [1.5]}, "day": "2026-01-02T00:00:00+00:00"}
    assert json.loads(done.printed) == [row, row]
    assert "2 rows, took" in done.error
    lines = run("sql", "--jsonl", f"{VALUES} union all {VALUES}").printed.splitlines()
    assert [json.loads(line) for line in lines] == [row, row]


def test_csv_has_heads_and_quotes(run: Run) -> None:
    done = run("sql", "--csv", VALUES)
    heads, row = csv.reader(io.StringIO(done.printed))
    assert heads == ["number", "text", "nothing", "nested", "day"]
    assert row[:4] == ["1", 'a, "b"', "", '{"x": [1.5]}']


def test_a_table_is_for_people(run: Run) -> None:
    done = run("sql", "select 7 as lucky, 'harmless\x1b[31m' as text")
    assert "lucky" in done.printed
    assert "\x1b" not in done.printed
    assert "1 row, took" in done.error
    refused = run("sql", "select * from range(10001)")
    assert (refused.status, "10000 rows" in refused.error) == (2, True)


def test_describe_lists_tables_and_columns(run: Run) -> None:
    tables = {row["table"] for row in json.loads(run("sql", "--json", "describe").printed)}
    assert {"orders", "journal", "waiting"} <= tables
    columns = {row["column"]: row for row in json.loads(run("sql", "--json", "describe", "orders").printed)}
    assert columns["placed_at"]["type"] == "TIMESTAMP WITH TIME ZONE"
    missing = run("sql", "describe nothing")
    assert (missing.status, "orders" in missing.error) == (1, True)


def test_an_error_is_a_sentence(run: Run) -> None:
    for statement, word in (("drop table orders", "read only"), ("selec", "syntax error"), (" ", "no statement")):
        done = run("sql", statement)
        assert (done.status, done.printed) == (2, "")
        assert word in done.error
    assert "--reason" in run("sql", "--reveal", "select 1").error


# -- the prompt ------------------------------------------------------------------------------------------------------


@pytest.fixture
def session() -> Iterator[DuckSession]:
    opened = open_session(MemoryRows({}))
    yield opened
    opened.close()


@pytest.fixture
def keyboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    monkeypatch.setenv("DABBAWALA_DIR", str(tmp_path / "home"))
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        yield typed


def test_the_prompt_takes_statements_of_several_lines(
    session: DuckSession, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    statements = ("select 40 +\r2 as answer;", "selec;", "delete from orders;", "select count(*) as n from orders;")
    keyboard.send_text("".join(f"{statement}\r" for statement in (*statements, "exit")))
    prompt(session, lambda text: run_once(session, text, "jsonl"))
    captured = capsys.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()] == [{"answer": 42}, {"n": 0}]
    assert "syntax error" in captured.err
    assert "read only" in captured.err


def test_the_history_is_private_and_bounded(
    session: DuckSession, keyboard: PipeInput, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keyboard.send_text("select 'Zquark';\r\x04")
    prompt(session, lambda _: None)
    file = tmp_path / "home" / "sql-history"
    assert "Zquark" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setattr(sys.modules["streams.cli.sql_prompt"], "MAX_HISTORY_BYTES", 100)
    file.write_text("".join(f"\n# 2026\n+select {number};\n" for number in range(100)))
    kept = history_file().read_text()
    assert len(kept) <= 100
    assert kept.startswith("# 2026\n+select ")
    assert kept.endswith("+select 99;\n")


@pytest.mark.parametrize(
    ("text", "complete"), [("select 1", False), ("select 1;  ", True), ("", True), ("exit", True), ("quit;", True)]
)
def test_enter_sends_what_ends_with_a_semicolon(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


def test_tables_columns_and_keywords_are_completed() -> None:
    known = words()
    assert {"orders", "waiting", "placed_at", "select", "group"} <= set(known)
    assert len(known) == len(set(known))
